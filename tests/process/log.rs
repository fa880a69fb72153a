//! A log that nobody reads costs its lines, and nothing else.

use super::accounts::Accounts;
use super::collector::{LogReader, Setup};
use super::sink::Sink;
use super::traffic::{Trace, assert_same};

/// Makes long reports in the log until lines are lost, then sends failed traces and ends the process.
fn nobody_reads(reader: LogReader) {
    let sink = Sink::start();
    let wait = "version: 1\nwait: { after_root: 60s, idle: 60s, longest: 60s }\n";
    let setup = Setup::new().policy(&format!("{wait}otherwise: {{ keep: all }}\n")).otlp("stub", &sink);
    let policy = setup.path().join("policy.yaml");
    let tailkeep = setup.start();
    tailkeep.log_reader(reader);
    // The first takes every trace, so there is a warning about each of the others.
    let rules: String = (0..400).map(|n| format!("  - {{ name: rule-{n}, keep: all }}\n")).collect();
    let mut lost = 0.0;
    for round in 1..100 {
        // Another text each time, so that it is looked at.
        let text = format!("{wait}rules:\n{rules}otherwise: {{ keep: 1% }} # {round}\n");
        std::fs::write(&policy, text).expect("the folder is writable");
        tailkeep.signal("HUP");
        let number = |accounts: &Accounts| accounts.sum("tailkeep_policy_number", &[]);
        let accounts = tailkeep.wait_for("it is in force", |accounts| number(accounts) > f64::from(round));
        lost = accounts.sum("tailkeep_log_lines_lost_total", &[]);
        if lost > 0.0 {
            break;
        }
    }
    assert!(lost > 0.0, "whoever reads no more costs lines");
    let traces: Vec<Trace> = (0..50).map(|_| Trace::failed()).collect();
    tailkeep.send_all(&traces);
    let ended = tailkeep.end("TERM");
    assert_eq!(ended.status.code(), Some(0), "{:?}", ended.status);
    assert_same(&sink.spans(), &traces.iter().flat_map(Trace::placed).collect::<Vec<_>>());
}

#[test]
fn a_log_whose_reader_is_gone_ends_nothing() {
    nobody_reads(LogReader::Goes);
}

#[test]
fn a_log_whose_reader_stops_holds_nothing_up() {
    nobody_reads(LogReader::Stops);
}
