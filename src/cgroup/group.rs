//! A container's cgroups, open.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use super::devices::DeviceRule;
use super::dir::{self, Dir, Made, Mounts};
use super::layout::Layout;
use super::plan::{Manager, Placement, Write};
use super::record::{Place, Record};
use super::{apply, bpf, freeze, kill, layout, remove, systemd, update, v1, v2, walk};
use crate::error::{Code, Error, Result};
use crate::sys::{self, bpf as sys_bpf, fs};

/// A container's directory in each hierarchy, held open. Empty with [`Manager::Disabled`].
#[derive(Debug)]
pub struct Group {
    /// What is known of it: where it is expected, until the directories are open.
    record: Record,
    pub(super) dirs: Vec<Dir>,
    pub(super) made: Vec<Made>,
}

impl Group {
    /// Makes the cgroups of a placement: directories, controllers, cpusets, limits, device rules.
    ///
    /// A leaf that is already there is taken over if it has no process and is not frozen. On failure
    /// everything made here is removed again, and nothing else is touched. With [`Manager::Systemd`]
    /// nothing is done yet: see [`Group::enter_unit`].
    ///
    /// # Errors
    /// Names the file, the value and the JSON pointer of a write that was refused.
    pub fn create(placement: &Placement, layout: &Layout) -> Result<Self> {
        let record = placement.record(layout);
        let mut group = Self { record, dirs: Vec::new(), made: Vec::new() };
        if placement.unit.is_some() {
            return Ok(group);
        }
        match group.build(placement, layout) {
            Ok(()) => Ok(group),
            Err(error) => match group.unmake() {
                Ok(()) => Err(error),
                Err(left) => Err(error.and(left)),
            },
        }
    }

    /// One directory as a group, to be killed on its own.
    pub(super) fn of(dir: Dir) -> Self {
        let record = Record {
            manager: Manager::Cgroupfs,
            owned: true,
            places: vec![dir.place.clone()],
            unit: None,
        };
        Self { record, dirs: vec![dir], made: Vec::new() }
    }

    fn build(&mut self, placement: &Placement, layout: &Layout) -> Result<()> {
        for place in self.record.places.clone() {
            let own = layout.v2.as_ref().map(|v2| v2.self_path.as_str());
            if let (true, true, Some(own)) = (placement.optional, place.is_v2(), own) {
                if !v2::may_enter(&place, own)? {
                    continue;
                }
            }
            match dir::make(&place, &mut self.made) {
                Ok(dir) => self.dirs.push(dir),
                Err(error) if placement.optional && is_refusal(&error) => {}
                Err(error) => {
                    let text = format!("/linux/cgroupsPath: {error}");
                    return Err(Error::text(Code::E_CGROUP, text));
                }
            }
        }
        for dir in &self.dirs {
            if dir.fresh { check_thawed(dir)? } else { check_unused(dir)? }
        }
        for dir in &mut self.dirs {
            if let (true, Some(layout)) = (dir.place.is_v2(), &layout.v2) {
                v2::enable_controllers(dir, &layout.controllers, &placement.writes)?;
            }
            if dir.place.has("cpuset") {
                v1::fill_cpuset(dir)?;
            }
        }
        self.limit(placement)?;
        self.record.owned = true;
        Ok(())
    }

    /// Limits and device rules.
    pub(super) fn limit(&self, placement: &Placement) -> Result<()> {
        apply::apply(&self.dirs, placement, false)?;
        if let (Some(rules), Some(dir)) = (&placement.devices, self.v2()) {
            attach_devices(dir, &bpf::program(rules))
                .map_err(Error::at(Code::E_DEVICE_RULE, "/linux/resources/devices"))?;
        }
        Ok(())
    }

    /// With [`Manager::Systemd`]: starts the unit with this process in it, which must do nothing yet
    /// but wait, finds out where systemd has put it, and applies the limits. For other managers there
    /// is nothing to do. After a failure [`Group::record`] says what there is to remove.
    ///
    /// # Errors
    /// systemd's, and as [`Group::create`].
    pub fn enter_unit(&mut self, placement: &Placement, layout: &Layout, pid: i32) -> Result<()> {
        let Some(planned) = &placement.unit else { return Ok(()) };
        let owned = &mut self.record.owned;
        systemd::start(&planned.unit, &planned.properties, pid, systemd::START, owned)?;
        let entered = systemd::enter(self, placement, layout, pid);
        entered.map_err(|error| match self.unmake() {
            Ok(()) => error,
            Err(left) => error.and(left),
        })
    }

    /// Makes a user of the host its owner, so that the container's processes can make cgroups below:
    /// on pure v2 hosts only. Without rights to do so (`optional`) it stays as it is.
    ///
    /// # Errors
    /// Names the file.
    pub fn give_to(&self, uid: u32, optional: bool) -> Result<()> {
        let [dir] = self.dirs.as_slice() else { return Ok(()) };
        if !dir.place.is_v2() {
            return Ok(());
        }
        match v2::give_to(dir, uid) {
            Err(error) if optional && error.errno == libc::EPERM => Ok(()),
            result => result.map_err(Error::at(Code::E_CGROUP, dir.place.dir())),
        }
    }

    /// Does the writes that would have hindered clone3, after it and before Go.
    ///
    /// # Errors
    /// As [`Group::create`].
    pub fn apply_late(&self, placement: &Placement) -> Result<()> {
        apply::apply(&self.dirs, placement, true)
    }

    /// Changes limits and device rules, all as planned or none.
    ///
    /// # Errors
    /// As [`Group::create`]; what could not be taken back is added.
    pub fn update(&mut self, planned: &update::Update) -> Result<()> {
        update::update(self, planned)
    }

    /// Fills in which controllers an opened v2 cgroup has.
    pub(super) fn read_controllers(&mut self) -> Result<()> {
        for dir in self.dirs.iter_mut().filter(|dir| dir.place.is_v2()) {
            let text = dir::read(&*dir, c"cgroup.controllers")
                .map_err(Error::at(Code::E_CGROUP, dir.place.dir()))?;
            dir.controllers = text.split_ascii_whitespace().map(str::to_owned).collect();
        }
        Ok(())
    }

    /// Whether systemd has a unit of it.
    pub(super) fn has_unit(&self) -> bool {
        self.record.unit.is_some()
    }

    /// Tells systemd of limits that have changed, and of device rules if those have, so that it does
    /// not put the old ones back. For other managers there is nothing to do.
    ///
    /// # Errors
    /// When systemd refuses, or does not answer; then nothing has changed.
    pub(super) fn update_unit(
        &self,
        writes: &[Write],
        devices: Option<&[DeviceRule]>,
    ) -> Result<()> {
        let Some(unit) = &self.record.unit else { return Ok(()) };
        systemd::set_properties(unit, &systemd::changes(writes, devices), systemd::START)
    }

    /// What the state keeps: the directories that are there, or those that are expected.
    #[must_use]
    pub fn record(&self) -> Record {
        if !self.record.owned {
            return self.record.clone();
        }
        let places = self.dirs.iter().map(|dir| dir.place.clone()).collect();
        Record { places, ..self.record.clone() }
    }

    /// Opens the cgroups of a container; `None` when none of them is left.
    ///
    /// # Errors
    /// When a hierarchy is no longer mounted where it was, or cannot be opened.
    pub fn open(record: &Record) -> Result<Option<Self>> {
        Self::open_in(record, &mut Mounts::default())
    }

    /// The same with mount points that have been opened before.
    ///
    /// # Errors
    /// As [`Group::open`].
    pub fn open_in(record: &Record, mounts: &mut Mounts) -> Result<Option<Self>> {
        Self::open_some(record, mounts, |_| true)
    }

    /// Opens only what [`Group::frozen`] and [`Group::freeze`] need: `state` is asked for often.
    ///
    /// # Errors
    /// As [`Group::open`].
    pub fn open_freezer(record: &Record, mounts: &mut Mounts) -> Result<Option<Self>> {
        let v1 = record.places.iter().any(|place| place.has("freezer"));
        Self::open_some(
            record,
            mounts,
            |place| if v1 { place.has("freezer") } else { place.is_v2() },
        )
    }

    pub(super) fn open_some(
        record: &Record,
        mounts: &mut Mounts,
        which: impl Fn(&Place) -> bool,
    ) -> Result<Option<Self>> {
        let mut dirs = Vec::new();
        for place in record.places.iter().filter(|place| which(place)) {
            dirs.extend(dir::open(place, mounts)?);
        }
        let group = Self { record: record.clone(), dirs, made: Vec::new() };
        Ok((!group.dirs.is_empty()).then_some(group))
    }

    /// The directories as host paths.
    pub fn dirs(&self) -> impl Iterator<Item = String> {
        self.dirs.iter().map(|dir| dir.place.dir())
    }

    pub(super) fn v2(&self) -> Option<&Dir> {
        self.dirs.iter().find(|dir| dir.place.is_v2())
    }

    /// The v2 directory (of a pure or a hybrid host) for `CLONE_INTO_CGROUP`.
    #[must_use]
    pub fn clone_into(&self) -> Option<BorrowedFd<'_>> {
        self.v2().map(AsFd::as_fd)
    }

    /// The v2 directory a process of this container is in, at or below the container's own: where
    /// exec has to go when init has made sub-cgroups (`EBUSY` at the container's own).
    ///
    /// # Errors
    /// When the process is gone, or not in this container's cgroup.
    pub fn v2_dir_of(&self, pid: i32) -> Result<OwnedFd> {
        let path = sys::cstr("open", format!("/proc/{pid}/cgroup"))?;
        let text = dir::read(fs::CWD, &path)?;
        let elsewhere = || {
            Error::text(Code::E_CGROUP, format!("process {pid} is not in its container's cgroup"))
        };
        let (Some(dir), Some(now)) = (self.v2(), layout::v2_path(&text)) else {
            return Err(elsewhere());
        };
        // The mount may show a part of what /proc names, so our path is looked for at the end of it.
        let own = format!("/{}/", dir.place.path);
        let now = format!("{}/", now.trim_end());
        let at = now.find(&own).ok_or_else(elsewhere)?;
        let below = now.get(at + own.len()..).unwrap_or_default().trim_end_matches('/');
        let below = if below.is_empty() { "." } else { below };
        Ok(dir::open_below(dir.as_fd(), below, libc::O_RDONLY)?)
    }

    /// Whether a user's own systemd has made it.
    #[must_use]
    pub fn is_of_user_unit(&self) -> bool {
        self.record.unit.as_ref().is_some_and(|unit| unit.user)
    }

    /// Has systemd move a process here, which the kernel lets nobody do who has no rights over a cgroup above
    /// both places (cgroups(7), delegation containment).
    ///
    /// # Errors
    /// systemd's, or when the process is not here after that.
    pub fn adopt(&self, pid: i32) -> Result<()> {
        if let Some(unit) = &self.record.unit {
            systemd::attach(unit, pid, systemd::START)?;
        }
        self.v2_dir_of(pid).map(drop)
    }

    /// Makes the v2 cgroup threaded, as a child of a threaded parent has to be (clone3 says
    /// `EOPNOTSUPP` into its `domain invalid` state). For another type it is refused with the reason.
    ///
    /// # Errors
    /// When it is of another type, or refuses.
    pub fn make_threaded(&self) -> Result<()> {
        let Some(dir) = self.v2() else { return Ok(()) };
        let kind = dir::read(dir, c"cgroup.type")?;
        if kind.trim() != "domain invalid" {
            let text = format!("{}: no process may enter: type {}", dir.place.dir(), kind.trim());
            return Err(Error::text(Code::E_CGROUP, text));
        }
        Ok(dir::write(dir, c"cgroup.type", "threaded")?)
    }

    /// The `tasks` file of each v1 hierarchy, write-only, for the child to write `0` to. Empty on v2.
    ///
    /// # Errors
    /// When one cannot be opened.
    pub fn tasks(&self) -> Result<Vec<OwnedFd>> {
        let v1 = self.dirs.iter().filter(|dir| !dir.place.is_v2());
        v1.map(|dir| {
            fs::openat(dir.as_fd(), c"tasks", libc::O_WRONLY, 0)
                .map_err(|error| Error::from(error.about(format!("{}/tasks", dir.place.dir()))))
        })
        .collect()
    }

    /// Every process in any of the cgroups or below, sorted.
    ///
    /// # Errors
    /// When a list cannot be read.
    pub fn pids(&self) -> Result<Vec<i32>> {
        let mut pids = BTreeSet::new();
        for dir in &self.dirs {
            walk::pids(dir.as_fd(), &mut pids)
                .map_err(|error| Error::at(Code::E_CGROUP, dir.place.dir())(error))?;
        }
        Ok(pids.into_iter().collect())
    }

    /// Whether any process is in the cgroups or below.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn populated(&self) -> Result<bool> {
        for dir in &self.dirs {
            if is_populated(dir)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Sends a signal to every process in the cgroups and below. `SIGKILL` leaves no fork behind and
    /// works on a paused container: by `cgroup.kill` (Linux 5.14), on v1 by freezing, killing and
    /// thawing until nobody is left or `deadline` has passed. Other signals reach each process once.
    ///
    /// # Errors
    /// When processes cannot be listed or signalled. Whether all have died is not told: see
    /// [`remove()`](super::remove()).
    pub fn kill(&self, signal: i32, deadline: Duration) -> Result<()> {
        if signal == libc::SIGKILL {
            return kill::all(self, deadline);
        }
        kill::each(self, signal, &mut BTreeSet::new()).map(drop)
    }

    /// Whether every process is stopped by the freezer, by us or by somebody else.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn frozen(&self) -> Result<bool> {
        freeze::frozen(&self.dirs)
    }

    /// Whether the processes are stopped, or being stopped, by the freezer.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn is_stopped(&self) -> Result<bool> {
        match freeze::freezer(&self.dirs) {
            Some((dir, _)) => freeze::is_stopped(dir),
            None => Ok(false),
        }
    }

    /// Freezes or thaws, and returns when it is so. A freeze that fails is thawed again.
    ///
    /// # Errors
    /// When the state is not reached within `deadline`.
    pub fn freeze(&self, on: bool, deadline: Duration) -> Result<()> {
        freeze::freeze(&self.dirs, on, deadline)
    }

    /// How many processes the OOM killer has killed here and below; `None` without that counter.
    #[must_use]
    pub fn oom_kills(&self) -> Option<u64> {
        let v1 = self.dirs.iter().find(|dir| dir.place.has("memory"));
        let text = match v1 {
            Some(dir) => dir::read(dir, c"memory.oom_control").ok()?,
            None => dir::read(self.v2()?, c"memory.events").ok()?,
        };
        dir::field(&text, "oom_kill")
    }

    /// Takes everything back, parents that were made included: for a create that fails later on.
    /// Processes in it are killed.
    ///
    /// # Errors
    /// As [`remove()`](super::remove()).
    pub fn undo(mut self, deadline: Duration) -> Result<()> {
        let record = self.record();
        self.dirs.clear();
        let removed = remove::remove(&record, true, deadline);
        // What has the name of a leaf by now is not ours.
        self.made.retain(|made| !made.leaf);
        // Also after a failure: a hierarchy may be free of it.
        match (removed, self.unmake()) {
            (Err(error), Err(left)) => Err(error.and(left)),
            (removed, unmade) => removed.and(unmade),
        }
    }

    /// Removes what was made, newest first. Parents that others use by now stay.
    fn unmake(&mut self) -> Result<()> {
        let mut failed = Ok(());
        while let Some(made) = self.made.pop() {
            match fs::unlinkat(made.parent.as_fd(), &made.name, libc::AT_REMOVEDIR) {
                Err(error) if !matches!(error.errno, libc::ENOENT | libc::ENODEV | libc::EBUSY) => {
                    failed = Err(Error::from(error));
                }
                _ => {}
            }
        }
        failed
    }
}

/// What a caller without rights gets for a directory that was not delegated.
pub(super) fn is_refusal(error: &Error) -> bool {
    matches!(error.errno(), Some(libc::EACCES | libc::EPERM | libc::EROFS))
}

/// A cgroup somebody lives in is not ours to limit, and kill later; a frozen one stops our child.
pub(super) fn check_unused(dir: &Dir) -> Result<()> {
    if is_populated(dir)? {
        return Err(refused(dir, "already has processes"));
    }
    if freeze::is_stopped(dir)? {
        return Err(refused(dir, "is frozen"));
    }
    Ok(())
}

/// A new cgroup is frozen when one above it is. Right below the mount point it cannot be, and nothing is read.
fn check_thawed(dir: &Dir) -> Result<()> {
    if dir.place.path.contains('/') && freeze::frozen(std::slice::from_ref(dir))? {
        return Err(refused(dir, FROZEN_ABOVE));
    }
    Ok(())
}

pub(super) const FROZEN_ABOVE: &str = "would be frozen, as a cgroup above it is frozen";

/// Why a cgroup cannot be a container's.
pub(super) fn refused(dir: &Dir, why: &str) -> Error {
    let text = format!("/linux/cgroupsPath: {} {why}", dir.place.dir());
    Error::text(Code::E_CGROUP_IN_USE, text)
}

fn is_populated(dir: &Dir) -> Result<bool> {
    let named = |error: sys::Error| Error::at(Code::E_CGROUP, dir.place.dir())(error);
    if dir.place.is_v2() {
        return match dir::read(dir, c"cgroup.events") {
            Ok(text) => Ok(dir::field(&text, "populated") == Some(1)),
            Err(error) if dir::is_gone(&error) => Ok(false),
            Err(error) => Err(named(error)),
        };
    }
    let mut pids = BTreeSet::new();
    walk::pids(dir.as_fd(), &mut pids).map_err(named)?;
    Ok(!pids.is_empty())
}

fn attach_devices(dir: &Dir, program: &[u64]) -> sys::Result<()> {
    let program = sys_bpf::load_device_program(program)?;
    sys_bpf::attach_device_program(dir.as_fd(), program.as_fd(), None)
}
