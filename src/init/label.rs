//! Labels of the security modules: what `execve` is to give, and that of the session keyring. All go
//! through the private procfs of `proc`.

use std::os::fd::{AsFd, OwnedFd};

use super::{Child, proc};
use crate::error::{Code, Error, Result};
use crate::sys;

/// Longest label that is looked at, in bytes; the kernel's are at most a page.
const LABEL_MAX: usize = 4096;

/// Asks for the labels that `execve` is to give, and reads back that the kernel has noted each: a write
/// that went elsewhere would leave the process with the runtime's own (CVE-2019-16884).
pub fn at_execve(child: &mut Child<'_>) -> Result<()> {
    let process = child.process()?;
    if let Some(profile) = &process.apparmor {
        let verb = if must_stack(child, process.no_new_privs)? { "stack" } else { "exec" };
        let (file, name) = match attribute(child, "apparmor/exec") {
            // Kernels without LSM stacking have only the shared file.
            Err(error) if error.errno() == Some(libc::ENOENT) => {
                (attribute(child, "exec")?, "exec")
            }
            result => (result?, "apparmor/exec"),
        };
        write(&file, "apparmor/exec", &format!("{verb} {profile}"))?;
        noted(child, name)?;
    }
    if let Some(context) = &process.selinux {
        let file = attribute(child, "exec")?;
        write(&file, "exec", context)?;
        noted(child, "exec")?;
    }
    Ok(())
}

/// With `no_new_privs` a confined process may only be confined further: the kernel refuses another
/// profile (EPERM at execve) unless it is stacked on the one that is there.
fn must_stack(child: &mut Child<'_>, no_new_privs: bool) -> Result<bool> {
    if !no_new_privs {
        return Ok(false);
    }
    let current = match read(child, "apparmor/current") {
        Err(error) if error.errno() == Some(libc::ENOENT) => read(child, "current")?,
        result => result?,
    };
    Ok(current != "unconfined")
}

/// A session keyring of its own, with the label that the process will have.
pub fn keyring(child: &mut Child<'_>) -> Result<()> {
    let name = sys::cstr("keyctl", child.keyring.as_str())?;
    let context = child.process.and_then(|process| process.selinux.as_deref());
    if context.is_some() {
        of_keyring(child, context)?;
    }
    match sys::cred::join_session_keyring(&name) {
        // A kernel without keys has none to protect.
        Err(error) if error.errno == libc::ENOSYS => {}
        result => result?,
    }
    if context.is_some() {
        of_keyring(child, None)?;
    }
    Ok(())
}

/// A session keyring gets the label that is asked for here. Without, it would have the runtime's, and
/// `SELinux` would keep the container from its own keyring.
fn of_keyring(child: &mut Child<'_>, context: Option<&str>) -> Result<()> {
    let file = attribute(child, "keycreate")?;
    // An empty write ends it.
    write(&file, "keycreate", context.unwrap_or_default())
}

/// A file of `/proc/thread-self/attr`, for writing.
fn attribute(child: &mut Child<'_>, name: &str) -> Result<OwnedFd> {
    proc::open(child, &path(name), libc::O_WRONLY)
}

fn path(name: &str) -> String {
    let tid = sys::process::getpid();
    format!("{tid}/task/{tid}/attr/{name}")
}

/// What such a file says, without the end of line or NUL.
fn read(child: &mut Child<'_>, name: &str) -> Result<String> {
    let file = proc::open(child, &path(name), libc::O_RDONLY)?;
    let bytes = sys::fs::read_to_end(file.as_fd(), LABEL_MAX)?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.trim_end_matches(['\n', '\0']).to_owned())
}

/// The kernel spells a label its own way, so only that there is one can be compared. `AppArmor` answers
/// EINVAL where it has none.
fn noted(child: &mut Child<'_>, name: &str) -> Result<()> {
    if read(child, name)?.is_empty() {
        let text = format!("`/proc/thread-self/attr/{name}` is not what was set");
        return Err(Error::text(Code::E_LSM_LABEL, text));
    }
    Ok(())
}

fn write(file: &OwnedFd, name: &str, text: &str) -> Result<()> {
    // podman looks for the path in backticks to tell a label's failure from others.
    sys::fs::write(file.as_fd(), text.as_bytes()).map(|_| ()).map_err(|error| {
        error.about(format_args!("`/proc/thread-self/attr/{name}` {text:?}")).into()
    })
}
