//! Being told of changes: inotify(7) and eventfd(2).

use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::{Result, done, owned};

/// eventfd(2), non-blocking.
pub fn eventfd() -> Result<OwnedFd> {
    // SAFETY: takes no pointer.
    let ret = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    owned(ret.into(), "eventfd", "")
}

/// `inotify_init1(2)`, non-blocking.
pub fn inotify() -> Result<OwnedFd> {
    // SAFETY: takes no pointer.
    let ret = unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) };
    owned(ret.into(), "inotify_init1", "")
}

/// `inotify_add_watch(2)` on an open file.
pub fn watch(inotify: BorrowedFd<'_>, file: BorrowedFd<'_>, mask: u32) -> Result<()> {
    let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap_or_default();
    // SAFETY: `path` is a C string that outlives the call.
    let ret = unsafe { libc::inotify_add_watch(inotify.as_raw_fd(), path.as_ptr(), mask) };
    done(ret.into(), "inotify_add_watch", path.to_string_lossy())
}
