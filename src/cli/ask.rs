//! Commands that ask: a file, the local store, or a running process.

use super::{CommandFailure, Running, Traces, print};
use crate::admin::Answer;
use crate::config::read_text;
use crate::http_client::{Client, ClientCertificate, ClientError, ClientSettings, TlsSettings};
use crate::policy::{self, Policy};
use crate::store::{Store, TraceFilter, render_traces};
use crate::telemetry::log;
use crate::terminal::clean;
use crate::trace::{RuleNames, TraceId};
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use http::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const USUAL_ADMIN: &str = "http://127.0.0.1:13134";
/// An answer is whole by then: a plan of a large ring takes seconds.
const ANSWER_TIME: Duration = Duration::from_secs(60);
const TOKEN_VARIABLE: &str = "TAILKEEP_ADMIN_TOKEN";

pub(super) fn read(path: &Path) -> Result<String, CommandFailure> {
    read_text(path).map_err(|error| CommandFailure::Usage(format!("cannot read {}: {error}", path.display())))
}

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// What a compressed file may grow to.
const INFLATED_MAX: u64 = 1 << 30;
/// A trace as JSON: far more than a ring gives to one.
const TRACE_MAX: usize = 256 << 20;

/// The file, decompressed if it is gzip or zstd.
pub(super) fn read_trace(path: &Path) -> Result<Vec<u8>, CommandFailure> {
    let cannot = |error: std::io::Error| CommandFailure::Usage(format!("cannot read {}: {error}", path.display()));
    let file = std::fs::read(path).map_err(cannot)?;
    let inflate: Box<dyn Read + '_> = match file.as_slice() {
        gzip if gzip.starts_with(GZIP) => Box::new(MultiGzDecoder::new(gzip)),
        zstd if zstd.starts_with(ZSTD) => Box::new(zstd::Decoder::with_buffer(zstd).map_err(cannot)?),
        _ => return Ok(file),
    };
    let mut inflated = Vec::new();
    inflate.take(INFLATED_MAX + 1).read_to_end(&mut inflated).map_err(cannot)?;
    if inflated.len() as u64 > INFLATED_MAX {
        return Err(CommandFailure::Usage(format!("{} has more than 1 GiB when it is decompressed", path.display())));
    }
    Ok(inflated)
}

/// `trace` is a file, or the id of a trace that a running process has.
pub(super) fn explain(policy_file: Option<&Path>, trace: &Path, running: &Running) -> Result<(), CommandFailure> {
    let is_asked = running.admin.is_some() || running.config.is_some();
    let id = trace.to_str().and_then(TraceId::parse).filter(|_| is_asked || !trace.exists());
    if is_asked && id.is_none() {
        let text = format!("{} is no trace id, 32 hexadecimal digits: only those are asked for", trace.display());
        return Err(CommandFailure::Usage(text));
    }
    let (file, text) = match (policy_file, id) {
        (Some(path), _) => (path.display().to_string(), read(path)?),
        (None, Some(_)) => {
            let Told { file, text, .. } = ask(Method::GET, running, "policy")?;
            (file, text)
        }
        (None, None) => ("the built-in policy".to_owned(), Policy::builtin().to_owned()),
    };
    let (policy, _) = Policy::compile(&file, &text, 1, &mut RuleNames::default());
    let Some(policy) = policy else {
        return Err(CommandFailure::Usage(policy::check_policy(&file, &text, false).text));
    };
    let spans = match id {
        Some(id) => fetch(Method::GET, running, &format!("traces/{id}"), Bytes::new())?.1.to_vec(),
        None => read_trace(trace)?,
    };
    let explained = policy::explain(&policy, &spans);
    let explained = explained.map_err(|error| CommandFailure::Usage(format!("{}: {error}", trace.display())))?;
    print(&explained);
    Ok(())
}

pub(super) fn why(id: TraceId, running: &Running) -> Result<(), CommandFailure> {
    let answer: Answer = ask(Method::GET, running, &format!("why/{id}"))?;
    print(&answer.render());
    Ok(())
}

/// What the admin listener of a running tailkeep answers.
pub(super) fn ask<T: DeserializeOwned>(method: Method, running: &Running, path: &str) -> Result<T, CommandFailure> {
    send(method, running, path, Bytes::new())
}

/// What it answers to some JSON.
pub(super) fn send<T: DeserializeOwned>(
    method: Method,
    running: &Running,
    path: &str,
    json: Bytes,
) -> Result<T, CommandFailure> {
    let (url, body) = fetch(method, running, path, json)?;
    serde_json::from_slice(&body)
        .map_err(|error| CommandFailure::Running(format!("{url} does not answer like an admin listener: {error}")))
}

/// Who was asked, and the answer.
fn fetch(method: Method, running: &Running, path: &str, json: Bytes) -> Result<(String, Bytes), CommandFailure> {
    let admin = AdminAddress::of(running)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CommandFailure::Running(error.to_string()))?;
    let body = runtime.block_on(admin.fetch(method, path, json))?;
    Ok((admin.url, body))
}

/// A policy as the admin listener tells it.
#[derive(Deserialize)]
pub(super) struct Told {
    pub file: String,
    pub number: u32,
    pub hash: String,
    pub text: String,
}

/// Where a running tailkeep is asked.
struct AdminAddress {
    url: String,
    /// And where it stands.
    token: Option<(String, String)>,
    tls: TlsSettings,
}

impl AdminAddress {
    fn of(running: &Running) -> Result<AdminAddress, CommandFailure> {
        let identity = running.cert.clone().zip(running.key.clone());
        let identity = identity.map(|(certificate_file, key_file)| ClientCertificate { certificate_file, key_file });
        let tls = TlsSettings { ca_file: running.ca.clone(), identity };
        let from_environment = std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.is_empty());
        let from_environment = from_environment.map(|token| (token, TOKEN_VARIABLE.to_owned()));
        let Some(file) = &running.config else {
            let url = running.admin.as_deref().unwrap_or(USUAL_ADMIN);
            return Ok(AdminAddress { url: url.to_owned(), token: from_environment, tls });
        };
        let config = super::serve::load(Some(file))?;
        let file = file.display();
        let from_file =
            config.admin_token.map(|token| (token.secret.expose().to_owned(), format!("`admin.token` of {file}")));
        let url = match (&running.admin, config.admin) {
            (Some(url), _) => url.clone(),
            (None, Some(address)) if address.port() != 0 => {
                let scheme = if config.admin_tls.is_some() { "https" } else { "http" };
                format!("{scheme}://{}", near(address))
            }
            (None, Some(_)) => {
                let text = format!("{file}: `admin.listen` takes any free port: name it with --admin, the log has it");
                return Err(CommandFailure::Usage(text));
            }
            (None, None) => {
                return Err(CommandFailure::Usage(format!(
                    "{file}: `admin` is off, so nobody answers: write `admin.listen`"
                )));
            }
        };
        Ok(AdminAddress { url, token: from_file.or(from_environment), tls })
    }

    async fn fetch(&self, method: Method, path: &str, json: Bytes) -> Result<Bytes, CommandFailure> {
        let url = format!("{}/{path}", self.url.trim_end_matches('/'));
        let settings = ClientSettings {
            tls: Some(self.tls.clone()),
            timeout: ANSWER_TIME,
            response_max: TRACE_MAX,
            ..ClientSettings::default()
        };
        let client = Client::new(settings).map_err(CommandFailure::Usage)?;
        let mut request = http::Request::builder().method(method).uri(&url);
        if let Some((token, _)) = &self.token {
            request = request.header(http::header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let gives = !json.is_empty();
        if gives {
            request = request.header(http::header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(json).map_err(|error| CommandFailure::Usage(format!("--admin {url}: {error}")))?;
        let response = client.send(request).await.map_err(|error| {
            let help = match error {
                ClientError::Tls { .. } => {
                    "name the authority of its certificate with --ca FILE, and it by a name that the certificate has: \
                     --admin https://NAME:PORT"
                }
                _ => "is tailkeep running, and is `admin.listen` of its configuration there?",
            };
            CommandFailure::Running(format!("{url}: {error}; {help}"))
        })?;
        if response.status.is_success() {
            return Ok(response.body);
        }
        if response.status == http::StatusCode::UNAUTHORIZED {
            let what = match &self.token {
                None => format!("it wants a token, and none was sent: set {TOKEN_VARIABLE} to"),
                Some((_, place)) => format!("the token that was sent is wrong: {place} must be"),
            };
            return Err(CommandFailure::Running(format!("{url}: {what} `admin.token` of the configuration there")));
        }
        let text = String::from_utf8_lossy(&response.body).into_owned();
        // It has looked at what it was given.
        if gives && response.status == http::StatusCode::BAD_REQUEST {
            return Err(CommandFailure::Usage(format!("{text}{url} refused it")));
        }
        Err(CommandFailure::Running(format!("{url}: {}: {text}", response.status)))
    }
}

/// Whoever listens on all addresses listens on loopback too.
fn near(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

/// Unix nanoseconds of so long ago.
pub(super) fn ago(duration: Duration) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(duration).as_nanos() as u64
}

/// The store that was named, or that of a configuration, or the usual one; it is there.
pub(super) fn store_file(named: Option<&Path>, config: Option<&Path>) -> Result<PathBuf, CommandFailure> {
    let path = match named {
        Some(path) => path.to_owned(),
        None => super::serve::store_of(config)?,
    };
    if path.exists() {
        return Ok(path);
    }
    let path = path.display();
    Err(CommandFailure::Usage(format!("there is no store at {path} yet: it is made when the first trace is kept")))
}

pub(super) fn traces(wanted: &Traces) -> Result<(), CommandFailure> {
    let path = store_file(wanted.store.as_deref(), wanted.config.as_deref())?;
    let filter = TraceFilter {
        service: wanted.service.clone(),
        errors: wanted.errors,
        slower: wanted.slower,
        since: wanted.since.map(ago),
        limit: wanted.limit,
    };
    let store = Store::open_read(&path).map_err(CommandFailure::Running)?;
    let rows = store.traces(&filter).map_err(CommandFailure::Running)?;
    print(&render_traces(&rows));
    if rows.is_empty() {
        let all = TraceFilter { limit: usize::MAX, ..TraceFilter::default() };
        let held = store.traces(&all).map_err(CommandFailure::Running)?.len();
        // Not on standard output: a script that reads the list finds it empty.
        let plural = if held == 1 { "" } else { "s" };
        log::say(&format!("no trace matches; {} holds {held} trace{plural}\n", path.display()));
        if let Some(service) = &wanted.service {
            let known = store.services().map_err(CommandFailure::Running)?;
            log::say(&unknown_service(service, &known));
        }
    }
    Ok(())
}

/// More names than that are no help.
const SERVICES_SHOWN: usize = 20;

/// Which services there are, if this is none of them.
fn unknown_service(service: &str, known: &[String]) -> String {
    if known.is_empty() || known.iter().any(|name| name == service) {
        return String::new();
    }
    let shown: Vec<String> = known.iter().take(SERVICES_SHOWN).map(|name| clean(name)).collect();
    let more = match known.len().saturating_sub(SERVICES_SHOWN) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    format!("no trace has a service `{}`; there are {}{more}\n", clean(service), shown.join(", "))
}
