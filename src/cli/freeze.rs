//! `pause` and `resume`.

use std::time::Duration;

use clap::ArgMatches;

use super::{Globals, args};
use crate::container::{Container, Status};
use crate::error::{Code, Error, NOT_RUNNING};

/// How long the kernel may take to stop every process, or to let it go on. A task in uninterruptible
/// sleep does not freeze; giving up thaws what has frozen.
const DEADLINE: Duration = Duration::from_secs(10);

/// `onggi pause`: returns when every process has stopped.
pub fn pause(globals: &Globals, matches: &ArgMatches) -> anyhow::Result<u8> {
    let id = args::optional_id(matches).unwrap_or_default();
    let container = Container::open(&globals.root, &id)?;
    let _lock = container.lock()?;
    if !matches!(container.status()?, Status::Created | Status::Running) {
        return Err(Error::text(Code::E_NOT_RUNNING, NOT_RUNNING).into());
    }
    let group = container.cgroup()?.ok_or_else(no_cgroup)?;
    group.freeze(true, DEADLINE)?;
    Ok(0)
}

/// `onggi resume`: also thaws what others have frozen, and processes that are left of a container whose
/// init was killed while it was paused.
pub fn resume(globals: &Globals, matches: &ArgMatches) -> anyhow::Result<u8> {
    let id = args::optional_id(matches).unwrap_or_default();
    let container = Container::open(&globals.root, &id)?;
    let _lock = container.lock()?;
    match container.cgroup()? {
        Some(group) if group.is_stopped()? && group.populated()? => {
            group.freeze(false, DEADLINE)?;
        }
        _ => return Err(Error::text(Code::E_STATUS, "container not paused").into()),
    }
    Ok(0)
}

fn no_cgroup() -> Error {
    Error::text(Code::E_FREEZE, "the container has no cgroup that could be frozen")
}
