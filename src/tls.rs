//! TLS of a listener, from PEM files that are read again when they change.

mod client_protocol;

pub use client_protocol::ClientProtocol;

use crate::watched_files::WatchedFiles;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;

/// Longest goodbye to a peer that does not speak TLS, and most of what it says meanwhile.
const GOODBYE_TIME: Duration = Duration::from_secs(1);
const GOODBYE_BYTES: u64 = 64 << 10;

/// The files that make a listener speak TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM file with the server's certificate and those that lead to its authority.
    pub cert: PathBuf,
    /// PEM file with the certificate's private key.
    pub key: PathBuf,
    /// PEM file with the authorities of clients. With it, clients without a certificate of theirs are turned away.
    pub client_ca: Option<PathBuf>,
    /// How often a new connection may look whether they changed.
    pub check_every: Duration,
}

/// A TLS file that cannot be used. The text begins with its key; the section is for whoever reports it.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {}: {problem}", path.display())]
pub struct TlsError {
    /// The setting that names it.
    pub key: &'static str,
    pub path: PathBuf,
    /// What is wrong, and what to write instead.
    pub problem: String,
}

impl TlsError {
    fn new(key: &'static str, path: &Path, problem: impl Into<String>) -> TlsError {
        TlsError { key, path: path.to_owned(), problem: problem.into() }
    }
}

const CLIENT_CA: &str = "client_ca";

impl TlsFiles {
    /// Whether a listener could use them.
    ///
    /// # Errors
    /// [`TlsError`], about the first that it could not.
    pub fn check(&self) -> Result<(), TlsError> {
        read(self, &[]).map(drop)
    }
}

/// The TLS of one listener.
pub struct ServerTls(WatchedFiles<Arc<ServerConfig>>);

impl ServerTls {
    /// Reads the files once, so that a mistake shows at start. `setting` names them in the log.
    ///
    /// # Errors
    /// [`TlsError`], about the first that cannot be used.
    pub fn load(
        setting: &'static str,
        files: &TlsFiles,
        alpn: &'static [&'static [u8]],
    ) -> Result<ServerTls, TlsError> {
        let watched = [&files.cert, &files.key].into_iter().chain(&files.client_ca).cloned().collect();
        let (check_every, files) = (files.check_every, files.clone());
        WatchedFiles::start(setting, watched, check_every, move || read(&files, alpn)).map(ServerTls)
    }

    /// Shakes hands within `patience`. A peer that speaks HTTP/1 without TLS is told so.
    ///
    /// # Errors
    /// Why there is no TLS with this peer.
    pub async fn accept(&self, stream: TcpStream, patience: Duration) -> Result<TlsStream<TcpStream>, HandshakeFault> {
        match first_words(&stream, patience).await.ok_or(HandshakeFault::Silent)? {
            // A probe of the port opens a connection and says nothing.
            ClientProtocol::Nothing => Err(HandshakeFault::Left),
            ClientProtocol::Http1 => {
                say_tls_is_wanted(stream).await;
                Err(HandshakeFault::Missing)
            }
            ClientProtocol::Http2 | ClientProtocol::Other => Err(HandshakeFault::Missing),
            ClientProtocol::Tls => match timeout(patience, TlsAcceptor::from(self.0.get()).accept(stream)).await {
                Ok(shaken) => shaken.map_err(|error| HandshakeFault::Failed(error.to_string())),
                Err(_) => Err(HandshakeFault::Failed("the handshake did not end in time".to_owned())),
            },
        }
    }
}

/// Why a connection does not come to speak TLS.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HandshakeFault {
    /// Nothing was said in time.
    Silent,
    /// It was closed again without a word.
    Left,
    /// Its peer does not speak TLS.
    Missing,
    Failed(String),
}

/// What a peer says first, left to be read; none if it says nothing in time.
pub async fn first_words(stream: &TcpStream, patience: Duration) -> Option<ClientProtocol> {
    let mut first = [0; 1];
    let read = timeout(patience, stream.peek(&mut first)).await.ok()?;
    Some(ClientProtocol::of(&first[..read.unwrap_or(0)]))
}

async fn say_tls_is_wanted(mut stream: TcpStream) {
    let line = "this port speaks TLS: write https:// in the endpoint\n";
    let length = line.len();
    let head = "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\nconnection: close";
    let answer = format!("{head}\r\ncontent-length: {length}\r\n\r\n{line}");
    let goodbye = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        // Closing over unread bytes would reset the connection, and with it the answer.
        tokio::io::copy(&mut stream.take(GOODBYE_BYTES), &mut tokio::io::sink()).await
    };
    // A peer that goes away without the answer is its own affair.
    let _ = timeout(GOODBYE_TIME, goodbye).await;
}

fn read(files: &TlsFiles, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let chain = read_certificates("cert", &files.cert)?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| TlsError::new("key", &files.key, format!("no private key in PEM form is here ({error})")))?;
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::new("cert", &files.cert, error.to_string()))?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => builder.with_client_cert_verifier(
            WebPkiClientVerifier::builder_with_provider(read_authorities(path)?, provider)
                .build()
                .map_err(|error| TlsError::new(CLIENT_CA, path, error.to_string()))?,
        ),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| {
        TlsError::new("key", &files.key, format!("does not go with {} ({error})", files.cert.display()))
    })?;
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}

fn read_certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |error| TlsError::new(key, path, format!("cannot be read as PEM ({error})"));
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(unreadable)?.collect();
    match certificates.map_err(unreadable)? {
        none if none.is_empty() => Err(TlsError::new(key, path, "no certificate in PEM form is here")),
        certificates => Ok(certificates),
    }
}

fn read_authorities(path: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    let mut authorities = RootCertStore::empty();
    for certificate in read_certificates(CLIENT_CA, path)? {
        authorities.add(certificate).map_err(|error| TlsError::new(CLIENT_CA, path, error.to_string()))?;
    }
    Ok(Arc::new(authorities))
}
