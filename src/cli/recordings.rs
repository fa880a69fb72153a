//! Recorded traces that a command is given: files, and folders of them.

use super::CommandFailure;
use crate::plan::{Recording, format};
use crate::telemetry::log;
use std::fs;
use std::path::{Path, PathBuf};

/// Reads all of them, and says where one could not be read to its end; what stood before that counts. `what` is not
/// possible without any trace.
pub(super) fn read(
    named: &[PathBuf],
    recording: &mut Recording<'_>,
    what: &str,
) -> Result<Vec<String>, CommandFailure> {
    let mut warnings = Vec::new();
    for file in recordings(named)? {
        let opened = fs::File::open(&file).map_err(|error| cannot_read(&file, &error))?;
        let before = recording.spans();
        if let Err(cut) = format::read(opened, recording) {
            let spans = recording.spans() - before;
            warnings.push(format!("{}: {cut}; the {spans} spans before that count", file.display()));
        } else if recording.spans() == before {
            warnings.push(format!("{}: no span in it", file.display()));
        }
    }
    if recording.spans() == 0 {
        warn(&warnings);
        return Err(CommandFailure::Usage(format!("there is no trace in these recordings, so nothing can be {what}")));
    }
    Ok(warnings)
}

pub(super) fn warn(warnings: &[String]) {
    warnings.iter().for_each(|warning| log::say(&format!("warning: {warning}\n")));
}

pub(super) fn cannot_read(path: &Path, error: &dyn std::fmt::Display) -> CommandFailure {
    CommandFailure::Usage(format!("cannot read {}: {error}", path.display()))
}

/// The files that were named, and those in folders that were, in the order of their names. The file sink writes
/// metrics and logs beside traces.
fn recordings(named: &[PathBuf]) -> Result<Vec<PathBuf>, CommandFailure> {
    let mut files = Vec::new();
    for path in named {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let entries = fs::read_dir(path).map_err(|error| cannot_read(path, &error))?;
        let mut inside = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| cannot_read(path, &error))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_other = ["metrics", "logs", "."].iter().any(|start| name.starts_with(start));
            if !is_other && entry.path().is_file() {
                inside.push(entry.path());
            }
        }
        inside.sort();
        files.append(&mut inside);
    }
    Ok(files)
}
