//! Device nodes: the spec's defaults and those asked for.

use std::path::Path;

use oci_spec::runtime::{Linux, LinuxDevice, LinuxDeviceType};

use super::mounts::{Mount, Source, clean};
use crate::error::{At, Code, Findings};

/// One device node to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its place in config.json.
    pub at: At,
    /// Absolute path in the container.
    pub path: String,
    /// `S_IFCHR`, `S_IFBLK` or `S_IFIFO`, with the permission bits.
    pub mode: u32,
    /// `makedev(major, minor)`.
    pub dev: u64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The host's own node is bound there: its owner and mode stay what they are.
    pub bind: bool,
}

impl Device {
    fn kind(&self) -> u32 {
        self.mode & libc::S_IFMT
    }
}

const DEFAULTS: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/tty", 5, 0),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
];

/// Whether /dev is the host's own by a bind mount: then nothing is made there.
#[must_use]
pub fn dev_is_bound(mounts: &[Mount]) -> bool {
    mounts
        .iter()
        .any(|mount| mount.destination == "/dev" && matches!(mount.source, Source::Bind { .. }))
}

/// Whether something else than [`plan`] makes what a configuration lists as this device: whoever has filled a
/// /dev that is bound (of a privileged container engines list all of the host's), or the link to the
/// container's own `pts/ptmx`, or whoever has mounted something on it (docker's `-v /dev/urandom:/dev/random`).
fn is_made_elsewhere(path: &str, mounts: &[Mount]) -> bool {
    match path.strip_prefix("/dev/") {
        Some(_) if dev_is_bound(mounts) => true,
        _ if is_covered(path, mounts) => true,
        Some("ptmx") => mounts.iter().any(|mount| mount.destination == "/dev/pts"),
        _ => false,
    }
}

/// Whether the last mount at the path or above it is at the very path: nothing hides it.
fn is_covered(path: &str, mounts: &[Mount]) -> bool {
    let holds = |mount: &&Mount| {
        let below = path.strip_prefix(&mount.destination);
        below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) && !mount.options.remount
    };
    mounts.iter().rfind(holds).is_some_and(|mount| mount.destination == path)
}

/// The default devices unless /dev is bound, then those asked for; one asked for replaces a default. The same
/// device twice at one path (docker's `--device` of a directory and of a node in it) is one, the first.
pub fn plan(linux: &Linux, mounts: &[Mount], bind: bool, findings: &mut Findings) -> Vec<Device> {
    let mut devices: Vec<Device> = Vec::new();
    if !dev_is_bound(mounts) {
        let made = DEFAULTS.iter().filter(|(path, ..)| !is_covered(path, mounts));
        devices.extend(made.map(|(path, major, minor)| Device {
            at: At::of("/linux/devices"),
            path: (*path).to_owned(),
            mode: libc::S_IFCHR | 0o666,
            dev: libc::makedev(*major, *minor),
            uid: 0,
            gid: 0,
            bind,
        }));
    }
    for (index, spec) in linux.devices().iter().flatten().enumerate() {
        let at = At::item("/linux/devices", index);
        let Some(mut device) = one(at, spec, findings) else { continue };
        if is_made_elsewhere(&device.path, mounts) {
            continue;
        }
        device.bind = bind && device.kind() != libc::S_IFIFO;
        match devices.iter_mut().find(|known| known.path == device.path) {
            Some(known) if known.at == At::of("/linux/devices") => *known = device,
            Some(known) if (known.kind(), known.dev) == (device.kind(), device.dev) => {}
            Some(_) => {
                findings.problem(Code::E_DEVICE, at.leaf("/path"), "another device has this path");
            }
            None => devices.push(device),
        }
    }
    devices
}

fn one(at: At, spec: &LinuxDevice, findings: &mut Findings) -> Option<Device> {
    let kind = match spec.typ() {
        LinuxDeviceType::C | LinuxDeviceType::U => libc::S_IFCHR,
        LinuxDeviceType::B => libc::S_IFBLK,
        LinuxDeviceType::P => libc::S_IFIFO,
        LinuxDeviceType::A => {
            findings.problem(Code::E_DEVICE, at.leaf("/type"), "a node is of type c, b, u or p");
            return None;
        }
    };
    let path: &Path = spec.path();
    super::check::no_nul(at.leaf("/path"), &path.to_string_lossy(), findings);
    if !path.is_absolute() {
        findings.problem(Code::E_NOT_ABSOLUTE, at.leaf("/path"), "not an absolute path");
        return None;
    }
    let number =
        |value: i64, leaf: &'static str, findings: &mut Findings| match u32::try_from(value) {
            Ok(value) => value,
            Err(_) if kind == libc::S_IFIFO => 0,
            Err(_) => {
                findings.problem(
                    Code::E_DEVICE,
                    at.leaf(leaf),
                    format!("{value} is no device number"),
                );
                0
            }
        };
    let major = number(spec.major(), "/major", findings);
    let minor = number(spec.minor(), "/minor", findings);
    let mode = spec.file_mode().unwrap_or(0o666);
    let (uid, gid) = (spec.uid().unwrap_or(0), spec.gid().unwrap_or(0));
    super::check::id(at.leaf("/uid"), uid, findings);
    super::check::id(at.leaf("/gid"), gid, findings);
    let dev = libc::makedev(major, minor);
    Some(Device { at, path: clean(path), mode: kind | (mode & 0o7777), dev, uid, gid, bind: false })
}
