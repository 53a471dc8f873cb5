//! The mounts of this process' mount namespace, as /proc/self/mountinfo lists them (proc(5)).

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use crate::error::Result;
use crate::sys;

/// Largest mountinfo that is read, in bytes: 100 000 mounts (`fs.mount-max`) of some hundred bytes each.
const MAX_BYTES: usize = 64 << 20;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    /// Its id, as statx(2) tells it.
    pub id: u64,
    /// The id of the mount that it is on.
    pub parent: u64,
    /// It shows the whole filesystem, and not a directory of it.
    pub whole: bool,
    /// Where it is.
    pub point: PathBuf,
    /// Its filesystem's type.
    pub fstype: String,
}

/// All mounts, in the kernel's order: parents before children.
///
/// # Errors
/// When the file cannot be read.
pub fn read() -> Result<Vec<Mounted>> {
    read_from(open()?)
}

/// The list, to be read later.
///
/// # Errors
/// When there is none.
pub fn open() -> Result<OwnedFd> {
    Ok(sys::fs::open(c"/proc/self/mountinfo", libc::O_RDONLY)?)
}

/// All mounts as they are when this is called.
///
/// # Errors
/// When the file cannot be read.
pub fn read_from(file: OwnedFd) -> Result<Vec<Mounted>> {
    let bytes = sys::fs::read_to_end(file.as_fd(), MAX_BYTES)?;
    Ok(String::from_utf8_lossy(&bytes).lines().filter_map(parse).collect())
}

fn parse(line: &str) -> Option<Mounted> {
    let (before, after) = line.split_once(" - ")?;
    let mut fields = before.split(' ');
    let id = fields.next()?.parse().ok()?;
    let parent = fields.next()?.parse().ok()?;
    let whole = fields.nth(1)? == "/";
    let point = unescaped(fields.next()?)?;
    Some(Mounted { id, parent, whole, point, fstype: after.split(' ').next()?.to_owned() })
}

/// Blanks and the like are written as three octal digits.
fn unescaped(text: &str) -> Option<PathBuf> {
    let mut path = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        path.push_str(before);
        path.push(char::from(u8::from_str_radix(after.get(..3)?, 8).ok()?));
        rest = after.get(3..)?;
    }
    path.push_str(rest);
    Some(PathBuf::from(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_lines_give_id_place_and_type() {
        let line = "31 30 0:28 / /sys/fs/res\\040ctrl rw,nosuid shared:5 - resctrl resctrl rw";
        let expected = Mounted {
            id: 31,
            parent: 30,
            whole: true,
            point: "/sys/fs/res ctrl".into(),
            fstype: "resctrl".to_owned(),
        };
        assert_eq!(parse(line), Some(expected));
        assert!(parse("31 30 0:28 /part /x rw - ext4 /dev/a rw").is_some_and(|m| !m.whole));
        assert_eq!(parse("31 30 0:28 / /x rw"), None);
        assert!(read().is_ok_and(|mounts| mounts.iter().any(|m| m.point.as_os_str() == "/proc")));
    }
}
