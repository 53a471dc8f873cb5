//! The table of docs/compatibility.md: each cgroup driver, as root and as an ordinary user, with create,
//! exec, update, pause, events and delete. hack/test-vm runs this as root, as a user in a session of its
//! own, and as one without.

use std::fs;
use std::path::PathBuf;

use crate::rootless_session::own;
use crate::support::{Bundle, Container, Process, host};

/// Where init's number of processes is limited.
fn pids_max(init: Process) -> PathBuf {
    let cgroups = init.cgroups();
    let (name, path) = cgroups
        .iter()
        .find(|(name, _)| if host::is_v2() { name.is_empty() } else { *name == "pids" })
        .unwrap();
    let root = if host::is_v2() { host::CGROUP_ROOT.into() } else { host::v1_dir(name).unwrap() };
    root.join(path.trim_start_matches('/')).join("pids.max")
}

fn up<'b>(bundle: &'b Bundle, driver: &str) -> Container<'b> {
    let web = bundle.container(bundle.name());
    let driver = format!("--cgroup-manager={driver}");
    web.call("create", &[]).global(&[&driver]).run().ok();
    web.start().ok();
    web
}

fn end(bundle: &Bundle, web: &Container<'_>) {
    web.kill("KILL").ok();
    web.becomes("stopped");
    web.delete().ok();
    bundle.assert_clean();
    let second = web.call("delete", &[]).run();
    second.fails_with("container does not exist");
}

/// All six commands, of which every one must do what it says.
fn full_life(bundle: &Bundle, driver: &str) {
    let web = up(bundle, driver);
    let file = pids_max(web.init());
    assert!(file.to_str().unwrap().contains(bundle.name()), "no cgroup of its own: {file:?}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "55\n");
    let exec = web.exec(&["sh", "-c", "cat /proc/self/cgroup /proc/1/cgroup | sort | uniq -u"]);
    assert_eq!(exec.ok().stdout, "", "exec is elsewhere");
    web.call("update", &["--pids-limit", "44"]).run().ok();
    assert_eq!(fs::read_to_string(&file).unwrap(), "44\n");
    web.call("pause", &[]).run().ok();
    assert_eq!(web.status(), "paused");
    web.call("resume", &[]).run().ok();
    assert_eq!(web.status(), "running");
    let stats = web.call("events", &["--stats"]).run().ok().json();
    assert_eq!(stats["data"]["pids"]["limit"], 44, "{stats}");
    end(bundle, &web);
}

/// No cgroup of its own: what needs one says so.
fn life_without_a_cgroup(bundle: &Bundle, driver: &str) {
    let web = up(bundle, driver);
    assert!(!web.init().cgroups().values().any(|path| path.contains(bundle.name())));
    assert_eq!(web.exec(&["echo", "hello"]).ok().stdout, "hello\n");
    web.call("update", &["--pids-limit", "44"]).run().fails_with("the container has no cgroup");
    web.call("pause", &[]).run().fails_with("no cgroup");
    web.call("events", &["--stats"]).run().fails_with("no cgroup");
    end(bundle, &web);
}

fn limited(bundle: Bundle, path: &str) -> Bundle {
    bundle.edit(|config| config.set("/linux/resources/pids/limit", 55));
    bundle.edit(|config| config.set("/linux/cgroupsPath", path.replace("NAME", bundle.name())));
    bundle
}

#[test]
fn drivers_cgroupfs_as_root() {
    require!(root, controller("pids"));
    full_life(&limited(Bundle::new(), "/NAME"), "cgroupfs");
}

#[test]
fn drivers_systemd_as_root() {
    require!(root, controller("pids"), systemd());
    full_life(&limited(Bundle::new(), "system.slice:it:NAME"), "systemd");
}

#[test]
fn drivers_disabled_as_root() {
    require!(root);
    let bundle = Bundle::with(|config| config.remove("/linux/resources"));
    life_without_a_cgroup(&bundle, "disabled");
}

#[test]
fn drivers_cgroupfs_as_a_user_in_a_session() {
    require!(user, session, v2_controller("pids"));
    let bundle = own(|config| config.set("/linux/resources/pids/limit", 55));
    full_life(&bundle, "cgroupfs");
}

#[test]
fn drivers_systemd_as_a_user_in_a_session() {
    require!(user, session, systemd(), v2_controller("pids"));
    full_life(&limited(own(|config| config), "user.slice:it:NAME"), "systemd");
}

/// Nobody has delegated anything.
#[test]
fn drivers_cgroupfs_as_a_user_alone() {
    require!(user, no_session);
    life_without_a_cgroup(&own(|config| config), "cgroupfs");
}

/// Nor is there a systemd of the user's own that could be asked.
#[test]
fn drivers_systemd_as_a_user_alone_is_refused() {
    require!(user, no_session);
    let bundle = own(|config| config);
    let web = bundle.container(bundle.name());
    web.call("create", &[]).global(&["--systemd-cgroup"]).run().fails_with("XDG_RUNTIME_DIR");
    bundle.assert_clean();
}

#[test]
fn drivers_disabled_as_a_user() {
    require!(user);
    life_without_a_cgroup(&own(|config| config), "disabled");
}
