//! cgroups that are not as they should be: frozen, in use, gone, read-only, refused by the kernel.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::json;

use crate::support::{Bundle, Process, eventually, host, reaper};

/// A directory of the container's name in each hierarchy, before create.
fn make_directories(bundle: &Bundle) -> Vec<PathBuf> {
    let dirs = host::hierarchies().into_iter().map(|root| root.join(bundle.name()));
    dirs.inspect(|dir| fs::create_dir(dir).unwrap()).collect()
}

fn freeze(bundle: &Bundle, on: bool) {
    let (file, value) = match (host::is_v2(), on) {
        (true, true) => ("cgroup.freeze", "1"),
        (true, false) => ("cgroup.freeze", "0"),
        (false, true) => ("freezer.state", "FROZEN"),
        (false, false) => ("freezer.state", "THAWED"),
    };
    fs::write(bundle.cgroup("freezer").join(file), value).unwrap();
}

/// Its init would never begin.
#[test]
fn create_into_a_frozen_cgroup_is_refused_and_leaves_it_as_it_is() {
    require!(root);
    let bundle = Bundle::new();
    let dirs = make_directories(&bundle);
    freeze(&bundle, true);
    bundle.container("web").create().fails_with("is frozen");
    assert!(bundle.state_entries().is_empty());
    freeze(&bundle, false);
    assert!(dirs.iter().all(|dir| dir.is_dir()), "somebody else's cgroup was removed");
    // Empty and thawed it is taken.
    let web = bundle.container("web");
    web.up();
    web.remove();
}

/// A limit that the kernel refuses: the file, the value and the pointer are told, nothing is left.
#[test]
fn create_with_a_limit_the_kernel_refuses_leaves_nothing() {
    require!(root, controller("pids"), controller("cpuset"));
    for (pointer, value, text) in [
        (
            "pids/limit",
            json!(99_999_999),
            "/linux/resources/pids/limit: write \"99999999\" to pids.max",
        ),
        ("cpu/cpus", json!("9999"), "/linux/resources/cpu/cpus: write \"9999\" to cpuset.cpus"),
    ] {
        let bundle = Bundle::new();
        bundle.edit(|config| config.set(&format!("/linux/resources/{pointer}"), value));
        bundle.container("web").create().fails_with(text);
        bundle.assert_clean();
    }
}

/// With the processes elsewhere; every command still finds its way.
#[test]
fn container_whose_cgroups_were_removed_is_still_handled() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let init = web.init();
    for root in host::hierarchies() {
        fs::write(root.join("cgroup.procs"), init.0.to_string()).unwrap();
        let dir = root.join(bundle.name());
        eventually("the cgroup is gone", || {
            (fs::remove_dir(&dir).is_ok() || !dir.exists()).then_some(())
        });
    }
    assert_eq!(web.status(), "running");
    let pids = web.call("ps", &["--format", "json"]).run().ok().json();
    assert_eq!(pids, json!([init.0]));
    web.call("pause", &[]).run().fails_with("no cgroup");
    web.call("resume", &[]).run().fails_with("container not paused");
    web.call("events", &["--stats"]).run().fails_with("no cgroup");
    bundle.onggi(&["stats"]).run().ok();
    bundle.onggi(&["gc"]).run().ok();
    web.call("kill", &["--all"]).args(&["KILL"]).run().ok();
    web.becomes("stopped");
    web.remove();
}

/// As in a container that is not privileged.
#[test]
fn create_on_read_only_cgroups_says_so_and_leaves_nothing() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    let script = "for m in $(awk '$3 ~ /^cgroup/ { print $2 }' /proc/mounts); do
        mountpoint -q $m || continue; # hidden below another
        mount -o remount,ro,bind $m || exit 9; done; exec \"$0\" \"$@\"";
    let through = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script];
    web.call("create", &[]).through(&through).run().fails_with("read-only file system");
    bundle.assert_clean();
}

/// Somebody from outside has moved a process into a sub-cgroup: it is the container's now, and goes.
#[test]
fn delete_force_kills_processes_in_sub_cgroups() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let sub = bundle.cgroup("pids").join("sub/sub");
    fs::create_dir_all(&sub).unwrap();
    let child = reaper::spawn(Command::new("sleep").arg("1000")).unwrap();
    fs::write(sub.join("cgroup.procs"), child.pid.to_string()).unwrap();
    let pids = web.call("ps", &["--format", "json"]).run().ok().json();
    assert!(pids.as_array().unwrap().contains(&json!(child.pid)), "{pids}");
    web.remove();
    assert!(Process(child.pid).is_exiting());
}

/// What has left the pid namespace of the container, or never was in it (exec), ends with its cgroup.
#[test]
fn delete_of_a_stopped_container_takes_what_is_left_in_its_cgroup_with_it() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    web.stop();
    let child = reaper::spawn(Command::new("sleep").arg("1000")).unwrap();
    fs::write(bundle.cgroup("pids").join("cgroup.procs"), child.pid.to_string()).unwrap();
    web.delete().ok();
    bundle.assert_clean();
    assert!(Process(child.pid).is_exiting());
}
