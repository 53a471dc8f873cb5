//! Mounts whose ids are mapped (config.md, "Mounts": `uidMappings`, `gidMappings`, `idmap`, `ridmap`).

use oci_spec::runtime::{Linux, LinuxIdMapping, Mount};

use super::ids::{self, IdMappings, IdRange};
use super::namespaces::{Kind, Namespaces};
use super::options::Options;
use crate::error::{At, Code, Findings};

/// Which map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ids {
    /// The mount's own, or the container's, written out.
    Given(IdMappings),
    /// That of the user namespace which the container joins.
    JoinedNamespace,
}

/// How a mount's ids are mapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdMap {
    /// The map.
    pub ids: Ids,
    /// For all mounts below it, too.
    pub recursive: bool,
}

/// The map of one mount. Maps without the option `idmap` or `ridmap` are an `idmap`, as engines count on; one
/// in the option itself is crun's way, which podman writes.
pub fn plan(
    at: At,
    spec: &Mount,
    options: &Options,
    (linux, namespaces): (&Linux, &Namespaces),
    findings: &mut Findings,
) -> Option<IdMap> {
    let given = |list: &Option<Vec<_>>| list.as_ref().is_some_and(|list| !list.is_empty());
    let (uids, gids) = (given(spec.uid_mappings()), given(spec.gid_mappings()));
    if !uids && !gids && options.idmap.is_none() {
        return None;
    }
    let recursive = options.idmap.unwrap_or(false);
    if let Some(text) = &options.idmap_text {
        let maps = written(at.leaf("/options"), text, linux, findings)?;
        return Some(IdMap { ids: Ids::Given(maps), recursive });
    }
    let own = (at.leaf("/uidMappings"), at.leaf("/gidMappings"));
    let ids = match (uids, gids) {
        (true, true) => Ids::Given(IdMappings {
            uids: ids::ranges(own.0, spec.uid_mappings().as_ref(), findings),
            gids: ids::ranges(own.1, spec.gid_mappings().as_ref(), findings),
        }),
        (true, false) | (false, true) => {
            let missing = if uids { own.1 } else { own.0 };
            findings.problem(
                Code::E_MISSING,
                missing,
                "missing: uidMappings and gidMappings go together",
            );
            return None;
        }
        (false, false) if namespaces.is_joined(Kind::User) => Ids::JoinedNamespace,
        (false, false) if namespaces.is_new(Kind::User) => {
            // What is wrong with these is told of the container.
            let mut told = Findings::default();
            let base = At::of("/linux");
            Ids::Given(IdMappings {
                uids: ids::ranges(base, linux.uid_mappings().as_ref(), &mut told),
                gids: ids::ranges(base, linux.gid_mappings().as_ref(), &mut told),
            })
        }
        (false, false) => {
            let text =
                "an id-mapped mount needs maps of its own, or the container a user namespace";
            findings.problem(Code::E_NEEDS_NAMESPACE, at.leaf("/options"), text);
            return None;
        }
    };
    Some(IdMap { ids, recursive })
}

/// `uids=0-1-10#10-11-10;gids=0-100-10`: triplets of the first id in the filesystem, the first on the host,
/// and how many. After `@` the second is one in the container (crun(1), "Mount options").
fn written(at: At, text: &str, linux: &Linux, findings: &mut Findings) -> Option<IdMappings> {
    let mut lists = [Vec::new(), Vec::new()];
    for part in text.split(';').filter(|part| !part.is_empty()) {
        let (list, around) = match part.split_once('=') {
            Some(("uids", list)) => (list, (0, linux.uid_mappings())),
            Some(("gids", list)) => (list, (1, linux.gid_mappings())),
            _ => {
                findings.problem(
                    Code::E_ID_MAPPING_VALUE,
                    at,
                    format!("{part:?}: no uids= or gids="),
                );
                return None;
            }
        };
        let triplets = list.split('#').map(|triplet| range(triplet, around.1.as_deref()));
        let Some(ranges) = triplets.collect::<Option<Vec<_>>>() else {
            findings.problem(
                Code::E_ID_MAPPING_VALUE,
                at,
                format!("{list:?} is no list of ranges"),
            );
            return None;
        };
        if let Some(slot) = lists.get_mut(around.0) {
            *slot = ranges;
        }
    }
    let [uids, gids] = lists;
    if uids.is_empty() || gids.is_empty() {
        findings.problem(Code::E_MISSING, at, "uids= and gids= go together");
        return None;
    }
    Some(IdMappings {
        uids: ids::checked(at, uids.into_iter(), findings),
        gids: ids::checked(at, gids.into_iter(), findings),
    })
}

fn range(triplet: &str, container: Option<&[LinuxIdMapping]>) -> Option<IdRange> {
    let absolute = triplet.trim_start_matches('@');
    let numbers = absolute.split('-').map(|number| number.parse::<u32>().ok());
    let [inside, mut outside, size] = numbers.collect::<Option<Vec<_>>>()?.try_into().ok()?;
    if absolute != triplet {
        outside = container?.iter().find_map(|known| {
            let offset = outside.checked_sub(known.container_id())?;
            (offset < known.size()).then(|| known.host_id().checked_add(offset))?
        })?;
    }
    Some(IdRange { container: inside, host: outside, size })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idmap_in_an_option_is_read_as_crun_does() {
        let linux: Option<Linux> = serde_json::from_value(serde_json::json!({
            "uidMappings": [{"containerID": 0, "hostID": 0, "size": 1},
                            {"containerID": 1, "hostID": 2, "size": 1000}],
        }))
        .ok();
        let linux = linux.unwrap_or_default();
        let read = |text: &str| {
            let mut findings = Findings::default();
            let maps = written(At::of("/mounts/0/options"), text, &linux, &mut findings);
            maps.filter(|_| findings.problems.is_empty())
                .map(|maps| (ids::text(&maps.uids), ids::text(&maps.gids)))
        };
        let expected = ("0 1 10\n10 11 10\n".to_owned(), "0 100 10\n".to_owned());
        assert_eq!(read("uids=0-1-10#10-11-10;gids=0-100-10"), Some(expected));
        let relative = read("uids=@1-3-10;gids=0-0-1").map(|(uids, _)| uids);
        assert_eq!(relative.as_deref(), Some("1 4 10\n"));
        for bad in [
            "",
            "uids=0-1-10",
            "uids=0-1;gids=0-1-1",
            "uids=0-1-10;gids=a-1-1",
            "uids=0-1-0;gids=0-1-1",
            "uids=0-1-1;gids=@0-1-1",
            "x=0-1-1",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
