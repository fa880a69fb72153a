//! What is done to attributes before they leave: some are dropped, some are hashed, parts of texts are masked, and
//! resources get what they lack. On the bytes, and on what leaves alone: rules judged, and requests were counted, by
//! what came. What nothing applies to stays as it is, unknown fields too.
//!
//! The attributes of a data point and of its resource say which series it belongs to, and two series that became one
//! would be wrong. So in metrics a hash takes the place of what is dropped or masked elsewhere.

mod hash;
mod mask;
mod walk;

pub use hash::Hasher;
pub use mask::{MASKS_MAX, Mask, Words};

use crate::otlp::attributes::{add_to_resources, put_attribute};
use crate::trace::Signal;
use crate::trace::question::Pattern;
use foldhash::fast::RandomState;
use mask::Masks;
use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use walk::Rewriting;

/// The fields of an `AnyValue`. Source: opentelemetry-proto, `common.proto`.
mod any_value {
    pub(super) const TEXT: u32 = 1;
    pub(super) const BOOL: u32 = 2;
    pub(super) const INT: u32 = 3;
    pub(super) const DOUBLE: u32 = 4;
    pub(super) const LIST: u32 = 5;
    pub(super) const MAP: u32 = 6;
    pub(super) const LAST: u32 = 7;
}

/// The attributes of a resource, among its fields.
const RESOURCE_ATTRIBUTES: u32 = 1;

/// What was done to an attribute or a text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Action {
    Drop,
    Hash,
    Mask,
    /// A resource got an attribute that it lacked.
    Add,
}

impl Action {
    pub const ALL: [Action; 4] = [Action::Drop, Action::Hash, Action::Mask, Action::Add];

    pub fn word(self) -> &'static str {
        ["drop", "hash", "mask", "add"][self as usize]
    }
}

/// What the configuration asks for.
#[derive(Clone, Debug, Default)]
pub struct ProcessingSettings {
    pub drop: Keys,
    pub hash: Keys,
    /// Without a key hashes are those that the OpenTelemetry Collector makes.
    pub hash_key: Option<HashKey>,
    /// At most [`MASKS_MAX`].
    pub masks: Vec<Mask>,
    /// Keys and texts of resource attributes.
    pub resource: Vec<(String, String)>,
}

/// Keys hashes; `Debug` shows nothing of it.
#[derive(Clone)]
pub struct HashKey(pub Box<[u8]>);

impl std::fmt::Debug for HashKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HashKey(…)")
    }
}

/// Keys of attributes, as they are or with stars.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    exact: HashSet<Box<[u8]>, RandomState>,
    globs: Vec<Pattern>,
}

impl Keys {
    pub fn new(patterns: impl IntoIterator<Item = String>) -> Keys {
        let mut keys = Keys::default();
        for pattern in patterns {
            if pattern.contains('*') {
                keys.globs.push(Pattern::Glob(pattern));
            } else {
                keys.exact.insert(pattern.into_bytes().into());
            }
        }
        keys
    }

    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.globs.is_empty()
    }

    pub fn has(&self, key: &[u8]) -> bool {
        !self.exact.is_empty() && self.exact.contains(key) || self.globs.iter().any(|glob| glob.matches(key))
    }
}

/// The settings, ready for use, and what was done so far.
pub struct Processing {
    drop: Keys,
    hash: Keys,
    hasher: Hasher,
    masks: Masks,
    /// Tells masked and dropped values of metrics apart: with a key even where none is configured, for short ones can be
    /// found by trying.
    apart: Hasher,
    resource: Vec<(String, String)>,
    counts: [[AtomicU64; Action::ALL.len()]; 3],
}

impl Processing {
    /// `random` is different in each process.
    pub fn new(settings: ProcessingSettings, random: u64) -> Processing {
        let hasher = settings.hash_key.as_ref().map_or(Hasher::plain(), |key| Hasher::keyed(&key.0));
        let apart = if settings.hash_key.is_some() { hasher.clone() } else { Hasher::keyed(&random.to_ne_bytes()) };
        Processing {
            drop: settings.drop,
            hash: settings.hash,
            hasher,
            masks: Masks::new(settings.masks),
            apart,
            resource: settings.resource,
            counts: Default::default(),
        }
    }

    /// A valid request as it leaves.
    pub fn apply<'a>(&self, signal: Signal, body: Cow<'a, [u8]>) -> Cow<'a, [u8]> {
        self.apply_within(signal, body, usize::MAX).expect("nothing is larger than that")
    }

    /// The same; none if it would have more than `most` bytes, as hashes can be longer than what they stand for.
    pub fn apply_within<'a>(&self, signal: Signal, body: Cow<'a, [u8]>, most: usize) -> Option<Cow<'a, [u8]>> {
        let rewritten = if self.rewrites() { self.rewrite(signal, &body, most)? } else { None };
        let body = rewritten.map_or(body, Cow::Owned);
        let completed = if self.resource.is_empty() { None } else { self.complete(signal, &body) };
        Some(completed.map_or(body, Cow::Owned)).filter(|body| body.len() <= most)
    }

    /// Whether anything leaves otherwise than it came.
    pub fn changes(&self) -> bool {
        self.rewrites() || !self.resource.is_empty()
    }

    fn rewrites(&self) -> bool {
        !(self.drop.is_empty() && self.hash.is_empty() && self.masks.is_empty())
    }

    /// None if it becomes too large, and within that none if it stays as it is.
    #[allow(clippy::option_option)]
    fn rewrite(&self, signal: Signal, body: &[u8], most: usize) -> Option<Option<Vec<u8>>> {
        let mut walk = Rewriting::new(self, signal, most);
        let is_changed = walk.request(body);
        if walk.is_beyond() {
            return None;
        }
        for (action, done) in [Action::Drop, Action::Hash, Action::Mask].into_iter().zip(walk.done) {
            self.count(signal, action, done);
        }
        Some(is_changed.then_some(walk.out))
    }

    /// The request with the resource attributes that it lacks; none if it lacks nothing.
    fn complete(&self, signal: Signal, body: &[u8]) -> Option<Vec<u8>> {
        let mut added = 0;
        let completed = add_to_resources(body, &mut |resource| {
            let mut missing = Vec::new();
            for (key, text) in self.resource.iter().filter(|(key, _)| !resource.has(key)) {
                put_attribute(&mut missing, RESOURCE_ATTRIBUTES, key, text);
                added += 1;
            }
            missing
        });
        self.count(signal, Action::Add, added);
        completed
    }

    fn count(&self, signal: Signal, action: Action, done: u64) {
        if done > 0 {
            self.counts[signal as usize][action as usize].fetch_add(done, Relaxed);
        }
    }

    /// Attributes and texts that were changed so far.
    pub fn done(&self, signal: Signal, action: Action) -> u64 {
        self.counts[signal as usize][action as usize].load(Relaxed)
    }
}

#[cfg(test)]
mod tests;
