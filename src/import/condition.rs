//! Conditions on a trace on their way from another tool's language into ours: a list of clauses that must all hold, each
//! a list of alternatives, or the denial of one. Written as `when:`, which has less room than that.

use crate::policy::text;
use crate::trace::question::Range;

/// One of several alternatives, or none of them.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Clause {
    pub denied: bool,
    pub any: Vec<ConditionDraft>,
}

/// One key of `when:` with its value.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum ConditionDraft {
    Error(bool),
    /// Nanoseconds.
    Envelope(Range<u64>),
    SpanCount(Range<u64>),
    Services(Matches),
    TraceState(String, Matches),
    /// Tests that must hold on the same span.
    AnySpan(Vec<SpanTest>),
    Root(Vec<SpanTest>),
}

/// A key of `any_span:` with its value, which is YAML already.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct SpanTest {
    pub field: ConditionField,
    pub value: String,
}

#[derive(Clone, PartialEq, Debug)]
pub(super) enum ConditionField {
    Service,
    Name,
    Kind,
    Status,
    Duration,
    Events,
    Attribute(String),
    Resource(String),
}

/// The YAML of a value, or of a list of alternatives.
pub(super) type Matches = String;

impl Clause {
    pub fn of(any: Vec<ConditionDraft>) -> Clause {
        Clause { denied: false, any }
    }

    pub fn one(atom: ConditionDraft) -> Clause {
        Clause::of(vec![atom])
    }

    /// Holds for no trace.
    pub fn never() -> Clause {
        Clause::of(Vec::new())
    }

    pub fn denied(self) -> Clause {
        Clause { denied: !self.denied, ..self }
    }

    /// Of an attribute that may stand on a span or on its resource: the place where the semantic conventions have it.
    fn in_usual_place(&self) -> Clause {
        let place = |atom: &ConditionDraft| match atom {
            ConditionDraft::AnySpan(tests) => match tests.as_slice() {
                [SpanTest { field: ConditionField::Attribute(key), .. }] => Some((key.clone(), false)),
                [SpanTest { field: ConditionField::Resource(key), .. }] => Some((key.clone(), true)),
                _ => None,
            },
            _ => None,
        };
        match self.any.iter().map(place).collect::<Option<Vec<_>>>().as_deref() {
            Some([(a, false), (b, true)]) if a == b && !self.denied => {
                Clause::one(self.any[usize::from(is_of_resources(a))].clone())
            }
            _ => self.clone(),
        }
    }
}

/// Namespaces that the semantic conventions give to resources.
const RESOURCE_NAMESPACES: &[&str] = &[
    "service.",
    "deployment.",
    "k8s.",
    "host.",
    "os.",
    "process.",
    "container.",
    "cloud.",
    "aws.ecs.",
    "aws.eks.",
    "telemetry.sdk.",
    "telemetry.distro.",
    "device.",
];

pub(super) fn is_of_resources(key: &str) -> bool {
    RESOURCE_NAMESPACES.iter().any(|namespace| key.starts_with(namespace))
}

/// `when:` of one rule; without conditions it matches every trace.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct WhenDraft {
    singles: Vec<ConditionDraft>,
    any_of: Vec<ConditionDraft>,
    not: Vec<ConditionDraft>,
}

impl WhenDraft {
    pub fn is_empty(&self) -> bool {
        self.singles.is_empty() && self.any_of.is_empty() && self.not.is_empty()
    }

    /// The keys of `when:` with their values, in flow style.
    pub fn entries(&self) -> Vec<String> {
        let items =
            |atoms: &[ConditionDraft]| atoms.iter().map(|atom| format!("{{ {} }}", atom.entry())).collect::<Vec<_>>();
        let list = |atoms: &[ConditionDraft]| format!("[{}]", items(atoms).join(", "));
        let mut entries: Vec<String> = self.singles.iter().map(ConditionDraft::entry).collect();
        if !self.any_of.is_empty() {
            let lines: String = items(&self.any_of).iter().map(|item| format!("\n  - {item}")).collect();
            entries.push(format!("any_of:{lines}"));
        }
        match self.not.as_slice() {
            [] => {}
            [one] => entries.push(format!("not: {{ {} }}", one.entry())),
            many => entries.push(format!("not: {{ any_of: {} }}", list(many))),
        }
        entries
    }
}

/// Rules that together match what fulfils all clauses, each trace in at least one; `None` where the language has no
/// room. None at all: no trace fulfils them. More than one only if it `may_split`.
pub(super) fn whens(clauses: &[Clause], may_split: bool) -> Option<Vec<WhenDraft>> {
    let (denials, claims): (Vec<&Clause>, Vec<&Clause>) = clauses.iter().partition(|clause| clause.denied);
    if claims.iter().any(|claim| claim.any.is_empty()) {
        return Some(Vec::new());
    }
    let not: Vec<ConditionDraft> = denials.iter().flat_map(|denial| denial.any.iter().cloned()).collect();
    let (singles, mut choices): (Vec<&Clause>, Vec<&Clause>) =
        claims.into_iter().partition(|claim| claim.any.len() == 1);
    let any_of = choices.pop().map_or_else(Vec::new, |choice| choice.any.clone());
    let mut expanded: Vec<Vec<ConditionDraft>> = vec![singles.iter().map(|single| single.any[0].clone()).collect()];
    for choice in choices {
        expanded = expanded
            .iter()
            .flat_map(|atoms| choice.any.iter().map(|atom| [atoms.as_slice(), std::slice::from_ref(atom)].concat()))
            .collect();
    }
    if expanded.len() > 1 && !may_split || expanded.len() > SPLIT_MAX {
        return None;
    }
    expanded.into_iter().map(|atoms| beside(atoms, any_of.clone(), not.clone())).collect()
}

/// More rules for one policy would not be read.
const SPLIT_MAX: usize = 8;

/// The same where there is no room: attributes are looked for where they usually stand, and all on one span.
pub(super) fn narrowed(clauses: &[Clause]) -> Option<Vec<WhenDraft>> {
    let usual: Vec<Clause> = clauses.iter().map(Clause::in_usual_place).collect();
    if let Some(whens) = whens(&usual, false) {
        return Some(whens);
    }
    let mut on_one_span: Vec<SpanTest> = Vec::new();
    let mut rest = Vec::new();
    for clause in usual {
        match clause.any.as_slice() {
            [ConditionDraft::AnySpan(tests)] if !clause.denied => {
                for test in tests {
                    if on_one_span.iter().any(|known| known.field == test.field && known.value != test.value) {
                        return None;
                    }
                    on_one_span.push(test.clone());
                }
            }
            _ => rest.push(clause),
        }
    }
    rest.push(Clause::one(ConditionDraft::AnySpan(on_one_span)));
    whens(&rest, false)
}

/// Atoms side by side under one `when:`, where each key stands once.
fn beside(atoms: Vec<ConditionDraft>, mut any_of: Vec<ConditionDraft>, not: Vec<ConditionDraft>) -> Option<WhenDraft> {
    let mut singles: Vec<ConditionDraft> = Vec::new();
    for atom in atoms {
        if singles.contains(&atom) {
            continue;
        }
        match singles.iter_mut().find(|known| known.key() == atom.key()) {
            None => singles.push(atom),
            Some(known) => match known.joined(&atom) {
                Some(joined) => *known = joined,
                // A list of one item is another place for a key that is taken.
                None if any_of.is_empty() => any_of.push(atom),
                None => return None,
            },
        }
    }
    Some(WhenDraft { singles, any_of, not })
}

impl ConditionDraft {
    fn key(&self) -> &'static str {
        match self {
            ConditionDraft::Error(_) => "error",
            ConditionDraft::Envelope(_) => "envelope",
            ConditionDraft::SpanCount(_) => "span_count",
            ConditionDraft::Services(_) => "services",
            ConditionDraft::TraceState(..) => "trace_state",
            ConditionDraft::AnySpan(_) => "any_span",
            ConditionDraft::Root(_) => "root",
        }
    }

    /// Both in one, where one key can say it.
    fn joined(&self, other: &ConditionDraft) -> Option<ConditionDraft> {
        match (self, other) {
            (ConditionDraft::Envelope(a), ConditionDraft::Envelope(b)) => Some(ConditionDraft::Envelope(common(a, b)?)),
            (ConditionDraft::SpanCount(a), ConditionDraft::SpanCount(b)) => {
                Some(ConditionDraft::SpanCount(common(a, b)?))
            }
            // There is one root, so all of it is of the same span.
            (ConditionDraft::Root(a), ConditionDraft::Root(b)) => {
                let is_free = |test: &SpanTest| a.iter().all(|known| known.field != test.field || known == test);
                b.iter().all(is_free).then(|| ConditionDraft::Root([a.as_slice(), b.as_slice()].concat()))
            }
            _ => None,
        }
    }

    fn entry(&self) -> String {
        let value = match self {
            ConditionDraft::Error(value) => value.to_string(),
            ConditionDraft::Envelope(range) => text::range(range, text::nanoseconds),
            ConditionDraft::SpanCount(range) => text::range(range, |count| count.to_string()),
            ConditionDraft::Services(matches) => matches.clone(),
            ConditionDraft::TraceState(key, matches) => format!("{{ {}: {matches} }}", text::plain_or_quoted(key)),
            ConditionDraft::AnySpan(tests) | ConditionDraft::Root(tests) => span(tests),
        };
        format!("{}: {value}", self.key())
    }
}

/// What lies in both ranges; `None` if nothing does.
fn common(a: &Range<u64>, b: &Range<u64>) -> Option<Range<u64>> {
    let least = |a: Option<u64>, b: Option<u64>| a.into_iter().chain(b).min();
    let range = Range { at_least: a.at_least.max(b.at_least), below: least(a.below, b.below) };
    let is_empty = range.at_least.zip(range.below).is_some_and(|(low, high)| low >= high);
    (!is_empty).then_some(range)
}

fn span(tests: &[SpanTest]) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut attributes: Vec<String> = Vec::new();
    let mut resource: Vec<String> = Vec::new();
    for SpanTest { field, value } in tests {
        let keyed = |key: &str| format!("{}: {value}", text::plain_or_quoted(key));
        match field {
            ConditionField::Attribute(key) => attributes.push(keyed(key)),
            ConditionField::Resource(key) => resource.push(keyed(key)),
            ConditionField::Service => parts.push(keyed("service")),
            ConditionField::Name => parts.push(keyed("name")),
            ConditionField::Kind => parts.push(keyed("kind")),
            ConditionField::Status => parts.push(keyed("status")),
            ConditionField::Duration => parts.push(keyed("duration")),
            ConditionField::Events => parts.push(keyed("events")),
        }
    }
    for (key, mut entries) in [("attributes", attributes), ("resource", resource)] {
        entries.dedup();
        if !entries.is_empty() {
            parts.push(format!("{key}: {{ {} }}", entries.join(", ")));
        }
    }
    parts.dedup();
    format!("{{ {} }}", parts.join(", "))
}
