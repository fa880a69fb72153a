//! One case on the way of every request: scan, summary, judge.

use super::case::{Expectation, TestCase};
use super::decision;
use crate::diagnostic::Span;
use crate::policy::explain::observe::DecodedTrace;
use crate::policy::explain::{by_trace, explain_reached};
use crate::policy::limit::Claim;
use crate::policy::{Charge, Keep, Policy};
use crate::scan::{Keyed, Questions, Scan, SpanBounds};
use crate::trace::{Case, Decision, Incomplete, LimitId, RuleId, Summary, Trigger, Verdict};

/// What became of a case.
#[derive(Debug)]
pub(super) struct CaseOutcome {
    pub name: String,
    /// Where its file has it.
    pub span: Span,
    /// Rules that decided the trace, or would have but for their limit.
    pub reached: Vec<RuleId>,
    pub failure: Option<Failure>,
}

/// A case that was decided otherwise than it says.
#[derive(Debug)]
pub(super) struct Failure {
    pub expected: String,
    pub decided: String,
    /// Every rule's answer.
    pub explained: String,
}

/// Limits are reached where the case says so, and nowhere else.
struct CaseLimits<'a> {
    reached: &'a [LimitId],
    asked_in_vain: Vec<RuleId>,
}

impl Charge for CaseLimits<'_> {
    fn admit(&mut self, claim: &Claim<'_>) -> bool {
        let is_reached = self.reached.contains(&claim.id);
        if is_reached {
            self.asked_in_vain.push(claim.rule);
        }
        !is_reached
    }
}

pub(super) fn judge(policy: &Policy, case: TestCase) -> CaseOutcome {
    let summary = Summary {
        limited: case.incomplete == Some(Incomplete::Limit),
        forgotten: case.incomplete == Some(Incomplete::Evicted),
        ..summarize(policy, &case.request).expect("checked when the case was read")
    };
    let mut room = CaseLimits { reached: &case.limits_reached, asked_in_vain: Vec::new() };
    let judged = Case { id: case.id, summary: &summary, charged: None, stored_bytes: summary.bytes };
    let verdict = policy.judge(&judged, Trigger::Root, &mut room, 0);
    let reached = [room.asked_in_vain, vec![verdict.rule]].concat();
    let keep = keep_of(&verdict, policy);
    let Expectation { rule, keep: wanted } = case.expect;
    let is_met = rule.is_none_or(|rule| rule == verdict.rule) && wanted.is_none_or(|wanted| wanted == keep);
    let failure = (!is_met).then(|| Failure {
        expected: decision(rule.map(|rule| name_of(rule, policy)), wanted),
        decided: decision(Some(name_of(verdict.rule, policy)), Some(keep)),
        explained: explained(policy, &case, summary),
    });
    CaseOutcome { name: case.name, span: case.span, reached, failure }
}

/// What is known of the one trace in a request; the error says why some span of it would be refused.
pub(super) fn summarize(policy: &Policy, request: &[u8]) -> Result<Summary, String> {
    let questions = Questions::compile(&policy.conditions, &[], policy.number).expect("the policy compiled");
    let questions = questions.counting_errors(policy.error_facts);
    let mut scan = Scan::new(Keyed::new(0));
    let read = scan.read(request, &questions, SpanBounds::of_bytes(u32::MAX));
    if read.is_err() || scan.rejected.total() > 0 {
        return Err("some span in it has no trace id, no span id, or is malformed".to_owned());
    }
    let mut summary = Summary::default();
    for span in &scan.spans {
        let resource = scan.scopes[span.scope as usize].resource;
        summary.observe(span, scan.resources[resource as usize].service_hash, &policy.masks);
    }
    Ok(summary)
}

/// What the verdict says of all traces like this one.
fn keep_of(verdict: &Verdict, policy: &Policy) -> Keep {
    match (verdict.decision, verdict.threshold) {
        (Decision::KeepAll, _) => Keep::All,
        (Decision::DropNone, _) => Keep::None,
        (Decision::KeepShare | Decision::DropShare, Some(share)) => Keep::Share(share),
        // With `then: none` nothing is known of how many there were; the rule is inside its limit here.
        (Decision::KeepShare | Decision::DropShare, None) => {
            policy.rules.iter().find(|rule| rule.id == verdict.rule).map_or(policy.otherwise, |rule| rule.written.keep)
        }
    }
}

fn name_of(rule: RuleId, policy: &Policy) -> &str {
    policy.rules.iter().find(|known| known.id == rule).map_or("otherwise", |rule| &rule.written.name)
}

fn explained(policy: &Policy, case: &TestCase, summary: Summary) -> String {
    let spans = by_trace(&case.request).unwrap_or_default().remove(&case.id).unwrap_or_default();
    let trace = DecodedTrace { summary, ..DecodedTrace::of(case.id, spans, policy) };
    explain_reached(policy, &trace, &case.limits_reached)
}
