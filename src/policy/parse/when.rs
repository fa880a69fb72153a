//! `when:` and the conditions in it.

use super::super::condition::{Atom, IncompleteSet, TraceCheck, When};
use super::super::renamed;
use super::value;
use crate::trace::question::{Condition, SpanScope, Test};
use crate::trace::{SpanKind, Status};
use crate::yaml::{MappingEntry, Node, Reader, Shape, Value};

pub(super) const TRACE_KEYS: &[&str] = &[
    "error",
    "failed",
    "duration",
    "envelope",
    "span_count",
    "services",
    "root",
    "entry",
    "any_span",
    "not",
    "any_of",
    "trace_state",
    "incomplete",
];
pub(super) const SPAN_KEYS: &[&str] =
    &["service", "name", "kind", "status", "status_message", "duration", "attributes", "resource", "events"];

/// What a mapping of conditions stands in.
#[derive(Clone, Copy, Default)]
struct Inside {
    not: bool,
    any_of: bool,
}

pub(super) fn when(reader: &mut Reader, node: &Node) -> Option<When> {
    conditions(reader, node, "`when`", Inside::default())
}

/// The conditions of `when`, `not` or one item of `any_of`. `None` if one of them is wrong.
fn conditions(reader: &mut Reader, node: &Node, what: &str, inside: Inside) -> Option<When> {
    let map = reader.map_or(node, what, TRACE_KEYS, |reader, entry| unknown_trace_key(reader, entry, what))?;
    if map.entries.is_empty() {
        let help = if what == "`when`" { "leave out `when:` to match every trace" } else { "write a condition" };
        reader.error("P10", node.span, format!("{what} has no condition"), "nothing here").help(help);
        return None;
    }
    let mut when = When::default();
    let mut complete = true;
    for entry in map.entries {
        let read = match entry.key.as_str() {
            "not" => not(reader, entry, inside).map(|not| when.not = Some(Box::new(not))),
            "any_of" => any_of(reader, entry, inside).map(|branches| when.any_of = branches),
            "trace_state" => trace_state(reader, &entry.value).map(|atoms| when.all.extend(atoms)),
            key if TRACE_KEYS.contains(&key) => atom(reader, entry).map(|atom| when.all.push(atom)),
            _ => None,
        };
        complete &= read.is_some();
    }
    complete.then_some(when)
}

/// What some one span is like.
pub(super) fn one_span(reader: &mut Reader, node: &Node, what: &str) -> Option<Condition> {
    span(reader, node, what, SpanScope::Any)
}

fn unknown_trace_key(reader: &mut Reader, entry: &MappingEntry, what: &str) {
    let key = entry.key.as_str();
    if reader.is_foreign(key, TRACE_KEYS) {
        reader.unknown_key(entry, what, TRACE_KEYS);
    } else if SPAN_KEYS.contains(&key) {
        reader
            .error("P03", entry.key_span, format!("`{key}` is of a span, not of a trace"), "say of which span")
            .help(format!("write `any_span: {{ {key}: … }}`, or `entry:` or `root:` for that span alone"));
    } else if key.contains('.') {
        reader
            .error("P03", entry.key_span, format!("`{key}` is not a condition on a trace"), "attributes are of a span")
            .help(format!("write `any_span: {{ attributes: {{ {key}: … }} }}`"));
    } else {
        reader.unknown_key(entry, what, TRACE_KEYS);
    }
}

fn not(reader: &mut Reader, entry: &MappingEntry, inside: Inside) -> Option<When> {
    if inside.not {
        reader
            .error("P10", entry.key_span, "a `not` stands inside a `not`", "the two cancel out")
            .help("write its conditions without either");
        return None;
    }
    conditions(reader, &entry.value, "`not`", Inside { not: true, ..inside })
}

fn any_of(reader: &mut Reader, entry: &MappingEntry, inside: Inside) -> Option<Vec<When>> {
    if inside.any_of {
        reader
            .error("P10", entry.key_span, "an `any_of` stands inside an `any_of`", "one level only")
            .help("write its items into the outer list, or make two rules");
        return None;
    }
    let items = reader.list(&entry.value, "`any_of`")?;
    if items.is_empty() {
        return reader.wrong_shape(&entry.value, "`any_of`", Shape::OneOrMore);
    }
    let branch = |item| conditions(reader, item, "an item of `any_of`", Inside { any_of: true, ..inside });
    let branches: Vec<Option<When>> = items.iter().map(branch).collect();
    branches.into_iter().collect()
}

fn atom(reader: &mut Reader, entry: &MappingEntry) -> Option<Atom> {
    let (node, what) = (&entry.value, format!("`{}`", entry.key));
    Some(match entry.key.as_str() {
        "error" => Atom::Trace(TraceCheck::Error(reader.bool(node, &what)?)),
        "failed" => Atom::Trace(TraceCheck::Failed(reader.bool(node, &what)?)),
        "duration" => Atom::Trace(TraceCheck::Duration(value::durations(reader, node, &what)?)),
        "envelope" => Atom::Trace(TraceCheck::Envelope(value::durations(reader, node, &what)?)),
        "span_count" => Atom::Trace(TraceCheck::SpanCount(value::counts(reader, node, &what)?)),
        "incomplete" => Atom::Trace(TraceCheck::Incomplete(incomplete(reader, node)?)),
        "services" => {
            let tests = vec![Test::Service(value::patterns(reader, node, &what)?)];
            Atom::Span(Condition { scope: SpanScope::Any, tests })
        }
        "root" => Atom::Span(span(reader, node, &what, SpanScope::Root)?),
        "entry" => Atom::Span(span(reader, node, &what, SpanScope::Entry)?),
        _ => Atom::Span(span(reader, node, &what, SpanScope::Any)?),
    })
}

fn incomplete(reader: &mut Reader, node: &Node) -> Option<IncompleteSet> {
    let is_words = match &node.value {
        Value::List(_) => true,
        Value::Scalar(scalar) => IncompleteSet::WORDS.iter().any(|(word, _)| *word == scalar.text),
        Value::Map(_) | Value::Refused => false,
    };
    if !is_words {
        return reader.bool(node, "`incomplete`").map(IncompleteSet::from_bool);
    }
    let items = reader.one_or_more(node, "`incomplete`")?;
    let states: Vec<_> = items.iter().map(|item| reader.word(item, "`incomplete`", &IncompleteSet::WORDS)).collect();
    states.into_iter().collect::<Option<Vec<_>>>().map(IncompleteSet::of)
}

/// One condition a key: each may hold on a span of its own.
fn trace_state(reader: &mut Reader, node: &Node) -> Option<Vec<Atom>> {
    let map = reader.any_map(node, "`trace_state`")?;
    if map.entries.is_empty() {
        return reader.wrong_shape(node, "`trace_state`", Shape::Map(&[]));
    }
    let mut condition = |MappingEntry { key, value: node, .. }: &MappingEntry| {
        let values = value::patterns(reader, node, &format!("`{key}`"))?;
        Some(Atom::Span(Condition {
            scope: SpanScope::Any,
            tests: vec![Test::TraceState { key: key.clone(), values }],
        }))
    };
    // All are read before any is missed, so that every problem is reported.
    let atoms: Vec<Option<Atom>> = map.entries.iter().map(&mut condition).collect();
    atoms.into_iter().collect()
}

fn span(reader: &mut Reader, node: &Node, what: &str, scope: SpanScope) -> Option<Condition> {
    let map = reader.map_or(node, what, SPAN_KEYS, |reader, entry| unknown_span_key(reader, entry, what))?;
    if map.entries.is_empty() {
        let help = match scope {
            SpanScope::Any => "write what the span must be, like `service: shop`",
            _ => "write what the span must be; for traces without an entry write `incomplete: [no_entry]`",
        };
        reader.error("P10", node.span, format!("{what} has no condition"), "nothing here").help(help);
        return None;
    }
    let mut tests = Vec::new();
    let mut complete = map.entries.iter().all(|entry| SPAN_KEYS.contains(&entry.key.as_str()));
    // In the order of the fields, not of the file: equal conditions then are equal.
    for key in SPAN_KEYS {
        let Some(entry) = map.entry(key) else { continue };
        match span_tests(reader, entry) {
            Some(more) => tests.extend(more),
            None => complete = false,
        }
    }
    complete.then_some(Condition { scope, tests })
}

fn unknown_span_key(reader: &mut Reader, entry: &MappingEntry, what: &str) {
    let key = entry.key.as_str();
    if reader.is_foreign(key, SPAN_KEYS) {
        reader.unknown_key(entry, what, SPAN_KEYS);
    } else if key.contains('.') {
        reader
            .error("P03", entry.key_span, format!("`{key}` is not a span field"), "attributes go under `attributes:`")
            .help(format!("write `attributes: {{ {key}: … }}`"));
    } else if TRACE_KEYS.contains(&key) {
        reader.error("P03", entry.key_span, format!("`{key}` is of a trace, not of a span"), "not of a span").help(
            match what.strip_prefix("an item of ") {
                None => format!("move it up, beside {what}"),
                Some(list) => {
                    format!("{list} asks of one span, not of its trace: `service`, `status`, `attributes`, …")
                }
            },
        );
    } else {
        reader.unknown_key(entry, what, SPAN_KEYS);
    }
}

fn span_tests(reader: &mut Reader, entry: &MappingEntry) -> Option<Vec<Test>> {
    let (node, what) = (&entry.value, format!("`{}`", entry.key));
    Some(match entry.key.as_str() {
        "service" => vec![Test::Service(value::patterns(reader, node, &what)?)],
        "name" => vec![Test::Name(value::patterns(reader, node, &what)?)],
        "events" => vec![Test::Event(value::patterns(reader, node, &what)?)],
        "kind" => vec![Test::SpanKind(words(reader, node, &what, &SpanKind::ALL.map(|kind| (kind.word(), kind)))?)],
        "status" => vec![Test::Status(words(reader, node, &what, &Status::ALL.map(|status| (status.word(), status)))?)],
        "status_message" => vec![Test::StatusMessage(value::patterns(reader, node, &what)?)],
        "duration" => vec![Test::Duration(value::durations(reader, node, &what)?)],
        "attributes" => attributes(reader, node, &what, |keys, values| Test::Attribute { keys, values })?,
        _ => attributes(reader, node, &what, |keys, values| Test::Resource { keys, values })?,
    })
}

fn words<T: Copy>(reader: &mut Reader, node: &Node, what: &str, words: &[(&str, T)]) -> Option<Vec<T>> {
    let items = reader.one_or_more(node, what)?;
    let read: Vec<Option<T>> = items.iter().map(|item| reader.word(item, what, words)).collect();
    read.into_iter().collect()
}

fn attributes(
    reader: &mut Reader,
    node: &Node,
    what: &str,
    test: impl Fn(Vec<String>, crate::trace::question::ValueTest) -> Test,
) -> Option<Vec<Test>> {
    let map = reader.any_map(node, what)?;
    if map.entries.is_empty() {
        return reader.wrong_shape(node, what, Shape::Map(&[]));
    }
    let mut entries: Vec<&MappingEntry> = map.entries.iter().collect();
    entries.sort_by_key(|entry| &entry.key);
    let values: Vec<_> = entries.iter().map(|entry| value::value_test(reader, &entry.key, &entry.value)).collect();
    let tests = entries.iter().zip(values).map(|(entry, values)| Some(test(renamed::names_of(&entry.key), values?)));
    tests.collect()
}
