//! The durations of the last minute, for percentiles.
//!
//! **What the window is.** Time is cut into slots of 10 s. At time `t` the window holds the durations
//! that arrived in the slot of `t` and in the five before it: all of the last 50 s, nothing older
//! than 60 s. A percentile is the nearest rank over all of them: of `n` durations in ascending order,
//! the one at position `⌈p·n/100⌉`.
//!
//! **What it costs.** The open slot keeps up to 32 durations exactly. If more come it takes a dense
//! `hdrhistogram` (2 digits from 1 ns to 30 days: 5,888 counters of 4 bytes, 24 KB) from the [`WindowPool`]'s
//! budget; when the slot ends, only the bins that were hit remain (8 bytes each: a few hundred for an
//! ordinary endpoint) and the rest goes back. So a busy series holds one dense histogram, not six.
//! When the budget is spent a slot counts in the explicit buckets instead (4 bytes each), and the
//! series is *approximate* until that slot leaves the window.

use super::histogram::Bounds;
use hdrhistogram::Histogram;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Width of a slot.
pub const SLOT_MS: u64 = 10_000;
/// How many slots, the open one included, make the window.
pub const SLOTS: u64 = 6;
/// Longer durations count as 30 days in percentiles, and no gauge says so (the buckets and the sum of a series have
/// no such limit): they come from broken clocks.
pub const LONGEST_NANOS: u64 = 30 * 24 * 3_600_000_000_000;
/// A slot that has no more durations than this keeps them as they are.
pub const EXACT_MAX: usize = 32;
/// What one dense histogram takes.
pub const HISTOGRAM_BYTES: usize = 5888 * size_of::<u32>() + size_of::<Histogram<u32>>();

/// The bytes that the histograms of all windows may take together.
#[derive(Debug)]
pub struct WindowPool {
    max: usize,
    used: AtomicUsize,
    refused: AtomicU64,
}

impl WindowPool {
    /// A budget of `histograms` dense histograms.
    pub fn new(histograms: usize) -> Arc<WindowPool> {
        Arc::new(WindowPool {
            max: histograms.saturating_mul(HISTOGRAM_BYTES),
            used: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
        })
    }

    pub fn bytes(&self) -> usize {
        self.used.load(Relaxed)
    }

    /// How often a slot had to do without.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    fn charge(self: &Arc<WindowPool>, bytes: usize) -> Option<PoolShare> {
        let spend = |used: usize| used.checked_add(bytes).filter(|&sum| sum <= self.max);
        if self.used.fetch_update(Relaxed, Relaxed, spend).is_err() {
            self.refused.fetch_add(1, Relaxed);
            return None;
        }
        Some(PoolShare { pool: self.clone(), bytes })
    }
}

/// Bytes taken from a pool; dropping it gives them back.
#[derive(Debug)]
struct PoolShare {
    pool: Arc<WindowPool>,
    bytes: usize,
}

impl PoolShare {
    fn shrink_to(&mut self, bytes: usize) {
        self.pool.used.fetch_sub(self.bytes - bytes, Relaxed);
        self.bytes = bytes;
    }
}

impl Drop for PoolShare {
    fn drop(&mut self) {
        self.pool.used.fetch_sub(self.bytes, Relaxed);
    }
}

fn empty_histogram() -> Histogram<u32> {
    // From 1 ns: a unit of 64 ns would blur everything below 6.4 µs by more than 1 %.
    Histogram::new_with_bounds(1, LONGEST_NANOS, 2).expect("the bounds are in order")
}

/// The slot that takes durations.
#[derive(Debug)]
enum OpenSlot {
    Exact(Vec<u64>),
    Dense(Box<Histogram<u32>>, PoolShare),
    /// One counter for each explicit bucket.
    Coarse(Box<[u32]>),
}

/// A slot that has ended.
#[derive(Debug)]
enum EndedSlot {
    Exact(Box<[u64]>),
    /// Middle of each bin that was hit, and its count. 24 bits of a float are far finer than a bin.
    Bins(Box<[(f32, u32)]>, #[expect(dead_code, reason = "gives its bytes back when the slot goes")] PoolShare),
    /// So many bins were hit that listing them would take more room.
    Dense(Box<Histogram<u32>>, #[expect(dead_code, reason = "gives its bytes back when the slot goes")] PoolShare),
    Coarse(Box<[u32]>),
}

impl OpenSlot {
    fn record(&mut self, durations: &[u64], pool: &Arc<WindowPool>, bounds: &Bounds) {
        if let OpenSlot::Exact(values) = self
            && values.len() + durations.len() > EXACT_MAX
        {
            *self = OpenSlot::promoted(values, pool, bounds);
        }
        match self {
            OpenSlot::Exact(values) => values.extend_from_slice(durations),
            OpenSlot::Dense(histogram, _) => durations.iter().for_each(|&nanos| histogram.saturating_record(nanos)),
            OpenSlot::Coarse(buckets) => durations.iter().for_each(|&nanos| count_coarsely(buckets, nanos, bounds)),
        }
    }

    /// What takes the place of too many exact values.
    fn promoted(values: &[u64], pool: &Arc<WindowPool>, bounds: &Bounds) -> OpenSlot {
        let Some(charge) = pool.charge(HISTOGRAM_BYTES) else {
            let mut buckets = vec![0; bounds.buckets()].into_boxed_slice();
            values.iter().for_each(|&nanos| count_coarsely(&mut buckets, nanos, bounds));
            return OpenSlot::Coarse(buckets);
        };
        let mut histogram = Box::new(empty_histogram());
        values.iter().for_each(|&nanos| histogram.saturating_record(nanos));
        OpenSlot::Dense(histogram, charge)
    }

    fn is_empty(&self) -> bool {
        matches!(self, OpenSlot::Exact(values) if values.is_empty())
    }

    fn seal(self) -> EndedSlot {
        let (histogram, mut charge) = match self {
            OpenSlot::Exact(values) => return EndedSlot::Exact(values.into()),
            OpenSlot::Coarse(buckets) => return EndedSlot::Coarse(buckets),
            OpenSlot::Dense(histogram, charge) => (histogram, charge),
        };
        let bins: Vec<(f32, u32)> = histogram
            .iter_recorded()
            .map(|bin| (histogram.median_equivalent(bin.value_iterated_to()) as f32, bin.count_at_value()))
            .collect();
        let bytes = bins.len() * size_of::<(f32, u32)>();
        if bytes >= HISTOGRAM_BYTES {
            return EndedSlot::Dense(histogram, charge);
        }
        charge.shrink_to(bytes);
        EndedSlot::Bins(bins.into(), charge)
    }
}

fn count_coarsely(buckets: &mut [u32], nanos: u64, bounds: &Bounds) {
    let count = &mut buckets[bounds.bucket_of(nanos)];
    *count = count.saturating_add(1);
}

/// The durations of one series in the last minute.
#[derive(Debug)]
pub struct Window {
    /// Number of the open slot: milliseconds over [`SLOT_MS`].
    number: u64,
    open: OpenSlot,
    /// Earlier slots that are not empty, oldest first, with their numbers.
    past: VecDeque<(u64, EndedSlot)>,
}

impl Window {
    pub fn new(now_ms: u64) -> Window {
        Window { number: now_ms / SLOT_MS, open: OpenSlot::Exact(Vec::new()), past: VecDeque::new() }
    }

    /// Moves on to `now_ms`: ends the open slot if its time is over, forgets what is too old.
    /// Time that seems to run back (two threads race) changes nothing.
    pub fn advance(&mut self, now_ms: u64) {
        let number = now_ms / SLOT_MS;
        if number <= self.number {
            return;
        }
        while self.past.front().is_some_and(|(past, _)| past + SLOTS <= number) {
            self.past.pop_front();
        }
        let ended = std::mem::replace(&mut self.open, OpenSlot::Exact(Vec::new()));
        if !ended.is_empty() && self.number + SLOTS > number {
            self.past.reserve_exact(SLOTS as usize - 1 - self.past.len());
            self.past.push_back((self.number, ended.seal()));
        }
        self.number = number;
    }

    /// Takes durations into the open slot; [`Window::advance`] comes first.
    pub fn record(&mut self, durations: &[u64], pool: &Arc<WindowPool>, bounds: &Bounds) {
        self.open.record(durations, pool, bounds);
    }

    /// Some slot of it had to do without a histogram.
    pub fn is_approximate(&self) -> bool {
        matches!(self.open, OpenSlot::Coarse(_))
            || self.past.iter().any(|(_, held)| matches!(held, EndedSlot::Coarse(_)))
    }

    /// Bytes on the heap that the pool does not count.
    pub(crate) fn bytes(&self) -> usize {
        let exact = |count: usize| count * size_of::<u64>();
        let coarse = |count: usize| count * size_of::<u32>();
        let open = match &self.open {
            OpenSlot::Exact(values) => exact(values.capacity()),
            OpenSlot::Coarse(buckets) => coarse(buckets.len()),
            OpenSlot::Dense(..) => 0,
        };
        let past = self.past.iter().map(|(_, held)| match held {
            EndedSlot::Exact(values) => exact(values.len()),
            EndedSlot::Coarse(buckets) => coarse(buckets.len()),
            EndedSlot::Bins(..) | EndedSlot::Dense(..) => 0,
        });
        open + past.sum::<usize>() + self.past.capacity() * size_of::<(u64, EndedSlot)>()
    }

    /// Adds what the window holds at `now_ms` to `minute`.
    pub fn merge_into(&self, minute: &mut Minute, now_ms: u64, bounds: &Bounds) {
        let is_due = |number: u64| number + SLOTS > now_ms / SLOT_MS;
        for (number, held) in &self.past {
            match held {
                _ if !is_due(*number) => {}
                EndedSlot::Exact(values) => minute.add_exact(values),
                EndedSlot::Bins(bins, _) => minute.add_bins(bins),
                EndedSlot::Dense(histogram, _) => minute.add_dense(histogram),
                EndedSlot::Coarse(buckets) => minute.add_coarse(buckets, bounds),
            }
        }
        match &self.open {
            _ if !is_due(self.number) => {}
            OpenSlot::Exact(values) => minute.add_exact(values),
            OpenSlot::Dense(histogram, _) => minute.add_dense(histogram),
            OpenSlot::Coarse(buckets) => minute.add_coarse(buckets, bounds),
        }
    }
}

/// Nearest-rank percentiles, nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Latency {
    pub p50: u64,
    pub p90: u64,
    pub p95: u64,
    pub p99: u64,
}

impl Latency {
    /// What goes out as gauges, each with its label as Prometheus writes quantiles. Three, because each is a
    /// series of its own wherever it goes. One of [`LONGEST_NANOS`] is left out: nobody knows how long it was.
    pub(crate) fn quantiles(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let all = [("0.5", self.p50), ("0.9", self.p90), ("0.99", self.p99)];
        all.into_iter().filter(|(_, nanos)| *nanos < LONGEST_NANOS)
    }
}

/// The windows of one or more series put together. One of them serves any number of series in turn.
#[derive(Debug)]
pub struct Minute {
    histogram: Histogram<u32>,
    exact: Vec<u64>,
    approximate: bool,
}

impl Minute {
    pub fn new() -> Minute {
        Minute { histogram: empty_histogram(), exact: Vec::new(), approximate: false }
    }

    pub fn clear(&mut self) {
        if !self.histogram.is_empty() {
            self.histogram.reset();
        }
        self.exact.clear();
        self.approximate = false;
    }

    pub fn count(&self) -> u64 {
        self.histogram.len() + self.exact.len() as u64
    }

    pub fn is_approximate(&self) -> bool {
        self.approximate
    }

    /// None when nothing arrived. Exact if no slot had more than [`EXACT_MAX`] durations, else within
    /// 0.4 % of the exact value, else (if approximate) interpolated within the explicit buckets.
    pub fn latency(&mut self) -> Option<Latency> {
        if self.count() == 0 {
            return None;
        }
        if self.histogram.is_empty() {
            self.exact.sort_unstable();
        } else {
            self.exact.drain(..).for_each(|nanos| self.histogram.saturating_record(nanos));
        }
        Some(Latency { p50: self.rank(50), p90: self.rank(90), p95: self.rank(95), p99: self.rank(99) })
    }

    fn rank(&self, percent: u64) -> u64 {
        let rank = (self.count() * percent).div_ceil(100);
        let nanos = if self.histogram.is_empty() {
            self.exact[rank as usize - 1]
        } else {
            // Half a rank down, so that rounding of the fraction cannot move to a neighbour.
            let fraction = (rank as f64 - 0.5) / self.histogram.len() as f64;
            self.histogram.median_equivalent(self.histogram.value_at_quantile(fraction))
        };
        nanos.min(LONGEST_NANOS)
    }

    fn add_exact(&mut self, values: &[u64]) {
        self.exact.extend_from_slice(values);
    }

    fn add_bins(&mut self, bins: &[(f32, u32)]) {
        bins.iter().for_each(|&(middle, count)| self.histogram.saturating_record_n(middle as u64, count));
    }

    fn add_dense(&mut self, histogram: &Histogram<u32>) {
        self.histogram.add(histogram).expect("all histograms have one range");
    }

    /// Spreads each bucket's count evenly between its bounds, in at most 64 steps.
    fn add_coarse(&mut self, buckets: &[u32], bounds: &Bounds) {
        self.approximate = true;
        for (bucket, &count) in buckets.iter().enumerate() {
            let (low, high) = bounds.range_of(bucket);
            let steps = u64::from(count).min(64);
            for step in 0..steps {
                let share = |step: u64| u64::from(count) * step / steps;
                let middle = low + ((high - low) as f64 * (step as f64 + 0.5) / steps as f64) as u64;
                self.histogram.saturating_record_n(middle, (share(step + 1) - share(step)) as u32);
            }
        }
    }
}

impl Default for Minute {
    fn default() -> Minute {
        Minute::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records `values` at `now_ms` and returns what the pool then holds.
    fn record(
        window: &mut Window,
        now_ms: u64,
        values: impl IntoIterator<Item = u64>,
        pool: &Arc<WindowPool>,
    ) -> usize {
        window.advance(now_ms);
        window.record(&values.into_iter().collect::<Vec<u64>>(), pool, &Bounds::default());
        pool.bytes()
    }

    fn minute(window: &Window, now_ms: u64) -> Minute {
        let mut minute = Minute::new();
        window.merge_into(&mut minute, now_ms, &Bounds::default());
        minute
    }

    #[test]
    fn the_size_of_a_histogram_is_what_the_arithmetic_says() {
        assert_eq!(empty_histogram().distinct_values(), 5888);
    }

    #[test]
    fn an_ended_slot_gives_most_of_its_memory_back() {
        let (pool, mut window) = (WindowPool::new(4), Window::new(0));
        assert_eq!(record(&mut window, 0, 1..=32, &pool), 0, "few durations need no histogram");
        assert_eq!(record(&mut window, 0, 1..=1000, &pool), HISTOGRAM_BYTES);
        let sealed = record(&mut window, 10_000, [5], &pool);
        assert!(sealed > 0 && sealed < HISTOGRAM_BYTES / 4, "{sealed}");
        assert_eq!(minute(&window, 10_000).count(), 1033);
        window.advance(60_000);
        assert_eq!(pool.bytes(), 0);
        assert_eq!(minute(&window, 60_000).count(), 1);
    }

    #[test]
    fn a_slot_that_hit_every_bin_keeps_its_histogram() {
        let (pool, mut window) = (WindowPool::new(1), Window::new(0));
        // 64 octaves would need more bins than there are; these hit nearly all.
        let every_bin = (7..52).flat_map(|octave| (0..128).map(move |step| (1u64 << octave) + (step << (octave - 7))));
        record(&mut window, 0, every_bin, &pool);
        assert_eq!(record(&mut window, 10_000, [], &pool), HISTOGRAM_BYTES);
        let before = minute(&window, 10_000).latency();
        assert!(before.is_some());
        drop(window);
        assert_eq!(pool.bytes(), 0);
    }

    #[test]
    fn without_a_histogram_the_buckets_answer_and_say_so() {
        let (pool, mut window) = (WindowPool::new(0), Window::new(0));
        record(&mut window, 0, (0..1000).map(|n| 100_000_000 + n * 100_000), &pool);
        assert!(window.is_approximate());
        assert_eq!(pool.refused(), 1);
        let mut minute = minute(&window, 0);
        assert!(minute.is_approximate());
        assert_eq!(minute.count(), 1000);
        // All lie evenly between the bounds 100 and 200 ms, so interpolation is near the truth.
        let p50 = minute.latency().unwrap().p50;
        assert!((148_000_000..152_000_000).contains(&p50), "{p50}");
        // The next slot starts exactly again, and the coarse one leaves.
        record(&mut window, 60_000, [7], &pool);
        assert!(!window.is_approximate());
    }

    #[test]
    fn time_that_runs_back_changes_nothing() {
        let (pool, mut window) = (WindowPool::new(1), Window::new(25_000));
        record(&mut window, 25_000, [1], &pool);
        record(&mut window, 9_000, [2], &pool);
        assert_eq!(minute(&window, 25_000).count(), 2);
    }

    #[test]
    fn a_job_of_many_hours_has_true_percentiles() {
        const HOUR: u64 = 3_600_000_000_000;
        for count in [10, 100] {
            let (pool, mut window) = (WindowPool::new(1), Window::new(0));
            record(&mut window, 0, (1..=count).map(|n| n * 26 * HOUR / count), &pool);
            let latency = minute(&window, 0).latency().unwrap();
            for (got, percent) in [(latency.p50, 50), (latency.p90, 90), (latency.p99, 99)] {
                let exact = (count * percent).div_ceil(100) * 26 * HOUR / count;
                assert!(got.abs_diff(exact) * 100 <= exact, "p{percent} of {count}: {got}, exactly {exact}");
            }
            assert_eq!(latency.quantiles().count(), 3);
        }
    }

    #[test]
    fn what_no_clock_can_have_measured_is_no_gauge() {
        // The histogram's own range ends above the bound.
        for nanos in [u64::MAX, LONGEST_NANOS + LONGEST_NANOS / 10] {
            for count in [1, 100] {
                let (pool, mut window) = (WindowPool::new(1), Window::new(0));
                record(&mut window, 0, (0..count).map(|_| nanos).chain([5]), &pool);
                let latency = minute(&window, 0).latency().unwrap();
                assert_eq!(latency.p99, LONGEST_NANOS);
                assert!(latency.quantiles().all(|(_, nanos)| nanos == 5), "{latency:?}");
            }
        }
    }
}
