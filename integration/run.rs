//! `run` in the foreground and detached, as docker build and people use it.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use crate::support::{Bundle, Process, eventually, fds, host};

/// docker build shows the code of a RUN step.
#[test]
fn row57_run_exits_with_the_code_of_the_process() {
    require!(root);
    for code in [0, 1, 7, 255] {
        let bundle = Bundle::sh(&format!("exit {code}"));
        bundle.container("web").run().exits(code);
    }
}

/// Killed by signal n: 128 + n, as a shell.
#[test]
fn row57_run_exits_with_128_plus_the_signal() {
    require!(root);
    let bundle = Bundle::with(|config| config.sh("kill -KILL $$").share_namespace("pid"));
    bundle.container("web").run().exits(128 + 9);
    bundle.edit(|config| config.sh("kill -TERM $$"));
    bundle.container("web").run().exits(128 + 15);
}

/// buildkit reads memory.events after the end, then calls delete.
#[test]
fn row58_run_keep_leaves_a_stopped_container_and_its_cgroup() {
    require!(root);
    let bundle = Bundle::sh("exit 3");
    let web = bundle.container("web");
    web.call("run", &["--keep"]).run().exits(3);
    let state = web.state();
    assert_eq!(state["status"], "stopped");
    assert!(state["pid"].as_i64().unwrap_or(0) == 0, "{state}");
    // systemd takes a scope away with its last process, whoever has asked for it.
    assert!(host::by_systemd() || bundle.cgroup("memory").is_dir());
    web.delete().ok();
    bundle.assert_clean();
}

/// What the process has returned is told also when something of the container cannot be taken away.
#[test]
fn row59_run_exits_with_the_code_also_when_it_cannot_delete() {
    require!(root, program("chattr"));
    let bundle = Bundle::sh("echo up; cat; exit 7");
    let web = bundle.container("web");
    let mut run = web.call("run", &[]).stdin(Stdio::piped()).spawn();
    eventually("it runs", || (run.stdout_now() == "up\n").then_some(()));
    let file = bundle.root().join("web/config.json");
    let (status, text) = host::tool(&["chattr", "+i", file.to_str().unwrap()]);
    drop(run.stdin.take());
    let output = run.wait();
    host::tool(&["chattr", "-i", file.to_str().unwrap()]);
    web.delete().ok();
    assert!(status.success(), "{text}");
    assert_eq!(output.code(), 7, "{output}");
    let log = output.log();
    assert_eq!((&log[0]["code"], &log[0]["level"]), (&"E_DELETE".into(), &"warning".into()));
}

/// People expect nothing to stay, whatever the process has returned.
#[test]
fn row59_run_without_keep_deletes_everything() {
    require!(root);
    let bundle = Bundle::sh("exit 3");
    bundle.container("web").run().exits(3);
    bundle.assert_clean();
}

/// The poststop hooks run at the end of a foreground run.
#[test]
fn row59_run_runs_the_poststop_hooks() {
    require!(root);
    let bundle = Bundle::sh("exit 0");
    let out = bundle.share("/out");
    let script = format!("echo gone > {}/poststop", out.display());
    bundle.edit(|config| config.hook("poststop", "/bin/sh", &["sh", "-c", &script]));
    bundle.container("web").run().ok();
    assert_eq!(fs::read_to_string(out.join("poststop")).unwrap(), "gone\n");
}

/// A detached run returns once the process is up, and leaves it to the subreaper.
#[test]
fn run_detached_returns_and_the_container_runs_on() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    let file = bundle.dir().join("pid");
    web.call("run", &["--detach", "--pid-file", file.to_str().unwrap()]).run().ok();
    assert_eq!(web.status(), "running");
    let init = web.init();
    assert_eq!(fs::read_to_string(file).unwrap(), init.0.to_string());
    assert_eq!(init.status("PPid"), Process::own().0.to_string());
}

/// buildkit sends any signal to the runtime's pid, for the process inside.
#[test]
fn row60_run_forwards_signals_to_the_process() {
    require!(root);
    let script = "for s in INT HUP USR1 USR2; do trap \"echo $s\" $s; done; trap 'exit 9' TERM;
        echo ready; while :; do sleep 0.02; done";
    let bundle = Bundle::sh(script);
    let web = bundle.container("web");
    let run = web.call("run", &[]).spawn();
    eventually("the traps are set", || run.stdout_now().contains("ready").then_some(()));
    let signals = [("INT", 2), ("HUP", 1), ("USR1", 10), ("USR2", 12)];
    for (name, number) in signals {
        run.signal(number);
        eventually(&format!("{name} arrives"), || {
            run.stdout_now().contains(&format!("{name}\n")).then_some(())
        });
    }
    run.signal(libc::SIGTERM);
    run.wait().exits(9);
}

/// All output comes out, however much is still in the pipe when the process ends.
#[test]
fn row62_run_drains_the_output() {
    require!(root);
    let bundle = Bundle::sh("head -c 3000000 /dev/zero | tr '\\0' x; echo end >&2");
    let (mut stdout, out) = fds::pipe();
    let (mut stderr, err) = fds::pipe();
    let web = bundle.container("web");
    let run = web.call("run", &[]).stdout(out).stderr(err).spawn();
    let text = fds::read_to_end(&mut stdout);
    assert_eq!((text.len(), text.trim_matches('x')), (3_000_000, ""));
    assert_eq!(fds::read_to_end(&mut stderr), "end\n");
    run.wait().ok();
}

/// The end of stdin reaches the process: `cat` ends.
#[test]
fn row62_run_passes_stdin_and_its_end() {
    require!(root);
    let bundle = Bundle::with(|config| config.args(&["cat"]));
    let web = bundle.container("web");
    let mut run = web.call("run", &[]).stdin(Stdio::piped()).spawn();
    run.stdin.take().unwrap().write_all(b"some input").unwrap();
    assert_eq!(run.wait().ok().stdout, "some input");
}

/// Somebody else may delete the container while `run` waits for it.
#[test]
fn run_survives_that_its_container_is_deleted() {
    require!(root);
    let bundle = Bundle::sh("echo ready; sleep 1000");
    let web = bundle.container("web");
    let run = web.call("run", &[]).spawn();
    eventually("it runs", || run.stdout_now().contains("ready").then_some(()));
    web.delete_force().ok();
    run.wait().exits(128 + 9);
    bundle.assert_clean();
}

/// Nor does it take another one for its own that has got the id meanwhile.
#[test]
fn run_leaves_another_container_alone_that_has_taken_its_id() {
    require!(root);
    let bundle = Bundle::sh("echo ready; sleep 1000");
    let web = bundle.container("web");
    let run = web.call("run", &[]).spawn();
    eventually("it runs", || run.stdout_now().contains("ready").then_some(()));
    // It no longer starts it, and so has no lock, when it waits for its end.
    eventually("it waits", || (!bundle.root().join("web/gate").exists()).then_some(()));
    std::thread::sleep(std::time::Duration::from_millis(300));
    run.signal(libc::SIGSTOP);
    web.delete_force().ok();
    web.create().ok();
    run.signal(libc::SIGCONT);
    run.wait().exits(128 + 9);
    assert_eq!(web.status(), "created");
    web.remove();
}
