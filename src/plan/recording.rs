//! Recorded requests, put together to traces.
//!
//! A recording has no times of arrival: a span is taken to arrive when it ends. Its spans may stand anywhere in it,
//! so all traces are held until the end, up to a bound.

use super::Planner;
use super::report::LeftOut;
use crate::ring::Ring;
use crate::scan::splice::outline;
use crate::scan::tracestate::Sampling;
use crate::scan::{Keyed, Malformed, Questions, Scan, SpanBounds};
use crate::trace::label::NumberedNames;
use crate::trace::observed::QUESTION_SETS;
use crate::trace::{Answers, Arrivals, Observed, SpanView, Summary, Threshold, TraceId};
use std::collections::HashMap;
use std::sync::Arc;

/// Traces of one plan; at most 1 KB each, with their turn at a limit.
pub const TRACES_MAX: usize = 450_000;
/// Services that are told apart; further ones are `other`.
const SERVICES_MAX: usize = 4096;
/// Names of entry spans that are told apart, likewise.
pub const NAMES_MAX: usize = 16 << 10;
/// A larger span is not counted; no ring would take it either.
const SPAN_BYTES_MAX: u32 = 64 << 20;

/// What is known of a trace, by each question set.
struct Gathered {
    summaries: [Summary; QUESTION_SETS],
    arrivals: Arrivals,
    service: u32,
    name: u32,
    threshold: Option<Threshold>,
    stored_bytes: u64,
}

/// What is to be known of a recording beside its traces.
pub struct RecordingNotes {
    /// Names by number.
    pub services: Vec<Arc<str>>,
    pub names: Vec<Arc<str>>,
    /// Spans of traces beyond the bound.
    pub beyond: u64,
    /// Spans of which a sampler has dropped others before.
    pub sampled: u64,
    pub warnings: Vec<String>,
}

/// Traces that were read so far.
pub struct Recording<'a> {
    questions: &'a [Questions; QUESTION_SETS],
    scan: Scan,
    traces: HashMap<TraceId, Gathered>,
    traces_max: usize,
    services: NumberedNames,
    names: NumberedNames,
    spans: u64,
    rejected: u64,
    sampled: u64,
    /// Spans of traces beyond the bound.
    beyond: u64,
}

/// For whoever asks nothing but what is known of every trace.
pub fn no_questions() -> [Questions; QUESTION_SETS] {
    std::array::from_fn(|_| Questions::compile(&[], &[], 1).expect("nothing is not too much"))
}

impl<'a> Recording<'a> {
    pub fn new(questions: &'a [Questions; QUESTION_SETS], traces_max: usize) -> Recording<'a> {
        Recording {
            questions,
            // No other process shares these hashes, and whoever plans chose the traces.
            scan: Scan::new(Keyed::new(0)),
            traces: HashMap::new(),
            traces_max,
            services: NumberedNames::new(SERVICES_MAX),
            names: NumberedNames::new(NAMES_MAX),
            spans: 0,
            rejected: 0,
            sampled: 0,
            beyond: 0,
        }
    }

    /// Takes an `ExportTraceServiceRequest` in.
    ///
    /// # Errors
    /// When it is none; nothing of it counts then.
    pub fn add(&mut self, request: &[u8]) -> Result<(), Malformed> {
        for set in 0..QUESTION_SETS {
            self.scan.read(request, &self.questions[set], SpanBounds::of_bytes(SPAN_BYTES_MAX))?;
            for at in 0..self.scan.spans.len() {
                self.observe(request, at, set);
            }
        }
        self.spans += self.scan.spans.len() as u64;
        self.rejected += self.scan.rejected.total();
        Ok(())
    }

    /// Spans that were read.
    pub fn spans(&self) -> u64 {
        self.spans
    }

    fn observe(&mut self, request: &[u8], at: usize, set: usize) {
        let Recording { scan, traces, services, names, .. } = self;
        let span = &scan.spans[at];
        let scope = &scan.scopes[span.scope as usize];
        let resource = &scan.resources[scope.resource as usize];
        if !traces.contains_key(&span.trace_id) {
            if traces.len() == self.traces_max {
                self.beyond += u64::from(set == 0);
                return;
            }
            let (service, name) = (services.id(resource.service.of(request)), names.id(span.name.of(request)));
            traces.insert(span.trace_id, Gathered::new(service, name, span));
        }
        let trace = traces.get_mut(&span.trace_id).expect("it is there, or was just put there");
        if set == 0 {
            self.sampled += u64::from(span.head_sampled);
            if trace.summaries[0].is_better_entry(span) {
                trace.service = services.id(resource.service.of(request));
                trace.name = names.id(span.name.of(request));
            }
            let trace_state = outline(span.raw.of(request)).trace_state.of(span.raw.of(request));
            trace.threshold = trace.threshold.max(Sampling::read(trace_state).threshold);
            trace.arrive(span, scope.header.len + resource.header.len);
        }
        trace.summaries[set].observe(span, resource.service_hash, &self.questions[set].masks);
    }

    /// Gives all traces away, and says what is to be known of them.
    pub fn each(self, take: impl FnMut(Observed)) -> RecordingNotes {
        let mut warnings = Vec::new();
        if self.rejected > 0 {
            warnings.push(format!("{} spans are malformed or have no id, and do not count", self.rejected));
        }
        if self.beyond > 0 {
            warnings.push(format!(
                "{} spans are of traces beyond the {} that are held at once, and do not count: name fewer files",
                self.beyond, self.traces_max
            ));
        }
        self.traces.into_iter().map(|(id, trace)| trace.observed(id)).for_each(take);
        let [services, names] = [&self.services, &self.names].map(|labels| labels.names().to_vec());
        RecordingNotes { services, names, beyond: self.beyond, sampled: self.sampled, warnings }
    }

    /// Gives all traces to a planner, and says what was left out and what is to be known of the rest.
    pub fn plan(self, mut planner: Planner<'_>) -> super::PlanReport {
        let RecordingNotes { services, beyond, sampled, warnings, .. } = self.each(|observed| planner.take(observed));
        let mut report = planner.finish(&services, LeftOut { beyond, ..LeftOut::default() });
        report.warnings.extend(warnings);
        if sampled > 0 {
            report.warnings.push(format!(
                "{sampled} spans were sampled before they were recorded: of what was dropped then, nothing is known here"
            ));
        }
        report
    }
}

impl Gathered {
    fn new(service: u32, name: u32, span: &SpanView) -> Gathered {
        let at = arrival(span);
        Gathered {
            summaries: [Summary::default(); QUESTION_SETS],
            arrivals: Arrivals { first: at, last: at, entered: at },
            service,
            name,
            threshold: None,
            stored_bytes: 0,
        }
    }

    /// `context` is the size of its scope and resource: whoever comes first pays for them, as in the ring.
    fn arrive(&mut self, span: &SpanView, context: u32) {
        let at = arrival(span);
        let arrivals = &mut self.arrivals;
        arrivals.first = arrivals.first.min(at);
        arrivals.last = arrivals.last.max(at);
        if self.summaries[0].is_better_entry(span) {
            arrivals.entered = at;
        }
        if self.stored_bytes == 0 {
            self.stored_bytes = Ring::record_bytes(context as usize) as u64;
        }
        self.stored_bytes += Ring::record_bytes(span.raw.len as usize) as u64;
    }

    fn observed(self, id: TraceId) -> Observed {
        let Gathered { summaries, arrivals, service, name, threshold, stored_bytes } = self;
        Observed {
            id,
            service,
            name,
            threshold,
            stored_bytes,
            arrivals,
            summary: summaries[0],
            answers: summaries.map(|s| Answers::of(&s)),
        }
    }
}

/// Milliseconds: when it ended, or began if that is not said.
fn arrival(span: &SpanView) -> u64 {
    (if span.end == 0 { span.start } else { span.end }) / 1_000_000
}
