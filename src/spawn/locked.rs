//! The sources of mounts for a container with a user namespace of its own: cloned in the child's copy of our
//! mount namespace, where the kernel has locked what the host has set, and with our rights, because the
//! child could not reach them all.
//!
//! Owns: a process that does that and ends; nothing else may enter a mount namespace of a container.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::prepare::{self, Prepared};
use super::protocol::{self, Failure, Message};
use crate::error::{Code, Error, Result};
use crate::init::{self, ContainerMount};
use crate::plan::Plan;
use crate::sys::{self, process::Exit};

/// What the sources are of.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The maps of mounts.
    pub prepared: &'a Prepared,
    /// The container's cgroup mount.
    pub cgroup_mounts: &'a [ContainerMount],
    /// The state directory.
    pub state: &'a CStr,
}

/// Sends the sources to the child, which waits for them. What fails it is told, and tells.
pub fn send(wanted: Wanted<'_>, namespace: &OwnedFd, socket: BorrowedFd<'_>) -> Result<()> {
    let Some(helper) = sys::process::clone3(0, None)? else {
        let told = match opened(wanted, namespace.as_fd()) {
            Ok(list) => list
                .into_iter()
                .try_for_each(|source| protocol::send(socket, &Message::Source(source))),
            Err(error) => protocol::send(socket, &Message::Failed(failure(&error))),
        };
        sys::process::exit_now(told.err().map_or(0, |error| error.errno))
    };
    match sys::process::wait(helper.pidfd.as_fd(), true)? {
        // The child is gone, and will be missed.
        Some(Exit::Code(0 | libc::EPIPE | libc::ECONNRESET)) => Ok(()),
        // Otherwise it would wait for ever.
        Some(Exit::Code(errno)) => {
            let error = sys::Error::new("sendmsg", "the source of a mount", errno);
            Err(Error::at(Code::E_MOUNT_SOURCE, "/mounts")(error))
        }
        _ => Err(Error::text(Code::E_INTERNAL, "the process that opens the sources was killed")),
    }
}

fn failure(error: &Error) -> Failure {
    let code = match error.code() {
        Code::E_SYSTEM => Code::E_MOUNT_SOURCE,
        code => code,
    };
    Failure { step: u32::MAX, errno: error.errno().unwrap_or(0), code, text: error.to_string() }
}

/// In the helper.
fn opened(wanted: Wanted<'_>, namespace: BorrowedFd<'_>) -> Result<Vec<OwnedFd>> {
    sys::process::set_pdeathsig(libc::SIGKILL)?;
    let root = || sys::fs::statat(sys::fs::CWD, c"/", 0).map(|root| (root.st_dev, root.st_ino));
    let ours = root()?;
    // Also sets the root and the working directory to the namespace's root.
    sys::process::setns(namespace, libc::CLONE_NEWNS)?;
    if root()? != ours {
        return Err(Error::text(Code::E_MOUNT_SOURCE, "the runtime runs in a chroot(2)"));
    }
    let Wanted { plan, prepared, cgroup_mounts, state } = wanted;
    let rootfs = prepare::open_rootfs(&plan.rootfs)?;
    let sources = prepare::sources(plan, (rootfs.as_fd(), c""), prepared, Some(state))?;
    let mut list = sources.into_list();
    if init::shows_cgroup_trees(plan) {
        for mount in cgroup_mounts {
            list.push(init::cgroup_tree(&mount.mount)?);
        }
    }
    Ok(list)
}
