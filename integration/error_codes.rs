//! docs/errors.md: every failure has a stable name, which the JSON log tells beside the message.

use serde_json::json;

use crate::support::{Bundle, Output};

/// The one line of a failing command.
#[track_caller]
fn line(output: &Output) -> serde_json::Value {
    let log = output.log();
    assert_eq!(log.len(), 1, "{output}");
    log[0].clone()
}

#[test]
fn a_failure_has_its_code_in_the_json_log() {
    require!(root);
    let bundle = Bundle::with(|config| {
        config.bind("/no/such/source", "/mnt", &["rbind"]).set("/hostname", "web")
    });
    let failed = line(&bundle.container("web").create());
    assert_eq!(failed["code"], "E_MOUNT_SOURCE_MISSING", "{failed}");
    let failed = line(&bundle.onggi(&["state", "nobody"]).run());
    assert_eq!(failed["code"], "E_NOT_FOUND", "{failed}");
    assert_eq!(failed["msg"], "container does not exist", "engines look for the bare text");
}

/// A failure of the container's own process is named by it, not by its parent.
#[test]
fn a_failure_inside_the_container_has_its_code() {
    require!(root);
    let bundle = Bundle::with(|config| config.args(&["/no/such/program"]));
    assert_eq!(line(&bundle.container("web").create())["code"], "E_PROGRAM");
    let bundle = Bundle::with(|config| config.set("/linux/sysctl", json!({"net.core.no": "1"})));
    let failed = line(&bundle.container("web").create());
    assert_eq!(failed["code"], "E_SYSCTL", "{failed}");
}

#[test]
fn every_problem_of_a_config_has_its_code_and_pointer() {
    require!(root);
    let bundle = Bundle::with(|config| {
        config.set("/process/cwd", "relative").set("/process/oomScoreAdj", 2000)
    });
    let failed = line(&bundle.container("web").create());
    let problems = failed["problems"].as_array().unwrap();
    for problem in [
        json!({"code": "E_NOT_ABSOLUTE", "pointer": "/process/cwd"}),
        json!({"code": "E_OOM_SCORE_ADJ_VALUE", "pointer": "/process/oomScoreAdj"}),
    ] {
        assert!(problems.contains(&problem), "{failed}");
    }
}

/// podman reads the whole log as one object, so what is odd about a config that fails is told in the
/// line of the failure.
#[test]
fn on_failure_warnings_are_keys_of_the_one_line() {
    require!(root);
    let bundle = Bundle::with(|config| {
        config
            .set("/ociVersion", "1.9.0")
            .set("/process/env", json!(["PATH=/bin", "odd"]))
            .args(&["/no/such/program"])
    });
    let failed = line(&bundle.container("web").create());
    let codes: Vec<_> =
        failed["warnings"].as_array().unwrap().iter().map(|one| one["code"].clone()).collect();
    assert_eq!(codes, ["W_OCI_VERSION", "W_ENV"], "{failed}");
    assert_eq!(failed["level"], "error");
}

/// What only a kernel can refuse: the system calls that are made to fail, the command, and its code.
const FAULTS: [(&str, &str, &str); 7] = [
    ("E_NAMESPACE", "clone3:error=ENOSPC", "create"),
    ("E_ROOT_SWITCH", "pivot_root:error=EINVAL", "create"),
    ("E_IDENTITY", "setresuid:error=EAGAIN", "create"),
    ("E_SECCOMP", "seccomp:error=EINVAL", "create"),
    ("E_SYSTEM", "setsid:error=EPERM", "create"),
    ("E_SEAL", "memfd_create,fsopen:error=EACCES", "create"),
    ("E_EXEC_CONTAIN", "mkdirat:error=ENOSPC", "exec"),
];

#[test]
fn refusals_that_only_a_fault_brings_have_their_code() {
    require!(root, program("strace"));
    let bundle = Bundle::with(|config| {
        let profile =
            json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": [], "syscalls": [] });
        config.set("/linux/seccomp", profile).set("/process/noNewPrivileges", false)
    });
    let running = Bundle::new();
    let running = running.container("running");
    running.up();
    for (code, what, command) in FAULTS {
        let call = match command {
            "create" => bundle.container("web").call("create", &[]),
            _ => running.call("exec", &["--contain"]).args(&["true"]),
        };
        let trace = format!("trace={}", what.split(':').next().unwrap());
        let inject = format!("inject={what}");
        let strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
        let failed = line(&call.through(&strace).run());
        assert_eq!(failed["code"], code, "{what}: {failed}");
    }
}

#[test]
fn a_setting_that_only_v1_has_has_its_code() {
    require!(root, v2_controller("memory"));
    let bundle = Bundle::with(|config| config.set("/linux/resources/memory/swappiness", 10));
    let failed = line(&bundle.container("web").create());
    let codes: Vec<_> = failed["problems"].as_array().map_or(vec![failed["code"].clone()], |all| {
        all.iter().map(|one| one["code"].clone()).collect()
    });
    assert!(codes.contains(&"E_CGROUP_V1_ONLY".into()), "{failed}");
}
