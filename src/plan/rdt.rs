//! `linux.intelRdt`: the resctrl group of the container (config-linux.md, "IntelRdt").

use oci_spec::runtime::LinuxIntelRdt;

use crate::error::{At, Code, Findings};

/// The group, and what is written to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rdt {
    /// `closID`: a name, or `/` for the root group. Without one the group has the container's id.
    pub group: Option<String>,
    /// Lines for its `schemata` file, in the order of writing: those of `l3CacheSchema` and `memBwSchema`
    /// together, then those of `schemata`.
    pub writes: Vec<Vec<String>>,
    /// A monitoring group of the container's own.
    pub monitoring: bool,
}

const BASE: &str = "/linux/intelRdt";

/// Checks names and lines.
pub fn plan(spec: Option<&LinuxIntelRdt>, findings: &mut Findings) -> Option<Rdt> {
    let spec = spec?;
    let group = spec.clos_id().clone().filter(|id| !id.is_empty());
    if let Some(id) = group.as_deref().filter(|id| *id != "/") {
        // Directories of the root group that are no groups.
        let taken = matches!(id, "." | ".." | "info" | "mon_groups" | "mon_data");
        if taken || id.contains(['/', '\n', '\0']) || id.len() > 255 {
            findings.problem(Code::E_RDT_VALUE, "/linux/intelRdt/closID", "is no name of a group");
        }
    }
    let l3 = spec.l3_cache_schema().as_deref().filter(|schema| !schema.is_empty());
    let bandwidth = spec.mem_bw_schema().as_deref().filter(|schema| !schema.is_empty());
    if bandwidth.is_some_and(|line| !line.starts_with("MB:") || line.contains('\n')) {
        findings.problem(
            Code::E_RDT_VALUE,
            "/linux/intelRdt/memBwSchema",
            "is not one line that begins with MB:",
        );
    }
    let old = l3
        .into_iter()
        .flat_map(str::lines)
        .filter(|line| bandwidth.is_none() || !line.trim_start().starts_with("MB:"))
        .chain(bandwidth)
        .map(str::to_owned)
        .collect::<Vec<_>>();
    let new = spec.schemata().clone().unwrap_or_default();
    for (index, line) in new.iter().enumerate() {
        if line.contains('\n') {
            findings.problem(
                Code::E_RDT_VALUE,
                At::item("/linux/intelRdt/schemata", index),
                "is more than one line",
            );
        }
    }
    for line in old.iter().chain(&new) {
        super::check::no_nul(BASE, line, findings);
    }
    // enableCMT and enableMBM were the same wish before version 1.3 of the spec.
    #[allow(deprecated, reason = "engines still write them")]
    let older = spec.enable_cmt().unwrap_or(false) || spec.enable_mbm().unwrap_or(false);
    if older {
        findings.warn(
            Code::W_NOT_APPLIED,
            BASE,
            "enableCMT and enableMBM are gone since 1.3 and ignored",
        );
    }
    let writes = [old, new].into_iter().filter(|lines| !lines.is_empty()).collect();
    Some(Rdt { group, writes, monitoring: spec.enable_monitoring().unwrap_or(false) })
}
