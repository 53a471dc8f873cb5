//! What only the parent can do to the child: its badness to the OOM killer, its scheduling.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::error::{Code, Error, Result};
use crate::plan::process::Process;
use crate::sys;

/// What a child has to inherit, which the parent has become for that, and what it came from.
#[derive(Debug)]
pub struct Lent {
    cpus: Option<Vec<u64>>,
    score: Option<i32>,
    own_score: Option<(OwnedFd, i32)>,
}

impl Lent {
    /// `oom_score_adj` for a child that will not be dumpable, where that is nobody's but root's to give: its
    /// files in /proc belong to root then (proc(5)). To be called while the parent is dumpable.
    pub fn score(process: Option<&Process>, dumpable: bool) -> Result<Self> {
        let score = process.and_then(|process| process.oom_score_adj);
        let own_score = match score {
            Some(score) if !dumpable && !nix::unistd::geteuid().is_root() => {
                Some(take_oom_score_adj(score)?)
            }
            _ => None,
        };
        Ok(Self { cpus: None, score, own_score })
    }

    /// The same for a child of exec, which is never dumpable; and the CPUs of `execCPUAffinity.initial`.
    pub fn to_exec(process: Option<&Process>) -> Result<Self> {
        let initial = process.and_then(|process| process.exec_affinity.initial.as_deref());
        Ok(Self { cpus: initial.map(take_cpus).transpose()?, ..Self::score(process, false)? })
    }

    /// Goes back, and gives a child that waits for Go the score that it has not inherited. Not even a score
    /// needs rights to go back: the bound below which they are needed is no higher than where we came from.
    pub fn settle(self, child: i32) -> Result<()> {
        if let Some(cpus) = self.cpus {
            sys::sched::sched_setaffinity(0, &cpus)?;
        }
        match (self.own_score, self.score) {
            (Some((file, score)), _) => write(file.as_fd(), score),
            (None, Some(score)) => {
                let path = sys::cstr("open", format!("/proc/{child}/oom_score_adj"))?;
                let file = sys::fs::open(&path, libc::O_WRONLY).map_err(about(score))?;
                write(file.as_fd(), score)
            }
            (None, None) => Ok(()),
        }
    }
}

fn write(file: BorrowedFd<'_>, score: i32) -> Result<()> {
    sys::fs::write_all(file, score.to_string().as_bytes()).map_err(about(score))
}

fn about(score: i32) -> impl Fn(sys::Error) -> Error {
    move |error| Error::at(Code::E_OOM_SCORE_ADJ, "/process/oomScoreAdj")(error.about(score))
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
