//! What the processes of a container see of one that enters it by exec: nothing of the host.

use std::fs;

use serde_json::json;

use crate::support::{Bundle, Container, eventually};

/// A container whose init looks at each new process as fast as it can and notes what `look` finds in /proc/$n.
fn watching(look: &str, capabilities: &[&str], uid: u32) -> Bundle {
    let numbers: Vec<String> = (2..45).map(|number| number.to_string()).collect();
    let script = format!(
        "echo up > /seen; while [ ! -e /stop ]; do for n in {}; do {look} && echo \"seen $n\" >> /seen; \
         done; done 2> /dev/null; exec sleep 1000",
        numbers.join(" ")
    );
    let bundle = Bundle::sh(&script);
    bundle.edit(|config| {
        for set in ["bounding", "effective", "permitted"] {
            config.set(&format!("/process/capabilities/{set}"), json!(capabilities));
        }
        config.set("/process/user/uid", uid)
    });
    let rootfs = bundle.rootfs();
    fs::write(rootfs.join("seen"), "").unwrap();
    for path in [&rootfs, &rootfs.join("seen")] {
        std::os::unix::fs::chown(path, Some(uid), None).unwrap();
    }
    bundle
}

#[track_caller]
fn assert_sees_nothing(bundle: &Bundle, web: &Container<'_>, exec: &[&str]) {
    let seen = bundle.rootfs().join("seen");
    web.up();
    eventually("it watches", || fs::read_to_string(&seen).ok().filter(|text| !text.is_empty()));
    for _ in 0..40 {
        web.call("exec", exec).args(&["true"]).run().ok();
    }
    fs::write(bundle.rootfs().join("stop"), "").unwrap();
    let seen = fs::read_to_string(&seen).unwrap();
    assert!(seen == "up\n", "{} times", seen.lines().count() - 1);
}

/// `CAP_SYS_PTRACE`, which debuggers ask for, looks at what is not dumpable, too.
/// Notices: the first child, which enters the mount namespace before anybody sees it.
#[test]
fn exec_never_shows_the_hosts_root_to_a_container_that_may_trace() {
    require!(root);
    let other = Bundle::new();
    let look = format!("[ -e /proc/$n/root{} ]", other.dir().display());
    let bundle = watching(&look, &["CAP_SYS_PTRACE", "CAP_KILL"], 0);
    assert_sees_nothing(&bundle, &bundle.container("web"), &[]);
}

/// Nor a descriptor of the runtime: of its state, its log, its cgroups.
/// Notices: that the first child closes them.
#[test]
fn exec_never_shows_the_runtimes_descriptors_to_a_container_that_may_trace() {
    require!(root);
    // What is left is its line to the parent, a socket.
    let some: Vec<String> =
        (3..16).map(|fd| format!("[ -d /proc/$n/fd/{fd} ] || [ -f /proc/$n/fd/{fd} ]")).collect();
    let look = format!("{{ {}; }}", some.join(" || "));
    let bundle = watching(&look, &["CAP_SYS_PTRACE", "CAP_KILL"], 0);
    assert_sees_nothing(&bundle, &bundle.container("web"), &[]);
}

/// The command line is for every user to read.
/// Notices: `forget_arguments`.
#[test]
fn exec_never_shows_the_runtimes_command_line_to_the_container() {
    require!(root);
    let look = "{ read -r x < /proc/$n/cmdline; [ -z \"${x##*s3cret*}\" ] && [ -n \"$x\" ]; }";
    let bundle = watching(look, &[], 1000);
    let exec = ["--user", "0", "--env", "PASSWORD=s3cret"];
    assert_sees_nothing(&bundle, &bundle.container("web"), &exec);
}
