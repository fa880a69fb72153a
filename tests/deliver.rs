//! The deliver stage from outside: scripted sinks in simulated time, then real servers on loopback.

use bytes::Bytes;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use prost::Message;
use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};
use tailkeep::{
    deliver::{
        AccountRow, Batch, BatchLimits, Delivery, DeliverySettings, Discard, NamedSink, Sink,
        sink::{SendError, SendResult, Sent},
    },
    trace::Signal,
};
use tokio::time::Instant;

/// What a scripted sink does with the next batch; after the script it takes everything.
#[derive(Clone, Debug)]
enum Step {
    Take,
    Reject(u64),
    Retry(Option<Duration>),
    Pause(Duration),
    /// Splits everything with more spans than this, from now on.
    Limit(usize),
    Refuse,
    /// Refuses batches with a span of this name, or all of them, though it may take them later; until the
    /// step is taken away.
    Deny(Option<&'static str>),
    Hang,
    Panic,
}

#[derive(Clone, Default)]
struct Script {
    steps: Arc<Mutex<VecDeque<Step>>>,
    /// The names of spans that were taken, and every attempt's time.
    seen: Arc<Mutex<Vec<String>>>,
    attempts: Arc<Mutex<Vec<Instant>>>,
    closed: Arc<Mutex<bool>>,
    takes: Option<Signal>,
}

impl Script {
    fn new(steps: &[Step]) -> Script {
        Script { steps: Arc::new(Mutex::new(steps.iter().cloned().collect())), ..Script::default() }
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    fn named(&self, name: &str) -> NamedSink {
        NamedSink { name: name.to_owned(), sink: Box::new(self.clone()), rules: None }
    }

    async fn act(&self, batch: &Batch) -> SendResult {
        self.attempts.lock().unwrap().push(Instant::now());
        let names = names(&batch.body);
        let (step, limit) = {
            let mut steps = self.steps.lock().unwrap();
            match steps.front() {
                None => (None, usize::MAX),
                Some(Step::Limit(limit)) => (None, *limit),
                Some(Step::Deny(None)) => return Err(denied()),
                Some(Step::Deny(Some(name))) if names.iter().any(|found| found.starts_with(name)) => {
                    return Err(denied());
                }
                Some(Step::Deny(Some(_))) => (None, usize::MAX),
                Some(_) => (steps.pop_front(), usize::MAX),
            }
        };
        let retry = |after| Err(SendError::Retry { after, reason: "busy".to_owned() });
        let rejected = match step {
            Some(Step::Retry(after)) => return retry(after),
            Some(Step::Pause(after)) => return Err(SendError::Pause { after, reason: "all busy".to_owned() }),
            Some(Step::Refuse) => return Err(SendError::Refused { reason: "never".to_owned() }),
            Some(Step::Hang) => std::future::pending().await,
            Some(Step::Panic) => panic!("as a defect does"),
            None if names.len() > limit => return Err(SendError::Split { reason: "too many".to_owned() }),
            Some(Step::Reject(rejected)) => rejected,
            _ => 0,
        };
        self.seen.lock().unwrap().extend(names);
        Ok(Sent::without(rejected, Discard::Rejected, "bad"))
    }
}

fn denied() -> SendError {
    SendError::Denied { after: None, reason: "HTTP 500".to_owned() }
}

impl Sink for Script {
    fn takes(&self, signal: Signal) -> bool {
        self.takes.is_none_or(|taken| taken == signal)
    }

    fn send<'a>(&'a mut self, batch: &'a Batch) -> Pin<Box<dyn Future<Output = SendResult> + Send + 'a>> {
        Box::pin(self.act(batch))
    }

    fn close<'a>(&'a mut self) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        *self.closed.lock().unwrap() = true;
        Box::pin(async {})
    }
}

fn request(names: &[&str]) -> Vec<u8> {
    let span = |name: &&str| Span { name: name.to_string(), trace_id: vec![7; 16], ..Default::default() };
    let scope_spans = vec![ScopeSpans { spans: names.iter().map(span).collect(), ..Default::default() }];
    let resource_spans = vec![ResourceSpans { scope_spans, ..Default::default() }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

fn names(body: &[u8]) -> Vec<String> {
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    let spans = request.resource_spans.into_iter().flat_map(|r| r.scope_spans).flat_map(|s| s.spans);
    spans.map(|span| span.name).collect()
}

fn settings() -> DeliverySettings {
    DeliverySettings {
        batch: BatchLimits::default(),
        quotas: [1 << 20; 3],
        longest_wait: Duration::from_secs(30),
        longest_refusal: Duration::from_secs(3600),
        spool: None,
        seed: 7,
    }
}

fn start(settings: DeliverySettings, sinks: Vec<NamedSink>) -> Delivery {
    Delivery::start(settings, sinks).unwrap()
}

fn push(delivery: &Delivery, names: &[&str]) {
    delivery.push(Signal::Traces, request(names), names.len() as u64);
    balanced(delivery);
}

/// The identity, which must hold at any moment.
fn balanced(delivery: &Delivery) -> Vec<AccountRow> {
    let rows = delivery.snapshot();
    for row in &rows {
        assert!(row.tally.balances(), "{row:?}");
    }
    rows
}

fn row(delivery: &Delivery, sink: &str) -> AccountRow {
    balanced(delivery).into_iter().find(|row| row.sink == sink && row.signal == Signal::Traces).unwrap()
}

/// Simulated time passes in steps, and the accounts must balance at each.
async fn pass(delivery: &Delivery, time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        tokio::time::sleep(time / 20).await;
        balanced(delivery);
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn one_slow_sink_does_not_stop_another() {
    let (fast, slow) = (Script::default(), Script::new(&[Step::Hang]));
    let delivery = start(settings(), vec![fast.named("fast"), slow.named("slow")]);
    for name in ["a", "b", "c"] {
        push(&delivery, &[name]);
        pass(&delivery, SECOND).await;
    }
    assert_eq!(fast.seen(), ["a", "b", "c"]);
    assert_eq!(row(&delivery, "fast").tally.delivered, 3);
    let slow = row(&delivery, "slow").tally;
    assert_eq!((slow.delivered, slow.queued), (0, 3));
    assert!(slow.queued_bytes > 0);
}

#[tokio::test(start_paused = true)]
async fn pieces_of_one_moment_travel_together_and_in_order() {
    let sink = Script::default();
    let delivery = start(settings(), vec![sink.named("here")]);
    for name in ["a", "b", "c"] {
        push(&delivery, &[name]);
    }
    pass(&delivery, SECOND).await;
    assert_eq!(sink.seen(), ["a", "b", "c"]);
    assert_eq!(sink.attempts.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failing_sink_is_tried_again_until_it_takes() {
    let asked = Some(Duration::from_secs(20));
    let steps = [vec![Step::Retry(asked)], vec![Step::Retry(None); 30], vec![Step::Take]].concat();
    let sink = Script::new(&steps);
    let delivery = start(settings(), vec![sink.named("here")]);
    push(&delivery, &["a"]);
    pass(&delivery, SECOND).await;
    push(&delivery, &["b"]);
    pass(&delivery, 1000 * SECOND).await;
    assert_eq!(sink.seen(), ["a", "b"], "order is kept");
    let tally = row(&delivery, "here").tally;
    assert_eq!((tally.delivered, tally.queued, tally.queued_bytes), (2, 0, 0));

    let attempts = sink.attempts.lock().unwrap().clone();
    let waits: Vec<Duration> = attempts.windows(2).map(|pair| pair[1] - pair[0]).take(31).collect();
    assert!(waits[0] >= Duration::from_secs(20), "what the sink asked for");
    assert!(waits.iter().all(|wait| *wait <= 31 * SECOND), "{waits:?}");
    assert!(waits[12..].iter().any(|wait| *wait > 5 * SECOND), "it slows down: {waits:?}");
}

/// As for the write quota of a project, which all its stores share.
#[tokio::test(start_paused = true)]
async fn a_pause_holds_for_all_signals_of_the_sink_and_for_no_other_sink() {
    let (sink, other) = (Script::new(&[Step::Pause(20 * SECOND)]), Script::default());
    let delivery = start(settings(), vec![sink.named("here"), other.named("there")]);
    push(&delivery, &["a"]);
    pass(&delivery, SECOND).await;
    delivery.push(Signal::Logs, vec![], 1);
    pass(&delivery, 18 * SECOND).await;
    assert_eq!(sink.attempts.lock().unwrap().len(), 1, "logs wait as well");
    assert_eq!(other.attempts.lock().unwrap().len(), 2);
    pass(&delivery, 2 * SECOND).await;
    assert_eq!((sink.attempts.lock().unwrap().len(), sink.seen()), (3, vec!["a".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_too_large_is_halved_until_it_fits() {
    let sink = Script::new(&[Step::Limit(2)]);
    let delivery = start(settings(), vec![sink.named("here")]);
    push(&delivery, &["a", "b", "c", "d", "e", "f", "g"]);
    pass(&delivery, SECOND).await;
    assert_eq!(sink.seen(), ["a", "b", "c", "d", "e", "f", "g"]);
    assert_eq!(row(&delivery, "here").tally.delivered, 7);

    let none = Script::new(&[Step::Limit(0)]);
    let delivery = start(settings(), vec![none.named("none")]);
    push(&delivery, &["a", "b", "c"]);
    pass(&delivery, SECOND).await;
    assert_eq!(row(&delivery, "none").tally.discarded(Discard::TooLarge), 3);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_rejects_more_than_there_is_harms_nothing() {
    let sink = Script::new(&[const { Step::Reject(u64::MAX) }; 3]);
    let delivery = start(settings(), vec![sink.named("here")]);
    for name in ["a", "b", "c", "d"] {
        push(&delivery, &[name]);
        pass(&delivery, SECOND).await;
    }
    let tally = row(&delivery, "here").tally;
    assert_eq!((tally.discarded(Discard::Rejected), tally.delivered, tally.queued), (3, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn refusals_and_rejections_are_counted_and_do_not_block() {
    let sink = Script::new(&[Step::Refuse, Step::Reject(2)]);
    let delivery = start(settings(), vec![sink.named("here")]);
    for names in [&["a"][..], &["b", "c", "d"], &["e"]] {
        push(&delivery, names);
        pass(&delivery, SECOND).await;
    }
    let tally = row(&delivery, "here").tally;
    assert_eq!((tally.pushed, tally.delivered, tally.queued), (5, 2, 0));
    assert_eq!((tally.discarded(Discard::Refused), tally.discarded(Discard::Rejected)), (1, 2));
}

/// A token that expired, a gateway without a backend: the queue has room, so nothing is lost.
#[tokio::test(start_paused = true)]
async fn what_is_refused_for_a_while_is_delivered_when_that_is_over() {
    let sink = Script::new(&[Step::Deny(None)]);
    let delivery = start(settings(), vec![sink.named("here")]);
    for names in [&["a", "b", "c"][..], &["d"]] {
        push(&delivery, names);
        pass(&delivery, 20 * 60 * SECOND).await;
    }
    assert_eq!(row(&delivery, "here").tally.queued, 4);
    sink.steps.lock().unwrap().clear();
    pass(&delivery, 60 * SECOND).await;
    let mut seen = sink.seen();
    seen.sort();
    assert_eq!(seen, ["a", "b", "c", "d"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_for_good_ends_after_the_configured_time_batch_by_batch() {
    let sink = Script::new(&[Step::Deny(None)]);
    let longest_refusal = 600 * SECOND;
    let delivery = start(DeliverySettings { longest_refusal, ..settings() }, vec![sink.named("here")]);
    push(&delivery, &["a", "b", "c"]);
    pass(&delivery, SECOND).await;
    push(&delivery, &["d"]);
    let refused = || row(&delivery, "here").tally.discarded(Discard::Refused);
    pass(&delivery, 590 * SECOND).await;
    assert_eq!(refused(), 0);
    pass(&delivery, 100 * SECOND).await;
    assert_eq!(refused(), 3);
    pass(&delivery, 480 * SECOND).await;
    assert_eq!(refused(), 3, "the next has its own time");
    pass(&delivery, 200 * SECOND).await;
    assert_eq!(refused(), 4);
    let tally = row(&delivery, "here").tally;
    assert_eq!((tally.queued, tally.queued_bytes), (0, 0));

    let at_once = Script::new(&[Step::Deny(None)]);
    let longest_refusal = Duration::ZERO;
    let delivery = start(DeliverySettings { longest_refusal, ..settings() }, vec![at_once.named("here")]);
    push(&delivery, &["a"]);
    pass(&delivery, SECOND).await;
    assert_eq!(row(&delivery, "here").tally.discarded(Discard::Refused), 1, "OTLP's rule");
}

#[tokio::test(start_paused = true)]
async fn one_item_that_a_sink_trips_over_costs_itself_and_some_minutes() {
    let sink = Script::new(&[Step::Deny(Some("n70"))]);
    let delivery = start(settings(), vec![sink.named("here")]);
    let all: Vec<String> = (0..200).map(|n| format!("n{n}")).collect();
    push(&delivery, &all.iter().map(String::as_str).collect::<Vec<_>>());
    push(&delivery, &["after"]);
    pass(&delivery, 120 * SECOND).await;
    assert_eq!(row(&delivery, "here").tally.discarded(Discard::Refused), 0, "it may heal");
    pass(&delivery, 1800 * SECOND).await;
    let tally = row(&delivery, "here").tally;
    assert_eq!((tally.delivered, tally.discarded(Discard::Refused), tally.queued), (200, 1, 0));
    let mut seen = sink.seen();
    seen.sort();
    let mut expected: Vec<String> = all.into_iter().filter(|name| name != "n70").chain(["after".to_owned()]).collect();
    expected.sort();
    assert_eq!(seen, expected);
}

/// The batch of the bad item, and those behind it, have no ten minutes.
#[tokio::test(start_paused = true)]
async fn at_the_end_a_bad_item_costs_itself_and_not_what_waits_behind_it() {
    let sink = Script::new(&[Step::Deny(Some("n70"))]);
    let delivery = start(settings(), vec![sink.named("here")]);
    let all: Vec<String> = (0..200).map(|n| format!("n{n}")).collect();
    push(&delivery, &all.iter().map(String::as_str).collect::<Vec<_>>());
    pass(&delivery, 40 * SECOND).await;
    let behind: Vec<String> = (0..200).map(|n| format!("behind {n}")).collect();
    push(&delivery, &behind.iter().map(String::as_str).collect::<Vec<_>>());
    delivery.drain(Instant::now() + 14 * SECOND).await;
    let tally = row(&delivery, "here").tally;
    assert_eq!((tally.delivered, tally.discarded(Discard::Refused)), (399, 1), "{tally:?}");
}

/// As those of a firewall do: they come in flocks.
#[tokio::test(start_paused = true)]
async fn two_bad_items_in_one_batch_are_found() {
    let sink = Script::new(&[Step::Deny(Some("bad"))]);
    let delivery = start(settings(), vec![sink.named("here")]);
    let name = |n: usize| if n == 10 || n == 190 { format!("bad {n}") } else { format!("n{n}") };
    let all: Vec<String> = (0..200).map(name).collect();
    push(&delivery, &all.iter().map(String::as_str).collect::<Vec<_>>());
    pass(&delivery, 3000 * SECOND).await;
    let tally = row(&delivery, "here").tally;
    assert_eq!((tally.delivered, tally.discarded(Discard::Refused), tally.queued), (198, 2, 0));
}

#[tokio::test(start_paused = true)]
async fn logs_cannot_push_out_traces() {
    let away = Script::new(&[Step::Hang]);
    let delivery = start(settings(), vec![away.named("away")]);
    push(&delivery, &["a"]);
    pass(&delivery, SECOND).await;
    push(&delivery, &["b"]);
    for _ in 0..100 {
        delivery.push(Signal::Logs, vec![0u8; 100_000], 10);
        balanced(&delivery);
    }
    let rows = balanced(&delivery);
    let tally = |signal| rows.iter().find(|row| row.signal == signal).unwrap().tally.clone();
    assert_eq!(tally(Signal::Traces).queued, 2);
    let logs = tally(Signal::Logs);
    assert!(logs.queued_bytes <= 1 << 20 && logs.discarded(Discard::QueueFull) > 0, "{logs:?}");
}

#[tokio::test(start_paused = true)]
async fn a_signal_goes_to_the_sinks_that_take_it() {
    let traces = Script { takes: Some(Signal::Traces), ..Script::default() };
    let delivery = start(settings(), vec![traces.named("here")]);
    assert!(delivery.takes(Signal::Traces) && !delivery.takes(Signal::Metrics));
    delivery.push(Signal::Metrics, vec![1], 5);
    push(&delivery, &["a"]);
    pass(&delivery, SECOND).await;
    let rows = balanced(&delivery);
    assert_eq!(rows.len(), 2);
    let none = rows.iter().find(|row| row.sink == "none").unwrap();
    assert_eq!((none.signal, none.tally.discarded(Discard::NoSink)), (Signal::Metrics, 5));
}

/// An export of our own is larger than the queue's part for metrics, and the sink is well.
#[tokio::test(start_paused = true)]
async fn our_own_metrics_come_as_fast_as_a_sink_takes_them() {
    const PARTS: u64 = 40;
    let (well, away) = (Script::default(), Script::new(&[Step::Hang]));
    for (what, sinks) in [("one", vec![well.named("well")]), ("two", vec![away.named("away"), well.named("well")])] {
        let delivery = start(DeliverySettings { quotas: [256 << 10; 3], ..settings() }, sinks);
        let until = Instant::now() + 5 * SECOND;
        for _ in 0..PARTS {
            delivery.push_own(Signal::Metrics, [0x2a, 0].repeat(30 << 10), 7, until).await;
        }
        assert!(Instant::now() < until, "{what}: it takes them");
        pass(&delivery, SECOND).await;
        let rows = balanced(&delivery);
        let row = rows.iter().find(|row| row.sink == "well" && row.signal == Signal::Metrics).unwrap();
        assert_eq!((row.tally.delivered, row.tally.discarded(Discard::QueueFull)), (7 * PARTS, 0), "{what}");
    }
    // A sink that is away holds nobody up for longer, and the newest stay.
    let delivery = start(DeliverySettings { quotas: [256 << 10; 3], ..settings() }, vec![away.named("away")]);
    away.steps.lock().unwrap().push_back(Step::Hang);
    let start = Instant::now();
    for _ in 0..PARTS {
        delivery.push_own(Signal::Metrics, [0x2a, 0].repeat(30 << 10), 7, start + 5 * SECOND).await;
    }
    assert_eq!(start.elapsed().as_secs(), 5);
    let rows = balanced(&delivery);
    let tally = &rows.iter().find(|row| row.signal == Signal::Metrics).unwrap().tally;
    assert!(tally.queued >= 28 && tally.discarded(Discard::QueueFull) > 0, "{tally:?}");
}

#[tokio::test(start_paused = true)]
async fn draining_delivers_what_it_can_and_counts_the_rest() {
    let steps = [vec![Step::Retry(Some(200 * SECOND))], vec![Step::Take]].concat();
    let (back, hangs) = (Script::new(&steps), Script::new(&[Step::Hang]));
    let delivery = start(settings(), vec![back.named("back"), hangs.named("hangs")]);
    push(&delivery, &["a"]);
    pass(&delivery, SECOND).await;
    push(&delivery, &["b", "c"]);
    let start = Instant::now();
    delivery.drain(start + 20 * SECOND).await;
    assert!(start.elapsed() <= 20 * SECOND);
    assert_eq!(back.seen(), ["a", "b", "c"], "no back-off and no age is waited for");
    let (back_row, hangs_row) = (row(&delivery, "back").tally, row(&delivery, "hangs").tally);
    assert_eq!((back_row.delivered, back_row.queued), (3, 0));
    assert_eq!((hangs_row.discarded(Discard::Shutdown), hangs_row.queued, hangs_row.queued_bytes), (3, 0, 0));
    assert!(*back.closed.lock().unwrap() && *hangs.closed.lock().unwrap());
    push(&delivery, &["late"]);
    assert_eq!(row(&delivery, "back").tally.discarded(Discard::Shutdown), 1);
}

#[tokio::test(start_paused = true)]
async fn a_sink_whose_task_ends_is_noticed_and_costs_no_other() {
    let (broken, whole) = (Script::new(&[Step::Panic]), Script::default());
    let delivery = start(settings(), vec![broken.named("broken"), whole.named("whole")]);
    push(&delivery, &["a"]);
    assert_eq!(delivery.failed().await, "the sink broken");
    push(&delivery, &["b"]);
    delivery.drain(Instant::now() + 10 * SECOND).await;
    assert_eq!(whole.seen(), ["a", "b"]);
    assert_eq!(row(&delivery, "broken").tally.discarded(Discard::Shutdown), 2);
    balanced(&delivery);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_sinks_is_no_failure() {
    let sink = Script::default();
    let delivery = start(settings(), vec![sink.named("here")]);
    push(&delivery, &["a"]);
    delivery.drain(Instant::now() + 10 * SECOND).await;
    assert!(tokio::time::timeout(SECOND, delivery.failed()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn large_pieces_are_divided_before_they_are_sent() {
    let sink = Script::default();
    let batch = BatchLimits { bytes: 1000, ..BatchLimits::default() };
    let delivery = start(DeliverySettings { batch, ..settings() }, vec![sink.named("here")]);
    let long: Vec<String> = (0..40).map(|n| format!("{n}{}", "x".repeat(100))).collect();
    push(&delivery, &long.iter().map(String::as_str).collect::<Vec<_>>());
    pass(&delivery, SECOND).await;
    assert_eq!(sink.seen(), long);
    assert!(sink.attempts.lock().unwrap().len() >= 5);
}

/// Lines of the log.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl Said {
    fn lines(&self, with: &str) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().filter(|line| line.contains(with)).map(str::to_owned).collect()
    }
}

impl std::io::Write for Said {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn the_log_of_a_sink_that_is_down_counts_on_and_says_when_the_queue_is_full() {
    let said = Said::default();
    let writer = said.clone();
    let log = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _log = tracing::subscriber::set_default(log);
    let sink = Script::new(&vec![Step::Retry(None); 200]);
    let delivery = start(settings(), vec![sink.named("here")]);
    let long = "x".repeat(5000);
    for _ in 0..100 {
        push(&delivery, &[&long]);
        pass(&delivery, SECOND).await;
    }
    let number = |line: &String, name: &str| -> Option<u64> {
        let rest = line.split(&format!("{name}=")).nth(1)?;
        rest.split_whitespace().next()?.parse().ok()
    };
    let lines = said.lines("could not deliver");
    assert!(lines.len() >= 3, "{lines:?}");
    let counts: Vec<_> = lines.iter().filter_map(|line| number(line, "failures")).collect();
    assert!(counts.len() == lines.len() && counts.is_sorted_by(|a, b| a < b), "{lines:?}");
    assert_eq!(*counts.last().unwrap(), sink.attempts.lock().unwrap().len() as u64);
    let last = lines.last().unwrap();
    let (down, full) = (number(last, "down_s").unwrap(), number(last, "full_in_s").unwrap());
    // 1 MiB of about 5 KB a second.
    assert!((50..=100).contains(&down) && (195..=215).contains(&(down + full)), "{last}");
}

#[tokio::test(start_paused = true)]
async fn the_log_of_a_full_queue_names_the_whole_loss_though_nothing_more_is_lost() {
    let said = Said::default();
    let writer = said.clone();
    let log = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _log = tracing::subscriber::set_default(log);
    let delivery = start(settings(), vec![Script::new(&[Step::Hang]).named("here")]);
    let long = "x".repeat(100_000);
    (0..50).for_each(|_| push(&delivery, &[&long]));
    let lost = delivery.snapshot()[0].tally.discarded(Discard::QueueFull);
    assert!(lost > 20);
    pass(&delivery, 60 * SECOND).await;
    let lines = said.lines("the queue is full");
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[1].contains(&format!(" total={lost} ")), "{lines:?}");
    assert!(lines[1].contains("write a `queue.path`"), "{lines:?}");
}

mod servers {
    use super::*;
    use http::{HeaderMap, Request, Response, header::HeaderName};
    use http_body_util::{BodyExt, Full};
    use hyper::{body::Incoming, service::service_fn};
    use hyper_util::{
        rt::{TokioExecutor, TokioIo},
        server::conn::auto,
    };
    use opentelemetry_proto::tonic::collector::trace::v1::{ExportTracePartialSuccess, ExportTraceServiceResponse};
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
    use std::{io::Read, path::Path};
    use tailkeep::deliver::sink::otlp::{Compression, OtlpSettings, OtlpSink, Protocol};
    use tailkeep::http_client::{ClientCertificate, ClientSettings, TlsSettings};
    use tailkeep::otlp::HOP_HEADER;
    use tokio::net::TcpListener;
    use tokio_rustls::{
        TlsAcceptor,
        rustls::{RootCertStore, ServerConfig, crypto::ring, server::WebPkiClientVerifier},
    };
    use tonic::{
        Code, Status,
        codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder},
        server::{Grpc, UnaryService},
    };

    fn partial() -> Option<ExportTracePartialSuccess> {
        Some(ExportTracePartialSuccess { rejected_spans: 1, error_message: "one with t0k3n-value was bad".to_owned() })
    }

    /// Requests that reached a server: path, headers, body after decompression.
    type Log = Arc<Mutex<Vec<(String, HeaderMap, Bytes)>>>;

    fn settings(protocol: Protocol, address: &str) -> OtlpSettings {
        let mut headers = HeaderMap::new();
        headers.insert("authentication", "t0k3n-value".parse().unwrap());
        OtlpSettings {
            protocol,
            endpoint: "http://sink.test:4317".to_owned(),
            urls: [None, None, None],
            signals: [true, true, false],
            headers: headers.into(),
            compression: Compression::Gzip,
            client: ClientSettings {
                connect_to: Some(address.to_owned()),
                timeout: Duration::from_secs(5),
                ..ClientSettings::default()
            },
            hops: tailkeep::deliver::HopMemory::new("instance-1"),
        }
    }

    fn batch(signal: Signal) -> Batch {
        let spans: Vec<&str> = vec!["GET /products"; 2000];
        Batch { signal, body: request(&spans).into(), items: 2000 }
    }

    /// Serves every connection with `answer` until the test ends.
    async fn serve<A, F>(tls: Option<TlsAcceptor>, answer: A) -> String
    where
        A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
        F: Future<Output = Response<tonic::body::Body>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((peer, _)) = listener.accept().await {
                let (tls, answer) = (tls.clone(), answer.clone());
                let service = service_fn(move |request| {
                    let reply = answer(request);
                    async move { Ok::<_, std::convert::Infallible>(reply.await) }
                });
                tokio::spawn(async move {
                    let server = auto::Builder::new(TokioExecutor::new());
                    // A client that breaks off is part of some tests.
                    let _ = match tls {
                        None => server.serve_connection(TokioIo::new(peer), service).await,
                        Some(tls) => match tls.accept(peer).await {
                            Ok(peer) => server.serve_connection(TokioIo::new(peer), service).await,
                            Err(_) => Ok(()),
                        },
                    };
                });
            }
        });
        address
    }

    /// Status, headers, body.
    type Answer = (u16, Vec<(&'static str, &'static str)>, Vec<u8>);

    /// An OTLP/HTTP server that answers in turn, the last answer for ever.
    async fn http_server(answers: Vec<Answer>) -> (String, Log) {
        let log = Log::default();
        let (seen, answers) = (log.clone(), Arc::new(Mutex::new(VecDeque::from(answers))));
        let address = serve(None, move |request: Request<Incoming>| {
            let (seen, answers) = (seen.clone(), answers.clone());
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let body = match head.headers.get("content-encoding").map(|value| value.as_bytes()) {
                    Some(b"gzip") => {
                        let mut plain = Vec::new();
                        flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut plain).unwrap();
                        plain.into()
                    }
                    Some(b"zstd") => zstd::decode_all(&body[..]).unwrap().into(),
                    _ => body,
                };
                seen.lock().unwrap().push((head.uri.to_string(), head.headers, body));
                let mut answers = answers.lock().unwrap();
                let (status, headers, body) =
                    if answers.len() > 1 { answers.pop_front().unwrap() } else { answers[0].clone() };
                let mut response = Response::new(tonic::body::Body::new(Full::new(body.into())));
                *response.status_mut() = status.try_into().unwrap();
                for (name, value) in headers {
                    response.headers_mut().insert(HeaderName::from_static(name), value.parse().unwrap());
                }
                response
            }
        })
        .await;
        (address, log)
    }

    #[tokio::test]
    async fn http_requests_are_what_receivers_expect() {
        let (address, log) = http_server(vec![(200, vec![], vec![])]).await;
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let mut sink = OtlpSink::new(OtlpSettings { compression, ..settings(Protocol::Http, &address) }).unwrap();
            assert!(sink.takes(Signal::Metrics) && !sink.takes(Signal::Logs));
            let sent = batch(Signal::Traces);
            assert_eq!(sink.send(&sent).await, Ok(Sent::default()));
            let (path, headers, body) = log.lock().unwrap().pop().unwrap();
            assert_eq!((path.as_str(), body), ("/v1/traces", sent.body));
            assert_eq!(headers["host"], "sink.test:4317");
            assert_eq!(headers["content-type"], "application/x-protobuf");
            assert_eq!(headers["authentication"], "t0k3n-value");
            assert_eq!(headers[HOP_HEADER], "instance-1");
        }
    }

    #[tokio::test]
    async fn http_answers_decide_what_happens_next() {
        let partial = ExportTraceServiceResponse { partial_success: partial() }.encode_to_vec();
        let (address, _) = http_server(vec![
            (503, vec![("retry-after", "7")], vec![]),
            (413, vec![], vec![]),
            (401, vec![("content-type", "text/plain")], b"bad token t0k3n-value".to_vec()),
            (200, vec![("x-log-requestid", "R-1")], partial),
        ])
        .await;
        let mut sink = OtlpSink::new(settings(Protocol::Http, &address)).unwrap();
        let sent = batch(Signal::Traces);
        let first = sink.send(&sent).await;
        assert!(matches!(first, Err(SendError::Retry { after: Some(Duration { .. }), .. })), "{first:?}");
        assert!(matches!(sink.send(&sent).await, Err(SendError::Split { .. })));
        let Err(SendError::Denied { reason, .. }) = sink.send(&sent).await else { panic!() };
        assert_eq!(reason, "http://sink.test:4317: HTTP 401: bad token [hidden]");
        let reason = "http://sink.test:4317: one with [hidden] was bad (request id R-1)";
        let partial = Sent::without(1, Discard::Rejected, reason);
        assert_eq!(sink.send(&sent).await, Ok(Sent { request_id: Some("R-1".to_owned()), ..partial }));
    }

    #[tokio::test]
    async fn a_200_takes_the_batch_whatever_its_body() {
        let bodies = [vec![0; 2 << 20], b"<html>please log in</html>".to_vec(), b"\x0a\xff".to_vec()];
        for body in bodies {
            let (address, log) = http_server(vec![(200, vec![], body)]).await;
            let mut sink = OtlpSink::new(settings(Protocol::Http, &address)).unwrap();
            assert_eq!(sink.send(&batch(Signal::Traces)).await, Ok(Sent::default()));
            assert_eq!(log.lock().unwrap().len(), 1);
        }
        // gRPC's status comes behind the body.
        let export = Export::default();
        let error_message = "w".repeat(2 << 20);
        let partial_success = Some(ExportTracePartialSuccess { rejected_spans: 0, error_message });
        export.answers.lock().unwrap().push_back(Ok(ExportTraceServiceResponse { partial_success }));
        let address = grpc_server(None, &export, usize::MAX).await;
        let mut sink = OtlpSink::new(settings(Protocol::Grpc, &address)).unwrap();
        assert_eq!(sink.send(&batch(Signal::Traces)).await, Ok(Sent::default()));
        assert_eq!(export.seen.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_server_that_is_away_is_tried_again() {
        // Bound, so that nobody else gets the port, and not listening.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap().to_string();
        for protocol in [Protocol::Http, Protocol::Grpc] {
            let mut sink = OtlpSink::new(settings(protocol, &address)).unwrap();
            let Err(SendError::Retry { reason, .. }) = sink.send(&batch(Signal::Traces)).await else { panic!() };
            assert!(reason.contains("cannot connect") && reason.contains(&address), "{reason}");
        }
    }

    /// tonic reads the request and writes the answer: it knows nothing of our client.
    #[derive(Clone, Default)]
    struct Export {
        answers: Arc<Mutex<VecDeque<Result<ExportTraceServiceResponse, Status>>>>,
        seen: Arc<Mutex<Vec<(String, HeaderMap, ExportTraceServiceRequest)>>>,
        path: String,
    }

    impl UnaryService<ExportTraceServiceRequest> for Export {
        type Response = ExportTraceServiceResponse;
        type Future = std::future::Ready<Result<tonic::Response<ExportTraceServiceResponse>, Status>>;

        fn call(&mut self, request: tonic::Request<ExportTraceServiceRequest>) -> Self::Future {
            let (metadata, _, message) = request.into_parts();
            self.seen.lock().unwrap().push((self.path.clone(), metadata.into_headers(), message));
            let answer = self.answers.lock().unwrap().pop_front().unwrap_or_else(|| Ok(Default::default()));
            std::future::ready(answer.map(tonic::Response::new))
        }
    }

    #[derive(Clone, Copy, Default)]
    struct Protobuf;

    impl Codec for Protobuf {
        type Encode = ExportTraceServiceResponse;
        type Decode = ExportTraceServiceRequest;
        type Encoder = Protobuf;
        type Decoder = Protobuf;

        fn encoder(&mut self) -> Protobuf {
            Protobuf
        }

        fn decoder(&mut self) -> Protobuf {
            Protobuf
        }
    }

    impl Encoder for Protobuf {
        type Item = ExportTraceServiceResponse;
        type Error = Status;

        fn encode(&mut self, item: ExportTraceServiceResponse, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
            item.encode(out).map_err(|e| Status::internal(e.to_string()))
        }
    }

    impl Decoder for Protobuf {
        type Item = ExportTraceServiceRequest;
        type Error = Status;

        fn decode(&mut self, body: &mut DecodeBuf<'_>) -> Result<Option<ExportTraceServiceRequest>, Status> {
            ExportTraceServiceRequest::decode(body).map(Some).map_err(|e| Status::internal(e.to_string()))
        }
    }

    async fn grpc_server(tls: Option<TlsAcceptor>, export: &Export, limit: usize) -> String {
        let export = export.clone();
        serve(tls, move |request| {
            let path = request.uri().path().to_owned();
            let export = Export { path, ..export.clone() };
            async move {
                let mut grpc = Grpc::new(Protobuf)
                    .accept_compressed(CompressionEncoding::Gzip)
                    .accept_compressed(CompressionEncoding::Zstd)
                    .max_decoding_message_size(limit);
                grpc.unary(export, request).await
            }
        })
        .await
    }

    #[tokio::test]
    async fn grpc_requests_are_what_tonic_expects() {
        let export = Export::default();
        let address = grpc_server(None, &export, usize::MAX).await;
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let mut sink = OtlpSink::new(OtlpSettings { compression, ..settings(Protocol::Grpc, &address) }).unwrap();
            let sent = batch(Signal::Traces);
            assert_eq!(sink.send(&sent).await, Ok(Sent::default()));
            let (path, headers, message) = export.seen.lock().unwrap().pop().unwrap();
            assert_eq!(path, "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
            assert_eq!(message.encode_to_vec(), sent.body);
            assert_eq!(headers["authentication"], "t0k3n-value");
            assert_eq!(headers[HOP_HEADER], "instance-1");
        }
    }

    #[tokio::test]
    async fn grpc_answers_decide_what_happens_next() {
        let export = Export::default();
        export.answers.lock().unwrap().extend([
            Err(Status::new(Code::Unavailable, "busy")),
            Err(Status::new(Code::InvalidArgument, "bad t0k3n-value")),
            Ok(ExportTraceServiceResponse { partial_success: partial() }),
        ]);
        let address = grpc_server(None, &export, usize::MAX).await;
        let mut sink = OtlpSink::new(settings(Protocol::Grpc, &address)).unwrap();
        let sent = batch(Signal::Traces);
        let busy = Err(SendError::Retry { after: None, reason: "http://sink.test:4317: Unavailable: busy".to_owned() });
        assert_eq!(sink.send(&sent).await, busy);
        let reason = "http://sink.test:4317: InvalidArgument: bad [hidden]".to_owned();
        assert_eq!(sink.send(&sent).await, Err(SendError::Refused { reason }));
        assert_eq!(
            sink.send(&sent).await,
            Ok(Sent::without(1, Discard::Rejected, "http://sink.test:4317: one with [hidden] was bad"))
        );

        // A real server's complaint about the size, whose code would otherwise mean "again".
        let small = grpc_server(None, &export, 1000).await;
        let mut sink = OtlpSink::new(settings(Protocol::Grpc, &small)).unwrap();
        assert!(matches!(sink.send(&sent).await, Err(SendError::Split { .. })));
    }

    /// A server certificate for sink.test and a client certificate, signed by one authority.
    fn tls_files(folder: &Path) -> (TlsAcceptor, TlsSettings) {
        let ca_key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::new(vec![]).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(ca, ca_key).unwrap();
        let signed = |name: &str, purpose| {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            params.extended_key_usages = vec![purpose];
            (params.signed_by(&key, &ca).unwrap(), key)
        };
        let (server, server_key) = signed("sink.test", ExtendedKeyUsagePurpose::ServerAuth);
        let (client, client_key) = signed("tailkeep.test", ExtendedKeyUsagePurpose::ClientAuth);
        let [ca_file, certificate_file, key_file] =
            ["ca.pem", "client.pem", "client.key"].map(|name| folder.join(name));
        std::fs::write(&ca_file, ca.pem()).unwrap();
        std::fs::write(&certificate_file, client.pem()).unwrap();
        std::fs::write(&key_file, client_key.serialize_pem()).unwrap();

        let mut roots = RootCertStore::empty();
        roots.add(ca.der().clone()).unwrap();
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).build().unwrap();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![server.der().clone()], server_key.into())
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let identity = Some(ClientCertificate { certificate_file, key_file });
        (TlsAcceptor::from(Arc::new(config)), TlsSettings { ca_file: Some(ca_file), identity })
    }

    #[tokio::test]
    async fn tls_checks_both_sides() {
        let folder = tempfile::tempdir().unwrap();
        let (acceptor, tls) = tls_files(folder.path());
        let address = grpc_server(Some(acceptor), &Export::default(), usize::MAX).await;
        let send = async |endpoint: &str, tls: TlsSettings| {
            let plain = settings(Protocol::Grpc, &address);
            let client = ClientSettings { tls: Some(tls), ..plain.client.clone() };
            let mut sink = OtlpSink::new(OtlpSettings { endpoint: endpoint.to_owned(), client, ..plain }).unwrap();
            sink.send(&batch(Signal::Traces)).await
        };
        assert_eq!(send("https://sink.test", tls.clone()).await, Ok(Sent::default()));
        let reason = |outcome| match outcome {
            Err(SendError::Retry { reason, .. }) => reason,
            other => panic!("{other:?}"),
        };
        let other_name = reason(send("https://other.test", tls.clone()).await);
        assert!(other_name.contains("TLS") && other_name.contains("sink.test"), "{other_name}");
        let untrusted = reason(send("https://sink.test", TlsSettings { ca_file: None, ..tls.clone() }).await);
        assert!(untrusted.contains("UnknownIssuer"), "{untrusted}");
        // TLS 1.3 tells a client only after its first bytes that its certificate is missing.
        assert!(send("https://sink.test", TlsSettings { identity: None, ..tls }).await.is_err());
    }

    #[tokio::test]
    async fn a_queue_survives_a_server_that_comes_back() {
        let (address, log) =
            http_server(vec![(503, vec![], vec![]), (503, vec![], vec![]), (200, vec![], vec![])]).await;
        let sink = OtlpSink::new(settings(Protocol::Http, &address)).unwrap();
        let sink = NamedSink { name: "upstream".to_owned(), sink: Box::new(sink), rules: None };
        let delivery = start(super::settings(), vec![sink]);
        push(&delivery, &["a", "b"]);
        delivery.drain(Instant::now() + 10 * SECOND).await;
        assert_eq!(row(&delivery, "upstream").tally.delivered, 2);
        let bodies: Vec<Vec<String>> = log.lock().unwrap().iter().map(|(_, _, body)| names(body)).collect();
        assert_eq!(bodies, vec![["a", "b"]; 3]);
    }
}
