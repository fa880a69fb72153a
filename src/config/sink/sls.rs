//! `sls` of a sink.

use super::super::load::Loader;
use super::auth;
use crate::deliver::sink::sls::{MetricsPath, PackCompression, SignatureVersion, SlsSettings, TimeUnit};
use crate::yaml::MappingEntry;
use std::time::Duration;

pub(in super::super) const KEYS: &[&str] = &[
    "endpoint",
    "project",
    "traces",
    "metrics",
    "logs",
    "auth",
    "region",
    "domain",
    "signature",
    "compression",
    "trace_time_unit",
    "metrics_path",
    "shard_key",
    "topic",
    "source",
    "timeout",
    "tls",
    "connect_to",
];

const SIGNATURES: &[(&str, SignatureVersion)] = &[("v1", SignatureVersion::V1), ("v4", SignatureVersion::V4)];
const COMPRESSIONS: &[(&str, PackCompression)] =
    &[("lz4", PackCompression::Lz4), ("zstd", PackCompression::Zstd), ("none", PackCompression::None)];
const TIME_UNITS: &[(&str, TimeUnit)] = &[("us", TimeUnit::Microseconds), ("ns", TimeUnit::Nanoseconds)];
const METRICS_PATHS: &[(&str, MetricsPath)] =
    &[("logstore", MetricsPath::Logstore), ("prometheus", MetricsPath::Prometheus)];

pub(super) fn settings(loader: &mut Loader<'_>, entry: &MappingEntry) -> Option<SlsSettings> {
    let map = loader.map(&entry.value, "`sls`", KEYS)?;
    let mut required = |key: &str| loader.require(&map, key, "`sls`").is_some().then(|| loader.text(&map, key))?;
    let (endpoint, project) = (required("endpoint"), required("project"));
    if ["traces", "metrics", "logs"].iter().all(|key| map.entry(key).is_none()) {
        let help = "add `traces:`, `metrics:` or `logs:` with the name of a logstore or metricstore";
        loader.reader.error("C11", entry.key_span, "`sls` has no store", "nothing is delivered").help(help);
    }
    let defaults = SlsSettings::default();
    let range = Duration::from_millis(10)..=Duration::from_secs(600);
    let settings = SlsSettings {
        endpoint: endpoint.unwrap_or_default(),
        connect_to: loader.connect_to(&map, "connect_to"),
        tls: loader.client_tls(&map),
        domain: loader.text(&map, "domain"),
        region: loader.text(&map, "region"),
        project: project.unwrap_or_default(),
        traces: loader.text(&map, "traces"),
        metrics: loader.text(&map, "metrics"),
        logs: loader.text(&map, "logs"),
        signature: loader.word(&map, "signature", SIGNATURES).unwrap_or_default(),
        compression: loader.word(&map, "compression", COMPRESSIONS).unwrap_or_default(),
        trace_time_unit: loader.word(&map, "trace_time_unit", TIME_UNITS).unwrap_or_default(),
        metrics_path: loader.word(&map, "metrics_path", METRICS_PATHS).unwrap_or_default(),
        shard_key: loader.text(&map, "shard_key"),
        topic: loader.text(&map, "topic"),
        source: loader.text(&map, "source"),
        timeout: loader.duration(&map, "timeout", range).unwrap_or(defaults.timeout),
        longest_refusal: defaults.longest_refusal,
        auth: map.get("auth").map_or(defaults.auth, |node| auth::settings(loader, node)),
    };
    let url = match settings.endpoint.contains("://") {
        true => settings.endpoint.clone(),
        false => format!("https://{}", settings.endpoint),
    };
    let span = map.get("endpoint").map_or(map.span, |node| node.span);
    loader.note_targets(&map, [(url.as_str(), span)]);
    Some(settings)
}
