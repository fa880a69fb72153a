//! Full validation of a span and its context, for those that are kept: backends refuse a whole
//! batch for one string that is not UTF-8. Scan itself looks only where somebody asks.
//! Source: opentelemetry-proto, `common/v1`, `resource/v1` and `trace/v1`.

use super::wire::{Malformed, Reader, Value};
use crate::trace::Slice;

/// Messages and groups may nest this deep in a request, as for prost.
const DEPTH_MAX: usize = 100;

/// What is wrong with the bytes of a kept span.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    InvalidUtf8,
    Malformed,
}

impl From<Malformed> for Fault {
    fn from(_: Malformed) -> Fault {
        Fault::Malformed
    }
}

/// The messages of OTLP that a trace consists of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    ResourceSpans,
    ScopeSpans,
    Span,
    Resource,
    EntityRef,
    Scope,
    Event,
    Link,
    Status,
    KeyValue,
    AnyValue,
    ArrayValue,
    KeyValueList,
}

enum Kind {
    Text,
    Bytes,
    Varint,
    Fixed32,
    Fixed64,
    Message(Shape),
}

/// The kind of a field; none for fields that this version of OTLP does not know.
fn field_kind(shape: Shape, number: u32) -> Option<Kind> {
    use Kind::{Bytes, Fixed32, Fixed64, Message, Text, Varint};
    Some(match (shape, number) {
        (Shape::ResourceSpans, 1) => Message(Shape::Resource),
        (Shape::ResourceSpans, 2) => Message(Shape::ScopeSpans),
        (Shape::ResourceSpans, 3) => Text,
        (Shape::ScopeSpans, 1) => Message(Shape::Scope),
        (Shape::ScopeSpans, 2) => Message(Shape::Span),
        (Shape::ScopeSpans, 3) => Text,
        (Shape::Span, 1 | 2 | 4) => Bytes,
        (Shape::Span, 3 | 5) => Text,
        (Shape::Span, 6 | 10 | 12 | 14) => Varint,
        (Shape::Span, 7 | 8) => Fixed64,
        (Shape::Span, 9) => Message(Shape::KeyValue),
        (Shape::Span, 11) => Message(Shape::Event),
        (Shape::Span, 13) => Message(Shape::Link),
        (Shape::Span, 15) => Message(Shape::Status),
        (Shape::Span, 16) => Fixed32,
        (Shape::Resource, 1) => Message(Shape::KeyValue),
        (Shape::Resource, 2) => Varint,
        (Shape::Resource, 3) => Message(Shape::EntityRef),
        (Shape::EntityRef, 1..=4) => Text,
        (Shape::Scope, 1 | 2) => Text,
        (Shape::Scope, 3) => Message(Shape::KeyValue),
        (Shape::Scope, 4) => Varint,
        (Shape::Event, 1) => Fixed64,
        (Shape::Event, 2) => Text,
        (Shape::Event, 3) => Message(Shape::KeyValue),
        (Shape::Event, 4) => Varint,
        (Shape::Link, 1 | 2) => Bytes,
        (Shape::Link, 3) => Text,
        (Shape::Link, 4) => Message(Shape::KeyValue),
        (Shape::Link, 5) => Varint,
        (Shape::Link, 6) => Fixed32,
        (Shape::Status, 2) => Text,
        (Shape::Status, 3) => Varint,
        (Shape::KeyValue, 1) => Text,
        (Shape::KeyValue, 2) => Message(Shape::AnyValue),
        (Shape::KeyValue, 3) => Varint,
        (Shape::AnyValue, 1) => Text,
        (Shape::AnyValue, 2 | 3) => Varint,
        (Shape::AnyValue, 4) => Fixed64,
        (Shape::AnyValue, 5) => Message(Shape::ArrayValue),
        (Shape::AnyValue, 6) => Message(Shape::KeyValueList),
        (Shape::AnyValue, 7) => Bytes,
        (Shape::AnyValue, 8) => Varint,
        (Shape::ArrayValue, 1) => Message(Shape::AnyValue),
        (Shape::KeyValueList, 1) => Message(Shape::KeyValue),
        _ => return None,
    })
}

/// Checks that `message` is a valid message of this shape, all the way down, in its place in a request.
///
/// # Errors
/// The first fault that is found.
pub fn check(shape: Shape, message: &[u8]) -> Result<(), Fault> {
    // A batch with one span that nests too deep is refused whole.
    let above = match shape {
        Shape::ResourceSpans => 0,
        Shape::ScopeSpans => 1,
        _ => 2,
    };
    check_run(shape, message, Slice { start: 0, len: message.len() as u32 }, DEPTH_MAX - above)
}

fn check_run(shape: Shape, body: &[u8], message: Slice, depth: usize) -> Result<(), Fault> {
    let depth = depth.checked_sub(1).ok_or(Fault::Malformed)?;
    let mut fields = Reader::new(body, message);
    while let Some(field) = fields.next()? {
        let Some(kind) = field_kind(shape, field.number) else {
            match field.value {
                Value::Group(levels) if levels >= depth => return Err(Fault::Malformed),
                _ => continue,
            }
        };
        match (kind, field.value) {
            (Kind::Text, Value::Bytes(text)) => {
                simdutf8::basic::from_utf8(text.of(body)).map_err(|_| Fault::InvalidUtf8)?;
            }
            (Kind::Message(inner), Value::Bytes(message)) => check_run(inner, body, message, depth)?,
            (Kind::Bytes, Value::Bytes(_))
            | (Kind::Varint, Value::Varint(_))
            | (Kind::Fixed32, Value::Fixed32(_))
            | (Kind::Fixed64, Value::Fixed64(_)) => {}
            _ => return Err(Fault::Malformed),
        }
    }
    Ok(())
}
