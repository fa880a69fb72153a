//! A suggestion as the text of a policy.

use super::profile::{OperationProfile, threshold};
use super::{SuggestedRule, Suggestion};
use crate::policy::text;
use std::collections::BTreeMap;

/// Characters of a name that says which operation a rule is of.
const NAME_MAX: usize = 60;

/// What a plan says that a rule keeps: traces of those that it decides about, and bytes a day, in words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Predicted {
    pub kept: u64,
    pub decided: u64,
    pub a_day: String,
}

/// The text. `heading` stands above it as comments; `predicted` is asked by the name of each rule and of `otherwise`.
pub fn policy(suggestion: &Suggestion, heading: &[String], predicted: impl Fn(&str) -> Option<Predicted>) -> String {
    let mut out: String = heading.iter().map(|line| format!("# {line}\n")).collect();
    out += "version: 1\nrules:\n";
    for rule in &suggestion.rules {
        out += &rule_text(rule, predicted(&rule.name));
        out.push('\n');
    }
    if let Some(predicted) = predicted("otherwise") {
        out += &format!("# {}\n", in_words(&predicted));
    }
    out + &format!("otherwise: {{ keep: {} }}\n", keep(suggestion.otherwise.0))
}

fn rule_text(rule: &SuggestedRule, predicted: Option<Predicted>) -> String {
    let predicted = predicted.map_or(String::new(), |predicted| format!("; {}", in_words(&predicted)));
    let why = text::plain_or_quoted(&format!("{}{predicted}", rule.reason));
    let when: String = rule.when.iter().map(|line| format!("      {line}\n")).collect();
    let name = text::plain_or_quoted(&rule.name);
    format!("  - name: {name}\n    why: {why}\n    when:\n{when}    keep: {}\n", keep(rule.share))
}

fn in_words(predicted: &Predicted) -> String {
    let Predicted { kept, decided, a_day } = predicted;
    format!("keeps {a_day} a day, {kept} of {decided} traces here")
}

fn keep(share: f64) -> String {
    if share >= 1.0 { "all".to_owned() } else { text::percent(share) }
}

pub(super) fn span_of_time(number: usize) -> String {
    text::nanoseconds(threshold(number))
}

/// Operations by their service.
pub(super) struct Operations<'a>(BTreeMap<&'a str, Vec<String>>);

impl<'a> Operations<'a> {
    pub fn one(operation: &'a OperationProfile) -> Operations<'a> {
        Operations::all([operation].into_iter())
    }

    pub fn all(operations: impl Iterator<Item = &'a OperationProfile>) -> Operations<'a> {
        let mut names = BTreeMap::<&str, Vec<String>>::new();
        operations.for_each(|each| names.entry(&each.service).or_default().push(text::exactly(&each.name)));
        Operations(names)
    }

    /// Lines under `when:`.
    pub fn when(&self) -> Vec<String> {
        let entries = self.0.iter().map(|(service, names)| {
            format!("entry: {{ service: {}, name: {} }}", text::exactly(service), text::one_of(names))
        });
        let entries: Vec<String> = entries.collect();
        match entries.as_slice() {
            [one] => vec![one.clone()],
            many => ["any_of:".to_owned()].into_iter().chain(many.iter().map(|each| format!("  - {each}"))).collect(),
        }
    }
}

/// A name that no other rule has: letters and digits of the operation's.
pub(super) fn rule_name(kind: &str, operation: &OperationProfile, taken: &mut Vec<String>) -> String {
    let mut name = kind.to_owned();
    for c in format!(" {} {}", operation.service, operation.name).chars() {
        match c {
            c if c.is_alphanumeric() && name.len() < NAME_MAX => name.extend(c.to_lowercase()),
            _ if !name.ends_with('-') && name.len() < NAME_MAX => name.push('-'),
            _ => {}
        }
    }
    let name = name.trim_end_matches('-').to_owned();
    let numbered = (1..).map(|number| if number == 1 { name.clone() } else { format!("{name}-{number}") });
    let free = numbered.into_iter().find(|name| !taken.contains(name)).expect("there are more numbers than names");
    taken.push(free.clone());
    free
}
