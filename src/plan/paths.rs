//! Masked and read-only paths, and sysctls.

use std::collections::HashMap;

use super::mounts::clean;
use super::namespaces::{Kind, Namespaces};
use crate::error::{At, Code, Findings};

/// A path of `maskedPaths` or `readonlyPaths`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hidden {
    /// Its place in config.json.
    pub at: At,
    /// Absolute path in the container.
    pub path: String,
}

/// Checks and cleans one of the two lists.
pub fn plan(
    base: &'static str,
    paths: Option<&Vec<String>>,
    namespaces: &Namespaces,
    findings: &mut Findings,
) -> Vec<Hidden> {
    let paths = paths.map(Vec::as_slice).unwrap_or_default();
    if !paths.is_empty() && !namespaces.may_mount() {
        findings.problem(Code::E_NEEDS_NAMESPACE, base, "needs a new mount namespace");
    }
    let mut hidden: Vec<Hidden> = Vec::new();
    for (index, path) in paths.iter().enumerate() {
        let at = At::item(base, index);
        super::check::no_nul(at, path, findings);
        if !path.starts_with('/') {
            findings.problem(Code::E_NOT_ABSOLUTE, at, "not an absolute path");
            continue;
        }
        let path = clean(std::path::Path::new(path));
        if !hidden.iter().any(|known| known.path == path) {
            hidden.push(Hidden { at, path });
        }
    }
    hidden
}

/// A sysctl to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sysctl {
    /// Its name as given.
    pub name: String,
    /// Below /proc/sys, without a leading slash.
    pub path: String,
    /// What to write.
    pub value: String,
    /// The namespace it belongs to.
    pub kind: Kind,
}

const IPC: &[&str] = &[
    "kernel/auto_msgmni",
    "kernel/msg_next_id",
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/sem_next_id",
    "kernel/shm_next_id",
    "kernel/shm_rmid_forced",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
];

/// The namespace that keeps a sysctl from being the host's, for the names that have one.
fn namespace_of(path: &str) -> Option<Kind> {
    if IPC.contains(&path) || path.starts_with("fs/mqueue/") {
        Some(Kind::Ipc)
    } else if path.starts_with("net/") {
        Some(Kind::Network)
    } else if path == "kernel/domainname" {
        Some(Kind::Uts)
    } else {
        None
    }
}

/// Only sysctls of a namespace that the container has for itself; sorted, as JSON objects have no order.
pub fn sysctls(
    spec: Option<&HashMap<String, String>>,
    namespaces: &Namespaces,
    findings: &mut Findings,
) -> Vec<Sysctl> {
    let mut sysctls = Vec::new();
    for (name, value) in spec.into_iter().flatten() {
        let at = format!("/linux/sysctl/{}", crate::error::escape(name));
        super::check::no_nul(&at, value, findings);
        let path = path_of(name);
        let odd = |part: &str| part.is_empty() || part == "." || part == "..";
        if path.contains('\0') || path.split('/').any(odd) {
            findings.problem(Code::E_SYSCTL_NAME, at, "not a sysctl name");
            continue;
        }
        if path == "kernel/hostname" {
            findings.problem(Code::E_SYSCTL_NAME, at, "is set by /hostname");
            continue;
        }
        let Some(kind) = namespace_of(&path) else {
            findings.problem(
                Code::E_SYSCTL_HOST,
                at,
                "is not in a namespace: it would change the host",
            );
            continue;
        };
        if !namespaces.is_own(kind) {
            let text = format!("needs an own {} namespace: it would change the host", kind.name());
            findings.problem(Code::E_NEEDS_NAMESPACE, at, text);
            continue;
        }
        sysctls.push(Sysctl { name: name.clone(), path, value: value.clone(), kind });
    }
    sysctls.sort_by(|a, b| a.path.cmp(&b.path));
    sysctls
}

/// sysctl(8)'s rule: the first separator decides; with dots first, a slash stands for a dot in a name
/// (`net.ipv4.conf.eth0/1.forwarding`).
fn path_of(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(index) if name[index..].starts_with('.') => name
            .chars()
            .map(|letter| match letter {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect(),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysctl_names_take_dots_or_slashes() {
        assert_eq!(path_of("net.ipv4.conf.eth0/1.forwarding"), "net/ipv4/conf/eth0.1/forwarding");
        assert_eq!(path_of("net/ipv4/conf/eth0.1/forwarding"), "net/ipv4/conf/eth0.1/forwarding");
    }

    #[test]
    fn t28_sysctls_that_would_reach_the_host_are_refused() {
        let own = Namespaces { new: vec![Kind::Network, Kind::Ipc], ..Namespaces::default() };
        for name in [
            "kernel.core_pattern",
            "net/../kernel/core_pattern",
            "net.ipv4/../../kernel/core_pattern",
            "net.a\0b",
            "kernel.hostname",
            "net..x",
            "",
        ] {
            let mut findings = Findings::default();
            let spec = HashMap::from([(name.to_owned(), "1".to_owned())]);
            let kept = sysctls(Some(&spec), &own, &mut findings);
            assert!(kept.is_empty() && findings.problems.len() == 1, "{name}: {kept:?}");
        }
    }
}
