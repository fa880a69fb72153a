//! A file that is followed while we run.
//!
//! It is looked at twice a second: edited, renamed over, or behind a link that a ConfigMap's volume swapped, it is another
//! one. That costs a system call, works on every file system, and is not disturbed by a busy folder.

use crate::config::read_text;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Interval, MissedTickBehavior, interval};

const LOOK: Duration = Duration::from_millis(500);

/// What tells one state of the file from another: device, inode, length, and when it changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stamp([u64; 3], [i64; 4]);

impl Stamp {
    fn of(file: &Metadata) -> Stamp {
        let times = [file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec()];
        Stamp([file.dev(), file.ino(), file.len()], times)
    }
}

/// A file that is read again when it is another one, once it stands still, and on SIGHUP.
pub(super) struct FollowedFile {
    path: PathBuf,
    hangup: Signal,
    looks: Interval,
    /// What was read last. The file may have changed since the start read it: the first look reads it again.
    read: Option<Option<Stamp>>,
    /// What the look before this one saw.
    before: Option<Stamp>,
}

impl FollowedFile {
    pub(super) fn new(path: PathBuf) -> FollowedFile {
        let hangup = signal(SignalKind::hangup()).expect("the runtime can listen for signals");
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        FollowedFile { path, hangup, looks, read: None, before: None }
    }

    /// What is in it now, and whether somebody asked for it.
    pub(super) async fn next(&mut self) -> (io::Result<String>, bool) {
        loop {
            let asked = tokio::select! {
                _ = self.looks.tick() => false,
                _ = self.hangup.recv() => true,
            };
            let stamp = tokio::fs::metadata(&self.path).await.ok().map(|file| Stamp::of(&file));
            // A file that is being written is left alone until it stands still.
            let settled = stamp == self.before && Some(stamp) != self.read;
            self.before = stamp;
            if asked || settled {
                self.read = Some(stamp);
                return (read(self.path.clone()).await, asked);
            }
        }
    }
}

async fn read(path: PathBuf) -> io::Result<String> {
    tokio::task::spawn_blocking(move || read_text(&path)).await.map_err(io::Error::other)?
}
