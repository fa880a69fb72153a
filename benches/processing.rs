//! What processing costs a kept span: pieces of 256 spans over 4 services, about 500 bytes each.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use prost::Message;
use std::borrow::Cow;
use std::hint::black_box;
use tailkeep::processing::{HashKey, Keys, Mask, Processing, ProcessingSettings, Words};
use tailkeep::trace::Signal;

const SERVICES: u64 = 4;
const SPANS: u64 = 64;

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
}

fn text(key: &str, value: impl Into<String>) -> KeyValue {
    attribute(key, Value::StringValue(value.into()))
}

fn span(number: u64) -> Span {
    Span {
        trace_id: vec![7; 16],
        span_id: number.to_be_bytes().to_vec(),
        parent_span_id: vec![1; 8],
        name: "GET /orders/{id}".into(),
        kind: 2,
        attributes: vec![
            text("http.request.method", "GET"),
            text("http.route", "/orders/{id}"),
            text("url.path", format!("/orders/{number}")),
            text("server.address", "orders.shop.svc.cluster.local"),
            text("user_agent.original", "Mozilla/5.0 (X11; Linux x86_64)"),
            attribute("http.response.status_code", Value::IntValue(200)),
            attribute("server.port", Value::IntValue(8080)),
            text("user.id", format!("user-{number}")),
            text("db.query.text", "SELECT id, total FROM orders WHERE customer = ? AND state = ?"),
        ],
        ..Span::default()
    }
}

fn piece() -> Vec<u8> {
    let group = |service: u64| ResourceSpans {
        resource: Some(Resource {
            attributes: vec![text("service.name", format!("service-{service}")), text("host.name", "node-1")],
            ..Default::default()
        }),
        scope_spans: vec![ScopeSpans { spans: (0..SPANS).map(span).collect(), ..Default::default() }],
        ..Default::default()
    };
    ExportTraceServiceRequest { resource_spans: (0..SERVICES).map(group).collect() }.encode_to_vec()
}

fn keys(keys: &[&str]) -> Keys {
    Keys::new(keys.iter().map(|key| (*key).to_owned()))
}

fn processing(c: &mut Criterion) {
    let nothing = ProcessingSettings::default;
    let masks = || [Words::Email, Words::Card, Words::CnMobile, Words::CnId].map(Mask::word).to_vec();
    let drop = || keys(&["db.query.text", "http.request.header.*"]);
    let resource = || vec![("k8s.cluster.name".to_owned(), "prod".to_owned())];
    let hash_key = Some(HashKey(Box::from(*b"a key of thirty-two characters..")));
    let all = [
        ("nothing", nothing()),
        ("drop without a match", ProcessingSettings { drop: keys(&["secret", "other.*"]), ..nothing() }),
        ("drop", ProcessingSettings { drop: drop(), ..nothing() }),
        ("hash", ProcessingSettings { hash: keys(&["user.id"]), hash_key: hash_key.clone(), ..nothing() }),
        ("mask without a match", ProcessingSettings { masks: masks(), ..nothing() }),
        ("resource", ProcessingSettings { resource: resource(), ..nothing() }),
        (
            "all",
            ProcessingSettings {
                drop: drop(),
                hash: keys(&["user.id"]),
                hash_key,
                masks: masks(),
                resource: resource(),
            },
        ),
    ];
    let body = piece();
    let mut group = c.benchmark_group("processing");
    group.throughput(Throughput::Elements(SERVICES * SPANS));
    for (name, settings) in all {
        let processing = Processing::new(settings, 1);
        group.bench_function(name, |b| {
            b.iter(|| black_box(processing.apply(Signal::Traces, Cow::Borrowed(&body))).len())
        });
    }
    group.finish();
}

criterion_group!(benches, processing);
criterion_main!(benches);
