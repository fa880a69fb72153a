//! A gRPC client for OTLP's three methods, blocking.

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::net::SocketAddr;
use tailkeep::trace::Signal;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

/// One connection.
pub struct Grpc {
    runtime: Runtime,
    requests: SendRequest<Full<Bytes>>,
}

/// A call's end.
#[derive(Debug)]
pub struct Status {
    /// 0 is well.
    pub code: i32,
    pub message: String,
    pub has_details: bool,
    /// The response message.
    pub body: Vec<u8>,
}

pub fn method(signal: Signal) -> &'static str {
    match signal {
        Signal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        Signal::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    }
}

impl Grpc {
    pub fn connect(address: SocketAddr) -> Grpc {
        // A thread of its own: a connection answers pings also while its test does something else.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let requests = runtime.block_on(async {
            let stream = TcpStream::connect(address).await.expect("the listener accepts");
            stream.set_nodelay(true).expect("a TCP socket");
            let (requests, connection) =
                handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("the listener speaks HTTP/2");
            tokio::spawn(connection);
            requests
        });
        Grpc { runtime, requests }
    }

    /// Sends one message and waits for its status.
    ///
    /// # Errors
    /// When the connection ends before the status came.
    pub fn try_export(&mut self, signal: Signal, message: &[u8]) -> Result<Status, hyper::Error> {
        let prefix = [&[0], &(message.len() as u32).to_be_bytes()[..]].concat();
        let request = Request::post(format!("http://tailkeep{}", method(signal)))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(Bytes::from([&prefix, message].concat())))
            .expect("a valid request");
        self.runtime.block_on(async {
            self.requests.ready().await?;
            let (head, body) = self.requests.send_request(request).await?.into_parts();
            let body = body.collect().await?;
            let trailers = body.trailers().cloned().unwrap_or_default();
            let body = body.to_bytes();
            Ok(status(&head.headers, &trailers, body.get(5..).unwrap_or_default()))
        })
    }

    pub fn export(&mut self, signal: Signal, message: &[u8]) -> Status {
        self.try_export(signal, message).expect("the connection lives")
    }
}

/// A call that fails at once has its status among the headers.
fn status(headers: &HeaderMap, trailers: &HeaderMap, body: &[u8]) -> Status {
    let field = |name: &str| trailers.get(name).or(headers.get(name)).and_then(|value| value.to_str().ok());
    Status {
        code: field("grpc-status").and_then(|code| code.parse().ok()).expect("a gRPC reply has a status"),
        message: field("grpc-message").unwrap_or_default().to_owned(),
        has_details: field("grpc-status-details-bin").is_some(),
        body: body.to_vec(),
    }
}
