//! Rewrites an OTLP/JSON request as protobuf, in one pass and without a tree in between.
//!
//! Nothing is built from the JSON but the output, which may be charged as it grows. Decoding to structs
//! first would cost up to a hundred times the body (`{},` in a list of spans makes a 264-byte struct).
//! Outside of what is charged stays, for the duration of the pass, the longest string with an escape.
//!
//! Source: OTLP specification, "JSON Protobuf Encoding", read leniently where senders are known to
//! differ: 64-bit integers as strings or numbers, enums by their names, `null` as absent, protobuf field
//! names, lone surrogates (cut emoji) as U+FFFD. Unknown keys are ignored.

mod output;

pub use output::Output;

use crate::otlp::DEPTH_MAX;
use crate::otlp::schema::{Count, FieldSchema, Kind, Message};
use crate::trace::Signal;
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use output::{ProtobufWriter, WireValue};
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::de::SliceRead;
use std::borrow::Cow;
use std::fmt;

/// Why a text was not read.
#[derive(Debug)]
pub enum Unread<Full> {
    /// It is not OTLP/JSON.
    Json(serde_json::Error),
    Full(Full),
}

/// The `Export…ServiceRequest` that `json` says, appended to `out`.
///
/// # Errors
/// When `json` is anything but one request, or `out` is full.
pub fn read<O: Output>(signal: Signal, json: &[u8], out: O) -> Result<O, Unread<O::Full>> {
    let (mut writer, mut reader) = (ProtobufWriter::new(out), reader(json));
    let done = MessageFields { message: Message::request(signal), writer: &mut writer }
        .deserialize(&mut reader)
        .and_then(|()| reader.end());
    match (writer.full.take(), done) {
        (Some(full), _) => Err(Unread::Full(full)),
        (None, Err(error)) => Err(Unread::Json(error)),
        (None, Ok(())) => Ok(writer.out),
    }
}

/// All requests in `json` as one. They may follow each other, or be elements of lists.
///
/// # Errors
/// When it is not OTLP/JSON.
pub fn read_all(signal: Signal, json: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
    let (mut writer, mut reader) = (ProtobufWriter::<Vec<u8>>::new(Vec::new()), reader(json));
    while reader.end().is_err() {
        Requests(MessageFields { message: Message::request(signal), writer: &mut writer }).deserialize(&mut reader)?;
    }
    Ok(writer.out)
}

/// How deep messages nest is for [`MessageFields`] to bound, where it costs one item and not the request.
fn reader(json: &[u8]) -> serde_json::Deserializer<SliceRead<'_>> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    reader.disable_recursion_limit();
    reader
}

/// Reads a request, or a list of requests.
struct Requests<'a, O: Output>(MessageFields<'a, O>);

impl<'de, O: Output> DeserializeSeed<'de> for Requests<'_, O> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de, O: Output> Visitor<'de> for Requests<'_, O> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object with `resourceSpans`, or a list of such objects")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        self.0.visit_map(map)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let MessageFields { message, writer } = self.0;
        while list.next_element_seed(MessageFields { message, writer: &mut *writer })?.is_some() {}
        Ok(())
    }
}

/// Reads a JSON object and writes the fields of a message.
struct MessageFields<'a, O: Output> {
    message: &'static Message,
    writer: &'a mut ProtobufWriter<O>,
}

impl<'de, O: Output> DeserializeSeed<'de> for MessageFields<'_, O> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de, O: Output> Visitor<'de> for MessageFields<'_, O> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        // What nests deeper is refused by the check of the message, with the item that it is in.
        if self.writer.depth > DEPTH_MAX {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(());
        }
        while let Some(field) = map.next_key_seed(FieldKey(self.message))? {
            match field {
                Some(field) => map.next_value_seed(Value { field, is_element: false, writer: self.writer })?,
                None => map.next_value::<IgnoredAny>().map(drop)?,
            }
        }
        Ok(())
    }
}

/// Finds the field of a JSON key.
struct FieldKey(&'static Message);

impl<'de> DeserializeSeed<'de> for FieldKey {
    type Value = Option<&'static FieldSchema>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for FieldKey {
    type Value = Option<&'static FieldSchema>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.field(key))
    }
}

/// Reads the value of a field, or an element of a repeated one, and writes it.
struct Value<'a, O: Output> {
    field: &'static FieldSchema,
    is_element: bool,
    writer: &'a mut ProtobufWriter<O>,
}

impl<'de, O: Output> DeserializeSeed<'de> for Value<'_, O> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_option(self)
    }
}

impl<O: Output> Value<'_, O> {
    fn is_list(&self) -> bool {
        matches!(self.field.count, Count::Many(_)) && !self.is_element
    }

    fn scalar<E: de::Error>(self, scalar: JsonScalar<'_>) -> Result<(), E> {
        let field = self.field;
        let unexpected = scalar.unexpected();
        if self.is_list() {
            return Err(E::invalid_type(unexpected, &self));
        }
        let Some(wire) = WireValue::of(field.kind, scalar) else {
            return Err(E::invalid_value(unexpected, &self));
        };
        if matches!(field.count, Count::One | Count::Always) && wire.is_default() {
            return Ok(());
        }
        let is_packed = self.is_element && field.kind.is_packable();
        let written = if is_packed { self.writer.payload(&wire) } else { self.writer.field(field.number, &wire) };
        self.writer.note(written)
    }
}

impl<'de, O: Output> Visitor<'de> for Value<'_, O> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (kind, name) = (self.field.kind.described(), self.field.name);
        if self.is_list() { write!(f, "a list, each {kind}, for `{name}`") } else { write!(f, "{kind} for `{name}`") }
    }

    /// `null` is an absent value; only in a list it holds a place.
    fn visit_none<E: de::Error>(self) -> Result<(), E> {
        match self.field.kind {
            Kind::Nested(_) if self.is_element => {
                let written = self.writer.field(self.field.number, &WireValue::Bytes(Cow::Borrowed(&[])));
                self.writer.note(written)
            }
            _ => Ok(()),
        }
    }

    fn visit_some<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        match self.field.kind {
            // As bytes, because as text one lone surrogate would cost the whole request.
            Kind::Text if !self.is_list() => json.deserialize_bytes(self),
            _ => json.deserialize_any(self),
        }
    }

    fn visit_bytes<E: de::Error>(self, text: &[u8]) -> Result<(), E> {
        self.scalar(JsonScalar::Text(&String::from_utf8_lossy(text)))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        self.scalar(JsonScalar::Text(text))
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<(), E> {
        self.scalar(JsonScalar::Bool(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<(), E> {
        self.scalar(JsonScalar::Integer(value.into()))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<(), E> {
        self.scalar(JsonScalar::Integer(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<(), E> {
        self.scalar(JsonScalar::Float(value))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        match self.field.kind {
            Kind::Nested(message) if !self.is_list() => {
                let start = self.writer.open(self.field.number);
                let start = self.writer.note(start)?;
                self.writer.depth += 1;
                MessageFields { message, writer: self.writer }.visit_map(map)?;
                self.writer.depth -= 1;
                let closed = self.writer.close(start);
                self.writer.note(closed)
            }
            _ => Err(de::Error::invalid_type(de::Unexpected::Map, &self)),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        if !self.is_list() {
            return Err(de::Error::invalid_type(de::Unexpected::Seq, &self));
        }
        let Value { field, writer, .. } = self;
        let packed = if field.kind.is_packable() {
            let start = writer.open(field.number);
            Some(writer.note(start)?)
        } else {
            None
        };
        while list.next_element_seed(Value { field, is_element: true, writer: &mut *writer })?.is_some() {}
        let closed = packed.map_or(Ok(()), |start| writer.close(start));
        writer.note(closed)
    }
}

/// A JSON value that is neither a list nor an object.
enum JsonScalar<'a> {
    Text(&'a str),
    Integer(i128),
    Float(f64),
    Bool(bool),
}

impl<'a> JsonScalar<'a> {
    fn unexpected(&self) -> de::Unexpected<'a> {
        match *self {
            // An error goes back to the sender: it need not repeat a whole stack trace.
            JsonScalar::Text(text) => {
                de::Unexpected::Str(text.char_indices().nth(40).map_or(text, |(end, _)| &text[..end]))
            }
            JsonScalar::Integer(value) => match u64::try_from(value) {
                Ok(value) => de::Unexpected::Unsigned(value),
                Err(_) => de::Unexpected::Signed(value as i64),
            },
            JsonScalar::Float(value) => de::Unexpected::Float(value),
            JsonScalar::Bool(value) => de::Unexpected::Bool(value),
        }
    }

    /// A whole number, also written as a string or as `1e3`.
    fn integer(&self) -> Option<i128> {
        match *self {
            JsonScalar::Integer(value) => Some(value),
            JsonScalar::Text(text) => text.parse().ok(),
            JsonScalar::Float(value) if value.fract() == 0.0 => Some(value as i128),
            _ => None,
        }
    }

    /// The number of an enum value, also written by its name.
    fn of_enum(&self, names: &[&str]) -> Option<i32> {
        let named = match *self {
            JsonScalar::Text(text) => names.iter().position(|name| *name == text).map(|number| number as i128),
            _ => None,
        };
        i32::try_from(named.or_else(|| self.integer())?).ok()
    }

    fn double(&self) -> Option<f64> {
        match *self {
            JsonScalar::Float(value) => Some(value),
            JsonScalar::Integer(value) => Some(value as f64),
            // Rust reads `NaN`, `Infinity` and `-Infinity` as protobuf's JSON writes them.
            JsonScalar::Text(text) => text.parse().ok(),
            JsonScalar::Bool(_) => None,
        }
    }
}

impl<'a> WireValue<'a> {
    /// The value as a field of this kind holds it; none if it cannot.
    fn of(kind: Kind, scalar: JsonScalar<'a>) -> Option<WireValue<'a>> {
        let integer = || scalar.integer();
        let wire = match (kind, &scalar) {
            (Kind::Text, &JsonScalar::Text(text)) => WireValue::Bytes(text.as_bytes().into()),
            (Kind::Hex, &JsonScalar::Text(text)) => WireValue::Bytes(hex(text)?.into()),
            (Kind::Base64, &JsonScalar::Text(text)) => WireValue::Bytes(base64(text)?.into()),
            (Kind::Bool, &JsonScalar::Bool(value)) => WireValue::Varint(value.into()),
            (Kind::Text | Kind::Hex | Kind::Base64 | Kind::Bool | Kind::Nested(_), _) => return None,
            (Kind::Double, scalar) => WireValue::Fixed64(scalar.double()?.to_bits()),
            (Kind::Fixed64, _) => WireValue::Fixed64(integer()?.try_into().ok()?),
            (Kind::Sfixed64, _) => WireValue::Fixed64(i64::try_from(integer()?).ok()? as u64),
            (Kind::Fixed32, _) => WireValue::Fixed32(integer()?.try_into().ok()?),
            (Kind::Uint64, _) => WireValue::Varint(integer()?.try_into().ok()?),
            (Kind::Int64, _) => WireValue::Varint(i64::try_from(integer()?).ok()? as u64),
            (Kind::Uint32, _) => WireValue::Varint(u32::try_from(integer()?).ok()?.into()),
            (Kind::Enum(names), scalar) => WireValue::Varint(i64::from(scalar.of_enum(names)?) as u64),
            (Kind::Sint32, _) => {
                let value = i32::try_from(integer()?).ok()?;
                WireValue::Varint(u64::from(((value << 1) ^ (value >> 31)) as u32))
            }
        };
        Some(wire)
    }
}

impl Kind {
    fn described(self) -> &'static str {
        match self {
            Kind::Text => "text",
            Kind::Hex => "hexadecimal digits",
            Kind::Base64 => "base64",
            Kind::Bool => "true or false",
            Kind::Double => "a number",
            Kind::Fixed64 | Kind::Uint64 => "a whole number of 64 bits",
            Kind::Sfixed64 | Kind::Int64 => "a whole number of 64 bits with sign",
            Kind::Fixed32 | Kind::Uint32 => "a whole number of 32 bits",
            Kind::Sint32 => "a whole number of 32 bits with sign",
            Kind::Enum(_) => "the number or the name of an enum value",
            Kind::Nested(_) => "an object",
        }
    }
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| char::from(c).to_digit(16);
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes = pairs.iter().map(|&[high, low]| Some((digit(high)? << 4 | digit(low)?) as u8));
    if rest.is_empty() { bytes.collect() } else { None }
}

/// Base64 of either alphabet, with or without padding, as protobuf's JSON readers accept it.
fn base64(text: &str) -> Option<Vec<u8>> {
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &STANDARD,
        GeneralPurposeConfig::new()
            .with_decode_padding_mode(DecodePaddingMode::Indifferent)
            .with_decode_allow_trailing_bits(true),
    );
    if text.contains(['-', '_']) {
        LENIENT.decode(text.replace('-', "+").replace('_', "/")).ok()
    } else {
        LENIENT.decode(text).ok()
    }
}
