//! Amazon SNS: is this message genuine, and is it for us?
//!
//! A valid signature proves little: any AWS account can publish to a topic of its own, correctly signed. So the sequence is
//! 1. shape: not raw delivery, one strict [`Envelope`], headers and body agree;
//! 2. the topic is one that the operator allow-listed, byte for byte;
//! 3. the certificate's address is the one which *that topic's* region determines;
//! 4. known signature version, acceptable Timestamp, strict Base64;
//! 5. the certificate: fetched or held, right name, no authority, strong key, issued by whom it names, valid now;
//! 6. the signature over the canonical string.
//!
//! Cheapest first, and nothing leaves the process before step 5. [`Verifier::explain`] shows the same sequence to people.
//! What a refusal means for the sender is its [`RefusedClass`]; the HTTP status is chosen in `http`.
//! `SubscribeURL` and `UnsubscribeURL` are never visited: [`Subscriber`] confirms through the API.

mod canonical;
mod certificate;
mod envelope;
mod explanation;
mod settings;
mod subscription;
#[cfg(test)]
#[cfg(feature = "sandbox")]
pub(crate) mod test_authority;
mod topic;
mod verifier;

pub use certificate::InvalidCertificate;
pub use certificate::host::reach_certificate_hosts;
pub use certificate::source::FetchError;
pub use envelope::{Confirmation, Content, Envelope, EnvelopeError, MessageType};
pub use explanation::{Check, Explanation, Outcome, Refused, RefusedClass, Step};
pub use settings::SnsSettings;
pub use subscription::{ConfirmError, Subscriber};
pub use topic::{AMAZON_PAY_ACCOUNT, InvalidTopicArn, TopicArn, regions_of};
pub use verifier::{Headers, SnsError, Verified, Verifier};
