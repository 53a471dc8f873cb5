//! Taking a container's cgroups away, from a record alone and from any state a crash may have left.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use super::dir::{self, Dir, Mounts, Pause};
use super::group::Group;
use super::record::{Place, Record};
use super::{systemd, v2, walk};
use crate::error::{Code, Error, Result};
use crate::sys::{self, fs};

/// How long processes in cgroups that are only an intent may take to leave. Our own child has ended, but
/// for its last steps in the kernel; who is still there then is somebody else.
const INTENT: Duration = Duration::from_secs(1);

/// Removes the leaf in every hierarchy, with the sub-cgroups the container made. Parents stay. What
/// is already gone is fine.
///
/// With `kill`, processes still inside are killed first; without, they are waited for. An intent
/// (not [`Record::owned`]) may name a cgroup of somebody else: of those only empty ones are removed,
/// nobody is killed, and one in use is no error.
///
/// # Errors
/// When something is left at `deadline`: each directory, why, and the processes in it.
pub fn remove(record: &Record, kill: bool, deadline: Duration) -> Result<()> {
    let mut end = Instant::now() + deadline;
    let mut left = Vec::new();
    let mut failures = Vec::new();
    let mut busy = Vec::new();
    let owned = record.owned && !is_taken(record)?;
    if !owned {
        end = end.min(Instant::now() + INTENT);
        leave_to_systemd(record, end)?;
    }
    for place in &record.places {
        match rmdir(place) {
            Ok(None) => {}
            Ok(Some(leaf)) => left.push(leaf),
            Err(error) => failures.push(error.to_string()),
        }
    }
    if kill && owned && !left.is_empty() {
        if let Some(group) = Group::open(record)? {
            group.kill(libc::SIGKILL, end.saturating_duration_since(Instant::now()))?;
        }
    }
    for leaf in left {
        match leaf.remove(owned, end) {
            Ok(()) => {}
            Err(error) if !owned && error.errno == libc::EBUSY => {}
            Err(error) => add_failure(&mut busy, leaf.failure(&error), leaf.dir.place.dir()),
        }
    }
    // An intent's unit may be somebody else's of that name: ours has lost its process with us then, and a
    // scope without processes goes by itself.
    if let Some(unit) = record.unit.as_ref().filter(|_| owned) {
        // Of its own: what has kept the directories busy is no reason to leave the unit.
        if let Err(error) = systemd::stop(unit, deadline) {
            failures.push(error.to_string());
        }
    }
    failures.extend(busy.into_iter().map(|(why, dirs)| format!("left {}: {why}", dirs.join(", "))));
    if failures.is_empty() { Ok(()) } else { Err(Error::text(Code::E_DELETE, failures.join("; "))) }
}

/// Waits for systemd to take away what may be a unit of ours without a process: it hears of the last one's end
/// a little later (cgroup.events), and of a directory that is gone by then it hears nothing, so that the unit
/// would stay for good.
fn leave_to_systemd(record: &Record, end: Instant) -> Result<()> {
    if record.unit.is_none() {
        return Ok(());
    }
    let mut pause = Pause::until(end);
    let known = |place: &&Place| place.is_v2() || place.has("name=systemd");
    for place in record.places.iter().filter(known) {
        while dir::open(place, &mut Mounts::default())?.is_some() {
            if !pause.sleep() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Whether another unit has the name now: a directory is not the one that is recorded. Then all may be that
/// one's, on v1 also those that are still the same: of hierarchies that systemd does not know, which it leaves
/// when it stops a unit, and which another container of the name takes over.
fn is_taken(record: &Record) -> Result<bool> {
    if record.unit.is_some() {
        for place in &record.places {
            if is_another(place, true)? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// On v1 the same processes hold every hierarchy: said once, with the directories in one list.
fn add_failure(busy: &mut Vec<(String, Vec<String>)>, why: String, dir: String) {
    match busy.iter_mut().find(|(other, _)| *other == why) {
        Some((_, dirs)) => dirs.push(dir),
        None => busy.push((why, vec![dir])),
    }
}

/// A leaf that refused rmdir at first.
#[derive(Debug)]
pub(super) struct Leaf {
    pub parent: OwnedFd,
    pub name: CString,
    pub dir: Dir,
}

/// Tries the plain case: an empty leaf. `None` when it is gone now.
fn rmdir(place: &Place) -> Result<Option<Leaf>> {
    let mount = match dir::open_mount(place) {
        Err(error) if error.errno() == Some(libc::ENOENT) => return Ok(None),
        other => other?,
    };
    let named = |error: sys::Error| Error::from(error.about(place.dir()));
    let (parent, name) = match place.path.rsplit_once('/') {
        None => (mount, place.path.as_str()),
        Some((above, name)) => match dir::open_below(mount.as_fd(), above, libc::O_PATH) {
            Ok(parent) => (parent, name),
            Err(error) if dir::is_gone(&error) => return Ok(None),
            Err(error) => return Err(named(error)),
        },
    };
    let c_name = sys::cstr("rmdir", name)?;
    match is_ours(place, &parent, name) {
        Ok(true) => {}
        Ok(false) => return Ok(None),
        Err(error) => return Err(named(error)),
    }
    match fs::unlinkat(parent.as_fd(), &c_name, libc::AT_REMOVEDIR) {
        Ok(()) => return Ok(None),
        Err(error) if dir::is_gone(&error) => return Ok(None),
        Err(error) if error.errno != libc::EBUSY => return Err(named(error)),
        Err(_) => {}
    }
    match dir::open_below(parent.as_fd(), name, libc::O_RDONLY) {
        Ok(fd) => Ok(Some(Leaf { parent, name: c_name, dir: Dir::new(place, fd, false) })),
        Err(error) if dir::is_gone(&error) => Ok(None),
        Err(error) => Err(named(error)),
    }
}

/// Whether the directory is there and not another one of the same name, which is left alone.
fn is_ours(place: &Place, parent: &OwnedFd, name: &str) -> sys::Result<bool> {
    match dir::open_below(parent.as_fd(), name, libc::O_PATH) {
        Ok(fd) => Ok(!dir::is_another(place, fd.as_fd())?),
        Err(error) if dir::is_gone(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether there is a directory of that name that is not the recorded one; in another boot than that
/// of the record each is.
///
/// # Errors
/// When it cannot be looked at.
pub fn is_another(place: &Place, this_boot: bool) -> Result<bool> {
    match dir::open(&Place { inode: None, ..place.clone() }, &mut Mounts::default())? {
        Some(dir) => Ok(!this_boot || dir::is_another(place, dir.as_fd())?),
        None => Ok(false),
    }
}

impl Leaf {
    /// Waits for the processes to be gone, then removes from the deepest sub-cgroup up.
    pub fn remove(&self, children: bool, end: Instant) -> sys::Result<()> {
        let mut pause = Pause::until(end);
        loop {
            if self.dir.place.is_v2() && !v2::wait_event(&self.dir, "populated", 0, end)? {
                return Err(sys::Error::new("rmdir", "", libc::EBUSY));
            }
            let below = if children { walk::remove_children(self.dir.as_fd()) } else { Ok(()) };
            let removed = below
                .and_then(|()| fs::unlinkat(self.parent.as_fd(), &self.name, libc::AT_REMOVEDIR));
            match removed {
                Ok(()) => return Ok(()),
                Err(error) if dir::is_gone(&error) => return Ok(()),
                Err(error) if error.errno != libc::EBUSY => return Err(error),
                Err(error) if !pause.sleep() => return Err(error),
                Err(_) => {}
            }
        }
    }

    pub fn failure(&self, error: &sys::Error) -> String {
        let why = sys::errno_text(error.errno);
        let mut pids = BTreeSet::new();
        let what = match walk::pids(self.dir.as_fd(), &mut pids) {
            Ok(()) if pids.is_empty() => String::new(),
            Ok(()) => {
                let some: Vec<String> = pids.iter().take(10).map(i32::to_string).collect();
                let more = if pids.len() > 10 { ", …" } else { "" };
                format!(", processes {}{more}", some.join(", "))
            }
            Err(error) => format!(", and its processes cannot be listed: {error}"),
        };
        format!("{why}{what}")
    }
}
