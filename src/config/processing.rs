//! The section `processing`.

use super::load::Loader;
use crate::measure::MeterSettings;
use crate::policy::names_of;
use crate::processing::{HashKey, Keys, MASKS_MAX, Mask, ProcessingSettings, Words};
use crate::yaml::{Map, Node, Value};
use regex::{Regex, RegexBuilder};

pub(super) const KEYS: &[&str] = &["drop", "hash", "hash_key", "mask", "resource"];
pub(super) const MASK_KEYS: &[&str] = &["key", "matches"];

/// One expression may not take more memory than this when compiled.
const REGEX_SIZE_MAX: usize = 1 << 20;

pub(super) fn settings(loader: &mut Loader<'_>, map: &Map<'_>, measure: Option<&MeterSettings>) -> ProcessingSettings {
    let Some(section) = loader.section(map, "processing", KEYS) else { return ProcessingSettings::default() };
    let drop = section.get("drop").map(|node| keys(loader, node, "`drop`", measure)).unwrap_or_default();
    let hash = section.get("hash").map(|node| keys(loader, node, "`hash`", measure)).unwrap_or_default();
    let masks = section.get("mask").map(|node| masks(loader, node, measure)).unwrap_or_default();
    ProcessingSettings {
        hash_key: hash_key(loader, &section),
        drop,
        hash,
        masks,
        resource: section.get("resource").map(|node| resource(loader, node)).unwrap_or_default(),
    }
}

fn hash_key(loader: &mut Loader<'_>, section: &Map<'_>) -> Option<HashKey> {
    if let (Some(hash), None) = (section.entry("hash"), section.entry("hash_key")) {
        let title = "without a key, whoever has a hash can find a short value by trying them all";
        let help = "add `hash_key: ${env:TAILKEEP_HASH_KEY}`, the same for all replicas, with 32 random characters";
        loader.reader.warn("C20", hash.key_span, title, "SHA-256 alone").help(help);
    }
    let key = loader.secret(section, "hash_key")?;
    Some(HashKey(key.expose().as_bytes().into()))
}

/// Names of attributes, one or several, each with its older and newer ones. A `*` stands for anything.
fn keys(loader: &mut Loader<'_>, node: &Node, what: &str, measure: Option<&MeterSettings>) -> Keys {
    let items = loader.reader.one_or_more(node, what).unwrap_or_default();
    let mut names = Vec::new();
    for item in items {
        let Some(name) = loader.reader.text(item, what).map(str::to_owned) else { continue };
        let all = if name.contains('*') { vec![name] } else { names_of(&name) };
        refuse_dimension(loader, item, &Keys::new(all.clone()), measure);
        names.extend(all);
    }
    Keys::new(names)
}

/// The request metrics say their dimensions as they came, to whoever reads `/metrics`.
fn refuse_dimension(loader: &mut Loader<'_>, node: &Node, keys: &Keys, measure: Option<&MeterSettings>) {
    let dimensions = measure.into_iter().flat_map(|measure| measure.dimensions.names());
    for dimension in dimensions.filter(|name| keys.has(name.attribute.as_bytes())) {
        let title = format!("`{}` is a dimension of the request metrics, which would show it", dimension.attribute);
        let help = "leave it out of `measure.dimensions`, or out of here";
        loader.reader.error("C20", node.span, title, "shown by `/metrics` as it came").help(help);
    }
}

fn masks(loader: &mut Loader<'_>, node: &Node, measure: Option<&MeterSettings>) -> Vec<Mask> {
    let items = loader.reader.one_or_more(node, "`mask`").unwrap_or_default();
    if items.len() > MASKS_MAX {
        let title = format!("these are {} masks", items.len());
        let help = format!("write at most {MASKS_MAX}: one expression can hold several, as in `one|other`");
        loader.reader.error("C20", node.span, title, "too many").help(help);
        return Vec::new();
    }
    items.iter().filter_map(|item| mask(loader, item, measure)).collect()
}

/// A word, or an expression with or without keys.
fn mask(loader: &mut Loader<'_>, node: &Node, measure: Option<&MeterSettings>) -> Option<Mask> {
    if !matches!(node.value, Value::Map(_)) {
        return loader.reader.word(node, "`mask`", &Words::ALL).map(Mask::word);
    }
    let map = loader.map(node, "an item of `mask`", MASK_KEYS)?;
    let keys = map.get("key").map(|node| keys(loader, node, "`key`", measure));
    let matches = loader.require(&map, "matches", "an item of `mask`")?;
    expression(loader, matches).map(|regex| Mask::new(keys, regex))
}

fn expression(loader: &mut Loader<'_>, node: &Node) -> Option<Regex> {
    let text = loader.reader.text(node, "`matches`")?;
    match RegexBuilder::new(text).size_limit(REGEX_SIZE_MAX).build() {
        Ok(regex) if regex.is_match("") => {
            let title = "this regular expression matches nothing at all, between any two letters";
            let help = "say what must be there: `[0-9]+` instead of `[0-9]*`";
            loader.reader.error("C20", node.span, title, "matches the empty text").help(help);
            None
        }
        Ok(regex) => Some(regex),
        Err(error) => {
            let error = error.to_string();
            // The last line says what is wrong; those before repeat the expression.
            let problem = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
            let title = format!("this regular expression cannot be used: {problem}");
            let help = "the syntax is that of the Rust crate `regex`: no look-around, no back-references";
            loader.reader.error("C20", node.span, title, problem).help(help);
            None
        }
    }
}

/// Attributes with their texts.
fn resource(loader: &mut Loader<'_>, node: &Node) -> Vec<(String, String)> {
    let Some(map) = loader.reader.any_map(node, "`resource`") else { return Vec::new() };
    let text = |loader: &mut Loader<'_>, node| loader.reader.scalar(node, "a resource attribute").cloned();
    let attributes = map.entries.iter().filter_map(|entry| Some((entry.key.clone(), text(loader, &entry.value)?.text)));
    // What a variable holds may be nothing: then nothing is known.
    attributes.filter(|(_, text)| !text.is_empty()).collect()
}
