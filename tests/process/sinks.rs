//! Sinks that are away, slow, full or silent: each gets what it is owed, and none holds up another.

use super::collector::{Setup, Tailkeep, eventually};
use super::sink::{Mood, Reserved, Sink};
use super::traffic::{Placed, Trace, assert_same};
use std::time::Duration;

fn send(tailkeep: &Tailkeep, count: usize) -> Vec<Placed> {
    let traces: Vec<Trace> = (0..count).map(|_| Trace::failed()).collect();
    tailkeep.send_all(&traces);
    traces.iter().flat_map(Trace::placed).collect()
}

fn wait_for_spans(sink: &Sink, count: usize) {
    eventually("the sink gets its spans", || (sink.spans().len() >= count).then_some(()));
}

fn ids(spans: &[Placed]) -> Vec<String> {
    spans.iter().map(|span| format!("{}/{}", span.trace_id(), super::traffic::hex(&span.span.span_id))).collect()
}

/// The other goes on while `away` takes nothing; then `away` gets all of it, in the same order.
fn assert_recovers(
    tailkeep: Tailkeep,
    taking: &Sink,
    name: &str,
    recover: impl FnOnce() -> Option<Sink>,
    away: Option<&Sink>,
) {
    let mut sent = send(&tailkeep, 5);
    wait_for_spans(taking, sent.len());
    sent.extend(send(&tailkeep, 5));
    wait_for_spans(taking, sent.len());
    let of_away = format!("sink=\"{name}\"");
    let accounts = tailkeep.accounts();
    assert_eq!(accounts.sum("tailkeep_sink_queued", &[&of_away, "signal=\"traces\""]), sent.len() as f64);
    assert_eq!(accounts.sum("tailkeep_sink_delivered_total", &[&of_away]), 0.0);
    tailkeep.wait_for_log("could not deliver; will try again");

    let opened = recover();
    let recovered = opened.as_ref().or(away).expect("one of both is there");
    wait_for_spans(recovered, sent.len());
    sent.extend(send(&tailkeep, 1));
    wait_for_spans(recovered, sent.len());
    tailkeep.stop();
    assert_same(&taking.spans(), &sent);
    assert_same(&recovered.spans(), &sent);
    assert_eq!(ids(&recovered.spans()), ids(&taking.spans()), "in the order in which it was kept");
}

#[test]
fn a_sink_that_is_down_gets_what_it_is_owed_in_order() {
    let (taking, down) = (Sink::start(), Reserved::new());
    let endpoint = format!("otlp: {{ endpoint: 'http://{}', compression: none }}", down.address());
    let tailkeep = Setup::new().otlp("taking", &taking).sink("down", &endpoint).start();
    assert_recovers(tailkeep, &taking, "down", || Some(down.open()), None);
}

#[test]
fn a_sink_that_answers_503_gets_what_it_is_owed_in_order() {
    let (taking, ill) = (Sink::start(), Sink::start());
    ill.becomes(Mood::IsUnavailable);
    let over_http = format!("otlp: {{ endpoint: '{}', protocol: http }}", ill.endpoint());
    let tailkeep =
        Setup::new().sink("ill", &over_http.replace(" }", ", compression: none }")).otlp("taking", &taking).start();
    let recover = || {
        ill.becomes(Mood::Takes);
        None
    };
    assert_recovers(tailkeep, &taking, "ill", recover, Some(&ill));
    assert!(ill.attempts() > ill.taken(tailkeep::trace::Signal::Traces).len(), "it was never asked in vain");
}

#[test]
fn a_sink_that_hangs_is_given_up_and_asked_again() {
    let (taking, hanging) = (Sink::start(), Sink::start());
    hanging.becomes(Mood::Hangs);
    let endpoint = format!("otlp: {{ endpoint: '{}', compression: none, timeout: 1s }}", hanging.endpoint());
    let tailkeep = Setup::new().otlp("taking", &taking).sink("hanging", &endpoint).start();
    let recover = || {
        hanging.becomes(Mood::Takes);
        None
    };
    assert_recovers(tailkeep, &taking, "hanging", recover, Some(&hanging));
}

#[test]
fn a_slow_sink_holds_nobody_up() {
    let (slow, fast) = (Sink::start(), Sink::start());
    slow.becomes(Mood::Dawdles(Duration::from_secs(1)));
    let tailkeep = Setup::new().otlp("slow", &slow).otlp("fast", &fast).start();
    let first = send(&tailkeep, 1);
    eventually("the slow one is busy", || (slow.attempts() == 1).then_some(()));
    let sent = [first, send(&tailkeep, 5)].concat();
    wait_for_spans(&fast, sent.len());
    assert!(slow.spans().len() < sent.len(), "the fast one had to wait for the slow one");
    tailkeep.stop();
    assert_same(&slow.spans(), &sent);
}

#[test]
fn a_queue_that_overflows_loses_the_oldest_and_says_so() {
    let (taking, away) = (Sink::start(), Sink::start());
    away.becomes(Mood::IsUnavailable);
    let setup = Setup::new().otlp("taking", &taking).otlp("away", &away);
    let tailkeep = setup.settings("queue: { memory: { traces: 256KiB } }").start();
    let mut sent = Vec::new();
    let discarded = "tailkeep_sink_discarded_total";
    let overflowed =
        |tailkeep: &Tailkeep| tailkeep.accounts().sum(discarded, &["sink=\"away\"", "reason=\"queue_full\""]);
    while overflowed(&tailkeep) == 0.0 {
        assert!(sent.len() < 10_000, "the queue never overflows");
        sent.extend(send(&tailkeep, 100));
        wait_for_spans(&taking, sent.len());
    }
    let said = tailkeep.wait_for_log("the queue is full");
    assert_eq!(said["signal"], "traces");
    away.becomes(Mood::Takes);
    let lost = overflowed(&tailkeep) as usize;
    wait_for_spans(&away, sent.len() - lost);
    assert_eq!(tailkeep.accounts().sum(discarded, &["sink=\"taking\""]), 0.0, "the other sink lost nothing");
    assert_eq!(tailkeep.end("TERM").status.code(), Some(0));
    assert_same(&taking.spans(), &sent);
    // The newest are there.
    let (got, all) = (ids(&away.spans()), ids(&taking.spans()));
    assert_eq!(got.len(), all.len() - lost);
    assert_eq!(got.last(), all.last());
    assert!(got.iter().all(|id| all.contains(id)));
}
