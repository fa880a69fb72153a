//! The section `receive`: every bound of the receiver by name.

use super::budget::{BudgetPart, Sizes, usual_connections, usual_request};
use super::load::Loader;
use crate::receive::{ReceiverSettings, SenderCredential, descriptors};
use crate::yaml::{Map, Node};
use std::time::Duration;

pub(super) const KEYS: &[&str] = &[
    "grpc",
    "http",
    "tls",
    "auth",
    "max_request",
    "in_flight",
    "pooled",
    "connections",
    "streams",
    "window",
    "header_bytes",
    "header_timeout",
    "body_timeout",
    "keepalive_interval",
    "keepalive_timeout",
    "connection_age",
    "cors",
    "retry_after",
];
pub(super) const AUTH_KEYS: &[&str] = &["bearer", "basic"];
pub(super) const BASIC_KEYS: &[&str] = &["username", "password"];

const MIB: u64 = 1 << 20;

/// What the section says about memory, before the budget is divided.
pub(super) struct ReceiveMemory {
    pub max_request: Option<usize>,
    pub in_flight: Option<usize>,
    pub pooled: Option<usize>,
}

pub(super) fn requested(loader: &mut Loader<'_>, map: &Map<'_>) -> ReceiveMemory {
    let mut size = |key, range| loader.size(map, key, range).map(|size| size as usize);
    let requested = ReceiveMemory {
        max_request: size("max_request", 64 << 10..=1 << 30),
        in_flight: size("in_flight", 128 << 10..=64 << 30),
        pooled: size("pooled", 0..=1 << 30),
    };
    if let (Some(max_request), Some(in_flight)) = (requested.max_request, requested.in_flight)
        && in_flight / 2 < max_request
    {
        let span = map.get("in_flight").map_or(map.span, |node| node.span);
        let needed = super::budget::show_size(max_request * 2);
        loader
            .reader
            .error("C11", span, "`in_flight` is less than twice `max_request`", "a largest request would never fit")
            .help(format!("a body is held twice while it is inflated: write at least `{needed}`"));
    }
    requested
}

/// The receiver's settings. `sizes` is the budget, divided.
pub(super) fn settings(
    loader: &mut Loader<'_>,
    map: &Map<'_>,
    requested: &ReceiveMemory,
    (memory, sizes): (usize, &Sizes<usize>),
) -> ReceiverSettings {
    let default = ReceiverSettings::default();
    let seconds = |seconds: u64| Duration::from_secs(seconds);
    let in_flight = sizes[BudgetPart::InFlight as usize];
    let grpc = loader.listener(map, "grpc").unwrap_or(default.grpc);
    let http = loader.listener(map, "http").unwrap_or(default.http);
    let most = descriptors::connections(loader.host.descriptors, [grpc, http].iter().flatten().count());
    let connections = loader.count(map, "connections", 1..=100_000).map(|count| count as usize);
    warn_of_descriptors(loader, map, connections, most);
    let (connections, usual_window) = usual_connections(memory, connections, most);
    let settings = ReceiverSettings {
        grpc,
        http,
        tls: loader.server_tls(map),
        auth: auth(loader, map),
        instance: String::new(),
        hop: String::new(),
        max_request: requested.max_request.unwrap_or_else(|| usual_request(in_flight)),
        in_flight,
        pooled: sizes[BudgetPart::Pooled as usize],
        connections,
        streams: loader.count(map, "streams", 1..=10_000).map_or(default.streams, |count| count as u32),
        window: loader.size(map, "window", 64 << 10..=64 * MIB).map_or(usual_window, |size| size as u32),
        header_bytes: loader.size(map, "header_bytes", 8 << 10..=MIB).map_or(default.header_bytes, |size| size as u32),
        header_timeout: loader
            .duration(map, "header_timeout", seconds(1)..=seconds(3600))
            .unwrap_or(default.header_timeout),
        body_timeout: loader.duration(map, "body_timeout", seconds(1)..=seconds(3600)).unwrap_or(default.body_timeout),
        pace_every: default.pace_every,
        keepalive_interval: loader
            .duration(map, "keepalive_interval", seconds(1)..=seconds(3600))
            .unwrap_or(default.keepalive_interval),
        keepalive_timeout: loader
            .duration(map, "keepalive_timeout", seconds(1)..=seconds(600))
            .unwrap_or(default.keepalive_timeout),
        connection_age: loader.duration(map, "connection_age", seconds(1)..=seconds(7 * 24 * 3600)),
        cors: cors(loader, map),
        retry_after: loader
            .duration(map, "retry_after", Duration::from_millis(1)..=seconds(300))
            .unwrap_or(default.retry_after),
    };
    if settings.grpc.is_none() && settings.http.is_none() {
        loader
            .reader
            .error("C11", map.span, "`grpc` and `http` are both off", "nothing can be received")
            .help("leave one of them on");
    }
    warn_of_windows(loader, map, memory, &settings);
    warn_of_clear_text(loader, map, &settings);
    settings
}

/// Who may send.
fn auth(loader: &mut Loader<'_>, map: &Map<'_>) -> Vec<SenderCredential> {
    let Some(section) = loader.section(map, "auth", AUTH_KEYS) else { return Vec::new() };
    if section.entries.is_empty() {
        let help = "name who may send, like `bearer: ${env:INGEST_TOKEN}`, or remove `auth`: then everybody may";
        loader.reader.error("C11", section.span, "`auth` lets nobody in", "no `bearer`, no `basic`").help(help);
    }
    let tokens = list(loader, &section, "bearer").iter().filter_map(|node| bearer(loader, node)).collect::<Vec<_>>();
    let pairs = list(loader, &section, "basic").iter().filter_map(|node| basic(loader, node)).collect::<Vec<_>>();
    tokens.into_iter().chain(pairs).collect()
}

/// One value or several.
fn list<'n>(loader: &mut Loader<'_>, map: &Map<'n>, key: &str) -> &'n [Node] {
    let Some(node) = map.get(key) else { return &[] };
    loader.reader.one_or_more(node, &format!("`{key}` of `auth`")).unwrap_or_default()
}

fn bearer(loader: &mut Loader<'_>, node: &Node) -> Option<SenderCredential> {
    let token = loader.secret_source_of(node, "bearer")?;
    if token.secret.is_empty() || !token.secret.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
        let title = "nobody could send this token in a header";
        let help = "write visible ASCII without spaces, without the word `Bearer` in front";
        loader.reader.error("C19", node.span, title, "the token that a sender presents").help(help);
        return None;
    }
    Some(SenderCredential::Bearer(token))
}

fn basic(loader: &mut Loader<'_>, node: &Node) -> Option<SenderCredential> {
    let map = loader.map(node, "an entry of `basic`", BASIC_KEYS)?;
    let name = loader.require(&map, "username", "an entry of `basic`").map(|node| node.span);
    loader.require(&map, "password", "an entry of `basic`");
    let (username, password) = (loader.text(&map, "username")?, loader.secret_source(&map, "password")?);
    if username.contains(':') {
        let help = "the name ends at the first colon of what is sent, so write one without";
        loader.reader.error("C19", name?, "no name of a user has a colon", "nobody could send it").help(help);
        return None;
    }
    Some(SenderCredential::Basic { username, password })
}

/// Credentials that everybody on the way can read.
fn warn_of_clear_text(loader: &mut Loader<'_>, map: &Map<'_>, settings: &ReceiverSettings) {
    let is_open = [settings.grpc, settings.http].iter().flatten().any(|address| !address.ip().is_loopback());
    let Some(entry) = map.entry("auth") else { return };
    if is_open && settings.tls.is_none() && map.entry("tls").is_none() {
        let title = "credentials cross the network in clear text";
        loader
            .reader
            .warn("C10", entry.key_span, title, "reachable from other hosts, without TLS")
            .help("add `tls: { cert: …, key: … }`, unless something on this host ends TLS before it comes here");
    }
}

/// Origins of pages, as browsers write them.
fn cors(loader: &mut Loader<'_>, map: &Map<'_>) -> Vec<String> {
    let Some(node) = map.get("cors") else { return Vec::new() };
    let what = "`cors` of `receive`";
    let items: &[Node] = loader.reader.one_or_more(node, what).unwrap_or_default();
    let mut origin = |item| {
        let text = loader.reader.text(item, what)?;
        if is_origin(text) {
            return Some(text.to_owned());
        }
        let help = "write the origin as browsers send it, like `https://shop.example` or `http://localhost:3000`, with \
            at most one `*` for any text";
        loader.reader.unreadable(item, what, "is no origin", help)
    };
    items.iter().filter_map(&mut origin).collect()
}

/// `scheme://host` or `scheme://host:port`, lower case, without a path; or `*`.
fn is_origin(text: &str) -> bool {
    let has_host = text.split_once("://").is_some_and(|(scheme, host)| !scheme.is_empty() && !host.is_empty());
    let is_shaped = has_host && text.matches('/').count() == 2 && text.matches('*').count() <= 1;
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase());
    text == "*" || is_shaped && is_plain
}

/// Peers can make both listeners hold connections × window. Only warned of where the file asks for it: the
/// defaults follow the budget.
fn warn_of_windows(loader: &mut Loader<'_>, map: &Map<'_>, memory: usize, settings: &ReceiverSettings) {
    let Some(entry) = map.entry("window").or(map.entry("connections")) else { return };
    let listeners = [settings.grpc, settings.http].iter().flatten().count();
    let held = (settings.connections as u64).saturating_mul(u64::from(settings.window)) * listeners as u64;
    let left = loader.host.memory_limit.saturating_sub(memory as u64);
    if held > left {
        let show = |bytes: u64| super::budget::show_size(bytes as usize);
        let title = format!("peers can make connections hold {}", show(held));
        let label = format!("{} × {}", settings.connections, show(settings.window.into()));
        loader.reader.warn("C06", entry.value.span, title, label).help(format!(
            "beside `memory`, this process may use {}: allow fewer connections or a smaller window",
            show(left)
        ));
    }
}

/// Connections are bounded by what the system allows, so that probes, sinks and the store can still open files.
fn warn_of_descriptors(loader: &mut Loader<'_>, map: &Map<'_>, connections: Option<usize>, most: usize) {
    let (Some(entry), Some(wanted)) = (map.entry("connections"), connections) else { return };
    if wanted > most {
        let title = format!("{wanted} connections are more than this process may open");
        let label = format!("a listener gets {most}");
        let limit = loader.host.descriptors;
        loader.reader.warn("C06", entry.value.span, title, label).help(format!(
            "the hard limit of open files is {limit}, and some are kept for sinks and probes: raise it \
             (`LimitNOFILE=` of systemd, `--ulimit nofile=` of a container), or write at most `{most}`"
        ));
    }
}
