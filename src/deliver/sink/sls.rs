//! Log Service: spans, samples and log records by signed PutLogs requests.
//!
//! A batch becomes one or more packs of at most 1 MiB or 4096 logs. A pack that was taken is never
//! sent again, whatever happens to the next: a retry of the batch goes on where the last attempt
//! ended. Only a reply that was lost makes duplicates; Log Service cannot tell them.

mod encode;
mod json;
mod logs;
mod metrics;
mod project;
mod reply;
mod seal;
mod settings;
mod sign;
mod time;
mod traces;

pub use settings::{MetricsPath, PackCompression, SlsSettings, TimeUnit};
pub use sign::SignatureVersion;

use super::{Batch, SendError, SendResult, Sent, Sink};
use crate::otlp::walk::Place;
use crate::{
    deliver::{
        Discard,
        refusal::{Next, Refusals},
    },
    identity::{Identity, World},
    trace::Signal,
};
use bytes::Bytes;
use encode::PackLimits;
use project::{Project, RequestProblem};
use reply::{QuotaScope, RefusalAction};
use seal::{PackBounds, Style};
use std::{future::Future, net::UdpSocket, pin::Pin, sync::Arc, time::Duration};
use time::ServiceTime;
use tokio::time::Instant;

/// Longest pause that a quota makes.
const SLOWEST: Duration = Duration::from_secs(60);
/// Pause before a store that is missing, or keys or a signature that are refused, are tried again.
const PATIENT: Duration = Duration::from_secs(30);
const UNWRITABLE: &str = "log service has no form for them, or one alone is too much text";

/// One project's stores as a sink.
pub struct Sls {
    settings: SlsSettings,
    project: Project,
    style: Arc<Style>,
    signals: [PackState; 3],
}

/// What one signal's packs have been through. Signals wait each by itself: while one is refused,
/// batches of the others come between its attempts.
struct PackState {
    packs: PackIds,
    progress: Option<BatchProgress>,
    /// The pause after the last refusal for a quota.
    pause: Duration,
    /// By what may be corrected, or because of single items: a wrong secret does not heal, but somebody may correct it,
    /// and a proxy on the way may go away, or refuse some texts.
    refusals: Refusals,
}

/// How far a batch has come; it outlives a failed attempt.
struct BatchProgress {
    body: Bytes,
    /// What is before it was taken or refused for good.
    place: Place,
    sent: Sent,
    limits: PackLimits,
    doubted: Option<RefusedItems>,
    /// The clock was set for this batch: once must do.
    clock_set: bool,
}

/// A pack that was refused, perhaps for a single item: what it held goes in smaller ones.
struct RefusedItems {
    /// Of it, that are left.
    items: usize,
    /// That a pack has at most.
    most: usize,
}

/// `__pack_id__`: a prefix for this process and store, a number for each pack, the same again when it is retried.
struct PackIds {
    prefix: u64,
    next: u64,
}

/// What follows from a pack that was not taken.
enum AfterPack {
    /// Pack anew: with fewer items, or by another clock.
    Repack,
    GiveUp,
    Wait(Option<Duration>),
    /// With all stores of the project.
    Pause(Duration),
}

impl Sls {
    /// Checks the settings; asks nothing over the network. The error says which setting to change.
    pub fn new(settings: SlsSettings, world: World) -> Result<Sls, String> {
        let topic = settings.topic.clone().unwrap_or_else(|| host_name(&world));
        let source = settings.source.clone().unwrap_or_else(own_address);
        let style = Style { unit: settings.trace_time_unit, compression: settings.compression, topic, source };
        let signals = std::array::from_fn(|_| PackState::new((world.random)(), settings.longest_refusal));
        let project = Project::new(settings.clone(), world)?;
        Ok(Sls { settings, project, style: Arc::new(style), signals })
    }

    /// Whose keys sign.
    pub fn identity(&self) -> &Arc<Identity> {
        self.project.identity()
    }

    /// The host that requests go to.
    pub fn host(&self) -> &str {
        self.project.host()
    }

    /// The store of a signal, if it is delivered.
    pub fn store(&self, signal: Signal) -> Option<&str> {
        self.settings.store(signal)
    }

    /// A signed request that changes nothing: asks for the settings of `store`. Gives the request's
    /// id, or what Log Service said, which names the request as well.
    pub async fn probe(&mut self, store: &str) -> Result<String, ProbeError> {
        self.project.probe(store).await.map_err(|problem| {
            let cause = match &problem {
                RequestProblem::Keys(_) => ProbeCause::Keys,
                RequestProblem::Network(_) => ProbeCause::Network,
                RequestProblem::ClockSet(refusal) | RequestProblem::Refused(refusal) => {
                    ProbeCause::Status(refusal.status(), refusal.action == RefusalAction::SetClock)
                }
            };
            ProbeError { cause, text: problem.to_string() }
        })
    }

    async fn deliver(&mut self, batch: &Batch) -> SendResult {
        let Some(store) = self.settings.store(batch.signal).map(str::to_owned) else {
            return Err(SendError::Refused { reason: format!("no store for {}", batch.signal.word()) });
        };
        seal::check(batch)?;
        let state = batch.signal as usize;
        self.signals[state].begin(batch);
        loop {
            let cut = self.signals[state].cut(self.project.now());
            let sealed = seal::seal(batch, &self.style, cut).await?;
            if sealed.items == 0 {
                break;
            }
            let mut lost = Sent::without(sealed.refused as u64, Discard::Rejected, UNWRITABLE);
            if let Some(body) = sealed.body {
                match self.project.put(batch.signal, &store, body).await {
                    Ok(()) => self.signals[state].taken(),
                    Err(problem) => match self.judge(batch.signal, &problem, sealed.items) {
                        AfterPack::Wait(after) => return Err(SendError::Retry { after, reason: problem.to_string() }),
                        AfterPack::Pause(after) => return Err(SendError::Pause { after, reason: problem.to_string() }),
                        AfterPack::GiveUp => {
                            let reason = format!("{store}: {problem}");
                            lost = Sent::without(sealed.items as u64, Discard::Refused, reason);
                        }
                        AfterPack::Repack => continue,
                    },
                }
            }
            self.signals[state].advance(sealed.items, sealed.next, lost);
        }
        Ok(self.signals[state].progress.take().expect("set above").sent)
    }

    fn judge(&mut self, signal: Signal, problem: &RequestProblem, items: usize) -> AfterPack {
        let state = &mut self.signals[signal as usize];
        let progress = state.progress.as_mut().expect("a batch is on its way");
        if !matches!(problem, RequestProblem::Refused(refusal) if refusal.action == RefusalAction::Doubt) {
            state.refusals.interrupted();
        }
        let refusal = match problem {
            RequestProblem::ClockSet(_) if !std::mem::replace(&mut progress.clock_set, true) => {
                return AfterPack::Repack;
            }
            RequestProblem::Keys(_) | RequestProblem::Network(_) | RequestProblem::ClockSet(_) => {
                return AfterPack::Wait(None);
            }
            RequestProblem::Refused(refusal) => refusal,
        };
        match refusal.action {
            RefusalAction::Retry | RefusalAction::SetClock => AfterPack::Wait(None),
            RefusalAction::RenewKeys => AfterPack::Wait(Some(PATIENT)),
            RefusalAction::SlowDown { first, scope } => {
                state.pause = first.max(state.pause * 2).min(SLOWEST);
                match scope {
                    QuotaScope::Store => AfterPack::Wait(Some(state.pause)),
                    QuotaScope::Project => AfterPack::Pause(state.pause),
                }
            }
            RefusalAction::WaitForStore => AfterPack::Wait(Some(PATIENT)),
            RefusalAction::Doubt => state.doubt(items, Instant::now()),
            RefusalAction::Split if items > 1 => {
                progress.limits.items = items.div_ceil(2);
                AfterPack::Repack
            }
            RefusalAction::Split | RefusalAction::Drop => AfterPack::GiveUp,
        }
    }
}

impl Sink for Sls {
    fn takes(&self, signal: Signal) -> bool {
        self.settings.store(signal).is_some()
    }

    fn send<'a>(&'a mut self, batch: &'a Batch) -> Pin<Box<dyn Future<Output = SendResult> + Send + 'a>> {
        Box::pin(self.deliver(batch))
    }
}

impl PackState {
    fn new(prefix: u64, longest_refusal: Duration) -> PackState {
        let (packs, refusals) = (PackIds { prefix, next: 0 }, Refusals::new(longest_refusal));
        PackState { packs, progress: None, pause: Duration::ZERO, refusals }
    }

    /// Goes on with a batch that was tried before, or begins one.
    fn begin(&mut self, batch: &Batch) {
        // By content: a batch that comes from a disk again is another piece of memory.
        if self.progress.as_ref().is_none_or(|progress| progress.body != batch.body) {
            // What was under way for a batch that was given up may have arrived: its number is used.
            self.packs.next += u64::from(self.progress.is_some());
            self.progress = Some(BatchProgress::new(batch));
            self.refusals.over();
        }
    }

    /// The next pack of the batch that is on its way: the same again until it was advanced.
    fn cut(&self, now: ServiceTime) -> PackBounds {
        let progress = self.progress.as_ref().expect("a batch is on its way");
        let most = progress.doubted.as_ref().map_or(usize::MAX, |doubted| doubted.most.min(doubted.items));
        let limits = PackLimits { items: progress.limits.items.min(most), ..progress.limits };
        PackBounds { from: progress.place, limits, now, pack_id: self.packs.current() }
    }

    /// A pack of so many items was refused by what may be corrected, or may not be about all of them.
    fn doubt(&mut self, items: usize, now: Instant) -> AfterPack {
        let progress = self.progress.as_mut().expect("a batch is on its way");
        match self.refusals.refused(items as u64, 1, now) {
            Next::GiveUp => {
                self.refusals.next_piece();
                progress.doubted = None;
                AfterPack::GiveUp
            }
            Next::Halve { .. } if items > 1 => {
                progress.doubted.get_or_insert(RefusedItems { items, most: items }).most = items.div_ceil(2);
                AfterPack::Repack
            }
            // Somebody corrects it, or has nothing to correct.
            _ => AfterPack::Wait((!self.refusals.takes_others(now)).then_some(PATIENT)),
        }
    }

    fn taken(&mut self) {
        self.pause = Duration::ZERO;
        let progress = self.progress.as_mut().expect("a batch is on its way");
        if self.refusals.is_refused() {
            // So it was not about an item of it.
            progress.doubted = None;
        }
        self.refusals.taken();
    }

    /// The pack at hand is done with.
    fn advance(&mut self, items: usize, next: Place, pack: Sent) {
        let progress = self.progress.as_mut().expect("a batch is on its way");
        progress.place = next;
        if let Some(doubted) = &mut progress.doubted {
            doubted.items = doubted.items.saturating_sub(items);
        }
        progress.doubted.take_if(|doubted| doubted.items == 0);
        progress.sent.lost.extend(pack.lost);
        self.packs.next += 1;
    }
}

impl BatchProgress {
    fn new(batch: &Batch) -> BatchProgress {
        BatchProgress {
            body: batch.body.clone(),
            place: Place::default(),
            sent: Sent::default(),
            limits: PackLimits::default(),
            doubted: None,
            clock_set: false,
        }
    }
}

impl PackIds {
    fn current(&self) -> String {
        format!("{:016X}-{:X}", self.prefix, self.next)
    }
}

/// Why a probe failed.
#[derive(Debug)]
pub struct ProbeError {
    pub cause: ProbeCause,
    /// What happened, with the request's id where there is one.
    pub text: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProbeCause {
    Keys,
    Network,
    /// HTTP status, and whether the clock is to blame.
    Status(u16, bool),
}

fn host_name(world: &World) -> String {
    let from_kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    from_kernel.or_else(|| (world.variable)("HOSTNAME")).unwrap_or_default().trim().to_owned()
}

/// The address from which this host reaches others. Connecting a UDP socket sends nothing.
fn own_address() -> String {
    let socket = UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.connect("192.0.2.1:9").map(|()| socket));
    socket.and_then(|socket| socket.local_addr()).map_or(String::new(), |address| address.ip().to_string())
}

#[cfg(test)]
mod tests;
