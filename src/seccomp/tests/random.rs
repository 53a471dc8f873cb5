//! Random small profiles against the naive evaluator, and against libseccomp.

use super::interpreter::{Call, run};
use super::libseccomp::Library;
use super::{naive, program};
use crate::seccomp::tables;
use oci_spec::runtime::LinuxSeccomp;
use serde_json::{Value, json};

/// xorshift64*: the same profiles on every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

const NAMES: [&str; 16] = [
    "read",
    "open",
    "openat",
    "clone",
    "personality",
    "socket",
    "socketcall",
    "accept",
    "recv",
    "semop",
    "shmget",
    "ipc",
    "setuid32",
    "cacheflush",
    "clone3",
    "no_such_call",
];
const ACTIONS: [&str; 8] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_TRAP",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_LOG",
    "SCMP_ACT_KILL_THREAD",
];
const OPERATORS: [&str; 7] = [
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_MASKED_EQ",
];
const ARCHS: [&str; 5] =
    ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"];
const VALUES: [u64; 12] = [
    0,
    1,
    2,
    3,
    0x7e02_0000,
    0xffff_ffff,
    1 << 32,
    (1 << 32) + 1,
    (2 << 32) + 1,
    1 << 63,
    u64::MAX - 1,
    u64::MAX,
];

fn action(random: &mut Random, from: &[&str]) -> Value {
    let action = random.pick(from);
    let mut value = json!({ "action": action });
    if matches!(action, "SCMP_ACT_ERRNO" | "SCMP_ACT_TRACE") && random.below(2) == 0 {
        value["errnoRet"] = json!(random.pick(&[0, 1, 38, 4095]));
    }
    value
}

fn rule(random: &mut Random, actions: &[&str], max_args: usize) -> Value {
    let mut rule = action(random, actions);
    rule["names"] = (0..=random.below(3)).map(|_| random.pick(&NAMES)).collect();
    let args = (0..random.below(max_args + 1)).map(|_| {
        json!({
            "index": random.below(3), "op": random.pick(&OPERATORS),
            "value": random.pick(&VALUES), "valueTwo": random.pick(&VALUES),
        })
    });
    rule["args"] = args.collect();
    rule
}

fn profile(random: &mut Random, actions: &[&str], max_args: usize, rules: usize) -> LinuxSeccomp {
    let default = action(random, &ACTIONS);
    let mut profile = json!({ "defaultAction": default["action"] });
    if let Some(errno) = default.get("errnoRet") {
        profile["defaultErrnoRet"] = errno.clone();
    }
    profile["architectures"] = (0..random.below(5)).map(|_| random.pick(&ARCHS)).collect();
    profile["syscalls"] =
        (0..1 + random.below(rules)).map(|_| rule(random, actions, max_args)).collect();
    serde_json::from_value(profile).unwrap()
}

/// Calls to try: mostly such as the profile knows.
fn call(random: &mut Random) -> Call {
    use oci_spec::runtime::Arch::*;
    let archs = [
        (naive::X86_64, ScmpArchX86_64),
        (naive::X86_64, ScmpArchX32),
        (naive::I386, ScmpArchX86),
        (naive::AARCH64, ScmpArchAarch64),
        (naive::ARM, ScmpArchArm),
        (0x1234, ScmpArchX86_64),
    ];
    let (arch, table) = random.pick(&archs);
    let edges = [0, 102, 117, 0x3fff_ffff, 0x4000_0000, 0x8000_0000, u32::MAX];
    let number = match naive::number(table, random.pick(&NAMES)) {
        Some(number) => number.wrapping_add(random.pick(&[0, 0, 0, 0, 1, u32::MAX])),
        None => random.pick(&edges),
    };
    let mut args = [0; 6];
    for arg in &mut args {
        let value = random.pick(&VALUES);
        *arg = value.wrapping_add(random.pick(&[0, 0, 0, 1, u64::MAX]));
    }
    Call { number, arch, args }
}

#[test]
fn programs_match_the_naive_evaluator() {
    let mut random = Random(0x6f6e_6767_6921);
    for round in 0..3000 {
        let profile = profile(&mut random, &ACTIONS, 4, 8);
        let filter = program(&profile).filter;
        for _ in 0..300 {
            let call = call(&mut random);
            let (ours, expected) = (run(&filter, &call), naive::evaluate(&profile, &call));
            assert_eq!(ours, expected, "round {round}: {call:x?}\n{profile:#?}");
        }
    }
}

/// Hundreds of calls on five ABIs: long jumps, shared checks, copied returns.
#[test]
fn large_programs_match_the_naive_evaluator() {
    let names: Vec<&str> =
        tables::rows().iter().map(|row| std::str::from_utf8(row.name()).unwrap()).collect();
    let mut random = Random(0x6c_6172_6765);
    let mut longest = 0;
    for round in 0..30 {
        let rules = (0..30).map(|_| {
            let mut rule = rule(&mut random, &ACTIONS, 2);
            rule["names"] = (0..6).map(|_| random.pick(&names)).collect();
            rule
        });
        let rules: Vec<Value> = rules.collect();
        let profile: LinuxSeccomp = serde_json::from_value(
            json!({"defaultAction": "SCMP_ACT_TRAP", "architectures": ARCHS, "syscalls": rules}),
        )
        .unwrap();
        let filter = program(&profile).filter;
        longest = longest.max(filter.len());
        for _ in 0..300 {
            let mut call = call(&mut random);
            if random.below(4) > 0 {
                call.number = call.number & naive::X32_BIT | random.below(480) as u32;
            }
            let (ours, expected) = (run(&filter, &call), naive::evaluate(&profile, &call));
            assert_eq!(ours, expected, "round {round}: {call:x?}\n{profile:#?}");
        }
    }
    println!("longest program: {longest}");
    assert!(longest > 1000);
}

/// Each name in one rule, each argument in one condition, and native calls only:
/// elsewhere libseccomp's answers are not its documented ones (see
/// `where_libseccomp_differs` in `semantics`).
#[test]
fn random_profiles_match_libseccomp() {
    let Some(library) = Library::load() else { return };
    let mut random = Random(0x6c69_6273);
    let mut compared = 0;
    for round in 0..1000 {
        let mut text = serde_json::to_value(profile(&mut random, &ACTIONS, 3, 6)).unwrap();
        text["architectures"] = json!([]);
        let mut seen = std::collections::HashSet::new();
        for rule in text["syscalls"].as_array_mut().unwrap() {
            rule["names"].as_array_mut().unwrap().retain(|name| seen.insert(name.clone()));
            if rule["names"].as_array().unwrap().is_empty() {
                rule["names"] = json!(["no_such_call"]);
            }
            let mut seen = std::collections::HashSet::new();
            rule["args"].as_array_mut().unwrap().retain(|arg| seen.insert(arg["index"].clone()));
        }
        let profile: LinuxSeccomp = serde_json::from_value(text).unwrap();
        let filter = program(&profile).filter;
        let Ok(theirs) = library.compile(&profile) else { continue };
        for _ in 0..200 {
            let call = Call { arch: naive::X86_64, ..call(&mut random) };
            let (ours, mut expected) = (run(&filter, &call), run(&theirs, &call));
            if naive::is_newer(&profile, &call) {
                expected = naive::ENOSYS;
            }
            assert_eq!(ours, expected, "round {round}: {call:x?}\n{profile:#?}");
            compared += 1;
        }
    }
    println!("{compared} calls equal");
}
