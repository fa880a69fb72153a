//! The answer to "why was this trace kept or dropped?".

use crate::terminal::{self, clean};
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::time::Duration;

/// What is known of a trace, and from where.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    pub trace_id: String,
    /// `waiting`, `settling` (kept by a share, not yet delivered), `kept`, `dropped` or `unknown`.
    pub verdict: String,
    /// `ring`, `memory` (left the ring, verdict remembered) or `store`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The rule's own `why:`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule_why: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trigger: Option<String>,
    /// Number of the policy version that judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<u32>,
    /// A limit that the trace was beyond, with the rule that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beyond: Option<String>,
    /// Share of such traces that is kept, 0 to 1, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incomplete: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen: Option<SpansSeen>,
    /// What the reader should know about this answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What was seen of the trace.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SpansSeen {
    pub spans: u64,
    /// As the policy counts them.
    pub errors: u64,
    /// Spans with the status ERROR, where the policy says what else is an error, or is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors_by_status: Option<u64>,
    pub duration_ms: f64,
    /// From the first start to the last end.
    pub envelope_ms: f64,
    pub services: Vec<String>,
    /// Service and name of the entry span.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<String>,
    /// Seconds since its first and its last span arrived.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_seen_ago_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen_ago_s: Option<f64>,
}

impl SpansSeen {
    /// `3 spans, 1 with errors, in cart, shop`
    fn contents(&self) -> String {
        let word = if self.spans == 1 { "span" } else { "spans" };
        let mut text = format!("{} {word}, {} with errors", self.spans, self.errors);
        if let Some(by_status) = self.errors_by_status {
            let _ = write!(text, " by `errors` of the policy and {by_status} by their status");
        }
        if !self.services.is_empty() {
            let _ = write!(text, ", in {}", self.services.join(", "));
        }
        text
    }
}

/// As `tailkeep traces` prints it. What came over the wire may be no duration at all.
fn duration(millis: f64) -> String {
    terminal::duration(Duration::try_from_secs_f64(millis / 1e3).unwrap_or_default())
}

impl Answer {
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("plain values")
    }

    /// As `tailkeep why` prints it.
    pub fn render(&self) -> String {
        let mut out = format!("trace {}: {}", self.trace_id, self.verdict);
        if let Some(rule) = &self.rule {
            let _ = write!(out, " by {}", clean(rule));
        }
        let mut line = |label: &str, value: Option<String>| {
            if let Some(value) = value {
                let _ = write!(out, "\n  {label:<11} {}", clean(&value));
            }
        };
        line("rule says", self.rule_why.clone());
        line("beyond", self.beyond.clone());
        line("trigger", self.trigger.clone());
        line("policy", self.policy.map(|number| number.to_string()));
        line("share", self.share.map(|share| format!("{} % of such traces are kept", (share * 1e8).round() / 1e6)));
        line("incomplete", self.incomplete.clone());
        line("known from", self.source.clone());
        if let Some(seen) = &self.seen {
            line("entry", seen.entry.clone());
            line("seen", Some(seen.contents()));
            let (took, envelope) = (duration(seen.duration_ms), duration(seen.envelope_ms));
            line("took", Some(format!("{took}; from first start to last end {envelope}")));
            let arrived = seen.first_seen_ago_s.zip(seen.last_seen_ago_s);
            line("arrived", arrived.map(|(first, last)| format!("first span {first:.0} s ago, last {last:.0} s ago")));
        }
        line("note", self.note.clone());
        out.push('\n');
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_reads_aloud_and_survives_json() {
        let answer = Answer {
            trace_id: "4bf92f3577b34da6a3ce929d0e0e4736".into(),
            verdict: "kept".into(),
            rule: Some("keep-errors".into()),
            trigger: Some("root".into()),
            policy: Some(1),
            share: Some(1.0),
            source: Some("ring".into()),
            seen: Some(SpansSeen {
                spans: 3,
                errors: 1,
                duration_ms: 20.0,
                envelope_ms: 25.5,
                services: vec!["a".into(), "b".into()],
                ..SpansSeen::default()
            }),
            ..Answer::default()
        };
        let expected = "trace 4bf92f3577b34da6a3ce929d0e0e4736: kept by keep-errors
  trigger     root
  policy      1
  share       100 % of such traces are kept
  known from  ring
  seen        3 spans, 1 with errors, in a, b
  took        20.0 ms; from first start to last end 25.5 ms
";
        assert_eq!(answer.render(), expected);
        assert_eq!(serde_json::from_str::<Answer>(&answer.to_json()).unwrap(), answer);
    }

    #[test]
    fn one_span_is_one_and_a_long_trace_took_seconds() {
        let seen = SpansSeen { spans: 1, duration_ms: 3_000.0, envelope_ms: -1.0, ..SpansSeen::default() };
        let text = Answer { seen: Some(seen), ..Answer::default() }.render();
        assert!(text.contains("seen        1 span, 0 with errors\n"), "{text}");
        assert!(text.contains("took        3.00 s; from first start to last end 0 ns\n"), "{text}");
    }
}
