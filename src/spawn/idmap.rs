//! Id-mapped mounts: the user namespace that carries the map, and its attaching to a detached mount
//! (`MOUNT_ATTR_IDMAP` of `mount_setattr`(2)).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::userns;
use crate::error::{Code, Error, Result};
use crate::host::Host;
use crate::plan::Plan;
use crate::plan::idmap::Ids;
use crate::plan::mounts::{Mount, Source};
use crate::plan::namespaces::Kind;
use crate::sys;
use crate::sys::mount::{AT_RECURSIVE, MountAttr, OPEN_TREE_CLONE};

/// The user namespace of every mount that wants one. Mounts with the same map share one.
///
/// # Errors
/// Those of writing the maps.
pub fn namespaces(plan: &Plan, joined: &[OwnedFd], host: &Host) -> Result<Vec<Option<OwnedFd>>> {
    let mut made: Vec<(&Ids, OwnedFd)> = Vec::new();
    let mut files = Vec::with_capacity(plan.mounts.len());
    for mount in &plan.mounts {
        let Some(idmap) = &mount.idmap else {
            files.push(None);
            continue;
        };
        if let Some((_, file)) = made.iter().find(|(ids, _)| **ids == idmap.ids) {
            files.push(Some(sys::fs::duplicate(file.as_fd())?));
            continue;
        }
        let file = match &idmap.ids {
            Ids::Given(maps) => userns::make(maps, host)?,
            Ids::JoinedNamespace => {
                let kinds = plan.namespaces.joined.iter().zip(joined);
                let file = kinds.into_iter().find(|(joined, _)| joined.kind == Kind::User);
                let (_, file) = file
                    .ok_or_else(|| Error::text(Code::E_INTERNAL, "no user namespace was joined"))?;
                sys::fs::duplicate(file.as_fd())?
            }
        };
        files.push(Some(sys::fs::duplicate(file.as_fd())?));
        made.push((&idmap.ids, file));
    }
    Ok(files)
}

/// Maps the ids of a detached mount, or of its whole tree.
///
/// # Errors
/// Name the filesystem that the kernel cannot do it for.
pub fn apply(mount: &Mount, tree: BorrowedFd<'_>, namespace: Option<&OwnedFd>) -> Result<()> {
    let (Some(idmap), Some(namespace)) = (&mount.idmap, namespace) else { return Ok(()) };
    let Err(error) = set(tree, namespace.as_fd(), idmap.recursive) else { return Ok(()) };
    let who = match &mount.source {
        Source::Bind { path, .. } => culprit(path, namespace.as_fd(), idmap.recursive),
        Source::Fs { fstype, .. } => fstype.clone(),
        Source::Cgroup | Source::Remount | Source::Notify => String::new(),
    };
    Err(Error::text(
        Code::E_ID_MAPPED_MOUNT,
        format!("{}: {who} cannot map ids: {error}", mount.at),
    ))
}

fn set(tree: BorrowedFd<'_>, namespace: BorrowedFd<'_>, recursive: bool) -> sys::Result<()> {
    let attr = MountAttr::idmap(namespace);
    sys::mount::mount_setattr(tree, if recursive { AT_RECURSIVE } else { 0 }, &attr)
}

/// Which of the filesystems below a path it is that refuses: found by trying each alone.
fn culprit(path: &Path, namespace: BorrowedFd<'_>, recursive: bool) -> String {
    let all = crate::mountinfo::read().unwrap_or_default();
    let top = id_of(path).and_then(|id| all.iter().find(|mount| mount.id == id));
    let below = all.iter().filter(|mount| recursive && mount.point.starts_with(path));
    let refuses = |place: &Path| {
        let name = sys::cstr("open_tree", place.as_os_str().as_bytes()).ok()?;
        let tree = sys::mount::open_tree(sys::fs::CWD, &name, OPEN_TREE_CLONE).ok()?;
        set(tree.as_fd(), namespace, false).err()
    };
    let places = top.map(|mount| (path, mount)).into_iter();
    let mut places = places.chain(below.map(|mount| (mount.point.as_path(), mount)));
    match places.find(|(place, _)| refuses(place).is_some()) {
        Some((place, mount)) => {
            format!("the filesystem {} at {}", mount.fstype, sys::visible(&place.to_string_lossy()))
        }
        None => "its filesystem".to_owned(),
    }
}

fn id_of(path: &Path) -> Option<u64> {
    let name = sys::cstr("open", path.as_os_str().as_bytes()).ok()?;
    let file = sys::fs::open(&name, libc::O_PATH).ok()?;
    sys::fs::mount_id(file.as_fd()).ok()
}
