//! Single keys from the terminal, as they are pressed.

use std::fs::File;
use std::io::Read;
use std::process::{Command, Stdio};
use tokio::sync::mpsc::{self, Receiver};

/// Keys that were pressed and not looked at yet; a key held down is no more than that.
const WAITING: usize = 16;

/// What a key asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Key {
    Quit,
    /// Shows the explanations, or goes back from them.
    Help,
    /// Any other.
    Other,
}

impl Key {
    pub(super) fn of(byte: u8) -> Key {
        match byte {
            b'q' | b'Q' => Key::Quit,
            b'?' | b'h' | b'H' => Key::Help,
            _ => Key::Other,
        }
    }
}

/// The terminal's settings, given back when this is dropped: lines are not waited for and keys not shown. Ctrl-C
/// stays a signal.
pub(super) struct RawTerminal {
    settings: Option<String>,
    pressed: Receiver<Key>,
}

impl RawTerminal {
    /// Without a terminal, or without `stty`, no key comes.
    pub(super) fn listen() -> RawTerminal {
        let settings = stty(&["-g"]).filter(|_| stty(&["-icanon", "-echo", "min", "1", "time", "0"]).is_some());
        let (sender, pressed) = mpsc::channel(WAITING);
        if let (Some(_), Ok(mut terminal)) = (&settings, File::open("/dev/tty")) {
            // A thread of its own, which nobody waits for: reading a terminal cannot be called off.
            std::thread::spawn(move || {
                let mut byte = [0];
                while terminal.read_exact(&mut byte).is_ok() && sender.blocking_send(Key::of(byte[0])).is_ok() {}
            });
        }
        RawTerminal { settings, pressed }
    }

    pub(super) async fn next(&mut self) -> Key {
        match self.pressed.recv().await {
            Some(key) => key,
            None => std::future::pending().await,
        }
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Some(settings) = &self.settings {
            stty(&[settings.trim()]);
        }
    }
}

/// What `stty` says of the terminal, whatever standard input is.
pub(super) fn stty(arguments: &[&str]) -> Option<String> {
    let terminal = File::open("/dev/tty").ok()?;
    let output = Command::new("stty").args(arguments).stdin(terminal).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8(output.stdout).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_as_the_view_says() {
        assert_eq!(b"qQ?hH\n".map(Key::of), [Key::Quit, Key::Quit, Key::Help, Key::Help, Key::Help, Key::Other]);
    }
}
