//! What the store costs a kept span: batches of 100 traces with 8 spans over 4 services, about 600 bytes each.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status},
};
use prost::Message;
use tailkeep::{
    deliver::sink::{
        Batch, Sink,
        store::{StoreSettings, StoreSink},
    },
    trace::Signal,
};

const TRACES: u64 = 100;
const SPANS: u64 = 8;
const SERVICES: [&str; 4] = ["front", "cart", "payment", "stock"];
/// As old data leaves a store that is full, the disk in use stays small.
const STORE_SIZE: u64 = 64 << 20;

fn text(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value), ..Default::default() }
}

/// Ids that repeat only after 2^64 calls.
fn mix(n: u64) -> u64 {
    let mixed = (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ mixed >> 29
}

fn span(trace: u64, number: u64) -> Span {
    let start = 1_700_000_000_000_000_000 + trace * 1_000_000 + number * 10_000;
    let parent = if number == 0 { vec![] } else { mix(trace * SPANS).to_be_bytes().to_vec() };
    Span {
        trace_id: [mix(trace), trace].map(u64::to_be_bytes).concat(),
        span_id: mix(trace * SPANS + number).to_be_bytes().to_vec(),
        parent_span_id: parent,
        name: format!("GET /orders/{{id}}/{number}"),
        kind: 2,
        start_time_unix_nano: start,
        end_time_unix_nano: start + 700_000_000,
        flags: if number == 0 { 0x100 } else { 0x301 },
        attributes: vec![
            text("http.request.method", "GET"),
            text("http.route", "/orders/{id}"),
            text("url.path", &format!("/orders/{trace}")),
            text("server.address", "orders.shop.svc.cluster.local"),
            text("user_agent.original", "Mozilla/5.0 (X11; Linux x86_64)"),
            text("tailkeep.rule", "keep-slow"),
            text("tailkeep.reason", "slow"),
            text("tailkeep.trigger", "root"),
        ],
        status: Some(Status { code: u32::from(trace.is_multiple_of(2)) as i32, message: String::new() }),
        ..Span::default()
    }
}

fn batch(first: u64) -> Batch {
    let mut request = ExportTraceServiceRequest::default();
    for (index, service) in SERVICES.into_iter().enumerate() {
        let of_service = |number: &u64| *number as usize % SERVICES.len() == index;
        let spans = (first..first + TRACES)
            .flat_map(|trace| (0..SPANS).filter(of_service).map(move |number| span(trace, number)))
            .collect();
        let scope = Some(InstrumentationScope { name: "shop".to_owned(), ..Default::default() });
        let attributes = vec![text("service.name", service), text("k8s.pod.name", &format!("{service}-0"))];
        request.resource_spans.push(ResourceSpans {
            resource: Some(Resource { attributes, ..Default::default() }),
            scope_spans: vec![ScopeSpans { scope, spans, ..Default::default() }],
            ..Default::default()
        });
    }
    Batch { signal: Signal::Traces, body: request.encode_to_vec().into(), items: TRACES * SPANS }
}

fn write(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let folder = tempfile::tempdir().expect("a scratch folder");
    let settings = StoreSettings { path: folder.path().join("traces.db"), size: STORE_SIZE };
    let mut sink = StoreSink::new(settings).expect("the settings are right");
    let mut next = 0;
    let mut group = c.benchmark_group("store");
    group.throughput(Throughput::Elements(TRACES * SPANS));
    group.bench_function("100 new traces", |b| {
        b.iter_batched(
            || {
                next += TRACES;
                batch(next)
            },
            |batch| runtime.block_on(sink.send(&batch)).expect("the disk takes it"),
            criterion::BatchSize::LargeInput,
        )
    });
    group.finish();
}

criterion_group!(benches, write);
criterion_main!(benches);
