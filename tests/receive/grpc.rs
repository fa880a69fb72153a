//! The gRPC port.

use crate::harness::*;
use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use hyper::client::conn::http2::SendRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use std::time::Duration;
use tailkeep::otlp::HOP_HEADER;
use tailkeep::receive::{Accepted, MalformedRequest, ReceiverSettings, RequestOutcome};
use tailkeep::trace::Signal;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Endpoint;
use tonic::{Code, Status};

/// Messages of a gRPC library, as raw bytes.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut item = vec![0; src.remaining()];
        src.copy_to_slice(&mut item);
        Ok(Some(item))
    }
}

#[tokio::test]
async fn a_grpc_library_is_served_in_every_encoding() {
    let server = Server::start(small()).await;
    let channel = Endpoint::from_shared(format!("http://{}", server.grpc)).unwrap().connect().await.unwrap();
    let body: Vec<u8> = (0..100_000u32).map(|n| (n / 100) as u8).collect();
    for encoding in [None, Some(CompressionEncoding::Gzip), Some(CompressionEncoding::Zstd)] {
        for (signal, path) in [(Signal::Traces, TRACES), (Signal::Metrics, METRICS), (Signal::Logs, LOGS)] {
            let mut client = tonic::client::Grpc::new(channel.clone());
            if let Some(encoding) = encoding {
                client = client.send_compressed(encoding).accept_compressed(encoding);
            }
            client.ready().await.unwrap();
            let request = tonic::Request::new(body.clone());
            let answer = client.unary(request, PathAndQuery::from_static(path), Raw).await.unwrap();
            assert!(answer.into_inner().is_empty(), "a full success is an empty message");
            assert_eq!(server.taken(), [Taken { signal, body: body.clone(), hops: vec![] }], "{encoding:?}");
        }
    }
    let stats = server.stats();
    for signal in Signal::ALL {
        assert_eq!(stats.requests(signal, RequestOutcome::Accepted), 3);
        assert_eq!(stats.bytes(signal, RequestOutcome::Accepted), 300_000);
    }
    assert_eq!((stats.in_flight_bytes, stats.connections_open), (0, 1));
    assert!(stats.pooled_bytes >= 100_000, "{stats:?}");
}

#[tokio::test]
async fn rejected_spans_are_a_partial_success() {
    let answer = Accepted { rejected: 3, message: "3 spans without an id".to_owned() };
    let server = Server::answering(small(), move |_| Ok(answer.clone())).await;
    let reply = call(server.grpc, grpc_request(TRACES, Pieces::of([&framed(0, b"x")[..]]))).await;
    assert_eq!(reply.grpc().code(), Code::Ok);
    let response = ExportTraceServiceResponse::decode(&reply.body[5..]).unwrap();
    let partial = response.partial_success.unwrap();
    assert_eq!((partial.rejected_spans, partial.error_message.as_str()), (3, "3 spans without an id"));
    assert_eq!(reply.header("grpc-accept-encoding"), "identity,gzip,deflate,zstd");
}

#[tokio::test]
async fn what_the_intake_calls_malformed_is_an_invalid_argument() {
    let server = Server::answering(small(), |_| Err(MalformedRequest("field 0 at byte 7".to_owned()))).await;
    let reply = call(server.grpc, grpc_request(LOGS, Pieces::of([&framed(0, b"x")[..]]))).await;
    let status = reply.grpc();
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "field 0 at byte 7"));
    assert_eq!(server.stats().requests(Signal::Logs, RequestOutcome::Malformed), 1);
}

#[tokio::test]
async fn a_message_is_read_however_it_is_cut() {
    let server = Server::start(small()).await;
    let wire = framed(0, b"hello");
    for size in 1..=wire.len() {
        let reply = call(server.grpc, grpc_request(TRACES, Pieces::of(wire.chunks(size)))).await;
        assert_eq!(reply.grpc().code(), Code::Ok, "pieces of {size}");
        assert_eq!(server.taken()[0].body, b"hello");
    }
    let empty = call(server.grpc, grpc_request(TRACES, Pieces::of([&framed(0, b"")[..]]))).await;
    assert_eq!(empty.grpc().code(), Code::Ok);
    assert_eq!(server.taken()[0].body, b"");
}

#[tokio::test]
async fn a_broken_message_costs_that_call() {
    let server = Server::start(small()).await;
    let two = [framed(0, b"one"), framed(0, b"two")].concat();
    let mut corrupt = gzip(b"hello");
    corrupt[12] ^= 0x55;
    for (what, encoding, wire, says) in [
        ("nothing", "identity", vec![], "ended after 0 of"),
        ("a cut prefix", "identity", vec![0, 0, 0], "ended after 3 of"),
        ("a lie about the length", "identity", [&[0, 0, 0, 0, 9][..], b"hello"].concat(), "ended after 5 of 9"),
        ("one byte too few", "identity", [&[0, 0, 0, 0, 6][..], b"hello"].concat(), "ended after 5 of 6"),
        ("garbage behind", "identity", [&framed(0, b"hello")[..], b"!"].concat(), "bytes follow after its end"),
        ("two messages", "identity", two, "one message"),
        ("an unknown flag", "identity", framed(2, b"hello"), "begins with 0 or 1"),
        ("a flag without an encoding", "identity", framed(1, &gzip(b"hello")), "names no encoding"),
        ("a corrupt gzip", "gzip", framed(1, &corrupt), "is not gzip"),
        ("a zstd that is gzip", "zstd", framed(1, &gzip(b"hello")), "is not zstd"),
        ("an empty gzip", "gzip", framed(1, b""), "is not gzip"),
        ("a deflate that is gzip", "deflate", framed(1, &gzip(b"hello")), "is not deflate"),
    ] {
        let mut request = grpc_request(TRACES, Pieces::of([&wire[..]]));
        request.headers_mut().insert("grpc-encoding", encoding.parse().unwrap());
        let status = call(server.grpc, request).await.grpc();
        assert_eq!(status.code(), Code::InvalidArgument, "{what}");
        assert!(status.message().contains(says), "{what}: {}", status.message());
    }
    assert_eq!(server.taken(), []);
    assert_eq!(server.stats().requests(Signal::Traces, RequestOutcome::Malformed), 12);
    assert_eq!(server.stats().in_flight_bytes, 0);
}

#[tokio::test]
async fn an_uncompressed_message_may_come_with_an_encoding_header() {
    let server = Server::start(small()).await;
    let mut request = grpc_request(TRACES, Pieces::of([&framed(0, b"plain")[..]]));
    request.headers_mut().insert("grpc-encoding", "gzip".parse().unwrap());
    assert_eq!(call(server.grpc, request).await.grpc().code(), Code::Ok);
    assert_eq!(server.taken()[0].body, b"plain");
}

#[tokio::test]
async fn too_large_is_an_invalid_argument_at_the_exact_byte() {
    let server = Server::start(small()).await;
    let limit = 1 << 20;
    let zeros = vec![0; limit + 1];
    for (what, encoding, wire, code) in [
        ("the limit", "identity", framed(0, &zeros[1..]), Code::Ok),
        ("one over", "identity", framed(0, &zeros), Code::InvalidArgument),
        ("four gigabytes, it says", "identity", vec![0, 255, 255, 255, 255], Code::InvalidArgument),
        ("the limit in gzip", "gzip", framed(1, &gzip(&zeros[1..])), Code::Ok),
        ("a gzip bomb", "gzip", framed(1, &gzip(&zeros)), Code::InvalidArgument),
        ("the limit in zstd", "zstd", framed(1, &zstd(&zeros[1..])), Code::Ok),
        ("a zstd bomb", "zstd", framed(1, &zstd(&zeros)), Code::InvalidArgument),
        ("the limit in deflate", "deflate", framed(1, &deflate(&zeros[1..])), Code::Ok),
        ("a deflate bomb", "deflate", framed(1, &deflate(&zeros)), Code::InvalidArgument),
    ] {
        let mut request = grpc_request(TRACES, Pieces::of([&wire[..]]));
        request.headers_mut().insert("grpc-encoding", encoding.parse().unwrap());
        let status = call(server.grpc, request).await.grpc();
        assert_eq!(status.code(), code, "{what}");
        assert_eq!(status.message().contains("1048576 bytes"), code != Code::Ok, "{what}: {}", status.message());
    }
    let stats = server.stats();
    assert_eq!(stats.requests(Signal::Traces, RequestOutcome::TooLarge), 5);
    assert_eq!(stats.in_flight_bytes, 0);
}

#[tokio::test]
async fn refused_bodies_do_not_stop_up_a_connection() {
    let server = Server::start(small()).await;
    let mut connection = connect_h2(server.grpc).await;
    // Together far more than the connection's window, and none of it is read.
    let too_large = framed(0, &vec![0; (1 << 20) + 1]);
    for _ in 0..10 {
        let response = connection.send_request(grpc_request(TRACES, Pieces::of([&too_large[..]]))).await.unwrap();
        assert_eq!(Reply::read(response).await.grpc().code(), Code::InvalidArgument);
    }
    let fits = connection.send_request(grpc_request(TRACES, Pieces::of([&framed(0, &[0; 300_000])[..]]))).await;
    assert_eq!(Reply::read(fits.unwrap()).await.grpc().code(), Code::Ok);
}

/// A call that announces a message of 1 MiB, and sends all but one byte of it.
async fn nearly_a_mebibyte(
    connection: &mut SendRequest<Pieces>,
) -> (UnboundedSender<Bytes>, JoinHandle<hyper::Result<http::Response<hyper::body::Incoming>>>) {
    let (pieces, body) = Pieces::new();
    pieces.send(Bytes::from_static(&[0, 0, 0x10, 0, 0])).unwrap();
    pieces.send(vec![7; (1 << 20) - 1].into()).unwrap();
    (pieces, tokio::spawn(connection.send_request(grpc_request(TRACES, body))))
}

/// Nothing is looked at while a test holds what it holds.
fn patient() -> ReceiverSettings {
    ReceiverSettings { pace_every: Duration::from_secs(3600), ..small() }
}

#[tokio::test]
async fn what_is_only_announced_costs_nothing() {
    let server = Server::start(ReceiverSettings { streams: 100, ..small() }).await;
    let mut connection = connect_h2(server.grpc).await;
    let mut held = Vec::new();
    for _ in 0..100 {
        let (pieces, body) = Pieces::new();
        pieces.send(Bytes::from_static(&[0, 0, 0x10, 0, 0])).unwrap();
        held.push((pieces, tokio::spawn(connection.send_request(grpc_request(TRACES, body)))));
    }
    server.until("all are read", |stats| stats.requests_in_flight == 100).await;
    others_run().await;
    assert_eq!(server.stats().in_flight_bytes, 0);
    let largest = framed(0, &vec![0; 1 << 20]);
    let reply = call(server.grpc, grpc_request(METRICS, Pieces::of([&largest[..]]))).await;
    assert_eq!(reply.grpc().code(), Code::Ok);
}

#[tokio::test]
async fn a_full_house_refuses_and_says_when_to_come_back() {
    let server = Server::start(patient()).await;
    let mut connections = [connect_h2(server.grpc).await, connect_h2(server.grpc).await];
    let mut held = Vec::new();
    for connection in &mut connections {
        held.push(nearly_a_mebibyte(connection).await);
    }
    server.until("both are charged", |stats| stats.in_flight_bytes == 2 << 20).await;

    let status = call(server.grpc, grpc_request(METRICS, Pieces::of([&framed(0, b"hello")[..]]))).await.grpc();
    assert_eq!(status.code(), Code::Unavailable);
    let details = status.details();
    let retry_info =
        b"\x1a\x36\x0a\x28type.googleapis.com/google.rpc.RetryInfo\x12\x0a\x0a\x08\x08\x01\x10\x80\xca\xb5\xee\x01";
    assert!(details.starts_with(&[8, 14]), "the code comes first: {details:?}");
    assert!(details.ends_with(retry_info), "1.5 s, as official libraries write it: {details:?}");
    assert_eq!(server.stats().requests(Signal::Metrics, RequestOutcome::Refused), 1);
    assert_eq!(server.stats().bytes(Signal::Metrics, RequestOutcome::Refused), 5);

    // One finishes honestly, the other goes away: both give back what they held.
    let (pieces, call_of_one) = held.remove(0);
    pieces.send(Bytes::from_static(&[7])).unwrap();
    drop(pieces);
    assert_eq!(Reply::read(call_of_one.await.unwrap().unwrap()).await.grpc().code(), Code::Ok);
    held.remove(0).1.abort();
    server.until("all is given back", |stats| stats.in_flight_bytes == 0).await;
    assert_eq!(server.stats().requests(Signal::Traces, RequestOutcome::Aborted), 1);
    let again = call(server.grpc, grpc_request(METRICS, Pieces::of([&framed(0, b"hello")[..]]))).await;
    assert_eq!(again.grpc().code(), Code::Ok);
}

#[tokio::test]
async fn whoever_holds_room_and_brings_nothing_gives_way() {
    let server = Server::start(small()).await;
    let mut connections = [connect_h2(server.grpc).await, connect_h2(server.grpc).await];
    let mut held = Vec::new();
    for connection in &mut connections {
        held.push(nearly_a_mebibyte(connection).await);
    }
    server.until("both are charged", |stats| stats.in_flight_bytes == 2 << 20).await;
    // From here on the clock runs on to the next timer whenever all wait.
    tokio::time::pause();
    let start = tokio::time::Instant::now();
    let (_pieces, answer) = held.remove(0);
    let reply = Reply::read(answer.await.unwrap().unwrap()).await;
    assert_eq!(reply.grpc().code(), Code::DeadlineExceeded);
    assert!(reply.grpc().message().contains("slowly while others wanted its room"), "{}", reply.grpc().message());
    assert!(start.elapsed() <= Duration::from_secs(3), "{:?}", start.elapsed());
    tokio::time::resume();
    server.until("there is room", |stats| stats.in_flight_bytes <= 1 << 20).await;
    assert!(server.stats().requests(Signal::Traces, RequestOutcome::TooSlow) >= 1);
    let largest = framed(0, &vec![0; 1 << 20]);
    let reply = call(server.grpc, grpc_request(METRICS, Pieces::of([&largest[..]]))).await;
    assert_eq!(reply.grpc().code(), Code::Ok);
}

#[tokio::test]
async fn what_is_not_otlp_over_grpc_is_told_so() {
    let server = Server::start(small()).await;
    for path in ["/", "/opentelemetry.proto.collector.trace.v1.TraceService/Import", "/grpc.health.v1.Health/Check"] {
        let status = call(server.grpc, grpc_request(path, Pieces::of([]))).await.grpc();
        assert_eq!(status.code(), Code::Unimplemented, "{path}");
    }
    assert_eq!(server.stats().unrouted, 3);

    let mut request = grpc_request(TRACES, Pieces::of([&framed(1, b"hello")[..]]));
    request.headers_mut().insert("grpc-encoding", "snappy".parse().unwrap());
    let reply = call(server.grpc, request).await;
    assert_eq!(reply.grpc().code(), Code::Unimplemented);
    assert_eq!(reply.header("grpc-accept-encoding"), "identity,gzip,deflate,zstd");
    assert_eq!(server.stats().requests(Signal::Traces, RequestOutcome::Unsupported), 1);

    for (content_type, status) in
        [("application/json", 415), ("application/grpc+json", 415), ("application/grpc+proto", 200)]
    {
        let mut request = grpc_request(TRACES, Pieces::of([&framed(0, b"hello")[..]]));
        request.headers_mut().insert("content-type", content_type.parse().unwrap());
        assert_eq!(call(server.grpc, request).await.status, status, "{content_type}");
    }
}

#[tokio::test]
async fn a_request_that_comes_round_is_refused_and_one_that_does_not_never_is() {
    const A: &str = "11111111-1111-4111-8111-111111111111";
    const B: &str = "22222222-2222-4222-8222-222222222222";
    const C: &str = "33333333-3333-4333-8333-333333333333";
    let server = Server::start(small()).await;
    let with_hops = |hops: &[&str]| {
        let mut request = grpc_request(TRACES, Pieces::of([&framed(0, b"hello")[..]]));
        for hop in hops {
            request.headers_mut().append(HOP_HEADER, hop.parse().unwrap());
        }
        request
    };
    let status = call(server.grpc, with_hops(&[&format!("{A}, {OWN_HOP}")])).await.grpc();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("\"me\""), "{}", status.message());
    // The name of an instance is no secret, so it stops nothing; nor does what is long, or much, or neither.
    let (long, many) = ("x".repeat(10_000), [A; 300].join(","));
    for strange in [&format!("{A},me"), "me", &long, &format!("{many},{OWN_HOP}"), "%, ,", "", OWN_HOP.split_at(35).0] {
        assert_eq!(call(server.grpc, with_hops(&[strange])).await.grpc().code(), Code::Ok, "{strange}");
        let hops = server.taken().pop().unwrap().hops;
        assert!(hops.len() <= 16 && hops.iter().all(|hop| hop == A), "{hops:?}");
    }
    assert_eq!(call(server.grpc, with_hops(&[&format!("{A},{B}"), C])).await.grpc().code(), Code::Ok);
    assert_eq!(server.taken().pop().unwrap().hops, [A, B, C]);
    assert_eq!(server.stats().requests(Signal::Traces, RequestOutcome::Looped), 1);
}

#[tokio::test]
async fn a_thousand_calls_share_a_connection() {
    let server = Server::start(small()).await;
    let connection = connect_h2(server.grpc).await;
    let calls: Vec<_> = (0..1000u32)
        .map(|n| {
            let mut connection = connection.clone();
            tokio::spawn(async move {
                let wire = framed(0, &n.to_be_bytes());
                let response = connection.send_request(grpc_request(TRACES, Pieces::of(wire.chunks(6)))).await;
                Reply::read(response.unwrap()).await.grpc().code()
            })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), Code::Ok);
    }
    let number = |taken: &Taken| u32::from_be_bytes(taken.body[..].try_into().unwrap());
    let mut numbers: Vec<u32> = server.taken().iter().map(number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..1000).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_connection_carries_no_more_streams_than_allowed() {
    let server = Server::start(ReceiverSettings { streams: 4, ..small() }).await;
    let mut peer = RawH2::connect(server.grpc).await;
    for stream in [1, 3, 5, 7, 9] {
        peer.0.write_all(&call_headers(stream, 0)).await.unwrap();
    }
    let refused_stream = 7u32.to_be_bytes().to_vec();
    assert_eq!(peer.next(RST_STREAM).await, Some((9, refused_stream)), "a peer that does not count is refused");
    server.until("the others wait for their bodies", |stats| stats.requests_in_flight == 4).await;
}

#[tokio::test]
async fn a_panic_costs_the_call_and_is_counted() {
    let server = Server::answering(small(), |body| {
        assert!(body != b"boom", "a defect");
        Ok(Accepted::default())
    })
    .await;
    let mut connection = connect_h2(server.grpc).await;
    let call = |wire: &[u8]| grpc_request(TRACES, Pieces::of([wire]));
    assert!(connection.send_request(call(&framed(0, b"boom"))).await.is_err());
    let next = connection.send_request(call(&framed(0, b"fine"))).await.unwrap();
    assert_eq!(Reply::read(next).await.grpc().code(), Code::Ok);
    let stats = server.stats();
    assert_eq!(stats.requests(Signal::Traces, RequestOutcome::Panicked), 1);
    assert_eq!(stats.in_flight_bytes, 0);
}
