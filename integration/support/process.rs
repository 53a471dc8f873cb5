//! A process as the host's /proc shows it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::reaper;

/// A process, named by the pid that the host gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process(pub i32);

/// One line of mountinfo: the mounted root, the mount point, its options, the type and the rest.
#[derive(Clone, Debug, PartialEq)]
pub struct Mount {
    pub root: String,
    pub target: String,
    pub options: String,
    pub tags: String,
    pub fstype: String,
    pub source: String,
    pub super_options: String,
}

impl Process {
    pub fn own() -> Process {
        Process(std::process::id() as i32)
    }

    /// The process that a pid file names, just started. With hundreds of tests every pid is some earlier process's,
    /// too: how that one ended is forgotten.
    #[track_caller]
    pub fn of_pid_file(file: &Path) -> Process {
        let text = fs::read_to_string(file).unwrap();
        let pid = text.parse().unwrap_or_else(|_| panic!("not a pid: {text:?}"));
        reaper::expect(pid);
        Process(pid)
    }

    /// Reads a file of /proc/PID; fails the test if the process is gone.
    #[track_caller]
    pub fn read(&self, name: &str) -> String {
        match self.try_read(name) {
            Some(text) => text,
            None => panic!("/proc/{}/{name} cannot be read", self.0),
        }
    }

    pub fn try_read(&self, name: &str) -> Option<String> {
        let bytes = fs::read(format!("/proc/{}/{name}", self.0)).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// One field of /proc/PID/status, trimmed: `status("PPid")`.
    #[track_caller]
    pub fn status(&self, key: &str) -> String {
        let text = self.read("status");
        let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        value.unwrap_or_else(|| panic!("no {key} in the status of {}", self.0)).trim().to_string()
    }

    /// A field of /proc/PID/stat by the number that proc(5) gives it; 3 is the state.
    pub fn stat(&self, field: usize) -> Option<String> {
        let text = self.try_read("stat")?;
        let rest = text.rsplit_once(") ")?.1;
        rest.split_whitespace().nth(field - 3).map(str::to_string)
    }

    /// Whether the process exists and is not a zombie.
    pub fn is_alive(&self) -> bool {
        self.stat(3).is_some_and(|state| state != "Z" && state != "X")
    }

    /// Whether it has begun to exit (PF_EXITING) or only has to be scheduled for that, on a busy machine (a
    /// pending SIGKILL): it runs no program any more.
    pub fn is_exiting(&self) -> bool {
        const PF_EXITING: u64 = 4;
        const PENDING_SIGKILL: u64 = 1 << (libc::SIGKILL - 1);
        let flags = self.stat(9).and_then(|flags| flags.parse::<u64>().ok());
        let pending = self.try_read("status").and_then(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("SigPnd:"))?;
            u64::from_str_radix(line.trim(), 16).ok()
        });
        flags.is_none_or(|flags| flags & PF_EXITING != 0)
            || pending.is_none_or(|pending| pending & PENDING_SIGKILL != 0)
    }

    /// Whether `other` is its parent, or the parent of that, and so on.
    pub fn descends_from(&self, other: Process) -> bool {
        let mut at = *self;
        while let Some(parent) = at.stat(4).and_then(|pid| pid.parse().ok()) {
            if parent == other.0 {
                return true;
            }
            at = Process(parent);
        }
        false
    }

    /// The namespace of a kind, as `pid:[4026531836]`.
    #[track_caller]
    pub fn ns(&self, kind: &str) -> String {
        let link = fs::read_link(format!("/proc/{}/ns/{kind}", self.0)).unwrap();
        link.to_string_lossy().into_owned()
    }

    /// The cgroup path in every hierarchy, keyed by the controllers (`""` is cgroup v2).
    pub fn cgroups(&self) -> BTreeMap<String, String> {
        let text = self.read("cgroup");
        let line = |line: &str| {
            let mut parts = line.splitn(3, ':').skip(1);
            Some((parts.next()?.to_string(), parts.next()?.to_string()))
        };
        text.lines().filter_map(line).collect()
    }

    /// The open descriptors and what they lead to.
    pub fn fds(&self) -> BTreeMap<i32, PathBuf> {
        let Ok(entries) = fs::read_dir(format!("/proc/{}/fd", self.0)) else {
            return BTreeMap::new();
        };
        let fd = |entry: fs::DirEntry| {
            let number = entry.file_name().to_string_lossy().parse().ok()?;
            Some((number, fs::read_link(entry.path()).ok()?))
        };
        entries.flatten().filter_map(fd).collect()
    }

    /// The arguments.
    pub fn cmdline(&self) -> Vec<String> {
        split_nul(&self.try_read("cmdline").unwrap_or_default())
    }

    /// The environment given at execve, sorted.
    pub fn environ(&self) -> Vec<String> {
        let mut entries = split_nul(&self.read("environ"));
        entries.sort();
        entries
    }

    /// The mounts that the process sees, in mountinfo's order.
    pub fn mounts(&self) -> Vec<Mount> {
        self.try_read("mountinfo").unwrap_or_default().lines().filter_map(parse_mount).collect()
    }

    /// The uppermost mount at a target.
    pub fn mount_at(&self, target: &str) -> Option<Mount> {
        self.mounts().into_iter().rev().find(|mount| mount.target == target)
    }

    /// The children that the kernel lists, in order.
    pub fn children(&self) -> Vec<Process> {
        let mut children = Vec::new();
        let Ok(tasks) = fs::read_dir(format!("/proc/{}/task", self.0)) else {
            return children;
        };
        for task in tasks.flatten() {
            let text = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            children
                .extend(text.split_whitespace().filter_map(|pid| pid.parse().ok()).map(Process));
        }
        children
    }

    /// Sends a signal; an error means that the process is gone.
    pub fn kill(&self, signal: i32) -> std::io::Result<()> {
        assert!(self.0 > 1, "would signal {}", self.0);
        match unsafe { libc::kill(self.0, signal) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    }

    /// Its current directory, as it is called inside.
    pub fn cwd(&self) -> String {
        let link = fs::read_link(format!("/proc/{}/cwd", self.0)).unwrap();
        link.to_string_lossy().into_owned()
    }

    /// A path of the host through which the process's own file tree is reached.
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.0))
    }
}

fn split_nul(text: &str) -> Vec<String> {
    text.split_terminator('\0').map(str::to_string).collect()
}

fn parse_mount(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let left: Vec<&str> = left.split(' ').collect();
    let right: Vec<&str> = right.splitn(3, ' ').collect();
    Some(Mount {
        root: left.get(3)?.to_string(),
        target: left.get(4)?.to_string(),
        options: left.get(5)?.to_string(),
        tags: left[6..].join(" "),
        fstype: right.first()?.to_string(),
        source: right.get(1)?.to_string(),
        super_options: right.get(2).copied().unwrap_or_default().to_string(),
    })
}
