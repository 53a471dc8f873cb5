//! Being told when memory has run out.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::dir::{self, Dir};
use super::group::Group;
use crate::error::Result;
use crate::sys::{self, fs, notify};

/// A descriptor that becomes readable when the container may have run out of memory.
#[derive(Debug)]
pub struct OomWatch {
    fd: OwnedFd,
    /// v1 counts events itself; on v2 `memory.events` changes for other reasons, too.
    count: Option<u64>,
}

impl Group {
    /// Watches for the OOM killer: on v1 by an eventfd that `cgroup.event_control` connects with
    /// `memory.oom_control`, on v2 by inotify on `memory.events`. `None` without a memory controller.
    ///
    /// # Errors
    /// When that cannot be set up.
    pub fn watch_oom(&self) -> Result<Option<OomWatch>> {
        if let Some(dir) = self.dirs.iter().find(|dir| dir.place.has("memory")) {
            return Ok(Some(watch_v1(dir)?));
        }
        let Some(dir) = self.v2() else { return Ok(None) };
        let events = match fs::openat(dir.as_fd(), c"memory.events", libc::O_RDONLY, 0) {
            Err(error) if dir::is_gone(&error) => return Ok(None),
            other => other?,
        };
        let fd = notify::inotify()?;
        // First the watch, then the count: an event in between is seen by the next look.
        notify::watch(fd.as_fd(), events.as_fd(), libc::IN_MODIFY)?;
        Ok(Some(OomWatch { fd, count: Some(self.oom_kills().unwrap_or(0)) }))
    }
}

impl Group {
    /// Adds to an inotify descriptor what tells of the container's end and of memory that ran out. On
    /// v1 there is nothing of that kind.
    ///
    /// # Errors
    /// When a watch cannot be added.
    pub fn watch_events(&self, inotify: BorrowedFd<'_>) -> Result<()> {
        let Some(dir) = self.v2() else { return Ok(()) };
        for file in [c"cgroup.events", c"memory.events"] {
            match fs::openat(dir.as_fd(), file, libc::O_RDONLY, 0) {
                Err(error) if dir::is_gone(&error) => {}
                other => notify::watch(inotify, other?.as_fd(), libc::IN_MODIFY)?,
            }
        }
        Ok(())
    }
}

fn watch_v1(dir: &Dir) -> sys::Result<OomWatch> {
    let fd = notify::eventfd()?;
    let control = fs::openat(dir.as_fd(), c"memory.oom_control", libc::O_RDONLY, 0)?;
    let line = format!("{} {}", fd.as_raw_fd(), control.as_raw_fd());
    dir::write(dir, c"cgroup.event_control", &line)?;
    Ok(OomWatch { fd, count: None })
}

impl OomWatch {
    /// What to poll(2) for `POLLIN`.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Whether memory has run out since the last call.
    ///
    /// # Errors
    /// When the descriptor cannot be read.
    pub fn fired(&mut self, group: &Group) -> Result<bool> {
        let mut buffer = [0u8; 4096];
        let told = match fs::read(self.fd(), &mut buffer) {
            Ok(length) => length > 0,
            Err(error) if error.errno == libc::EAGAIN => false,
            Err(error) => return Err(error.into()),
        };
        // The removal of a v1 cgroup is told by the same descriptor; nothing can be read then.
        let kills = group.oom_kills();
        Ok(match (&mut self.count, kills) {
            (Some(count), Some(now)) => std::mem::replace(count, now) < now,
            (None, Some(_)) => told,
            (_, None) => false,
        })
    }
}
