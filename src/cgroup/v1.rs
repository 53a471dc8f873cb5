//! What cgroup v1 needs besides directories: cpusets that are not empty, and a way in for a process itself.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::dir::{self, Dir};
use crate::error::{Code, Error, Result};
use crate::sys;

/// Moves the calling process into the hierarchies whose `tasks` these are (`Group::tasks`).
///
/// # Errors
/// Names the file, and what a real-time process is refused for.
pub fn enter(tasks: Vec<OwnedFd>) -> Result<()> {
    for file in tasks {
        // "0" is the writer: no pid to be mistaken, and one thread moves without the process-wide
        // lock that makes cgroup.procs wait for an RCU grace period.
        sys::fs::write_all(file.as_fd(), b"0").map_err(|error| refused(file.as_fd(), error))?;
    }
    Ok(())
}

fn refused(tasks: BorrowedFd<'_>, error: sys::Error) -> Error {
    // Where it is, the parent knew, and the kernel still does.
    let link = sys::cstr("readlink", format!("/proc/self/fd/{}", tasks.as_raw_fd()));
    let path = link.and_then(|link| sys::fs::readlinkat(sys::fs::CWD, &link));
    let path = path.map_or("tasks".into(), |path| String::from_utf8_lossy(&path).into_owned());
    let error = Error::at(Code::E_CGROUP, "/linux/cgroupsPath")(error.about(&path));
    match error.errno() {
        // cpu_cgroup_can_attach, with RT_GROUP_SCHED.
        Some(libc::EINVAL) if path.contains("/cpu") => error
            .and("a process with a real-time scheduler needs a cpu.rt_runtime_us above 0 there"),
        _ => error,
    }
}

/// Gives a cpuset, and the parents that lack them, the processors and memory nodes of the nearest
/// ancestor that has some. A new v1 cpuset has none, and no process may enter it then (ENOSPC).
pub(super) fn fill_cpuset(dir: &Dir) -> Result<()> {
    for file in [c"cpuset.cpus", c"cpuset.mems"] {
        fill(dir, file).map_err(|error| Error::from(error.about(dir.place.dir())))?;
    }
    Ok(())
}

fn fill(dir: &Dir, file: &CStr) -> sys::Result<()> {
    if !dir.fresh && !is_empty(&dir::read(dir, file)?) {
        return Ok(());
    }
    // From the leaf upwards, by "..": below the mount point there are `depth` directories.
    let depth = dir.place.path.split('/').count();
    let mut empty: Vec<OwnedFd> = Vec::new();
    let mut value = String::new();
    for _ in 0..depth {
        let below = empty.last().map_or(dir.as_fd(), AsFd::as_fd);
        let above = sys::fs::openat(below, c"..", libc::O_PATH | libc::O_DIRECTORY, 0)?;
        value = dir::read(&above, file)?;
        if !is_empty(&value) {
            break;
        }
        empty.push(above);
    }
    for above in empty.iter().rev() {
        dir::write(above, file, value.trim())?;
    }
    dir::write(dir, file, value.trim())
}

fn is_empty(value: &str) -> bool {
    value.trim().is_empty()
}
