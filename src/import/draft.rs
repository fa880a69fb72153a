//! A policy that is being written, and what is to be said of each part that it came from.

use super::condition::WhenDraft;
use crate::policy::text;
use std::time::Duration;

/// How well a part of the file carries over.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fidelity {
    /// The same traces are kept for it.
    Exactly,
    /// Other traces in cases that its notes name.
    Nearly,
    /// Nothing is in the policy for it.
    Not,
}

impl Fidelity {
    pub const ALL: [Fidelity; 3] = [Fidelity::Exactly, Fidelity::Nearly, Fidelity::Not];

    pub fn word(self) -> &'static str {
        match self {
            Fidelity::Exactly => "exactly",
            Fidelity::Nearly => "nearly",
            Fidelity::Not => "not",
        }
    }
}

/// What became of one part of the file.
#[derive(Clone, PartialEq, Debug)]
pub struct Finding {
    pub line: usize,
    /// A policy or rule by its name, a setting by its key.
    pub name: String,
    /// Its type in the other tool.
    pub kind: String,
    pub fidelity: Fidelity,
    /// The rules that stand for it.
    pub rules: Vec<String>,
    pub notes: Vec<String>,
}

impl Finding {
    pub fn new(line: usize, name: impl Into<String>, kind: impl Into<String>) -> Finding {
        let (name, kind) = (name.into(), kind.into());
        Finding { line, name, kind, fidelity: Fidelity::Exactly, rules: Vec::new(), notes: Vec::new() }
    }

    /// Says more of it, and how far that is from the original.
    pub fn note(mut self, fidelity: Fidelity, text: impl Into<String>) -> Finding {
        self.say(fidelity, text);
        self
    }

    pub fn say(&mut self, fidelity: Fidelity, text: impl Into<String>) {
        let text = text.into();
        self.fidelity = self.fidelity.max(fidelity);
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }
}

/// A rule to write.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct RuleDraft {
    pub name: String,
    pub why: String,
    pub when: WhenDraft,
    pub keep: KeepDraft,
    /// The rate, and what is beyond it.
    pub limit: Option<(String, &'static str)>,
    /// One of each endpoint a minute, whatever the limit says.
    pub is_floor: bool,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum KeepDraft {
    All,
    None,
    Share(f64),
}

impl KeepDraft {
    /// As a rate of one in so many.
    pub fn one_in(rate: f64) -> KeepDraft {
        if rate <= 1.0 { KeepDraft::All } else { KeepDraft::Share(1.0 / rate) }
    }

    pub fn word(self) -> String {
        match self {
            KeepDraft::All => "all".to_owned(),
            KeepDraft::None => "none".to_owned(),
            KeepDraft::Share(share) => text::percent(share),
        }
    }
}

/// The policy before it is text.
#[derive(Debug)]
pub(super) struct Draft {
    /// `after_root`, `idle` and `longest`, if not the defaults.
    pub wait: Option<[Duration; 3]>,
    pub rules: Vec<RuleDraft>,
    pub otherwise: KeepDraft,
    names: Vec<String>,
}

/// Names that rules cannot have.
const RESERVED: &[&str] = &["otherwise", "api", "other"];
const NAME_MAX: usize = 90;

impl Draft {
    pub fn new(otherwise: KeepDraft) -> Draft {
        Draft {
            wait: None,
            rules: Vec::new(),
            otherwise,
            names: RESERVED.iter().map(|&name| name.to_owned()).collect(),
        }
    }

    /// A name for a rule that no other has, as near as possible to `wanted`.
    pub fn name(&mut self, wanted: &str) -> String {
        let mut name: String = wanted.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        while name.len() > NAME_MAX {
            name.pop();
        }
        let name = name.trim_matches(|c: char| c == '_' || c.is_whitespace());
        let name = if name.is_empty() { "rule" } else { name };
        let numbered = (1..).map(|number| if number == 1 { name.to_owned() } else { format!("{name}-{number}") });
        let free =
            numbered.into_iter().find(|name| !self.names.contains(name)).expect("there are more numbers than names");
        self.names.push(free.clone());
        free
    }

    pub fn text(&self, heading: &[String]) -> String {
        let mut out: String = heading.iter().map(|line| format!("# {line}").trim_end().to_owned() + "\n").collect();
        out.push_str("version: 1\n");
        if let Some(wait) = self.wait {
            let [after_root, idle, longest] = wait.map(|wait| text::nanoseconds(wait.as_nanos() as u64));
            out.push_str(&format!("\nwait: {{ after_root: {after_root}, idle: {idle}, longest: {longest} }}\n"));
        }
        if !self.rules.is_empty() {
            out.push_str("\nrules:\n");
            let rules: Vec<String> = self.rules.iter().map(RuleDraft::text).collect();
            out.push_str(&rules.join("\n"));
        }
        out.push_str(&format!("\notherwise: {{ keep: {} }}\n", self.otherwise.word()));
        out
    }
}

impl RuleDraft {
    fn text(&self) -> String {
        let mut lines = vec![
            format!("name: {}", text::plain_or_quoted(&self.name)),
            format!("why: {}", text::plain_or_quoted(&self.why)),
        ];
        match self.when.entries().as_slice() {
            [] => {}
            [one] if !one.contains('\n') => lines.push(format!("when: {{ {one} }}")),
            entries => {
                lines.push("when:".to_owned());
                lines.extend(entries.iter().flat_map(|entry| entry.lines()).map(|line| format!("  {line}")));
            }
        }
        lines.push(format!("keep: {}", self.keep.word()));
        if let Some((rate, then)) = &self.limit {
            lines.push(format!("limit: {rate}"));
            lines.push(format!("then: {then}"));
        }
        if self.is_floor {
            lines.push("for_each: [entry.service, entry.name]".to_owned());
            lines.push("limit_total: 20/s".to_owned());
        }
        let indented: Vec<String> = lines.iter().map(|line| format!("    {line}\n")).collect();
        format!("  - {}", indented.concat().trim_start())
    }
}
