//! Log records as logs, in the shape of the OpenTelemetry Collector's `alibabacloudlogserviceexporter`
//! (`logsdata_to_logservice.go`). A record without a body, which that one drops, is delivered; and a
//! name of an event, for which that one has no place, is `eventName`.

use super::{
    encode::{ItemLogs, Pack, PackLimits},
    json::{self, Text},
    time::ServiceTime,
    traces::{SharedFields, hex_id, pack_leaves},
};
use crate::otlp::{
    walk::{Leaf, Place, all, fields_of, is_whole, lossy},
    wire::Value,
};

/// Packs records from a place on, as many as `limits` allow; gives the place behind them.
pub(super) fn pack(request: &[u8], from: Place, limits: &PackLimits, now: ServiceTime) -> (Pack, Place) {
    pack_leaves(request, from, limits, &|item, leaf, around| write_record(item, leaf, around, limits, now))
}

/// The fields of a record that stand for themselves.
#[derive(Default)]
struct RecordFields<'a> {
    time: u64,
    observed: u64,
    severity: i32,
    severity_text: &'a [u8],
    body: &'a [u8],
    flags: u32,
    trace_id: &'a [u8],
    span_id: &'a [u8],
    event_name: &'a [u8],
}

impl<'a> RecordFields<'a> {
    fn read(record: &'a [u8]) -> RecordFields<'a> {
        let mut plain = RecordFields::default();
        for field in fields_of(record) {
            match (field.number, field.value) {
                (1, Value::Fixed64(nanos)) => plain.time = nanos,
                (2, Value::Varint(number)) => plain.severity = number as i32,
                (3, Value::Bytes(text)) => plain.severity_text = text,
                (5, Value::Bytes(any)) => plain.body = any,
                (8, Value::Fixed32(flags)) => plain.flags = flags,
                (9, Value::Bytes(id)) => plain.trace_id = id,
                (10, Value::Bytes(id)) => plain.span_id = id,
                (11, Value::Fixed64(nanos)) => plain.observed = nanos,
                (12, Value::Bytes(name)) => plain.event_name = name,
                _ => {}
            }
        }
        plain
    }
}

fn write_record(
    item: &mut ItemLogs<'_>,
    leaf: &Leaf<'_>,
    around: &SharedFields<'_>,
    limits: &PackLimits,
    now: ServiceTime,
) -> Option<()> {
    if !is_whole(leaf.bytes) {
        return None;
    }
    let record = RecordFields::read(leaf.bytes);
    let limit = limits.text(leaf.bytes.len());
    let ([scope_name, scope_version], resource) = (around.scope, around.resource);
    let (mut attribute, mut content) = (Text::new(limit), Text::new(limit));
    json::write_text_object(&mut attribute, all(leaf.bytes, 6));
    json::write_as_text(&mut content, record.body);
    let event_name = lossy(record.event_name);
    let contents = [
        ("host", resource.host.as_str()),
        ("service", &resource.service),
        ("resource", &resource.rest),
        ("otlp.name", scope_name),
        ("otlp.version", scope_version),
        ("timeUnixNano", &record.time.to_string()),
        ("severityNumber", &record.severity.to_string()),
        ("severityText", &lossy(record.severity_text)),
        ("attribute", &attribute.finish()?),
        ("content", &content.finish()?),
        ("flags", &format!("{:x}", record.flags)),
        ("traceID", &hex_id(record.trace_id)),
        ("spanID", &hex_id(record.span_id)),
        ("eventName", &event_name),
    ];
    let contents = if event_name.is_empty() { &contents[..contents.len() - 1] } else { &contents[..] };
    let time = if record.time == 0 { record.observed } else { record.time };
    item.log(now.log_time(time), contents.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deliver::sink::sls::encode::tests::read;
    use opentelemetry_proto::tonic::{
        collector::logs::v1::ExportLogsServiceRequest,
        common::v1::{AnyValue, KeyValue, any_value::Value},
        logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    };
    use prost::Message;

    const NOW: ServiceTime = ServiceTime(1_795_428_000_123_456_789);

    #[test]
    fn one_log_a_record_with_all_fields_in_order() {
        let value = |value| Some(AnyValue { value: Some(value) });
        let attribute = KeyValue { key: "n".into(), value: value(Value::IntValue(1)), ..Default::default() };
        let full = LogRecord {
            time_unix_nano: NOW.0 - 1_000_000_000,
            severity_number: 9,
            severity_text: "INFO".into(),
            body: value(Value::StringValue("hello".into())),
            attributes: vec![attribute],
            flags: 0x1ff,
            trace_id: vec![1; 16],
            span_id: vec![2; 8],
            ..Default::default()
        };
        let bare = LogRecord { observed_time_unix_nano: NOW.0 - 5_000_000_000, ..Default::default() };
        let event = LogRecord { event_name: "device.app.lifecycle".into(), ..Default::default() };
        let scope_logs = vec![ScopeLogs { log_records: vec![full, bare, event], ..Default::default() }];
        let request =
            ExportLogsServiceRequest { resource_logs: vec![ResourceLogs { scope_logs, ..Default::default() }] };

        let body = request.encode_to_vec();
        let (packed, end) = pack(&body, Place::default(), &PackLimits::default(), NOW);
        let group = read(packed);
        let contents: Vec<_> =
            group.logs[0].contents.iter().map(|pair| (pair.key.as_str(), pair.value.as_str())).collect();
        let (trace, span) = ("01".repeat(16), "02".repeat(8));
        let want = [
            ("host", ""),
            ("service", ""),
            ("resource", "{}"),
            ("otlp.name", ""),
            ("otlp.version", ""),
            ("timeUnixNano", "1795427999123456789"),
            ("severityNumber", "9"),
            ("severityText", "INFO"),
            ("attribute", r#"{"n":"1"}"#),
            ("content", "hello"),
            ("flags", "1ff"),
            ("traceID", trace.as_str()),
            ("spanID", span.as_str()),
        ];
        assert_eq!(contents, want);
        assert_eq!(group.logs[0].time, 1_795_427_999);
        assert_eq!((group.logs[1].time, group.logs[1].contents[9].value.as_str()), (1_795_427_995, ""));
        let last = group.logs[2].contents.last().unwrap();
        assert_eq!((last.key.as_str(), last.value.as_str()), ("eventName", "device.app.lifecycle"));
        assert_eq!(pack(&body, end, &PackLimits::default(), NOW).0.items(), 0);
    }
}
