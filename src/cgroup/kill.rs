//! Signalling all processes of a container.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::dir::{self, Dir, Pause};
use super::freeze::{self, freezer};
use super::group::Group;
use super::walk;
use crate::error::{Code, Error, Result};
use crate::sys::{self, process};

/// How long a freeze may take before killing goes on without it: a task in uninterruptible sleep does
/// not freeze, and does not fork either.
const FREEZE: Duration = Duration::from_millis(500);

/// Kills everything, new forks included.
pub(super) fn all(group: &Group, deadline: Duration) -> Result<()> {
    let end = Instant::now() + deadline;
    let v1_freezer = freezer(&group.dirs).filter(|(_, is_v1)| *is_v1).map(|(dir, _)| dir);
    // Who has been killed, and is only on the way out.
    let mut dead = BTreeSet::new();
    let mut contained = match group.v2() {
        Some(dir) if v1_freezer.is_none() && group.dirs.iter().all(|dir| dir.place.is_v2()) => {
            if cgroup_kill(dir)? {
                return Ok(());
            }
            false
        }
        Some(dir) => {
            // On a hybrid host there may be some who left the v2 cgroup alone.
            list(dir, &mut dead)?;
            cgroup_kill(dir)?
        }
        None => false,
    };
    if !contained {
        dead.clear();
    } else if let Some(dir) = v1_freezer {
        // A task frozen on v1 takes no signal, SIGKILL included.
        tolerate_gone(freeze::thaw_v1(dir)).map_err(Error::at(Code::E_FREEZE, dir.place.dir()))?;
    }
    // v1, or Linux before 5.14.
    let mut pause = Pause::until(end);
    loop {
        if !contained {
            kill_frozen(group, end, &mut dead)?;
        }
        if each(group, libc::SIGKILL, &mut dead)? == 0 || !pause.sleep() {
            return Ok(());
        }
        // Some were elsewhere, and may have forked.
        contained = false;
    }
}

/// `cgroup.kill` (Linux 5.14) kills a whole v2 tree at once, against forks and frozen or not.
fn cgroup_kill(dir: &Dir) -> Result<bool> {
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

fn list(dir: &Dir, into: &mut BTreeSet<i32>) -> Result<()> {
    walk::pids(dir.as_fd(), into).map_err(|error| Error::at(Code::E_CGROUP, dir.place.dir())(error))
}

/// Freezes, kills and thaws: frozen processes neither fork nor end, so the list stays true and its
/// pids are not reused. On v1 not even SIGKILL ends them before the thaw. Nothing where freezing fails.
fn kill_frozen(group: &Group, end: Instant, dead: &mut BTreeSet<i32>) -> Result<()> {
    let Some((dir, _)) = freezer(&group.dirs) else { return Ok(()) };
    if group.freeze(true, FREEZE).is_err() {
        return Ok(());
    }
    // Those of now only: of the ones of before the numbers may be somebody else's.
    let mut frozen = BTreeSet::new();
    let killed = list(dir, &mut frozen).and_then(|()| {
        for pid in frozen {
            match process::kill(pid, libc::SIGKILL) {
                // Dead already, as wished.
                Err(error) if error.errno == libc::ESRCH => {}
                other => other?,
            }
            dead.insert(pid);
        }
        Ok(())
    });
    match group.freeze(false, FREEZE) {
        Err(error) if Instant::now() >= end => Err(error),
        _ => killed,
    }
}

/// Sends a signal once to each process that has not been `done`, new ones included as far as they are
/// seen, and tells to how many.
///
/// The processes run on meanwhile, so pids may be reused: a pidfd is taken of each, and used only if
/// the pid is still listed after that. Then it was, or is, a process of this container.
pub(super) fn each(group: &Group, signal: i32, done: &mut BTreeSet<i32>) -> Result<usize> {
    /// Descriptors held at a time, well below the usual limit of 1024.
    const BATCH: usize = 256;
    let mut count = 0;
    for _ in 0..64 {
        let new: Vec<i32> =
            group.pids()?.into_iter().filter(|pid| !done.contains(pid)).take(BATCH).collect();
        if new.is_empty() {
            break;
        }
        let mut open = Vec::with_capacity(new.len());
        for pid in new {
            done.insert(pid);
            count += 1;
            open.extend(process::pidfd_open(pid)?.map(|pidfd| (pid, pidfd)));
        }
        let still: BTreeSet<i32> = group.pids()?.into_iter().collect();
        for (_, pidfd) in open.iter().filter(|(pid, _)| still.contains(pid)) {
            match process::pidfd_send_signal(pidfd.as_fd(), signal) {
                Err(error) if error.errno == libc::ESRCH => {}
                other => other?,
            }
        }
    }
    Ok(count)
}
