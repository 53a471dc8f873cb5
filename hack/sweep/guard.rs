//! The place where a tool works, and the guardian that empties it again.
//!
//! The work is done in a child process. Whatever ends it (an error, Ctrl-C, SIGKILL), the guardian
//! is left: it is the subreaper of everything that was started, so it can kill what still runs,
//! and it removes the cgroups and the directory. Mounts live in a private mount namespace.

use super::sys;
use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Which cgroup hierarchies the runtimes see.
#[derive(Clone, Copy, PartialEq)]
pub enum Cgroup {
    /// What the host has.
    Host,
    /// The host's v1 hierarchies without the unified one (some runtimes refuse hybrid hosts).
    V1,
    /// A fresh cgroup2 mount over /sys/fs/cgroup.
    V2,
    /// What the host has, by systemd: scopes in system.slice.
    Systemd,
}

impl std::str::FromStr for Cgroup {
    type Err = anyhow::Error;
    fn from_str(s: &str) -> Result<Self> {
        match s {
            "host" => Ok(Cgroup::Host),
            "v1" => Ok(Cgroup::V1),
            "v2" => Ok(Cgroup::V2),
            "systemd" => Ok(Cgroup::Systemd),
            _ => bail!("--cgroup {s}: host, v1, v2 or systemd"),
        }
    }
}

/// A temporary directory and a cgroup prefix of the same unique name.
pub struct Place {
    pub dir: PathBuf,
    pub prefix: String,
    pub cgroup_roots: Vec<PathBuf>,
    pub v2: bool,
    pub systemd: bool,
}

/// Runs `work` under the guardian and returns its exit code.
pub fn guarded(
    name: &str,
    cgroup: Cgroup,
    work: impl FnOnce(&Place) -> Result<i32>,
) -> Result<i32> {
    let prefix = format!("{name}-{}", random()?);
    let dir = std::env::temp_dir().join(&prefix);
    enter_namespace(cgroup)?;
    let cgroup_roots = cgroup_roots()?;
    let v2 = Path::new("/sys/fs/cgroup/cgroup.procs").exists();
    let place = Place { dir, prefix, cgroup_roots, v2, systemd: cgroup == Cgroup::Systemd };
    sys::become_subreaper()?;
    fs::create_dir(&place.dir).with_context(|| place.dir.display().to_string())?;
    // Containers run as another user; they need no more than to pass through.
    fs::set_permissions(&place.dir, fs::Permissions::from_mode(0o711))?;
    let watched =
        SigSet::from_iter([Signal::SIGCHLD, Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
    watched.thread_block()?;
    // SAFETY: single-threaded, so the child may do anything the parent could.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Child => std::process::exit(worker(&watched, &place, work)),
        nix::unistd::ForkResult::Parent { child } => {
            let code = watch(&watched, child.as_raw());
            watched.thread_unblock()?;
            empty(&place)?;
            Ok(code)
        }
    }
}

fn worker(watched: &SigSet, place: &Place, work: impl FnOnce(&Place) -> Result<i32>) -> i32 {
    let ready = watched.thread_unblock().map_err(anyhow::Error::from);
    // Descendants must not outlive us unseen either: they become ours, then the guardian's.
    let ready = ready.and_then(|()| Ok(sys::become_subreaper()?));
    match ready.and_then(|()| work(place)) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("{}: {e:#}", place.prefix);
            2
        }
    }
}

/// Waits for the worker; an interrupt ends it.
fn watch(watched: &SigSet, worker: i32) -> i32 {
    loop {
        match watched.wait() {
            Ok(Signal::SIGCHLD) => {
                while let Ok(Some((pid, status))) = sys::wait_any(-1, libc::WNOHANG) {
                    if pid == worker {
                        return sys::exit_code(status);
                    }
                }
            }
            Ok(_) => sys::kill(worker, libc::SIGKILL),
            Err(e) => eprintln!("sigwait: {e}"),
        }
    }
}

/// Mounts of ours stay ours, but are shared inside: a runtime that lets its mounts propagate is
/// then found out, as it would be on an ordinary host.
fn enter_namespace(cgroup: Cgroup) -> Result<()> {
    let none: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS).context("unshare mount namespace (needs root)")?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .context("make / private")?;
    match cgroup {
        Cgroup::Host | Cgroup::Systemd => {}
        Cgroup::V1 => {
            if Path::new("/sys/fs/cgroup/unified/cgroup.procs").exists() {
                umount2("/sys/fs/cgroup/unified", MntFlags::MNT_DETACH)
                    .context("hide the unified hierarchy")?;
            }
        }
        Cgroup::V2 => {
            if !Path::new("/sys/fs/cgroup/cgroup.procs").exists() {
                mount(Some("cgroup2"), "/sys/fs/cgroup", Some("cgroup2"), MsFlags::empty(), none)
                    .context("cgroup2")?;
            }
        }
    }
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SHARED, none)
        .context("make / shared inside")
}

/// Mount points of cgroup hierarchies that can be reached.
fn cgroup_roots() -> Result<Vec<PathBuf>> {
    let mut roots: Vec<PathBuf> = Vec::new();
    for line in mountinfo()?.lines() {
        let (left, right) = line.split_once(" - ").unwrap_or((line, ""));
        let point = PathBuf::from(left.split(' ').nth(4).unwrap_or_default());
        // A hierarchy that another mount covers cannot be reached by its path.
        if right.starts_with("cgroup")
            && point.join("cgroup.procs").exists()
            && !roots.contains(&point)
        {
            roots.push(point);
        }
    }
    Ok(roots)
}

pub fn mountinfo() -> Result<String> {
    Ok(fs::read_to_string("/proc/self/mountinfo")?)
}

fn random() -> Result<String> {
    use std::io::Read;
    let mut bytes = [0u8; 4];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

/// All living descendants of this process with their names.
pub fn descendants() -> Vec<(i32, String)> {
    let mut children: HashMap<i32, Vec<(i32, String)>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let (Some(open), Some(close)) = (stat.find('('), stat.rfind(')')) else { continue };
        let mut rest = stat[close + 1..].split_whitespace();
        let (state, parent) =
            (rest.next().unwrap_or("Z"), rest.next().and_then(|p| p.parse().ok()));
        if let (false, Some(parent)) = (matches!(state, "Z" | "X"), parent) {
            children.entry(parent).or_default().push((pid, stat[open + 1..close].to_string()));
        }
    }
    let mut found = Vec::new();
    let mut next = vec![std::process::id() as i32];
    while let Some(pid) = next.pop() {
        for child in children.remove(&pid).unwrap_or_default() {
            next.push(child.0);
            found.push(child);
        }
    }
    found
}

/// Collects what has ended.
pub fn reap() {
    while let Ok(Some(_)) = sys::wait_any(-1, libc::WNOHANG | libc::__WALL) {}
}

/// Kills every descendant; they are all ours, because we are their subreaper.
pub fn kill_descendants() {
    let end = Instant::now() + Duration::from_secs(3);
    loop {
        reap();
        let alive = descendants();
        if alive.is_empty() || Instant::now() > end {
            return;
        }
        alive.iter().for_each(|(pid, _)| sys::kill(*pid, libc::SIGKILL));
        std::thread::sleep(Duration::from_millis(2));
    }
}

impl Place {
    /// What config.json has as the cgroup of container `@ID@`.
    pub fn cgroups_path(&self) -> String {
        match self.systemd {
            true => format!("system.slice:{}:@ID@", self.prefix),
            false => format!("/{}/@ID@", self.prefix),
        }
    }

    /// The options that go before every command.
    pub fn options(&self) -> Vec<String> {
        if self.systemd { vec!["--systemd-cgroup".to_string()] } else { Vec::new() }
    }

    /// systemd answers when it has time, and runs in an emulated machine most often.
    pub fn patience(&self, usual: Duration) -> Duration {
        if self.systemd { usual * 10 } else { usual }
    }

    /// systemd's units of ours.
    pub fn units(&self) -> Vec<String> {
        let names = fs::read_dir("/run/systemd/transient").into_iter().flatten().flatten();
        let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| name.starts_with(&self.prefix)).collect()
    }

    /// Our cgroups below every hierarchy, deepest first.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for root in &self.cgroup_roots {
            collect(&root.join(&self.prefix), &mut found);
            for entry in fs::read_dir(root.join("system.slice")).into_iter().flatten().flatten() {
                if entry.file_name().to_string_lossy().starts_with(&self.prefix) {
                    collect(&entry.path(), &mut found);
                }
            }
        }
        found
    }

    /// Thaws our cgroups: a frozen process cannot be killed.
    pub fn thaw(&self) {
        for dir in self.cgroups() {
            for (file, value) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
                if dir.join(file).exists() {
                    ignore(fs::write(dir.join(file), value));
                }
            }
        }
    }

    /// Removes our cgroups whose path contains `part`.
    pub fn remove_cgroups(&self, part: &str) {
        let ours: Vec<_> =
            self.cgroups().into_iter().filter(|d| d.to_string_lossy().contains(part)).collect();
        let end = Instant::now() + Duration::from_millis(500);
        for dir in ours {
            // A cgroup stays busy for a moment after its last process has gone.
            while fs::remove_dir(&dir).is_err() && dir.exists() && Instant::now() < end {
                reap();
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }

    /// Detaches mounts whose line in mountinfo names our directory, newest first.
    pub fn unmount(&self) -> Result<()> {
        let ours = |m: &&str| m.contains(&self.prefix);
        let info = mountinfo()?;
        for line in info.lines().filter(ours).collect::<Vec<_>>().iter().rev() {
            let point = line.split(' ').nth(4).unwrap_or_default();
            ignore(umount2(point, MntFlags::MNT_DETACH));
        }
        Ok(())
    }
}

fn collect(dir: &Path, into: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            collect(&entry.path(), into);
        }
    }
    into.push(dir.to_path_buf());
}

/// Best effort: what could not be cleaned shows in the next comparison.
pub fn ignore<T, E>(result: std::result::Result<T, E>) {
    drop(result);
}

/// The end of everything the tool made.
fn empty(place: &Place) -> Result<()> {
    place.thaw();
    kill_descendants();
    place.remove_cgroups("");
    for unit in place.units() {
        ignore(std::process::Command::new("systemctl").args(["stop", &unit]).status());
    }
    place.unmount()?;
    // Never walk into a mount that could not be detached.
    if mountinfo()?.contains(place.dir.to_string_lossy().as_ref()) {
        bail!("{}: something is still mounted, not removed", place.dir.display());
    }
    fs::remove_dir_all(&place.dir).with_context(|| place.dir.display().to_string())?;
    let left = place.cgroups();
    if !left.is_empty() {
        bail!("cgroups could not be removed: {left:?}");
    }
    Ok(())
}
