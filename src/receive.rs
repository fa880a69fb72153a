//! Takes OTLP over gRPC and HTTP, whole requests at a time, as raw protobuf bytes.
//!
//! A request is admitted or refused once, at the receiver, by bytes; what is admitted is handed to an
//! [`Intake`] when its last byte is here. It does not look into requests: a span, a data point and a log
//! record are all just bytes, except that OTLP/JSON becomes protobuf.

mod activity;
mod admission;
mod authentication;
mod connection;
mod context;
mod cors;
pub mod descriptors;
mod grpc;
mod http;
mod inflate;
mod items;
mod json;
mod listener;
mod outcome;
mod refusal;
mod refusal_log;
mod stats;
mod wire;

pub use authentication::SenderCredential;
pub use outcome::{ConnectionFault, RequestOutcome};
pub use stats::{Stats, StatsReader};

use crate::otlp::HOP_HEADER;
use crate::tls::{ServerTls, TlsError, TlsFiles};
use crate::trace::Signal;
use ::http::{HeaderMap, HeaderValue};
use admission::Admission;
use authentication::Authentication;
use connection::ListenerProtocol;
use context::RequestContext;
use listener::Listener;
use refusal_log::RefusalLog;
use stats::ReceiverCounters;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// The stage behind the receiver.
pub trait Intake: Send + Sync + 'static {
    /// Takes one complete `Export{Trace,Metrics,Logs}ServiceRequest` (protobuf).
    ///
    /// Runs on a runtime worker and does not block. The body's bytes count as in flight until it
    /// returns; the client's acknowledgement follows.
    ///
    /// # Errors
    /// [`MalformedRequest`] when the body is no such request: nothing of it was taken.
    fn accept(&self, signal: Signal, body: &[u8], hops: HopHeaders<'_>) -> Result<Accepted, MalformedRequest>;
}

/// What became of a request that was taken. The default is: all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// Spans, data points or log records that were refused for good.
    pub rejected: u64,
    /// Why, for the client's log; may also warn where nothing was rejected.
    pub message: String,
}

impl Accepted {
    /// Whether the client hears of it, as OTLP's `partial_success`.
    fn is_partial(&self) -> bool {
        self.rejected > 0 || !self.message.is_empty()
    }
}

/// A request that cannot be read, and why. The client gives up on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MalformedRequest(pub String);

/// Ids of a request that are read: one of its sender, and those that a sender passes on.
const HOPS_MAX: usize = 16;
/// Ids are UUIDs (RFC 9562), written as usual.
const HOP_ID_LENGTH: usize = 36;

/// The collectors that a request has been through.
#[derive(Clone, Copy, Debug)]
pub struct HopHeaders<'a>(&'a HeaderMap);

impl<'a> HopHeaders<'a> {
    /// As the headers of a request, or the metadata of a call, list them.
    pub fn of(headers: &'a HeaderMap) -> HopHeaders<'a> {
        HopHeaders(headers)
    }

    /// Their ids. Whoever sends a request may write anything: what has another form is passed over.
    pub fn ids(self) -> impl Iterator<Item = &'a str> {
        let values = self.0.get_all(HOP_HEADER).into_iter();
        let lists = values.filter_map(|value: &HeaderValue| value.to_str().ok());
        lists.flat_map(|list| list.split(',')).map(str::trim).take(HOPS_MAX).filter(|id| is_hop_id(id))
    }
}

fn is_hop_id(text: &str) -> bool {
    text.len() == HOP_ID_LENGTH && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

/// How far the end has come. The app moves it on; each step only forward.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Phase {
    /// The usual state.
    #[default]
    Serving,
    /// Connections opened before are told to finish (GOAWAY, `Connection: close`); new ones, and their
    /// requests, are still taken: applications that stop at the same moment flush their last spans.
    Draining,
    /// No connection is accepted; all are told to finish, and what is in flight is answered.
    Closed,
}

/// Every bound of the receiver.
#[derive(Clone, Debug)]
pub struct ReceiverSettings {
    /// Where OTLP/gRPC listens; none: nowhere. Default 127.0.0.1:4317.
    pub grpc: Option<SocketAddr>,
    /// Where OTLP/HTTP listens; none: nowhere. Default 127.0.0.1:4318.
    pub http: Option<SocketAddr>,
    /// Makes both listeners speak TLS. Default: they do not.
    pub tls: Option<TlsFiles>,
    /// Who may send: whoever presents one of these. Default: everybody.
    pub auth: Vec<SenderCredential>,
    /// This process's `collector.instance.id`, for texts. Default: empty.
    pub instance: String,
    /// The id that this process's sinks mark requests with, a UUID, known to nobody else: requests whose
    /// hops list it are refused with FAILED_PRECONDITION / 508. Default: empty, which no request lists.
    pub hop: String,
    /// Most bytes of one request, as sent and decompressed. Beyond: INVALID_ARGUMENT / 413, which
    /// clients do not send again. Default 20 MiB, as the OTLP specification recommends.
    pub max_request: usize,
    /// Most bytes of request bodies held at once. Beyond: UNAVAILABLE with RetryInfo / 503 with
    /// Retry-After. Beyond half of it a body that brings less than an eighth of what it holds in
    /// `pace_every` gives way: DEADLINE_EXCEEDED / 503. At least 2 × `max_request`, because a body is held twice while it is inflated or
    /// rewritten; so no request is refused for ever. Default 64 MiB.
    pub in_flight: usize,
    /// Most bytes of idle buffers, kept so that a steady load faults no fresh pages; held beside
    /// `in_flight`. Beyond: buffers are freed. Default 8 MiB.
    pub pooled: usize,
    /// Most connections of each listener; connections × `window` is the most that peers can make the
    /// HTTP/2 layer hold. Beyond: one that has idled for 10 s, or whose requests brought no byte for
    /// 5 s, gives its place, else the new one is closed at once; both are counted. Default 1024.
    pub connections: usize,
    /// Most concurrent HTTP/2 streams of a connection. Beyond: the client waits. Default 64.
    pub streams: u32,
    /// HTTP/2 flow-control window of a stream, and of a connection, in bytes. Default 1 MiB.
    pub window: u32,
    /// Most bytes of a request's header, as HTTP/2 counts a list. Beyond: the request is refused with 431.
    /// Default 16 KiB.
    pub header_bytes: u32,
    /// Most time for a TLS handshake, for a connection's first bytes, and for a header of HTTP/1.1,
    /// counted from the request before: so also the longest that such a connection idles. Beyond:
    /// closed. Default 75 s: an SDK's metrics come every 60 s.
    pub header_timeout: Duration,
    /// Most time for a request's body. Beyond: DEADLINE_EXCEEDED / 503, which clients send again.
    /// Default 60 s.
    pub body_timeout: Duration,
    /// How often a body that is arriving is looked at: whether it comes too slowly while others want its
    /// room. Default 1 s.
    pub pace_every: Duration,
    /// How long an HTTP/2 connection is silent before it is pinged. Default 30 s.
    pub keepalive_interval: Duration,
    /// How long the answer to a ping may take. Beyond: closed. Default 10 s.
    pub keepalive_timeout: Duration,
    /// How old a connection gets, a tenth more or less, before it is told to finish (GOAWAY,
    /// `Connection: close`): its client opens another, which a balancer may send elsewhere. Default: as old
    /// as it likes.
    pub connection_age: Option<Duration>,
    /// Origins whose pages may send OTLP/HTTP; `*` in one stands for any text. Default: none.
    pub cors: Vec<String>,
    /// When a refused client is asked to come back, in whole seconds over HTTP. Default 1 s.
    pub retry_after: Duration,
}

impl Default for ReceiverSettings {
    fn default() -> Self {
        ReceiverSettings {
            grpc: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 4317))),
            http: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 4318))),
            tls: None,
            auth: Vec::new(),
            instance: String::new(),
            hop: String::new(),
            max_request: 20 << 20,
            in_flight: 64 << 20,
            pooled: 8 << 20,
            connections: 1024,
            streams: 64,
            window: 1 << 20,
            header_bytes: 16 << 10,
            header_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_secs(60),
            pace_every: Duration::from_secs(1),
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            connection_age: None,
            cors: Vec::new(),
            retry_after: Duration::from_secs(1),
        }
    }
}

/// Why the receiver cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("receive.{protocol}: cannot listen on {address}: {error}; {advice}")]
    Listen { address: SocketAddr, protocol: &'static str, error: io::Error, advice: &'static str },
    #[error("receive.tls.{0}")]
    Tls(#[from] TlsError),
    #[error("receive.auth: {0}")]
    Authentication(String),
    #[error(
        "{in_flight} bytes in flight are too few for requests of {max_request} bytes: allow at least {} in flight",
        .max_request * 2
    )]
    InFlight { in_flight: usize, max_request: usize },
}

/// The addresses that were bound, with the ports that the system chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalAddrs {
    pub grpc: Option<SocketAddr>,
    pub http: Option<SocketAddr>,
}

/// Both listeners, bound but not yet served: peers can connect and wait.
pub struct Receiver {
    settings: ReceiverSettings,
    listeners: Vec<Listener>,
    admission: Arc<Admission>,
    authentication: Authentication,
    counters: Arc<ReceiverCounters>,
}

impl Receiver {
    /// Binds the listeners and reads the TLS files.
    ///
    /// # Errors
    /// [`BindError`] says which address, file or bound, and what to write instead.
    pub async fn bind(settings: ReceiverSettings) -> Result<Receiver, BindError> {
        let ReceiverSettings { in_flight, max_request, .. } = settings;
        if in_flight / 2 < max_request {
            return Err(BindError::InFlight { in_flight, max_request });
        }
        let authentication = Authentication::new(&settings.auth).map_err(BindError::Authentication)?;
        let mut listeners = Vec::new();
        for (protocol, address) in [(ListenerProtocol::Grpc, settings.grpc), (ListenerProtocol::Http, settings.http)] {
            if let Some(address) = address {
                listeners.push(listen(protocol, address, &settings).await?);
            }
        }
        let admission = Admission::new(max_request, in_flight, settings.pooled);
        Ok(Receiver { settings, listeners, admission, authentication, counters: Arc::default() })
    }

    /// Where it listens.
    pub fn local_addrs(&self) -> LocalAddrs {
        let address = |protocol| {
            let listener = self.listeners.iter().find(|listener| listener.protocol == protocol)?;
            listener.socket.local_addr().ok()
        };
        LocalAddrs { grpc: address(ListenerProtocol::Grpc), http: address(ListenerProtocol::Http) }
    }

    /// Its counters, to be read at any time.
    pub fn stats(&self) -> StatsReader {
        StatsReader { counters: self.counters.clone(), admission: self.admission.clone() }
    }

    /// Serves until `phase` is [`Phase::Closed`] and what was in flight then has been answered.
    /// The deadline is the caller's: dropping the future aborts all connections.
    pub async fn serve(self, intake: Arc<dyn Intake>, phase: watch::Receiver<Phase>) {
        let Receiver { settings, listeners, admission, authentication, counters } = self;
        let refusals = RefusalLog::default();
        let context = Arc::new(RequestContext { settings, admission, authentication, counters, intake, refusals });
        let mut tasks = tokio::task::JoinSet::new();
        for listener in listeners {
            tasks.spawn(listener.serve(context.clone(), phase.clone()));
        }
        tasks.join_all().await;
    }
}

async fn listen(
    protocol: ListenerProtocol,
    address: SocketAddr,
    settings: &ReceiverSettings,
) -> Result<Listener, BindError> {
    let tls = match &settings.tls {
        Some(files) => Some(Arc::new(ServerTls::load("receive.tls", files, protocol.alpn())?)),
        None => None,
    };
    match TcpListener::bind(address).await {
        Ok(socket) => Ok(Listener { socket, protocol, tls }),
        Err(error) => {
            let advice = match error.kind() {
                io::ErrorKind::AddrInUse => "another process has this port: stop it, or write another port",
                io::ErrorKind::AddrNotAvailable => {
                    "this host has no such address: write 0.0.0.0 for all of its addresses, or 127.0.0.1"
                }
                io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege: write a higher port",
                _ => "write another address",
            };
            Err(BindError::Listen { address, protocol: protocol.word(), error, advice })
        }
    }
}
