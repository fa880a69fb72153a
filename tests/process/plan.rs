//! Plans of what is in the ring of running processes.

use super::collector::{Setup, Tailkeep, program};
use super::http;
use super::traffic::Trace;
use serde_json::{Value, json};
use std::process::Output;
use tailkeep::policy::Policy;
use tailkeep::trace::RuleNames;

const NOTHING: &str = "version: 1\nwait: { after_root: 100ms, idle: 200ms, longest: 1s }\notherwise: { keep: none }\n";
const ERRORS: &str =
    "version: 1\nrules:\n- { name: errors, when: { error: true }, keep: all }\notherwise: { keep: none }\n";
const TOKEN: &str = "s3cret-t0ken";

fn start() -> Tailkeep {
    let token = format!("admin: {{ listen: '127.0.0.1:0', token: {TOKEN} }}");
    Setup::new().policy(NOTHING).settings(&token).start()
}

fn ask(tailkeep: &Tailkeep, method: &str, path: &str, body: &[u8]) -> http::Reply {
    let bearer = format!("Bearer {TOKEN}");
    http::request(tailkeep.ports.admin, method, path, &[("authorization", &bearer)], body).unwrap()
}

/// Sends it, and waits until it is dropped.
fn send(tailkeep: &Tailkeep, trace: &Trace) {
    tailkeep.send(trace);
    super::collector::eventually("it is judged", || {
        let why = ask(tailkeep, "GET", &format!("/why/{}", trace.hex()), &[]).json();
        (why["verdict"] == "dropped").then_some(())
    });
}

fn plan(processes: &[&Tailkeep], policy: &str, more: &[&str]) -> Output {
    let file = processes[0].path().join("candidate.yaml");
    std::fs::write(&file, policy).unwrap();
    let mut command = program();
    command.args(["policy", "plan", "--new"]).arg(file).args(more).env("TAILKEEP_ADMIN_TOKEN", TOKEN);
    for process in processes {
        command.args(["--live", &format!("http://{}", process.ports.admin)]);
    }
    command.output().unwrap()
}

#[test]
fn what_was_dropped_is_planned_in_every_replica_and_nothing_changes() {
    let replicas = [start(), start()];
    let (failed, ok) = (Trace::failed(), Trace::ok());
    for tailkeep in &replicas {
        send(tailkeep, &failed);
        send(tailkeep, &ok);
    }
    let both: Vec<&Tailkeep> = replicas.iter().collect();
    let output = plan(&both, ERRORS, &["--format", "json", "--fail-if-dropped", "error"]);
    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["window"]["traces"], &report["window"]["spans"]), (&json!(4), &json!(16)), "{report}");
    assert_eq!((&report["newly_kept"]["traces"], &report["newly_kept"]["spans"]), (&json!(2), &json!(8)));
    assert_eq!(report["newly_kept"]["examples"], json!([failed.hex()]));
    assert_eq!((&report["rules"][0]["name"], &report["rules"][0]["then"]["traces"]), (&json!("errors"), &json!(2)));
    assert_eq!(
        (&report["services"][0]["name"], &report["services"][0]["then"]["spans"]),
        (&json!("gateway"), &json!(8))
    );
    assert_eq!(plan(&both, NOTHING, &["--fail-if-dropped", "error"]).status.code(), Some(3));

    let tailkeep = &replicas[0];
    let policy = ask(tailkeep, "GET", "/policy", &[]).json();
    assert_eq!((&policy["number"], &policy["text"]), (&json!(1), &json!(NOTHING)));
    let refused = plan(&both, "version: 1\nrules: 5\n", &[]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        refused.status.code() == Some(2) && text.contains("candidate.yaml:2") && text.contains("refused it"),
        "{text}"
    );
    let alone = ask(tailkeep, "POST", "/policy/plan", ERRORS.as_bytes());
    assert_eq!((alone.status, &alone.json()["newly_kept"]["traces"]), (200, &json!(1)), "the text alone will do");
    assert_eq!(ask(tailkeep, "GET", "/policy/plan", &[]).status, 405);
    assert_eq!(ask(tailkeep, "POST", "/policy/plan", &vec![b'#'; 5 << 20]).status, 413);
    let unasked = http::request(tailkeep.ports.admin, "POST", "/policy/plan", &[], ERRORS.as_bytes()).unwrap();
    assert_eq!(unasked.status, 401);
    let counted =
        |outcome: &str| tailkeep.accounts().sum("tailkeep_policy_plans_total", &[&format!("outcome=\"{outcome}\"")]);
    assert_eq!((counted("made"), counted("refused"), counted("busy")), (3.0, 1.0, 0.0));
    let rules = tailkeep.accounts().sum("tailkeep_traces_total", &["rule=\"errors\""]);
    assert_eq!(rules, 0.0, "a candidate leaves no name behind");
    replicas.into_iter().for_each(|tailkeep| drop(tailkeep.stop()));
}

#[test]
fn a_replica_that_does_not_answer_makes_a_plan_fail() {
    let tailkeep = start();
    let output = plan(&[&tailkeep], ERRORS, &["--live", "http://127.0.0.1:1"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && text.contains("127.0.0.1:1"), "{text}");
    assert!(output.stdout.is_empty(), "half of a plan is none");
    tailkeep.stop();
}

/// A policy for which nothing is an error.
const FORGIVING: &str = "version: 1\nwait: { after_root: 100ms, idle: 200ms, longest: 1s }\n\
    errors: { except: { status: error } }\notherwise: { keep: none }\n";

#[test]
fn a_policy_is_suggested_from_what_is_in_every_ring() {
    // What is suggested does not count errors as the policy in force does.
    let token = format!("admin: {{ listen: '127.0.0.1:0', token: {TOKEN} }}");
    let replicas = [start(), Setup::new().policy(FORGIVING).settings(&token).start()];
    for tailkeep in &replicas {
        send(tailkeep, &Trace::failed());
        send(tailkeep, &Trace::ok());
    }
    let suggest = |admin: &[String]| {
        let mut command = program();
        command.args(["policy", "suggest", "--format", "json"]).env("TAILKEEP_ADMIN_TOKEN", TOKEN);
        command.args(admin.iter().flat_map(|url| ["--live", url])).output().unwrap()
    };
    let mut urls: Vec<String> = replicas.iter().map(|each| format!("http://{}", each.ports.admin)).collect();
    let output = suggest(&urls);
    assert!(output.status.success(), "{output:?}");
    let suggested: Value = serde_json::from_slice(&output.stdout).unwrap();
    let errors = &suggested["rules"][0];
    assert_eq!((&errors["name"], &errors["traces"]), (&json!("keep-errors"), &json!(2)), "{suggested}");
    assert_eq!(suggested["window"]["traces"], json!(4));
    let (policy, problems) =
        Policy::compile("suggested", suggested["policy"].as_str().unwrap(), 1, &mut RuleNames::default());
    assert!(policy.is_some() && problems.is_empty(), "{problems:?}");

    let text = suggested["policy"].as_str().unwrap();
    assert!(text.contains("2 of 2 traces here"), "{text}");
    let traffic = ask(&replicas[1], "GET", "/policy/traffic", &[]).json();
    let operations = traffic["operations"].as_array().unwrap();
    assert!(operations.iter().all(|operation| operation["service"] == "gateway"), "{traffic}");
    assert!(operations.iter().all(|operation| operation["is_exact"] == true), "{traffic}");
    assert!(operations.iter().any(|operation| operation["failed"]["traces"].as_f64() > Some(0.0)), "{traffic}");
    assert_eq!((traffic["traces"].as_u64(), ask(&replicas[0], "POST", "/policy/traffic", &[]).status), (Some(2), 405));
    let unasked = http::request(replicas[0].ports.admin, "GET", "/policy/traffic", &[], &[]).unwrap();
    assert_eq!(unasked.status, 401);
    urls.push("http://127.0.0.1:1".to_owned());
    let output = suggest(&urls);
    assert!(output.status.code() == Some(1) && output.stdout.is_empty(), "{output:?}");
    replicas.into_iter().for_each(|tailkeep| drop(tailkeep.stop()));
}
