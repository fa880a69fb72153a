//! Sinks that take the traces of some rules get those and no others, also after a crash and a reload.

use super::collector::{POLICY, Setup, Tailkeep, eventually};
use super::http;
use super::sink::{Mood, Sink};
use super::traffic::{Trace, assert_same};
use std::collections::BTreeSet;
use std::sync::Arc;
use tailkeep::trace::Signal;
use tempfile::TempDir;

const ON_DISK: &str = "queue: { path: spool, longest_wait: 1s }";

/// A sink that takes the traces of one rule: the audit knows it by this name.
fn only(setup: Setup, rule: &str, sink: &Sink) -> Setup {
    let endpoint = sink.endpoint();
    let kind = format!("rules: [{rule}]\n    otlp: {{ endpoint: '{endpoint}', compression: none }}");
    setup.sink(&format!("only.{rule}"), &kind)
}

fn ids(sink: &Sink) -> BTreeSet<String> {
    sink.traces().into_keys().collect()
}

fn sent(traces: &[Trace]) -> BTreeSet<String> {
    traces.iter().map(Trace::hex).collect()
}

fn failed_and_slow(tailkeep: &Tailkeep, count: usize) -> [Vec<Trace>; 2] {
    let both = [(0..count).map(|_| Trace::failed()).collect::<Vec<_>>(), (0..count).map(|_| Trace::slow()).collect()];
    both.iter().for_each(|traces| tailkeep.send_all(traces));
    both
}

#[test]
fn each_sink_gets_the_traces_of_its_rules_and_who_names_none_gets_all() {
    let [failed, slow, all] = [Sink::start(), Sink::start(), Sink::start()];
    // Who waits for a sink that is away is not held up, and holds nobody up.
    slow.becomes(Mood::IsUnavailable);
    let setup = only(only(Setup::new(), "keep-errors", &failed), "keep-slow", &slow).otlp("all", &all);
    let tailkeep = setup.start();
    let [sent_failed, sent_slow] = failed_and_slow(&tailkeep, 5);
    eventually("the others get theirs", || (ids(&failed).len() == 5 && ids(&all).len() == 10).then_some(()));
    slow.becomes(Mood::Takes);
    eventually("the sink gets what it is owed", || (ids(&slow).len() == 5).then_some(()));
    // An operator wants it wherever traces go.
    let dropped = Trace::ok();
    tailkeep.send(&dropped);
    tailkeep.wait_for_verdict(&dropped, "dropped");
    let placed = |traces: &[Trace]| traces.iter().flat_map(Trace::placed).collect::<Vec<_>>();
    assert_same(&failed.spans(), &placed(&sent_failed));
    assert_same(&slow.spans(), &placed(&sent_slow));
    let keep = format!("/keep/{}", dropped.hex());
    assert_eq!(http::request(tailkeep.ports.admin, "POST", &keep, &[], &[]).unwrap().status, 200);
    eventually("it is everywhere", || {
        [&failed, &slow, &all].iter().all(|sink| ids(sink).contains(&dropped.hex())).then_some(())
    });
}

#[test]
fn what_waits_on_disk_goes_where_it_was_to_go() {
    let folder = Arc::new(TempDir::new().unwrap());
    let [failed, slow] = [Sink::start(), Sink::start()];
    [&failed, &slow].iter().for_each(|sink| sink.becomes(Mood::IsUnavailable));
    let setup = || {
        let setup = Setup::in_folder(folder.clone(), POLICY).settings(ON_DISK);
        only(only(setup, "keep-errors", &failed), "keep-slow", &slow)
    };
    let tailkeep = setup().start();
    let [sent_failed, sent_slow] = failed_and_slow(&tailkeep, 5);
    let spans = (5 * sent_failed[0].placed().len()) as f64;
    tailkeep.wait_for("all wait on disk", |accounts| {
        accounts.sum("tailkeep_sink_queued", &["signal=\"traces\""]) == 2.0 * spans
            && accounts.sum("tailkeep_queue_memory_bytes", &["signal=\"traces\""]) == 0.0
    });
    tailkeep.kill();
    [&failed, &slow].iter().for_each(|sink| sink.becomes(Mood::Takes));
    let tailkeep = setup().start();
    eventually("both get theirs", || (ids(&failed).len() == 5 && ids(&slow).len() == 5).then_some(()));
    tailkeep.stop();
    assert_eq!((ids(&failed), ids(&slow)), (sent(&sent_failed), sent(&sent_slow)));
    assert!(failed.taken(Signal::Traces).len() < 10, "in batches");
}

#[test]
fn a_policy_that_takes_a_rule_away_is_warned_of_and_a_wrong_name_does_not_start() {
    let sink = Sink::start();
    let tailkeep = only(Setup::new(), "keep-slow", &sink).start();
    let other = POLICY.replace("keep-slow", "keep-slower");
    std::fs::write(tailkeep.path().join("policy.yaml"), other).unwrap();
    let said = tailkeep.wait_for_log("sinks name rules that the policy does not have: they get no traces by them");
    assert_eq!(said["rules"], "keep-slow");
    let nowhere = "no sink takes the traces of these rules of the policy: name them in `rules` of a sink";
    assert_eq!(tailkeep.wait_for_log(nowhere)["rules"], "keep-errors", "already at the start");
    eventually("of the new rule, too", || (tailkeep.logged(nowhere) == 2).then_some(()));
    // Kept, and counted as going nowhere.
    tailkeep.send(&Trace::failed());
    tailkeep.wait_for("it goes nowhere", |accounts| {
        accounts.sum("tailkeep_sink_discarded_total", &["sink=\"none\"", "signal=\"traces\""]) > 0.0
    });
    tailkeep.stop();
    let (code, said) = only(Setup::new(), "keep-eror", &sink).fails();
    assert_eq!(code, Some(2));
    let want = "no rule of the policy is called `keep-eror`: did you mean `keep-errors`?";
    assert!(said.contains(want), "{said}");
}
