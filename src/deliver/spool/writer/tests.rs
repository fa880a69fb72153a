use super::*;
use crate::deliver::{
    BatchLimits,
    loss_log::LossLog,
    queue::{NextBatch, Queue},
    routing::{Route, Routing},
    sink::Batch,
    spool::{files::Files, tests::Simulated},
};
use std::sync::Mutex;
use tokio::sync::{Notify, watch};

/// A writer to a disk with `room`, and a queue with one sink that takes traces.
fn writer(room: usize) -> (SpoolWriter, Arc<Simulated>) {
    let files = Arc::new(Simulated::default());
    files.set_room(Some(room));
    let (spool, recovered) = Spool::open(files.clone(), [1 << 20; 3]).unwrap();
    let limits = BatchLimits { items: 1, ..BatchLimits::default() };
    let shared = Arc::new(Shared {
        queue: Mutex::new(Queue::new(limits, [2000; 3], &[[true, false, false]], Routing::new(&[("sink", None)]))),
        names: vec!["sink".to_owned()],
        wake: vec![Notify::new()],
        progress: Notify::new(),
        phase: watch::Sender::new(DeliveryPhase::Running),
        losses: LossLog::default(),
        spool: Some(spool.files()),
        disk: Some([room as u64; 3]),
        damaged: [0; 3],
        spool_wake: Notify::new(),
        spool_error: Mutex::default(),
    });
    (SpoolWriter::new(spool, shared, recovered.cursors), files)
}

fn push(writer: &SpoolWriter) {
    let batch = Batch { signal: Signal::Traces, body: vec![7; 500].into(), items: 1 };
    writer.shared.queue().push(Route::ALL, batch, false, Instant::now());
}

fn deliver_all(writer: &SpoolWriter) {
    let mut queue = writer.shared.queue();
    while let NextBatch::Take(taken) = queue.next(0, [true; 3], Instant::now()) {
        queue.delivered(0, taken.signal, taken.items, &[]);
        queue.done(0, taken.signal);
    }
}

#[tokio::test]
async fn a_disk_that_the_queue_itself_filled_has_room_again_when_the_sink_has_taken_it() {
    let (mut writer, _) = writer(4000);
    let full = (0..20).find_map(|_| {
        push(&writer);
        writer.pass(true).err()
    });
    assert_eq!(full.unwrap().kind(), io::ErrorKind::StorageFull);
    deliver_all(&writer);
    push(&writer);
    writer.pass(true).unwrap_err();
    writer.pass(true).unwrap();
    assert_eq!(writer.shared.queue().unwritten(Signal::Traces, 1).len(), 0);
}

#[tokio::test]
async fn a_full_disk_is_not_littered() {
    let (mut writer, files) = writer(0);
    for room in 0..50 {
        files.set_room(Some(room));
        push(&writer);
        writer.pass(true).unwrap_err();
    }
    assert!(files.list().unwrap().len() <= 3, "{:?}", files.list().unwrap());
}

#[tokio::test]
async fn the_advice_for_a_full_queue_names_the_disk_that_fails() {
    let (mut writer, _) = writer(0);
    assert!(writer.shared.help().contains("raise `queue.memory`"));
    push(&writer);
    let failed = writer.pass(true);
    assert!(failed.is_err());
    writer.report(failed);
    let help = writer.shared.help();
    assert!(help.contains("see to its disk") && help.contains("`queue.size`"), "{help}");
}
