//! Bounded memory for the raw bytes of recent spans: a circle of segments of one size.
//!
//! Spans are appended to the open segment. When it is full the next one is opened, so the segment
//! after the free ones is always the oldest; the shard sweeps it before it is written again. A
//! segment is self-contained: the headers of every resource and scope that its records refer to
//! stand in it once. Memory is taken once and recycled, never freed.
//!
//! ```text
//! segment: | bytes of spans, resources and scopes ▶      free      ◀ headers |
//! ```
//!
//! Headers grow towards the bytes, 20 bytes each, so that a sweep and a walk along a trace read
//! memory that lies close together and never touch the spans:
//!
//! | header | word 0 | word 1 | word 2 | word 3 | word 4 |
//! |---|---|---|---|---|---|
//! | record | kind, flags, length | start | index slot | scope | previous record of the trace |
//! | scope | kind, length | start | resource | hash | hash |
//! | resource | kind, length | start | service | hash | hash |
//!
//! It does not know what a trace is, and it never decides what to drop.

pub mod index;
pub mod wheel;

use crate::scan::Scan;
use std::collections::HashMap;

/// Bytes of a header, and of one of its words.
const HEADER: usize = 5 * WORD;
const WORD: usize = 4;
const KIND_SHIFT: u32 = 29;
const KIND_RECORD: u32 = 0;
const KIND_SCOPE: u32 = 1;
const KIND_RESOURCE: u32 = 2;
const DELIVERED: u32 = 1 << 31;
const ENTRY: u32 = 1 << 28;
const LENGTH_MASK: u32 = ENTRY - 1;

/// A segment is an eighth of the ring, within these bounds.
pub const SEGMENT_BYTES: std::ops::RangeInclusive<usize> = 256 << 10..=32 << 20;
const SEGMENTS_MIN: usize = 8;

/// Where a header is, in words from the start of the memory: 16 GiB can be addressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Loc(u32);

impl Loc {
    pub const NONE: Loc = Loc(u32::MAX);

    fn offset(self) -> usize {
        self.0 as usize * WORD
    }
}

/// One stored span, as its header says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Record {
    /// Slot of its trace in the index. Stale once the trace has left.
    pub slot: u32,
    pub scope: Loc,
    /// The record of the same trace before this one.
    pub previous: Loc,
    /// It was taken for an entry span when it came.
    pub is_entry: bool,
    /// It has been handed over, or set aside for good.
    pub delivered: bool,
}

/// The header of a resource or scope, stored once in a segment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ContextHeader {
    /// Resource: number of the service. Scope: where its resource is.
    word: u32,
    pub hash: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Segment {
    /// Bytes of spans and contexts.
    bytes: usize,
    headers: usize,
    /// When it was opened; says how old its records may be.
    opened: u32,
}

impl Segment {
    fn used(&self) -> usize {
        self.bytes + self.headers * HEADER
    }
}

/// What stands at the sweep's position.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Swept {
    Record(Loc),
    /// The end of the segment: it is free now.
    Freed,
    /// Nothing but free segments and the open one.
    Nothing,
}

/// The memory of one shard's spans.
pub struct Ring {
    memory: Box<[u8]>,
    segment_bytes: usize,
    segments: Vec<Segment>,
    open: usize,
    /// Free segments, which follow the open one.
    free: usize,
    /// Headers of the oldest segment that have been swept.
    swept: usize,
    /// Hash of a context to its place in the open segment.
    contexts: HashMap<u64, Loc, foldhash::fast::FixedState>,
}

impl Ring {
    /// Takes `bytes` of memory, rounded down to whole segments (at least eight).
    pub fn new(bytes: usize) -> Ring {
        let segment_bytes = (bytes / SEGMENTS_MIN).clamp(*SEGMENT_BYTES.start(), *SEGMENT_BYTES.end()) & !(WORD - 1);
        let count = (bytes / segment_bytes).max(SEGMENTS_MIN);
        Ring {
            // Zeroed memory is mapped when it is first written, not here.
            memory: vec![0; segment_bytes * count].into_boxed_slice(),
            segment_bytes,
            segments: vec![Segment::default(); count],
            open: 0,
            free: count - 1,
            swept: 0,
            contexts: HashMap::default(),
        }
    }

    pub fn segment_bytes(&self) -> usize {
        self.segment_bytes
    }

    /// Bytes of all segments.
    pub fn capacity(&self) -> usize {
        self.memory.len()
    }

    /// Bytes in use, stale records included.
    pub fn used(&self) -> usize {
        self.segments.iter().map(Segment::used).sum()
    }

    /// The segment that holds a block.
    pub fn segment_of(&self, loc: Loc) -> u32 {
        (loc.offset() / self.segment_bytes) as u32
    }

    /// When the oldest segment in use was opened.
    pub fn oldest_opened(&self) -> u32 {
        self.segments[self.oldest().unwrap_or(self.open)].opened
    }

    fn oldest(&self) -> Option<usize> {
        let count = self.segments.len();
        (self.free + 1 < count).then(|| (self.open + 1 + self.free) % count)
    }

    /// The segment that the sweep is in.
    pub fn sweeping(&self) -> Option<u32> {
        self.oldest().map(|segment| segment as u32)
    }

    /// Bytes that a span takes.
    pub fn record_bytes(len: usize) -> usize {
        HEADER + len
    }

    /// Whether the open segment has room for a span and, at worst, both of its contexts.
    pub fn fits(&self, span: usize, scope: usize, resource: usize) -> bool {
        3 * HEADER + span + scope + resource <= self.segment_bytes - self.segments[self.open].used()
    }

    /// Opens the next segment, if it is free.
    pub fn rotate(&mut self, now: u32) -> bool {
        if self.free == 0 {
            return false;
        }
        self.free -= 1;
        self.open = (self.open + 1) % self.segments.len();
        self.segments[self.open] = Segment { opened: now, ..Segment::default() };
        self.contexts.clear();
        true
    }

    /// The sweep keeps ahead of the writer: in its second half the open segment asks for a free one.
    pub fn sweep_due(&self) -> bool {
        let Some(oldest) = self.oldest().filter(|_| self.free == 0) else { return false };
        let written = self.segments[self.open].used() as u64 * 2;
        let half = self.segment_bytes as u64;
        written > half && (self.swept as u64) * half < (written - half) * self.segments[oldest].headers as u64
    }

    /// The record at the sweep's position; contexts are stepped over.
    pub fn sweep(&mut self) -> Swept {
        let Some(oldest) = self.oldest() else { return Swept::Nothing };
        while self.swept < self.segments[oldest].headers {
            let loc = self.header(oldest, self.swept);
            if (self.word(loc, 0) >> KIND_SHIFT) & 3 == KIND_RECORD {
                return Swept::Record(loc);
            }
            self.swept += 1;
        }
        self.segments[oldest] = Segment::default();
        self.swept = 0;
        self.free += 1;
        Swept::Freed
    }

    /// Steps over the record at the sweep's position.
    pub fn sweep_past(&mut self) {
        self.swept += 1;
    }

    /// Header number `index` of a segment, counted from its end.
    fn header(&self, segment: usize, index: usize) -> Loc {
        Loc((((segment + 1) * self.segment_bytes - (index + 1) * HEADER) / WORD) as u32)
    }

    /// The scope of a request in the open segment; stored there with its resource if it is new. Also
    /// the bytes that this took. The caller has asked [`Ring::fits`].
    pub fn scope(&mut self, scan: &Scan, scope: u32) -> (Loc, usize) {
        let view = scan.scopes[scope as usize];
        if let Some(&loc) = self.contexts.get(&view.hash) {
            return (loc, 0);
        }
        let resource_view = scan.resources[view.resource as usize];
        let (resource, bytes) = match self.contexts.get(&resource_view.hash) {
            Some(&loc) => (loc, 0),
            None => {
                let header = resource_view.header.of(&scan.arena);
                let loc = self.append_context(KIND_RESOURCE, resource_view.service_id, resource_view.hash, header);
                (loc, Ring::record_bytes(header.len()))
            }
        };
        let header = view.header.of(&scan.arena);
        let loc = self.append_context(KIND_SCOPE, resource.0, view.hash, header);
        (loc, bytes + Ring::record_bytes(header.len()))
    }

    fn append_context(&mut self, kind: u32, word: u32, hash: u64, header: &[u8]) -> Loc {
        let loc = self.append(kind, [word, hash as u32, (hash >> 32) as u32], header);
        self.contexts.insert(hash, loc);
        loc
    }

    /// Appends a span to the open segment. The caller has asked [`Ring::fits`].
    pub fn record(&mut self, slot: u32, scope: Loc, previous: Loc, is_entry: bool, span: &[u8]) -> Loc {
        let loc = self.append(KIND_RECORD, [slot, scope.0, previous.0], span);
        if is_entry {
            self.set(loc, ENTRY);
        }
        loc
    }

    fn append(&mut self, kind: u32, words: [u32; 3], bytes: &[u8]) -> Loc {
        let loc = self.header(self.open, self.segments[self.open].headers);
        let segment = &mut self.segments[self.open];
        let start = segment.bytes;
        segment.bytes += bytes.len();
        segment.headers += 1;
        let at = self.open * self.segment_bytes + start;
        self.memory[at..at + bytes.len()].copy_from_slice(bytes);
        let header = &mut self.memory[loc.offset()..loc.offset() + HEADER];
        let [a, b, c] = words;
        for (place, word) in
            header.chunks_exact_mut(WORD).zip([kind << KIND_SHIFT | bytes.len() as u32, start as u32, a, b, c])
        {
            place.copy_from_slice(&word.to_le_bytes());
        }
        loc
    }

    fn word(&self, loc: Loc, index: usize) -> u32 {
        let start = loc.offset() + index * WORD;
        u32::from_le_bytes(self.memory[start..start + WORD].try_into().expect("a word"))
    }

    /// What a header stands for: a span message, or the header of a resource or scope.
    pub fn bytes(&self, loc: Loc) -> &[u8] {
        let start = self.segment_of(loc) as usize * self.segment_bytes + self.word(loc, 1) as usize;
        &self.memory[start..start + (self.word(loc, 0) & LENGTH_MASK) as usize]
    }

    pub fn read(&self, loc: Loc) -> Record {
        Record {
            slot: self.word(loc, 2),
            scope: Loc(self.word(loc, 3)),
            previous: Loc(self.word(loc, 4)),
            is_entry: self.word(loc, 0) & ENTRY != 0,
            delivered: self.word(loc, 0) & DELIVERED != 0,
        }
    }

    pub fn set_delivered(&mut self, loc: Loc) {
        self.set(loc, DELIVERED);
    }

    fn set(&mut self, loc: Loc, flag: u32) {
        let word = self.word(loc, 0) | flag;
        self.memory[loc.offset()..loc.offset() + WORD].copy_from_slice(&word.to_le_bytes());
    }

    fn context(&self, loc: Loc) -> ContextHeader {
        let hash = u64::from(self.word(loc, 3)) | u64::from(self.word(loc, 4)) << 32;
        ContextHeader { word: self.word(loc, 2), hash }
    }

    /// Hash of a scope and its resource: equal contexts in different segments have equal hashes.
    pub fn context_hash(&self, loc: Loc) -> u64 {
        self.context(loc).hash
    }

    /// The resource of a scope.
    pub fn resource_of(&self, scope: Loc) -> Loc {
        Loc(self.context(scope).word)
    }

    /// The number of the service of a scope.
    pub fn service_of(&self, scope: Loc) -> u32 {
        self.context(self.resource_of(scope)).word
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::otlp::wire::put_bytes;
    use crate::scan::{Keyed, Questions, SpanBounds};

    #[test]
    fn a_segment_that_is_full_to_the_last_byte_holds_what_was_written() {
        let (mut span, mut scope, mut resource, mut body) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        put_bytes(&mut span, 1, &[1; 16]);
        put_bytes(&mut span, 2, &[1; 8]);
        put_bytes(&mut scope, 2, &span);
        put_bytes(&mut scope, 3, b"scope schema");
        put_bytes(&mut resource, 2, &scope);
        put_bytes(&mut resource, 3, b"resource schema");
        put_bytes(&mut body, 1, &resource);
        let mut scan = Scan::new(Keyed::new(1));
        scan.read(&body, &Questions::compile(&[], &[], 1).expect("none"), SpanBounds::of_bytes(1 << 20))
            .expect("well formed");
        let (scope, resource) = (scan.scopes[0].header, scan.resources[0].header);
        let mut ring = Ring::new(2 << 20);
        let room = ring.segment_bytes() - 3 * HEADER - (scope.len + resource.len) as usize;
        assert!(!ring.fits(room + 1, scope.len as usize, resource.len as usize));
        assert!(ring.fits(room, scope.len as usize, resource.len as usize));

        let (at, _) = ring.scope(&scan, 0);
        let bytes: Vec<u8> = (0..room).map(|n| n as u8).collect();
        let record = ring.record(7, at, Loc::NONE, true, &bytes);
        assert_eq!(ring.used(), ring.segment_bytes());
        assert_eq!(ring.bytes(record), bytes);
        assert_eq!(ring.bytes(at), scope.of(&scan.arena));
        assert_eq!(ring.bytes(ring.resource_of(at)), resource.of(&scan.arena));
        let stored = Record { slot: 7, scope: at, previous: Loc::NONE, is_entry: true, delivered: false };
        assert_eq!(ring.read(record), stored);
        ring.set_delivered(record);
        assert_eq!((ring.read(record), ring.bytes(record).len()), (Record { delivered: true, ..stored }, bytes.len()));
    }
}
