//! The traffic of the benchmark, encoded once: sending it again costs a copy and its new trace ids.
//!
//! A trace has 8 spans, two in each of 4 services. A block is 256 traces: 4 requests of 512 spans,
//! one from each service with its own resource. Trace number `n` belongs to block `n / 256`.

use bytes::Bytes;
use memchr::memmem;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;
use std::ops::Range;
use std::time::{SystemTime, UNIX_EPOCH};

pub const SERVICES: usize = 4;
pub const SPANS_PER_TRACE: usize = 8;
pub const SPANS_PER_REQUEST: usize = 512;
pub const TRACES_PER_BLOCK: u64 = 256;
pub const SPANS_PER_BLOCK: u64 = TRACES_PER_BLOCK * SPANS_PER_TRACE as u64;

/// Distinct blocks held in memory (14 MB); their ids are new every time they are sent.
const BLOCKS: u64 = 16;
/// Each service sends its part of a block this many blocks after the service that called it.
const LAG: u64 = 4;
/// Stands in encoded bodies where a trace id belongs, followed by the trace's number in its block.
const MARK: [u8; 12] = *b"\xf1trace-id-of";

/// What becomes of a trace; the policy keeps all but the first kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    Fine,
    /// A span of the payment service has failed, and with it the request.
    Failed,
    /// The request took more than 500 ms.
    Slow,
}

impl Fate {
    /// 1 % fail and 1 % are slow.
    pub fn of(trace: u64) -> Fate {
        match trace % (BLOCKS * TRACES_PER_BLOCK) % 100 {
            7 => Fate::Failed,
            57 => Fate::Slow,
            _ => Fate::Fine,
        }
    }
}

/// The id of trace number `trace`: looks random, never repeats.
pub fn trace_id(trace: u64) -> [u8; 16] {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&mix(trace).to_be_bytes());
    id[8..].copy_from_slice(&mix(!trace).to_be_bytes());
    id
}

/// Which service sends its part of which block next, for all of `blocks`.
pub fn order(blocks: Range<u64>) -> impl Iterator<Item = (u64, usize)> {
    let steps = blocks.start..blocks.end + LAG * (SERVICES as u64 - 1);
    steps.flat_map(move |step| {
        let blocks = blocks.clone();
        (0..SERVICES).filter_map(move |service| {
            let block = step.checked_sub(service as u64 * LAG)?;
            blocks.contains(&block).then_some((block, service))
        })
    })
}

/// All requests, framed for gRPC, with the places of their trace ids.
pub struct Load {
    requests: Vec<Template>,
}

struct Template {
    frame: Vec<u8>,
    ids: Vec<Place>,
}

struct Place {
    offset: usize,
    trace: u32,
}

impl Load {
    pub fn new() -> Load {
        let requests = (0..BLOCKS).flat_map(|block| (0..SERVICES).map(move |service| Template::new(block, service)));
        Load { requests: requests.collect() }
    }

    /// The gRPC frame that carries one service's part of `block`.
    pub fn request(&self, block: u64, service: usize) -> Bytes {
        let template = &self.requests[(block % BLOCKS) as usize * SERVICES + service];
        let mut frame = template.frame.clone();
        for place in &template.ids {
            let id = trace_id(block * TRACES_PER_BLOCK + u64::from(place.trace));
            frame[place.offset..place.offset + id.len()].copy_from_slice(&id);
        }
        frame.into()
    }

    /// Bytes on the wire for one span, its share of the resource included.
    pub fn bytes_per_span(&self) -> f64 {
        let bytes: usize = self.requests.iter().map(|template| template.frame.len()).sum();
        bytes as f64 / (self.requests.len() * SPANS_PER_REQUEST) as f64
    }
}

impl Template {
    fn new(block: u64, service: usize) -> Template {
        let body = request(block, service).encode_to_vec();
        let mut frame = vec![0];
        frame.extend((body.len() as u32).to_be_bytes());
        frame.extend(body);
        let number =
            |offset: usize| u32::from_be_bytes(frame[offset + 12..offset + 16].try_into().expect("four bytes"));
        let ids: Vec<Place> =
            memmem::find_iter(&frame, &MARK).map(|offset| Place { offset, trace: number(offset) }).collect();
        assert_eq!(ids.len(), SPANS_PER_REQUEST, "the mark occurs once in every span");
        Template { frame, ids }
    }
}

fn request(block: u64, service: usize) -> ExportTraceServiceRequest {
    let traces = block * TRACES_PER_BLOCK..(block + 1) * TRACES_PER_BLOCK;
    let spans = traces.flat_map(|trace| [span(trace, 2 * service), span(trace, 2 * service + 1)]).collect();
    let (name, language) =
        [("frontend", "nodejs"), ("checkout", "go"), ("inventory", "go"), ("payment", "python")][service];
    let scope =
        InstrumentationScope { name: format!("{language}.http"), version: "0.64.0".into(), ..Default::default() };
    let resource_spans = ResourceSpans {
        resource: Some(Resource { attributes: resource(name, language), ..Default::default() }),
        scope_spans: vec![ScopeSpans { scope: Some(scope), spans, ..Default::default() }],
        ..Default::default()
    };
    ExportTraceServiceRequest { resource_spans: vec![resource_spans] }
}

fn resource(service: &str, language: &str) -> Vec<KeyValue> {
    vec![
        text("service.name", service),
        text("service.version", "2.14.1"),
        text("deployment.environment.name", "production"),
        text("k8s.namespace.name", "shop"),
        text("k8s.pod.name", &format!("{service}-7d9f8b6c5d-x2x4v")),
        text("telemetry.sdk.name", "opentelemetry"),
        text("telemetry.sdk.language", language),
    ]
}

/// The span at `position` (0..8) of a trace; its parent is the one before it. Even positions are
/// servers, odd ones their client calls. The last byte of a span id is the position.
fn span(trace: u64, position: usize) -> Span {
    let fate = Fate::of(trace);
    let failed = fate == Fate::Failed && position != 4 && position != 5;
    let random = mix(trace ^ 0x5eed);
    let total = match fate {
        Fate::Slow => 600 + random % 300,
        _ => 20 + random % 180,
    } * 1_000_000;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64;
    let inset = total * position as u64 / 20;
    let mark = [&MARK[..], &((trace % TRACES_PER_BLOCK) as u32).to_be_bytes()].concat();
    Span {
        trace_id: mark,
        span_id: span_id(trace, position),
        parent_span_id: position.checked_sub(1).map(|parent| span_id(trace, parent)).unwrap_or_default(),
        flags: if position > 0 && is_server(position) { 0x301 } else { 0x101 },
        name: name(random, position),
        kind: if is_server(position) { 2 } else { 3 },
        start_time_unix_nano: now + inset,
        end_time_unix_nano: now + total - inset,
        attributes: attributes(random, position, failed),
        status: failed.then(|| Status { code: 2, message: "card issuer unavailable".into() }),
        ..Default::default()
    }
}

fn is_server(position: usize) -> bool {
    position.is_multiple_of(2)
}

fn span_id(trace: u64, position: usize) -> Vec<u8> {
    (mix(trace) & !0xff | position as u64).to_be_bytes().to_vec()
}

const ROUTES: [[&str; 4]; SERVICES] = [
    ["/", "/products/{id}", "/cart", "/checkout"],
    ["/v1/orders", "/v1/orders/{id}", "/v1/quotes", "/v1/vouchers/{code}"],
    ["/v1/stock/{sku}", "/v1/reservations", "/v1/warehouses/{id}", "/v1/stock"],
    ["/v1/charges", "/v1/refunds", "/v1/cards/{id}", "/v1/authorizations"],
];

fn route(random: u64, position: usize) -> &'static str {
    ROUTES[position / 2][(random >> 32) as usize % 4]
}

fn name(random: u64, position: usize) -> String {
    match position {
        5 => "SELECT stock".into(),
        _ if is_server(position) => format!("POST {}", route(random, position)),
        _ => "POST".into(),
    }
}

fn attributes(random: u64, position: usize, failed: bool) -> Vec<KeyValue> {
    let status = if failed { 503 } else { 200 };
    let item = random >> 40;
    if position == 5 {
        return vec![
            text("db.system.name", "postgresql"),
            text("db.namespace", "inventory"),
            text("db.collection.name", "stock"),
            text("db.operation.name", "SELECT"),
            text(
                "db.query.text",
                "SELECT sku, amount, reserved FROM stock WHERE sku = $1 AND warehouse = $2 FOR UPDATE",
            ),
            text("server.address", "postgres-primary.shop.svc.cluster.local"),
            number("server.port", 5432),
        ];
    }
    let host = ["frontend", "checkout", "inventory", "payment", "bank"][position.div_ceil(2)];
    let mut attributes = vec![
        text("http.request.method", "POST"),
        number("http.response.status_code", status),
        text("server.address", &format!("{host}.shop.svc.cluster.local")),
        number("server.port", 8080),
        text("network.protocol.version", "1.1"),
        text("network.peer.address", &format!("10.42.{}.{}", item % 16, item % 251)),
    ];
    if is_server(position) {
        attributes.extend([
            text("http.route", route(random, position)),
            text("url.scheme", "http"),
            text("url.path", &format!("/v1/items/{item}")),
            text("user_agent.original", "Mozilla/5.0 (X11; Linux x86_64) Chrome/142.0"),
            text("app.customer.tier", ["free", "silver", "gold"][item as usize % 3]),
        ]);
    } else {
        attributes.extend([
            text("url.full", &format!("http://{host}.shop.svc.cluster.local:8080/v1/items/{item}?expand=price")),
            number("http.request.resend_count", 0),
        ]);
    }
    attributes
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.into()))
}

fn number(key: &str, value: i64) -> KeyValue {
    attribute(key, Value::IntValue(value))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
}

/// One step of SplitMix64: a bijection, so distinct numbers give distinct ids.
fn mix(number: u64) -> u64 {
    let mut x = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}
