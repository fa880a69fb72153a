//! OTLP over HTTP: protobuf and JSON bodies, HTTP/1.1 and HTTP/2 on one port.
//!
//! Source: OTLP specification, "OTLP/HTTP". Errors are `google.rpc.Status` in the request's content
//! type; what is not even an OTLP request gets a line of text.

use super::Accepted;
use super::admission::{Admission, Buffer};
use super::context::{Reply, RequestContext, count, next_chunk};
use super::inflate::Encoding;
use super::refusal::Refusal;
use super::stats::{RequestCount, RequestOutcome};
use super::{grpc, json};
use crate::terminal::quote;
use crate::trace::Signal;
use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, ALLOW, CONTENT_ENCODING, CONTENT_TYPE, EXPECT, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body;
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTracePartialSuccess, ExportTraceServiceResponse};
use prost::Message;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use tonic::Status;

/// How many times the largest request is read and thrown away, so that its sender gets to hear why.
const WITHIN_REASON: usize = 4;

/// How a request is written, and so how it is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Format {
    Protobuf,
    Json,
}

impl Format {
    fn of(headers: &HeaderMap) -> Option<Format> {
        let content_type = headers.get(CONTENT_TYPE)?.as_bytes();
        let media_type = content_type.split(|&c| c == b';').next()?.trim_ascii().to_ascii_lowercase();
        match &media_type[..] {
            b"application/x-protobuf" => Some(Format::Protobuf),
            b"application/json" => Some(Format::Json),
            _ => None,
        }
    }

    fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Format::Protobuf => "application/x-protobuf",
            Format::Json => "application/json",
        })
    }
}

/// Answers one request. Never fails: whatever went wrong is an HTTP status.
pub(super) async fn answer<B>(context: &RequestContext, request: Request<B>) -> Response<Reply>
where
    B: Body<Data = Bytes> + Unpin,
{
    let signal = match request.uri().path() {
        "/v1/traces" => Signal::Traces,
        "/v1/metrics" => Signal::Metrics,
        "/v1/logs" => Signal::Logs,
        _ => {
            context.counters.unrouted.fetch_add(1, Relaxed);
            return unrouted(context, &request);
        }
    };
    if request.method() != Method::POST {
        context.counters.unrouted.fetch_add(1, Relaxed);
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "send OTLP requests with POST\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        return response;
    }
    let Some(format) = Format::of(request.headers()) else {
        context.count_request(signal).end(RequestOutcome::Unsupported);
        return text(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "send OTLP requests with content-type application/x-protobuf or application/json\n",
        );
    };
    match export(context, signal, format, request).await {
        Ok(accepted) => accept(signal, format, &accepted),
        Err(refusal) => refuse(context, format, &refusal),
    }
}

/// Characters of a path that a log shows.
const PATH_MAX: usize = 100;

fn unrouted<B>(context: &RequestContext, request: &Request<B>) -> Response<Reply> {
    if grpc::is_grpc(request.headers()) {
        context.note_stray("gRPC on the port of OTLP/HTTP: OTLP/gRPC has a port of its own, usually 4317");
        return grpc::refuse(Status::unimplemented("this port speaks OTLP/HTTP; OTLP/gRPC has a port of its own"));
    }
    let path = quote(request.uri().path(), PATH_MAX);
    context.note_stray(&format!("the path {path}: OTLP/HTTP is sent to /v1/traces, /v1/metrics and /v1/logs"));
    text(StatusCode::NOT_FOUND, "the paths here are /v1/traces, /v1/metrics and /v1/logs\n")
}

async fn export<B>(
    context: &RequestContext,
    signal: Signal,
    format: Format,
    request: Request<B>,
) -> Result<Accepted, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    // An HTTP/1.1 client that is still sending may not look for an answer, and is reset if the
    // connection closes under it: let it finish. One that asked first has sent nothing.
    let lets_finish = request.version() <= Version::HTTP_11 && !request.headers().contains_key(EXPECT);
    let (head, mut body) = request.into_parts();
    let mut count_request = context.count_request(signal);
    let mut result = take(context, signal, format, &head.headers, &mut body, &mut count_request).await;
    let is_waiting = matches!(result, Err(ref why) if !matches!(why, Refusal::Aborted | Refusal::TimedOut(_)));
    if is_waiting && lets_finish && !body.is_end_stream() {
        let discarded = context.in_time(discard(&mut body, context.admission.max_request() * WITHIN_REASON)).await;
        if discarded == Err(Refusal::Aborted) {
            result = Err(Refusal::Aborted);
        }
    }
    count(count_request, &result);
    result
}

async fn take<B>(
    context: &RequestContext,
    signal: Signal,
    format: Format,
    headers: &HeaderMap,
    body: &mut B,
    count_request: &mut RequestCount<'_>,
) -> Result<Accepted, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    context.check_hops(headers)?;
    let encoding = Encoding::from_header(headers.get(CONTENT_ENCODING))?;
    let wire = context.in_time(read_body(&context.admission, body, count_request)).await?;
    let body = encoding.inflate(wire)?;
    count_request.bytes = body.len();
    match format {
        Format::Protobuf => context.accept(signal, &body, headers),
        Format::Json => {
            // Protobuf of real traffic has about half the size; it grows from there if it must.
            let room = context.admission.admit(body.len() / 2)?;
            let protobuf = json::to_protobuf(signal, &body, room)?;
            drop(body);
            context.accept(signal, &protobuf, headers)
        }
    }
}

async fn read_body<B>(
    admission: &Arc<Admission>,
    body: &mut B,
    count_request: &mut RequestCount<'_>,
) -> Result<Buffer, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    let declared = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    count_request.bytes = declared;
    let mut wire = admission.admit(declared)?;
    while let Some(chunk) = next_chunk(body).await? {
        wire.append(&chunk)?;
        count_request.bytes = count_request.bytes.max(wire.len());
    }
    Ok(wire)
}

/// Reads what is left of a body, up to `most` bytes, and keeps none of it.
async fn discard<B>(body: &mut B, most: usize) -> Result<(), Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut left = most;
    while let Some(chunk) = next_chunk(body).await? {
        left = match left.checked_sub(chunk.len()) {
            Some(left) => left,
            None => break,
        };
    }
    Ok(())
}

fn accept(signal: Signal, format: Format, accepted: &Accepted) -> Response<Reply> {
    let body = match (format, accepted.is_partial()) {
        (Format::Protobuf, false) => Bytes::new(),
        (Format::Json, false) => Bytes::from_static(b"{}"),
        (Format::Protobuf, true) => {
            // All three responses have the same numbers, so one type encodes them.
            let partial_success = Some(ExportTracePartialSuccess {
                rejected_spans: accepted.rejected as i64,
                error_message: accepted.message.clone(),
            });
            ExportTraceServiceResponse { partial_success }.encode_to_vec().into()
        }
        (Format::Json, true) => {
            let rejected = ["rejectedSpans", "rejectedDataPoints", "rejectedLogRecords"][signal as usize];
            let count = accepted.rejected.to_string();
            json!({ "partialSuccess": { rejected: count, "errorMessage": accepted.message } }).to_string().into()
        }
    };
    respond(StatusCode::OK, format.content_type(), body)
}

fn refuse(context: &RequestContext, format: Format, refusal: &Refusal) -> Response<Reply> {
    let retry_after = context.settings.retry_after;
    let body = match format {
        Format::Protobuf => refusal.rpc_status(retry_after),
        Format::Json => json!({ "code": refusal.code() as i32, "message": refusal.to_string() }).to_string().into(),
    };
    let mut response = respond(refusal.http_status(), format.content_type(), body);
    let headers = response.headers_mut();
    if refusal.is_retryable() {
        // Whole seconds: rounding down would ask for a storm.
        let seconds = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if matches!(refusal, Refusal::Encoding(_)) {
        headers.insert(ACCEPT_ENCODING, Encoding::ACCEPTED);
    }
    response
}

fn text(status: StatusCode, line: &'static str) -> Response<Reply> {
    respond(status, HeaderValue::from_static("text/plain; charset=utf-8"), Bytes::from_static(line.as_bytes()))
}

fn respond(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Response<Reply> {
    let data = if body.is_empty() { None } else { Some(body) };
    let mut response = Response::new(Reply { data, trailers: None });
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}
