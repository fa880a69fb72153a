//! A policy to begin with, from what flows: failed and slow traces whole, probes and polling hardly, loud operations
//! thinned, and the rest by a share, so that all of it meets a budget if there is one.
//!
//! Pure: the traffic is an argument. Whoever asks has a plan made of the text, so that the numbers in it are those of a
//! plan.

pub mod profile;
mod shape;
mod share;
mod write;

pub use profile::{DayVolume, OperationProfile, Profiler, TrafficProfile};
pub use write::{Predicted, policy};

use share::{ShareOfBudget, share_of_budget};
use write::{Operations, rule_name, span_of_time};

/// Rules of one operation, of each of the two kinds.
const OPERATIONS_OWN: usize = 8;
/// Operations in the rule for probes; further ones are left to the others.
const PROBES_MAX: usize = 64;
const PROBE_SHARE: f64 = 0.001;
/// Without a budget.
const USUAL_SHARE: f64 = 0.05;
/// No share is smaller, whatever the budget: of each operation something is to be seen.
const SHARE_MIN: f64 = 0.0001;
/// Slow is what one in a hundred reaches.
const SLOW_PART: f64 = 0.01;
/// An operation of which so many are slow by the common threshold is given its own.
const SLOW_BY_NATURE: f64 = 0.05;
/// Fewer traces say nothing of how slow they are.
const TRACES_MIN: u64 = 100;
/// Numbers of thresholds: nothing quicker is called slow, 50 ms; and what is where there are too few, 500 ms.
const SLOW_MIN: usize = 10;
const SLOW_USUALLY: usize = 16;
/// An operation is loud beyond this part of all bytes, or twice what would be its own among equals.
const LOUD_PART: f64 = 0.1;

/// A rule that is suggested.
#[derive(Clone, PartialEq, Debug)]
pub struct SuggestedRule {
    pub name: String,
    /// Why it is there, without numbers of a plan.
    pub reason: String,
    /// The lines under `when:`.
    pub when: Vec<String>,
    /// From 0 to 1.
    pub share: f64,
    /// What it is expected to keep.
    pub kept: DayVolume,
}

/// A policy that is suggested.
#[derive(Clone, PartialEq, Debug)]
pub struct Suggestion {
    pub rules: Vec<SuggestedRule>,
    /// The share of what no rule decides, and what that is expected to keep.
    pub otherwise: (f64, DayVolume),
    /// What the reader should know.
    pub notes: Vec<String>,
}

impl Suggestion {
    /// What all rules are expected to keep, bytes a day.
    pub fn kept(&self) -> f64 {
        self.rules.iter().map(|rule| rule.kept.bytes).sum::<f64>() + self.otherwise.1.bytes
    }
}

/// An operation of requests, and what of it is not slow.
struct Ordinary<'a> {
    operation: &'a OperationProfile,
    /// Its own threshold, if the common one is none for it.
    own: Option<usize>,
    slow: DayVolume,
    rest: DayVolume,
    /// Of the share of the rest, it gets this part.
    part: f64,
}

/// Suggests a policy for this traffic that keeps `budget` bytes a day.
pub fn suggest(profile: &TrafficProfile, budget: Option<f64>) -> Suggestion {
    let (probes, others) = divide(profile);
    let common = common_threshold(&others);
    let mut ordinary = ordinary(&others, common);
    mark_loud(&mut ordinary);
    let total = |volumes: &mut dyn Iterator<Item = DayVolume>| volumes.fold(DayVolume::default(), DayVolume::plus);
    let failed = total(&mut profile.operations.iter().map(|operation| operation.failed));
    let slow_probes = total(&mut probes.iter().map(|(operation, _)| operation.above(common)));
    let of_probes = total(&mut probes.iter().map(|(operation, _)| operation.all())).plus(slow_probes.times(-1.0));
    let slow = total(&mut ordinary.iter().map(|each| each.slow)).plus(slow_probes);
    let fixed = failed.bytes + of_probes.bytes * PROBE_SHARE;
    let rest: Vec<(f64, f64)> = ordinary.iter().map(|each| (each.rest.bytes, each.part)).collect();
    let shares = share_of_budget(budget, fixed, slow.bytes, &rest);

    let mut rules = vec![SuggestedRule {
        name: "keep-errors".to_owned(),
        reason: "a failed trace says what went wrong, so all of them are kept".to_owned(),
        when: vec!["error: true".to_owned()],
        share: 1.0,
        kept: failed,
    }];
    let mut names: Vec<String> = Vec::new();
    for each in ordinary.iter().filter(|each| each.own.is_some()) {
        rules.extend(rules_of_slow_operation(each, &shares, &mut names).into_iter().flatten());
    }
    let of_common = total(&mut ordinary.iter().filter(|each| each.own.is_none()).map(|each| each.slow));
    rules.push(slow_rule(common, are_enough(&others), &shares, of_common.plus(slow_probes)));
    rules.extend(probe_rule(&probes, of_probes));
    let loud = ordinary.iter().filter(|each| each.own.is_none() && each.part < 1.0);
    let bytes: f64 = ordinary.iter().map(|each| each.rest.bytes).sum();
    rules.extend(loud.filter_map(|each| loud_rule(each, &shares, bytes, &mut names)));
    let left = total(&mut ordinary.iter().filter(|each| each.own.is_none() && each.part == 1.0).map(|each| each.rest));
    let otherwise = (shares.of_rest(1.0), left.times(shares.of_rest(1.0)));
    let mut suggestion = Suggestion { rules, otherwise, notes: Vec::new() };
    suggestion.notes = notes(&suggestion, &shares, budget, failed.bytes);
    suggestion
}

/// Probes with their period, and all else.
fn divide(profile: &TrafficProfile) -> (Vec<(&OperationProfile, u64)>, Vec<&OperationProfile>) {
    let mut operations: Vec<&OperationProfile> = profile.operations.iter().collect();
    operations.sort_by_key(|operation| std::cmp::Reverse(operation.traces));
    let (mut probes, mut others) = (Vec::new(), Vec::new());
    for operation in operations {
        match shape::period(operation).filter(|_| probes.len() < PROBES_MAX) {
            Some(period) => probes.push((operation, period)),
            None => others.push(operation),
        }
    }
    (probes, others)
}

/// Slow for nine of ten traces, by the operation of each.
fn common_threshold(others: &[&OperationProfile]) -> usize {
    if !are_enough(others) {
        return SLOW_USUALLY;
    }
    let mut thresholds: Vec<(usize, f64)> =
        others.iter().map(|operation| (operation.reached_by(SLOW_PART), operation.all().traces)).collect();
    thresholds.sort_by_key(|(number, _)| *number);
    let all: f64 = thresholds.iter().map(|(_, traces)| traces).sum();
    let mut below = 0.0;
    let reached = thresholds.iter().find(|(_, traces)| {
        below += traces;
        below >= all * 0.9
    });
    reached.map_or(SLOW_MIN, |(number, _)| (*number).max(SLOW_MIN))
}

fn are_enough(others: &[&OperationProfile]) -> bool {
    others.iter().map(|operation| operation.traces).sum::<u64>() >= TRACES_MIN
}

fn ordinary<'a>(others: &[&'a OperationProfile], common: usize) -> Vec<Ordinary<'a>> {
    let mut owning = 0;
    let of = |operation: &&'a OperationProfile| {
        let operation = *operation;
        let all = operation.all();
        let is_slow = operation.above(common).traces > all.traces * SLOW_BY_NATURE;
        let is_own = operation.is_exact && is_slow && operation.traces >= TRACES_MIN && owning < OPERATIONS_OWN;
        owning += usize::from(is_own);
        let own = is_own.then(|| operation.reached_by(SLOW_PART));
        let slow = operation.above(own.unwrap_or(common));
        Ordinary { operation, own, slow, rest: all.plus(slow.times(-1.0)), part: 1.0 }
    };
    others.iter().map(of).collect()
}

/// The loudest get the part that makes them as loud as the bound.
fn mark_loud(ordinary: &mut [Ordinary<'_>]) {
    let bytes: f64 = ordinary.iter().map(|each| each.rest.bytes).sum();
    let most = LOUD_PART.max(2.0 / ordinary.len().max(1) as f64) * bytes;
    let mut loud: Vec<&mut Ordinary<'_>> =
        ordinary.iter_mut().filter(|each| each.operation.is_exact && each.rest.bytes > most).collect();
    loud.sort_by(|a, b| b.rest.bytes.total_cmp(&a.rest.bytes));
    loud.into_iter().take(OPERATIONS_OWN).for_each(|each| each.part = most / each.rest.bytes);
}

fn slow_rule(common: usize, is_known: bool, shares: &ShareOfBudget, slow: DayVolume) -> SuggestedRule {
    let time = span_of_time(common);
    let reason = match is_known {
        true => format!("nine in ten traces are of operations of which no more than one in a hundred takes {time}"),
        false => format!("slow by common standards: fewer than {TRACES_MIN} traces do not tell what is slow here"),
    };
    SuggestedRule {
        name: "keep-slow".to_owned(),
        reason,
        when: vec![format!("duration: {{ at_least: {time} }}")],
        share: shares.slow,
        kept: slow.times(shares.slow),
    }
}

fn rules_of_slow_operation(
    each: &Ordinary<'_>,
    shares: &ShareOfBudget,
    names: &mut Vec<String>,
) -> Option<[SuggestedRule; 2]> {
    let (operation, time) = (each.operation, span_of_time(each.own?));
    let entry = Operations::one(operation).when();
    let share = shares.of_rest(each.part);
    let slow = SuggestedRule {
        name: rule_name("slow", operation, names),
        reason: format!("this operation takes its time: no more than one in a hundred of it takes {time}"),
        when: [vec![format!("duration: {{ at_least: {time} }}")], entry.clone()].concat(),
        share: shares.slow,
        kept: each.slow.times(shares.slow),
    };
    let rest = SuggestedRule {
        name: rule_name("usual", operation, names),
        reason: "what is slow elsewhere is usual for this operation".to_owned(),
        when: entry,
        share,
        kept: each.rest.times(share),
    };
    Some([slow, rest])
}

fn probe_rule(probes: &[(&OperationProfile, u64)], volume: DayVolume) -> Option<SuggestedRule> {
    let (_, period) = probes.first()?;
    Some(SuggestedRule {
        name: "thin-probes".to_owned(),
        reason: format!(
            "probes and polling by their shape: they come as by a clock, of the loudest as many in every {period} s; they are \
             small, quick and all alike, and hardly any fails"
        ),
        when: Operations::all(probes.iter().map(|(operation, _)| *operation)).when(),
        share: PROBE_SHARE,
        kept: volume.times(PROBE_SHARE),
    })
}

/// None if it has the share of all others.
fn loud_rule(each: &Ordinary<'_>, shares: &ShareOfBudget, all: f64, names: &mut Vec<String>) -> Option<SuggestedRule> {
    let share = shares.of_rest(each.part);
    let percent = each.rest.bytes / all * 100.0;
    (share < shares.of_rest(1.0)).then(|| SuggestedRule {
        name: rule_name("thin", each.operation, names),
        reason: format!("a loud operation: {percent:.0} % of all bytes that are neither failed nor slow nor probes"),
        when: Operations::one(each.operation).when(),
        share,
        kept: each.rest.times(share),
    })
}

fn notes(suggestion: &Suggestion, shares: &ShareOfBudget, budget: Option<f64>, failed: f64) -> Vec<String> {
    let Some(budget) = budget else { return Vec::new() };
    let mut notes = Vec::new();
    if shares.slow < 1.0 {
        notes.push("the budget has no room for all slow traces: a share of them is kept".to_owned());
    }
    if suggestion.kept() > budget * 1.02 {
        notes.push(format!(
            "the budget is too small: failed traces, which are never thinned, are {:.0} % of it, and of all else this is the \
             smallest share that is suggested",
            failed / budget * 100.0
        ));
    }
    notes
}

#[cfg(test)]
mod tests;
