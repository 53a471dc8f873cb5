//! What only the parent can do to the child: its badness to the OOM killer, its scheduling.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::error::{Code, Error, Result};
use crate::plan::process::Process;
use crate::sys;

/// Sets `oom_score_adj` of a child that waits for Go.
pub fn set_oom_score_adj(pid: i32, process: &Process) -> Result<()> {
    let Some(score) = process.oom_score_adj else { return Ok(()) };
    let path = sys::cstr("open", format!("/proc/{pid}/oom_score_adj"))?;
    let file = sys::fs::open(&path, libc::O_WRONLY).map_err(about(score))?;
    write(file.as_fd(), score)
}

fn write(file: BorrowedFd<'_>, score: i32) -> Result<()> {
    sys::fs::write_all(file, score.to_string().as_bytes()).map_err(about(score))
}

fn about(score: i32) -> impl Fn(sys::Error) -> Error {
    move |error| Error::at(Code::E_OOM_SCORE_ADJ, "/process/oomScoreAdj")(error.about(score))
}

/// Whether a child of exec can only inherit its `oom_score_adj`: it is not dumpable, so that its files in
/// /proc belong to root (proc(5)), which is not who calls.
pub fn inherits_oom_score_adj() -> bool {
    !nix::unistd::geteuid().is_root()
}

/// What the parent has become for a child to inherit, and came from.
#[derive(Debug)]
pub struct Lent {
    cpus: Option<Vec<u64>>,
    score: Option<(OwnedFd, i32)>,
}

impl Lent {
    /// The CPUs of `execCPUAffinity.initial`, and the score that nobody could give the child later. To be
    /// called while the parent is dumpable.
    pub fn to(process: Option<&Process>) -> Result<Self> {
        let Some(process) = process else { return Ok(Self { cpus: None, score: None }) };
        let score = match process.oom_score_adj {
            Some(score) if inherits_oom_score_adj() => Some(take_oom_score_adj(score)?),
            _ => None,
        };
        let cpus = match process.exec_affinity.initial.as_deref() {
            Some(mask) => Some(take_cpus(mask)?),
            None => None,
        };
        Ok(Self { cpus, score })
    }

    /// Back to what it was. Not even a score needs rights for that: the bound below which they are needed is
    /// no higher than where we came from.
    pub fn take_back(self) -> Result<()> {
        if let Some(cpus) = self.cpus {
            sys::sched::sched_setaffinity(0, &cpus)?;
        }
        if let Some((file, score)) = self.score {
            write(file.as_fd(), score)?;
        }
        Ok(())
    }
}

/// Takes a score; the file, which could not be opened again, and the score until now.
fn take_oom_score_adj(score: i32) -> Result<(OwnedFd, i32)> {
    let file = sys::fs::open(c"/proc/self/oom_score_adj", libc::O_RDWR).map_err(about(score))?;
    let text = sys::fs::read_small(file.as_fd(), 16).map_err(about(score))?;
    let home = std::str::from_utf8(&text).ok().and_then(|text| text.trim_end().parse().ok());
    let home = home.ok_or_else(|| Error::text(Code::E_INTERNAL, "oom_score_adj is no number"))?;
    write(file.as_fd(), score)?;
    Ok((file, home))
}

/// Goes to these CPUs; those until now.
fn take_cpus(mask: &[u64]) -> Result<Vec<u64>> {
    let home = sys::sched::sched_getaffinity(0)?;
    sys::sched::sched_setaffinity(0, mask)
        .map_err(Error::at(Code::E_SCHEDULER, "/process/execCPUAffinity/initial"))?;
    Ok(home)
}

/// Scheduling of a child that has done its own work: a `SCHED_DEADLINE` task could not have forked.
pub fn schedule(pid: i32, process: &Process) -> Result<()> {
    if let Some(scheduler) = &process.scheduler {
        let attr = sys::sched::SchedAttr {
            size: u32::try_from(size_of::<sys::sched::SchedAttr>()).unwrap_or(0),
            policy: scheduler.policy,
            flags: scheduler.flags,
            nice: scheduler.nice,
            priority: scheduler.priority,
            runtime: scheduler.runtime,
            deadline: scheduler.deadline,
            period: scheduler.period,
            // The spec has the flags and no values for them; 0 would clamp, this means the system's own.
            util_min: u32::MAX,
            util_max: u32::MAX,
        };
        sys::sched::sched_setattr(pid, &attr)
            .map_err(Error::at(Code::E_SCHEDULER, "/process/scheduler"))?;
    }
    if let Some(value) = process.io_priority {
        sys::sched::ioprio_set(pid, value)
            .map_err(Error::at(Code::E_SCHEDULER, "/process/ioPriority"))?;
    }
    Ok(())
}
