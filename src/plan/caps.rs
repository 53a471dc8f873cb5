//! The five capability sets as bit masks.

use oci_spec::runtime::{Capabilities, LinuxCapabilities};

use crate::error::{At, Code, Findings};
use crate::host::Host;

/// The five sets, one bit per capability (capabilities(7)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CapSets {
    /// Upper limit of what an execve may give.
    pub bounding: u64,
    /// What counts.
    pub effective: u64,
    /// What may be made effective.
    pub permitted: u64,
    /// What survives execve together with file capabilities.
    pub inheritable: u64,
    /// What survives execve without them.
    pub ambient: u64,
}

/// The number of a capability name, with or without `CAP_`, any case.
#[must_use]
pub fn number(name: &str) -> Option<u32> {
    let upper = name.to_ascii_uppercase();
    let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
    full.parse::<caps::Capability>().ok().map(|capability| u32::from(capability.index()))
}

/// Names of the capabilities in a mask, in numerical order.
#[must_use]
pub fn names(mask: u64) -> Vec<String> {
    let mut all: Vec<_> = caps::all().into_iter().collect();
    all.sort_by_key(caps::Capability::index);
    all.iter()
        .filter(|capability| mask & 1 << capability.index() != 0)
        .map(ToString::to_string)
        .collect()
}

fn mask(names: Option<&Capabilities>) -> u64 {
    // oci-spec's names display as the kernel's, without the prefix.
    names
        .into_iter()
        .flatten()
        .fold(0, |mask, name| mask | number(&name.to_string()).map_or(0, |number| 1u64 << number))
}

/// The sets of the configuration. What the runtime itself does not hold cannot be granted: the spec
/// wants a warning, no failure (config.md, capabilities).
pub fn plan(spec: Option<&LinuxCapabilities>, host: &Host, findings: &mut Findings) -> CapSets {
    let Some(spec) = spec else {
        return CapSets::default();
    };
    let asked = CapSets {
        bounding: mask(spec.bounding().as_ref()),
        effective: mask(spec.effective().as_ref()),
        permitted: mask(spec.permitted().as_ref()),
        inheritable: mask(spec.inheritable().as_ref()),
        ambient: mask(spec.ambient().as_ref()),
    };
    limit(asked, host, findings)
}

/// Takes out of every set what cannot be granted, and tells.
pub fn limit(asked: CapSets, host: &Host, findings: &mut Findings) -> CapSets {
    let all =
        asked.bounding | asked.effective | asked.permitted | asked.inheritable | asked.ambient;
    let known = if host.last_cap >= 63 { u64::MAX } else { (1 << (host.last_cap + 1)) - 1 };
    let grantable = host.capabilities & known;
    let missing = all & !grantable;
    let at = At::of("/process/capabilities");
    if missing != 0 {
        findings.warn(
            Code::W_CAPABILITY_DROPPED,
            at,
            format!("cannot be granted by this runtime: {}", names(missing).join(", ")),
        );
    }
    let permitted = asked.permitted & grantable;
    let inheritable = asked.inheritable & grantable;
    let effective = asked.effective & grantable;
    // The kernel refuses these combinations with a bare EPERM (capabilities(7)).
    if effective & !permitted != 0 {
        let names = names(effective & !permitted).join(", ");
        findings.problem(
            Code::E_CAPABILITY,
            at.leaf("/effective"),
            format!("not in the permitted set: {names}"),
        );
    }
    let ambient = asked.ambient & grantable;
    let usable = ambient & permitted & inheritable;
    if ambient != usable {
        let names = names(ambient & !usable).join(", ");
        findings.warn(
            Code::W_CAPABILITY_DROPPED,
            at.leaf("/ambient"),
            format!("not both permitted and inheritable, dropped: {names}"),
        );
    }
    CapSets {
        bounding: asked.bounding & grantable,
        effective,
        permitted,
        inheritable,
        ambient: usable,
    }
}
