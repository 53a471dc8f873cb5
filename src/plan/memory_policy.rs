//! `linux.memoryPolicy`: what set_mempolicy(2) is told.

use oci_spec::runtime::{LinuxMemoryPolicy, MemoryPolicyFlagType, MemoryPolicyModeType};

use super::lists;
use crate::error::{Code, Findings};

/// The arguments of set_mempolicy(2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryPolicy {
    /// `MPOL_*`, with the flags in its upper bits.
    pub mode: u32,
    /// One bit per memory node.
    pub nodes: Vec<u64>,
}

/// Names and numbers (linux/mempolicy.h), for `features` too.
pub const MODES: [(&str, MemoryPolicyModeType, u32); 7] = [
    ("MPOL_DEFAULT", MemoryPolicyModeType::MpolDefault, 0),
    ("MPOL_BIND", MemoryPolicyModeType::MpolBind, 2),
    ("MPOL_INTERLEAVE", MemoryPolicyModeType::MpolInterleave, 3),
    ("MPOL_WEIGHTED_INTERLEAVE", MemoryPolicyModeType::MpolWeightedInterleave, 6),
    ("MPOL_PREFERRED", MemoryPolicyModeType::MpolPreferred, 1),
    ("MPOL_PREFERRED_MANY", MemoryPolicyModeType::MpolPreferredMany, 5),
    ("MPOL_LOCAL", MemoryPolicyModeType::MpolLocal, 4),
];

/// As above.
pub const FLAGS: [(&str, MemoryPolicyFlagType, u32); 3] = [
    ("MPOL_F_NUMA_BALANCING", MemoryPolicyFlagType::MpolFNumaBalancing, 1 << 13),
    ("MPOL_F_RELATIVE_NODES", MemoryPolicyFlagType::MpolFRelativeNodes, 1 << 14),
    ("MPOL_F_STATIC_NODES", MemoryPolicyFlagType::MpolFStaticNodes, 1 << 15),
];

/// Checks what the kernel would refuse with a bare EINVAL (`sanitize_mpol_flags`, `mpol_new`).
pub fn plan(spec: Option<&LinuxMemoryPolicy>, findings: &mut Findings) -> Option<MemoryPolicy> {
    use MemoryPolicyModeType::{
        MpolBind, MpolDefault, MpolLocal, MpolPreferred, MpolPreferredMany,
    };
    let spec = spec?;
    let mode = spec.mode();
    let nodes = lists::mask(spec.nodes().as_deref().unwrap_or_default()).unwrap_or_else(|text| {
        findings.problem(Code::E_MEMORY_POLICY_VALUE, "/linux/memoryPolicy/nodes", text);
        vec![1]
    });
    let flags = spec.flags().as_deref().unwrap_or_default();
    let has = |flag: MemoryPolicyFlagType| flags.contains(&flag);
    let by_nodes = has(MemoryPolicyFlagType::MpolFStaticNodes)
        || has(MemoryPolicyFlagType::MpolFRelativeNodes);
    match (mode, nodes.is_empty()) {
        (MpolDefault | MpolLocal, false) => {
            findings.problem(
                Code::E_MEMORY_POLICY_VALUE,
                "/linux/memoryPolicy/nodes",
                format!("{mode} takes no nodes"),
            );
        }
        (MpolDefault | MpolLocal | MpolPreferred, true) if by_nodes => {
            let text = format!("{mode} without nodes takes no flag about nodes");
            findings.problem(Code::E_MEMORY_POLICY_VALUE, "/linux/memoryPolicy/flags", text);
        }
        (MpolDefault | MpolLocal | MpolPreferred, _) | (_, false) => {}
        (_, true) => {
            findings.problem(
                Code::E_MEMORY_POLICY_VALUE,
                "/linux/memoryPolicy/nodes",
                format!("{mode} needs nodes"),
            );
        }
    }
    if has(MemoryPolicyFlagType::MpolFStaticNodes) && has(MemoryPolicyFlagType::MpolFRelativeNodes)
    {
        let text = "MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES exclude each other";
        findings.problem(Code::E_MEMORY_POLICY_VALUE, "/linux/memoryPolicy/flags", text);
    }
    let balanced = matches!(mode, MpolBind | MpolPreferredMany);
    if has(MemoryPolicyFlagType::MpolFNumaBalancing) && !balanced {
        let text = "MPOL_F_NUMA_BALANCING goes with MPOL_BIND and MPOL_PREFERRED_MANY only";
        findings.problem(Code::E_MEMORY_POLICY_VALUE, "/linux/memoryPolicy/flags", text);
    }
    let number = MODES.iter().find(|(_, known, _)| *known == mode).map_or(0, |(_, _, bits)| *bits);
    let bits = FLAGS.iter().filter(|(_, flag, _)| has(*flag)).fold(0, |sum, (_, _, bit)| sum | bit);
    Some(MemoryPolicy { mode: number | bits, nodes })
}
