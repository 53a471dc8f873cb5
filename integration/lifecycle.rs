//! create, start, state, kill and delete on the way of an ordinary container.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::support::{Bundle, Process, eventually, host, onggi, patience, reaper};

/// The life of a container as an engine drives it.
#[test]
fn a_bundle_goes_from_create_to_delete() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.create().ok();
    assert_eq!(web.status(), "created");
    web.start().ok();
    assert_eq!(web.status(), "running");
    assert_eq!(web.exec(&["echo", "hello"]).ok().stdout, "hello\n");
    let init = web.init();
    web.kill("KILL").ok();
    web.becomes("stopped");
    assert!(!init.is_alive());
    web.delete().ok();
    bundle.assert_clean();
}

/// The shim or conmon waits for the pid in the pid file: an intermediate parent would swallow the
/// exit status.
#[test]
fn row31_init_becomes_a_child_of_the_subreaper() {
    require!(root);
    let bundle = Bundle::sh("exit 42");
    let web = bundle.container("web");
    web.create().ok();
    let init = web.init();
    assert_eq!(init.status("PPid"), Process::own().0.to_string());
    web.start().ok();
    let status = reaper::wait(init.0, patience()).expect("init does not end");
    assert_eq!(status.code(), Some(42));
}

/// No helper of the runtime stays behind it: its whole tree is init.
#[test]
fn row31_nothing_but_init_stays_after_create() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.create().ok();
    let processes = host::processes_of(bundle.name());
    assert_eq!(processes, [web.init()]);
}

/// conmon kills the process group of a timed-out process: without setsid that is its own.
#[test]
fn row33_init_leads_its_session_and_process_group() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.create().ok();
    let init = web.init();
    let pid = Some(init.0.to_string());
    // Field 5 is the process group, 6 the session.
    assert_eq!((init.stat(5), init.stat(6)), (pid.clone(), pid));
    assert_eq!(init.status("NSpid").split_whitespace().last(), Some("1"));
}

/// Engines look at the container between create and start: all is there but the program.
#[test]
fn row35_created_is_complete_but_has_not_executed() {
    require!(root);
    let bundle = Bundle::sh("echo started > /out/started; sleep 1000");
    let out = bundle.share("/out");
    let web = bundle.container("web");
    web.create().ok();
    assert_eq!(web.status(), "created");
    let init = web.init();
    let rootfs = bundle.rootfs();
    let rootfs = rootfs.to_str().unwrap();
    assert!(init.mount_at("/").unwrap().root.ends_with(rootfs), "{:?}", init.mount_at("/"));
    assert_eq!(init.mount_at("/proc").unwrap().fstype, "proc");
    let own = Process::own();
    for kind in ["pid", "net", "ipc", "uts", "mnt"] {
        assert_ne!(init.ns(kind), own.ns(kind), "{kind}");
    }
    assert!(!out.join("started").exists());
    web.start().ok();
    eventually("it runs", || out.join("started").exists().then_some(()));
    assert_eq!(web.init(), init);
}

/// prestart, createRuntime and createContainer belong to create, the others to start.
#[test]
fn row35_create_hooks_are_done_when_create_returns() {
    require!(root);
    let bundle = Bundle::new();
    let out = bundle.share("/out");
    let note = |kind: &str| format!("echo {kind} >> {}/hooks", out.display());
    bundle.edit(|config| {
        for kind in ["prestart", "createRuntime", "createContainer", "poststart"] {
            config.hook(kind, "/bin/sh", &["sh", "-c", &note(kind)]);
        }
        config.hook("startContainer", "/bin/sh", &["sh", "-c", "echo startContainer >> /out/hooks"])
    });
    let hooks = || fs::read_to_string(out.join("hooks")).unwrap_or_default();
    let web = bundle.container("web");
    web.create().ok();
    assert_eq!(hooks(), "prestart\ncreateRuntime\ncreateContainer\n");
    web.start().ok();
    let all = "prestart\ncreateRuntime\ncreateContainer\nstartContainer\npoststart\n";
    assert_eq!(hooks(), all);
}

/// CVE-2019-5736: what enters a container must not be the runtime's own file.
#[test]
fn created_init_does_not_run_the_runtimes_own_file() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.create().ok();
    let exe = fs::metadata(format!("/proc/{}/exe", web.init().0)).unwrap();
    let own = fs::metadata(onggi::binary()).unwrap();
    assert_ne!((exe.dev(), exe.ino()), (own.dev(), own.ino()));
}

/// While create waits for its hooks, `state` already knows the container.
#[test]
fn state_is_creating_while_create_runs_its_hooks() {
    require!(root);
    let bundle = Bundle::new();
    let out = bundle.share("/out");
    let script =
        format!("touch {0}/hook; while test ! -e {0}/go; do sleep 0.01; done", out.display());
    bundle.edit(|config| config.hook("createRuntime", "/bin/sh", &["sh", "-c", &script]));
    let web = bundle.container("web");
    let create = web.call("create", &[]).spawn();
    eventually("the hook runs", || out.join("hook").exists().then_some(()));
    let state = web.state_call();
    fs::write(out.join("go"), "").unwrap();
    create.wait().ok();
    assert_eq!(state.ok().json()["status"], "creating");
    assert_eq!(web.status(), "created");
}

/// docker uses it on a ramdisk: chroot and MS_MOVE instead of pivot_root, with the same result.
#[test]
fn row50_no_pivot_still_hides_the_host() {
    require!(root);
    let bundle = Bundle::new();
    fs::write(bundle.rootfs().join("mark"), "ours").unwrap();
    let web = bundle.container("web");
    web.call("create", &["--no-pivot"]).run().ok();
    web.start().ok();
    assert_eq!(web.exec(&["cat", "/mark"]).ok().stdout, "ours");
    let up = web.exec(&["sh", "-c", "cd /../../.. && cat mark"]).ok();
    assert_eq!(up.stdout, "ours");
}

/// The session keyring of the container carries its id, unless --no-new-keyring (podman's
/// default) leaves the caller's in place.
#[test]
fn row50_new_session_keyring_unless_no_new_keyring() {
    require!(root, path("/proc/keys"));
    let bundle = Bundle::with(|config| {
        let masked = config["linux"]["maskedPaths"].as_array().unwrap().clone();
        let masked: Vec<_> = masked.into_iter().filter(|path| path != "/proc/keys").collect();
        config
            .set("/linux/maskedPaths", serde_json::Value::from(masked))
            .args(&["cat", "/proc/keys"])
    });
    let web = bundle.container(bundle.name());
    // In this order: a keyring stays listed for a while after its last user.
    let without = web.call("run", &["--no-new-keyring"]).run().ok().stdout;
    assert!(!without.contains(bundle.name()), "{without}");
    let with = web.run().ok().stdout;
    assert!(with.contains(bundle.name()), "{with}");
}

/// A later edit of the bundle changes nothing: the state keeps the config that create has read.
#[test]
fn exec_uses_the_config_that_create_has_read() {
    require!(root);
    let bundle = Bundle::with(|config| config.push("/process/env", "NAME=first".into()));
    let web = bundle.container("web");
    web.up();
    bundle.edit(|config| config.set("/process/env/2", "NAME=second").set("/process/cwd", "/tmp"));
    assert_eq!(web.sh("echo $NAME; pwd").ok().stdout, "first\n/\n");
}

/// An engine may remove the bundle's config.json as soon as create has returned.
#[test]
fn start_state_and_delete_need_no_bundle() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.create().ok();
    fs::remove_file(bundle.path().join("config.json")).unwrap();
    web.start().ok();
    assert_eq!(web.exec(&["echo", "hi"]).ok().stdout, "hi\n");
    web.stop();
    web.delete().ok();
}
