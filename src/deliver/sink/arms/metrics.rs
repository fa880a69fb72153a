//! Metrics as ARMS takes them: cumulative, with explicit buckets. It drops delta and exponential
//! histograms without a word, so the ones that can be converted are, and the others are counted.
//!
//! Source: help page "Managed Service for Prometheus: OpenTelemetry metrics endpoint".

use crate::deliver::sink::sls::exponential;
use bytes::Bytes;
use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    metrics::v1::{
        AggregationTemporality, ExponentialHistogram, ExponentialHistogramDataPoint, Histogram, HistogramDataPoint,
        Metric, metric::Data,
    },
};
use prost::Message;

/// The request as ARMS takes it and the data points that are not in it; empty if none is left.
/// Requests that need no change, and what is not OTLP, stay as they are.
pub(super) fn convert(body: &Bytes) -> (Bytes, u64) {
    let Ok(mut request) = ExportMetricsServiceRequest::decode(body.clone()) else { return (body.clone(), 0) };
    let metrics = request.resource_metrics.iter().flat_map(|resource| &resource.scope_metrics);
    if metrics.flat_map(|scope| &scope.metrics).all(is_taken) {
        return (body.clone(), 0);
    }
    let mut lost = 0;
    for resource in &mut request.resource_metrics {
        for scope in &mut resource.scope_metrics {
            scope.metrics = std::mem::take(&mut scope.metrics)
                .into_iter()
                .filter_map(|metric| explicit(metric).map_err(|points| lost += points).ok())
                .collect();
        }
        resource.scope_metrics.retain(|scope| !scope.metrics.is_empty());
    }
    request.resource_metrics.retain(|resource| !resource.scope_metrics.is_empty());
    (request.encode_to_vec().into(), lost)
}

fn is_delta(temporality: i32) -> bool {
    temporality == AggregationTemporality::Delta as i32
}

fn is_taken(metric: &Metric) -> bool {
    match &metric.data {
        Some(Data::ExponentialHistogram(_)) => false,
        Some(Data::Histogram(histogram)) => !is_delta(histogram.aggregation_temporality),
        // A sum of deltas becomes a gauge there.
        Some(Data::Gauge(_) | Data::Sum(_) | Data::Summary(_)) | None => true,
    }
}

/// The metric in a form that is taken, or the number of its points.
fn explicit(metric: Metric) -> Result<Metric, u64> {
    match metric.data {
        Some(Data::Histogram(histogram)) if is_delta(histogram.aggregation_temporality) => {
            Err(histogram.data_points.len() as u64)
        }
        Some(Data::ExponentialHistogram(histogram)) if is_delta(histogram.aggregation_temporality) => {
            Err(histogram.data_points.len() as u64)
        }
        Some(Data::ExponentialHistogram(ExponentialHistogram { data_points, aggregation_temporality })) => {
            let data_points = data_points.into_iter().map(explicit_point).collect();
            Ok(Metric { data: Some(Data::Histogram(Histogram { data_points, aggregation_temporality })), ..metric })
        }
        data => Ok(Metric { data, ..metric }),
    }
}

fn explicit_point(point: ExponentialHistogramDataPoint) -> HistogramDataPoint {
    let folded = exponential::fold(&point);
    HistogramDataPoint {
        attributes: point.attributes,
        start_time_unix_nano: point.start_time_unix_nano,
        time_unix_nano: point.time_unix_nano,
        count: point.count,
        sum: point.sum,
        bucket_counts: folded.counts,
        explicit_bounds: folded.bounds,
        exemplars: point.exemplars,
        flags: point.flags,
        min: point.min,
        max: point.max,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::metrics::v1::{
        Gauge, NumberDataPoint, ResourceMetrics, ScopeMetrics, exponential_histogram_data_point::Buckets,
    };

    const CUMULATIVE: i32 = AggregationTemporality::Cumulative as i32;
    const DELTA: i32 = AggregationTemporality::Delta as i32;

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
        let (same, lost) = convert(&given);
        assert_eq!((same.as_ptr(), lost), (given.as_ptr(), 0));
        let broken = Bytes::from_static(b"\xff");
        assert_eq!(convert(&broken), (broken, 0));
    }

    #[test]
    fn exponential_histograms_become_explicit_and_deltas_are_counted() {
        let (converted, lost) =
            convert(&body(vec![exponential(CUMULATIVE), histogram(DELTA), gauge(), exponential(DELTA)]));
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
    }

    #[test]
    fn nothing_left_is_empty() {
        assert_eq!(convert(&body(vec![histogram(DELTA)])), (Bytes::new(), 3));
    }
}
