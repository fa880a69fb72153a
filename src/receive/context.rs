//! What gRPC and HTTP share on the way from a request's head to the intake.
//!
//! A request's head is read at once and dropped, and only what answering needs is kept: peers may send large
//! heads on many streams and then wait, and what they make this process hold must stay small.

use super::admission::{Admission, Buffer, Pace};
use super::authentication::Authentication;
use super::items;
use super::outcome::RequestOutcome;
use super::refusal::Refusal;
use super::refusal_log::{Complaint, RefusalLog, Sender};
use super::stats::{ReceiverCounters, RequestCount};
use super::{Accepted, HopHeaders, Intake, ReceiverSettings};
use crate::otlp::HOP_HEADER;
use crate::trace::Signal;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// Characters of a path that a log shows.
pub(super) const PATH_MAX: usize = 100;

/// Everything that a request meets.
pub(super) struct RequestContext {
    pub settings: ReceiverSettings,
    pub admission: Arc<Admission>,
    pub authentication: Authentication,
    pub counters: Arc<ReceiverCounters>,
    pub intake: Arc<dyn Intake>,
    pub refusals: RefusalLog,
}

impl RequestContext {
    /// The hops of a request, copied out of its headers. Refuses one whose sender may not send, and one that has been
    /// through this process before.
    pub fn take_hops(&self, headers: &HeaderMap) -> Result<HeaderMap, Refusal> {
        self.authentication.check(headers)?;
        let hops: Vec<&str> = HopHeaders::of(headers).ids().collect();
        if hops.contains(&self.settings.hop.as_str()) {
            return Err(Refusal::Loop(self.settings.instance.clone()));
        }
        let list = HeaderValue::from_str(&hops.join(",")).ok().filter(|_| !hops.is_empty());
        Ok(list.map(|list| (HOP_HEADER, list)).into_iter().collect())
    }

    /// Bounds the time that a body may take to arrive.
    pub async fn in_time<T>(&self, read: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
        let limit = self.settings.body_timeout;
        tokio::time::timeout(limit, read).await.unwrap_or(Err(Refusal::TimedOut(limit)))
    }

    /// Gives a complete protobuf request to the intake.
    pub fn accept(&self, signal: Signal, body: &[u8], hops: &HeaderMap) -> Result<Accepted, Refusal> {
        let mut accepted = self
            .intake
            .accept(signal, body, HopHeaders::of(hops))
            .map_err(|malformed| Refusal::Malformed(malformed.0))?;
        if !accepted.is_partial()
            && let Some(complaint) = items::complaint(signal, body)
        {
            accepted.message = complaint;
        }
        Ok(accepted)
    }

    pub fn count_request(&self, signal: Signal) -> RequestCount<'_> {
        RequestCount::begin(&self.counters, signal)
    }

    /// Counts how a request ended, and names the sender of one that was refused for good.
    pub fn finish(&self, count: RequestCount<'_>, sender: &Sender, result: &Result<Accepted, Refusal>) {
        match result {
            Ok(accepted) if accepted.rejected > 0 => self.refusals.note(Complaint::Partial, sender, &accepted.message),
            Ok(accepted) if accepted.is_partial() => {
                self.counters.nothing_known.fetch_add(1, Relaxed);
                self.refusals.note(Complaint::NothingKnown, sender, &accepted.message);
            }
            Err(refusal) if !refusal.is_retryable() && *refusal != Refusal::Aborted => {
                self.refusals.note(Complaint::Request(refusal.outcome()), sender, refusal);
            }
            Ok(_) | Err(_) => {}
        }
        count.end(result.as_ref().map_or_else(Refusal::outcome, |_| RequestOutcome::Accepted));
    }

    /// Counts a request for something that is no OTLP endpoint, and names its sender.
    pub fn note_unroutable(&self, sender: &Sender, what: &str) {
        self.counters.unrouted.fetch_add(1, Relaxed);
        self.refusals.note(Complaint::Unrouted, sender, what);
    }
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

/// Reads the pieces of a body into its buffer, and gives way to others where they come too slowly.
pub(super) struct Arriving<'a, B> {
    body: &'a mut B,
    pace: Pace,
    every: Duration,
    look_at: Instant,
}

impl<'a, B> Arriving<'a, B>
where
    B: Body<Data = Bytes> + Unpin,
{
    pub fn new(context: &RequestContext, body: &'a mut B) -> Arriving<'a, B> {
        let every = context.settings.pace_every;
        Arriving { body, pace: Pace::default(), every, look_at: Instant::now() + every }
    }

    /// The next piece of what has come into `buffer` so far; none at its end.
    pub async fn next(&mut self, buffer: &Buffer) -> Result<Option<Bytes>, Refusal> {
        loop {
            match tokio::time::timeout_at(self.look_at, next_chunk(self.body)).await {
                Ok(chunk) => return chunk,
                Err(_) => {
                    self.pace.review(buffer)?;
                    self.look_at = Instant::now() + self.every;
                }
            }
        }
    }
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
