//! OTLP over HTTP: protobuf and JSON bodies, HTTP/1.1 and HTTP/2 on one port.
//!
//! Source: OTLP specification, "OTLP/HTTP". Errors are `google.rpc.Status` in the request's content
//! type; what is not even an OTLP request gets a line of text.

use super::Accepted;
use super::admission::Buffer;
use super::context::{Arriving, PATH_MAX, Reply, RequestContext, next_chunk};
use super::inflate::Encoding;
use super::outcome::{ConnectionFault, RequestOutcome};
use super::refusal::Refusal;
use super::refusal_log::{Complaint, Sender};
use super::stats::RequestCount;
use super::{cors, grpc, items, json};
use crate::terminal::quote;
use crate::trace::Signal;
use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, ALLOW, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, EXPECT, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body;
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTracePartialSuccess, ExportTraceServiceResponse};
use prost::Message;
use serde_json::json;
use std::net::SocketAddr;
use tonic::Status;

/// How many times the largest request is read and thrown away, so that its sender gets to hear why.
const WITHIN_REASON: usize = 4;

/// How a request is written, and so how it is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum BodyFormat {
    Protobuf,
    Json,
}

impl BodyFormat {
    fn of(headers: &HeaderMap) -> Option<BodyFormat> {
        let content_type = headers.get(CONTENT_TYPE)?.as_bytes();
        let media_type = content_type.split(|&c| c == b';').next()?.trim_ascii().to_ascii_lowercase();
        match &media_type[..] {
            b"application/x-protobuf" => Some(BodyFormat::Protobuf),
            b"application/json" => Some(BodyFormat::Json),
            _ => None,
        }
    }

    fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            BodyFormat::Protobuf => "application/x-protobuf",
            BodyFormat::Json => "application/json",
        })
    }
}

/// A request whose head has been read, and what is kept of it.
pub(super) struct HttpRequest<B> {
    signal: Signal,
    format: BodyFormat,
    encoding: Result<Encoding, Refusal>,
    hops: HeaderMap,
    sender: Sender,
    /// The page that may hear the answer.
    origin: Option<HeaderValue>,
    /// An HTTP/1.1 client that is still sending may not look for an answer, and is reset if the
    /// connection closes under it: let it finish. One that asked first has sent nothing.
    lets_finish: bool,
    body: B,
}

/// A request that is no OTLP request, and the answer to it.
pub(super) struct Unroutable<B> {
    response: Box<Response<Reply>>,
    /// As of a [`HttpRequest`].
    lets_finish: bool,
    body: B,
}

/// Reads a request's head and drops it.
pub(super) fn enter<B>(
    context: &RequestContext,
    peer: SocketAddr,
    request: Request<B>,
) -> Result<HttpRequest<B>, Unroutable<B>> {
    let sender = Sender::of(peer, request.headers());
    let origin = cors::origin(&context.settings.cors, request.headers());
    let routed = route(context, &sender, &request, origin.as_ref());
    let (head, body) = request.into_parts();
    let lets_finish = head.version <= Version::HTTP_11 && !head.headers.contains_key(EXPECT);
    match routed {
        Ok((signal, format)) => {
            let (encoding, hops) = match context.take_hops(&head.headers) {
                Ok(hops) => (Encoding::from_header(head.headers.get(CONTENT_ENCODING)), hops),
                Err(refusal) => (Err(refusal), HeaderMap::new()),
            };
            Ok(HttpRequest { signal, format, encoding, hops, sender, origin, lets_finish, body })
        }
        Err(mut response) => {
            if let Some(origin) = origin {
                cors::allow(&mut response, origin);
            }
            Err(Unroutable { response, lets_finish, body })
        }
    }
}

/// What a request is, or the answer to one that is no OTLP request.
fn route<B>(
    context: &RequestContext,
    sender: &Sender,
    request: &Request<B>,
    origin: Option<&HeaderValue>,
) -> Result<(Signal, BodyFormat), Box<Response<Reply>>> {
    if is_header_too_large(context, request) {
        return Err(Box::new(header_too_large(context, sender)));
    }
    let signal = match request.uri().path() {
        "/v1/traces" => Signal::Traces,
        "/v1/metrics" => Signal::Metrics,
        "/v1/logs" => Signal::Logs,
        _ => return Err(Box::new(unrouted(context, sender, request))),
    };
    if origin.is_some() && cors::is_preflight(request.method(), request.headers()) {
        return Err(Box::new(cors::preflight(request.headers())));
    }
    if request.method() != Method::POST {
        context.note_unroutable(sender, "a method other than POST");
        return Err(Box::new(not_post(request)));
    }
    let Some(format) = BodyFormat::of(request.headers()) else {
        let what = "send OTLP requests with content-type application/x-protobuf or application/json\n";
        context.count_request(signal).end(RequestOutcome::Unsupported);
        context.refusals.note(Complaint::Request(RequestOutcome::Unsupported), sender, what.trim_end());
        return Err(Box::new(text(StatusCode::UNSUPPORTED_MEDIA_TYPE, what)));
    };
    Ok((signal, format))
}

/// Whether an HTTP/1 header is larger than allowed; that of HTTP/2 is bounded before it comes here.
fn is_header_too_large<B>(context: &RequestContext, request: &Request<B>) -> bool {
    let fields = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    request.version() <= Version::HTTP_11 && target + fields.sum::<usize>() > context.settings.header_bytes as usize
}

fn header_too_large(context: &RequestContext, sender: &Sender) -> Response<Reply> {
    let fault = ConnectionFault::HeaderTooLarge;
    context.counters.connection_failed(fault);
    context.refusals.note(Complaint::Connection(fault), sender, fault.advice());
    let mut response = text(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "the header is larger than allowed\n");
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

fn not_post<B>(request: &Request<B>) -> Response<Reply> {
    let line = if cors::is_preflight(request.method(), request.headers()) {
        "this origin is not one of `receive.cors`: its pages may not send here\n"
    } else {
        "send OTLP requests with POST\n"
    };
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, line);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
    response
}

fn unrouted<B>(context: &RequestContext, sender: &Sender, request: &Request<B>) -> Response<Reply> {
    if grpc::is_grpc(request.headers()) {
        let what = "gRPC on the port of OTLP/HTTP: OTLP/gRPC has a port of its own, usually 4317";
        context.note_unroutable(sender, what);
        return grpc::refuse(Status::unimplemented("this port speaks OTLP/HTTP; OTLP/gRPC has a port of its own"));
    }
    let path = quote(request.uri().path(), PATH_MAX);
    let what = format!("the path {path}: OTLP/HTTP is sent to /v1/traces, /v1/metrics and /v1/logs");
    context.note_unroutable(sender, &what);
    text(StatusCode::NOT_FOUND, "the paths here are /v1/traces, /v1/metrics and /v1/logs\n")
}

impl<B> HttpRequest<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    /// Answers the request. Never fails: whatever went wrong is an HTTP status.
    pub async fn answer(self, context: &RequestContext) -> Response<Reply> {
        let HttpRequest { signal, format, encoding, hops, sender, origin, lets_finish, mut body } = self;
        let mut count = context.count_request(signal);
        let mut result = match encoding {
            Ok(encoding) => take(context, signal, format, encoding, &hops, &mut body, &mut count).await,
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = &result
            && lets_finish
            && refusal.finds_a_sender_waiting()
            && discard(context, &mut body).await == Err(Refusal::Aborted)
        {
            result = Err(Refusal::Aborted);
        }
        context.finish(count, &sender, &result);
        let mut response = match &result {
            Ok(accepted) => accept(signal, format, accepted),
            Err(refusal) => refuse(context, format, refusal),
        };
        if let Some(origin) = origin {
            cors::allow(&mut response, origin);
        }
        response
    }
}

impl<B> Unroutable<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    /// Answers when its sender may listen.
    pub async fn answer(mut self, context: &RequestContext) -> Response<Reply> {
        if self.lets_finish {
            // Whoever has gone meanwhile hears nothing.
            let _ = discard(context, &mut self.body).await;
        }
        *self.response
    }
}

async fn take<B>(
    context: &RequestContext,
    signal: Signal,
    format: BodyFormat,
    encoding: Encoding,
    hops: &HeaderMap,
    body: &mut B,
    count: &mut RequestCount<'_>,
) -> Result<Accepted, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    let wire = context.in_time(read_body(context, body, count)).await?;
    let body = encoding.inflate(wire)?;
    count.bytes = body.len();
    match format {
        BodyFormat::Protobuf => context.accept(signal, &body, hops),
        BodyFormat::Json => take_json(context, signal, body, hops),
    }
}

fn take_json(context: &RequestContext, signal: Signal, body: Buffer, hops: &HeaderMap) -> Result<Accepted, Refusal> {
    // Protobuf of real traffic has about half the size; it grows from there if it must.
    let expected = body.len() / 2;
    let mut room = context.admission.admit(expected)?;
    room.make_room(expected)?;
    let protobuf = json::to_protobuf(signal, &body, room)?;
    let complaint = if protobuf.is_empty() { items::complaint_about_json(signal, &body) } else { None };
    drop(body);
    let mut accepted = context.accept(signal, &protobuf, hops)?;
    if let Some(complaint) = complaint {
        accepted.message = complaint;
    }
    Ok(accepted)
}

async fn read_body<B>(context: &RequestContext, body: &mut B, count: &mut RequestCount<'_>) -> Result<Buffer, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    let declared = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    count.bytes = declared;
    let mut wire = context.admission.admit(declared)?;
    let mut arriving = Arriving::new(context, body);
    while let Some(chunk) = arriving.next(&wire).await? {
        wire.append(&chunk)?;
        count.bytes = count.bytes.max(wire.len());
    }
    Ok(wire)
}

/// Reads what is left of a body, within reason, and keeps none of it.
async fn discard<B>(context: &RequestContext, body: &mut B) -> Result<(), Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut left = context.admission.max_request() * WITHIN_REASON;
    let reading = async {
        while !body.is_end_stream()
            && let Some(chunk) = next_chunk(body).await?
        {
            left = match left.checked_sub(chunk.len()) {
                Some(left) => left,
                None => break,
            };
        }
        Ok(())
    };
    context.in_time(reading).await
}

fn accept(signal: Signal, format: BodyFormat, accepted: &Accepted) -> Response<Reply> {
    let body = match (format, accepted.is_partial()) {
        (BodyFormat::Protobuf, false) => Bytes::new(),
        (BodyFormat::Json, false) => Bytes::from_static(b"{}"),
        (BodyFormat::Protobuf, true) => {
            // All three responses have the same numbers, so one type encodes them.
            let partial_success = Some(ExportTracePartialSuccess {
                rejected_spans: accepted.rejected as i64,
                error_message: accepted.message.clone(),
            });
            ExportTraceServiceResponse { partial_success }.encode_to_vec().into()
        }
        (BodyFormat::Json, true) => {
            let rejected = ["rejectedSpans", "rejectedDataPoints", "rejectedLogRecords"][signal as usize];
            let count = accepted.rejected.to_string();
            json!({ "partialSuccess": { rejected: count, "errorMessage": accepted.message } }).to_string().into()
        }
    };
    respond(StatusCode::OK, format.content_type(), body)
}

fn refuse(context: &RequestContext, format: BodyFormat, refusal: &Refusal) -> Response<Reply> {
    let retry_after = context.settings.retry_after;
    let body = match format {
        BodyFormat::Protobuf => refusal.rpc_status(retry_after),
        BodyFormat::Json => json!({ "code": refusal.code() as i32, "message": refusal.to_string() }).to_string().into(),
    };
    let mut response = respond(refusal.http_status(), format.content_type(), body);
    let headers = response.headers_mut();
    if refusal.is_retryable() {
        // Whole seconds: rounding down would ask for a storm.
        let seconds = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    match refusal {
        Refusal::Encoding(_) => drop(headers.insert(ACCEPT_ENCODING, Encoding::ACCEPTED)),
        Refusal::Unauthenticated { .. } => {
            headers.extend(context.authentication.challenges().iter().map(|scheme| (WWW_AUTHENTICATE, scheme.clone())));
        }
        _ => {}
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
