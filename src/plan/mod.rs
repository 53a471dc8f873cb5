//! The whole meaning of config.json, decided before anything is done.
//!
//! Owns: every rule of the spec, every default, every refusal, and the order of the child's acts
//! ([`steps`]). Must not: make a system call or touch a file; it knows the machine only as [`Host`].

pub mod annotations;
pub mod caps;
pub mod check;
pub mod config;
pub mod devices;
pub mod exec;
pub mod hooks;
pub mod idmap;
pub mod ids;
pub mod listener;
pub mod lists;
pub mod memory_policy;
pub mod mounts;
pub mod namespaces;
pub mod netdevs;
pub mod options;
pub mod paths;
pub mod process;
pub mod rdt;
pub mod steps;
#[cfg(test)]
#[allow(clippy::panic, clippy::indexing_slicing, clippy::disallowed_methods)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Linux;

use crate::plan::config::Config;

use crate::cgroup::Placement;
use crate::error::{Code, Error, Finding, Findings};
use crate::host::{CAP_MKNOD, Host};
use crate::seccomp::Program;
use devices::Device;
use hooks::Hooks;
use listener::Listener;
use mounts::Mount;
use namespaces::{Kind, Namespaces};
use netdevs::NetDevice;
use paths::{Hidden, Sysctl};
use process::Process;
use rdt::Rdt;
use steps::Step;

/// What the command line adds to config.json.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `--no-pivot`
    pub no_pivot: bool,
    /// `--no-new-keyring`
    pub no_new_keyring: bool,
    /// How cgroups are made.
    pub cgroup: crate::cgroup::Options,
    /// The process gets its terminal from the caller: `--console-socket` was given.
    pub console_socket: bool,
    /// Somebody wants to be told when the container is ready: `NOTIFY_SOCKET` is set.
    pub notify: bool,
    /// Nobody stays to serve a terminal: create, or run --detach.
    pub detach: bool,
}

/// How the root filesystem becomes `/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    /// `pivot_root`(2), and the host's tree is unmounted.
    Pivot,
    /// `--no-pivot`: the mount is moved over `/` (for an initramfs, where `pivot_root` is refused).
    Move,
    /// The mount namespace is not the container's alone: the root is built in one of the child's own, and then
    /// taken along to that one as a tree that is attached nowhere and ends with its last process.
    Carry,
    /// Only chroot(2): that one could not be entered again, from a user namespace or without rights.
    Chroot,
}

impl Switch {
    /// Whether the root is not that of the mount namespace.
    #[must_use]
    pub fn is_chroot(self) -> bool {
        matches!(self, Self::Chroot | Self::Carry)
    }
}

/// Everything that create will do.
#[derive(Debug)]
pub struct Plan {
    /// The container's id.
    pub id: String,
    /// Absolute.
    pub bundle: PathBuf,
    /// Absolute.
    pub rootfs: PathBuf,
    /// `root.readonly`
    pub root_readonly: bool,
    /// How it becomes `/`.
    pub switch: Switch,
    /// `MS_PRIVATE` or `MS_SLAVE`: what the trees are while the container is built. Never shared, or the
    /// container's mounts would show on the host.
    pub propagation: u64,
    /// `linux.rootfsPropagation`, set on the new root at last; and whether for the whole tree.
    pub rootfs_propagation: Option<(u64, bool)>,
    /// Namespaces.
    pub namespaces: Namespaces,
    /// Network devices that the container gets.
    pub net_devices: Vec<NetDevice>,
    /// The maps of its user namespace, as far as config.json has them.
    pub ids: Option<ids::IdMappings>,
    /// The parent clones the sources of all mounts. One that may not leaves it to the child, which does
    /// it before it touches any target. See also [`Plan::locks_mounts`].
    pub parent_opens: bool,
    /// Mounts in order.
    pub mounts: Vec<Mount>,
    /// Device nodes.
    pub devices: Vec<Device>,
    /// The container makes /dev/fd and its kin, and /dev/ptmx.
    pub dev_links: bool,
    /// Masked paths.
    pub masked: Vec<Hidden>,
    /// Read-only paths.
    pub readonly: Vec<Hidden>,
    /// `linux.mountLabel`, for the filesystems that the child makes of itself.
    pub mount_label: Option<String>,
    /// Sysctls.
    pub sysctls: Vec<Sysctl>,
    /// Host name, if set.
    pub hostname: Option<String>,
    /// Domain name, if set.
    pub domainname: Option<String>,
    /// A new session keyring.
    pub keyring: bool,
    /// Processes of exec are contained without being asked for it.
    pub exec_contained: bool,
    /// Cgroup and limits.
    pub cgroup: Placement,
    /// The process' user owns the cgroup: it has it mounted for writing, in its own cgroup namespace.
    pub owns_cgroup: bool,
    /// The resctrl group.
    pub rdt: Option<Rdt>,
    /// The process; create without one is legal, start is not.
    pub process: Option<Process>,
    /// The seccomp filter.
    pub seccomp: Option<Program>,
    /// Who answers the calls it wants notified.
    pub listener: Option<Listener>,
    /// Hooks.
    pub hooks: Hooks,
    /// The child's acts in order.
    pub steps: Vec<Step>,
}

impl Plan {
    /// Whether the parent's clones must be made again in the child's copy of the mount namespace: the kernel
    /// locks the flags of mounts (ro, nosuid …), and what lies below others, when it copies them for a less
    /// privileged user namespace (mount_namespaces(7)). In a clone of the parent's own mounts the
    /// container's root could clear what the host has set.
    #[must_use]
    pub fn locks_mounts(&self) -> bool {
        let unshared =
            if self.namespaces.is_own(Kind::User) { self.namespaces.unshared() } else { 0 };
        self.parent_opens && unshared & Kind::Mount.flag() != 0
    }
}

/// Plans a container, or tells everything that is wrong with it. Warnings come with the plan.
pub fn create(
    id: &str,
    spec: &Config,
    bundle: &Path,
    host: &Host,
    options: &Options,
) -> Result<(Plan, Vec<Finding>), Error> {
    let mut findings = Findings::default();
    let none = Linux::default();
    let linux = spec.linux.as_ref().unwrap_or_else(|| no_linux(&none, &mut findings));
    check::version(&spec.oci_version, &mut findings);
    let namespaces = namespaces::plan(linux, host, &mut findings);
    let ids = ids::plan(linux, &namespaces, host, &mut findings);
    check::names(spec, &namespaces, &mut findings);
    let label = mount_label(linux, host, &mut findings);
    let context = annotations::mount_context_type(spec, &mut findings);
    let context = label.map(|label| format!("{context}={label}"));
    let mut mounts =
        mounts::plan(spec, bundle, (linux, &namespaces), context.as_deref(), &mut findings);
    mounts::protect_callers_cgroup(&mut mounts, options.cgroup.manager);
    let (rootfs, root_readonly) = root(spec, bundle, &namespaces, &mut findings);
    let rootfs_propagation = rootfs_propagation(linux, &namespaces, &mut findings);
    let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let (seccomp, listener) = seccomp(linux, bundle, host, &mut findings);
    let mut plan = Plan {
        id: id.to_owned(),
        bundle: bundle.to_owned(),
        rootfs,
        root_readonly,
        switch: switch(&namespaces, options),
        propagation: meanwhile(rootfs_propagation),
        rootfs_propagation,
        net_devices: netdevs::plan(linux.net_devices().as_ref(), &namespaces, &mut findings),
        devices: devices::plan(linux, &mounts, binds_devices(&namespaces, host), &mut findings),
        dev_links: !devices::dev_is_bound(&mounts),
        masked: list("/linux/maskedPaths", linux.masked_paths(), &namespaces, &mut findings),
        readonly: list("/linux/readonlyPaths", linux.readonly_paths(), &namespaces, &mut findings),
        mount_label: label.map(str::to_owned),
        sysctls: paths::sysctls(linux.sysctl().as_ref(), &namespaces, &mut findings),
        hostname: text(&spec.hostname),
        domainname: text(&spec.domainname),
        keyring: !options.no_new_keyring,
        exec_contained: exec::contained_by_default(spec, &mut findings),
        cgroup: cgroup(spec, linux, id, host, options, &mut findings),
        owns_cgroup: namespaces.is_new(Kind::Cgroup)
            && mounts.iter().any(Mount::is_writable_cgroup),
        rdt: rdt::plan(linux.intel_rdt().as_ref(), &mut findings),
        process: process(spec, &host.inside(namespaces.is_own(Kind::User)), &mut findings),
        seccomp,
        listener,
        hooks: hooks::plan(spec, &mut findings),
        ids,
        parent_opens: host.mounts,
        namespaces,
        mounts,
        steps: Vec::new(),
    };
    for_all_processes(&mut plan, (spec, linux), &mut findings);
    if options.notify {
        notify(&mut plan, &mut findings);
    }
    ids::check_process(plan.ids.as_ref(), plan.process.as_ref(), &mut findings);
    terminal(plan.process.as_ref(), options, &mut findings);
    plan.steps = steps::create(&plan);
    Ok((plan, findings.finish()?))
}

/// What the first process and those that are executed later have from the container.
fn for_all_processes(plan: &mut Plan, (spec, linux): (&Config, &Linux), findings: &mut Findings) {
    let personality = process::personality(linux.personality().as_ref(), findings);
    let memory_policy = memory_policy::plan(linux.memory_policy().as_ref(), findings);
    let keep_groups = annotations::keep_groups(spec, findings);
    if let Some(process) = &mut plan.process {
        process.personality = personality;
        process.memory_policy = memory_policy;
        process.keep_groups = keep_groups;
    }
}

fn cgroup(
    spec: &Config,
    linux: &Linux,
    id: &str,
    host: &Host,
    options: &Options,
    findings: &mut Findings,
) -> Placement {
    let none = BTreeMap::new();
    let annotations = spec.annotations.as_ref().unwrap_or(&none);
    crate::cgroup::plan(linux, annotations, id, &options.cgroup, &host.cgroups, findings)
}

fn no_linux<'a>(none: &'a Linux, findings: &mut Findings) -> &'a Linux {
    let text = "missing: this is a runtime for Linux containers";
    findings.problem(Code::E_MISSING, "/linux", text);
    none
}

fn process(spec: &Config, host: &Host, findings: &mut Findings) -> Option<Process> {
    spec.process.as_ref().map(|spec| process::plan(spec, host, findings))
}

/// Nobody makes device nodes in a user namespace, nor without the right to; the host's own are bound in their
/// place.
fn binds_devices(namespaces: &Namespaces, host: &Host) -> bool {
    namespaces.is_own(Kind::User) || host.user_namespace || host.capabilities & CAP_MKNOD == 0
}

fn list(
    base: &'static str,
    paths: &Option<Vec<String>>,
    namespaces: &Namespaces,
    findings: &mut Findings,
) -> Vec<Hidden> {
    paths::plan(base, paths.as_ref(), namespaces, findings)
}

fn root(
    spec: &Config,
    bundle: &Path,
    namespaces: &Namespaces,
    findings: &mut Findings,
) -> (PathBuf, bool) {
    let Some(root) = &spec.root else {
        findings.problem(Code::E_MISSING, "/root", "missing");
        return (PathBuf::new(), false);
    };
    let path = root.path();
    check::no_nul("/root/path", &path.to_string_lossy(), findings);
    if path.as_os_str().is_empty() {
        findings.problem(Code::E_MISSING, "/root/path", "is empty");
    }
    let readonly = root.readonly().unwrap_or(false);
    if readonly && !namespaces.may_mount() {
        findings.problem(Code::E_NEEDS_NAMESPACE, "/root/readonly", "needs a new mount namespace");
    }
    // A `/` or `/.` at the end would follow a link that must not be one.
    (bundle.join(path).components().collect(), readonly)
}

fn rootfs_propagation(
    linux: &Linux,
    namespaces: &Namespaces,
    findings: &mut Findings,
) -> Option<(u64, bool)> {
    let name = linux.rootfs_propagation().as_deref().filter(|name| !name.is_empty())?;
    let at = "/linux/rootfsPropagation";
    if !namespaces.may_mount() {
        findings.problem(Code::E_NEEDS_NAMESPACE, at, "needs a new mount namespace");
    }
    let flag = options::rootfs_propagation(name);
    if flag.is_none() {
        findings.problem(
            Code::E_PROPAGATION,
            at,
            format!("{:?} is none of shared, slave, private, unbindable", name),
        );
    }
    flag
}

/// What the trees are until the new root gets its own propagation.
fn meanwhile(rootfs_propagation: Option<(u64, bool)>) -> u64 {
    match rootfs_propagation {
        Some((libc::MS_PRIVATE | libc::MS_UNBINDABLE, _)) => libc::MS_PRIVATE,
        _ => libc::MS_SLAVE,
    }
}

fn switch(namespaces: &Namespaces, options: &Options) -> Switch {
    if namespaces.carries_root {
        Switch::Carry
    } else if !namespaces.is_new(Kind::Mount) {
        Switch::Chroot
    } else if options.no_pivot {
        Switch::Move
    } else {
        Switch::Pivot
    }
}

/// `linux.mountLabel`, where `SELinux` is there to understand it.
fn mount_label<'a>(linux: &'a Linux, host: &Host, findings: &mut Findings) -> Option<&'a str> {
    let label = linux.mount_label().as_deref().filter(|label| !label.is_empty())?;
    check::no_nul("/linux/mountLabel", label, findings);
    if !host.selinux {
        findings.problem(
            Code::E_LSM_MISSING,
            "/linux/mountLabel",
            "needs SELinux, which is not enabled on this host",
        );
    }
    Some(label)
}

fn seccomp(
    linux: &Linux,
    bundle: &Path,
    host: &Host,
    findings: &mut Findings,
) -> (Option<Program>, Option<Listener>) {
    let Some(profile) = linux.seccomp() else { return (None, None) };
    let mut warnings = Vec::new();
    let compiled = crate::seccomp::compile(profile, &mut warnings);
    for warning in warnings {
        findings.warn(Code::W_SECCOMP, "/linux/seccomp", warning);
    }
    match compiled {
        Ok(program) => {
            // Without notifications a listenerPath is ignored, says the spec.
            let needs = program.notify;
            let listener = needs.then(|| listener::plan(profile, bundle, host, findings)).flatten();
            (Some(program), listener)
        }
        Err(problems) => {
            for problem in problems {
                let at = format_args!("/linux/seccomp{}", problem.pointer);
                findings.problem(problem.code, at, problem.text);
            }
            (None, None)
        }
    }
}

/// The socket by which the container says that it is ready. It is mounted last: /run may be a mount.
fn notify(plan: &mut Plan, findings: &mut Findings) {
    let Some(process) = &mut plan.process else { return };
    if !plan.namespaces.may_mount() {
        findings.warn(
            Code::W_NOTIFY,
            "NOTIFY_SOCKET",
            "is not for a container without a new mount namespace",
        );
        return;
    }
    process.env.retain(|entry| !entry.starts_with("NOTIFY_SOCKET="));
    process.env.push(mounts::NOTIFY_ENVIRONMENT.to_owned());
    plan.mounts.push(mounts::notify());
}

/// runc's rule, and engines rely on the refusal.
fn terminal(process: Option<&Process>, options: &Options, findings: &mut Findings) {
    let terminal = process.is_some_and(|process| process.terminal);
    match (terminal, options.detach, options.console_socket) {
        (true, true, false) => findings.problem(
            Code::E_CONSOLE_SOCKET,
            "/process/terminal",
            "cannot allocate tty if onggi will detach without setting console socket",
        ),
        (true, false, true) | (false, _, true) => findings.problem(
            Code::E_CONSOLE_SOCKET,
            "--console-socket",
            "cannot use console socket if onggi will not detach or allocate tty",
        ),
        _ => {}
    }
}
