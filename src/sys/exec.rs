//! Running programs: execve(2), execveat(2), `close_range`(2), `memfd_create`(2) and seals.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::{Error, Result, done, owned};

/// The kernel's form of a list of strings: pointers and a null at the end.
#[derive(Debug)]
pub struct CStrings {
    strings: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

impl CStrings {
    /// Makes the list; the strings stay where they are for its whole life.
    #[must_use]
    pub fn new(strings: Vec<CString>) -> Self {
        let mut pointers: Vec<_> = strings.iter().map(|text| text.as_ptr()).collect();
        pointers.push(std::ptr::null());
        Self { strings, pointers }
    }

    /// The strings.
    #[must_use]
    pub fn strings(&self) -> &[CString] {
        &self.strings
    }
}

/// execve(2). Returns only on failure.
pub fn execve(path: &CStr, argv: &CStrings, envp: &CStrings) -> Error {
    // SAFETY: both lists end in a null and point to C strings that they own.
    unsafe { libc::execve(path.as_ptr(), argv.pointers.as_ptr(), envp.pointers.as_ptr()) };
    Error::last("execve", path.to_string_lossy())
}

/// fexecve with our own environment: execveat(2) with `AT_EMPTY_PATH`. Returns only on failure.
pub fn execve_fd(fd: BorrowedFd<'_>, argv: &CStrings) -> Error {
    unsafe extern "C" {
        // environ(7), as the kernel gave it: nothing here ever changes it.
        static environ: *const *const libc::c_char;
    }
    // SAFETY: both lists end in a null and point to C strings, our own or the kernel's.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            fd.as_raw_fd(),
            c"".as_ptr(),
            argv.pointers.as_ptr(),
            environ,
            libc::AT_EMPTY_PATH,
        )
    };
    Error::last("execveat", "")
}

/// Marks every descriptor from `first` to `last` close-on-exec (`close_range`(2), Linux 5.11).
pub fn cloexec_range(first: u32, last: u32) -> Result<()> {
    const CLOSE_RANGE_CLOEXEC: u32 = 4;
    // SAFETY: takes no pointer; the descriptors stay open and owned.
    let ret = unsafe { libc::syscall(libc::SYS_close_range, first, last, CLOSE_RANGE_CLOEXEC) };
    done(ret, "close_range", "")
}

/// Closes every descriptor from `first` to `last`.
///
/// Owners of such descriptors must have been forgotten: this is for a cloned child that is about to
/// become another program.
pub fn close_range(first: u32, last: u32) -> Result<()> {
    if first > last {
        return Ok(());
    }
    // SAFETY: takes no pointer; see above for the owners.
    let ret = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    done(ret, "close_range", "")
}

/// `memfd_create`(2), close-on-exec, sealable.
pub fn memfd(name: &CStr, flags: u32) -> Result<OwnedFd> {
    let flags = flags | libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: `name` is a C string that outlives the call.
    let ret = unsafe { libc::memfd_create(name.as_ptr(), flags) };
    owned(ret.into(), "memfd_create", "")
}

/// `F_ADD_SEALS`. `EBUSY` says that the kernel's memory management still holds a page (it has waited some
/// milliseconds for it): asked again, for some seconds at most.
pub fn add_seals(fd: BorrowedFd<'_>, seals: i32) -> Result<()> {
    let mut tries = 20;
    loop {
        tries -= 1;
        // SAFETY: takes no pointer.
        let ret = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals) };
        match done(ret.into(), "fcntl", "F_ADD_SEALS") {
            Err(error) if error.errno == libc::EBUSY && tries > 0 => {}
            result => return result,
        }
    }
}

/// `F_GET_SEALS`; `None` for a file that has none.
#[must_use]
pub fn seals(fd: BorrowedFd<'_>) -> Option<i32> {
    // SAFETY: takes no pointer.
    let ret = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GET_SEALS) };
    (ret >= 0).then_some(ret)
}

/// Copies `size` bytes by sendfile(2).
pub fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>, size: usize) -> Result<()> {
    let mut left = size;
    while left > 0 {
        // SAFETY: a null offset means the file's own position.
        let ret =
            unsafe { libc::sendfile(to.as_raw_fd(), from.as_raw_fd(), std::ptr::null_mut(), left) };
        let count =
            usize::try_from(super::check(ret as libc::c_long, "sendfile", "")?).unwrap_or(0);
        if count == 0 {
            return Err(Error::new("sendfile", "file became shorter", libc::EIO));
        }
        left = left.saturating_sub(count);
    }
    Ok(())
}
