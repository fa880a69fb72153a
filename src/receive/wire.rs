//! The bytes of a connection, watched: what its peer speaks, and whether its bytes belong to requests.

use super::activity::Activity;
use crate::tls::ClientProtocol;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Length of the HTTP/2 preface: no request of either version is read before so many bytes came.
const PREFACE: usize = 24;
/// Bytes that a connection may send beside its requests, and two windows: pings and settings of a year, but
/// a fraction of a second of a flood.
const UNPRODUCTIVE: usize = 1 << 20;
/// What a byte of a body is worth: small pieces have as many bytes of framing.
const WORTH: usize = 2;

/// What is known of a connection's bytes, shared with those who read its requests.
#[derive(Clone)]
pub(super) struct ReadProgress(Arc<ReadState>);

struct ReadState {
    /// Bytes read, counted up to a preface's length.
    heard: AtomicUsize,
    spoken: AtomicU8,
    /// Bytes read that belong to no request yet.
    unproductive: AtomicUsize,
    window: usize,
}

impl ReadProgress {
    pub fn new(window: u32) -> ReadProgress {
        ReadProgress(Arc::new(ReadState {
            heard: AtomicUsize::new(0),
            spoken: AtomicU8::new(ClientProtocol::Nothing as u8),
            unproductive: AtomicUsize::new(0),
            window: window as usize,
        }))
    }

    /// Whether enough came for the version of HTTP to be known.
    pub fn has_greeted(&self) -> bool {
        self.0.heard.load(Relaxed) >= PREFACE
    }

    pub fn spoken(&self) -> ClientProtocol {
        ClientProtocol::ALL[self.0.spoken.load(Relaxed) as usize]
    }

    /// Whether far more came than belongs to requests.
    pub fn is_unproductive(&self) -> bool {
        self.0.unproductive.load(Relaxed) > UNPRODUCTIVE + 2 * self.0.window
    }

    /// A request began. It is worth a window: so much of a body may be under way when it is refused unread.
    pub fn request(&self) {
        self.make_good(self.0.window);
    }

    fn body(&self, bytes: usize) {
        self.make_good(bytes * WORTH);
    }

    fn make_good(&self, bytes: usize) {
        let less = |unproductive: usize| Some(unproductive.saturating_sub(bytes));
        // Always some, so it cannot fail.
        let _ = self.0.unproductive.fetch_update(Relaxed, Relaxed, less);
    }

    fn heard(&self, bytes: &[u8]) {
        self.0.unproductive.fetch_add(bytes.len(), Relaxed);
        if !self.has_greeted() && self.0.heard.fetch_add(bytes.len(), Relaxed) == 0 {
            self.0.spoken.store(ClientProtocol::of(bytes) as u8, Relaxed);
        }
    }
}

/// A stream whose bytes are watched. One that only floods breaks off.
pub(super) struct Watched<S> {
    pub stream: S,
    pub progress: ReadProgress,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.progress.is_unproductive() {
            return Poll::Ready(Err(io::Error::other("a flood of bytes that belong to no request")));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.progress.heard(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
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

/// A request's body whose bytes count as progress of its connection.
pub(super) struct Productive<B> {
    pub body: B,
    pub progress: ReadProgress,
    pub activity: Arc<Activity>,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Productive<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.progress.body(data.len());
            self.activity.brought(data.len());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: u32 = 1 << 16;

    /// Hears so many pieces of so many bytes.
    fn hear(progress: &ReadProgress, pieces: usize, size: usize) {
        for _ in 0..pieces {
            progress.heard(&vec![0; size]);
        }
    }

    #[test]
    fn bodies_in_the_smallest_pieces_are_progress_and_empty_frames_are_none() {
        let progress = ReadProgress::new(WINDOW);
        for _ in 0..100_000 {
            // A DATA frame of nine bytes, with its header.
            hear(&progress, 1, 18);
            progress.body(9);
        }
        assert!(!progress.is_unproductive());
        for _ in 0..200_000 {
            hear(&progress, 1, 9);
            progress.body(0);
        }
        assert!(progress.is_unproductive());
    }

    #[test]
    fn requests_that_are_refused_unread_are_no_flood() {
        let progress = ReadProgress::new(WINDOW);
        for _ in 0..1000 {
            progress.request();
            hear(&progress, 4, WINDOW as usize / 4);
        }
        assert!(!progress.is_unproductive());
        hear(&progress, 1, UNPRODUCTIVE + 2 * WINDOW as usize);
        assert!(progress.is_unproductive());
    }

    #[test]
    fn the_first_bytes_tell_what_is_spoken() {
        for (bytes, spoken) in [
            (&b""[..], ClientProtocol::Nothing),
            (b"\x16\x03\x01", ClientProtocol::Tls),
            (b"POST /v1/traces", ClientProtocol::Http1),
            (b"PRI * HTTP/2.0", ClientProtocol::Http2),
            (b"\0\0\0", ClientProtocol::Other),
        ] {
            let progress = ReadProgress::new(WINDOW);
            progress.heard(bytes);
            progress.heard(b"POST ");
            assert_eq!(progress.spoken(), if bytes.is_empty() { ClientProtocol::Http1 } else { spoken }, "{bytes:?}");
        }
    }
}
