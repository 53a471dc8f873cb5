//! Extended attributes of what a descriptor is open on (xattr(7)).

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::{Result, check, done};

/// fsetxattr(2).
pub fn set(fd: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> Result<()> {
    // SAFETY: the name is a C string and the value as long as we say; both outlive the call.
    let ret = unsafe {
        libc::fsetxattr(fd.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0)
    };
    let value = value.escape_ascii();
    done(ret.into(), "fsetxattr", format_args!("{}={value}", name.to_string_lossy()))
}

/// fgetxattr(2) of at most 256 bytes.
pub fn get(fd: BorrowedFd<'_>, name: &CStr) -> Result<Vec<u8>> {
    let mut value = vec![0u8; 256];
    let length = read(fd, name, &mut value)?;
    value.truncate(length);
    Ok(value)
}

/// The length of an attribute, in bytes.
pub fn length(fd: BorrowedFd<'_>, name: &CStr) -> Result<usize> {
    read(fd, name, &mut [])
}

/// An empty buffer only asks for the length.
fn read(fd: BorrowedFd<'_>, name: &CStr, buffer: &mut [u8]) -> Result<usize> {
    // SAFETY: the name is a C string and the buffer as long as we say.
    let ret = unsafe {
        libc::fgetxattr(fd.as_raw_fd(), name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len())
    };
    let length = check(ret as libc::c_long, "fgetxattr", name.to_string_lossy())?;
    Ok(usize::try_from(length).unwrap_or(0))
}
