//! One cgroup directory: found and made by descriptor, its files read and written.
//!
//! Every path starts at a hierarchy's mount point, whose filesystem type is verified, and is resolved
//! beneath it without links or mounts in between: nothing is ever made outside of cgroupfs.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use super::record::Place;
use crate::error::{Code, Error, Result};
use crate::sys::{self, fs};

/// An open directory of a container.
#[derive(Debug)]
pub(super) struct Dir {
    /// Which one.
    pub place: Place,
    /// Itself, readable.
    pub fd: OwnedFd,
    /// Whether we made it just now, so that it has defaults, no processes and no children.
    pub fresh: bool,
    /// v2: the controllers enabled for it. Filled by [`super::Group::create`] only.
    pub controllers: Vec<String>,
    /// v2: why a controller could not be enabled.
    pub refusals: Vec<(String, sys::Error)>,
}

impl Dir {
    pub fn new(place: &Place, fd: OwnedFd, fresh: bool) -> Self {
        Self { place: place.clone(), fd, fresh, controllers: Vec::new(), refusals: Vec::new() }
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A directory we made, to be undone.
#[derive(Debug)]
pub(super) struct Made {
    pub parent: OwnedFd,
    pub name: CString,
    /// It is the container's own, and not above it.
    pub leaf: bool,
}

/// The mount point of a place's hierarchy, verified to be a cgroup filesystem of its version.
pub(super) fn open_mount(place: &Place) -> Result<OwnedFd> {
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let fd = fs::open(&sys::cstr("open", &place.mount)?, flags)?;
    let wanted = if place.is_v2() { libc::CGROUP2_SUPER_MAGIC } else { libc::CGROUP_SUPER_MAGIC };
    if fs::fs_magic(fd.as_fd())? != wanted {
        return Err(Error::text(
            Code::E_CGROUP,
            format!("{}: not the cgroup filesystem it was", place.mount),
        ));
    }
    Ok(fd)
}

/// A directory below another.
pub(super) fn open_below(dir: BorrowedFd<'_>, path: &str, flags: i32) -> sys::Result<OwnedFd> {
    let path = sys::cstr("openat2", path)?;
    fs::openat2(dir, &path, flags | libc::O_DIRECTORY, 0, fs::BENEATH)
}

/// Mount points that have been opened and verified, for commands that look at many containers.
#[derive(Debug, Default)]
pub struct Mounts(Vec<(String, OwnedFd)>);

impl Mounts {
    fn get(&mut self, place: &Place) -> Result<BorrowedFd<'_>> {
        let at = match self.0.iter().position(|(mount, _)| *mount == place.mount) {
            Some(at) => at,
            None => {
                self.0.push((place.mount.clone(), open_mount(place)?));
                self.0.len() - 1
            }
        };
        let missing = || Error::text(Code::E_INTERNAL, "a mount point that was just opened");
        self.0.get(at).map(|(_, fd)| fd.as_fd()).ok_or_else(missing)
    }
}

/// Opens an existing place; `None` when it, or its whole hierarchy, is gone.
pub(super) fn open(place: &Place, mounts: &mut Mounts) -> Result<Option<Dir>> {
    let mount = match mounts.get(place) {
        Err(error) if error.errno() == Some(libc::ENOENT) => return Ok(None),
        other => other?,
    };
    match open_below(mount, &place.path, libc::O_RDONLY) {
        Ok(fd) if is_another(place, fd.as_fd())? => Ok(None),
        Ok(fd) => Ok(Some(Dir::new(place, fd, false))),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(Error::from(error.about(place.dir()))),
    }
}

/// Whether what has the name of a recorded directory is not that one.
pub(super) fn is_another(place: &Place, dir: BorrowedFd<'_>) -> sys::Result<bool> {
    Ok(match place.inode {
        Some(inode) => fs::fstat(dir)?.st_ino != inode,
        None => false,
    })
}

/// Makes a place with the parents it lacks. What was made is noted in `made`, even on failure.
pub(super) fn make(place: &Place, made: &mut Vec<Made>) -> Result<Dir> {
    let mut tries = 0;
    loop {
        tries += 1;
        match make_below(open_mount(place)?, place, made) {
            // Another container's create has failed and taken a parent back that we had just found.
            Err(error) if tries < 16 && is_gone(&error) => {}
            result => return result.map_err(|error| Error::from(error.about(place.dir()))),
        }
    }
}

fn make_below(mount: OwnedFd, place: &Place, made: &mut Vec<Made>) -> sys::Result<Dir> {
    let (above, name) = match place.path.rsplit_once('/') {
        Some((above, name)) => (Some(above), name),
        None => (None, place.path.as_str()),
    };
    let parent = match above {
        None => mount,
        Some(above) => match open_below(mount.as_fd(), above, libc::O_PATH) {
            Err(error) if error.errno == libc::ENOENT => make_parents(mount, above, made)?,
            other => other?,
        },
    };
    let c_name = sys::cstr("mkdir", name)?;
    let fresh = match fs::mkdirat(parent.as_fd(), &c_name, 0o755) {
        Ok(()) => true,
        Err(error) if error.errno == libc::EEXIST => false,
        Err(error) => return Err(error),
    };
    let fd = open_below(parent.as_fd(), name, libc::O_RDONLY);
    if fresh {
        made.push(Made { parent, name: c_name, leaf: true });
    }
    let mut dir = Dir::new(place, fd?, fresh);
    dir.place.inode = Some(fs::fstat(dir.as_fd())?.st_ino);
    Ok(dir)
}

fn make_parents(mount: OwnedFd, path: &str, made: &mut Vec<Made>) -> sys::Result<OwnedFd> {
    let mut current = mount;
    for name in path.split('/') {
        current = match open_below(current.as_fd(), name, libc::O_PATH) {
            Err(error) if error.errno == libc::ENOENT => {
                let c_name = sys::cstr("mkdir", name)?;
                let ours = match fs::mkdirat(current.as_fd(), &c_name, 0o755) {
                    Ok(()) => true,
                    // Another container with the same parent was faster.
                    Err(error) if error.errno == libc::EEXIST => false,
                    Err(error) => return Err(error),
                };
                let next = open_below(current.as_fd(), name, libc::O_PATH)?;
                if ours {
                    made.push(Made { parent: current, name: c_name, leaf: false });
                }
                next
            }
            other => other?,
        };
    }
    Ok(current)
}

/// The largest file of a cgroup that is read, in bytes: those with a line for each disk or node can be long.
const LONGEST: usize = 16 << 20;

/// Reads a file of a cgroup, or of a process.
pub(super) fn read(dir: impl AsFd, file: &CStr) -> sys::Result<String> {
    let fd = fs::openat(dir.as_fd(), file, libc::O_RDONLY, 0)?;
    let bytes = fs::read_small(fd.as_fd(), LONGEST).map_err(|error| error.about(show(file)))?;
    Ok(String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// Writes a file of a cgroup.
pub(super) fn write(dir: impl AsFd, file: &CStr, value: &str) -> sys::Result<()> {
    let fd = fs::openat(dir.as_fd(), file, libc::O_WRONLY, 0)?;
    write_to(fd.as_fd(), &show(file), value)
}

/// One write(2): cgroup files take a value in one piece or not at all.
pub(super) fn write_to(fd: BorrowedFd<'_>, file: &str, value: &str) -> sys::Result<()> {
    fs::write(fd, value.as_bytes())
        .map(drop)
        .map_err(|error| error.about(format_args!("{value:?} to {file}")))
}

fn show(file: &CStr) -> String {
    file.to_string_lossy().into_owned()
}

/// The number of `key` in a file of lines `key number`.
pub(super) fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        if name == key { value.trim().parse().ok() } else { None }
    })
}

/// Whether an error says that the cgroup has been removed: by name, or under our descriptor.
pub(super) fn is_gone(error: &sys::Error) -> bool {
    matches!(error.errno, libc::ENOENT | libc::ENODEV)
}

/// Waits that grow from 50 µs and stay below 1 ms, for what can only be asked again and again.
#[derive(Debug)]
pub(super) struct Pause {
    micros: u64,
    end: Instant,
}

impl Pause {
    pub fn until(end: Instant) -> Self {
        Self { micros: 50, end }
    }

    /// Sleeps; false when there is no time left.
    pub fn sleep(&mut self) -> bool {
        if Instant::now() >= self.end {
            return false;
        }
        std::thread::sleep(Duration::from_micros(self.micros));
        self.micros = (self.micros * 2).min(800);
        true
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::disallowed_methods)]
mod tests {
    use super::*;

    /// /proc/PID/cgroup with long paths in a dozen hierarchies, io.stat with many disks.
    #[test]
    fn files_of_more_than_a_page_are_read_to_their_end() {
        let path = std::env::temp_dir().join(format!("onggi-dir-{}", std::process::id()));
        let text = "12:devices:/a/long/path\n".repeat(1000) + "0::/last\n";
        std::fs::write(&path, &text).unwrap();
        let name = sys::cstr("open", path.to_str().unwrap()).unwrap();
        let found = read(fs::CWD, &name);
        std::fs::remove_file(&path).unwrap();
        assert!(found.unwrap() == text);
    }
}
