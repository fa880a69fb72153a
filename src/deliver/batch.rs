//! Batches of OTLP bytes: grown by appending, divided between items. Nothing is decoded.
//!
//! The protobuf of an `Export*ServiceRequest` is a row of `Resource*` fields, so two requests make
//! one by concatenation.

mod divide;
mod wire;

use super::sink::Batch;
use crate::trace::Signal;
use bytes::Bytes;
pub use divide::{count_items, divide, halve};
use std::time::Duration;
use tokio::time::Instant;
pub(crate) use wire::{Fields, Value, put_bytes, put_varint};

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

/// A batch that still takes pieces.
#[derive(Debug)]
pub(crate) struct Growing {
    body: Vec<u8>,
    pub(crate) items: u64,
    since: Instant,
}

impl Growing {
    pub(crate) fn new(now: Instant) -> Growing {
        Growing { body: Vec::new(), items: 0, since: now }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.body.len()
    }

    pub(crate) fn has_room(&self, piece: &Batch, limits: &BatchLimits) -> bool {
        self.body.is_empty()
            || self.body.len() + piece.body.len() <= limits.bytes && self.items + piece.items <= limits.items
    }

    pub(crate) fn append(&mut self, piece: &Batch) {
        self.body.extend_from_slice(&piece.body);
        self.items += piece.items;
    }

    pub(crate) fn is_full(&self, limits: &BatchLimits) -> bool {
        self.body.len() >= limits.bytes || self.items >= limits.items
    }

    pub(crate) fn due(&self, limits: &BatchLimits) -> Instant {
        self.since + limits.age
    }

    /// The boxed slice gives spare capacity back: a queue may hold the body for hours.
    pub(crate) fn seal(self, signal: Signal) -> Batch {
        Batch { signal, body: Bytes::from(self.body.into_boxed_slice()), items: self.items }
    }
}

#[cfg(test)]
mod tests;
