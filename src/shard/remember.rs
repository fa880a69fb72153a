//! Verdicts of traces that have left the ring. Bounded: the oldest go first.
//!
//! A kept trace is known by its exact id, so its late spans follow it. A dropped one is known by a
//! fingerprint, which answers questions and marks what comes late; it never decides.

use crate::ring::wheel::Tick;
use crate::trace::{Decision, RuleId, Threshold, TraceId, Trigger, Verdict};
use std::collections::{HashMap, VecDeque};

/// What is remembered of a trace.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Remembered {
    Kept(Verdict),
    /// Very likely this trace: it is a fingerprint.
    Dropped {
        rule: RuleId,
        policy: u16,
        at: Tick,
    },
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    threshold: Option<Threshold>,
    rule: RuleId,
    policy: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Dropped {
    fingerprint: u64,
    at: Tick,
    rule: u16,
    policy: u16,
}

/// Fingerprints that share a bucket; the oldest makes room.
const WAYS: usize = 4;

/// One shard's memory of verdicts.
pub struct Verdicts {
    kept: HashMap<TraceId, Kept, foldhash::fast::RandomState>,
    kept_order: VecDeque<TraceId>,
    kept_max: usize,
    dropped: Vec<[Dropped; WAYS]>,
}

impl Verdicts {
    /// Bytes of one kept trace, with its places in the map and the order.
    pub const KEPT_BYTES: usize = 2 * (size_of::<TraceId>() + size_of::<Kept>()) + size_of::<TraceId>();
    /// Bytes of one dropped trace.
    pub const DROPPED_BYTES: usize = size_of::<Dropped>();

    pub fn new(kept_max: usize, dropped_max: usize) -> Verdicts {
        Verdicts {
            kept: HashMap::default(),
            kept_order: VecDeque::new(),
            kept_max: kept_max.max(1),
            dropped: vec![[Dropped::default(); WAYS]; (dropped_max / WAYS).max(1)],
        }
    }

    /// `hash` is the keyed hash of the id.
    pub fn remember(&mut self, id: TraceId, hash: u64, verdict: &Verdict, now: Tick) {
        if verdict.decision.keeps() {
            let kept = Kept { threshold: verdict.threshold, rule: verdict.rule, policy: verdict.policy };
            if self.kept.insert(id, kept).is_none() {
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
            rule: verdict.rule.0,
            policy: verdict.policy.min(u32::from(u16::MAX)) as u16,
        };
        let bucket = self.bucket(hash);
        let bucket = &mut self.dropped[bucket];
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
                trigger: Trigger::Late,
                charged: None,
            }));
        }
        let bucket = &self.dropped[self.bucket(hash)];
        let dropped = bucket.iter().find(|dropped| dropped.fingerprint == hash && dropped.at != 0)?;
        Some(Remembered::Dropped { rule: RuleId(dropped.rule), policy: dropped.policy, at: dropped.at })
    }

    fn bucket(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.dropped.len() as u128) >> 64) as usize
    }
}
