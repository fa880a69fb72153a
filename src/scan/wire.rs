//! Fields of protobuf as places in a body, and what conditions read of them. Not as bytes, which
//! [`wire::Fields`] gives: a [`Scan`](super::Scan) keeps what it found beside the body and outlives it, and a
//! [`Slice`] is half as large.

use crate::otlp::wire::{self, Cursor, Run};
use crate::trace::Slice;

pub use crate::otlp::wire::Malformed;

pub type Value = wire::Value<Slice>;
pub type Field = wire::Field<Slice>;

/// Walks the fields of the message in one run of a body.
#[derive(Clone, Copy)]
pub struct Reader<'a>(Cursor<'a>);

impl<'a> Reader<'a> {
    /// Reads `message`, a run of `body`. Offsets that it returns are offsets in `body`.
    pub fn new(body: &'a [u8], message: Slice) -> Reader<'a> {
        let end = (message.start + message.len) as usize;
        Reader(Cursor::new(&body[..end], message.start as usize))
    }

    /// Reads all of `body`, which must be shorter than 4 GiB.
    pub fn whole(body: &'a [u8]) -> Reader<'a> {
        Reader(Cursor::new(body, 0))
    }

    /// The next field; none at the end of the message.
    // Not an iterator: `?` on the outside reads better than on every item. Inlined as what it calls.
    #[allow(clippy::should_implement_trait)]
    #[inline(always)]
    pub fn next(&mut self) -> Result<Option<Field>, Malformed> {
        let slice = |run: Run| Slice { start: run.start as u32, len: run.len as u32 };
        Ok(self.0.field()?.map(|field| field.map(slice)))
    }
}

/// The value of an OTLP `AnyValue`, as far as conditions compare it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum ComparableValue {
    /// No value, or a kind that nothing compares (bytes, key-value list).
    Other,
    Text(Slice),
    Bool(bool),
    Int(i64),
    Double(f64),
    /// An `ArrayValue` message.
    Array(Slice),
}

impl ComparableValue {
    /// Reads the `AnyValue` message. Of a oneof that occurs repeatedly, the last wins.
    pub fn read(body: &[u8], message: Slice) -> Result<ComparableValue, Malformed> {
        let mut fields = Reader::new(body, message);
        let mut any = ComparableValue::Other;
        while let Some(field) = fields.next()? {
            any = match field.number {
                1 => ComparableValue::Text(field.value.bytes()?),
                2 => ComparableValue::Bool(field.value.varint()? != 0),
                3 => ComparableValue::Int(field.value.varint()? as i64),
                4 => ComparableValue::Double(f64::from_bits(field.value.fixed64()?)),
                5 => ComparableValue::Array(field.value.bytes()?),
                6 | 7 => field.value.bytes().map(|_| ComparableValue::Other)?,
                _ => continue,
            };
        }
        Ok(any)
    }
}

/// A `KeyValue`: the key, and the value if it has one.
#[inline]
pub fn read_key_value(body: &[u8], message: Slice) -> Result<(Slice, Option<Slice>), Malformed> {
    match short_key_value(body, message) {
        Some((key, value)) => Ok((key, Some(value))),
        None => read_any_key_value(body, message),
    }
}

/// As every exporter writes it: the key, then the value, each shorter than 128 bytes.
#[inline]
fn short_key_value(body: &[u8], message: Slice) -> Option<(Slice, Slice)> {
    let bytes = message.of(body);
    let &[0x0a, key_len @ ..0x80, ref rest @ ..] = bytes else { return None };
    let &[0x12, value_len @ ..0x80, ref value @ ..] = rest.get(usize::from(key_len)..)? else { return None };
    if value.len() != usize::from(value_len) {
        return None;
    }
    let key = Slice { start: message.start + 2, len: u32::from(key_len) };
    Some((key, Slice { start: key.start + key.len + 2, len: u32::from(value_len) }))
}

fn read_any_key_value(body: &[u8], message: Slice) -> Result<(Slice, Option<Slice>), Malformed> {
    let mut fields = Reader::new(body, message);
    let (mut key, mut value) = (Slice::default(), None);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => key = field.value.bytes()?,
            2 => value = Some(field.value.bytes()?),
            _ => {}
        }
    }
    Ok((key, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_way_reads_a_key_value_as_the_long_way_does() {
        for body in
            [&b"\x0a\x01k\x12\x03\x0a\x01v"[..], b"\x12\x02\x10\x01\x0a\x01k", b"\x0a\x01k", b"", b"\x0a\x01k\x12\x00"]
        {
            let message = Slice { start: 0, len: body.len() as u32 };
            assert_eq!(read_key_value(body, message), read_any_key_value(body, message), "{body:?}");
        }
        let repeated = b"\x0a\x01k\x12\x00\x0a\x01j";
        let message = Slice { start: 0, len: repeated.len() as u32 };
        assert_eq!(read_key_value(repeated, message).unwrap().0.of(repeated), b"j");
    }
}
