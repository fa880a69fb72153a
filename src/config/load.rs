//! Takes the file apart: typed values by key, each problem reported where it stands.
//!
//! Getters give `None` both for a key that is not there and for a value that cannot be used; the latter is
//! reported, and then no configuration comes out. So the caller's default never hides a problem.

use super::Host;
use super::expand::{Sources, Substituted, Variables, conceal, expand, protect};
use super::phrases::PHRASES;
use crate::deliver::sink::headers::SinkHeaders;
use crate::diagnostic::{Diagnostic, Span};
use crate::http_client::{ClientCertificate, ClientSettings, TlsSettings};
use crate::secret::{FileText, Secret, SecretSource};
use crate::tls::TlsFiles;
use crate::trace::Signal;
use crate::watched_files::CHECK_EVERY;
use crate::yaml::{Map, Meaning, Node, Reader, Value};
use http::uri::Authority;
use http::{HeaderName, HeaderValue, Uri};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(super) const SERVER_TLS_KEYS: &[&str] = &["cert", "key", "client_ca", "check_every"];
pub(super) const CLIENT_TLS_KEYS: &[&str] = &["ca_file", "cert", "key"];

/// Where a sink connects to.
pub(super) struct Target {
    pub host: String,
    pub port: u16,
    pub span: Span,
}

pub(super) struct Loader<'a> {
    pub reader: Reader,
    pub host: &'a Host,
    pub targets: Vec<Target>,
    pub substituted: Vec<Substituted>,
    folder: PathBuf,
}

impl<'a> Loader<'a> {
    pub fn new(file: &Path, host: &'a Host) -> Loader<'a> {
        let folder = file.parent().unwrap_or(Path::new("")).to_owned();
        let reader = Reader::speaking(file.display().to_string(), PHRASES);
        Loader { reader, host, targets: Vec::new(), substituted: Vec::new(), folder }
    }

    /// The tree with what `${…}` stands for put in. `None` without an error: nothing is in the file.
    pub fn parse(&mut self, text: &str, variables: Variables<'_>) -> Option<Node> {
        let mut root = self.reader.parse(&protect(text))?;
        self.refuse_run_on(&mut root, text);
        let sources = Sources { variables, folder: &self.folder };
        expand(&mut self.reader, &mut root, sources, &mut self.substituted);
        Some(root)
    }

    /// A line that is too deep is part of the value above it, which an error would quote: with a secret.
    fn refuse_run_on(&mut self, node: &mut Node, text: &str) {
        let is_run_on = text.get(node.span.start..node.span.end).is_some_and(|written| written.contains('\n'));
        match &mut node.value {
            Value::Refused => {}
            Value::List(items) => items.iter_mut().for_each(|item| self.refuse_run_on(item, text)),
            Value::Map(entries) => entries.iter_mut().for_each(|entry| self.refuse_run_on(&mut entry.value, text)),
            Value::Scalar(scalar) if scalar.plain && is_run_on => {
                let help = "write it in one line; a key begins below the first letter of the one above";
                self.reader.error("Y01", node.span, "this value goes on in the next line", "it goes on").help(help);
                node.value = Value::Refused;
            }
            Value::Scalar(_) => {}
        }
    }

    /// All problems, in the order of the file.
    pub fn finish(self) -> Vec<Diagnostic> {
        let mut diagnostics = self.reader.finish();
        conceal(&mut diagnostics, &self.substituted);
        diagnostics
    }

    fn read<T>(
        &mut self,
        map: &Map<'_>,
        key: &str,
        read: impl FnOnce(&mut Self, &Node, &str) -> Option<T>,
    ) -> Option<T> {
        let node = map.get(key)?;
        read(self, node, &format!("`{key}`"))
    }

    /// The mapping under a key.
    pub fn section<'n>(&mut self, map: &Map<'n>, key: &str, known: &[&str]) -> Option<Map<'n>> {
        self.map(map.get(key)?, &format!("`{key}`"), known)
    }

    /// A mapping with these keys only. One whose last key was commented out is empty.
    pub fn map<'n>(&mut self, node: &'n Node, what: &str, known: &[&str]) -> Option<Map<'n>> {
        if is_nothing(node) {
            return Some(Map { span: node.span, entries: &[] });
        }
        self.reader.map(node, what, known)
    }

    /// The value under a key that must be there.
    pub fn require<'n>(&mut self, map: &Map<'n>, key: &str, what: &str) -> Option<&'n Node> {
        self.reader.require(map, key, what)
    }

    pub fn text(&mut self, map: &Map<'_>, key: &str) -> Option<String> {
        self.read(map, key, |loader, node, what| loader.reader.text(node, what).map(str::to_owned))
    }

    pub fn bool(&mut self, map: &Map<'_>, key: &str) -> Option<bool> {
        self.read(map, key, |loader, node, what| loader.reader.bool(node, what))
    }

    pub fn word<T: Copy>(&mut self, map: &Map<'_>, key: &str, words: &[(&str, T)]) -> Option<T> {
        self.read(map, key, |loader, node, what| loader.reader.word(node, what, words))
    }

    pub fn count(&mut self, map: &Map<'_>, key: &str, range: RangeInclusive<u64>) -> Option<u64> {
        self.read(map, key, |loader, node, what| loader.reader.integer(node, what, range))
    }

    /// A file or folder; a relative one is relative to the folder of this file.
    pub fn path(&mut self, map: &Map<'_>, key: &str) -> Option<PathBuf> {
        self.text(map, key).map(|text| self.folder.join(text))
    }

    pub fn size(&mut self, map: &Map<'_>, key: &str, range: RangeInclusive<u64>) -> Option<u64> {
        self.read(map, key, |loader, node, what| loader.size_of(node, what, range))
    }

    pub fn size_of(&mut self, node: &Node, what: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let size = self.reader.size(node, what)?;
        let bounds = (show_bytes(*range.start()), show_bytes(*range.end()));
        self.within(node, what, size, &range, bounds)
    }

    pub fn duration(&mut self, map: &Map<'_>, key: &str, range: RangeInclusive<Duration>) -> Option<Duration> {
        self.read(map, key, |loader, node, what| {
            let duration = loader.reader.duration(node, what)?;
            let bounds = (format!("{:?}", range.start()), format!("{:?}", range.end()));
            loader.within(node, what, duration, &range, bounds)
        })
    }

    fn within<T: PartialOrd>(
        &mut self,
        node: &Node,
        what: &str,
        value: T,
        range: &RangeInclusive<T>,
        (low, high): (String, String),
    ) -> Option<T> {
        if range.contains(&value) {
            return Some(value);
        }
        let (problem, help) = match value < *range.start() {
            true => ("is too little", format!("write at least `{low}`")),
            false => ("is too much", format!("write at most `{high}`")),
        };
        self.reader.unreadable(node, what, problem, &help)
    }

    /// A secret; one that stands in the file itself is warned of.
    pub fn secret(&mut self, map: &Map<'_>, key: &str) -> Option<Secret> {
        self.secret_of(map.get(key)?, key)
    }

    fn secret_of(&mut self, node: &Node, key: &str) -> Option<Secret> {
        let secret = self.reader.text(node, &format!("`{key}`")).map(Secret::new)?;
        if !self.is_substituted(node.span) {
            let name = key.to_ascii_uppercase();
            self.reader
                .warn("C12", node.span, format!("the secret of `{key}` stands in this file"), "readable by many")
                .help(format!(
                    "write `${{env:{name}}}` and set the environment variable {name}, or `${{file:/path}}` where a file \
                     holds it"
                ));
        }
        Some(secret)
    }

    /// A secret that may be renewed where a file holds it.
    pub fn secret_source(&mut self, map: &Map<'_>, key: &str) -> Option<SecretSource> {
        self.secret_source_of(map.get(key)?, key)
    }

    pub fn secret_source_of(&mut self, node: &Node, key: &str) -> Option<SecretSource> {
        let secret = self.secret_of(node, key)?;
        Some(SecretSource { secret, file: self.file_of(node.span) })
    }

    fn file_of(&self, span: Span) -> Option<FileText> {
        self.substituted.iter().find(|substituted| substituted.span == span)?.file(&self.folder)
    }

    fn is_substituted(&self, span: Span) -> bool {
        self.substituted.iter().any(|substituted| substituted.span == span)
    }

    /// An address to listen on, or none where it says `off`.
    pub fn listener(&mut self, map: &Map<'_>, key: &str) -> Option<Option<SocketAddr>> {
        self.read(map, key, |loader, node, what| match is_off(node) {
            true => Some(None),
            false => loader.address_of(node, what).map(Some),
        })
    }

    pub fn address_of(&mut self, node: &Node, what: &str) -> Option<SocketAddr> {
        let text = self.reader.text(node, what)?;
        let address = match text.strip_prefix("localhost:") {
            Some(port) => port.parse().ok().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
            None => text.parse().ok(),
        };
        if address.is_none() {
            let help = match (text.parse::<u16>(), text.strip_prefix(':'), text.parse::<IpAddr>()) {
                (Ok(port), ..) => format!("write `127.0.0.1:{port}`, or `0.0.0.0:{port}` for all addresses"),
                (_, Some(port), _) => format!("write `0.0.0.0:{port}` for all addresses"),
                (.., Ok(ip)) => format!("add a port: `{}`", SocketAddr::new(ip, 4317)),
                _ => "write an IP address and a port, like `127.0.0.1:4317`, or `[::]:4317` for all".to_owned(),
            };
            let title = format!("`{text}` is no address to listen on");
            self.reader.error("C03", node.span, title, format!("the value of {what}")).help(help);
        }
        address
    }

    /// Signals to take, in the order of [`Signal::ALL`].
    pub fn signals(&mut self, map: &Map<'_>, key: &str, known: &[Signal]) -> Option<[bool; 3]> {
        let words: Vec<(&str, Signal)> = known.iter().map(|signal| (signal.word(), *signal)).collect();
        self.read(map, key, |loader, node, what| {
            let mut taken = [false; 3];
            for item in loader.reader.one_or_more(node, what)? {
                taken[loader.reader.word(item, what, &words)? as usize] = true;
            }
            Some(taken)
        })
    }

    /// Header names with their values, which may be secrets.
    pub fn headers(&mut self, map: &Map<'_>, key: &str) -> Option<SinkHeaders> {
        let node = map.get(key)?;
        let entries = self.reader.any_map(node, &format!("`{key}`"))?.entries;
        let mut headers = SinkHeaders::default();
        for entry in entries {
            let Ok(name) = HeaderName::try_from(entry.key.as_str()) else {
                let title = "this is no name of a header";
                self.reader.error("C09", entry.key_span, title, "no header").help("write letters, digits and `-`");
                continue;
            };
            let Some(text) = self.reader.scalar(&entry.value, "the value of a header") else { continue };
            match HeaderValue::from_str(&text.text) {
                Ok(value) => match self.file_of(entry.value.span) {
                    None => drop(headers.fixed.append(name, value)),
                    file => {
                        let secret = Secret::new(text.text.as_str());
                        headers.renewed.push((name, SecretSource { secret, file }));
                    }
                },
                Err(_) => {
                    let title = format!("the value of `{name}` has characters that no header has");
                    let diagnostic = self.reader.error("C09", entry.value.span, title, "no value of a header");
                    diagnostic.help("write visible ASCII in one line");
                }
            }
        }
        Some(headers)
    }

    /// How a sink connects: `timeout`, `connect_timeout`, `tls` and `connect_to` of its section.
    pub fn client(&mut self, map: &Map<'_>) -> ClientSettings {
        let default = ClientSettings::default();
        let range = Duration::from_millis(10)..=Duration::from_secs(600);
        ClientSettings {
            tls: Some(self.client_tls(map)),
            connect_to: self.connect_to(map, "connect_to"),
            connect_timeout: self.duration(map, "connect_timeout", range.clone()).unwrap_or(default.connect_timeout),
            timeout: self.duration(map, "timeout", range).unwrap_or(default.timeout),
            ..default
        }
    }

    pub fn client_tls(&mut self, map: &Map<'_>) -> TlsSettings {
        let Some(tls) = self.section(map, "tls", CLIENT_TLS_KEYS) else { return TlsSettings::default() };
        let (cert, key) = (self.path(&tls, "cert"), self.path(&tls, "key"));
        self.need_each_other(&tls, "cert", "key");
        let identity = cert.zip(key);
        let identity = identity.map(|(certificate_file, key_file)| ClientCertificate { certificate_file, key_file });
        TlsSettings { ca_file: self.path(&tls, "ca_file"), identity }
    }

    /// The files that make a listener speak TLS.
    pub fn server_tls(&mut self, map: &Map<'_>) -> Option<TlsFiles> {
        let tls = self.section(map, "tls", SERVER_TLS_KEYS)?;
        let cert = self.require(&tls, "cert", "`tls` of a listener").and_then(|_| self.path(&tls, "cert"));
        let key = self.require(&tls, "key", "`tls` of a listener").and_then(|_| self.path(&tls, "key"));
        let client_ca = self.path(&tls, "client_ca");
        let range = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);
        let check_every = self.duration(&tls, "check_every", range).unwrap_or(CHECK_EVERY);
        cert.zip(key).map(|(cert, key)| TlsFiles { cert, key, client_ca, check_every })
    }

    /// Reports a key without its partner.
    pub fn need_each_other(&mut self, map: &Map<'_>, one: &str, other: &str) {
        let lonely = match (map.entry(one), map.entry(other)) {
            (Some(entry), None) => Some((entry, other)),
            (None, Some(entry)) => Some((entry, one)),
            _ => None,
        };
        if let Some((entry, missing)) = lonely {
            let title = format!("`{}` says nothing without `{missing}`", entry.key);
            let help = format!("add `{missing}: …`");
            self.reader.error("C11", entry.key_span, title, format!("`{missing}:` is missing")).help(help);
        }
    }

    /// `HOST:PORT`.
    pub fn connect_to(&mut self, map: &Map<'_>, key: &str) -> Option<String> {
        self.read(map, key, |loader, node, what| {
            let text = loader.reader.text(node, what)?;
            let has_both = |authority: Authority| authority.port_u16().is_some() && !authority.as_str().contains('@');
            if text.parse().is_ok_and(has_both) {
                return Some(text.to_owned());
            }
            let title = format!("`{text}` is no place to connect to");
            let label = format!("the value of {what}");
            loader.reader.error("C09", node.span, title, label).help("write `HOST:PORT`");
            None
        })
    }

    /// Takes note of where a sink connects to: `connect_to`, or what `urls` name.
    pub fn note_targets<'t>(&mut self, map: &Map<'_>, urls: impl IntoIterator<Item = (&'t str, Span)>) {
        if let Some(node) = map.get("connect_to") {
            let Value::Scalar(scalar) = &node.value else { return };
            return self.note_target(&format!("http://{}", scalar.text), node.span);
        }
        urls.into_iter().for_each(|(url, span)| self.note_target(url, span));
    }

    fn note_target(&mut self, url: &str, span: Span) {
        let Ok(url) = url.parse::<Uri>() else { return };
        let Some(host) = url.host() else { return };
        let usual = if url.scheme_str() == Some("http") { 80 } else { 443 };
        let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
        self.targets.push(Target { host, port: url.port_u16().unwrap_or(usual), span });
    }
}

pub(super) fn is_nothing(node: &Node) -> bool {
    matches!(&node.value, Value::Scalar(scalar) if scalar.meaning() == Meaning::Null)
}

/// The word that switches something off.
pub(super) fn is_off(node: &Node) -> bool {
    matches!(&node.value, Value::Scalar(scalar) if scalar.meaning() == Meaning::Text("off"))
}

fn show_bytes(bytes: u64) -> String {
    super::budget::show_size(usize::try_from(bytes).unwrap_or(usize::MAX))
}
