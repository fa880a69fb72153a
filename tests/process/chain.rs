//! Several tailkeeps, one after the other, and in a circle.

use super::collector::{Setup, eventually};
use super::sink::Sink;
use super::traffic::{Trace, assert_same};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

/// A port that nobody has now. Below those that the system gives to others.
fn free_port() -> SocketAddr {
    let start = 20_000 + (std::process::id() % 1000) as u16 * 10;
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

#[test]
fn a_circle_is_broken_by_whoever_sees_its_own_mark() {
    let back = free_port();
    let second = Setup::new().settings("measure: off").sink("back", &otlp(back)).start();
    let first = Setup::new().settings("measure: off").grpc(back).sink("forth", &otlp(second.ports.grpc)).start();
    let trace = Trace::failed();
    first.send(&trace);
    first.wait_for("the first refuses what it has seen", |books| {
        books.sum("tailkeep_requests_total", &["outcome=\"looped\""]) >= 1.0
    });
    let refused = second.wait_for("the second gives it up", |books| {
        books.sum("tailkeep_sink_discarded_total", &["sink=\"back\"", "reason=\"refused\""]) == 4.0
    });
    assert_eq!(refused.sum("tailkeep_spans_received_total", &[]), 4.0);
    let said = second.wait_for_log("discarded what the sink does not take");
    assert!(said["reason"].as_str().unwrap().contains("leads back to it"), "{said}");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(first.books().sum("tailkeep_spans_received_total", &[]), 4.0, "it went round");
    assert_eq!(first.end("TERM").status.code(), Some(0));
    assert_eq!(second.end("TERM").status.code(), Some(0));
}
