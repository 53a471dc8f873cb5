//! Limits and scheduling: prlimit(2), `sched_setattr`(2), ioprio_set(2), personality(2), and the files
//! of /proc that belong to them.

use super::{Result, check, done};

/// prlimit(2) of process `pid` (0 is ourselves).
pub fn set_rlimit(pid: i32, resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: `limit` outlives the call; a null old limit is allowed.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            pid,
            resource,
            &raw const limit,
            std::ptr::null_mut::<libc::rlimit64>(),
        )
    };
    done(ret, "prlimit", "")
}

/// The soft and hard limit of process `pid` (0 is ourselves).
pub fn rlimit(pid: i32, resource: u32) -> Result<(u64, u64)> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is room for one rlimit64; a null new limit is allowed.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            pid,
            resource,
            std::ptr::null::<libc::rlimit64>(),
            &raw mut limit,
        )
    };
    done(ret, "prlimit", "").map(|()| (limit.rlim_cur, limit.rlim_max))
}

/// struct `sched_attr` of `sched_setattr`(2).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SchedAttr {
    /// The size of this struct.
    pub size: u32,
    /// `SCHED_*`
    pub policy: u32,
    /// `SCHED_FLAG_*`
    pub flags: u64,
    /// Nice value for `SCHED_OTHER` and `SCHED_BATCH`.
    pub nice: i32,
    /// Static priority for `SCHED_FIFO` and `SCHED_RR`.
    pub priority: u32,
    /// `SCHED_DEADLINE`, nanoseconds.
    pub runtime: u64,
    /// `SCHED_DEADLINE`, nanoseconds.
    pub deadline: u64,
    /// `SCHED_DEADLINE`, nanoseconds.
    pub period: u64,
    /// With `SCHED_FLAG_UTIL_CLAMP_MIN`.
    pub util_min: u32,
    /// With `SCHED_FLAG_UTIL_CLAMP_MAX`.
    pub util_max: u32,
}

/// `sched_setattr`(2).
pub fn sched_setattr(pid: i32, attr: &SchedAttr) -> Result<()> {
    // SAFETY: `attr` outlives the call and says its own size.
    let ret = unsafe { libc::syscall(libc::SYS_sched_setattr, pid, std::ptr::from_ref(attr), 0) };
    done(ret, "sched_setattr", "")
}

/// ioprio_set(2) of one process; `value` is class << 13 | level.
pub fn ioprio_set(pid: i32, value: u32) -> Result<()> {
    const IOPRIO_WHO_PROCESS: libc::c_long = 1;
    // SAFETY: takes no pointer.
    let ret = unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, pid, value) };
    done(ret, "ioprio_set", "")
}

/// `sched_setaffinity`(2); `mask` has one bit per CPU, in words of 64.
pub fn sched_setaffinity(pid: i32, mask: &[u64]) -> Result<()> {
    // SAFETY: the slice is as long as we say.
    let ret = unsafe {
        libc::syscall(libc::SYS_sched_setaffinity, pid, size_of_val(mask), mask.as_ptr())
    };
    done(ret, "sched_setaffinity", "")
}

/// `sched_getaffinity`(2), in the same form.
pub fn sched_getaffinity(pid: i32) -> Result<Vec<u64>> {
    // More than any kernel's NR_CPUS (8192): a shorter buffer than the kernel's own mask is EINVAL.
    let mut mask = vec![0u64; 256];
    // SAFETY: the buffer is as long as we say.
    let ret = unsafe {
        libc::syscall(libc::SYS_sched_getaffinity, pid, size_of_val(&*mask), mask.as_mut_ptr())
    };
    let bytes = usize::try_from(check(ret, "sched_getaffinity", "")?).unwrap_or(0);
    mask.truncate(bytes.div_ceil(8));
    Ok(mask)
}

/// personality(2).
pub fn personality(domain: u64) -> Result<()> {
    // SAFETY: takes no pointer.
    let ret = unsafe { libc::personality(domain) };
    check(ret.into(), "personality", "").map(|_| ())
}
