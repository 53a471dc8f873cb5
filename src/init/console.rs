//! Standard input and output: a pseudo-terminal of the container's own, or the caller's files.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::{Child, leave_open, resolve, rootfs};
use crate::error::{Code, Error, Result};
use crate::plan::options::attr;
use crate::spawn::protocol::{self, Message};
use crate::sys;
use crate::sys::mount::{AT_EMPTY_PATH, OPEN_TREE_CLONE};

const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;

/// Makes a pseudo-terminal in the container's devpts, takes it as controlling terminal, hands its
/// master to the parent, and (create) binds it to /dev/console.
pub fn open(child: &mut Child<'_>) -> Result<()> {
    let process = child.process()?;
    let here;
    let root = match &child.create {
        Some(create) => rootfs::root(create),
        None => {
            here = sys::fs::open(c"/", libc::O_PATH | libc::O_DIRECTORY)?;
            here.as_fd()
        }
    };
    let master = master(root)?;
    sys::tty::unlock(master.as_fd())?;
    let tty = sys::tty::peer(master.as_fd())?;
    if let Some((rows, columns)) = process.console_size {
        sys::tty::set_size(tty.as_fd(), rows, columns)?;
    }
    if child.create.is_some() {
        bind_console(root, tty.as_fd())?;
    }
    sys::tty::set_controlling(tty.as_fd())?;
    protocol::send(child.socket()?, &Message::Console(master))?;
    child.work.tty = Some(tty);
    Ok(())
}

/// The container's own devpts, and really one: never a path that the image may have made.
fn master(root: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY;
    let master = match resolve::open_no_links(root, "/dev/pts/ptmx", flags) {
        // The host's, with its /dev: closed to users (ptmxmode=000), for whom there is /dev/ptmx.
        Err(error) if error.errno == libc::EACCES => return host_master(root),
        result => result?,
    };
    if sys::fs::fs_magic(master.as_fd())? != DEVPTS_SUPER_MAGIC {
        return Err(Error::text(
            Code::E_TERMINAL,
            "/dev/pts is not a devpts: a terminal needs one there",
        ));
    }
    Ok(master)
}

/// A master by the device node. Its slave is of the devpts beside it (Linux 4.7).
fn host_master(root: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_NONBLOCK;
    let master = resolve::open_no_links(root, "/dev/ptmx", flags)?;
    let stat = sys::fs::fstat(master.as_fd())?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFCHR || stat.st_rdev != libc::makedev(5, 2) {
        return Err(Error::text(Code::E_TERMINAL, "/dev/ptmx makes no pseudo-terminals"));
    }
    sys::fs::set_nonblocking(&master, false)?;
    Ok(master)
}

fn bind_console(root: BorrowedFd<'_>, tty: BorrowedFd<'_>) -> Result<()> {
    let (dev, name) = resolve::parent(root, "/dev/console")?;
    let flags = libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_WRONLY;
    match sys::fs::openat(dev.as_fd(), &name, flags, 0o600) {
        Err(error) if error.errno != libc::EEXIST => return Err(error.into()),
        _ => {}
    }
    let flags = libc::O_PATH | libc::O_NOFOLLOW;
    let target = sys::fs::openat(dev.as_fd(), &name, flags, 0)?;
    let kind = sys::fs::fstat(target.as_fd())?.st_mode & libc::S_IFMT;
    if kind != libc::S_IFREG && kind != libc::S_IFCHR {
        // A link here has led runtimes to mount over host files (CVE-2025-52565).
        return Err(Error::text(Code::E_TERMINAL, "/dev/console is neither a file nor a device"));
    }
    let clone = sys::mount::open_tree(tty, c"", OPEN_TREE_CLONE | AT_EMPTY_PATH)?;
    Ok(sys::mount::move_mount(clone.as_fd(), target.as_fd())?)
}

/// Descriptors 0 to 2: the terminal, or what the caller gave, made the process user's own so that it
/// can open /dev/stdout again.
pub fn stdio(child: &mut Child<'_>) -> Result<()> {
    let process = child.process()?;
    if let Some(tty) = &child.work.tty {
        own(tty.as_fd(), process.uid)?;
        for number in 0..3 {
            sys::fs::dup_to(tty.as_fd(), number, false)?;
        }
        return Ok(());
    }
    let nulls = own_stdio(process.uid)?;
    if nulls.is_empty() { Ok(()) } else { replace(&nulls) }
}

/// Makes a user the owner of descriptors 0 to 2, but for devices: a terminal of the host is whose it is, and
/// so is the null device. Returns which are that.
pub fn own_stdio(uid: u32) -> Result<Vec<i32>> {
    let mut nulls = Vec::new();
    for number in 0..3 {
        let Some((fd, stat)) = sys::fs::inherited_stat(number)? else { continue };
        if sys::fs::is_null(&stat) {
            nulls.push(number);
            continue;
        }
        let device = matches!(stat.st_mode & libc::S_IFMT, libc::S_IFCHR | libc::S_IFBLK);
        if !device && stat.st_uid != uid {
            own(fd, uid)?;
        }
    }
    Ok(nulls)
}

fn own(fd: BorrowedFd<'_>, uid: u32) -> Result<()> {
    match sys::fs::fchown(fd, uid, u32::MAX) {
        // Somebody else's file, a read-only filesystem, an id that is not mapped, or a kind of
        // file that has no owner: then it stays as it is.
        Err(error)
            if matches!(error.errno, libc::EPERM | libc::EROFS | libc::EINVAL | libc::ENOSYS) =>
        {
            Ok(())
        }
        result => Ok(result?),
    }
}

/// Another null device for the caller's, whose mode and owner root of the container could change by way
/// of /proc/self/fd, for everybody on the host.
fn replace(nulls: &[i32]) -> Result<()> {
    let null = match null_of_container()? {
        Some(null) => null,
        None => match null_of_its_own() {
            Ok(null) => null,
            // No right to make one: in a user namespace, where the owner of the caller's is nobody, or
            // without CAP_MKNOD.
            Err(error) if error.errno == libc::EPERM => return Ok(()),
            Err(error) => return Err(error.into()),
        },
    };
    for number in nulls {
        sys::fs::dup_to(null.as_fd(), *number, false)?;
    }
    leave_open([null]);
    Ok(())
}

/// /dev/null of the container, whose root may have put anything there, or nothing.
fn null_of_container() -> Result<Option<OwnedFd>> {
    match sys::fs::openat2(sys::fs::CWD, c"/dev/null", libc::O_RDWR, 0, libc::RESOLVE_NO_SYMLINKS) {
        Ok(null) => Ok(sys::fs::is_null(&sys::fs::fstat(null.as_fd())?).then_some(null)),
        // Nothing, a link, a directory, a socket, a file that is not writable, a device that is not there, on a
        // filesystem without devices, or that the cgroup denies.
        Err(error)
            if matches!(
                error.errno,
                libc::ENOENT
                    | libc::ENOTDIR
                    | libc::ELOOP
                    | libc::EISDIR
                    | libc::ENXIO
                    | libc::EROFS
                    | libc::EACCES
                    | libc::EPERM
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// A null device in a filesystem that ends with its last descriptor.
fn null_of_its_own() -> sys::Result<OwnedFd> {
    let context = sys::mount::fsopen(c"tmpfs")?;
    sys::mount::fsconfig_create(context.as_fd())?;
    let top = sys::mount::fsmount(context.as_fd(), attr::NOSUID | attr::NOEXEC)?;
    sys::fs::mknodat(top.as_fd(), c"null", libc::S_IFCHR | 0o666, sys::fs::NULL)?;
    let null = sys::fs::openat(top.as_fd(), c"null", libc::O_RDWR, 0)?;
    leave_open([context, top]);
    Ok(null)
}
