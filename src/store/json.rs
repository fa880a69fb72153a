//! Attributes as a JSON object, for `attributes ->> 'http.route'`.

use super::span::key_value;
use crate::otlp::walk::{all, lossy};
use crate::otlp::wire::{Fields, Value};
use base64::{Engine, engine::general_purpose::STANDARD};
use std::fmt::Write;

/// Lists and maps nested deeper than this are shown as null.
const DEPTH_MAX: u32 = 64;

/// Appends the attributes that are field `number` of a message, such as 9 of a `Span`. Integers and
/// doubles are numbers; bytes are base64, and doubles that JSON lacks are, as text.
/// Source: opentelemetry-proto, `common.proto`.
pub(super) fn put_attributes(out: &mut String, message: &[u8], number: u32) {
    put_object(out, message, number, DEPTH_MAX);
}

/// Names as an array of texts.
pub(super) fn array<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut out = String::from("[");
    for (at, name) in names.enumerate() {
        separate(&mut out, at);
        put_text(&mut out, name.as_bytes());
    }
    out.push(']');
    out
}

fn put_object(out: &mut String, message: &[u8], number: u32, depth: u32) {
    out.push('{');
    for (at, attribute) in all(message, number).enumerate() {
        separate(out, at);
        let (key, value) = key_value(attribute);
        put_text(out, key);
        out.push(':');
        put_value(out, value, depth);
    }
    out.push('}');
}

/// An `AnyValue`: of what occurs in it, the last counts.
fn put_value(out: &mut String, any: &[u8], depth: u32) {
    let Some(field) = Fields::new(any).flatten().filter(|field| (1..=7).contains(&field.number)).last() else {
        return out.push_str("null");
    };
    match (field.number, field.value) {
        (1, Value::Bytes(text)) => put_text(out, text),
        (2, Value::Varint(value)) => out.push_str(if value != 0 { "true" } else { "false" }),
        (3, Value::Varint(value)) => put(out, format_args!("{}", value as i64)),
        (4, Value::Fixed64(bits)) => match f64::from_bits(bits) {
            value if value.is_finite() => put(out, format_args!("{value:?}")),
            value => put(out, format_args!("\"{value}\"")),
        },
        (5, Value::Bytes(list)) if depth > 0 => put_list(out, list, depth - 1),
        (6, Value::Bytes(map)) if depth > 0 => put_object(out, map, 1, depth - 1),
        (7, Value::Bytes(bytes)) => put_text(out, STANDARD.encode(bytes).as_bytes()),
        _ => out.push_str("null"),
    }
}

fn put_list(out: &mut String, list: &[u8], depth: u32) {
    out.push('[');
    for (at, value) in all(list, 1).enumerate() {
        separate(out, at);
        put_value(out, value, depth);
    }
    out.push(']');
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a string takes everything");
}

fn separate(out: &mut String, at: usize) {
    if at > 0 {
        out.push(',');
    }
}

fn put_text(out: &mut String, text: &[u8]) {
    let text = lossy(text);
    out.push('"');
    // Nearly every text is plain, and this loop looks at many bytes at once.
    match text.bytes().fold(true, |plain, byte| plain & !needs_escape(byte)) {
        true => out.push_str(&text),
        false => put_escaped(out, &text),
    }
    out.push('"');
}

fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

fn put_escaped(out: &mut String, mut rest: &str) {
    while let Some(at) = rest.bytes().position(needs_escape) {
        out.push_str(&rest[..at]);
        match rest.as_bytes()[at] {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            control => put(out, format_args!("\\u{control:04x}")),
        }
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
}

#[cfg(test)]
mod tests {
    use super::{array, put_attributes};
    use opentelemetry_proto::tonic::{
        common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList, any_value::Value},
        resource::v1::Resource,
    };
    use prost::Message;

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
        let attributes = vec![
            attribute("text \"\\\n", Value::StringValue("grüße\u{1}".to_owned())),
            attribute("int", Value::IntValue(i64::MIN)),
            attribute("double", Value::DoubleValue(1.0)),
            attribute("bytes", Value::BytesValue(vec![1, 2])),
            attribute("list", Value::ArrayValue(list)),
            attribute("map", Value::KvlistValue(map)),
            KeyValue { key: "none".to_owned(), ..Default::default() },
        ];
        let resource = Resource { attributes, ..Default::default() };
        let mut text = String::new();
        put_attributes(&mut text, &resource.encode_to_vec(), 1);
        let expected = serde_json::json!({
            "text \"\\\n": "grüße\u{1}", "int": i64::MIN, "double": 1.0, "bytes": "AQI=",
            "list": [1, true], "map": {"inner": "NaN"}, "none": null,
        });
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), expected);
        assert_eq!(array(["a", "b\""].into_iter()), r#"["a","b\""]"#);
    }
}
