//! Exponential histograms folded into explicit buckets, for backends that know no other.
//!
//! Source: OpenTelemetry metrics data model, "ExponentialHistogram". Bucket `i` of scale `s` holds
//! what is above `base^i` and at most `base^(i+1)`, with `base = 2^(2^-s)`.

use crate::otlp::{
    walk::{fields_of, last},
    wire::{Value, packed, zigzag},
};

/// Finer scales are folded to this one, in which a bound is √2 times the one before: bounds then stay
/// the same while a histogram grows, which rates over its series need.
const SCALE_MAX: i32 = 1;
/// Buckets on either side of zero; beyond, the scale is lowered further.
const BUCKETS_MAX: i64 = 256;

/// Bounds in ascending order, and one count more than bounds.
#[derive(Debug, PartialEq)]
pub(super) struct Explicit {
    pub(super) bounds: Vec<f64>,
    pub(super) counts: Vec<u64>,
}

/// What folding needs of an `ExponentialHistogramDataPoint`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ExponentialPoint<'a> {
    scale: i32,
    zero_count: u64,
    zero_threshold: f64,
    /// The data point: its buckets are walked, for there may be any number.
    bytes: &'a [u8],
}

/// One side of zero.
#[derive(Clone, Copy)]
struct Buckets<'a> {
    offset: i32,
    len: i64,
    bytes: &'a [u8],
}

const POSITIVE: u32 = 8;
const NEGATIVE: u32 = 9;

impl<'a> ExponentialPoint<'a> {
    pub(super) fn read(point: &'a [u8]) -> ExponentialPoint<'a> {
        let mut read = ExponentialPoint { bytes: point, ..ExponentialPoint::default() };
        for field in fields_of(point) {
            match (field.number, field.value) {
                (6, Value::Varint(scale)) => read.scale = zigzag(scale as u32),
                (7, Value::Fixed64(count)) => read.zero_count = count,
                (14, Value::Fixed64(bits)) => read.zero_threshold = f64::from_bits(bits),
                _ => {}
            }
        }
        read
    }

    fn buckets(&self, side: u32) -> Option<Buckets<'a>> {
        let bytes = last(self.bytes, side)?;
        let offset = fields_of(bytes).filter(|field| field.number == 1).last();
        let offset = offset.map_or(0, |field| if let Value::Varint(n) = field.value { zigzag(n as u32) } else { 0 });
        Some(Buckets { offset, len: varints(bytes, 2).count() as i64, bytes })
    }
}

/// The numbers of a list that may be packed.
fn numbers(message: &[u8], number: u32, are_varints: bool) -> impl Iterator<Item = Value<&[u8]>> {
    fields_of(message).filter(move |field| field.number == number).flat_map(move |field| {
        let (packed_ones, one) = match field.value {
            Value::Bytes(bytes) => (bytes, None),
            one => (&[][..], Some(one)),
        };
        packed(packed_ones, are_varints).map_while(|number| number).chain(one)
    })
}

fn varints(message: &[u8], number: u32) -> impl Iterator<Item = u64> {
    numbers(message, number, true).filter_map(|value| if let Value::Varint(n) = value { Some(n) } else { None })
}

/// Numbers of eight bytes.
pub(super) fn fixed(message: &[u8], number: u32) -> impl Iterator<Item = u64> {
    numbers(message, number, false).filter_map(|value| if let Value::Fixed64(n) = value { Some(n) } else { None })
}

pub(super) fn doubles(message: &[u8], number: u32) -> impl Iterator<Item = f64> {
    fixed(message, number).map(f64::from_bits)
}

pub(super) fn fold(point: &ExponentialPoint<'_>) -> Explicit {
    let [positive, negative] = [POSITIVE, NEGATIVE].map(|side| point.buckets(side));
    let shift =
        [positive, negative].into_iter().flatten().map(|buckets| shift_for(point.scale, &buckets)).max().unwrap_or(0);
    let scale = i64::from(point.scale) - i64::from(shift);
    let bound = |index: i64| (index as f64 * (-scale as f64).exp2()).exp2();
    let mut explicit = Explicit { bounds: Vec::new(), counts: Vec::new() };
    let mut beyond = 0;

    for (index, count) in runs(negative, shift).into_iter().rev() {
        explicit.push(-bound(index), count, &mut beyond);
    }
    let positive = runs(positive, shift);
    let above_zero = positive.first().map_or(point.zero_threshold, |&(index, _)| bound(index));
    explicit.push(above_zero, point.zero_count, &mut beyond);
    for (index, count) in positive {
        explicit.push(bound(index + 1), count, &mut beyond);
    }
    explicit.counts.push(beyond);
    explicit
}

impl Explicit {
    fn push(&mut self, bound: f64, count: u64, beyond: &mut u64) {
        match self.bounds.last() {
            _ if bound.is_infinite() && bound > 0.0 => *beyond += count,
            // Bounds below the smallest double run together.
            Some(&last) if bound <= last => *self.counts.last_mut().expect("as many as bounds") += count,
            _ => {
                self.bounds.push(bound);
                self.counts.push(count);
            }
        }
    }
}

/// By how many steps the scale must fall.
fn shift_for(scale: i32, buckets: &Buckets<'_>) -> u32 {
    let (low, high) = (i64::from(buckets.offset), i64::from(buckets.offset) + buckets.len);
    let fold = scale.saturating_sub(SCALE_MAX).clamp(0, 32) as u32;
    (fold..63).find(|&shift| (high >> shift) - (low >> shift) <= BUCKETS_MAX).unwrap_or(63)
}

/// Folded buckets in ascending order of their index.
fn runs(buckets: Option<Buckets<'_>>, shift: u32) -> Vec<(i64, u64)> {
    let mut runs: Vec<(i64, u64)> = Vec::new();
    let Some(buckets) = buckets else { return runs };
    for (index, count) in (i64::from(buckets.offset)..).zip(varints(buckets.bytes, 2)) {
        match runs.last_mut() {
            Some((last, sum)) if *last == index >> shift => *sum = sum.saturating_add(count),
            _ => runs.push((index >> shift, count)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::metrics::v1::{
        ExponentialHistogramDataPoint, exponential_histogram_data_point::Buckets,
    };
    use prost::Message;

    fn folded(point: &ExponentialHistogramDataPoint) -> Explicit {
        fold(&ExponentialPoint::read(&point.encode_to_vec()))
    }

    fn point(scale: i32, offset: i32, counts: &[u64]) -> ExponentialHistogramDataPoint {
        let positive = Some(Buckets { offset, bucket_counts: counts.to_vec() });
        ExponentialHistogramDataPoint { scale, positive, zero_count: 2, ..Default::default() }
    }

    #[test]
    fn scale_zero_has_powers_of_two() {
        let explicit = folded(&point(0, 1, &[3, 0, 5]));
        assert_eq!(explicit, Explicit { bounds: vec![2.0, 4.0, 8.0, 16.0], counts: vec![2, 3, 0, 5, 0] });
    }

    #[test]
    fn a_finer_scale_is_folded_and_keeps_its_counts() {
        // Scale 3, indices 8 to 15, is one octave: (2, 4].
        let explicit = folded(&point(3, 8, &[1; 8]));
        assert_eq!(explicit.counts, [2, 4, 4, 0]);
        for (bound, want) in explicit.bounds.iter().zip([2.0, 2.0 * 2f64.sqrt(), 4.0]) {
            assert!((bound - want).abs() < 1e-12);
        }
    }

    #[test]
    fn negative_values_come_first() {
        let mut point = point(0, 0, &[1]);
        point.negative = Some(Buckets { offset: 0, bucket_counts: vec![7, 9] });
        let explicit = folded(&point);
        assert_eq!(explicit, Explicit { bounds: vec![-2.0, -1.0, 1.0, 2.0], counts: vec![9, 7, 2, 1, 0] });
    }

    #[test]
    fn extremes_keep_every_count_and_ascend() {
        let wide = vec![1; 4000];
        for (scale, offset) in
            [(20, -2000), (0, -3000), (-10, -1), (-11, 0), (1, i32::MAX - 5000), (i32::MIN, 0), (0, i32::MIN)]
        {
            let explicit = folded(&point(scale, offset, &wide));
            assert_eq!(explicit.counts.iter().sum::<u64>(), 4002, "{scale} {offset}");
            assert_eq!(explicit.counts.len(), explicit.bounds.len() + 1);
            assert!(explicit.bounds.is_sorted_by(|a, b| a < b) && explicit.bounds.len() < 600, "{scale} {offset}");
        }
    }
}
