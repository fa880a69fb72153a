//! OTLP over gRPC or HTTP, from the bytes that came in: nothing is encoded again.
//!
//! [`Exporter`] sends to explicit URLs with explicit headers and is shared with other sinks that
//! speak OTLP; [`OtlpSink`] derives both from one endpoint.
//! Source: OpenTelemetry Protocol Specification 1.7, "OTLP/gRPC" and "OTLP/HTTP"; gRPC over HTTP2.

mod reply;

use super::headers::{CurrentHeaders, SinkHeaders};
use super::{Batch, SendError, SendResult, Sent, Sink};
use crate::{
    deliver::{Discard, HopMemory, log_throttle::LogThrottle},
    http_client::{Client, ClientError, ClientSettings, HttpVersion},
    otlp::HOP_HEADER,
    terminal::quote,
    trace::Signal,
};
use bytes::Bytes;
use flate2::write::GzEncoder;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Uri,
    header::{CONTENT_ENCODING, CONTENT_TYPE, TE},
};
use reply::{ExportReply, Secrets};
use std::{
    fmt,
    future::Future,
    io::{self, Write},
    pin::Pin,
    time::SystemTime,
};
use tokio::time::Instant;
use tracing::warn;

/// Compressing more than this would hold up the other tasks of a runtime thread.
const COMPRESS_INLINE: usize = 64 << 10;
/// Characters shown of a peer's text, and of its ids: they end in logs.
const REASON_MAX: usize = 300;
const REQUEST_ID_MAX: usize = 100;
/// The length of gRPC's prefix: a flag and a big-endian size.
const GRPC_PREFIX: usize = 5;

/// The two transports of OTLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Grpc,
    /// HTTP/1.1 with binary protobuf.
    Http,
}

/// How request bodies are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Compression {
    None,
    #[default]
    Gzip,
    Zstd,
}

impl Compression {
    fn header(self) -> Option<HeaderValue> {
        match self {
            Compression::None => None,
            Compression::Gzip => Some(HeaderValue::from_static("gzip")),
            Compression::Zstd => Some(HeaderValue::from_static("zstd")),
        }
    }

    /// Appends. The fastest levels: what matters here is CPU, and span names compress well anyway.
    fn append(self, body: &[u8], out: Vec<u8>) -> io::Result<Vec<u8>> {
        match self {
            Compression::None => Ok([&out, body].concat()),
            Compression::Gzip => {
                let mut encoder = GzEncoder::new(out, flate2::Compression::fast());
                encoder.write_all(body)?;
                encoder.finish()
            }
            Compression::Zstd => {
                let mut encoder = zstd::Encoder::new(out, 1)?;
                encoder.write_all(body)?;
                encoder.finish()
            }
        }
    }
}

/// What an [`Exporter`] needs, all explicit.
#[derive(Clone)]
pub struct ExporterSettings {
    pub protocol: Protocol,
    /// Verbatim, in the order of [`Signal::ALL`]; none for signals that are not taken.
    pub urls: [Option<Uri>; 3],
    /// Values are secret: they are never printed.
    pub headers: SinkHeaders,
    pub compression: Compression,
    /// Its `version` is replaced by what the protocol needs, its `tls` dropped if no URL is `https`.
    pub client: ClientSettings,
    /// Sent as [`HOP_HEADER`]; none where the peer is no collector.
    pub hops: Option<HopMemory>,
}

impl fmt::Debug for ExporterSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places: Vec<_> = self.urls.iter().flatten().map(place).collect();
        f.debug_struct("ExporterSettings")
            .field("protocol", &self.protocol)
            .field("to", &places)
            .finish_non_exhaustive()
    }
}

/// Sends batches to fixed URLs and says what to do with those that were not taken.
pub struct Exporter {
    protocol: Protocol,
    urls: [Option<Uri>; 3],
    headers: CurrentHeaders,
    compression: Compression,
    client: Client,
    hops: Option<HopMemory>,
    remarks: std::sync::Mutex<LogThrottle>,
}

impl Exporter {
    /// Connects to nothing. The error is for the configuration's author.
    pub fn new(settings: ExporterSettings) -> Result<Exporter, String> {
        let mut headers = HeaderMap::new();
        let (content_type, encoding_header) = match settings.protocol {
            Protocol::Grpc => ("application/grpc", HeaderName::from_static("grpc-encoding")),
            Protocol::Http => ("application/x-protobuf", CONTENT_ENCODING),
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        if let Some(encoding) = settings.compression.header() {
            headers.insert(encoding_header, encoding);
        }
        if settings.protocol == Protocol::Grpc {
            headers.insert(TE, HeaderValue::from_static("trailers"));
            let millis = settings.client.timeout.as_millis().min(99_999_999);
            let value = HeaderValue::from_str(&format!("{millis}m")).expect("digits are valid in a header");
            headers.insert(HeaderName::from_static("grpc-timeout"), value);
        }
        let version = match settings.protocol {
            Protocol::Grpc => HttpVersion::Http2,
            Protocol::Http => HttpVersion::Http1,
        };
        let https = settings.urls.iter().flatten().any(|url| url.scheme_str() == Some("https"));
        let tls = settings.client.tls.filter(|_| https);
        Ok(Exporter {
            protocol: settings.protocol,
            urls: settings.urls,
            headers: CurrentHeaders::new(settings.headers, headers)?,
            compression: settings.compression,
            client: Client::new(ClientSettings { version, tls, ..settings.client })?,
            hops: settings.hops,
            remarks: std::sync::Mutex::default(),
        })
    }

    /// Whether it has a URL for the signal.
    pub fn takes(&self, signal: Signal) -> bool {
        self.urls[signal as usize].is_some()
    }

    /// One attempt, by the protocol's rules on what may be sent again.
    pub async fn send(&self, batch: &Batch) -> SendResult {
        let Some(url) = &self.urls[batch.signal as usize] else {
            return Err(SendError::Refused { reason: format!("no URL for {}", batch.signal.word()) });
        };
        let body = self.body(batch.body.clone()).await.map_err(|e| {
            // Running out of memory or a thread pool that shuts down; the data is fine.
            SendError::Retry { after: None, reason: format!("cannot compress: {e}") }
        })?;
        let mut request = Request::post(url.clone()).body(body).expect("the parts were valid before");
        let headers = self.headers.get();
        request.headers_mut().extend(headers.clone());
        if let Some(hops) = &self.hops {
            let value = hops.value(batch.signal, std::time::Instant::now());
            // The ids that came in a header go out in one.
            let value = HeaderValue::from_str(&value).expect("ids are visible ASCII");
            request.headers_mut().insert(HOP_HEADER, value);
        }
        let (reply, request_id) = match self.client.ask(request).await {
            Ok(response) => {
                (ExportReply::read(self.protocol, &response, SystemTime::now()), request_id(&response.headers))
            }
            Err(error @ ClientError::Invalid(_)) => (ExportReply::Refused { reason: error.to_string() }, None),
            Err(error) => (ExportReply::Retry { after: None, reason: error.to_string() }, None),
        };
        self.conclude(reply, request_id, &Secrets { headers: &headers, url })
    }

    fn conclude(&self, reply: ExportReply, request_id: Option<String>, secrets: &Secrets<'_>) -> SendResult {
        let clean = |text: String, most| quote(&secrets.hide(text), most);
        let request_id = request_id.map(|id| clean(id, REQUEST_ID_MAX));
        let id = request_id.as_ref().map(|id| format!(" (request id {id})")).unwrap_or_default();
        let clean = |reason: String| format!("{}: {}{id}", place(secrets.url), clean(reason, REASON_MAX));
        match reply {
            ExportReply::Taken { rejected: 0, message } => {
                self.note_remark(message, secrets);
                Ok(Sent { lost: Vec::new(), request_id })
            }
            ExportReply::Taken { rejected, message } => {
                let said = if message.is_empty() { "rejected without a reason".to_owned() } else { message };
                let sent = Sent::without(rejected, Discard::Rejected, clean(said));
                Ok(Sent { request_id, ..sent })
            }
            ExportReply::Retry { after, reason } => Err(SendError::Retry { after, reason: clean(reason) }),
            ExportReply::TooLarge { reason } => Err(SendError::Split { reason: clean(reason) }),
            ExportReply::Denied { after, reason } => Err(SendError::Denied { after, reason: clean(reason) }),
            ExportReply::Refused { reason } => Err(SendError::Refused { reason: clean(reason) }),
        }
    }

    /// A message without rejected items is a warning to the sender.
    fn note_remark(&self, message: String, secrets: &Secrets<'_>) {
        if message.is_empty() {
            return;
        }
        let mut throttle = self.remarks.lock().expect("no code panics under this lock");
        if let Some(batches) = throttle.say(1, Instant::now()) {
            let message = quote(&secrets.hide(message), REASON_MAX);
            warn!(to = place(secrets.url), batches, message, "the peer took a batch with a remark");
        }
    }

    async fn body(&self, body: Bytes) -> io::Result<Bytes> {
        if self.protocol == Protocol::Http && self.compression == Compression::None {
            return Ok(body);
        }
        let (protocol, compression) = (self.protocol, self.compression);
        if body.len() <= COMPRESS_INLINE {
            return pack(protocol, compression, &body);
        }
        tokio::task::spawn_blocking(move || pack(protocol, compression, &body)).await.map_err(io::Error::other)?
    }
}

/// What a support ticket about a request needs. Log Service's header, Alibaba's gateways' and a common one.
fn request_id(headers: &HeaderMap) -> Option<String> {
    let names = ["x-log-requestid", "x-acs-request-id", "eagleeye-traceid", "x-request-id"];
    names.iter().find_map(|name| headers.get(*name))?.to_str().ok().map(str::to_owned)
}

/// Compressed and, for gRPC, with its prefix.
fn pack(protocol: Protocol, compression: Compression, body: &[u8]) -> io::Result<Bytes> {
    let prefix = match protocol {
        Protocol::Grpc => vec![u8::from(compression != Compression::None); GRPC_PREFIX],
        Protocol::Http => Vec::new(),
    };
    let mut packed = compression.append(body, prefix)?;
    if protocol == Protocol::Grpc {
        let len = u32::try_from(packed.len() - GRPC_PREFIX).map_err(io::Error::other)?;
        packed[1..GRPC_PREFIX].copy_from_slice(&len.to_be_bytes());
    }
    Ok(packed.into())
}

/// `scheme://host:port`: all of a URL that may be logged, for a path or query may be a token.
pub fn place(url: &Uri) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}", url.scheme_str().unwrap_or("http"), url.host().unwrap_or_default())
}

/// What the `otlp` sink's section of the configuration says.
#[derive(Clone)]
pub struct OtlpSettings {
    pub protocol: Protocol,
    /// `http://` or `https://`, host and port. HTTP: a path is kept and `/v1/traces` (…) appended.
    pub endpoint: String,
    /// HTTP only, verbatim, in place of the endpoint; in the order of [`Signal::ALL`].
    pub urls: [Option<String>; 3],
    /// Signals to take, in the order of [`Signal::ALL`].
    pub signals: [bool; 3],
    pub headers: SinkHeaders,
    pub compression: Compression,
    pub client: ClientSettings,
    /// Where the data has been, sent as [`HOP_HEADER`].
    pub hops: HopMemory,
}

/// An OTLP endpoint as a sink.
pub struct OtlpSink(Exporter);

impl OtlpSink {
    /// The error is for the configuration's author.
    pub fn new(settings: OtlpSettings) -> Result<OtlpSink, String> {
        let mut urls = match settings.protocol {
            Protocol::Grpc => grpc_urls(&settings.endpoint)?.map(Some),
            Protocol::Http => http_urls(&settings.endpoint, &settings.urls)?.map(Some),
        };
        urls.iter_mut().zip(settings.signals).for_each(|(url, takes)| *url = url.take().filter(|_| takes));
        let OtlpSettings { protocol, headers, compression, client, hops, .. } = settings;
        let hops = Some(hops);
        let settings = ExporterSettings { protocol, urls, headers, compression, client, hops };
        Exporter::new(settings).map(OtlpSink)
    }
}

impl Sink for OtlpSink {
    fn takes(&self, signal: Signal) -> bool {
        self.0.takes(signal)
    }

    fn send<'a>(&'a mut self, batch: &'a Batch) -> Pin<Box<dyn Future<Output = SendResult> + Send + 'a>> {
        // The exporter is shared by reference; a sink is not, which makes this future Send either way.
        Box::pin(self.0.send(batch))
    }
}

/// A URL of a sink: absolute, and without a user or password, which would be logged and is not sent.
pub fn parse_url(text: &str) -> Result<Uri, String> {
    let shown = text.split(['?', '@']).next().unwrap_or_default();
    let url: Uri = text.parse().map_err(|e| format!("{shown:?} is not a URL: {e}"))?;
    let scheme_fits = matches!(url.scheme_str(), Some("http" | "https"));
    if !scheme_fits || url.host().is_none_or(str::is_empty) {
        return Err(format!("{shown:?} is not a complete URL; write http://HOST:PORT or https://HOST:PORT"));
    }
    if url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("a URL must not hold a user or password; write them under `headers`".to_owned());
    }
    Ok(url)
}

/// One URL per signal below a gRPC endpoint.
pub fn grpc_urls(endpoint: &str) -> Result<[Uri; 3], String> {
    let url = parse_url(endpoint)?;
    if url.query().is_some() || !matches!(url.path(), "" | "/") {
        return Err(format!("a gRPC endpoint has no path; write {}", place(&url)));
    }
    Ok(Signal::ALL.map(|signal| with_path(&url, export_method(signal))))
}

fn export_method(signal: Signal) -> &'static str {
    match signal {
        Signal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        Signal::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    }
}

/// One URL per signal: the given one, or the endpoint's with `/v1/SIGNAL` appended.
pub fn http_urls(endpoint: &str, given: &[Option<String>; 3]) -> Result<[Uri; 3], String> {
    let [traces, metrics, logs] = Signal::ALL.map(|signal| match &given[signal as usize] {
        Some(url) => parse_url(url),
        None => http_url(endpoint, signal.word()),
    });
    Ok([traces?, metrics?, logs?])
}

fn http_url(endpoint: &str, signal: &str) -> Result<Uri, String> {
    let url = parse_url(endpoint)?;
    if url.query().is_some() {
        return Err(format!("an endpoint has no query; write the whole URL of {signal} instead"));
    }
    if let Some(whole) = Signal::ALL.into_iter().find(|whole| url.path().ends_with(&format!("/v1/{}", whole.word()))) {
        let whole = whole.word();
        return Err(format!(
            "this is the whole URL of {whole}: leave out `/v1/{whole}`, or write it under `urls: {whole}:`"
        ));
    }
    Ok(with_path(&url, &format!("{}/v1/{signal}", url.path().trim_end_matches('/'))))
}

fn with_path(url: &Uri, path: &str) -> Uri {
    let mut parts = url.clone().into_parts();
    parts.path_and_query = Some(path.parse().expect("a path from valid parts is valid"));
    Uri::from_parts(parts).expect("scheme and authority are there")
}

#[cfg(test)]
mod tests;
