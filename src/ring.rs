//! Bounded memory for the raw bytes of recent spans: a circle of segments of one size.
//!
//! Blocks are appended to the open segment. When it is full the next one is opened, so the segment
//! after the free ones is always the oldest; the shard sweeps it before it is written again. A
//! segment is self-contained: the headers of every resource and scope that its records refer to
//! stand in it once. Memory is taken once and recycled, never freed.
//!
//! A block is 16 bytes of header, then its bytes, padded to 8:
//!
//! | block | word 0 | word 1 | words 2, 3 |
//! |---|---|---|---|
//! | record | tag, flags, length | index slot | scope, previous record of the trace |
//! | scope | tag, length | resource | hash |
//! | resource | tag, length | service | hash |
//!
//! It does not know what a trace is, and it never decides what to drop.

pub mod index;
pub mod wheel;

use crate::scan::Scan;
use std::collections::HashMap;

const HEADER: usize = 16;
const ALIGN: usize = 8;
const TAG_SHIFT: u32 = 29;
const TAG_RECORD: u32 = 0;
const TAG_SCOPE: u32 = 1;
const TAG_RESOURCE: u32 = 2;
const DELIVERED: u32 = 1 << 31;
const LENGTH_MASK: u32 = (1 << TAG_SHIFT) - 1;

/// A segment is an eighth of the ring, within these bounds.
pub const SEGMENT_BYTES: std::ops::RangeInclusive<usize> = 256 << 10..=32 << 20;
const SEGMENTS_MIN: usize = 8;

/// Where a block starts, in units of 8 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Loc(u32);

impl Loc {
    pub const NONE: Loc = Loc(u32::MAX);

    fn offset(self) -> usize {
        self.0 as usize * ALIGN
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
    /// It has been handed over, or set aside for good.
    pub delivered: bool,
}

/// The header of a resource or scope, stored once in a segment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Context {
    /// Resource: number of the service. Scope: where its resource is.
    word: u32,
    pub hash: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Segment {
    used: usize,
    /// When it was opened; says how old its records may be.
    opened: u32,
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
    /// Offset in the oldest segment up to which it has been swept.
    swept: usize,
    /// Hash of a context to its place in the open segment.
    contexts: HashMap<u64, Loc, foldhash::fast::FixedState>,
}

impl Ring {
    /// Takes `bytes` of memory, rounded down to whole segments (at least eight).
    pub fn new(bytes: usize) -> Ring {
        let segment_bytes = (bytes / SEGMENTS_MIN).clamp(*SEGMENT_BYTES.start(), *SEGMENT_BYTES.end()) & !(ALIGN - 1);
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
        self.segments.iter().map(|segment| segment.used).sum()
    }

    pub fn free_segments(&self) -> usize {
        self.free
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

    /// Bytes that a block takes.
    pub fn block_bytes(len: usize) -> usize {
        (HEADER + len).next_multiple_of(ALIGN)
    }

    /// Whether the open segment has room for a span and, at worst, both of its contexts.
    pub fn fits(&self, span: usize, scope: usize, resource: usize) -> bool {
        let need = Ring::block_bytes(span) + Ring::block_bytes(scope) + Ring::block_bytes(resource);
        need <= self.segment_bytes - self.segments[self.open].used
    }

    /// Opens the next segment, if it is free.
    pub fn rotate(&mut self, now: u32) -> bool {
        if self.free == 0 {
            return false;
        }
        self.free -= 1;
        self.open = (self.open + 1) % self.segments.len();
        self.segments[self.open] = Segment { used: 0, opened: now };
        self.contexts.clear();
        true
    }

    /// The sweep keeps ahead of the writer: in its second half the open segment asks for a free one.
    pub fn sweep_due(&self) -> bool {
        let Some(oldest) = self.oldest().filter(|_| self.free == 0) else { return false };
        let written = self.segments[self.open].used as u64 * 2;
        let half = self.segment_bytes as u64;
        written > half && (self.swept as u64) * half < (written - half) * self.segments[oldest].used as u64
    }

    /// The record at the sweep's position; contexts are stepped over.
    pub fn sweep(&mut self) -> Swept {
        let Some(oldest) = self.oldest() else { return Swept::Nothing };
        while self.swept < self.segments[oldest].used {
            let loc = Loc(((oldest * self.segment_bytes + self.swept) / ALIGN) as u32);
            if self.word(loc, 0) >> TAG_SHIFT & 3 == TAG_RECORD {
                return Swept::Record(loc);
            }
            self.swept += Ring::block_bytes(self.len(loc));
        }
        self.segments[oldest].used = 0;
        self.swept = 0;
        self.free += 1;
        Swept::Freed
    }

    /// Steps over the record at the sweep's position.
    pub fn sweep_past(&mut self, loc: Loc) {
        self.swept += Ring::block_bytes(self.len(loc));
    }

    /// The scope of a request in the open segment; stored there with its resource if it is new.
    /// The caller has asked [`Ring::fits`].
    pub fn scope(&mut self, scan: &Scan, scope: u32) -> Loc {
        let view = scan.scopes[scope as usize];
        if let Some(&loc) = self.contexts.get(&view.hash) {
            return loc;
        }
        let resource_view = scan.resources[view.resource as usize];
        let resource = self.contexts.get(&resource_view.hash).copied().unwrap_or_else(|| {
            let header = resource_view.header.of(&scan.arena);
            self.append_context(TAG_RESOURCE, resource_view.service_id, resource_view.hash, header)
        });
        self.append_context(TAG_SCOPE, resource.0, view.hash, view.header.of(&scan.arena))
    }

    fn append_context(&mut self, tag: u32, word: u32, hash: u64, header: &[u8]) -> Loc {
        let loc = self.append(tag << TAG_SHIFT, word, hash, header);
        self.contexts.insert(hash, loc);
        loc
    }

    /// Appends a span to the open segment. The caller has asked [`Ring::fits`].
    pub fn record(&mut self, slot: u32, scope: Loc, previous: Loc, span: &[u8]) -> Loc {
        self.append(TAG_RECORD << TAG_SHIFT, slot, u64::from(scope.0) | u64::from(previous.0) << 32, span)
    }

    fn append(&mut self, tag: u32, word: u32, wide: u64, bytes: &[u8]) -> Loc {
        let segment = &mut self.segments[self.open];
        let start = self.open * self.segment_bytes + segment.used;
        segment.used += Ring::block_bytes(bytes.len());
        let block = &mut self.memory[start..start + HEADER + bytes.len()];
        block[0..4].copy_from_slice(&(tag | bytes.len() as u32).to_le_bytes());
        block[4..8].copy_from_slice(&word.to_le_bytes());
        block[8..16].copy_from_slice(&wide.to_le_bytes());
        block[HEADER..].copy_from_slice(bytes);
        Loc((start / ALIGN) as u32)
    }

    fn word(&self, loc: Loc, index: usize) -> u32 {
        let start = loc.offset() + index * 4;
        u32::from_le_bytes(self.memory[start..start + 4].try_into().expect("four bytes"))
    }

    fn len(&self, loc: Loc) -> usize {
        (self.word(loc, 0) & LENGTH_MASK) as usize
    }

    /// The bytes of a block: a span message, or the header of a resource or scope.
    pub fn bytes(&self, loc: Loc) -> &[u8] {
        let start = loc.offset() + HEADER;
        &self.memory[start..start + self.len(loc)]
    }

    pub fn read(&self, loc: Loc) -> Record {
        Record {
            slot: self.word(loc, 1),
            scope: Loc(self.word(loc, 2)),
            previous: Loc(self.word(loc, 3)),
            delivered: self.word(loc, 0) & DELIVERED != 0,
        }
    }

    pub fn set_delivered(&mut self, loc: Loc) {
        let word = self.word(loc, 0) | DELIVERED;
        self.memory[loc.offset()..loc.offset() + 4].copy_from_slice(&word.to_le_bytes());
    }

    fn context(&self, loc: Loc) -> Context {
        let hash = u64::from(self.word(loc, 2)) | u64::from(self.word(loc, 3)) << 32;
        Context { word: self.word(loc, 1), hash }
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
