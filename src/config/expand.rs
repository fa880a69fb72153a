//! `${env:NAME}` and `${file:PATH}` in values.
//!
//! What they stand for may be a secret, so no diagnostic shows it: a problem with such a value is told with the
//! words that the file has.

use crate::diagnostic::{Diagnostic, Span};
use crate::secret::{FileText, Secret, read_secret};
use crate::yaml::{Node, Reader, Value};
use std::path::Path;

/// Stand for `{` and `}` while YAML is read: in `{ token: ${env:TOKEN} }` they would be braces of YAML.
/// Control characters are not part of any YAML text, and one byte long like what they stand for.
pub(super) const OPEN: char = '\u{1}';
const CLOSE: char = '\u{2}';

/// Looks up an environment variable.
pub(super) type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Where it is looked up what `${…}` stands for.
#[derive(Clone, Copy)]
pub(super) struct Sources<'a> {
    pub variables: Variables<'a>,
    /// That of the file: relative paths begin here.
    pub folder: &'a Path,
}

impl Sources<'_> {
    /// What one `${…}` stands for.
    fn look_up(&self, written: &str) -> Result<String, ExpansionProblem> {
        let form = || ExpansionProblem::Form { written: written.to_owned() };
        let inner = written.strip_prefix("${").and_then(|inner| inner.strip_suffix('}')).ok_or_else(form)?;
        match inner.split_once(':') {
            Some(("env", name)) if is_name(name) => {
                (self.variables)(name).ok_or_else(|| ExpansionProblem::Unset { name: name.to_owned() })
            }
            Some(("file", path)) if !path.is_empty() => match read_secret(&self.folder.join(path)) {
                Ok(secret) => Ok(secret.expose().to_owned()),
                Err(why) => Err(ExpansionProblem::File { path: path.to_owned(), why }),
            },
            _ => Err(form()),
        }
    }
}

/// A value that `${…}` is part of.
#[derive(Clone)]
pub(super) struct Substituted {
    pub span: Span,
    /// As the file has it.
    pub written: String,
    pub value: Secret,
}

impl Substituted {
    /// The one file that the value is made of, with the text around it.
    pub fn file(&self, folder: &Path) -> Option<FileText> {
        let (before, rest) = self.written.split_once("${file:")?;
        let (path, after) = rest.split_once('}')?;
        let is_more = before.contains("${") || after.contains("${");
        let text = |text: &str| Secret::new(text);
        (!is_more).then(|| FileText { before: text(before), file: folder.join(path), after: text(after) })
    }

    /// Of what an error speaks.
    fn holder(&self) -> &'static str {
        if self.written.contains("${file:") { "file" } else { "variable" }
    }
}

/// Makes `${…}` survive the YAML parser.
pub(super) fn protect(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let is_inner = |c: char| c.is_ascii_alphanumeric() || "_:.-/".contains(c);
        let inner = from[2..].trim_start_matches(is_inner);
        let inner = &from[2..from.len() - inner.len()];
        match from[2 + inner.len()..].strip_prefix('}') {
            Some(after) => {
                out.extend(['$', OPEN]);
                out.push_str(inner);
                out.push(CLOSE);
                rest = after;
            }
            None => {
                out.push_str("${");
                rest = &from[2..];
            }
        }
    }
    out + rest
}

fn unprotect(text: &str) -> String {
    text.replace(OPEN, "{").replace(CLOSE, "}")
}

/// Puts in what `${…}` stands for, everywhere in the tree. A value that lacks it becomes [`Value::Refused`].
pub(super) fn expand(reader: &mut Reader, node: &mut Node, sources: Sources<'_>, out: &mut Vec<Substituted>) {
    match &mut node.value {
        Value::Refused => {}
        Value::List(items) => items.iter_mut().for_each(|item| expand(reader, item, sources, out)),
        Value::Map(entries) => {
            for entry in entries {
                entry.key = unprotect(&entry.key);
                expand(reader, &mut entry.value, sources, out);
            }
        }
        Value::Scalar(scalar) => {
            scalar.text = unprotect(&scalar.text);
            match substitute(&scalar.text, sources) {
                Ok((text, is_substituted)) => {
                    let written = std::mem::replace(&mut scalar.text, text);
                    if is_substituted {
                        let value = Secret::new(scalar.text.as_str());
                        out.push(Substituted { span: node.span, written, value });
                    }
                }
                Err(problem) => {
                    problem.report(reader, node.span);
                    node.value = Value::Refused;
                }
            }
        }
    }
}

/// Why a text cannot be completed.
#[derive(Debug, PartialEq)]
enum ExpansionProblem {
    Unset { name: String },
    File { path: String, why: String },
    Form { written: String },
}

impl ExpansionProblem {
    fn report(self, reader: &mut Reader, span: Span) {
        match self {
            ExpansionProblem::Unset { name } => {
                let title = format!("the environment variable `{name}` is not set");
                reader.error("C01", span, title, "stands for nothing").help("set it before the process starts");
            }
            ExpansionProblem::File { path, why } => {
                let help = "write the path of a file with the text and nothing else, up to 64 KiB; a path is relative to the \
                    folder of this file";
                reader.error("C18", span, format!("the file `{path}` cannot be used"), why).help(help);
            }
            ExpansionProblem::Form { written } => {
                let inner = written.trim_start_matches("${").trim_end_matches('}');
                let name = inner.rsplit(':').next().filter(|name| is_name(name)).unwrap_or("NAME");
                let help = format!(
                    "write `${{env:{name}}}` for a variable, `${{file:/path}}` for what a file holds, or `${written}` for this \
                     text itself"
                );
                let title = format!("`{written}` is no variable");
                reader.error("C02", span, title, "not understood").help(help);
            }
        }
    }
}

fn is_name(text: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !text.is_empty() && text.chars().all(is_word) && !text.starts_with(|c: char| c.is_ascii_digit())
}

/// The text with all that `${…}` stands for put in, and whether there was any. `$${` is `${` itself.
fn substitute(text: &str, sources: Sources<'_>) -> Result<(String, bool), ExpansionProblem> {
    let mut out = String::new();
    let mut is_substituted = false;
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            out.extend([before, "${"]);
            rest = &from[2..];
            continue;
        }
        let end = from.find('}').map_or(from.len(), |end| end + 1);
        let (written, after) = from.split_at(end);
        out.extend([before, sources.look_up(written)?.as_str()]);
        is_substituted = true;
        rest = after;
    }
    Ok((out + rest, is_substituted))
}

/// Rewrites what is said of substituted values, so that none of it tells the value.
pub(super) fn conceal(diagnostics: &mut [Diagnostic], substituted: &[Substituted]) {
    for diagnostic in diagnostics {
        let Some(about) = substituted.iter().find(|s| s.span == diagnostic.span) else { continue };
        if about.value.is_empty() {
            diagnostic.title = format!("what `{}` stands for is empty", about.written);
            diagnostic.label = "nothing is in it".to_owned();
            diagnostic.help = Some("give the environment variable a value".to_owned());
            continue;
        }
        diagnostic.title = format!("what `{}` stands for cannot be used here", about.written);
        let tells = |text: &String| text.contains(about.value.expose());
        if diagnostic.help.as_ref().is_none_or(tells) {
            diagnostic.help = Some(format!("look at what the {} holds", about.holder()));
        }
        if tells(&diagnostic.label) {
            diagnostic.label = "holds something else".to_owned();
        }
    }
}

/// `message` without the values, for texts that others write about several values together.
pub(super) fn conceal_text(message: &str, substituted: &[Substituted]) -> String {
    substituted.iter().filter(|s| !s.value.is_empty()).fold(message.to_owned(), |message, s| {
        let quoted = s.value.expose().escape_debug().to_string();
        message.replace(s.value.expose(), &s.written).replace(&quoted, &s.written)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::Scalar;

    fn variables(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("h".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    fn sources() -> Sources<'static> {
        Sources { variables: &variables, folder: Path::new(env!("CARGO_MANIFEST_DIR")) }
    }

    #[test]
    fn variables_are_put_in_where_they_stand() {
        let substituted = |text: &str| substitute(text, sources());
        let good = |text: &str, has_variable| Ok((text.to_owned(), has_variable));
        assert_eq!(substituted("http://${env:HOST}:1/${env:EMPTY}x"), good("http://h:1/x", true));
        assert_eq!(substituted("a$b{c}"), good("a$b{c}", false));
        assert_eq!(substituted("$${env:HOST} $${"), good("${env:HOST} ${", false));
        assert_eq!(substituted("${env:NONE}"), Err(ExpansionProblem::Unset { name: "NONE".into() }));
        for wrong in
            ["${HOST}", "${env:}", "${env:A B}", "${env:HOST", "${file:}", "${file:x", "${fil:x}", "${}", "${env:1}"]
        {
            assert_eq!(substituted(wrong), Err(ExpansionProblem::Form { written: wrong.into() }), "{wrong}");
        }
    }

    #[test]
    fn files_are_put_in_and_what_they_hold_is_text_alone() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "a${env:HOST}: #\n").unwrap();
        let substituted = |text: &str| substitute(text, Sources { folder: folder.path(), ..sources() });
        assert_eq!(substituted("Bearer ${file:token}").unwrap().0, "Bearer a${env:HOST}: #");
        let whole = format!("${{file:{}/token}}", folder.path().display());
        assert_eq!(substituted(&whole).unwrap().0, "a${env:HOST}: #");
        let Err(ExpansionProblem::File { path, .. }) = substituted("${file:no}") else {
            panic!("there is no such file")
        };
        assert_eq!(path, "no");
    }

    #[test]
    fn a_value_that_one_file_is_part_of_is_known_as_such() {
        for (written, parts) in [
            ("${file:/run/token}", Some(["", "/run/token", ""])),
            ("Bearer ${file:token}", Some(["Bearer ", "/etc/token", ""])),
            ("${file:a}:b ", Some(["", "/etc/a", ":b "])),
            ("${file:a}${file:b}", None),
            ("${env:A} ${file:b}", None),
            ("$${ ${file:b}", None),
            ("${env:A}", None),
        ] {
            let value = Substituted { span: Span::default(), written: written.into(), value: Secret::default() };
            let found = value.file(Path::new("/etc"));
            let wanted = parts.map(|[before, file, after]| FileText {
                before: Secret::new(before),
                file: file.into(),
                after: Secret::new(after),
            });
            assert_eq!(found, wanted, "{written}");
        }
    }

    #[test]
    fn braces_of_variables_are_none_of_yaml() {
        let text = "é: { a: ${env:HOST}, b: \"${env:HOST}\", c: [x${env:HOST}y] }\nd: $${env:HOST}\n";
        let protected = protect(text);
        assert_eq!(protected.len(), text.len());
        let mut reader = Reader::new("f");
        let mut root = reader.parse(&protected).expect("a tree");
        let mut substituted = Vec::new();
        expand(&mut reader, &mut root, sources(), &mut substituted);
        assert_eq!(reader.finish(), []);
        let written: Vec<&str> = substituted.iter().map(|s| s.written.as_str()).collect();
        assert_eq!(written, ["${env:HOST}", "${env:HOST}", "x${env:HOST}y"]);
        assert_eq!(&text[substituted[2].span.start..substituted[2].span.end], "x${env:HOST}y");
        let Value::Map(entries) = root.value else { panic!("a map") };
        assert_eq!(entries[1].value.value, Value::Scalar(Scalar { text: "${env:HOST}".into(), plain: true }));
    }

    #[test]
    fn messages_lose_the_value_however_it_is_quoted() {
        let substituted = Substituted { span: Span::default(), written: "${env:A}".into(), value: Secret::new("a\"b") };
        assert_eq!(conceal_text("x a\"b y \"a\\\"b\"", &[substituted]), "x ${env:A} y \"${env:A}\"");
    }
}
