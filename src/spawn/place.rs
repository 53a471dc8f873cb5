//! Where a child goes, and what the parent does for one in a user namespace, which has no rights outside
//! of it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use super::borrow;
use super::child::{end_child, first_readable, render};
use super::exec::Deadline;
use super::prepare::Prepared;
use super::protocol::{self, Message};
use crate::cgroup::Group;
use crate::error::{Code, Error, Result};
use crate::host::{CAP_SYS_ADMIN, Host};
use crate::init::user::Through;
use crate::plan::Plan;
use crate::plan::ids::IdMappings;
use crate::plan::namespaces::Kind;
use crate::plan::process::Process;
use crate::sys;

/// Raises the hard limits that must rise: the child's root cannot. It sets the exact values itself,
/// when they do not hinder its work any more.
pub fn raise_limits(pid: i32, process: &Process) -> Result<()> {
    for limit in &process.rlimits {
        let (soft, hard) =
            sys::sched::rlimit(pid, limit.resource).map_err(Error::at(Code::E_RLIMIT, limit.at))?;
        if limit.hard > hard {
            sys::sched::set_rlimit(pid, limit.resource, soft, limit.hard)
                .map_err(|error| Error::at(Code::E_RLIMIT, limit.at)(error.about(&limit.name)))?;
        }
    }
    Ok(())
}

/// Gives the caller's own stdio to the process' user, who is somebody outside, too.
pub fn give_stdio(process: &Process, ids: &IdMappings) -> Result<()> {
    match ids.host_uid(process.uid) {
        Some(uid) if !process.terminal => crate::init::console::own_stdio(uid).map(drop),
        _ => Ok(()),
    }
}

/// Enters the cgroups below the container's own, if it has any, and gives the process' user the one that is for it.
/// Returns the file by which the child enters that.
pub fn enter_inner(
    plan: &Plan,
    prepared: &Prepared,
    group: &Group,
    pid: i32,
) -> Result<Option<OwnedFd>> {
    let uid = plan.process.as_ref().map(|process| process.uid);
    let owner = match &prepared.ids {
        Some(ids) => uid.and_then(|uid| ids.host_uid(uid)),
        None => uid,
    };
    let delegated = group.enter_inner(&plan.cgroup, pid, owner)?;
    if let (true, None, Some(uid)) = (plan.owns_cgroup, &delegated, owner) {
        group.give_to(uid, plan.cgroup.optional)?;
    }
    Ok(delegated)
}

/// The second of two children, cloned by the first one from inside of the namespaces. The first one
/// has ended when this returns.
pub fn second(
    first: sys::process::Child,
    socket: &OwnedFd,
    deadline: Option<&Deadline>,
) -> Result<sys::process::Child> {
    match second_of(&first, socket, deadline) {
        Ok(second) => Ok(second),
        Err(error) => Err(super::also(error, end_child(&first))),
    }
}

fn second_of(
    first: &sys::process::Child,
    socket: &OwnedFd,
    deadline: Option<&Deadline>,
) -> Result<sys::process::Child> {
    // The first one may be killed before it tells, and the second one has the socket's other end: it ends when it
    // sees ours closed.
    let said = |end| first_readable(&[socket.as_fd(), first.pidfd.as_fd()], end);
    match (said(deadline.map(|deadline| deadline.end))?, deadline) {
        (None, Some(deadline)) => return Err(deadline.error()),
        // What it has said before its end.
        (Some(1), _) if said(Some(Instant::now()))? != Some(0) => {
            let text = "the process that enters the namespaces was killed";
            return Err(Error::text(Code::E_NAMESPACE, text));
        }
        _ => {}
    }
    let pidfd = match protocol::receive(socket.as_fd())? {
        Message::Init(pidfd) => pidfd,
        Message::Failed(failure) => return Err(render(&[], &failure)),
        Message::End => {
            return Err(Error::text(Code::E_NAMESPACE, "the namespaces could not be entered"));
        }
        _ => return Err(Error::text(Code::E_INTERNAL, "the child spoke out of turn")),
    };
    sys::process::wait(first.pidfd.as_fd(), true)?;
    match sys::process::pid_of(pidfd.as_fd())? {
        Some(pid) => Ok(sys::process::Child { pid, pidfd }),
        None => Err(Error::text(Code::E_INIT_DIED, "the child is gone")),
    }
}

/// Namespaces to borrow, and what a first child has to go through.
type Joined<'a> = (Vec<(Kind, BorrowedFd<'a>)>, Option<Through<'a>>);

/// The namespaces to borrow for the clone, and what a first child has to go through where a user
/// namespace is joined, or where the parent could not come back. Without rights of our own nothing can
/// be borrowed: the first child has them, inside of the user namespace.
pub fn joined<'a>(plan: &Plan, prepared: &'a Prepared, host: &Host) -> Result<Joined<'a>> {
    let named = || {
        let files = prepared.namespaces.iter().map(AsFd::as_fd);
        plan.namespaces.joined.iter().map(|joined| joined.kind).zip(files)
    };
    let user = named().find(|(kind, _)| *kind == Kind::User).map(|(_, file)| file);
    let lent: Vec<_> = named().filter(|(kind, _)| borrow::is_lendable(*kind)).collect();
    let has_rights = host.capabilities & CAP_SYS_ADMIN != 0;
    let returns = borrow::returns(host.user_namespace, lent.iter().map(|(kind, _)| *kind))?;
    let flags = plan.namespaces.cloned();
    let by_flag = || lent.iter().map(|(kind, file)| (kind.flag(), *file)).collect();
    let through = |lent, rest| Some(Through { lent, user, rest, flags });
    Ok(match (user, has_rights) {
        (_, true) if !returns => (Vec::new(), through(by_flag(), Vec::new())),
        (None, _) => (lent, None),
        (Some(_), true) => (lent, through(Vec::new(), Vec::new())),
        (Some(_), false) => (Vec::new(), through(Vec::new(), by_flag())),
    })
}

/// clone3, on v2 straight into the cgroup. `None` is the child.
pub fn clone_into(flags: u64, group: &Group) -> Result<Option<sys::process::Child>> {
    let cloned = match sys::process::clone3(flags, group.clone_into()) {
        // The parent cgroup is threaded, so a new one below it starts as invalid for processes.
        Err(error) if error.errno == libc::EOPNOTSUPP && group.clone_into().is_some() => {
            group.make_threaded()?;
            sys::process::clone3(flags, group.clone_into())?
        }
        result => result?,
    };
    if cloned.is_some() {
        sys::heap::keep();
    }
    Ok(cloned)
}
