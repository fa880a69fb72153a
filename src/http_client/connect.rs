//! Opens a connection: where to, how long at most, and with which trust.

use super::{ClientCertificate, ClientError, ClientSettings, HttpVersion, TlsSettings};
use crate::watched_files::{CHECK_EVERY, WatchedFiles};
use http::{Uri, uri::Authority};
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use std::{
    future::Future,
    io,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, crypto::ring},
};

/// Nothing was sent yet.
#[derive(Clone, Debug, Error)]
pub(super) enum ConnectError {
    #[error("cannot connect to {peer}: {reason}")]
    Tcp { peer: String, reason: String },
    #[error("TLS with {peer} failed: {reason}")]
    Tls { peer: String, reason: String },
}

impl From<ConnectError> for ClientError {
    fn from(error: ConnectError) -> ClientError {
        match error {
            ConnectError::Tcp { peer, reason } => ClientError::Connect { peer, reason },
            ConnectError::Tls { peer, reason } => ClientError::Tls { peer, reason },
        }
    }
}

/// Makes connections for the pool.
#[derive(Clone)]
pub(super) struct Connector {
    tls: Option<Arc<WatchedFiles<TlsConnector>>>,
    connect_to: Option<Authority>,
    timeout: Duration,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("connect_to", &self.connect_to).finish_non_exhaustive()
    }
}

impl Connector {
    pub(super) fn new(settings: &ClientSettings) -> Result<Connector, String> {
        let tls = match &settings.tls {
            Some(tls) => Some(Arc::new(watch(tls.clone(), settings.version)?)),
            None => None,
        };
        let connect_to = settings.connect_to.as_deref().map(parse_address).transpose()?;
        Ok(Connector { tls, connect_to, timeout: settings.connect_timeout })
    }

    async fn connect(self, uri: Uri) -> Result<TokioIo<Stream>, ConnectError> {
        let https = uri.scheme_str() == Some("https");
        let name = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let (host, port) = match &self.connect_to {
            Some(address) => (address.host().trim_matches(['[', ']']), address.port_u16().unwrap_or_default()),
            None => (name, uri.port_u16().unwrap_or(if https { 443 } else { 80 })),
        };
        let peer = format!("{host}:{port}");
        let failed = |reason: String| ConnectError::Tls { peer: peer.clone(), reason };
        let tls = match (&self.tls, https) {
            (_, false) => None,
            (Some(tls), true) => Some(tls.get()),
            (None, true) => return Err(failed("this client has no TLS settings".to_owned())),
        };
        let opening = async {
            let tcp = TcpStream::connect((host, port)).await.and_then(|tcp| tcp.set_nodelay(true).map(|()| tcp));
            let tcp = tcp.map_err(|e| ConnectError::Tcp { peer: peer.clone(), reason: e.to_string() })?;
            let Some(tls) = tls else { return Ok(Stream(Box::new(tcp))) };
            let name = ServerName::try_from(name.to_owned()).map_err(|e| failed(e.to_string()))?;
            tls.connect(name, tcp).await.map(|tls| Stream(Box::new(tls))).map_err(|e| failed(handshake_failure(&e)))
        };
        match tokio::time::timeout(self.timeout, opening).await {
            Ok(outcome) => outcome.map(TokioIo::new),
            Err(_) => {
                let reason = format!("no answer within {} ms", self.timeout.as_millis());
                Err(ConnectError::Tcp { peer, reason })
            }
        }
    }
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<TokioIo<Stream>, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

/// What went wrong, with what to do about what is made by the usual command.
fn handshake_failure(error: &std::io::Error) -> String {
    let text = error.to_string();
    if !text.contains("CaUsedAsEndEntity") {
        return text;
    }
    format!(
        "{text}: the peer presents the certificate of an authority itself, as `openssl req -x509` makes it; give it one \
         that an authority issued, or make it with `-addext basicConstraints=critical,CA:FALSE`"
    )
}

fn parse_address(text: &str) -> Result<Authority, String> {
    let address: Option<Authority> = text.parse().ok();
    address
        .filter(|a| a.port_u16().is_some() && !a.host().is_empty() && !a.as_str().contains('@'))
        .ok_or_else(|| format!("{text:?} is not an address; write HOST:PORT, for example 10.0.0.7:443"))
}

/// The trust and identity of the next connection, read again when their files change.
fn watch(settings: TlsSettings, version: HttpVersion) -> Result<WatchedFiles<TlsConnector>, String> {
    let identity = settings.identity.iter().flat_map(|identity| [&identity.certificate_file, &identity.key_file]);
    let files = settings.ca_file.iter().chain(identity).cloned().collect();
    WatchedFiles::start("tls of a client", files, CHECK_EVERY, move || {
        Ok(TlsConnector::from(Arc::new(tls_config(&settings, version)?)))
    })
}

fn tls_config(settings: &TlsSettings, version: HttpVersion) -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(trusted(settings.ca_file.as_deref())?);
    let mut config = match &settings.identity {
        Some(identity) => {
            let (chain, key) = read_identity(identity)?;
            builder.with_client_auth_cert(chain, key).map_err(|e| {
                let file = identity.certificate_file.display();
                format!("{file} and {} do not fit together: {e}", identity.key_file.display())
            })?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = match version {
        HttpVersion::Http1 => vec![b"http/1.1".to_vec()],
        HttpVersion::Http2 => vec![b"h2".to_vec()],
    };
    Ok(config)
}

/// The host's trust store and the given file. An empty result is refused later, by the handshake, so
/// that a container without certificates still reaches plain sinks.
fn trusted(ca_file: Option<&Path>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(file) = ca_file {
        let (added, _) = roots.add_parsable_certificates(read_certificates(file)?);
        if added == 0 {
            return Err(format!("{} holds no usable certificate", file.display()));
        }
    }
    Ok(roots)
}

fn read_identity(files: &ClientCertificate) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
    let key = PrivateKeyDer::from_pem_file(&files.key_file)
        .map_err(|e| format!("cannot read a private key from {}: {e}", files.key_file.display()))?;
    Ok((read_certificates(&files.certificate_file)?, key))
}

fn read_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(format!("{} holds no certificate; it must be PEM", file.display())),
        Err(e) => Err(format!("cannot read certificates from {}: {e}", file.display())),
    }
}

trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// TCP with or without TLS.
pub(super) struct Stream(Box<dyn ByteStream>);

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
