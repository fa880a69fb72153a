//! The path of a request through the stages, on the thread that received it: scan, count, copy into
//! the shards, hand over what leaves them. Acknowledging is returning.

mod accounts;
pub mod active_policy;
pub mod service;
pub mod shadow_policy;

pub use accounts::{IntakeCounts, ShardTotals};

use crate::deliver::{self, Delivery};
use crate::measure::{Meter, SeriesLabels};
use crate::policy::Limits;
use crate::processing::Processing;
use crate::receive::{Accepted, HopHeaders, Intake, MalformedRequest};
use crate::ring::wheel::{TICK_MS, Tick};
use crate::scan::repair::{self, Repaired};
use crate::scan::{Keyed, LabelReader, OperationLabels, SPANS_RETAINED, Scan, SpanBounds};
use crate::shard::survey::{Survey, SurveyQuestions};
use crate::shard::{COPY_MAX, DrainPass, Outbox, Progress, RulePart, Shard, Turn};
use crate::trace::label::NumberedNames;
use crate::trace::{Observed, RuleId, Signal, SpanView, TraceId};
use active_policy::{ActivePolicy, PolicyJudge};
use arc_swap::ArcSwap;
use service::Services;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::Instant;

/// A shard is not smaller than this, so that what one trace or span may take does not shrink with cores.
const SHARD_BYTES_MIN: usize = 32 << 20;
const SHARDS_PER_CORE: usize = 4;

/// Everything that a request passes.
pub struct Pipeline {
    shards: Vec<Mutex<Shard>>,
    keyed: Keyed,
    pub active_policy: ArcSwap<ActivePolicy>,
    pub limits: Mutex<Limits>,
    policy_changes: Mutex<()>,
    pub services: Services,
    /// None with `measure: off`.
    pub meter: Option<Meter>,
    /// What is done to all that leaves.
    pub processing: Processing,
    pub delivery: Arc<Delivery>,
    hops: deliver::HopMemory,
    intake: Mutex<IntakeCounts>,
    /// Held for reading while spans move from one account to the next, for writing by whoever reads
    /// the accounts: so they balance at any moment, not only at rest.
    accounts: RwLock<()>,
    started: Instant,
    bounds: SpanBounds,
    /// Bytes of the ring with its index and remembered verdicts, as configured.
    pub ring_size: usize,
}

/// What one thread reuses from request to request of a pipeline.
struct Scratch {
    keyed: Keyed,
    scan: Scan,
    /// Indexes of a request's spans, by shard.
    by_shard: Vec<Vec<u32>>,
    out: Outbox,
}

impl Scratch {
    fn new(keyed: Keyed, shards: usize) -> Scratch {
        Scratch { scan: Scan::new(keyed.clone()), keyed, by_shard: vec![Vec::new(); shards], out: Outbox::default() }
    }

    /// Keeps what the next request will need, as most are: threads that wait must not hold what one giant took.
    fn give_back(&mut self) {
        self.scan.give_back();
        for spans in &mut self.by_shard {
            spans.clear();
            spans.shrink_to(SPANS_RETAINED);
        }
    }
}

thread_local! {
    static SCRATCH: RefCell<Option<Scratch>> = const { RefCell::new(None) };
}

impl Pipeline {
    /// A pipeline with a ring of `ring_size` bytes. `seed` keys the hashes of ids: different in each process.
    pub fn new(
        ring_size: usize,
        seed: u64,
        active_policy: ActivePolicy,
        meter: Option<Meter>,
        processing: Processing,
        delivery: Arc<Delivery>,
        hops: deliver::HopMemory,
    ) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let count = (SHARDS_PER_CORE * cores).min(ring_size / SHARD_BYTES_MIN).max(1);
        let keyed = Keyed::new(seed);
        let mut limits = Limits::default();
        limits.retain(&active_policy.policy.rules);
        let shards: Vec<Shard> = (0..count).map(|_| Shard::new(ring_size / count, keyed.clone())).collect();
        Pipeline {
            bounds: SpanBounds { span_bytes: shards[0].span_bytes_max(), spans: spans_max(ring_size) },
            ring_size,
            shards: shards.into_iter().map(Mutex::new).collect(),
            keyed,
            active_policy: ArcSwap::from_pointee(active_policy),
            limits: Mutex::new(limits),
            policy_changes: Mutex::new(()),
            services: Services::default(),
            meter,
            processing,
            delivery,
            hops,
            intake: Mutex::default(),
            accounts: RwLock::default(),
            started: Instant::now(),
        }
    }

    /// Monotonic milliseconds since the start.
    pub fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    fn now(&self) -> Tick {
        (self.now_ms() / TICK_MS) as Tick
    }

    /// Held from reading the policy in force to [`Pipeline::activate`]: there are several who change it.
    pub fn change_policy(&self) -> MutexGuard<'_, ()> {
        self.policy_changes.lock().expect("no code panics under this lock")
    }

    /// Swaps the policy; limits that stay go on.
    pub fn activate(&self, mut fresh: ActivePolicy) {
        fresh.counts_errors_after(&self.active_policy.load());
        self.limits.lock().expect("no code panics under this lock").retain(&fresh.policy.rules);
        self.active_policy.store(Arc::new(fresh));
    }

    fn lock(&self, shard: usize) -> MutexGuard<'_, Shard> {
        self.shards[shard].lock().expect("no code panics under this lock")
    }

    fn shard_of(&self, id: TraceId) -> usize {
        // The index uses the upper half of the same hash.
        let low = self.keyed.hash(&id.0) & 0xffff_ffff;
        ((low * self.shards.len() as u64) >> 32) as usize
    }

    fn accept_traces(&self, body: &[u8]) -> Result<Accepted, MalformedRequest> {
        SCRATCH.with_borrow_mut(|scratch| {
            // A thread may have worked for another pipeline, with a key and shards of its own.
            if scratch.as_ref().is_none_or(|scratch| scratch.keyed != self.keyed) {
                *scratch = Some(Scratch::new(self.keyed.clone(), self.shards.len()));
            }
            let scratch = scratch.as_mut().expect("it was just put there");
            let accepted = self.take_in(scratch, body);
            scratch.give_back();
            accepted
        })
    }

    fn take_in(&self, scratch: &mut Scratch, body: &[u8]) -> Result<Accepted, MalformedRequest> {
        let active_policy = self.active_policy.load();
        let read = scratch.scan.read(body, &active_policy.questions, self.bounds);
        read.map_err(|_| MalformedRequest("the body is not a valid ExportTraceServiceRequest".to_owned()))?;
        self.name_services(&mut scratch.scan, body);
        self.measure(&scratch.scan, body, &active_policy);
        let _accounts = self.hold_accounts();
        self.distribute(scratch, body, &active_policy);
        Ok(self.count_spans(&scratch.scan))
    }

    fn name_services(&self, scan: &mut Scan, body: &[u8]) {
        for resource in &mut scan.resources {
            resource.service_id = self.services.id(resource.service.of(body));
        }
    }

    fn measure(&self, scan: &Scan, body: &[u8], active_policy: &ActivePolicy) {
        let Some(meter) = &self.meter else { return };
        let mut labels = LabelReader::new(scan, body, &active_policy.questions);
        meter.record(&scan.spans, self.now_ms(), |span: &SpanView| {
            let OperationLabels { service, name, dimensions } = labels.read(span);
            SeriesLabels { service, name, kind: span.kind, extras: dimensions }
        });
    }

    fn distribute(&self, scratch: &mut Scratch, body: &[u8], active_policy: &ActivePolicy) {
        let Scratch { scan, by_shard, out, .. } = scratch;
        by_shard.iter_mut().for_each(Vec::clear);
        for (index, span) in scan.spans.iter().enumerate() {
            by_shard[self.shard_of(span.trace_id)].push(index as u32);
        }
        let judge = PolicyJudge { active_policy, limits: &self.limits };
        let turn = judge.turn(self.now());
        for (shard, spans) in by_shard.iter().enumerate() {
            let mut rest = spans.as_slice();
            while !rest.is_empty() {
                let taken = self.lock(shard).append(&turn, scan, body, rest, out);
                rest = &rest[taken..];
                self.deliver(out);
            }
        }
    }

    fn deliver(&self, out: &mut Outbox) {
        if out.spans > 0 {
            let Outbox { body, spans, parts } = std::mem::take(out);
            if self.delivery.routes_by_rule() {
                return self.deliver_by_rule(&body, &parts);
            }
            let body = self.processing.apply(Signal::Traces, body.into());
            self.delivery.push(Signal::Traces, body.into_owned(), spans);
        }
    }

    fn deliver_by_rule(&self, mut rest: &[u8], parts: &[RulePart]) {
        let rules = &self.active_policy.load().rules;
        for part in parts.iter().filter(|part| part.spans > 0) {
            let (body, behind) = rest.split_at(part.bytes);
            let body = self.processing.apply(Signal::Traces, body.into());
            match part.rule {
                // Whoever asks for a trace wants it wherever traces go.
                RuleId::API => self.delivery.push(Signal::Traces, body.into_owned(), part.spans),
                rule => self.delivery.push_of_rule(rules.name(rule), body.into_owned(), part.spans),
            }
            rest = behind;
        }
    }

    fn count_spans(&self, scan: &Scan) -> Accepted {
        self.count(Signal::Traces, scan.spans.len() as u64, &scan.rejected)
    }

    /// Metrics and logs pass as they came, but for what no receiver would take: they share batches with what
    /// others sent.
    fn pass_on(&self, signal: Signal, body: &[u8]) -> Result<Accepted, MalformedRequest> {
        let name = if signal == Signal::Metrics { "Metrics" } else { "Logs" };
        let not_valid = |_| MalformedRequest(format!("the body is not a valid Export{name}ServiceRequest"));
        let most = self.delivery.piece_max(signal);
        let Repaired { body, items, mut rejected } = repair::request(signal, body, most).map_err(not_valid)?;
        let processed = match self.delivery.takes(signal) {
            // What grows beyond that is refused, for it would not fit.
            true => {
                let bound = most.max(2 * body.len());
                self.processing.apply_within(signal, body, bound)
            }
            false => Some(body),
        };
        let _accounts = self.hold_accounts();
        let taken = match processed {
            Some(body) if items > 0 => self.delivery.push_what_fits(signal, body.into_owned(), items),
            _ => 0,
        };
        rejected.too_many += items - taken;
        Ok(self.count(signal, taken, &rejected))
    }

    /// Judges what is due in all shards, and delivers what is kept while the queue has room: until then it stays in
    /// the ring, which is larger, and leaves by force only where the ring itself needs the memory.
    pub async fn tick(&self) {
        let mut out = Outbox::default();
        let count = self.shards.len();
        // Each is the first in turn, for the first ones may take all the room.
        let first = self.now() as usize % count;
        for shard in (first..count).chain(0..first) {
            loop {
                let room = self.delivery.is_ready_for(Signal::Traces, self.copied_max());
                if self.work_on(shard, &mut out, |shard, turn, out| shard.tick(turn, room, out)) == Progress::Done {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
    }

    /// Bytes that one call on a shard copies out, at most: it stops after the span that goes beyond its budget,
    /// which may bring a scope and a resource. What is done to attributes may make them more: hashes are longer than
    /// short texts, and few values are hashed.
    fn copied_max(&self) -> usize {
        let copied = COPY_MAX + 2 * self.bounds.span_bytes as usize;
        if self.processing.changes() { 2 * copied } else { copied }
    }

    /// Judges what waits, delivers what is kept and counts what is dropped, in all shards: failed and slow
    /// traces first, and until `deadline` no faster than the sinks take them.
    pub async fn drain(&self, deadline: tokio::time::Instant) {
        self.delivery.start_ending(deadline);
        let mut broken = vec![false; self.shards.len()];
        for pass in [DrainPass::Kept, DrainPass::Rest] {
            for (shard, broken) in broken.iter_mut().enumerate().filter(|(_, broken)| !**broken) {
                *broken = !self.drain_shard(shard, pass, deadline).await;
            }
        }
    }

    /// False if the code failed at this shard: what is in it is lost, and nothing else.
    async fn drain_shard(&self, shard: usize, pass: DrainPass, deadline: tokio::time::Instant) -> bool {
        let mut out = Outbox::default();
        loop {
            self.delivery.ready_for(Signal::Traces, self.copied_max(), deadline).await;
            let step = || self.work_on(shard, &mut out, |shard, turn, out| shard.drain(turn, pass, out));
            match catch_unwind(AssertUnwindSafe(step)) {
                Ok(Progress::More) => tokio::task::yield_now().await,
                Ok(Progress::Done) => return true,
                Err(_) => {
                    tracing::error!(shard, "the code failed at this part of the ring: what is in it is lost");
                    return false;
                }
            }
        }
    }

    /// A short piece of work under one shard's lock.
    fn work_on(
        &self,
        shard: usize,
        out: &mut Outbox,
        work: impl Fn(&mut Shard, &Turn<'_, PolicyJudge<'_>>, &mut Outbox) -> Progress,
    ) -> Progress {
        let active_policy = self.active_policy.load();
        let judge = PolicyJudge { active_policy: &active_policy, limits: &self.limits };
        let turn = judge.turn(self.now());
        let _accounts = self.hold_accounts();
        let progress = work(&mut self.lock(shard), &turn, out);
        self.deliver(out);
        progress
    }

    /// Keeps a trace by its id; false if it is not in the ring.
    pub fn keep(&self, id: TraceId) -> bool {
        let active_policy = self.active_policy.load();
        let judge = PolicyJudge { active_policy: &active_policy, limits: &self.limits };
        let turn = judge.turn(self.now());
        self.lock(self.shard_of(id)).keep_by_id(&turn, id)
    }

    /// Shows every trace of the ring that has been judged; how many are waiting, and how many are late parts of others.
    /// No lock is held for longer than any other work takes. `names` are numbered, if they are wanted.
    pub fn survey(
        &self,
        asked: &SurveyQuestions<'_>,
        names: &mut Option<NumberedNames>,
        mut show: impl FnMut(Observed),
    ) -> (u64, u64) {
        let (mut waiting, mut parts, mut found) = (0, 0, Vec::new());
        for shard in 0..self.shards.len() {
            let mut survey = Survey::default();
            survey.names = names.take();
            loop {
                let progress = self.lock(shard).survey(asked, &mut survey, &mut found);
                found.drain(..).for_each(&mut show);
                if progress == Progress::Done {
                    break;
                }
                // Whoever waits for the lock has it next.
                std::thread::yield_now();
            }
            *names = survey.names;
            waiting += survey.waiting;
            parts += survey.parts;
        }
        (waiting, parts)
    }

    /// Looks at the shard of a trace under its lock.
    pub fn look<R>(&self, id: TraceId, look: impl FnOnce(&Shard) -> R) -> R {
        look(&self.lock(self.shard_of(id)))
    }
}

/// While a request is read its spans may take a quarter of the ring's memory: those of a largest request
/// would have to be shorter than 75 bytes to be more.
fn spans_max(ring_size: usize) -> usize {
    ring_size / 4 / size_of::<SpanView>()
}

impl Intake for Pipeline {
    fn accept(&self, signal: Signal, body: &[u8], hops: HopHeaders<'_>) -> Result<Accepted, MalformedRequest> {
        self.hops.saw(signal, hops.ids(), Instant::now());
        match signal {
            Signal::Traces => self.accept_traces(body),
            Signal::Metrics | Signal::Logs => self.pass_on(signal, body),
        }
    }
}

#[cfg(test)]
mod tests;
