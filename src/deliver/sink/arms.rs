//! ARMS and Managed Service for OpenTelemetry: OTLP with tokens, to both generations of endpoints.
//!
//! Applications' attributes are never rewritten; a few that ARMS reads are added where they are
//! missing. Spans keep their bytes. Metrics that ARMS would drop silently are converted or counted.
//! Source: help pages "OpenTelemetry integration guide", "Managed Service for Prometheus:
//! OpenTelemetry metrics endpoint".

mod attributes;
mod metrics;

use super::{
    Batch, SendError, SendResult, Sent, Sink,
    headers::SinkHeaders,
    otlp::{Compression, Exporter, ExporterSettings, Protocol, grpc_urls, place},
};
use crate::{deliver::Discard, http_client::ClientSettings, identity::Secret, trace::Signal};
use attributes::MissingAttributes;
use http::{HeaderName, HeaderValue, Uri};
use metrics::TooLarge;
use std::{fmt, future::Future, net::IpAddr, pin::Pin};

/// Ports on which both generations speak gRPC.
const GRPC_PORTS: [u16; 2] = [8090, 10010];

/// `arms` of a sink. It takes traces and metrics; ARMS takes no logs.
#[derive(Clone)]
pub struct ArmsSettings {
    /// Scheme, host and port as the console shows them. May be left out if both URLs are given.
    /// Not shown either, as a whole URL with a token may have been written here.
    pub endpoint: Option<Secret>,
    /// Default: gRPC on ports 8090 and 10010, HTTP with protobuf on others.
    pub protocol: Option<Protocol>,
    pub access: Access,
    /// The whole URL of traces, over HTTP, verbatim. It may hold a token.
    pub traces_url: Option<Secret>,
    /// The whole URL of metrics, over HTTP, verbatim.
    pub metrics_url: Option<Secret>,
    /// Signals to take, in the order of [`Signal::ALL`]; the third, logs, is never taken.
    pub signals: [bool; 3],
    /// Sent with every request. Values are secret.
    pub headers: SinkHeaders,
    pub compression: Compression,
    /// `host.name` for resources that have none and no `k8s.node.name` either.
    pub host_name: Option<String>,
    pub client: ClientSettings,
}

/// How requests prove whose they are.
#[derive(Clone, Debug, Default)]
pub enum Access {
    /// By `headers` or by the URLs alone.
    #[default]
    Free,
    /// The classic endpoint: `Authentication` metadata over gRPC, part of the path over HTTP.
    Token(Secret),
    /// The endpoint of CloudMonitor 2.0.
    Licence { key: Secret, project: String, workspace: String },
}

impl fmt::Debug for ArmsSettings {
    /// Headers and URLs may be tokens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArmsSettings").field("signals", &self.signals).finish_non_exhaustive()
    }
}

impl Default for ArmsSettings {
    fn default() -> Self {
        ArmsSettings {
            endpoint: None,
            protocol: None,
            access: Access::Free,
            traces_url: None,
            metrics_url: None,
            signals: [true, true, false],
            headers: SinkHeaders::default(),
            compression: Compression::default(),
            host_name: None,
            client: ClientSettings::default(),
        }
    }
}

/// An ARMS endpoint as a sink.
pub struct Arms {
    exporter: Exporter,
    missing: MissingAttributes,
    place: String,
    protocol: Protocol,
}

impl Arms {
    /// Connects to nothing. The error says which setting to change and holds no secret.
    pub fn new(settings: ArmsSettings) -> Result<Arms, String> {
        let protocol = settings.protocol();
        let urls = settings.urls(protocol)?;
        let first = urls.iter().flatten().next().ok_or("no signal is taken: allow traces or metrics")?.clone();
        urls.iter().flatten().for_each(|url| warn_of_clear_text(&settings, url));
        let missing = MissingAttributes::new(settings.host_name.clone(), settings.workspace());
        let exporter = Exporter::new(ExporterSettings {
            protocol,
            urls,
            headers: settings.all_headers(protocol)?,
            compression: settings.compression,
            client: settings.client,
            hops: None,
        })?;
        Ok(Arms { exporter, missing, place: place(&first), protocol })
    }

    /// Scheme, host and port; a path may be a token.
    pub fn place(&self) -> &str {
        &self.place
    }

    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    async fn deliver(&mut self, batch: &Batch) -> SendResult {
        let (body, unwritable) = match batch.signal {
            Signal::Metrics => metrics::convert(&batch.body).map_err(|TooLarge| {
                let reason = "exponential histograms are too large with explicit buckets".to_owned();
                SendError::Split { reason }
            })?,
            _ => (batch.body.clone(), 0),
        };
        let reason = "ARMS does not take delta histograms; make them cumulative";
        let mut sent = Sent::without(unwritable, Discard::Rejected, reason);
        if unwritable == 0 || !body.is_empty() {
            let body = self.missing.add_to(batch.signal, body);
            let taken = self.exporter.send(&Batch { body, ..batch.clone() }).await?;
            sent.lost.extend(taken.lost);
            sent.request_id = taken.request_id;
        }
        Ok(sent)
    }
}

impl Sink for Arms {
    fn takes(&self, signal: Signal) -> bool {
        self.exporter.takes(signal)
    }

    fn send<'a>(&'a mut self, batch: &'a Batch) -> Pin<Box<dyn Future<Output = SendResult> + Send + 'a>> {
        Box::pin(self.deliver(batch))
    }
}

impl ArmsSettings {
    fn protocol(&self) -> Protocol {
        let port = self.endpoint.as_ref().and_then(|url| url.expose().parse::<Uri>().ok()?.port_u16());
        match self.protocol {
            Some(protocol) => protocol,
            None if port.is_some_and(|port| GRPC_PORTS.contains(&port)) => Protocol::Grpc,
            None => Protocol::Http,
        }
    }

    fn workspace(&self) -> Option<String> {
        match &self.access {
            Access::Licence { workspace, .. } => Some(workspace.clone()),
            Access::Free | Access::Token(_) => None,
        }
    }

    fn urls(&self, protocol: Protocol) -> Result<[Option<Uri>; 3], String> {
        let [traces, metrics, _] = self.signals;
        let given = [&self.traces_url, &self.metrics_url];
        if protocol == Protocol::Grpc {
            if given.iter().any(|url| url.is_some()) {
                return Err("`urls` are for HTTP; write `protocol: http`, or an `endpoint` alone".to_owned());
            }
            let endpoint = self.endpoint.as_ref().ok_or("endpoint: write http://HOST:8090")?;
            parse("endpoint", endpoint)?;
            let [traces_url, metrics_url, _] =
                grpc_urls(endpoint.expose()).map_err(|error| format!("endpoint: {error}"))?;
            return Ok([traces.then_some(traces_url), metrics.then_some(metrics_url), None]);
        }
        let needs_endpoint = (traces && given[0].is_none()) || (metrics && given[1].is_none());
        if matches!(self.access, Access::Token(_)) && (traces || metrics) && !needs_endpoint {
            let help = "write `adapt_TOKEN` into them, or an `endpoint` in their place";
            return Err(format!("`token` would go nowhere, as `urls` are sent to as they are; {help}"));
        }
        let url = |signal: Signal, given: &Option<Secret>| match given {
            Some(url) => parse(&format!("urls.{}", signal.word()), url),
            None => self.http_url(signal),
        };
        let traces = traces.then(|| url(Signal::Traces, &self.traces_url)).transpose()?;
        let metrics = metrics.then(|| url(Signal::Metrics, &self.metrics_url)).transpose()?;
        Ok([traces, metrics, None])
    }

    fn http_url(&self, signal: Signal) -> Result<Uri, String> {
        let word = signal.word();
        let endpoint = self.endpoint.as_ref().ok_or_else(|| format!("write `endpoint` or `urls.{word}`"))?;
        let base = Secret::new(endpoint.expose().trim_end_matches('/'));
        let url = parse("endpoint", &base)?;
        if url.path().contains("/adapt_") || ["traces", "metrics"].iter().any(|end| url.path().ends_with(end)) {
            let help = "write it under `urls:` as `traces` or `metrics`, or leave out what follows the host";
            return Err(format!("endpoint: this is the whole URL of one signal; {help}"));
        }
        let has_path = !matches!(url.path(), "" | "/");
        let base = base.expose();
        let url = match &self.access {
            Access::Token(token) => format!("{base}/adapt_{}/api/otlp/{word}", token.expose().trim()),
            Access::Licence { .. } if !has_path => format!("{base}/opentelemetry/v1/{word}"),
            Access::Licence { .. } | Access::Free => format!("{base}/v1/{word}"),
        };
        parse("token", &Secret::new(url))
    }

    fn all_headers(&self, protocol: Protocol) -> Result<SinkHeaders, String> {
        let mut headers = self.headers.clone();
        let mut put = |name: &'static str, key: &str, value: &str| {
            if value.is_empty() {
                return Err(format!("{key} is empty"));
            }
            let value = HeaderValue::from_str(value).map_err(|_| format!("{key} has characters that no header has"))?;
            headers.fixed.insert(HeaderName::from_static(name), value);
            Ok(())
        };
        match &self.access {
            Access::Free => (),
            Access::Token(_) if protocol == Protocol::Http => (), // it is in the path
            // Not `Authorization`, and no `Bearer`.
            Access::Token(token) => put("authentication", "token", token.expose().trim())?,
            Access::Licence { key, project, workspace } => {
                put("x-arms-license-key", "license.key", key.expose().trim())?;
                put("x-arms-project", "license.project", project)?;
                put("x-cms-workspace", "license.workspace", workspace)?;
            }
        }
        Ok(headers)
    }
}

/// The error names the setting and never quotes it: a token may be anywhere in a URL.
fn parse(setting: &str, url: &Secret) -> Result<Uri, String> {
    let url: Uri = url.expose().parse().map_err(|_| format!("{setting}: this gives no URL; write http://HOST/PATH"))?;
    match url.scheme_str() {
        Some("http" | "https") if url.host().is_some_and(|host| !host.is_empty()) => Ok(url),
        _ => Err(format!("{setting}: this gives no complete URL; write http://HOST/PATH")),
    }
}

/// The classic endpoints speak plain HTTP. That is as it should be inside a VPC only.
fn warn_of_clear_text(settings: &ArmsSettings, url: &Uri) {
    let host = url.host().unwrap_or_default();
    if url.scheme_str() == Some("http") && has_secret(settings, url) && !is_near(host) {
        tracing::warn!(host, "the token crosses the public network in clear text, the internal endpoint would not");
    }
}

fn has_secret(settings: &ArmsSettings, url: &Uri) -> bool {
    let is_free = matches!(settings.access, Access::Free);
    !is_free || !settings.headers.is_empty() || url.query().is_some() || url.path().contains("adapt_")
}

/// Whether packets to the host stay in a private network, as far as its name or address tells.
fn is_near(host: &str) -> bool {
    match host.trim_matches(['[', ']']).parse() {
        // 100.64.0.0/10 is where Alibaba Cloud's internal services are.
        Ok(IpAddr::V4(ip)) => {
            ip.is_loopback()
                || ip.is_private()
                || ip.is_link_local()
                || (ip.octets()[0], ip.octets()[1] & 0xc0) == (100, 64)
        }
        Ok(IpAddr::V6(ip)) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
        Err(_) => {
            let inside = [".svc", ".local", ".internal", ".localhost"];
            !host.contains('.')
                || host.contains("-internal")
                || host.contains("-intranet")
                || inside.iter().any(|end| host.ends_with(end))
        }
    }
}

#[cfg(test)]
mod tests;
