//! What comes out: failed and slow traces, whole and once, whatever brought them in; nothing else.

use super::collector::{Setup, eventually};
use super::grpc::Grpc;
use super::http;
use super::sink::Sink;
use super::traffic::{Placed, Trace, assert_same, fail};
use prost::Message;
use std::collections::BTreeMap;
use tailkeep::trace::Signal;

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

/// The kinds of trace that a service makes on an ordinary day.
struct Day {
    kept: Vec<(Trace, [(&'static str, &'static str); 3])>,
    dropped: Vec<Trace>,
}

impl Day {
    fn new() -> Day {
        let failed = [("reason", "failed"), ("rule", "keep-errors"), ("trigger", "root")];
        let slow = [("reason", "slow"), ("rule", "keep-slow"), ("trigger", "root")];
        let mut both = Trace::slow();
        fail(&mut both.requests[0].resource_spans[0].scope_spans[0].spans[0]);
        Day {
            kept: vec![(Trace::failed(), failed), (Trace::slow(), slow), (both, failed), (Trace::of(500), slow)],
            dropped: vec![Trace::ok(), Trace::of(0), Trace::of(499)],
        }
    }

    fn traces(&self) -> impl Iterator<Item = &Trace> {
        self.kept.iter().map(|(trace, _)| trace).chain(&self.dropped)
    }

    fn assert_came_out(&self, sink: &Sink) {
        let sent: Vec<Placed> = self.kept.iter().flat_map(|(trace, _)| trace.placed()).collect();
        assert_same(&sink.spans(), &sent);
        let out = sink.traces();
        for (trace, marks) in &self.kept {
            let spans = &out[&trace.hex()];
            for span in spans {
                let is_root = span.span.parent_span_id.is_empty();
                let expected = if is_root { BTreeMap::from(*marks) } else { BTreeMap::new() };
                assert_eq!(span.marks(), expected, "{}", span.span.name);
                assert_eq!(span.weight(), Some("th:0"), "{}", span.span.name);
            }
        }
    }
}

#[test]
fn failed_and_slow_traces_come_out_whole_and_once_over_every_protocol() {
    let sink = Sink::start();
    let tailkeep = Setup::new().otlp("stub", &sink).start();
    let days = [Day::new(), Day::new(), Day::new(), Day::new()];
    let [over_grpc, over_protobuf, over_json, at_once] = &days;
    over_grpc.traces().for_each(|trace| tailkeep.send(trace));
    for request in over_protobuf.traces().flat_map(|trace| &trace.requests) {
        let reply = http::post(tailkeep.ports.http, "/v1/traces", PROTOBUF, &request.encode_to_vec());
        assert_eq!((reply.status, reply.header("content-type"), reply.body.len()), (200, Some(PROTOBUF), 0));
    }
    for request in over_json.traces().flat_map(|trace| &trace.requests) {
        let body = serde_json::to_vec(request).unwrap();
        let reply = http::post(tailkeep.ports.http, "/v1/traces", JSON, &body);
        assert_eq!((reply.status, reply.text().as_str()), (200, "{}"));
    }
    // All traces in one request.
    let body: Vec<u8> = at_once.traces().flat_map(|trace| trace.whole().encode_to_vec()).collect();
    assert_eq!(Grpc::connect(tailkeep.ports.grpc).export(Signal::Traces, &body).code, 0);

    let kept = 4 * 4 * days.len();
    eventually("what is kept arrives", || (sink.spans().len() >= kept).then_some(()));
    let accounts = tailkeep.wait_for("all traces are judged", |accounts| {
        accounts.sum("tailkeep_traces_judged_total", &["verdict=\"drop\""]) == 3.0 * 4.0
    });
    assert_eq!(accounts.sum("tailkeep_spans_kept_total", &["service=\"gateway\""]), (kept / 2) as f64);
    // The end counts what is still held.
    tailkeep.stop();
    let all = Day { kept: days.into_iter().flat_map(|day| day.kept).collect(), dropped: Vec::new() };
    all.assert_came_out(&sink);
}

#[test]
fn a_late_error_brings_a_dropped_trace_out_whole_and_once() {
    let sink = Sink::start();
    let tailkeep = Setup::new().otlp("stub", &sink).start();
    let (late, other) = (Trace::failed(), Trace::ok());
    let [gateway, checkout, payment] = &late.requests;
    let mut grpc = Grpc::connect(tailkeep.ports.grpc);
    for request in [gateway, checkout] {
        assert_eq!(grpc.export(Signal::Traces, &request.encode_to_vec()).code, 0);
    }
    tailkeep.send(&other);
    let why = tailkeep.wait_for_verdict(&late, "dropped");
    assert_eq!((why["rule"].as_str(), why["seen"]["spans"].as_u64()), (Some("otherwise"), Some(3)));
    // A span that changes nothing leaves it dropped.
    tailkeep.wait_for_verdict(&other, "dropped");
    // The failing span comes twice: a client repeats what it got no answer for.
    for _ in 0..2 {
        assert_eq!(grpc.export(Signal::Traces, &payment.encode_to_vec()).code, 0);
    }
    tailkeep.wait_for_verdict(&late, "kept");
    eventually("the whole trace arrives", || (sink.spans().len() >= 4).then_some(()));
    let accounts = tailkeep.accounts();
    assert_eq!(accounts.sum("tailkeep_verdicts_changed_total", &["rule=\"keep-errors\""]), 1.0);
    assert_eq!(accounts.sum("tailkeep_spans_duplicate_total", &[]), 1.0);
    tailkeep.stop();
    assert_same(&sink.spans(), &late.placed());
    let spans = sink.spans();
    let entry = spans.iter().find(|span| span.span.parent_span_id.is_empty()).unwrap();
    assert_eq!((entry.marks()["rule"], entry.marks()["trigger"]), ("keep-errors", "late"));
}

#[test]
fn spans_of_a_kept_trace_follow_it() {
    let sink = Sink::start();
    let tailkeep = Setup::new().otlp("stub", &sink).start();
    let trace = Trace::slow();
    let [gateway, checkout, payment] = &trace.requests;
    let mut grpc = Grpc::connect(tailkeep.ports.grpc);
    assert_eq!(grpc.export(Signal::Traces, &gateway.encode_to_vec()).code, 0);
    eventually("the first part arrives", || (sink.spans().len() == 2).then_some(()));
    assert_eq!(grpc.export(Signal::Traces, &checkout.encode_to_vec()).code, 0);
    eventually("a single span arrives", || (sink.spans().len() == 3).then_some(()));
    assert_eq!(grpc.export(Signal::Traces, &payment.encode_to_vec()).code, 0);
    eventually("the rest arrives", || (sink.spans().len() == 4).then_some(()));
    tailkeep.stop();
    assert_same(&sink.spans(), &trace.placed());
    let spans = sink.spans();
    let followed = spans.iter().find(|span| span.span.name == "POST /checkout").unwrap();
    assert_eq!(followed.marks()["incomplete"], "late", "it says that its trace left before it");
    assert!(spans.iter().all(|span| span.weight() == Some("th:0")));
}

#[test]
fn shares_are_delivered_with_their_weight_once_settled() {
    let policy = super::collector::POLICY.replace("keep: none", "keep: 25%");
    let sink = Sink::start();
    let tailkeep = Setup::new().policy(&policy).otlp("stub", &sink).start();
    // Randomness is the low 56 bits: at least 3/4 of the range passes a share of 1/4.
    let with_low = |low: u8| Trace::with_id([1, 2, 3, 4, 5, 6, 7, 8, 0xff, low, 9, 9, 9, 9, 9, 9], 20);
    let (passes, fails) = (with_low(0xc0), with_low(0xbf));
    tailkeep.send(&passes);
    tailkeep.send(&fails);
    tailkeep.wait_for_verdict(&fails, "dropped");
    eventually("the share arrives", || (sink.spans().len() >= 4).then_some(()));
    tailkeep.stop();
    assert_same(&sink.spans(), &passes.placed());
    assert!(sink.spans().iter().all(|span| span.weight() == Some("th:c")), "{:?}", sink.spans()[0].weight());
}
