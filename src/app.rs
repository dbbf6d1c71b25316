//! The composition root: builds the parts from the settings, runs them, and drains them when told to stop.

pub mod checks;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, info, warn};

use crate::amazon_pay::AmazonPay;
use crate::clock::Clock;
use crate::config::{LearnSettings, Settings};
use crate::forwarder::Forwarder;
use crate::http::internal::{self, ApiState};
use crate::http::learning::{self, Learning};
use crate::http::listener::{self, Limits};
use crate::http::public::{self, IpnState, RequestLimits};
use crate::http::readiness::Noticed;
use crate::preflight::{Finding, Severity, server};
use crate::reconciler::Reconciler;
use crate::sns::{self, Subscriber, Verifier};
use crate::store::Store;
use crate::telemetry::metric;

/// A call to Amazon may take 45 s; what is in hand is finished within this.
const DRAIN: Duration = Duration::from_mins(1);
/// How often the samples of the histograms are folded into their buckets.
const FOLDING: Duration = Duration::from_secs(5);
/// How often what arrived is counted.
const COUNTING: Duration = Duration::from_mins(1);
/// How often streams are trimmed.
const HOUSEKEEPING: Duration = Duration::from_hours(1);

/// The service, listening and not yet running.
#[derive(Debug)]
pub struct App {
    settings: Settings,
    clock: Clock,
    metrics: PrometheusHandle,
    public: TcpListener,
    internal: TcpListener,
    store: Store,
    amazon: Arc<AmazonPay>,
    noticed: Noticed,
    reconciler: Reconciler,
    forwarder: Option<Forwarder>,
    shutdown: CancellationToken,
    public_limits: Limits,
    request_limits: RequestLimits,
}

impl App {
    /// Builds the parts and binds the listeners. Refuses a Redis without a marker: it is new, was emptied, or is another one.
    ///
    /// # Errors
    /// When a part cannot be built, an address cannot be bound, or Redis does not answer, has no marker, or may lose what it was given
    /// while nobody accepts that.
    pub async fn start(settings: Settings, clock: Clock, metrics: PrometheusHandle) -> anyhow::Result<Self> {
        let (noticed, accepted) = (Noticed::default(), settings.accept_unsafe_durability);
        notice(&noticed, checks::of_settings(&settings));
        let store = Store::connect(settings.store.clone(), settings.account.clone(), clock.clone())?;
        store.check_access(None).await?;
        store.account().await?;
        let server = checks::of_server(&store, accepted).await?;
        let wrong: Vec<&Finding> = server::reasons_not_to_start(&server).collect();
        // Accepting a loss of writes does not mend another reason.
        let way_out = if wrong.iter().any(|finding| server::is_durability(finding.check)) {
            "; where such a loss is borne, set ACCEPT_UNSAFE_DURABILITY=true (docs/PREFLIGHT.md)"
        } else {
            " (docs/PREFLIGHT.md)"
        };
        let sentences: Vec<String> = wrong.iter().map(|finding| finding.sentence()).collect();
        ensure!(wrong.is_empty(), "Redis is not set up for money: {}{way_out}", sentences.join("; "));
        notice(&noticed, server);
        let amazon = AmazonPay::new(settings.amazon_pay.clone(), clock.clone())
            .context("AMAZON_PAY_PRIVATE_KEY_FILE and AMAZON_PAY_PUBLIC_KEY_ID do not make a client")?;
        let amazon = Arc::new(amazon);
        let shutdown = CancellationToken::new();
        let policies = Arc::new(settings.policies.clone());
        let environment = settings.account.environment;
        let reconciler =
            Reconciler::new(store.clone(), amazon.clone(), policies, environment, clock.clone(), shutdown.clone());
        let forwarder = match settings.forward.clone() {
            Some(forward) => {
                let forwarder = Forwarder::new(forward, store.clone(), shutdown.clone())?;
                forwarder.begin().await?;
                Some(forwarder)
            }
            None => None,
        };
        let public = bind(settings.listen_addr).await?;
        let internal = bind(settings.internal_listen_addr).await?;
        Ok(Self {
            settings,
            clock,
            metrics,
            public,
            internal,
            store,
            amazon,
            noticed,
            reconciler,
            forwarder,
            shutdown,
            public_limits: Limits::PUBLIC,
            request_limits: RequestLimits::PUBLIC,
        })
    }

    /// Other bounds for the public listener, for tests that reach them.
    #[must_use]
    pub fn with_public_limits(self, public_limits: Limits, request_limits: RequestLimits) -> Self {
        Self { public_limits, request_limits, ..self }
    }

    /// Address of the public listener.
    ///
    /// # Errors
    /// When the operating system does not say.
    pub fn public_addr(&self) -> std::io::Result<SocketAddr> {
        self.public.local_addr()
    }

    /// Address of the internal listener.
    ///
    /// # Errors
    /// When the operating system does not say.
    pub fn internal_addr(&self) -> std::io::Result<SocketAddr> {
        self.internal.local_addr()
    }

    /// The reconciler, for tests that step by hand.
    #[must_use]
    pub fn reconciler(&self) -> Reconciler {
        self.reconciler.clone()
    }

    /// The forwarder, for tests that step by hand.
    #[must_use]
    pub fn forwarder(&self) -> Option<Forwarder> {
        self.forwarder.clone()
    }

    /// The store, for tests that look.
    #[must_use]
    pub fn store(&self) -> Store {
        self.store.clone()
    }

    /// Serves and reconciles until `stop` completes; then stops accepting, finishes or gives back what is in hand, and returns.
    ///
    /// # Errors
    /// When a listener fails, or the drain takes longer than 60 s.
    pub async fn run_until(self, stop: impl Future<Output = ()> + Send) -> anyhow::Result<()> {
        let workers = self.settings.workers;
        self.run(stop, workers).await
    }

    /// As [`Self::run_until`], without workers: nothing is reconciled but by hand.
    ///
    /// # Errors
    /// As [`Self::run_until`].
    pub async fn serve_until(self, stop: impl Future<Output = ()> + Send) -> anyhow::Result<()> {
        self.run(stop, 0).await
    }

    async fn run(self, stop: impl Future<Output = ()> + Send, workers: usize) -> anyhow::Result<()> {
        let Self {
            settings,
            clock,
            metrics,
            public,
            internal,
            store,
            amazon,
            noticed,
            reconciler,
            forwarder,
            shutdown,
            public_limits,
            request_limits,
        } = self;
        let verifier = Verifier::new(settings.sns.clone(), clock.clone())?;
        let subscriber = Subscriber::new(&settings.sns);
        let merchant = settings.account.merchant.clone();
        let ipn = IpnState::new(verifier, subscriber, store.clone(), merchant, request_limits);
        let policies = Arc::new(settings.policies);
        let token = settings.internal_api_token;
        metrics::gauge!(metric::START_TIME_SECONDS).set(clock.now().as_duration().as_secs_f64());
        let api = ApiState::new(store.clone(), settings.account.clone(), policies, clock, token, metrics.clone());
        let api = api.with_preflight(noticed.clone(), settings.accept_unsafe_durability);

        info!(
            public = %public.local_addr()?,
            internal = %internal.local_addr()?,
            merchant = %settings.account.merchant,
            environment = %settings.account.environment,
            workers,
            "serving"
        );
        let tasks = TaskTracker::new();
        let open_files = listener::open_files();
        let (public_limits, internal_limits) = (public_limits.within(open_files), Limits::INTERNAL.within(open_files));
        let routes = public::router(ipn.clone());
        tasks.spawn(vital(shutdown.clone(), serve(public, routes, public_limits, shutdown.clone())));
        tasks.spawn(vital(shutdown.clone(), serve(internal, internal::router(api), internal_limits, shutdown.clone())));
        // Beside the rest: what is not fetched ahead is fetched when it is needed.
        tokio::spawn(shutdown.clone().run_until_cancelled_owned(async move { ipn.expect_certificates().await }));
        if workers > 0 {
            let of_amazon = async move {
                let mut found = checks::of_amazon(&amazon).await;
                found.push(checks::of_certificate_hosts(&settings.sns).await);
                notice(&noticed, found);
            };
            tokio::spawn(shutdown.clone().run_until_cancelled_owned(of_amazon));
        }
        for _ in 0..workers {
            let reconciler = reconciler.clone();
            tasks.spawn(vital(shutdown.clone(), async move { reconciler.run().await }));
        }
        if workers > 0
            && let Some(forwarder) = forwarder
        {
            tasks.spawn(vital(shutdown.clone(), async move { forwarder.run().await }));
        }
        let arriving = store.clone();
        tasks.spawn(vital(shutdown.clone(), keep_house(store, shutdown.clone())));
        tokio::spawn(shutdown.clone().run_until_cancelled_owned(count_arrivals(arriving)));
        tokio::spawn(shutdown.clone().run_until_cancelled_owned(fold_samples(metrics)));
        tasks.close();

        let asked = tokio::select! {
            () = stop => true,
            () = shutdown.cancelled() => false,
        };
        info!("stopping: no new work; finishing what is in hand");
        crash_point!(StopHeard);
        shutdown.cancel();
        crash_point!(DrainBegun);
        tokio::time::timeout(DRAIN, tasks.wait()).await.context("work in hand was not finished within 60 s")?;
        crash_point!(Drained);
        if asked { Ok(()) } else { Err(anyhow!("a listener or a worker failed")) }
    }
}

/// `serve --learn`, bound and not yet answering.
#[derive(Debug)]
pub struct Learner {
    public: TcpListener,
    learning: Learning,
}

impl Learner {
    /// Binds the public listener. Needs neither Redis nor a key.
    ///
    /// # Errors
    /// When the address cannot be bound or no HTTP client can be built.
    pub async fn start(settings: LearnSettings, clock: Clock) -> anyhow::Result<Self> {
        let regions = sns::regions_of(settings.account.region);
        let verifier = Verifier::learning(settings.sns, clock, regions)?;
        let public = bind(settings.listen_addr).await?;
        info!(
            public = %public.local_addr()?,
            merchant = %settings.account.merchant,
            regions = regions.join(" "),
            "learning: everything is answered 503 and nothing is stored. Give this address to Amazon Pay and send a test notification"
        );
        Ok(Self { public, learning: Learning::new(verifier, settings.account.merchant) })
    }

    /// Address of the public listener.
    ///
    /// # Errors
    /// When the operating system does not say.
    pub fn public_addr(&self) -> std::io::Result<SocketAddr> {
        self.public.local_addr()
    }

    /// What was learnt so far.
    #[must_use]
    pub fn learning(&self) -> Learning {
        self.learning.clone()
    }

    /// Answers 503 until `stop` completes.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn run_until(self, stop: impl Future<Output = ()> + Send) -> anyhow::Result<()> {
        let shutdown = CancellationToken::new();
        let (routes, limits) = (learning::router(self.learning), Limits::PUBLIC.within(listener::open_files()));
        let served = tokio::spawn(vital(shutdown.clone(), serve(self.public, routes, limits, shutdown.clone())));
        let asked = tokio::select! {
            () = stop => true,
            () = shutdown.cancelled() => false,
        };
        shutdown.cancel();
        served.await?;
        if asked { Ok(()) } else { Err(anyhow!("the listener failed")) }
    }
}

/// Says once in the log what is not as it should be, and shows it at `/readyz` from then on.
fn notice(noticed: &Noticed, findings: Vec<Finding>) {
    for Finding { check, severity, found } in &findings {
        let (check, means, mend) = (check.as_str(), check.means(), check.mend());
        match severity {
            Severity::Ok => {}
            Severity::Unknown => info!(check, found, "preflight: this could not be found out"),
            Severity::Warning => warn!(check, found, means, mend, "preflight: this should be mended"),
            Severity::Error => error!(check, found, means, mend, "preflight: this is wrong"),
        }
    }
    noticed.add(findings);
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

/// Serves until told to stop. A listener that fails stops the whole process, so that it is started anew.
async fn serve(listener: TcpListener, router: axum::Router, limits: Limits, shutdown: CancellationToken) {
    if let Err(error) = listener::serve(listener, router, limits, shutdown).await {
        error!(listener = limits.name, error = &error as &dyn std::error::Error, "a listener failed");
    }
}

/// A part without which the process must not go on: its end, a panic included, stops everything, so that the process is started anew.
async fn vital(shutdown: CancellationToken, part: impl Future<Output = ()>) {
    let _stops_all = shutdown.drop_guard();
    part.await;
}

async fn keep_house(store: Store, shutdown: CancellationToken) {
    while !shutdown.is_cancelled() {
        match store.trim_events().await {
            Ok(0) => {}
            Ok(trimmed) => info!(trimmed, "old events were trimmed"),
            Err(error) => warn!(error = &error as &dyn std::error::Error, "events could not be trimmed"),
        }
        crash_point!(EventsTrimmed);
        match store.tell_if_never_heard().await {
            Ok(false) => {}
            Ok(true) => warn!(
                "no notification about a charge or permission has come since this Redis was set up, a day ago or more"
            ),
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "whether notifications ever came is not known");
            }
        }
        // Both may take a while, and can go on the next time.
        if let Some(Err(error)) = shutdown.run_until_cancelled(store.fill_lists()).await {
            let error = &error as &dyn std::error::Error;
            warn!(
                error,
                "charges of an earlier version are missing in the lists; the Redis user needs +scan for this once"
            );
        }
        crash_point!(ListsFilled);
        match shutdown.run_until_cancelled(store.trim_lists()).await {
            None | Some(Ok(0)) => {}
            Some(Ok(trimmed)) => info!(trimmed, "entries of charges that have gone were taken out of the lists"),
            Some(Err(error)) => warn!(error = &error as &dyn std::error::Error, "the lists could not be trimmed"),
        }
        crash_point!(ListsTrimmed);
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(HOUSEKEEPING) => {}
        }
    }
}

/// For the chart of what arrives. That Redis does not answer is told by those who need it.
async fn count_arrivals(store: Store) {
    let mut ticks = tokio::time::interval(COUNTING);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = store.note_arrivals().await {
            debug!(error = &error as &dyn std::error::Error, "what arrived was not counted");
        }
    }
}

/// Until it is folded each sample is kept by itself; whether anybody reads `/metrics` must not decide how much memory that takes.
async fn fold_samples(metrics: PrometheusHandle) {
    let mut ticks = tokio::time::interval(FOLDING);
    loop {
        ticks.tick().await;
        metrics.run_upkeep();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_worker_that_panics_stops_the_process_instead_of_leaving_it_deaf() {
        let shutdown = CancellationToken::new();
        let worker = tokio::spawn(vital(shutdown.clone(), async { panic!("a bug") }));
        assert!(worker.await.is_err());
        assert!(shutdown.is_cancelled());
    }
}
