//! What a configuration takes from the machine: how much memory there is, where a user's data lies.
//! Source: Linux kernel documentation, "Control Group v2" (`memory.max`) and "Memory Resource Controller".

use super::budget::{MEMORY_AUTO_MAX, MEMORY_MIN};
use crate::receive::descriptors;
use std::fs;
use std::path::{Path, PathBuf};

/// The machine as a configuration sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Host {
    /// Bytes that this process may use: the smallest limit of its control groups, else the machine's
    /// memory; `u64::MAX` if neither can be told.
    pub memory_limit: u64,
    /// Where the store goes that nobody placed: `$XDG_DATA_HOME/tailkeep`, else `~/.local/share/tailkeep`.
    pub data_folder: Option<PathBuf>,
    /// Files and connections that this process may have open at once.
    pub descriptors: u64,
    /// `collector.instance.id` of a process that nobody named: random.
    pub instance: String,
    /// By which this process recognises what comes back to it: random, and shown nowhere.
    pub hop: String,
}

impl Host {
    /// This machine and this process.
    pub fn here() -> Host {
        let variable = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        Host {
            memory_limit: memory_limit(Path::new("/")),
            data_folder: data_folder(variable("XDG_DATA_HOME"), variable("HOME")),
            descriptors: descriptors::limit(),
            instance: random_id(),
            hop: random_id(),
        }
    }

    /// The budget of `memory: auto`: half of the limit, within bounds.
    pub fn memory_auto(&self) -> usize {
        let half = usize::try_from(self.memory_limit / 2).unwrap_or(usize::MAX);
        half.clamp(MEMORY_MIN, MEMORY_AUTO_MAX)
    }
}

fn data_folder(data_home: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    let base = data_home.or_else(|| Some(home?.join(".local/share")))?;
    Some(base.join("tailkeep"))
}

/// A random UUID (version 4, RFC 9562).
fn random_id() -> String {
    let high = getrandom::u64().expect("the system gives random bits");
    let low = getrandom::u64().expect("the system gives random bits");
    let (version, variant) = (high & !0xf000 | 0x4000, low & !(0b11 << 62) | 0b10 << 62);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        version >> 32,
        version >> 16 & 0xffff,
        version & 0xffff,
        variant >> 48,
        variant & 0xffff_ffff_ffff
    )
}

/// The smallest of all limits that hold for this process. `root` is `/` but in tests.
fn memory_limit(root: &Path) -> u64 {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let limits =
        groups.lines().filter_map(limit_file).flat_map(|(mount, group, file)| limits(root, mount, group, file));
    let machine = machine_memory(root);
    limits.chain(machine).min().unwrap_or(u64::MAX)
}

/// Mount point, group and file of a line `ID:CONTROLLERS:GROUP`; version 2 names no controllers.
fn limit_file(line: &str) -> Option<(&'static str, &str, &'static str)> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, group) = (fields.next()?, fields.next()?);
    match controllers {
        "" => Some(("sys/fs/cgroup", group, "memory.max")),
        v1 if v1.split(',').any(|word| word == "memory") => {
            Some(("sys/fs/cgroup/memory", group, "memory.limit_in_bytes"))
        }
        _ => None,
    }
}

/// The limits of a group and of those above it. In a container the mount point is the group itself.
fn limits(root: &Path, mount: &str, group: &str, file: &str) -> Vec<u64> {
    let mount = root.join(mount);
    let inner = Path::new(group.trim_start_matches('/'));
    let folders = inner.ancestors().map(|above| mount.join(above));
    folders.filter_map(|folder| fs::read_to_string(folder.join(file)).ok()?.trim().parse().ok()).collect()
}

fn machine_memory(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> u64 {
        let root = tempfile::tempdir().expect("a scratch folder");
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, text).expect("a file");
        }
        memory_limit(root.path())
    }

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal:        2048 kB\nMemFree: 1 kB\n");

    #[test]
    fn the_smallest_group_limit_counts_in_both_versions() {
        let group = ("proc/self/cgroup", "0::/kubepods/pod1/c\n");
        let (outer, inner) = ("sys/fs/cgroup/kubepods/pod1/memory.max", "sys/fs/cgroup/kubepods/pod1/c/memory.max");
        assert_eq!(machine(&[group, (outer, "1000000\n"), (inner, "max\n"), MEMINFO]), 1_000_000);
        assert_eq!(machine(&[group, (outer, "1000000\n"), (inner, "5000\n"), MEMINFO]), 5000);
        let inside = ("sys/fs/cgroup/memory.max", "7000\n");
        assert_eq!(machine(&[("proc/self/cgroup", "0::/\n"), inside, MEMINFO]), 7000);
        let v1 = ("proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/docker/c\n");
        let limit = ("sys/fs/cgroup/memory/docker/c/memory.limit_in_bytes", "9000\n");
        assert_eq!(machine(&[v1, limit, MEMINFO]), 9000);
        let inside = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "8000\n");
        assert_eq!(machine(&[v1, inside, MEMINFO]), 8000, "the group's path is the host's");
    }

    #[test]
    fn without_a_limit_the_machine_counts() {
        assert_eq!(machine(&[("proc/self/cgroup", "0::/\n"), MEMINFO]), 2 << 20);
        let huge = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(machine(&[("proc/self/cgroup", "4:memory:/\n"), huge, MEMINFO]), 2 << 20);
        assert_eq!(machine(&[]), u64::MAX);
    }

    #[test]
    fn auto_is_half_of_the_limit_within_bounds() {
        let auto = |memory_limit| {
            Host { memory_limit, data_folder: None, descriptors: 1024, instance: String::new(), hop: String::new() }
                .memory_auto()
        };
        assert_eq!(auto(256 << 20), 128 << 20);
        assert_eq!(auto(u64::MAX), 512 << 20);
        assert_eq!(auto(40 << 20), 32 << 20);
    }

    #[test]
    fn data_goes_where_the_user_keeps_data() {
        let path = |text: &str| Some(PathBuf::from(text));
        assert_eq!(data_folder(path("/data"), path("/home/u")), path("/data/tailkeep"));
        assert_eq!(data_folder(None, path("/home/u")), path("/home/u/.local/share/tailkeep"));
        assert_eq!(data_folder(None, None), None);
    }

    #[test]
    fn ids_are_random_uuids() {
        let id = random_id();
        assert_ne!(id, random_id());
        let groups: Vec<usize> = id.split('-').map(str::len).collect();
        assert_eq!(groups, [8, 4, 4, 4, 12]);
        assert!(id.as_bytes()[14] == b'4' && b"89ab".contains(&id.as_bytes()[19]), "{id}");
    }
}
