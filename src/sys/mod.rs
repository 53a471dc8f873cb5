//! The kernel's calls, one thin function each. The only module with `unsafe`.
//!
//! Owns: raw descriptors, C strings, `errno`. Every descriptor made here is born close-on-exec and
//! leaves as an [`OwnedFd`](std::os::fd::OwnedFd). Must not: decide anything, know about containers,
//! or retry other than on `EINTR`.

pub mod bpf;
#[cfg(all(target_arch = "x86_64", any(target_env = "musl", test)))]
mod copy;
pub mod cred;
pub mod deadline;
pub mod entry;
pub mod exec;
pub mod fs;
pub mod heap;
pub mod memory;
pub mod mount;
pub mod netlink;
pub mod notify;
pub mod process;
pub mod sched;
pub mod socket;
pub mod tty;
#[cfg(no_backtrace)]
mod unwind;
pub mod xattr;

use std::ffi::CString;
use std::fmt;
use std::os::fd::{FromRawFd, OwnedFd};

use nix::errno::Errno;

/// A kernel call that failed: which one, on what, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// The call's name as in section 2 of the manual.
    pub call: &'static str,
    /// Its telling argument, a path mostly; may be empty.
    pub what: String,
    /// `errno` as the kernel left it.
    pub errno: i32,
    /// The kernel's own words, where it has some (the log of an fs-context).
    pub kernel: String,
}

/// What every function of this module returns.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The error of the call that has just failed.
    pub fn last(call: &'static str, what: impl fmt::Display) -> Self {
        Self::new(call, what, Errno::last_raw())
    }

    /// An error with a known errno.
    pub fn new(call: &'static str, what: impl fmt::Display, errno: i32) -> Self {
        Self { call, what: what.to_string(), errno, kernel: String::new() }
    }

    /// The same error, told of another thing than the call's own argument.
    #[must_use]
    pub fn about(mut self, what: impl fmt::Display) -> Self {
        self.what = what.to_string();
        self
    }
}

/// Bytes that nobody can guess (getrandom(2)).
///
/// # Errors
/// Of the call.
pub fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    // SAFETY: room for as many bytes as we say; up to 256 are given at once.
    let ret = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), N, 0) };
    check(ret as libc::c_long, "getrandom", "").map(|_| bytes)
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.what.is_empty() {
            write!(f, "{}: ", self.call)?;
        } else {
            write!(f, "{} {}: ", self.call, self.what)?;
        }
        if !self.kernel.is_empty() {
            write!(f, "{}: ", self.kernel)?;
        }
        f.write_str(&errno_text(self.errno))
    }
}

impl std::error::Error for Error {}

/// `no such file or directory (ENOENT)`: the C locale's words in lower case, then the name.
///
/// Engines look for these words in lower case.
#[must_use]
pub fn errno_text(errno: i32) -> String {
    let known = Errno::from_raw(errno);
    if known == Errno::UnknownErrno {
        return format!("errno {errno}");
    }
    format!("{} ({known:?})", errno_words(errno))
}

/// The C locale's words for an errno, in lower case.
#[must_use]
pub fn errno_words(errno: i32) -> String {
    if errno == libc::EIO {
        return "input/output error".to_owned();
    }
    let words = Errno::from_raw(errno).desc();
    let mut chars = words.chars();
    match (chars.next(), chars.next()) {
        (Some(first), Some(second)) if !second.is_uppercase() => {
            first.to_lowercase().collect::<String>() + &words[first.len_utf8()..]
        }
        _ => words.to_owned(),
    }
}

/// Text from elsewhere with its control characters made visible.
#[must_use]
pub fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control()
            || matches!(letter, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}')
        {
            out.extend(letter.escape_default());
        } else {
            out.push(letter);
        }
    }
    out
}

/// `text` as a C string; a NUL in it is `EINVAL`, as the kernel could only see half of it.
pub fn cstr(call: &'static str, text: impl AsRef<[u8]>) -> Result<CString> {
    let bytes = text.as_ref();
    CString::new(bytes)
        .map_err(|_| Error::new(call, String::from_utf8_lossy(bytes).escape_debug(), libc::EINVAL))
}

/// Turns a call's `-1` into an [`Error`].
fn check(ret: libc::c_long, call: &'static str, what: impl fmt::Display) -> Result<libc::c_long> {
    if ret < 0 { Err(Error::last(call, what)) } else { Ok(ret) }
}

/// Turns a call's `-1` into an [`Error`], and anything else into nothing.
fn done(ret: libc::c_long, call: &'static str, what: impl fmt::Display) -> Result<()> {
    check(ret, call, what).map(|_| ())
}

/// The descriptor a call returned.
fn owned(ret: libc::c_long, call: &'static str, what: impl fmt::Display) -> Result<OwnedFd> {
    let raw = check(ret, call, what)?;
    let raw = i32::try_from(raw).map_err(|_| Error::new(call, "descriptor", libc::EOVERFLOW))?;
    // SAFETY: the kernel has just given us this descriptor; nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errno_is_told_in_lower_case_c_words_then_its_name() {
        assert_eq!(errno_text(libc::ENOENT), "no such file or directory (ENOENT)");
        assert_eq!(errno_text(libc::EPERM), "operation not permitted (EPERM)");
        assert_eq!(errno_text(libc::EIO), "input/output error (EIO)");
        assert_eq!(errno_text(12345), "errno 12345");
    }

    #[test]
    fn error_names_call_thing_and_errno_once() {
        let error = Error::new("open_tree", "/srv/data", libc::ENOENT);
        assert_eq!(error.to_string(), "open_tree /srv/data: no such file or directory (ENOENT)");
    }
}
