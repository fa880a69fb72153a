//! Values of another tool's file. What is not as expected becomes the reason why a part is not carried over.

use crate::yaml::{MappingEntry, Meaning, Node, Value};

/// A mapping of the file.
#[derive(Clone, Copy)]
pub(super) struct Section<'n> {
    pub entries: &'n [MappingEntry],
    pub line: usize,
}

/// Why a part is not carried over.
pub(super) type Obstacle = String;

impl<'n> Section<'n> {
    pub fn of(node: &'n Node) -> Option<Section<'n>> {
        match &node.value {
            Value::Map(entries) => Some(Section { entries, line: node.span.line }),
            _ => None,
        }
    }

    pub fn get(&self, key: &str) -> Option<&'n Node> {
        // `key:` with nothing behind it says nothing.
        let is_said = |node: &&Node| !matches!(&node.value, Value::Scalar(scalar) if scalar.meaning() == Meaning::Null);
        self.entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value).filter(is_said)
    }

    pub fn section(&self, key: &str) -> Option<Section<'n>> {
        self.get(key).and_then(Section::of)
    }

    pub fn text(&self, key: &str) -> Result<Option<&'n str>, Obstacle> {
        self.read(key, "a text", |node| match &node.value {
            Value::Scalar(scalar) => Some(scalar.text.as_str()),
            _ => None,
        })
    }

    pub fn integer(&self, key: &str) -> Result<Option<i64>, Obstacle> {
        self.read(key, "a whole number", |node| match &node.value {
            Value::Scalar(scalar) if scalar.plain => scalar.text.replace('_', "").parse().ok(),
            _ => None,
        })
    }

    pub fn number(&self, key: &str) -> Result<Option<f64>, Obstacle> {
        self.read(key, "a number", |node| match &node.value {
            Value::Scalar(scalar) => match scalar.meaning() {
                Meaning::Number(number) => Some(number),
                _ => None,
            },
            _ => None,
        })
    }

    pub fn bool(&self, key: &str) -> Result<bool, Obstacle> {
        let read = self.read(key, "`true` or `false`", |node| match &node.value {
            Value::Scalar(scalar) => match scalar.meaning() {
                Meaning::Bool(value) => Some(value),
                _ => None,
            },
            _ => None,
        });
        read.map(Option::unwrap_or_default)
    }

    pub fn texts(&self, key: &str) -> Result<Vec<&'n str>, Obstacle> {
        let read = self.read(key, "a list of texts", |node| match &node.value {
            Value::List(items) => items
                .iter()
                .map(|item| match &item.value {
                    Value::Scalar(scalar) => Some(scalar.text.as_str()),
                    _ => None,
                })
                .collect(),
            _ => None,
        });
        read.map(Option::unwrap_or_default)
    }

    pub fn list(&self, key: &str) -> Result<&'n [Node], Obstacle> {
        let read = self.read(key, "a list", |node| match &node.value {
            Value::List(items) => Some(items.as_slice()),
            _ => None,
        });
        read.map(Option::unwrap_or_default)
    }

    fn read<T>(&self, key: &str, wanted: &str, read: impl Fn(&'n Node) -> Option<T>) -> Result<Option<T>, Obstacle> {
        match self.get(key) {
            None => Ok(None),
            Some(node) => {
                read(node).map(Some).ok_or_else(|| format!("`{key}` is not {wanted} (line {})", node.span.line))
            }
        }
    }
}

/// A variable of the environment somewhere in it: what it stands for is not known here.
fn variable_in(node: &Node) -> Option<&str> {
    match &node.value {
        Value::Scalar(scalar) => scalar.text.contains("${").then_some(scalar.text.as_str()),
        Value::List(items) => items.iter().find_map(variable_in),
        Value::Map(entries) => entries.iter().find_map(|entry| variable_in(&entry.value)),
        Value::Refused => None,
    }
}

/// Why no part that holds this can be carried over.
pub(super) fn unreadable_in(node: &Node) -> Option<Obstacle> {
    if is_refused_in(node) {
        return Some("it has an anchor, an alias or a tag: write the value out".to_owned());
    }
    variable_in(node).map(|text| format!("`{text}` stands for something that is not known here: write it out"))
}

fn is_refused_in(node: &Node) -> bool {
    match &node.value {
        Value::Scalar(_) => false,
        Value::List(items) => items.iter().any(is_refused_in),
        Value::Map(entries) => entries.iter().any(|entry| is_refused_in(&entry.value)),
        Value::Refused => true,
    }
}
