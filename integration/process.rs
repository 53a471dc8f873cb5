//! The process object: arguments, environment, identity, limits, names. (What engines rely on in
//! stdio, HOME, umask and descriptors is in contract_env.rs and stdio.rs.)

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use crate::support::refusal::refused_at;
use crate::support::{Bundle, Config, Output, Process, eventually};

/// What a shell script prints in a container whose config has been edited.
fn output(bundle: &Bundle) -> Output {
    bundle.container("web").run().ok()
}

#[test]
fn args_reach_the_process_byte_for_byte() {
    require!(root);
    let args = [
        "sh",
        "-c",
        "sleep 1000; :",
        "",
        "two words",
        "tab\tand\nnewline",
        "üñí",
        "$HOME",
        "\u{1b}[0m",
    ];
    let bundle = Bundle::with(|config| config.args(&args));
    let web = bundle.container("web");
    web.up();
    eventually("it runs", || (web.init().cmdline() == args).then_some(()));
}

#[test]
fn args_with_a_relative_path_are_found_from_cwd() {
    require!(root);
    let bundle = Bundle::with(|config| config.args(&["./tool", "x"]).set("/process/cwd", "/opt"));
    fs::create_dir(bundle.rootfs().join("opt")).unwrap();
    fs::copy(bundle.rootfs().join("bin/busybox"), bundle.rootfs().join("opt/busybox")).unwrap();
    symlink("busybox", bundle.rootfs().join("opt/echo")).unwrap();
    bundle.edit(|config| config.args(&["./echo", "x"]));
    assert_eq!(output(&bundle).stdout, "x\n");
}

#[test]
fn env_is_exactly_what_is_given_and_home() {
    require!(root);
    let env = ["PATH=/bin", "EMPTY=", "SPACE=a b", "LINES=a\nb", "EQUALS=a=b", "ÜML=ä"];
    let bundle = Bundle::with(|config| config.set("/process/env", &env[..]));
    let web = bundle.container("web");
    web.up();
    let mut expected: Vec<String> = env.iter().map(|entry| (*entry).to_string()).collect();
    expected.push("HOME=/root".to_string());
    expected.sort();
    eventually("it has been executed", || (web.init().status("Name") == "sleep").then_some(()));
    assert_eq!(web.init().environ(), expected);
}

#[test]
fn uid_gid_additional_gids_and_umask_are_exact() {
    require!(root);
    let bundle = Bundle::with(|config| {
        let user =
            json!({ "uid": 1234, "gid": 2345, "additionalGids": [7, 5, 3000], "umask": 0o027 });
        config.set("/process/user", user)
    });
    let web = bundle.container("web");
    web.up();
    let init = web.init();
    let words = |key: &str| init.status(key).split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(words("Uid"), "1234 1234 1234 1234");
    assert_eq!(words("Gid"), "2345 2345 2345 2345");
    assert_eq!(words("Groups"), "5 7 3000");
    assert_eq!(words("Umask"), "0027");
}

/// The runtime's own groups must not go with it.
#[test]
fn additional_gids_absent_means_none() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    let create = web.call("create", &[]).before_exec(|| unsafe {
        libc::setgroups(2, [4, 27].as_ptr());
    });
    create.run().ok();
    web.start().ok();
    assert_eq!(web.init().status("Groups"), "");
}

/// 2^32-2 is the last that is an id.
#[test]
fn largest_uid_and_gids_are_accepted() {
    require!(root);
    const LAST: u32 = u32::MAX - 1;
    let user = json!({ "uid": LAST, "gid": LAST, "additionalGids": [LAST] });
    let bundle = Bundle::with(|config| config.set("/process/user", user).sh("id -u; id -g; id -G"));
    assert_eq!(output(&bundle).stdout, "4294967294\n4294967294\n4294967294\n");
}

/// The five masks of a process, by the names of /proc/PID/status.
pub fn masks(process: Process) -> [u64; 5] {
    ["CapBnd", "CapEff", "CapInh", "CapPrm", "CapAmb"]
        .map(|key| u64::from_str_radix(&process.status(key), 16).unwrap())
}

/// The bits: CHOWN 0, DAC_OVERRIDE 1, FOWNER 3, KILL 5, SETUID 7.
pub fn five_sets(config: &mut Config) -> &mut Config {
    let sets = json!({
        "bounding": ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL"],
        "effective": ["CAP_KILL"],
        "inheritable": ["CAP_KILL", "CAP_FOWNER"],
        "permitted": ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID"],
        "ambient": ["CAP_KILL"],
    });
    config.set("/process/capabilities", sets)
}

/// Before execve the five sets are what config.json says, each for itself.
#[test]
fn five_capability_sets_are_exact_when_created() {
    require!(root);
    let bundle = Bundle::with(five_sets);
    let web = bundle.container("web");
    web.create().ok();
    let expected = [0b10_1011, 0b10_0000, 0b10_1000, 0b1010_0001, 0b10_0000];
    assert_eq!(masks(web.init()), expected);
}

/// And after execve what capabilities(7) makes of them for a user that is not root.
#[test]
fn five_capability_sets_of_a_user_after_start() {
    require!(root);
    let bundle = Bundle::with(|config| five_sets(config).set("/process/user/uid", 1000));
    let web = bundle.container("web");
    web.up();
    eventually("it has been executed", || {
        (web.init().cmdline() == ["sleep", "1000"]).then_some(())
    });
    let expected = [0b10_1011, 0b10_0000, 0b10_1000, 0b10_0000, 0b10_0000];
    assert_eq!(masks(web.init()), expected);
}

#[test]
fn capabilities_absent_means_none() {
    require!(root);
    let bundle = Bundle::with(|config| config.remove("/process/capabilities"));
    let web = bundle.container("web");
    web.up();
    assert_eq!(masks(web.init()), [0; 5]);
}

/// The spec: an unknown name is a warning, not a failure.
#[test]
fn unknown_capability_warns_and_the_container_starts() {
    require!(root);
    let bundle =
        Bundle::with(|config| config.push("/process/capabilities/bounding", "CAP_NO_SUCH".into()));
    let web = bundle.container("web");
    let created = web.create().ok();
    let warnings = created.log();
    let said = |line: &serde_json::Value| {
        line["level"] == "warning" && line["msg"].as_str().unwrap().contains("CAP_NO_SUCH")
    };
    assert!(warnings.iter().any(said), "{created}");
    web.start().ok();
    assert_eq!(web.status(), "running");
}

/// A capability that the runtime itself does not have: a warning that names it.
#[test]
fn ungrantable_capability_warns_and_is_left_out() {
    require!(root);
    const CAP_LEASE: i32 = 28;
    let bundle = Bundle::with(|config| {
        for set in ["bounding", "effective", "permitted"] {
            config.push(&format!("/process/capabilities/{set}"), "CAP_LEASE".into());
        }
        config
    });
    let web = bundle.container("web");
    let create = web.call("create", &[]).before_exec(|| {
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, CAP_LEASE, 0, 0, 0) };
    });
    let created = create.run().ok();
    assert_eq!(masks(web.init()).map(|mask| mask & 1 << CAP_LEASE), [0; 5]);
    assert_ne!(masks(web.init())[3], 0, "the others are there");
    let said = |line: &serde_json::Value| {
        line["level"] == "warning" && line["msg"].as_str().unwrap().contains("CAP_LEASE")
    };
    assert!(created.log().iter().any(said), "{created}");
}

#[test]
fn no_new_privileges_true_false_and_absent() {
    require!(root);
    for (value, expected) in [(Some(true), "1"), (Some(false), "0"), (None, "0")] {
        let bundle = Bundle::with(|config| match value {
            Some(value) => config.set("/process/noNewPrivileges", value),
            None => config.remove("/process/noNewPrivileges"),
        });
        let web = bundle.container("web");
        web.up();
        assert_eq!(web.init().status("NoNewPrivs"), expected, "{value:?}");
    }
}

/// One line of /proc/PID/limits: soft and hard.
fn limit(process: Process, name: &str) -> (String, String) {
    let text = process.read("limits");
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    let mut words = line.split_whitespace();
    (words.next().unwrap().into(), words.next().unwrap().into())
}

#[test]
fn rlimits_are_exact_soft_and_hard() {
    require!(root);
    let bundle = Bundle::with(|config| {
        let one =
            |kind: &str, soft: u64, hard: u64| json!({ "type": kind, "soft": soft, "hard": hard });
        config.set(
            "/process/rlimits",
            json!([
                one("RLIMIT_NOFILE", 100, 200),
                one("RLIMIT_CORE", 0, 0),
                one("RLIMIT_NPROC", 50, 60),
                one("RLIMIT_STACK", 1 << 20, u64::MAX),
                one("RLIMIT_FSIZE", 4096, 8192),
            ]),
        )
    });
    let web = bundle.container("web");
    web.up();
    let pair = |soft: &str, hard: &str| (soft.to_string(), hard.to_string());
    assert_eq!(limit(web.init(), "Max open files"), pair("100", "200"));
    assert_eq!(limit(web.init(), "Max core file size"), pair("0", "0"));
    assert_eq!(limit(web.init(), "Max processes"), pair("50", "60"));
    assert_eq!(limit(web.init(), "Max stack size"), pair("1048576", "unlimited"));
    assert_eq!(limit(web.init(), "Max file size"), pair("4096", "8192"));
    let seen = web.sh("ulimit -Sn; ulimit -Hn").ok();
    assert_eq!(seen.stdout, "100\n200\n", "exec has them, too");
}

/// Limits that would hinder the runtime's own work are set after it.
#[track_caller]
fn runs_with_limit(kind: &str, value: u64) {
    let limits = json!([{ "type": kind, "soft": value, "hard": value }]);
    let bundle = Bundle::with(|config| config.set("/process/rlimits", limits));
    let web = bundle.container("web");
    web.up();
    eventually("it has been executed", || {
        (web.init().cmdline() == ["sleep", "1000"]).then_some(())
    });
}

#[test]
fn rlimit_nofile_of_3_does_not_break_the_runtime() {
    require!(root);
    runs_with_limit("RLIMIT_NOFILE", 3);
}

#[test]
fn rlimit_fsize_of_0_does_not_break_the_runtime() {
    require!(root);
    runs_with_limit("RLIMIT_FSIZE", 0);
}

#[test]
fn rlimit_as_of_8_mib_does_not_break_the_runtime() {
    require!(root);
    runs_with_limit("RLIMIT_AS", 8 << 20);
}

/// The spec: duplicates MUST be an error.
#[test]
fn rlimits_duplicate_is_refused_with_its_pointer() {
    require!(root);
    let bundle = Bundle::with(|config| {
        config.push("/process/rlimits", json!({ "type": "RLIMIT_NOFILE", "soft": 1, "hard": 2 }))
    });
    refused_at(&bundle, &["/process/rlimits/1"]).fails_with("duplicate RLIMIT_NOFILE");
}

#[test]
fn rlimits_unknown_type_is_refused_with_its_pointer() {
    require!(root);
    let bundle = Bundle::with(|config| config.set("/process/rlimits/0/type", "RLIMIT_NO_SUCH"));
    refused_at(&bundle, &["/process/rlimits/0/type"]);
}

#[test]
fn rlimits_soft_above_hard_is_refused_with_its_pointer() {
    require!(root);
    let bundle = Bundle::with(|config| config.set("/process/rlimits/0/soft", 2048));
    refused_at(&bundle, &["/process/rlimits/0"]);
}

#[test]
fn oom_score_adj_can_be_raised() {
    require!(root);
    let bundle = Bundle::with(|config| config.set("/process/oomScoreAdj", 500));
    let web = bundle.container("web");
    web.up();
    assert_eq!(web.init().read("oom_score_adj"), "500\n");
    assert_eq!(web.exec(&["cat", "/proc/self/oom_score_adj"]).ok().stdout, "500\n");
}

#[test]
fn oom_score_adj_can_be_lowered() {
    require!(root, capability("CAP_SYS_RESOURCE", 24));
    let bundle = Bundle::with(|config| config.set("/process/oomScoreAdj", -500));
    let web = bundle.container("web");
    web.up();
    assert_eq!(web.init().read("oom_score_adj"), "-500\n");
}

/// Lowering takes CAP_SYS_RESOURCE. Without it: an error that says so, or at least a warning;
/// never a silent difference from config.json.
#[test]
fn oom_score_adj_that_cannot_be_lowered_is_told() {
    require!(root);
    let bundle = Bundle::with(|config| config.set("/process/oomScoreAdj", -500));
    let web = bundle.container("web");
    let create = web.call("create", &[]).before_exec(|| {
        const CAP_SYS_RESOURCE: i32 = 24;
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, CAP_SYS_RESOURCE, 0, 0, 0) };
    });
    let created = create.run();
    let told = created.stderr.to_lowercase() + &created.raw_log.to_lowercase();
    assert!(told.contains("oomscoreadj") || told.contains("oom_score_adj"), "{created}");
    if created.code() != 0 {
        bundle.assert_clean();
    }
}

/// The spec: absent means untouched, whatever the caller's is.
#[test]
fn oom_score_adj_absent_is_the_callers() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    let script = "echo 321 > /proc/self/oom_score_adj; exec \"$0\" \"$@\"";
    web.call("create", &[]).through(&["sh", "-c", script]).run().ok();
    web.start().ok();
    assert_eq!(web.init().read("oom_score_adj"), "321\n");
}

#[test]
fn scheduler_policy_and_nice() {
    require!(root);
    let bundle = Bundle::with(|config| {
        config.set("/process/scheduler", json!({ "policy": "SCHED_BATCH", "nice": 5 }))
    });
    let web = bundle.container("web");
    web.up();
    let stat = |field| web.init().stat(field).unwrap();
    // proc(5): field 41 is the policy (SCHED_BATCH is 3), 19 the nice value.
    assert_eq!((stat(41).as_str(), stat(19).as_str()), ("3", "5"));
}

#[test]
fn io_priority_class_and_level() {
    require!(root);
    let bundle = Bundle::with(|config| {
        config.set("/process/ioPriority", json!({ "class": "IOPRIO_CLASS_BE", "priority": 6 }))
    });
    let web = bundle.container("web");
    web.up();
    const IOPRIO_WHO_PROCESS: i32 = 1;
    let got = unsafe { libc::syscall(libc::SYS_ioprio_get, IOPRIO_WHO_PROCESS, web.init().0) };
    assert_eq!(got, 2 << 13 | 6);
}

#[test]
fn personality_linux32() {
    require!(root);
    let bundle = Bundle::with(|config| config.set("/linux/personality/domain", "LINUX32"));
    let web = bundle.container("web");
    web.up();
    // include/uapi/linux/personality.h: PER_LINUX32 is 8.
    assert_eq!(web.init().read("personality"), "00000008\n");
    if cfg!(target_arch = "x86_64") {
        assert_eq!(web.exec(&["uname", "-m"]).ok().stdout, "i686\n");
    }
}

#[test]
fn personality_linux_undoes_the_callers() {
    require!(root);
    let bundle = Bundle::with(|config| config.set("/linux/personality/domain", "LINUX"));
    let web = bundle.container("web");
    let create = web.call("create", &[]).before_exec(|| {
        unsafe { libc::personality(8) };
    });
    create.run().ok();
    assert_eq!(web.init().read("personality"), "00000000\n");
}

/// The spec allows a container without a process to be created; start must refuse it.
#[test]
fn process_absent_create_works_and_start_is_an_error() {
    require!(root);
    let bundle = Bundle::with(|config| config.remove("/process"));
    let web = bundle.container("web");
    web.create().ok();
    assert_eq!(web.status(), "created");
    assert!(web.start().fails().stderr.contains("process"));
}

/// getenv(3) finds the first one; runc and crun let the last one count, and so do we.
#[test]
fn env_of_a_repeated_name_is_the_last_one() {
    require!(root);
    let bundle = Bundle::with(|config| {
        config.set("/process/env", json!(["A=1", "PATH=/bin", "B=x", "A=2", "HOME=/"]))
    });
    let web = bundle.container("web");
    web.create().ok();
    web.start().ok();
    assert_eq!(web.init().environ(), ["A=2", "B=x", "HOME=/", "PATH=/bin"]);
}

/// A unit with `NoNewPrivileges=yes`: nobody can take that off, and it is no less than what was asked for.
#[test]
fn no_new_privs_of_the_runtime_itself_stays_on() {
    require!(root, program("setpriv"));
    let bundle = Bundle::with(|config| {
        config.set("/process/noNewPrivileges", false).sh("grep NoNewPrivs /proc/self/status")
    });
    let run = bundle.container("web").call("run", &[]).through(&["setpriv", "--no-new-privs"]);
    assert_eq!(run.run().ok().stdout, "NoNewPrivs:\t1\n");
}
