//! The cumulative histograms of a series: explicit buckets, as the span metrics connector has them, and
//! a base-2 exponential histogram where sinks are to get that. Neither can be derived from the other:
//! explicit buckets are too coarse, and exponential bounds do not meet the explicit ones.
//!
//! It does not know time: what a minute held is [`super::window`]'s.

/// The unit of the duration metric.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum DurationUnit {
    #[default]
    Milliseconds,
    Seconds,
}

impl DurationUnit {
    /// As OTLP writes it (UCUM).
    pub fn code(self) -> &'static str {
        match self {
            DurationUnit::Milliseconds => "ms",
            DurationUnit::Seconds => "s",
        }
    }

    /// As the name of a Prometheus metric ends.
    pub fn word(self) -> &'static str {
        match self {
            DurationUnit::Milliseconds => "milliseconds",
            DurationUnit::Seconds => "seconds",
        }
    }

    pub(crate) fn nanos(self) -> f64 {
        match self {
            DurationUnit::Milliseconds => 1e6,
            DurationUnit::Seconds => 1e9,
        }
    }
}

/// Which kind of histogram a sink takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flavour {
    /// Explicit buckets, for ARMS and Log Service. A percentile computed from them lies in the right bucket,
    /// no more: with the default bounds it can be twofold off, and fivefold between 10 and 50 ms.
    Explicit,
    /// Base-2 exponential: within 2.2 % while durations span 10 octaves, 4.4 % up to 20.
    Exponential,
}

/// Upper bounds of the explicit buckets, ascending; a duration equal to a bound is within it.
#[derive(Clone, PartialEq, Debug)]
pub struct Bounds {
    millis: Box<[f64]>,
    nanos: Box<[u64]>,
}

/// Why a list of bounds cannot be used.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum BoundsError {
    #[error("{0} buckets are too many: write 1 to {max} bounds", max = Bounds::MAX)]
    Count(usize),
    #[error("{0} ms is no bucket bound: write a number from 0.000001 (1 ns) to 1e12")]
    Value(f64),
    #[error("{1} ms comes after {0} ms: write the bounds in ascending order, each once")]
    Order(f64, f64),
}

impl Bounds {
    /// Each bound costs every series 8 bytes and every scrape one line.
    pub const MAX: usize = 64;

    /// From milliseconds.
    pub fn new(millis: &[f64]) -> Result<Bounds, BoundsError> {
        if millis.is_empty() || millis.len() > Bounds::MAX {
            return Err(BoundsError::Count(millis.len()));
        }
        if let Some(&bad) = millis.iter().find(|bound| !(1e-6..=1e12).contains(*bound)) {
            return Err(BoundsError::Value(bad));
        }
        if let Some(pair) = millis.windows(2).find(|pair| pair[0] >= pair[1]) {
            return Err(BoundsError::Order(pair[0], pair[1]));
        }
        // Rounded first: 0.001 ms times a million is a hair below 1000 ns.
        let nanos = millis.iter().map(|bound| (bound * 1e6).round() as u64).collect();
        Ok(Bounds { millis: millis.into(), nanos })
    }

    /// One more than the bounds: the last bucket has none.
    pub fn buckets(&self) -> usize {
        self.nanos.len() + 1
    }

    pub fn in_unit(&self, unit: DurationUnit) -> impl Iterator<Item = f64> {
        let divisor = unit.nanos() / 1e6;
        self.millis.iter().map(move |bound| bound / divisor)
    }

    /// The bucket that a duration of `nanos` falls into.
    pub fn bucket_of(&self, nanos: u64) -> usize {
        self.nanos.partition_point(|&bound| bound < nanos)
    }

    /// From where to where a bucket reaches, nanoseconds. The last ends where it begins, which makes
    /// estimates in it the highest bound, as Prometheus has it.
    pub(crate) fn range_of(&self, bucket: usize) -> (u64, u64) {
        let low = if bucket == 0 { 0 } else { self.nanos[bucket - 1] };
        (low, self.nanos.get(bucket).copied().unwrap_or(low))
    }
}

impl Default for Bounds {
    /// The defaults of the span metrics connector.
    fn default() -> Bounds {
        let millis =
            [2., 4., 6., 8., 10., 50., 100., 200., 400., 800., 1_000., 1_400., 2_000., 5_000., 10_000., 15_000.];
        Bounds::new(&millis).expect("the defaults ascend")
    }
}

/// A base-2 exponential histogram as OTLP defines it: bucket `i` at scale `s` holds values above
/// `2^(i/2^s)` up to `2^((i+1)/2^s)`, in the unit of the metric.
///
/// It starts at scale 4 and halves its resolution whenever its values span more than 160 buckets:
/// the middle of a bucket is within 2.2 % of every value in it while the durations span 10 octaves
/// (1 ms to 1 s), within 4.4 % up to 20 octaves (1 µs to 1 s), within 8.7 % up to 40. It holds only the
/// buckets between its least and its greatest value: 8 bytes each, at most 1.3 KB.
#[derive(Clone, Debug, PartialEq)]
pub struct Exponential {
    scale: i32,
    /// Index of `counts[0]`.
    first: i32,
    counts: Vec<u64>,
    zeros: u64,
}

impl Exponential {
    pub const BUCKETS_MAX: usize = 160;
    pub const FINEST: i32 = 4;

    pub fn new() -> Exponential {
        Exponential { scale: Exponential::FINEST, first: 0, counts: Vec::new(), zeros: 0 }
    }

    pub fn scale(&self) -> i32 {
        self.scale
    }

    pub fn zeros(&self) -> u64 {
        self.zeros
    }

    /// Index of the first bucket, and the counts from there on.
    pub fn positive(&self) -> (i32, &[u64]) {
        (self.first, &self.counts)
    }

    /// Counts one value, given in the unit of the metric.
    pub fn record(&mut self, value: f64) {
        if value <= 0.0 {
            self.zeros += 1;
            return;
        }
        let finest = finest_index(value);
        let shift = Exponential::FINEST - self.scale;
        match self.counts.get_mut(((finest >> shift) - self.first) as usize) {
            Some(count) => *count += 1,
            None => self.record_outside(finest),
        }
    }

    /// Counts a value beyond the buckets that it holds.
    #[cold]
    fn record_outside(&mut self, finest: i32) {
        let index = |scale: i32| finest >> (Exponential::FINEST - scale);
        while self.span_with(index(self.scale)) > Exponential::BUCKETS_MAX {
            self.halve();
        }
        let slot = self.make_room(index(self.scale));
        self.counts[slot] += 1;
    }

    /// How many buckets it would hold with `index` among them.
    fn span_with(&self, index: i32) -> usize {
        let last = self.first + self.counts.len() as i32 - 1;
        if self.counts.is_empty() { 1 } else { (last.max(index) - self.first.min(index) + 1) as usize }
    }

    /// The position of bucket `index`, which then exists.
    fn make_room(&mut self, index: i32) -> usize {
        // Exactly: doubling would waste up to half of the memory of every series.
        if self.counts.is_empty() {
            self.first = index;
        } else if index < self.first {
            let missing = (self.first - index) as usize;
            self.counts.reserve_exact(missing);
            self.counts.splice(0..0, std::iter::repeat_n(0, missing));
            self.first = index;
        }
        let slot = (index - self.first) as usize;
        if slot >= self.counts.len() {
            self.counts.reserve_exact(slot + 1 - self.counts.len());
            self.counts.resize(slot + 1, 0);
        }
        slot
    }

    /// One scale down: two neighbours become one bucket, so no count is lost or moved across a bound.
    fn halve(&mut self) {
        let coarser_first = self.first >> 1;
        let mut coarser = vec![0; self.counts.len() / 2 + 1];
        for (offset, count) in self.counts.iter().enumerate() {
            let index = (self.first + offset as i32) >> 1;
            coarser[(index - coarser_first) as usize] += count;
        }
        self.counts = coarser;
        self.first = coarser_first;
        self.scale -= 1;
    }
}

impl Default for Exponential {
    fn default() -> Exponential {
        Exponential::new()
    }
}

/// `2^(n/16)`: where the buckets of one octave begin at the finest scale.
const OCTAVE: [f64; 16] = [
    1.0,
    1.0442737824274138,
    1.0905077326652577,
    1.1387886347566916,
    1.189207115002721,
    1.241857812073484,
    1.2968395546510096,
    1.3542555469368927,
    std::f64::consts::SQRT_2,
    1.4768261459394993,
    1.5422108254079407,
    1.6104903319492543,
    1.681792830507429,
    1.7562521603732995,
    1.8340080864093424,
    1.9152065613971474,
];

/// For each 1/32 of an octave, how many of its buckets begin before it ends. Buckets are wider than
/// that (2^(1/16) is 1.044), so at most the last of these begins within it.
const BEGUN: [u8; 32] = {
    let mut begun = [0; 32];
    let mut cell = 0;
    while cell < 32 {
        while (begun[cell] as usize) < 16 && OCTAVE[begun[cell] as usize] < 1.0 + (cell + 1) as f64 / 32.0 {
            begun[cell] += 1;
        }
        cell += 1;
    }
    begun
};

/// `⌈log2(value)·16⌉ − 1` for a positive, normal value, from the bits of the number: a logarithm for
/// every span would be the dearest part of counting it.
fn finest_index(value: f64) -> i32 {
    let bits = value.to_bits();
    let octave = (bits >> 52) as i32 - 1023;
    let mantissa = f64::from_bits(bits & ((1 << 52) - 1) | 1.0f64.to_bits());
    let begun = BEGUN[(bits >> 47) as usize & 31];
    // A value at the very beginning of a bucket is the end of the one below.
    let at_or_before = i32::from(mantissa <= OCTAVE[begun as usize - 1]);
    octave * 16 + i32::from(begun) - 1 - at_or_before
}

/// All durations of a series since its start.
#[derive(Clone, Debug)]
pub struct Cumulative {
    pub count: u64,
    /// Nanoseconds. 128 bits, because 64 of them overflow after one broken clock or 584 years.
    pub sum: u128,
    /// Nanoseconds; meaningless while `count` is zero.
    pub min: u64,
    pub max: u64,
    /// For Prometheus always.
    pub buckets: Box<[u64]>,
    pub exponential: Option<Exponential>,
}

impl Cumulative {
    pub fn new(bounds: &Bounds, flavour: Flavour) -> Cumulative {
        let buckets = vec![0; bounds.buckets()].into();
        let exponential = (flavour == Flavour::Exponential).then(Exponential::new);
        Cumulative { count: 0, sum: 0, min: u64::MAX, max: 0, buckets, exponential }
    }

    /// Counts durations in nanoseconds. One loop for each thing: short loops keep the processor busy.
    pub fn record(&mut self, durations: &[u64], bounds: &Bounds, unit: DurationUnit) {
        self.count += durations.len() as u64;
        for &nanos in durations {
            self.sum += u128::from(nanos);
            self.min = self.min.min(nanos);
            self.max = self.max.max(nanos);
        }
        for &nanos in durations {
            self.buckets[bounds.bucket_of(nanos)] += 1;
        }
        if let Some(exponential) = &mut self.exponential {
            durations.iter().for_each(|&nanos| exponential.record(nanos as f64 / unit.nanos()));
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        let exponential = self.exponential.as_ref().map_or(0, |exponential| exponential.counts.capacity());
        (self.buckets.len() + exponential) * size_of::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_duration_equal_to_a_bound_is_within_it() {
        let bounds = Bounds::default();
        assert_eq!(bounds.bucket_of(0), 0);
        assert_eq!(bounds.bucket_of(2_000_000), 0);
        assert_eq!(bounds.bucket_of(2_000_001), 1);
        assert_eq!(bounds.bucket_of(15_000_000_000), 15);
        assert_eq!(bounds.bucket_of(15_000_000_001), 16);
        assert_eq!(bounds.bucket_of(u64::MAX), 16);
        assert_eq!(bounds.in_unit(DurationUnit::Seconds).next(), Some(0.002));
    }

    #[test]
    fn bounds_that_make_no_sense_are_refused_with_what_to_write_instead() {
        let message = |millis: &[f64]| Bounds::new(millis).unwrap_err().to_string();
        assert!(message(&[]).contains("1 to 64"));
        assert!(message(&[1.0; 65]).contains("65 buckets"));
        assert!(message(&[f64::NAN]).contains("NaN ms"));
        assert!(message(&[0.0, 1.0]).contains("0 ms is no"));
        assert!(message(&[5.0, 5.0]).contains("ascending"));
        assert!(message(&[f64::INFINITY]).contains("inf ms"));
    }

    #[test]
    fn extremes_are_counted_exactly() {
        let bounds = Bounds::default();
        let mut all = Cumulative::new(&bounds, Flavour::Exponential);
        all.record(&[0, 1, u64::MAX, u64::MAX], &bounds, DurationUnit::Milliseconds);
        assert_eq!((all.count, all.min, all.max), (4, 0, u64::MAX));
        assert_eq!(all.sum, 2 * u128::from(u64::MAX) + 1);
        assert_eq!((all.buckets[0], all.buckets[16]), (2, 2));
        let exponential = all.exponential.expect("it was asked for");
        let (_, counts) = exponential.positive();
        assert_eq!(exponential.zeros() + counts.iter().sum::<u64>(), 4);
        assert!(counts.len() <= Exponential::BUCKETS_MAX);
    }

    #[test]
    fn the_octave_is_cut_where_the_definition_says() {
        for (n, &begin) in OCTAVE.iter().enumerate() {
            assert!((begin - 2f64.powf(n as f64 / 16.0)).abs() < 1e-15, "{n}");
            assert_eq!(finest_index(begin), n as i32 - 1);
            assert_eq!(finest_index(begin.next_up()), n as i32);
        }
        for exponent in -20..45 {
            assert_eq!(finest_index(2f64.powi(exponent)), exponent * 16 - 1);
        }
    }

    #[test]
    fn powers_of_two_are_the_upper_bounds_of_their_buckets() {
        let mut one = Exponential::new();
        one.record(1.0);
        assert_eq!(one.positive(), (-1, &[1][..]));
        one.record(2.0);
        assert_eq!(one.positive().0 + one.positive().1.len() as i32 - 1, 15);
    }

    /// The bounds of bucket `index`, straight from OTLP's definition.
    fn bucket(scale: i32, index: i32) -> (f64, f64) {
        let base = 2f64.powf(2f64.powi(-scale));
        (base.powi(index), base.powi(index + 1))
    }

    proptest! {
        /// Each bucket holds exactly the values between its bounds, whatever came in which order.
        #[test]
        fn exponential_buckets_hold_what_their_bounds_say(
            values in prop::collection::vec((0u32..64, any::<u64>()).prop_map(|(shift, v)| v >> shift), 1..200),
        ) {
            let mut histogram = Exponential::new();
            values.iter().for_each(|&nanos| histogram.record(nanos as f64 / 1e6));
            let (first, counts) = histogram.positive();
            prop_assert!(counts.len() <= Exponential::BUCKETS_MAX);
            for (offset, &count) in counts.iter().enumerate() {
                let (low, high) = bucket(histogram.scale(), first + offset as i32);
                let within = |slack: f64| values.iter().map(|&v| v as f64 / 1e6)
                    .filter(|&v| v > low * (1.0 + slack) && v <= high * (1.0 - slack)).count() as u64;
                // Bounds are irrational: a value within rounding of one may stand on either side.
                prop_assert!((within(1e-12)..=within(-1e-12)).contains(&count));
            }
            let zeros = values.iter().filter(|&&v| v == 0).count() as u64;
            prop_assert_eq!(histogram.zeros(), zeros);
            prop_assert_eq!(zeros + counts.iter().sum::<u64>(), values.len() as u64);
        }
    }
}
