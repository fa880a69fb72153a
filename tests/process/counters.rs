//! The page of metrics as its readers take it: strict, and counters that are there before they count.

use super::collector::{POLICY, Setup, eventually};
use super::grpc::Grpc;
use super::sink::Sink;
use super::traffic::{self, Trace, fail, fresh_trace_id, span};
use prost::Message;
use std::collections::BTreeSet;
use std::fs;
use tailkeep::trace::Signal;

const LIMITED: &str = "    keep: all\n    limit: 2/min\n    then: none\n  - name: keep-slow";

fn limited() -> String {
    POLICY.replace("    keep: all\n  - name: keep-slow", LIMITED)
}

/// What Prometheus refuses: a sample twice, a family without its type, a family in two places, a label that is not
/// closed. It drops the whole page for one of them.
fn assert_strict(page: &str) {
    let (mut samples, mut families, mut family) = (BTreeSet::new(), BTreeSet::new(), String::new());
    for line in page.lines().filter(|line| !line.starts_with("# HELP ")) {
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            family = kind.split(' ').next().expect("a name").to_owned();
            assert!(families.insert(family.clone()), "{family} stands in two places");
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line:?}"));
        assert!(value.parse::<f64>().is_ok_and(f64::is_finite), "{line:?}");
        assert!(sample.starts_with(&family) && !family.is_empty(), "{sample} is not of {family}");
        assert!(!sample.contains('{') || sample.ends_with("\"}"), "{line:?}");
        assert!(samples.insert(sample.to_owned()), "{sample} stands twice");
    }
    assert!(page.ends_with('\n'));
}

#[test]
fn names_that_others_choose_leave_the_page_readable_and_small() {
    let tailkeep = Setup::new().settings("memory: 64MiB").start();
    let mut grpc = Grpc::connect(tailkeep.ports.grpc);
    let long = "s".repeat(200_000);
    let odd = ["other", "", "a\"b\\c\nd", "é…", &long, &format!("{long}x"), &format!("{}…", &long[..200])];
    for round in 0..2 {
        for service in odd {
            let mut failed = span(fresh_trace_id(), None, &format!("{service} {round}"), 1);
            fail(&mut failed);
            assert_eq!(grpc.export(Signal::Traces, &traffic::request(service, vec![failed]).encode_to_vec()).code, 0);
        }
    }
    // More services than there are numbers for: their account is called like one of the others.
    for part in 0..5000 / 50 {
        let spans = |n| traffic::request(&format!("s{n}"), vec![span(fresh_trace_id(), None, "x", 1)]).resource_spans;
        let resource_spans = (part * 50..(part + 1) * 50).flat_map(spans).collect();
        let request = opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest { resource_spans };
        assert_eq!(grpc.export(Signal::Traces, &request.encode_to_vec()).code, 0);
    }
    let page = super::http::get(tailkeep.ports.health, "/metrics").unwrap().text();
    assert_strict(&page);
    let longest = page.lines().map(str::len).max().unwrap_or_default();
    assert!(longest < 1500, "a line has {longest} bytes");
    tailkeep.stop();
}

#[test]
fn what_rules_and_sinks_count_is_there_before_the_first() {
    let sink = Sink::start();
    let tailkeep = Setup::new().policy(&limited()).otlp("stub", &sink).start();
    let page = super::http::get(tailkeep.ports.health, "/metrics").unwrap().text();
    assert_strict(&page);
    for sample in [
        "tailkeep_limit_reached_total{rule=\"keep-errors\"} 0",
        "tailkeep_limit_keys_overflowed_total{rule=\"keep-errors\"} 0",
        "tailkeep_traces_judged_total{rule=\"keep-slow\",verdict=\"keep\",trigger=\"idle\"} 0",
        "tailkeep_traces_left_total{rule=\"otherwise\",verdict=\"drop\"} 0",
        "tailkeep_verdicts_changed_total{rule=\"keep-errors\"} 0",
        "tailkeep_rule_spans_kept_total{rule=\"keep-errors\"} 0",
        "tailkeep_rule_spans_dropped_total{rule=\"otherwise\"} 0",
        "tailkeep_sink_discarded_total{sink=\"stub\",signal=\"traces\",reason=\"queue_full\"} 0",
    ] {
        assert!(page.lines().any(|line| line == sample), "no {sample}");
    }
    tailkeep.stop();
}

/// The auditor sees to it that no counter goes back or away meanwhile.
#[test]
fn traces_beyond_a_limit_are_counted_whatever_becomes_of_the_rule() {
    let tailkeep = Setup::new().policy(&limited()).start();
    let reached = |rule: &str, count: f64| {
        let rule = format!("rule=\"{rule}\"");
        tailkeep.wait_for("the limit is reached", |accounts| {
            accounts.sum("tailkeep_limit_reached_total", &[&rule]) == count
        });
    };
    tailkeep.send_all(&(0..7).map(|_| Trace::failed()).collect::<Vec<_>>());
    reached("keep-errors", 5.0);
    for (number, policy) in [limited().replace("2/min", "3/min"), POLICY.to_owned(), limited()].iter().enumerate() {
        fs::write(tailkeep.path().join("policy.yaml"), policy).unwrap();
        tailkeep.signal("HUP");
        eventually("the new policy is in force", || {
            (tailkeep.ask("/policy").json()["number"] == number as u64 + 2).then_some(())
        });
    }
    tailkeep.send_all(&(0..3).map(|_| Trace::failed()).collect::<Vec<_>>());
    reached("keep-errors", 6.0);
    tailkeep.wait_for_log("more traces than the rule's limit");
    tailkeep.stop();
}

/// Over all shards and threads: the limit is one, whichever rule a trace is of.
#[test]
fn a_shared_limit_bounds_its_rules_together_and_is_counted_for_each() {
    let sharing = POLICY.replace("    keep: all\n", "    keep: all\n    limit: incidents\n    then: none\n");
    let tailkeep = Setup::new().policy(&sharing.replace("rules:", "limits: { incidents: 9/min }\nrules:")).start();
    let traces: Vec<Trace> = (0..20).flat_map(|_| [Trace::failed(), Trace::slow()]).collect();
    tailkeep.send_all(&traces);
    tailkeep.wait_for("all are judged", |accounts| {
        let reached = |rule| accounts.sum("tailkeep_limit_reached_total", &[rule]);
        let (failed, slow) = (reached("rule=\"keep-errors\""), reached("rule=\"keep-slow\""));
        failed <= 20.0 && slow <= 20.0 && failed + slow == 31.0
    });
    assert_eq!(tailkeep.wait_for_log("more traces than the rule's limit")["limit"], "incidents");
    let whys: Vec<_> = traces.iter().map(|trace| tailkeep.why(trace)).collect();
    let (kept, dropped): (Vec<_>, Vec<_>) = whys.iter().partition(|why| why["verdict"] == "kept");
    assert_eq!((kept.len(), dropped.len()), (9, 31));
    assert!(kept.iter().all(|why| why["beyond"].is_null()), "{kept:?}");
    for why in dropped {
        assert_eq!(
            why["beyond"],
            format!("the limit `incidents` of the rule {}", why["rule"].as_str().unwrap()),
            "{why}"
        );
    }
    tailkeep.stop();
}
