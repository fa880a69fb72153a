//! The file as it may be shown around carets: what may be a secret becomes `*`.

use super::expand::{OPEN, protect};
use super::sections;
use crate::diagnostic::Span;
use crate::yaml::{MappingEntry, Node, Scalar, Value, glued_key, parse, without_comment};

/// Keys whose values are secrets, wherever they stand.
const SECRET_KEYS: &[&str] =
    &["token", "access_key_secret", "security_token", "headers", "bearer", "password", "hash_key"];

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
    let out = if flaws.is_empty() { out } else { mask_words(&out) };
    // A comment may hold anything.
    out.split('\n').map(without_comment).collect::<Vec<&str>>().join("\n")
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
                let may_hold_any = section == "admin" && text != "off"
                    || ["sinks.", "receive.auth"].iter().any(|place| section.starts_with(place));
                let is_misplaced = is_section && (may_hold_any || glued_key(text).is_some());
                let is_secret = hidden || is_misplaced || is_url_with_secret(text, section);
                if is_secret && !text.is_empty() && !text.contains(OPEN) {
                    self.spans.push(node.span);
                }
            }
        }
    }

    fn find_below(&mut self, entry: &MappingEntry, section: &str, known: Option<&[&str]>, hidden: bool) {
        let key = entry.key.as_str();
        let is_unknown = known.is_some_and(|known| !known.contains(&key));
        let word = entry.word(known.unwrap_or_default()).len();
        let Span { start, end, .. } = entry.key_span;
        if (is_unknown || known.is_none()) && word < key.len() && start + word < end {
            self.spans.push(Span { start: start + word, ..entry.key_span });
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

/// Passwords and tokens stand in URLs too; those of ARMS may have one anywhere in the path.
fn is_url_with_secret(text: &str, section: &str) -> bool {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    let is_url = rest.len() < text.len();
    text.contains("adapt_")
        || is_url && rest.contains(['@', '?'])
        || section == "sinks.arms.endpoint" && rest.trim_end_matches('/').contains('/')
}

/// Leaves known keys and what YAML is made of: in what is no tree, a value can be anywhere.
fn mask_words(text: &str) -> String {
    let sections = sections();
    let is_of_word = |c: char| c.is_alphanumeric() || "-_./+=~$".contains(c);
    let mask = |piece: &str| {
        let rest = piece.trim_start_matches(is_of_word);
        let word = &piece[..piece.len() - rest.len()];
        let is_key = rest.starts_with(':') && sections.iter().any(|(_, keys)| keys.contains(&word));
        match is_key || !word.contains(char::is_alphanumeric) {
            true => piece.to_owned(),
            false => "*".repeat(word.chars().count()) + rest,
        }
    };
    text.split_inclusive(|c| !is_of_word(c)).map(mask).collect()
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
            ("endpoint: http://h:8090/", "endpoint: http://h:8090/"),
            ("endpoint: h/x", "endpoint: ***"),
            ("connect_to: http://u:p@h", "connect_to: ************"),
            ("urls: { traces: http://h/x }", "urls: { traces: ********** }"),
            ("tokn: abc, tooken: { a: [b] }", "tokn: ***, tooken: { a: [*] }"),
            ("headers: { abc }, abc", "headers: { *** }, ***"),
            ("token:abc, protocol: http", "token****, protocol: http"),
        ] {
            assert_eq!(drawable(&arms(text)), arms(want));
        }
        let otlp = |endpoint: &str| format!("sinks:\n  - otlp: {{ endpoint: \"{endpoint}\" }}\n");
        for (text, want) in
            [("http://u:p@h", "**************"), ("http://h/?t=x", "***************"), ("http://h/x", "http://h/x")]
        {
            let want = otlp(want).replace("\"*", "*").replace("*\"", "*");
            assert_eq!(drawable(&otlp(text)), want);
        }
        assert_eq!(drawable("instance: \"x #y\" # token: abc"), "instance: \"x #y\" ");
        assert_eq!(
            drawable("sinks: [{ arms: abc }]\nadmin:\n  token:abc\n"),
            "sinks: [{ arms: *** }]\nadmin:\n  *********\n"
        );
    }

    #[test]
    fn secrets_in_what_is_no_tree_are_not_drawn() {
        for (text, want) in [
            ("sinks: [token: x", "sinks: [token: *"),
            ("admin:\n  tokn:abc\n  listen: 127.0.0.1:1\n", "admin:\n  ****:***\n  listen: *********:*\n"),
            ("- name: [\"é: *x", "- name: [\"*: **"),
            ("admin: { token: a }\nadmin: { token: b }\n", "admin: { token: * }\nadmin: { token: * }\n"),
            ("admin: { token: &abc }\n", "admin: { token: &*** }\n"),
        ] {
            assert_eq!(drawable(text), want);
        }
    }
}
