//! Counts the spans, data points or log records of a request.

use super::check::{FieldKind, MessageType};
use super::wire::{Malformed, Reader};
use crate::trace::{Signal, Slice};

/// Spans, data points or log records of a request.
///
/// # Errors
/// When a message that leads to them is malformed. A malformed metric is not: it counts as one point.
pub fn count(signal: Signal, body: &[u8]) -> Result<u64, Malformed> {
    count_in(MessageType::request(signal), body, Slice { start: 0, len: body.len() as u32 })
}

/// The same of a message in a request.
pub(super) fn count_in(shape: MessageType, body: &[u8], message: Slice) -> Result<u64, Malformed> {
    if shape.is_item() {
        return Ok(1);
    }
    let mut fields = Reader::new(body, message);
    let mut items = 0;
    while let Some(field) = fields.next()? {
        if let Some(FieldKind::Message(inner)) = shape.field(field.number).filter(FieldKind::holds_items) {
            let counted = field.value.bytes().and_then(|message| count_in(inner, body, message));
            items += if inner == MessageType::Metric { counted.unwrap_or(1) } else { counted? };
        }
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
    use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
    use opentelemetry_proto::tonic::metrics::v1::{
        Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric::Data,
    };
    use prost::Message;

    #[test]
    fn data_points_and_log_records_are_counted() {
        let points = |n| vec![NumberDataPoint::default(); n];
        let metric = |data| Metric { name: "m".into(), data: Some(data), ..Default::default() };
        let metrics = vec![
            metric(Data::Gauge(Gauge { data_points: points(2) })),
            metric(Data::Sum(Sum { data_points: points(3), ..Default::default() })),
        ];
        let scope_metrics = vec![ScopeMetrics { metrics, ..Default::default() }];
        let request = ExportMetricsServiceRequest {
            resource_metrics: vec![ResourceMetrics { scope_metrics, ..Default::default() }],
        };
        assert_eq!(count(Signal::Metrics, &request.encode_to_vec()), Ok(5));
        let scope_logs = vec![ScopeLogs { log_records: vec![LogRecord::default(); 4], ..Default::default() }];
        let logs =
            ExportLogsServiceRequest { resource_logs: vec![ResourceLogs { scope_logs, ..Default::default() }; 2] };
        assert_eq!(count(Signal::Logs, &logs.encode_to_vec()), Ok(8));
        assert_eq!(count(Signal::Logs, &[0x0a, 0x05]), Err(Malformed));
    }
}
