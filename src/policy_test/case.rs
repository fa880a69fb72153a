//! Cases as they were written: YAML to requests and expectations, with a diagnostic for everything that is not
//! right.
//!
//! Codes: T01 name, T02 where the trace comes from, T03 a rule that is not there, T04 spans (see `spans`),
//! T05 recording.

use super::phrases::PHRASES;
use super::{File, Recordings, case_run, spans};
use crate::diagnostic::{Diagnostic, Span};
use crate::policy::explain::{by_trace, read as read_recording};
use crate::policy::{Keep, Policy, parse};
use crate::trace::{Incomplete, LimitId, RuleId, TraceId};
use crate::yaml::{Map, Node, Reader, closest};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;

/// A case that can be judged.
#[derive(Debug)]
pub(super) struct TestCase {
    pub name: String,
    /// Where the name stands.
    pub span: Span,
    pub id: TraceId,
    /// An `ExportTraceServiceRequest` with the spans of this one trace.
    pub request: Vec<u8>,
    /// Limits that are reached.
    pub limits_reached: Vec<LimitId>,
    /// What spans cannot say: the trace outgrew its part of the ring, or a part of it was judged before.
    pub incomplete: Option<Incomplete>,
    pub expect: Expectation,
}

/// What must become of the trace; one of the two at least.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expectation {
    pub rule: Option<RuleId>,
    pub keep: Option<Keep>,
}

const CASE_KEYS: &[&str] = &["name", "trace", "file", "trace_id", "limits_reached", "incomplete", "expect"];
const EXPECT_KEYS: &[&str] = &["rule", "keep"];
const INCOMPLETE: &[(&str, Incomplete)] = &[("evicted", Incomplete::Evicted), ("limit", Incomplete::Limit)];

/// Reads all cases; `None` if one of them has an error.
pub(super) fn read(
    file: File<'_>,
    policy: &Policy,
    recordings: Recordings<'_>,
) -> (Option<Vec<TestCase>>, Vec<Diagnostic>) {
    let mut reader = Reader::speaking(file.name, PHRASES);
    let cases = cases(&mut reader, file.text, policy, recordings);
    let cases = cases.filter(|_| !reader.has_errors());
    (cases, reader.finish())
}

fn cases(reader: &mut Reader, text: &str, policy: &Policy, recordings: Recordings<'_>) -> Option<Vec<TestCase>> {
    let Some(root) = reader.parse(text) else {
        if !reader.has_errors() {
            let start = Span { start: 0, end: 0, line: 1, column: 1 };
            reader.error("Y07", start, "the file is empty", "").help("write `cases:` and a case below it");
        }
        return None;
    };
    let map = reader.file_map(&root, "a file of cases", &["cases"])?;
    let node = reader.require(&map, "cases", "a file of cases")?;
    let mut names: Vec<(String, Span)> = Vec::new();
    let mut cases = Vec::new();
    for (number, item) in reader.list(node, "`cases`")?.iter().enumerate() {
        let Some(map) = reader.map(item, "a case", CASE_KEYS) else { continue };
        let name = name(reader, &map, &mut names);
        let case = CaseReader { reader: &mut *reader, policy, recordings: &mut *recordings }.read(&map, number);
        if let (Some((name, span)), Some(case)) = (name, case) {
            cases.push(TestCase { name, span, ..case });
        }
    }
    Some(cases)
}

fn name(reader: &mut Reader, map: &Map<'_>, names: &mut Vec<(String, Span)>) -> Option<(String, Span)> {
    let node = reader.require(map, "name", "a case")?;
    let name = reader.text(node, "`name`")?.to_owned();
    if let Some((_, first)) = names.iter().find(|(known, _)| *known == name) {
        let diagnostic = reader.error("T01", node.span, format!("two cases are named `{name}`"), "again here");
        diagnostic.other(*first, "the first is here").help("give each case a name of its own");
    }
    names.push((name.clone(), node.span));
    Some((name, node.span))
}

/// Reads one case.
struct CaseReader<'a, 'r> {
    reader: &'a mut Reader,
    policy: &'a Policy,
    recordings: Recordings<'r>,
}

impl CaseReader<'_, '_> {
    /// All but its name. All parts are read before any is missed, so that every problem is reported.
    fn read(&mut self, map: &Map<'_>, number: usize) -> Option<TestCase> {
        let trace = self.trace(map, number);
        let limits_reached = map.get("limits_reached").map_or(Some(Vec::new()), |node| self.limits_reached(node));
        let incomplete = match map.get("incomplete") {
            None => Some(None),
            Some(node) => self.reader.word(node, "`incomplete`", INCOMPLETE).map(Some),
        };
        let expect = self.reader.require(map, "expect", "a case").and_then(|node| self.expect(node));
        let (id, request) = trace?;
        let (limits_reached, incomplete, expect) = (limits_reached?, incomplete?, expect?);
        let (name, span) = (String::new(), map.span);
        Some(TestCase { name, span, id, request, limits_reached, incomplete, expect })
    }

    /// The trace, and a request with its spans.
    fn trace(&mut self, map: &Map<'_>, number: usize) -> Option<(TraceId, Vec<u8>)> {
        let id = map.get("trace_id").and_then(|node| self.trace_id(node));
        match (map.entry("trace"), map.entry("file")) {
            (Some(trace), None) => {
                let id = id.unwrap_or_else(|| made_up_id(number));
                spans::request(self.reader, &trace.value, id).map(|request| (id, request.encode_to_vec()))
            }
            (None, Some(file)) => self.recording(&file.value, id),
            (Some(trace), Some(file)) => {
                let title = "a case has one trace: `trace` or `file`";
                let diagnostic = self.reader.error("T02", file.key_span, title, "a second trace");
                diagnostic.other(trace.key_span, "the first is here").help("make two cases of it");
                None
            }
            (None, None) => {
                let title = "a case needs a trace";
                let help =
                    "write spans, `trace: { service: shop, status: error }`, or name a recording, `file: trace.json`";
                self.reader.error("T02", map.span, title, "`trace:` or `file:` is missing").help(help);
                None
            }
        }
    }

    fn trace_id(&mut self, node: &Node) -> Option<TraceId> {
        let text = self.reader.text(node, "`trace_id`")?.to_owned();
        let id = TraceId::parse(&text).filter(|id| *id != TraceId::default());
        id.or_else(|| self.reader.unreadable(node, "`trace_id`", "is not a trace id", "write 32 hexadecimal digits"))
    }

    fn recording(&mut self, node: &Node, id: Option<TraceId>) -> Option<(TraceId, Vec<u8>)> {
        let file = self.reader.text(node, "`file`")?;
        let request = (self.recordings)(file).and_then(|bytes| read_recording(&bytes));
        match request.and_then(|request| one_trace(&request, id)) {
            Ok((id, request)) => match case_run::summarize(self.policy, &request) {
                Ok(_) => Some((id, request)),
                Err(problem) => self.no_recording(node, &problem),
            },
            Err(problem) => self.no_recording(node, &problem),
        }
    }

    fn no_recording<T>(&mut self, node: &Node, problem: &str) -> Option<T> {
        let help =
            "name a file of traces, by its path from this file, and with several in it one of them by `trace_id:`";
        self.reader.error("T05", node.span, "this recording gives no trace", problem).help(help);
        None
    }

    fn limits_reached(&mut self, node: &Node) -> Option<Vec<LimitId>> {
        let items = self.reader.one_or_more(node, "`limits_reached`")?;
        let limits: Vec<Option<LimitId>> = items.iter().map(|item| self.limit(item)).collect();
        limits.into_iter().collect()
    }

    /// A limit by its own name, or by that of a rule that has it.
    fn limit(&mut self, node: &Node) -> Option<LimitId> {
        let name = self.reader.text(node, "`limits_reached`")?;
        let policy = self.policy;
        let shared = policy.shared_limits.iter().map(|shared| (shared.name.as_str(), shared.id));
        let limited = policy.rules.iter().filter(|rule| rule.limit().is_some());
        let limits: Vec<_> = shared.chain(limited.map(|rule| (rule.written.name.as_str(), rule.limit_id()))).collect();
        if let Some((_, id)) = limits.iter().find(|(known, _)| *known == name) {
            return Some(*id);
        }
        let names: Vec<&str> = limits.iter().map(|(name, _)| *name).collect();
        let help = match names.as_slice() {
            [] => "remove it: no rule has a limit".to_owned(),
            names => format!("write the name of a limit or of a rule that has one: {}", names.join(", ")),
        };
        if policy.has_rule(name) {
            self.reader.error("T03", node.span, format!("`{name}` has no limit"), "never reached").help(help);
        } else {
            let near = closest(name, &names);
            let label = near.map_or("no limit of this name".to_owned(), |near| format!("did you mean `{near}`?"));
            let title = format!("{} has no limit `{name}`", policy.file);
            self.reader.error("T03", node.span, title, label).help(help);
        }
        None
    }

    fn expect(&mut self, node: &Node) -> Option<Expectation> {
        let map = self.reader.map(node, "`expect`", EXPECT_KEYS)?;
        if map.entries.is_empty() {
            return self.reader.wrong_shape(node, "`expect`", crate::yaml::Shape::Map(EXPECT_KEYS));
        }
        let rule = map.get("rule").map_or(Some(None), |node| self.rule(node, "`rule`").map(Some));
        let keep = map.get("keep").map_or(Some(None), |node| parse::keep(self.reader, node).map(Some));
        Some(Expectation { rule: rule?, keep: keep? })
    }

    /// A rule of the policy by its name, or `otherwise`.
    fn rule(&mut self, node: &Node, what: &str) -> Option<RuleId> {
        let name = self.reader.text(node, what)?;
        if name == "otherwise" {
            return Some(RuleId::OTHERWISE);
        }
        let rules = &self.policy.rules;
        if let Some(rule) = rules.iter().find(|rule| rule.written.name == name) {
            return Some(rule.id);
        }
        let names: Vec<&str> = rules.iter().map(|rule| rule.written.name.as_str()).chain(["otherwise"]).collect();
        let near = closest(name, &names);
        let label = near.map_or("no rule of this name".to_owned(), |near| format!("did you mean `{near}`?"));
        let title = format!("{} has no rule `{name}`", self.policy.file);
        let help = format!("its rules are {}", names.join(", "));
        self.reader.error("T03", node.span, title, label).help(help);
        None
    }
}

/// So many traces of a recording are named.
const IDS_TOLD: usize = 3;

/// The spans of one trace: the only one in `request`, or that with this id.
fn one_trace(request: &[u8], wanted: Option<TraceId>) -> Result<(TraceId, Vec<u8>), String> {
    let ids: Vec<TraceId> = by_trace(request)?.into_keys().collect();
    let some = ids.iter().take(IDS_TOLD).map(TraceId::to_string).collect::<Vec<_>>().join(", ");
    let id = match (wanted, ids.as_slice()) {
        (Some(wanted), ids) if ids.contains(&wanted) => wanted,
        (Some(_), _) => return Err(format!("no trace of this `trace_id` is in it, but {some}")),
        (None, [only]) => *only,
        (None, _) => return Err(format!("it has {} traces: {some}", ids.len())),
    };
    let mut request = ExportTraceServiceRequest::decode(request).map_err(|error| error.to_string())?;
    for scope in request.resource_spans.iter_mut().flat_map(|resource| &mut resource.scope_spans) {
        scope.spans.retain(|span| span.trace_id == id.0);
    }
    Ok((id, request.encode_to_vec()))
}

/// Of a form that nobody takes for an id with a time in it, and the same in every run.
fn made_up_id(number: usize) -> TraceId {
    let mut id = *b"\xf0a case\xf0\0\0\0\0\0\0\0\0";
    id[8..].copy_from_slice(&(number as u64 + 1).to_be_bytes());
    TraceId(id)
}
