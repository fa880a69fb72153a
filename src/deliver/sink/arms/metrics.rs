//! Metrics as ARMS takes them: cumulative, with explicit buckets. It drops delta and exponential
//! histograms without a word, so the ones that can be converted are, and the others are counted.
//!
//! Source: help page "Managed Service for Prometheus: OpenTelemetry metrics endpoint".

use crate::{
    deliver::{
        batch,
        sink::exponential::{self, ExponentialPoint},
    },
    otlp::{
        walk::{Place, all, fields_of, leaves},
        wire::{Value, put_bytes, put_varint},
    },
    trace::Signal,
};
use bytes::Bytes;

/// `AGGREGATION_TEMPORALITY_DELTA`
const DELTA: u64 = 1;
/// Field numbers of a `Metric`, and of its data.
const HISTOGRAM: u32 = 9;
const EXPONENTIAL_HISTOGRAM: u32 = 10;
const POINTS: u32 = 1;
const TEMPORALITY: u32 = 2;

/// Bytes by which a request may grow: a point can become fifteen times as long. A larger request may double, so that
/// what cannot be halved any more, for most of it is around its points, is taken.
const GROWTH: usize = 4 << 20;

/// The request would become too large: to be halved.
#[derive(Debug, PartialEq)]
pub(super) struct TooLarge;

/// The request as ARMS takes it and the data points that are not in it; empty if none is left.
/// Requests that need no change, and what is not OTLP, stay as they are.
pub(super) fn convert(body: &Bytes) -> Result<(Bytes, u64), TooLarge> {
    let is_whole = batch::count_items(Signal::Metrics, body).is_some();
    if !is_whole || leaves(body, Place::default()).all(|metric| is_taken(metric.bytes)) {
        return Ok((body.clone(), 0));
    }
    let mut conversion = Conversion { lost: 0, grown: 0, grown_max: GROWTH.max(body.len()) };
    let converted = with_children(body, 1, &mut |resource| {
        with_children(resource, 2, &mut |scope| with_children(scope, 2, &mut |metric| conversion.metric(metric)))
    });
    if conversion.is_too_large() {
        return Err(TooLarge);
    }
    Ok((converted.unwrap_or_default().into(), conversion.lost))
}

/// What has come of a request so far.
struct Conversion {
    /// Data points that ARMS does not take.
    lost: u64,
    /// Bytes that points have become longer by.
    grown: usize,
    grown_max: usize,
}

impl Conversion {
    fn is_too_large(&self) -> bool {
        self.grown > self.grown_max
    }

    /// The metric in a form that is taken; none if there is none, and then its points count as lost.
    fn metric(&mut self, metric: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(metric.len());
        for field in fields_of(metric) {
            match (field.number, field.payload()) {
                (HISTOGRAM | EXPONENTIAL_HISTOGRAM, Some(data)) if is_delta(data) => {
                    self.lost += all(data, POINTS).count() as u64;
                    return None;
                }
                (EXPONENTIAL_HISTOGRAM, Some(data)) => {
                    let data = with_children(data, POINTS, &mut |point| self.point(point));
                    put_bytes(&mut out, HISTOGRAM, &data.unwrap_or_default());
                }
                _ => out.extend_from_slice(field.raw),
            }
        }
        Some(out)
    }

    /// None once it is too much: the rest would be thrown away as well.
    fn point(&mut self, point: &[u8]) -> Option<Vec<u8>> {
        if self.is_too_large() {
            return None;
        }
        let explicit = explicit_point(point);
        self.grown += explicit.len().saturating_sub(point.len());
        Some(explicit)
    }
}

/// The message with other payloads in its fields `number`, without those that get none. None if none is left.
fn with_children(message: &[u8], number: u32, child: &mut dyn FnMut(&[u8]) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
    let (mut out, mut any) = (Vec::new(), false);
    for field in fields_of(message) {
        match field.message(number) {
            None => out.extend_from_slice(field.raw),
            Some(payload) => {
                if let Some(payload) = child(payload) {
                    put_bytes(&mut out, number, &payload);
                    any = true;
                }
            }
        }
    }
    any.then_some(out)
}

fn is_delta(data: &[u8]) -> bool {
    fields_of(data).filter(|field| field.number == TEMPORALITY).last().is_some_and(|f| f.value == Value::Varint(DELTA))
}

fn is_taken(metric: &[u8]) -> bool {
    fields_of(metric).all(|field| match (field.number, field.payload()) {
        (EXPONENTIAL_HISTOGRAM, _) => false,
        (HISTOGRAM, Some(data)) => !is_delta(data),
        // A sum of deltas becomes a gauge there.
        _ => true,
    })
}

/// A `HistogramDataPoint` of an `ExponentialHistogramDataPoint`.
fn explicit_point(point: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(point.len());
    for field in fields_of(point) {
        match (field.number, field.value) {
            // Attributes and exemplars; minimum and maximum.
            (1, Value::Bytes(attribute)) => put_bytes(&mut out, 9, attribute),
            (11, Value::Bytes(exemplar)) => put_bytes(&mut out, 8, exemplar),
            (12, Value::Fixed64(bits)) => put_fixed(&mut out, 11, bits),
            (13, Value::Fixed64(bits)) => put_fixed(&mut out, 12, bits),
            // Times, count, sum and flags have the same numbers.
            (2..=5 | 10, _) => out.extend_from_slice(field.raw),
            _ => {}
        }
    }
    let folded = exponential::fold(&ExponentialPoint::read(point));
    let packed = |numbers: &mut dyn Iterator<Item = u64>| numbers.flat_map(u64::to_le_bytes).collect::<Vec<u8>>();
    put_bytes(&mut out, 6, &packed(&mut folded.counts.iter().copied()));
    put_bytes(&mut out, 7, &packed(&mut folded.bounds.iter().map(|bound| bound.to_bits())));
    out
}

fn put_fixed(out: &mut Vec<u8>, number: u32, bits: u64) {
    put_varint(out, u64::from(number) << 3 | 1);
    out.extend_from_slice(&bits.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deliver::{batch::Piece, sink::Batch};
    use opentelemetry_proto::tonic::{
        collector::metrics::v1::ExportMetricsServiceRequest,
        common::v1::KeyValue,
        metrics::v1::{
            AggregationTemporality, Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram,
            HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics,
            exponential_histogram_data_point::Buckets, metric::Data,
        },
    };
    use prost::Message;

    const CUMULATIVE: i32 = AggregationTemporality::Cumulative as i32;
    const DELTAS: i32 = AggregationTemporality::Delta as i32;

    fn body(data: Vec<Data>) -> Bytes {
        let metrics = data.into_iter().map(|data| Metric { name: "m".into(), data: Some(data), ..Default::default() });
        let scope_metrics = vec![ScopeMetrics { metrics: metrics.collect(), ..Default::default() }];
        let resource_metrics = vec![ResourceMetrics { scope_metrics, ..Default::default() }];
        ExportMetricsServiceRequest { resource_metrics }.encode_to_vec().into()
    }

    fn gauge() -> Data {
        Data::Gauge(Gauge { data_points: vec![NumberDataPoint::default()] })
    }

    fn exponential(aggregation_temporality: i32) -> Data {
        let point = ExponentialHistogramDataPoint {
            count: 3,
            sum: Some(5.0),
            start_time_unix_nano: 1,
            time_unix_nano: 2,
            positive: Some(Buckets { offset: 0, bucket_counts: vec![2, 1] }),
            attributes: vec![KeyValue { key: "zone".into(), ..Default::default() }],
            exemplars: vec![Exemplar { span_id: vec![7; 8], ..Default::default() }],
            flags: 4,
            min: Some(0.5),
            max: Some(3.5),
            ..Default::default()
        };
        Data::ExponentialHistogram(ExponentialHistogram { data_points: vec![point; 2], aggregation_temporality })
    }

    fn histogram(aggregation_temporality: i32) -> Data {
        let data_points = vec![HistogramDataPoint::default(); 3];
        Data::Histogram(Histogram { data_points, aggregation_temporality })
    }

    #[test]
    fn what_arms_takes_is_not_touched() {
        let given = body(vec![gauge(), histogram(CUMULATIVE)]);
        let (same, lost) = convert(&given).unwrap();
        assert_eq!((same.as_ptr(), lost), (given.as_ptr(), 0));
        let broken = Bytes::from_static(b"\xff");
        assert_eq!(convert(&broken), Ok((broken.clone(), 0)));
    }

    #[test]
    fn exponential_histograms_become_explicit_and_deltas_are_counted() {
        let (converted, lost) =
            convert(&body(vec![exponential(CUMULATIVE), histogram(DELTAS), gauge(), exponential(DELTAS)])).unwrap();
        assert_eq!(lost, 5);
        let request = ExportMetricsServiceRequest::decode(converted).unwrap();
        let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
        let [first, second] = &metrics[..] else { panic!("{metrics:?}") };
        assert_eq!(second.data, Some(gauge()));
        let Some(Data::Histogram(histogram)) = &first.data else { panic!("{first:?}") };
        assert_eq!((histogram.aggregation_temporality, histogram.data_points.len()), (CUMULATIVE, 2));
        let point = &histogram.data_points[0];
        assert_eq!((&point.explicit_bounds[..], &point.bucket_counts[..]), (&[1.0, 2.0, 4.0][..], &[0, 2, 1, 0][..]));
        assert_eq!((point.count, point.sum, point.start_time_unix_nano, point.time_unix_nano), (3, Some(5.0), 1, 2));
        assert_eq!((point.attributes[0].key.as_str(), &point.exemplars[0].span_id[..]), ("zone", &[7; 8][..]));
        assert_eq!((point.flags, point.min, point.max), (4, Some(0.5), Some(3.5)));
    }

    #[test]
    fn nothing_left_is_empty() {
        assert_eq!(convert(&body(vec![histogram(DELTAS)])), Ok((Bytes::new(), 3)));
    }

    /// A bucket is a byte, and then sixteen.
    #[test]
    fn what_grows_too_much_is_halved_and_no_point_is_lost() {
        let buckets = || Some(Buckets { offset: 0, bucket_counts: vec![1; 256] });
        let point =
            ExponentialHistogramDataPoint { scale: 1, positive: buckets(), negative: buckets(), ..Default::default() };
        let many = ExponentialHistogram { data_points: vec![point; 4000], aggregation_temporality: CUMULATIVE };
        let given = body(vec![Data::ExponentialHistogram(many)]);
        let whole = Piece::new(Batch { signal: Signal::Metrics, body: given, items: 4000 });
        let (mut waiting, mut points) = (vec![whole], 0);
        while let Some(piece) = waiting.pop() {
            let batch = piece.batch();
            let Ok((converted, 0)) = convert(&batch.body) else {
                waiting.extend(piece.halves().expect("a single point grows little"));
                continue;
            };
            assert!(converted.len() < batch.body.len() + GROWTH + (64 << 10), "{} bytes", converted.len());
            points += batch::count_items(Signal::Metrics, &converted).unwrap();
        }
        assert_eq!(points, 4000);
    }
}
