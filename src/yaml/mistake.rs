//! Recognises the usual mistakes behind a syntax error by the lines where reading stopped, and says what to
//! write. It names keys only: a value may be a secret.

use std::ops::Range;

/// A place in one line, and what is wrong there.
pub(super) struct Mistake {
    /// From 1.
    pub line: usize,
    /// Bytes of the line.
    pub bytes: Range<usize>,
    pub title: String,
    pub label: &'static str,
    pub help: String,
}

/// Where the parser stopped, and what it said.
struct StopPoint<'t> {
    lines: Vec<&'t str>,
    /// From 0.
    line: usize,
    /// Bytes of the line.
    at: usize,
    reason: &'t str,
}

/// What the parser's reason is about, where no line gives more away: part of the reason, title, help.
const REASONS: &[(&str, &str, &str)] = &[
    ("escape", "a backslash in double quotes begins an escape", "use single quotes, or write `\\\\` for a backslash"),
    (
        "trailing content",
        "something follows a closing quote",
        "put the whole value in one pair of quotes; inside `'…'` write `''` for a quote",
    ),
    ("quoted scalar", "a quote is not closed", "end the text with the quote that it begins with, on the same line"),
    ("block scalar", "a text that begins with `>` or `|` needs quotes", "put the value in quotes"),
    ("misplaced bracket", "there is a bracket too many", "remove it, or open it before"),
    ("only valid inside a block", "in brackets no item begins with `-`", "separate items by commas: `[a, b]`"),
    ("expected '-' indicator", "this line does not line up with those above", "indent it like the keys of its item"),
    ("block mapping", "this line does not line up with those above", "indent it like the keys beside it"),
    (
        "mapping values",
        "a `: ` is not expected here",
        "indent it like the keys beside it, or quote a text with `: ` in it",
    ),
    ("simple key", "a line before this one is no `key: value`", "write `key: value`, with a colon and a space"),
];

/// What went wrong where the parser stopped: `line` from 1, `at` in bytes.
pub(super) fn recognise(text: &str, line: usize, at: usize, reason: &str) -> Mistake {
    let lines: Vec<&str> = text.split('\n').map(|line| line.trim_end_matches('\r')).collect();
    let stop = StopPoint { line: (line - 1).min(lines.len() - 1), lines, at, reason };
    let recognisers: [fn(&StopPoint<'_>) -> Option<Mistake>; 8] =
        [tab, odd_blank, wide_colon, reserved_start, second_colon, missing_blank, too_deep, open_bracket];
    recognisers.iter().find_map(|recognise| recognise(&stop)).unwrap_or_else(|| by_reason(&stop))
}

impl StopPoint<'_> {
    /// The line of the stop, and the one before it that says something: a mistake shows there at the latest.
    fn near(&self) -> impl Iterator<Item = usize> {
        let says_something = |line: &usize| !matches!(self.lines[*line].trim_start().chars().next(), None | Some('#'));
        [self.line].into_iter().chain((0..self.line).rev().find(says_something))
    }

    fn mistake(&self, line: usize, bytes: Range<usize>, title: &str, label: &'static str, help: &str) -> Mistake {
        Mistake { line: line + 1, bytes, title: title.to_owned(), label, help: help.to_owned() }
    }

    /// The character that begins there.
    fn character(&self, line: usize, at: usize) -> Range<usize> {
        let found = self.lines[line].get(at..).and_then(|rest| rest.chars().next());
        at..at + found.map_or(1, char::len_utf8)
    }

    /// Where one of the near lines has such a character outside a comment.
    fn find(&self, wanted: fn(char) -> bool) -> Option<(usize, Range<usize>)> {
        self.near().find_map(|line| {
            let (at, found) = without_comment(self.lines[line]).char_indices().find(|(_, c)| wanted(*c))?;
            Some((line, at..at + found.len_utf8()))
        })
    }
}

/// Looks like a blank and is none for YAML.
pub(super) fn is_odd_blank(c: char) -> bool {
    matches!(c, '\u{a0}' | '\u{2000}'..='\u{200b}' | '\u{202f}' | '\u{205f}' | '\u{3000}' | '\u{feff}')
}

pub(super) const ODD_BLANK: [&str; 3] =
    ["a character looks like a space, and is none", "a non-breaking or wide space", "replace it by a usual space"];

fn tab(stop: &StopPoint<'_>) -> Option<Mistake> {
    let lines = stop.line.saturating_sub(1)..(stop.line + 2).min(stop.lines.len());
    let (line, at) = lines.into_iter().find_map(|line| {
        let text = stop.lines[line];
        let indent = &text[..text.len() - text.trim_start().len()];
        Some((line, indent.find('\t')?))
    })?;
    Some(stop.mistake(line, at..at + 1, "a tab cannot indent a line", "a tab", "indent with spaces"))
}

fn odd_blank(stop: &StopPoint<'_>) -> Option<Mistake> {
    let (line, bytes) = stop.find(is_odd_blank)?;
    let [title, label, help] = ODD_BLANK;
    Some(stop.mistake(line, bytes, title, label, help))
}

fn wide_colon(stop: &StopPoint<'_>) -> Option<Mistake> {
    let (line, bytes) = stop.find(|c| c == '：')?;
    Some(stop.mistake(line, bytes, "`：` is no colon for YAML", "a wide colon", "write `:` and a space"))
}

fn reserved_start(stop: &StopPoint<'_>) -> Option<Mistake> {
    let first = stop.lines[stop.line].get(stop.at..)?.chars().next()?;
    let looks_like = match first {
        '*' => "looks like an alias",
        '&' => "looks like an anchor",
        '!' => "looks like a tag",
        '@' | '`' | '%' => "a reserved character",
        _ => return None,
    };
    let title = format!("a text that begins with `{first}` needs quotes");
    Some(stop.mistake(stop.line, stop.at..stop.at + 1, &title, looks_like, &format!("write `\"{first}…\"`")))
}

fn second_colon(stop: &StopPoint<'_>) -> Option<Mistake> {
    let line = stop.lines[stop.line];
    let colons = colons(line);
    let (&[first, second, ..], Some(key)) = (colons.as_slice(), key_of(line)) else { return None };
    let help = format!("put the value in quotes: `{key}: \"…\"`");
    let is_value = first < second && stop.reason.contains("mapping values");
    is_value.then(|| {
        stop.mistake(stop.line, second..second + 1, "a value has a `: ` in it", "the second in this line", &help)
    })
}

/// `keep:all` and `-name: a`.
fn missing_blank(stop: &StopPoint<'_>) -> Option<Mistake> {
    stop.near().find_map(|number| {
        let line = stop.lines[number];
        let start = line.len() - line.trim_start().len();
        let after_dash =
            line[start..].strip_prefix('-').is_some_and(|rest| rest.starts_with(|c: char| c.is_alphabetic()));
        if after_dash && !colons(line).is_empty() {
            let help = "write `- ` before the first key of an item";
            return Some(stop.mistake(
                number,
                start..start + 1,
                "a space is missing after `-`",
                "no space follows",
                help,
            ));
        }
        let key = glued_key(line.trim_start_matches([' ', '-']))?;
        let at = line.find(key)? + key.len();
        let help = format!("write `{key}: …`");
        Some(stop.mistake(number, at..at + 1, "a space is missing after `:`", "no space follows", &help))
    })
}

/// The key of `keep:all`: a word, and a colon that no blank follows.
pub fn glued_key(text: &str) -> Option<&str> {
    let (key, value) = text.split_once(':')?;
    let is_word = key.starts_with(|c: char| c.is_ascii_alphabetic())
        && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.'));
    let is_glued = !value.is_empty() && !value.starts_with([' ', '\t', '/', ':']);
    (is_word && is_glued && colons(text).is_empty()).then_some(key)
}

fn too_deep(stop: &StopPoint<'_>) -> Option<Mistake> {
    let above = stop.near().nth(1)?;
    let column = |line: &str| line.len() - line.trim_start_matches([' ', '-']).len();
    let (here, there) = (column(stop.lines[stop.line]), column(stop.lines[above]));
    let has_value = !stop.lines[above].trim_end().ends_with(':');
    let key = key_of(stop.lines[above])?;
    let is_too_deep = here > there && has_value && stop.reason.contains("mapping values");
    is_too_deep.then(|| {
        let help = format!("let it begin below `{key}`, or give `{key}` no value of its own");
        let title = format!("this line is deeper than `{key}` above, which has a value already");
        stop.mistake(stop.line, stop.character(stop.line, here), &title, "too deep", &help)
    })
}

/// The last bracket that is still open where the parser stopped.
fn open_bracket(stop: &StopPoint<'_>) -> Option<Mistake> {
    if !stop.reason.contains("flow") {
        return None;
    }
    let mut open: Vec<(usize, usize, char)> = Vec::new();
    for (number, line) in stop.lines[..=stop.line].iter().enumerate() {
        let end = if number == stop.line { stop.at.min(line.len()) } else { line.len() };
        for (at, c) in bare(line).filter(|(at, _)| *at < end) {
            match c {
                '[' => open.push((number, at, ']')),
                '{' => open.push((number, at, '}')),
                ']' | '}' => drop(open.pop()),
                _ => {}
            }
        }
    }
    let (line, at, close) = open.pop()?;
    let title = format!("a bracket is not closed with `{close}`, or a comma is missing");
    let help = format!("write `{close}` where it ends, `, ` between its parts, and quote a text with brackets in it");
    Some(stop.mistake(line, at..at + 1, &title, "opened here", &help))
}

fn by_reason(stop: &StopPoint<'_>) -> Mistake {
    let at = stop.character(stop.line, stop.at);
    match REASONS.iter().find(|(part, ..)| stop.reason.contains(part)) {
        Some((_, title, help)) => stop.mistake(stop.line, at, title, "the reading stops here", help),
        None => {
            let help = "look at this line and the one before: a quote, a bracket, a `: ` or a space may be missing";
            stop.mistake(stop.line, at, &format!("this is not YAML: {}", stop.reason), "the reading stops here", help)
        }
    }
}

/// The characters outside quotes, up to a comment.
fn bare(line: &str) -> impl Iterator<Item = (usize, char)> {
    let mut quote = None;
    without_comment(line).char_indices().filter(move |(_, c)| match quote {
        Some(open) if open == *c => {
            quote = None;
            false
        }
        Some(_) => false,
        None if matches!(c, '"' | '\'') => {
            quote = Some(*c);
            false
        }
        None => true,
    })
}

/// A line up to its comment: a `#` in quotes begins none.
pub fn without_comment(line: &str) -> &str {
    let (mut quote, mut before) = (None, ' ');
    for (at, c) in line.char_indices() {
        match quote {
            Some(open) if open == c => quote = None,
            Some(_) => {}
            None if c == '#' && before.is_whitespace() => return &line[..at],
            // In a word it is an apostrophe.
            None if matches!(c, '"' | '\'') && !before.is_alphanumeric() => quote = Some(c),
            None => {}
        }
        before = c;
    }
    line
}

/// Where colons stand that end a key, outside quotes and brackets.
fn colons(line: &str) -> Vec<usize> {
    let mut depth = 0u32;
    let outside = bare(line).filter(|(_, c)| {
        depth = match c {
            '[' | '{' => depth + 1,
            ']' | '}' => depth.saturating_sub(1),
            _ => depth,
        };
        depth == 0
    });
    let ends_key = |at: usize| line[at + 1..].chars().next().is_none_or(char::is_whitespace);
    outside.filter(|(at, c)| *c == ':' && ends_key(*at)).map(|(at, _)| at).collect()
}

/// The first key of a line.
fn key_of(line: &str) -> Option<&str> {
    let end = *colons(line).first()?;
    Some(line[..end].trim_start_matches([' ', '-']))
}
