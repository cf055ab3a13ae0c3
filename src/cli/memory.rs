//! How much memory the process may still take, as Linux tells it.
//!
//! The machine's own figure is what could be had without swapping. A control group (a container has one, and so does a
//! systemd unit with `MemoryMax=`) may allow less: past its limit the kernel ends a process, however much the machine has.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// What there is to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FreeMemory {
    /// Bytes.
    pub bytes: u64,
    /// Whether a control group's limit is nearer than the machine's.
    pub is_limited: bool,
}

impl FreeMemory {
    /// Now; `None` where it is not known, as on systems that are not Linux.
    pub fn now() -> Option<Self> {
        Self::below(Path::new("/"))
    }

    /// What the files of `/proc` and `/sys` below `root` say.
    fn below(root: &Path) -> Option<Self> {
        let machine =
            amount(&read(&root.join("proc/meminfo"))?, "MemAvailable:").map(|kib| kib << 10);
        let group = limits(root).min();
        let bytes = machine.into_iter().chain(group).min()?;
        Some(Self {
            bytes,
            is_limited: machine.is_none_or(|machine| bytes < machine),
        })
    }
}

/// What each control group around this process has left.
fn limits(root: &Path) -> impl Iterator<Item = u64> {
    let groups = read(&root.join("proc/self/cgroup")).unwrap_or_default();
    let mut left = Vec::new();
    for line in groups.lines() {
        // Such as `0::/system.slice/mixgate.service`, or `4:memory:/docker/9f2c` of the first version.
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let (top, files) = match controllers {
            "" => ("sys/fs/cgroup", &SECOND),
            list if list.split(',').any(|name| name == "memory") => {
                ("sys/fs/cgroup/memory", &FIRST)
            }
            _ => continue,
        };
        let top = root.join(top);
        left.extend(folders(&top, path).iter().filter_map(|it| files.left(it)));
    }
    left.into_iter()
}

/// A group's folder and those of the groups around it, up to the top. A container that sees its path from outside has its
/// own group at the top, and nothing at the path.
fn folders(top: &Path, path: &str) -> Vec<PathBuf> {
    let mut all = vec![top.to_owned()];
    let mut folder = top.to_owned();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => folder.push(name),
            Component::RootDir | Component::CurDir => continue,
            Component::ParentDir | Component::Prefix(_) => break,
        }
        all.push(folder.clone());
    }
    all
}

/// Where a version of control groups says what a group may take, what it has, and what of that are files that it has read
/// and the kernel takes back when memory is short.
struct Files {
    limit: &'static str,
    used: &'static str,
    files_read: &'static str,
}

const SECOND: Files = Files {
    limit: "memory.max",
    used: "memory.current",
    files_read: "inactive_file ",
};

const FIRST: Files = Files {
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    files_read: "total_inactive_file ",
};

impl Files {
    fn left(&self, folder: &Path) -> Option<u64> {
        let number = |name| read(&folder.join(name))?.trim().parse::<u64>().ok();
        // "max" is no number, and no limit.
        let (limit, used) = (number(self.limit)?, number(self.used)?);
        let stat = read(&folder.join("memory.stat")).unwrap_or_default();
        let files_read = amount(&stat, self.files_read).unwrap_or(0);
        Some(limit.saturating_sub(used.saturating_sub(files_read)))
    }
}

/// The first number after `name` at the beginning of a line.
fn amount(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: (&str, &str) = (
        "proc/meminfo",
        "MemTotal:       32000000 kB\nMemFree:         1000000 kB\nMemAvailable:   24000000 kB\n",
    );
    const MACHINE_HAS: u64 = 24_000_000 << 10;

    fn free(files: &[(&str, &str)]) -> Option<(u64, bool)> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        FreeMemory::below(root.path()).map(|free| (free.bytes, free.is_limited))
    }

    #[test]
    fn without_a_limit_it_is_what_the_machine_has() {
        assert_eq!(free(&[]), None);
        assert_eq!(free(&[MACHINE]), Some((MACHINE_HAS, false)));
        let unlimited = [
            MACHINE,
            ("proc/self/cgroup", "0::/user.slice\n"),
            ("sys/fs/cgroup/user.slice/memory.max", "max\n"),
            ("sys/fs/cgroup/user.slice/memory.current", "5000\n"),
        ];
        assert_eq!(free(&unlimited), Some((MACHINE_HAS, false)));
    }

    #[test]
    fn a_groups_limit_counts_less_what_it_uses_but_files_that_it_has_read() {
        let limited = [
            MACHINE,
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/b/memory.max", "8000000000\n"),
            ("sys/fs/cgroup/a/b/memory.current", "5000000000\n"),
            (
                "sys/fs/cgroup/a/b/memory.stat",
                "anon 1\ninactive_file 4000000000\nactive_file 7\n",
            ),
        ];
        assert_eq!(free(&limited), Some((7_000_000_000, true)));
        // A group around it may be tighter, and full.
        let around = [
            ("sys/fs/cgroup/a/memory.max", "6000000000"),
            ("sys/fs/cgroup/a/memory.current", "6000000001"),
        ];
        assert_eq!(free(&[&limited[..], &around].concat()), Some((0, true)));
    }

    #[test]
    fn groups_of_the_first_version_are_read_too() {
        let limited = [
            MACHINE,
            (
                "proc/self/cgroup",
                "5:cpu,cpuacct:/docker/9f\n4:hugetlb,memory:/docker/9f\n1:name=systemd:/\n",
            ),
            (
                "sys/fs/cgroup/memory/docker/9f/memory.limit_in_bytes",
                "2000000",
            ),
            (
                "sys/fs/cgroup/memory/docker/9f/memory.usage_in_bytes",
                "500000",
            ),
            (
                "sys/fs/cgroup/memory/docker/9f/memory.stat",
                "inactive_file 9\ntotal_inactive_file 100000\n",
            ),
            // As it says that there is none.
            (
                "sys/fs/cgroup/memory/memory.limit_in_bytes",
                "9223372036854771712",
            ),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "0"),
        ];
        assert_eq!(free(&limited), Some((1_600_000, true)));
    }

    #[test]
    fn a_container_that_sees_its_path_from_outside_is_limited_at_the_top() {
        for path in ["0::/kubepods/pod7/9f", "0::/../../pod7", "0::/"] {
            let limited = [
                MACHINE,
                ("proc/self/cgroup", path),
                ("sys/fs/cgroup/memory.max", "3000"),
                ("sys/fs/cgroup/memory.current", "1000"),
            ];
            assert_eq!(free(&limited), Some((2000, true)), "{path}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_has_some() {
        assert!(FreeMemory::now().is_some_and(|free| free.bytes > 1 << 20));
    }
}
