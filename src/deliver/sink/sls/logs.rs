//! Log records as logs, in the shape of the OpenTelemetry Collector's `alibabacloudlogserviceexporter`
//! (`logsdata_to_logservice.go`). A record without a body, which that one drops, is delivered.

use super::{
    encode::{Limits, Pack, Room},
    json,
    time::Now,
    traces::{Origin, hex_id},
};
use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest, common::v1::InstrumentationScope, logs::v1::LogRecord,
};

/// Packs records after the first `done`, as many as `limits` allow.
pub(super) fn pack(request: &ExportLogsServiceRequest, done: usize, limits: &Limits, now: Now) -> Pack {
    let mut pack = Pack::default();
    let mut skip = done;
    for resource in &request.resource_logs {
        let mut origin = None;
        for scope in &resource.scope_logs {
            for record in &scope.log_records {
                if skip > 0 {
                    skip -= 1;
                    continue;
                }
                let origin = origin.get_or_insert_with(|| Origin::new(resource.resource.as_ref()));
                let room = pack.item(limits, |pack| write_record(pack, record, origin, scope.scope.as_ref(), now));
                if room == Room::Full {
                    return pack;
                }
            }
        }
    }
    pack
}

fn write_record(pack: &mut Pack, record: &LogRecord, origin: &Origin, scope: Option<&InstrumentationScope>, now: Now) {
    let (scope_name, scope_version) = scope.map_or(("", ""), |scope| (&scope.name, &scope.version));
    let mut attribute = String::new();
    json::write_text_object(&mut attribute, &record.attributes);
    let contents = [
        ("host", origin.host.as_str()),
        ("service", &origin.service),
        ("resource", &origin.rest),
        ("otlp.name", scope_name),
        ("otlp.version", scope_version),
        ("timeUnixNano", &record.time_unix_nano.to_string()),
        ("severityNumber", &record.severity_number.to_string()),
        ("severityText", &record.severity_text),
        ("attribute", &attribute),
        ("content", &json::as_text(record.body.as_ref().and_then(|body| body.value.as_ref()))),
        ("flags", &format!("{:x}", record.flags)),
        ("traceID", &hex_id(&record.trace_id)),
        ("spanID", &hex_id(&record.span_id)),
    ];
    let time = match record.time_unix_nano {
        0 => record.observed_time_unix_nano,
        given => given,
    };
    pack.log(now.log_time(time), contents.into_iter());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deliver::sink::sls::encode::tests::read;
    use opentelemetry_proto::tonic::{
        common::v1::{AnyValue, KeyValue, any_value::Value},
        logs::v1::{ResourceLogs, ScopeLogs},
    };

    const NOW: Now = Now(1_795_428_000_123_456_789);

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
        let scope_logs = vec![ScopeLogs { log_records: vec![full, bare], ..Default::default() }];
        let request =
            ExportLogsServiceRequest { resource_logs: vec![ResourceLogs { scope_logs, ..Default::default() }] };

        let group = read(pack(&request, 0, &Limits::default(), NOW));
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
        assert_eq!(pack(&request, 2, &Limits::default(), NOW).items(), 0);
    }
}
