//! Processes and namespaces: clone3(2), `pidfd_open`(2), waitid(2), setns(2), unshare(2), prctl(2).

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::{Error, Result, check, done, owned};

/// Linux 5.7; the C library's constant has the wrong width.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// What clone3(2) gave the parent.
#[derive(Debug)]
pub struct Child {
    /// The child's pid in the caller's pid namespace.
    pub pid: i32,
    /// Its pidfd, close-on-exec.
    pub pidfd: OwnedFd,
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By exit(2), with this status.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Exit {
    /// The status a shell would report: the code, or 128 + signal.
    #[must_use]
    pub fn status(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit status {code}"),
            Self::Signal(signal) => match nix::sys::signal::Signal::try_from(*signal) {
                Ok(name) => write!(f, "killed by {name}"),
                Err(_) => write!(f, "killed by signal {signal}"),
            },
        }
    }
}

/// clone3(2) without shared memory: like fork, into new namespaces and, with `cgroup`, into that
/// cgroup. `None` in the child.
///
/// The caller must be single-threaded (the runtime always is): a copied heap of a threaded process
/// may be locked for ever. In the child the C library's cached thread id is stale, so it may only
/// make system calls, use the heap, execve or `_exit`.
pub fn clone3(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Option<Child>> {
    let mut pidfd: i32 = -1;
    // SAFETY: clone_args is plain data for which all-zero is valid.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags | libc::CLONE_PIDFD as u64;
    args.pidfd = (&raw mut pidfd) as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(fd) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(fd.as_raw_fd().cast_unsigned());
    }
    // SAFETY: no stack and no CLONE_VM, so the child runs on a copy of ours; `args` and `pidfd`
    // outlive the call. Single-threaded, see above.
    let ret =
        unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) };
    let pid = match check(ret, "clone3", "") {
        // A container's filter, under which its own hooks run: engines' default profiles say this, for such
        // filters see no flags of clone3, and programs go back to clone.
        Err(error) if error.errno == libc::ENOSYS && flags == 0 && cgroup.is_none() => {
            clone(&mut pidfd)?
        }
        result => result?,
    };
    if pid == 0 {
        return Ok(None);
    }
    // SAFETY: the kernel stored a new descriptor there, as CLONE_PIDFD was asked for.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let pid = i32::try_from(pid).map_err(|_| Error::new("clone3", "pid", libc::EOVERFLOW))?;
    Ok(Some(Child { pid, pidfd }))
}

/// clone(2) like fork, but for the pidfd; 0 in the child.
fn clone(pidfd: &mut i32) -> Result<libc::c_long> {
    let flags = libc::c_long::from(libc::CLONE_PIDFD | libc::SIGCHLD);
    // SAFETY: as in clone3. The first three arguments have the same places on every architecture (clone(2)):
    // flags, no stack of its own, and where CLONE_PIDFD puts its descriptor.
    let ret = unsafe {
        libc::syscall(libc::SYS_clone, flags, 0usize, std::ptr::from_mut(pidfd), 0usize, 0usize)
    };
    check(ret, "clone", "")
}

/// clone3(2) of a sibling: a child of our parent, which gets the signal that our own end would send.
/// Returns its pidfd, `None` in the child. As [`clone3`] otherwise.
pub fn clone3_sibling(flags: i32) -> Result<Option<OwnedFd>> {
    let mut pidfd: i32 = -1;
    // SAFETY: clone_args is plain data for which all-zero is valid.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = u64::from((flags | libc::CLONE_PIDFD | libc::CLONE_PARENT).cast_unsigned());
    args.pidfd = (&raw mut pidfd) as u64;
    // SAFETY: as in clone3.
    let ret =
        unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) };
    if check(ret, "clone3", "")? == 0 {
        return Ok(None);
    }
    // SAFETY: the kernel stored a new descriptor there, as CLONE_PIDFD was asked for.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

/// The pid of a pidfd's process in our pid namespace, from `/proc/self/fdinfo`; `None` once it is gone.
pub fn pid_of(pidfd: BorrowedFd<'_>) -> Result<Option<i32>> {
    let path = super::cstr("open", format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    let file = super::fs::open(&path, libc::O_RDONLY)?;
    let text = super::fs::read_to_end(std::os::fd::AsFd::as_fd(&file), 4096)?;
    let text = String::from_utf8_lossy(&text);
    let pid = text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok());
    Ok(pid.filter(|pid| *pid > 0))
}

/// `_exit`(2): no handlers, no flush; the only way out of a cloned child besides execve.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: does not return and runs nothing of ours.
    unsafe { libc::_exit(code) }
}

/// `pidfd_open`(2); `None` when there is no such process.
pub fn pidfd_open(pid: i32) -> Result<Option<OwnedFd>> {
    // SAFETY: takes no pointer.
    let ret = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    match owned(ret, "pidfd_open", pid) {
        // ESRCH: gone. The number belongs to a thread now: EINVAL, and ENOENT since Linux 6.16.
        Err(error) if matches!(error.errno, libc::ESRCH | libc::EINVAL | libc::ENOENT) => Ok(None),
        result => result.map(Some),
    }
}

/// `pidfd_getfd`(2): a copy, close-on-exec, of a descriptor that another process has under `number`.
/// Needs what ptrace(2) of it would need.
pub fn pidfd_getfd(pidfd: BorrowedFd<'_>, number: i32) -> Result<OwnedFd> {
    // SAFETY: takes no pointer.
    let ret = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) };
    owned(ret, "pidfd_getfd", number)
}

/// `pidfd_send_signal`(2); signal 0 only asks.
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    // SAFETY: a null siginfo makes the kernel fill it as kill(2) would.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    done(ret, "pidfd_send_signal", signal)
}

/// kill(2), for processes that were read from a cgroup this call; a pidfd is the rule elsewhere.
pub fn kill(pid: i32, signal: i32) -> Result<()> {
    // SAFETY: takes no pointer.
    let ret = unsafe { libc::kill(pid, signal) };
    done(ret.into(), "kill", pid)
}

/// waitid(2) on a pidfd of a child of ours. `Ok(None)` when `block` is false and it still runs.
pub fn wait(pidfd: BorrowedFd<'_>, block: bool) -> Result<Option<Exit>> {
    let options = libc::WEXITED | if block { 0 } else { libc::WNOHANG };
    loop {
        // SAFETY: siginfo_t is plain data for which all-zero is valid.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let id = pidfd.as_raw_fd().cast_unsigned();
        // SAFETY: `info` is room for one siginfo_t.
        let ret = unsafe { libc::waitid(libc::P_PIDFD, id, &raw mut info, options) };
        if ret < 0 && nix::errno::Errno::last_raw() == libc::EINTR {
            continue;
        }
        done(ret.into(), "waitid", "")?;
        if info.si_signo == 0 {
            return Ok(None);
        }
        // SAFETY: waitid filled the fields of SIGCHLD, as si_signo says.
        let status = unsafe { info.si_status() };
        return Ok(Some(match info.si_code {
            libc::CLD_EXITED => Exit::Code(status),
            _ => Exit::Signal(status),
        }));
    }
}

/// setns(2): `kind` is one `CLONE_NEW*` for a namespace file, or several for a pidfd.
pub fn setns(fd: BorrowedFd<'_>, kind: i32) -> Result<()> {
    // SAFETY: takes no pointer.
    let ret = unsafe { libc::setns(fd.as_raw_fd(), kind) };
    done(ret.into(), "setns", "")
}

/// The `CLONE_NEW*` kind of a namespace file, by `NS_GET_NSTYPE` (ioctl_ns(2)).
pub fn namespace_kind(fd: BorrowedFd<'_>) -> Result<i32> {
    const NS_GET_NSTYPE: libc::c_ulong = 0xb703;
    // SAFETY: this request takes no argument.
    let ret = unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE as _) };
    done(ret.into(), "ioctl", "NS_GET_NSTYPE")?;
    Ok(ret)
}

/// The user namespace that owns another namespace, by `NS_GET_USERNS` (ioctl_ns(2)); `EPERM` where it
/// is none of ours or below.
pub fn namespace_owner(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    const NS_GET_USERNS: libc::c_ulong = 0xb701;
    // SAFETY: this request takes no argument.
    let ret = unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_USERNS as _) };
    owned(ret.into(), "ioctl", "NS_GET_USERNS")
}

/// unshare(2).
pub fn unshare(flags: i32) -> Result<()> {
    // SAFETY: takes no pointer; the process is single-threaded.
    let ret = unsafe { libc::unshare(flags) };
    done(ret.into(), "unshare", "")
}

/// setsid(2).
pub fn setsid() -> Result<()> {
    // SAFETY: takes nothing.
    let ret = unsafe { libc::setsid() };
    done(ret.into(), "setsid", "")
}

/// The caller's process id.
#[must_use]
pub fn getpid() -> i32 {
    // SAFETY: takes nothing, cannot fail.
    unsafe { libc::getpid() }
}

/// The process id of the parent; 0 when it is in another pid namespace.
#[must_use]
pub fn getppid() -> i32 {
    // SAFETY: takes nothing, cannot fail.
    unsafe { libc::getppid() }
}

/// prctl(2) with numbers only.
pub fn prctl(option: i32, arg2: u64, arg3: u64, name: &'static str) -> Result<i32> {
    // SAFETY: only options whose arguments are numbers are passed, by this module's callers in sys.
    let ret = unsafe { libc::prctl(option, arg2, arg3, 0u64, 0u64) };
    check(ret.into(), "prctl", name)?;
    Ok(ret)
}

/// `PR_SET_PDEATHSIG`: the signal to get when the parent dies, 0 for none.
pub fn set_pdeathsig(signal: i32) -> Result<()> {
    let signal = u64::from(signal.cast_unsigned());
    prctl(libc::PR_SET_PDEATHSIG, signal, 0, "PR_SET_PDEATHSIG").map(|_| ())
}

/// `PR_SET_DUMPABLE`.
pub fn set_dumpable(on: bool) -> Result<()> {
    prctl(libc::PR_SET_DUMPABLE, u64::from(on), 0, "PR_SET_DUMPABLE").map(|_| ())
}

/// The signals this process ignores, one bit each from bit 0 for signal 1 (`SigIgn` of
/// /proc/self/status). A clone ignores the same, and execve leaves it at that.
pub fn ignored_signals() -> Result<u64> {
    let file = super::fs::open(c"/proc/self/status", libc::O_RDONLY)?;
    let text = super::fs::read_small(std::os::fd::AsFd::as_fd(&file), 1 << 16)?;
    let text = String::from_utf8_lossy(&text);
    let mask = text.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .ok_or_else(|| Error::new("read", "SigIgn of /proc/self/status", libc::EPROTO))
}

/// A write to a pipe that nobody reads is an error from now on (`EPIPE`), and no signal.
pub fn ignore_broken_pipes() {
    // SAFETY: no handler. Cannot fail for this signal.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// Gives ignored signals their default action back and unblocks all: both outlive execve(2), and engines
/// start us with `SIGPIPE` ignored. Handlers need nothing: execve forgets them.
pub fn reset_signals(ignored: u64) -> Result<()> {
    /// The kernel's struct sigaction: all zero is `SIG_DFL` without flags, mask or restorer.
    const DEFAULT: [u64; 4] = [0; 4];
    for signal in (1..=64i32).filter(|signal| ignored & 1 << (signal - 1) != 0) {
        // By the raw call, as the C library refuses its own signals 32 and 33, which posix_spawn leaves
        // ignored in its children.
        // SAFETY: the new action is as long as the kernel's struct; a null old one is allowed.
        let ret = unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                DEFAULT.as_ptr(),
                std::ptr::null_mut::<u64>(),
                8usize,
            )
        };
        done(ret, "sigaction", signal)?;
    }
    unblock_signals()
}

/// Unblocks all signals.
pub fn unblock_signals() -> Result<()> {
    nix::sys::signal::SigSet::empty()
        .thread_set_mask()
        .map_err(|errno| Error::new("sigprocmask", "", errno as i32))
}

/// Blocks every signal, so that a signalfd can read them.
pub fn block_signals() -> Result<()> {
    nix::sys::signal::SigSet::all()
        .thread_set_mask()
        .map_err(|errno| Error::new("sigprocmask", "", errno as i32))
}

/// A descriptor that delivers every blocked signal, for [`read_signal`].
pub fn signalfd() -> Result<OwnedFd> {
    // SAFETY: an all-ones set is what sigfillset makes; it is filled right below.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is a sigset_t of ours.
    let ret = unsafe { libc::sigfillset(&raw mut set) };
    done(ret.into(), "sigfillset", "")?;
    // SAFETY: `set` outlives the call.
    let ret = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC) };
    owned(ret.into(), "signalfd", "")
}

/// The next signal of a [`signalfd`].
pub fn read_signal(fd: BorrowedFd<'_>) -> Result<i32> {
    let mut buffer = [0u8; size_of::<libc::signalfd_siginfo>()];
    super::fs::read(fd, &mut buffer)?;
    let number = buffer.first_chunk::<4>().map_or(0, |bytes| u32::from_ne_bytes(*bytes));
    Ok(number.cast_signed())
}

/// A real-time clock reading: seconds and nanoseconds since 1970.
#[must_use]
pub fn now() -> (i64, i64) {
    // SAFETY: timespec is plain data.
    let mut time: libc::timespec = unsafe { std::mem::zeroed() };
    // SAFETY: `time` is room for one timespec; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut time) };
    (time.tv_sec, time.tv_nsec)
}
