//! Sends the shop's spans over OTLP/gRPC, as seven applications with their SDKs would: each service
//! collects its spans when they end and sends them once a second.

use super::shop::{Service, Shop, Weather};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// New requests are drawn this often, and another fifth of the services sends.
const TICK: Duration = Duration::from_millis(200);
/// Ticks between two sendings of one service.
const TURNS: usize = 5;
/// A listener that takes longer to answer has refused.
const PATIENCE: Duration = Duration::from_secs(3);

/// Sends the shop's traffic to an OTLP/gRPC listener until `stop`: about 200 to 430 traces a second.
/// Equal seeds give equal traces, ids included, so take another for every run. Spans that the
/// listener refuses are lost, and said to be.
pub async fn traffic(listener: SocketAddr, seed: u64, stop: impl Future<Output = ()>) {
    let endpoint = Endpoint::from_shared(format!("http://{listener}")).expect("an address makes a valid URL");
    let endpoint = endpoint.connect_timeout(PATIENCE).timeout(PATIENCE);
    let mut applications = Applications {
        shop: Shop::new(seed),
        owed: 0.0,
        running: HashMap::new(),
        client: Grpc::new(endpoint.connect_lazy()),
    };
    let start = Instant::now();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    tokio::pin!(stop);
    for turn in 0.. {
        tokio::select! {
            () = &mut stop => break,
            _ = ticks.tick() => {}
        }
        applications.work(Weather::at(start.elapsed()), unix_nanos());
        for service in Service::ALL.into_iter().skip(turn % TURNS).step_by(TURNS) {
            applications.send(service, unix_nanos()).await;
        }
    }
    for service in Service::ALL {
        applications.send(service, unix_nanos()).await;
    }
}

/// All services of the shop and what they have not sent yet.
struct Applications {
    shop: Shop,
    /// Requests due, the fraction carried from tick to tick.
    owed: f64,
    /// Spans of each service that have not ended, or have and were not sent.
    running: HashMap<Service, Vec<Span>>,
    client: Grpc<Channel>,
}

impl Applications {
    /// Begins the requests of one tick, spread over it.
    fn work(&mut self, weather: Weather, now: u64) {
        self.owed += weather.traces_per_second * TICK.as_secs_f64();
        let requests = self.owed as u64;
        self.owed -= requests as f64;
        for number in 0..requests {
            let start = now + TICK.as_nanos() as u64 * number / requests;
            for (service, span) in self.shop.request(start, weather) {
                self.running.entry(service).or_default().push(span);
            }
        }
    }

    /// Sends the spans of `service` that have ended.
    async fn send(&mut self, service: Service, now: u64) {
        let running = self.running.entry(service).or_default();
        let ended: Vec<Span> = running.extract_if(.., |span| span.end_time_unix_nano <= now).collect();
        if ended.is_empty() {
            return;
        }
        let spans = ended.len();
        if let Err(status) = self.export(service, ended).await {
            let reason = status.message();
            tracing::warn!(service = service.name(), spans, code = ?status.code(), reason, "demo spans were not taken");
        }
    }

    async fn export(&mut self, service: Service, spans: Vec<Span>) -> Result<(), Status> {
        let scope = InstrumentationScope {
            name: format!("shop/{}", service.name()),
            version: "1.4.2".into(),
            ..Default::default()
        };
        let request = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(service.resource()),
                scope_spans: vec![ScopeSpans { scope: Some(scope), spans, ..Default::default() }],
                ..Default::default()
            }],
        };
        self.client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let path = http::uri::PathAndQuery::from_static("/opentelemetry.proto.collector.trace.v1.TraceService/Export");
        self.client.unary(Request::new(request), path, TraceCodec).await.map(drop)
    }
}

fn unix_nanos() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// Protobuf both ways; saves a crate of generated clients for one call.
struct TraceCodec;

impl Codec for TraceCodec {
    type Encode = ExportTraceServiceRequest;
    type Decode = ExportTraceServiceResponse;
    type Encoder = TraceCodec;
    type Decoder = TraceCodec;

    fn encoder(&mut self) -> TraceCodec {
        TraceCodec
    }

    fn decoder(&mut self) -> TraceCodec {
        TraceCodec
    }
}

impl Encoder for TraceCodec {
    type Item = ExportTraceServiceRequest;
    type Error = Status;

    fn encode(&mut self, request: ExportTraceServiceRequest, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        request.encode(buffer).map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for TraceCodec {
    type Item = ExportTraceServiceResponse;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<ExportTraceServiceResponse>, Status> {
        ExportTraceServiceResponse::decode(buffer).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}
