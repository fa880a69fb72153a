//! A candidate that judges beside the policy in force, and keeps nothing: what it would do is counted.
//!
//! Each trace is judged by both once, when the policy in force judges it for the first time: on the same facts, at the
//! same moment. So waits and what counts as an error are those of the policy in force.

use crate::diagnostic;
use crate::policy::{Limits, Policy};
use crate::ring::wheel::{TICK_MS, Tick};
use crate::trace::{Case, RuleId, RuleNames, TraceId, Trigger, Verdict};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

/// Examples of each difference: the newest, so that the ring still has them.
pub const EXAMPLES: usize = 5;

/// A policy beside the one in force.
#[derive(Debug)]
pub struct ShadowPolicy {
    pub policy: Policy,
    rules: RuleNames,
    limits: Mutex<Limits>,
    counts: Mutex<ShadowCounts>,
}

/// Traces with their spans, and bytes of spans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeptVolume {
    pub traces: u64,
    pub spans: u64,
    pub bytes: u64,
}

/// Traces that one policy keeps and the other one does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    pub volume: KeptVolume,
    pub examples: VecDeque<TraceId>,
}

/// What both said so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShadowCounts {
    /// Traces that were judged by both.
    pub judged: u64,
    /// What each of the two keeps.
    pub in_force: KeptVolume,
    pub shadow: KeptVolume,
    /// What each rule of the shadow keeps.
    pub rules: BTreeMap<RuleId, KeptVolume>,
    pub newly_kept: Difference,
    pub newly_dropped: Difference,
}

impl ShadowPolicy {
    /// The policy in `text`, beside the one in force.
    ///
    /// # Errors
    /// What is wrong with it, for whoever wrote it.
    pub fn compile(in_force: &Policy, file: &str, text: &str) -> Result<ShadowPolicy, String> {
        let mut rules = RuleNames::default();
        let (policy, diagnostics) = in_force.compile_beside(file, text, &mut rules);
        let Some(policy) = policy else {
            let count = diagnostic::count_line(&diagnostics, file).unwrap_or_default();
            return Err(format!("{}{count}\n", diagnostic::render(&diagnostics, text, false)));
        };
        if policy.errors != in_force.errors {
            return Err(format!(
                "{file}: `errors:` is not what it is in the policy in force, and a trace's errors are counted once: \
                 change it in both, or compare them by `tailkeep policy plan`"
            ));
        }
        let mut limits = Limits::default();
        limits.retain(&policy.rules);
        Ok(ShadowPolicy { policy, rules, limits: Mutex::new(limits), counts: Mutex::default() })
    }

    /// Judges what the policy in force has just judged for the first time.
    pub fn compare(&self, case: &Case<'_>, trigger: Trigger, in_force: &Verdict, now: Tick) {
        let said = self.policy.judge(case, trigger, &mut &self.limits, u64::from(now) * TICK_MS);
        let volume = KeptVolume { traces: 1, spans: u64::from(case.summary.spans), bytes: case.summary.bytes };
        let mut counts = self.counts.lock().expect("no code panics under this lock");
        counts.judged += 1;
        if in_force.decision.keeps() {
            counts.in_force.add(volume);
        }
        if said.decision.keeps() {
            counts.shadow.add(volume);
            counts.rules.entry(said.rule).or_default().add(volume);
        }
        match (in_force.decision.keeps(), said.decision.keeps()) {
            (false, true) => counts.newly_kept.note(case.id, volume),
            (true, false) => counts.newly_dropped.note(case.id, volume),
            _ => {}
        }
    }

    pub fn counts(&self) -> ShadowCounts {
        self.counts.lock().expect("no code panics under this lock").clone()
    }

    /// Each rule and `otherwise`, with what they keep.
    pub fn rules<'a>(&'a self, counts: &'a ShadowCounts) -> impl Iterator<Item = (&'a str, KeptVolume)> {
        let ids = self.policy.rules.iter().map(|rule| rule.id).chain([RuleId::OTHERWISE]);
        ids.map(|id| (self.rules.name(id), counts.rules.get(&id).copied().unwrap_or_default()))
    }
}

impl KeptVolume {
    fn add(&mut self, other: KeptVolume) {
        self.traces += other.traces;
        self.spans += other.spans;
        self.bytes += other.bytes;
    }
}

impl Difference {
    fn note(&mut self, id: TraceId, volume: KeptVolume) {
        self.volume.add(volume);
        self.examples.truncate(EXAMPLES - 1);
        self.examples.push_front(id);
    }
}
