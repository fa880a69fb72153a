//! What is allowed, but probably not what the author wants: P11, a rule that comes too late to match, P12, a
//! `next` that leads to an unlimited `keep: all`, P18, conditions that exclude each other, P19, P20 and P22, limits that
//! change nothing, P23, items of `errors` that do not either, or leave no error.
//!
//! All compare without knowing any trace, so they speak only when it is plain.

mod contradiction;
mod errors;
mod limits;

use super::condition::{Atom, TraceCheck, When};
use super::parse::{Document, NamedLimit, WrittenRule};
use super::{Errors, Keep, Then, pattern};
use crate::trace::question::{Condition, Range, SpanScope, Test, ValuePattern, ValueTest};
use crate::trace::{SpanKind, Status};
use crate::yaml::Reader;

pub(super) fn review(reader: &mut Reader, document: &Document) {
    let Document { errors, errors_at, limits, rules, otherwise, .. } = document;
    errors::warn_of_idle(reader, errors, errors_at);
    limits.iter().for_each(|limit| limits::warn_of_idle_shared(reader, limit, rules));
    for (at, rule) in rules.iter().enumerate() {
        if contradiction::warn_if_impossible(reader, rule, errors) {
            continue;
        }
        warn_if_never_reached(reader, rule, &rules[..at], errors);
        limits::warn_of_idle(reader, rule, *otherwise);
        warn_if_next_is_unlimited(reader, rule, &rules[at + 1..]);
    }
}

fn warn_if_never_reached(reader: &mut Reader, rule: &WrittenRule, earlier: &[WrittenRule], errors: &Errors) {
    let lets_none_pass = |earlier: &&WrittenRule| earlier.limited.as_ref().is_none_or(|it| it.then != Then::Next);
    let takers: Vec<&WrittenRule> = earlier.iter().filter(lets_none_pass).collect();
    let taker_of = |alternative: &Alternative<'_>| {
        takers
            .iter()
            .find(|taker| alternatives(&taker.when).iter().any(|taken| alternative.is_within(taken, errors)))
            .copied()
    };
    let takers: Option<Vec<&WrittenRule>> = alternatives(&rule.when).iter().map(taker_of).collect();
    let Some(taker) = takers.and_then(|takers| takers.first().copied()) else { return };
    let title = format!("rule `{}` can never match", rule.name);
    let takes = if taker.when.is_empty() { "takes every trace" } else { "takes all that this rule matches" };
    let (limit, help) = match taker.limited {
        None => ("has no limit", format!("move it above `{}`", taker.name)),
        Some(_) => {
            let help = format!("move it above `{0}`, or write `then: next` in `{0}`", taker.name);
            ("decides beyond its limit too", help)
        }
    };
    reader
        .warn("P11", rule.span, title, "comes too late")
        .other(taker.span, format!("{takes}, and {limit}"))
        .help(help);
}

fn warn_if_next_is_unlimited(reader: &mut Reader, rule: &WrittenRule, later: &[WrittenRule]) {
    let Some(limited) = rule.limited.as_ref().filter(|limited| limited.then == Then::Next) else { return };
    let mine = alternatives(&rule.when);
    let meets = |other: &&WrittenRule| {
        let theirs = alternatives(&other.when);
        mine.iter().any(|mine| theirs.iter().any(|theirs| !mine.excludes(theirs)))
    };
    let is_unlimited = |other: &&WrittenRule| other.keep == Keep::All && other.limited.is_none();
    let Some(other) = later.iter().filter(is_unlimited).find(meets) else { return };
    let title = format!("the limit of `{}` does not bound what is kept", rule.name);
    let rate = limited.limit.rate;
    reader
        .warn("P12", rule.span, title, format!("beyond {rate}, later rules decide"))
        .other(other.span, "keeps all that it matches, without a limit")
        .help(format!("give `{}` a limit if the number of kept traces must be bounded", other.name));
}

/// One way in which a rule can match: all atoms hold, and none of the negated groups.
#[derive(Clone, Default)]
pub(super) struct Alternative<'a> {
    pub(super) atoms: Vec<&'a Atom>,
    nots: Vec<&'a When>,
}

/// Every way in which `when` can hold.
pub(super) fn alternatives(when: &When) -> Vec<Alternative<'_>> {
    let base =
        Alternative { atoms: when.all.iter().collect(), nots: when.not.iter().map(|not| not.as_ref()).collect() };
    if when.any_of.is_empty() {
        return vec![base];
    }
    let mut all = Vec::new();
    for branch in when.any_of.iter().flat_map(alternatives) {
        all.push(Alternative {
            atoms: base.atoms.iter().copied().chain(branch.atoms).collect(),
            nots: base.nots.iter().copied().chain(branch.nots).collect(),
        });
    }
    all
}

impl Alternative<'_> {
    /// Whatever this alternative matches, `wide` matches.
    fn is_within(&self, wide: &Alternative<'_>, errors: &Errors) -> bool {
        let is_met = |wide: &Atom| self.atoms.iter().any(|narrow| implies(narrow, wide, errors));
        wide.atoms.iter().all(|wide| holds_of_every_trace(wide) || is_met(wide))
            && wide.nots.iter().all(|not| self.nots.contains(not))
    }

    /// No trace matches both.
    fn excludes(&self, other: &Alternative<'_>) -> bool {
        self.atoms.iter().any(|mine| other.atoms.iter().any(|theirs| contradict(mine, theirs)))
    }
}

/// Every trace for which `narrow` holds is one for which `wide` holds.
fn implies(narrow: &Atom, wide: &Atom, errors: &Errors) -> bool {
    match (narrow, wide) {
        (Atom::Trace(narrow), Atom::Trace(wide)) => check_implies(narrow, wide),
        (Atom::Span(narrow), Atom::Span(wide)) => span_implies(narrow, wide),
        (Atom::Span(narrow), Atom::Trace(TraceCheck::Error(true))) => errors.surely_count(&narrow.tests),
        _ => false,
    }
}

fn check_implies(narrow: &TraceCheck, wide: &TraceCheck) -> bool {
    match (narrow, wide) {
        (TraceCheck::Failed(true), TraceCheck::Error(true)) | (TraceCheck::Error(false), TraceCheck::Failed(false)) => {
            true
        }
        (TraceCheck::Duration(narrow), TraceCheck::Duration(wide)) => is_within(narrow, wide),
        (TraceCheck::Envelope(narrow), TraceCheck::Envelope(wide)) => is_within(narrow, wide),
        (TraceCheck::SpanCount(narrow), TraceCheck::SpanCount(wide)) => is_within(narrow, wide),
        (TraceCheck::Incomplete(narrow), TraceCheck::Incomplete(wide)) => narrow.is_within(*wide),
        _ => narrow == wide,
    }
}

fn contradict(a: &Atom, b: &Atom) -> bool {
    let (Atom::Trace(a), Atom::Trace(b)) = (a, b) else { return false };
    match (a, b) {
        (TraceCheck::Error(a), TraceCheck::Error(b)) | (TraceCheck::Failed(a), TraceCheck::Failed(b)) => a != b,
        (TraceCheck::Failed(true), TraceCheck::Error(false)) | (TraceCheck::Error(false), TraceCheck::Failed(true)) => {
            true
        }
        (TraceCheck::Duration(a), TraceCheck::Duration(b)) => is_apart(a, b),
        (TraceCheck::Envelope(a), TraceCheck::Envelope(b)) => is_apart(a, b),
        (TraceCheck::SpanCount(a), TraceCheck::SpanCount(b)) => is_apart(a, b),
        (TraceCheck::Incomplete(a), TraceCheck::Incomplete(b)) => a.is_disjoint(*b),
        _ => false,
    }
}

fn is_within<T: PartialOrd + Copy>(narrow: &Range<T>, wide: &Range<T>) -> bool {
    let low = wide.at_least.is_none_or(|wide| narrow.at_least.is_some_and(|narrow| narrow >= wide));
    let high = wide.below.is_none_or(|wide| narrow.below.is_some_and(|narrow| narrow <= wide));
    low && high
}

fn is_apart<T: PartialOrd + Copy>(a: &Range<T>, b: &Range<T>) -> bool {
    let ends_before =
        |a: &Range<T>, b: &Range<T>| matches!((a.below, b.at_least), (Some(end), Some(start)) if end <= start);
    ends_before(a, b) || ends_before(b, a)
}

/// The root is the entry where there is one, and both are some span.
fn span_implies(narrow: &Condition, wide: &Condition) -> bool {
    let scope = matches!(
        (narrow.scope, wide.scope),
        (_, SpanScope::Any)
            | (SpanScope::Entry | SpanScope::Root, SpanScope::Entry)
            | (SpanScope::Root, SpanScope::Root)
    );
    scope && tests_imply(&narrow.tests, &wide.tests)
}

fn tests_imply(narrow: &[Test], wide: &[Test]) -> bool {
    wide.iter().all(|wide| holds_of_every_span(wide) || narrow.iter().any(|narrow| test_implies(narrow, wide)))
}

/// As far as it is plain. (A trace has a span, and may have no entry.)
fn holds_of_every_trace(atom: &Atom) -> bool {
    matches!(atom, Atom::Span(Condition { scope: SpanScope::Any, tests }) if tests.iter().all(holds_of_every_span))
}

/// As far as it is plain. (SDKs set `service.name` always.)
pub(super) fn holds_of_every_span(test: &Test) -> bool {
    match test {
        Test::Service(patterns) | Test::Name(patterns) => patterns.iter().any(pattern::is_any),
        Test::SpanKind(kinds) => SpanKind::ALL.iter().all(|kind| kinds.contains(kind)),
        Test::Status(words) => Status::ALL.iter().all(|status| words.contains(status)),
        Test::Duration(range) => range.at_least.is_none_or(|low| low == 0) && range.below.is_none(),
        Test::Resource { keys, values } if keys.iter().any(|key| key == "service.name") => match values {
            ValueTest::Exists(there) => *there,
            ValueTest::OneOf(values) => {
                values.iter().any(|value| matches!(value, ValuePattern::Text(text) if pattern::is_any(text)))
            }
        },
        _ => false,
    }
}

fn test_implies(narrow: &Test, wide: &Test) -> bool {
    match (narrow, wide) {
        (Test::Service(narrow), Test::Service(wide))
        | (Test::Name(narrow), Test::Name(wide))
        | (Test::StatusMessage(narrow), Test::StatusMessage(wide))
        | (Test::Event(narrow), Test::Event(wide)) => pattern::covers(wide, narrow),
        (Test::SpanKind(narrow), Test::SpanKind(wide)) => narrow.iter().all(|kind| wide.contains(kind)),
        (Test::Status(narrow), Test::Status(wide)) => narrow.iter().all(|status| wide.contains(status)),
        (Test::Duration(narrow), Test::Duration(wide)) => is_within(narrow, wide),
        (Test::Attribute { keys: a, values: narrow }, Test::Attribute { keys: b, values: wide })
        | (Test::Resource { keys: a, values: narrow }, Test::Resource { keys: b, values: wide }) => {
            a.iter().all(|key| b.contains(key)) && values_imply(narrow, wide)
        }
        _ => narrow == wide,
    }
}

fn values_imply(narrow: &ValueTest, wide: &ValueTest) -> bool {
    match (narrow, wide) {
        (ValueTest::OneOf(_), ValueTest::Exists(true)) => true,
        (ValueTest::OneOf(narrow), ValueTest::OneOf(wide)) => {
            narrow.iter().all(|narrow| wide.iter().any(|wide| value_implies(narrow, wide)))
        }
        _ => narrow == wide,
    }
}

fn value_implies(narrow: &ValuePattern, wide: &ValuePattern) -> bool {
    match (narrow, wide) {
        (ValuePattern::Text(narrow), ValuePattern::Text(wide)) => pattern::covers_one(wide, narrow),
        (ValuePattern::Number(number), ValuePattern::Range(range)) => range.contains(*number),
        (ValuePattern::Range(narrow), ValuePattern::Range(wide)) => is_within(narrow, wide),
        _ => narrow == wide,
    }
}
