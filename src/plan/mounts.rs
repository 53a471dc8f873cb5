//! The mounts of config.json, in order, as things to do.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Linux;

use crate::plan::config::Config;

use super::check::no_nul;
use super::idmap::{self, IdMap};
use super::namespaces::Namespaces;
use super::options::{self, Options};
use crate::cgroup::Manager;
use crate::error::{At, Code, Findings};

/// Where a mount comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file or directory of the host, alone or with all mounts below.
    Bind {
        /// Absolute path on the host.
        path: PathBuf,
        /// With all mounts below it.
        recursive: bool,
    },
    /// A new filesystem.
    Fs {
        /// Its type.
        fstype: String,
        /// What mount(8) calls the device; only a label for most.
        source: String,
    },
    /// The container's own part of the cgroup tree.
    Cgroup,
    /// New attributes for what is mounted there already.
    Remount,
    /// The directory in which `start` makes the socket for sd_notify(3).
    Notify,
}

/// One entry of `mounts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Its place in config.json.
    pub at: At,
    /// Where it comes from.
    pub source: Source,
    /// Where it goes: absolute in the container, without `.`, `..` or doubled slashes.
    pub destination: String,
    /// Its options.
    pub options: Options,
    /// How its ids are mapped.
    pub idmap: Option<IdMap>,
    /// It may lie on or below a procfs: it is one, or is on the list of harmless files.
    pub on_proc: bool,
    /// Directories to be made in a new tmpfs, for mounts that come after it.
    pub directories: Vec<String>,
}

impl Mount {
    /// Whether it is a tmpfs for reading only. Devices, links and mount points are made in it before it becomes that.
    #[must_use]
    pub fn is_readonly_tmpfs(&self) -> bool {
        let readonly = self.options.attr.set | self.options.recursive.set;
        self.is_tmpfs() && readonly & options::attr::RDONLY != 0
    }

    fn is_tmpfs(&self) -> bool {
        matches!(&self.source, Source::Fs { fstype, .. } if fstype == "tmpfs")
    }

    /// Whether it shows the container's cgroup, and lets it write there.
    #[must_use]
    pub fn is_writable_cgroup(&self) -> bool {
        self.source == Source::Cgroup && self.options.attr.set & options::attr::RDONLY == 0
    }
}

impl std::fmt::Display for Mount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let to = self.destination.escape_debug();
        match &self.source {
            Source::Bind { path, .. } => {
                write!(f, "mount {} to {to}", path.to_string_lossy().escape_debug())
            }
            Source::Fs { fstype, .. } => write!(f, "mount {} to {to}", fstype.escape_debug()),
            Source::Cgroup => write!(f, "mount cgroup to {to}"),
            Source::Remount => write!(f, "remount {to}"),
            Source::Notify => write!(f, "mount the notify socket to {to}"),
        }
    }
}

/// Without a cgroup of its own a container is in the caller's, which is nothing for it to write to.
pub fn protect_callers_cgroup(mounts: &mut [Mount], manager: Manager) {
    let cgroups = mounts.iter_mut().filter(|mount| mount.source == Source::Cgroup);
    for mount in cgroups.filter(|_| manager == Manager::Disabled) {
        mount.options.attr.set |= options::attr::RDONLY;
        mount.options.attr.clear &= !options::attr::RDONLY;
    }
}

/// Where the container finds the socket for sd_notify(3): runc's place.
pub const NOTIFY_ENVIRONMENT: &str = "NOTIFY_SOCKET=/run/notify/notify.sock";

/// The mount of its directory, read-only: a socket can be sent to all the same.
#[must_use]
pub fn notify() -> Mount {
    use super::options::{Attributes, attr};
    let set = attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC;
    Mount {
        at: At::of("NOTIFY_SOCKET"),
        source: Source::Notify,
        destination: "/run/notify".to_owned(),
        options: Options { attr: Attributes { set, clear: 0 }, ..Options::default() },
        idmap: None,
        on_proc: false,
        directories: Vec::new(),
    }
}

/// Files below /proc that may be covered: lxcfs-style replacements, which no label or sysctl write
/// goes through.
const PROC_FILES: &[&str] = &[
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/net/dev",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys/crypto/fips_enabled",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/uptime",
];

/// The path with `.`, `..` and empty parts taken out, as if `/` were its root.
#[must_use]
pub fn clean(path: &Path) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let text = path.to_string_lossy();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Sorts out every mount.
pub fn plan(
    spec: &Config,
    bundle: &Path,
    around: (&Linux, &Namespaces),
    context: Option<&str>,
    findings: &mut Findings,
) -> Vec<Mount> {
    let mounts = spec.mounts.as_deref().unwrap_or_default();
    if !mounts.is_empty() && !around.1.may_mount() {
        findings.problem(
            Code::E_NEEDS_NAMESPACE,
            "/mounts",
            "needs a new mount namespace: mounts in an inherited or joined one would outlive the \
             container",
        );
    }
    let mut planned: Vec<Mount> = mounts
        .iter()
        .enumerate()
        .filter_map(|(index, mount)| {
            let at = At::item("/mounts", index);
            let mut planned = one(at, mount, bundle, context, findings)?;
            planned.idmap = idmap::plan(at, mount, &planned.options, around, findings);
            let unbindable = |(flag, _): &(u64, bool)| *flag == libc::MS_UNBINDABLE;
            if around.1.carries_root && planned.options.propagation.iter().any(unbindable) {
                findings.problem(
                    Code::E_NEEDS_NAMESPACE,
                    at.leaf("/options"),
                    "unbindable needs a new mount namespace: it could not be taken along to another",
                );
            }
            if planned.idmap.is_some() && planned.source == Source::Remount {
                findings.problem(
                    Code::E_MOUNT_OPTION,
                    at.leaf("/options"),
                    "ids are mapped before a mount is attached",
                );
            }
            Some(planned)
        })
        .collect();
    for index in 0..planned.len() {
        let directories = directories(&planned, index);
        if let Some(mount) = planned.get_mut(index) {
            mount.directories = directories;
        }
    }
    planned
}

/// What a new tmpfs must have for the filesystems that are mounted right in it, as in /dev: made while
/// it is still empty, they need not be looked for and missed first.
fn directories(mounts: &[Mount], index: usize) -> Vec<String> {
    let Some((top, later)) = mounts.get(index..).and_then(<[Mount]>::split_first) else {
        return Vec::new();
    };
    if !top.is_tmpfs() || top.options.tmpcopyup || top.idmap.is_some() {
        return Vec::new();
    }
    let mut names: Vec<String> = later
        .iter()
        .filter(|mount| match &mount.source {
            // Without a mode it would take on that of the directory.
            Source::Fs { fstype, .. } if fstype == "tmpfs" => {
                mount.options.data.iter().any(|entry| entry.starts_with("mode="))
            }
            source => matches!(source, Source::Fs { .. } | Source::Cgroup),
        })
        .filter_map(|mount| mount.destination.strip_prefix(&top.destination)?.strip_prefix('/'))
        .filter(|name| !name.contains('/'))
        .map(str::to_owned)
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn one(
    at: At,
    spec: &oci_spec::runtime::Mount,
    bundle: &Path,
    context: Option<&str>,
    findings: &mut Findings,
) -> Option<Mount> {
    let raw = spec.options().as_deref().unwrap_or_default();
    for option in raw {
        no_nul(at.leaf("/options"), option, findings);
    }
    no_nul(at.leaf("/destination"), &spec.destination().to_string_lossy(), findings);
    let mut options = options::parse(raw);
    if spec.destination().as_os_str().is_empty() {
        findings.problem(Code::E_MOUNT_DESTINATION, at.leaf("/destination"), "is empty");
        return None;
    }
    if !spec.destination().is_absolute() {
        findings.warn(
            Code::W_MOUNT_RELATIVE,
            at.leaf("/destination"),
            "is relative (deprecated), taken as below /",
        );
    }
    let destination = clean(spec.destination());
    if destination == "/" {
        findings.problem(
            Code::E_MOUNT_DESTINATION,
            at.leaf("/destination"),
            "nothing may be mounted over the root filesystem",
        );
    }
    let source = source(at, spec, &options, bundle, findings)?;
    if let (Source::Bind { .. }, false) = (&source, options.data.is_empty()) {
        findings.warn(
            Code::W_MOUNT_OPTION,
            at.leaf("/options"),
            format!("a bind mount has no {}", options.data.join(",")),
        );
        options.data.clear();
    }
    if options.tmpcopyup && !matches!(&source, Source::Fs { fstype, .. } if fstype == "tmpfs") {
        findings.problem(Code::E_MOUNT_OPTION, at.leaf("/options"), "tmpcopyup is for tmpfs only");
    }
    if let (Some(context), Source::Fs { fstype, .. }) = (context, &source) {
        // The filesystems that take a context (selinux mount options); proc and sysfs have fixed ones,
        // and mqueue's was made with the ipc namespace: its root is labelled when it is mounted.
        if matches!(fstype.as_str(), "tmpfs" | "devpts" | "ramfs" | "overlay") {
            options.data.push(context.to_owned());
        }
    }
    let on_proc = check_proc(at, &destination, &source, findings);
    let directories = Vec::new();
    Some(Mount { at, source, destination, options, idmap: None, on_proc, directories })
}

fn source(
    at: At,
    spec: &oci_spec::runtime::Mount,
    options: &Options,
    bundle: &Path,
    findings: &mut Findings,
) -> Option<Source> {
    let fstype = spec.typ().as_deref().unwrap_or_default();
    let source = spec.source().as_deref().map(Path::to_string_lossy).unwrap_or_default();
    no_nul(at.leaf("/type"), fstype, findings);
    no_nul(at.leaf("/source"), &source, findings);
    let bind = options.bind.or((fstype == "bind").then_some(false));
    if options.remount {
        if !options.data.is_empty() || !options.super_flags.is_empty() {
            let text = "a remount changes attributes of the mount, not of its filesystem";
            findings.problem(Code::E_MOUNT_OPTION, at.leaf("/options"), text);
        }
        return Some(Source::Remount);
    }
    if let Some(recursive) = bind {
        if source.is_empty() {
            findings.problem(
                Code::E_MOUNT_SOURCE,
                at.leaf("/source"),
                "missing: a bind mount needs one",
            );
            return None;
        }
        return Some(Source::Bind { path: bundle.join(&*source), recursive });
    }
    match fstype {
        "" => {
            findings.problem(
                Code::E_MOUNT_TYPE,
                at.leaf("/type"),
                "missing: only bind mounts need none",
            );
            None
        }
        "cgroup" | "cgroup2" => Some(Source::Cgroup),
        fstype => Some(Source::Fs { fstype: fstype.to_owned(), source: source.into_owned() }),
    }
}

/// Labels and sysctls go through a private procfs, and nothing may stand in for the rest of /proc
/// (CVE-2019-16884, CVE-2015-3630). Returns whether this mount may touch a procfs.
fn check_proc(at: At, destination: &str, source: &Source, findings: &mut Findings) -> bool {
    if destination == "/proc" {
        return match source {
            Source::Fs { fstype, .. } if fstype == "proc" => true,
            // That its source is the root of a procfs is checked when it has been opened.
            Source::Bind { .. } | Source::Remount => true,
            _ => {
                findings.problem(
                    Code::E_MOUNT_ON_PROC,
                    at.leaf("/destination"),
                    "only a procfs may be mounted on /proc",
                );
                false
            }
        };
    }
    if destination.starts_with("/proc/") {
        let allowed = PROC_FILES.contains(&destination);
        if !allowed {
            findings.problem(
                Code::E_MOUNT_ON_PROC,
                at.leaf("/destination"),
                "nothing may be mounted below /proc",
            );
        }
        return allowed;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_cleaned_lexically() {
        assert_eq!(clean(Path::new("/a//b/./c/../d/")), "/a/b/d");
        assert_eq!(clean(Path::new("../../etc")), "/etc");
        assert_eq!(clean(Path::new("/")), "/");
    }
}
