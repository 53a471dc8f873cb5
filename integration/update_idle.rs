//! update of `cpu.idle`: the kernel forgets the weight of a cgroup that is idle (sched_group_set_idle).

use std::fs;

use serde_json::json;

use crate::support::{Bundle, Container, host};

const SHARES: u64 = 512;

fn bundle(idle: i64) -> Bundle {
    let cpu = json!({ "shares": SHARES, "idle": idle });
    let bundle = Bundle::new();
    bundle.edit(|config| config.set("/linux/resources/cpu", cpu));
    bundle
}

/// Whether it is idle, and its weight.
fn idle_and_weight(bundle: &Bundle) -> (String, String) {
    let read =
        |file| fs::read_to_string(bundle.cgroup("cpu").join(file)).unwrap().trim().to_owned();
    (read("cpu.idle"), read(if host::is_v2() { "cpu.weight" } else { "cpu.shares" }))
}

fn usual() -> (String, String) {
    ("0".to_owned(), if host::is_v2() { "59".to_owned() } else { SHARES.to_string() })
}

fn has_idle(web: &Container) -> bool {
    web.create().ok();
    web.bundle().cgroup("cpu").join("cpu.idle").exists()
}

#[test]
fn update_that_ends_idling_brings_the_weight_back() {
    require!(root, controller("cpu"));
    let bundle = bundle(0);
    let web = bundle.container("web");
    if !has_idle(&web) {
        return;
    }
    assert_eq!(idle_and_weight(&bundle), usual());
    for _ in 0..2 {
        web.call("update", &["--cpu-idle", "1"]).run().ok();
        assert_eq!(idle_and_weight(&bundle).0, "1");
        web.call("update", &["--cpu-idle", "0"]).run().ok();
        assert_eq!(idle_and_weight(&bundle), usual());
    }
    // What an idle one is given counts afterwards.
    web.call("update", &["--cpu-idle", "1"]).run().ok();
    web.call("update", &["--cpu-share", "1024"]).run().ok();
    assert_eq!(idle_and_weight(&bundle).0, "1");
    web.call("update", &["--cpu-idle", "0"]).run().ok();
    assert_eq!(idle_and_weight(&bundle).1, if host::is_v2() { "100" } else { "1024" });
}

/// The number of processes is written after the CPU time, and refused.
#[test]
fn update_that_is_taken_back_leaves_the_weight_as_it_was() {
    require!(root, controller("cpu"), controller("pids"));
    for idle in [0, 1] {
        let bundle = bundle(idle);
        let web = bundle.container("web");
        if !has_idle(&web) {
            return;
        }
        let before = idle_and_weight(&bundle);
        let other = (1 - idle).to_string();
        let options = ["--cpu-idle", &other, "--pids-limit", "99999999"];
        web.call("update", &options).run().fails_with("pids.max");
        assert_eq!(idle_and_weight(&bundle), before);
        web.call("update", &["--cpu-idle", "0"]).run().ok();
        assert_eq!(idle_and_weight(&bundle), usual());
    }
}
