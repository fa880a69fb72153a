//! The section `sinks`: names, kinds and what each kind needs.

mod arms;
mod auth;
mod otlp;
mod sls;

pub(super) use auth::KEYS_BY_TYPE as AUTH_KEYS;

use super::expand::{Substituted, conceal_text};
use super::load::Loader;
use crate::deliver::sink::arms::{Arms, ArmsSettings};
use crate::deliver::sink::file::{FileSettings, FileSink, RecordFormat};
use crate::deliver::sink::otlp::{OtlpSettings, OtlpSink, place};
use crate::deliver::sink::sls::{Sls, SlsSettings};
use crate::deliver::sink::store::{StoreSettings, StoreSink};
use crate::deliver::{HopMemory, Sink};
use crate::diagnostic::{Diagnostic, Severity, Span};
use crate::identity::World;
use crate::store::SIZE_MIN;
use crate::trace::Signal;
use crate::yaml::{Map, MappingEntry, Node, Reader, Value};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(super) const KEYS: &[&str] = &["name", "rules", "store", "otlp", "arms", "sls", "file"];
const KINDS: &[&str] = &["store", "otlp", "arms", "sls", "file"];
pub(super) const STORE_KEYS: &[&str] = &["path", "size"];
pub(super) const FILE_KEYS: &[&str] = &["path", "format", "size", "keep", "signals"];
pub(super) use arms::{KEYS as ARMS_KEYS, LICENSE_KEYS, URL_KEYS as ARMS_URL_KEYS};
pub(super) use otlp::{KEYS as OTLP_KEYS, URL_KEYS as OTLP_URL_KEYS};
pub(super) use sls::KEYS as SLS_KEYS;

/// 1 GiB, about a week of a small cluster's kept traces.
const STORE_SIZE: u64 = 1 << 30;
const NAME_MAX: usize = 64;
/// What the accounts call signals that no sink takes.
const RESERVED: &str = "none";

/// A sink as the file describes it. `Debug` shows nothing that may be a secret.
pub struct SinkConfig {
    /// Unique; labels metrics.
    pub name: String,
    pub kind: SinkKind,
    /// It gets the traces of these rules alone; of all if there are none.
    pub rules: Option<Vec<RuleRef>>,
    origin: SettingsOrigin,
}

/// A rule by its name, and where a sink names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RuleRef {
    pub name: String,
    pub(super) span: Span,
}

/// One kind of sink with its settings.
pub enum SinkKind {
    Store(StoreSettings),
    Otlp(Box<OtlpSettings>),
    Arms(Box<ArmsSettings>),
    Sls(Box<SlsSettings>),
    File(FileSettings),
}

impl SinkKind {
    /// As the file writes it.
    pub fn word(&self) -> &'static str {
        match self {
            SinkKind::Store(_) => "store",
            SinkKind::Otlp(_) => "otlp",
            SinkKind::Arms(_) => "arms",
            SinkKind::Sls(_) => "sls",
            SinkKind::File(_) => "file",
        }
    }
}

impl SinkConfig {
    /// The names of its `rules`.
    pub fn rule_names(&self) -> Option<Vec<String>> {
        self.rules.as_ref().map(|rules| rules.iter().map(|rule| rule.name.clone()).collect())
    }

    /// Where it delivers to, for logs: no more of a URL than its host, for the rest may be a token.
    pub fn destination(&self) -> String {
        let host = |url: &str| url.parse().map_or_else(|_| "a wrong URL".to_owned(), |url| place(&url));
        match &self.kind {
            SinkKind::Store(settings) => settings.path.display().to_string(),
            SinkKind::File(settings) => settings.folder.display().to_string(),
            SinkKind::Otlp(settings) => host(&settings.endpoint),
            SinkKind::Arms(settings) => {
                let urls = [&settings.endpoint, &settings.traces_url, &settings.metrics_url];
                urls.into_iter().flatten().next().map_or_else(String::new, |url| host(url.expose()))
            }
            SinkKind::Sls(settings) => format!("project {} at {}", settings.project, settings.endpoint),
        }
    }
}

impl fmt::Debug for SinkConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SinkConfig").field("name", &self.name).field("kind", &self.kind.word()).finish_non_exhaustive()
    }
}

/// Where a sink's settings stand, for what shows only when it is built.
struct SettingsOrigin {
    section: Span,
    /// Where the section's last value ends.
    end: usize,
    values: Vec<(String, Span)>,
    substituted: Vec<Substituted>,
}

impl SinkConfig {
    /// Builds the sink: reads certificate files and looks at the variables that its keys come from, but
    /// connects to nothing.
    ///
    /// # Errors
    /// What to write instead. The text holds no secret.
    pub fn build(&self, world: &World) -> Result<Box<dyn Sink>, String> {
        fn boxed(sink: impl Sink) -> Box<dyn Sink> {
            Box::new(sink)
        }
        let built = match &self.kind {
            SinkKind::Store(settings) => StoreSink::new(settings.clone()).map(boxed),
            SinkKind::Otlp(settings) => OtlpSink::new((**settings).clone()).map(boxed),
            SinkKind::Arms(settings) => Arms::new((**settings).clone()).map(boxed),
            SinkKind::Sls(settings) => Sls::new((**settings).clone(), world.clone()).map(boxed),
            SinkKind::File(settings) => Ok(boxed(FileSink::new(settings.clone()))),
        };
        built.map_err(|error| conceal_text(&error, &self.origin.substituted))
    }

    /// `queue.longest_refusal`, for the sink that divides batches itself.
    pub(super) fn set_longest_refusal(&mut self, longest: Duration) {
        if let SinkKind::Sls(settings) = &mut self.kind {
            settings.longest_refusal = longest;
        }
    }

    /// Reports what [`SinkConfig::build`] said where it belongs: sinks begin their errors with the setting
    /// at fault.
    pub(super) fn report(&self, reader: &mut Reader, error: &str) {
        let span = self.span_of(error.split_once(": ").map_or("", |(setting, _)| setting));
        let title = format!("the sink `{}` cannot be built", self.name);
        // Most errors say it themselves.
        let help = format!("config/tailkeep.yaml shows every key of `{}` with its values", self.kind.word());
        reader.error("C09", span, title, error).help(help);
    }

    /// Some setting has an error already: what building it says besides may only follow from that.
    pub(super) fn has_error(&self, diagnostics: &[Diagnostic]) -> bool {
        let section = self.origin.section.start..=self.origin.end;
        diagnostics.iter().any(|d| d.severity == Severity::Error && section.contains(&d.span.start))
    }

    /// Where a setting's value stands, or else the sink.
    pub(super) fn span_of(&self, key: &str) -> Span {
        let value = self.origin.values.iter().find(|(known, _)| known == key);
        value.map_or(self.origin.section, |(_, span)| *span)
    }
}

/// The sinks of a file that names none: a store in the user's data folder.
pub(super) fn default_sinks(loader: &mut Loader<'_>, map: &Map<'_>) -> Vec<SinkConfig> {
    let Some(path) = default_store(loader) else {
        loader
            .reader
            .error("C07", map.span, "no sink is named, and there is no place for a store", "add `sinks:`")
            .help("write `sinks: [{ store: { path: /var/lib/tailkeep/tailkeep.db } }]`, or set HOME");
        return Vec::new();
    };
    let origin = SettingsOrigin { section: map.span, end: map.span.end, values: Vec::new(), substituted: Vec::new() };
    let kind = SinkKind::Store(StoreSettings { path, size: STORE_SIZE });
    vec![SinkConfig { name: kind.word().to_owned(), kind, rules: None, origin }]
}

fn default_store(loader: &Loader<'_>) -> Option<PathBuf> {
    loader.host.data_folder.as_ref().map(|folder| folder.join("tailkeep.db"))
}

pub(super) fn sinks(loader: &mut Loader<'_>, node: &Node, hops: &HopMemory) -> Vec<SinkConfig> {
    let Some(items) = loader.reader.list(node, "`sinks`") else { return Vec::new() };
    if items.is_empty() {
        loader
            .reader
            .warn("C13", node.span, "nothing is delivered anywhere", "no sink")
            .help("leave `sinks` out for a store in your data folder");
    }
    let mut seen = SeenNames::default();
    items.iter().filter_map(|item| sink(loader, item, hops, &mut seen)).collect()
}

/// What may not be there twice.
#[derive(Default)]
struct SeenNames {
    names: Vec<(String, Span)>,
    places: Vec<(PathBuf, Span)>,
}

fn sink(loader: &mut Loader<'_>, node: &Node, hops: &HopMemory, seen: &mut SeenNames) -> Option<SinkConfig> {
    let map = loader.reader.map(node, "a sink", KEYS)?;
    // Whatever is wrong with one part, the others are read: all problems are reported at once.
    let kinds: Vec<&MappingEntry> = map.entries.iter().filter(|entry| KINDS.contains(&entry.key.as_str())).collect();
    refuse_all_but_one(loader, &map, &kinds);
    let name = name(loader, &map, kinds.first().copied(), seen);
    let read: Vec<Option<SinkKind>> = kinds.iter().map(|entry| kind(loader, entry, hops, seen)).collect();
    let rules = map.get("rules").map(|node| rules(loader, node));
    let kind = read.into_iter().next()??;
    Some(SinkConfig { name: name?, kind, rules, origin: SettingsOrigin::of(loader, kinds.first()?) })
}

fn kind(loader: &mut Loader<'_>, entry: &MappingEntry, hops: &HopMemory, seen: &mut SeenNames) -> Option<SinkKind> {
    Some(match entry.key.as_str() {
        "store" => SinkKind::Store(store(loader, entry, seen)?),
        "otlp" => SinkKind::Otlp(Box::new(otlp::settings(loader, entry, hops)?)),
        "arms" => SinkKind::Arms(Box::new(arms::settings(loader, entry)?)),
        "sls" => SinkKind::Sls(Box::new(sls::settings(loader, entry)?)),
        _ => SinkKind::File(file(loader, entry, seen)?),
    })
}

fn rules(loader: &mut Loader<'_>, node: &Node) -> Vec<RuleRef> {
    let items = loader.reader.one_or_more(node, "`rules`").unwrap_or_default();
    let name = |item| Some(RuleRef { name: loader.reader.text(item, "`rules`")?.to_owned(), span: item.span });
    items.iter().filter_map(name).collect()
}

impl SettingsOrigin {
    fn of(loader: &Loader<'_>, entry: &MappingEntry) -> SettingsOrigin {
        let inside = |span: Span| entry.key_span.start <= span.start && span.end <= entry.value.span.end;
        let values = match &entry.value.value {
            Value::Map(entries) => entries.iter().map(|entry| (entry.key.clone(), entry.value.span)).collect(),
            _ => Vec::new(),
        };
        let substituted = loader.substituted.iter().filter(|s| inside(s.span)).cloned().collect();
        SettingsOrigin { section: entry.key_span, end: entry.value.span.end, values, substituted }
    }
}

/// A sink has one key that says what kind it is.
fn refuse_all_but_one(loader: &mut Loader<'_>, map: &Map<'_>, kinds: &[&MappingEntry]) {
    match kinds {
        [_] => {}
        [first, second, ..] => {
            loader
                .reader
                .error("C07", second.key_span, "a sink is of one kind only", "a second kind")
                .other(first.key_span, "the first")
                .help("begin another sink with `- name:`");
        }
        [] => {
            let unknown = map.entries.iter().any(|entry| !KEYS.contains(&entry.key.as_str()));
            if !unknown {
                let help = format!("add one of {}", KINDS.join(", "));
                loader.reader.error("C07", map.span, "this sink is of no kind", "where does it deliver to?").help(help);
            }
        }
    }
}

/// Its name, or the word for its kind.
fn name(loader: &mut Loader<'_>, map: &Map<'_>, kind: Option<&MappingEntry>, seen: &mut SeenNames) -> Option<String> {
    let (name, span) = match map.get("name") {
        Some(node) => (loader.reader.text(node, "`name`")?.to_owned(), node.span),
        None => (kind?.key.clone(), kind?.key_span),
    };
    let is_plain = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if !is_plain || name.len() > NAME_MAX || name == RESERVED {
        let title = format!("`{name}` is no name for a sink");
        loader
            .reader
            .error("C07", span, title, "names label metrics")
            .help(format!("use up to {NAME_MAX} letters, digits, `-`, `_` and `.`; not `{RESERVED}`"));
        return None;
    }
    if let Some((_, first)) = seen.names.iter().find(|(known, _)| *known == name) {
        let title = format!("two sinks are called `{name}`");
        let diagnostic = loader.reader.error("C07", span, title, "again here");
        diagnostic.other(*first, "first here").help("give each a `name` of its own");
        return None;
    }
    seen.names.push((name.clone(), span));
    Some(name)
}

fn store(loader: &mut Loader<'_>, entry: &MappingEntry, seen: &mut SeenNames) -> Option<StoreSettings> {
    let map = loader.map(&entry.value, "`store`", STORE_KEYS)?;
    let size = loader.size(&map, "size", SIZE_MIN..=1 << 44).unwrap_or(STORE_SIZE);
    if map.entry("path").is_some() {
        let path = loader.path(&map, "path")?;
        refuse_shared_place(loader, &path, entry, seen);
        return Some(StoreSettings { path, size });
    }
    let Some(path) = default_store(loader) else {
        let title = "there is no folder for the data of a user";
        let diagnostic = loader.reader.error("C07", entry.key_span, title, "`path:` is missing");
        diagnostic.help("write `path: /var/lib/tailkeep/tailkeep.db`, or set HOME");
        return None;
    };
    refuse_shared_place(loader, &path, entry, seen);
    Some(StoreSettings { path, size })
}

fn file(loader: &mut Loader<'_>, entry: &MappingEntry, seen: &mut SeenNames) -> Option<FileSettings> {
    let map = loader.map(&entry.value, "`file`", FILE_KEYS)?;
    let formats = [("json", RecordFormat::Json), ("protobuf", RecordFormat::Protobuf)];
    let format = loader.word(&map, "format", &formats).unwrap_or_default();
    let signals = loader.signals(&map, "signals", &Signal::ALL).unwrap_or([true; 3]);
    let size = loader.size(&map, "size", 1 << 10..=1 << 40).unwrap_or(64 << 20);
    let keep = loader.count(&map, "keep", 0..=1000).map_or(4, |keep| keep as u32);
    loader.require(&map, "path", "`file`")?;
    let folder = loader.path(&map, "path")?;
    refuse_shared_place(loader, &folder, entry, seen);
    Some(FileSettings { folder, format, signals, size, keep })
}

/// Two sinks that write into the same file would destroy it.
fn refuse_shared_place(loader: &mut Loader<'_>, path: &Path, entry: &MappingEntry, seen: &mut SeenNames) {
    if let Some((_, first)) = seen.places.iter().find(|(known, _)| known == path) {
        let title = "two sinks write to the same place";
        let diagnostic = loader.reader.error("C07", entry.key_span, title, "this one");
        diagnostic.other(*first, "and this one").help("give each a `path` of its own");
    }
    seen.places.push((path.to_owned(), entry.key_span));
}
