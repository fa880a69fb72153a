//! The queue on disk through kill -9.

use super::collector::{POLICY, Setup, Tailkeep, eventually};
use super::grpc::Grpc;
use super::sink::{Mood, Sink};
use super::traffic::Trace;
use std::collections::BTreeSet;
use tailkeep::trace::Signal;

const ON_DISK: &str = "queue: { path: spool, longest_wait: 2s }";

fn queued(tailkeep: &Tailkeep) -> f64 {
    tailkeep.books().sum("tailkeep_sink_queued", &["sink=\"away\"", "signal=\"traces\""])
}

fn arrived(sink: &Sink) -> BTreeSet<String> {
    sink.traces().into_keys().collect()
}

#[test]
fn what_waits_for_a_sink_that_is_away_survives_kill_9() {
    let sink = Sink::start();
    sink.becomes(Mood::IsUnavailable);
    let tailkeep = Setup::new().settings(ON_DISK).otlp("away", &sink).start();
    let owed: Vec<Trace> = (0..20).map(|_| Trace::failed()).collect();
    tailkeep.send_all(&owed);
    tailkeep.wait_for("they wait for the sink", |books| {
        books.sum("tailkeep_sink_queued", &["sink=\"away\"", "signal=\"traces\""]) == 80.0
    });
    // The sink backs off for longer and longer; the disk does not wait for it.
    tailkeep.wait_for("all of them are on disk", |books| {
        books.sum("tailkeep_queue_memory_bytes", &["signal=\"traces\""]) == 0.0
    });
    // Killed while it writes: kept traces come without a pause, some hundred of them first.
    let ports = tailkeep.ports;
    let sender = std::thread::spawn(move || {
        let mut grpc = Grpc::connect(ports.grpc);
        while grpc.try_export(Signal::Traces, &Trace::failed().body()).is_ok() {}
    });
    eventually("more waits", || (queued(&tailkeep) > 400.0).then_some(()));
    let folder = tailkeep.kill();
    sender.join().expect("the connection ends");

    sink.becomes(Mood::Takes);
    let tailkeep = Setup::in_folder(folder, POLICY).settings(ON_DISK).otlp("away", &sink).start();
    let owed: BTreeSet<String> = owed.iter().map(Trace::hex).collect();
    eventually("all that was owed arrives", || owed.is_subset(&arrived(&sink)).then_some(()));
    tailkeep.wait_for("nothing waits any more", |books| {
        books.sum("tailkeep_sink_recovered_total", &["sink=\"away\""]) >= 80.0
            && books.sum("tailkeep_sink_queued", &["sink=\"away\"", "signal=\"traces\""]) == 0.0
    });
    let later = Trace::failed();
    tailkeep.send(&later);
    eventually("it goes on as usual", || arrived(&sink).contains(&later.hex()).then_some(()));
    tailkeep.stop();
}
