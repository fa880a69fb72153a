//! The rules of Honeycomb's Refinery, version 2 of their format: ordered, and the first that matches decides, as here. What
//! no rule matches is kept.

mod condition;

use super::condition::{Clause, narrowed, whens};
use super::draft::{Draft, Fidelity, Finding, KeepDraft, RuleDraft};
use super::source::{Obstacle, Section, unreadable_in};
use super::{Reading, refuse};
use crate::yaml::{Node, Reader, Value};

const DEFAULT: &str = "__default__";

/// The format of Refinery 1, by a table or an assignment where YAML has `key: value`.
pub(super) fn is_toml(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.next().is_some_and(|line| {
        let is_table = line.starts_with('[') && line.ends_with(']') && !line.contains([',', ':']);
        let is_assignment = line.split_once('=').is_some_and(|(key, _)| {
            let key = key.trim();
            !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))
        });
        is_table || is_assignment
    })
}

/// The rules of one environment.
pub(super) fn read(reader: &mut Reader, root: &Node, part: Option<&str>) -> Option<Reading> {
    let file = Section::of(root);
    let Some(samplers) = file.and_then(|file| file.section("Samplers")) else {
        let help = "a file of Refinery 2 or 3 has `RulesVersion: 2` and `Samplers`; an older one is converted by Refinery's own tool, \
                    `convert rules`";
        refuse(reader, "I01", root, "there are no samplers in this file", help.to_owned());
        return None;
    };
    let names: Vec<&str> = samplers.entries.iter().map(|entry| entry.key.as_str()).collect();
    let wanted = part.unwrap_or(DEFAULT);
    let Some(chosen) = samplers.get(wanted) else {
        let help = format!("say which with `--part`: one of {}", names.join(", "));
        refuse(reader, "I01", root, "there is no sampler for this environment", help);
        return None;
    };
    let mut draft = Draft::new(KeepDraft::All);
    let mut findings = Vec::new();
    for entry in samplers.entries.iter().filter(|entry| entry.key != wanted) {
        let note = "an environment has rules of its own: import it with `--part`, for a tailkeep of its own";
        findings.push(Finding::new(entry.key_span.line, entry.key.as_str(), "environment").note(Fidelity::Not, note));
    }
    let section = Section::of(chosen).unwrap_or(Section { entries: &[], line: chosen.span.line });
    match section.section("RulesBasedSampler") {
        Some(rules) => read_rules(&rules, &mut draft, &mut findings),
        None => {
            let mut finding = Finding::new(chosen.span.line, wanted, "environment");
            match sampler(&section, &mut finding) {
                Ok(sampling) => write(&mut draft, &mut finding, &[], sampling),
                Err(reason) => finding.say(Fidelity::Not, reason),
            }
            findings.push(finding);
        }
    }
    let what = if wanted == DEFAULT { "the rules".to_owned() } else { format!("the rules for `{wanted}`") };
    Some(Reading { draft, findings, what })
}

fn read_rules(section: &Section<'_>, draft: &mut Draft, findings: &mut Vec<Finding>) {
    let nested = section.bool("CheckNestedFields").unwrap_or_default();
    for node in section.list("Rules").unwrap_or_default() {
        let Some(rule) = Section::of(node) else {
            findings.push(Finding::new(node.span.line, "rule", "rule").note(Fidelity::Not, "is not a mapping"));
            continue;
        };
        let name = rule.text("Name").ok().flatten().unwrap_or("rule");
        let mut finding = Finding::new(node.span.line, name, "rule");
        if nested {
            finding.say(Fidelity::Nearly, "`CheckNestedFields`: a field is not looked for inside of values");
        }
        if let Err(reason) = read_rule(&rule, node, draft, &mut finding) {
            finding.say(Fidelity::Not, reason);
        }
        findings.push(finding);
    }
}

fn read_rule(rule: &Section<'_>, node: &Node, draft: &mut Draft, finding: &mut Finding) -> Result<(), Obstacle> {
    if let Some(reason) = unreadable_in(node) {
        return Err(reason);
    }
    if draft.otherwise != KeepDraft::All
        || draft.rules.last().is_some_and(|last| last.when.is_empty() && last.limit.is_none())
    {
        return Err("an earlier rule has no conditions, so nothing comes here".to_owned());
    }
    let clauses = condition::clauses(rule, finding)?;
    let sampling = match rule.section("Sampler") {
        _ if rule.bool("Drop")? => Sampler::KeepDraft(KeepDraft::None),
        Some(inner) => sampler(&inner, finding)?,
        None => {
            let rate = rule.integer("SampleRate")?.unwrap_or_default();
            let keep = if rate < 1 { KeepDraft::None } else { shared(rate as f64, finding) };
            if rate < 1 {
                finding.say(Fidelity::Exactly, "without a SampleRate of at least 1 Refinery keeps nothing");
            }
            Sampler::KeepDraft(keep)
        }
    };
    write(draft, finding, &clauses, sampling);
    Ok(())
}

/// How much is kept of what a rule matches.
enum Sampler {
    KeepDraft(KeepDraft),
    /// The share, and one of each endpoint a minute.
    Floored(KeepDraft),
    /// Spans a second.
    Limited(i64),
}

fn shared(rate: f64, finding: &mut Finding) -> KeepDraft {
    if rate > 1.0 {
        finding.say(Fidelity::Nearly, "the same share, but not the same traces: drawn by the trace's own randomness");
    }
    KeepDraft::one_in(rate)
}

fn sampler(section: &Section<'_>, finding: &mut Finding) -> Result<Sampler, Obstacle> {
    let [entry] = section.entries else { return Err("there is not exactly one sampler".to_owned()) };
    let kind = entry.key.as_str();
    let settings = Section::of(&entry.value).unwrap_or(Section { entries: &[], line: entry.key_span.line });
    let goal = |key: &str| {
        settings.integer(key)?.filter(|&goal| goal > 0).ok_or_else(|| format!("`{key}` of `{kind}` is missing"))
    };
    let per_key = "one of each endpoint a minute and a share of all, in place of a rate for each key of FieldList";
    match kind {
        "DeterministicSampler" => {
            Ok(Sampler::KeepDraft(shared(settings.integer("SampleRate")?.unwrap_or(1) as f64, finding)))
        }
        "DynamicSampler" | "EMADynamicSampler" => {
            let key = if kind == "DynamicSampler" { "SampleRate" } else { "GoalSampleRate" };
            finding.say(Fidelity::Nearly, per_key);
            Ok(Sampler::Floored(KeepDraft::one_in(goal(key)? as f64)))
        }
        "TotalThroughputSampler" | "EMAThroughputSampler" | "WindowedThroughputSampler" => {
            let note =
                "a limit of as many spans for each process: the first that come are kept, not a rate for each key";
            finding.say(Fidelity::Nearly, note);
            Ok(Sampler::Limited(goal("GoalThroughputPerSec")?))
        }
        other => Err(format!("the sampler `{other}` is not known here")),
    }
}

fn write(draft: &mut Draft, finding: &mut Finding, clauses: &[Clause], sampling: Sampler) {
    let may_split = !matches!(sampling, Sampler::Limited(_));
    let Some(whens) = whens(clauses, may_split).or_else(|| {
        finding.say(
            Fidelity::Nearly,
            "one rule has no room for conditions on so many different spans: they are asked of one and the same",
        );
        narrowed(clauses)
    }) else {
        return finding.say(Fidelity::Not, "one rule has no room for these conditions together");
    };
    if whens.is_empty() {
        return finding.say(Fidelity::Exactly, "no rule is written: it matches no trace");
    }
    let why = format!("{} on line {}", finding.kind, finding.line);
    for when in whens {
        if let Sampler::Floored(_) = sampling {
            let name = draft.name(&format!("{}-each-endpoint", finding.name));
            finding.rules.push(name.clone());
            let limit = Some(("1/min".to_owned(), "next"));
            draft.rules.push(RuleDraft {
                name,
                why: why.clone(),
                when: when.clone(),
                keep: KeepDraft::All,
                limit,
                is_floor: true,
            });
        }
        let (keep, limit) = match sampling {
            Sampler::KeepDraft(keep) | Sampler::Floored(keep) => (keep, None),
            Sampler::Limited(spans) => (KeepDraft::All, Some((format!("{spans} spans/s"), "none"))),
        };
        if when.is_empty() && limit.is_none() {
            draft.otherwise = keep;
            finding.rules.push("otherwise".to_owned());
            continue;
        }
        let name = draft.name(&finding.name);
        finding.rules.push(name.clone());
        draft.rules.push(RuleDraft { name, why: why.clone(), when, keep, limit, is_floor: false });
    }
}

/// The value of a condition.
fn scalar(node: &Node) -> Option<&crate::yaml::Scalar> {
    match &node.value {
        Value::Scalar(scalar) => Some(scalar),
        _ => None,
    }
}
