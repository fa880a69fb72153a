//! Writes protobuf, field by field, into a charged buffer.

use crate::receive::admission::Buffer;
use crate::receive::refusal::Refusal;
use serde::de;
use std::borrow::Cow;

/// A value as protobuf writes it.
pub(super) enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(Cow<'a, [u8]>),
}

impl Wire<'_> {
    pub fn is_default(&self) -> bool {
        match self {
            Wire::Varint(value) | Wire::Fixed64(value) => *value == 0,
            Wire::Fixed32(value) => *value == 0,
            Wire::Bytes(bytes) => bytes.is_empty(),
        }
    }

    /// The wire type (protobuf, "Encoding").
    fn wire_type(&self) -> u32 {
        match self {
            Wire::Varint(_) => 0,
            Wire::Fixed64(_) => 1,
            Wire::Bytes(_) => 2,
            Wire::Fixed32(_) => 5,
        }
    }
}

/// The output so far.
pub(super) struct Writer {
    pub out: Buffer,
    /// Why the buffer would not grow: serde's errors have no room for it.
    pub refusal: Option<Refusal>,
}

impl Writer {
    pub fn new(out: Buffer) -> Writer {
        Writer { out, refusal: None }
    }

    /// Turns a refusal into an error of serde's and remembers it.
    pub fn note<T, E: de::Error>(&mut self, written: Result<T, Refusal>) -> Result<T, E> {
        written.map_err(|refusal| {
            let error = E::custom(&refusal);
            self.refusal = Some(refusal);
            error
        })
    }

    pub fn field(&mut self, number: u32, wire: &Wire<'_>) -> Result<(), Refusal> {
        self.varint(u64::from(number << 3 | wire.wire_type()))?;
        if let Wire::Bytes(bytes) = wire {
            self.varint(bytes.len() as u64)?;
        }
        self.payload(wire)
    }

    pub fn payload(&mut self, wire: &Wire<'_>) -> Result<(), Refusal> {
        match wire {
            Wire::Varint(value) => self.varint(*value),
            Wire::Fixed64(value) => self.out.append(&value.to_le_bytes()),
            Wire::Fixed32(value) => self.out.append(&value.to_le_bytes()),
            Wire::Bytes(bytes) => self.out.append(bytes),
        }
    }

    fn varint(&mut self, value: u64) -> Result<(), Refusal> {
        let (bytes, len) = encode_varint(value);
        self.out.append(&bytes[..len])
    }

    /// Begins a length-delimited field; gives the place of its length, for [`Writer::close`].
    pub fn open(&mut self, number: u32) -> Result<usize, Refusal> {
        self.varint(u64::from(number << 3 | 2))?;
        self.out.append(&[0])?;
        Ok(self.out.len() - 1)
    }

    /// Writes the length of what came since `open`, moving it up if the length needs more than a byte.
    pub fn close(&mut self, start: usize) -> Result<(), Refusal> {
        let content = start + 1..self.out.len();
        let (bytes, len) = encode_varint(content.len() as u64);
        self.out.append(&[0; 10][..len - 1])?;
        let out = self.out.bytes_mut();
        out.copy_within(content, start + len);
        out[start..start + len].copy_from_slice(&bytes[..len]);
        Ok(())
    }
}

/// The bytes of a varint and how many there are.
fn encode_varint(mut value: u64) -> ([u8; 10], usize) {
    let mut bytes = [0; 10];
    let mut len = 0;
    while value >= 0x80 {
        bytes[len] = value as u8 | 0x80;
        value >>= 7;
        len += 1;
    }
    bytes[len] = value as u8;
    (bytes, len + 1)
}
