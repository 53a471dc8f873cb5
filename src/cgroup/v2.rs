//! What cgroup v2 needs besides directories: controllers passed down from the root, and events.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use super::dir::{self, Dir};
use super::plan::Write;
use super::record::Place;
use crate::error::{Error, Result};
use crate::sys::{self, fs};

/// Those that know threads (cgroups(7), "Thread mode"), as they are passed on.
const THREADED: [&str; 4] = ["+cpu", "+cpuset", "+perf_event", "+pids"];

/// Gets every controller of the mount point down to this cgroup, as far as the way allows, and notes
/// what arrived and why the rest did not.
///
/// All of them, as engines read `memory.current` and the like of containers without limits. Each
/// `cgroup.subtree_control` is read before it is written: writing what is already there still walks
/// every cgroup below (24 ms at the root of a host with 86 000 of them).
pub(super) fn enable_controllers(dir: &mut Dir, wanted: &[String], writes: &[Write]) -> Result<()> {
    let place = dir.place.dir();
    let named = |error: sys::Error| Error::from(error.about(&place));
    dir.controllers = words(&dir::read(&*dir, c"cgroup.controllers").map_err(named)?);
    let missing: Vec<&String> =
        wanted.iter().filter(|name| !dir.controllers.contains(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut refusals = Vec::new();
    let mut above: OwnedFd = dir::open_mount(&dir.place)?;
    let (parents, _) = dir.place.path.rsplit_once('/').unwrap_or(("", ""));
    let mut names = parents.split('/').filter(|name| !name.is_empty());
    loop {
        pass_down(&above, &missing, writes, &mut refusals).map_err(named)?;
        match names.next() {
            Some(name) => {
                above = dir::open_below(above.as_fd(), name, libc::O_PATH).map_err(named)?;
            }
            None => break,
        }
    }
    dir.controllers = words(&dir::read(&*dir, c"cgroup.controllers").map_err(named)?);
    dir.refusals = refusals;
    Ok(())
}

/// Adds the missing controllers one cgroup has to those its children get.
fn pass_down(
    dir: &OwnedFd,
    missing: &[&String],
    writes: &[Write],
    refusals: &mut Vec<(String, sys::Error)>,
) -> sys::Result<()> {
    let passed = words(&dir::read(dir, c"cgroup.subtree_control")?);
    let has = words(&dir::read(dir, c"cgroup.controllers")?);
    let add: Vec<String> = missing
        .iter()
        .filter(|name| has.contains(name) && !passed.contains(name))
        .map(|name| format!("+{name}"))
        .collect();
    if add.is_empty() {
        return Ok(());
    }
    let Err(error) = dir::write(dir, c"cgroup.subtree_control", &add.join(" ")) else {
        return Ok(());
    };
    // One that cannot be had (EBUSY: processes in this very cgroup; EACCES: not delegated) spoils the
    // write of all. It matters only if a limit needs it, which is told then.
    let needed = |name: &str| writes.iter().any(|write| write.controller == name);
    // A cgroup with processes still passes on what can be divided among threads, and becomes a
    // threaded domain by that, so that everything below it has to be threaded, too. Only for a limit.
    let (occupied, mut refused) = (error.errno == libc::EBUSY, false);
    let (last, first): (Vec<&String>, Vec<&String>) =
        add.iter().partition(|name| THREADED.contains(&name.as_str()));
    for add in first.into_iter().chain(last) {
        let name = add.trim_start_matches('+');
        if occupied && (refused || !needed(name)) {
            refusals.push((name.to_owned(), error.clone()));
        } else if let Err(error) = dir::write(dir, c"cgroup.subtree_control", add) {
            refusals.push((name.to_owned(), error));
            refused = true;
        }
    }
    Ok(())
}

/// Whether a child of ours may be put into a cgroup: that takes the right to write `cgroup.procs` of
/// the common ancestor of that one and our own (cgroups(7), "Delegation containment").
pub(super) fn may_enter(place: &Place, own: &str) -> Result<bool> {
    let own = own.split('/').filter(|name| !name.is_empty());
    let common = own.zip(place.path.split('/')).take_while(|(own, name)| own == name);
    let file: String = common.map(|(name, _)| format!("{name}/")).collect();
    let file = sys::cstr("openat2", file + "cgroup.procs")?;
    let mount = dir::open_mount(place)?;
    match fs::openat2(mount.as_fd(), &file, libc::O_WRONLY, 0, fs::BENEATH) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.errno, libc::EACCES | libc::EPERM | libc::EROFS) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Gives a cgroup to the user that the container is for: the directory, and the files that the kernel
/// says may be delegated (config-linux.md, "Cgroup ownership").
pub(super) fn give_to(dir: &Dir, uid: u32) -> sys::Result<()> {
    const DELEGATE: &str = "cgroup.procs cgroup.subtree_control cgroup.threads";
    let list = match fs::open(c"/sys/kernel/cgroup/delegate", libc::O_RDONLY) {
        Ok(file) => String::from_utf8_lossy(&fs::read_to_end(file.as_fd(), 4096)?).into_owned(),
        // Before Linux 4.15.
        Err(error) if error.errno == libc::ENOENT => DELEGATE.to_owned(),
        Err(error) => return Err(error),
    };
    fs::fchown(dir.as_fd(), uid, u32::MAX)?;
    for name in list.split_ascii_whitespace() {
        match fs::lchownat(dir.as_fd(), &sys::cstr("fchownat", name)?, uid, u32::MAX) {
            // Of a controller that is not enabled here.
            Err(error) if error.errno == libc::ENOENT => {}
            result => result?,
        }
    }
    Ok(())
}

fn words(text: &str) -> Vec<String> {
    text.split_ascii_whitespace().map(str::to_owned).collect()
}

/// How long to wait for an event before looking again, in ms: what the kernel keeps between two of them
/// (`CGROUP_FILE_NOTIFY_MIN_INTV`).
const LOOK_AGAIN: i32 = 10;

/// Waits until `key` of `cgroup.events` has a value; false when `end` came first. A cgroup that is
/// gone has no processes and is not frozen.
pub(super) fn wait_event(dir: &Dir, key: &str, value: u64, end: Instant) -> sys::Result<bool> {
    loop {
        let events = match fs::openat(dir.as_fd(), c"cgroup.events", libc::O_RDONLY, 0) {
            Err(error) if dir::is_gone(&error) => return Ok(value == 0),
            other => other?,
        };
        let mut buffer = [0u8; 512];
        let length = match fs::read(events.as_fd(), &mut buffer) {
            Err(error) if dir::is_gone(&error) => return Ok(value == 0),
            other => other?,
        };
        let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned();
        if dir::field(&text, key) == Some(value) {
            return Ok(true);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        // Changes since the read above wake it up, but for one: a cgroup that empties within 10 ms of its
        // last event has the next one on a timer, which goes with it when somebody else removes it.
        let millis = i32::try_from(left.as_millis()).unwrap_or(LOOK_AGAIN).clamp(1, LOOK_AGAIN);
        match fs::poll(&[(events.as_fd(), libc::POLLPRI)], millis) {
            Err(error) if error.errno == libc::EINTR => {}
            other => drop(other?),
        }
    }
}
