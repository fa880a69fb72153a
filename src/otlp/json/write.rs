//! Writes OTLP/JSON from protobuf, field by field as the bytes come: memory does not grow with the message.
//!
//! What is on the wire is written, and nothing else: no field for a default. Fields that nobody knows are left out,
//! text that is not UTF-8 is repaired, and doubles that JSON lacks are the texts that protobuf's own JSON has.

use crate::otlp::{
    DEPTH_MAX,
    schema::{Count, FieldSchema, Kind, Message, RESOURCE_SPANS, TRACES},
    wire::{self, Fields, Value},
};
use crate::trace::Signal;
use base64::{Engine, prelude::BASE64_STANDARD};
use std::io::{self, Write};

/// No message has more fields.
const FIELDS_MAX: usize = 16;
/// Bytes that are turned into base64 at once; three become four.
const BASE64_PIECE: usize = 3 << 10;

/// Writes an `Export*ServiceRequest`, on one line. A message beyond [`DEPTH_MAX`] is an empty object.
///
/// # Errors
/// `InvalidData` where the bytes are malformed; else what `out` says.
pub fn write(out: &mut impl Write, signal: Signal, body: &[u8]) -> io::Result<()> {
    message(out, Message::request(signal), Content::Whole(body), DEPTH_MAX + 1)
}

/// The spans of a request that comes in pieces. What comes of the resource that came last goes on in its object: each
/// piece has its resources anew, and a large one would be written as often as there are pieces.
#[derive(Default)]
pub struct SpanList {
    /// The fields around the scopes of the object that is open.
    open: Option<Vec<u8>>,
    has_scopes: bool,
}

impl SpanList {
    /// Writes the next piece: fields of an `ExportTraceServiceRequest`.
    ///
    /// # Errors
    /// As [`write()`].
    pub fn write(&mut self, out: &mut impl Write, piece: &[u8]) -> io::Result<()> {
        let of = TRACES.fields[0].number;
        Content::Whole(piece).each(&mut |found| found.message(of).map_or(Ok(()), |spans| self.resource(out, spans)))
    }

    /// Writes the end. Without a piece it is an empty request.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn end(self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(if self.open.is_some() { b"]}]}" } else { b"{\"resourceSpans\":[]}" })
    }

    fn resource(&mut self, out: &mut impl Write, resource_spans: &[u8]) -> io::Result<()> {
        let scopes = RESOURCE_SPANS.fields.iter().find(|field| field.name == "scopeSpans").expect("it is in the table");
        let mut around = Vec::new();
        Content::Whole(resource_spans).each(&mut |field| {
            if field.number != scopes.number {
                around.extend_from_slice(field.raw);
            }
            Ok(())
        })?;
        if self.open.as_ref() != Some(&around) {
            out.write_all(if self.open.is_some() { b"]},{" } else { b"{\"resourceSpans\":[{" })?;
            if members(out, &RESOURCE_SPANS, Some(scopes.number), Content::Whole(&around), DEPTH_MAX)? {
                out.write_all(b",")?;
            }
            write!(out, "\"{}\":[", scopes.name)?;
            *self = SpanList { open: Some(around), has_scopes: false };
        }
        elements(out, scopes, Content::Whole(resource_spans), DEPTH_MAX - 1, &mut self.has_scopes)
    }
}

/// How many bytes [`write()`] would write.
///
/// # Errors
/// As [`write()`].
pub fn len(signal: Signal, body: &[u8]) -> io::Result<u64> {
    let mut counted = ByteCount(0);
    write(&mut counted, signal, body)?;
    Ok(counted.0)
}

struct ByteCount(u64);

impl Write for ByteCount {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "malformed protobuf")
}

/// The bytes of a message.
#[derive(Clone, Copy)]
enum Content<'a> {
    Whole(&'a [u8]),
    /// Of a field that stands once: where it occurs repeatedly, protobuf merges, and so do its occurrences one after the
    /// other.
    Occurrences {
        of: u32,
        inside: &'a Content<'a>,
    },
}

impl<'a> Content<'a> {
    fn each(self, visit: &mut dyn FnMut(wire::Field<&'a [u8]>) -> io::Result<()>) -> io::Result<()> {
        match self {
            Content::Whole(bytes) => Fields::new(bytes).try_for_each(|field| visit(field.ok_or_else(malformed)?)),
            Content::Occurrences { of, inside } => inside.each(&mut |field| match field.message(of) {
                Some(bytes) => Content::Whole(bytes).each(visit),
                None => Ok(()),
            }),
        }
    }
}

/// What a message has of one of its fields.
#[derive(Clone, Copy, Default)]
struct Slot<'a> {
    times: u32,
    last: Option<Value<&'a [u8]>>,
}

fn message(out: &mut impl Write, kind: &Message, content: Content<'_>, depth: usize) -> io::Result<()> {
    out.write_all(b"{")?;
    members(out, kind, None, content, depth)?;
    out.write_all(b"}")
}

/// The fields of a message, but for one that is left out. Returns whether there were any.
fn members(
    out: &mut impl Write,
    kind: &Message,
    left_out: Option<u32>,
    content: Content<'_>,
    depth: usize,
) -> io::Result<bool> {
    let mut slots = [Slot::default(); FIELDS_MAX];
    let mut choice = None;
    content.each(&mut |found| {
        let Some(at) = kind.fields.iter().position(|field| field.number == found.number) else { return Ok(()) };
        slots[at] = Slot { times: slots[at].times + 1, last: Some(found.value) };
        if kind.fields[at].count == Count::Choice {
            choice = Some(at);
        }
        Ok(())
    })?;
    let mut any = false;
    for (at, (field, slot)) in kind.fields.iter().zip(slots).enumerate() {
        let is_written = match field.count {
            Count::One | Count::Optional => slot.times > 0,
            Count::Always => true,
            Count::Choice => choice == Some(at),
            Count::Many(always) => always || slot.times > 0,
        };
        if depth > 0 && is_written && left_out != Some(field.number) {
            separate(out, &mut any)?;
            write!(out, "\"{}\":", field.name)?;
            member(out, field, slot, content, depth - 1)?;
        }
    }
    Ok(any)
}

fn member(
    out: &mut impl Write,
    field: &FieldSchema,
    slot: Slot<'_>,
    content: Content<'_>,
    depth: usize,
) -> io::Result<()> {
    match (field.count, field.kind, slot.last) {
        (Count::Many(_), ..) => {
            out.write_all(b"[")?;
            elements(out, field, content, depth, &mut false)?;
            out.write_all(b"]")
        }
        (Count::One | Count::Optional, Kind::Nested(inner), Some(Value::Bytes(_))) if slot.times > 1 => {
            message(out, inner, Content::Occurrences { of: field.number, inside: &content }, depth)
        }
        (_, kind, Some(last)) => value(out, kind, last, depth),
        (_, _, None) => text(out, b""),
    }
}

/// All occurrences of a list's field, after `any` before them. Numbers may be packed.
fn elements(
    out: &mut impl Write,
    field: &FieldSchema,
    content: Content<'_>,
    depth: usize,
    any: &mut bool,
) -> io::Result<()> {
    content.each(&mut |found| match (found.value, field.kind) {
        _ if found.number != field.number => Ok(()),
        (Value::Bytes(packed), Kind::Double | Kind::Fixed64 | Kind::Uint64) => {
            wire::packed(packed, matches!(field.kind, Kind::Uint64)).try_for_each(|number| {
                separate(out, any)?;
                value(out, field.kind, number.ok_or_else(malformed)?, depth)
            })
        }
        (one, kind) => {
            separate(out, any)?;
            value(out, kind, one, depth)
        }
    })
}

fn separate(out: &mut impl Write, any: &mut bool) -> io::Result<()> {
    if std::mem::replace(any, true) { out.write_all(b",") } else { Ok(()) }
}

fn value(out: &mut impl Write, kind: Kind, value: Value<&[u8]>, depth: usize) -> io::Result<()> {
    match (kind, value) {
        (Kind::Nested(inner), Value::Bytes(bytes)) => message(out, inner, Content::Whole(bytes), depth),
        (Kind::Text, Value::Bytes(bytes)) => text(out, bytes),
        (Kind::Hex, Value::Bytes(bytes)) => hex(out, bytes),
        (Kind::Base64, Value::Bytes(bytes)) => base64(out, bytes),
        (Kind::Bool, Value::Varint(number)) => write!(out, "{}", number != 0),
        (Kind::Enum(_), Value::Varint(number)) => write!(out, "{}", number as i32),
        (Kind::Uint32, Value::Varint(number)) => write!(out, "{}", number as u32),
        (Kind::Sint32, Value::Varint(number)) => write!(out, "{}", wire::zigzag(number as u32)),
        (Kind::Fixed32, Value::Fixed32(number)) => write!(out, "{number}"),
        (Kind::Int64, Value::Varint(number)) => write!(out, "\"{}\"", number as i64),
        (Kind::Uint64, Value::Varint(number)) => write!(out, "\"{number}\""),
        (Kind::Fixed64, Value::Fixed64(number)) => write!(out, "\"{number}\""),
        (Kind::Sfixed64, Value::Fixed64(number)) => write!(out, "\"{}\"", number as i64),
        (Kind::Double, Value::Fixed64(bits)) => double(out, f64::from_bits(bits)),
        _ => Err(malformed()),
    }
}

fn double(out: &mut impl Write, number: f64) -> io::Result<()> {
    match number {
        number if number.is_nan() => out.write_all(b"\"NaN\""),
        f64::INFINITY => out.write_all(b"\"Infinity\""),
        f64::NEG_INFINITY => out.write_all(b"\"-Infinity\""),
        number => write!(out, "{number:?}"),
    }
}

fn hex(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    out.write_all(b"\"")?;
    for byte in bytes {
        let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
        out.write_all(&[digit(byte >> 4), digit(byte & 15)])?;
    }
    out.write_all(b"\"")
}

fn base64(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    out.write_all(b"\"")?;
    for piece in bytes.chunks(BASE64_PIECE) {
        out.write_all(BASE64_STANDARD.encode(piece).as_bytes())?;
    }
    out.write_all(b"\"")
}

fn text(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    out.write_all(b"\"")?;
    if simdutf8::basic::from_utf8(bytes).is_ok() {
        escaped(out, bytes)?;
    } else {
        for chunk in bytes.utf8_chunks() {
            escaped(out, chunk.valid().as_bytes())?;
            if !chunk.invalid().is_empty() {
                write!(out, "{}", char::REPLACEMENT_CHARACTER)?;
            }
        }
    }
    out.write_all(b"\"")
}

fn escaped(out: &mut impl Write, mut rest: &[u8]) -> io::Result<()> {
    while let Some(at) = rest.iter().position(|byte| *byte < 0x20 || matches!(byte, b'"' | b'\\')) {
        out.write_all(&rest[..at])?;
        match rest[at] {
            b'\n' => out.write_all(b"\\n")?,
            quoted @ (b'"' | b'\\') => out.write_all(&[b'\\', quoted])?,
            control => write!(out, "\\u{control:04x}")?,
        }
        rest = &rest[at + 1..];
    }
    out.write_all(rest)
}

#[cfg(test)]
mod tests;
