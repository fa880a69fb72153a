//! Walks one span.

use super::check::{Fault, MessageType, check_message, check_unknown, read_attribute};
use super::dimension::{dimension_hash, operation_hash};
use super::tracestate::{self, Sampling};
use super::wire::{Field, Malformed, Reader};
use super::{DIMENSIONS_MAX, Keyed, Questions, ResourceAnswers};
use crate::trace::{Facts, Slice, SpanId, SpanKind, SpanView, Standing, Status, TraceId};

/// Why a span was refused.
pub(super) enum SpanRefusal {
    BadId,
    Fault(Fault),
}

impl<T: Into<Fault>> From<T> for SpanRefusal {
    fn from(fault: T) -> SpanRefusal {
        SpanRefusal::Fault(fault.into())
    }
}

/// How deep messages may nest in a span.
const DEPTH: usize = MessageType::Span.depth() - 1;

/// The fields of a span, while they are walked.
#[derive(Default)]
struct SpanFields {
    span: SpanView,
    trace_id: Slice,
    span_id: Slice,
    parent_id: Slice,
    trace_state: Slice,
    status_message: Slice,
    flags: u32,
    tests: Facts,
    absent: Facts,
    dimensions: Option<[u64; DIMENSIONS_MAX]>,
}

/// Flags of a span: the low byte is W3C's, bit 8 says that bit 9 is known, bit 9 that the parent is remote.
const FLAG_RANDOM: u32 = 0x002;
const FLAG_REMOTE_KNOWN: u32 = 0x100;
const FLAG_REMOTE: u32 = 0x200;

/// Walks one span; the second value says that it is an entry unless its parent is in the request.
pub(super) fn walk_span(
    body: &[u8],
    message: Slice,
    resource: &ResourceAnswers,
    questions: &Questions,
    keyed: &Keyed,
) -> Result<(SpanView, bool), SpanRefusal> {
    let mut walked = SpanFields { tests: resource.tests, absent: questions.absent_attributes, ..Default::default() };
    walked.span.entry_values = resource.entry_values;
    let mut fields = Reader::new(body, message);
    while let Some(field) = fields.next()? {
        walked.take(body, field, questions, resource, keyed)?;
    }
    let SpanFields { mut span, trace_id, span_id, parent_id, trace_state, status_message, flags, .. } = walked;
    let SpanFields { mut tests, absent, dimensions, .. } = walked;
    span.raw = message;
    span.trace_id = TraceId(trace_id.of(body).try_into().map_err(|_| SpanRefusal::BadId)?);
    span.span_id = read_id(span_id.of(body))?;
    span.parent_id =
        if parent_id.len == 0 { 0 } else { read_id(parent_id.of(body)).or(zero_id(parent_id.of(body)))? };
    if span.trace_id == TraceId::default() {
        return Err(SpanRefusal::BadId);
    }
    if trace_state.len > 0 {
        read_trace_state(trace_state.of(body), questions, &mut span, &mut tests);
    }
    questions.status_message(status_message.of(body), &mut tests);
    span.random_flag = flags & FLAG_RANDOM != 0;
    let maybe_orphan = place(&mut span, flags);
    let name = span.name.of(body);
    span.name_hash = keyed.hash(name);
    span.operation = operation_hash(&span, resource, dimensions.as_ref(), questions, keyed);
    span.facts = questions.conclude(tests | absent, name, span.kind, span.status, span.duration());
    span.status = questions.counted_status(span.status, span.facts);
    Ok((span, maybe_orphan))
}

impl SpanFields {
    #[inline]
    fn take(
        &mut self,
        body: &[u8],
        field: Field,
        questions: &Questions,
        resource: &ResourceAnswers,
        keyed: &Keyed,
    ) -> Result<(), Fault> {
        let value = field.value;
        match field.number {
            1 => self.trace_id = value.bytes()?,
            2 => self.span_id = value.bytes()?,
            3 => self.trace_state = value.bytes()?,
            4 => self.parent_id = value.bytes()?,
            5 => self.span.name = value.bytes()?,
            6 => self.span.kind = SpanKind::from_wire(value.varint()? & 0xffff_ffff),
            7 => self.span.start = value.fixed64()?,
            8 => self.span.end = value.fixed64()?,
            9 => self.attribute(body, value.bytes()?, questions, resource, keyed)?,
            16 => self.flags = value.fixed32()?,
            _ => self.take_rare(body, field, questions)?,
        }
        Ok(())
    }

    #[inline]
    fn attribute(
        &mut self,
        body: &[u8],
        message: Slice,
        questions: &Questions,
        resource: &ResourceAnswers,
        keyed: &Keyed,
    ) -> Result<(), Fault> {
        let (key, value) = read_attribute(body, message, DEPTH)?;
        let (tests, absent) = (&mut self.tests, &mut self.absent);
        if let Some((wanted, value)) = questions.attributes.answer(body, key, value, tests, absent)? {
            let hash = dimension_hash(body, value, keyed);
            if let Some(index) = wanted.dimension {
                // A span's own attribute goes before the resource's.
                self.dimensions.get_or_insert(resource.dimensions)[usize::from(index)] = hash;
            }
            wanted.store(hash, &mut self.span.entry_values);
        }
        Ok(())
    }

    /// Fields that most spans do without; out of the way of the others.
    #[inline(never)]
    fn take_rare(&mut self, body: &[u8], field: Field, questions: &Questions) -> Result<(), Fault> {
        let value = field.value;
        match field.number {
            11 => {
                let event = value.bytes()?;
                check_message(MessageType::Event, body, event, DEPTH)?;
                if questions.reads_events() {
                    questions.event(read_event_name(body, event)?.of(body), &mut self.tests);
                }
            }
            13 => check_message(MessageType::Link, body, value.bytes()?, DEPTH)?,
            15 => self.read_status(body, value.bytes()?)?,
            10 | 12 | 14 => drop(value.varint()?),
            _ => check_unknown(value, DEPTH)?,
        }
        Ok(())
    }

    /// A status that occurs again is merged: the last code and the last message win.
    fn read_status(&mut self, body: &[u8], message: Slice) -> Result<(), Fault> {
        let mut fields = Reader::new(body, message);
        while let Some(field) = fields.next()? {
            match field.number {
                2 => self.status_message = field.value.bytes()?,
                3 => self.span.status = Status::from_wire(field.value.varint()? & 0xffff_ffff),
                _ => check_unknown(field.value, DEPTH - 1)?,
            }
        }
        Ok(())
    }
}

fn read_event_name(body: &[u8], message: Slice) -> Result<Slice, Malformed> {
    let mut fields = Reader::new(body, message);
    let mut name = Slice::default();
    while let Some(field) = fields.next()? {
        if field.number == 2 {
            name = field.value.bytes()?;
        }
    }
    Ok(name)
}

fn read_id(bytes: &[u8]) -> Result<SpanId, SpanRefusal> {
    match bytes.try_into().map(u64::from_be_bytes) {
        Ok(0) | Err(_) => Err(SpanRefusal::BadId),
        Ok(id) => Ok(id),
    }
}

/// Eight zero bytes as a parent mean "none": some exporters write them.
fn zero_id(bytes: &[u8]) -> Result<SpanId, SpanRefusal> {
    if bytes == [0; 8] { Ok(0) } else { Err(SpanRefusal::BadId) }
}

fn read_trace_state(state: &[u8], questions: &Questions, span: &mut SpanView, tests: &mut Facts) {
    let sampling = Sampling::read(state);
    span.randomness = sampling.randomness;
    span.head_sampled = sampling.threshold.is_some_and(|threshold| threshold.bits() > 0);
    if questions.reads_trace_state() {
        tracestate::members(state).for_each(|(key, value)| questions.trace_state_member(key, value, tests));
    }
}

/// Sets the span's standing; true if that depends on whether its parent is in the request.
fn place(span: &mut SpanView, flags: u32) -> bool {
    if span.parent_id == 0 {
        span.standing = Standing::Root;
    } else if flags & FLAG_REMOTE_KNOWN != 0 {
        if flags & FLAG_REMOTE != 0 {
            span.standing = Standing::Entry;
        }
    } else {
        return matches!(span.kind, SpanKind::Server | SpanKind::Consumer);
    }
    false
}
