//! Mounts whose ids are mapped (config.md, "Mounts": `uidMappings`, `gidMappings`, `idmap`, `ridmap`).

use oci_spec::runtime::{Linux, Mount};

use super::ids::{self, IdMappings};
use super::namespaces::{Kind, Namespaces};
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

/// The map of one mount; `option` is what `idmap` (false) and `ridmap` (true) say. Maps without an option
/// are an `idmap`, as engines count on.
pub fn plan(
    at: At,
    spec: &Mount,
    option: Option<bool>,
    (linux, namespaces): (&Linux, &Namespaces),
    findings: &mut Findings,
) -> Option<IdMap> {
    let given = |list: &Option<Vec<_>>| list.as_ref().is_some_and(|list| !list.is_empty());
    let (uids, gids) = (given(spec.uid_mappings()), given(spec.gid_mappings()));
    if !uids && !gids && option.is_none() {
        return None;
    }
    let recursive = option.unwrap_or(false);
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
