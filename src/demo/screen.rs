//! Shows the view: drawn over again on a terminal, one line now and then where output is a file.

use super::keys::{Key, RawTerminal, stty};
use super::view::{View, explain, invitation, render, summarize};
use std::future::Future;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

const REDRAW: Duration = Duration::from_millis(500);
const NEXT_LINE: Duration = Duration::from_secs(5);
/// Columns and rows of a terminal that does not say.
const DEFAULT_SIZE: (usize, usize) = (80, 24);

/// The other screen of the terminal, cleared, without a cursor; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[2J";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// Why the view has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// Somebody pressed `q`.
    Quit,
    /// By the caller.
    Stopped,
}

/// Shows what `snapshot` returns on standard output until `stop`, or until somebody at a terminal quits. An error is
/// one of writing: the reader of our output has gone.
pub async fn watch(snapshot: impl FnMut() -> View, stop: impl Future<Output = ()>) -> io::Result<Ended> {
    if io::stdout().is_terminal() { draw(snapshot, stop).await } else { log(snapshot, stop).await }
}

async fn draw(mut snapshot: impl FnMut() -> View, stop: impl Future<Output = ()>) -> io::Result<Ended> {
    let mut screen = Screen::enter()?;
    let mut keys = RawTerminal::listen();
    let mut explains = false;
    let mut ticks = interval(REDRAW);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    tokio::pin!(stop);
    let ended = loop {
        tokio::select! {
            () = &mut stop => break Ended::Stopped,
            key = keys.next() => match key {
                Key::Quit => break Ended::Quit,
                Key::Help => explains = !explains,
                Key::Other => explains = false,
            },
            _ = ticks.tick() => {}
        }
        screen.show(&snapshot(), if explains { explain } else { render })?;
    };
    drop((keys, screen));
    let view = snapshot();
    writeln!(io::stdout(), "{}\n{}", summarize(&view), invitation(&view))?;
    Ok(ended)
}

async fn log(mut snapshot: impl FnMut() -> View, stop: impl Future<Output = ()>) -> io::Result<Ended> {
    writeln!(io::stdout(), "{}", invitation(&snapshot()))?;
    let mut ticks = interval(NEXT_LINE);
    // The first tick comes at once, when there is nothing to say yet.
    ticks.tick().await;
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => return Ok(Ended::Stopped),
            _ = ticks.tick() => writeln!(io::stdout(), "{}", summarize(&snapshot()))?,
        }
    }
}

/// A terminal that is given back when this is dropped, also by a panic.
struct Screen;

impl Screen {
    fn enter() -> io::Result<Screen> {
        let screen = Screen;
        write_now(ENTER)?;
        Ok(screen)
    }

    fn show(&mut self, view: &View, draw: fn(&View, usize, usize) -> String) -> io::Result<()> {
        let (width, height) = size();
        // Cleared first: clearing what follows the last line would take its last column too.
        // No line break follows the last line, which would scroll.
        let text = draw(view, width, height).replace('\n', "\r\n");
        write_now(&format!("\x1b[H\x1b[J{text}"))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Nobody is left to tell.
        let _ = write_now(LEAVE);
    }
}

fn write_now(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Columns and rows of the terminal, as `stty` knows them.
fn size() -> (usize, usize) {
    let ask = || {
        let text = stty(&["size"])?;
        let (rows, columns) = text.trim().split_once(' ')?;
        Some((columns.parse().ok().filter(|&n| n > 0)?, rows.parse().ok().filter(|&n| n > 0)?))
    };
    ask().unwrap_or(DEFAULT_SIZE)
}
