//! What the runtime keeps on the host and holds in the container: modes of its files, set-id, pids,
//! descriptors, threads, dumpability.
//!
//! The last line of each comment names the protection whose removal the test would notice.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::support::{Bundle, Process, host, onggi, reaper};

/// Every entry below a directory, itself included, with its mode bits; no links are followed.
fn modes(path: &Path) -> Vec<(PathBuf, bool, u32)> {
    let facts = fs::symlink_metadata(path).unwrap();
    let mut all = vec![(path.to_path_buf(), facts.is_dir(), facts.mode() & 0o7777)];
    if facts.is_dir() {
        for entry in fs::read_dir(path).unwrap().flatten() {
            all.extend(modes(&entry.path()));
        }
    }
    all
}

/// T30: whatever the caller's umask is.
/// Notices: explicit modes of the state directory and its files.
#[test]
fn t30_state_is_0700_and_0600_for_umask_0_022_and_077() {
    require!(root);
    for umask in [0, 0o022, 0o077] {
        let bundle = Bundle::new();
        let web = bundle.container("web");
        let create = web.call("create", &[]).before_exec(move || {
            unsafe { libc::umask(umask) };
        });
        create.run().ok();
        for (path, is_dir, mode) in modes(&bundle.root()) {
            let expected = if is_dir { 0o700 } else { 0o600 };
            assert_eq!(mode, expected, "{} with umask {umask:o}", path.display());
        }
    }
}

/// Runs create with a state root that was prepared; nothing may be made in `real`.
#[track_caller]
fn state_root_is_refused(prepare: impl FnOnce(&Path, &Path)) {
    let bundle = Bundle::new();
    let real = bundle.dir().join("real");
    fs::create_dir(&real).unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o700)).unwrap();
    prepare(&bundle.root(), &real);
    // Not by a Container: that would delete by a root which is not one.
    let output = bundle.onggi(&["create", "--bundle"]).arg(bundle.path()).arg("web").run();
    let made = fs::read_dir(&real).unwrap().count();
    // The harness deletes by the same root: it must be an ordinary one again.
    let _ = fs::remove_file(bundle.root()).or_else(|_| fs::remove_dir_all(bundle.root()));
    let code = output.code();
    if code == 0 {
        host::clean(bundle.name());
    }
    assert_eq!((code, made), (1, 0), "{output}");
    bundle.assert_clean();
}

/// T30: a state root that somebody else can lead elsewhere.
/// Notices: O_NOFOLLOW at the opening of the state root.
#[test]
fn t30_state_root_that_is_a_symlink_is_refused() {
    require!(root);
    state_root_is_refused(|root, real| symlink(real, root).unwrap());
}

/// T30: a state root that others can write to.
/// Notices: the check of its mode.
#[test]
fn t30_state_root_that_is_writable_by_others_is_refused() {
    require!(root);
    for mode in [0o770, 0o702, 0o777, 0o1777] {
        state_root_is_refused(|root, _| {
            fs::create_dir(root).unwrap();
            fs::set_permissions(root, fs::Permissions::from_mode(mode)).unwrap();
        });
    }
}

/// T30: a state root that belongs to somebody else.
/// Notices: the check of its owner.
#[test]
fn t30_state_root_of_another_user_is_refused() {
    require!(root);
    state_root_is_refused(|root, _| {
        fs::create_dir(root).unwrap();
        fs::set_permissions(root, fs::Permissions::from_mode(0o700)).unwrap();
        chown(root, Some(1000), None).unwrap();
    });
}

/// T30: a state root that is no directory.
/// Notices: O_DIRECTORY at its opening.
#[test]
fn t30_state_root_that_is_a_file_is_refused() {
    require!(root);
    state_root_is_refused(|root, _| fs::write(root, "").unwrap());
}

/// T33: a copy of the runtime with these mode bits must do nothing at all, for root and for a user.
#[track_caller]
fn set_id_copy_is_refused(mode: u32) {
    let bundle = Bundle::new();
    let binary = bundle.dir().join(onggi::name());
    fs::copy(onggi::binary(), &binary).unwrap();
    fs::set_permissions(&binary, fs::Permissions::from_mode(mode)).unwrap();
    for user in [0, 1000] {
        let become_user = move || unsafe {
            libc::setgroups(0, std::ptr::null());
            libc::setresgid(user, user, user);
            libc::setresuid(user, user, user);
        };
        let web = bundle.container("web");
        let call = web.call("create", &[]).binary(&binary).without_log();
        let output = call.before_exec(become_user).run().fails();
        assert!(output.stderr.contains("set"), "{output}");
        bundle.assert_clean();
    }
}

/// T33: never with somebody else's rights.
/// Notices: the refusal to run set-user-id.
#[test]
fn t33_set_uid_copy_of_the_binary_is_refused() {
    require!(root);
    set_id_copy_is_refused(0o4755);
}

/// T33. Notices: the refusal to run set-group-id.
#[test]
fn t33_set_gid_copy_of_the_binary_is_refused() {
    require!(root);
    set_id_copy_is_refused(0o2755);
}

/// T33: real and effective ids that differ, without any bit on our file.
/// Notices: the comparison of the ids.
#[test]
fn t33_differing_real_and_effective_ids_are_refused() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    let differ = || unsafe {
        libc::setresuid(1000, 0, 0);
    };
    web.call("create", &[]).before_exec(differ).without_log().run().fails();
    bundle.assert_clean();
}

/// Writes another pid into every file of the container's state.
fn forge_pid(bundle: &Bundle, from: Process, to: Process) {
    let mut changed = 0;
    for (path, is_dir, _) in modes(&bundle.root().join("web")) {
        let is_file = fs::symlink_metadata(&path).unwrap().is_file();
        if is_dir || !is_file || path.extension().is_none_or(|name| name != "json") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let forged = text
            .split_inclusive(|letter: char| !letter.is_ascii_digit())
            .map(|part| {
                part.replacen(
                    &from.0.to_string(),
                    &to.0.to_string(),
                    usize::from(
                        part.trim_end_matches(|letter: char| !letter.is_ascii_digit())
                            == from.0.to_string(),
                    ),
                )
            })
            .collect::<String>();
        changed += usize::from(forged != text);
        fs::write(&path, forged).unwrap();
    }
    assert!(changed > 0, "no pid in the state");
}

/// T35: the pid in the state belongs to another process by now.
/// Notices: the comparison of the start time before every signal.
#[test]
fn t35_reused_pid_is_never_touched() {
    require!(root);
    for command in [
        &["kill", "web", "KILL"][..],
        &["kill", "web", "TERM"],
        &["delete", "web"],
        &["delete", "--force", "web"],
    ] {
        let bundle = Bundle::new();
        let web = bundle.container("web");
        web.up();
        let init = web.init();
        // The start time counts in hundredths of a second.
        std::thread::sleep(Duration::from_millis(20));
        let foreign = Process(reaper::spawn(Command::new("sleep").arg("1000")).unwrap().pid);
        assert_ne!(foreign.stat(22), init.stat(22), "the start times must differ");
        forge_pid(&bundle, init, foreign);
        init.kill(libc::SIGKILL).unwrap();
        reaper::wait(init.0, Duration::from_secs(10)).unwrap();
        assert_ne!(
            web.state()["status"],
            "running",
            "a foreign process passes for the container's"
        );
        let output = bundle.onggi(command).run();
        assert!(foreign.is_alive(), "{output}");
        web.exec(&["true"]).fails();
        assert!(
            command[0] != "kill" || output.stderr.contains("container not running"),
            "{output}"
        );
        web.remove();
        assert!(foreign.is_alive());
        foreign.kill(libc::SIGKILL).unwrap();
    }
}

/// Rule 9. What init holds while it waits for start: its stdio, the gate, the way for an error.
/// Notices: close_range at entry and before Ready.
#[test]
fn created_init_holds_five_descriptors_and_no_directory() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    let file = fs::File::open("/").unwrap();
    web.call("create", &[]).fd(file, 9).run().ok();
    let fds = web.init().fds();
    assert!(fds.len() <= 5, "{fds:?}");
    assert!([0, 1, 2].iter().all(|number| fds.contains_key(number)), "{fds:?}");
    for (number, target) in fds.range(3..) {
        let kind =
            fs::metadata(format!("/proc/{}/fd/{number}", web.init().0)).map(|facts| facts.is_dir());
        assert!(!kind.unwrap_or(false), "{number} is the directory {target:?}");
    }
}

/// Architecture 3.7: a copy of a threaded process may hold locks for ever.
/// Notices: a thread in the runtime or its child.
#[test]
fn created_init_has_a_single_thread() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.create().ok();
    assert_eq!(web.init().status("Threads"), "1");
}

/// The waiting init has the runtime's memory: somebody with the container's identity, but without
/// CAP_SYS_PTRACE, must not look into it; into its own program it may.
/// Notices: PR_SET_DUMPABLE 0.
#[test]
fn created_init_is_not_dumpable() {
    require!(root, program("setpriv"));
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.create().ok();
    let look = || {
        let exe = format!("/proc/{}/exe", web.init().0);
        let drop = "--bounding-set=-sys_ptrace";
        host::tool(&["setpriv", drop, "--inh-caps=-sys_ptrace", "readlink", &exe])
    };
    let (status, text) = look();
    assert!(!status.success(), "{text}");
    web.start().ok();
    crate::support::eventually("it is an ordinary process", || look().0.success().then_some(()));
}

/// Rule 16: until a container is committed, all that has been started for it dies with its maker, by
/// itself: nobody may ever call delete.
/// Notices: the death signals of init and of hooks.
#[test]
fn rule16_init_and_hooks_die_with_a_killed_create() {
    require!(root);
    let bundle = Bundle::new();
    // The harness finds it by its environment.
    let env = [format!("OF={}", bundle.name())];
    let hook = json!({ "path": "/bin/sleep", "args": ["sleep", "1000"], "env": env });
    bundle.edit(|config| config.push("/hooks/createRuntime", hook));
    let web = bundle.container("web");
    let create = web.call("create", &[]).spawn();
    let runtime = create.process();
    let made = || host::processes_of(bundle.name()).into_iter().filter(|one| *one != runtime);
    let started: Vec<Process> = crate::support::eventually("init and the hook are there", || {
        let found: Vec<Process> = made().collect();
        found.iter().any(|one| one.cmdline() == ["sleep", "1000"]).then_some(found)
    });
    assert_eq!(started.len(), 2, "{started:?}");
    create.signal(libc::SIGKILL);
    crate::support::eventually("they are dead, too", || {
        (!started.iter().any(Process::is_alive)).then_some(())
    });
    reaper::wait(runtime.0, Duration::from_secs(10)).unwrap();
}
