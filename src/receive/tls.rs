//! TLS of a listener, from PEM files that are read again when they change.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

/// The files that make a listener speak TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM file with the server's certificate and those that lead to its authority.
    pub cert: PathBuf,
    /// PEM file with the certificate's private key.
    pub key: PathBuf,
    /// PEM file with the authorities of clients. With it, clients without a certificate of theirs are turned away.
    pub client_ca: Option<PathBuf>,
}

/// A TLS file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("receive.tls.{key}: {}: {problem}", path.display())]
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
pub(super) struct Tls {
    files: TlsFiles,
    alpn: &'static [&'static [u8]],
    check_every: Duration,
    current: Mutex<Current>,
}

struct Current {
    config: Arc<ServerConfig>,
    seen: Vec<FileVersion>,
    checked: Instant,
}

/// What tells one version of a file from the next; a symlink is followed.
type FileVersion = Option<(SystemTime, u64)>;

impl Tls {
    /// Reads the files once, so that a mistake shows at start.
    pub fn load(files: TlsFiles, alpn: &'static [&'static [u8]], check_every: Duration) -> Result<Tls, TlsError> {
        let seen = versions(&files);
        let config = read(&files, alpn)?;
        let current = Mutex::new(Current { config, seen, checked: Instant::now() });
        Ok(Tls { files, alpn, check_every, current })
    }

    /// The configuration for a new connection. Looks at the files at most once in `check_every`; files
    /// that cannot be used leave the old ones in force, and are tried again when they change again.
    pub fn config(&self) -> Arc<ServerConfig> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.checked.elapsed() >= self.check_every {
            current.checked = Instant::now();
            let found = versions(&self.files);
            if found != current.seen {
                current.seen = found;
                match read(&self.files, self.alpn) {
                    Ok(config) => {
                        tracing::info!(cert = %self.files.cert.display(), "tls files changed and are in use");
                        current.config = config;
                    }
                    Err(error) => tracing::warn!(%error, "tls files changed but cannot be used, the old ones stay"),
                }
            }
        }
        current.config.clone()
    }
}

fn versions(files: &TlsFiles) -> Vec<FileVersion> {
    let version = |path: &PathBuf| {
        let metadata = fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    [&files.cert, &files.key].into_iter().chain(&files.client_ca).map(version).collect()
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
