//! Writes protobuf, field by field.

use crate::otlp::wire::encode_varint;
use serde::de;
use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt::Display;

/// Where protobuf is written: memory that somebody may have to pay for.
pub trait Output {
    /// Why it does not grow any more.
    type Full: Display;

    /// # Errors
    /// When there is no room for `more`; then nothing of it was written.
    fn append(&mut self, more: &[u8]) -> Result<(), Self::Full>;

    /// What was written.
    fn written(&mut self) -> &mut [u8];
}

impl Output for Vec<u8> {
    type Full = Infallible;

    fn append(&mut self, more: &[u8]) -> Result<(), Infallible> {
        self.extend_from_slice(more);
        Ok(())
    }

    fn written(&mut self) -> &mut [u8] {
        self
    }
}

/// A value as protobuf writes it.
pub(super) enum WireValue<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(Cow<'a, [u8]>),
}

impl WireValue<'_> {
    pub fn is_default(&self) -> bool {
        match self {
            WireValue::Varint(value) | WireValue::Fixed64(value) => *value == 0,
            WireValue::Fixed32(value) => *value == 0,
            WireValue::Bytes(bytes) => bytes.is_empty(),
        }
    }

    /// The wire type (protobuf, "Encoding").
    fn wire_type(&self) -> u32 {
        match self {
            WireValue::Varint(_) => 0,
            WireValue::Fixed64(_) => 1,
            WireValue::Bytes(_) => 2,
            WireValue::Fixed32(_) => 5,
        }
    }
}

/// The output so far.
pub(super) struct ProtobufWriter<O: Output> {
    pub out: O,
    /// Why the output would not grow: serde's errors have no room for it.
    pub full: Option<O::Full>,
    /// Messages that are open.
    pub depth: usize,
}

impl<O: Output> ProtobufWriter<O> {
    pub fn new(out: O) -> ProtobufWriter<O> {
        ProtobufWriter { out, full: None, depth: 0 }
    }

    /// Turns what stopped the output into an error of serde's and remembers it.
    pub fn note<T, E: de::Error>(&mut self, written: Result<T, O::Full>) -> Result<T, E> {
        written.map_err(|full| {
            let error = E::custom(&full);
            self.full = Some(full);
            error
        })
    }

    pub fn field(&mut self, number: u32, wire: &WireValue<'_>) -> Result<(), O::Full> {
        self.varint(u64::from(number << 3 | wire.wire_type()))?;
        if let WireValue::Bytes(bytes) = wire {
            self.varint(bytes.len() as u64)?;
        }
        self.payload(wire)
    }

    pub fn payload(&mut self, wire: &WireValue<'_>) -> Result<(), O::Full> {
        match wire {
            WireValue::Varint(value) => self.varint(*value),
            WireValue::Fixed64(value) => self.out.append(&value.to_le_bytes()),
            WireValue::Fixed32(value) => self.out.append(&value.to_le_bytes()),
            WireValue::Bytes(bytes) => self.out.append(bytes),
        }
    }

    fn varint(&mut self, value: u64) -> Result<(), O::Full> {
        let (bytes, len) = encode_varint(value);
        self.out.append(&bytes[..len])
    }

    /// Begins a length-delimited field; gives the place of its length, for [`ProtobufWriter::close`].
    pub fn open(&mut self, number: u32) -> Result<usize, O::Full> {
        self.varint(u64::from(number << 3 | 2))?;
        self.out.append(&[0])?;
        Ok(self.out.written().len() - 1)
    }

    /// Writes the length of what came since `open`, moving it up if the length needs more than a byte.
    pub fn close(&mut self, start: usize) -> Result<(), O::Full> {
        let content = start + 1..self.out.written().len();
        let (bytes, len) = encode_varint(content.len() as u64);
        self.out.append(&[0; 10][..len - 1])?;
        let out = self.out.written();
        out.copy_within(content, start + len);
        out[start..start + len].copy_from_slice(&bytes[..len]);
        Ok(())
    }
}
