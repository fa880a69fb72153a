//! Whether a request holds anything at all: a sender that speaks another dialect is told so in words,
//! where it would otherwise hear that all is well and find nothing.

use crate::terminal::quote;
use crate::trace::Signal;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use std::fmt;

/// Characters of a foreign key that an answer shows.
const KEY_MAX: usize = 60;

/// What to tell the sender of a request in which nothing is known; none for one that holds something, and
/// for one that is empty. Costs a normal request the look at its first fields.
pub(super) fn complaint(signal: Signal, protobuf: &[u8]) -> Option<String> {
    // Resource…(1), Scope…(2), and the item is 2 in all three.
    let is_foreign = !protobuf.is_empty() && holds(protobuf, &[1, 2, 2]) == Some(false);
    is_foreign.then(|| {
        let (item, list) = words(signal);
        format!(
            "the request was taken, but there is no {item} in it: it should be an Export{}ServiceRequest with {list}",
            service(signal)
        )
    })
}

/// The same for OTLP/JSON of which nothing was left: it may be empty, or its keys are all foreign.
pub(super) fn complaint_about_json(signal: Signal, json: &[u8]) -> Option<String> {
    let key = serde_json::Deserializer::from_slice(json).deserialize_map(OnlyForeign(list(signal))).ok()??;
    let (item, list) = words(signal);
    let key = quote(&key, KEY_MAX);
    Some(format!(
        "the request was taken, but there is no {item} in it: it has the key \"{key}\", and should have {list}"
    ))
}

fn service(signal: Signal) -> &'static str {
    ["Trace", "Metrics", "Logs"][signal as usize]
}

/// The key of a request's list, as OTLP/JSON and as protobuf writes it.
fn list(signal: Signal) -> [&'static str; 2] {
    [["resourceSpans", "resource_spans"], ["resourceMetrics", "resource_metrics"], ["resourceLogs", "resource_logs"]]
        [signal as usize]
}

fn words(signal: Signal) -> (&'static str, &'static str) {
    [
        ("span", "`resourceSpans`, `scopeSpans` and `spans`"),
        ("metric", "`resourceMetrics`, `scopeMetrics` and `metrics`"),
        ("log record", "`resourceLogs`, `scopeLogs` and `logRecords`"),
    ][signal as usize]
}

/// Whether a field is there at the end of a path of field numbers; none if that cannot be read. Fields beside
/// it are skipped by their length.
fn holds(message: &[u8], path: &[u32]) -> Option<bool> {
    let [number, rest @ ..] = path else { return Some(true) };
    let mut left = message;
    while !left.is_empty() {
        let (tag, wire_type) = decode_key(&mut left).ok()?;
        if tag == *number && wire_type == WireType::LengthDelimited {
            let length = usize::try_from(decode_varint(&mut left).ok()?).ok()?;
            let (inner, behind) = left.split_at_checked(length)?;
            if holds(inner, rest)? {
                return Some(true);
            }
            left = behind;
        } else {
            skip_field(wire_type, tag, &mut left, DecodeContext::default()).ok()?;
        }
    }
    Some(false)
}

/// Gives the first key of an object that has none of the known ones.
struct OnlyForeign([&'static str; 2]);

impl<'de> Visitor<'de> for OnlyForeign {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<String>, A::Error> {
        let mut first = None;
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            if self.0.contains(&&*key) {
                return Ok(None);
            }
            first.get_or_insert_with(|| key.into_owned());
            map.next_value::<IgnoredAny>()?;
        }
        Ok(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use proptest::prelude::*;
    use prost::Message;

    #[test]
    fn a_request_with_an_item_or_with_nothing_hears_nothing() {
        for quiet in [&b""[..], b"\x0a\x04\x12\x02\x12\x00", b"\x0a\x00\x0a\x08\x0a\x00\x12\x04\x0a\x00\x12\x00"] {
            assert_eq!(complaint(Signal::Traces, quiet), None, "{quiet:?}");
        }
        for json in ["{}", r#"{"resourceSpans":[]}"#, r#"{"x":1,"resource_spans":null}"#, "[]", ""] {
            assert_eq!(complaint_about_json(Signal::Traces, json.as_bytes()), None, "{json}");
        }
    }

    #[test]
    fn a_request_of_another_dialect_hears_what_it_should_be() {
        // No resource; a resource alone; spans where they were before 0.16 of the protocol.
        for foreign in [&b"\x12\x02\x08\x01"[..], b"\x0a\x00", b"\x0a\x05\xc2\x3e\x02\x12\x00", b"\x0a\x02\x12\x00"] {
            let said = complaint(Signal::Traces, foreign).expect("a complaint");
            assert!(said.contains("no span") && said.contains("ExportTraceServiceRequest"), "{said}");
        }
        let said = complaint_about_json(Signal::Logs, br#"{"resourceSpans":[{}]}"#).expect("a complaint");
        assert!(said.contains("no log record") && said.contains("\"resourceSpans\""), "{said}");
        assert!(said.contains("should have `resourceLogs`"), "{said}");
    }

    proptest! {
        /// Against the generated decoder, on noise that is often nearly a request.
        #[test]
        fn a_span_is_found_where_the_decoder_finds_one(
            bytes in proptest::collection::vec(prop_oneof![Just(10u8), Just(18), Just(2), Just(0), 0..20u8], 0..24),
        ) {
            if let Ok(request) = ExportTraceServiceRequest::decode(&bytes[..]) {
                let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
                let has_span = scopes.flat_map(|scope| &scope.spans).next().is_some();
                prop_assert_eq!(complaint(Signal::Traces, &bytes).is_none(), has_span || bytes.is_empty());
            }
        }
    }
}
