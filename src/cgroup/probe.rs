//! What making a container's cgroups would run into, found out without making anything. Values that
//! only a write can refuse are not found out.

use std::os::fd::{AsFd, OwnedFd};

use super::dir::{self, Dir};
use super::freeze;
use super::group::{FROZEN_ABOVE, check_unused, is_refusal, refused};
use super::layout::{Layout, Side};
use super::plan::Placement;
use super::record::Place;
use crate::error::{Code, Error, Result};
use crate::sys::{self, fs};

/// Controllers that a cgroup may pass down although it has processes itself (cgroups(7), "threaded").
const THREADED: [&str; 4] = ["cpu", "cpuset", "perf_event", "pids"];

/// Every reason why `Group::create` would fail.
#[must_use]
pub fn probe(placement: &Placement, layout: &Layout) -> Vec<Error> {
    let places = placement.record(layout).places;
    let failed = places.iter().filter_map(|place| match one(place, placement, layout) {
        Err(error) if placement.optional && is_refusal(&error) => None,
        result => result.err(),
    });
    failed.collect()
}

/// A place that is there must be unused; else the deepest directory on the way to it must be ours to
/// write.
fn one(place: &Place, placement: &Placement, layout: &Layout) -> Result<()> {
    let named = |error: sys::Error| {
        Error::at(Code::E_CGROUP, "/linux/cgroupsPath")(error.about(place.dir()))
    };
    let mut way = vec![dir::open_mount(place)?];
    let names: Vec<&str> = place.path.split('/').filter(|name| !name.is_empty()).collect();
    for name in &names {
        let Some(last) = way.last() else { break };
        match dir::open_below(last.as_fd(), name, libc::O_RDONLY) {
            Ok(next) => way.push(next),
            Err(error) if error.errno == libc::ENOENT => break,
            Err(error) => return Err(named(error)),
        }
    }
    let there = way.len() > names.len();
    if place.is_v2() {
        let wanted = placement.writes.iter().filter(|write| !write.absent_ok);
        for write in wanted.filter(|write| layout.side(&write.controller) == Some(Side::V2)) {
            passed_down(&way, &write.controller, there)
                .map_err(|error| Error::at(Code::E_CGROUP_CONTROLLER, &write.at)(error))?;
        }
    }
    match (way.pop(), there) {
        (Some(last), true) => check_unused(&Dir::new(place, last, false)),
        (Some(last), false) => {
            fs::access(last.as_fd(), c".", libc::W_OK).map_err(named)?;
            let deepest = Dir::new(place, last, false);
            if freeze::is_stopped(&deepest)? {
                Err(refused(&deepest, FROZEN_ABOVE))
            } else {
                Ok(())
            }
        }
        (None, _) => Ok(()),
    }
}

/// Whether a controller would get to the end of the way: each directory has it from the one above, or
/// can be given it.
fn passed_down(way: &[OwnedFd], controller: &str, there: bool) -> sys::Result<()> {
    let has = |dir: &OwnedFd, file: &std::ffi::CStr| -> sys::Result<bool> {
        Ok(dir::read(dir, file)?.split_ascii_whitespace().any(|name| name == controller))
    };
    let above = if there { way.len().saturating_sub(1) } else { way.len() };
    for (depth, dir) in way.iter().take(above).enumerate() {
        if has(dir, c"cgroup.subtree_control")? {
            continue;
        }
        fs::access(dir.as_fd(), c"cgroup.subtree_control", libc::W_OK)?;
        let busy = depth > 0
            && !THREADED.contains(&controller)
            && !dir::read(dir, c"cgroup.procs")?.is_empty();
        if busy {
            let what = format!("+{controller} to cgroup.subtree_control");
            return Err(sys::Error::new("write", what, libc::EBUSY));
        }
    }
    Ok(())
}
