//! Fixed memory under more than fits: must-keeps come out, what does not fit is refused, nothing grows.

use super::collector::{POLICY, Setup, eventually};
use super::grpc::Grpc;
use super::http;
use super::sink::Sink;
use super::traffic::{self, Placed, Trace, assert_same, fail, fresh_trace_id, span, text};
use prost::Message;
use std::collections::BTreeSet;
use std::io::Write;
use tailkeep::trace::Signal;

const PROTOBUF: &str = "application/x-protobuf";
const MIB: u64 = 1 << 20;

/// A request with many fast traces of one large span each.
fn filler(traces: usize, bytes: usize) -> Vec<u8> {
    let payload = text("db.query.text", &"x".repeat(bytes));
    let fast = |_| {
        let mut span = span(fresh_trace_id(), None, "GET /", 1);
        span.attributes.push(payload.clone());
        span
    };
    traffic::request("filler", (0..traces).map(fast).collect()).encode_to_vec()
}

#[test]
fn more_than_fits_makes_the_ring_younger_and_keeps_what_must_be_kept() {
    let sink = Sink::start();
    // Nothing is due by itself: whatever is judged is judged because its memory is needed.
    let policy =
        POLICY.replace("after_root: 200ms, idle: 400ms, longest: 1s", "after_root: 30s, idle: 60s, longest: 60s");
    let setup = Setup::new().policy(&policy).otlp("stub", &sink);
    let tailkeep = setup.settings("memory: 48MiB\nring: { size: 16MiB }\nqueue: { memory: { traces: 8MiB } }").start();
    let mut grpc = Grpc::connect(tailkeep.ports.grpc);
    let mut kept = Vec::new();
    let dropped: Vec<Trace> = (0..8).map(|_| Trace::ok()).collect();
    tailkeep.send_all(&dropped);
    for round in 0..64 {
        let trace = Trace::failed();
        tailkeep.send(&trace);
        kept.push(trace);
        // 1.5 MiB each: six rings in all, of few traces, so that their verdicts are remembered.
        assert_eq!(grpc.export(Signal::Traces, &filler(48, 32 << 10)).code, 0, "round {round}");
    }
    let accounts = tailkeep.accounts();
    let by_memory = accounts.sum("tailkeep_traces_judged_total", &["trigger=\"memory\"", "verdict=\"keep\""]);
    assert!(by_memory >= 40.0, "{by_memory} traces were kept because their memory was needed");
    assert_eq!(accounts.sum("tailkeep_traces_judged_total", &["trigger=\"root\""]), 0.0);
    assert!(accounts.sum("tailkeep_ring_seconds", &[]) < 30.0);

    // Fingerprints share buckets: now and then one has made room for newer ones.
    let remembered: Vec<_> =
        dropped.iter().map(|trace| tailkeep.why(trace)).filter(|why| why["verdict"] != "unknown").collect();
    assert!(remembered.len() >= 4, "{remembered:?}");
    let why = &remembered[0];
    assert_eq!((why["verdict"].as_str(), why["source"].as_str()), (Some("dropped"), Some("memory")), "{why}");
    assert_eq!(why["rule"], "otherwise");
    assert_eq!((&why["trigger"], &why["policy"]), (&"memory".into(), &1.into()), "{why}");
    assert!(why["note"].as_str().unwrap().contains("very likely"), "{why}");
    let why = tailkeep.why(&kept[0]);
    assert_eq!((&why["trigger"], &why["policy"]), (&"memory".into(), &1.into()), "{why}");
    assert_eq!((why["verdict"].as_str(), why["source"].as_str()), (Some("kept"), Some("memory")), "{why}");

    let warning = tailkeep.wait_for_log("the ring is too small to wait for roots");
    let message = warning["message"].as_str().unwrap();
    let needed: u64 =
        message.split("ring.size: ").nth(1).and_then(|rest| rest.split("MiB").next()).unwrap().parse().unwrap();
    assert!(needed > 16, "{message}");
    let most = tailkeep.memory_kib("VmHWM") / 1024;
    assert!(most < 48 + 48, "{most} MiB were resident, 48 of them are asked for");
    tailkeep.stop();
    let sent: Vec<Placed> = kept.iter().flat_map(Trace::placed).collect();
    assert_same(&sink.spans(), &sent);
    let spans = sink.spans();
    let triggers: BTreeSet<&str> = spans.iter().filter_map(|span| span.marks().get("trigger").copied()).collect();
    assert!(triggers.contains("memory"), "{triggers:?}");
}

#[test]
fn a_late_span_does_not_hide_what_the_store_has_of_its_trace() {
    let tailkeep = Setup::new().store().settings("memory: 48MiB\nring: { size: 16MiB }").start();
    let trace = Trace::failed();
    tailkeep.send(&trace);
    tailkeep.wait_for("it is stored", |accounts| accounts.sum("tailkeep_sink_delivered_total", &[]) >= 4.0);
    let mut grpc = Grpc::connect(tailkeep.ports.grpc);
    for round in 0..20 {
        assert_eq!(grpc.export(Signal::Traces, &filler(48, 32 << 10)).code, 0, "round {round}");
    }
    assert_eq!(tailkeep.why(&trace)["source"], "store", "it has left the ring");
    let entry = trace.requests[0].resource_spans[0].scope_spans[0].spans[0].clone();
    let late = span(entry.trace_id.as_slice().try_into().unwrap(), Some(&entry), "late", 1);
    assert_eq!(grpc.export(Signal::Traces, &traffic::request("front", vec![late]).encode_to_vec()).code, 0);
    tailkeep.wait_for("it is stored too", |accounts| accounts.sum("tailkeep_sink_delivered_total", &[]) >= 5.0);
    let why = tailkeep.why(&trace);
    assert_eq!((why["source"].as_str(), why["seen"]["spans"].as_u64()), (Some("store"), Some(5)), "{why}");
    assert!(why["policy"].is_u64(), "what the ring knows of the verdict is told as well: {why}");
    let shown = tailkeep.ask(&format!("/traces/{}", trace.hex())).text();
    assert_eq!(shown.matches("\"startTimeUnixNano\"").count(), 5, "{shown}");
    tailkeep.stop();
}

#[test]
fn a_giant_trace_harms_nobody() {
    const SPANS: usize = 100_000;
    let sink = Sink::start();
    let tailkeep = Setup::new().otlp("stub", &sink).settings("memory: 64MiB\nring: { size: 24MiB }").start();
    let id = fresh_trace_id();
    let root = span(id, None, "loop", 100);
    let mut grpc = Grpc::connect(tailkeep.ports.grpc);
    let mut normal = Vec::new();
    // Each body is sent ten times: by then the trace is beyond its part of the ring, and none of it is stored.
    let steps =
        |_| traffic::request("runaway", (0..1000).map(|_| span(id, Some(&root), "step", 1)).collect()).encode_to_vec();
    let bodies: Vec<Vec<u8>> = (0..SPANS / 10_000).map(steps).collect();
    for n in 0..SPANS / 1000 {
        assert_eq!(grpc.export(Signal::Traces, &bodies[n % bodies.len()]).code, 0);
        let trace = Trace::failed();
        tailkeep.send(&trace);
        normal.push(trace);
    }
    let mut last = root;
    fail(&mut last);
    assert_eq!(grpc.export(Signal::Traces, &traffic::request("runaway", vec![last]).encode_to_vec()).code, 0);
    tailkeep.wait_for("the giant is kept", |accounts| {
        accounts.sum("tailkeep_spans_kept_total", &["service=\"runaway\""]) > 0.0
    });
    let accounts = tailkeep.accounts();
    let of_giant = |name: &str| accounts.sum(name, &["service=\"runaway\""]);
    assert_eq!(of_giant("tailkeep_spans_accepted_total"), SPANS as f64 + 1.0);
    assert!(of_giant("tailkeep_spans_over_limit_total") > 50_000.0);
    tailkeep.stop();
    let (giant, others): (Vec<Placed>, Vec<Placed>) =
        sink.spans().into_iter().partition(|span| span.span.trace_id == id);
    assert_same(&others, &normal.iter().flat_map(Trace::placed).collect::<Vec<_>>());
    assert!(giant.len() < 50_000, "{} spans came out", giant.len());
    let mut marked = giant.iter().map(Placed::marks).filter(|marks| !marks.is_empty());
    assert!(marked.all(|marks| marks["incomplete"] == "limit"), "it says that it is not whole");
}

/// As large as the OTLP specification wants it by default.
#[test]
fn a_request_of_twenty_mebibytes_is_taken_over_both_protocols() {
    let tailkeep = Setup::new().settings("memory: 512MiB\nmeasure: off").start();
    let spans = 630;
    let large = filler(spans, 32 << 10);
    assert!((19 * MIB..=20 * MIB).contains(&(large.len() as u64)), "{}", large.len());
    assert_eq!(Grpc::connect(tailkeep.ports.grpc).export(Signal::Traces, &large).code, 0);
    assert_eq!(http::post(tailkeep.ports.http, "/v1/traces", PROTOBUF, &large).status, 200);
    assert_eq!(tailkeep.accounts().sum("tailkeep_spans_accepted_total", &[]), 2.0 * spans as f64);
    tailkeep.stop();
}

#[test]
fn requests_are_refused_when_the_bytes_in_flight_are_spent() {
    let sink = Sink::start();
    let receive = "receive: { grpc: '127.0.0.1:0', http: '127.0.0.1:0', max_request: 1MiB, in_flight: 2MiB }";
    let mut tailkeep = Setup::new().otlp("stub", &sink).settings(receive).start();
    let (address, body) = (tailkeep.ports.http, vec![0; MIB as usize]);
    let trace = Trace::failed();
    let mut grpc = Grpc::connect(tailkeep.ports.grpc);
    // Two clients that send a mebibyte but for its last byte hold all there is, until they are sent away for it.
    let mut held = Vec::new();
    let (over_http, over_grpc) = eventually("both are refused", || {
        held.extend((0..2).map(|_| {
            let headers = [("content-type", PROTOBUF)];
            let mut stream = http::begin(address, "POST", "/v1/traces", &headers, body.len()).unwrap();
            stream.write_all(&body[1..]).unwrap();
            stream
        }));
        tailkeep.wait_for("they are heard", |accounts| {
            accounts.sum("tailkeep_in_flight_bytes", &[]) >= 2.0 * MIB as f64
                || accounts.sum("tailkeep_requests_total", &["outcome=\"too_slow\""]) > 0.0
        });
        let large = filler(200, 4096);
        let reply = http::post(address, "/v1/traces", PROTOBUF, &large);
        let status = grpc.export(Signal::Traces, &large);
        (reply.status == 503 && status.code != 0).then_some((reply, status))
    });
    assert_eq!(over_http.header("retry-after"), Some("1"), "{}", over_http.text());
    assert_eq!((over_grpc.code, over_grpc.has_details), (14, true), "UNAVAILABLE with RetryInfo: {over_grpc:?}");
    assert!(!over_grpc.message.is_empty());
    assert_eq!(http::get(tailkeep.ports.health, "/readyz").unwrap().status, 200, "overload is not being away");
    assert!(tailkeep.accounts().sum("tailkeep_requests_total", &["outcome=\"refused\""]) >= 2.0);
    // Beyond the largest request, sending again would not help.
    let large = filler(300, 4096);
    assert_eq!(http::post(address, "/v1/traces", PROTOBUF, &large).status, 413);

    // Who holds and brings nothing gives way, though nobody hangs up.
    eventually("it is taken again", || {
        (http::post(address, "/v1/traces", PROTOBUF, &trace.body()).status == 200).then_some(())
    });
    tailkeep.wait_for("they were sent away", |accounts| {
        accounts.sum("tailkeep_requests_total", &["outcome=\"too_slow\""]) > 0.0
    });
    drop(held);
    assert!(tailkeep.is_alive());
    tailkeep.stop();
    assert_same(&sink.spans(), &trace.placed());
}
