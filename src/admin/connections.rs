//! Accepts connections and bounds them, so that a probe is answered whatever others do: a new connection is always
//! let in, and whoever neither asks nor reads goes.

use super::acceptor::Acceptor;
use super::content::WatchedBody;
use super::route::Router;
use super::{AdminApi, Audience, CloseReason};
use crate::tls::ServerTls;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};

/// Connections of one listener at a time. One more takes the place of that which has been silent longest.
pub(super) const CONNECTIONS: usize = 64;
/// A TLS handshake must have ended by then, and a request's header must be here.
pub(super) const HEADER_TIME: Duration = Duration::from_secs(10);
/// An answer must be taken by then; of one that is written while it is read, the next piece.
pub(super) const ANSWER_TIME: Duration = Duration::from_secs(30);
/// What hyper holds of an answer that is not taken, and of a request's header.
const HTTP_BUFFER: usize = 64 << 10;
/// What the kernel holds of an answer, which counts to a container's memory: it would let this grow to 4 MiB.
const SEND_BUFFER: usize = 128 << 10;
/// Rest after the kernel refused a connection for lack of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// So often at most the log speaks of that.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

/// Serves until `stop` becomes true, and ends what is open then. With `tls` it speaks TLS alone.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerTls>>,
    audience: Audience,
    api: Arc<dyn AdminApi>,
    mut stop: watch::Receiver<bool>,
) {
    let acceptor = Arc::new(Acceptor::new(audience.word(), api.clone()));
    let mut connections = Connections::new(api.clone());
    let answers = Arc::new(Router::new(audience, api));
    let mut complained: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            Some(_) = connections.tasks.join_next() => continue,
            accepted = listener.accept() => accepted,
            // A sender that has gone means the same as "stop".
            _ = stop.changed() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                if let Err(error) = socket2::SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER) {
                    tracing::debug!(%error, "the kernel may hold more of answers");
                }
                match &tls {
                    None => connections.open(acceptor.clone().plain(stream, peer), answers.clone()).await,
                    Some(tls) => {
                        let opening = acceptor.clone().encrypted(tls.clone(), stream, peer);
                        connections.open(opening, answers.clone()).await;
                    }
                }
            }
            Err(error) => {
                if complained.is_none_or(|since| since.elapsed() >= COMPLAIN_EVERY) {
                    complained = Some(Instant::now());
                    // Out of file descriptors, mostly: it passes.
                    tracing::warn!(%error, "cannot accept a connection");
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The open connections of a listener, in the order in which they came.
pub(super) struct Connections {
    api: Arc<dyn AdminApi>,
    tasks: JoinSet<()>,
    open: Vec<(AbortHandle, Arc<LastActivity>)>,
    since: Instant,
}

impl Connections {
    pub fn new(api: Arc<dyn AdminApi>) -> Connections {
        Connections { api, tasks: JoinSet::new(), open: Vec::new(), since: Instant::now() }
    }

    /// Closes the connection that has been silent longest, if there are as many as there may be.
    async fn make_room(&mut self) {
        self.open.retain(|(task, _)| !task.is_finished());
        if self.open.len() >= CONNECTIONS
            && let Some((task, _)) = self.open.iter().min_by_key(|(_, activity)| activity.moved.load(Relaxed))
        {
            task.abort();
            self.api.count_closed(CloseReason::ForAnother);
        }
        // Meanwhile those that came before are heard, so that a flood does not close them unheard.
        while self.tasks.len() >= CONNECTIONS {
            self.tasks.join_next().await;
        }
    }

    /// `opening` becomes the connection, or nothing where its peer is turned away.
    pub async fn open<S>(&mut self, opening: impl Future<Output = Option<S>> + Send + 'static, answers: Arc<Router>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.make_room().await;
        let activity = Arc::new(LastActivity::new(self.since));
        let (heard, api) = (activity.clone(), self.api.clone());
        let task = self.tasks.spawn(async move {
            if let Some(stream) = opening.await {
                converse(stream, answers, heard, api).await;
            }
        });
        self.open.push((task, activity));
    }
}

/// When something moved on a connection: it was opened, a request was read, a part of its answer was taken.
pub(super) struct LastActivity {
    since: Instant,
    /// Nanoseconds since then.
    moved: AtomicU64,
    /// The peer has until [`ANSWER_TIME`] after this.
    began: AtomicU64,
}

impl LastActivity {
    fn new(since: Instant) -> LastActivity {
        let activity = LastActivity { since, moved: AtomicU64::new(0), began: AtomicU64::new(0) };
        activity.begin();
        activity
    }

    /// The peer's time begins anew.
    pub fn begin(&self) {
        self.note();
        self.began.store(self.moved.load(Relaxed), Relaxed);
    }

    /// The peer has taken something.
    pub fn note(&self) {
        self.moved.store(self.since.elapsed().as_nanos() as u64, Relaxed);
    }

    /// Waits until the peer has had its time.
    async fn is_over(&self) {
        let end = || self.since + Duration::from_nanos(self.began.load(Relaxed)) + ANSWER_TIME;
        while Instant::now() < end() {
            sleep_until(end()).await;
        }
    }
}

/// Serves requests until either side ends the connection.
async fn converse<S>(stream: S, answers: Arc<Router>, activity: Arc<LastActivity>, api: Arc<dyn AdminApi>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let heard = activity.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        heard.begin();
        let (answers, heard) = (answers.clone(), heard.clone());
        async move {
            let reply: Response<_> = answers.answer(request).await;
            Ok::<_, Infallible>(reply.map(|content| WatchedBody { content, activity: heard }))
        }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME).max_buf_size(HTTP_BUFFER);
    tokio::select! {
        // A peer that goes away in the middle is its own affair.
        _ = http.serve_connection(TokioIo::new(stream), service) => {}
        () = activity.is_over() => api.count_closed(CloseReason::TooSlow),
    }
}
