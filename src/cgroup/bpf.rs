//! The device filter of cgroup v2: a BPF program made from the rules.
//!
//! The program is called with a `struct bpf_cgroup_dev_ctx { u32 access_type; u32 major; u32 minor }`
//! for each open(2) and mknod(2) of a device, and returns 1 to allow. An access may have several
//! bits (`O_RDWR`). For each bit the last rule that matches decides, so the rules are walked from the
//! last to the first: an allowing one takes its bits off what is still asked for and ends the walk
//! when nothing is left; a denying one ends it if any of its bits is.

use super::devices::{Access, DeviceKind, DeviceRule};

/// Registers: 0 result, 1 context and scratch, 2 type, 3 accesses still asked for, 4 major, 5 minor.
const RESULT: u8 = 0;
const SCRATCH: u8 = 1;
const TYPE: u8 = 2;
const ASKED: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

// Opcodes, as in linux/bpf_common.h and linux/bpf.h.
pub(super) const LOAD_U32: u8 = 0x61; // BPF_LDX | BPF_MEM | BPF_W
pub(super) const MOV: u8 = 0xb7; // BPF_ALU64 | BPF_MOV | BPF_K
pub(super) const MOV_REG: u8 = 0xbf; // BPF_ALU64 | BPF_MOV | BPF_X
pub(super) const AND: u8 = 0x57; // BPF_ALU64 | BPF_AND | BPF_K
pub(super) const RSH: u8 = 0x77; // BPF_ALU64 | BPF_RSH | BPF_K
pub(super) const JEQ: u8 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
pub(super) const JNE: u8 = 0x55; // BPF_JMP | BPF_JNE | BPF_K
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
    for (index, rule) in rules.iter().enumerate().rev() {
        // Engines list the default devices, which follow once more; every instruction costs at load.
        if rules.iter().skip(index + 1).any(|later| later.decides_all_of(rule)) {
            continue;
        }
        let conditions = conditions(rule);
        let body = body(rule);
        let last = conditions.is_empty() && rule.access == Access::ALL;
        let total = conditions.len() + body.len();
        for (index, mut instruction) in conditions.into_iter().chain(body).enumerate() {
            // All that is marked jumps to behind the rule.
            if instruction.offset == SKIP {
                instruction.offset = i16::try_from(total - index - 1).unwrap_or(0);
            }
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

/// Marks a jump to behind the rule, until its length is known.
const SKIP: i16 = i16::MAX;

fn skip_if(code: u8, register: u8, value: i32) -> Instruction {
    Instruction { code, dst: register, src: 0, offset: SKIP, value }
}

fn conditions(rule: &DeviceRule) -> Vec<Instruction> {
    let mut code = Vec::with_capacity(8);
    match rule.kind {
        DeviceKind::All => {}
        DeviceKind::Block => code.push(skip_if(JNE, TYPE, BLOCK)),
        DeviceKind::Char => code.push(skip_if(JNE, TYPE, CHAR)),
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
