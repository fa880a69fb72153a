//! What a policy would keep, drop and cost, beside what another one does, on the same traces.
//!
//! Each trace is judged by both as a shard would do it at the end of its wait. Limits are asked in the order in
//! which the traces are due, at the times of the traffic: so a minute's traffic needs no minute. Pure: traces,
//! their times and the text of the policies are arguments.

pub mod format;
pub mod gate;
pub mod recording;
pub mod render;
pub mod report;

pub use gate::{Gates, VolumeGate};
pub use recording::Recording;
pub use report::PlanReport;

use crate::diagnostic;
use crate::policy::limit::Claim;
use crate::policy::{Charge, LimitCounts, Limits, Policy, Wait};
use crate::scan::Questions;
use crate::scan::answer::TooMany;
use crate::trace::observed::QUESTION_SETS;
use crate::trace::{Arrivals, Case, Observed, RuleId, RuleNames, Summary, TraceId, Trigger, Verdict};
use report::{GateRow, KeptSides, LeftOut, Moved, PlanRow, PlanWindow, Sides, Volume};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Examples of each kind: the smallest ids, so that the same traffic has the same examples.
pub const EXAMPLES: usize = 5;

/// Two policies and what must not be dropped, with the names that all of them use.
#[derive(Debug)]
pub struct Compared {
    pub now: Policy,
    pub then: Policy,
    pub gates: Gates,
    pub names: RuleNames,
}

/// A policy as it is written, and what its file is called.
#[derive(Clone, Copy, Debug)]
pub struct PolicyText<'a> {
    pub file: &'a str,
    pub text: &'a str,
}

impl PolicyText<'_> {
    fn compile(&self, number: u32, names: &mut RuleNames) -> Result<Policy, String> {
        let (policy, diagnostics) = Policy::compile(self.file, self.text, number, names);
        let count = || diagnostic::count_line(&diagnostics, self.file).unwrap_or_default();
        policy.ok_or_else(|| format!("{}{}\n", diagnostic::render(&diagnostics, self.text, false), count()))
    }
}

impl Compared {
    /// Reads both policies and the conditions of gates. `names` are those of rules that are known already.
    ///
    /// # Errors
    /// What is wrong with them, for whoever wrote them.
    pub fn compile(
        now: PolicyText<'_>,
        then: PolicyText<'_>,
        conditions: &[String],
        mut names: RuleNames,
    ) -> Result<Compared, String> {
        let now = now.compile(1, &mut names)?;
        let then = then.compile(2, &mut names)?;
        Ok(Compared { now, then, gates: Gates::parse(conditions)?, names })
    }

    /// What scan must answer for each of the three.
    ///
    /// # Errors
    /// When one of them asks more than scan can answer.
    pub fn questions(&self) -> Result<[Questions; QUESTION_SETS], TooMany> {
        let [now, then, gates] = self.policies().map(|policy| {
            Questions::compile(&policy.conditions, &[], 1)
                .map(|questions| questions.counting_by(&policy.entry_attributes).counting_errors(policy.error_facts))
        });
        Ok([now?, then?, gates?])
    }

    /// The same for traces in the ring of a policy in force, which has counted their errors as it does since a question
    /// set: where one of the two counts otherwise, they are counted again.
    ///
    /// # Errors
    /// As [`Compared::questions`].
    pub fn questions_of_ring(
        &self,
        in_force: &Policy,
        errors_since: Option<u32>,
    ) -> Result<[Questions; QUESTION_SETS], TooMany> {
        let [mut now, mut then, gates] = self.questions()?;
        for (questions, policy) in [(&mut now, &self.now), (&mut then, &self.then)] {
            questions.errors_since = if policy.errors == in_force.errors { errors_since } else { Some(u32::MAX) };
        }
        Ok([now, then, gates])
    }

    fn policies(&self) -> [&Policy; QUESTION_SETS] {
        [&self.now, &self.then, self.gates.policy()]
    }
}

/// Judges traces one after the other, and adds up what becomes of them.
pub struct Planner<'a> {
    compared: &'a Compared,
    /// Traces that a limit is asked about, until all are known and in order.
    held: Vec<Observed>,
    held_max: usize,
    tally: PlanTally,
}

impl<'a> Planner<'a> {
    /// `held_max` bounds the traces that wait for their turn at a limit; those beyond it are taken to be inside.
    pub fn new(compared: &'a Compared, held_max: usize) -> Planner<'a> {
        let gates = compared.gates.conditions().map(|_| Drops::default()).collect();
        Planner { compared, held: Vec::new(), held_max, tally: PlanTally { gates, ..PlanTally::default() } }
    }

    /// Takes a trace in, in any order.
    pub fn take(&mut self, observed: Observed) {
        self.tally.see(&observed);
        let mut limits = [AskedLimit(false), AskedLimit(false)];
        let [now, then] = &mut limits;
        let verdicts = Sides {
            now: judge(&self.compared.now, &observed, 0, now, 0),
            then: judge(&self.compared.then, &observed, 1, then, 0),
        };
        if !limits.iter().any(|limit| limit.0) {
            self.tally.count(self.compared, &observed, &verdicts);
        } else if self.held.len() < self.held_max {
            self.held.push(observed);
        } else {
            self.tally.unordered += 1;
            self.tally.count(self.compared, &observed, &verdicts);
        }
    }

    /// Judges what waited for its turn, and says what came of all. `services` are names by number.
    pub fn finish(mut self, services: &[Arc<str>], left_out: LeftOut) -> PlanReport {
        let (now, cut_now) = judge_in_order(&self.compared.now, &self.held, 0);
        let (then, cut_then) = judge_in_order(&self.compared.then, &self.held, 1);
        for (observed, (now, then)) in self.held.iter().zip(now.into_iter().zip(then)) {
            self.tally.count(self.compared, observed, &Sides { now, then });
        }
        for (cut, side) in [(cut_now, 0), (cut_then, 1)] {
            for (rule, counts) in cut {
                self.tally.rules.entry(rule).or_default().cut[side] += counts.reached;
            }
        }
        self.tally.report(self.compared, services, left_out)
    }
}

/// Notes that a limit was asked, and takes everything to be inside.
struct AskedLimit(bool);

impl Charge for AskedLimit {
    fn admit(&mut self, _: &Claim<'_>) -> bool {
        self.0 = true;
        true
    }
}

fn judge(policy: &Policy, observed: &Observed, set: usize, limits: &mut impl Charge, now_ms: u64) -> Verdict {
    let summary = observed.summary_by(set);
    let case = Case { id: observed.id, summary: &summary, charged: None, stored_bytes: observed.stored_bytes };
    policy.judge(&case, Trigger::Root, limits, now_ms)
}

/// Verdicts in the order of `held`, made in the order in which they are due; and what each limit cut.
fn judge_in_order(policy: &Policy, held: &[Observed], set: usize) -> (Vec<Verdict>, BTreeMap<RuleId, LimitCounts>) {
    let due: Vec<u64> = held.iter().map(|observed| due(&policy.wait, observed)).collect();
    let mut order: Vec<u32> = (0..held.len() as u32).collect();
    order.sort_unstable_by_key(|&at| (due[at as usize], held[at as usize].id));
    let mut limits = Limits::default();
    let judged = order.iter().map(|&at| {
        let at = at as usize;
        (at, judge(policy, &held[at], set, &mut limits, due[at]))
    });
    let mut verdicts: Vec<(usize, Verdict)> = judged.collect();
    verdicts.sort_unstable_by_key(|(at, _)| *at);
    (verdicts.into_iter().map(|(_, verdict)| verdict).collect(), limits.counts())
}

/// What gates read: an error is what one of the two policies counts as one, or a new `errors` could hide what it drops.
fn gate_summaries(observed: &Observed) -> [Summary; 2] {
    [0, 1].map(|set| {
        let by_policy = observed.summary_by(set);
        Summary { facts: observed.answers[2].facts, ..by_policy }
    })
}

/// When a trace is judged: the first of what a shard waits for.
fn due(wait: &Wait, observed: &Observed) -> u64 {
    let Arrivals { first, last, entered } = observed.arrivals;
    let after = |at: u64, wait: std::time::Duration| at + wait.as_millis() as u64;
    let usual = after(last, wait.idle).min(after(first, wait.longest));
    if observed.summary.has_entry() { usual.min(after(entered, wait.after_root)) } else { usual }
}

/// What was found of one rule, now and then.
#[derive(Clone, Default)]
struct RuleTally {
    kept: [Volume; 2],
    decided: [u64; 2],
    cut: [u64; 2],
}

/// What a gate found.
#[derive(Default)]
struct Drops {
    traces: u64,
    examples: Examples,
}

/// The smallest ids.
#[derive(Default)]
struct Examples(BTreeSet<TraceId>);

impl Examples {
    fn add(&mut self, id: TraceId) {
        self.0.insert(id);
        if self.0.len() > EXAMPLES {
            self.0.pop_last();
        }
    }

    fn into_texts(self) -> Vec<String> {
        self.0.iter().map(TraceId::to_string).collect()
    }
}

#[derive(Default)]
struct PlanTally {
    seen: Volume,
    first_ms: Option<u64>,
    last_ms: u64,
    total: RuleTally,
    rules: BTreeMap<RuleId, RuleTally>,
    services: BTreeMap<u32, RuleTally>,
    newly_kept: (Volume, Examples),
    newly_dropped: (Volume, Examples),
    late: [u64; 2],
    gates: Vec<Drops>,
    unordered: u64,
}

impl PlanTally {
    fn see(&mut self, observed: &Observed) {
        self.seen.add(&Volume::of(observed));
        let Arrivals { first, last, .. } = observed.arrivals;
        self.first_ms = Some(self.first_ms.map_or(first, |known| known.min(first)));
        self.last_ms = self.last_ms.max(last);
    }

    fn count(&mut self, compared: &Compared, observed: &Observed, verdicts: &Sides<Verdict>) {
        let volume = Volume::of(observed);
        for (side, verdict) in [&verdicts.now, &verdicts.then].into_iter().enumerate() {
            let rule = self.rules.entry(verdict.rule).or_default();
            for tally in [&mut self.total, rule, self.services.entry(observed.service).or_default()] {
                tally.decided[side] += 1;
                if verdict.decision.keeps() {
                    tally.kept[side].add(&volume);
                }
            }
        }
        for (side, policy) in [&compared.now, &compared.then].into_iter().enumerate() {
            self.late[side] += u64::from(due(&policy.wait, observed) < observed.arrivals.last);
        }
        let (now, then) = (verdicts.now.decision.keeps(), verdicts.then.decision.keeps());
        let moved = match (now, then) {
            (false, true) => Some(&mut self.newly_kept),
            (true, false) => Some(&mut self.newly_dropped),
            _ => None,
        };
        if let Some((volumes, examples)) = moved {
            volumes.add(&volume);
            examples.add(observed.id);
        }
        if !then {
            for gate in compared.gates.matching(&gate_summaries(observed)) {
                self.gates[gate].traces += 1;
                self.gates[gate].examples.add(observed.id);
            }
        }
    }

    fn report(self, compared: &Compared, services: &[Arc<str>], left_out: LeftOut) -> PlanReport {
        let seconds = self.first_ms.map_or(0.0, |first| self.last_ms.saturating_sub(first) as f64 / 1e3);
        let row = |name: String, tally: &RuleTally| tally.row(name, seconds);
        let rule_name = |id: RuleId| compared.names.name(id).to_owned();
        let rows = rules_in_order(compared).into_iter();
        let rules = rows.map(|id| PlanRow {
            shared_limit: shared_limit(compared, id),
            ..row(rule_name(id), self.rules.get(&id).unwrap_or(&RuleTally::default()))
        });
        let name = |number: &u32| services.get(*number as usize).map_or("other", |name| name).to_owned();
        let mut by_service: Vec<PlanRow> =
            self.services.iter().map(|(number, tally)| row(name(number), tally)).collect();
        by_service.sort_by(|a, b| b.weight().cmp(&a.weight()).then_with(|| a.name.cmp(&b.name)));
        let moved = |(volume, examples): (Volume, Examples)| Moved {
            traces: volume.traces,
            spans: volume.spans,
            bytes: volume.bytes,
            examples: examples.into_texts(),
        };
        let gates = compared.gates.conditions().zip(self.gates).map(|(condition, drops)| GateRow {
            condition: condition.to_owned(),
            dropped: drops.traces,
            examples: drops.examples.into_texts(),
        });
        let PlanRow { now, then, .. } = row(String::new(), &self.total);
        PlanReport {
            policies: Sides { now: compared.now.hash.clone(), then: compared.then.hash.clone() },
            window: PlanWindow { seconds, traces: self.seen.traces, spans: self.seen.spans, bytes: self.seen.bytes },
            total: KeptSides { now, then },
            rules: rules.collect(),
            services: by_service,
            newly_kept: moved(self.newly_kept),
            newly_dropped: moved(self.newly_dropped),
            late: Sides { now: self.late[0], then: self.late[1] },
            gates: gates.collect(),
            left_out: LeftOut { unordered: self.unordered, ..left_out },
            warnings: Vec::new(),
        }
    }
}

impl RuleTally {
    fn row(&self, name: String, seconds: f64) -> PlanRow {
        let side = |side: usize| report::KeptTraces::new(self.kept[side], self.decided[side], self.cut[side], seconds);
        PlanRow { name, now: side(0), then: side(1), shared_limit: None }
    }
}

/// That of the rule in the new policy, or in the old one if it is gone.
fn shared_limit(compared: &Compared, rule: RuleId) -> Option<String> {
    let mut rules = compared.then.rules.iter().chain(&compared.now.rules);
    let rule = rules.find(|known| known.id == rule)?;
    rule.written.limited.as_ref()?.shared.clone()
}

/// As the new policy has them, then those that are gone, then what no rule decides.
fn rules_in_order(compared: &Compared) -> Vec<RuleId> {
    let mut ids: Vec<RuleId> = Vec::new();
    for rule in compared.then.rules.iter().chain(&compared.now.rules) {
        if !ids.contains(&rule.id) {
            ids.push(rule.id);
        }
    }
    ids.push(RuleId::OTHERWISE);
    ids
}

#[cfg(test)]
mod tests;
