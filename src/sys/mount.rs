//! The mount calls: fsopen(2), fsconfig(2), fsmount(2), `open_tree`(2), `move_mount`(2),
//! `mount_setattr`(2), `pivot_root`(2), umount2(2), and mount(2) where the new calls do not reach.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::{Error, Result, done, owned};

/// `FSOPEN_CLOEXEC`
const FSOPEN_CLOEXEC: u32 = 1;
const FSCONFIG_SET_FLAG: u32 = 0;
const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_CMD_CREATE: u32 = 6;
const FSMOUNT_CLOEXEC: u32 = 1;
/// Clone the mount found instead of only opening it.
pub const OPEN_TREE_CLONE: u32 = 1;
/// The empty path means the descriptor itself.
pub const AT_EMPTY_PATH: u32 = libc::AT_EMPTY_PATH as u32;
/// The whole tree of mounts.
pub const AT_RECURSIVE: u32 = 0x8000;
/// Do not follow a link in the last component.
pub const AT_SYMLINK_NOFOLLOW: u32 = libc::AT_SYMLINK_NOFOLLOW as u32;
const MOVE_MOUNT_F_EMPTY_PATH: u32 = 4;
const MOVE_MOUNT_T_EMPTY_PATH: u32 = 0x40;

/// Attributes of a mount, as in struct `mount_attr` of `mount_setattr`(2).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MountAttr {
    /// `MOUNT_ATTR_*` to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` to clear.
    pub clear: u64,
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE` or 0 for no change.
    pub propagation: u64,
    /// The user namespace to map ids by, with `MOUNT_ATTR_IDMAP`.
    pub userns_fd: u64,
}

/// `MOUNT_ATTR_IDMAP`
const IDMAP: u64 = 0x10_0000;

impl MountAttr {
    /// Nothing but a propagation.
    #[must_use]
    pub fn propagates(propagation: u64) -> Self {
        Self { propagation, ..Self::default() }
    }

    /// Maps ids as this user namespace does; the descriptor must live as long as this.
    #[must_use]
    pub fn idmap(namespace: BorrowedFd<'_>) -> Self {
        let userns_fd = u64::from(namespace.as_raw_fd().cast_unsigned());
        Self { set: IDMAP, userns_fd, ..Self::default() }
    }

    /// Whether it would change anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

fn show(path: &CStr) -> std::borrow::Cow<'_, str> {
    path.to_string_lossy()
}

/// fsopen(2): a context to configure a new filesystem in.
pub fn fsopen(fstype: &CStr) -> Result<OwnedFd> {
    // SAFETY: `fstype` is a C string that outlives the call.
    let ret = unsafe { libc::syscall(libc::SYS_fsopen, fstype.as_ptr(), FSOPEN_CLOEXEC) };
    owned(ret, "fsopen", show(fstype))
}

/// fsconfig(2) with `FSCONFIG_SET_STRING`. The kernel takes values of up to 255 bytes.
pub fn fsconfig_string(context: BorrowedFd<'_>, key: &CStr, value: &CStr) -> Result<()> {
    // SAFETY: both are C strings that outlive the call.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context.as_raw_fd(),
            FSCONFIG_SET_STRING,
            key.as_ptr(),
            value.as_ptr(),
            0,
        )
    };
    done(ret, "fsconfig", format_args!("{}={}", show(key), show(value)))
        .map_err(|error| with_kernel_log(error, context))
}

/// fsconfig(2) with `FSCONFIG_SET_FLAG`.
pub fn fsconfig_flag(context: BorrowedFd<'_>, key: &CStr) -> Result<()> {
    // SAFETY: `key` is a C string that outlives the call; no value is passed.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context.as_raw_fd(),
            FSCONFIG_SET_FLAG,
            key.as_ptr(),
            std::ptr::null::<libc::c_char>(),
            0,
        )
    };
    done(ret, "fsconfig", show(key)).map_err(|error| with_kernel_log(error, context))
}

/// fsconfig(2) with `FSCONFIG_CMD_CREATE`: makes the superblock.
pub fn fsconfig_create(context: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: the command takes neither key nor value.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context.as_raw_fd(),
            FSCONFIG_CMD_CREATE,
            std::ptr::null::<libc::c_char>(),
            std::ptr::null::<libc::c_char>(),
            0,
        )
    };
    done(ret, "fsconfig", "create").map_err(|error| with_kernel_log(error, context))
}

/// fsmount(2): a detached mount of a created superblock, with attributes from the start.
pub fn fsmount(context: BorrowedFd<'_>, attributes: u64) -> Result<OwnedFd> {
    // SAFETY: takes no pointer.
    let ret = unsafe {
        libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, attributes)
    };
    owned(ret, "fsmount", "").map_err(|error| with_kernel_log(error, context))
}

/// The kernel explains itself in messages that are read from the context (fsopen(2)): `e tmpfs: Bad
/// value for 'size'`. The last error or warning says more than `EINVAL`.
fn with_kernel_log(mut error: Error, context: BorrowedFd<'_>) -> Error {
    let mut buffer = [0u8; 512];
    while let Ok(count) = super::fs::read(context, &mut buffer) {
        let message = String::from_utf8_lossy(buffer.get(..count).unwrap_or_default());
        if let Some(text) = message.strip_prefix("e ").or_else(|| message.strip_prefix("w ")) {
            error.kernel = super::visible(text.trim_end());
        }
        if count == 0 {
            break;
        }
    }
    error
}

/// `open_tree`(2), close-on-exec.
pub fn open_tree(dir: BorrowedFd<'_>, path: &CStr, flags: u32) -> Result<OwnedFd> {
    let flags = flags | libc::O_CLOEXEC.cast_unsigned();
    // SAFETY: `path` is a C string that outlives the call.
    let ret = unsafe { libc::syscall(libc::SYS_open_tree, dir.as_raw_fd(), path.as_ptr(), flags) };
    owned(ret, "open_tree", show(path))
}

/// `move_mount`(2): attaches a detached mount (or moves an attached one) onto `target`.
pub fn move_mount(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: both paths are empty C strings; the descriptors say it all.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            target.as_raw_fd(),
            c"".as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH,
        )
    };
    done(ret, "move_mount", "")
}

/// `move_mount`(2) onto `name` in `dir`; a link as its last part is not followed.
pub fn move_mount_into(mount: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    // SAFETY: both paths are C strings that outlive the call.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            dir.as_raw_fd(),
            name.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    done(ret, "move_mount", "")
}

/// `mount_setattr`(2) on the mount a descriptor lies on; `flags` may have [`AT_RECURSIVE`].
pub fn mount_setattr(mount: BorrowedFd<'_>, flags: u32, attr: &MountAttr) -> Result<()> {
    mount_setattr_at(mount, c"", flags | AT_EMPTY_PATH, attr)
}

/// `mount_setattr`(2) on a path.
pub fn mount_setattr_at(
    dir: BorrowedFd<'_>,
    path: &CStr,
    flags: u32,
    attr: &MountAttr,
) -> Result<()> {
    // SAFETY: `path` and `attr` outlive the call, and the size is that of `attr`.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            dir.as_raw_fd(),
            path.as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    };
    done(ret, "mount_setattr", show(path))
}

/// `pivot_root(".", ".")`: the current directory becomes `/`, the old root lies on top of it.
pub fn pivot_root_here() -> Result<()> {
    let here = c".".as_ptr();
    // SAFETY: both are C strings.
    let ret = unsafe { libc::syscall(libc::SYS_pivot_root, here, here) };
    done(ret, "pivot_root", "")
}

/// umount2(2).
pub fn umount(path: &CStr, flags: i32) -> Result<()> {
    // SAFETY: `path` is a C string that outlives the call.
    let ret = unsafe { libc::umount2(path.as_ptr(), flags) };
    done(ret.into(), "umount2", show(path))
}

/// mount(2), for what the new calls cannot say.
pub fn mount(
    source: &CStr,
    target: &CStr,
    fstype: &CStr,
    flags: u64,
    data: Option<&CStr>,
) -> Result<()> {
    let data = data.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: all are C strings that outlive the call, or null, which mount(2) allows for data.
    let ret = unsafe {
        libc::mount(source.as_ptr(), target.as_ptr(), fstype.as_ptr(), flags, data.cast())
    };
    done(ret.into(), "mount", show(target))
}
