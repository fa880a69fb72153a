//! Traces as Tempo answers them (`/api/traces/{id}`, `/api/v2/traces/{id}`) and as Jaeger's `/api/v3/traces` does:
//! OTLP/JSON in a wrapping, with ids in base64 and, of older versions, older names.

use crate::otlp::json;
use crate::trace::Signal;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value};

/// Where the groups of spans are.
const PLACES: &[&str] = &["/batches", "/trace/batches", "/trace/resourceSpans", "/result/resourceSpans"];
/// What `scopeSpans` was called.
const FORMER_NAMES: &[&str] = &["instrumentationLibrarySpans", "ilSpans"];
/// Keys of ids, and how many bytes they have.
const IDS: &[(&str, usize)] = &[("traceId", 16), ("spanId", 8), ("parentSpanId", 8)];

/// The request in a document; none if it is of another tool.
pub(super) fn read(mut document: Value) -> Option<Result<Vec<u8>, String>> {
    let mut groups = PLACES.iter().find_map(|place| document.pointer_mut(place).map(Value::take))?;
    translate(&mut groups);
    let request = Map::from_iter([("resourceSpans".to_owned(), groups)]);
    let text = Value::Object(request).to_string();
    let read = json::read_all(Signal::Traces, text.as_bytes());
    Some(read.map_err(|error| format!("this looks like the JSON of Tempo or Jaeger, but {error}")))
}

fn translate(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(translate),
        Value::Object(fields) => {
            for former in FORMER_NAMES {
                if let Some(spans) = fields.remove(*former) {
                    fields.insert("scopeSpans".to_owned(), spans);
                }
            }
            for (key, value) in fields {
                match IDS.iter().find(|(id, _)| id == key) {
                    Some((_, len)) => to_hex(value, *len),
                    None => translate(value),
                }
            }
        }
        _ => {}
    }
}

/// What is hexadecimal already has another length.
fn to_hex(value: &mut Value, len: usize) {
    let Value::String(text) = &*value else { return };
    let decoded = BASE64_STANDARD.decode(text).ok().filter(|bytes| bytes.len() == len);
    if let Some(bytes) = decoded {
        *value = Value::String(bytes.iter().map(|byte| format!("{byte:02x}")).collect());
    }
}
