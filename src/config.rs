//! The configuration file: YAML text to settings of every stage, or every problem at once.
//!
//! Every key has a default, so an empty file and no file are the same and fine. What the file does not say
//! follows from the memory budget, see [`budget`]. Paths are relative to the folder of the file. Values may
//! hold `${env:NAME}` and `${file:PATH}`; what they stand for is never shown.
//!
//! Codes: C01 variable that is not set, C02 `${…}` that is no variable, C03 address, C04 two listeners on a
//! port, C05 budget, C06 more than the host has (a warning), C07 kind, name or place of a sink, C08 sink that
//! is our own listener, C09 what a sink does not take, C10 administration open to everybody, or credentials in clear text (a warning), C11 keys that
//! need or exclude each other, C12 secret in the file (a warning), C13 nothing is delivered (a warning), C14
//! buckets and dimensions, C15 policy file that cannot be read, C16 instance, C17
//! file or folder that cannot be used (a warning where only this machine may be at fault), C18 file of a secret, C19
//! credential that nobody could send, C20 processing that would not do what it says, C21 rule that the policy does
//! not have.

pub mod budget;
mod check;
mod expand;
mod host;
mod load;
mod mask;
mod measure;
mod phrases;
mod place;
mod processing;
mod queue;
mod receive;
mod routes;
mod sink;
mod text;

pub use check::check_config;
pub use host::Host;
pub use mask::drawable;
pub use queue::QueueConfig;
pub use sink::{SinkConfig, SinkKind};
pub use text::read_text;

use crate::deliver::HopMemory;
use crate::diagnostic::{Diagnostic, Span, has_errors};
use crate::secret::SecretSource;
use crate::tls::TlsFiles;
use crate::yaml::{Map, Node, Value};
use budget::{BudgetPart, MEMORY_MAX, MEMORY_MIN, Sizes, divide, show_size};
use expand::Variables;
use load::{Loader, is_nothing, is_off};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the process is told.
#[derive(Debug)]
pub struct Config {
    pub receive: crate::receive::ReceiverSettings,
    /// The budget, bytes.
    pub memory: usize,
    /// The part of it for spans and their index, bytes.
    pub ring: usize,
    pub policy: PolicySource,
    /// A candidate that is counted beside it, and keeps nothing.
    pub policy_shadow: Option<PathBuf>,
    /// How requests are measured; none: they are not.
    pub measure: Option<crate::measure::MeterSettings>,
    /// What is done to attributes before they leave.
    pub processing: crate::processing::ProcessingSettings,
    pub sinks: Vec<SinkConfig>,
    pub queue: QueueConfig,
    /// Where `/healthz`, `/readyz` and `/metrics` are answered; none: nowhere. Default 127.0.0.1:13133.
    pub health: Option<SocketAddr>,
    /// Where questions about traces are answered; none: nowhere. Default 127.0.0.1:13134.
    pub admin: Option<SocketAddr>,
    /// What whoever asks `admin` must present. Always there if others than this host can reach it.
    pub admin_token: Option<SecretSource>,
    /// Makes `admin` speak TLS. Default: it does not.
    pub admin_tls: Option<TlsFiles>,
    pub drain: Drain,
    /// `collector.instance.id`.
    pub instance: String,
    /// Where the data that goes out has been; shared with the sinks.
    pub hops: HopMemory,
}

/// Where the policy stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PolicySource {
    Builtin,
    File(PathBuf),
}

/// How the process ends, counted from the signal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Drain {
    /// How long connections and requests are still taken: applications that stop at the same moment flush
    /// their last spans. Default 5 s.
    pub accept: Duration,
    /// When the process ends at the latest. Default 25 s: Kubernetes kills after 30.
    pub deadline: Duration,
}

impl Default for Drain {
    fn default() -> Drain {
        Drain { accept: Duration::from_secs(5), deadline: Duration::from_secs(25) }
    }
}

const KEYS: &[&str] = &[
    "receive",
    "memory",
    "ring",
    "policy",
    "policy_shadow",
    "measure",
    "processing",
    "sinks",
    "queue",
    "health",
    "admin",
    "drain",
    "instance",
];
const RING_KEYS: &[&str] = &["size"];
const HEALTH_KEYS: &[&str] = &["listen"];
const ADMIN_KEYS: &[&str] = &["listen", "token", "tls"];
const DRAIN_KEYS: &[&str] = &["accept", "deadline"];

const HEALTH_PORT: u16 = 13133;
const ADMIN_PORT: u16 = 13134;
/// Eight segments of the least size, and their index.
const RING_MIN: u64 = 4 << 20;
const INSTANCE_MAX: usize = 128;

impl Config {
    /// The configuration in `text`, unless it has an error, and all problems found. Looks at no file but
    /// those of secrets; `variables` are those of the environment.
    pub fn parse(
        file: &Path,
        text: &str,
        variables: impl Fn(&str) -> Option<String>,
        host: &Host,
    ) -> (Option<Config>, Vec<Diagnostic>) {
        let (config, diagnostics, _) = parse(file, text, &variables, host);
        (config.filter(|_| !has_errors(&diagnostics)), diagnostics)
    }
}

/// Also the tree, for what shows only when other files are looked at; and the configuration where it has errors, with
/// defaults in place of what cannot be read and without its wrong sinks.
fn parse(file: &Path, text: &str, variables: Variables<'_>, host: &Host) -> (Option<Config>, Vec<Diagnostic>, Node) {
    let mut loader = Loader::new(file, host);
    let start = Span { start: 0, end: 0, line: 1, column: 1 };
    let nothing = Node { span: start, value: Value::Map(Vec::new()) };
    let root = loader.parse(text, variables).filter(|root| !is_nothing(root)).unwrap_or(nothing);
    let map = loader.reader.file_map(&root, "a configuration", KEYS);
    let config = map.map(|map| read(&mut loader, &map));
    (config, loader.finish(), root)
}

fn read(loader: &mut Loader<'_>, map: &Map<'_>) -> Config {
    let empty = Map { span: map.span, entries: &[] };
    let memory = memory(loader, map);
    let instance = instance(loader, map);
    let hops = HopMemory::new(loader.host.hop.clone());
    let receive_map = loader.section(map, "receive", receive::KEYS).unwrap_or(empty);
    let queue_map = loader.section(map, "queue", queue::KEYS).unwrap_or(empty);
    let measure_map = measure::section(loader, map);

    let receive_requested = receive::requested(loader, &receive_map);
    let measure_requested = measure::requested(loader, measure_map.as_ref());
    let [traces, metrics, logs] = queue::requested(loader, &queue_map);
    let ring = loader.section(map, "ring", RING_KEYS).and_then(|ring| ring_size(loader, &ring));
    let in_flight = receive_requested.in_flight.or_else(|| {
        // Not less than usual, and enough for a request.
        Some((2 * receive_requested.max_request?).max(budget::usual(BudgetPart::InFlight, memory)))
    });
    let pooled = receive_requested.pooled;
    let given = [ring, in_flight, pooled, traces, metrics, logs, measure_requested.series, measure_requested.windows];
    let sizes = divide_or_report(loader, map, memory, &given);

    let mut receive = receive::settings(loader, &receive_map, &receive_requested, (memory, &sizes));
    receive.instance.clone_from(&instance);
    receive.hop.clone_from(&loader.host.hop);
    let admin = admin(loader, map);
    let queue = queue::settings(loader, &queue_map, &sizes);
    let mut sinks = match map.get("sinks") {
        Some(node) => sink::sinks(loader, node, &hops),
        None => sink::default_sinks(loader, map),
    };
    sinks.iter_mut().for_each(|sink| sink.set_longest_refusal(queue.longest_refusal));
    let measure = measure_map.map(|map| measure::settings(loader, &map, &sizes, &instance));
    let config = Config {
        receive,
        memory,
        ring: sizes[BudgetPart::Ring as usize],
        policy: policy(loader, map),
        policy_shadow: loader.path(map, "policy_shadow"),
        processing: processing::settings(loader, map, measure.as_ref()),
        measure,
        sinks,
        queue,
        health: health(loader, map),
        admin: admin.listen,
        admin_token: admin.token,
        admin_tls: admin.tls,
        drain: drain(loader, map),
        instance,
        hops,
    };
    check::check_ports(loader, map, &config);
    config
}

fn memory(loader: &mut Loader<'_>, map: &Map<'_>) -> usize {
    let auto = loader.host.memory_auto();
    let Some(node) = map.get("memory") else { return auto };
    if matches!(&node.value, Value::Scalar(scalar) if scalar.text == "auto") {
        return auto;
    }
    let size = loader.size_of(node, "`memory`", MEMORY_MIN as u64..=MEMORY_MAX as u64);
    let Some(memory) = size.map(|size| size as usize) else { return auto };
    let limit = loader.host.memory_limit;
    if memory as u64 > limit / 4 * 3 {
        let limit = show_size(usize::try_from(limit).unwrap_or(usize::MAX));
        let title = format!("`memory` is more than three quarters of the {limit} that this process may use");
        loader
            .reader
            .warn("C06", node.span, title, "the process itself and its connections need some")
            .help("`memory: auto` takes half of the limit; or raise the limit");
    }
    memory
}

fn ring_size(loader: &mut Loader<'_>, map: &Map<'_>) -> Option<usize> {
    loader.size(map, "size", RING_MIN..=MEMORY_MAX as u64).map(|size| size as usize)
}

/// The budget's parts; where they do not fit, their usual sizes, and an error that shows the sum.
fn divide_or_report(
    loader: &mut Loader<'_>,
    map: &Map<'_>,
    memory: usize,
    given: &Sizes<Option<usize>>,
) -> Sizes<usize> {
    let over = match divide(memory, given) {
        Ok(sizes) => return sizes,
        Err(over) => over,
    };
    let usual = BudgetPart::ALL.map(|part| given[part as usize].unwrap_or_else(|| budget::usual(part, memory)));
    if loader.reader.has_errors() {
        // A size that cannot be read may be what makes the others too many.
        return usual;
    }
    let is_given = |part: &BudgetPart| given[*part as usize].is_some_and(|size| size > 0);
    let terms = over.parts.iter().filter(|(part, _)| is_given(part));
    let mut terms: Vec<String> = terms.map(|(part, size)| format!("{} {}", part.word(), show_size(*size))).collect();
    let others = over.parts.iter().filter(|(part, _)| given[*part as usize].is_none()).map(|(_, size)| size).sum();
    if others > 0 {
        terms.push(format!("the others at least {}", show_size(others)));
    }
    let sum = over.parts.iter().fold(0usize, |sum, (_, size)| sum.saturating_add(*size));
    let title = format!("the parts of the budget are {}, and `memory` is {}", show_size(sum), show_size(memory));
    let at = ["memory", "ring", "receive", "queue", "measure"].iter().find_map(|key| map.entry(key));
    let span = at.map_or(map.span, |entry| entry.key_span);
    let needed = over.needed.div_ceil(1 << 20);
    loader
        .reader
        .error("C05", span, title, terms.join(", "))
        .help(format!("write `memory: {needed}MiB` or more, or give less to these parts"));
    usual
}

fn policy(loader: &mut Loader<'_>, map: &Map<'_>) -> PolicySource {
    match map.get("policy") {
        Some(node) if matches!(&node.value, Value::Scalar(scalar) if scalar.text == "builtin") => PolicySource::Builtin,
        _ => loader.path(map, "policy").map_or(PolicySource::Builtin, PolicySource::File),
    }
}

fn health(loader: &mut Loader<'_>, map: &Map<'_>) -> Option<SocketAddr> {
    let default = SocketAddr::from((Ipv4Addr::LOCALHOST, HEALTH_PORT));
    match map.get("health") {
        Some(node) if is_off(node) => None,
        _ => {
            let section = loader.section(map, "health", HEALTH_KEYS);
            section.and_then(|section| loader.listener(&section, "listen")).unwrap_or(Some(default))
        }
    }
}

/// The section `admin`.
struct Admin {
    listen: Option<SocketAddr>,
    token: Option<SecretSource>,
    tls: Option<TlsFiles>,
}

fn admin(loader: &mut Loader<'_>, map: &Map<'_>) -> Admin {
    let default = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, ADMIN_PORT)));
    let without_more = |listen| Admin { listen, token: None, tls: None };
    let Some(node) = map.get("admin") else { return without_more(default) };
    if is_off(node) {
        return without_more(None);
    }
    let Some(section) = loader.section(map, "admin", ADMIN_KEYS) else { return without_more(default) };
    let listen = loader.listener(&section, "listen").unwrap_or(default);
    let token = loader.secret_source(&section, "token");
    let tls = loader.server_tls(&section);
    let is_open = listen.is_some_and(|address| !address.ip().is_loopback()) && section.entry("token").is_none();
    if let (true, Some(node)) = (is_open, section.get("listen")) {
        loader
            .reader
            .error("C10", node.span, "everybody could read traces here", "reachable from other hosts")
            .help("add `token: ${env:TAILKEEP_ADMIN_TOKEN}`, or listen on 127.0.0.1");
    }
    Admin { listen, token, tls }
}

fn drain(loader: &mut Loader<'_>, map: &Map<'_>) -> Drain {
    let default = Drain::default();
    let Some(section) = loader.section(map, "drain", DRAIN_KEYS) else { return default };
    let second = Duration::from_secs(1);
    let accept = loader.duration(&section, "accept", Duration::ZERO..=second * 600);
    let deadline = loader.duration(&section, "deadline", second * 2..=second * 3600);
    let drain = Drain { accept: accept.unwrap_or(default.accept), deadline: deadline.unwrap_or(default.deadline) };
    // A second at least is for judging and delivering, one for closing sinks.
    if drain.accept + 2 * second > drain.deadline {
        let entry = section.entry("accept").or(section.entry("deadline"));
        let span = entry.map_or(section.span, |entry| entry.value.span);
        let title = format!("`accept` ({:?}) leaves no time until `deadline` ({:?})", drain.accept, drain.deadline);
        loader
            .reader
            .error("C11", span, title, "what is kept must still be delivered")
            .help("make `deadline` at least two seconds more than `accept`");
    }
    drain
}

fn instance(loader: &mut Loader<'_>, map: &Map<'_>) -> String {
    let Some(name) = loader.text(map, "instance") else { return loader.host.instance.clone() };
    let fits = |c: char| c.is_ascii_graphic() && c != ',';
    if !name.chars().all(fits) || name.len() > INSTANCE_MAX {
        let span = map.get("instance").map_or(map.span, |node| node.span);
        loader
            .reader
            .error("C16", span, format!("`{name}` is no name for an instance"), "it is sent in headers")
            .help(format!("use up to {INSTANCE_MAX} visible ASCII characters without commas"));
    }
    name
}

/// Every section with its keys, as `tailkeep.yaml` documents them: `receive.tls`, `sinks.otlp`.
pub fn sections() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut auth: Vec<&str> = sink::AUTH_KEYS.iter().flat_map(|(_, keys)| keys.iter().copied()).collect();
    auth.push("type");
    auth.sort_unstable();
    auth.dedup();
    let sections: &[(&str, &[&str])] = &[
        ("", KEYS),
        ("receive", receive::KEYS),
        ("receive.tls", load::SERVER_TLS_KEYS),
        ("receive.auth", receive::AUTH_KEYS),
        ("receive.auth.basic", receive::BASIC_KEYS),
        ("ring", RING_KEYS),
        ("measure", measure::KEYS),
        ("processing", processing::KEYS),
        ("processing.mask", processing::MASK_KEYS),
        ("queue", queue::KEYS),
        ("queue.memory", queue::SIGNAL_KEYS),
        ("queue.size", queue::SIGNAL_KEYS),
        ("health", HEALTH_KEYS),
        ("admin", ADMIN_KEYS),
        ("admin.tls", load::SERVER_TLS_KEYS),
        ("drain", DRAIN_KEYS),
        ("sinks", sink::KEYS),
        ("sinks.store", sink::STORE_KEYS),
        ("sinks.file", sink::FILE_KEYS),
        ("sinks.otlp", sink::OTLP_KEYS),
        ("sinks.otlp.urls", sink::OTLP_URL_KEYS),
        ("sinks.otlp.tls", load::CLIENT_TLS_KEYS),
        ("sinks.arms", sink::ARMS_KEYS),
        ("sinks.arms.urls", sink::ARMS_URL_KEYS),
        ("sinks.arms.license", sink::LICENSE_KEYS),
        ("sinks.arms.tls", load::CLIENT_TLS_KEYS),
        ("sinks.sls", sink::SLS_KEYS),
        ("sinks.sls.auth", &auth),
        ("sinks.sls.tls", load::CLIENT_TLS_KEYS),
    ];
    sections.iter().map(|(section, keys)| (*section, keys.to_vec())).collect()
}
