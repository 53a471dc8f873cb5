//! The host: its cgroup layout, its programs, and what a test has left behind on it.

use std::ffi::CString;
use std::fs;
use std::io::{Read, Seek};
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use super::{Process, patience, poll, reaper};

pub const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// Whether a cgroup2 is mounted at /sys/fs/cgroup itself.
pub fn is_v2() -> bool {
    let mut facts: libc::statfs = unsafe { std::mem::zeroed() };
    let path = CString::new(CGROUP_ROOT).unwrap();
    let rc = unsafe { libc::statfs(path.as_ptr(), &mut facts) };
    rc == 0 && facts.f_type == libc::CGROUP2_SUPER_MAGIC
}

/// Where the v1 hierarchy with this controller (or `name=systemd`) is mounted.
pub fn v1_dir(controller: &str) -> Option<PathBuf> {
    let mounts = v1_mounts();
    mounts.into_iter().find(|(names, _)| names.split(',').any(|n| n == controller)).map(|m| m.1)
}

/// Every mounted v1 hierarchy: its controllers as /proc/PID/cgroup writes them, and its place.
pub fn v1_mounts() -> Vec<(String, PathBuf)> {
    if is_v2() {
        return Vec::new();
    }
    let mounts = Process::own().mounts().into_iter().filter(|mount| mount.fstype == "cgroup");
    let not_names = ["rw", "ro", "xattr", "clone_children", "noprefix"];
    let hierarchy = |mount: super::process::Mount| {
        let words = mount.super_options.split(',');
        let names = words.filter(|w| !not_names.contains(w) && !w.starts_with("release_agent"));
        (names.collect::<Vec<_>>().join(","), PathBuf::from(mount.target))
    };
    mounts.map(hierarchy).collect()
}

/// The roots of all hierarchies that a runtime could make a cgroup in.
pub fn hierarchies() -> Vec<PathBuf> {
    if is_v2() {
        return vec![CGROUP_ROOT.into()];
    }
    let mounts = Process::own().mounts().into_iter();
    let cgroup = mounts.filter(|mount| mount.fstype == "cgroup" || mount.fstype == "cgroup2");
    cgroup.map(|mount| PathBuf::from(mount.target)).collect()
}

/// A disk that has something on it, by the numbers of its device.
pub fn disk() -> Option<(u32, u32)> {
    let disk = |entry: fs::DirEntry| {
        let size = fs::read_to_string(entry.path().join("size")).ok()?;
        let dev = fs::read_to_string(entry.path().join("dev")).ok()?;
        let (major, minor) = dev.trim().split_once(':')?;
        let number = (major.parse().ok()?, minor.parse().ok()?);
        (size.trim() != "0").then_some(number)
    };
    fs::read_dir("/sys/block").ok()?.flatten().find_map(disk)
}

/// The kernel's version: the first two numbers.
pub fn kernel() -> (u32, u32) {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// Whether the whole run is one with the systemd driver: `ONGGI_IT_DRIVER=systemd`.
pub fn by_systemd() -> bool {
    std::env::var_os("ONGGI_IT_DRIVER").is_some_and(|driver| driver == "systemd")
}

/// A container's `cgroupsPath` that has this name in it, as the driver of this run wants it.
pub fn cgroups_path(name: &str) -> String {
    if by_systemd() { format!("system.slice:it:{name}") } else { format!("/{name}") }
}

/// The directory of a cgroup, in the hierarchy with this controller on v1.
pub fn cgroup_dir(controller: &str, cgroup: &str) -> PathBuf {
    let root = if is_v2() { CGROUP_ROOT.into() } else { v1_dir(controller).unwrap() };
    root.join(below_root(cgroup))
}

/// The same in every hierarchy, there or not.
pub fn cgroup_dirs(cgroup: &str) -> Vec<PathBuf> {
    hierarchies().into_iter().map(|root| root.join(below_root(cgroup))).collect()
}

fn below_root(cgroup: &str) -> String {
    match cgroup.split(':').collect::<Vec<_>>()[..] {
        // A top-level slice and the scope in it; a literal path may have colons, too.
        [slice, prefix, name] if !cgroup.starts_with('/') => {
            format!("{slice}/{prefix}-{name}.scope")
        }
        _ => cgroup.trim_start_matches('/').to_owned(),
    }
}

/// The pids in one cgroup directory.
pub fn cgroup_procs(dir: &Path) -> Vec<i32> {
    let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// A program on PATH or in one of the system's directories.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    let dirs = path.split(':').chain(system).filter(|dir| !dir.is_empty());
    dirs.map(|dir| Path::new(dir).join(name)).find(|path| path.is_file())
}

/// Runs a program of the host to its end: its status and what it printed, stderr included.
#[track_caller]
pub fn tool(args: &[&str]) -> (ExitStatus, String) {
    let memory = unsafe { libc::memfd_create(c"output".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(memory >= 0);
    let mut file = fs::File::from(unsafe { OwnedFd::from_raw_fd(memory) });
    let mut command = Command::new(args[0]);
    command.args(&args[1..]).stdin(Stdio::null());
    command.stdout(file.try_clone().unwrap()).stderr(file.try_clone().unwrap());
    let child = reaper::spawn(&mut command).unwrap_or_else(|error| panic!("{args:?}: {error}"));
    let Some(status) = reaper::wait(child.pid, patience()) else {
        let _ = Process(child.pid).kill(libc::SIGKILL);
        panic!("{args:?} does not end");
    };
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    (status, String::from_utf8_lossy(&bytes).into_owned())
}

/// Starts a program (by its absolute path) under a pid of our choice, or says what is missing.
pub fn spawn_with_pid(pid: i32, args: &[&str]) -> Result<Process, String> {
    let strings: Vec<CString> = args.iter().map(|arg| CString::new(*arg).unwrap()).collect();
    let mut argv: Vec<*const libc::c_char> = strings.iter().map(|arg| arg.as_ptr()).collect();
    argv.push(std::ptr::null());
    let mut clone: libc::clone_args = unsafe { std::mem::zeroed() };
    clone.exit_signal = libc::SIGCHLD as u64;
    clone.set_tid = &raw const pid as u64;
    clone.set_tid_size = 1;
    let size = std::mem::size_of_val(&clone);
    // The child has a copy of one thread of ours: it may do nothing but system calls.
    match unsafe { libc::syscall(libc::SYS_clone3, &raw const clone, size) } {
        0 => unsafe {
            libc::execv(argv[0], argv.as_ptr());
            libc::_exit(127)
        },
        -1 => Err(format!("clone3 with set_tid: {}", std::io::Error::last_os_error())),
        _ => Ok(Process(pid)),
    }
}

/// All processes of the host.
pub fn processes() -> Vec<Process> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).map(Process).collect()
}

/// The processes that belong to a test: our descendants (as the subreaper we are the ancestor of
/// whatever a test has started) with its name in their cgroup, arguments or environment, or with
/// a root that is in its bundle. The other mounts do not count: a mount left on the host is seen by all. Nor
/// do processes on their way out of the kernel: no signal can do more to them.
pub fn processes_of(name: &str) -> Vec<Process> {
    let own = Process::own();
    let has = |text: Option<String>| text.is_some_and(|text| text.contains(name));
    let belongs = |process: &Process| {
        process.is_alive()
            && !process.is_exiting()
            && (has(process.try_read("cmdline"))
                || has(process.try_read("environ"))
                || has(process.try_read("cgroup"))
                || has(process.mount_at("/").map(|mount| mount.root)))
            && process.descends_from(own)
    };
    processes().into_iter().filter(belongs).collect()
}

/// The cgroups with the name of a test in theirs, deepest first.
pub fn cgroups_of(name: &str) -> Vec<PathBuf> {
    fn walk(dir: &Path, name: &str, inside: bool, depth: u32, found: &mut Vec<PathBuf>) {
        let Ok(entries) = fs::read_dir(dir) else {
            return;
        };
        for entry in entries.flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let inside = inside || entry.file_name().to_string_lossy().contains(name);
            if inside || depth > 0 {
                walk(&entry.path(), name, inside, depth.saturating_sub(1), found);
            }
            if inside {
                found.push(entry.path());
            }
        }
    }
    let mut found = Vec::new();
    for root in hierarchies() {
        // A scope of a user's own systemd is five levels down.
        walk(&root, name, false, 6, &mut found);
    }
    found
}

/// systemd's transient units with the name of a test in theirs. Their files go when they do.
pub fn units_of(name: &str) -> Vec<String> {
    let uid = unsafe { libc::geteuid() };
    let user = format!("/run/user/{uid}/systemd/transient");
    let dirs =
        ["/run/systemd/transient", &user].into_iter().filter_map(|dir| fs::read_dir(dir).ok());
    let names =
        dirs.flatten().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|unit| unit.contains(name)).collect()
}

/// The mounts of this mount namespace with the name of a test in their target or source.
pub fn mounts_of(name: &str) -> Vec<String> {
    let mounts = Process::own().mounts().into_iter();
    mounts.filter(|m| m.target.contains(name)).map(|m| m.target).collect()
}

/// Everything on the host that carries the name of a test, one line each.
pub fn leftovers(name: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for process in processes_of(name) {
        lines.push(format!("process {} {:?}", process.0, process.cmdline()));
    }
    for dir in cgroups_of(name) {
        lines.push(format!("cgroup {}", dir.display()));
    }
    for target in mounts_of(name) {
        lines.push(format!("mount {target}"));
    }
    for unit in units_of(name) {
        lines.push(format!("systemd unit {unit}"));
    }
    lines
}

/// Takes away by hand what carries the name of a test: units, processes, cgroups, mounts.
pub fn clean(name: &str) {
    for unit in units_of(name) {
        tool(&["systemctl", "stop", &unit]);
        tool(&["systemctl", "reset-failed", &unit]);
    }
    poll(Duration::from_secs(10), || {
        for dir in cgroups_of(name) {
            let _ = fs::write(dir.join("freezer.state"), "THAWED");
            let _ = fs::write(dir.join("cgroup.freeze"), "0");
        }
        let processes = processes_of(name);
        for process in &processes {
            let _ = process.kill(libc::SIGKILL);
        }
        processes.is_empty().then_some(())
    });
    for target in mounts_of(name).iter().rev() {
        let target = CString::new(target.as_str()).unwrap();
        unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
    }
    poll(Duration::from_secs(10), || {
        for dir in cgroups_of(name) {
            let _ = fs::remove_dir(dir);
        }
        cgroups_of(name).is_empty().then_some(())
    });
}

/// The top of this repository: where the tests were compiled, unless `ONGGI_SOURCES` says where it is now.
pub fn sources() -> PathBuf {
    std::env::var_os("ONGGI_SOURCES")
        .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}
