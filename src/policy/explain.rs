//! One trace, rule by rule, in words.

pub mod answer;
pub mod decoded;
mod formats;
mod jaeger;
pub mod observe;
mod recording;
mod span_condition;
mod tempo;

pub(crate) use observe::by_trace;
pub(crate) use recording::read;

use super::limit::{Charge, Claim};
use super::parse::WrittenRule;
use super::{Case, Keep, Limited, Policy, Then};
use crate::trace::{Decision, LimitId, Randomness, RuleId, Threshold, Trigger, Verdict};
use answer::label;
use observe::DecodedTrace;
use span_condition::{ConditionFinding, duration};
use std::fmt::Write;

/// Says of each trace in a file what every rule answers and what becomes of the trace.
/// Limits are assumed not to be reached. The error says what is wrong with the file.
pub fn explain(policy: &Policy, file: &[u8]) -> Result<String, String> {
    let traces = by_trace(&read(file)?)?;
    let texts = traces.into_iter().map(|(id, spans)| explain_trace(policy, &DecodedTrace::of(id, spans, policy)));
    Ok(texts.collect::<Vec<_>>().join("\n"))
}

/// These limits are reached, and no other.
struct Reached<'a>(&'a [LimitId]);

impl Charge for Reached<'_> {
    fn admit(&mut self, claim: &Claim<'_>) -> bool {
        !self.0.contains(&claim.id)
    }
}

/// One trace, rule by rule, while no limit is reached.
pub fn explain_trace(policy: &Policy, trace: &DecodedTrace) -> String {
    explain_reached(policy, trace, &[])
}

/// One trace, rule by rule, while the limits of `reached` are.
pub fn explain_reached(policy: &Policy, trace: &DecodedTrace, reached: &[LimitId]) -> String {
    let case = Case { id: trace.id, summary: &trace.summary, charged: None, stored_bytes: 0 };
    let verdict = policy.judge(&case, Trigger::Root, &mut Reached(reached), 0);
    let randomness = trace.summary.randomness(trace.id).0;
    let width = policy.rules.iter().map(|rule| rule.written.name.chars().count()).max().unwrap_or(0).max(9);
    let mut out = head(trace);
    let mut decider: Option<&WrittenRule> = None;
    for rule in &policy.rules {
        let ConditionFinding { holds, seen } = answer::of_when(&rule.written.when, trace);
        let is_first = holds && decider.is_none();
        let limited = rule.written.limited.as_ref().filter(|_| is_first && reached.contains(&rule.limit_id));
        let steps_back = limited.is_some_and(|limited| limited.then == Then::Next);
        let word = match (holds, is_first && !steps_back) {
            (false, _) => "no ",
            (true, true) => "YES",
            (true, false) => "yes",
        };
        let _ = writeln!(out, "  {:width$}  {word}  {seen}", rule.written.name);
        if let Some(limited) = limited {
            let text = format!("its limit {} is reached: {}", rate(limited), beyond(limited));
            let _ = writeln!(out, "  {:width$}       {text}", "");
        } else if is_first {
            out.push_str(&notes(&rule.written, randomness, width));
        }
        if is_first && !steps_back {
            decider = Some(&rule.written);
        }
    }
    if decider.is_none() {
        let _ = writeln!(out, "  {:width$}  YES  no rule matches", "otherwise");
        out.push_str(&share_note(policy.otherwise, randomness, width));
    }
    let _ = writeln!(out, "{}", outcome(policy, &verdict, decider));
    out
}

fn head(trace: &DecodedTrace) -> String {
    let (id, summary) = (trace.id.to_string(), &trace.summary);
    let plural = if summary.spans == 1 { "" } else { "s" };
    let entry = match trace.entry() {
        Some(span) if summary.has_root() => format!("root {}", label(span)),
        Some(span) => format!("entry {}", label(span)),
        None => "no entry span".to_owned(),
    };
    let errors = match summary.errors {
        0 => "no error".to_owned(),
        1 => "1 error".to_owned(),
        n => format!("{n} errors"),
    };
    let length = duration(summary.duration());
    format!("trace {}…{} · {} span{plural} · {length} · {entry} · {errors}\n", &id[..8], &id[28..], summary.spans)
}

/// What else bears on the decision of the rule that decides.
fn notes(rule: &WrittenRule, randomness: Randomness, width: usize) -> String {
    let mut out = share_note(rule.keep, randomness, width);
    if let Some(limited) = &rule.limited {
        let (rate, then) = (rate(limited), beyond(limited));
        let text = format!("assumes that its limit {rate} is not reached; beyond it: {then}");
        let _ = writeln!(out, "  {:width$}       {text}", "");
    }
    out
}

fn rate(limited: &Limited) -> String {
    let each = limited.limit.each.as_ref().map(|each| format!(" for each {each}")).unwrap_or_default();
    let name = limited.shared.as_ref().map(|name| format!("`{name}` ")).unwrap_or_default();
    format!("{name}of {}{each}", limited.limit.rate)
}

fn beyond(limited: &Limited) -> String {
    match limited.then {
        Then::Otherwise => "what `otherwise` says".to_owned(),
        Then::Next => "later rules decide".to_owned(),
        Then::None => "dropped".to_owned(),
        Then::Share(threshold) => format!("{} of them", percent(threshold)),
    }
}

fn share_note(keep: Keep, randomness: Randomness, width: usize) -> String {
    let Keep::Share(threshold) = keep else { return String::new() };
    let word = if randomness.passes(threshold) { "is not below" } else { "is below" };
    let text = format!("share {}: randomness {randomness} {word} threshold {}", percent(threshold), padded(threshold));
    format!("  {:width$}       {text}\n", "")
}

/// With all 14 digits, to be compared by eye.
fn padded(threshold: Threshold) -> String {
    format!("{:014x}", threshold.bits())
}

fn percent(threshold: Threshold) -> String {
    format!("{}%", (threshold.share() * 1e8).round() / 1e6)
}

fn outcome(policy: &Policy, verdict: &Verdict, decider: Option<&WrittenRule>) -> String {
    let by = match decider {
        Some(rule) if verdict.rule != RuleId::OTHERWISE => {
            format!("by {} ({}:{})", rule.name, policy.file, rule.span.line)
        }
        _ => "by otherwise".to_owned(),
    };
    match (verdict.decision, verdict.threshold) {
        (Decision::KeepAll | Decision::KeepShare, Some(threshold)) => {
            format!("keep, ratio {}, {by}", (threshold.share() * 1e8).round() / 1e8)
        }
        (Decision::KeepAll | Decision::KeepShare, None) => format!("keep, ratio not known (`then: none`), {by}"),
        (Decision::DropShare | Decision::DropNone, _) => format!("drop, {by}"),
    }
}
