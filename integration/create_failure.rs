//! create that fails: what it says, and that nothing is left.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use serde_json::json;

use crate::support::{Bundle, Output, eventually, fds, host, reaper};

/// A bundle whose command is a file of the rootfs with this content and mode.
fn command_file(content: &str, mode: u32) -> Bundle {
    let bundle = Bundle::with(|config| config.args(&["/tool"]));
    let tool = bundle.rootfs().join("tool");
    fs::write(&tool, content).unwrap();
    fs::set_permissions(&tool, fs::Permissions::from_mode(mode)).unwrap();
    bundle
}

fn create(bundle: &Bundle) -> Output {
    let web = bundle.container("web");
    let output = web.create().fails();
    bundle.assert_clean();
    output
}

/// docker and podman answer 127 when they see this text, and only from create.
#[test]
fn row36_missing_bare_command_fails_in_create() {
    require!(root);
    let bundle = Bundle::with(|config| config.args(&["no-such-command"]));
    let text = r#"exec: "no-such-command": executable file not found in $PATH"#;
    let output = create(&bundle).fails_with(text);
    assert!(output.errors()[0].contains(text), "{output}");
}

/// The shape that all of docker, podman and containerd understand.
#[test]
fn row36_missing_path_fails_in_create() {
    require!(root);
    let bundle = Bundle::with(|config| config.args(&["/no/such/command"]));
    let text = r#"exec: "/no/such/command": stat /no/such/command: no such file or directory"#;
    create(&bundle).fails_with(text);
}

/// podman looks for the permission patterns first: a word of the clean-up would make 126 of 127.
#[test]
fn row36_missing_command_says_nothing_of_permissions() {
    require!(root);
    for command in ["no-such-command", "/no/such/command"] {
        let bundle = Bundle::with(|config| config.args(&[command]));
        let text = create(&bundle).stderr.to_lowercase();
        for word in ["permission denied", "operation not permitted", "is a directory"] {
            assert!(!text.contains(word), "{text}");
        }
    }
}

/// docker and podman answer 126.
#[test]
fn row37_file_that_is_not_executable_is_permission_denied() {
    require!(root);
    let bundle = command_file("#!/bin/sh\n", 0o644);
    let text = create(&bundle).fails_with("permission denied").stderr;
    assert!(text.contains("/tool") && !text.contains("no such file"), "{text}");
}

/// docker looks for `is a directory`, podman for `permission denied`.
#[test]
fn row37_directory_as_command_is_permission_denied() {
    require!(root);
    let bundle = Bundle::with(|config| config.args(&["/tmp"]));
    create(&bundle).fails_with("permission denied").fails_with("is a directory");
}

/// A script whose interpreter is missing is only found out by execve: start reports it.
#[test]
fn row37_missing_interpreter_is_reported_by_start() {
    require!(root);
    let bundle = command_file("#!/no/such/interpreter\n", 0o755);
    let web = bundle.container("web");
    web.create().ok();
    let text = web.start().fails_with("no such file or directory").stderr;
    assert!(text.contains("/tool"), "{text}");
    web.becomes("stopped");
}

/// A file that is no program (ENOEXEC) is reported by start, too.
#[test]
fn row37_exec_format_error_is_reported_by_start() {
    require!(root);
    let bundle = command_file("\x7fELF this is not", 0o755);
    let web = bundle.container("web");
    web.create().ok();
    web.start().fails_with("exec format error");
}

/// Every way to fail late, with namespaces, cgroups and mounts already made, leaves nothing.
#[test]
fn row38_failed_create_leaves_nothing_missing_command() {
    require!(root);
    create(&Bundle::with(|config| config.args(&["/no/such/command"])));
}

/// A hook fails when namespaces and cgroup are already there.
#[test]
fn row38_failed_create_leaves_nothing_create_hooks() {
    require!(root);
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let bundle = Bundle::with(|config| config.hook(kind, "/bin/sh", &["sh", "-c", "exit 3"]));
        create(&bundle);
    }
}

/// A typical slip of users; docker shows the text.
#[test]
fn row38_failed_create_leaves_nothing_mount_source() {
    require!(root);
    let bundle = Bundle::with(|config| config.bind("/no/such/source", "/mnt", &["rbind"]));
    create(&bundle).fails_with("/no/such/source").fails_with("no such file or directory");
}

/// The file system itself refuses.
#[test]
fn row38_failed_create_leaves_nothing_filesystem_option() {
    require!(root);
    let mount = json!({ "destination": "/mnt", "type": "tmpfs", "source": "tmpfs",
                        "options": ["size=nonsense"] });
    create(&Bundle::with(|config| config.push("/mounts", mount)));
}

/// Nothing can be mounted at all.
#[test]
fn row38_failed_create_leaves_nothing_missing_rootfs() {
    require!(root);
    create(&Bundle::with(|config| config.set("/root/path", "no-such-rootfs")));
}

/// The last thing but one that init does.
#[test]
fn row38_failed_create_leaves_nothing_bad_cwd() {
    require!(root);
    let bundle = Bundle::with(|config| config.set("/process/cwd", "/bin/busybox"));
    create(&bundle).fails_with("not a directory");
}

/// A namespace of the wrong kind must not be joined.
#[test]
fn row38_failed_create_leaves_nothing_namespace_path() {
    require!(root);
    let bundle = Bundle::with(|config| config.join_namespace("network", "/proc/self/ns/uts"));
    create(&bundle);
}

/// conmon reads stderr until it ends: a process that still holds it blocks podman.
#[test]
fn row39_after_a_failed_create_nobody_holds_stdout_and_stderr() {
    require!(root);
    let bundle = Bundle::with(|config| config.args(&["/no/such/command"]));
    let web = bundle.container("web");
    let (mut stdout, out) = fds::pipe();
    let (mut stderr, err) = fds::pipe();
    web.call("create", &[]).stdout(out).stderr(err).run().fails();
    assert_eq!(fds::read_to_end(&mut stdout), "");
    assert!(fds::read_to_end(&mut stderr).contains("/no/such/command"));
}

/// podman tries again with the same id.
#[test]
fn row40_same_id_can_be_created_right_after_a_failure() {
    require!(root);
    let bundle = Bundle::with(|config| config.args(&["/no/such/command"]));
    let web = bundle.container("web");
    web.create().fails();
    bundle.edit(|config| config.args(&["sleep", "1000"]));
    web.create().ok();
    assert_eq!(web.status(), "created");
}

/// The second create must not disturb the first container.
#[test]
fn row41_duplicate_id_is_refused_and_the_container_lives_on() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let init = web.init();
    let second = web.create().fails();
    assert!(second.stderr.contains("container with given ID already exists"), "{second}");
    assert_eq!((web.status().as_str(), web.init()), ("running", init));
}

/// An id becomes a directory, a cgroup and a key: what is not a plain name is refused (T22).
#[test]
fn row41_bad_ids_are_refused() {
    require!(root);
    let bundle = Bundle::new();
    let long = "x".repeat(1025);
    for id in ["a/b", "../web", ".", "..", "", "a b", "a\nb", "ü", "a\u{1b}[1m", &long] {
        let call = bundle.onggi(&["create", "--bundle"]).arg(bundle.path()).arg(id);
        let output = call.run().fails();
        assert!(output.stderr.trim_end().lines().count() == 1, "{output}");
        assert!(!output.stderr.contains('\u{1b}'), "{output}");
    }
    let call = bundle.onggi(&["create", "--bundle"]).arg(bundle.path()).arg("a/b");
    call.run().fails_with("invalid container ID format");
    bundle.assert_clean();
}

/// The ids that engines use: digests, names with dots, plus and underscore.
#[test]
fn row41_good_ids_are_accepted() {
    require!(root);
    let bundle = Bundle::new();
    let digest = "0123456789abcdef".repeat(4);
    for id in [digest.as_str(), "a.b-c_d+e", "1"] {
        let web = bundle.container(id);
        web.create().ok();
        assert_eq!(web.state()["id"], id);
        web.remove();
    }
}

/// containerd's shim is killed and runs `delete --force`: whatever create has done goes.
#[test]
fn row52_runtime_killed_in_a_hook_is_cleaned_up_by_delete_force() {
    require!(root);
    for kind in ["prestart", "createRuntime"] {
        let bundle =
            Bundle::with(|config| config.hook(kind, "/bin/sh", &["sh", "-c", "kill -9 $PPID"]));
        let web = bundle.container("web");
        assert_eq!(web.create().signal(), Some(libc::SIGKILL), "{kind}");
        web.delete_force().ok();
        // The hook's own shell may need a moment to end.
        eventually("no process is left", || {
            host::processes_of(bundle.name()).is_empty().then_some(())
        });
        bundle.assert_clean();
        bundle.edit(|config| config.remove("/hooks"));
        web.create().ok();
        assert_eq!(web.status(), "created");
    }
}

/// The same at forty other moments, spread over the time that an undisturbed create takes. Where
/// exactly each hits differs from run to run, but the outcome must not.
#[test]
fn row52_runtime_killed_at_any_moment_is_cleaned_up_by_delete_force() {
    require!(root);
    let bundle = Bundle::with(|config| config.hook("createRuntime", "/bin/true", &["true"]));
    let web = bundle.container("web");
    let begin = Instant::now();
    web.create().ok();
    let whole = begin.elapsed();
    web.delete_force().ok();
    for step in 0..40 {
        let moment = whole * step / 40;
        let create = web.call("create", &[]).spawn();
        if reaper::wait(create.process().0, moment).is_none() {
            let _ = create.process().kill(libc::SIGKILL);
        }
        eventually("create has ended", || create.has_ended().then_some(()));
        web.delete_force().ok();
        // A child that the runtime had no time to write down ends by itself, but not at once.
        eventually("no process is left", || {
            host::processes_of(bundle.name()).is_empty().then_some(())
        });
        let left = bundle.leftovers();
        assert!(left.is_empty(), "killed after {moment:?} of {whole:?}: {left:#?}");
    }
}

/// Not the runtime but the half-made init is killed, by the OOM killer for example.
#[test]
fn row38_failed_create_leaves_nothing_when_init_is_killed() {
    require!(root);
    let script = "kill -9 $(sed -n 's/.*\"pid\": *\\([0-9]*\\).*/\\1/p')";
    let bundle =
        Bundle::with(|config| config.hook("createRuntime", "/bin/sh", &["sh", "-c", script]));
    create(&bundle);
}

/// "Killed" alone would send people looking for a bug.
#[test]
fn create_that_dies_of_oom_says_so() {
    require!(root, controller("memory"));
    for limit in [4096, 16 << 10, 48 << 10] {
        let bundle = Bundle::with(|config| config.set("/linux/resources/memory/limit", limit));
        let output = create(&bundle);
        assert_eq!(output.log()[0]["code"], "E_OOM_AT_START", "{output}");
        assert!(output.stderr.contains("OOM-killed (memory limit too low?)"), "{output}");
    }
}

/// The cgroups above the container's that were made for it go, too; those that were there, or that somebody else
/// uses, stay.
#[test]
fn create_that_fails_takes_the_parent_cgroups_back_that_it_made() {
    require!(root);
    let bundle = Bundle::with(|config| config.args(&["/no/such/command"]));
    let path = format!("/{}/a/b", bundle.name());
    bundle.edit(|config| config.set("/linux/cgroupsPath", path.as_str()));
    create(&bundle);
    let tops: Vec<_> =
        host::hierarchies().into_iter().map(|root| root.join(bundle.name())).collect();
    for top in &tops {
        fs::create_dir(top).unwrap();
    }
    bundle.container("web").create().fails();
    for top in &tops {
        assert!(!top.join("a").exists(), "{top:?}");
        fs::remove_dir(top).unwrap();
    }
    let script = format!("mkdir {}/a/other", tops[0].display());
    bundle.edit(|config| {
        config.hook("createRuntime", "/bin/sh", &["sh", "-c", &script]);
        config.hook("createRuntime", "/bin/false", &["false"])
    });
    bundle.container("web").create().fails();
    let other = tops[0].join("a/other");
    assert!(other.is_dir() && !tops[0].join("a/b").exists());
    for dir in other.ancestors().take(3) {
        fs::remove_dir(dir).unwrap();
    }
    bundle.assert_clean();
}
