//! A stub OTLP/gRPC sink: takes what the collector under test keeps and checks it.

use crate::Failure;
use crate::load::{Fate, SPANS_PER_TRACE, TRACES_PER_BLOCK, trace_id};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full};
use hyper::{body::Body, body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use std::collections::HashMap;
use std::convert::Infallible;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use tokio::net::{TcpListener, TcpStream};

const WINDOW: u32 = 4 << 20;

/// Listens until the process ends.
pub struct Sink {
    pub port: u16,
    ledger: Arc<Mutex<Ledger>>,
}

/// What has arrived since the last check.
#[derive(Default)]
struct Ledger {
    traces: HashMap<[u8; 16], Arrived>,
    whole: u64,
    /// The first message that could not be read.
    unreadable: Option<String>,
}

#[derive(Default)]
struct Arrived {
    spans: usize,
    /// One bit for each position in the trace.
    positions: u8,
}

impl Arrived {
    fn is_whole(&self) -> bool {
        self.spans == SPANS_PER_TRACE && self.positions == u8::MAX
    }
}

impl Sink {
    pub async fn start() -> Result<Sink, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let sink = Sink { port: listener.local_addr()?.port(), ledger: Arc::default() };
        let ledger = sink.ledger.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, ledger.clone()));
            }
        });
        Ok(sink)
    }

    /// Traces of which all spans have arrived.
    pub fn whole(&self) -> u64 {
        self.ledger.lock().expect("no holder panics").whole
    }

    /// Forgets what has arrived, after holding it against what was sent: the wanted traces of
    /// `blocks`, each whole, and nothing else. Returns how many they are.
    pub fn check(&self, blocks: Range<u64>) -> Result<u64, Failure> {
        let Ledger { mut traces, unreadable, .. } = std::mem::take(&mut *self.ledger.lock().expect("no holder panics"));
        if let Some(problem) = unreadable {
            return Err(format!("the sink got something unreadable: {problem}").into());
        }
        let (mut wanted, mut missing, mut broken) = (0, 0, 0);
        for trace in wanted_of(blocks) {
            wanted += 1;
            match traces.remove(&trace_id(trace)) {
                None => missing += 1,
                Some(arrived) if !arrived.is_whole() => broken += 1,
                Some(_) => {}
            }
        }
        if missing + broken + traces.len() > 0 {
            let unwanted = traces.len();
            return Err(format!(
                "of {wanted} wanted traces {missing} did not come and {broken} were not whole; {unwanted} came unwanted"
            )
            .into());
        }
        Ok(wanted)
    }
}

/// Numbers of the traces of `blocks` that the policy keeps.
pub fn wanted_of(blocks: Range<u64>) -> impl Iterator<Item = u64> {
    let traces = blocks.start * TRACES_PER_BLOCK..blocks.end * TRACES_PER_BLOCK;
    traces.filter(|&trace| Fate::of(trace) != Fate::Fine)
}

async fn serve(stream: TcpStream, ledger: Arc<Mutex<Ledger>>) {
    let service = service_fn(move |request| answer(request, ledger.clone()));
    // A connection that breaks is the sender's to notice: it sends again.
    let _ = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(
    request: Request<Incoming>,
    ledger: Arc<Mutex<Ledger>>,
) -> Result<Response<impl Body<Data = Bytes, Error = Infallible>>, Infallible> {
    let traces = request.uri().path().contains("TraceService");
    if let Ok(body) = request.into_body().collect().await
        && traces
    {
        ledger.lock().expect("no holder panics").enter(&body.to_bytes());
    }
    let trailers = HeaderMap::from_iter([("grpc-status".parse().expect("a name"), HeaderValue::from_static("0"))]);
    let body = Full::new(Bytes::from_static(&[0; 5])).with_trailers(async { Some(Ok(trailers)) });
    let response = Response::builder().header(CONTENT_TYPE, "application/grpc").body(body);
    Ok(response.expect("static headers"))
}

impl Ledger {
    /// `frame` is one uncompressed gRPC frame.
    fn enter(&mut self, frame: &[u8]) {
        let Some((&[0, _, _, _, _], message)) = frame.split_first_chunk::<5>() else {
            self.unreadable.get_or_insert("not an uncompressed gRPC frame".into());
            return;
        };
        let request = match ExportTraceServiceRequest::decode(message) {
            Ok(request) => request,
            Err(error) => {
                self.unreadable.get_or_insert(error.to_string());
                return;
            }
        };
        let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
        for span in scopes.flat_map(|scope| &scope.spans) {
            let id = span.trace_id.as_slice().try_into().unwrap_or_default();
            let arrived = self.traces.entry(id).or_default();
            let was_whole = arrived.is_whole();
            arrived.spans += 1;
            arrived.positions |= 1 << (span.span_id.last().copied().unwrap_or_default() & 7);
            self.whole = self.whole + u64::from(arrived.is_whole()) - u64::from(was_whole);
        }
    }
}
