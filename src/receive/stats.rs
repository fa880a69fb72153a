//! Counts what happened at the receiver, by signal and outcome. It does not count spans.

use super::admission::Admission;
use super::outcome::{ConnectionFault, RequestOutcome};
use crate::trace::Signal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

type BySignal<T> = [[T; RequestOutcome::ALL.len()]; Signal::ALL.len()];

#[derive(Default)]
pub(super) struct ReceiverCounters {
    requests: BySignal<AtomicU64>,
    bytes: BySignal<AtomicU64>,
    pub unrouted: AtomicU64,
    pub nothing_known: AtomicU64,
    pub requests_in_flight: AtomicU64,
    pub connections_open: AtomicU64,
    pub connections_refused: AtomicU64,
    connections_failed: [AtomicU64; ConnectionFault::ALL.len()],
}

impl ReceiverCounters {
    pub fn connection_failed(&self, fault: ConnectionFault) {
        self.connections_failed[fault as usize].fetch_add(1, Relaxed);
    }

    fn record(&self, signal: Signal, outcome: RequestOutcome, bytes: u64) {
        self.requests[signal as usize][outcome as usize].fetch_add(1, Relaxed);
        self.bytes[signal as usize][outcome as usize].fetch_add(bytes, Relaxed);
    }
}

/// One request on its way to being counted. Dropped without an outcome, as when the peer resets the
/// stream and the server drops the request's future, it counts as aborted.
pub(super) struct RequestCount<'a> {
    counters: &'a ReceiverCounters,
    signal: Signal,
    outcome: RequestOutcome,
    /// The best that is known of the request's size: declared, then arrived, then decompressed.
    pub bytes: usize,
}

impl<'a> RequestCount<'a> {
    pub fn begin(counters: &'a ReceiverCounters, signal: Signal) -> RequestCount<'a> {
        RequestCount { counters, signal, outcome: RequestOutcome::Aborted, bytes: 0 }
    }

    pub fn end(mut self, outcome: RequestOutcome) {
        self.outcome = outcome;
    }
}

impl Drop for RequestCount<'_> {
    fn drop(&mut self) {
        let outcome = if std::thread::panicking() { RequestOutcome::Panicked } else { self.outcome };
        self.counters.record(self.signal, outcome, self.bytes as u64);
    }
}

/// What the receiver did since it started, and what it holds now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    requests: BySignal<u64>,
    bytes: BySignal<u64>,
    /// Requests for a path or method that is no OTLP endpoint.
    pub unrouted: u64,
    /// Requests that were accepted though nothing in them was known: their sender hears it in words.
    pub nothing_known: u64,
    /// Gauge: requests of all kinds whose answer is not yet made.
    pub requests_in_flight: u64,
    /// Gauge: bytes of request bodies held now.
    pub in_flight_bytes: u64,
    /// Gauge: bytes of empty buffers kept for the next requests.
    pub pooled_bytes: u64,
    /// Gauge: connections open now, on both listeners.
    pub connections_open: u64,
    /// Connections closed at once because their listener had `connections` of them.
    pub connections_refused: u64,
    connections_failed: [u64; ConnectionFault::ALL.len()],
}

impl Stats {
    /// Requests of a signal that ended so.
    pub fn requests(&self, signal: Signal, outcome: RequestOutcome) -> u64 {
        self.requests[signal as usize][outcome as usize]
    }

    /// Their bytes: decompressed where the body was read whole, else as declared by the client.
    pub fn bytes(&self, signal: Signal, outcome: RequestOutcome) -> u64 {
        self.bytes[signal as usize][outcome as usize]
    }

    /// Connections that failed so.
    pub fn connections_failed(&self, fault: ConnectionFault) -> u64 {
        self.connections_failed[fault as usize]
    }
}

/// Reads the receiver's counters, also while it serves and after it has ended.
#[derive(Clone)]
pub struct StatsReader {
    pub(super) counters: Arc<ReceiverCounters>,
    pub(super) admission: Arc<Admission>,
}

impl StatsReader {
    pub fn read(&self) -> Stats {
        let load = |table: &BySignal<AtomicU64>| table.each_ref().map(|row| row.each_ref().map(|n| n.load(Relaxed)));
        let counters = &*self.counters;
        Stats {
            requests: load(&counters.requests),
            bytes: load(&counters.bytes),
            unrouted: counters.unrouted.load(Relaxed),
            nothing_known: counters.nothing_known.load(Relaxed),
            requests_in_flight: counters.requests_in_flight.load(Relaxed),
            in_flight_bytes: self.admission.held() as u64,
            pooled_bytes: self.admission.pooled() as u64,
            connections_open: counters.connections_open.load(Relaxed),
            connections_refused: counters.connections_refused.load(Relaxed),
            connections_failed: counters.connections_failed.each_ref().map(|n| n.load(Relaxed)),
        }
    }
}
