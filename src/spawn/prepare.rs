//! The parent's preparations: everything of the host that the child will need is opened here, before
//! the first target inside the container is touched (CVE-2021-30465).

use std::cell::OnceCell;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::idmap;
use crate::error::{At, Code, Error, Findings, Result};
use crate::host::Host;
use crate::plan::devices::Device;
use crate::plan::ids::{IdMappings, IdRange};
use crate::plan::mounts::{Mount, Source};
use crate::plan::namespaces::{Joined, Kind};
use crate::plan::options::attr;
use crate::plan::{Plan, Switch};
use crate::state::RdtRecord;
use crate::sys;
use crate::sys::mount::MountAttr;

/// What the child inherits, opened.
#[derive(Debug)]
pub struct Prepared {
    /// The rootfs directory, for the child's current directory.
    pub rootfs: OwnedFd,
    /// For each joined namespace of the plan, its file.
    pub namespaces: Vec<OwnedFd>,
    /// For each mount of the plan, the user namespace that maps its ids.
    pub id_maps: Vec<Option<OwnedFd>>,
    /// What will be the container's resctrl group.
    pub rdt: Option<RdtRecord>,
    /// The maps of the container's user namespace, new or joined.
    pub ids: Option<IdMappings>,
    /// The sources of its mounts: opened by the parent or, where it may not, by the child.
    pub sources: OnceCell<Sources>,
}

/// Detached clones of mounts.
#[derive(Debug)]
pub struct Sources {
    /// The rootfs with its mounts; none with [`Switch::Chroot`].
    pub tree: Option<OwnedFd>,
    /// For each mount of the plan, its source if it is a bind mount.
    pub mounts: Vec<Option<OwnedFd>>,
    /// For each device of the plan, the host's node if that is to be bound.
    pub devices: Vec<Option<OwnedFd>>,
    /// The host's /dev/null, to mask files with.
    pub null: Option<OwnedFd>,
}

/// Opens everything the plan names on the host.
pub fn prepare(plan: &Plan, host: &Host) -> Result<Prepared> {
    let mut failed = Vec::new();
    let mut note = |error| failed.push(error);
    let namespaces: Vec<OwnedFd> = plan
        .namespaces
        .joined
        .iter()
        .filter_map(|joined| join_file(joined).map_err(&mut note).ok())
        .collect();
    let rootfs = open_rootfs(&plan.rootfs).map_err(&mut note);
    // What follows wants the namespaces in pairs with the plan's.
    let rootfs = match (Error::all(failed), rootfs) {
        (None, Ok(rootfs)) => rootfs,
        (Some(error), _) => return Err(error),
        (None, Err(())) => return Err(Error::text(Code::E_INTERNAL, "a failure was not noted")),
    };
    foreign_only(plan, &namespaces)?;
    let rdt = plan.rdt.as_ref().map(|rdt| crate::rdt::intend(rdt, &plan.id)).transpose()?;
    let ids = id_mappings(plan, &namespaces)?;
    let id_maps = idmap::namespaces(plan, &namespaces, host)?;
    let prepared = Prepared { rootfs, namespaces, id_maps, rdt, ids, sources: OnceCell::new() };
    if plan.parent_opens {
        let opened = sources(plan, (prepared.rootfs.as_fd(), c""), &prepared, None)?;
        // Otherwise this only finds out whether they are all there.
        if !plan.locks_mounts() {
            prepared.keep(opened)?;
        }
    }
    Ok(prepared)
}

impl Prepared {
    /// Sets the sources, once.
    pub fn keep(&self, sources: Sources) -> Result<()> {
        self.sources
            .set(sources)
            .map_err(|_| Error::text(Code::E_INTERNAL, "the sources have been opened before"))
    }
}

impl Sources {
    /// Those that the plan has, in a fixed order.
    pub fn into_list(self) -> Vec<OwnedFd> {
        let Self { tree, mounts, devices, null } = self;
        tree.into_iter().chain(mounts.into_iter().chain(devices).flatten()).chain(null).collect()
    }

    /// The same of the descriptors of such a list, one after the other.
    pub fn from_list(plan: &Plan, mut next: impl FnMut() -> Result<OwnedFd>) -> Result<Self> {
        let mut wanted = |there: bool| there.then(&mut next).transpose();
        let has_source =
            |mount: &Mount| matches!(mount.source, Source::Bind { .. } | Source::Notify);
        Ok(Self {
            tree: wanted(plan.switch != Switch::Chroot)?,
            mounts: plan
                .mounts
                .iter()
                .map(|mount| wanted(has_source(mount)))
                .collect::<Result<_>>()?,
            devices: plan
                .devices
                .iter()
                .map(|device| wanted(device.bind))
                .collect::<Result<_>>()?,
            null: wanted(!plan.masked.is_empty())?,
        })
    }
}

/// Clones all sources, before the first target is touched. The root filesystem is given by a
/// descriptor of this process' own mount namespace, the directory of the notify socket by that of the
/// state directory, once it is there.
pub fn sources(
    plan: &Plan,
    (dir, path): (BorrowedFd<'_>, &CStr),
    prepared: &Prepared,
    state: Option<&CStr>,
) -> Result<Sources> {
    let tree = match plan.switch {
        Switch::Chroot => None,
        _ => Some(
            clone_tree(dir, path, true, &MountAttr::propagates(plan.propagation))
                .map_err(Error::at(Code::E_ROOTFS, "/root/path"))?,
        ),
    };
    let mut failed = Vec::new();
    let mounts = plan
        .mounts
        .iter()
        .zip(&prepared.id_maps)
        .filter_map(|(mount, map)| {
            opened(mount, map.as_ref(), plan.propagation, state)
                .map_err(|error| failed.push(error))
                .ok()
        })
        .collect();
    if let Some(error) = Error::all(failed) {
        return Err(error);
    }
    let devices = plan
        .devices
        .iter()
        .map(|device| if device.bind { node(device, plan, prepared).map(Some) } else { Ok(None) })
        .collect::<Result<Vec<_>>>()?;
    let null = if plan.masked.is_empty() { None } else { Some(null_device(plan)?) };
    Ok(Sources { tree, mounts, devices, null })
}

/// The source of one mount, if it has one to open.
fn opened(
    mount: &Mount,
    map: Option<&OwnedFd>,
    propagation: u64,
    state: Option<&CStr>,
) -> Result<Option<OwnedFd>> {
    match (&mount.source, state) {
        (Source::Notify, Some(state)) => {
            let path = [state.to_bytes(), b"/", crate::sd_notify::DIRECTORY.to_bytes()];
            let path = sys::cstr("open_tree", path.concat())?;
            Ok(Some(clone_tree(sys::fs::CWD, &path, false, &MountAttr::propagates(propagation))?))
        }
        _ => source(mount, propagation, map),
    }
}

/// The maps of the user namespace. Those of a joined one are found out, and must be what config.json
/// says of them, as far as it does.
fn id_mappings(plan: &Plan, files: &[OwnedFd]) -> Result<Option<IdMappings>> {
    let joined = plan.namespaces.joined.iter().zip(files);
    let Some((user, file)) = joined.into_iter().find(|(joined, _)| joined.kind == Kind::User)
    else {
        return Ok(plan.ids.clone());
    };
    let at = user.at.leaf("/path");
    if is_ours(Kind::User, file.as_fd())? {
        let text = "is the user namespace of the runtime itself, which is inherited anyway";
        return Err(Error::text(Code::E_ID_MAPPING, format!("{at}: {text}")));
    }
    let found = super::userns::maps_of(file.as_fd())
        .map_err(|error| Error::text(Code::E_ID_MAPPING, format!("{at}: {error}")))?;
    let same = |mut one: Vec<IdRange>, mut other: Vec<IdRange>| {
        one.sort_by_key(|range| range.container);
        other.sort_by_key(|range| range.container);
        one == other
    };
    if let Some(asked) = plan.ids.clone() {
        let there = found.clone();
        if !same(asked.uids, there.uids) || !same(asked.gids, there.gids) {
            let text = "its id maps are not those of uidMappings and gidMappings";
            return Err(Error::text(Code::E_ID_MAPPING, format!("{at}: {text}")));
        }
    }
    let mut findings = Findings::default();
    crate::plan::ids::check_process(Some(&found), plan.process.as_ref(), &mut findings);
    findings.finish()?;
    Ok(Some(found))
}

/// The host's device node, at the same path or where udev has its number, verified to be that device.
/// Read-only without a user namespace, whose root is the node's owner: it could change the mode for everybody.
fn node(device: &Device, plan: &Plan, prepared: &Prepared) -> Result<OwnedFd> {
    let set = if prepared.ids.is_none() { attr::RDONLY } else { 0 };
    let attr = MountAttr { set, ..MountAttr::propagates(plan.propagation) };
    let kind = device.mode & libc::S_IFMT;
    let class = if kind == libc::S_IFBLK { "block" } else { "char" };
    let (major, minor) = (libc::major(device.dev), libc::minor(device.dev));
    let by_number = format!("/dev/{class}/{major}:{minor}");
    let mut failed = sys::Error::new("open_tree", &device.path, libc::ENOENT);
    for path in [&device.path, &by_number] {
        let name =
            sys::cstr("open_tree", path).map_err(Error::at(Code::E_DEVICE_NODE, device.at))?;
        match clone_tree(sys::fs::CWD, &name, false, &attr) {
            Ok(tree) => {
                let stat = sys::fs::fstat(tree.as_fd())?;
                if stat.st_mode & libc::S_IFMT == kind && stat.st_rdev == device.dev {
                    return Ok(tree);
                }
            }
            Err(error) if error.errno == libc::ENOENT => {}
            Err(error) => failed = error,
        }
    }
    let text = format!(
        "{}: {}: no node can be made here, and the host has no {class} {major}:{minor} to be bound",
        device.at,
        device.path.escape_debug(),
    );
    match failed.errno {
        libc::ENOENT => Err(Error::text(Code::E_DEVICE_NODE, text)),
        _ => Err(Error::at(Code::E_DEVICE_NODE, device.at)(failed)),
    }
}

/// The rootfs directory; a link as its last component is refused, for it could be changed.
pub fn open_rootfs(path: &Path) -> Result<OwnedFd> {
    let at = At::of("/root/path");
    let name =
        sys::cstr("open", path.as_os_str().as_bytes()).map_err(Error::at(Code::E_ROOTFS, at))?;
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    sys::fs::open(&name, flags).map_err(Error::at(Code::E_ROOTFS, at))
}

/// A detached clone with attributes from the start: a propagation, so that it gives nothing back to the host.
pub fn clone_tree(
    dir: BorrowedFd<'_>,
    path: &CStr,
    recursive: bool,
    attr: &MountAttr,
) -> sys::Result<OwnedFd> {
    let all = if recursive { sys::mount::AT_RECURSIVE } else { 0 };
    let empty = if path.is_empty() { sys::mount::AT_EMPTY_PATH } else { 0 };
    let tree = sys::mount::open_tree(dir, path, sys::mount::OPEN_TREE_CLONE | all | empty)?;
    sys::mount::mount_setattr(tree.as_fd(), all, attr)?;
    Ok(tree)
}

fn source(mount: &Mount, propagation: u64, map: Option<&OwnedFd>) -> Result<Option<OwnedFd>> {
    let Source::Bind { path, recursive } = &mount.source else { return Ok(None) };
    let at = mount.at.leaf("/source");
    let failed = |error: sys::Error| {
        let missing = error.errno == libc::ENOENT;
        let code = if missing { Code::E_MOUNT_SOURCE_MISSING } else { Code::E_MOUNT_SOURCE };
        Error::at(code, at)(error)
    };
    let name = sys::cstr("open_tree", path.as_os_str().as_bytes()).map_err(failed)?;
    let tree = clone_tree(
        sys::fs::CWD,
        &name,
        *recursive,
        &MountAttr::propagates(mount.options.whole_propagation().unwrap_or(propagation)),
    )
    .map_err(failed)?;
    if mount.destination == "/proc" {
        only_a_whole_procfs(mount, &tree)?;
    }
    idmap::apply(mount, tree.as_fd(), map)?;
    Ok(Some(tree))
}

/// On /proc only a real procfs may lie, whole (decision: rootless `--pid=host`).
fn only_a_whole_procfs(mount: &Mount, tree: &OwnedFd) -> Result<()> {
    const PROC_ROOT_INO: u64 = 1;
    let real = sys::fs::fs_magic(tree.as_fd())? == libc::PROC_SUPER_MAGIC
        && sys::fs::fstat(tree.as_fd())?.st_ino == PROC_ROOT_INO;
    if real {
        return Ok(());
    }
    Err(Error::text(
        Code::E_MOUNT_ON_PROC,
        format!("{}: only a procfs may be mounted on /proc", mount.at.leaf("/source")),
    ))
}

/// The host's /dev/null, verified: the container's own may be anything (CVE-2025-31133). Read-only: who is
/// root inside and out could change its mode for everybody by a chmod of what is masked.
fn null_device(plan: &Plan) -> Result<OwnedFd> {
    let attr = MountAttr { set: attr::RDONLY, ..MountAttr::propagates(plan.propagation) };
    let null = clone_tree(sys::fs::CWD, c"/dev/null", false, &attr)
        .map_err(Error::at(Code::E_MASKED_PATH, "/linux/maskedPaths"))?;
    if !sys::fs::is_null(&sys::fs::fstat(null.as_fd())?) {
        return Err(Error::text(
            Code::E_MASKED_PATH,
            "/linux/maskedPaths: the host's /dev/null is not the null device",
        ));
    }
    Ok(null)
}

/// Opens a namespace file and checks its kind.
fn join_file(joined: &Joined) -> Result<OwnedFd> {
    let at = joined.at.leaf("/path");
    let name = sys::cstr("open", joined.path.as_os_str().as_bytes())
        .map_err(Error::at(Code::E_NAMESPACE_PATH, at))?;
    // O_NONBLOCK: the path may be a FIFO.
    let file = sys::fs::open(&name, libc::O_RDONLY | libc::O_NONBLOCK)
        .map_err(Error::at(Code::E_NAMESPACE_PATH, at))?;
    let show = joined.path.display().to_string();
    match sys::process::namespace_kind(file.as_fd()) {
        Ok(kind) if kind == joined.kind.flag() => Ok(file),
        Ok(_) => Err(Error::text(
            Code::E_NAMESPACE_PATH,
            format!("{at}: {show} is not a {} namespace", joined.kind.name()),
        )),
        Err(error) if error.errno == libc::ENOTTY => {
            Err(Error::text(Code::E_NAMESPACE_PATH, format!("{at}: {show} is not a namespace")))
        }
        Err(error) => Err(Error::at(Code::E_NAMESPACE_PATH, at)(error)),
    }
}

/// A sysctl or a name in a joined namespace that is our own would change the host.
fn foreign_only(plan: &Plan, files: &[OwnedFd]) -> Result<()> {
    for (joined, file) in plan.namespaces.joined.iter().zip(files) {
        let named = plan.hostname.is_some() || plan.domainname.is_some();
        if joined.kind == Kind::Uts && named && is_ours(joined.kind, file.as_fd())? {
            return Err(Error::text(
                Code::E_NAMESPACE_HOST,
                format!(
                    "{}: the joined uts namespace is the host's, whose name would change",
                    joined.at.leaf("/path")
                ),
            ));
        }
        if joined.kind == Kind::Network
            && !plan.net_devices.is_empty()
            && is_ours(joined.kind, file.as_fd())?
        {
            let text = "/linux/netDevices: the joined network namespace is the host's";
            return Err(Error::text(Code::E_NAMESPACE_HOST, text));
        }
        let Some(sysctl) = plan.sysctls.iter().find(|sysctl| sysctl.kind == joined.kind) else {
            continue;
        };
        if is_ours(joined.kind, file.as_fd())? {
            return Err(Error::text(
                Code::E_NAMESPACE_HOST,
                format!(
                    "/linux/sysctl/{}: the joined {} namespace is the host's",
                    sysctl.name.escape_debug(),
                    joined.kind.name()
                ),
            ));
        }
    }
    Ok(())
}

/// Whether a namespace file is the one this process is in.
pub fn is_ours(kind: Kind, file: BorrowedFd<'_>) -> Result<bool> {
    let path = CString::new(format!("/proc/self/ns/{}", kind.file())).unwrap_or_default();
    let ours = sys::fs::statat(sys::fs::CWD, &path, 0)?;
    let theirs = sys::fs::fstat(file)?;
    Ok((ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino))
}
