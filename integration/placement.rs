//! Where and how the processes run: scheduling, CPUs, memory nodes, resctrl groups.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::need::Need;
use crate::support::refusal::refused_at;
use crate::support::{Bundle, Call, Config, Container, Process, eventually, host};

/// Field of /proc/PID/stat: 41 is the policy, 19 the nice value, 40 the real-time priority (proc(5)).
#[track_caller]
fn stat(process: Process, field: usize) -> String {
    process.stat(field).unwrap()
}

fn scheduled(scheduler: Value) -> Bundle {
    Bundle::with(|config| config.set("/process/scheduler", scheduler))
}

#[test]
fn scheduler_deadline_with_its_times_and_flags() {
    require!(root, capability("CAP_SYS_NICE", 23));
    let bundle = scheduled(json!({
        "policy": "SCHED_DEADLINE", "runtime": 1000000, "deadline": 10000000, "period": 20000000,
        "flags": ["SCHED_FLAG_RESET_ON_FORK"]
    }));
    let web = bundle.container("web");
    web.up();
    let init = web.init();
    assert_eq!(stat(init, 41), "6");
    let sched = init.read("sched");
    let value = |name: &str| {
        let line = sched.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split(':').nth(1).unwrap_or_default().trim().to_string()
    };
    assert_eq!((value("dl.runtime").is_empty(), value("policy").as_str()), (false, "6"), "{sched}");
    // Without the flag it could not have forked at all.
    web.exec(&["true"]).ok();
}

#[test]
fn scheduler_fifo_rr_and_idle_have_their_priorities() {
    require!(root, capability("CAP_SYS_NICE", 23));
    for (scheduler, policy, priority) in [
        (json!({ "policy": "SCHED_FIFO", "priority": 3 }), "1", "3"),
        (json!({ "policy": "SCHED_RR", "priority": 99 }), "2", "99"),
        (json!({ "policy": "SCHED_IDLE" }), "5", "0"),
    ] {
        let bundle = scheduled(scheduler);
        let web = bundle.container("web");
        match web.create() {
            // A v1 cpu controller with RT_GROUP_SCHED gives a cgroup no real-time share of its own.
            output if output.stderr.contains("/process/scheduler") => continue,
            output => drop(output.ok()),
        }
        assert_eq!((stat(web.init(), 41), stat(web.init(), 40)), (policy.into(), priority.into()));
    }
}

/// `struct sched_attr`, of the size that has the clamps.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    deadline: [u64; 3],
    clamps: [u32; 2],
}

/// Sets the upper clamp of this thread, which its children inherit; false where the kernel has none.
fn clamp_at_most(value: u32) -> bool {
    // KEEP_POLICY, KEEP_PARAMS, UTIL_CLAMP_MAX.
    let attributes = Attributes { size: 56, flags: 0x58, clamps: [0, value], ..Default::default() };
    let done = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &attributes, 0) } == 0;
    let errno = std::io::Error::last_os_error().raw_os_error();
    assert!(done || errno == Some(libc::EOPNOTSUPP), "{errno:?}");
    done
}

fn clamps(process: Process) -> [u32; 2] {
    let mut attributes = Attributes::default();
    let call = libc::SYS_sched_getattr;
    assert_eq!(unsafe { libc::syscall(call, process.0, &raw mut attributes, 56, 0) }, 0);
    attributes.clamps
}

/// The spec has the flags and no values: they ask for the system's own clamps, whatever the caller's are.
#[test]
fn scheduler_utilization_clamps_are_the_systems_own() {
    require!(root);
    let has_clamps = clamp_at_most(512);
    let flags = ["SCHED_FLAG_UTIL_CLAMP_MIN", "SCHED_FLAG_UTIL_CLAMP_MAX"];
    for (flags, expected) in [(&flags[..], [0, 1024]), (&flags[..1], [0, 512]), (&[], [0, 512])] {
        let bundle = scheduled(json!({ "policy": "SCHED_OTHER", "flags": flags }));
        let web = bundle.container("web");
        if has_clamps || flags.is_empty() {
            web.up();
            let expected = if has_clamps { expected } else { [0, 0] };
            assert_eq!(clamps(web.init()), expected, "{flags:?}");
        } else {
            let output = web.create().fails_with("/process/scheduler");
            assert!(output.stderr.contains("(EOPNOTSUPP)"), "{output}");
            assert_eq!(output.log()[0]["code"], "E_SCHEDULER", "{output}");
            bundle.assert_clean();
        }
    }
    assert!(!has_clamps || clamp_at_most(1024));
}

#[test]
fn scheduler_that_the_kernel_would_refuse_is_refused_with_its_pointer() {
    require!(root);
    for (scheduler, pointer) in [
        (json!({ "policy": "SCHED_OTHER", "priority": 1 }), "/process/scheduler/priority"),
        (json!({ "policy": "SCHED_FIFO" }), "/process/scheduler/priority"),
        (json!({ "policy": "SCHED_RR", "priority": 100 }), "/process/scheduler/priority"),
        (json!({ "policy": "SCHED_BATCH", "runtime": 5000 }), "/process/scheduler"),
        (json!({ "policy": "SCHED_DEADLINE" }), "/process/scheduler"),
        (
            json!({ "policy": "SCHED_DEADLINE", "runtime": 9000, "deadline": 8000 }),
            "/process/scheduler",
        ),
        (json!({ "policy": "SCHED_OTHER", "nice": 20 }), "/process/scheduler/nice"),
        (json!({ "policy": "SCHED_NEW" }), "/process/scheduler/policy"),
    ] {
        refused_at(&scheduled(scheduler), &[pointer]);
    }
}

#[test]
fn exec_cpu_affinity_is_checked_at_create() {
    require!(root);
    let bundle = Bundle::with(|config| config.set("/process/execCPUAffinity/initial", "2-0"));
    refused_at(&bundle, &["/process/execCPUAffinity/initial"]);
    bundle.edit(|config| config.set("/process/execCPUAffinity/initial", "all"));
    refused_at(&bundle, &["/process/execCPUAffinity/initial"]);
}

/// The policy of a process' memory, as /proc/PID/numa_maps shows it for its stack.
#[track_caller]
fn policy(process: Process) -> String {
    eventually("it has been executed", || (process.status("Name") == "sleep").then_some(()));
    let maps = process.read("numa_maps");
    let line = maps.lines().find(|line| line.contains(" stack")).unwrap_or_default();
    line.split(' ').nth(1).unwrap_or_default().to_string()
}

#[test]
fn memory_policy_modes_and_flags() {
    require!(root, path("/proc/self/numa_maps"));
    for (spec, expected) in [
        (json!({ "mode": "MPOL_BIND", "nodes": "0" }), "bind:0"),
        (
            json!({ "mode": "MPOL_BIND", "nodes": "0-0", "flags": ["MPOL_F_STATIC_NODES"] }),
            "bind=static:0",
        ),
        (json!({ "mode": "MPOL_INTERLEAVE", "nodes": "0" }), "interleave:0"),
        (json!({ "mode": "MPOL_PREFERRED", "nodes": "0" }), "prefer:0"),
        (json!({ "mode": "MPOL_PREFERRED", "nodes": "" }), "local"),
        (json!({ "mode": "MPOL_LOCAL" }), "local"),
        (json!({ "mode": "MPOL_DEFAULT", "nodes": "" }), "default"),
    ] {
        let bundle = Bundle::with(|config| config.set("/linux/memoryPolicy", spec.clone()));
        let web = bundle.container("web");
        web.up();
        assert_eq!(policy(web.init()), expected, "{spec}");
    }
}

#[test]
fn memory_policy_is_that_of_executed_processes_too() {
    require!(root, path("/proc/self/numa_maps"));
    let bundle = Bundle::with(|config| {
        config.set("/linux/memoryPolicy", json!({ "mode": "MPOL_BIND", "nodes": "0" }))
    });
    let web = bundle.container("web");
    web.up();
    let maps = web.exec(&["cat", "/proc/self/numa_maps"]).ok().stdout;
    assert!(maps.lines().any(|line| line.contains(" bind:0 stack")), "{maps}");
}

#[test]
fn memory_policy_refused_with_its_pointer() {
    require!(root);
    let base = "/linux/memoryPolicy";
    for (spec, leaf) in [
        (json!({ "mode": "MPOL_BIND" }), "/nodes"),
        (json!({ "mode": "MPOL_LOCAL", "nodes": "0" }), "/nodes"),
        (json!({ "mode": "MPOL_DEFAULT", "nodes": "0" }), "/nodes"),
        (json!({ "mode": "MPOL_BIND", "nodes": "1-0" }), "/nodes"),
        (json!({ "mode": "MPOL_BIND", "nodes": "x" }), "/nodes"),
        (json!({ "mode": "MPOL_NEW", "nodes": "0" }), "/mode"),
        (json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_X"] }), "/flags"),
        (
            json!({ "mode": "MPOL_BIND", "nodes": "0",
                    "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"] }),
            "/flags",
        ),
        (
            json!({ "mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_NUMA_BALANCING"] }),
            "/flags",
        ),
        (json!({ "mode": "MPOL_LOCAL", "flags": ["MPOL_F_STATIC_NODES"] }), "/flags"),
    ] {
        let bundle = Bundle::with(|config| config.set(base, spec));
        refused_at(&bundle, &[&format!("{base}{leaf}")]);
    }
    // A node that the machine lacks is for the kernel to refuse.
    let spec = json!({ "mode": "MPOL_BIND", "nodes": "900" });
    let bundle = Bundle::with(|config| config.set(base, spec));
    refused_at(&bundle, &[base]);
}

/// Runs the call where mountinfo tells of a resctrl at `root`, by a file that lies over the runtime's own
/// in a mount namespace of its own. No CPU of the machine needs to know of resctrl.
fn with_resctrl(call: Call, bundle: &Bundle, root: &Path) -> Call {
    let forged = bundle.dir().join("mountinfo");
    let line = format!("9999 1 0:999 / {} rw - resctrl resctrl rw", root.display());
    let script = format!(
        "{{ cat /proc/self/mountinfo; echo '{line}'; }} > {forged} && \
         mount --bind {forged} /proc/$$/mountinfo && exec \"$0\" \"$@\"",
        forged = forged.display()
    );
    call.through(&["unshare", "--mount", "--propagation", "private", "sh", "-c", &script])
}

fn rdt(config: &mut Config, spec: Value) -> &mut Config {
    config.set("/linux/intelRdt", spec)
}

/// Plain directories in place of resctrl, with a group as the kernel would have made it.
fn fake_resctrl(bundle: &Bundle) -> PathBuf {
    let root = bundle.dir().join("resctrl");
    fs::create_dir_all(root.join("gold/mon_groups")).unwrap();
    fs::write(root.join("gold/schemata"), "    L3:0=00ff;1=00ff\n    MB:0= 50;1=100\n").unwrap();
    fs::write(root.join("gold/tasks"), "").unwrap();
    root
}

#[track_caller]
fn tasks(group: &Path) -> String {
    fs::read_to_string(group.join("tasks")).unwrap_or_default().trim().to_string()
}

fn create_with(web: &Container<'_>, bundle: &Bundle, root: &Path) -> crate::support::Output {
    with_resctrl(web.call("create", &[]), bundle, root).run()
}

#[test]
fn intel_rdt_without_resctrl_is_an_error() {
    require!(root);
    if Path::new("/sys/fs/resctrl/schemata").exists() {
        return Need { fact: "no resctrl".into(), met: false }.skip("intel_rdt_without_resctrl");
    }
    refused_at(&Bundle::with(|config| rdt(config, json!({}))), &["/linux/intelRdt"]);
}

#[test]
fn intel_rdt_group_that_exists_is_compared_entered_and_kept() {
    require!(root, program("unshare"));
    let spec =
        json!({ "closID": "gold", "l3CacheSchema": "L3:0=ff;1=FF", "memBwSchema": "MB:1=100" });
    let bundle = Bundle::with(|config| rdt(config, spec));
    let root = fake_resctrl(&bundle);
    let web = bundle.container("web");
    create_with(&web, &bundle, &root).ok();
    assert_eq!(tasks(&root.join("gold")), web.init().0.to_string());
    // What the group has is not written again.
    assert!(fs::read_to_string(root.join("gold/schemata")).unwrap().starts_with("    L3:0=00ff"));
    web.start().ok();
    fs::write(root.join("gold/tasks"), "").unwrap();
    let detached = bundle.dir().join("pid");
    web.call("exec", &["-d", "--pid-file", detached.to_str().unwrap()])
        .args(&["sleep", "1000"])
        .run()
        .ok();
    assert_eq!(tasks(&root.join("gold")), fs::read_to_string(detached).unwrap(), "exec");
    web.remove();
    assert!(root.join("gold").is_dir());
    for schema in ["L3:0=f", "L3:7=ff", "MB:0=50;1=50"] {
        bundle.edit(|config| rdt(config, json!({ "closID": "gold", "schemata": [schema] })));
        create_with(&web, &bundle, &root).fails_with("/linux/intelRdt/closID: ");
        bundle.assert_clean();
    }
}

#[test]
fn intel_rdt_new_group_gets_its_schemata() {
    require!(root, program("unshare"));
    for (spec, expected) in [
        (
            // Lines of the wrong kind in l3CacheSchema give way to memBwSchema (config-linux.md).
            json!({ "l3CacheSchema": "L3:0=f\nMB:0=10\nL2:0=3", "memBwSchema": "MB:0=20" }),
            "L3:0=f\nL2:0=3\nMB:0=20\n",
        ),
        (json!({ "l3CacheSchema": "L3:0=f" }), "L3:0=f\n"),
        (json!({ "memBwSchema": "MB:0=20" }), "MB:0=20\n"),
        (json!({ "schemata": ["L3:0=f", "L2:0=1"] }), "L3:0=f\nL2:0=1\n"),
    ] {
        let mut spec = spec.clone();
        spec["closID"] = json!("silver");
        let bundle = Bundle::with(|config| rdt(config, spec));
        let root = fake_resctrl(&bundle);
        let web = bundle.container("web");
        create_with(&web, &bundle, &root).ok();
        let group = root.join("silver");
        assert_eq!(fs::read_to_string(group.join("schemata")).unwrap(), expected);
        assert_eq!(tasks(&group), web.init().0.to_string());
        // Others may be in it by now: it has a name of theirs.
        web.remove();
        assert!(group.is_dir());
    }
}

#[test]
fn intel_rdt_monitoring_has_a_group_of_its_own_until_delete() {
    require!(root, program("unshare"));
    let bundle =
        Bundle::with(|config| rdt(config, json!({ "closID": "gold", "enableMonitoring": true })));
    let root = fake_resctrl(&bundle);
    let web = bundle.container("web");
    create_with(&web, &bundle, &root).ok();
    let (group, monitor) = (root.join("gold"), root.join("gold/mon_groups/web"));
    let pid = web.init().0.to_string();
    assert_eq!((tasks(&group), tasks(&monitor)), (pid.clone(), pid));
    // The kernel's own files go with their directory.
    fs::remove_file(monitor.join("tasks")).unwrap();
    web.remove();
    assert!(group.is_dir() && !monitor.exists());
    // A monitoring group that cannot be made is an error, and nothing stays.
    fs::remove_dir(root.join("gold/mon_groups")).unwrap();
    create_with(&web, &bundle, &root).fails_with("/linux/intelRdt: ");
    bundle.assert_clean();
}

/// runc's `--l3-cache-schema` and `--mem-bw-schema`: all of an update or nothing.
#[test]
fn row89_update_of_schemata() {
    require!(root, program("unshare"), controller("pids"));
    let bundle = Bundle::with(|config| rdt(config, json!({ "closID": "gold" })));
    let root = fake_resctrl(&bundle);
    let web = bundle.container("web");
    create_with(&web, &bundle, &root).ok();
    let schemata = || fs::read_to_string(root.join("gold/schemata")).unwrap();
    let before = schemata();
    let cache = ["--l3-cache-schema", "L3:0=0f;1=0f", "--mem-bw-schema", "MB:0=30;1=30"];
    let refused = [&cache[..], &["--pids-limit", "99999999"]].concat();
    web.call("update", &refused).run().fails_with("/linux/resources/pids/limit");
    assert_eq!(schemata(), before);
    web.call("update", &["--mem-bw-schema", "L3:0=1"]).run().fails_with("memBwSchema");
    assert_eq!(schemata(), before);
    web.call("update", &cache).run().ok();
    assert!(schemata().starts_with("L3:0=0f;1=0f\nMB:0=30;1=30\n"), "{}", schemata());
    web.delete_force().ok();
    let plain = Bundle::new();
    let web = plain.container("web");
    web.create().ok();
    web.call("update", &cache)
        .run()
        .fails_with("/linux/intelRdt: the container has no resctrl group");
}

/// A cgroup directory stands in: like resctrl's its directories are born with a `tasks` file, and go with it.
#[test]
fn intel_rdt_group_named_after_the_container_is_made_and_removed() {
    require!(root, program("unshare"), any_cgroup_v1);
    let bundle = Bundle::with(|config| rdt(config, json!({})));
    let root = host::v1_mounts()[0].1.join(bundle.name());
    fs::create_dir(&root).unwrap();
    let web = bundle.container("web");
    let create = |web: &Container<'_>| {
        let call = web.call("create", &[]).global(&["--cgroup-manager", "disabled"]);
        with_resctrl(call, &bundle, &root).run()
    };
    create(&web).ok();
    assert_eq!(tasks(&root.join("web")), web.init().0.to_string());
    web.start().ok();
    let own = web.exec(&["cat", "/proc/self/cgroup"]).ok().stdout;
    assert!(own.contains(&format!("/{}/web", bundle.name())), "exec is not in the group: {own}");
    web.delete_force().ok();
    assert!(!root.join("web").exists());
    // A create that fails takes its group away.
    bundle.edit(|config| config.args(&["/no/such/program"]));
    create(&web).fails_with("/no/such/program");
    assert!(!root.join("web").exists());
    // One that is there and not ours stays.
    fs::create_dir(root.join("web")).unwrap();
    bundle.edit(|config| config.args(&["sleep", "1000"]));
    create(&web).ok();
    web.delete_force().ok();
    assert!(root.join("web").exists());
    fs::remove_dir(root.join("web")).unwrap();
    fs::remove_dir(&root).unwrap();
}

#[test]
fn intel_rdt_refused_with_its_pointer() {
    require!(root, program("unshare"));
    let bundle = Bundle::new();
    let root = fake_resctrl(&bundle);
    for (spec, pointer) in [
        (json!({ "closID": "../x" }), "/linux/intelRdt/closID"),
        (json!({ "closID": "mon_groups" }), "/linux/intelRdt/closID"),
        (json!({ "closID": "missing" }), "/linux/intelRdt/closID"),
        (json!({ "memBwSchema": "L3:0=f" }), "/linux/intelRdt/memBwSchema"),
        (json!({ "memBwSchema": "MB:0=1\nMB:0=2" }), "/linux/intelRdt/memBwSchema"),
        (json!({ "schemata": ["L3:0=f\nL2:0=1"] }), "/linux/intelRdt/schemata/0"),
    ] {
        bundle.edit(|config| rdt(config, spec));
        create_with(&bundle.container("web"), &bundle, &root).fails_with(&format!("{pointer}: "));
        bundle.assert_clean();
    }
    assert!(!root.join("web").exists() && !root.join("missing").exists());
}

/// config-linux.md: `/` is the class of everybody else, which is never removed.
#[test]
fn intel_rdt_closid_of_the_root_group() {
    require!(root, program("unshare"));
    let bundle = Bundle::with(|config| rdt(config, json!({ "closID": "/" })));
    let root = fake_resctrl(&bundle);
    fs::write(root.join("schemata"), "    L3:0=ff\n").unwrap();
    fs::write(root.join("tasks"), "").unwrap();
    let web = bundle.container("web");
    create_with(&web, &bundle, &root).ok();
    assert_eq!(tasks(&root), web.init().0.to_string());
    web.remove();
    assert!(root.join("gold").is_dir() && !root.join("web").exists());
}
