//! The processor's settings beside its policies.

use super::super::draft::{Draft, Fidelity, Finding};
use super::super::source::Section;
use crate::yaml::{Value, parse_duration};
use std::time::Duration;

/// Of a processor that says nothing else.
const DECISION_WAIT: Duration = Duration::from_secs(30);
/// The Collector decides once a second.
const WAIT_MIN: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(3600);

/// Settings that a policy says nothing of: what has their place.
const ELSEWHERE: &[(&str, Fidelity, &str)] = &[
    (
        "num_traces",
        Fidelity::Exactly,
        "nothing to carry over: `memory` in the configuration bounds what waits, in bytes",
    ),
    ("expected_new_traces_per_sec", Fidelity::Exactly, "nothing to carry over: memory is taken once"),
    ("num_shards", Fidelity::Exactly, "nothing to carry over: there is a shard for each core"),
    ("block_on_overflow", Fidelity::Exactly, "nothing to carry over: the oldest traces leave the ring, judged"),
    ("decision_cache", Fidelity::Exactly, "nothing to carry over: late spans follow their trace"),
    ("sample_on_first_match", Fidelity::Exactly, "nothing to carry over: the first rule that matches always decides"),
    (
        "maximum_trace_size_bytes",
        Fidelity::Not,
        "a large trace is judged like any other; what does not fit into the ring is marked",
    ),
    ("drop_pending_traces_on_shutdown", Fidelity::Not, "traces that wait are judged and delivered at the end"),
    ("tail_storage", Fidelity::Not, "the ring is in memory"),
];

pub(super) fn read(section: &Section<'_>, draft: &mut Draft, findings: &mut Vec<Finding>) {
    wait(section, draft, findings);
    for entry in section.entries {
        let key = entry.key.as_str();
        let finding = |kind| Finding::new(entry.key_span.line, key, kind);
        if let Some((_, fidelity, note)) = ELSEWHERE.iter().find(|(known, ..)| *known == key) {
            findings.push(finding("setting").note(*fidelity, *note));
        } else if key == "sampling_strategy" {
            let is_whole = matches!(&entry.value.value, Value::Scalar(scalar) if scalar.text == "trace-complete");
            findings.push(match is_whole {
                true => finding("setting"),
                false => finding("setting")
                    .note(Fidelity::Nearly, "a trace is judged as a whole, not by each batch of its spans"),
            });
        } else if !["policies", "decision_wait", "decision_wait_after_root_received"].contains(&key) {
            findings.push(finding("setting").note(Fidelity::Not, "this setting is not known here"));
        }
    }
}

/// All three waits are what the Collector's one is, so that no trace is judged before it would be there.
fn wait(section: &Section<'_>, draft: &mut Draft, findings: &mut Vec<Finding>) {
    let line = |key: &str| section.entries.iter().find(|entry| entry.key == key).map(|entry| entry.key_span.line);
    let mut get = |key: &str| {
        let text = section.text(key).ok().flatten()?;
        let duration = go_duration(text);
        let mut finding = Finding::new(line(key).unwrap_or(section.line), key, "setting");
        match duration {
            Some(duration) if !duration.is_zero() && !(WAIT_MIN..=WAIT_MAX).contains(&duration) => {
                finding.say(Fidelity::Nearly, "brought between a second and an hour");
            }
            Some(_) => {}
            None => finding.say(Fidelity::Not, format!("`{text}` is not a duration")),
        }
        finding.rules.extend(duration.map(|_| "wait".to_owned()));
        findings.push(finding);
        duration
    };
    let given = get("decision_wait");
    let after_root = get("decision_wait_after_root_received").filter(|wait| !wait.is_zero());
    if given.is_none() && line("decision_wait").is_none() {
        let mut finding =
            Finding::new(section.line, "decision_wait", "setting").note(Fidelity::Exactly, "not said, so 30 s");
        finding.rules.push("wait".to_owned());
        findings.push(finding);
    }
    let longest = given.unwrap_or(DECISION_WAIT).clamp(WAIT_MIN, WAIT_MAX);
    let after_root = after_root.map_or(longest, |wait| wait.clamp(WAIT_MIN, longest));
    draft.wait = Some([after_root, longest, longest]);
}

/// `1m30s`, as Go writes durations.
fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut sum = Duration::ZERO;
    if rest == "0" {
        return Some(sum);
    }
    while !rest.is_empty() {
        let unit = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let end = rest[unit..].find(|c: char| c.is_ascii_digit() || c == '.').map_or(rest.len(), |end| unit + end);
        sum = sum.checked_add(parse_duration(&rest[..end])?)?;
        rest = &rest[end..];
    }
    (!text.trim().is_empty()).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_go_may_have_several_units() {
        assert_eq!(go_duration("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(go_duration("0"), Some(Duration::ZERO));
        assert_eq!(go_duration("1.5s"), Some(Duration::from_millis(1500)));
        for wrong in ["", "30", "s", "1x", "-1s"] {
            assert_eq!(go_duration(wrong), None, "{wrong}");
        }
    }
}
