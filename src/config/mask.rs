//! The file as it may be shown around carets: what may be a secret becomes `*`.

use super::expand::{OPEN, protect};
use super::sections;
use crate::diagnostic::Span;
use crate::yaml::{Entry, Node, Scalar, Value, glued_key, parse};

/// Keys whose values are secrets, wherever they stand.
const SECRET_KEYS: &[&str] = &["token", "access_key_secret", "security_token", "headers"];
/// What speaks of secrets in a line that belongs to no tree.
const SECRET_WORDS: &[&str] = &["token", "secret", "key", "licen", "header", "auth", "url", "adapt_", "pass"];

/// The text without secrets that it holds itself, nor values of keys that nobody knows: a misspelt key may
/// have one.
pub fn drawable(text: &str) -> String {
    let (root, flaws) = parse(&protect(text));
    let mut spans = Vec::new();
    if let Some(root) = &root {
        let sections = sections();
        Finder { sections: &sections, spans: &mut spans }.find(root, "", false);
    }
    let mut out = text.to_owned();
    // From the end, because the stars of a wide character are shorter than itself.
    spans.sort_by_key(|span: &Span| std::cmp::Reverse(span.start));
    for span in spans {
        let stars = "*".repeat(text[span.start..span.end].chars().count());
        out.replace_range(span.start..span.end, &stars);
    }
    // What is wrong with the YAML may keep values out of the tree.
    if flaws.is_empty() { out } else { mask_lines(&out) }
}

type Sections = [(&'static str, Vec<&'static str>)];

struct Finder<'a> {
    sections: &'a Sections,
    spans: &'a mut Vec<Span>,
}

impl Finder<'_> {
    /// `section`: the keys on the way to the node. `hidden`: all below is secret.
    fn find(&mut self, node: &Node, section: &str, hidden: bool) {
        match &node.value {
            Value::Refused => {}
            Value::List(items) => items.iter().for_each(|item| self.find(item, section, hidden)),
            Value::Map(entries) => {
                let known = self.sections.iter().find(|(known, _)| *known == section).map(|(_, keys)| keys.as_slice());
                entries.iter().for_each(|entry| self.find_below(entry, section, known, hidden));
            }
            Value::Scalar(Scalar { text, .. }) => {
                // What should be a section may be anything.
                let is_section = self.sections.iter().any(|(known, _)| *known == section);
                let may_hold_any = section == "admin" && text != "off" || section.starts_with("sinks.");
                let is_misplaced = is_section && (may_hold_any || glued_key(text).is_some());
                if (hidden || is_misplaced || text.contains("adapt_")) && !text.is_empty() && !text.contains(OPEN) {
                    self.spans.push(node.span);
                }
            }
        }
    }

    fn find_below(&mut self, entry: &Entry, section: &str, known: Option<&[&str]>, hidden: bool) {
        let key = entry.key.as_str();
        let is_unknown = known.is_some_and(|known| !known.contains(&key));
        if let (true, Some(word)) = (is_unknown, glued_key(key)) {
            let Span { start, end, .. } = entry.key_span;
            self.spans.push(Span { start: (start + word.len() + 1).min(end), ..entry.key_span });
        }
        let below = match (section, key) {
            ("", key) => key.to_owned(),
            // The base of an `auth` is another one.
            (section, "base") => section.to_owned(),
            (section, key) => format!("{section}.{key}"),
        };
        // ARMS has tokens in its URLs.
        let is_secret = SECRET_KEYS.contains(&key)
            || ["sinks.arms.urls", "sinks.arms.license.key"].contains(&below.as_str())
            || is_unknown;
        self.find(&entry.value, &below, hidden || is_secret);
    }
}

/// Masks by line what may be a secret, with all that is indented below.
fn mask_lines(text: &str) -> String {
    let sections = sections();
    let mut hidden_below = None;
    let mask_line = |line: &str| {
        let indent = line.len() - line.trim_start().len();
        let is_below = hidden_below.is_some_and(|hidden| indent > hidden);
        if !is_below {
            hidden_below = may_hold_secret(line, &sections).then_some(indent);
        }
        if hidden_below.is_none() {
            return line.to_owned();
        }
        let value = line.find(':').map_or(if is_below { 0 } else { line.len() }, |colon| colon + 1);
        line[..value].to_owned() + &mask_words(&line[value..], &sections)
    };
    text.split('\n').map(mask_line).collect::<Vec<String>>().join("\n")
}

/// Leaves what YAML is made of, and keys.
fn mask_words(text: &str, sections: &Sections) -> String {
    let is_structure = |c: char| c.is_whitespace() || "{}[]:,\"'#".contains(c);
    let mask = |piece: &str| {
        let word = piece.trim_end_matches(is_structure);
        let rest = &piece[word.len()..];
        let is_key = rest.starts_with(':') && sections.iter().any(|(_, keys)| keys.contains(&word));
        if is_key { piece.to_owned() } else { "*".repeat(word.chars().count()) + rest }
    };
    text.split_inclusive(is_structure).map(mask).collect()
}

fn may_hold_secret(line: &str, sections: &Sections) -> bool {
    let lower = line.to_ascii_lowercase();
    let bare = line.trim_start_matches([' ', '\t', '-']);
    let key = bare.split(':').next().unwrap_or_default().trim();
    let is_known = sections.iter().any(|(_, keys)| keys.contains(&key));
    let has_key = bare.contains(':') && !bare.starts_with('#');
    SECRET_WORDS.iter().any(|word| lower.contains(word)) || has_key && (!is_known || glued_key(bare).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_in_the_text_are_not_drawn() {
        let arms = |inner: &str| format!("sinks:\n  - arms: {{ {inner} }}\n");
        for (text, want) in [
            ("token: päss, headers: { x: y }", "token: ****, headers: { x: * }"),
            ("license: { key: [k], project: p }", "license: { key: [*], project: p }"),
            ("license: abc", "license: ***"),
            ("token: ${env:T}, protocol: grpc", "token: ${env:T}, protocol: grpc"),
            ("endpoint: http://h/adapt_x", "endpoint: ****************"),
            ("urls: { traces: http://h/x }", "urls: { traces: ********** }"),
            ("tokn: abc, tooken: { a: [b] }", "tokn: ***, tooken: { a: [*] }"),
            ("token:abc, protocol: http", "token:***, protocol: http"),
        ] {
            assert_eq!(drawable(&arms(text)), arms(want));
        }
        assert_eq!(
            drawable("sinks: [{ arms: abc }]\nadmin:\n  token:abc\n"),
            "sinks: [{ arms: *** }]\nadmin:\n  *********\n"
        );
    }

    #[test]
    fn secrets_in_what_is_no_tree_are_not_drawn() {
        for (text, want) in [
            ("a: [token: x", "a: [token: *"),
            ("admin:\n  tokn:abc\n  listen: 127.0.0.1:1\n", "admin:\n  tokn:***\n  listen: 127.0.0.1:1\n"),
            ("headers:\n  x: abc: d\nmemory: 1MiB\n", "headers:\n  x: ***: *\nmemory: 1MiB\n"),
            ("admin: { token: a }\nadmin: { token: b }\n", "admin: { token: * }\nadmin: { token: * }\n"),
            ("admin: { token: &abc }\n", "admin: { token: **** }\n"),
        ] {
            assert_eq!(drawable(text), want);
        }
    }
}
