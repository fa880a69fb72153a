//! What a shard counts, under its own lock, so that the sums hold at any moment:
//! per service, accepted = kept + dropped + over_limit + duplicate + held.

use crate::trace::{RuleId, Trigger, Verdict};
use std::collections::HashMap;

/// Spans of one service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spans {
    pub accepted: u64,
    /// Handed over to deliver.
    pub kept: u64,
    /// Left the ring with a trace that was dropped.
    pub dropped: u64,
    /// Beyond their trace's share of the ring: not stored.
    pub over_limit: u64,
    /// Found at keep: equal to another span of the trace.
    pub duplicate: u64,
    /// In the ring, waiting or provisionally decided.
    pub held: u64,
}

impl Spans {
    pub fn add(&mut self, other: &Spans) {
        self.accepted += other.accepted;
        self.kept += other.kept;
        self.dropped += other.dropped;
        self.over_limit += other.over_limit;
        self.duplicate += other.duplicate;
        self.held += other.held;
    }

    /// The accounting identity of one service.
    pub fn is_balanced(&self) -> bool {
        self.accepted == self.kept + self.dropped + self.over_limit + self.duplicate + self.held
    }
}

/// Where one stored span went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    Kept,
    Dropped,
    Duplicate,
}

/// First verdicts of one kind.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct VerdictKey {
    pub rule: RuleId,
    pub keep: bool,
    pub trigger: Trigger,
}

/// One shard's counters.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// By number of the service.
    pub services: Vec<Spans>,
    /// Traces by their first verdict.
    pub verdicts: HashMap<VerdictKey, u64>,
    /// Verdicts that turned a drop into a keep, or the other way round, by the later rule.
    pub changes: HashMap<RuleId, u64>,
    /// Traces that left the ring, by the last verdict's rule.
    pub traces: HashMap<(RuleId, bool), u64>,
    /// Spans dropped and kept, by number of the last verdict's rule.
    pub dropped: Vec<u64>,
    pub kept: Vec<u64>,
    /// Records that the sweep has stepped over or whose trace it took.
    pub swept: u64,
}

impl Counts {
    /// Adds another shard's counters.
    pub fn add(&mut self, other: &Counts) {
        for (index, spans) in other.services.iter().enumerate() {
            at(&mut self.services, index).add(spans);
        }
        other.verdicts.iter().for_each(|(key, count)| *self.verdicts.entry(*key).or_default() += count);
        other.changes.iter().for_each(|(key, count)| *self.changes.entry(*key).or_default() += count);
        other.traces.iter().for_each(|(key, count)| *self.traces.entry(*key).or_default() += count);
        other.dropped.iter().enumerate().for_each(|(index, count)| *at(&mut self.dropped, index) += count);
        other.kept.iter().enumerate().for_each(|(index, count)| *at(&mut self.kept, index) += count);
        self.swept += other.swept;
    }

    fn service(&mut self, service: u32) -> &mut Spans {
        at(&mut self.services, service as usize)
    }

    pub(super) fn accept(&mut self, service: u32, over_limit: bool) {
        let spans = self.service(service);
        spans.accepted += 1;
        if over_limit {
            spans.over_limit += 1;
        } else {
            spans.held += 1;
        }
    }

    pub(super) fn account(&mut self, service: u32, fate: Fate, rule: RuleId) {
        let spans = self.service(service);
        spans.held -= 1;
        match fate {
            Fate::Kept => spans.kept += 1,
            Fate::Dropped => spans.dropped += 1,
            Fate::Duplicate => spans.duplicate += 1,
        }
        match fate {
            Fate::Kept => *at(&mut self.kept, usize::from(rule.0)) += 1,
            Fate::Dropped => *at(&mut self.dropped, usize::from(rule.0)) += 1,
            Fate::Duplicate => {}
        }
    }

    pub(super) fn judged(&mut self, earlier: Option<&Verdict>, verdict: &Verdict) {
        let keep = verdict.decision.keeps();
        match earlier {
            None => {
                let key = VerdictKey { rule: verdict.rule, keep, trigger: verdict.trigger };
                *self.verdicts.entry(key).or_default() += 1;
            }
            Some(earlier) if earlier.decision.keeps() != keep => *self.changes.entry(verdict.rule).or_default() += 1,
            Some(_) => {}
        }
    }

    pub(super) fn traces_left(&mut self, verdict: &Verdict) {
        *self.traces.entry((verdict.rule, verdict.decision.keeps())).or_default() += 1;
    }
}

/// The element at an index, made if it is not there.
fn at<T: Default + Clone>(list: &mut Vec<T>, index: usize) -> &mut T {
    if index >= list.len() {
        list.resize(index + 1, T::default());
    }
    &mut list[index]
}
