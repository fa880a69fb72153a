//! The queue on disk from outside: outages, restarts, full quotas and damage.

use bytes::Bytes;
use std::{
    collections::BTreeSet,
    fs,
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tailkeep::{
    deliver::{
        Batch, BatchLimits, Delivery, DeliverySettings, Discard, NamedSink, Sink, SpoolSettings, Tally,
        sink::{SendError, SendResult, Sent},
    },
    trace::Signal,
};
use tempfile::TempDir;
use tokio::time::Instant;

/// A destination that outlives the process that sends to it.
#[derive(Clone, Default)]
struct Place {
    away: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<Bytes>>>,
}

impl Place {
    fn away() -> Place {
        let place = Place::default();
        place.away.store(true, Ordering::SeqCst);
        place
    }

    fn comes_back(&self) {
        self.away.store(false, Ordering::SeqCst);
    }

    fn sink(&self, name: &str) -> NamedSink {
        NamedSink { name: name.to_owned(), sink: Box::new(self.clone()), rules: None }
    }

    fn numbers(&self) -> Vec<u64> {
        let number = |body: &Bytes| u64::from_le_bytes(body[1..9].try_into().unwrap());
        self.seen.lock().unwrap().iter().map(number).collect()
    }
}

impl Sink for Place {
    fn takes(&self, _: Signal) -> bool {
        true
    }

    fn send<'a>(&'a mut self, batch: &'a Batch) -> Pin<Box<dyn Future<Output = SendResult> + Send + 'a>> {
        Box::pin(async {
            if self.away.load(Ordering::SeqCst) {
                return Err(SendError::Retry { after: None, reason: "away".to_owned() });
            }
            self.seen.lock().unwrap().push(batch.body.clone());
            Ok(Sent::default())
        })
    }
}

/// Every push is a batch of its own.
fn settings(folder: &Path, disk: u64, memory: usize) -> DeliverySettings {
    DeliverySettings {
        batch: BatchLimits { items: 1, ..BatchLimits::default() },
        quotas: [memory; 3],
        spool: Some(SpoolSettings { path: folder.join("spool"), quotas: [disk; 3] }),
        longest_wait: Duration::from_secs(30),
        longest_refusal: Duration::from_secs(3600),
        seed: 1,
    }
}

const MANY: u64 = 64 << 20;
const MIB: usize = 1 << 20;
const PIECE: usize = 10_000;

/// Protobuf as OTLP may become: a fixed number and bytes that no version knows yet.
fn push(delivery: &Delivery, signal: Signal, number: u64) {
    let body = [&[0x71], &number.to_le_bytes()[..], &[0x7a, 0x90, 0x4e], &vec![7; PIECE]].concat();
    delivery.push(signal, body, 1);
    balanced(delivery);
}

fn balanced(delivery: &Delivery) {
    delivery.snapshot().iter().for_each(|row| assert!(row.tally.balances(), "{row:?}"));
}

fn tally(delivery: &Delivery, sink: &str, signal: Signal) -> Tally {
    let rows = delivery.snapshot();
    rows.into_iter().find(|row| row.sink == sink && row.signal == signal).unwrap().tally
}

/// Until the condition holds; simulated time runs meanwhile, real I/O takes what it takes.
async fn until(delivery: &Delivery, condition: impl Fn() -> bool) {
    let end = std::time::Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(std::time::Instant::now() < end, "{:?}", delivery.snapshot());
        tokio::time::sleep(Duration::from_millis(100)).await;
        balanced(delivery);
    }
}

async fn drain(delivery: Delivery) {
    delivery.drain(Instant::now() + Duration::from_secs(5)).await;
    balanced(&delivery);
}

/// The process is gone between one instruction and the next: settings for one that comes after it.
fn killed(folder: &Path) -> DeliverySettings {
    let copy = folder.join("copy");
    fs::create_dir_all(copy.join("spool")).unwrap();
    for file in fs::read_dir(folder.join("spool")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), copy.join("spool").join(file.file_name())).unwrap();
    }
    settings(&copy, MANY, MIB)
}

/// The only one of its signal.
fn segment(folder: &Path, signal: Signal) -> PathBuf {
    let mut files = fs::read_dir(folder.join("spool")).unwrap().map(|file| file.unwrap().path());
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    files.find(|path| name(path).starts_with(signal.word()) && name(path).ends_with(".spool")).unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_outage_and_a_restart_lose_nothing() {
    let folder = TempDir::new().unwrap();
    let (here, there) = (Place::default(), Place::away());
    let start = |disk| {
        Delivery::start(settings(folder.path(), disk, MIB), vec![here.sink("here"), there.sink("there")]).unwrap()
    };
    // Five times what fits into memory.
    let delivery = start(MANY);
    for number in 0..500 {
        push(&delivery, Signal::Traces, number);
        if number % 50 == 49 {
            until(&delivery, || tally(&delivery, "here", Signal::Traces).queued == 0).await;
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    }
    assert_eq!(here.numbers(), (0..500).collect::<Vec<_>>(), "the other sink is not held up");
    drain(delivery).await;

    let delivery = start(MANY);
    let waiting = tally(&delivery, "there", Signal::Traces);
    assert_eq!((waiting.recovered, waiting.queued, waiting.pushed), (500, 500, 0));
    assert_eq!(tally(&delivery, "here", Signal::Traces).recovered, 0, "it had them all");
    push(&delivery, Signal::Traces, 500);
    there.comes_back();
    until(&delivery, || tally(&delivery, "there", Signal::Traces).queued == 0).await;
    assert_eq!(there.numbers(), (0..501).collect::<Vec<_>>(), "in order");
    assert_eq!(here.numbers().len(), 501);
    drain(delivery).await;
    let left = fs::read_dir(folder.path().join("spool")).unwrap().map(|file| file.unwrap().file_name());
    let left: BTreeSet<_> = left.collect();
    assert_eq!(left, BTreeSet::from(["cursors.json".into(), "lock".into()]), "no segment is left");
}

#[tokio::test(start_paused = true)]
async fn a_crash_repeats_at_most_what_was_not_noted() {
    let folder = TempDir::new().unwrap();
    let place = Place::away();
    let delivery = Delivery::start(settings(folder.path(), MANY, MIB), vec![place.sink("there")]).unwrap();
    (0..20).for_each(|number| push(&delivery, Signal::Traces, number));
    tokio::time::sleep(Duration::from_secs(3)).await;
    let after = killed(folder.path());
    place.comes_back();
    drain(delivery).await;
    assert_eq!(place.numbers().len(), 20);

    let delivery = Delivery::start(after, vec![place.sink("there")]).unwrap();
    until(&delivery, || tally(&delivery, "there", Signal::Traces).queued == 0).await;
    assert_eq!(place.numbers(), (0..20).chain(0..20).collect::<Vec<_>>(), "at least once");
}

#[tokio::test(start_paused = true)]
async fn a_full_spool_drops_the_oldest_of_its_signal() {
    let folder = TempDir::new().unwrap();
    let place = Place::away();
    let delivery = Delivery::start(settings(folder.path(), 1 << 20, MIB), vec![place.sink("there")]).unwrap();
    push(&delivery, Signal::Traces, 0);
    for number in 0..300 {
        push(&delivery, Signal::Logs, number);
        if number % 30 == 29 {
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let logs = tally(&delivery, "there", Signal::Logs);
    assert!(logs.discarded(Discard::QueueFull) >= 190, "{logs:?}");
    assert_eq!(tally(&delivery, "there", Signal::Traces).queued, 1);
    place.comes_back();
    until(&delivery, || tally(&delivery, "there", Signal::Logs).queued == 0).await;
    let numbers = place.numbers();
    assert_eq!(*numbers.last().unwrap(), 299, "the newest are there");
    assert_eq!(logs.pushed, 300);
    drain(delivery).await;
}

#[tokio::test(start_paused = true)]
async fn the_last_export_of_our_own_metrics_survives_the_end() {
    let folder = TempDir::new().unwrap();
    let place = Place::away();
    let delivery = Delivery::start(settings(folder.path(), MANY, MIB), vec![place.sink("there")]).unwrap();
    let own = async |items| delivery.push_own(Signal::Metrics, vec![9; 100], items, Instant::now()).await;
    own(10).await;
    push(&delivery, Signal::Metrics, 1);
    until(&delivery, || delivery.holds().disk[Signal::Metrics as usize] > 0).await;
    own(5).await;
    assert!(delivery.holds().memory[Signal::Metrics as usize] > 200, "in memory, as the next one supersedes them");
    delivery.drain(Instant::now() + Duration::from_secs(5)).await;
    let metrics = tally(&delivery, "there", Signal::Metrics);
    assert_eq!((metrics.discarded(Discard::Shutdown), metrics.queued), (10, 6), "{metrics:?}");
    drop(delivery);
    let again = Delivery::start(settings(folder.path(), MANY, MIB), vec![place.sink("there")]).unwrap();
    assert_eq!(tally(&again, "there", Signal::Metrics).recovered, 6);
    place.comes_back();
    until(&again, || tally(&again, "there", Signal::Metrics).delivered == 6).await;
}

/// To make room, say. What was there is lost, what comes is not.
#[tokio::test(start_paused = true)]
async fn a_folder_that_somebody_deletes_is_made_anew() {
    let folder = TempDir::new().unwrap();
    let place = Place::away();
    let delivery = Delivery::start(settings(folder.path(), MANY, MIB), vec![place.sink("there")]).unwrap();
    push(&delivery, Signal::Traces, 0);
    let on_disk = |delivery: &Delivery| delivery.holds().memory[0] == 0;
    until(&delivery, || on_disk(&delivery)).await;
    fs::remove_dir_all(folder.path().join("spool")).unwrap();
    push(&delivery, Signal::Traces, 1);
    until(&delivery, || on_disk(&delivery) && !delivery.holds().spool_fails).await;
    drain(delivery).await;
    let again = Delivery::start(settings(folder.path(), MANY, MIB), vec![place.sink("there")]).unwrap();
    assert_eq!(tally(&again, "there", Signal::Traces).recovered, 1);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_fails_means_memory_until_it_is_back() {
    let folder = TempDir::new().unwrap();
    let spool = folder.path().join("spool");
    let place = Place::away();
    let delivery = Delivery::start(settings(folder.path(), MANY, MIB), vec![place.sink("there")]).unwrap();
    // A file where the folder was: every operation fails, also for root.
    fs::remove_dir_all(&spool).unwrap();
    fs::write(&spool, "").unwrap();
    (0..5).for_each(|number| push(&delivery, Signal::Traces, number));
    until(&delivery, || delivery.spool_error().is_some()).await;
    assert_eq!(tally(&delivery, "there", Signal::Traces).queued, 5);
    fs::remove_file(&spool).unwrap();
    fs::create_dir(&spool).unwrap();
    until(&delivery, || delivery.spool_error().is_none()).await;
    drain(delivery).await;
    let again = Delivery::start(settings(folder.path(), MANY, MIB), vec![place.sink("there")]).unwrap();
    assert_eq!(tally(&again, "there", Signal::Traces).recovered, 5);

    fs::remove_dir_all(&spool).unwrap();
    fs::write(&spool, "").unwrap();
    let refused = Delivery::start(settings(folder.path(), MANY, MIB), vec![place.sink("there")]).err().unwrap();
    assert!(refused.contains(&spool.display().to_string()), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn damage_costs_what_is_damaged() {
    let folder = TempDir::new().unwrap();
    let place = Place::away();
    let delivery = Delivery::start(settings(folder.path(), MANY, MIB), vec![place.sink("there")]).unwrap();
    (0..10).for_each(|number| push(&delivery, Signal::Traces, number));
    drain(delivery).await;
    let segment = segment(folder.path(), Signal::Traces);
    let mut bytes = fs::read(&segment).unwrap();
    let record = (bytes.len() - 8) / 10;
    // A header, a body, and the end.
    bytes[8 + 2 * record + 3] ^= 1;
    bytes[8 + 6 * record - 3] ^= 1;
    let end = bytes.len() - 5;
    fs::write(&segment, &bytes[..end]).unwrap();

    place.comes_back();
    let delivery = Delivery::start(settings(folder.path(), MANY, MIB), vec![place.sink("there")]).unwrap();
    until(&delivery, || tally(&delivery, "there", Signal::Traces).queued == 0).await;
    let traces = tally(&delivery, "there", Signal::Traces);
    assert_eq!((traces.recovered, traces.delivered, traces.discarded(Discard::Corrupt)), (8, 7, 1));
    assert_eq!(place.numbers(), [0, 1, 3, 4, 6, 7, 8]);
    // Nobody knows how many items they were.
    assert_eq!(delivery.holds().damaged, [(2 * record - 5) as u64, 0, 0]);
    drain(delivery).await;
    let left = fs::read_dir(folder.path().join("spool")).unwrap().count();
    assert_eq!(left, 2, "nothing is kept beside the cursors and the lock");
}

#[tokio::test(start_paused = true)]
async fn a_new_sink_begins_with_the_oldest() {
    let folder = TempDir::new().unwrap();
    let (old, new) = (Place::away(), Place::default());
    let delivery = Delivery::start(settings(folder.path(), MANY, MIB), vec![old.sink("old")]).unwrap();
    (0..3).for_each(|number| push(&delivery, Signal::Traces, number));
    drain(delivery).await;
    let delivery = Delivery::start(settings(folder.path(), MANY, MIB), vec![new.sink("renamed")]).unwrap();
    until(&delivery, || new.numbers().len() == 3).await;
    assert_eq!(new.numbers(), [0, 1, 2]);
    drain(delivery).await;
}

#[tokio::test(start_paused = true)]
async fn two_do_not_use_one_folder() {
    let folder = TempDir::new().unwrap();
    let place = Place::away();
    let start = || Delivery::start(settings(folder.path(), MANY, MIB), vec![place.sink("there")]);
    let delivery = start().unwrap();
    push(&delivery, Signal::Traces, 0);
    let refused = start().err().expect("the first has it");
    let path = folder.path().join("spool").display().to_string();
    for part in [&path, "`queue.path`", "another tailkeep"] {
        assert!(refused.contains(part), "{part} in {refused}");
    }
    drain(delivery).await;
    let delivery = start().unwrap();
    assert_eq!(tally(&delivery, "there", Signal::Traces).recovered, 1, "the second one has touched nothing");
}

/// It had number 3 next, then another name. Numbers that were given twice would be below that.
#[tokio::test(start_paused = true)]
async fn a_sink_that_is_renamed_and_back_within_a_second_skips_nothing() {
    let folder = TempDir::new().unwrap();
    let place = Place::default();
    let delivery = Delivery::start(settings(folder.path(), MANY, MIB), vec![place.sink("old")]).unwrap();
    (0..3).for_each(|number| push(&delivery, Signal::Traces, number));
    until(&delivery, || place.numbers().len() == 3).await;
    drain(delivery).await;

    let new = Place::away();
    let delivery = Delivery::start(settings(folder.path(), MANY, MIB), vec![new.sink("new")]).unwrap();
    push(&delivery, Signal::Traces, 3);
    until(&delivery, || delivery.holds().disk[Signal::Traces as usize] > 0).await;
    let after = killed(folder.path());
    let cursors = fs::read_to_string(folder.path().join("copy/spool/cursors.json")).unwrap();
    assert!(cursors.contains("old") && !cursors.contains("new"), "{cursors}");
    let delivery = Delivery::start(after, vec![place.sink("old")]).unwrap();
    until(&delivery, || tally(&delivery, "old", Signal::Traces).queued == 0).await;
    assert_eq!(place.numbers(), [0, 1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_segment_that_somebody_deletes_is_corrupt() {
    let folder = TempDir::new().unwrap();
    let place = Place::away();
    let delivery = Delivery::start(settings(folder.path(), MANY, MIB), vec![place.sink("there")]).unwrap();
    (0..5).for_each(|number| push(&delivery, Signal::Traces, number));
    until(&delivery, || delivery.holds().memory[Signal::Traces as usize] == 0).await;
    let segment = segment(folder.path(), Signal::Traces);
    fs::remove_file(&segment).unwrap();
    place.comes_back();
    until(&delivery, || tally(&delivery, "there", Signal::Traces).queued == 0).await;
    let traces = tally(&delivery, "there", Signal::Traces);
    // The first was under way already.
    assert_eq!((traces.delivered, traces.discarded(Discard::Corrupt), traces.discarded(Discard::QueueFull)), (1, 4, 0));
    drain(delivery).await;
}

/// Such as a bad sector: what is behind it must not wait for ever.
#[tokio::test(start_paused = true)]
async fn a_place_that_cannot_be_read_is_given_up_after_a_while() {
    let folder = TempDir::new().unwrap();
    let place = Place::away();
    let delivery = Delivery::start(settings(folder.path(), MANY, MIB), vec![place.sink("there")]).unwrap();
    (0..3).for_each(|number| push(&delivery, Signal::Traces, number));
    until(&delivery, || delivery.holds().memory[Signal::Traces as usize] == 0).await;
    let segment = segment(folder.path(), Signal::Traces);
    let aside = folder.path().join("aside");
    fs::rename(&segment, &aside).unwrap();
    fs::create_dir(&segment).unwrap();
    place.comes_back();
    tokio::time::sleep(Duration::from_secs(660)).await;
    let traces = tally(&delivery, "there", Signal::Traces);
    // The first was under way already.
    assert_eq!((traces.delivered, traces.queued, traces.discarded(Discard::Corrupt)), (1, 1, 1));
    fs::remove_dir(&segment).unwrap();
    fs::rename(&aside, &segment).unwrap();
    until(&delivery, || tally(&delivery, "there", Signal::Traces).queued == 0).await;
    assert_eq!(place.numbers(), [0, 2], "one that can be read again is delivered");
    drain(delivery).await;
}
