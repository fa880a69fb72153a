//! Every condition answered in words, by looking at decoded spans: readable rather than fast, and
//! independent of the compiled masks.

use super::decoded::DecodedSpan;
use super::observe::DecodedTrace;
use super::span_condition::{ConditionFinding, duration, of_range, of_test};
use crate::policy::condition::{Atom, TraceCheck, When};
use crate::policy::pattern;
use crate::terminal::clean;
use crate::trace::question::{Condition, SpanScope, Test};
use crate::trace::{Standing, Status};

/// The first condition that fails, or what was seen for all of them.
pub fn of_when(when: &When, trace: &DecodedTrace) -> ConditionFinding {
    if when.is_empty() {
        return ConditionFinding::new(true, "every trace");
    }
    let mut seen = Vec::new();
    let parts = when.all.iter().map(|atom| of_atom(atom, trace));
    let parts = parts.chain(when.not.iter().map(|not| of_not(not, trace)));
    let parts = parts.chain((!when.any_of.is_empty()).then(|| of_any(&when.any_of, trace)));
    for answer in parts {
        if !answer.holds {
            return answer;
        }
        seen.push(answer.seen);
    }
    ConditionFinding::new(true, seen.join(", "))
}

fn of_not(not: &When, trace: &DecodedTrace) -> ConditionFinding {
    let ConditionFinding { holds, seen } = of_when(not, trace);
    ConditionFinding::new(!holds, if holds { format!("`not` holds: {seen}") } else { seen })
}

fn of_any(branches: &[When], trace: &DecodedTrace) -> ConditionFinding {
    let answers: Vec<ConditionFinding> = branches.iter().map(|branch| of_when(branch, trace)).collect();
    match answers.iter().find(|answer| answer.holds) {
        Some(answer) => answer.clone(),
        None => ConditionFinding::new(false, answers.into_iter().map(|a| a.seen).collect::<Vec<_>>().join("; ")),
    }
}

fn of_atom(atom: &Atom, trace: &DecodedTrace) -> ConditionFinding {
    match atom {
        Atom::Trace(check) => of_check(check, trace),
        Atom::Span(condition) => of_condition(condition, trace),
    }
}

fn of_check(check: &TraceCheck, trace: &DecodedTrace) -> ConditionFinding {
    let summary = &trace.summary;
    match check {
        TraceCheck::Error(wanted) => {
            let failed = trace.spans.iter().find(|span| span.is_error);
            let left_out = || trace.spans.iter().find(|span| counts_otherwise(span).is_some());
            let seen = match (failed, left_out()) {
                (Some(span), _) => format!("{} failed{}", label(span), by_errors(span)),
                (None, Some(span)) => format!("no span failed: {} is none{}", label(span), by_errors(span)),
                (None, None) => "no span failed".to_owned(),
            };
            ConditionFinding::new(failed.is_some() == *wanted, seen)
        }
        TraceCheck::Failed(wanted) => {
            let failed = summary.failed();
            let seen = match (summary.entry.standing, failed) {
                (Standing::Root, true) => "the root failed",
                (Standing::Root, false) => "the root did not fail",
                (Standing::Entry, true) => "an entry span failed",
                (Standing::Entry, false) => "no entry span failed",
                (Standing::Inner, _) => "no entry span is here",
            };
            let by_errors = trace.entry().map(by_errors).unwrap_or_default();
            ConditionFinding::new(failed == *wanted, format!("{seen}{by_errors}"))
        }
        TraceCheck::Duration(range) => {
            of_range(range, summary.duration(), &duration(summary.duration()), |d| duration(*d))
        }
        TraceCheck::Envelope(range) => {
            let shown = format!("envelope {}", duration(summary.envelope()));
            of_range(range, summary.envelope(), &shown, |d| duration(*d))
        }
        TraceCheck::SpanCount(range) => {
            let shown = format!("span count {}", summary.spans);
            of_range(range, u64::from(summary.spans), &shown, u64::to_string)
        }
        TraceCheck::Incomplete(set) => {
            let state = summary.incomplete();
            let seen = state.map_or("it is complete".to_owned(), |state| format!("it is incomplete: {}", state.word()));
            ConditionFinding::new(set.has(state), seen)
        }
    }
}

/// What of the policy's `errors` makes the span count otherwise than its status says.
fn counts_otherwise(span: &DecodedSpan) -> Option<&'static str> {
    match (span.status() == Status::Error, span.is_error) {
        (true, false) => Some("except"),
        (false, true) => Some("also"),
        _ => None,
    }
}

fn by_errors(span: &DecodedSpan) -> String {
    counts_otherwise(span).map(|key| format!(", by `errors: {key}`")).unwrap_or_default()
}

fn of_condition(condition: &Condition, trace: &DecodedTrace) -> ConditionFinding {
    let entry = trace.entry();
    let (subject, span) = match condition.scope {
        SpanScope::Any => return of_any_span(&condition.tests, trace),
        SpanScope::Entry => ("entry", entry),
        SpanScope::Root => ("root", entry.filter(|_| trace.summary.has_root())),
    };
    match span {
        None => ConditionFinding::new(false, format!("there is no {subject}")),
        Some(span) => {
            let ConditionFinding { holds, seen } = of_tests(&condition.tests, span).1;
            ConditionFinding::new(holds, format!("{subject} {seen}"))
        }
    }
}

/// A span for which all tests hold; else the span that failed last.
fn of_any_span(tests: &[Test], trace: &DecodedTrace) -> ConditionFinding {
    let mut nearest: Option<(usize, ConditionFinding, &DecodedSpan)> = None;
    for span in &trace.spans {
        let (passed, answer) = of_tests(tests, span);
        if answer.holds {
            let seen = match tests {
                [Test::Service(_)] => format!("service {}", span.service()),
                _ => format!("{}: {}", label(span), answer.seen),
            };
            return ConditionFinding::new(true, seen);
        }
        if nearest.as_ref().is_none_or(|(most, ..)| passed > *most) {
            nearest = Some((passed, answer, span));
        }
    }
    match (tests, nearest) {
        ([Test::Service(wanted)], _) => {
            let wanted: Vec<String> = wanted.iter().map(pattern::written).collect();
            ConditionFinding::new(false, format!("no span of {}", wanted.join(", ")))
        }
        (_, Some((_, answer, span))) if trace.spans.len() > 1 => {
            ConditionFinding::new(false, format!("no such span; nearest {}: {}", label(span), answer.seen))
        }
        (_, Some((_, answer, span))) => ConditionFinding::new(false, format!("{}: {}", label(span), answer.seen)),
        (_, None) => ConditionFinding::new(false, "no span"),
    }
}

/// How many tests hold before the first that fails, and the answer: that one, or all.
fn of_tests(tests: &[Test], span: &DecodedSpan) -> (usize, ConditionFinding) {
    let mut seen = Vec::new();
    for test in tests {
        let answer = of_test(test, span);
        if !answer.holds {
            return (seen.len(), answer);
        }
        seen.push(answer.seen);
    }
    (seen.len(), ConditionFinding::new(true, seen.join(", ")))
}

/// A span by its service and name.
pub(super) fn label(span: &DecodedSpan) -> String {
    format!("{} {:?}", clean(span.service()), span.span.name).trim_start().to_owned()
}
