//! The local store through crashes, damage and a full disk, and what people ask of it.

use super::collector::{Setup, Tailkeep, eventually, program};
use super::sink::Sink;
use super::traffic::Trace;
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn traces(arguments: &[&str], store: &Path) -> Output {
    program().args(["traces", "--store"]).arg(store).args(arguments).output().expect("the binary runs")
}

fn listed(arguments: &[&str], store: &Path) -> String {
    let output = traces(arguments, store);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

fn why(tailkeep: &Tailkeep, trace: &Trace) -> String {
    let url = format!("http://{}", tailkeep.ports.admin);
    let output = program().args(["why", &trace.hex(), "--admin", &url]).output().expect("the binary runs");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

fn wait_for_delivered(tailkeep: &Tailkeep, spans: usize) {
    tailkeep.wait_for("the store took them", |accounts| {
        accounts.sum("tailkeep_sink_delivered_total", &["sink=\"here\""]) >= spans as f64
    });
}

#[test]
fn the_store_is_listed_filtered_and_asked() {
    let tailkeep = Setup::new().store().start();
    let (failed, slow, fast) = (Trace::failed(), Trace::slow(), Trace::ok());
    [&failed, &slow, &fast].into_iter().for_each(|trace| tailkeep.send(trace));
    wait_for_delivered(&tailkeep, 8);
    let store = tailkeep.path().join("tailkeep.db");
    let has = |arguments: &[&str]| {
        let list = listed(arguments, &store);
        [&failed, &slow, &fast].map(|trace| list.contains(&trace.hex()))
    };
    assert_eq!(has(&[]), [true, true, false]);
    assert_eq!(has(&["--errors"]), [true, false, false]);
    assert_eq!(has(&["--slower", "500ms"]), [false, true, false]);
    assert_eq!(has(&["--service", "payment", "--errors"]), [true, false, false]);
    assert_eq!(has(&["--since", "10m"]), [true, true, false]);
    assert_eq!(has(&["--since", "1ns"]), [false; 3]);
    assert_eq!(has(&["--service", "nobody"]), [false; 3]);
    let none = traces(&["--service", "nobody"], &store);
    assert!(none.status.success() && none.stdout.is_empty(), "{none:?}");
    let text = String::from_utf8_lossy(&none.stderr);
    assert!(text.contains("no trace matches") && text.contains("holds 2 traces"), "{text}");
    let services = "no trace has a service `nobody`; there are checkout, gateway, payment";
    assert!(text.contains(services), "{text}");
    assert_eq!(has(&["--limit", "1"]).iter().filter(|there| **there).count(), 1);

    // From the ring.
    let text = why(&tailkeep, &failed);
    for part in [
        "kept by keep-errors",
        "somebody was harmed",
        "trigger     root",
        "policy      1",
        "gateway",
        "4 spans, 1 with errors",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    tailkeep.wait_for_verdict(&fast, "dropped");
    assert!(why(&tailkeep, &fast).contains("dropped by otherwise"));
    assert!(why(&tailkeep, &Trace::ok()).contains("unknown"));
    tailkeep.stop();
}

#[test]
fn after_kill_9_the_store_opens_and_answers() {
    let tailkeep = Setup::new().store().start();
    let first = Trace::failed();
    tailkeep.send(&first);
    wait_for_delivered(&tailkeep, 4);
    // Killed while it writes: kept traces come without a pause.
    let ports = tailkeep.ports;
    let sender = std::thread::spawn(move || {
        let mut grpc = super::grpc::Grpc::connect(ports.grpc);
        while grpc.try_export(tailkeep::trace::Signal::Traces, &Trace::failed().body()).is_ok() {}
    });
    wait_for_delivered(&tailkeep, 100);
    let folder = tailkeep.kill();
    sender.join().expect("the connection ends");

    let store = folder.path().join("tailkeep.db");
    assert!(listed(&["--limit", "100000"], &store).contains(&first.hex()), "without a process");
    let tailkeep = Setup::in_folder(folder, super::collector::POLICY).store().start();
    let text = why(&tailkeep, &first);
    assert!(text.contains("known from  store") && text.contains("kept by keep-errors"), "{text}");
    let shown = tailkeep.ask(&format!("/traces/{}", first.hex())).json();
    assert_eq!(shown["resourceSpans"].as_array().map(Vec::len), Some(3), "{shown}");
    let again = Trace::failed();
    tailkeep.send(&again);
    wait_for_delivered(&tailkeep, 4);
    assert_eq!(tailkeep.logged("damaged"), 0);
    let path = tailkeep.path().to_owned();
    let database = Connection::open(path.join("tailkeep.db")).unwrap();
    let sound: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
    let torn = "SELECT count(*) FROM traces t WHERE span_count <> (SELECT count(*) FROM spans s WHERE s.trace = t.id)";
    let torn: i64 = database.query_row(torn, [], |row| row.get(0)).unwrap();
    assert_eq!(torn, 0, "a trace lists other spans than are there");
    let whole: i64 =
        database.query_row("SELECT count(*) FROM traces WHERE span_count = 4", [], |row| row.get(0)).unwrap();
    let all: i64 = database.query_row("SELECT count(*) FROM traces", [], |row| row.get(0)).unwrap();
    assert_eq!(whole, all);
    drop(database);
    tailkeep.stop();
}

#[test]
fn a_damaged_store_is_moved_aside() {
    let setup = Setup::new().store();
    let store = setup.path().join("tailkeep.db");
    let garbage: Vec<u8> = (0..40_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(&store, &garbage).unwrap();
    let tailkeep = setup.start();
    let trace = Trace::failed();
    tailkeep.send(&trace);
    wait_for_delivered(&tailkeep, 4);
    let said = tailkeep.wait_for_log("the store is damaged");
    let aside = PathBuf::from(said["aside"].as_str().unwrap());
    assert_eq!(std::fs::read(aside).unwrap(), garbage, "nothing of it is lost");
    assert!(listed(&[], &store).contains(&trace.hex()));
    let ended = tailkeep.end("TERM");
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
}

/// A file system that holds 4 MiB, or none where this user may not mount.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Option<SmallDisk> {
        std::fs::create_dir_all(at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(at).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| SmallDisk(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that is being killed may still have files open.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_disk_that_is_full_is_survived_and_said() {
    let other = Sink::start();
    let setup = Setup::new().otlp("other", &other).sink("here", "store: { path: disk/tailkeep.db, size: 64MiB }");
    let folder = setup.path().join("disk");
    let disk = SmallDisk::mount(&folder);
    let ballast = folder.join("ballast");
    let setup = if disk.is_some() {
        std::fs::write(&ballast, vec![1; (4 << 20) - (64 << 10)]).unwrap();
        setup
    } else {
        // No file may grow beyond 64 KiB; the signal that comes with it is ignored.
        setup.shell("trap '' XFSZ; ulimit -f 128")
    };
    let mut tailkeep = setup.start();
    let traces: Vec<Trace> = (0..100).map(|_| Trace::failed()).collect();
    tailkeep.send_all(&traces);
    eventually("the other sink gets them", || (other.spans().len() == 400).then_some(()));
    let said = tailkeep.wait_for_log("could not deliver; will try again");
    assert_eq!(said["sink"], "here");
    let reason = said["reason"].as_str().unwrap();
    assert!(reason.contains("tailkeep.db"), "{reason}");
    assert!(tailkeep.is_alive());
    let queued = |accounts: &super::accounts::Accounts| accounts.sum("tailkeep_sink_queued", &["sink=\"here\""]);
    assert!(queued(&tailkeep.accounts()) > 0.0);
    if disk.is_some() {
        std::fs::remove_file(&ballast).unwrap();
        wait_for_delivered(&tailkeep, 400);
        let list = listed(&["--limit", "1000"], &folder.join("tailkeep.db"));
        assert!(traces.iter().all(|trace| list.contains(&trace.hex())));
        tailkeep.stop();
    } else {
        // It cannot get better here: the end comes all the same, and says what is lost.
        let ended = tailkeep.end("TERM");
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        assert!(ended.log.contains("the process ends before the sinks took everything"));
    }
    drop(disk);
}
