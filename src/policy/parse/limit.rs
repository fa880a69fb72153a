//! `limit`, `then`, `for_each` and `limit_total`, of a rule and of the limits that rules share.

use super::super::limit::{Each, KeyPart, Limit, Rate, RateUnit};
use super::super::{Limited, Then, renamed};
use super::{NAME_MAX, NamedLimit, share};
use crate::trace::question::EntryAttribute;
use crate::yaml::{Map, MappingEntry, Meaning, Node, Reader, Value, closest};

pub(super) const LIMIT_KEYS: &[&str] = &["limit", "then", "for_each", "limit_total"];

/// `limits:`, as rules may name them.
#[derive(Default)]
pub(super) struct SharedLimits<'n> {
    /// All names, also of those that have an error.
    names: Vec<&'n str>,
    pub limits: Vec<NamedLimit>,
}

pub(super) fn shared<'n>(reader: &mut Reader, node: &'n Node) -> SharedLimits<'n> {
    let Some(map) = reader.any_map(node, "`limits`") else { return SharedLimits::default() };
    SharedLimits {
        names: map.entries.iter().map(|entry| entry.key.as_str()).collect(),
        limits: map.entries.iter().filter_map(|entry| named(reader, entry)).collect(),
    }
}

/// `NAME: 200/s`, or a mapping with the keys that a rule has for its own limit.
fn named(reader: &mut Reader, entry: &MappingEntry) -> Option<NamedLimit> {
    let (name, span) = (entry.key.as_str(), entry.key_span);
    if !is_name(name) {
        let help = format!(
            "write letters, digits, `-`, `_` and `.`, beginning with a letter, at most {NAME_MAX} bytes and not `null`"
        );
        reader.error("P21", span, "this cannot be the name of a limit", "no name").help(help);
    }
    let (limit, then) = match &entry.value.value {
        Value::Scalar(_) => {
            let rate = rate(reader, &entry.value, &format!("`{name}`"))?;
            (Limit { rate, each: None }, Then::Otherwise)
        }
        _ => {
            let map = reader.map(&entry.value, "a limit", LIMIT_KEYS)?;
            let node = reader.require(&map, "limit", "a limit");
            own(reader, &map, node?)?
        }
    };
    Some(NamedLimit { name: name.to_owned(), span, limit, then })
}

/// Nobody takes it for a rate, or for nothing.
fn is_name(text: &str) -> bool {
    text.starts_with(char::is_alphabetic)
        && text.len() <= NAME_MAX
        && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.'))
        && !text.eq_ignore_ascii_case("null")
}

/// What stands in the place of a rate and cannot be meant as one. A name that cannot be one was reported in its place.
fn name_in<'n>(node: &'n Node, shared: &SharedLimits<'_>) -> Option<&'n str> {
    match &node.value {
        Value::Scalar(scalar) if scalar.meaning() != Meaning::Null => Some(scalar.text.as_str()),
        _ => None,
    }
    .filter(|text| is_name(text) || shared.names.contains(text))
}

/// `limit` with `then`, `for_each` and `limit_total`. `None` if something is wrong, `Some(None)` without a limit.
pub(super) fn limited(reader: &mut Reader, map: &Map<'_>, shared: &SharedLimits<'_>) -> Option<Option<Limited>> {
    let Some(node) = map.get("limit") else {
        let orphans: Vec<_> = ["then", "for_each", "limit_total"].into_iter().filter_map(|k| map.entry(k)).collect();
        for entry in &orphans {
            let title = format!("`{}` says nothing without `limit`", entry.key);
            reader.error("P09", entry.key_span, title, "there is no `limit` here").help("write `limit: 200/s`");
        }
        return orphans.is_empty().then_some(None);
    };
    if let Some(name) = name_in(node, shared) {
        return by_name(reader, map, name, node, shared).map(Some);
    }
    if let Value::Map(_) = &node.value {
        let help = "write `limit: 200/s` with `then`, `for_each` and `limit_total` beside it, in the rule; or give the \
                    limit a name under `limits:`, and write the name here";
        reader.error("Y05", node.span, "`limit` of a rule is a rate or a name", "this is a mapping").help(help);
        return None;
    }
    own(reader, map, node).map(|(limit, then)| Some(Limited { shared: None, limit, then }))
}

/// The limit with the rate in `node`, and what happens beyond it.
fn own(reader: &mut Reader, map: &Map<'_>, node: &Node) -> Option<(Limit, Then)> {
    let rate = rate(reader, node, "`limit`");
    let then = map.get("then").map_or(Some(Then::Otherwise), |node| then(reader, node));
    let each = each(reader, map);
    Some((Limit { rate: rate?, each: each? }, then?))
}

fn by_name(reader: &mut Reader, map: &Map<'_>, name: &str, node: &Node, shared: &SharedLimits<'_>) -> Option<Limited> {
    let misplaced: Vec<_> = ["for_each", "limit_total"].into_iter().filter_map(|key| map.entry(key)).collect();
    for entry in &misplaced {
        let title = format!("`{}` belongs to the limit `{name}`, not to a rule that shares it", entry.key);
        let help = format!("move it to `{name}` under `limits:`; a rule may say its own `then`");
        reader.error("P09", entry.key_span, title, "all rules of the limit count by the same").help(help);
    }
    let then = map.get("then").map(|node| then(reader, node));
    if !shared.names.contains(&name) {
        let near = closest(name, &shared.names);
        let label = near.map_or("no limit of this name".to_owned(), |near| format!("did you mean `{near}`?"));
        let help = match shared.names.as_slice() {
            [] => format!("write a rate like `200/s`, or define the limit: `limits: {{ {name}: 200/s }}`"),
            names => format!("write a rate like `200/s`, or one of `limits:`, which are {}", names.join(", ")),
        };
        reader.error("P21", node.span, format!("no limit is named `{name}`"), label).help(help);
    }
    // One that has an error was reported.
    let known = shared.limits.iter().find(|known| known.name == name)?;
    let then = then.unwrap_or(Some(known.then))?;
    misplaced.is_empty().then(|| Limited { shared: Some(name.to_owned()), limit: known.limit.clone(), then })
}

fn then(reader: &mut Reader, node: &Node) -> Option<Then> {
    match reader.scalar(node, "`then`")?.text.as_str() {
        "otherwise" => Some(Then::Otherwise),
        "next" => Some(Then::Next),
        "none" => Some(Then::None),
        _ => share(reader, node, "`then`", &["otherwise", "next", "none"]).map(Then::Share),
    }
}

fn each(reader: &mut Reader, map: &Map<'_>) -> Option<Option<Each>> {
    let total = map.get("limit_total").map(|node| rate(reader, node, "`limit_total`"));
    let Some(entry) = map.entry("for_each") else {
        if let Some(entry) = map.entry("limit_total") {
            let title = "`limit_total` says nothing without `for_each`";
            reader
                .error("P09", entry.key_span, title, "`limit` is the total here")
                .help("remove it, or add `for_each`");
            return None;
        }
        return Some(None);
    };
    if total.is_none() {
        reader
            .error("P09", entry.key_span, "`for_each` needs `limit_total`", "its keys have no bound together")
            .help("add the rate that all keys together may reach, like `limit_total: 20/s`");
    }
    let parts: Vec<Option<KeyPart>> =
        reader.one_or_more(&entry.value, "`for_each`")?.iter().map(|item| key_part(reader, item)).collect();
    let mut parts = parts.into_iter().collect::<Option<Vec<_>>>()?;
    parts.sort();
    parts.dedup();
    total.flatten().map(|total| Some(Each { parts, total }))
}

/// `entry.service`, `entry.name`, `entry.attributes.KEY` or `entry.resource.KEY`.
fn key_part(reader: &mut Reader, node: &Node) -> Option<KeyPart> {
    let text = reader.text(node, "`for_each`")?;
    for (prefix, of_resource) in [("entry.attributes.", false), ("entry.resource.", true)] {
        if let Some(key) = text.strip_prefix(prefix).filter(|key| !key.is_empty()) {
            return Some(KeyPart::Attribute(EntryAttribute { of_resource, keys: renamed::names_of(key) }));
        }
    }
    match text {
        "entry.service" => return Some(KeyPart::Service),
        "entry.name" => return Some(KeyPart::Name),
        _ => {}
    }
    let known = ["entry.service", "entry.name"];
    let is_attribute = text.contains('.') && !reader.is_foreign(text, &known) && closest(text, &known).is_none();
    if !is_attribute {
        let help = "write `entry.service`, `entry.name`, `entry.attributes.KEY` or `entry.resource.KEY`".to_owned();
        return reader.unknown_word("Y08", node, "`for_each`", &known, help);
    }
    let key = text.strip_prefix("entry.").unwrap_or(text);
    let key = match key.split_once('.') {
        Some((first, key)) if closest(first, &["attributes", "resource"]).is_some() => key,
        _ => key,
    };
    let key = if key.is_empty() { "KEY" } else { key };
    let help = format!("write `entry.attributes.{key}`, or `entry.resource.{key}` if it is of the resource");
    let title = format!("`{text}` is not a word for `for_each`");
    reader.error("P03", node.span, title, "say of what it is an attribute").help(help);
    None
}

/// `200/s`, `5000 spans/s`, `10MiB/s`, `1/min`.
fn rate(reader: &mut Reader, node: &Node, what: &str) -> Option<Rate> {
    let text = &reader.scalar(node, what)?.text;
    match parse_rate(text) {
        Ok(rate) => Some(rate),
        Err(help) => {
            let title = format!("`{text}` is not a rate");
            reader.error("P08", node.span, title, format!("the value of {what}")).help(help);
            None
        }
    }
}

fn parse_rate(text: &str) -> Result<Rate, String> {
    let usual = "write traces like `200/s`, spans like `5000 spans/s`, bytes like `10MiB/s`, per `s` or `min`";
    let Some((amount, period)) = text.split_once('/') else {
        return Err(match text.parse::<u64>() {
            Ok(number) => format!("say the period: `{number}/s` or `{number}/min`"),
            Err(_) => usual.to_owned(),
        });
    };
    let period_ms = match period.trim() {
        "s" => 1000,
        "min" => 60_000,
        "m" | "minute" => return Err(format!("write `{}/min`", amount.trim())),
        "sec" | "second" => return Err(format!("write `{}/s`", amount.trim())),
        _ => return Err(usual.to_owned()),
    };
    let digits = amount.bytes().take_while(u8::is_ascii_digit).count();
    let (unit, amount) = match amount[digits..].trim() {
        "" | "trace" | "traces" => (RateUnit::Traces, amount[..digits].parse().ok()),
        "span" | "spans" => (RateUnit::Spans, amount[..digits].parse().ok()),
        _ => (RateUnit::Bytes, crate::yaml::parse_size(amount.trim())),
    };
    match amount {
        Some(0) => Err("a limit of nothing is `keep: none` without a limit".to_owned()),
        Some(amount) if amount <= Rate::AMOUNT_MAX => Ok(Rate { amount, unit, period_ms }),
        Some(_) => Err("leave the limit out: nothing reaches this rate".to_owned()),
        None => Err(format!("{usual}; whole numbers only")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_traces_spans_or_bytes() {
        let rate = |amount, unit, period_ms| Ok(Rate { amount, unit, period_ms });
        assert_eq!(parse_rate("200/s"), rate(200, RateUnit::Traces, 1000));
        assert_eq!(parse_rate("1/min"), rate(1, RateUnit::Traces, 60_000));
        assert_eq!(parse_rate("5000 spans/s"), rate(5000, RateUnit::Spans, 1000));
        assert_eq!(parse_rate("10MiB/s"), rate(10 << 20, RateUnit::Bytes, 1000));
        assert_eq!(parse_rate("1.5KiB / min"), rate(1536, RateUnit::Bytes, 60_000));
        for wrong in ["200", "0/s", "0.5/s", "200/h", "200/m", "/s", "-5/s", "many/s", "99999999999999999999/s"] {
            assert!(parse_rate(wrong).is_err(), "{wrong}");
        }
    }
}
