//! sd_notify(3) for the container: its `READY=1` is passed on to who waits for the runtime.
//!
//! With `NOTIFY_SOCKET` set, create mounts a directory of the state directory at /run/notify, `start` makes
//! a socket in it and waits, and the first `READY=` that comes goes on together with the pid to watch.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::container::Container;
use crate::error::{Code, Error, Result};
use crate::sys;

/// The directory in the state directory.
pub const DIRECTORY: &std::ffi::CStr = c"notify";
/// The socket in it.
pub const SOCKET: &std::ffi::CStr = c"notify.sock";
/// Longest message that is read, in bytes: systemd's own limit is a page.
const MESSAGE_MAX: usize = 4096;
/// How long the service manager may take to read what it was told, in milliseconds.
const BARRIER_MS: i32 = 30_000;

/// The service manager's socket, if it wants to be told.
#[must_use]
pub fn wanted() -> Option<OsString> {
    std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty())
}

/// Between a container and a service manager, until the first `READY=`.
#[derive(Debug)]
pub struct Proxy {
    inside: OwnedFd,
    manager: OwnedFd,
    pid: i32,
}

impl Proxy {
    /// Makes the container's socket and connects the manager's; `None` where nobody wants to be told, or
    /// the container was created without.
    pub fn listen(container: &Container) -> Result<Option<Self>> {
        let Some(path) = wanted() else { return Ok(None) };
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
        let dir = match sys::fs::openat(container.dir.as_fd(), DIRECTORY, flags, 0) {
            Err(error) if error.errno == libc::ENOENT => return Ok(None),
            result => result?,
        };
        let failed = |error: sys::Error| {
            Error::at(Code::E_NOTIFY, "NOTIFY_SOCKET")(
                error.about(sys::visible(&path.to_string_lossy())),
            )
        };
        let manager = sys::socket::connect_datagram(&path).map_err(failed)?;
        let inside = sys::socket::bind_datagram(dir.as_fd(), SOCKET)?;
        // For whichever user the process is.
        sys::fs::fchmodat(dir.as_fd(), SOCKET, 0o777)?;
        Ok(Some(Self { inside, manager, pid: container.pid() }))
    }

    /// Becomes readable when there is something to [`Proxy::pass_on`].
    #[must_use]
    pub fn readable(&self) -> BorrowedFd<'_> {
        self.inside.as_fd()
    }

    /// Reads one message, and passes it on if it says `READY=`; true when that has been done.
    pub fn pass_on(&self) -> Result<bool> {
        let mut buffer = [0u8; MESSAGE_MAX];
        let (length, _) = sys::socket::receive(self.inside.as_fd(), &mut buffer)?;
        let message = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
        // systemd ends a line at either, and would read more of the container's than we have looked at.
        let mut lines = message.split(['\n', '\r']);
        let Some(ready) = lines.find(|line| line.starts_with("READY=")) else {
            return Ok(false);
        };
        let told = format!("MAINPID={}\n{ready}\n", self.pid);
        sys::socket::send(self.manager.as_fd(), told.as_bytes(), &[])
            .map_err(Error::at(Code::E_NOTIFY, "NOTIFY_SOCKET"))?;
        self.barrier()?;
        Ok(true)
    }

    /// Waits until the manager has read it: who has ended cannot be told from a stranger (sd_notify(3),
    /// `BARRIER=1`).
    fn barrier(&self) -> Result<()> {
        let (ours, theirs) = sys::fs::pipe()?;
        sys::socket::send(self.manager.as_fd(), b"BARRIER=1", &[theirs.as_fd()])
            .map_err(Error::at(Code::E_NOTIFY, "NOTIFY_SOCKET"))?;
        drop(theirs);
        sys::fs::poll(&[(ours.as_fd(), 0)], BARRIER_MS)?;
        Ok(())
    }

    /// Waits for `READY=`, or for the container's end.
    pub fn wait(&self, init: BorrowedFd<'_>) -> Result<()> {
        loop {
            let fds = [(self.readable(), libc::POLLIN), (init, libc::POLLIN)];
            let events = match sys::fs::poll(&fds, -1) {
                Err(error) if error.errno == libc::EINTR => continue,
                result => result?,
            };
            match events.as_slice() {
                [message, _] if *message != 0 => {
                    if self.pass_on()? {
                        return Ok(());
                    }
                }
                _ => return Ok(()),
            }
        }
    }
}
