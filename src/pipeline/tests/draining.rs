//! A whole pipeline with a scripted sink, in simulated time.

use super::*;
use crate::deliver::{Discard, sink::SendError};
use crate::policy::Policy;
use crate::processing::Processing;
use crate::trace::RuleNames;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;
use std::pin::Pin;
use std::time::Duration;

/// Takes one batch each `pace`, or none.
#[derive(Clone)]
struct PacedSink {
    pace: Duration,
    is_down: bool,
    taken: Arc<Mutex<Vec<Span>>>,
}

impl Sink for PacedSink {
    fn takes(&self, signal: Signal) -> bool {
        signal == Signal::Traces
    }

    fn send<'a>(&'a mut self, batch: &'a Batch) -> Pin<Box<dyn Future<Output = SendResult> + Send + 'a>> {
        Box::pin(async {
            tokio::time::sleep(self.pace).await;
            if self.is_down {
                return Err(SendError::Retry { after: None, reason: "down".into() });
            }
            let request = ExportTraceServiceRequest::decode(&*batch.body).expect("what leaves is OTLP");
            let spans = request.resource_spans.into_iter().flat_map(|r| r.scope_spans).flat_map(|s| s.spans);
            self.taken.lock().unwrap().extend(spans);
            Ok(Sent::default())
        })
    }

    fn close<'a>(&'a mut self) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async {})
    }
}

const POLICY: &str = "version: 1
rules:
  - { name: errors, when: { error: true }, keep: all }
otherwise: { keep: 50% }
";

impl PacedSink {
    fn new(pace: Duration) -> PacedSink {
        PacedSink { pace, is_down: false, taken: Arc::default() }
    }

    fn down() -> PacedSink {
        PacedSink { is_down: true, ..PacedSink::new(Duration::ZERO) }
    }

    fn named(&self, name: &str, rules: Option<&str>) -> NamedSink {
        let rules = rules.map(|rule| vec![rule.to_owned()]);
        NamedSink { name: name.into(), sink: Box::new(self.clone()), rules }
    }

    fn count(&self) -> usize {
        self.taken.lock().unwrap().len()
    }
}

/// A pipeline whose queue holds about an eighth of what the tests keep, in batches of 256 KiB.
fn pipeline(pace: Duration) -> (Pipeline, PacedSink) {
    pipeline_of(64 << 20, 7, pace)
}

fn pipeline_of(ring_size: usize, seed: u64, pace: Duration) -> (Pipeline, PacedSink) {
    let sink = PacedSink::new(pace);
    (pipeline_with(ring_size, seed, vec![sink.named("paced", None)]), sink)
}

fn pipeline_with(ring_size: usize, seed: u64, sinks: Vec<NamedSink>) -> Pipeline {
    let settings = DeliverySettings {
        batch: BatchLimits { bytes: 256 << 10, ..BatchLimits::default() },
        quotas: [5 << 19; 3],
        longest_refusal: Duration::from_secs(3600),
        longest_wait: Duration::from_secs(30),
        spool: None,
        seed: 1,
    };
    let delivery = Delivery::start(settings, sinks).expect("without a spool");
    let mut rules = RuleNames::default();
    let policy = Policy::compile("policy", POLICY, 1, &mut rules).0.expect("valid");
    let active_policy = ActivePolicy::new(policy, &[], rules).expect("few questions");
    let processing = Processing::new(Default::default(), 1);
    let hops = deliver::HopMemory::default();
    Pipeline::new(ring_size, seed, active_policy, None, processing, Arc::new(delivery), hops)
}

/// Traces of two spans of six kilobytes; one in ten fails.
fn send_traces(pipeline: &Pipeline, count: u64) {
    for n in 1..=count {
        let span = |id: u8, code: i32| Span {
            trace_id: trace_id(n).0.to_vec(),
            span_id: vec![id; 8],
            parent_span_id: if id == 1 { vec![] } else { vec![1; 8] },
            name: "n".repeat(6000),
            status: Some(Status { code, ..Default::default() }),
            ..Default::default()
        };
        let spans = vec![span(1, 0), span(2, if n % 10 == 9 { 2 } else { 0 })];
        let scope_spans = vec![ScopeSpans { spans, ..Default::default() }];
        let resource_spans = vec![ResourceSpans { scope_spans, ..Default::default() }];
        let body = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
        pipeline.accept_traces(&body).expect("valid");
    }
}

/// As [`send_traces`] numbers them.
fn trace_id(n: u64) -> TraceId {
    let id = [n.to_be_bytes(), n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()].concat();
    TraceId(id.try_into().expect("16 bytes"))
}

async fn end(pipeline: &Pipeline, time: Duration) {
    let deadline = tokio::time::Instant::now() + time;
    pipeline.drain(deadline - Duration::from_secs(1)).await;
    pipeline.delivery.drain(deadline).await;
    let rows = pipeline.delivery.snapshot();
    assert!(rows.iter().all(|row| row.tally.balances()), "{rows:?}");
}

fn failed_spans(sink: &PacedSink) -> usize {
    let taken = sink.taken.lock().unwrap();
    let failed: Vec<&[u8]> = taken
        .iter()
        .filter(|span| span.status.as_ref().is_some_and(|status| status.code == 2))
        .map(|span| span.trace_id.as_slice())
        .collect();
    taken.iter().filter(|span| failed.contains(&span.trace_id.as_slice())).count()
}

#[tokio::test(start_paused = true)]
async fn a_drain_hands_over_no_faster_than_the_sink_takes() {
    let (pipeline, sink) = pipeline(Duration::from_millis(100));
    send_traces(&pipeline, 3000);
    end(&pipeline, Duration::from_secs(15)).await;
    let tally = pipeline.delivery.snapshot()[0].tally.clone();
    assert_eq!((tally.discarded(Discard::QueueFull), tally.discarded(Discard::Shutdown)), (0, 0));
    assert_eq!(sink.taken.lock().unwrap().len() as u64, tally.pushed);
    assert!(tally.pushed > 2500, "half of 6,000 spans, and the failed: {}", tally.pushed);
    assert_eq!(failed_spans(&sink), 600);
}

#[tokio::test(start_paused = true)]
async fn what_a_slow_sink_does_not_take_in_time_is_not_what_failed() {
    let (pipeline, sink) = pipeline(Duration::from_millis(500));
    send_traces(&pipeline, 3000);
    let start = tokio::time::Instant::now();
    end(&pipeline, Duration::from_secs(15)).await;
    assert!(start.elapsed() >= Duration::from_secs(13), "the deadline is used: {:?}", start.elapsed());
    let tally = pipeline.delivery.snapshot()[0].tally.clone();
    assert_eq!(failed_spans(&sink), 600);
    assert_eq!(tally.discarded(Discard::QueueFull), 0, "nothing was pushed out");
    assert!(tally.discarded(Discard::Shutdown) > 500, "{tally:?}");
}

/// As README's own configuration has it: a store that takes at once, beside a backend that does not.
#[tokio::test(start_paused = true)]
async fn a_sink_that_is_fast_takes_nothing_from_one_that_is_slow() {
    let [fast, slow] = [PacedSink::new(Duration::ZERO), PacedSink::new(Duration::from_millis(100))];
    let pipeline = pipeline_with(64 << 20, 7, vec![fast.named("fast", None), slow.named("slow", None)]);
    send_traces(&pipeline, 3000);
    end(&pipeline, Duration::from_secs(15)).await;
    assert_eq!((failed_spans(&fast), failed_spans(&slow)), (600, 600));
    assert_eq!(fast.count(), slow.count());
    let kept = pipeline.delivery.snapshot()[1].tally.clone();
    assert_eq!((kept.discarded(Discard::QueueFull), kept.discarded(Discard::Shutdown)), (0, 0));
}

/// One refuses, and one never answers.
#[tokio::test(start_paused = true)]
async fn a_sink_that_takes_nothing_keeps_the_end_waiting_for_a_moment() {
    for ill in [PacedSink::down(), PacedSink::new(Duration::from_secs(3600))] {
        let healthy = PacedSink::new(Duration::from_millis(50));
        let pipeline = pipeline_with(64 << 20, 7, vec![healthy.named("healthy", None), ill.named("ill", None)]);
        send_traces(&pipeline, 2000);
        end(&pipeline, Duration::from_secs(15)).await;
        let kept = pipeline.delivery.snapshot()[0].tally.clone();
        assert_eq!((kept.pushed, kept.delivered, failed_spans(&healthy)), (healthy.count() as u64, kept.pushed, 400));
    }
}

/// The queue is one for all: what failed waits until there is room, whoever's traces take it.
#[tokio::test(start_paused = true)]
async fn what_failed_waits_for_room_behind_the_traces_of_another_sink() {
    let [errors, others] = [PacedSink::new(Duration::from_millis(100)), PacedSink::new(Duration::from_millis(300))];
    let sinks = vec![errors.named("errors", Some("errors")), others.named("others", Some("otherwise"))];
    let pipeline = pipeline_with(64 << 20, 7, sinks);
    send_traces(&pipeline, 2000);
    end(&pipeline, Duration::from_secs(60)).await;
    assert_eq!(failed_spans(&errors), 400);
    for row in pipeline.delivery.snapshot() {
        assert_eq!(row.tally.delivered, row.tally.pushed, "{row:?}");
    }
    assert!(others.count() > 1500, "half of what did not fail");
}

/// While nobody stops, too.
#[tokio::test(start_paused = true)]
async fn what_is_kept_waits_in_the_ring_for_the_slowest_that_takes() {
    let [fast, slow] = [PacedSink::new(Duration::ZERO), PacedSink::new(Duration::from_millis(400))];
    let pipeline = pipeline_with(64 << 20, 7, vec![fast.named("fast", None), slow.named("slow", None)]);
    send_traces(&pipeline, 3000);
    (1..=3000).for_each(|n| assert!(pipeline.keep(trace_id(n))));
    for _ in 0..1200 {
        pipeline.tick().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!((fast.count(), slow.count()), (6000, 6000));
}

/// Nobody stops: the ring holds what the sink has not had time for.
#[tokio::test(start_paused = true)]
async fn what_is_kept_waits_in_the_ring_while_the_queue_has_no_room() {
    let (pipeline, sink) = pipeline(Duration::from_millis(100));
    send_traces(&pipeline, 3000);
    (1..=3000).for_each(|n| assert!(pipeline.keep(trace_id(n))));
    for _ in 0..300 {
        pipeline.tick().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let tally = pipeline.delivery.snapshot()[0].tally.clone();
    assert_eq!((tally.pushed, tally.delivered), (6000, 6000), "{tally:?}");
    assert_eq!(sink.taken.lock().unwrap().len(), 6000);
}

#[tokio::test(start_paused = true)]
async fn a_shard_at_which_the_code_failed_costs_what_is_in_it() {
    let (pipeline, sink) = pipeline(Duration::ZERO);
    assert!(pipeline.shards.len() > 1);
    send_traces(&pipeline, 500);
    let lost = 2 * (1..=500).filter(|&n| pipeline.shard_of(trace_id(n)) == 0).count();
    let failing = AssertUnwindSafe(|| {
        let _shard = pipeline.lock(0);
        panic!("as code that fails");
    });
    assert!(catch_unwind(failing).is_err());
    (1..=500).filter(|&n| pipeline.shard_of(trace_id(n)) != 0).for_each(|n| assert!(pipeline.keep(trace_id(n))));
    end(&pipeline, Duration::from_secs(15)).await;
    assert!(0 < lost && lost < 1000);
    assert_eq!(sink.taken.lock().unwrap().len(), 1000 - lost);
}

#[tokio::test]
async fn a_thread_serves_several_pipelines() {
    let pace = Duration::ZERO;
    let [small, large] = [(8 << 20, 1), (256 << 20, 2)].map(|(size, seed)| pipeline_of(size, seed, pace).0);
    for pipeline in [&small, &large, &small] {
        send_traces(pipeline, 50);
    }
    for n in 1..=50u64 {
        let id = trace_id(n);
        let spans = |pipeline: &Pipeline| {
            pipeline.look(id, |shard| match shard.why(id) {
                crate::shard::Why::InRing(entry) => entry.summary.spans,
                _ => 0,
            })
        };
        assert_eq!((spans(&small), spans(&large)), (4, 2));
    }
}
