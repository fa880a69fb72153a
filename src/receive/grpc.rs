//! OTLP over gRPC: one unary message in, a status out.
//!
//! The body is read here and not by a gRPC library's codec, so that room is asked for before memory is
//! taken, and so that a message that is too large is not answered with a code that clients retry for
//! ever. Source: "gRPC over HTTP2" and "Compression" of the gRPC project's documentation.

use super::Accepted;
use super::admission::Buffer;
use super::context::{Arriving, PATH_MAX, Reply, RequestContext, next_chunk};
use super::inflate::Encoding;
use super::refusal::Refusal;
use super::refusal_log::Sender;
use super::stats::RequestCount;
use crate::terminal::quote;
use crate::trace::Signal;
use bytes::{Buf, Bytes};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTracePartialSuccess, ExportTraceServiceResponse};
use prost::Message;
use std::net::SocketAddr;
use tonic::{Code, Status};

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// A compressed flag and a big-endian length stand before every message.
const PREFIX: usize = 5;

/// A call whose head has been read, and what is kept of it.
pub(super) struct GrpcCall<B> {
    signal: Signal,
    encoding: Result<Encoding, Refusal>,
    hops: HeaderMap,
    sender: Sender,
    body: B,
}

/// Reads a request's head and drops it. What is no call is answered at once.
pub(super) fn enter<B>(
    context: &RequestContext,
    peer: SocketAddr,
    request: Request<B>,
) -> Result<GrpcCall<B>, Box<Response<Reply>>> {
    let sender = Sender::of(peer, request.headers());
    if !is_grpc(request.headers()) {
        context.note_unroutable(&sender, "a content type other than gRPC's on the port of OTLP/gRPC");
        return Err(Box::new(not_grpc()));
    }
    let Some(signal) = signal(&request) else {
        let path = quote(request.uri().path(), PATH_MAX);
        context.note_unroutable(&sender, &format!("the method {path}: OTLP/gRPC has Export of three services"));
        let what = "the methods here are OTLP's Trace-, Metrics- and LogsService/Export";
        return Err(Box::new(refuse(Status::unimplemented(what))));
    };
    let (head, body) = request.into_parts();
    let (encoding, hops) = match context.take_hops(&head.headers) {
        Ok(hops) => (Encoding::from_header(head.headers.get(ENCODING)), hops),
        Err(refusal) => (Err(refusal), HeaderMap::new()),
    };
    Ok(GrpcCall { signal, encoding, hops, sender, body })
}

impl<B> GrpcCall<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    /// Answers the call. Never fails: whatever went wrong is a gRPC status.
    pub async fn answer(self, context: &RequestContext) -> Response<Reply> {
        let GrpcCall { signal, encoding, hops, sender, body } = self;
        let mut count = context.count_request(signal);
        let result = match encoding {
            Ok(encoding) => take(context, signal, encoding, &hops, body, &mut count).await,
            Err(refusal) => Err(refusal),
        };
        context.finish(count, &sender, &result);
        match result {
            Ok(accepted) => accept(&accepted),
            Err(refusal) => {
                let details = refusal.rpc_status(context.settings.retry_after);
                refuse(Status::with_details(refusal.code(), refusal.to_string(), details))
            }
        }
    }
}

/// Whether a request speaks gRPC, with protobuf messages.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let media_type = content_type.split(|&c| c == b';').next().unwrap_or_default().trim_ascii();
    media_type == GRPC.as_bytes() || media_type == b"application/grpc+proto"
}

fn signal<B>(request: &Request<B>) -> Option<Signal> {
    if request.method() != Method::POST {
        return None;
    }
    match request.uri().path() {
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export" => Some(Signal::Traces),
        "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export" => Some(Signal::Metrics),
        "/opentelemetry.proto.collector.logs.v1.LogsService/Export" => Some(Signal::Logs),
        _ => None,
    }
}

async fn take<B>(
    context: &RequestContext,
    signal: Signal,
    encoding: Encoding,
    hops: &HeaderMap,
    mut body: B,
    count: &mut RequestCount<'_>,
) -> Result<Accepted, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    let message = context.in_time(read_message(context, &mut body, count)).await?;
    let body = match message {
        Incoming::Plain(body) => body,
        Incoming::Compressed(_) if encoding == Encoding::Identity => {
            return Err(Refusal::malformed(
                "the message is flagged as compressed, but `grpc-encoding` names no encoding",
            ));
        }
        Incoming::Compressed(wire) => encoding.inflate(wire)?,
    };
    count.bytes = body.len();
    context.accept(signal, &body, hops)
}

/// A message as it came.
enum Incoming {
    Plain(Buffer),
    Compressed(Buffer),
}

/// Reads exactly one message, to the end of the stream.
async fn read_message<B>(
    context: &RequestContext,
    body: &mut B,
    count: &mut RequestCount<'_>,
) -> Result<Incoming, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    let ([flag, length @ ..], mut chunk) = read_prefix(body).await?;
    if flag > 1 {
        return Err(Refusal::Malformed(format!("a gRPC message begins with 0 or 1, not with {flag}")));
    }
    let length = u32::from_be_bytes(length) as usize;
    count.bytes = length;
    let mut message = context.admission.admit(length)?;
    let mut arriving = Arriving::new(context, body);
    loop {
        if chunk.len() > length - message.len() {
            return Err(Refusal::malformed("an Export call has one message; bytes follow after its end"));
        }
        message.append(&chunk)?;
        match arriving.next(&message).await? {
            Some(next) => chunk = next,
            None => break,
        }
    }
    if message.len() < length {
        let arrived = message.len();
        return Err(Refusal::Malformed(format!("the message ended after {arrived} of {length} bytes")));
    }
    Ok(if flag == 1 { Incoming::Compressed(message) } else { Incoming::Plain(message) })
}

/// The prefix, and what came after it in the same chunk.
async fn read_prefix<B>(body: &mut B) -> Result<([u8; PREFIX], Bytes), Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut prefix = [0; PREFIX];
    let mut filled = 0;
    loop {
        let Some(mut chunk) = next_chunk(body).await? else {
            return Err(Refusal::Malformed(format!(
                "the call ended after {filled} of a message's first {PREFIX} bytes"
            )));
        };
        let take = chunk.len().min(PREFIX - filled);
        prefix[filled..filled + take].copy_from_slice(&chunk[..take]);
        filled += take;
        if filled == PREFIX {
            chunk.advance(take);
            return Ok((prefix, chunk));
        }
    }
}

fn accept(accepted: &Accepted) -> Response<Reply> {
    // All three responses have the same numbers, so one type encodes them.
    let message = ExportTraceServiceResponse {
        partial_success: accepted.is_partial().then(|| ExportTracePartialSuccess {
            rejected_spans: accepted.rejected as i64,
            error_message: accepted.message.clone(),
        }),
    };
    let mut data = vec![0; PREFIX];
    message.encode(&mut data).expect("a vector grows");
    let length = (data.len() - PREFIX) as u32;
    data[1..PREFIX].copy_from_slice(&length.to_be_bytes());
    let trailers = HeaderMap::from_iter([(STATUS, HeaderValue::from(Code::Ok as i32))]);
    let mut response = Response::new(Reply { data: Some(data.into()), trailers: Some(trailers) });
    response.headers_mut().extend([(CONTENT_TYPE, GRPC), (ACCEPT_ENCODING, Encoding::ACCEPTED)]);
    response
}

/// A response of headers alone that carries a status.
pub(super) fn refuse(status: Status) -> Response<Reply> {
    let mut response = status.into_http::<Reply>();
    response.headers_mut().insert(ACCEPT_ENCODING, Encoding::ACCEPTED);
    response
}

/// gRPC's own answer to a foreign content type.
fn not_grpc() -> Response<Reply> {
    let mut response = Response::new(Reply {
        data: Some(Bytes::from_static(b"this port speaks OTLP/gRPC: send `content-type: application/grpc`\n")),
        trailers: None,
    });
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    response
}
