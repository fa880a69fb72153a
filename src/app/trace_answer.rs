//! What the ring knows of a trace and holds of it, at one moment, though reading it takes the shard's lock several times.

use crate::admin::{Answer, SpansSeen};
use crate::otlp::spans;
use crate::pipeline::Pipeline;
use crate::pipeline::active_policy::ActivePolicy;
use crate::ring::index::{TraceEntry, TraceStatus};
use crate::ring::wheel::{TICK_MS, Tick};
use crate::shard::Why;
use crate::shard::verdict_cache::Remembered;
use crate::shard::walk::SpanPage;
use crate::trace::{Decision, RuleId, Signal, TraceId, Verdict};
use std::collections::BTreeSet;
use std::io;

/// Everything about it is of the moment when it was made: the spans are found from the newest one of then to the
/// oldest, and what comes later comes before that.
pub(super) struct TraceAnswer {
    id: TraceId,
    answer: Answer,
    /// The ring has nothing of it but what came after it had been kept and had left.
    pub is_late_part: bool,
    /// The entry span, if one was seen, and the newest spans. None if only the verdict is remembered.
    held: Option<(Option<[u8; 8]>, SpanPage)>,
}

impl TraceAnswer {
    /// None of a trace that nobody knows here.
    pub fn of(pipeline: &Pipeline, id: TraceId) -> Option<TraceAnswer> {
        let now = (pipeline.now_ms() / TICK_MS) as Tick;
        pipeline.look(id, |shard| {
            let why = shard.why(id);
            // After what it judged: rules have their names before they judge, and keep them.
            let active_policy = pipeline.active_policy.load();
            let found = |answer, is_late_part, held| Some(TraceAnswer { id, answer, is_late_part, held });
            match why {
                Why::InRing(entry) => {
                    let has_entry = entry.summary.has_entry();
                    let entry_span = has_entry.then(|| entry.summary.entry.span_id.to_be_bytes());
                    let held = shard.page_of(id, None).map(|page| (entry_span, page));
                    found(describe_entry(entry, &active_policy, now), entry.recalled, held)
                }
                Why::Remembered(known) => found(describe_remembered(&known, &active_policy, now), false, None),
                Why::Unknown => None,
            }
        })
    }

    /// What was known of it, and what its spans say. None if it has left the ring before all were read.
    pub fn answer(self, pipeline: &Pipeline) -> Option<Answer> {
        let TraceAnswer { id, mut answer, held, .. } = self;
        let (Some((entry_span, first)), Some(seen)) = (held, &mut answer.seen) else { return Some(answer) };
        let (mut services, mut failed) = (BTreeSet::new(), 0);
        let mut look_at = |page: &[u8]| {
            spans::add_services(page, &mut services);
            failed += spans::count_failed(page);
            if let (None, Some(span_id)) = (&seen.entry, entry_span) {
                seen.entry = spans::find(page, span_id).map(|(service, name)| describe_span(service, &name));
            }
        };
        let is_whole = read_pages(pipeline, id, first, &mut |page| {
            look_at(page);
            Ok(())
        });
        is_whole.ok().filter(|is_whole| *is_whole)?;
        seen.services = services.into_iter().collect();
        // As many may be others: some left out, and some counted beside.
        let may_differ = failed + seen.errors > 0 && !pipeline.active_policy.load().policy.errors.is_empty();
        seen.errors_by_status = may_differ.then_some(failed);
        Some(answer)
    }

    /// Gives its spans page by page. False if the ring holds none.
    ///
    /// # Errors
    /// Those of `give`, and when it leaves the ring before all are given: what came is a part then.
    pub fn give_spans(self, pipeline: &Pipeline, give: &mut GivePage<'_>) -> io::Result<bool> {
        let Some((_, first)) = self.held else { return Ok(false) };
        if read_pages(pipeline, self.id, first, give)? {
            return Ok(true);
        }
        Err(io::Error::other("the trace left the ring while it was read"))
    }
}

/// Takes fields of an `ExportTraceServiceRequest`.
type GivePage<'a> = dyn FnMut(&[u8]) -> io::Result<()> + 'a;

/// Shows the page and those behind it, each copied under the shard's lock for itself when the one before it has been
/// taken, and processed as all that leaves. False if the trace has left meanwhile.
fn read_pages(pipeline: &Pipeline, id: TraceId, first: SpanPage, show: &mut GivePage<'_>) -> io::Result<bool> {
    let mut page = first;
    loop {
        let body = std::mem::take(&mut page.body);
        show(&pipeline.processing.apply(Signal::Traces, body.into()))?;
        if page.is_last() {
            return Ok(true);
        }
        match pipeline.look(id, |shard| shard.page_of(id, Some(&page))) {
            Some(next) => page = next,
            None => return Ok(false),
        }
    }
}

fn describe_entry(entry: &TraceEntry, active_policy: &ActivePolicy, now: Tick) -> Answer {
    let summary = &entry.summary;
    let ago = |tick: Tick| Some(f64::from(now.saturating_sub(tick)) * TICK_MS as f64 / 1e3);
    let seen = SpansSeen {
        spans: u64::from(summary.spans),
        errors: u64::from(summary.errors),
        duration_ms: summary.duration() as f64 / 1e6,
        envelope_ms: summary.envelope() as f64 / 1e6,
        first_seen_ago_s: ago(entry.first),
        last_seen_ago_s: ago(entry.last),
        ..SpansSeen::default()
    };
    let verdict = match entry.state {
        TraceStatus::Waiting => "waiting",
        TraceStatus::Settling => "settling",
        TraceStatus::Kept => "kept",
        TraceStatus::Dropped => "dropped",
    };
    let provisional = "provisional: while the trace is in the ring a late span or `POST /keep/{id}` can still keep it";
    Answer {
        verdict: verdict.into(),
        source: Some("ring".into()),
        incomplete: entry.incomplete().map(|why| why.word().into()),
        seen: Some(seen),
        note: (entry.state == TraceStatus::Dropped).then(|| provisional.into()),
        beyond: beyond_limit(entry, active_policy),
        ..entry.verdict.map(|verdict| describe_verdict(&verdict, active_policy)).unwrap_or_default()
    }
}

/// Known while the policy that judged is in force and nothing came since.
fn beyond_limit(entry: &TraceEntry, active_policy: &ActivePolicy) -> Option<String> {
    let verdict = entry.verdict.filter(|verdict| verdict.policy == active_policy.policy.number && entry.again == 0)?;
    if entry.questions != active_policy.questions.number || verdict.rule == RuleId::API {
        return None;
    }
    let rule = active_policy.policy.limit_reached(&entry.summary, &verdict)?;
    let shared = rule.written.limited.as_ref().and_then(|limited| limited.shared.as_ref());
    let name = shared.map(|name| format!(" `{name}`")).unwrap_or_default();
    Some(format!("the limit{name} of the rule {}", rule.written.name))
}

fn describe_verdict(verdict: &Verdict, active_policy: &ActivePolicy) -> Answer {
    let known = verdict.threshold.filter(|_| verdict.decision != Decision::DropNone);
    Answer {
        trigger: Some(verdict.trigger.word().into()),
        policy: Some(verdict.policy),
        // What a policy writes has fewer digits.
        share: known.map(|threshold| (threshold.share() * 1e10).round() / 1e10),
        ..describe_rule(verdict.rule, verdict.policy, active_policy)
    }
}

/// What it says in the policy file is known of the version in force alone.
fn describe_rule(rule: RuleId, policy: u32, active_policy: &ActivePolicy) -> Answer {
    let written = active_policy.policy.rules.iter().find(|r| r.id == rule && policy == active_policy.policy.number);
    Answer {
        rule: Some(active_policy.rules.name(rule).to_owned()),
        rule_why: written.and_then(|rule| rule.written.why.clone()),
        ..Answer::default()
    }
}

fn describe_remembered(remembered: &Remembered, active_policy: &ActivePolicy, now: Tick) -> Answer {
    match remembered {
        Remembered::Kept(verdict) => Answer {
            verdict: "kept".into(),
            source: Some("memory".into()),
            note: Some("it has left the ring; what was seen of it went to the sinks".into()),
            ..describe_verdict(verdict, active_policy)
        },
        Remembered::Dropped { rule, trigger, policy, at } => {
            let ago = u64::from(now.saturating_sub(*at)) * TICK_MS / 1000;
            let note = format!(
                "very likely: known by a fingerprint. It left the ring {ago} s ago, and what was seen of it is gone"
            );
            Answer {
                verdict: "dropped".into(),
                source: Some("memory".into()),
                trigger: Some(trigger.word().into()),
                policy: Some(u32::from(*policy)),
                note: Some(note),
                ..describe_rule(*rule, u32::from(*policy), active_policy)
            }
        }
    }
}

fn describe_span(service: Option<String>, name: &str) -> String {
    format!("{} {name:?}", service.as_deref().unwrap_or("(no service)"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deliver::{BatchLimits, Delivery, DeliverySettings, HopMemory};
    use crate::policy::Policy;
    use crate::processing::Processing;
    use crate::receive::Intake;
    use crate::trace::RuleNames;
    use opentelemetry_proto::tonic::{
        collector::trace::v1::ExportTraceServiceRequest,
        common::v1::{AnyValue, KeyValue, any_value::Value},
        resource::v1::Resource,
        trace::v1::{ResourceSpans, ScopeSpans, Span},
    };
    use prost::Message;
    use std::sync::Arc;

    const POLICY: &str = "version: 1\nrules: []\notherwise: { keep: none }\n";
    const ID: TraceId = TraceId([7; 16]);

    fn pipeline() -> Pipeline {
        let settings = DeliverySettings {
            batch: BatchLimits::default(),
            quotas: [1 << 20; 3],
            longest_refusal: std::time::Duration::from_secs(1),
            longest_wait: std::time::Duration::from_secs(1),
            spool: None,
            seed: 1,
        };
        let delivery = Arc::new(Delivery::start(settings, Vec::new()).unwrap());
        let mut rules = RuleNames::default();
        let policy = Policy::compile("policy", POLICY, 1, &mut rules).0.expect("it has no error");
        let active_policy = ActivePolicy::new(policy, &[], rules).expect("few questions");
        Pipeline::new(
            4 << 20,
            1,
            active_policy,
            None,
            Processing::new(Default::default(), 1),
            delivery,
            HopMemory::default(),
        )
    }

    /// Spans of one trace, each of a service of its own.
    fn send(pipeline: &Pipeline, trace: TraceId, numbers: std::ops::Range<u64>, padding: usize) {
        let resource_spans = numbers.map(|number| {
            let value = Some(AnyValue { value: Some(Value::StringValue(format!("service {number}"))) });
            let attributes = vec![KeyValue { key: "service.name".into(), value, ..Default::default() }];
            let span = Span {
                trace_id: trace.0.to_vec(),
                span_id: (number + 1).to_be_bytes().to_vec(),
                parent_span_id: if number == 0 { vec![] } else { vec![9; 8] },
                name: format!("span {number}"),
                trace_state: "x".repeat(padding),
                ..Default::default()
            };
            let scope_spans = vec![ScopeSpans { spans: vec![span], ..Default::default() }];
            ResourceSpans {
                resource: Some(Resource { attributes, ..Default::default() }),
                scope_spans,
                ..Default::default()
            }
        });
        let body = ExportTraceServiceRequest { resource_spans: resource_spans.collect() }.encode_to_vec();
        let accepted = pipeline.accept(Signal::Traces, &body, crate::receive::HopHeaders::of(&http::HeaderMap::new()));
        assert_eq!(accepted.expect("it is well formed").rejected, 0);
    }

    #[tokio::test]
    async fn what_comes_while_a_trace_is_read_is_no_part_of_the_answer() {
        let pipeline = pipeline();
        send(&pipeline, ID, 1..400, 0);
        let found = TraceAnswer::of(&pipeline, ID).unwrap();
        send(&pipeline, ID, 400..800, 0);
        // The root comes last, so the entry of then is another.
        send(&pipeline, ID, 0..1, 0);
        let seen = found.answer(&pipeline).unwrap().seen.unwrap();
        assert_eq!((seen.spans, seen.services.len(), seen.entry), (399, 399, None));
        let seen = TraceAnswer::of(&pipeline, ID).unwrap().answer(&pipeline).unwrap().seen.unwrap();
        assert_eq!((seen.spans, seen.services.len()), (800, 800));
        assert_eq!(seen.entry.as_deref(), Some("service 0 \"span 0\""));
    }

    /// Others, so many and so large that what was in the ring has left.
    fn push_out(pipeline: &Pipeline) {
        (8..=255).for_each(|other| send(pipeline, TraceId([other; 16]), 0..1, 20_000));
    }

    #[tokio::test]
    async fn a_trace_that_leaves_before_it_is_read_gives_no_half_answer() {
        let pipeline = pipeline();
        send(&pipeline, ID, 0..400, 0);
        let found = TraceAnswer::of(&pipeline, ID).unwrap();
        push_out(&pipeline);
        assert!(found.answer(&pipeline).is_none());
        let remembered = TraceAnswer::of(&pipeline, ID).unwrap();
        assert!(!TraceAnswer::of(&pipeline, ID).unwrap().give_spans(&pipeline, &mut |_| Ok(())).unwrap());
        let remembered = remembered.answer(&pipeline).unwrap();
        assert_eq!((remembered.verdict.as_str(), remembered.seen), ("dropped", None));
    }

    #[tokio::test]
    async fn no_page_of_spans_is_copied_before_the_one_before_it_was_taken() {
        let pipeline = pipeline();
        send(&pipeline, ID, 0..400, 0);
        let mut pages = 0;
        let taken = TraceAnswer::of(&pipeline, ID).unwrap().give_spans(&pipeline, &mut |_| {
            pages += 1;
            push_out(&pipeline);
            Ok(())
        });
        assert!(taken.is_err(), "a part must not pass for the whole");
        assert_eq!(pages, 1);
    }

    #[tokio::test]
    async fn all_spans_are_given_and_whoever_has_gone_gets_no_more() {
        let pipeline = pipeline();
        send(&pipeline, ID, 0..400, 0);
        let (mut pages, mut failed, mut services) = (0, 0, BTreeSet::new());
        let given = TraceAnswer::of(&pipeline, ID).unwrap().give_spans(&pipeline, &mut |page| {
            pages += 1;
            spans::add_services(page, &mut services);
            Ok(())
        });
        assert!(given.unwrap());
        assert_eq!((pages, services.len()), (2, 400));
        let gone = TraceAnswer::of(&pipeline, ID).unwrap().give_spans(&pipeline, &mut |_| {
            failed += 1;
            Err(io::ErrorKind::BrokenPipe.into())
        });
        assert_eq!((gone.unwrap_err().kind(), failed), (io::ErrorKind::BrokenPipe, 1));
    }
}
