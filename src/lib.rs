//! The Amazon Pay IPN service, in the order in which data flows:
//!
//! [`http`] -> [`sns`] -> [`ipn`] -> [`store`] -> [`reconciler`] -> [`recovery`] -> [`amazon_pay`] -> [`store`] -> events.
//!
//! A notification is a hint that a charge permission changed; the permission is the unit of work. [`http::public`] authenticates a
//! notification ([`sns`]), reads it ([`ipn`]) and stores it, which makes its permission due ([`store::notifications`]). The
//! [`reconciler`] claims a due permission, looks at it at Amazon ([`amazon_pay`]), decides ([`recovery`], pure), sends at most one charge and
//! commits state and events together ([`store::reconciliations`]).
//!
//! Beside it the [`forwarder`] hands what was authenticated on to an older handler, if there is one. Before and beside it [`preflight`] says what is set wrongly, what that means and how to mend it.
//!
//! Around it: [`model`] is the vocabulary, [`config`] every setting, [`app`] puts the parts together, [`cli`] is the command line,
//! [`clock`] and [`telemetry`] are what their names say, and `sandbox` is a faithful local Amazon Pay for demo and tests.

/// A named place between two durable steps, at which `tests/crash` can kill the process (`docs/reliability/crash-points.md`). It is nothing in
/// a build without the sandbox.
macro_rules! crash_point {
    ($point:ident) => {
        #[cfg(feature = "sandbox")]
        crate::crash::reach(crate::crash::CrashPoint::$point);
    };
}

pub mod http;
pub mod sns;

pub mod ipn;

pub mod store;

pub mod reconciler;
pub mod recovery;

pub mod amazon_pay;

pub mod preflight;

pub mod forwarder;

pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
#[cfg(feature = "sandbox")]
pub mod crash;
pub mod model;
#[cfg(feature = "sandbox")]
pub mod sandbox;
pub mod telemetry;
