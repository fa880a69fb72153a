//! Verdicts of traces that have left the ring. Bounded: the oldest go first.
//!
//! A kept trace is known by its exact id, so its late spans follow it. A dropped one is known by a
//! fingerprint, which answers questions and marks what comes late; it never decides.

use crate::ring::wheel::Tick;
use crate::trace::{Decision, RuleId, RuleNames, Threshold, TraceId, Trigger, Verdict};
use std::collections::{HashMap, VecDeque, hash_map};

/// What is remembered of a trace.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Remembered {
    Kept(Verdict),
    /// Very likely this trace: it is a fingerprint.
    Dropped {
        rule: RuleId,
        trigger: Trigger,
        policy: u16,
        at: Tick,
    },
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    threshold: Option<Threshold>,
    rule: RuleId,
    trigger: Trigger,
    policy: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Dropped {
    fingerprint: u64,
    at: Tick,
    cause: PackedCause,
    policy: u16,
}

/// The rule in the lower bits and the trigger above, because there are millions of them.
#[derive(Clone, Copy, Debug, Default)]
struct PackedCause(u16);

impl PackedCause {
    const RULES: usize = RuleNames::MAX.next_power_of_two();

    fn new(rule: RuleId, trigger: Trigger) -> PackedCause {
        const { assert!(PackedCause::RULES * Trigger::ALL.len() <= 1 << u16::BITS) };
        PackedCause(trigger as u16 * PackedCause::RULES as u16 + rule.0)
    }

    fn rule(self) -> RuleId {
        RuleId(self.0 % PackedCause::RULES as u16)
    }

    fn trigger(self) -> Trigger {
        Trigger::ALL[usize::from(self.0) / PackedCause::RULES]
    }
}

/// Fingerprints that share a bucket; the oldest makes room.
const WAYS: usize = 4;

/// One cache line.
#[derive(Clone, Default)]
#[repr(align(64))]
struct Bucket([Dropped; WAYS]);

/// One shard's memory of verdicts.
pub struct VerdictCache {
    kept: HashMap<TraceId, Kept, foldhash::fast::RandomState>,
    kept_order: VecDeque<TraceId>,
    kept_max: usize,
    dropped: Vec<Bucket>,
}

impl VerdictCache {
    /// Bytes of one kept trace, with its places in the map and the order.
    pub const KEPT_BYTES: usize = 2 * (size_of::<TraceId>() + size_of::<Kept>()) + size_of::<TraceId>();
    /// Bytes of one dropped trace.
    pub const DROPPED_BYTES: usize = size_of::<Dropped>();

    pub fn new(kept_max: usize, dropped_max: usize) -> VerdictCache {
        VerdictCache {
            kept: HashMap::default(),
            kept_order: VecDeque::new(),
            kept_max: kept_max.max(1),
            dropped: vec![Bucket::default(); (dropped_max / WAYS).max(1)],
        }
    }

    /// `hash` is the keyed hash of the id.
    pub fn remember(&mut self, id: TraceId, hash: u64, verdict: &Verdict, now: Tick) {
        if verdict.decision.keeps() {
            // What came late brings its trace's first verdict back, so that one stays.
            if let hash_map::Entry::Vacant(place) = self.kept.entry(id) {
                let Verdict { threshold, rule, trigger, policy, .. } = *verdict;
                place.insert(Kept { threshold, rule, trigger, policy });
                self.kept_order.push_back(id);
            }
            if self.kept_order.len() > self.kept_max
                && let Some(oldest) = self.kept_order.pop_front()
            {
                self.kept.remove(&oldest);
            }
            return;
        }
        let fresh = Dropped {
            fingerprint: hash,
            at: now.max(1),
            cause: PackedCause::new(verdict.rule, verdict.trigger),
            policy: verdict.policy.min(u32::from(u16::MAX)) as u16,
        };
        let bucket = self.bucket(hash);
        let bucket = &mut self.dropped[bucket].0;
        let place = bucket.iter().position(|dropped| dropped.fingerprint == hash && dropped.at != 0);
        let oldest = || (0..WAYS).min_by_key(|&way| bucket[way].at).expect("a bucket has ways");
        bucket[place.unwrap_or_else(oldest)] = fresh;
    }

    pub fn recall(&self, id: TraceId, hash: u64) -> Option<Remembered> {
        if let Some(kept) = self.kept.get(&id) {
            return Some(Remembered::Kept(Verdict {
                decision: Decision::KeepAll,
                rule: kept.rule,
                policy: kept.policy,
                threshold: kept.threshold,
                trigger: kept.trigger,
                charged: None,
            }));
        }
        let bucket = &self.dropped[self.bucket(hash)].0;
        let dropped = bucket.iter().find(|dropped| dropped.fingerprint == hash && dropped.at != 0)?;
        let Dropped { cause, policy, at, .. } = *dropped;
        Some(Remembered::Dropped { rule: cause.rule(), trigger: cause.trigger(), policy, at })
    }

    /// Reads what [`VerdictCache::recall`] will read of dropped traces, for nothing but to have it near.
    pub fn warm(&self, hash: u64) -> u32 {
        self.dropped[self.bucket(hash)].0[0].at
    }

    fn bucket(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.dropped.len() as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(decision: Decision, rule: u16, trigger: Trigger) -> Verdict {
        Verdict { decision, rule: RuleId(rule), policy: 7, threshold: None, trigger, charged: None }
    }

    #[test]
    fn rule_and_trigger_of_a_dropped_trace_come_back() {
        let mut verdicts = VerdictCache::new(1, 8);
        for trigger in Trigger::ALL {
            for rule in [0, 1, RuleNames::MAX as u16 - 1] {
                verdicts.remember(TraceId([1; 16]), 5, &verdict(Decision::DropNone, rule, trigger), 9);
                let expected = Remembered::Dropped { rule: RuleId(rule), trigger, policy: 7, at: 9 };
                assert_eq!(verdicts.recall(TraceId([1; 16]), 5), Some(expected));
            }
        }
    }

    #[test]
    fn the_first_verdict_of_a_kept_trace_stays_and_the_oldest_trace_goes() {
        let mut verdicts = VerdictCache::new(1, 8);
        let first = verdict(Decision::KeepAll, 3, Trigger::Root);
        verdicts.remember(TraceId([1; 16]), 1, &first, 9);
        verdicts.remember(TraceId([1; 16]), 1, &Verdict { trigger: Trigger::Late, ..first }, 10);
        assert_eq!(verdicts.recall(TraceId([1; 16]), 1), Some(Remembered::Kept(first)));
        verdicts.remember(TraceId([2; 16]), 2, &first, 11);
        assert_eq!(verdicts.recall(TraceId([1; 16]), 1), None);
    }
}
