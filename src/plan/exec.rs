//! The plan for `exec`: a process object in a container that is there.

use oci_spec::runtime::Process as Spec;

use super::caps::{self, CapSets};
use super::config::Config;
use super::listener::Listener;
use super::memory_policy::MemoryPolicy;
use super::process::{self, Process};
use super::steps::{self, Step};
use crate::error::{Code, Error, Finding, Findings};
use crate::host::Host;
use crate::seccomp::Program;

/// What the command line changes in the container's own process object.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// The command; replaces `args`.
    pub args: Vec<String>,
    /// `--cwd`
    pub cwd: Option<String>,
    /// `--env`
    pub env: Vec<String>,
    /// `--user` uid, and gid when given.
    pub user: Option<(u32, Option<u32>)>,
    /// `--additional-gids`
    pub groups: Vec<u32>,
    /// `--cap`
    pub caps: Vec<String>,
    /// `--no-new-privs`
    pub no_new_privs: bool,
    /// `--apparmor`
    pub apparmor: Option<String>,
    /// `--process-label`
    pub label: Option<String>,
    /// `--tty`
    pub tty: bool,
}

/// What is the container's own, for every process in it.
#[derive(Debug, Default)]
pub struct Kept {
    /// Its filter.
    pub seccomp: Option<Program>,
    /// Who answers the calls the filter wants notified.
    pub listener: Option<Listener>,
    /// It has a session keyring.
    pub keyring: bool,
    /// Argument of personality(2).
    pub personality: Option<u64>,
    /// Arguments of set_mempolicy(2).
    pub memory_policy: Option<MemoryPolicy>,
    /// Its processes keep their caller's supplementary groups.
    pub keep_groups: bool,
}

/// The annotation that contains every exec'd process.
pub const CONTAIN: &str = "dev.onggi.exec.contain";

/// Whether the container's annotations ask for it.
pub fn contained_by_default(spec: &Config, findings: &mut Findings) -> bool {
    let value = spec.annotations.as_ref().and_then(|all| all.get(CONTAIN)).map(String::as_str);
    match value {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => {
            let at = format!("/annotations/{CONTAIN}");
            findings.problem(Code::E_ANNOTATION, at, "is neither true nor false");
            false
        }
    }
}

/// What exec's child will do.
#[derive(Debug)]
pub struct ExecPlan {
    /// The process.
    pub process: Process,
    /// The container's filter.
    pub seccomp: Option<Program>,
    /// Who answers the calls it wants notified.
    pub listener: Option<Listener>,
    /// The acts in order.
    pub steps: Vec<Step>,
}

/// Whether a whole process object names no capabilities, or no profile or label for a security module that is
/// in force.
pub fn lacks_confinement(process: &Spec, host: &Host) -> bool {
    let is_none = |text: &Option<String>| text.as_deref().is_none_or(str::is_empty);
    process.capabilities().is_none()
        || (host.apparmor && is_none(process.apparmor_profile()))
        || (host.selinux && is_none(process.selinux_label()))
}

/// Then the container's apply, as with runc and crun: without a label the process would run as the runtime
/// itself does, with more rights than its container.
pub fn confine(process: &mut Spec, own: Option<&Spec>) {
    let Some(own) = own else { return };
    let kept = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let profile = kept(process.apparmor_profile()).or_else(|| own.apparmor_profile().clone());
    let label = kept(process.selinux_label()).or_else(|| own.selinux_label().clone());
    let capabilities = process.capabilities().clone().or_else(|| own.capabilities().clone());
    process.set_apparmor_profile(profile).set_selinux_label(label).set_capabilities(capabilities);
}

/// Plans a process from a whole process object, or from the container's own with overrides.
pub fn plan(
    spec: &Spec,
    overrides: Option<&Overrides>,
    host: &Host,
    kept: Kept,
) -> Result<(ExecPlan, Vec<Finding>), Error> {
    let mut findings = Findings::default();
    let mut process = match overrides {
        None => process::plan(spec, host, &mut findings),
        Some(overrides) => overridden(spec, overrides, host, &mut findings),
    };
    process.personality = kept.personality;
    process.memory_policy = kept.memory_policy;
    process.keep_groups = kept.keep_groups;
    let Kept { seccomp, listener, keyring, .. } = kept;
    let steps = steps::exec(&process, &seccomp, keyring);
    Ok((ExecPlan { process, seccomp, listener, steps }, findings.finish()?))
}

fn overridden(spec: &Spec, overrides: &Overrides, host: &Host, findings: &mut Findings) -> Process {
    let mut spec = spec.clone();
    spec.set_args(Some(overrides.args.clone()));
    spec.set_terminal(Some(overrides.tty));
    if let Some(cwd) = &overrides.cwd {
        spec.set_cwd(cwd.into());
    }
    if overrides.apparmor.is_some() {
        spec.set_apparmor_profile(overrides.apparmor.clone());
    }
    if overrides.label.is_some() {
        spec.set_selinux_label(overrides.label.clone());
    }
    let mut env = spec.env().clone().unwrap_or_default();
    for entry in &overrides.env {
        let name = entry.split('=').next().unwrap_or_default();
        env.retain(|known| known.split('=').next() != Some(name));
        env.push(entry.clone());
    }
    spec.set_env(Some(env));
    let mut process = process::plan(&spec, host, findings);
    if let Some((uid, gid)) = overrides.user {
        super::check::id("--user", uid, findings);
        process.uid = uid;
        if let Some(gid) = gid {
            super::check::id("--user", gid, findings);
            process.gid = gid;
        }
    }
    for group in &overrides.groups {
        super::check::id("--additional-gids", *group, findings);
        process.groups.push(*group);
    }
    process.no_new_privs |= overrides.no_new_privs;
    process.caps = with_caps(process.caps, &overrides.caps, host, findings);
    process
}

/// `--cap` adds to bounding, effective and permitted; never to inheritable or ambient
/// (CVE-2022-29162).
fn with_caps(sets: CapSets, names: &[String], host: &Host, findings: &mut Findings) -> CapSets {
    let mut added = 0;
    for name in names {
        match caps::number(name) {
            Some(number) => added |= 1u64 << number,
            None => findings.problem(
                Code::E_CAPABILITY,
                "--cap",
                format!("unknown capability {:?}", name),
            ),
        }
    }
    if added == 0 {
        return sets;
    }
    let asked = CapSets {
        bounding: sets.bounding | added,
        effective: sets.effective | added,
        permitted: sets.permitted | added,
        ..sets
    };
    caps::limit(asked, host, findings)
}
