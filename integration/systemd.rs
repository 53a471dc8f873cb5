//! The systemd driver with a real systemd as pid 1 (in the virtual machine of hack/vm).
//!
//! No daemon-reexec here: systemd loses the calls of that moment, also those of other tests.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::{Bundle, Call, Container, Output, eventually, host};

/// A bundle whose container is in a scope of this slice, and the scope's name.
fn bundle_in(slice: &str) -> (Bundle, String) {
    let bundle = Bundle::new();
    let path = format!("{slice}:{}:web", bundle.name());
    bundle.edit(|config| config.set("/linux/cgroupsPath", path));
    let unit = format!("{}-web.scope", bundle.name());
    (bundle, unit)
}

fn bundle() -> (Bundle, String) {
    bundle_in("system.slice")
}

fn call(container: &Container<'_>, command: &str) -> Call {
    container.call(command, &[]).global(&["--systemd-cgroup"])
}

#[track_caller]
fn up(container: &Container<'_>) -> Output {
    let output = call(container, "create").run().ok();
    container.start().ok();
    output
}

/// A unit's property, as `systemctl show` prints it.
fn property(unit: &str, name: &str) -> String {
    host::tool(&["systemctl", "show", "--value", "-p", name, unit]).1.trim().to_string()
}

#[track_caller]
fn systemctl(args: &[&str]) {
    let words = [&["systemctl"], args].concat();
    let (status, text) = host::tool(&words);
    assert!(status.success(), "{words:?}: {text}");
}

/// The scope's cgroup, with the limits of this controller.
fn cgroup(controller: &str, unit: &str) -> PathBuf {
    host::cgroup_dir(controller, &format!("/system.slice/{unit}"))
}

#[track_caller]
fn read(dir: &Path, file: &str) -> String {
    let path = dir.join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    text.trim().to_string()
}

/// podman, docker and kubelet ask for slice:prefix:name and look for the process there.
#[test]
fn row93_systemd_scope_has_its_name_its_process_and_its_properties() {
    require!(root, systemd());
    let (bundle, unit) = bundle();
    bundle.edit(|config| {
        let property = |name: &str| format!("/annotations/org.systemd.property.{name}");
        config.set(&property("KillSignal"), "37");
        config.set(&property("TimeoutStopUSec"), "uint64 10000000");
        config.set(&property("After"), "['dbus.service']");
        config.set(&property("ExecStartPre"), "'/bin/false'")
    });
    let web = bundle.container("web");
    let output = call(&web, "create").run().ok();
    assert!(output.to_string().contains("ExecStartPre: not set"), "{output}");
    let path = format!("/system.slice/{unit}");
    for (name, cgroup) in web.init().cgroups() {
        let mounted = name.is_empty() || host::v1_mounts().iter().any(|mount| mount.0 == name);
        assert!(!mounted || cgroup == path, "{name:?} {cgroup}");
    }
    for (name, value) in [
        ("ActiveState", "active"),
        ("Slice", "system.slice"),
        ("Delegate", "yes"),
        ("DefaultDependencies", "no"),
        ("CollectMode", "inactive-or-failed"),
        ("KillSignal", "37"),
        ("TimeoutStopUSec", "10s"),
        ("DevicePolicy", "strict"),
    ] {
        assert_eq!(property(&unit, name), value, "{name}");
    }
    assert!(property(&unit, "After").contains("dbus.service"));
    web.start().ok();
    let exec = web.exec(&["sleep", "0"]).ok();
    assert!(exec.stderr.is_empty(), "{exec}");
    web.stop();
    web.delete().ok();
    assert_eq!(property(&unit, "LoadState"), "not-found");
    bundle.assert_clean();
}

/// A leftover in a failed create, a living container, a foreground run, the default name.
#[test]
fn systemd_delete_force_and_run_leave_no_unit() {
    require!(root, systemd());
    let (bundle, unit) = bundle();
    let web = bundle.container("web");
    up(&web);
    call(&web, "delete").arg("--force").run().ok();
    assert_eq!(property(&unit, "LoadState"), "not-found");
    bundle.assert_clean();
    bundle.edit(|config| config.args(&["true"]));
    call(&web, "run").run().ok();
    bundle.assert_clean();
    bundle.edit(|config| config.set("/linux/cgroupsPath", ""));
    let named = bundle.container(bundle.name());
    let create = named.call("create", &[]).global(&["--cgroup-manager=systemd"]);
    create.run().ok();
    let path = format!("/system.slice/onggi-{}.scope", bundle.name());
    assert!(named.init().cgroups().values().any(|cgroup| *cgroup == path));
    named.delete_force().ok();
    bundle.assert_clean();
}

/// `a-b.slice` is in `a.slice`.
#[test]
fn systemd_slices_nest() {
    require!(root, systemd());
    let slice = format!("onggiit{}-a.slice", std::process::id());
    let (bundle, unit) = bundle_in(&slice);
    let web = bundle.container("web");
    up(&web);
    let top = format!("onggiit{}.slice", std::process::id());
    let path = format!("/{top}/{slice}/{unit}");
    assert!(web.init().cgroups().values().any(|cgroup| *cgroup == path));
    web.delete_force().ok();
    systemctl(&["stop", &top, &slice]);
}

/// A file of the v2 cgroup, what it must have, and the poke that makes systemd write it again.
const LIMITS: [(&str, &str); 9] = [
    ("memory.max", "67108864"),
    ("memory.low", "33554432"),
    ("memory.swap.max", "33554432"),
    ("memory.high", "60000000"),
    ("cpu.max", "50000 100000"),
    ("cpu.weight", "59"),
    ("pids.max", "50"),
    ("cpuset.cpus", "0"),
    ("cpuset.mems", "0"),
];

fn limited(unit_bundle: &Bundle) {
    unit_bundle.edit(|config| {
        config.set(
            "/linux/resources/memory",
            json!({
                "limit": 67108864, "reservation": 33554432, "swap": 100663296
            }),
        );
        config.set(
            "/linux/resources/cpu",
            json!({
                "shares": 512, "quota": 50000, "period": 100000, "cpus": "0", "mems": "0"
            }),
        );
        let unified = json!({ "memory.high": "60000000", "memory.oom.group": "1" });
        config.set("/linux/resources/unified", unified);
        config.set("/linux/resources/pids", json!({ "limit": 50 }))
    });
}

/// Whatever makes systemd write a unit's limits again, they are the same again.
#[test]
fn systemd_limits_survive_daemon_reload_and_set_property() {
    require!(root, systemd(), v2_controller("memory"), v2_controller("cpuset"));
    let (bundle, unit) = bundle();
    limited(&bundle);
    let web = bundle.container("web");
    up(&web);
    let dir = cgroup("memory", &unit);
    let check = |when: &str| {
        for (file, value) in LIMITS {
            let now = read(&dir, file);
            // The kernel rounds to pages.
            let near = |now: &str| {
                let numbers = (now.parse::<u64>(), value.parse::<u64>());
                matches!(numbers, (Ok(now), Ok(value)) if now <= value && value - now < 4096)
            };
            assert!(now == value || near(&now), "{file} is {now} {when}");
        }
    };
    check("after create");
    systemctl(&["daemon-reload"]);
    check("after daemon-reload");
    // Each makes systemd apply one controller anew.
    for poke in
        ["MemoryZSwapMax=1G", "CPUQuotaPeriodSec=100ms", "TasksAccounting=yes", "IOWeight=77"]
    {
        systemctl(&["set-property", "--runtime", &unit, poke]);
        check(poke);
    }
}

/// The lost-GPU complaint (NVIDIA/nvidia-container-toolkit#48): after a daemon-reload a device that
/// was allowed is not any more. And one that was not must not become so.
#[test]
fn systemd_devices_survive_daemon_reload() {
    require!(root, systemd());
    let (bundle, unit) = bundle();
    // No driver has this number: ENXIO if the rules let an open through, and EPERM if they do not.
    let rule = |access: &str| json!({ "allow": true, "type": "c", "major": 240, "minor": 1, "access": access });
    let deny = json!({ "allow": false, "access": "rwm" });
    bundle.edit(|config| {
        for set in ["bounding", "effective", "permitted"] {
            config.push(&format!("/process/capabilities/{set}"), "CAP_MKNOD".into());
        }
        config.set("/linux/resources/devices", json!([deny, rule("r"), rule("w")]))
    });
    let web = bundle.container("web");
    up(&web);
    web.sh("mknod /dev/c1 c 240 1 && mknod /dev/c2 c 240 2").ok();
    let check = |when: &str| {
        // Both accesses at once: systemd's filter wants them in one rule.
        let mine = web.sh("exec 3<>/dev/c1").fails();
        assert!(mine.stderr.contains("No such device or address"), "{when}: {mine}");
        web.sh(": > /dev/null && head -c 1 /dev/zero").ok();
        let other = web.sh("exec 3</dev/c2").fails();
        assert!(other.stderr.contains("Operation not permitted"), "{when}: {other}");
    };
    check("after create");
    assert_eq!(property(&unit, "DevicePolicy"), "strict");
    systemctl(&["daemon-reload"]);
    check("after daemon-reload");
    systemctl(&["set-property", "--runtime", &unit, "DeviceAllow=/dev/char/1:3 rwm"]);
    check("after set-property");
}

/// Everything allowed is everything to systemd, too.
#[test]
fn systemd_devices_of_a_privileged_container() {
    require!(root, systemd());
    let (bundle, unit) = bundle();
    let all: Value = json!([{ "allow": true, "access": "rwm" }]);
    bundle.edit(|config| config.set("/linux/resources/devices", all));
    let web = bundle.container("web");
    up(&web);
    assert_eq!(property(&unit, "DevicePolicy"), "auto");
    assert_eq!(property(&unit, "DeviceAllow"), "");
    systemctl(&["daemon-reload"]);
    web.sh("head -c 1 /dev/zero").ok();
}

/// `systemctl stop` is as good as any other death.
#[test]
fn systemd_unit_that_was_stopped_by_hand_is_deleted() {
    require!(root, systemd());
    let (bundle, unit) = bundle();
    // Its shell is pid 1 and does not care for SIGTERM.
    bundle.edit(|config| config.set("/annotations/org.systemd.property.TimeoutStopSec", "1"));
    let web = bundle.container("web");
    up(&web);
    systemctl(&["stop", &unit]);
    web.becomes("stopped");
    web.kill("TERM").fails_with("container not running");
    web.delete().ok();
    bundle.assert_clean();
}

/// Two containers of one name: the first is left in peace.
#[test]
fn systemd_unit_that_exists_is_refused_and_left_alone() {
    require!(root, systemd());
    let (bundle, unit) = bundle();
    let web = bundle.container("web");
    up(&web);
    let path = bundle.config()["linux"]["cgroupsPath"].clone();
    let second = bundle.another("second", |config| config.set("/linux/cgroupsPath", path));
    call(&second, "create").run().fails_with(&format!("systemd unit {unit} already exists"));
    assert_eq!(web.status(), "running");
    assert_eq!(property(&unit, "ActiveState"), "active");
    assert_eq!(bundle.state_entries(), ["web"]);
}

/// The unit was stopped by hand, and another container has taken its name.
#[test]
fn systemd_unit_of_another_container_is_not_stopped_by_delete() {
    require!(root, systemd());
    let (bundle, unit) = bundle();
    bundle.edit(|config| config.set("/annotations/org.systemd.property.TimeoutStopSec", "1"));
    let web = bundle.container("web");
    up(&web);
    systemctl(&["stop", &unit]);
    web.becomes("stopped");
    let path = bundle.config()["linux"]["cgroupsPath"].clone();
    let second = bundle.another("second", |config| config.set("/linux/cgroupsPath", path));
    call(&second, "create").run().ok();
    web.delete().ok();
    assert_eq!(property(&unit, "ActiveState"), "active");
    assert_eq!(second.status(), "created");
}

/// A limit that the kernel refuses comes after the unit has been started.
#[test]
fn systemd_unit_of_a_failed_create_is_gone() {
    require!(root, systemd(), controller("cpuset"));
    let (bundle, unit) = bundle();
    bundle.edit(|config| config.set("/linux/resources/cpu", json!({ "cpus": "4000" })));
    let web = bundle.container("web");
    call(&web, "create").run().fails_with("/linux/resources/cpu/cpus");
    assert_eq!(property(&unit, "LoadState"), "not-found");
    bundle.assert_clean();
    bundle.edit(|config| config.set("/linux/resources/cpu", json!({})).args(&["/nothing/there"]));
    call(&web, "create").run().fails_with("no such file or directory");
    assert_eq!(property(&unit, "LoadState"), "not-found");
    bundle.assert_clean();
}

/// A machine without a message bus: systemd listens itself.
#[test]
fn systemd_without_a_bus_is_asked_at_its_private_socket() {
    require!(root, systemd(), path("/run/systemd/private"), program("unshare"));
    let (bundle, unit) = bundle();
    let web = bundle.container("web");
    let script = r#"mount -t tmpfs none /run/dbus && exec "$0" "$@""#;
    let hidden = |call: Call| {
        call.through(&["unshare", "--mount", "--propagation", "slave", "sh", "-c", script])
    };
    hidden(call(&web, "create")).run().ok();
    assert_eq!(property(&unit, "ActiveState"), "active");
    web.start().ok();
    hidden(call(&web, "delete").arg("--force")).run().ok();
    assert_eq!(property(&unit, "LoadState"), "not-found");
    bundle.assert_clean();
}

/// Without a cgroup namespace the container's mount is a clone of its own directory, which is not
/// there before systemd has the process.
#[test]
fn systemd_cgroup_mount_without_a_namespace_shows_the_own_cgroup() {
    require!(root, systemd());
    let (bundle, unit) = bundle();
    bundle.edit(|config| config.share_namespace("cgroup"));
    let web = bundle.container("web");
    up(&web);
    let dir = if host::is_v2() { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/systemd" };
    let procs = web.exec(&["cat", &format!("{dir}/cgroup.procs")]).ok().stdout;
    assert_eq!(procs.lines().next(), Some("1"));
    let root = web.init().mount_at(dir).unwrap().root;
    assert!(root.ends_with(&format!("/system.slice/{unit}")), "{root}");
}

/// crun's annotations: the scope's limits are those of the container, its process is further down, and the root of
/// its cgroup namespace is the sub-cgroup.
#[test]
fn systemd_annotations_subgroup_and_delegate_cgroup() {
    require!(root, systemd(), cgroup_v2);
    let (bundle, unit) = bundle();
    bundle.edit(|config| {
        config.set("/annotations/run.oci.systemd.subgroup", "inner");
        config.set("/annotations/run.oci.delegate-cgroup", "payload");
        config.share_namespace("cgroup").push("/linux/namespaces", json!({ "type": "cgroup" }))
    });
    let web = bundle.container("web");
    up(&web);
    let below = format!("/system.slice/{unit}/inner/payload");
    assert_eq!(web.init().cgroups()[""], below);
    let own = web.sh("grep ^0:: /proc/1/cgroup").ok().stdout;
    assert_eq!(own, "0::/payload\n");
    web.call("pause", &[]).run().ok();
    web.call("resume", &[]).run().ok();
    web.remove();
    assert!(!cgroup("", &unit).exists());
    bundle.assert_clean();
}

/// pids.limit 0 is a limit; the lowest that systemd knows is 1.
#[test]
fn systemd_pids_limit_of_0_is_in_the_file() {
    require!(root, systemd(), v2_controller("pids"));
    let (bundle, unit) = bundle();
    bundle.edit(|config| config.set("/linux/resources/pids", json!({ "limit": 0 })));
    let web = bundle.container("web");
    call(&web, "create").run().ok();
    assert_eq!(read(&cgroup("pids", &unit), "pids.max"), "0");
    assert_eq!(property(&unit, "TasksMax"), "1");
}

/// crun leaves 10 directories and a unit here.
#[test]
fn systemd_unit_goes_with_an_init_that_was_killed_for_its_memory() {
    require!(root, systemd(), v2_controller("memory"));
    let (bundle, unit) = bundle();
    bundle.edit(|config| {
        config.set("/linux/resources/memory", json!({ "limit": 8 << 20, "swap": 8 << 20 }));
        config.sh("head -c 60000000 /dev/zero | tail > /dev/null; sleep 1000")
    });
    let web = bundle.container("web");
    up(&web);
    let dir = cgroup("memory", &unit);
    eventually("somebody is killed", || {
        (!read(&dir, "memory.events").contains("oom_kill 0")).then_some(())
    });
    // The rest lives on: delegated, so systemd does not stop the unit.
    assert_eq!(web.status(), "running");
    web.delete_force().ok();
    assert_eq!(property(&unit, "LoadState"), "not-found");
}

/// An update is told to systemd as well, or its next reload would take it back; delete takes what
/// systemd has written down of it.
#[test]
fn systemd_update_survives_daemon_reload_and_leaves_nothing() {
    require!(root, systemd(), v2_controller("memory"));
    let (bundle, unit) = bundle();
    limited(&bundle);
    let web = bundle.container("web");
    up(&web);
    let dir = cgroup("memory", &unit);
    let resources = json!({
        "memory": { "limit": 134217728, "swap": 134217728 }, "cpu": { "quota": 12345 },
        "pids": { "limit": 70 },
    });
    let file = bundle.dir().join("resources.json");
    fs::write(&file, resources.to_string()).unwrap();
    web.call("update", &["--resources", file.to_str().unwrap()]).run().ok();
    let check = |when: &str| {
        assert_eq!(read(&dir, "memory.max"), "134217728", "{when}");
        assert_eq!(read(&dir, "memory.swap.max"), "0", "{when}");
        assert_eq!(read(&dir, "pids.max"), "70", "{when}");
        assert_eq!(read(&dir, "cpu.weight"), "59", "{when}");
    };
    check("after update");
    assert_eq!(read(&dir, "cpu.max"), "12345 100000");
    assert_eq!(read(&dir, "memory.oom.group"), "1");
    systemctl(&["daemon-reload"]);
    systemctl(&["set-property", "--runtime", &unit, "MemoryZSwapMax=1G"]);
    check("after daemon-reload");
    assert_eq!(property(&unit, "MemoryMax"), "134217728");
    assert_eq!(property(&unit, "CPUQuotaPerSecUSec"), "130ms");
    // One that the kernel refuses changes nothing, for systemd neither.
    fs::write(&file, json!({ "pids": { "limit": 5 }, "cpu": { "cpus": "4000" } }).to_string())
        .unwrap();
    web.call("update", &["--resources", file.to_str().unwrap()]).run().fails();
    check("after an update that was refused");
    assert_eq!(property(&unit, "TasksMax"), "70");
    // Nor what systemd rounds: neither of an update that is refused, nor of another limit of the controller.
    fs::write(&file, json!({ "cpu": { "quota": 12345 } }).to_string()).unwrap();
    web.call("update", &["--resources", file.to_str().unwrap()]).run().ok();
    fs::write(&file, json!({ "cpu": { "quota": 20000, "cpus": "4000" } }).to_string()).unwrap();
    web.call("update", &["--resources", file.to_str().unwrap()]).run().fails();
    assert_eq!(read(&dir, "cpu.max"), "12345 100000");
    fs::write(&file, json!({ "cpu": { "shares": 1024 } }).to_string()).unwrap();
    web.call("update", &["--resources", file.to_str().unwrap()]).run().ok();
    assert_eq!(read(&dir, "cpu.max"), "12345 100000");
    web.delete_force().ok();
    bundle.assert_clean();
    let control = format!("/run/systemd/system.control/{unit}.d");
    assert!(!fs::exists(control).unwrap());
}
