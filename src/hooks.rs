//! Running hooks: state on stdin, a deadline, and the last of what they said for the error.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::{Code, Error, Result};
use crate::plan::annotations::HookOutput;
use crate::plan::hooks::Hook;
use crate::sys;
use crate::sys::exec::CStrings;
use crate::sys::process::Exit;

/// How much of a failing hook's output goes into the error, in bytes.
const OUTPUT_MAX: usize = 4096;

/// Runs hooks of the runtime in order; the first failure ends it.
pub fn run_all(hooks: &[Hook], state: &str) -> Result<()> {
    hooks.iter().try_for_each(|hook| run(hook, state))
}

/// Runs one hook of the runtime and waits for it.
pub fn run(hook: &Hook, state: &str) -> Result<()> {
    run_ignoring(hook, state, u32::MAX, sys::process::ignored_signals)
}

/// Runs one hook in the child, which ignores no signal. There may be no /proc to ask, or an image's own.
/// Descriptors from 3 to below `end` may live over an execve.
pub fn run_in_child(hook: &Hook, state: &str, end: u32) -> Result<()> {
    /// One bit a signal, from bit 0 for signal 1.
    const PIPE: u64 = 1 << (libc::SIGPIPE - 1);
    // What the hook leaves unread is an error that is tolerated, not the end of the container.
    sys::process::ignore_broken_pipes();
    let result = run_ignoring(hook, state, end, || Ok(PIPE));
    sys::process::reset_signals(PIPE)?;
    result
}

fn run_ignoring(
    hook: &Hook,
    state: &str,
    end: u32,
    ignored: impl FnOnce() -> sys::Result<u64>,
) -> Result<()> {
    let started = Instant::now();
    let failed = |text: String| {
        Err(Error::text(Code::E_HOOK, format!("{}: hook {}: {text}", hook.at, show(hook))))
    };
    let (mut output, exit) =
        match ignored().map_err(Error::from).and_then(|set| supervise(hook, state, (set, end))) {
            Ok(done) => done,
            Err(error) => return failed(error.to_string()),
        };
    let text = match exit {
        Some(Exit::Code(0)) => return Ok(()),
        Some(exit) => exit.to_string(),
        None => format!("killed after its timeout of {} s", hook.timeout.unwrap_or(0)),
    };
    let millis = started.elapsed().as_millis();
    let cut = output.len().saturating_sub(OUTPUT_MAX);
    output.drain(..cut);
    let said = sys::visible(String::from_utf8_lossy(&output).trim_end());
    let said = if said.is_empty() { "no output".to_owned() } else { format!("output: {said}") };
    failed(format!("{text} after {millis} ms, {said}"))
}

/// The argument vector as it would be typed.
fn show(hook: &Hook) -> String {
    let words: Vec<_> = hook.args.iter().map(|arg| sys::visible(arg)).collect();
    format!("{} [{}]", sys::visible(&hook.path), words.join(" "))
}

/// Starts the hook, feeds it, listens to it. No exit status means that it was killed in time-out.
fn supervise(hook: &Hook, state: &str, given: (u64, u32)) -> Result<(Vec<u8>, Option<Exit>)> {
    let path = sys::cstr("execve", &hook.path)?;
    let argv = strings(&hook.args)?;
    let envp = strings(&hook.env)?;
    let (stdin_read, stdin_write) = sys::fs::pipe()?;
    let (output_read, output_write) = sys::fs::pipe()?;
    let runtime = sys::process::getpid();
    let Some(child) = sys::process::clone3(0, None)? else {
        die_with(runtime);
        hook_process(&path, (&argv, &envp), &stdin_read, (&output_write, &hook.output), given);
    };
    drop((stdin_read, output_write));
    let result = attend(hook, state, child.pidfd.as_fd(), stdin_write, output_read);
    if !matches!(result, Ok((_, Some(_)))) {
        // Timed out, or we cannot go on watching it: neither it nor its children may outlive us. It has
        // not been waited for, so the number is still its own.
        sys::process::kill(-child.pid, libc::SIGKILL)?;
        sys::process::wait(child.pidfd.as_fd(), true)?;
    }
    result
}

fn strings(list: &[String]) -> Result<CStrings> {
    let strings: sys::Result<Vec<_>> = list.iter().map(|text| sys::cstr("execve", text)).collect();
    Ok(CStrings::new(strings?))
}

/// In the clone: one of its outputs goes to the end of a file. What fails here is told by the pipe.
fn append(file: Option<&Path>, number: i32) -> sys::Result<()> {
    let Some(path) = file else { return Ok(()) };
    let name = sys::cstr("open", path.as_os_str().as_bytes())?;
    let flags = libc::O_WRONLY | libc::O_APPEND | libc::O_CREAT | libc::O_NOFOLLOW;
    let file = sys::fs::openat(sys::fs::CWD, &name, flags, 0o600)?;
    sys::fs::dup_to(file.as_fd(), number, false)
}

/// In the clone, first of all: a hook must not outlive a runtime that was killed, nor begin when it is dead.
fn die_with(runtime: i32) {
    // In this order: a death between the two is seen by the second.
    let armed = sys::process::set_pdeathsig(libc::SIGKILL);
    if armed.is_err() || sys::process::getppid() != runtime {
        sys::process::exit_now(126);
    }
}

/// In the clone: descriptors 0 to 2 and nothing else, default signals, no other trace of us.
fn hook_process(
    path: &std::ffi::CStr,
    (argv, envp): (&CStrings, &CStrings),
    stdin: &OwnedFd,
    (output, files): (&OwnedFd, &HookOutput),
    (ignored, end): (u64, u32),
) -> ! {
    let prepared = sys::fs::dup_to(stdin.as_fd(), 0, false)
        .and_then(|()| sys::fs::dup_to(output.as_fd(), 1, false))
        .and_then(|()| sys::fs::dup_to(output.as_fd(), 2, false))
        .and_then(|()| append(files.stdout.as_deref(), 1))
        .and_then(|()| append(files.stderr.as_deref(), 2))
        // A session of its own: what it starts can be found and killed with it.
        .and_then(|()| sys::process::setsid())
        .and_then(|()| sys::process::reset_signals(ignored))
        .and_then(|()| keep_from_hook(end));
    let error = match prepared {
        Ok(()) => sys::exec::execve(path, argv, envp),
        Err(error) => error,
    };
    if let Some(stderr) = sys::fs::inherited(2) {
        // The pipe is all we have to tell by; if it is closed, the exit status has to do.
        if sys::fs::write_all(stderr, error.to_string().as_bytes()).is_err() {
            sys::process::exit_now(126);
        }
    }
    sys::process::exit_now(127)
}

/// The caller of the runtime may have left anything open; in the child we know. Only there may a filter apply
/// by now, which need not know close_range.
fn keep_from_hook(end: u32) -> sys::Result<()> {
    if end == u32::MAX {
        return sys::exec::cloexec_range(3, end);
    }
    for number in 3..i32::try_from(end).unwrap_or(i32::MAX) {
        if let Some(fd) = sys::fs::inherited(number) {
            sys::fs::dup_to(fd, number, true)?;
        }
    }
    Ok(())
}

/// Feeds stdin, keeps the last of the output, until the hook has ended or its time is over. A
/// grandchild that keeps the pipe open is not waited for.
fn attend(
    hook: &Hook,
    state: &str,
    pidfd: std::os::fd::BorrowedFd<'_>,
    stdin: OwnedFd,
    output: OwnedFd,
) -> Result<(Vec<u8>, Option<Exit>)> {
    let deadline = hook.timeout.map(|s| Instant::now() + Duration::from_secs(s.into()));
    sys::fs::set_nonblocking(&stdin, true)?;
    sys::fs::set_nonblocking(&output, true)?;
    let mut unsent = state.as_bytes();
    let mut stdin = Some(stdin);
    let mut said = Vec::new();
    let mut open = true;
    loop {
        if let Some(pipe) = stdin.take() {
            stdin = feed(pipe, &mut unsent)?;
        }
        let wait = match deadline.map(|deadline| deadline.checked_duration_since(Instant::now())) {
            None => -1,
            Some(None) => return Ok((said, None)),
            Some(Some(left)) => i32::try_from(left.as_millis()).unwrap_or(i32::MAX).max(1),
        };
        let mut fds = vec![(pidfd, libc::POLLIN)];
        // What is closed on its side is always ready.
        fds.extend(open.then_some((output.as_fd(), libc::POLLIN)));
        fds.extend(stdin.iter().map(|pipe| (pipe.as_fd(), libc::POLLOUT)));
        let events = sys::fs::poll(&fds, wait)?;
        open = drain(&output, &mut said)?;
        if events.first().is_some_and(|events| *events != 0) {
            drain(&output, &mut said)?;
            return Ok((said, sys::process::wait(pidfd, true)?));
        }
    }
}

/// Writes what the pipe takes; gives it back while something is left to write.
fn feed(pipe: OwnedFd, unsent: &mut &[u8]) -> Result<Option<OwnedFd>> {
    match sys::fs::write(pipe.as_fd(), unsent) {
        Ok(count) => *unsent = unsent.get(count..).unwrap_or_default(),
        Err(error) if error.errno == libc::EAGAIN => {}
        // A hook need not read its state.
        Err(error) if error.errno == libc::EPIPE => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    Ok((!unsent.is_empty()).then_some(pipe))
}

/// Reads what is there, keeping twice the last 4 KiB at most; false at the end of file.
fn drain(pipe: &OwnedFd, said: &mut Vec<u8>) -> Result<bool> {
    let mut chunk = [0u8; OUTPUT_MAX];
    loop {
        match sys::fs::read(pipe.as_fd(), &mut chunk) {
            Ok(0) => return Ok(false),
            Ok(count) => said.extend_from_slice(chunk.get(..count).unwrap_or_default()),
            Err(error) if error.errno == libc::EAGAIN => return Ok(true),
            Err(error) => return Err(error.into()),
        }
        if said.len() > 2 * OUTPUT_MAX {
            said.drain(..said.len() - OUTPUT_MAX);
        }
    }
}
