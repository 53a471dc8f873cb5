use super::super::bpf::{
    AND, EXIT, Instruction, JEQ, JEQ32, JNE, JNE32, LOAD_U32, LSH, MOV, MOV_REG, OR_REG, RSH,
    instructions, program,
};
use super::super::devices::{Access, DeviceKind, DeviceRule};
use super::devices::list;

/// What the rules mean: for each access asked for, the last rule about it decides.
pub(super) fn allowed(rules: &[DeviceRule], kind: u32, major: u32, minor: u32, access: u8) -> bool {
    let matches = |rule: &DeviceRule, bit: u8| {
        let kind = match rule.kind {
            DeviceKind::All => true,
            DeviceKind::Block => kind == 1,
            DeviceKind::Char => kind == 2,
        };
        kind && rule.major.is_none_or(|number| number == major)
            && rule.minor.is_none_or(|number| number == minor)
            && rule.access.0 & bit != 0
    };
    [Access::MKNOD.0, Access::READ.0, Access::WRITE.0]
        .into_iter()
        .filter(|bit| access & bit != 0)
        .all(|bit| rules.iter().rfind(|rule| matches(rule, bit)).is_some_and(|rule| rule.allow))
}

/// Type, major and minor of devices in, beside and out of the rules used in tests.
pub(super) fn samples() -> Vec<(u32, u32, u32)> {
    let numbers =
        [(1, 3), (1, 5), (1, 8), (5, 2), (8, 0), (8, 1), (136, 0), (136, 9), (4095, 1_048_575)];
    [1, 2].into_iter().flat_map(|kind| numbers.map(|(major, minor)| (kind, major, minor))).collect()
}

/// Runs a program as the kernel would.
fn run(code: &[Instruction], kind: u32, major: u32, minor: u32, access: u8) -> u64 {
    let context = [u32::from(access) << 16 | kind, major, minor];
    let mut registers = [0u64; 11];
    let mut at = 0usize;
    loop {
        let one = code[at];
        let value = i64::from(one.value).cast_unsigned();
        let (dst, src) = (usize::from(one.dst), usize::from(one.src));
        at += 1;
        let jump = usize::try_from(one.offset).expect("forwards");
        match one.code {
            LOAD_U32 => registers[dst] = context[jump / 4].into(),
            MOV => registers[dst] = value,
            MOV_REG => registers[dst] = registers[src],
            AND => registers[dst] &= value,
            RSH => registers[dst] >>= value,
            LSH => registers[dst] <<= value,
            OR_REG => registers[dst] |= registers[src],
            // Of 32 bits, the others are not looked at.
            JEQ32 if registers[dst] as u32 == value as u32 => at += jump,
            JNE32 if registers[dst] as u32 != value as u32 => at += jump,
            JEQ if registers[dst] == value => at += jump,
            JNE if registers[dst] != value => at += jump,
            JEQ | JNE | JEQ32 | JNE32 => {}
            EXIT => return registers[0],
            other => panic!("opcode {other:#x}"),
        }
    }
}

#[test]
fn program_agrees_with_the_meaning() {
    let lists: [&[&str]; 9] = [
        &[],
        &["- a *:* rwm"],
        &["+ a *:* rwm"],
        &["- a *:* rwm", "+ c 1:3 rwm", "+ c 5:2 rw", "+ c 136:* rwm", "+ c *:* m", "+ b *:* m"],
        &["- a *:* rwm", "+ c 1:* rwm", "- c 1:3 w", "+ c 1:3 m"],
        &["- a *:* rwm", "+ a *:* r", "+ c 1:* w", "- b *:* r", "+ b 8:* rw", "- b 8:1 w"],
        &["+ a *:* rwm", "- c *:8 rwm", "- c 4095:1048575 r"],
        &["- a *:* rwm", "+ c 1:3 r", "+ c 1:3 w"],
        &["+ c 1:3 rwm", "- a *:* rwm", "+ c 1:5 rwm"],
    ];
    for texts in lists {
        let rules = list(texts);
        let code = instructions(&rules);
        for (kind, major, minor) in samples() {
            for access in 1..8 {
                let got = run(&code, kind, major, minor, access);
                let want = u64::from(allowed(&rules, kind, major, minor, access));
                assert_eq!(got, want, "{texts:?}: {kind} {major}:{minor} {access}");
            }
        }
    }
}

/// Many random lists, by a fixed generator, so that a failure comes again.
#[test]
fn program_agrees_with_the_meaning_of_random_lists() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    let numbers = [None, Some(1), Some(3), Some(8)];
    for _ in 0..500 {
        let rules: Vec<DeviceRule> = (0..random(12))
            .map(|_| DeviceRule {
                allow: random(2) == 0,
                kind: [DeviceKind::All, DeviceKind::Block, DeviceKind::Char][random(3) as usize],
                major: numbers[random(4) as usize],
                minor: numbers[random(4) as usize],
                access: Access(1 + random(7) as u8),
            })
            .collect();
        let code = instructions(&rules);
        for (kind, major, minor) in samples() {
            for access in 1..8 {
                let got = run(&code, kind, major, minor, access);
                assert_eq!(
                    got,
                    u64::from(allowed(&rules, kind, major, minor, access)),
                    "{rules:?}"
                );
            }
        }
    }
}

/// What the kernel's verifier has to follow at every create: a branch for each device, not three.
#[test]
fn devices_of_a_list_share_their_end() {
    let rules =
        list(&["- a *:* rwm", "+ c 1:3 rwm", "+ c 1:5 rwm", "+ c 5:2 rwm", "+ c 4095:9 rwm"]);
    let code = instructions(&rules);
    assert_eq!(code.iter().filter(|one| [JEQ32, JNE32].contains(&one.code)).count(), 4);
    assert_eq!(code.iter().filter(|one| [JEQ, JNE].contains(&one.code)).count(), 1, "the type");
    assert_eq!(code.iter().filter(|one| one.code == EXIT).count(), 2);
}

/// The verifier refuses code that nothing reaches, so nothing follows a rule for everything.
#[test]
fn code_ends_with_the_rule_that_decides_all() {
    assert_eq!(instructions(&list(&["+ c 1:3 rwm", "- a *:* rwm"])).len(), 8);
    assert_eq!(instructions(&list(&["+ a *:* rwm"])).len(), 8);
}

#[test]
fn instructions_are_encoded_as_struct_bpf_insn() {
    let code = program(&list(&["- a *:* rwm"]));
    // r2 = *(u32 *)(r1 + 0), and at the end exit.
    assert_eq!(
        code[0].to_ne_bytes()[..2],
        if cfg!(target_endian = "little") { [0x61, 0x12] } else { [0x61, 0x21] }
    );
    assert_eq!(code.last().map(|one| one.to_ne_bytes()), Some([0x95, 0, 0, 0, 0, 0, 0, 0]));
}
