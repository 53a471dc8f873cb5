//! A container as seen by every command but create: its state directory, its status, its lock.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cgroup::{Group, Mounts, Record};
use crate::error::{Code, DOES_NOT_EXIST, Error, Result};
use crate::state::{self, Pid, State};
use crate::{bundle, sys};

/// The spec's states, and runc's `paused`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the spec's names")]
pub enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    /// The word in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// An opened container.
#[derive(Debug)]
pub struct Container {
    /// Its state directory.
    pub dir: OwnedFd,
    /// The record in it.
    pub state: State,
}

/// The files of a state directory, in the order in which they may go.
const FILES: [&std::ffi::CStr; 9] = [
    c"gate",
    c"error",
    c".resources.json",
    c"resources.json",
    c"seccomp.bpf",
    c"config.json",
    c".config.json",
    c".state.json",
    c"state.json",
];

/// Opens the state root; `None` when it is not there. It must be a real directory of ours that nobody
/// else can write to: its records are acted on with our rights.
pub fn open_root(root: &Path) -> Result<Option<OwnedFd>> {
    let name = sys::cstr("open", root.as_os_str().as_bytes())?;
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let dir = match sys::fs::open(&name, flags) {
        Ok(dir) => dir,
        Err(error) if error.errno == libc::ENOENT => return Ok(None),
        Err(error) => return Err(Error::at(Code::E_STATE_ROOT, "state root")(error)),
    };
    let stat = sys::fs::fstat(dir.as_fd())?;
    if stat.st_uid != sys::cred::euid() || stat.st_mode & 0o022 != 0 {
        return Err(Error::text(
            Code::E_STATE_ROOT,
            format!(
                "state root {}: not ours alone (owner {}, mode {:04o})",
                root.display(),
                stat.st_uid,
                stat.st_mode & 0o7777
            ),
        ));
    }
    Ok(Some(dir))
}

/// Makes the state root where it is missing, 0700, and opens it.
pub fn make_root(root: &Path) -> Result<OwnedFd> {
    if let Some(dir) = open_root(root)? {
        return Ok(dir);
    }
    // A user's runtime directory is cleaned of what is old, but not of what is sticky (XDG base
    // directories; runc does so, too).
    let runtime_dir = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
    let sticky = runtime_dir.is_some_and(|dir| root.starts_with(dir));
    let mut parents: Vec<&Path> = root.ancestors().collect();
    parents.reverse();
    for parent in parents {
        let name = sys::cstr("mkdir", parent.as_os_str().as_bytes())?;
        let mode = if sticky && parent == root { 0o1700 } else { 0o700 };
        match sys::fs::mkdirat(sys::fs::CWD, &name, mode) {
            Ok(()) => {}
            // It was there, or somebody was faster.
            Err(error) if error.errno == libc::EEXIST => {}
            Err(error) => return Err(Error::at(Code::E_STATE_ROOT, "state root")(error)),
        }
    }
    open_root(root)?.ok_or_else(|| Error::text(Code::E_STATE_ROOT, "state root vanished"))
}

fn check_id(id: &str) -> Result<()> {
    crate::plan::check::container_id(id).map_err(|text| Error::text(Code::E_ID_INVALID, text))
}

/// Opens a container's directory; `None` when it is not there.
pub fn open_dir_in(root: BorrowedFd<'_>, id: &str) -> Result<Option<OwnedFd>> {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    match sys::fs::openat(root, &sys::cstr("open", id)?, flags, 0) {
        Ok(dir) => Ok(Some(dir)),
        Err(error) if error.errno == libc::ENOENT => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Removes a state directory; one that is not there has been removed.
pub fn remove_named(root: BorrowedFd<'_>, id: &str) -> Result<()> {
    match open_dir_in(root, id)? {
        Some(dir) => remove_dir(root, id, dir.as_fd()),
        None => Ok(()),
    }
}

/// Removes the state directory `dir`, whose name is the id, and all in it.
pub fn remove_dir(root: BorrowedFd<'_>, id: &str, dir: BorrowedFd<'_>) -> Result<()> {
    let name = sys::cstr("rmdir", id)?;
    for file in FILES {
        absent(sys::fs::unlinkat(dir, file, 0))?;
    }
    remove_notify(dir)?;
    match sys::fs::unlinkat(root, &name, libc::AT_REMOVEDIR) {
        // Files that are none of ours: a damaged directory must be removable all the same.
        Err(error) if error.errno == libc::ENOTEMPTY => {
            for file in sys::fs::list(dir)? {
                absent(sys::fs::unlinkat(dir, &file, 0))?;
            }
            absent(sys::fs::unlinkat(root, &name, libc::AT_REMOVEDIR))
        }
        result => absent(result),
    }
}

/// The directory of the sd_notify(3) socket; the container sees it read-only, so there is nothing else.
fn remove_notify(dir: BorrowedFd<'_>) -> Result<()> {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let notify = match sys::fs::openat(dir, crate::sd_notify::DIRECTORY, flags, 0) {
        Err(error) if matches!(error.errno, libc::ENOENT | libc::ENOTDIR) => return Ok(()),
        result => result?,
    };
    absent(sys::fs::unlinkat(notify.as_fd(), crate::sd_notify::SOCKET, 0))?;
    absent(sys::fs::unlinkat(dir, crate::sd_notify::DIRECTORY, libc::AT_REMOVEDIR))
}

/// Removing what is not there has succeeded.
fn absent(result: sys::Result<()>) -> Result<()> {
    match result {
        Err(error) if error.errno != libc::ENOENT => Err(error.into()),
        _ => Ok(()),
    }
}

/// A pidfd of exactly this process; `None` when it has ended, is a zombie, or is of another boot.
pub fn open_process(who: Option<Pid>, boot: &str) -> Result<Option<OwnedFd>> {
    let Some(who) = who else { return Ok(None) };
    let Some(pidfd) = sys::process::pidfd_open(who.pid)? else { return Ok(None) };
    // Compared after the open: from here on the pidfd is this very process.
    Ok(is_alive(Some(who), boot)?.then_some(pidfd))
}

/// Whether exactly this process is there, and no zombie.
fn is_alive(who: Option<Pid>, boot: &str) -> Result<bool> {
    let Some(who) = who else { return Ok(false) };
    match state::process_stat(who.pid)? {
        Some((letter, start)) if start == who.start && !matches!(letter, 'Z' | 'X') => {
            Ok(state::boot_id()? == boot)
        }
        _ => Ok(false),
    }
}

/// What a look at a container's processes gave.
#[derive(Debug)]
pub struct Look {
    /// The status.
    pub status: Status,
    /// A pidfd of the living init.
    pub init: Option<OwnedFd>,
    /// The gate's writing end, when init waits at it.
    pub gate: Option<OwnedFd>,
}

impl Container {
    /// Opens a container by id.
    pub fn open(root: &Path, id: &str) -> Result<Self> {
        match open_root(root)? {
            Some(root) => Self::open_in(root.as_fd(), id),
            None => {
                check_id(id)?;
                Err(Error::text(Code::E_NOT_FOUND, DOES_NOT_EXIST))
            }
        }
    }

    /// Opens a container by id in an open state root.
    pub fn open_in(root: BorrowedFd<'_>, id: &str) -> Result<Self> {
        check_id(id)?;
        let missing = || Error::text(Code::E_NOT_FOUND, DOES_NOT_EXIST);
        let dir = open_dir_in(root, id)?.ok_or_else(missing)?;
        // A directory without a record is a create that died before it did anything.
        let state = State::load(dir.as_fd())?.ok_or_else(missing)?;
        Ok(Self { dir, state })
    }

    /// Takes the container's lock, for as long as the result lives.
    pub fn lock(&self) -> Result<Lock<'_>> {
        lock(self.dir.as_fd())
    }

    /// A pidfd of the living init.
    pub fn init(&self) -> Result<Option<OwnedFd>> {
        open_process(self.state.init, &self.state.boot)
    }

    /// Init's pid, for files in /proc; use [`Container::init`] to act on it.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.state.init.map_or(0, |init| init.pid)
    }

    /// Init's pid as it is told: 0 when it has ended.
    #[must_use]
    pub fn pid_at(&self, status: Status) -> i32 {
        if status == Status::Stopped { 0 } else { self.pid() }
    }

    /// The status, found out and not remembered.
    pub fn status(&self) -> Result<Status> {
        self.status_with(&mut Mounts::default())
    }

    /// The same, for a look at many containers.
    pub fn status_with(&self, mounts: &mut Mounts) -> Result<Status> {
        let alive = is_alive(self.state.init, &self.state.boot)?;
        Ok(self.status_and_gate(alive, || self.frozen(mounts))?.0)
    }

    /// The same, when its cgroups are open already, those of [`Group::open_freezer`] among them.
    pub fn status_in(&self, group: Option<&Group>) -> Result<Status> {
        let alive = is_alive(self.state.init, &self.state.boot)?;
        let frozen = || group.map_or(Ok(false), Group::frozen);
        Ok(self.status_and_gate(alive, frozen)?.0)
    }

    /// Looks whether init is alive, holds the gate, is frozen, and keeps what that took.
    pub fn look(&self, mounts: &mut Mounts) -> Result<Look> {
        let init = self.init()?;
        let (status, gate) = self.status_and_gate(init.is_some(), || self.frozen(mounts))?;
        Ok(Look { status, init, gate })
    }

    fn frozen(&self, mounts: &mut Mounts) -> Result<bool> {
        let group = self.cgroup_by(|record| Group::open_freezer(record, mounts))?;
        group.map_or(Ok(false), |group| group.frozen())
    }

    /// The status, by whether init is alive and its cgroup frozen, and the gate if it is open.
    fn status_and_gate(
        &self,
        alive: bool,
        frozen: impl FnOnce() -> Result<bool>,
    ) -> Result<(Status, Option<OwnedFd>)> {
        let committed = !self.state.created.is_empty();
        if !alive {
            let creating = !committed && is_alive(self.state.creator, &self.state.boot)?;
            return Ok((if creating { Status::Creating } else { Status::Stopped }, None));
        }
        if !committed {
            return Ok((Status::Creating, None));
        }
        let gate = self.gate()?;
        let status = match frozen()? {
            true => Status::Paused,
            false if gate.is_some() => Status::Created,
            false => Status::Running,
        };
        Ok((status, gate))
    }

    /// The gate's writing end, when init waits at it.
    pub fn gate(&self) -> Result<Option<OwnedFd>> {
        let flags = libc::O_WRONLY | libc::O_NONBLOCK | libc::O_NOFOLLOW;
        match sys::fs::openat(self.dir.as_fd(), c"gate", flags, 0) {
            Ok(gate) => Ok(Some(gate)),
            // ENOENT: start has been here. ENXIO: nobody waits, init has gone on or is gone.
            Err(error) if matches!(error.errno, libc::ENOENT | libc::ENXIO) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The container's cgroup; `None` when it has none (any more).
    pub fn cgroup(&self) -> Result<Option<Group>> {
        self.cgroup_by(Group::open)
    }

    /// The same, opened by a function of [`Group`]'s. An intent, and the record of another boot, may name
    /// cgroups of somebody else: the container has none then.
    pub fn cgroup_by(
        &self,
        open: impl FnOnce(&Record) -> Result<Option<Group>>,
    ) -> Result<Option<Group>> {
        let own = self.state.cgroup.owned && self.state.boot == state::boot_id()?;
        if own { open(&self.state.cgroup) } else { Ok(None) }
    }

    /// The bytes of config.json as create read them.
    pub fn config(&self) -> Result<Vec<u8>> {
        Ok(state::read_file(self.dir.as_fd(), c"config.json", bundle::MAX_BYTES)?)
    }

    /// The annotations of config.json; unreadable ones are none.
    pub fn annotations(&self) -> Result<Value> {
        #[derive(Default)]
        struct Annotations(Option<Value>);
        impl<'de> serde::Deserialize<'de> for Annotations {
            fn deserialize<D: serde::Deserializer<'de>>(
                deserializer: D,
            ) -> std::result::Result<Self, D::Error> {
                struct Members;
                impl<'de> serde::de::Visitor<'de> for Members {
                    type Value = Annotations;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("config.json")
                    }
                    fn visit_map<A: serde::de::MapAccess<'de>>(
                        self,
                        mut map: A,
                    ) -> std::result::Result<Annotations, A::Error> {
                        let mut found = Annotations::default();
                        while let Some(name) = map.next_key::<std::borrow::Cow<'_, str>>()? {
                            if name == "annotations" {
                                found.0 = Some(map.next_value()?);
                            } else {
                                map.next_value::<serde::de::IgnoredAny>()?;
                            }
                        }
                        Ok(found)
                    }
                }
                deserializer.deserialize_map(Members)
            }
        }
        let config = match self.config() {
            Ok(config) => config,
            // The record is written first; create may not have got to the copy.
            Err(error) if error.errno() == Some(libc::ENOENT) => return Ok(json!({})),
            Err(error) => return Err(error),
        };
        let found: Annotations = serde_json::from_slice(&config).unwrap_or_default();
        Ok(found.0.filter(Value::is_object).unwrap_or_else(|| json!({})))
    }

    /// What the `state` command prints and hooks read (runtime.md, "State").
    pub fn oci_state(&self, status: Status, pid: i32) -> Result<Value> {
        Ok(oci_state(&self.state, status, pid, &self.annotations()?))
    }
}

/// The spec's state object, with runc's additions.
#[must_use]
pub fn oci_state(state: &State, status: Status, pid: i32, annotations: &Value) -> Value {
    json!({
        "ociVersion": state.oci_version,
        "id": state.id,
        "status": status.name(),
        "pid": if status == Status::Stopped { 0 } else { pid },
        "bundle": state.bundle.to_string_lossy(),
        "rootfs": state.rootfs.to_string_lossy(),
        "created": state.told_created(),
        "annotations": annotations,
        "owner": state.owner,
    })
}

/// The held lock.
#[derive(Debug)]
pub struct Lock<'a> {
    dir: BorrowedFd<'a>,
}

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        // Cannot fail on what is locked, and the end of the process would do it, too.
        drop(sys::fs::flock(self.dir, libc::LOCK_UN));
    }
}

/// Takes the lock of a container's directory, for as long as the result lives.
pub fn lock(dir: BorrowedFd<'_>) -> Result<Lock<'_>> {
    sys::fs::flock(dir, libc::LOCK_EX)?;
    Ok(Lock { dir })
}

/// Takes the lock of a container's directory, and does not wait for it for ever: who has it may run hooks, or
/// stand still. flock(2) knows no time, so it is asked again and again.
pub fn lock_within<'a>(dir: BorrowedFd<'a>, id: &str, deadline: Duration) -> Result<Lock<'a>> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(lock) = try_lock(dir)? {
            return Ok(lock);
        }
        if sys::deadline::left().is_some_and(|left| left.is_zero()) {
            // Says so.
            return lock(dir);
        }
        if Instant::now() >= end {
            let text = format!(
                "the lock (flock) of the state directory of {id} is held: somebody else is at work on it"
            );
            return Err(Error::text(Code::E_DELETE, text));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Takes the lock of a container's directory; `None` when somebody else has it.
pub fn try_lock(dir: BorrowedFd<'_>) -> Result<Option<Lock<'_>>> {
    match sys::fs::flock(dir, libc::LOCK_EX | libc::LOCK_NB) {
        Err(error) if error.errno == libc::EWOULDBLOCK => Ok(None),
        result => result.map(|()| Some(Lock { dir })).map_err(Error::from),
    }
}

/// The ids in a state root, sorted.
pub fn ids(root: BorrowedFd<'_>) -> Result<Vec<String>> {
    let mut ids: Vec<String> = sys::fs::list(root)?
        .into_iter()
        .filter_map(|name: CString| name.into_string().ok())
        .filter(|name| crate::plan::check::container_id(name).is_ok())
        .collect();
    ids.sort();
    Ok(ids)
}
