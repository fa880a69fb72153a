//! A batch taken apart: traces with their spans, and what a row of `traces` says of them. Pure.

use crate::{
    otlp::{
        walk::{all, last, lossy},
        wire::{Fields, Value},
    },
    trace::{SpanKind, Standing, Status, TraceId, between, label::shortened},
};
use foldhash::fast::RandomState;
use std::{
    borrow::Cow,
    cmp::Reverse,
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

/// Services of one trace that it can be found by: whatever comes late writes their rows anew.
pub(super) const TRACE_SERVICES_MAX: usize = 256;
/// Of a span's `flags`: "the next bit says whether the parent is remote", and that bit.
const KNOWS_REMOTE: u64 = 0x100;
const IS_REMOTE: u64 = 0x200;

/// A resource of the batch: all fields of `ResourceSpans` but its scopes.
pub(super) struct Resource<'a> {
    pub(super) raw: Cow<'a, [u8]>,
    /// Every trace of the batch that it takes part in has it in columns of its own, so a long one is cut.
    pub(super) service: Arc<str>,
}

impl<'a> Resource<'a> {
    fn new(raw: Cow<'a, [u8]>) -> Resource<'a> {
        let service = Arc::from(service(&merged(&raw)));
        Resource { raw, service }
    }

    /// Its attributes, which are field 1 of a `Resource`.
    pub(super) fn message(&self) -> Cow<'_, [u8]> {
        merged(&self.raw)
    }
}

/// The first attribute `service.name` that is a text and not empty.
fn service(resource: &[u8]) -> Cow<'_, str> {
    let named = all(resource, 1).map(key_value).filter(|(key, _)| *key == b"service.name");
    let name = named.filter_map(|(_, any)| last(any, 1)).find(|name| !name.is_empty());
    shortened(name.map(lossy).unwrap_or_default())
}

/// A scope of a resource: all fields of `ScopeSpans` but its spans.
pub(super) struct Scope<'a> {
    /// Index into [`Parts::resources`].
    pub(super) resource: u32,
    pub(super) raw: Cow<'a, [u8]>,
}

impl Scope<'_> {
    /// Name and version of the instrumentation scope.
    pub(super) fn names(&self) -> [String; 2] {
        let scope = merged(&self.raw);
        [1, 2].map(|number| last(&scope, number).map(lossy).unwrap_or_default().into_owned())
    }
}

/// The message that is field 1: where it occurs repeatedly, protobuf merges, and so does concatenation.
fn merged(message: &[u8]) -> Cow<'_, [u8]> {
    let mut parts = all(message, 1);
    match (parts.next(), parts.next()) {
        (first, None) => Cow::Borrowed(first.unwrap_or_default()),
        _ => Cow::Owned(all(message, 1).flatten().copied().collect()),
    }
}

/// What the columns show of a span. Strange bytes are no reason to refuse it: what cannot be read is
/// shown as empty, and `raw` has it all. Source: opentelemetry-proto, `trace.proto`.
#[derive(Default)]
pub(super) struct SpanColumns<'a> {
    trace_id: &'a [u8],
    pub(super) span_id: &'a [u8],
    pub(super) parent_id: &'a [u8],
    trace_state: &'a [u8],
    name: &'a [u8],
    kind: u64,
    start: u64,
    end: u64,
    flags: u64,
    status: u64,
    status_message: &'a [u8],
    /// `tailkeep.rule`, `tailkeep.trigger`, `tailkeep.reason`, `tailkeep.incomplete`.
    rule: Option<&'a [u8]>,
    trigger: Option<&'a [u8]>,
    reason: Option<&'a [u8]>,
    incomplete: Option<&'a [u8]>,
}

impl<'a> SpanColumns<'a> {
    /// None if the span is no protobuf.
    fn read(raw: &'a [u8]) -> Option<SpanColumns<'a>> {
        let mut shown = SpanColumns::default();
        for field in Fields::new(raw) {
            let field = field?;
            match (field.number, field.value) {
                (1, Value::Bytes(bytes)) => shown.trace_id = bytes,
                (2, Value::Bytes(bytes)) => shown.span_id = bytes,
                (3, Value::Bytes(bytes)) => shown.trace_state = bytes,
                (4, Value::Bytes(bytes)) => shown.parent_id = bytes,
                (5, Value::Bytes(bytes)) => shown.name = bytes,
                (6, Value::Varint(kind)) => shown.kind = kind,
                (7, Value::Fixed64(nanos)) => shown.start = nanos,
                (8, Value::Fixed64(nanos)) => shown.end = nanos,
                (9, Value::Bytes(attribute)) => shown.read_verdict(attribute),
                (15, Value::Bytes(status)) => shown.read_status(status),
                (16, Value::Fixed32(flags)) => shown.flags = u64::from(flags),
                _ => {}
            }
        }
        Some(shown)
    }

    fn read_status(&mut self, status: &'a [u8]) {
        for field in Fields::new(status).flatten() {
            match (field.number, field.value) {
                (2, Value::Bytes(message)) => self.status_message = message,
                (3, Value::Varint(code)) => self.status = code,
                _ => {}
            }
        }
    }

    fn read_verdict(&mut self, attribute: &'a [u8]) {
        let (key, value) = key_value(attribute);
        let Some(key) = key.strip_prefix(b"tailkeep.") else { return };
        let slot = match key {
            b"rule" => &mut self.rule,
            b"trigger" => &mut self.trigger,
            b"reason" => &mut self.reason,
            b"incomplete" => &mut self.incomplete,
            _ => return,
        };
        *slot = last(value, 1);
    }

    pub(super) fn start(&self) -> i64 {
        clamp(self.start)
    }

    fn end(&self) -> i64 {
        clamp(self.end)
    }

    pub(super) fn duration(&self) -> i64 {
        clamp(between(self.start, self.end))
    }

    pub(super) fn name(&self) -> Cow<'a, str> {
        lossy(self.name)
    }

    pub(super) fn kind(&self) -> SpanKind {
        SpanKind::from_wire(self.kind)
    }

    pub(super) fn status(&self) -> Status {
        Status::from_wire(self.status)
    }

    pub(super) fn status_message(&self) -> Option<Cow<'a, str>> {
        (!self.status_message.is_empty()).then(|| lossy(self.status_message))
    }

    /// `th` of the tracestate's `ot` member.
    fn threshold(&self) -> Option<&'a [u8]> {
        let ot =
            self.trace_state.split(|byte| *byte == b',').find_map(|member| member.trim_ascii().strip_prefix(b"ot="))?;
        ot.split(|byte| *byte == b';').find_map(|field| field.strip_prefix(b"th:"))
    }
}

/// Key and `AnyValue` of a `KeyValue`; empty what is not there. Source: opentelemetry-proto, `common.proto`.
pub(super) fn key_value(attribute: &[u8]) -> (&[u8], &[u8]) {
    let (mut key, mut value): (&[u8], &[u8]) = (&[], &[]);
    for field in Fields::new(attribute).flatten() {
        match (field.number, field.value) {
            (1, Value::Bytes(bytes)) => key = bytes,
            (2, Value::Bytes(bytes)) => value = bytes,
            _ => {}
        }
    }
    (key, value)
}

/// One span of a batch. A batch may be full of tiny ones, so it is small: what it shows is read again when it is
/// written.
pub(super) struct StoredSpan<'a> {
    /// Index into [`Parts::scopes`].
    pub(super) scope: u32,
    pub(super) crc: u32,
    pub(super) raw: &'a [u8],
    span_id: &'a [u8],
    pub(super) standing: Standing,
}

impl<'a> StoredSpan<'a> {
    pub(super) fn shown(&self) -> SpanColumns<'a> {
        SpanColumns::read(self.raw).expect("it was read before")
    }
}

/// SQLite has signed 64 bits, which end in the year 2262.
fn clamp(nanos: u64) -> i64 {
    i64::try_from(nanos).unwrap_or(i64::MAX)
}

/// A batch by traces, in the order in which they appear.
#[derive(Default)]
pub(super) struct Parts<'a> {
    /// No two are equal, nor are two scopes.
    pub(super) resources: Vec<Resource<'a>>,
    pub(super) scopes: Vec<Scope<'a>>,
    /// A trace's spans by span id, as the store has them.
    pub(super) traces: Vec<(TraceId, Vec<StoredSpan<'a>>)>,
    /// Spans that are no protobuf or have no trace id.
    pub(super) rejected: u64,
}

/// Where equal things of a batch are in its [`Parts`].
#[derive(Default)]
struct ContextPlaces<'a> {
    resources: HashMap<Cow<'a, [u8]>, u32, RandomState>,
    scopes: HashMap<(u32, Cow<'a, [u8]>), u32, RandomState>,
    traces: HashMap<TraceId, usize, RandomState>,
}

impl<'a> Parts<'a> {
    /// None if the bytes around the spans are malformed.
    pub(super) fn of(body: &'a [u8]) -> Option<Parts<'a>> {
        let (mut parts, mut places) = (Parts::default(), ContextPlaces::default());
        for field in Fields::new(body) {
            let Some(group) = field?.message(1) else { continue };
            let resource = parts.resource(header(group)?, &mut places);
            for group in all(group, 2) {
                let scope = parts.scope(resource, header(group)?, &mut places);
                all(group, 2).for_each(|raw| parts.add(raw, scope, &mut places));
            }
        }
        for (_, spans) in &mut parts.traces {
            set_standings(spans);
            spans.sort_unstable_by_key(|stored| (stored.span_id, stored.crc));
        }
        Some(parts)
    }

    pub(super) fn service_of(&self, scope: u32) -> &Arc<str> {
        &self.resources[self.scopes[scope as usize].resource as usize].service
    }

    fn resource(&mut self, raw: Cow<'a, [u8]>, places: &mut ContextPlaces<'a>) -> u32 {
        *places.resources.entry(raw).or_insert_with_key(|raw| {
            self.resources.push(Resource::new(raw.clone()));
            (self.resources.len() - 1) as u32
        })
    }

    fn scope(&mut self, resource: u32, raw: Cow<'a, [u8]>, places: &mut ContextPlaces<'a>) -> u32 {
        *places.scopes.entry((resource, raw)).or_insert_with_key(|(resource, raw)| {
            self.scopes.push(Scope { resource: *resource, raw: raw.clone() });
            (self.scopes.len() - 1) as u32
        })
    }

    fn add(&mut self, raw: &'a [u8], scope: u32, places: &mut ContextPlaces<'a>) {
        let shown = SpanColumns::read(raw);
        let id = shown.as_ref().and_then(|shown| shown.trace_id.try_into().ok()).map(TraceId);
        let (Some(shown), Some(id)) = (shown, id) else {
            self.rejected += 1;
            return;
        };
        let place = *places.traces.entry(id).or_insert_with(|| {
            self.traces.push((id, Vec::new()));
            self.traces.len() - 1
        });
        let crc = crc32fast::hash(raw);
        self.traces[place].1.push(StoredSpan { scope, crc, raw, span_id: shown.span_id, standing: Standing::Inner });
    }
}

/// A message without its repeated field 2. None if it is malformed.
fn header(message: &[u8]) -> Option<Cow<'_, [u8]>> {
    let mut header: Cow<'_, [u8]> = Cow::Borrowed(&[]);
    for field in Fields::new(message) {
        let field = field?;
        match field.message(2) {
            Some(_) => {}
            None if header.is_empty() => header = Cow::Borrowed(field.raw),
            None => header.to_mut().extend_from_slice(field.raw),
        }
    }
    Some(header)
}

/// A root has no parent. An entry's flags say that the parent is remote or, where they say nothing,
/// it is a server or consumer span whose parent is not in this batch.
fn set_standings(spans: &mut [StoredSpan<'_>]) {
    let asks = |shown: &SpanColumns<'_>| {
        shown.flags & KNOWS_REMOTE == 0 && matches!(shown.kind(), SpanKind::Server | SpanKind::Consumer)
    };
    let here: HashSet<&[u8], RandomState> = match spans.iter().any(|stored| asks(&stored.shown())) {
        true => spans.iter().map(|stored| stored.span_id).collect(),
        false => HashSet::default(),
    };
    for stored in spans {
        let shown = stored.shown();
        let is_entry = match shown.flags & KNOWS_REMOTE {
            0 => asks(&shown) && !here.contains(shown.parent_id),
            _ => shown.flags & IS_REMOTE != 0,
        };
        stored.standing = match is_entry {
            _ if shown.parent_id.iter().all(|byte| *byte == 0) => Standing::Root,
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
    pub(super) services: BTreeSet<Arc<str>>,
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
    pub(super) fn observe(&mut self, stored: &StoredSpan<'_>, service: &Arc<str>) {
        let shown = &stored.shown();
        let (start, end, duration) = (shown.start(), shown.end(), shown.duration());
        let id = hex(shown.span_id);
        let is_first = self.span_count == 0;
        self.start = if is_first { start } else { self.start.min(start) };
        self.end = self.end.max(end);
        self.error |= shown.status() == Status::Error;
        self.span_count += 1;
        self.bytes += stored.raw.len() as i64;
        if self.services.len() < TRACE_SERVICES_MAX && !self.services.contains(service) {
            self.services.insert(service.clone());
        }
        self.longest_span = self.longest_span.max(duration);
        if stored.standing != Standing::Inner {
            self.longest_entry = self.longest_entry.max(duration);
        }
        self.observe_verdict(shown);
        let rank = |standing, start, id| (Reverse(standing), start, id);
        let is_better = rank(stored.standing, start, id.as_str())
            < rank(self.entry_standing, self.entry_start, self.entry_span_id.as_str());
        if is_first || is_better {
            self.service = service.to_string();
            self.name = shown.name().into_owned();
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
    fn observe_verdict(&mut self, shown: &SpanColumns<'_>) {
        let text = |bytes| lossy(bytes).into_owned();
        if let Some(rule) = shown.rule.filter(|_| self.rule.is_none()) {
            self.rule = Some(text(rule));
            self.trigger = shown.trigger.map(text);
            self.reason = shown.reason.map(text);
        }
        self.incomplete = self.incomplete.take().or_else(|| shown.incomplete.map(text));
        if self.threshold.is_none() {
            self.threshold = shown.threshold().map(text);
        }
    }
}

/// Lowercase hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}
