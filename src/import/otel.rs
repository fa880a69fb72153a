//! The OpenTelemetry Collector's tail sampling processor, as of v0.161: a trace is dropped if a `drop` policy says so, else
//! kept if any policy says so. As ordered rules: what drops, what keeps all, what a limit bounds, shares from the largest
//! to the smallest, and the share of all as `otherwise`.
//!
//! In that version `invert_match` and `not` are plain denials; they veto nothing.

mod policy;
pub(super) use policy::renamed;
mod settings;

use super::condition::{self, Clause};
use super::draft::{Draft, Fidelity, Finding, KeepDraft, RuleDraft};
use super::source::{Section, unreadable_in};
use super::{Reading, refuse};
use crate::yaml::{Node, Reader, Value};
use policy::Asked;

/// The processor's section in a whole configuration, also one inside a manifest, or a file that is the section alone.
pub(super) fn read(reader: &mut Reader, root: &Node, part: Option<&str>) -> Option<Reading> {
    let found = processors(root, NESTING_MAX);
    let names: Vec<&str> = found.iter().map(|(name, _)| *name).collect();
    let chosen = match (part, found.as_slice()) {
        (Some(part), found) => found.iter().find(|(name, _)| *name == part),
        (None, [one]) => Some(one),
        (None, [_, second, ..]) => {
            let help = format!("say which with `--part`: one of {}", names.join(", "));
            refuse(reader, "I02", second.1, "there are several tail sampling processors", help);
            return None;
        }
        (None, []) => None,
    };
    let Some((name, node)) = chosen else {
        let help = match names.as_slice() {
            [] => "name a configuration with `processors: { tail_sampling: … }`, or that section alone".to_owned(),
            names => format!("there is {}", names.join(", ")),
        };
        refuse(reader, "I01", root, "there is no such tail sampling processor in this file", help);
        return None;
    };
    let Some(section) = Section::of(node) else {
        refuse(reader, "I01", node, "the tail sampling processor has no settings", "it needs `policies`".to_owned());
        return None;
    };
    let Ok(policies) = section.list("policies") else {
        refuse(reader, "I01", node, "`policies` is not a list", "write one item a policy".to_owned());
        return None;
    };
    let mut sorted = Sorted::default();
    policies.iter().for_each(|policy| sorted.take(policy));
    let mut draft = sorted.draft();
    let mut findings = sorted.findings;
    settings::read(&section, &mut draft, &mut findings);
    Some(Reading { draft, findings, what: format!("`{name}`") })
}

/// `spec: { config: … }` of a manifest.
const NESTING_MAX: usize = 3;

fn processors(node: &Node, depth: usize) -> Vec<(&str, &Node)> {
    let Some(section) = Section::of(node) else { return Vec::new() };
    let here = section.section("processors").unwrap_or(section);
    let is_ours = |key: &str| key == "tail_sampling" || key.starts_with("tail_sampling/");
    let entries = here.entries.iter().filter(|entry| is_ours(&entry.key));
    let found: Vec<(&str, &Node)> = entries.map(|entry| (entry.key.as_str(), &entry.value)).collect();
    if !found.is_empty() || depth == 0 {
        return found;
    }
    if section.get("policies").is_some() {
        return vec![("tail_sampling", node)];
    }
    ["spec", "config"]
        .iter()
        .filter_map(|key| section.get(key))
        .flat_map(|inner| processors(inner, depth - 1))
        .collect()
}

/// A policy that can be carried over: what it asks, and where its finding stands.
struct PolicyPart {
    finding: usize,
    asked: Asked,
}

/// The policies by what they do.
#[derive(Default)]
struct Sorted {
    findings: Vec<Finding>,
    drops: Vec<PolicyPart>,
    keeps: Vec<PolicyPart>,
    limited: Vec<PolicyPart>,
    /// Shares of some traces.
    thinned: Vec<PolicyPart>,
    /// Shares of all.
    shares: Vec<PolicyPart>,
    /// The name of a policy that keeps every trace.
    always: Option<String>,
}

impl Sorted {
    fn take(&mut self, node: &Node) {
        let line = node.span.line;
        let Some(section) = Section::of(node) else {
            return self.findings.push(Finding::new(line, "policy", "?").note(Fidelity::Not, "is not a mapping"));
        };
        let name = section.text("name").ok().flatten().unwrap_or("policy").to_owned();
        let kind = section.text("type").ok().flatten().unwrap_or("?");
        let at = self.findings.len();
        self.findings.push(Finding::new(line, name.as_str(), kind));
        if let Some(reason) = unreadable_in(node) {
            return self.findings[at].say(Fidelity::Not, reason);
        }
        match kind {
            "drop" => match policy::drop(&section) {
                Ok(asked) => self.drops.push(PolicyPart { finding: at, asked }),
                Err(reason) => self.findings[at].say(Fidelity::Not, reason),
            },
            "composite" => match policy::composite(&section) {
                Ok((asked, lost)) => {
                    lost.into_iter().for_each(|reason| self.findings[at].say(Fidelity::Nearly, reason));
                    self.limited.extend(asked.into_iter().map(|asked| PolicyPart { finding: at, asked }));
                }
                Err(reason) => self.findings[at].say(Fidelity::Not, reason),
            },
            _ => match policy::asked(&section) {
                Ok(asked) => self.sort(at, name, asked),
                Err(reason) => self.findings[at].say(Fidelity::Not, reason),
            },
        }
    }

    fn sort(&mut self, finding: usize, name: String, asked: Asked) {
        let part = PolicyPart { finding, asked };
        match (&part.asked.limit, &part.asked.share, part.asked.clauses.is_empty()) {
            (Some(_), ..) => self.limited.push(part),
            (None, None, true) => self.always = self.always.take().or(Some(name)),
            (None, None, false) => self.keeps.push(part),
            (None, Some(_), true) => self.shares.push(part),
            (None, Some(_), false) => self.thinned.push(part),
        }
    }

    fn draft(&mut self) -> Draft {
        let mut draft = Draft::new(KeepDraft::None);
        for part in std::mem::take(&mut self.drops) {
            self.write(&mut draft, part, KeepDraft::None);
        }
        let [keeps, limited, thinned, shares] =
            [&mut self.keeps, &mut self.limited, &mut self.thinned, &mut self.shares].map(std::mem::take);
        if let Some(always) = &self.always {
            draft.otherwise = KeepDraft::All;
            let rest = [keeps, limited, thinned, shares].into_iter().flatten();
            for part in rest {
                let note = format!("no rule is written: `{always}` keeps every trace anyway");
                self.findings[part.finding].say(Fidelity::Exactly, note);
            }
            return draft;
        }
        keeps.into_iter().for_each(|part| self.write(&mut draft, part, KeepDraft::All));
        for part in limited {
            let keep = part.asked.share.as_ref().map_or(KeepDraft::All, |share| KeepDraft::Share(share.value));
            self.findings[part.finding].say(Fidelity::Nearly, LIMIT_NOTE);
            self.write(&mut draft, part, keep);
        }
        self.write_shares(&mut draft, thinned, &shares);
        if let Some((_, then)) = draft.rules.last_mut().and_then(|last| last.limit.as_mut()) {
            *then = "otherwise";
        }
        draft
    }

    /// What is kept of some traces, where that is more than what is kept of all.
    fn write_shares(&mut self, draft: &mut Draft, thinned: Vec<PolicyPart>, shares: &[PolicyPart]) {
        let of_all: Vec<&policy::Share> = shares.iter().filter_map(|part| part.asked.share.as_ref()).collect();
        let otherwise = policy::together(&of_all);
        draft.otherwise = if of_all.is_empty() { KeepDraft::None } else { KeepDraft::Share(otherwise) };
        shares.iter().for_each(|part| self.tell(part.finding, &part.asked, vec!["otherwise".to_owned()]));
        let with_all = |part: &PolicyPart| {
            policy::together(&[of_all.as_slice(), &[part.asked.share.as_ref().expect("thinned")]].concat())
        };
        let mut thinned: Vec<(f64, PolicyPart)> = thinned.into_iter().map(|part| (with_all(&part), part)).collect();
        thinned.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        for (share, part) in thinned {
            if share <= otherwise {
                self.tell(part.finding, &part.asked, vec!["otherwise".to_owned()]);
                self.findings[part.finding].say(Fidelity::Nearly, "no rule of its own: as much is kept of all traces");
            } else {
                self.write(draft, part, KeepDraft::Share(share));
            }
        }
    }

    fn tell(&mut self, finding: usize, asked: &Asked, rules: Vec<String>) {
        let finding = &mut self.findings[finding];
        asked.notes.iter().for_each(|(fidelity, note)| finding.say(*fidelity, note.as_str()));
        finding.rules.extend(rules);
    }

    fn write(&mut self, draft: &mut Draft, part: PolicyPart, keep: KeepDraft) {
        let PolicyPart { finding: at, asked } = part;
        let may_split = asked.limit.is_none();
        let whens = match condition::whens(&asked.clauses, may_split) {
            Some(whens) => whens,
            None => match condition::narrowed(&asked.clauses) {
                Some(whens) => {
                    self.findings[at].say(Fidelity::Nearly, NARROWED_NOTE);
                    whens
                }
                None => {
                    return self.findings[at].say(Fidelity::Not, "one rule has no room for these conditions together");
                }
            },
        };
        if whens.is_empty() {
            self.findings[at].say(Fidelity::Exactly, "no rule is written: it matches no trace");
        }
        let (name, kind, line) =
            (self.findings[at].name.clone(), self.findings[at].kind.clone(), self.findings[at].line);
        let wanted = asked.name.as_deref().map_or(name.clone(), |sub| format!("{name}-{sub}"));
        let mut rules = Vec::new();
        for when in whens {
            let name = draft.name(&wanted);
            rules.push(name.clone());
            let why = format!("{kind} on line {line}");
            let limit = asked.limit.clone().map(|rate| (rate, "next"));
            draft.rules.push(RuleDraft { name, why, when, keep, limit, is_floor: false });
        }
        self.tell(at, &asked, rules);
    }
}

const LIMIT_NOTE: &str = "the limit holds one second's worth, where the Collector's holds two or its burst_capacity, and takes a trace that is \
                          larger than it; what other rules keep does not count against it";
const NARROWED_NOTE: &str = "one rule has no room for these conditions on spans of their own: attributes are looked for where the semantic \
                             conventions have them, and on one and the same span where there are several";

/// Of a list of clauses that hold for no trace.
pub(super) fn is_never(clauses: &[Clause]) -> bool {
    clauses.iter().any(|clause| clause.any.is_empty() && !clause.denied)
}

/// A list of policies in a policy.
fn sub_policies<'n>(section: &Section<'n>, kind: &str, list: &str) -> Result<Vec<Section<'n>>, String> {
    let inner = section.section(kind).ok_or_else(|| format!("`{kind}:` is missing"))?;
    let read = |node: &'n Node| match &node.value {
        Value::Map(_) => Section::of(node).ok_or_else(String::new),
        _ => Err(format!("an item of `{list}` is not a mapping")),
    };
    inner.list(list)?.iter().map(read).collect()
}
