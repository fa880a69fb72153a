//! P18: conditions of one rule that exclude each other, so that it, or one of its alternatives, can never match.

use super::{Alternative, Errors, Reader, WrittenRule, alternatives, contradict, implies, is_apart, test_implies};
use crate::policy::condition::{Atom, IncompleteSet, TraceCheck, When};
use crate::policy::pattern;
use crate::trace::Incomplete;
use crate::trace::question::{Condition, Pattern, Range, SpanScope, Test, ValueTest};

/// Conditions that no trace meets.
struct Contradiction {
    one: &'static str,
    /// With which it cannot be met, if it can be met alone.
    other: Option<&'static str>,
    /// What the author may not have thought of.
    help: &'static str,
}

/// Warns; true if the rule as a whole can never match.
pub(super) fn warn_if_impossible(reader: &mut Reader, rule: &WrittenRule, errors: &Errors) -> bool {
    let alternatives = alternatives(&rule.when);
    let found: Vec<Option<Contradiction>> = alternatives.iter().map(|one| one.contradiction(errors)).collect();
    let is_impossible = found.iter().all(Option::is_some);
    let name = &rule.name;
    for (at, contradiction) in found.into_iter().enumerate() {
        let Some(Contradiction { one, other, help }) = contradiction else { continue };
        let label = match other {
            None => format!("no trace meets `{one}`"),
            Some(other) if one == other => format!("no trace meets `{one}` both times"),
            Some(other) => format!("no trace meets both `{one}` and `{other}`"),
        };
        let title = match is_impossible {
            true => format!("rule `{name}` can never match: no trace meets its conditions"),
            false => format!("item {} of `any_of` of rule `{name}` can never hold", at + 1),
        };
        reader.warn("P18", rule.span, title, label).help(help);
        if is_impossible {
            break;
        }
    }
    is_impossible
}

const RANGES: &str = "the ranges have no value in common: move one of the bounds, or make two rules of it";
const ONE_SPAN: &str = "both speak of one and the same span, which cannot be like both: make two rules of it";

impl Alternative<'_> {
    fn contradiction(&self, errors: &Errors) -> Option<Contradiction> {
        let empty = self.atoms.iter().find_map(|atom| alone(atom, errors));
        let pairs =
            self.atoms.iter().enumerate().flat_map(|(at, one)| self.atoms[..at].iter().map(move |two| (*two, *one)));
        let between = |(one, other): (&Atom, &Atom)| pair(one, other, errors).or_else(|| pair(other, one, errors));
        empty.or_else(|| pairs.into_iter().find_map(between)).or_else(|| self.negated(errors))
    }

    /// What a `not` forbids is what the other conditions ask for.
    fn negated(&self, errors: &Errors) -> Option<Contradiction> {
        let is_asked = |atom: &Atom| self.atoms.iter().any(|mine| implies(mine, atom, errors));
        let all_asked = |when: &When| when.all.iter().all(is_asked) && when.not.is_none();
        let is_met = |not: &&&When| all_asked(not) && (not.any_of.is_empty() || not.any_of.iter().any(all_asked));
        let not = self.nots.iter().find(is_met)?;
        let one = not.all.iter().chain(not.any_of.iter().flat_map(|branch| &branch.all)).map(key).next()?;
        Some(Contradiction {
            one,
            other: Some("not"),
            help: "`not` forbids what the other conditions ask for: remove one of them",
        })
    }
}

/// What an atom is written under.
fn key(atom: &Atom) -> &'static str {
    match atom {
        Atom::Trace(TraceCheck::Error(_)) => "error",
        Atom::Trace(TraceCheck::Failed(_)) => "failed",
        Atom::Trace(TraceCheck::Duration(_)) => "duration",
        Atom::Trace(TraceCheck::Envelope(_)) => "envelope",
        Atom::Trace(TraceCheck::SpanCount(_)) => "span_count",
        Atom::Trace(TraceCheck::Incomplete(_)) => "incomplete",
        Atom::Span(Condition { scope: SpanScope::Root, .. }) => "root",
        Atom::Span(Condition { scope: SpanScope::Entry, .. }) => "entry",
        Atom::Span(Condition { tests, .. }) => match tests.as_slice() {
            [Test::TraceState { .. }] => "trace_state",
            [Test::Service(_)] => "services",
            _ => "any_span",
        },
    }
}

fn alone(atom: &Atom, errors: &Errors) -> Option<Contradiction> {
    match atom {
        Atom::Trace(TraceCheck::Error(true) | TraceCheck::Failed(true))
            if errors.except.iter().any(|except| errors.leaves_none(except)) =>
        {
            let help = "`except` of `errors` leaves no error at all: write there which errors do not count";
            Some(Contradiction { one: key(atom), other: None, help })
        }
        Atom::Trace(TraceCheck::Error(false)) if errors.surely_count(&[]) => {
            let help = "`also` of `errors` makes an error of every span: write there which spans are errors";
            Some(Contradiction { one: key(atom), other: None, help })
        }
        Atom::Trace(TraceCheck::SpanCount(range)) if range.below == Some(1) => {
            let help = "every trace has a span: write at least `below: 2`";
            Some(Contradiction { one: "span_count", other: None, help })
        }
        _ => None,
    }
}

/// In this order only; the caller asks for the other too.
fn pair(one: &Atom, other: &Atom, errors: &Errors) -> Option<Contradiction> {
    let help = match (one, other) {
        (Atom::Trace(TraceCheck::Duration(long)), Atom::Trace(TraceCheck::Envelope(short)))
            if is_above(long.at_least, short.below) =>
        {
            "from the first start to the last end it takes at least as long as any of its spans"
        }
        (Atom::Trace(a), Atom::Trace(b)) if contradict(one, other) => match (a, b) {
            (TraceCheck::Error(_) | TraceCheck::Failed(_), _) => {
                "one asks for what the other leaves out, and a trace whose root failed has an error: remove one"
            }
            _ => RANGES,
        },
        (Atom::Span(span), Atom::Trace(check)) => span_and_trace(span, check, errors)?,
        (Atom::Span(a), Atom::Span(b)) if are_one_span(a, b) && exclude(&a.tests, &b.tests) => ONE_SPAN,
        _ => return None,
    };
    Some(Contradiction { one: key(one), other: Some(key(other)), help })
}

fn is_above(low: Option<u64>, high: Option<u64>) -> bool {
    matches!((low, high), (Some(low), Some(high)) if low >= high)
}

/// A condition on some span, and one on the trace.
fn span_and_trace(span: &Condition, check: &TraceCheck, errors: &Errors) -> Option<&'static str> {
    let counts = errors.surely_count(&span.tests);
    let at_least = span.tests.iter().find_map(|test| match test {
        Test::Duration(range) => range.at_least,
        _ => None,
    });
    let is_entry = span.scope != SpanScope::Any;
    match check {
        TraceCheck::Error(false) if counts => Some(match errors.is_empty() {
            true => "a span with `status: error` is an error of its trace: remove one of them",
            false => {
                "a span like this counts as an error of its trace, by its status or by `errors`: remove one of them"
            }
        }),
        TraceCheck::Failed(false) if counts && is_entry => Some(match errors.is_empty() {
            true => "a trace whose root or entry span has `status: error` has failed: remove one of them",
            false => {
                "a trace with such a root or entry span has failed, by its status or by `errors`: remove one of them"
            }
        }),
        TraceCheck::Failed(true) if span.scope == SpanScope::Root && errors.surely_leave_out(&span.tests) => {
            Some("`except` of `errors` leaves out a root like this, so its trace has not failed: remove one of the two")
        }
        TraceCheck::Envelope(range) if is_above(at_least, range.below) => {
            Some("from the first start to the last end a trace takes at least as long as any of its spans")
        }
        // The root is the earliest one, and without a root the longest entry span counts.
        TraceCheck::Duration(range) if is_entry && is_above(at_least, range.below) => {
            Some("a trace takes at least as long as its entry span: its duration is that of the root")
        }
        TraceCheck::Duration(range) if span.scope == SpanScope::Root && is_apart_from(span, range) => Some(RANGES),
        TraceCheck::Incomplete(set) if is_entry && *set == IncompleteSet::of([Incomplete::NoEntry]) => {
            Some("`no_entry` are the traces without an entry span, so they have no root either: ask for `any_span`")
        }
        _ => None,
    }
}

fn is_apart_from(span: &Condition, range: &Range<u64>) -> bool {
    span.tests.iter().any(|test| matches!(test, Test::Duration(own) if is_apart(own, range)))
}

/// A trace has one entry, and the root is it where there is one.
fn are_one_span(a: &Condition, b: &Condition) -> bool {
    a.scope != SpanScope::Any && b.scope != SpanScope::Any
}

/// No span meets the tests of both.
pub(super) fn exclude(a: &[Test], b: &[Test]) -> bool {
    a.iter().any(|a| b.iter().any(|b| tests_exclude(a, b)))
}

fn tests_exclude(a: &Test, b: &Test) -> bool {
    match (a, b) {
        (Test::Service(a), Test::Service(b))
        | (Test::Name(a), Test::Name(b))
        | (Test::StatusMessage(a), Test::StatusMessage(b)) => {
            let texts = |patterns: &[Pattern]| patterns.iter().all(|pattern| matches!(pattern, Pattern::Exact(_)));
            // A pattern is met by what the other names, or by nothing of it.
            let (named, others) = if texts(a) { (a, b) } else { (b, a) };
            texts(named) && !named.iter().any(|name| others.iter().any(|p| pattern::covers_one(p, name)))
        }
        (Test::SpanKind(a), Test::SpanKind(b)) => !a.iter().any(|kind| b.contains(kind)),
        (Test::Status(a), Test::Status(b)) => !a.iter().any(|status| b.contains(status)),
        (Test::Duration(a), Test::Duration(b)) => is_apart(a, b),
        (Test::Attribute { values: ValueTest::Exists(false), .. }, _) => {
            matches!(b, Test::Attribute { .. }) && test_implies(b, &exists(a))
        }
        (_, Test::Attribute { values: ValueTest::Exists(false), .. }) => {
            matches!(a, Test::Attribute { .. }) && test_implies(a, &exists(b))
        }
        _ => false,
    }
}

/// That the attribute of `test` is there.
fn exists(test: &Test) -> Test {
    match test {
        Test::Attribute { keys, .. } => Test::Attribute { keys: keys.clone(), values: ValueTest::Exists(true) },
        other => other.clone(),
    }
}
