//! What shows only when the parts of a configuration are seen together: ports, sinks, the policy's file.

use super::load::{Loader, Target};
use super::place::places;
use super::{Config, Host, PolicySource, drawable, parse, read_text, routes};
use crate::diagnostic::{Diagnostic, Span, count_line, has_errors, render};
use crate::identity::World;
use crate::policy::{CheckReport, Policy, check_policy};
use crate::tls::TlsFiles;
use crate::trace::RuleNames;
use crate::yaml::{Map, Node, Reader, Value};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

/// An address that we listen on, and where the file says so, if it does.
struct ListenAddress {
    key: &'static str,
    address: SocketAddr,
    span: Option<Span>,
}

/// Reports listeners that take each other's port, and sinks that would deliver to ourselves.
pub(super) fn check_ports(loader: &mut Loader<'_>, map: &Map<'_>, config: &Config) {
    let listeners = listeners(map, config);
    for (index, listener) in listeners.iter().enumerate() {
        let Some(other) = listeners[..index].iter().find(|other| collide(other.address, listener.address)) else {
            continue;
        };
        let title = format!("`{}` and `{}` listen on the same port", other.key, listener.key);
        let span = listener.span.or(other.span).unwrap_or(map.span);
        let port = listener.address.port();
        let diagnostic = loader.reader.error("C04", span, title, format!("port {port} again"));
        if let (Some(_), Some(first)) = (listener.span, other.span) {
            diagnostic.other(first, "first here");
        }
        diagnostic.help("give each listener a port of its own");
    }
    for target in std::mem::take(&mut loader.targets) {
        let Some(listener) = listeners.iter().find(|listener| leads_to(&target, listener.address)) else { continue };
        let title = format!("this sink delivers to our own `{}`", listener.key);
        loader
            .reader
            .error("C08", target.span, title, "what leaves here would come in again")
            .help("write the address of the next collector or backend");
    }
}

fn listeners(map: &Map<'_>, config: &Config) -> Vec<ListenAddress> {
    let span = |section: &str, key: &str| map.get(section).and_then(|section| span_of(section, &[key]));
    let all = [
        ("receive.grpc", config.receive.grpc, span("receive", "grpc")),
        ("receive.http", config.receive.http, span("receive", "http")),
        ("health.listen", config.health, span("health", "listen")),
        ("admin.listen", config.admin, span("admin", "listen")),
    ];
    all.into_iter().filter_map(|(key, address, span)| Some(ListenAddress { key, address: address?, span })).collect()
}

/// Where the value under these keys stands, if it does.
fn span_of(node: &Node, keys: &[&str]) -> Option<Span> {
    let Some((first, rest)) = keys.split_first() else { return Some(node.span) };
    let Value::Map(entries) = &node.value else { return None };
    span_of(Map { span: node.span, entries }.get(first)?, rest)
}

/// Port 0 is any free port.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let same_ip = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && same_ip
}

/// Whether a connection to `target` may arrive at `listener`, as far as the names tell.
fn leads_to(target: &Target, listener: SocketAddr) -> bool {
    let is_here = |ip: IpAddr| ip.is_loopback() || ip.is_unspecified();
    let same_host = match target.host.parse::<IpAddr>() {
        Ok(ip) => ip == listener.ip() || is_here(ip) && is_here(listener.ip()),
        Err(_) => target.host == "localhost" && is_here(listener.ip()),
    };
    same_host && target.port == listener.port()
}

/// Checks files without starting anything: a policy alone, or a configuration with what its sinks need and the
/// policy, which is the one it names unless `policy` names another. Without either it is the built-in
/// configuration.
pub fn check_config(
    file: Option<&Path>,
    policy: Option<&Path>,
    variables: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
    host: &Host,
    color: bool,
) -> CheckReport {
    let policy_report = policy.map(|path| match read_text(path) {
        Ok(text) => check_policy(&path.display().to_string(), &text, color),
        Err(error) => unreadable(path, &error),
    });
    if let (None, Some(report)) = (file, &policy_report) {
        return report.clone();
    }
    let text = match file.map(read_text).transpose() {
        Ok(text) => text.unwrap_or_default(),
        Err(error) => return unreadable(file.unwrap_or(Path::new("")), &error),
    };
    let file = file.unwrap_or(Path::new("the built-in configuration"));
    let world = World { variable: Arc::new(variables), ..World::system() };
    let (config, mut diagnostics, root) = parse(file, &text, &|name| (world.variable)(name), host);
    let mut reader = Reader::new(file.display().to_string());
    let mut policy_report = policy_report;
    if let Some(config) = &config {
        refuse_unbuildable(config, &diagnostics, &world, &mut reader);
        refuse_unusable_tls(config, &root, &mut reader);
        warn_of_places(config, &root, &mut reader);
        check_routes(config, policy, &mut reader);
        if let (None, PolicySource::File(path)) = (&policy_report, &config.policy) {
            let named_at = span_of(&root, &["policy"]).unwrap_or(root.span);
            policy_report = check_named_policy(path, named_at, BUILTIN_HELP, &mut reader, color);
        }
        if let Some(path) = &config.policy_shadow {
            let named_at = span_of(&root, &["policy_shadow"]).unwrap_or(root.span);
            let shadow = check_named_policy(path, named_at, SHADOW_HELP, &mut reader, color);
            policy_report = [policy_report, shadow].into_iter().flatten().reduce(CheckReport::and);
        }
    }
    diagnostics.extend(reader.finish());
    diagnostics.sort_by_key(|diagnostic| diagnostic.span.start);
    let report = report(&file.display().to_string(), &text, &diagnostics, color);
    match policy_report {
        None => report,
        Some(policy) => report.and(policy),
    }
}

fn unreadable(file: &Path, error: &io::Error) -> CheckReport {
    CheckReport { text: format!("cannot read {}: {error}\n", file.display()), exit_code: 2 }
}

/// What a sink needs besides the file: certificates, and variables that hold its keys.
fn refuse_unbuildable(config: &Config, diagnostics: &[Diagnostic], world: &World, reader: &mut Reader) {
    for sink in config.sinks.iter().filter(|sink| !sink.has_error(diagnostics)) {
        if let Err(error) = sink.build(world) {
            sink.report(reader, &error);
        }
    }
}

/// The listeners' certificates.
fn refuse_unusable_tls(config: &Config, root: &Node, reader: &mut Reader) {
    for (section, files) in [("receive", &config.receive.tls), ("admin", &config.admin_tls)] {
        let Some(Err(error)) = files.as_ref().map(TlsFiles::check) else { continue };
        let span = span_of(root, &[section, "tls", error.key]).unwrap_or(root.span);
        let title = format!("`{section}.tls.{}` cannot be used", error.key);
        reader
            .error("C17", span, title, error.problem)
            .help("write the path of a PEM file; a path is relative to the folder of this file");
    }
}

/// Only warned of: on the machine where it is to run, the folder may be there.
fn warn_of_places(config: &Config, root: &Node, reader: &mut Reader) {
    for place in places(config) {
        let Some(problem) = place.problem() else { continue };
        let span = match place.sink {
            Some(sink) => Some(sink.span_of("path")),
            None => span_of(root, &["queue", "path"]),
        };
        let title = format!("{} cannot be written on this machine", place.setting());
        reader
            .warn("C17", span.unwrap_or(root.span), title, problem)
            .help("tailkeep would not start: write a place that it may write to; it creates missing folders itself");
    }
}

/// The rules that sinks name, if there is a policy that can be read: `instead`, or the one that the file names.
fn check_routes(config: &Config, instead: Option<&Path>, reader: &mut Reader) {
    let (file, text) = match (instead, &config.policy) {
        (Some(path), _) => (path.display().to_string(), read_text(path).ok()),
        (None, PolicySource::File(path)) => (path.display().to_string(), read_text(path).ok()),
        (None, PolicySource::Builtin) => ("the built-in policy".to_owned(), Some(Policy::builtin().to_owned())),
    };
    let policy = text.and_then(|text| Policy::compile(&file, &text, 0, &mut RuleNames::default()).0);
    if let Some(policy) = policy {
        routes::report(config, &policy, reader);
    }
}

const BUILTIN_HELP: &str = "a path is relative to the folder of this file; `builtin` needs none";
const SHADOW_HELP: &str = "a path is relative to the folder of this file; without a candidate leave the key out";

fn check_named_policy(
    path: &Path,
    named_at: Span,
    help: &str,
    reader: &mut Reader,
    color: bool,
) -> Option<CheckReport> {
    match read_text(path) {
        Ok(text) => Some(check_policy(&path.display().to_string(), &text, color)),
        Err(error) => {
            reader.error("C15", named_at, "the policy cannot be read", error.to_string()).help(help);
            None
        }
    }
}

fn report(file: &str, text: &str, diagnostics: &[Diagnostic], color: bool) -> CheckReport {
    let exit_code = if has_errors(diagnostics) { 2 } else { 0 };
    let drawn = render(diagnostics, &drawable(text), color);
    let last = match (count_line(diagnostics, file), exit_code) {
        (None, _) => format!("{file}: no problem"),
        (Some(counts), 0) => format!("{counts}; the configuration can be used"),
        (Some(counts), _) => format!("{counts}; nothing was started"),
    };
    CheckReport { text: format!("{drawn}{last}\n"), exit_code }
}
