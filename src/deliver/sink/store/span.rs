//! A batch taken apart: traces with their spans, and what a row of `traces` says of them. Pure.

use crate::{
    deliver::batch::Fields,
    trace::{Kind, Standing, Status, TraceId},
};
use opentelemetry_proto::tonic::{
    common::v1::any_value::Value,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use prost::Message;
use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap, HashSet},
};

/// Of a span's `flags`: "the next bit says whether the parent is remote", and that bit.
const KNOWS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// The bytes around spans: all fields of `ResourceSpans` but its scopes, of `ScopeSpans` but its spans.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Context {
    pub(super) raw_resource: Vec<u8>,
    pub(super) raw_scope: Vec<u8>,
}

impl Context {
    pub(super) fn crc(&self) -> u32 {
        let mut crc = crc32fast::Hasher::new();
        crc.update(&self.raw_resource);
        crc.update(&self.raw_scope);
        crc.finalize()
    }

    /// Fields that cannot be read are shown as empty; the raw bytes are stored in any case.
    pub(super) fn decode(&self) -> (ResourceSpans, ScopeSpans) {
        let resource = ResourceSpans::decode(self.raw_resource.as_slice()).unwrap_or_default();
        (resource, ScopeSpans::decode(self.raw_scope.as_slice()).unwrap_or_default())
    }
}

/// One span of a batch.
pub(super) struct StoredSpan<'a> {
    /// Index into [`Parts::contexts`].
    pub(super) context: usize,
    pub(super) raw: &'a [u8],
    pub(super) crc: u32,
    pub(super) span: Span,
    pub(super) standing: Standing,
}

impl StoredSpan<'_> {
    pub(super) fn start(&self) -> i64 {
        clamp(self.span.start_time_unix_nano)
    }

    pub(super) fn end(&self) -> i64 {
        clamp(self.span.end_time_unix_nano)
    }

    pub(super) fn duration(&self) -> i64 {
        (self.end() - self.start()).max(0)
    }

    pub(super) fn kind(&self) -> Kind {
        Kind::from_wire(self.span.kind as u64)
    }

    pub(super) fn status(&self) -> Status {
        self.span.status.as_ref().map_or(Status::Unset, |status| Status::from_wire(status.code as u64))
    }

    /// The text of a string attribute.
    fn text(&self, key: &str) -> Option<String> {
        let attribute = self.span.attributes.iter().find(|attribute| attribute.key == key)?;
        match attribute.value.as_ref()?.value.as_ref()? {
            Value::StringValue(text) => Some(text.clone()),
            _ => None,
        }
    }

    /// `th` of the tracestate's `ot` member.
    fn threshold(&self) -> Option<&str> {
        let ot = self.span.trace_state.split(',').find_map(|member| member.trim().strip_prefix("ot="))?;
        ot.split(';').find_map(|field| field.strip_prefix("th:"))
    }
}

/// SQLite has signed 64 bits, which end in the year 2262.
fn clamp(nanos: u64) -> i64 {
    i64::try_from(nanos).unwrap_or(i64::MAX)
}

/// A batch by traces, in the order in which they appear.
#[derive(Default)]
pub(super) struct Parts<'a> {
    pub(super) contexts: Vec<Context>,
    pub(super) traces: Vec<(TraceId, Vec<StoredSpan<'a>>)>,
    /// Spans that are no protobuf or have no trace id.
    pub(super) rejected: u64,
}

impl<'a> Parts<'a> {
    /// None if the bytes around the spans are malformed.
    pub(super) fn of(body: &'a [u8]) -> Option<Parts<'a>> {
        let mut parts = Parts::default();
        let (mut places, mut contexts) = (HashMap::new(), HashMap::new());
        for field in Fields::new(body) {
            let Some(resource) = field?.message(1) else { continue };
            let (raw_resource, scopes) = header_and_children(resource)?;
            for scope in scopes {
                let (raw_scope, spans) = header_and_children(scope)?;
                let context = Context { raw_resource: raw_resource.clone(), raw_scope };
                let context = *contexts.entry(context).or_insert_with_key(|context| {
                    parts.contexts.push(context.clone());
                    parts.contexts.len() - 1
                });
                spans.into_iter().for_each(|raw| parts.add(raw, context, &mut places));
            }
        }
        parts.traces.iter_mut().for_each(|(_, spans)| set_standings(spans));
        Some(parts)
    }

    fn add(&mut self, raw: &'a [u8], context: usize, places: &mut HashMap<TraceId, usize>) {
        let decoded = Span::decode(raw).ok();
        let id = decoded.as_ref().and_then(|span| span.trace_id.as_slice().try_into().ok()).map(TraceId);
        let (Some(span), Some(id)) = (decoded, id) else {
            self.rejected += 1;
            return;
        };
        let place = *places.entry(id).or_insert_with(|| {
            self.traces.push((id, Vec::new()));
            self.traces.len() - 1
        });
        let crc = crc32fast::hash(raw);
        self.traces[place].1.push(StoredSpan { context, raw, crc, span, standing: Standing::Inner });
    }
}

/// A message without its repeated field 2, and that field's values.
fn header_and_children(message: &[u8]) -> Option<(Vec<u8>, Vec<&[u8]>)> {
    let (mut header, mut children) = (Vec::new(), Vec::new());
    for field in Fields::new(message) {
        let field = field?;
        match field.message(2) {
            Some(child) => children.push(child),
            None => header.extend_from_slice(field.raw),
        }
    }
    Some((header, children))
}

/// A root has no parent. An entry's flags say that the parent is remote or, where they say nothing,
/// it is a server or consumer span whose parent is not in this batch.
fn set_standings(spans: &mut [StoredSpan<'_>]) {
    let here: HashSet<Vec<u8>> = spans.iter().map(|stored| stored.span.span_id.clone()).collect();
    for stored in spans {
        let span = &stored.span;
        let receives = matches!(Kind::from_wire(span.kind as u64), Kind::Server | Kind::Consumer);
        let is_entry = match span.flags & KNOWS_REMOTE {
            0 => receives && !here.contains(&span.parent_span_id),
            _ => span.flags & IS_REMOTE != 0,
        };
        stored.standing = match is_entry {
            _ if span.parent_span_id.iter().all(|byte| *byte == 0) => Standing::Root,
            true => Standing::Entry,
            false => Standing::Inner,
        };
    }
}

/// What a row of `traces` holds of a trace's spans. Grows span by span, over any number of batches.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct TraceState {
    pub(super) start: i64,
    pub(super) end: i64,
    /// The root's if there is one.
    pub(super) duration: i64,
    pub(super) service: String,
    pub(super) name: String,
    pub(super) services: BTreeSet<String>,
    pub(super) error: bool,
    pub(super) span_count: i64,
    pub(super) bytes: i64,
    pub(super) rule: Option<String>,
    pub(super) trigger: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) incomplete: Option<String>,
    pub(super) threshold: Option<String>,
    pub(super) entry_span_id: String,
    pub(super) entry_standing: Standing,
    pub(super) entry_start: i64,
    pub(super) longest_entry: i64,
    pub(super) longest_span: i64,
}

impl TraceState {
    pub(super) fn observe(&mut self, stored: &StoredSpan<'_>, service: &str) {
        let (start, end, duration) = (stored.start(), stored.end(), stored.duration());
        let id = hex(&stored.span.span_id);
        let is_first = self.span_count == 0;
        self.start = if is_first { start } else { self.start.min(start) };
        self.end = self.end.max(end);
        self.error |= stored.status() == Status::Error;
        self.span_count += 1;
        self.bytes += stored.raw.len() as i64;
        if !self.services.contains(service) {
            self.services.insert(service.to_owned());
        }
        self.longest_span = self.longest_span.max(duration);
        if stored.standing != Standing::Inner {
            self.longest_entry = self.longest_entry.max(duration);
        }
        self.observe_verdict(stored);
        let rank = |standing, start, id| (Reverse(standing), start, id);
        let is_better = rank(stored.standing, start, id.as_str())
            < rank(self.entry_standing, self.entry_start, self.entry_span_id.as_str());
        if is_first || is_better {
            self.service = service.to_owned();
            self.name = stored.span.name.clone();
            self.entry_span_id = id;
            self.entry_standing = stored.standing;
            self.entry_start = start;
            if stored.standing == Standing::Root {
                self.duration = duration;
            }
        }
        self.duration = match self.entry_standing {
            Standing::Root => self.duration,
            Standing::Entry => self.longest_entry,
            Standing::Inner => self.longest_span,
        };
    }

    /// The first verdict stands: later spans of a kept trace only follow it.
    fn observe_verdict(&mut self, stored: &StoredSpan<'_>) {
        if let Some(rule) = stored.text("tailkeep.rule").filter(|_| self.rule.is_none()) {
            self.rule = Some(rule);
            self.trigger = stored.text("tailkeep.trigger");
            self.reason = stored.text("tailkeep.reason");
        }
        self.incomplete = self.incomplete.take().or_else(|| stored.text("tailkeep.incomplete"));
        if self.threshold.is_none() {
            self.threshold = stored.threshold().map(str::to_owned);
        }
    }
}

/// Lowercase hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}
