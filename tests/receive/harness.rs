//! A receiver on loopback that remembers what it took, and clients that speak to it.

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tailkeep::receive::{
    Accepted, HopHeaders, Intake, MalformedRequest, Phase, Receiver, ReceiverSettings, Stats, StatsReader,
};
use tailkeep::trace::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

pub const TRACES: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
pub const METRICS: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
pub const LOGS: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

/// What the servers' own sinks would send as [`tailkeep::otlp::HOP_HEADER`].
pub const OWN_HOP: &str = "0e984725-c51c-4bf4-9960-e1c80e27aba0";

/// What the intake saw of one request.
#[derive(Clone, Debug, PartialEq)]
pub struct Taken {
    pub signal: Signal,
    pub body: Vec<u8>,
    pub hops: Vec<String>,
}

type Answer = Box<dyn Fn(&[u8]) -> Result<Accepted, MalformedRequest> + Send + Sync>;

struct Recorder {
    taken: Arc<Mutex<Vec<Taken>>>,
    answer: Answer,
}

impl Intake for Recorder {
    fn accept(&self, signal: Signal, body: &[u8], hops: HopHeaders<'_>) -> Result<Accepted, MalformedRequest> {
        let answer = (self.answer)(body)?;
        let hops = hops.ids().map(str::to_owned).collect();
        self.taken.lock().unwrap().push(Taken { signal, body: body.to_vec(), hops });
        Ok(answer)
    }
}

/// A receiver that serves in the background until it is dropped.
pub struct Server {
    pub grpc: SocketAddr,
    pub http: SocketAddr,
    pub phase: watch::Sender<Phase>,
    pub task: JoinHandle<()>,
    stats: StatsReader,
    taken: Arc<Mutex<Vec<Taken>>>,
}

/// Ports of the system's choice, and bounds that a test can reach.
pub fn small() -> ReceiverSettings {
    let any = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    ReceiverSettings {
        grpc: any,
        http: any,
        instance: "me".to_owned(),
        hop: OWN_HOP.to_owned(),
        max_request: 1 << 20,
        in_flight: 2 << 20,
        retry_after: Duration::from_millis(1500),
        ..ReceiverSettings::default()
    }
}

impl Server {
    pub async fn start(settings: ReceiverSettings) -> Server {
        Server::answering(settings, |_| Ok(Accepted::default())).await
    }

    /// Starts a receiver whose intake answers so.
    pub async fn answering(
        settings: ReceiverSettings,
        answer: impl Fn(&[u8]) -> Result<Accepted, MalformedRequest> + Send + Sync + 'static,
    ) -> Server {
        let receiver = Receiver::bind(settings).await.unwrap();
        let addrs = receiver.local_addrs();
        let stats = receiver.stats();
        let taken = Arc::<Mutex<Vec<Taken>>>::default();
        let (phase, watch) = watch::channel(Phase::Serving);
        let intake = Recorder { taken: taken.clone(), answer: Box::new(answer) };
        let task = tokio::spawn(receiver.serve(Arc::new(intake), watch));
        Server { grpc: addrs.grpc.unwrap(), http: addrs.http.unwrap(), phase, task, stats, taken }
    }

    /// What was taken since the last call.
    pub fn taken(&self) -> Vec<Taken> {
        std::mem::take(&mut self.taken.lock().unwrap())
    }

    pub fn stats(&self) -> Stats {
        self.stats.read()
    }

    /// Waits until the receiver's own account says so.
    pub async fn until(&self, what: &str, is_so: impl Fn(&Stats) -> bool) {
        for _ in 0..2000 {
            if is_so(&self.stats()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("{what}: {:?}", self.stats());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A request body whose pieces a test sends one by one.
pub struct Pieces(mpsc::UnboundedReceiver<Bytes>);

impl Pieces {
    pub fn new() -> (mpsc::UnboundedSender<Bytes>, Pieces) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (sender, Pieces(receiver))
    }

    pub fn of<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Pieces {
        let (sender, body) = Pieces::new();
        for piece in pieces {
            sender.send(Bytes::copy_from_slice(piece)).unwrap();
        }
        body
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}

/// An HTTP/2 connection.
pub async fn connect_h2<B>(address: SocketAddr) -> http2::SendRequest<B>
where
    B: Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
{
    open_h2(address).await.0
}

/// An HTTP/2 connection, and the task that ends when it does.
pub async fn open_h2<B>(address: SocketAddr) -> (http2::SendRequest<B>, JoinHandle<hyper::Result<()>>)
where
    B: Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
{
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = http2::Builder::new(TokioExecutor::new()).handshake(TokioIo::new(stream)).await.unwrap();
    (sender, tokio::spawn(connection))
}

/// An HTTP/1.1 connection.
pub async fn connect_h1<B>(address: SocketAddr) -> http1::SendRequest<B>
where
    B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// A whole answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: HeaderMap,
}

impl Reply {
    pub async fn read(response: Response<hyper::body::Incoming>) -> Reply {
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap();
        let trailers = body.trailers().cloned().unwrap_or_default();
        Reply { status: head.status.as_u16(), headers: head.headers, body: body.to_bytes().to_vec(), trailers }
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The gRPC status, from the trailers or, in an answer of headers alone, from them.
    pub fn grpc(&self) -> tonic::Status {
        let from = if self.trailers.is_empty() { &self.headers } else { &self.trailers };
        tonic::Status::from_header_map(from).expect("a gRPC status")
    }
}

/// A gRPC message with its prefix.
pub fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    [&[flag][..], &(message.len() as u32).to_be_bytes(), message].concat()
}

pub fn grpc_request<B>(path: &str, body: B) -> Request<B> {
    let uri = format!("http://tailkeep{path}");
    Request::post(uri).header("content-type", "application/grpc").header("te", "trailers").body(body).unwrap()
}

/// One gRPC call on a connection of its own.
pub async fn call(address: SocketAddr, request: Request<Pieces>) -> Reply {
    let mut connection = connect_h2(address).await;
    Reply::read(connection.send_request(request).await.unwrap()).await
}

pub fn http_request(path: &str, content_type: &str, body: &[u8]) -> Request<Full<Bytes>> {
    let request = Request::post(path).header("host", "tailkeep").header("content-type", content_type);
    request.body(Full::new(Bytes::copy_from_slice(body))).unwrap()
}

/// One HTTP/1.1 request on a connection of its own.
pub async fn post(address: SocketAddr, request: Request<Full<Bytes>>) -> Reply {
    let mut connection = connect_h1(address).await;
    Reply::read(connection.send_request(request).await.unwrap()).await
}

/// Sends raw bytes and reads to the end of the connection.
pub async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // A reset after the answer is an end as well.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// Lets every task that is ready run until it waits; all run on this thread.
pub async fn others_run() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

/// A peer that writes the frames of HTTP/2 by itself.
pub struct RawH2(pub TcpStream);

pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
const END_HEADERS: u8 = 4;

/// A frame as it stands on the wire.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The HEADERS of a call, with so many empty fields that take a byte each on the wire and 37 in a list.
pub fn call_headers(stream: u32, fillers: usize) -> Vec<u8> {
    let literal = |name: &str, value: &str| {
        [&[0, name.len() as u8][..], name.as_bytes(), &[value.len() as u8], value.as_bytes()].concat()
    };
    let mut block = vec![0x83, 0x86];
    for (name, value) in [(":path", TRACES), (":authority", "x"), ("content-type", "application/grpc")] {
        block.extend(literal(name, value));
    }
    // Number 22 of the static table: `allow`.
    block.resize(block.len() + fillers, 0x80 | 22);
    frame(HEADERS, END_HEADERS, stream, &block)
}

impl RawH2 {
    /// Connects, and sends the preface and empty settings.
    pub async fn connect(address: SocketAddr) -> RawH2 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
        RawH2(stream)
    }

    /// Reads up to a frame of this kind: its stream and payload. None at the end of the connection.
    pub async fn next(&mut self, wanted: u8) -> Option<(u32, Vec<u8>)> {
        loop {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await.ok()?;
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            self.0.read_exact(&mut payload).await.ok()?;
            if head[3] == wanted {
                return Some((u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload));
            }
        }
    }
}

pub fn gzip(body: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    writer.write_all(body).unwrap();
    writer.finish().unwrap()
}

pub fn deflate(body: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut writer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    writer.write_all(body).unwrap();
    writer.finish().unwrap()
}

pub fn zstd(body: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(body, 1).unwrap()
}
