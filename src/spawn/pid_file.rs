//! The pid file: its existence means that create, or exec, has succeeded.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::also;
use crate::error::{Code, Error, Result};
use crate::state::Pid;
use crate::sys;

/// Writes a pid as digits and nothing else (engines parse without trimming), in one step. `owner` is
/// whose pid it is, so that a temporary file that a crash leaves can be found again.
pub fn write(path: &Path, pid: i32, owner: &str) -> Result<()> {
    let (dir, name, temporary) = names(path, owner)?;
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
    let create = || sys::fs::openat(dir.as_fd(), &temporary, flags, 0o644);
    let file = match create() {
        // What a killed attempt has left goes: the file must be new, and ours.
        Err(error) if error.errno == libc::EEXIST => {
            sys::fs::unlinkat(dir.as_fd(), &temporary, 0).and_then(|()| create())
        }
        result => result,
    }
    .map_err(Error::at(Code::E_PID_FILE, "--pid-file"))?;
    let written = sys::fs::write_all(file.as_fd(), pid.to_string().as_bytes())
        .and_then(|()| sys::fs::renameat(dir.as_fd(), &temporary, &name));
    written.map_err(|error| {
        let error = Error::at(Code::E_PID_FILE, "--pid-file")(error);
        let removed = sys::fs::unlinkat(dir.as_fd(), &temporary, 0);
        also(error, removed.map_err(Into::into))
    })
}

/// A pid file's directory, its name, and the name it has until it is complete.
fn names(path: &Path, owner: &str) -> Result<(OwnedFd, CString, CString)> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    let name = path
        .file_name()
        .ok_or_else(|| Error::text(Code::E_PID_FILE, "--pid-file: names no file"))?;
    let parent = sys::cstr("open", parent.as_os_str().as_bytes())?;
    let dir = sys::fs::open(&parent, libc::O_RDONLY | libc::O_DIRECTORY)
        .map_err(Error::at(Code::E_PID_FILE, "--pid-file"))?;
    let temporary = sys::cstr("open", temporary(name, owner))?;
    Ok((dir, sys::cstr("rename", name.as_bytes())?, temporary))
}

/// Short whatever the id's length, and the same for the same container and file (FNV-1a).
fn temporary(name: &OsStr, owner: &str) -> String {
    let bytes = owner.bytes().chain([0]).chain(name.as_bytes().iter().copied());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!(".onggi-{hash:016x}")
}

/// Takes away the unfinished pid file of a create that was killed.
pub fn remove_temporary(path: &Path, owner: &str) -> Result<()> {
    let Some(name) = path.file_name() else { return Ok(()) };
    let temporary = path.with_file_name(temporary(name, owner));
    let temporary = sys::cstr("unlink", temporary.as_os_str().as_bytes())?;
    match sys::fs::unlinkat(sys::fs::CWD, &temporary, 0) {
        // There is none, or its directory has gone, and with it the file. Nobody writes to a directory that is
        // read-only by now. A directory is not ours: anybody can make one of that name in /tmp.
        Err(error)
            if matches!(error.errno, libc::ENOENT | libc::ENOTDIR | libc::EROFS | libc::EISDIR) =>
        {
            Ok(())
        }
        result => Ok(result?),
    }
}

/// Takes away a pid file that holds our pid; engines make it empty beforehand, and that one stays.
pub fn remove_own(path: &Path, pid: Option<Pid>) -> Result<()> {
    let name = sys::cstr("open", path.as_os_str().as_bytes())?;
    let file = match sys::fs::open(&name, libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK) {
        Ok(file) => file,
        Err(error) if matches!(error.errno, libc::ENOENT | libc::ELOOP) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let content = sys::fs::read_to_end(file.as_fd(), 64).unwrap_or_default();
    if pid.is_some_and(|pid| content == pid.pid.to_string().as_bytes()) {
        sys::fs::unlinkat(sys::fs::CWD, &name, 0)?;
    }
    Ok(())
}
