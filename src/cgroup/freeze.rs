//! Stopping and continuing all processes of a container.
//!
//! v1 has a freezer hierarchy, v2 `cgroup.freeze` in every cgroup. On a hybrid host the v1 freezer
//! is used, as engines look there.

use std::time::{Duration, Instant};

use super::dir::{self, Dir, Pause};
use super::v2;
use crate::error::{Code, Error, Result};

/// The directory that freezes a container, and whether it is v1's.
pub(super) fn freezer(dirs: &[Dir]) -> Option<(&Dir, bool)> {
    let v1 = dirs.iter().find(|dir| dir.place.has("freezer")).map(|dir| (dir, true));
    v1.or_else(|| dirs.iter().find(|dir| dir.place.is_v2()).map(|dir| (dir, false)))
}

/// Whether every process is frozen.
pub(super) fn frozen(dirs: &[Dir]) -> Result<bool> {
    let Some((dir, is_v1)) = freezer(dirs) else { return Ok(false) };
    let (file, frozen): (_, fn(&str) -> bool) = if is_v1 {
        (c"freezer.state", |text| text.trim() == "FROZEN")
    } else {
        (c"cgroup.events", |text| dir::field(text, "frozen") == Some(1))
    };
    match dir::read(dir, file) {
        Ok(text) => Ok(frozen(&text)),
        Err(error) if dir::is_gone(&error) => Ok(false),
        Err(error) => Err(Error::at(Code::E_FREEZE, dir.place.dir())(error)),
    }
}

/// Whether a process that enters would be stopped: asked for here, or in effect from above.
pub(super) fn is_stopped(dir: &Dir) -> Result<bool> {
    let read = |file| match dir::read(dir, file) {
        Ok(text) => Ok(text),
        // The mount point itself has none of these files, and is never frozen.
        Err(error) if dir::is_gone(&error) => Ok(String::new()),
        Err(error) => Err(Error::at(Code::E_FREEZE, dir.place.dir())(error)),
    };
    if dir.place.has("freezer") {
        let state = read(c"freezer.state")?;
        return Ok(!matches!(state.trim(), "THAWED" | ""));
    }
    if !dir.place.is_v2() {
        return Ok(false);
    }
    Ok(read(c"cgroup.freeze")?.trim() == "1"
        || dir::field(&read(c"cgroup.events")?, "frozen") == Some(1))
}

/// Freezes or thaws and waits until it is so; a freeze that fails is undone.
pub(super) fn freeze(dirs: &[Dir], on: bool, deadline: Duration) -> Result<()> {
    let Some((dir, is_v1)) = freezer(dirs) else {
        return Err(Error::text(
            Code::E_FREEZE,
            "the container has no cgroup that could be frozen",
        ));
    };
    let end = Instant::now() + deadline;
    let reached = if is_v1 { freeze_v1(dir, on, end) } else { freeze_v2(dir, on, end) };
    if let (false, Ok(false)) = (on, &reached) {
        if is_frozen_above(dir, is_v1)? {
            let text = format!("{}: a cgroup above it is frozen", dir.place.dir());
            return Err(Error::text(Code::E_FREEZE, text));
        }
    }
    let failure = match reached {
        Ok(true) => return Ok(()),
        Ok(false) => {
            let what = if on { "not all processes froze" } else { "still frozen" };
            Error::text(Code::E_FREEZE, format!("{}: {what} within {deadline:?}", dir.place.dir()))
        }
        Err(error) => Error::at(Code::E_FREEZE, dir.place.dir())(error),
    };
    if on {
        let thawed = if is_v1 { thaw_v1(dir) } else { dir::write(dir, c"cgroup.freeze", "0") };
        if let Err(error) = thawed {
            return Err(failure.and(format_args!("then {error}")));
        }
    }
    Err(failure)
}

fn freeze_v2(dir: &Dir, on: bool, end: Instant) -> crate::sys::Result<bool> {
    dir::write(dir, c"cgroup.freeze", if on { "1" } else { "0" })?;
    if !on && is_frozen_above(dir, false)? {
        return Ok(false);
    }
    v2::wait_event(dir, "frozen", on.into(), end)
}

/// v1 reports `FREEZING` until every task has stopped, brings that forward only when asked again,
/// and may never get there while tasks fork or sit in vfork: thawing for a moment helps.
fn freeze_v1(dir: &Dir, on: bool, end: Instant) -> crate::sys::Result<bool> {
    let wanted = if on { "FROZEN" } else { "THAWED" };
    let mut pause = Pause::until(end);
    for round in 1u32.. {
        dir::write(dir, c"freezer.state", wanted)?;
        if dir::read(dir, c"freezer.state")?.trim() == wanted {
            return Ok(true);
        }
        if !on && is_frozen_above(dir, true)? {
            break;
        }
        if on && round.is_multiple_of(32) {
            thaw_v1(dir)?;
        }
        if !pause.sleep() {
            break;
        }
    }
    Ok(false)
}

/// Whether the processes stay frozen for the sake of a cgroup above, which is not ours to thaw.
fn is_frozen_above(dir: &Dir, is_v1: bool) -> crate::sys::Result<bool> {
    let file = if is_v1 { c"freezer.parent_freezing" } else { c"../cgroup.events" };
    match dir::read(dir, file) {
        Ok(text) if is_v1 => Ok(text.trim() == "1"),
        Ok(text) => Ok(dir::field(&text, "frozen") == Some(1)),
        // The root of the hierarchy has no such file.
        Err(error) if dir::is_gone(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Asks v1 to thaw; done at once unless a parent is frozen.
pub(super) fn thaw_v1(dir: &Dir) -> crate::sys::Result<()> {
    dir::write(dir, c"freezer.state", "THAWED")
}
