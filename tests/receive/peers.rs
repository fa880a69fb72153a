//! Peers that are slow, silent, too many or too verbose; addresses that cannot be had.

use crate::harness::*;
use bytes::Bytes;
use http::{Request, Response};
use std::net::SocketAddr;
use std::time::Duration;
use tailkeep::receive::{Accepted, ConnectionFault, Receiver, ReceiverSettings, RequestOutcome, Stats};
use tailkeep::trace::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
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
    let server = Server::start(ReceiverSettings { connections: 2, ..small() }).await;
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
async fn an_idle_connection_gives_its_place_to_a_new_one() {
    let server = Server::start(ReceiverSettings { connections: 2, ..small() }).await;
    let mut idle = TcpStream::connect(server.http).await.unwrap();
    server.until("one idles", |stats| stats.connections_open == 1).await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(10)).await;
    tokio::time::resume();
    let mut works = TcpStream::connect(server.http).await.unwrap();
    let request =
        b"POST /v1/traces HTTP/1.0\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    let (head, last) = request.split_at(request.len() - 1);
    works.write_all(head).await.unwrap();
    server.until("one works", |stats| stats.requests_in_flight == 1 && stats.connections_open == 2).await;

    assert_eq!(post(server.http, http_request("/v1/logs", "application/json", b"{}")).await.status, 200);
    assert_eq!(end_of(&mut idle).await.0, "");
    assert_eq!(server.stats().connections_failed(ConnectionFault::GaveWay), 1);
    works.write_all(last).await.unwrap();
    assert!(end_of(&mut works).await.0.starts_with("HTTP/1.0 200"), "who works stays");
    assert_eq!(server.stats().connections_refused, 0);
}

/// A request, over HTTP/2 or HTTP/1.1, on a connection of its own.
async fn begin(
    server: &Server,
    address: SocketAddr,
    is_h2: bool,
    body: Pieces,
) -> JoinHandle<hyper::Result<Response<hyper::body::Incoming>>> {
    let request = if address == server.grpc {
        grpc_request(TRACES, body)
    } else {
        Request::post("http://tailkeep/v1/traces").header("content-type", "application/json").body(body).unwrap()
    };
    if is_h2 {
        let mut connection = connect_h2(address).await;
        tokio::spawn(async move { connection.send_request(request).await })
    } else {
        let mut connection = connect_h1(address).await;
        tokio::spawn(async move { connection.send_request(request).await })
    }
}

/// Of two requests, the one whose body brings nothing is cut off, and the one that brings a byte now and then is not.
#[tokio::test]
async fn a_request_that_brings_nothing_gives_its_place_to_a_new_connection() {
    let server = Server::start(ReceiverSettings { connections: 2, ..small() }).await;
    let (grpc, json) = ([&[0, 0, 0, 0, 2, 7][..], &[7]], [&b"{"[..], b"}"]);
    let pass = async || {
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(3)).await;
        tokio::time::resume();
    };
    for (round, (address, is_h2, [first, last])) in
        [(server.http, false, json), (server.http, true, json), (server.grpc, true, grpc)].into_iter().enumerate()
    {
        let ((_silent, stalled_body), (pieces, slow_body)) = (Pieces::new(), Pieces::new());
        let stalled = begin(&server, address, is_h2, stalled_body).await;
        let slow = begin(&server, address, is_h2, slow_body).await;
        server.until("both have begun", |stats| stats.requests_in_flight == 2).await;
        pass().await;
        assert_eq!(end_of(&mut TcpStream::connect(address).await.unwrap()).await.0, "");
        assert_eq!(server.stats().connections_refused, round as u64 + 1, "each has 5 s");
        pieces.send(Bytes::from_static(first)).unwrap();
        server.until("a piece came", |stats| stats.in_flight_bytes > 0).await;
        pass().await;
        let new = begin(&server, address, is_h2, Pieces::of([first, last])).await;
        assert_eq!(new.await.unwrap().expect("it is let in").status(), 200);
        assert!(stalled.await.unwrap().is_err(), "it was cut off");
        assert_eq!(server.stats().connections_failed(ConnectionFault::GaveWay), round as u64 + 1);
        server.until("the slow one stays", |stats| stats.requests_in_flight == 1).await;
        pieces.send(Bytes::from_static(last)).unwrap();
        drop(pieces);
        assert_eq!(slow.await.unwrap().expect("it is answered").status(), 200);
        server.until("all have gone", |stats| stats.connections_open == 0).await;
    }
    let stats = server.stats();
    let ended = [RequestOutcome::Aborted, RequestOutcome::Accepted].map(|how| stats.requests(Signal::Traces, how));
    assert_eq!((ended, stats.in_flight_bytes), ([3, 6], 0));
}

/// The one that idles is chosen, and speaks before it has heard of that.
#[tokio::test]
async fn a_request_that_has_just_begun_is_answered_before_its_connection_gives_way() {
    let server = Server::start(ReceiverSettings { connections: 1, ..small() }).await;
    let head = "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n";
    let mut chosen = 0;
    for round in 0..40 {
        let mut idle = TcpStream::connect(server.http).await.unwrap();
        server.until("it is open", |stats| stats.connections_open == 1).await;
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(10)).await;
        tokio::time::resume();
        let gave_way = server.stats().connections_failed(ConnectionFault::GaveWay);
        let other = std::net::TcpStream::connect(server.http).unwrap();
        idle.try_write(head.as_bytes()).unwrap();
        let in_flight = |stats: &Stats| stats.requests_in_flight == 1;
        server.until("it has begun", in_flight).await;
        idle.write_all(b"{}").await.unwrap();
        let told = server.stats().connections_failed(ConnectionFault::GaveWay) > gave_way;
        chosen += u32::from(told);
        let mut answer = [0; 15];
        idle.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200 OK", "round {round}");
        if told {
            end_of(&mut idle).await;
        }
        drop((idle, other));
        server.until("all have gone", |stats| stats.connections_open == 0).await;
    }
    assert!(chosen > 0, "no round was what this is about");
}

#[tokio::test]
async fn a_header_too_large_is_refused() {
    let server = Server::start(ReceiverSettings { header_bytes: 8 << 10, ..small() }).await;
    let long = "a".repeat(16 << 10);
    let answer = raw(server.http, format!("POST /v1/traces HTTP/1.1\r\nx-long: {long}\r\n\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    server.until("it is counted", |stats| stats.connections_failed(ConnectionFault::HeaderTooLarge) == 1).await;
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
async fn a_peer_that_only_resets_is_closed() {
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
    assert_eq!(how_it_ends(stream).await, Some(ENHANCE_YOUR_CALM));
}

const ENHANCE_YOUR_CALM: u32 = 11;

/// The reason of the GOAWAY with which a connection ends.
async fn how_it_ends(stream: TcpStream) -> Option<u32> {
    let mut peer = RawH2(stream);
    let goaway = tokio::time::timeout(Duration::from_secs(60), peer.next(GOAWAY));
    let (_, payload) = goaway.await.expect("the connection ends")?;
    payload[4..].first_chunk().map(|code| u32::from_be_bytes(*code))
}

/// Writes the same bytes until the connection breaks; gives how many it took.
async fn flood(peer: &mut RawH2, bytes: &[u8]) -> usize {
    let many = bytes.repeat(1000);
    let (mut reader, mut writer) = peer.0.split();
    let mut taken = 0;
    let write = async {
        while taken < 64 << 20 && writer.write_all(&many).await.is_ok() {
            taken += many.len();
        }
    };
    // Whoever does not read the answers to its pings stops itself.
    let mut nowhere = tokio::io::sink();
    let read = tokio::io::copy(&mut reader, &mut nowhere);
    tokio::join!(write, read).1.ok();
    taken
}

#[tokio::test]
async fn a_flood_of_frames_that_carry_nothing_ends_its_connection() {
    let server = Server::start(small()).await;
    let priority = frame(2, 0, 1, &[0, 0, 0, 0, 1]);
    let floods = [
        ("PRIORITY", priority),
        ("WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])),
        ("PING", frame(PING, 0, 0, &[0; 8])),
        ("SETTINGS", frame(SETTINGS, 0, 0, &[])),
        ("empty DATA", frame(0, 0, 1, &[])),
        ("an unknown kind", frame(99, 0, 0, &[])),
    ];
    let all = floods.len();
    for (what, flood_of) in floods {
        let mut peer = RawH2::connect(server.grpc).await;
        peer.0.write_all(&call_headers(1, 0)).await.unwrap();
        let taken = flood(&mut peer, &flood_of).await;
        assert!(taken < 32 << 20, "{what}: {taken} bytes");
        server.until("it is closed", |stats| stats.connections_open == 0).await;
    }
    // HTTP/2 bounds empty DATA itself.
    let unproductive = server.stats().connections_failed(ConnectionFault::Unproductive);
    assert!(unproductive as usize >= all - 2, "{unproductive} of {all}");
}

#[tokio::test]
async fn what_does_not_speak_http_is_counted_by_what_it_is() {
    let server = Server::start(small()).await;
    for (address, said, fault) in [
        (server.http, &b"\x16\x03\x01\x00\xf4\x01\x00\x00\xf0\x03\x03"[..], ConnectionFault::TlsUnexpected),
        (
            server.grpc,
            b"\x16\x03\x01\x00\xf4\x01\x00\x00\xf0\x03\x03\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
            ConnectionFault::TlsUnexpected,
        ),
        (server.grpc, b"POST /v1/traces HTTP/1.1\r\nhost: x\r\n\r\n", ConnectionFault::Http1OnGrpc),
        (server.http, b"PROXY TCP4 10.0.0.1 10.0.0.2 5000 4318\r\nPOST / HTTP/1.1\r\n\r\n", ConnectionFault::NotHttp),
        (server.http, b"\0\0\0\x2a hello\r\n\r\n", ConnectionFault::NotHttp),
    ] {
        let before = server.stats().connections_failed(fault);
        raw(address, said).await;
        server.until("it is counted", |stats| stats.connections_failed(fault) == before + 1).await;
    }
}

#[tokio::test]
async fn an_old_connection_is_told_to_finish() {
    let hour = Duration::from_secs(3600);
    let server =
        Server::start(ReceiverSettings { connection_age: Some(hour), header_timeout: hour * 2, ..small() }).await;
    let (mut h2, h2_ends) = open_h2(server.grpc).await;
    let call = || grpc_request(TRACES, Pieces::of([&framed(0, b"")[..]]));
    assert_eq!(Reply::read(h2.send_request(call()).await.unwrap()).await.grpc().code(), tonic::Code::Ok);
    let mut h1 = connect_h1(server.http).await;
    let json = || http_request("/v1/traces", "application/json", b"{}");
    assert_eq!(Reply::read(h1.send_request(json()).await.unwrap()).await.header("connection"), "");
    server.until("both are open", |stats| stats.connections_open == 2).await;

    tokio::time::pause();
    tokio::time::advance(hour.mul_f64(0.85)).await;
    tokio::time::resume();
    others_run().await;
    assert_eq!(Reply::read(h2.send_request(call()).await.unwrap()).await.grpc().code(), tonic::Code::Ok, "young");

    tokio::time::pause();
    tokio::time::advance(hour.mul_f64(0.3)).await;
    tokio::time::resume();
    tokio::time::timeout(Duration::from_secs(60), h2_ends).await.expect("GOAWAY ends it").unwrap().unwrap();
    // One of HTTP/1 stays until its next answer, which says so: a request must not cross the end.
    let reply = Reply::read(h1.send_request(json()).await.unwrap()).await;
    assert_eq!((reply.status, reply.header("connection")), (200, "close"));
    server.until("both are closed", |stats| stats.connections_open == 0).await;
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
    let error = Receiver::bind(ReceiverSettings { grpc: Some(address), ..small() }).await.err().unwrap().to_string();
    assert!(error.contains(&format!("receive.grpc: cannot listen on {address}: ")), "{error}");
    assert!(error.contains("write another port"), "{error}");

    let foreign = Some(SocketAddr::from(([192, 0, 2, 1], 4318)));
    let error = Receiver::bind(ReceiverSettings { http: foreign, ..small() }).await.err().unwrap().to_string();
    assert!(
        error.starts_with("receive.http: cannot listen on 192.0.2.1:4318: ") && error.contains("write 0.0.0.0"),
        "{error}"
    );

    let error = Receiver::bind(ReceiverSettings { in_flight: 100, max_request: 51, ..small() }).await.err().unwrap();
    assert!(error.to_string().contains("allow at least 102 in flight"), "{error}");
}

#[tokio::test]
async fn a_listener_may_be_left_out() {
    let receiver = Receiver::bind(ReceiverSettings { http: None, ..small() }).await.unwrap();
    let addrs = receiver.local_addrs();
    assert!(addrs.grpc.is_some() && addrs.http.is_none());
}
