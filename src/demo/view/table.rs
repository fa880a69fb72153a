//! Tables of plain text: a name that takes the room that is left, and columns of numbers.

/// How a line looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tone {
    Plain,
    Strong,
    Alarm,
}

impl Tone {
    /// `line` between ANSI escapes; it must have been fitted before.
    pub fn paint(self, line: &str) -> String {
        match self {
            Tone::Plain => line.to_owned(),
            Tone::Strong => format!("\x1b[1m{line}\x1b[0m"),
            Tone::Alarm => format!("\x1b[31m{line}\x1b[0m"),
        }
    }
}

pub struct Row {
    pub name: String,
    pub cells: Vec<String>,
    pub tone: Tone,
}

/// Columns of a number, the blank before it included.
const CELL: usize = 10;
/// When less is left for the names, the last columns of numbers are left out.
const NAME_MIN: usize = 20;

/// A blank line, a heading and the first `shown` of `rows`, none wider than `width`. The heading
/// says how many there are if they are more.
pub fn table(
    title: &str,
    heads: &[&str],
    rows: impl ExactSizeIterator<Item = Row>,
    shown: usize,
    width: usize,
) -> Vec<String> {
    let cells = heads.len().min(width.saturating_sub(NAME_MIN) / CELL);
    let name_width = width - cells * CELL;
    let line = |name: &str, cells: &mut dyn Iterator<Item = &str>| {
        cells.fold(fit(name, name_width), |line, cell| line + &fit_right(cell, CELL))
    };
    let title = if rows.len() > shown { format!("{title} ({shown} of {})", rows.len()) } else { title.to_owned() };
    let heading = line(&title, &mut heads.iter().copied().take(cells));
    let mut lines = vec![String::new(), Tone::Strong.paint(&heading)];
    lines.extend(
        rows.take(shown)
            .map(|row| row.tone.paint(&line(&row.name, &mut row.cells.iter().map(String::as_str).take(cells)))),
    );
    lines
}

/// `text` in exactly `width` columns: cut, with `…`, or filled with blanks.
pub fn fit(text: &str, width: usize) -> String {
    let text = without_controls(text);
    let mut line = text.clone();
    if columns_of(&text) > width {
        line.clear();
        let mut used = 1;
        for c in text.chars() {
            used += columns_of_char(c);
            if used > width {
                break;
            }
            line.push(c);
        }
        if width > 0 {
            line.push('…');
        }
    }
    let blanks = width.saturating_sub(columns_of(&line));
    line + &" ".repeat(blanks)
}

/// As [`fit`], with the blanks before the text.
pub fn fit_right(text: &str, width: usize) -> String {
    let blanks = width.saturating_sub(columns_of(text));
    " ".repeat(blanks) + &fit(text, width - blanks)
}

/// Columns that a terminal takes for `text`, which holds no control characters.
pub fn columns_of(text: &str) -> usize {
    text.chars().map(columns_of_char).sum()
}

/// Names come from outside: an escape in one must not reach the terminal.
fn without_controls(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || is_format(c) { '�' } else { c }).collect()
}

/// Invisible characters that join or turn around their neighbours.
fn is_format(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Chinese, Japanese and Korean characters and emoji take two columns. Combining marks are counted
/// as one, so a line may end early, never late.
fn columns_of_char(c: char) -> usize {
    let wide = matches!(c,
        '\u{1100}'..='\u{115f}' | '\u{2e80}'..='\u{a4cf}' | '\u{ac00}'..='\u{d7a3}' | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe6f}' | '\u{ff00}'..='\u{ff60}' | '\u{ffe0}'..='\u{ffe6}' | '\u{1f000}'..='\u{1faff}'
        | '\u{20000}'..='\u{3fffd}');
    if wide { 2 } else { 1 }
}
