//! `arms` of a sink.

use super::super::load::Loader;
use super::otlp::{COMPRESSIONS, PROTOCOLS};
use crate::deliver::sink::arms::{Access, ArmsSettings};
use crate::secret::Secret;
use crate::trace::Signal;
use crate::yaml::{Map, MappingEntry};

pub(in super::super) const KEYS: &[&str] = &[
    "endpoint",
    "token",
    "license",
    "protocol",
    "urls",
    "signals",
    "headers",
    "compression",
    "host_name",
    "timeout",
    "connect_timeout",
    "tls",
    "connect_to",
];
pub(in super::super) const URL_KEYS: &[&str] = &["traces", "metrics"];
pub(in super::super) const LICENSE_KEYS: &[&str] = &["key", "project", "workspace"];

pub(super) fn settings(loader: &mut Loader<'_>, entry: &MappingEntry) -> Option<ArmsSettings> {
    let map = loader.map(&entry.value, "`arms`", KEYS)?;
    let access = access(loader, &map);
    let urls = loader.section(&map, "urls", URL_KEYS);
    let mut url = |key| urls.and_then(|urls| loader.text(&urls, key));
    let (traces_url, metrics_url) = (url("traces"), url("metrics"));
    let endpoint = loader.text(&map, "endpoint");
    if map.entry("endpoint").is_none() && urls.is_none() {
        loader.require(&map, "endpoint", "`arms`");
    }
    let at = |key: &str| map.get(key).map_or(map.span, |node| node.span);
    let (at_endpoint, at_urls) = (at("endpoint"), at("urls"));
    let given = [&traces_url, &metrics_url].into_iter().flatten().map(|url| (url.as_str(), at_urls));
    loader.note_targets(&map, endpoint.iter().map(|url| (url.as_str(), at_endpoint)).chain(given));
    let defaults = ArmsSettings::default();
    let usual_signals = match endpoint {
        Some(_) => defaults.signals,
        None => [traces_url.is_some(), metrics_url.is_some(), false],
    };
    let headers = loader.headers(&map, "headers").unwrap_or_default();
    let is_anonymous = matches!(access, Access::Free) && headers.is_empty() && urls.is_none();
    if is_anonymous && !["token", "license"].iter().any(|key| map.entry(key).is_some()) {
        let title = "`arms` without a `token` or a `license`";
        let help = "write `token: ${env:ARMS_TOKEN}`, or `license:` for the endpoint of CloudMonitor 2.0";
        loader.reader.warn("C11", entry.key_span, title, "ARMS refuses who does not say who it is").help(help);
    }
    Some(ArmsSettings {
        endpoint: endpoint.map(Secret::new),
        protocol: loader.word(&map, "protocol", PROTOCOLS),
        access,
        traces_url: traces_url.map(Secret::new),
        metrics_url: metrics_url.map(Secret::new),
        signals: loader.signals(&map, "signals", &[Signal::Traces, Signal::Metrics]).unwrap_or(usual_signals),
        headers,
        compression: loader.word(&map, "compression", COMPRESSIONS).unwrap_or_default(),
        host_name: loader.text(&map, "host_name"),
        client: loader.client(&map),
    })
}

fn access(loader: &mut Loader<'_>, map: &Map<'_>) -> Access {
    if let (Some(token), Some(license)) = (map.entry("token"), map.entry("license")) {
        let title = "`token` and `license` are of different endpoints";
        let diagnostic = loader.reader.error("C11", license.key_span, title, "the endpoint of CloudMonitor 2.0");
        diagnostic.other(token.key_span, "the classic endpoint").help("write the one that the console shows");
    }
    let token = loader.secret(map, "token").map(Access::Token);
    let license = loader.section(map, "license", LICENSE_KEYS).and_then(|license| license_of(loader, &license));
    token.or(license).unwrap_or_default()
}

fn license_of(loader: &mut Loader<'_>, map: &Map<'_>) -> Option<Access> {
    for key in LICENSE_KEYS {
        loader.require(map, key, "`license`");
    }
    let (project, workspace) = (loader.text(map, "project"), loader.text(map, "workspace"));
    let key = loader.secret(map, "key")?;
    Some(Access::Licence { key, project: project?, workspace: workspace? })
}
