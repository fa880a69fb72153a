//! Sends the load over OTLP/gRPC: as fast as it is taken, or at a steady rate.

use crate::Failure;
use crate::load::{self, Load, SPANS_PER_REQUEST};
use bytes::Bytes;
use http::{Request, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

const CONNECTIONS: usize = 4;
/// Requests in flight on each connection, flat out.
const IN_FLIGHT: usize = 2;
/// Requests in flight on all connections at a steady rate; when they are used up, the rate is missed.
const IN_FLIGHT_PACED: usize = 64;
/// A refused request is sent again after this long.
const RETRY: Duration = Duration::from_millis(20);

/// Open connections to the collector under test. A clone shares them.
#[derive(Clone)]
pub struct Sender {
    connections: Vec<SendRequest<Full<Bytes>>>,
    load: Arc<Load>,
    refused: Arc<AtomicU64>,
}

/// How sending went.
pub struct Sent {
    pub seconds: f64,
    /// Requests that were refused and sent again.
    pub refused: u64,
}

impl Sender {
    pub async fn connect(port: u16, load: Arc<Load>) -> Result<Sender, Failure> {
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            let stream = TcpStream::connect(("127.0.0.1", port)).await?;
            stream.set_nodelay(true)?;
            let (requests, connection) =
                http2::Builder::new(TokioExecutor::new()).handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            connections.push(requests);
        }
        Ok(Sender { connections, load, refused: Arc::default() })
    }

    /// A closed loop: the next request leaves when one is answered.
    pub async fn flat_out(&self, blocks: Range<u64>) -> Result<Sent, Failure> {
        let start = Instant::now();
        let queue = Arc::new(Mutex::new(load::order(blocks)));
        let mut workers = JoinSet::new();
        for connection in (0..CONNECTIONS).cycle().take(CONNECTIONS * IN_FLIGHT) {
            let (sender, queue) = (self.clone(), queue.clone());
            workers.spawn(async move {
                loop {
                    let next = queue.lock().expect("no worker panics with the queue").next();
                    let Some((block, service)) = next else { return Ok(()) };
                    sender.send(connection, sender.load.request(block, service)).await?;
                }
            });
        }
        self.finish(workers, start).await
    }

    /// An open loop at `rate` spans per second.
    pub async fn paced(&self, blocks: Range<u64>, rate: u64) -> Result<Sent, Failure> {
        let start = Instant::now();
        let mut ticks = interval(Duration::from_secs_f64(SPANS_PER_REQUEST as f64 / rate as f64));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let slots = Arc::new(Semaphore::new(IN_FLIGHT_PACED));
        let mut requests = JoinSet::new();
        for (number, (block, service)) in load::order(blocks).enumerate() {
            ticks.tick().await;
            let slot = slots.clone().acquire_owned().await?;
            let (sender, frame) = (self.clone(), self.load.request(block, service));
            requests.spawn(async move {
                let sent = sender.send(number % CONNECTIONS, frame).await;
                drop(slot);
                sent
            });
        }
        self.finish(requests, start).await
    }

    async fn finish(&self, mut requests: JoinSet<Result<(), Failure>>, start: Instant) -> Result<Sent, Failure> {
        while let Some(done) = requests.join_next().await {
            done??;
        }
        Ok(Sent { seconds: start.elapsed().as_secs_f64(), refused: self.refused.swap(0, Relaxed) })
    }

    async fn send(&self, connection: usize, frame: Bytes) -> Result<(), Failure> {
        const UNAVAILABLE: &str = "14";
        loop {
            match self.attempt(connection, frame.clone()).await?.as_str() {
                "0" => return Ok(()),
                UNAVAILABLE => {
                    self.refused.fetch_add(1, Relaxed);
                    sleep(RETRY).await;
                }
                other => return Err(format!("the collector answered with gRPC status {other}").into()),
            }
        }
    }

    /// The gRPC status of the answer.
    async fn attempt(&self, connection: usize, frame: Bytes) -> Result<String, Failure> {
        let request = Request::post("http://127.0.0.1/opentelemetry.proto.collector.trace.v1.TraceService/Export")
            .header(CONTENT_TYPE, "application/grpc")
            .header("te", "trailers")
            .body(Full::new(frame))?;
        let mut connection = self.connections[connection].clone();
        connection.ready().await?;
        let (head, body) = connection.send_request(request).await?.into_parts();
        let body = body.collect().await?;
        let status = body.trailers().and_then(|trailers| trailers.get("grpc-status"));
        // A refusal without a body carries its status in the headers.
        let status = status.or(head.headers.get("grpc-status")).ok_or("an answer without a gRPC status")?;
        Ok(status.to_str()?.to_owned())
    }
}
