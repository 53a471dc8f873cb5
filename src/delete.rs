//! Ending and removing containers.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::cgroup::{Group, Mounts};
use crate::container::{self, Container, Status};
use crate::error::{Code, DOES_NOT_EXIST, Error, Finding, NOT_RUNNING, Result};
use crate::spawn::UNDO_DEADLINE;
use crate::state::State;
use crate::{bundle, hooks, spawn, sys};

/// Deletes a container; with `force` also a living or half-made one. Success means that its
/// processes, cgroups and state are gone. Returns warnings.
pub fn delete(root: &Path, id: &str, force: bool) -> Result<Vec<Finding>> {
    crate::plan::check::container_id(id).map_err(|text| Error::text(Code::E_ID_INVALID, text))?;
    let missing = || {
        if force {
            return Ok(Vec::new());
        }
        Err(Error::text(Code::E_NOT_FOUND, DOES_NOT_EXIST))
    };
    let Some(root) = container::open_root(root)? else { return missing() };
    let root = root.as_fd();
    let Some(dir) = container::open_dir_in(root, id)? else { return missing() };
    let held = sys::fs::duplicate(dir.as_fd())?;
    let _lock = container::lock_within(held.as_fd(), id, UNDO_DEADLINE)?;
    let mut state = State::load(dir.as_fd())?;
    // Without a record by now, create died before it had done anything else, or is about to write one.
    let unrecorded = state.is_none();
    if let Some(unfinished) = state.take_if(|state| state.created.is_empty()) {
        state = what_came_of(&unfinished, dir.as_fd(), force)?;
    }
    let Some(state) = state else {
        // Another delete was faster, or a creator had taken everything back but its directory.
        if (force || !unrecorded) && sys::fs::fstat(dir.as_fd())?.st_nlink > 0 {
            container::remove_dir(root, id, dir.as_fd())?;
        }
        return missing();
    };
    let container = Container { dir, state };
    let status = container.status()?;
    if !force && !matches!(status, Status::Stopped | Status::Created) {
        return Err(not_stopped(id, status));
    }
    remove(root, &container)
}

/// Deletes this very container, which this process has made, in whatever state it is. It may have been deleted
/// since, and somebody else's may have the id now.
pub fn delete_own(root: &Path, container: &Container) -> Result<Vec<Finding>> {
    let Some(root) = container::open_root(root)? else { return Ok(Vec::new()) };
    let dir = container.dir.as_fd();
    let _lock = container::lock_within(dir, &container.state.id, UNDO_DEADLINE)?;
    // A directory that was removed is still open, but has no name any more; one that has a name has ours.
    if sys::fs::fstat(dir)?.st_nlink == 0 {
        return Ok(Vec::new());
    }
    remove(root.as_fd(), container)
}

/// The last record of a create that had not finished. A creator goes on for ever making what we remove, and
/// holds no lock that could be waited for: it is ended by `force`. When it has ended, on its own account
/// perhaps and with success, nobody changes the record any more.
fn what_came_of(unfinished: &State, dir: BorrowedFd<'_>, force: bool) -> Result<Option<State>> {
    if let Some(creator) = container::open_process(unfinished.creator, &unfinished.boot)? {
        if !force {
            return Err(not_stopped(&unfinished.id, Status::Creating));
        }
        end(creator.as_fd(), "the runtime that creates it")?;
    }
    State::load(dir)
}

fn not_stopped(id: &str, status: Status) -> Error {
    let text = format!("cannot delete container {id} that is not stopped: {status}");
    Error::text(Code::E_STATUS, text)
}

/// Kills what is left and removes everything, the record last: until it is gone, delete can be tried
/// again.
pub fn remove(root: BorrowedFd<'_>, container: &Container) -> Result<Vec<Finding>> {
    let committed = !container.state.created.is_empty();
    if let Some(init) = container.init()? {
        thaw(container)?;
        end(init.as_fd(), "container init still running")
            .map_err(|error| and_who_sleeps(error, container))?;
    }
    if !committed {
        wait_for_clones(container)?;
    }
    if !committed && !container.state.net_devices.is_empty() {
        spawn::netdev::take_back_from(&container.state)?;
    }
    // A reboot empties resctrl, too.
    if let Some(record) = &container.state.rdt {
        crate::rdt::remove(record, !committed)?;
    }
    // Cgroups do not survive a reboot; what is there by that name now is somebody else's.
    if crate::state::boot_id()? == container.state.boot {
        crate::cgroup::remove(&container.state.cgroup, true, UNDO_DEADLINE)
            .map_err(|error| and_who_sleeps(error, container))?;
    }
    if let Some(path) = &container.state.pid_file {
        if !committed {
            spawn::pid_file::remove_own(path, container.state.init)?;
        }
        // Also of a container that is recorded as created: the pid file comes after that.
        spawn::pid_file::remove_temporary(path, &container.state.id)?;
    }
    let warnings = poststop(container);
    container::remove_dir(root, &container.state.id, container.dir.as_fd())?;
    Ok(warnings)
}

/// A frozen v1 cgroup does not let its processes die, nor does one that a killed command has left half
/// frozen (`FREEZING`).
fn thaw(container: &Container) -> Result<()> {
    match container.cgroup_by(|record| Group::open_freezer(record, &mut Mounts::default()))? {
        Some(group) if group.is_v1("freezer") && group.is_stopped()? => {
            group.freeze(false, UNDO_DEADLINE)
        }
        _ => Ok(()),
    }
}

/// Kills a process and waits until it has ended.
fn end(pidfd: BorrowedFd<'_>, who: &str) -> Result<()> {
    match sys::process::pidfd_send_signal(pidfd, libc::SIGKILL) {
        // Gone already.
        Err(error) if error.errno == libc::ESRCH => return Ok(()),
        result => result?,
    }
    wait_end(pidfd, UNDO_DEADLINE, &format!("{who} (10 s after SIGKILL)"))
}

/// Waits for what the killed creator had cloned and not recorded yet: an init, a helper, a hook before its
/// execve. They see its death and end, and until then they have the gate open.
fn wait_for_clones(container: &Container) -> Result<()> {
    let Some(writer) = container.gate()? else { return Ok(()) };
    let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOFOLLOW;
    let reader = sys::fs::openat(container.dir.as_fd(), c"gate", flags, 0)?;
    // Not before: only a reader that has met a writer is told when the last one goes (fifo(7), poll(2)).
    drop(writer);
    wait_end(
        reader.as_fd(),
        UNDO_DEADLINE,
        "a child of the runtime that was creating it still runs",
    )
}

fn wait_end(fd: BorrowedFd<'_>, deadline: Duration, failure: &str) -> Result<()> {
    let end = Instant::now() + deadline;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let millis = i32::try_from(left.as_millis()).unwrap_or(i32::MAX);
        match sys::fs::poll(&[(fd, libc::POLLIN)], millis) {
            Ok(events) if events.iter().any(|events| *events != 0) => return Ok(()),
            Ok(_) => return Err(Error::text(Code::E_DELETE, failure)),
            Err(error) if error.errno == libc::EINTR => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Adds the processes that no signal reaches: those in a system call that waits for a device or a server.
fn and_who_sleeps(error: Error, container: &Container) -> Error {
    let find = || -> Result<Vec<String>> {
        let pids = match container.cgroup()? {
            Some(group) => group.pids()?,
            None => vec![container.pid()],
        };
        let mut asleep = Vec::new();
        for pid in pids {
            if let Some(('D', _)) = crate::state::process_stat(pid)? {
                asleep.push(pid.to_string());
            }
        }
        Ok(asleep)
    };
    match find() {
        Ok(asleep) if asleep.is_empty() => error,
        Ok(asleep) => error
            .and(format_args!("in uninterruptible sleep (state D): process {}", asleep.join(", "))),
        Err(other) => error.and(other),
    }
}

/// poststop hooks; their failures are only told (runtime.md, "Lifecycle").
fn poststop(container: &Container) -> Vec<Finding> {
    let run = || -> Result<Vec<Finding>> {
        if container.state.created.is_empty() || !container.state.poststop {
            return Ok(Vec::new());
        }
        let config = container.config()?;
        let (spec, _) = bundle::config(&config)?;
        let mut findings = crate::error::Findings::default();
        let planned = crate::plan::hooks::plan(&spec, &mut findings);
        let state = container.oci_state(Status::Stopped, 0)?.to_string();
        let failures = planned.poststop.iter().filter_map(|hook| hooks::run(hook, &state).err());
        Ok(failures.map(|error| Finding::new(Code::W_HOOK, "", error)).collect())
    };
    run().unwrap_or_else(|error| vec![Finding::new(Code::W_HOOK, "/hooks/poststop", error)])
}

/// Signals a container: its init, or with `all` every process of its cgroup.
pub fn kill(container: &Container, signal: i32, all: bool) -> Result<()> {
    let init = container.init()?;
    // Without a pid namespace of its own, the death of init ends nobody else.
    let shared = signal == libc::SIGKILL && !container.state.own_pid_namespace;
    if all || shared {
        let group = container.cgroup()?;
        if let Some(group) = group {
            group.kill(signal, UNDO_DEADLINE)?;
        } else if let Some(init) = &init {
            send(init.as_fd(), signal)?;
        }
        return if all || init.is_some() {
            Ok(())
        } else {
            Err(Error::text(Code::E_NOT_RUNNING, NOT_RUNNING))
        };
    }
    let init = init.ok_or_else(|| Error::text(Code::E_NOT_RUNNING, NOT_RUNNING))?;
    send(init.as_fd(), signal)?;
    if signal == libc::SIGKILL {
        // On v1 a frozen process does not die of it before it is thawed.
        thaw(container)?;
    }
    Ok(())
}

fn send(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    match sys::process::pidfd_send_signal(pidfd, signal) {
        Err(error) if error.errno == libc::ESRCH => {
            Err(Error::text(Code::E_NOT_RUNNING, NOT_RUNNING))
        }
        result => Ok(result?),
    }
}
