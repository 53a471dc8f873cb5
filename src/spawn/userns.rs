//! User namespaces seen from outside: their maps are written by the parent, while a child waits.
//!
//! Owns: `/proc/PID/{uid_map,gid_map,setgroups}`, newuidmap(1) and newgidmap(1).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Command;

use crate::error::{At, Code, Error, Result};
use crate::host::Host;
use crate::plan::ids::{self, IdMappings, IdRange};
use crate::sys;

const CAP_SETGID: u32 = 6;
const CAP_SETUID: u32 = 7;
/// Longest map read, in bytes: 340 lines of three padded numbers.
const MAP_MAX: usize = 16 << 10;

/// One of the two maps.
struct Map<'a> {
    at: At,
    file: &'static str,
    tool: &'static str,
    ranges: &'a [IdRange],
    /// The caller's own id, which it may map alone without any right.
    own: u32,
    privileged: bool,
}

impl Map<'_> {
    /// Whether we may write it ourselves: with the capability over our own user namespace, or the one
    /// id that we are (user_namespaces(7)).
    fn is_direct(&self) -> bool {
        let alone = matches!(self.ranges, [range] if range.size == 1 && range.host == self.own);
        self.privileged || alone
    }
}

/// Writes the maps of a child that waits, dumpable, in its new user namespace. What the caller may not
/// map itself is given to newuidmap(1) and newgidmap(1), which ask `/etc/subuid` and `/etc/subgid`.
///
/// # Errors
/// Name the map; those of the programs carry what they said.
pub fn write_maps(pid: i32, maps: &IdMappings, host: &Host) -> Result<()> {
    let has = |capability: u32| host.capabilities & 1 << capability != 0;
    let uids = Map {
        at: At::of("/linux/uidMappings"),
        file: "uid_map",
        tool: "newuidmap",
        ranges: &maps.uids,
        own: host.euid,
        privileged: has(CAP_SETUID),
    };
    let gids = Map {
        at: At::of("/linux/gidMappings"),
        file: "gid_map",
        tool: "newgidmap",
        ranges: &maps.gids,
        own: host.egid,
        privileged: has(CAP_SETGID),
    };
    if gids.is_direct() && !gids.privileged {
        // Else a process could drop a group that keeps it from a file (CVE-2014-8989).
        write(pid, "setgroups", "deny").map_err(Error::at(Code::E_ID_MAPPING, gids.at))?;
    }
    for map in [uids, gids] {
        if map.is_direct() {
            write(pid, map.file, &ids::text(map.ranges))
                .map_err(Error::at(Code::E_ID_MAPPING, map.at))?;
        } else {
            by_program(pid, &map)?;
        }
    }
    Ok(())
}

/// One write(2): the kernel takes a map whole or not at all.
fn write(pid: i32, name: &str, value: &str) -> sys::Result<()> {
    let path = sys::cstr("open", format!("/proc/{pid}/{name}"))?;
    let file = sys::fs::open(&path, libc::O_WRONLY)?;
    sys::fs::write(file.as_fd(), value.as_bytes())
        .map(drop)
        .map_err(|error| error.about(format_args!("{:?} to {name}", value.trim_end())))
}

fn by_program(pid: i32, map: &Map<'_>) -> Result<()> {
    let (at, tool) = (map.at, map.tool);
    let mut command = Command::new(tool);
    command.arg(pid.to_string());
    for range in map.ranges {
        command.args([range.container, range.host, range.size].map(|number| number.to_string()));
    }
    if std::env::var_os("PATH").is_none() {
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    }
    let output = command.output().map_err(|error| {
        Error::text(
            Code::E_ID_MAPPING,
            format!("{at}: ids that are not the caller's need {tool}, and {tool}: {error}"),
        )
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::text(Code::E_ID_MAPPING, format!("{at}: {tool}: {}", sys::visible(said.trim()))))
}

/// A child that only waits, for as long as this lives.
#[derive(Debug)]
struct Waiting {
    child: sys::process::Child,
    socket: OwnedFd,
}

impl Waiting {
    /// Clones into new namespaces, or has the child enter one.
    fn clone(flags: i32, enter: Option<BorrowedFd<'_>>) -> Result<Self> {
        let (socket, theirs) = sys::socket::seqpacket_pair()?;
        let Some(child) = sys::process::clone3(u64::from(flags.cast_unsigned()), None)? else {
            // Its copy of our end would keep it from ever seeing that we have gone.
            drop(socket);
            wait_for_the_end(&theirs, enter)
        };
        Ok(Self { child, socket })
    }

    /// Waits until the child has entered.
    fn entered(&self) -> Result<()> {
        let mut errno = [0u8; 4];
        match sys::socket::receive(self.socket.as_fd(), &mut errno)? {
            (4, _) if errno == [0; 4] => Ok(()),
            (4, _) => Err(sys::Error::new("setns", "", i32::from_ne_bytes(errno)).into()),
            _ => Err(Error::text(
                Code::E_INTERNAL,
                "the child that was to enter the namespace is gone",
            )),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // It ends with the socket in any case; this is for not leaving a zombie.
        let killed = sys::process::pidfd_send_signal(self.child.pidfd.as_fd(), libc::SIGKILL);
        if killed.is_ok() && sys::process::wait(self.child.pidfd.as_fd(), true).is_err() {
            crate::log::stderr_line("onggi: a helper process could not be waited for");
        }
    }
}

/// The child: nothing but system calls, until the parent's end of the socket closes.
fn wait_for_the_end(socket: &OwnedFd, enter: Option<BorrowedFd<'_>>) -> ! {
    if sys::process::set_pdeathsig(libc::SIGKILL).is_err() {
        sys::process::exit_now(1);
    }
    if let Some(namespace) = enter {
        let entered = sys::process::set_dumpable(false)
            .and_then(|()| sys::process::setns(namespace, libc::CLONE_NEWUSER));
        let errno = entered.err().map_or(0, |error| error.errno);
        if sys::socket::send(socket.as_fd(), &errno.to_ne_bytes(), &[]).is_err() {
            sys::process::exit_now(1);
        }
    }
    // A signal, an error or the end: there is nothing to do but go.
    let result = sys::socket::receive(socket.as_fd(), &mut [0; 4]);
    sys::process::exit_now(i32::from(result.is_err()))
}

/// A new user namespace with these maps, held by its file: for mounts that map ids.
///
/// # Errors
/// As [`write_maps`].
pub fn make(maps: &IdMappings, host: &Host) -> Result<OwnedFd> {
    let waiting = Waiting::clone(libc::CLONE_NEWUSER, None)?;
    write_maps(waiting.child.pid, maps, host)?;
    let path = sys::cstr("open", format!("/proc/{}/ns/user", waiting.child.pid))?;
    Ok(sys::fs::open(&path, libc::O_RDONLY)?)
}

/// The maps of a user namespace, in ids of our own: the kernel shows them for processes only.
///
/// # Errors
/// When it may not be entered.
pub fn maps_of(namespace: BorrowedFd<'_>) -> Result<IdMappings> {
    let waiting = Waiting::clone(0, Some(namespace))?;
    waiting.entered()?;
    maps_of_process(waiting.child.pid)
}

/// The maps of the user namespace that a process is in, in ids of our own.
///
/// # Errors
/// When it is gone.
pub fn maps_of_process(pid: i32) -> Result<IdMappings> {
    Ok(IdMappings { uids: read_map(pid, "uid_map")?, gids: read_map(pid, "gid_map")? })
}

fn read_map(pid: i32, name: &str) -> Result<Vec<IdRange>> {
    let path = format!("/proc/{pid}/{name}");
    let file = sys::fs::open(&sys::cstr("open", &path)?, libc::O_RDONLY)?;
    let bytes = sys::fs::read_to_end(file.as_fd(), MAP_MAX)?;
    ids::parse(&String::from_utf8_lossy(&bytes))
        .ok_or_else(|| Error::text(Code::E_ID_MAPPING, format!("{path}: is not a map of ids")))
}
