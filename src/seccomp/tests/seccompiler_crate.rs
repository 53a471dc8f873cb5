//! The seccompiler crate as a second oracle, for what it can express: one
//! architecture and two actions.

use super::interpreter::{Call, run};
use super::{naive, parse, program};
use libc::sock_filter;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

const PROFILE: &str = r#"{"defaultAction": "SCMP_ACT_TRAP", "syscalls": [
    {"names": ["read", "write", "openat2", "rseq_slice_yield"], "action": "SCMP_ACT_ALLOW"},
    {"names": ["personality"], "action": "SCMP_ACT_ALLOW",
     "args": [{"index": 0, "value": 4294967304, "op": "SCMP_CMP_EQ"}]},
    {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [
        {"index": 0, "value": 100, "op": "SCMP_CMP_GT"},
        {"index": 1, "value": 4294967296, "op": "SCMP_CMP_LE"}]},
    {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [
        {"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]},
    {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [
        {"index": 0, "value": 40, "op": "SCMP_CMP_NE"},
        {"index": 2, "value": 3, "op": "SCMP_CMP_GE"}]},
    {"names": ["ioctl"], "action": "SCMP_ACT_ALLOW", "args": [
        {"index": 1, "value": 21522, "op": "SCMP_CMP_LT"}]}]}"#;

fn theirs() -> Vec<sock_filter> {
    let rule = |conditions: &[(u8, SeccompCmpOp, u64)]| {
        let conditions = conditions.iter().map(|(arg, op, value)| {
            SeccompCondition::new(*arg, SeccompCmpArgLen::Qword, op.clone(), *value).unwrap()
        });
        SeccompRule::new(conditions.collect()).unwrap()
    };
    use SeccompCmpOp::*;
    let rules = [
        (0, vec![]),
        (1, vec![]),
        (437, vec![]),
        (471, vec![]),
        (135, vec![rule(&[(0, Eq, 4294967304)]), rule(&[(0, Gt, 100), (1, Le, 4294967296)])]),
        (56, vec![rule(&[(0, MaskedEq(2114060288), 0)])]),
        (41, vec![rule(&[(0, Ne, 40), (2, Ge, 3)])]),
        (16, vec![rule(&[(1, Lt, 21522)])]),
    ];
    let filter = SeccompFilter::new(
        rules.into_iter().collect(),
        SeccompAction::Trap,
        SeccompAction::Allow,
        TargetArch::x86_64,
    );
    let program: BpfProgram = filter.unwrap().try_into().unwrap();
    program.iter().map(|i| sock_filter { code: i.code, jt: i.jt, jf: i.jf, k: i.k }).collect()
}

#[test]
fn one_architecture_and_two_actions_match_seccompiler() {
    let profile = parse(PROFILE);
    let (ours, theirs) = (program(&profile).filter, theirs());
    let mut vectors = super::differential::vectors(&profile);
    vectors.truncate(20_000);
    // Up to the newest call of the profile: beyond it we say ENOSYS, it says TRAP.
    for number in 0..=471 {
        let few = if [16, 41, 56, 135].contains(&number) { &vectors[..] } else { &vectors[..2] };
        for args in few {
            let call = Call { number, arch: naive::X86_64, args: *args };
            assert_eq!(run(&ours, &call), run(&theirs, &call), "{call:x?}");
        }
    }
}
