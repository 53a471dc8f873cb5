//! Into a user namespace, and what is first of all done there.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::{Child, Create};
use crate::error::{Code, Error, Result};
use crate::plan::namespaces::Kind;
use crate::plan::process::Process;
use crate::spawn::prepare::{self, Sources};
use crate::spawn::protocol::{self, Message};
use crate::sys;

/// What the first of two children enters, before it clones the second one there.
#[derive(Debug)]
pub struct Through<'a> {
    /// What to enter first: a parent with rights over it could not come back from there.
    pub lent: Vec<(i32, BorrowedFd<'a>)>,
    /// The user namespace: its file, or the pidfd of a process in it.
    pub user: Option<BorrowedFd<'a>>,
    /// What to enter once the rights over it are there. A parent with rights of its own has lent them.
    pub rest: Vec<(i32, BorrowedFd<'a>)>,
    /// What the second child gets of its own: `CLONE_NEW*`.
    pub flags: i32,
}

/// The first child, where a user namespace is joined: pid namespaces are made, and may be entered, only
/// from inside of it; or where the parent must not leave its own namespaces. Its clone is a child of the
/// runtime, too, and is told to it by its pidfd.
pub fn go_through(mut child: Child<'_>, through: &Through<'_>) -> ! {
    match through_to_the_second(&child, through) {
        Ok(None) => super::run(child),
        Ok(Some(())) => sys::process::exit_now(0),
        Err(error) => child.fail(u32::MAX, &error),
    }
}

/// exec's first child: enters the container's namespaces and cgroups where nobody of the container sees it, and
/// clones the second into its pid namespace. That one has nothing of the host from its first moment, no root, no
/// descriptor and no command line: a container with `CAP_SYS_PTRACE` looks at them, dumpable or not.
pub fn enter_container(mut child: Child<'_>) -> ! {
    match entered(&mut child) {
        Ok(None) => super::run(child),
        Ok(Some(())) => sys::process::exit_now(0),
        Err(error) => child.fail(u32::MAX, &error),
    }
}

fn entered(child: &mut Child<'_>) -> Result<Option<()>> {
    sys::process::set_dumpable(false)?;
    sys::process::set_pdeathsig(libc::SIGKILL)?;
    crate::cgroup::enter(std::mem::take(&mut child.tasks))?;
    child.close_descriptors()?;
    child.join_container()?;
    sys::entry::forget_arguments();
    match sys::process::clone3_sibling(0) {
        // The pid namespace's init has died.
        Err(error) if error.errno == libc::ENOMEM => {
            Err(Error::text(Code::E_NOT_RUNNING, crate::error::NOT_RUNNING))
        }
        Err(error) => Err(error.into()),
        Ok(None) => Ok(None),
        Ok(Some(second)) => {
            protocol::send(child.socket()?, &Message::Init(second))?;
            Ok(Some(()))
        }
    }
}

fn through_to_the_second(child: &Child<'_>, through: &Through<'_>) -> Result<Option<()>> {
    // Others may live in there, and trace what is dumpable.
    sys::process::set_dumpable(false)?;
    sys::process::set_pdeathsig(libc::SIGKILL)?;
    for (kind, file) in &through.lent {
        sys::process::setns(*file, *kind)?;
    }
    if let Some(user) = through.user {
        sys::process::setns(user, libc::CLONE_NEWUSER)
            .map_err(|error| error.about(Kind::User.name()))?;
        rearm()?;
    }
    for (kind, file) in &through.rest {
        sys::process::setns(*file, *kind)?;
    }
    let Some(second) = sys::process::clone3_sibling(through.flags)? else { return Ok(None) };
    protocol::send(child.socket()?, &Message::Init(second))?;
    Ok(Some(()))
}

/// A change of credentials makes the process dumpable by fs.suid_dumpable's rule and forgets the death
/// signal (commit_creds); setns(2) to a user namespace is one.
pub fn rearm() -> Result<()> {
    sys::process::set_dumpable(false)?;
    Ok(sys::process::set_pdeathsig(libc::SIGKILL)?)
}

/// Becomes root of the container's user namespace, or its process' user where root is not mapped:
/// what is made from here on belongs to it.
pub fn container_root(process: Option<&Process>) -> Result<()> {
    if !process.is_some_and(|process| process.keep_groups) {
        match sys::cred::setgroups(&[]) {
            // Denied in this user namespace, which has one group only: they cannot be dropped.
            Err(error) if error.errno == libc::EPERM => {}
            result => result?,
        }
    }
    let own = |id: Option<u32>, set: fn(u32) -> sys::Result<()>| match (set(0), id) {
        // 0 is not mapped.
        (Err(error), Some(id)) if error.errno == libc::EINVAL => set(id),
        (result, _) => result,
    };
    own(process.map(|process| process.gid), sys::cred::setresgid)?;
    own(process.map(|process| process.uid), sys::cred::setresuid)?;
    rearm()
}

/// A new time namespace, entered at once. Its clocks can be set only before anybody is in it.
pub fn time_namespace(child: &Child<'_>) -> Result<()> {
    sys::process::unshare(libc::CLONE_NEWTIME)?;
    let offsets = &child.create()?.plan.namespaces.time_offsets;
    if !offsets.is_empty() {
        let file = sys::fs::open(c"/proc/self/timens_offsets", libc::O_WRONLY)?;
        let text = offsets.concat();
        sys::fs::write(file.as_fd(), text.as_bytes())
            .map_err(|error| error.about(format_args!("{:?}", text.trim_end())))?;
    }
    // unshare(2) moves only children, and on newer kernels us at execve.
    let own: OwnedFd = sys::fs::open(c"/proc/self/ns/time_for_children", libc::O_RDONLY)?;
    sys::process::setns(own.as_fd(), libc::CLONE_NEWTIME)?;
    Ok(sys::process::set_dumpable(false)?)
}

/// The sources of all mounts, of our own mount namespace: cloned by the parent, which comes in for it, or by
/// us where it had no right to.
pub fn sources(child: &Child<'_>) -> Result<()> {
    let create = child.create()?;
    if create.plan.locks_mounts() {
        return received(create, child.socket()?);
    }
    let here = (sys::fs::CWD, c".");
    let state = Some(create.staging);
    let found = prepare::sources(create.plan, here, create.prepared, state)?;
    create.prepared.keep(found)?;
    super::open_cgroup_trees(create.cgroup_mounts, create.plan)
}

fn received(create: &Create<'_>, socket: BorrowedFd<'_>) -> Result<()> {
    let namespace = sys::fs::open(c"/proc/self/ns/mnt", libc::O_RDONLY)?;
    protocol::send(socket, &Message::AtSources(namespace))?;
    let mut next = || match protocol::receive(socket)? {
        Message::Source(tree) => Ok(tree),
        Message::Failed(failure) => Err(Error::text(failure.code, failure.text)),
        _ => Err(Error::text(Code::E_INTERNAL, "the runtime spoke out of turn")),
    };
    create.prepared.keep(Sources::from_list(create.plan, &mut next)?)?;
    if super::shows_cgroup_trees(create.plan) {
        for mount in create.cgroup_mounts {
            super::keep_cgroup_tree(mount, next()?)?;
        }
    }
    Ok(())
}
