//! Giving memory back: a container that waits to be started should cost next to nothing.

/// set_mempolicy(2); `nodes` has one bit per memory node, `mode` the flags in its upper bits.
pub fn set_mempolicy(mode: u32, nodes: &[u64]) -> super::Result<()> {
    // The kernel counts one bit less than it is told.
    let bits = if nodes.is_empty() { 0 } else { nodes.len() * 64 + 1 };
    let mask = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
    // SAFETY: the mask is null or as long as we say.
    let ret = unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) };
    super::done(ret, "set_mempolicy", "")
}

/// Lets go of the pages of our own code and constants: they are read again from the executable when
/// they are needed, which for a process that waits is hardly any.
pub fn release_code() -> super::Result<()> {
    unsafe extern "C" {
        // Set by every ELF linker: the first byte of the image, and the first after its code.
        static __executable_start: u8;
        static etext: u8;
    }
    let start = (&raw const __executable_start).addr();
    let end = (&raw const etext).addr();
    let page = 4096;
    let length = end.saturating_sub(start) / page * page;
    let start = std::ptr::with_exposed_provenance_mut::<libc::c_void>(start);
    // SAFETY: the range is mapped read-only and privately from the executable and was never written,
    // so dropping its pages loses nothing.
    let ret = unsafe { libc::madvise(start, length, libc::MADV_DONTNEED) };
    super::done(ret.into(), "madvise", "own code")
}
