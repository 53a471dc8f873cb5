//! The parent of exec: one clone into a container that is there.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::contain::{self, Contained};
use super::listener::Agent;
use super::protocol::{self, Message};
use super::schedule::{Lent, schedule};
use super::{Created, end_child, pid_file, place, render, send_fd, userns};
use crate::cgroup::{Group, SubCgroup};
use crate::container::Container;
use crate::error::{Code, Error, NOT_RUNNING, Result};
use crate::init::{self, Child, Join, Work};
use crate::plan::exec::ExecPlan;
use crate::plan::namespaces::{KINDS, Kind};
use crate::plan::process::Process;
use crate::sys;

/// What exec is asked to do besides the plan.
#[derive(Debug, Default)]
pub struct Request {
    /// Where to write the pid, absolute.
    pub pid_file: Option<PathBuf>,
    /// Who gets the terminal.
    pub console_socket: Option<PathBuf>,
    /// Who gets the pidfd.
    pub pidfd_socket: Option<PathBuf>,
    /// Where in the container's cgroup it goes.
    pub sub_cgroups: Vec<SubCgroup>,
    /// It gets a cgroup of its own.
    pub contain: Option<Contain>,
    /// When it is killed.
    pub deadline: Option<Deadline>,
    /// Descriptors from 3 on that are the process'.
    pub inherited: u32,
}

/// What is entered.
#[derive(Debug)]
pub struct Entry {
    /// The container's init.
    pub init: OwnedFd,
    /// Its cgroup, if it has one.
    pub group: Option<Group>,
}

/// How a process is contained.
#[derive(Debug, Default)]
pub struct Contain {
    /// Whose death ends it.
    pub caller: Option<OwnedFd>,
}

/// `--timeout`
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    /// The time given.
    pub timeout: Duration,
    /// When it is over.
    pub end: Instant,
}

impl Deadline {
    /// Waits for the child to say something.
    fn wait(&self, socket: BorrowedFd<'_>) -> Result<()> {
        if super::child::readable(socket, self.end)? { Ok(()) } else { Err(self.error()) }
    }

    /// That it is over.
    #[must_use]
    pub fn error(&self) -> Error {
        let text =
            format!("timed out after {:?}, and was killed with all it started", self.timeout);
        Error::text(Code::E_EXEC_TIMEOUT, text)
    }
}

/// Runs the planned process in the container; returns once it is the program.
pub fn exec(
    container: &Container,
    entry: Entry,
    plan: &ExecPlan,
    request: &Request,
) -> Result<(Created, Option<Contained>)> {
    let Entry { init, group } = entry;
    let mut group = cgroups(group, request)?;
    let contained = match &request.contain {
        Some(contain) => Some(contain::contain(group.as_mut(), contain.caller.as_ref())?),
        None => None,
    };
    match enter(container, plan, request, init.as_fd(), (group.as_ref(), contained.as_ref())) {
        Ok(created) => Ok((created, contained)),
        Err(error) => Err(match contained {
            Some(contained) => super::also(error, contained.end()),
            None => error,
        }),
    }
}

/// Clones into the container and drives the child to execve.
fn enter(
    container: &Container,
    plan: &ExecPlan,
    request: &Request,
    init: BorrowedFd<'_>,
    (group, contained): (Option<&Group>, Option<&Contained>),
) -> Result<Created> {
    let pid = container.pid();
    let mask = foreign_namespaces(pid, container.state.new_namespaces)?;
    let user = mask & libc::CLONE_NEWUSER != 0;
    let root = if container.state.chroot { Some(root_of(init, pid)?) } else { None };
    let agent = agent(container, plan)?;
    let (socket, theirs) = sys::socket::seqpacket_pair()?;
    let child = Child {
        keyring: container.state.keyring_name(),
        steps: &plan.steps,
        process: Some(&plan.process),
        seccomp: plan.seccomp.as_ref(),
        listener_taken: plan.listener.as_ref().is_some_and(|listener| listener.taken),
        create: None,
        join: Some(Join { init, mask, user, root }),
        socket: Some(theirs),
        tasks: group.map(Group::tasks).transpose()?.unwrap_or_default(),
        first_fd: 3 + request.inherited,
        ignored_signals: sys::process::ignored_signals()?,
        extra_env: Vec::new(),
        work: Work::default(),
    };
    let target = Target {
        pid,
        unseen: mask & libc::CLONE_NEWPID != 0,
        group,
        // Who names a cgroup means that one and no other.
        exact: !request.sub_cgroups.is_empty() || contained.is_some(),
        deadline: request.deadline.as_ref(),
    };
    let Cloned { child: cloned, lent, socket, outside } = clone(child, socket, target)?;
    let placed = lent.settle(cloned.pid).and_then(|()| match &container.state.rdt {
        Some(record) => crate::rdt::place(record, cloned.pid),
        None => Ok(()),
    });
    let placed = placed.and_then(|()| outside.map_or(Ok(()), |group| group.adopt(cloned.pid)));
    let begins = placed.and_then(|()| match contained {
        Some(contained) => contained.begins(cloned.pid),
        None => Ok(()),
    });
    let begins = begins.and_then(|()| {
        if user { place_in_user_namespace(pid, cloned.pid, &plan.process) } else { Ok(()) }
    });
    match begins.and_then(|()| attend(plan, request, &cloned, &socket, agent)) {
        Ok(terminal) => Ok(Created { pid: cloned.pid, pidfd: cloned.pidfd, terminal }),
        Err(error) => {
            sys::deadline::clear();
            Err(super::also(error, end_child(&cloned)))
        }
    }
}

/// The `CLONE_NEW*` kinds in which the container's init differs from us; user namespaces compare too,
/// because joining one's own is refused by the kernel. `new` are those that the container got for itself;
/// of the others only a look can tell.
fn foreign_namespaces(pid: i32, new: i32) -> Result<i32> {
    let mut mask = new & !libc::CLONE_NEWUSER;
    for kind in KINDS {
        if mask & kind.flag() == 0 && is_foreign(pid, kind)? {
            mask |= kind.flag();
        }
    }
    Ok(mask)
}

/// Whether a process is in another namespace of this kind than we are.
fn is_foreign(pid: i32, kind: Kind) -> Result<bool> {
    let file = format!("/proc/{pid}/ns/{}", kind.file());
    let theirs = match sys::fs::statat(sys::fs::CWD, &sys::cstr("stat", file)?, 0) {
        Ok(stat) => stat,
        // A kernel without this kind has one for all.
        Err(error) if error.errno == libc::ENOENT && kind == Kind::Time => return Ok(false),
        Err(error) if matches!(error.errno, libc::ENOENT | libc::ESRCH) => {
            return Err(Error::text(Code::E_NOT_RUNNING, NOT_RUNNING));
        }
        // Until it has become its program init is nobody's to look at but root's of the host.
        Err(error) if error.errno == libc::EACCES => {
            let text = "cannot exec in a container of which init may not be looked at: without \
                        rights to the host that is so until it has been started";
            return Err(Error::text(Code::E_STATUS, text));
        }
        Err(error) => return Err(error.into()),
    };
    let ours = sys::cstr("stat", format!("/proc/self/ns/{}", kind.file()))?;
    let ours = sys::fs::statat(sys::fs::CWD, &ours, 0)?;
    Ok((ours.st_dev, ours.st_ino) != (theirs.st_dev, theirs.st_ino))
}

/// Whether a container is in another user namespace than we are.
pub fn has_user_namespace(pid: i32) -> Result<bool> {
    is_foreign(pid, Kind::User)
}

/// Init's root, and of nobody who has its number by now: such a container may have no namespace of its own,
/// whose entering would tell.
fn root_of(init: BorrowedFd<'_>, pid: i32) -> Result<OwnedFd> {
    let path = sys::cstr("open", format!("/proc/{pid}/root"))?;
    let root = sys::fs::open(&path, libc::O_PATH | libc::O_DIRECTORY);
    match sys::process::pidfd_send_signal(init, 0) {
        Err(error) if error.errno == libc::ESRCH => {
            Err(Error::text(Code::E_NOT_RUNNING, NOT_RUNNING))
        }
        result => result.map_err(Error::from).and_then(|()| Ok(root?)),
    }
}

/// The agent of the container's filter, and the state to tell it.
fn agent(container: &Container, plan: &ExecPlan) -> Result<Option<(Agent, Value)>> {
    let Some(listener) = &plan.listener else { return Ok(None) };
    let state = container.oci_state(container.status()?, container.pid())?;
    Ok(Some((Agent::connect(listener)?, state)))
}

/// The cgroups to enter.
fn cgroups(group: Option<Group>, request: &Request) -> Result<Option<Group>> {
    if request.sub_cgroups.is_empty() {
        return Ok(group);
    }
    let group = group
        .ok_or_else(|| Error::text(Code::E_OPTION, "--cgroup: the container has no cgroup"))?;
    group.below(&request.sub_cgroups).map(Some)
}

/// Where the clone goes.
#[derive(Debug)]
struct Target<'a> {
    pid: i32,
    /// To a pid namespace, by a first child that nobody there sees.
    unseen: bool,
    group: Option<&'a Group>,
    /// No other cgroup will do.
    exact: bool,
    deadline: Option<&'a Deadline>,
}

/// What the child may not do to itself.
fn place_in_user_namespace(init: i32, child: i32, process: &Process) -> Result<()> {
    place::raise_limits(child, process)?;
    place::give_stdio(process, &userns::maps_of_process(init)?)
}

/// A child that waits for Go, and what it needs until then.
#[derive(Debug)]
struct Cloned<'a> {
    child: sys::process::Child,
    lent: Lent,
    socket: OwnedFd,
    /// The cgroup that it is not in yet.
    outside: Option<&'a Group>,
}

/// Clones into the container's v2 cgroup and, by a first child, into its namespaces.
fn clone<'a>(child: Child<'_>, socket: OwnedFd, target: Target<'a>) -> Result<Cloned<'a>> {
    let lent = Lent::to_exec(child.process)?;
    // The container may see the child from its first moment, and trace what is dumpable.
    sys::process::set_dumpable(false)?;
    let into = target.group.and_then(Group::clone_into);
    let mut outside = None;
    let cloned = match (sys::process::clone3(0, into), target.group) {
        // The container has made sub-cgroups with controllers (systemd, nested engines): a cgroup with
        // children holds no processes. Init lives in one that does.
        (Err(error), Some(group)) if !target.exact && is_no_home(error.errno) => {
            beside_init(group, target.pid)?
        }
        // A user's login is in a cgroup of root's, and no cgroup above both is the user's.
        (Err(error), Some(group))
            if !target.exact && error.errno == libc::EACCES && group.is_of_user_unit() =>
        {
            outside = Some(group);
            sys::process::clone3(0, None)
        }
        (result, _) => result,
    };
    let cloned = match cloned {
        // The cgroup has been removed.
        Err(error) if error.errno == libc::ENODEV => {
            return Err(Error::text(Code::E_NOT_RUNNING, NOT_RUNNING));
        }
        result => result?,
    };
    let Some(cloned) = cloned else {
        // Its copy of the parent's end would keep it from ever seeing that the parent has died.
        drop(socket);
        if target.unseen { init::user::enter_container(child) } else { init::run(child) }
    };
    drop(child);
    let child =
        if target.unseen { place::second(cloned, &socket, target.deadline)? } else { cloned };
    Ok(Cloned { child, lent, socket, outside })
}

/// Clones into the cgroup that init is in, wherever it goes meanwhile.
fn beside_init(group: &Group, pid: i32) -> Result<sys::Result<Option<sys::process::Child>>> {
    let mut tries = 0;
    loop {
        let inner = group.v2_dir_of(pid)?;
        tries += 1;
        match sys::process::clone3(0, Some(inner.as_fd())) {
            // It has moved on, and that cgroup has children now, or is gone.
            Err(error)
                if tries < 16
                    && matches!(error.errno, libc::EBUSY | libc::ENODEV | libc::ENOENT) => {}
            result => return Ok(result),
        }
    }
}

/// A cgroup that takes no process: it passes controllers on, or is threaded.
fn is_no_home(errno: i32) -> bool {
    matches!(errno, libc::EBUSY | libc::EOPNOTSUPP)
}

/// Drives the child to execve; the end of its socket is success.
fn attend(
    plan: &ExecPlan,
    request: &Request,
    child: &sys::process::Child,
    socket: &OwnedFd,
    mut agent: Option<(Agent, Value)>,
) -> Result<Option<OwnedFd>> {
    schedule(child.pid, &plan.process)?;
    protocol::send(socket.as_fd(), &Message::Go(None))?;
    let mut terminal = None;
    loop {
        if let Some(deadline) = &request.deadline {
            deadline.wait(socket.as_fd())?;
        }
        let message = match &mut agent {
            Some((agent, state)) => agent.receive(socket.as_fd(), child, state)?,
            None => Some(protocol::receive(socket.as_fd())?),
        };
        let Some(message) = message else { continue };
        match message {
            Message::Console(master) => terminal = Some(master),
            Message::Failed(failure) => return Err(render(&plan.steps, &failure)),
            Message::End => break,
            _ => return Err(Error::text(Code::E_INTERNAL, "the child spoke out of turn")),
        }
    }
    if let (Some(path), Some(master)) = (&request.console_socket, &terminal) {
        crate::console::send(path, master)?;
        terminal = None;
    }
    if let Some(path) = &request.pidfd_socket {
        send_fd(path, child.pidfd.as_fd(), "pidfd")?;
    }
    if let Some(path) = &request.pid_file {
        pid_file::write(path, child.pid, "exec")?;
    }
    Ok(terminal)
}
