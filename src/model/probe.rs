//! A harmless signed call to Amazon, to learn how things are set.

/// What a signed look at a charge permission that nobody has came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// Amazon answered.
    Answered {
        /// The HTTP status.
        status: u16,
        /// The reason code, if there was one.
        reason: Option<String>,
    },
    /// No answer came; why.
    Silent(String),
}
