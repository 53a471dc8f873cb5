//! exec: every member of the process object, and where in the container's cgroup it lands.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::process::{five_sets, masks};
use crate::support::{Bundle, Container, Process, eventually, host};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const CPU_1: &str = "/sys/devices/system/cpu/cpu1";

/// A process object that sleeps, with more members.
fn object(more: Value) -> Value {
    let user = json!({ "uid": 0, "gid": 0 });
    let mut object = json!({ "args": ["sleep", "999"], "env": [PATH], "cwd": "/", "user": user });
    for (key, value) in more.as_object().unwrap() {
        object[key] = value.clone();
    }
    object
}

/// `exec --detach` with options: the process, as the pid file names it.
fn detached(bundle: &Bundle, web: &Container, options: &[&str], args: &[&str]) -> Process {
    let file = bundle.dir().join("exec.pid");
    let mut all = vec!["--detach", "--pid-file", file.to_str().unwrap()];
    all.extend(options);
    web.call("exec", &all).args(args).run().ok();
    Process::of_pid_file(&file)
}

/// `exec --detach --process` of an object.
fn with_object(bundle: &Bundle, web: &Container, object: &Value) -> Process {
    let path = bundle.dir().join("process.json");
    fs::write(&path, object.to_string()).unwrap();
    detached(bundle, web, &["--process", path.to_str().unwrap()], &[])
}

fn io_priority(process: Process) -> i64 {
    unsafe { libc::syscall(libc::SYS_ioprio_get, 1, process.0) }
}

/// Policy, nice value and more are of the object, not of the container.
#[test]
fn exec_scheduler_io_priority_umask_and_oom_score_of_the_process_object() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let process = with_object(
        &bundle,
        &web,
        &object(json!({
            "scheduler": { "policy": "SCHED_BATCH", "nice": 7 },
            "ioPriority": { "class": "IOPRIO_CLASS_BE", "priority": 6 },
            "oomScoreAdj": 321,
            "user": { "uid": 0, "gid": 0, "umask": 0o27 },
        })),
    );
    // Fields 19 and 41 of stat: nice, policy (3 is SCHED_BATCH).
    assert_eq!((process.stat(19), process.stat(41)), (Some("7".into()), Some("3".into())));
    assert_eq!(io_priority(process), 2 << 13 | 6);
    assert_eq!(process.read("oom_score_adj").trim(), "321");
    assert_eq!(process.status("Umask"), "0027");
    assert_eq!(web.init().stat(19).as_deref(), Some("0"));
}

/// Without noNewPrivileges the filter is loaded with privileges that must be gone afterwards: the sets are exactly
/// the object's, after what execve makes of them for a user (see `process`).
#[test]
fn exec_capabilities_with_a_filter_and_without_no_new_privileges() {
    require!(root);
    let filter = json!({ "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO" }] });
    let bundle = Bundle::with(|config| {
        config.set("/linux/seccomp", filter).set("/process/noNewPrivileges", false)
    });
    let web = bundle.container("web");
    web.up();
    let sets = five_sets(&mut bundle.config())["process"]["capabilities"].clone();
    let user = json!({ "uid": 1000, "gid": 0 });
    let more = json!({ "capabilities": sets, "user": user, "noNewPrivileges": false });
    let process = with_object(&bundle, &web, &object(more));
    eventually("it runs sleep", || (process.cmdline() == ["sleep", "999"]).then_some(()));
    assert_eq!(masks(process), [0b10_1011, 0b10_0000, 0b10_1000, 0b10_0000, 0b10_0000]);
    assert_eq!((process.status("NoNewPrivs"), process.status("Seccomp")), ("0".into(), "2".into()));
    // And what the options say, on top of the config.
    let process = detached(&bundle, &web, &["--cap", "CAP_CHOWN"], &["sleep", "999"]);
    eventually("it runs sleep", || (process.cmdline() == ["sleep", "999"]).then_some(()));
    let all = 1 | 1 << 5 | 1 << 10 | 1 << 29;
    assert_eq!(masks(process), [all, all, 0, all, 0]);
    assert_eq!((process.status("NoNewPrivs"), process.status("Seccomp")), ("0".into(), "2".into()));
}

/// Without a process file the config's own scheduling holds for exec, too.
#[test]
fn exec_scheduler_and_io_priority_of_the_config() {
    require!(root);
    let bundle = Bundle::with(|config| {
        config.set("/process/scheduler", json!({ "policy": "SCHED_IDLE" }));
        config.set("/process/ioPriority", json!({ "class": "IOPRIO_CLASS_IDLE", "priority": 0 }))
    });
    let web = bundle.container("web");
    web.up();
    let process = detached(&bundle, &web, &[], &["sleep", "999"]);
    assert_eq!(process.stat(41).as_deref(), Some("5"));
    assert_eq!(io_priority(process), 3 << 13);
}

/// config.md: `final` is where the process runs once it is in the container's cgroup.
#[test]
fn exec_cpu_affinity_final() {
    require!(root, path(CPU_1));
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let affinity = json!({ "execCPUAffinity": { "initial": "0", "final": "1" } });
    let process = with_object(&bundle, &web, &object(affinity));
    assert_eq!(process.status("Cpus_allowed_list"), "1");
    let only = json!({ "execCPUAffinity": { "final": "0-1" } });
    assert_eq!(with_object(&bundle, &web, &object(only)).status("Cpus_allowed_list"), "0-1");
}

/// config.md: without `final` the runtime does not change it again after `initial`.
#[test]
fn exec_cpu_affinity_initial_is_inherited_and_the_runtime_returns() {
    require!(root, path(CPU_1));
    let bundle = Bundle::with(|config| {
        config.set("/process/execCPUAffinity", json!({ "initial": "1", "final": "" }))
    });
    let web = bundle.container("web");
    web.up();
    // It is for exec only.
    assert_ne!(web.init().status("Cpus_allowed_list"), "1");
    let exec = web.call("exec", &[]).args(&["sh", "-c", "echo up; exec sleep 999"]).spawn();
    eventually("it runs", || (exec.stdout_now() == "up\n").then_some(()));
    let own = Process::own().status("Cpus_allowed_list");
    assert_eq!(exec.process().status("Cpus_allowed_list"), own);
    let sleeps = |process: &Process| process.cmdline() == ["sleep", "999"];
    let process = eventually("it sleeps", || exec.process().children().into_iter().find(sleeps));
    // Linux forgets it when the process enters another cpuset, until 6.2.
    if host::kernel() >= (6, 2) {
        assert_eq!(process.status("Cpus_allowed_list"), "1");
    }
    process.kill(libc::SIGKILL).unwrap();
    exec.wait().exits(128 + 9);
}

/// A systemd unit's `CPUAffinity`, for one, is of the engine and not of its containers (runc 1.3.1, crun 1.9.2).
#[test]
fn cpus_of_the_caller_are_not_those_of_the_container() {
    require!(root, program("taskset"), path(CPU_1));
    let bundle = Bundle::new();
    let list = |process: &Process| process.status("Cpus_allowed_list");
    let free = bundle.container("free");
    free.up();
    let all = list(&free.init());
    assert_ne!(all, "0");
    free.delete_force().ok();
    let web = bundle.container("web");
    web.call("create", &[]).through(&["taskset", "-c", "0"]).run().ok();
    web.start().ok();
    assert_eq!(list(&web.init()), all);
    let exec = web.call("exec", &[]).args(&["grep", "Cpus_allowed_list", "/proc/self/status"]);
    let found = exec.through(&["taskset", "-c", "0"]).run().ok().stdout;
    assert_eq!(found.split_whitespace().last(), Some(all.as_str()));
}

#[test]
fn exec_cpu_affinity_that_is_no_list_is_refused_with_its_pointer() {
    require!(root);
    let bundle = Bundle::with(|config| {
        config.set("/process/execCPUAffinity", json!({ "initial": "3-1", "final": "0-999999" }))
    });
    let pointers = ["/process/execCPUAffinity/initial", "/process/execCPUAffinity/final"];
    crate::support::refusal::refused_at(&bundle, &pointers);
}

/// Makes a sub-cgroup of the container in the hierarchy with this controller.
fn sub_cgroup(bundle: &Bundle, controller: &str, name: &str) -> PathBuf {
    let dir = bundle.cgroup(controller).join(name);
    fs::create_dir(&dir).unwrap();
    dir
}

/// runc's form for v2: one path, which has to be there.
#[test]
fn exec_cgroup_places_the_process_in_a_sub_cgroup_v2() {
    require!(root, cgroup_v2);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let dir = sub_cgroup(&bundle, "", "probes");
    let process = detached(&bundle, &web, &["--cgroup", "/probes"], &["sleep", "999"]);
    assert_eq!(host::cgroup_procs(&dir), [process.0]);
    let top = detached(&bundle, &web, &["--cgroup", "/"], &["sleep", "999"]);
    assert_eq!(top.cgroups(), web.init().cgroups());
    let missing = web.call("exec", &["--cgroup", "none"]).args(&["true"]).run().exits(255);
    missing.fails_with("--cgroup").fails_with("none: no such file or directory");
    let v1_form = web.call("exec", &["--cgroup", "cpu:probes"]).args(&["true"]).run().exits(255);
    v1_form.fails_with("no cgroup v1 hierarchy of the container has the controller \"cpu\"");
}

/// runc's form for v1: a path for each controller; the rest stays where the container is.
#[test]
fn exec_cgroup_places_the_process_in_a_sub_cgroup_of_each_controller_v1() {
    require!(root, cgroup_v1("pids"), cgroup_v1("freezer"));
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let pids = sub_cgroup(&bundle, "pids", "a");
    let freezer = sub_cgroup(&bundle, "freezer", "b");
    let options = ["--cgroup", "pids:a", "--cgroup", "freezer:/b"];
    let process = detached(&bundle, &web, &options, &["sleep", "999"]);
    assert_eq!(host::cgroup_procs(&pids), [process.0]);
    assert_eq!(host::cgroup_procs(&freezer), [process.0]);
    let (inner, outer) = (process.cgroups(), web.init().cgroups());
    let changed: Vec<&String> =
        inner.iter().filter(|(key, path)| outer[*key] != **path).map(|(key, _)| key).collect();
    assert_eq!(changed.len(), 2, "{inner:?} {outer:?}");
    let unknown = web.call("exec", &["--cgroup", "nothing:a"]).args(&["true"]).run().exits(255);
    unknown.fails_with("has the controller \"nothing\"");
}

/// T23: no way out of the container's own cgroup.
#[test]
fn t23_exec_cgroup_never_leads_out_of_the_containers() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    for path in ["..", "../..", "a/../..", "/../x", "pids:../x", "./a", "a//b"] {
        let output = web.call("exec", &["--cgroup", path]).args(&["true"]).run().exits(255);
        output.fails_with("--cgroup: ");
    }
}

/// Freezes or thaws the container from outside, as an engine on its own would.
fn freeze(bundle: &Bundle, on: bool) {
    let (dir, file) = match host::is_v2() {
        true => (bundle.cgroup(""), "cgroup.freeze"),
        false => (bundle.cgroup("freezer"), "freezer.state"),
    };
    let value = match (host::is_v2(), on) {
        (true, on) => {
            if on {
                "1"
            } else {
                "0"
            }
        }
        (false, on) => {
            if on {
                "FROZEN"
            } else {
                "THAWED"
            }
        }
    };
    fs::write(dir.join(file), value).unwrap();
}

/// Without the option it would hang until somebody resumes the container; with it that is asked for.
#[test]
fn row68_exec_in_a_paused_container_is_refused_unless_paused_is_ignored() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    freeze(&bundle, true);
    web.becomes("paused");
    web.exec(&["true"])
        .exits(255)
        .fails_with("cannot exec in a paused container (use --ignore-paused to override)");
    let exec = web.call("exec", &["--ignore-paused"]).args(&["echo", "hi"]).spawn();
    let child = eventually("it is cloned", || exec.process().children().into_iter().next());
    let frozen = |pid: i32| {
        let dir = if host::is_v2() { bundle.cgroup("") } else { bundle.cgroup("freezer") };
        host::cgroup_procs(&dir).contains(&pid)
    };
    eventually("it is in the frozen cgroup", || frozen(child.0).then_some(()));
    assert!(!exec.has_ended());
    freeze(&bundle, false);
    assert_eq!(exec.wait().ok().stdout, "hi\n");
}
