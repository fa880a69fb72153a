//! Peers that want much of the process: large headers, all its descriptors, a line in the log for each mistake.

use super::collector::{Setup, eventually};
use super::grpc::{Grpc, method};
use super::http;
use super::sink::Sink;
use super::traffic::{Trace, assert_same};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use tailkeep::trace::Signal;

/// Fields of a list, each a byte on the wire and 37 bytes in a list.
const FIELDS: usize = 420;
const STREAMS: usize = 64;

/// HEADERS of a call whose list is nearly as large as allowed.
fn headers(stream: u32) -> Vec<u8> {
    let literal = |name: &str, value: &str| {
        [&[0, name.len() as u8][..], name.as_bytes(), &[value.len() as u8], value.as_bytes()].concat()
    };
    let mut block = vec![0x83, 0x86];
    for (name, value) in [(":path", method(Signal::Traces)), (":authority", "x"), ("content-type", "application/grpc")]
    {
        block.extend(literal(name, value));
    }
    block.resize(block.len() + FIELDS, 0x80 | 22);
    let length = (block.len() as u32).to_be_bytes();
    [&length[1..], &[1, 4], &stream.to_be_bytes(), &block].concat()
}

/// A connection on which every stream has sent its header, and nothing else.
fn headers_on_every_stream(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("the listener accepts");
    let mut wire = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    (0..STREAMS as u32).for_each(|number| wire.extend(headers(2 * number + 1)));
    stream.write_all(&wire).expect("the listener reads");
    stream
}

#[test]
fn large_headers_are_not_held_while_their_bodies_are_waited_for() {
    let tailkeep = Setup::new().store().settings("memory: 64MiB").start();
    let before = tailkeep.memory_kib("VmRSS");
    let connections: Vec<TcpStream> = (0..24).map(|_| headers_on_every_stream(tailkeep.ports.grpc)).collect();
    let all = (connections.len() * STREAMS) as f64;
    tailkeep.wait_for("all have begun", |accounts| accounts.sum("tailkeep_requests_in_flight", &[]) == all);
    let grown = tailkeep.memory_kib("VmRSS").saturating_sub(before);
    // Held, the lists alone would take 50 MiB; a stream that waits takes some 3 KiB.
    assert!(grown < 20 << 10, "{grown} KiB for {all} requests");
    drop(connections);
    tailkeep.stop();
}

#[test]
fn idle_connections_leave_descriptors_for_probes_and_sinks() {
    let sink = Sink::start();
    // Half of so few are kept back, and each listener gets half of the others.
    let setup = Setup::new().otlp("stub", &sink).shell("ulimit -n 160");
    let tailkeep = setup.settings("measure: off").start();
    assert_eq!(tailkeep.wait_for_log("receiving")["connections"], 40);
    let mut grpc = Grpc::connect(tailkeep.ports.grpc);
    let connect = |address| TcpStream::connect(address).expect("the listener accepts");
    let idle: Vec<TcpStream> =
        (0..100).flat_map(|_| [connect(tailkeep.ports.grpc), connect(tailkeep.ports.http)]).collect();
    // The auditor's scrapes go through all the time, too.
    tailkeep.wait_for("too many are closed", |accounts| {
        accounts.sum("tailkeep_connections", &[]) == 80.0
            && accounts.sum("tailkeep_connections_refused_total", &[]) >= 121.0
    });
    assert_eq!(http::get(tailkeep.ports.health, "/healthz").unwrap().status, 200);
    let trace = Trace::failed();
    assert_eq!(grpc.export(Signal::Traces, &trace.body()).code, 0);
    eventually("the sink gets it on a connection of its own", || {
        (sink.spans().len() == trace.placed().len()).then_some(())
    });
    assert_same(&sink.spans(), &trace.placed());
    assert_eq!(tailkeep.logged("cannot accept"), 0);
    drop(idle);
    tailkeep.stop();
}

#[test]
fn the_soft_limit_of_open_files_is_raised() {
    let tailkeep = Setup::new().store().shell("ulimit -Sn 40").start();
    let idle: Vec<TcpStream> =
        (0..100).map(|_| TcpStream::connect(tailkeep.ports.http).expect("the listener accepts")).collect();
    tailkeep.wait_for("all are open", |accounts| accounts.sum("tailkeep_connections", &[]) == 100.0);
    drop(idle);
    tailkeep.stop();
}

#[test]
fn the_log_names_who_is_refused_once_for_all() {
    let tailkeep = Setup::new().store().start();
    for _ in 0..50 {
        let headers = [("content-type", "application/x-protobuf"), ("user-agent", "old-agent/0.1")];
        let reply = http::request(tailkeep.ports.http, "POST", "/v1/traces", &headers, b"garbage").unwrap();
        assert_eq!(reply.status, 400);
    }
    let line = tailkeep.wait_for_log("a client sends what cannot be taken");
    assert_eq!((&line["reason"], &line["agent"]), (&"malformed".into(), &"old-agent/0.1".into()), "{line}");
    assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
    assert!(line["why"].as_str().unwrap().contains("ExportTraceServiceRequest"), "{line}");

    let mut speaks_http1 = TcpStream::connect(tailkeep.ports.grpc).unwrap();
    speaks_http1.write_all(b"POST /v1/traces HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let _ = speaks_http1.read_to_end(&mut Vec::new());
    let accounts = tailkeep.wait_for("it is counted", |accounts| {
        accounts.sum("tailkeep_connections_failed_total", &["reason=\"http1_on_grpc\""]) == 1.0
    });
    assert_eq!(accounts.sum("tailkeep_requests_total", &["outcome=\"malformed\""]), 50.0);
    eventually("both are named", || (tailkeep.logged("a client sends what cannot be taken") == 2).then_some(()));
    tailkeep.stop();
}
