//! Corner cases of cgroup v2: threaded cgroups, cgroups with processes that pass controllers on, kernels
//! without cgroup.kill, directories that are busy, subtrees that were delegated in part.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::support::need::v2_controller;
use crate::support::{Bundle, Call, Output, eventually, host, poll, reaper};

/// A cgroup of the test's own, to be removed by the test's end; containers go below it.
struct Above {
    dir: PathBuf,
}

impl Above {
    fn new(bundle: &Bundle) -> Above {
        let name = format!("{}-above", bundle.name());
        let dir = host::cgroup_dir("", &format!("/{name}"));
        fs::create_dir(&dir).unwrap();
        bundle.edit(|config| config.set("/linux/cgroupsPath", format!("/{name}/web")));
        Above { dir }
    }

    fn put(&self, child: &str, file: &str, text: &str) {
        let path = self.dir.join(child).join(file);
        fs::write(&path, text).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    }
}

impl Drop for Above {
    fn drop(&mut self) {
        let _ = fs::write(self.dir.join("cgroup.kill"), "1");
        poll(Duration::from_secs(10), || {
            for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
                let _ = fs::remove_dir(entry.path());
            }
            (fs::remove_dir(&self.dir).is_ok() || !self.dir.exists()).then_some(())
        });
    }
}

#[track_caller]
fn read(dir: &Path, file: &str) -> String {
    let path = dir.join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    text.trim().to_string()
}

/// With errors of a system call on this name below an open cgroup, and what it then did there.
fn with_fault(call: Call, bundle: &Bundle, what: &str, name: &str) -> (Output, String) {
    let trace = bundle.dir().join("trace");
    let calls = format!("trace={}", what.split(':').next().unwrap());
    let what = format!("inject={what}");
    let file = trace.to_str().unwrap();
    let strace = ["strace", "-qq", "-o", file, "-P", name, "-e", &calls, "-e", &what];
    let output = call.through(&strace).run();
    let trace = fs::read_to_string(trace).unwrap();
    assert!(trace.contains("(INJECTED)"), "{trace}");
    (output, trace)
}

/// All commands, in the only kind of cgroup that a threaded parent lets processes into; its cgroup.procs
/// cannot be read, and it has no cgroup.kill.
#[test]
fn v2_container_below_a_threaded_cgroup_is_threaded_and_every_command_works() {
    require!(root, cgroup_v2);
    let bundle = Bundle::new();
    let above = Above::new(&bundle);
    // This makes the one above a threaded domain.
    fs::create_dir(above.dir.join("other")).unwrap();
    above.put("other", "cgroup.type", "threaded");
    let web = bundle.container("web");
    web.up();
    assert_eq!(read(&above.dir.join("web"), "cgroup.type"), "threaded");
    let pids = || web.call("ps", &["--format", "json"]).run().ok().json();
    assert_eq!(pids(), json!([web.init().0]));
    web.call("exec", &["--detach"]).args(&["sleep", "1000"]).run().ok();
    assert_eq!(pids().as_array().unwrap().len(), 2);
    web.call("pause", &[]).run().ok();
    assert_eq!(web.status(), "paused");
    web.call("resume", &[]).run().ok();
    web.call("events", &["--stats"]).run().ok();
    bundle.onggi(&["stats"]).run().ok();
    web.call("pause", &[]).run().ok();
    web.call("kill", &["--all"]).args(&["KILL"]).run().ok();
    web.becomes("stopped");
    web.delete().ok();
    assert!(!above.dir.join("web").exists());
    web.up();
    web.delete_force().ok();
    drop(above);
    bundle.assert_clean();
}

/// Memory is not divided among threads, so it cannot be limited there: an error, not a lesser container.
#[test]
fn v2_limit_of_memory_below_a_threaded_cgroup_is_refused() {
    require!(root, v2_controller("memory"));
    let bundle = Bundle::with(|config| config.set("/linux/resources/memory/limit", 64 << 20));
    let above = Above::new(&bundle);
    fs::create_dir(above.dir.join("other")).unwrap();
    above.put("other", "cgroup.type", "threaded");
    let web = bundle.container("web");
    web.create().fails_with("/linux/resources/memory/limit");
    assert!(!above.dir.join("web").exists());
    drop(above);
    bundle.assert_clean();
}

/// A runtime in a container, in a unit, in a pod without a leaf: who has processes passes nothing on.
#[test]
fn v2_cgroup_with_processes_passes_no_controller_on_and_limits_say_why() {
    require!(root, v2_controller("hugetlb"));
    let bundle = Bundle::new();
    let above = Above::new(&bundle);
    let child = reaper::spawn(Command::new("sleep").arg("1000")).unwrap();
    above.put("", "cgroup.procs", &child.pid.to_string());
    let web = bundle.container("web");
    web.up();
    // Passing on what knows threads would have made it, and the container, threaded.
    assert_eq!(read(&above.dir, "cgroup.type"), "domain");
    assert_eq!(read(&above.dir.join("web"), "cgroup.type"), "domain");
    assert_eq!(host::cgroup_procs(&above.dir.join("web")), [web.init().0]);
    web.delete_force().ok();
    let pages = json!([{ "pageSize": "2MB", "limit": 2 << 20 }]);
    bundle.edit(|config| config.set("/linux/resources/hugepageLimits", pages));
    if v2_controller("pids").met {
        bundle.edit(|config| config.set("/linux/resources/pids/limit", 50));
    }
    let refused = web.create().fails_with("device or resource busy (EBUSY)");
    assert!(refused.stderr.contains("/linux/resources/"), "{refused}");
    assert_eq!(read(&above.dir, "cgroup.type"), "domain");
    assert!(!above.dir.join("web").exists());
    drop(above);
    bundle.assert_clean();
}

/// Pages that are mapped without a reservation count, too: both files, as with runc.
#[test]
fn v2_hugepage_limits_are_those_of_faults_and_of_reservations() {
    require!(root, v2_controller("hugetlb"));
    let pages = json!([{ "pageSize": "2MB", "limit": 4 << 20 }]);
    let bundle = Bundle::with(|config| config.set("/linux/resources/hugepageLimits", pages));
    let web = bundle.container("web");
    web.create().ok();
    for file in ["hugetlb.2MB.max", "hugetlb.2MB.rsvd.max"] {
        assert_eq!(read(&bundle.cgroup("hugetlb"), file), "4194304", "{file}");
    }
}

/// A limit that knows threads can be had there: by a threaded container.
#[test]
fn v2_limit_of_processes_beside_processes_makes_the_container_threaded() {
    require!(root, v2_controller("pids"));
    let bundle = Bundle::with(|config| config.set("/linux/resources/pids/limit", 50));
    let above = Above::new(&bundle);
    let child = reaper::spawn(Command::new("sleep").arg("1000")).unwrap();
    above.put("", "cgroup.procs", &child.pid.to_string());
    let web = bundle.container("web");
    web.up();
    assert_eq!(read(&above.dir.join("web"), "cgroup.type"), "threaded");
    assert_eq!(read(&above.dir.join("web"), "pids.max"), "50");
    web.delete_force().ok();
    drop(above);
    bundle.assert_clean();
}

/// Linux before 5.14: everybody is stopped, killed and thawed, until nobody is left.
#[test]
fn v2_kernel_without_cgroup_kill_is_made_up_for_by_the_freezer() {
    require!(root, cgroup_v2, program("strace"));
    let bundle = Bundle::sh("while :; do sleep 1000 & sleep 0.01; done");
    // The end of init would end the rest.
    bundle.edit(|config| config.share_namespace("pid"));
    let web = bundle.container("web");
    for verb in [&["kill", "--all", "web", "KILL"][..], &["delete", "--force", "web"]] {
        web.up();
        eventually("it forks", || (host::cgroup_procs(&bundle.cgroup("")).len() > 3).then_some(()));
        with_fault(bundle.onggi(verb), &bundle, "openat:error=ENOENT", "cgroup.kill").0.ok();
        if verb[0] == "kill" {
            web.becomes("stopped");
            eventually("all have ended", || {
                host::cgroup_procs(&bundle.cgroup("")).is_empty().then_some(())
            });
            web.delete().ok();
        }
        bundle.assert_clean();
    }
}

/// The last process is still on its way out: rmdir is tried again when the kernel has told of its end.
#[test]
fn v2_cgroup_that_is_busy_for_a_moment_is_waited_for() {
    require!(root, cgroup_v2, program("strace"));
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let call = bundle.onggi(&["delete", "--force", "web"]);
    let name = bundle.name();
    let (output, trace) = with_fault(call, &bundle, "unlinkat:error=EBUSY:when=1..3", name);
    output.ok();
    assert_eq!(trace.matches("(INJECTED)").count(), 3, "{trace}");
    bundle.assert_clean();
}

/// A process that is in the way and not the container's to kill: an error that names it, and the state
/// stays, so that delete can be tried again.
#[test]
fn v2_delete_that_cannot_remove_the_cgroup_says_so_and_can_be_tried_again() {
    require!(root, cgroup_v2, program("strace"));
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    web.stop();
    let dir = bundle.cgroup("");
    let call = bundle.onggi(&["delete", "web"]);
    let output = with_fault(call, &bundle, "unlinkat:error=EBUSY", bundle.name()).0.fails();
    assert!(output.stderr.contains("device or resource busy (EBUSY)"), "{output}");
    assert!(output.stderr.contains(dir.to_str().unwrap()), "{output}");
    assert_eq!(web.status(), "stopped");
    web.delete().ok();
    bundle.assert_clean();
}

/// Of a container that has ended; cgroup_faults has one that lives on elsewhere.
#[test]
fn v2_cgroup_removed_behind_our_back_is_no_obstacle_to_delete() {
    require!(root, cgroup_v2);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    web.call("kill", &[]).args(&["KILL"]).run().ok();
    web.becomes("stopped");
    let dir = bundle.cgroup("");
    eventually("it can be removed", || fs::remove_dir(&dir).is_ok().then_some(()));
    web.exec(&["true"]).exits(255).fails_with("stopped container");
    web.call("kill", &["--all"]).args(&["KILL"]).run().ok();
    web.call("update", &["--pids-limit", "5"]).run().fails_with("container not running");
    web.delete().ok();
    bundle.assert_clean();
}
