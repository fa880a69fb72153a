//! The subset of YAML that our files use, as a tree that knows where everything stands.
//!
//! Anchors, aliases, tags and several documents in one file are refused: they hide what a reader of
//! the file sees. [`Reader`] takes the tree apart and collects every problem on the way.

mod mistake;
mod phrases;
mod read;

pub use mistake::{glued_key, without_comment};
pub use phrases::{Example, FileFormat, Foreign, NO_PHRASES, Phrases, REFINERY_CONFIGURATION, Shape, row};
pub use read::{Map, Reader, closest, parse_duration, parse_size};

use crate::diagnostic::Span;
use saphyr_parser::{Event, Parser, ScalarStyle, Span as Marks, StrInput};

/// Larger files are refused, bytes.
pub const TEXT_MAX: usize = 1 << 20;
/// Deeper files are refused.
pub const DEPTH_MAX: usize = 32;

/// A value and where it stands.
#[derive(Clone, PartialEq, Debug)]
pub struct Node {
    pub span: Span,
    pub value: Value,
}

#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    Scalar(Scalar),
    List(Vec<Node>),
    /// In the order of the file; keys are unique.
    Map(Vec<MappingEntry>),
    /// Was reported already: an alias, or what an anchor or a tag stands before.
    Refused,
}

#[derive(Clone, PartialEq, Debug)]
pub struct Scalar {
    pub text: String,
    /// Written without quotes: `true`, `5` and nothing at all mean more than their letters.
    pub plain: bool,
}

#[derive(Clone, PartialEq, Debug)]
pub struct MappingEntry {
    pub key: String,
    pub key_span: Span,
    pub value: Node,
}

impl MappingEntry {
    /// The word that the key begins with: more of it may be a value, and a secret, where `: ` is missing.
    /// Empty where the key itself is missing: there is no value, and the word is like none of `known`.
    pub fn word(&self, known: &[&str]) -> &str {
        let rest = self.key.trim_start_matches(|c: char| c.is_alphanumeric() || "_-.".contains(c));
        let word = &self.key[..self.key.len() - rest.len()];
        let is_nothing = matches!(&self.value.value, Value::Scalar(scalar) if scalar.meaning() == Meaning::Null);
        if is_nothing && closest(word, known).is_none() { "" } else { word }
    }
}

/// What a plain scalar means (YAML 1.2 core schema, without octal and hexadecimal numbers).
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Meaning<'a> {
    Null,
    Bool(bool),
    Number(f64),
    Text(&'a str),
}

impl Scalar {
    pub fn meaning(&self) -> Meaning<'_> {
        if !self.plain {
            return Meaning::Text(&self.text);
        }
        match self.text.as_str() {
            "" | "~" | "null" | "Null" | "NULL" => Meaning::Null,
            "true" | "True" | "TRUE" => Meaning::Bool(true),
            "false" | "False" | "FALSE" => Meaning::Bool(false),
            text => number(text).map_or(Meaning::Text(text), Meaning::Number),
        }
    }
}

/// The number that `text` writes in decimal, perhaps with a sign, a fraction or an exponent.
pub fn number(text: &str) -> Option<f64> {
    let numeric = |c: u8| c.is_ascii_digit() || matches!(c, b'.' | b'e' | b'E' | b'+' | b'-');
    // Rust also reads `inf`, `nan` and `infinity`; a file that says those means text.
    let is_written_so = text.bytes().all(numeric) && text.bytes().any(|c| c.is_ascii_digit());
    is_written_so.then(|| text.parse().ok()).flatten().filter(|value: &f64| value.is_finite())
}

/// Why a text is no tree.
#[derive(Clone, PartialEq, Debug)]
pub struct Flaw {
    pub code: &'static str,
    pub span: Span,
    pub title: String,
    pub label: &'static str,
    /// What to write instead; may be empty.
    pub help: String,
    pub other: Option<(Span, &'static str)>,
}

/// Reads one document. Every flaw is collected; a syntax error ends the reading.
pub fn parse(text: &str) -> (Option<Node>, Vec<Flaw>) {
    let mut builder = TreeBuilder { places: Places::of(text), flaws: Vec::new(), open: Vec::new(), root: None };
    if text.len() > TEXT_MAX {
        let span = Span { start: 0, end: 0, line: 1, column: 1 };
        builder.flaw("Y04", span, format!("the file has more than {TEXT_MAX} bytes"), "", "is it the right file?");
        return (None, builder.flaws);
    }
    for event in Parser::new(StrInput::new(builder.places.text)) {
        match event {
            Ok((event, marks)) => {
                if !builder.take(event, marks) {
                    return (None, builder.flaws);
                }
            }
            Err(error) => {
                builder.syntax_error(error.marker().index(), error.info());
                return (None, builder.flaws);
            }
        }
    }
    (builder.root, builder.flaws)
}

/// Turns the parser's character positions into byte offsets, lines and columns.
struct Places<'a> {
    /// Without a byte order mark, which is `skipped` bytes long.
    text: &'a str,
    skipped: usize,
    /// Byte offset of every character and of the end; empty while character = byte.
    bytes: Vec<usize>,
    /// Byte offset of every line's start.
    lines: Vec<usize>,
}

impl<'a> Places<'a> {
    fn of(text: &'a str) -> Places<'a> {
        let body = text.strip_prefix('\u{feff}').unwrap_or(text);
        let bytes = if body.is_ascii() {
            Vec::new()
        } else {
            body.char_indices().map(|(at, _)| at).chain([body.len()]).collect()
        };
        let breaks = body.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Places { text: body, skipped: text.len() - body.len(), bytes, lines: [0].into_iter().chain(breaks).collect() }
    }

    fn byte(&self, character: usize) -> usize {
        let at = if self.bytes.is_empty() { character } else { *self.bytes.get(character).unwrap_or(&usize::MAX) };
        at.min(self.text.len())
    }

    fn at(&self, first: usize, end: usize) -> Span {
        let (start, end) = (self.byte(first), self.byte(end));
        let line = self.lines.partition_point(|&from| from <= start);
        let column = self.text[self.lines[line - 1]..start].chars().count() + 1;
        Span { start: start + self.skipped, end: end.max(start) + self.skipped, line, column }
    }

    /// Without the blanks that the parser counts as part of a quoted scalar.
    fn trimmed(&self, span: Span) -> Span {
        let text = &self.text[span.start - self.skipped..span.end - self.skipped];
        Span { end: span.start + text.trim_end().len(), ..span }
    }

    /// Bytes of a line, which counts from 1.
    fn in_line(&self, line: usize, bytes: std::ops::Range<usize>) -> Span {
        let from = self.lines[line - 1];
        let within = |at: usize| (from + at).min(self.text.len());
        let column = self.text[from..within(bytes.start)].chars().count() + 1;
        Span { start: within(bytes.start) + self.skipped, end: within(bytes.end) + self.skipped, line, column }
    }

    fn of_marks(&self, marks: Marks) -> Span {
        self.at(marks.start.index(), marks.end.index())
    }
}

/// Assembles the tree from events.
struct TreeBuilder<'a> {
    places: Places<'a>,
    flaws: Vec<Flaw>,
    open: Vec<OpenCollection>,
    root: Option<Node>,
}

/// A collection whose end has not come yet.
struct OpenCollection {
    span: Span,
    content: NodeContent,
}

enum NodeContent {
    List(Vec<Node>),
    Map { entries: Vec<MappingEntry>, key: Option<(String, Span)> },
}

impl TreeBuilder<'_> {
    fn flaw(&mut self, code: &'static str, span: Span, title: String, label: &'static str, help: &str) {
        self.flaws.push(Flaw { code, span, title, label, help: help.to_owned(), other: None });
    }

    /// What stopped the parser at this character.
    fn syntax_error(&mut self, character: usize, reason: &str) {
        let stop = self.places.at(character, character);
        let at = stop.start - self.places.skipped - self.places.lines[stop.line - 1];
        let found = mistake::recognise(self.places.text, stop.line, at, reason);
        let span = self.places.in_line(found.line, found.bytes);
        self.flaw("Y01", span, found.title, found.label, &found.help);
    }

    /// False when nothing that follows can be understood.
    fn take(&mut self, event: Event<'_>, marks: Marks) -> bool {
        let span = self.places.of_marks(marks);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_marks(span, anchor, tag.is_some());
                let (span, plain) = (self.places.trimmed(span), matches!(style, ScalarStyle::Plain));
                if plain && text.trim_matches(mistake::is_odd_blank) != text {
                    let [title, label, help] = mistake::ODD_BLANK;
                    self.flaw("Y01", span, title.to_owned(), label, help);
                    return false;
                }
                let value = match anchor > 0 || tag.is_some() {
                    true => Value::Refused,
                    false => Value::Scalar(Scalar { text: text.into_owned(), plain }),
                };
                self.place(Node { span, value });
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_marks(span, anchor, tag.is_some());
                return self.open(span, NodeContent::List(Vec::new()));
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_marks(span, anchor, tag.is_some());
                return self.open(span, NodeContent::Map { entries: Vec::new(), key: None });
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(span),
            Event::Alias(_) => {
                let title = "aliases are not supported".to_owned();
                self.flaw("Y02", span, title, "an alias", "write the value out; quote a text that begins with `*`");
                self.place(Node { span, value: Value::Refused });
            }
            Event::DocumentStart(_) if self.root.is_some() => {
                let title = "the file has a second document".to_owned();
                self.flaw("Y04", span, title, "begins here", "keep one document per file");
                return false;
            }
            Event::DocumentStart(_) | Event::DocumentEnd | Event::StreamStart | Event::StreamEnd | Event::Nothing => {}
        }
        true
    }

    fn refuse_marks(&mut self, span: Span, anchor: usize, tagged: bool) {
        if anchor > 0 {
            let (title, help) = ("anchors are not supported", "write the value out; quote a text that begins with `&`");
            self.flaw("Y02", span, title.to_owned(), "has an anchor", help);
        }
        if tagged {
            self.flaw(
                "Y02",
                span,
                "tags are not supported".to_owned(),
                "has a tag",
                "quote a text that begins with `!`",
            );
        }
    }

    fn open(&mut self, span: Span, content: NodeContent) -> bool {
        if self.open.len() == DEPTH_MAX {
            self.flaw("Y04", span, format!("more than {DEPTH_MAX} levels deep"), "too deep", "no key is that deep");
            return false;
        }
        self.open.push(OpenCollection { span, content });
        true
    }

    fn close(&mut self, end: Span) {
        let Some(OpenCollection { span, content }) = self.open.pop() else { return };
        let span = Span { end: end.end.max(span.end), ..span };
        let value = match content {
            NodeContent::List(items) => Value::List(items),
            NodeContent::Map { entries, .. } => Value::Map(entries),
        };
        self.place(Node { span, value });
    }

    fn place(&mut self, node: Node) {
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return;
        };
        match &mut parent.content {
            NodeContent::List(items) => items.push(node),
            NodeContent::Map { entries, key } => match key.take() {
                None => {
                    let flaw = match node.value {
                        Value::Scalar(scalar) if !scalar.text.is_empty() => {
                            *key = Some((scalar.text, node.span));
                            return;
                        }
                        Value::Refused => None,
                        Value::Scalar(_) => Some("this is nothing"),
                        Value::List(_) | Value::Map(_) => Some("this is a list or a mapping"),
                    };
                    *key = Some((String::new(), node.span));
                    if let Some(label) = flaw {
                        let title = "a key must be a plain word".to_owned();
                        let help = "quote a text that begins with `{` or `[`";
                        self.flaw("Y05", node.span, title, label, help);
                    }
                }
                // What was no key has no value either.
                Some((key, _)) if key.is_empty() => {}
                Some((key, key_span)) => match entries.iter().find(|entry| entry.key == key) {
                    Some(first) => {
                        let other = Some((first.key_span, "first here"));
                        let title = format!("the key `{key}` is there twice");
                        let (label, help) = ("again here", "remove one, or join the two".to_owned());
                        self.flaws.push(Flaw { code: "Y03", span: key_span, title, label, help, other });
                    }
                    None => entries.push(MappingEntry { key, key_span, value: node }),
                },
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every scalar of the tree with the text that its span covers.
    fn scalars(node: &Node, text: &str, out: &mut Vec<(String, String)>) {
        match &node.value {
            Value::Refused => {}
            Value::Scalar(scalar) => out.push((scalar.text.clone(), text[node.span.start..node.span.end].to_owned())),
            Value::List(items) => items.iter().for_each(|item| scalars(item, text, out)),
            Value::Map(entries) => {
                for entry in entries {
                    out.push((entry.key.clone(), text[entry.key_span.start..entry.key_span.end].to_owned()));
                    scalars(&entry.value, text, out);
                }
            }
        }
    }

    #[test]
    fn spans_cover_what_was_written() {
        for text in [
            "a: 1\nb: [x, y]\nc: { d: e }\n",
            "a: 1\r\nb: [x, y]\r\nc: { d: e }\r\n",
            "\u{feff}支付: 结账\nb: [é, y]\nc: { d: 'e' }\n",
        ] {
            let (tree, flaws) = parse(text);
            assert_eq!(flaws, []);
            let mut seen = Vec::new();
            scalars(&tree.expect("a tree"), text, &mut seen);
            assert_eq!(seen.len(), 8, "{seen:?}");
            for (value, written) in seen {
                assert_eq!(written.trim_matches('\''), value);
            }
        }
    }

    #[test]
    fn lines_and_columns_count_from_one_in_characters() {
        let (tree, _) = parse("é: 1\nab:\n  支付: { x: here }\n");
        let Value::Map(entries) = tree.expect("a tree").value else { panic!("a map") };
        let Value::Map(inner) = &entries[1].value.value else { panic!("a map") };
        let Value::Map(innermost) = &inner[0].value.value else { panic!("a map") };
        assert_eq!((innermost[0].value.span.line, innermost[0].value.span.column), (3, 12));
    }

    #[test]
    fn what_hides_its_meaning_is_refused_with_its_place() {
        for (text, code, line, column) in [
            ("a: &x 1\nb: 2", "Y02", 1, 4),
            ("a: *x", "Y01", 1, 4),
            ("a: &x 1\nb: *x", "Y02", 1, 4),
            ("a: !t 1", "Y02", 1, 4),
            ("a: 1\nb: 2\na: 3", "Y03", 3, 1),
            ("a: 1\n---\nb: 2", "Y04", 2, 1),
            ("a: [1, 2", "Y01", 1, 4),
            ("[a]: 1", "Y05", 1, 1),
        ] {
            let (_, flaws) = parse(text);
            let flaw = flaws.first().unwrap_or_else(|| panic!("{text} has a flaw"));
            assert_eq!((flaw.code, flaw.span.line, flaw.span.column), (code, line, column), "{text}: {flaw:?}");
        }
    }

    #[test]
    fn depth_and_size_are_bounded() {
        let deep = format!("{}1{}", "[".repeat(40), "]".repeat(40));
        assert_eq!(parse(&deep).1[0].code, "Y04");
        assert!(!parse(&"[".repeat(100_000)).1.is_empty());
        assert_eq!(parse(&" ".repeat(TEXT_MAX + 1)).1[0].code, "Y04");
    }

    #[test]
    fn only_plain_scalars_mean_more_than_their_letters() {
        let meaning = |text: &str, plain| match (Scalar { text: text.into(), plain }).meaning() {
            Meaning::Null => "null".to_owned(),
            Meaning::Bool(value) => format!("bool {value}"),
            Meaning::Number(value) => format!("number {value}"),
            Meaning::Text(text) => format!("text {text}"),
        };
        assert_eq!(meaning("true", true), "bool true");
        assert_eq!(meaning("true", false), "text true");
        assert_eq!(meaning("yes", true), "text yes");
        assert_eq!(meaning("-1.5e3", true), "number -1500");
        assert_eq!(meaning("500", false), "text 500");
        assert_eq!(meaning("inf", true), "text inf");
        assert_eq!(meaning("1.2.3", true), "text 1.2.3");
        assert_eq!(meaning("", true), "null");
    }

    proptest::proptest! {
        #[test]
        fn any_text_gives_a_tree_or_flaws_inside_it(text in "[ -~\n\r\té支\u{a0}：\"'\\[\\]{}:,#&*!|>-]{0,200}") {
            let (_, flaws) = parse(&text);
            for flaw in flaws {
                proptest::prop_assert!(text.get(flaw.span.start..flaw.span.end).is_some(), "{flaw:?}");
                proptest::prop_assert!(flaw.code != "Y01" || !flaw.help.is_empty(), "{flaw:?}");
            }
        }
    }
}
