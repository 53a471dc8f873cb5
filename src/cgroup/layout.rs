//! What cgroup hierarchies this host has, and where the runtime itself is in them.
//!
//! Gathering and parsing are apart. A pure v2 host costs nine system calls and no look at
//! `/proc/self/mountinfo`, which grows with the number of mounts (1 ms per thousand); only where
//! `/sys/fs/cgroup` is no cgroup2 is it read, once.

use super::plan::Manager;
use super::record::{Place, Record};
use crate::error::{Code, Error, Result};
use crate::sys::{self, fs};

/// Where cgroup2 is on every pure v2 host.
const USUAL: &str = "/sys/fs/cgroup";

/// A cgroup v1 hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// What is mounted together, in the kernel's order: `["cpu", "cpuacct"]` or `["name=systemd"]`.
    pub controllers: Vec<String>,
    /// The mount point, without links.
    pub mount: String,
    /// The runtime's own cgroup, as seen below the mount point; starts with `/`.
    pub self_path: String,
}

/// The cgroup v2 hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct V2 {
    /// The mount point, without links.
    pub mount: String,
    /// The runtime's own cgroup, as seen below the mount point; starts with `/`.
    pub self_path: String,
    /// `cgroup.controllers` at the mount point.
    pub controllers: Vec<String>,
}

/// The hierarchies of this host: v1 only, v2 only, or both (hybrid).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    /// The v1 hierarchies that are mounted and can be reached.
    pub v1: Vec<Hierarchy>,
    /// The v2 hierarchy, if it is mounted and can be reached.
    pub v2: Option<V2>,
}

/// Which kind of hierarchy has a controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    V1,
    V2,
}

impl Layout {
    /// The runtime's own cgroups: those of a container that gets none.
    #[must_use]
    pub fn own(&self) -> Record {
        let place = |controllers: String, mount: &str, path: &str| Place {
            controllers,
            mount: mount.to_owned(),
            path: path.trim_matches('/').to_owned(),
            inode: None,
        };
        let v1 =
            self.v1.iter().map(|one| place(one.controllers.join(","), &one.mount, &one.self_path));
        let v2 = self.v2.iter().map(|v2| place(String::new(), &v2.mount, &v2.self_path));
        Record {
            manager: Manager::Disabled,
            owned: false,
            unit: None,
            places: v1.chain(v2).collect(),
        }
    }

    /// Where a controller is: a controller is bound to a v1 hierarchy or to v2, never to both.
    pub(super) fn side(&self, controller: &str) -> Option<Side> {
        if self.v1.iter().any(|hierarchy| hierarchy.controllers.iter().any(|has| has == controller))
        {
            return Some(Side::V1);
        }
        let v2 = self.v2.as_ref()?;
        v2.controllers.iter().any(|has| has == controller).then_some(Side::V2)
    }
}

/// Looks at this host.
///
/// # Errors
/// When `/proc` or a mounted cgroup2 cannot be read. A host without cgroups is an empty layout.
pub fn detect() -> Result<Layout> {
    let own = read("/proc/self/cgroup", fs::read_small)?;
    if is_cgroup2(USUAL)? {
        // v1 mounts below it, if any, are hidden: only one filesystem can be seen there.
        let v2 = V2 {
            mount: USUAL.to_owned(),
            self_path: v2_path(&own).unwrap_or("/").to_owned(),
            controllers: controllers(USUAL)?,
        };
        return Ok(Layout { v1: Vec::new(), v2: Some(v2) });
    }
    let mut layout = parse(&own, &read("/proc/self/mountinfo", fs::read_to_end)?);
    if let Some(v2) = &mut layout.v2 {
        v2.controllers = controllers(&v2.mount)?;
    }
    Ok(layout)
}

fn is_cgroup2(path: &str) -> sys::Result<bool> {
    match fs::open(&sys::cstr("open", path)?, libc::O_PATH | libc::O_DIRECTORY) {
        Ok(fd) => Ok(fs::fs_magic(std::os::fd::AsFd::as_fd(&fd))? == libc::CGROUP2_SUPER_MAGIC),
        // Cgroups may be mounted elsewhere, or not at all.
        Err(error) if error.errno == libc::ENOENT => Ok(false),
        Err(error) => Err(error),
    }
}

fn controllers(mount: &str) -> Result<Vec<String>> {
    let text = read(&format!("{mount}/cgroup.controllers"), fs::read_small)?;
    Ok(text.split_ascii_whitespace().map(str::to_owned).collect())
}

fn read(
    path: &str,
    how: fn(std::os::fd::BorrowedFd<'_>, usize) -> sys::Result<Vec<u8>>,
) -> Result<String> {
    let fd = fs::open(&sys::cstr("open", path)?, libc::O_RDONLY)?;
    let bytes =
        how(std::os::fd::AsFd::as_fd(&fd), 256 << 20).map_err(Error::at(Code::E_CGROUP, path))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The path of the `0::` line of `/proc/PID/cgroup`.
pub(super) fn v2_path(own: &str) -> Option<&str> {
    own.lines().find_map(|line| line.strip_prefix("0::"))
}

/// The path in the v1 hierarchy with this one controller or name.
pub(super) fn v1_path<'a>(own: &'a str, controllers: &str) -> Option<&'a str> {
    own.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        rest.strip_prefix(controllers)?.strip_prefix(':')
    })
}

/// One line of mountinfo, as far as it matters here.
#[derive(Debug)]
struct Mount<'a> {
    id: &'a str,
    parent: &'a str,
    root: String,
    point: String,
    fstype: &'a str,
    options: &'a str,
}

/// Finds the hierarchies by `/proc/self/cgroup` (which exist, where we are) and
/// `/proc/self/mountinfo` (where they are mounted). v2's controllers are left empty.
pub(super) fn parse(own: &str, mountinfo: &str) -> Layout {
    let candidates: Vec<Mount<'_>> = mountinfo
        .match_indices(" - cgroup")
        .filter_map(|(at, _)| mount_of(line_at(mountinfo, at)))
        .filter(|mount| matches!(mount.fstype, "cgroup" | "cgroup2"))
        .collect();
    if candidates.is_empty() {
        return Layout::default();
    }
    // Only mounts on the way to a candidate can lead to it or hide it.
    let around: Vec<Mount<'_>> = mountinfo
        .lines()
        .filter(|line| {
            let point = line.split(' ').nth(4).unwrap_or_default();
            point.contains('\\') || candidates.iter().any(|mount| covers(point, &mount.point))
        })
        .filter_map(mount_of)
        .collect();
    let usable: Vec<&Mount<'_>> =
        candidates.iter().filter(|mount| is_visible(&around, mount)).collect();
    let mut layout = Layout::default();
    for line in own.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(names), Some(path)) = (fields.next(), fields.next()) else { continue };
        let Some(mount) = best(&usable, names) else { continue };
        let (mount_point, self_path) = (mount.point.clone(), below(&mount.root, path));
        if names.is_empty() {
            let controllers = Vec::new();
            layout.v2 = Some(V2 { mount: mount_point, self_path, controllers });
        } else {
            let controllers = names.split(',').map(str::to_owned).collect();
            layout.v1.push(Hierarchy { controllers, mount: mount_point, self_path });
        }
    }
    layout
}

fn line_at(text: &str, at: usize) -> &str {
    let (before, after) = text.split_at(at);
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let end = after.find('\n').map_or(text.len(), |newline| at + newline);
    text.get(start..end).unwrap_or_default()
}

fn mount_of(line: &str) -> Option<Mount<'_>> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ');
    let (id, parent) = (left.next()?, left.next()?);
    let (root, point) = (left.nth(1)?, left.next()?);
    let mut right = right.split(' ');
    let (fstype, options) = (right.next()?, right.nth(1).unwrap_or_default());
    Some(Mount { id, parent, root: unescape(root), point: unescape(point), fstype, options })
}

/// mountinfo writes space, tab, newline and backslash as three octal digits.
fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(char::from(byte));
                out.push_str(part.get(3..).unwrap_or_default());
            }
            None => out.push_str(part),
        }
    }
    out
}

/// Whether `inner` is `outer` or below it.
fn covers(outer: &str, inner: &str) -> bool {
    outer == "/"
        || inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether looking its mount point up ends at this mount: a later mount above it, or on it, hides it.
fn is_visible(around: &[Mount<'_>], target: &Mount<'_>) -> bool {
    let is_start = |mount: &&Mount<'_>| {
        mount.point == "/"
            && !around.iter().any(|other| other.id == mount.parent && other.id != mount.id)
    };
    let Some(mut current) = around.iter().find(is_start) else { return false };
    let mut first = true;
    loop {
        // A mount on "/" itself is not entered: look-ups start below it.
        let next = around
            .iter()
            .filter(|mount| mount.parent == current.id && mount.id != current.id)
            .filter(|mount| covers(&mount.point, &target.point) && !(first && mount.point == "/"))
            .min_by_key(|mount| mount.point.len());
        match next {
            Some(mount) => current = mount,
            None => return current.id == target.id,
        }
        first = false;
    }
}

/// The mount of the hierarchy with these controllers (none: v2). One that shows the whole hierarchy
/// is better than one that shows a part, and one below /sys/fs/cgroup better than a copy elsewhere.
fn best<'a, 'b>(usable: &[&'b Mount<'a>], names: &str) -> Option<&'b Mount<'a>> {
    let fits = |mount: &Mount<'_>| {
        if names.is_empty() {
            return mount.fstype == "cgroup2";
        }
        mount.fstype == "cgroup"
            && names.split(',').all(|name| mount.options.split(',').any(|option| option == name))
    };
    let rank = |mount: &&&Mount<'_>| (!covers(USUAL, &mount.point), mount.root != "/");
    usable.iter().filter(|mount| fits(mount)).min_by_key(rank).copied()
}

/// A path of the hierarchy as seen below a mount whose root is `root`.
fn below(root: &str, path: &str) -> String {
    if root == "/" {
        return path.to_owned();
    }
    match path.strip_prefix(root) {
        Some(rest) if rest.starts_with('/') => rest.to_owned(),
        _ => "/".to_owned(),
    }
}
