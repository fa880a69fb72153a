//! What a field is compared with: patterns, ranges, attribute values.

use super::super::renamed;
use crate::trace::question::{Pattern, Range, ValuePattern, ValueTest};
use crate::yaml::{Meaning, Node, Reader, Value, number, parse_duration};

/// `{ at_least: 500ms, below: 2s }` in nanoseconds.
pub(super) fn durations(reader: &mut Reader, node: &Node, what: &str) -> Option<Range<u64>> {
    if let Value::Scalar(scalar) = &node.value {
        let bound = |text: &str| match number(text) {
            Some(value) if value > 0.0 => Some(format!("{text}ms")),
            _ => parse_duration(text).map(|_| text.to_owned()),
        };
        let suggested = range_of(&scalar.text, bound).unwrap_or_else(|| "{ at_least: 500ms }".to_owned());
        return not_a_range(reader, node, what, &suggested);
    }
    range(reader, node, what, |reader, node, what| reader.duration(node, what).map(|d| d.as_nanos() as u64))
}

/// `{ at_least: 100, below: 1000 }`.
pub(super) fn counts(reader: &mut Reader, node: &Node, what: &str) -> Option<Range<u64>> {
    if let Value::Scalar(scalar) = &node.value {
        let bound = |text: &str| text.parse::<u32>().is_ok().then(|| text.to_owned());
        let suggested = range_of(&scalar.text, bound).unwrap_or_else(|| "{ at_least: 100 }".to_owned());
        return not_a_range(reader, node, what, &suggested);
    }
    range(reader, node, what, |reader, node, what| reader.integer(node, what, 0..=u64::from(u32::MAX)))
}

fn not_a_range<T>(reader: &mut Reader, node: &Node, what: &str, suggested: &str) -> Option<T> {
    let title = format!("{what} is compared with a range");
    reader.error("P05", node.span, title, "this is a single value").help(format!("write `{suggested}`"));
    None
}

/// The range that a text like `>500ms`, `500ms-2s` or `500ms` probably means. `bound` gives a bound as it
/// must be written.
fn range_of(text: &str, bound: impl Fn(&str) -> Option<String>) -> Option<String> {
    let value = text.trim_start_matches(['<', '>', '=', '≥', '≤', '~', ' ']);
    let bounds = value.split_once("..").or_else(|| value.split_once('-'));
    if let Some((low, high)) = bounds.and_then(|(low, high)| bound(low.trim()).zip(bound(high.trim()))) {
        return Some(format!("{{ at_least: {low}, below: {high} }}"));
    }
    let key = if text.trim_start().starts_with(['<', '≤']) { "below" } else { "at_least" };
    bound(value.trim()).map(|bound| format!("{{ {key}: {bound} }}"))
}

pub(super) const RANGE_KEYS: &[&str] = &["at_least", "below"];

fn range<T: PartialOrd + Copy>(
    reader: &mut Reader,
    node: &Node,
    what: &str,
    bound: impl Fn(&mut Reader, &Node, &str) -> Option<T>,
) -> Option<Range<T>> {
    let map = reader.map(node, what, RANGE_KEYS)?;
    if map.entries.iter().any(|entry| !RANGE_KEYS.contains(&entry.key.as_str())) {
        return None;
    }
    let mut get = |key: &str| match map.get(key) {
        None => Some(None),
        Some(node) => bound(reader, node, &format!("`{key}`")).map(Some),
    };
    let (at_least, below) = (get("at_least"), get("below"));
    let range = Range { at_least: at_least?, below: below? };
    match (range.at_least, range.below) {
        (None, None) => {
            let help = "write `at_least:` (the bound belongs to it), `below:` (it does not), or both";
            reader.error("P05", node.span, format!("the range of {what} has no bound"), "no bound").help(help);
            None
        }
        (Some(low), Some(high)) if low >= high => {
            let help = "`at_least` must be smaller than `below`";
            reader.error("P05", node.span, format!("the range of {what} is empty"), "no value is in it").help(help);
            None
        }
        _ => Some(range),
    }
}

/// One text or pattern, or a list of them.
pub(super) fn patterns(reader: &mut Reader, node: &Node, what: &str) -> Option<Vec<Pattern>> {
    let items = reader.one_or_more(node, what)?;
    let patterns: Vec<Option<Pattern>> = items.iter().map(|item| pattern(reader, item, what)).collect();
    patterns.into_iter().collect()
}

fn pattern(reader: &mut Reader, node: &Node, what: &str) -> Option<Pattern> {
    match &node.value {
        Value::Map(entries) => {
            let map = reader.map(node, what, &["matches"])?;
            // Another key has been reported: what is missing is not a second problem.
            let node = if entries.is_empty() { reader.require(&map, "matches", what)? } else { map.get("matches")? };
            regex(reader, node).map(Pattern::Regex)
        }
        _ => {
            let text = reader.text(node, what)?;
            warn_of_likely_mistake(reader, node, text);
            Some(exact_or_glob(text))
        }
    }
}

/// A text that is nobody's name but a list or an expression.
fn warn_of_likely_mistake(reader: &mut Reader, node: &Node, text: &str) {
    let is_name =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/*".contains(&b));
    if text.contains(',') && text.split(',').all(|part| is_name(part.trim())) {
        let parts: Vec<&str> = text.split(',').map(str::trim).collect();
        let help = format!("write a list: `[{}]`", parts.join(", "));
        reader.warn("P17", node.span, "this is one text with a comma, not a list", "no list").help(help);
        return;
    }
    let slashed = text.strip_prefix('/').and_then(|rest| rest.strip_suffix('/'));
    let slashed = slashed.filter(|inner| inner.contains(['*', '+', '?', '[', '(', '|', '\\', '^', '$']));
    let any =
        text.find(".*").is_some_and(|at| !text[..at].ends_with(|c: char| c.is_alphanumeric() || "_-".contains(c)));
    if slashed.is_some() || any || text.starts_with('^') || text.ends_with('$') || text.contains("\\d") {
        let help = format!("write `{{ matches: '{}' }}`", slashed.unwrap_or(text));
        reader
            .warn("P17", node.span, "this looks like a regular expression, and is a text", "taken as it is")
            .help(help);
    }
}

/// `*` makes a glob, quoted or not; `matches:` can speak of the character itself.
fn exact_or_glob(text: &str) -> Pattern {
    if text.contains('*') { Pattern::Glob(text.to_owned()) } else { Pattern::Exact(text.to_owned()) }
}

/// One expression may not take more memory than this when compiled.
const REGEX_SIZE_MAX: usize = 1 << 20;

fn regex(reader: &mut Reader, node: &Node) -> Option<regex::bytes::Regex> {
    let text = reader.text(node, "`matches`")?;
    match regex::bytes::RegexBuilder::new(text).size_limit(REGEX_SIZE_MAX).build() {
        Ok(regex) => Some(regex),
        Err(error) => {
            let error = error.to_string();
            // The last line says what is wrong; those before repeat the expression.
            let problem = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
            reader
                .error("P07", node.span, format!("this regular expression cannot be used: {problem}"), problem)
                .help("the syntax is that of the Rust crate `regex`: no look-around, no back-references");
            None
        }
    }
}

/// What the attribute `key` must be: `exists:`, or one or several alternatives.
pub(super) fn value_test(reader: &mut Reader, key: &str, node: &Node) -> Option<ValueTest> {
    if let Value::Map(entries) = &node.value
        && entries.iter().any(|entry| entry.key == "exists")
    {
        let map = reader.map(node, "a value with `exists`", &["exists"])?;
        return reader.bool(map.get("exists")?, "`exists`").map(ValueTest::Exists);
    }
    let items = match &node.value {
        Value::List(_) => reader.one_or_more(node, &format!("`{key}`"))?,
        _ => std::slice::from_ref(node),
    };
    let values: Vec<Option<ValuePattern>> = items.iter().map(|item| value(reader, key, item)).collect();
    values.into_iter().collect::<Option<Vec<_>>>().map(ValueTest::OneOf)
}

fn value(reader: &mut Reader, key: &str, node: &Node) -> Option<ValuePattern> {
    match &node.value {
        Value::Scalar(scalar) => match scalar.meaning() {
            Meaning::Bool(value) => Some(ValuePattern::Bool(value)),
            Meaning::Number(value) => Some(ValuePattern::Number(value)),
            Meaning::Text(text) => {
                warn_of_text(reader, key, node, text);
                warn_of_likely_mistake(reader, node, text);
                Some(ValuePattern::Text(exact_or_glob(text)))
            }
            Meaning::Null => {
                reader
                    .error("P16", node.span, format!("`{key}` has no value"), "nothing here")
                    .help(format!("write `{key}: {{ exists: true }}` if any value will do, `\"\"` for an empty text"));
                None
            }
        },
        Value::Map(entries) if entries.iter().any(|entry| is_of(reader, &entry.key, &["matches"])) => {
            let map = reader.map(node, "a value with `matches`", &["matches"])?;
            warn_of_text(reader, key, node, "");
            regex(reader, map.get("matches")?).map(|regex| ValuePattern::Text(Pattern::Regex(regex)))
        }
        Value::Map(entries) if entries.iter().any(|entry| is_of(reader, &entry.key, RANGE_KEYS)) => {
            range(reader, node, &format!("`{key}`"), numeric_bound).map(ValuePattern::Range)
        }
        Value::Refused => None,
        _ => {
            reader
                .error("P16", node.span, format!("`{key}` cannot be compared with this"), "not a value")
                .help("write a value, a list of values, or one of `matches:`, `at_least:`, `below:`, `exists:`");
            None
        }
    }
}

fn numeric_bound(reader: &mut Reader, node: &Node, what: &str) -> Option<f64> {
    match reader.scalar(node, what)?.meaning() {
        Meaning::Number(value) => Some(value),
        _ => reader.unreadable(node, what, "is not a number", "attributes are compared with numbers without a unit"),
    }
}

/// One of these keys, or what other tools call it.
fn is_of(reader: &Reader, key: &str, known: &[&str]) -> bool {
    known.contains(&key) || reader.is_foreign(key, known)
}

/// A text never equals a number, so `"500"` for a status code matches nothing.
fn warn_of_text(reader: &mut Reader, key: &str, node: &Node, text: &str) {
    if !renamed::is_numeric(key) {
        return;
    }
    let bound = |text: &str| number(text).map(|_| text.to_owned());
    let help = match (number(text), class_of(text).or_else(|| range_of(text, bound))) {
        (Some(_), _) => format!("write it without quotes: `{key}: {text}`"),
        (None, Some(range)) => format!("write a range: `{range}`"),
        (None, None) => "write a number without quotes, or a range like `{ at_least: 500, below: 600 }`".to_owned(),
    };
    let title = format!("`{key}` is a number, and this is a text");
    reader.warn("P13", node.span, title, "a text never equals a number").help(help);
}

/// The range that `5xx`, `5*` or `500-599` means.
fn class_of(text: &str) -> Option<String> {
    let bounds = text.split_once("..").or_else(|| text.split_once('-'));
    if let Some((Ok(low), Ok(high))) = bounds.map(|(low, high)| (low.parse::<u32>(), high.parse::<u32>())) {
        return (low <= high).then(|| format!("{{ at_least: {low}, below: {} }}", u64::from(high) + 1));
    }
    let (class, rest) = text.split_at_checked(1)?;
    let class: u32 = class.parse().ok().filter(|class| (1..=5).contains(class))?;
    let is_any = matches!(rest.to_ascii_lowercase().as_str(), "xx" | "*" | "**" | "x" | "..");
    is_any.then(|| format!("{{ at_least: {class}00, below: {}00 }}", class + 1))
}
