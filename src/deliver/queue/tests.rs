use super::readiness::PATIENCE;
use super::*;
use crate::deliver::{Batch, spool::Location};
use bytes::Bytes;
use proptest::prelude::*;
use std::time::Duration;

const LIMITS: BatchLimits = BatchLimits { bytes: 400, items: 10, age: Duration::from_millis(200) };
const READY: [bool; 3] = [true; 3];

impl Queue {
    /// Recounts every consumer from the entries themselves.
    fn audit(&self) {
        for signal in Signal::ALL {
            let waiting = &self.waiting[signal as usize];
            let held = waiting.memory.values().map(|entry| entry.bytes + ENTRY_OVERHEAD).sum::<usize>();
            assert_eq!(waiting.on_disk, waiting.disk.values().map(|entry| entry.bytes as u64).sum::<u64>());
            let growing = waiting.growing.iter().map(|(_, growing)| growing.bytes() + ENTRY_OVERHEAD).sum::<usize>();
            assert_eq!(waiting.held, held + growing);
            assert!(waiting.held <= waiting.quota, "{} of {}", waiting.held, waiting.quota);
            let consumers =
                || self.sinks.iter().enumerate().filter_map(|(sink, all)| Some((sink, all[signal as usize].as_ref()?)));
            for (sink, consumer) in consumers() {
                let is_for = |route: Route| self.routing.takes(route, sink);
                let unread = waiting.since(consumer.next).filter(|entry| is_for(entry.route));
                let (mut items, mut bytes) = unread.fold((0, 0), |(i, b), e| (i + e.items, b + e.bytes));
                for (_, growing) in waiting.growing.iter().filter(|(route, _)| is_for(*route)) {
                    items += growing.items;
                    bytes += growing.bytes();
                }
                items += consumer.under_way.as_ref().map_or(0, |entry| entry.items);
                bytes += consumer.under_way.as_ref().map_or(0, |entry| entry.bytes);
                assert_eq!((consumer.tally.queued, consumer.tally.queued_bytes), (items, bytes as u64));
                assert!(consumer.tally.balances(), "{:?}", consumer.tally);
            }
            for (number, entry) in waiting.memory.iter().chain(&waiting.disk) {
                let waits = |(sink, consumer): (usize, &Consumer)| {
                    self.routing.takes(entry.route, sink) && consumer.cursor() <= *number
                };
                assert!(consumers().any(waits), "{entry:?} is held for nobody");
            }
        }
    }

    fn tally(&self, sink: usize, signal: Signal) -> &Tally {
        &self.sinks[sink][signal as usize].as_ref().unwrap().tally
    }
}

fn piece(signal: Signal, text: &str, items: u64) -> Batch {
    Batch { signal, body: Bytes::copy_from_slice(text.as_bytes()), items }
}

fn text(next: NextBatch) -> String {
    match next {
        NextBatch::Take(Taken { body: StoredBody::Memory(body), .. }) => String::from_utf8(body.to_vec()).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// One sink takes all signals, the other traces alone.
fn queue(quota: usize) -> Queue {
    Queue::new(LIMITS, [quota; 3], &[[true; 3], [true, false, false]], routing())
}

/// Two sinks, each with a rule of its own.
fn routing() -> Routing {
    let [mine, yours] = ["mine", "yours"].map(|rule| vec![rule.to_owned()]);
    Routing::new(&[("a", Some(&mine)), ("b", Some(&yours))])
}

#[test]
fn pieces_grow_into_a_batch_until_it_is_old_or_full() {
    let (mut queue, start) = (queue(10_000), Instant::now());
    assert!(queue.push(Route::ALL, piece(Signal::Traces, "a", 4), false, start).wake);
    assert!(!queue.push(Route::ALL, piece(Signal::Traces, "b", 4), false, start).wake);
    let due = start + LIMITS.age;
    assert!(matches!(queue.next(0, READY, start), NextBatch::WaitUntil(at) if at == due));
    assert_eq!(text(queue.next(0, READY, due)), "ab");

    queue.push(Route::ALL, piece(Signal::Traces, "c", 4), false, due);
    assert!(
        queue.push(Route::ALL, piece(Signal::Traces, "d", 7), false, due).wake,
        "11 items do not fit into one batch"
    );
    assert_eq!(text(queue.next(1, READY, due)), "ab");
    queue.done_with(1, Signal::Traces, 8);
    assert_eq!(text(queue.next(1, READY, due)), "c");
    queue.audit();
}

fn lost(items: u64, why: Discard) -> Lost {
    Lost { items, why, reason: String::new() }
}

impl Queue {
    fn done_with(&mut self, sink: usize, signal: Signal, items: u64) {
        self.delivered(sink, signal, items, &[]);
        self.done(sink, signal);
    }
}

#[test]
fn a_signal_that_backs_off_does_not_hold_up_the_others() {
    let (mut queue, now) = (queue(10_000), Instant::now());
    queue.push(Route::ALL, piece(Signal::Logs, "log", 10), false, now);
    queue.push(Route::ALL, piece(Signal::Traces, "span", 10), false, now);
    assert_eq!(text(queue.next(0, READY, now)), "log", "the oldest first");
    assert_eq!(text(queue.next(0, [true, true, false], now)), "span");
    assert!(matches!(queue.next(0, [false, true, false], now), NextBatch::Wait));
    assert!(matches!(queue.next(0, READY, now), NextBatch::Resume(Signal::Logs)));
    queue.audit();
}

#[test]
fn a_batch_goes_to_disk_when_it_is_due_also_if_no_sink_is_ready() {
    let (mut queue, start) = (queue(10_000), Instant::now());
    queue.push(Route::ALL, piece(Signal::Traces, "a", 4), false, start);
    assert_eq!(queue.seal_due(Signal::Traces, start), Some(start + LIMITS.age));
    assert!(queue.unwritten(Signal::Traces, 1000).is_empty());
    assert_eq!(queue.seal_due(Signal::Traces, start + LIMITS.age), None);
    assert_eq!(queue.unwritten(Signal::Traces, 1000).len(), 1);
    queue.audit();
}

#[test]
fn a_full_quota_pushes_out_the_oldest_unread_of_its_signal_only() {
    let (mut queue, now) = (queue(1000), Instant::now());
    queue.push(Route::ALL, piece(Signal::Traces, "trace", 10), false, now);
    let body = "l".repeat(150);
    let waiting = |n: u64| piece(Signal::Logs, &body, 10 + n);
    assert_eq!((0..3).map(|n| queue.push(Route::ALL, waiting(n), false, now).lost).sum::<u64>(), 0);
    assert_eq!(queue.push(Route::ALL, waiting(3), false, now).lost, 10);
    assert_eq!(queue.tally(0, Signal::Logs).discarded(Discard::QueueFull), 10);
    assert_eq!(queue.tally(0, Signal::Traces).discarded(Discard::QueueFull), 0);
    queue.audit();
    // Too large for the quota as a whole: itself is lost, what waits is not.
    assert_eq!(queue.push(Route::ALL, piece(Signal::Logs, &"x".repeat(2000), 7), false, now).lost, 7);
    assert_eq!(queue.tally(0, Signal::Logs).queued, 11 + 12 + 13);
    queue.audit();
}

#[test]
fn what_a_sink_has_taken_is_not_lost_when_the_quota_pushes_it_out() {
    let (mut queue, now) = (queue(1000), Instant::now());
    let body = "t".repeat(250);
    queue.push(Route::ALL, piece(Signal::Traces, &body, 1), false, now);
    queue.next(0, READY, now);
    for _ in 0..3 {
        queue.push(Route::ALL, piece(Signal::Traces, &body, 1), false, now);
    }
    assert_eq!(queue.tally(0, Signal::Traces).discarded(Discard::QueueFull), 1);
    assert_eq!(queue.tally(1, Signal::Traces).discarded(Discard::QueueFull), 2);
    queue.audit();
    queue.done_with(0, Signal::Traces, 1);
    queue.audit();
}

#[test]
fn a_signal_without_a_sink_is_counted_and_mentioned_once() {
    let (mut queue, now) =
        (Queue::new(LIMITS, [1000; 3], &[[true, false, false]], Routing::new(&[("a", None)])), Instant::now());
    assert!(queue.push(Route::ALL, piece(Signal::Logs, "log", 3), false, now).first_unclaimed);
    assert_eq!(queue.push(Route::ALL, piece(Signal::Logs, "log", 4), false, now), Pushed::default());
    let rows = queue.rows(&["here".to_owned()]);
    let row = rows.iter().find(|row| row.sink == "none").unwrap();
    assert_eq!((row.signal, row.tally.pushed, row.tally.discarded(Discard::NoSink)), (Signal::Logs, 7, 7));
    assert!(row.tally.balances());
}

#[test]
fn closing_counts_what_is_in_memory_and_spares_what_is_on_disk() {
    let (mut queue, now) = (queue(10_000), Instant::now());
    for _ in 0..2 {
        queue.push(Route::ALL, piece(Signal::Traces, "t", 10), false, now);
    }
    queue.next(0, READY, now);
    queue.delivered(0, Signal::Traces, 4, &[lost(1, Discard::Rejected)]);
    queue.written(Signal::Traces, 0, Location { segment: 0, offset: 0, len: 1 });
    queue.start_draining();
    let lost = [0, 1].map(|sink| LostAtEnd { sink, signal: Signal::Traces, items: 10, superseded: 0 });
    assert_eq!(queue.close(), lost, "the second entry, for both sinks");
    assert_eq!((queue.tally(0, Signal::Traces).queued, queue.tally(1, Signal::Traces).queued), (6, 10));
    queue.push(Route::ALL, piece(Signal::Traces, "late", 5), false, now);
    assert_eq!(queue.tally(0, Signal::Traces).discarded(Discard::Shutdown), 15);
    queue.audit();
}

/// Numbers on disk only grow: what was passed over there cannot come after.
#[test]
fn our_own_metrics_go_to_disk_at_the_end_and_not_before() {
    let (mut queue, now) = (queue(10_000), Instant::now());
    let location = Location { segment: 0, offset: 0, len: 1 };
    queue.push(Route::ALL, piece(Signal::Metrics, "early", 1), true, now);
    queue.push(Route::ALL, piece(Signal::Metrics, &"m".repeat(200), 2), false, now);
    queue.push(Route::ALL, piece(Signal::Metrics, "late", 4), true, now);
    let numbers = |queue: &mut Queue| {
        let entries = queue.unwritten(Signal::Metrics, 1000);
        entries.into_iter().map(|record| record.number).collect::<Vec<_>>()
    };
    assert_eq!(numbers(&mut queue), [1]);
    queue.push(Route::ALL, piece(Signal::Metrics, "last", 8), true, now);
    queue.start_draining();
    assert_eq!(numbers(&mut queue), [1, 2, 3], "also if what was given is not written yet");
    for number in [1, 2] {
        queue.written(Signal::Metrics, number, location);
    }
    let gone = LostAtEnd { sink: 0, signal: Signal::Metrics, items: 9, superseded: 1 };
    assert_eq!(queue.close(), [gone], "the disk did not take the last one");
    assert_eq!(queue.tally(0, Signal::Metrics).queued, 6);
}

/// A file that is gone for another reason is none of the quota's doing.
#[test]
fn what_the_spool_drops_is_known_to_who_is_about_to_read_it() {
    let (mut queue, now) = (queue(10_000), Instant::now());
    for number in 0..2 {
        queue.push(Route::ALL, piece(Signal::Traces, "t", 10), false, now);
        queue.written(Signal::Traces, number, Location { segment: 0, offset: number, len: 1 });
    }
    queue.next(0, READY, now);
    assert!(!queue.was_dropped(0, Signal::Traces));
    assert_eq!(queue.dropped_on_disk(Signal::Traces, 0), 10, "for the sink that had not taken it");
    assert!(queue.was_dropped(0, Signal::Traces));
    queue.discarded(0, Signal::Traces, 10, Discard::QueueFull);
    queue.done(0, Signal::Traces);
    queue.next(0, READY, now);
    assert!(!queue.was_dropped(0, Signal::Traces), "the next is still there");
    let lost = |sink| queue.tally(sink, Signal::Traces).discarded(Discard::QueueFull);
    assert_eq!((lost(0), lost(1)), (10, 10));
    queue.audit();
}

/// What a sink waits for holds up neither the others nor what they have taken.
#[test]
fn a_sink_gets_what_is_for_it_alone_and_passes_the_rest_over() {
    let (mut queue, now) = (queue(10_000), Instant::now());
    let [mine, yours] = ["mine", "yours"].map(|rule| queue.routing.of_rule(rule));
    for (route, text) in [(mine, "m1"), (yours, "y1"), (Route::ALL, "a1"), (yours, "y2")] {
        queue.push(route, piece(Signal::Traces, text, 10), false, now);
    }
    assert!(
        queue.push(queue.routing.of_rule("nobody's"), piece(Signal::Traces, "n", 3), false, now) == Pushed::default()
    );
    assert_eq!((queue.tally(0, Signal::Traces).pushed, queue.tally(1, Signal::Traces).pushed), (20, 30));
    for text_of_other in ["y1", "a1", "y2"] {
        assert_eq!(text(queue.next(1, READY, now)), text_of_other);
        queue.done_with(1, Signal::Traces, 10);
        queue.audit();
    }
    assert!(matches!(queue.next(1, READY, now), NextBatch::Wait));
    let texts = |queue: &Queue| queue.waiting[0].memory.keys().copied().collect::<Vec<_>>();
    assert_eq!(texts(&queue), [0, 2], "the first sink has not begun");
    assert_eq!(queue.cursors()[1][0], Some(4), "no file is kept for who has nothing in it");
    for text_of_one in ["m1", "a1"] {
        assert_eq!(text(queue.next(0, READY, now)), text_of_one);
        queue.done_with(0, Signal::Traces, 10);
    }
    queue.audit();
    assert!(queue.waiting[0].memory.is_empty());
    let rows = queue.rows(&["a".to_owned(), "b".to_owned()]);
    let none = rows.iter().find(|row| row.sink == "none").expect("a rule that no sink names");
    assert_eq!(none.tally.discarded(Discard::NoSink), 3);
}

fn large(items: u64) -> Batch {
    piece(Signal::Traces, &"x".repeat(250), items)
}

/// A queue that two entries for the first sink fill.
fn full_of_mine(now: Instant) -> Queue {
    let mut queue = queue(1000);
    let mine = queue.routing.of_rule("mine");
    for _ in 0..2 {
        queue.push(mine, large(10), false, now);
    }
    queue
}

/// That another sink has nothing to do is no reason to push out what this one waits for.
#[test]
fn at_the_end_a_sink_that_is_idle_makes_no_room_for_the_traces_of_another() {
    let now = Instant::now();
    let mut queue = full_of_mine(now);
    let [mine, yours] = ["mine", "yours"].map(|rule| queue.routing.of_rule(rule));
    queue.start_ending(now);
    for (route, sink) in [(mine, 0), (yours, 1)] {
        assert!(!queue.is_ready_for(Signal::Traces, 250, now), "until there is room");
        assert_eq!(queue.push(route, large(4), false, now).lost, 4);
        assert_eq!(queue.tally(sink, Signal::Traces).discarded(Discard::Shutdown), 4);
    }
    assert_eq!(queue.tally(0, Signal::Traces).discarded(Discard::QueueFull), 0);
    queue.next(0, READY, now);
    queue.done_with(0, Signal::Traces, 10);
    assert!(queue.is_ready_for(Signal::Traces, 250, now));
    queue.push(yours, large(5), false, now);
    assert_eq!(queue.tally(1, Signal::Traces).queued, 5);
    queue.audit();
}

/// What waited for room may be more than it seemed: hashes are longer than the texts in whose place they stand.
#[test]
fn at_the_end_what_turns_out_larger_is_taken_while_there_is_time() {
    let now = Instant::now();
    let mut queue = full_of_mine(now);
    let mine = queue.routing.of_rule("mine");
    queue.start_ending(now + LIMITS.age);
    queue.push(mine, large(4), false, now);
    assert_eq!(queue.tally(0, Signal::Traces).queued, 24, "and nothing was pushed out for it");
    queue.push(mine, large(3), false, now + LIMITS.age);
    assert_eq!(queue.tally(0, Signal::Traces).discarded(Discard::Shutdown), 3);
}

#[test]
fn who_has_long_been_failing_holds_up_no_other_and_loses_nothing_while_all_fail() {
    let start = Instant::now();
    let mut queue = full_of_mine(start);
    let is_ready = |queue: &Queue, at: Instant| queue.is_ready_for(Signal::Traces, 250, at);
    queue.next(0, READY, start);
    assert!(!is_ready(&queue, start + PATIENCE - Duration::from_millis(1)), "it may be slow");
    assert!(is_ready(&queue, start + PATIENCE), "it hangs");
    queue.delivered(0, Signal::Traces, 1, &[]);
    queue.failed(0, Signal::Traces, start);
    queue.failed(0, Signal::Traces, start + PATIENCE / 2);
    assert!(!is_ready(&queue, start + PATIENCE - Duration::from_millis(1)));
    assert!(is_ready(&queue, start + PATIENCE), "it fails");
    queue.push(queue.routing.of_rule("yours"), large(3), false, start);
    queue.failed(1, Signal::Traces, start);
    assert!(!is_ready(&queue, start + PATIENCE), "nobody gains by it");
    queue.delivered(0, Signal::Traces, 1, &[]);
    assert!(is_ready(&queue, start + PATIENCE), "the first takes again, and the other holds it up no more");
    queue.audit();
}

/// The oldest waits for one that takes; what a failing one waits for goes first.
#[test]
fn a_failing_sink_pushes_out_nothing_of_the_others() {
    let start = Instant::now();
    let mut queue = queue(1000);
    let [mine, yours] = ["mine", "yours"].map(|rule| queue.routing.of_rule(rule));
    queue.push(yours, large(1), false, start);
    queue.push(mine, large(2), false, start);
    queue.failed(0, Signal::Traces, start);
    let lost = queue.push(mine, large(3), false, start + PATIENCE).lost;
    assert_eq!((lost, queue.tally(0, Signal::Traces).discarded(Discard::QueueFull)), (2, 2));
    assert_eq!(queue.tally(1, Signal::Traces).queued, 1);
    queue.audit();
}

#[derive(Clone, Debug)]
enum Step {
    Push { rule: &'static str, signal: u8, items: u64, bytes: usize, own: bool },
    NextBatch { sink: usize, ready: [bool; 3] },
    Delivered { sink: usize, signal: u8, rejected: u64 },
    Discarded { sink: usize, signal: u8 },
    Failed { sink: usize, signal: u8 },
    Written { signal: u8 },
    DroppedOnDisk { signal: u8 },
    Later,
    Close,
}

/// A route for each sink, one for none, and one for all.
const RULES: &[&str] = &["mine", "yours", "nobody's", ""];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (prop::sample::select(RULES), 0..3u8, 0..15u64, 0..500usize, any::<bool>())
            .prop_map(|(rule, signal, items, bytes, own)| Step::Push { rule, signal, items, bytes, own }),
        8 => (0..2usize, any::<[bool; 3]>()).prop_map(|(sink, ready)| Step::NextBatch { sink, ready }),
        6 => (0..2usize, 0..3u8, 0..3u64).prop_map(|(sink, signal, rejected)| Step::Delivered { sink, signal, rejected }),
        1 => (0..2usize, 0..3u8).prop_map(|(sink, signal)| Step::Discarded { sink, signal }),
        1 => (0..2usize, 0..3u8).prop_map(|(sink, signal)| Step::Failed { sink, signal }),
        2 => (0..3u8).prop_map(|signal| Step::Written { signal }),
        1 => (0..3u8).prop_map(|signal| Step::DroppedOnDisk { signal }),
        2 => Just(Step::Later),
        1 => Just(Step::Close),
    ];
    prop::collection::vec(step, 0..120)
}

fn play(queue: &mut Queue, step: Step, now: &mut Instant, taken: &mut [[u64; 3]]) {
    let busy = |queue: &Queue, sink: usize, signal: u8| {
        let consumer = queue.sinks[sink][usize::from(signal)].as_ref();
        consumer.and_then(|consumer| consumer.under_way.as_ref().map(|entry| entry.items))
    };
    match step {
        Step::Push { rule, signal, items, bytes, own } => {
            let route = if rule.is_empty() { Route::ALL } else { queue.routing.of_rule(rule) };
            queue.push(route, piece(Signal::ALL[usize::from(signal)], &"x".repeat(bytes), items), own, *now);
        }
        Step::NextBatch { sink, ready } => {
            if let NextBatch::Take(entry) = queue.next(sink, ready, *now) {
                let number = queue.sinks[sink][entry.signal as usize].as_ref().unwrap().cursor();
                let last = &mut taken[sink][entry.signal as usize];
                assert!(number >= *last, "entries are taken in order");
                *last = number + 1;
            }
        }
        Step::Delivered { sink, signal, rejected } => {
            if let Some(items) = busy(queue, sink, signal) {
                let signal = Signal::ALL[usize::from(signal)];
                let lost = [lost(rejected, Discard::Rejected), lost(rejected / 2, Discard::Refused)];
                queue.delivered(sink, signal, items / 2, &lost);
                queue.audit();
                queue.delivered(sink, signal, items - items / 2, &[]);
                queue.done(sink, signal);
            }
        }
        Step::Discarded { sink, signal } => {
            if let Some(items) = busy(queue, sink, signal) {
                queue.discarded(sink, Signal::ALL[usize::from(signal)], items, Discard::Refused);
                queue.done(sink, Signal::ALL[usize::from(signal)]);
            }
        }
        Step::Failed { sink, signal } => {
            queue.failed(sink, Signal::ALL[usize::from(signal)], *now);
            *now += PATIENCE;
        }
        Step::Written { signal } => {
            for record in queue.unwritten(Signal::ALL[usize::from(signal)], 300) {
                let location = Location { segment: 0, offset: 0, len: record.body.len() as u32 };
                queue.written(Signal::ALL[usize::from(signal)], record.number, location);
            }
        }
        Step::DroppedOnDisk { signal } => {
            let last = queue.next_number.saturating_sub(3);
            queue.dropped_on_disk(Signal::ALL[usize::from(signal)], last);
        }
        Step::Later => *now += LIMITS.age,
        Step::Close => {
            queue.start_draining();
            queue.close();
        }
    }
}

proptest! {
    #[test]
    fn the_accounts_balance_after_every_step(steps in steps(), quota in 300usize..3000) {
        let mut queue = queue(quota);
        let (mut now, mut taken) = (Instant::now(), vec![[0; 3]; 2]);
        for step in steps {
            let closes = matches!(step, Step::Close);
            play(&mut queue, step, &mut now, &mut taken);
            if closes {
                break;
            }
            queue.audit();
        }
        for row in queue.rows(&["all".to_owned(), "traces".to_owned()]) {
            prop_assert!(row.tally.balances(), "{:?}", row);
        }
    }
}
