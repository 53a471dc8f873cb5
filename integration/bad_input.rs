//! What people get wrong, and the exit codes that docker and podman make of our words for it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use serde_json::json;

use crate::support::{Bundle, Output, host};

/// docker's rule: on the whole message, in this order, case folded (moby, daemon/errors.go).
fn docker_exit_code(message: &str) -> i32 {
    let message = message.to_lowercase();
    let has = |text: &str| message.contains(text);
    if has("permission denied") || has("is a directory") {
        126
    } else if has("not a directory")
        || has("executable file not found")
        || has("no such file or directory")
    {
        127
    } else {
        125
    }
}

/// podman's rule: what is forbidden comes before what is missing (libpod, oci_util.go).
fn podman_exit_code(message: &str) -> i32 {
    let message = message.to_lowercase();
    let has = |text: &str| message.contains(text);
    if has("permission denied") || has("operation not permitted") {
        126
    } else if has("executable file not found in") || has("no such file or directory") {
        127
    } else {
        125
    }
}

/// A rootfs with commands of every bad kind.
fn bundle_of_bad_commands() -> Bundle {
    let bundle = Bundle::new();
    let file = |name: &str, text: &str, mode| {
        fs::write(bundle.rootfs().join(name), text).unwrap();
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(bundle.rootfs().join(name), mode).unwrap();
    };
    file("plain", "#!/bin/sh\n", 0o644);
    file("bin/plain-in-path", "#!/bin/sh\n", 0o644);
    file("bad-interpreter", "#!/no/such/interpreter\n", 0o755);
    file("interpreter-is-a-directory", "#!/tmp\n", 0o755);
    file("windows-line-ends", "#!/bin/sh\r\necho hello\r\n", 0o755);
    symlink("/no/such/target", bundle.rootfs().join("dangling")).unwrap();
    bundle
}

/// Each bad command, what docker and podman must answer, and a part of what they show. podman has no
/// pattern for a path through a file, nor has docker's answer changed by it.
const BAD_COMMANDS: &[(&str, i32, i32, &str)] = &[
    ("no-such-command", 127, 127, r#"exec: "no-such-command": executable file not found in $PATH"#),
    ("/no/such/command", 127, 127, "/no/such/command: no such file or directory"),
    ("./relative", 127, 127, "no such file or directory"),
    ("/dangling", 127, 127, "no such file or directory"),
    ("/plain", 126, 126, r#"exec: "/plain": permission denied"#),
    ("plain-in-path", 126, 126, "permission denied"),
    ("/tmp", 126, 126, r#"exec: "/tmp": is a directory: permission denied"#),
    ("/plain/x", 127, 125, "not a directory"),
    ("/bad-interpreter", 127, 127, "/bad-interpreter"),
    ("/interpreter-is-a-directory", 126, 126, "permission denied"),
    ("/windows-line-ends", 127, 127, "/windows-line-ends"),
];

#[track_caller]
fn check(output: &Output, command: &str, docker: i32, podman: i32, text: &str) {
    assert!(output.stderr.contains(text), "{command}: {output}");
    assert_eq!(docker_exit_code(&output.stderr), docker, "docker, {command}: {output}");
    assert_eq!(podman_exit_code(&output.stderr), podman, "podman, {command}: {output}");
    // What containerd and podman read.
    assert!(output.errors()[0].contains(text), "{command}: {output}");
}

#[test]
fn bad_command_gives_dockers_and_podmans_127_and_126() {
    require!(root);
    let bundle = bundle_of_bad_commands();
    for (command, docker, podman, text) in BAD_COMMANDS {
        bundle.edit(|config| config.args(&[command]));
        let web = bundle.container("web");
        let created = web.create();
        // What only execve(2) knows is told by start; all else by create, which then leaves nothing.
        let output = if created.code() == 0 { web.start().fails() } else { created };
        check(&output, command, *docker, *podman, text);
        web.delete_force().ok();
        bundle.assert_clean();
    }
}

#[test]
fn bad_command_of_exec_gives_dockers_and_podmans_127_and_126() {
    require!(root);
    let bundle = bundle_of_bad_commands();
    let web = bundle.container("web");
    web.up();
    for (command, docker, podman, text) in BAD_COMMANDS {
        let output = web.exec(&[command]).exits(255);
        check(&output, command, *docker, *podman, text);
    }
    assert_eq!(web.status(), "running");
}

/// The first container of many people: an exported tree with nothing but a program.
#[test]
fn image_without_etc_passwd_runs_and_can_be_entered() {
    require!(root);
    let bundle = Bundle::with(|config| config.set("/process/user", json!({ "uid": 7, "gid": 8 })));
    fs::remove_dir_all(bundle.rootfs().join("etc")).unwrap();
    let web = bundle.container("web");
    web.up();
    assert_eq!(web.sh("id -u; id -g; echo $HOME").ok().stdout, "7\n8\n/\n");
    let root = web.call("exec", &["--user", "0:0"]).args(&["id", "-u"]);
    assert_eq!(root.run().ok().stdout, "0\n");
}

/// Users are numbers here; engines look names up. One that passwd does not have is as good as any.
#[test]
fn user_that_does_not_exist_in_the_image() {
    require!(root);
    let bundle = Bundle::with(|config| config.set("/process/user/uid", 54321));
    let web = bundle.container("web");
    web.up();
    assert_eq!(web.sh("id -u").ok().stdout, "54321\n");
    let other = web.call("exec", &["--user", "12345:54321"]).args(&["sh", "-c", "id -u; id -g"]);
    assert_eq!(other.run().ok().stdout, "12345\n54321\n");
    for name in ["kim", "kim:wheel", "1000:wheel", "-1"] {
        let output = web.call("exec", &["--user", name]).args(&["true"]).run();
        let output = output.exits(255);
        assert!(output.stderr.contains("--user"), "{name}: {output}");
    }
}

/// The hint that docker adds ("Are you trying to mount a directory onto a file?") needs its phrase, and
/// the person needs both names.
#[test]
fn volume_that_is_a_file_where_a_directory_is_expected() {
    require!(root);
    let bundle = Bundle::new();
    let file = bundle.dir().join("volume");
    fs::write(&file, "").unwrap();
    let file = file.to_str().unwrap().to_owned();
    bundle.edit(|config| config.bind(&file, "/tmp", &["rbind", "rw"]));
    let web = bundle.container("web");
    let output = web.create().fails().fails_with("not a directory");
    let names = format!("the file {file} onto the directory /tmp");
    assert!(output.stderr.contains(&names), "{output}");
    assert_eq!(docker_exit_code(&output.stderr), 127, "{output}");
    bundle.assert_clean();

    // A path below a file, which people write when a file name is missing a part.
    bundle.edit(|config| {
        config.remove("/mounts").set("/mounts", json!([]));
        config.bind(&format!("{file}/data"), "/mnt", &["rbind"])
    });
    let web = bundle.container("web");
    web.create().fails_with("not a directory");
    bundle.assert_clean();
}

/// docker and a kubelet on one machine: each has a state root, a cgroup parent and its own idea of ids.
#[test]
fn same_id_under_different_roots_are_two_containers() {
    require!(root);
    let bundle = Bundle::new();
    let other_root = bundle.dir().join("other-root");
    let other = |command: &str, more: &[&str]| {
        let call = bundle.onggi(&[command, "--root", other_root.to_str().unwrap()]);
        call.args(more).arg("web")
    };
    let other_bundle = bundle.dir().join("other-bundle");
    fs::create_dir_all(&other_bundle).unwrap();
    let mut config = bundle.config();
    config.set("/linux/cgroupsPath", host::cgroups_path(&format!("{}-other", bundle.name())));
    config.set("/root/path", bundle.rootfs().to_str().unwrap());
    fs::write(other_bundle.join("config.json"), config.0.to_string()).unwrap();

    let web = bundle.container("web");
    web.up();
    other("create", &["--bundle", other_bundle.to_str().unwrap()]).run().ok();
    other("start", &[]).run().ok();
    other("kill", &[]).args(&["KILL"]).run().ok();
    assert_eq!(web.status(), "running");
    other("delete", &["--force"]).run().ok();
    web.sh("true").ok();
    assert_eq!(web.status(), "running");
    web.stop();
}

/// Two engines that even name the same cgroup: the second is refused, and its clean-up harms nobody.
#[test]
fn same_id_and_cgroup_under_different_roots_is_refused() {
    require!(root);
    let bundle = Bundle::new();
    let other_root = bundle.dir().join("other-root");
    let other_root = ["--root", other_root.to_str().unwrap()];
    let web = bundle.container("web");
    web.up();
    web.call("create", &other_root).run().fails_with("cgroup");
    web.call("delete", &other_root).args(&["--force"]).run().ok();
    web.sh("true").ok();
    assert_eq!(web.status(), "running");
    web.stop();
}
