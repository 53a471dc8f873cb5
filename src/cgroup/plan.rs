//! From `linux.cgroupsPath` and `linux.resources` to a list of writes. Pure.

use std::collections::BTreeMap;
use std::fmt;

use oci_spec::runtime::Linux;

use super::devices::{self, DeviceRule};
use super::inner::{self, Inner};
use super::layout::{Layout, Side};
use super::path::{self, CgroupPath};
use super::record::{Place, Record};
use super::resources;
use super::systemd::name::Scope;
use super::systemd::{self, Property, Unit};
use crate::error::{Code, Findings};

/// Who makes a container's cgroups.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Manager {
    /// The runtime itself, by mkdir.
    #[default]
    Cgroupfs,
    /// systemd, as a transient scope.
    Systemd,
    /// Nobody: the container stays in the caller's cgroups, without limits.
    Disabled,
}

impl Manager {
    /// Its name on the command line and in the state.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cgroupfs => "cgroupfs",
            Self::Systemd => "systemd",
            Self::Disabled => "disabled",
        }
    }

    /// The manager of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Cgroupfs, Self::Systemd, Self::Disabled].into_iter().find(|one| one.name() == name)
    }
}

/// What the config does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Who makes the cgroups.
    pub manager: Manager,
    /// Leave out the rules `c *:* m` and `b *:* m` that every runtime appends. They let a container
    /// make, but not open, any device node; package managers and nested builds rely on it.
    pub no_mknod: bool,
    /// The caller lacks `CAP_SYS_ADMIN` over the host: device rules cannot be loaded (and no device
    /// node be made, so nothing is lost), and directories that may not be made are done without,
    /// unless a limit needs them.
    pub rootless: bool,
    /// Ask the user's own systemd, not the system's.
    pub user: bool,
    /// Whose systemd that is: the caller's user id.
    pub uid: u32,
}

/// The systemd unit of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedUnit {
    /// Its name.
    pub unit: Unit,
    /// Its properties, but for its process.
    pub properties: Vec<Property>,
}

/// One write to one file of a container's cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Whose directory the file is in: a v1 hierarchy with it, else v2. `cgroup`: the v2 core.
    pub controller: String,
    /// The file's name.
    pub file: String,
    /// What to write, in one write(2).
    pub value: String,
    /// File and value to use where the kernel lacks the first file.
    pub or: Option<(String, String)>,
    /// Neither file being there is fine: the value asks for what is so anyway.
    pub absent_ok: bool,
    /// After clone3: it would already hinder that.
    pub late: bool,
    /// Its JSON pointer in config.json.
    pub at: String,
}

impl Write {
    /// A plain write, which must succeed.
    pub fn new(controller: &str, file: &str, value: impl fmt::Display, at: &str) -> Self {
        Self {
            controller: controller.to_owned(),
            file: file.to_owned(),
            value: value.to_string(),
            or: None,
            absent_ok: false,
            late: false,
            at: at.to_owned(),
        }
    }
}

/// A container's cgroups as planned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placement {
    /// Who makes them.
    pub manager: Manager,
    /// The directory in each hierarchy, without `/` in front, lexically checked.
    pub path: String,
    /// Whether `path` starts at the runtime's own cgroup (beside it on v2) instead of the mount point.
    pub relative: bool,
    /// In order. v1 device rules are among them.
    pub writes: Vec<Write>,
    /// Device rules for a BPF program on the v2 cgroup, in order; the last that matches decides.
    pub devices: Option<Vec<DeviceRule>>,
    /// `memory.checkBeforeUpdate` on v2: refuse if more than this is in use (with its pointer).
    pub memory_at_most: Option<(u64, &'static str)>,
    /// Directories that may not be made are done without (see [`Options::rootless`]).
    pub optional: bool,
    /// Cgroups below it that the process is put into.
    pub inner: Inner,
    /// With [`Manager::Systemd`], which makes the directories; `path` is where they are expected.
    pub unit: Option<PlannedUnit>,
}

impl Placement {
    /// The directories it means, as an intent: to be recorded before anything is made.
    #[must_use]
    pub fn record(&self, layout: &Layout) -> Record {
        let mut places = Vec::new();
        if !self.path.is_empty() {
            let path = CgroupPath { path: self.path.clone(), relative: self.relative };
            places.extend(layout.v1.iter().map(|hierarchy| Place {
                controllers: hierarchy.controllers.join(","),
                mount: hierarchy.mount.clone(),
                path: path.below(&hierarchy.self_path, false),
                inode: None,
            }));
            places.extend(layout.v2.iter().map(|v2| Place {
                controllers: String::new(),
                mount: v2.mount.clone(),
                path: path.below(&v2.self_path, true),
                inode: None,
            }));
        }
        let unit = self.unit.as_ref().map(|planned| planned.unit.clone());
        Record { manager: self.manager, owned: false, places, unit }
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let below = if self.relative { "own cgroup" } else { "mount point" };
        writeln!(f, "{} at {} below {below}", self.manager.name(), self.path)?;
        for write in &self.writes {
            write!(f, "{}: {} = {:?}", write.controller, write.file, write.value)?;
            if let Some((file, value)) = &write.or {
                write!(f, " or {file} = {value:?}")?;
            }
            for (set, word) in [(write.absent_ok, " if there"), (write.late, " late")] {
                f.write_str(if set { word } else { "" })?;
            }
            writeln!(f, " <- {}", write.at)?;
        }
        for name in self.inner.subgroup.iter().chain(&self.inner.delegated) {
            writeln!(f, "below it {name}")?;
        }
        if let Some((limit, at)) = self.memory_at_most {
            writeln!(f, "memory.current <= {limit} <- {at}")?;
        }
        for rule in self.devices.iter().flatten() {
            writeln!(f, "device {rule}")?;
        }
        for property in self.unit.iter().flat_map(|planned| &planned.properties) {
            writeln!(f, "property {property}")?;
        }
        Ok(())
    }
}

/// Plans a container's cgroups. All that cannot be done becomes a problem at its JSON pointer.
pub fn plan(
    linux: &Linux,
    annotations: &BTreeMap<String, String>,
    id: &str,
    options: &Options,
    layout: &Layout,
    findings: &mut Findings,
) -> Placement {
    let mut placement =
        Placement { manager: options.manager, optional: options.rootless, ..Placement::default() };
    if options.manager == Manager::Disabled {
        if linux.resources().is_some() {
            findings.warn(
                Code::W_NOT_APPLIED,
                "/linux/resources",
                "not applied: cgroups are disabled",
            );
        }
        return placement;
    }
    if layout.v1.is_empty() && layout.v2.is_none() && !options.rootless {
        findings.problem(
            Code::E_CGROUP_NONE,
            "/linux/resources",
            "no cgroup filesystem is mounted on this host",
        );
        return placement;
    }
    let config = linux.cgroups_path().as_ref().map(|path| path.to_string_lossy());
    let scope = if options.manager == Manager::Systemd {
        plan_scope(config.as_deref(), id, options, layout, findings, &mut placement)
    } else {
        plan_path(config.as_deref(), id, layout, findings, &mut placement);
        None
    };
    placement.inner = inner::plan(annotations, options.manager, layout, findings);
    if let Some(config) = linux.resources() {
        let planned = resources::plan(config, layout, findings);
        placement.writes = planned.writes;
        placement.memory_at_most = planned.memory_at_most;
    }
    let rules = plan_devices(linux, options, layout, findings, &mut placement);
    if let Some(scope) = scope {
        let wanted = systemd::Wanted {
            id,
            slice: &scope.slice,
            v2: layout.v1.is_empty(),
            writes: &placement.writes,
            devices: rules.as_deref(),
            annotations,
        };
        let properties = systemd::properties(&wanted, findings);
        let unit = Unit { name: scope.unit, user: options.user };
        placement.unit = Some(PlannedUnit { unit, properties });
    }
    placement
}

fn plan_path(
    config: Option<&str>,
    id: &str,
    layout: &Layout,
    findings: &mut Findings,
    placement: &mut Placement,
) {
    match path::read(config, id) {
        Ok(path) => (placement.path, placement.relative) = (path.path, path.relative),
        Err(text) => findings.problem(Code::E_CGROUP_PATH, "/linux/cgroupsPath", text),
    }
    if placement.relative {
        check_own(placement, layout, findings);
    }
}

/// A scope, and where its cgroup will be.
fn plan_scope(
    config: Option<&str>,
    id: &str,
    options: &Options,
    layout: &Layout,
    findings: &mut Findings,
    placement: &mut Placement,
) -> Option<Scope> {
    match systemd::name::read(config, id, options.user) {
        Ok(scope) => {
            let own = layout.v2.as_ref().map_or("", |v2| v2.self_path.as_str());
            placement.path = systemd::name::expected(&scope, options.user, own, options.uid);
            Some(scope)
        }
        Err(text) => {
            findings.problem(Code::E_CGROUP_PATH, "/linux/cgroupsPath", text);
            None
        }
    }
}

/// A relative path is joined to the runtime's own cgroup, which the kernel shows as `/../x` where it
/// lies outside of what our cgroup namespace and mounts show.
fn check_own(placement: &Placement, layout: &Layout, findings: &mut Findings) {
    for place in placement.record(layout).places {
        if let Err(text) = path::check(&place.path) {
            let text =
                format!("relative, but the runtime's own cgroup below {} {text}", place.mount);
            findings.problem(Code::E_CGROUP_PATH, "/linux/cgroupsPath", text);
        }
    }
}

fn plan_devices(
    linux: &Linux,
    options: &Options,
    layout: &Layout,
    findings: &mut Findings,
    placement: &mut Placement,
) -> Option<Vec<DeviceRule>> {
    const AT: &str = "/linux/resources/devices";
    let config = linux.resources().as_ref().and_then(|resources| resources.devices().as_ref());
    let asked = config.map_or(&[][..], Vec::as_slice);
    let rules = devices::rules(asked, options, findings);
    if options.rootless {
        if !asked.is_empty() {
            findings.warn(
                Code::W_NOT_APPLIED,
                AT,
                "not applied: it takes CAP_SYS_ADMIN over the host",
            );
        }
        return None;
    }
    let plain: Vec<DeviceRule> = rules.iter().map(|(rule, _)| *rule).collect();
    if layout.side("devices") == Some(Side::V1) {
        match devices::v1_writes(&rules) {
            Ok(writes) => {
                let denies = writes.len() > 1 && devices::allowed(&plain).0;
                if options.manager == Manager::Systemd && denies {
                    let text = "forbids some of all devices: systemd cannot keep that on cgroup v1";
                    findings.problem(Code::E_DEVICE_RULE, AT, text);
                }
                placement.writes.extend(writes);
            }
            Err(at) => findings.problem(Code::E_DEVICE_RULE, at, devices::V1_CANNOT),
        }
    } else if layout.v2.is_some() {
        placement.devices = Some(plain.clone());
    } else {
        findings.problem(
            Code::E_CGROUP_CONTROLLER,
            AT,
            "the devices controller is not available on this host",
        );
    }
    Some(plain)
}
