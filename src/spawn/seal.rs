//! The sealed executable: what enters a container must not be a file that the container could write to
//! through `/proc/PID/exe` (CVE-2019-5736).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use crate::error::{Code, Error, Result};
use crate::sys;
use crate::sys::exec::CStrings;

/// `MFD_EXEC`, Linux 6.3.
const MFD_EXEC: u32 = 0x10;
/// `F_SEAL_EXEC`, Linux 6.3: the mode's x bits stay.
const F_SEAL_EXEC: i32 = 0x20;
/// Future writes are all there can be: the copy is made without a writable mapping. `F_SEAL_WRITE` would
/// also wait for, and now and then fail on (EBUSY), a page that another CPU still holds a reference to.
const SEALS: i32 =
    libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_FUTURE_WRITE;
const EROFS_SUPER_MAGIC: i64 = 0xe0f5_e1e2;
const SQUASHFS_MAGIC: i64 = 0x7371_7368;
const OVERLAYFS_SUPER_MAGIC: i64 = 0x794c_7630;

/// Returns when this process runs from where nobody can write; otherwise becomes such a process, with
/// the same arguments (`argv`), environment and descriptors.
pub fn ensure(argv: Vec<Vec<u8>>) -> Result<()> {
    refuse_set_id()?;
    let exe = sys::fs::open(c"/proc/self/exe", libc::O_RDONLY)
        .map_err(Error::at(Code::E_SEAL, "own executable"))?;
    if is_sealed(exe.as_fd())? {
        return Ok(());
    }
    let stat = sys::fs::fstat(exe.as_fd())?;
    if stat.st_mode & (libc::S_ISUID | libc::S_ISGID) != 0
        || sys::cred::file_capabilities(exe.as_fd())? > 0
    {
        return Err(Error::text(
            Code::E_SET_ID,
            "refusing to run: the executable is set-id or has file capabilities",
        ));
    }
    let size = usize::try_from(stat.st_size).unwrap_or(0);
    let sealed = match memfd_copy(exe.as_fd(), size) {
        // vm.memfd_noexec=2 forbids executable memfds.
        Err(error) if error.errno == libc::EACCES => overlay_copy()?,
        result => result.map_err(Error::at(Code::E_SEAL, "sealing the own executable"))?,
    };
    let argv = CStrings::new(c_strings(argv.into_iter())?);
    Err(Error::at(Code::E_SEAL, "own executable")(sys::exec::execve_fd(sealed.as_fd(), &argv)))
}

/// A runtime that took more rights than its caller has would lend them out (decided: never set-id).
pub fn refuse_set_id() -> Result<()> {
    let uids = sys::cred::getresuid()?;
    let gids = sys::cred::getresgid()?;
    if uids != [uids[0]; 3] || gids != [gids[0]; 3] {
        return Err(Error::text(
            Code::E_SET_ID,
            "refusing to run set-id: real and effective ids differ",
        ));
    }
    Ok(())
}

fn c_strings(list: impl Iterator<Item = Vec<u8>>) -> sys::Result<Vec<std::ffi::CString>> {
    list.map(|text| sys::cstr("execveat", text)).collect()
}

/// A sealed memfd, a detached overlay, or a filesystem that nobody can write to at all.
fn is_sealed(exe: BorrowedFd<'_>) -> Result<bool> {
    if let Some(seals) = sys::exec::seals(exe) {
        if seals & SEALS == SEALS {
            return Ok(true);
        }
    }
    match sys::fs::fs_magic(exe)? {
        EROFS_SUPER_MAGIC | SQUASHFS_MAGIC => Ok(true),
        OVERLAYFS_SUPER_MAGIC => is_detached_readonly(exe),
        _ => Ok(false),
    }
}

fn memfd_copy(exe: BorrowedFd<'_>, size: usize) -> sys::Result<OwnedFd> {
    let memfd = match sys::exec::memfd(c"onggi", MFD_EXEC) {
        // Before Linux 6.3 every memfd is executable and the flag is unknown.
        Err(error) if error.errno == libc::EINVAL => sys::exec::memfd(c"onggi", 0)?,
        result => result?,
    };
    sys::exec::copy(exe, memfd.as_fd(), size)?;
    match sys::exec::add_seals(memfd.as_fd(), SEALS | F_SEAL_EXEC) {
        // As above; the seals that matter are older.
        Err(error) if error.errno == libc::EINVAL => sys::exec::add_seals(memfd.as_fd(), SEALS)?,
        result => result?,
    }
    Ok(memfd)
}

/// The executable in a read-only overlay that is mounted nowhere.
fn overlay_copy() -> Result<OwnedFd> {
    let path = std::fs::read_link("/proc/self/exe")
        .map_err(|error| Error::text(Code::E_SEAL, format!("own executable: {error}")))?;
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::text(Code::E_SEAL, "own executable: has no directory"));
    };
    let refused = |error: sys::Error| {
        Error::text(
            Code::E_SEAL,
            format!(
                "cannot seal the own executable: vm.memfd_noexec=2 forbids a memfd, and {error}"
            ),
        )
    };
    let context = sys::mount::fsopen(c"overlay").map_err(refused)?;
    // Overlay wants two lower directories where there is no upper one; the root's own /proc is always
    // there and holds no such name.
    let lower = [directory.as_os_str().as_bytes(), b":/proc"].concat();
    let lower = sys::cstr("fsconfig", lower)?;
    sys::mount::fsconfig_string(context.as_fd(), c"lowerdir", &lower).map_err(refused)?;
    sys::mount::fsconfig_create(context.as_fd()).map_err(refused)?;
    let readonly = crate::plan::options::attr::RDONLY | crate::plan::options::attr::NOSUID;
    let mount = sys::mount::fsmount(context.as_fd(), readonly).map_err(refused)?;
    let name = sys::cstr("open", name.as_bytes())?;
    sys::fs::openat(mount.as_fd(), &name, libc::O_PATH, 0).map_err(refused)
}

/// Whether a file lies on a read-only mount that is attached nowhere: its id is in no list of mounts.
fn is_detached_readonly(exe: BorrowedFd<'_>) -> Result<bool> {
    if sys::fs::mount_flags(exe)? & libc::ST_RDONLY == 0 {
        return Ok(false);
    }
    let id = sys::fs::mount_id(exe)?;
    let file = sys::fs::open(c"/proc/self/mountinfo", libc::O_RDONLY)?;
    let mounts = sys::fs::read_to_end(file.as_fd(), 64 << 20)?;
    let start = format!("{id} ");
    Ok(!String::from_utf8_lossy(&mounts).lines().any(|line| line.starts_with(&start)))
}
