//! Counts what metrics and logs requests hold; they pass untouched.
//! Source: opentelemetry-proto, `metrics/v1` and `logs/v1`.

use super::wire::{Malformed, Reader};
use crate::trace::{Signal, Slice};

/// The fields that lead from a request to its items, level by level. The last level is counted.
fn path(signal: Signal) -> &'static [&'static [u32]] {
    match signal {
        // Request, resource, scope.
        Signal::Traces | Signal::Logs => &[&[1], &[2], &[2]],
        // Request, resource, scope, metric; a metric's data (gauge, sum, histograms, summary); its points.
        Signal::Metrics => &[&[1], &[2], &[2], &[5, 7, 9, 10, 11], &[1]],
    }
}

/// Spans, data points or log records of a request.
///
/// # Errors
/// When a message on the way is malformed.
pub fn count(signal: Signal, body: &[u8]) -> Result<u64, Malformed> {
    count_level(body, Slice { start: 0, len: body.len() as u32 }, path(signal))
}

fn count_level(body: &[u8], message: Slice, path: &[&[u32]]) -> Result<u64, Malformed> {
    let (level, deeper) = path.split_first().expect("a path has levels");
    let mut fields = Reader::new(body, message);
    let mut items = 0;
    while let Some(field) = fields.next()? {
        if level.contains(&field.number) {
            let inner = field.value.bytes()?;
            items += if deeper.is_empty() { 1 } else { count_level(body, inner, deeper)? };
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
