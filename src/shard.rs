//! One shard: a ring, its index, and the judge's clockwork. A plain struct that one mutex owns.
//!
//! A trace is in one of four states:
//!
//! - waiting → judged when it is due, or when its oldest segment is needed;
//! - kept → its spans are copied out at once, later ones follow;
//! - settling → kept by a share: delivered `settle` after its first verdict, judged again until then;
//! - dropped → judged again when a late span changes something that a rule reads.
//!
//! With its oldest segment a trace leaves: delivered or counted, then remembered by [`verdict_cache`].
//!
//! It is pure: `now` is an argument, nothing here waits, and no call works on more than
//! [`WORK_MAX`] records, so that the lock around it is always short.

mod clock;
pub mod count;
mod layout;
pub mod survey;
pub mod verdict_cache;
pub mod walk;

pub use clock::Due;
pub use layout::Layout;

use crate::ring::index::{Index, TraceEntry, TraceStatus};
use crate::ring::wheel::{Tick, Wheel};
use crate::ring::{Loc, Ring, Swept};
use crate::scan::{Keyed, Questions, Rereading, Scan};
use crate::trace::{Case, Decision, Reason, RuleId, RuleNames, SpanView, Standing, Summary, TraceId, Trigger, Verdict};
use count::Counts;
use std::collections::VecDeque;
use verdict_cache::{Remembered, VerdictCache};
use walk::{Purpose, TraceWalk};

/// Records that one call looks at, at most.
pub const WORK_MAX: usize = 256;
/// Bytes that one call copies out, or reads again, about.
pub const COPY_MAX: usize = 1 << 20;
/// Late spans of one trace are collected for this long.
pub const LATE_TICKS: Tick = 10;
/// A trace may hold this part of its shard's ring.
const TRACE_PART: usize = 16;

/// How long a trace waits, in ticks. See the policy's `wait`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WaitTicks {
    pub after_root: Tick,
    pub idle: Tick,
    pub longest: Tick,
    pub settle: Tick,
}

/// Whoever decides, at once: the policy in force, or a test.
pub trait Judge {
    fn judge(&self, case: &Case<'_>, trigger: Trigger, now: Tick) -> Verdict;
    /// Hears of the first verdict on each trace that is known from its beginning.
    fn judged_first(&self, _: &Case<'_>, _: Trigger, _: &Verdict, _: Tick) {}
    /// Whether a trace that was like `before` and is like `after` now may get another verdict.
    fn may_change(&self, before: &Summary, after: &Summary) -> bool;
    /// Why traces of this rule are kept, as a class.
    fn reason(&self, rule: RuleId) -> Reason;
    fn wait(&self) -> WaitTicks;
}

/// What a call on a shard may use: the time, the policy in force and its questions.
pub struct Turn<'a, J> {
    pub now: Tick,
    pub judge: &'a J,
    pub questions: &'a Questions,
    pub rules: &'a RuleNames,
}

/// Kept spans that left a shard: fields of an `ExportTraceServiceRequest`, whole traces or parts of one.
#[derive(Debug, Default)]
pub struct Outbox {
    pub body: Vec<u8>,
    pub spans: u64,
    /// What of it each rule kept, in the order of the body.
    pub parts: Vec<RulePart>,
}

/// So many bytes and spans of an [`Outbox`] were kept by one rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RulePart {
    pub rule: RuleId,
    pub bytes: usize,
    pub spans: u64,
}

impl Outbox {
    /// Says which rule kept what the body has grown by.
    fn add_part(&mut self, rule: RuleId, bytes: usize, spans: u64) {
        match self.parts.last_mut().filter(|part| part.rule == rule) {
            Some(part) => (part.bytes, part.spans) = (part.bytes + bytes, part.spans + spans),
            None => self.parts.push(RulePart { rule, bytes, spans }),
        }
    }
}

/// How much one call may still do.
struct Budget {
    records: usize,
    bytes: usize,
}

impl Budget {
    fn new() -> Budget {
        Budget { records: WORK_MAX, bytes: COPY_MAX }
    }

    /// What was read or copied, beside the record itself.
    fn spend(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Pays for one record; false when nothing is left.
    fn pay(&mut self) -> bool {
        let left = !self.is_spent();
        self.records = self.records.saturating_sub(1);
        left
    }

    fn is_spent(&self) -> bool {
        self.records == 0 || self.bytes == 0
    }
}

/// Whether there is more to do now, in a further call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    Done,
    More,
}

/// A drain goes over all traces twice, so that what sinks do not take in time is not the failed and the slow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DrainPass {
    /// What waits is judged, and what is kept by `all` or has failed leaves.
    Kept,
    /// What is kept by a share leaves, and what is dropped is counted.
    Rest,
}

/// One shard's memory and state.
pub struct Shard {
    ring: Ring,
    index: Index,
    wheel: Wheel,
    /// Work on one trace that did not fit into a call.
    walk: Option<TraceWalk>,
    /// Kept traces whose spans are to be copied out when there is room behind, in order.
    outgoing: VecDeque<(u32, TraceId)>,
    verdicts: VerdictCache,
    rereading: Rereading,
    pub counts: Counts,
    keyed: Keyed,
    trace_bytes_max: usize,
    /// Next slot of the shutdown's walk over all traces.
    drained: u32,
}

impl Shard {
    /// A shard in `bytes` of memory. `keyed` must be the one that scanned its requests.
    pub fn new(bytes: usize, keyed: Keyed) -> Shard {
        let layout = Layout::of(bytes);
        let ring = Ring::new(layout.ring_bytes);
        Shard {
            trace_bytes_max: ring.capacity() / TRACE_PART,
            index: Index::new(layout.traces),
            wheel: Wheel::new(),
            walk: None,
            outgoing: VecDeque::new(),
            verdicts: VerdictCache::new(layout.kept_remembered, layout.dropped_remembered),
            rereading: Rereading::default(),
            counts: Counts::default(),
            drained: 0,
            keyed,
            ring,
        }
    }

    /// The largest span that a shard of these bytes stores.
    pub fn span_bytes_max(&self) -> u32 {
        (self.ring.segment_bytes() / 8).min(1 << 20) as u32
    }

    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Takes spans of one walked request, all of this shard, in order; returns how many it took.
    /// If not all, the caller lets others have the lock and calls again with the rest.
    pub fn append<J: Judge>(
        &mut self,
        turn: &Turn<'_, J>,
        scan: &Scan,
        body: &[u8],
        spans: &[u32],
        out: &mut Outbox,
    ) -> usize {
        let mut budget = Budget::new();
        self.warm(scan, spans);
        let mut neighbour: Option<(TraceId, u32)> = None;
        for (taken, &index) in spans.iter().enumerate() {
            let span = &scan.spans[index as usize];
            let swept = self.counts.swept;
            if !self.make_room(turn, scan, span, &mut budget, out) || !budget.pay() {
                return taken;
            }
            // A sweep may have taken the neighbour's entry.
            let known = neighbour.filter(|(id, _)| *id == span.trace_id && swept == self.counts.swept);
            let slot = known.map_or_else(|| self.find_or_insert(turn, scan, span), |(_, slot)| slot);
            neighbour = Some((span.trace_id, slot));
            self.store(turn, scan, body, span, slot);
        }
        spans.len()
    }

    /// Fetches what is known of the traces that this call works on, all at once.
    fn warm(&self, scan: &Scan, spans: &[u32]) {
        let ids = spans.iter().take(WORK_MAX).map(|&index| scan.spans[index as usize].trace_id);
        let warm = |hash| self.index.warm(hash).unwrap_or_else(|| self.verdicts.warm(hash));
        std::hint::black_box(ids.fold(0, |sum, id| sum ^ warm(self.hash(id))));
    }

    /// Sweeps what is due and what is needed; false when the budget is spent before there is room.
    fn make_room<J: Judge>(
        &mut self,
        turn: &Turn<'_, J>,
        scan: &Scan,
        span: &SpanView,
        budget: &mut Budget,
        out: &mut Outbox,
    ) -> bool {
        let scope = &scan.scopes[span.scope as usize];
        let (scope, resource) = (scope.header.len, scan.resources[scope.resource as usize].header.len);
        loop {
            let fits = self.ring.fits(span.raw.len as usize, scope as usize, resource as usize);
            if !fits && self.ring.rotate(turn.now) {
                continue;
            }
            if fits && !self.index.is_full() && !self.ring.sweep_due() {
                return true;
            }
            if budget.is_spent() {
                return false;
            }
            if self.sweep(turn, budget, out) == Swept::Nothing {
                self.ring.rotate(turn.now);
            }
        }
    }

    /// One step of the sweep: works off a trace that dies, or steps over a record.
    fn sweep<J: Judge>(&mut self, turn: &Turn<'_, J>, budget: &mut Budget, out: &mut Outbox) -> Swept {
        if self.walk.is_some() {
            self.continue_walk(turn, budget, out);
            return Swept::Freed;
        }
        let swept = self.ring.sweep();
        if let Swept::Record(loc) = swept {
            let slot = self.ring.read(loc).slot;
            let dies = self.ring.sweeping() == self.index.oldest_segment(slot);
            budget.pay();
            if dies {
                self.retire(turn, slot, Trigger::Memory);
            } else {
                self.counts.swept += 1;
                self.ring.sweep_past();
            }
        }
        swept
    }

    /// Works a trace out of the ring: judged if that is due, then delivered or counted, then evicted.
    fn retire<J: Judge>(&mut self, turn: &Turn<'_, J>, slot: u32, trigger: Trigger) {
        let entry = self.index.entry(slot);
        if entry.awaits_judgement(turn.now) {
            if self.is_stale(turn, slot) {
                self.walk = Some(TraceWalk::new(slot, Purpose::Refresh));
            } else {
                self.judge(turn, slot, trigger);
            }
            return;
        }
        if entry.undelivered == 0 {
            self.evict(turn, slot);
            return;
        }
        // What comes while the walk lasts must not change what is half gone: it follows, or is a part.
        let entry = self.index.entry_mut(slot);
        let purpose = if entry.state == TraceStatus::Dropped {
            entry.summary.forgotten = true;
            Purpose::Count
        } else {
            entry.state = TraceStatus::Kept;
            Purpose::Deliver
        };
        self.walk = Some(TraceWalk::last(slot, purpose));
    }

    fn is_stale<J: Judge>(&self, turn: &Turn<'_, J>, slot: u32) -> bool {
        self.index.entry(slot).questions != turn.questions.number
    }

    /// The trace leaves the index; its verdict stays.
    fn evict<J: Judge>(&mut self, turn: &Turn<'_, J>, slot: u32) {
        self.wheel.clear(self.index.timers(), slot);
        self.counts.swept += 1;
        let entry = self.index.entry(slot);
        let hash = self.hash(entry.id);
        if let Some(verdict) = entry.verdict {
            // What began as a late part is of a trace that has been counted.
            if !entry.recalled {
                self.counts.traces_left(&verdict);
            }
            self.verdicts.remember(entry.id, hash, &verdict, turn.now);
        }
        self.index.remove(hash, slot);
    }

    fn hash(&self, id: TraceId) -> u64 {
        self.keyed.hash(&id.0)
    }

    fn find_or_insert<J: Judge>(&mut self, turn: &Turn<'_, J>, scan: &Scan, span: &SpanView) -> u32 {
        let hash = self.hash(span.trace_id);
        if let Some(slot) = self.index.find(hash, span.trace_id) {
            return slot;
        }
        let slot = self.index.insert(hash, span.trace_id, turn.now);
        let entry = self.index.entry_mut(slot);
        entry.questions = scan.questions;
        match self.verdicts.recall(span.trace_id, hash) {
            Some(Remembered::Kept(verdict)) => {
                entry.state = TraceStatus::Kept;
                entry.verdict = Some(Verdict { trigger: Trigger::Late, ..verdict });
                entry.delivered = true;
                entry.recalled = true;
            }
            Some(Remembered::Dropped { .. }) => entry.summary.forgotten = true,
            None => {}
        }
        slot
    }

    /// Copies the span into the ring and takes it into its trace's summary.
    fn store<J: Judge>(&mut self, turn: &Turn<'_, J>, scan: &Scan, body: &[u8], span: &SpanView, slot: u32) {
        let scope = &scan.scopes[span.scope as usize];
        let resource = &scan.resources[scope.resource as usize];
        let bytes = Ring::record_bytes(span.raw.len as usize);
        let entry = self.index.entry_mut(slot);
        let is_first = entry.newest == Loc::NONE;
        let over_limit = !is_first && entry.stored_bytes as usize + bytes > self.trace_bytes_max;
        let before = entry.summary;
        if entry.summary.is_better_entry(span) {
            entry.entered = turn.now;
        }
        entry.summary.observe(span, resource.service_hash, &turn.questions.masks);
        entry.last = turn.now;
        if entry.questions != scan.questions {
            entry.questions = 0;
        }
        if over_limit {
            entry.summary.limited = true;
        } else {
            let (at, context_bytes) = self.ring.scope(scan, span.scope);
            let loc = self.ring.record(slot, at, entry.newest, span.standing == Standing::Entry, span.raw.of(body));
            if is_first {
                self.index.set_oldest_segment(slot, self.ring.segment_of(loc));
            }
            let entry = self.index.entry_mut(slot);
            entry.newest = loc;
            entry.undelivered += 1;
            // Whoever comes first pays for a resource: else a trace whose spans each have one of their own
            // would fill the ring.
            entry.stored_bytes += (bytes + context_bytes) as u32;
        }
        self.counts.accept(resource.service_id, over_limit);
        self.mark_late(turn, slot, &before);
        self.schedule(turn, slot);
    }

    /// A span that came after the verdict: it follows, or may change it.
    fn mark_late<J: Judge>(&mut self, turn: &Turn<'_, J>, slot: u32, before: &Summary) {
        let entry = self.index.entry_mut(slot);
        let matters = match entry.state {
            TraceStatus::Waiting => false,
            TraceStatus::Kept => true,
            // Facts that do not answer the questions in force say nothing: judged again, after a refresh.
            TraceStatus::Settling | TraceStatus::Dropped => {
                entry.questions != turn.questions.number || turn.judge.may_change(before, &entry.summary)
            }
        };
        if matters && entry.again == 0 {
            entry.again = turn.now + LATE_TICKS;
        }
    }

    fn judge<J: Judge>(&mut self, turn: &Turn<'_, J>, slot: u32, trigger: Trigger) {
        let entry = self.index.entry(slot);
        let charged = entry.verdict.and_then(|verdict| verdict.charged);
        let case = Case { id: entry.id, summary: &entry.summary, charged, stored_bytes: u64::from(entry.stored_bytes) };
        let verdict = turn.judge.judge(&case, trigger, turn.now);
        if entry.verdict.is_none() && !entry.summary.forgotten {
            turn.judge.judged_first(&case, trigger, &verdict, turn.now);
        }
        self.apply(turn, slot, Verdict { charged: verdict.charged.or(charged), ..verdict });
    }

    fn apply<J: Judge>(&mut self, turn: &Turn<'_, J>, slot: u32, verdict: Verdict) {
        let entry = self.index.entry_mut(slot);
        let earlier = entry.verdict;
        if earlier.is_none() {
            entry.settles = turn.now + turn.judge.wait().settle;
        }
        let settled = turn.now >= entry.settles;
        let verdict = verdict.after(earlier.as_ref(), settled, entry.summary.forgotten);
        entry.verdict = Some(verdict);
        entry.again = 0;
        self.counts.judged(earlier.as_ref(), &verdict);
        match verdict.decision {
            Decision::KeepShare if !settled => entry.state = TraceStatus::Settling,
            Decision::KeepAll | Decision::KeepShare => self.keep(slot),
            Decision::DropShare | Decision::DropNone => entry.state = TraceStatus::Dropped,
        }
        self.schedule(turn, slot);
    }

    /// From now on the trace's spans leave.
    fn keep(&mut self, slot: u32) {
        let entry = self.index.entry_mut(slot);
        entry.state = TraceStatus::Kept;
        entry.again = 0;
        if entry.undelivered > 0 && !std::mem::replace(&mut entry.is_outgoing, true) {
            self.outgoing.push_back((slot, entry.id));
        }
    }

    /// Keeps a trace by its id, with no known probability; false if it is not in the ring.
    pub fn keep_by_id<J: Judge>(&mut self, turn: &Turn<'_, J>, id: TraceId) -> bool {
        let Some(slot) = self.index.find(self.hash(id), id) else { return false };
        if self.walk.as_ref().is_some_and(|walk| walk.gives_up(slot)) {
            return false;
        }
        if self.index.entry(slot).state != TraceStatus::Kept {
            let earlier = self.index.entry(slot).verdict;
            let verdict = Verdict {
                decision: Decision::KeepAll,
                rule: RuleId::API,
                policy: earlier.map_or(0, |verdict| verdict.policy),
                threshold: None,
                trigger: Trigger::Api,
                charged: earlier.and_then(|verdict| verdict.charged),
            };
            self.apply(turn, slot, verdict);
        }
        true
    }

    /// Judges and delivers for the end of the process. Call again while there is more.
    pub fn drain<J: Judge>(&mut self, turn: &Turn<'_, J>, pass: DrainPass, out: &mut Outbox) -> Progress {
        self.work(turn, out, |shard, budget| {
            if shard.drained == shard.index.slots() {
                shard.drained = 0;
                return Progress::Done;
            }
            let slot = shard.drained;
            budget.pay();
            if shard.index.is_live(slot) && (pass == DrainPass::Rest || shard.goes_first(turn, slot)) {
                shard.retire(turn, slot, Trigger::Drain);
            } else {
                shard.drained += 1;
            }
            Progress::More
        })
    }

    /// Whether the first pass of a drain has something to do with a trace.
    fn goes_first<J: Judge>(&self, turn: &Turn<'_, J>, slot: u32) -> bool {
        let entry = self.index.entry(slot);
        let kept_by_all = entry.verdict.is_some_and(|verdict| verdict.decision == Decision::KeepAll);
        // One that a share had kept before it failed is not judged again.
        let is_urgent = kept_by_all || entry.state == TraceStatus::Kept && entry.summary.error();
        entry.awaits_judgement(turn.now) || is_urgent && entry.undelivered > 0
    }

    /// Takes steps, and goes on with the walk that one of them began, until there is no more or the budget of
    /// a call is spent.
    fn work<J: Judge>(
        &mut self,
        turn: &Turn<'_, J>,
        out: &mut Outbox,
        mut step: impl FnMut(&mut Shard, &mut Budget) -> Progress,
    ) -> Progress {
        let mut budget = Budget::new();
        while !budget.is_spent() {
            if self.walk.is_some() {
                self.continue_walk(turn, &mut budget, out);
            } else if step(self, &mut budget) == Progress::Done {
                return Progress::Done;
            }
        }
        Progress::More
    }

    /// What is known of a trace, in the ring or remembered.
    pub fn why(&self, id: TraceId) -> Why<'_> {
        let hash = self.hash(id);
        match self.index.find(hash, id) {
            Some(slot) => Why::InRing(self.index.entry(slot)),
            None => self.verdicts.recall(id, hash).map_or(Why::Unknown, Why::Remembered),
        }
    }

    /// Age of the oldest record, in ticks: what the memory buys.
    pub fn age(&self, now: Tick) -> Tick {
        now.saturating_sub(self.ring.oldest_opened())
    }
}

/// What a shard knows of a trace.
#[derive(Debug)]
pub enum Why<'a> {
    InRing(&'a TraceEntry),
    Remembered(Remembered),
    Unknown,
}

#[cfg(test)]
mod tests;
