//! What a reply means: taken, try again, too large, refused for now, or refused for good.
//!
//! Refused for good is only what is said of the data. OTLP would have a sender discard a batch for any
//! other status as well; but a token is renewed, a rollout ends, and a kept trace is not there twice.

use super::{GRPC_PREFIX, Protocol};
use crate::otlp::status::RpcStatus;
use crate::{http_client::Response, identity::Utc};
use http::{
    HeaderMap, StatusCode, Uri,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use std::{
    iter,
    time::{Duration, SystemTime},
};
use tonic::Code;

#[derive(Debug, PartialEq)]
pub(super) enum ExportReply {
    Taken {
        rejected: u64,
        message: String,
    },
    Retry {
        after: Option<Duration>,
        reason: String,
    },
    TooLarge {
        reason: String,
    },
    /// For who asks, or where, or for a fault over there: it may be taken another time.
    Denied {
        after: Option<Duration>,
        reason: String,
    },
    Refused {
        reason: String,
    },
}

impl ExportReply {
    /// `now` is the wall clock, for a Retry-After that is a date.
    pub(super) fn read(protocol: Protocol, response: &Response, now: SystemTime) -> ExportReply {
        match protocol {
            Protocol::Http => read_http(response, now),
            Protocol::Grpc => read_grpc(response, now),
        }
    }
}

fn read_http(response: &Response, now: SystemTime) -> ExportReply {
    // What it says besides may be cut off, or the page of a proxy.
    if response.status.is_success() {
        return taken(&response.body);
    }
    let reason = format!("HTTP {}{}", response.status.as_u16(), explanation(response));
    match response.status.as_u16() {
        400 | 422 => ExportReply::Refused { reason },
        _ => without_verdict(response, reason, now),
    }
}

/// By a status that says nothing of the data. 499 and from 520 on: of proxies that found nobody behind.
fn without_verdict(response: &Response, reason: String, now: SystemTime) -> ExportReply {
    let after = retry_after(&response.headers, now);
    match response.status.as_u16() {
        413 => ExportReply::TooLarge { reason },
        408 | 425 | 429 | 499 | 502 | 503 | 504 | 507 | 520..=530 => ExportReply::Retry { after, reason },
        _ => ExportReply::Denied { after, reason },
    }
}

/// The three signals' responses have the same fields: partial_success (1) with the number of rejected
/// items (1) and a message (2). One that cannot be read is still a success: the status says so.
fn taken(body: &[u8]) -> ExportReply {
    let partial = ExportTraceServiceResponse::decode(body).ok().and_then(|response| response.partial_success);
    let partial = partial.unwrap_or_default();
    ExportReply::Taken { rejected: u64::try_from(partial.rejected_spans).unwrap_or(0), message: partial.error_message }
}

/// The message of a `google.rpc.Status`, or plain text.
fn explanation(response: &Response) -> String {
    let content_type = response.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let text = if content_type.starts_with("application/x-protobuf") {
        RpcStatus::decode(response.body.as_ref()).map(|status| status.message).unwrap_or_default()
    } else if content_type.starts_with("text/plain") {
        String::from_utf8_lossy(&response.body).into_owned()
    } else {
        String::new()
    };
    if text.is_empty() { text } else { format!(": {text}") }
}

fn read_grpc(response: &Response, now: SystemTime) -> ExportReply {
    let status = tonic::Status::from_header_map(&response.trailers)
        .or_else(|| tonic::Status::from_header_map(&response.headers));
    let Some(status) = status else { return without_grpc_status(response, now) };
    if status.code() == Code::Ok {
        // Compressed replies were not asked for; the prefix precedes the message.
        return taken(response.body.get(GRPC_PREFIX..).unwrap_or_default());
    }
    let reason = format!("{:?}: {}", status.code(), status.message());
    let after = RpcStatus::decode(status.details()).ok().and_then(|status| status.retry_delay());
    match status.code() {
        _ if is_too_large(status.message()) => ExportReply::TooLarge { reason },
        Code::Cancelled | Code::DeadlineExceeded | Code::Aborted | Code::Unavailable => {
            ExportReply::Retry { after, reason }
        }
        Code::ResourceExhausted if after.is_some() => ExportReply::Retry { after, reason },
        Code::InvalidArgument | Code::AlreadyExists => ExportReply::Refused { reason },
        // OUT_OF_RANGE and DATA_LOSS, which OTLP would have sent again for ever, too.
        _ => ExportReply::Denied { after, reason },
    }
}

/// gRPC libraries have no code of their own for a message beyond their limit. In turn: Go and C++,
/// Java, tonic (whose OUT_OF_RANGE would otherwise be retried for ever).
fn is_too_large(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    ["larger than max", "exceeds maximum size", "message length too large"].iter().any(|text| message.contains(text))
}

/// An answer by somebody who does not speak gRPC and has not read the data, or half of one.
fn without_grpc_status(response: &Response, now: SystemTime) -> ExportReply {
    let is_grpc = response.headers.get(CONTENT_TYPE).is_some_and(|t| t.as_bytes().starts_with(b"application/grpc"));
    let cut = response.cut.as_ref().map(|error| format!(", {error}")).unwrap_or_default();
    let reason = format!("HTTP {} without grpc-status{}{cut}", response.status.as_u16(), explanation(response));
    match response.status {
        StatusCode::OK if is_grpc => ExportReply::Retry { after: None, reason },
        _ => without_verdict(response, reason, now),
    }
}

/// Seconds, or a date in the only form that may be sent (RFC 9110, 10.2.3 and 5.6.7).
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => {
            let date = SystemTime::UNIX_EPOCH + Duration::from_secs(Utc::parse_http(text)?.0);
            Some(date.duration_since(now).unwrap_or_default())
        }
    }
}

/// What a peer's text may repeat and a log must not.
pub(super) struct Secrets<'a> {
    pub(super) headers: &'a HeaderMap,
    pub(super) url: &'a Uri,
}

impl Secrets<'_> {
    pub(super) fn hide(&self, mut text: String) -> String {
        let headers =
            self.headers.values().filter(|value| value.is_sensitive()).filter_map(|value| value.to_str().ok());
        // Behind the scheme of `Bearer TOKEN`.
        let headers = headers.flat_map(|value| iter::once(value).chain(value.split(' ').skip(1)));
        let url = self.url.path_and_query().map(|path| path.as_str());
        // A token in a path is hardly a word, and a peer may repeat it alone.
        let is_odd = |segment: &&str| segment.bytes().any(|byte| byte.is_ascii_digit() || byte == b'@');
        let segments = self.url.path().split('/').map(|s| s.strip_prefix("adapt_").unwrap_or(s)).filter(is_odd);
        let values = self.url.query().into_iter().flat_map(|query| query.split(['&', '=']));
        // Shorter ones are no secrets and occur in any text.
        let all = headers.chain(url).chain(self.url.query()).chain(segments).chain(values);
        for secret in all.filter(|secret| secret.len() >= 6) {
            text = text.replace(secret, "[hidden]");
        }
        text
    }
}
