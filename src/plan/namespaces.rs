//! Which namespaces are new, joined or inherited.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Linux, LinuxNamespaceType};

use crate::error::{At, Code, Findings};
use crate::host::Host;

/// The eight kinds of namespaces(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the kernel's names")]
pub enum Kind {
    Mount,
    Uts,
    Ipc,
    Network,
    Pid,
    Cgroup,
    User,
    Time,
}

/// All kinds, in the order in which `features` lists them.
pub const KINDS: [Kind; 8] = [
    Kind::Cgroup,
    Kind::Ipc,
    Kind::Mount,
    Kind::Network,
    Kind::Pid,
    Kind::Time,
    Kind::User,
    Kind::Uts,
];

impl Kind {
    /// The `CLONE_NEW*` flag.
    #[must_use]
    pub fn flag(self) -> i32 {
        match self {
            Self::Mount => libc::CLONE_NEWNS,
            Self::Uts => libc::CLONE_NEWUTS,
            Self::Ipc => libc::CLONE_NEWIPC,
            Self::Network => libc::CLONE_NEWNET,
            Self::Pid => libc::CLONE_NEWPID,
            Self::Cgroup => libc::CLONE_NEWCGROUP,
            Self::User => libc::CLONE_NEWUSER,
            Self::Time => 0x80, // CLONE_NEWTIME, Linux 5.6
        }
    }

    /// The spec's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mount => "mount",
            Self::Uts => "uts",
            Self::Ipc => "ipc",
            Self::Network => "network",
            Self::Pid => "pid",
            Self::Cgroup => "cgroup",
            Self::User => "user",
            Self::Time => "time",
        }
    }

    /// The file's name in `/proc/PID/ns`.
    #[must_use]
    pub fn file(self) -> &'static str {
        match self {
            Self::Mount => "mnt",
            Self::Network => "net",
            other => other.name(),
        }
    }

    fn of(spec: LinuxNamespaceType) -> Self {
        match spec {
            LinuxNamespaceType::Mount => Self::Mount,
            LinuxNamespaceType::Uts => Self::Uts,
            LinuxNamespaceType::Ipc => Self::Ipc,
            LinuxNamespaceType::Network => Self::Network,
            LinuxNamespaceType::Pid => Self::Pid,
            LinuxNamespaceType::Cgroup => Self::Cgroup,
            LinuxNamespaceType::User => Self::User,
            LinuxNamespaceType::Time => Self::Time,
        }
    }
}

/// A namespace to enter by path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// What it must be.
    pub kind: Kind,
    /// Where it is.
    pub path: PathBuf,
    /// Who asked for it.
    pub at: At,
}

/// What becomes of each kind; a kind in neither list is inherited.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// To be made.
    pub new: Vec<Kind>,
    /// To be entered.
    pub joined: Vec<Joined>,
    /// Offsets of the new time namespace's clocks, as the kernel takes them.
    pub time_offsets: Vec<String>,
    /// The mount namespace is another's, but the container's root is built in one that is its own meanwhile
    /// ([`Switch::Carry`](super::Switch)). From a user namespace of its own it could not come back.
    pub carries_root: bool,
}

impl Namespaces {
    /// Whether the container gets a new one of this kind.
    #[must_use]
    pub fn is_new(&self, kind: Kind) -> bool {
        self.new.contains(&kind)
    }

    /// Whether the container enters an existing one of this kind.
    #[must_use]
    pub fn is_joined(&self, kind: Kind) -> bool {
        self.joined.iter().any(|joined| joined.kind == kind)
    }

    /// Whether something can be mounted that is the container's alone.
    #[must_use]
    pub fn may_mount(&self) -> bool {
        self.is_new(Kind::Mount) || self.carries_root
    }

    /// The file of a namespace to be entered.
    #[must_use]
    pub fn path_of(&self, kind: Kind) -> Option<&Path> {
        self.joined.iter().find(|joined| joined.kind == kind).map(|joined| joined.path.as_path())
    }

    /// The `CLONE_NEW*` flags of what clone3(2) makes: all that is new, but with a user namespace only
    /// that and the pid namespace. The cgroup namespace is made by the child once it is in its cgroup,
    /// for its root is where one is; the time namespace once its clocks are set.
    #[must_use]
    pub fn cloned(&self) -> i32 {
        self.flags(|kind| {
            matches!(kind, Kind::User | Kind::Pid)
                || !(self.is_own(Kind::User) || matches!(kind, Kind::Cgroup | Kind::Time))
        })
    }

    /// The flags of what the child makes as root of its user namespace.
    #[must_use]
    pub fn unshared(&self) -> i32 {
        self.flags(|kind| !matches!(kind, Kind::User | Kind::Pid | Kind::Cgroup | Kind::Time))
    }

    fn flags(&self, which: impl Fn(Kind) -> bool) -> i32 {
        self.new.iter().filter(|kind| which(**kind)).fold(0, |flags, kind| flags | kind.flag())
    }

    /// Whether the container has its own: new, or another's that was named.
    #[must_use]
    pub fn is_own(&self, kind: Kind) -> bool {
        self.is_new(kind) || self.is_joined(kind)
    }
}

/// Sorts the list of config.json into new and joined.
pub fn plan(linux: &Linux, host: &Host, findings: &mut Findings) -> Namespaces {
    let mut namespaces = Namespaces::default();
    for (index, spec) in linux.namespaces().iter().flatten().enumerate() {
        let at = At::item("/linux/namespaces", index);
        let kind = Kind::of(spec.typ());
        if namespaces.is_own(kind) {
            findings.problem(
                Code::E_NAMESPACE_DUPLICATE,
                at,
                format!("duplicate namespace of type {}", kind.name()),
            );
            continue;
        }
        match spec.path().as_ref().filter(|path| !path.as_os_str().is_empty()) {
            None => namespaces.new.push(kind),
            Some(path) if !path.is_absolute() => {
                findings.problem(Code::E_NOT_ABSOLUTE, at.leaf("/path"), "not an absolute path");
            }
            Some(path) => {
                super::check::no_nul(at.leaf("/path"), &path.to_string_lossy(), findings);
                namespaces.joined.push(Joined { kind, path: path.clone(), at });
            }
        }
    }
    namespaces.time_offsets = time_offsets(linux, &namespaces, findings);
    namespaces.carries_root =
        host.mounts && !namespaces.is_new(Kind::Mount) && !namespaces.is_own(Kind::User);
    namespaces
}

/// `linux.timeOffsets` as lines of `/proc/PID/timens_offsets` (time_namespaces(7)).
fn time_offsets(linux: &Linux, namespaces: &Namespaces, findings: &mut Findings) -> Vec<String> {
    let at = "/linux/timeOffsets";
    let mut lines = Vec::new();
    for (clock, offset) in linux.time_offsets().iter().flatten() {
        let place = format!("{at}/{}", crate::error::escape(clock));
        let nanosecs = offset.nanosecs().unwrap_or(0);
        if !matches!(clock.as_str(), "monotonic" | "boottime") {
            findings.problem(Code::E_TIME_OFFSET, &place, "is none of monotonic, boottime");
        }
        if nanosecs > 999_999_999 {
            let at = format!("{place}/nanosecs");
            findings.problem(Code::E_TIME_OFFSET, at, "is a second or more");
        }
        lines.push(format!("{clock} {} {nanosecs}\n", offset.secs().unwrap_or(0)));
    }
    if !lines.is_empty() && !namespaces.is_new(Kind::Time) {
        findings.problem(Code::E_NEEDS_NAMESPACE, at, "needs a new time namespace");
    }
    lines.sort();
    lines
}
