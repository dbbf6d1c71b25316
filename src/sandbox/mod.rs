//! A faithful local Amazon Pay with an SNS that signs: what `demo` and the integration tests talk to over real HTTP.
//!
//! It shares no code with the service beyond the clock and two enums, checks request signatures with another RSA
//! implementation, and keeps a [`Ledger`]: the truth about who was charged, whatever the service believes.
//!
//! What Amazon does not document is a setting here ([`Reading`]), so that every test can run under each possible answer.

mod agenda;
mod api;
mod certificate_host;
mod charges;
mod connection;
mod control;
mod delivery;
mod disputes;
mod faults;
mod keys;
mod ledger;
mod permissions;
pub mod redis_server;
mod refunds;
mod settings;
mod signature;
mod sns;
mod throttle;
mod wire;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

pub use certificate_host::CertificateHost;
pub use charges::{CANCELED_REASONS, DeclineCode, Outcome};
pub use delivery::{Courier, DeliveryOrder};
pub use disputes::{DisputeMove, DisputeSpec, DisputeState, LedgerDispute};
pub use faults::{Fault, Gate, Operation};
pub use keys::{KeptKeys, KeyError, SnsIdentity};
pub use ledger::{ChargeState, Ledger, LedgerCharge, RequestRecord};
pub use permissions::{CLOSED_REASONS, NON_CHARGEABLE_REASONS, PermissionKind, PermissionSpec, PermissionState};
pub use refunds::{LedgerRefund, RefundState};
pub use settings::{Reading, SandboxSettings};
pub use sns::{
    Forgery, Ipn, Letter, MessageType, NotificationType, ObjectType, SignatureVersion, SignedMessage, Topic, new_token,
    topic_arn,
};
pub use throttle::{Quota, Throttle, ThrottleTable};
pub use wire::BUYER_SECRETS;

use api::App;
use connection::{CuttableListener, Scissors};
use ledger::Books;
use permissions::Permission;
use throttle::Throttling;
use wire::Refusal;

#[cfg(test)]
use crate::clock::Clock;
use crate::model::ids::Region;

const PUBLIC_KEY_ID: &str = "SANDBOX-AFAKEKEYIDOFALOCALSANDBX";

/// How many records a slow listener may be behind.
const RECORD_BACKLOG: usize = 1024;

/// A sandbox that could not start, or an order that it cannot follow.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// No port.
    #[error("the sandbox could not listen: {0}")]
    Listen(#[from] std::io::Error),
    /// Keys or certificates.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// No such charge permission.
    #[error("expected a charge permission of this sandbox, got {0}")]
    UnknownPermission(String),
    /// No such charge, or nothing is pending about it.
    #[error("expected a pending charge of this sandbox, got {0}")]
    NotPending(String),
    /// No such charge or dispute.
    #[error("expected a {0} of this sandbox, got {1}")]
    Unknown(&'static str, String),
    /// As the API would refuse it.
    #[error("{code}: {message}")]
    Refused {
        /// The reason code that the API would answer.
        code: String,
        /// What is wrong.
        message: String,
    },
    /// There is no connection to where a message is to go.
    #[error("nobody listens there: {0}")]
    NobodyListens(String),
    /// A message was not answered.
    #[error("the message could not be delivered: {0}")]
    Delivery(String),
}

impl SandboxError {
    fn unknown(what: &'static str, id: &str) -> Self {
        Self::Unknown(what, id.to_owned())
    }
}

impl From<Refusal> for SandboxError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused { code: refusal.code.into_owned(), message: refusal.message }
    }
}

/// A running sandbox. Clones are the same sandbox; it ends with the last of them, or by [`Sandbox::stop`].
#[derive(Clone)]
pub struct Sandbox(Arc<Running>);

struct Running {
    app: Arc<App>,
    base_url: String,
    merchant_id: String,
    topic_arn: String,
    courier: Courier,
    _stop_on_drop: DropGuard,
}

impl std::fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sandbox").field("base_url", &self.0.base_url).finish_non_exhaustive()
    }
}

impl Sandbox {
    /// Starts to listen.
    ///
    /// # Errors
    /// If there is no port, or keys cannot be made.
    pub async fn start(settings: SandboxSettings) -> Result<Self, SandboxError> {
        // New RSA keys take too long for a thread of the runtime.
        let folder = settings.keys_folder;
        let keys = tokio::task::spawn_blocking(move || match folder {
            Some(folder) => keys::kept(&folder),
            None => keys::shared(),
        });
        let keys = keys.await.map_err(std::io::Error::other)??;
        let listener = TcpListener::bind(settings.listen).await?;
        let address = listener.local_addr()?;
        let base_url = settings.base_url.unwrap_or_else(|| match address.ip() {
            ip if ip.is_unspecified() => format!("http://127.0.0.1:{}", address.port()),
            _ => format!("http://{address}"),
        });
        let region_digit = match settings.region {
            Region::Na => '1',
            Region::Eu => '2',
            Region::Jp => '3',
        };
        let mut books = Books::new(settings.merchant_id.clone(), settings.reading, region_digit, settings.session);
        books.throttling = Throttling::new(settings.throttle);
        books.settle_after = settings.settle_after;
        let stop = CancellationToken::new();
        let app = Arc::new(App {
            clock: settings.clock,
            region: settings.region,
            keys,
            tolerance: Mutex::new(settings.date_tolerance),
            books: Mutex::new(books),
            records: broadcast::Sender::new(RECORD_BACKLOG),
            stop: stop.clone(),
            tasks: TaskTracker::new(),
        });
        let running = Arc::new(Running {
            topic_arn: sns::topic_arn(settings.region, &settings.merchant_id),
            merchant_id: settings.merchant_id,
            courier: Courier::new()?,
            app: Arc::clone(&app),
            base_url,
            _stop_on_drop: stop.clone().drop_guard(),
        });
        let mut router = api::router(Arc::clone(&app));
        if let Some(clock_file) = settings.control {
            // Weak, or the sandbox would keep itself running.
            router = router.merge(control::router(Arc::downgrade(&running), clock_file));
        }
        let service = router.into_make_service_with_connect_info::<Scissors>();
        let stopped = stop.cancelled_owned();
        let server = axum::serve(CuttableListener(listener), service).with_graceful_shutdown(stopped);
        app.tasks.spawn(async move { server.await });
        Ok(Self(running))
    }

    /// Ends the sandbox and waits until it has; requests that are held are dropped without being evaluated.
    pub async fn stop(&self) {
        self.0.app.stop.cancel();
        self.0.app.tasks.close();
        self.0.app.tasks.wait().await;
    }

    fn books<T>(&self, action: impl FnOnce(&mut Books) -> T) -> T {
        let now = self.0.app.clock.now();
        let mut books = self.0.app.books();
        books.catch_up(now);
        action(&mut books)
    }

    fn with_permission<T>(&self, id: &str, action: impl FnOnce(&mut Permission) -> T) -> Result<T, SandboxError> {
        self.books(|books| books.permissions.get_mut(id).map(action))
            .ok_or_else(|| SandboxError::UnknownPermission(id.to_owned()))
    }
}

/// What the service's settings need.
impl Sandbox {
    /// `http://127.0.0.1:PORT`: serves `/v2/…` and `/sandbox/v2/…`, and SNS's `ConfirmSubscription` at `/`.
    #[must_use]
    pub fn base_url(&self) -> &str {
        &self.0.base_url
    }

    /// The time, as the sandbox sees it.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.0.app.clock.now()
    }

    /// The merchant.
    #[must_use]
    pub fn merchant_id(&self) -> &str {
        &self.0.merchant_id
    }

    /// The id of the merchant's public key; begins with `SANDBOX`.
    #[must_use]
    pub fn public_key_id(&self) -> &'static str {
        PUBLIC_KEY_ID
    }

    /// The merchant's private key, PKCS#8.
    #[must_use]
    pub fn merchant_private_key_pem(&self) -> &'static str {
        &self.0.app.keys.merchant_pem
    }

    /// The topic that the notifications come from.
    #[must_use]
    pub fn topic_arn(&self) -> &str {
        &self.0.topic_arn
    }

    /// Stands for `https://sns.<region>.amazonaws.com`, without a slash at the end; `SigningCertURL` begins with it.
    #[must_use]
    pub fn certificate_base_url(&self) -> &str {
        &self.0.base_url
    }

    /// `SimpleNotificationService-<32 hex>.pem`.
    #[must_use]
    pub fn certificate_file_name(&self) -> &'static str {
        &self.0.app.keys.sns.file_name
    }

    /// The name in the signing certificate.
    #[must_use]
    pub fn certificate_name(&self) -> &'static str {
        keys::CERTIFICATE_NAME
    }

    /// The certificate that issued the signing certificate.
    #[must_use]
    pub fn trust_anchor_pem(&self) -> &'static str {
        &self.0.app.keys.sns.anchor_pem
    }
}

/// Buyers, their permissions, and what charges come to.
impl Sandbox {
    /// A buyer consents; gives the id of the new permission.
    #[must_use]
    pub fn create_permission(&self, spec: PermissionSpec) -> String {
        let now = self.0.app.clock.now();
        self.books(|books| books.create_permission(spec, now))
    }

    /// The buyer ends the permission.
    ///
    /// # Errors
    /// If there is no such permission.
    pub fn buyer_closes(&self, id: &str) -> Result<(), SandboxError> {
        self.set_permission(id, PermissionState::Closed, &["BuyerCanceled"])
    }

    /// Amazon ends the permission.
    ///
    /// # Errors
    /// If there is no such permission.
    pub fn amazon_closes(&self, id: &str) -> Result<(), SandboxError> {
        self.set_permission(id, PermissionState::Closed, &["AmazonCanceled"])
    }

    /// The buyer chooses another payment method; the permission is Chargeable again, unless a charge is pending.
    ///
    /// # Errors
    /// If there is no such permission.
    pub fn buyer_updates_instrument(&self, id: &str, descriptor: &str) -> Result<(), SandboxError> {
        self.with_permission(id, |_| ())?;
        let now = self.0.app.clock.now();
        self.books(|books| books.update_instrument(id, descriptor, now));
        Ok(())
    }

    /// The buyer deletes the payment method.
    ///
    /// # Errors
    /// If there is no such permission.
    pub fn buyer_deletes_instrument(&self, id: &str) -> Result<(), SandboxError> {
        self.with_permission(id, |_| ())?;
        let now = self.0.app.clock.now();
        self.books(|books| books.delete_instrument(id, now));
        Ok(())
    }

    /// Puts the permission into any state; Closed is final. A change is notified.
    ///
    /// # Errors
    /// If there is no such permission.
    pub fn set_permission(&self, id: &str, state: PermissionState, reasons: &[&str]) -> Result<(), SandboxError> {
        self.with_permission(id, |_| ())?;
        let now = self.0.app.clock.now();
        self.books(|books| books.turn(id, state, reasons, now));
        Ok(())
    }

    /// Orders what the next evaluation of Create Charge does that has none ordered yet.
    ///
    /// # Errors
    /// If there is no such permission.
    pub fn script_charge(&self, id: &str, outcome: Outcome) -> Result<(), SandboxError> {
        self.with_permission(id, |permission| permission.script.push_back(outcome))
    }

    /// The same for Capture Charge, of any charge of the permission.
    ///
    /// # Errors
    /// If there is no such permission.
    pub fn script_capture(&self, id: &str, outcome: Outcome) -> Result<(), SandboxError> {
        self.with_permission(id, |permission| permission.capture_script.push_back(outcome))
    }

    /// Decides a pending authorisation or capture.
    ///
    /// # Errors
    /// If nothing is pending about such a charge.
    pub fn finish_pending(
        &self,
        charge_id: &str,
        state: ChargeState,
        reason: Option<DeclineCode>,
    ) -> Result<(), SandboxError> {
        let now = self.0.app.clock.now();
        let done = self.books(|books| books.finish_pending(charge_id, state, reason, now));
        done.then_some(()).ok_or_else(|| SandboxError::NotPending(charge_id.to_owned()))
    }
}

/// Charges that change without being asked to.
impl Sandbox {
    /// Amazon decides about a pending charge: as it was asked for, authorised or captured, or declined. Notified.
    ///
    /// # Errors
    /// If nothing is pending about such a charge.
    pub fn decide(&self, charge_id: &str, decline: Option<DeclineCode>) -> Result<(), SandboxError> {
        let now = self.0.app.clock.now();
        let done = self.books(|books| books.decide(charge_id, decline, now));
        done.then_some(()).ok_or_else(|| SandboxError::NotPending(charge_id.to_owned()))
    }

    /// Puts a charge into any state, with any reason code: `Canceled` with `BuyerCanceled`, for example. Notified.
    ///
    /// # Errors
    /// If there is no such charge.
    pub fn set_charge(&self, charge_id: &str, state: ChargeState, reason: Option<&str>) -> Result<(), SandboxError> {
        let now = self.0.app.clock.now();
        self.books(|books| {
            let place =
                *books.charge_places.get(charge_id).ok_or_else(|| SandboxError::unknown("charge", charge_id))?;
            books.move_charge(place, state, reason, now);
            Ok(())
        })
    }
}

/// How Amazon and the network behave, and what has happened.
impl Sandbox {
    /// Changes what happens to used idempotency keys.
    pub fn set_reading(&self, reading: Reading) {
        self.books(|books| books.reading = reading);
    }

    /// Changes how far `x-amz-pay-date` may be from now.
    pub fn set_date_tolerance(&self, tolerance: Duration) {
        *self.0.app.tolerance.lock().unwrap_or_else(PoisonError::into_inner) = tolerance;
    }

    /// Throttles from now on, every bucket full, or no longer.
    pub fn set_throttle(&self, throttle: Option<Throttle>) {
        self.books(|books| books.throttling = Throttling::new(throttle));
    }

    /// Orders a mishap for the next request of this operation that has none ordered yet.
    pub fn inject(&self, operation: Operation, fault: Fault) {
        self.books(|books| books.faults.push(operation, fault));
    }

    /// Takes back every mishap that has not happened yet.
    pub fn clear_faults(&self) {
        self.books(|books| books.faults.clear());
    }

    /// How often an operation was answered with this status, 0 for a connection that was closed. Costs nothing, unlike
    /// [`Sandbox::ledger`].
    #[must_use]
    pub fn answers(&self, operation: Operation, status: u16) -> u64 {
        self.books(|books| books.answers.get(&(operation, status)).copied().unwrap_or_default())
    }

    /// The state of a charge permission.
    #[must_use]
    pub fn permission_state(&self, id: &str) -> Option<PermissionState> {
        self.books(|books| books.permissions.get(id).map(|permission| permission.state))
    }

    /// The charges of one permission, oldest first, without looking at any other.
    #[must_use]
    pub fn charges_of(&self, permission: &str) -> Vec<LedgerCharge> {
        self.books(|books| {
            let places = books.permissions.get(permission).map(|permission| permission.charges.as_slice());
            places.unwrap_or_default().iter().map(|place| LedgerCharge::from(&books.charges[*place])).collect()
        })
    }

    /// What has truly happened: a copy of all of it, so not for every step of a large test.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.books(|books| books.ledger())
    }

    /// Every request from now on, as it is evaluated or refused.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<RequestRecord> {
        self.0.app.records.subscribe()
    }

    /// The tokens of the subscriptions that were confirmed through SNS's API at [`Sandbox::base_url`].
    #[must_use]
    pub fn confirmed_tokens(&self) -> Vec<String> {
        self.books(|books| books.confirmed_tokens.clone())
    }
}
