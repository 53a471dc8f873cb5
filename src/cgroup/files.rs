//! Reading what the kernel counts for a container.

use std::os::fd::AsFd;

use super::dir::{self, Dir, Mounts};
use super::group::Group;
use super::record::Record;
use crate::error::{Code, Error, Result};
use crate::sys::{self, fs};

/// The v1 controllers that count something; `cpu` counts how often it has throttled, `freezer` tells
/// whether the container is paused.
const COUNTING: [&str; 7] = ["cpu", "cpuacct", "memory", "pids", "blkio", "hugetlb", "freezer"];

impl Group {
    /// Opens only the cgroups that count something.
    ///
    /// # Errors
    /// As [`Group::open`].
    pub fn open_counting(record: &Record, mounts: &mut Mounts) -> Result<Option<Self>> {
        Self::open_some(record, mounts, |place| {
            place.is_v2() || COUNTING.iter().any(|controller| place.has(controller))
        })
    }

    /// Whether this controller is on v1 here.
    #[must_use]
    pub fn is_v1(&self, controller: &str) -> bool {
        self.dirs.iter().any(|dir| dir.place.has(controller))
    }

    /// A file of a v1 controller's cgroup; `None` where there is none of that name.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn read_v1(&self, controller: &str, file: &str) -> Result<Option<String>> {
        let dir = self.dirs.iter().find(|dir| dir.place.has(controller));
        dir.map_or(Ok(None), |dir| read(dir, file))
    }

    /// A file of the v2 cgroup; `None` where there is none of that name.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn read_v2(&self, file: &str) -> Result<Option<String>> {
        self.v2().map_or(Ok(None), |dir| read(dir, file))
    }
}

fn read(dir: &Dir, file: &str) -> Result<Option<String>> {
    match read_whole(dir, file) {
        Ok(bytes) => Ok(Some(
            String::from_utf8(bytes)
                .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
        )),
        // EOPNOTSUPP: pressure is not accounted (psi=0).
        Err(error) if dir::is_gone(&error) || error.errno == libc::EOPNOTSUPP => Ok(None),
        Err(error) => Err(Error::at(Code::E_CGROUP, dir.place.dir())(error.about(file))),
    }
}

/// The kernel gives such a file in one piece, unless it is larger than the buffer.
fn read_whole(dir: &Dir, file: &str) -> sys::Result<Vec<u8>> {
    let fd = fs::openat(dir.as_fd(), &sys::cstr("open", file)?, libc::O_RDONLY, 0)?;
    let mut buffer = [0u8; 4096];
    let length = fs::read(fd.as_fd(), &mut buffer)?;
    let mut bytes = buffer.get(..length).unwrap_or_default().to_vec();
    if length == buffer.len() {
        bytes.extend(fs::read_to_end(fd.as_fd(), 16 << 20)?);
    }
    Ok(bytes)
}
