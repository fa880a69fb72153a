//! Attribute values as JSON and as text, as the OpenTelemetry Collector's `pdata` writes them
//! (`pcommon.Value.AsRaw` through Go's `encoding/json`, and `AsString`).

use base64::{Engine, prelude::BASE64_STANDARD};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use std::fmt::Write;

/// An object of native JSON values. Keys are sorted; of equal keys the last wins.
pub(super) fn write_object(out: &mut String, attributes: &[KeyValue]) {
    write_members(out, attributes, write_value);
}

/// An object whose values are all text.
pub(super) fn write_text_object<'a>(out: &mut String, attributes: impl IntoIterator<Item = &'a KeyValue>) {
    write_members(out, attributes, |out, value| write_string(out, &as_text(value)));
}

/// A value as text: itself if it is a string, else its JSON without quotes.
pub(super) fn as_text(value: Option<&Value>) -> String {
    let mut out = String::new();
    match value {
        None => (),
        Some(Value::StringValue(text)) => out.push_str(text),
        Some(Value::BytesValue(bytes)) => BASE64_STANDARD.encode_string(bytes, &mut out),
        Some(Value::DoubleValue(number)) if !number.is_finite() => out.push_str(not_finite(*number)),
        value => write_value(&mut out, value),
    }
    out
}

/// The value of an attribute, if it has one.
pub(super) fn value_of(attribute: &KeyValue) -> Option<&Value> {
    attribute.value.as_ref().and_then(|value| value.value.as_ref())
}

pub(super) fn write_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

fn write_members<'a>(
    out: &mut String,
    attributes: impl IntoIterator<Item = &'a KeyValue>,
    write: impl Fn(&mut String, Option<&Value>),
) {
    let mut sorted: Vec<&KeyValue> = attributes.into_iter().collect();
    // Stable, so that the last of equal keys is the one before another key begins.
    sorted.sort_by(|a, b| a.key.cmp(&b.key));
    out.push('{');
    let mut is_first = true;
    for (index, attribute) in sorted.iter().enumerate() {
        if sorted.get(index + 1).is_some_and(|next| next.key == attribute.key) {
            continue;
        }
        if !std::mem::take(&mut is_first) {
            out.push(',');
        }
        write_string(out, &attribute.key);
        out.push(':');
        write(out, value_of(attribute));
    }
    out.push('}');
}

fn write_value(out: &mut String, value: Option<&Value>) {
    match value {
        // An index into a string table has no meaning outside of profiles.
        None | Some(Value::StringValueStrindex(_)) => out.push_str("null"),
        // Go's JSON of a slice that was never filled.
        Some(Value::BytesValue(bytes)) if bytes.is_empty() => out.push_str("null"),
        Some(Value::StringValue(text)) => write_string(out, text),
        Some(Value::BoolValue(truth)) => out.push_str(if *truth { "true" } else { "false" }),
        Some(Value::IntValue(number)) => {
            let _ = write!(out, "{number}");
        }
        Some(Value::DoubleValue(number)) => write_number(out, *number),
        Some(Value::BytesValue(bytes)) => write_string(out, &BASE64_STANDARD.encode(bytes)),
        Some(Value::KvlistValue(list)) => write_object(out, &list.values),
        Some(Value::ArrayValue(array)) => write_array(out, &array.values),
    }
}

fn write_array(out: &mut String, values: &[AnyValue]) {
    out.push('[');
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write_value(out, value.value.as_ref());
    }
    out.push(']');
}

/// A double as ECMAScript writes it. JSON has no word for infinities and NaN: they become text,
/// where Go gives up on the whole object.
fn write_number(out: &mut String, number: f64) {
    let size = number.abs();
    if !number.is_finite() {
        write_string(out, not_finite(number));
    } else if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{number:e}");
        let (mantissa, exponent) = text.split_once('e').expect("the format has an exponent");
        let sign = if exponent.starts_with('-') { "" } else { "+" };
        let _ = write!(out, "{mantissa}e{sign}{exponent}");
    } else {
        let _ = write!(out, "{number}");
    }
}

fn not_finite(number: f64) -> &'static str {
    if number.is_nan() {
        "NaN"
    } else if number > 0.0 {
        "+Inf"
    } else {
        "-Inf"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::common::v1::{ArrayValue, KeyValueList};

    fn attribute(key: &str, value: Value) -> KeyValue {
        KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
    }

    fn zoo() -> Vec<KeyValue> {
        let any = |value| AnyValue { value: Some(value) };
        vec![
            attribute("z", Value::StringValue("<a href=\"x\">&\u{1}\n\u{2028}é😀".into())),
            attribute("bytes", Value::BytesValue(vec![0, 255, 16])),
            attribute("no bytes", Value::BytesValue(vec![])),
            attribute("int", Value::IntValue(i64::MIN)),
            attribute("double", Value::DoubleValue(1.0)),
            attribute(
                "array",
                Value::ArrayValue(ArrayValue { values: vec![any(Value::BoolValue(true)), AnyValue::default()] }),
            ),
            attribute(
                "map",
                Value::KvlistValue(KeyValueList { values: vec![attribute("", Value::DoubleValue(f64::NAN))] }),
            ),
            attribute("int", Value::IntValue(7)),
            KeyValue { key: "none".into(), ..Default::default() },
        ]
    }

    #[test]
    fn objects_are_json_with_sorted_unique_keys() {
        let mut out = String::new();
        write_object(&mut out, &zoo());
        let want = "{\"array\":[true,null],\"bytes\":\"AP8Q\",\"double\":1,\"int\":7,\"map\":{\"\":\"NaN\"},\"no bytes\":null,\"none\":null,\
            \"z\":\"<a href=\\\"x\\\">&\\u0001\\n\u{2028}é😀\"}";
        assert_eq!(out, want);
        serde_json::from_str::<serde_json::Value>(&out).unwrap();
    }

    #[test]
    fn texts_of_values() {
        let mut out = String::new();
        write_text_object(&mut out, &zoo()[1..]);
        let want = r#"{"array":"[true,null]","bytes":"AP8Q","double":"1","int":"7","map":"{\"\":\"NaN\"}","no bytes":"","none":""}"#;
        assert_eq!(out, want);
        assert_eq!(as_text(Some(&Value::DoubleValue(f64::NEG_INFINITY))), "-Inf");
    }

    #[test]
    fn numbers_are_written_as_ecmascript_does() {
        for (number, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (0.1, "0.1"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (1.5e300, "1.5e+300"),
            (1e-6, "0.000001"),
            (1.25e-7, "1.25e-7"),
            (-1e-9, "-1e-9"),
        ] {
            let mut out = String::new();
            write_number(&mut out, number);
            assert_eq!(out, text);
        }
    }
}
