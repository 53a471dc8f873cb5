//! The order of the child's acts. This list is the one place that decides it.

use super::namespaces::Kind;
use super::{Plan, Switch};
use crate::error::{At, Code};

/// One act, and the part of config.json that asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// For messages; empty where no member asks for it.
    pub at: At,
    /// What to do.
    pub act: Do,
}

/// What the child can do. Numbers are indices into the lists of the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is documented where it is done, in init")]
pub enum Do {
    Affinity,
    JoinContainer,
    JoinNamespace(usize),
    TimeNamespace,
    Unshare(i32),
    OwnMounts,
    Sources,
    ContainerRoot,
    NewCgroupNamespace,
    DelegatedCgroup,
    NewSession,
    Keyring,
    Loopback,
    Hostname,
    Domainname,
    Personality,
    MemoryPolicy,
    SlaveHostTree,
    AttachRootfs,
    Mount(usize),
    DefaultLinks,
    Device(usize),
    Sysctl(usize),
    RuntimeHooks,
    ContainerHooks(usize),
    MakeCwd,
    ReadonlyTmpfs(usize),
    Console,
    SwitchRoot,
    RootfsPropagation,
    RootReadonly,
    CarryRoot,
    ReadonlyPath(usize),
    MaskedPath(usize),
    Label,
    Stdio,
    Home,
    Rlimit(usize),
    Umask,
    BoundingSet,
    Ids,
    Cwd,
    CwdOfUser,
    Program,
    CloseDescriptors,
    SeccompPrivileged,
    Capabilities,
    NoNewPrivs,
    CheckIdentity,
    Ready,
    WaitForStart,
    StartHooks(usize),
    Seccomp,
    Execve,
}

impl Do {
    /// What a call that fails while this is done is called.
    #[must_use]
    #[allow(clippy::match_same_arms, reason = "by subject, not by code")]
    pub fn code(self) -> Code {
        match self {
            Self::JoinContainer | Self::JoinNamespace(_) | Self::NewCgroupNamespace => {
                Code::E_NAMESPACE
            }
            Self::Loopback | Self::Hostname | Self::Domainname => Code::E_NAMESPACE,
            Self::TimeNamespace | Self::Unshare(_) | Self::OwnMounts => Code::E_NAMESPACE,
            Self::ContainerRoot => Code::E_ID_MAPPING,
            Self::Sources => Code::E_MOUNT_SOURCE,
            Self::Personality => Code::E_PERSONALITY,
            Self::MemoryPolicy => Code::E_MEMORY_POLICY,
            Self::SlaveHostTree | Self::AttachRootfs | Self::SwitchRoot => Code::E_ROOT_SWITCH,
            Self::RootfsPropagation | Self::RootReadonly | Self::CarryRoot => Code::E_ROOT_SWITCH,
            Self::Mount(_) | Self::ReadonlyTmpfs(_) => Code::E_MOUNT,
            Self::DefaultLinks | Self::Device(_) => Code::E_DEVICE_NODE,
            Self::Sysctl(_) => Code::E_SYSCTL,
            Self::RuntimeHooks | Self::ContainerHooks(_) | Self::StartHooks(_) => Code::E_HOOK,
            Self::MakeCwd | Self::Cwd | Self::CwdOfUser => Code::E_CWD,
            Self::Console => Code::E_TERMINAL,
            Self::ReadonlyPath(_) | Self::MaskedPath(_) => Code::E_MASKED_PATH,
            Self::Label => Code::E_LSM_LABEL,
            Self::Stdio => Code::E_STDIO,
            Self::Affinity => Code::E_SCHEDULER,
            Self::Rlimit(_) => Code::E_RLIMIT,
            Self::Umask | Self::BoundingSet | Self::Ids | Self::Capabilities => Code::E_IDENTITY,
            Self::NoNewPrivs | Self::CheckIdentity => Code::E_IDENTITY,
            Self::Home | Self::Program | Self::Execve => Code::E_PROGRAM,
            Self::SeccompPrivileged | Self::Seccomp => Code::E_SECCOMP,
            Self::DelegatedCgroup => Code::E_CGROUP,
            Self::NewSession | Self::Keyring | Self::CloseDescriptors => Code::E_SYSTEM,
            Self::Ready | Self::WaitForStart => Code::E_SYSTEM,
        }
    }
}

/// The acts of `create`'s child, in order.
///
/// Why this order: namespaces before what is set in them; sources were opened before all of this
/// (CVE-2021-30465); network devices and hooks before the sysctls that name a device, those through a
/// private procfs before masks; hooks before the root switch, as the spec says; masks when every mount is there; limits and identity last, because they would hinder
/// our own work; seccomp after everything that needs a call the profile may forbid.
#[must_use]
pub fn create(plan: &Plan) -> Vec<Step> {
    let mut list = Vec::with_capacity(96);
    namespaces(plan, &mut list);
    push(&mut list, "", Do::Affinity);
    rootfs(plan, &mut list);
    if let Some(process) = &plan.process {
        identity(process, &plan.seccomp, &mut list);
    } else {
        push(&mut list, "", Do::CloseDescriptors);
        push(&mut list, "", Do::Ready);
        push(&mut list, "", Do::WaitForStart);
        return list;
    }
    push(&mut list, "", Do::Ready);
    push(&mut list, "", Do::WaitForStart);
    for (index, hook) in plan.hooks.start_container.iter().enumerate() {
        list.push(Step { at: hook.at, act: Do::StartHooks(index) });
    }
    run(plan.process.as_ref(), &plan.seccomp, &mut list);
    list
}

/// The acts of `exec`'s child in a container that is there.
#[must_use]
pub fn exec(
    process: &super::process::Process,
    seccomp: &Option<crate::seccomp::Program>,
    keyring: bool,
) -> Vec<Step> {
    let mut list = Vec::with_capacity(24);
    let affinity = &process.exec_affinity;
    if affinity.last.is_some() {
        push(&mut list, "/process/execCPUAffinity/final", Do::Affinity);
    } else if affinity.initial.is_none() {
        push(&mut list, "", Do::Affinity);
    }
    // Nothing of the host may be open in the container's namespaces, not even for a moment.
    push(&mut list, "", Do::CloseDescriptors);
    push(&mut list, "", Do::JoinContainer);
    push(&mut list, "", Do::NewSession);
    if keyring {
        push(&mut list, keyring_at(Some(process)), Do::Keyring);
    }
    if process.terminal {
        push(&mut list, "/process/terminal", Do::Console);
    }
    identity(process, seccomp, &mut list);
    run(Some(process), seccomp, &mut list);
    list
}

/// What in the configuration a failure to make the keyring is due to: its label, if it has one.
fn keyring_at(process: Option<&super::process::Process>) -> &'static str {
    let labelled = process.is_some_and(|process| process.selinux.is_some());
    if labelled { "/process/selinuxLabel" } else { "" }
}

fn push(list: &mut Vec<Step>, at: &'static str, act: Do) {
    list.push(Step { at: At::of(at), act });
}

/// With a user namespace the child is cloned into that (and a pid namespace) only. The others are made
/// from inside, as its root, because what is made belongs to the namespace and ids one is in.
fn user_namespace(plan: &Plan, list: &mut Vec<Step>) {
    let at = "/linux/namespaces";
    // The offsets' file belongs to the caller as long as the child is dumpable: first of all.
    if plan.namespaces.is_new(Kind::Time) {
        push(list, "/linux/timeOffsets", Do::TimeNamespace);
    }
    let user = plan.namespaces.is_own(Kind::User);
    let mut flags = if user { plan.namespaces.unshared() } else { 0 };
    if !plan.parent_opens || plan.locks_mounts() {
        if flags & libc::CLONE_NEWNS != 0 {
            push(list, at, Do::Unshare(libc::CLONE_NEWNS));
            flags &= !libc::CLONE_NEWNS;
        }
        // While we are still the caller, who may reach them; or the parent does it in here.
        push(list, "", Do::Sources);
    }
    if user {
        push(list, "/linux/uidMappings", Do::ContainerRoot);
    }
    if flags != 0 {
        push(list, at, Do::Unshare(flags));
    }
}

fn namespaces(plan: &Plan, list: &mut Vec<Step>) {
    user_namespace(plan, list);
    if plan.switch == Switch::Carry {
        push(list, "/linux/namespaces", Do::OwnMounts);
    }
    for (index, joined) in plan.namespaces.joined.iter().enumerate() {
        let join = match joined.kind {
            // It is entered with the finished root.
            Kind::Mount => plan.switch != Switch::Carry,
            Kind::Cgroup | Kind::Time => true,
            // The parent has lent the others to the clone; those above it may not enter itself.
            _ => false,
        };
        if join {
            list.push(Step { at: joined.at, act: Do::JoinNamespace(index) });
        }
    }
    if plan.namespaces.is_new(Kind::Cgroup) {
        push(list, "/linux/namespaces", Do::NewCgroupNamespace);
    }
    if plan.cgroup.inner.delegated.is_some() {
        push(list, "/annotations/run.oci.delegate-cgroup", Do::DelegatedCgroup);
    }
    push(list, "", Do::NewSession);
    if plan.keyring {
        push(list, keyring_at(plan.process.as_ref()), Do::Keyring);
    }
    if plan.namespaces.is_new(Kind::Network) {
        push(list, "/linux/namespaces", Do::Loopback);
    }
    if plan.hostname.is_some() {
        push(list, "/hostname", Do::Hostname);
    }
    if plan.domainname.is_some() {
        push(list, "/domainname", Do::Domainname);
    }
}

fn rootfs(plan: &Plan, list: &mut Vec<Step>) {
    if plan.switch != Switch::Chroot {
        push(list, "/linux/rootfsPropagation", Do::SlaveHostTree);
        push(list, "/root/path", Do::AttachRootfs);
    }
    for (index, mount) in plan.mounts.iter().enumerate() {
        list.push(Step { at: mount.at, act: Do::Mount(index) });
    }
    for (index, device) in plan.devices.iter().enumerate() {
        list.push(Step { at: device.at, act: Do::Device(index) });
    }
    if plan.dev_links {
        push(list, "", Do::DefaultLinks);
    }
    if plan.process.as_ref().is_some_and(|process| process.terminal) {
        push(list, "/process/terminal", Do::Console);
    }
    let hooks = plan.hooks.has_runtime();
    if hooks || !plan.net_devices.is_empty() {
        push(list, if hooks { "/hooks" } else { "/linux/netDevices" }, Do::RuntimeHooks);
    }
    // When the devices are there that some of them are about: moved, or made by a hook.
    for (index, _) in plan.sysctls.iter().enumerate() {
        push(list, "/linux/sysctl", Do::Sysctl(index));
    }
    for (index, hook) in plan.hooks.create_container.iter().enumerate() {
        list.push(Step { at: hook.at, act: Do::ContainerHooks(index) });
    }
    // The root itself is always there.
    if plan.process.as_ref().is_some_and(|process| process.cwd != "/") {
        push(list, "/process/cwd", Do::MakeCwd);
    }
    // All that belongs into them has been made.
    for (index, mount) in plan.mounts.iter().enumerate() {
        if mount.is_readonly_tmpfs() {
            list.push(Step { at: mount.at, act: Do::ReadonlyTmpfs(index) });
        }
    }
    push(list, "/root/path", Do::SwitchRoot);
    for (index, hidden) in plan.readonly.iter().enumerate() {
        list.push(Step { at: hidden.at, act: Do::ReadonlyPath(index) });
    }
    for (index, hidden) in plan.masked.iter().enumerate() {
        list.push(Step { at: hidden.at, act: Do::MaskedPath(index) });
    }
    if plan.root_readonly {
        push(list, "/root/readonly", Do::RootReadonly);
    }
    if plan.switch == Switch::Carry {
        push(list, "/linux/namespaces", Do::CarryRoot);
    }
    // Last, for what is unbindable cannot be cloned for masks, or to be carried.
    if plan.rootfs_propagation.is_some() {
        push(list, "/linux/rootfsPropagation", Do::RootfsPropagation);
    }
}

/// From root of the container to its user. With `no_new_privs` false a filter may be loaded only with
/// `CAP_SYS_ADMIN`, so it comes before the last capabilities go, and nothing but these two calls runs
/// under it before execve (a profile that predates `close_range` must not break us).
fn identity(
    process: &super::process::Process,
    seccomp: &Option<crate::seccomp::Program>,
    list: &mut Vec<Step>,
) {
    if process.apparmor.is_some() || process.selinux.is_some() {
        let at = if process.apparmor.is_some() {
            "/process/apparmorProfile"
        } else {
            "/process/selinuxLabel"
        };
        push(list, at, Do::Label);
    }
    push(list, "", Do::Stdio);
    // Files are read before the limits, one of which is about files.
    push(list, "/process/env", Do::Home);
    if process.personality.is_some() {
        push(list, "/linux/personality", Do::Personality);
    }
    if process.memory_policy.is_some() {
        push(list, "/linux/memoryPolicy", Do::MemoryPolicy);
    }
    for (index, limit) in process.rlimits.iter().enumerate() {
        list.push(Step { at: limit.at, act: Do::Rlimit(index) });
    }
    push(list, "/process/user/umask", Do::Umask);
    push(list, "/process/capabilities/bounding", Do::BoundingSet);
    push(list, "/process/cwd", Do::Cwd);
    push(list, "/process/user", Do::Ids);
    push(list, "/process/cwd", Do::CwdOfUser);
    push(list, "/process/args/0", Do::Program);
    push(list, "", Do::CloseDescriptors);
    if seccomp.is_some() && !process.no_new_privs {
        push(list, "/linux/seccomp", Do::SeccompPrivileged);
    }
    push(list, "/process/capabilities", Do::Capabilities);
    if process.no_new_privs {
        push(list, "/process/noNewPrivileges", Do::NoNewPrivs);
    }
    // Under a filter that is already loaded only what it must allow anyway may be called.
    if process.no_new_privs || seccomp.is_none() {
        push(list, "/process", Do::CheckIdentity);
    }
    // The agent is to get the listener while the container is being created.
    if process.no_new_privs && seccomp.as_ref().is_some_and(|program| program.notify) {
        push(list, "/linux/seccomp", Do::Seccomp);
    }
}

fn run(
    process: Option<&super::process::Process>,
    seccomp: &Option<crate::seccomp::Program>,
    list: &mut Vec<Step>,
) {
    let late = seccomp.as_ref().is_some_and(|program| !program.notify);
    if late && process.is_some_and(|process| process.no_new_privs) {
        push(list, "/linux/seccomp", Do::Seccomp);
    }
    push(list, "/process/args/0", Do::Execve);
}
