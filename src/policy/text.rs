//! Values as a policy's YAML has them, for whoever writes one.

use crate::trace::question::Range;

/// A text that needs no quotes, else in quotes.
pub fn plain_or_quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || " _./-".contains(c);
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    let is_word = begins && text.chars().all(is_plain) && !text.ends_with(' ');
    let means_more = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    if is_word && !means_more.contains(&text.to_ascii_lowercase().as_str()) { text.to_owned() } else { quoted(text) }
}

/// Double quotes of YAML take every escape of JSON.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Exactly this text: where it has a `*`, a bare one would stand for anything.
pub fn exactly(text: &str) -> String {
    if text.contains('*') { regex(&format!("^{}$", ::regex::escape(text))) } else { plain_or_quoted(text) }
}

/// A regular expression.
pub fn regex(expression: &str) -> String {
    let written = match expression.chars().any(char::is_control) {
        true => quoted(expression),
        false => format!("'{}'", expression.replace('\'', "''")),
    };
    format!("{{ matches: {written} }}")
}

/// One alternative bare, several as a list.
pub fn one_of(alternatives: &[String]) -> String {
    match alternatives {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

/// A range of numbers or times.
pub fn range<T: Copy>(range: &Range<T>, show: impl Fn(T) -> String) -> String {
    let low = range.at_least.map(|low| format!("at_least: {}", show(low)));
    let high = range.below.map(|high| format!("below: {}", show(high)));
    format!("{{ {} }}", low.into_iter().chain(high).collect::<Vec<_>>().join(", "))
}

/// The largest unit in which it is a whole number.
pub fn nanoseconds(nanoseconds: u64) -> String {
    let units =
        [("h", 3_600_000_000_000), ("m", 60_000_000_000), ("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1000)];
    let unit = units.iter().find(|(_, size)| nanoseconds > 0 && nanoseconds.is_multiple_of(*size));
    unit.map_or_else(|| format!("{nanoseconds}ns"), |(unit, size)| format!("{}{unit}", nanoseconds / size))
}

/// A share as a percentage, without the noise of binary fractions.
pub fn percent(share: f64) -> String {
    format!("{}%", (share * 100.0 * 1e9).round() / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_quoted_where_they_would_mean_something_else() {
        for (text, written) in [
            ("checkout", "checkout"),
            ("/healthz", "/healthz"),
            ("404", "\"404\""),
            ("true", "\"true\""),
            ("GET /x", "GET /x"),
            ("a, b", "\"a, b\""),
            ("a ", "\"a \""),
            ("", "\"\""),
            ("a\"b\n", "\"a\\\"b\\n\""),
            ("a*b", "{ matches: '^a\\*b$' }"),
        ] {
            assert_eq!(exactly(text), written);
        }
        assert_eq!(regex("it's\\d"), "{ matches: 'it''s\\d' }");
    }

    #[test]
    fn durations_and_shares_are_short() {
        assert_eq!(nanoseconds(501_000_000), "501ms");
        assert_eq!(nanoseconds(60_000_000_000), "1m");
        assert_eq!(nanoseconds(500_000_001), "500000001ns");
        assert_eq!(nanoseconds(0), "0ns");
        assert_eq!(percent(1.0 / 3.0), "33.333333333%");
        assert_eq!(percent(0.001), "0.1%");
    }
}
