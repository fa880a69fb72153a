//! The policy file as it was written: YAML to rules, with a diagnostic for everything that is not right.
//!
//! Codes: P01 version, P02 rule name, P03 field in the wrong place, P04 `keep`, P05 range, P07 regular
//! expression, P08 rate, P09 keys that need each other, P10 nesting, P15 `wait`, P16 attribute value,
//! P17 a text that looks like a list or an expression;
//! P21 shared limits: their names, and rules that name one that is not there;
//! `review` adds P11, P12, P18 to P20, P22 and P23, compiling P14. P13 warns of a text where a number is usual.

mod limit;
mod phrases;
mod value;
mod when;

use super::condition::When;
use super::errors::{Errors, ErrorsAt};
use super::limit::Limit;
use super::{Keep, Limited, Then, Wait};
use crate::diagnostic::Span;
use crate::trace::Threshold;
use crate::trace::question::Condition;
use crate::yaml::{Map, Node, Reader, Value};
use limit::SharedLimits;
use std::time::Duration;

/// A policy file that was read.
#[derive(Debug)]
pub(super) struct Document {
    /// `None` if it has an error.
    pub wait: Option<Wait>,
    /// What of it has no error.
    pub errors: Errors,
    pub errors_at: ErrorsAt,
    /// Those that have no error, as the rules.
    pub limits: Vec<NamedLimit>,
    pub rules: Vec<WrittenRule>,
    /// `None` if it has an error or is not there.
    pub otherwise: Option<Keep>,
}

/// A limit of `limits:`.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct NamedLimit {
    pub name: String,
    /// Where the name stands.
    pub span: Span,
    pub limit: Limit,
    /// Where a rule does not say it.
    pub then: Then,
}

/// A rule as it was written.
#[derive(Clone, PartialEq, Debug)]
pub struct WrittenRule {
    pub name: String,
    /// Where the name stands.
    pub span: Span,
    /// Free text of the author.
    pub why: Option<String>,
    pub when: When,
    pub keep: Keep,
    pub limited: Option<Limited>,
}

const FILE_KEYS: &[&str] = &["version", "wait", "errors", "limits", "rules", "otherwise"];
const ERRORS_KEYS: &[&str] = &["except", "also"];
const WAIT_KEYS: &[&str] = &["after_root", "idle", "longest", "settle"];
const OTHERWISE_KEYS: &[&str] = &["keep"];
const RULE_KEYS: &[&str] = &["name", "why", "when", "keep", "limit", "then", "for_each", "limit_total"];

/// Every mapping of a policy with its keys, as an editor's schema names them: `rules.when`.
pub fn sections() -> Vec<(&'static str, Vec<&'static str>)> {
    let sections: &[(&str, &[&str])] = &[
        ("", FILE_KEYS),
        ("wait", WAIT_KEYS),
        ("errors", ERRORS_KEYS),
        ("errors.except", when::SPAN_KEYS),
        ("errors.also", when::SPAN_KEYS),
        ("limits", limit::LIMIT_KEYS),
        ("otherwise", OTHERWISE_KEYS),
        ("rules", RULE_KEYS),
        ("rules.when", when::TRACE_KEYS),
        ("rules.when.any_span", when::SPAN_KEYS),
        ("rules.when.duration", value::RANGE_KEYS),
    ];
    sections.iter().map(|(section, keys)| (*section, keys.to_vec())).collect()
}

/// Names that verdicts use for what no rule decides.
const RESERVED: &[&str] = &["otherwise", "api", "other"];
const NAME_MAX: usize = 100;

/// A reader of policies.
pub(super) fn reader(file: &str) -> Reader {
    Reader::speaking(file, phrases::PHRASES)
}

/// Reads a policy; `None` if nothing of it can be read.
pub(super) fn parse(reader: &mut Reader, text: &str) -> Option<Document> {
    let Some(root) = reader.parse(text) else {
        if !reader.has_errors() {
            let start = Span { start: 0, end: 0, line: 1, column: 1 };
            reader.error("Y07", start, "the file is empty", "").help("write at least `version` and `otherwise`");
        }
        return None;
    };
    let map = reader.file_map(&root, "a policy", FILE_KEYS)?;
    version(reader, &map);
    let wait = map.get("wait").map_or(Some(Wait::default()), |node| wait(reader, node));
    let (errors, errors_at) = map.get("errors").map(|node| errors(reader, node)).unwrap_or_default();
    let shared = map.get("limits").map(|node| limit::shared(reader, node)).unwrap_or_default();
    let rules = map.get("rules").map_or_else(Vec::new, |node| rules(reader, node, &shared));
    let otherwise = reader.require(&map, "otherwise", "a policy").and_then(|node| otherwise(reader, node));
    Some(Document { wait, errors, errors_at, limits: shared.limits, rules, otherwise })
}

fn version(reader: &mut Reader, map: &Map<'_>) {
    let Some(node) = reader.require(map, "version", "a policy") else { return };
    let is_one = matches!(&node.value, Value::Scalar(scalar) if scalar.plain && scalar.text == "1");
    if !is_one {
        reader
            .error("P01", node.span, "this version of the policy language is not known", "not a known version")
            .help("write `version: 1`");
    }
}

/// A longer wait is a typing error: nothing stays in memory that long.
const WAIT_MAX: Duration = Duration::from_secs(3600);

fn wait(reader: &mut Reader, node: &Node) -> Option<Wait> {
    let map = reader.map(node, "`wait`", WAIT_KEYS)?;
    let defaults = Wait::default();
    let mut get = |key: &str, default: Duration| match map.get(key) {
        None => Some(default),
        Some(node) => {
            let duration = reader.duration(node, &format!("`{key}`"))?;
            if duration > WAIT_MAX {
                let title = format!("`{key}` is longer than an hour");
                reader.error("P15", node.span, title, "too long").help("write at most `1h`");
            }
            if duration < Duration::from_millis(1) && key != "settle" {
                let title = format!("`{key}` is shorter than a millisecond");
                reader.error("P15", node.span, title, "too short").help("write at least `1ms`");
            }
            Some(duration)
        }
    };
    // All are read before any is missed, so that every problem is reported.
    let (after_root, idle) = (get("after_root", defaults.after_root), get("idle", defaults.idle));
    let (longest, settle) = (get("longest", defaults.longest), get("settle", defaults.settle));
    let wait = Wait { after_root: after_root?, idle: idle?, longest: longest?, settle: settle? };
    for (key, value) in [("after_root", wait.after_root), ("idle", wait.idle)] {
        if value > wait.longest {
            // Whichever of the two was written is at fault.
            let span = map.get(key).or(map.get("longest")).map_or(node.span, |node| node.span);
            let title = format!("`{key}` ({value:?}) is longer than `longest` ({:?})", wait.longest);
            reader
                .error("P15", span, title, "it would never be reached")
                .help("`longest` is counted from the first span and ends every wait: make it the longest");
        }
    }
    Some(wait)
}

fn errors(reader: &mut Reader, node: &Node) -> (Errors, ErrorsAt) {
    let Some(map) = reader.map(node, "`errors`", ERRORS_KEYS) else { return Default::default() };
    if map.entries.is_empty() {
        let help =
            "write which spans do not count, `except:`, or which count beside those with the status ERROR, `also:`";
        reader.error("P10", node.span, "`errors` has no condition", "nothing here").help(help);
    }
    let mut conditions = |key: &str| -> Option<(Vec<Condition>, Vec<Span>)> {
        let items = reader.one_or_more(map.get(key)?, &format!("`{key}`"))?;
        let mut item = |node: &Node| Some((when::one_span(reader, node, &format!("an item of `{key}`"))?, node.span));
        Some(items.iter().filter_map(&mut item).unzip())
    };
    let (except, except_at) = conditions("except").unwrap_or_default();
    let (also, also_at) = conditions("also").unwrap_or_default();
    (Errors { except, also }, ErrorsAt { except: except_at, also: also_at })
}

fn otherwise(reader: &mut Reader, node: &Node) -> Option<Keep> {
    if let Value::Scalar(scalar) = &node.value
        && (matches!(scalar.text.as_str(), "all" | "none") || scalar.text.ends_with('%'))
    {
        let help = format!("write `otherwise: {{ keep: {} }}`", scalar.text);
        reader.error("Y05", node.span, "`otherwise` must be a mapping", "this is a single value").help(help);
        return None;
    }
    let map = reader.map(node, "`otherwise`", OTHERWISE_KEYS)?;
    let node = reader.require(&map, "keep", "`otherwise`")?;
    keep(reader, node)
}

fn rules(reader: &mut Reader, node: &Node, shared: &SharedLimits<'_>) -> Vec<WrittenRule> {
    let Some(items) = reader.list(node, "`rules`") else { return Vec::new() };
    let mut rules: Vec<WrittenRule> = Vec::new();
    let mut names: Vec<(&str, Span)> = Vec::new();
    for item in items {
        let Some(map) = reader.map_or(item, "a rule", RULE_KEYS, unknown_rule_key) else { continue };
        let name = name(reader, &map);
        if let Some((name, span)) = name {
            match names.iter().find(|(known, _)| *known == name) {
                Some((_, first)) => {
                    let title = format!("two rules are named `{name}`");
                    let diagnostic = reader.error("P02", span, title, "again here");
                    diagnostic.other(*first, "the first is here").help("give each rule a name of its own");
                }
                None => names.push((name, span)),
            }
        }
        rules.extend(rule(reader, &map, name, shared));
    }
    rules
}

fn unknown_rule_key(reader: &mut Reader, entry: &crate::yaml::MappingEntry) {
    let key = entry.key.as_str();
    if when::TRACE_KEYS.contains(&key) {
        let title = format!("`{key}` is not a key of a rule");
        reader
            .error("P03", entry.key_span, title, "conditions go under `when:`")
            .help(format!("write `when: {{ {key}: … }}`"));
    } else {
        reader.unknown_key(entry, "a rule", RULE_KEYS);
    }
}

fn name<'n>(reader: &mut Reader, map: &Map<'n>) -> Option<(&'n str, Span)> {
    let node = reader.require(map, "name", "a rule")?;
    let name = reader.text(node, "`name`")?;
    if RESERVED.contains(&name) {
        let title = format!("`{name}` is not free as the name of a rule");
        reader.error("P02", node.span, title, "verdicts use it already").help("choose another name");
    }
    if name.len() > NAME_MAX || name.chars().any(char::is_control) {
        let title = "the name of a rule is one short line".to_owned();
        reader
            .error("P02", node.span, title, "too long, or has a control character")
            .help(format!("at most {NAME_MAX} bytes; say the rest under `why:`"));
    }
    Some((name, node.span))
}

/// The rule, if every part of it could be read.
fn rule(
    reader: &mut Reader,
    map: &Map<'_>,
    name: Option<(&str, Span)>,
    shared: &SharedLimits<'_>,
) -> Option<WrittenRule> {
    let why = map.get("why").and_then(|node| reader.text(node, "`why`"));
    let when = map.get("when").map_or(Some(When::default()), |node| when::when(reader, node));
    let keep = reader.require(map, "keep", "a rule").and_then(|node| keep(reader, node));
    let limited = limit::limited(reader, map, shared);
    let (Some((name, span)), Some(when), Some(keep), Some(limited)) = (name, when, keep, limited) else { return None };
    if let (Keep::None, Some(node)) = (keep, map.get("limit")) {
        reader
            .error("P09", node.span, "a rule with `keep: none` has no use for a limit", "a limit bounds what is kept")
            .help("remove `limit`, or write what is to be kept");
    }
    Some(WrittenRule { name: name.to_owned(), span, why: why.map(str::to_owned), when, keep, limited })
}

/// `all`, `none` or a share.
pub(crate) fn keep(reader: &mut Reader, node: &Node) -> Option<Keep> {
    match reader.scalar(node, "`keep`")?.text.as_str() {
        "all" => Some(Keep::All),
        "none" => Some(Keep::None),
        _ => share(reader, node, "`keep`", &["all", "none"]).map(Keep::Share),
    }
}

/// A share that is neither nothing nor everything. `words` may be written instead.
fn share(reader: &mut Reader, node: &Node, what: &str, words: &[&str]) -> Option<Threshold> {
    let text = &reader.scalar(node, what)?.text;
    if !text.starts_with(|c: char| c.is_ascii_digit() || c == '.' || c == '-') {
        let help = format!("write a share like `5%`, or one of {}", words.join(", "));
        return reader.unknown_word("P04", node, what, words, help);
    }
    let share = reader.share(node, what)?;
    let threshold = Threshold::from_share(share);
    let word = match threshold {
        Threshold::ALL => "all",
        Threshold::NONE => "none",
        _ => return Some(threshold),
    };
    // `then` has no `all`: a limit without effect is better not written.
    let help = match words.contains(&word) {
        true => format!("write `{word}`"),
        false => "leave out `limit` and `then`: everything would be kept".to_owned(),
    };
    reader.error("P04", node.span, format!("`{text}` is no share"), format!("this is {word} of them")).help(help);
    None
}
