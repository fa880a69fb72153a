//! The policy language, read straight from its definition: the YAML tree is interpreted anew for every
//! trace, nothing is compiled, and time passes millisecond by millisecond. Slow and plain on purpose; it
//! shares nothing with the compiled policy but the YAML tree itself.

use crate::span::{TestSpan, TestTrace, Val};
use std::collections::HashMap;
use tailkeep::trace::Status;
use tailkeep::yaml::{MappingEntry, Node, Value, parse};

/// What becomes of a trace.
#[derive(Clone, PartialEq, Debug)]
pub struct Outcome {
    pub kept: bool,
    /// The name of the rule that spoke.
    pub rule: String,
    /// The share that the trace stands for; none if it is not known, or nothing was shared.
    pub share: Option<f64>,
    /// The limit that it was charged to, by the name of its rule or its own.
    pub charged: Option<String>,
}

pub struct Reference {
    root: Node,
    buckets: HashMap<String, Bucket>,
}

struct Bucket {
    level: i128,
    at_ms: u64,
}

impl Reference {
    pub fn new(text: &str) -> Reference {
        Reference { root: parse(text).0.expect("a tree"), buckets: HashMap::new() }
    }

    pub fn judge(&mut self, trace: &TestTrace, charged: Option<&str>, now_ms: u64) -> Outcome {
        let root = self.root.clone();
        let counted = |span: &TestSpan| TestSpan { is_error: is_error(&root, span), ..span.clone() };
        let trace = &TestTrace { spans: trace.spans.iter().map(counted).collect(), ..trace.clone() };
        let otherwise = get(&root, "otherwise").expect("otherwise");
        let mut before = charged.map(str::to_owned);
        for rule in get(&root, "rules").map_or(&[][..], items) {
            if !get(rule, "when").is_none_or(|when| all_hold(when, trace)) {
                continue;
            }
            let name = text(get(rule, "name").expect("a name")).to_owned();
            let keep = text(get(rule, "keep").expect("keep"));
            let Some(limit) = get(rule, "limit") else { return decide(keep, &name, trace, before) };
            // What is counted, and under which name.
            let shared = get(&root, "limits").and_then(|limits| get(limits, text(limit)));
            let (limits, limit_name) = shared.map_or((rule, name.as_str()), |shared| (shared, text(limit)));
            let then = get(rule, "then").or_else(|| get(limits, "then")).map_or("otherwise", text);
            let is_charged = before.as_deref() == Some(limit_name);
            let inside = decide(keep, &name, trace, before.clone());
            if is_charged || self.has_room(limits, limit_name, trace, now_ms) {
                if inside.kept && !is_charged {
                    self.charge(limits, limit_name, trace, now_ms);
                }
                if inside.kept {
                    before = Some(limit_name.to_owned());
                }
                let share = inside.share.filter(|_| then != "none");
                return Outcome { share, charged: before, ..inside };
            }
            match then {
                "next" => continue,
                "otherwise" => break,
                share_or_none => return decide(share_or_none, &name, trace, before),
            }
        }
        decide(text(get(otherwise, "keep").expect("keep")), "otherwise", trace, before)
    }

    /// The buckets that a trace must pass: each with its name and its rate. The keys stand in a rule or in one of
    /// `limits`, where a rate may stand alone.
    fn ways<'n>(&self, limits: &'n Node, name: &str, trace: &TestTrace) -> Vec<(String, &'n str)> {
        let rate = text(get(limits, "limit").unwrap_or(limits));
        let Some(each) = get(limits, "for_each") else { return vec![(name.to_owned(), rate)] };
        let entry = entry_of(trace);
        let parts: Vec<String> = items(each)
            .iter()
            .map(|part| match (text(part), entry) {
                (_, None) => String::new(),
                ("entry.service", Some(entry)) => entry.service.clone(),
                ("entry.name", Some(entry)) => entry.name.clone(),
                (part, Some(entry)) => match part.strip_prefix("entry.resource.") {
                    Some(key) => read(key, &entry.resource),
                    None => read(part.strip_prefix("entry.attributes.").expect("an attribute"), &entry.attributes),
                },
            })
            .collect();
        let total = text(get(limits, "limit_total").expect("limit_total"));
        vec![(format!("{name} total"), total), (format!("{name} of {}", parts.join("|")), rate)]
    }

    fn has_room(&mut self, limits: &Node, name: &str, trace: &TestTrace, now_ms: u64) -> bool {
        let ways = self.ways(limits, name, trace);
        ways.into_iter().all(|(bucket, rate)| {
            let (_, period) = amount_and_period(rate);
            self.level_at(&bucket, rate, now_ms) >= period
        })
    }

    fn charge(&mut self, limits: &Node, name: &str, trace: &TestTrace, now_ms: u64) {
        for (bucket, rate) in self.ways(limits, name, trace) {
            self.level_at(&bucket, rate, now_ms);
            let (_, period) = amount_and_period(rate);
            let taken = match rate {
                rate if rate.contains("spans") => trace.spans.len() as i128,
                rate if rate.contains('B') => i128::from(trace.stored_bytes),
                _ => 1,
            };
            self.buckets.get_mut(&bucket).expect("it was looked at").level -= taken * period;
        }
    }

    /// In units of 1 / period: every millisecond brings the amount.
    fn level_at(&mut self, name: &str, rate: &str, now_ms: u64) -> i128 {
        let (amount, period) = amount_and_period(rate);
        let full = Bucket { level: amount * period, at_ms: now_ms };
        let bucket = self.buckets.entry(name.to_owned()).or_insert(full);
        while bucket.at_ms < now_ms && bucket.level < amount * period {
            bucket.level = (bucket.level + amount).min(amount * period);
            bucket.at_ms += 1;
        }
        bucket.at_ms = now_ms;
        bucket.level
    }
}

/// The value as text; what cannot be read as one is as if it were not there.
fn read(key: &str, attributes: &[(String, Val)]) -> String {
    match attributes.iter().rfind(|(name, _)| is_same_key(name, key)) {
        Some((_, Val::Text(value))) => value.clone(),
        Some((_, Val::Int(value))) => value.to_string(),
        Some((_, Val::Double(value))) => value.to_string(),
        Some((_, Val::Bool(value))) => value.to_string(),
        Some((_, Val::Array(_))) | None => String::new(),
    }
}

fn amount_and_period(rate: &str) -> (i128, i128) {
    let (amount, period) = rate.split_once('/').expect("a rate");
    let digits: String = amount.chars().take_while(char::is_ascii_digit).collect();
    let scale = if amount.contains("KiB") { 1024 } else { 1 };
    (digits.parse::<i128>().expect("digits") * scale, if period == "s" { 1000 } else { 60_000 })
}

fn decide(keep: &str, rule: &str, trace: &TestTrace, charged: Option<String>) -> Outcome {
    let (kept, share) = match keep {
        "all" => (true, Some(1.0)),
        "none" => (false, None),
        share => {
            let share: f64 = share.trim_end_matches('%').parse::<f64>().expect("a share") / 100.0;
            (randomness(trace) >= 1.0 - share, Some(share))
        }
    };
    Outcome { kept, rule: rule.to_owned(), share, charged }
}

/// From 0 to 1: the smallest `rv`, else the last 56 bits of the id. (56 bits do not fit a double: the
/// tests use shares for which the rounding does not matter.)
fn randomness(trace: &TestTrace) -> f64 {
    let explicit = trace.spans.iter().flat_map(|span| &span.state).filter(|(key, _)| key == "ot");
    let explicit = explicit
        .map(|(_, value)| u64::from_str_radix(value.strip_prefix("rv:").expect("rv"), 16).expect("hexadecimal"));
    let low = u64::from_be_bytes(trace.id.0[8..].try_into().expect("8 bytes")) & ((1 << 56) - 1);
    explicit.min().unwrap_or(low) as f64 / (1u64 << 56) as f64
}

// === The tree

fn get<'n>(node: &'n Node, key: &str) -> Option<&'n Node> {
    entries(node).iter().find(|entry| entry.key == key).map(|entry| &entry.value)
}

fn entries(node: &Node) -> &[MappingEntry] {
    match &node.value {
        Value::Map(entries) => entries,
        _ => &[],
    }
}

fn items(node: &Node) -> &[Node] {
    match &node.value {
        Value::List(items) => items,
        _ => std::slice::from_ref(node),
    }
}

fn text(node: &Node) -> &str {
    match &node.value {
        Value::Scalar(scalar) => &scalar.text,
        _ => panic!("a scalar at line {}", node.span.line),
    }
}

// === Conditions on a trace

fn all_hold(when: &Node, trace: &TestTrace) -> bool {
    entries(when).iter().all(|MappingEntry { key, value, .. }| holds(key, value, trace))
}

fn holds(key: &str, value: &Node, trace: &TestTrace) -> bool {
    let spans = &trace.spans;
    let entry = entry_of(trace);
    let root = entry.filter(|span| span.parent == 0);
    match key {
        "error" => spans.iter().any(|span| span.is_error) == (text(value) == "true"),
        "failed" => failed(trace) == (text(value) == "true"),
        "duration" => in_range(value, duration(trace) as f64, nanos),
        "envelope" => {
            let start = spans.iter().map(|span| span.start).min().expect("a span");
            let end = spans.iter().map(|span| span.end).max().expect("a span");
            in_range(value, end.saturating_sub(start) as f64, nanos)
        }
        "span_count" => in_range(value, spans.len() as f64, plain_number),
        "services" => spans.iter().any(|span| items(value).iter().any(|wanted| is_like(wanted, &span.service))),
        "trace_state" => entries(value).iter().all(|MappingEntry { key, value, .. }| {
            let is_it =
                |(name, found): &(String, String)| name == key && items(value).iter().any(|w| is_like(w, found));
            spans.iter().any(|span| span.state.iter().any(is_it))
        }),
        "incomplete" => match text_of_state(trace) {
            state if matches!(&value.value, Value::List(_)) => items(value).iter().any(|word| text(word) == state),
            state => (state != "complete") == (text(value) == "true"),
        },
        "any_span" => spans.iter().any(|span| is_span(value, span)),
        "entry" => entry.is_some_and(|span| is_span(value, span)),
        "root" => root.is_some_and(|span| is_span(value, span)),
        "not" => !all_hold(value, trace),
        "any_of" => items(value).iter().any(|branch| all_hold(branch, trace)),
        other => panic!("{other} is not a condition"),
    }
}

/// What the policy in `root` counts as an error.
fn is_error(root: &Node, span: &TestSpan) -> bool {
    let is_like = |key: &str| {
        let listed = get(root, "errors").and_then(|errors| get(errors, key));
        listed.is_some_and(|listed| items(listed).iter().any(|wanted| is_span(wanted, span)))
    };
    (span.status == Status::Error || is_like("also")) && !is_like("except")
}

/// Where requests enter: the root, or with flags what they say, or a server or consumer without its parent.
fn is_entry(span: &TestSpan, trace: &TestTrace) -> bool {
    let is_parent_here = trace.spans.iter().any(|other| other.id == span.parent);
    let receives = matches!(span.kind.word(), "server" | "consumer");
    span.parent == 0 || span.remote.unwrap_or(receives && !is_parent_here)
}

/// The chosen one: a root before others, then the earliest, then the smallest id.
fn entry_of(trace: &TestTrace) -> Option<&TestSpan> {
    let entries = trace.spans.iter().filter(|span| is_entry(span, trace));
    entries.min_by_key(|span| (span.parent != 0, span.start, span.id))
}

fn failed(trace: &TestTrace) -> bool {
    match entry_of(trace) {
        Some(root) if root.parent == 0 => root.is_error,
        _ => trace.spans.iter().any(|span| is_entry(span, trace) && span.is_error),
    }
}

fn duration(trace: &TestTrace) -> u64 {
    let longest = |spans: &mut dyn Iterator<Item = &TestSpan>| spans.map(length).max();
    match entry_of(trace) {
        Some(root) if root.parent == 0 => length(root),
        Some(_) => longest(&mut trace.spans.iter().filter(|span| is_entry(span, trace))).expect("an entry"),
        None => longest(&mut trace.spans.iter()).expect("a span"),
    }
}

fn length(span: &TestSpan) -> u64 {
    span.end.saturating_sub(span.start)
}

fn text_of_state(trace: &TestTrace) -> &'static str {
    match (trace.limited, trace.forgotten, entry_of(trace)) {
        (true, ..) => "limit",
        (_, true, _) => "evicted",
        (_, _, None) => "no_entry",
        _ => "complete",
    }
}

// === Conditions on a span

fn is_span(wanted: &Node, span: &TestSpan) -> bool {
    entries(wanted).iter().all(|MappingEntry { key, value, .. }| {
        let is_one = |text: &str| items(value).iter().any(|wanted| is_like(wanted, text));
        match key.as_str() {
            "service" => is_one(&span.service),
            "name" => is_one(&span.name),
            "kind" => items(value).iter().any(|word| text(word) == span.kind.word()),
            "status" => items(value).iter().any(|word| text(word) == span.status.word()),
            "status_message" => !span.message.is_empty() && is_one(&span.message),
            "duration" => in_range(value, length(span) as f64, nanos),
            "attributes" => have(value, &span.attributes),
            "resource" => have(value, &span.resource),
            "events" => span.events.iter().any(|event| is_one(event)),
            other => panic!("{other} is not a span field"),
        }
    })
}

/// The renamed attributes that the random cases use.
const SAME: [[&str; 2]; 3] = [
    ["http.response.status_code", "http.status_code"],
    ["db.system.name", "db.system"],
    ["deployment.environment.name", "deployment.environment"],
];

fn is_same_key(a: &str, b: &str) -> bool {
    a == b || SAME.iter().any(|pair| pair.contains(&a) && pair.contains(&b))
}

fn have(wanted: &Node, attributes: &[(String, Val)]) -> bool {
    entries(wanted).iter().all(|MappingEntry { key, value: wanted, .. }| {
        let mut found = attributes.iter().filter(|(name, _)| is_same_key(name, key)).map(|(_, value)| value);
        match get(wanted, "exists") {
            Some(exists) => found.next().is_some() == (text(exists) == "true"),
            None => found.any(|value| items(wanted).iter().any(|wanted| is_value(wanted, value))),
        }
    })
}

fn is_value(wanted: &Node, value: &Val) -> bool {
    let quoted = matches!(&wanted.value, Value::Scalar(scalar) if !scalar.plain);
    match value {
        Val::Array(elements) => elements.iter().any(|element| is_value(wanted, element)),
        Val::Int(number) => is_number(wanted, *number as f64),
        Val::Double(number) => is_number(wanted, *number),
        Val::Bool(value) => !quoted && is_plain(wanted, &value.to_string()),
        Val::Text(value) => {
            let means_text = quoted || matches!(&wanted.value, Value::Map(_)) || !means_more(text(wanted));
            means_text && get(wanted, "at_least").is_none() && get(wanted, "below").is_none() && is_like(wanted, value)
        }
    }
}

fn is_plain(wanted: &Node, word: &str) -> bool {
    matches!(&wanted.value, Value::Scalar(scalar) if scalar.plain && scalar.text == word)
}

/// Without quotes it is a number or a truth value.
fn means_more(text: &str) -> bool {
    text == "true" || text == "false" || text.parse::<f64>().is_ok()
}

fn is_number(wanted: &Node, number: f64) -> bool {
    match &wanted.value {
        Value::Scalar(scalar) => scalar.plain && scalar.text.parse() == Ok(number),
        _ if get(wanted, "matches").is_some() => false,
        _ => in_range(wanted, number, plain_number),
    }
}

fn is_like(wanted: &Node, found: &str) -> bool {
    match get(wanted, "matches") {
        Some(expression) => regex::Regex::new(text(expression)).expect("a regular expression").is_match(found),
        None => is_glob(text(wanted).as_bytes(), found.as_bytes()),
    }
}

fn is_glob(glob: &[u8], found: &[u8]) -> bool {
    match (glob, found) {
        ([b'*', rest @ ..], _) => (0..=found.len()).any(|skip| is_glob(rest, &found[skip..])),
        ([a, glob @ ..], [b, found @ ..]) if a == b => is_glob(glob, found),
        (glob, found) => glob.is_empty() && found.is_empty(),
    }
}

fn in_range(range: &Node, value: f64, read: fn(&str) -> f64) -> bool {
    get(range, "at_least").is_none_or(|low| value >= read(text(low)))
        && get(range, "below").is_none_or(|high| value < read(text(high)))
}

fn plain_number(text: &str) -> f64 {
    text.parse().expect("a number")
}

fn nanos(text: &str) -> f64 {
    let digits = text.trim_end_matches(char::is_alphabetic);
    let scale = match &text[digits.len()..] {
        "ms" => 1e6,
        "s" => 1e9,
        other => panic!("the random cases do not use {other}"),
    };
    digits.parse::<f64>().expect("digits") * scale
}
