//! Who may send.

use crate::harness::*;
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tailkeep::receive::{ReceiverSettings, RequestOutcome, SenderCredential};
use tailkeep::secret::{Secret, SecretSource};
use tailkeep::trace::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;

fn given(text: &str) -> SecretSource {
    SecretSource { secret: Secret::new(text), file: None }
}

fn guarded() -> ReceiverSettings {
    let basic = SenderCredential::Basic { username: "shop".to_owned(), password: given("open sesame") };
    let auth = vec![SenderCredential::Bearer(given("first")), SenderCredential::Bearer(given("second")), basic];
    ReceiverSettings { auth, ..small() }
}

/// What an SDK makes of `OTEL_EXPORTER_OTLP_HEADERS=authorization=Bearer%20second`, and whether it may send.
const PRESENTED: &[(Option<&str>, bool)] = &[
    (Some("Bearer first"), true),
    (Some("Bearer second"), true),
    (Some("bearer second"), true),
    (Some("Basic c2hvcDpvcGVuIHNlc2FtZQ=="), true),
    (Some("Bearer third"), false),
    (Some("Bearer c2hvcDpvcGVuIHNlc2FtZQ=="), false),
    (Some("Basic first"), false),
    (Some("Basic c2hvcDpzaHV0"), false),
    (Some(""), false),
    (None, false),
];

#[tokio::test]
async fn only_who_presents_a_credential_may_send_over_grpc() {
    let server = Server::start(guarded()).await;
    for (signal, path) in [(Signal::Traces, TRACES), (Signal::Metrics, METRICS), (Signal::Logs, LOGS)] {
        for (presented, may_send) in PRESENTED {
            let mut request = grpc_request(path, Pieces::of([&framed(0, b"hello")[..]]));
            request.headers_mut().extend(presented.map(|value| (http::header::AUTHORIZATION, value.parse().unwrap())));
            let status = call(server.grpc, request).await.grpc();
            let expected = if *may_send { Code::Ok } else { Code::Unauthenticated };
            assert_eq!(status.code(), expected, "{presented:?}: {status:?}");
            assert_eq!(server.taken().len(), usize::from(*may_send), "{presented:?}");
            let what = if presented.is_some() { "not among its own" } else { "has none" };
            assert!(*may_send || status.message().contains(what), "{status:?}");
        }
        assert_eq!(server.stats().requests(signal, RequestOutcome::Unauthenticated), 6);
        assert_eq!(server.stats().bytes(signal, RequestOutcome::Unauthenticated), 0, "nothing was read");
    }
}

fn otlp(path: &str, presented: Option<&str>) -> Request<Full<Bytes>> {
    let mut request = http_request(path, "application/json", b"{}");
    request.headers_mut().extend(presented.map(|value| (http::header::AUTHORIZATION, value.parse().unwrap())));
    request
}

#[tokio::test]
async fn only_who_presents_a_credential_may_send_over_http() {
    let server = Server::start(guarded()).await;
    for path in ["/v1/traces", "/v1/metrics", "/v1/logs"] {
        for (presented, may_send) in PRESENTED {
            let reply = post(server.http, otlp(path, *presented)).await;
            assert_eq!(reply.status, if *may_send { 200 } else { 401 }, "{presented:?}");
            assert_eq!(server.taken().len(), usize::from(*may_send), "{presented:?}");
            let challenges: Vec<&str> =
                reply.headers.get_all("www-authenticate").iter().map(|value| value.to_str().unwrap()).collect();
            let wanted: &[&str] =
                if *may_send { &[] } else { &["Bearer", "Basic realm=\"tailkeep\", charset=\"UTF-8\""] };
            assert_eq!(challenges, wanted);
            assert!(*may_send || String::from_utf8_lossy(&reply.body).contains("\"code\":16"), "{reply:?}");
        }
    }
    let everybody = Server::start(small()).await;
    assert_eq!(post(everybody.http, otlp("/v1/traces", Some("Bearer third"))).await.status, 200);
}

#[tokio::test]
async fn a_stranger_is_refused_before_its_body_comes_and_holds_nothing() {
    let server = Server::start(guarded()).await;
    let head = "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nexpect: 100-continue\r\n\
                content-length: 1000000\r\n\r\n";
    let mut asks_first = TcpStream::connect(server.http).await.unwrap();
    asks_first.write_all(head.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    asks_first.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 401");

    let (pieces, body) = Pieces::new();
    pieces.send(Bytes::from_static(&[0, 0, 0x0f, 0, 0])).unwrap();
    assert_eq!(call(server.grpc, grpc_request(TRACES, body)).await.grpc().code(), Code::Unauthenticated);

    // One that sends without listening is read to its end, and nothing of it is kept.
    let mut sends = TcpStream::connect(server.http).await.unwrap();
    sends.write_all(head.replace("expect: 100-continue\r\n", "connection: close\r\n").as_bytes()).await.unwrap();
    for _ in 0..10 {
        sends.write_all(&[b' '; 100_000]).await.unwrap();
        assert_eq!(server.stats().in_flight_bytes, 0);
    }
    let mut answer = String::new();
    sends.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    assert!(server.taken().is_empty());
}

#[tokio::test]
async fn a_page_may_ask_whether_it_may_send_without_a_credential() {
    let settings = ReceiverSettings { cors: vec!["https://shop.example".to_owned()], ..guarded() };
    let server = Server::start(settings).await;
    let mut preflight = otlp("/v1/traces", None);
    *preflight.method_mut() = http::Method::OPTIONS;
    for (name, value) in [("origin", "https://shop.example"), ("access-control-request-method", "POST")] {
        preflight.headers_mut().insert(name, value.parse().unwrap());
    }
    assert_eq!(post(server.http, preflight).await.status, 204);
    let mut stranger = otlp("/v1/traces", None);
    stranger.headers_mut().insert("origin", "https://shop.example".parse().unwrap());
    let reply = post(server.http, stranger).await;
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (401, "https://shop.example"));
}
