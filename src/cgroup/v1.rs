//! What cgroup v1 needs besides directories: cpusets that are not empty.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use super::dir::{self, Dir};
use crate::error::{Error, Result};
use crate::sys;

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
