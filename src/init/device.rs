//! Device nodes and the links of /dev.

use std::os::fd::{AsFd, OwnedFd};

use super::{Child, leave_open, resolve, rootfs};
use crate::error::{Code, Error, Result};
use crate::plan::devices::Device;
use crate::sys;

/// Makes one device node.
pub fn make(child: &mut Child<'_>, index: usize) -> Result<()> {
    let create = child.create()?;
    let Some(device) = create.plan.devices.get(index) else { return Ok(()) };
    if device.bind {
        return bind(child, index, device);
    }
    let (above, name) = resolve::split(&device.path)?;
    let parent = directory(child, above)?;
    match sys::fs::mknodat(parent.as_fd(), &name, device.mode, device.dev) {
        Ok(()) => {}
        Err(error) if error.errno == libc::EEXIST => {
            let stat = sys::fs::lstatat(parent.as_fd(), &name)?;
            return if is_device(&stat, device) { Ok(()) } else { Err(not_this_device(device)) };
        }
        Err(error) => return Err(error.about(device.path.escape_debug()).into()),
    }
    if device.uid != 0 || device.gid != 0 {
        // The node itself, not whatever has its name by now: the directory may be shared with others.
        let node = sys::fs::openat(parent.as_fd(), &name, libc::O_PATH | libc::O_NOFOLLOW, 0)?;
        if !is_device(&sys::fs::fstat(node.as_fd())?, device) {
            return Err(not_this_device(device));
        }
        sys::fs::chown_node(node.as_fd(), device.uid, device.gid)?;
        leave_open([node]);
    }
    child.work.device_dir = Some((above.to_owned(), parent));
    Ok(())
}

/// A directory of the rootfs. Most devices, and the links, are in /dev: it is looked up once.
fn directory(child: &mut Child<'_>, path: &str) -> Result<OwnedFd> {
    match child.work.device_dir.take() {
        Some((last, dir)) if last == path => Ok(dir),
        _ => Ok(resolve::directory(rootfs::root(child.create()?), path)?.fd),
    }
}

/// The host's node in the place of one that cannot be made: in a user namespace, or without `CAP_MKNOD`.
fn bind(child: &Child<'_>, index: usize, device: &Device) -> Result<()> {
    let node = child.sources()?.devices.get(index).and_then(Option::as_ref);
    let node = node.ok_or_else(|| Error::text(Code::E_INTERNAL, "the device was not opened"))?;
    let target = resolve::file(rootfs::root(child.create()?), &device.path)?.fd;
    if sys::fs::fs_magic(target.as_fd())? == libc::PROC_SUPER_MAGIC {
        // As for every mount: /proc stays what the kernel has made it.
        let text = format!("{} is on a procfs", device.path.escape_debug());
        return Err(Error::text(Code::E_DEVICE_NODE, text));
    }
    sys::mount::move_mount(node.as_fd(), target.as_fd())
        .map_err(|error| error.about(device.path.escape_debug()))?;
    leave_open([target]);
    Ok(())
}

fn is_device(stat: &libc::stat, device: &Device) -> bool {
    let same_kind = stat.st_mode & libc::S_IFMT == device.mode & libc::S_IFMT;
    let fifo = device.mode & libc::S_IFMT == libc::S_IFIFO;
    same_kind && (fifo || stat.st_rdev == device.dev)
}

fn not_this_device(device: &Device) -> Error {
    let path = device.path.escape_debug();
    Error::text(Code::E_DEVICE_NODE, format!("{path} exists and is not this device"))
}

const LINKS: [(&std::ffi::CStr, &std::ffi::CStr); 4] = [
    (c"/proc/self/fd", c"fd"),
    (c"/proc/self/fd/0", c"stdin"),
    (c"/proc/self/fd/1", c"stdout"),
    (c"/proc/self/fd/2", c"stderr"),
];

/// /dev/fd and its kin where there is a /proc, and /dev/ptmx as the container's own.
pub fn links(child: &mut Child<'_>) -> Result<()> {
    let dev = directory(child, "/dev")?;
    let create = child.create()?;
    if create.plan.mounts.iter().any(|mount| mount.destination == "/proc") {
        for (target, name) in LINKS {
            match sys::fs::symlinkat(target, dev.as_fd(), name) {
                // The image's own stays.
                Err(error) if error.errno == libc::EEXIST => {}
                result => result?,
            }
        }
    }
    if create.plan.mounts.iter().any(|mount| mount.destination == "/dev/pts") {
        match sys::fs::symlinkat(c"pts/ptmx", dev.as_fd(), c"ptmx") {
            // The image's own goes: it would be of the host's devpts.
            Err(error) if error.errno == libc::EEXIST => {
                sys::fs::unlinkat(dev.as_fd(), c"ptmx", 0)?;
                sys::fs::symlinkat(c"pts/ptmx", dev.as_fd(), c"ptmx")?;
            }
            result => result?,
        }
    }
    leave_open([dev]);
    Ok(())
}
