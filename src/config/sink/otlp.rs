//! `otlp` of a sink.

use super::super::load::Loader;
use crate::deliver::HopMemory;
use crate::deliver::sink::otlp::{Compression, OtlpSettings, Protocol, grpc_urls, http_urls, parse_url, place};
use crate::trace::Signal;
use crate::yaml::{Map, MappingEntry};

pub(in super::super) const KEYS: &[&str] = &[
    "endpoint",
    "protocol",
    "urls",
    "signals",
    "headers",
    "compression",
    "timeout",
    "connect_timeout",
    "tls",
    "connect_to",
];
pub(in super::super) const URL_KEYS: &[&str] = &["traces", "metrics", "logs"];

pub(super) const PROTOCOLS: &[(&str, Protocol)] = &[("grpc", Protocol::Grpc), ("http", Protocol::Http)];
pub(super) const COMPRESSIONS: &[(&str, Compression)] =
    &[("none", Compression::None), ("gzip", Compression::Gzip), ("zstd", Compression::Zstd)];

/// The port that OTLP/HTTP usually has.
const HTTP_PORT: u16 = 4318;

pub(super) fn settings(loader: &mut Loader<'_>, entry: &MappingEntry, hops: &HopMemory) -> Option<OtlpSettings> {
    let map = loader.map(&entry.value, "`otlp`", KEYS)?;
    let given = urls(loader, &map);
    let endpoint = loader.text(&map, "endpoint");
    let protocol = loader.word(&map, "protocol", PROTOCOLS);
    let protocol = protocol.unwrap_or_else(|| usual_protocol(endpoint.as_deref(), &map));
    let signals = loader.signals(&map, "signals", &Signal::ALL);
    let signals = signals.unwrap_or_else(|| given.each_ref().map(|url| endpoint.is_some() || url.is_some()));
    // URLs alone will do for the signals that they are for; the others are not taken.
    let needed = Signal::ALL.iter().any(|&signal| signals[signal as usize] && given[signal as usize].is_none());
    if needed || map.entry("urls").is_none() {
        loader.require(&map, "endpoint", "`otlp`");
    }
    let is_unreadable = endpoint.is_none() && map.entry("endpoint").is_some();
    let settings = OtlpSettings {
        protocol,
        endpoint: endpoint.or_else(|| base_of(&given)).unwrap_or_default(),
        urls: given,
        signals,
        headers: loader.headers(&map, "headers").unwrap_or_default(),
        compression: loader.word(&map, "compression", COMPRESSIONS).unwrap_or_default(),
        client: loader.client(&map),
        hops: hops.clone(),
    };
    if !is_unreadable {
        refuse_wrong_urls(loader, &map, &settings);
    }
    note_targets(loader, &map, &settings);
    Some(settings)
}

/// Host and port of the first URL: what stands for an endpoint that no signal needs.
fn base_of(urls: &[Option<String>; 3]) -> Option<String> {
    let url = urls.iter().flatten().next()?;
    Some(place(&url.parse().ok()?))
}

fn urls(loader: &mut Loader<'_>, map: &Map<'_>) -> [Option<String>; 3] {
    let Some(urls) = loader.section(map, "urls", URL_KEYS) else { return [const { None }; 3] };
    Signal::ALL.map(|signal| loader.text(&urls, signal.word()))
}

/// gRPC, but where the endpoint has the port or the path of HTTP, and where there are whole URLs.
fn usual_protocol(endpoint: Option<&str>, map: &Map<'_>) -> Protocol {
    let url = endpoint.and_then(|endpoint| endpoint.parse::<http::Uri>().ok());
    let looks_like_http = |url: http::Uri| url.port_u16() == Some(HTTP_PORT) || !matches!(url.path(), "" | "/");
    if map.entry("urls").is_some() || url.is_some_and(looks_like_http) { Protocol::Http } else { Protocol::Grpc }
}

fn refuse_wrong_urls(loader: &mut Loader<'_>, map: &Map<'_>, settings: &OtlpSettings) {
    if let (Protocol::Grpc, Some(entry)) = (settings.protocol, map.entry("urls")) {
        let title = "`urls` are for OTLP/HTTP only";
        loader.reader.error("C11", entry.key_span, title, "gRPC has one endpoint").help("write `protocol: http`");
        return;
    }
    let Some(node) = map.get("endpoint") else { return refuse_wrong_signal_urls(loader, map) };
    let endpoint = &settings.endpoint;
    let built = match settings.protocol {
        Protocol::Grpc => grpc_urls(endpoint),
        Protocol::Http => http_urls(endpoint, &[const { None }; 3]),
    };
    if let Err(error) = built {
        let diagnostic = loader.reader.error("C09", node.span, "this is no endpoint of OTLP", error);
        if endpoint.parse::<http::uri::Authority>().is_ok_and(|authority| authority.port_u16().is_some()) {
            diagnostic.help(format!("write `http://{endpoint}`, or `https://{endpoint}` for TLS"));
        } else {
            diagnostic.help("write it like `http://otel-gateway:4317`");
        }
    }
    refuse_wrong_signal_urls(loader, map);
}

fn refuse_wrong_signal_urls(loader: &mut Loader<'_>, map: &Map<'_>) {
    let Some(crate::yaml::Value::Map(entries)) = map.get("urls").map(|node| &node.value) else { return };
    for entry in entries {
        let crate::yaml::Value::Scalar(scalar) = &entry.value.value else { continue };
        if let Err(error) = parse_url(&scalar.text) {
            let title = format!("this is no URL for {}", entry.key);
            let example = format!("write it like `https://otel-gateway:4318/v1/{}`", entry.key);
            loader.reader.error("C09", entry.value.span, title, error).help(example);
        }
    }
}

fn note_targets(loader: &mut Loader<'_>, map: &Map<'_>, settings: &OtlpSettings) {
    let endpoint = map.get("endpoint").map(|node| (settings.endpoint.as_str(), node.span));
    let span = map.get("urls").map_or(map.span, |node| node.span);
    let urls = settings.urls.iter().flatten().map(|url| (url.as_str(), span));
    loader.note_targets(map, endpoint.into_iter().chain(urls));
}
