//! Scan and shard on requests of 512 spans: traces of 8 spans over 4 services, 440 wire bytes a span.

mod drop_all;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use drop_all::DropAll;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use std::hint::black_box;
use tailkeep::plan::report::LeftOut;
use tailkeep::plan::{Compared, Planner, PolicyText};
use tailkeep::scan::{Keyed, Questions, Scan, SpanBounds};
use tailkeep::shard::survey::{Survey, SurveyQuestions};
use tailkeep::shard::{Outbox, Progress, Shard, Turn};
use tailkeep::trace::RuleNames;
use tailkeep::trace::question::{Condition, Pattern, SpanScope, Test, ValuePattern, ValueTest};

const SPANS: usize = 512;

fn text(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::StringValue(value.into())) });
    KeyValue { key: key.into(), value, ..Default::default() }
}

fn span(trace: u64, number: u64) -> Span {
    let mut trace_id = trace.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes().to_vec();
    trace_id.extend(trace.wrapping_mul(0xc2b2_ae3d_27d4_eb4f).to_be_bytes());
    Span {
        trace_id,
        span_id: (trace * 8 + number + 1).to_be_bytes().to_vec(),
        parent_span_id: if number == 0 { vec![] } else { (trace * 8 + number).to_be_bytes().to_vec() },
        name: format!("GET /api/v1/items/{{id}}/{number}"),
        kind: if number.is_multiple_of(2) { 2 } else { 3 },
        start_time_unix_nano: 1_700_000_000_000_000_000 + number * 1_000_000,
        end_time_unix_nano: 1_700_000_000_050_000_000,
        attributes: vec![
            text("http.request.method", "GET"),
            text("http.route", "/api/v1/items/{id}"),
            text("url.path", "/api/v1/items/8126"),
            text("server.address", "inventory.shop.svc.cluster.local"),
            text("network.protocol.version", "1.1"),
            text("user_agent.original", "Mozilla/5.0 (X11; Linux x86_64) shop/1.0"),
            text("client.address", "10.12.33.7"),
            text("thread.name", "http-nio-8080-exec-7"),
        ],
        flags: 0x101,
        ..Default::default()
    }
}

/// A request of 64 traces, each by one service, with ids that no other request has.
fn request(number: u64) -> Vec<u8> {
    let resource = Resource {
        attributes: vec![text("service.name", "inventory"), text("k8s.pod.name", "inventory-7d9f-x2x")],
        ..Default::default()
    };
    let spans = (0..SPANS as u64).map(|n| span(number * 64 + n / 8 + 1, n % 8)).collect();
    let scope = Some(InstrumentationScope { name: "io.opentelemetry.http".into(), ..Default::default() });
    let scope_spans = vec![ScopeSpans { scope, spans, ..Default::default() }];
    let resource_spans = vec![ResourceSpans { resource: Some(resource), scope_spans, ..Default::default() }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

fn questions() -> Questions {
    let route = ValueTest::OneOf(vec![
        ValuePattern::Text(Pattern::Exact("/healthz".into())),
        ValuePattern::Text(Pattern::Exact("/livez".into())),
    ]);
    let keys = vec!["http.route".to_owned()];
    let conditions = [
        Condition { scope: SpanScope::Entry, tests: vec![Test::Attribute { keys, values: route }] },
        Condition { scope: SpanScope::Any, tests: vec![Test::Service(vec![Pattern::Exact("payment".into())])] },
        Condition { scope: SpanScope::Entry, tests: vec![Test::Name(vec![Pattern::Glob("GET /search*".into())])] },
    ];
    let dimensions = ["service.version".to_owned(), "deployment.environment.name".to_owned()];
    Questions::compile(&conditions, &dimensions, 1).expect("few conditions")
}

fn scan(c: &mut Criterion) {
    let (body, questions) = (request(0), questions());
    let mut group = c.benchmark_group("scan");
    group.throughput(Throughput::Elements(SPANS as u64));
    let mut walked = Scan::new(Keyed::new(1));
    group.bench_function("512 spans", |b| {
        b.iter(|| walked.read(black_box(&body), &questions, SpanBounds::of_bytes(1 << 20)).expect("well formed"));
    });
    group.bench_function("prost decode of the same, for scale", |b| {
        b.iter(|| ExportTraceServiceRequest::decode(black_box(body.as_slice())).expect("well formed"));
    });
    group.finish();
}

/// The ring is full, so every appended span also pays for the eviction of an old one.
fn append(c: &mut Criterion) {
    let (questions, rules, keyed) = (questions(), RuleNames::default(), Keyed::new(1));
    let mut shard = Shard::new(64 << 20, keyed.clone());
    let (mut walked, mut out, mut number, mut now) = (Scan::new(keyed), Outbox::default(), 0, 1);
    let all: Vec<u32> = (0..SPANS as u32).collect();
    let mut group = c.benchmark_group("shard");
    group.throughput(Throughput::Elements(SPANS as u64));
    let mut append = |body: &[u8], walked: &Scan| {
        now += 1;
        let turn = Turn { now, judge: &DropAll, questions: &questions, rules: &rules };
        let mut rest = all.as_slice();
        while !rest.is_empty() {
            let taken = shard.append(&turn, walked, body, rest, &mut out);
            rest = &rest[taken..];
        }
        while shard.tick(&turn, true, &mut out) == Progress::More {}
    };
    let mut next = || {
        number += 1;
        let body = request(number);
        walked.read(&body, &questions, SpanBounds::of_bytes(1 << 20)).expect("well formed");
        (body, std::mem::replace(&mut walked, Scan::new(Keyed::new(1))))
    };
    for _ in 0..600 {
        let (body, walked) = next();
        append(&body, &walked);
    }
    group.bench_function("append, judge and evict 512 spans", |b| {
        b.iter_batched(&mut next, |(body, walked)| append(&body, &walked), BatchSize::LargeInput);
    });
    group.finish();
}

const NOW: &str = "version: 1
rules:
- { name: probes, when: { entry: { attributes: { http.route: [/healthz, /livez] } } }, keep: none }
- { name: errors, when: { error: true }, keep: all }
otherwise: { keep: 1% }
";
const THEN: &str = "version: 1
rules:
- { name: searches, when: { any_span: { name: 'GET /search*', attributes: { url.path: '*items*' } } }, keep: none }
- { name: errors, when: { error: true }, keep: all, limit: 100/s }
- { name: each, keep: all, limit: 10/s, for_each: [entry.service, entry.name], limit_total: 100/s, then: next }
otherwise: { keep: 5% }
";

/// Two policies with other questions than those in force, so that every span is read twice, and every trace waits for its
/// turn at a limit.
fn plan(c: &mut Criterion) {
    let (questions, rules, keyed) = (questions(), RuleNames::default(), Keyed::new(1));
    let (mut shard, mut walked) = (Shard::new(160 << 20, keyed.clone()), Scan::new(keyed));
    let (all, requests) = ((0..SPANS as u32).collect::<Vec<u32>>(), 200);
    let mut out = Outbox::default();
    let turn = |now| Turn { now, judge: &DropAll, questions: &questions, rules: &rules };
    for number in 0..requests {
        let body = request(number);
        walked.read(&body, &questions, SpanBounds::of_bytes(1 << 20)).expect("well formed");
        let (turn, mut rest) = (turn(1 + number as u32), all.as_slice());
        while !rest.is_empty() {
            rest = &rest[shard.append(&turn, &walked, &body, rest, &mut out)..];
        }
    }
    while shard.tick(&turn(10_000), true, &mut out) == Progress::More {}
    let [now, then] = [NOW, THEN].map(|text| PolicyText { file: "policy", text });
    let compared = Compared::compile(now, then, &[], RuleNames::default()).expect("without errors");
    let sets = compared.questions().expect("few questions");
    let asked = SurveyQuestions { sets: &sets, answered: None };
    let mut group = c.benchmark_group("plan");
    group.throughput(Throughput::Elements(SPANS as u64 * requests));
    group.sample_size(10).bench_function("two policies on a ring", |b| {
        b.iter(|| {
            let mut planner = Planner::new(&compared, 1 << 20);
            let (mut survey, mut found) = (Survey::default(), Vec::new());
            while shard.survey(&asked, &mut survey, &mut found) == Progress::More {
                found.drain(..).for_each(|observed| planner.take(observed));
            }
            found.drain(..).for_each(|observed| planner.take(observed));
            let report = planner.finish(&[], LeftOut::default());
            assert_eq!(report.window.spans, SPANS as u64 * requests, "the ring holds all of them");
        });
    });
    group.finish();
}

criterion_group!(benches, scan, append, plan);
criterion_main!(benches);
