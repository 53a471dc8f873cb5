//! Applying planned writes to open directories.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use super::dir::{self, Dir};
use super::plan::{Placement, Write};
use crate::error::{Code, Error, Result};
use crate::sys::{self, fs};

/// Does the writes of a placement in order: the late ones, or the others.
pub(super) fn apply(dirs: &[Dir], placement: &Placement, late: bool) -> Result<()> {
    if !late {
        check_memory(dirs, placement)?;
    }
    let mut writes: Vec<&Write> =
        placement.writes.iter().filter(|write| write.late == late).collect();
    writes.reverse();
    let mut last = Target::default();
    while let Some(write) = writes.pop() {
        let Err(error) = last.write(dirs, write) else { continue };
        // v1 keeps memory <= memory+swap at all times. A cgroup that was there before us may have a
        // lower memory+swap, which then has to rise first.
        let swap = writes.last().is_some_and(|next| next.file == "memory.memsw.limit_in_bytes");
        if write.file != "memory.limit_in_bytes" || error.errno() != Some(libc::EINVAL) || !swap {
            return Err(error);
        }
        if let Some(swap) = writes.pop() {
            last.write(dirs, swap)?;
        }
        last.write(dirs, write)?;
    }
    Ok(())
}

/// The file written last, kept open: v1 device rules are many writes to one file.
#[derive(Default)]
struct Target<'a> {
    write: Option<&'a Write>,
    file: Option<OwnedFd>,
}

impl<'a> Target<'a> {
    fn write(&mut self, dirs: &[Dir], write: &'a Write) -> Result<()> {
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
                let opened = open(dir, name, write)?;
                return match opened {
                    Some(file) => done(&file, name, value, write),
                    None => absent(name, write),
                };
            }
        }
        match &self.file {
            Some(file) => done(file, name, value, write),
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
fn check_memory(dirs: &[Dir], placement: &Placement) -> Result<()> {
    let Some((limit, at)) = placement.memory_at_most else { return Ok(()) };
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
