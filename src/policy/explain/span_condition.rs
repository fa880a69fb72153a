//! Tests on one decoded span, answered in words.

use super::decoded::DecodedSpan;
use crate::policy::pattern;
use crate::trace::question::{Pattern, Range, Test, ValuePattern, ValueTest};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};

/// Whether a condition holds, and what was seen that says so.
#[derive(Clone, PartialEq, Debug)]
pub struct ConditionFinding {
    pub holds: bool,
    pub seen: String,
}

impl ConditionFinding {
    pub fn new(holds: bool, seen: impl Into<String>) -> ConditionFinding {
        ConditionFinding { holds, seen: seen.into() }
    }
}

/// One field of one span.
pub fn of_test(test: &Test, span: &DecodedSpan) -> ConditionFinding {
    match test {
        Test::Service(wanted) => of_text(wanted, "service", span.service()),
        Test::Name(wanted) => of_text(wanted, "name", &span.span.name),
        Test::SpanKind(wanted) => {
            ConditionFinding::new(wanted.contains(&span.kind()), format!("kind is {}", span.kind().word()))
        }
        Test::Status(wanted) => {
            ConditionFinding::new(wanted.contains(&span.status()), format!("status is {}", span.status().word()))
        }
        Test::StatusMessage(wanted) => match span.status_message() {
            "" => ConditionFinding::new(false, "no status message"),
            message => of_text(wanted, "status message", message),
        },
        Test::Duration(range) => of_range(range, span.duration(), &duration(span.duration()), |d| duration(*d)),
        Test::Attribute { keys, values } => of_attribute(keys, values, &span.span.attributes, ""),
        Test::Resource { keys, values } => of_attribute(keys, values, &span.resource, "resource "),
        Test::Event(wanted) => of_events(wanted, span),
        Test::TraceState { key, values } => match span.trace_state(key) {
            Some(value) => of_text(values, &format!("trace_state {key}"), value),
            None => ConditionFinding::new(false, format!("trace_state has no {key}")),
        },
    }
}

fn of_text(wanted: &[Pattern], what: &str, text: &str) -> ConditionFinding {
    let holds = wanted.iter().any(|pattern| pattern::holds(pattern, text.as_bytes()));
    ConditionFinding::new(holds, format!("{what} is {text:?}"))
}

fn of_events(wanted: &[Pattern], span: &DecodedSpan) -> ConditionFinding {
    let is_wanted = |name: &str| wanted.iter().any(|pattern| pattern::holds(pattern, name.as_bytes()));
    let names: Vec<&str> = span.span.events.iter().map(|event| event.name.as_str()).collect();
    match names.iter().find(|name| is_wanted(name)) {
        Some(name) => ConditionFinding::new(true, format!("event {name:?}")),
        None if names.is_empty() => ConditionFinding::new(false, "no event"),
        None => ConditionFinding::new(false, format!("its events are {}", names.join(", "))),
    }
}

pub fn of_range<T: PartialOrd + Copy>(
    range: &Range<T>,
    value: T,
    shown: &str,
    show: impl Fn(&T) -> String,
) -> ConditionFinding {
    let low = range.at_least.map(|low| (value >= low, "at least", show(&low)));
    let high = range.below.map(|high| (value < high, "below", show(&high)));
    let bounds: Vec<_> = low.into_iter().chain(high).collect();
    match bounds.iter().find(|(holds, ..)| !holds) {
        Some((_, word, bound)) => ConditionFinding::new(false, format!("{shown} is not {word} {bound}")),
        None => {
            let bounds: Vec<String> = bounds.iter().map(|(_, word, bound)| format!("{word} {bound}")).collect();
            ConditionFinding::new(true, format!("{shown} is {}", bounds.join(" and ")))
        }
    }
}

fn of_attribute(keys: &[String], test: &ValueTest, attributes: &[KeyValue], prefix: &str) -> ConditionFinding {
    let found: Vec<&KeyValue> = attributes.iter().filter(|attribute| keys.contains(&attribute.key)).collect();
    let name = |attribute: &KeyValue| format!("{prefix}{}", attribute.key);
    match (test, found.first()) {
        (ValueTest::Exists(wanted), Some(first)) => ConditionFinding::new(*wanted, format!("{} is there", name(first))),
        (ValueTest::Exists(wanted), None) => {
            ConditionFinding::new(!*wanted, format!("{prefix}{} is not there", keys[0]))
        }
        (ValueTest::OneOf(_), None) => ConditionFinding::new(false, format!("{prefix}{} is not there", keys[0])),
        (ValueTest::OneOf(wanted), Some(first)) => {
            let value_of = |kv: &KeyValue| kv.value.as_ref().and_then(|value| value.value.clone());
            let is_wanted = |kv: &&&KeyValue| value_of(kv).is_some_and(|v| wanted.iter().any(|w| equals(w, &v)));
            match found.iter().find(is_wanted) {
                Some(hit) => ConditionFinding::new(true, format!("{} is {}", name(hit), shown(value_of(hit).as_ref()))),
                None => ConditionFinding::new(
                    false,
                    format!("{} is {}", name(first), mismatch(wanted, value_of(first).as_ref())),
                ),
            }
        }
    }
}

fn equals(wanted: &ValuePattern, value: &Value) -> bool {
    match (wanted, value) {
        (_, Value::ArrayValue(array)) => {
            let elements = array.values.iter().filter_map(|element| element.value.as_ref());
            elements.into_iter().any(|element| !matches!(element, Value::ArrayValue(_)) && equals(wanted, element))
        }
        (ValuePattern::Text(wanted), Value::StringValue(text)) => pattern::holds(wanted, text.as_bytes()),
        (ValuePattern::Bool(wanted), Value::BoolValue(value)) => wanted == value,
        (ValuePattern::Number(wanted), _) => number(value).is_some_and(|value| value == *wanted),
        (ValuePattern::Range(range), _) => number(value).is_some_and(|value| range.contains(value)),
        _ => false,
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::IntValue(value) => Some(*value as f64),
        Value::DoubleValue(value) => Some(*value),
        _ => None,
    }
}

fn shown(value: Option<&Value>) -> String {
    match value {
        Some(Value::StringValue(text)) => format!("{text:?}"),
        Some(Value::BoolValue(value)) => value.to_string(),
        Some(Value::IntValue(value)) => value.to_string(),
        Some(Value::DoubleValue(value)) => value.to_string(),
        Some(Value::ArrayValue(array)) => {
            let elements: Vec<String> = array.values.iter().map(|element| shown(element.value.as_ref())).collect();
            format!("[{}]", elements.join(", "))
        }
        Some(Value::KvlistValue(_)) => "a map".to_owned(),
        Some(Value::BytesValue(_)) => "bytes".to_owned(),
        Some(Value::StringValueStrindex(_)) | None => "empty".to_owned(),
    }
}

/// What was seen, and if only its type is wrong, that.
fn mismatch(wanted: &[ValuePattern], value: Option<&Value>) -> String {
    let shown = shown(value);
    let wants = |value: &Value| wanted.iter().any(|wanted| equals(wanted, value));
    let wanted_type = match value {
        Some(Value::StringValue(text)) => {
            let number = crate::yaml::number(text).filter(|number| wants(&Value::DoubleValue(*number)));
            let boolean = text.parse().ok().filter(|value| wants(&Value::BoolValue(*value)));
            return match (number, boolean) {
                (Some(_), _) => format!("the string {shown}, the rule wants a number"),
                (None, Some(_)) => format!("the string {shown}, the rule wants true or false"),
                (None, None) => shown,
            };
        }
        Some(Value::IntValue(_) | Value::DoubleValue(_)) => "number",
        Some(Value::BoolValue(_)) => "boolean",
        _ => return shown,
    };
    if wants(&Value::StringValue(shown.clone())) {
        format!("the {wanted_type} {shown}, the rule wants a string")
    } else {
        shown
    }
}

/// Exact, so that a value never looks like the bound that it misses.
pub fn duration(nanos: u64) -> String {
    let (unit, size) = match nanos {
        0..1_000 => ("ns", 1),
        1_000..1_000_000 => ("us", 1_000),
        1_000_000..1_000_000_000 => ("ms", 1_000_000),
        _ => ("s", 1_000_000_000),
    };
    let (whole, rest) = (nanos / size, nanos % size);
    let digits = size.ilog10() as usize;
    let fraction = format!("{rest:0digits$}");
    match fraction.trim_end_matches('0') {
        "" => format!("{whole} {unit}"),
        fraction => format!("{whole}.{fraction} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_exact() {
        for (nanos, text) in [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_500, "1.5 us"),
            (300_000_000, "300 ms"),
            (499_999_999, "499.999999 ms"),
            (1_840_000_000, "1.84 s"),
        ] {
            assert_eq!(duration(nanos), text);
        }
    }

    #[test]
    fn a_difference_of_type_alone_is_named() {
        let number = [ValuePattern::Range(Range { at_least: Some(500.0), below: None })];
        let text = [ValuePattern::Text(Pattern::Exact("500".into()))];
        let truth = [ValuePattern::Bool(true)];
        let string = |text: &str| Value::StringValue(text.into());
        assert_eq!(mismatch(&number, Some(&string("503"))), "the string \"503\", the rule wants a number");
        assert_eq!(mismatch(&number, Some(&string("404"))), "\"404\"");
        assert_eq!(mismatch(&text, Some(&Value::IntValue(500))), "the number 500, the rule wants a string");
        assert_eq!(mismatch(&truth, Some(&string("true"))), "the string \"true\", the rule wants true or false");
    }
}
