//! A candidate judges beside the policy in force, is counted, and keeps nothing.

use super::collector::{Setup, Tailkeep, eventually};
use super::http;
use super::traffic::Trace;
use serde_json::{Value, json};
use std::fs;

const NOTHING: &str = "version: 1\nwait: { after_root: 100ms, idle: 200ms, longest: 1s }\notherwise: { keep: none }\n";
const ERRORS: &str =
    "version: 1\nrules:\n- { name: errors, when: { error: true }, keep: all }\notherwise: { keep: none }\n";

fn start() -> Tailkeep {
    let setup = Setup::new().policy(NOTHING).settings("policy_shadow: candidate.yaml");
    setup.start()
}

fn propose(tailkeep: &Tailkeep, text: &str) {
    fs::write(tailkeep.path().join("candidate.yaml"), text).unwrap();
}

fn shadow(tailkeep: &Tailkeep) -> Value {
    tailkeep.ask("/policy").json()["shadow"].clone()
}

/// Until that many traces were judged by both.
fn judged(tailkeep: &Tailkeep, traces: u64) -> Value {
    eventually("both have judged", || Some(shadow(tailkeep)).filter(|shadow| shadow["judged"] == traces))
}

#[test]
fn what_a_candidate_would_keep_is_counted_and_not_kept() {
    let tailkeep = start();
    assert_eq!(shadow(&tailkeep), Value::Null, "without the file there is no candidate, and nothing else is wrong");
    propose(&tailkeep, ERRORS);
    let begun = eventually("the candidate is found", || Some(shadow(&tailkeep)).filter(|shadow| !shadow.is_null()));
    assert_eq!((&begun["judged"], &begun["hash"].as_str().map(str::len)), (&json!(0), &Some(16)));
    let (failed, ok) = (Trace::failed(), Trace::ok());
    tailkeep.send(&failed);
    tailkeep.send(&ok);
    let said = judged(&tailkeep, 2);
    assert_eq!((&said["in_force"]["traces"], &said["shadow"]["traces"]), (&json!(0), &json!(1)), "{said}");
    assert_eq!(said["newly_kept"]["examples"], json!([failed.hex()]));
    assert_eq!((&said["rules"][0]["name"], &said["rules"][0]["spans"]), (&json!("errors"), &json!(4)));
    assert_eq!(said["newly_dropped"]["traces"], 0);
    let page = http::get(tailkeep.ports.health, "/metrics").unwrap().text();
    for sample in [
        "tailkeep_shadow_kept_traces{rule=\"errors\"} 1\n",
        "tailkeep_shadow_kept_spans{rule=\"errors\"} 4\n",
        "tailkeep_shadow_differing_traces{change=\"newly_kept\"} 1\n",
        "tailkeep_shadow_differing_traces{change=\"newly_dropped\"} 0\n",
    ] {
        assert!(page.contains(sample), "{sample} is not in {page}");
    }
    assert_eq!(tailkeep.ask(&format!("/why/{}", failed.hex())).json()["verdict"], "dropped", "it keeps nothing");
}

#[test]
fn both_are_reloaded_and_a_wrong_candidate_changes_nothing() {
    let tailkeep = start();
    propose(&tailkeep, ERRORS);
    eventually("the candidate is found", || (!shadow(&tailkeep).is_null()).then_some(()));
    tailkeep.send(&Trace::failed());
    judged(&tailkeep, 1);
    // That there was none at the start was said, too.
    let refused = |times| {
        eventually("it is said why", || {
            (tailkeep.logged("the shadow policy cannot be used: see `tailkeep check`") == times).then_some(())
        });
    };
    propose(&tailkeep, "version: 1\nrulez: []\n");
    refused(2);
    propose(&tailkeep, &format!("{ERRORS}errors: {{ except: {{ name: x }} }}\n"));
    refused(3);
    tailkeep.send(&Trace::failed());
    judged(&tailkeep, 2);

    // The policy in force becomes the candidate: both say the same, counted from then on.
    fs::write(tailkeep.path().join("policy.yaml"), format!("{ERRORS}wait: {{ after_root: 100ms, idle: 200ms }}\n"))
        .unwrap();
    eventually("the policy is reloaded", || (tailkeep.ask("/policy").json()["number"] == 2).then_some(()));
    assert_eq!(shadow(&tailkeep)["judged"], 0);
    tailkeep.send(&Trace::failed());
    let said = judged(&tailkeep, 1);
    assert_eq!((&said["in_force"]["traces"], &said["shadow"]["traces"]), (&json!(1), &json!(1)), "{said}");
    assert_eq!((&said["newly_kept"]["traces"], &said["newly_dropped"]["traces"]), (&json!(0), &json!(0)));

    // Another candidate leaves the number of the policy in force as it is.
    propose(&tailkeep, NOTHING);
    let said = eventually("another candidate", || {
        Some(shadow(&tailkeep)).filter(|shadow| shadow["rules"][0]["name"] == "otherwise")
    });
    assert_eq!((&said["judged"], &tailkeep.ask("/policy").json()["number"]), (&json!(0), &json!(2)));
    tailkeep.send(&Trace::failed());
    assert_eq!(judged(&tailkeep, 1)["newly_dropped"]["traces"], 1);
}
