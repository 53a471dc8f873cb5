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

/// Whether the parent can come back from namespaces of these kinds. In a user namespace its own may
/// belong to one further out, over which it has no rights (podman without rights has a user and a mount
/// namespace, and no others).
///
/// # Errors
/// When /proc is not as it should be.
pub fn returns(user_namespace: bool, kinds: impl IntoIterator<Item = Kind>) -> Result<bool> {
    if !user_namespace {
        return Ok(true);
    }
    for kind in kinds {
        let home = open_home(kind)?;
        match sys::process::namespace_owner(home.as_fd()) {
            // It is out of our sight.
            Err(error) if error.errno == libc::EPERM => return Ok(false),
            result => drop(result?),
        }
    }
    Ok(true)
}

/// For pids, what counts is where children go, and where they went before.
fn open_home(kind: Kind) -> Result<OwnedFd> {
    let file = if kind == Kind::Pid { "pid_for_children" } else { kind.file() };
    let path = sys::cstr("open", format!("/proc/self/ns/{file}"))?;
    Ok(sys::fs::open(&path, libc::O_RDONLY)?)
}

impl Borrow {
    /// Enters the namespaces, in order. The caller has made sure of the way back ([`returns`]).
    pub fn enter(namespaces: &[(Kind, BorrowedFd<'_>)]) -> Result<Self> {
        let mut borrow = Self { home: Vec::with_capacity(namespaces.len()) };
        for (kind, fd) in namespaces {
            let home = open_home(*kind)?;
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
