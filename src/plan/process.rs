//! The process object: what runs, as whom, with which limits.

use std::collections::HashSet;

use oci_spec::runtime::{
    IOPriorityClass, LinuxPersonalityDomain, LinuxSchedulerFlag, LinuxSchedulerPolicy,
    PosixRlimitType,
};

use super::caps::{self, CapSets};
use super::check::{id, no_nul};
use super::lists;
use super::memory_policy::MemoryPolicy;
use crate::error::{At, Code, Findings};
use crate::host::Host;

/// Where to look when an environment has no PATH: what shells use for root.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A resource limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rlimit {
    /// Its place.
    pub at: At,
    /// `RLIMIT_*`
    pub resource: u32,
    /// Its name.
    pub name: String,
    /// Soft limit, `u64::MAX` for none.
    pub soft: u64,
    /// Hard limit, `u64::MAX` for none.
    pub hard: u64,
}

/// A scheduling policy, in the kernel's numbers (`sched_setattr`(2)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the kernel's names; times are in nanoseconds")]
pub struct Scheduler {
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

/// On which CPUs exec's process runs: one bit per CPU, in words of 64.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecAffinity {
    /// While it is on its way into the container's cgroup.
    pub initial: Option<Vec<u64>>,
    /// From then on; the kernel's choice when absent.
    pub last: Option<Vec<u64>>,
}

/// The process to run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Process {
    /// On a pseudo-terminal.
    pub terminal: bool,
    /// Its rows and columns.
    pub console_size: Option<(u16, u16)>,
    /// The argument vector, at least one.
    pub args: Vec<String>,
    /// The environment; `HOME` is added in the container when it is missing.
    pub env: Vec<String>,
    /// Absolute path in the container.
    pub cwd: String,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// File mode creation mask.
    pub umask: u32,
    /// The five capability sets.
    pub caps: CapSets,
    /// `no_new_privs`.
    pub no_new_privs: bool,
    /// Limits in the order given.
    pub rlimits: Vec<Rlimit>,
    /// `oom_score_adj`, untouched when absent.
    pub oom_score_adj: Option<i32>,
    /// Scheduling policy.
    pub scheduler: Option<Scheduler>,
    /// class << 13 | level.
    pub io_priority: Option<u32>,
    /// `execCPUAffinity`; means nothing to the container's init.
    pub exec_affinity: ExecAffinity,
    /// Argument of personality(2); of the container, for exec'd processes as well.
    pub personality: Option<u64>,
    /// Instead of `groups` the caller's stay.
    pub keep_groups: bool,
    /// NUMA memory policy; of the container, for exec'd processes as well.
    pub memory_policy: Option<MemoryPolicy>,
    /// `AppArmor` profile to enter at execve.
    pub apparmor: Option<String>,
    /// `SELinux` label to enter at execve.
    pub selinux: Option<String>,
}

impl Process {
    /// Gives its terminal the caller's size where the configuration names none.
    pub fn size_as(&mut self, size: Option<(u16, u16)>) {
        if self.terminal && self.console_size.is_none() {
            self.console_size = size;
        }
    }
}

const DEFAULT_UMASK: u32 = 0o022;

/// Checks a process object; `base` is where it stands, "/process" in config.json.
pub fn plan(spec: &oci_spec::runtime::Process, host: &Host, findings: &mut Findings) -> Process {
    let terminal = spec.terminal().unwrap_or(false);
    let size = |value: u64| u16::try_from(value).unwrap_or(u16::MAX);
    let console_size = spec
        .console_size()
        .filter(|_| terminal)
        .map(|area| (size(area.height()), size(area.width())))
        // Who does not know the size writes zeros.
        .filter(|size| *size != (0, 0));
    let cwd = spec.cwd().to_string_lossy().into_owned();
    if !cwd.starts_with('/') {
        findings.problem(Code::E_NOT_ABSOLUTE, "/process/cwd", "not an absolute path");
    }
    no_nul("/process/cwd", &cwd, findings);
    let args = spec.args().clone().unwrap_or_default();
    match args.first().map(String::as_str) {
        None | Some("") => findings.problem(Code::E_ARGS, "/process/args", "names no program"),
        Some(_) => {}
    }
    for (index, arg) in args.iter().enumerate() {
        no_nul(At::item("/process/args", index), arg, findings);
    }
    let user = spec.user();
    id("/process/user/uid", user.uid(), findings);
    id("/process/user/gid", user.gid(), findings);
    let groups = user.additional_gids().clone().unwrap_or_default();
    for (index, group) in groups.iter().enumerate() {
        id(At::item("/process/user/additionalGids", index), *group, findings);
    }
    Process {
        terminal,
        console_size,
        args,
        env: env(spec.env().as_ref(), findings),
        cwd,
        uid: user.uid(),
        gid: user.gid(),
        groups,
        umask: umask(user.umask(), findings),
        caps: caps::plan(spec.capabilities().as_ref(), host, findings),
        no_new_privs: spec.no_new_privileges().unwrap_or(false),
        rlimits: rlimits(spec.rlimits().as_ref(), findings),
        oom_score_adj: oom_score_adj(spec.oom_score_adj(), findings),
        scheduler: scheduler(spec.scheduler().as_ref(), findings),
        io_priority: io_priority(spec.io_priority().as_ref(), findings),
        exec_affinity: exec_affinity(spec, findings),
        personality: None,
        memory_policy: None,
        keep_groups: false,
        apparmor: label(
            "/process/apparmorProfile",
            spec.apparmor_profile().as_deref(),
            ("AppArmor", host.apparmor),
            findings,
        ),
        selinux: label(
            "/process/selinuxLabel",
            spec.selinux_label().as_deref(),
            ("SELinux", host.selinux),
            findings,
        ),
    }
}

fn umask(umask: Option<u32>, findings: &mut Findings) -> u32 {
    let umask = umask.unwrap_or(DEFAULT_UMASK);
    if umask > 0o777 {
        findings.problem(
            Code::E_UMASK,
            "/process/user/umask",
            format!("{umask:#o} is no file mode mask"),
        );
    }
    umask
}

fn env(env: Option<&Vec<String>>, findings: &mut Findings) -> Vec<String> {
    for (index, entry) in env.into_iter().flatten().enumerate() {
        let at = At::item("/process/env", index);
        no_nul(at, entry, findings);
        match entry.find('=') {
            Some(0) => findings.problem(Code::E_ENV, at, "has no name before ="),
            None => findings.warn(Code::W_ENV, at, "has no ="),
            Some(_) => {}
        }
    }
    last_of_each_name(env.cloned().unwrap_or_default())
}

/// Of a repeated variable the last counts, as with runc and crun: getenv(3) would find the first.
fn last_of_each_name(mut env: Vec<String>) -> Vec<String> {
    let mut seen = HashSet::new();
    env.reverse();
    env.retain(|entry| seen.insert(entry.split('=').next().unwrap_or_default().to_owned()));
    env.reverse();
    env
}

fn label(
    at: &'static str,
    label: Option<&str>,
    (lsm, enabled): (&str, bool),
    findings: &mut Findings,
) -> Option<String> {
    let label = label.filter(|label| !label.is_empty())?;
    no_nul(at, label, findings);
    // Engines write `unconfined` where there is no AppArmor, too: it asks for nothing.
    if !enabled && label == "unconfined" {
        return None;
    }
    if !enabled {
        findings.problem(
            Code::E_LSM_MISSING,
            at,
            format!("needs {lsm}, which is not enabled on this host"),
        );
    }
    Some(label.to_owned())
}

fn oom_score_adj(value: Option<i32>, findings: &mut Findings) -> Option<i32> {
    if value.is_some_and(|value| !(-1000..=1000).contains(&value)) {
        findings.problem(
            Code::E_OOM_SCORE_ADJ_VALUE,
            "/process/oomScoreAdj",
            "is not between -1000 and 1000",
        );
    }
    value
}

fn rlimits(
    spec: Option<&Vec<oci_spec::runtime::PosixRlimit>>,
    findings: &mut Findings,
) -> Vec<Rlimit> {
    let mut limits: Vec<Rlimit> = Vec::new();
    for (index, limit) in spec.into_iter().flatten().enumerate() {
        let at = At::item("/process/rlimits", index);
        let (resource, name) = resource(limit.typ());
        if limits.iter().any(|known| known.resource == resource) {
            findings.problem(Code::E_RLIMIT_VALUE, at, format!("duplicate {name}"));
        }
        if limit.soft() > limit.hard() {
            findings.problem(
                Code::E_RLIMIT_VALUE,
                at,
                format!("soft limit {} above hard limit {}", limit.soft(), limit.hard()),
            );
        }
        limits.push(Rlimit {
            at,
            resource,
            name: name.to_owned(),
            soft: limit.soft(),
            hard: limit.hard(),
        });
    }
    limits
}

fn resource(kind: PosixRlimitType) -> (u32, &'static str) {
    // The C libraries disagree about the type of these numbers, all of them small.
    fn number(resource: impl TryInto<u32>) -> u32 {
        resource.try_into().unwrap_or(u32::MAX)
    }
    let (resource, name) = match kind {
        PosixRlimitType::RlimitAs => (libc::RLIMIT_AS, "RLIMIT_AS"),
        PosixRlimitType::RlimitCore => (libc::RLIMIT_CORE, "RLIMIT_CORE"),
        PosixRlimitType::RlimitCpu => (libc::RLIMIT_CPU, "RLIMIT_CPU"),
        PosixRlimitType::RlimitData => (libc::RLIMIT_DATA, "RLIMIT_DATA"),
        PosixRlimitType::RlimitFsize => (libc::RLIMIT_FSIZE, "RLIMIT_FSIZE"),
        PosixRlimitType::RlimitLocks => (libc::RLIMIT_LOCKS, "RLIMIT_LOCKS"),
        PosixRlimitType::RlimitMemlock => (libc::RLIMIT_MEMLOCK, "RLIMIT_MEMLOCK"),
        PosixRlimitType::RlimitMsgqueue => (libc::RLIMIT_MSGQUEUE, "RLIMIT_MSGQUEUE"),
        PosixRlimitType::RlimitNice => (libc::RLIMIT_NICE, "RLIMIT_NICE"),
        PosixRlimitType::RlimitNofile => (libc::RLIMIT_NOFILE, "RLIMIT_NOFILE"),
        PosixRlimitType::RlimitNproc => (libc::RLIMIT_NPROC, "RLIMIT_NPROC"),
        PosixRlimitType::RlimitRss => (libc::RLIMIT_RSS, "RLIMIT_RSS"),
        PosixRlimitType::RlimitRtprio => (libc::RLIMIT_RTPRIO, "RLIMIT_RTPRIO"),
        PosixRlimitType::RlimitRttime => (libc::RLIMIT_RTTIME, "RLIMIT_RTTIME"),
        PosixRlimitType::RlimitSigpending => (libc::RLIMIT_SIGPENDING, "RLIMIT_SIGPENDING"),
        PosixRlimitType::RlimitStack => (libc::RLIMIT_STACK, "RLIMIT_STACK"),
    };
    (number(resource), name)
}

fn scheduler(
    spec: Option<&oci_spec::runtime::Scheduler>,
    findings: &mut Findings,
) -> Option<Scheduler> {
    let spec = spec?;
    let policy = match spec.policy() {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIso => 4,
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => 6,
    };
    check_scheduler(spec, findings);
    let flags = spec.flags().iter().flatten().fold(0, |sum, flag| sum | scheduler_flag(flag));
    let nice = spec.nice().unwrap_or(0);
    if !(-20..=19).contains(&nice) {
        findings.problem(
            Code::E_SCHEDULER_VALUE,
            "/process/scheduler/nice",
            "is not between -20 and 19",
        );
    }
    let priority = u32::try_from(spec.priority().unwrap_or(0)).unwrap_or_else(|_| {
        findings.problem(Code::E_SCHEDULER_VALUE, "/process/scheduler/priority", "is negative");
        0
    });
    Some(Scheduler {
        policy,
        flags,
        nice,
        priority,
        runtime: spec.runtime().unwrap_or(0),
        deadline: spec.deadline().unwrap_or(0),
        period: spec.period().unwrap_or(0),
    })
}

/// What the kernel would refuse with a bare EINVAL (`__sched_setscheduler`, `__checkparam_dl`).
fn check_scheduler(spec: &oci_spec::runtime::Scheduler, findings: &mut Findings) {
    use LinuxSchedulerPolicy::{SchedDeadline, SchedFifo, SchedRr};
    let (policy, priority) = (spec.policy(), spec.priority().unwrap_or(0));
    let keeps = |flag| spec.flags().iter().flatten().any(|known| *known == flag);
    if keeps(LinuxSchedulerFlag::SchedFlagKeepPolicy) {
        return;
    }
    let at = At::of("/process/scheduler");
    let fixed = matches!(policy, SchedFifo | SchedRr);
    if fixed && !(1..=99).contains(&priority) && !keeps(LinuxSchedulerFlag::SchedFlagKeepParams) {
        findings.problem(
            Code::E_SCHEDULER_VALUE,
            at.leaf("/priority"),
            format!("{policy} needs one from 1 to 99"),
        );
    } else if !fixed && priority != 0 {
        findings.problem(
            Code::E_SCHEDULER_VALUE,
            at.leaf("/priority"),
            "is for SCHED_FIFO and SCHED_RR only",
        );
    }
    let times = [spec.runtime(), spec.deadline(), spec.period()].map(|time| time.unwrap_or(0));
    let [runtime, deadline, period] = times;
    if *policy != SchedDeadline {
        if times != [0; 3] {
            findings.problem(
                Code::E_SCHEDULER_VALUE,
                at,
                "runtime, deadline and period are for SCHED_DEADLINE only",
            );
        }
    } else if runtime < 1024 || deadline < runtime || (period != 0 && period < deadline) {
        let text = "SCHED_DEADLINE needs 1024 ns <= runtime <= deadline <= period";
        findings.problem(Code::E_SCHEDULER_VALUE, at, text);
    }
}

fn scheduler_flag(flag: &LinuxSchedulerFlag) -> u64 {
    match flag {
        LinuxSchedulerFlag::SchedResetOnFork => 0x01,
        LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
        LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
        LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
        LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
        LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
        LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
    }
}

fn io_priority(
    spec: Option<&oci_spec::runtime::LinuxIOPriority>,
    findings: &mut Findings,
) -> Option<u32> {
    let spec = spec?;
    let class = match spec.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    match u32::try_from(spec.priority()) {
        Ok(level) if level <= 7 => Some(class << 13 | level),
        _ => {
            findings.problem(
                Code::E_SCHEDULER_VALUE,
                "/process/ioPriority/priority",
                "is not between 0 and 7",
            );
            None
        }
    }
}

fn exec_affinity(spec: &oci_spec::runtime::Process, findings: &mut Findings) -> ExecAffinity {
    let Some(spec) = spec.exec_cpu_affinity() else { return ExecAffinity::default() };
    let mut read = |at: &'static str, list: Option<&String>| {
        let list = list.filter(|list| !list.is_empty())?;
        let mask = lists::mask(list);
        mask.map_err(|text| findings.problem(Code::E_SCHEDULER_VALUE, at, text)).ok()
    };
    ExecAffinity {
        initial: read("/process/execCPUAffinity/initial", spec.initial().as_ref()),
        last: read("/process/execCPUAffinity/final", spec.cpu_affinity_final().as_ref()),
    }
}

/// The argument of personality(2).
pub fn personality(
    spec: Option<&oci_spec::runtime::LinuxPersonality>,
    findings: &mut Findings,
) -> Option<u64> {
    let spec = spec?;
    if spec.flags().as_ref().is_some_and(|flags| !flags.is_empty()) {
        findings.problem(Code::E_PERSONALITY, "/linux/personality/flags", "no flag is defined");
    }
    Some(match spec.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
    })
}
