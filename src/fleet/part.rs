//! What one node knows of one trace, and how parts travel: many in a batch.
//!
//! ```text
//! batch: version, node (8 bytes), questions (8), base time, number of parts, parts
//! part:   trace id (16), flags, revision, facts, times, durations, counts, [entry], [randomness]
//! ```
//! Numbers are varints as protobuf writes them, times are differences from the one before: a part of an ordinary trace
//! takes some sixty bytes. A part is the whole of what its node knows, so a later revision replaces an earlier one.

use super::NodeId;
use crate::otlp::wire::{Cursor, Malformed, put_varint};
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
            Some(&VERSION) => PartBatch::read(&mut Cursor::new(bytes, 1)).map_err(|_| PartBatchError::Malformed),
            Some(&version) => Err(PartBatchError::Version(version)),
            None => Err(PartBatchError::Malformed),
        }
    }

    fn read(bytes: &mut Cursor<'_>) -> Result<PartBatch, Malformed> {
        let (node, questions) = (NodeId(fixed64(bytes)?), fixed64(bytes)?);
        let base = bytes.varint()?;
        let count = up_to(bytes.varint()?, bytes.left() / PART_BYTES_MIN)?;
        let parts = (0..count).map(|_| Part::read(base, bytes)).collect::<Result<Vec<_>, _>>()?;
        if bytes.left() == 0 { Ok(PartBatch { node, questions, parts }) } else { Err(Malformed) }
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

    fn read(base: u64, bytes: &mut Cursor<'_>) -> Result<Part, Malformed> {
        let id = TraceId(bytes.array()?);
        let flags = bytes.varint()?;
        if flags >> Flag::BITS != 0 {
            return Err(Malformed);
        }
        let revision = number(bytes)?;
        let facts = facts(bytes)?;
        let start = if Flag::Started.of(flags) { base.wrapping_add(bytes.varint()?) } else { 0 };
        let end = start.wrapping_add(bytes.varint()?);
        let longest_span = bytes.varint()?;
        let longest_entry = longest_span.wrapping_sub(bytes.varint()?);
        let (spans, errors) = (number(bytes)?, number(bytes)?);
        let (bytes_of_spans, stored_bytes) = (bytes.varint()?, bytes.varint()?);
        let (first_age_ms, last_age_ms) = (bytes.varint()?, bytes.varint()?);
        let (mut entered_age_ms, mut root_duration, mut entry) = (0, 0, EntrySpan::default());
        entry.standing =
            [Standing::Inner, Standing::Entry, Standing::Root].get(flags as usize & 3).copied().ok_or(Malformed)?;
        if entry.standing != Standing::Inner {
            entered_age_ms = bytes.varint()?;
            entry.start = start.wrapping_add(bytes.varint()?);
            root_duration = bytes.varint()?;
            entry.span_id = fixed64(bytes)?;
            (entry.service_hash, entry.name_hash) = (fixed32(bytes)?, fixed32(bytes)?);
        }
        if Flag::Values.of(flags) {
            for value in &mut entry.values {
                *value = fixed32(bytes)?;
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
        Ok(Part { id, revision, summary, stored_bytes, first_age_ms, last_age_ms, entered_age_ms, is_leaving })
    }
}

fn number(bytes: &mut Cursor<'_>) -> Result<u32, Malformed> {
    bytes.varint()?.try_into().map_err(|_| Malformed)
}

fn fixed32(bytes: &mut Cursor<'_>) -> Result<u32, Malformed> {
    bytes.array().map(u32::from_le_bytes)
}

fn fixed64(bytes: &mut Cursor<'_>) -> Result<u64, Malformed> {
    bytes.array().map(u64::from_le_bytes)
}

fn facts(bytes: &mut Cursor<'_>) -> Result<Facts, Malformed> {
    let mut facts = Facts::EMPTY;
    for _ in 0..up_to(bytes.varint()?, FACTS_MAX)? {
        facts.set(up_to(bytes.varint()?, FACTS_MAX - 1)?);
    }
    Ok(facts)
}

fn up_to(number: u64, most: usize) -> Result<usize, Malformed> {
    if number <= most as u64 { Ok(number as usize) } else { Err(Malformed) }
}

#[cfg(test)]
mod tests;
