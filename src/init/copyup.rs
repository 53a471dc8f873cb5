//! `tmpcopyup`: what lies below a new tmpfs, copied into it.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

use crate::error::{Code, Error, Result};
use crate::sys;

/// Deepest directory that is copied: the tree is the image's.
const MAX_DEPTH: u32 = 64;

/// Copies directories, regular files and links from one directory to another, by descriptor, with
/// owner and mode. Devices, sockets and FIFOs have no content to keep and are left out, as in runc.
pub fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    directory(from, to, MAX_DEPTH)
}

fn directory(from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: u32) -> Result<()> {
    let depth =
        depth.checked_sub(1).ok_or_else(|| Error::text(Code::E_MOUNT, "tmpcopyup: too deep"))?;
    for name in sys::fs::list(from)? {
        let stat = sys::fs::lstatat(from, &name)?;
        match stat.st_mode & libc::S_IFMT {
            libc::S_IFDIR => {
                let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
                let below = sys::fs::openat(from, &name, flags, 0)?;
                sys::fs::mkdirat(to, &name, stat.st_mode & 0o7777)?;
                let made = sys::fs::openat(to, &name, flags, 0)?;
                directory(below.as_fd(), made.as_fd(), depth)?;
                own(to, &name, &stat)?;
            }
            libc::S_IFREG => {
                file(from, to, &name, &stat)?;
                own(to, &name, &stat)?;
            }
            libc::S_IFLNK => {
                let target = sys::cstr("symlink", sys::fs::readlinkat(from, &name)?)?;
                sys::fs::symlinkat(&target, to, &name)?;
                sys::fs::lchownat(to, &name, stat.st_uid, stat.st_gid)?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn file(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, stat: &libc::stat) -> Result<()> {
    // O_NONBLOCK: it may have become a FIFO since it was looked at.
    let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let source = sys::fs::openat(from, name, flags, 0)?;
    let size = usize::try_from(sys::fs::fstat(source.as_fd())?.st_size).unwrap_or(0);
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
    let made = sys::fs::openat(to, name, flags, stat.st_mode & 0o7777)?;
    Ok(sys::exec::copy(source.as_fd(), made.as_fd(), size)?)
}

/// Owner first: a change of owner takes set-id bits away.
fn own(to: BorrowedFd<'_>, name: &CStr, stat: &libc::stat) -> Result<()> {
    sys::fs::lchownat(to, name, stat.st_uid, stat.st_gid)?;
    Ok(sys::fs::fchmodat(to, name, stat.st_mode & 0o7777)?)
}
