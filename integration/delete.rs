//! delete: when it is allowed, what it takes away, what it leaves alone.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{Bundle, Container, eventually, host};

/// containerd's plain delete must not end a running container.
#[test]
fn row80_delete_of_a_running_container_is_refused() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    web.delete().fails_with("cannot delete container web that is not stopped: running");
    assert_eq!(web.status(), "running");
}

/// containerd deletes created tasks without force.
#[test]
fn row80_delete_of_a_created_container_kills_its_init() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.create().ok();
    let init = web.init();
    web.delete().ok();
    assert!(!init.is_alive());
    bundle.assert_clean();
}

/// The ordinary end.
#[test]
fn row80_delete_of_a_stopped_container() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    web.stop();
    web.delete().ok();
    bundle.assert_clean();
    web.state_call().fails_with("does not exist");
}

/// podman always deletes by force.
#[test]
fn row80_delete_force_of_a_running_container() {
    require!(root);
    let bundle = Bundle::sh("sleep 1001 & sleep 1002 & setsid sleep 1003 & sleep 1004");
    let web = bundle.container("web");
    web.up();
    web.delete_force().ok();
    bundle.assert_clean();
}

/// The id is free again at once, ten times over.
#[test]
fn row80_same_id_can_be_created_right_after_delete() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    for _ in 0..10 {
        web.up();
        web.delete_force().ok();
        bundle.assert_clean();
    }
}

/// containerd's cleanup deletes a second time; CRI-O and podman do not look first.
#[test]
fn row81_delete_force_of_an_unknown_id_is_silent_success() {
    require!(root);
    let bundle = Bundle::new();
    let output = bundle.onggi(&["delete", "--force", "nobody"]).run().ok();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", ""));
    assert!(output.errors().is_empty(), "{output}");
}

/// containerd takes this text for success.
#[test]
fn row81_delete_of_an_unknown_id_is_an_error() {
    require!(root);
    let bundle = Bundle::new();
    bundle.onggi(&["delete", "nobody"]).run().fails_with("does not exist");
}

/// A killed init stays in the kernel until every exec'd process of its namespace has been waited
/// for by its parent, and that is the engine. delete --force has to wait for it.
#[test]
fn row82_delete_force_waits_for_init_with_unreaped_exec_processes() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let init = web.init();
    let engine = web.call("exec", &["--detach"]).args(&["sleep", "999"]).under_lazy_parent();
    let second = engine.process().children();
    assert_eq!(second.len(), 1);
    let delete = web.call("delete", &["--force"]).spawn();
    eventually("exec's process is a zombie", || {
        (second[0].stat(3).as_deref() == Some("Z")).then_some(())
    });
    assert!(init.stat(3).is_some(), "init has gone before its last process");
    assert!(!delete.has_ended(), "delete has not waited for init");
    engine.signal(libc::SIGKILL);
    delete.wait().ok();
    bundle.assert_clean();
}

/// The runtime was killed in the first moments of create: a directory and nothing in it.
#[test]
fn row83_delete_force_of_a_directory_without_state() {
    require!(root);
    let bundle = Bundle::new();
    fs::create_dir_all(bundle.root().join("web")).unwrap();
    bundle.onggi(&["delete", "--force", "web"]).run().ok();
    assert_eq!(bundle.state_entries(), [""; 0]);
}

/// The same with files that are no state, and list does not stumble over it. A state.json that makes no sense is
/// another matter: see `a_damaged_record_is_told_and_nothing_is_forgotten`.
#[test]
fn row83_delete_force_of_a_directory_with_garbage() {
    require!(root);
    let bundle = Bundle::new();
    let dir = bundle.root().join("web");
    fs::create_dir_all(&dir).unwrap();
    for name in ["status", "config.json", "intent.json"] {
        fs::write(dir.join(name), "{ \"half\": ").unwrap();
    }
    bundle.onggi(&["list", "-q"]).run().ok();
    bundle.onggi(&["delete", "--force", "web"]).run().ok();
    assert_eq!(bundle.state_entries(), [""; 0]);
}

/// containerd unmounts bundle/rootfs right after delete and fails on EBUSY; and while the
/// container runs its mounts must not come back to the host.
#[test]
fn row84_rootfs_of_the_engine_can_be_unmounted_after_delete() {
    require!(root);
    let bundle = Bundle::new();
    let rootfs = bundle.rootfs();
    let rootfs = rootfs.to_str().unwrap();
    assert!(host::tool(&["mount", "--bind", rootfs, rootfs]).0.success());
    assert!(host::tool(&["mount", "--make-shared", rootfs]).0.success());
    let before = host::mounts_of(bundle.name());
    let web = bundle.container("web");
    web.up();
    assert_eq!(host::mounts_of(bundle.name()), before);
    web.stop();
    web.delete().ok();
    assert_eq!(host::mounts_of(bundle.name()), before);
    let (status, text) = host::tool(&["umount", rootfs]);
    assert!(status.success(), "{text}");
}

/// delete touches neither the engine's mounts nor the bundle.
#[test]
fn row85_delete_leaves_bundle_and_engine_mounts_alone() {
    require!(root);
    let bundle = Bundle::new();
    let volume = bundle.rootfs().join("var");
    let volume = volume.to_str().unwrap();
    assert!(host::tool(&["mount", "-t", "tmpfs", bundle.name(), volume]).0.success());
    fs::write(format!("{volume}/data"), "precious").unwrap();
    let config = fs::read(bundle.path().join("config.json")).unwrap();
    let web = bundle.container("web");
    web.up();
    web.delete_force().ok();
    assert_eq!(fs::read_to_string(format!("{volume}/data")).unwrap(), "precious");
    assert_eq!(fs::read(bundle.path().join("config.json")).unwrap(), config);
    assert!(bundle.rootfs().join("bin/busybox").is_file());
    assert!(host::tool(&["umount", volume]).0.success());
}

/// poststop hooks run once, after the process and its cgroup are gone.
#[test]
fn delete_runs_the_poststop_hooks_with_the_state_on_stdin() {
    require!(root);
    let bundle = Bundle::new();
    let out = bundle.share("/out");
    let script = format!("cat >> {}/state", out.display());
    bundle.edit(|config| config.hook("poststop", "/bin/sh", &["sh", "-c", &script]));
    let web = bundle.container("web");
    web.up();
    web.stop();
    assert!(!out.join("state").exists());
    web.delete().ok();
    let text = fs::read_to_string(out.join("state")).unwrap();
    let state: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&state["id"], &state["status"]), (&"web".into(), &"stopped".into()));
}

/// A poststop hook that fails is only a warning: the container is gone all the same.
#[test]
fn delete_goes_on_after_a_failed_poststop_hook() {
    require!(root);
    let bundle = Bundle::new();
    let out = bundle.share("/out");
    let script = format!("echo second > {}/second", out.display());
    bundle.edit(|config| {
        config.hook("poststop", "/bin/false", &["false"]);
        config.hook("poststop", "/bin/sh", &["sh", "-c", &script])
    });
    let web = bundle.container("web");
    web.up();
    web.stop();
    web.delete().ok();
    assert!(out.join("second").exists());
    bundle.assert_clean();
}

/// A create that was killed between its record and the last step, the pid file's name.
#[test]
fn delete_removes_the_unfinished_pid_file_of_a_killed_create() {
    require!(root, program("strace"));
    let bundle = Bundle::new();
    let web = bundle.container("web");
    let dir = bundle.dir().join("pids");
    fs::create_dir(&dir).unwrap();
    killed_before_its_pid_file(&web, &dir);
    web.delete_force().ok();
    let names: Vec<_> =
        fs::read_dir(&dir).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(names.is_empty(), "{names:?}");
}

/// Kills create when all is done but the pid file's last name; that which it has until then.
#[track_caller]
fn killed_before_its_pid_file(web: &Container<'_>, dir: &Path) -> PathBuf {
    let trace = dir.with_extension("trace");
    // The record is renamed three times: as an intent, with the pid, and as created; and with systemd's unit.
    let when = if host::by_systemd() { 5 } else { 4 };
    let inject = format!("inject=renameat,renameat2:signal=KILL:when={when}");
    let kill = ["-e", "trace=renameat,renameat2", "-e", &inject];
    let strace = [&["strace", "-qq", "-o", trace.to_str().unwrap()], &kill[..]].concat();
    let file = dir.join("pid");
    let create = web.call("create", &["--pid-file", file.to_str().unwrap()]);
    assert_eq!(create.through(&strace).run().signal(), Some(libc::SIGKILL));
    assert_eq!(web.status(), "created");
    let names: Vec<_> = fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path()).collect();
    assert_eq!(names.len(), 1, "{names:?}");
    let name = names[0].file_name().unwrap().to_string_lossy();
    assert!(name.starts_with(".onggi-"), "killed elsewhere: {name}");
    names[0].clone()
}

/// An exec that was killed there is in the way of no other, and no link in its place is followed.
#[test]
fn unfinished_pid_file_of_a_killed_exec_makes_room_for_the_next() {
    require!(root, program("strace"));
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let dir = bundle.dir().join("pids");
    fs::create_dir(&dir).unwrap();
    let file = dir.join("pid");
    let exec = || {
        let call = web.call("exec", &["--detach", "--pid-file", file.to_str().unwrap()]);
        call.args(&["sleep", "1000"])
    };
    let kill = ["strace", "-qq", "-o", "/dev/null", "-e", "trace=renameat,renameat2", "-e"];
    let kill = [&kill[..], &["inject=renameat,renameat2:signal=KILL"]].concat();
    assert_eq!(exec().through(&kill).run().signal(), Some(libc::SIGKILL));
    let unfinished = fs::read_dir(&dir).unwrap().flatten().next().unwrap().path();
    fs::remove_file(&unfinished).unwrap();
    fs::write(dir.join("victim"), "before").unwrap();
    std::os::unix::fs::symlink(dir.join("victim"), &unfinished).unwrap();
    exec().run().ok();
    assert_eq!(fs::read_to_string(dir.join("victim")).unwrap(), "before");
    assert!(fs::read_to_string(&file).unwrap().parse::<i32>().is_ok());
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 2);
}

/// Anybody can make a directory of the unfinished pid file's name in /tmp.
#[test]
fn delete_goes_on_where_the_unfinished_pid_file_would_be_a_directory() {
    require!(root, program("strace"));
    let bundle = Bundle::new();
    let web = bundle.container("web");
    let dir = bundle.dir().join("pids");
    fs::create_dir(&dir).unwrap();
    let name = killed_before_its_pid_file(&web, &dir);
    fs::remove_file(&name).unwrap();
    fs::create_dir(&name).unwrap();
    web.delete_force().ok();
    assert!(name.is_dir());
    bundle.assert_clean();
}

/// Its poststop hook does not end, or whoever has the lock stands still: another delete says so.
#[test]
fn delete_does_not_wait_for_the_lock_for_ever() {
    require!(root);
    let bundle = Bundle::new();
    let share = bundle.share("/share");
    let (fifo, asked) = (share.join("go"), share.join("asked"));
    host::tool(&["mkfifo", fifo.to_str().unwrap()]);
    let script = format!("touch {}; read go < {}", asked.display(), fifo.display());
    bundle.edit(|config| config.hook("poststop", "/bin/sh", &["sh", "-c", &script]));
    let web = bundle.container("web");
    web.up();
    let first = web.call("delete", &["--force"]).spawn();
    eventually("its hook runs", || asked.exists().then_some(()));
    web.delete_force().fails_with("somebody else is at work on it");
    let soon = std::time::Instant::now();
    let call = web.call("delete", &["--force"]).global(&["--deadline", "100ms"]);
    call.run().fails_with("the --deadline has passed");
    assert!(soon.elapsed() < std::time::Duration::from_secs(5));
    fs::write(&fifo, "go\n").unwrap();
    first.wait().ok();
    bundle.assert_clean();
}
