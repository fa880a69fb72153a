//! Peers that are slow, silent, too many or too verbose; addresses that cannot be had.

use crate::harness::*;
use bytes::Bytes;
use std::net::SocketAddr;
use std::time::Duration;
use tailkeep::receive::{Accepted, Receiver, RequestOutcome, Settings};
use tailkeep::trace::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// Reads to the end of a connection; gives what came and after how long.
async fn end_of(stream: &mut TcpStream) -> (String, Duration) {
    let start = Instant::now();
    let mut answer = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(600), stream.read_to_end(&mut answer));
    let _ = end.await.expect("the connection ends");
    (String::from_utf8_lossy(&answer).into_owned(), start.elapsed())
}

#[tokio::test]
async fn a_silent_peer_is_closed_in_time() {
    let server = Server::start(small()).await;
    for address in [server.grpc, server.http] {
        for said in [&b""[..], b"PRI * HTTP/2.0\r\n"] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(said).await.unwrap();
            server.until("it is open", |stats| stats.connections_open == 1).await;
            // From here on the clock runs on to the next timer whenever all wait.
            tokio::time::pause();
            let (_, after) = end_of(&mut stream).await;
            tokio::time::resume();
            assert!(after <= Duration::from_secs(80), "{after:?}");
            server.until("it is closed", |stats| stats.connections_open == 0).await;
        }
    }
}

#[tokio::test]
async fn a_header_that_drips_is_closed_in_time() {
    let server = Server::start(small()).await;
    let mut stream = TcpStream::connect(server.http).await.unwrap();
    stream.write_all(b"POST /v1/traces HTTP/1.1\r\nhost: drip\r\nx-a: ").await.unwrap();
    server.until("it is open", |stats| stats.connections_open == 1).await;
    tokio::time::pause();
    let (_, after) = end_of(&mut stream).await;
    tokio::time::resume();
    assert!(after <= Duration::from_secs(80), "{after:?}");
    server.until("it is closed", |stats| stats.connections_open == 0).await;
}

#[tokio::test]
async fn a_body_that_drips_is_sent_away_in_time_and_told_to_come_back() {
    let server = Server::start(small()).await;
    let mut stream = TcpStream::connect(server.http).await.unwrap();
    let head = "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    server.until("it is charged", |stats| stats.in_flight_bytes > 0).await;
    tokio::time::pause();
    let (answer, after) = end_of(&mut stream).await;
    tokio::time::resume();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: 2"), "{answer}");
    assert!(after <= Duration::from_secs(61), "{after:?}");

    let (pieces, body) = Pieces::new();
    pieces.send(Bytes::from_static(&[0, 0, 0, 1, 0, b'{'])).unwrap();
    let mut connection = connect_h2(server.grpc).await;
    let response = tokio::spawn(connection.send_request(grpc_request(TRACES, body)));
    server.until("it is charged", |stats| stats.in_flight_bytes > 0).await;
    tokio::time::pause();
    let response = tokio::time::timeout(Duration::from_secs(600), response).await.expect("an answer comes");
    let reply = Reply::read(response.unwrap().unwrap()).await;
    tokio::time::resume();
    assert_eq!(reply.grpc().code(), tonic::Code::DeadlineExceeded);
    let stats = server.stats();
    assert_eq!((stats.requests(Signal::Traces, RequestOutcome::TimedOut), stats.in_flight_bytes), (2, 0));
}

#[tokio::test]
async fn one_connection_too_many_is_closed_at_once() {
    let server = Server::start(Settings { connections: 2, ..small() }).await;
    let first = TcpStream::connect(server.http).await.unwrap();
    let _second = TcpStream::connect(server.http).await.unwrap();
    server.until("two are open", |stats| stats.connections_open == 2).await;
    let mut third = TcpStream::connect(server.http).await.unwrap();
    assert_eq!(end_of(&mut third).await.0, "");
    assert_eq!(server.stats().connections_refused, 1);
    // The other listener has its own bound, and a place that is left is free again.
    let call_reply = call(server.grpc, grpc_request(TRACES, Pieces::of([&framed(0, b"")[..]]))).await;
    assert_eq!(call_reply.grpc().code(), tonic::Code::Ok);
    drop(first);
    server.until("one is left", |stats| stats.connections_open <= 2).await;
    for _ in 0..100 {
        let mut stream = TcpStream::connect(server.http).await.unwrap();
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        if end_of(&mut stream).await.0.starts_with("HTTP/1.0 404") {
            return;
        }
    }
    panic!("the place that was left is not given away");
}

#[tokio::test]
async fn a_header_too_large_is_refused() {
    let server = Server::start(Settings { header_bytes: 8 << 10, ..small() }).await;
    let long = "a".repeat(16 << 10);
    let answer = raw(server.http, format!("POST /v1/traces HTTP/1.1\r\nx-long: {long}\r\n\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let mut request = grpc_request(TRACES, Pieces::of([&framed(0, b"")[..]]));
    request.headers_mut().insert("x-long", long.parse().unwrap());
    let mut connection = connect_h2(server.grpc).await;
    let refused = match connection.send_request(request).await {
        Ok(response) => response.status() == 431,
        Err(_) => true,
    };
    assert!(refused && server.taken().is_empty());
}

#[tokio::test]
async fn a_peer_that_only_resets_is_shown_the_door() {
    let server = Server::start(small()).await;
    let mut stream = TcpStream::connect(server.grpc).await.unwrap();
    // Preface and empty settings, then streams that end as they begin: HEADERS (`:method: POST` and
    // nothing else) and RST_STREAM in one packet, so that none is looked at in between.
    let mut wire = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for stream_id in (1..4000u32).step_by(2) {
        wire.extend_from_slice(&[0, 0, 3, 1, 4]);
        wire.extend_from_slice(&stream_id.to_be_bytes());
        wire.extend_from_slice(&[0x83, 0x86, 0x84]);
        wire.extend_from_slice(&[0, 0, 4, 3, 0]);
        wire.extend_from_slice(&stream_id.to_be_bytes());
        wire.extend_from_slice(&8u32.to_be_bytes());
    }
    stream.write_all(&wire).await.unwrap();
    let mut answer = Vec::new();
    let end = stream.read_to_end(&mut answer);
    let _ = tokio::time::timeout(Duration::from_secs(10), end).await.expect("the connection ends");
    let calm = [0, 0, 0, 11];
    let mut frames = &answer[..];
    while let [_, high, low, kind, _, _, _, _, _, rest @ ..] = frames {
        let (payload, next) = rest.split_at(usize::from(*high) << 8 | usize::from(*low));
        if *kind == 7 && payload[4..8] == calm {
            return;
        }
        frames = next;
    }
    panic!("no GOAWAY with ENHANCE_YOUR_CALM came");
}

#[tokio::test]
async fn a_panic_ends_one_connection() {
    let server = Server::answering(small(), |body| {
        assert!(body != b"boom", "a defect");
        Ok(Accepted::default())
    })
    .await;
    let boom = http_request("/v1/traces", "application/x-protobuf", b"boom");
    assert!(connect_h1(server.http).await.send_request(boom).await.is_err());
    assert_eq!(post(server.http, http_request("/v1/traces", "application/x-protobuf", b"fine")).await.status, 200);
    assert_eq!(server.stats().requests(Signal::Traces, RequestOutcome::Panicked), 1);
}

#[tokio::test]
async fn what_cannot_be_bound_says_where_and_what_to_write() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = Receiver::bind(Settings { grpc: Some(address), ..small() }).await.err().unwrap().to_string();
    assert!(error.contains(&format!("receive.grpc: cannot listen on {address}: ")), "{error}");
    assert!(error.contains("write another port"), "{error}");

    let foreign = Some(SocketAddr::from(([192, 0, 2, 1], 4318)));
    let error = Receiver::bind(Settings { http: foreign, ..small() }).await.err().unwrap().to_string();
    assert!(
        error.starts_with("receive.http: cannot listen on 192.0.2.1:4318: ") && error.contains("write 0.0.0.0"),
        "{error}"
    );

    let error = Receiver::bind(Settings { in_flight: 100, max_request: 51, ..small() }).await.err().unwrap();
    assert!(error.to_string().contains("allow at least 102 in flight"), "{error}");
}

#[tokio::test]
async fn a_listener_may_be_left_out() {
    let receiver = Receiver::bind(Settings { http: None, ..small() }).await.unwrap();
    let addrs = receiver.local_addrs();
    assert!(addrs.grpc.is_some() && addrs.http.is_none());
}
