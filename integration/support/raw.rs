//! A program of one system call, written as machine code: what no applet of busybox can do, and
//! without a compiler on the machine.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Puts an executable at `path` that makes the system call `number` and exits with its errno, or
/// with 0 when it has succeeded.
pub fn syscall_program(path: &Path, number: i64, args: [u64; 3]) {
    fs::write(path, elf(&code(number as u64, args))).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;

/// rax, rdi, rsi, rdx are set, r10, r8, r9 are 0; then exit_group(ret < 0 ? -ret : 0).
#[cfg(target_arch = "x86_64")]
fn code(number: u64, args: [u64; 3]) -> Vec<u8> {
    let mut code = Vec::new();
    let registers = [(0xb8, number), (0xbf, args[0]), (0xbe, args[1]), (0xba, args[2])];
    for (move_immediate, value) in registers {
        code.extend([0x48, move_immediate]);
        code.extend(value.to_le_bytes());
    }
    code.extend([0x4d, 0x31, 0xd2, 0x4d, 0x31, 0xc0, 0x4d, 0x31, 0xc9, 0x0f, 0x05]);
    code.extend([0xf7, 0xd8, 0x79, 0x02, 0x31, 0xc0, 0x89, 0xc7]);
    code.extend([0xb8, 231, 0, 0, 0, 0x0f, 0x05]);
    code
}

#[cfg(target_arch = "aarch64")]
fn code(number: u64, args: [u64; 3]) -> Vec<u8> {
    let mut words: Vec<u32> = Vec::new();
    let mut set = |register: u32, value: u64| {
        for part in 0..4u32 {
            let immediate = (value >> (16 * part)) as u32 & 0xffff;
            let opcode = if part == 0 { 0xd280_0000 } else { 0xf280_0000 };
            words.push(opcode | part << 21 | immediate << 5 | register);
        }
    };
    set(8, number);
    for (register, value) in [args[0], args[1], args[2], 0, 0, 0].into_iter().enumerate() {
        set(register as u32, value);
    }
    words.extend([0xd400_0001, 0x6b00_03e0, 0x5400_0045, 0x5280_0000]);
    words.extend([0xd280_0000 | 94 << 5 | 8, 0xd400_0001]);
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// One loadable segment with the header and the code.
fn elf(code: &[u8]) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 120;
    let mut out = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    out.extend([2, 0]);
    out.extend(MACHINE.to_le_bytes());
    out.extend(1u32.to_le_bytes());
    for value in [BASE + HEADERS, 64, 0] {
        out.extend(u64::to_le_bytes(value));
    }
    out.extend(0u32.to_le_bytes());
    for value in [64u16, 56, 1, 0, 0, 0] {
        out.extend(value.to_le_bytes());
    }
    out.extend(1u32.to_le_bytes());
    out.extend(5u32.to_le_bytes());
    let size = HEADERS + code.len() as u64;
    for value in [0, BASE, BASE, size, size, 0x1000] {
        out.extend(u64::to_le_bytes(value));
    }
    out.extend(code);
    out
}
