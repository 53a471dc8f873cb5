//! Mounts: built detached with all their attributes, then attached by descriptor.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::{Child, Create, copyup, leave_open, resolve};
use crate::error::{Code, Error, Result};
use crate::plan::mounts::{Mount, Source};
use crate::plan::options::{Attributes, Options, attr};
use crate::sys;
use crate::sys::mount::MountAttr;

/// Longest value that fsconfig(2) takes, in bytes.
const FSCONFIG_MAX: usize = 255;

/// Does one entry of `mounts`.
pub fn mount(child: &mut Child<'_>, index: usize) -> Result<()> {
    let create = child.create()?;
    let Some(mount) = create.plan.mounts.get(index) else { return Ok(()) };
    let root = super::rootfs::root(create);
    match &mount.source {
        Source::Bind { .. } | Source::Notify => {
            let tree = child.sources()?.mounts.get(index).and_then(Option::as_ref);
            bind(
                root,
                mount,
                tree.ok_or_else(|| Error::text(Code::E_INTERNAL, "source was not opened"))?,
            )
        }
        Source::Fs { fstype, source } => {
            let map = create.prepared.id_maps.get(index).and_then(Option::as_ref);
            let made = filesystem(create, root, (mount, map), fstype, source)?;
            if mount.is_readonly_tmpfs() {
                child.work.readonly_tmpfs.push((index, made));
            } else {
                leave_open([made]);
            }
            Ok(())
        }
        Source::Cgroup => cgroup(create, &child.work.cgroup_trees, root, (mount, index)),
        Source::Remount => remount(root, mount),
    }
}

/// Nothing more is made in this tmpfs.
pub fn make_readonly(child: &mut Child<'_>, index: usize) -> Result<()> {
    let waiting = &mut child.work.readonly_tmpfs;
    let Some(at) = waiting.iter().position(|(mount, _)| *mount == index) else {
        return Err(Error::text(Code::E_INTERNAL, "the tmpfs was not kept"));
    };
    let (_, made) = waiting.swap_remove(at);
    let attributes = MountAttr { set: attr::RDONLY, ..MountAttr::default() };
    sys::mount::mount_setattr(made.as_fd(), 0, &attributes)?;
    leave_open([made]);
    Ok(())
}

/// What is set when a filesystem is mounted.
fn first_attributes(mount: &Mount, plan: Attributes) -> MountAttr {
    let later = if mount.is_readonly_tmpfs() { attr::RDONLY } else { 0 };
    attributes(Attributes { set: plan.set & !later, ..plan })
}

fn bind(root: BorrowedFd<'_>, mount: &Mount, tree: &OwnedFd) -> Result<()> {
    set_own_attributes(tree.as_fd(), &mount.options)?;
    // The parent has cloned it with this propagation already.
    if mount.options.whole_propagation().is_none() {
        set_propagation(tree.as_fd(), &mount.options)?;
    }
    let target = match resolve::find(root, &mount.destination, libc::O_PATH)? {
        Some(target) => target,
        None if resolve::is_directory(tree.as_fd())? => {
            resolve::directory(root, &mount.destination)?
        }
        None => resolve::file(root, &mount.destination)?,
    };
    check_target(mount, &target)?;
    match attach(tree.as_fd(), target.fd.as_fd(), mount) {
        // The kernel's word for a directory on a file, or a file on a directory; engines look for ENOTDIR.
        Err(error)
            if error.errno() == Some(libc::EINVAL)
                && resolve::is_directory(tree.as_fd())?
                    != resolve::is_directory(target.fd.as_fd())? =>
        {
            Err(sys::Error::new("move_mount", mismatch(mount, tree)?, libc::ENOTDIR).into())
        }
        result => {
            leave_open([target.fd]);
            result
        }
    }
}

/// Both names and what each is: who called the engine knows no /mounts/7.
fn mismatch(mount: &Mount, tree: &OwnedFd) -> Result<String> {
    let kinds = if resolve::is_directory(tree.as_fd())? {
        ("directory", "file")
    } else {
        ("file", "directory")
    };
    let source = match &mount.source {
        Source::Bind { path, .. } => path.to_string_lossy(),
        _ => "".into(),
    };
    let (source, target) = (source.escape_debug(), mount.destination.escape_debug());
    Ok(format!("the {} {source} onto the {} {target}", kinds.0, kinds.1))
}

fn attach(tree: BorrowedFd<'_>, target: BorrowedFd<'_>, mount: &Mount) -> Result<()> {
    sys::mount::move_mount(tree, target)
        .map_err(|error| error.about(mount.destination.escape_debug()).into())
}

/// A target that links led onto a procfs is refused: /proc must stay what the kernel made it
/// (CVE-2019-16884, CVE-2025-52881). What a path itself says about /proc the plan has judged.
fn check_target(mount: &Mount, target: &resolve::Found) -> Result<()> {
    if mount.on_proc || target.literal {
        return Ok(());
    }
    if sys::fs::fs_magic(target.fd.as_fd())? == libc::PROC_SUPER_MAGIC {
        return Err(Error::text(
            Code::E_MOUNT_ON_PROC,
            format!("{} is on a procfs", mount.destination.escape_debug()),
        ));
    }
    Ok(())
}

/// Sets what the options say on a mount that is not attached yet.
fn set_attributes(mount: BorrowedFd<'_>, options: &Options) -> Result<()> {
    set_own_attributes(mount, options)?;
    set_propagation(mount, options)
}

fn set_own_attributes(mount: BorrowedFd<'_>, options: &Options) -> Result<()> {
    if !options.recursive.is_empty() {
        sys::mount::mount_setattr(mount, sys::mount::AT_RECURSIVE, &attributes(options.recursive))?;
    }
    if !options.attr.is_empty() {
        sys::mount::mount_setattr(mount, 0, &attributes(options.attr))?;
    }
    Ok(())
}

fn attributes(plan: Attributes) -> MountAttr {
    MountAttr { set: plan.set, clear: plan.clear, ..MountAttr::default() }
}

fn set_propagation(mount: BorrowedFd<'_>, options: &Options) -> Result<()> {
    for (flag, all) in &options.propagation {
        let attr = MountAttr::propagates(*flag);
        sys::mount::mount_setattr(mount, if *all { sys::mount::AT_RECURSIVE } else { 0 }, &attr)?;
    }
    Ok(())
}

fn filesystem(
    create: &Create<'_>,
    root: BorrowedFd<'_>,
    (mount, map): (&Mount, Option<&OwnedFd>),
    fstype: &str,
    source: &str,
) -> Result<OwnedFd> {
    let (target, mode) = if matches!(fstype, "proc" | "sysfs") {
        // A link here would let the image choose where the kernel's own files appear (CVE-2019-19921).
        (real_directory(root, &mount.destination)?, None)
    } else if fstype == "tmpfs" {
        tmpfs_target(root, mount)?
    } else {
        (resolve::directory(root, &mount.destination)?, None)
    };
    check_target(mount, &target)?;
    let target = target.fd;
    let long = mount.options.data.iter().any(|entry| entry.len() > FSCONFIG_MAX);
    let made = if long && fstype != "overlay" {
        staged(create, mount, fstype, source)?
    } else {
        match new_filesystem(mount, fstype, source, mode) {
            // Overlay's long lists have a form of their own; what is left needs the old call.
            Err(error) if long && error.errno() == Some(libc::EINVAL) => {
                staged(create, mount, fstype, source)?
            }
            result => result?,
        }
    };
    for name in &mount.directories {
        sys::fs::mkdirat(made.as_fd(), &sys::cstr("mkdir", name)?, 0o755)?;
    }
    if mount.options.tmpcopyup {
        copyup::copy(target.as_fd(), made.as_fd())?;
        sys::mount::mount_setattr(made.as_fd(), 0, &first_attributes(mount, mount.options.attr))?;
    }
    crate::spawn::idmap::apply(mount, made.as_fd(), map)?;
    if !mount.options.recursive.is_empty() {
        let recursive = first_attributes(mount, mount.options.recursive);
        sys::mount::mount_setattr(made.as_fd(), 0, &recursive)?;
    }
    if let ("mqueue", Some(label)) = (fstype, &create.plan.mount_label) {
        // Its superblock came with the ipc namespace and takes no context any more (EINVAL).
        let root = sys::fs::openat(made.as_fd(), c".", libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
        // The kernel wants its NUL, too.
        let label = sys::cstr("fsetxattr", label)?;
        sys::xattr::set(root.as_fd(), c"security.selinux", label.to_bytes_with_nul())?;
    }
    set_propagation(made.as_fd(), &mount.options)?;
    attach(made.as_fd(), target.as_fd(), mount)?;
    leave_open([target]);
    Ok(made)
}

/// A directory whose path has no link in it, made where missing.
fn real_directory(root: BorrowedFd<'_>, path: &str) -> Result<resolve::Found> {
    let found = resolve::directory(root, path)?;
    if !found.literal {
        return Err(Error::text(
            Code::E_MOUNT_DESTINATION,
            format!("{} must not be a symbolic link", path.escape_debug()),
        ));
    }
    Ok(found)
}

/// A tmpfs's target, and the mode of a directory that was there already: unless the options say
/// otherwise the tmpfs has it, as with runc and crun. The kernel's own default is 1777.
fn tmpfs_target(root: BorrowedFd<'_>, mount: &Mount) -> Result<(resolve::Found, Option<u32>)> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let Some(found) = resolve::find(root, &mount.destination, flags)? else {
        return Ok((resolve::directory(root, &mount.destination)?, None));
    };
    if mount.options.data.iter().any(|entry| entry.starts_with("mode=")) {
        return Ok((found, None));
    }
    let mode = sys::fs::fstat(found.fd.as_fd())?.st_mode & 0o7777;
    Ok((found, Some(mode)))
}

/// Configures a filesystem as [`mount`] would, and lets it go: what `check` tries. Superblocks are made
/// only of those that live in memory; another could write to a disk.
pub fn try_out(mount: &Mount, fstype: &str, source: &str) -> Result<()> {
    if mount.options.data.iter().any(|entry| entry.len() > FSCONFIG_MAX) {
        // Overlay's would need its layers; what is staged would have to be mounted.
        return Ok(());
    }
    let context = configured(mount, fstype, source, None)?;
    if matches!(fstype, "tmpfs" | "ramfs") {
        sys::mount::fsconfig_create(context.as_fd())?;
    }
    Ok(())
}

/// fsopen and fsconfig: a filesystem with all its options, not made yet.
fn configured(mount: &Mount, fstype: &str, source: &str, mode: Option<u32>) -> Result<OwnedFd> {
    let context = sys::mount::fsopen(&sys::cstr("fsopen", fstype)?)?;
    if !source.is_empty() {
        let source = sys::cstr("fsconfig", source)?;
        sys::mount::fsconfig_string(context.as_fd(), c"source", &source)?;
    }
    for flag in &mount.options.super_flags {
        sys::mount::fsconfig_flag(context.as_fd(), &sys::cstr("fsconfig", flag)?)?;
    }
    if reads_only_its_device(mount, source) {
        sys::mount::fsconfig_flag(context.as_fd(), c"ro")?;
    }
    for entry in &mount.options.data {
        configure(context.as_fd(), fstype, entry)?;
    }
    if let Some(mode) = mode {
        configure(context.as_fd(), fstype, &format!("mode={mode:o}"))?;
    }
    Ok(context)
}

/// Whether not the mount alone but its filesystem is read-only: with `ro` nothing is written to a device, no
/// journal replayed, as with mount(2). Filesystems without a device are shared or the container's own.
fn reads_only_its_device(mount: &Mount, source: &str) -> bool {
    mount.options.attr.set & attr::RDONLY != 0 && source.starts_with('/')
}

/// fsopen, fsconfig, fsmount: a detached mount.
fn new_filesystem(mount: &Mount, fstype: &str, source: &str, mode: Option<u32>) -> Result<OwnedFd> {
    let context = configured(mount, fstype, source, mode)?;
    sys::mount::fsconfig_create(context.as_fd())?;
    // With tmpcopyup the mount must take the files before it may become read-only.
    let first = first_attributes(mount, mount.options.attr);
    let attributes = if mount.options.tmpcopyup { 0 } else { first.set };
    let made = sys::mount::fsmount(context.as_fd(), attributes)?;
    leave_open([context]);
    Ok(made)
}

/// One `key` or `key=value`; overlay's list of lower directories goes one by one where it is too long
/// for one value (`lowerdir+`, Linux 6.8; older kernels answer EINVAL).
fn configure(context: BorrowedFd<'_>, fstype: &str, entry: &str) -> Result<()> {
    let Some((key, value)) = entry.split_once('=') else {
        return Ok(sys::mount::fsconfig_flag(context, &sys::cstr("fsconfig", entry)?)?);
    };
    if fstype == "overlay" && key == "lowerdir" && value.len() > FSCONFIG_MAX {
        for layer in value.split(':') {
            let layer = sys::cstr("fsconfig", layer)?;
            sys::mount::fsconfig_string(context, c"lowerdir+", &layer)?;
        }
        return Ok(());
    }
    let (key, value) = (sys::cstr("fsconfig", key)?, sys::cstr("fsconfig", value)?);
    Ok(sys::mount::fsconfig_string(context, &key, &value)?)
}

/// Gives a filesystem that no entry of `mounts` asks for the container's label, so that its processes
/// may look into it.
pub fn label(create: &Create<'_>, context: BorrowedFd<'_>) -> Result<()> {
    if let Some(label) = &create.plan.mount_label {
        sys::mount::fsconfig_string(context, c"context", &sys::cstr("fsconfig", label)?)?;
    }
    Ok(())
}

/// By mount(2) on a private directory of the host, then taken off again as a detached clone.
fn staged(create: &Create<'_>, mount: &Mount, fstype: &str, source: &str) -> Result<OwnedFd> {
    let data = sys::cstr("mount", joined(&mount.options.data))?;
    let mut flags = mount.options.mount_flags();
    if reads_only_its_device(mount, source) {
        flags |= libc::MS_RDONLY;
    }
    let source = sys::cstr("mount", source)?;
    sys::mount::mount(&source, create.staging, &sys::cstr("mount", fstype)?, flags, Some(&data))
        .map_err(|error| error.about(&mount.destination))?;
    let clone = sys::mount::open_tree(sys::fs::CWD, create.staging, sys::mount::OPEN_TREE_CLONE);
    sys::mount::umount(create.staging, libc::MNT_DETACH)?;
    let clone = clone?;
    if !mount.options.attr.is_empty() && !mount.options.tmpcopyup {
        sys::mount::mount_setattr(clone.as_fd(), 0, &first_attributes(mount, mount.options.attr))?;
    }
    Ok(clone)
}

/// The options as one string for mount(2). A label may have commas in it (`s0:c1,c2`) and stands in
/// quotes then.
fn joined(data: &[String]) -> String {
    let quoted = |entry: &String| match entry.split_once('=') {
        Some((key, label)) if key.ends_with("context") => format!("{key}=\"{label}\""),
        _ => entry.clone(),
    };
    data.iter().map(quoted).collect::<Vec<_>>().join(",")
}

/// New attributes for what is there, on the very mount that was found.
fn remount(root: BorrowedFd<'_>, mount: &Mount) -> Result<()> {
    let target = resolve::open(root, &mount.destination, libc::O_PATH)?;
    set_attributes(target.as_fd(), &mount.options)
}

/// The container's part of the cgroup tree: one cgroup2 mount, or a small tmpfs with the v1
/// hierarchies in it.
fn cgroup(
    create: &Create<'_>,
    late: &[OwnedFd],
    root: BorrowedFd<'_>,
    (mount, index): (&Mount, usize),
) -> Result<()> {
    let target = resolve::directory(root, &mount.destination)?;
    check_target(mount, &target)?;
    let target = target.fd;
    let (hierarchies, skipped) = own_part(create, index);
    let mut late = late.iter().skip(skipped);
    if let [single] = hierarchies {
        if single.mount.name.is_empty() {
            let made = cgroup_hierarchy(single, late.next(), &mount.options)?;
            attach(made.as_fd(), target.as_fd(), mount)?;
            leave_open([made, target]);
            return Ok(());
        }
    }
    let top = sys::mount::fsopen(c"tmpfs")?;
    sys::mount::fsconfig_string(top.as_fd(), c"mode", c"755")?;
    label(create, top.as_fd())?;
    sys::mount::fsconfig_create(top.as_fd())?;
    let top = sys::mount::fsmount(top.as_fd(), 0)?;
    // All that is to be in it is made while nobody else can see it; it is attached as it stays.
    for hierarchy in hierarchies {
        let name = sys::cstr("mkdir", &hierarchy.mount.name)?;
        sys::fs::mkdirat(top.as_fd(), &name, 0o755)?;
        for link in &hierarchy.mount.links {
            let link: CString = sys::cstr("symlink", link)?;
            sys::fs::symlinkat(&name, top.as_fd(), &link)?;
        }
    }
    set_attributes(top.as_fd(), &mount.options)?;
    attach(top.as_fd(), target.as_fd(), mount)?;
    for hierarchy in hierarchies {
        let name = sys::cstr("open", &hierarchy.mount.name)?;
        let made = cgroup_hierarchy(hierarchy, late.next(), &mount.options)?;
        // A directory of our own making, in a filesystem that nobody else has.
        sys::mount::move_mount_into(made.as_fd(), top.as_fd(), &name)
            .map_err(|error| error.about(mount.destination.escape_debug()))?;
        leave_open([made]);
    }
    Ok(())
}

/// The hierarchies of one of the cgroup mounts, and how many are those of others before it.
fn own_part<'a>(create: &Create<'a>, index: usize) -> (&'a [super::ContainerMount], usize) {
    let cgroups = |mount: &&Mount| mount.source == Source::Cgroup;
    let all = create.plan.mounts.iter().filter(cgroups).count().max(1);
    let before = create.plan.mounts.iter().take(index).filter(cgroups).count();
    let each = create.cgroup_mounts.len() / all;
    let skipped = before * each;
    (create.cgroup_mounts.get(skipped..skipped + each).unwrap_or_default(), skipped)
}

/// With a cgroup namespace a mount of the hierarchy shows its own part only; without, the container's
/// directory has been cloned. Ready to be attached.
fn cgroup_hierarchy(
    hierarchy: &super::ContainerMount,
    late: Option<&OwnedFd>,
    options: &Options,
) -> Result<OwnedFd> {
    if let Some(tree) = hierarchy.tree.get().or(late) {
        let tree = sys::fs::duplicate(tree.as_fd())?;
        set_attributes(tree.as_fd(), options)?;
        return Ok(tree);
    }
    let context = sys::mount::fsopen(&sys::cstr("fsopen", hierarchy.mount.fstype)?)?;
    sys::mount::fsconfig_string(context.as_fd(), c"source", c"cgroup")?;
    for option in hierarchy.mount.options.split(',').filter(|option| !option.is_empty()) {
        configure(context.as_fd(), "cgroup", option)?;
    }
    sys::mount::fsconfig_create(context.as_fd())?;
    let made = sys::mount::fsmount(context.as_fd(), options.attr.set)?;
    if !options.recursive.is_empty() {
        sys::mount::mount_setattr(made.as_fd(), 0, &attributes(options.recursive))?;
    }
    set_propagation(made.as_fd(), options)?;
    leave_open([context]);
    Ok(made)
}
