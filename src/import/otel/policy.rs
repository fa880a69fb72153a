//! One policy of the Collector: what it asks of a trace, and how much of that it keeps.

use super::super::condition::{Clause, ConditionDraft, ConditionField, SpanTest};
use super::super::draft::Fidelity;
use super::super::ottl;
use super::super::source::{Obstacle, Section};
use super::{is_never, sub_policies};
use crate::policy::names_of;
use crate::policy::text;
use crate::trace::question::Range;

/// What a policy asks.
#[derive(Clone, Default)]
pub(super) struct Asked {
    /// All must hold.
    pub clauses: Vec<Clause>,
    pub share: Option<Share>,
    /// The rate, as a policy writes it.
    pub limit: Option<String>,
    /// Of a part of a composite policy.
    pub name: Option<String>,
    pub notes: Vec<(Fidelity, String)>,
}

/// A share drawn by a hash: the same salt draws the same traces.
#[derive(Clone)]
pub(super) struct Share {
    pub value: f64,
    salt: String,
}

/// What is kept if any of these shares keeps a trace.
pub(super) fn together(shares: &[&Share]) -> f64 {
    let mut salts: Vec<&str> = shares.iter().map(|share| share.salt.as_str()).collect();
    salts.sort_unstable();
    salts.dedup();
    let largest =
        |salt: &str| shares.iter().filter(|share| share.salt == salt).map(|share| share.value).fold(0.0, f64::max);
    match salts.as_slice() {
        [one] => largest(one),
        salts => 1.0 - salts.iter().map(|salt| 1.0 - largest(salt)).product::<f64>(),
    }
}

impl Asked {
    fn of(clause: Clause) -> Asked {
        Asked { clauses: vec![clause], ..Asked::default() }
    }

    fn nearly(mut self, note: impl Into<String>) -> Asked {
        self.notes.push((Fidelity::Nearly, note.into()));
        self
    }
}

/// A policy on the first level, or in `and`, `drop` and `composite`.
pub(super) fn asked(policy: &Section<'_>) -> Result<Asked, Obstacle> {
    match policy.text("type")?.ok_or("`type` is missing")? {
        "and" => all_of(&sub_policies(policy, "and", "and_sub_policy")?),
        kind => asked_below(policy, kind),
    }
}

/// Inside another there is no `and`.
fn asked_below(policy: &Section<'_>, kind: &str) -> Result<Asked, Obstacle> {
    match kind {
        "not" => {
            let inner = policy.section("not").ok_or("`not:` is missing")?;
            let sub = inner.section("not_sub_policy").ok_or("`not_sub_policy:` is missing")?;
            denied(leaf(&sub, sub.text("type")?.ok_or("`type` is missing")?)?)
        }
        kind => leaf(policy, kind),
    }
}

fn all_of(policies: &[Section<'_>]) -> Result<Asked, Obstacle> {
    let mut all = Asked::default();
    for policy in policies {
        let kind = policy.text("type")?.ok_or("`type` is missing")?;
        let name = policy.text("name")?.unwrap_or(kind);
        let one = asked_below(policy, kind).map_err(|reason| format!("`{name}`: {reason}"))?;
        all.clauses.extend(one.clauses);
        all.notes.extend(one.notes);
        all.share = match (all.share, one.share) {
            (Some(a), Some(b)) if a.salt == b.salt => Some(if a.value < b.value { a } else { b }),
            (Some(a), Some(b)) => Some(Share { value: a.value * b.value, ..a }),
            (a, b) => a.or(b),
        };
        match (&all.limit, one.limit) {
            (Some(_), Some(_)) => return Err("it has two limits, and a rule has one".to_owned()),
            (None, limit) => all.limit = limit,
            _ => {}
        }
    }
    Ok(all)
}

pub(super) fn drop(policy: &Section<'_>) -> Result<Asked, Obstacle> {
    let asked = all_of(&sub_policies(policy, "drop", "drop_sub_policy")?)?;
    match (&asked.share, &asked.limit) {
        (Some(_), _) => {
            Err("it drops a share and leaves the others to the other policies; no rule does that".to_owned())
        }
        (_, Some(_)) => {
            Err("it drops within a limit, and leaves the others to the other policies; no rule does that".to_owned())
        }
        _ => Ok(asked),
    }
}

/// The parts of a composite policy in their order, and why others are not carried over.
pub(super) fn composite(policy: &Section<'_>) -> Result<(Vec<Asked>, Vec<Obstacle>), Obstacle> {
    let section = policy.section("composite").ok_or("`composite:` is missing")?;
    let parts = sub_policies(policy, "composite", "composite_sub_policy")?;
    let total = section.integer("max_total_spans_per_second")?.unwrap_or_default();
    let allocations: Vec<Section<'_>> = section.list("rate_allocation")?.iter().filter_map(Section::of).collect();
    let mut asks = Vec::new();
    let mut lost = vec![
        "beyond its rate a trace goes on to later rules, the other parts of this policy among them; in the Collector to the \
         other policies alone"
            .to_owned(),
    ];
    for part in &parts {
        let name = part.text("name")?.unwrap_or("part");
        let allocated = allocations.iter().find(|allocation| allocation.text("policy").ok().flatten() == Some(name));
        let percent =
            allocated.map_or(Ok(None), |allocation| allocation.integer("percent"))?.filter(|&percent| percent > 0);
        let spans = percent.map_or(total as f64 / parts.len() as f64, |percent| percent as f64 / 100.0 * total as f64);
        match asked(part) {
            Ok(one) if one.limit.is_some() => {
                lost.push(format!("`{name}` is not carried over: it has a limit of its own besides"))
            }
            Ok(_) if spans < 1.0 => lost.push(format!("`{name}` is not carried over: its rate is nothing")),
            Ok(one) => {
                let limit = Some(format!("{} spans/s", (spans as i64).min(total)));
                asks.push(Asked { limit, name: Some(name.to_owned()), ..one });
            }
            Err(reason) => lost.push(format!("`{name}` is not carried over: {reason}")),
        }
    }
    match asks.is_empty() {
        true => Err(lost.split_off(1).join("; ")),
        false => Ok((asks, lost)),
    }
}

fn denied(asked: Asked) -> Result<Asked, Obstacle> {
    match (asked.share, asked.limit, asked.clauses.as_slice()) {
        (_, Some(_), _) => Err("a limit cannot be denied: no rule keeps what is beyond one".to_owned()),
        (Some(share), None, []) => {
            let share = Some(Share { value: 1.0 - share.value, salt: format!("not {}", share.salt) });
            Ok(Asked { share, notes: asked.notes, ..Asked::default() })
        }
        (None, None, []) => Ok(Asked { clauses: vec![Clause::never()], notes: asked.notes, ..Asked::default() }),
        (None, None, [one]) => {
            let is_all = is_never(std::slice::from_ref(one));
            let clauses = if is_all { Vec::new() } else { vec![one.clone().denied()] };
            Ok(Asked { clauses, notes: asked.notes, ..Asked::default() })
        }
        _ => Err("it cannot be denied".to_owned()),
    }
}

/// A policy without others in it.
fn leaf(policy: &Section<'_>, kind: &str) -> Result<Asked, Obstacle> {
    if kind == "always_sample" {
        return Ok(Asked::default());
    }
    if kind == "trace_flags" {
        return Err("there is no condition on trace flags".to_owned());
    }
    let Some((_, read)) = LEAVES.iter().find(|(known, _)| *known == kind) else {
        return Err(format!("the type `{kind}` is not known here"));
    };
    let section = policy.section(kind).ok_or_else(|| format!("`{kind}:` is missing"))?;
    read(&section)
}

type LeafPolicy = fn(&Section<'_>) -> Result<Asked, Obstacle>;

const LEAVES: &[(&str, LeafPolicy)] = &[
    ("latency", latency),
    ("status_code", status_code),
    ("span_count", span_count),
    ("string_attribute", string_attribute),
    ("numeric_attribute", numeric_attribute),
    ("boolean_attribute", boolean_attribute),
    ("trace_state", trace_state),
    ("ottl_condition", ottl_condition),
    ("probabilistic", probabilistic),
    ("rate_limiting", rate_limiting),
    ("bytes_limiting", bytes_limiting),
];

const MILLISECOND: u64 = 1_000_000;

/// Whole milliseconds are compared: longer than 500 is 501 or more.
fn latency(section: &Section<'_>) -> Result<Asked, Obstacle> {
    let millis = |key: &str| section.integer(key).map(|value| value.unwrap_or_default());
    let (above, up_to) = (millis("threshold_ms")?, millis("upper_threshold_ms")?);
    let bound = |millis: i64| u64::try_from(millis + 1).ok().map(|millis| millis.saturating_mul(MILLISECOND));
    let range = Range { at_least: bound(above), below: if up_to == 0 { None } else { bound(up_to) } };
    if up_to != 0 && up_to <= above {
        return Ok(Asked::of(Clause::never()));
    }
    if range.at_least.is_none() && range.below.is_none() {
        return Ok(Asked::default());
    }
    let asked = Asked::of(Clause::one(ConditionDraft::Envelope(range)));
    Ok(match up_to {
        0 => asked,
        _ => asked.nearly("the Collector also keeps a longer trace of which the spans that it sees first span less than upper_threshold_ms"),
    })
}

fn status_code(section: &Section<'_>) -> Result<Asked, Obstacle> {
    let mut words = Vec::new();
    for code in section.texts("status_codes")? {
        words.push(match code {
            "ERROR" => "error".to_owned(),
            "OK" => "ok".to_owned(),
            "UNSET" => "unset".to_owned(),
            other => return Err(format!("`{other}` is no status")),
        });
    }
    Ok(Asked::of(Clause::one(match words.as_slice() {
        [] => return Err("`status_codes` is empty".to_owned()),
        [one] if one == "error" => ConditionDraft::Error(true),
        _ => ConditionDraft::AnySpan(vec![SpanTest { field: ConditionField::Status, value: text::one_of(&words) }]),
    })))
}

fn span_count(section: &Section<'_>) -> Result<Asked, Obstacle> {
    let count = |key: &str| section.integer(key).map(|value| value.unwrap_or_default().max(0) as u64);
    let (least, most) = (count("min_spans")?, count("max_spans")?);
    if most != 0 && most < least {
        return Ok(Asked::of(Clause::never()));
    }
    let range = Range { at_least: (least > 0).then_some(least), below: (most > 0).then_some(most + 1) };
    Ok(match (range.at_least, range.below) {
        (None, None) => Asked::default(),
        _ => Asked::of(Clause::one(ConditionDraft::SpanCount(range))),
    })
}

fn string_attribute(section: &Section<'_>) -> Result<Asked, Obstacle> {
    let values = section.texts("values")?;
    let is_regex = section.bool("enabled_regex_matching")?;
    let mut notes = Vec::new();
    let mut written = Vec::new();
    for value in values.into_iter().filter(|value| is_regex || !value.is_empty()) {
        if is_regex {
            let compiled = regex::Regex::new(value).map_err(|_| format!("the crate `regex` cannot read `{value}`"))?;
            if compiled.is_match("") {
                notes.push(format!("`{value}` matches the empty text too, which the Collector passes over on spans"));
            }
        }
        written.push(if is_regex { text::regex(value) } else { text::exactly(value) });
    }
    let asked = attribute(section, &written)?;
    Ok(notes.into_iter().fold(asked, Asked::nearly))
}

/// Doubles are exact up to here.
const INTEGER_MAX: i64 = 1 << 53;

fn numeric_attribute(section: &Section<'_>) -> Result<Asked, Obstacle> {
    // 0 counts as not said, as in the Collector.
    let bound = |key: &str| section.integer(key).map(|bound| bound.filter(|&bound| bound != 0));
    let (least, most) = (bound("min_value")?, bound("max_value")?);
    if least.is_none() && most.is_none() {
        return Err("it has neither `min_value` nor `max_value` (0 counts as not said)".to_owned());
    }
    if least.into_iter().chain(most).any(|bound| bound.abs() >= INTEGER_MAX) {
        return Err("its bounds are beyond 2^53, where numbers are compared roughly".to_owned());
    }
    if least.zip(most).is_some_and(|(least, most)| least > most) {
        return attribute(section, &[]);
    }
    let range = Range { at_least: least, below: most.map(|most| most + 1) };
    attribute(section, &[text::range(&range, |bound| bound.to_string())])
}

fn boolean_attribute(section: &Section<'_>) -> Result<Asked, Obstacle> {
    attribute(section, &[section.bool("value")?.to_string()])
}

/// One of these values, on a span or on a resource; or, inverted, on none.
fn attribute(section: &Section<'_>, values: &[String]) -> Result<Asked, Obstacle> {
    let key = section.text("key")?.filter(|key| !key.is_empty()).ok_or("`key` is missing")?;
    let is_inverted = section.bool("invert_match")?;
    let mut clause = Clause::never();
    if !values.is_empty() {
        let value = text::one_of(values);
        let on = |field: ConditionField| ConditionDraft::AnySpan(vec![SpanTest { field, value: value.clone() }]);
        clause.any = match key {
            "service.name" => vec![ConditionDraft::Services(value)],
            key => vec![on(ConditionField::Attribute(key.to_owned())), on(ConditionField::Resource(key.to_owned()))],
        };
    }
    let asked = match (is_inverted, values.is_empty()) {
        (true, true) => Asked::default(),
        (true, false) => Asked::of(clause.denied()),
        (false, _) => Asked::of(clause),
    };
    Ok(renamed(key).into_iter().fold(asked, Asked::nearly))
}

/// What is to be said of an attribute that also has other names.
pub(in super::super) fn renamed(key: &str) -> Option<String> {
    let others: Vec<String> =
        names_of(key).into_iter().filter(|name| name != key).map(|name| format!("`{name}`")).collect();
    let is_renamed = !others.is_empty();
    is_renamed
        .then(|| format!("`{key}` is also found as {}: the semantic conventions renamed it", others.join(" and ")))
}

fn trace_state(section: &Section<'_>) -> Result<Asked, Obstacle> {
    let key = section.text("key")?.filter(|key| !key.is_empty()).ok_or("`key` is missing")?;
    let is_possible = |value: &&str| !value.is_empty() && key.len() + value.len() < 256;
    let values: Vec<String> = section.texts("values")?.into_iter().filter(is_possible).map(text::exactly).collect();
    Ok(Asked::of(match values.as_slice() {
        [] => Clause::never(),
        values => Clause::one(ConditionDraft::TraceState(key.to_owned(), text::one_of(values))),
    }))
}

fn ottl_condition(section: &Section<'_>) -> Result<Asked, Obstacle> {
    let read = ottl::read(&section.texts("span")?, &section.texts("spanevent")?)?;
    let asked = Asked::of(Clause::of(read.atoms));
    Ok(read.keys.iter().filter_map(|key| renamed(key)).fold(asked, Asked::nearly))
}

fn probabilistic(section: &Section<'_>) -> Result<Asked, Obstacle> {
    let value = section.number("sampling_percentage")?.unwrap_or_default() / 100.0;
    if value >= 1.0 {
        return Ok(Asked::default());
    }
    if value <= 0.0 {
        return Ok(Asked::of(Clause::never()));
    }
    let salt = section.text("hash_salt")?.unwrap_or_default().to_owned();
    let asked = Asked { share: Some(Share { value, salt }), ..Asked::default() };
    Ok(asked.nearly(
        "the same share, but not the same traces: drawn by the trace's own randomness, not by a hash with a salt",
    ))
}

fn rate_limiting(section: &Section<'_>) -> Result<Asked, Obstacle> {
    limited(section.integer("spans_per_second")?, |rate| format!("{rate} spans/s"))
}

fn bytes_limiting(section: &Section<'_>) -> Result<Asked, Obstacle> {
    limited(section.integer("bytes_per_second")?, |rate| format!("{rate}B/s"))
}

fn limited(rate: Option<i64>, show: impl Fn(i64) -> String) -> Result<Asked, Obstacle> {
    Ok(match rate.unwrap_or_default() {
        ..=0 => Asked::of(Clause::never()),
        rate => Asked { limit: Some(show(rate)), ..Asked::default() },
    })
}
