//! `linux.resources.memory`.

use oci_spec::runtime::LinuxMemory;

use super::super::layout::Side;
use super::super::plan::Write;
use super::{Planner, or_max};
use crate::error::Code;

const AT: &str = "/linux/resources/memory";
const LIMIT: &str = "/linux/resources/memory/limit";
const RESERVATION: &str = "/linux/resources/memory/reservation";
const SWAP: &str = "/linux/resources/memory/swap";
const KERNEL: &str = "/linux/resources/memory/kernel";
const KERNEL_TCP: &str = "/linux/resources/memory/kernelTCP";
const SWAPPINESS: &str = "/linux/resources/memory/swappiness";
const OOM: &str = "/linux/resources/memory/disableOOMKiller";
const HIERARCHY: &str = "/linux/resources/memory/useHierarchy";

impl Planner<'_> {
    pub(super) fn memory(&mut self, memory: &LinuxMemory) {
        #[allow(deprecated, reason = "to say that it is not applied")]
        if memory.kernel().is_some_and(|limit| limit != 0) {
            self.findings.warn(
                Code::W_NOT_APPLIED,
                KERNEL,
                "not applied: no kernel has had it since Linux 5.16",
            );
        }
        if memory.use_hierarchy() == Some(false) {
            self.findings.warn(
                Code::W_NOT_APPLIED,
                HIERARCHY,
                "not applied: always on since Linux 5.11",
            );
        }
        let limit = self.size(memory.limit(), LIMIT);
        let reservation = self.size(memory.reservation(), RESERVATION);
        let swap = self.size(memory.swap(), SWAP);
        let kernel_tcp = self.size(memory.kernel_tcp(), KERNEL_TCP);
        let oom = memory.disable_oom_killer() == Some(true);
        let sizes = [limit, reservation, swap, kernel_tcp];
        if sizes.iter().all(Option::is_none) && memory.swappiness().is_none() && !oom {
            return;
        }
        let Some(side) = self.side("memory", AT) else { return };
        match side {
            Side::V1 => self.memory_v1(limit, reservation, swap),
            Side::V2 => self.memory_v2(limit, reservation, swap),
        }
        if let Some(value) = kernel_tcp {
            self.memory_v1_only(side, "memory.kmem.tcp.limit_in_bytes", value, KERNEL_TCP);
        }
        if let Some(value) = memory.swappiness() {
            if value > 100 {
                self.findings.problem(
                    Code::E_CGROUP_VALUE,
                    SWAPPINESS,
                    format!("{value} is not from 0 to 100"),
                );
            }
            self.memory_v1_only(side, "memory.swappiness", value, SWAPPINESS);
        }
        if oom {
            self.memory_v1_only(side, "memory.oom_control", 1, OOM);
        }
        if let (Side::V2, Some(true), Some(limit)) = (side, memory.check_before_update(), limit) {
            // v1 refuses by itself to go below what is in use (EBUSY); v2 would kill.
            self.planned.memory_at_most = u64::try_from(limit).ok().map(|limit| (limit, LIMIT));
        }
    }

    /// Bytes; -1 for no limit; 0 as if absent.
    fn size(&mut self, value: Option<i64>, at: &str) -> Option<i64> {
        let value = value.filter(|value| *value != 0)?;
        if value < -1 {
            self.findings.problem(
                Code::E_CGROUP_VALUE,
                at,
                format!("{value} is neither a size nor -1"),
            );
        }
        Some(value)
    }

    /// A fresh cgroup has no limits, so what must be the lower one is set first.
    fn memory_v1(&mut self, limit: Option<i64>, reservation: Option<i64>, swap: Option<i64>) {
        self.check_swap(limit, swap);
        for (value, file, at) in [
            (limit, "memory.limit_in_bytes", LIMIT),
            (swap, "memory.memsw.limit_in_bytes", SWAP),
            (reservation, "memory.soft_limit_in_bytes", RESERVATION),
        ] {
            if let Some(value) = value {
                let mut write = Write::new("memory", file, value, at);
                // Without swap accounting there is no memsw file, and nothing to lift.
                write.absent_ok = at == SWAP && value == -1;
                self.put(write);
            }
        }
    }

    /// The config's swap is memory+swap, v2's is swap alone.
    fn memory_v2(&mut self, limit: Option<i64>, reservation: Option<i64>, swap: Option<i64>) {
        self.check_swap(limit, swap);
        if let Some(limit) = limit {
            self.put(Write::new("memory", "memory.max", or_max(limit), LIMIT));
        }
        if let Some(swap) = swap {
            let only =
                if swap < 0 { -1 } else { swap.saturating_sub(limit.unwrap_or_default()).max(0) };
            let mut write = Write::new("memory", "memory.swap.max", or_max(only), SWAP);
            // Without swap accounting there is no such file, hence no swap to forbid or to allow.
            write.absent_ok = only <= 0;
            self.put(write);
        }
        if let Some(reservation) = reservation {
            self.put(Write::new("memory", "memory.low", or_max(reservation), RESERVATION));
        }
    }

    fn check_swap(&mut self, limit: Option<i64>, swap: Option<i64>) {
        match (limit, swap) {
            (None | Some(-1), Some(1..)) => {
                self.findings.problem(
                    Code::E_CGROUP_VALUE,
                    SWAP,
                    "a limit of memory and swap needs a limit of memory",
                );
            }
            (Some(limit), Some(swap @ 1..)) if swap < limit => {
                let text =
                    format!("memory and swap together, {swap}, is below the limit of memory");
                self.findings.problem(Code::E_CGROUP_VALUE, SWAP, text);
            }
            _ => {}
        }
    }

    fn memory_v1_only(&mut self, side: Side, file: &str, value: impl std::fmt::Display, at: &str) {
        if self.v1_only(side, at) {
            self.put(Write::new("memory", file, value, at));
        }
    }
}
