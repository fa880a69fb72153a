//! One series of the request metrics: who it is, what it counted since it began, and its last minute.

use super::histogram::Cumulative;
use super::settings::{INSTANCE, KIND, NAME, OVERFLOW, SERVICE, STATUS, Settings};
use super::window::{Pool, Window};
use crate::trace::{Kind, Status};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// What tells a series from the others.
#[derive(Clone, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Labels {
    /// `service.name`; empty if the resource has none.
    pub service: String,
    pub name: String,
    pub kind: Kind,
    pub status: Status,
    /// The extra dimensions, in their order; none where neither span nor resource has the attribute.
    pub extras: Vec<Option<String>>,
}

impl Labels {
    /// A longer value is cut, so that `series_max` bounds bytes and not just a number.
    pub const BYTES_MAX: usize = 512;

    /// Cuts long values. A cut value ends in a hash of the whole, so that two series stay two.
    pub(crate) fn shortened(mut self) -> Labels {
        shorten(&mut self.service);
        shorten(&mut self.name);
        self.extras.iter_mut().flatten().for_each(shorten);
        self
    }

    /// Some of it was not valid UTF-8: other bytes may read alike, and must not be a series of their own.
    pub(crate) fn are_lossy(&self) -> bool {
        let mut texts = [&self.service, &self.name].into_iter().chain(self.extras.iter().flatten());
        texts.any(|text| text.contains(char::REPLACEMENT_CHARACTER))
    }
}

fn shorten(text: &mut String) {
    if text.len() <= Labels::BYTES_MAX {
        return;
    }
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let ending = format!("…{:016x}", hasher.finish());
    let room = Labels::BYTES_MAX - ending.len();
    let end = (0..=room).rfind(|&end| text.is_char_boundary(end)).unwrap_or(0);
    text.truncate(end);
    text.push_str(&ending);
    text.shrink_to_fit();
}

/// Which spans a series counts.
#[derive(Clone, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Identity {
    /// Those with these labels.
    Named(Labels),
    /// Those of a service whose series came when the table was full.
    ServiceOverflow(String),
    /// The same, of all services beyond the bound on services.
    Overflow,
}

impl Identity {
    /// `service.name`; none for spans of many services or of none.
    pub fn service(&self) -> Option<&str> {
        match self {
            Identity::Named(labels) => Some(labels.service.as_str()),
            Identity::ServiceOverflow(service) => Some(service.as_str()),
            Identity::Overflow => None,
        }
        .filter(|service| !service.is_empty())
    }

    pub fn is_overflow(&self) -> bool {
        !matches!(self, Identity::Named(_))
    }

    /// Hands each attribute, in the connector's order, to `take`: its name in OTLP, its name in
    /// Prometheus, its value.
    pub(crate) fn each_attribute(&self, settings: &Settings, mut take: impl FnMut(&str, &str, &str)) {
        if let Some(service) = self.service() {
            take(SERVICE, "service_name", service);
        }
        let Identity::Named(labels) = self else {
            take(OVERFLOW, "otel_metric_overflow", "true");
            return take(INSTANCE, "collector_instance_id", &settings.instance_id);
        };
        take(NAME, "span_name", &labels.name);
        take(KIND, "span_kind", labels.kind.label());
        take(STATUS, "status_code", labels.status.label());
        take(INSTANCE, "collector_instance_id", &settings.instance_id);
        for (dimension, value) in settings.dimensions.names().iter().zip(&labels.extras) {
            if let Some(value) = value {
                take(&dimension.attribute, &dimension.label, value);
            }
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Identity::Named(labels) => {
                let extras = labels.extras.iter().flatten().map(String::capacity).sum::<usize>();
                let slots = labels.extras.capacity() * size_of::<Option<String>>();
                labels.service.capacity() + labels.name.capacity() + extras + slots
            }
            Identity::ServiceOverflow(service) => service.capacity(),
            Identity::Overflow => 0,
        }
    }
}

/// A series. All counts are since `start_unix_nanos` and never fall.
#[derive(Debug)]
pub struct Series {
    pub identity: Identity,
    /// When its first span arrived.
    pub start_unix_nanos: u64,
    pub errors: u64,
    pub total: Cumulative,
    pub window: Window,
    last_ms: u64,
}

impl Series {
    pub fn new(identity: Identity, start_unix_nanos: u64, now_ms: u64, settings: &Settings) -> Series {
        Series {
            identity,
            start_unix_nanos,
            errors: 0,
            total: Cumulative::new(&settings.buckets),
            window: Window::new(now_ms),
            last_ms: now_ms,
        }
    }

    /// Counts spans that arrived at `now_ms`, by their durations in nanoseconds.
    pub fn record(&mut self, durations: &[u64], status: Status, now_ms: u64, settings: &Settings, pool: &Arc<Pool>) {
        self.last_ms = self.last_ms.max(now_ms);
        self.window.advance(now_ms);
        if status == Status::Error {
            self.errors += durations.len() as u64;
        }
        self.total.record(durations, &settings.buckets, settings.unit);
        self.window.record(durations, pool, &settings.buckets);
    }

    /// It counted nothing for the whole of `settings.idle`.
    pub fn is_idle(&self, now_ms: u64, settings: &Settings) -> bool {
        u128::from(now_ms.saturating_sub(self.last_ms)) >= settings.idle.as_millis()
    }

    /// Bytes on the heap, without those that the pool counts.
    pub fn heap_bytes(&self) -> usize {
        self.identity.bytes() + self.total.bytes() + self.window.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_labels_are_cut_and_stay_distinct() {
        let named = |name: String| Labels { name, ..labels() }.shortened().name;
        let (a, b) = (named("é".repeat(1000) + "a"), named("é".repeat(1000) + "b"));
        assert!(a.len() <= Labels::BYTES_MAX && b.len() <= Labels::BYTES_MAX);
        assert_ne!(a, b);
        assert!(a.starts_with("éé") && a.contains('…'));
        let whole = "x".repeat(Labels::BYTES_MAX);
        assert_eq!(named(whole.clone()), whole);
    }

    fn labels() -> Labels {
        Labels {
            service: "shop".into(),
            name: String::new(),
            kind: Kind::Server,
            status: Status::Ok,
            extras: vec![None],
        }
    }
}
