//! Makes deliverable what came with a flaw, and touches nothing else: a text that is not UTF-8 leaves with
//! U+FFFD in place of what is not, as JSON's readers put it there; of metrics and logs a part that nobody
//! could read is left out. The lengths of the messages around it are written anew.
//!
//! The work and the memory grow with the request, however deep it nests: a first walk notes the new length of
//! each message that changes, a second one writes.

use super::Rejected;
use super::check::{Fault, FieldKind, MessageType, check, check_field};
use super::items;
use super::wire::{Field, Malformed, Reader, Value};
use crate::otlp::wire::{put_bytes_header, varint_len};
use crate::trace::{Signal, Slice};
use std::borrow::Cow;

const REPLACEMENT: &[u8] = "\u{fffd}".as_bytes();

/// A request of metrics or logs that can be passed on.
#[derive(Debug)]
pub struct Repaired<'a> {
    pub body: Cow<'a, [u8]>,
    /// Data points or log records in it.
    pub items: u64,
    /// What is no longer in it.
    pub rejected: Rejected,
}

/// `body` without the parts that no receiver would take, and with texts in UTF-8. A text may triple: where the whole
/// would be longer than `most`, and than twice what came, nothing is left of it.
///
/// # Errors
/// When it is malformed outside of its metrics or log records; then nothing of it can be taken.
pub fn request(signal: Signal, body: &[u8], most: usize) -> Result<Repaired<'_>, Malformed> {
    let items = items::count(signal, body)?;
    let shape = MessageType::request(signal);
    if check(shape, body) == Ok(true) {
        return Ok(Repaired { body: Cow::Borrowed(body), items, rejected: Rejected::default() });
    }
    let mut plan = Plan::new(body);
    let changed = plan.message(shape, whole(body), shape.depth()).map_err(|_| Malformed)?;
    let mut rejected = plan.rejected;
    if changed.is_some_and(|len| len as usize > most.max(2 * body.len())) {
        rejected.too_many += items - rejected.total();
        return Ok(Repaired { body: Cow::Borrowed(&[]), items: 0, rejected });
    }
    let body = changed.map_or(Cow::Borrowed(body), |len| Cow::Owned(plan.write(shape, len)));
    let items = items::count(signal, &body)?;
    Ok(Repaired { body, items, rejected })
}

/// A message that was taken, as it came if all of its texts are UTF-8.
pub fn texts(shape: MessageType, message: &[u8]) -> Cow<'_, [u8]> {
    if check(shape, message) == Ok(true) {
        return Cow::Borrowed(message);
    }
    let mut plan = Plan::new(message);
    match plan.message(shape, whole(message), shape.depth()) {
        Ok(Some(len)) => Cow::Owned(plan.write(shape, len)),
        Ok(None) | Err(_) => Cow::Borrowed(message),
    }
}

fn whole(body: &[u8]) -> Slice {
    Slice { start: 0, len: body.len() as u32 }
}

/// What becomes of a message in the body.
#[derive(Clone, Copy, Debug)]
struct Replacement {
    /// Where its field starts.
    start: u32,
    /// Its new length; none if it is left out.
    len: Option<u32>,
}

struct Plan<'a> {
    body: &'a [u8],
    /// The messages that change, in the order of their starts.
    changes: Vec<Replacement>,
    rejected: Rejected,
}

impl<'a> Plan<'a> {
    fn new(body: &'a [u8]) -> Plan<'a> {
        Plan { body, changes: Vec::new(), rejected: Rejected::default() }
    }

    /// The new length of a message, none if it stays as it is. Messages may nest `depth` deep, it included.
    fn message(&mut self, shape: MessageType, message: Slice, depth: usize) -> Result<Option<u32>, Fault> {
        let depth = depth.checked_sub(1).ok_or(Fault::TooDeep)?;
        let (mut len, mut changed) = (message.len, false);
        let mut fields = Reader::new(self.body, message);
        while let Some(field) = fields.next()? {
            if let Some(new) = self.field(shape, field, depth)? {
                len = len - field.raw.len + new;
                changed = true;
            }
        }
        Ok(changed.then_some(len))
    }

    /// The new length of a field with its tag; none if it stays as it is.
    fn field(&mut self, shape: MessageType, field: Field, depth: usize) -> Result<Option<u32>, Fault> {
        let new = match (shape.field(field.number), field.value) {
            (Some(FieldKind::Text), Value::Bytes(text)) => repaired_len(text.of(self.body)),
            (Some(FieldKind::Message(inner)), Value::Bytes(message)) => {
                let known = (self.changes.len(), self.rejected);
                self.changes.push(Replacement { start: field.raw.start, len: None });
                match self.message(inner, message, depth) {
                    Err(fault) if inner.is_separable() => {
                        self.leave_out(inner, message, fault, known);
                        return Ok(Some(0));
                    }
                    new => self.resize(known.0, new?),
                }
            }
            _ => check_field(shape, self.body, field, depth).map(|()| None)?,
        };
        Ok(new.map(|len| (varint_len(u64::from(field.number << 3)) + varint_len(u64::from(len))) as u32 + len))
    }

    /// Notes the new length of the message whose change has that index.
    fn resize(&mut self, index: usize, len: Option<u32>) -> Option<u32> {
        self.changes[index].len = len;
        if len.is_none() {
            self.changes.truncate(index);
        }
        len
    }

    /// Refuses a message with whatever was found in it before the fault.
    fn leave_out(&mut self, shape: MessageType, message: Slice, fault: Fault, known: (usize, Rejected)) {
        self.changes.truncate(known.0 + 1);
        self.changes[known.0].len = None;
        self.rejected = known.1;
        let items = items::count_in(shape, self.body, message).unwrap_or(1);
        self.rejected.count(fault, items);
    }

    fn write(&self, shape: MessageType, len: u32) -> Vec<u8> {
        let mut out = Vec::with_capacity(len as usize);
        let mut changes = self.changes.iter().copied();
        let next = changes.next();
        Writing { body: self.body, changes, next, out: &mut out }.message(shape, whole(self.body));
        debug_assert_eq!(out.len(), len as usize);
        out
    }
}

/// The length of a text once it is repaired; none if it need not be.
fn repaired_len(text: &[u8]) -> Option<u32> {
    if simdutf8::basic::from_utf8(text).is_ok() {
        return None;
    }
    let len = |chunk: std::str::Utf8Chunk| {
        chunk.valid().len() + if chunk.invalid().is_empty() { 0 } else { REPLACEMENT.len() }
    };
    Some(text.utf8_chunks().map(len).sum::<usize>() as u32)
}

/// Writes what a plan says.
struct Writing<'a, Changes> {
    body: &'a [u8],
    changes: Changes,
    next: Option<Replacement>,
    out: &'a mut Vec<u8>,
}

impl<Changes: Iterator<Item = Replacement>> Writing<'_, Changes> {
    fn message(&mut self, shape: MessageType, message: Slice) {
        let mut fields = Reader::new(self.body, message);
        while let Ok(Some(field)) = fields.next() {
            match (shape.field(field.number), field.value) {
                (Some(FieldKind::Message(inner)), Value::Bytes(message)) if self.changes_at(field.raw.start) => {
                    let change = std::mem::replace(&mut self.next, self.changes.next());
                    if let Some(len) = change.and_then(|change| change.len) {
                        put_bytes_header(self.out, field.number, len as usize);
                        self.message(inner, message);
                    }
                }
                (Some(FieldKind::Text), Value::Bytes(text)) => self.text(field, text.of(self.body)),
                _ => self.out.extend_from_slice(field.raw.of(self.body)),
            }
        }
    }

    fn changes_at(&self, start: u32) -> bool {
        self.next.is_some_and(|change| change.start == start)
    }

    fn text(&mut self, field: Field, text: &[u8]) {
        let Some(len) = repaired_len(text) else {
            return self.out.extend_from_slice(field.raw.of(self.body));
        };
        put_bytes_header(self.out, field.number, len as usize);
        for chunk in text.utf8_chunks() {
            self.out.extend_from_slice(chunk.valid().as_bytes());
            if !chunk.invalid().is_empty() {
                self.out.extend_from_slice(REPLACEMENT);
            }
        }
    }
}
