//! What the `rules` of sinks name, held against a policy.

use super::Config;
use super::sink::{RuleRef, SinkConfig};
use crate::policy::Policy;
use crate::yaml::{Reader, closest};

/// Reports what no rule of the policy is called, and rules whose traces would go nowhere.
pub(super) fn report(config: &Config, policy: &Policy, reader: &mut Reader) {
    let unknown = unknown(config, policy);
    for (sink, rule) in &unknown {
        let title = format!("no rule of the policy is called `{}`", rule.name);
        let label = format!("`{}` would get nothing by it", sink.name);
        reader.error("C21", rule.span, title, label).help(instead_of(&rule.name, policy));
    }
    if !unknown.is_empty() {
        // What goes nowhere may be meant by a name that is wrong.
        return;
    }
    let Some(first) = config.sinks.iter().find_map(|sink| sink.rules.as_ref()?.first()) else { return };
    let names = |sink: &SinkConfig, name: &str| sink.rules.iter().flatten().any(|rule| rule.name == name);
    let is_taken = |name: &str| config.sinks.iter().any(|sink| sink.rules.is_none() || names(sink, name));
    let lost: Vec<&str> = policy.keeping_rules().filter(|name| !is_taken(name)).collect();
    if !lost.is_empty() {
        let title = format!("no sink takes the traces of {}", lost.join(", "));
        let help = "name these rules at a sink, or leave `rules` out at one: it gets the traces of all";
        reader.warn("C13", first.span, title, "every sink names its rules").help(help);
    }
}

/// The rules that sinks name and the policy does not have.
fn unknown<'a>(config: &'a Config, policy: &Policy) -> Vec<(&'a SinkConfig, &'a RuleRef)> {
    let named = config.sinks.iter().flat_map(|sink| sink.rules.iter().flatten().map(move |rule| (sink, rule)));
    named.filter(|(_, rule)| !policy.has_rule(&rule.name)).collect()
}

fn instead_of(name: &str, policy: &Policy) -> String {
    let known: Vec<&str> = policy.rule_names().collect();
    let all = format!("{} has {}", policy.file, known.join(", "));
    closest(name, &known).map_or(all.clone(), |near| format!("did you mean `{near}`? {all}"))
}

impl Config {
    /// Whether the policy has every rule that a sink names.
    ///
    /// # Errors
    /// The first that it does not have, and what it has.
    pub fn check_rules(&self, policy: &Policy) -> Result<(), String> {
        let Some((sink, rule)) = unknown(self, policy).into_iter().next() else { return Ok(()) };
        let (sink, name, help) = (&sink.name, &rule.name, instead_of(&rule.name, policy));
        Err(format!("sink {sink}: no rule of the policy is called `{name}`: {help}"))
    }
}
