//! The semantics written down a second time, as a plain evaluator without any
//! code generation: slow, obvious, and sharing only the syscall table.

use super::interpreter::Call;
use crate::seccomp::tables;
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator as Op,
};

pub const X86_64: u32 = 0xc000_003e;
pub const I386: u32 = 0x4000_0003;
pub const AARCH64: u32 = 0xc000_00b7;
pub const ARM: u32 = 0x4000_0028;
pub const X32_BIT: u32 = 0x4000_0000;
pub const ENOSYS: u32 = 0x0005_0026;
pub const KILL_THREAD: u32 = 0;

/// The architecture a call is made with, if the profile (for an x86_64 host)
/// covers it.
pub fn arch(profile: &LinuxSeccomp, call: &Call) -> Option<Arch> {
    let arch = match call.arch {
        X86_64 if call.number == u32::MAX && !listed(profile, Arch::ScmpArchX32) => {
            Arch::ScmpArchX86_64
        }
        X86_64 if call.number >= X32_BIT => Arch::ScmpArchX32,
        X86_64 => Arch::ScmpArchX86_64,
        I386 => Arch::ScmpArchX86,
        AARCH64 => Arch::ScmpArchAarch64,
        ARM => Arch::ScmpArchArm,
        _ => return None,
    };
    (arch == Arch::ScmpArchX86_64 || listed(profile, arch)).then_some(arch)
}

fn listed(profile: &LinuxSeccomp, arch: Arch) -> bool {
    profile.architectures().iter().flatten().any(|a| *a == arch)
}

/// The number of a name, including x32's bit.
pub fn number(arch: Arch, name: &str) -> Option<u32> {
    let column = match arch {
        Arch::ScmpArchX86_64 => tables::X86_64,
        Arch::ScmpArchX86 => tables::X86,
        Arch::ScmpArchX32 => tables::X32,
        Arch::ScmpArchAarch64 => tables::AARCH64,
        _ => tables::ARM,
    };
    let bit = if arch == Arch::ScmpArchX32 { X32_BIT } else { 0 };
    tables::find(name)?.number(column).map(|n| n | bit)
}

/// The number that `socketcall` (102) or `ipc` (117) takes for a name.
fn multiplexed(name: &str) -> Option<(u32, u64)> {
    let socketcall = [
        "socket",
        "bind",
        "connect",
        "listen",
        "accept",
        "getsockname",
        "getpeername",
        "socketpair",
        "send",
        "recv",
        "sendto",
        "recvfrom",
        "shutdown",
        "setsockopt",
        "getsockopt",
        "sendmsg",
        "recvmsg",
        "accept4",
        "recvmmsg",
        "sendmmsg",
    ];
    let ipc = [
        ("semop", 1),
        ("semget", 2),
        ("semctl", 3),
        ("semtimedop", 4),
        ("msgsnd", 11),
        ("msgrcv", 12),
        ("msgget", 13),
        ("msgctl", 14),
        ("shmat", 21),
        ("shmdt", 22),
        ("shmget", 23),
        ("shmctl", 24),
    ];
    if let Some(i) = socketcall.iter().position(|n| *n == name) {
        return Some((102, i as u64 + 1));
    }
    ipc.iter().find(|(n, _)| *n == name).map(|(_, i)| (117, *i))
}

/// Whether a call is newer than everything the profile names for its ABI.
pub fn is_newer(profile: &LinuxSeccomp, call: &Call) -> bool {
    use LinuxSeccompAction::*;
    if matches!(profile.default_action(), ScmpActAllow | ScmpActLog | ScmpActTrace) {
        return false;
    }
    let Some(arch) = arch(profile, call) else { return false };
    let names = profile.syscalls().iter().flatten().flat_map(|c| c.names());
    let direct = names.clone().filter_map(|name| number(arch, name)).max();
    // A profile that names semop names ipc on i386, where there is no other way.
    let through = names.filter(|_| arch == Arch::ScmpArchX86).filter_map(|n| multiplexed(n));
    let newest = direct.max(through.map(|(number, _)| number).max());
    // -1 belongs to no ABI where x32 is not listed.
    let minus_one = call.arch == X86_64 && call.number == u32::MAX && arch == Arch::ScmpArchX86_64;
    newest.is_some_and(|newest| call.number > newest) && !minus_one
}

/// The verdict of a profile.
pub fn evaluate(profile: &LinuxSeccomp, call: &Call) -> u32 {
    let Some(arch) = arch(profile, call) else { return KILL_THREAD };
    let default = profile.default_action().as_u32(profile.default_errno_ret());
    let mut first_match = None;
    for rule in profile.syscalls().iter().flatten() {
        let action = rule.action().as_u32(rule.errno_ret());
        if action == default {
            continue;
        }
        for name in rule.names() {
            let args = rule.args().as_deref().unwrap_or_default();
            let direct = number(arch, name) == Some(call.number);
            let through = if arch == Arch::ScmpArchX86 { multiplexed(name) } else { None };
            let through = through.filter(|(number, _)| *number == call.number);
            for alternative in alternatives(args) {
                if direct && alternative.iter().all(|a| always(a, arch)) {
                    return action;
                }
                let matches = direct && alternative.iter().all(|a| holds(a, arch, call));
                let matches = matches
                    || through.is_some_and(|(_, sub)| {
                        call.args[0] as u32 == sub as u32
                            && alternative.iter().all(|a| a.index() == 0 || holds(a, arch, call))
                    });
                if matches && first_match.is_none() {
                    first_match = Some(action);
                }
            }
        }
    }
    match first_match {
        Some(action) => action,
        None if is_newer(profile, call) => ENOSYS,
        None => default,
    }
}

fn alternatives(args: &[LinuxSeccompArg]) -> Vec<Vec<LinuxSeccompArg>> {
    let repeated = (0..6).any(|i| args.iter().filter(|a| a.index() == i).count() > 1);
    if repeated { args.iter().map(|a| vec![*a]).collect() } else { vec![args.to_vec()] }
}

fn word(arch: Arch) -> u64 {
    match arch {
        Arch::ScmpArchX86_64 | Arch::ScmpArchAarch64 => u64::MAX,
        _ => u64::from(u32::MAX),
    }
}

fn always(arg: &LinuxSeccompArg, arch: Arch) -> bool {
    arg.op() == Op::ScmpCmpMaskedEq && arg.value() & word(arch) == 0
}

fn holds(arg: &LinuxSeccompArg, arch: Arch, call: &Call) -> bool {
    let given = call.args[arg.index()] & word(arch);
    let value = arg.value() & word(arch);
    match arg.op() {
        Op::ScmpCmpNe => given != value,
        Op::ScmpCmpLt => given < value,
        Op::ScmpCmpLe => given <= value,
        Op::ScmpCmpEq => given == value,
        Op::ScmpCmpGe => given >= value,
        Op::ScmpCmpGt => given > value,
        Op::ScmpCmpMaskedEq => given & value == arg.value_two().unwrap_or(0) & value,
    }
}
