//! Texts that tests expect, in files beside their cases. `UPDATE_EXPECT=1` writes them anew.

use std::fs;
use std::path::Path;

/// Whether a text is that of the file; shows both where it is another.
pub fn expect(path: &Path, found: &str) -> bool {
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(path, found).expect("the expected text can be written");
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    if expected != found {
        println!("=== {}\n--- expected\n{expected}--- found\n{found}", path.display());
    }
    expected == found
}
