//! The protobuf wire format, read in place and written. Source: Protocol Buffers documentation, "Encoding".
//!
//! It accepts what prost accepts: ten-byte varints whose last byte is at most one, field numbers
//! from one, unknown fields of every kind, and unknown groups nested up to [`DEPTH_MAX`].

use super::DEPTH_MAX;

/// The bytes are not a protobuf message, or a known field has the wrong wire type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed;

/// A field's value by its wire type. `Bytes` is a run of bytes: themselves, or where they are.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Value<Bytes> {
    Varint(u64),
    Fixed64(u64),
    /// A text, a message, bytes or packed numbers.
    Bytes(Bytes),
    /// How deep it nests: 1 if there is no other group in it. Groups have been walked over.
    Group(usize),
    Fixed32(u32),
}

impl<Bytes> Value<Bytes> {
    pub fn bytes(self) -> Result<Bytes, Malformed> {
        match self {
            Value::Bytes(bytes) => Ok(bytes),
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
pub struct Field<Bytes> {
    pub number: u32,
    pub value: Value<Bytes>,
    /// The tag and the value, untouched.
    pub raw: Bytes,
}

impl<Bytes> Field<Bytes> {
    /// The same with another form of the bytes.
    #[inline(always)]
    pub fn map<Other>(self, form: impl Fn(Bytes) -> Other) -> Field<Other> {
        let value = match self.value {
            Value::Varint(number) => Value::Varint(number),
            Value::Fixed64(number) => Value::Fixed64(number),
            Value::Bytes(bytes) => Value::Bytes(form(bytes)),
            Value::Group(levels) => Value::Group(levels),
            Value::Fixed32(number) => Value::Fixed32(number),
        };
        Field { number: self.number, value, raw: form(self.raw) }
    }
}

impl<'a> Field<&'a [u8]> {
    /// The value of a length-delimited field.
    pub fn payload(&self) -> Option<&'a [u8]> {
        self.value.bytes().ok()
    }

    /// The value, if this is the length-delimited field `number`.
    pub fn message(&self, number: u32) -> Option<&'a [u8]> {
        self.payload().filter(|_| self.number == number)
    }
}

/// Where bytes stand in those that a [`Cursor`] reads.
#[derive(Clone, Copy)]
pub struct Run {
    pub start: usize,
    pub len: usize,
}

/// Goes over the fields of a message. A run of bytes is where it stands: one offset moves, which costs less than
/// to narrow a slice.
#[derive(Clone, Copy)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Reads `bytes` from `at` on to their end.
    pub fn new(bytes: &'a [u8], at: usize) -> Cursor<'a> {
        Cursor { bytes, at }
    }

    /// The next field; none at the end of the message.
    // Always inlined: a field that is returned through memory costs more than finding it.
    #[inline(always)]
    pub fn field(&mut self) -> Result<Option<Field<Run>>, Malformed> {
        if self.at == self.bytes.len() {
            return Ok(None);
        }
        #[cfg(test)]
        work::count();
        let start = self.at;
        let (number, wire_type) = self.tag()?;
        let value = self.value(number, wire_type)?;
        Ok(Some(Field { number, value, raw: Run { start, len: self.at - start } }))
    }

    #[inline(always)]
    fn tag(&mut self) -> Result<(u32, u8), Malformed> {
        let key = u32::try_from(self.varint()?).map_err(|_| Malformed)?;
        if key >> 3 == 0 { Err(Malformed) } else { Ok((key >> 3, (key & 7) as u8)) }
    }

    #[inline(always)]
    fn value(&mut self, number: u32, wire_type: u8) -> Result<Value<Run>, Malformed> {
        Ok(match wire_type {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let len = self.varint()?;
                let start = self.at;
                if len > (self.bytes.len() - start) as u64 {
                    return Err(Malformed);
                }
                self.at += len as usize;
                Value::Bytes(Run { start, len: len as usize })
            }
            3 => Value::Group(self.skip_group(number)?),
            5 => Value::Fixed32(u32::from_le_bytes(self.array()?)),
            _ => return Err(Malformed),
        })
    }

    /// Bytes that have not been read.
    pub fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    #[inline(always)]
    pub fn varint(&mut self) -> Result<u64, Malformed> {
        let first = *self.bytes.get(self.at).ok_or(Malformed)?;
        if first < 0x80 {
            self.at += 1;
            return Ok(u64::from(first));
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> Result<u64, Malformed> {
        let mut number = 0;
        for (index, &byte) in self.bytes[self.at..].iter().take(10).enumerate() {
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

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let bytes = self.bytes.get(self.at..self.at + N).ok_or(Malformed)?;
        self.at += N;
        Ok(bytes.try_into().expect("the slice has N bytes"))
    }

    /// Walks over a group whose start tag has been read, without recursion. Returns how deep it nests.
    #[cold]
    fn skip_group(&mut self, number: u32) -> Result<usize, Malformed> {
        let mut open = [0; DEPTH_MAX];
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
                _ => drop(self.value(number, wire_type)?),
            }
        }
        Ok(deepest)
    }
}

/// The fields of a message with their bytes. Yields None once, as the last item, where they are no protobuf.
#[derive(Clone)]
pub struct Fields<'a>(Cursor<'a>);

impl<'a> Fields<'a> {
    pub fn new(message: &'a [u8]) -> Fields<'a> {
        Fields(Cursor::new(message, 0))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Option<Field<&'a [u8]>>;

    // Always inlined, as the cursor's.
    #[inline(always)]
    fn next(&mut self) -> Option<Option<Field<&'a [u8]>>> {
        let bytes = self.0.bytes;
        match self.0.field() {
            Ok(field) => field.map(|field| Some(field.map(|run| &bytes[run.start..run.start + run.len]))),
            Err(Malformed) => {
                self.0.at = bytes.len();
                Some(None)
            }
        }
    }
}

/// Packed numbers: varints, or eight bytes each. Yields None once, as the last item, where they are cut off.
#[inline]
pub fn packed(bytes: &[u8], varints: bool) -> impl Iterator<Item = Option<Value<&[u8]>>> {
    let mut cursor = Cursor::new(bytes, 0);
    std::iter::from_fn(move || {
        if cursor.at == bytes.len() {
            return None;
        }
        let next = if varints {
            cursor.varint().map(Value::Varint)
        } else {
            cursor.array().map(u64::from_le_bytes).map(Value::Fixed64)
        };
        if next.is_err() {
            cursor.at = bytes.len();
        }
        Some(next.ok())
    })
}

/// A sint32 as the wire has it.
pub fn zigzag(number: u32) -> i32 {
    (number >> 1) as i32 ^ -((number & 1) as i32)
}

/// Appends a field of bytes: a text or a message.
pub fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_bytes_header(out, number, bytes.len());
    out.extend_from_slice(bytes);
}

/// Appends its tag and its length.
pub fn put_bytes_header(out: &mut Vec<u8>, number: u32, len: usize) {
    put_varint(out, u64::from(number << 3 | 2));
    put_varint(out, len as u64);
}

/// Appends a varint.
pub fn put_varint(out: &mut Vec<u8>, number: u64) {
    each_varint_byte(number, |byte| out.push(byte));
}

/// The bytes of a varint, and how many there are.
pub fn encode_varint(number: u64) -> ([u8; 10], usize) {
    let (mut bytes, mut len) = ([0; 10], 0);
    each_varint_byte(number, |byte| {
        bytes[len] = byte;
        len += 1;
    });
    (bytes, len)
}

#[inline]
fn each_varint_byte(mut number: u64, mut put: impl FnMut(u8)) {
    while number >= 0x80 {
        put(number as u8 | 0x80);
        number >>= 7;
    }
    put(number as u8);
}

/// Bytes of a varint.
pub fn varint_len(number: u64) -> usize {
    (64 - (number | 1).leading_zeros() as usize).div_ceil(7)
}

/// Fields that this thread looked at, for tests that bound work.
#[cfg(test)]
pub(crate) mod work {
    use std::cell::Cell;

    thread_local! {
        static FIELDS: Cell<u64> = const { Cell::new(0) };
    }

    pub(super) fn count() {
        FIELDS.set(FIELDS.get() + 1);
    }

    pub(crate) fn done() -> u64 {
        FIELDS.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn varint(bytes: &[u8]) -> Result<u64, Malformed> {
        Cursor::new(bytes, 0).varint()
    }

    #[test]
    fn varints_have_ten_bytes_at_most() {
        assert_eq!(varint(&[0x7f]), Ok(127));
        assert_eq!(varint(&[0x80, 0x80, 0x00]), Ok(0));
        let max = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(varint(&max), Ok(u64::MAX));
        assert_eq!(varint(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]), Err(Malformed));
        assert_eq!(varint(&[0x80; 11]), Err(Malformed));
        assert_eq!(varint(&[0x80]), Err(Malformed));
    }

    #[test]
    fn lengths_are_those_that_are_written() {
        for number in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, number);
            assert_eq!(out.len(), varint_len(number));
            assert_eq!(varint(&out), Ok(number));
        }
    }

    #[test]
    fn unknown_groups_are_walked_over_to_their_end() {
        // Field 9 group { field 1 varint, field 10 group {} }, then field 1 varint 5.
        let mut fields =
            Fields::new(&[0x4b, 0x08, 0x01, 0x53, 0x54, 0x4c, 0x08, 0x05]).map(|field| field.unwrap().value);
        assert_eq!(fields.next(), Some(Value::Group(2)));
        assert_eq!(fields.next(), Some(Value::Varint(5)));
        assert_eq!(fields.next(), None);
        let nested = |depth: usize| [vec![0x4b; depth], vec![0x4c; depth]].concat();
        let is_read = |bytes: &[u8]| Fields::new(bytes).next().flatten().is_some();
        assert!(is_read(&nested(DEPTH_MAX)));
        assert!(!is_read(&nested(DEPTH_MAX + 1)));
        assert!(!is_read(&[0x4b, 0x54]), "an end tag of another group");
    }
}
