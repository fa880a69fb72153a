//! Counts every accepted span, on arrival: calls and duration of each series, from 100 % of the
//! traffic, whatever is kept of it later.
//!
//! Names, attributes and buckets are those of the OpenTelemetry Collector's span metrics connector
//! (v0.161), so dashboards made for it work. Deliberately different: only accepted spans are counted,
//! those without a service name too; a series is the sum over all instances of a service; its first
//! export says its true count beside the zero that it began with (see `first_seen`); percentiles of the
//! last minute go out beside the buckets.
//!
//! The table holds operations, each with its series: one for each status, so that errors are 0 before they
//! are 1.
//!
//! It counts spans received. Where a sampler upstream dropped spans, these numbers are smaller than
//! the truth; such spans are counted apart and warned about once. A span that is sent twice is counted
//! twice: whether it was here before is known of kept traces alone, and later. It does not read a clock:
//! `now_ms` is monotonic and given.

mod first_seen;
mod group;
mod histogram;
mod operations;
mod otlp;
mod prometheus;
mod series;
mod settings;
mod window;

pub use first_seen::{AT_ZERO_MS, YOUNG_MS};
pub use histogram::{Bounds, BoundsError, DurationUnit, Flavour};
pub use operations::OperationRow;
pub use otlp::{Now, POINTS_A_REQUEST};
pub use series::SeriesLabels;
pub use settings::{Dimensions, DimensionsError, Kinds, LabelName, MeterSettings};
pub use window::{EXACT_MAX, HISTOGRAM_BYTES, LONGEST_NANOS, Latency, SLOT_MS, SLOTS};

use crate::trace::{SpanView, Status};
use dashmap::DashMap;
use foldhash::fast::RandomState;
use group::{GROUP_MAX, Groups};
use series::{Arrival, Operation, SeriesKey};
use std::cell::RefCell;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use window::WindowPool;

/// How many services may have an overflow series of their own; the others share one.
pub const OVERFLOW_SERVICES_MAX: usize = 256;

thread_local! {
    /// Reused from request to request, so that grouping allocates nothing.
    static GROUPS: RefCell<Groups> = RefCell::new(Groups::new());
}

/// The request metrics of this process. Shared by all threads that receive.
pub struct Meter {
    settings: MeterSettings,
    /// Wall clock when `now_ms` was zero.
    start_unix_nanos: u64,
    operations: DashMap<u64, Operation, RandomState>,
    pool: Arc<WindowPool>,
    live: Live,
    counters: Counters,
}

/// What the table holds now: each has a bound.
#[derive(Default)]
struct Live {
    /// Series of operations that have a name, of all that counted something.
    series: AtomicUsize,
    overflow: AtomicUsize,
    /// Of names and values of all operations.
    text_bytes: AtomicUsize,
}

/// How often each bound was hit, and what else a metric says of the meter itself.
#[derive(Default)]
struct Counters {
    spans: AtomicU64,
    overflow_spans: AtomicU64,
    retired: AtomicU64,
    head_sampled: AtomicU64,
    approximate: AtomicUsize,
    bytes: AtomicUsize,
}

/// What the meter says of itself. Fields that are not called gauges only grow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Spans measured.
    pub spans: u64,
    /// Gauge: series, overflow series not among them.
    pub series: usize,
    /// Gauge: overflow series.
    pub overflow_series: usize,
    /// Spans counted in an overflow series.
    pub overflow_spans: u64,
    /// Gauge, as of the last tick: operations whose percentiles are estimates.
    pub approximate: usize,
    /// Slots of 10 s of an operation that had to do without a histogram.
    pub pool_exhausted: u64,
    /// Series retired after they had been idle.
    pub retired: u64,
    /// Spans measured of which a sampler upstream dropped a part of the peers.
    pub head_sampled: u64,
    /// Gauge: bytes of the operations as of the last tick, and of the windows' histograms.
    pub bytes: usize,
}

impl Meter {
    /// `start_unix_nanos` is the wall clock's time when `now_ms` was zero; start times of series are
    /// counted from it.
    pub fn new(settings: MeterSettings, start_unix_nanos: u64) -> Meter {
        Meter {
            pool: WindowPool::new(settings.pool),
            settings,
            start_unix_nanos,
            operations: DashMap::with_hasher(RandomState::default()),
            live: Live::default(),
            counters: Counters::default(),
        }
    }

    pub fn settings(&self) -> &MeterSettings {
        &self.settings
    }

    /// Counts a request's accepted spans, grouped by series first: one look-up per series, not per span.
    /// `describe` is called for a span of an operation that is not in the table.
    pub fn record(&self, spans: &[SpanView], now_ms: u64, mut describe: impl FnMut(&SpanView) -> SeriesLabels) {
        let at =
            Arrival { ms: now_ms, unix_nanos: self.start_unix_nanos.saturating_add(now_ms.saturating_mul(1_000_000)) };
        GROUPS.with_borrow_mut(|groups| {
            for chunk in spans.chunks(GROUP_MAX) {
                self.gather(chunk, groups);
                for (first, durations) in groups.laid_out() {
                    self.record_group(&chunk[first as usize], durations, at, &mut describe);
                }
            }
        });
    }

    fn gather(&self, spans: &[SpanView], groups: &mut Groups) {
        let kinds = self.settings.kinds;
        groups.clear();
        let mut head_sampled = 0;
        for (place, span) in spans.iter().enumerate() {
            if kinds.has(span.kind) {
                groups.add(span.operation ^ span.status as u64, place as u32, span.duration());
                head_sampled += u64::from(span.head_sampled);
            }
        }
        self.counters.spans.fetch_add(groups.spans() as u64, Relaxed);
        if head_sampled > 0 && self.counters.head_sampled.fetch_add(head_sampled, Relaxed) == 0 {
            tracing::warn!("some spans were sampled before they came here: request metrics count what arrived only");
        }
    }

    /// Counts spans of one series by their durations. `first` is one of them.
    fn record_group(
        &self,
        first: &SpanView,
        durations: &[u64],
        at: Arrival,
        describe: &mut impl FnMut(&SpanView) -> SeriesLabels,
    ) {
        if let Some(mut operation) = self.operations.get_mut(&first.operation) {
            return self.count(&mut operation, first.status, durations, at);
        }
        // Described before the table is locked: that work is the caller's.
        let labels = describe(first).shortened();
        let ambiguous = labels.may_stand_for_others();
        let identity = SeriesKey::Named(labels);
        let key = if ambiguous { self.key_of(&identity) } else { first.operation };
        let (key, identity) = self.place(key, identity);
        if identity.is_overflow() && self.counters.overflow_spans.fetch_add(durations.len() as u64, Relaxed) == 0 {
            let max = self.settings.series_max;
            tracing::warn!(max, "series limit reached: further operations share one overflow series per service");
        }
        let mut operation = self.operations.entry(key).or_insert_with(|| {
            self.live.text_bytes.fetch_add(identity.text_bytes(), Relaxed);
            if identity.is_overflow() {
                self.live.overflow.fetch_add(1, Relaxed);
            }
            Operation::new(identity, at)
        });
        self.count(&mut operation, first.status, durations, at);
    }

    fn count(&self, operation: &mut Operation, status: Status, durations: &[u64], at: Arrival) {
        let is_new = operation.record(durations, status, at, &self.settings, &self.pool);
        if is_new && !operation.identity.is_overflow() {
            self.live.series.fetch_add(1, Relaxed);
        }
    }

    /// Where spans of an unknown operation are counted. Threads that race may pass a bound by one each.
    fn place(&self, key: u64, named: SeriesKey) -> (u64, SeriesKey) {
        if self.has_room(&named) || self.operations.contains_key(&key) {
            return (key, named);
        }
        let SeriesKey::Named(labels) = named else { return (key, named) };
        let service = SeriesKey::ServiceOverflow(labels.service);
        let service_key = self.key_of(&service);
        if self.operations.contains_key(&service_key) || self.live.overflow.load(Relaxed) < OVERFLOW_SERVICES_MAX {
            return (service_key, service);
        }
        (self.key_of(&SeriesKey::Overflow), SeriesKey::Overflow)
    }

    fn has_room(&self, named: &SeriesKey) -> bool {
        self.live.series.load(Relaxed) < self.settings.series_max
            && self.live.text_bytes.load(Relaxed) + named.text_bytes() <= self.settings.text_max()
    }

    fn key_of(&self, identity: &SeriesKey) -> u64 {
        self.operations.hasher().hash_one(identity)
    }

    /// Moves all windows on and retires idle operations. One that comes back after that starts anew,
    /// with a start time of its own. Call it every few seconds.
    pub fn tick(&self, now_ms: u64) {
        let mut approximate = 0;
        // The table keeps the size it once had; each place has a byte of its own.
        let mut bytes = self.operations.capacity() * (size_of::<(u64, Operation)>() + 1);
        for key in self.keys() {
            let gone = self.operations.remove_if(&key, |_, operation| operation.is_idle(now_ms, &self.settings));
            if let Some((_, operation)) = gone {
                self.retire(&operation);
            } else if let Some(mut operation) = self.operations.get_mut(&key) {
                operation.window.advance(now_ms);
                approximate += usize::from(operation.window.is_approximate());
                bytes += operation.heap_bytes();
            }
        }
        self.counters.approximate.store(approximate, Relaxed);
        self.counters.bytes.store(bytes, Relaxed);
    }

    fn retire(&self, operation: &Operation) {
        self.live.text_bytes.fetch_sub(operation.identity.text_bytes(), Relaxed);
        match operation.identity.is_overflow() {
            true => self.live.overflow.fetch_sub(1, Relaxed),
            false => self.live.series.fetch_sub(operation.live(), Relaxed),
        };
        self.counters.retired.fetch_add(operation.live() as u64, Relaxed);
    }

    pub fn totals(&self) -> Totals {
        Totals {
            spans: self.counters.spans.load(Relaxed),
            series: self.live.series.load(Relaxed),
            overflow_series: self.live.overflow.load(Relaxed),
            overflow_spans: self.counters.overflow_spans.load(Relaxed),
            approximate: self.counters.approximate.load(Relaxed),
            pool_exhausted: self.pool.refused(),
            retired: self.counters.retired.load(Relaxed),
            head_sampled: self.counters.head_sampled.load(Relaxed),
            bytes: self.counters.bytes.load(Relaxed) + self.pool.bytes(),
        }
    }

    /// All keys at this moment. Whoever walks the operations takes them one by one, so that no thread that
    /// receives waits for more than one of them.
    fn keys(&self) -> Vec<u64> {
        self.operations.iter().map(|entry| *entry.key()).collect()
    }
}
