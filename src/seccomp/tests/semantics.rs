//! One rule of the semantics per test.

use super::interpreter::{Call, run};
use super::libseccomp::Library;
use super::{PROFILES, naive, parse, problems, program};
use crate::seccomp::{compile, known_actions, known_archs, known_flags, known_operators};
use oci_spec::runtime::{Arch, LinuxSeccompAction, LinuxSeccompFilterFlag, LinuxSeccompOperator};

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const ERRNO: u32 = libc::SECCOMP_RET_ERRNO;
const EPERM: u32 = ERRNO | 1;

/// The verdict on an x86_64 call.
fn verdict(profile: &str, number: u32, args: &[u64]) -> u32 {
    on(naive::X86_64, profile, number, args)
}

fn on(arch: u32, profile: &str, number: u32, args: &[u64]) -> u32 {
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    run(&program(&parse(profile)).filter, &Call { number, arch, args: all })
}

fn pointers(profile: &str) -> Vec<String> {
    problems(profile).into_iter().map(|p| p.pointer).collect()
}

fn warnings(profile: &str) -> Vec<String> {
    let mut warnings = Vec::new();
    assert!(compile(&parse(profile), &mut warnings).is_ok());
    warnings
}

#[test]
fn every_action_has_its_kernel_value() {
    for (action, value) in [
        ("SCMP_ACT_KILL", libc::SECCOMP_RET_KILL_THREAD),
        ("SCMP_ACT_KILL_THREAD", libc::SECCOMP_RET_KILL_THREAD),
        ("SCMP_ACT_KILL_PROCESS", libc::SECCOMP_RET_KILL_PROCESS),
        ("SCMP_ACT_TRAP", libc::SECCOMP_RET_TRAP),
        ("SCMP_ACT_ERRNO", EPERM),
        ("SCMP_ACT_TRACE", libc::SECCOMP_RET_TRACE | 1),
        ("SCMP_ACT_LOG", libc::SECCOMP_RET_LOG),
        ("SCMP_ACT_NOTIFY", libc::SECCOMP_RET_USER_NOTIF),
    ] {
        let profile = format!(
            r#"{{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent",
                "syscalls": [{{"names": ["mkdir"], "action": "{action}"}}]}}"#
        );
        assert_eq!(verdict(&profile, 83, &[]), value, "{action}");
        assert_eq!(verdict(&profile, 84, &[]), ALLOW);
        let notify = action == "SCMP_ACT_NOTIFY";
        let program = program(&parse(&profile));
        assert_eq!(program.notify, notify);
        assert_eq!(program.flags, if notify { 8 | 4 } else { 4 }, "NEW_LISTENER, SPEC_ALLOW");
    }
}

#[test]
fn errno_values() {
    let profile = r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 13, "syscalls": [
        {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 0},
        {"names": ["rmdir"], "action": "SCMP_ACT_TRACE", "errnoRet": 65535},
        {"names": ["creat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5000}]}"#;
    assert_eq!(verdict(profile, 82, &[]), ERRNO | 13);
    assert_eq!(verdict(profile, 83, &[]), ERRNO);
    assert_eq!(verdict(profile, 84, &[]), libc::SECCOMP_RET_TRACE | 65535);
    // The kernel cuts at MAX_ERRNO; we say so.
    assert_eq!(verdict(profile, 85, &[]), ERRNO | 4095);
    assert_eq!(warnings(profile), ["seccomp: /syscalls/2/errnoRet: errno 5000 acts as 4095"]);
}

/// config-linux.md: "When the action doesn't support an errno, the runtime MUST
/// print and error and fail."
#[test]
fn errno_on_an_action_without_errno_is_refused() {
    let rule = r#"{"defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW", "errnoRet": 1}]}"#;
    assert_eq!(pointers(rule), ["/syscalls/0/errnoRet"]);
    let default = r#"{"defaultAction": "SCMP_ACT_KILL", "defaultErrnoRet": 1}"#;
    assert_eq!(pointers(default), ["/defaultErrnoRet"]);
}

#[test]
fn every_problem_is_reported_at_its_place() {
    let profile = r#"{"defaultAction": "SCMP_ACT_NOTIFY", "listenerMetadata": "x", "syscalls": [
        {"names": [], "action": "SCMP_ACT_ALLOW"},
        {"names": ["read", ""], "action": "SCMP_ACT_ERRNO", "errnoRet": 65536},
        {"names": ["read", "write"], "action": "SCMP_ACT_NOTIFY"},
        {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [
            {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"},
            {"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]}]}"#;
    let expected = [
        "/syscalls/0/names",
        "/syscalls/1/errnoRet",
        "/syscalls/1/names/1",
        "/syscalls/3/args/1/index",
        "/listenerMetadata",
        "/listenerPath",
    ];
    assert_eq!(pointers(profile), expected);
}

#[test]
fn unknown_names_give_one_warning() {
    let profile = r#"{"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_PPC64LE"],
        "syscalls": [{"names": ["read", "raed", "swapcontext"], "action": "SCMP_ACT_ALLOW"},
                     {"names": ["raed", "wirte"], "action": "SCMP_ACT_ALLOW"}]}"#;
    assert_eq!(
        warnings(profile),
        [
            "seccomp: there is no syscall table for SCMP_ARCH_PPC64LE: its calls are killed",
            "seccomp: unknown syscall names ignored: raed, wirte",
        ]
    );
}

#[test]
fn engine_profiles_give_no_warning() {
    for (name, text) in PROFILES {
        assert!(warnings(text).is_empty(), "{name}: {:?}", warnings(text));
    }
}

#[test]
fn flags() {
    let profile = |flags: &str, action: &str| {
        parse(&format!(
            r#"{{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/a", "flags": [{flags}],
                "syscalls": [{{"names": ["mkdir"], "action": "{action}"}}]}}"#
        ))
    };
    let all = r#""SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG",
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV""#;
    assert_eq!(program(&profile("", "SCMP_ACT_KILL")).flags, 0);
    // Without a listener, WAIT_KILLABLE_RECV would be EINVAL.
    assert_eq!(program(&profile(all, "SCMP_ACT_KILL")).flags, 1 | 2 | 4);
    // With one, TSYNC would be.
    assert_eq!(program(&profile(all, "SCMP_ACT_NOTIFY")).flags, 2 | 4 | 8 | 32);
}

#[test]
fn an_unconditional_rule_beats_conditional_ones() {
    let profile = r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["read"], "action": "SCMP_ACT_TRAP",
         "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]},
        {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["read"], "action": "SCMP_ACT_KILL"}]}"#;
    assert_eq!(verdict(profile, 0, &[1]), ALLOW);
}

/// runc drops a rule that repeats the default, so it cannot shadow a later one.
#[test]
fn a_rule_with_the_default_action_decides_nothing() {
    let profile = r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["read", "openat2"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1},
        {"names": ["read"], "action": "SCMP_ACT_ALLOW"}]}"#;
    assert_eq!(verdict(profile, 0, &[]), ALLOW);
    // It still says that the author knew openat2 (437).
    assert_eq!(verdict(profile, 437, &[]), EPERM);
    assert_eq!(verdict(profile, 438, &[]), naive::ENOSYS);
}

#[test]
fn conditions_on_one_argument_are_alternatives() {
    let profile = r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [
            {"index": 0, "value": 0, "op": "SCMP_CMP_EQ"},
            {"index": 1, "value": 9, "op": "SCMP_CMP_EQ"},
            {"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]}]}"#;
    for (args, expected) in [([0, 0], ALLOW), ([8, 0], ALLOW), ([5, 9], ALLOW), ([5, 0], EPERM)] {
        assert_eq!(verdict(profile, 135, &args), expected, "{args:?}");
    }
}

#[test]
fn newer_calls_get_enosys() {
    let profile = |action: &str| {
        format!(
            r#"{{"defaultAction": "{action}", "architectures": ["SCMP_ARCH_X32"],
                "syscalls": [{{"names": ["read", "clone3"], "action": "SCMP_ACT_TRAP"}}]}}"#
        )
    };
    for action in ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"] {
        assert_ne!(verdict(&profile(action), 436, &[]), naive::ENOSYS, "{action}");
    }
    for action in ["SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS"] {
        let profile = profile(action);
        assert_ne!(verdict(&profile, 434, &[]), naive::ENOSYS);
        assert_eq!(verdict(&profile, 436, &[]), naive::ENOSYS, "{action}");
        assert_eq!(verdict(&profile, 436 | naive::X32_BIT, &[]), naive::ENOSYS, "{action}");
    }
    // Nothing named, nothing known about what is newer.
    assert_eq!(verdict(r#"{"defaultAction": "SCMP_ACT_ERRNO"}"#, 436, &[]), EPERM);
}

#[test]
fn x32_and_foreign_calls_are_killed_unless_listed() {
    let native = r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#;
    assert_eq!(verdict(native, naive::X32_BIT, &[]), naive::KILL_THREAD);
    assert_eq!(verdict(native, u32::MAX, &[]), ALLOW);
    assert_eq!(on(naive::I386, native, 3, &[]), naive::KILL_THREAD);
    let listed = r#"{"defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X32", "SCMP_ARCH_X86"]}"#;
    assert_eq!(verdict(listed, naive::X32_BIT, &[]), ALLOW);
    assert_eq!(on(naive::I386, listed, 3, &[]), ALLOW);
    assert_eq!(on(naive::AARCH64, listed, 3, &[]), naive::KILL_THREAD);
}

#[test]
fn i386_multiplexers() {
    let profile = r#"{"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86"],
        "syscalls": [{"names": ["accept", "shmget"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["socket"], "action": "SCMP_ACT_ALLOW",
             "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_NE"}]}]}"#;
    for (number, arg, expected) in [
        (102, 5, ALLOW), // socketcall: accept
        (102, 1, ALLOW), // socket: what it is asked for lies behind a pointer
        (102, 40, EPERM),
        (117, 23, ALLOW), // ipc: shmget
        (117, 24, EPERM),
        (359, 40, EPERM), // socket itself
        (359, 2, ALLOW),
        (395, 0, ALLOW), // shmget itself
    ] {
        assert_eq!(on(naive::I386, profile, number, &[arg]), expected, "{number} {arg}");
    }
}

/// 64-bit comparisons use both words; 32-bit ABIs only the low one.
#[test]
fn high_words() {
    let profile = r#"{"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86"],
        "syscalls": [{"names": ["clone"], "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": 5, "op": "SCMP_CMP_LE"}]}]}"#;
    let high = 1 << 32 | 3;
    assert_eq!(verdict(profile, 56, &[high]), EPERM);
    assert_eq!(on(naive::I386, profile, 120, &[high]), ALLOW);
}

/// Bits of valueTwo outside the mask do not count, as in libseccomp.
#[test]
fn masked_comparison() {
    let profile = r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [
            {"index": 0, "value": 240, "valueTwo": 31, "op": "SCMP_CMP_MASKED_EQ"}]}]}"#;
    assert_eq!(verdict(profile, 56, &[0x1c]), ALLOW);
    assert_eq!(verdict(profile, 56, &[0x2f]), EPERM);
}

#[test]
fn large_programs_stay_correct_and_huge_ones_are_refused() {
    // Each condition takes four instructions: far more than a jump can reach.
    let profile = |n: u64| {
        let args: Vec<String> = (0..n)
            .map(|v| format!(r#"{{"index": 0, "value": {}, "op": "SCMP_CMP_EQ"}}"#, v << 33 | v))
            .collect();
        format!(
            r#"{{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
                {{"names": ["read", "ioctl"], "action": "SCMP_ACT_ALLOW", "args": [{args}]}},
                {{"names": ["write", "mkdir"], "action": "SCMP_ACT_TRAP", "args": [
                    {args}, {{"index": 1, "value": 1, "op": "SCMP_CMP_EQ"}}]}},
                {{"names": ["pread64"], "action": "SCMP_ACT_LOG"}}]}}"#,
            args = args.join(", ")
        )
    };
    let large = parse(&profile(400));
    let filter = program(&large).filter;
    assert!(filter.len() > 3000);
    for number in [0, 1, 2, 16, 17, 83, 84] {
        for v in [0, 1, 399, 400] {
            let args = [v << 33 | v, v & 1, 0, 0, 0, 0];
            let call = Call { number, arch: naive::X86_64, args };
            assert_eq!(run(&filter, &call), naive::evaluate(&large, &call), "{call:x?}");
        }
    }
    let huge = problems(&profile(600));
    assert_eq!(huge.len(), 1);
    assert!(huge[0].text.contains("at most 4096"), "{huge:?}");
}

/// Where we do what the profile says and libseccomp (2.5.4 and 2.6.1) does not.
/// None of the engines' profiles is affected.
#[test]
fn where_libseccomp_differs() {
    // A section whose ABI lacks one of the named calls (ipc, on Arm) may come out
    // without the load of the syscall number; then no rule of it ever matches.
    let lost_load = r#"{"defaultAction": "SCMP_ACT_KILL", "architectures": ["SCMP_ARCH_ARM"],
        "syscalls": [{"names": ["ipc"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["clone3"], "action": "SCMP_ACT_TRAP", "args": [
                {"index": 2, "value": 9, "op": "SCMP_CMP_LT"}]}]}"#;
    // Alternatives on one argument are merged although none of them holds.
    let merged = r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["read"], "action": "SCMP_ACT_KILL", "args": [
            {"index": 2, "value": 3, "op": "SCMP_CMP_LT"},
            {"index": 2, "value": 8589934593, "op": "SCMP_CMP_GE"}]}]}"#;
    let library = Library::load();
    for (profile, number, arch, args, expected) in [
        (lost_load, 435, naive::ARM, [0, 0, 3, 0, 0, 0], libc::SECCOMP_RET_TRAP),
        (merged, 0, naive::X86_64, [0, 0, 0x7e01_ffff, 0, 0, 0], EPERM),
    ] {
        let profile = parse(profile);
        let call = Call { number, arch, args };
        assert_eq!(run(&program(&profile).filter, &call), expected);
        if let Some(library) = &library {
            let theirs = run(&library.compile(&profile).unwrap(), &call);
            println!("libseccomp: {theirs:#x} for {call:x?}");
        }
    }
}

#[test]
fn lists_for_features_match_what_the_config_types_take() {
    for name in known_actions() {
        assert!(name.parse::<LinuxSeccompAction>().is_ok(), "{name}");
    }
    for name in known_operators() {
        assert!(name.parse::<LinuxSeccompOperator>().is_ok(), "{name}");
    }
    for name in known_archs() {
        assert!(name.parse::<Arch>().is_ok(), "{name}");
    }
    for name in known_flags() {
        assert!(name.parse::<LinuxSeccompFilterFlag>().is_ok(), "{name}");
    }
    let counts = (known_actions().len(), known_operators().len(), known_archs().len());
    assert_eq!((counts, known_flags().len()), ((9, 7, 23), 4));
}

/// Memory is given back under the filter only where that is allowed whatever the arguments.
#[test]
fn madvise_is_allowed_only_without_conditions() {
    let allows = |default: &str, rule: &str| {
        let profile = format!(r#"{{"defaultAction": "{default}", "syscalls": [{rule}]}}"#);
        program(&parse(&profile)).allows_madvise
    };
    let rule = |action: &str| format!(r#"{{"names": ["madvise", "mkdir"], "action": "{action}"}}"#);
    assert!(allows("SCMP_ACT_ALLOW", ""));
    assert!(allows("SCMP_ACT_KILL", &rule("SCMP_ACT_ALLOW")));
    assert!(!allows("SCMP_ACT_KILL", ""));
    assert!(!allows("SCMP_ACT_ALLOW", &rule("SCMP_ACT_ERRNO")));
    assert!(!allows("SCMP_ACT_KILL", &rule("SCMP_ACT_LOG")));
    let some = r#"{"names": ["madvise"], "action": "SCMP_ACT_ALLOW",
        "args": [{"index": 2, "value": 4, "op": "SCMP_CMP_EQ"}]}"#;
    assert!(!allows("SCMP_ACT_KILL", some));
}
