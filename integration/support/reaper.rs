//! The test process is a child subreaper, as an engine's shim is: init and exec'd processes whose
//! runtime has exited become our children and are waited for at once. Without that a killed init
//! stays a zombie and `state` goes on to say `running`.
//!
//! One thread waits for every child, our own commands included, and notes how each ended. So
//! nothing in these tests may use `Child::wait` or `Command::output`: its status would be taken
//! away. `Call` and `host::tool` ask here instead.

use std::collections::HashMap;
use std::os::unix::process::ExitStatusExt;
use std::process::{ChildStdin, Command, ExitStatus};
use std::sync::{Condvar, Mutex, MutexGuard, Once};
use std::time::{Duration, Instant};

type Exits = HashMap<i32, ExitStatus>;

static EXITS: Mutex<Option<Exits>> = Mutex::new(None);
static CHANGED: Condvar = Condvar::new();

/// Makes this process the subreaper; every later call does nothing.
pub fn start() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let rc = unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
        assert_eq!(rc, 0, "PR_SET_CHILD_SUBREAPER");
        std::thread::Builder::new().name("reaper".into()).spawn(reap_for_ever).unwrap();
    });
}

/// Starts a command whose end is noted here. The lock is held meanwhile, so that a command that
/// cannot be executed is still there for the standard library to wait for.
pub fn spawn(command: &mut Command) -> std::io::Result<Spawned> {
    start();
    let mut exits = lock();
    let child = command.spawn()?;
    let pid = child.id() as i32;
    exits.as_mut().unwrap().remove(&pid);
    Ok(Spawned { pid, stdin: child.stdin })
}

/// A command that has been started; `wait` tells its end.
pub struct Spawned {
    pub pid: i32,
    /// The write end of its stdin, if that is a pipe.
    pub stdin: Option<ChildStdin>,
}

/// How the child ended, or `None` when it is still there after `patience`.
pub fn wait(pid: i32, patience: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + patience;
    let mut exits = lock();
    loop {
        if let Some(status) = exits.as_ref().unwrap().get(&pid) {
            return Some(*status);
        }
        let left = deadline.checked_duration_since(Instant::now())?;
        exits = CHANGED.wait_timeout(exits, left).unwrap().0;
    }
}

/// Forgets how an earlier process with the same pid ended. To be called with the pid of a process
/// that has just been seen.
pub fn expect(pid: i32) {
    let mut exits = lock();
    if unsafe { libc::kill(pid, 0) } == 0 {
        exits.as_mut().unwrap().remove(&pid);
    }
}

fn lock() -> MutexGuard<'static, Option<Exits>> {
    let mut exits = EXITS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    exits.get_or_insert_default();
    exits
}

fn reap_for_ever() {
    loop {
        match next_zombie() {
            None => std::thread::sleep(Duration::from_millis(1)),
            Some(pid) => {
                let mut exits = lock();
                let mut status = 0;
                if unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) } == pid {
                    exits.as_mut().unwrap().insert(pid, ExitStatus::from_raw(status));
                    CHANGED.notify_all();
                }
            }
        }
    }
}

/// Waits until some child is a zombie and leaves it one; `None` if there is no child at all.
fn next_zombie() -> Option<i32> {
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let rc = unsafe { libc::waitid(libc::P_ALL, 0, &mut info, libc::WEXITED | libc::WNOWAIT) };
    (rc == 0).then(|| unsafe { info.si_pid() })
}
