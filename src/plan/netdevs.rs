//! Network devices of the host that the container gets (config-linux.md, "Network Devices").

use std::collections::HashMap;

use oci_spec::runtime::LinuxNetDevice;

use super::namespaces::{Kind, Namespaces};
use crate::error::{Code, Findings};

/// A device to move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetDevice {
    /// Its name in the runtime's network namespace.
    pub host: String,
    /// Its name in the container; `%d` in it stands for the first number that is free.
    pub name: String,
}

impl NetDevice {
    /// Its place in config.json.
    #[must_use]
    pub fn pointer(&self) -> String {
        format!("/linux/netDevices/{}", crate::error::escape(&self.host))
    }
}

/// Checks names, and that two do not become one; sorted, as JSON objects have no order.
pub fn plan(
    spec: Option<&HashMap<String, LinuxNetDevice>>,
    namespaces: &Namespaces,
    findings: &mut Findings,
) -> Vec<NetDevice> {
    let mut devices: Vec<NetDevice> = Vec::new();
    for (host, device) in spec.into_iter().flatten() {
        let name = device.name().clone().filter(|name| !name.is_empty());
        let device = NetDevice { host: host.clone(), name: name.unwrap_or_else(|| host.clone()) };
        let at = device.pointer();
        if let Some(text) = wrong(host, false) {
            findings.problem(Code::E_NET_DEVICE_NAME, &at, text);
        } else if host == "lo" {
            findings.problem(Code::E_NET_DEVICE_NAME, &at, "the loopback device cannot be moved");
        }
        if let Some(text) = wrong(&device.name, true).filter(|_| device.name != *host) {
            findings.problem(Code::E_NET_DEVICE_NAME, format_args!("{at}/name"), text);
        }
        devices.push(device);
    }
    devices.sort_by(|a, b| a.host.cmp(&b.host));
    for (index, device) in devices.iter().enumerate() {
        let template = device.name.contains('%');
        if !template && devices.iter().take(index).any(|other| other.name == device.name) {
            let text = format!("a second device named {}", device.name.escape_debug());
            findings.problem(
                Code::E_NET_DEVICE_NAME,
                format_args!("{}/name", device.pointer()),
                text,
            );
        }
    }
    if !devices.is_empty() && !namespaces.is_own(Kind::Network) {
        findings.problem(
            Code::E_NEEDS_NAMESPACE,
            "/linux/netDevices",
            "needs an own network namespace to move devices to",
        );
    }
    devices
}

/// The kernel's rules for a name (`dev_valid_name`, `__dev_alloc_name`), in words.
fn wrong(name: &str, template: bool) -> Option<&'static str> {
    // IFNAMSIZ less the NUL.
    if name.is_empty() || name.len() > 15 {
        return Some("a device name has 1 to 15 bytes");
    }
    let odd = |letter: char| letter == '/' || letter == ':' || letter.is_ascii_whitespace();
    if name == "." || name == ".." || name.contains(odd) || name.contains('\0') {
        return Some("is no device name");
    }
    let marks = name.matches('%').count();
    let numbered = template && marks == 1 && name.contains("%d");
    (marks > 0 && !numbered).then_some("of % a device name may have %d, once")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn netdevices_names_are_those_the_kernel_takes() {
        for name in ["eth0", "e", "123456789012345", "a.b-c_d"] {
            assert_eq!(wrong(name, false), None, "{name}");
        }
        for name in ["", "1234567890123456", ".", "..", "a/b", "a:b", "a b", "a\tb", "a\0", "eth%d"]
        {
            assert!(wrong(name, false).is_some(), "{name}");
        }
        assert_eq!(wrong("eth%d", true), None);
        for name in ["eth%d%d", "eth%s", "%", "eth%"] {
            assert!(wrong(name, true).is_some(), "{name}");
        }
    }
}
