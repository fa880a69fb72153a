//! TLS and mutual TLS, with certificates made on the spot.

use crate::harness::*;
use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tailkeep::http_client::{Client, ClientCertificate, ClientError, ClientSettings, TlsSettings};
use tailkeep::receive::{ConnectionFault, Receiver, ReceiverSettings};
use tailkeep::tls::TlsFiles;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

type Authority = CertifiedIssuer<'static, KeyPair>;

/// A certificate and its key, in PEM.
struct Pair {
    cert: String,
    key: String,
}

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn issue(authority: &Authority) -> Pair {
    let key = KeyPair::generate().unwrap();
    let cert = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, authority).unwrap();
    Pair { cert: cert.pem(), key: key.serialize_pem() }
}

fn write(folder: &TempDir, pair: &Pair) -> TlsFiles {
    let [cert, key] = ["tls.crt", "tls.key"].map(|name| folder.path().join(name));
    let files = TlsFiles { cert, key, client_ca: None, check_every: Duration::ZERO };
    fs::write(&files.cert, &pair.cert).unwrap();
    fs::write(&files.key, &pair.key).unwrap();
    files
}

/// A TLS connection that trusts an authority and perhaps shows a certificate.
async fn connect(
    address: SocketAddr,
    trusts: &Authority,
    shows: Option<&Pair>,
    alpn: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusts.pem().as_bytes()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match shows {
        None => builder.with_no_client_auth(),
        Some(pair) => builder
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap(),
            )
            .unwrap(),
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
}

/// One gRPC call; none if the connection breaks.
async fn call_over(stream: TlsStream<TcpStream>) -> Option<tonic::Code> {
    let handshake = http2::Builder::new(TokioExecutor::new()).handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.ok()?;
    tokio::spawn(connection);
    let request = grpc_request(TRACES, Pieces::of([&framed(0, b"hello")[..]]));
    Some(Reply::read(sender.send_request(request).await.ok()?).await.grpc().code())
}

#[tokio::test]
async fn both_ports_speak_tls_and_agree_on_the_protocol() {
    let (folder, ca) = (TempDir::new().unwrap(), authority());
    let server = Server::start(ReceiverSettings { tls: Some(write(&folder, &issue(&ca))), ..small() }).await;

    let stream = connect(server.grpc, &ca, None, &[b"h2"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(call_over(stream).await, Some(tonic::Code::Ok));
    assert!(connect(server.grpc, &ca, None, &[b"http/1.1"]).await.is_err(), "gRPC needs HTTP/2");

    let stream = connect(server.http, &ca, None, &[b"http/1.1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let (mut sender, connection) = http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let response = sender.send_request(http_request("/v1/traces", "application/json", b"{}")).await.unwrap();
    assert_eq!(Reply::read(response).await.status, 200);
    let stream = connect(server.http, &ca, None, &[b"h2", b"http/1.1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));

    // A peer without TLS gets nowhere, and harms nobody.
    let plain = raw(server.http, b"POST /v1/traces HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(plain.starts_with("HTTP/1.1 400 ") && plain.contains("write https://"), "{plain}");
    assert_eq!(raw(server.grpc, b"\0\x01\x02").await, "");
    assert_eq!(server.taken().len(), 2);
    let failed = |fault| server.stats().connections_failed(fault);
    assert_eq!(failed(ConnectionFault::TlsMissing), 2);
    assert_eq!(failed(ConnectionFault::TlsFailed), 1, "the one without HTTP/2");
    let open = server.stats().connections_open;
    let probe = TcpStream::connect(server.http).await.unwrap();
    server.until("a probe of the port has come", |stats| stats.connections_open == open + 1).await;
    drop(probe);
    server.until("and gone", |stats| stats.connections_open == open).await;
    let faults = ConnectionFault::ALL.map(failed);
    assert_eq!(faults.iter().sum::<u64>(), 3, "which is no fault: {faults:?}");
}

#[tokio::test]
async fn mutual_tls_turns_strangers_away() {
    let (folder, ours, theirs) = (TempDir::new().unwrap(), authority(), authority());
    let client_ca = folder.path().join("client.crt");
    fs::write(&client_ca, ours.pem()).unwrap();
    let files = TlsFiles { client_ca: Some(client_ca), ..write(&folder, &issue(&ours)) };
    let server = Server::start(ReceiverSettings { tls: Some(files), ..small() }).await;
    let (friend, stranger) = (issue(&ours), issue(&theirs));
    for (who, shows, expected) in
        [("friend", Some(&friend), Some(tonic::Code::Ok)), ("stranger", Some(&stranger), None), ("nobody", None, None)]
    {
        // In TLS 1.3 a client may learn only after the handshake that it was turned away.
        let answer = match connect(server.grpc, &ours, shows, &[b"h2"]).await {
            Ok(stream) => call_over(stream).await,
            Err(_) => None,
        };
        assert_eq!(answer, expected, "{who}");
    }
}

#[tokio::test]
async fn changed_files_serve_the_next_connection_and_broken_ones_do_not() {
    let (folder, before, after) = (TempDir::new().unwrap(), authority(), authority());
    let files = write(&folder, &issue(&before));
    let settings = ReceiverSettings { tls: Some(files.clone()), ..small() };
    let server = Server::start(settings).await;
    let trusted = async |ca: &Authority| connect(server.grpc, ca, None, &[b"h2"]).await.is_ok();
    assert!(trusted(&before).await && !trusted(&after).await);

    fs::write(&files.cert, "not a certificate").unwrap();
    assert!(trusted(&before).await, "a broken file leaves the old certificate in force");
    let next = issue(&after);
    fs::write(&files.cert, &next.cert).unwrap();
    assert!(trusted(&before).await, "a certificate without its key is broken too");
    fs::write(&files.key, &next.key).unwrap();
    assert!(trusted(&after).await && !trusted(&before).await);
    fs::remove_file(&files.key).unwrap();
    assert!(trusted(&after).await);
}

#[tokio::test]
async fn a_file_that_cannot_be_used_is_named_at_start() {
    let (folder, ca) = (TempDir::new().unwrap(), authority());
    let files = write(&folder, &issue(&ca));
    let error = async |files: TlsFiles| {
        Receiver::bind(ReceiverSettings { tls: Some(files), ..small() }).await.err().unwrap().to_string()
    };
    let missing = folder.path().join("missing.crt");
    let message = error(TlsFiles { cert: missing.clone(), ..files.clone() }).await;
    assert!(message.contains("missing.crt"), "{message}");
    let message = error(TlsFiles { client_ca: Some(missing), ..files.clone() }).await;
    assert!(message.contains("missing.crt"), "{message}");
    let message = error(TlsFiles { key: files.cert.clone(), ..files.clone() }).await;
    assert!(message.contains("tls.crt: no private key in PEM form"), "{message}");
    let message = error(TlsFiles { cert: files.key.clone(), ..files.clone() }).await;
    assert!(message.contains("tls.key: no certificate in PEM form"), "{message}");
    fs::write(&files.key, issue(&ca).key).unwrap();
    let message = error(files).await;
    assert!(message.contains("tls.key: does not go with"), "{message}");
}

#[tokio::test]
async fn a_sink_takes_renewed_certificates_and_authorities_with_its_next_connection() {
    let (folder, ours, theirs) = (TempDir::new().unwrap(), authority(), authority());
    let [ca_file, certificate_file, key_file] = ["ca", "client.crt", "client.key"].map(|name| folder.path().join(name));
    let files = TlsFiles { client_ca: Some(folder.path().join("ours")), ..write(&folder, &issue(&ours)) };
    fs::write(folder.path().join("ours"), ours.pem()).unwrap();
    let server = Server::start(ReceiverSettings { tls: Some(files), ..small() }).await;

    let put = |ca: &Authority, pair: &Pair| {
        fs::write(&ca_file, ca.pem()).unwrap();
        fs::write(&certificate_file, &pair.cert).unwrap();
        fs::write(&key_file, &pair.key).unwrap();
    };
    put(&theirs, &issue(&theirs));
    let identity = Some(ClientCertificate { certificate_file: certificate_file.clone(), key_file: key_file.clone() });
    let tls = Some(TlsSettings { ca_file: Some(ca_file.clone()), identity });
    let connect_to = Some(server.http.to_string());
    let client = Client::new(ClientSettings { tls, connect_to, ..ClientSettings::default() }).unwrap();
    let send = async || {
        let request = http::Request::post("https://localhost/v1/traces").header("content-type", "application/json");
        client.send(request.body(Bytes::from_static(b"{}")).unwrap()).await
    };
    assert!(matches!(send().await, Err(ClientError::Tls { .. })), "it trusts somebody else");
    let look = async || {
        tokio::time::pause();
        tokio::time::advance(tailkeep::watched_files::CHECK_EVERY).await;
        tokio::time::resume();
    };
    put(&ours, &issue(&theirs));
    look().await;
    assert!(send().await.is_err(), "it is a stranger");
    put(&ours, &issue(&ours));
    look().await;
    assert_eq!(send().await.unwrap().status, 200);
    assert_eq!(server.taken().len(), 1);
}
