//! What only the parent can do to the child: its badness to the OOM killer, its scheduling.

use std::os::fd::AsFd;

use crate::error::{Code, Error, Result};
use crate::plan::process::Process;
use crate::sys;

/// Sets `oom_score_adj` of a child that waits for Go.
pub fn set_oom_score_adj(pid: i32, process: &Process) -> Result<()> {
    let Some(score) = process.oom_score_adj else { return Ok(()) };
    let path = sys::cstr("open", format!("/proc/{pid}/oom_score_adj"))?;
    sys::fs::open(&path, libc::O_WRONLY)
        .and_then(|file| sys::fs::write_all(file.as_fd(), score.to_string().as_bytes()))
        .map_err(|error| {
            Error::at(Code::E_OOM_SCORE_ADJ, "/process/oomScoreAdj")(error.about(score))
        })
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
