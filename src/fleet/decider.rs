//! Judges traces by what nodes tell of them: a shard without spans, with the same judge at the same moments.
//!
//! A trace is judged when it would be in one process that got all of its spans: after its root, or when nothing comes
//! any more. Arrivals are on this clock, by the ages that parts give. What a verdict says holds until one with a
//! greater revision comes; a trace without a verdict is dropped.

use super::NodeId;
use super::part::{Part, PartBatch};
use crate::ring::wheel::{TICK_MS, Tick};
use crate::shard::{Due, Judge, LATE_TICKS, Turn};
use crate::trace::{Case, Decision, FactMasks, Facts, Summary, TraceId, Trigger, Verdict};
use std::collections::{BTreeSet, HashMap};

/// A trace is not judged before its other parts have had time to be told.
const GATHER_TICKS: Tick = 10;

/// What is decided about a trace, for the nodes that have parts of it.
#[derive(Clone, PartialEq, Debug)]
pub struct FleetVerdict {
    pub id: TraceId,
    /// Of several the greatest holds.
    pub revision: u32,
    pub verdict: Verdict,
    /// Those that have told of it.
    pub nodes: Vec<NodeId>,
}

/// Traces that nodes have told of.
#[derive(Debug)]
pub struct Decider {
    traces: HashMap<TraceId, RemoteTrace>,
    /// When something is due, with the traces for which it is.
    due: BTreeSet<(Tick, TraceId)>,
    traces_max: usize,
    /// Parts of traces for which there was no room.
    pub overflowed: u64,
    /// Parts that answered other questions: what they say of conditions is not known.
    pub foreign: u64,
}

#[derive(Debug)]
struct RemoteTrace {
    parts: Vec<RemotePart>,
    whole: Whole,
    /// When the first part came.
    told: Tick,
    verdict: Option<Verdict>,
    /// Of the last verdict; 0 without one.
    revision: u32,
    ruled: Option<Decision>,
    settles: Tick,
    /// It is judged again then; 0 is never.
    again: Tick,
    due: Option<Tick>,
}

#[derive(Debug)]
struct RemotePart {
    node: NodeId,
    revision: u32,
    summary: Summary,
    stored_bytes: u64,
    first: Tick,
    last: Tick,
    entered: Tick,
}

/// What all parts say together.
#[derive(Clone, Copy, Debug, Default)]
struct Whole {
    summary: Summary,
    stored_bytes: u64,
    first: Tick,
    last: Tick,
    entered: Tick,
}

impl Decider {
    /// It knows so many traces at most.
    pub fn new(traces_max: usize) -> Decider {
        Decider { traces: HashMap::new(), due: BTreeSet::new(), traces_max, overflowed: 0, foreign: 0 }
    }

    pub fn len(&self) -> usize {
        self.traces.len()
    }

    pub fn is_empty(&self) -> bool {
        self.traces.is_empty()
    }

    /// Takes in what a node tells; `questions` is the fingerprint of the question set in force here. Parcels may come
    /// twice and in any order.
    pub fn take<J: Judge>(&mut self, turn: &Turn<'_, J>, questions: u64, batch: &PartBatch) {
        for part in &batch.parts {
            if !self.traces.contains_key(&part.id) && self.traces.len() >= self.traces_max {
                self.overflowed += 1;
                continue;
            }
            let mut told = RemotePart::new(batch.node, part, turn.now);
            if batch.questions != questions {
                self.foreign += 1;
                told.summary.facts = Facts::EMPTY;
            }
            let trace = self.traces.entry(part.id).or_insert_with(|| RemoteTrace::new(turn.now));
            let before = trace.whole.summary;
            if trace.take(told, &turn.questions.masks) && turn.judge.may_change(&before, &trace.whole.summary) {
                trace.mark_late(turn.now);
            }
            self.schedule(turn, part.id);
        }
    }

    /// Judges what is due.
    pub fn tick<J: Judge>(&mut self, turn: &Turn<'_, J>, verdicts: &mut Vec<FleetVerdict>) {
        while let Some(&(at, id)) = self.due.first().filter(|(at, _)| *at <= turn.now) {
            self.due.remove(&(at, id));
            let Some(trace) = self.traces.get_mut(&id) else { continue };
            trace.due = None;
            if trace.forgets(turn) <= turn.now {
                self.traces.remove(&id);
                continue;
            }
            if let Some(trigger) = trace.asks_for(turn) {
                verdicts.extend(trace.judge(turn, id, trigger));
            }
            self.schedule(turn, id);
        }
    }

    fn schedule<J: Judge>(&mut self, turn: &Turn<'_, J>, id: TraceId) {
        let Some(trace) = self.traces.get_mut(&id) else { return };
        let due = trace.next(turn).max(turn.now + 1);
        if let Some(earlier) = trace.due.replace(due) {
            self.due.remove(&(earlier, id));
        }
        self.due.insert((due, id));
    }
}

impl RemotePart {
    fn new(node: NodeId, part: &Part, now: Tick) -> RemotePart {
        let ago = |age_ms: u64| now.saturating_sub((age_ms / TICK_MS).try_into().unwrap_or(Tick::MAX));
        RemotePart {
            node,
            revision: part.revision,
            summary: part.summary,
            stored_bytes: part.stored_bytes,
            first: ago(part.first_age_ms),
            last: ago(part.last_age_ms),
            entered: ago(part.entered_age_ms),
        }
    }
}

impl RemoteTrace {
    fn new(now: Tick) -> RemoteTrace {
        RemoteTrace {
            parts: Vec::new(),
            whole: Whole::default(),
            told: now,
            verdict: None,
            revision: 0,
            ruled: None,
            settles: 0,
            again: 0,
            due: None,
        }
    }

    /// False if it knew that, or better, already.
    fn take(&mut self, part: RemotePart, masks: &FactMasks) -> bool {
        match self.parts.iter_mut().find(|known| known.node == part.node) {
            Some(known) if known.revision >= part.revision => return false,
            Some(known) => *known = part,
            None => self.parts.push(part),
        }
        self.whole = self.merged(masks);
        true
    }

    /// Anew from all parts: counts of an earlier revision must not count beside those of a later one.
    fn merged(&self, masks: &FactMasks) -> Whole {
        let mut whole = Whole { first: Tick::MAX, ..Whole::default() };
        for part in &self.parts {
            let (before, of_part) = (whole.summary.entry, part.summary.entry);
            whole.summary.merge(&part.summary, masks);
            whole.stored_bytes += part.stored_bytes;
            whole.first = whole.first.min(part.first);
            whole.last = whole.last.max(part.last);
            // The same span may have come to several nodes.
            if of_part.is_same_span(&before) {
                whole.entered = whole.entered.min(part.entered);
            } else if of_part.is_same_span(&whole.summary.entry) {
                whole.entered = part.entered;
            }
        }
        whole
    }

    /// What came after the verdict may change it.
    fn mark_late(&mut self, now: Tick) {
        if self.verdict.is_some() && !self.is_final(now) && self.again == 0 {
            self.again = now + LATE_TICKS;
        }
    }

    /// What is kept stays kept, but that a share may be judged again until it has settled.
    fn is_final(&self, now: Tick) -> bool {
        match self.verdict.map(|verdict| verdict.decision) {
            Some(Decision::KeepAll) => true,
            Some(Decision::KeepShare) => now >= self.settles,
            _ => false,
        }
    }

    /// When a first verdict is due, and what makes it so.
    fn first_due<J: Judge>(&self, turn: &Turn<'_, J>) -> (Tick, Trigger) {
        let Whole { summary, first, last, entered, .. } = self.whole;
        let entered = summary.has_entry().then_some(entered);
        let (due, trigger) = Due { first, last, entered }.soonest(&turn.judge.wait());
        (due.max(self.told + GATHER_TICKS), trigger)
    }

    /// No node has spans of it by then that would wait for a verdict.
    fn forgets<J: Judge>(&self, turn: &Turn<'_, J>) -> Tick {
        let wait = turn.judge.wait();
        self.whole.last.max(self.told) + wait.longest + wait.settle
    }

    fn next<J: Judge>(&self, turn: &Turn<'_, J>) -> Tick {
        let next = match self.verdict {
            None => self.first_due(turn).0,
            Some(_) if self.again != 0 => self.again,
            Some(_) => self.forgets(turn),
        };
        next.min(self.forgets(turn))
    }

    fn asks_for<J: Judge>(&self, turn: &Turn<'_, J>) -> Option<Trigger> {
        match self.verdict {
            None => Some(self.first_due(turn)).filter(|(due, _)| *due <= turn.now).map(|(_, trigger)| trigger),
            Some(_) if self.again != 0 && self.again <= turn.now => {
                Some(Trigger::Late).filter(|_| !self.is_final(turn.now))
            }
            Some(_) => None,
        }
    }

    /// The verdict if it says anything new: silence is a drop.
    fn judge<J: Judge>(&mut self, turn: &Turn<'_, J>, id: TraceId, trigger: Trigger) -> Option<FleetVerdict> {
        let charged = self.verdict.and_then(|verdict| verdict.charged);
        let case = Case { id, summary: &self.whole.summary, charged, stored_bytes: self.whole.stored_bytes };
        let verdict = turn.judge.judge(&case, trigger, turn.now);
        if self.verdict.is_none() {
            self.settles = turn.now + turn.judge.wait().settle;
        }
        let settled = turn.now >= self.settles;
        let verdict = Verdict { charged: verdict.charged.or(charged), ..verdict };
        let verdict = verdict.after(self.verdict.as_ref(), settled, self.whole.summary.forgotten);
        (self.verdict, self.again) = (Some(verdict), 0);
        let says_more = verdict.decision.keeps() || self.ruled.is_some_and(Decision::keeps);
        says_more.then(|| {
            self.revision += 1;
            self.ruled = Some(verdict.decision);
            let nodes = self.parts.iter().map(|part| part.node).collect();
            FleetVerdict { id, revision: self.revision, verdict, nodes }
        })
    }
}
