//! Reading what the kernel counts for a container.

use super::dir::{self, Dir, Mounts};
use super::group::Group;
use super::record::Record;
use crate::error::{Code, Error, Result};
use crate::sys;

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
    match dir::read(dir, &sys::cstr("open", file)?) {
        Ok(text) => Ok(Some(text)),
        // EOPNOTSUPP: pressure is not accounted (psi=0).
        Err(error) if dir::is_gone(&error) || error.errno == libc::EOPNOTSUPP => Ok(None),
        Err(error) => Err(Error::at(Code::E_CGROUP, dir.place.dir())(error)),
    }
}
