//! Several tailkeeps, one after the other, and in a circle.

use super::collector::{Setup, eventually};
use super::http;
use super::sink::Sink;
use super::traffic::{Trace, assert_same};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

/// Tests run side by side: each looks for a port of its own.
static ASKED: AtomicU16 = AtomicU16::new(0);

/// A port that nobody has now. Below those that the system gives to others.
fn free_port() -> SocketAddr {
    let start = 20_000 + (std::process::id() % 1000) as u16 * 10 + ASKED.fetch_add(1, Relaxed) * 3;
    let mut candidates = (start..32_000).chain(20_000..start).map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    candidates.find(|address| TcpListener::bind(address).is_ok()).expect("a port is free")
}

fn otlp(address: SocketAddr) -> String {
    format!("otlp: {{ endpoint: 'http://{address}', compression: none }}")
}

#[test]
fn what_passes_two_tailkeeps_carries_one_set_of_marks() {
    let sink = Sink::start();
    let second = Setup::new().policy(&super::collector::POLICY.replace("keep-", "second-")).otlp("stub", &sink).start();
    let first = Setup::new().sink("second", &otlp(second.ports.grpc)).start();
    let (failed, slow, fast) = (Trace::failed(), Trace::slow(), Trace::ok());
    [&failed, &slow, &fast].into_iter().for_each(|trace| first.send(trace));
    eventually("both arrive", || (sink.spans().len() >= 8).then_some(()));
    first.stop();
    second.stop();
    assert_same(&sink.spans(), &[failed.placed(), slow.placed()].concat());
    for span in sink.spans() {
        // `marks` refuses a key that is there twice.
        let marks = span.marks();
        let rule = marks.get("rule").copied();
        assert!(matches!(rule, None | Some("second-errors" | "second-slow")), "{rule:?}");
        assert_eq!(rule.is_some(), span.span.parent_span_id.is_empty(), "the entry alone is marked");
        assert_eq!(span.weight(), Some("th:0"));
        assert_eq!(span.span.trace_state.matches("ot=").count(), 1, "{}", span.span.trace_state);
    }
}

/// Through each of them in turn, and back to the first. Nobody loses what it holds, and two say it.
fn a_circle_of(length: usize) {
    let port = free_port();
    // Written as `check` does not recognise it: it knows a circle of one by its address.
    let mut next = SocketAddr::from((Ipv4Addr::LOCALHOST.to_ipv6_mapped(), port.port()));
    let mut circle = Vec::new();
    for _ in 1..length {
        let setup = Setup::new().settings("measure: off").sink("onward", &otlp(next));
        circle.push(setup.start());
        next = circle.last().expect("it was pushed").ports.grpc;
    }
    circle.push(Setup::new().settings("measure: off").grpc(port).sink("onward", &otlp(next)).start());
    let (first, last) = (circle.last().expect("one at least"), &circle[0]);
    let trace = Trace::failed();
    first.send(&trace);
    first.wait_for("the first refuses what it has seen", |accounts| {
        accounts.sum("tailkeep_requests_total", &["outcome=\"looped\""]) >= 1.0
    });
    let refused = first.wait_for_log("a client sends what cannot be taken");
    assert_eq!(refused["reason"], "looped", "{refused}");
    let said = last.wait_for_log("could not deliver; will try again");
    assert!(said["reason"].as_str().expect("a text").contains("leads back to it"), "{said}");
    assert_eq!(last.accounts().sum("tailkeep_sink_queued", &["sink=\"onward\""]), 4.0, "the last one keeps it");
    for each in &circle {
        let accounts = each.accounts();
        assert_eq!(accounts.sum("tailkeep_spans_received_total", &[]), 4.0, "once through each");
        assert_eq!(accounts.sum("tailkeep_sink_discarded_total", &[]), 0.0);
    }
    circle.into_iter().for_each(|each| assert_eq!(each.end("INT").status.code(), Some(0)));
}

#[test]
fn a_circle_of_one_is_found() {
    a_circle_of(1);
}

#[test]
fn a_circle_of_two_is_found() {
    a_circle_of(2);
}

#[test]
fn a_circle_of_three_is_found() {
    a_circle_of(3);
}

/// What a client says of a request's way must not stop what others sent.
#[test]
fn no_header_of_a_client_makes_the_next_one_refuse() {
    let sink = Sink::start();
    let gate = Setup::new().settings("instance: gate-0").otlp("stub", &sink).start();
    let first = Setup::new().sink("gate", &otlp(gate.ports.grpc)).start();
    let known = [
        "gate-0".to_owned(),
        "x".repeat(12_000),
        format!("{},gate-0", "11111111-1111-4111-8111-111111111111,".repeat(300)),
    ];
    for hops in known {
        let (headers, trace) =
            ([("content-type", "application/x-protobuf"), ("tailkeep-hop", hops.as_str())], Trace::failed());
        let reply = http::request(first.ports.http, "POST", "/v1/traces", &headers, &trace.body()).expect("an answer");
        assert_eq!(reply.status, 200);
    }
    let later = Trace::failed();
    first.send(&later);
    eventually("all of it arrives", || (sink.spans().len() == 16).then_some(()));
    assert_eq!(gate.accounts().sum("tailkeep_requests_total", &["outcome=\"looped\""]), 0.0);
    first.stop();
    gate.stop();
}
