//! Commands that ask: a file, the local store, or a running process.

use super::{CommandFailure, Running, Traces, print};
use crate::admin::Answer;
use crate::config::read_text;
use crate::http_client::{Client, ClientSettings};
use crate::policy::{self, Policy};
use crate::store::{Store, TraceFilter, render_traces};
use crate::telemetry::log;
use crate::trace::{RuleNames, TraceId};
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use http::Method;
use serde::de::DeserializeOwned;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const USUAL_ADMIN: &str = "http://127.0.0.1:13134";
/// An answer is whole by then: a plan of a large ring takes seconds.
const ANSWER_TIME: Duration = Duration::from_secs(60);
/// A plan has a row for each rule and each of up to 4,096 services.
const ANSWER_MAX: usize = 16 << 20;
const TOKEN_VARIABLE: &str = "TAILKEEP_ADMIN_TOKEN";

fn read(path: &Path) -> Result<String, CommandFailure> {
    read_text(path).map_err(|error| CommandFailure::Usage(format!("cannot read {}: {error}", path.display())))
}

const GZIP: &[u8] = &[0x1f, 0x8b];
/// What a compressed file may grow to.
const INFLATED_MAX: u64 = 1 << 30;

/// The file, decompressed if it is gzip.
fn read_trace(path: &Path) -> Result<Vec<u8>, CommandFailure> {
    let cannot = |error: std::io::Error| CommandFailure::Usage(format!("cannot read {}: {error}", path.display()));
    let file = std::fs::read(path).map_err(cannot)?;
    if !file.starts_with(GZIP) {
        return Ok(file);
    }
    let mut inflated = Vec::new();
    MultiGzDecoder::new(file.as_slice()).take(INFLATED_MAX + 1).read_to_end(&mut inflated).map_err(cannot)?;
    if inflated.len() as u64 > INFLATED_MAX {
        return Err(CommandFailure::Usage(format!("{} has more than 1 GiB when it is decompressed", path.display())));
    }
    Ok(inflated)
}

pub(super) fn explain(policy_file: Option<&Path>, trace: &Path) -> Result<(), CommandFailure> {
    let (file, text) = match policy_file {
        Some(path) => (path.display().to_string(), read(path)?),
        None => ("the built-in policy".to_owned(), Policy::builtin().to_owned()),
    };
    let (policy, _) = Policy::compile(&file, &text, 1, &mut RuleNames::default());
    let Some(policy) = policy else {
        return Err(CommandFailure::Usage(policy::check_policy(&file, &text, false).text));
    };
    let explained = policy::explain(&policy, &read_trace(trace)?);
    let explained = explained.map_err(|error| CommandFailure::Usage(format!("{}: {error}", trace.display())))?;
    print(&explained.to_string());
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
    let admin = AdminAddress::of(running)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CommandFailure::Running(error.to_string()))?;
    let body = runtime.block_on(admin.fetch(method, path, json))?;
    let url = &admin.url;
    serde_json::from_slice(&body)
        .map_err(|error| CommandFailure::Running(format!("{url} does not answer like an admin listener: {error}")))
}

/// Where a running tailkeep is asked.
struct AdminAddress {
    url: String,
    /// And where it stands.
    token: Option<(String, String)>,
}

impl AdminAddress {
    fn of(running: &Running) -> Result<AdminAddress, CommandFailure> {
        let from_environment = std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.is_empty());
        let from_environment = from_environment.map(|token| (token, TOKEN_VARIABLE.to_owned()));
        let Some(file) = &running.config else {
            let url = running.admin.as_deref().unwrap_or(USUAL_ADMIN);
            return Ok(AdminAddress { url: url.to_owned(), token: from_environment });
        };
        let config = super::serve::load(Some(file))?;
        let file = file.display();
        let from_file = config.admin_token.map(|token| (token.expose().to_owned(), format!("`admin.token` of {file}")));
        let url = match (&running.admin, config.admin) {
            (Some(url), _) => url.clone(),
            (None, Some(address)) if address.port() != 0 => format!("http://{}", near(address)),
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
        Ok(AdminAddress { url, token: from_file.or(from_environment) })
    }

    async fn fetch(&self, method: Method, path: &str, json: Bytes) -> Result<Bytes, CommandFailure> {
        let url = format!("{}/{path}", self.url.trim_end_matches('/'));
        let client =
            Client::new(ClientSettings { timeout: ANSWER_TIME, response_max: ANSWER_MAX, ..ClientSettings::default() })
                .map_err(CommandFailure::Running)?;
        let mut request = http::Request::builder().method(method).uri(&url);
        if let Some((token, _)) = &self.token {
            request = request.header(http::header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if !json.is_empty() {
            request = request.header(http::header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(json).map_err(|error| CommandFailure::Usage(format!("--admin {url}: {error}")))?;
        let help = "is tailkeep running, and is `admin.listen` of its configuration there?";
        let answered = client.send(request).await;
        let response = answered.map_err(|error| CommandFailure::Running(format!("{url}: {error}; {help}")))?;
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
        if response.status == http::StatusCode::BAD_REQUEST {
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
fn ago(duration: Duration) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(duration).as_nanos() as u64
}

pub(super) fn traces(wanted: &Traces) -> Result<(), CommandFailure> {
    let path = match &wanted.store {
        Some(path) => path.clone(),
        None => super::serve::store_of(wanted.config.as_deref())?,
    };
    if !path.exists() {
        let path = path.display();
        return Err(CommandFailure::Usage(format!(
            "there is no store at {path} yet: it is made when the first trace is kept"
        )));
    }
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
    }
    Ok(())
}
