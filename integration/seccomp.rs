//! The seccomp filter: when it is in force, what it answers, and which profiles are refused.

use serde_json::{Value, json};

use crate::support::raw::syscall_program;
use crate::support::refusal::refused_at;
use crate::support::{Bundle, Process, eventually};

/// All is allowed but what the rules say.
fn allow_but(rules: Value) -> Value {
    json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules })
}

/// One rule: these names fail with this errno.
fn errno(names: &[&str], errno: i32) -> Value {
    json!({ "names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": errno })
}

fn with_profile(profile: Value, script: &str) -> Bundle {
    Bundle::with(|config| config.set("/linux/seccomp", profile).sh(script))
}

const MKDIR: [&str; 2] = ["mkdir", "mkdirat"];

/// Waits until init runs its program, and returns it.
fn executed(web: &crate::support::Container) -> Process {
    let init = web.init();
    eventually("it has been executed", || (init.cmdline() == ["sleep", "1000"]).then_some(()));
    init
}

/// The filter counts whatever noNewPrivileges says: loaded early with CAP_SYS_ADMIN where it is
/// false or absent, at the last moment where it is true.
#[test]
fn filter_is_in_force_for_no_new_privileges_true_false_and_absent() {
    require!(root);
    for value in [Some(true), Some(false), None] {
        let bundle = Bundle::with(|config| {
            config.set("/linux/seccomp", allow_but(json!([errno(&MKDIR, 28)])));
            match value {
                Some(value) => config.set("/process/noNewPrivileges", value),
                None => config.remove("/process/noNewPrivileges"),
            }
        });
        let web = bundle.container("web");
        web.up();
        let init = executed(&web);
        let facts = ["NoNewPrivs", "Seccomp", "Seccomp_filters"].map(|key| init.status(key));
        let nnp = if value == Some(true) { "1" } else { "0" };
        assert_eq!(facts, [nnp, "2", "1"].map(str::to_string), "{value:?}");
        let tried = web.exec(&["mkdir", "/tmp/new"]).fails();
        assert!(tried.stderr.contains("No space left on device"), "{value:?}: {tried}");
    }
}

/// A user without any capability gets the filter all the same.
#[test]
fn filter_is_in_force_for_a_user_without_capabilities_and_no_new_privileges_false() {
    require!(root);
    let bundle = Bundle::with(|config| {
        config.set("/linux/seccomp", allow_but(json!([errno(&MKDIR, 28)])));
        config.set("/process/noNewPrivileges", false).set("/process/user/uid", 1000);
        config.remove("/process/capabilities")
    });
    let web = bundle.container("web");
    web.up();
    let init = executed(&web);
    assert_eq!(init.status("Seccomp"), "2");
    assert_eq!((init.status("CapEff"), init.status("CapBnd")), ("0".repeat(16), "0".repeat(16)));
}

#[test]
fn no_profile_means_no_filter() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    assert_eq!(web.init().status("Seccomp"), "0");
}

#[test]
fn errno_ret_of_each_rule_is_what_the_call_returns() {
    require!(root);
    for (number, text) in
        [(1, "Operation not permitted"), (28, "No space left on device"), (40, "Too many levels")]
    {
        let bundle = with_profile(allow_but(json!([errno(&MKDIR, number)])), "mkdir /tmp/new");
        let web = bundle.container("web");
        let output = web.run().fails();
        assert!(output.stderr.contains(text), "{number}: {output}");
    }
}

#[test]
fn errno_ret_absent_is_eperm() {
    require!(root);
    let rule = json!({ "names": MKDIR, "action": "SCMP_ACT_ERRNO" });
    let bundle = with_profile(allow_but(json!([rule])), "mkdir /tmp/new");
    let web = bundle.container("web");
    let output = web.run().fails();
    assert!(output.stderr.contains("Operation not permitted"), "{output}");
}

#[test]
fn two_rules_with_different_errnos() {
    require!(root);
    let rules = json!([errno(&MKDIR, 28), errno(&["rmdir", "unlinkat"], 16)]);
    let bundle = with_profile(allow_but(rules), "mkdir /tmp/new; rmdir /var");
    let web = bundle.container("web");
    let output = web.run().fails();
    assert!(output.stderr.contains("No space left on device"), "{output}");
    assert!(output.stderr.contains("resource busy"), "{output}");
}

/// What a program that makes one system call exits with: its errno, or 0.
fn tried(profile: Value, number: i64, args: [u64; 3]) -> i32 {
    let bundle = Bundle::with(|config| config.set("/linux/seccomp", profile).args(&["/call"]));
    syscall_program(&bundle.rootfs().join("call"), number, args);
    bundle.container("web").run().code()
}

/// The spec's operators, each on the first argument of umask(2), which takes any number.
#[test]
fn conditional_args_of_all_seven_operators() {
    require!(root);
    for (op, value, value_two, hits, misses) in [
        ("SCMP_CMP_NE", 5, 0, 4, 5),
        ("SCMP_CMP_LT", 5, 0, 4, 5),
        ("SCMP_CMP_LE", 5, 0, 5, 6),
        ("SCMP_CMP_EQ", 5, 0, 5, 6),
        ("SCMP_CMP_GE", 5, 0, 5, 4),
        ("SCMP_CMP_GT", 5, 0, 6, 5),
        ("SCMP_CMP_MASKED_EQ", 6, 4, 13, 11),
    ] {
        let arg = json!({ "index": 0, "value": value, "valueTwo": value_two, "op": op });
        let rule = json!({ "names": ["umask"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28, "args": [arg] });
        let profile = allow_but(json!([rule]));
        assert_eq!(tried(profile.clone(), libc::SYS_umask, [hits, 0, 0]), 28, "{op} with {hits}");
        assert_eq!(tried(profile, libc::SYS_umask, [misses, 0, 0]), 0, "{op} with {misses}");
    }
}

/// The upper half of a 64-bit argument counts, too.
#[test]
fn conditional_args_compare_64_bits() {
    require!(root);
    let arg = json!({ "index": 0, "value": 0x1_0000_0005_u64, "op": "SCMP_CMP_EQ" });
    let rule =
        json!({ "names": ["umask"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28, "args": [arg] });
    let profile = allow_but(json!([rule]));
    assert_eq!(tried(profile.clone(), libc::SYS_umask, [0x1_0000_0005, 0, 0]), 28);
    assert_eq!(tried(profile, libc::SYS_umask, [5, 0, 0]), 0);
}

/// All the conditions of one rule must hold; one of several rules is enough.
#[test]
fn conditional_args_are_and_in_a_rule_and_or_between_rules() {
    require!(root);
    let equal =
        |index: u32, value: u64| json!({ "index": index, "value": value, "op": "SCMP_CMP_EQ" });
    let rule = |args: Value| json!({ "names": ["umask"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28, "args": args });
    let both = allow_but(json!([rule(json!([equal(0, 1), equal(1, 2)]))]));
    assert_eq!(tried(both.clone(), libc::SYS_umask, [1, 2, 0]), 28);
    assert_eq!(tried(both, libc::SYS_umask, [1, 3, 0]), 0);
    let either = allow_but(json!([rule(json!([equal(0, 1)])), rule(json!([equal(0, 3)]))]));
    assert_eq!(tried(either.clone(), libc::SYS_umask, [3, 0, 0]), 28);
    assert_eq!(tried(either, libc::SYS_umask, [2, 0, 0]), 0);
}

/// What a profile of 2015 lists so that busybox starts; nothing newer than execveat (Linux 3.19).
const OLD_CALLS: &str = "
    access arch_prctl brk capget capset chdir chmod chown clone close dup dup2 dup3 execve
    execveat exit exit_group faccessat fchdir fchmod fchown fcntl fstat fstatfs futex getcwd
    getdents getdents64 getegid geteuid getgid getgroups getpgrp getpid getppid getresgid
    getresuid getrlimit getuid ioctl kill lseek lstat madvise mmap mprotect mremap munmap
    nanosleep newfstatat open openat pipe pipe2 poll prctl pread64 prlimit64 pselect6 read
    readlink readlinkat rt_sigaction rt_sigprocmask rt_sigreturn rt_sigsuspend set_robust_list
    set_tid_address setgid setgroups setpgid setresgid setresuid setsid setuid sigaltstack
    stat statfs tgkill time umask uname vfork wait4 waitid write writev clock_nanosleep
    clock_gettime clock_getres gettimeofday getrandom fork";

fn old_profile() -> Value {
    let native =
        if cfg!(target_arch = "aarch64") { "SCMP_ARCH_AARCH64" } else { "SCMP_ARCH_X86_64" };
    let names: Vec<&str> = OLD_CALLS.split_whitespace().collect();
    json!({
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "architectures": [native],
        "syscalls": [{ "names": names, "action": "SCMP_ACT_ALLOW" }]
    })
}

/// A container that waits in a shell under this profile, with noNewPrivileges as given.
#[track_caller]
fn runs_under(profile: Value, no_new_privileges: bool) {
    let bundle = with_profile(profile, "echo runs; exec sleep 1000");
    bundle.edit(|config| config.set("/process/noNewPrivileges", no_new_privileges));
    let web = bundle.container("web");
    let created = web.up();
    eventually("it runs", || (created.stdout_now() == "runs\n").then_some(()));
    assert_eq!(web.init().status("Seccomp"), "2");
    assert_eq!(web.sh("echo exec runs").ok().stdout, "exec runs\n");
}

/// close_range, openat2, clone3, faccessat2, statx: none is in the profile, and the runtime's own
/// use of them must not be hindered, whatever noNewPrivileges says.
#[test]
fn profile_that_predates_close_range_must_not_break_us() {
    require!(root);
    let mut profile = old_profile();
    let sockets = ["sendto", "sendmsg", "recvfrom", "recvmsg"];
    profile["syscalls"][0]["names"].as_array_mut().unwrap().extend(sockets.map(Value::from));
    runs_under(profile.clone(), true);
    runs_under(profile, false);
}

/// Nor need a profile allow the calls by which the runtime speaks with its child: under the filter
/// that is loaded early (decision 1) only what every program needs is used.
#[test]
fn profile_without_socket_calls_must_not_break_us() {
    require!(root);
    runs_under(old_profile(), true);
    runs_under(old_profile(), false);
}

/// A syscall that is newer than all of the profile: ENOSYS, so that a C library falls back. One
/// that is older and not listed gets the default errno.
#[test]
fn enosys_for_syscalls_newer_than_the_profile() {
    require!(root);
    // 436 is close_range (Linux 5.9), 437 openat2, 463 setxattrat (6.13), on every architecture.
    for number in [436, 437, 463] {
        assert_eq!(tried(old_profile(), number, [0, 0, 0]), libc::ENOSYS, "syscall {number}");
    }
    assert_eq!(tried(old_profile(), libc::SYS_sethostname, [0, 0, 0]), libc::EPERM);
    assert_eq!(tried(old_profile(), libc::SYS_ptrace, [0, 0, 0]), libc::EPERM);
}

/// Numbers that no kernel has: ENOSYS, not the end of the process.
#[test]
fn enosys_for_numbers_that_do_not_exist() {
    require!(root);
    assert_eq!(tried(old_profile(), 5000, [0, 0, 0]), libc::ENOSYS);
}

#[test]
fn exec_gets_the_same_filter() {
    require!(root);
    let bundle =
        Bundle::with(|config| config.set("/linux/seccomp", allow_but(json!([errno(&MKDIR, 28)]))));
    let web = bundle.container("web");
    web.up();
    let seen = web.sh("grep Seccomp /proc/self/status; mkdir /tmp/new");
    assert!(seen.stdout.contains("Seccomp:\t2\nSeccomp_filters:\t1\n"), "{seen}");
    assert!(seen.stderr.contains("No space left on device"), "{seen}");
}

#[test]
fn kill_action_ends_the_process_by_sigsys() {
    require!(root);
    let rule = json!({ "names": ["umask"], "action": "SCMP_ACT_KILL_PROCESS" });
    assert_eq!(tried(allow_but(json!([rule])), libc::SYS_umask, [0, 0, 0]), 128 + libc::SIGSYS);
}

/// The order of the rules of one syscall: as libseccomp, conditional ones come first.
#[test]
fn default_errno_ret_is_what_unlisted_calls_return() {
    require!(root);
    let mut profile = old_profile();
    profile["defaultErrnoRet"] = json!(28);
    assert_eq!(tried(profile, libc::SYS_sethostname, [0, 0, 0]), 28);
}

/// The container's architecture is always covered; a program of another one must not slip past.
#[test]
fn foreign_architecture_does_not_bypass_the_filter() {
    require!(root);
    if !cfg!(target_arch = "x86_64") {
        return;
    }
    // The x32 form of the number: bit 30.
    let x32 = libc::SYS_umask | 0x4000_0000;
    let code = tried(allow_but(json!([errno(&["umask"], 28)])), x32, [0, 0, 0]);
    assert_ne!(code, 0, "the call got through as x32");
}

#[test]
fn unknown_syscall_names_are_ignored() {
    require!(root);
    let rules = json!([errno(&["no_such_syscall_in_any_kernel"], 28), errno(&MKDIR, 28)]);
    let bundle = with_profile(allow_but(rules), "mkdir /tmp/new");
    let web = bundle.container("web");
    let output = web.run().fails();
    assert!(output.stderr.contains("No space left on device"), "{output}");
}

/// The spec: errnoRet with an action that takes none MUST be an error.
#[test]
fn errno_ret_on_allow_is_refused_with_its_pointer() {
    require!(root);
    let rule = json!({ "names": ["mkdir"], "action": "SCMP_ACT_ALLOW", "errnoRet": 1 });
    let bundle =
        with_profile(json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule] }), "true");
    refused_at(&bundle, &["/linux/seccomp/syscalls/0/errnoRet"]);
}

#[test]
fn default_errno_ret_on_allow_is_refused_with_its_pointer() {
    require!(root);
    let bundle =
        with_profile(json!({ "defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1 }), "true");
    refused_at(&bundle, &["/linux/seccomp/defaultErrnoRet"]);
}

/// The spec: listenerMetadata MUST NOT be set without listenerPath.
#[test]
fn listener_metadata_without_listener_path_is_refused_with_its_pointer() {
    require!(root);
    let mut profile = allow_but(json!([]));
    profile["listenerMetadata"] = json!("text");
    let bundle = with_profile(profile, "true");
    refused_at(&bundle, &["/linux/seccomp/listenerMetadata"]);
}

#[test]
fn notify_without_listener_path_is_refused() {
    require!(root);
    let rule = json!({ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" });
    let bundle = with_profile(allow_but(json!([rule])), "true");
    let output = crate::support::refusal::refused(&bundle);
    assert!(output.stderr.contains("/linux/seccomp"), "{output}");
}

#[test]
fn unknown_action_operator_architecture_and_flag_are_refused_with_their_pointers() {
    require!(root);
    let arg = json!({ "index": 0, "value": 1, "op": "SCMP_CMP_LIKE" });
    let bundle = with_profile(
        json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_NO_SUCH"],
            "flags": ["SECCOMP_FILTER_FLAG_NO_SUCH"],
            "syscalls": [
                { "names": ["mkdir"], "action": "SCMP_ACT_MAYBE" },
                { "names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "args": [arg] }
            ]
        }),
        "true",
    );
    let base = "/linux/seccomp";
    let pointers = ["/architectures/0", "/flags/0", "/syscalls/0/action", "/syscalls/1/args/0/op"];
    let pointers = pointers.map(|pointer| format!("{base}{pointer}"));
    refused_at(&bundle, &pointers.each_ref().map(String::as_str));
}

#[test]
fn argument_index_above_5_is_refused_with_its_pointer() {
    require!(root);
    let arg = json!({ "index": 6, "value": 1, "op": "SCMP_CMP_EQ" });
    let rule = json!({ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "args": [arg] });
    let bundle = with_profile(allow_but(json!([rule])), "true");
    refused_at(&bundle, &["/linux/seccomp/syscalls/0/args/0/index"]);
}

#[test]
fn flags_log_and_spec_allow_are_accepted() {
    require!(root);
    let mut profile = allow_but(json!([errno(&MKDIR, 28)]));
    profile["flags"] = json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]);
    let bundle = with_profile(profile, "mkdir /tmp/new");
    let web = bundle.container("web");
    let output = web.run().fails();
    assert!(output.stderr.contains("No space left on device"), "{output}");
}
