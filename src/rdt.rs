//! The container's resctrl group: found, made, entered, removed.
//!
//! Owns: everything below the mounted resctrl filesystem. Nothing there is touched without
//! `linux.intelRdt` (config-linux.md, "IntelRdt").

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::error::{Code, Error, Result};
use crate::plan::rdt::Rdt;
use crate::state::RdtRecord;
use crate::sys;

const AT: &str = "/linux/intelRdt";
const SCHEMATA_MAX: usize = 1 << 20;
const OPEN_DIR: i32 = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;

/// Where this host has its resctrl filesystem; the spec wants an error where it has none.
fn mount() -> Result<PathBuf> {
    let found = crate::mountinfo::read()?.into_iter().find(|mount| mount.fstype == "resctrl");
    found
        .map(|mount| mount.point)
        .ok_or_else(|| Error::text(Code::E_RDT, format!("{AT}: no resctrl filesystem is mounted")))
}

/// What will be made, for the record: decided before anything is made. A group that exists must be as
/// asked for; one that is only named must exist.
pub fn intend(rdt: &Rdt, id: &str) -> Result<RdtRecord> {
    let root = mount()?;
    let group = match rdt.group.as_deref() {
        Some("/") => root,
        Some(name) => root.join(name),
        None => root.join(id),
    };
    let exists = match open(&group) {
        Ok(dir) => {
            compare(dir.as_fd(), rdt)?;
            true
        }
        Err(error) if error.errno() == Some(libc::ENOENT) => false,
        Err(error) => return Err(error),
    };
    if !exists && rdt.group.is_some() && rdt.writes.is_empty() {
        return Err(Error::text(
            Code::E_RDT,
            format!("{AT}/closID: there is no such group: {}", group.display()),
        ));
    }
    let monitor = rdt.monitoring.then(|| group.join("mon_groups").join(id));
    Ok(RdtRecord { group, made: !exists, named: rdt.group.is_some(), monitor })
}

/// Makes what is recorded and writes the schemata of a new group.
pub fn make(record: &RdtRecord, rdt: &Rdt) -> Result<()> {
    if record.made {
        mkdir(&record.group)?;
        write_schemata(open(&record.group)?.as_fd(), rdt)?;
    }
    if let Some(monitor) = &record.monitor {
        mkdir(monitor)?;
    }
    Ok(())
}

fn write_schemata(group: BorrowedFd<'_>, rdt: &Rdt) -> Result<()> {
    for lines in &rdt.writes {
        let text = lines.join("\n") + "\n";
        write(group, c"schemata", &text).map_err(|error| {
            Error::at(Code::E_RDT, format_args!("{AT}/schemata"))(error.about(text.trim()))
        })?;
    }
    Ok(())
}

/// Changes the schemata of a container's group: the kernel takes all lines of a write or none. Returns
/// what was there before, for [`take_back`].
pub fn change(record: &RdtRecord, rdt: &Rdt) -> Result<Vec<u8>> {
    let group = open(&record.group)?;
    let before = schemata(group.as_fd())?;
    write_schemata(group.as_fd(), rdt)?;
    Ok(before)
}

/// Undoes a [`change`].
pub fn take_back(record: &RdtRecord, before: &[u8]) -> Result<()> {
    let group = open(&record.group)?;
    let text = String::from_utf8_lossy(before);
    write(group.as_fd(), c"schemata", &text).map_err(Error::at(Code::E_RDT, AT))
}

fn schemata(group: BorrowedFd<'_>) -> Result<Vec<u8>> {
    let open = sys::fs::openat(group, c"schemata", libc::O_RDONLY, 0);
    let read = open.and_then(|file| sys::fs::read_to_end(file.as_fd(), SCHEMATA_MAX));
    read.map_err(Error::at(Code::E_RDT, AT))
}

/// Puts a process into the group, and then into its monitoring group: entering the first leaves the
/// second.
pub fn place(record: &RdtRecord, pid: i32) -> Result<()> {
    for path in [Some(&record.group), record.monitor.as_ref()].into_iter().flatten() {
        let dir = open(path)?;
        write(dir.as_fd(), c"tasks", &pid.to_string()).map_err(Error::at(Code::E_RDT, AT))?;
    }
    Ok(())
}

/// Removes what was made. A group that config.json names may have others in it by now, so it stays;
/// `undo` takes also that away, as long as nobody is in it.
pub fn remove(record: &RdtRecord, undo: bool) -> Result<()> {
    if let Some(monitor) = &record.monitor {
        rmdir(monitor)?;
    }
    if !record.made || record.named && !(undo && is_empty(&record.group)?) {
        return Ok(());
    }
    rmdir(&record.group)
}

fn is_empty(group: &Path) -> Result<bool> {
    let dir = match open(group) {
        Err(error) if error.errno() == Some(libc::ENOENT) => return Ok(true),
        result => result?,
    };
    let tasks = sys::fs::openat(dir.as_fd(), c"tasks", libc::O_RDONLY, 0)?;
    Ok(sys::fs::read_to_end(tasks.as_fd(), SCHEMATA_MAX)?.is_empty())
}

/// Every domain that is asked for must have the value that the group has (the kernel pads and sorts).
fn compare(dir: BorrowedFd<'_>, rdt: &Rdt) -> Result<()> {
    if rdt.writes.is_empty() {
        return Ok(());
    }
    let held = schemata(dir)?;
    let held = String::from_utf8_lossy(&held);
    let held: Vec<_> = held.lines().flat_map(domains).collect();
    // What is written later counts.
    let mut asked: Vec<(String, String, String)> = Vec::new();
    for domain in rdt.writes.iter().flatten().flat_map(|line| domains(line)) {
        asked.retain(|(resource, id, _)| (resource, id) != (&domain.0, &domain.1));
        asked.push(domain);
    }
    match asked.iter().find(|domain| !held.contains(domain)) {
        None => Ok(()),
        Some((resource, id, value)) => Err(Error::text(
            Code::E_RDT,
            format!("{AT}/closID: the group exists and has not {resource}:{id}={value}"),
        )),
    }
}

/// The parts of a line `L3:0=7f0;1=1f`: resource, domain, value without leading zeros.
fn domains(line: &str) -> Vec<(String, String, String)> {
    let Some((resource, rest)) = line.split_once(':') else { return Vec::new() };
    let part = |part: &str| {
        let (id, value) = part.split_once('=')?;
        let value = value.trim().to_ascii_lowercase();
        let short = value.trim_start_matches('0');
        let short = if short.is_empty() { "0" } else { short };
        Some((resource.trim().to_owned(), id.trim().to_owned(), short.to_owned()))
    };
    rest.split(';').filter_map(part).collect()
}

fn name(path: &Path) -> Result<CString> {
    Ok(sys::cstr("open", path.as_os_str().as_bytes())?)
}

fn open(path: &Path) -> Result<OwnedFd> {
    sys::fs::open(&name(path)?, OPEN_DIR).map_err(Error::at(Code::E_RDT, AT))
}

fn mkdir(path: &Path) -> Result<()> {
    sys::fs::mkdirat(sys::fs::CWD, &name(path)?, 0o755).map_err(Error::at(Code::E_RDT, AT))
}

fn rmdir(path: &Path) -> Result<()> {
    match sys::fs::unlinkat(sys::fs::CWD, &name(path)?, libc::AT_REMOVEDIR) {
        // It was only an intent, or the filesystem has been mounted anew.
        Err(error) if error.errno == libc::ENOENT => Ok(()),
        result => result.map_err(Error::at(Code::E_RDT, AT)),
    }
}

fn write(dir: BorrowedFd<'_>, file: &std::ffi::CStr, text: &str) -> sys::Result<()> {
    // O_CREAT changes nothing on resctrl, whose groups are born with their files; a tree that stands in for
    // one may be plain directories.
    let file = sys::fs::openat(dir, file, libc::O_WRONLY | libc::O_CREAT, 0o644)?;
    sys::fs::write_all(file.as_fd(), text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intel_rdt_schemata_compare_by_value() {
        assert_eq!(domains("  L3:0=07F0;1=1f"), domains("L3:0=7f0; 1=01f"));
        assert_ne!(domains("MB:0=20"), domains("MB:0=200"));
        assert!(domains("nonsense").is_empty());
    }
}
