//! The protobuf wire format, read in place. Source: Protocol Buffers documentation, "Encoding".
//!
//! It accepts what prost accepts: ten-byte varints whose last byte is at most one, field numbers
//! from one, unknown fields of every kind, and unknown groups nested up to [`GROUP_DEPTH_MAX`].

use crate::trace::Slice;

/// How deep unknown groups may nest; deeper is malformed, as for prost.
pub const GROUP_DEPTH_MAX: usize = 100;

/// The bytes are not a protobuf message, or a known field has the wrong wire type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed;

/// A field's value. Groups have been walked over.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Value {
    Varint(u64),
    Fixed64(u64),
    /// Where the bytes of a string, a message or packed numbers are.
    Bytes(Slice),
    /// How deep it nests: 1 if there is no other group in it.
    Group(usize),
    Fixed32(u32),
}

impl Value {
    pub fn bytes(self) -> Result<Slice, Malformed> {
        match self {
            Value::Bytes(slice) => Ok(slice),
            _ => Err(Malformed),
        }
    }

    pub fn varint(self) -> Result<u64, Malformed> {
        match self {
            Value::Varint(number) => Ok(number),
            _ => Err(Malformed),
        }
    }

    pub fn fixed64(self) -> Result<u64, Malformed> {
        match self {
            Value::Fixed64(number) => Ok(number),
            _ => Err(Malformed),
        }
    }

    pub fn fixed32(self) -> Result<u32, Malformed> {
        match self {
            Value::Fixed32(number) => Ok(number),
            _ => Err(Malformed),
        }
    }
}

/// One field of a message.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    pub number: u32,
    pub value: Value,
    /// The whole field, tag included.
    pub whole: Slice,
}

/// Walks the fields of the message in one run of a body.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    body: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads `message`, a run of `body`. Offsets that it returns are offsets in `body`.
    pub fn new(body: &'a [u8], message: Slice) -> Reader<'a> {
        let end = (message.start + message.len) as usize;
        Reader { body: &body[..end], at: message.start as usize }
    }

    /// Reads all of `body`, which must be shorter than 4 GiB.
    pub fn whole(body: &'a [u8]) -> Reader<'a> {
        Reader { body, at: 0 }
    }

    /// The next field; none at the end of the message.
    // Not an iterator: `?` on the outside reads better than on every item. Always inlined: a field
    // that is returned through memory costs more than finding it.
    #[allow(clippy::should_implement_trait)]
    #[inline(always)]
    pub fn next(&mut self) -> Result<Option<Field>, Malformed> {
        if self.at == self.body.len() {
            return Ok(None);
        }
        let start = self.at;
        let (number, wire_type) = self.tag()?;
        let value = self.value(number, wire_type)?;
        let whole = Slice { start: start as u32, len: (self.at - start) as u32 };
        Ok(Some(Field { number, value, whole }))
    }

    /// Reads a message that is nothing but packed varints. One that is torn or too long is the last.
    pub fn varints(mut self) -> impl Iterator<Item = Result<u64, Malformed>> {
        std::iter::from_fn(move || {
            if self.at == self.body.len() {
                return None;
            }
            let varint = self.varint();
            if varint.is_err() {
                self.at = self.body.len();
            }
            Some(varint)
        })
    }

    #[inline(always)]
    fn tag(&mut self) -> Result<(u32, u8), Malformed> {
        let key = u32::try_from(self.varint()?).map_err(|_| Malformed)?;
        if key >> 3 == 0 { Err(Malformed) } else { Ok((key >> 3, (key & 7) as u8)) }
    }

    #[inline(always)]
    fn value(&mut self, number: u32, wire_type: u8) -> Result<Value, Malformed> {
        Ok(match wire_type {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let len = self.varint()?;
                let start = self.at;
                if len > (self.body.len() - start) as u64 {
                    return Err(Malformed);
                }
                self.at += len as usize;
                Value::Bytes(Slice { start: start as u32, len: len as u32 })
            }
            3 => Value::Group(self.skip_group(number)?),
            5 => Value::Fixed32(u32::from_le_bytes(self.array()?)),
            _ => return Err(Malformed),
        })
    }

    #[inline(always)]
    fn varint(&mut self) -> Result<u64, Malformed> {
        let first = *self.body.get(self.at).ok_or(Malformed)?;
        if first < 0x80 {
            self.at += 1;
            return Ok(u64::from(first));
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> Result<u64, Malformed> {
        let mut number = 0;
        for (index, &byte) in self.body[self.at..].iter().take(10).enumerate() {
            number |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                // The tenth byte holds the 64th bit alone.
                if index == 9 && byte > 1 {
                    return Err(Malformed);
                }
                self.at += index + 1;
                return Ok(number);
            }
        }
        Err(Malformed)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let bytes = self.body.get(self.at..self.at + N).ok_or(Malformed)?;
        self.at += N;
        Ok(bytes.try_into().expect("the slice has N bytes"))
    }

    /// Walks over a group whose start tag has been read, without recursion. Returns how deep it nests.
    #[cold]
    fn skip_group(&mut self, number: u32) -> Result<usize, Malformed> {
        let mut open = [0; GROUP_DEPTH_MAX];
        open[0] = number;
        let (mut depth, mut deepest) = (1, 1);
        while depth > 0 {
            let (number, wire_type) = self.tag()?;
            match wire_type {
                3 => {
                    *open.get_mut(depth).ok_or(Malformed)? = number;
                    depth += 1;
                    deepest = deepest.max(depth);
                }
                4 if open[depth - 1] == number => depth -= 1,
                _ => {
                    self.value(number, wire_type)?;
                }
            }
        }
        Ok(deepest)
    }
}

/// Appends a varint.
pub fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Bytes of a varint.
pub fn varint_len(number: u64) -> usize {
    (64 - (number | 1).leading_zeros() as usize).div_ceil(7)
}

/// Appends the tag and the length of a field of bytes (string or message).
pub fn put_bytes_header(out: &mut Vec<u8>, number: u32, len: usize) {
    put_varint(out, u64::from(number << 3 | 2));
    put_varint(out, len as u64);
}

/// Appends a field of bytes.
pub fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_bytes_header(out, number, bytes.len());
    out.extend_from_slice(bytes);
}

/// The value of an OTLP `AnyValue`, as far as conditions compare it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Any {
    /// No value, or a kind that nothing compares (bytes, key-value list).
    Other,
    Text(Slice),
    Bool(bool),
    Int(i64),
    Double(f64),
    /// An `ArrayValue` message.
    Array(Slice),
}

impl Any {
    /// Reads the `AnyValue` message. Of a oneof that occurs repeatedly, the last wins.
    pub fn read(body: &[u8], message: Slice) -> Result<Any, Malformed> {
        let mut fields = Reader::new(body, message);
        let mut any = Any::Other;
        while let Some(field) = fields.next()? {
            any = match field.number {
                1 => Any::Text(field.value.bytes()?),
                2 => Any::Bool(field.value.varint()? != 0),
                3 => Any::Int(field.value.varint()? as i64),
                4 => Any::Double(f64::from_bits(field.value.fixed64()?)),
                5 => Any::Array(field.value.bytes()?),
                6 | 7 => field.value.bytes().map(|_| Any::Other)?,
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
    fn varints_have_ten_bytes_at_most() {
        let read = |bytes: &[u8]| Reader::whole(bytes).varint();
        assert_eq!(read(&[0x7f]), Ok(127));
        assert_eq!(read(&[0x80, 0x80, 0x00]), Ok(0));
        let max = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(read(&max), Ok(u64::MAX));
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]), Err(Malformed));
        assert_eq!(read(&[0x80; 11]), Err(Malformed));
        assert_eq!(read(&[0x80]), Err(Malformed));
    }

    #[test]
    fn lengths_are_those_that_are_written() {
        for number in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, number);
            assert_eq!(out.len(), varint_len(number));
            assert_eq!(Reader::whole(&out).varint(), Ok(number));
        }
    }

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

    #[test]
    fn unknown_groups_are_walked_over_to_their_end() {
        // Field 9 group { field 1 varint, field 10 group {} }, then field 1 varint 5.
        let body = [0x4b, 0x08, 0x01, 0x53, 0x54, 0x4c, 0x08, 0x05];
        let mut reader = Reader::whole(&body);
        assert_eq!(reader.next().unwrap().unwrap().value, Value::Group(2));
        assert_eq!(reader.next().unwrap().unwrap().value, Value::Varint(5));
        assert!(reader.next().unwrap().is_none());
        let nested = |depth: usize| [vec![0x4b; depth], vec![0x4c; depth]].concat();
        assert!(Reader::whole(&nested(GROUP_DEPTH_MAX)).next().is_ok());
        assert!(Reader::whole(&nested(GROUP_DEPTH_MAX + 1)).next().is_err());
        assert!(Reader::whole(&[0x4b, 0x54]).next().is_err(), "an end tag of another group");
    }
}
