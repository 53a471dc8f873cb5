//! Device rules, on v1 by files, on v2 by a BPF program. The tests need no driver: opening a node
//! without one fails with ENXIO if the rules let it through, and with EPERM if they do not.

use serde_json::{Value, json};

use crate::support::{Bundle, Container, Process};

const ALLOWED: &str = "No such device or address";
const DENIED: &str = "Operation not permitted";

/// A container that may make device nodes, with these rules.
fn bundle(rules: Value) -> Bundle {
    Bundle::with(|config| {
        for set in ["bounding", "effective", "permitted"] {
            config.push(&format!("/process/capabilities/{set}"), "CAP_MKNOD".into());
        }
        config.set("/linux/resources/devices", rules)
    })
}

fn rule(allow: bool, minor: i64, access: &str) -> Value {
    json!({ "allow": allow, "type": "c", "major": 240, "minor": minor, "access": access })
}

fn deny_all() -> Value {
    json!({ "allow": false, "access": "rwm" })
}

/// What opening character device 240:MINOR says, for reading (`<`) or writing (`>`).
fn open(web: &Container, minor: i64, direction: &str) -> String {
    let script = format!(
        "test -e /tmp/c{minor} || mknod /tmp/c{minor} c 240 {minor} || exit 9
        : {direction} /tmp/c{minor}"
    );
    web.sh(&script).fails().stderr
}

#[track_caller]
fn assert_open(web: &Container, minor: i64, direction: &str, says: &str) {
    let text = open(web, minor, direction);
    let lower = says.to_lowercase();
    assert!(text.to_lowercase().contains(&lower), "240:{minor} {direction}: {text} not {says}");
}

/// All that a program needs works under the strictest rule.
#[test]
fn default_devices_can_be_opened() {
    require!(root);
    let bundle = bundle(json!([deny_all()]));
    let web = bundle.container("web");
    web.up();
    for name in ["null", "zero", "full", "random", "urandom"] {
        web.sh(&format!(": < /dev/{name} && : > /dev/null")).ok();
    }
    web.sh("exec 3<> /dev/ptmx").ok();
    assert_eq!(web.sh("echo x > /dev/full").fails().stdout, "");
}

/// GHSA-g54h-m393-cpwq: what no rule allows is denied.
#[test]
fn a_device_that_no_rule_allows_is_denied() {
    require!(root);
    let bundle = bundle(json!([deny_all(), rule(true, 7, "rwm")]));
    let web = bundle.container("web");
    web.up();
    assert_open(&web, 7, "<", ALLOWED);
    assert_open(&web, 8, "<", DENIED);
    assert_open(&web, 8, ">", DENIED);
}

/// docker's `--device-cgroup-rule='a 240:7 rwm'`: both kinds of these numbers, and no others.
#[test]
fn rule_for_all_types_may_have_numbers() {
    require!(root);
    let seven = json!({ "allow": true, "type": "a", "major": 240, "minor": 7, "access": "rwm" });
    let bundle = bundle(json!([deny_all(), seven]));
    let web = bundle.container("web");
    web.up();
    assert_open(&web, 7, "<", ALLOWED);
    assert_open(&web, 8, "<", DENIED);
}

/// T7: an empty list is no permission for everything.
#[test]
fn an_empty_list_of_rules_denies() {
    require!(root);
    let bundle = bundle(json!([]));
    let web = bundle.container("web");
    web.up();
    assert_open(&web, 7, "<", DENIED);
}

/// Neither is a config without resources.
#[test]
fn absent_resources_deny() {
    require!(root);
    let bundle = bundle(json!([]));
    bundle.edit(|config| config.remove("/linux/resources"));
    let web = bundle.container("web");
    web.up();
    assert_open(&web, 7, "<", DENIED);
}

/// Reading and writing are told apart.
#[test]
fn access_is_exact() {
    require!(root);
    let bundle = bundle(json!([deny_all(), rule(true, 7, "r"), rule(true, 8, "w")]));
    let web = bundle.container("web");
    web.up();
    assert_open(&web, 7, "<", ALLOWED);
    assert_open(&web, 7, ">", DENIED);
    assert_open(&web, 8, ">", ALLOWED);
    assert_open(&web, 8, "<", DENIED);
}

/// Rules count in their order: a later one changes what an earlier one has said.
#[test]
fn later_rules_win() {
    require!(root);
    let allow_all = json!({ "allow": true, "access": "rwm" });
    let bundle = bundle(json!([deny_all(), allow_all, rule(false, 7, "w")]));
    let web = bundle.container("web");
    web.up();
    assert_open(&web, 8, ">", ALLOWED);
    assert_open(&web, 7, "<", ALLOWED);
    assert_open(&web, 7, ">", DENIED);
}

/// A rule without a minor number is for all of them.
#[test]
fn wildcard_minor() {
    require!(root);
    let wildcard = json!({ "allow": true, "type": "c", "major": 240, "access": "rw" });
    let bundle = bundle(json!([deny_all(), wildcard]));
    let web = bundle.container("web");
    web.up();
    assert_open(&web, 7, "<", ALLOWED);
    assert_open(&web, 200, ">", ALLOWED);
}

/// A requested device is there with its mode and owner.
#[test]
fn requested_device_has_type_number_mode_and_owner() {
    require!(root);
    let bundle = bundle(json!([deny_all(), rule(true, 7, "rwm")]));
    let device = json!({ "path": "/dev/sub/mine", "type": "c", "major": 240, "minor": 7,
                         "fileMode": 0o664, "uid": 12, "gid": 34 });
    bundle.edit(|config| config.push("/linux/devices", device));
    let web = bundle.container("web");
    web.up();
    let stat = web.exec(&["stat", "-c", "%F %t:%T %a %u:%g", "/dev/sub/mine"]).ok().stdout;
    assert_eq!(stat, "character special file f0:7 664 12:34\n");
    let open = web.sh(": < /dev/sub/mine").fails().stderr;
    assert!(open.contains(ALLOWED), "{open}");
}

/// exec'd processes are under the same rules, and so is everything after the runtime has gone.
#[test]
fn rules_are_those_of_the_cgroup_not_of_the_runtime() {
    require!(root, cgroup_v1("devices"));
    let bundle = bundle(json!([deny_all(), rule(true, 7, "rw")]));
    let web = bundle.container("web");
    web.create().ok();
    let list = std::fs::read_to_string(bundle.cgroup("devices").join("devices.list")).unwrap();
    // Making any node is allowed to all containers, so `m` may be written beside it.
    assert!(list.lines().any(|line| line.starts_with("c 240:7 rw")), "{list}");
    assert!(!list.lines().any(|line| line == "a *:* rwm"), "{list}");
    let own = Process::own().cgroups()["devices"].clone();
    assert_ne!(web.init().cgroups()["devices"], own);
}
