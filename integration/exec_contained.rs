//! Contained exec: a process tree in a cgroup of its own, which ends with its first process, at a
//! deadline, or with the caller.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::support::{Bundle, Container, Output, Process, eventually, host};

/// Starts processes that leave their parent and its session and ignore every signal they can, then
/// goes on as `what`.
fn probe(what: &str) -> String {
    let ignore = "trap '' TERM INT HUP USR1 QUIT";
    let stay = format!("{ignore}; echo up >>/tmp/up; exec sleep 777");
    format!(
        "{ignore}; (setsid sh -c \"{stay}\" & setsid sh -c \"({stay}) &\" &) ; \
         while test \"$(grep -c up /tmp/up 2>/dev/null)\" != 2; do sleep 0.02; done; {what}"
    )
}

/// Every process of the container but its init, as the runtime lists them.
fn others(web: &Container) -> Vec<i64> {
    let pids = web.call("ps", &["--format", "json"]).run().ok().json();
    let init = i64::from(web.init().0);
    let pids = pids.as_array().unwrap().iter().map(|pid| pid.as_i64().unwrap());
    pids.filter(|pid| *pid != init).collect()
}

/// The cgroups below the container's, in any hierarchy.
fn leaves(bundle: &Bundle) -> Vec<PathBuf> {
    let below = |dir: PathBuf| -> Vec<PathBuf> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.filter(|entry| entry.file_type().unwrap().is_dir()).map(|e| e.path()).collect()
    };
    let config = bundle.config();
    let cgroup = config["linux"]["cgroupsPath"].as_str().unwrap();
    host::cgroup_dirs(cgroup).into_iter().flat_map(below).collect()
}

#[track_caller]
fn nothing_left(bundle: &Bundle, web: &Container) {
    assert_eq!(others(web), Vec::<i64>::new());
    assert_eq!(leaves(bundle), Vec::<PathBuf>::new());
}

fn up(bundle: &Bundle) -> Container<'_> {
    let web = bundle.container("web");
    web.up();
    web
}

/// The complaint of every cluster: probes that time out leave processes, which pile up.
#[test]
fn exec_timeout_leaves_no_process_of_a_probe_that_double_forks_and_ignores_signals() {
    require!(root);
    let bundle = Bundle::new();
    let web = up(&bundle);
    let exec = web.call("exec", &["--timeout", "1500ms"]).args(&["sh", "-c", &probe("sleep 777")]);
    let output = exec.run().exits(124);
    assert!(bundle.rootfs().join("tmp/up").exists(), "the probe has not come up: {output}");
    let text = "timed out after 1.5s, and was killed with all it started";
    assert!(output.stderr.contains(text), "{output}");
    assert_eq!(output.log()[0]["code"], "E_EXEC_TIMEOUT", "{output}");
    nothing_left(&bundle, &web);
    assert_eq!(web.status(), "running");
}

/// What ends in time is not touched, and its code is its own.
#[test]
fn exec_timeout_that_is_not_reached_gives_the_code_of_the_process() {
    require!(root);
    let bundle = Bundle::new();
    let web = up(&bundle);
    let run = |script: &str| -> Output {
        web.call("exec", &["--timeout", "1h"]).args(&["sh", "-c", script]).run()
    };
    assert_eq!(run("echo hi").ok().stdout, "hi\n");
    run("exit 7").exits(7);
    run("kill -KILL $$").exits(128 + 9);
    nothing_left(&bundle, &web);
}

/// With --contain what a process leaves ends with it; without, as with runc, it lives on.
#[test]
fn exec_contain_ends_what_the_process_leaves_behind() {
    require!(root);
    let bundle = Bundle::new();
    let web = up(&bundle);
    let exec = |options: &[&str]| {
        let _ = fs::remove_file(bundle.rootfs().join("tmp/up"));
        web.call("exec", options).args(&["sh", "-c", &probe("exit 3")]).run().exits(3);
    };
    exec(&["--contain"]);
    nothing_left(&bundle, &web);
    exec(&[]);
    assert_eq!(others(&web).len(), 2);
    assert_eq!(leaves(&bundle), Vec::<PathBuf>::new());
}

/// Limits and accounting stay with the container: its cgroup is above, and has no more controllers.
#[test]
fn contained_process_is_in_a_leaf_of_the_containers_cgroup() {
    require!(root);
    let bundle = Bundle::new();
    let web = up(&bundle);
    let script = "echo up; exec sleep 777";
    let exec = web.call("exec", &["--contain"]).args(&["sh", "-c", script]).spawn();
    eventually("it runs", || (exec.stdout_now() == "up\n").then_some(()));
    let [leaf] = <[PathBuf; 1]>::try_from(leaves(&bundle)).unwrap();
    let pids = host::cgroup_procs(&leaf);
    let [pid] = <[i32; 1]>::try_from(pids).unwrap();
    eventually("it is the program", || (Process(pid).cmdline() == ["sleep", "777"]).then_some(()));
    if let Ok(controllers) = fs::read_to_string(leaf.join("cgroup.controllers")) {
        assert_eq!(controllers.trim(), "");
    }
    let (own, init) = (Process(pid).cgroups(), web.init().cgroups());
    let elsewhere = own.iter().filter(|(key, path)| init[*key] != **path).count();
    assert_eq!(elsewhere, 1, "{own:?} {init:?}");
    web.kill("KILL").ok();
    exec.wait().exits(128 + 9);
    assert_eq!(leaves(&bundle), Vec::<PathBuf>::new());
}

/// The usual caller is killed without warning; a shell stands for it.
#[test]
fn exec_die_with_parent_ends_the_tree_when_the_caller_is_killed() {
    require!(root);
    let bundle = Bundle::new();
    let web = up(&bundle);
    let probe = probe("sleep 777");
    let exec = web.call("exec", &["--die-with-parent"]).args(&["sh", "-c", &probe]);
    let caller = exec.through(&["/bin/sh", "-c", "\"$0\" \"$@\"; exit $?"]).spawn();
    eventually("the tree is there", || (others(&web).len() >= 3).then_some(()));
    caller.signal(libc::SIGKILL);
    eventually("the tree has gone", || others(&web).is_empty().then_some(()));
    eventually("the leaf has gone", || leaves(&bundle).is_empty().then_some(()));
    eventually("the runtime and its watcher have gone", || {
        let left = host::leftovers(bundle.name());
        (!left.iter().any(|line| line.contains("--die-with-parent"))).then_some(())
    });
    assert_eq!(web.status(), "running");
}

/// An engine kills the runtime itself, too; then nobody else would know of the tree.
#[test]
fn exec_die_with_parent_ends_the_tree_when_the_runtime_is_killed() {
    require!(root);
    let bundle = Bundle::new();
    let web = up(&bundle);
    let probe = probe("sleep 777");
    let exec = web.call("exec", &["--die-with-parent"]).args(&["sh", "-c", &probe]).spawn();
    eventually("the tree is there", || (others(&web).len() >= 3).then_some(()));
    exec.signal(libc::SIGKILL);
    eventually("the tree has gone", || others(&web).is_empty().then_some(()));
    eventually("the leaf has gone", || leaves(&bundle).is_empty().then_some(()));
}

/// The watcher is gone with the exec that it was for.
#[test]
fn exec_die_with_parent_that_ends_by_itself_leaves_no_watcher() {
    require!(root);
    let bundle = Bundle::new();
    let web = up(&bundle);
    let exec = web.call("exec", &["--die-with-parent"]).args(&["sh", "-c", "sleep 0.1; exit 4"]);
    exec.run().exits(4);
    nothing_left(&bundle, &web);
    // Bundle's own check finds every process that has the call's mark in its environment.
    bundle.container("web").remove();
}

#[test]
fn exec_timeout_and_die_with_parent_are_refused_with_detach() {
    require!(root);
    let bundle = Bundle::new();
    let web = up(&bundle);
    for options in [&["--detach", "--timeout", "1s"][..], &["-d", "--die-with-parent"]] {
        let output = web.call("exec", options).args(&["true"]).run().exits(255);
        output.fails_with("need a runtime that stays, not --detach");
    }
    for time in ["0", "-1", "5x", "1.5s"] {
        let timeout = format!("--timeout={time}");
        let output = web.call("exec", &[&timeout]).args(&["true"]).run().exits(255);
        output.fails_with("--timeout: ");
    }
    nothing_left(&bundle, &web);
}

/// A failing exec takes its leaf back.
#[test]
fn contained_exec_of_a_missing_command_leaves_no_cgroup() {
    require!(root);
    let bundle = Bundle::new();
    let web = up(&bundle);
    web.call("exec", &["--contain"]).args(&["/no/such"]).run().exits(255);
    web.call("exec", &["--die-with-parent"]).args(&["/no/such"]).run().exits(255);
    nothing_left(&bundle, &web);
}

fn by_annotation(value: &str) -> Bundle {
    Bundle::with(|config| config.set("/annotations", json!({ "dev.onggi.exec.contain": value })))
}

/// Engines know no --contain; the container's annotation makes it the default for them. What a detached
/// probe has left ends with the next exec.
#[test]
fn exec_is_contained_by_the_annotation_of_the_container() {
    require!(root);
    let bundle = by_annotation("true");
    let web = up(&bundle);
    web.exec(&["sh", "-c", &probe("exit 0")]).ok();
    nothing_left(&bundle, &web);
    fs::remove_file(bundle.rootfs().join("tmp/up")).unwrap();
    let file = bundle.dir().join("exec.pid");
    let options = ["--detach", "--pid-file", file.to_str().unwrap()];
    web.call("exec", &options).args(&["sh", "-c", &probe("sleep 777")]).run().ok();
    let first = Process::of_pid_file(&file);
    eventually("the tree is there", || (others(&web).len() >= 3).then_some(()));
    // While its first process lives, nobody touches it.
    web.exec(&["true"]).ok();
    assert!(others(&web).len() >= 3);
    assert_eq!(leaves(&bundle).len(), 1);
    first.kill(libc::SIGKILL).unwrap();
    eventually("it has ended", || (!first.is_alive()).then_some(()));
    assert_eq!(leaves(&bundle).len(), 1);
    web.exec(&["true"]).ok();
    nothing_left(&bundle, &web);
}

#[test]
fn annotation_for_contained_exec_is_true_or_false() {
    require!(root);
    let bundle = by_annotation("false");
    let web = up(&bundle);
    web.exec(&["sh", "-c", &probe("exit 0")]).ok();
    assert_eq!(others(&web).len(), 2);
    let bundle = by_annotation("yes");
    let web = bundle.container("web");
    let output = web.create();
    output.fails_with("/annotations/dev.onggi.exec.contain: is neither true nor false");
}

/// Probes come in crowds.
#[test]
fn thousand_parallel_contained_execs_leave_no_cgroup() {
    require!(root);
    let bundle = Bundle::new();
    let web = up(&bundle);
    for _ in 0..10 {
        let call = || web.call("exec", &["--contain", "--timeout", "1h"]).args(&["true"]).spawn();
        let running: Vec<_> = (0..100).map(|_| call()).collect();
        running.into_iter().for_each(|exec| drop(exec.wait().ok()));
    }
    nothing_left(&bundle, &web);
}

fn write(dir: &Path, file: &str, text: &str) {
    let path = dir.join(file);
    fs::write(&path, text).unwrap_or_else(|error| panic!("{path:?}: {error}"));
}

/// systemd, or a nested engine, in the container: its cgroup passes controllers on, and may hold no
/// process. runc and crun fail here with EBUSY, or have done so.
#[test]
fn exec_never_fails_with_ebusy_where_the_containers_cgroup_has_controllers_below() {
    require!(root, v2_controller("hugetlb"));
    let bundle = Bundle::new();
    let web = up(&bundle);
    let dir = bundle.cgroup("");
    let inner = dir.join("init.scope");
    fs::create_dir(&inner).unwrap();
    write(&inner, "cgroup.procs", &web.init().0.to_string());
    write(&dir, "cgroup.subtree_control", "+hugetlb");
    let of = |options: &[&str]| {
        let exec = web.call("exec", options).args(&["sh", "-c", "echo up; exec sleep 777"]);
        let exec = exec.spawn();
        eventually("it runs", || (exec.stdout_now() == "up\n").then_some(()));
        let child = eventually("it is the program", || {
            let sleeps = |p: &Process| p.cmdline().first().is_some_and(|name| name == "sleep");
            exec.process().children().into_iter().find(sleeps)
        });
        (exec, child.cgroups()[""].clone())
    };
    let (_plain, plain) = of(&[]);
    assert_eq!(plain, web.init().cgroups()[""]);
    let (_own, own) = of(&["--contain"]);
    assert!(own.contains("/onggi-exec-"), "{own}");
    // Who names the container's own cgroup is told that it is not possible.
    web.call("exec", &["--cgroup", "/"]).args(&["true"]).run().exits(255).fails_with("EBUSY");
}

/// A frozen tree is killed all the same (v2), and the container stays as it is.
#[test]
fn exec_timeout_in_a_paused_container() {
    require!(root, cgroup_v2);
    let bundle = Bundle::new();
    let web = up(&bundle);
    write(&bundle.cgroup(""), "cgroup.freeze", "1");
    web.becomes("paused");
    let options = ["--ignore-paused", "--timeout", "300ms"];
    web.call("exec", &options).args(&["true"]).run().exits(124);
    nothing_left(&bundle, &web);
    assert_eq!(web.status(), "paused");
}
