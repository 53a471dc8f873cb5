//! pause and resume: all processes stop and go on together, and a paused container can still be
//! killed.

use std::fs;

use crate::support::{Bundle, Container, Process, eventually, host};

/// A container with several processes that count as fast as they can.
fn counting() -> Bundle {
    Bundle::sh("(while :; do :; done) & (while :; do :; done) & while :; do :; done")
}

fn processes(web: &Container) -> Vec<Process> {
    let pids = web.call("ps", &["--format", "json"]).run().ok().json();
    pids.as_array().unwrap().iter().map(|pid| Process(pid.as_i64().unwrap() as i32)).collect()
}

/// The processor time that processes have used, in ticks.
fn ticks(processes: &[Process]) -> Vec<u64> {
    let used = |process: &Process| {
        let stat = process.try_read("stat").unwrap();
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    processes.iter().map(used).collect()
}

fn is_frozen(bundle: &Bundle) -> bool {
    let dir = bundle.cgroup("freezer");
    if host::is_v2() {
        fs::read_to_string(dir.join("cgroup.events")).unwrap().contains("frozen 1")
    } else {
        fs::read_to_string(dir.join("freezer.state")).unwrap().trim() == "FROZEN"
    }
}

/// containerd (`ctr task pause`), docker and podman snapshot the filesystem as soon as it returns.
#[test]
fn row86_pause_returns_when_all_is_frozen_and_resume_lets_it_go_on() {
    require!(root);
    let bundle = counting();
    let web = bundle.container("web");
    web.up();
    let all = eventually("three processes", || Some(processes(&web)).filter(|all| all.len() == 3));
    web.call("pause", &[]).run().ok();
    assert!(is_frozen(&bundle));
    let before = ticks(&all);
    assert_eq!(web.status(), "paused");
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(ticks(&all), before, "a paused process has run");
    web.call("resume", &[]).run().ok();
    assert_eq!(web.status(), "running");
    eventually("all run again", || {
        ticks(&all).iter().zip(&before).all(|(now, then)| now > then).then_some(())
    });
}

/// `paused` is what the freezer says, whoever has frozen it.
#[test]
fn row86_a_container_frozen_by_somebody_else_is_paused_and_can_be_resumed() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let (file, value) =
        if host::is_v2() { ("cgroup.freeze", "1") } else { ("freezer.state", "FROZEN") };
    fs::write(bundle.cgroup("freezer").join(file), value).unwrap();
    web.becomes("paused");
    web.call("resume", &[]).run().ok();
    assert_eq!(web.status(), "running");
}

/// A waiting init is frozen like any other; starting it would hang at the gate.
#[test]
fn row86_a_created_container_can_be_paused_and_is_not_started_then() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.create().ok();
    web.call("pause", &[]).run().ok();
    assert_eq!(web.status(), "paused");
    web.start().fails_with("cannot start a paused container");
    web.call("resume", &[]).run().ok();
    assert_eq!(web.status(), "created");
    web.start().ok();
    assert_eq!(web.status(), "running");
}

/// containerd takes the first text for "already finished".
#[test]
fn row87_pause_and_resume_in_the_wrong_state() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.call("pause", &[]).run().fails_with("does not exist");
    web.call("resume", &[]).run().fails_with("does not exist");
    web.up();
    web.call("resume", &[]).run().fails_with("container not paused");
    web.call("pause", &[]).run().ok();
    web.call("pause", &[]).run().fails_with("container not running");
    web.delete().fails_with("cannot delete container web that is not stopped: paused");
    web.exec(&["true"]).fails_with("cannot exec in a paused container");
    web.stop();
    web.call("pause", &[]).run().fails_with("container not running");
    web.call("resume", &[]).run().fails_with("container not paused");
}

/// docker kill of a paused container.
#[test]
fn row79_kill_works_on_a_paused_container() {
    require!(root);
    let bundle = Bundle::new();
    for options in [&[][..], &["--all"]] {
        let web = bundle.container("web");
        web.up();
        web.call("pause", &[]).run().ok();
        web.call("kill", options).args(&["KILL"]).run().ok();
        web.becomes("stopped");
        web.delete().ok();
        bundle.assert_clean();
    }
}

/// opencontainers/runc#3134: on v1 it took 10 s.
#[test]
fn delete_force_of_a_paused_container_kills_all_its_processes() {
    require!(root);
    for share_pid in [false, true] {
        let bundle = Bundle::sh("sleep 1001 & sleep 1002 & sleep 1003; true");
        bundle.edit(|config| if share_pid { config.share_namespace("pid") } else { config });
        let web = bundle.container("web");
        web.up();
        eventually("four processes", || (processes(&web).len() == 4).then_some(()));
        web.call("pause", &[]).run().ok();
        web.delete_force().ok();
        bundle.assert_clean();
    }
}

/// A pod whose parent cgroup an engine has frozen: not ours to thaw, and told at once.
#[test]
fn resume_of_a_container_that_is_frozen_from_above() {
    require!(root);
    let bundle = Bundle::new();
    let path = format!("/{}/two", bundle.name());
    bundle.edit(|config| config.set("/linux/cgroupsPath", path.as_str()));
    let web = bundle.container("web");
    web.up();
    let parent = bundle.cgroup("freezer").with_file_name("");
    let freeze = |on: bool| {
        let v2 = if on { "1" } else { "0" };
        let v1 = if on { "FROZEN" } else { "THAWED" };
        let (file, value) =
            if host::is_v2() { ("cgroup.freeze", v2) } else { ("freezer.state", v1) };
        fs::write(parent.join(file), value).unwrap();
    };
    freeze(true);
    web.becomes("paused");
    web.call("resume", &[]).run().fails_with("a cgroup above it is frozen");
    assert_eq!(web.status(), "paused");
    if host::is_v2() {
        // v2 lets frozen processes die.
        web.delete_force().ok();
    } else {
        web.delete_force().fails_with("a cgroup above it is frozen");
        freeze(false);
        assert_eq!(web.status(), "running");
        web.delete_force().ok();
    }
    freeze(false);
    host::clean(bundle.name());
}
