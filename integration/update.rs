//! update: new limits for a container that is there, all of them or none.

use std::fs;
use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Bundle, Container, Output, host};

pub fn limited(resources: Value) -> Bundle {
    let bundle = Bundle::new();
    bundle.edit(|config| config.set("/linux/resources", resources));
    bundle
}

pub fn update(web: &Container, options: &[&str]) -> Output {
    web.call("update", options).run()
}

/// `update --resources - ID`, as containerd and docker call it.
pub fn update_with(bundle: &Bundle, web: &Container, resources: Value) -> Output {
    let file = bundle.dir().join("resources.json");
    fs::File::create(&file).unwrap().write_all(resources.to_string().as_bytes()).unwrap();
    let stdin = fs::File::open(&file).unwrap();
    web.call("update", &["--resources=-"]).stdin(stdin).run()
}

#[track_caller]
pub fn read(dir: &Path, file: &str) -> String {
    let path = dir.join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    text.trim().to_string()
}

/// One file of the container's cgroup: its v1 controller and name, or the v2 name.
#[track_caller]
fn limit(bundle: &Bundle, v1: (&str, &str), v2: &str) -> String {
    let (controller, file) = if host::is_v2() { (v1.0, v2) } else { v1 };
    read(&bundle.cgroup(controller), file)
}

fn pids(bundle: &Bundle) -> String {
    limit(bundle, ("pids", "pids.max"), "pids.max")
}

const MIB: u64 = 1 << 20;

/// The simplest one, in every state an update is allowed in.
#[test]
fn row89_update_of_the_number_of_processes_in_every_state() {
    require!(root, controller("pids"));
    let bundle = limited(json!({ "pids": { "limit": 50 } }));
    let web = bundle.container("web");
    web.create().ok();
    update(&web, &["--pids-limit", "40"]).ok();
    assert_eq!(pids(&bundle), "40");
    web.start().ok();
    update(&web, &["--pids-limit=30"]).ok();
    assert_eq!(pids(&bundle), "30");
    web.call("pause", &[]).run().ok();
    update(&web, &["--pids-limit=-1"]).ok();
    assert_eq!(pids(&bundle), "max");
    assert_eq!(web.status(), "paused");
    web.call("resume", &[]).run().ok();
    update(&web, &["--pids-limit=0"]).ok();
    assert_eq!(pids(&bundle), "0");
}

/// containerd and docker pipe the document, CRI-O gives `--resources -`, podman a file.
#[test]
fn row14_update_resources_from_stdin_and_from_a_file() {
    require!(root, controller("pids"));
    let bundle = limited(json!({}));
    let web = bundle.container("web");
    web.create().ok();
    let file = bundle.dir().join("update.json");
    let name = file.to_str().unwrap().to_string();
    let equals = format!("--resources={name}");
    for (number, options) in [
        ("11", &["--resources", "-"][..]),
        ("12", &["--resources=-"]),
        ("13", &["-r", "-"]),
        ("14", &["--resources", &name]),
        ("15", &[&equals]),
    ] {
        fs::write(&file, format!(r#"{{"pids":{{"limit":{number}}}}}"#)).unwrap();
        let stdin = fs::File::open(&file).unwrap();
        web.call("update", options).stdin(stdin).run().ok();
        assert_eq!(pids(&bundle), number);
    }
    // An option wins over the document.
    update(&web, &["-r", &name, "--pids-limit", "20"]).ok();
    assert_eq!(pids(&bundle), "20");
}

/// containerd ends a task's update on it.
#[test]
fn row90_update_of_a_stopped_container() {
    require!(root);
    let bundle = limited(json!({}));
    let web = bundle.container("web");
    update(&web, &["--pids-limit", "5"]).fails_with("container does not exist");
    web.up();
    web.stop();
    update(&web, &["--pids-limit", "5"]).fails_with("container not running");
}

/// Raising and lowering, in which the kernel wants another order each (v1: memory <= memory+swap).
#[test]
fn row89_update_of_memory_and_swap_up_and_down() {
    require!(root, controller("memory"));
    let bundle = limited(json!({ "memory": { "limit": 64 * MIB, "swap": 128 * MIB } }));
    let web = bundle.container("web");
    web.create().ok();
    let both = || {
        let memory = limit(&bundle, ("memory", "memory.limit_in_bytes"), "memory.max");
        let swap = limit(&bundle, ("memory", "memory.memsw.limit_in_bytes"), "memory.swap.max");
        (memory.parse::<u64>().unwrap() / MIB, swap.parse::<u64>().unwrap() / MIB)
    };
    let total = |memory: u64, swap: u64| (memory, if host::is_v2() { swap - memory } else { swap });
    assert_eq!(both(), total(64, 128));
    for (memory, swap) in [(256, 512), (32, 40), (300, 300), (40, 300), (20, 20)] {
        let (m, s) = (format!("--memory={memory}m"), format!("--memory-swap={swap}m"));
        update(&web, &[&m, &s]).ok();
        assert_eq!(both(), total(memory, swap), "{memory} {swap}");
    }
    // Only one of them: the other stays.
    update(&web, &["--memory-swap", "60m"]).ok();
    assert_eq!(both(), total(20, 60));
    update(&web, &["--memory", "30m"]).ok();
    assert_eq!(both(), total(30, 60));
    // But not below: then as much swap stays, which docker update -m 70m --memory-swap -1 does not tell of.
    update(&web, &["--memory", "70m"]).ok();
    assert_eq!(both(), total(70, 100));
    update(&web, &["--memory", "70m", "--memory-swap", "60m"])
        .fails_with("/linux/resources/memory/swap");
    assert_eq!(both(), total(70, 100));
}

#[test]
fn row89_update_of_memory_reservation_and_no_limit() {
    require!(root, controller("memory"));
    let bundle = limited(json!({ "memory": { "limit": 64 * MIB, "swap": 128 * MIB } }));
    let web = bundle.container("web");
    web.up();
    update(&web, &["--memory-reservation", "16m"]).ok();
    let soft = || limit(&bundle, ("memory", "memory.soft_limit_in_bytes"), "memory.low");
    assert_eq!(soft(), (16 * MIB).to_string());
    update(&web, &["--memory=-1"]).ok();
    let memory = limit(&bundle, ("memory", "memory.limit_in_bytes"), "memory.max");
    assert!(memory == "max" || memory.parse::<u64>().unwrap() > 1 << 60, "{memory}");
    assert_eq!(soft(), (16 * MIB).to_string());
}

/// Quota, period and burst limit each other; v1 has a file for each.
#[test]
fn row89_update_of_cpu_time_up_and_down() {
    require!(root, controller("cpu"));
    let bundle = limited(json!({ "cpu": { "shares": 512, "quota": 50_000, "period": 100_000 } }));
    let web = bundle.container("web");
    web.create().ok();
    let time = || {
        let dir = bundle.cgroup("cpu");
        if host::is_v2() {
            return read(&dir, "cpu.max");
        }
        format!("{} {}", read(&dir, "cpu.cfs_quota_us"), read(&dir, "cpu.cfs_period_us"))
    };
    for (quota, period) in [(10_000, 20_000), (400_000, 500_000), (5_000, 10_000)] {
        let (q, p) = (format!("--cpu-quota={quota}"), format!("--cpu-period={period}"));
        update(&web, &[&q, &p]).ok();
        assert_eq!(time(), format!("{quota} {period}"));
    }
    update(&web, &["--cpu-quota", "7000"]).ok();
    assert_eq!(time(), "7000 10000");
    update(&web, &["--cpu-period", "20000"]).ok();
    assert_eq!(time(), "7000 20000");
    update(&web, &["--cpu-burst", "5000"]).ok();
    assert_eq!(limit(&bundle, ("cpu", "cpu.cfs_burst_us"), "cpu.max.burst"), "5000");
    // Below the burst, which so has to go first.
    update(&web, &["--cpu-quota", "2000", "--cpu-burst", "1000"]).ok();
    assert_eq!(time(), "2000 20000");
    update(&web, &["--cpu-share", "1024"]).ok();
    assert_eq!(
        limit(&bundle, ("cpu", "cpu.shares"), "cpu.weight"),
        if host::is_v2() { "100" } else { "1024" }
    );
    update(&web, &["--cpu-idle", "1"]).ok();
    assert_eq!(limit(&bundle, ("cpu", "cpu.idle"), "cpu.idle"), "1");
    update(&web, &["--cpu-idle", "0", "--cpu-share", "2"]).ok();
    assert_eq!(limit(&bundle, ("cpu", "cpu.idle"), "cpu.idle"), "0");
}

/// A process may only be real-time where there is such time, and a new cgroup of v1 has none.
#[test]
fn row89_update_of_real_time_cpu_time() {
    require!(root, cgroup_v1("cpu"));
    let file = host::v1_dir("cpu").unwrap().join("cpu.rt_runtime_us");
    require!(path(file.to_str().unwrap()));
    let bundle = limited(json!({}));
    let web = bundle.container("web");
    web.up();
    let process = json!({
        "args": ["true"], "env": ["PATH=/bin"], "cwd": "/", "user": { "uid": 0, "gid": 0 },
        "scheduler": { "policy": "SCHED_RR", "priority": 1 }
    });
    let file = bundle.dir().join("real-time.json");
    fs::write(&file, process.to_string()).unwrap();
    let real_time = || web.call("exec", &["--process", file.to_str().unwrap()]).run();
    let times =
        || ["cpu.rt_runtime_us", "cpu.rt_period_us"].map(|file| read(&bundle.cgroup("cpu"), file));
    assert_eq!(times(), ["0", "1000000"]);
    let refused = real_time().fails_with("/process/scheduler").to_string();
    assert!(refused.contains("a cpu.rt_runtime_us above 0"), "no such hint: {refused}");
    update(&web, &["--cpu-rt-period=500000", "--cpu-rt-runtime=20000"]).ok();
    assert_eq!(times(), ["20000", "500000"]);
    real_time().ok();
    // Only one of them: the other stays.
    update(&web, &["--cpu-rt-runtime", "10000"]).ok();
    assert_eq!(times(), ["10000", "500000"]);
    update_with(&bundle, &web, json!({ "cpu": { "realtimePeriod": 400_000 } })).ok();
    assert_eq!(times(), ["10000", "400000"]);
    update(&web, &["--cpu-rt-runtime=400001"]).fails_with("/linux/resources/cpu/realtimeRuntime");
    assert_eq!(times(), ["10000", "400000"]);
}

#[test]
fn row89_update_of_cpusets() {
    require!(root, controller("cpuset"));
    let bundle = limited(json!({}));
    let web = bundle.container("web");
    web.up();
    update(&web, &["--cpuset-cpus", "0", "--cpuset-mems", "0"]).ok();
    assert_eq!(web.init().status("Cpus_allowed_list"), "0");
    assert_eq!(web.init().status("Mems_allowed_list"), "0");
    update(&web, &["--cpuset-cpus", "9999"]).fails_with("\"9999\" to cpuset.cpus");
    assert_eq!(web.init().status("Cpus_allowed_list"), "0");
}

/// What cannot be had takes the rest with it: the file, the value and the pointer are told.
#[test]
fn update_that_is_refused_changes_nothing() {
    require!(root, controller("memory"), controller("pids"), controller("cpu"));
    let before = json!({
        "memory": { "limit": 64 * MIB, "swap": 128 * MIB }, "pids": { "limit": 50 },
        "cpu": { "shares": 512, "quota": 50_000, "period": 100_000 }
    });
    let bundle = limited(before);
    let web = bundle.container("web");
    web.up();
    let files = || {
        let memory = limit(&bundle, ("memory", "memory.limit_in_bytes"), "memory.max");
        let swap = limit(&bundle, ("memory", "memory.memsw.limit_in_bytes"), "memory.swap.max");
        let cpu = limit(&bundle, ("cpu", "cpu.cfs_quota_us"), "cpu.max");
        let shares = limit(&bundle, ("cpu", "cpu.shares"), "cpu.weight");
        (memory, swap, cpu, shares, pids(&bundle))
    };
    let all = files();
    // The kernel wants less than 4194305 processes; the plan cannot know.
    let options = ["--memory=96m", "--memory-swap=200m", "--cpu-quota=20000", "--cpu-share=100"];
    let refused = update(&web, &[&options[..], &["--pids-limit=99999999"]].concat());
    refused.fails_with("/linux/resources/pids/limit: write \"99999999\" to pids.max: ");
    assert_eq!(files(), all);
    // Nor is it remembered.
    update(&web, &["--memory-reservation=16m"]).ok();
    assert_eq!(files(), all);
    let entries = fs::read_dir(bundle.root().join("web")).unwrap().flatten();
    let names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
    assert!(!names.iter().any(|name| name == ".resources.json"), "{names:?}");
}

/// All problems at once, before anything is done.
#[test]
fn update_with_mistakes_tells_all_of_them() {
    require!(root, controller("pids"));
    let bundle = limited(json!({ "pids": { "limit": 50 } }));
    let web = bundle.container("web");
    web.up();
    let wrong = json!({ "pids": { "limit": -5 }, "cpu": { "idle": 7 }, "memory": { "limit": -3 } });
    let refused = update_with(&bundle, &web, wrong).fails();
    for pointer in ["pids/limit: -5", "cpu/idle: 7", "memory/limit: -3"] {
        assert!(refused.stderr.contains(pointer), "{refused}");
    }
    update_with(&bundle, &web, json!({ "pids": { "limit": "many" } }))
        .fails_with("/linux/resources/pids/limit: invalid type");
    update_with(&bundle, &web, json!([])).fails_with("--resources: not a JSON object");
    update(&web, &["--memory", "1x"]).fails_with("--memory: \"1x\"");
    update(&web, &["--resources", "/nowhere"]).fails_with("--resources: ");
    update(&web, &["--pids-limit", "many"]).fails_with("--pids-limit: \"many\"");
    assert_eq!(pids(&bundle), "50");
}

/// A later update builds on the earlier one, not on what create read.
#[test]
fn row89_update_is_remembered() {
    require!(root, controller("cpu"));
    let bundle = limited(json!({ "cpu": { "quota": 50_000, "period": 100_000 } }));
    let web = bundle.container("web");
    web.up();
    update(&web, &["--cpu-quota", "20000"]).ok();
    update(&web, &["--cpu-period", "40000"]).ok();
    let cpu = limit(&bundle, ("cpu", "cpu.cfs_quota_us"), "cpu.max");
    assert!(cpu == "20000" || cpu == "20000 40000", "{cpu}");
    web.delete_force().ok();
    bundle.assert_clean();
}

/// docker sends every member, most of them zero or null.
#[test]
fn row89_update_with_zeros_and_nulls_changes_only_the_rest() {
    require!(root, controller("cpu"), controller("pids"), controller("memory"));
    let bundle = limited(json!({
        "cpu": { "quota": 50_000, "period": 100_000 }, "pids": { "limit": 50 },
        "memory": { "limit": 64 * MIB }
    }));
    let web = bundle.container("web");
    web.up();
    let docker = json!({
        "memory": { "limit": 0, "reservation": 0, "swap": 0 },
        "cpu": { "shares": 100, "quota": 0, "period": 0, "cpus": "", "mems": "" },
        "pids": null, "blockIO": { "weight": 0 }
    });
    update_with(&bundle, &web, docker).ok();
    let cpu = limit(&bundle, ("cpu", "cpu.cfs_quota_us"), "cpu.max");
    assert!(cpu.starts_with("50000"), "{cpu}");
    assert_eq!(pids(&bundle), "50");
    let memory = limit(&bundle, ("memory", "memory.limit_in_bytes"), "memory.max");
    assert_eq!(memory, (64 * MIB).to_string());
}

/// The kubelet's in-place changes of memory.high and the like.
#[test]
fn row91_update_of_unified_keys() {
    require!(root, cgroup_v2(), v2_controller("pids"));
    let bundle = limited(json!({ "unified": { "pids.max": "50" } }));
    let web = bundle.container("web");
    web.up();
    update_with(&bundle, &web, json!({ "unified": { "pids.max": "40" } })).ok();
    assert_eq!(pids(&bundle), "40");
    update(&web, &["--pids-limit", "30"]).ok();
    assert_eq!(pids(&bundle), "30");
    update_with(&bundle, &web, json!({ "unified": { "nothing.max": "40" } }))
        .fails_with("/linux/resources/unified/nothing.max");
}

/// The same where v2 has no other controller, as beside v1.
#[test]
fn row91_update_of_a_unified_key_of_hugetlb() {
    require!(root, v2_controller("hugetlb"));
    let key = "hugetlb.2MB.max";
    let bundle = limited(json!({ "unified": { key: "8388608" } }));
    let web = bundle.container("web");
    web.up();
    assert_eq!(read(&bundle.cgroup("hugetlb"), key), "8388608");
    update_with(&bundle, &web, json!({ "unified": { key: "4194304" } })).ok();
    assert_eq!(read(&bundle.cgroup("hugetlb"), key), "4194304");
}

/// A refused update must not be half of one: the kernel would kill to get below.
#[test]
fn row89_update_with_check_before_update_refuses_to_go_below_the_use() {
    require!(root, v2_controller("memory"));
    let bundle = limited(json!({}));
    let web = bundle.container("web");
    web.up();
    let asked = json!({ "memory": { "limit": 4096, "checkBeforeUpdate": true } });
    update_with(&bundle, &web, asked).fails_with("bytes are in use, more than 4096");
    assert_eq!(web.status(), "running");
    assert_eq!(read(&bundle.cgroup("memory"), "memory.max"), "max");
}

/// A cgroup that somebody has taken away, with the processes elsewhere.
#[test]
fn update_of_a_container_without_its_cgroup() {
    require!(root, cgroup_v2());
    let bundle = limited(json!({}));
    let web = bundle.container("web");
    web.up();
    let dir = bundle.cgroup("pids");
    let root = Path::new(host::CGROUP_ROOT).join("cgroup.procs");
    fs::write(root, web.init().0.to_string()).unwrap();
    fs::remove_dir(&dir).unwrap();
    update(&web, &["--pids-limit", "5"]).fails_with("the container has no cgroup");
    assert_eq!(web.status(), "running");
}
