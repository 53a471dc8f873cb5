//! Finding and making things in the rootfs, by descriptor and always inside it.
//!
//! Every lookup is openat2(2) with `RESOLVE_IN_ROOT`; everything made is made by its last name in a
//! directory just resolved, never over something that is there.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::sys::{self, Error, Result};

/// As many links as the kernel would follow.
const MAX_LINKS: u32 = 40;
/// Attempts against a neighbour that keeps renaming.
const MAX_TRIES: u32 = 8;

/// Something found, and whether its path was followed to the letter, without a link in it.
#[derive(Debug)]
pub struct Found {
    /// The thing, as a path descriptor.
    pub fd: OwnedFd,
    /// No link was met, so it lies where its path says.
    pub literal: bool,
}

/// Opens what is there, following links inside the root; `None` when something is missing.
pub fn find(root: BorrowedFd<'_>, path: &str, flags: i32) -> Result<Option<Found>> {
    let found = match open_no_links(root, path, flags) {
        Err(error) if error.errno == libc::ELOOP => {
            open(root, path, flags).map(|fd| Found { fd, literal: false })
        }
        result => result.map(|fd| Found { fd, literal: true }),
    };
    match found {
        Err(error) if error.errno == libc::ENOENT => Ok(None),
        result => result.map(Some),
    }
}

/// Opens what is there, following links inside the root.
pub fn open(root: BorrowedFd<'_>, path: &str, flags: i32) -> Result<OwnedFd> {
    sys::fs::openat2(root, &relative(path)?, flags, 0, sys::fs::IN_ROOT)
        .map_err(|error| error.about(path.escape_debug()))
}

/// Opens what is there, refusing links anywhere in the path.
pub fn open_no_links(root: BorrowedFd<'_>, path: &str, flags: i32) -> Result<OwnedFd> {
    let resolve = sys::fs::IN_ROOT | libc::RESOLVE_NO_SYMLINKS;
    sys::fs::openat2(root, &relative(path)?, flags, 0, resolve)
        .map_err(|error| error.about(path.escape_debug()))
}

/// The path without its leading slash; the root itself is ".".
fn relative(path: &str) -> Result<CString> {
    let path = path.trim_start_matches('/');
    sys::cstr("openat2", if path.is_empty() { "." } else { path })
}

/// A directory, made with its parents where missing (0755).
pub fn directory(root: BorrowedFd<'_>, path: &str) -> Result<Found> {
    ensure_directory(root, path, MAX_LINKS)
}

fn ensure_directory(root: BorrowedFd<'_>, path: &str, links: u32) -> Result<Found> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    for _ in 0..MAX_TRIES {
        if let Some(found) = find(root, path, flags)? {
            return Ok(found);
        }
        let (above, name) = split(path)?;
        let parent = ensure_directory(root, above, links)?;
        match sys::fs::mkdirat(parent.fd.as_fd(), &name, 0o755) {
            Ok(()) => {}
            Err(error) if error.errno == libc::EEXIST => {
                // Something is there that leads nowhere: a dangling link of the image, as /var/run -> /run.
                // Or somebody was faster; then the next try finds it.
                if let Some(target) = link_target(root, (parent.fd.as_fd(), above), &name)? {
                    let links = links.checked_sub(1);
                    let links = links.ok_or_else(|| Error::new("openat2", path, libc::ELOOP))?;
                    let found = ensure_directory(root, &target, links)?;
                    return Ok(Found { literal: false, ..found });
                }
            }
            Err(error) => return Err(error.about(path.escape_debug())),
        }
        super::leave_open([parent.fd]);
    }
    Err(Error::new("openat2", path.escape_debug(), libc::EAGAIN))
}

/// Where a link in a directory (`above` is its path) leads, as a path below the root without links; `None`
/// when it is no link.
fn link_target(
    root: BorrowedFd<'_>,
    (parent, above): (BorrowedFd<'_>, &str),
    name: &CStr,
) -> Result<Option<String>> {
    let Some(target) = read_link(parent, name)? else { return Ok(None) };
    let joined = if target.starts_with('/') { target } else { format!("{above}/{target}") };
    expand(root, &joined).map(Some)
}

fn read_link(parent: BorrowedFd<'_>, name: &CStr) -> Result<Option<String>> {
    match sys::fs::readlinkat(parent, name) {
        Ok(target) => Ok(Some(String::from_utf8_lossy(&target).into_owned())),
        Err(error) if matches!(error.errno, libc::EINVAL | libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The path with its links followed as far as it is there, and without `..`, which is of the directory that a
/// link leads to: /lib/modules -> ../share/modules with /lib -> usr/lib is in /usr/share.
fn expand(root: BorrowedFd<'_>, path: &str) -> Result<String> {
    let mut rest: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
    let mut done: Vec<String> = Vec::new();
    let mut links = MAX_LINKS;
    while let Some(part) = rest.pop() {
        if part == ".." {
            done.pop();
        } else if !part.is_empty() && part != "." {
            let target = match open(root, &done.join("/"), libc::O_PATH | libc::O_DIRECTORY) {
                Ok(parent) => read_link(parent.as_fd(), &sys::cstr("readlink", part.as_str())?)?,
                // Nothing below is there.
                Err(error) if matches!(error.errno, libc::ENOENT | libc::ENOTDIR) => None,
                Err(error) => return Err(error),
            };
            let Some(target) = target else {
                done.push(part);
                continue;
            };
            links = links.checked_sub(1).ok_or_else(|| Error::new("openat2", path, libc::ELOOP))?;
            if target.starts_with('/') {
                done.clear();
            }
            rest.extend(target.split('/').rev().map(str::to_owned));
        }
    }
    Ok(format!("/{}", done.join("/")))
}

/// A path's parent and last name.
pub fn split(path: &str) -> Result<(&str, CString)> {
    let path = path.trim_end_matches('/');
    let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
    if name.is_empty() {
        return Err(Error::new("openat2", "the root itself", libc::ENOENT));
    }
    Ok((above, sys::cstr("openat2", name)?))
}

/// A path's parent directory, made where missing, and its last name.
pub fn parent(root: BorrowedFd<'_>, path: &str) -> Result<(OwnedFd, CString)> {
    let (above, name) = split(path)?;
    Ok((directory(root, above)?.fd, name))
}

/// Something that is no directory, to mount a file on: what is there, or a new empty file.
pub fn file(root: BorrowedFd<'_>, path: &str) -> Result<Found> {
    let mut path = path.to_owned();
    let mut literal = true;
    for _ in 0..MAX_LINKS {
        if let Some(found) = find(root, &path, libc::O_PATH)? {
            return Ok(Found { literal: literal && found.literal, ..found });
        }
        let (above, name) = split(&path)?;
        let parent = directory(root, above)?.fd;
        let flags = libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_WRONLY;
        match sys::fs::openat(parent.as_fd(), &name, flags, 0o644) {
            Ok(_) => {}
            Err(error) if error.errno == libc::EEXIST => {
                if let Some(target) = link_target(root, (parent.as_fd(), above), &name)? {
                    path = target;
                    literal = false;
                }
            }
            Err(error) => return Err(error.about(path.escape_debug())),
        }
    }
    Err(Error::new("openat2", path.escape_debug(), libc::ELOOP))
}

/// Whether a descriptor is of a directory.
pub fn is_directory(fd: BorrowedFd<'_>) -> Result<bool> {
    Ok(sys::fs::fstat(fd)?.st_mode & libc::S_IFMT == libc::S_IFDIR)
}
