//! cgroups: where the processes are, which limits hold, which devices can be opened, and what
//! delete takes away.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::support::need::controller;
use crate::support::raw::syscall_program;
use crate::support::{Bundle, Process, eventually, host};

/// A bundle with a part of `linux.resources`.
fn limited(kind: &str, limits: serde_json::Value, script: &str) -> Bundle {
    let bundle = Bundle::sh(script);
    bundle.edit(|config| config.set(&format!("/linux/resources/{kind}"), limits));
    bundle
}

#[track_caller]
fn read(dir: &Path, file: &str) -> String {
    let path = dir.join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    text.trim().to_string()
}

/// The cgroup directories of a bundle, one per hierarchy that the runtime has used.
fn directories(bundle: &Bundle) -> Vec<PathBuf> {
    let path = bundle.config()["linux"]["cgroupsPath"].as_str().unwrap().to_string();
    let below = path.trim_start_matches('/').to_string();
    let roots = host::hierarchies().into_iter().map(|root| root.join(&below));
    roots.filter(|dir| dir.is_dir()).collect()
}

/// containerd and conmon open memory.events or memory.oom_control as soon as create returns.
#[test]
fn row34_init_is_in_its_cgroup_in_every_hierarchy_when_create_returns() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.create().ok();
    let cgroups = web.init().cgroups();
    let path = format!("/{}", bundle.name());
    let mut names: Vec<String> = host::v1_mounts().into_iter().map(|mount| mount.0).collect();
    if host::is_v2() {
        names.push(String::new());
    }
    for name in names {
        assert_eq!(cgroups[&name], path, "controllers {name:?} of {cgroups:?}");
    }
    assert_tells_of_oom(&bundle);
}

/// What is told of the container's memory can be read, and that nobody was killed for want of it.
#[track_caller]
fn assert_tells_of_oom(bundle: &Bundle) {
    // Without the controller, v2 has only a file that tells of the end of the processes.
    let (file, line) = match (host::is_v2(), controller("memory").met) {
        (true, true) => ("memory.events", "oom_kill 0"),
        (true, false) => ("cgroup.events", "populated "),
        (false, _) => ("memory.oom_control", "oom_kill 0"),
    };
    let text = read(&bundle.cgroup("memory"), file);
    assert!(text.lines().any(|found| found.starts_with(line)), "{file}: {text}");
}

/// On a hybrid host systemd counts by the v2 tree beside the v1 hierarchies.
#[test]
fn row34_init_is_in_its_cgroup_in_the_unified_tree_of_a_hybrid_host() {
    require!(root, any_cgroup_v1(), path("/sys/fs/cgroup/unified/cgroup.procs"));
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.create().ok();
    assert_eq!(web.init().cgroups()[""], format!("/{}", bundle.name()));
}

/// What the container forks is in there, too.
#[test]
fn row34_children_are_in_the_cgroup() {
    require!(root);
    let bundle = Bundle::sh("sleep 1001 & sleep 1002; true");
    let web = bundle.container("web");
    web.up();
    let init = web.init();
    let children =
        eventually("two children", || Some(init.children()).filter(|children| children.len() == 2));
    for child in children {
        assert_eq!(child.cgroups(), init.cgroups());
    }
}

/// buildkit, containerd and conmon read the events of a container that has already ended.
#[test]
fn row92_cgroup_is_kept_after_the_end_of_init_until_delete() {
    require!(root);
    let bundle = Bundle::with(|config| config.args(&["true"]));
    let web = bundle.container("web");
    web.create().ok();
    let before = directories(&bundle);
    assert!(!before.is_empty());
    web.start().ok();
    web.becomes("stopped");
    assert_eq!(directories(&bundle), before);
    assert_tells_of_oom(&bundle);
    web.delete().ok();
    assert!(directories(&bundle).is_empty());
}

/// buildkit opens /sys/fs/cgroup/<cgroupsPath> literally.
#[test]
fn row94_cgroups_path_is_literal_below_the_root_of_the_hierarchy() {
    require!(root);
    let bundle = Bundle::new();
    let path = format!("/{}/two/three", bundle.name());
    bundle.edit(|config| config.set("/linux/cgroupsPath", path.as_str()));
    let web = bundle.container("web");
    web.create().ok();
    let init = web.init();
    assert!(host::cgroup_procs(&bundle.cgroup("memory")).contains(&init.0));
    assert!(bundle.cgroup("memory").ends_with(path.trim_start_matches('/')));
    web.delete_force().ok();
    host::clean(bundle.name());
}

/// Only the leaf is ours: the parents belong to whoever made or shares them.
#[test]
fn row84_delete_removes_the_leaf_and_keeps_the_parents() {
    require!(root);
    let bundle = Bundle::new();
    let path = format!("/{}/two/three", bundle.name());
    bundle.edit(|config| config.set("/linux/cgroupsPath", path.as_str()));
    let web = bundle.container("web");
    web.up();
    let leaves = directories(&bundle);
    web.delete_force().ok();
    for leaf in &leaves {
        assert!(!leaf.exists(), "{leaf:?}");
        assert!(leaf.parent().unwrap().is_dir(), "{leaf:?}");
    }
    host::clean(bundle.name());
}

/// A container with its own systemd leaves sub-cgroups behind; they go with the leaf.
#[test]
fn row84_delete_removes_sub_cgroups() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    for dir in directories(&bundle) {
        fs::create_dir_all(dir.join("sub/sub")).unwrap();
    }
    web.stop();
    web.delete().ok();
    bundle.assert_clean();
}

/// A path that leads out of the hierarchy's own tree must not be followed.
#[test]
fn row94_cgroups_path_with_dot_dot_is_refused() {
    require!(root);
    let bundle = Bundle::new();
    let path = format!("/{0}/../{0}-elsewhere", bundle.name());
    bundle.edit(|config| config.set("/linux/cgroupsPath", path));
    let web = bundle.container("web");
    let output = web.create().fails_with("/linux/cgroupsPath");
    // By its letters, before anything is made; openat2 would not follow it either.
    assert!(output.stderr.contains("has the component \"..\""), "{output}");
    bundle.assert_clean();
}

/// Two containers in one cgroup: killing one would kill the other.
#[test]
fn create_into_a_cgroup_with_processes_is_refused() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let cgroup = bundle.config()["linux"]["cgroupsPath"].clone();
    let second = bundle.another("second", |config| config.set("/linux/cgroupsPath", cgroup));
    second.create().fails();
    assert_eq!(web.status(), "running");
    assert!(host::cgroup_procs(&bundle.cgroup("memory")).contains(&web.init().0));
}

/// The limit is in the kernel, and it kills.
#[test]
fn memory_limit_v1() {
    require!(root, cgroup_v1("memory"));
    let limits = json!({ "limit": 20 << 20, "reservation": 10 << 20 });
    let bundle = limited("memory", limits, "head -c 60000000 /dev/zero | tail > /dev/null");
    let web = bundle.container("web");
    web.create().ok();
    let dir = bundle.cgroup("memory");
    assert_eq!(read(&dir, "memory.limit_in_bytes"), (20 << 20).to_string());
    assert_eq!(read(&dir, "memory.soft_limit_in_bytes"), (10 << 20).to_string());
    assert!(dir.join("cgroup.procs").is_file());
    web.start().ok();
    web.becomes("stopped");
    assert_ne!(read(&dir, "memory.failcnt"), "0");
    assert!(read(&dir, "memory.oom_control").contains("oom_kill 1"), "nobody was killed");
}

/// The same on v2.
#[test]
fn memory_limit_v2() {
    require!(root, v2_controller("memory"));
    let limits = json!({ "limit": 20 << 20, "reservation": 10 << 20, "swap": 20 << 20 });
    let bundle = limited("memory", limits, "head -c 60000000 /dev/zero | tail > /dev/null");
    let web = bundle.container("web");
    web.create().ok();
    let dir = bundle.cgroup("memory");
    assert_eq!(read(&dir, "memory.max"), (20 << 20).to_string());
    assert_eq!(read(&dir, "memory.low"), (10 << 20).to_string());
    web.start().ok();
    web.becomes("stopped");
    assert!(!read(&dir, "memory.events").contains("oom_kill 0"), "nobody was killed");
}

/// What the runtime itself needs while the limit already counts: a program of one page starts within
/// what crun takes.
#[test]
fn lowest_working_memory_limit_is_188_kib() {
    require!(root, controller("memory"));
    let limit = json!({ "limit": 188 << 10 });
    let bundle = limited("memory", limit, "");
    bundle.edit(|config| config.args(&["/call"]));
    syscall_program(&bundle.rootfs().join("call"), libc::SYS_getpid, [0; 3]);
    bundle.container("web").run().ok();
}

/// shares, quota and period as given; cpus as far as the process itself sees them.
#[test]
fn cpu_limits_v1() {
    require!(root, cgroup_v1("cpu"), cgroup_v1("cpuset"));
    let limits = json!({ "shares": 512, "quota": 50000, "period": 100000, "cpus": "0" });
    let bundle = limited("cpu", limits, "sleep 1000");
    let web = bundle.container("web");
    web.create().ok();
    let dir = bundle.cgroup("cpu");
    assert_eq!(read(&dir, "cpu.shares"), "512");
    assert_eq!(read(&dir, "cpu.cfs_quota_us"), "50000");
    assert_eq!(read(&dir, "cpu.cfs_period_us"), "100000");
    assert_eq!(web.init().status("Cpus_allowed_list"), "0");
}

/// The same on v2: one file for both numbers, and a weight for the shares.
#[test]
fn cpu_limits_v2() {
    require!(root, v2_controller("cpu"), v2_controller("cpuset"));
    let limits = json!({ "shares": 512, "quota": 50000, "period": 100000, "cpus": "0" });
    let bundle = limited("cpu", limits, "sleep 1000");
    let web = bundle.container("web");
    web.create().ok();
    let dir = bundle.cgroup("cpu");
    assert_eq!(read(&dir, "cpu.max"), "50000 100000");
    let weight: u64 = read(&dir, "cpu.weight").parse().unwrap();
    assert!((10..100).contains(&weight), "{weight} is not below the default of 100");
    assert_eq!(web.init().status("Cpus_allowed_list"), "0");
}

/// A fork bomb ends at the limit, and the container lives on.
fn pids_limit() {
    let script = "for i in 1 2 3 4 5 6 7 8 9; do sleep 1000 & echo $i; done; echo all";
    let bundle = limited("pids", json!({ "limit": 5 }), script);
    let web = bundle.container("web");
    let created = web.up();
    let dir = bundle.cgroup("pids");
    assert_eq!(read(&dir, "pids.max"), "5");
    eventually("a fork fails", || created.stderr_now().contains("can't fork").then_some(()));
    assert!(!created.stdout_now().contains("all"), "{}", created.stdout_now());
    assert_ne!(read(&dir, "pids.events"), "max 0");
}

/// On v1.
#[test]
fn pids_limit_v1() {
    require!(root, cgroup_v1("pids"));
    pids_limit();
}

/// On v2.
#[test]
fn pids_limit_v2() {
    require!(root, v2_controller("pids"));
    pids_limit();
}

/// Limits hold for exec'd processes, which land in the same cgroup.
#[test]
fn pids_limit_counts_exec() {
    require!(root, cgroup_v1("pids"));
    let bundle = limited("pids", json!({ "limit": 1 }), "exec sleep 1000");
    let web = bundle.container("web");
    web.up();
    let output = web.sh("sleep 1 & echo forked").fails();
    assert!(!output.stdout.contains("forked"), "{output}");
    assert_ne!(read(&bundle.cgroup("pids"), "pids.events"), "max 0");
}

/// A new cgroup namespace has the container's cgroup as its root.
#[test]
fn cgroup_namespace_is_rooted_at_the_containers_cgroup() {
    require!(root);
    let bundle = Bundle::sh("cat /proc/self/cgroup");
    bundle.edit(|config| {
        config.share_namespace("cgroup").push("/linux/namespaces", json!({ "type": "cgroup" }))
    });
    let text = bundle.container("web").run().ok().stdout;
    let own = Process::own().cgroups();
    for line in text.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next().unwrap(), parts.next().unwrap());
        let mounted = host::v1_mounts().iter().any(|(names, _)| names == controllers);
        if mounted || (host::is_v2() && controllers.is_empty()) {
            assert_eq!(path, "/", "{line} (ours is {:?})", own[controllers]);
        }
    }
}

/// The cgroup mount shows the container's own cgroup and no more, and cannot be written.
#[test]
fn cgroup_mount_shows_only_the_own_cgroup_and_is_read_only() {
    require!(root);
    let dir = if host::is_v2() { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/memory" };
    let bundle = Bundle::with(|config| {
        config.share_namespace("cgroup").push("/linux/namespaces", json!({ "type": "cgroup" }))
    });
    let web = bundle.container("web");
    web.up();
    let procs = web.exec(&["cat", &format!("{dir}/cgroup.procs")]).ok().stdout;
    assert_eq!(procs.lines().next(), Some("1"));
    // mountinfo is relative to the cgroup namespace of its reader: ours.
    assert_eq!(web.init().mount_at(dir).unwrap().root, format!("/{}", bundle.name()));
    let write = web.sh(&format!("mkdir {dir}/sub")).fails();
    assert!(write.stderr.contains("Read-only file system"), "{write}");
}
