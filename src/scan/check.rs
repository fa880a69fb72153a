//! Full validation: backends refuse a whole batch for one string that is not UTF-8, and batches hold
//! what many clients sent. Kept spans are checked with their context when they leave (scan itself
//! looks only where somebody asks), requests of metrics and logs when they come.

mod shape;

pub use shape::Shape;

use super::wire::{Malformed, Reader, Value};
use crate::trace::Slice;
use shape::Kind;

/// Messages and groups may nest this deep in a request, as for prost.
const DEPTH_MAX: usize = 100;

/// What is wrong with the bytes of a kept span.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    InvalidUtf8,
    Malformed,
}

impl From<Malformed> for Fault {
    fn from(_: Malformed) -> Fault {
        Fault::Malformed
    }
}

/// Checks that `message` is a valid message of this shape, all the way down, in its place in a request.
///
/// # Errors
/// The first fault that is found.
pub fn check(shape: Shape, message: &[u8]) -> Result<(), Fault> {
    // A batch with one span that nests too deep is refused whole.
    let depth = match shape {
        Shape::MetricsRequest | Shape::LogsRequest => DEPTH_MAX + 1,
        Shape::ResourceSpans => DEPTH_MAX,
        Shape::ScopeSpans => DEPTH_MAX - 1,
        _ => DEPTH_MAX - 2,
    };
    check_run(shape, message, Slice { start: 0, len: message.len() as u32 }, depth)
}

fn check_run(shape: Shape, body: &[u8], message: Slice, depth: usize) -> Result<(), Fault> {
    let depth = depth.checked_sub(1).ok_or(Fault::Malformed)?;
    let mut fields = Reader::new(body, message);
    while let Some(field) = fields.next()? {
        let Some(kind) = shape.field(field.number) else {
            match field.value {
                Value::Group(levels) if levels >= depth => return Err(Fault::Malformed),
                _ => continue,
            }
        };
        match (kind, field.value) {
            (Kind::Text, Value::Bytes(text)) => {
                simdutf8::basic::from_utf8(text.of(body)).map_err(|_| Fault::InvalidUtf8)?;
            }
            (Kind::Message(inner), Value::Bytes(message)) => check_run(inner, body, message, depth)?,
            (Kind::Bytes, Value::Bytes(_))
            | (Kind::Varint, Value::Varint(_))
            | (Kind::Fixed32, Value::Fixed32(_))
            | (Kind::Fixed64, Value::Fixed64(_))
            | (Kind::Varints, Value::Varint(_))
            | (Kind::Fixed64s, Value::Fixed64(_)) => {}
            (Kind::Fixed64s, Value::Bytes(packed)) if packed.len % 8 == 0 => {}
            (Kind::Varints, Value::Bytes(packed)) => Reader::new(body, packed).skip_varints()?,
            _ => return Err(Fault::Malformed),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::collector::{
        logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
    };
    use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
    use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
    use opentelemetry_proto::tonic::metrics::v1::{
        Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint, Metric,
        NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary, SummaryDataPoint, exemplar,
        exponential_histogram_data_point::Buckets, metric::Data, number_data_point,
        summary_data_point::ValueAtQuantile,
    };
    use opentelemetry_proto::tonic::resource::v1::Resource;
    use proptest::prelude::*;
    use prost::Message;

    fn attributes() -> Vec<KeyValue> {
        let value = AnyValue { value: Some(any_value::Value::StringValue("grüße".into())) };
        vec![KeyValue { key: "a".into(), value: Some(value), ..Default::default() }]
    }

    fn resource() -> Option<Resource> {
        Some(Resource { attributes: attributes(), dropped_attributes_count: 1, ..Default::default() })
    }

    fn exemplars() -> Vec<Exemplar> {
        vec![Exemplar {
            filtered_attributes: attributes(),
            time_unix_nano: 1,
            span_id: vec![1; 8],
            trace_id: vec![1; 16],
            value: Some(exemplar::Value::AsInt(-1)),
        }]
    }

    /// Points of all five kinds, with every field that they have.
    fn data() -> [Data; 5] {
        let number = NumberDataPoint {
            attributes: attributes(),
            start_time_unix_nano: 1,
            time_unix_nano: 2,
            exemplars: exemplars(),
            flags: 1,
            value: Some(number_data_point::Value::AsDouble(1.5)),
        };
        let histogram = HistogramDataPoint {
            attributes: attributes(),
            time_unix_nano: 2,
            count: 3,
            sum: Some(4.0),
            bucket_counts: vec![1, 2],
            explicit_bounds: vec![0.5],
            exemplars: exemplars(),
            flags: 1,
            min: Some(0.1),
            max: Some(9.0),
            ..Default::default()
        };
        let buckets = Some(Buckets { offset: -3, bucket_counts: vec![1, 300, 2] });
        let exponential = ExponentialHistogramDataPoint {
            attributes: attributes(),
            time_unix_nano: 2,
            count: 3,
            scale: -2,
            zero_count: 1,
            positive: buckets.clone(),
            negative: buckets,
            flags: 1,
            exemplars: exemplars(),
            zero_threshold: 0.1,
            ..Default::default()
        };
        let summary = SummaryDataPoint {
            attributes: attributes(),
            count: 3,
            sum: 1.0,
            quantile_values: vec![ValueAtQuantile { quantile: 0.5, value: 2.0 }],
            flags: 1,
            ..Default::default()
        };
        [
            Data::Gauge(Gauge { data_points: vec![number.clone()] }),
            Data::Sum(Sum { data_points: vec![number], aggregation_temporality: 2, is_monotonic: true }),
            Data::Histogram(Histogram { data_points: vec![histogram], aggregation_temporality: 2 }),
            Data::ExponentialHistogram(ExponentialHistogram {
                data_points: vec![exponential],
                aggregation_temporality: 2,
            }),
            Data::Summary(Summary { data_points: vec![summary] }),
        ]
    }

    fn metrics() -> Vec<u8> {
        let metric = |data| Metric {
            name: "m".into(),
            description: "d".into(),
            unit: "ms".into(),
            metadata: attributes(),
            data: Some(data),
        };
        let scope = Some(InstrumentationScope { name: "s".into(), attributes: attributes(), ..Default::default() });
        let metrics = data().into_iter().map(metric).collect();
        let scope_metrics = vec![ScopeMetrics { scope, metrics, schema_url: "u".into() }];
        let of_resource = ResourceMetrics { resource: resource(), scope_metrics, schema_url: "u".into() };
        ExportMetricsServiceRequest { resource_metrics: vec![of_resource] }.encode_to_vec()
    }

    fn logs() -> Vec<u8> {
        let record = LogRecord {
            time_unix_nano: 1,
            observed_time_unix_nano: 2,
            severity_number: 9,
            severity_text: "INFO".into(),
            body: attributes()[0].value.clone(),
            attributes: attributes(),
            dropped_attributes_count: 1,
            flags: 1,
            trace_id: vec![1; 16],
            span_id: vec![1; 8],
            event_name: "e".into(),
        };
        let scope_logs = vec![ScopeLogs { log_records: vec![record], schema_url: "u".into(), ..Default::default() }];
        let of_resource = ResourceLogs { resource: resource(), scope_logs, schema_url: "u".into() };
        ExportLogsServiceRequest { resource_logs: vec![of_resource] }.encode_to_vec()
    }

    #[test]
    fn whole_requests_pass() {
        assert_eq!(check(Shape::MetricsRequest, &metrics()), Ok(()));
        assert_eq!(check(Shape::LogsRequest, &logs()), Ok(()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]
        #[test]
        fn requests_with_a_damaged_byte_are_judged_as_prost_does(at in any::<prop::sample::Index>(), byte: u8) {
            let (mut metrics, mut logs) = (metrics(), logs());
            let (of_metrics, of_logs) = (at.index(metrics.len()), at.index(logs.len()));
            metrics[of_metrics] = byte;
            let decoded = ExportMetricsServiceRequest::decode(metrics.as_slice()).is_ok();
            prop_assert_eq!(check(Shape::MetricsRequest, &metrics).is_ok(), decoded, "metrics at {}", of_metrics);
            logs[of_logs] = byte;
            let decoded = ExportLogsServiceRequest::decode(logs.as_slice()).is_ok();
            prop_assert_eq!(check(Shape::LogsRequest, &logs).is_ok(), decoded, "logs at {}", of_logs);
        }
    }
}
