//! Whether this process may write where a configuration says, without creating anything.

use super::{Config, SinkConfig, SinkKind};
use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;

/// A file or folder that is written.
pub(super) struct WrittenPlace<'c> {
    /// None: it is the queue's.
    pub sink: Option<&'c SinkConfig>,
    path: &'c Path,
    kind: PlaceKind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum PlaceKind {
    File,
    Folder,
}

impl Config {
    /// The first place that cannot be written: the setting, and why.
    ///
    /// # Errors
    /// A text for whoever wrote the configuration.
    pub fn check_places(&self) -> Result<(), String> {
        let problem = |place: WrittenPlace<'_>| Some(format!("{}: {}", place.setting(), place.problem()?));
        places(self).into_iter().find_map(problem).map_or(Ok(()), Err)
    }
}

pub(super) fn places(config: &Config) -> Vec<WrittenPlace<'_>> {
    let queue =
        config.queue.spool.iter().map(|spool| WrittenPlace { sink: None, path: &spool.path, kind: PlaceKind::Folder });
    let sinks = config.sinks.iter().filter_map(|sink| {
        let (path, kind) = match &sink.kind {
            SinkKind::Store(store) => (&store.path, PlaceKind::File),
            SinkKind::File(file) => (&file.folder, PlaceKind::Folder),
            SinkKind::Otlp(_) | SinkKind::Arms(_) | SinkKind::Sls(_) => return None,
        };
        Some(WrittenPlace { sink: Some(sink), path, kind })
    });
    queue.chain(sinks).collect()
}

impl WrittenPlace<'_> {
    /// As the file has it.
    pub fn setting(&self) -> String {
        match self.sink {
            None => "queue.path".to_owned(),
            Some(sink) => format!("{}.path of the sink `{}`", sink.kind.word(), sink.name),
        }
    }

    /// Why it cannot be written, as far as can be told without writing.
    pub fn problem(&self) -> Option<String> {
        let written = match self.kind {
            PlaceKind::Folder => check_folder(self.path),
            PlaceKind::File => check_file(self.path),
        };
        written.err()
    }
}

fn check_file(path: &Path) -> Result<(), String> {
    // Opening a pipe waits for whoever reads it.
    if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir()) {
        return Err(format!("{} is no file", path.display()));
    }
    match OpenOptions::new().append(true).open(path) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) if may_heal(error.kind(), true) => {}
        Err(error) => return Err(format!("{} cannot be written: {error}", path.display())),
    }
    check_folder(path.parent().unwrap_or(Path::new("")))
}

/// The folder, or the one in which it would be created with those that are missing.
fn check_folder(path: &Path) -> Result<(), String> {
    let here = Path::new(".");
    let mut folder = if path.as_os_str().is_empty() { here } else { path };
    let metadata = loop {
        match fs::metadata(folder) {
            Ok(metadata) => break metadata,
            Err(error) if fs::symlink_metadata(folder).is_ok_and(|link| link.is_symlink()) => {
                return Err(format!("{} is a link that leads nowhere: {error}", folder.display()));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                folder = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(here);
            }
            Err(error) => return Err(format!("{} cannot be used: {error}", folder.display())),
        }
    };
    if !metadata.is_dir() {
        return Err(format!("{} is no folder", folder.display()));
    }
    let is_there = folder == path || path.as_os_str().is_empty();
    match take_file_without_name(folder) {
        Err(error) if may_heal(error.kind(), is_there) => Ok(()),
        Err(error) if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => {
            Err(format!("the folder {} cannot be written: {error}", folder.display()))
        }
        // Not every file system has such files: then it shows when the first data is written.
        _ => Ok(()),
    }
}

/// A disk that has become read-only stops no start: what it holds can be delivered, what comes waits in
/// memory. What has to be created there is a wrong place.
fn may_heal(error: io::ErrorKind, is_there: bool) -> bool {
    is_there && error == io::ErrorKind::ReadOnlyFilesystem
}

/// Opens a file that nobody can see, and that is gone at once: only who may create files can.
#[cfg(target_os = "linux")]
fn take_file_without_name(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    // `O_TMPFILE` with `O_DIRECTORY`, as the kernel's headers define them.
    let directory = if cfg!(any(target_arch = "arm", target_arch = "aarch64")) { 0o40_000 } else { 0o200_000 };
    OpenOptions::new().write(true).custom_flags(0o20_000_000 | directory).open(folder).map(drop)
}

#[cfg(not(target_os = "linux"))]
fn take_file_without_name(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::{fs::symlink, net::UnixListener};

    #[test]
    fn folders_that_can_be_created_are_fine_and_none_is() {
        let place = tempfile::tempdir().expect("a folder");
        let deep = place.path().join("a/b/c");
        assert_eq!((check_folder(&deep), check_file(&deep)), (Ok(()), Ok(())));
        assert_eq!(fs::read_dir(place.path()).expect("a folder").count(), 0);
        assert_eq!(check_folder(Path::new("")), Ok(()));
    }

    #[test]
    fn only_a_read_only_disk_that_has_the_place_may_heal() {
        use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
        assert!(may_heal(ReadOnlyFilesystem, true));
        assert!(!may_heal(ReadOnlyFilesystem, false) && !may_heal(PermissionDenied, true));
    }

    #[test]
    fn what_is_in_the_way_is_named() {
        let place = tempfile::tempdir().expect("a folder");
        let file = place.path().join("file");
        fs::write(&file, "x").expect("written");
        assert_eq!(check_file(&file), Ok(()));
        for problem in [check_folder(&file), check_folder(&file.join("below")), check_file(place.path())] {
            let problem = problem.expect_err("no place");
            assert!(problem.contains(&place.path().display().to_string()), "{problem}");
        }
    }

    #[test]
    fn what_is_neither_file_nor_folder_is_told_and_not_opened() {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let at = |name: &str| folder.path().join(name);
        symlink(at("nowhere"), at("link")).expect("the folder is writable");
        let told = check_folder(&at("link").join("below")).expect_err("nothing is there");
        assert!(told.contains("link that leads nowhere"), "{told}");
        let _socket = UnixListener::bind(at("socket")).expect("the folder is writable");
        assert!(check_file(&at("socket")).expect_err("no file").contains("is no file"));
        assert!(std::process::Command::new("mkfifo").arg(at("pipe")).status().expect("it runs").success());
        assert!(check_file(&at("pipe")).expect_err("no file").contains("is no file"));
        assert_eq!(check_file(&at("new")), Ok(()));
    }
}
