//! The child: from clone3 to execve, inside the container's namespaces.
//!
//! Owns: doing the plan's steps, in their order. Must not: interpret config.json, open a host path
//! after the root switch, resolve a path of the rootfs other than by descriptor, write logs, or return.
//! It is a single-threaded copy of the parent's memory, so it may use the heap; it leaves only by
//! execve or `_exit`.

pub mod console;
pub mod copyup;
pub mod device;
pub mod gate;
pub mod identity;
pub mod label;
pub mod listener;
pub mod mount;
pub mod proc;
pub mod program;
pub mod resolve;
pub mod rootfs;
pub mod user;

use std::cell::OnceCell;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use crate::error::{Code, Error, Result};
use crate::plan::Plan;
use crate::plan::mounts::Source;
use crate::plan::namespaces::Kind;
use crate::plan::process::Process;
use crate::plan::steps::{Do, Step};
use crate::seccomp::Program;
use crate::spawn::prepare::{Prepared, Sources};
use crate::spawn::protocol::{self, Failure, Message};
use crate::spawn::{HookState, render};
use crate::sys;

/// What only create's child has.
#[derive(Debug)]
pub struct Create<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// What the parent has opened for it.
    pub prepared: &'a Prepared,
    /// What the container's cgroup mount consists of.
    pub cgroup_mounts: &'a [ContainerMount],
    /// The FIFO that `start` writes to.
    pub gate: OwnedFd,
    /// The FIFO that `start` reads failures from.
    pub error: OwnedFd,
    /// Makes the OCI state for hooks.
    pub state: &'a HookState<'a>,
    /// `start` comes some time later, from another process: till then it should cost next to nothing.
    pub waits: bool,
    /// Path of a private directory of the host, to stage mounts that need mount(2).
    pub staging: &'a std::ffi::CStr,
}

/// The container that exec's child enters.
#[derive(Debug)]
pub struct Join<'a> {
    /// The pidfd of its init.
    pub init: BorrowedFd<'a>,
    /// The `CLONE_NEW*` kinds to enter, in one call.
    pub mask: i32,
    /// It has a user namespace, which is among them or has been entered already.
    pub user: bool,
    /// Its root, where that is not its mount namespace's.
    pub root: Option<OwnedFd>,
}

/// The child of create or exec.
#[derive(Debug)]
pub struct Child<'a> {
    /// The session keyring's name.
    pub keyring: String,
    /// What to do.
    pub steps: &'a [Step],
    /// What to become; a container may be without.
    pub process: Option<&'a Process>,
    /// The filter.
    pub seccomp: Option<&'a Program>,
    /// The parent takes the filter's listener, if it has one; otherwise it has to be sent.
    pub listener_taken: bool,
    /// All else that create needs.
    pub create: Option<Create<'a>>,
    /// What only exec has.
    pub join: Option<Join<'a>>,
    /// To the parent; gone after Ready.
    pub socket: Option<OwnedFd>,
    /// `tasks` files of the cgroup v1 hierarchies to enter.
    pub tasks: Vec<OwnedFd>,
    /// The first descriptor number that is ours and not the container's.
    pub first_fd: u32,
    /// Signals that the runtime's caller made it ignore.
    pub ignored_signals: u64,
    /// Environment entries that the runtime adds.
    pub extra_env: Vec<String>,
    /// What the steps find and hand on.
    pub work: Work,
}

/// What one step leaves for a later one.
#[derive(Debug, Default)]
pub struct Work {
    /// A private procfs.
    pub proc: Option<OwnedFd>,
    /// `cgroup.procs` of the cgroup that the container manages itself.
    pub delegated: Option<OwnedFd>,
    /// The mount namespace that was left to build the root filesystem.
    pub left_mounts: Option<OwnedFd>,
    /// The root filesystem, where it is attached nowhere.
    pub carried: Option<OwnedFd>,
    /// Clones of the container's cgroup directories that the parent could not make.
    pub cgroup_trees: Vec<OwnedFd>,
    /// Each tmpfs that is going to be read-only.
    pub readonly_tmpfs: Vec<(usize, OwnedFd)>,
    /// The attached empty directory that masks are clones of.
    pub empty_dir: Option<OwnedFd>,
    /// /dev/null has been attached once; from then on masks are clones of that.
    pub null_attached: bool,
    /// The directory of the last device made, and its path.
    pub device_dir: Option<(String, OwnedFd)>,
    /// The terminal.
    pub tty: Option<OwnedFd>,
    /// The user namespace denies setgroups(2).
    pub groups_denied: bool,
    /// Root may not enter the working directory; perhaps its user may.
    pub cwd_denied: bool,
    /// The program to run, found and resolved.
    pub program: Option<program::Found>,
    /// The user's home directory, where the environment names none.
    pub home: Option<String>,
    /// The container has been entered, by exec.
    pub entered: bool,
    /// `start` has opened the gate: failures go to its FIFO.
    pub started: bool,
}

/// One hierarchy of the container's cgroup mount.
#[derive(Debug)]
pub struct ContainerMount {
    /// Where and how it appears.
    pub mount: crate::cgroup::CgroupMount,
    /// A clone of the container's directory, where there is no cgroup namespace to hide the rest.
    pub tree: OnceCell<OwnedFd>,
    /// The child has to make that clone: there is no directory before systemd has its pid.
    pub late: bool,
}

/// What the cgroup mounts of this container consist of, one after the other.
pub fn cgroup_mounts(record: &crate::cgroup::Record, plan: &Plan) -> Result<Vec<ContainerMount>> {
    if !plan.mounts.iter().any(|mount| mount.source == Source::Cgroup) {
        return Ok(Vec::new());
    }
    let late = shows_cgroup_trees(plan) && plan.cgroup.unit.is_some() && !plan.locks_mounts();
    let mount = |mount| ContainerMount { mount, tree: OnceCell::new(), late };
    // A clone can be attached once.
    let times = plan.mounts.iter().filter(|mount| mount.source == Source::Cgroup).count();
    let mounts: Vec<_> =
        (0..times).flat_map(|_| crate::cgroup::mounts(record)).map(mount).collect();
    if plan.parent_opens && !plan.locks_mounts() {
        open_cgroup_trees(&mounts, plan)?;
    }
    Ok(mounts)
}

/// Whether a cgroup mount is of the container's directories: it has no cgroup namespace to hide the rest.
pub fn shows_cgroup_trees(plan: &Plan) -> bool {
    !plan.namespaces.is_own(Kind::Cgroup)
}

/// Clones the container's directory of each hierarchy.
fn open_cgroup_trees(mounts: &[ContainerMount], plan: &Plan) -> Result<()> {
    if !shows_cgroup_trees(plan) {
        return Ok(());
    }
    for mount in mounts.iter().filter(|mount| !mount.late) {
        keep_cgroup_tree(mount, cgroup_tree(&mount.mount)?)?;
    }
    Ok(())
}

fn keep_cgroup_tree(mount: &ContainerMount, tree: OwnedFd) -> Result<()> {
    mount
        .tree
        .set(tree)
        .map_err(|_| Error::text(Code::E_INTERNAL, "the cgroup has been opened before"))
}

/// A clone of the container's directory of one hierarchy.
pub fn cgroup_tree(mount: &crate::cgroup::CgroupMount) -> Result<OwnedFd> {
    let dir = sys::cstr("open_tree", &mount.dir)?;
    let attr = sys::mount::MountAttr::propagates(libc::MS_PRIVATE);
    Ok(crate::spawn::prepare::clone_tree(sys::fs::CWD, &dir, false, &attr)?)
}

/// Leaves descriptors open until all are closed in one call, before the identity changes: a close each
/// would be a sixth of all system calls of create. Past a number that no limit forbids they are closed.
fn leave_open<const N: usize>(fds: [OwnedFd; N]) {
    const LAST: i32 = 512;
    for fd in fds {
        if fd.as_raw_fd() < LAST {
            std::mem::forget(fd);
        }
    }
}

/// Runs the child. `place` has been done when the parent says Go.
pub fn run(mut child: Child<'_>) -> ! {
    if let Err(error) = child.begin() {
        child.fail(u32::MAX, &error);
    }
    for (index, step) in child.steps.iter().enumerate() {
        if let Err(error) = child.act(step.act) {
            child.fail(u32::try_from(index).unwrap_or(u32::MAX), &error);
        }
    }
    sys::process::exit_now(1)
}

impl<'a> Child<'a> {
    /// Before the steps: die with the parent, wait for Go, enter the v1 cgroups.
    fn begin(&mut self) -> Result<()> {
        sys::process::set_pdeathsig(libc::SIGKILL)?;
        match protocol::receive(self.socket()?)? {
            Message::Go(delegated) => self.work.delegated = delegated,
            // The parent died or gave up before anything was done.
            _ => sys::process::exit_now(1),
        }
        if !matches!(self.steps.first(), Some(Step { act: Do::TimeNamespace, .. })) {
            sys::process::set_dumpable(false)?;
        }
        crate::cgroup::enter(std::mem::take(&mut self.tasks))?;
        // Before the first target is mounted, as every source.
        for hierarchy in self.create.iter().flat_map(|create| create.cgroup_mounts) {
            if hierarchy.late {
                self.work.cgroup_trees.push(cgroup_tree(&hierarchy.mount)?);
            }
        }
        sys::process::reset_signals(self.ignored_signals)?;
        // Exact modes for what is made in the rootfs; the container's own mask is set later.
        sys::fs::umask(0);
        Ok(())
    }

    /// The table of acts.
    fn act(&mut self, act: Do) -> Result<()> {
        match act {
            Do::Affinity => self.affinity(),
            Do::JoinContainer => self.join_container(),
            Do::JoinNamespace(index) => self.join_namespace(index),
            Do::TimeNamespace => user::time_namespace(self),
            Do::Unshare(flags) => Ok(sys::process::unshare(flags)?),
            Do::OwnMounts => rootfs::own_mounts(self),
            Do::Sources => user::sources(self),
            Do::ContainerRoot => user::container_root(self.process),
            Do::NewCgroupNamespace => Ok(sys::process::unshare(libc::CLONE_NEWCGROUP)?),
            Do::DelegatedCgroup => self.delegated_cgroup(),
            Do::NewSession => Ok(sys::process::setsid()?),
            Do::Keyring => label::keyring(self),
            Do::Loopback => Ok(sys::socket::loopback_up()?),
            Do::Hostname => self.hostname(),
            Do::Domainname => self.domainname(),
            Do::Personality => self.personality(),
            Do::MemoryPolicy => identity::memory_policy(self),
            Do::SlaveHostTree => rootfs::slave_host_tree(),
            Do::AttachRootfs => rootfs::attach(self),
            Do::Mount(index) => mount::mount(self, index),
            Do::Device(index) => device::make(self, index),
            Do::DefaultLinks => device::links(self),
            Do::Sysctl(index) => proc::sysctl(self, index),
            Do::RuntimeHooks => self.runtime_hooks(),
            Do::ContainerHooks(index) => self.container_hook(index),
            Do::MakeCwd => rootfs::make_cwd(self),
            Do::ReadonlyTmpfs(index) => mount::make_readonly(self, index),
            Do::Console => console::open(self),
            Do::SwitchRoot => rootfs::switch(self),
            Do::RootfsPropagation => rootfs::propagation(self),
            Do::RootReadonly => rootfs::readonly(self),
            Do::CarryRoot => rootfs::carry(self),
            Do::ReadonlyPath(index) => rootfs::readonly_path(self, index),
            Do::MaskedPath(index) => rootfs::masked_path(self, index),
            Do::Label => label::at_execve(self),
            Do::Stdio => console::stdio(self),
            Do::Home => program::home(self),
            Do::Rlimit(index) => identity::rlimit(self, index),
            Do::Umask => identity::umask(self),
            Do::BoundingSet => identity::bounding_set(self),
            Do::Ids => identity::ids(self),
            Do::Cwd => program::cwd(self),
            Do::CwdOfUser => program::cwd_of_user(self),
            Do::Program => program::find(self),
            Do::CloseDescriptors => self.close_descriptors(),
            Do::SeccompPrivileged => identity::seccomp_privileged(self),
            Do::Capabilities => identity::capabilities(self),
            Do::NoNewPrivs => Ok(sys::cred::set_no_new_privs()?),
            Do::CheckIdentity => identity::check(self),
            Do::Ready => gate::ready(self),
            Do::WaitForStart => gate::wait(self),
            Do::StartHooks(index) => self.start_hook(index),
            Do::Seccomp => identity::seccomp(self),
            Do::Execve => program::execve(self),
        }
    }

    /// What the mounts are made of.
    pub fn sources(&self) -> Result<&'a Sources> {
        let prepared = self.create()?.prepared;
        prepared
            .sources
            .get()
            .ok_or_else(|| Error::text(Code::E_INTERNAL, "the sources were not opened"))
    }

    /// Tells whoever listens, and ends.
    fn fail(&mut self, step: u32, error: &Error) -> ! {
        let index = usize::try_from(step).unwrap_or(usize::MAX);
        let code = match (error.code(), self.steps.get(index)) {
            (Code::E_SYSTEM, Some(step)) => step.act.code(),
            (code, _) => code,
        };
        let errno = error.errno().unwrap_or(0);
        let mut failure = Failure { step, errno, code, text: error.to_string() };
        let told = if self.work.started {
            // start has no plan to find the pointer in.
            failure.text = render(self.steps, &failure).to_string();
            match &self.create {
                Some(create) => sys::fs::write_all(create.error.as_fd(), &failure.encode()).is_ok(),
                None => false,
            }
        } else {
            match &self.socket {
                Some(socket) => protocol::write(socket.as_fd(), &Message::Failed(failure)).is_ok(),
                None => false,
            }
        };
        // The status is for the case that nobody could be told.
        sys::process::exit_now(if told { 1 } else { 2 })
    }

    /// The socket to the parent.
    pub fn socket(&self) -> Result<BorrowedFd<'_>> {
        self.socket
            .as_ref()
            .map(AsFd::as_fd)
            .ok_or_else(|| Error::text(Code::E_SYSTEM, "the runtime is gone"))
    }

    /// What only create has.
    pub fn create(&self) -> Result<&Create<'a>> {
        self.create.as_ref().ok_or_else(|| Error::text(Code::E_INTERNAL, "not a step of exec"))
    }

    /// The process to become.
    pub fn process(&self) -> Result<&'a Process> {
        self.process.ok_or_else(|| Error::text(Code::E_INTERNAL, "no process"))
    }

    /// The CPUs of the process, now that it is in the container's cgroups: those asked for by exec, or
    /// all that its cpuset has. Since Linux 6.2 a mask that the caller happens to have (of a systemd
    /// unit's `CPUAffinity`) would stay whatever the cpuset becomes.
    fn affinity(&self) -> Result<()> {
        let asked = self.process.and_then(|process| process.exec_affinity.last.as_deref());
        let mask = if self.create.is_none() { asked } else { None };
        // More CPUs than a kernel can have (8192): it takes those that there are.
        Ok(sys::sched::sched_setaffinity(0, mask.unwrap_or(&[u64::MAX; 128]))?)
    }

    /// Enters all of a container's namespaces at once: those of exactly the process that was opened.
    pub(super) fn join_container(&mut self) -> Result<()> {
        let Some(join) = self.join.take() else {
            // Only where a first child has entered before: the program must not run outside.
            let text = "nothing to join, and nothing joined";
            let outside = Error::text(Code::E_INTERNAL, text);
            return if self.work.entered { Ok(()) } else { Err(outside) };
        };
        if join.mask != 0 {
            match sys::process::setns(join.init, join.mask) {
                Err(error) if error.errno == libc::ESRCH => {
                    return Err(Error::text(Code::E_NOT_RUNNING, crate::error::NOT_RUNNING));
                }
                result => result?,
            }
        }
        if join.user {
            user::container_root(self.process)?;
        }
        if let Some(root) = &join.root {
            sys::fs::fchdir(root.as_fd())?;
            sys::fs::chroot(c".")?;
        }
        self.work.entered = true;
        Ok(())
    }

    fn join_namespace(&self, index: usize) -> Result<()> {
        let create = self.create()?;
        let joined = create.plan.namespaces.joined.get(index);
        let file = create.prepared.namespaces.get(index);
        if let (Some(joined), Some(file)) = (joined, file) {
            sys::process::setns(file.as_fd(), joined.kind.flag())
                .map_err(|error| Error::from(error.about(joined.path.display())))?;
        }
        Ok(())
    }

    /// From inside the cgroup namespace, so that the root of that is the directory above.
    fn delegated_cgroup(&mut self) -> Result<()> {
        let procs = self.work.delegated.take();
        let procs = procs.ok_or_else(|| Error::text(Code::E_INTERNAL, "no delegated cgroup"))?;
        Ok(sys::fs::write_all(procs.as_fd(), b"0").map_err(|error| error.about("cgroup.procs"))?)
    }

    fn hostname(&self) -> Result<()> {
        let name = self.create()?.plan.hostname.as_deref().unwrap_or_default();
        Ok(sys::socket::sethostname(name)?)
    }

    fn domainname(&self) -> Result<()> {
        let name = self.create()?.plan.domainname.as_deref().unwrap_or_default();
        Ok(sys::socket::setdomainname(name)?)
    }

    fn personality(&self) -> Result<()> {
        Ok(sys::sched::personality(self.process()?.personality.unwrap_or(0))?)
    }

    /// Lets the parent run prestart and createRuntime hooks, in the runtime's namespaces.
    fn runtime_hooks(&self) -> Result<()> {
        protocol::send(self.socket()?, &Message::AtHooks)?;
        match protocol::receive(self.socket()?)? {
            Message::HooksDone => Ok(()),
            // It has its own failure to tell, or is gone.
            _ => sys::process::exit_now(1),
        }
    }

    /// createContainer: in the container's namespaces, before the root switch, so that the path is the
    /// host's.
    fn container_hook(&self, index: usize) -> Result<()> {
        let create = self.create()?;
        let state = create.state.json("creating", sys::process::getpid());
        match create.plan.hooks.create_container.get(index) {
            Some(hook) => crate::hooks::run_in_child(hook, &state, u32::MAX),
            None => Ok(()),
        }
    }

    /// startContainer: in the container, as the container.
    fn start_hook(&self, index: usize) -> Result<()> {
        let create = self.create()?;
        let state = create.state.json("created", sys::process::getpid());
        match create.plan.hooks.start_container.get(index) {
            Some(hook) => crate::hooks::run_in_child(hook, &state, self.first_fd),
            None => Ok(()),
        }
    }

    /// Closes everything but stdio, what the caller preserved, and our lines to the outside. Nothing
    /// of the host may be reachable from here on (CVE-2024-21626).
    pub(super) fn close_descriptors(&mut self) -> Result<()> {
        let mut keep: Vec<u32> = Vec::with_capacity(3);
        if let Some(join) = &self.join {
            keep.push(join.init.as_raw_fd().cast_unsigned());
            keep.extend(join.root.as_ref().map(|fd| fd.as_raw_fd().cast_unsigned()));
        }
        keep.extend(self.socket.as_ref().map(|fd| fd.as_raw_fd().cast_unsigned()));
        if let Some(create) = &self.create {
            keep.push(create.gate.as_raw_fd().cast_unsigned());
            keep.push(create.error.as_raw_fd().cast_unsigned());
        }
        keep.sort_unstable();
        // Their owners must not close the numbers again.
        std::mem::forget(self.work.proc.take());
        std::mem::forget(self.work.left_mounts.take());
        std::mem::forget(self.work.carried.take());
        std::mem::forget(self.work.empty_dir.take());
        std::mem::forget(self.work.tty.take());
        std::mem::forget(self.work.device_dir.take());
        let mut first = self.first_fd;
        for fd in keep {
            if fd > first {
                sys::exec::close_range(first, fd - 1)?;
            }
            first = first.max(fd + 1);
        }
        sys::exec::close_range(first, u32::MAX)?;
        if self.create.as_ref().is_some_and(|create| create.waits) && !self.may_madvise() {
            // The last chance. What is needed once more is read again.
            sys::heap::trim();
            sys::memory::release_code()?;
        }
        Ok(())
    }

    /// Whether memory can still be given back under the filter.
    fn may_madvise(&self) -> bool {
        self.seccomp.is_none_or(|program| program.allows_madvise)
    }
}
