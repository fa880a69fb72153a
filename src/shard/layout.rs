//! How a shard divides its memory.

use super::verdict_cache::VerdictCache;
use crate::ring::index::Index;

/// The parts of a shard's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    pub ring_bytes: usize,
    pub traces: usize,
    pub kept_remembered: usize,
    pub dropped_remembered: usize,
}

/// A trace is taken to hold this many bytes: a smaller mean fills the index before the ring.
const TRACE_BYTES_ASSUMED: usize = 1536;

impl Layout {
    /// Divides `bytes`: one index entry for every 1.5 KiB, 1/64 for remembered verdicts, the rest for segments.
    pub fn of(bytes: usize) -> Layout {
        let traces = (bytes / TRACE_BYTES_ASSUMED).max(64);
        let remembered = bytes / 64;
        Layout {
            ring_bytes: bytes.saturating_sub(traces * Index::TRACE_BYTES + remembered),
            traces,
            kept_remembered: remembered / 4 / VerdictCache::KEPT_BYTES,
            dropped_remembered: remembered * 3 / 4 / VerdictCache::DROPPED_BYTES,
        }
    }
}
