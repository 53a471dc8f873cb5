//! start: what it waits for, what it refuses, what it leaves open.

use std::fs;

use crate::support::{Bundle, eventually, fds};

/// containerd starts `true`, and it has ended before start looks.
#[test]
fn row53_start_of_a_process_that_ends_at_once_returns_0() {
    require!(root);
    let bundle = Bundle::with(|config| config.args(&["true"]));
    let web = bundle.container("web");
    for _ in 0..20 {
        web.up();
        web.becomes("stopped");
        web.delete().ok();
    }
}

/// An init that was killed before start never opens the gate: start must not wait for it.
#[test]
fn row53_start_of_a_dead_init_is_an_error_and_does_not_hang() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.create().ok();
    let init = web.init();
    init.kill(libc::SIGKILL).unwrap();
    eventually("init is gone", || (!init.is_alive()).then_some(()));
    web.start().fails_with("cannot start a container that has stopped");
}

/// containerd reads start's output to its end: a helper that keeps it blocked it for 8 s.
#[test]
fn row54_after_start_nobody_holds_its_stdout_and_stderr() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.create().ok();
    let (mut stdout, out) = fds::pipe();
    let (mut stderr, err) = fds::pipe();
    web.call("start", &[]).stdout(out).stderr(err).run().ok();
    assert_eq!(fds::read_to_end(&mut stdout), "");
    assert_eq!(fds::read_to_end(&mut stderr), "");
    assert_eq!(web.status(), "running");
}

/// The text that tells a running container from a stopped one.
#[test]
fn row55_start_of_a_running_container() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    web.start().fails_with("cannot start an already running container");
    assert_eq!(web.status(), "running");
}

/// And its other half.
#[test]
fn row55_start_of_a_stopped_container() {
    require!(root);
    let bundle = Bundle::with(|config| config.args(&["true"]));
    let web = bundle.container("web");
    web.up();
    web.becomes("stopped");
    web.start().fails_with("cannot start a container that has stopped");
}

/// A container whose poststart hook failed must not run on behind the engine's back.
#[test]
fn row56_failed_poststart_hook_kills_the_container_and_is_reported() {
    require!(root);
    let script = "echo no network >&2; exit 7";
    let bundle = Bundle::with(|config| config.hook("poststart", "/bin/sh", &["sh", "-c", script]));
    let web = bundle.container("web");
    web.create().ok();
    let init = web.init();
    let output = web.start().fails();
    assert!(output.stderr.contains("poststart"), "{output}");
    eventually("init is dead", || (!init.is_alive()).then_some(()));
}

/// The gate opens exactly once: two starts at the same time, one winner.
#[test]
fn two_starts_at_once_have_one_winner() {
    require!(root);
    let bundle = Bundle::sh("echo x >> /out/starts; sleep 1000");
    let out = bundle.share("/out");
    let web = bundle.container("web");
    web.create().ok();
    let calls: Vec<_> = (0..4).map(|_| web.call("start", &[]).spawn()).collect();
    let codes: Vec<i32> = calls.into_iter().map(|call| call.wait().code()).collect();
    assert_eq!(codes.iter().filter(|code| **code == 0).count(), 1, "{codes:?}");
    eventually("it runs", || out.join("starts").exists().then_some(()));
    assert_eq!(fs::read_to_string(out.join("starts")).unwrap(), "x\n");
}
