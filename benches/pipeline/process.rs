//! A collector's process: started, watched through /proc, killed when dropped.

use crate::Failure;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Kernel ticks per second in /proc/PID/stat: 100 on every Linux that Rust builds for.
const TICKS: f64 = 100.0;

pub struct Process(Child);

impl Process {
    /// Starts `program` in `folder`; its output goes to `log.txt` there.
    pub fn start(program: &Path, arguments: &[&str], folder: &Path) -> Result<Process, Failure> {
        let log = fs::File::create(folder.join("log.txt"))?;
        let child = Command::new(program)
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", program.display()))?;
        Ok(Process(child))
    }

    /// The exit status, if it has ended.
    pub fn ended(&mut self) -> Option<String> {
        self.0.try_wait().ok().flatten().map(|status| status.to_string())
    }

    /// Seconds of CPU that all its threads have used so far, in user and kernel mode.
    pub fn cpu_seconds(&self) -> Result<f64, Failure> {
        let stat = self.read("stat")?;
        // The second field, a name in parentheses, may hold blanks: count from its end.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |field: usize| fields.get(field - 3).and_then(|text| text.parse::<f64>().ok());
        match (ticks(14), ticks(15)) {
            (Some(user), Some(system)) => Ok((user + system) / TICKS),
            _ => Err("/proc/PID/stat has no times".into()),
        }
    }

    /// Resident bytes now.
    pub fn resident(&self) -> Result<u64, Failure> {
        self.status("VmRSS:")
    }

    /// The most resident bytes since the start, or since [`Process::forget_peak`].
    pub fn peak(&self) -> Result<u64, Failure> {
        self.status("VmHWM:")
    }

    pub fn forget_peak(&self) -> Result<(), Failure> {
        Ok(fs::write(format!("/proc/{}/clear_refs", self.0.id()), "5")?)
    }

    fn status(&self, field: &str) -> Result<u64, Failure> {
        let status = self.read("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        Ok(kibibytes.ok_or_else(|| format!("/proc/PID/status has no {field}"))? * 1024)
    }

    fn read(&self, file: &str) -> Result<String, Failure> {
        Ok(fs::read_to_string(format!("/proc/{}/{file}", self.0.id()))?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
