//! Accepts connections, bounds them, and sees them to their end.

use super::context::RequestContext;
use super::tls::Tls;
use super::{Phase, Settings, grpc, http};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio_rustls::TlsAcceptor;

/// Streams that a peer opened and reset before we looked at them (rapid reset, CVE-2023-44487).
const PENDING_RESETS: usize = 20;
/// Streams that we reset because of a peer's mistakes (RUSTSEC-2024-0003).
const LOCAL_RESETS: usize = 1024;
/// hyper's least for an HTTP/1.1 read buffer, which also bounds the header.
const LEAST_HEADER_BYTES: usize = 8 << 10;
/// Length of the HTTP/2 preface: no request of either version is read before so many bytes came.
const PREFACE: usize = 24;
/// When accepting has ended, a connection without a request is closed after this long: HTTP/2 waits for
/// the peer to answer a ping, and not all peers do.
const IDLE_GRACE: Duration = Duration::from_millis(500);
/// Rest after the kernel refused a connection for lack of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a listener speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Protocol {
    Grpc,
    Http,
}

impl Protocol {
    pub fn word(self) -> &'static str {
        match self {
            Protocol::Grpc => "grpc",
            Protocol::Http => "http",
        }
    }

    pub fn alpn(self) -> &'static [&'static [u8]] {
        match self {
            Protocol::Grpc => &[b"h2"],
            Protocol::Http => &[b"h2", b"http/1.1"],
        }
    }
}

/// A bound listener and what its connections need.
pub(super) struct Listener {
    pub socket: TcpListener,
    pub protocol: Protocol,
    pub tls: Option<Arc<Tls>>,
}

impl Listener {
    /// Accepts until the phase is `Closed`, then waits for what is in flight. Dropped, it aborts it.
    pub async fn serve(self, context: Arc<RequestContext>, mut phase: watch::Receiver<Phase>) {
        let protocol = self.protocol;
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = closed(&mut phase) => break,
                Some(ended) = connections.join_next() => note_panic(protocol, ended),
                accepted = self.socket.accept() => match accepted {
                    Ok((stream, _)) => self.admit(stream, &context, &phase, &mut connections),
                    Err(error) => rest_after(protocol, error).await,
                },
            }
        }
        drop(self);
        while let Some(ended) = connections.join_next().await {
            note_panic(protocol, ended);
        }
    }

    /// Serves a connection in a task of its own, or closes it where there are too many.
    fn admit(
        &self,
        stream: TcpStream,
        context: &Arc<RequestContext>,
        phase: &watch::Receiver<Phase>,
        connections: &mut JoinSet<()>,
    ) {
        while let Some(ended) = connections.try_join_next() {
            note_panic(self.protocol, ended);
        }
        if connections.len() >= context.settings.connections {
            context.counters.connections_refused.fetch_add(1, Relaxed);
            return;
        }
        connections.spawn(serve(stream, self.protocol, self.tls.clone(), context.clone(), phase.clone()));
    }
}

/// Waits for the phase, or for its owner to go away.
async fn closed(phase: &mut watch::Receiver<Phase>) {
    let _ = phase.wait_for(|phase| *phase == Phase::Closed).await;
}

fn note_panic(protocol: Protocol, ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(
            protocol = protocol.word(),
            "a connection ended in a panic, its unanswered requests are lost unless sent again"
        );
    }
}

async fn rest_after(protocol: Protocol, error: io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    // These concern only the connection that was about to be.
    if !matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted) {
        tracing::warn!(protocol = protocol.word(), %error, "cannot accept connections");
        tokio::time::sleep(ACCEPT_PAUSE).await;
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

/// Counts a request as in flight until dropped: for the whole receiver and for its connection.
struct InFlight {
    context: Arc<RequestContext>,
    of_connection: Arc<AtomicUsize>,
}

impl InFlight {
    fn new(context: Arc<RequestContext>, of_connection: Arc<AtomicUsize>) -> InFlight {
        context.counters.requests_in_flight.fetch_add(1, Relaxed);
        of_connection.fetch_add(1, Relaxed);
        InFlight { context, of_connection }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.context.counters.requests_in_flight.fetch_sub(1, Relaxed);
        self.of_connection.fetch_sub(1, Relaxed);
    }
}

async fn serve(
    stream: TcpStream,
    protocol: Protocol,
    tls: Option<Arc<Tls>>,
    context: Arc<RequestContext>,
    phase: watch::Receiver<Phase>,
) {
    let _open = OpenConnection::new(context.clone());
    // Answers are small and awaited; an error means that the peer has gone already.
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else {
        return converse(stream, protocol, context, phase).await;
    };
    let handshake = TlsAcceptor::from(tls.config()).accept(stream);
    match tokio::time::timeout(context.settings.header_timeout, handshake).await {
        Ok(Ok(stream)) => converse(stream, protocol, context, phase).await,
        Ok(Err(error)) => tracing::debug!(protocol = protocol.word(), %error, "no tls connection came about"),
        Err(_) => tracing::debug!(protocol = protocol.word(), "no tls connection came about in time"),
    }
}

/// Serves requests until either side ends the connection.
async fn converse<S>(stream: S, protocol: Protocol, context: Arc<RequestContext>, mut phase: watch::Receiver<Phase>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let greeting = Greeting::default();
    let io = TokioIo::new(Greeted { stream, greeting: greeting.clone() });
    let builder = builder(protocol, &context.settings);
    let mut patience = pin!(tokio::time::sleep(context.settings.header_timeout));
    let in_flight = Arc::new(AtomicUsize::new(0));
    let of_connection = in_flight.clone();
    let door_of_strays = context.clone();
    let service = service_fn(move |request| {
        let context = context.clone();
        let in_flight = InFlight::new(context.clone(), of_connection.clone());
        async move {
            let _in_flight = in_flight;
            Ok::<_, Infallible>(match protocol {
                Protocol::Grpc => grpc::answer(&context, request).await,
                Protocol::Http => http::answer(&context, request).await,
            })
        }
    });
    let mut connection = pin!(builder.serve_connection(io, service));
    let born = *phase.borrow();
    let mut idle = pin!(idle_at_the_end(phase.clone(), in_flight));
    let (mut patient, mut finishing) = (true, false);
    loop {
        tokio::select! {
            () = &mut idle => return,
            ended = connection.as_mut() => {
                if protocol == Protocol::Grpc && greeting.is_http1() {
                    door_of_strays.note_stray("HTTP/1 on the port of OTLP/gRPC: OTLP/HTTP has a port of its own, usually 4318");
                }
                if let Err(error) = ended {
                    tracing::debug!(protocol = protocol.word(), %error, "a connection ended early");
                }
                return;
            }
            () = &mut patience, if patient => {
                patient = false;
                if !greeting.is_complete() {
                    return;
                }
            }
            () = time_to_finish(born, &mut phase, &greeting), if !finishing => {
                finishing = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Waits until accepting has ended and the connection has had no request for [`IDLE_GRACE`].
async fn idle_at_the_end(mut phase: watch::Receiver<Phase>, in_flight: Arc<AtomicUsize>) {
    closed(&mut phase).await;
    loop {
        tokio::time::sleep(IDLE_GRACE).await;
        if in_flight.load(Relaxed) == 0 {
            return;
        }
    }
}

/// Waits until a connection should take no more requests: when draining begins, unless it was opened
/// since or has not said a word yet; at the latest when accepting ends.
async fn time_to_finish(born: Phase, phase: &mut watch::Receiver<Phase>, greeting: &Greeting) {
    loop {
        match *phase.borrow_and_update() {
            Phase::Closed => return,
            Phase::Draining if born == Phase::Serving && greeting.is_complete() => return,
            Phase::Draining | Phase::Serving => {}
        }
        if phase.changed().await.is_err() {
            return;
        }
    }
}

fn builder(protocol: Protocol, settings: &Settings) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    if protocol == Protocol::Grpc {
        builder = builder.http2_only();
    }
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.header_timeout)
        .max_buf_size((settings.header_bytes as usize).max(LEAST_HEADER_BYTES));
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

/// How many bytes a peer has sent, counted up to a preface's length, and whether they were HTTP/1's.
#[derive(Clone, Default)]
struct Greeting(Arc<(AtomicUsize, AtomicBool)>);

impl Greeting {
    fn is_complete(&self) -> bool {
        self.0.0.load(Relaxed) >= PREFACE
    }

    fn is_http1(&self) -> bool {
        self.0.1.load(Relaxed)
    }

    fn heard(&self, bytes: &[u8]) {
        if self.is_complete() {
            return;
        }
        let before = self.0.0.fetch_add(bytes.len(), Relaxed);
        let is_http1 =
            [&b"POST "[..], b"GET ", b"OPTIONS ", b"PUT ", b"HEAD "].iter().any(|word| bytes.starts_with(word));
        if before == 0 && is_http1 {
            self.0.1.store(true, Relaxed);
        }
    }
}

/// A stream that notes whether its peer has greeted: hyper waits for that without a limit.
struct Greeted<S> {
    stream: S,
    greeting: Greeting,
}

impl<S: AsyncRead + Unpin> AsyncRead for Greeted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.greeting.heard(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Greeted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
