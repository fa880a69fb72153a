//! Text that others chose, such as the names of services and spans, and durations, on a terminal.

use std::time::Duration;

/// Without what could drive the terminal or hide: control characters, and invisible ones that join or
/// turn round their neighbours, are shown as `�`.
pub fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || is_format(c) { '�' } else { c }).collect()
}

/// At most so many characters of a foreign text for a report or a log: [`clean`], in one line.
pub fn quote(text: &str, most: usize) -> String {
    let mut shown: String = text.chars().take(most).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    clean(&shown)
}

/// Columns that a terminal takes for `text`, which holds no control characters.
pub fn columns(text: &str) -> usize {
    text.chars().map(columns_of_char).sum()
}

/// Chinese, Japanese and Korean characters and emoji take two columns (Unicode TR 11, the blocks that
/// people write). Combining marks are counted as one, so a line may end early, never late.
pub fn columns_of_char(c: char) -> usize {
    let wide = matches!(c,
        '\u{1100}'..='\u{115f}' | '\u{2e80}'..='\u{a4cf}' | '\u{ac00}'..='\u{d7a3}' | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe6f}' | '\u{ff00}'..='\u{ff60}' | '\u{ffe0}'..='\u{ffe6}' | '\u{1f000}'..='\u{1faff}'
        | '\u{20000}'..='\u{3fffd}');
    if wide { 2 } else { 1 }
}

fn is_format(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Three digits that matter: `1.23 s`, `45.6 ms`, `789 µs`.
pub fn duration(duration: Duration) -> String {
    let nanos = duration.as_nanos() as f64;
    let (value, unit) = match duration.as_nanos() {
        0..1_000 => (nanos, "ns"),
        1_000..1_000_000 => (nanos / 1e3, "µs"),
        1_000_000..1_000_000_000 => (nanos / 1e6, "ms"),
        _ => (nanos / 1e9, "s"),
    };
    let digits = match value {
        value if value >= 100.0 || unit == "ns" => 0,
        value if value >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_drives_the_terminal_and_columns_are_counted() {
        assert_eq!(clean("a\u{1b}[31mb\n\u{202e}c"), "a�[31mb��c");
        assert_eq!((quote("a\nb", 3), quote("äöü", 2)), ("a�b".to_owned(), "äö…".to_owned()));
        assert_eq!((columns("abc"), columns("结账")), (3, 4));
    }
    #[test]
    fn durations_have_three_digits() {
        let shown = [7, 789_000, 45_600_000, 812_000_000, 3_000_000_000, 125_000_000_000]
            .map(|nanos| duration(Duration::from_nanos(nanos)));
        assert_eq!(shown, ["7 ns", "789 µs", "45.6 ms", "812 ms", "3.00 s", "125 s"]);
    }
}
