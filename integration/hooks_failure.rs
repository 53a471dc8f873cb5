//! Hooks that fail: what the error says, and what becomes of the container.

use std::time::{Duration, Instant};

use crate::hooks::{CREATE_KINDS, read, recorder, script};
use crate::support::{Bundle, Container, Process, eventually, poll};

/// Runs create with a hook of this kind that must be killed after a second.
#[track_caller]
fn times_out(bundle: &Bundle, kind: &str) {
    bundle.edit(|config| config.set(&format!("/hooks/{kind}/0/timeout"), 1));
    let begin = Instant::now();
    let web = bundle.container("web");
    let output = web.create().fails();
    assert!(begin.elapsed() < Duration::from_secs(10));
    assert!(output.stderr.contains(&format!("/hooks/{kind}/0:")), "{output}");
    assert!(output.stderr.contains("timeout") || output.stderr.contains("1 s"), "{output}");
    bundle.assert_clean();
}

#[test]
fn hook_timeout_kills_and_fails_create() {
    require!(root);
    for kind in CREATE_KINDS {
        let bundle = Bundle::new();
        let name = bundle.name().to_string();
        bundle.edit(|config| config.hook(kind, "/bin/sleep", &[&name, "1000"]));
        times_out(&bundle, kind);
    }
}

/// What the hook has started goes with it: a failed create leaves no process.
#[test]
fn hook_timeout_kills_the_children_of_the_hook() {
    require!(root);
    for kind in CREATE_KINDS {
        let bundle = Bundle::new();
        let name = bundle.name().to_string();
        let text = "sh -c 'sleep 20; :' $0 & wait";
        bundle.edit(|config| config.hook(kind, "/bin/sh", &["sh", "-c", text, &name]));
        times_out(&bundle, kind);
    }
}

/// A program that a hook leaves in the background with the hook's stdout still open.
#[test]
fn hook_that_leaves_a_daemon_behind_does_not_hold_create_up() {
    require!(root);
    let (bundle, dir) = recorder();
    let text = "sleep 60 & echo $! > $0/pid";
    bundle.edit(|config| {
        script(config, &bundle, "prestart", text);
        config
    });
    let web = bundle.container("web");
    let running = web.call("create", &[]).spawn();
    let in_time = poll(Duration::from_secs(10), || running.has_ended().then_some(()));
    let daemon = Process(read(&dir, "pid").trim().parse().unwrap());
    let _ = daemon.kill(libc::SIGKILL);
    running.wait().ok();
    assert!(in_time.is_some(), "create waited for the daemon");
}

/// The failing hook of `kind`, and everything that the message must say of it.
fn fails_in(kind: &str, text: &str, words: &[&str]) {
    let (bundle, dir) = recorder();
    bundle.edit(|config| {
        script(config, &bundle, kind, text);
        script(config, &bundle, "poststop", "echo poststop >> $0/order");
        config
    });
    let web = bundle.container("web");
    let output = web.create().fails();
    for word in words.iter().copied().chain([format!("/hooks/{kind}/0:").as_str()]) {
        assert!(output.stderr.contains(word), "no {word:?} in {output}");
    }
    assert_eq!(output.stderr.trim_end().lines().count(), 1, "{output}");
    bundle.assert_clean();
    // The order is: stop, undo, then the poststop hooks, once.
    assert_eq!(read(&dir, "order"), "poststop\n", "{kind}");
}

#[test]
fn failing_create_hook_error_has_exit_status_argv_and_output() {
    require!(root);
    for kind in CREATE_KINDS {
        let text = "echo some words; echo last words >&2; exit 3";
        fails_in(kind, text, &["exit status 3", "some words", "last words", "sh", "-c"]);
    }
}

#[test]
fn failing_create_hook_error_has_the_signal() {
    require!(root);
    for kind in CREATE_KINDS {
        fails_in(kind, "kill -SEGV $$", &["SIGSEGV"]);
    }
}

#[test]
fn failing_hook_error_has_the_last_4_kib_of_its_output() {
    require!(root);
    let bundle = Bundle::new();
    let text =
        "echo first words; head -c 100000 /dev/zero | tr '\\0' x; echo; echo last words; exit 1";
    bundle.edit(|config| config.hook("prestart", "/bin/sh", &["sh", "-c", text]));
    let web = bundle.container("web");
    let output = web.create().fails();
    let count = output.stderr.matches('x').count();
    // docker and podman read one piece of 8 KiB.
    assert!((3900..4200).contains(&count), "{count} bytes of output: {output}");
    let after = output.stderr.split("xxxx").last().unwrap();
    assert!(after.contains("last words"), "{output}");
    bundle.assert_clean();
}

/// What a hook prints is somebody else's text: no escape sequence of it reaches a terminal.
#[test]
fn failing_hook_error_escapes_control_characters() {
    require!(root);
    let bundle = Bundle::new();
    let text = "printf 'one\\033[31mred\\r\\ntwo\\001'; exit 1";
    bundle.edit(|config| config.hook("prestart", "/bin/sh", &["sh", "-c", text]));
    let web = bundle.container("web");
    let output = web.create().fails();
    let line = output.stderr.trim_end_matches('\n');
    assert!(!line.contains(char::is_control), "{line:?}");
    assert!(line.contains("red") && line.contains("two"), "{line}");
}

#[test]
fn hook_program_that_is_missing_fails_create_with_its_pointer() {
    require!(root);
    for kind in CREATE_KINDS {
        let bundle = Bundle::with(|config| config.hook(kind, "/no/such/hook", &["hook"]));
        let web = bundle.container("web");
        let output = web.create().fails_with("no such file or directory");
        assert!(output.stderr.contains(&format!("/hooks/{kind}/0:")), "{output}");
        bundle.assert_clean();
    }
}

/// The second hook of a kind does not run when the first has failed.
#[test]
fn hooks_after_a_failed_one_do_not_run() {
    require!(root);
    let (bundle, dir) = recorder();
    bundle.edit(|config| {
        script(config, &bundle, "prestart", "exit 1");
        script(config, &bundle, "prestart", "echo second >> $0/order");
        script(config, &bundle, "createContainer", "echo third >> $0/order");
        config
    });
    let web = bundle.container("web");
    web.create().fails();
    assert_eq!(read(&dir, "order"), "");
}

/// A container whose last hook of `kind` fails when `start` comes to it.
fn start_fails_in<'b>(bundle: &'b Bundle, kind: &str) -> (Container<'b>, Process) {
    bundle.edit(|config| {
        script(config, bundle, kind, "echo last words >&2; exit 7");
        script(config, bundle, "poststop", "echo poststop >> $0/order");
        config
    });
    let web = bundle.container("web");
    web.create().ok();
    let init = web.init();
    let output = web.start().fails();
    for word in ["exit status 7", "last words", &format!("/hooks/{kind}/0:")] {
        assert!(output.stderr.contains(word), "no {word:?} in {output}");
    }
    (web, init)
}

#[test]
fn start_container_hook_failure_is_reported_by_start() {
    require!(root);
    let (bundle, dir) = recorder();
    let (web, init) = start_fails_in(&bundle, "startContainer");
    eventually("init has ended", || (!init.is_alive()).then_some(()));
    assert!(!web.state_call().stdout.contains("running"));
    web.delete_force().ok();
    assert_eq!(read(&dir, "order"), "poststop\n");
    bundle.assert_clean();
}

/// Spec 1.3: a failing poststart hook stops the container.
#[test]
fn poststart_hook_failure_stops_the_container_and_is_reported_by_start() {
    require!(root);
    let (bundle, dir) = recorder();
    let (web, init) = start_fails_in(&bundle, "poststart");
    eventually("init has ended", || (!init.is_alive()).then_some(()));
    web.delete_force().ok();
    assert_eq!(read(&dir, "order"), "poststop\n");
    bundle.assert_clean();
}

/// The spec: a failing poststop hook is a warning; the others run and delete succeeds.
#[test]
fn poststop_hook_failure_only_warns() {
    require!(root);
    let (bundle, dir) = recorder();
    bundle.edit(|config| {
        script(config, &bundle, "poststop", "exit 7");
        script(config, &bundle, "poststop", "echo second >> $0/order");
        config
    });
    let web = bundle.container("web");
    web.up();
    web.stop();
    let output = web.delete().ok();
    assert_eq!(read(&dir, "order"), "second\n");
    let warned = output.log().iter().any(|line| {
        line["level"] == "warning" && line["msg"].as_str().unwrap().contains("/hooks/poststop/0")
    });
    assert!(warned, "no warning in {output}");
    bundle.assert_clean();
}
