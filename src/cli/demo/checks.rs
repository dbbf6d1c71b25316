//! What must be so at the end, and whether it is.

/// One thing that must be so.
pub(super) struct Check {
    /// The story it belongs to; 0 for the run as a whole.
    pub(super) story: usize,
    pub(super) what: String,
    pub(super) found: String,
    /// Expected and found, if they differ.
    pub(super) mistake: Option<(String, String)>,
}

impl Check {
    /// What failed, in one line; `None` if it holds.
    pub(super) fn failure(&self) -> Option<String> {
        let (expected, found) = self.mistake.as_ref()?;
        Some(format!("story {}, {}: expected {expected}, found {found}", self.story, self.what))
    }
}

/// Everything that was checked, in order.
#[derive(Default)]
pub(super) struct Checks {
    /// The story that is being played.
    pub(super) story: usize,
    pub(super) done: Vec<Check>,
}

impl Checks {
    pub(super) fn count(&mut self, what: &str, expected: usize, found: usize) {
        self.same(what, &expected.to_string(), &found.to_string());
    }

    pub(super) fn same(&mut self, what: &str, expected: &str, found: &str) {
        let mistake = (expected != found).then(|| (expected.to_owned(), found.to_owned()));
        self.done.push(Check { story: self.story, what: what.to_owned(), found: found.to_owned(), mistake });
    }

    /// A story that could not be played to its end.
    pub(super) fn broken(&mut self, error: &anyhow::Error) {
        let what = "the story plays to its end".to_owned();
        let found = format!("{error:#}");
        let mistake = Some(("yes".to_owned(), found.clone()));
        self.done.push(Check { story: self.story, what, found, mistake });
    }

    pub(super) fn all_hold(&self) -> bool {
        self.done.iter().all(|check| check.mistake.is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_kept_with_both_sides() {
        let mut checks = Checks::default();
        checks.count("charges", 1, 1);
        assert!(checks.all_hold());
        checks.count("charges", 1, 2);
        assert!(!checks.all_hold());
        assert_eq!(checks.done[1].mistake, Some(("1".to_owned(), "2".to_owned())));
        assert_eq!(checks.done[0].failure(), None);
        assert_eq!(checks.done[1].failure().unwrap(), "story 0, charges: expected 1, found 2");
    }
}
