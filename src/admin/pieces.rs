//! A trace as OTLP/JSON, written piece by piece while the client reads: a trace may be long, and its JSON is many times
//! as long as its bytes.

use super::content::{AdminBody, BodyPiece};
use super::route::{AdminReply, text, typed};
use crate::otlp::json::SpanList;
use http::StatusCode;
use http_body_util::Full;
use std::{
    io::{self, Write},
    sync::Arc,
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc},
    time::timeout,
};

/// Traces that are written at a time; each holds some pieces of one trace at most.
pub(super) const AT_ONCE: usize = 2;
/// Whoever asks for one more waits for so long, then hears 503.
const TURN_TIME: Duration = Duration::from_secs(10);
/// A client that takes nothing for so long gets no more.
const READ_TIME: Duration = Duration::from_secs(10);
const PIECE: usize = 64 << 10;

/// Takes spans: fields of an `ExportTraceServiceRequest`.
pub(super) type Give<'a> = dyn FnMut(&[u8]) -> io::Result<()> + 'a;

/// The answer for a trace of which `read` gives the spans, or says that it is unknown. It begins once its first piece is
/// there. Called on a thread that may block.
pub(super) fn trace(
    turns: Arc<Semaphore>,
    read: impl FnOnce(&mut Give<'_>) -> io::Result<bool> + Send + 'static,
) -> AdminReply {
    let runtime = Handle::current();
    let Ok(Ok(turn)) = runtime.block_on(timeout(TURN_TIME, turns.acquire_owned())) else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "other traces are being read: ask again in a moment\n");
    };
    let (sender, mut pieces) = mpsc::channel(1);
    runtime.spawn_blocking(move || {
        let mut out = Pieces { sender, gathered: Vec::new() };
        if let Err(error) = write(read, &mut out) {
            // Whoever has gone does not hear it.
            let _ = out.send(Err(error));
        }
        drop(turn);
    });
    match pieces.blocking_recv() {
        // A short one has a length, and simple clients like that.
        Some(Ok(BodyPiece::Last(whole))) => typed("application/json", AdminBody::Whole(Full::new(whole))),
        Some(Ok(BodyPiece::More(first))) => typed("application/json", AdminBody::Pieces(Some(first), pieces)),
        Some(Err(error)) => {
            tracing::warn!(%error, "a trace cannot be shown");
            text(StatusCode::INTERNAL_SERVER_ERROR, "the trace cannot be read, see the log\n")
        }
        None => text(StatusCode::NOT_FOUND, "neither the ring nor the store has this trace\n"),
    }
}

/// One `ExportTraceServiceRequest`, and nothing for a trace that is unknown.
fn write(read: impl FnOnce(&mut Give<'_>) -> io::Result<bool>, out: &mut Pieces) -> io::Result<()> {
    let mut list = SpanList::default();
    let is_known = read(&mut |spans| list.write(out, spans))?;
    if is_known {
        list.end(out)?;
        let rest = std::mem::take(&mut out.gathered);
        out.send(Ok(BodyPiece::Last(rest.into())))?;
    }
    Ok(())
}

/// Gathers what is written, and hands it on when it is enough.
struct Pieces {
    sender: mpsc::Sender<io::Result<BodyPiece>>,
    gathered: Vec<u8>,
}

impl Pieces {
    fn send(&self, piece: io::Result<BodyPiece>) -> io::Result<()> {
        let sent = Handle::current().block_on(timeout(READ_TIME, self.sender.send(piece)));
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= PIECE {
            let piece = std::mem::take(&mut self.gathered);
            self.send(Ok(BodyPiece::More(piece.into())))?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body::Body;
    use http_body_util::BodyExt;
    use opentelemetry_proto::tonic::{
        collector::trace::v1::ExportTraceServiceRequest,
        trace::v1::{ResourceSpans, ScopeSpans, Span},
    };
    use prost::Message;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    const PAGES: usize = 50;

    fn page(number: usize) -> Vec<u8> {
        let span = Span { name: number.to_string(), trace_state: "x".repeat(1 << 20), ..Default::default() };
        let scope_spans = vec![ScopeSpans { spans: vec![span], ..Default::default() }];
        let resource_spans = vec![ResourceSpans { scope_spans, ..Default::default() }];
        ExportTraceServiceRequest { resource_spans }.encode_to_vec()
    }

    async fn asked(read: impl FnOnce(&mut Give<'_>) -> io::Result<bool> + Send + 'static) -> AdminReply {
        let turns = Arc::new(Semaphore::new(1));
        tokio::task::spawn_blocking(move || trace(turns, read)).await.unwrap()
    }

    #[tokio::test]
    async fn pages_become_one_request_and_none_is_read_before_it_can_be_sent() {
        let given = Arc::new(AtomicUsize::new(0));
        let counted = given.clone();
        let mut reply = asked(move |give| {
            (0..PAGES).try_for_each(|number| {
                give(&page(number)).inspect(|()| {
                    counted.fetch_add(1, Relaxed);
                })
            })?;
            Ok(true)
        })
        .await;
        assert_eq!(reply.status(), StatusCode::OK);
        assert!(given.load(Relaxed) <= 2, "{} pages wait for their reader", given.load(Relaxed));
        let mut text = Vec::new();
        while let Some(frame) = reply.body_mut().frame().await {
            text.extend(frame.unwrap().into_data().unwrap());
        }
        let request: ExportTraceServiceRequest = serde_json::from_slice(&text).unwrap();
        assert_eq!(request.resource_spans.len(), 1, "all of one resource, which is there once");
        let scopes = &request.resource_spans[0].scope_spans;
        let names: Vec<String> = scopes.iter().map(|scope| scope.spans[0].name.clone()).collect();
        assert_eq!(names, (0..PAGES).map(|number| number.to_string()).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_short_answer_has_a_length() {
        let reply = asked(|give| give(b"").map(|()| true)).await;
        assert_eq!(reply.body().size_hint().exact(), Some(20));
        assert_eq!(reply.into_body().collect().await.unwrap().to_bytes(), r#"{"resourceSpans":[]}"#);
    }

    #[tokio::test]
    async fn an_answer_that_cannot_be_finished_is_not_taken_for_a_whole_one() {
        assert_eq!(asked(|_| Ok(false)).await.status(), StatusCode::NOT_FOUND);
        let broken = asked(|_| Err(io::Error::other("the disk"))).await;
        assert_eq!(broken.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let cut = asked(|give| give(&page(0)).and_then(|()| Err(io::Error::other("the disk")))).await;
        assert_eq!(cut.status(), StatusCode::OK);
        assert!(cut.into_body().collect().await.is_err());
    }
}
