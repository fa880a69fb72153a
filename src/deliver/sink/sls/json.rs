//! Attribute values as JSON and as text, as the OpenTelemetry Collector's `pdata` writes them
//! (`pcommon.Value.AsRaw` through Go's `encoding/json`, and `AsString`), from their protobuf bytes.

use crate::otlp::{
    walk::{all, fields_of, last, lossy},
    wire::Value,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use std::fmt::Write;

/// Attributes of one item that are sorted at a time: each takes 32 bytes, and two on the wire.
pub(super) const ATTRIBUTES_MAX: usize = 65_536;
/// Lists and maps nested deeper than this are null.
const DEPTH_MAX: usize = 64;

/// Text up to a limit: two bytes on the wire can become forty.
#[derive(Debug)]
pub(super) struct Text {
    text: String,
    limit: usize,
    attributes: usize,
    is_over: bool,
}

impl Text {
    pub(super) fn new(limit: usize) -> Text {
        Text { text: String::new(), limit, attributes: 0, is_over: false }
    }

    pub(super) fn push(&mut self, text: &str) {
        if self.text.len() + text.len() > self.limit {
            self.is_over = true;
        } else {
            self.text.push_str(text);
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// What was written; none if it was more than the limit.
    pub(super) fn finish(self) -> Option<String> {
        (!self.is_over).then_some(self.text)
    }
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.push(text);
        Ok(())
    }
}

/// Key and value of a `KeyValue`.
pub(super) fn pair(attribute: &[u8]) -> (&[u8], &[u8]) {
    (last(attribute, 1).unwrap_or_default(), last(attribute, 2).unwrap_or_default())
}

/// An object of native JSON values. Keys are sorted; of equal keys the last wins.
pub(super) fn write_object<'a>(out: &mut Text, attributes: impl Iterator<Item = &'a [u8]>) {
    write_members(out, attributes, &|out, value| write_value(out, value, DEPTH_MAX));
}

/// An object whose values are all text.
pub(super) fn write_text_object<'a>(out: &mut Text, attributes: impl Iterator<Item = &'a [u8]>) {
    write_members(out, attributes, &|out, value| {
        let mut text = Text::new(out.limit);
        write_as_text(&mut text, value);
        out.is_over |= text.is_over;
        write_string(out, &text.text);
    });
}

/// A value as text: itself if it is a string, else its JSON without quotes.
pub(super) fn write_as_text(out: &mut Text, any: &[u8]) {
    match value_of(any) {
        None => {}
        Some((1, Value::Bytes(text))) => out.push(&lossy(text)),
        Some((4, Value::Fixed64(bits))) if !f64::from_bits(bits).is_finite() => {
            out.push(not_finite(f64::from_bits(bits)))
        }
        Some((7, Value::Bytes(bytes))) => out.push(&BASE64_STANDARD.encode(bytes)),
        Some(_) => write_value(out, any, DEPTH_MAX),
    }
}

/// Of what occurs in an `AnyValue`, the last counts. Its number says what it is.
fn value_of(any: &[u8]) -> Option<(u32, Value<&[u8]>)> {
    let found = fields_of(any).filter(|field| (1..=8).contains(&field.number)).last()?;
    Some((found.number, found.value))
}

pub(super) fn write_string(out: &mut Text, text: &str) {
    out.push("\"");
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c < ' ' || c == '"' || c == '\\') {
        out.push(&rest[..at]);
        match rest.as_bytes()[at] {
            b'"' => out.push("\\\""),
            b'\\' => out.push("\\\\"),
            b'\n' => out.push("\\n"),
            b'\r' => out.push("\\r"),
            b'\t' => out.push("\\t"),
            control => {
                let _ = write!(out, "\\u{control:04x}");
            }
        }
        rest = &rest[at + 1..];
    }
    out.push(rest);
    out.push("\"");
}

fn write_members<'a>(out: &mut Text, attributes: impl Iterator<Item = &'a [u8]>, write: &dyn Fn(&mut Text, &'a [u8])) {
    let mut sorted: Vec<(&[u8], &[u8])> = Vec::new();
    for attribute in attributes {
        out.attributes += 1;
        if out.attributes > ATTRIBUTES_MAX {
            out.is_over = true;
            return;
        }
        sorted.push(pair(attribute));
    }
    // Stable, so that the last of equal keys is the one before another key begins.
    sorted.sort_by_key(|(key, _)| *key);
    out.push("{");
    let mut is_first = true;
    for (index, (key, value)) in sorted.iter().enumerate() {
        if sorted.get(index + 1).is_some_and(|(next, _)| next == key) {
            continue;
        }
        if !std::mem::take(&mut is_first) {
            out.push(",");
        }
        write_string(out, &lossy(key));
        out.push(":");
        write(out, value);
    }
    out.push("}");
}

fn write_value(out: &mut Text, any: &[u8], depth: usize) {
    if out.is_over {
        return;
    }
    match value_of(any) {
        Some((1, Value::Bytes(text))) => write_string(out, &lossy(text)),
        Some((2, Value::Varint(truth))) => out.push(if truth != 0 { "true" } else { "false" }),
        Some((3, Value::Varint(number))) => {
            let _ = write!(out, "{}", number as i64);
        }
        Some((4, Value::Fixed64(bits))) => write_number(out, f64::from_bits(bits)),
        Some((5, Value::Bytes(list))) if depth > 0 => write_array(out, list, depth - 1),
        Some((6, Value::Bytes(map))) if depth > 0 => {
            write_members(out, all(map, 1), &|out, value| write_value(out, value, depth - 1));
        }
        Some((7, Value::Bytes(bytes))) if !bytes.is_empty() => write_string(out, &BASE64_STANDARD.encode(bytes)),
        // Go's JSON of a slice that was never filled is null; so is an index into a string table, which has no meaning
        // outside of profiles.
        _ => out.push("null"),
    }
}

fn write_array(out: &mut Text, list: &[u8], depth: usize) {
    out.push("[");
    for (index, value) in all(list, 1).enumerate() {
        if index > 0 {
            out.push(",");
        }
        write_value(out, value, depth);
    }
    out.push("]");
}

/// A double as ECMAScript writes it. JSON has no word for infinities and NaN: they become text,
/// where Go gives up on the whole object.
fn write_number(out: &mut Text, number: f64) {
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
    use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList, any_value::Value};
    use prost::Message;

    fn attribute(key: &str, value: Value) -> KeyValue {
        KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
    }

    fn zoo() -> Vec<Vec<u8>> {
        let any = |value| AnyValue { value: Some(value) };
        let zoo = vec![
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
        ];
        zoo.iter().map(KeyValue::encode_to_vec).collect()
    }

    fn object(attributes: &[Vec<u8>], write: impl Fn(&mut Text, &mut dyn Iterator<Item = &[u8]>)) -> Option<String> {
        let mut out = Text::new(1 << 20);
        write(&mut out, &mut attributes.iter().map(Vec::as_slice));
        out.finish()
    }

    #[test]
    fn objects_are_json_with_sorted_unique_keys() {
        let out = object(&zoo(), |out, attributes| write_object(out, attributes)).unwrap();
        let want = "{\"array\":[true,null],\"bytes\":\"AP8Q\",\"double\":1,\"int\":7,\"map\":{\"\":\"NaN\"},\"no bytes\":null,\"none\":null,\
            \"z\":\"<a href=\\\"x\\\">&\\u0001\\n\u{2028}é😀\"}";
        assert_eq!(out, want);
        serde_json::from_str::<serde_json::Value>(&out).unwrap();
    }

    #[test]
    fn texts_of_values() {
        let out = object(&zoo()[1..], |out, attributes| write_text_object(out, attributes)).unwrap();
        let want = r#"{"array":"[true,null]","bytes":"AP8Q","double":"1","int":"7","map":"{\"\":\"NaN\"}","no bytes":"","none":""}"#;
        assert_eq!(out, want);
        let mut out = Text::new(99);
        let any = AnyValue { value: Some(Value::DoubleValue(f64::NEG_INFINITY)) };
        write_as_text(&mut out, &any.encode_to_vec());
        assert_eq!(out.finish().unwrap(), "-Inf");
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
            let mut out = Text::new(99);
            write_number(&mut out, number);
            assert_eq!(out.finish().unwrap(), text);
        }
    }

    #[test]
    fn what_is_more_than_the_limit_is_nothing() {
        let mut out = Text::new(4);
        write_string(&mut out, "ab");
        assert!(!out.is_over());
        out.push("c");
        assert_eq!(out.finish(), None);

        let attributes = vec![vec![]; ATTRIBUTES_MAX];
        assert_eq!(object(&attributes, |out, all| write_object(out, all)).unwrap(), r#"{"":null}"#);
        let attributes = vec![vec![]; ATTRIBUTES_MAX + 1];
        assert_eq!(object(&attributes, |out, all| write_object(out, all)), None);
    }

    /// Deep enough to end on a small stack, if nothing stopped it.
    #[test]
    fn deep_values_end_in_null() {
        let mut any = AnyValue { value: Some(Value::IntValue(1)) }.encode_to_vec();
        for _ in 0..20_000 {
            let (mut list, mut outer) = (Vec::new(), Vec::new());
            crate::otlp::wire::put_bytes(&mut list, 1, &any);
            crate::otlp::wire::put_bytes(&mut outer, 5, &list);
            any = outer;
        }
        let mut out = Text::new(1 << 20);
        write_value(&mut out, &any, DEPTH_MAX);
        assert_eq!(out.finish().unwrap(), format!("{}null{}", "[".repeat(DEPTH_MAX), "]".repeat(DEPTH_MAX)));
    }
}
