//! Why a request was not taken, and what that is called in gRPC and in HTTP.

use super::outcome::RequestOutcome;
use crate::otlp::status::{RetryInfo, RpcStatus};
use bytes::Bytes;
use http::StatusCode;
use prost::Message;
use std::time::Duration;
use tonic::Code;

/// Each variant has one gRPC code, one HTTP status and one counter. Which codes clients send again is
/// fixed by the OTLP specification ("Failures"): UNAVAILABLE, DEADLINE_EXCEEDED and 503 among them.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(super) enum Refusal {
    #[error(
        "this receiver takes requests with credentials alone, and {}: send `authorization` with a token or password of \
         its `receive.auth`",
        if *presented { "those of this one are not among its own" } else { "this one has none" }
    )]
    Unauthenticated { presented: bool },
    #[error("{limit} bytes of request bodies are in flight here, which is the limit; send this request again later")]
    Busy { limit: usize },
    #[error("the request has more than {limit} bytes after decompression; send smaller batches")]
    TooLarge { limit: usize },
    #[error("{0}")]
    Malformed(String),
    #[error("encoding {0:?} is not supported; send identity, gzip, deflate or zstd")]
    Encoding(String),
    #[error("this request has been through collector {0:?} before: one of its sinks leads back to it")]
    Loop(String),
    #[error("the request body did not arrive within {0:?}")]
    TimedOut(Duration),
    #[error("the request body came slowly while others wanted its room; send this request again later")]
    TooSlow,
    #[error("the request ended before its body was complete")]
    Aborted,
}

impl Refusal {
    pub fn malformed(why: impl std::fmt::Display) -> Refusal {
        Refusal::Malformed(why.to_string())
    }

    pub fn outcome(&self) -> RequestOutcome {
        match self {
            Refusal::Unauthenticated { .. } => RequestOutcome::Unauthenticated,
            Refusal::Busy { .. } => RequestOutcome::Refused,
            Refusal::TooLarge { .. } => RequestOutcome::TooLarge,
            Refusal::Malformed(_) => RequestOutcome::Malformed,
            Refusal::Encoding(_) => RequestOutcome::Unsupported,
            Refusal::Loop(_) => RequestOutcome::Looped,
            Refusal::TimedOut(_) => RequestOutcome::TimedOut,
            Refusal::TooSlow => RequestOutcome::TooSlow,
            Refusal::Aborted => RequestOutcome::Aborted,
        }
    }

    pub fn code(&self) -> Code {
        match self {
            Refusal::Unauthenticated { .. } => Code::Unauthenticated,
            Refusal::Busy { .. } => Code::Unavailable,
            // Not OUT_OF_RANGE or RESOURCE_EXHAUSTED: clients send those again for ever.
            Refusal::TooLarge { .. } | Refusal::Malformed(_) => Code::InvalidArgument,
            Refusal::Encoding(_) => Code::Unimplemented,
            Refusal::Loop(_) => Code::FailedPrecondition,
            Refusal::TimedOut(_) | Refusal::TooSlow => Code::DeadlineExceeded,
            Refusal::Aborted => Code::Cancelled,
        }
    }

    pub fn http_status(&self) -> StatusCode {
        match self {
            Refusal::Unauthenticated { .. } => StatusCode::UNAUTHORIZED,
            // A slow network is no fault of the data: 408 would make clients throw it away.
            Refusal::Busy { .. } | Refusal::TimedOut(_) | Refusal::TooSlow => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::Malformed(_) | Refusal::Aborted => StatusCode::BAD_REQUEST,
            Refusal::Encoding(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Refusal::Loop(_) => StatusCode::LOOP_DETECTED,
        }
    }

    pub fn is_retryable(&self) -> bool {
        matches!(self, Refusal::Busy { .. } | Refusal::TimedOut(_) | Refusal::TooSlow)
    }

    /// Whether the sender is there and may still be sending.
    pub fn finds_a_sender_waiting(&self) -> bool {
        !matches!(self, Refusal::Aborted | Refusal::TimedOut(_) | Refusal::TooSlow)
    }

    /// The encoded `google.rpc.Status`: the body of an OTLP/HTTP error, and `grpc-status-details-bin`.
    /// A retryable one says when to come back, in a `google.rpc.RetryInfo`.
    pub fn rpc_status(&self, retry_after: Duration) -> Bytes {
        let retry_info = self.is_retryable().then(|| RetryInfo::after(retry_after).to_any());
        let status = RpcStatus {
            code: self.code() as i32,
            message: self.to_string(),
            details: retry_info.into_iter().collect(),
        };
        status.encode_to_vec().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_info_has_the_official_shape() {
        // `google.rpc.Status` with a packed `google.rpc.RetryInfo` of 1.5 s and an empty message, as the
        // generated Python classes of googleapis-common-protos write it.
        let details =
            b"\x0a\x28type.googleapis.com/google.rpc.RetryInfo\x12\x0a\x0a\x08\x08\x01\x10\x80\xca\xb5\xee\x01";
        let refusal = Refusal::Busy { limit: 1 };
        let message = refusal.to_string();
        let expected = [b"\x08\x0e\x12", &[message.len() as u8][..], message.as_bytes(), b"\x1a\x36", details].concat();
        assert_eq!(refusal.rpc_status(Duration::from_millis(1500)), expected);
    }

    #[test]
    fn only_what_clients_should_send_again_says_when() {
        for refusal in [
            Refusal::Unauthenticated { presented: true },
            Refusal::TooLarge { limit: 1 },
            Refusal::Malformed("m".into()),
            Refusal::Encoding("br".into()),
            Refusal::Loop("a".into()),
            Refusal::Aborted,
        ] {
            let status = RpcStatus::decode(refusal.rpc_status(Duration::from_secs(1))).unwrap();
            assert_eq!((status.code, status.details.len()), (refusal.code() as i32, 0), "{refusal}");
        }
    }
}
