//! The device filter of cgroup v2: a BPF program made from the rules.
//!
//! The program is called with a `struct bpf_cgroup_dev_ctx { u32 access_type; u32 major; u32 minor }`
//! for each open(2) and mknod(2) of a device, and returns 1 to allow. An access may have several
//! bits (`O_RDWR`). For each bit the last rule that matches decides, so the rules are walked from the
//! last to the first: an allowing one takes its bits off what is still asked for and ends the walk
//! when nothing is left; a denying one ends it if any of its bits is.
//!
//! Rules about all of one device, which most are, compare both numbers at once, and share their end:
//! the kernel's verifier follows every branch, at every create.

use super::devices::{Access, DeviceKind, DeviceRule};

/// Registers: 0 result, 1 context and scratch, 2 type, 3 accesses still asked for, 4 major, 5 minor,
/// 6 both numbers.
const RESULT: u8 = 0;
const SCRATCH: u8 = 1;
const TYPE: u8 = 2;
const ASKED: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const DEVICE: u8 = 6;

// Opcodes, as in linux/bpf_common.h and linux/bpf.h.
pub(super) const LOAD_U32: u8 = 0x61; // BPF_LDX | BPF_MEM | BPF_W
pub(super) const MOV: u8 = 0xb7; // BPF_ALU64 | BPF_MOV | BPF_K
pub(super) const MOV_REG: u8 = 0xbf; // BPF_ALU64 | BPF_MOV | BPF_X
pub(super) const AND: u8 = 0x57; // BPF_ALU64 | BPF_AND | BPF_K
pub(super) const RSH: u8 = 0x77; // BPF_ALU64 | BPF_RSH | BPF_K
pub(super) const LSH: u8 = 0x67; // BPF_ALU64 | BPF_LSH | BPF_K
pub(super) const OR_REG: u8 = 0x4f; // BPF_ALU64 | BPF_OR | BPF_X
pub(super) const JEQ: u8 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
pub(super) const JNE: u8 = 0x55; // BPF_JMP | BPF_JNE | BPF_K
pub(super) const JEQ32: u8 = 0x16; // BPF_JMP32 | BPF_JEQ | BPF_K, Linux 5.1
pub(super) const JNE32: u8 = 0x56; // BPF_JMP32 | BPF_JNE | BPF_K
pub(super) const EXIT: u8 = 0x95; // BPF_JMP | BPF_EXIT

/// `BPF_DEVCG_DEV_BLOCK`
const BLOCK: i32 = 1;
/// `BPF_DEVCG_DEV_CHAR`
const CHAR: i32 = 2;

/// One `struct bpf_insn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Instruction {
    pub code: u8,
    pub dst: u8,
    pub src: u8,
    pub offset: i16,
    pub value: i32,
}

impl Instruction {
    /// As it lies in memory on this machine: code, two registers (bit fields), offset, value.
    fn encode(self) -> u64 {
        let offset = u64::from(self.offset.cast_unsigned());
        let value = u64::from(self.value.cast_unsigned());
        let code = u64::from(self.code);
        if cfg!(target_endian = "little") {
            let registers = u64::from(self.src << 4 | self.dst);
            code | registers << 8 | offset << 16 | value << 32
        } else {
            let registers = u64::from(self.dst << 4 | self.src);
            code << 56 | registers << 48 | offset << 32 | value
        }
    }
}

fn op(code: u8, dst: u8, value: i32) -> Instruction {
    Instruction { code, dst, src: 0, offset: 0, value }
}

/// The program for these rules, ready to be loaded.
pub(super) fn program(rules: &[DeviceRule]) -> Vec<u64> {
    instructions(rules).into_iter().map(Instruction::encode).collect()
}

/// The program for these rules.
pub(super) fn instructions(rules: &[DeviceRule]) -> Vec<Instruction> {
    let load = |dst, offset| Instruction { code: LOAD_U32, dst, src: SCRATCH, offset, value: 0 };
    let mut code = vec![
        load(TYPE, 0),
        Instruction { code: MOV_REG, dst: ASKED, src: TYPE, offset: 0, value: 0 },
        op(AND, TYPE, 0xffff),
        op(RSH, ASKED, 16),
        load(MAJOR, 4),
        load(MINOR, 8),
    ];
    let rules = deciding(rules);
    if rules.iter().any(|rule| device(rule).is_some()) {
        code.extend([
            Instruction { code: MOV_REG, dst: DEVICE, src: MAJOR, offset: 0, value: 0 },
            op(LSH, DEVICE, MINOR_BITS),
            Instruction { code: OR_REG, dst: DEVICE, src: MINOR, offset: 0, value: 0 },
        ]);
    }
    let alike = |a: &&DeviceRule, b: &&DeviceRule| {
        device(a).is_some() && device(b).is_some() && a.kind == b.kind && a.allow == b.allow
    };
    // No jump of a program goes further than 2^15 instructions.
    for alike in rules.chunk_by(alike).flat_map(|alike| alike.chunks(256)) {
        let Some(rule) = alike.first() else { continue };
        let mut part = conditions(rule, alike);
        let last = part.is_empty() && rule.access == Access::ALL;
        part.extend(body(rule));
        let total = part.len();
        for (index, mut instruction) in part.into_iter().enumerate() {
            // All that is marked jumps to behind the rule, or to its end, two instructions.
            let target = match instruction.offset {
                SKIP => total,
                DECIDE => total - 2,
                _ => index + 1,
            };
            instruction.offset = i16::try_from(target - index - 1).unwrap_or(0);
            code.push(instruction);
        }
        if last {
            // The verifier refuses what no path reaches.
            return code;
        }
    }
    code.extend([op(MOV, RESULT, 0), op(EXIT, 0, 0)]);
    code
}

/// The rules that decide anything, the last first. Engines list the default devices, which follow once
/// more; every instruction costs at load.
fn deciding(rules: &[DeviceRule]) -> Vec<&DeviceRule> {
    let later = |index: usize| rules.iter().skip(index + 1);
    let rules = rules.iter().enumerate().rev();
    rules
        .filter(|(index, rule)| !later(*index).any(|later| later.decides_all_of(rule)))
        .map(|(_, rule)| rule)
        .collect()
}

/// Bits of a minor number in a `dev_t`.
const MINOR_BITS: i32 = 20;

/// The number of the one device that a rule is about in every respect.
fn device(rule: &DeviceRule) -> Option<i32> {
    let (Some(major), Some(minor)) = (rule.major, rule.minor) else { return None };
    (rule.access == Access::ALL).then_some((major << MINOR_BITS | minor).cast_signed())
}

/// Marks a jump to behind the rule, until its length is known.
const SKIP: i16 = i16::MAX;
/// The same for a jump to where the rule decides.
const DECIDE: i16 = i16::MAX - 1;

fn skip_if(code: u8, register: u8, value: i32) -> Instruction {
    Instruction { code, dst: register, src: 0, offset: SKIP, value }
}

/// What sends the program past `rule`, or past the rules `alike` about one device each.
fn conditions(rule: &DeviceRule, alike: &[&DeviceRule]) -> Vec<Instruction> {
    let mut code = Vec::with_capacity(8);
    match rule.kind {
        DeviceKind::All => {}
        DeviceKind::Block => code.push(skip_if(JNE, TYPE, BLOCK)),
        DeviceKind::Char => code.push(skip_if(JNE, TYPE, CHAR)),
    }
    let devices: Vec<i32> = alike.iter().filter_map(|rule| device(rule)).collect();
    if let Some((last, others)) = devices.split_last() {
        code.extend(
            others
                .iter()
                .map(|number| Instruction { offset: DECIDE, ..skip_if(JEQ32, DEVICE, *number) }),
        );
        code.push(skip_if(JNE32, DEVICE, *last));
        return code;
    }
    for (register, number) in [(MAJOR, rule.major), (MINOR, rule.minor)] {
        if let Some(number) = number {
            // At most 20 bits: the plan has checked that.
            code.push(skip_if(JNE, register, number.cast_signed()));
        }
    }
    code
}

fn body(rule: &DeviceRule) -> Vec<Instruction> {
    let access = i32::from(rule.access.0);
    let mut code = match (rule.allow, rule.access) {
        (_, Access::ALL) => Vec::new(),
        (true, _) => {
            vec![op(AND, ASKED, i32::from(Access::ALL.0) & !access), skip_if(JNE, ASKED, 0)]
        }
        (false, _) => vec![
            Instruction { code: MOV_REG, dst: SCRATCH, src: ASKED, offset: 0, value: 0 },
            op(AND, SCRATCH, access),
            skip_if(JEQ, SCRATCH, 0),
        ],
    };
    code.extend([op(MOV, RESULT, i32::from(rule.allow)), op(EXIT, 0, 0)]);
    code
}
