//! Hands kept traces, metrics and logs to every sink that takes them.
//!
//! Pieces of OTLP grow into batches ([`batch`]) in one bounded queue ([`queue`]); each sink has a
//! loop of its own (`worker`) that sends them in order and tries again for as long as it takes
//! ([`retry`]). With a path, the queue is also on disk ([`spool`]). What comes from outside is pushed without
//! waiting; our own metrics ([`Delivery::push_own`]) wait for room.

pub mod batch;
pub mod hops;
mod log_throttle;
mod loss_log;
pub mod queue;
pub mod refusal;
pub mod retry;
mod routing;
pub mod sink;
pub mod spool;
mod worker;

pub use batch::BatchLimits;
pub use hops::HopMemory;
pub use queue::{AccountRow, Discard, Tally};
pub use sink::{Batch, Sink};
pub use spool::SpoolSettings;

use crate::{supervise::Supervisor, trace::Signal};
use bytes::Bytes;
use loss_log::LossLog;
use queue::{ENTRY_OVERHEAD, LostAtEnd, Pushed, Queue};
use routing::{Route, Routing};
use spool::{
    Recovered, Spool,
    files::{Disk, Files},
    writer::SpoolWriter,
};
use std::{
    io,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::Instant,
};
use tracing::{error, info, warn};
use worker::SinkWorker;

/// The part of the drain's time that is kept back for closing the sinks.
pub const CLOSE_TIME: Duration = Duration::from_secs(1);
/// Who waits for room asks for it this often, whether a sink took something or not.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// How much waits for sinks, and how it is batched.
#[derive(Clone, Debug)]
pub struct DeliverySettings {
    pub batch: BatchLimits,
    /// Bytes in memory per signal, in the order of [`Signal::ALL`]. Bodies under way to a sink may
    /// exceed it by one batch per sink.
    pub quotas: [usize; 3],
    /// A sink that failed is asked again after this long at the latest, unless it asks for more.
    pub longest_wait: Duration,
    /// A batch that a sink refuses, though it may take it later, is discarded after this long.
    pub longest_refusal: Duration,
    /// Without it, what is queued ends with the process.
    pub spool: Option<SpoolSettings>,
    /// Seeds the jitter of retries; different in each process.
    pub seed: u64,
}

/// A sink with the name that the configuration gives it.
pub struct NamedSink {
    pub name: String,
    pub sink: Box<dyn Sink>,
    /// It gets the traces of these rules alone; of all if there are none.
    pub rules: Option<Vec<String>>,
}

/// The deliver stage. Dropping it without [`Delivery::drain`] stops the sinks at once.
pub struct Delivery {
    shared: Arc<Shared>,
    tasks: tokio::sync::Mutex<SinkTasks>,
    supervisor: Supervisor,
}

struct SinkTasks {
    workers: JoinSet<()>,
    /// What outlives the workers: the log of losses, and the spool's writer if there is a spool.
    others: JoinSet<()>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DeliveryPhase {
    Running,
    /// The last pieces are coming.
    Ending,
    /// Deliver what is there, without waiting for more.
    Draining,
    /// Give up what is under way and close.
    Stopped,
    /// No worker is left.
    Over,
}

/// Bytes that the queue holds, in the order of [`Signal::ALL`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    pub memory: [u64; 3],
    /// In the spool, for sinks that have not taken them.
    pub disk: [u64; 3],
    /// Of the spool, in which no whole record was found at start.
    pub damaged: [u64; 3],
    /// The spool could not be written the last time: the queue is in memory meanwhile.
    pub spool_fails: bool,
}

/// What pushers and workers share.
struct Shared {
    queue: Mutex<Queue>,
    names: Vec<String>,
    /// One per sink: there is something new.
    wake: Vec<Notify>,
    /// Something was taken or written to disk.
    progress: Notify,
    phase: watch::Sender<DeliveryPhase>,
    losses: LossLog,
    /// Where bodies on disk are read.
    spool: Option<Arc<dyn Files>>,
    /// Bytes that the spool may have, if there is one.
    disk: Option<[u64; 3]>,
    /// As [`Holdings::damaged`].
    damaged: [u64; 3],
    /// There is something to write.
    spool_wake: Notify,
    spool_error: Mutex<Option<String>>,
}

impl Shared {
    /// A mutex instead of an owner: pushers must not wait, and a push is a short copy.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("no code panics under this lock")
    }

    /// Sinks that have lost something of the signal for want of room.
    fn losing(&self, signal: Signal) -> Vec<String> {
        let lost = |tally: &Tally| tally.discarded(Discard::QueueFull) + tally.discarded(Discard::Shutdown) > 0;
        let rows = self.queue().rows(&self.names);
        rows.into_iter().filter(|row| row.signal == signal && lost(&row.tally)).map(|row| row.sink).collect()
    }

    /// Bytes that wait for a sink, and how many more the queue can hold.
    fn waits(&self, sink: usize, signal: Signal) -> (u64, u64) {
        let disk = self.disk.filter(|_| self.spool_error().is_none());
        self.queue().waits(sink, signal, disk.map(|quotas| quotas[signal as usize]))
    }

    /// Whether tasks may end, asked when one does.
    fn is_ending(self: &Arc<Shared>) -> impl FnOnce() -> bool + use<> {
        let shared = self.clone();
        move || *shared.phase.borrow() != DeliveryPhase::Running
    }

    fn wake_all(&self) {
        self.wake.iter().for_each(Notify::notify_one);
    }
}

impl Delivery {
    /// Starts one loop per sink on the current tokio runtime, with what an earlier run left in the
    /// spool. The error says why the spool's folder cannot be used.
    pub fn start(settings: DeliverySettings, sinks: Vec<NamedSink>) -> Result<Delivery, String> {
        let takes: Vec<[bool; 3]> = sinks.iter().map(|named| Signal::ALL.map(|s| named.sink.takes(s))).collect();
        let names: Vec<String> = sinks.iter().map(|named| named.name.clone()).collect();
        let rules: Vec<_> = sinks.iter().map(|named| (named.name.as_str(), named.rules.as_deref())).collect();
        let mut queue = Queue::new(settings.batch, settings.quotas, &takes, Routing::new(&rules));
        let opened = settings.spool.as_ref().map(open_spool).transpose()?;
        if let Some((_, recovered)) = &opened {
            recover(&mut queue, &names, recovered);
        }
        let shared = Arc::new(Shared {
            queue: Mutex::new(queue),
            names,
            wake: sinks.iter().map(|_| Notify::new()).collect(),
            progress: Notify::new(),
            phase: watch::Sender::new(DeliveryPhase::Running),
            losses: LossLog::default(),
            spool: opened.as_ref().map(|(spool, _)| spool.files()),
            disk: settings.spool.as_ref().map(|spool| spool.quotas),
            damaged: opened.as_ref().map_or([0; 3], |(_, recovered)| recovered.damaged),
            spool_wake: Notify::new(),
            spool_error: Mutex::default(),
        });
        let (mut workers, mut others, supervisor) = (JoinSet::new(), JoinSet::new(), Supervisor::default());
        for (index, named) in sinks.into_iter().enumerate() {
            let name = format!("the sink {}", named.name);
            let worker = SinkWorker::new(index, named, shared.clone(), &settings);
            workers.spawn(supervisor.watch(&name, worker.run(), shared.is_ending()));
        }
        others.spawn(supervisor.watch("the log of losses", loss_log::repeat(shared.clone()), shared.is_ending()));
        if let Some((spool, recovered)) = opened {
            let writer = SpoolWriter::new(spool, shared.clone(), recovered.cursors);
            others.spawn(supervisor.watch("the queue on disk", writer.run(), shared.is_ending()));
        }
        Ok(Delivery { shared, tasks: tokio::sync::Mutex::new(SinkTasks { workers, others }), supervisor })
    }

    /// The name of a sink or queue whose task ended though it should not; for ever if none does.
    pub async fn failed(&self) -> String {
        self.supervisor.failed().await
    }

    /// Whether any sink takes the signal.
    pub fn takes(&self, signal: Signal) -> bool {
        self.shared.queue().takes(signal)
    }

    /// The largest piece of a signal that does not push out a part of itself, bytes.
    pub fn piece_max(&self, signal: Signal) -> usize {
        let queue = self.shared.queue();
        if queue.takes(signal) { queue.quota_of(signal) } else { usize::MAX }
    }

    /// Queues fields of an `Export*ServiceRequest` with that many spans, data points or log records.
    /// Never waits and never fails: see [`Discard`] for what can become of them.
    pub fn push(&self, signal: Signal, body: impl Into<Bytes>, items: u64) {
        self.push_to(Route::ALL, Batch { signal, body: body.into(), items });
    }

    /// As [`Delivery::push`], for traces that a rule kept: only to the sinks that take them.
    pub fn push_of_rule(&self, rule: &str, body: impl Into<Bytes>, spans: u64) {
        let route = self.shared.queue().routing().of_rule(rule);
        self.push_to(route, Batch { signal: Signal::Traces, body: body.into(), items: spans });
    }

    /// Whether traces of one rule go to other sinks than those of another.
    pub fn routes_by_rule(&self) -> bool {
        self.shared.queue().routing().is_split()
    }

    /// The rules that sinks name.
    pub fn routed_rules(&self) -> Vec<String> {
        self.shared.queue().routing().rules().map(str::to_owned).collect()
    }

    /// Whether a rule's traces go anywhere, or no traces do.
    pub fn takes_of_rule(&self, rule: &str) -> bool {
        let queue = self.shared.queue();
        !queue.takes(Signal::Traces) || queue.is_claimed(queue.routing().of_rule(rule), Signal::Traces)
    }

    fn push_to(&self, route: Route, piece: Batch) {
        self.divide(piece, &mut |part| self.push_part(route, part, false));
    }

    /// As [`Delivery::push`], but no more than the queue holds of the signal: what is beyond would push out a part of
    /// itself. Gives the items that it took, the first ones.
    pub fn push_what_fits(&self, signal: Signal, body: impl Into<Bytes>, items: u64) -> u64 {
        let (mut room, mut taken) = (self.piece_max(signal), 0);
        self.divide(Batch { signal, body: body.into(), items }, &mut |part| {
            room = room.saturating_sub(part.body.len() + ENTRY_OVERHEAD);
            if room > 0 {
                taken += part.items;
                self.push_part(Route::ALL, part, false);
            }
        });
        taken
    }

    /// As [`Delivery::push`], for our own metrics. They are on disk at the end alone, because the next
    /// export supersedes them, and come no faster than a sink takes them: until that moment each part
    /// waits for room, or for any sink that has taken all that there is.
    pub async fn push_own(&self, signal: Signal, body: impl Into<Bytes>, items: u64, until: Instant) {
        let mut parts = Vec::new();
        self.divide(Batch { signal, body: body.into(), items }, &mut |part| parts.push(part));
        for part in parts {
            let bytes = part.body.len();
            let is_ready = |queue: &Queue, now| queue.is_ready_for(signal, bytes, now) || queue.has_idle_sink(signal);
            self.wait_for(is_ready, until).await;
            self.push_part(Route::ALL, part, true);
        }
    }

    /// Whether so many bytes more of a signal push out nothing that a sink is about to take: those that are stalled
    /// hold up no other.
    pub fn is_ready_for(&self, signal: Signal, bytes: usize) -> bool {
        self.shared.queue().is_ready_for(signal, bytes, Instant::now())
    }

    /// Waits until it [`Delivery::is_ready_for`] a push. False if it is not so at `until`.
    pub async fn ready_for(&self, signal: Signal, bytes: usize, until: Instant) -> bool {
        self.wait_for(|queue, now| queue.is_ready_for(signal, bytes, now), until).await
    }

    async fn wait_for(&self, is_ready: impl Fn(&Queue, Instant) -> bool, until: Instant) -> bool {
        loop {
            let mut progress = std::pin::pin!(self.shared.progress.notified());
            progress.as_mut().enable();
            let now = Instant::now();
            if is_ready(&self.shared.queue(), now) {
                return true;
            }
            if now >= until {
                return false;
            }
            // That a sink is stalled is seen by looking alone.
            let _ = tokio::time::timeout_at(until.min(now + LOOK_AGAIN), progress).await;
        }
    }

    fn divide(&self, piece: Batch, each: &mut dyn FnMut(Batch)) {
        let limits = self.shared.queue().limits(piece.signal);
        batch::divide(piece, &limits, each);
    }

    fn push_part(&self, route: Route, part: Batch, own: bool) {
        let (signal, now) = (part.signal, Instant::now());
        let pushed = self.shared.queue().push(route, part, own, now);
        self.report(signal, pushed, now);
    }

    fn report(&self, signal: Signal, pushed: Pushed, now: Instant) {
        if pushed.wake {
            self.shared.wake_all();
            self.shared.spool_wake.notify_one();
        }
        if pushed.first_unclaimed {
            let signal = signal.word();
            warn!(signal, "no sink takes this signal: it is accepted, counted and discarded");
        }
        if pushed.lost > 0 {
            self.shared.note_loss(signal, pushed.lost, now);
        }
    }

    /// The accounts of every sink and signal at one moment.
    pub fn snapshot(&self) -> Vec<AccountRow> {
        self.shared.queue().rows(&self.shared.names)
    }

    /// What the queue holds at this moment.
    pub fn holds(&self) -> Holdings {
        let [memory, disk] = self.shared.queue().held();
        Holdings { memory, disk, damaged: self.shared.damaged, spool_fails: self.shared.spool_error().is_some() }
    }

    /// Why the spool could not be written the last time; the queue is in memory meanwhile.
    pub fn spool_error(&self) -> Option<String> {
        self.shared.spool_error()
    }

    /// The process is about to end: from now on nothing is pushed out of a full queue, because what comes is
    /// ordered by its worth, and comes when there is room ([`Delivery::ready_for`]); what has no room at `until` is
    /// discarded. Sinks that wait after a failure are asked once more.
    pub fn start_ending(&self, until: Instant) {
        self.shared.queue().start_ending(until);
        self.shared.phase.send_replace(DeliveryPhase::Ending);
        self.shared.wake_all();
    }

    /// Delivers what is queued until the deadline and closes the sinks. The rest stays in the spool;
    /// without one it is discarded as [`Discard::Shutdown`], as is what is pushed later.
    pub async fn drain(&self, deadline: Instant) {
        self.shared.queue().start_draining();
        let time = deadline.saturating_duration_since(Instant::now());
        for AccountRow { sink, signal, tally } in self.snapshot().into_iter().filter(|row| row.tally.queued > 0) {
            let (signal, items, ms) = (signal.word(), tally.queued, time.as_millis() as u64);
            if ms == 0 {
                info!(sink, signal, items, "no time is left to deliver what waits");
            } else {
                info!(sink, signal, items, ms, "delivers what waits, for so long at most");
            }
        }
        self.shared.phase.send_replace(DeliveryPhase::Draining);
        self.shared.wake_all();
        let mut tasks = self.tasks.lock().await;
        if !all_end(&mut tasks.workers, deadline - CLOSE_TIME.min(time / 2)).await {
            self.shared.phase.send_replace(DeliveryPhase::Stopped);
            all_end(&mut tasks.workers, deadline - CLOSE_TIME.min(time / 2) / 2).await;
            tasks.workers.abort_all();
        }
        self.shared.phase.send_replace(DeliveryPhase::Over);
        all_end(&mut tasks.others, deadline).await;
        self.shared.say_rest_of_losses();
        let gone = self.shared.queue().close();
        for LostAtEnd { sink, signal, items, superseded } in gone {
            let (sink, signal, lost) = (&self.shared.names[sink], signal.word(), items - superseded);
            if superseded > 0 {
                info!(
                    sink,
                    signal,
                    items = superseded,
                    "earlier exports of our own metrics end here, the last is on disk"
                );
            }
            if lost > 0 {
                error!(sink, signal, items = lost, "the process ends before the sink took them: they are discarded");
            }
        }
    }
}

/// False if some task still runs at the deadline.
async fn all_end(tasks: &mut JoinSet<()>, deadline: Instant) -> bool {
    let end = async {
        while let Some(ended) = tasks.join_next().await {
            if ended.is_err_and(|reason| reason.is_panic()) {
                error!("a delivery task panicked; what it had not delivered is lost, or on disk");
            }
        }
    };
    tokio::time::timeout_at(deadline, end).await.is_ok()
}

fn open_spool(settings: &SpoolSettings) -> Result<(Spool, Recovered), String> {
    let opened = Disk::open(settings.path.clone()).and_then(|disk| Spool::open(Arc::new(disk), settings.quotas));
    opened.map_err(|error| match error.kind() {
        io::ErrorKind::ResourceBusy => format!(
            "another tailkeep uses the folder {}: give each a folder of its own (`queue.path`)",
            settings.path.display()
        ),
        _ => format!("the queue's folder (`queue.path`) cannot be used: {error}"),
    })
}

fn recover(queue: &mut Queue, names: &[String], recovered: &Recovered) {
    queue.start_from(recovered.next_number);
    for (index, name) in names.iter().enumerate() {
        let cursors = recovered.cursors.get(name).copied().unwrap_or_default();
        for (signal, cursor) in Signal::ALL.into_iter().zip(cursors) {
            // A sink that is not in there begins with the oldest: it may have got a new name.
            queue.set_cursor(index, signal, cursor.unwrap_or(0));
        }
    }
    let mut unknown = 0;
    for found in &recovered.records {
        let route = queue.routing().find(found.route);
        unknown += if route.is_none() { found.items } else { 0 };
        queue.recover(route.unwrap_or(Route::ALL), found.signal, found.number, found.items, found.location);
    }
    if unknown > 0 {
        warn!(items = unknown, "sinks or their `rules` have changed: what waited on disk for some of them goes to all");
    }
    if !recovered.records.is_empty() {
        let items: u64 = recovered.records.iter().map(|found| found.items).sum();
        info!(batches = recovered.records.len(), items, "went on with what an earlier run left on disk");
    }
}
