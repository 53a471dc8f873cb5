//! Joining namespaces without an intermediate process: the parent enters them for the length of one
//! clone3 and goes back.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::error::{Error, Result};
use crate::plan::namespaces::Kind;
use crate::sys;

/// The namespaces the parent is away from; goes back when dropped.
#[derive(Debug)]
pub struct Borrow {
    home: Vec<(Kind, OwnedFd)>,
}

/// Whether the parent may lend this kind to its clone. Mount and user namespaces would take the
/// parent's own files and rights away; cgroup and time the child enters itself.
#[must_use]
pub fn is_lendable(kind: Kind) -> bool {
    matches!(kind, Kind::Pid | Kind::Network | Kind::Uts | Kind::Ipc)
}

impl Borrow {
    /// Enters the namespaces, in order.
    pub fn enter(namespaces: &[(Kind, BorrowedFd<'_>)]) -> Result<Self> {
        let mut borrow = Self { home: Vec::with_capacity(namespaces.len()) };
        for (kind, fd) in namespaces {
            // For pids, what counts is where children go, and where they went before.
            let file = if *kind == Kind::Pid { "pid_for_children" } else { kind.file() };
            let path = sys::cstr("open", format!("/proc/self/ns/{file}"))?;
            let home = sys::fs::open(&path, libc::O_RDONLY)?;
            sys::process::setns(*fd, kind.flag())
                .map_err(|error| Error::from(error.about(kind.name())))?;
            borrow.home.push((*kind, home));
        }
        Ok(borrow)
    }
}

impl Drop for Borrow {
    fn drop(&mut self) {
        while let Some((kind, home)) = self.home.pop() {
            if sys::process::setns(home.as_fd(), kind.flag()).is_err() {
                // Better dead than doing the rest in a container's namespace. The child sees the
                // socket close and ends; the record is there for delete.
                crate::log::stderr_line(&format!(
                    "onggi: cannot return to the own {} namespace: giving up",
                    kind.name()
                ));
                std::process::abort();
            }
        }
    }
}
