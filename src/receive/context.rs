//! What gRPC and HTTP share on the way from a request's head to the intake.

use super::admission::Admission;
use super::refusal::Refusal;
use super::stats::{Counters, RequestCount, RequestOutcome};
use super::{Accepted, Hops, Intake, Settings};
use crate::trace::Signal;
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Everything that a request meets.
pub(super) struct RequestContext {
    pub settings: Settings,
    pub admission: Arc<Admission>,
    pub counters: Arc<Counters>,
    pub intake: Arc<dyn Intake>,
    /// When a stray client was last spoken of.
    pub strays: Mutex<Option<Instant>>,
    /// When a request that came back was last spoken of.
    pub loops: Mutex<Option<Instant>>,
}

/// A client with a wrong setting comes again and again.
const SAID_PAUSE: Duration = Duration::from_secs(60);

impl RequestContext {
    /// Names a client that speaks to the wrong port or path, now and then: its own log often does not.
    pub fn note_stray(&self, what: &str) {
        if is_news(&self.strays) {
            tracing::warn!(what, "a client speaks to the wrong port or path, and is not heard");
        }
    }

    /// Refuses a request that has been through this process before.
    pub fn check_hops(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let own = self.settings.hop.as_str();
        if !Hops::of(headers).ids().any(|id| id == own) {
            return Ok(());
        }
        if is_news(&self.loops) {
            tracing::warn!(
                "what this process sent comes back to it, and is refused: one of its sinks leads here again, through \
                 others or at once"
            );
        }
        Err(Refusal::Loop(self.settings.instance.clone()))
    }

    /// Bounds the time that a body may take to arrive.
    pub async fn in_time<T>(&self, read: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
        let limit = self.settings.body_timeout;
        tokio::time::timeout(limit, read).await.unwrap_or(Err(Refusal::TimedOut(limit)))
    }

    /// Gives a complete protobuf request to the intake.
    pub fn accept(&self, signal: Signal, body: &[u8], headers: &HeaderMap) -> Result<Accepted, Refusal> {
        self.intake.accept(signal, body, Hops::of(headers)).map_err(|malformed| Refusal::Malformed(malformed.0))
    }

    pub fn count_request(&self, signal: Signal) -> RequestCount<'_> {
        RequestCount::begin(&self.counters, signal)
    }
}

/// Whether something was not said lately; if not, it is now.
fn is_news(last: &Mutex<Option<Instant>>) -> bool {
    let mut last = last.lock().expect("no code panics under this lock");
    let is_news = last.is_none_or(|last| last.elapsed() >= SAID_PAUSE);
    if is_news {
        *last = Some(Instant::now());
    }
    is_news
}

/// Counts how a request ended.
pub(super) fn count<T>(count_request: RequestCount<'_>, result: &Result<T, Refusal>) {
    count_request.end(result.as_ref().map_or_else(Refusal::outcome, |_| RequestOutcome::Accepted));
}

/// The next piece of a body; none at its end. Trailers are passed over.
pub(super) async fn next_chunk<B>(body: &mut B) -> Result<Option<Bytes>, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    while let Some(frame) = body.frame().await {
        if let Ok(chunk) = frame.map_err(|_| Refusal::Aborted)?.into_data() {
            return Ok(Some(chunk));
        }
    }
    Ok(None)
}

/// The body of an answer: at most one piece, then, for gRPC, trailers.
#[derive(Default)]
pub(super) struct Reply {
    pub data: Option<Bytes>,
    pub trailers: Option<HeaderMap>,
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = match self.data.take() {
            Some(data) => Some(Frame::data(data)),
            None => self.trailers.take().map(Frame::trailers),
        };
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.data.as_ref().map_or(0, |data| data.len() as u64))
    }
}
