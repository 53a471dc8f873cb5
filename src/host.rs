//! Facts about this machine and this process, gathered once; plain data, so that a test can plan for
//! any machine.

use crate::cgroup::Layout;
use crate::error::Result;
use crate::sys;

/// What the plan may depend on besides config.json and the command line.
#[derive(Debug, Clone)]
pub struct Host {
    /// Effective user id of the runtime.
    pub euid: u32,
    /// Where the cgroup hierarchies are.
    pub cgroups: Layout,
    /// The highest capability number the kernel knows.
    pub last_cap: u32,
    /// Capabilities the runtime may hand on: its permitted set.
    pub capabilities: u64,
    /// `AppArmor` is in force.
    pub apparmor: bool,
    /// `SELinux` is in force.
    pub selinux: bool,
}

impl Host {
    /// Asks the kernel.
    pub fn gather() -> Result<Self> {
        let capabilities = sys::cred::capget()?.permitted;
        Ok(Self {
            euid: nix::unistd::geteuid().as_raw(),
            cgroups: crate::cgroup::detect()?,
            last_cap: last_cap()?,
            capabilities,
            apparmor: read_bool(c"/sys/module/apparmor/parameters/enabled"),
            selinux: is_there(c"/sys/fs/selinux/enforce"),
        })
    }
}

/// The highest capability, from /proc/sys/kernel/cap_last_cap; every kernel from 5.14 on has 40.
pub fn last_cap() -> Result<u32> {
    let file = sys::fs::open(c"/proc/sys/kernel/cap_last_cap", libc::O_RDONLY)?;
    let text = sys::fs::read_to_end(std::os::fd::AsFd::as_fd(&file), 64)?;
    Ok(String::from_utf8_lossy(&text).trim().parse().unwrap_or(40).min(63))
}

/// Whether a parameter file says `Y`. Absence means the feature is not built in.
fn read_bool(path: &std::ffi::CStr) -> bool {
    let Ok(file) = sys::fs::open(path, libc::O_RDONLY) else { return false };
    sys::fs::read_to_end(std::os::fd::AsFd::as_fd(&file), 64)
        .is_ok_and(|text| text.starts_with(b"Y"))
}

fn is_there(path: &std::ffi::CStr) -> bool {
    sys::fs::open(path, libc::O_PATH).is_ok()
}
