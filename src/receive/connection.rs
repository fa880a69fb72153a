//! Sees a connection from its first byte to its end.

use super::activity::Activity;
use super::context::RequestContext;
use super::outcome::ConnectionFault;
use super::refusal_log::{Complaint, Sender};
use super::wire::{Productive, ReadProgress, Watched};
use super::{Phase, ReceiverSettings, grpc, http};
use crate::tls::{ClientProtocol, HandshakeFault, ServerTls};
use ::http::header::{CONNECTION, HeaderName};
use ::http::{HeaderValue, Request, Response, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::sleep;

/// Streams that a peer opened and reset before we looked at them (rapid reset, CVE-2023-44487).
const PENDING_RESETS: usize = 20;
/// Streams that we reset because of a peer's mistakes (RUSTSEC-2024-0003).
const LOCAL_RESETS: usize = 1024;
/// Least HTTP/1.1 read buffer: bodies are read through it, so it is larger than a header need be.
const READ_BUFFER: usize = 64 << 10;
/// When accepting has ended, a connection without a request is closed after this long: HTTP/2 waits for
/// the peer to answer a ping, and not all peers do.
const IDLE_GRACE: Duration = Duration::from_millis(500);
/// A connection's age ends up to so much of it earlier or later, so that not all come back at once.
const AGE_JITTER: f64 = 0.1;
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// What a listener speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ListenerProtocol {
    Grpc,
    Http,
}

impl ListenerProtocol {
    pub fn word(self) -> &'static str {
        match self {
            ListenerProtocol::Grpc => "grpc",
            ListenerProtocol::Http => "http",
        }
    }

    pub fn alpn(self) -> &'static [&'static [u8]] {
        match self {
            ListenerProtocol::Grpc => &[b"h2"],
            ListenerProtocol::Http => &[b"h2", b"http/1.1"],
        }
    }
}

/// A connection that was accepted.
#[derive(Clone)]
pub(super) struct Opened {
    pub peer: SocketAddr,
    pub protocol: ListenerProtocol,
    pub tls: Option<Arc<ServerTls>>,
    pub context: Arc<RequestContext>,
    pub phase: watch::Receiver<Phase>,
    pub activity: Arc<Activity>,
}

impl Opened {
    /// Counts a connection that failed, and names who opened it. That one is silent, idle or stalled is no setting that
    /// anybody could change.
    fn note(&self, fault: ConnectionFault, why: impl std::fmt::Display) {
        self.context.counters.connection_failed(fault);
        if !matches!(fault, ConnectionFault::Silent | ConnectionFault::GaveWay) {
            self.context.refusals.note(Complaint::Connection(fault), &Sender::silent(self.peer), why);
        }
    }
}

/// Counts a connection as open until dropped.
struct OpenConnection(Arc<RequestContext>);

impl OpenConnection {
    fn new(context: Arc<RequestContext>) -> OpenConnection {
        context.counters.connections_open.fetch_add(1, Relaxed);
        OpenConnection(context)
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.counters.connections_open.fetch_sub(1, Relaxed);
    }
}

/// Waits for the phase, or for its owner to go away.
pub(super) async fn closed(phase: &mut watch::Receiver<Phase>) {
    let _ = phase.wait_for(|phase| *phase == Phase::Closed).await;
}

pub(super) async fn serve(stream: TcpStream, opened: Opened) {
    let _open = OpenConnection::new(opened.context.clone());
    // Answers are small and awaited; an error means that the peer has gone already.
    let _ = stream.set_nodelay(true);
    match opened.tls.clone() {
        None => converse(stream, opened).await,
        Some(tls) => shake_hands(stream, &tls, opened).await,
    }
}

async fn shake_hands(stream: TcpStream, tls: &ServerTls, opened: Opened) {
    let shaken = tokio::select! {
        shaken = tls.accept(stream, opened.context.settings.header_timeout) => shaken,
        () = opened.activity.is_in_the_way() => return opened.note(ConnectionFault::GaveWay, ""),
    };
    match shaken {
        Ok(stream) => converse(stream, opened).await,
        Err(HandshakeFault::Left) => {}
        Err(HandshakeFault::Silent) => opened.note(ConnectionFault::Silent, ""),
        Err(HandshakeFault::Missing) => opened.note(ConnectionFault::TlsMissing, ConnectionFault::TlsMissing.advice()),
        Err(HandshakeFault::Failed(error)) => opened.note(ConnectionFault::TlsFailed, error),
    }
}

/// What the requests of one connection share.
struct Conversation {
    opened: Opened,
    progress: ReadProgress,
    /// Old enough to end with the next answer.
    is_aged: AtomicBool,
}

/// Counts a request as in flight until dropped: for the whole receiver and for its connection.
struct InFlight(Arc<Conversation>);

impl InFlight {
    fn new(conversation: Arc<Conversation>) -> InFlight {
        conversation.opened.context.counters.requests_in_flight.fetch_add(1, Relaxed);
        conversation.opened.activity.begin_request();
        InFlight(conversation)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.opened.context.counters.requests_in_flight.fetch_sub(1, Relaxed);
        self.0.opened.activity.end_request();
    }
}

impl Conversation {
    /// Begins to answer a request. Its head is gone when this returns.
    fn begin(
        self: &Arc<Self>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<super::context::Reply>, Infallible>> + Send + use<> {
        let conversation = self.clone();
        let in_flight = InFlight::new(conversation.clone());
        self.progress.request();
        let Opened { protocol, peer, ref context, ref activity, .. } = self.opened;
        let version = request.version();
        let request =
            request.map(|body| Productive { body, progress: self.progress.clone(), activity: activity.clone() });
        let call =
            match protocol {
                ListenerProtocol::Grpc => grpc::enter(context, peer, request)
                    .map_or_else(ConnectionRequest::Answered, ConnectionRequest::Grpc),
                ListenerProtocol::Http => http::enter(context, peer, request)
                    .map_or_else(ConnectionRequest::Unroutable, ConnectionRequest::Http),
            };
        async move {
            let _in_flight = in_flight;
            let context = &conversation.opened.context;
            let mut response = match call {
                ConnectionRequest::Grpc(call) => call.answer(context).await,
                ConnectionRequest::Http(call) => call.answer(context).await,
                ConnectionRequest::Unroutable(unroutable) => unroutable.answer(context).await,
                ConnectionRequest::Answered(response) => *response,
            };
            conversation.say_how_long(version, &mut response);
            Ok(response)
        }
    }

    /// Tells an HTTP/1 client for how long its connection stays. HTTP/2 has GOAWAY for that.
    fn say_how_long<B>(&self, version: Version, response: &mut Response<B>) {
        if version > Version::HTTP_11 {
            return;
        }
        if self.is_aged.load(Relaxed) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        } else if version == Version::HTTP_11 && !response.headers().contains_key(CONNECTION) {
            response.headers_mut().extend(keep_alive(&self.opened.context.settings));
        }
    }

    /// Why the connection ended, where that is a fault of whoever opened it.
    fn fault(&self, error: Option<&(dyn Error + 'static)>) -> Option<ConnectionFault> {
        let hyper = error.and_then(|error| error.downcast_ref::<hyper::Error>());
        match self.progress.spoken() {
            _ if self.progress.is_unproductive() => Some(ConnectionFault::Unproductive),
            ClientProtocol::Tls if self.opened.tls.is_none() => Some(ConnectionFault::TlsUnexpected),
            ClientProtocol::Http1 if self.opened.protocol == ListenerProtocol::Grpc => {
                Some(ConnectionFault::Http1OnGrpc)
            }
            _ if hyper.is_some_and(hyper::Error::is_parse_too_large) => Some(ConnectionFault::HeaderTooLarge),
            ClientProtocol::Other => Some(ConnectionFault::NotHttp),
            _ if hyper.is_some_and(hyper::Error::is_parse) => Some(ConnectionFault::NotHttp),
            ClientProtocol::Nothing | ClientProtocol::Tls | ClientProtocol::Http1 | ClientProtocol::Http2 => None,
        }
    }
}

/// When an idle connection is closed, told a second early: a request must not cross the end on its way.
fn keep_alive(settings: &ReceiverSettings) -> Option<(HeaderName, HeaderValue)> {
    let seconds = settings.header_timeout.as_secs().checked_sub(1).filter(|seconds| *seconds > 0)?;
    Some((KEEP_ALIVE, HeaderValue::try_from(format!("timeout={seconds}")).expect("digits are a header")))
}

enum ConnectionRequest<B> {
    Grpc(grpc::GrpcCall<B>),
    Http(http::HttpRequest<B>),
    Unroutable(http::Unroutable<B>),
    /// HTTP/2 carries an answer whatever its request does.
    Answered(Box<Response<super::context::Reply>>),
}

/// Serves requests until either side ends the connection.
async fn converse<S>(stream: S, opened: Opened)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let settings = &opened.context.settings;
    let progress = ReadProgress::new(settings.window);
    let io = TokioIo::new(Watched { stream, progress: progress.clone() });
    let builder = builder(opened.protocol, settings);
    let mut patience = pin!(sleep(settings.header_timeout));
    let mut age = pin!(aged(settings.connection_age));
    let mut phase = opened.phase.clone();
    let born = *phase.borrow();
    let conversation =
        Arc::new(Conversation { opened: opened.clone(), progress: progress.clone(), is_aged: AtomicBool::new(false) });
    let service = service_fn(|request| conversation.begin(request));
    let mut connection = pin!(builder.serve_connection(io, service));
    let mut idle = pin!(idle_at_the_end(phase.clone(), &opened.activity));
    let (mut patient, mut finishing, mut aging) = (true, false, true);
    loop {
        tokio::select! {
            // First what has come, so that whoever is told to go is known to idle.
            biased;
            ended = connection.as_mut() => {
                if let Some(fault) = conversation.fault(ended.err().as_deref().map(|error| error as _)) {
                    opened.note(fault, fault.advice());
                }
                return;
            }
            () = &mut idle => return,
            () = opened.activity.is_in_the_way() => {
                opened.note(ConnectionFault::GaveWay, "");
                if !opened.activity.has_requests() || opened.activity.is_stalled() {
                    return;
                }
                // A request has just begun: it is answered before the place is given away.
                if !finishing {
                    finishing = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
            () = &mut patience, if patient => {
                patient = false;
                if !progress.has_greeted() {
                    return opened.note(ConnectionFault::Silent, "");
                }
            }
            () = &mut age, if aging => {
                aging = false;
                conversation.is_aged.store(true, Relaxed);
                // An idle HTTP/1 connection would be closed under a request that is on its way.
                if progress.spoken() == ClientProtocol::Http2 && !finishing {
                    finishing = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
            () = time_to_finish(born, &mut phase, &progress), if !finishing => {
                finishing = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Waits until a connection is so old, a little more or less; for ever without a limit.
async fn aged(limit: Option<Duration>) {
    match limit {
        Some(limit) => sleep(limit.mul_f64(jitter(getrandom::u32().unwrap_or(u32::MAX / 2)))).await,
        None => std::future::pending().await,
    }
}

/// A factor about 1, evenly spread.
fn jitter(random: u32) -> f64 {
    1.0 + AGE_JITTER * (f64::from(random) / f64::from(u32::MAX) * 2.0 - 1.0)
}

/// Waits until accepting has ended and the connection has had no request for [`IDLE_GRACE`].
async fn idle_at_the_end(mut phase: watch::Receiver<Phase>, activity: &Activity) {
    closed(&mut phase).await;
    loop {
        sleep(IDLE_GRACE).await;
        if !activity.has_requests() {
            return;
        }
    }
}

/// Waits until a connection should take no more requests: when draining begins, unless it was opened
/// since or has not said a word yet; at the latest when accepting ends.
async fn time_to_finish(born: Phase, phase: &mut watch::Receiver<Phase>, progress: &ReadProgress) {
    loop {
        match *phase.borrow_and_update() {
            Phase::Closed => return,
            Phase::Draining if born == Phase::Serving && progress.has_greeted() => return,
            Phase::Draining | Phase::Serving => {}
        }
        if phase.changed().await.is_err() {
            return;
        }
    }
}

fn builder(protocol: ListenerProtocol, settings: &ReceiverSettings) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    if protocol == ListenerProtocol::Grpc {
        builder = builder.http2_only();
    }
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.header_timeout)
        .max_buf_size((settings.header_bytes as usize).max(READ_BUFFER));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(settings.streams)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(LOCAL_RESETS)
        .initial_stream_window_size(settings.window)
        .initial_connection_window_size(settings.window)
        .max_header_list_size(settings.header_bytes)
        .keep_alive_interval(settings.keepalive_interval)
        .keep_alive_timeout(settings.keepalive_timeout);
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_spread_evenly_about_the_limit() {
        assert!((jitter(0) - 0.9).abs() < 1e-9 && (jitter(u32::MAX) - 1.1).abs() < 1e-9);
        assert!((jitter(u32::MAX / 2) - 1.0).abs() < 1e-6);
    }
}
