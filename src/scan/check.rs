//! What receivers of OTLP demand of the inside of a message. One string that is not UTF-8, or one value
//! that nests too deep, costs a whole batch there, and batches hold what many clients sent. So the structure
//! of everything is checked when it comes, and texts are when it leaves: they can be repaired.

mod shape;

pub use shape::{FieldKind, MessageType};

use super::wire::{Field, Malformed, Reader, Value, read_key_value};
use crate::otlp::wire;
use crate::trace::Slice;

/// Why no receiver would take a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// It is not protobuf, or a field has the wrong wire type.
    Malformed,
    /// Beyond [`DEPTH_MAX`](crate::otlp::DEPTH_MAX).
    TooDeep,
}

impl From<Malformed> for Fault {
    fn from(_: Malformed) -> Fault {
        Fault::Malformed
    }
}

/// Whether every text in `message`, which stands in its usual place in a request, is UTF-8.
///
/// # Errors
/// The first fault of its structure.
pub fn check(shape: MessageType, message: &[u8]) -> Result<bool, Fault> {
    walk::<true>(shape, message, Slice { start: 0, len: message.len() as u32 }, shape.depth())
}

/// Checks the structure of one field of a message of this shape, below which messages may nest `depth` deep.
#[inline]
pub(super) fn check_field(shape: MessageType, body: &[u8], field: Field, depth: usize) -> Result<(), Fault> {
    check_known::<false>(shape.field(field.number), body, field.value, depth).map(drop)
}

/// Checks the structure of a message; it is the first of `depth` levels.
pub(super) fn check_message(shape: MessageType, body: &[u8], message: Slice, depth: usize) -> Result<(), Fault> {
    walk::<false>(shape, body, message, depth).map(drop)
}

/// Reads a `KeyValue`, the key and the value if it has one, and checks its structure.
#[inline]
pub(super) fn read_attribute(body: &[u8], message: Slice, depth: usize) -> Result<(Slice, Option<Slice>), Fault> {
    match plain_attribute(body, message) {
        Some((key, value)) => Ok((key, Some(value))),
        None => read_any_attribute(body, message, depth),
    }
}

#[cold]
fn read_any_attribute(body: &[u8], message: Slice, depth: usize) -> Result<(Slice, Option<Slice>), Fault> {
    check_message(MessageType::KeyValue, body, message, depth)?;
    Ok(read_key_value(body, message)?)
}

/// As nearly all are: a short key, then a short value of one text or number and nothing else. One look at such
/// a one is enough; any other is walked.
#[inline(always)]
fn plain_attribute(body: &[u8], message: Slice) -> Option<(Slice, Slice)> {
    let &[0x0a, key_len @ ..0x80, ref rest @ ..] = message.of(body) else { return None };
    let &[0x12, value_len @ ..0x80, ref value @ ..] = rest.get(usize::from(key_len)..)? else { return None };
    let is_text = value.first_chunk() == Some(&[0x0a, value_len.wrapping_sub(2)]);
    if value.len() != usize::from(value_len) || !is_text && !is_plain_number(value) {
        return None;
    }
    let key = Slice { start: message.start + 2, len: u32::from(key_len) };
    Some((key, Slice { start: key.start + key.len + 2, len: u32::from(value_len) }))
}

/// An `AnyValue` of a bool, a small whole number or a double.
#[inline]
fn is_plain_number(value: &[u8]) -> bool {
    match value {
        [0x10 | 0x18, last] => *last < 0x80,
        [0x18, first, last] => *first >= 0x80 && *last < 0x80,
        [0x21, double @ ..] => double.len() == 8,
        _ => false,
    }
}

/// With `TEXTS` it says whether every text is UTF-8, else it looks at none.
fn walk<const TEXTS: bool>(shape: MessageType, body: &[u8], message: Slice, depth: usize) -> Result<bool, Fault> {
    let depth = depth.checked_sub(1).ok_or(Fault::TooDeep)?;
    let mut fields = Reader::new(body, message);
    let mut is_clean = true;
    while let Some(field) = fields.next()? {
        is_clean &= check_known::<TEXTS>(shape.field(field.number), body, field.value, depth)?;
    }
    Ok(is_clean)
}

fn check_known<const TEXTS: bool>(
    kind: Option<FieldKind>,
    body: &[u8],
    value: Value,
    depth: usize,
) -> Result<bool, Fault> {
    let Some(kind) = kind else { return check_unknown(value, depth).map(|()| true) };
    match (kind, value) {
        (FieldKind::Text, Value::Bytes(text)) if TEXTS => return Ok(simdutf8::basic::from_utf8(text.of(body)).is_ok()),
        (FieldKind::Message(MessageType::KeyValue), Value::Bytes(message))
            if !TEXTS && depth > 1 && plain_attribute(body, message).is_some() => {}
        (FieldKind::Message(inner), Value::Bytes(message)) => return walk::<TEXTS>(inner, body, message, depth),
        (FieldKind::Text | FieldKind::Bytes, Value::Bytes(_))
        | (FieldKind::Varint | FieldKind::Varints, Value::Varint(_))
        | (FieldKind::Fixed32, Value::Fixed32(_))
        | (FieldKind::Fixed64 | FieldKind::Fixed64s, Value::Fixed64(_)) => {}
        (FieldKind::Fixed64s, Value::Bytes(packed)) if packed.len % 8 == 0 => {}
        (FieldKind::Varints, Value::Bytes(packed)) => {
            wire::packed(packed.of(body), true).try_for_each(|varint| varint.map(drop)).ok_or(Malformed)?
        }
        _ => return Err(Fault::Malformed),
    }
    Ok(true)
}

/// A field that this version of OTLP does not know takes a level, and a group one more for each group in it.
#[inline]
pub(super) fn check_unknown(value: Value, depth: usize) -> Result<(), Fault> {
    let levels = if let Value::Group(levels) = value { levels } else { 0 };
    if levels < depth { Ok(()) } else { Err(Fault::TooDeep) }
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
        assert_eq!(check(MessageType::MetricsRequest, &metrics()), Ok(true));
        assert_eq!(check(MessageType::LogsRequest, &logs()), Ok(true));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]
        #[test]
        fn requests_with_a_damaged_byte_are_judged_as_prost_does(at in any::<prop::sample::Index>(), byte: u8) {
            let (mut metrics, mut logs) = (metrics(), logs());
            let (of_metrics, of_logs) = (at.index(metrics.len()), at.index(logs.len()));
            metrics[of_metrics] = byte;
            let decoded = ExportMetricsServiceRequest::decode(metrics.as_slice()).is_ok();
            prop_assert_eq!(check(MessageType::MetricsRequest, &metrics) == Ok(true), decoded, "metrics at {}", of_metrics);
            logs[of_logs] = byte;
            let decoded = ExportLogsServiceRequest::decode(logs.as_slice()).is_ok();
            prop_assert_eq!(check(MessageType::LogsRequest, &logs) == Ok(true), decoded, "logs at {}", of_logs);
        }
    }
}
