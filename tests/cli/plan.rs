//! `tailkeep policy plan` over recordings: what it says, its gates, and the pipelines that the documents show.

use super::{Place, assert_says};
use saphyr_parser::Parser;
use serde_json::{Value, json};
use std::path::Path;

const OLD: &str =
    "version: 1\nrules:\n- { name: errors, when: { error: true }, keep: all }\notherwise: { keep: all }\n";
const NEW: &str = "version: 1\nrules:\n- { name: probes, when: { entry: { name: probe } }, keep: none }\n\
    - { name: errors, when: { error: true }, keep: all }\notherwise: { keep: none }\n";

/// A trace of one span: every fourth fails, and two of these are probes.
fn line(number: u64) -> String {
    let begin = 1_700_000_000_000_000_000 + number * 1_000_000_000;
    let name = if number.is_multiple_of(2) && number < 8 { "probe" } else { "GET /" };
    let span = json!({
        "traceId": format!("{:032x}", number + 1), "spanId": "00f067aa0ba902b7", "name": name,
        "startTimeUnixNano": begin.to_string(), "endTimeUnixNano": (begin + 1_000_000).to_string(),
        "status": if number.is_multiple_of(4) { json!({ "code": 2 }) } else { json!({}) },
    });
    let service = if number.is_multiple_of(3) { "<b>shop" } else { "pay" };
    let resource = json!({ "attributes": [{ "key": "service.name", "value": { "stringValue": service } }] });
    json!({ "resourceSpans": [{ "resource": resource, "scopeSpans": [{ "spans": [span] }] }] }).to_string() + "\n"
}

fn recording() -> String {
    (0..24).map(line).collect()
}

fn place() -> Place {
    let place = Place::with(&[("policy.yaml", NEW), ("old.yaml", OLD), ("traces.jsonl", &recording())]);
    let folder = place.0.path().join("recordings");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("traces.jsonl"), recording()).unwrap();
    std::fs::write(folder.join("logs.jsonl"), "{\"resourceLogs\":[]}\n").unwrap();
    place
}

const PLAN: &[&str] = &["policy", "plan", "--new", "policy.yaml", "--old", "old.yaml", "--traces", "traces.jsonl"];

#[test]
fn json_says_for_each_rule_what_is_kept_now_and_then() {
    let output = place().run(&[PLAN, &["--format", "json"]].concat());
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    let kept = |rule: &str, side: &str| {
        let rows = plan["rules"].as_array().unwrap();
        rows.iter().find(|row| row["name"] == rule).unwrap()[side]["traces"].as_u64().unwrap()
    };
    assert_eq!(
        ["probes", "errors", "otherwise"].map(|rule| [kept(rule, "now"), kept(rule, "then")]),
        [[0, 0], [6, 4], [18, 0]]
    );
    assert_eq!((&plan["newly_dropped"]["traces"], &plan["newly_kept"]["traces"]), (&json!(20), &json!(0)));
    assert_eq!(plan["newly_dropped"]["examples"][0], json!(format!("{:032x}", 1)));
    // 24 traces in 23 s.
    let [bytes, day] = ["bytes", "bytes_per_day"].map(|key| plan["total"]["now"][key].as_f64().unwrap());
    assert!((day - bytes * 86_400.0 / 23.0).abs() < 1.0, "{day}");
}

#[test]
fn gates_exit_3_and_say_why() {
    let place = place();
    let plan = |more: &[&'static str]| [PLAN, more].concat();
    assert_says(&place, &plan(&[]), 0, &["newly dropped: 20 traces", "24 traces, 24 spans", "-100.0%"]);
    assert_says(
        &place,
        &plan(&["--fail-above", "1GB/day", "--fail-if-dropped", "services: nobody"]),
        0,
        &["passed no more"],
    );
    assert_says(&place, &plan(&["--fail-if-dropped", "error"]), 3, &["2 traces would be dropped", "where error"]);
    assert_says(&place, &plan(&["--fail-above", "1KB/day"]), 3, &["FAILED no more than 1KB/day", "would be kept"]);
    assert_says(&place, &plan(&["--fail-above", "1KB"]), 2, &["write a size a day"]);
    assert_says(&place, &plan(&["--fail-if-dropped", "eror: true"]), 2, &["did you mean `error`"]);
    let junit = place.run(&plan(&["--format", "junit", "--fail-if-dropped", "error"]));
    let junit = String::from_utf8(junit.stdout).unwrap();
    assert!(junit.contains("tests=\"2\" failures=\"1\"") && junit.contains("<failure message=\"2 traces"), "{junit}");
    let page = String::from_utf8(place.run(&plan(&["--format", "html"])).stdout).unwrap();
    assert!(page.contains("&lt;b&gt;shop") && !page.contains("<b>shop") && page.contains("<svg"), "{page}");
    assert!(!page.contains("http") && !page.contains("<script"), "a page needs nothing but itself");
}

#[test]
fn a_recording_that_is_cut_counts_until_there_and_what_is_none_is_refused() {
    let place = place();
    let whole = recording();
    std::fs::write(place.0.path().join("cut.jsonl"), &whole[..whole.len() - 30]).unwrap();
    let plan = |file| ["policy", "plan", "--new", "policy.yaml", "--traces", file];
    let warning = "warning: cut.jsonl: line 24 (byte ";
    assert_says(&place, &plan("cut.jsonl"), 0, &[warning, "the 23 spans before that count", "23 traces, 23 spans"]);
    assert_says(&place, &plan("recordings"), 0, &["24 traces, 24 spans"]);
    assert_says(&place, &plan("policy.yaml"), 2, &["no recording of traces that is known", "nothing can be planned"]);
    assert_says(&place, &plan("nowhere"), 2, &["cannot read nowhere"]);
    let wrong = Place::with(&[("policy.yaml", "version: 1\nrules: 5\n"), ("traces.jsonl", &whole)]);
    assert_says(&wrong, &plan("traces.jsonl"), 2, &["policy.yaml", "`otherwise`"]);
}

#[test]
fn the_pipelines_that_the_documents_show_are_yaml_and_their_plans_run() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/policy.md")).unwrap();
    let place = place();
    let mut plans = 0;
    for block in text.split("```yaml pipeline\n").skip(1).map(|rest| rest.split("```").next().unwrap()) {
        assert!(Parser::new_from_str(block).all(|event| event.is_ok()), "{block}");
        for command in block.lines().filter_map(|line| Some(line.split_once("tailkeep policy plan ")?.1)) {
            let command = command.split(" > ").next().unwrap();
            let words: Vec<&str> = command
                .split('"')
                .enumerate()
                .flat_map(
                    |(at, part)| {
                        if at.is_multiple_of(2) { part.split_whitespace().collect() } else { vec![part] }
                    },
                )
                .collect();
            let output = place.run(&[&["policy", "plan"], &words[..]].concat());
            // Errors that are probes are dropped, and both gates ask for them.
            assert_eq!(output.status.code(), Some(3), "{command}: {output:?}");
            assert!(!output.stdout.is_empty());
            plans += 1;
        }
    }
    assert_eq!(plans, 2);
}
