//! Taking away what runtimes that were killed have left, by their own records.
//!
//! Only two kinds of state are garbage: a create that did not finish and whose runtime is gone, and
//! whatever was made before the last boot. All others are some engine's containers, stopped or not.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use crate::container::{self, Container};
use crate::error::{Code, Error, Finding, Result};
use crate::state::{self, State};
use crate::{cgroup, delete, sys};

/// How old a directory without a record must be, in seconds: a create makes the one right after the
/// other, but may be stopped in between.
const YOUNG: i64 = 60;

const UNFINISHED: &str = "create did not finish";

/// What was found, and what became of it.
#[derive(Debug, Default)]
pub struct Report {
    /// A line for each thing: removed (or to be removed), and left because it is somebody else's.
    pub lines: Vec<String>,
    /// What could not be removed.
    pub failures: Vec<Error>,
    /// Failures of hooks.
    pub warnings: Vec<Finding>,
}

/// Looks at every state of the root, and with `remove` takes the garbage away.
pub fn collect(root: &Path, remove: bool) -> Result<Report> {
    let mut report = Report::default();
    let Some(dir) = container::open_root(root)? else { return Ok(report) };
    for id in container::ids(dir.as_fd())? {
        if let Err(error) = one(dir.as_fd(), &id, remove, &mut report) {
            let text = format!("{id}: {error}");
            report.failures.push(Error::text(error.code(), text));
        }
    }
    Ok(report)
}

fn one(root: BorrowedFd<'_>, id: &str, remove: bool, report: &mut Report) -> Result<()> {
    let Some(dir) = container::open_dir_in(root, id)? else { return Ok(()) };
    // Who holds the lock is at work on it.
    let held = sys::fs::duplicate(dir.as_fd())?;
    let Some(_lock) = container::try_lock(held.as_fd())? else { return Ok(()) };
    let (state, why) = match load(dir.as_fd()) {
        // Whose it is and what belongs to it nobody knows.
        Err(error) if error.code() == Code::E_STATE_DAMAGED => {
            report.lines.push(format!("{id}: left, its record cannot be read"));
            return Ok(());
        }
        result => match result? {
            Some(found) => found,
            None => return unrecorded(root, id, dir.as_fd(), remove, report),
        },
    };
    let Some(why) = why else { return Ok(()) };
    let container = Container { dir, state };
    let others = others(&container.state)?;
    let what = contents(&container)?;
    if remove {
        report.warnings.extend(delete::remove(root, &container)?);
    }
    report.told(id, why, &what, remove);
    report.lines.extend(others.into_iter().map(|other| format!("{id}: left {other}")));
    Ok(())
}

impl Report {
    fn told(&mut self, id: &str, why: &str, what: &[String], removed: bool) {
        let done = if removed { "removed" } else { "would remove" };
        self.lines.push(format!("{id}: {done}, {why}: {}", what.join(", ")));
    }
}

/// The record, and why it is garbage. A creator that is found gone may have finished since the record was read,
/// without any lock; after that nobody changes it any more.
fn load(dir: BorrowedFd<'_>) -> Result<Option<(State, Option<&'static str>)>> {
    for last in [false, true] {
        let Some(state) = State::load(dir)? else { break };
        let why = garbage(&state)?;
        if last || why != Some(UNFINISHED) {
            return Ok(Some((state, why)));
        }
    }
    Ok(None)
}

/// Why a state is garbage; `None` where it is not.
fn garbage(state: &State) -> Result<Option<&'static str>> {
    if state.boot != state::boot_id()? {
        return Ok(Some("made before the last boot"));
    }
    let finished = !state.created.is_empty();
    if finished || container::open_process(state.creator, &state.boot)?.is_some() {
        return Ok(None);
    }
    Ok(Some(UNFINISHED))
}

/// A directory in which create had not written anything: it did nothing else then.
fn unrecorded(
    root: BorrowedFd<'_>,
    id: &str,
    dir: BorrowedFd<'_>,
    remove: bool,
    report: &mut Report,
) -> Result<()> {
    let stat = sys::fs::fstat(dir)?;
    if stat.st_nlink == 0 {
        // Its creator has taken everything back.
        return Ok(());
    }
    let (now, _) = sys::process::now();
    if !sys::fs::list(dir)?.iter().all(|name| name.as_c_str() == c".state.json") {
        report.lines.push(format!("{id}: left, its record cannot be read"));
        return Ok(());
    }
    if now - stat.st_mtime < YOUNG {
        report.lines.push(format!("{id}: left, perhaps just being made"));
        return Ok(());
    }
    if remove {
        container::remove_dir(root, id, dir)?;
    }
    report.told(id, "create did not begin", &["its state directory".to_owned()], remove);
    Ok(())
}

/// What there is of a container.
fn contents(container: &Container) -> Result<Vec<String>> {
    let mut what = Vec::new();
    if container.init()?.is_some() {
        what.push(format!("process {}", container.pid()));
    }
    if let Some(group) = container.cgroup()? {
        what.extend(group.dirs().map(|dir| format!("cgroup {dir}")));
    }
    what.push("its state directory".to_owned());
    Ok(what)
}

/// What has the name or the number of something recorded, and is something else.
fn others(state: &State) -> Result<Vec<String>> {
    let mut others = Vec::new();
    let this_boot = state.boot == state::boot_id()?;
    for place in &state.cgroup.places {
        if cgroup::is_another(place, this_boot)? {
            others.push(format!("cgroup {}, which is another one", place.dir()));
        }
    }
    if let Some(init) = state.init {
        let same = |(_, start)| this_boot && start == init.start;
        if state::process_stat(init.pid)?.is_some_and(|stat| !same(stat)) {
            others.push(format!("process {}, which is another one", init.pid));
        }
    }
    Ok(others)
}
