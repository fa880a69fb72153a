//! What one node knows of one trace, and how parts travel: many in a batch.
//!
//! ```text
//! batch: version, node (8 bytes), questions (8), base time, number of parts, parts
//! part:   trace id (16), flags, revision, facts, times, durations, counts, [entry], [randomness]
//! ```
//! Numbers are varints as protobuf writes them, times are differences from the one before: a part of an ordinary trace
//! takes some sixty bytes. A part is the whole of what its node knows, so a later revision replaces an earlier one.

use super::NodeId;
use crate::otlp::wire::put_varint;
use crate::trace::question::{ENTRY_ATTRIBUTES_MAX, FACTS_MAX};
use crate::trace::{EntrySpan, Facts, Randomness, Standing, Summary, TraceId};

/// The first byte of a batch.
const VERSION: u8 = 1;
/// Bytes of a part at least: the id, and a byte for each number.
const PART_BYTES_MIN: usize = 16 + 12;

/// What one node knows of one trace.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Part {
    pub id: TraceId,
    /// Grows with each telling of this node: of two the greater holds.
    pub revision: u32,
    pub summary: Summary,
    /// Bytes that a keep would deliver from this node.
    pub stored_bytes: u64,
    /// How long ago, in milliseconds, the first span, the last one and the chosen entry span arrived. Ages, for the
    /// clocks of nodes differ.
    pub first_age_ms: u64,
    pub last_age_ms: u64,
    pub entered_age_ms: u64,
    /// Its spans are about to leave the ring.
    pub is_leaving: bool,
}

/// What a node tells at once.
#[derive(Clone, PartialEq, Debug)]
pub struct PartBatch {
    pub node: NodeId,
    /// Tells the question set that made the facts from others.
    pub questions: u64,
    pub parts: Vec<Part>,
}

/// Bytes that are no batch of this version.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PartBatchError {
    #[error("it is of version {0}, this process reads version {VERSION}: bring all nodes to one version")]
    Version(u8),
    #[error("it is not well formed")]
    Malformed,
}

impl PartBatch {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.node.0.to_le_bytes());
        out.extend_from_slice(&self.questions.to_le_bytes());
        let base = self.parts.iter().map(|part| part.summary.start).filter(|start| *start != 0).min().unwrap_or(0);
        put_varint(&mut out, base);
        put_varint(&mut out, self.parts.len() as u64);
        self.parts.iter().for_each(|part| part.encode(base, &mut out));
        out
    }

    /// # Errors
    /// [`PartBatchError`]. What a batch says is believed, but it takes no more memory than its bytes account for.
    pub fn decode(bytes: &[u8]) -> Result<PartBatch, PartBatchError> {
        match bytes.first() {
            Some(&VERSION) => PartBatch::read(&mut Bytes(&bytes[1..])).ok_or(PartBatchError::Malformed),
            Some(&version) => Err(PartBatchError::Version(version)),
            None => Err(PartBatchError::Malformed),
        }
    }

    fn read(bytes: &mut Bytes<'_>) -> Option<PartBatch> {
        let (node, questions) = (NodeId(bytes.fixed64()?), bytes.fixed64()?);
        let (base, count) = (bytes.varint()?, usize::try_from(bytes.varint()?).ok()?);
        if count > bytes.0.len() / PART_BYTES_MIN {
            return None;
        }
        let parts = (0..count).map(|_| Part::read(base, bytes)).collect::<Option<Vec<_>>>()?;
        bytes.0.is_empty().then_some(PartBatch { node, questions, parts })
    }
}

/// Each a bit of a part's flags. The two lowest bits are the standing of its entry.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Flag {
    Values = 2,
    Randomness,
    IdIsRandom,
    RootFailed,
    EntryFailed,
    ManyRoots,
    Limited,
    Forgotten,
    Leaving,
    Started,
    End,
}

impl Flag {
    fn bit(self, is_set: bool) -> u64 {
        u64::from(is_set) << self as u8
    }

    fn of(self, flags: u64) -> bool {
        flags >> self as u8 & 1 == 1
    }

    const BITS: u32 = Flag::End as u32;
}

impl Part {
    fn flags(&self) -> u64 {
        let summary = &self.summary;
        let standing = match summary.entry.standing {
            Standing::Inner => 0,
            Standing::Entry => 1,
            Standing::Root => 2,
        };
        let has_values = summary.has_entry() && summary.entry.values != [0; ENTRY_ATTRIBUTES_MAX];
        standing
            | Flag::Values.bit(has_values)
            | Flag::Randomness.bit(summary.randomness.is_some())
            | Flag::IdIsRandom.bit(summary.random_flag)
            | Flag::RootFailed.bit(summary.root_failed)
            | Flag::EntryFailed.bit(summary.entry_failed)
            | Flag::ManyRoots.bit(summary.many_roots)
            | Flag::Limited.bit(summary.limited)
            | Flag::Forgotten.bit(summary.forgotten)
            | Flag::Leaving.bit(self.is_leaving)
            | Flag::Started.bit(summary.start != 0)
    }

    fn encode(&self, base: u64, out: &mut Vec<u8>) {
        let (summary, flags) = (&self.summary, self.flags());
        out.extend_from_slice(&self.id.0);
        let mut put = |number: u64| put_varint(out, number);
        put(flags);
        put(u64::from(self.revision));
        put(summary.facts.bits().count() as u64);
        summary.facts.bits().for_each(|bit| put(bit as u64));
        if summary.start != 0 {
            put(summary.start - base);
        }
        // An end may lie before the start, where a span came with a clock that was put back.
        put(summary.end.wrapping_sub(summary.start));
        put(summary.longest_span);
        put(summary.longest_span.wrapping_sub(summary.longest_entry));
        put(u64::from(summary.spans));
        put(u64::from(summary.errors));
        put(summary.bytes);
        put(self.stored_bytes);
        put(self.first_age_ms);
        put(self.last_age_ms);
        if summary.has_entry() {
            put(self.entered_age_ms);
            put(summary.entry.start.wrapping_sub(summary.start));
            put(summary.root_duration);
            out.extend_from_slice(&summary.entry.span_id.to_le_bytes());
            out.extend_from_slice(&summary.entry.service_hash.to_le_bytes());
            out.extend_from_slice(&summary.entry.name_hash.to_le_bytes());
        }
        if Flag::Values.of(flags) {
            summary.entry.values.iter().for_each(|value| out.extend_from_slice(&value.to_le_bytes()));
        }
        if let Some(randomness) = summary.randomness {
            put_varint(out, randomness.bits());
        }
    }

    fn read(base: u64, bytes: &mut Bytes<'_>) -> Option<Part> {
        let id = TraceId(bytes.take()?);
        let flags = bytes.varint().filter(|flags| flags >> Flag::BITS == 0)?;
        let revision = bytes.number()?;
        let facts = bytes.facts()?;
        let start = if Flag::Started.of(flags) { base.wrapping_add(bytes.varint()?) } else { 0 };
        let end = start.wrapping_add(bytes.varint()?);
        let longest_span = bytes.varint()?;
        let longest_entry = longest_span.wrapping_sub(bytes.varint()?);
        let (spans, errors) = (bytes.number()?, bytes.number()?);
        let (bytes_of_spans, stored_bytes) = (bytes.varint()?, bytes.varint()?);
        let (first_age_ms, last_age_ms) = (bytes.varint()?, bytes.varint()?);
        let (mut entered_age_ms, mut root_duration, mut entry) = (0, 0, EntrySpan::default());
        entry.standing = [Standing::Inner, Standing::Entry, Standing::Root].get(flags as usize & 3).copied()?;
        if entry.standing != Standing::Inner {
            entered_age_ms = bytes.varint()?;
            entry.start = start.wrapping_add(bytes.varint()?);
            root_duration = bytes.varint()?;
            entry.span_id = bytes.fixed64()?;
            (entry.service_hash, entry.name_hash) = (bytes.fixed32()?, bytes.fixed32()?);
        }
        if Flag::Values.of(flags) {
            for value in &mut entry.values {
                *value = bytes.fixed32()?;
            }
        }
        let randomness = if Flag::Randomness.of(flags) { Some(Randomness::from_bits(bytes.varint()?)) } else { None };
        let summary = Summary {
            facts,
            entry,
            start,
            end,
            root_duration,
            longest_entry,
            longest_span,
            spans,
            errors,
            bytes: bytes_of_spans,
            randomness,
            random_flag: Flag::IdIsRandom.of(flags),
            root_failed: Flag::RootFailed.of(flags),
            entry_failed: Flag::EntryFailed.of(flags),
            many_roots: Flag::ManyRoots.of(flags),
            limited: Flag::Limited.of(flags),
            forgotten: Flag::Forgotten.of(flags),
        };
        let is_leaving = Flag::Leaving.of(flags);
        Some(Part { id, revision, summary, stored_bytes, first_age_ms, last_age_ms, entered_age_ms, is_leaving })
    }
}

/// What is left to read.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    fn fixed64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn fixed32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.take()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn number(&mut self) -> Option<u32> {
        self.varint()?.try_into().ok()
    }

    fn facts(&mut self) -> Option<Facts> {
        let mut facts = Facts::EMPTY;
        for _ in 0..self.varint().filter(|count| *count <= FACTS_MAX as u64)? {
            facts.set(self.varint().filter(|bit| *bit < FACTS_MAX as u64)? as usize);
        }
        Some(facts)
    }
}

#[cfg(test)]
mod tests;
