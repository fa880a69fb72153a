//! How a connection begins: with or without TLS, and whether its peer does as the listener does.

use super::connections::HEADER_TIME;
use super::{AdminApi, CloseReason};
use crate::tls::{ClientProtocol, HandshakeFault, ServerTls, first_words};
use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;

/// Rest between two lines in the log about the same fault.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// Lets connections of one listener in.
pub(super) struct Acceptor {
    listener: &'static str,
    api: Arc<dyn AdminApi>,
    /// When each fault was last spoken of.
    said: Mutex<[Option<Instant>; CloseReason::ALL.len()]>,
}

impl Acceptor {
    pub fn new(listener: &'static str, api: Arc<dyn AdminApi>) -> Acceptor {
        Acceptor { listener, api, said: Mutex::default() }
    }

    /// The connection, unless its peer speaks TLS.
    pub async fn plain(self: Arc<Self>, stream: TcpStream, peer: SocketAddr) -> Option<TcpStream> {
        match first_words(&stream, HEADER_TIME).await? {
            ClientProtocol::Tls => {
                self.refuse(CloseReason::TlsUnexpected, peer, "TLS on a port without: write http:// in the URL");
                None
            }
            ClientProtocol::Nothing => None,
            ClientProtocol::Http1 | ClientProtocol::Http2 | ClientProtocol::Other => Some(stream),
        }
    }

    /// The connection when hands have been shaken.
    pub async fn encrypted(
        self: Arc<Self>,
        tls: Arc<ServerTls>,
        stream: TcpStream,
        peer: SocketAddr,
    ) -> Option<TlsStream<TcpStream>> {
        match tls.accept(stream, HEADER_TIME).await {
            Ok(stream) => return Some(stream),
            Err(HandshakeFault::Silent | HandshakeFault::Left) => {}
            Err(HandshakeFault::Missing) => {
                self.refuse(CloseReason::TlsMissing, peer, "no TLS on a port with it: write https:// in the URL");
            }
            Err(HandshakeFault::Failed(error)) => self.refuse(CloseReason::TlsFailed, peer, error),
        }
        None
    }

    fn refuse(&self, fault: CloseReason, peer: SocketAddr, why: impl Display) {
        self.api.count_closed(fault);
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let last = &mut said[fault as usize];
        if last.is_none_or(|last| last.elapsed() >= SAY_EVERY) {
            *last = Some(Instant::now());
            let (listener, reason) = (self.listener, fault.word());
            tracing::warn!(listener, reason, %peer, %why, "a connection cannot be served");
        }
    }
}
