//! Giving memory back: a container that waits to be started should cost next to nothing.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

/// set_mempolicy(2); `nodes` has one bit per memory node, `mode` the flags in its upper bits.
pub fn set_mempolicy(mode: u32, nodes: &[u64]) -> super::Result<()> {
    // The kernel counts one bit less than it is told.
    let bits = if nodes.is_empty() { 0 } else { nodes.len() * 64 + 1 };
    let mask = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
    // SAFETY: the mask is null or as long as we say.
    let ret = unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) };
    super::done(ret, "set_mempolicy", "")
}

/// What is given back is counted in pages of 4 KiB: the kernel would round up to larger ones (arm64 may have 16
/// or 64 KiB), and take what is in use along. There nothing is given back.
fn has_small_pages() -> bool {
    // SAFETY: reads what the kernel has told at the start (getauxval(3)).
    unsafe { libc::getauxval(libc::AT_PAGESZ) == 4096 }
}

/// madvise(2) with `MADV_DONTNEED`: what that returns. Allocates nothing.
///
/// # Safety
/// Nobody may read the range before it is written, or it must be of an unchanged file.
pub(super) unsafe fn drop_pages(start: *mut libc::c_void, length: usize) -> libc::c_int {
    if !has_small_pages() {
        return 0;
    }
    // SAFETY: as said.
    unsafe { libc::madvise(start, length, libc::MADV_DONTNEED) }
}

/// Lets go of the pages below what of the stack is in use: deep calls are over by now.
pub fn release_stack() -> super::Result<()> {
    /// As far down as calls may have gone.
    const DEPTH: usize = 128 << 10;
    /// The frames of this call and of the next ones are there, and a red zone.
    const MARGIN: usize = 4 << 10;
    const PAGE: usize = 4096;
    let here = 0u8;
    let end = ((&raw const here).addr() - MARGIN) / PAGE * PAGE;
    let start = std::ptr::with_exposed_provenance_mut::<libc::c_void>(end - DEPTH);
    // SAFETY: below the frames in use there is nothing that anybody will read before it is written.
    let ret = unsafe { drop_pages(start, DEPTH) };
    match super::done(ret.into(), "madvise", "own stack") {
        // The stack has not grown that far; what there is has been let go (madvise(2)).
        Err(error) if error.errno == libc::ENOMEM => Ok(()),
        result => result,
    }
}

/// Lets go of the pages of our own code and constants: they are read again from the executable when
/// they are needed.
pub fn release_code() -> super::Result<()> {
    let (start, length) = own_code();
    // SAFETY: the range is mapped read-only and privately from the executable and was never written,
    // so dropping its pages loses nothing.
    let ret = unsafe { drop_pages(start, length) };
    match super::done(ret.into(), "madvise", "own code") {
        // lld leaves a page between two segments where it falls so; the others have been let go (madvise(2)).
        Err(error) if error.errno == libc::ENOMEM => Ok(()),
        result => result,
    }
}

/// [`release_code`], and then read(2) of one byte from `fd`; the number of bytes read. In one function,
/// by one function: whatever else ran in between would bring back the 64 KiB around it.
pub fn release_code_and_read(fd: BorrowedFd<'_>, byte: &mut [u8; 1]) -> super::Result<usize> {
    let (start, length) = own_code();
    let length = if has_small_pages() { length } else { 0 };
    // SAFETY: as above. Nothing of no length.
    let ret = unsafe { libc::syscall(libc::SYS_madvise, start, length, libc::MADV_DONTNEED) };
    // ENOMEM: as above.
    if ret == -1 && Errno::last() != Errno::ENOMEM {
        return Err(super::Error::last("madvise", "own code"));
    }
    loop {
        // SAFETY: the buffer is as long as we say.
        let count =
            unsafe { libc::syscall(libc::SYS_read, fd.as_raw_fd(), byte.as_mut_ptr(), 1usize) };
        if count != -1 || Errno::last() != Errno::EINTR {
            return super::check(count, "read", "")
                .map(|count| usize::try_from(count).unwrap_or(0));
        }
    }
}

/// The image from its first byte to its last constant, in whole pages.
fn own_code() -> (*mut libc::c_void, usize) {
    unsafe extern "C" {
        // Set by every ELF linker: the first byte of the image, and the first of what may be written.
        static __executable_start: u8;
        static __init_array_start: u8;
    }
    let page = 4096;
    let start = (&raw const __executable_start).addr();
    let end = (&raw const __init_array_start).addr() / page * page;
    (std::ptr::with_exposed_provenance_mut(start), end.saturating_sub(start))
}
