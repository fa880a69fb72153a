//! Everything at once: the parts of a trace from several clients, repetitions, eviction, reloads.

use super::collector::{POLICY, Setup};
use super::grpc::Grpc;
use super::sink::Sink;
use super::traffic::{self, Trace, fresh_trace_id, span, text};
use prost::Message;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tailkeep::trace::Signal;

const TRACES: usize = 900;

/// Sends one service's part of every trace; every eighth twice, as after a lost answer.
fn send_part(address: std::net::SocketAddr, traces: &[Trace], part: usize) -> usize {
    let mut grpc = Grpc::connect(address);
    let mut spans = 0;
    for (n, trace) in traces.iter().enumerate() {
        let request = &trace.requests[part];
        let body = request.encode_to_vec();
        let times = if (n + part).is_multiple_of(8) { 2 } else { 1 };
        for _ in 0..times {
            assert_eq!(grpc.export(Signal::Traces, &body).code, 0);
            spans += traffic::placed(request).len();
        }
    }
    spans
}

/// Fast traces of one large span each, until told to stop: more than the ring holds.
fn flood(address: std::net::SocketAddr, stop: &AtomicBool) -> usize {
    let mut grpc = Grpc::connect(address);
    let payload = text("db.query.text", &"x".repeat(32 << 10));
    let mut spans = 0;
    while !stop.load(Relaxed) {
        let fast = || {
            let mut span = span(fresh_trace_id(), None, "GET /", 1);
            span.attributes.push(payload.clone());
            span
        };
        let request = traffic::request("flood", (0..16).map(|_| fast()).collect());
        assert_eq!(grpc.export(Signal::Traces, &request.encode_to_vec()).code, 0);
        spans += 16;
        std::thread::sleep(Duration::from_millis(10));
    }
    spans
}

#[test]
fn nothing_is_lost_or_doubled_when_everything_happens_at_once() {
    let sink = Sink::start();
    let tailkeep = Setup::new().otlp("stub", &sink).settings("memory: 128MiB\nring: { size: 64MiB }").start();
    let traces: Vec<Trace> = (0..TRACES).map(|n| if n % 3 == 0 { Trace::failed() } else { Trace::ok() }).collect();
    let (stop, address, file) = (AtomicBool::new(false), tailkeep.ports.grpc, tailkeep.path().join("policy.yaml"));
    let sent: usize = std::thread::scope(|scope| {
        let (stop, traces, tailkeep) = (&stop, &traces, &tailkeep);
        let flood = scope.spawn(move || flood(address, stop));
        let reloads = scope.spawn(move || {
            // Each version asks another question, so that facts grow stale.
            for number in 0.. {
                let rule =
                    format!("  - {{ name: never, when: {{ any_span: {{ name: never-{number} }} }}, keep: all }}\n");
                std::fs::write(&file, POLICY.replace("otherwise", &format!("{rule}otherwise"))).unwrap();
                tailkeep.signal("HUP");
                std::thread::sleep(Duration::from_millis(200));
                if stop.load(Relaxed) {
                    return;
                }
            }
        });
        let parts: Vec<_> = (0..3).map(|part| scope.spawn(move || send_part(address, traces, part))).collect();
        let sent: usize = parts.into_iter().map(|part| part.join().unwrap()).sum();
        tailkeep.wait_for("the ring is full", |accounts| {
            accounts.sum("tailkeep_spans_dropped_total", &["service=\"flood\""]) > 0.0
        });
        stop.store(true, Relaxed);
        reloads.join().unwrap();
        sent + flood.join().unwrap()
    });
    let accounts = tailkeep.accounts();
    assert_eq!(accounts.sum("tailkeep_spans_received_total", &[]), sent as f64);
    assert_eq!(accounts.sum("tailkeep_spans_rejected_total", &[]), 0.0);
    assert!(accounts.sum("tailkeep_policy_number", &[]) > 4.0, "no policy was put in force meanwhile");
    tailkeep.stop();

    let out = sink.traces();
    let mut seen = HashSet::new();
    for placed in out.values().flatten() {
        let id = (placed.trace_id(), placed.span.span_id.clone());
        assert!(seen.insert(id.clone()), "{id:?} came out twice");
    }
    let failed: BTreeMap<String, &Trace> = traces.iter().step_by(3).map(|trace| (trace.hex(), trace)).collect();
    assert_eq!(out.keys().collect::<Vec<_>>(), failed.keys().collect::<Vec<_>>(), "exactly the failed traces");
    for (id, trace) in failed {
        let marks: HashMap<&str, &str> = out[&id].iter().flat_map(|span| span.marks()).collect();
        if !marks.contains_key("incomplete") {
            traffic::assert_same(&out[&id], &trace.placed());
        }
    }
}
