//! What a person reads of tested cases.

use super::Tested;
use super::case_run::{CaseOutcome, Failure};
use crate::terminal::clean;
use std::fmt::Write;

pub(super) fn text(tested: &Tested) -> String {
    let mut out = String::new();
    for CaseOutcome { name, span, failure, .. } in &tested.outcomes {
        let Some(failure) = failure else { continue };
        let _ = writeln!(out, "FAILED  {} ({}:{})", clean(name), tested.cases, span.line);
        out.push_str(&indented(&reason(failure)));
        out.push('\n');
    }
    let uncovered: Vec<String> = tested.uncovered().map(|rule| rule.placed(&tested.policy)).collect();
    if !uncovered.is_empty() {
        let _ = writeln!(out, "no case reaches {}", uncovered.join(", "));
    }
    let (all, failed) = (tested.outcomes.len(), tested.failed());
    let reached = tested.rules.len() - uncovered.len();
    let (rules, cases) = (tested.rules.len(), &tested.cases);
    let _ = writeln!(out, "{cases}: {} passed, {failed} failed; {reached} of {rules} rules reached", all - failed);
    out
}

/// What was expected, what was decided, and why.
pub(super) fn reason(failure: &Failure) -> String {
    let Failure { expected, decided, explained } = failure;
    format!("expected {expected}\ndecided  {decided}\n{explained}")
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("        {line}\n")).collect()
}
