//! The root filesystem: attached, switched to, and closed off.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use super::{Child, Create, leave_open, resolve};
use crate::error::{Code, Error, Result};
use crate::mountinfo::{self, Mounted};
use crate::plan::Switch;
use crate::plan::namespaces::Kind;
use crate::plan::options::attr;
use crate::sys;
use crate::sys::mount::{AT_EMPTY_PATH, AT_RECURSIVE, MountAttr, OPEN_TREE_CLONE};

/// The directory that is, or will be, the container's `/`.
pub fn root<'a>(create: &'a Create<'_>) -> BorrowedFd<'a> {
    let tree = create.prepared.sources.get().and_then(|sources| sources.tree.as_ref());
    tree.unwrap_or(&create.prepared.rootfs).as_fd()
}

/// Nothing that is mounted from here on shows on the host; what the host unmounts goes here, too.
pub fn slave_host_tree() -> Result<()> {
    let attr = MountAttr::propagates(libc::MS_SLAVE);
    Ok(sys::mount::mount_setattr_at(sys::fs::CWD, c"/", AT_RECURSIVE, &attr)?)
}

/// The rootfs' clone goes over the rootfs itself, which is the current directory since before the
/// clone: hooks find the container there by its host path.
pub fn attach(child: &Child<'_>) -> Result<()> {
    let create = child.create()?;
    Ok(sys::mount::move_mount_into(root(create), sys::fs::CWD, c".")?)
}

/// Engines rely on a missing working directory being made.
pub fn make_cwd(child: &Child<'_>) -> Result<()> {
    let create = child.create()?;
    let cwd = crate::plan::mounts::clean(std::path::Path::new(&child.process()?.cwd));
    match resolve::directory(root(create), &cwd) {
        // A read-only image without it, a link of /proc, or a directory that only its user may enter (NFS, FUSE):
        // chdir will tell what it thinks of that.
        Err(error)
            if matches!(error.errno, libc::EROFS | libc::ELOOP | libc::EACCES | libc::EPERM) =>
        {
            Ok(())
        }
        result => result.map(|_| ()).map_err(Into::into),
    }
}

/// Makes the root filesystem `/`, and the host's tree unreachable.
pub fn switch(child: &Child<'_>) -> Result<()> {
    let create = child.create()?;
    let new_root = root(create);
    sys::fs::fchdir(new_root)?;
    match create.plan.switch {
        Switch::Pivot | Switch::Carry => {
            sys::mount::pivot_root_here()?;
            // The old root lies on top of the new one now.
            sys::mount::umount(c".", libc::MNT_DETACH)?;
        }
        Switch::Move => {
            take_away_kernel_views(new_root)?;
            let top = sys::fs::open(c"/", libc::O_PATH | libc::O_DIRECTORY)?;
            sys::mount::move_mount(new_root, top.as_fd())?;
            sys::fs::chroot(c".")?;
        }
        Switch::Chroot => sys::fs::chroot(c".")?,
    }
    Ok(sys::fs::chdir(c"/")?)
}

/// With chroot(2) the host's tree stays in the mount namespace, out of reach. But where a procfs or sysfs is in
/// it whole, the kernel lets a user namespace in the container mount one of its own, without the container's
/// masks and read-only paths (`mount_too_revealing`), also where other mounts hide it. So they go, but for the
/// container's, which are on its root.
fn take_away_kernel_views(new_root: BorrowedFd<'_>) -> Result<()> {
    let root = sys::fs::mount_id(new_root)?;
    let again = mountinfo::open()?;
    // The last first, which may be on top of others.
    for view in kernel_views(&mountinfo::read()?, root).iter().rev() {
        take_away(view)?;
    }
    let mounts = mountinfo::read_from(again)?;
    let is_covered = |view: &&Mounted| {
        mounts.iter().any(|over| over.parent == view.id && over.point == view.point)
    };
    match kernel_views(&mounts, root).into_iter().find(|view| !is_covered(view)) {
        None => Ok(()),
        // What hides it was not made by us, and its going might show something else.
        Some(left) => {
            let text = format!("--no-pivot: {} cannot be taken away", left.point.display());
            Err(Error::text(Code::E_ROOT_SWITCH, text))
        }
    }
}

/// The whole procfs and sysfs mounts that are not in the tree on this mount.
fn kernel_views(mounts: &[Mounted], root: u64) -> Vec<&Mounted> {
    let is_inside = |view: &Mounted| {
        let mut at = view;
        while at.id != root {
            match mounts.iter().find(|mount| mount.id == at.parent) {
                Some(above) if above.id != at.id => at = above,
                _ => return false,
            }
        }
        true
    };
    let is_view = |view: &&Mounted| view.whole && matches!(view.fstype.as_str(), "proc" | "sysfs");
    mounts.iter().filter(is_view).filter(|view| !is_inside(view)).collect()
}

fn take_away(view: &Mounted) -> Result<()> {
    let point = sys::cstr("umount2", view.point.as_os_str().as_bytes())?;
    match sys::fs::open(&point, libc::O_PATH | libc::O_NOFOLLOW) {
        Ok(found) if sys::fs::mount_id(found.as_fd())? == view.id => {}
        // Another mount hides it; or it has gone with the one it was on.
        Ok(_) => return Ok(()),
        Err(error) if matches!(error.errno, libc::ENOENT | libc::ENOTDIR) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    match sys::mount::umount(&point, libc::MNT_DETACH) {
        // Locked, since this mount namespace is of a user namespace: what has something on its root does not
        // count.
        Err(error) if matches!(error.errno, libc::EINVAL | libc::EPERM) => {
            Ok(sys::mount::mount(c"tmpfs", &point, c"tmpfs", libc::MS_RDONLY, None)?)
        }
        result => Ok(result?),
    }
}

/// Where a mount namespace is inherited or joined: one of our own to build the root filesystem in, so that
/// nothing is ever mounted where others see it.
pub fn own_mounts(child: &mut Child<'_>) -> Result<()> {
    child.work.left_mounts = Some(sys::fs::open(c"/proc/self/ns/mnt", libc::O_RDONLY)?);
    Ok(sys::process::unshare(libc::CLONE_NEWNS)?)
}

/// Takes the finished root filesystem along to the mount namespace that the process shall be in. It is a clone
/// that is attached nowhere: nobody else sees it, `..` of its top leads nowhere, and when the last process that
/// has it as its root has ended there is nothing to unmount (`umount_tree` with `UMOUNT_CONNECTED`, at the close
/// of its descriptor).
pub fn carry(child: &mut Child<'_>) -> Result<()> {
    let create = child.create()?;
    let left = child.work.left_mounts.as_ref();
    let left = left.ok_or_else(|| Error::text(Code::E_INTERNAL, "no mount namespace was left"))?;
    let joined = create.plan.namespaces.joined.iter().position(|joined| joined.kind == Kind::Mount);
    let target = joined.and_then(|index| create.prepared.namespaces.get(index)).unwrap_or(left);
    let tree = sys::mount::open_tree(sys::fs::CWD, c"/", OPEN_TREE_CLONE | AT_RECURSIVE)?;
    sys::process::setns(target.as_fd(), libc::CLONE_NEWNS)
        .map_err(|error| error.about(Kind::Mount.name()))?;
    sys::fs::fchdir(tree.as_fd())?;
    sys::fs::chroot(c".")?;
    child.work.carried = Some(tree);
    Ok(())
}

/// `linux.rootfsPropagation` on the new root, once nothing is mounted any more.
pub fn propagation(child: &Child<'_>) -> Result<()> {
    let create = child.create()?;
    let Some((propagation, all)) = create.plan.rootfs_propagation else { return Ok(()) };
    let attr = MountAttr::propagates(propagation);
    let root = child.work.carried.as_ref().map_or_else(|| root(create), AsFd::as_fd);
    Ok(sys::mount::mount_setattr(root, if all { AT_RECURSIVE } else { 0 }, &attr)?)
}

/// `root.readonly`, when every mount point exists.
pub fn readonly(child: &Child<'_>) -> Result<()> {
    let create = child.create()?;
    let attr = MountAttr { set: attr::RDONLY, ..MountAttr::default() };
    Ok(sys::mount::mount_setattr(root(create), 0, &attr)?)
}

/// A read-only clone of the path on top of it.
pub fn readonly_path(child: &Child<'_>, index: usize) -> Result<()> {
    let create = child.create()?;
    let Some(hidden) = create.plan.readonly.get(index) else { return Ok(()) };
    let target = match resolve::open(root(create), &hidden.path, libc::O_PATH) {
        // The only tolerated error: kernels differ in what they have below /proc.
        Err(error) if error.errno == libc::ENOENT => return Ok(()),
        result => result?,
    };
    let flags = OPEN_TREE_CLONE | AT_EMPTY_PATH | AT_RECURSIVE;
    let clone = sys::mount::open_tree(target.as_fd(), c"", flags)
        .map_err(|error| error.about(&hidden.path))?;
    let attr = MountAttr { set: attr::RDONLY, ..MountAttr::default() };
    sys::mount::mount_setattr(clone.as_fd(), AT_RECURSIVE, &attr)?;
    sys::mount::move_mount(clone.as_fd(), target.as_fd())
        .map_err(|error| error.about(&hidden.path))?;
    leave_open([clone, target]);
    Ok(())
}

/// An empty directory or the null device on top of the path.
pub fn masked_path(child: &mut Child<'_>, index: usize) -> Result<()> {
    let create = child.create()?;
    let Some(hidden) = create.plan.masked.get(index) else { return Ok(()) };
    let target = match resolve::open(root(create), &hidden.path, libc::O_PATH) {
        // The only tolerated error, as above.
        Err(error) if error.errno == libc::ENOENT => return Ok(()),
        result => result?,
    };
    if resolve::is_directory(target.as_fd())? {
        mask_directory(child, target.as_fd())?;
        leave_open([target]);
        return Ok(());
    }
    let null = child.sources()?.null.as_ref();
    let null =
        null.ok_or_else(|| Error::text(Code::E_INTERNAL, "the null device was not opened"))?;
    if child.work.null_attached {
        attach_clone(null.as_fd(), target.as_fd())?;
    } else {
        sys::mount::move_mount(null.as_fd(), target.as_fd())?;
        child.work.null_attached = true;
    }
    leave_open([target]);
    Ok(())
}

/// One tmpfs for all masked directories: one for each would burden the kernel's shrinkers on hosts
/// with many containers. Kernels before 6.15 clone only attached mounts, so the first is attached
/// itself and the others are clones of it.
fn mask_directory(child: &mut Child<'_>, target: BorrowedFd<'_>) -> Result<()> {
    if let Some(empty) = &child.work.empty_dir {
        return attach_clone(empty.as_fd(), target);
    }
    let context = sys::mount::fsopen(c"tmpfs")?;
    sys::mount::fsconfig_string(context.as_fd(), c"nr_inodes", c"1")?;
    sys::mount::fsconfig_string(context.as_fd(), c"mode", c"755")?;
    super::mount::label(child.create()?, context.as_fd())?;
    sys::mount::fsconfig_create(context.as_fd())?;
    let attributes = attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC;
    let empty = sys::mount::fsmount(context.as_fd(), attributes)?;
    sys::mount::move_mount(empty.as_fd(), target)?;
    child.work.empty_dir = Some(empty);
    leave_open([context]);
    Ok(())
}

fn attach_clone(attached: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<()> {
    let clone = sys::mount::open_tree(attached, c"", OPEN_TREE_CLONE | AT_EMPTY_PATH)?;
    sys::mount::move_mount(clone.as_fd(), target)?;
    leave_open([clone]);
    Ok(())
}
