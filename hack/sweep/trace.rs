//! Runs a program under ptrace with its whole process tree, counts system calls over all tasks,
//! and disturbs exactly one of them.
//!
//! One counter serves the whole tree, so a plan hits one call of one task, once. After the hit
//! the tasks run on without syscall stops: that is what makes a complete sweep affordable.

use super::{names, sys};
use anyhow::{Result, bail};
use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};
use sys::Resume;

/// What happens at the chosen call.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Act {
    /// Nothing: only count.
    Count,
    /// The call is not made and returns this errno, or the usual one of that call.
    Fail(Option<i32>),
    /// SIGKILL to the program that was started.
    KillMain,
    /// SIGKILL to the process that makes the call.
    KillTask,
}

/// The call that was disturbed.
#[derive(Clone, Debug)]
pub struct Hit {
    pub call: String,
    pub task: String,
    pub is_main: bool,
    pub errno: Option<i32>,
}

/// What the whole tree did, noise included.
#[derive(Clone, Copy, Default, Debug)]
pub struct Totals {
    pub calls: u64,
    pub processes: u64,
    pub threads: u64,
    pub execs: u64,
    /// The largest resident set of any process that ended; only when counting.
    pub peak_kib: u64,
}

/// One traced run.
pub struct Outcome {
    /// Exit code of the program in the shell's form.
    pub code: i32,
    /// Calls that are not noise.
    pub counted: u64,
    pub hit: Option<Hit>,
    pub hung: bool,
    pub totals: Totals,
}

/// What to run and what to do to it.
pub struct Job<'a> {
    pub program: sys::Program<'a>,
    /// An already running process whose calls count too (the waiting init, for `start`). The run
    /// then lasts until that one has executed the payload or ended.
    pub attach: Option<i32>,
    /// Device and inode of the payload: a task that executes it is let go.
    pub payload: (u64, u64),
    pub at: u64,
    pub act: Act,
    pub limit: Duration,
}

#[derive(Default)]
struct Task {
    group: i32,
    /// Set between the entry and the exit of the call that is made to fail.
    errno: Option<i32>,
}

struct Tracer<'a> {
    job: &'a Job<'a>,
    main: i32,
    main_code: Option<i32>,
    tasks: HashMap<i32, Task>,
    /// Counting starts with the program's own execve, not with our gate.
    armed: bool,
    counted: u64,
    hit: Option<Hit>,
    totals: Totals,
}

/// Runs the job to its end.
pub fn run(job: &Job) -> Result<Outcome> {
    let (main, gate) = job.program.start(true)?;
    let mut tracer = Tracer {
        job,
        main,
        main_code: None,
        tasks: HashMap::new(),
        armed: false,
        counted: 0,
        hit: None,
        totals: Totals::default(),
    };
    sys::seize(main, tracer.exits())?;
    tracer.tasks.insert(main, Task { group: main, errno: None });
    tracer.attach_running();
    drop(gate);
    sys::ticks(Duration::from_millis(50));
    let result = tracer.trace();
    let hung = !matches!(result, Ok(true));
    tracer.let_go(hung);
    sys::ticks(Duration::ZERO);
    result?;
    Ok(Outcome {
        code: tracer.main_code.unwrap_or(-1),
        counted: tracer.counted,
        hit: tracer.hit,
        hung,
        totals: tracer.totals,
    })
}

impl Tracer<'_> {
    /// Whether to stop tasks at their exit, to read their peak memory.
    fn exits(&self) -> bool {
        self.job.act == Act::Count
    }

    fn attach_running(&mut self) {
        let Some(pid) = self.job.attach else { return };
        let Ok(dir) = fs::read_dir(format!("/proc/{pid}/task")) else { return };
        for entry in dir.flatten() {
            let Ok(tid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
            if sys::seize(tid, self.exits()).is_ok() && sys::interrupt(tid).is_ok() {
                self.tasks.insert(tid, Task { group: pid, errno: None });
            }
        }
    }

    /// The main loop; true when the program ended by itself, false at the deadline.
    fn trace(&mut self) -> Result<bool> {
        let end = Instant::now() + self.job.limit;
        loop {
            if Instant::now() > end {
                return Ok(false);
            }
            let Some((pid, status)) = sys::wait_any(-1, libc::__WALL)? else { continue };
            if libc::WIFSTOPPED(status) {
                self.stopped(pid, status);
            } else {
                self.tasks.remove(&pid);
                if pid == self.main {
                    self.main_code = Some(sys::exit_code(status));
                }
            }
            if self.main_code.is_some() && self.attached_is_done() {
                return Ok(true);
            }
        }
    }

    /// After a failure nobody need come to the payload any more.
    fn attached_is_done(&self) -> bool {
        let Some(pid) = self.job.attach else { return true };
        self.main_code != Some(0) || !self.tasks.values().any(|t| t.group == pid)
    }

    fn stopped(&mut self, pid: i32, status: i32) {
        let (signal, event) = (libc::WSTOPSIG(status), status >> 16);
        if !self.tasks.contains_key(&pid) {
            self.adopt(pid);
        }
        match event {
            0 if signal == libc::SIGTRAP | 0x80 => self.syscall(pid),
            0 => self.go(pid, self.mode(), signal),
            libc::PTRACE_EVENT_EXEC => self.executed(pid),
            libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE => {
                if let Ok(new) = sys::event_message(pid) {
                    self.adopt(new);
                    let thread = self.tasks.get(&new).is_some_and(|t| t.group != new);
                    *(if thread {
                        &mut self.totals.threads
                    } else {
                        &mut self.totals.processes
                    }) += 1;
                }
                self.go(pid, self.mode(), 0);
            }
            libc::PTRACE_EVENT_EXIT => {
                let peak = status_field(pid, "VmHWM:").unwrap_or(0);
                self.totals.peak_kib = self.totals.peak_kib.max(peak as u64);
                self.go(pid, Resume::Cont, 0);
            }
            libc::PTRACE_EVENT_STOP if signal != libc::SIGTRAP => self.go(pid, Resume::Listen, 0),
            _ => self.go(pid, self.mode(), 0),
        }
    }

    /// A task we have not met: its first stop can come before its parent's fork event.
    fn adopt(&mut self, pid: i32) {
        let group = status_field(pid, "Tgid:").unwrap_or(pid);
        self.tasks.entry(pid).or_insert(Task { group, errno: None });
    }

    fn executed(&mut self, pid: i32) {
        // The other threads are gone, and the caller has taken the leader's number.
        self.tasks.retain(|tid, t| t.group != pid || *tid == pid);
        self.armed |= pid == self.main;
        let exe = fs::metadata(format!("/proc/{pid}/exe")).map(|m| (m.dev(), m.ino()));
        if pid != self.main && exe.is_ok_and(|id| id == self.job.payload) {
            self.tasks.remove(&pid);
            return self.go(pid, Resume::Detach, 0);
        }
        self.totals.execs += 1;
        self.go(pid, self.mode(), 0);
    }

    fn syscall(&mut self, pid: i32) {
        match sys::syscall_entry(pid) {
            Ok(Some(nr)) if self.armed => self.entry(pid, nr),
            Ok(None) => {
                if let Some(errno) = self.tasks.get_mut(&pid).and_then(|t| t.errno.take()) {
                    tolerate_gone(sys::set_result(pid, i64::from(-errno)));
                }
                self.go(pid, self.mode(), 0);
            }
            _ => self.go(pid, self.mode(), 0),
        }
    }

    fn entry(&mut self, pid: i32, nr: i64) {
        self.totals.calls += 1;
        if names::is_noise(nr) {
            return self.go(pid, self.mode(), 0);
        }
        self.counted += 1;
        if self.counted != self.job.at || self.job.act == Act::Count {
            return self.go(pid, self.mode(), 0);
        }
        self.disturb(pid, nr);
    }

    fn disturb(&mut self, pid: i32, nr: i64) {
        let call = names::name(nr);
        let group = self.tasks.get(&pid).map_or(pid, |t| t.group);
        let is_main = group == self.main;
        let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let task = if is_main { "main".to_string() } else { format!("child {}", comm.trim_end()) };
        let mut hit = Hit { call, task, is_main, errno: None };
        match self.job.act {
            Act::Fail(errno) => {
                let errno = errno.unwrap_or_else(|| names::usual_errno(&hit.call));
                hit.errno = Some(errno);
                tolerate_gone(sys::skip_call(pid));
                if let Some(task) = self.tasks.get_mut(&pid) {
                    task.errno = Some(errno);
                }
                self.go(pid, Resume::Syscall, 0);
            }
            Act::KillMain => {
                sys::kill(self.main, libc::SIGKILL);
                self.go(pid, Resume::Cont, 0);
            }
            Act::KillTask => sys::kill(group, libc::SIGKILL),
            Act::Count => {}
        }
        self.hit = Some(hit);
    }

    /// Syscall stops are only needed until the hit.
    fn mode(&self) -> Resume {
        if self.hit.is_some() { Resume::Cont } else { Resume::Syscall }
    }

    fn go(&self, pid: i32, how: Resume, signal: i32) {
        // A task whose failing call has not returned yet must still stop at its exit.
        let pending = self.tasks.get(&pid).is_some_and(|t| t.errno.is_some());
        let how = if pending && how == Resume::Cont { Resume::Syscall } else { how };
        tolerate_gone(sys::resume(pid, how, signal));
    }

    /// Detaches what still runs; at a hang kills it instead.
    fn let_go(&mut self, kill: bool) {
        self.forget_gone();
        for (tid, task) in &self.tasks {
            if kill {
                sys::kill(task.group, libc::SIGKILL);
            } else {
                tolerate_gone(sys::interrupt(*tid));
            }
        }
        let mut end = Instant::now() + Duration::from_secs(2);
        while !self.tasks.is_empty() {
            if Instant::now() > end {
                self.forget_gone();
                self.tasks.values().for_each(|t| sys::kill(t.group, libc::SIGKILL));
                end = Instant::now() + Duration::from_secs(1);
            }
            let Ok(waited) = sys::wait_any(-1, libc::__WALL) else { break };
            let Some((pid, status)) = waited else { continue };
            if libc::WIFSTOPPED(status) {
                self.detach(pid, libc::WSTOPSIG(status), status >> 16);
            } else if pid == self.main {
                self.main_code = Some(sys::exit_code(status));
            }
            self.tasks.remove(&pid);
        }
    }

    /// A task may have ended before the event that announces it; only tracees are ours to signal.
    fn forget_gone(&mut self) {
        let own = std::process::id() as i32;
        self.tasks.retain(|tid, _| status_field(*tid, "TracerPid:") == Some(own));
    }

    fn detach(&mut self, pid: i32, signal: i32, event: i32) {
        if matches!(
            event,
            libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE
        ) {
            // The new task is traced as well and must be let go too.
            sys::event_message(pid).map_or_else(|e| tolerate_gone(Err(e)), |new| self.adopt(new));
        }
        let at_call = event == 0 && signal == libc::SIGTRAP | 0x80;
        if let (true, Some(errno)) =
            (at_call, self.tasks.get_mut(&pid).and_then(|t| t.errno.take()))
        {
            tolerate_gone(sys::set_result(pid, i64::from(-errno)));
        }
        let deliver = if event == 0 && !at_call { signal } else { 0 };
        tolerate_gone(sys::resume(pid, Resume::Detach, deliver));
    }
}

fn status_field(tid: i32, key: &str) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

/// A tracee may be killed at any moment; ESRCH then is no news, its exit is reported by waitpid.
fn tolerate_gone(result: std::io::Result<()>) {
    match result {
        Ok(()) => {}
        Err(e) if e.raw_os_error() == Some(libc::ESRCH) => {}
        Err(e) => eprintln!("sweep: ptrace: {e}"),
    }
}

/// The device and inode by which a payload is known.
pub fn identity(path: &std::path::Path) -> Result<(u64, u64)> {
    match fs::metadata(path) {
        Ok(m) => Ok((m.dev(), m.ino())),
        Err(e) => bail!("{}: {e}", path.display()),
    }
}
