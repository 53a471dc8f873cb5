//! `linux.resources`: pids, hugepageLimits, network, rdma, unified.

use std::collections::HashMap;

use oci_spec::runtime::{LinuxHugepageLimit, LinuxNetwork, LinuxRdma};

use super::super::layout::Side;
use super::super::plan::Write;
use super::{Planner, or_max};
use crate::error::Code;

/// Files of the v2 core that move, kill or stop processes, or that the runtime itself sets.
const NO_RESOURCE: [&str; 6] = [
    "cgroup.procs",
    "cgroup.threads",
    "cgroup.kill",
    "cgroup.freeze",
    "cgroup.type",
    "cgroup.subtree_control",
];

/// Files where a write adds to what others have set, a later one of the same device and key counts.
const ADDING: [&str; 2] = ["io.max", "rdma.max"];

/// The device that a line of `io.weight` is about; empty for the default, and of files without devices.
fn device(line: &str) -> &str {
    line.split_ascii_whitespace().next().filter(|word| word.contains(':')).unwrap_or_default()
}

impl Planner<'_> {
    /// 0 is a limit like any other, unlike everywhere else.
    pub(super) fn pids(&mut self, limit: i64) {
        const AT: &str = "/linux/resources/pids/limit";
        if limit < -1 {
            self.findings.problem(
                Code::E_CGROUP_VALUE,
                AT,
                format!("{limit} is neither a number of processes nor -1"),
            );
        }
        let Some(side) = self.side("pids", AT) else { return };
        let mut write = Write::new("pids", "pids.max", or_max(limit), AT);
        // A process may move into a cgroup that is full, as it does on v1, but not be born there.
        write.late = side == Side::V2 && limit == 0;
        self.put(write);
    }

    pub(super) fn hugepages(&mut self, limits: &[LinuxHugepageLimit]) {
        for (index, limit) in limits.iter().enumerate() {
            let at = format!("/linux/resources/hugepageLimits/{index}");
            let size = limit.page_size();
            let digits = size.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
            let unit = size.get(digits.len()..).unwrap_or_default();
            let is_number =
                !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
            if !is_number || !matches!(unit, "KB" | "MB" | "GB") {
                let text = format!("{size:?} is no size of pages such as 2MB");
                self.findings.problem(Code::E_CGROUP_VALUE, format!("{at}/pageSize"), text);
                continue;
            }
            let Some(side) = self.side("hugetlb", &at) else { continue };
            let (value, last) = match side {
                Side::V1 => (limit.limit().to_string(), "limit_in_bytes"),
                Side::V2 => (or_max(limit.limit()), "max"),
            };
            self.put(Write::new("hugetlb", &format!("hugetlb.{size}.{last}"), &value, &at));
            // A fault over the limit kills (SIGBUS), a reservation over it is refused: both, as runc,
            // where the kernel accounts reservations (Linux 5.7).
            let file = format!("hugetlb.{size}.rsvd.{last}");
            let mut write = Write::new("hugetlb", &file, value, &at);
            write.absent_ok = true;
            self.put(write);
        }
    }

    /// Both controllers exist on v1 only.
    pub(super) fn network(&mut self, network: &LinuxNetwork) {
        const CLASS: &str = "/linux/resources/network/classID";
        if let Some(class) = network.class_id().filter(|class| *class != 0) {
            if self.side("net_cls", CLASS).is_some() {
                self.put(Write::new("net_cls", "net_cls.classid", class, CLASS));
            }
        }
        for (index, entry) in network.priorities().iter().flatten().enumerate() {
            let at = format!("/linux/resources/network/priorities/{index}");
            if entry.name().is_empty() || entry.name().contains(char::is_whitespace) {
                self.findings.problem(
                    Code::E_CGROUP_VALUE,
                    format!("{at}/name"),
                    "is no name of an interface",
                );
            }
            if self.side("net_prio", &at).is_some() {
                let value = format!("{} {}", entry.name(), entry.priority());
                self.put(Write::new("net_prio", "net_prio.ifpriomap", value, &at));
            }
        }
    }

    pub(super) fn rdma(&mut self, rdma: &HashMap<String, LinuxRdma>) {
        for (device, limit) in sorted(rdma) {
            let at = format!("/linux/resources/rdma/{}", escape(device));
            if device.is_empty() || device.contains(char::is_whitespace) {
                self.findings.problem(Code::E_CGROUP_VALUE, &at, "is no name of a device");
            }
            let mut value = device.clone();
            for (name, number) in
                [("hca_handle", limit.hca_handles()), ("hca_object", limit.hca_objects())]
            {
                if let Some(number) = number {
                    value = format!("{value} {name}={number}");
                }
            }
            if value != *device && self.side("rdma", &at).is_some() {
                self.put(Write::new("rdma", "rdma.max", value, &at));
            }
        }
    }

    /// Raw v2 files. An explicit key beats what was converted from the other settings.
    pub(super) fn unified(&mut self, unified: &HashMap<String, String>) {
        for (file, value) in sorted(unified) {
            let at = format!("/linux/resources/unified/{}", escape(file));
            let Some((controller, rest)) = file.split_once('.') else {
                self.findings.problem(Code::E_CGROUP_VALUE, &at, "is no controller.file");
                continue;
            };
            if controller.is_empty() || rest.is_empty() || file.contains(['/', '\0', '\n']) {
                self.findings.problem(Code::E_CGROUP_VALUE, &at, "is no controller.file");
                continue;
            }
            if NO_RESOURCE.contains(&file.as_str()) {
                self.findings.problem(Code::E_CGROUP_VALUE, &at, "is no resource");
                continue;
            }
            let core = controller == "cgroup" && self.layout.v2.is_some();
            if !core && self.layout.side(controller) != Some(Side::V2) {
                let text = format!("cgroup v2 has no {controller} controller on this host");
                self.findings.problem(Code::E_CGROUP_CONTROLLER, &at, text);
                continue;
            }
            self.planned.writes.retain(|write| {
                let same =
                    write.file == *file || write.or.as_ref().is_some_and(|(or, _)| or == file);
                !same
                    || ADDING.contains(&file.as_str())
                    || value.lines().all(|line| device(line) != device(&write.value))
            });
            // Files such as io.max take one line at a time.
            for line in value.lines().filter(|line| !line.is_empty()) {
                let mut write = Write::new(controller, file, line, &at);
                write.late = file == "pids.max" && line.trim() == "0";
                self.put(write);
            }
        }
    }
}

/// A map in the order of its keys: the same config makes the same writes.
fn sorted<T>(map: &HashMap<String, T>) -> Vec<(&String, &T)> {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_by_key(|(key, _)| *key);
    entries
}

/// A key as a part of a JSON pointer.
fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
