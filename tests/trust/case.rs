//! One case of the corpus: what is posted, and what must become of it.

use amazon_pay_ipn::sns::{Check, RefusedClass};

use crate::message::Message;
use crate::net::Net;

/// Which service judges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Certificates come from our listener, as sandboxes set it.
    Sandbox,
    /// Certificate addresses as in production: only AWS's own host will do.
    Live,
    /// As `Sandbox`, with the root as trust anchor.
    Anchored,
}

/// What a genuine message leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// In the journal, and work to do.
    Work,
    /// In the journal.
    Test,
    /// In journal and quarantine, with an event.
    Quarantine,
    /// A subscription was confirmed through the API: in the journal, with an event.
    Confirmed,
    /// A subscription has ended: in the journal, with an event.
    Ended,
    /// Nothing: it came before.
    Duplicate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// 200.
    Genuine(Kept),
    /// 400, 403 or 503, by this check.
    Refused(RefusedClass, Check),
    /// 413. The limit is the listener's: the verifier is not asked.
    TooLarge,
}

pub struct Case {
    /// `family/variant`.
    pub name: String,
    pub form: Form,
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
    pub expected: Expected,
    /// Certificates that each verifier must fetch for it: 0 unless it has a certificate of its own.
    pub fetches: usize,
    /// For a genuine one: id, topic and text that the verifier must hand on.
    pub told: Option<[String; 3]>,
}

impl Case {
    pub fn form(&mut self, form: Form) -> &mut Self {
        self.form = form;
        self
    }

    /// The message names a certificate that nobody has fetched before.
    pub fn fetched(&mut self) -> &mut Self {
        self.fetches = 1;
        self
    }

    pub fn header(&mut self, name: &str, value: impl AsRef<[u8]>) -> &mut Self {
        self.headers.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    pub fn headers(&mut self, headers: Vec<(String, Vec<u8>)>) -> &mut Self {
        self.headers = headers;
        self
    }

    pub fn family(&self) -> &str {
        self.name.split('/').next().unwrap_or_default()
    }

    pub fn is_genuine(&self) -> bool {
        matches!(self.expected, Expected::Genuine(_))
    }
}

/// Collects the cases of the families.
pub struct Corpus<'a> {
    pub net: &'a Net,
    pub cases: Vec<Case>,
    family: &'static str,
}

impl<'a> Corpus<'a> {
    pub fn new(net: &'a Net) -> Self {
        Self { net, cases: Vec::new(), family: "" }
    }

    /// What follows belongs to this family.
    pub fn family(&mut self, name: &'static str) {
        self.family = name;
    }

    pub fn name(&self, variant: &str) -> String {
        format!("{}/{variant}", self.family)
    }

    /// A notification with an id of its own, unsigned.
    pub fn notification(&self, variant: &str) -> Message {
        Message::notification(self.net, &self.name(variant))
    }

    /// A confirmation with an id of its own, unsigned.
    pub fn confirmation(&self, variant: &str, kind: &str) -> Message {
        Message::confirmation(self.net, &self.name(variant), kind)
    }

    /// A message of that type with an id of its own, unsigned.
    pub fn message(&self, variant: &str, kind: &str) -> Message {
        if kind == crate::message::NOTIFICATION { self.notification(variant) } else { self.confirmation(variant, kind) }
    }

    /// A message that must be refused before its certificate is asked for names one that nobody has fetched: asking for it would be
    /// seen. (The address is not signed.)
    pub fn add(&mut self, variant: &str, body: impl Into<Vec<u8>>, expected: Expected) -> &mut Case {
        let (name, mut body) = (self.name(variant), body.into());
        let fetches_nothing = match expected {
            Expected::Refused(_, check) => {
                Check::ALL.iter().take_while(|one| **one != Check::Certificate).any(|one| *one == check)
            }
            Expected::TooLarge => true,
            Expected::Genuine(_) => false,
        };
        if fetches_nothing {
            let (known, fresh) = (self.net.genuine.as_bytes(), self.net.genuine_at(&name));
            let places: Vec<usize> = (0..body.len()).filter(|at| body[*at..].starts_with(known)).collect();
            for at in places {
                body[at..at + known.len()].copy_from_slice(fresh.as_bytes());
            }
        }
        self.cases.push(Case {
            name,
            form: Form::Sandbox,
            headers: Vec::new(),
            body,
            expected,
            fetches: 0,
            told: None,
        });
        self.cases.last_mut().expect("the case just added")
    }

    /// 400.
    pub fn malformed(&mut self, variant: &str, body: impl Into<Vec<u8>>, check: Check) -> &mut Case {
        self.add(variant, body, Expected::Refused(RefusedClass::Malformed, check))
    }

    /// 403.
    pub fn forbidden(&mut self, variant: &str, body: impl Into<Vec<u8>>, check: Check) -> &mut Case {
        self.add(variant, body, Expected::Refused(RefusedClass::Forbidden, check))
    }

    /// 503.
    pub fn unavailable(&mut self, variant: &str, body: impl Into<Vec<u8>>, check: Check) -> &mut Case {
        self.add(variant, body, Expected::Refused(RefusedClass::Unavailable, check))
    }

    /// 200, with all headers of SNS; `body` is a writing of `message`.
    pub fn genuine(&mut self, variant: &str, message: &Message, body: impl Into<Vec<u8>>, kept: Kept) -> &mut Case {
        let told = ["MessageId", "TopicArn", "Message"].map(|field| message.get(field).to_owned());
        let case = self.add(variant, body, Expected::Genuine(kept));
        case.told = Some(told);
        case.headers = message.headers();
        case
    }
}
