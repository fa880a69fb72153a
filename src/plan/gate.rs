//! What a plan must not find, so that a pipeline stops.

use crate::diagnostic;
use crate::policy::Policy;
use crate::trace::{RuleNames, Summary};
use crate::yaml::parse_size;

/// Conditions whose traces must not be dropped, as rules of a policy that judges nothing.
#[derive(Debug)]
pub struct Gates {
    conditions: Vec<String>,
    policy: Policy,
}

impl Gates {
    /// Conditions as `when:` has them, in one line: `error: true`, `{ error: true }`, or the word `error` alone.
    ///
    /// # Errors
    /// What is wrong with them, for whoever wrote them.
    pub fn parse(conditions: &[String]) -> Result<Gates, String> {
        let mut text = "version: 1\nrules:\n".to_owned();
        for (number, condition) in conditions.iter().enumerate() {
            if condition.trim().is_empty() || condition.contains(char::is_control) {
                return Err("a condition is one line as `when:` has it, like `error: true`".to_owned());
            }
            text.push_str(&format!("- {{ name: gate-{number}, keep: all, when: {} }}\n", as_mapping(condition.trim())));
        }
        if conditions.is_empty() {
            text = "version: 1\n".to_owned();
        }
        text.push_str("otherwise: { keep: none }\n");
        let (policy, diagnostics) = Policy::compile("condition", &text, 0, &mut RuleNames::default());
        match policy {
            Some(policy) if policy.rules.len() == conditions.len() => {
                Ok(Gates { conditions: conditions.to_vec(), policy })
            }
            _ => Err(diagnostic::render(&diagnostics, &text, false)),
        }
    }

    /// Its rules are the conditions, in their order.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// As they were written.
    pub fn conditions(&self) -> impl Iterator<Item = &str> {
        self.conditions.iter().map(String::as_str)
    }

    /// Numbers of the conditions that hold of one of these summaries.
    pub fn matching(&self, summaries: &[Summary]) -> impl Iterator<Item = usize> {
        let rules = self.policy.rules.iter().enumerate();
        rules.filter(|(_, rule)| summaries.iter().any(|summary| rule.matches(summary))).map(|(number, _)| number)
    }
}

fn as_mapping(condition: &str) -> String {
    match condition {
        "error" | "failed" => format!("{{ {condition}: true }}"),
        _ if condition.starts_with('{') => condition.to_owned(),
        _ => format!("{{ {condition} }}"),
    }
}

/// So many bytes a day, and no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeGate {
    pub bytes_per_day: u64,
    /// As it was written.
    pub text: String,
}

impl VolumeGate {
    /// # Errors
    /// What to write instead.
    pub fn parse(text: &str) -> Result<VolumeGate, String> {
        let usual = || "write a size a day, like 200GB/day or 1.5TiB/day".to_owned();
        let (size, period) = text.split_once('/').ok_or_else(usual)?;
        let periods = match period.trim() {
            "day" | "d" => 1,
            "h" | "hour" => 24,
            "min" => 24 * 60,
            "s" => 24 * 60 * 60,
            _ => return Err(usual()),
        };
        let bytes = parse_size(size.trim()).ok_or_else(usual)?;
        Ok(VolumeGate { bytes_per_day: bytes.saturating_mul(periods), text: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_those_of_the_language() {
        let gates = ["error", "error: true, services: [a, b]", "{ any_of: [ { failed: true }, { services: pay } ] }"];
        assert_eq!(Gates::parse(&gates.map(str::to_owned)).unwrap().conditions().collect::<Vec<_>>(), gates);
        let summary = Summary { errors: 1, ..Summary::default() };
        let errors = Gates::parse(&["error".to_owned(), "error: false".to_owned()]).unwrap();
        assert_eq!(errors.matching(&[summary]).collect::<Vec<_>>(), [0]);
        assert_eq!(Gates::parse(&[]).unwrap().conditions().count(), 0);
        for wrong in ["", "eror: true", "error: true }, keep: none }\n- { name: x", "error: true } - { name: x"] {
            assert!(Gates::parse(&[wrong.to_owned()]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_volume_is_a_size_in_a_time() {
        let bytes = |text: &str| VolumeGate::parse(text).map(|gate| gate.bytes_per_day);
        assert_eq!(bytes("200GB/day"), Ok(200_000_000_000));
        assert_eq!(bytes("1KiB/s"), Ok(1024 * 86_400));
        for wrong in ["200GB", "200/day", "GB/day", "200GB/week", "-1GB/day", "/day"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }
}
