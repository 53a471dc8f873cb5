//! The runtime's side of a terminal: handing the master out.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use crate::error::Result;
use crate::{spawn, sys};

/// Sends a pty's master to a console socket: one message with its name, one descriptor. No answer is
/// waited for: the receiver may look only after we have ended.
pub fn send(socket: &Path, master: &OwnedFd) -> Result<()> {
    let name = format!("/dev/pts/{}", sys::tty::number(master.as_fd())?);
    spawn::send_fd(socket, master.as_fd(), &name)
}
