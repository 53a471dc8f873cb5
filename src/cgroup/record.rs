//! What the state keeps of a container's cgroups, so that later commands need not look at the host.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Value;

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
#[derive(Debug, Clone, PartialEq, Eq)]
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

impl Record {
    /// From state.json. Paths are checked again: what deletes directories trusts no file.
    ///
    /// # Errors
    /// When it is not what [`Record`] is written as.
    pub fn from_json(value: &Value) -> Result<Self> {
        let bad = |what: &str| Error::text(Code::E_STATE_DAMAGED, format!("state: cgroup: {what}"));
        let text = |key: &str| value.get(key).and_then(Value::as_str);
        let manager = text("manager").and_then(Manager::from_name).ok_or_else(|| bad("manager"))?;
        let owned = value.get("owned").and_then(Value::as_bool).ok_or_else(|| bad("owned"))?;
        let common = text("path").ok_or_else(|| bad("path"))?;
        let dirs = value.get("dirs").and_then(Value::as_array).ok_or_else(|| bad("dirs"))?;
        let mut places = Vec::with_capacity(dirs.len());
        for dir in dirs {
            let field = |index: usize| dir.get(index).and_then(Value::as_str);
            let (Some(controllers), Some(mount)) = (field(0), field(1)) else {
                return Err(bad("dirs"));
            };
            let path = field(2).unwrap_or(common);
            path::check(path).map_err(|text| bad(&format!("the path {text}")))?;
            if !mount.starts_with('/') {
                return Err(bad("a mount point is not absolute"));
            }
            places.push(Place {
                controllers: controllers.to_owned(),
                mount: mount.to_owned(),
                path: path.to_owned(),
                inode: dir.get(3).and_then(Value::as_u64),
            });
        }
        let unit = match (text("unit"), text("userUnit")) {
            (None, None) => None,
            (name, user_name) => {
                let name = name.or(user_name).unwrap_or_default().to_owned();
                systemd::name::check(&name).map_err(|text| bad(&text))?;
                Some(Unit { name, user: user_name.is_some() })
            }
        };
        Ok(Self { manager, owned, places, unit })
    }
}
