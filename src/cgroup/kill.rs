//! Signalling all processes of a container.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::dir::{self, Pause};
use super::freeze::{self, freezer};
use super::group::Group;
use crate::error::{Code, Error, Result};
use crate::sys::{self, process};

/// How long a freeze may take before killing goes on without it: a task in uninterruptible sleep does
/// not freeze, and does not fork either.
const FREEZE: Duration = Duration::from_millis(50);

/// Kills everything, new forks included.
pub(super) fn all(group: &Group, deadline: Duration) -> Result<()> {
    let end = Instant::now() + deadline;
    let by_kernel = cgroup_kill(group)?;
    let v1_freezer = freezer(&group.dirs).filter(|(_, is_v1)| *is_v1).map(|(dir, _)| dir);
    if by_kernel {
        if let Some(dir) = v1_freezer {
            // A task frozen on v1 takes no signal, SIGKILL included.
            tolerate_gone(freeze::thaw_v1(dir))
                .map_err(Error::at(Code::E_CGROUP, dir.place.dir()))?;
        }
        if group.dirs.iter().all(|dir| dir.place.is_v2()) {
            return Ok(());
        }
    }
    // v1, or Linux before 5.14. On a hybrid host the loop finds those who left the v2 cgroup alone.
    let mut pause = Pause::until(end);
    loop {
        if group.pids()?.is_empty() {
            return Ok(());
        }
        // Frozen processes neither fork nor end, so the list stays true and its pids are not reused.
        // Where that fails they are killed as they run, and the next round finds the new ones.
        let frozen = group.freeze(true, FREEZE).is_ok();
        let killed = if frozen { kill_frozen(group) } else { each(group, libc::SIGKILL) };
        if frozen {
            match group.freeze(false, FREEZE) {
                Err(error) if Instant::now() >= end => return Err(error),
                _ => {}
            }
        }
        killed?;
        if !pause.sleep() {
            return Ok(());
        }
    }
}

/// `cgroup.kill` (Linux 5.14) kills a whole v2 tree at once, against forks and frozen or not.
fn cgroup_kill(group: &Group) -> Result<bool> {
    let Some(dir) = group.v2() else { return Ok(false) };
    match dir::write(dir, c"cgroup.kill", "1") {
        Ok(()) => Ok(true),
        // An older kernel, a cgroup that is gone, or a threaded one.
        Err(error) if dir::is_gone(&error) || error.errno == libc::EOPNOTSUPP => Ok(false),
        Err(error) => Err(Error::at(Code::E_CGROUP, dir.place.dir())(error)),
    }
}

fn tolerate_gone(result: sys::Result<()>) -> sys::Result<()> {
    match result {
        Err(error) if dir::is_gone(&error) => Ok(()),
        other => other,
    }
}

/// Kills frozen processes, whose pids cannot be reused: on v1 not even SIGKILL ends them before the thaw.
fn kill_frozen(group: &Group) -> Result<()> {
    for pid in group.pids()? {
        match process::kill(pid, libc::SIGKILL) {
            // Dead already, as wished.
            Err(error) if error.errno == libc::ESRCH => {}
            other => other?,
        }
    }
    Ok(())
}

/// Sends a signal to each process once, new ones included as far as they are seen.
///
/// The processes run on meanwhile, so pids may be reused: a pidfd is taken of each, and used only if
/// the pid is still listed after that. Then it was, or is, a process of this container.
pub(super) fn each(group: &Group, signal: i32) -> Result<()> {
    /// Descriptors held at a time, well below the usual limit of 1024.
    const BATCH: usize = 256;
    let mut done = BTreeSet::new();
    for _ in 0..64 {
        let new: Vec<i32> =
            group.pids()?.into_iter().filter(|pid| !done.contains(pid)).take(BATCH).collect();
        if new.is_empty() {
            break;
        }
        let mut open = Vec::with_capacity(new.len());
        for pid in new {
            done.insert(pid);
            match process::pidfd_open(pid) {
                Ok(pidfd) => open.push((pid, pidfd)),
                Err(error) if error.errno == libc::ESRCH => {}
                Err(error) => return Err(error.into()),
            }
        }
        let still: BTreeSet<i32> = group.pids()?.into_iter().collect();
        for (_, pidfd) in open.iter().filter(|(pid, _)| still.contains(pid)) {
            match process::pidfd_send_signal(pidfd.as_fd(), signal) {
                Err(error) if error.errno == libc::ESRCH => {}
                other => other?,
            }
        }
    }
    Ok(())
}
