//! Conditions of a rule: a field, an operator and a value, each met by some span of the trace, or with `Scope: span` all
//! by the same.

use super::super::condition::{Clause, ConditionDraft, ConditionField, SpanTest, is_of_resources};
use super::super::draft::{Fidelity, Finding};
use super::super::otel::renamed;
use super::super::source::{Obstacle, Section};
use super::scalar;
use crate::policy::text;
use crate::trace::question::Range;
use crate::yaml::{Meaning, Node, Value};

/// What the rule asks; without conditions it matches every trace.
pub(super) fn clauses(rule: &Section<'_>, finding: &mut Finding) -> Result<Vec<Clause>, Obstacle> {
    let on_one_span = match rule.text("Scope")?.unwrap_or("trace") {
        "span" => true,
        "trace" | "" => false,
        other => return Err(format!("the scope `{other}` is not known")),
    };
    let mut clauses = Vec::new();
    let mut same_span: Vec<SpanTest> = Vec::new();
    let mut is_root = false;
    for node in rule.list("Conditions")? {
        let condition = RefineryCondition::read(node)?;
        match condition.asked(finding)? {
            AskedValue::Trace(clause) => clauses.push(clause),
            AskedValue::Root(test) => clauses.push(Clause::one(ConditionDraft::Root(vec![test]))),
            AskedValue::IsRoot if on_one_span => is_root = true,
            AskedValue::IsRoot => clauses.push(Clause::one(any_root())),
            AskedValue::Span(test) if on_one_span => match same_span.iter().find(|known| known.field == test.field) {
                Some(known) if *known != test => return Err("it asks twice for the same field of one span".to_owned()),
                _ => same_span.push(test),
            },
            // A failed span is what `error` asks for.
            AskedValue::Span(SpanTest { field: ConditionField::Status, value }) if value == "error" => {
                clauses.push(Clause::one(ConditionDraft::Error(true)))
            }
            AskedValue::Span(SpanTest { field: ConditionField::Service, value }) => {
                clauses.push(Clause::one(ConditionDraft::Services(value)))
            }
            AskedValue::Span(test) => clauses.push(Clause::one(ConditionDraft::AnySpan(vec![test]))),
        }
    }
    match (same_span.is_empty(), is_root) {
        (true, true) => clauses.push(Clause::one(any_root())),
        (false, true) => clauses.push(Clause::one(ConditionDraft::Root(same_span))),
        (false, false) => clauses.push(Clause::one(ConditionDraft::AnySpan(same_span))),
        (true, false) => {}
    }
    Ok(clauses)
}

/// Every root has some name.
fn any_root() -> ConditionDraft {
    ConditionDraft::Root(vec![SpanTest { field: ConditionField::Name, value: "\"*\"".to_owned() }])
}

enum AskedValue {
    Trace(Clause),
    Span(SpanTest),
    Root(SpanTest),
    /// The span is the root.
    IsRoot,
}

struct RefineryCondition<'n> {
    fields: Vec<&'n str>,
    operator: String,
    value: Option<&'n Node>,
    datatype: String,
}

impl<'n> RefineryCondition<'n> {
    fn read(node: &'n Node) -> Result<RefineryCondition<'n>, Obstacle> {
        let section = Section::of(node).ok_or("a condition is not a mapping")?;
        let mut fields = section.texts("Fields")?;
        fields.extend(section.text("Field")?);
        let operator = section.text("Operator")?.ok_or("a condition has no `Operator`")?.to_ascii_lowercase();
        let datatype = section.text("Datatype")?.unwrap_or_default().to_owned();
        let value = section.entries.iter().find(|entry| entry.key == "Value").map(|entry| &entry.value);
        Ok(RefineryCondition { fields, operator, value, datatype })
    }

    fn asked(&self, finding: &mut Finding) -> Result<AskedValue, Obstacle> {
        if self.operator == "has-root-span" {
            let wanted = self.scalar()?.meaning() == Meaning::Bool(true);
            let clause = Clause::one(any_root());
            return Ok(AskedValue::Trace(if wanted { clause } else { clause.denied() }));
        }
        let field = self.field(finding)?;
        let (field, of_root) = match field.strip_prefix("root.") {
            Some(field) => (field, true),
            None => (field, false),
        };
        if of_root && self.operator == "not-exists" {
            finding.say(Fidelity::Nearly, "Refinery also takes a trace without a root for one that lacks the field");
        }
        let test = match field {
            "?.NUM_DESCENDANTS" => {
                finding.say(
                    Fidelity::Nearly,
                    "NUM_DESCENDANTS counts events and links of spans too; `span_count` counts spans",
                );
                return Ok(AskedValue::Trace(Clause::one(ConditionDraft::SpanCount(self.count()?))));
            }
            "trace.parent_id" | "trace.parentId" | "parentId" if self.operator == "not-exists" => {
                return Ok(AskedValue::IsRoot);
            }
            "trace.parent_id" | "trace.parentId" | "parentId" if self.operator == "exists" => {
                return Err("no condition asks for a span that is not the root".to_owned());
            }
            "duration_ms" => SpanTest { field: ConditionField::Duration, value: self.duration()? },
            "error" => SpanTest { field: ConditionField::Status, value: self.status_of_error()? },
            "status_code" => SpanTest { field: ConditionField::Status, value: self.status()? },
            "span.kind" | "type" => SpanTest { field: ConditionField::Kind, value: self.kind()? },
            "name" => SpanTest { field: ConditionField::Name, value: self.text_value(finding)? },
            "service.name" | "service_name" => {
                SpanTest { field: ConditionField::Service, value: self.text_value(finding)? }
            }
            field if field.starts_with("meta.") || field.starts_with("trace.") || field.starts_with("?.") => {
                return Err(format!("`{field}` is a field of Refinery's own"));
            }
            field => self.attribute(field, finding)?,
        };
        Ok(if of_root { AskedValue::Root(test) } else { AskedValue::Span(test) })
    }

    /// The field; of several the one that has the names of the others, as the semantic conventions renamed it.
    fn field(&self, finding: &mut Finding) -> Result<&'n str, Obstacle> {
        match self.fields.as_slice() {
            [] => Err("a condition has no `Field`".to_owned()),
            [one] => Ok(one),
            [first, rest @ ..] => {
                let names = crate::policy::names_of(first);
                if rest.iter().all(|other| names.iter().any(|name| name == other)) {
                    return Ok(first);
                }
                finding.say(Fidelity::Nearly, format!("of `Fields` only `{first}` is asked for"));
                Ok(first)
            }
        }
    }

    fn attribute(&self, key: &str, finding: &mut Finding) -> Result<SpanTest, Obstacle> {
        let value = self.attribute_value(finding)?;
        if self.fields.len() <= 1 {
            renamed(key).into_iter().for_each(|note| finding.say(Fidelity::Nearly, note));
        }
        let is_of_resource = is_of_resources(key);
        let place = if is_of_resource { "resource" } else { "span" };
        finding.say(Fidelity::Nearly, format!("`{key}` is looked for on the {place} alone; Refinery joins both"));
        let field = if is_of_resource {
            ConditionField::Resource(key.to_owned())
        } else {
            ConditionField::Attribute(key.to_owned())
        };
        Ok(SpanTest { field, value })
    }

    fn attribute_value(&self, finding: &mut Finding) -> Result<String, Obstacle> {
        match self.operator.as_str() {
            "exists" => Ok("{ exists: true }".to_owned()),
            "not-exists" => Ok("{ exists: false }".to_owned()),
            "=" | "in" => Ok(text::one_of(&self.values(finding)?)),
            ">" | ">=" | "<" | "<=" => match self.scalar()?.meaning() {
                Meaning::Number(number) => Ok(text::range(&self.number_range(number), |bound| bound.to_string())),
                _ => Err(format!("`{}` compares texts", self.operator)),
            },
            _ => self.text_value(finding),
        }
    }

    /// Each value with its type; with a `Datatype` also as a text.
    fn values(&self, finding: &mut Finding) -> Result<Vec<String>, Obstacle> {
        let mut values = Vec::new();
        for node in self.alternatives()? {
            let scalar = scalar(node).ok_or("a value is neither a text nor a number")?;
            match (scalar.meaning(), self.datatype.as_str()) {
                (Meaning::Number(number), "string") => values.extend([number.to_string(), text::exactly(&scalar.text)]),
                (Meaning::Number(number), _) => values.push(number.to_string()),
                (Meaning::Bool(value), _) => values.push(value.to_string()),
                (Meaning::Text(text), _) => values.push(text::exactly(text)),
                (Meaning::Null, _) => return Err("a condition has no `Value`".to_owned()),
            }
        }
        if !self.datatype.is_empty() {
            finding.say(
                Fidelity::Nearly,
                "`Datatype` turns texts into numbers, and the other way round; a policy never does",
            );
        }
        Ok(values)
    }

    fn text_value(&self, finding: &mut Finding) -> Result<String, Obstacle> {
        let glob = |before: &str, after: &str| {
            let text = self.scalar()?.text.as_str();
            Ok(match text.contains('*') {
                true => text::regex(&format!("{}{}", if before.is_empty() { "^" } else { "" }, regex::escape(text))),
                false => text::plain_or_quoted(&format!("{before}{text}{after}")),
            })
        };
        match self.operator.as_str() {
            "=" | "in" => Ok(text::one_of(&self.values(finding)?)),
            "contains" => glob("*", "*"),
            "starts-with" => glob("", "*"),
            "matches" => {
                let expression = &self.scalar()?.text;
                regex::Regex::new(expression).map_err(|_| format!("the crate `regex` cannot read `{expression}`"))?;
                Ok(text::regex(expression))
            }
            "exists" => Ok("\"*\"".to_owned()),
            "!=" | "does-not-contain" | "not-in" => Err(format!(
                "`{}` asks for a span that is not so; a policy can only ask that no span is",
                self.operator
            )),
            other => Err(format!("`{other}` has no like here")),
        }
    }

    fn duration(&self) -> Result<String, Obstacle> {
        let Meaning::Number(millis) = self.scalar()?.meaning() else {
            return Err("`duration_ms` is compared with no number".to_owned());
        };
        let nanos = (millis.max(0.0) * 1e6).round() as u64;
        let range = match self.operator.as_str() {
            ">=" => Range { at_least: Some(nanos), below: None },
            ">" => Range { at_least: Some(nanos + 1), below: None },
            "<" => Range { at_least: None, below: Some(nanos) },
            "<=" => Range { at_least: None, below: Some(nanos + 1) },
            "=" => Range { at_least: Some(nanos), below: Some(nanos + 1) },
            other => return Err(format!("`{other}` has no like for a duration")),
        };
        Ok(text::range(&range, text::nanoseconds))
    }

    fn count(&self) -> Result<Range<u64>, Obstacle> {
        let Meaning::Number(count) = self.scalar()?.meaning() else {
            return Err("a count is compared with no number".to_owned());
        };
        let count = count.max(0.0) as u64;
        Ok(match self.operator.as_str() {
            ">=" => Range { at_least: Some(count), below: None },
            ">" => Range { at_least: Some(count + 1), below: None },
            "<" => Range { at_least: None, below: Some(count) },
            "<=" => Range { at_least: None, below: Some(count + 1) },
            "=" => Range { at_least: Some(count), below: Some(count + 1) },
            other => return Err(format!("`{other}` has no like for a count")),
        })
    }

    /// `error` is there, and true, on spans with the status ERROR.
    fn status_of_error(&self) -> Result<String, Obstacle> {
        let is_true = || self.scalar().is_ok_and(|scalar| scalar.text.eq_ignore_ascii_case("true"));
        match self.operator.as_str() {
            "exists" => Ok("error".to_owned()),
            "=" if is_true() => Ok("error".to_owned()),
            "not-exists" => Ok("[ok, unset]".to_owned()),
            _ => Err("of `error` only `exists`, `not-exists` and `= true` have a like".to_owned()),
        }
    }

    fn status(&self) -> Result<String, Obstacle> {
        let range = self.count().map_err(|_| "a status is compared with no number".to_owned())?;
        let words = [(0, "unset"), (1, "ok"), (2, "error")];
        let chosen = words.iter().filter(|(code, _)| range.contains(*code)).map(|(_, word)| (*word).to_owned());
        match chosen.collect::<Vec<_>>().as_slice() {
            [] => Err("no status is in its range".to_owned()),
            chosen => Ok(text::one_of(chosen)),
        }
    }

    fn kind(&self) -> Result<String, Obstacle> {
        let known = crate::trace::SpanKind::ALL.map(crate::trace::SpanKind::word);
        let mut kinds = Vec::new();
        for node in self.alternatives()? {
            let text = &scalar(node).ok_or("a kind is no word")?.text;
            kinds.push(
                known
                    .iter()
                    .find(|word| *word == text)
                    .ok_or_else(|| format!("`{text}` is no kind of span"))?
                    .to_string(),
            );
        }
        match self.operator.as_str() {
            "=" | "in" => Ok(text::one_of(&kinds)),
            other => Err(format!("`{other}` has no like for a kind")),
        }
    }

    fn number_range(&self, number: f64) -> Range<f64> {
        let next = if number.fract() == 0.0 { number + 1.0 } else { number.next_up() };
        match self.operator.as_str() {
            ">=" => Range { at_least: Some(number), below: None },
            ">" => Range { at_least: Some(next), below: None },
            "<" => Range { at_least: None, below: Some(number) },
            _ => Range { at_least: None, below: Some(next) },
        }
    }

    fn scalar(&self) -> Result<&'n crate::yaml::Scalar, Obstacle> {
        self.value.and_then(scalar).ok_or_else(|| "a condition has no `Value`".to_owned())
    }

    fn alternatives(&self) -> Result<&'n [Node], Obstacle> {
        let node = self.value.ok_or("a condition has no `Value`")?;
        match &node.value {
            Value::List(items) if !items.is_empty() => Ok(items),
            Value::List(_) => Err("a condition has no `Value`".to_owned()),
            _ => Ok(std::slice::from_ref(node)),
        }
    }
}
