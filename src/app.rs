//! Builds the stages from a configuration and runs them: the only module that knows them all.
//!
//! Everything is parsed and checked, and every sink built, before a port is bound; certificates of the receivers are read
//! when they are. The end comes in the order of the story:
//! stop saying ready, keep accepting for a while, close the intake, judge what waits, deliver, exit.

pub mod admin_service;
pub mod exposition;
mod followed_file;
mod limit_log;
pub mod plan_service;
pub mod reload;
mod shadow_reload;
mod trace_answer;

use crate::admin::{self, Audience};
use crate::config::budget::RING_SHARE;
use crate::config::{Config, Drain, PolicySource, QueueConfig, SinkConfig, SinkKind, read_text};
use crate::deliver::{BatchLimits, CLOSE_TIME, Delivery, DeliverySettings, NamedSink};
use crate::diagnostic::{self, Diagnostic};
use crate::identity::World;
use crate::measure::{Meter, Now};
use crate::pipeline::{Pipeline, active_policy::ActivePolicy};
use crate::policy::Policy;
use crate::processing::Processing;
use crate::receive::{LocalAddrs, Phase, Receiver};
use crate::ring::wheel::TICK_MS;
use crate::scan::items;
use crate::secret::{Credential, SecretSource};
use crate::supervise::Supervisor;
use crate::tls::{ServerTls, TlsFiles};
use crate::trace::{RuleNames, Signal};
use admin_service::AdminService;
use plan_service::PlanService;
use prost::Message;
use reload::{Reloader, nothing_to_reload, warn_of_routes};
use shadow_reload::ShadowReloader;
use std::future::pending;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval};

/// How often the request metrics look for what has become old: half of a slot of their windows.
const METRICS_AGE_EVERY: Duration = Duration::from_secs(5);

/// Why the process did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Wrong files: the text is a rendered report.
    #[error("{0}")]
    Files(String),
    /// The world is not as the files say: a port is taken, a certificate is missing.
    #[error("{0}")]
    World(String),
}

/// How somebody asked the process to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// SIGTERM: others in the pod stop at the same moment, so their last spans are waited for.
    Terminate,
    /// Ctrl-C: a person waits.
    Interrupt,
}

/// At the end, how long the last export may wait for a queue that is full.
const LAST_EXPORT_MOST: Duration = Duration::from_secs(2);

/// Bound, and what its callers must do.
struct AdminListener {
    socket: TcpListener,
    tls: Option<Arc<ServerTls>>,
    token: Option<Arc<Credential>>,
}

/// Bound to its ports, serving nothing yet.
pub struct App {
    drain: Drain,
    receiver: Receiver,
    health: Option<TcpListener>,
    admin: Option<AdminListener>,
    admin_service: Arc<AdminService>,
    shadow: Option<ShadowReloader>,
}

impl App {
    /// Binds every port before it touches the queue on disk, which a first process may be using. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`StartError`], with a text for whoever wrote the files.
    pub async fn start(config: Config) -> Result<App, StartError> {
        let names = config.measure.iter().flat_map(|measure| measure.dimensions.names());
        let dimensions: Vec<String> = names.map(|name| name.attribute.clone()).collect();
        let active_policy = load_policy(&config.policy, &dimensions)?;
        config.check_rules(&active_policy.policy).map_err(StartError::Files)?;
        config.check_places().map_err(StartError::World)?;
        announce(&config, &active_policy.policy);
        let world = World::system();
        let sinks = config.sinks.iter().map(|sink| build_sink(sink, &world)).collect::<Result<Vec<_>, _>>()?;
        App::assemble(config, active_policy, sinks).await
    }

    async fn assemble(config: Config, active_policy: ActivePolicy, sinks: Vec<NamedSink>) -> Result<App, StartError> {
        let store = config.sinks.iter().find_map(|sink| match &sink.kind {
            SinkKind::Store(store) => Some(store.path.clone()),
            _ => None,
        });
        let admin_tls = load_admin_tls(config.admin_tls.as_ref())?;
        let admin_token = load_admin_token(config.admin_token.as_ref())?;
        let receiver = Receiver::bind(config.receive).await.map_err(|error| StartError::World(error.to_string()))?;
        let health = bind(config.health, "health.listen").await?;
        let admin = bind(config.admin, "admin.listen").await?;
        let meter = config.measure.map(|settings| Meter::new(settings, unix_nanos()));
        let delivery = start_delivery(config.queue, sinks)?;
        let processing = Processing::new(config.processing, random_seed());
        let pipeline =
            Pipeline::new(config.ring, random_seed(), active_policy, meter, processing, delivery, config.hops);
        let pipeline = Arc::new(pipeline);
        warn_of_routes(&pipeline, &pipeline.active_policy.load().policy);
        let reloader = match config.policy {
            PolicySource::File(path) => Some(Arc::new(Reloader::new(path, pipeline.clone()))),
            PolicySource::Builtin => None,
        };
        let shadow = config.policy_shadow.map(|path| ShadowReloader::new(path, pipeline.clone()));
        let admin_service = Arc::new(AdminService {
            receiver: receiver.stats(),
            store,
            ready: AtomicBool::new(false),
            reloader,
            connections_closed: Default::default(),
            plans: PlanService::default(),
            pipeline,
        });
        let admin = admin.map(|socket| AdminListener { socket, tls: admin_tls, token: admin_token });
        Ok(App { drain: config.drain, receiver, health, admin, admin_service, shadow })
    }

    /// Where OTLP is taken.
    pub fn addresses(&self) -> LocalAddrs {
        self.receiver.local_addrs()
    }

    /// Where questions are answered: health, then admin.
    pub fn listeners(&self) -> [Option<SocketAddr>; 2] {
        let address = |listener: &TcpListener| listener.local_addr().ok();
        [self.health.as_ref().and_then(address), self.admin.as_ref().and_then(|admin| address(&admin.socket))]
    }

    pub fn admin_service(&self) -> Arc<AdminService> {
        self.admin_service.clone()
    }

    /// Serves until `stop` resolves, then drains. Returns within the drain's deadline.
    ///
    /// # Errors
    /// When it ended because one of its own tasks did: the name of that. What could be delivered has been.
    pub async fn run(self, stop: impl Future<Output = Stop>) -> Result<(), String> {
        let App { drain, receiver, health, admin, admin_service, shadow } = self;
        let pipeline = admin_service.pipeline.clone();
        let (phase, _) = watch::channel(Phase::Serving);
        let (closed, _) = watch::channel(false);
        let mut tasks = Tasks::default();
        tasks.spawn("the judge", judge_in_time(pipeline.clone()));
        let exports = tasks.spawn("the export of metrics", export_metrics(pipeline.clone()));
        tasks.spawn("the ageing of metrics", age_metrics(pipeline.clone()));
        tasks.spawn("the watch over the ring", watch_memory(pipeline.clone(), phase.subscribe()));
        tasks.spawn("the watch over limits", limit_log::watch_limits(pipeline.clone()));
        match &admin_service.reloader {
            Some(reloader) => tasks.spawn("the reload of the policy", reloader.clone().run()),
            None => tasks.spawn("the reload of the policy", nothing_to_reload()),
        };
        if let Some(shadow) = shadow {
            tasks.spawn("the reload of the shadow policy", shadow.run());
        }
        let answers =
            |socket, tls, audience| admin::serve(socket, tls, audience, admin_service.clone(), closed.subscribe());
        if let Some(socket) = health {
            tasks.spawn("the health listener", answers(socket, None, Audience::Health));
        }
        if let Some(AdminListener { socket, tls, token }) = admin {
            tasks.spawn("the admin listener", answers(socket, tls, Audience::Admin { token }));
        }
        let ends = phase.subscribe();
        let serving = receiver.serve(pipeline.clone(), phase.subscribe());
        let mut intake =
            tokio::spawn(tasks.supervisor.watch("the receiver", serving, move || *ends.borrow() == Phase::Closed));
        admin_service.ready.store(true, Relaxed);
        let mut stop = pin!(stop);
        let (asked, failed) = tokio::select! {
            asked = &mut stop => (asked, None),
            failed = tasks.supervisor.failed() => (Stop::Interrupt, Some(failed)),
            failed = pipeline.delivery.failed() => (Stop::Interrupt, Some(failed)),
        };
        let deadline = Instant::now() + drain.deadline;
        admin_service.ready.store(false, Relaxed);
        match &failed {
            Some(task) => tracing::error!(task, "a part of the process has ended: it delivers what it can, and ends"),
            None => tracing::info!(?asked, "draining"),
        }
        phase.send_replace(Phase::Draining);
        if asked == Stop::Terminate {
            tokio::time::sleep(drain.accept).await;
        }
        phase.send_replace(Phase::Closed);
        // What is in flight gets half of the time that is left.
        let half = deadline.saturating_duration_since(Instant::now()) / 2;
        if tokio::time::timeout(half, &mut intake).await.is_err() {
            intake.abort();
            let requests = admin_service.receiver.read().requests_in_flight;
            tracing::warn!(requests, "some requests did not end in time, their clients will send them again");
        }
        // An export after the last one would come when nobody delivers any more.
        exports.abort();
        drain_stages(pipeline.clone(), deadline, deadline - CLOSE_TIME.min(drain.deadline / 2)).await;
        pipeline.delivery.drain(deadline).await;
        closed.send_replace(true);
        tasks.running.shutdown().await;
        failed.map_or(Ok(()), Err)
    }
}

/// The tasks that run beside the receiver, none of which may end before the process does.
#[derive(Default)]
struct Tasks {
    running: JoinSet<()>,
    supervisor: Supervisor,
}

impl Tasks {
    fn spawn(&mut self, name: &str, work: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.running.spawn(self.supervisor.watch(name, work, || false))
    }
}

/// Gives all that is left to the queue. A defect in one of the stages costs that stage, not what others hold.
async fn drain_stages(pipeline: Arc<Pipeline>, deadline: Instant, until: Instant) {
    let work = async move {
        pipeline.drain(until).await;
        let left = deadline.saturating_duration_since(Instant::now());
        push_metrics(&pipeline, Instant::now() + LAST_EXPORT_MOST.min(left / 4)).await;
    };
    // The panic is in the log.
    let _ = tokio::spawn(work).await;
}

/// What this process is about to do: the first that one looks for in a log.
fn announce(config: &Config, policy: &Policy) {
    let (memory_mib, ring_mib) = (config.memory >> 20, config.ring >> 20);
    let queue = config.queue.spool.as_ref().map_or("in memory".to_owned(), |spool| spool.path.display().to_string());
    let (policy, rules, hash) = (&policy.file, policy.rules.len(), &policy.hash);
    tracing::info!(policy, rules, hash, memory_mib, ring_mib, queue, "starting");
    for sink in &config.sinks {
        let rules = sink.rule_names().map(|rules| rules.join(", "));
        tracing::info!(sink = sink.name, kind = sink.kind.word(), to = sink.destination(), rules, "delivering to");
    }
}

fn load_policy(source: &PolicySource, dimensions: &[String]) -> Result<ActivePolicy, StartError> {
    let (file, text) = match source {
        PolicySource::Builtin => ("the built-in policy".to_owned(), Policy::builtin().to_owned()),
        PolicySource::File(path) => {
            let file = path.display().to_string();
            let text = read_text(path).map_err(|error| {
                StartError::Files(format!("cannot read the policy {file}: {error}; see `policy:` of the configuration"))
            })?;
            (file, text)
        }
    };
    let mut rules = RuleNames::default();
    let (policy, diagnostics) = Policy::compile(&file, &text, 1, &mut rules);
    let Some(policy) = policy else {
        let count = diagnostic::count_line(&diagnostics, &file).unwrap_or_default();
        return Err(StartError::Files(format!("{}{count}", diagnostic::render(&diagnostics, &text, false))));
    };
    warn_of(&diagnostics);
    ActivePolicy::new(policy, dimensions, rules)
        .map_err(|_| StartError::Files(format!("{file}: the rules ask more different questions than there are bits")))
}

/// What is wrong with a policy that can be used all the same.
fn warn_of(diagnostics: &[Diagnostic]) {
    for diagnostic in diagnostics {
        tracing::warn!(problem = diagnostic.brief(), "the policy can be used, but `tailkeep check` has doubts");
    }
}

async fn bind(address: Option<SocketAddr>, key: &str) -> Result<Option<TcpListener>, StartError> {
    let Some(address) = address else { return Ok(None) };
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(Some(listener)),
        Err(error) => {
            Err(StartError::World(format!("{key}: cannot listen on {address}: {error}; write another address")))
        }
    }
}

/// `admin` speaks HTTP/1.1.
fn load_admin_tls(files: Option<&TlsFiles>) -> Result<Option<Arc<ServerTls>>, StartError> {
    let load = |files| ServerTls::load("admin.tls", files, &[b"http/1.1"]);
    let tls = files.map(load).transpose();
    tls.map(|tls| tls.map(Arc::new)).map_err(|error| StartError::World(format!("admin.tls.{error}")))
}

fn load_admin_token(source: Option<&SecretSource>) -> Result<Option<Arc<Credential>>, StartError> {
    let token = source.map(|source| Credential::bearer("admin.token", source)).transpose();
    token.map(|token| token.map(Arc::new)).map_err(|error| StartError::World(format!("admin.token: {error}")))
}

fn build_sink(sink: &SinkConfig, world: &World) -> Result<NamedSink, StartError> {
    match sink.build(world) {
        Ok(built) => Ok(NamedSink { name: sink.name.clone(), sink: built, rules: sink.rule_names() }),
        Err(error) => Err(StartError::Files(format!("sink {}: {error}", sink.name))),
    }
}

fn start_delivery(queue: QueueConfig, sinks: Vec<NamedSink>) -> Result<Arc<Delivery>, StartError> {
    let settings = DeliverySettings {
        batch: BatchLimits::default(),
        quotas: queue.memory,
        longest_wait: queue.longest_wait,
        longest_refusal: queue.longest_refusal,
        spool: queue.spool,
        seed: random_seed(),
    };
    Delivery::start(settings, sinks).map(Arc::new).map_err(|error| StartError::World(format!("queue.path: {error}")))
}

/// Different in every process, so that nobody can aim at one bucket.
pub fn random_seed() -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).expect("the system has randomness");
    u64::from_ne_bytes(bytes)
}

fn unix_nanos() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

async fn judge_in_time(pipeline: Arc<Pipeline>) {
    let mut ticks = interval(Duration::from_millis(TICK_MS));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        pipeline.tick().await;
    }
}

async fn export_metrics(pipeline: Arc<Pipeline>) {
    let Some(meter) = &pipeline.meter else { return pending().await };
    let mut ticks = interval(meter.settings().every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        push_metrics(&pipeline, Instant::now() + meter.settings().every / 2).await;
    }
}

/// Gives memory of windows that have ended back, and retires what is idle; however seldom metrics are exported.
async fn age_metrics(pipeline: Arc<Pipeline>) {
    let Some(meter) = &pipeline.meter else { return pending().await };
    let mut ticks = interval(METRICS_AGE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        meter.tick(pipeline.now_ms());
    }
}

/// Hands an export to the queue at a sink's pace, but for a dead sink's sake not longer than `until`.
async fn push_metrics(pipeline: &Pipeline, until: Instant) {
    let Some(meter) = pipeline.meter.as_ref().filter(|_| pipeline.delivery.takes(Signal::Metrics)) else { return };
    let now = Now { ms: pipeline.now_ms(), unix_nanos: unix_nanos() };
    for request in meter.export(now) {
        let body = request.encode_to_vec();
        let items = items::count(Signal::Metrics, &body).expect("our own request is well formed");
        let body = pipeline.processing.apply(Signal::Metrics, body.into()).into_owned();
        pipeline.delivery.push_own(Signal::Metrics, body, items, until).await;
    }
}

/// Says how much memory this rate of spans needs, when the ring is too young to wait for roots.
async fn watch_memory(pipeline: Arc<Pipeline>, phase: watch::Receiver<Phase>) {
    let mut ticks = interval(Duration::from_secs(10));
    let mut said = false;
    loop {
        ticks.tick().await;
        if *phase.borrow() != Phase::Serving {
            // A drain empties the ring on purpose.
            return;
        }
        let wanted = pipeline.active_policy.load().policy.wait.after_root + Duration::from_secs(5);
        let (reach_ms, ring, evicting) =
            pipeline.balance(|_, shards| (shards.reach_ms, pipeline.ring_size, shards.counts.swept > 0));
        let short = evicting && reach_ms < wanted.as_millis() as u64;
        if short && !said {
            let needed = (ring as u128 * wanted.as_millis() / u128::from(reach_ms.max(1))).div_ceil(1 << 20);
            let memory = (needed * 1000).div_ceil(RING_SHARE as u128);
            let seconds = reach_ms as f64 / 1e3;
            tracing::warn!(
                ring_seconds = seconds,
                "the ring is too small to wait for roots: at this rate it needs ring.size: {needed}MiB, \
                 or without that key memory: {memory}MiB"
            );
        }
        said = short;
    }
}

#[cfg(test)]
mod tests;
