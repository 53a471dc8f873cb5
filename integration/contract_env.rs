//! What the runtime receives from its caller, and what of it may reach the container: nothing.

use std::fs::{self, File};
use std::os::fd::OwnedFd;

use serde_json::json;

use crate::support::need::controller;
use crate::support::{Bundle, Process, eventually};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Like docker, podman and conmon: SIGPIPE ignored, some signals blocked, a strange umask.
fn with_odd_caller() {
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        libc::signal(libc::SIGUSR1, libc::SIG_IGN);
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGTERM);
        libc::sigaddset(&mut set, libc::SIGCHLD);
        libc::sigaddset(&mut set, libc::SIGHUP);
        libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
        libc::umask(0o077);
    }
}

/// podman calls kill and delete with XDG_RUNTIME_DIR alone, and that is empty for root.
#[test]
fn row17_every_command_works_with_xdg_runtime_dir_alone() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    let call = |command: &str| web.call(command, &[]).env_only(&[("XDG_RUNTIME_DIR", "")]);
    call("create").run().ok();
    assert_eq!(call("state").run().ok().json()["status"], "created");
    call("start").run().ok();
    assert_eq!(call("exec").args(&["echo", "hi"]).run().ok().stdout, "hi\n");
    call("ps").args(&["-ef"]).run().ok();
    let file = bundle.dir().join("update.json");
    let limits = controller("pids").met;
    fs::write(&file, if limits { r#"{ "pids": { "limit": 40 } }"# } else { "{}" }).unwrap();
    call("update").arg("--resources").arg(&file).run().ok();
    if limits {
        let limit = fs::read_to_string(bundle.cgroup("pids").join("pids.max")).unwrap();
        assert_eq!(limit, "40\n");
    }
    call("pause").run().ok();
    assert_eq!(call("state").run().ok().json()["status"], "paused");
    call("resume").run().ok();
    assert_eq!(call("state").run().ok().json()["status"], "running");
    call("kill").arg("KILL").run().ok();
    web.becomes("stopped");
    call("delete").run().ok();
    bundle.assert_clean();
    call("run").arg("--detach").run().ok();
    assert_eq!(web.status(), "running");
    call("delete").arg("--force").run().ok();
    bundle.assert_clean();
}

/// conmon and buildkit set variables of their own for the runtime; they are no business of the
/// container's.
#[test]
fn row19_no_variable_of_the_caller_reaches_the_container() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    let with_env = |command: &str| {
        let call = web.call(command, &[]).env("_OCI_SYNCPIPE", "3").env("_OCI_STARTPIPE", "4");
        call.env("TTRPC_ADDRESS", "/run/ttrpc").env("LD_PRELOAD", "").env("HOME", "/somewhere")
    };
    with_env("create").run().ok();
    with_env("start").run().ok();
    let expected = ["HOME=/root", PATH, "TERM=xterm"];
    let init = web.init();
    eventually("init runs sleep", || (init.cmdline() == ["sleep", "1000"]).then_some(()));
    assert_eq!(init.environ(), expected);
    let output = with_env("exec").args(&["env"]).run().ok();
    let mut lines: Vec<&str> = output.stdout.lines().collect();
    lines.sort();
    assert_eq!(lines, expected);
}

/// The shim's listening socket is fd 3, buildah's pipes are 3, 4, 7 and 8; a directory of the
/// host among them would be an escape (CVE-2024-21626).
#[test]
fn row20_inherited_descriptors_do_not_reach_the_container() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    let directory = || OwnedFd::from(File::open("/etc").unwrap());
    let leaky = |command: &str| {
        let call = web.call(command, &[]);
        [3, 4, 7, 8, 20].into_iter().fold(call, |call, number| call.fd(directory(), number))
    };
    leaky("create").run().ok();
    let init = web.init();
    let leaked = |process: Process| process.fds().into_values().any(|to| to.ends_with("etc"));
    assert!(!leaked(init), "{:?}", init.fds());
    leaky("start").run().ok();
    eventually("init runs sleep", || (init.cmdline() == ["sleep", "1000"]).then_some(()));
    assert_eq!(init.fds().into_keys().collect::<Vec<_>>(), [0, 1, 2]);
    let listing = leaky("exec").args(&["ls", "-l", "/proc/self/fd"]).run().ok().stdout;
    assert!(!listing.contains("/etc"), "{listing}");
}

/// While it waits for start, init is inside with an open door: 0, 1, 2, the gate and its error
/// pipe are all that it may hold, and no directory.
#[test]
fn row20_created_init_holds_only_stdio_and_the_gate() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.create().ok();
    let fds = web.init().fds();
    assert!(fds.len() <= 5, "{fds:?}");
    let own = Process::own().path("");
    for (number, to) in fds {
        assert!(!own.join(to.strip_prefix("/").unwrap_or(&to)).is_dir(), "{number} is {to:?}");
    }
}

/// conmon execs the runtime with SIGPIPE ignored; a container would die or hang in odd ways. And
/// glibc's posix_spawn, which our calls go through, leaves its own signals 32 and 33 ignored.
#[test]
fn row21_blocked_and_ignored_signals_do_not_reach_the_container() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.call("create", &[]).before_exec(with_odd_caller).run().ok();
    web.call("start", &[]).before_exec(with_odd_caller).run().ok();
    let init = web.init();
    eventually("init runs sleep", || (init.cmdline() == ["sleep", "1000"]).then_some(()));
    let file = bundle.dir().join("exec.pid");
    let exec = web.call("exec", &["--detach", "--pid-file", file.to_str().unwrap()]);
    exec.args(&["sleep", "999"]).before_exec(with_odd_caller).run().ok();
    let second = Process::of_pid_file(&file);
    for (name, process) in [("init", init), ("exec", second)] {
        let signals = ["SigBlk", "SigIgn"].map(|key| process.status(key));
        assert_eq!(signals, ["0000000000000000", "0000000000000000"], "{name}");
    }
}

/// The runtime may die with its parent; the container must not die with the parent it gets
/// afterwards.
#[test]
fn row21_no_parent_death_signal_reaches_the_container() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    let engine = web.call("create", &[]).under_lazy_parent();
    let init = web.init();
    assert_eq!(init.status("PPid"), engine.process().0.to_string());
    engine.signal(libc::SIGKILL);
    let own = Process::own().0.to_string();
    eventually("init gets another parent", || (init.status("PPid") == own).then_some(()));
    assert_eq!(web.status(), "created");

    web.start().ok();
    let file = bundle.dir().join("exec.pid");
    let exec = web.call("exec", &["--detach", "--pid-file", file.to_str().unwrap()]);
    let engine = exec.args(&["sleep", "999"]).under_lazy_parent();
    let second = Process::of_pid_file(&file);
    engine.signal(libc::SIGKILL);
    eventually("it gets another parent", || (second.status("PPid") == own).then_some(()));
    assert!(second.is_alive() && init.is_alive());
}

/// docker and podman expect 0022 whatever the umask of the daemon is.
#[test]
fn row22_umask_is_0022_whatever_the_callers_is() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.call("create", &[]).before_exec(with_odd_caller).run().ok();
    web.start().ok();
    assert_eq!(web.init().status("Umask"), "0022");
    let exec = web.call("exec", &[]).args(&["sh", "-c", "umask"]).before_exec(with_odd_caller);
    assert_eq!(exec.run().ok().stdout, "0022\n");
}

/// The umask of config.json counts for init and for every exec.
#[test]
fn row22_umask_of_the_config() {
    require!(root);
    let bundle = Bundle::with(|config| config.set("/process/user/umask", 0o027));
    let web = bundle.container("web");
    web.up();
    assert_eq!(web.init().status("Umask"), "0027");
    assert_eq!(web.exec(&["sh", "-c", "umask"]).ok().stdout, "0027\n");
}

/// No engine sets HOME on Linux: it comes from the container's passwd, for exec too.
#[test]
fn row22_home_comes_from_the_passwd_of_the_container() {
    require!(root);
    let bundle = Bundle::with(|config| config.set("/process/user/uid", 1000));
    let passwd = "root:x:0:0:root:/root:/bin/sh\nkim:x:1000:1000::/home/kim:/bin/sh\n";
    fs::write(bundle.rootfs().join("etc/passwd"), passwd).unwrap();
    let web = bundle.container("web");
    web.up();
    let init = web.init();
    eventually("init runs sleep", || (init.cmdline() == ["sleep", "1000"]).then_some(()));
    assert!(init.environ().contains(&"HOME=/home/kim".to_string()), "{:?}", init.environ());
    assert_eq!(web.sh("echo $HOME").ok().stdout, "/home/kim\n");
    let exec = web.call("exec", &["--user", "0"]).args(&["sh", "-c", "echo $HOME"]);
    assert_eq!(exec.run().ok().stdout, "/root\n");
}

/// An image without passwd: `/`, as runc does; crun left it empty.
#[test]
fn row22_home_is_the_root_where_passwd_does_not_know_the_user() {
    require!(root);
    let bundle = Bundle::with(|config| config.sh("echo $HOME").set("/process/user/uid", 4711));
    assert_eq!(bundle.container("web").run().ok().stdout, "/\n");
    fs::remove_file(bundle.rootfs().join("etc/passwd")).unwrap();
    assert_eq!(bundle.container("web").run().ok().stdout, "/\n");
}

/// A HOME that the config gives stays.
#[test]
fn row22_home_of_the_config_stays() {
    require!(root);
    let env = json!([PATH, "HOME=/srv"]);
    let bundle = Bundle::with(|config| config.sh("echo $HOME").set("/process/env", env));
    assert_eq!(bundle.container("web").run().ok().stdout, "/srv\n");
}

/// docker run -e HOME=
#[test]
fn row22_empty_home_of_the_config_is_none() {
    require!(root);
    let env = json!([PATH, "HOME="]);
    let bundle = Bundle::with(|config| config.args(&["env"]).set("/process/env", env));
    let output = bundle.container("web").run().ok();
    assert_eq!(output.stdout, format!("{PATH}\nHOME=/root\n"));
}

/// A command that its own PATH does not find must not be found through ours.
#[test]
fn command_is_looked_up_in_the_path_of_the_container() {
    require!(root);
    let env = json!(["PATH=/opt/tools"]);
    let bundle = Bundle::with(|config| config.args(&["busybox", "true"]));
    bundle.edit(|config| config.set("/process/env", env));
    let web = bundle.container("web");
    web.create().fails_with("executable file not found in $PATH");
    fs::create_dir_all(bundle.rootfs().join("opt/tools")).unwrap();
    let busybox = bundle.rootfs().join("bin/busybox");
    fs::rename(busybox, bundle.rootfs().join("opt/tools/busybox")).unwrap();
    web.run().ok();
}
