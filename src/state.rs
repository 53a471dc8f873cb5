//! What is kept of a container in its state directory, and what `state` prints of it.
//!
//! Files of `ROOT/ID/`, all 0600 in a 0700 directory: `state.json` (this record: written before the
//! first outside effect, then replaced whole), `config.json` (the very bytes create read, so that a
//! later edit of the bundle means nothing), `seccomp.bpf` (the compiled filter, for exec), `gate` and
//! `error` (the FIFOs between init and `start`).

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::{Deserialize, Serialize, Serializer};

use crate::cgroup::Record;
use crate::error::{Code, Error, Result};
use crate::sys;

/// Largest state.json we are willing to read, in bytes.
const MAX_BYTES: usize = 1 << 20;

/// A process that cannot be mistaken for a later one with the same pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Pid {
    /// Process id in the pid namespace of whoever created the container.
    pub pid: i32,
    /// Field 22 of /proc/PID/stat: clock ticks after boot.
    pub start: u64,
}

/// A network device of the host that is, or was to be, the container's.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct MovedDevice {
    /// Its name in the runtime's network namespace.
    pub host: String,
    /// Its number there.
    pub host_index: i32,
    /// It was up.
    pub up: bool,
    /// Its number in the container.
    pub index: i32,
}

/// The resctrl group of a container.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RdtRecord {
    /// Absolute path of the group.
    pub group: PathBuf,
    /// It was, or was to be, made by create.
    pub made: bool,
    /// config.json names it, so others may share it.
    pub named: bool,
    /// Absolute path of the container's own monitoring group.
    pub monitor: Option<PathBuf>,
}

// These are short lists in the record, in the order of their members: its size is charged to every create.

impl Serialize for Pid {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        (self.pid, self.start).serialize(to)
    }
}

impl Serialize for MovedDevice {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        (&self.host, self.host_index, self.up, self.index).serialize(to)
    }
}

impl Serialize for RdtRecord {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        let monitor = self.monitor.as_ref().map(|path| path.to_string_lossy());
        (self.group.to_string_lossy(), self.made, self.named, monitor).serialize(to)
    }
}

/// A path that is no UTF-8 is kept for the eye only.
fn lossy<S: Serializer>(path: &Path, to: S) -> std::result::Result<S::Ok, S::Error> {
    path.to_string_lossy().serialize(to)
}

fn lossy_option<S: Serializer>(
    path: &Option<PathBuf>,
    to: S,
) -> std::result::Result<S::Ok, S::Error> {
    path.as_ref().map(|path| path.to_string_lossy()).serialize(to)
}

/// The record, as it is written. What is not required when it is read came with a later version.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The container's id.
    pub id: String,
    /// As config.json says.
    pub oci_version: String,
    /// Absolute path of the bundle.
    #[serde(serialize_with = "lossy")]
    pub bundle: PathBuf,
    /// Absolute path of the root filesystem.
    #[serde(serialize_with = "lossy")]
    pub rootfs: PathBuf,
    /// The boot in which the pids below mean something.
    pub boot: String,
    /// The runtime process that makes it; gone once the container is created.
    pub creator: Option<Pid>,
    /// The container's init; none until it has been cloned.
    pub init: Option<Pid>,
    /// When it was created, RFC 3339; empty until then.
    pub created: String,
    /// Its cgroups.
    pub cgroup: Record,
    /// Flags of the seccomp filter in `seccomp.bpf`, if there is one.
    pub seccomp_flags: Option<u32>,
    /// The container has a pid namespace of its own, so that all dies with init.
    #[serde(default)]
    pub own_pid_namespace: bool,
    /// The kinds of namespaces that were made for it, as `CLONE_NEW*`.
    #[serde(default)]
    pub new_namespaces: i32,
    /// It has a session keyring of its own, which exec joins.
    #[serde(default)]
    pub keyring: bool,
    /// The name of that: nobody can guess it, and make one that create would join (keyctl(2)). Empty in records
    /// of before; then it is of the id alone.
    #[serde(default)]
    pub keyring_name: String,
    /// Argument of personality(2), for exec.
    pub personality: Option<u64>,
    /// Processes of exec are contained without being asked for it.
    #[serde(default)]
    pub exec_contained: bool,
    /// The root is not that of the mount namespace: exec must enter it by init's.
    #[serde(default)]
    pub chroot: bool,
    /// Arguments of set_mempolicy(2), for exec.
    pub memory_policy: Option<(u32, Vec<u64>)>,
    /// Its processes keep their caller's supplementary groups, for exec.
    #[serde(default)]
    pub keep_groups: bool,
    /// It has poststart hooks, so that start need not read the configuration to know.
    #[serde(default)]
    pub poststart: bool,
    /// It has poststop hooks, so that delete need not.
    #[serde(default)]
    pub poststop: bool,
    /// Its resctrl group.
    pub rdt: Option<RdtRecord>,
    /// Network devices that go back if create does not succeed.
    #[serde(default)]
    pub net_devices: Vec<MovedDevice>,
    /// The joined network namespace that they are in. A new one dies with init, and its devices with it or
    /// (real ones) back to the host.
    #[serde(serialize_with = "lossy_option")]
    pub network: Option<PathBuf>,
    /// A pid file that create has to take away when it fails.
    #[serde(serialize_with = "lossy_option")]
    pub pid_file: Option<PathBuf>,
    /// The creator's user name, for `list`.
    #[serde(default)]
    pub owner: String,
}

/// The time of what has none: Go's zero time, as engines decode nothing else but a time (CRI-O, go-runc).
pub const NEVER: &str = "0001-01-01T00:00:00Z";

/// A name for the session keyring of a container, as `State::keyring_name`.
pub fn keyring_name(id: &str) -> Result<String> {
    Ok(format!("_ses.{id}.{:016x}", u64::from_ne_bytes(sys::random()?)))
}

impl State {
    /// The session keyring's name.
    #[must_use]
    pub fn keyring_name(&self) -> String {
        if self.keyring_name.is_empty() {
            return format!("_ses.{}", self.id);
        }
        self.keyring_name.clone()
    }

    /// When it was created, as it is told.
    #[must_use]
    pub fn told_created(&self) -> &str {
        if self.created.is_empty() { NEVER } else { &self.created }
    }

    /// Replaces the record in one step: a reader sees the old or the new one, never half of one.
    pub fn save(&self, dir: BorrowedFd<'_>) -> Result<()> {
        let bytes = serde_json::to_vec(self)
            .map_err(|error| Error::text(Code::E_INTERNAL, format!("state.json: {error}")))?;
        write_file(dir, c".state.json", &bytes)?;
        sys::fs::renameat(dir, c".state.json", c"state.json")?;
        Ok(())
    }

    /// Reads the record; `None` when there is none. One that is there and makes no sense is an error: what
    /// it knew of (processes, cgroups) must not be forgotten.
    pub fn load(dir: BorrowedFd<'_>) -> Result<Option<Self>> {
        let bytes = match read_file(dir, c"state.json", MAX_BYTES) {
            Ok(bytes) => bytes,
            Err(error) if error.errno == libc::ENOENT => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        match serde_json::from_slice(&bytes) {
            Ok(state) => Ok(Some(state)),
            Err(_) => Err(Error::text(
                Code::E_STATE_DAMAGED,
                "state.json is damaged: end what is left of the container and remove its directory in \
                 the state root by hand",
            )),
        }
    }
}

/// Writes a new file of mode 0600 in the state directory.
pub fn write_file(dir: BorrowedFd<'_>, name: &std::ffi::CStr, bytes: &[u8]) -> Result<()> {
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC | libc::O_NOFOLLOW;
    let file = sys::fs::openat(dir, name, flags, 0o600)?;
    sys::fs::write_all(file.as_fd(), bytes)
        .map_err(|error| Error::from(error.about(name.to_string_lossy())))
}

/// Reads a file of the state directory.
pub fn read_file(dir: BorrowedFd<'_>, name: &std::ffi::CStr, limit: usize) -> sys::Result<Vec<u8>> {
    let file = sys::fs::openat(dir, name, libc::O_RDONLY | libc::O_NOFOLLOW, 0)?;
    sys::fs::read_small(file.as_fd(), limit)
}

/// This boot's id: pids of another boot mean nothing.
pub fn boot_id() -> Result<&'static str> {
    static BOOT: OnceLock<String> = OnceLock::new();
    if let Some(boot) = BOOT.get() {
        return Ok(boot);
    }
    let file = sys::fs::open(c"/proc/sys/kernel/random/boot_id", libc::O_RDONLY)?;
    let bytes = sys::fs::read_small(file.as_fd(), 64)?;
    Ok(BOOT.get_or_init(|| String::from_utf8_lossy(&bytes).trim().to_owned()))
}

/// State letter and start time of a process; `None` when there is none.
pub fn process_stat(pid: i32) -> Result<Option<(char, u64)>> {
    let path = sys::cstr("open", format!("/proc/{pid}/stat"))?;
    let file = match sys::fs::open(&path, libc::O_RDONLY) {
        Ok(file) => file,
        Err(error) if error.errno == libc::ENOENT => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let bytes = match sys::fs::read_small(file.as_fd(), 4096) {
        Ok(bytes) => bytes,
        // The process ended between open and read.
        Err(error) if error.errno == libc::ESRCH => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    match <procfs::process::Stat as procfs::FromRead>::from_read(bytes.as_slice()) {
        Ok(stat) => Ok(Some((stat.state, stat.starttime))),
        Err(error) => Err(Error::text(Code::E_SYSTEM, format!("/proc/{pid}/stat: {error}"))),
    }
}

/// Our own, or a child's, identity.
pub fn identify(pid: i32) -> Result<Pid> {
    match process_stat(pid)? {
        Some((_, start)) => Ok(Pid { pid, start }),
        None => Err(Error::text(Code::E_INIT_DIED, format!("process {pid} has disappeared"))),
    }
}

/// The current time in RFC 3339 with nanoseconds, UTC.
#[must_use]
pub fn now_rfc3339() -> String {
    let (seconds, nanos) = sys::process::now();
    rfc3339(seconds, nanos)
}

/// Civil date from seconds since 1970, by Howard Hinnant's algorithm for the proleptic calendar.
fn rfc3339(seconds: i64, nanos: i64) -> String {
    let days = seconds.div_euclid(86400);
    let rest = seconds.rem_euclid(86400);
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc3339() {
        assert_eq!(rfc3339(0, 0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(rfc3339(1_582_934_400, 5), "2020-02-29T00:00:00.000000005Z");
        assert_eq!(rfc3339(1_795_209_599, 0), "2026-11-20T21:19:59.000000000Z");
    }

    #[test]
    fn our_own_stat_is_readable() {
        let stat = process_stat(sys::process::getpid()).ok().flatten();
        assert!(stat.is_some_and(|(letter, start)| "RSD".contains(letter) && start > 0));
    }
}
