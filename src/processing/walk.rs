//! The walk that rewrites a request: it copies the bytes, and writes the lengths of what changes anew.

use super::any_value::{INT, LIST, MAP, TEXT};
use super::{Action, Hasher, Processing};
use crate::otlp::walk::{all, fields_of};
use crate::otlp::wire::{Field, Fields, Value, put_bytes, put_bytes_header};
use crate::scan::check::{FieldKind, MessageType};
use crate::trace::Signal;
use std::fmt::Write;

/// The fields of a `KeyValue`. Source: opentelemetry-proto, `common.proto`.
const KEY: u32 = 1;
const VALUE: u32 = 2;

/// What holds for the messages below one.
#[derive(Clone, Copy)]
struct Inherited {
    /// The masks that apply.
    masks: u64,
    /// Attributes here say which series a data point belongs to.
    names_series: bool,
}

pub(super) struct Rewriting<'a> {
    processing: &'a Processing,
    top: Inherited,
    shape: MessageType,
    most: usize,
    /// The request as it leaves.
    pub(super) out: Vec<u8>,
    /// By [`Action`].
    pub(super) done: [u64; 3],
    /// A number as text.
    digits: String,
}

impl<'a> Rewriting<'a> {
    pub(super) fn new(processing: &'a Processing, signal: Signal, most: usize) -> Rewriting<'a> {
        let top = Inherited { masks: processing.masks.everywhere, names_series: signal == Signal::Metrics };
        let shape = MessageType::request(signal);
        Rewriting { processing, top, shape, most, out: Vec::new(), done: [0; 3], digits: String::new() }
    }

    /// Writes the request; false if it is what it was.
    pub(super) fn request(&mut self, body: &[u8]) -> bool {
        self.out.reserve(body.len());
        self.message(self.shape, body, self.top)
    }

    /// It is too large, and was not written to its end.
    pub(super) fn is_beyond(&self) -> bool {
        self.out.len() > self.most
    }

    /// As all of these: appends what becomes of its argument, and says whether that is something else.
    fn message(&mut self, shape: MessageType, message: &[u8], place: Inherited) -> bool {
        let (mut at, mut is_changed) = (0, false);
        for field in Fields::new(message) {
            let Some(field) = field else {
                // Nobody has what is no protobuf processed; it would stay what it was.
                self.out.extend_from_slice(&message[at..]);
                break;
            };
            if self.is_beyond() {
                break;
            }
            at += field.raw.len();
            is_changed |= self.field(shape, &field, place);
        }
        is_changed
    }

    fn field(&mut self, shape: MessageType, field: &Field<&[u8]>, place: Inherited) -> bool {
        match (shape.field(field.number), field.value) {
            (Some(FieldKind::Message(MessageType::KeyValue)), Value::Bytes(pair)) => self.attribute(field, pair, place),
            (Some(FieldKind::Message(inner)), Value::Bytes(message)) => {
                // What an exemplar says is about one request, not about a series.
                let names_series = place.names_series && inner != MessageType::Exemplar;
                self.nested(field, message, |walk| walk.message(inner, message, Inherited { names_series, ..place }))
            }
            (Some(FieldKind::Text), Value::Bytes(text)) if is_masked(shape, field.number) => {
                self.text(field, text, place)
            }
            (_, Value::Varint(number)) if (shape, field.number) == (MessageType::AnyValue, INT) && place.masks != 0 => {
                self.number(field, number as i64, place)
            }
            _ => self.copy(field),
        }
    }

    fn copy(&mut self, field: &Field<&[u8]>) -> bool {
        self.out.extend_from_slice(field.raw);
        false
    }

    /// A message within one: its length is written anew if it changes.
    fn nested(&mut self, field: &Field<&[u8]>, message: &[u8], write: impl FnOnce(&mut Self) -> bool) -> bool {
        let (start, header) = (self.out.len(), field.raw.len() - message.len());
        self.out.extend_from_slice(&field.raw[..header]);
        let is_changed = write(self);
        if is_changed {
            let mut fresh = Vec::with_capacity(header + 1);
            put_bytes_header(&mut fresh, field.number, self.out.len() - start - header);
            self.out.splice(start..start + header, fresh);
        }
        is_changed
    }

    fn attribute(&mut self, field: &Field<&[u8]>, pair: &[u8], place: Inherited) -> bool {
        let processing = self.processing;
        let key = all(pair, KEY).last().unwrap_or_default();
        if processing.drop.has(key) {
            if place.names_series {
                return self.hashed(field, pair, &processing.apart);
            }
            self.done[Action::Drop as usize] += 1;
            return true;
        }
        if processing.hash.has(key) {
            return self.hashed(field, pair, &processing.hasher);
        }
        let masks = place.masks | processing.masks.of_key(key);
        if masks == 0 && !all(pair, VALUE).any(nests) {
            return self.copy(field);
        }
        self.nested(field, pair, |walk| walk.message(MessageType::KeyValue, pair, Inherited { masks, ..place }))
    }

    /// An attribute with the hash of its value; as it is if it has none.
    fn hashed(&mut self, field: &Field<&[u8]>, pair: &[u8], hasher: &Hasher) -> bool {
        let value: Vec<u8> = all(pair, VALUE).flatten().copied().collect();
        let Some(hash) = hasher.of_value(&value) else { return self.copy(field) };
        self.done[Action::Hash as usize] += 1;
        self.nested(field, pair, |walk| {
            for field in fields_of(pair).filter(|field| field.number != VALUE) {
                walk.out.extend_from_slice(field.raw);
            }
            put_bytes_header(&mut walk.out, VALUE, 2 + hash.len());
            put_bytes(&mut walk.out, TEXT, hash.as_bytes());
            true
        })
    }

    fn text(&mut self, field: &Field<&[u8]>, text: &[u8], place: Inherited) -> bool {
        let masked = std::str::from_utf8(text).ok().and_then(|text| self.masked(text, place));
        self.replace(field, masked)
    }

    /// A whole number becomes a text if its digits are masked.
    fn number(&mut self, field: &Field<&[u8]>, number: i64, place: Inherited) -> bool {
        let mut digits = std::mem::take(&mut self.digits);
        digits.clear();
        write!(digits, "{number}").expect("a string takes all");
        let masked = self.masked(&digits, place);
        self.digits = digits;
        self.replace(field, masked)
    }

    fn masked(&self, text: &str, place: Inherited) -> Option<String> {
        let apart = place.names_series.then_some(&self.processing.apart);
        self.processing.masks.apply(text, place.masks, apart)
    }

    fn replace(&mut self, field: &Field<&[u8]>, masked: Option<String>) -> bool {
        let Some(masked) = masked else { return self.copy(field) };
        // Of an `AnyValue` the text is the first field, and elsewhere it was a text before.
        let number = if matches!(field.value, Value::Varint(_)) { TEXT } else { field.number };
        put_bytes(&mut self.out, number, masked.as_bytes());
        self.done[Action::Mask as usize] += 1;
        true
    }
}

/// Whether a value has attributes inside, or lists that may.
fn nests(value: &[u8]) -> bool {
    fields_of(value).any(|field| (LIST..=MAP).contains(&field.number))
}

/// Texts that hold what applications put together: values (log bodies are one too), span and event names, and what a
/// status says.
fn is_masked(shape: MessageType, number: u32) -> bool {
    matches!(
        (shape, number),
        (MessageType::AnyValue, TEXT) | (MessageType::Span, 5) | (MessageType::Event | MessageType::Status, 2)
    )
}
