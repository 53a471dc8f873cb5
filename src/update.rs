//! Changing the resources of a container that is there.

use std::os::fd::AsFd;

use oci_spec::runtime::{LinuxIntelRdt, LinuxResources};
use serde_json::{Value, json};

use crate::cgroup::{self, Options};
use crate::container::{Container, Status};
use crate::error::{Code, Error, Finding, Findings, NOT_RUNNING, Result};
use crate::host::Host;
use crate::{bundle, plan, rdt, state, sys};

/// Applies `asked`, an object like `linux.resources`, and remembers it for the next time; schemata are
/// the container's resctrl group's; `rootless` is that of create's options. Either all of it holds afterwards
/// or nothing has changed. Returns warnings.
pub fn update(
    container: &Container,
    asked: &Value,
    schemata: Option<&LinuxIntelRdt>,
    (host, rootless): (&Host, bool),
) -> Result<Vec<Finding>> {
    let _lock = container.lock()?;
    if !matches!(container.status()?, Status::Created | Status::Running | Status::Paused) {
        return Err(Error::text(Code::E_NOT_RUNNING, NOT_RUNNING));
    }
    let mut group = container.cgroup()?.ok_or_else(|| {
        Error::text(Code::E_STATUS, "/linux/resources: the container has no cgroup")
    })?;
    let kept = resources(container)?;
    let merged = cgroup::merge(&kept, asked);
    let (typed, mut warnings) = typed(asked)?;
    let mut findings = Findings::default();
    let options =
        Options { manager: container.state.cgroup.manager, rootless, ..Options::default() };
    let update = cgroup::plan_update(
        &self::typed(&kept)?.0,
        &typed,
        &self::typed(&merged)?.0,
        &options,
        &host.cgroups,
        &mut findings,
    );
    let schemata = plan::rdt::plan(schemata, &mut findings);
    warnings.extend(findings.finish()?);
    let schemata = match (&schemata, &container.state.rdt) {
        (Some(schemata), Some(record)) => Some((record, schemata)),
        (Some(_), None) => {
            let text = "/linux/intelRdt: the container has no resctrl group";
            return Err(Error::text(Code::E_RDT, text));
        }
        (None, _) => None,
    };
    // Written first, so that a full disk is noticed before anything has changed.
    let dir = container.dir.as_fd();
    state::write_file(dir, c".resources.json", merged.to_string().as_bytes())?;
    match apply(schemata, || group.update(&update)) {
        Ok(()) => sys::fs::renameat(dir, c".resources.json", c"resources.json")?,
        Err(error) => {
            sys::fs::unlinkat(dir, c".resources.json", 0)?;
            return Err(error);
        }
    }
    Ok(warnings)
}

/// Both or none.
fn apply(
    schemata: Option<(&state::RdtRecord, &plan::rdt::Rdt)>,
    limits: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let Some((record, schemata)) = schemata else { return limits() };
    let before = rdt::change(record, schemata)?;
    limits().map_err(|error| match rdt::take_back(record, &before) {
        Ok(()) => error,
        Err(left) => error.and(left),
    })
}

/// What holds now: the last update's, else what the container was made with.
fn resources(container: &Container) -> Result<Value> {
    let updated = state::read_file(container.dir.as_fd(), c"resources.json", bundle::MAX_BYTES);
    let (bytes, pointer) = match updated {
        Ok(bytes) => (bytes, ""),
        Err(error) if error.errno == libc::ENOENT => (container.config()?, "/linux/resources"),
        Err(error) => return Err(error.into()),
    };
    let document: Value = serde_json::from_slice(&bytes).map_err(|error| {
        Error::text(Code::E_STATE_DAMAGED, format!("the kept configuration: {error}"))
    })?;
    Ok(document.pointer(pointer).cloned().unwrap_or_else(|| json!({})))
}

/// Resources in the spec's types, by way of a whole configuration: problems have its pointers then.
fn typed(resources: &Value) -> Result<(LinuxResources, Vec<Finding>)> {
    let config = json!({ "ociVersion": "1.0.0", "linux": { "resources": resources } });
    let (config, warnings) = bundle::config(config.to_string().as_bytes())?;
    let resources = config.linux.and_then(|linux| linux.resources().clone());
    Ok((resources.unwrap_or_default(), warnings))
}
