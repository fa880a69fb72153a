//! Takes a tree apart by type. What does not fit becomes a diagnostic, and the reading goes on, so that
//! one run reports every problem of a file.

use super::phrases::{NO_PHRASES, Phrases, Shape, format_of};
use super::{MappingEntry, Meaning, Node, Scalar, Value, number, parse};
use crate::diagnostic::{Diagnostic, Severity, Span};
use std::time::Duration;

/// Collects the problems of one file. Every getter reports what is wrong and then returns `None`.
///
/// Codes: Y01 syntax, Y02 anchor, alias or tag, Y03 key twice, Y04 size, Y05 wrong shape, Y06 unknown key,
/// Y07 missing key, Y08 unreadable value.
#[derive(Debug)]
pub struct Reader {
    file: String,
    phrases: &'static Phrases,
    diagnostics: Vec<Diagnostic>,
}

/// A mapping whose keys were checked.
#[derive(Clone, Copy, Debug)]
pub struct Map<'n> {
    pub span: Span,
    pub entries: &'n [MappingEntry],
}

impl<'n> Map<'n> {
    pub fn entry(&self, key: &str) -> Option<&'n MappingEntry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    pub fn get(&self, key: &str) -> Option<&'n Node> {
        self.entry(key).map(|entry| &entry.value)
    }
}

impl Reader {
    /// `file` is only shown.
    pub fn new(file: impl Into<String>) -> Reader {
        Reader::speaking(file, NO_PHRASES)
    }

    /// Knows what to write instead of what is wrong.
    pub fn speaking(file: impl Into<String>, phrases: &'static Phrases) -> Reader {
        Reader { file: file.into(), phrases, diagnostics: Vec::new() }
    }

    /// The tree of `text`; its flaws become diagnostics. `None` without an error: nothing is in the file.
    pub fn parse(&mut self, text: &str) -> Option<Node> {
        let (root, flaws) = parse(text);
        for flaw in flaws {
            let diagnostic = self.error(flaw.code, flaw.span, flaw.title, flaw.label);
            if !flaw.help.is_empty() {
                diagnostic.help(flaw.help);
            }
            if let Some((span, label)) = flaw.other {
                diagnostic.other(span, label);
            }
        }
        root
    }

    /// Reports an error; the caller may add help and other places.
    pub fn error(
        &mut self,
        code: &'static str,
        span: Span,
        title: impl Into<String>,
        label: impl Into<String>,
    ) -> &mut Diagnostic {
        self.report(Severity::Error, code, span, title.into(), label.into())
    }

    /// Reports a warning; the caller may add help and other places.
    pub fn warn(
        &mut self,
        code: &'static str,
        span: Span,
        title: impl Into<String>,
        label: impl Into<String>,
    ) -> &mut Diagnostic {
        self.report(Severity::Warning, code, span, title.into(), label.into())
    }

    fn report(
        &mut self,
        severity: Severity,
        code: &'static str,
        span: Span,
        title: String,
        label: String,
    ) -> &mut Diagnostic {
        let (file, others) = (self.file.clone(), Vec::new());
        self.diagnostics.push(Diagnostic { severity, code, file, span, title, label, others, help: None });
        self.diagnostics.last_mut().expect("just pushed")
    }

    pub fn has_errors(&self) -> bool {
        crate::diagnostic::has_errors(&self.diagnostics)
    }

    /// All problems, in the order of the file.
    pub fn finish(mut self) -> Vec<Diagnostic> {
        self.diagnostics.sort_by_key(|d| d.span.start);
        self.diagnostics
    }

    /// A mapping with these keys only. An unknown key is reported with the nearest known one.
    pub fn map<'n>(&mut self, node: &'n Node, what: &str, known: &[&str]) -> Option<Map<'n>> {
        self.map_or(node, what, known, |reader, entry| reader.unknown_key(entry, what, known))
    }

    /// Like [`Reader::map`], but `unknown` reports the keys that are not known.
    pub fn map_or<'n>(
        &mut self,
        node: &'n Node,
        what: &str,
        known: &[&str],
        mut unknown: impl FnMut(&mut Reader, &'n MappingEntry),
    ) -> Option<Map<'n>> {
        let map = match &node.value {
            Value::Map(entries) => Map { span: node.span, entries },
            _ => return self.wrong_shape(node, what, Shape::Map(known)),
        };
        for entry in map.entries.iter().filter(|entry| !known.contains(&entry.key.as_str())) {
            unknown(self, entry);
        }
        Some(map)
    }

    /// A mapping with any keys.
    pub fn any_map<'n>(&mut self, node: &'n Node, what: &str) -> Option<Map<'n>> {
        match &node.value {
            Value::Map(entries) => Some(Map { span: node.span, entries }),
            _ => self.wrong_shape(node, what, Shape::Map(&[])),
        }
    }

    /// The mapping of a whole file. One that is of another kind of file is reported once.
    pub fn file_map<'n>(&mut self, node: &'n Node, what: &str, known: &[&str]) -> Option<Map<'n>> {
        if let Value::Map(entries) = &node.value
            && let Some((entry, format)) = format_of(&Map { span: node.span, entries }, self.phrases)
        {
            let label = format!("no key of {what}");
            self.error("Y06", entry.key_span, format.title, label).help(format.help);
            return None;
        }
        self.map(node, what, known)
    }

    /// Reports a key that nobody knows.
    pub fn unknown_key(&mut self, entry: &MappingEntry, what: &str, known: &[&str]) {
        let foreign = self.phrases.foreign(&entry.key, known);
        let word = entry.word(known);
        if foreign.is_none() && word != entry.key {
            return self.key_with_value(entry, word, what, known);
        }
        let (label, help) = match (foreign, closest(&entry.key, known)) {
            (Some(help), _) => (FOREIGN.to_owned(), help.to_owned()),
            (None, Some(near)) => (format!("did you mean `{near}`?"), format!("its keys are {}", known.join(", "))),
            (None, None) => ("unknown key".to_owned(), format!("its keys are {}", known.join(", "))),
        };
        self.error("Y06", entry.key_span, format!("`{}` is not a key of {what}", entry.key), label).help(help);
    }

    /// Reports a key with more than a word in it: mostly, what separates it from its value is missing. The
    /// rest is not told, for it may be a secret.
    fn key_with_value(&mut self, entry: &MappingEntry, word: &str, what: &str, known: &[&str]) {
        let (title, help) = match entry.key[word.len()..].starts_with(':') {
            _ if word.is_empty() => (
                format!("this is no key of {what}, and has no value"),
                format!("its keys are {}; write them like `{}: …`", known.join(", "), known.first().unwrap_or(&"KEY")),
            ),
            true => (format!("a space is missing after `{word}:`"), format!("write `{word}: …`")),
            false => (format!("the key that begins with `{word}` is more than a word"), format!("write `{word}: …`")),
        };
        self.error("Y06", entry.key_span, title, "read as a key").help(help);
    }

    /// True if other tools have this word where these of ours could stand.
    pub fn is_foreign(&self, word: &str, known: &[&str]) -> bool {
        self.phrases.foreign(word, known).is_some()
    }

    /// Reports a word that is not one of `known`; `help` is for those that nobody has.
    pub fn unknown_word<T>(
        &mut self,
        code: &'static str,
        node: &Node,
        what: &str,
        known: &[&str],
        help: String,
    ) -> Option<T> {
        let Value::Scalar(Scalar { text, .. }) = &node.value else { return None };
        let (label, help) = match (self.phrases.foreign(text, known), closest(text, known)) {
            (Some(foreign), _) => (FOREIGN.to_owned(), foreign.to_owned()),
            (None, Some(near)) => (format!("did you mean `{near}`?"), help),
            (None, None) => ("unknown word".to_owned(), help),
        };
        self.error(code, node.span, format!("`{text}` is not a word for {what}"), label).help(help);
        None
    }

    /// The value of a key that must be there.
    pub fn require<'n>(&mut self, map: &Map<'n>, key: &str, what: &str) -> Option<&'n Node> {
        let found = map.get(key);
        if found.is_none() {
            let help = match self.phrases.example(&format!("`{key}`")) {
                Some(example) => format!("add it, like `{example}`"),
                None => format!("add `{key}: …`"),
            };
            self.error("Y07", map.span, format!("{what} needs the key `{key}`"), format!("`{key}:` is missing"))
                .help(help);
        }
        found
    }

    /// A list.
    pub fn list<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n [Node]> {
        match &node.value {
            Value::List(items) => Some(items),
            _ => self.wrong_shape(node, what, Shape::List),
        }
    }

    /// A list that is not empty, or one value that stands for a list of one.
    pub fn one_or_more<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n [Node]> {
        match &node.value {
            Value::List(items) if items.is_empty() => self.wrong_shape(node, what, Shape::OneOrMore),
            Value::List(items) => Some(items),
            _ => Some(std::slice::from_ref(node)),
        }
    }

    /// A value that is neither a list nor a mapping nor nothing.
    pub fn scalar<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n Scalar> {
        match &node.value {
            Value::Scalar(scalar) if scalar.meaning() != Meaning::Null => Some(scalar),
            _ => self.wrong_shape(node, what, Shape::One),
        }
    }

    /// A text that is not empty, as it is written: `5` is the text "5".
    pub fn text<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n str> {
        match self.scalar(node, what)?.text.as_str() {
            "" => self.wrong_shape(node, what, Shape::Text),
            text => Some(text),
        }
    }

    pub fn bool(&mut self, node: &Node, what: &str) -> Option<bool> {
        let scalar = self.scalar(node, what)?;
        let help = match scalar.text.to_ascii_lowercase().as_str() {
            word @ ("true" | "false") if !scalar.plain => format!("remove the quotes: `{word}`"),
            "yes" | "on" => "write `true`".to_owned(),
            "no" | "off" => "write `false`".to_owned(),
            _ => "write `true` or `false`".to_owned(),
        };
        match scalar.meaning() {
            Meaning::Bool(value) => Some(value),
            Meaning::Text(text) if text == "true" || text == "false" => {
                self.unreadable(node, what, "in quotes is a text, not a truth value", &help)
            }
            _ => self.unreadable(node, what, "is neither `true` nor `false`", &help),
        }
    }

    /// A whole number within `range`.
    pub fn integer(&mut self, node: &Node, what: &str, range: std::ops::RangeInclusive<u64>) -> Option<u64> {
        let scalar = self.scalar(node, what)?;
        match scalar.text.parse::<u64>() {
            Ok(value) if scalar.plain && range.contains(&value) => Some(value),
            Ok(_) if scalar.plain => {
                let help = format!("write a number from {} to {}", range.start(), range.end());
                self.unreadable(node, what, "is out of range", &help)
            }
            _ => self.unreadable(node, what, "is not a whole number", "write digits only, without a unit"),
        }
    }

    /// One of these words.
    pub fn word<T: Copy>(&mut self, node: &Node, what: &str, words: &[(&str, T)]) -> Option<T> {
        let text = &self.scalar(node, what)?.text;
        if let Some((_, value)) = words.iter().find(|(word, _)| word == text) {
            return Some(*value);
        }
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let help = format!("write one of {}", known.join(", "));
        self.unknown_word("Y08", node, what, &known, help)
    }

    /// `500ms`, `1.5s`, `2m`, `1h`; also `us` and `ns`.
    pub fn duration(&mut self, node: &Node, what: &str) -> Option<Duration> {
        let text = &self.scalar(node, what)?.text;
        let help = match number(text) {
            Some(value) if value > 0.0 => format!("say the unit: `{text}ms` or `{text}s`"),
            _ => "write it like `500ms`, `1.5s`, `2m` or `1h`".to_owned(),
        };
        let read = parse_duration(text);
        read.or_else(|| self.unreadable(node, what, "is not a duration", &help))
    }

    /// `64MiB`, `1GiB`, `10MB`, `512B`, in bytes.
    pub fn size(&mut self, node: &Node, what: &str) -> Option<u64> {
        let text = &self.scalar(node, what)?.text;
        let help = match number(text) {
            Some(value) if value > 0.0 => format!("say the unit: `{text}MiB`, or `{text}B` for bytes"),
            _ => "write it like `64MiB`, `1GiB` or `10MB`".to_owned(),
        };
        let read = parse_size(text);
        read.or_else(|| self.unreadable(node, what, "is not a size", &help))
    }

    /// `0.5%`, from 0 to 1.
    pub fn share(&mut self, node: &Node, what: &str) -> Option<f64> {
        let text = &self.scalar(node, what)?.text;
        let help = match number(text) {
            Some(1.0) => "write `1%`, or `all`".to_owned(),
            Some(value @ 0.0..1.0) => format!("write a percentage: `{}%`", percent(value)),
            Some(1.0..=100.0) => format!("write a percentage: `{text}%`"),
            _ => "write a percentage from 0% to 100%, like `0.5%`".to_owned(),
        };
        let read = parse_share(text);
        read.or_else(|| self.unreadable(node, what, "is not a share", &help))
    }

    /// Reports a value that cannot be read as what it should be.
    pub fn unreadable<T>(&mut self, node: &Node, what: &str, problem: &str, help: &str) -> Option<T> {
        let shown = match &node.value {
            Value::Scalar(scalar) => format!("`{}`", scalar.text),
            _ => "this".to_owned(),
        };
        self.error("Y08", node.span, format!("{shown} {problem}"), format!("the value of {what}")).help(help);
        None
    }

    /// Reports a list where a value should be, and the like.
    pub fn wrong_shape<T>(&mut self, node: &Node, what: &str, wanted: Shape<'_>) -> Option<T> {
        let found = match &node.value {
            Value::Scalar(scalar) if scalar.meaning() == Meaning::Null => "nothing",
            Value::Scalar(scalar) if scalar.text.is_empty() => "an empty text",
            Value::Scalar(_) => "a single value",
            Value::List(items) if items.is_empty() => "an empty list",
            Value::List(_) => "a list",
            Value::Map(entries) if entries.is_empty() => "an empty mapping",
            Value::Map(_) => "a mapping",
            Value::Refused => return None,
        };
        let (wanted, help) = (wanted.words(), wanted.help(node, what, self.phrases));
        self.error("Y05", node.span, format!("{what} must be {wanted}"), format!("this is {found}")).help(help);
        None
    }
}

const FOREIGN: &str = "a word of other tools";

/// A share as a percentage, without the noise of binary fractions.
fn percent(share: f64) -> f64 {
    (share * 100.0 * 1e9).round() / 1e9
}

/// A decimal number without sign, and the unit behind it.
fn split_unit(text: &str) -> Option<(f64, &str)> {
    let digits = text.bytes().take_while(|c| c.is_ascii_digit() || *c == b'.').count();
    let value = text[..digits].bytes().next()?.is_ascii_digit().then(|| text[..digits].parse().ok())??;
    Some((value, text[digits..].trim_start()))
}

/// Longer durations are typing errors.
const DURATION_MAX: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

pub fn parse_duration(text: &str) -> Option<Duration> {
    let (value, unit) = split_unit(text)?;
    let nanos = match unit {
        "ns" => 1.0,
        "us" | "µs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "m" => 60e9,
        "h" => 3600e9,
        _ => return None,
    };
    // The cast saturates; the largest allowed value is far below.
    let duration = Duration::from_nanos((value * nanos).round() as u64);
    (duration <= DURATION_MAX).then_some(duration)
}

/// The bytes that `64MiB`, `1GiB`, `10MB` or `512B` stand for.
pub fn parse_size(text: &str) -> Option<u64> {
    let (value, unit) = split_unit(text)?;
    let bytes = match unit {
        "B" => 1.0,
        "KB" | "kB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "TB" => 1e12,
        "KiB" => 1024.0,
        "MiB" => 1024.0 * 1024.0,
        "GiB" => 1024.0 * 1024.0 * 1024.0,
        "TiB" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    let bytes = value * bytes;
    (bytes < 1e18).then_some(bytes.round() as u64)
}

pub(super) fn parse_share(text: &str) -> Option<f64> {
    let (value, unit) = split_unit(text)?;
    (unit == "%" && value <= 100.0).then_some(value / 100.0)
}

/// The candidate that differs from `word` by few letters, if any does.
pub fn closest<'c>(word: &str, candidates: &[&'c str]) -> Option<&'c str> {
    let fold = |text: &str| text.to_ascii_lowercase().replace(['-', '.', ' '], "_");
    let word = fold(word);
    let allowed = (word.chars().count() / 3).max(1);
    candidates
        .iter()
        .map(|&candidate| (edit_distance(&word, &fold(candidate)), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Letters to insert, remove or replace to make `a` into `b` (Levenshtein).
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(parse_duration("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(parse_duration("2m"), Some(Duration::from_secs(120)));
        assert_eq!(parse_duration("1h"), Some(Duration::from_secs(3600)));
        assert_eq!(parse_duration("0.3us"), Some(Duration::from_nanos(300)));
        for wrong in ["500", "1min", "-1s", "s", "", ".s", "1..5s", "1m30s", "99999999999h", "1e3s"] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn sizes_need_a_unit() {
        assert_eq!(parse_size("64MiB"), Some(64 << 20));
        assert_eq!(parse_size("10MB"), Some(10_000_000));
        assert_eq!(parse_size("1.5KiB"), Some(1536));
        assert_eq!(parse_size("0B"), Some(0));
        for wrong in ["64", "64Mib", "MiB", "-1MiB", "9999999TiB"] {
            assert_eq!(parse_size(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn shares_are_percentages() {
        assert_eq!(parse_share("0.5%"), Some(0.005));
        assert_eq!(parse_share("100%"), Some(1.0));
        assert_eq!(parse_share("5 %"), Some(0.05));
        for wrong in ["0.5", "101%", "-1%", "%"] {
            assert_eq!(parse_share(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn suggestions_are_near_or_absent() {
        assert_eq!(closest("duratoin", &["duration", "name"]), Some("duration"));
        assert_eq!(closest("any-span", &["any_span", "any_of"]), Some("any_span"));
        assert_eq!(closest("colour", &["duration", "name"]), None);
    }

    #[test]
    fn every_problem_is_found_in_one_reading() {
        let mut reader = Reader::new("f");
        let node = reader.parse("a: x\nb: 5\nsizee: 3MiB\nd: 7\nlist: {}\n").expect("a tree");
        let map = reader.map(&node, "the file", &["a", "b", "size", "d", "list"]).expect("a map");
        assert_eq!(reader.bool(map.get("a").expect("a"), "a"), None);
        assert_eq!(reader.duration(map.get("b").expect("b"), "b"), None);
        assert_eq!(reader.integer(map.get("d").expect("d"), "d", 1..=5), None);
        assert!(reader.list(map.get("list").expect("list"), "list").is_none());
        assert!(reader.require(&map, "missing", "the file").is_none());
        let codes: Vec<&str> = reader.finish().iter().map(|d| d.code).collect();
        assert_eq!(codes, ["Y07", "Y08", "Y08", "Y06", "Y08", "Y05"]);
    }
}
