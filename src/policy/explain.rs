//! One trace, rule by rule, in words.

pub mod answer;
pub mod decoded;
mod formats;
pub mod observe;
mod span_condition;

use super::limit::{Charge, Claim};
use super::parse::WrittenRule;
use super::{Case, Keep, Policy, Then};
use crate::trace::{Decision, Randomness, RuleId, Threshold, Trigger, Verdict};
use answer::label;
use observe::DecodedTrace;
use span_condition::{ConditionFinding, duration};
use std::fmt::Write;

/// Says of each trace in a text of OTLP/JSON what every rule answers and what becomes of the trace.
/// Limits are assumed not to be reached. The error says what is wrong with the text.
pub fn explain(policy: &Policy, otlp_json: &[u8]) -> Result<String, String> {
    let traces = observe::decode(otlp_json)?;
    let texts = traces.into_iter().map(|(id, spans)| explain_trace(policy, &DecodedTrace::of(id, spans, policy)));
    Ok(texts.collect::<Vec<_>>().join("\n"))
}

/// A limit that is never reached.
struct Unreached;

impl Charge for Unreached {
    fn admit(&mut self, _: &Claim<'_>) -> bool {
        true
    }
}

/// One trace, rule by rule.
pub fn explain_trace(policy: &Policy, trace: &DecodedTrace) -> String {
    let case = Case { id: trace.id, summary: &trace.summary, charged: None, stored_bytes: 0 };
    let verdict = policy.judge(&case, Trigger::Root, &mut Unreached, 0);
    let randomness = trace.summary.randomness(trace.id).0;
    let width = policy.rules.iter().map(|rule| rule.written.name.chars().count()).max().unwrap_or(0).max(9);
    let mut out = head(trace);
    let mut decider: Option<&WrittenRule> = None;
    for rule in &policy.rules {
        let ConditionFinding { holds, seen } = answer::of_when(&rule.written.when, trace);
        let word = match (holds, decider) {
            (false, _) => "no ",
            (true, None) => "YES",
            (true, Some(_)) => "yes",
        };
        let _ = writeln!(out, "  {:width$}  {word}  {seen}", rule.written.name);
        if holds && decider.is_none() {
            decider = Some(&rule.written);
            out.push_str(&notes(&rule.written, randomness, width));
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
        let each = limited.limit.each.as_ref().map(|each| format!(" for each {each}")).unwrap_or_default();
        let then = match limited.then {
            Then::Otherwise => "what `otherwise` says".to_owned(),
            Then::Next => "later rules decide".to_owned(),
            Then::None => "dropped".to_owned(),
            Then::Share(threshold) => format!("{} of them", percent(threshold)),
        };
        let rate = limited.limit.rate;
        let text = format!("assumes that its limit of {rate}{each} is not reached; beyond it: {then}");
        let _ = writeln!(out, "  {:width$}       {text}", "");
    }
    out
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
