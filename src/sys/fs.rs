//! Files and directories by descriptor: open(2), openat2(2), stat(2), mknod(2), flock(2) and kin.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::{Error, Result, check, deadline, done, owned};

/// The current directory as a directory descriptor argument.
pub const CWD: BorrowedFd<'static> = {
    // SAFETY: AT_FDCWD is no descriptor that could be closed; every *at call knows it.
    unsafe { BorrowedFd::borrow_raw(libc::AT_FDCWD) }
};

/// Resolve as if the directory were `/`, for good: `..` and absolute links stay inside (openat2(2)).
pub const IN_ROOT: u64 = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
/// Resolve below the directory, without links and without crossing a mount.
pub const BENEATH: u64 = libc::RESOLVE_BENEATH
    | libc::RESOLVE_NO_SYMLINKS
    | libc::RESOLVE_NO_MAGICLINKS
    | libc::RESOLVE_NO_XDEV;
/// Resolve below the directory, without links; mounts may be crossed.
pub const BENEATH_XDEV: u64 =
    libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_MAGICLINKS;

/// The device number of the null device (null(4)).
pub const NULL: u64 = libc::makedev(1, 3);

fn show(path: &CStr) -> std::borrow::Cow<'_, str> {
    path.to_string_lossy()
}

/// openat(2), close-on-exec; `mode` counts only with `O_CREAT`.
pub fn openat(dir: BorrowedFd<'_>, path: &CStr, flags: i32, mode: u32) -> Result<OwnedFd> {
    // SAFETY: `path` is a C string that outlives the call.
    let ret = unsafe {
        libc::openat(dir.as_raw_fd(), path.as_ptr(), flags | libc::O_CLOEXEC, mode as libc::c_uint)
    };
    owned(ret.into(), "open", show(path))
}

/// open(2) of a host path, close-on-exec.
pub fn open(path: &CStr, flags: i32) -> Result<OwnedFd> {
    openat(CWD, path, flags, 0)
}

/// openat2(2), close-on-exec. `EAGAIN` (a rename went on elsewhere while `..` was resolved) is tried
/// again up to 128 times: the kernel cannot tell a harmless rename from an attack.
pub fn openat2(
    dir: BorrowedFd<'_>,
    path: &CStr,
    flags: i32,
    mode: u32,
    resolve: u64,
) -> Result<OwnedFd> {
    // SAFETY: open_how is plain data for which all-zero is valid; it is non-exhaustive in libc.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = u64::from((flags | libc::O_CLOEXEC).cast_unsigned());
    how.mode = mode.into();
    how.resolve = resolve;
    for _ in 0..128 {
        // SAFETY: `path` and `how` outlive the call, and the size is that of `how`.
        let ret = unsafe {
            libc::syscall(
                libc::SYS_openat2,
                dir.as_raw_fd(),
                path.as_ptr(),
                &raw const how,
                size_of::<libc::open_how>(),
            )
        };
        if ret >= 0 || nix::errno::Errno::last_raw() != libc::EAGAIN {
            return owned(ret, "openat2", show(path));
        }
    }
    Err(Error::new("openat2", show(path), libc::EAGAIN))
}

/// fstat(2).
pub fn fstat(fd: BorrowedFd<'_>) -> Result<libc::stat> {
    let mut stat = MaybeUninit::uninit();
    // SAFETY: `stat` is room for one struct stat.
    let ret = unsafe { libc::fstat(fd.as_raw_fd(), stat.as_mut_ptr()) };
    done(ret.into(), "fstat", "")?;
    // SAFETY: the call succeeded, so the kernel has filled it.
    Ok(unsafe { stat.assume_init() })
}

/// fstatat(2), not following a link in the last component.
pub fn lstatat(dir: BorrowedFd<'_>, path: &CStr) -> Result<libc::stat> {
    statat(dir, path, libc::AT_SYMLINK_NOFOLLOW)
}

/// fstatat(2) with flags.
pub fn statat(dir: BorrowedFd<'_>, path: &CStr, flags: i32) -> Result<libc::stat> {
    let mut stat = MaybeUninit::uninit();
    // SAFETY: `path` is a C string and `stat` room for one struct stat.
    let ret = unsafe { libc::fstatat(dir.as_raw_fd(), path.as_ptr(), stat.as_mut_ptr(), flags) };
    done(ret.into(), "stat", show(path))?;
    // SAFETY: the call succeeded, so the kernel has filled it.
    Ok(unsafe { stat.assume_init() })
}

/// The filesystem magic of statfs(2) (`PROC_SUPER_MAGIC`, `CGROUP2_SUPER_MAGIC` …).
pub fn fs_magic(fd: BorrowedFd<'_>) -> Result<i64> {
    let mut stat = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: `stat` is room for one struct statfs.
    let ret = unsafe { libc::fstatfs(fd.as_raw_fd(), stat.as_mut_ptr()) };
    done(ret.into(), "fstatfs", "")?;
    // SAFETY: the call succeeded, so the kernel has filled it.
    let stat = unsafe { stat.assume_init() };
    #[allow(
        clippy::unnecessary_cast,
        clippy::cast_possible_wrap,
        clippy::cast_lossless,
        reason = "the field's type differs between architectures and C libraries; a magic has 32 bits"
    )]
    Ok(stat.f_type as i64)
}

/// The mount flags (`ST_RDONLY` …) of the mount a descriptor lies on, by fstatvfs(3).
pub fn mount_flags(fd: BorrowedFd<'_>) -> Result<u64> {
    let mut stat = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `stat` is room for one struct statvfs.
    let ret = unsafe { libc::fstatvfs(fd.as_raw_fd(), stat.as_mut_ptr()) };
    done(ret.into(), "fstatvfs", "")?;
    // SAFETY: the call succeeded, so it has been filled.
    Ok(unsafe { stat.assume_init() }.f_flag)
}

/// mkdirat(2).
pub fn mkdirat(dir: BorrowedFd<'_>, path: &CStr, mode: u32) -> Result<()> {
    // SAFETY: `path` is a C string that outlives the call.
    let ret = unsafe { libc::mkdirat(dir.as_raw_fd(), path.as_ptr(), mode) };
    done(ret.into(), "mkdir", show(path))
}

/// mknodat(2); `mode` has the file type, `dev` counts for devices only.
pub fn mknodat(dir: BorrowedFd<'_>, path: &CStr, mode: u32, dev: u64) -> Result<()> {
    // SAFETY: `path` is a C string that outlives the call.
    let ret = unsafe { libc::mknodat(dir.as_raw_fd(), path.as_ptr(), mode, dev) };
    done(ret.into(), "mknod", show(path))
}

/// symlinkat(2).
pub fn symlinkat(target: &CStr, dir: BorrowedFd<'_>, path: &CStr) -> Result<()> {
    // SAFETY: both are C strings that outlive the call.
    let ret = unsafe { libc::symlinkat(target.as_ptr(), dir.as_raw_fd(), path.as_ptr()) };
    done(ret.into(), "symlink", show(path))
}

/// readlinkat(2); longer than 4095 bytes is cut, as the kernel never makes such a link.
pub fn readlinkat(dir: BorrowedFd<'_>, path: &CStr) -> Result<Vec<u8>> {
    let mut buffer = vec![0u8; 4096];
    // SAFETY: the buffer is as long as we say.
    let ret = unsafe {
        libc::readlinkat(dir.as_raw_fd(), path.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len())
    };
    let len = check(ret as libc::c_long, "readlink", show(path))?;
    buffer.truncate(usize::try_from(len).unwrap_or(0));
    Ok(buffer)
}

/// unlinkat(2); `flags` is 0 or `AT_REMOVEDIR`.
pub fn unlinkat(dir: BorrowedFd<'_>, path: &CStr, flags: i32) -> Result<()> {
    // SAFETY: `path` is a C string that outlives the call.
    let ret = unsafe { libc::unlinkat(dir.as_raw_fd(), path.as_ptr(), flags) };
    let call = if flags & libc::AT_REMOVEDIR != 0 { "rmdir" } else { "unlink" };
    done(ret.into(), call, show(path))
}

/// renameat(2) within one directory.
pub fn renameat(dir: BorrowedFd<'_>, from: &CStr, to: &CStr) -> Result<()> {
    let fd = dir.as_raw_fd();
    // SAFETY: both are C strings that outlive the call.
    let ret = unsafe { libc::renameat(fd, from.as_ptr(), fd, to.as_ptr()) };
    done(ret.into(), "rename", show(to))
}

/// fchmodat(2) of a name that is known to be no link: it was just made in this directory.
pub fn fchmodat(dir: BorrowedFd<'_>, path: &CStr, mode: u32) -> Result<()> {
    // SAFETY: `path` is a C string that outlives the call.
    let ret = unsafe { libc::fchmodat(dir.as_raw_fd(), path.as_ptr(), mode, 0) };
    done(ret.into(), "chmod", show(path))
}

/// fchown(2); `u32::MAX` leaves an id alone.
pub fn fchown(fd: BorrowedFd<'_>, uid: u32, gid: u32) -> Result<()> {
    // SAFETY: takes no pointer.
    let ret = unsafe { libc::fchown(fd.as_raw_fd(), uid, gid) };
    done(ret.into(), "fchown", "")
}

/// fchownat(2) of the very file that an `O_PATH` descriptor is of.
pub fn chown_node(node: BorrowedFd<'_>, uid: u32, gid: u32) -> Result<()> {
    let empty = c"".as_ptr();
    // SAFETY: the empty path means the descriptor.
    let ret = unsafe { libc::fchownat(node.as_raw_fd(), empty, uid, gid, libc::AT_EMPTY_PATH) };
    done(ret.into(), "chown", "")
}

/// fchownat(2), not following a link.
pub fn lchownat(dir: BorrowedFd<'_>, path: &CStr, uid: u32, gid: u32) -> Result<()> {
    // SAFETY: `path` is a C string that outlives the call.
    let ret = unsafe {
        libc::fchownat(dir.as_raw_fd(), path.as_ptr(), uid, gid, libc::AT_SYMLINK_NOFOLLOW)
    };
    done(ret.into(), "chown", show(path))
}

/// faccessat(2) with the effective ids.
pub fn access(dir: BorrowedFd<'_>, path: &CStr, mode: i32) -> Result<()> {
    // SAFETY: `path` is a C string that outlives the call.
    let ret = unsafe { libc::faccessat(dir.as_raw_fd(), path.as_ptr(), mode, libc::AT_EACCESS) };
    done(ret.into(), "access", show(path))
}

/// flock(2).
pub fn flock(fd: BorrowedFd<'_>, operation: i32) -> Result<()> {
    // It cannot be waited for with a time-out, only asked again.
    while deadline::left().is_some() && operation & libc::LOCK_NB == 0 {
        match flock(fd, operation | libc::LOCK_NB) {
            Err(error) if error.errno == libc::EWOULDBLOCK => {}
            result => return result,
        }
        match deadline::left() {
            Some(left) if left.is_zero() => return Err(deadline::passed("flock")),
            _ => std::thread::sleep(std::time::Duration::from_millis(5)),
        }
    }
    loop {
        // SAFETY: takes no pointer.
        let ret = unsafe { libc::flock(fd.as_raw_fd(), operation) };
        if ret == 0 || nix::errno::Errno::last_raw() != libc::EINTR {
            return done(ret.into(), "flock", "");
        }
    }
}

/// write(2) until all is written.
pub fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        let count = write(fd, bytes)?;
        bytes = bytes.get(count..).unwrap_or_default();
    }
    Ok(())
}

/// One write(2), again after `EINTR`.
pub fn write(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize> {
    loop {
        // SAFETY: the slice is as long as we say.
        let ret = unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
        if ret >= 0 || nix::errno::Errno::last_raw() != libc::EINTR {
            let count = check(ret as libc::c_long, "write", "")?;
            return Ok(usize::try_from(count).unwrap_or(0));
        }
    }
}

/// One read(2), again after `EINTR`.
pub fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize> {
    loop {
        // SAFETY: the slice is as long as we say, and ours alone.
        let ret = unsafe { libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
        if ret >= 0 || nix::errno::Errno::last_raw() != libc::EINTR {
            let count = check(ret as libc::c_long, "read", "")?;
            return Ok(usize::try_from(count).unwrap_or(0));
        }
    }
}

/// Everything up to the end of file, at most `limit` bytes; one byte more is `EFBIG`.
pub fn read_to_end(fd: BorrowedFd<'_>, limit: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut chunk = [0u8; 16384];
    loop {
        let count = read(fd, &mut chunk)?;
        if count == 0 {
            return Ok(bytes);
        }
        bytes.extend_from_slice(chunk.get(..count).unwrap_or_default());
        if bytes.len() > limit {
            return Err(Error::new("read", format!("more than {limit} bytes"), libc::EFBIG));
        }
    }
}

/// Everything of a file that gives what it has in one read while there is room: a regular file, or a
/// single record of the kernel's (proc(5); seq_file's single_open). At most `limit` bytes.
pub fn read_small(fd: BorrowedFd<'_>, limit: usize) -> Result<Vec<u8>> {
    let mut chunk = [0u8; 4096];
    let count = read(fd, &mut chunk)?;
    rest_of(fd, chunk.get(..count).unwrap_or_default().to_vec(), count == chunk.len(), limit)
}

/// The same of a file that is said to be of this `size`.
pub fn read_sized(fd: BorrowedFd<'_>, size: usize, limit: usize) -> Result<Vec<u8>> {
    // One more, so that the end is seen.
    let mut bytes = vec![0; size.min(limit) + 1];
    let count = read(fd, &mut bytes)?;
    let full = count == bytes.len();
    bytes.truncate(count);
    rest_of(fd, bytes, full, limit)
}

/// What has been read, and if there may be `more`, all that follows.
fn rest_of(fd: BorrowedFd<'_>, mut bytes: Vec<u8>, more: bool, limit: usize) -> Result<Vec<u8>> {
    if more {
        bytes.append(&mut read_to_end(fd, limit.saturating_sub(bytes.len()))?);
    }
    if bytes.len() > limit {
        return Err(Error::new("read", format!("more than {limit} bytes"), libc::EFBIG));
    }
    Ok(bytes)
}

/// The names in a directory, without `.` and `..`.
pub fn list(dir: BorrowedFd<'_>) -> Result<Vec<std::ffi::CString>> {
    let fd = openat(dir, c".", libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
    let mut names = Vec::new();
    let mut buffer = [0u8; 8192];
    loop {
        // SAFETY: the buffer is as long as we say.
        let ret = unsafe {
            libc::syscall(libc::SYS_getdents64, fd.as_raw_fd(), buffer.as_mut_ptr(), buffer.len())
        };
        let mut rest = usize::try_from(check(ret, "getdents64", "")?).unwrap_or(0);
        if rest == 0 {
            return Ok(names);
        }
        let mut entries = buffer.get(..rest).unwrap_or_default();
        while rest > 0 {
            // struct linux_dirent64: u64 ino, i64 off, u16 reclen, u8 type, then the name.
            let Some(&[low, high]) = entries.get(16..18) else { break };
            let reclen = usize::from(u16::from_ne_bytes([low, high]));
            let name = entries.get(19..reclen).unwrap_or_default();
            if let Ok(name) = CStr::from_bytes_until_nul(name) {
                if name != c"." && name != c".." {
                    names.push(name.to_owned());
                }
            }
            rest = rest.saturating_sub(reclen.max(1));
            entries = entries.get(reclen..).unwrap_or_default();
        }
    }
}

/// dup3-like: the same file at exactly this number; `cloexec` false lets it live over execve.
pub fn dup_to(fd: BorrowedFd<'_>, number: i32, cloexec: bool) -> Result<()> {
    if fd.as_raw_fd() == number {
        // SAFETY: takes no pointer.
        let ret = unsafe {
            libc::fcntl(number, libc::F_SETFD, if cloexec { libc::FD_CLOEXEC } else { 0 })
        };
        return done(ret.into(), "fcntl", "F_SETFD");
    }
    let flags = if cloexec { libc::O_CLOEXEC } else { 0 };
    // SAFETY: takes no pointer. The number is one of 0, 1, 2, which no OwnedFd of ours holds.
    let ret = unsafe { libc::dup3(fd.as_raw_fd(), number, flags) };
    done(ret.into(), "dup3", number)
}

/// A second, close-on-exec descriptor of the same file.
pub fn duplicate(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    // SAFETY: takes no pointer.
    let ret = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3) };
    owned(ret.into(), "fcntl", "F_DUPFD_CLOEXEC")
}

/// Whether a descriptor number is open in this process.
#[must_use]
pub fn is_open(number: i32) -> bool {
    // SAFETY: takes no pointer and changes nothing.
    let ret = unsafe { libc::fcntl(number, libc::F_GETFD) };
    ret >= 0
}

/// Borrows one of the descriptors this process was given: 0, 1, 2 or a preserved one.
#[must_use]
pub fn inherited(number: i32) -> Option<BorrowedFd<'static>> {
    if !is_open(number) {
        return None;
    }
    // SAFETY: it is open, it was ours at start, and nothing in the program closes it.
    Some(unsafe { BorrowedFd::borrow_raw(number) })
}

/// One of the descriptors this process was given and what it is of; `None` when it is closed.
pub fn inherited_stat(number: i32) -> Result<Option<(BorrowedFd<'static>, libc::stat)>> {
    // SAFETY: if it is open it was so at start, and nothing in the program closes it; if it is not,
    // fstat(2) says EBADF and nothing else is done with it.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    match fstat(fd) {
        Ok(stat) => Ok(Some((fd, stat))),
        Err(error) if error.errno == libc::EBADF => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether it is the null device, whatever its name.
#[must_use]
pub fn is_null(stat: &libc::stat) -> bool {
    stat.st_mode & libc::S_IFMT == libc::S_IFCHR && stat.st_rdev == NULL
}

/// chdir(2).
pub fn chdir(path: &CStr) -> Result<()> {
    // SAFETY: `path` is a C string that outlives the call.
    let ret = unsafe { libc::chdir(path.as_ptr()) };
    done(ret.into(), "chdir", show(path))
}

/// fchdir(2).
pub fn fchdir(dir: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: takes no pointer.
    let ret = unsafe { libc::fchdir(dir.as_raw_fd()) };
    done(ret.into(), "fchdir", "")
}

/// chroot(2).
pub fn chroot(path: &CStr) -> Result<()> {
    // SAFETY: `path` is a C string that outlives the call.
    let ret = unsafe { libc::chroot(path.as_ptr()) };
    done(ret.into(), "chroot", show(path))
}

/// The kernel's name of the current directory. It starts with `(unreachable)` when the directory lies
/// outside this process's root, which getcwd(3) would hide (CVE-2024-21626).
pub fn getcwd() -> Result<Vec<u8>> {
    let mut buffer = vec![0u8; 4096];
    // SAFETY: the buffer is as long as we say.
    let ret = unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) };
    let len = usize::try_from(check(ret, "getcwd", "")?).unwrap_or(0);
    buffer.truncate(len.saturating_sub(1));
    Ok(buffer)
}

/// umask(2); returns the former one.
pub fn umask(mask: u32) -> u32 {
    // SAFETY: cannot fail, takes no pointer.
    unsafe { libc::umask(mask) }
}

/// Sets `O_NONBLOCK` on or off, for everybody who shares the open file.
pub fn set_nonblocking(fd: impl AsFd, on: bool) -> Result<()> {
    let raw = fd.as_fd().as_raw_fd();
    // SAFETY: takes no pointer.
    let flags = unsafe { libc::fcntl(raw, libc::F_GETFL) };
    done(flags.into(), "fcntl", "F_GETFL")?;
    let flags = if on { flags | libc::O_NONBLOCK } else { flags & !libc::O_NONBLOCK };
    // SAFETY: takes no pointer.
    let ret = unsafe { libc::fcntl(raw, libc::F_SETFL, flags) };
    done(ret.into(), "fcntl", "F_SETFL")
}

/// pipe2(2): the reading and the writing end.
pub fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)
        .map_err(|errno| Error::new("pipe2", "", errno as i32))
}

/// Waits until one of the descriptors has one of the wanted events; a negative time-out (in
/// milliseconds) waits for ever. Returns the events seen, in order; all zero after a time-out.
pub fn poll(fds: &[(BorrowedFd<'_>, i16)], timeout_ms: i32) -> Result<Vec<i16>> {
    let mut polled: Vec<libc::pollfd> = fds
        .iter()
        .map(|(fd, events)| libc::pollfd { fd: fd.as_raw_fd(), events: *events, revents: 0 })
        .collect();
    let (timeout_ms, last) = deadline::cap(timeout_ms);
    // SAFETY: the vector is as long as we say.
    let ret = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, timeout_ms) };
    if check(ret.into(), "poll", "")? == 0 && last {
        return Err(deadline::passed("poll"));
    }
    Ok(polled.iter().map(|fd| fd.revents).collect())
}

/// The id of the mount a descriptor lies on, as in mountinfo (statx(2) `STATX_MNT_ID`, Linux 5.8).
pub fn mount_id(fd: BorrowedFd<'_>) -> Result<u64> {
    // SAFETY: statx is plain data for which all-zero is valid.
    let mut stat: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the empty path means the descriptor; `stat` is room for one struct statx.
    let ret = unsafe {
        libc::statx(
            fd.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_MNT_ID,
            &raw mut stat,
        )
    };
    done(ret.into(), "statx", "STATX_MNT_ID").map(|()| stat.stx_mnt_id)
}
