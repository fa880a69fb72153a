//! Spans as logs, in the shape of the OpenTelemetry Collector's `alibabacloudlogserviceexporter`
//! (`tracedata_to_logservice.go`), which Log Service's trace views read.

use super::{
    TimeUnit,
    encode::{ItemLogs, Pack, PackLimits, PackRoom},
    json::{self, Text},
    time::ServiceTime,
};
use crate::{
    otlp::{
        attributes::put_attribute,
        walk::{Leaf, Place, ReadOnce, all, fields_of, is_whole, last, leaves, lossy},
        wire::Value,
    },
    trace::{SpanKind, Status, label::shortened},
};
use std::fmt::Write;

/// Packs spans from a place on, as many as `limits` allow; gives the place behind them.
pub(super) fn pack(
    request: &[u8],
    from: Place,
    limits: &PackLimits,
    now: ServiceTime,
    unit: TimeUnit,
) -> (Pack, Place) {
    pack_leaves(request, from, limits, &|item, leaf, around| write_span(item, leaf, around, limits, now, unit))
}

/// What logs of one resource, and of one scope, share.
pub(super) struct SharedFields<'a> {
    pub(super) resource: &'a ResourceFields,
    /// Name and version, cut where they are long.
    pub(super) scope: &'a [String; 2],
}

/// Writes a leaf; none if it has no form in Log Service.
pub(super) type WriteLeaf<'a> = dyn Fn(&mut ItemLogs<'_>, &Leaf<'_>, &SharedFields<'_>) -> Option<()> + 'a;

pub(super) fn pack_leaves(request: &[u8], from: Place, limits: &PackLimits, write: &WriteLeaf<'_>) -> (Pack, Place) {
    let (mut pack, mut next) = (Pack::default(), from);
    let (mut resources, mut scopes) = (ReadOnce::default(), ReadOnce::default());
    for leaf in leaves(request, from) {
        let resource = resources.of(leaf.resource, |group| ResourceFields::new(group, limits));
        let scope = scopes.of(leaf.scope, scope_names);
        let around = resource.as_ref().map(|resource| SharedFields { resource, scope });
        let before = pack.items();
        let room = pack.item(limits, |item| write(item, &leaf, around.as_ref()?));
        if pack.items() > before {
            next = leaf.after;
        }
        if room == PackRoom::Full {
            break;
        }
    }
    (pack, next)
}

/// Bytes of attributes of a resource that each of its logs repeats, as they are written there.
const REPEATED_MAX: usize = 64 << 10;
/// Says how many attributes are beyond that.
const LEFT_OUT: &str = "tailkeep.left_out";

/// What all logs of one resource share.
pub(super) struct ResourceFields {
    pub(super) host: String,
    pub(super) service: String,
    /// JSON of the other attributes.
    pub(super) rest: String,
}

impl ResourceFields {
    /// Of a `ResourceSpans` or its like. None if it is too much text.
    pub(super) fn new(group: &[u8], limits: &PackLimits) -> Option<ResourceFields> {
        let attributes = || all(group, 1).flat_map(|resource| all(resource, 1));
        let limit = limits.text(group.len());
        // Of equal keys the first counts here, as in the exporter.
        let text = |key: &[u8]| {
            let mut text = Text::new(limit);
            if let Some(attribute) = attributes().find(|attribute| json::pair(attribute).0 == key) {
                json::write_as_text(&mut text, json::pair(attribute).1);
            }
            text.finish().map(|text| shortened(text.into()).into_owned())
        };
        let is_other = |attribute: &&[u8]| !matches!(json::pair(attribute).0, b"service.name" | b"host.name");
        let (repeated, note) = repeated(attributes().filter(is_other));
        let mut rest = Text::new(limit);
        json::write_text_object(&mut rest, repeated.into_iter().chain(note.as_deref()));
        Some(ResourceFields { host: text(b"host.name")?, service: text(b"service.name")?, rest: rest.finish()? })
    }
}

/// The attributes that there is room for, and one that says how many others there are.
fn repeated<'a>(attributes: impl Iterator<Item = &'a [u8]>) -> (Vec<&'a [u8]>, Option<Vec<u8>>) {
    let (mut room, mut left_out) = (REPEATED_MAX, 0u64);
    let mut repeated = Vec::new();
    for attribute in attributes {
        match room_after(room, attribute) {
            Some(rest) => {
                room = rest;
                repeated.push(attribute);
            }
            None => left_out += 1,
        }
    }
    let mut note = Vec::new();
    put_attribute(&mut note, 1, LEFT_OUT, &left_out.to_string());
    (repeated, (left_out > 0).then(|| last(&note, 1).unwrap_or_default().to_vec()))
}

/// What is left of `room` beside an attribute, which may be longer in memory or as it is written: one byte can become
/// seven.
fn room_after(room: usize, attribute: &[u8]) -> Option<usize> {
    let beside_it = room.checked_sub(attribute.len() + size_of::<&[u8]>())?;
    let mut text = Text::new(room);
    json::write_text_object(&mut text, std::iter::once(attribute));
    Some(beside_it.min(room - text.finish()?.len()))
}

/// Name and version of a scope, of a `ScopeSpans` or its like.
fn scope_names(group: &[u8]) -> [String; 2] {
    [1, 2].map(|number| {
        let last = all(group, 1).flat_map(|scope| all(scope, number)).last();
        shortened(lossy(last.unwrap_or_default())).into_owned()
    })
}

/// The fields of a span that stand for themselves.
#[derive(Default)]
struct LogSpanFields<'a> {
    trace_id: &'a [u8],
    span_id: &'a [u8],
    parent_span_id: &'a [u8],
    trace_state: &'a [u8],
    name: &'a [u8],
    kind: u64,
    start: u64,
    end: u64,
    status: u64,
    status_message: &'a [u8],
}

impl<'a> LogSpanFields<'a> {
    fn read(span: &'a [u8]) -> LogSpanFields<'a> {
        let mut plain = LogSpanFields::default();
        for field in fields_of(span) {
            match (field.number, field.value) {
                (1, Value::Bytes(bytes)) => plain.trace_id = bytes,
                (2, Value::Bytes(bytes)) => plain.span_id = bytes,
                (3, Value::Bytes(bytes)) => plain.trace_state = bytes,
                (4, Value::Bytes(bytes)) => plain.parent_span_id = bytes,
                (5, Value::Bytes(bytes)) => plain.name = bytes,
                (6, Value::Varint(kind)) => plain.kind = kind,
                (7, Value::Fixed64(nanos)) => plain.start = nanos,
                (8, Value::Fixed64(nanos)) => plain.end = nanos,
                (15, Value::Bytes(status)) => plain.read_status(status),
                _ => {}
            }
        }
        plain
    }

    fn read_status(&mut self, status: &'a [u8]) {
        for field in fields_of(status) {
            match (field.number, field.value) {
                (2, Value::Bytes(message)) => self.status_message = message,
                (3, Value::Varint(code)) => self.status = code,
                _ => {}
            }
        }
    }
}

fn write_span(
    item: &mut ItemLogs<'_>,
    leaf: &Leaf<'_>,
    around: &SharedFields<'_>,
    limits: &PackLimits,
    now: ServiceTime,
    unit: TimeUnit,
) -> Option<()> {
    if !is_whole(leaf.bytes) {
        return None;
    }
    let span = LogSpanFields::read(leaf.bytes);
    let limit = limits.text(leaf.bytes.len());
    let ([scope_name, scope_version], resource) = (around.scope, around.resource);
    let in_unit = |nanos: u64| (nanos / unit.nanos()).to_string();
    let mut attribute = Text::new(limit);
    json::write_object(&mut attribute, all(leaf.bytes, 9));
    let contents = [
        ("host", resource.host.as_str()),
        ("service", &resource.service),
        ("resource", &resource.rest),
        ("otlp.name", scope_name),
        ("otlp.version", scope_version),
        ("traceID", &hex_id(span.trace_id)),
        ("spanID", &hex_id(span.span_id)),
        ("parentSpanID", &hex_id(span.parent_span_id)),
        ("kind", kind(span.kind)),
        ("name", &lossy(span.name)),
        ("links", &links(leaf.bytes, limit)?),
        ("logs", &events(leaf.bytes, limit)?),
        ("traceState", &lossy(span.trace_state)),
        ("start", &in_unit(span.start)),
        ("end", &in_unit(span.end)),
        ("duration", &in_unit(span.end.saturating_sub(span.start))),
        ("attribute", &attribute.finish()?),
        ("statusCode", status(span.status)),
        ("statusMessage", &lossy(span.status_message)),
    ];
    item.log(now.log_time(span.end), contents.into_iter())
}

fn status(code: u64) -> &'static str {
    match Status::from_wire(code) {
        Status::Error => "ERROR",
        Status::Ok => "OK",
        Status::Unset => "UNSET",
    }
}

fn kind(number: u64) -> &'static str {
    match SpanKind::from_wire(number) {
        SpanKind::Unspecified => "",
        kind => kind.word(),
    }
}

fn links(span: &[u8], limit: usize) -> Option<String> {
    array(all(span, 13), limit, |out, link| {
        out.push("{\"attribute\":");
        json::write_object(out, all(link, 4));
        let id = |number| hex_id(last(link, number).unwrap_or_default());
        let _ = write!(out, r#","spanID":"{}","traceID":"{}"}}"#, id(2), id(1));
    })
}

fn events(span: &[u8], limit: usize) -> Option<String> {
    array(all(span, 11), limit, |out, event| {
        out.push("{\"attribute\":");
        json::write_object(out, all(event, 3));
        out.push(",\"name\":");
        json::write_string(out, &lossy(last(event, 2).unwrap_or_default()));
        let time = fields_of(event).filter(|field| field.number == 1).last();
        let time = time.and_then(|field| if let Value::Fixed64(nanos) = field.value { Some(nanos) } else { None });
        let _ = write!(out, ",\"time\":{}}}", time.unwrap_or_default());
    })
}

/// Stops where it is too much: what comes later would be thrown away as well.
fn array<'a>(
    items: impl Iterator<Item = &'a [u8]>,
    limit: usize,
    write: impl Fn(&mut Text, &'a [u8]),
) -> Option<String> {
    let mut out = Text::new(limit);
    out.push("[");
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.push(",");
        }
        write(&mut out, item);
        if out.is_over() {
            break;
        }
    }
    out.push("]");
    out.finish()
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
        collector::trace::v1::ExportTraceServiceRequest,
        common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
        resource::v1::Resource,
        trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span},
    };
    use prost::Message;

    fn packed(request: &ExportTraceServiceRequest, limits: &PackLimits, unit: TimeUnit) -> Pack {
        pack(&request.encode_to_vec(), Place::default(), limits, NOW, unit).0
    }

    const NOW: ServiceTime = ServiceTime(1_795_428_000_123_456_789);

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
        read(packed(&request(spans), &PackLimits::default(), TimeUnit::Microseconds))
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
        let group = read(packed(&request, &PackLimits::default(), TimeUnit::Nanoseconds));
        assert_eq!(group.logs[0].contents[14].value, "1795428000123456789");
        assert_eq!(group.logs[0].contents[15].value, "1500999");
    }

    #[test]
    fn packs_cover_every_span_once() {
        let spans = (0..10).map(|n| Span { name: format!("s{n}"), ..Default::default() }).collect();
        let request = request(spans).encode_to_vec();
        let limits = PackLimits { logs: 3, ..Default::default() };
        let mut names = Vec::new();
        let mut place = Place::default();
        loop {
            let (pack, next) = pack(&request, place, &limits, NOW, TimeUnit::Microseconds);
            if pack.items() == 0 {
                break;
            }
            place = next;
            names.extend(read(pack).logs.iter().map(|log| log.contents[9].value.clone()));
        }
        assert_eq!(names, (0..10).map(|n| format!("s{n}")).collect::<Vec<_>>());
    }

    /// Two bytes of a link are forty of text, and a hundred as a struct.
    #[test]
    fn a_span_that_is_all_links_is_refused_before_it_is_written() {
        let spans = vec![full_span(), Span { name: "last".into(), ..Default::default() }];
        let mut bytes = request(spans.clone()).resource_spans[0].scope_spans[0].spans[0].encode_to_vec();
        bytes.extend([0x6a, 0x00].repeat(200_000));
        let mut scope = Vec::new();
        for span in [&bytes, &spans[1].encode_to_vec()] {
            crate::otlp::wire::put_bytes(&mut scope, 2, span);
        }
        let (mut resource, mut body) = (Vec::new(), Vec::new());
        crate::otlp::wire::put_bytes(&mut resource, 2, &scope);
        crate::otlp::wire::put_bytes(&mut body, 1, &resource);
        let (pack, _) = pack(&body, Place::default(), &PackLimits::default(), NOW, TimeUnit::Microseconds);
        assert_eq!((pack.items(), pack.refused()), (2, 1));
        let group = read(pack);
        assert_eq!((group.logs.len(), group.logs[0].contents[9].value.as_str()), (1, "last"));
    }
}
