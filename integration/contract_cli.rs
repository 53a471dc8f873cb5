//! The global options: where state and log go, which forms of an option are understood.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Bundle, Process, fds, host, onggi};

/// The mode bits of a file.
fn mode(path: impl AsRef<Path>) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Every engine passes --root its own way; CRI-O writes `--root=R`.
#[test]
fn row1_root_with_equals_sign_holds_the_state() {
    require!(root);
    let bundle = Bundle::new();
    let root = format!("--root={}", bundle.root().display());
    let path = bundle.path();
    let create = bundle.onggi_without_root(&[&root, "create", "--bundle"]).arg(&path).arg("web");
    create.run().ok();
    assert_eq!(bundle.state_entries(), ["web"]);
    assert_eq!(bundle.container("web").status(), "created");
}

/// A relative --root belongs to the caller's directory, not to the bundle that create enters.
#[test]
fn row1_relative_root_is_made_absolute() {
    require!(root);
    let bundle = Bundle::new();
    let create = bundle.onggi_without_root(&["--root", "state", "create", "--bundle"]);
    create.arg(bundle.path()).arg("web").cwd(bundle.dir()).run().ok();
    assert_eq!(bundle.state_entries(), ["web"]);
    assert!(!bundle.path().join("state").exists());
    assert_eq!(bundle.container("web").status(), "created");
}

/// State in `/` would make `delete` a danger to the host.
#[test]
fn row1_root_slash_is_refused() {
    require!(root);
    let bundle = Bundle::new();
    let path = bundle.path();
    let create = bundle.onggi_without_root(&["--root", "/", "create", "--bundle"]);
    let created = create.arg(&path).arg(bundle.name()).run();
    let state = Path::new("/").join(bundle.name());
    let made = state.exists();
    let _ = fs::remove_dir_all(state);
    created.fails();
    assert!(!made);
    bundle.assert_clean();
}

/// The state holds the environment of every container: nobody else may read it.
#[test]
fn row1_state_root_is_made_with_mode_0700() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    let create = web.call("create", &[]).before_exec(|| {
        unsafe { libc::umask(0) };
    });
    create.run().ok();
    assert_eq!(mode(bundle.root()), 0o700);
    assert_eq!(mode(bundle.root().join("web")) & 0o066, 0);
}

/// podman and buildkit rely on /run/NAME as root, whatever XDG_RUNTIME_DIR says; podman passes it
/// empty.
#[test]
fn row2_default_root_of_root_ignores_xdg_runtime_dir() {
    require!(root);
    let bundle = Bundle::new();
    let xdg = bundle.dir().join("xdg");
    fs::create_dir(&xdg).unwrap();
    let state = Path::new("/run").join(onggi::name()).join(bundle.name());
    for value in [None, Some(""), xdg.to_str()] {
        let call = |args: &[&str]| match value {
            Some(value) => bundle.onggi_without_root(args).env("XDG_RUNTIME_DIR", value),
            None => bundle.onggi_without_root(args).env_only(&[("PATH", "/usr/bin:/bin")]),
        };
        call(&["create", "--bundle"]).arg(bundle.path()).arg(bundle.name()).run().ok();
        assert!(state.is_dir(), "with XDG_RUNTIME_DIR {value:?}");
        assert_eq!(fs::read_dir(&xdg).unwrap().count(), 0);
        call(&["delete", "--force", bundle.name()]).run().ok();
        assert!(!state.exists());
    }
}

/// rootless podman: the default root of an ordinary user is in XDG_RUNTIME_DIR.
#[test]
fn row2_default_root_of_a_user_is_in_xdg_runtime_dir() {
    require!(root);
    let bundle = Bundle::new();
    let binary = bundle.dir().join(onggi::name());
    fs::copy(onggi::binary(), &binary).unwrap();
    // A container that lost its state: `delete --force` takes its directory away.
    let xdg = bundle.dir().join("xdg");
    let lost = xdg.join(onggi::name()).join("lost");
    fs::create_dir_all(&lost).unwrap();
    for dir in [&xdg, lost.parent().unwrap(), &lost] {
        chown(dir, Some(1000), Some(1000)).unwrap();
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).unwrap();
    }
    let delete = bundle.onggi_without_root(&["delete", "--force", "lost"]).without_log();
    let become_user = || unsafe {
        libc::setgroups(0, std::ptr::null());
        libc::setresgid(1000, 1000, 1000);
        libc::setresuid(1000, 1000, 1000);
    };
    let delete = delete.binary(&binary).env("XDG_RUNTIME_DIR", &xdg).before_exec(become_user);
    delete.run().ok();
    assert!(!lost.exists());
}

/// containerd reads the last line of the log; podman parses it as one JSON object.
#[test]
fn row3_log_line_has_level_msg_and_rfc3339_time() {
    require!(root);
    let bundle = Bundle::new();
    let lines = bundle.onggi(&["state", "nobody"]).run().fails().log();
    let line = lines.last().expect("nothing has been logged");
    assert_eq!(line["level"], "error");
    assert!(line["msg"].as_str().unwrap().contains("does not exist"), "{line}");
    let time = line["time"].as_str().unwrap();
    assert!(is_rfc3339(time), "{time:?}");
}

/// All calls of one container share a log file: an earlier error must not vanish.
#[test]
fn row3_log_is_created_and_appended_to() {
    require!(root);
    let bundle = Bundle::new();
    let log = bundle.dir().join("shared.json");
    let call = || {
        let call = bundle.onggi(&["state", "nobody"]).without_log().global(&["--log"]);
        call.global(&[log.to_str().unwrap(), "--log-format", "json"])
    };
    call().run().fails();
    assert_eq!(mode(&log), 0o644);
    let first = fs::read_to_string(&log).unwrap();
    call().run().fails();
    let both = fs::read_to_string(&log).unwrap();
    assert!(both.starts_with(&first) && both.len() > first.len(), "{both}");
}

/// A relative --log belongs to the caller's directory.
#[test]
fn row3_relative_log_belongs_to_the_callers_directory() {
    require!(root);
    let bundle = Bundle::with(|config| config.args(&["/no/such/command"]));
    let web = bundle.container("web");
    let call = web.call("create", &[]).without_log().cwd(bundle.dir());
    call.global(&["--log", "my.json", "--log-format", "json"]).run().fails();
    assert!(fs::read_to_string(bundle.dir().join("my.json")).unwrap().contains("/no/such/command"));
}

/// podman unmarshals the whole log as one object: a second line hides the message.
#[test]
fn row4_exactly_one_log_line_on_a_failing_command() {
    require!(root);
    let bundle = Bundle::with(|config| config.args(&["/no/such/command"]));
    let web = bundle.container("web");
    let failing = [
        web.create(),
        web.state_call(),
        web.start(),
        web.kill("TERM"),
        web.delete(),
        web.exec(&["true"]),
    ];
    for output in failing {
        let output = output.fails();
        assert_eq!(output.log().len(), 1, "{output}");
    }
}

/// containerd shows the last error of the file, whoever wrote it: a silent failure is reported
/// with the text of an earlier one.
#[test]
fn row5_every_failing_command_logs_an_error_line() {
    require!(root);
    let bundle = Bundle::new();
    fs::create_dir(bundle.dir().join("empty")).unwrap();
    let empty = bundle.dir().join("empty").to_str().unwrap().to_string();
    let taken = bundle.path().to_str().unwrap().to_string();
    let failing: [&[&str]; 18] = [
        &["create", "--bundle", &empty, "web"],
        &["run", "--bundle", &empty, "web"],
        &["start", "web"],
        &["state", "web"],
        &["kill", "web"],
        &["delete", "web"],
        &["pause", "web"],
        &["resume", "web"],
        &["update", "--pids-limit", "5", "web"],
        &["events", "web"],
        &["stats", "web"],
        &["exec", "web", "true"],
        &["ps", "web"],
        &["list", "--format", "nonsense"],
        &["gc", "--nonsense"],
        &["spec", "--bundle", &taken],
        &["check", "--nonsense"],
        &["features", "--nonsense"],
    ];
    fs::create_dir_all(bundle.root()).unwrap();
    for args in failing {
        let output = bundle.onggi(args).run().fails();
        assert!(!output.errors().is_empty(), "not logged: {output}");
        assert!(!output.stderr.is_empty(), "not on stderr: {output}");
    }
    let named: BTreeSet<&str> = failing.iter().map(|args| args[0]).collect();
    let all = commands(&bundle);
    assert_eq!(named, all.iter().map(String::as_str).collect());
}

/// All commands, as `--help` lists them.
fn commands(bundle: &Bundle) -> BTreeSet<String> {
    let help = bundle.onggi_without_root(&["--help"]).without_log().run().ok().stdout;
    let list = help.split_once("Commands:\n").unwrap().1.split_once("\n\n").unwrap().0;
    list.lines().map(|line| line.split_whitespace().next().unwrap().to_string()).collect()
}

/// CRI-O, podman and buildah show stderr; conmon reads it once, so it must be one write.
#[test]
fn row6_stderr_is_the_bare_message_in_one_write() {
    require!(root);
    let bundle = Bundle::with(|config| config.args(&["/no/such/command"]));
    let web = bundle.container("web");
    let (mut stderr, theirs) = fds::socket_pair(libc::SOCK_SEQPACKET);
    let output = web.call("create", &[]).stderr(theirs).run().fails();
    let mut packet = [0; 16384];
    let count = stderr.read(&mut packet).unwrap();
    let text = String::from_utf8_lossy(&packet[..count]);
    assert!(text.contains("/no/such/command: no such file or directory"), "{text}");
    assert!(serde_json::from_str::<Value>(&text).is_err(), "{text}");
    assert!(text.contains(&output.errors()[0]), "{text} is not the message of {output}");
    assert!(fds::at_end(&mut stderr), "a second write");
}

/// conmon keeps at most 8191 bytes: the end of a message without end would be lost.
#[test]
fn row6_stderr_fits_into_8191_bytes() {
    require!(root);
    let bundle = Bundle::new();
    let id = "x".repeat(20000);
    let output = bundle.onggi(&["state", &id]).run().fails();
    assert!(output.stderr.len() <= 8191, "{} bytes", output.stderr.len());
    assert!(output.errors()[0].len() <= 8191);
}

/// Without its log an engine is blind: the command must not go on.
#[test]
fn row7_unopenable_log_is_an_error_and_nothing_is_made() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    let create = web.call("create", &[]).without_log();
    create.global(&["--log", "/no/such/directory/log"]).run().fails_with("/no/such/directory/log");
    bundle.assert_clean();
}

/// CRI-O and docker parse stdout: debug lines go to the log.
#[test]
fn row8_debug_never_writes_to_stdout() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    let debug = |command: &str| web.call(command, &[]).global(&["--debug"]);
    assert_eq!(debug("create").run().ok().stdout, "");
    assert_eq!(debug("start").run().ok().stdout, "");
    assert_eq!(debug("state").run().ok().json()["status"], "running");
    assert_eq!(debug("exec").args(&["echo", "hi"]).run().ok().stdout, "hi\n");
    assert_eq!(debug("kill").arg("KILL").run().ok().stdout, "");
    web.becomes("stopped");
    assert_eq!(debug("delete").run().ok().stdout, "");
}

/// CRI-O passes --systemd-cgroup with every command, not only with create.
#[test]
fn row9_systemd_cgroup_is_accepted_on_every_other_command() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.create().ok();
    let call = |command: &str| web.call(command, &[]).global(&["--systemd-cgroup"]);
    call("start").run().ok();
    assert_eq!(call("state").run().ok().json()["status"], "running");
    assert_eq!(call("exec").args(&["echo", "hi"]).run().ok().stdout, "hi\n");
    assert!(call("ps").run().ok().stdout.contains("sleep"));
    let resources = bundle.dir().join("resources.json");
    fs::write(&resources, "{}").unwrap();
    call("update").arg("--resources").arg(&resources).run().ok();
    call("pause").run().ok();
    assert_eq!(web.status(), "paused");
    call("resume").run().ok();
    assert_eq!(web.status(), "running");
    assert_eq!(call("events").arg("--stats").run().ok().json()["type"], "stats");
    let fresh = bundle.dir().join("fresh");
    fs::create_dir(&fresh).unwrap();
    let spec = ["spec", "--bundle", fresh.to_str().unwrap()];
    for args in [&["list"][..], &["features"], &["stats"], &["gc"], &spec] {
        bundle.onggi(args).global(&["--systemd-cgroup"]).run().ok();
    }
    call("kill").arg("KILL").run().ok();
    web.becomes("stopped");
    call("delete").run().ok();
    bundle.assert_clean();
}

/// A container that the engine believes to be in a scope must not land in a cgroup of ours.
#[test]
fn row9_create_and_run_with_systemd_cgroup_never_fall_back_to_cgroupfs() {
    require!(root);
    let bundle = Bundle::new();
    let path = format!("system.slice:onggi:{}", bundle.name());
    bundle.edit(|config| config.set("/linux/cgroupsPath", path));
    let web = bundle.container("web");
    for options in [&["create"][..], &["run", "--detach"]] {
        let made = web.call(options[0], &options[1..]).global(&["--systemd-cgroup"]).run();
        if made.code() == 0 {
            let cgroups = web.init().cgroups();
            assert!(cgroups.values().any(|path| path.ends_with(".scope")), "{cgroups:?}");
            web.delete_force().ok();
        } else {
            // The driver is not there; the option is.
            made.fails_with("systemd unit ");
        }
        bundle.assert_clean();
    }
}

/// podman `--cgroups=disabled`: no cgroup is made, and later calls know it without the flag.
#[test]
fn row10_row11_cgroup_manager_disabled_is_kept_in_the_state() {
    require!(root);
    let bundle = Bundle::new();
    bundle.edit(|config| {
        for mount in config["mounts"].as_array_mut().unwrap() {
            if mount["type"] == "cgroup" {
                mount["options"] = json!(["nosuid", "noexec", "nodev", "relatime"]);
            }
        }
        config
    });
    let web = bundle.container("web");
    web.call("create", &[]).global(&["--cgroup-manager", "disabled"]).run().ok();
    web.start().ok();
    assert!(host::cgroups_of(bundle.name()).is_empty());
    assert_eq!(web.init().cgroups(), Process::own().cgroups());
    assert_eq!(web.sh("echo hi").ok().stdout, "hi\n");
    // What it is in, which is the caller's.
    assert_ne!(web.sh("ls -A /sys/fs/cgroup").ok().stdout, "");
    let mounts = web.init().mounts().into_iter();
    for mount in mounts.filter(|mount| mount.fstype.starts_with("cgroup")) {
        assert!(mount.options.split(',').any(|option| option == "ro"), "{mount:?}");
    }
    web.kill("KILL").ok();
    web.becomes("stopped");
    web.delete().ok();
}

/// go-runc writes `--rootless=true`; older containerd passes --criu.
#[test]
fn row12_rootless_and_criu_options_are_accepted() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.create().ok();
    for option in ["--rootless=true", "--rootless=false", "--rootless=auto", "--criu=/no/criu"] {
        let state = web.call("state", &[]).global(&[option]).run().ok();
        assert_eq!(state.json()["status"], "created", "{option}");
    }
    web.call("state", &[]).global(&["--rootless", "auto", "--criu", "criu"]).run().ok();
}

/// docker's wrapper for runtimeArgs is a shell script: the shim is then the grandparent.
#[test]
fn row16_works_as_the_grandchild_of_a_shell() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    let pid_file = bundle.dir().join("pid");
    let create = web.call("create", &["--pid-file", pid_file.to_str().unwrap()]);
    create.through(&["/bin/sh", "-c", "\"$0\" \"$@\"; exit $?"]).run().ok();
    let init = web.init();
    assert_eq!(fs::read_to_string(pid_file).unwrap(), init.0.to_string());
    assert_eq!(init.status("PPid"), Process::own().0.to_string());
    web.call("start", &[]).through(&["/bin/sh", "-c", "\"$0\" \"$@\"; exit $?"]).run().ok();
    assert_eq!(web.status(), "running");
}

/// `2026-11-20T18:57:18Z`, with or without a fraction, `Z` or an offset.
fn is_rfc3339(time: &str) -> bool {
    let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let Some(rest) = shape.strip_prefix("0000-00-00T00:00:00") else { return false };
    let zone = rest.strip_prefix('.').map_or(rest, |rest| rest.trim_start_matches('0'));
    ["Z", "+00:00", "-00:00"].contains(&zone)
}
