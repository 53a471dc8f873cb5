//! Applying planned writes to open directories.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use super::dir::{self, Dir};
use super::plan::{Placement, Write};
use crate::error::{Code, Error, Result};
use crate::sys::{self, fs};

/// Called before each write with the file and the value; what it fails with ends everything.
pub(super) type Before<'a, 'd> = &'a mut dyn FnMut(&'d Dir, &str, &str) -> Result<()>;

/// Does the writes of a placement: the late ones, or the others.
pub(super) fn apply(dirs: &[Dir], placement: &Placement, late: bool) -> Result<()> {
    if !late {
        check_memory(dirs, placement.memory_at_most)?;
    }
    let writes = placement.writes.iter().filter(|write| write.late == late).collect();
    in_order(dirs, writes, &mut |_, _, _| Ok(()))
}

/// Does writes in the order given, as far as the kernel lets it. Some values have to stay consistent
/// with each other at every moment (v1: memory below memory+swap; quota, period and burst below what
/// the parent has; a weight only without idling), so which goes first depends on what is there. A
/// write that is refused for such a reason is tried again when others have been done.
pub(super) fn in_order<'d>(
    dirs: &'d [Dir],
    mut writes: Vec<&Write>,
    before: Before<'_, 'd>,
) -> Result<()> {
    let mut last = Target::default();
    loop {
        let count = writes.len();
        let (mut again, mut refusal) = (Vec::new(), None);
        for write in writes {
            match last.write(dirs, write, before) {
                Ok(()) => {}
                Err(error) if depends_on_others(write, &error) => {
                    again.push(write);
                    refusal.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        match refusal {
            None => return Ok(()),
            Some(error) if again.len() == count => return Err(error),
            Some(_) => writes = again,
        }
    }
}

fn depends_on_others(write: &Write, error: &Error) -> bool {
    matches!(write.controller.as_str(), "memory" | "cpu" | "cpuset")
        && matches!(error.errno(), Some(libc::EINVAL | libc::EBUSY))
}

/// The file written last, kept open: v1 device rules are many writes to one file.
#[derive(Default)]
struct Target<'a> {
    write: Option<&'a Write>,
    file: Option<OwnedFd>,
}

impl<'a> Target<'a> {
    fn write<'d>(
        &mut self,
        dirs: &'d [Dir],
        write: &'a Write,
        before: Before<'_, 'd>,
    ) -> Result<()> {
        let dir = find(dirs, write)?;
        let (mut name, mut value) = (&write.file, &write.value);
        let same = self
            .write
            .is_some_and(|last| last.controller == write.controller && last.file == write.file);
        if !same || self.file.is_none() {
            self.write = Some(write);
            self.file = open(dir, name, write)?;
            if let (None, Some((or_name, or_value))) = (&self.file, &write.or) {
                (name, value) = (or_name, or_value);
                let Some(file) = open(dir, name, write)? else { return absent(name, write) };
                before(dir, name, value)?;
                return done(&file, name, value, write);
            }
        }
        match &self.file {
            Some(file) => {
                before(dir, name, value)?;
                done(file, name, value, write)
            }
            None => absent(name, write),
        }
    }
}

fn done(file: &OwnedFd, name: &str, value: &str, write: &Write) -> Result<()> {
    dir::write_to(file.as_fd(), name, value).map_err(Error::at(Code::E_CGROUP, &write.at))
}

fn absent(name: &str, write: &Write) -> Result<()> {
    if write.absent_ok {
        return Ok(());
    }
    let error = sys::Error::new("open", format_args!("{name} for {:?}", write.value), libc::ENOENT);
    Err(Error::at(Code::E_CGROUP_CONTROLLER, &write.at)(error))
}

/// The file, or `None` when this kernel has none of that name.
fn open(dir: &Dir, name: &str, write: &Write) -> Result<Option<OwnedFd>> {
    match fs::openat(dir.as_fd(), &file_name(name)?, libc::O_WRONLY, 0) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.errno == libc::ENOENT => Ok(None),
        Err(error) => Err(Error::at(Code::E_CGROUP, &write.at)(error)),
    }
}

fn file_name(name: &str) -> Result<CString> {
    Ok(sys::cstr("open", name)?)
}

/// The directory a write belongs to: the v1 hierarchy with its controller, else v2.
fn find<'a>(dirs: &'a [Dir], write: &Write) -> Result<&'a Dir> {
    let controller = &write.controller;
    if let Some(dir) = dirs.iter().find(|dir| !dir.place.is_v2() && dir.place.has(controller)) {
        return Ok(dir);
    }
    let Some(dir) = dirs.iter().find(|dir| dir.place.is_v2()) else {
        let text =
            format!("{}: no cgroup with the {controller} controller could be made", write.at);
        return Err(Error::text(Code::E_CGROUP_CONTROLLER, text));
    };
    if controller == "cgroup" || dir.controllers.iter().any(|has| has == controller) {
        return Ok(dir);
    }
    let text = format!("the {controller} controller is not enabled for {}", dir.place.dir());
    match dir.refusals.iter().find(|(name, _)| name == controller) {
        Some((_, error)) => Err(Error::at(
            Code::E_CGROUP_CONTROLLER,
            format_args!("{}: {text}", write.at),
        )(error.clone())),
        None => Err(Error::text(Code::E_CGROUP_CONTROLLER, format!("{}: {text}", write.at))),
    }
}

/// `memory.checkBeforeUpdate` on v2, where a limit below what is in use kills.
pub(super) fn check_memory(dirs: &[Dir], at_most: Option<(u64, &str)>) -> Result<()> {
    let Some((limit, at)) = at_most else { return Ok(()) };
    for dir in dirs.iter().filter(|dir| dir.place.is_v2() && !dir.fresh) {
        let text = dir::read(dir, c"memory.current").map_err(Error::at(Code::E_CGROUP, at))?;
        let used: u64 = text.trim().parse().unwrap_or(0);
        if used > limit {
            return Err(Error::text(
                Code::E_MEMORY_IN_USE,
                format!("{at}: {used} bytes are in use, more than {limit}"),
            ));
        }
    }
    Ok(())
}
