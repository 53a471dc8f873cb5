//! A private procfs that nobody else can mount over (CVE-2019-16884, CVE-2025-52881), for what must
//! reach the kernel itself: sysctls, and the labels of `label`.

use std::os::fd::{AsFd, OwnedFd};

use super::Child;
use crate::error::{Code, Error, Result};
use crate::sys;

/// A procfs instance of our own, never attached anywhere.
fn private(child: &mut Child<'_>) -> Result<()> {
    if child.work.proc.is_some() {
        return Ok(());
    }
    let context = sys::mount::fsopen(c"proc")?;
    sys::mount::fsconfig_create(context.as_fd())?;
    child.work.proc = Some(sys::mount::fsmount(context.as_fd(), 0)?);
    Ok(())
}

/// The runtime's own /proc, where a user namespace may not make one: over a pid namespace that is not its
/// own (`podman run --pid host` of a user). Only before the root is switched, while /proc is no image's; it
/// must be the root of a procfs, and no link or mount below it is followed, as with a private one.
fn runtimes_own(child: &mut Child<'_>) -> Result<()> {
    /// `PROC_ROOT_INO` of linux/proc_fs.h
    const ROOT: u64 = 1;
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let proc = sys::fs::open(c"/proc", flags)?;
    let whole = sys::fs::fstat(proc.as_fd())?.st_ino == ROOT;
    if !whole || sys::fs::fs_magic(proc.as_fd())? != libc::PROC_SUPER_MAGIC {
        return Err(Error::text(Code::E_SYSTEM, "/proc is no procfs"));
    }
    child.work.proc = Some(proc);
    Ok(())
}

/// Opens a file of it, without links and without leaving it.
pub fn open(child: &mut Child<'_>, path: &str, flags: i32) -> Result<OwnedFd> {
    private(child)?;
    let proc = child
        .work
        .proc
        .as_ref()
        .ok_or_else(|| Error::text(Code::E_INTERNAL, "no private procfs"))?;
    let name = sys::cstr("open", path)?;
    let file = sys::fs::openat2(proc.as_fd(), &name, flags, 0, sys::fs::BENEATH)
        .map_err(|error| error.about(format_args!("/proc/{}", path.escape_debug())))?;
    if sys::fs::fs_magic(file.as_fd())? != libc::PROC_SUPER_MAGIC {
        return Err(Error::text(
            Code::E_SYSTEM,
            format!("/proc/{} is not on a procfs", path.escape_debug()),
        ));
    }
    Ok(file)
}

/// Writes one sysctl, inside the container's namespaces.
pub fn sysctl(child: &mut Child<'_>, index: usize) -> Result<()> {
    let plan = child.create()?.plan;
    let Some(sysctl) = plan.sysctls.get(index) else { return Ok(()) };
    match private(child) {
        Err(error) if error.errno() == Some(libc::EPERM) => runtimes_own(child)?,
        result => result?,
    }
    let file = open(child, &format!("sys/{}", sysctl.path), libc::O_WRONLY).map_err(|error| {
        Error::text(Code::E_SYSCTL, format!("{}: {error}", sysctl.name.escape_debug()))
    })?;
    sys::fs::write_all(file.as_fd(), sysctl.value.as_bytes()).map_err(|error| {
        let name = sysctl.name.escape_debug();
        error.about(format_args!("{:?} to sysctl {name}", sysctl.value)).into()
    })
}
