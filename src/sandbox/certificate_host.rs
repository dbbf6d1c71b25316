//! SNS without an Amazon Pay: serves signing certificates and answers `ConfirmSubscription`, and counts both.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::keys::{self, SnsIdentity};
use super::sns::confirmed;

/// A running host; it ends when it is dropped.
#[derive(Debug)]
pub struct CertificateHost {
    shared: Arc<Shared>,
    _stop_on_drop: DropGuard,
}

#[derive(Debug)]
struct Shared {
    identity: Arc<SnsIdentity>,
    fetches: AtomicUsize,
    confirmations: AtomicUsize,
}

impl CertificateHost {
    /// Starts to serve the certificate of this identity, and the one of whoever forges in this process.
    ///
    /// # Errors
    /// If the address (`host:port`) cannot be had.
    pub async fn start(address: &str, identity: Arc<SnsIdentity>) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let shared = Arc::new(Shared { identity, fetches: AtomicUsize::new(0), confirmations: AtomicUsize::new(0) });
        let router = Router::new()
            .route("/", post(confirm))
            .route("/{file_name}", get(certificate))
            .with_state(Arc::clone(&shared));
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let server = axum::serve(listener, router).with_graceful_shutdown(stopped);
        tokio::spawn(async move { server.await });
        Ok(Self { shared, _stop_on_drop: stop.drop_guard() })
    }

    /// How many certificates were fetched.
    #[must_use]
    pub fn fetches(&self) -> usize {
        self.shared.fetches.load(Ordering::SeqCst)
    }

    /// How many subscriptions were confirmed.
    #[must_use]
    pub fn confirmations(&self) -> usize {
        self.shared.confirmations.load(Ordering::SeqCst)
    }
}

async fn certificate(State(shared): State<Arc<Shared>>, Path(file_name): Path<String>) -> Response {
    let known = [Some(&*shared.identity), keys::made_forger()];
    match known.into_iter().flatten().find(|identity| identity.file_name == file_name) {
        Some(identity) => {
            shared.fetches.fetch_add(1, Ordering::SeqCst);
            ([("content-type", "application/x-pem-file")], identity.leaf_pem.clone()).into_response()
        }
        None => (StatusCode::NOT_FOUND, "no such certificate").into_response(),
    }
}

async fn confirm(State(shared): State<Arc<Shared>>, form: String) -> Response {
    match confirmed(&form) {
        Some((_, answer)) => {
            shared.confirmations.fetch_add(1, Ordering::SeqCst);
            ([("content-type", "text/xml")], answer).into_response()
        }
        None => (StatusCode::BAD_REQUEST, "expected Action=ConfirmSubscription and a Token").into_response(),
    }
}
