//! What the parent does to, and for, a child that it has cloned.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Instant;

use super::protocol::Failure;
use super::{Created, UNDO_DEADLINE};
use crate::error::{Code, Error, Result};
use crate::plan::steps::Step;
use crate::sys;

/// Kills a child and waits until it is gone.
pub fn end_child(child: &sys::process::Child) -> Result<()> {
    end(child.pid, child.pidfd.as_fd())
}

impl Created {
    /// Kills it, a child of this process, and waits until it is gone.
    pub fn end(&self) -> Result<()> {
        end(self.pid, self.pidfd.as_fd())
    }
}

fn end(pid: i32, pidfd: BorrowedFd<'_>) -> Result<()> {
    match sys::process::pidfd_send_signal(pidfd, libc::SIGKILL) {
        // Dead already, and waiting to be waited for.
        Err(error) if error.errno == libc::ESRCH => {}
        result => result?,
    }
    // One that is frozen on v1 takes no signal before somebody thaws it.
    let end = Instant::now() + UNDO_DEADLINE;
    if !readable(pidfd, end)? {
        let text = format!("process {pid} still runs 10 s after SIGKILL");
        return Err(Error::text(Code::E_SYSTEM, text));
    }
    sys::process::wait(pidfd, true)?;
    Ok(())
}

/// Waits until a descriptor has something to say; false when `end` came first.
pub fn readable(fd: BorrowedFd<'_>, end: Instant) -> Result<bool> {
    Ok(first_readable(&[fd], Some(end))?.is_some())
}

/// Waits until one of some descriptors has something to say; the first that has, none when `end` came first.
pub fn first_readable(fds: &[BorrowedFd<'_>], end: Option<Instant>) -> Result<Option<usize>> {
    let fds: Vec<_> = fds.iter().map(|fd| (*fd, libc::POLLIN)).collect();
    loop {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        // Up, so that the last wait does not spin.
        let up = |millis| i32::try_from(millis).unwrap_or(i32::MAX).saturating_add(1);
        let millis = match left {
            None => -1,
            Some(left) if left.is_zero() => 0,
            Some(left) => up(left.as_millis()),
        };
        match sys::fs::poll(&fds, millis) {
            Err(error) if error.errno == libc::EINTR => {}
            Err(error) => return Err(error.into()),
            Ok(events) => match events.iter().position(|events| *events != 0) {
                None if millis != 0 => {}
                first => return Ok(first),
            },
        }
    }
}

/// Tells a child's failure with the step it was at.
#[must_use]
pub fn render(steps: &[Step], failure: &Failure) -> Error {
    let text = failure.text.as_str();
    let at = usize::try_from(failure.step).ok().and_then(|index| steps.get(index));
    let text = match at.map(|step| step.at.to_string()).filter(|at| !at.is_empty()) {
        // Some texts begin with their place: a hook's, and those engines look for.
        Some(at) if !text.starts_with(&at) && !text.starts_with("exec: ") => {
            format!("{at}: {text}")
        }
        _ => text.to_owned(),
    };
    Error::text(failure.code, text)
}

/// Sends one descriptor to a listening socket, with a name as engines expect.
pub fn send_fd(socket: &Path, fd: BorrowedFd<'_>, name: &str) -> Result<()> {
    let connection = sys::socket::connect(socket)?;
    Ok(sys::socket::send(connection.as_fd(), name.as_bytes(), &[fd])?)
}
