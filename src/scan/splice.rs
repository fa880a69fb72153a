//! How a kept span leaves: as it came, but for its tracestate when a weight must be written and, on
//! the marked span, the `tailkeep.*` attributes. Every other field is copied verbatim.

use super::tracestate::{self, Weight};
use super::wire::{Malformed, Reader, read_key_value};
use crate::otlp::wire::put_bytes;
use crate::trace::{Slice, SpanId};

const FIELD_TRACE_STATE: u32 = 3;
const FIELD_NAME: u32 = 5;
const FIELD_ATTRIBUTE: u32 = 9;
/// Attributes of ours that a tailkeep upstream may have written; they are replaced.
const MARK_PREFIX: &[u8] = b"tailkeep.";

/// What the delivery of a trace, or a look at it, has to know of a stored span.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Outline {
    pub span_id: SpanId,
    pub start: u64,
    pub trace_state: Slice,
    pub name: Slice,
}

/// Reads the outline of a span that scan has accepted.
pub fn outline(span: &[u8]) -> Outline {
    let mut outline = Outline::default();
    let mut fields = Reader::whole(span);
    while let Ok(Some(field)) = fields.next() {
        match field.number {
            2 => {
                let id = field.value.bytes().unwrap_or_default().of(span).try_into();
                outline.span_id = id.map_or(0, u64::from_be_bytes);
            }
            FIELD_NAME => outline.name = field.value.bytes().unwrap_or_default(),
            FIELD_TRACE_STATE => outline.trace_state = field.value.bytes().unwrap_or_default(),
            7 => outline.start = field.value.fixed64().unwrap_or_default(),
            _ => {}
        }
    }
    outline
}

/// The attributes that say why a trace was kept, encoded as fields of a span.
#[derive(Clone, Debug, Default)]
pub struct Marks(Vec<u8>);

impl Marks {
    /// Adds `key` (with its `tailkeep.` prefix) and a string value.
    pub fn add(&mut self, key: &str, value: &str) {
        let (mut any, mut attribute) = (Vec::new(), Vec::new());
        put_bytes(&mut any, 1, value.as_bytes());
        put_bytes(&mut attribute, 1, key.as_bytes());
        put_bytes(&mut attribute, 2, &any);
        put_bytes(&mut self.0, FIELD_ATTRIBUTE, &attribute);
    }
}

/// Appends the span message to `out`, without a tag.
pub fn splice(span: &[u8], weight: Weight, marks: Option<&Marks>, out: &mut Vec<u8>) {
    let state = tracestate::rewrite(outline(span).trace_state.of(span), weight);
    if state.is_none() && marks.is_none() {
        out.extend_from_slice(span);
        return;
    }
    let start = out.len();
    if rebuild(span, state.as_deref(), marks, out).is_err() {
        // Unreachable for a checked span; the span as it came is better than half of it.
        out.truncate(start);
        out.extend_from_slice(span);
    }
}

fn rebuild(span: &[u8], state: Option<&[u8]>, marks: Option<&Marks>, out: &mut Vec<u8>) -> Result<(), Malformed> {
    let mut fields = Reader::whole(span);
    while let Some(field) = fields.next()? {
        let replaced = match field.number {
            FIELD_TRACE_STATE => state.is_some(),
            FIELD_ATTRIBUTE if marks.is_some() => {
                read_key_value(span, field.value.bytes()?)?.0.of(span).starts_with(MARK_PREFIX)
            }
            _ => false,
        };
        if !replaced {
            out.extend_from_slice(field.raw.of(span));
        }
    }
    if let Some(state) = state.filter(|state| !state.is_empty()) {
        put_bytes(out, FIELD_TRACE_STATE, state);
    }
    out.extend_from_slice(marks.map_or(&[], |marks| marks.0.as_slice()));
    Ok(())
}
