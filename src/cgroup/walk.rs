//! Walking a tree of cgroups of any depth: a container with a writable cgroup mount decides how deep
//! it is, so neither descriptors nor stack may grow with it. The way back is `..`, which cgroupfs
//! cannot change: it has neither links nor moves between directories.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::dir;
use crate::sys::{self, fs};

/// Visits a cgroup and everything below it, parents first. `leave` is called with each cgroup below
/// the top when all below it has been visited: its parent and its name.
fn walk(
    top: BorrowedFd<'_>,
    mut enter: impl FnMut(BorrowedFd<'_>) -> sys::Result<()>,
    mut leave: impl FnMut(BorrowedFd<'_>, &CStr) -> sys::Result<()>,
) -> sys::Result<()> {
    enter(top)?;
    let mut stack: Vec<(CString, Vec<CString>)> = vec![(CString::default(), children(top)?)];
    let mut current: Option<OwnedFd> = None;
    while let Some((_, names)) = stack.last_mut() {
        let here = current.as_ref().map_or(top, AsFd::as_fd);
        if let Some(name) = names.pop() {
            // Files are among the names (ENOTDIR); a cgroup may go at any time.
            match fs::openat2(here, &name, libc::O_RDONLY | libc::O_DIRECTORY, 0, fs::BENEATH) {
                Ok(child) => {
                    enter(child.as_fd())?;
                    stack.push((name, children(child.as_fd())?));
                    current = Some(child);
                }
                Err(error) if error.errno == libc::ENOTDIR || dir::is_gone(&error) => {}
                Err(error) => return Err(error),
            }
            continue;
        }
        let Some((name, _)) = stack.pop() else { break };
        if stack.is_empty() {
            break;
        }
        let above = fs::openat(here, c"..", libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
        leave(above.as_fd(), &name)?;
        current = Some(above);
    }
    Ok(())
}

/// The names in a cgroup directory, unless it has no directories at all: kernfs counts them.
pub(super) fn children(dir: BorrowedFd<'_>) -> sys::Result<Vec<CString>> {
    if fs::fstat(dir)?.st_nlink <= 2 {
        return Ok(Vec::new());
    }
    match fs::list(dir) {
        Err(error) if dir::is_gone(&error) => Ok(Vec::new()),
        other => other,
    }
}

/// Adds the processes of a cgroup and all below it.
pub(super) fn pids(top: BorrowedFd<'_>, into: &mut BTreeSet<i32>) -> sys::Result<()> {
    walk(top, |dir| pids_here(dir, into), |_, _| Ok(()))
}

fn pids_here(dir: BorrowedFd<'_>, into: &mut BTreeSet<i32>) -> sys::Result<()> {
    match read_pids(dir, c"cgroup.procs") {
        Ok(pids) => into.extend(pids),
        // A threaded v2 cgroup lists threads only.
        Err(error) if error.errno == libc::EOPNOTSUPP => {
            into.extend(read_pids(dir, c"cgroup.threads")?.into_iter().filter_map(process_of));
        }
        Err(error) if dir::is_gone(&error) => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Processes outside of our pid namespace are shown as 0: they have no name here.
fn read_pids(dir: BorrowedFd<'_>, file: &CStr) -> sys::Result<Vec<i32>> {
    let fd = fs::openat(dir, file, libc::O_RDONLY, 0)?;
    let bytes = fs::read_to_end(fd.as_fd(), 64 << 20)
        .map_err(|error| error.about(file.to_string_lossy()))?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text
        .split_ascii_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .filter(|p| *p > 0)
        .collect())
}

/// The process a thread belongs to, `None` when it has just ended.
fn process_of(thread: i32) -> Option<i32> {
    let path = CString::new(format!("/proc/{thread}/status")).ok()?;
    let text = dir::read(fs::CWD, &path).ok()?;
    text.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}

/// Removes everything below a cgroup, deepest first. One that still has processes is `EBUSY`.
pub(super) fn remove_children(top: BorrowedFd<'_>) -> sys::Result<()> {
    walk(
        top,
        |_| Ok(()),
        |parent, name| match fs::unlinkat(parent, name, libc::AT_REMOVEDIR) {
            Err(error) if !dir::is_gone(&error) => Err(error),
            _ => Ok(()),
        },
    )
}
