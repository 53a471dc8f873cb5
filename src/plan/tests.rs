//! Golden tests: what a configuration becomes on a given host, step by step. `UPDATE_GOLDEN=1` rewrites
//! the expected texts. And one refusal for each rule, with its pointer.

#[allow(unreachable_pub, missing_docs, clippy::pedantic)]
#[path = "../../fuzz/host.rs"]
mod host;
mod mutations;

use std::path::Path;

use serde_json::{Value, json};

use super::{Options, Plan, create};
use crate::bundle;
use crate::host::Host;

pub(super) fn host_v2() -> Host {
    host::v2()
}

fn host_v1() -> Host {
    host::v1(&["memory", "devices", "pids"])
}

fn plan_of(config: &Value, host: &Host) -> Result<(Plan, Vec<crate::error::Finding>), String> {
    let text = config.to_string();
    let (config, _) = bundle::config(text.as_bytes()).map_err(|error| error.to_string())?;
    let options = Options { detach: true, ..Options::default() };
    create("web", &config, Path::new("/bundle"), host, &options).map_err(|error| error.to_string())
}

fn default_config() -> Value {
    let mut config = crate::cli::default_config();
    config["process"]["terminal"] = json!(false);
    config
}

fn golden(name: &str, config: &Value, host: &Host) {
    let (plan, warnings) = match plan_of(config, host) {
        Ok(planned) => planned,
        Err(error) => panic!("{name}: {error}"),
    };
    let mut text = String::new();
    for step in &plan.steps {
        text.push_str(&format!("{:<40} {:?}", step.at.to_string(), step.act));
        if let super::steps::Do::Mount(index) = step.act {
            text.push_str(&format!("  {}", plan.mounts[index]));
        }
        text.push('\n');
    }
    text.push_str(&format!("{}", plan.cgroup));
    for warning in warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/plan/testdata/{name}.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        assert!(std::fs::write(&file, &text).is_ok());
    }
    let expected = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(text, expected, "{name}: see UPDATE_GOLDEN");
}

#[test]
fn golden_default_config_on_v2_and_v1() {
    golden("default-v2", &default_config(), &host_v2());
    golden("default-v1", &default_config(), &host_v1());
}

#[test]
fn golden_everything_that_has_a_step() {
    let mut config = default_config();
    let hook = json!([{"path": "/bin/true"}]);
    for kind in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"] {
        config["hooks"][kind] = hook.clone();
    }
    config["process"]["terminal"] = json!(false);
    config["process"]["noNewPrivileges"] = json!(false);
    config["domainname"] = json!("example");
    config["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1", "kernel.shmmax": "4096"});
    config["linux"]["personality"] = json!({"domain": "LINUX32"});
    config["linux"]["rootfsPropagation"] = json!("rshared");
    config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["swapon"], "action": "SCMP_ACT_ERRNO"}]});
    config["linux"]["namespaces"][1]["path"] = json!("/proc/1/ns/net");
    config["linux"]["resources"]["memory"] = json!({"limit": 1 << 20});
    golden("everything-v2", &config, &host_v2());
}

/// The problems of the default configuration with one member changed.
fn refused(pointer: &str, value: Value) -> String {
    let mut config = default_config();
    let (parent, last) = pointer.rsplit_once('/').unwrap_or_default();
    match config.pointer_mut(parent) {
        Some(Value::Array(items)) => items.push(value),
        Some(Value::Object(members)) => {
            members.insert(last.to_owned(), value);
        }
        _ => panic!("{pointer}"),
    }
    plan_of(&config, &host_v2()).err().unwrap_or_default()
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn every_rule_refuses_with_its_pointer() {
    let cases = [
        ("/ociVersion", json!("2.0.0"), "/ociVersion: "),
        ("/process/cwd", json!("relative"), "/process/cwd: not an absolute path"),
        ("/process/args", json!([]), "/process/args: names no program"),
        (
            "/process/user",
            json!({"uid": 4294967295_u32, "gid": 0}),
            "/process/user/uid: 4294967295",
        ),
        (
            "/process/rlimits/-",
            json!({"type": "RLIMIT_NOFILE", "hard": 1, "soft": 1}),
            "/process/rlimits/1: duplicate RLIMIT_NOFILE",
        ),
        ("/process/oomScoreAdj", json!(1001), "/process/oomScoreAdj: "),
        ("/process/env/-", json!("=x"), "/process/env/2: "),
        ("/process/terminal", json!(true), "/process/terminal: cannot allocate tty"),
        ("/process/apparmorProfile", json!("p"), "/process/apparmorProfile: needs AppArmor"),
        ("/hostname", json!("x".repeat(65)), "/hostname: "),
        ("/annotations", json!({"": "x"}), "/annotations: has an empty key"),
        (
            "/mounts/-",
            json!({"destination": "/proc/self", "type": "tmpfs"}),
            "/mounts/7/destination: nothing may be mounted below /proc",
        ),
        ("/mounts/-", json!({"destination": "/", "type": "tmpfs"}), "/mounts/7/destination: "),
        ("/mounts/-", json!({"destination": "/x"}), "/mounts/7/type: missing"),
        (
            "/mounts/-",
            json!({"destination": "/x", "options": ["bind"]}),
            "/mounts/7/source: missing",
        ),
        ("/linux/namespaces/-", json!({"type": "pid"}), "/linux/namespaces/6: duplicate"),
        ("/linux/cgroupsPath", json!("/a/../b"), "/linux/cgroupsPath: "),
        ("/linux/maskedPaths/-", json!("relative"), "/linux/maskedPaths/12: not an absolute path"),
        (
            "/linux/sysctl",
            json!({"kernel.core_pattern": "x"}),
            "/linux/sysctl/kernel.core_pattern: ",
        ),
        ("/linux/rootfsPropagation", json!("odd"), "/linux/rootfsPropagation: "),
        (
            "/linux/devices",
            json!([{"path": "x", "type": "c", "major": 1, "minor": 1}]),
            "/linux/devices/0/path: not an absolute path",
        ),
        (
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}),
            "/linux/seccomp",
        ),
        ("/hooks", json!({"poststop": [{"path": "true"}]}), "/hooks/poststop/0/path: "),
        (
            "/hooks",
            json!({"prestart": [{"path": "/true", "timeout": 0}]}),
            "/hooks/prestart/0/timeout: ",
        ),
    ];
    for (pointer, value, expected) in cases {
        let text = refused(pointer, value);
        assert!(text.starts_with(expected), "{pointer}: {text:?} is not {expected:?}");
    }
}

#[test]
fn all_problems_are_found_in_one_go() {
    let mut config = default_config();
    config["process"]["cwd"] = json!("x");
    config["ociVersion"] = json!("9.0.0");
    config["linux"]["maskedPaths"] = json!(["y"]);
    let text = plan_of(&config, &host_v2()).err().unwrap_or_default();
    for pointer in ["/process/cwd: ", "/ociVersion: ", "/linux/maskedPaths/0: "] {
        assert!(text.contains(pointer), "{text}");
    }
}
