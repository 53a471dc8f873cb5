//! Who a process is: ids, capabilities, `no_new_privs`, keyrings.

use std::ffi::CStr;

use super::{Error, Result, check, done};

/// The effective user id that the program was started with, which the runtime itself never changes: from the
/// auxiliary vector (getauxval(3)), where it costs no call.
#[must_use]
pub fn euid() -> u32 {
    // SAFETY: reads what the kernel has put on the stack at execve(2); an id is 32 bits of it.
    unsafe { libc::getauxval(libc::AT_EUID) as u32 }
}

/// As `euid`, the effective group id.
#[must_use]
pub fn egid() -> u32 {
    // SAFETY: as above.
    unsafe { libc::getauxval(libc::AT_EGID) as u32 }
}

/// The three capability sets of capget(2), one bit per capability.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CapSets {
    /// What counts now.
    pub effective: u64,
    /// What may be made effective.
    pub permitted: u64,
    /// What may survive execve(2).
    pub inheritable: u64,
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// capset(2) on ourselves.
pub fn capset(sets: &CapSets) -> Result<()> {
    let mut header = CapHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let half = |set: u64, shift: u32| (set >> shift & 0xffff_ffff) as u32;
    let data: [u32; 6] = [
        half(sets.effective, 0),
        half(sets.permitted, 0),
        half(sets.inheritable, 0),
        half(sets.effective, 32),
        half(sets.permitted, 32),
        half(sets.inheritable, 32),
    ];
    // SAFETY: version 3 reads two structs of three u32 each, which is what `data` is.
    let ret = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) };
    done(ret, "capset", "")
}

/// capget(2) of ourselves.
pub fn capget() -> Result<CapSets> {
    let mut header = CapHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let mut data = [0u32; 6];
    // SAFETY: version 3 fills two structs of three u32 each, which is what `data` is.
    let ret = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) };
    done(ret, "capget", "")?;
    let [effective, permitted, inheritable, effective_high, permitted_high, inheritable_high] =
        data;
    let join = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
    Ok(CapSets {
        effective: join(effective, effective_high),
        permitted: join(permitted, permitted_high),
        inheritable: join(inheritable, inheritable_high),
    })
}

/// Whether a capability is in the bounding set.
pub fn bounding_has(capability: u32) -> Result<bool> {
    super::process::prctl(libc::PR_CAPBSET_READ, capability.into(), 0, "PR_CAPBSET_READ")
        .map(|ret| ret == 1)
}

/// Drops a capability from the bounding set, for good.
pub fn bounding_drop(capability: u32) -> Result<()> {
    super::process::prctl(libc::PR_CAPBSET_DROP, capability.into(), 0, "PR_CAPBSET_DROP")
        .map(|_| ())
}

/// Empties the ambient set.
pub fn ambient_clear() -> Result<()> {
    let clear = libc::PR_CAP_AMBIENT_CLEAR_ALL as u64;
    super::process::prctl(libc::PR_CAP_AMBIENT, clear, 0, "PR_CAP_AMBIENT_CLEAR_ALL").map(|_| ())
}

/// Adds a capability to the ambient set; it must be permitted and inheritable.
pub fn ambient_raise(capability: u32) -> Result<()> {
    let raise = libc::PR_CAP_AMBIENT_RAISE as u64;
    super::process::prctl(libc::PR_CAP_AMBIENT, raise, capability.into(), "PR_CAP_AMBIENT_RAISE")
        .map(|_| ())
}

/// Whether a capability is in the ambient set.
pub fn ambient_has(capability: u32) -> Result<bool> {
    let ask = libc::PR_CAP_AMBIENT_IS_SET as u64;
    super::process::prctl(libc::PR_CAP_AMBIENT, ask, capability.into(), "PR_CAP_AMBIENT_IS_SET")
        .map(|ret| ret == 1)
}

/// `PR_SET_KEEPCAPS`: the permitted set survives the change of uid; execve clears the flag.
pub fn set_keepcaps(on: bool) -> Result<()> {
    super::process::prctl(libc::PR_SET_KEEPCAPS, u64::from(on), 0, "PR_SET_KEEPCAPS").map(|_| ())
}

/// `PR_SET_NO_NEW_PRIVS`, for good.
pub fn set_no_new_privs() -> Result<()> {
    super::process::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, "PR_SET_NO_NEW_PRIVS").map(|_| ())
}

/// `PR_GET_NO_NEW_PRIVS`.
pub fn no_new_privs() -> Result<bool> {
    super::process::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, "PR_GET_NO_NEW_PRIVS")
        .map(|ret| ret == 1)
}

/// `PR_GET_SECCOMP`: 2 means that a filter is in force.
pub fn seccomp_mode() -> Result<i32> {
    super::process::prctl(libc::PR_GET_SECCOMP, 0, 0, "PR_GET_SECCOMP")
}

/// setresuid(2), all three.
pub fn setresuid(uid: u32) -> Result<()> {
    // SAFETY: takes no pointer. The raw call changes this thread, the only one.
    let ret = unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) };
    done(ret, "setresuid", uid)
}

/// setresgid(2), all three.
pub fn setresgid(gid: u32) -> Result<()> {
    // SAFETY: takes no pointer. The raw call changes this thread, the only one.
    let ret = unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) };
    done(ret, "setresgid", gid)
}

/// setgroups(2).
pub fn setgroups(groups: &[u32]) -> Result<()> {
    // SAFETY: the slice is as long as we say. The raw call changes this thread, the only one.
    let ret = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    done(ret, "setgroups", groups.len())
}

/// getgroups(2).
pub fn getgroups() -> Result<Vec<u32>> {
    /// `NGROUPS_MAX`.
    const MOST: i32 = 65536;
    let mut room: i32 = 64;
    loop {
        let mut groups = vec![0u32; usize::try_from(room).unwrap_or(0)];
        // SAFETY: there is room for as many ids as we say.
        let ret = unsafe { libc::getgroups(room, groups.as_mut_ptr()) };
        match check(ret.into(), "getgroups", "") {
            Ok(count) => {
                groups.truncate(usize::try_from(count).unwrap_or(0));
                return Ok(groups);
            }
            // There are more.
            Err(error) if error.errno == libc::EINVAL && room < MOST => room = MOST,
            Err(error) => return Err(error),
        }
    }
}

/// Real, effective and saved uid.
pub fn getresuid() -> Result<[u32; 3]> {
    let mut ids = [0u32; 3];
    let [real, effective, saved] = &mut ids;
    // SAFETY: three u32 of ours.
    let ret = unsafe { libc::getresuid(real, effective, saved) };
    done(ret.into(), "getresuid", "").map(|()| ids)
}

/// Real, effective and saved gid.
pub fn getresgid() -> Result<[u32; 3]> {
    let mut ids = [0u32; 3];
    let [real, effective, saved] = &mut ids;
    // SAFETY: three u32 of ours.
    let ret = unsafe { libc::getresgid(real, effective, saved) };
    done(ret.into(), "getresgid", "").map(|()| ids)
}

/// keyctl(2) `JOIN_SESSION_KEYRING`: a new session keyring of that name.
pub fn join_session_keyring(name: &CStr) -> Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    const KEYCTL_SETPERM: libc::c_long = 5;
    const POSSESSOR_ALL_USER_VIEW_READ_SEARCH: libc::c_long = 0x3f0b_0000;
    // SAFETY: `name` is a C string that outlives the call.
    let ret =
        unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) };
    let id = check(ret, "keyctl", "join session keyring")?;
    // The default, and user search: without it exec could not find the keyring by its name and would
    // make one more each time (keyctl(2) KEYCTL_SETPERM, keyrings(7)).
    // SAFETY: takes no pointer.
    let ret = unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_SETPERM, id, POSSESSOR_ALL_USER_VIEW_READ_SEARCH)
    };
    done(ret, "keyctl", "set permissions of the session keyring")
}

/// The length of a file's `security.capability` attribute, 0 for none.
pub fn file_capabilities(fd: std::os::fd::BorrowedFd<'_>) -> Result<usize> {
    match super::xattr::length(fd, c"security.capability") {
        Err(Error { errno: libc::ENODATA | libc::EOPNOTSUPP, .. }) => Ok(0),
        result => result,
    }
}
