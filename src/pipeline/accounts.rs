//! The accounts of a pipeline: what was received, accepted and refused, and what its shards count and hold.

use super::Pipeline;
use crate::otlp::DEPTH_MAX;
use crate::receive::Accepted;
use crate::ring::wheel::TICK_MS;
use crate::scan::{Rejected, SpanBounds};
use crate::shard::count::Counts;
use crate::trace::Signal;
use std::sync::RwLockReadGuard;

/// What was counted at the intake, under one lock: received = accepted + rejected at any moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IntakeCounts {
    /// Spans, data points or log records in requests that could be read.
    pub received: [u64; 3],
    pub accepted: [u64; 3],
    pub rejected: [Rejected; 3],
}

/// Sums over all shards.
#[derive(Clone, Debug, Default)]
pub struct ShardTotals {
    pub counts: Counts,
    pub ring_bytes: u64,
    pub ring_used: u64,
    /// Traces in the ring.
    pub traces: u64,
    /// Age of the oldest record, in the shard that reaches back least.
    pub reach_ms: u64,
}

impl Pipeline {
    /// What `read` reads while nothing moves from one account to another.
    pub fn balance<R>(&self, read: impl FnOnce(IntakeCounts, ShardTotals) -> R) -> R {
        let _accounts = self.accounts.write().expect("no code panics under this lock");
        let intake = *self.intake.lock().expect("no code panics under this lock");
        read(intake, self.shards())
    }

    /// Whoever moves spans from one account to another holds this meanwhile.
    pub(super) fn hold_accounts(&self) -> RwLockReadGuard<'_, ()> {
        self.accounts.read().expect("no code panics under this lock")
    }

    /// Counts what a request held, and says what was refused of it.
    pub(super) fn count(&self, signal: Signal, accepted: u64, rejected: &Rejected) -> Accepted {
        let mut intake = self.intake.lock().expect("no code panics under this lock");
        intake.received[signal as usize] += accepted + rejected.total();
        intake.accepted[signal as usize] += accepted;
        intake.rejected[signal as usize].add(rejected);
        Accepted { rejected: rejected.total(), message: self.rejection_message(signal, rejected) }
    }

    /// What the shards count and hold, each under its own lock.
    fn shards(&self) -> ShardTotals {
        let now = self.now();
        let mut totals = ShardTotals { reach_ms: u64::MAX, ..ShardTotals::default() };
        for shard in 0..self.shards.len() {
            let shard = self.lock(shard);
            totals.counts.add(&shard.counts);
            totals.ring_bytes += shard.ring().capacity() as u64;
            totals.ring_used += shard.ring().used() as u64;
            totals.traces += shard.index().len() as u64;
            totals.reach_ms = totals.reach_ms.min(u64::from(shard.age(now)) * TICK_MS);
        }
        totals
    }

    fn rejection_message(&self, signal: Signal, rejected: &Rejected) -> String {
        let SpanBounds { span_bytes, spans } = self.bounds;
        let most = match signal {
            Signal::Traces => format!("{spans}"),
            Signal::Metrics | Signal::Logs => format!("{} bytes", self.delivery.piece_max(signal)),
        };
        let mut parts = Vec::new();
        let mut say = |count: u64, why: String| {
            if count > 0 {
                parts.push(format!("{count} {why}"));
            }
        };
        say(rejected.bad_id, "with a trace id or span id of the wrong length or all zero".to_owned());
        say(rejected.malformed, "that are not valid protobuf".to_owned());
        say(rejected.too_deep, format!("with values that nest deeper than {DEPTH_MAX} messages"));
        say(rejected.too_large, format!("larger than {span_bytes} bytes, or with a resource and scope that are"));
        say(rejected.too_many, format!("beyond {most} in one request: send smaller requests"));
        let items = ["spans", "data points", "log records"][signal as usize];
        if parts.is_empty() { String::new() } else { format!("{items} rejected: {}", parts.join(", ")) }
    }
}
