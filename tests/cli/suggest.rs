//! `tailkeep policy suggest` over recordings: what it writes passes `check`, and a plan agrees with its numbers.

use super::{Place, assert_says};
use serde_json::{Value, json};
use std::fs;

/// Five minutes: a probe every 10 s, requests of which some fail and some are slow, and loud ones.
fn recording() -> String {
    let mut lines = String::new();
    for number in 0..3000u64 {
        // What shares are drawn by is spread evenly, and when it begins is not.
        let spread = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let scattered = (spread ^ spread >> 31).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 16;
        let (service, name, after_ms, takes_ms) = match number {
            0..30 => ("shop", "GET /healthz", number * 10_000, 1),
            30..2400 => ("shop", "GET /*", scattered % 300_000, if number % 300 == 7 { 900 } else { 20 }),
            _ => ("pay", ["POST /pay", "GET /quote"][number as usize % 2], scattered % 300_000, 40),
        };
        let begin = 1_700_000_000_000 + after_ms;
        let span = json!({
            "traceId": format!("{:016x}{spread:016x}", number + 1), "spanId": "00f067aa0ba902b7", "name": name,
            "startTimeUnixNano": format!("{begin}000000"), "endTimeUnixNano": format!("{}000000", begin + takes_ms),
            "status": if number > 30 && number.is_multiple_of(20) { json!({ "code": 2 }) } else { json!({}) },
        });
        let resource = json!({ "attributes": [{ "key": "service.name", "value": { "stringValue": service } }] });
        lines +=
            &json!({ "resourceSpans": [{ "resource": resource, "scopeSpans": [{ "spans": [span] }] }] }).to_string();
        lines.push('\n');
    }
    lines
}

fn json_of(place: &Place, arguments: &[&str]) -> Value {
    let output = place.run(&[&["policy"], arguments, &["--format", "json"]].concat());
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn what_is_suggested_passes_check_and_a_plan_agrees_with_its_numbers() {
    let place = Place::with(&[("traces.jsonl", &recording())]);
    for (file, budget) in [("free.yaml", &[][..]), ("budget.yaml", &["--budget", "20MB/day"])] {
        let suggest = [&["suggest", "--traces", "traces.jsonl", "--out", file], budget].concat();
        let suggested = json_of(&place, &suggest);
        let text = fs::read_to_string(place.0.path().join(file)).unwrap();
        assert_eq!(suggested["policy"], json!(text));
        assert_says(&place, &["check", "--policy", file], 0, &["no problem"]);
        let planned = json_of(&place, &["plan", "--new", file, "--traces", "traces.jsonl"]);
        let rules = suggested["rules"].as_array().unwrap();
        assert!(rules.len() >= 4, "{suggested:#}");
        for rule in rules {
            let row = planned["rules"].as_array().unwrap().iter().find(|row| row["name"] == rule["name"]).unwrap();
            for number in ["traces", "decided", "bytes_per_day"] {
                let (said, planned) = (rule[number].as_f64().unwrap(), row["then"][number].as_f64().unwrap());
                assert!((said - planned).abs() <= planned * 0.02, "{}: {said} and {planned}", rule["name"]);
            }
            let words = format!("{} of {} traces here", rule["traces"], rule["decided"]);
            assert!(text.contains(&words), "{words} is not in\n{text}");
        }
        let day = planned["total"]["then"]["bytes_per_day"].as_f64().unwrap();
        assert_eq!(suggested["bytes_per_day"], planned["total"]["then"]["bytes_per_day"]);
        assert!(budget.is_empty() || (18e6..20.5e6).contains(&day), "{day}\n{text}");
        assert!(text.contains("GET /healthz") && text.contains(r"'^GET /\*$'"), "{text}");
    }
}

#[test]
fn a_suggestion_goes_to_the_terminal_and_overwrites_nothing() {
    let place = Place::with(&[("traces.jsonl", &recording()), ("policy.yaml", "mine"), ("empty.jsonl", "")]);
    let suggest = |more: &[&'static str]| [&["policy", "suggest", "--traces", "traces.jsonl"], more].concat();
    let printed = place.run(&suggest(&[]));
    let text = String::from_utf8(printed.stdout).unwrap();
    assert!(text.starts_with("# Suggested from 3000 traces") && text.contains("\nversion: 1\n"), "{text}");
    assert_says(&place, &suggest(&["--out", "policy.yaml"]), 2, &["policy.yaml is there already"]);
    assert_eq!(fs::read_to_string(place.0.path().join("policy.yaml")).unwrap(), "mine");
    assert_says(&place, &suggest(&["--budget", "20MB"]), 2, &["write a size a day"]);
    assert_says(&place, &suggest(&["--budget", "1KB/day"]), 0, &["note: the budget is too small: failed traces"]);
    assert_says(&place, &["policy", "suggest"], 2, &["--traces", "--live"]);
    assert_says(&place, &["policy", "suggest", "--traces", "empty.jsonl"], 2, &["nothing can be suggested"]);
}
