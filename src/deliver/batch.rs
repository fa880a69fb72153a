//! Batches of OTLP bytes: grown by pieces, divided between items. Nothing is decoded.

mod divide;
mod growing;

pub use divide::{Piece, count_items, divide};
pub(crate) use growing::Growing;
use std::time::Duration;

/// When a growing batch is full. What is reached first seals it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Bytes of protobuf; a larger piece is divided. Most receivers refuse more than 4 MiB by default.
    pub bytes: usize,
    /// Spans, data points or log records.
    pub items: u64,
    /// How long the first piece may wait for others.
    pub age: Duration,
}

impl Default for BatchLimits {
    fn default() -> Self {
        BatchLimits { bytes: 4 << 20, items: 8192, age: Duration::from_millis(200) }
    }
}

#[cfg(test)]
mod tests;
