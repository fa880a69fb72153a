use super::*;

const P99: Quantile = Quantile { rank: 0.99, min_samples: 1000 };
const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;

/// Durations around a median, as services have them: their logarithms are normally distributed.
struct Durations(u64);

impl Durations {
    fn uniform(&mut self) -> f64 {
        // SplitMix64 (Steele, Lea, Flood 2014).
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ mixed >> 31) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn next(&mut self, median_ms: f64, spread: f64) -> u64 {
        let normal = (-2.0 * (1.0 - self.uniform()).ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos();
        (median_ms * 1e6 * (spread * normal).exp()) as u64
    }
}

/// One group, and how many of its traces were above their threshold.
struct Simulated {
    baselines: Baselines,
    durations: Durations,
    now_ms: u64,
}

impl Simulated {
    fn new() -> Simulated {
        Simulated { baselines: Baselines::new(1 << 20), durations: Durations(7), now_ms: 0 }
    }

    /// Traces of a group that are judged at a steady rate; the part of them that is slow, in percent.
    fn run(&mut self, median_ms: f64, per_second: u64, for_ms: u64) -> f64 {
        let (mut slow, count) = (0, per_second * for_ms / SECOND);
        for n in 0..count {
            let nanos = self.durations.next(median_ms, 0.25);
            let threshold = self.baselines.judge(1, P99, nanos, self.now_ms + n * SECOND / per_second);
            slow += u64::from(threshold.is_some_and(|threshold| nanos > threshold));
        }
        self.now_ms += for_ms;
        100.0 * slow as f64 / count as f64
    }
}

/// Whatever an operation usually takes, one trace in a hundred is slow for it.
#[test]
fn of_each_of_200_operations_one_percent_is_slow() {
    let mut baselines = Baselines::new(8 << 20);
    let mut durations = Durations(1);
    let medians: Vec<f64> = (0..200).map(|n| 60_000f64.powf(f64::from(n) / 199.0)).collect();
    let mut slow = vec![0u32; medians.len()];
    let (warm, end, step) = (HOUR, 5 * HOUR, SECOND / 2);
    for now in (0..end).step_by(step as usize) {
        for (key, median) in medians.iter().enumerate() {
            let nanos = durations.next(*median, 0.5);
            let threshold = baselines.judge(key as u64, P99, nanos, now);
            slow[key] += u32::from(now >= warm && threshold.is_some_and(|threshold| nanos > threshold));
        }
    }
    let judged = ((end - warm) / step) as f64;
    let parts: Vec<f64> = slow.iter().map(|&slow| 100.0 * f64::from(slow) / judged).collect();
    let (least, most) = parts.iter().fold((f64::MAX, 0f64), |(least, most), &part| (least.min(part), most.max(part)));
    assert!(0.7 <= least && most <= 1.3, "from {least} % to {most} %");
    assert!(baselines.bytes() < 2 << 20, "{} bytes", baselines.bytes());
}

#[test]
fn a_slow_down_is_seen_as_long_as_it_lasts_and_is_normal_after_an_hour_or_two() {
    let mut simulated = Simulated::new();
    simulated.run(20.0, 10, HOUR);
    assert!(simulated.run(20.0, 10, 10 * MINUTE) < 1.5);
    let first_minutes = simulated.run(60.0, 10, 2 * MINUTE);
    assert!(first_minutes > 95.0, "{first_minutes} %");
    let later = simulated.run(60.0, 10, 50 * MINUTE);
    assert!(later > 95.0, "{later} %");
    simulated.run(60.0, 10, 2 * HOUR);
    let normal = simulated.run(60.0, 10, HOUR);
    assert!(normal < 1.5, "{normal} %");
}

#[test]
fn ten_times_the_load_changes_nothing() {
    let mut simulated = Simulated::new();
    simulated.run(20.0, 5, HOUR);
    let before = simulated.baselines.threshold(1).expect("known");
    let slow = simulated.run(20.0, 50, 10 * MINUTE);
    let after = simulated.baselines.threshold(1).expect("known");
    assert!((0.7..1.3).contains(&slow), "{slow} %");
    let change = after as f64 / before as f64;
    assert!((0.95..1.05).contains(&change), "{change}");
}

#[test]
fn a_threshold_holds_for_ten_seconds_and_is_not_known_from_few() {
    let mut baselines = Baselines::new(1 << 20);
    let thresholds: Vec<Option<u64>> =
        (0..3000).map(|n: u64| baselines.judge(1, P99, 1_000_000 + n * 1000, n * 100)).collect();
    let known = thresholds.iter().position(Option::is_some).expect("after 1,000");
    assert!(known >= 1000, "from {known} on");
    let changes: Vec<usize> = (1..3000).filter(|&n| thresholds[n] != thresholds[n - 1]).collect();
    assert!(changes.windows(2).all(|pair| pair[1] - pair[0] >= 100), "{changes:?}");
}

#[test]
fn memory_is_bounded_and_what_is_not_seen_is_forgotten() {
    let mut baselines = Baselines::new(64 << 10);
    let mut durations = Durations(3);
    for key in 0..100_000u64 {
        baselines.judge(key, P99, durations.next(10.0, 1.0), key);
    }
    assert!(baselines.bytes() < 66 << 10, "{} bytes", baselines.bytes());
    assert_eq!(baselines.overflowed, 100_000 - baselines.groups() as u64);
    baselines.judge(7_000_000, P99, 1, 2 * HOUR);
    baselines.judge(7_000_001, P99, 1, 2 * HOUR);
    assert_eq!(baselines.groups(), 2);
}

#[test]
fn a_quantile_is_within_a_bucket_of_the_exact_one() {
    let mut durations = Durations(11);
    let mut all: Vec<u64> = (0..20_000).map(|_| durations.next(5.0, 1.0)).collect();
    let mut histogram = FadingHistogram::default();
    all.iter().for_each(|nanos| histogram.add(*nanos));
    all.sort_unstable();
    for rank in [0.5, 0.9, 0.99, 0.999] {
        let exact = all[(all.len() as f64 * rank) as usize] as f64;
        let found = histogram.at(rank).expect("there are some") as f64;
        assert!((found / exact - 1.0).abs() < 0.016, "{rank}: {found} of {exact}");
    }
    for bucket in 0..3700u16 {
        assert!(start_of(bucket) < start_of(bucket + 1) && bucket_of(start_of(bucket)) == bucket, "{bucket}");
    }
}
