//! Reads and adds attributes, on the bytes: what is not touched is copied verbatim, unknown fields too.

use super::walk::all;
use super::wire::{Fields, put_bytes};

/// Field numbers of `opentelemetry/proto`: of a request, a resource's and a scope's spans, metrics or log records, a
/// resource. All three signals nest alike.
const RESOURCE_GROUPS: u32 = 1;
const RESOURCE: u32 = 1;
const SCOPE_GROUPS: u32 = 2;
const LEAVES: u32 = 2;
const RESOURCE_ATTRIBUTES: u32 = 1;

/// Gives another payload for a field's number and payload, or none to keep it.
pub type Replace<'a> = dyn FnMut(u32, &[u8]) -> Option<Vec<u8>> + 'a;

/// The message with other payloads in some of its length-delimited fields; none if all stay, or
/// where it is no protobuf.
pub fn rewrite(message: &[u8], replace: &mut Replace) -> Option<Vec<u8>> {
    let mut out: Option<Vec<u8>> = None;
    let mut copied = 0;
    for field in Fields::new(message) {
        let field = field?;
        let replaced = field.payload().and_then(|payload| replace(field.number, payload));
        if let Some(payload) = replaced {
            let out = out.get_or_insert_with(|| message[..copied].to_vec());
            put_bytes(out, field.number, &payload);
        } else if let Some(out) = &mut out {
            out.extend_from_slice(field.raw);
        }
        copied += field.raw.len();
    }
    out
}

/// What a request says of one resource.
pub struct ResourceAttributes<'a> {
    /// A ResourceSpans, ResourceMetrics or ResourceLogs.
    group: &'a [u8],
}

impl ResourceAttributes<'_> {
    /// An attribute: none if absent, its text if it is a string.
    pub fn attribute(&self, key: &str) -> Option<Option<&str>> {
        all(self.group, RESOURCE).find_map(|resource| attribute(resource, RESOURCE_ATTRIBUTES, key))
    }

    pub fn has(&self, key: &str) -> bool {
        self.attribute(key).is_some()
    }
}

/// What a resource lacks, as fields of a resource.
pub type Missing<'a> = dyn FnMut(&ResourceAttributes) -> Vec<u8> + 'a;

/// A request with what its resources lacked; none if they lack nothing or it is no protobuf.
pub fn add_to_resources(request: &[u8], missing: &mut Missing) -> Option<Vec<u8>> {
    rewrite(request, &mut |number, group| match number {
        RESOURCE_GROUPS => complete(group, missing),
        _ => None,
    })
}

fn complete(group: &[u8], missing: &mut Missing) -> Option<Vec<u8>> {
    if !has_leaf(group) {
        // There may be millions in a batch, each two bytes long.
        return None;
    }
    let mut missing = missing(&ResourceAttributes { group });
    if missing.is_empty() {
        return None;
    }
    let completed = rewrite(group, &mut |number, resource| {
        let is_first = number == RESOURCE && !missing.is_empty();
        is_first.then(|| [resource, &std::mem::take(&mut missing)[..]].concat())
    });
    if completed.is_some() {
        return completed;
    }
    // There was no resource at all.
    let mut out = Vec::with_capacity(group.len() + missing.len() + 8);
    put_bytes(&mut out, RESOURCE, &missing);
    out.extend_from_slice(group);
    Some(out)
}

fn has_leaf(group: &[u8]) -> bool {
    all(group, SCOPE_GROUPS).any(|scope| all(scope, LEAVES).next().is_some())
}

/// An attribute among the fields `number` of `message`: none if absent, its text if it is a string.
pub fn attribute<'a>(message: &'a [u8], number: u32, key: &str) -> Option<Option<&'a str>> {
    all(message, number).find_map(|pair| {
        (all(pair, 1).last()? == key.as_bytes()).then(|| {
            let value = all(pair, 2).last()?;
            std::str::from_utf8(all(value, 1).last()?).ok()
        })
    })
}

/// Appends an attribute with a text, as a field `number`.
pub fn put_attribute(out: &mut Vec<u8>, number: u32, key: &str, text: &str) {
    let mut value = Vec::new();
    put_bytes(&mut value, 1, text.as_bytes());
    let mut pair = Vec::new();
    put_bytes(&mut pair, 1, key.as_bytes());
    put_bytes(&mut pair, 2, &value);
    put_bytes(out, number, &pair);
}
