//! Counts every accepted span, on arrival: calls and duration of each series, from 100 % of the
//! traffic, whatever is kept of it later.
//!
//! Names, attributes and buckets are those of the OpenTelemetry Collector's span metrics connector
//! (v0.161), so dashboards made for it work. Deliberately different: only accepted spans are counted,
//! those without a service name too; a series is the sum over all instances of a service; its first
//! export is its true count, not a zero, because its start time says when it began; percentiles of the
//! last minute go out beside the buckets.
//!
//! It counts spans received. Where a sampler upstream dropped spans, these numbers are smaller than
//! the truth; such spans are counted apart and warned about once. It does not read a clock: `now_ms`
//! is monotonic and given.

mod group;
mod histogram;
mod operations;
mod otlp;
mod prometheus;
mod series;
mod settings;
mod window;

pub use histogram::{Bounds, BoundsError, Unit};
pub use operations::OperationRow;
pub use otlp::{Flavour, Now, SERIES_A_REQUEST};
pub use series::Labels;
pub use settings::{Dimensions, DimensionsError, Kinds, LabelName, Settings};
pub use window::{EXACT_MAX, HISTOGRAM_BYTES, LONGEST_NANOS, Latency, SLOT_MS, SLOTS};

use crate::trace::SpanView;
use dashmap::DashMap;
use foldhash::fast::RandomState;
use group::{GROUP_MAX, Groups};
use series::{Identity, Series};
use std::cell::RefCell;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use window::Pool;

/// How many services may have an overflow series of their own; the others share one.
pub const OVERFLOW_SERVICES_MAX: usize = 256;

thread_local! {
    /// Reused from request to request, so that grouping allocates nothing.
    static GROUPS: RefCell<Groups> = RefCell::new(Groups::new());
}

/// The request metrics of this process. Shared by all threads that receive.
pub struct Meter {
    settings: Settings,
    /// Wall clock when `now_ms` was zero.
    start_unix_nanos: u64,
    series: DashMap<u64, Series, RandomState>,
    pool: Arc<Pool>,
    named: AtomicUsize,
    overflow: AtomicUsize,
    counters: Counters,
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
    /// Gauge, as of the last tick: series whose percentiles are estimates.
    pub approximate: usize,
    /// Slots of 10 s of a series that had to do without a histogram.
    pub pool_exhausted: u64,
    /// Series retired after they had been idle.
    pub retired: u64,
    /// Spans measured of which a sampler upstream dropped a part of the peers.
    pub head_sampled: u64,
    /// Gauge: bytes of the series as of the last tick, and of the windows' histograms.
    pub bytes: usize,
}

impl Meter {
    /// `start_unix_nanos` is the wall clock's time when `now_ms` was zero; start times of series are
    /// counted from it.
    pub fn new(settings: Settings, start_unix_nanos: u64) -> Meter {
        Meter {
            pool: Pool::new(settings.pool),
            settings,
            start_unix_nanos,
            series: DashMap::with_hasher(RandomState::default()),
            named: AtomicUsize::new(0),
            overflow: AtomicUsize::new(0),
            counters: Counters::default(),
        }
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Counts a request's accepted spans, grouped by series first: one look-up per series, not per span.
    /// `describe` is called for a span of a series that is not in the table.
    pub fn record(&self, spans: &[SpanView], now_ms: u64, mut describe: impl FnMut(&SpanView) -> Labels) {
        GROUPS.with_borrow_mut(|groups| {
            for chunk in spans.chunks(GROUP_MAX) {
                self.gather(chunk, groups);
                for (first, durations) in groups.laid_out() {
                    self.record_group(&chunk[first as usize], durations, now_ms, &mut describe);
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
                groups.add(span.series, place as u32, span.duration());
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
        now_ms: u64,
        describe: &mut impl FnMut(&SpanView) -> Labels,
    ) {
        if let Some(mut series) = self.series.get_mut(&first.series) {
            return series.record(durations, first.status, now_ms, &self.settings, &self.pool);
        }
        // Described before the table is locked: that work is the caller's.
        let labels = describe(first).shortened();
        let key = if labels.are_lossy() { self.key_of(&Identity::Named(labels.clone())) } else { first.series };
        let (key, identity) = self.place(key, labels);
        if identity.is_overflow() && self.counters.overflow_spans.fetch_add(durations.len() as u64, Relaxed) == 0 {
            tracing::warn!(
                max = self.settings.series_max,
                "series limit reached: further spans share one overflow series per service"
            );
        }
        let start = self.start_unix_nanos.saturating_add(now_ms.saturating_mul(1_000_000));
        let live = if identity.is_overflow() { &self.overflow } else { &self.named };
        let mut series = self.series.entry(key).or_insert_with(|| {
            live.fetch_add(1, Relaxed);
            Series::new(identity, start, now_ms, &self.settings)
        });
        series.record(durations, first.status, now_ms, &self.settings, &self.pool);
    }

    /// Where spans of an unknown series are counted. Threads that race may pass a bound by one each.
    fn place(&self, key: u64, labels: Labels) -> (u64, Identity) {
        if self.named.load(Relaxed) < self.settings.series_max || self.series.contains_key(&key) {
            return (key, Identity::Named(labels));
        }
        let service = Identity::ServiceOverflow(labels.service);
        let service_key = self.key_of(&service);
        if self.series.contains_key(&service_key) || self.overflow.load(Relaxed) < OVERFLOW_SERVICES_MAX {
            return (service_key, service);
        }
        (self.key_of(&Identity::Overflow), Identity::Overflow)
    }

    fn key_of(&self, identity: &Identity) -> u64 {
        self.series.hasher().hash_one(identity)
    }

    /// Moves all windows on and retires idle series. A series that comes back after that starts anew,
    /// with a start time of its own. Call it every few seconds.
    pub fn tick(&self, now_ms: u64) {
        let mut approximate = 0;
        // The table keeps the size it once had; each place has a byte of its own.
        let mut bytes = self.series.capacity() * (size_of::<(u64, Series)>() + 1);
        for key in self.keys() {
            let gone = self.series.remove_if(&key, |_, series| series.is_idle(now_ms, &self.settings));
            if let Some((_, series)) = gone {
                let live = if series.identity.is_overflow() { &self.overflow } else { &self.named };
                live.fetch_sub(1, Relaxed);
                self.counters.retired.fetch_add(1, Relaxed);
            } else if let Some(mut series) = self.series.get_mut(&key) {
                series.window.advance(now_ms);
                approximate += usize::from(series.window.is_approximate());
                bytes += series.heap_bytes();
            }
        }
        self.counters.approximate.store(approximate, Relaxed);
        self.counters.bytes.store(bytes, Relaxed);
    }

    pub fn totals(&self) -> Totals {
        Totals {
            spans: self.counters.spans.load(Relaxed),
            series: self.named.load(Relaxed),
            overflow_series: self.overflow.load(Relaxed),
            overflow_spans: self.counters.overflow_spans.load(Relaxed),
            approximate: self.counters.approximate.load(Relaxed),
            pool_exhausted: self.pool.refused(),
            retired: self.counters.retired.load(Relaxed),
            head_sampled: self.counters.head_sampled.load(Relaxed),
            bytes: self.counters.bytes.load(Relaxed) + self.pool.bytes(),
        }
    }

    /// All keys at this moment. Whoever walks the series takes them one by one, so that no thread that
    /// receives waits for more than one of them.
    fn keys(&self) -> Vec<u64> {
        self.series.iter().map(|entry| *entry.key()).collect()
    }
}
