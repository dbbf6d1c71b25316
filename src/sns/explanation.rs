//! The checks by name, what each came to, and the refusal that the first failed one becomes.

/// Most characters of a received text that are repeated in a log line or an explanation.
const MAX_SHOWN_CHARS: usize = 160;

/// One check of an SNS message. The order of [`Check::ALL`] is the order in which they are made: cheapest first, and nothing
/// leaves this process before the topic is known to be allow-listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Check {
    /// Delivered in an envelope: raw delivery has no signature.
    Delivery,
    /// The body is an SNS envelope.
    Envelope,
    /// The headers with the message's type, id and topic, where they are given, agree with the body.
    Headers,
    /// The topic is allow-listed.
    Topic,
    /// The certificate's address is the one that the topic's region determines.
    CertificateUrl,
    /// The signature version is known.
    SignatureVersion,
    /// The message is neither too old nor from the future.
    Timestamp,
    /// The signature is strict Base64 of the right length.
    SignatureEncoding,
    /// The certificate could be had.
    Certificate,
    /// The certificate bears the name of SNS in the topic's region.
    CertificateName,
    /// The certificate is no authority's.
    CertificateUse,
    /// The certificate's key is RSA and long enough.
    CertificateKey,
    /// The certificate itself is not signed with a broken algorithm.
    CertificateAlgorithm,
    /// The certificate was issued by whom it names, where that issuer is known.
    CertificateChain,
    /// The certificate is valid at this time.
    CertificateValidity,
    /// The signature is that of the certificate's key over the message.
    Signature,
}

impl Check {
    /// Every check, in the order in which they are made.
    pub const ALL: [Self; 16] = [
        Self::Delivery,
        Self::Envelope,
        Self::Headers,
        Self::Topic,
        Self::CertificateUrl,
        Self::SignatureVersion,
        Self::Timestamp,
        Self::SignatureEncoding,
        Self::Certificate,
        Self::CertificateName,
        Self::CertificateUse,
        Self::CertificateKey,
        Self::CertificateAlgorithm,
        Self::CertificateChain,
        Self::CertificateValidity,
        Self::Signature,
    ];

    /// The short name for logs and metrics. Stable: dashboards rely on it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivery => "delivery",
            Self::Envelope => "envelope",
            Self::Headers => "headers",
            Self::Topic => "topic",
            Self::CertificateUrl => "certificate_url",
            Self::SignatureVersion => "signature_version",
            Self::Timestamp => "timestamp",
            Self::SignatureEncoding => "signature_encoding",
            Self::Certificate => "certificate",
            Self::CertificateName => "certificate_name",
            Self::CertificateUse => "certificate_use",
            Self::CertificateKey => "certificate_key",
            Self::CertificateAlgorithm => "certificate_algorithm",
            Self::CertificateChain => "certificate_chain",
            Self::CertificateValidity => "certificate_validity",
            Self::Signature => "signature",
        }
    }
}

/// What a check came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As expected.
    Passed,
    /// Not as expected; no further check was made.
    Failed(RefusedClass),
    /// An earlier check failed.
    NotReached,
}

/// One check with what was expected and what was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The check.
    pub check: Check,
    /// What was expected, in words; empty if the check was not reached.
    pub expected: String,
    /// What was found: bounded, and with control characters escaped; empty if the check was not reached.
    pub found: String,
    /// What it came to.
    pub outcome: Outcome,
}

impl Step {
    /// Whether the check passed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.outcome == Outcome::Passed
    }
}

/// The steps of one verification as they are made.
#[derive(Debug)]
pub(super) struct Trail {
    /// None where nobody asks for an explanation: then only a check that fails is put into words.
    steps: Option<Vec<Step>>,
    chain_proven: bool,
}

impl Trail {
    /// For a verdict.
    pub(super) fn unkept() -> Self {
        Self { steps: None, chain_proven: false }
    }

    /// For an explanation.
    pub(super) fn kept() -> Self {
        Self { steps: Some(Vec::new()), chain_proven: false }
    }

    /// Makes a check that passes if `ok`, and else ends the verification with `class`. `words` are what was expected and what was found.
    pub(super) fn judge<E: Into<String>, F: Into<String>>(
        &mut self,
        check: Check,
        ok: bool,
        class: RefusedClass,
        words: impl FnOnce() -> (E, F),
    ) -> Result<(), Refused> {
        self.require(check, class, ok.then_some(()), words)
    }

    /// Makes a check that proves something: it passes if there is a proof, which is handed on.
    pub(super) fn require<T, E: Into<String>, F: Into<String>>(
        &mut self,
        check: Check,
        class: RefusedClass,
        proof: Option<T>,
        words: impl FnOnce() -> (E, F),
    ) -> Result<T, Refused> {
        let Some(proof) = proof else { return Err(self.failed(check, class, words)) };
        self.passed(check, words);
        Ok(proof)
    }

    fn passed<E: Into<String>, F: Into<String>>(&mut self, check: Check, words: impl FnOnce() -> (E, F)) {
        if let Some(steps) = &mut self.steps {
            let (expected, found) = words();
            steps.push(Step { check, expected: expected.into(), found: found.into(), outcome: Outcome::Passed });
        }
    }

    fn failed<E: Into<String>, F: Into<String>>(
        &mut self,
        check: Check,
        class: RefusedClass,
        words: impl FnOnce() -> (E, F),
    ) -> Refused {
        let (expected, found) = words();
        let (expected, found) = (expected.into(), found.into());
        if let Some(steps) = &mut self.steps {
            let outcome = Outcome::Failed(class);
            steps.push(Step { check, expected: expected.clone(), found: found.clone(), outcome });
        }
        Refused { class, check, expected, found }
    }

    /// Keeps in mind that a path leads from the certificate to a trusted root.
    pub(super) fn chain_is_proven(&mut self) {
        self.chain_proven = true;
    }

    /// What the steps come to, when `refused` is what they led to.
    pub(super) fn into_explanation(self, refused: Option<Refused>) -> Explanation {
        Explanation { chain_proven: self.chain_proven, refused, steps: self.into_steps() }
    }

    /// All checks, with those that were not reached at the end.
    fn into_steps(self) -> Vec<Step> {
        let mut steps = self.steps.unwrap_or_default();
        let not_reached = Check::ALL.into_iter().skip(steps.len()).map(|check| Step {
            check,
            expected: String::new(),
            found: String::new(),
            outcome: Outcome::NotReached,
        });
        steps.extend(not_reached);
        steps
    }
}

/// Every check of one message, for people.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// All checks in order.
    pub steps: Vec<Step>,
    /// Why the message is refused; `None` if it is genuine.
    pub refused: Option<Refused>,
    /// Whether a path leads from the signing certificate to a trusted root. Where it does not, only the host that served the
    /// certificate vouches for it, and nobody for one that was given by hand.
    pub chain_proven: bool,
}

/// What the sender shall do about a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefusedClass {
    /// Not an SNS message of a kind we know (400). Never becomes good.
    Malformed,
    /// Not proven to be genuine, or not for us (403). Never becomes good.
    Forbidden,
    /// Cannot be judged now (503): SNS must send it again.
    Unavailable,
}

/// A message that was refused, with the check that refused it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: expected {expected}, found {found}", check.as_str())]
pub struct Refused {
    class: RefusedClass,
    check: Check,
    expected: String,
    found: String,
}

impl Refused {
    /// What the sender shall do about it.
    #[must_use]
    pub fn class(&self) -> RefusedClass {
        self.class
    }

    /// The check's short name, for logs and as a metric label.
    #[must_use]
    pub fn check(&self) -> &'static str {
        self.check.as_str()
    }
}

/// A received text made fit for one line of a log: bounded, control characters escaped.
pub(super) fn shown(text: &str) -> String {
    let cut: String = text.chars().take(MAX_SHOWN_CHARS).collect();
    let more = if cut.len() < text.len() { "..." } else { "" };
    format!("{cut:?}{more}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn received_text_cannot_forge_log_lines_or_flood_them() {
        assert_eq!(shown("a\nb\u{1b}[0m"), r#""a\nb\u{1b}[0m""#);
        assert!(shown(&"x".repeat(10_000)).len() < 200);
    }

    #[test]
    fn a_refusal_names_its_check_and_the_rest_is_not_reached() {
        let mut trail = Trail::kept();
        trail.judge(Check::Delivery, true, RefusedClass::Malformed, || ("a", "a")).unwrap();
        let refused = trail.judge(Check::Envelope, false, RefusedClass::Malformed, || ("b", "c")).unwrap_err();
        assert_eq!((refused.class(), refused.check()), (RefusedClass::Malformed, "envelope"));
        assert_eq!(refused.to_string(), "envelope: expected b, found c");
        let steps = trail.into_steps();
        assert!(steps.iter().map(|step| step.check).eq(Check::ALL));
        assert!(steps[2..].iter().all(|step| step.outcome == Outcome::NotReached));
    }

    #[test]
    fn where_nobody_asks_only_the_refusal_is_put_into_words() {
        let mut trail = Trail::unkept();
        let unasked = || -> (String, String) { panic!("nobody asked") };
        trail.judge(Check::Delivery, true, RefusedClass::Malformed, unasked).unwrap();
        assert_eq!(trail.require(Check::Topic, RefusedClass::Forbidden, Some(7), unasked), Ok(7));
        let refused = trail.require(Check::Headers, RefusedClass::Malformed, None::<()>, || ("b", "c")).unwrap_err();
        assert_eq!(refused.to_string(), "headers: expected b, found c");
        assert_eq!(trail.into_steps().len(), Check::ALL.len());
    }
}
