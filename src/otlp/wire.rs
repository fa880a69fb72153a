//! The fields of a protobuf message as runs of bytes.
//! Source: protobuf.dev, "Encoding".

/// A field's value by its wire type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    /// A text, a message, bytes or packed numbers.
    Bytes(&'a [u8]),
    Group,
    Fixed32(u32),
}

/// One field: `raw` is the tag and the value, untouched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field<'a> {
    pub(crate) number: u32,
    pub(crate) raw: &'a [u8],
    pub(crate) value: Value<'a>,
}

impl<'a> Field<'a> {
    /// The value of a length-delimited field.
    pub(crate) fn payload(&self) -> Option<&'a [u8]> {
        match self.value {
            Value::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The value, if this is the length-delimited field `number`.
    pub(crate) fn message(&self, number: u32) -> Option<&'a [u8]> {
        self.payload().filter(|_| self.number == number)
    }
}

/// Yields None once, as the last item, where the bytes are no protobuf.
#[derive(Clone)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn new(message: &'a [u8]) -> Fields<'a> {
        Fields { rest: message }
    }

    #[inline]
    fn next_field(&mut self) -> Option<Field<'a>> {
        #[cfg(test)]
        work::count();
        let whole = self.rest;
        let mut at = whole;
        let tag = take_varint(&mut at)?;
        let number = u32::try_from(tag >> 3).ok().filter(|&n| n != 0)?;
        let value = match tag & 7 {
            0 => Value::Varint(take_varint(&mut at)?),
            1 => Value::Fixed64(u64::from_le_bytes(take(&mut at, 8)?.try_into().ok()?)),
            2 => {
                let len = usize::try_from(take_varint(&mut at)?).ok()?;
                Value::Bytes(take(&mut at, len)?)
            }
            3 => skip_group(&mut at).map(|()| Value::Group)?,
            5 => Value::Fixed32(u32::from_le_bytes(take(&mut at, 4)?.try_into().ok()?)),
            _ => return None,
        };
        self.rest = at;
        Some(Field { number, raw: &whole[..whole.len() - at.len()], value })
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Option<Field<'a>>;

    #[inline]
    fn next(&mut self) -> Option<Option<Field<'a>>> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.next_field();
        if field.is_none() {
            self.rest = &[];
        }
        Some(field)
    }
}

#[inline]
fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(len)?;
    *rest = after;
    Some(taken)
}

#[inline]
fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    match **rest {
        [byte @ ..0x80, ref after @ ..] => {
            *rest = after;
            Some(u64::from(byte))
        }
        _ => take_long_varint(rest),
    }
}

fn take_long_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let byte = take(rest, 1)?[0];
        value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// Groups are long deprecated and none is known to OTLP; counting suffices to find the end.
fn skip_group(rest: &mut &[u8]) -> Option<()> {
    let mut depth = 1;
    while depth > 0 {
        match take_varint(rest)? & 7 {
            0 => take_varint(rest).map(|_| ())?,
            1 => take(rest, 8).map(|_| ())?,
            2 => {
                let len = usize::try_from(take_varint(rest)?).ok()?;
                take(rest, len)?;
            }
            3 => depth += 1,
            4 => depth -= 1,
            5 => take(rest, 4).map(|_| ())?,
            _ => return None,
        }
    }
    Some(())
}

/// Packed numbers: varints, or eight bytes each. Yields None once, as the last item, where they are cut off.
pub(crate) fn packed(mut rest: &[u8], varints: bool) -> impl Iterator<Item = Option<Value<'_>>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let next = match varints {
            true => take_varint(&mut rest).map(Value::Varint),
            false => {
                take(&mut rest, 8).map(|bytes| Value::Fixed64(u64::from_le_bytes(bytes.try_into().expect("eight"))))
            }
        };
        if next.is_none() {
            rest = &[];
        }
        Some(next)
    })
}

/// A sint32 as the wire has it.
pub(crate) fn zigzag(number: u32) -> i32 {
    (number >> 1) as i32 ^ -((number & 1) as i32)
}

/// Appends a length-delimited field.
pub(crate) fn put_bytes(out: &mut Vec<u8>, number: u32, payload: &[u8]) {
    put_bytes_header(out, number, payload.len());
    out.extend_from_slice(payload);
}

/// Appends its tag and its length.
pub(crate) fn put_bytes_header(out: &mut Vec<u8>, number: u32, len: usize) {
    put_varint(out, u64::from(number << 3 | 2));
    put_varint(out, len as u64);
}

pub(crate) fn varint_len(number: u64) -> usize {
    (64 - (number | 1).leading_zeros() as usize).div_ceil(7)
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
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
