//! Many at once: different containers, the same id, many processes.

use std::collections::BTreeSet;
use std::fs;

use crate::support::{Bundle, Container, Output, Process, Running, eventually, host};

/// Starts all calls before it waits for the first.
fn all(calls: Vec<Running>) -> Vec<Output> {
    calls.into_iter().map(Running::wait).collect()
}

/// A node that starts after a reboot creates its pods all at once.
#[test]
fn fifty_parallel_creates_of_different_ids() {
    require!(root);
    let bundle = Bundle::new();
    let containers: Vec<Container> =
        (0..50).map(|number| bundle.another(&format!("c{number}"), |config| config)).collect();
    let creates = containers.iter().map(|web| web.call("create", &[]).spawn()).collect();
    all(creates).into_iter().for_each(|output| drop(output.ok()));
    let inits: BTreeSet<i32> = containers.iter().map(|web| web.init().0).collect();
    assert_eq!(inits.len(), 50);
    let list = bundle.onggi(&["list", "--format", "json"]).run().ok().json();
    let list = list.as_array().unwrap();
    assert_eq!(list.len(), 50);
    assert!(list.iter().all(|entry| entry["status"] == "created"), "{list:?}");
    let deletes = containers.iter().map(|web| web.call("delete", &["--force"]).spawn()).collect();
    all(deletes).into_iter().for_each(|output| drop(output.ok()));
    bundle.assert_clean();
}

/// The directory of the id is the reservation: exactly one create gets it, and the losers must
/// not take anything of the winner's away.
#[test]
fn fifty_parallel_creates_of_the_same_id_have_one_winner() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    let creates = (0..50).map(|_| web.call("create", &[]).spawn()).collect();
    let (won, lost): (Vec<_>, Vec<_>) =
        all(creates).into_iter().partition(|output| output.code() == 0);
    assert_eq!(won.len(), 1);
    for output in lost {
        output.fails_with("container with given ID already exists");
    }
    assert_eq!(web.status(), "created");
    let init = web.init();
    assert_eq!(host::processes_of(bundle.name()), [init]);
    assert!(host::cgroup_procs(&bundle.cgroup("memory")).contains(&init.0));
    web.start().ok();
    assert_eq!(web.exec(&["echo", "hi"]).ok().stdout, "hi\n");
    web.remove();
}

/// A container with as many processes as a big build.
fn thousand_processes(share_pid: bool) {
    let script = "i=0; while test $i -lt 999; do sleep 1000 & i=$((i+1)); done; wait";
    let bundle = Bundle::sh(script);
    if share_pid {
        bundle.edit(|config| config.share_namespace("pid"));
    }
    let web = bundle.container("web");
    web.up();
    let cgroup = bundle.cgroup("memory");
    eventually("1 000 processes run", || (host::cgroup_procs(&cgroup).len() == 1000).then_some(()));
    let list = web.call("ps", &["--format", "json"]).run().ok().json();
    assert_eq!(list.as_array().unwrap().len(), 1000);
    web.delete_force().ok();
    bundle.assert_clean();
}

/// The kernel takes them away with their pid namespace, but not at once.
#[test]
fn container_of_1000_processes_delete_force_leaves_none() {
    require!(root);
    thousand_processes(false);
}

/// Without a pid namespace it is all up to the runtime.
#[test]
fn container_of_1000_processes_in_the_hosts_pid_namespace_delete_force_leaves_none() {
    require!(root);
    thousand_processes(true);
}

/// The kubelet's probes: many execs and state calls, and a kill in between.
#[test]
fn row71_twenty_parallel_execs_with_state_and_kill() {
    require!(root);
    let bundle = Bundle::sh("trap 'echo got >> /out/got' USR1; while :; do sleep 0.02; done");
    let out = bundle.share("/out");
    let web = bundle.container("web");
    web.up();
    let init = web.init();
    eventually("the trap is set", || (init.status("SigCgt") != "0000000000000000").then_some(()));
    let mut execs = Vec::new();
    let mut states = Vec::new();
    for number in 0..20 {
        execs.push(web.call("exec", &[]).args(&["echo", &number.to_string()]).spawn());
        states.push(web.call("state", &[]).spawn());
    }
    web.kill("USR1").ok();
    for (number, output) in all(execs).into_iter().enumerate() {
        assert_eq!(output.ok().stdout, format!("{number}\n"));
    }
    for output in all(states) {
        assert_eq!(output.ok().json()["status"], "running");
    }
    eventually("the signal has arrived", || {
        (fs::read_to_string(out.join("got")).ok()? == "got\n").then_some(())
    });
}

/// The end of a container while probes run: each exec succeeds or says why, and nothing stays.
#[test]
fn row71_execs_while_the_container_is_deleted() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    let kinds: [&[&str]; 3] = [&[], &["--contain"], &["--die-with-parent", "--timeout", "1h"]];
    for round in 0..6 {
        web.up();
        let exec = || web.call("exec", kinds[round % 3]).args(&["sleep", "0.01"]).spawn();
        let execs: Vec<Running> = (0..10).map(|_| exec()).collect();
        if round >= 3 {
            web.kill("KILL").ok();
        }
        web.delete_force().ok();
        for output in all(execs) {
            assert!([0, 128 + 9, 255].contains(&output.code()), "{output}");
        }
        bundle.assert_clean();
    }
}

/// A probe that meets a pause is refused, or runs when the container is resumed; it is never lost.
#[test]
fn execs_while_the_container_is_paused_and_resumed() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let exec = |options| web.call("exec", options).args(&["echo", "hi"]).spawn();
    for _ in 0..8 {
        let execs: Vec<Running> = (0..4).map(|_| exec(&[])).collect();
        let contained: Vec<Running> = (0..4).map(|_| exec(&["--contain"])).collect();
        web.call("pause", &[]).run().ok();
        let patient = exec(&["--ignore-paused"]);
        web.call("resume", &[]).run().ok();
        for output in all(execs.into_iter().chain(contained).collect()) {
            match output.code() {
                0 => assert_eq!(output.stdout, "hi\n", "{output}"),
                _ => drop(output.exits(255).fails_with("cannot exec in a paused container")),
            }
        }
        assert_eq!(patient.wait().ok().stdout, "hi\n");
    }
    assert_eq!(
        web.call("ps", &["--format", "json"]).run().ok().json().as_array().unwrap().len(),
        1
    );
}

/// containerd's cleanup process deletes while the shim does.
#[test]
fn parallel_deletes_of_one_container() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    for _ in 0..5 {
        web.up();
        let deletes = (0..6).map(|_| web.call("delete", &["--force"]).spawn()).collect();
        all(deletes).into_iter().for_each(|output| drop(output.ok()));
        bundle.assert_clean();
    }
}

/// A create that is overtaken by a delete of the same id either wins or fails cleanly.
#[test]
fn create_against_delete_of_the_same_id() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    for _ in 0..10 {
        let create = web.call("create", &[]).spawn();
        let delete = web.call("delete", &["--force"]).spawn();
        // delete --force ends a creator that is still at work: then it has no exit code.
        let (created, deleted) = (create.wait(), delete.wait());
        deleted.ok();
        if created.signal().is_none() && created.code() == 0 && web.state_call().code() == 0 {
            assert!(web.init().is_alive());
        }
        web.delete_force().ok();
        bundle.assert_clean();
    }
}

/// Two containers on one root file system do not see each other.
#[test]
fn containers_on_one_rootfs_are_independent() {
    require!(root);
    let bundle = Bundle::new();
    let one = bundle.another("one", |config| config);
    let two = bundle.another("two", |config| config);
    one.up();
    two.up();
    for kind in ["pid", "mnt", "net", "ipc", "uts"] {
        assert_ne!(one.init().ns(kind), two.init().ns(kind), "{kind}");
    }
    one.delete_force().ok();
    assert_eq!(two.exec(&["echo", "hi"]).ok().stdout, "hi\n");
    let left: Vec<Process> = host::processes_of(bundle.name());
    assert_eq!(left, [two.init()]);
}
