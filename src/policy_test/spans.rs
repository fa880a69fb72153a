//! Spans in few words, made into an OTLP request as an SDK would send it.
//!
//! Code: T04, what is no span.

use crate::trace::{SpanKind, Status, TraceId};
use crate::yaml::{Map, Meaning, Node, Reader, Scalar, Shape, Value};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::Event;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status as WireStatus};

/// Of a span as it is written. The first nine are those of conditions on spans.
const SPAN_KEYS: &[&str] = &[
    "service",
    "name",
    "kind",
    "status",
    "status_message",
    "duration",
    "attributes",
    "resource",
    "events",
    "trace_state",
    "parent",
    "after",
    "times",
    "spans",
];

/// One case is no load test.
const SPANS_MAX: usize = 10_000;
/// What a span takes that says nothing else.
const SHORT: u64 = 1_000_000;
/// When every trace begins: 14 November 2023, Unix nanoseconds.
const BEGINNING: u64 = 1_700_000_000_000_000_000;

/// Bits of `Span.flags`: whether the parent is remote is known, and it is.
const FLAGS_REMOTE: u32 = 0x300;
const REMOTE_PARENT: [u8; 8] = [0xee; 8];

/// Who a span's parent is, beyond the span that it stands under.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Parent {
    /// The span that it stands under; there is none above the first.
    Above,
    None,
    /// In another process, which does not send here.
    Remote,
    /// Its spans did not arrive.
    Missing,
}

/// A span as it is written, with those under it.
#[derive(Debug)]
struct Written {
    service: Option<String>,
    resource: Option<Vec<KeyValue>>,
    name: String,
    kind: Option<SpanKind>,
    status: Status,
    status_message: String,
    duration: Option<u64>,
    attributes: Vec<KeyValue>,
    events: Vec<String>,
    trace_state: String,
    parent: Parent,
    /// Nanoseconds after the start of the span above.
    after: u64,
    times: u64,
    below: Vec<Written>,
}

/// The request that `node` describes: a span, or a list of spans, the first of which is above the others.
pub(super) fn request(reader: &mut Reader, node: &Node, id: TraceId) -> Option<ExportTraceServiceRequest> {
    let mut written = match &node.value {
        Value::List(items) if items.is_empty() => return reader.wrong_shape(node, "`trace`", Shape::OneOrMore),
        Value::List(items) => spans(reader, items)?,
        _ => vec![span(reader, node)?],
    };
    let rest = written.split_off(1);
    written[0].below.extend(rest);
    let count = written.iter().map(Written::count).fold(0, u64::saturating_add);
    if count > SPANS_MAX as u64 {
        let title = format!("this trace has {count} spans");
        reader.error("T04", node.span, title, "too many").help(format!("write at most {SPANS_MAX}, all together"));
        return None;
    }
    let mut builder = TraceBuilder { id, spans: Vec::new(), last_id: 0 };
    let above = Above { id: Vec::new(), service: None, resource: &[], start: BEGINNING };
    written.iter().for_each(|span| builder.add(span, &above));
    Some(ExportTraceServiceRequest { resource_spans: builder.spans })
}

fn spans(reader: &mut Reader, items: &[Node]) -> Option<Vec<Written>> {
    let spans: Vec<Option<Written>> = items.iter().map(|item| span(reader, item)).collect();
    spans.into_iter().collect()
}

fn span(reader: &mut Reader, node: &Node) -> Option<Written> {
    let map = reader.map(node, "a span", SPAN_KEYS)?;
    let is_known = map.entries.iter().all(|entry| SPAN_KEYS.contains(&entry.key.as_str()));
    let mut text = |key: &str| read(&map, key, |node| reader.text(node, &format!("`{key}`")).map(str::to_owned));
    let (service, name, status_message) = (text("service"), text("name"), text("status_message"));
    let kinds = SpanKind::ALL.map(|kind| (kind.word(), kind));
    let kind = read(&map, "kind", |node| reader.word(node, "`kind`", &kinds));
    let statuses = Status::ALL.map(|status| (status.word(), status));
    let status = read(&map, "status", |node| reader.word(node, "`status`", &statuses));
    let mut time = |key: &str| read(&map, key, |node| reader.duration(node, &format!("`{key}`")));
    let (duration, after) = (time("duration"), time("after"));
    let attributes = read(&map, "attributes", |node| attributes(reader, node, "`attributes`"));
    let resource = read(&map, "resource", |node| attributes_of_resource(reader, node));
    let events = read(&map, "events", |node| texts(reader, node, "`events`"));
    let trace_state = read(&map, "trace_state", |node| trace_state(reader, node));
    let parents = [("none", Parent::None), ("remote", Parent::Remote), ("missing", Parent::Missing)];
    let parent = read(&map, "parent", |node| reader.word(node, "`parent`", &parents));
    let times = read(&map, "times", |node| reader.integer(node, "`times`", 1..=SPANS_MAX as u64));
    let below = read(&map, "spans", |node| {
        let items = reader.list(node, "`spans`")?;
        spans(reader, items)
    });
    is_known.then_some(())?;
    Some(Written {
        service: service?,
        resource: resource?,
        name: name?.unwrap_or_default(),
        kind: kind?,
        status: status?.unwrap_or_default(),
        status_message: status_message?.unwrap_or_default(),
        duration: duration?.map(|duration| duration.as_nanos() as u64),
        attributes: attributes?.unwrap_or_default(),
        events: events?.unwrap_or_default(),
        trace_state: trace_state?.unwrap_or_default(),
        parent: parent?.unwrap_or(Parent::Above),
        after: after?.map_or(0, |after| after.as_nanos() as u64),
        times: times?.unwrap_or(1),
        below: below?.unwrap_or_default(),
    })
}

/// The value under a key, if it is there; `None` if it is wrong.
fn read<'n, T>(map: &Map<'n>, key: &str, read: impl FnOnce(&'n Node) -> Option<T>) -> Option<Option<T>> {
    map.get(key).map_or(Some(None), |node| read(node).map(Some))
}

fn texts(reader: &mut Reader, node: &Node, what: &str) -> Option<Vec<String>> {
    let items = reader.one_or_more(node, what)?;
    let texts: Vec<Option<String>> = items.iter().map(|item| reader.text(item, what).map(str::to_owned)).collect();
    texts.into_iter().collect()
}

/// `{ vendor: value }` to `vendor=value`.
fn trace_state(reader: &mut Reader, node: &Node) -> Option<String> {
    let map = reader.any_map(node, "`trace_state`")?;
    let mut members = Vec::new();
    for entry in map.entries {
        members
            .push(reader.text(&entry.value, &format!("`{}`", entry.key)).map(|value| format!("{}={value}", entry.key)));
    }
    members.into_iter().collect::<Option<Vec<_>>>().map(|members| members.join(","))
}

fn attributes(reader: &mut Reader, node: &Node, what: &str) -> Option<Vec<KeyValue>> {
    let map = reader.any_map(node, what)?;
    let mut all = Vec::new();
    for entry in map.entries {
        all.push(value(reader, &entry.key, &entry.value).map(|value| key_value(&entry.key, value)));
    }
    all.into_iter().collect()
}

fn attributes_of_resource(reader: &mut Reader, node: &Node) -> Option<Vec<KeyValue>> {
    let all = attributes(reader, node, "`resource`")?;
    if all.iter().any(|attribute| attribute.key == "service.name") {
        let title = "the name of a service stands beside its resource";
        reader.error("T04", node.span, title, "has `service.name`").help("write `service: shop` for the span");
        return None;
    }
    Some(all)
}

fn value(reader: &mut Reader, key: &str, node: &Node) -> Option<any_value::Value> {
    match &node.value {
        Value::Scalar(scalar) if scalar.meaning() != Meaning::Null => Some(of_scalar(scalar)),
        Value::List(items) => {
            let mut values = Vec::new();
            for item in items {
                values.push(value(reader, key, item).map(|value| AnyValue { value: Some(value) }));
            }
            let values = values.into_iter().collect::<Option<Vec<_>>>()?;
            Some(any_value::Value::ArrayValue(ArrayValue { values }))
        }
        Value::Refused => None,
        _ => {
            let help = format!("write a text, a number, a truth value or a list of them: `{key}: /pay`");
            let title = format!("`{key}` of a span has a value");
            reader.error("T04", node.span, title, "ranges and patterns are for rules").help(help);
            None
        }
    }
}

fn of_scalar(scalar: &Scalar) -> any_value::Value {
    match scalar.meaning() {
        Meaning::Bool(value) => any_value::Value::BoolValue(value),
        Meaning::Number(value) => match scalar.text.parse() {
            Ok(integer) => any_value::Value::IntValue(integer),
            Err(_) => any_value::Value::DoubleValue(value),
        },
        Meaning::Text(_) | Meaning::Null => any_value::Value::StringValue(scalar.text.clone()),
    }
}

fn key_value(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
}

impl Written {
    /// With all below it, as often as each is there.
    fn count(&self) -> u64 {
        let below = self.below.iter().map(Written::count).fold(1, u64::saturating_add);
        self.times.saturating_mul(below)
    }

    /// What it takes: as written, or as long as those below it, without what runs on after the answer.
    fn duration(&self) -> u64 {
        let ends = self.below.iter().filter(|span| span.kind != Some(SpanKind::Consumer));
        let ends = ends.map(|span| span.after.saturating_add(span.duration()));
        self.duration.unwrap_or_else(|| ends.max().unwrap_or_default().max(SHORT))
    }
}

/// What a span has from the one that it stands under.
struct Above<'a> {
    id: Vec<u8>,
    service: Option<&'a str>,
    resource: &'a [KeyValue],
    start: u64,
}

struct TraceBuilder {
    id: TraceId,
    spans: Vec<ResourceSpans>,
    last_id: u64,
}

impl TraceBuilder {
    fn add(&mut self, written: &Written, above: &Above<'_>) {
        for _ in 0..written.times {
            self.add_one(written, above);
        }
    }

    fn add_one(&mut self, written: &Written, above: &Above<'_>) {
        self.last_id += 1;
        let (span_id, start) = (self.last_id.to_be_bytes().to_vec(), above.start.saturating_add(written.after));
        let service = written.service.as_deref().or(above.service);
        let inherited = if written.service.is_none() { above.resource } else { &[] };
        let resource = written.resource.as_deref().unwrap_or(inherited);
        let (parent_span_id, flags) = match written.parent {
            Parent::Above => (above.id.clone(), 0),
            Parent::None => (Vec::new(), 0),
            Parent::Remote => (REMOTE_PARENT.to_vec(), FLAGS_REMOTE),
            Parent::Missing => (REMOTE_PARENT.to_vec(), 0),
        };
        let is_called = parent_span_id != above.id || above.id.is_empty() || service != above.service;
        let usual = if is_called { SpanKind::Server } else { SpanKind::Internal };
        let span = Span {
            trace_id: self.id.0.to_vec(),
            span_id: span_id.clone(),
            trace_state: written.trace_state.clone(),
            parent_span_id,
            flags,
            name: written.name.clone(),
            kind: written.kind.unwrap_or(usual) as i32,
            start_time_unix_nano: start,
            end_time_unix_nano: start.saturating_add(written.duration()),
            attributes: written.attributes.clone(),
            events: written.events.iter().map(|name| Event { name: name.clone(), ..Default::default() }).collect(),
            status: Some(WireStatus { code: written.status as i32, message: written.status_message.clone() }),
            ..Default::default()
        };
        self.spans.push(of_service(service, resource, span));
        let above = Above { id: span_id, service, resource, start };
        written.below.iter().for_each(|span| self.add(span, &above));
    }
}

fn of_service(service: Option<&str>, resource: &[KeyValue], span: Span) -> ResourceSpans {
    let name = service.map(|name| key_value("service.name", any_value::Value::StringValue(name.to_owned())));
    let attributes = name.into_iter().chain(resource.iter().cloned()).collect();
    ResourceSpans {
        resource: Some(Resource { attributes, ..Default::default() }),
        scope_spans: vec![ScopeSpans { spans: vec![span], ..Default::default() }],
        ..Default::default()
    }
}
