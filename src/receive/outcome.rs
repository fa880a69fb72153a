//! How a request ended, and how a connection that never carried one failed: the labels of what is counted.

/// How a request ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum RequestOutcome {
    /// Taken whole by the intake, perhaps with a `partial_success`.
    Accepted,
    /// Its sender presented none of the credentials of `receive.auth`.
    Unauthenticated,
    /// No room for its bytes: the client sends it again.
    Refused,
    /// Larger than `max_request`.
    TooLarge,
    /// Not an OTLP request.
    Malformed,
    /// An encoding or content type that is not spoken here.
    Unsupported,
    /// Has been through this process before.
    Looped,
    /// Its body did not arrive in time.
    TimedOut,
    /// Its body came slowly while others wanted the room: the client sends it again.
    TooSlow,
    /// The peer went away in the middle of it.
    Aborted,
    /// A defect of ours: a panic, which cost this request its answer.
    Panicked,
}

impl RequestOutcome {
    pub const ALL: [RequestOutcome; 11] = [
        RequestOutcome::Accepted,
        RequestOutcome::Unauthenticated,
        RequestOutcome::Refused,
        RequestOutcome::TooLarge,
        RequestOutcome::Malformed,
        RequestOutcome::Unsupported,
        RequestOutcome::Looped,
        RequestOutcome::TimedOut,
        RequestOutcome::TooSlow,
        RequestOutcome::Aborted,
        RequestOutcome::Panicked,
    ];

    /// As a metric label.
    pub fn word(self) -> &'static str {
        [
            "accepted",
            "unauthenticated",
            "refused",
            "too_large",
            "malformed",
            "unsupported",
            "looped",
            "timed_out",
            "too_slow",
            "aborted",
            "panicked",
        ][self as usize]
    }
}

/// Why a connection was ended without, or before, a request that could be answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum ConnectionFault {
    /// The TLS handshake failed, or did not end in time.
    TlsFailed,
    /// It does not speak TLS on a listener with `receive.tls`.
    TlsMissing,
    /// It speaks TLS on a listener without.
    TlsUnexpected,
    /// HTTP/1 on the port of OTLP/gRPC.
    Http1OnGrpc,
    /// Neither HTTP/1 nor HTTP/2.
    NotHttp,
    /// An HTTP/1 header larger than `receive.header_bytes`.
    HeaderTooLarge,
    /// Far more bytes than belong to requests: floods of HTTP/2 frames that carry nothing.
    Unproductive,
    /// It idled, or its requests brought nothing, and a new connection wanted its place.
    GaveWay,
    /// It said nothing, or not enough for a request, in `receive.header_timeout`.
    Silent,
}

impl ConnectionFault {
    pub const ALL: [ConnectionFault; 9] = [
        ConnectionFault::TlsFailed,
        ConnectionFault::TlsMissing,
        ConnectionFault::TlsUnexpected,
        ConnectionFault::Http1OnGrpc,
        ConnectionFault::NotHttp,
        ConnectionFault::HeaderTooLarge,
        ConnectionFault::Unproductive,
        ConnectionFault::GaveWay,
        ConnectionFault::Silent,
    ];

    /// As a metric label.
    pub fn word(self) -> &'static str {
        [
            "tls_failed",
            "tls_missing",
            "tls_unexpected",
            "http1_on_grpc",
            "not_http",
            "header_too_large",
            "unproductive",
            "gave_way",
            "silent",
        ][self as usize]
    }

    /// What whoever looks after the client should know.
    pub(super) fn advice(self) -> &'static str {
        match self {
            ConnectionFault::TlsFailed => "no tls connection came about",
            ConnectionFault::TlsMissing => "no TLS on a port with `receive.tls`: the client's endpoint needs https://",
            ConnectionFault::TlsUnexpected => {
                "TLS on a port without: write http:// in the client's endpoint, or `receive.tls` here"
            }
            ConnectionFault::Http1OnGrpc => {
                "HTTP/1 on the port of OTLP/gRPC: OTLP/HTTP has a port of its own, usually 4318"
            }
            ConnectionFault::NotHttp => "neither HTTP/1 nor HTTP/2",
            ConnectionFault::HeaderTooLarge => "the header is larger than `receive.header_bytes`",
            ConnectionFault::Unproductive => "a flood of bytes that belong to no request",
            ConnectionFault::GaveWay => "it idled or stalled, and a new connection wanted its place",
            ConnectionFault::Silent => "no request came within `receive.header_timeout`",
        }
    }
}
