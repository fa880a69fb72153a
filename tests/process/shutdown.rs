//! The end: the last spans of a pod get in, what waits is judged, and nobody waits for ever.

use super::collector::{POLICY, Setup, eventually};
use super::grpc::Grpc;
use super::http;
use super::sink::{Mood, Sink};
use super::traffic::{Trace, assert_same};
use std::io::Write;
use std::time::{Duration, Instant};
use tailkeep::trace::Signal;

/// Nothing is due before the process ends.
fn patient_policy() -> String {
    POLICY.replace("after_root: 200ms, idle: 400ms, longest: 1s", "after_root: 60s, idle: 60s, longest: 60s")
}

#[test]
fn what_is_sent_after_sigterm_on_a_new_connection_comes_out() {
    let sink = Sink::start();
    let setup = Setup::new().policy(&patient_policy()).otlp("stub", &sink);
    let tailkeep = setup.settings("drain: { accept: 4s, deadline: 30s }").start();
    let ports = tailkeep.ports;
    let [before, over_grpc, over_http] = [(); 3].map(|()| Trace::failed());
    let dropped = Trace::ok();
    tailkeep.send(&before);
    tailkeep.send(&dropped);
    assert_eq!(tailkeep.why(&before)["verdict"], "waiting");

    tailkeep.signal("TERM");
    let asked = Instant::now();
    eventually("/readyz is false", || http::get(ports.health, "/readyz").ok().filter(|reply| reply.status == 503));
    assert_eq!(http::get(ports.health, "/healthz").unwrap().status, 200, "draining is not being ill");
    assert_eq!(Grpc::connect(ports.grpc).export(Signal::Traces, &over_grpc.body()).code, 0);
    let reply = http::post(ports.http, "/v1/traces", "application/x-protobuf", &over_http.body());
    assert_eq!(reply.status, 200, "{}", reply.text());

    let ended = tailkeep.wait(asked);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(ended.after >= Duration::from_secs(4), "it accepted for {:?} only", ended.after);
    assert!(ended.after < Duration::from_secs(30), "it took {:?}", ended.after);
    assert_same(&sink.spans(), &[before.placed(), over_grpc.placed(), over_http.placed()].concat());
    let spans = sink.spans();
    let triggers: Vec<&str> = spans.iter().filter_map(|span| span.marks().get("trigger").copied()).collect();
    assert_eq!(triggers, ["drain"; 3]);
}

#[test]
fn a_busy_connection_is_told_to_go_and_loses_nothing() {
    let sink = Sink::start();
    let setup = Setup::new().policy(&patient_policy()).otlp("stub", &sink);
    let tailkeep = setup.settings("drain: { accept: 3s, deadline: 30s }").start();
    let mut grpc = Grpc::connect(tailkeep.ports.grpc);
    let (mut acknowledged, mut connections) = (Vec::new(), 1);
    let (address, asked) = (tailkeep.ports.grpc, Instant::now());
    tailkeep.signal("TERM");
    // As SDKs do: a connection that says goodbye is opened anew, until nobody listens.
    eventually("it stops receiving", || {
        let trace = Trace::failed();
        match grpc.try_export(Signal::Traces, &trace.body()) {
            Ok(status) => {
                assert_eq!(status.code, 0, "{status:?}");
                acknowledged.extend(trace.placed());
                None
            }
            Err(_) if std::net::TcpStream::connect(address).is_ok() => {
                grpc = Grpc::connect(address);
                connections += 1;
                None
            }
            Err(_) => Some(()),
        }
    });
    assert_eq!(tailkeep.wait(asked).status.code(), Some(0));
    assert!(connections >= 2, "the first connection was not told to go");
    assert_same(&sink.spans(), &acknowledged);
}

#[test]
fn a_person_who_presses_ctrl_c_does_not_wait_for_others() {
    let sink = Sink::start();
    let setup = Setup::new().policy(&patient_policy()).otlp("stub", &sink);
    let tailkeep = setup.settings("drain: { accept: 40s, deadline: 55s }").start();
    let trace = Trace::failed();
    tailkeep.send(&trace);
    let ended = tailkeep.end("INT");
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(ended.after < Duration::from_secs(40), "it took {:?}", ended.after);
    assert_same(&sink.spans(), &trace.placed());
}

#[test]
fn a_sink_that_hangs_delays_the_end_to_the_deadline_and_its_loss_is_said() {
    let (hanging, taking) = (Sink::start(), Sink::start());
    hanging.becomes(Mood::Hangs);
    let setup = Setup::new().policy(&patient_policy()).otlp("hanging", &hanging).otlp("taking", &taking);
    let tailkeep = setup.settings("measure: off\ndrain: { accept: 0s, deadline: 3s }").start();
    let trace = Trace::failed();
    tailkeep.send(&trace);
    let ended = tailkeep.end("TERM");
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(ended.after >= Duration::from_secs(2), "it gave up after {:?}", ended.after);
    assert!(ended.after < Duration::from_secs(20), "it took {:?}", ended.after);
    assert_same(&taking.spans(), &trace.placed());
    let lost: serde_json::Value = ended.log.lines().find(|line| line.contains("\"ERROR\"")).unwrap().parse().unwrap();
    let fields = &lost["fields"];
    assert_eq!(
        (&fields["sink"], &fields["signal"], &fields["items"]),
        (&"hanging".into(), &"traces".into(), &4.into())
    );
}

#[test]
fn a_second_signal_ends_at_once_and_says_what_is_undelivered() {
    let hanging = Sink::start();
    hanging.becomes(Mood::Hangs);
    let setup = Setup::new().otlp("hanging", &hanging).settings("measure: off\ndrain: { accept: 40s, deadline: 55s }");
    let tailkeep = setup.start();
    tailkeep.send(&Trace::failed());
    tailkeep.wait_for("it is kept", |accounts| accounts.sum("tailkeep_sink_queued", &[]) == 4.0);
    tailkeep.signal("TERM");
    tailkeep.wait_for_log("draining");
    let ended = tailkeep.end("TERM");
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(ended.after < Duration::from_secs(40), "it took {:?}", ended.after);
    let lines = ended.log.lines().map(|line| line.parse::<serde_json::Value>().unwrap());
    let said: Vec<_> = lines.filter(|line| line["level"] == "ERROR").map(|line| line["fields"].clone()).collect();
    assert_eq!((&said[0]["sink"], &said[0]["items"]), (&"hanging".into(), &4.into()), "{}", ended.log);
    assert!(said[1]["message"].as_str().unwrap().contains("asked again"), "{}", ended.log);
}

#[test]
fn the_log_names_all_that_was_lost() {
    let hanging = Sink::start();
    hanging.becomes(Mood::Hangs);
    let settings = "measure: off\nqueue: { memory: { traces: 256KiB } }\ndrain: { accept: 0s, deadline: 3s }";
    let tailkeep = Setup::new().otlp("hanging", &hanging).settings(settings).start();
    for _ in 0..10 {
        tailkeep.send_all(&(0..100).map(|_| Trace::failed()).collect::<Vec<_>>());
    }
    let kept = tailkeep.wait_for("all are kept", |accounts| accounts.sum("tailkeep_spans_kept_total", &[]) == 4000.0);
    assert!(kept.sum("tailkeep_sink_discarded_total", &["reason=\"queue_full\""]) > 1000.0);
    let ended = tailkeep.end("TERM");
    let lines = ended.log.lines().map(|line| line.parse::<serde_json::Value>().unwrap());
    let lost = lines.filter(|line| line["level"] == "ERROR").map(|line| line["fields"]["items"].as_u64().unwrap());
    assert_eq!(lost.sum::<u64>(), 4000, "{}", ended.log);
}

#[test]
fn an_idle_peer_that_answers_no_ping_does_not_delay_the_end() {
    let setup = Setup::new().store().settings("drain: { accept: 0s, deadline: 50s }");
    let tailkeep = setup.start();
    let mut peer = std::net::TcpStream::connect(tailkeep.ports.grpc).unwrap();
    // The preface and empty settings; what tailkeep sends is never read.
    peer.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    tailkeep.wait_for("it is connected", |accounts| accounts.sum("tailkeep_connections", &[]) == 1.0);
    let ended = tailkeep.end("TERM");
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(ended.after < Duration::from_secs(25), "it took {:?}", ended.after);
    assert!(!ended.log.contains("did not end in time"), "{}", ended.log);
}
