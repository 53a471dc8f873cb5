//! Cgroups below a container's own, which crun's annotations ask for: `run.oci.systemd.subgroup` and
//! `run.oci.delegate-cgroup`. Limits stay with the container's own.
//!
//! The delegated one is the container's to manage. Its process enters it from inside the cgroup namespace,
//! whose root is so the directory above: the only processes that the runtime moves by `cgroup.procs`.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

use super::dir;
use super::group::Group;
use super::layout::Layout;
use super::plan::{Manager, Placement};
use super::{path, v2};
use crate::error::{Code, Error, Findings, Result};
use crate::sys::fs;

/// A sub-cgroup of the scope, where the container is in the scope's place.
pub const SUBGROUP: &str = "run.oci.systemd.subgroup";
/// A sub-cgroup that belongs to the container's user.
pub const DELEGATE: &str = "run.oci.delegate-cgroup";

/// Names of directories, one in the other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inner {
    /// Made by [`SUBGROUP`]; entered before there is a cgroup namespace.
    pub subgroup: Option<String>,
    /// Made by [`DELEGATE`]; entered after that.
    pub delegated: Option<String>,
}

/// What the annotations ask for.
pub(super) fn plan(
    annotations: &BTreeMap<String, String>,
    manager: Manager,
    layout: &Layout,
    findings: &mut Findings,
) -> Inner {
    let mut name = |annotation: &str| {
        let name = annotations.get(annotation).filter(|name| !name.is_empty())?;
        let at = format!("/annotations/{annotation}");
        if layout.v2.is_none() || !layout.v1.is_empty() {
            findings.problem(Code::E_ANNOTATION, at, "needs cgroup v2, and no v1 beside it");
        } else if name.contains('/') || path::check(name).is_err() {
            findings.problem(Code::E_ANNOTATION, at, "is not the name of one directory");
        } else if annotation == SUBGROUP && manager != Manager::Systemd {
            findings.warn(Code::W_NOT_APPLIED, at, "only the systemd driver makes one");
            return None;
        }
        Some(name.clone())
    };
    Inner { subgroup: name(SUBGROUP), delegated: name(DELEGATE) }
}

impl Group {
    /// Makes the planned cgroups below the container's own, puts `pid` into the sub-cgroup, gives the delegated
    /// one to `owner`, and opens the file by which the process enters that. They go with the container's own.
    ///
    /// # Errors
    /// Names the directory.
    pub fn enter_inner(
        &self,
        placement: &Placement,
        pid: i32,
        owner: Option<u32>,
    ) -> Result<Option<OwnedFd>> {
        let Inner { subgroup, delegated } = &placement.inner;
        if (subgroup, delegated) == (&None, &None) {
            return Ok(None);
        }
        let Some(mut place) = self.v2().map(|own| own.place.clone()) else {
            return Err(Error::text(Code::E_CGROUP, "there is no cgroup to make another one in"));
        };
        place.inode = None;
        if let Some(name) = subgroup {
            place.path = format!("{}/{name}", place.path);
            let dir = dir::make(&place, &mut Vec::new())?;
            dir::write(&dir, c"cgroup.procs", &pid.to_string())
                .map_err(Error::at(Code::E_CGROUP, place.dir()))?;
        }
        let Some(name) = delegated else { return Ok(None) };
        place.path = format!("{}/{name}", place.path);
        let dir = dir::make(&place, &mut Vec::new())?;
        let given = owner.map_or(Ok(()), |uid| v2::give_to(&dir, uid));
        let procs = given
            .and_then(|()| fs::openat(dir.as_fd(), c"cgroup.procs", libc::O_WRONLY, 0))
            .map_err(Error::at(Code::E_CGROUP, place.dir()))?;
        Ok(Some(procs))
    }
}
