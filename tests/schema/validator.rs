//! The part of JSON Schema (draft 7) that our schemas use. A keyword that it does not know is a panic: so no schema can
//! ask for more than the tests look at.

use regex::Regex;
use serde_json::{Map, Value};

/// Keywords that ask for nothing.
const ANNOTATIONS: &[&str] = &["$schema", "title", "description", "default", "definitions"];

pub struct Schema {
    pub root: Value,
}

impl Schema {
    /// Where and why `value` is not as the schema wants it; empty if it is.
    pub fn problems(&self, value: &Value) -> Vec<String> {
        let mut problems = Vec::new();
        self.check(&self.root, value, "", &mut problems);
        problems
    }

    /// The schema that `schema` refers to, or itself.
    pub fn resolved<'s>(&'s self, schema: &'s Value) -> &'s Value {
        match schema.get("$ref").and_then(Value::as_str) {
            Some(path) => self.root.pointer(path.trim_start_matches('#')).unwrap_or_else(|| panic!("no {path}")),
            None => schema,
        }
    }

    fn holds(&self, schema: &Value, value: &Value) -> bool {
        let mut problems = Vec::new();
        self.check(schema, value, "", &mut problems);
        problems.is_empty()
    }

    fn check(&self, schema: &Value, value: &Value, at: &str, problems: &mut Vec<String>) {
        let schema = match schema {
            Value::Bool(true) => return,
            Value::Bool(false) => return problems.push(format!("{at}: nothing may be here")),
            schema => schema.as_object().expect("a schema is a mapping or a boolean"),
        };
        for (keyword, wanted) in schema.iter().filter(|(keyword, _)| !ANNOTATIONS.contains(&keyword.as_str())) {
            let holds = match keyword.as_str() {
                "$ref" => {
                    let path = wanted.as_str().expect("a path").trim_start_matches('#');
                    self.check(self.root.pointer(path).expect("a definition"), value, at, problems);
                    true
                }
                "anyOf" => list(wanted).iter().any(|one| self.holds(one, value)),
                "oneOf" => list(wanted).iter().filter(|one| self.holds(one, value)).count() == 1,
                "not" => !self.holds(wanted, value),
                "type" => is_of_type(wanted, value),
                "const" => value == wanted,
                "enum" => list(wanted).contains(value),
                "pattern" | "minLength" | "maxLength" => {
                    value.as_str().is_none_or(|text| text_holds(keyword, wanted, text))
                }
                "minimum" => value.as_f64().is_none_or(|number| number >= wanted.as_f64().expect("a number")),
                "maximum" => value.as_f64().is_none_or(|number| number <= wanted.as_f64().expect("a number")),
                "minItems" => {
                    value.as_array().is_none_or(|items| items.len() as u64 >= wanted.as_u64().expect("a count"))
                }
                "items" => {
                    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.check(wanted, item, &format!("{at}[{index}]"), problems);
                    }
                    true
                }
                _ => match value.as_object() {
                    Some(entries) => self.check_mapping(keyword, wanted, (schema, entries), at, problems),
                    None => is_of_mappings(keyword),
                },
            };
            if !holds {
                problems.push(format!("{at}: {keyword} {}", wanted.to_string().chars().take(80).collect::<String>()));
            }
        }
    }

    fn check_mapping(
        &self,
        keyword: &str,
        wanted: &Value,
        (schema, entries): (&Map<String, Value>, &Map<String, Value>),
        at: &str,
        problems: &mut Vec<String>,
    ) -> bool {
        let has = |key: &Value| entries.contains_key(key.as_str().expect("a key"));
        match keyword {
            "required" => list(wanted).iter().all(has),
            "propertyNames" => entries.keys().all(|key| self.holds(wanted, &Value::String(key.clone()))),
            "minProperties" => entries.len() as u64 >= wanted.as_u64().expect("a count"),
            "dependencies" => {
                let needed = wanted.as_object().expect("a mapping").iter();
                needed.filter(|(key, _)| entries.contains_key(*key)).all(|(_, needed)| list(needed).iter().all(has))
            }
            "properties" => {
                for (key, wanted) in wanted.as_object().expect("a mapping") {
                    if let Some(value) = entries.get(key) {
                        self.check(wanted, value, &format!("{at}/{key}"), problems);
                    }
                }
                true
            }
            "additionalProperties" => {
                let known = schema.get("properties").and_then(Value::as_object);
                let others = entries.iter().filter(|(key, _)| known.is_none_or(|known| !known.contains_key(*key)));
                others.for_each(|(key, value)| self.check(wanted, value, &format!("{at}/{key}"), problems));
                true
            }
            other => panic!("the keyword {other} is not known here"),
        }
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn is_of_mappings(keyword: &str) -> bool {
    let known = ["required", "propertyNames", "minProperties", "dependencies", "properties", "additionalProperties"];
    assert!(known.contains(&keyword), "the keyword {keyword} is not known here");
    true
}

fn is_of_type(wanted: &Value, value: &Value) -> bool {
    let is = |name: &Value| match name.as_str().expect("a type") {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("the type {other} is not known here"),
    };
    wanted.as_array().map_or_else(|| is(wanted), |names| names.iter().any(is))
}

fn text_holds(keyword: &str, wanted: &Value, text: &str) -> bool {
    match keyword {
        "pattern" => Regex::new(wanted.as_str().expect("a pattern")).expect("a valid pattern").is_match(text),
        "minLength" => text.chars().count() as u64 >= wanted.as_u64().expect("a count"),
        _ => text.chars().count() as u64 <= wanted.as_u64().expect("a count"),
    }
}
