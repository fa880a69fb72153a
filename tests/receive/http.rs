//! The HTTP port.

use crate::harness::*;
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use std::time::Duration;
use tailkeep::otlp::HOP_HEADER;
use tailkeep::receive::{Accepted, MalformedRequest, ReceiverSettings, RequestOutcome};
use tailkeep::trace::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

/// `google.rpc.Status`, as far as OTLP/HTTP shows it.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

/// The code and message of an error, in whichever format it came.
fn rpc_status(reply: &Reply) -> (i64, String) {
    if reply.header("content-type") == JSON {
        let json: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        (json["code"].as_i64().unwrap(), json["message"].as_str().unwrap().to_owned())
    } else {
        assert_eq!(reply.header("content-type"), PROTOBUF);
        let status = RpcStatus::decode(&reply.body[..]).unwrap();
        (status.code.into(), status.message)
    }
}

fn with_header(mut request: Request<Full<Bytes>>, name: &'static str, value: &str) -> Request<Full<Bytes>> {
    request.headers_mut().insert(name, value.parse().unwrap());
    request
}

#[tokio::test]
async fn every_version_format_and_encoding_is_served() {
    let server = Server::start(small()).await;
    let mut h1 = connect_h1(server.http).await;
    let mut h2 = connect_h2(server.http).await;
    let json = br#"{"resourceSpans":[{"scopeSpans":[{"spans":[{}]}]}]}"#;
    let protobuf = b"\x0a\x04\x12\x02\x12\x00";
    for (content_type, body, answer) in [(PROTOBUF, &protobuf[..], &b""[..]), (JSON, json, b"{}")] {
        for (encoding, wire) in [
            ("", body.to_vec()),
            ("identity", body.to_vec()),
            ("gzip", gzip(body)),
            ("deflate", deflate(body)),
            ("zstd", zstd(body)),
        ] {
            let request = || with_header(http_request("/v1/traces", content_type, &wire), "content-encoding", encoding);
            let one = Reply::read(h1.send_request(request()).await.unwrap()).await;
            let mut to_h2 = request();
            *to_h2.uri_mut() = "http://tailkeep/v1/traces".parse().unwrap();
            let two = Reply::read(h2.send_request(to_h2).await.unwrap()).await;
            for reply in [one, two] {
                assert_eq!((reply.status, reply.header("content-type")), (200, content_type), "{encoding}");
                assert_eq!(reply.body, answer);
            }
            let taken = Taken { signal: Signal::Traces, body: protobuf.to_vec(), hops: vec![] };
            assert_eq!(server.taken(), [taken.clone(), taken]);
        }
    }
    for (path, signal) in [("/v1/metrics", Signal::Metrics), ("/v1/logs", Signal::Logs)] {
        let with_charset = http_request(path, "Application/JSON; charset=utf-8", b"{}");
        assert_eq!(post(server.http, with_charset).await.status, 200);
        assert_eq!(server.taken()[0].signal, signal);
        assert_eq!(server.stats().requests(signal, RequestOutcome::Accepted), 1);
    }
}

#[tokio::test]
async fn rejected_items_are_a_partial_success_in_the_format_of_the_request() {
    let answer = Accepted { rejected: 2, message: "two \"bad\" ones".to_owned() };
    let server = Server::answering(small(), move |_| Ok(answer.clone())).await;
    let reply = post(server.http, http_request("/v1/traces", PROTOBUF, b"")).await;
    let partial = ExportTraceServiceResponse::decode(&reply.body[..]).unwrap().partial_success.unwrap();
    assert_eq!((partial.rejected_spans, partial.error_message.as_str()), (2, "two \"bad\" ones"));
    for (path, key) in
        [("/v1/traces", "rejectedSpans"), ("/v1/metrics", "rejectedDataPoints"), ("/v1/logs", "rejectedLogRecords")]
    {
        let reply = post(server.http, http_request(path, JSON, b"{}")).await;
        let json: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(json["partialSuccess"][key], "2");
        assert_eq!(json["partialSuccess"]["errorMessage"], "two \"bad\" ones");
    }
}

#[tokio::test]
async fn a_refused_request_hears_why_in_its_own_format() {
    let server = Server::answering(small(), |body| match body {
        b"bad" => Err(MalformedRequest("field 0 at byte 0".to_owned())),
        _ => Ok(Accepted::default()),
    })
    .await;
    let zeros = vec![b' '; (1 << 20) + 1];
    let protobuf = |body: &[u8]| http_request("/v1/traces", PROTOBUF, body);
    let json = |body: &[u8]| http_request("/v1/traces", JSON, body);
    for (what, request, status, code, says) in [
        ("bad protobuf", protobuf(b"bad"), 400, 3, "field 0"),
        ("bad json", json(b"bad"), 400, 3, "line 1 column 1"),
        ("too large", protobuf(&zeros), 413, 3, "1048576 bytes"),
        ("too large json", json(&zeros), 413, 3, "1048576 bytes"),
        ("a bomb", with_header(protobuf(&gzip(&zeros)), "content-encoding", "gzip"), 413, 3, "1048576 bytes"),
        ("a zstd bomb", with_header(json(&zstd(&zeros)), "content-encoding", "zstd"), 413, 3, "1048576 bytes"),
        ("no gzip", with_header(json(b"{}"), "content-encoding", "gzip"), 400, 3, "not gzip"),
        ("brotli", with_header(json(b"{}"), "content-encoding", "br"), 415, 12, "gzip, deflate or zstd"),
        (
            "a loop",
            with_header(protobuf(b""), HOP_HEADER.as_str().to_owned().leak(), &format!("x,{OWN_HOP}")),
            508,
            9,
            "\"me\"",
        ),
    ] {
        let reply = post(server.http, request).await;
        let (found, message) = rpc_status(&reply);
        assert_eq!((reply.status, found), (status, code), "{what}");
        assert!(message.contains(says), "{what}: {message}");
    }
    let stats = server.stats();
    let requests = |outcome| stats.requests(Signal::Traces, outcome);
    assert_eq!(
        [RequestOutcome::Malformed, RequestOutcome::TooLarge, RequestOutcome::Unsupported, RequestOutcome::Looped]
            .map(requests),
        [3, 4, 1, 1]
    );
    assert_eq!((stats.in_flight_bytes, server.taken().len()), (0, 0));
}

/// Two requests that have sent all but a byte of a mebibyte, on connections that stay.
async fn two_that_hold_all(server: &Server) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(server.http).await.unwrap();
        let head =
            "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1048576\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&vec![b' '; (1 << 20) - 1]).await.unwrap();
        held.push(stream);
    }
    server.until("both are charged", |stats| stats.in_flight_bytes == 2 << 20).await;
    held
}

#[tokio::test]
async fn a_full_house_refuses_and_says_when_to_come_back() {
    let server = Server::start(ReceiverSettings { pace_every: Duration::from_secs(3600), ..small() }).await;
    let held = two_that_hold_all(&server).await;
    for content_type in [PROTOBUF, JSON] {
        let reply = post(server.http, http_request("/v1/metrics", content_type, b"{}")).await;
        assert_eq!((reply.status, reply.header("retry-after")), (503, "2"), "1.5 s, rounded up");
        assert_eq!(rpc_status(&reply).0, 14);
    }
    assert_eq!(server.stats().requests(Signal::Metrics, RequestOutcome::Refused), 2);
    drop(held);
    server.until("all is given back", |stats| stats.in_flight_bytes == 0).await;
    assert_eq!(server.stats().requests(Signal::Traces, RequestOutcome::Aborted), 2);
    assert_eq!(post(server.http, http_request("/v1/metrics", JSON, b"{}")).await.status, 200);
}

#[tokio::test]
async fn whoever_holds_room_and_brings_nothing_gives_way() {
    let server = Server::start(small()).await;
    let mut held = two_that_hold_all(&server).await;
    tokio::time::pause();
    let start = tokio::time::Instant::now();
    let mut answer = String::new();
    held[0].read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: 2"), "{answer}");
    assert!(start.elapsed() <= Duration::from_secs(3), "{:?}", start.elapsed());
    tokio::time::resume();
    assert!(server.stats().requests(Signal::Traces, RequestOutcome::TooSlow) >= 1);
    assert_eq!(post(server.http, http_request("/v1/metrics", JSON, b"{}")).await.status, 200);
}

#[tokio::test]
async fn a_request_of_another_dialect_is_taken_and_told_so_in_words() {
    let server = Server::start(small()).await;
    for (content_type, body, says) in [
        (JSON, &br#"{"batches":[]}"#[..], "has the key \"batches\", and should have `resourceSpans`"),
        (JSON, br#"{"resourceSpans":[{"instrumentationLibrarySpans":[{}]}]}"#, "there is no span in it"),
        (PROTOBUF, b"\x12\x02\x08\x01", "there is no span in it"),
    ] {
        let reply = post(server.http, http_request("/v1/traces", content_type, body)).await;
        let text = String::from_utf8_lossy(&reply.body).replace("\\\"", "\"");
        assert_eq!(reply.status, 200);
        assert!(text.contains(says), "{text}");
    }
    assert_eq!(server.stats().nothing_known, 3);
    for (content_type, body) in [(JSON, &b"{}"[..]), (JSON, br#"{"resourceSpans":[]}"#), (PROTOBUF, b"")] {
        let reply = post(server.http, http_request("/v1/traces", content_type, body)).await;
        assert!(reply.body.len() <= 2, "an empty request is no fault: {:?}", reply.body);
    }
    assert_eq!(server.stats().nothing_known, 3);
}

fn options(path: &str, origin: &str) -> Request<Full<Bytes>> {
    let request = Request::options(path).header("host", "x").header("origin", origin);
    let request = request.header("access-control-request-method", "POST");
    request.header("access-control-request-headers", "content-type,x-tenant").body(Full::default()).unwrap()
}

#[tokio::test]
async fn pages_of_named_origins_may_send() {
    let page = "https://shop.example";
    let server = Server::start(ReceiverSettings { cors: vec![page.to_owned()], ..small() }).await;
    let reply = post(server.http, options("/v1/traces", page)).await;
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (204, page));
    assert_eq!(reply.header("access-control-allow-methods"), "POST");
    assert_eq!(reply.header("access-control-allow-headers"), "content-type,x-tenant");
    assert_eq!((reply.header("access-control-max-age"), reply.header("vary")), ("7200", "origin"));
    for (content_type, body, status) in [(JSON, &b"{}"[..], 200), (JSON, b"bad", 400), ("text/plain", b"{}", 415)] {
        let reply =
            post(server.http, with_header(http_request("/v1/traces", content_type, body), "origin", page)).await;
        assert_eq!((reply.status, reply.header("access-control-allow-origin")), (status, page));
        assert_eq!(reply.header("access-control-allow-credentials"), "true", "sendBeacon sends with credentials");
    }

    let reply = post(server.http, options("/v1/traces", "https://evil.example")).await;
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (405, ""));
    assert!(String::from_utf8(reply.body).unwrap().contains("`receive.cors`"));
    assert_eq!(post(server.http, options("/metrics", page)).await.status, 404);
}

#[tokio::test]
async fn without_origins_no_page_may_send() {
    let server = Server::start(small()).await;
    let reply = post(server.http, options("/v1/traces", "https://shop.example")).await;
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (405, ""));
    let request = with_header(http_request("/v1/traces", JSON, b"{}"), "origin", "https://shop.example");
    let reply = post(server.http, request).await;
    assert_eq!((reply.status, reply.header("access-control-allow-origin"), reply.header("vary")), (200, "", ""));
}

#[tokio::test]
async fn a_client_hears_for_how_long_its_connection_idles() {
    let server = Server::start(small()).await;
    let reply = post(server.http, http_request("/v1/traces", JSON, b"{}")).await;
    assert_eq!(reply.header("keep-alive"), "timeout=74", "a second less than it is");
    let mut connection = connect_h2(server.http).await;
    let mut request = http_request("/v1/traces", JSON, b"{}");
    *request.uri_mut() = "http://tailkeep/v1/traces".parse().unwrap();
    let reply = Reply::read(connection.send_request(request).await.unwrap()).await;
    assert_eq!((reply.status, reply.header("keep-alive")), (200, ""), "HTTP/2 has no such header");
}

#[tokio::test]
async fn what_is_no_otlp_request_gets_a_line_of_text() {
    let server = Server::start(small()).await;
    let get = |path: &str| Request::get(path).header("host", "x").body(Full::default()).unwrap();
    let reply = post(server.http, get("/v1/traces")).await;
    assert_eq!((reply.status, reply.header("allow")), (405, "POST"));
    for path in ["/", "/v1/spans", "/v1/traces/", "/V1/traces"] {
        let reply = post(server.http, http_request(path, JSON, b"{}")).await;
        assert_eq!(reply.status, 404, "{path}");
        assert!(String::from_utf8(reply.body).unwrap().contains("/v1/traces"));
    }
    assert_eq!(server.stats().unrouted, 5);
    for content_type in ["text/plain", "application/protobuf", ""] {
        let reply = post(server.http, http_request("/v1/logs", content_type, b"{}")).await;
        assert_eq!(reply.status, 415, "{content_type}");
        assert!(String::from_utf8(reply.body).unwrap().contains("application/x-protobuf or application/json"));
    }
    assert_eq!(server.stats().requests(Signal::Logs, RequestOutcome::Unsupported), 3);
}

#[tokio::test]
async fn a_grpc_client_on_the_http_port_is_told_so_in_grpc() {
    let server = Server::start(small()).await;
    let status = call(server.http, grpc_request(TRACES, Pieces::of([&framed(0, b"")[..]]))).await.grpc();
    assert_eq!(status.code(), tonic::Code::Unimplemented);
    assert!(status.message().contains("OTLP/HTTP"), "{}", status.message());
}

#[tokio::test]
async fn a_body_of_unknown_length_is_bounded_as_it_comes() {
    let server = Server::start(small()).await;
    let mut connection = connect_h1(server.http).await;
    let request = |pieces: &[&[u8]]| {
        let body = Pieces::of(pieces.iter().copied());
        Request::post("/v1/traces").header("host", "x").header("content-type", PROTOBUF).body(body).unwrap()
    };
    let reply = Reply::read(connection.send_request(request(&[b"one ", b"", b"two"])).await.unwrap()).await;
    assert_eq!((reply.status, server.taken()[0].body.as_slice()), (200, &b"one two"[..]));
    let megabyte = vec![0; 1 << 20];
    let reply = Reply::read(connection.send_request(request(&[&megabyte, b"!"])).await.unwrap()).await;
    assert_eq!(reply.status, 413);
    // What was left was read, so the connection lives on.
    let reply = Reply::read(connection.send_request(request(&[&megabyte])).await.unwrap()).await;
    assert_eq!(reply.status, 200);
    assert_eq!(server.stats().connections_open, 1);
}

#[tokio::test]
async fn a_client_that_sends_without_listening_still_hears_why_it_was_refused() {
    let server = Server::start(small()).await;
    let request = b"POST /v1/traces HTTP/1.0\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    for (line, content_type, status) in [
        ("POST /v1/traces", JSON, 413),
        ("POST /v1/traces", "text/plain", 415),
        ("POST /v1/spans", JSON, 404),
        ("PUT /v1/traces", JSON, 405),
    ] {
        let mut stream = TcpStream::connect(server.http).await.unwrap();
        let head =
            format!("{line} HTTP/1.1\r\nhost: x\r\ncontent-type: {content_type}\r\ncontent-length: 4000000\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let sent = stream.write_all(&vec![b' '; 4_000_000]).await;
        sent.unwrap_or_else(|error| panic!("{status}: the whole body is read, but {error}"));
        stream.write_all(request).await.unwrap();
        let mut answers = String::new();
        stream.read_to_string(&mut answers).await.unwrap();
        let first = format!("HTTP/1.1 {status} ");
        assert!(answers.starts_with(&first) && answers.contains("HTTP/1.0 200 OK"), "{status}: {answers}");
        assert_eq!(server.stats().in_flight_bytes, 0);
    }
}

#[tokio::test]
async fn a_client_that_asks_first_is_refused_before_it_sends() {
    let server = Server::start(small()).await;
    let answer = raw(
        server.http,
        b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 2000000\r\nexpect: 100-continue\r\n\r\n",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    let mut stream = TcpStream::connect(server.http).await.unwrap();
    let head = "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut line = [0; 25];
    stream.read_exact(&mut line).await.unwrap();
    assert_eq!(&line, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"{}").await.unwrap();
    stream.read_exact(&mut line[..15]).await.unwrap();
    assert_eq!(&line[..15], b"HTTP/1.1 200 OK");
}
