//! A batch that still takes pieces: what several of them say of one resource, and in it of one scope, is put
//! together. So a large resource leaves once in a batch, however many traces share it.

use super::BatchLimits;
use crate::{
    deliver::sink::Batch,
    otlp::wire::{Fields, put_bytes_header, varint_len},
    trace::Signal,
};
use bytes::Bytes;
use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::BuildHasher;
use tokio::time::Instant;

/// Resources and scopes that are found again. Each costs some 200 bytes beside its header; what comes beyond
/// stays as it is.
const CONTEXTS_MAX: usize = 1024;

/// Fields of a request, and of a resource and of a scope. All three signals nest alike.
/// Source: opentelemetry-proto, `trace.proto`, `metrics.proto`, `logs.proto` and their services.
const RESOURCES: u32 = 1;
const INNER: u32 = 2;

/// What is divided into a header and what is in it.
#[derive(Clone, Copy, PartialEq)]
enum Level {
    GrowingResource,
    OpenScope,
}

/// A batch that still takes pieces.
#[derive(Debug)]
pub(crate) struct Growing {
    resources: Vec<GrowingResource>,
    contexts: Contexts,
    /// Fields of the request that are not put together.
    rest: Vec<u8>,
    bytes: usize,
    pub(crate) items: u64,
    since: Instant,
}

/// All fields of a resource or scope but those that lead inwards.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Header<'a> {
    bytes: Cow<'a, [u8]>,
    /// So many of them stood before the first that leads inwards: a message that nothing is added to stays as
    /// it was.
    before: usize,
}

#[derive(Debug, Default)]
struct GrowingResource {
    header: Header<'static>,
    scopes: Vec<OpenScope>,
    /// Scopes that are not put together, as fields.
    rest: Vec<u8>,
}

#[derive(Debug, Default)]
struct OpenScope {
    header: Header<'static>,
    /// Spans, metrics or log records, with their tags.
    leaves: Vec<u8>,
}

/// Finds resources, and scopes in them, by their headers.
#[derive(Debug, Default)]
struct Contexts {
    places: HashMap<u64, usize, foldhash::fast::RandomState>,
    hasher: foldhash::fast::RandomState,
}

impl Contexts {
    /// The place of a header, or where to put a new one; none if it must stay as it is. `equal` compares,
    /// because two headers may share a hash.
    fn place(&mut self, parent: usize, header: &Header, next: usize, equal: impl Fn(usize) -> bool) -> Option<usize> {
        let hash = self.hasher.hash_one((parent, header));
        match self.places.get(&hash) {
            Some(&place) => equal(place).then_some(place),
            None if self.places.len() == CONTEXTS_MAX => None,
            None => {
                self.places.insert(hash, next);
                Some(next)
            }
        }
    }
}

impl Growing {
    pub(crate) fn new(now: Instant) -> Growing {
        Growing {
            resources: Vec::new(),
            contexts: Contexts::default(),
            rest: Vec::new(),
            bytes: 0,
            items: 0,
            since: now,
        }
    }

    /// At least the bytes of the batch that it will be.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn has_room(&self, piece: &Batch, limits: &BatchLimits) -> bool {
        self.bytes == 0 || self.bytes + piece.body.len() <= limits.bytes && self.items + piece.items <= limits.items
    }

    /// Takes a piece in; returns by how much the batch grew.
    pub(crate) fn append(&mut self, piece: &Batch) -> usize {
        let mut grown = piece.body.len();
        self.items += piece.items;
        let mut at = 0;
        for field in Fields::new(&piece.body) {
            let Some(field) = field else {
                // Nobody pushes what is no protobuf; it would stay what it was.
                self.rest.extend_from_slice(&piece.body[at..]);
                break;
            };
            at += field.raw.len();
            let known = field.message(RESOURCES).and_then(|resource| self.take_resource(resource));
            match known {
                Some(saved) => grown -= saved,
                None => self.rest.extend_from_slice(field.raw),
            }
        }
        self.bytes += grown;
        grown
    }

    /// The bytes that are said already; none if the resource stays as it is.
    fn take_resource(&mut self, message: &[u8]) -> Option<usize> {
        let Divided { header, inner } = Divided::new(message, Level::GrowingResource)?;
        let equal = |place: usize| self.resources.get(place).is_some_and(|known| known.header == header);
        let place = self.contexts.place(usize::MAX, &header, self.resources.len(), equal)?;
        let saved = if place == self.resources.len() {
            self.resources.push(GrowingResource { header: header.into_owned(), ..GrowingResource::default() });
            0
        } else {
            header.bytes.len()
        };
        Some(saved + inner.into_iter().map(|scope| self.take_scope(place, scope)).sum::<usize>())
    }

    /// The same for a scope, which is given with its tag.
    fn take_scope(&mut self, resource: usize, raw: &[u8]) -> usize {
        let GrowingResource { scopes, rest, .. } = &mut self.resources[resource];
        let message = Fields::new(raw).next().flatten().and_then(|field| field.payload()).unwrap_or_default();
        let known = Divided::new(message, Level::OpenScope).and_then(|divided| {
            let equal = |place: usize| scopes.get(place).is_some_and(|known| known.header == divided.header);
            let place = self.contexts.place(resource, &divided.header, scopes.len(), equal)?;
            Some((place, divided))
        });
        let Some((place, Divided { header, inner })) = known else {
            rest.extend_from_slice(raw);
            return 0;
        };
        let saved = if place == scopes.len() {
            scopes.push(OpenScope { header: header.into_owned(), ..OpenScope::default() });
            0
        } else {
            header.bytes.len()
        };
        inner.into_iter().for_each(|leaves| scopes[place].leaves.extend_from_slice(leaves));
        saved
    }

    pub(crate) fn is_full(&self, limits: &BatchLimits) -> bool {
        self.bytes >= limits.bytes || self.items >= limits.items
    }

    pub(crate) fn due(&self, limits: &BatchLimits) -> Instant {
        self.since + limits.age
    }

    pub(crate) fn seal(self, signal: Signal) -> Batch {
        // No spare capacity: a queue may hold the body for hours.
        let mut body =
            Vec::with_capacity(self.resources.iter().map(GrowingResource::field_len).sum::<usize>() + self.rest.len());
        self.resources.iter().for_each(|resource| resource.write(&mut body));
        body.extend_from_slice(&self.rest);
        Batch { signal, body: Bytes::from(body), items: self.items }
    }
}

impl Header<'_> {
    fn before(&self) -> &[u8] {
        &self.bytes[..self.before]
    }

    fn after(&self) -> &[u8] {
        &self.bytes[self.before..]
    }

    fn into_owned(self) -> Header<'static> {
        Header { bytes: Cow::Owned(self.bytes.into_owned()), before: self.before }
    }
}

impl GrowingResource {
    fn len(&self) -> usize {
        self.header.bytes.len() + self.scopes.iter().map(OpenScope::field_len).sum::<usize>() + self.rest.len()
    }

    fn field_len(&self) -> usize {
        let len = self.len();
        1 + varint_len(len as u64) + len
    }

    fn write(&self, out: &mut Vec<u8>) {
        put_bytes_header(out, RESOURCES, self.len());
        out.extend_from_slice(self.header.before());
        for scope in &self.scopes {
            put_bytes_header(out, INNER, scope.len());
            out.extend_from_slice(scope.header.before());
            out.extend_from_slice(&scope.leaves);
            out.extend_from_slice(scope.header.after());
        }
        out.extend_from_slice(&self.rest);
        out.extend_from_slice(self.header.after());
    }
}

impl OpenScope {
    fn len(&self) -> usize {
        self.header.bytes.len() + self.leaves.len()
    }

    fn field_len(&self) -> usize {
        1 + varint_len(self.len() as u64) + self.len()
    }
}

/// A resource or a scope in a piece.
struct Divided<'a> {
    header: Header<'a>,
    /// What leads inwards, with tags.
    inner: Vec<&'a [u8]>,
}

impl<'a> Divided<'a> {
    /// None if the message is malformed.
    fn new(message: &'a [u8], level: Level) -> Option<Divided<'a>> {
        let mut divided = Divided { header: Header::default(), inner: Vec::new() };
        let (mut start, mut at, mut in_header) = (0, 0, true);
        for field in Fields::new(message) {
            let field = field?;
            let is_inner = field.message(INNER).is_some();
            // Neighbours are copied together, but scopes are looked at one by one.
            if is_inner == in_header || is_inner && level == Level::GrowingResource {
                divided.add(&message[start..at], in_header);
                (start, in_header) = (at, !is_inner);
            }
            at += field.raw.len();
        }
        divided.add(&message[start..at], in_header);
        Some(divided)
    }

    fn add(&mut self, run: &'a [u8], in_header: bool) {
        match run {
            [] => {}
            run if !in_header => self.inner.push(run),
            run if self.header.bytes.is_empty() => self.header.bytes = Cow::Borrowed(run),
            run => self.header.bytes.to_mut().extend_from_slice(run),
        }
        if self.inner.is_empty() {
            self.header.before = self.header.bytes.len();
        }
    }
}

#[cfg(test)]
mod tests;
