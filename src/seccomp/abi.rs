//! The calling conventions a filter can tell apart.
//!
//! Three of them (x86_64, i386, x32) can be used by one process on one machine,
//! which is why a filter that checks only the number and not the architecture is
//! no filter at all.

use super::tables;
use oci_spec::runtime::Arch;

/// `AUDIT_ARCH_*` values, as the kernel puts them into `seccomp_data.arch`.
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const AUDIT_ARCH_I386: u32 = 0x4000_0003;
const AUDIT_ARCH_AARCH64: u32 = 0xc000_00b7;
const AUDIT_ARCH_ARM: u32 = 0x4000_0028;

/// The bit that marks x32 calls; they share x86_64's `AUDIT_ARCH` value.
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// One ABI.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Abi {
    /// Our column in the syscall table.
    pub column: usize,
    /// The value of `seccomp_data.arch`.
    pub audit: u32,
    /// Whether arguments are compared with all 64 bits.
    ///
    /// x32 registers have 64 bits, but its pointers and longs do not; libseccomp
    /// looks at the low word only, and profiles are written against that.
    pub wide: bool,
    /// Added to the numbers of the table.
    pub base: u32,
    /// Largest number of the ABI's range; what lies above is nobody's.
    pub last: u32,
    /// Whether `socketcall` and `ipc` carry calls that also have own numbers.
    pub multiplexed: bool,
}

pub(super) static X86_64: Abi = Abi {
    column: tables::X86_64,
    audit: AUDIT_ARCH_X86_64,
    wide: true,
    base: 0,
    last: X32_BIT - 1,
    multiplexed: false,
};

pub(super) static X32: Abi = Abi {
    column: tables::X32,
    audit: AUDIT_ARCH_X86_64,
    wide: false,
    base: X32_BIT,
    last: u32::MAX,
    multiplexed: false,
};

pub(super) static X86: Abi = Abi {
    column: tables::X86,
    audit: AUDIT_ARCH_I386,
    wide: false,
    base: 0,
    last: u32::MAX,
    multiplexed: true,
};

pub(super) static AARCH64: Abi = Abi {
    column: tables::AARCH64,
    audit: AUDIT_ARCH_AARCH64,
    wide: true,
    base: 0,
    last: u32::MAX,
    multiplexed: false,
};

pub(super) static ARM: Abi = Abi {
    column: tables::ARM,
    audit: AUDIT_ARCH_ARM,
    wide: false,
    base: 0,
    last: u32::MAX,
    multiplexed: false,
};

/// The ABI this binary itself uses.
pub(super) fn native() -> Option<&'static Abi> {
    if cfg!(all(target_arch = "x86_64", target_pointer_width = "64")) {
        Some(&X86_64)
    } else if cfg!(target_arch = "x86_64") {
        Some(&X32)
    } else if cfg!(target_arch = "x86") {
        Some(&X86)
    } else if cfg!(all(target_arch = "aarch64", target_endian = "little")) {
        Some(&AARCH64)
    } else if cfg!(all(target_arch = "arm", target_endian = "little")) {
        Some(&ARM)
    } else {
        None
    }
}

/// The ABI of a profile's architecture, or `None` where we have no table. No
/// table means no section, and a call from there then kills the thread.
pub(super) fn from_oci(arch: Arch) -> Option<&'static Abi> {
    match arch {
        Arch::ScmpArchNative => native(),
        Arch::ScmpArchX86_64 => Some(&X86_64),
        Arch::ScmpArchX86 => Some(&X86),
        Arch::ScmpArchX32 => Some(&X32),
        Arch::ScmpArchAarch64 => Some(&AARCH64),
        Arch::ScmpArchArm => Some(&ARM),
        _ => None,
    }
}

/// The architectures a profile may list, in the spelling of the OCI spec.
pub fn known_archs() -> &'static [&'static str] {
    &[
        "SCMP_ARCH_AARCH64",
        "SCMP_ARCH_ARM",
        "SCMP_ARCH_LOONGARCH64",
        "SCMP_ARCH_M68K",
        "SCMP_ARCH_MIPS",
        "SCMP_ARCH_MIPS64",
        "SCMP_ARCH_MIPS64N32",
        "SCMP_ARCH_MIPSEL",
        "SCMP_ARCH_MIPSEL64",
        "SCMP_ARCH_MIPSEL64N32",
        "SCMP_ARCH_PARISC",
        "SCMP_ARCH_PARISC64",
        "SCMP_ARCH_PPC",
        "SCMP_ARCH_PPC64",
        "SCMP_ARCH_PPC64LE",
        "SCMP_ARCH_RISCV64",
        "SCMP_ARCH_S390",
        "SCMP_ARCH_S390X",
        "SCMP_ARCH_SH",
        "SCMP_ARCH_SHEB",
        "SCMP_ARCH_X32",
        "SCMP_ARCH_X86",
        "SCMP_ARCH_X86_64",
    ]
}

/// i386 calls that also go through a multiplexer: the multiplexer's number and
/// the value of its first argument, from `linux/net.h` and `linux/ipc.h`.
pub(super) fn multiplexer(name: &[u8]) -> Option<(u32, u32)> {
    const SOCKETCALL: u32 = 102;
    const IPC: u32 = 117;
    Some(match name {
        b"socket" => (SOCKETCALL, 1),
        b"bind" => (SOCKETCALL, 2),
        b"connect" => (SOCKETCALL, 3),
        b"listen" => (SOCKETCALL, 4),
        b"accept" => (SOCKETCALL, 5),
        b"getsockname" => (SOCKETCALL, 6),
        b"getpeername" => (SOCKETCALL, 7),
        b"socketpair" => (SOCKETCALL, 8),
        b"send" => (SOCKETCALL, 9),
        b"recv" => (SOCKETCALL, 10),
        b"sendto" => (SOCKETCALL, 11),
        b"recvfrom" => (SOCKETCALL, 12),
        b"shutdown" => (SOCKETCALL, 13),
        b"setsockopt" => (SOCKETCALL, 14),
        b"getsockopt" => (SOCKETCALL, 15),
        b"sendmsg" => (SOCKETCALL, 16),
        b"recvmsg" => (SOCKETCALL, 17),
        b"accept4" => (SOCKETCALL, 18),
        b"recvmmsg" => (SOCKETCALL, 19),
        b"sendmmsg" => (SOCKETCALL, 20),
        b"semop" => (IPC, 1),
        b"semget" => (IPC, 2),
        b"semctl" => (IPC, 3),
        b"semtimedop" => (IPC, 4),
        b"msgsnd" => (IPC, 11),
        b"msgrcv" => (IPC, 12),
        b"msgget" => (IPC, 13),
        b"msgctl" => (IPC, 14),
        b"shmat" => (IPC, 21),
        b"shmdt" => (IPC, 22),
        b"shmget" => (IPC, 23),
        b"shmctl" => (IPC, 24),
        _ => return None,
    })
}
