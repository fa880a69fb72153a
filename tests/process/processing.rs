//! What leaves is processed, everywhere: to sinks, in the queue on disk, in the store and to whoever asks.

use super::collector::{Setup, Tailkeep};
use super::grpc::Grpc;
use super::sink::{Reserved, Sink};
use super::traffic::{fail, fresh_trace_id, request, span, text};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use prost::Message;
use std::sync::Arc;
use tailkeep::trace::Signal;
use tempfile::TempDir;

/// None of it may leave.
const PRIVATE: [&str; 4] = ["cookie-4711", "user-4711", "bob@shop.example", "13812345678"];

const PROCESSING: &str = r#"
processing:
  drop: ["http.request.header.*"]
  hash: [user.id]
  hash_key: ${env:HASH_KEY}
  mask: [email, cn_mobile]
  resource: { k8s.cluster.name: prod, service.name: nobody }
"#;

/// A failed trace of one span.
fn private_trace() -> (String, Vec<u8>) {
    let id = fresh_trace_id();
    let mut span = span(id, None, "GET /mail/bob@shop.example", 5);
    span.attributes.push(text("http.request.header.cookie", "cookie-4711"));
    span.attributes.push(text("user.id", "user-4711"));
    span.attributes.push(text("note", "手机13812345678"));
    fail(&mut span);
    (super::traffic::hex(&id), request("shop", vec![span]).encode_to_vec())
}

fn private_log() -> Vec<u8> {
    let body = AnyValue { value: Some(Value::StringValue("user-login bob@shop.example 13812345678".into())) };
    let attributes = vec![text("user.id", "user-4711"), text("http.request.header.cookie", "cookie-4711")];
    let record = LogRecord { body: Some(body), attributes, ..Default::default() };
    let scope_logs = vec![ScopeLogs { log_records: vec![record], ..Default::default() }];
    ExportLogsServiceRequest { resource_logs: vec![ResourceLogs { scope_logs, ..Default::default() }] }.encode_to_vec()
}

fn assert_processed(what: &str, bytes: &[u8]) {
    let shown = String::from_utf8_lossy(bytes);
    for private in PRIVATE {
        assert!(!shown.contains(private), "{private} is in {what}: {shown}");
    }
    assert!(shown.contains("****"), "{what} was not there at all: {shown}");
}

const POLICY: &str = "version: 1
wait: { after_root: 200ms, idle: 400ms, longest: 1s, settle: 300ms }
rules:
  - name: mine
    when: { any_span: { attributes: { user.id: user-4711 } } }
    keep: all
otherwise: { keep: none }
";

fn setup(folder: &Arc<TempDir>) -> Setup {
    Setup::in_folder(folder.clone(), POLICY).settings(PROCESSING).environment("HASH_KEY", "a key")
}

fn send(tailkeep: &Tailkeep) -> String {
    let mut grpc = Grpc::connect(tailkeep.ports.grpc);
    let (id, body) = private_trace();
    assert_eq!(grpc.export(Signal::Traces, &body).code, 0);
    assert_eq!(grpc.export(Signal::Logs, &private_log()).code, 0);
    id
}

#[test]
fn what_leaves_is_processed_and_rules_see_what_came() {
    let sink = Sink::start();
    let folder = Arc::new(TempDir::new().unwrap());
    let tailkeep = setup(&folder).store().otlp("sink", &sink).start();
    let id = send(&tailkeep);
    // The rule names the user, who does not leave.
    tailkeep.wait_for("the trace is kept", |accounts| accounts.sum("tailkeep_rule_spans_kept_total", &["mine"]) == 1.0);
    assert_processed("the ring's answer", &tailkeep.ask(&format!("/traces/{id}")).body);
    assert_processed("why", &tailkeep.ask(&format!("/why/{id}")).body);
    let accounts = tailkeep.accounts();
    let done = |signal: &str, action: &str| accounts.sum("tailkeep_processed_total", &[signal, action]);
    assert_eq!(["drop", "hash", "mask", "add"].map(|action| done("signal=\"logs\"", action)), [1.0, 1.0, 1.0, 2.0]);
    assert!(done("signal=\"traces\"", "mask") >= 2.0);
    tailkeep.stop();
    for signal in [Signal::Traces, Signal::Logs] {
        let taken = sink.taken(signal).concat();
        assert_processed(signal.word(), &taken);
        assert!(String::from_utf8_lossy(&taken).contains("k8s.cluster.name"));
    }
    // Only the log has no service.
    assert!(!String::from_utf8_lossy(&sink.taken(Signal::Traces).concat()).contains("nobody"));
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "db") {
            assert_processed("the store", &std::fs::read(path).unwrap());
        }
    }
}

#[test]
fn nothing_private_waits_on_disk() {
    let down = Reserved::new();
    let endpoint = format!("otlp: {{ endpoint: 'http://{}', compression: none }}", down.address());
    let folder = Arc::new(TempDir::new().unwrap());
    let tailkeep = setup(&folder).sink("down", &endpoint).settings("queue: { path: spool }").start();
    send(&tailkeep);
    let spool = folder.path().join("spool");
    tailkeep.wait_for("the log is queued", |accounts| {
        accounts.sum("tailkeep_queue_disk_bytes", &["logs"]) > 0.0
            && accounts.sum("tailkeep_queue_disk_bytes", &["traces"]) > 0.0
    });
    let all: Vec<u8> =
        std::fs::read_dir(spool).unwrap().flat_map(|f| std::fs::read(f.unwrap().path()).unwrap()).collect();
    assert_processed("the queue on disk", &all);
    tailkeep.kill();
}
