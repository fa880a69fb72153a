//! Metrics and logs pass untouched; what is wrong with a request is told to whoever sent it.

use super::collector::{Setup, eventually};
use super::grpc::Grpc;
use super::http;
use super::sink::Sink;
use super::traffic::{self, Trace, assert_same, span, text};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric::Data, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use tailkeep::trace::Signal;

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

fn resource(service: &str) -> Option<Resource> {
    Some(Resource { attributes: vec![text("service.name", service)], ..Resource::default() })
}

fn logs(service: &str, bodies: &[&str]) -> ExportLogsServiceRequest {
    let record = |body: &&str| LogRecord {
        time_unix_nano: 1,
        severity_text: "WARN".into(),
        body: text("", body).value,
        trace_id: vec![3; 16],
        ..LogRecord::default()
    };
    let scope =
        ScopeLogs { log_records: bodies.iter().map(record).collect(), schema_url: "s".into(), ..ScopeLogs::default() };
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: resource(service),
            scope_logs: vec![scope],
            schema_url: "r".into(),
        }],
    }
}

fn metrics(service: &str) -> ExportMetricsServiceRequest {
    let point = |value| NumberDataPoint {
        time_unix_nano: 2,
        attributes: vec![text("queue", "orders")],
        value: Some(number_data_point::Value::AsDouble(value)),
        ..NumberDataPoint::default()
    };
    let gauge = Gauge { data_points: vec![point(0.5), point(f64::MAX)] };
    let metric =
        Metric { name: "queue.length".into(), unit: "1".into(), data: Some(Data::Gauge(gauge)), ..Metric::default() };
    let scope = ScopeMetrics { metrics: vec![metric], ..ScopeMetrics::default() };
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: resource(service),
            scope_metrics: vec![scope],
            ..ResourceMetrics::default()
        }],
    }
}

#[test]
fn metrics_and_logs_pass_untouched_over_every_protocol() {
    let sink = Sink::start();
    let tailkeep = Setup::new().otlp("stub", &sink).settings("measure: off").start();
    let (http, mut grpc) = (tailkeep.ports.http, Grpc::connect(tailkeep.ports.grpc));
    let sent_logs = [logs("a", &["one", "two"]), logs("b", &["grüße"]), logs("c", &[""])];
    let sent_metrics = [metrics("a"), metrics("b"), metrics("c")];
    assert_eq!(grpc.export(Signal::Logs, &sent_logs[0].encode_to_vec()).code, 0);
    assert_eq!(http::post(http, "/v1/logs", PROTOBUF, &sent_logs[1].encode_to_vec()).status, 200);
    assert_eq!(http::post(http, "/v1/logs", JSON, &serde_json::to_vec(&sent_logs[2]).unwrap()).status, 200);
    assert_eq!(grpc.export(Signal::Metrics, &sent_metrics[0].encode_to_vec()).code, 0);
    assert_eq!(http::post(http, "/v1/metrics", PROTOBUF, &sent_metrics[1].encode_to_vec()).status, 200);
    assert_eq!(http::post(http, "/v1/metrics", JSON, &serde_json::to_vec(&sent_metrics[2]).unwrap()).status, 200);

    let accounts = tailkeep.accounts();
    assert_eq!(accounts.sum("tailkeep_items_accepted_total", &["signal=\"logs\""]), 4.0);
    assert_eq!(accounts.sum("tailkeep_items_accepted_total", &["signal=\"metrics\""]), 6.0);
    tailkeep.stop();
    // Protobuf messages that follow each other are one message.
    let out = ExportLogsServiceRequest::decode(sink.taken(Signal::Logs).concat().as_slice()).unwrap();
    let sent = sent_logs.into_iter().flat_map(|request| request.resource_logs).collect::<Vec<_>>();
    assert_eq!(out.resource_logs, sent);
    let out = ExportMetricsServiceRequest::decode(sink.taken(Signal::Metrics).concat().as_slice()).unwrap();
    let sent = sent_metrics.into_iter().flat_map(|request| request.resource_metrics).collect::<Vec<_>>();
    assert_eq!(out.resource_metrics, sent);
    assert!(sink.taken(Signal::Traces).is_empty());
}

#[test]
fn a_text_that_is_not_utf_8_is_repaired_and_a_record_that_is_malformed_refused_alone() {
    let sink = Sink::start();
    let tailkeep = Setup::new().otlp("stub", &sink).settings("measure: off").start();
    let mut bad = logs("a", &["one", "two"]).encode_to_vec();
    let at = |bad: &[u8], text: &[u8]| bad.windows(3).position(|window| window == text).unwrap();
    let one = at(&bad, b"one");
    bad[one] = 0xff;
    assert_eq!(http::post(tailkeep.ports.http, "/v1/logs", PROTOBUF, &bad).status, 200);
    let two = at(&bad, b"two");
    // The text's length goes beyond its record.
    bad[two - 1] = 100;
    let reply = http::post(tailkeep.ports.http, "/v1/logs", PROTOBUF, &bad);
    let said = ExportLogsServiceResponse::decode(reply.body.as_slice()).unwrap().partial_success.unwrap();
    assert_eq!((reply.status, said.rejected_log_records), (200, 1));
    assert_eq!(said.error_message, "log records rejected: 1 that are not valid protobuf");
    let rejected = ["signal=\"logs\"", "reason=\"malformed\""];
    assert_eq!(tailkeep.accounts().sum("tailkeep_items_rejected_total", &rejected), 1.0);
    tailkeep.stop();
    let taken = ExportLogsServiceRequest::decode(sink.taken(Signal::Logs).concat().as_slice()).unwrap();
    let records = taken.resource_logs.into_iter().flat_map(|r| r.scope_logs).flat_map(|s| s.log_records);
    let sent = logs("a", &["\u{fffd}ne", "two", "\u{fffd}ne"]).resource_logs.remove(0).scope_logs.remove(0);
    assert_eq!(records.collect::<Vec<_>>(), sent.log_records);
}

#[test]
fn a_signal_without_a_sink_is_taken_counted_and_said_once() {
    let tailkeep = Setup::new().store().start();
    let mut grpc = Grpc::connect(tailkeep.ports.grpc);
    for _ in 0..3 {
        assert_eq!(grpc.export(Signal::Logs, &logs("a", &["one", "two"]).encode_to_vec()).code, 0);
    }
    let accounts = tailkeep.accounts();
    let discarded = |signal: &str| accounts.sum("tailkeep_sink_discarded_total", &["reason=\"no_sink\"", signal]);
    assert_eq!((discarded("signal=\"logs\""), discarded("signal=\"traces\"")), (6.0, 0.0));
    let said = "no sink takes this signal";
    tailkeep.wait_for_log(said);
    assert_eq!(tailkeep.logged(said), 1);
    tailkeep.stop();
}

#[test]
fn bad_ids_cost_their_span_and_malformed_requests_themselves() {
    let sink = Sink::start();
    let tailkeep = Setup::new().otlp("stub", &sink).start();
    let (http, mut grpc) = (tailkeep.ports.http, Grpc::connect(tailkeep.ports.grpc));
    let good = Trace::failed();
    let mut mixed = good.whole();
    let mut no_trace = span([0; 16], None, "zero", 1);
    let mut short_id = span([9; 16], None, "short", 1);
    short_id.span_id.truncate(7);
    no_trace.attributes.clear();
    mixed.resource_spans[0].scope_spans[0].spans.splice(0..0, [no_trace, short_id]);
    let body = mixed.encode_to_vec();

    let reply = grpc.export(Signal::Traces, &body);
    let partial = ExportTraceServiceResponse::decode(reply.body.as_slice()).unwrap().partial_success.unwrap();
    assert_eq!((reply.code, partial.rejected_spans), (0, 2));
    assert!(partial.error_message.contains("trace id"), "{}", partial.error_message);
    let bad = traffic::request("a", vec![span([0; 16], None, "zero", 1)]);
    let reply = http::post(http, "/v1/traces", PROTOBUF, &bad.encode_to_vec());
    let partial = ExportTraceServiceResponse::decode(reply.body.as_slice()).unwrap().partial_success.unwrap();
    assert_eq!((reply.status, partial.rejected_spans), (200, 1));
    let reply = http::post(http, "/v1/traces", JSON, &serde_json::to_vec(&bad).unwrap());
    assert_eq!((reply.status, reply.json()["partialSuccess"]["rejectedSpans"].as_str()), (200, Some("1")));

    for malformed in [&body[..body.len() - 1], b"\xff\xff\xff", b"{}"] {
        let reply = grpc.export(Signal::Traces, malformed);
        assert_eq!(reply.code, 3, "INVALID_ARGUMENT: {reply:?}");
        let reply = http::post(http, "/v1/traces", PROTOBUF, malformed);
        assert_eq!(reply.status, 400, "{}", reply.text());
    }
    assert_eq!(http::post(http, "/v1/traces", JSON, b"{\"resourceSpans\":[").status, 400);
    assert_eq!(http::post(http, "/v1/traces", "text/plain", b"").status, 415);
    assert_eq!(http::post(http, "/v1/nothing", PROTOBUF, b"").status, 404);
    // An empty request is a request.
    assert_eq!(http::post(http, "/v1/traces", PROTOBUF, b"").status, 200);
    assert_eq!(grpc.export(Signal::Traces, b"").code, 0);

    let accounts = tailkeep.accounts();
    assert_eq!(accounts.sum("tailkeep_spans_rejected_total", &["reason=\"bad_id\""]), 4.0);
    assert_eq!(accounts.sum("tailkeep_requests_total", &["signal=\"traces\"", "outcome=\"malformed\""]), 7.0);
    eventually("the good spans arrive", || (sink.spans().len() >= 4).then_some(()));
    tailkeep.stop();
    assert_same(&sink.spans(), &good.placed());
}

/// Their own logs often say no more than "connection reset" or "404".
#[test]
fn clients_on_the_wrong_port_or_path_are_named_in_the_log() {
    let stray = "a client sends what cannot be taken";
    let told = |send: &dyn Fn(&super::collector::Ports)| {
        let tailkeep = Setup::new().store().start();
        send(&tailkeep.ports);
        let what = tailkeep.wait_for_log(stray)["why"].as_str().expect("a text").to_owned();
        send(&tailkeep.ports);
        assert_eq!(tailkeep.logged(stray), 1, "once a minute");
        tailkeep.stop();
        what
    };
    let body = Trace::ok().body();
    let http_to_grpc = told(&|ports| drop(http::request(ports.grpc, "POST", "/v1/traces", &[], &body)));
    assert!(http_to_grpc.contains("HTTP/1 on the port of OTLP/gRPC"), "{http_to_grpc}");
    let wrong_path = told(&|ports| drop(http::request(ports.http, "POST", "/v1/trace", &[], &body)));
    assert!(wrong_path.contains("/v1/traces, /v1/metrics"), "{wrong_path}");
    let grpc_to_http = told(&|ports| drop(Grpc::connect(ports.http).try_export(Signal::Traces, &body)));
    assert!(grpc_to_http.contains("gRPC on the port of OTLP/HTTP"), "{grpc_to_http}");
}
