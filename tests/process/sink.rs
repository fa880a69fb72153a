//! An OTLP endpoint that takes, refuses, dawdles or hangs, and remembers what it took.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use socket2::{Domain, Socket, Type};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use tailkeep::trace::Signal;
use tokio::sync::oneshot;

use super::grpc;
use super::traffic::{Placed, placed};

/// What the endpoint does with a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mood {
    Takes,
    /// Answers UNAVAILABLE, or 503 to OTLP/HTTP.
    IsUnavailable,
    /// Takes, after a while.
    Dawdles(Duration),
    /// Never answers.
    Hangs,
}

#[derive(Debug)]
struct State {
    mood: Mood,
    taken: Vec<(Signal, Bytes)>,
    attempts: usize,
}

/// A port on which nobody listens yet: connections are refused.
pub struct Reserved(Socket);

impl Reserved {
    pub fn new() -> Reserved {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a free port");
        Reserved(socket)
    }

    pub fn address(&self) -> SocketAddr {
        self.0.local_addr().ok().and_then(|address| address.as_socket()).expect("it is bound")
    }

    pub fn open(self) -> Sink {
        self.0.listen(128).expect("the port is ours");
        Sink::serve(self.0.into())
    }
}

/// The endpoint; gone when dropped.
pub struct Sink {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Sink {
    pub fn start() -> Sink {
        Reserved::new().open()
    }

    fn serve(listener: std::net::TcpListener) -> Sink {
        let address = listener.local_addr().expect("it is bound");
        let state = Arc::new(Mutex::new(State { mood: Mood::Takes, taken: Vec::new(), attempts: 0 }));
        let (stop, stopped) = oneshot::channel();
        let shared = state.clone();
        // A thread of its own, so that tests may block.
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    () = accept(listener, shared) => {}
                }
            });
        });
        Sink { address, state, stop: Some(stop), thread: Some(thread) }
    }

    /// As the `endpoint` of a sink.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn becomes(&self, mood: Mood) {
        self.state.lock().unwrap().mood = mood;
    }

    /// Requests that came, whatever became of them.
    pub fn attempts(&self) -> usize {
        self.state.lock().unwrap().attempts
    }

    /// Bodies of the requests that were taken, in order.
    pub fn taken(&self, signal: Signal) -> Vec<Bytes> {
        let state = self.state.lock().unwrap();
        state.taken.iter().filter(|(taken, _)| *taken == signal).map(|(_, body)| body.clone()).collect()
    }

    /// All spans that were taken, in order.
    pub fn spans(&self) -> Vec<Placed> {
        let decode = |body: Bytes| ExportTraceServiceRequest::decode(body).expect("tailkeep sends valid protobuf");
        self.taken(Signal::Traces).into_iter().flat_map(|body| placed(&decode(body))).collect()
    }

    /// The spans by trace id.
    pub fn traces(&self) -> BTreeMap<String, Vec<Placed>> {
        let mut traces: BTreeMap<String, Vec<Placed>> = BTreeMap::new();
        self.spans().into_iter().for_each(|span| traces.entry(span.trace_id()).or_default().push(span));
        traces
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: std::net::TcpListener, state: Arc<Mutex<State>>) {
    listener.set_nonblocking(true).expect("a plain socket");
    let listener = tokio::net::TcpListener::from_std(listener).expect("a runtime");
    while let Ok((stream, _)) = listener.accept().await {
        let state = state.clone();
        let service = service_fn(move |request| answer(request, state.clone()));
        tokio::spawn(async move {
            // The peer may go away at any moment.
            let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

type Reply = Response<BoxBody<Bytes, Infallible>>;

async fn answer(request: Request<Incoming>, state: Arc<Mutex<State>>) -> Result<Reply, hyper::Error> {
    let path = request.uri().path().to_owned();
    let of_http = |signal: &Signal| path == format!("/v1/{}", signal.word());
    let is_grpc = request.headers().get("content-type").is_some_and(|value| value == "application/grpc");
    let signal =
        Signal::ALL.into_iter().find(|signal| if is_grpc { grpc::method(*signal) == path } else { of_http(signal) });
    let body = request.into_body().collect().await?.to_bytes();
    let message = if is_grpc { body.slice(5..) } else { body };
    let mood = {
        let mut state = state.lock().unwrap();
        state.attempts += 1;
        state.mood
    };
    match mood {
        Mood::Hangs => std::future::pending().await,
        Mood::Dawdles(time) => tokio::time::sleep(time).await,
        Mood::Takes | Mood::IsUnavailable => {}
    }
    let takes = mood != Mood::IsUnavailable && signal.is_some();
    if let Some(signal) = signal.filter(|_| takes) {
        state.lock().unwrap().taken.push((signal, message));
    }
    Ok(if is_grpc { grpc_reply(takes) } else { http_reply(takes) })
}

fn http_reply(takes: bool) -> Reply {
    let mut reply = Response::new(Full::default().boxed());
    *reply.status_mut() = if takes { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    reply.headers_mut().insert("content-type", HeaderValue::from_static("application/x-protobuf"));
    reply
}

fn grpc_reply(takes: bool) -> Reply {
    let status = HeaderValue::from_static(if takes { "0" } else { "14" });
    let trailers = HeaderMap::from_iter([("grpc-status".parse().expect("a header's name"), status)]);
    let message = Bytes::from_static(if takes { &[0; 5] } else { &[] });
    let body = Full::new(message).with_trailers(async { Some(Ok(trailers)) });
    let mut reply = Response::new(body.boxed());
    reply.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    reply
}
