//! Walks an `ExportTraceServiceRequest` once, in place, and learns of each span what it takes to
//! place, count and judge it. It never builds a span.
//! Source: opentelemetry-proto, `trace/v1/trace.proto`.
//!
//! A malformed span costs that span, as long as its message ends where it should, and a malformed
//! resource or scope costs its spans; anything else that is malformed costs the request. It accepts what
//! prost accepts, except bad ids, and beyond it texts that are not UTF-8: [`repair`] mends them.

mod again;
pub mod answer;
pub mod check;
mod dimension;
pub mod items;
pub mod repair;
mod span;
pub mod splice;
pub mod tracestate;
pub mod wire;

pub use again::{ReadAgain, Rereading};
pub use answer::Questions;
pub use dimension::{LabelReader, OperationLabels};
pub use wire::Malformed;

use crate::trace::{EntryValues, Facts, ResourceView, ScopeView, Slice, SpanId, SpanView, Standing, TraceId};
use answer::DIMENSIONS_MAX;
use check::{Fault, MessageType, check_field};
use dimension::dimension_hash;
use foldhash::fast::FixedState;
use span::{SpanRefusal, walk_span};
use std::collections::HashSet;
use std::hash::BuildHasher;
use wire::{ComparableValue, Reader, read_key_value};

/// Hashes with a key that no client knows: ids are chosen by whoever sends them.
#[derive(Clone, Debug)]
pub struct Keyed {
    seed: u64,
    state: FixedState,
}

/// The same seed makes the same hashes.
impl PartialEq for Keyed {
    fn eq(&self, other: &Keyed) -> bool {
        self.seed == other.seed
    }
}

impl Keyed {
    pub fn new(seed: u64) -> Keyed {
        Keyed { seed, state: FixedState::with_seed(seed) }
    }

    #[inline]
    pub fn hash(&self, bytes: &[u8]) -> u64 {
        self.state.hash_one(bytes)
    }

    #[inline]
    pub fn mix(&self, a: u64, b: u64) -> u64 {
        self.state.hash_one((a, b))
    }
}

/// What a request may hold. The rest of it is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpanBounds {
    /// Bytes of a span, and of its resource and scope together.
    pub span_bytes: u32,
    /// Spans of one request: each takes a [`SpanView`] while it is read, however small it is.
    pub spans: usize,
}

impl SpanBounds {
    /// Any number of spans.
    pub fn of_bytes(span_bytes: u32) -> SpanBounds {
        SpanBounds { span_bytes, spans: usize::MAX }
    }
}

/// Spans, data points or log records that were refused, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rejected {
    /// The trace id or span id has the wrong length or is all zero.
    pub bad_id: u64,
    /// It, or what it belongs to, is not protobuf, or a field has the wrong wire type.
    pub malformed: u64,
    /// It, or what it belongs to, nests deeper than [`DEPTH_MAX`](crate::otlp::DEPTH_MAX).
    pub too_deep: u64,
    /// The span, or its resource and scope together, is larger than the bound.
    pub too_large: u64,
    /// The request holds more spans than the bound, or more metrics or log records than the queue.
    pub too_many: u64,
}

impl Rejected {
    pub fn total(&self) -> u64 {
        self.bad_id + self.malformed + self.too_deep + self.too_large + self.too_many
    }

    pub fn add(&mut self, other: &Rejected) {
        self.bad_id += other.bad_id;
        self.malformed += other.malformed;
        self.too_deep += other.too_deep;
        self.too_large += other.too_large;
        self.too_many += other.too_many;
    }

    fn count(&mut self, fault: Fault, items: u64) {
        match fault {
            Fault::Malformed => self.malformed += items,
            Fault::TooDeep => self.too_deep += items,
        }
    }
}

/// Memory for this many spans stays for the next request; few are larger.
pub const SPANS_RETAINED: usize = 16 << 10;
const ARENA_RETAINED: usize = 1 << 20;

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
    ids: HashSet<(TraceId, SpanId), FixedState>,
    keyed: Keyed,
}

/// What a resource says to the questions; holds for all of its spans.
#[derive(Clone, Copy, Debug, Default)]
struct ResourceAnswers {
    /// Why none of its spans can be taken.
    fault: Option<Fault>,
    tests: Facts,
    service: Slice,
    service_hash: u64,
    dimensions: [u64; DIMENSIONS_MAX],
    entry_values: EntryValues,
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
            ids: HashSet::with_hasher(keyed.state.clone()),
            keyed,
        }
    }

    /// Walks `body`, which must be shorter than 4 GiB, and forgets what it held before.
    /// Spans beyond `bounds` are refused.
    ///
    /// # Errors
    /// When the request is malformed outside of its spans; nothing of it counts then.
    pub fn read(&mut self, body: &[u8], questions: &Questions, bounds: SpanBounds) -> Result<(), Malformed> {
        self.clear(questions.number);
        let mut fields = Reader::whole(body);
        while let Some(field) = fields.next()? {
            if field.number == 1 {
                self.read_resource_spans(body, field.value.bytes()?, questions, bounds)?;
            }
        }
        self.find_parents();
        Ok(())
    }

    /// Forgets the request, and gives back memory that only an unusual one needs.
    pub fn give_back(&mut self) {
        self.clear(0);
        self.ids.clear();
        self.resources.shrink_to(SPANS_RETAINED);
        self.scopes.shrink_to(SPANS_RETAINED);
        self.spans.shrink_to(SPANS_RETAINED);
        self.orphans.shrink_to(SPANS_RETAINED);
        self.ids.shrink_to(SPANS_RETAINED);
        self.arena.shrink_to(ARENA_RETAINED);
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
        bounds: SpanBounds,
    ) -> Result<(), Malformed> {
        let (start, mut fault) = (self.arena.len(), None);
        let mut fields = Reader::new(body, message);
        while let Some(field) = fields.next()? {
            if field.number != 2 {
                self.arena.extend_from_slice(field.raw.of(body));
                let checked =
                    check_field(MessageType::ResourceSpans, body, field, MessageType::ResourceSpans.depth() - 1);
                fault = fault.or(checked.err());
            }
        }
        self.resource = match fault {
            None => read_resource(body, message, questions, &self.keyed)?,
            Some(_) => ResourceAnswers { fault, ..ResourceAnswers::default() },
        };
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
        let first_scope = self.scopes.len();
        let mut fields = Reader::new(body, message);
        while let Some(field) = fields.next()? {
            if field.number == 2 {
                self.read_scope_spans(body, field.value.bytes()?, index, questions, bounds)?;
            }
        }
        // A message of two bytes must not cost a view.
        if self.scopes.len() == first_scope {
            self.resources.pop();
            self.arena.truncate(start);
        }
        Ok(())
    }

    fn read_scope_spans(
        &mut self,
        body: &[u8],
        message: Slice,
        resource: u32,
        questions: &Questions,
        bounds: SpanBounds,
    ) -> Result<(), Malformed> {
        let (scope, start) = (self.scopes.len() as u32, self.arena.len());
        let (first_span, mut fault) = (self.spans.len(), self.resource.fault);
        self.scopes.push(ScopeView::default());
        let mut fields = Reader::new(body, message);
        while let Some(field) = fields.next()? {
            match field.number {
                2 => self.read_span(body, field.value.bytes()?, scope, questions, bounds),
                _ => {
                    self.arena.extend_from_slice(field.raw.of(body));
                    let checked =
                        check_field(MessageType::ScopeSpans, body, field, MessageType::ScopeSpans.depth() - 1);
                    fault = fault.or(checked.err());
                }
            }
        }
        let header = Slice { start: start as u32, len: (self.arena.len() - start) as u32 };
        let of = self.resources[resource as usize];
        if let Some(fault) = fault {
            let spans = self.take_back(first_span);
            self.rejected.count(fault, spans);
        } else if of.header.len + header.len > bounds.span_bytes {
            // A segment of the ring could not hold them beside a span.
            self.rejected.too_large += self.take_back(first_span);
        }
        if self.spans.len() == first_span {
            self.scopes.pop();
            self.arena.truncate(start);
            return Ok(());
        }
        let hash = self.keyed.mix(of.hash, self.keyed.hash(header.of(&self.arena)));
        self.scopes[scope as usize] = ScopeView { resource, header, hash };
        Ok(())
    }

    /// Forgets the spans of a scope that cannot be taken; how many they are.
    fn take_back(&mut self, first_span: usize) -> u64 {
        let spans = self.spans.len() - first_span;
        self.spans.truncate(first_span);
        while self.orphans.pop_if(|orphan| *orphan as usize >= first_span).is_some() {}
        spans as u64
    }

    fn read_span(&mut self, body: &[u8], message: Slice, scope: u32, questions: &Questions, bounds: SpanBounds) {
        if message.len > bounds.span_bytes {
            self.rejected.too_large += 1;
            return;
        }
        if self.spans.len() >= bounds.spans {
            self.rejected.too_many += 1;
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
            Err(SpanRefusal::BadId) => self.rejected.bad_id += 1,
            Err(SpanRefusal::Fault(fault)) => self.rejected.count(fault, 1),
        }
    }

    /// Without flags, a server or consumer span is an entry only if its parent is not here.
    fn find_parents(&mut self) {
        if self.orphans.is_empty() {
            return;
        }
        self.ids.clear();
        self.ids.extend(self.spans.iter().map(|span| (span.trace_id, span.span_id)));
        for &index in &self.orphans {
            let span = &mut self.spans[index as usize];
            if !self.ids.contains(&(span.trace_id, span.parent_id)) {
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
            && let Some(ComparableValue::Text(name)) =
                value.map(|value| ComparableValue::read(body, value)).transpose()?
        {
            answers.service = name;
        }
        if let Some((wanted, value)) = questions.resource.answer(body, key, value, &mut answers.tests, absent)? {
            let hash = dimension_hash(body, value, keyed);
            if let Some(index) = wanted.dimension {
                answers.dimensions[usize::from(index)] = hash;
            }
            wanted.store(hash, &mut answers.entry_values);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
