//! `linux.resources` as writes, one file per controller family. Pure.
//!
//! Each family asks for its controller's [`Side`] only when something is asked of it: a limit whose
//! controller this host lacks is a problem, never skipped. `0` means "not set" wherever runc says so
//! (engines write it), except for `pids.limit`, where the spec makes it a limit.

mod block_io;
mod cpu;
mod memory;
mod other;

use oci_spec::runtime::LinuxResources;

use super::layout::{Layout, Side};
use super::plan::Write;
use crate::error::{Code, Findings};

#[cfg(test)]
pub(super) use cpu::weight_of;

/// What came of planning.
#[derive(Debug, Default)]
pub(super) struct Planned {
    pub writes: Vec<Write>,
    pub memory_at_most: Option<(u64, &'static str)>,
}

/// Plans all resources but devices.
pub(super) fn plan(config: &LinuxResources, layout: &Layout, findings: &mut Findings) -> Planned {
    let mut planner = Planner { layout, findings, planned: Planned::default() };
    if let Some(memory) = config.memory() {
        planner.memory(memory);
    }
    if let Some(cpu) = config.cpu() {
        planner.cpu(cpu);
        planner.cpuset(cpu);
    }
    if let Some(pids) = config.pids() {
        planner.pids(pids.limit());
    }
    if let Some(block_io) = config.block_io() {
        planner.block_io(block_io);
    }
    planner.hugepages(config.hugepage_limits().as_deref().unwrap_or_default());
    if let Some(network) = config.network() {
        planner.network(network);
    }
    if let Some(rdma) = config.rdma() {
        planner.rdma(rdma);
    }
    if let Some(unified) = config.unified() {
        planner.unified(unified);
    }
    let mut planned = planner.planned;
    // An idle cgroup takes no weight (EINVAL), and one that becomes idle forgets its own.
    let idle = planned.writes.iter().rev().find(|write| write.file == "cpu.idle");
    if idle.is_some_and(|write| is_idle(write, "1")) {
        planned.writes.retain(|write| !is_weight(write));
    }
    planned
}

/// Whether this makes a cgroup idle (`1`), or ends that (`0`).
pub(super) fn is_idle(write: &Write, value: &str) -> bool {
    write.file == "cpu.idle" && write.value.trim() == value
}

/// Whether this is a share of CPU time relative to others.
pub(super) fn is_weight(write: &Write) -> bool {
    matches!(write.file.as_str(), "cpu.weight" | "cpu.weight.nice" | "cpu.shares")
}

struct Planner<'a> {
    layout: &'a Layout,
    findings: &'a mut Findings,
    planned: Planned,
}

impl Planner<'_> {
    /// Where a controller is; nowhere is a problem.
    fn side(&mut self, controller: &str, at: &str) -> Option<Side> {
        let side = self.layout.side(controller);
        if side.is_none() {
            let text = format!("the {controller} controller is not available on this host");
            self.findings.problem(Code::E_CGROUP_CONTROLLER, at, text);
        }
        side
    }

    /// Whether a setting only v1 knows can be made.
    fn v1_only(&mut self, side: Side, at: &str) -> bool {
        if side == Side::V2 {
            self.findings.problem(Code::E_CGROUP_V1_ONLY, at, "cgroup v2 has no such setting");
        }
        side == Side::V1
    }

    fn put(&mut self, write: Write) {
        self.planned.writes.push(write);
    }
}

/// A size as v2 writes it.
fn or_max(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}
