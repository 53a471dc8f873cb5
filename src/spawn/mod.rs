//! The parent of create and exec: [`create`] is the list of its acts.
//!
//! Owns: the order of effects and their undoing. Intent is recorded before the first effect, so that
//! `delete --force` can finish from wherever a crash left it. Must not: interpret config.json.

pub mod borrow;
mod child;
mod contain;
mod effects;
pub mod exec;
pub mod hook_state;
pub mod idmap;
pub mod listener;
pub mod locked;
pub mod netdev;
pub mod pid_file;
pub mod place;
pub mod prepare;
pub mod protocol;
pub mod schedule;
pub mod seal;
pub mod trial;
pub mod userns;
mod verify;

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::cgroup::Group;
use crate::container::{self, Container, Status};
use crate::error::{Code, Error, Result};
use crate::host::Host;
use crate::init::{self, Child, Work};
use crate::plan::Plan;
use crate::plan::namespaces::Kind;
use crate::state::{self, State};
use crate::sys;
use crate::sys::process::Exit;
use borrow::Borrow;
use child::end_child;
pub use child::{render, send_fd};
pub use contain::{Contained, caller};
pub use hook_state::HookState;
use listener::Agent;
use locked::Wanted;
use prepare::Prepared;
use protocol::Message;
use schedule::{Lent, schedule};

/// How long undoing may wait for processes and cgroups to go.
pub const UNDO_DEADLINE: Duration = Duration::from_secs(10);

/// What create is asked to do besides the plan.
#[derive(Debug)]
pub struct Request<'a> {
    /// The state root, absolute.
    pub root: &'a Path,
    /// The bytes of config.json.
    pub config: &'a [u8],
    /// Its `ociVersion`.
    pub oci_version: &'a str,
    /// Its annotations, for hooks.
    pub annotations: &'a Value,
    /// Where to write the pid, absolute.
    pub pid_file: Option<PathBuf>,
    /// Who gets the terminal.
    pub console_socket: Option<PathBuf>,
    /// Who gets the pidfd.
    pub pidfd_socket: Option<PathBuf>,
    /// Another process will start it, some time.
    pub waits: bool,
    /// Descriptors from 3 on that are the container's.
    pub inherited: u32,
    /// What they mean, for its environment.
    pub extra_env: Vec<String>,
}

/// A created container, waiting at its gate.
#[derive(Debug)]
pub struct Created {
    /// Its init, a child of this process.
    pub pid: i32,
    /// Its init.
    pub pidfd: OwnedFd,
    /// The master of its terminal, if nobody else got it.
    pub terminal: Option<OwnedFd>,
}

/// Makes a container up to its gate, or leaves nothing.
pub fn create(plan: &Plan, host: &Host, request: &Request<'_>) -> Result<(Created, Container)> {
    let prepared = prepare::prepare(plan, host)?;
    let agent = plan.listener.as_ref().map(Agent::connect).transpose()?;
    let mut making = Making { agent, ..Making::reserve(plan, host, request)? };
    let mut group = None;
    match making.make(plan, host, request, prepared, &mut group) {
        Ok(created) => {
            let Making { root, dir, state, networks, agent, .. } = making;
            put_away((root, networks, agent, group), request.waits);
            Ok((created, Container { dir, state }))
        }
        Err(error) => Err(making.undo(plan, group, error)),
    }
}

/// Done with `value`: dropped, or, if this process `ends` in a moment, left to its end, which closes and
/// frees all at once. A close each would be a twentieth of all system calls of create.
fn put_away<T>(value: T, ends: bool) {
    if ends {
        std::mem::forget(value);
    }
}

/// A container in the making: what has been done, for the case that it must be undone.
#[derive(Debug)]
struct Making<'a> {
    request: &'a Request<'a>,
    root: OwnedFd,
    dir: OwnedFd,
    state: State,
    child: Option<sys::process::Child>,
    /// Runtime hooks have run, so that poststop hooks are due when it fails (decided order).
    hooked: bool,
    /// Where network devices were moved, so that they can be found again.
    networks: Option<netdev::Networks>,
    terminal: Option<OwnedFd>,
    /// Who gets the seccomp listener.
    agent: Option<Agent>,
}

impl<'a> Making<'a> {
    /// Reserves the id by making its directory, and records what is intended.
    fn reserve(plan: &Plan, host: &Host, request: &'a Request<'a>) -> Result<Self> {
        let root = container::make_root(request.root)?;
        let name = sys::cstr("mkdir", &plan.id)?;
        match sys::fs::mkdirat(root.as_fd(), &name, 0o700) {
            Err(error) if error.errno == libc::EEXIST => {
                return Err(Error::text(
                    Code::E_ID_IN_USE,
                    "container with given ID already exists",
                ));
            }
            result => result.map_err(Error::at(Code::E_STATE_ROOT, "state directory"))?,
        }
        let reserved = Self::record(plan, host, request, &root);
        match reserved {
            Ok((dir, state)) => Ok(Self {
                request,
                root,
                dir,
                state,
                child: None,
                hooked: false,
                networks: None,
                terminal: None,
                agent: None,
            }),
            Err(error) => Err(also(error, container::remove_named(root.as_fd(), &plan.id))),
        }
    }

    fn record(
        plan: &Plan,
        host: &Host,
        request: &Request<'_>,
        root: &OwnedFd,
    ) -> Result<(OwnedFd, State)> {
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
        let dir = sys::fs::openat(root.as_fd(), &sys::cstr("open", &plan.id)?, flags, 0)?;
        let policy = plan.process.as_ref().and_then(|process| process.memory_policy.as_ref());
        let state = State {
            id: plan.id.clone(),
            oci_version: request.oci_version.to_owned(),
            bundle: plan.bundle.clone(),
            rootfs: plan.rootfs.clone(),
            boot: state::boot_id()?.to_owned(),
            creator: Some(state::identify(sys::process::getpid())?),
            init: None,
            created: String::new(),
            cgroup: plan.cgroup.record(&host.cgroups),
            seccomp_flags: plan.seccomp.as_ref().map(|program| program.flags),
            new_namespaces: plan.namespaces.new.iter().fold(0, |all, kind| all | kind.flag()),
            own_pid_namespace: plan.namespaces.is_new(Kind::Pid),
            keyring: plan.keyring,
            keyring_name: if plan.keyring { state::keyring_name(&plan.id)? } else { String::new() },
            personality: plan.process.as_ref().and_then(|process| process.personality),
            exec_contained: plan.exec_contained,
            chroot: plan.switch.is_chroot(),
            memory_policy: policy.map(|policy| (policy.mode, policy.nodes.clone())),
            keep_groups: plan.process.as_ref().is_some_and(|process| process.keep_groups),
            poststart: !plan.hooks.poststart.is_empty(),
            poststop: !plan.hooks.poststop.is_empty(),
            rdt: None,
            net_devices: Vec::new(),
            network: plan.namespaces.path_of(Kind::Network).map(Path::to_owned),
            pid_file: request.pid_file.clone(),
            owner: owner(host.euid),
        };
        state.save(dir.as_fd())?;
        Ok((dir, state))
    }

    /// The parent's acts in order. Whatever fails, [`Making::undo`] follows, also of the cgroups, once `placed`.
    fn make(
        &mut self,
        plan: &Plan,
        host: &Host,
        request: &Request<'_>,
        mut prepared: Prepared,
        placed: &mut Option<Group>,
    ) -> Result<Created> {
        self.keep_files(plan, request)?;
        self.make_notify(plan, &mut prepared)?;
        let gate = self.fifo(c"gate")?;
        let error = self.fifo(c"error")?;
        let group = Group::create(&plan.cgroup, &host.cgroups)
            .map_err(|error| error.or_code(Code::E_CGROUP))?;
        let group = placed.insert(group);
        self.state.cgroup = group.record();
        self.make_rdt(plan, &prepared)?;
        let mounts = init::cgroup_mounts(&self.shown_cgroup(host), plan)?;
        let (socket, theirs) = sys::socket::seqpacket_pair()?;
        let oci_state = HookState { state: self.state.clone(), annotations: request.annotations };
        let staging = sys::cstr("mount", request.root.join(&plan.id).as_os_str().as_bytes())?;
        let child = Child {
            keyring: self.state.keyring_name(),
            steps: &plan.steps,
            process: plan.process.as_ref(),
            seccomp: plan.seccomp.as_ref(),
            listener_taken: plan.listener.as_ref().is_some_and(|listener| listener.taken),
            create: Some(init::Create {
                plan,
                prepared: &prepared,
                cgroup_mounts: &mounts,
                gate,
                error,
                state: &oci_state,
                waits: request.waits,
                staging: &staging,
            }),
            join: None,
            socket: Some(theirs),
            tasks: group.tasks()?,
            first_fd: 3 + request.inherited,
            ignored_signals: sys::process::ignored_signals()?,
            extra_env: request.extra_env.clone(),
            work: Work::default(),
        };
        let socket = self.clone_init(plan, (&prepared, host), group, child, socket)?;
        let delegated = self.place(plan, host, (&prepared, group))?;
        protocol::tell(socket.as_fd(), &Message::Go(delegated))?;
        let wanted = Wanted { plan, prepared: &prepared, cgroup_mounts: &mounts, state: &staging };
        self.attend(wanted, &socket, &oci_state)?;
        let created = self.commit(plan, request)?;
        put_away((socket, mounts, prepared), request.waits);
        Ok(created)
    }

    /// What a cgroup mount shows: a container that could get none is in the caller's.
    fn shown_cgroup(&self, host: &Host) -> crate::cgroup::Record {
        if self.state.cgroup.places.is_empty() {
            return host.cgroups.own();
        }
        self.state.cgroup.clone()
    }

    /// What exec and later commands need: the configuration's own bytes and the compiled filter.
    fn keep_files(&self, plan: &Plan, request: &Request<'_>) -> Result<()> {
        state::write_file(self.dir.as_fd(), c"config.json", request.config)?;
        if let Some(program) = &plan.seccomp {
            state::write_file(
                self.dir.as_fd(),
                c"seccomp.bpf",
                &crate::seccomp::to_bytes(program),
            )?;
        }
        Ok(())
    }

    /// A FIFO of the state directory, open for both sides: init holds it so that it never sees an end.
    fn fifo(&self, name: &std::ffi::CStr) -> Result<OwnedFd> {
        sys::fs::mknodat(self.dir.as_fd(), name, libc::S_IFIFO | 0o600, 0)?;
        Ok(sys::fs::openat(self.dir.as_fd(), name, libc::O_RDWR | libc::O_NOFOLLOW, 0)?)
    }

    /// Clones init into its namespaces and its v2 cgroup, and records its pid.
    fn clone_init(
        &mut self,
        plan: &Plan,
        (prepared, host): (&Prepared, &Host),
        group: &Group,
        mut child: Child<'_>,
        socket: OwnedFd,
    ) -> Result<OwnedFd> {
        let (joined, through) = place::joined(plan, prepared, host)?;
        let joins_pid = joined.iter().any(|(kind, _)| *kind == Kind::Pid);
        let lent = Lent::score(plan.process.as_ref(), !joins_pid && through.is_none())?;
        if joins_pid {
            // Others in that pid namespace see the child from its first moment.
            sys::process::set_dumpable(false)?;
        }
        sys::heap::trim();
        // The child's current directory, in its own mount namespace, is where the rootfs goes.
        sys::fs::fchdir(prepared.rootfs.as_fd())?;
        let borrow = Borrow::enter(&joined)?;
        let flags = if through.is_some() { 0 } else { plan.namespaces.cloned() };
        let cloned = place::clone_into(u64::from(flags.cast_unsigned()), group)
            .map_err(|error| error.or_code(Code::E_NAMESPACE))?;
        let Some(cloned) = cloned else {
            std::mem::forget(borrow);
            // Its copy of the parent's end would keep it from ever seeing that the parent has died.
            drop(socket);
            match through {
                Some(through) => init::user::go_through(child, &through),
                None => init::run(child),
            }
        };
        drop(borrow);
        // While our copy of its end is open, that it has died cannot be seen.
        drop(child.socket.take());
        put_away(child, self.request.waits);
        sys::fs::chdir(&sys::cstr("chdir", plan.bundle.as_os_str().as_bytes())?)?;
        let cloned = match through {
            Some(_) => place::second(cloned, &socket, None)?,
            None => cloned,
        };
        self.child = Some(cloned);
        self.state.init = Some(state::identify(self.pid())?);
        self.state.save(self.dir.as_fd())?;
        lent.settle(self.pid())?;
        Ok(socket)
    }

    /// What only the parent can do to the child before it begins. Returns what Go brings.
    fn place(
        &mut self,
        plan: &Plan,
        host: &Host,
        (prepared, group): (&Prepared, &mut Group),
    ) -> Result<Option<OwnedFd>> {
        if let (true, Some(ids)) = (plan.namespaces.is_new(Kind::User), &prepared.ids) {
            userns::write_maps(self.pid(), ids, host)?;
        }
        if plan.cgroup.unit.is_some() {
            let entered = group.enter_unit(&plan.cgroup, &host.cgroups, self.pid());
            // Also after a failure: what there is now to be undone.
            self.state.cgroup = group.record();
            entered?;
            self.state.save(self.dir.as_fd())?;
        }
        let delegated = place::enter_inner(plan, prepared, group, self.pid())?;
        group.apply_late(&plan.cgroup)?;
        if let Some(record) = &self.state.rdt {
            crate::rdt::place(record, self.pid())?;
        }
        if let (Some(process), Some(ids)) = (&plan.process, &prepared.ids) {
            place::raise_limits(self.pid(), process)?;
            place::give_stdio(process, ids)?;
        }
        Ok(delegated)
    }

    fn pid(&self) -> i32 {
        self.child.as_ref().map_or(0, |child| child.pid)
    }

    /// Drives the child to Ready.
    fn attend(
        &mut self,
        wanted: Wanted<'_>,
        socket: &OwnedFd,
        oci_state: &HookState<'_>,
    ) -> Result<()> {
        let plan = wanted.plan;
        loop {
            let message = match (&mut self.agent, &self.child) {
                (Some(agent), Some(child)) => {
                    let state = oci_state.value("creating", child.pid);
                    agent.receive(socket.as_fd(), child, &state)?
                }
                _ => Some(protocol::receive(socket.as_fd())?),
            };
            let Some(message) = message else { continue };
            match message {
                Message::Ready => return Ok(()),
                Message::AtSources(namespace) => {
                    locked::send(wanted, &namespace, socket.as_fd())?;
                }
                Message::Console(master) => self.terminal = Some(master),
                Message::AtHooks => {
                    self.give_devices(plan)?;
                    let state = oci_state.json("creating", self.pid());
                    self.hooked = plan.hooks.has_runtime();
                    crate::hooks::run_all(&plan.hooks.prestart, &state)?;
                    crate::hooks::run_all(&plan.hooks.create_runtime, &state)?;
                    protocol::tell(socket.as_fd(), &Message::HooksDone)?;
                }
                Message::Failed(failure) => {
                    self.hooked |= !plan.hooks.create_container.is_empty();
                    return Err(render(&plan.steps, &failure));
                }
                Message::End => return Err(self.died()?),
                _ => return Err(Error::text(Code::E_INTERNAL, "the child spoke out of turn")),
            }
        }
    }

    /// The child is gone without a word.
    fn died(&mut self) -> Result<Error> {
        let Some(child) = self.child.take() else {
            return Ok(Error::text(Code::E_INIT_DIED, "container init is gone"));
        };
        let exit = sys::process::wait(child.pidfd.as_fd(), true)?;
        let oom = Group::open(&self.state.cgroup)?.and_then(|group| group.oom_kills()).unwrap_or(0);
        Ok(match exit {
            Some(Exit::Signal(libc::SIGKILL)) if oom > 0 => Error::text(
                Code::E_OOM_AT_START,
                "container init was OOM-killed (memory limit too low?)",
            ),
            Some(exit) => {
                Error::text(Code::E_INIT_DIED, format!("container init ended early: {exit}"))
            }
            None => Error::text(Code::E_INIT_DIED, "container init ended early"),
        })
    }

    /// Init waits at its gate: hand out what others wait for, then make it official. The pid file comes
    /// last of what can fail, as its existence means success.
    fn commit(&mut self, plan: &Plan, request: &Request<'_>) -> Result<Created> {
        if let Some(process) = &plan.process {
            verify::init(self.pid(), process, plan.seccomp.is_some())?;
            schedule(self.pid(), process)?;
        }
        if let (Some(socket), Some(terminal)) = (&request.console_socket, &self.terminal) {
            crate::console::send(socket, terminal)
                .map_err(|error| error.or_code(Code::E_CONSOLE_SOCKET))?;
            self.terminal = None;
        }
        let child = self
            .child
            .as_ref()
            .ok_or_else(|| Error::text(Code::E_INIT_DIED, "container init is gone"))?;
        if let Some(socket) = &request.pidfd_socket {
            send_fd(socket, child.pidfd.as_fd(), "pidfd")?;
        }
        self.state.created = state::now_rfc3339();
        self.state.creator = None;
        self.state.save(self.dir.as_fd())?;
        if let Some(path) = &request.pid_file {
            pid_file::write(path, child.pid, &self.state.id)?;
        }
        let child = self
            .child
            .take()
            .ok_or_else(|| Error::text(Code::E_INIT_DIED, "container init is gone"))?;
        Ok(Created { pid: child.pid, pidfd: child.pidfd, terminal: self.terminal.take() })
    }

    /// Takes back everything, in reverse, and adds to the error what could not be.
    fn undo(mut self, plan: &Plan, group: Option<Group>, mut error: Error) -> Error {
        sys::deadline::clear();
        if let Some(networks) = &self.networks {
            error = also(error, networks.take_back(&self.state.net_devices));
        }
        if let Some(child) = self.child.take() {
            error = also(error, end_child(&child));
        }
        if let Some(record) = &self.state.rdt {
            error = also(error, crate::rdt::remove(record, true));
        }
        if let Some(group) = group {
            error = also(error, group.undo(UNDO_DEADLINE));
        }
        if self.hooked && !plan.hooks.poststop.is_empty() {
            let state =
                container::oci_state(&self.state, Status::Stopped, 0, self.request.annotations);
            error = also(error, crate::hooks::run_all(&plan.hooks.poststop, &state.to_string()));
        }
        if let Some(path) = &self.state.pid_file {
            error = also(error, pid_file::remove_own(path, self.state.init));
        }
        let (root, dir) = (self.root.as_fd(), self.dir.as_fd());
        also(error, container::remove_dir(root, &self.state.id, dir))
    }
}

/// Adds a failure of undoing to the failure that made it necessary.
fn also(error: Error, undo: Result<()>) -> Error {
    match undo {
        Ok(()) => error,
        Err(left) => error.and(format_args!("undoing: {left}")),
    }
}

fn owner(euid: u32) -> String {
    if euid == 0 { "root".to_owned() } else { euid.to_string() }
}
