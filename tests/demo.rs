//! The demo's traffic is what a real shop would send, and its view fits every terminal.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode};
use prost::Message;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::convert::Infallible;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tailkeep::demo::shop::{Service, Shop, Weather};
use tailkeep::demo::view::{explain, invitation, render, summarize};
use tailkeep::demo::{KeptView, ListenerView, OperationView, RingView, RuleView, SinkView, View};
use tailkeep::trace::TraceId;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

type Trace = Vec<(Service, Span)>;

const CALM: Weather = Weather { traces_per_second: 300.0, trouble: None };
const START: u64 = 1_763_000_000_000_000_000;

fn traces(seed: u64, count: usize, weather: Weather) -> Vec<Trace> {
    let mut shop = Shop::new(seed);
    (0..count as u64).map(|number| shop.request(START + number * 3_000_000, weather)).collect()
}

fn failed(span: &Span) -> bool {
    span.status.as_ref().is_some_and(|status| status.code == StatusCode::Error as i32)
}

fn duration(span: &Span) -> Duration {
    Duration::from_nanos(span.end_time_unix_nano - span.start_time_unix_nano)
}

/// Share of the traces for which `holds`, in percent.
fn percent(traces: &[Trace], holds: impl Fn(&Trace) -> bool) -> f64 {
    100.0 * traces.iter().filter(|trace| holds(trace)).count() as f64 / traces.len() as f64
}

#[test]
fn every_trace_is_well_formed() {
    let trouble = Weather { trouble: Some(Service::Inventory), ..CALM };
    let mut ids = HashSet::new();
    for trace in traces(1, 5_000, CALM).into_iter().chain(traces(2, 5_000, trouble)) {
        let (_, root) = &trace[0];
        assert!(ids.insert(root.trace_id.clone()), "trace ids are unique");
        assert!(root.parent_span_id.is_empty(), "the root comes first");
        let by_id: HashMap<&[u8], &(Service, Span)> =
            trace.iter().map(|entry| (entry.1.span_id.as_slice(), entry)).collect();
        assert_eq!(by_id.len(), trace.len(), "span ids are unique");
        for (service, span) in &trace[1..] {
            assert_eq!(span.trace_id, root.trace_id);
            let (caller, parent) = by_id[span.parent_span_id.as_slice()];
            assert!(
                span.start_time_unix_nano >= parent.start_time_unix_nano,
                "{} starts in {}",
                span.name,
                parent.name
            );
            if span.kind != SpanKind::Consumer as i32 {
                assert!(span.end_time_unix_nano <= parent.end_time_unix_nano, "{} ends in {}", span.name, parent.name);
            }
            assert_eq!(span.flags & 0x200 != 0, caller != service, "{} knows that its caller is elsewhere", span.name);
        }
    }
}

#[test]
fn few_requests_fail_or_are_slow_and_trouble_makes_more() {
    let is_failed = |trace: &Trace| trace.iter().any(|(_, span)| failed(span));
    let is_slow = |trace: &Trace| duration(&trace[0].1) >= Duration::from_millis(500);
    let calm = traces(3, 20_000, CALM);
    let (fail, slow) = (percent(&calm, is_failed), percent(&calm, is_slow));
    assert!((0.3..3.0).contains(&fail), "{fail} % fail");
    assert!((0.3..3.0).contains(&slow), "{slow} % are slow");
    for service in [Service::Inventory, Service::Search] {
        let trouble = traces(3, 20_000, Weather { trouble: Some(service), ..CALM });
        assert!(percent(&trouble, is_failed) > 2.0 * fail, "trouble in {} makes failures", service.name());
        assert!(percent(&trouble, is_failed) < 25.0, "most requests succeed all the same");
        assert!(percent(&trouble, is_slow) > slow, "trouble in {} makes slow requests", service.name());
    }
}

#[test]
fn some_failures_are_hidden_from_the_customer_and_some_work_ends_after_the_answer() {
    let traces = traces(4, 20_000, CALM);
    let hidden = |trace: &Trace| !failed(&trace[0].1) && trace.iter().any(|(_, span)| failed(span));
    let later = |trace: &Trace| trace.iter().any(|(_, s)| s.end_time_unix_nano > trace[0].1.end_time_unix_nano);
    assert!(percent(&traces, hidden) > 0.1);
    assert!((1.0..6.0).contains(&percent(&traces, later)));
    for service in Service::ALL {
        assert!(traces.iter().flatten().any(|(s, _)| *s == service), "{} has work", service.name());
    }
}

#[test]
fn a_seed_repeats_its_traffic_and_another_does_not() {
    assert_eq!(traces(5, 100, CALM), traces(5, 100, CALM));
    assert_ne!(traces(5, 100, CALM)[0][0].1.trace_id, traces(6, 100, CALM)[0][0].1.trace_id);
}

#[test]
fn every_minute_brings_trouble_to_another_service_and_the_rate_stays_within_bounds() {
    let at = |seconds| Weather::at(Duration::from_secs(seconds));
    assert_eq!(at(39).trouble, None);
    assert_eq!(at(40).trouble, Some(Service::Payment));
    assert_eq!(at(60).trouble, None);
    let troubled: HashSet<Service> = (0..7).filter_map(|minute| at(minute * 60 + 50).trouble).collect();
    assert_eq!(troubled.len(), Service::ALL.len());
    assert!((0..600).all(|second| (200.0..500.0).contains(&at(second).traces_per_second)));
}

#[tokio::test]
async fn each_service_sends_its_ended_spans_over_grpc() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (requests, mut received) = mpsc::unbounded_channel();
    tokio::spawn(serve(listener, requests));
    let mut services: BTreeMap<String, usize> = BTreeMap::new();
    tailkeep::demo::traffic(address, 7, async {
        while services.len() < 5 {
            let request = received.recv().await.expect("the server goes on");
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
            let [resource] = request.resource_spans.as_slice() else { panic!("one resource a request") };
            let spans = resource.scope_spans.iter().flat_map(|scope| &scope.spans);
            assert!(spans.clone().all(|span| span.end_time_unix_nano <= now), "only what has ended is sent");
            let name = resource.resource.iter().flat_map(|r| &r.attributes).find(|a| a.key == "service.name");
            let Some(Value::StringValue(name)) = name.and_then(|n| n.value.clone()?.value) else {
                panic!("each resource names its service")
            };
            *services.entry(name).or_default() += spans.count();
        }
    })
    .await;
    assert!(services.values().all(|&spans| spans > 0), "{services:?}");
    assert!(services.keys().all(|name| Service::ALL.iter().any(|service| service.name() == name)), "{services:?}");
}

/// An OTLP/gRPC server that passes on what it gets.
async fn serve(listener: TcpListener, requests: mpsc::UnboundedSender<ExportTraceServiceRequest>) {
    while let Ok((stream, _)) = listener.accept().await {
        let requests = requests.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let requests = requests.clone();
            async move {
                let frame = request.into_body().collect().await.expect("a body").to_bytes();
                // The receiver goes away before the last requests come.
                let _ = requests.send(ExportTraceServiceRequest::decode(&frame[5..]).expect("protobuf"));
                let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))]);
                let body = Full::new(Bytes::from_static(&[0; 5])).with_trailers(async { Some(Ok(trailers)) });
                Ok::<_, Infallible>(Response::builder().header("content-type", "application/grpc").body(body).unwrap())
            }
        });
        tokio::spawn(http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service));
    }
}

fn view() -> View {
    let millis = Duration::from_millis;
    let operation = |service: &str, name: &str, per_second, errors, p50, p90, p99| OperationView {
        service: service.into(),
        name: name.into(),
        per_second,
        errors,
        p50: millis(p50),
        p90: millis(p90),
        p99: millis(p99),
    };
    let rule = |name: &str, kept, dropped| RuleView { name: name.into(), kept, dropped };
    let kept = |id: &str, rule: &str, duration, entry: &str| KeptView {
        id: TraceId::parse(id).unwrap(),
        rule: rule.into(),
        duration: millis(duration),
        entry: entry.into(),
    };
    View {
        listeners: vec![
            ListenerView { protocol: "gRPC", endpoint: "http://127.0.0.1:4317".into() },
            ListenerView { protocol: "HTTP", endpoint: "http://127.0.0.1:4318".into() },
        ],
        uptime: millis(125_400),
        spans_per_second: 2411.6,
        spans: 301_220,
        ring: RingView { bytes_used: 118 << 20, bytes: 307 << 20, reaches_back: millis(96_000), traces: 28_114 },
        rules: vec![
            rule("drop-probes", 0, 0),
            rule("keep-errors", 611, 0),
            rule("keep-slow", 1_204, 12),
            rule("show-every-endpoint", 0, 0),
            rule("otherwise", 410, 40_517),
        ],
        operations: vec![
            operation("frontend", "GET /products/{id}", 61.25, 0.004, 31, 88, 240),
            operation("payment", "POST /v1/charges", 12.0, 0.061, 112, 402, 1_940),
            operation("搜索服务", "GET /v1/搜索/{关键词}", 48.0, 0.0, 4, 9, 14),
            operation("cart", "GET \x1b[2J/v1/carts\n", 40.0, 0.0, 0, 2, 3),
        ],
        sinks: vec![
            SinkView { name: "here".into(), delivered: 21_331, queued: 12, discarded: 0 },
            SinkView { name: "upstream".into(), delivered: 0, queued: 21_000, discarded: 343 },
        ],
        store: "~/.local/share/tailkeep/demo.db".into(),
        kept: vec![
            kept("4bf92f3577b34da6a3ce929d0e0e4736", "keep-errors", 812, "frontend POST /checkout"),
            kept("0af7651916cd43dd8448eb211c80319c", "keep-slow", 1_503, "frontend GET /search"),
        ],
    }
}

/// The text that a terminal shows: without the escapes that set colours.
fn shown(view: &View, width: usize, height: usize) -> String {
    uncoloured(&render(view, width, height))
}

fn uncoloured(rendered: &str) -> String {
    let mut text = String::new();
    let mut parts = rendered.split('\x1b');
    text.push_str(parts.next().unwrap());
    for part in parts {
        let (colour, rest) = part.split_once('m').expect("only colours are set");
        assert!(colour.strip_prefix('[').is_some_and(|code| code.parse::<u8>().is_ok()), "{part:?}");
        text.push_str(rest);
    }
    text
}

/// Compares with a data file; `UPDATE_SNAPSHOTS=1` writes it anew.
fn check(file: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/demo").join(file);
    let text: String = text.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(text == expected, "differs from {}:\n{text}", path.display());
}

#[test]
fn the_view_looks_as_recorded() {
    for (width, height) in [(120, 40), (80, 24), (60, 24), (50, 30), (80, 12), (80, 5)] {
        check(&format!("view-{width}x{height}.txt"), &shown(&view(), width, height));
    }
    check("explained-80x24.txt", &uncoloured(&explain(&view(), 80, 24)));
    check("view-empty-80x24.txt", &shown(&View::default(), 80, 24));
    check("summary.txt", &summarize(&view()));
    check("invitation.txt", &invitation(&view()));
}

#[test]
fn the_view_fits_every_terminal() {
    let wide = |c: char| ('\u{4e00}'..='\u{9fff}').contains(&c);
    for width in 1..=160 {
        for height in [1, 2, 10, 24, 60] {
            for text in [shown(&view(), width, height), uncoloured(&explain(&view(), width, height))] {
                assert!(text.lines().count() <= height, "{width} x {height}");
                for line in text.lines() {
                    let columns: usize = line.chars().map(|c| if wide(c) { 2 } else { 1 }).sum();
                    assert!(columns <= width, "{columns} columns of {width}: {line:?}");
                    assert!(!line.chars().any(char::is_control), "{line:?}");
                }
            }
        }
    }
}

/// As in the demo after a while: more of everything than has room.
fn busy_view() -> View {
    let mut view = view();
    view.operations = std::iter::repeat_n(view.operations, 5).flatten().collect();
    view.kept = std::iter::repeat_n(view.kept, 3).flatten().collect();
    view.sinks.truncate(1);
    view
}

#[test]
fn what_became_of_the_traces_is_told_whole_before_anything_else() {
    for (width, height) in [(80, 24), (60, 24), (50, 24)] {
        let text = shown(&busy_view(), width, height);
        assert!(text.lines().next().unwrap().contains("2,225 kept (5.2 %), 40,529 dropped"), "{text}");
        let rules: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("traces by rule")).collect();
        let names = rules[1..].iter().map_while(|line| line.split_whitespace().next());
        assert_eq!(names.collect::<Vec<_>>(), ["keep-slow", "keep-errors", "otherwise"], "{text}");
        assert!(rules[0].contains("(3 of 5)"), "{text}");
        assert!(text.contains("operations (") && text.contains("p99"), "{text}");
        assert!(text.contains("spans by sink") && text.contains("kept last"), "{text}");
    }
    let one_row = shown(&busy_view(), 80, 12);
    assert!(one_row.contains("(1 of 5)") && one_row.contains("\notherwise"), "{one_row}");
    let all = shown(&busy_view(), 80, 60);
    assert!(all.contains("drop-probes") && all.contains("show-every-endpoint"), "{all}");
}

#[test]
fn the_foot_never_cuts_an_id() {
    let id = view().kept[0].id.to_string();
    for width in 30..=120 {
        let text = shown(&view(), width, 24);
        let foot = text.lines().last().unwrap();
        assert!(!foot.contains('…'), "{width}: {foot}");
        assert_eq!(foot.contains("why"), width >= 49, "{width}: {foot}");
        assert_eq!(foot.contains(&id), width >= 49, "{width}: {foot}");
    }
}
