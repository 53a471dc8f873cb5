//! The unsafe calls of the tools: starting a program behind a gate, waiting, and ptrace.
//!
//! Everything here is one kernel call with its arguments checked; no policy.

use anyhow::{Context, Result, bail};
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// The flags the tracer wants on every task; EXITKILL so that nothing outlives a killed sweep.
pub const TRACE_OPTIONS: i32 = libc::PTRACE_O_TRACESYSGOOD
    | libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK
    | libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEEXEC
    | libc::PTRACE_O_EXITKILL;

/// How a stopped task goes on.
#[derive(Clone, Copy, PartialEq)]
pub enum Resume {
    /// To its next system call.
    Syscall,
    /// To its next event.
    Cont,
    /// Stay in the group stop.
    Listen,
    /// Untraced from here on.
    Detach,
}

fn check(ret: libc::c_long) -> io::Result<libc::c_long> {
    if ret == -1 { Err(io::Error::last_os_error()) } else { Ok(ret) }
}

/// The pointer ptrace wants for an integer argument.
fn data(value: i64) -> *mut libc::c_void {
    value as usize as *mut libc::c_void
}

/// Starts tracing a running task; with `exits` it also stops when it ends.
pub fn seize(pid: i32, exits: bool) -> io::Result<()> {
    let options = TRACE_OPTIONS | if exits { libc::PTRACE_O_TRACEEXIT } else { 0 };
    // SAFETY: PTRACE_SEIZE reads no memory of ours; a wrong pid is an errno.
    check(unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, data(0), data(options.into())) }).map(drop)
}

/// Asks a running tracee to stop.
pub fn interrupt(pid: i32) -> io::Result<()> {
    // SAFETY: no memory is touched.
    check(unsafe { libc::ptrace(libc::PTRACE_INTERRUPT, pid, data(0), data(0)) }).map(drop)
}

/// Lets a stopped tracee go on, delivering `signal` (0 for none).
pub fn resume(pid: i32, how: Resume, signal: i32) -> io::Result<()> {
    let request = match how {
        Resume::Syscall => libc::PTRACE_SYSCALL,
        Resume::Cont => libc::PTRACE_CONT,
        Resume::Listen => libc::PTRACE_LISTEN,
        Resume::Detach => libc::PTRACE_DETACH,
    };
    // SAFETY: no memory is touched; the last argument is a signal number.
    check(unsafe { libc::ptrace(request, pid, data(0), data(signal.into())) }).map(drop)
}

/// The number that comes with a ptrace event: the new pid, or the former one after an exec.
pub fn event_message(pid: i32) -> io::Result<i32> {
    let mut message: libc::c_ulong = 0;
    // SAFETY: the kernel writes one unsigned long to `message`.
    check(unsafe { libc::ptrace(libc::PTRACE_GETEVENTMSG, pid, data(0), &raw mut message) })?;
    Ok(message as i32)
}

/// At a syscall stop: `Some(number)` on entry, `None` on exit.
pub fn syscall_entry(pid: i32) -> io::Result<Option<i64>> {
    // SAFETY: an all-zero ptrace_syscall_info is a valid value of the plain C struct.
    let mut info: libc::ptrace_syscall_info = unsafe { std::mem::zeroed() };
    let size = size_of_val(&info) as i64;
    // SAFETY: the kernel writes at most `size` bytes to `info`.
    check(unsafe { libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, pid, data(size), &raw mut info) })?;
    if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return Ok(None);
    }
    // SAFETY: `op` says that the entry arm of the union was written.
    Ok(Some(unsafe { info.u.entry.nr } as i64))
}

/// At entry: makes the kernel skip the call.
#[cfg(target_arch = "x86_64")]
pub fn skip_call(pid: i32) -> io::Result<()> {
    poke_user(pid, libc::ORIG_RAX, -1)
}

/// At exit: sets what the call returns.
#[cfg(target_arch = "x86_64")]
pub fn set_result(pid: i32, value: i64) -> io::Result<()> {
    poke_user(pid, libc::RAX, value)
}

#[cfg(target_arch = "x86_64")]
fn poke_user(pid: i32, register: i32, value: i64) -> io::Result<()> {
    // SAFETY: writes a register of the tracee, no memory of ours.
    check(unsafe {
        libc::ptrace(libc::PTRACE_POKEUSER, pid, data(8 * i64::from(register)), data(value))
    })
    .map(drop)
}

/// At entry: makes the kernel skip the call.
#[cfg(target_arch = "aarch64")]
pub fn skip_call(pid: i32) -> io::Result<()> {
    const NT_ARM_SYSTEM_CALL: i64 = 0x404;
    let mut number: i32 = -1;
    let iov = libc::iovec { iov_base: (&raw mut number).cast(), iov_len: 4 };
    // SAFETY: the kernel reads the four bytes that `iov` names.
    check(unsafe {
        libc::ptrace(libc::PTRACE_SETREGSET, pid, data(NT_ARM_SYSTEM_CALL), &raw const iov)
    })
    .map(drop)
}

/// At exit: sets what the call returns (x0).
#[cfg(target_arch = "aarch64")]
pub fn set_result(pid: i32, value: i64) -> io::Result<()> {
    const NT_PRSTATUS: i64 = 1;
    let mut regs = [0u64; 34];
    let mut iov = libc::iovec { iov_base: regs.as_mut_ptr().cast(), iov_len: size_of_val(&regs) };
    // SAFETY: the kernel writes at most iov_len bytes to `regs`.
    check(unsafe { libc::ptrace(libc::PTRACE_GETREGSET, pid, data(NT_PRSTATUS), &raw mut iov) })?;
    regs[0] = value as u64;
    // SAFETY: the kernel reads iov_len bytes of `regs`.
    check(unsafe { libc::ptrace(libc::PTRACE_SETREGSET, pid, data(NT_PRSTATUS), &raw const iov) })
        .map(drop)
}

/// The BPF instructions of a tracee's `index`-th seccomp filter, newest first; `None` past the last.
pub fn seccomp_filter(pid: i32, index: i64) -> io::Result<Option<Vec<u64>>> {
    const PTRACE_SECCOMP_GET_FILTER: libc::c_uint = 0x420c;
    let mut code = vec![0u64; 4096];
    // SAFETY: a filter has at most 4096 instructions of 8 bytes, which `code` holds.
    let ret =
        unsafe { libc::ptrace(PTRACE_SECCOMP_GET_FILTER, pid, data(index), code.as_mut_ptr()) };
    match check(ret) {
        Ok(n) => {
            code.truncate(n as usize);
            Ok(Some(code))
        }
        Err(e)
            if e.raw_os_error() == Some(libc::ENOENT) || e.raw_os_error() == Some(libc::EINVAL) =>
        {
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

/// Waits for any child or tracee. `None`: interrupted by the alarm, or (with WNOHANG) nothing to report.
pub fn wait_any(pid: i32, flags: i32) -> Result<Option<(i32, i32)>> {
    let mut status = 0;
    // SAFETY: the kernel writes one int to `status`.
    let got = unsafe { libc::waitpid(pid, &raw mut status, flags) };
    match got {
        0 => Ok(None),
        -1 => match io::Error::last_os_error().raw_os_error() {
            Some(libc::EINTR) => Ok(None),
            _ => bail!("waitpid {pid}: {}", io::Error::last_os_error()),
        },
        _ => Ok(Some((got, status))),
    }
}

/// The exit code in the shell's form.
pub fn exit_code(status: i32) -> i32 {
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) }
}

/// Waits for a child of ours with its resource usage; kills it at the deadline (`Err` then).
///
/// With `reap_others` orphans that end meanwhile are reaped at once. That matters: a container's
/// init cannot die before every process of its pid namespace has been reaped, and an orphan of a
/// killed `exec` is ours to reap.
pub fn wait_child(pid: i32, limit: Duration, reap_others: bool) -> Result<(i32, libc::rusage)> {
    // SAFETY: pidfd_open takes two integers; the pid is an unreaped child, so it cannot be another's.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) }).context("pidfd_open")?;
    // SAFETY: a new descriptor that nobody else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    let end = Instant::now() + limit;
    let mut hung = false;
    loop {
        let mut left = end.saturating_duration_since(Instant::now()).as_millis() as i32;
        if left == 0 {
            hung = true;
            kill(pid, libc::SIGKILL);
            break;
        }
        if reap_others {
            left = left.min(5);
            reap_but(pid);
        }
        let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd, and the count says one.
        if unsafe { libc::poll(&raw mut poll, 1, left) } > 0 {
            break;
        }
    }
    let mut status = 0;
    // SAFETY: an all-zero rusage is a valid value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes an int and a rusage.
    check(unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) }.into())
        .context("wait4")?;
    if hung {
        bail!("no answer for {} s", limit.as_secs());
    }
    Ok((exit_code(status), usage))
}

/// Reaps ended children, but leaves `keep` for its own waiter.
fn reap_but(keep: i32) {
    loop {
        // SAFETY: an all-zero siginfo_t is a valid value.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
        // SAFETY: the kernel writes one siginfo_t.
        if unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, flags) } != 0 {
            return;
        }
        // SAFETY: waitid has filled the SIGCHLD arm, or left the zeroes.
        let pid = unsafe { info.si_pid() };
        if pid == 0 || pid == keep || reap_one(pid).is_none() {
            return;
        }
    }
}

/// Reaps a child now, with its usage, if it has ended.
pub fn reap_one(pid: i32) -> Option<libc::rusage> {
    let mut status = 0;
    // SAFETY: an all-zero rusage is a valid value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes an int and a rusage.
    (unsafe { libc::wait4(pid, &raw mut status, libc::WNOHANG, &raw mut usage) } > 0)
        .then_some(usage)
}

/// Sends a signal; a process that is gone is not an error.
pub fn kill(pid: i32, signal: i32) {
    // SAFETY: integers only. Every pid passed here is a child, a tracee or a descendant.
    let _gone_is_fine = unsafe { libc::kill(pid, signal) };
}

/// A periodic SIGALRM, so that a blocking waitpid returns for the deadline. 0 switches it off.
pub fn ticks(every: Duration) {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: an all-zero sigaction is valid: empty mask, no SA_RESTART.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = nothing as *const () as usize;
    let at = libc::timeval { tv_sec: every.as_secs() as _, tv_usec: every.subsec_micros() as _ };
    let timer = libc::itimerval { it_interval: at, it_value: at };
    // SAFETY: the handler does nothing, so it is async-signal-safe.
    unsafe { libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut()) };
    // SAFETY: reads one itimerval.
    unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) };
}

/// Makes orphaned descendants our children.
pub fn become_subreaper() -> io::Result<()> {
    // SAFETY: integers only.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }.into()).map(drop)
}

/// A program to start: argv, environment, and where its output goes.
pub struct Program<'a> {
    pub argv: &'a [String],
    pub env: &'a [String],
    pub stdin: &'a File,
    pub stdout: &'a File,
    pub stderr: &'a File,
}

fn c_strings(from: &[String]) -> Result<Vec<CString>> {
    from.iter().map(|s| CString::new(s.as_str()).context("NUL in an argument")).collect()
}

impl Program<'_> {
    /// Starts the program. With `gated`, it waits before its execve until the returned fd is closed.
    pub fn start(&self, gated: bool) -> Result<(i32, Option<OwnedFd>)> {
        let (argv, env) = (c_strings(self.argv)?, c_strings(self.env)?);
        let end = [std::ptr::null()];
        let argv: Vec<_> = argv.iter().map(|s| s.as_ptr()).chain(end).collect();
        let env: Vec<_> = env.iter().map(|s| s.as_ptr()).chain(end).collect();
        let mut pipe = [-1; 2];
        if gated {
            // SAFETY: the kernel writes two ints.
            check(unsafe { libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC) }.into())
                .context("pipe2")?;
        }
        // SAFETY: the tools are single-threaded; the child only makes async-signal-safe calls.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            self.become_program(&argv, &env, pipe);
        }
        check(pid.into()).context("fork")?;
        if !gated {
            return Ok((pid, None));
        }
        // SAFETY: both ends are new and ours; the read end is dropped here.
        let ends = pipe.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
        let [_read, write] = ends;
        Ok((pid, Some(write)))
    }

    /// The child's side of `start`.
    fn become_program(
        &self,
        argv: &[*const libc::c_char],
        env: &[*const libc::c_char],
        pipe: [i32; 2],
    ) -> ! {
        // Rust ignores SIGPIPE, and a background job may ignore more; the runtime and in the end the
        // payload would inherit that.
        for signal in 1..32 {
            // SAFETY: SIG_DFL is always valid; the two that cannot be set fail harmlessly.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        for (from, to) in [(self.stdin, 0), (self.stdout, 1), (self.stderr, 2)] {
            // SAFETY: both are descriptors; dup2 clears CLOEXEC on the copy.
            unsafe { libc::dup2(from.as_raw_fd(), to) };
        }
        if pipe[0] >= 0 {
            let mut byte = 0u8;
            // SAFETY: our own write end goes first, so that the read ends when the parent's does.
            unsafe { libc::close(pipe[1]) };
            // SAFETY: one byte is read into `byte`.
            unsafe { libc::read(pipe[0], (&raw mut byte).cast(), 1) };
        }
        // SAFETY: both arrays end with a null pointer and their strings outlive the call.
        unsafe { libc::execve(argv[0], argv.as_ptr(), env.as_ptr()) };
        // SAFETY: ends this child without running the parent's destructors.
        unsafe { libc::_exit(127) }
    }
}

/// The seccomp programs of a process, newest first. Stops it for a moment.
pub fn seccomp_filters(pid: i32) -> Result<Vec<Vec<u64>>> {
    seize(pid, false).context("seize")?;
    interrupt(pid).context("interrupt")?;
    let mut filters = Vec::new();
    let stopped = wait_any(pid, libc::__WALL)?;
    let result = loop {
        match seccomp_filter(pid, filters.len() as i64) {
            Ok(Some(code)) => filters.push(code),
            Ok(None) => break Ok(filters),
            Err(e) => break Err(e),
        }
    };
    if stopped.is_some_and(|(_, status)| libc::WIFSTOPPED(status)) {
        resume(pid, Resume::Detach, 0).context("detach")?;
    }
    Ok(result?)
}

/// How many device programs are attached to a cgroup2 directory.
pub fn device_programs(dir: &std::path::Path) -> Result<i64> {
    const BPF_PROG_QUERY: i32 = 16;
    const BPF_CGROUP_DEVICE: u32 = 6;
    let cgroup = File::open(dir)?;
    let mut ids = [0u32; 16];
    /// The `query` arm of union bpf_attr.
    #[repr(C)]
    struct Query {
        target_fd: u32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        prog_ids: u64,
        prog_cnt: u32,
        rest: [u32; 9],
    }
    let mut query = Query {
        target_fd: cgroup.as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: ids.len() as u32,
        rest: [0; 9],
    };
    // SAFETY: the struct is as long as the size says; the kernel writes at most 16 ids.
    check(unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_QUERY, &raw mut query, size_of::<Query>())
    })?;
    Ok(query.prog_cnt.into())
}
