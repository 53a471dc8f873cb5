//! The cgroups of a scope that systemd has just started around a process.

use std::os::fd::AsFd;

use super::super::dir::{self, Dir, Mounts};
use super::super::freeze;
use super::super::group::{Group, refused};
use super::super::layout::{self, Layout};
use super::super::plan::Placement;
use super::super::record::Place;
use super::super::{v1, v2};
use crate::error::{Code, Error, Result};
use crate::sys::{self, fs};

/// Opens the scope's cgroups, makes those that systemd does not make, puts the process into them, and
/// limits it.
pub fn enter(group: &mut Group, placement: &Placement, layout: &Layout, pid: i32) -> Result<()> {
    let path = path_of(placement, pid)?;
    for place in places(layout, &path) {
        if place.is_v2() {
            // systemd may leave the v2 tree of a hybrid host alone.
            if let Some(mut dir) = dir::open(&place, &mut Mounts::default())? {
                dir.place.inode = Some(fs::fstat(dir.as_fd())?.st_ino);
                group.dirs.push(dir);
            }
        } else {
            // systemd makes those of the controllers it knows; never cpuset, freezer or net_cls.
            group.dirs.push(dir::make(&place, &mut group.made)?);
        }
    }
    // By a slice above it, or by who had the name before: the process would never go on, and on v1 not even die.
    for dir in &group.dirs {
        if freeze::is_stopped(dir)? {
            return Err(refused(dir, "is frozen"));
        }
    }
    let wanted = wanted(placement, layout);
    for dir in &mut group.dirs {
        if dir.place.is_v2() {
            v2::enable_controllers(dir, &wanted, &placement.writes)?;
            continue;
        }
        if dir.place.has("cpuset") {
            v1::fill_cpuset(dir)?;
        }
        move_into(dir, pid)?;
    }
    group.limit(placement)
}

/// systemd passes down what it manages. The rest is passed down only where a limit needs it: the
/// directories above are systemd's.
fn wanted(placement: &Placement, layout: &Layout) -> Vec<String> {
    let Some(v2) = &layout.v2 else { return Vec::new() };
    let needed = |name: &&String| placement.writes.iter().any(|write| write.controller == **name);
    v2.controllers.iter().filter(needed).cloned().collect()
}

/// Where systemd has put the process: in v2 if that is there, else in its own v1 hierarchy.
fn path_of(placement: &Placement, pid: i32) -> Result<String> {
    let file = sys::cstr("open", format!("/proc/{pid}/cgroup"))?;
    let text = dir::read(fs::CWD, &file)?;
    let unit = placement.unit.as_ref().map_or("", |planned| planned.unit.name.as_str());
    let is_ours = |path: &&str| path.rsplit('/').next() == Some(unit);
    let found = layout::v1_path(&text, "name=systemd")
        .filter(is_ours)
        .or_else(|| layout::v2_path(&text).filter(is_ours));
    found.map(|path| path.trim_start_matches('/').to_owned()).ok_or_else(|| {
        Error::text(
            Code::E_SYSTEMD,
            format!("systemd has not put process {pid} into the cgroup of {unit}"),
        )
    })
}

fn places(layout: &Layout, path: &str) -> Vec<Place> {
    let place = |controllers: String, mount: &str| Place {
        controllers,
        mount: mount.to_owned(),
        path: path.to_owned(),
        inode: None,
    };
    let v1 = layout.v1.iter().map(|one| place(one.controllers.join(","), &one.mount));
    v1.chain(layout.v2.iter().map(|v2| place(String::new(), &v2.mount))).collect()
}

/// The process waits for us and has one thread, so moving that moves it, without the process-wide lock
/// of `cgroup.procs`.
fn move_into(dir: &Dir, pid: i32) -> Result<()> {
    dir::write(dir, c"tasks", &pid.to_string())
        .map_err(|error| Error::from(error.about(format!("{pid} to {}/tasks", dir.place.dir()))))
}
