//! A contained exec: its process tree is in a cgroup of its own and ends with its first process, at a
//! deadline, or, with a watcher, when the caller or the runtime dies, however they do.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use super::{UNDO_DEADLINE, end_child};
use crate::cgroup::{ExecLeaf, Group};
use crate::error::{Code, Error, Result};
use crate::{state, sys};

/// The watcher's word, and the runtime's.
const READY: &[u8] = b"r";
const DISMISSED: &[u8] = b"d";

/// The containment of one exec.
#[derive(Debug)]
pub struct Contained {
    leaf: ExecLeaf,
    watcher: Option<Watcher>,
}

/// A process that outlives us by the moment it takes to kill the tree.
#[derive(Debug)]
struct Watcher {
    /// [`DISMISSED`] dismisses it; the end of file is our death.
    line: OwnedFd,
    child: sys::process::Child,
}

/// The process that has called us, for [`contain`].
pub fn caller() -> Result<OwnedFd> {
    let parent = sys::process::getppid();
    let gone = || Error::text(Code::E_OPTION, "--die-with-parent: the caller cannot be seen");
    let pidfd = sys::process::pidfd_open(parent)?.ok_or_else(gone)?;
    // Somebody else has this pid if it has died before the open.
    if sys::process::getppid() == parent { Ok(pidfd) } else { Err(gone()) }
}

/// Makes the leaf, after the leaves of others that are over have been removed; with `caller`, a watcher
/// for it.
pub fn contain(group: Option<&mut Group>, caller: Option<&OwnedFd>) -> Result<Contained> {
    let group = group.ok_or_else(|| {
        Error::text(Code::E_EXEC_CONTAIN, "a contained process needs a container with a cgroup")
    })?;
    group.collect(lives)?;
    let own = state::identify(sys::process::getpid())?;
    let leaf = group.contain(&name(own))?;
    match caller.map(|caller| watch(&leaf, caller)).transpose() {
        Ok(watcher) => Ok(Contained { leaf, watcher }),
        Err(error) => Err(super::also(error, leaf.end(UNDO_DEADLINE))),
    }
}

fn name(who: state::Pid) -> String {
    format!("{}-{}", who.pid, who.start)
}

/// Whether a process that was named so still runs. A name that is none belongs to nobody.
fn lives(name: &str) -> Result<bool> {
    let Some((pid, start)) = name.split_once('-') else { return Ok(false) };
    let (Ok(pid), Ok(start)) = (pid.parse(), start.parse::<u64>()) else { return Ok(false) };
    let stat = state::process_stat(pid)?;
    Ok(stat.is_some_and(|(letter, since)| since == start && !matches!(letter, 'Z' | 'X')))
}

impl Contained {
    /// Notes the first process before it begins.
    pub fn begins(&self, pid: i32) -> Result<()> {
        self.leaf.set_first(&name(state::identify(pid)?))
    }

    /// Kills what is left of the tree and removes its cgroup.
    pub fn end(self) -> Result<()> {
        let ended = self.leaf.end(UNDO_DEADLINE);
        let dismissed = self.watcher.map_or(Ok(()), Watcher::dismiss);
        ended.and(dismissed)
    }
}

impl Watcher {
    fn dismiss(self) -> Result<()> {
        match sys::fs::write(self.line.as_fd(), DISMISSED) {
            Ok(_) => {}
            // Somebody has killed it.
            Err(error) if error.errno == libc::EPIPE => {}
            Err(error) => return Err(super::also(error.into(), end_child(&self.child))),
        }
        sys::process::wait(self.child.pidfd.as_fd(), true)?;
        Ok(())
    }
}

/// Starts the watcher: a clone in a session of its own, which has nothing but the leaf and what it
/// watches, so that nobody waits for it to close anything. Returns when it watches.
fn watch(leaf: &ExecLeaf, caller: &OwnedFd) -> Result<Watcher> {
    let (line, theirs) = sys::socket::seqpacket_pair()?;
    let Some(child) = sys::process::clone3(0, None)? else {
        let ready =
            alone(leaf, caller, &theirs).and_then(|()| sys::fs::write(theirs.as_fd(), READY));
        if ready.is_err() {
            sys::process::exit_now(1);
        }
        let ended = is_dismissed(caller, &theirs) || leaf.end(UNDO_DEADLINE).is_ok();
        sys::process::exit_now(i32::from(!ended))
    };
    drop(theirs);
    match sys::fs::read(line.as_fd(), &mut [0; 1]) {
        Ok(1) => Ok(Watcher { line, child }),
        read => {
            let cause = read.map_or_else(|error| error.to_string(), |_| "has ended".to_owned());
            let text = format!("the watcher of --die-with-parent: {cause}");
            Err(super::also(Error::text(Code::E_EXEC_CONTAIN, text), end_child(&child)))
        }
    }
}

/// Waits for the runtime to say that all is over. If it or the caller ends before, or if that cannot be
/// waited for, the answer is no: better no process than one that nobody ends.
fn is_dismissed(caller: &OwnedFd, line: &OwnedFd) -> bool {
    let ends = [(line.as_fd(), libc::POLLIN), (caller.as_fd(), libc::POLLIN)];
    loop {
        match sys::fs::poll(&ends, -1).as_deref() {
            Err(error) if error.errno == libc::EINTR => {}
            Ok([0, _]) | Err(_) => return false,
            Ok(_) => return matches!(sys::fs::read(line.as_fd(), &mut [0; 1]), Ok(1)),
        }
    }
}

/// Leaves the caller's session, signals and descriptors.
fn alone(leaf: &ExecLeaf, caller: &OwnedFd, line: &OwnedFd) -> sys::Result<()> {
    sys::process::setsid()?;
    sys::process::block_signals()?;
    let mut keep = leaf.descriptors();
    keep.extend([caller, line].map(|fd| fd.as_raw_fd().cast_unsigned()));
    keep.sort_unstable();
    let mut first = 0;
    for fd in keep {
        if fd > first {
            sys::exec::close_range(first, fd - 1)?;
        }
        first = fd + 1;
    }
    sys::exec::close_range(first, u32::MAX)
}
