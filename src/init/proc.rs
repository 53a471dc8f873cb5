//! Writes that must reach the kernel itself: sysctls and labels, through a private procfs that nobody
//! else can mount over (CVE-2019-16884, CVE-2025-52881).

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

/// Opens a file of it for writing, without links and without leaving it.
fn open(child: &mut Child<'_>, path: &str) -> Result<OwnedFd> {
    private(child)?;
    let proc = child
        .work
        .proc
        .as_ref()
        .ok_or_else(|| Error::text(Code::E_INTERNAL, "no private procfs"))?;
    let name = sys::cstr("open", path)?;
    let file = sys::fs::openat2(proc.as_fd(), &name, libc::O_WRONLY, 0, sys::fs::BENEATH)
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
    let file = open(child, &format!("sys/{}", sysctl.path)).map_err(|error| {
        Error::text(Code::E_SYSCTL, format!("{}: {error}", sysctl.name.escape_debug()))
    })?;
    sys::fs::write_all(file.as_fd(), sysctl.value.as_bytes()).map_err(|error| {
        let name = sysctl.name.escape_debug();
        error.about(format_args!("{:?} to sysctl {name}", sysctl.value)).into()
    })
}

/// Asks for the label that execve is to give.
pub fn label(child: &mut Child<'_>) -> Result<()> {
    let process = child.process()?;
    let tid = sys::process::getpid();
    if let Some(profile) = &process.apparmor {
        let modern = open(child, &format!("{tid}/task/{tid}/attr/apparmor/exec"));
        let file = match modern {
            // Kernels without LSM stacking have only the shared file.
            Err(error) if error.errno() == Some(libc::ENOENT) => {
                open(child, &format!("{tid}/task/{tid}/attr/exec"))?
            }
            result => result?,
        };
        let text = format!("exec {profile}");
        write_label(&file, "apparmor/exec", &text)?;
    }
    if let Some(context) = &process.selinux {
        let file = open(child, &format!("{tid}/task/{tid}/attr/exec"))?;
        write_label(&file, "exec", context)?;
    }
    Ok(())
}

fn write_label(file: &OwnedFd, name: &str, text: &str) -> Result<()> {
    // podman looks for the path in backticks to tell a label's failure from others.
    sys::fs::write(file.as_fd(), text.as_bytes()).map(|_| ()).map_err(|error| {
        error.about(format_args!("`/proc/thread-self/attr/{name}` {text:?}")).into()
    })
}
