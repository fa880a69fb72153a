//! Text that must never be shown, and where it comes from.

mod credential;

pub use credential::Credential;

use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// A larger file is refused, bytes: it is none that holds a key.
const FILE_MAX: u64 = 64 << 10;

/// A key, a token or a URL that holds one. It has no `Display`, and `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(Box<str>);

impl Secret {
    pub fn new(text: impl Into<Box<str>>) -> Secret {
        Secret(text.into())
    }

    /// The text itself, for a signature or a request; never for a log line or an error.
    pub fn expose(&self) -> &str {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A secret of the configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SecretSource {
    /// As it was when the configuration was read.
    pub secret: Secret,
    /// Where it comes from and may be renewed; none: it is what it is until the next start.
    pub file: Option<FileText>,
}

/// A text that a file is part of, or all.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileText {
    pub before: Secret,
    pub file: PathBuf,
    pub after: Secret,
}

impl SecretSource {
    /// What a change of it shows in.
    pub fn files(&self) -> Vec<PathBuf> {
        self.file.iter().map(|text| text.file.clone()).collect()
    }

    /// As it is now.
    ///
    /// # Errors
    /// Why its file cannot be used.
    pub fn read(&self) -> Result<Secret, String> {
        let Some(FileText { before, file, after }) = &self.file else { return Ok(self.secret.clone()) };
        Ok(Secret::new([before.expose(), read_secret(file)?.expose(), after.expose()].concat()))
    }
}

/// What a file holds, without the line feed at its end.
///
/// # Errors
/// Why it cannot be used. Nothing of what it holds is in the text.
pub fn read_secret(path: &Path) -> Result<Secret, String> {
    let told = |error: std::io::Error| error.to_string();
    // Opening a pipe that nobody writes to would never end.
    if !fs::metadata(path).map_err(told)?.is_file() {
        return Err("it is no file".to_owned());
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut bytes)).map_err(told)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(format!("it has more than {} KiB", FILE_MAX >> 10));
    }
    let text = String::from_utf8(bytes).map_err(|_| "it is no UTF-8".to_owned())?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err("it is empty".to_owned()),
        text => Ok(Secret::new(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_without_the_end_of_its_line_or_said_why_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let read = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            read_secret(&path).map(|secret| secret.expose().to_owned())
        };
        assert_eq!(read(b"swordfish\r\n\n").as_deref(), Ok("swordfish"));
        assert_eq!(read(b" two\nlines ").as_deref(), Ok(" two\nlines "));
        let most = FILE_MAX as usize;
        assert_eq!(read(&vec![b'a'; most]).map(|text| text.len()), Ok(most));
        for (bytes, told) in [
            (&b"\n"[..], "empty"),
            (b"", "empty"),
            (b"swordfish\xff", "no UTF-8"),
            (&vec![b'a'; most + 1], "more than 64 KiB"),
        ] {
            let error = read(bytes).unwrap_err();
            assert!(error.contains(told) && !error.contains("swordfish"), "{error}");
        }
        for (path, told) in [("/dev/zero", "no file"), ("/", "no file"), ("/no/such/file", "No such file")] {
            let error = read_secret(Path::new(path)).unwrap_err();
            assert!(error.contains(told), "{path}: {error}");
        }
    }

    #[test]
    fn debug_shows_nothing_not_even_the_length() {
        assert_eq!(format!("{:?}", Secret::new("swordfish")), format!("{:?}", Secret::new("")));
        assert!(!format!("{:#?}", Some(Secret::new("swordfish"))).contains("sword"));
    }
}
