//! What the state keeps of a container's cgroups, so that later commands need not look at the host.

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use super::path;
use super::plan::Manager;
use super::systemd::{self, Unit};
use crate::error::{Code, Error, Result};

/// A container's directory in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The v1 controllers, comma-separated; empty for v2.
    pub controllers: String,
    /// The hierarchy's mount point.
    pub mount: String,
    /// The directory below it, without a `/` in front.
    pub path: String,
    /// The directory's inode, once it is known: the kernel gives no number twice in a boot, so another
    /// directory of the same name is never taken for this one.
    pub inode: Option<u64>,
}

impl Place {
    /// Whether it is in the v2 hierarchy.
    #[must_use]
    pub fn is_v2(&self) -> bool {
        self.controllers.is_empty()
    }

    /// Whether this v1 hierarchy has a controller.
    #[must_use]
    pub fn has(&self, controller: &str) -> bool {
        self.controllers.split(',').any(|has| has == controller)
    }

    /// The directory as a host path.
    #[must_use]
    pub fn dir(&self) -> String {
        format!("{}/{}", self.mount, self.path)
    }
}

/// All of a container's cgroup directories.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Kept")]
pub struct Record {
    /// Who made them.
    pub manager: Manager,
    /// Whether they are known to be this container's. An intent is not: a crash may have come before
    /// the check that nobody else lives there. [`super::remove()`] kills and clears only what is owned.
    pub owned: bool,
    /// One for each hierarchy; empty with [`Manager::Disabled`].
    pub places: Vec<Place>,
    /// With [`Manager::Systemd`]: the unit, which goes with the directories.
    pub unit: Option<Unit>,
}

/// The path is the same nearly everywhere, so it is written once.
impl Serialize for Record {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        let path = self.places.first().map_or("", |place| place.path.as_str());
        let places: Vec<Written<'_>> =
            self.places.iter().map(|place| Written { place, path }).collect();
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("manager", self.manager.name())?;
        map.serialize_entry("owned", &self.owned)?;
        map.serialize_entry("path", path)?;
        map.serialize_entry("dirs", &places)?;
        if let Some(unit) = &self.unit {
            map.serialize_entry(if unit.user { "userUnit" } else { "unit" }, &unit.name)?;
        }
        map.end()
    }
}

/// A place as a list whose end is left off where it says nothing new.
struct Written<'a> {
    place: &'a Place,
    path: &'a str,
}

impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        let Place { controllers, mount, path, inode } = self.place;
        match ((path != self.path).then_some(path), inode) {
            (None, None) => (controllers, mount).serialize(to),
            (Some(path), None) => (controllers, mount, path).serialize(to),
            (path, inode) => (controllers, mount, path, inode).serialize(to),
        }
    }
}

/// What [`Record`] is written as.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    manager: String,
    owned: bool,
    path: String,
    dirs: Vec<KeptDir>,
    unit: Option<String>,
    user_unit: Option<String>,
}

/// A list of these members, of which the last ones may be absent.
#[derive(Deserialize)]
struct KeptDir {
    controllers: String,
    mount: String,
    #[serde(default)]
    path: Option<String>,
    #[serde(default)]
    inode: Option<u64>,
}

/// Paths are checked again: what deletes directories trusts no file.
impl TryFrom<Kept> for Record {
    type Error = Error;

    fn try_from(kept: Kept) -> Result<Self> {
        let bad = |what: &str| Error::text(Code::E_STATE_DAMAGED, format!("state: cgroup: {what}"));
        let check = |path: &str| path::check(path).map_err(|text| bad(&format!("the path {text}")));
        let manager = Manager::from_name(&kept.manager).ok_or_else(|| bad("manager"))?;
        if kept.dirs.iter().any(|dir| dir.path.is_none()) {
            check(&kept.path)?;
        }
        let place = |dir: KeptDir| {
            dir.path.as_deref().map_or(Ok(()), check)?;
            if !dir.mount.starts_with('/') {
                return Err(bad("a mount point is not absolute"));
            }
            Ok(Place {
                controllers: dir.controllers,
                mount: dir.mount,
                path: dir.path.unwrap_or_else(|| kept.path.clone()),
                inode: dir.inode,
            })
        };
        let places = kept.dirs.into_iter().map(place).collect::<Result<_>>()?;
        let unit = match (kept.unit, kept.user_unit) {
            (None, None) => None,
            (name, user_name) => {
                let user = user_name.is_some();
                let name = name.or(user_name).unwrap_or_default();
                systemd::name::check(&name).map_err(|text| bad(&text))?;
                Some(Unit { name, user })
            }
        };
        Ok(Self { manager, owned: kept.owned, places, unit })
    }
}
