//! Attributes as a JSON object, for `attributes ->> 'http.route'`.

use base64::{Engine, engine::general_purpose::STANDARD};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};

/// Integers and doubles are numbers; bytes are base64, and doubles that JSON lacks are, as text.
pub(super) fn object(attributes: &[KeyValue]) -> String {
    let mut out = String::with_capacity(32 * attributes.len() + 2);
    put_object(&mut out, attributes);
    out
}

/// Names as an array of texts.
pub(super) fn array<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut out = String::from("[");
    for (at, name) in names.enumerate() {
        separate(&mut out, at);
        put_text(&mut out, name);
    }
    out.push(']');
    out
}

fn put_object(out: &mut String, attributes: &[KeyValue]) {
    out.push('{');
    for (at, attribute) in attributes.iter().enumerate() {
        separate(out, at);
        put_text(out, &attribute.key);
        out.push(':');
        put_value(out, attribute.value.as_ref());
    }
    out.push('}');
}

/// The nesting was bounded when the protobuf was decoded.
fn put_value(out: &mut String, value: Option<&AnyValue>) {
    match value.and_then(|any| any.value.as_ref()) {
        None | Some(Value::StringValueStrindex(_)) => out.push_str("null"),
        Some(Value::StringValue(text)) => put_text(out, text),
        Some(Value::BoolValue(value)) => out.push_str(if *value { "true" } else { "false" }),
        Some(Value::IntValue(value)) => out.push_str(&value.to_string()),
        Some(Value::DoubleValue(value)) if value.is_finite() => out.push_str(&format!("{value:?}")),
        Some(Value::DoubleValue(value)) => put_text(out, &value.to_string()),
        Some(Value::BytesValue(bytes)) => put_text(out, &STANDARD.encode(bytes)),
        Some(Value::KvlistValue(list)) => put_object(out, &list.values),
        Some(Value::ArrayValue(list)) => {
            out.push('[');
            for (at, value) in list.values.iter().enumerate() {
                separate(out, at);
                put_value(out, Some(value));
            }
            out.push(']');
        }
    }
}

fn separate(out: &mut String, at: usize) {
    if at > 0 {
        out.push(',');
    }
}

fn put_text(out: &mut String, text: &str) {
    out.push('"');
    let mut rest = text;
    while let Some(at) = rest.bytes().position(|byte| byte == b'"' || byte == b'\\' || byte < 0x20) {
        out.push_str(&rest[..at]);
        match rest.as_bytes()[at] {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            control => out.push_str(&format!("\\u{control:04x}")),
        }
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::common::v1::{ArrayValue, KeyValueList};

    fn any(value: Value) -> AnyValue {
        AnyValue { value: Some(value) }
    }

    fn attribute(key: &str, value: Value) -> KeyValue {
        KeyValue { key: key.to_owned(), value: Some(any(value)), ..Default::default() }
    }

    #[test]
    fn every_kind_of_value_is_json() {
        let list = ArrayValue { values: vec![any(Value::IntValue(1)), any(Value::BoolValue(true))] };
        let map = KeyValueList { values: vec![attribute("inner", Value::DoubleValue(f64::NAN))] };
        let text = object(&[
            attribute("text \"\\\n", Value::StringValue("grüße\u{1}".to_owned())),
            attribute("int", Value::IntValue(i64::MIN)),
            attribute("double", Value::DoubleValue(1.0)),
            attribute("bytes", Value::BytesValue(vec![1, 2])),
            attribute("list", Value::ArrayValue(list)),
            attribute("map", Value::KvlistValue(map)),
            KeyValue { key: "none".to_owned(), ..Default::default() },
        ]);
        let expected = serde_json::json!({
            "text \"\\\n": "grüße\u{1}", "int": i64::MIN, "double": 1.0, "bytes": "AQI=",
            "list": [1, true], "map": {"inner": "NaN"}, "none": null,
        });
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), expected);
        assert_eq!(array(["a", "b\""].into_iter()), r#"["a","b\""]"#);
    }
}
