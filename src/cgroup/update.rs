//! Changing the limits of a container that is there: all of a change, or nothing.
//!
//! Before each write the file's present value is read, so that a refusal by the kernel can be taken
//! back up to the first write. Device rules come last, as one step on v2.

use std::os::fd::{AsFd, OwnedFd};

use oci_spec::runtime::LinuxResources;

use super::apply;
use super::bpf;
use super::devices::{self, DeviceRule};
use super::dir::{self, Dir};
use super::group::Group;
use super::layout::{Layout, Side};
use super::plan::{Options, Write};
use super::resources::{self, is_idle, is_weight};
use crate::error::{At, Code, Error, Findings, Result};
use crate::sys::{self, bpf as sys_bpf};

const DEVICES: &str = "/linux/resources/devices";

/// A planned change.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// In order, as far as order can be known without the present values.
    pub writes: Vec<Write>,
    /// The same for systemd, whose share of CPU time is quota and period together.
    pub unit_writes: Vec<Write>,
    /// What is to be written once more when systemd has been told: the limits until now, and from now on.
    pub exact: (Vec<Write>, Vec<Write>),
    /// `memory.checkBeforeUpdate` on v2, as [`super::Placement::memory_at_most`].
    pub memory_at_most: Option<(u64, &'static str)>,
    /// v1 device rules, which cannot be read back: the writes, and those that take them back.
    pub v1_devices: Option<(Vec<Write>, Vec<Write>)>,
    /// Device rules, for v2 and for systemd: the present and the new ones.
    pub devices: Option<(Vec<DeviceRule>, Vec<DeviceRule>)>,
}

/// Plans the change from the resources a container has to `merged`, where `asked` is what the caller
/// gave: that is written even if it is not new, as somebody else may have changed the file.
pub fn plan(
    kept: &LinuxResources,
    asked: &LinuxResources,
    merged: &LinuxResources,
    options: &Options,
    layout: &Layout,
    findings: &mut Findings,
) -> Update {
    let silent = |config| resources::plan(config, layout, &mut Findings::default()).writes;
    let (before, given) = (silent(kept), silent(asked));
    let mut after = resources::plan(merged, layout, findings);
    let mut update = Update { memory_at_most: after.memory_at_most, ..Update::default() };
    let changes = |write: &Write| {
        given.iter().any(|given| given.file == write.file) || !before.contains(write)
    };
    let share = |write: &Write| write.file.starts_with("cpu.cfs_");
    let new_share = after.writes.iter().any(|write| share(write) && changes(write));
    let wakes = after.writes.iter().any(|write| is_idle(write, "0") && changes(write));
    if wakes && before.iter().any(|write| is_idle(write, "1")) {
        add_default_weight(&mut after.writes, layout);
    }
    // The kernel gives a cgroup that is no longer idle the default weight, whatever it had.
    let changes = |write: &Write| changes(write) || (wakes && is_weight(write));
    update.unit_writes = after.writes.clone();
    update.unit_writes.retain(|write| changes(write) || (new_share && share(write)));
    update.exact = (exact(&before, &update.unit_writes), exact(&after.writes, &update.unit_writes));
    update.writes = after.writes;
    update.writes.retain(changes);
    if !update.writes.iter().any(|write| write.file == "memory.max") {
        update.memory_at_most = None;
    }
    if asked.devices().as_ref().is_some_and(|rules| !rules.is_empty()) {
        plan_devices(kept, merged, options, layout, findings, &mut update);
    }
    update
}

/// Limits that systemd writes otherwise than the configuration has them, whenever it is told of one of the same
/// controller: rounded, on another scale, or as it knows nothing of them, with the default.
const ROUNDED: [&str; 15] = [
    "cpu.weight",
    "cpu.shares",
    "cpu.max",
    "cpu.cfs_quota_us",
    "cpu.cfs_period_us",
    "memory.min",
    "memory.low",
    "memory.high",
    "memory.max",
    "memory.swap.max",
    "memory.zswap.max",
    "memory.oom.group",
    "pids.max",
    "io.weight",
    "io.bfq.weight",
];

/// Those of the controllers that these changes are of, and the changes. Lines of single devices, which may be
/// gone, systemd writes as they are.
fn exact(writes: &[Write], changes: &[Write]) -> Vec<Write> {
    let all = writes.iter().filter(|write| {
        let touched = changes.iter().any(|change| change.controller == write.controller);
        let rounded = ROUNDED.contains(&write.file.as_str()) && !write.value.contains(':');
        touched && rounded || changes.contains(write)
    });
    all.cloned().collect()
}

/// For systemd, which keeps what it was told of an idle cgroup.
fn add_default_weight(writes: &mut Vec<Write>, layout: &Layout) {
    if !writes.iter().any(is_weight) {
        let v2 = layout.side("cpu") == Some(Side::V2);
        let (file, value) = if v2 { ("cpu.weight", "100") } else { ("cpu.shares", "1024") };
        writes.push(Write::new("cpu", file, value, "/linux/resources/cpu/idle"));
    }
}

/// Engines send the whole of their resources back, device rules included (containerd's CRI does), so
/// only rules that differ are a wish: others may have let more devices in meanwhile.
fn plan_devices(
    kept: &LinuxResources,
    merged: &LinuxResources,
    options: &Options,
    layout: &Layout,
    findings: &mut Findings,
    update: &mut Update,
) {
    let list = |config: &LinuxResources, findings: &mut Findings| {
        let rules = config.devices().as_deref().unwrap_or_default();
        devices::rules(rules, options, findings)
    };
    let before = list(kept, &mut Findings::default());
    let after = list(merged, findings);
    if before.iter().map(|(rule, _)| rule).eq(after.iter().map(|(rule, _)| rule)) {
        return;
    }
    if options.rootless {
        findings.warn(
            Code::W_NOT_APPLIED,
            DEVICES,
            "not applied: it takes CAP_SYS_ADMIN over the host",
        );
        return;
    }
    if layout.side("devices") == Some(Side::V1) {
        match (devices::v1_writes(&before), devices::v1_writes(&after)) {
            (Ok(before), Ok(after)) => {
                update.v1_devices = Some((v1_steps(&before, &after), v1_steps(&after, &before)));
            }
            (Err(at), _) | (_, Err(at)) => {
                findings.problem(Code::E_DEVICE_RULE, at, devices::V1_CANNOT);
            }
        }
    }
    let bare = |rules: Vec<(DeviceRule, At)>| rules.into_iter().map(|(rule, _)| rule).collect();
    update.devices = Some((bare(before), bare(after)));
}

/// From one set of v1 exceptions to another, by as little as possible: in between, a device that is
/// in both must not be lost. Exceptions go before others come, for a changed access is both.
fn v1_steps(before: &[Write], after: &[Write]) -> Vec<Write> {
    let reset = |writes: &[Write]| writes.first().map(|write| write.file.clone());
    if reset(before) != reset(after) {
        return after.to_vec();
    }
    let opposite =
        |file: &str| if file == "devices.allow" { "devices.deny" } else { "devices.allow" };
    let gone = before.iter().filter(|write| !has(after, write)).map(|write| Write {
        file: opposite(&write.file).to_owned(),
        at: DEVICES.to_owned(),
        ..write.clone()
    });
    gone.chain(after.iter().filter(|write| !has(before, write)).cloned()).collect()
}

fn has(writes: &[Write], write: &Write) -> bool {
    writes.iter().any(|other| other.file == write.file && other.value == write.value)
}

/// A file and what it had before.
struct Undo<'a> {
    dir: &'a Dir,
    file: String,
    value: String,
}

/// Does the whole update, or none of it.
pub(super) fn update(group: &mut Group, update: &Update) -> Result<()> {
    group.read_controllers()?;
    apply::check_memory(&group.dirs, update.memory_at_most)?;
    let mut undo = Vec::new();
    let writes: Vec<&Write> = update.writes.iter().collect();
    let done = apply::in_order(&group.dirs, writes, &mut |dir, file, value| {
        if file == "cpu.idle" && present(dir, file, value)?.as_deref() == Some("0") {
            // Lost when idling ends, that is when it is taken back, too. Of an idle cgroup none can be read.
            let weight = if dir.place.is_v2() { "cpu.weight" } else { "cpu.shares" };
            undo.extend(Undo::of(dir, weight, value)?);
        }
        undo.extend(Undo::of(dir, file, value)?);
        Ok(())
    });
    let done = done.and_then(|()| change_unit(group, update));
    let done = done.and_then(|()| change_devices(group, update));
    done.map_err(|error| {
        // Of several values of a file the last one counts: the one that was read first.
        let old: Vec<Write> =
            undo.iter().rev().map(|undo| Write::new("", &undo.file, &undo.value, "")).collect();
        let rules = update.devices.as_ref().map(|(before, _)| before.as_slice());
        let told = tell_unit(group, (&old, rules), &update.exact.0);
        let mut left: Vec<String> = told.err().map(|error| error.to_string()).into_iter().collect();
        // Last, for that is what was there, by whomever.
        left.extend(undo.iter().rev().filter_map(|undo| undo.take_back().err()));
        if left.is_empty() {
            return error;
        }
        error.and(format_args!("taking back: {}", left.join("; ")))
    })
}

impl<'a> Undo<'a> {
    /// What is there before `value` is written; `None` where nothing can be read.
    fn of(dir: &'a Dir, file: &str, value: &str) -> Result<Option<Self>> {
        let value = present(dir, file, value)?;
        Ok(value.map(|value| Self { dir, file: file.to_owned(), value }))
    }

    fn take_back(&self) -> std::result::Result<(), String> {
        sys::cstr("write", &self.file)
            .and_then(|file| dir::write(self.dir, &file, &self.value))
            .map_err(|error| error.to_string())
    }
}

/// What brings a file back to its present state after `value` has been written to it; `None` where
/// nothing can be read.
fn present(dir: &Dir, file: &str, value: &str) -> Result<Option<String>> {
    let text = match dir::read(dir, &sys::cstr("read", file)?) {
        Ok(text) => text,
        // A file that can only be written, such as a trigger.
        Err(error) if matches!(error.errno, libc::EACCES | libc::EINVAL) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    Ok(Some(taking_back(file, &text, value)))
}

/// The value that undoes a write, given what the file said before.
pub(super) fn taking_back(file: &str, text: &str, value: &str) -> String {
    let first = |line: &str| line.split_ascii_whitespace().next().unwrap_or_default().to_owned();
    if file == "memory.oom_control" {
        return dir::field(text, "oom_kill_disable").unwrap_or(0).to_string();
    }
    let key = first(value);
    let keyed = key.contains(':') || matches!(file, "rdma.max" | "misc.max" | "net_prio.ifpriomap");
    if keyed {
        // One line for each device; a device without one has no limit.
        if let Some(line) = text.lines().find(|line| first(line) == key) {
            return line.to_owned();
        }
        let none = match file {
            "io.max" => "rbps=max wbps=max riops=max wiops=max",
            "io.latency" => "target=0",
            "rdma.max" => "hca_handle=max hca_object=max",
            "io.weight" | "io.bfq.weight" | "blkio.bfq.weight_device" => "default",
            _ => "0",
        };
        return format!("{key} {none}");
    }
    let line = text.lines().find(|line| first(line) == "default").or(text.lines().next());
    match line {
        // An empty write changes nothing; a newline empties.
        None | Some("") => "\n".to_owned(),
        Some(line) => line.to_owned(),
    }
}

/// systemd is told when the kernel has taken the limits.
fn change_unit(group: &Group, update: &Update) -> Result<()> {
    let rules = update.devices.as_ref().map(|(_, after)| after.as_slice());
    tell_unit(group, (&update.unit_writes, rules), &update.exact.1)
}

/// Tells systemd if there is something to tell, and writes once more what it has written otherwise.
fn tell_unit(
    group: &Group,
    (writes, rules): (&[Write], Option<&[DeviceRule]>),
    exact: &[Write],
) -> Result<()> {
    if !group.has_unit() || (writes.is_empty() && rules.is_none()) {
        return Ok(());
    }
    group.update_unit(writes, rules)?;
    apply::in_order(&group.dirs, exact.iter().collect(), &mut |_, _, _| Ok(()))
}

fn change_devices(group: &Group, update: &Update) -> Result<()> {
    if let Some((change, back)) = &update.v1_devices {
        let run = |writes: &[Write]| {
            apply::in_order(&group.dirs, writes.iter().collect(), &mut |_, _, _| Ok(()))
        };
        return run(change).map_err(|error| match run(back) {
            Ok(()) => error,
            Err(left) => error.and(format_args!("taking back: {left}")),
        });
    }
    let (Some((before, after)), Some(dir)) = (&update.devices, group.v2()) else { return Ok(()) };
    replace_program(dir, before, after).map_err(|error| match error {
        Error::Sys { error, .. } => Error::at(Code::E_CGROUP, DEVICES)(error),
        other => other,
    })
}

/// Puts the new program in the place of the container's old one, in one step, so that there is no
/// moment without rules. systemd may have attached programs of its own: ours is known by its tag, a
/// digest of its instructions.
fn replace_program(dir: &Dir, before: &[DeviceRule], after: &[DeviceRule]) -> Result<()> {
    let new = sys_bpf::load_device_program(&bpf::program(after))?;
    let mut attached = Vec::new();
    for id in sys_bpf::device_programs(dir.as_fd())? {
        attached.push(sys_bpf::program_by_id(id)?);
    }
    let old = sys_bpf::load_device_program(&bpf::program(before))?;
    let tag = sys_bpf::program_tag(old.as_fd())?;
    let mut ours = None;
    for program in &attached {
        if sys_bpf::program_tag(program.as_fd())? == tag {
            ours = Some(program);
        }
    }
    let replaced: Option<&OwnedFd> = match (ours, attached.as_slice()) {
        (None, [only]) => Some(only),
        (None, [_, _, ..]) => {
            let text = "several device programs are attached, and none is the container's own";
            return Err(Error::text(Code::E_CGROUP, format!("{DEVICES}: {text}")));
        }
        (ours, _) => ours,
    };
    Ok(sys_bpf::attach_device_program(dir.as_fd(), new.as_fd(), replaced.map(AsFd::as_fd))?)
}
