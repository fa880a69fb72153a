//! What a language says to those who do not speak it yet: examples of its parts, and its own words for
//! those of other tools. Data for a [`Reader`](super::Reader).

use super::{Map, Node, Value};

/// The data of one language.
#[derive(Clone, Copy, Debug)]
pub struct Phrases {
    pub examples: &'static [Example],
    pub foreign: &'static [Foreign],
    pub formats: &'static [FileFormat],
}

/// A language without any.
pub const NO_PHRASES: &Phrases = &Phrases { examples: &[], foreign: &[], formats: &[] };

/// What is read, as errors name it, and how it looks.
pub type Example = (&'static str, &'static str);

/// Words of other tools.
#[derive(Debug)]
pub struct Foreign {
    pub words: &'static [&'static str],
    /// Only where this word of ours could stand.
    pub where_known: &'static str,
    pub help: &'static str,
}

/// One row of a table of [`Foreign`] words.
pub const fn row(words: &'static [&'static str], where_known: &'static str, help: &'static str) -> Foreign {
    Foreign { words, where_known, help }
}

/// Another kind of file, by keys on its first level.
#[derive(Debug)]
pub struct FileFormat {
    pub keys: &'static [&'static str],
    pub title: &'static str,
    pub help: &'static str,
}

/// Keys of a configuration of Refinery, which is given for each of our files.
pub const REFINERY_CONFIGURATION: &[&str] =
    &["General", "Network", "AccessKeys", "RefineryTelemetry", "Collection", "PeerManagement", "StressRelief"];

impl Phrases {
    pub fn example(&self, what: &str) -> Option<&'static str> {
        self.examples.iter().find(|(known, _)| *known == what).map(|(_, example)| *example)
    }

    /// What to write instead of a word of other tools, where these words of ours could stand.
    pub fn foreign(&self, word: &str, known: &[&str]) -> Option<&'static str> {
        let is_meant = |row: &&Foreign| {
            known.contains(&row.where_known) && row.words.iter().any(|foreign| foreign.eq_ignore_ascii_case(word))
        };
        self.foreign.iter().find(is_meant).map(|row| row.help)
    }
}

/// What a part of a file must be.
#[derive(Clone, Copy, Debug)]
pub enum Shape<'k> {
    /// With these keys, or with any.
    Map(&'k [&'k str]),
    List,
    OneOrMore,
    One,
    Text,
}

impl Shape<'_> {
    pub(super) fn words(self) -> &'static str {
        match self {
            Shape::Map(_) => "a mapping (`key: value`)",
            Shape::List => "a list (`[a, b]`)",
            Shape::OneOrMore => "at least one value",
            Shape::One => "one value",
            Shape::Text => "a text that is not empty",
        }
    }

    /// What to write instead of `node`. Tells no value: it may be a secret.
    pub(super) fn help(self, node: &Node, what: &str, phrases: &Phrases) -> String {
        if let (Shape::Map(_), Value::Scalar(scalar)) = (self, &node.value)
            && let Some(key) = super::mistake::glued_key(&scalar.text)
        {
            return format!("write `{key}: …`, with a space after the colon");
        }
        if let (Shape::List, Value::Map(entries)) = (self, &node.value)
            && let Some(first) = entries.first()
        {
            return format!("begin each item with `- `: `- {}: …`", first.key);
        }
        if let Some(example) = phrases.example(what) {
            return format!("write it like `{example}`");
        }
        match self {
            Shape::Map(&[]) => "write `KEY: VALUE` below it, indented, or `{ KEY: VALUE }` behind it".to_owned(),
            Shape::Map(keys) => format!("write `{}: …` below it, indented; its keys are {}", keys[0], keys.join(", ")),
            Shape::List => "write `[a, b]`, or one item a line, each behind `- `".to_owned(),
            Shape::OneOrMore => "write a value, or a list like `[a, b]`; or remove the key".to_owned(),
            Shape::One => "write one value behind the colon, without brackets or keys below it".to_owned(),
            Shape::Text => "write a text, or remove the key".to_owned(),
        }
    }
}

/// The first key that shows another format.
pub(super) fn format_of<'n>(
    map: &Map<'n>,
    phrases: &Phrases,
) -> Option<(&'n super::MappingEntry, &'static FileFormat)> {
    map.entries.iter().find_map(|entry| {
        let format = phrases.formats.iter().find(|format| format.keys.contains(&entry.key.as_str()))?;
        Some((entry, format))
    })
}
