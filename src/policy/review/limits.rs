//! Limits that change nothing: P19, one that is never reached or bounds nothing, P20, a `for_each` whose traces all have
//! the same key, and P22, one that no rule uses.

use super::{Alternative, NamedLimit, Reader, WrittenRule, alternatives};
use crate::diagnostic::Span;
use crate::policy::condition::{Atom, IncompleteSet, TraceCheck};
use crate::policy::limit::{KeyPart, Limit, Rate};
use crate::policy::{Keep, Limited, Then};
use crate::trace::Incomplete;
use crate::trace::question::{Condition, Pattern, SpanScope, Test, ValuePattern, ValueTest};

/// `otherwise` is unknown where it has an error.
pub(super) fn warn_of_idle(reader: &mut Reader, rule: &WrittenRule, otherwise: Option<Keep>) {
    let Some(limited) = &rule.limited else { return };
    warn_if_beyond_keeps_as_much(reader, rule, limited, otherwise);
    // Of a shared one it is said once, and its rules together may have several keys.
    if limited.shared.is_none() {
        warn_if_total_is_reached_first(reader, &rule.name, rule.span, &limited.limit);
        warn_if_one_key(reader, (&rule.name, rule.span), &limited.limit, &alternatives(&rule.when));
    }
}

pub(super) fn warn_of_idle_shared(reader: &mut Reader, named: &NamedLimit, rules: &[WrittenRule]) {
    let NamedLimit { name, span, limit, .. } = named;
    warn_if_total_is_reached_first(reader, name, *span, limit);
    let uses = |rule: &WrittenRule| rule.limited.as_ref().is_some_and(|limited| limited.shared.as_ref() == Some(name));
    let users: Vec<&WrittenRule> = rules.iter().filter(|rule| uses(rule)).collect();
    let alternatives: Vec<Alternative<'_>> = users.iter().flat_map(|rule| alternatives(&rule.when)).collect();
    // A rule that has an error is not among them.
    if reader.has_errors() {
        return;
    }
    warn_if_one_key(reader, (name, *span), limit, &alternatives);
    if users.is_empty() {
        let help = format!("write `limit: {name}` in the rules that share it, or remove it");
        reader.warn("P22", *span, format!("no rule uses the limit `{name}`"), "bounds nothing").help(help);
    }
}

fn warn_if_total_is_reached_first(reader: &mut Reader, name: &str, span: Span, limit: &Limit) {
    let Some(each) = limit.each.as_ref().filter(|each| is_reached_first(each.total, limit.rate)) else { return };
    let title = format!("no key of `{name}` ever reaches its `limit`");
    let label = format!("`limit_total` is {} for all keys together", each.total);
    let help = format!("write a `limit_total` above `limit: {}`, or leave out `for_each`", limit.rate);
    reader.warn("P19", span, title, label).help(help);
}

/// What is beyond the limit must be fewer, or the limit is none.
fn warn_if_beyond_keeps_as_much(reader: &mut Reader, rule: &WrittenRule, limited: &Limited, otherwise: Option<Keep>) {
    let (beyond, place) = match limited.then {
        Then::Share(share) => (Keep::Share(share), "`then`"),
        Then::Otherwise => match otherwise {
            Some(keep) => (keep, "`otherwise`"),
            None => return,
        },
        Then::Next | Then::None => return,
    };
    // With `keep: none` a limit is an error already.
    if beyond.share() < rule.keep.share() || rule.keep == Keep::None {
        return;
    }
    let title = format!("the limit of `{}` bounds nothing", rule.name);
    let label = format!("keeps {}, and beyond {} {place} keeps {beyond}", rule.keep, limited.limit.rate);
    let help = "write a smaller share under `then:`, or `then: none`; or leave out the limit";
    reader.warn("P19", rule.span, title, label).help(help);
}

/// Both the bucket and the rate of `total` are used up before those of one key could be.
fn is_reached_first(total: Rate, one: Rate) -> bool {
    let of_second = |rate: Rate, period_ms: u64| u128::from(rate.amount) * u128::from(period_ms);
    let is_slower = of_second(total, one.period_ms) <= of_second(one, total.period_ms);
    total.unit == one.unit && total.amount <= one.amount && is_slower
}

/// `alternatives` are those of all rules that `limit`, which is named so, bounds.
fn warn_if_one_key(reader: &mut Reader, (name, span): (&str, Span), limit: &Limit, alternatives: &[Alternative<'_>]) {
    let Some(each) = limit.each.as_ref().filter(|_| !alternatives.is_empty()) else { return };
    let without_entry = alternatives.iter().all(Alternative::is_without_entry);
    for part in &each.parts {
        let label = match only_value(alternatives, part) {
            Some(value) => format!("`{part}` is always `{value}` here"),
            None if without_entry => "these traces have no entry span".to_owned(),
            None => continue,
        };
        let title = format!("`for_each: {part}` of `{name}` tells no traces apart");
        let help = match each.parts.len() {
            1 => "leave out `for_each` and `limit_total`: one limit for all is the same".to_owned(),
            _ => format!("leave `{part}` out of `for_each`"),
        };
        reader.warn("P20", span, title, label).help(help);
    }
}

/// The text that this part of the entry has in every trace that the rule matches, if it has.
fn only_value(alternatives: &[Alternative<'_>], part: &KeyPart) -> Option<String> {
    let mut values =
        alternatives.iter().map(|alternative| alternative.atoms.iter().find_map(|atom| value_in(atom, part)));
    let first = values.next()??;
    values.all(|value| value == Some(first)).then(|| first.to_owned())
}

fn value_in<'a>(atom: &'a Atom, part: &KeyPart) -> Option<&'a str> {
    let Atom::Span(Condition { scope: SpanScope::Entry | SpanScope::Root, tests }) = atom else { return None };
    tests.iter().find_map(|test| match (test, part) {
        (Test::Service(patterns), KeyPart::Service) | (Test::Name(patterns), KeyPart::Name) => exact(patterns),
        (Test::Attribute { keys, values }, KeyPart::Attribute(part)) if !part.of_resource && *keys == part.keys => {
            exact_value(values)
        }
        (Test::Resource { keys, values }, KeyPart::Attribute(part)) if part.of_resource && *keys == part.keys => {
            exact_value(values)
        }
        _ => None,
    })
}

fn exact_value(values: &ValueTest) -> Option<&str> {
    match values {
        ValueTest::OneOf(values) => match values.as_slice() {
            [ValuePattern::Text(Pattern::Exact(text))] => Some(text),
            _ => None,
        },
        ValueTest::Exists(_) => None,
    }
}

fn exact(patterns: &[Pattern]) -> Option<&str> {
    match patterns {
        [Pattern::Exact(text)] => Some(text),
        _ => None,
    }
}

impl Alternative<'_> {
    fn is_without_entry(&self) -> bool {
        let no_entry = IncompleteSet::of([Incomplete::NoEntry]);
        let is_so = |atom: &&Atom| matches!(atom, Atom::Trace(TraceCheck::Incomplete(set)) if *set == no_entry);
        self.atoms.iter().any(is_so)
    }
}
