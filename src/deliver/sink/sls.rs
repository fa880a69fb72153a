//! Log Service: spans, samples and log records by signed PutLogs requests.
//!
//! A batch becomes one or more packs of at most 1 MiB or 4096 logs. A pack that was taken is never
//! sent again, whatever happens to the next: a retry of the batch goes on where the last attempt
//! ended. Only a reply that was lost makes duplicates; Log Service cannot tell them.

pub(super) mod encode;
pub(super) mod exponential;
mod json;
mod logs;
mod metrics;
mod project;
mod reply;
mod settings;
mod sign;
mod time;
mod traces;

pub use settings::{Compression, MetricsPath, Settings, TimeUnit};
pub use sign::SignatureVersion;

use super::{Batch, SendError, SendResult, Sent, Sink};
use crate::{
    identity::{Identity, World},
    trace::Signal,
};
use bytes::Bytes;
use encode::{Limits, Pack};
use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest,
};
use project::{Problem, Project};
use prost::Message;
use reply::{Action, Refusal};
use std::{future::Future, net::UdpSocket, pin::Pin, sync::Arc, time::Duration};
use time::Now;

/// Longest pause that a quota makes.
const SLOWEST: Duration = Duration::from_secs(60);
/// Pause before a store that is missing, or keys that are refused, are tried again.
const PATIENT: Duration = Duration::from_secs(30);
/// Signature refusals of one batch before its logs are dropped: a wrong secret does not heal, but a
/// proxy that changes headers may go away.
const SIGNATURE_TRIES: u32 = 4;

/// One project's stores as a sink.
pub struct Sls {
    settings: Settings,
    project: Project,
    topic: String,
    source: String,
    packs: PackIds,
    progress: Option<Progress>,
    /// The pause after the last refusal for a quota.
    pause: Duration,
}

/// How far a batch has come; it outlives a failed attempt.
struct Progress {
    signal: Signal,
    body: Bytes,
    /// Items that were taken or refused for good.
    done: usize,
    rejected: u64,
    limits: Limits,
    signature_refusals: u32,
    pack_id: String,
}

/// `__pack_id__`: a prefix for this process, a number for each pack, the same again when it is retried.
struct PackIds {
    prefix: u64,
    next: u64,
}

enum Decoded {
    Traces(ExportTraceServiceRequest),
    Metrics(ExportMetricsServiceRequest),
    Logs(ExportLogsServiceRequest),
}

/// What follows from a pack that was not taken.
enum Next {
    Halve,
    GiveUp,
    Wait(Option<Duration>),
}

impl Sls {
    /// Checks the settings; asks nothing over the network. The error says which setting to change.
    pub fn new(settings: Settings, world: World) -> Result<Sls, String> {
        let topic = settings.topic.clone().unwrap_or_else(|| host_name(&world));
        let source = settings.source.clone().unwrap_or_else(own_address);
        let packs = PackIds { prefix: (world.random)(), next: 0 };
        let project = Project::new(settings.clone(), world)?;
        Ok(Sls { settings, project, topic, source, packs, progress: None, pause: Duration::ZERO })
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
                Problem::Keys(_) => ProbeCause::Keys,
                Problem::Network(_) => ProbeCause::Network,
                Problem::Refused(refusal) => ProbeCause::Status(refusal.status(), refusal.action == Action::SetClock),
            };
            ProbeError { cause, text: problem.to_string() }
        })
    }

    async fn deliver(&mut self, batch: &Batch) -> SendResult {
        let Some(store) = self.settings.store(batch.signal).map(str::to_owned) else {
            return Err(SendError::Refused { reason: format!("no store for {}", batch.signal.word()) });
        };
        let decoded = Decoded::new(batch).map_err(|error| SendError::Refused { reason: error.to_string() })?;
        if !self.progress.as_ref().is_some_and(|progress| progress.is_of(batch)) {
            self.progress = Some(Progress::new(batch, self.packs.take()));
        }
        loop {
            let now = self.project.now();
            let progress = self.progress.as_mut().expect("set above");
            let pack = decoded.pack(progress.done, &progress.limits, now, self.settings.trace_time_unit);
            if pack.items() == 0 {
                break;
            }
            let (items, mut rejected) = (pack.items(), pack.refused());
            if pack.has_logs() {
                let group = pack.finish(&self.topic, &self.source, &progress.pack_id);
                match self.project.put(batch.signal, &store, &group).await {
                    Ok(()) => self.pause = Duration::ZERO,
                    Err(problem) => match self.judge(&problem, &store, items) {
                        Next::Wait(after) => return Err(SendError::Retry { after, reason: problem.to_string() }),
                        Next::GiveUp => rejected = items,
                        Next::Halve => continue,
                    },
                }
            }
            self.advance(items, rejected);
        }
        let rejected = self.progress.take().expect("set above").rejected;
        Ok(Sent { rejected })
    }

    fn advance(&mut self, items: usize, rejected: usize) {
        let progress = self.progress.as_mut().expect("a batch is on its way");
        progress.done += items;
        progress.rejected += rejected as u64;
        progress.pack_id = self.packs.take();
    }

    fn judge(&mut self, problem: &Problem, store: &str, items: usize) -> Next {
        let Problem::Refused(refusal) = problem else { return Next::Wait(None) };
        let progress = self.progress.as_mut().expect("a batch is on its way");
        match refusal.action {
            Action::Retry => Next::Wait(None),
            Action::SetClock => Next::Wait(None),
            Action::RenewKeys => Next::Wait(Some(PATIENT)),
            Action::SlowDown { first } => {
                self.pause = first.max(self.pause * 2).min(SLOWEST);
                Next::Wait(Some(self.pause))
            }
            Action::WaitForStore => {
                tracing::warn!(host = self.project.host(), store, %refusal, "the store is missing, please create it");
                Next::Wait(Some(PATIENT))
            }
            Action::CheckSignature => {
                progress.signature_refusals += 1;
                if progress.signature_refusals < SIGNATURE_TRIES {
                    Next::Wait(None)
                } else {
                    lose(refusal, store, items)
                }
            }
            Action::Split if items > 1 => {
                progress.limits.items = items.div_ceil(2);
                Next::Halve
            }
            Action::Split | Action::Drop => lose(refusal, store, items),
        }
    }
}

fn lose(refusal: &Refusal, store: &str, items: usize) -> Next {
    tracing::error!(store, items, %refusal, "log service refused data for good");
    Next::GiveUp
}

impl Sink for Sls {
    fn takes(&self, signal: Signal) -> bool {
        self.settings.store(signal).is_some()
    }

    fn send<'a>(&'a mut self, batch: &'a Batch) -> Pin<Box<dyn Future<Output = SendResult> + Send + 'a>> {
        Box::pin(self.deliver(batch))
    }
}

impl Progress {
    fn new(batch: &Batch, pack_id: String) -> Progress {
        Progress {
            signal: batch.signal,
            body: batch.body.clone(),
            done: 0,
            rejected: 0,
            limits: Limits::default(),
            signature_refusals: 0,
            pack_id,
        }
    }

    /// By content: a batch that comes from a disk again is another piece of memory.
    fn is_of(&self, batch: &Batch) -> bool {
        self.signal == batch.signal && self.body == batch.body
    }
}

impl PackIds {
    fn take(&mut self) -> String {
        let id = format!("{:016X}-{:X}", self.prefix, self.next);
        self.next += 1;
        id
    }
}

impl Decoded {
    fn new(batch: &Batch) -> Result<Decoded, prost::DecodeError> {
        let body = &batch.body[..];
        Ok(match batch.signal {
            Signal::Traces => Decoded::Traces(Message::decode(body)?),
            Signal::Metrics => Decoded::Metrics(Message::decode(body)?),
            Signal::Logs => Decoded::Logs(Message::decode(body)?),
        })
    }

    fn pack(&self, done: usize, limits: &Limits, now: Now, unit: TimeUnit) -> Pack {
        match self {
            Decoded::Traces(request) => traces::pack(request, done, limits, now, unit),
            Decoded::Metrics(request) => metrics::pack(request, done, limits, now),
            Decoded::Logs(request) => logs::pack(request, done, limits, now),
        }
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
