//! Spans as logs, in the shape of the OpenTelemetry Collector's `alibabacloudlogserviceexporter`
//! (`tracedata_to_logservice.go`), which Log Service's trace views read.

use super::{
    TimeUnit,
    encode::{Limits, Pack, Room},
    json,
    time::Now,
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{InstrumentationScope, KeyValue},
    resource::v1::Resource,
    trace::v1::{Span, span, status::StatusCode},
};
use std::fmt::Write;

/// Packs spans after the first `done`, as many as `limits` allow.
pub(super) fn pack(
    request: &ExportTraceServiceRequest,
    done: usize,
    limits: &Limits,
    now: Now,
    unit: TimeUnit,
) -> Pack {
    let mut pack = Pack::default();
    let mut skip = done;
    for resource in &request.resource_spans {
        // Made when the first span needs it: a retry skips whole resources.
        let mut origin = None;
        for scope in &resource.scope_spans {
            for span in scope.spans.iter() {
                if skip > 0 {
                    skip -= 1;
                    continue;
                }
                let origin = origin.get_or_insert_with(|| Origin::new(resource.resource.as_ref()));
                let room = pack.item(limits, |pack| write_span(pack, span, origin, scope.scope.as_ref(), now, unit));
                if room == Room::Full {
                    return pack;
                }
            }
        }
    }
    pack
}

/// What all logs of one resource share.
pub(super) struct Origin {
    pub(super) host: String,
    pub(super) service: String,
    /// JSON of the other attributes.
    pub(super) rest: String,
}

impl Origin {
    pub(super) fn new(resource: Option<&Resource>) -> Origin {
        let attributes = resource.map_or(&[][..], |resource| &resource.attributes);
        // Of equal keys the first counts here, as in the exporter.
        let text = |key| {
            let found = attributes.iter().find(|attribute| attribute.key == key);
            found.map_or(String::new(), |attribute| json::as_text(json::value_of(attribute)))
        };
        let mut rest = String::new();
        let is_other = |attribute: &&KeyValue| attribute.key != "service.name" && attribute.key != "host.name";
        json::write_text_object(&mut rest, attributes.iter().filter(is_other));
        Origin { host: text("host.name"), service: text("service.name"), rest }
    }
}

fn write_span(
    pack: &mut Pack,
    span: &Span,
    origin: &Origin,
    scope: Option<&InstrumentationScope>,
    now: Now,
    unit: TimeUnit,
) {
    let (scope_name, scope_version) = scope.map_or(("", ""), |scope| (&scope.name, &scope.version));
    let in_unit = |nanos: u64| (nanos / unit.nanos()).to_string();
    let duration = in_unit(span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano));
    let mut attribute = String::new();
    json::write_object(&mut attribute, &span.attributes);
    let status = span.status.as_ref();
    let status_code = match status.map(|status| status.code()) {
        Some(StatusCode::Error) => "ERROR",
        Some(StatusCode::Ok) => "OK",
        _ => "UNSET",
    };
    let contents = [
        ("host", origin.host.as_str()),
        ("service", &origin.service),
        ("resource", &origin.rest),
        ("otlp.name", scope_name),
        ("otlp.version", scope_version),
        ("traceID", &hex_id(&span.trace_id)),
        ("spanID", &hex_id(&span.span_id)),
        ("parentSpanID", &hex_id(&span.parent_span_id)),
        ("kind", kind(span)),
        ("name", &span.name),
        ("links", &links(&span.links)),
        ("logs", &events(&span.events)),
        ("traceState", &span.trace_state),
        ("start", &in_unit(span.start_time_unix_nano)),
        ("end", &in_unit(span.end_time_unix_nano)),
        ("duration", &duration),
        ("attribute", &attribute),
        ("statusCode", status_code),
        ("statusMessage", status.map_or("", |status| &status.message)),
    ];
    pack.log(now.log_time(span.end_time_unix_nano), contents.into_iter());
}

fn kind(span: &Span) -> &'static str {
    match span.kind() {
        span::SpanKind::Unspecified => "",
        span::SpanKind::Internal => "internal",
        span::SpanKind::Server => "server",
        span::SpanKind::Client => "client",
        span::SpanKind::Producer => "producer",
        span::SpanKind::Consumer => "consumer",
    }
}

fn links(links: &[span::Link]) -> String {
    array(links, |out, link| {
        out.push_str("{\"attribute\":");
        json::write_object(out, &link.attributes);
        let _ = write!(out, r#","spanID":"{}","traceID":"{}"}}"#, hex_id(&link.span_id), hex_id(&link.trace_id));
    })
}

fn events(events: &[span::Event]) -> String {
    array(events, |out, event| {
        out.push_str("{\"attribute\":");
        json::write_object(out, &event.attributes);
        out.push_str(",\"name\":");
        json::write_string(out, &event.name);
        let _ = write!(out, ",\"time\":{}}}", event.time_unix_nano);
    })
}

fn array<T>(items: &[T], write: impl Fn(&mut String, &T)) -> String {
    let mut out = String::from("[");
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write(&mut out, item);
    }
    out.push(']');
    out
}

/// Lowercase hexadecimal; nothing for an id that is absent or all zero.
pub(super) fn hex_id(id: &[u8]) -> String {
    if id.iter().all(|&byte| byte == 0) { String::new() } else { super::sign::hex(id) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deliver::sink::sls::encode::tests::{LogGroup, read};
    use opentelemetry_proto::tonic::{
        common::v1::{AnyValue, any_value::Value},
        trace::v1::{ResourceSpans, ScopeSpans, Status},
    };

    const NOW: Now = Now(1_795_428_000_123_456_789);

    fn text(key: &str, value: &str) -> KeyValue {
        let value = Some(AnyValue { value: Some(Value::StringValue(value.into())) });
        KeyValue { key: key.into(), value, ..Default::default() }
    }

    fn number(key: &str, value: i64) -> KeyValue {
        let value = Some(AnyValue { value: Some(Value::IntValue(value)) });
        KeyValue { key: key.into(), value, ..Default::default() }
    }

    fn request(spans: Vec<Span>) -> ExportTraceServiceRequest {
        let attributes = vec![text("host.name", "node-1"), number("process.pid", 42), text("service.name", "checkout")];
        let resource = Some(Resource { attributes, ..Default::default() });
        let scope = Some(InstrumentationScope { name: "http".into(), version: "1.2".into(), ..Default::default() });
        let scope_spans = vec![ScopeSpans { scope, spans, ..Default::default() }];
        ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans { resource, scope_spans, ..Default::default() }],
        }
    }

    fn full_span() -> Span {
        Span {
            trace_id: (1..=16).collect(),
            span_id: vec![0xab; 8],
            trace_state: "ot=th:8".into(),
            name: "GET /".into(),
            kind: 2,
            start_time_unix_nano: NOW.0 - 1_500_999,
            end_time_unix_nano: NOW.0,
            attributes: vec![number("http.response.status_code", 500)],
            events: vec![span::Event {
                time_unix_nano: 1_795_431_193_123_456_789,
                name: "exception".into(),
                attributes: vec![text("exception.type", "Oops")],
                ..Default::default()
            }],
            links: vec![span::Link { trace_id: vec![2; 16], span_id: vec![3; 8], ..Default::default() }],
            status: Some(Status { message: "boom".into(), code: 2 }),
            ..Default::default()
        }
    }

    fn converted(spans: Vec<Span>) -> LogGroup {
        read(pack(&request(spans), 0, &Limits::default(), NOW, TimeUnit::Microseconds))
    }

    #[test]
    fn one_log_a_span_with_all_fields_in_order() {
        let group = converted(vec![full_span()]);
        let log = &group.logs[0];
        assert_eq!((log.time, log.time_ns), (1_795_428_000, Some(123_456_789)));
        let contents: Vec<_> = log.contents.iter().map(|pair| (pair.key.as_str(), pair.value.as_str())).collect();
        let link = format!(r#"[{{"attribute":{{}},"spanID":"{}","traceID":"{}"}}]"#, "03".repeat(8), "02".repeat(16));
        let want = [
            ("host", "node-1"),
            ("service", "checkout"),
            ("resource", r#"{"process.pid":"42"}"#),
            ("otlp.name", "http"),
            ("otlp.version", "1.2"),
            ("traceID", "0102030405060708090a0b0c0d0e0f10"),
            ("spanID", "abababababababab"),
            ("parentSpanID", ""),
            ("kind", "server"),
            ("name", "GET /"),
            ("links", link.as_str()),
            ("logs", r#"[{"attribute":{"exception.type":"Oops"},"name":"exception","time":1795431193123456789}]"#),
            ("traceState", "ot=th:8"),
            ("start", "1795428000121955"),
            ("end", "1795428000123456"),
            ("duration", "1500"),
            ("attribute", r#"{"http.response.status_code":500}"#),
            ("statusCode", "ERROR"),
            ("statusMessage", "boom"),
        ];
        assert_eq!(contents, want);
    }

    #[test]
    fn an_empty_span_is_a_log_of_now() {
        let group = converted(vec![Span { parent_span_id: vec![0; 8], ..Default::default() }]);
        let log = &group.logs[0];
        assert_eq!(log.time, 1_795_428_000);
        let value = |key: &str| log.contents.iter().find(|pair| pair.key == key).unwrap().value.as_str();
        for key in ["traceID", "parentSpanID", "kind", "statusMessage", "traceState"] {
            assert_eq!(value(key), "", "{key}");
        }
        assert_eq!((value("links"), value("logs"), value("attribute")), ("[]", "[]", "{}"));
        assert_eq!((value("start"), value("duration"), value("statusCode")), ("0", "0", "UNSET"));
    }

    #[test]
    fn a_clock_that_ran_backwards_gives_no_duration() {
        let span = Span { start_time_unix_nano: NOW.0, end_time_unix_nano: NOW.0 - 1, ..Default::default() };
        let group = converted(vec![span]);
        assert_eq!(group.logs[0].contents[15].value, "0");
    }

    #[test]
    fn the_time_unit_is_a_choice() {
        let request = request(vec![full_span()]);
        let group = read(pack(&request, 0, &Limits::default(), NOW, TimeUnit::Nanoseconds));
        assert_eq!(group.logs[0].contents[14].value, "1795428000123456789");
        assert_eq!(group.logs[0].contents[15].value, "1500999");
    }

    #[test]
    fn packs_cover_every_span_once() {
        let spans = (0..10).map(|n| Span { name: format!("s{n}"), ..Default::default() }).collect();
        let request = request(spans);
        let limits = Limits { logs: 3, ..Default::default() };
        let mut names = Vec::new();
        let mut done = 0;
        loop {
            let pack = pack(&request, done, &limits, NOW, TimeUnit::Microseconds);
            if pack.items() == 0 {
                break;
            }
            done += pack.items();
            names.extend(read(pack).logs.iter().map(|log| log.contents[9].value.clone()));
        }
        assert_eq!(names, (0..10).map(|n| format!("s{n}")).collect::<Vec<_>>());
    }
}
