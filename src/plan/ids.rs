//! Maps between the ids of a user namespace and those of the runtime's own.

use std::fmt;

use oci_spec::runtime::{Linux, LinuxIdMapping};

use super::namespaces::{Kind, Namespaces};
use super::process::Process;
use crate::error::{At, Code, Findings};
use crate::host::{CAP_SYS_ADMIN, Host};

/// `size` ids from `container` on are those from `host` on (user_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// The first id inside.
    pub container: u32,
    /// The first id outside.
    pub host: u32,
    /// How many.
    pub size: u32,
}

impl fmt::Display for IdRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.container, self.host, self.size)
    }
}

/// The two maps of a user namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdMappings {
    /// `uidMappings`
    pub uids: Vec<IdRange>,
    /// `gidMappings`
    pub gids: Vec<IdRange>,
}

impl IdMappings {
    /// Which user outside a container's user is; `None` for one that is not mapped.
    #[must_use]
    pub fn host_uid(&self, uid: u32) -> Option<u32> {
        outside(&self.uids, uid)
    }

    /// Which group outside a container's group is.
    #[must_use]
    pub fn host_gid(&self, gid: u32) -> Option<u32> {
        outside(&self.gids, gid)
    }
}

fn outside(map: &[IdRange], id: u32) -> Option<u32> {
    map.iter().find_map(|range| {
        let offset = id.checked_sub(range.container).filter(|offset| *offset < range.size)?;
        range.host.checked_add(offset)
    })
}

/// `uidMappings` and `gidMappings`; `None` where the container has no user namespace of its own, or
/// only names one. Those of a joined one are what it must turn out to have.
pub fn plan(
    linux: &Linux,
    namespaces: &Namespaces,
    host: &Host,
    findings: &mut Findings,
) -> Option<IdMappings> {
    let lists = [
        ("/linux/uidMappings", linux.uid_mappings().as_ref()),
        ("/linux/gidMappings", linux.gid_mappings().as_ref()),
    ];
    let [uids, gids] = lists.map(|(at, list)| ranges(At::of(at), list, findings));
    let own = namespaces.is_own(Kind::User);
    if !own && host.capabilities & CAP_SYS_ADMIN == 0 {
        let text = "a caller without CAP_SYS_ADMIN needs a user namespace, new or joined";
        findings.problem(Code::E_NEEDS_NAMESPACE, "/linux/namespaces", text);
    }
    let given = lists.map(|(_, list)| list.is_some_and(|list| !list.is_empty()));
    for ((at, _), is_given) in lists.iter().zip(given) {
        if is_given && !own {
            findings.problem(Code::E_NEEDS_NAMESPACE, at, "needs a user namespace");
        } else if !is_given && (namespaces.is_new(Kind::User) || (own && given != [false; 2])) {
            findings.problem(
                Code::E_MISSING,
                at,
                "missing: a new user namespace maps users and groups",
            );
        }
    }
    (own && given == [true; 2]).then_some(IdMappings { uids, gids })
}

/// The process' ids must be mapped: to the kernel there are no others.
pub fn check_process(ids: Option<&IdMappings>, process: Option<&Process>, findings: &mut Findings) {
    let (Some(ids), Some(process)) = (ids, process) else { return };
    let text = |id: u32| format!("{id} is not mapped in the user namespace");
    if ids.host_uid(process.uid).is_none() {
        findings.problem(Code::E_ID_MAPPING_VALUE, "/process/user/uid", text(process.uid));
    }
    let gids = std::iter::once(("/process/user/gid", &process.gid));
    let groups = process.groups.iter().map(|gid| ("/process/user/additionalGids", gid));
    for (at, gid) in gids.chain(groups) {
        if ids.host_gid(*gid).is_none() {
            findings.problem(Code::E_ID_MAPPING_VALUE, at, text(*gid));
        }
    }
}

/// A map as `/proc/PID/uid_map` takes it.
#[must_use]
pub fn text(map: &[IdRange]) -> String {
    map.iter().map(|range| format!("{range}\n")).collect()
}

/// Reads a map of `/proc/PID/uid_map`; `None` where it is none.
#[must_use]
pub fn parse(text: &str) -> Option<Vec<IdRange>> {
    text.lines()
        .map(|line| {
            let mut numbers = line.split_ascii_whitespace().map(str::parse);
            let mut number = || numbers.next()?.ok();
            Some(IdRange { container: number()?, host: number()?, size: number()? })
        })
        .collect()
}

/// The kernel's limit of lines (`UID_GID_MAP_MAX_EXTENTS`).
const LINES_MAX: usize = 340;
/// Bytes of a map: one write of less than a page.
const TEXT_MAX: usize = 4095;

/// Checks a list of `uidMappings` or `gidMappings`: what the kernel would refuse with `EINVAL` is told
/// with its place.
pub fn ranges(at: At, spec: Option<&Vec<LinuxIdMapping>>, findings: &mut Findings) -> Vec<IdRange> {
    let range = |one: &LinuxIdMapping| IdRange {
        container: one.container_id(),
        host: one.host_id(),
        size: one.size(),
    };
    checked(at, spec.into_iter().flatten().map(range), findings)
}

/// The same of ranges from elsewhere.
pub fn checked(
    at: At,
    ranges: impl Iterator<Item = IdRange>,
    findings: &mut Findings,
) -> Vec<IdRange> {
    let mut map: Vec<IdRange> = Vec::new();
    for range in ranges {
        // 2^32-1 is no id, so no range may reach it.
        let fits = |first: u32| first.checked_add(range.size).is_some();
        let meet = |a: u32, a_size: u32, b: u32, b_size: u32| {
            a < b.saturating_add(b_size) && b < a.saturating_add(a_size)
        };
        let overlap = |known: &IdRange| {
            meet(known.container, known.size, range.container, range.size)
                || meet(known.host, known.size, range.host, range.size)
        };
        if range.size == 0 {
            findings.problem(Code::E_ID_MAPPING_VALUE, at, format!("{range}: maps no id"));
        } else if !fits(range.container) || !fits(range.host) {
            findings.problem(
                Code::E_ID_MAPPING_VALUE,
                at,
                format!("{range}: reaches beyond the last id"),
            );
        } else if map.iter().any(overlap) {
            findings.problem(
                Code::E_ID_MAPPING_VALUE,
                at,
                format!("{range}: overlaps another range"),
            );
        } else {
            map.push(range);
        }
    }
    if map.len() > LINES_MAX || text(&map).len() > TEXT_MAX {
        findings.problem(
            Code::E_ID_MAPPING_VALUE,
            at,
            format!("more than the kernel takes ({LINES_MAX} ranges, 4 KiB)"),
        );
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(list: &[(u32, u32, u32)]) -> String {
        let one = |(container, host, size): &(u32, u32, u32)| {
            let json = serde_json::json!({"containerID": container, "hostID": host, "size": size});
            serde_json::from_value(json).ok()
        };
        let spec = list.iter().map(one).collect::<Option<Vec<LinuxIdMapping>>>();
        let mut findings = Findings::default();
        ranges(At::of("/linux/uidMappings"), spec.as_ref(), &mut findings);
        findings.problems.iter().map(|problem| problem.text.clone()).collect()
    }

    #[test]
    fn id_mappings_that_the_kernel_refuses_are_told() {
        assert_eq!(refused(&[(0, 1, 1000), (1000, 0, 1), (1001, 1001, 64536)]), "");
        assert_eq!(refused(&[(0, 100_000, u32::MAX - 100_000)]), "");
        assert!(refused(&[(0, 0, 0)]).contains("maps no id"));
        assert!(refused(&[(1, 0, u32::MAX)]).contains("beyond the last id"));
        assert!(refused(&[(0, 0, 10), (9, 100, 1)]).contains("overlaps"));
        assert!(refused(&[(0, 0, 10), (10, 9, 1)]).contains("overlaps"));
        let many: Vec<_> = (0..400).map(|n| (n, n, 1)).collect();
        assert!(refused(&many).contains("more than the kernel takes"));
    }

    #[test]
    fn container_ids_become_host_ids() {
        let map = parse("         0          1       1000\n 1000 0 1\n").unwrap_or_default();
        let ids = IdMappings { uids: map.clone(), gids: map };
        assert_eq!(ids.host_uid(0), Some(1));
        assert_eq!(ids.host_uid(999), Some(1000));
        assert_eq!(ids.host_gid(1000), Some(0));
        assert_eq!(ids.host_gid(1001), None);
        assert_eq!(text(&ids.uids), "0 1 1000\n1000 0 1\n");
        assert_eq!(parse("0 1"), None);
    }
}
