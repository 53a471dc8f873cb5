//! The six kinds of hooks: order, namespaces, state, environment. (Those that fail: hooks_failure.rs.)

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::{Bundle, Config, Process, eventually, fds};

const KINDS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
pub const CREATE_KINDS: [&str; 3] = ["prestart", "createRuntime", "createContainer"];

/// Adds a hook that runs a shell script. The bundle's own directory is `$0` on the host; in the
/// container it is `/out`, which `recorder` has bound.
pub fn script(config: &mut Config, bundle: &Bundle, kind: &str, text: &str) {
    let dir = match kind {
        "startContainer" => "/out".to_string(),
        _ => bundle.dir().join("share-out").to_str().unwrap().to_string(),
    };
    config.hook(kind, "/bin/sh", &["sh", "-c", text, &dir]);
}

/// A bundle and the directory that hooks of every kind can write to as `$0`.
pub fn recorder() -> (Bundle, PathBuf) {
    let bundle = Bundle::new();
    let dir = bundle.share("/out");
    (bundle, dir)
}

/// Adds the same script to all kinds; `KIND` in it is replaced.
fn all_kinds(bundle: &Bundle, text: &str) {
    bundle.edit(|config| {
        for kind in KINDS {
            script(config, bundle, kind, &text.replace("KIND", kind));
        }
        config
    });
}

pub fn read(dir: &std::path::Path, name: &str) -> String {
    fs::read_to_string(dir.join(name)).unwrap_or_default()
}

#[test]
fn six_kinds_run_in_order_and_each_at_its_time() {
    require!(root);
    let (bundle, dir) = recorder();
    all_kinds(&bundle, "echo KIND >> $0/order");
    bundle.edit(|config| {
        script(config, &bundle, "prestart", "echo prestart-2 >> $0/order");
        script(config, &bundle, "poststop", "echo poststop-2 >> $0/order");
        config.args(&["sh", "-c", "echo process >> /out/order; exec sleep 1000"])
    });
    let web = bundle.container("web");
    web.create().ok();
    let created = "prestart\nprestart-2\ncreateRuntime\ncreateContainer\n";
    assert_eq!(read(&dir, "order"), created);
    web.start().ok();
    let order = eventually("the process has started", || {
        let order = read(&dir, "order");
        order.contains("process").then_some(order)
    });
    let rest: Vec<&str> = order.strip_prefix(created).unwrap().lines().collect();
    assert_eq!(rest[0], "startContainer");
    assert!(rest[1..].contains(&"poststart") && rest.len() == 3, "{rest:?}");
    web.stop();
    assert!(!read(&dir, "order").contains("poststop"));
    web.delete().ok();
    assert!(read(&dir, "order").ends_with("poststop\npoststop-2\n"), "{}", read(&dir, "order"));
}

#[test]
fn run_in_the_foreground_runs_all_six_kinds() {
    require!(root);
    let (bundle, dir) = recorder();
    all_kinds(&bundle, "echo KIND >> $0/order");
    bundle.edit(|config| config.args(&["true"]));
    bundle.container("web").run().ok();
    let order = read(&dir, "order");
    let mut seen: Vec<&str> = order.lines().collect();
    assert_eq!((seen[0], seen[5]), ("prestart", "poststop"));
    seen.sort_unstable();
    let mut all =
        ["createContainer", "createRuntime", "poststart", "poststop", "prestart", "startContainer"];
    all.sort_unstable();
    assert_eq!(seen, all);
}

const KINDS_OF_NS: [&str; 5] = ["ipc", "mnt", "net", "pid", "uts"];

/// The namespaces that the hook of a kind has recorded.
fn recorded_namespaces(dir: &std::path::Path, kind: &str) -> Vec<String> {
    read(dir, &format!("ns-{kind}")).lines().map(str::to_string).collect()
}

fn namespaces(process: Process) -> Vec<String> {
    KINDS_OF_NS.iter().map(|kind| process.ns(kind)).collect()
}

/// runtime.md and config.md: four kinds in the runtime's namespaces, two in the container's.
#[test]
fn hooks_run_in_the_namespaces_that_the_spec_gives_them() {
    require!(root);
    let (bundle, dir) = recorder();
    all_kinds(
        &bundle,
        "for n in ipc mnt net pid uts; do readlink /proc/self/ns/$n; done > $0/ns-KIND",
    );
    let web = bundle.container("web");
    web.up();
    let (container, own) = (namespaces(web.init()), namespaces(Process::own()));
    web.stop();
    web.delete().ok();
    for kind in ["prestart", "createRuntime", "poststart", "poststop"] {
        assert_eq!(recorded_namespaces(&dir, kind), own, "{kind}");
    }
    for kind in ["createContainer", "startContainer"] {
        assert_eq!(recorded_namespaces(&dir, kind), container, "{kind}");
    }
}

/// createContainer sees the host's files (its path is one of the host) and the mounts that are
/// already made; startContainer sees the container's root.
#[test]
fn create_container_runs_before_the_root_switch_and_start_container_after() {
    require!(root);
    let (bundle, dir) = recorder();
    let rootfs = bundle.rootfs().to_str().unwrap().to_string();
    bundle.edit(|config| {
        let text = format!("test -e {rootfs}/bin/busybox && grep -c '{rootfs}/dev/pts ' /proc/self/mountinfo > $0/before");
        script(config, &bundle, "createContainer", &text);
        script(config, &bundle, "startContainer", "ls -d /bin/busybox > $0/after; ls -A / | grep -c boot >> $0/after; true");
        config
    });
    bundle.container("web").up();
    assert_eq!(read(&dir, "before"), "1\n");
    assert_eq!(read(&dir, "after"), "/bin/busybox\n0\n");
}

/// A hook's mount into the container's tree by createContainer is in the container.
#[test]
fn create_container_hook_can_mount_into_the_container() {
    require!(root);
    let (bundle, _) = recorder();
    let target = bundle.rootfs().join("tmp");
    let text = format!("mount -t tmpfs from-the-hook {}", target.display());
    bundle.edit(|config| config.hook("createContainer", "/bin/sh", &["sh", "-c", &text]));
    let web = bundle.container("web");
    web.up();
    assert_eq!(web.init().mount_at("/tmp").unwrap().source, "from-the-hook");
}

#[test]
fn state_on_stdin_with_the_right_status_and_pid() {
    require!(root);
    let (bundle, dir) = recorder();
    all_kinds(&bundle, "cat > $0/state-KIND");
    bundle.edit(|config| config.set("/annotations", json!({ "org.example/key": "value" })));
    let web = bundle.container("web");
    web.up();
    let pid = web.init().0;
    web.stop();
    web.delete().ok();
    for (kind, status, expected) in [
        ("prestart", "creating", Some(pid)),
        ("createRuntime", "creating", Some(pid)),
        ("createContainer", "creating", Some(1)),
        ("startContainer", "created", Some(1)),
        ("poststart", "running", Some(pid)),
        ("poststop", "stopped", None),
    ] {
        let state: Value = serde_json::from_str(&read(&dir, &format!("state-{kind}"))).unwrap();
        assert_eq!(state["status"], status, "{kind}");
        assert_eq!(state["id"], "web");
        assert_eq!(state["bundle"], bundle.path().to_str().unwrap(), "{kind}");
        assert_eq!(state["annotations"]["org.example/key"], "value", "{kind}");
        assert!(state["ociVersion"].as_str().unwrap().starts_with("1."), "{kind}");
        if let Some(expected) = expected {
            assert_eq!(state["pid"], expected, "{kind}");
        }
    }
}

#[test]
fn hook_that_does_not_read_its_stdin_is_no_error() {
    require!(root);
    let (bundle, _) = recorder();
    let big = "x".repeat(200_000);
    bundle.edit(|config| {
        config.set("/annotations", json!({ "org.example/big": big }));
        config.hook("prestart", "/bin/true", &["true"]).hook(
            "createContainer",
            "/bin/true",
            &["true"],
        )
    });
    bundle.container("web").create().ok();
}

/// A daemon's way: nothing is left to be listened to, yet its state is more than a pipe takes at once.
#[test]
fn hook_that_closes_its_output_gets_the_rest_of_its_state() {
    require!(root);
    let (bundle, dir) = recorder();
    let big = "x".repeat(200_000);
    let script = format!("exec > {0}/state 2>&1; sleep 0.2; cat", dir.display());
    bundle.edit(|config| {
        config.set("/annotations", json!({ "org.example/big": big }));
        config.hook("prestart", "/bin/sh", &["sh", "-c", &script])
    });
    bundle.container("web").create().ok();
    let state: Value = serde_json::from_str(&read(&dir, "state")).unwrap();
    assert_eq!(state["annotations"]["org.example/big"].as_str().unwrap().len(), 200_000);
}

/// A hook of every kind that copies its own /proc/self/environ, without a shell that would add to
/// it.
fn record_environments(bundle: &Bundle, dir: &std::path::Path, env: Option<&[&str]>) {
    bundle.edit(|config| {
        for kind in KINDS {
            let out = if kind == "startContainer" { "/out" } else { dir.to_str().unwrap() };
            let mut hook = json!({
                "path": "/bin/cp",
                "args": ["cp", "/proc/self/environ", format!("{out}/env-{kind}")]
            });
            if let Some(env) = env {
                hook["env"] = json!(env);
            }
            config.push(&format!("/hooks/{kind}"), hook);
        }
        config
    });
}

/// T34: exactly the spec's `env`, nothing of the runtime's.
#[test]
fn t34_hook_environment_is_exactly_what_is_given() {
    require!(root);
    let (bundle, dir) = recorder();
    record_environments(&bundle, &dir, Some(&["ONE=1", "EMPTY=", "TWO=a b"]));
    run_with_secrets(&bundle);
    for kind in KINDS {
        assert_eq!(read(&dir, &format!("env-{kind}")), "ONE=1\0EMPTY=\0TWO=a b\0", "{kind}");
    }
}

/// T34: and without `env` a PATH, or what the container's process has; an empty one is empty.
#[test]
fn t34_hook_environment_when_absent_has_a_path_and_nothing_of_the_caller() {
    require!(root);
    for env in [None, Some(&[][..])] {
        let (bundle, dir) = recorder();
        record_environments(&bundle, &dir, env);
        bundle.edit(|config| config.set("/process/env", json!(["PATH=/bin", "ONE=two"])));
        run_with_secrets(&bundle);
        for kind in KINDS {
            assert!(dir.join(format!("env-{kind}")).exists(), "{kind} has not run");
            let expected = match (env, kind) {
                (Some(_), _) => "",
                (None, "startContainer") => "PATH=/bin\0ONE=two\0",
                _ => "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\0",
            };
            assert_eq!(read(&dir, &format!("env-{kind}")), expected, "{kind}");
        }
    }
}

/// A whole life, with something in the runtime's environment and descriptors that hooks must not
/// see.
fn run_with_secrets(bundle: &Bundle) {
    let web = bundle.container("web");
    for command in ["create", "start"] {
        let file = fs::File::open("/etc").unwrap();
        let call = web.call(command, &[]).env("LD_PRELOAD_OF_CALLER", "1").env("SECRET", "1");
        call.fd(file, 7).run().ok();
    }
    web.stop();
    let file = fs::File::open("/etc").unwrap();
    web.call("delete", &[]).env("SECRET", "1").fd(file, 7).run().ok();
}

/// T34: no descriptor of the runtime, the state directory or the caller.
#[test]
fn t34_hooks_have_descriptors_0_to_2_only() {
    require!(root);
    let (bundle, dir) = recorder();
    all_kinds(&bundle, "exec ls /proc/self/fd > $0/fds-KIND");
    run_with_secrets(&bundle);
    for kind in KINDS {
        // 3 is ls's own, for the directory.
        assert_eq!(read(&dir, &format!("fds-{kind}")), "0\n1\n2\n3\n", "{kind}");
    }
}

#[test]
fn hook_args_are_the_whole_argument_vector() {
    require!(root);
    let (bundle, dir) = recorder();
    let text = "cat /proc/$$/cmdline > $1/argv";
    let out = dir.to_str().unwrap();
    bundle
        .edit(|config| config.hook("prestart", "/bin/sh", &["named", "-c", text, "zero", out, ""]));
    bundle.container("web").create().ok();
    assert_eq!(read(&dir, "argv"), format!("named\0-c\0{text}\0zero\0{out}\0\0"));
}

/// A hook may ask the runtime for the container that it is a hook of.
#[test]
fn hook_may_call_state_of_its_own_container() {
    require!(root);
    let (bundle, dir) = recorder();
    let text = format!(
        "{} --root {} state web > $0/asked",
        crate::support::onggi::binary().display(),
        bundle.root().display()
    );
    bundle.edit(|config| {
        script(config, &bundle, "poststart", &text);
        config
    });
    bundle.container("web").up();
    let state: Value = serde_json::from_str(&read(&dir, "asked")).unwrap();
    assert_eq!(state["status"], "running");
}

/// The profiles of docker and containerd answer clone3 with ENOSYS, older ones close_range, too, and the filter is
/// loaded before these hooks.
#[test]
fn start_container_hook_runs_under_a_filter_without_clone3_and_close_range() {
    require!(root);
    let (bundle, dir) = recorder();
    bundle.edit(|config| {
        let rule =
            json!({ "names": ["clone3", "close_range"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOSYS });
        let profile = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] });
        script(config, &bundle, "startContainer", "ls /proc/self/fd > $0/started");
        config.set("/process/noNewPrivileges", false).set("/linux/seccomp", profile)
    });
    let web = bundle.container("web");
    let (_other, preserved) = fds::pipe();
    web.call("create", &["--preserve-fds", "2"]).fd(preserved, 4).run().ok();
    web.start().ok();
    // 3 is ls' own of the directory: the preserved one is not for a hook.
    assert_eq!(read(&dir, "started"), "0\n1\n2\n3\n");
}

/// Nothing of /proc is needed in the container for it.
#[test]
fn start_container_hook_runs_in_a_container_without_proc() {
    require!(root);
    let (bundle, dir) = recorder();
    bundle.edit(|config| {
        config.0["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/proc");
        script(config, &bundle, "startContainer", "echo here > $0/started");
        config.remove("/linux/maskedPaths").remove("/linux/readonlyPaths")
    });
    let web = bundle.container("web");
    web.up();
    assert_eq!(read(&dir, "started"), "here\n");
}

/// More state than a pipe holds, for hooks that close it unread.
#[test]
fn hooks_in_the_container_need_not_read_their_state() {
    require!(root);
    let (bundle, dir) = recorder();
    bundle.edit(|config| {
        for kind in ["createContainer", "startContainer"] {
            let text = format!("exec <&-; sleep 0.2; echo {kind} >> $0/order");
            script(config, &bundle, kind, &text);
        }
        // With a pid namespace of its own init would take no signal from itself.
        config.share_namespace("pid");
        config.set("/annotations/long", "x".repeat(200_000).as_str())
    });
    let web = bundle.container("web");
    web.up();
    assert_eq!(read(&dir, "order"), "createContainer\nstartContainer\n");
    assert_eq!(web.status(), "running");
}
