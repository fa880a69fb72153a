//! `google.rpc.Status` and what OTLP lets it carry: the refusal of a request, in gRPC trailers and HTTP bodies.

use prost::Message;
use std::time::Duration;

const RETRY_INFO: &str = "google.rpc.RetryInfo";

/// `google.rpc.Status` (google/rpc/status.proto).
#[derive(Clone, PartialEq, Message)]
pub struct RpcStatus {
    #[prost(int32, tag = "1")]
    pub code: i32,
    #[prost(string, tag = "2")]
    pub message: String,
    #[prost(message, repeated, tag = "3")]
    pub details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
pub struct Any {
    #[prost(string, tag = "1")]
    pub type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

/// `google.rpc.RetryInfo` (google/rpc/error_details.proto).
#[derive(Clone, PartialEq, Message)]
pub struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    pub retry_delay: Option<ProtoDuration>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct ProtoDuration {
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

impl RetryInfo {
    pub fn after(delay: Duration) -> RetryInfo {
        let delay = ProtoDuration { seconds: delay.as_secs() as i64, nanos: delay.subsec_nanos() as i32 };
        RetryInfo { retry_delay: Some(delay) }
    }

    pub fn to_any(&self) -> Any {
        Any { type_url: format!("type.googleapis.com/{RETRY_INFO}"), value: self.encode_to_vec() }
    }
}

impl RpcStatus {
    /// When to come back; none if the status does not say it, or says it in negative numbers.
    pub fn retry_delay(&self) -> Option<Duration> {
        let any = self.details.iter().find(|any| any.type_url.rsplit('/').next() == Some(RETRY_INFO))?;
        let delay = RetryInfo::decode(any.value.as_slice()).ok()?.retry_delay.unwrap_or_default();
        let (seconds, nanos) = (u64::try_from(delay.seconds).ok()?, u32::try_from(delay.nanos).ok()?);
        Some(Duration::from_secs(seconds).saturating_add(Duration::from_nanos(nanos.into())))
    }
}
