//! Reads files that people write.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Larger files are refused, bytes: what somebody named by mistake must not fill the memory.
const FILE_MAX: u64 = 64 << 20;

/// Like [`std::fs::read_to_string`], but says where a file is no UTF-8 or how large it is, and what to do.
///
/// # Errors
/// Why it cannot be read.
pub fn read_text(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    text_of(bytes)
}

fn text_of(bytes: Vec<u8>) -> io::Result<String> {
    let refused = |problem: String| Err(io::Error::new(io::ErrorKind::InvalidData, problem));
    if bytes.len() as u64 > FILE_MAX {
        return refused(format!("it has more than {} MiB; is it the right file?", FILE_MAX >> 20));
    }
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return refused("it is encoded as UTF-16; save it as UTF-8".to_owned());
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(error) => {
            let (valid, _) = error.as_bytes().split_at(error.utf8_error().valid_up_to());
            let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
            let column = String::from_utf8_lossy(valid).chars().rev().take_while(|c| *c != '\n').count() + 1;
            refused(format!("line {line}, column {column} is no UTF-8; save the file as UTF-8, perhaps it is Latin-1"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_an_end_is_not_read_to_its_end() {
        let told = read_text(Path::new("/dev/zero")).expect_err("too large").to_string();
        assert!(told.contains("right file"), "{told}");
    }

    #[test]
    fn what_is_no_utf8_is_told_with_its_place() {
        let told = |bytes: &[u8]| text_of(bytes.to_vec()).expect_err("no UTF-8").to_string();
        assert!(told(b"version: 1\nname: caf\xe9\n").starts_with("line 2, column 10 is no UTF-8"));
        assert!(told(b"\xff\xfea\0").contains("UTF-16"));
        assert_eq!(text_of("é".into()).expect("UTF-8"), "é");
    }
}
