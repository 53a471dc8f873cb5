//! Tests of the harness itself: it must see what a bad runtime leaves behind. Each puts a small
//! fault where the runtime's would be and expects the guard to fail the test.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::time::Duration;

use crate::support::{Bundle, Process, host, reaper};

/// Drops a bundle and returns what the guard complained about.
fn complaint(bundle: Bundle) -> String {
    let result = catch_unwind(AssertUnwindSafe(|| drop(bundle)));
    let payload = result.expect_err("the guard has seen nothing");
    payload.downcast_ref::<String>().unwrap().clone()
}

/// A run for cgroup v2 that sees v1 would test the wrong thing and pass.
#[test]
fn cgroup_layout_is_the_one_that_was_asked_for() {
    if std::env::var("ONGGI_IT_CGROUP").is_ok_and(|layout| layout == "v2") {
        assert!(host::is_v2());
    }
}

/// A cgroup that nobody is in.
#[test]
fn guard_sees_and_removes_a_left_cgroup() {
    require!(root);
    let bundle = Bundle::new();
    let name = bundle.name().to_string();
    let leaf = bundle.cgroup("freezer").join("sub");
    fs::create_dir_all(&leaf).unwrap();
    assert!(complaint(bundle).contains("cgroup"));
    assert!(!leaf.exists());
    assert_eq!(host::leftovers(&name), [""; 0]);
}

/// A process that no argument gives away.
#[test]
fn guard_sees_and_kills_a_left_process_in_a_cgroup() {
    require!(root);
    let bundle = Bundle::new();
    let cgroup = bundle.cgroup("freezer");
    fs::create_dir_all(&cgroup).unwrap();
    let child = reaper::spawn(Command::new("sleep").arg("1000")).unwrap();
    fs::write(cgroup.join("cgroup.procs"), child.pid.to_string()).unwrap();
    assert!(complaint(bundle).contains(&format!("process {}", child.pid)));
    assert!(reaper::wait(child.pid, Duration::from_secs(10)).is_some());
    assert!(!cgroup.exists());
}

/// An init that has left its cgroup.
#[test]
fn guard_sees_and_kills_a_process_whose_root_is_the_rootfs() {
    require!(root);
    let bundle = Bundle::new();
    let rootfs = bundle.rootfs().to_str().unwrap().to_string();
    let script = "mount --bind $0 $0; cd $0; exec chroot . sleep 1000";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script, &rootfs]);
    let child = reaper::spawn(&mut command).unwrap();
    crate::support::eventually("sleep runs", || {
        Process(child.pid).cmdline().first().filter(|arg| *arg == "sleep").map(drop)
    });
    assert!(complaint(bundle).contains(&format!("process {}", child.pid)));
    assert!(reaper::wait(child.pid, Duration::from_secs(10)).is_some());
}

/// And never takes the processes that see it for left ones.
#[test]
fn guard_sees_and_takes_away_a_left_mount() {
    require!(root);
    let bundle = Bundle::new();
    let (name, rootfs) = (bundle.name().to_string(), bundle.rootfs());
    let rootfs = rootfs.to_str().unwrap();
    assert!(host::tool(&["mount", "--bind", rootfs, rootfs]).0.success());
    let text = complaint(bundle);
    assert!(text.contains(&format!("mount {rootfs}")) && !text.contains("process"), "{text}");
    assert_eq!(host::leftovers(&name), [""; 0]);
}

/// Whatever its name.
#[test]
fn guard_sees_a_left_state_directory() {
    require!(root);
    let bundle = Bundle::new();
    // No id: the runtime refuses to touch it.
    fs::create_dir_all(bundle.root().join("left behind")).unwrap();
    fs::write(bundle.root().join("left behind/file"), "").unwrap();
    assert!(complaint(bundle).contains("left behind"));
}

/// No test may wait for ever.
#[test]
fn a_call_that_hangs_is_a_failure_and_is_killed() {
    let bundle = Bundle::new();
    let call = bundle.onggi(&["state"]).without_log();
    let call = call.through(&["sh", "-c", "exec sleep 1000"]).timeout(Duration::from_millis(100));
    let running = call.spawn();
    let process = running.process();
    let result = catch_unwind(AssertUnwindSafe(|| drop(running.wait())));
    let text = result.expect_err("it has been waited for").downcast::<String>().unwrap();
    assert!(text.contains("still runs after"), "{text}");
    assert!(!process.is_alive());
}

/// What an engine does for every container.
#[test]
fn an_orphan_becomes_our_child_and_is_reaped_at_once() {
    reaper::start();
    let (_, text) =
        host::tool(&["sh", "-c", "sh -c 'sleep 0.05; exit 7' >/dev/null 2>&1 & echo $!"]);
    let pid = text.trim().parse().unwrap();
    reaper::expect(pid);
    let status = reaper::wait(pid, Duration::from_secs(10)).expect("nobody has reaped it");
    assert_eq!(status.code(), Some(7));
    assert!(!fs::exists(format!("/proc/{pid}")).unwrap());
}

/// Pids come back while a run of all tests goes on.
#[test]
fn an_end_is_not_taken_for_that_of_a_later_process_with_the_same_pid() {
    require!(root);
    let bundle = Bundle::new();
    let (shell, file) = (host::find_program("sh").unwrap(), bundle.dir().join("pid"));
    // Another test may have got the pid meanwhile.
    let pid = crate::support::eventually("a pid comes back", || {
        let earlier = reaper::spawn(&mut Command::new("true")).unwrap();
        assert_eq!(reaper::wait(earlier.pid, Duration::from_secs(10)).unwrap().code(), Some(0));
        let script = "sleep 0.3; exit 7";
        host::spawn_with_pid(earlier.pid, &[shell.to_str().unwrap(), "-c", script]).ok()
    });
    fs::write(&file, pid.0.to_string()).unwrap();
    let later = Process::of_pid_file(&file);
    let status = reaper::wait(later.0, Duration::from_secs(10)).expect("it does not end");
    assert_eq!(status.code(), Some(7));
}

/// Every source below a directory of the repository, as one text.
fn sources(dir: &std::path::Path, text: &mut String) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        match entry.path() {
            path if path.is_dir() => sources(&path, text),
            path if path.extension().is_some_and(|end| end == "rs") => {
                text.push_str(&fs::read_to_string(path).unwrap());
            }
            _ => {}
        }
    }
}

/// A document that names a test or a mutant which is not there proves nothing; nor does a mutant that
/// nobody knows of.
#[test]
fn tests_and_mutants_that_the_security_document_names_exist() {
    let root = crate::engines::fixture::repository("..");
    let Ok(document) = fs::read_to_string(root.join("docs/security.md")) else {
        // The test program runs on a machine without the repository.
        require!(path("docs/security.md"));
        return;
    };
    let mut code = String::new();
    sources(&root.join("integration"), &mut code);
    sources(&root.join("src"), &mut code);
    let is_test = |name: &str| {
        name.matches('_').count() > 3
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    let named = document.split('`').skip(1).step_by(2).filter(|name| is_test(name));
    let missing: Vec<&str> = named.filter(|name| !code.contains(&format!("fn {name}("))).collect();
    assert!(missing.is_empty(), "no such test: {missing:?}");
    let table = document.split("### Which test proves which rule").nth(1).unwrap();
    let rows = table.split("\n## ").next().unwrap().lines().filter(|line| line.starts_with("| "));
    let column = rows.filter_map(|row| row.rsplit('|').nth(1));
    let mut told: Vec<&str> = column.flat_map(|names| names.trim().split(", ")).collect();
    told.retain(|name| !name.is_empty() && *name != "Mutants" && !name.starts_with('-'));
    told.sort_unstable();
    told.dedup();
    let files = fs::read_dir(root.join("hack/mutants")).unwrap().flatten();
    let names = files.map(|file| file.file_name().to_string_lossy().into_owned());
    let mut there: Vec<String> =
        names.filter_map(|name| name.strip_suffix(".patch").map(str::to_string)).collect();
    there.sort_unstable();
    assert_eq!(told, there, "the mutants of the document and those of hack/mutants");
}
