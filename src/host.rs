//! Facts about this machine and this process, gathered once; plain data, so that a test can plan for
//! any machine.

use std::sync::OnceLock;

use crate::cgroup::Layout;
use crate::error::Result;
use crate::sys;

/// As a bit of [`Host::capabilities`].
pub const CAP_SYS_ADMIN: u64 = 1 << 21;
/// `CAP_MKNOD` in a mask.
pub const CAP_MKNOD: u64 = 1 << 27;

/// What the plan may depend on besides config.json and the command line.
#[derive(Debug, Clone)]
pub struct Host {
    /// Effective user id of the runtime.
    pub euid: u32,
    /// Effective group id of the runtime.
    pub egid: u32,
    /// The runtime is in a user namespace that is not the initial one.
    pub user_namespace: bool,
    /// It may clone mounts: it has `CAP_SYS_ADMIN` over its mount namespace.
    pub mounts: bool,
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
    /// The same host for a process in a user namespace of its own, if `user`: it has every capability
    /// there, whatever its maker has.
    #[must_use]
    pub fn inside(&self, user: bool) -> Self {
        let all = 1 << (self.last_cap + 1);
        let capabilities = if user { all - 1 } else { self.capabilities };
        Self { capabilities, ..self.clone() }
    }

    /// Asks the kernel.
    pub fn gather() -> Result<Self> {
        Self::with(crate::cgroup::detect()?)
    }

    /// All but the cgroup hierarchies: a container that is there knows its own.
    pub fn for_exec() -> Result<Self> {
        Self::with(Layout::default())
    }

    fn with(cgroups: Layout) -> Result<Self> {
        let capabilities = sys::cred::capget()?.permitted;
        let user_namespace = in_user_namespace()?;
        Ok(Self {
            euid: sys::cred::euid(),
            egid: sys::cred::egid(),
            user_namespace,
            mounts: capabilities & CAP_SYS_ADMIN != 0
                && (!user_namespace || owns_mount_namespace()?),
            cgroups,
            last_cap: last_cap()?,
            capabilities,
            apparmor: read_bool(c"/sys/module/apparmor/parameters/enabled"),
            selinux: is_there(c"/sys/fs/selinux/enforce"),
        })
    }
}

/// The highest capability the kernel knows (PR_CAPBSET_READ(2const)).
fn last_cap() -> Result<u32> {
    // Every kernel from 5.9 on has this one.
    let mut last = 40;
    while last < 63 {
        match sys::cred::bounding_has(last + 1) {
            Ok(_) => last += 1,
            Err(error) if error.errno == libc::EINVAL => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(last)
}

/// Whether this process is in another user namespace than the initial one, whose file has a fixed
/// number (`USER_NS_INIT_INO` of linux/nsfs.h).
pub fn in_user_namespace() -> Result<bool> {
    const USER_NS_INIT_INO: u64 = 0xefff_fffd;
    static ANSWER: OnceLock<bool> = OnceLock::new();
    if let Some(answer) = ANSWER.get() {
        return Ok(*answer);
    }
    let own = sys::fs::statat(sys::fs::CWD, c"/proc/self/ns/user", 0)?.st_ino;
    Ok(*ANSWER.get_or_init(|| own != USER_NS_INIT_INO))
}

/// Whether our mount namespace belongs to our user namespace, and not to one further out
/// (`unshare --user` alone leaves it there).
fn owns_mount_namespace() -> Result<bool> {
    let mounts = sys::fs::open(c"/proc/self/ns/mnt", libc::O_RDONLY)?;
    let owner = match sys::process::namespace_owner(std::os::fd::AsFd::as_fd(&mounts)) {
        // It is out of our sight.
        Err(error) if error.errno == libc::EPERM => return Ok(false),
        result => result?,
    };
    let owner = sys::fs::fstat(std::os::fd::AsFd::as_fd(&owner))?;
    let own = sys::fs::statat(sys::fs::CWD, c"/proc/self/ns/user", 0)?;
    Ok((owner.st_dev, owner.st_ino) == (own.st_dev, own.st_ino))
}

/// Whether a parameter file says `Y`. Absence means the feature is not built in.
fn read_bool(path: &std::ffi::CStr) -> bool {
    let Ok(file) = sys::fs::open(path, libc::O_RDONLY) else { return false };
    sys::fs::read_small(std::os::fd::AsFd::as_fd(&file), 64)
        .is_ok_and(|text| text.starts_with(b"Y"))
}

fn is_there(path: &std::ffi::CStr) -> bool {
    sys::fs::open(path, libc::O_PATH).is_ok()
}
