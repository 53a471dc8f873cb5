//! cgroups that are not as they should be: frozen, in use, gone, read-only, refused by the kernel.

use std::ffi::CString;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;

use serde_json::json;

use crate::support::{Bundle, Process, eventually, host, patience, reaper};

/// A directory of the container's name in each hierarchy, before create.
fn make_directories(bundle: &Bundle) -> Vec<PathBuf> {
    let dirs = host::hierarchies().into_iter().map(|root| root.join(bundle.name()));
    dirs.inspect(|dir| fs::create_dir(dir).unwrap()).collect()
}

fn freeze(bundle: &Bundle, on: bool) {
    let (file, value) = match (host::is_v2(), on) {
        (true, true) => ("cgroup.freeze", "1"),
        (true, false) => ("cgroup.freeze", "0"),
        (false, true) => ("freezer.state", "FROZEN"),
        (false, false) => ("freezer.state", "THAWED"),
    };
    fs::write(bundle.cgroup("freezer").join(file), value).unwrap();
}

/// Its init would never begin.
#[test]
fn create_into_a_frozen_cgroup_is_refused_and_leaves_it_as_it_is() {
    require!(root);
    let bundle = Bundle::new();
    let dirs = make_directories(&bundle);
    freeze(&bundle, true);
    let web = bundle.container("web");
    web.create().fails_with("is frozen");
    assert!(bundle.state_entries().is_empty());
    freeze(&bundle, false);
    assert!(dirs.iter().all(|dir| dir.is_dir()), "somebody else's cgroup was removed");
    // Empty and thawed it is taken.
    let web = bundle.container("web");
    web.up();
    web.remove();
}

/// A cgroup that is made below a frozen one is frozen from the beginning.
#[test]
fn create_below_a_frozen_cgroup_is_refused_and_leaves_nothing() {
    require!(root);
    let bundle = Bundle::new();
    let parents = make_directories(&bundle);
    freeze(&bundle, true);
    for path in ["web", "a/web"] {
        let path = format!("/{}/{path}", bundle.name());
        let web = bundle.another("web", |config| config.set("/linux/cgroupsPath", path.as_str()));
        web.create().fails_with("would be frozen, as a cgroup above it is frozen");
        let config = bundle.dir().join("bundle-web");
        let check = bundle.onggi(&["check", "--bundle", config.to_str().unwrap()]).run().exits(1);
        assert!(check.stdout.contains("a cgroup above it is frozen"), "{check}");
        assert!(bundle.state_entries().is_empty());
    }
    freeze(&bundle, false);
    let path = format!("/{}/web", bundle.name());
    let web = bundle.another("web", |config| config.set("/linux/cgroupsPath", path.as_str()));
    web.up();
    web.delete_force().ok();
    for parent in parents {
        fs::remove_dir(parent).unwrap();
    }
    bundle.assert_clean();
}

/// A limit that the kernel refuses: the file, the value and the pointer are told, nothing is left.
#[test]
fn create_with_a_limit_the_kernel_refuses_leaves_nothing() {
    require!(root, controller("pids"), controller("cpuset"));
    for (pointer, value, text) in [
        (
            "pids/limit",
            json!(99_999_999),
            "/linux/resources/pids/limit: write \"99999999\" to pids.max",
        ),
        ("cpu/cpus", json!("9999"), "/linux/resources/cpu/cpus: write \"9999\" to cpuset.cpus"),
    ] {
        let bundle = Bundle::new();
        bundle.edit(|config| config.set(&format!("/linux/resources/{pointer}"), value));
        let web = bundle.container("web");
        web.create().fails_with(text);
        bundle.assert_clean();
    }
}

/// With the processes elsewhere; every command still finds its way.
#[test]
fn container_whose_cgroups_were_removed_is_still_handled() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let init = web.init();
    for root in host::hierarchies() {
        fs::write(root.join("cgroup.procs"), init.0.to_string()).unwrap();
        let dir = root.join(bundle.name());
        eventually("the cgroup is gone", || {
            (fs::remove_dir(&dir).is_ok() || !dir.exists()).then_some(())
        });
    }
    assert_eq!(web.status(), "running");
    let pids = web.call("ps", &["--format", "json"]).run().ok().json();
    assert_eq!(pids, json!([init.0]));
    web.call("pause", &[]).run().fails_with("no cgroup");
    web.call("resume", &[]).run().fails_with("container not paused");
    web.call("events", &["--stats"]).run().fails_with("no cgroup");
    bundle.onggi(&["stats"]).run().ok();
    bundle.onggi(&["gc"]).run().ok();
    web.call("kill", &["--all"]).args(&["KILL"]).run().ok();
    web.becomes("stopped");
    web.remove();
}

/// As in a container that is not privileged.
#[test]
fn create_on_read_only_cgroups_says_so_and_leaves_nothing() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    let script = "for m in $(awk '$3 ~ /^cgroup/ { print $2 }' /proc/mounts); do
        mountpoint -q $m || continue; # hidden below another
        mount -o remount,ro,bind $m || exit 9; done; exec \"$0\" \"$@\"";
    let through = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script];
    web.call("create", &[]).through(&through).run().fails_with("read-only file system");
    bundle.assert_clean();
}

/// Somebody from outside has moved a process into a sub-cgroup: it is the container's now, and goes.
#[test]
fn delete_force_kills_processes_in_sub_cgroups() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let sub = bundle.cgroup("pids").join("sub/sub");
    fs::create_dir_all(&sub).unwrap();
    let child = reaper::spawn(Command::new("sleep").arg("1000")).unwrap();
    fs::write(sub.join("cgroup.procs"), child.pid.to_string()).unwrap();
    let pids = web.call("ps", &["--format", "json"]).run().ok().json();
    assert!(pids.as_array().unwrap().contains(&json!(child.pid)), "{pids}");
    web.remove();
    assert!(Process(child.pid).is_exiting());
}

/// What has left the pid namespace of the container, or never was in it (exec), ends with its cgroup.
#[test]
fn delete_of_a_stopped_container_takes_what_is_left_in_its_cgroup_with_it() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    web.stop();
    let child = reaper::spawn(Command::new("sleep").arg("1000")).unwrap();
    fs::write(bundle.cgroup("pids").join("cgroup.procs"), child.pid.to_string()).unwrap();
    web.delete().ok();
    bundle.assert_clean();
    assert!(Process(child.pid).is_exiting());
}

/// A file server that never answers, as one whose network is gone: a FUSE mount that tells of its root and
/// of nothing in it. Who asks for more waits where no signal reaches him, until the mount is forced away.
struct Silent {
    dir: PathBuf,
    asked: mpsc::Receiver<()>,
}

impl Silent {
    fn mount(bundle: &Bundle) -> Silent {
        let dir = bundle.dir().join("silent");
        fs::create_dir(&dir).unwrap();
        let device = fs::File::options().read(true).write(true).open("/dev/fuse").unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        let (target, options) = (cstring(&dir), CString::new(options).unwrap());
        let (kind, data) = (c"fuse".as_ptr(), options.as_ptr().cast());
        let rc = unsafe { libc::mount(c"silent".as_ptr(), target.as_ptr(), kind, 0, data) };
        assert_eq!(rc, 0, "{}", std::io::Error::last_os_error());
        let (tell, asked) = mpsc::channel();
        std::thread::spawn(move || serve(device, tell));
        Silent { dir, asked }
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        let flags = libc::MNT_FORCE | libc::MNT_DETACH;
        assert_eq!(unsafe { libc::umount2(cstring(&self.dir).as_ptr(), flags) }, 0);
    }
}

fn cstring(path: &Path) -> CString {
    CString::new(path.to_str().unwrap()).unwrap()
}

/// fuse(4), as far as a mount needs it. Tells when it is asked what it does not answer; ends with the mount.
fn serve(mut device: fs::File, tell: mpsc::Sender<()>) {
    const LOOKUP: u32 = 1;
    const GETATTR: u32 = 3;
    const INIT: u32 = 26;
    let mut request = [0u8; 1 << 14];
    while device.read(&mut request).is_ok_and(|length| length > 0) {
        let word = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().unwrap());
        // All in words of 32 bits; what is not said is 0.
        let (error, body) = match word(4) {
            LOOKUP => match tell.send(()) {
                Ok(()) => continue,
                Err(_) => return,
            },
            // Version 7.23, and the largest write.
            INIT => (0, vec![(0, 7), (1, 23), (5, 4096), (15, 0)]),
            // How long it is true, the inode, a directory with two links.
            GETATTR => (0, vec![(0, 1000), (4, 1), (19, 0o40755), (20, 2), (25, 0)]),
            _ => (-libc::ENOSYS, vec![]),
        };
        let words = body.last().map_or(0, |(last, _)| last + 1);
        let mut answer = vec![0u32; 4 + words];
        answer[0] = 4 * answer.len() as u32;
        answer[1] = error as u32;
        (answer[2], answer[3]) = (word(8), word(12));
        for (at, value) in body {
            answer[4 + at] = value;
        }
        let bytes: Vec<u8> = answer.into_iter().flat_map(u32::to_ne_bytes).collect();
        // An answer that comes too late is none.
        let _ = device.write(&bytes);
    }
}

/// A process that SIGKILL does not end (its file server has gone away): delete says which, keeps the state,
/// and takes everything away when it is called again after that.
#[test]
fn delete_of_a_container_with_a_process_in_uninterruptible_sleep_says_who() {
    require!(root, path("/dev/fuse"));
    let bundle = Bundle::sh("cat /silent/file; sleep 1000");
    let silent = Silent::mount(&bundle);
    let mount = json!({
        "destination": "/silent", "source": silent.dir, "type": "none", "options": ["bind"],
    });
    bundle.edit(|config| config.push("/mounts", mount));
    let web = bundle.container("web");
    web.up();
    silent.asked.recv_timeout(patience()).expect("cat asks the server");
    let pids = host::cgroup_procs(&bundle.cgroup("pids"));
    let cat = |pid: &&i32| Process(**pid).cmdline().first().is_some_and(|arg| arg == "cat");
    let asleep = pids.iter().find(cat).expect("cat waits for it");
    let refused = web.delete_force().fails();
    let words = format!("in uninterruptible sleep (state D): process {asleep}");
    assert!(refused.stderr.contains(&words), "{refused}");
    assert!(refused.stderr.contains("container init still running"), "{refused}");
    assert!(!bundle.state_entries().is_empty(), "the state is gone");
    drop(silent);
    web.delete_force().ok();
    bundle.assert_clean();
}

/// A create that was killed before it had seen that somebody lives in the cgroup it was to make: its record names
/// that cgroup, and nothing that is done to the container is done to those in it.
#[test]
fn a_cgroup_that_a_killed_create_only_intended_is_not_acted_on() {
    require!(root, program("strace"));
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let second = bundle.another("second", |config| config);
    let path = bundle.config()["linux"]["cgroupsPath"].clone();
    let mut config = bundle.config();
    config.set("/linux/cgroupsPath", path).set("/root/path", bundle.rootfs().to_str().unwrap());
    fs::write(bundle.dir().join("bundle-second/config.json"), config.0.to_string()).unwrap();
    // The FIFOs are made between the record and the cgroups.
    let trace = bundle.dir().join("trace");
    let strace = ["strace", "-f", "-qq", "-o", trace.to_str().unwrap()];
    let strace = [&strace[..], &["-e", "trace=mknodat", "-e", "inject=mknodat:signal=KILL:when=2"]];
    let killed = second.call("create", &[]).through(&strace.concat()).run();
    assert_eq!(killed.signal(), Some(libc::SIGKILL));
    assert_eq!(bundle.state_entries().len(), 2, "it was killed too early");
    let pids = second.call("ps", &["--format", "json"]).run().ok().json();
    assert!(!pids.as_array().unwrap().contains(&json!(web.init().0)), "{pids}");
    second.call("resume", &[]).run().fails_with("container not paused");
    second.call("kill", &["--all"]).arg("KILL").run().ok();
    assert_eq!(web.status(), "running");
    freeze(&bundle, true);
    web.becomes("paused");
    second.call("resume", &[]).run().fails_with("container not paused");
    assert_eq!(web.status(), "paused");
    freeze(&bundle, false);
    second.delete_force().ok();
    assert_eq!(web.status(), "running");
}

/// The last of those in a parent cgroup may take it away, a create that has failed, while the next one is about to
/// make its own in it.
#[test]
fn a_parent_cgroup_that_goes_during_create_is_made_again() {
    require!(root, cgroupfs_driver(), program("strace"));
    let bundle = Bundle::new();
    let path = format!("{}/parent/leaf", bundle.config()["linux"]["cgroupsPath"].as_str().unwrap());
    bundle.edit(|config| config.set("/linux/cgroupsPath", path.as_str()));
    let web = bundle.container("web");
    let trace = bundle.dir().join("trace");
    let strace = ["strace", "-qq", "-o", trace.to_str().unwrap()];
    let slow = ["-e", "trace=mkdirat", "-e", "inject=mkdirat:delay_enter=300000"];
    let create = web.call("create", &[]).through(&[&strace[..], &slow].concat()).spawn();
    let parents =
        || host::cgroups_of(bundle.name()).into_iter().filter(|dir| dir.ends_with("parent"));
    eventually("a parent is taken away", || {
        parents().any(|parent| fs::remove_dir(parent).is_ok()).then_some(())
    });
    create.wait().ok();
    web.start().ok();
    assert!(web.init().cgroups().values().any(|path| path.ends_with("/parent/leaf")));
    web.stop();
    web.delete().ok();
    // Parents stay, as others may be about to use them.
    host::clean(bundle.name());
}

/// After a reboot a cgroup of that name, and of that inode, is somebody else's.
#[test]
fn a_cgroup_of_another_boot_is_not_acted_on() {
    require!(root);
    let bundle = Bundle::new();
    let web = bundle.container("web");
    web.up();
    let init = web.init();
    let file = bundle.root().join("web/state.json");
    let record = fs::read_to_string(&file).unwrap();
    let mut other: serde_json::Value = serde_json::from_str(&record).unwrap();
    other["boot"] = json!("00000000-0000-0000-0000-000000000000");
    fs::write(&file, other.to_string()).unwrap();
    assert_eq!(web.call("ps", &["--format", "json"]).run().ok().json(), json!([]));
    web.call("kill", &["--all"]).arg("KILL").run().ok();
    assert!(init.is_alive() && !init.is_exiting());
    fs::write(&file, record).unwrap();
    assert_eq!(web.status(), "running");
}
