//! The words that every stage shares. No I/O, no clock, no async; uses nothing else of ours.

pub mod label;
pub mod observed;
pub mod question;
pub mod summary;
pub mod verdict;
pub mod weight;

pub use observed::{Answers, Arrivals, Failures, Observed};
pub use question::{Condition, EntryValues, Facts};
pub use summary::{EntrySpan, FactMasks, Incomplete, Summary};
pub use verdict::{Case, Decision, LimitId, Reason, RuleId, RuleNames, Trigger, Verdict};
pub use weight::{Randomness, Threshold};

use std::fmt;

/// A trace's 16-byte id. Never all zero in an accepted span.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TraceId(pub [u8; 16]);

impl TraceId {
    /// The id whose lowercase or uppercase hexadecimal form is `text` (32 digits).
    pub fn parse(text: &str) -> Option<TraceId> {
        let text = text.as_bytes();
        if text.len() != 32 {
            return None;
        }
        let mut id = [0; 16];
        for (byte, pair) in id.iter_mut().zip(text.chunks_exact(2)) {
            let digit = |c: u8| char::from(c).to_digit(16);
            *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
        }
        Some(TraceId(id))
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 32];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        f.pad(std::str::from_utf8(&text).expect("digits are ASCII"))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceId({self})")
    }
}

/// A span's 8-byte id as a big-endian number; zero means "none" (only a parent may be none).
pub type SpanId = u64;

/// `span.kind` of the OTLP protobuf; an unknown number is `Unspecified`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, PartialOrd, Ord)]
#[repr(u8)]
pub enum SpanKind {
    #[default]
    Unspecified = 0,
    Internal = 1,
    Server = 2,
    Client = 3,
    Producer = 4,
    Consumer = 5,
}

impl SpanKind {
    pub const ALL: [SpanKind; 6] = [
        SpanKind::Unspecified,
        SpanKind::Internal,
        SpanKind::Server,
        SpanKind::Client,
        SpanKind::Producer,
        SpanKind::Consumer,
    ];

    pub fn from_wire(number: u64) -> SpanKind {
        SpanKind::ALL.get(number as usize).copied().unwrap_or_default()
    }

    /// As policies write it: `server`, `client`, …
    pub fn word(self) -> &'static str {
        ["unspecified", "internal", "server", "client", "producer", "consumer"][self as usize]
    }

    /// As the Collector's span metrics connector writes it: `SPAN_KIND_SERVER`, …
    pub fn label(self) -> &'static str {
        Self::LABELS[self as usize]
    }

    /// By the number in the protobuf.
    pub const LABELS: [&'static str; 6] = [
        "SPAN_KIND_UNSPECIFIED",
        "SPAN_KIND_INTERNAL",
        "SPAN_KIND_SERVER",
        "SPAN_KIND_CLIENT",
        "SPAN_KIND_PRODUCER",
        "SPAN_KIND_CONSUMER",
    ];
}

/// `status.code` of the OTLP protobuf; an unknown number is `Unset`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, PartialOrd, Ord)]
#[repr(u8)]
pub enum Status {
    #[default]
    Unset = 0,
    Ok = 1,
    Error = 2,
}

impl Status {
    pub const ALL: [Status; 3] = [Status::Unset, Status::Ok, Status::Error];

    pub fn from_wire(number: u64) -> Status {
        Status::ALL.get(number as usize).copied().unwrap_or_default()
    }

    /// As policies write it: `unset`, `ok`, `error`.
    pub fn word(self) -> &'static str {
        ["unset", "ok", "error"][self as usize]
    }

    /// As the Collector's span metrics connector writes it: `STATUS_CODE_ERROR`, …
    pub fn label(self) -> &'static str {
        Self::LABELS[self as usize]
    }

    /// By the number in the protobuf.
    pub const LABELS: [&'static str; 3] = ["STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"];
}

/// Where a span stands towards the place at which its request entered what we see.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, PartialOrd, Ord)]
#[repr(u8)]
pub enum Standing {
    /// Its parent is here, or may be.
    #[default]
    Inner = 0,
    /// An entry span: its parent is remote, or it is a server or consumer span without its parent.
    Entry = 1,
    /// It has no parent id.
    Root = 2,
}

/// A run of bytes in a request body or an arena. Offsets instead of references, so that
/// the vectors that hold them are reused from request to request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Slice {
    pub start: u32,
    pub len: u32,
}

impl Slice {
    pub fn of(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start as usize..(self.start + self.len) as usize]
    }
}

/// What scan learns of one resource of a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResourceView {
    /// All fields of the ResourceSpans but its scope_spans, tags included, verbatim; in the scan's arena.
    pub header: Slice,
    /// Hash of `header`.
    pub hash: u64,
    /// `service.name` in the body; empty if absent.
    pub service: Slice,
    /// Keyed hash of the service.
    pub service_hash: u64,
    /// Index of the service in the process-wide table.
    pub service_id: u32,
}

/// What scan learns of one instrumentation scope of a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct ScopeView {
    /// Index of its resource in this request.
    pub resource: u32,
    /// All fields of the ScopeSpans but its spans, tags included, verbatim; in the scan's arena.
    pub header: Slice,
    /// Hash of `header` and of the resource's hash.
    pub hash: u64,
}

/// What scan learns of one span: enough to place, count and judge it.
#[derive(Clone, Copy, Debug, Default)]
pub struct SpanView {
    pub trace_id: TraceId,
    pub span_id: SpanId,
    /// Zero if the span has no parent.
    pub parent_id: SpanId,
    /// Unix nanoseconds.
    pub start: u64,
    /// Unix nanoseconds; before `start` on a broken clock.
    pub end: u64,
    /// The span message's payload in the body, untouched.
    pub raw: Slice,
    /// `name` in the body.
    pub name: Slice,
    /// Index of its scope in this request.
    pub scope: u32,
    pub kind: SpanKind,
    /// As it counts: see [`ErrorFacts`](question::ErrorFacts). What leaves has its own.
    pub status: Status,
    pub standing: Standing,
    /// The W3C random flag is set: the low 56 bits of the trace id are random.
    pub random_flag: bool,
    /// Some sampler upstream dropped part of this span's peers (`ot=th` above zero).
    pub head_sampled: bool,
    /// `rv` of the tracestate's `ot` member.
    pub randomness: Option<Randomness>,
    /// Hash of the operation that measures it: service, name, kind and the extra dimensions.
    pub operation: u64,
    /// Keyed hash of the span's name, for limits per entry.
    pub name_hash: u64,
    /// For limits per entry, by attributes.
    pub entry_values: EntryValues,
    pub facts: Facts,
}

impl SpanView {
    /// Nanoseconds from start to end; zero when the span ends before it starts or does not say when it did.
    pub fn duration(&self) -> u64 {
        between(self.start, self.end)
    }
}

/// Nanoseconds between two Unix times. A start of zero is unknown: 57 years would be no duration.
pub(crate) fn between(start: u64, end: u64) -> u64 {
    if start == 0 { 0 } else { end.saturating_sub(start) }
}

/// The three signals of OTLP.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Signal {
    Traces = 0,
    Metrics = 1,
    Logs = 2,
}

impl Signal {
    pub const ALL: [Signal; 3] = [Signal::Traces, Signal::Metrics, Signal::Logs];

    pub fn word(self) -> &'static str {
        ["traces", "metrics", "logs"][self as usize]
    }
}
