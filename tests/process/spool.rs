//! The queue on disk through kill -9.

use super::accounts::Accounts;
use super::collector::{POLICY, Setup, Tailkeep, eventually, program};
use super::grpc::Grpc;
use super::sink::{Mood, Sink};
use super::traffic::Trace;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use tailkeep::trace::Signal;

const ON_DISK: &str = "queue: { path: spool, longest_wait: 2s }";

fn queued(tailkeep: &Tailkeep) -> f64 {
    tailkeep.accounts().sum("tailkeep_sink_queued", &["sink=\"away\"", "signal=\"traces\""])
}

fn arrived(sink: &Sink) -> BTreeSet<String> {
    sink.traces().into_keys().collect()
}

/// A record for each: the next trace comes when the last one is on disk. Returns their bytes.
fn send_to_disk(tailkeep: &Tailkeep, traces: &[Trace]) -> f64 {
    let bytes = |accounts: &Accounts, name| accounts.sum(name, &["signal=\"traces\""]);
    traces.iter().fold(0.0, |before, trace| {
        tailkeep.send(trace);
        let accounts = tailkeep.wait_for("it is on disk", |accounts| {
            bytes(accounts, "tailkeep_queue_disk_bytes") > before
                && bytes(accounts, "tailkeep_queue_memory_bytes") == 0.0
        });
        bytes(&accounts, "tailkeep_queue_disk_bytes")
    })
}

/// Of traces.
fn segment(folder: &Path) -> PathBuf {
    let files = std::fs::read_dir(folder.join("spool")).expect("it is there");
    let mut files = files.map(|file| file.expect("it is there").path());
    files.find(|path| path.to_string_lossy().contains("traces-")).expect("there is a segment")
}

#[test]
fn what_waits_for_a_sink_that_is_away_survives_kill_9() {
    let sink = Sink::start();
    sink.becomes(Mood::IsUnavailable);
    let tailkeep = Setup::new().settings(ON_DISK).otlp("away", &sink).start();
    let owed: Vec<Trace> = (0..20).map(|_| Trace::failed()).collect();
    tailkeep.send_all(&owed);
    tailkeep.wait_for("they wait for the sink", |accounts| {
        accounts.sum("tailkeep_sink_queued", &["sink=\"away\"", "signal=\"traces\""]) == 80.0
    });
    // The sink backs off for longer and longer; the disk does not wait for it.
    tailkeep.wait_for("all of them are on disk", |accounts| {
        accounts.sum("tailkeep_queue_memory_bytes", &["signal=\"traces\""]) == 0.0
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
    tailkeep.wait_for("nothing waits any more", |accounts| {
        accounts.sum("tailkeep_sink_recovered_total", &["sink=\"away\""]) >= 80.0
            && accounts.sum("tailkeep_sink_queued", &["sink=\"away\"", "signal=\"traces\""]) == 0.0
    });
    let later = Trace::failed();
    tailkeep.send(&later);
    eventually("it goes on as usual", || arrived(&sink).contains(&later.hex()).then_some(()));
    tailkeep.stop();
}

#[test]
fn a_folder_is_for_one_process_until_that_ends() {
    let sink = Sink::start();
    sink.becomes(Mood::IsUnavailable);
    let tailkeep = Setup::new().settings(ON_DISK).otlp("away", &sink).start();
    tailkeep.send(&Trace::failed());
    tailkeep
        .wait_for("it is on disk", |accounts| accounts.sum("tailkeep_queue_disk_bytes", &["signal=\"traces\""]) > 0.0);

    let spool = tailkeep.path().join("spool");
    let (code, said) = Setup::new().settings(&format!("queue: {{ path: '{}' }}", spool.display())).fails();
    assert_eq!(code, Some(1), "{said}");
    for part in [&spool.display().to_string(), "`queue.path`", "another tailkeep"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    for command in ["check", "doctor"] {
        let config = tailkeep.path().join("tailkeep.yaml");
        let output = program().args([command, "--config"]).arg(config).output().expect("the binary runs");
        assert!(!String::from_utf8_lossy(&output.stderr).contains("another tailkeep"), "{command}: {output:?}");
    }

    let folder = tailkeep.kill();
    let tailkeep = Setup::in_folder(folder, POLICY).settings(ON_DISK).otlp("away", &sink).start();
    sink.becomes(Mood::Takes);
    tailkeep.wait_for("what waited is delivered", |accounts| {
        accounts.sum("tailkeep_sink_delivered_total", &["sink=\"away\"", "signal=\"traces\""]) >= 4.0
    });
    tailkeep.stop();
}

#[test]
fn a_folder_that_cannot_be_written_is_said_with_what_it_means() {
    let sink = Sink::start();
    let setup = Setup::new().settings("measure: off").settings("queue: { path: spool, memory: 2MiB }");
    let tailkeep = setup.otlp("away", &sink).start();
    let spool = tailkeep.path().join("spool");
    // A file where the folder was: every operation fails, also for root.
    std::fs::remove_dir_all(&spool).expect("it is there");
    std::fs::write(&spool, "").expect("the place is free");
    sink.becomes(Mood::IsUnavailable);
    tailkeep.send(&Trace::failed());
    let said = tailkeep.wait_for_log("cannot be written");
    let (message, reason) = (said["message"].as_str().expect("a text"), said["reason"].as_str().expect("a text"));
    assert!(reason.starts_with(&format!("{}/", spool.display())), "the file is named: {reason}");
    for part in ["`queue.path`", "`queue.memory`", "lost if the process ends"] {
        assert!(message.contains(part), "{part} in {message}");
    }
    assert_eq!(said["memory_bytes"], 2 << 20, "{said}");

    std::fs::remove_file(&spool).expect("it is there");
    std::fs::create_dir(&spool).expect("the place is free");
    tailkeep.wait_for_log("the queue on disk can be written again");
    tailkeep
        .wait_for("it is on disk", |accounts| accounts.sum("tailkeep_queue_disk_bytes", &["signal=\"traces\""]) > 0.0);
    assert_eq!(tailkeep.logged("cannot be written"), 1);
    sink.becomes(Mood::Takes);
    tailkeep.wait_for("it is delivered", |accounts| {
        accounts.sum("tailkeep_sink_delivered_total", &["sink=\"away\"", "signal=\"traces\""]) == 4.0
    });
    tailkeep.stop();
}

#[test]
fn a_segment_that_somebody_deletes_is_told_by_its_name() {
    let sink = Sink::start();
    sink.becomes(Mood::IsUnavailable);
    let tailkeep = Setup::new().settings(ON_DISK).otlp("away", &sink).start();
    // The sink is busy with the first; the second is read when its turn comes.
    send_to_disk(&tailkeep, &[Trace::failed(), Trace::failed()]);
    let segment = segment(tailkeep.path());
    std::fs::remove_file(&segment).expect("it is there");
    sink.becomes(Mood::Takes);
    let said = tailkeep.wait_for_log("lost in the queue");
    assert_eq!(said["why"], "corrupt", "{said}");
    assert!(said["reason"].as_str().is_some_and(|reason| reason.contains(&segment.display().to_string())), "{said}");
    tailkeep.end("TERM");
}

#[test]
fn a_damaged_header_costs_its_record_and_is_counted() {
    let sink = Sink::start();
    sink.becomes(Mood::IsUnavailable);
    let tailkeep = Setup::new().settings(ON_DISK).otlp("away", &sink).start();
    let traces: Vec<Trace> = (0..3).map(|_| Trace::failed()).collect();
    let on_disk = send_to_disk(&tailkeep, &traces);
    let folder = tailkeep.kill();
    let segment = segment(folder.path());
    let mut bytes = std::fs::read(&segment).expect("it can be read");
    bytes[10] ^= 1;
    std::fs::write(&segment, bytes).expect("it can be written");

    sink.becomes(Mood::Takes);
    let tailkeep = Setup::in_folder(folder, POLICY).settings(ON_DISK).otlp("away", &sink).start();
    let last = traces[2].hex();
    eventually("what was behind it arrives", || arrived(&sink).contains(&last).then_some(()));
    assert!(sink.spans().len() < traces.iter().map(|trace| trace.placed().len()).sum(), "one record is lost");
    let damaged = tailkeep.accounts().sum("tailkeep_queue_damaged_bytes_total", &["signal=\"traces\""]);
    assert!(damaged > 28.0 && damaged < on_disk, "{damaged} of {on_disk}");
    let said = tailkeep.wait_for_log("a segment of the queue on disk is damaged");
    assert_eq!(said["bytes"].as_f64(), Some(damaged), "{said}");
    tailkeep.end("TERM");
}

#[test]
fn a_limit_on_the_size_of_files_is_a_full_disk() {
    let sink = Sink::start();
    sink.becomes(Mood::IsUnavailable);
    let setup = Setup::new().settings("measure: off").settings(ON_DISK).otlp("away", &sink);
    let tailkeep = setup.shell("ulimit -f 8").start();
    let traces: Vec<Trace> = (0..20).map(|_| Trace::failed()).collect();
    tailkeep.send_all(&traces);
    tailkeep.wait_for_log("cannot be written");
    sink.becomes(Mood::Takes);
    tailkeep.wait_for("they are delivered", |accounts| {
        accounts.sum("tailkeep_sink_delivered_total", &["sink=\"away\"", "signal=\"traces\""]) == 80.0
    });
    tailkeep.stop();
}
