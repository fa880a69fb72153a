//! An operation of the request metrics and its series, one for each status: who it is, what it counted since
//! it began, and its last minute.

use super::first_seen::FirstSeen;
use super::histogram::Cumulative;
use super::settings::{INSTANCE, KIND, MeterSettings, NAME, OVERFLOW, SERVICE, STATUS};
use super::window::{Window, WindowPool};
use crate::trace::label::{may_stand_for_others, shortened};
use crate::trace::{SpanKind, Status};
use std::sync::Arc;

/// What tells an operation from the others.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SeriesLabels {
    /// `service.name`; empty if the resource has none.
    pub service: String,
    pub name: String,
    pub kind: SpanKind,
    /// The extra dimensions, in their order; none where neither span nor resource has the attribute.
    pub extras: Vec<Option<String>>,
}

impl SeriesLabels {
    /// Cuts long values, see [`crate::trace::label`].
    pub(crate) fn shortened(mut self) -> SeriesLabels {
        let texts = [&mut self.service, &mut self.name].into_iter().chain(self.extras.iter_mut().flatten());
        texts.for_each(|text| *text = shortened(std::mem::take(text).into()).into_owned());
        self
    }

    /// Other bytes may read like these labels, and must not be an operation of their own: a metric may not say
    /// the same labels twice.
    pub(crate) fn may_stand_for_others(&self) -> bool {
        self.texts().any(|text| may_stand_for_others(text))
    }

    fn texts(&self) -> impl Iterator<Item = &String> {
        [&self.service, &self.name].into_iter().chain(self.extras.iter().flatten())
    }
}

/// Which spans an operation counts.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum SeriesKey {
    /// Those with these labels.
    Named(SeriesLabels),
    /// Those of a service whose operations came when the table was full.
    ServiceOverflow(String),
    /// The same, of all services beyond the bound on services.
    Overflow,
}

impl SeriesKey {
    /// `service.name`; none for spans of many services or of none.
    pub fn service(&self) -> Option<&str> {
        match self {
            SeriesKey::Named(labels) => Some(labels.service.as_str()),
            SeriesKey::ServiceOverflow(service) => Some(service.as_str()),
            SeriesKey::Overflow => None,
        }
        .filter(|service| !service.is_empty())
    }

    pub fn is_overflow(&self) -> bool {
        !matches!(self, SeriesKey::Named(_))
    }

    /// Hands each attribute, in the connector's order, to `take`: its name in OTLP, its name in
    /// Prometheus, its value. Without a status it speaks of all statuses together, as overflow always does.
    pub(crate) fn each_attribute(
        &self,
        status: Option<Status>,
        settings: &MeterSettings,
        mut take: impl FnMut(&str, &str, &str),
    ) {
        if let Some(service) = self.service() {
            take(SERVICE, "service_name", service);
        }
        let SeriesKey::Named(labels) = self else {
            take(OVERFLOW, "otel_metric_overflow", "true");
            return take(INSTANCE, "collector_instance_id", &settings.instance_id);
        };
        take(NAME, "span_name", &labels.name);
        take(KIND, "span_kind", labels.kind.label());
        if let Some(status) = status {
            take(STATUS, "status_code", status.label());
        }
        take(INSTANCE, "collector_instance_id", &settings.instance_id);
        for (dimension, value) in settings.dimensions.names().iter().zip(&labels.extras) {
            if let Some(value) = value {
                take(&dimension.attribute, &dimension.label, value);
            }
        }
    }

    /// Bytes of what others wrote.
    pub fn text_bytes(&self) -> usize {
        match self {
            SeriesKey::Named(labels) => labels.texts().map(String::len).sum(),
            SeriesKey::ServiceOverflow(service) => service.len(),
            SeriesKey::Overflow => 0,
        }
    }

    fn heap_bytes(&self) -> usize {
        match self {
            SeriesKey::Named(labels) => {
                let slots = labels.extras.capacity() * size_of::<Option<String>>();
                labels.texts().map(String::capacity).sum::<usize>() + slots
            }
            SeriesKey::ServiceOverflow(service) => service.capacity(),
            SeriesKey::Overflow => 0,
        }
    }
}

/// When spans arrive.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Monotonic, for what has an age.
    pub ms: u64,
    /// The wall clock, for what goes out.
    pub unix_nanos: u64,
}

/// A series of an operation: what it counted of one status.
#[derive(Debug)]
pub struct Series {
    /// Who has seen its calls.
    pub calls: FirstSeen,
    /// A status that never was takes no more room.
    pub counted: Option<Box<Counted>>,
}

/// What a series counted.
#[derive(Debug)]
pub struct Counted {
    pub total: Cumulative,
    /// When its first span arrived.
    pub since_unix_nanos: u64,
    /// Who has seen its durations.
    pub durations: FirstSeen,
}

impl Series {
    fn new(at: Arrival) -> Series {
        Series { calls: FirstSeen::new(at.ms), counted: None }
    }

    pub fn count(&self) -> u64 {
        self.counted.as_ref().map_or(0, |counted| counted.total.count)
    }
}

/// All counts are since `start_unix_nanos` and never fall.
#[derive(Debug)]
pub struct Operation {
    pub identity: SeriesKey,
    /// When its first span arrived.
    pub start_unix_nanos: u64,
    pub errors: u64,
    pub window: Window,
    /// By status; overflow counts all in the first.
    series: [Series; Status::ALL.len()],
    last_ms: u64,
}

impl Operation {
    pub fn new(identity: SeriesKey, at: Arrival) -> Operation {
        Operation {
            identity,
            start_unix_nanos: at.unix_nanos,
            errors: 0,
            window: Window::new(at.ms),
            series: Status::ALL.map(|_| Series::new(at)),
            last_ms: at.ms,
        }
    }

    /// Counts spans by their durations in nanoseconds. True if they are the first of a series.
    pub fn record(
        &mut self,
        durations: &[u64],
        status: Status,
        at: Arrival,
        settings: &MeterSettings,
        pool: &Arc<WindowPool>,
    ) -> bool {
        self.last_ms = self.last_ms.max(at.ms);
        self.window.advance(at.ms);
        if status == Status::Error {
            self.errors += durations.len() as u64;
        }
        let series = &mut self.series[if self.identity.is_overflow() { 0 } else { status as usize }];
        let is_new = series.counted.is_none();
        if is_new && status != Status::Error {
            series.calls = FirstSeen::new(at.ms);
        }
        let counted = series.counted.get_or_insert_with(|| {
            let (total, durations) = (settings.nothing(), FirstSeen::new(at.ms));
            Box::new(Counted { total, since_unix_nanos: at.unix_nanos, durations })
        });
        counted.total.record(durations, &settings.buckets, settings.unit);
        self.window.record(durations, pool, &settings.buckets);
        is_new
    }

    /// Who it is, and its series: of each status that was, and of errors, which are 0 until then, so that the
    /// first one is a step. Overflow has one of all statuses.
    pub fn series(&mut self) -> (&SeriesKey, impl Iterator<Item = (Option<Status>, &mut Series)>) {
        let is_overflow = self.identity.is_overflow();
        let all = Status::ALL.into_iter().zip(&mut self.series);
        let shown =
            all.filter(move |(status, series)| series.counted.is_some() || *status == Status::Error && !is_overflow);
        (&self.identity, shown.map(move |(status, series)| ((!is_overflow).then_some(status), series)))
    }

    /// How many of its series have counted something.
    pub fn live(&self) -> usize {
        self.series.iter().filter(|series| series.counted.is_some()).count()
    }

    pub fn calls(&self) -> u64 {
        self.series.iter().map(Series::count).sum()
    }

    /// It counted nothing for the whole of `settings.idle`.
    pub fn is_idle(&self, now_ms: u64, settings: &MeterSettings) -> bool {
        u128::from(now_ms.saturating_sub(self.last_ms)) >= settings.idle.as_millis()
    }

    /// Bytes on the heap, without those that the pool counts.
    pub fn heap_bytes(&self) -> usize {
        let counted = self.series.iter().filter_map(|series| series.counted.as_ref());
        let counted = counted.map(|counted| size_of::<Counted>() + counted.total.bytes());
        self.identity.heap_bytes() + counted.sum::<usize>() + self.window.bytes()
    }
}
