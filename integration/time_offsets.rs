//! `linux.timeOffsets`: the clocks of a container's own time namespace.

use serde_json::json;

use crate::support::refusal::refused_at;
use crate::support::{Bundle, Config};

/// A container whose boot lies 100,000 seconds back and whose monotonic clock is half a second ahead.
fn offsets(config: &mut Config) -> &mut Config {
    let clocks = json!({
        "boottime": { "secs": 100_000, "nanosecs": 0 },
        "monotonic": { "secs": 0, "nanosecs": 500_000_000 },
    });
    config.push("/linux/namespaces", json!({ "type": "time" })).set("/linux/timeOffsets", clocks)
}

/// The lines of timens_offsets, without the padding.
fn lines(text: &str) -> Vec<String> {
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[track_caller]
fn uptime(text: &str) -> f64 {
    text.split_whitespace().next().unwrap().parse().unwrap()
}

#[track_caller]
fn are_set(bundle: &Bundle) {
    let web = bundle.container("web");
    web.up();
    let wanted = ["monotonic 0 500000000", "boottime 100000 0"];
    assert_eq!(lines(&web.init().read("timens_offsets")), wanted);
    let here = uptime(&std::fs::read_to_string("/proc/uptime").unwrap());
    // init and a process of exec have the same clocks, and another namespace than we have.
    let script = "cat /proc/uptime; readlink /proc/self/ns/time; readlink /proc/1/ns/time";
    let output = web.sh(script).ok().stdout;
    let mut rest = output.lines();
    let there = uptime(rest.next().unwrap());
    assert!((99_990.0..100_100.0).contains(&(there - here)), "{there} - {here}");
    let own = rest.next().unwrap();
    assert_eq!(rest.next(), Some(own));
    assert_eq!(web.init().ns("time"), own);
    assert_ne!(crate::support::Process::own().ns("time"), own);
}

#[test]
fn time_offsets_are_those_of_init_and_exec() {
    require!(root, path("/proc/self/ns/time"));
    are_set(&Bundle::with(offsets));
}

/// The offsets' file belongs to the process only as long as it is dumpable.
#[test]
fn time_offsets_in_a_user_namespace() {
    require!(root, path("/proc/self/ns/time"));
    let bundle = Bundle::with(|config| offsets(super::user_namespaces::mapped(config)));
    super::user_namespaces::own(&bundle);
    are_set(&bundle);
}

#[test]
fn time_namespace_without_offsets_keeps_the_clocks() {
    require!(root, path("/proc/self/ns/time"));
    let bundle = Bundle::with(|config| config.push("/linux/namespaces", json!({ "type": "time" })));
    let web = bundle.container("web");
    web.up();
    assert_ne!(web.init().ns("time"), crate::support::Process::own().ns("time"));
    assert_eq!(lines(&web.init().read("timens_offsets")), ["monotonic 0 0", "boottime 0 0"]);
}

#[test]
fn time_offsets_that_mean_nothing_are_refused() {
    require!(root);
    let with = |clocks| {
        Bundle::with(|config| {
            config.push("/linux/namespaces", json!({ "type": "time" }));
            config.set("/linux/timeOffsets", clocks)
        })
    };
    let bundle = with(json!({ "realtime": { "secs": 1, "nanosecs": 0 } }));
    refused_at(&bundle, &["/linux/timeOffsets/realtime"]);
    let bundle = with(json!({ "boottime": { "secs": 1, "nanosecs": 1_000_000_000 } }));
    refused_at(&bundle, &["/linux/timeOffsets/boottime/nanosecs"]);
    // The kernel allows no clock below zero: found when it is written, and taken back.
    let bundle = with(json!({ "boottime": { "secs": i64::MIN, "nanosecs": 0 } }));
    refused_at(&bundle, &["/linux/timeOffsets"]);
    let bundle = Bundle::with(|config| {
        config.set("/linux/timeOffsets", json!({ "boottime": { "secs": 1, "nanosecs": 0 } }))
    });
    refused_at(&bundle, &["/linux/timeOffsets"]).fails_with("needs a new time namespace");
}
