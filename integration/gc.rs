//! gc: what runtimes that were killed have left goes away; everything else stays.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};

use crate::support::{Bundle, Container, Process, Running, eventually, host, reaper};

fn gc(bundle: &Bundle, options: &[&str]) -> String {
    bundle.onggi(&[&["gc"], options].concat()).run().ok().stdout
}

/// A create whose runtime kills itself when everything is made, but for the end.
fn crashed() -> Bundle {
    let bundle = Bundle::with(|config| {
        config.hook("createRuntime", "/bin/sh", &["sh", "-c", "kill -9 $PPID"])
    });
    let web = bundle.container("web");
    assert_eq!(web.create().signal(), Some(libc::SIGKILL));
    std::mem::forget(web);
    eventually("no process is left", || host::processes_of(bundle.name()).is_empty().then_some(()));
    bundle
}

fn edit_state(bundle: &Bundle, edit: impl FnOnce(&mut Value)) {
    let file = bundle.root().join("web/state.json");
    let mut state: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    edit(&mut state);
    fs::write(&file, state.to_string()).unwrap();
}

/// The container's directories, one per hierarchy.
fn directories(bundle: &Bundle) -> Vec<PathBuf> {
    let roots = host::hierarchies().into_iter();
    roots.map(|root| root.join(bundle.name())).filter(|dir| dir.is_dir()).collect()
}

#[test]
fn gc_removes_what_a_killed_create_has_left() {
    require!(root);
    let bundle = crashed();
    assert!(!directories(&bundle).is_empty());
    let told = gc(&bundle, &["--dry-run"]);
    assert!(told.starts_with("web: would remove, create did not finish: "), "{told}");
    assert!(told.contains("cgroup /"), "{told}");
    assert!(!directories(&bundle).is_empty() && bundle.root().join("web").is_dir());
    let told = gc(&bundle, &[]);
    assert!(told.starts_with("web: removed, create did not finish: "), "{told}");
    bundle.assert_clean();
    assert_eq!(gc(&bundle, &[]), "");
}

/// At thirty moments, spread over the time that an undisturbed create takes.
#[test]
fn gc_cleans_up_after_a_create_that_was_killed_at_any_moment() {
    require!(root);
    let bundle = Bundle::with(|config| config.hook("createRuntime", "/bin/true", &["true"]));
    let web = bundle.container("web");
    let begin = Instant::now();
    web.create().ok();
    let whole = begin.elapsed();
    web.delete_force().ok();
    for step in 0..30 {
        let create = web.call("create", &[]).spawn();
        if reaper::wait(create.process().0, whole * step / 30).is_none() {
            let _ = create.process().kill(libc::SIGKILL);
        }
        // Its children may be on their way: gc has to wait for them.
        eventually("create has ended", || create.has_ended().then_some(()));
        if gc(&bundle, &[]).contains("just being made") {
            let (status, text) = host::tool(&[
                "touch",
                "-d",
                "1 hour ago",
                bundle.root().join("web").to_str().unwrap(),
            ]);
            assert!(status.success(), "{text}");
            gc(&bundle, &[]);
        }
        if web.state_call().code() == 0 {
            assert_eq!(web.status(), "created");
            web.delete_force().ok();
        }
        bundle.assert_clean();
    }
}

/// A create under strace(1), with every process of it held up for seconds at its first prctl(2): of a clone that is
/// the one by which it would die with the runtime.
fn create_with_slow_clones(web: &Container, options: &[&str]) -> Running {
    let trace = web.bundle().dir().join("trace");
    let slow = "inject=prctl:delay_enter=3000000:when=1";
    let strace = ["strace", "-f", "-qq", "-o", trace.to_str().unwrap()];
    let strace = [&strace[..], &["-e", "trace=chdir,prctl", "-e", slow], options].concat();
    web.call("create", &[]).through(&strace).spawn()
}

/// gc, as soon as it sees that the runtime is dead: what it had cloned must be gone when gc returns.
fn gc_leaves_nothing(bundle: &Bundle) {
    let told = eventually("gc finds the killed create", || {
        Some(gc(bundle, &[])).filter(|told| told.starts_with("web: removed, create did not finish"))
    });
    let is_strace =
        |process: &Process| process.cmdline().first().is_some_and(|name| name == "strace");
    let left = host::processes_of(bundle.name()).into_iter().filter(|one| !is_strace(one));
    let left: Vec<_> = left.map(|process| (process, process.cmdline())).collect();
    assert!(left.is_empty(), "{told}{left:?}");
    assert!(directories(bundle).is_empty(), "{told}");
}

/// Between clone3 and the record of its pid: nobody knows of it but by what it has open.
#[test]
fn gc_waits_for_the_init_that_a_killed_create_had_not_recorded() {
    require!(root, program("strace"));
    let bundle = Bundle::new();
    let web = bundle.container("web");
    // The first thing that the runtime does after the clone.
    let create = create_with_slow_clones(&web, &["-e", "inject=chdir:signal=KILL:when=1"]);
    gc_leaves_nothing(&bundle);
    eventually("strace has ended", || create.has_ended().then_some(()));
}

/// A hook that has been cloned and is no hook yet. It must not become one.
#[test]
fn gc_waits_for_a_hook_that_had_not_begun_when_create_was_killed() {
    require!(root, program("strace"));
    let bundle = Bundle::new();
    let ran = bundle.dir().join("ran");
    bundle.edit(|config| {
        config.hook("createRuntime", "/bin/touch", &["touch", ran.to_str().unwrap()])
    });
    let web = bundle.container("web");
    let create = create_with_slow_clones(&web, &[]);
    let runtime = eventually("the hook is cloned", || {
        let runtime = *create.process().children().first()?;
        (runtime.children().len() == 2).then_some(runtime)
    });
    runtime.kill(libc::SIGKILL).unwrap();
    gc_leaves_nothing(&bundle);
    eventually("strace has ended", || create.has_ended().then_some(()));
    assert!(!ran.exists(), "a hook of a dead runtime");
}

/// Engines' containers, in whatever state they are.
#[test]
fn gc_leaves_containers_alone() {
    require!(root);
    let bundle = Bundle::new();
    let [created, running, paused, stopped] =
        ["created", "running", "paused", "stopped"].map(|id| bundle.another(id, |config| config));
    created.create().ok();
    running.up();
    paused.up();
    paused.call("pause", &[]).run().ok();
    stopped.up();
    stopped.stop();
    assert_eq!(gc(&bundle, &[]), "");
    for container in [created, running, paused, stopped] {
        assert_eq!(container.status(), container.id());
    }
}

/// Creates go on beside it.
#[test]
fn gc_leaves_a_create_alone_that_is_at_work() {
    require!(root);
    let bundle = Bundle::new();
    let share = bundle.share("/share");
    let fifo = share.join("go");
    host::tool(&["mkfifo", fifo.to_str().unwrap()]);
    let script = format!("read go < {}", fifo.display());
    bundle.edit(|config| config.hook("createRuntime", "/bin/sh", &["sh", "-c", &script]));
    let web = bundle.container("web");
    let create = web.call("create", &[]).spawn();
    eventually("it waits for its hook", || {
        let text = fs::read_to_string(bundle.root().join("web/state.json")).ok()?;
        text.contains("\"owned\":true").then_some(())
    });
    assert_eq!(gc(&bundle, &[]), "");
    assert_eq!(gc(&bundle, &["--dry-run"]), "");
    fs::write(fifo, "go\n").unwrap();
    create.wait().ok();
    assert_eq!(web.status(), "created");
}

/// A directory without a record is a create in its first moment, or one that died then.
#[test]
fn gc_removes_an_empty_state_directory_only_when_it_is_old() {
    require!(root);
    let bundle = Bundle::new();
    let dir = bundle.root().join("web");
    fs::create_dir_all(&dir).unwrap();
    host::tool(&["chmod", "700", bundle.root().to_str().unwrap()]);
    assert_eq!(gc(&bundle, &[]), "web: left, perhaps just being made\n");
    host::tool(&["touch", "-d", "1 hour ago", dir.to_str().unwrap()]);
    let told = gc(&bundle, &[]);
    assert_eq!(told, "web: removed, create did not begin: its state directory\n");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("state.json"), "garbage").unwrap();
    assert_eq!(gc(&bundle, &[]), "web: left, its record cannot be read\n");
    // Nor does delete --force.
    fs::remove_dir_all(dir).unwrap();
}

/// Somebody has made a cgroup of the same name since, and lives there.
#[test]
fn gc_and_delete_never_touch_a_cgroup_that_is_another_one() {
    require!(root);
    for command in ["gc", "delete"] {
        let bundle = crashed();
        let dir = directories(&bundle).pop().unwrap();
        // A process on its way out of the kernel is in it for a moment.
        eventually("nobody is in it", || fs::remove_dir(&dir).ok());
        fs::create_dir(&dir).unwrap();
        let child = reaper::spawn(std::process::Command::new("sleep").arg("1000")).unwrap();
        fs::write(dir.join("cgroup.procs"), child.pid.to_string()).unwrap();
        if command == "gc" {
            let told = gc(&bundle, &[]);
            let left = format!("web: left cgroup {}, which is another one\n", dir.display());
            assert!(told.ends_with(&left) && told.starts_with("web: removed"), "{told}");
        } else {
            bundle.container("web").delete_force().ok();
        }
        assert_eq!(directories(&bundle), std::slice::from_ref(&dir));
        assert!(Process(child.pid).is_alive());
        assert!(bundle.state_entries().is_empty());
        Process(child.pid).kill(libc::SIGKILL).unwrap();
        host::clean(bundle.name());
    }
}

/// A pid that has been given to somebody else since.
#[test]
fn gc_never_touches_a_process_that_is_another_one() {
    require!(root);
    let bundle = crashed();
    let child = reaper::spawn(std::process::Command::new("sleep").arg("1000")).unwrap();
    edit_state(&bundle, |state| state["init"] = json!([child.pid, 1]));
    let told = gc(&bundle, &[]);
    let left = format!("web: left process {}, which is another one\n", child.pid);
    assert!(told.ends_with(&left), "{told}");
    assert!(Process(child.pid).is_alive());
    Process(child.pid).kill(libc::SIGKILL).unwrap();
    bundle.assert_clean();
}

/// Of another boot there is nothing but the state; what has the names now is somebody else's.
#[test]
fn gc_removes_states_of_another_boot_and_nothing_else() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let init = web.init();
    let dirs = directories(&bundle);
    edit_state(&bundle, |state| state["boot"] = json!("00000000-0000-0000-0000-000000000000"));
    let told = gc(&bundle, &["-n"]);
    assert!(told.starts_with("web: would remove, made before the last boot: "), "{told}");
    let told = gc(&bundle, &[]);
    assert!(told.starts_with("web: removed, made before the last boot: its state"), "{told}");
    assert!(told.contains(&format!("left process {}", init.0)), "{told}");
    assert!(bundle.state_entries().is_empty());
    assert!(init.is_alive());
    assert_eq!(directories(&bundle), dirs);
    init.kill(libc::SIGKILL).unwrap();
    host::clean(bundle.name());
}

/// A create that waits in a hook until the test writes to the FIFO; poststop hooks tell in the file `poststop`.
fn waiting_create(bundle: &Bundle) -> (PathBuf, PathBuf) {
    let share = bundle.share("/share");
    let (fifo, poststop) = (share.join("go"), share.join("poststop"));
    host::tool(&["mkfifo", fifo.to_str().unwrap()]);
    let wait = format!("read go < {}", fifo.display());
    let tell = format!("echo gone > {}", poststop.display());
    bundle.edit(|config| {
        config.hook("createRuntime", "/bin/sh", &["sh", "-c", &wait]);
        config.hook("poststop", "/bin/sh", &["sh", "-c", &tell])
    });
    (fifo, poststop)
}

/// A command that has read the record and is about to open the creator's process, for three seconds.
fn slow_to_look_for_the_creator(bundle: &Bundle, command: &[&str]) -> Running {
    let trace = bundle.dir().join("trace");
    let slow = ["-e", "trace=pidfd_open", "-e", "inject=pidfd_open:delay_enter=3000000:when=1"];
    let strace = [&["strace", "-qq", "-o", trace.to_str().unwrap()], &slow[..]].concat();
    let running = bundle.onggi(command).through(&strace).spawn();
    eventually("it is about to open the creator", || {
        let number = format!("{} ", libc::SYS_pidfd_open);
        let child = *running.process().children().first()?;
        child.try_read("syscall")?.starts_with(&number).then_some(())
    });
    running
}

/// Lets a create finish meanwhile: nothing but the dead creator tells that the record has another successor.
fn overtaken_by_create(web: &Container, fifo: &Path, command: &[&str]) -> Running {
    let create = web.call("create", &[]).spawn();
    let record = web.bundle().root().join("web/state.json");
    eventually("it waits for its hook", || {
        fs::read_to_string(&record).ok()?.contains("\"owned\":true").then_some(())
    });
    let running = slow_to_look_for_the_creator(web.bundle(), command);
    fs::write(fifo, "go\n").unwrap();
    create.wait().ok();
    running
}

/// Its record was read before create had finished, its creator looked at afterwards.
#[test]
fn gc_leaves_a_container_alone_whose_create_has_just_returned() {
    require!(root, program("strace"));
    let bundle = Bundle::new();
    let (fifo, poststop) = waiting_create(&bundle);
    let web = bundle.container("web");
    let gc = overtaken_by_create(&web, &fifo, &["gc"]);
    assert_eq!(gc.wait().ok().stdout, "");
    assert_eq!(web.status(), "created");
    web.start().ok();
    web.delete_force().ok();
    assert!(poststop.exists());
}

/// The same of delete: it is a container, not what an unfinished create has left.
#[test]
fn delete_of_a_container_whose_create_has_just_returned_runs_its_poststop_hooks() {
    require!(root, program("strace"));
    let bundle = Bundle::new();
    let (fifo, poststop) = waiting_create(&bundle);
    let web = bundle.container("web");
    overtaken_by_create(&web, &fifo, &["delete", "--force", "web"]).wait().ok();
    assert!(poststop.exists(), "taken for unfinished");
    bundle.assert_clean();
}

/// A create that was undoing, and had removed its record, but not the directory, when delete killed it.
#[test]
fn delete_removes_the_directory_of_a_creator_that_had_removed_its_record() {
    require!(root, program("strace"));
    let bundle = Bundle::new();
    waiting_create(&bundle);
    let web = bundle.container("web");
    // Nothing is made then that the record would be needed for.
    let create = web.call("create", &[]).global(&["--cgroup-manager", "disabled"]).spawn();
    let record = bundle.root().join("web/state.json");
    eventually("it has a record", || record.is_file().then_some(()));
    let delete = slow_to_look_for_the_creator(&bundle, &["delete", "--force", "web"]);
    fs::remove_file(&record).unwrap();
    delete.wait().ok();
    assert_eq!(create.wait().signal(), Some(libc::SIGKILL));
    assert!(bundle.state_entries().is_empty(), "{:?}", bundle.state_entries());
    host::clean(bundle.name());
}
