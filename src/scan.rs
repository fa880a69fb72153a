//! Walks an `ExportTraceServiceRequest` once, in place, and learns of each span what it takes to
//! place, count and judge it. It never builds a span.
//! Source: opentelemetry-proto, `trace/v1/trace.proto`.
//!
//! A malformed span costs that span, as long as its message ends where it should; anything else
//! that is malformed costs the request. It accepts what prost accepts, except bad ids.

pub mod answer;
pub mod check;
mod dimension;
pub mod items;
pub mod splice;
pub mod tracestate;
pub mod wire;

pub use answer::Questions;
pub use dimension::dimensions;
pub use wire::Malformed;

use crate::trace::{Facts, Kind, ResourceView, ScopeView, Slice, SpanId, SpanView, Standing, Status, TraceId};
use answer::DIMENSIONS_MAX;
use dimension::{dimension_hash, series_hash};
use foldhash::fast::FixedState;
use std::collections::HashSet;
use std::hash::BuildHasher;
use tracestate::Sampling;
use wire::{Any, Field, Reader, read_key_value};

/// Hashes with a key that no client knows: ids are chosen by whoever sends them.
#[derive(Clone, Debug)]
pub struct Keyed(FixedState);

impl Keyed {
    pub fn new(seed: u64) -> Keyed {
        Keyed(FixedState::with_seed(seed))
    }

    #[inline]
    pub fn hash(&self, bytes: &[u8]) -> u64 {
        self.0.hash_one(bytes)
    }

    #[inline]
    pub fn mix(&self, a: u64, b: u64) -> u64 {
        self.0.hash_one((a, b))
    }
}

/// Spans that were refused, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rejected {
    /// The trace id or span id has the wrong length or is all zero.
    pub bad_id: u64,
    /// The span's message is not protobuf, or a field has the wrong wire type.
    pub malformed: u64,
    /// The span is larger than the bound.
    pub too_large: u64,
}

impl Rejected {
    pub fn total(&self) -> u64 {
        self.bad_id + self.malformed + self.too_large
    }
}

/// One walked request. Reused from request to request: it keeps its memory.
#[derive(Debug)]
pub struct Scan {
    pub resources: Vec<ResourceView>,
    pub scopes: Vec<ScopeView>,
    pub spans: Vec<SpanView>,
    /// Holds the headers of resources and scopes.
    pub arena: Vec<u8>,
    pub rejected: Rejected,
    /// Number of the question set that made the facts.
    pub questions: u32,
    resource: ResourceAnswers,
    /// Spans that are entries unless their parent is in this request.
    orphans: Vec<u32>,
    ids: HashSet<SpanId, FixedState>,
    keyed: Keyed,
}

/// What a resource says to the questions; holds for all of its spans.
#[derive(Clone, Copy, Debug, Default)]
struct ResourceAnswers {
    tests: Facts,
    service: Slice,
    service_hash: u64,
    dimensions: [u64; DIMENSIONS_MAX],
}

/// Why a span was refused.
enum Refusal {
    BadId,
    Malformed,
}

impl From<Malformed> for Refusal {
    fn from(_: Malformed) -> Refusal {
        Refusal::Malformed
    }
}

impl Scan {
    pub fn new(keyed: Keyed) -> Scan {
        Scan {
            resources: Vec::new(),
            scopes: Vec::new(),
            spans: Vec::new(),
            arena: Vec::new(),
            rejected: Rejected::default(),
            questions: 0,
            resource: ResourceAnswers::default(),
            orphans: Vec::new(),
            ids: HashSet::with_hasher(keyed.0.clone()),
            keyed,
        }
    }

    /// Walks `body`, which must be shorter than 4 GiB, and forgets what it held before.
    /// Spans of more than `span_bytes_max` bytes are refused.
    ///
    /// # Errors
    /// When the request is malformed outside of its spans; nothing of it counts then.
    pub fn read(&mut self, body: &[u8], questions: &Questions, span_bytes_max: u32) -> Result<(), Malformed> {
        self.clear(questions.number);
        let mut fields = Reader::whole(body);
        while let Some(field) = fields.next()? {
            if field.number == 1 {
                self.read_resource_spans(body, field.value.bytes()?, questions, span_bytes_max)?;
            }
        }
        self.find_parents();
        Ok(())
    }

    fn clear(&mut self, questions: u32) {
        self.resources.clear();
        self.scopes.clear();
        self.spans.clear();
        self.arena.clear();
        self.orphans.clear();
        self.rejected = Rejected::default();
        self.questions = questions;
    }

    /// The resource counts for all scopes, also for those before it: two walks.
    fn read_resource_spans(
        &mut self,
        body: &[u8],
        message: Slice,
        questions: &Questions,
        span_bytes_max: u32,
    ) -> Result<(), Malformed> {
        self.resource = read_resource(body, message, questions, &self.keyed)?;
        let start = self.arena.len();
        let mut fields = Reader::new(body, message);
        while let Some(field) = fields.next()? {
            if field.number != 2 {
                self.arena.extend_from_slice(field.whole.of(body));
            }
        }
        let header = Slice { start: start as u32, len: (self.arena.len() - start) as u32 };
        let hash = self.keyed.hash(header.of(&self.arena));
        let index = self.resources.len() as u32;
        self.resources.push(ResourceView {
            header,
            hash,
            service: self.resource.service,
            service_hash: self.resource.service_hash,
            service_id: 0,
        });
        let mut fields = Reader::new(body, message);
        while let Some(field) = fields.next()? {
            if field.number == 2 {
                self.read_scope_spans(body, field.value.bytes()?, index, questions, span_bytes_max)?;
            }
        }
        Ok(())
    }

    fn read_scope_spans(
        &mut self,
        body: &[u8],
        message: Slice,
        resource: u32,
        questions: &Questions,
        span_bytes_max: u32,
    ) -> Result<(), Malformed> {
        let (scope, start) = (self.scopes.len() as u32, self.arena.len());
        self.scopes.push(ScopeView::default());
        let mut fields = Reader::new(body, message);
        while let Some(field) = fields.next()? {
            match field.number {
                2 => self.read_span(body, field.value.bytes()?, scope, questions, span_bytes_max),
                1 | 3 => {
                    field.value.bytes()?;
                    self.arena.extend_from_slice(field.whole.of(body));
                }
                _ => self.arena.extend_from_slice(field.whole.of(body)),
            }
        }
        let header = Slice { start: start as u32, len: (self.arena.len() - start) as u32 };
        let own = self.keyed.hash(header.of(&self.arena));
        let hash = self.keyed.mix(self.resources[resource as usize].hash, own);
        self.scopes[scope as usize] = ScopeView { resource, header, hash };
        Ok(())
    }

    fn read_span(&mut self, body: &[u8], message: Slice, scope: u32, questions: &Questions, span_bytes_max: u32) {
        if message.len > span_bytes_max {
            self.rejected.too_large += 1;
            return;
        }
        match walk_span(body, message, &self.resource, questions, &self.keyed) {
            Ok((mut span, maybe_orphan)) => {
                span.scope = scope;
                if maybe_orphan {
                    self.orphans.push(self.spans.len() as u32);
                }
                self.spans.push(span);
            }
            Err(Refusal::BadId) => self.rejected.bad_id += 1,
            Err(Refusal::Malformed) => self.rejected.malformed += 1,
        }
    }

    /// Without flags, a server or consumer span is an entry only if its parent is not here.
    fn find_parents(&mut self) {
        if self.orphans.is_empty() {
            return;
        }
        self.ids.clear();
        self.ids.extend(self.spans.iter().map(|span| span.span_id));
        for &index in &self.orphans {
            let span = &mut self.spans[index as usize];
            if !self.ids.contains(&span.parent_id) {
                span.standing = Standing::Entry;
            }
        }
    }
}

/// Reads the resource of a `ResourceSpans` message. Pieces of a split resource count as one.
fn read_resource(
    body: &[u8],
    message: Slice,
    questions: &Questions,
    keyed: &Keyed,
) -> Result<ResourceAnswers, Malformed> {
    let mut answers = ResourceAnswers::default();
    let mut absent = questions.absent_resource;
    let mut fields = Reader::new(body, message);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => read_resource_attributes(body, field.value.bytes()?, questions, keyed, &mut answers, &mut absent)?,
            2 | 3 => drop(field.value.bytes()?),
            _ => {}
        }
    }
    answers.tests |= absent;
    let service = answers.service.of(body);
    answers.service_hash = keyed.hash(service);
    questions.service(service, &mut answers.tests);
    Ok(answers)
}

fn read_resource_attributes(
    body: &[u8],
    message: Slice,
    questions: &Questions,
    keyed: &Keyed,
    answers: &mut ResourceAnswers,
    absent: &mut Facts,
) -> Result<(), Malformed> {
    let mut fields = Reader::new(body, message);
    while let Some(field) = fields.next()? {
        if field.number != 1 {
            continue;
        }
        let (key, value) = read_key_value(body, field.value.bytes()?)?;
        if key.of(body) == b"service.name"
            && answers.service.len == 0
            && let Some(Any::Text(name)) = value.map(|value| Any::read(body, value)).transpose()?
        {
            answers.service = name;
        }
        if let Some((index, value)) = questions.resource.answer(body, key, value, &mut answers.tests, absent)? {
            answers.dimensions[index] = dimension_hash(body, value, keyed);
        }
    }
    Ok(())
}

/// The fields of a span, while they are walked.
#[derive(Default)]
struct SpanFields {
    span: SpanView,
    trace_id: Slice,
    span_id: Slice,
    parent_id: Slice,
    trace_state: Slice,
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
fn walk_span(
    body: &[u8],
    message: Slice,
    resource: &ResourceAnswers,
    questions: &Questions,
    keyed: &Keyed,
) -> Result<(SpanView, bool), Refusal> {
    let mut walked = SpanFields { tests: resource.tests, absent: questions.absent_attributes, ..Default::default() };
    let mut fields = Reader::new(body, message);
    while let Some(field) = fields.next()? {
        walked.take(body, field, questions, resource, keyed)?;
    }
    let SpanFields { mut span, trace_id, span_id, parent_id, trace_state, flags, mut tests, absent, dimensions } =
        walked;
    span.raw = message;
    span.trace_id = TraceId(trace_id.of(body).try_into().map_err(|_| Refusal::BadId)?);
    span.span_id = read_id(span_id.of(body))?;
    span.parent_id =
        if parent_id.len == 0 { 0 } else { read_id(parent_id.of(body)).or(zero_id(parent_id.of(body)))? };
    if span.trace_id == TraceId::default() {
        return Err(Refusal::BadId);
    }
    if trace_state.len > 0 {
        read_trace_state(trace_state.of(body), questions, &mut span, &mut tests);
    }
    span.random_flag = flags & FLAG_RANDOM != 0;
    let maybe_orphan = place(&mut span, flags);
    let name = span.name.of(body);
    span.name_hash = keyed.hash(name);
    span.series = series_hash(&span, resource, dimensions.as_ref(), questions, keyed);
    span.facts = questions.conclude(tests | absent, name, span.kind, span.status, span.duration());
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
    ) -> Result<(), Malformed> {
        let value = field.value;
        match field.number {
            1 => self.trace_id = value.bytes()?,
            2 => self.span_id = value.bytes()?,
            3 => self.trace_state = value.bytes()?,
            4 => self.parent_id = value.bytes()?,
            5 => self.span.name = value.bytes()?,
            6 => self.span.kind = Kind::from_wire(value.varint()? & 0xffff_ffff),
            7 => self.span.start = value.fixed64()?,
            8 => self.span.end = value.fixed64()?,
            9 => {
                let (key, value) = read_key_value(body, value.bytes()?)?;
                let (tests, absent) = (&mut self.tests, &mut self.absent);
                if let Some((index, value)) = questions.attributes.answer(body, key, value, tests, absent)? {
                    // A span's own attribute goes before the resource's.
                    let own = self.dimensions.get_or_insert(resource.dimensions);
                    own[index] = dimension_hash(body, value, keyed);
                }
            }
            11 => {
                let event = value.bytes()?;
                if questions.reads_events() {
                    questions.event(read_event_name(body, event)?.of(body), &mut self.tests);
                }
            }
            13 => drop(value.bytes()?),
            15 => self.read_status(body, value.bytes()?)?,
            10 | 12 | 14 => drop(value.varint()?),
            16 => self.flags = value.fixed32()?,
            _ => {}
        }
        Ok(())
    }

    /// A status that occurs again is merged: the last code wins.
    fn read_status(&mut self, body: &[u8], message: Slice) -> Result<(), Malformed> {
        let mut fields = Reader::new(body, message);
        while let Some(field) = fields.next()? {
            match field.number {
                2 => drop(field.value.bytes()?),
                3 => self.span.status = Status::from_wire(field.value.varint()? & 0xffff_ffff),
                _ => {}
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

fn read_id(bytes: &[u8]) -> Result<SpanId, Refusal> {
    match bytes.try_into().map(u64::from_be_bytes) {
        Ok(0) | Err(_) => Err(Refusal::BadId),
        Ok(id) => Ok(id),
    }
}

/// Eight zero bytes as a parent mean "none": some exporters write them.
fn zero_id(bytes: &[u8]) -> Result<SpanId, Refusal> {
    if bytes == [0; 8] { Ok(0) } else { Err(Refusal::BadId) }
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
        return matches!(span.kind, Kind::Server | Kind::Consumer);
    }
    false
}

/// The facts of one stored span under another question set. `header` is its resource's header, both
/// as scan stored them.
pub fn facts_again(header: &[u8], span: &[u8], questions: &Questions, keyed: &Keyed) -> Facts {
    let whole = |bytes: &[u8]| Slice { start: 0, len: bytes.len() as u32 };
    let resource = read_resource(header, whole(header), questions, keyed).unwrap_or_default();
    match walk_span(span, whole(span), &ResourceAnswers { service: Slice::default(), ..resource }, questions, keyed) {
        Ok((span, _)) => span.facts,
        Err(_) => Facts::EMPTY,
    }
}

#[cfg(test)]
mod tests;
