//! Tables of plain text: a name that takes the room that is left, and columns of numbers.

use crate::terminal::{clean, columns, columns_of_char};

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

pub struct TableRow {
    pub name: String,
    pub cells: Vec<String>,
    pub tone: Tone,
}

/// Columns of a number, the blank before it included.
const CELL: usize = 10;
/// When less is left for the names, the last columns of numbers are left out.
const NAME_MIN: usize = 20;

/// Columns of numbers that a table has room for.
pub fn cells_in(width: usize) -> usize {
    width.saturating_sub(NAME_MIN) / CELL
}

/// A blank line, a heading and the first `shown` of `rows`, none wider than `width`. The heading
/// says how many there are if they are more.
pub fn table(
    title: &str,
    heads: &[&str],
    rows: impl ExactSizeIterator<Item = TableRow>,
    shown: usize,
    width: usize,
) -> Vec<String> {
    let cells = heads.len().min(cells_in(width));
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
    let text = clean(text);
    let mut line = text.clone();
    if columns(&text) > width {
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
    let blanks = width.saturating_sub(columns(&line));
    line + &" ".repeat(blanks)
}

/// As [`fit`], with the blanks before the text.
pub fn fit_right(text: &str, width: usize) -> String {
    let blanks = width.saturating_sub(columns(text));
    " ".repeat(blanks) + &fit(text, width - blanks)
}
