//! Batches of OTLP bytes: grown by appending ([`growing`]), halved by spans. Nothing is decoded.
//!
//! All three signals nest alike: request, resource, scope, then spans, metrics
//! or log records, which are called leaves here.
//! Source: opentelemetry-proto, `trace.proto`, `metrics.proto`, `logs.proto` and their services.

mod growing;

use super::sink::Batch;
use crate::{
    otlp::wire::{Fields, put_bytes},
    trace::Signal,
};
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

/// Divides until no part is larger than `bytes`, except single leaves, which cannot be divided.
pub fn divide(batch: Batch, bytes: usize) -> Vec<Batch> {
    let mut parts = Vec::new();
    let mut rest = vec![batch];
    while let Some(batch) = rest.pop() {
        match (batch.body.len() > bytes).then(|| halve(&batch)).flatten() {
            Some((left, right)) => rest.extend([right, left]),
            None => parts.push(batch),
        }
    }
    parts
}

/// Two batches with about half of the bytes each, in order. Resource, scope, schema URL and unknown
/// fields of a divided message go to both halves, verbatim. None for a single leaf or malformed bytes.
pub fn halve(batch: &Batch) -> Option<(Batch, Batch)> {
    let mut leaves = Vec::new();
    measure(&batch.body, Level::Request, batch.signal, &mut leaves)?;
    let cut = middle(&leaves)?;
    let mut halves = Halves { taken: 0, cut, signal: batch.signal };
    let (mut left, mut right) = (Vec::new(), Vec::new());
    halves.split(&batch.body, Level::Request, &mut left, &mut right)?;

    // The sum stays exact even where the pusher counted differently.
    let items = leaves[..cut].iter().map(|leaf| leaf.items).sum::<u64>().min(batch.items);
    let half = |body: Vec<u8>, items| Batch { signal: batch.signal, body: body.into(), items };
    Some((half(left, items), half(right, batch.items - items)))
}

/// Spans, data points or log records in a request; None if it is malformed.
pub fn count_items(signal: Signal, body: &[u8]) -> Option<u64> {
    let mut leaves = Vec::new();
    measure(body, Level::Request, signal, &mut leaves)?;
    Some(leaves.iter().map(|leaf| leaf.items).sum())
}

/// The messages that hold others, outermost first.
#[derive(Clone, Copy, PartialEq)]
enum Level {
    Request,
    Resource,
    Scope,
}

impl Level {
    /// The repeated field that leads inwards.
    fn child(self) -> u32 {
        match self {
            Level::Request => 1,
            Level::Resource | Level::Scope => 2,
        }
    }

    fn inner(self) -> Option<Level> {
        match self {
            Level::Request => Some(Level::Resource),
            Level::Resource => Some(Level::Scope),
            Level::Scope => None,
        }
    }
}

struct Leaf {
    bytes: usize,
    items: u64,
}

fn measure(message: &[u8], level: Level, signal: Signal, leaves: &mut Vec<Leaf>) -> Option<()> {
    for field in Fields::new(message) {
        let field = field?;
        let Some(payload) = field.message(level.child()) else { continue };
        match level.inner() {
            Some(inner) => measure(payload, inner, signal, leaves)?,
            None => leaves.push(Leaf { bytes: payload.len(), items: leaf_items(signal, payload)? }),
        }
    }
    Some(())
}

/// One for a span or a log record; for a metric the data points of its gauge (5), sum (7),
/// histogram (9), exponential histogram (10) or summary (11), each of which has them as field 1.
fn leaf_items(signal: Signal, leaf: &[u8]) -> Option<u64> {
    if signal != Signal::Metrics {
        return Some(1);
    }
    let mut points = 0;
    for field in Fields::new(leaf) {
        let field = field?;
        if let (5 | 7 | 9 | 10 | 11, Some(data)) = (field.number, field.payload()) {
            for inner in Fields::new(data) {
                points += u64::from(inner?.message(1).is_some());
            }
        }
    }
    Some(points)
}

/// How many leaves the left half gets: at least one, at most all but one.
fn middle(leaves: &[Leaf]) -> Option<usize> {
    if leaves.len() < 2 {
        return None;
    }
    let half = leaves.iter().map(|leaf| leaf.bytes).sum::<usize>() / 2;
    let mut sum = 0;
    let reached = leaves.iter().position(|leaf| {
        sum += leaf.bytes;
        sum >= half
    });
    Some((reached? + 1).min(leaves.len() - 1))
}

struct Halves {
    taken: usize,
    cut: usize,
    signal: Signal,
}

impl Halves {
    fn split(&mut self, message: &[u8], level: Level, left: &mut Vec<u8>, right: &mut Vec<u8>) -> Option<()> {
        for field in Fields::new(message) {
            let field = field?;
            let Some(payload) = field.message(level.child()) else {
                left.extend_from_slice(field.raw);
                right.extend_from_slice(field.raw);
                continue;
            };
            let count = self.leaves_of(payload, level)?;
            if self.taken + count <= self.cut {
                left.extend_from_slice(field.raw);
                self.taken += count;
            } else if self.taken == self.cut {
                right.extend_from_slice(field.raw);
            } else {
                let (mut first, mut second) = (Vec::new(), Vec::new());
                self.split(payload, level.inner()?, &mut first, &mut second)?;
                put_bytes(left, level.child(), &first);
                put_bytes(right, level.child(), &second);
            }
        }
        Some(())
    }

    fn leaves_of(&self, payload: &[u8], level: Level) -> Option<usize> {
        let Some(inner) = level.inner() else { return Some(1) };
        let mut leaves = Vec::new();
        measure(payload, inner, self.signal, &mut leaves)?;
        Some(leaves.len())
    }
}

#[cfg(test)]
mod tests;
