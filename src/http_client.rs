//! The one HTTP client of all sinks and of identity.
//!
//! One request, one reply, whole bodies. It does not follow redirects, use proxies or retry what the
//! peer may have seen: whether to send again is the caller's decision, so every error says whether
//! the request may have arrived.

mod connect;

use bytes::Bytes;
use connect::{ConnectError, Connector};
use http::{HeaderMap, HeaderValue, Request, StatusCode, header::USER_AGENT};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy,
    rt::{TokioExecutor, TokioTimer},
};
use std::{error::Error, path::PathBuf, sync::Mutex, time::Duration};
use thiserror::Error;
use tokio::time::{Instant, timeout_at};

type ConnectionPool = legacy::Client<Connector, Full<Bytes>>;

/// Below the idle limits of common load balancers (60 s), so that they rarely close under us.
const POOL_IDLE: Duration = Duration::from_secs(50);
/// A sink sends one request at a time; the second connection is for overlapping probes.
const POOL_CONNECTIONS: usize = 2;

/// The protocol on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum HttpVersion {
    #[default]
    Http1,
    /// ALPN `h2` over TLS, prior knowledge over plain TCP: what gRPC needs.
    Http2,
}

/// How a client trusts and presents itself. Verification cannot be switched off. Files that change are used by the
/// next connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// PEM certificates trusted besides those of the host.
    pub ca_file: Option<PathBuf>,
    /// What this client presents.
    pub identity: Option<ClientCertificate>,
}

/// PEM files of a client certificate chain and its private key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    pub certificate_file: PathBuf,
    pub key_file: PathBuf,
}

/// What is the same for all requests of one client.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// None refuses `https` and spares the trust store's memory.
    pub tls: Option<TlsSettings>,
    pub version: HttpVersion,
    /// `HOST:PORT` to connect to in place of the URL's; Host, SNI and the checked name stay the URL's.
    pub connect_to: Option<String>,
    /// For resolving, connecting and the TLS handshake together.
    pub connect_timeout: Duration,
    /// From the call of [`Client::send`] to the reply's last byte.
    pub timeout: Duration,
    /// Bytes; a longer reply body is an error.
    pub response_max: usize,
}

impl Default for ClientSettings {
    fn default() -> Self {
        ClientSettings {
            tls: Some(TlsSettings::default()),
            version: HttpVersion::Http1,
            connect_to: None,
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(10),
            response_max: 1 << 20,
        }
    }
}

/// A reply, whatever its status.
#[derive(Debug)]
pub struct Response {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// What followed the body: gRPC's status travels there.
    pub trailers: HeaderMap,
    /// Why the body is not whole; never from [`Client::send`].
    pub cut: Option<ClientError>,
}

/// Why there is no reply. The texts hold host and port, never a path, query or header.
#[derive(Debug, Error)]
pub enum ClientError {
    #[error("{0}")]
    Invalid(String),
    #[error("cannot connect to {peer}: {reason}")]
    Connect { peer: String, reason: String },
    #[error("TLS with {peer} failed: {reason}")]
    Tls { peer: String, reason: String },
    #[error("no reply within {} ms", after.as_millis())]
    Timeout { after: Duration },
    #[error("the connection broke before the reply was complete: {reason}")]
    Reset { reason: String },
    #[error("the reply is longer than {limit} bytes")]
    TooLong { limit: usize },
}

impl ClientError {
    /// The peer may have processed the request: sending it again can make a duplicate.
    pub fn may_have_arrived(&self) -> bool {
        match self {
            ClientError::Invalid(_) | ClientError::Connect { .. } | ClientError::Tls { .. } => false,
            ClientError::Timeout { .. } | ClientError::Reset { .. } | ClientError::TooLong { .. } => true,
        }
    }
}

/// Sends requests over pooled connections. Shared by reference; dropping a `send` aborts its request.
#[derive(Debug)]
pub struct Client {
    pool: Mutex<ConnectionPool>,
    connector: Connector,
    version: HttpVersion,
    timeout: Duration,
    response_max: usize,
}

impl Client {
    /// Reads the certificate files and connects to nothing. The error is for the configuration's author.
    pub fn new(settings: ClientSettings) -> Result<Client, String> {
        let connector = Connector::new(&settings)?;
        Ok(Client {
            pool: Mutex::new(new_pool(&connector, settings.version)),
            connector,
            version: settings.version,
            timeout: settings.timeout,
            response_max: settings.response_max,
        })
    }

    /// One attempt, for a whole reply. The URI must be absolute; Host is derived from it unless the request
    /// has one.
    pub async fn send(&self, request: Request<Bytes>) -> Result<Response, ClientError> {
        let mut response = self.ask(request).await?;
        match response.cut.take() {
            Some(error) => Err(error),
            None => Ok(response),
        }
    }

    /// As [`Client::send`], where the status says all: that the body breaks off or has no end is no error.
    pub async fn ask(&self, mut request: Request<Bytes>) -> Result<Response, ClientError> {
        if request.uri().authority().is_none() {
            return Err(ClientError::Invalid("the URL has no host; write http://HOST:PORT/PATH".to_owned()));
        }
        let agent = HeaderValue::from_static(concat!("tailkeep/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().entry(USER_AGENT).or_insert(agent);
        let deadline = Instant::now() + self.timeout;
        let pool = self.pool.lock().expect("no code panics under this lock").clone();
        let Ok(reply) = timeout_at(deadline, pool.request(request.map(Full::new))).await else {
            return Err(self.timed_out());
        };
        let (head, body) = reply.map_err(|e| without_reply(&e))?.into_parts();
        let mut response = Response {
            status: head.status,
            headers: head.headers,
            body: Bytes::new(),
            trailers: HeaderMap::new(),
            cut: None,
        };
        let mut bytes = Vec::new();
        response.cut = match timeout_at(deadline, self.read(body, &mut bytes, &mut response.trailers)).await {
            Ok(read) => read.err(),
            Err(_) => Some(self.timed_out()),
        };
        response.body = bytes.into();
        Ok(response)
    }

    /// Keeps the body's beginning. gRPC's answer follows the body, so there it is read to its end.
    async fn read(&self, mut body: Incoming, kept: &mut Vec<u8>, trailers: &mut HeaderMap) -> Result<(), ClientError> {
        let mut is_too_long = false;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|e| ClientError::Reset { reason: innermost(&e) })?;
            match frame.into_data() {
                Ok(data) => {
                    let room = self.response_max - kept.len();
                    kept.extend_from_slice(&data[..data.len().min(room)]);
                    is_too_long |= data.len() > room;
                }
                Err(frame) => *trailers = frame.into_trailers().unwrap_or_default(),
            }
            if is_too_long && self.version == HttpVersion::Http1 {
                break;
            }
        }
        if is_too_long { Err(ClientError::TooLong { limit: self.response_max }) } else { Ok(()) }
    }

    fn timed_out(&self) -> ClientError {
        self.forget_connections();
        ClientError::Timeout { after: self.timeout }
    }

    /// An HTTP/2 connection to a peer that is gone would otherwise be given to every later request.
    fn forget_connections(&self) {
        if self.version == HttpVersion::Http2 {
            *self.pool.lock().expect("no code panics under this lock") = new_pool(&self.connector, self.version);
        }
    }
}

fn new_pool(connector: &Connector, version: HttpVersion) -> ConnectionPool {
    legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(POOL_IDLE)
        .pool_max_idle_per_host(POOL_CONNECTIONS)
        .http2_only(version == HttpVersion::Http2)
        .build(connector.clone())
}

fn without_reply(error: &legacy::Error) -> ClientError {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(failed) = current.downcast_ref::<ConnectError>() {
            return failed.clone().into();
        }
        cause = current.source();
    }
    ClientError::Reset { reason: innermost(error) }
}

/// The last error of the chain says what happened; those around it say only where.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    /// Answers each connection with the next text, after having read a request's head.
    async fn server(replies: Vec<&'static str>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            for reply in replies {
                let (mut peer, _) = listener.accept().await.unwrap();
                let mut head = [0; 4096];
                let read = peer.read(&mut head).await.unwrap();
                let head = String::from_utf8_lossy(&head[..read]).to_lowercase();
                assert!(head.contains("host: sink.test:4318"), "{head}");
                assert!(head.contains("user-agent: tailkeep/"), "{head}");
                peer.write_all(reply.as_bytes()).await.unwrap();
            }
        });
        address
    }

    fn client(address: &str) -> Client {
        let settings =
            ClientSettings { tls: None, connect_to: Some(address.to_owned()), response_max: 8, ..Default::default() };
        Client::new(settings).unwrap()
    }

    fn request() -> Request<Bytes> {
        Request::post("http://sink.test:4318/v1/traces?token=secret").body(Bytes::from_static(b"spans")).unwrap()
    }

    #[tokio::test]
    async fn connect_to_changes_the_address_and_nothing_else() {
        let address = server(vec!["HTTP/1.1 503 Busy\r\nretry-after: 3\r\ncontent-length: 4\r\n\r\nbusy"]).await;
        let reply = client(&address).send(request()).await.unwrap();
        assert_eq!((reply.status.as_u16(), reply.body.as_ref()), (503, &b"busy"[..]));
        assert_eq!(reply.headers["retry-after"], "3");
    }

    #[tokio::test]
    async fn errors_say_whether_the_request_may_have_arrived() {
        let truncated = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nok";
        let endless = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n123456789";
        let address = server(vec!["", truncated, endless]).await;
        for _ in 0..2 {
            let error = client(&address).send(request()).await.unwrap_err();
            assert!(matches!(error, ClientError::Reset { .. }) && error.may_have_arrived(), "{error:?}");
        }
        let error = client(&address).send(request()).await.unwrap_err();
        assert!(matches!(error, ClientError::TooLong { limit: 8 }), "{error:?}");

        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
        let error = client(&closed).send(request()).await.unwrap_err();
        assert!(matches!(error, ClientError::Connect { .. }) && !error.may_have_arrived(), "{error:?}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }

    #[tokio::test]
    async fn where_the_status_says_all_a_body_may_break_off_or_be_too_long() {
        let truncated = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nok";
        let endless = "HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n123456789";
        let silent = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n";
        let address = server(vec![truncated, endless, "HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n12345678"]).await;
        let ask = async |address: &str| client(address).ask(request()).await.unwrap();
        let reply = ask(&address).await;
        assert!(matches!(reply.cut, Some(ClientError::Reset { .. })) && reply.body == "ok", "{reply:?}");
        let reply = ask(&address).await;
        assert!(matches!(reply.cut, Some(ClientError::TooLong { limit: 8 })) && reply.body == "12345678", "{reply:?}");
        let reply = ask(&address).await;
        assert!(reply.cut.is_none() && reply.body == "12345678", "{reply:?}");

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connect_to = Some(listener.local_addr().unwrap().to_string());
        let answer = async {
            let (mut peer, _) = listener.accept().await.unwrap();
            assert!(peer.read(&mut [0; 4096]).await.unwrap() > 0);
            peer.write_all(silent.as_bytes()).await.unwrap();
            peer
        };
        let timeout = Duration::from_millis(200);
        let patient = Client::new(ClientSettings { tls: None, connect_to, timeout, ..Default::default() }).unwrap();
        let (reply, _peer) = tokio::join!(patient.ask(request()), answer);
        let reply = reply.unwrap();
        assert!(matches!(reply.cut, Some(ClientError::Timeout { .. })) && reply.status == 200, "{reply:?}");
    }

    #[tokio::test]
    async fn a_silent_peer_is_given_up_after_the_timeout() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connect_to = Some(listener.local_addr().unwrap().to_string());
        for version in [HttpVersion::Http1, HttpVersion::Http2] {
            let timeout = Duration::from_millis(50);
            let settings =
                ClientSettings { tls: None, version, connect_to: connect_to.clone(), timeout, ..Default::default() };
            let error = Client::new(settings).unwrap().send(request()).await.unwrap_err();
            assert!(matches!(error, ClientError::Timeout { .. }), "{error:?}");
        }
    }

    #[tokio::test]
    async fn wrong_settings_are_refused_with_what_to_write() {
        let new = |settings| Client::new(settings).unwrap_err();
        let error = new(ClientSettings { connect_to: Some("sink.test".into()), ..Default::default() });
        assert!(error.contains("HOST:PORT"), "{error}");
        let tls = TlsSettings { ca_file: Some("/nowhere/ca.pem".into()), identity: None };
        let error = new(ClientSettings { tls: Some(tls), ..Default::default() });
        assert!(error.contains("/nowhere/ca.pem"), "{error}");

        let https = Request::get("https://sink.test/").body(Bytes::new()).unwrap();
        let error = client("127.0.0.1:1").send(https).await.unwrap_err();
        assert!(matches!(error, ClientError::Tls { .. }), "{error:?}");
    }
}
