//! Conditions of the OpenTelemetry Transformation Language in their common forms: comparisons of a span's name, kind,
//! status, duration and attributes and of its resource's, `IsMatch`, `and`, `or` and parentheses.
//!
//! What denies (`!=`, `not`) mostly has no like: it asks for a span that is *not* so, and a policy for a trace without one
//! that is.

use super::condition::{ConditionDraft, ConditionField, SpanTest};
use super::source::Obstacle;
use crate::policy::text;
use crate::trace::question::Range;
use crate::trace::{SpanKind, Status};

/// Alternatives, one of which holds for a trace.
pub(super) struct Conditions {
    pub atoms: Vec<ConditionDraft>,
    /// The attributes that they name.
    pub keys: Vec<String>,
}

/// The lists `span` and `spanevent` of a policy.
pub(super) fn read(span: &[&str], events: &[&str]) -> Result<Conditions, Obstacle> {
    if span.is_empty() && events.is_empty() {
        return Err("it has no condition".to_owned());
    }
    let mut conditions = Conditions { atoms: Vec::new(), keys: Vec::new() };
    for (text, context) in
        span.iter().map(|text| (text, Context::Span)).chain(events.iter().map(|text| (text, Context::Event)))
    {
        let mut parser = Parser { tokens: tokens(text)?, at: 0, context };
        let said = |reason: Obstacle| format!("`{text}`: {reason}");
        let alternatives = parser.either().map_err(said)?;
        parser.end().map_err(said)?;
        for tests in alternatives {
            let tests = joined(tests).map_err(said)?;
            conditions.keys.extend(tests.iter().filter_map(|test| match &test.field {
                ConditionField::Attribute(key) | ConditionField::Resource(key) => Some(key.clone()),
                _ => None,
            }));
            conditions.atoms.push(ConditionDraft::AnySpan(tests));
        }
    }
    Ok(conditions)
}

#[derive(Clone, Copy, PartialEq)]
enum Context {
    Span,
    Event,
}

#[derive(Clone, PartialEq, Debug)]
enum Token {
    Word(String),
    Text(String),
    Number(f64),
    Sign(&'static str),
}

const SIGNS: &[&str] = &["==", "!=", ">=", "<=", ">", "<", "(", ")", "[", "]", ",", "-"];

fn tokens(text: &str) -> Result<Vec<Token>, Obstacle> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let word = |c: char| c.is_ascii_alphanumeric() || "_.".contains(c);
        let (token, length) = if first == '"' {
            let mut literals = serde_json::Deserializer::from_str(rest).into_iter::<String>();
            let literal =
                literals.next().and_then(Result::ok).ok_or_else(|| format!("`{text}`: a text is not understood"))?;
            (Token::Text(literal), literals.byte_offset())
        } else if first.is_ascii_alphanumeric() || first == '_' {
            let length = rest.find(|c| !word(c)).unwrap_or(rest.len());
            let number = rest[..length].parse().ok().filter(|_| first.is_ascii_digit());
            (number.map_or_else(|| Token::Word(rest[..length].to_owned()), Token::Number), length)
        } else {
            let sign = SIGNS.iter().find(|sign| rest.starts_with(**sign));
            let sign = sign.ok_or_else(|| format!("`{text}`: `{first}` is not understood"))?;
            (Token::Sign(sign), sign.len())
        };
        tokens.push(token);
        rest = rest[length..].trim_start();
    }
    Ok(tokens)
}

/// What one comparison asks of a span.
#[derive(Clone, PartialEq, Debug)]
enum Comparison {
    Written(String),
    Number(Range<f64>),
    /// Nanoseconds.
    Time(Range<f64>),
}

type FieldComparison = (ConditionField, Comparison);
/// One of these lists, of which all must hold on the same span.
type Alternatives = Vec<Vec<FieldComparison>>;

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    context: Context,
}

/// More alternatives would not be read.
const ALTERNATIVES_MAX: usize = 16;

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Result<Token, Obstacle> {
        let token = self.peek().cloned().ok_or("it ends too early")?;
        self.at += 1;
        Ok(token)
    }

    fn takes_word(&mut self, word: &str) -> bool {
        let is_it = matches!(self.peek(), Some(Token::Word(found)) if found == word);
        self.at += usize::from(is_it);
        is_it
    }

    fn takes(&mut self, sign: &'static str) -> bool {
        let is_it = self.peek() == Some(&Token::Sign(sign));
        self.at += usize::from(is_it);
        is_it
    }

    fn expect(&mut self, sign: &'static str) -> Result<(), Obstacle> {
        if self.takes(sign) { Ok(()) } else { Err(format!("`{sign}` is missing")) }
    }

    fn end(&self) -> Result<(), Obstacle> {
        match self.peek() {
            None => Ok(()),
            Some(token) => Err(format!("{token:?} is not understood here")),
        }
    }

    fn either(&mut self) -> Result<Alternatives, Obstacle> {
        let mut all = self.both()?;
        while self.takes_word("or") {
            all.extend(self.both()?);
        }
        Ok(all)
    }

    fn both(&mut self) -> Result<Alternatives, Obstacle> {
        let mut all = self.comparison()?;
        while self.takes_word("and") {
            let more = self.comparison()?;
            all = all.iter().flat_map(|tests| more.iter().map(|more| [tests.as_slice(), more].concat())).collect();
            if all.len() > ALTERNATIVES_MAX {
                return Err("it has too many alternatives".to_owned());
            }
        }
        Ok(all)
    }

    fn comparison(&mut self) -> Result<Alternatives, Obstacle> {
        if self.takes_word("not") {
            return Err("`not` asks for a span that is not so; a policy can only ask that no span is".to_owned());
        }
        if self.takes_word("IsMatch") {
            self.expect("(")?;
            let field = self.field()?;
            self.expect(",")?;
            let Token::Text(expression) = self.next()? else {
                return Err("the pattern of `IsMatch` is no text".to_owned());
            };
            self.expect(")")?;
            regex::Regex::new(&expression).map_err(|_| format!("the crate `regex` cannot read `{expression}`"))?;
            return match field {
                ConditionField::Name
                | ConditionField::Service
                | ConditionField::Events
                | ConditionField::Attribute(_)
                | ConditionField::Resource(_) => Ok(vec![vec![(field, Comparison::Written(text::regex(&expression)))]]),
                _ => Err("`IsMatch` is for texts".to_owned()),
            };
        }
        if self.is_parenthesis() {
            self.expect("(")?;
            let inner = self.either()?;
            self.expect(")")?;
            return Ok(inner);
        }
        let field = self.field()?;
        let Token::Sign(sign) = self.next()? else { return Err("a comparison is missing".to_owned()) };
        let value = self.next()?;
        Ok(vec![vec![compare(field, sign, value)?]])
    }

    /// A parenthesis around conditions, not around a difference of times.
    fn is_parenthesis(&self) -> bool {
        let inside = self.tokens[self.at..].iter().take(4).any(|token| *token == Token::Sign("-"));
        self.peek() == Some(&Token::Sign("(")) && !inside
    }

    fn field(&mut self) -> Result<ConditionField, Obstacle> {
        let is_bracketed = self.takes("(");
        let Token::Word(path) = self.next()? else { return Err("it begins with no path".to_owned()) };
        let field = match (self.context, path.as_str()) {
            (Context::Span, "name" | "span.name") => ConditionField::Name,
            (Context::Span, "kind" | "span.kind") => ConditionField::Kind,
            (Context::Span, "status.code" | "span.status.code") => ConditionField::Status,
            (Context::Event, "name" | "spanevent.name") => ConditionField::Events,
            (Context::Span, "attributes" | "span.attributes") => ConditionField::Attribute(self.key()?),
            (Context::Span, "resource.attributes") => match self.key()? {
                key if key == "service.name" => ConditionField::Service,
                key => ConditionField::Resource(key),
            },
            (Context::Span, "end_time_unix_nano" | "span.end_time_unix_nano") => {
                self.expect("-")?;
                match self.next()? {
                    Token::Word(start) if start.trim_start_matches("span.") == "start_time_unix_nano" => {
                        ConditionField::Duration
                    }
                    _ => return Err("only the duration of the span itself can be asked for".to_owned()),
                }
            }
            (_, path) => return Err(format!("`{path}` has no like here")),
        };
        if is_bracketed {
            self.expect(")")?;
        }
        Ok(field)
    }

    fn key(&mut self) -> Result<String, Obstacle> {
        self.expect("[")?;
        let Token::Text(key) = self.next()? else { return Err("the key of an attribute is no text".to_owned()) };
        self.expect("]")?;
        Ok(key)
    }
}

fn compare(field: ConditionField, sign: &str, value: Token) -> Result<FieldComparison, Obstacle> {
    let check = match (&field, sign, value) {
        (ConditionField::Kind, "==" | "!=", Token::Word(word)) => {
            let kinds = SpanKind::ALL.map(|kind| (format!("SPAN_KIND_{}", kind.word().to_uppercase()), kind.word()));
            one_word(&kinds, sign, &word)?
        }
        (ConditionField::Status, "==" | "!=", Token::Word(word)) => {
            let statuses =
                Status::ALL.map(|status| (format!("STATUS_CODE_{}", status.word().to_uppercase()), status.word()));
            one_word(&statuses, sign, &word)?
        }
        (ConditionField::Attribute(_) | ConditionField::Resource(_), "==" | "!=", Token::Word(nil)) if nil == "nil" => {
            Comparison::Written(format!("{{ exists: {} }}", sign == "!="))
        }
        (ConditionField::Attribute(_) | ConditionField::Resource(_), "==", Token::Word(word))
            if word == "true" || word == "false" =>
        {
            Comparison::Written(word)
        }
        (ConditionField::Name | ConditionField::Service | ConditionField::Events, "==", Token::Text(text))
            if text.is_empty() =>
        {
            return Err("an empty text cannot be asked for".to_owned());
        }
        (
            ConditionField::Name
            | ConditionField::Service
            | ConditionField::Events
            | ConditionField::Attribute(_)
            | ConditionField::Resource(_),
            "==",
            Token::Text(text),
        ) => Comparison::Written(text::exactly(&text)),
        (ConditionField::Attribute(_) | ConditionField::Resource(_), "==", Token::Number(number)) => {
            Comparison::Written(number.to_string())
        }
        (
            ConditionField::Attribute(_) | ConditionField::Resource(_),
            ">" | ">=" | "<" | "<=",
            Token::Number(number),
        ) => Comparison::Number(range(sign, number)),
        (ConditionField::Duration, ">" | ">=" | "<" | "<=", Token::Number(nanoseconds)) => {
            Comparison::Time(range(sign, nanoseconds))
        }
        (_, "!=", _) => {
            return Err("`!=` asks for a span that is not so; a policy can only ask that no span is".to_owned());
        }
        _ => return Err("this comparison has no like here".to_owned()),
    };
    Ok((field, check))
}

/// One of the words of a closed set, or all but one.
fn one_word(words: &[(String, &'static str)], sign: &str, wanted: &str) -> Result<Comparison, Obstacle> {
    if !words.iter().any(|(word, _)| word == wanted) {
        return Err(format!("`{wanted}` is not known"));
    }
    let chosen = words.iter().filter(|(word, _)| (word == wanted) == (sign == "=="));
    let chosen: Vec<String> = chosen.map(|(_, ours)| (*ours).to_owned()).collect();
    Ok(Comparison::Written(text::one_of(&chosen)))
}

/// Beyond a whole number is the next one.
fn range(sign: &str, number: f64) -> Range<f64> {
    let next = if number.fract() == 0.0 { number + 1.0 } else { number.next_up() };
    match sign {
        ">=" => Range { at_least: Some(number), below: None },
        ">" => Range { at_least: Some(next), below: None },
        "<" => Range { at_least: None, below: Some(number) },
        _ => Range { at_least: None, below: Some(next) },
    }
}

/// Each field once; ranges of one field become one.
fn joined(tests: Vec<FieldComparison>) -> Result<Vec<SpanTest>, Obstacle> {
    let mut joined: Vec<FieldComparison> = Vec::new();
    for (field, check) in tests {
        match joined.iter_mut().find(|(known, _)| *known == field) {
            None => joined.push((field, check)),
            Some((_, known)) => match (&mut *known, check) {
                (Comparison::Number(a), Comparison::Number(b)) | (Comparison::Time(a), Comparison::Time(b)) => {
                    *a = Range { at_least: largest(a.at_least, b.at_least), below: smallest(a.below, b.below) };
                }
                (known, check) if *known == check => {}
                _ => return Err("it asks twice for the same field of one span".to_owned()),
            },
        }
    }
    let test = |(field, check)| match check {
        Comparison::Written(value) => Ok(SpanTest { field, value }),
        Comparison::Number(range) => {
            Ok(SpanTest { field, value: text::range(&not_empty(range)?, |bound| bound.to_string()) })
        }
        Comparison::Time(range) => {
            Ok(SpanTest { field, value: text::range(&not_empty(range)?, |bound| text::nanoseconds(bound as u64)) })
        }
    };
    joined.into_iter().map(test).collect()
}

fn not_empty(range: Range<f64>) -> Result<Range<f64>, Obstacle> {
    let is_empty = range.at_least.zip(range.below).is_some_and(|(low, high)| low >= high);
    if is_empty { Err("no value is in its range".to_owned()) } else { Ok(range) }
}

fn largest(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    a.into_iter().chain(b).reduce(f64::max)
}

fn smallest(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    a.into_iter().chain(b).reduce(f64::min)
}
