//! From `linux.seccomp` to a policy: every name resolved, every value checked.

use super::Problem;
use super::abi::{self, Abi};
use super::tables::{self, Row};
use crate::code::Code;
use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompFilterFlag as Flag,
    LinuxSeccompOperator as Operator, LinuxSyscall,
};

/// A checked profile.
pub(super) struct Policy {
    /// Verdict for calls that no rule matches.
    pub default: u32,
    /// Whether numbers above the largest named one get ENOSYS.
    pub newer_enosys: bool,
    /// The ABIs to write a section for, the native one first.
    pub abis: Vec<&'static Abi>,
    /// The rules in the order of the profile.
    pub rules: Vec<Rule>,
    /// The flags as written in the profile; see [`filter_flags`].
    pub flags: u32,
}

/// One entry of `syscalls`.
pub(super) struct Rule {
    pub rows: Vec<&'static Row>,
    pub action: u32,
    /// The rule matches if all conditions of one alternative hold. One empty
    /// alternative: always. No alternative: never, the rule only names calls.
    pub alternatives: Vec<Vec<Condition>>,
}

/// A comparison of one syscall argument.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Condition {
    pub arg: u32,
    pub test: Test,
    /// Bits of the argument that `Test::Equal` looks at.
    pub mask: u64,
    pub operand: u64,
    /// The condition holds if the test fails.
    pub negate: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Test {
    Equal,
    Greater,
    GreaterOrEqual,
}

/// Checks and translates a profile.
pub(super) fn read(
    profile: &LinuxSeccomp,
    warnings: &mut Vec<String>,
) -> Result<Policy, Vec<Problem>> {
    let mut reader = Reader { problems: Vec::new(), unknown: Vec::new(), warnings };
    let abis = reader.abis(profile);
    let default = reader.default_action(profile);
    let rules = reader.rules(profile, default);
    reader.listener(profile);
    if !reader.unknown.is_empty() {
        reader
            .warnings
            .push(format!("seccomp: unknown syscall names ignored: {}", reader.unknown.join(", ")));
    }
    if !reader.problems.is_empty() {
        return Err(reader.problems);
    }
    // TRACE counts as letting through: a tracer that emulates calls wants to see
    // the new ones, and can answer ENOSYS itself.
    let newer_enosys = !matches!(
        profile.default_action(),
        Action::ScmpActAllow | Action::ScmpActLog | Action::ScmpActTrace
    );
    Ok(Policy { default, newer_enosys, abis, rules, flags: profile_flags(profile) })
}

/// Collects what is wrong while a profile is read.
struct Reader<'a> {
    problems: Vec<Problem>,
    unknown: Vec<&'a str>,
    warnings: &'a mut Vec<String>,
}

impl<'a> Reader<'a> {
    fn problem(&mut self, code: Code, pointer: impl Into<String>, text: impl Into<String>) {
        self.problems.push(Problem { code, pointer: pointer.into(), text: text.into() });
    }

    /// The native ABI is always there: libseccomp starts from it, and a profile
    /// that lists only others would otherwise kill its own container.
    fn abis(&mut self, profile: &LinuxSeccomp) -> Vec<&'static Abi> {
        let mut abis = Vec::new();
        match abi::native() {
            Some(native) => abis.push(native),
            None => self.problem(
                Code::E_SECCOMP_ARCH,
                "",
                "there is no syscall table for this machine's architecture",
            ),
        }
        for arch in profile.architectures().iter().flatten() {
            match abi::from_oci(*arch) {
                Some(abi) if !abis.contains(&abi) => abis.push(abi),
                Some(_) => {}
                None => self.warnings.push(format!(
                    "seccomp: there is no syscall table for {arch}: its calls are killed"
                )),
            }
        }
        abis
    }

    fn default_action(&mut self, profile: &LinuxSeccomp) -> u32 {
        self.verdict(profile.default_action(), profile.default_errno_ret(), "/defaultErrnoRet")
    }

    /// The value a filter returns for an action.
    fn verdict(&mut self, action: Action, errno: Option<u32>, pointer: &str) -> u32 {
        let base = match action {
            Action::ScmpActKill | Action::ScmpActKillThread => libc::SECCOMP_RET_KILL_THREAD,
            Action::ScmpActKillProcess => libc::SECCOMP_RET_KILL_PROCESS,
            Action::ScmpActTrap => libc::SECCOMP_RET_TRAP,
            Action::ScmpActErrno => libc::SECCOMP_RET_ERRNO,
            Action::ScmpActNotify => libc::SECCOMP_RET_USER_NOTIF,
            Action::ScmpActTrace => libc::SECCOMP_RET_TRACE,
            Action::ScmpActLog => libc::SECCOMP_RET_LOG,
            Action::ScmpActAllow => libc::SECCOMP_RET_ALLOW,
        };
        let takes_errno = matches!(action, Action::ScmpActErrno | Action::ScmpActTrace);
        match errno {
            None if takes_errno => base | libc::EPERM as u32,
            None => base,
            Some(_) if !takes_errno => {
                self.problem(Code::E_SECCOMP_ERRNO, pointer, format!("{action} takes no errno"));
                base
            }
            Some(n) if n > libc::SECCOMP_RET_DATA => {
                self.problem(Code::E_SECCOMP_ERRNO, pointer, format!("{n} is larger than 65535"));
                base
            }
            // The kernel gives 4095 for anything above it (MAX_ERRNO).
            Some(n) if action == Action::ScmpActErrno && n > 4095 => {
                self.warnings.push(format!("seccomp: {pointer}: errno {n} acts as 4095"));
                base | 4095
            }
            Some(n) => base | n,
        }
    }

    fn rules(&mut self, profile: &'a LinuxSeccomp, default: u32) -> Vec<Rule> {
        let syscalls = profile.syscalls().as_deref().unwrap_or_default();
        syscalls.iter().enumerate().map(|(i, call)| self.rule(i, call, default)).collect()
    }

    fn rule(&mut self, i: usize, call: &'a LinuxSyscall, default: u32) -> Rule {
        let action =
            self.verdict(call.action(), call.errno_ret(), &format!("/syscalls/{i}/errnoRet"));
        let rows = self.names(i, call);
        let alternatives = self.alternatives(i, call);
        // A rule that repeats the default decides nothing, so that a later rule
        // for the same call still counts. Its names do count for ENOSYS.
        let alternatives = if action == default { Vec::new() } else { alternatives };
        Rule { rows, action, alternatives }
    }

    fn names(&mut self, i: usize, call: &'a LinuxSyscall) -> Vec<&'static Row> {
        if call.names().is_empty() {
            self.problem(
                Code::E_SECCOMP_RULE,
                format!("/syscalls/{i}/names"),
                "the list of names is empty",
            );
        }
        let mut rows = Vec::with_capacity(call.names().len());
        for (j, name) in call.names().iter().enumerate() {
            let pointer = || format!("/syscalls/{i}/names/{j}");
            if name.is_empty() {
                self.problem(Code::E_SECCOMP_RULE, pointer(), "a syscall name is empty");
            }
            match tables::find(name) {
                Some(row) => rows.push(row),
                None if name.is_empty() || self.unknown.contains(&name.as_str()) => {}
                None => self.unknown.push(name),
            }
        }
        rows
    }

    fn alternatives(&mut self, i: usize, call: &LinuxSyscall) -> Vec<Vec<Condition>> {
        let args = call.args().as_deref().unwrap_or_default();
        let mut conditions = Vec::with_capacity(args.len());
        let mut seen = [false; 6];
        let mut repeated = false;
        for (j, arg) in args.iter().enumerate() {
            match seen.get_mut(arg.index()) {
                Some(seen) => {
                    repeated |= *seen;
                    *seen = true;
                    conditions.push(condition(arg));
                }
                None => self.problem(
                    Code::E_SECCOMP_RULE,
                    format!("/syscalls/{i}/args/{j}/index"),
                    format!("{} is larger than 5, the last argument", arg.index()),
                ),
            }
        }
        // runc's rule, from before conditions were ANDed: if any argument is
        // tested twice, each condition is an alternative of its own.
        if repeated { conditions.into_iter().map(|c| vec![c]).collect() } else { vec![conditions] }
    }

    fn listener(&mut self, profile: &LinuxSeccomp) {
        let path = profile.listener_path().as_ref().is_some_and(|p| !p.as_os_str().is_empty());
        let metadata = profile.listener_metadata().as_ref().is_some_and(|m| !m.is_empty());
        if metadata && !path {
            self.problem(Code::E_SECCOMP_NOTIFY, "/listenerMetadata", "set without listenerPath");
        }
        let syscalls = profile.syscalls().as_deref().unwrap_or_default();
        let notifies = profile.default_action() == Action::ScmpActNotify
            || syscalls.iter().any(|call| call.action() == Action::ScmpActNotify);
        if notifies && !path {
            // Nobody would answer, and every such call would sleep for ever.
            self.problem(
                Code::E_SECCOMP_NOTIFY,
                "/listenerPath",
                "needed because of SCMP_ACT_NOTIFY",
            );
        }
    }
}

fn condition(arg: &LinuxSeccompArg) -> Condition {
    let (test, negate) = match arg.op() {
        Operator::ScmpCmpEq | Operator::ScmpCmpMaskedEq => (Test::Equal, false),
        Operator::ScmpCmpNe => (Test::Equal, true),
        Operator::ScmpCmpGt => (Test::Greater, false),
        Operator::ScmpCmpLe => (Test::Greater, true),
        Operator::ScmpCmpGe => (Test::GreaterOrEqual, false),
        Operator::ScmpCmpLt => (Test::GreaterOrEqual, true),
    };
    let (mask, operand) = if arg.op() == Operator::ScmpCmpMaskedEq {
        // As libseccomp does, bits outside the mask are dropped from the operand
        // too; otherwise such a condition could never hold.
        (arg.value(), arg.value_two().unwrap_or(0) & arg.value())
    } else {
        (u64::MAX, arg.value())
    };
    // The caller has checked that the index is at most 5.
    Condition { arg: arg.index() as u32, test, mask, operand, negate }
}

/// Without a list of flags it is SPEC_ALLOW, as with runc and crun: before Linux 5.16 every process with a filter
/// would pay for mitigations of speculation that one without does not get. An empty list is none.
fn profile_flags(profile: &LinuxSeccomp) -> u32 {
    let Some(list) = profile.flags() else {
        return libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as u32;
    };
    list.iter().fold(0, |flags, flag| {
        let bit = match flag {
            Flag::SeccompFilterFlagTsync => libc::SECCOMP_FILTER_FLAG_TSYNC,
            Flag::SeccompFilterFlagLog => libc::SECCOMP_FILTER_FLAG_LOG,
            Flag::SeccompFilterFlagSpecAllow => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            Flag::SeccompFilterFlagWaitKillableRecv => libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
        };
        flags | bit as u32
    })
}

/// The flags to load the filter with: those of the profile, corrected for the
/// combinations that the kernel refuses with EINVAL.
pub(super) fn filter_flags(flags: u32, notify: bool, warnings: &mut Vec<String>) -> u32 {
    const TSYNC: u32 = libc::SECCOMP_FILTER_FLAG_TSYNC as u32;
    const WAIT_KILLABLE: u32 = libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV as u32;
    if notify {
        // TSYNC and NEW_LISTENER both define the return value. init has a single
        // thread, so there is nothing to synchronise.
        (flags & !TSYNC) | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32
    } else {
        if flags & WAIT_KILLABLE != 0 {
            warnings.push(
                "seccomp: SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV ignored: no rule uses SCMP_ACT_NOTIFY"
                    .to_string(),
            );
        }
        flags & !WAIT_KILLABLE
    }
}

/// The actions a profile may use, in the spelling of the OCI spec.
pub fn known_actions() -> &'static [&'static str] {
    &[
        "SCMP_ACT_ALLOW",
        "SCMP_ACT_ERRNO",
        "SCMP_ACT_KILL",
        "SCMP_ACT_KILL_PROCESS",
        "SCMP_ACT_KILL_THREAD",
        "SCMP_ACT_LOG",
        "SCMP_ACT_NOTIFY",
        "SCMP_ACT_TRACE",
        "SCMP_ACT_TRAP",
    ]
}

/// The operators a profile may use, in the spelling of the OCI spec.
pub fn known_operators() -> &'static [&'static str] {
    &[
        "SCMP_CMP_EQ",
        "SCMP_CMP_GE",
        "SCMP_CMP_GT",
        "SCMP_CMP_LE",
        "SCMP_CMP_LT",
        "SCMP_CMP_MASKED_EQ",
        "SCMP_CMP_NE",
    ]
}

/// The flags a profile may use, in the spelling of the OCI spec.
pub fn known_flags() -> &'static [&'static str] {
    &[
        "SECCOMP_FILTER_FLAG_LOG",
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        "SECCOMP_FILTER_FLAG_TSYNC",
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
    ]
}
