//! systemd as the maker of a container's cgroup: a transient scope with the container's init in it.
//!
//! Owns: the unit's name, its properties, and the talk with systemd. Pure parts: [`name`] reads
//! `linux.cgroupsPath`, [`limits`] says planned writes and device rules in systemd's words,
//! [`annotations`] lets harmless properties through, [`wire`] puts messages into bytes. [`bus`] and
//! [`unit`] act. Must not: read properties, wait without a deadline, or write where systemd writes,
//! except for the limits of the container's own cgroup: systemd does not know them all.

mod annotations;
mod bus;
pub(super) mod limits;
pub(super) mod name;
mod scope;
mod unit;
pub(super) mod wire;

pub(super) use scope::enter;
pub(super) use unit::{attach, set_properties, start, stop};
pub use wire::Value;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::devices::DeviceRule;
use super::plan::Write;
use crate::error::Findings;

/// How long systemd may take to start or change a unit.
pub(super) const START: Duration = Duration::from_secs(30);

/// One property of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Property {
    /// systemd's name for it.
    pub name: String,
    /// Its value.
    pub value: Value,
    /// The annotation that asks for it, as a JSON pointer; empty for what the runtime sets.
    pub at: String,
}

impl Property {
    fn new(name: &str, value: Value) -> Self {
        Self { name: name.to_owned(), value, at: String::new() }
    }
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {:?}", self.name, self.value)
    }
}

/// A unit: its name, and whose systemd has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// `docker-ID.scope`
    pub name: String,
    /// The user's own systemd rather than the system's.
    pub user: bool,
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "systemd {}unit {}", if self.user { "user " } else { "" }, self.name)
    }
}

/// What the properties of a new unit are made of.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    /// The container's id.
    pub id: &'a str,
    /// The unit's slice.
    pub slice: &'a str,
    /// Whether limits are in cgroup v2.
    pub v2: bool,
    /// Planned limits.
    pub writes: &'a [Write],
    /// Planned device rules; none are applied without them.
    pub devices: Option<&'a [DeviceRule]>,
    /// The configuration's annotations.
    pub annotations: &'a BTreeMap<String, String>,
}

/// The properties of a new unit: all but its process, which is not there yet.
pub(super) fn properties(wanted: &Wanted<'_>, findings: &mut Findings) -> Vec<Property> {
    let yes = Value::Bool(true);
    let mut all = vec![
        Property::new("Description", Value::Text(format!("onggi container {}", wanted.id))),
        Property::new("Slice", Value::Text(wanted.slice.to_owned())),
        Property::new("Delegate", yes.clone()),
        // Stopped by the engine, not by systemd before the engine knows of a shutdown.
        Property::new("DefaultDependencies", Value::Bool(false)),
        // A unit that failed (out of memory, say) goes as well.
        Property::new("CollectMode", Value::Text("inactive-or-failed".to_owned())),
        Property::new("MemoryAccounting", yes.clone()),
        Property::new("CPUAccounting", yes.clone()),
        Property::new(if wanted.v2 { "IOAccounting" } else { "BlockIOAccounting" }, yes.clone()),
        Property::new("TasksAccounting", yes),
    ];
    all.extend(limits::properties(wanted.writes));
    all.extend(wanted.devices.map(limits::devices).unwrap_or_default());
    for asked in annotations::read(wanted.annotations, findings) {
        all.retain(|property| property.name != asked.name);
        all.push(asked);
    }
    all
}

/// The properties that say the same as new limits, and as new device rules if there are some.
pub(super) fn changes(writes: &[Write], devices: Option<&[DeviceRule]>) -> Vec<Property> {
    let mut all = limits::properties(writes);
    if let Some(rules) = devices {
        // A list is added to what is there, unless it is empty.
        all.push(Property::new("DeviceAllow", Value::Pairs(Vec::new())));
        all.extend(limits::devices(rules));
    }
    all
}
