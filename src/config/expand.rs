//! `${env:NAME}` in values.
//!
//! What a variable stands for may be a secret, so no diagnostic shows it: a problem with such a value is
//! told with the words that the file has.

use crate::diagnostic::{Diagnostic, Span};
use crate::identity::Secret;
use crate::yaml::{Node, Reader, Value};

/// Stand for `{` and `}` while YAML is read: in `{ token: ${env:TOKEN} }` they would be braces of YAML.
/// Control characters are not part of any YAML text, and one byte long like what they stand for.
pub(super) const OPEN: char = '\u{1}';
const CLOSE: char = '\u{2}';

/// Looks up an environment variable.
pub(super) type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A value that a variable is part of.
#[derive(Clone)]
pub(super) struct Substituted {
    pub span: Span,
    /// As the file has it.
    pub written: String,
    pub value: Secret,
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

/// Puts variables in, everywhere in the tree. A value without its variable becomes [`Value::Refused`].
pub(super) fn expand(reader: &mut Reader, node: &mut Node, variables: Variables<'_>, out: &mut Vec<Substituted>) {
    match &mut node.value {
        Value::Refused => {}
        Value::List(items) => items.iter_mut().for_each(|item| expand(reader, item, variables, out)),
        Value::Map(entries) => {
            for entry in entries {
                entry.key = unprotect(&entry.key);
                expand(reader, &mut entry.value, variables, out);
            }
        }
        Value::Scalar(scalar) => {
            scalar.text = unprotect(&scalar.text);
            match substitute(&scalar.text, variables) {
                Ok((text, has_variable)) => {
                    let written = std::mem::replace(&mut scalar.text, text);
                    if has_variable {
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

/// Why variables cannot be put into a text.
#[derive(Debug, PartialEq)]
enum Problem {
    Unset { name: String },
    Form { written: String },
}

impl Problem {
    fn report(self, reader: &mut Reader, span: Span) {
        match self {
            Problem::Unset { name } => {
                let title = format!("the environment variable `{name}` is not set");
                reader.error("C01", span, title, "stands for nothing").help("set it before the process starts");
            }
            Problem::Form { written } => {
                let inner = written.trim_start_matches("${").trim_end_matches('}');
                let name = inner.rsplit(':').next().filter(|name| is_name(name)).unwrap_or("NAME");
                let help = format!("write `${{env:{name}}}` for a variable, or `${written}` for this text itself");
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

/// The text with variables put in, and whether there were any. `$${` is `${` itself.
fn substitute(text: &str, variables: Variables<'_>) -> Result<(String, bool), Problem> {
    let mut out = String::new();
    let mut has_variable = false;
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
        let name = written.strip_prefix("${env:").and_then(|name| name.strip_suffix('}'));
        let Some(name) = name.filter(|name| is_name(name)) else {
            return Err(Problem::Form { written: written.to_owned() });
        };
        let value = variables(name).ok_or_else(|| Problem::Unset { name: name.to_owned() })?;
        out.extend([before, value.as_str()]);
        has_variable = true;
        rest = after;
    }
    Ok((out + rest, has_variable))
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
            diagnostic.help = Some("look at what the variable holds".to_owned());
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

    #[test]
    fn variables_are_put_in_where_they_stand() {
        let substituted = |text: &str| substitute(text, &variables);
        let good = |text: &str, has_variable| Ok((text.to_owned(), has_variable));
        assert_eq!(substituted("http://${env:HOST}:1/${env:EMPTY}x"), good("http://h:1/x", true));
        assert_eq!(substituted("a$b{c}"), good("a$b{c}", false));
        assert_eq!(substituted("$${env:HOST} $${"), good("${env:HOST} ${", false));
        assert_eq!(substituted("${env:NONE}"), Err(Problem::Unset { name: "NONE".into() }));
        for wrong in ["${HOST}", "${env:}", "${env:A B}", "${env:HOST", "${file:/x}", "${}", "${env:1}"] {
            assert_eq!(substituted(wrong), Err(Problem::Form { written: wrong.into() }), "{wrong}");
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
        expand(&mut reader, &mut root, &variables, &mut substituted);
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
