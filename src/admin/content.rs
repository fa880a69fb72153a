//! The body of an answer.

use super::connections::LastActivity;
use super::page::Page;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Frame, SizeHint};
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::sync::mpsc;

/// What an answer says.
pub(super) enum AdminBody {
    Whole(Full<Bytes>),
    /// A page that others may be reading too, and how many of its pieces are sent.
    Shared(Arc<Page>, usize),
    /// The first piece, until it is sent, and the others; an error where they cannot come.
    Pieces(Option<Bytes>, mpsc::Receiver<io::Result<BodyPiece>>),
}

/// Some bytes of an answer that is written while it is read.
pub(super) enum BodyPiece {
    More(Bytes),
    Last(Bytes),
}

impl BodyPiece {
    fn into_frame(self) -> Frame<Bytes> {
        match self {
            BodyPiece::More(bytes) | BodyPiece::Last(bytes) => Frame::data(bytes),
        }
    }
}

impl From<String> for AdminBody {
    fn from(text: String) -> AdminBody {
        AdminBody::Whole(Full::from(text))
    }
}

impl hyper::body::Body for AdminBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            AdminBody::Whole(body) => Pin::new(body).poll_frame(cx).map_err(|never: Infallible| match never {}),
            AdminBody::Shared(page, sent) => {
                let piece = page.pieces().get(*sent).cloned();
                *sent += 1;
                Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
            }
            AdminBody::Pieces(first, rest) => match first.take() {
                Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece)))),
                None => rest.poll_recv(cx).map(|piece| piece.map(|piece| piece.map(BodyPiece::into_frame))),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            AdminBody::Whole(body) => body.is_end_stream(),
            AdminBody::Shared(page, sent) => *sent >= page.pieces().len(),
            AdminBody::Pieces(..) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            AdminBody::Whole(body) => body.size_hint(),
            AdminBody::Shared(page, sent) => {
                SizeHint::with_exact(page.pieces().iter().skip(*sent).map(|piece| piece.len() as u64).sum())
            }
            AdminBody::Pieces(..) => SizeHint::default(),
        }
    }
}

/// A content that notes when its reader takes something of it.
pub(super) struct WatchedBody {
    pub content: AdminBody,
    pub activity: Arc<LastActivity>,
}

impl hyper::body::Body for WatchedBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let frame = ready!(Pin::new(&mut self.content).poll_frame(cx));
        match &self.content {
            // It holds nothing but its pieces, so it may last.
            AdminBody::Pieces(..) => self.activity.begin(),
            AdminBody::Whole(_) | AdminBody::Shared(..) => self.activity.note(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.content.size_hint()
    }
}
