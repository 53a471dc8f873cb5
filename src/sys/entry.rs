//! The way from the kernel to the program without the standard library's start-up, which asks a dozen
//! questions and sets up a stack for a handler that says "stack overflow": a thirtieth of what a
//! container's start costs, three times over.

use std::ffi::{CStr, OsString, c_char, c_int};
use std::os::unix::ffi::OsStringExt;
use std::sync::atomic::{AtomicPtr, Ordering};

/// The program's `main`: `entry!(function)`, with a function that takes the arguments, the program's
/// name among them, and returns the exit status.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        // SAFETY: the one function of this name, called once by the C run-time with argc and argv.
        #[allow(unsafe_code)]
        #[unsafe(no_mangle)]
        extern "C" fn main(
            argc: std::ffi::c_int,
            argv: *const *const std::ffi::c_char,
        ) -> std::ffi::c_int {
            $crate::sys::entry::prepare();
            let args = $crate::sys::entry::arguments(argc, argv);
            std::ffi::c_int::from($main(args))
        }
    };
}

/// What the start-up of the standard library does that is needed: the three standard descriptors are
/// open, so that no file of ours becomes one of them, and a closed pipe is an error, not a signal.
pub fn prepare() {
    let mut standard = [0, 1, 2].map(|fd| libc::pollfd { fd, events: 0, revents: 0 });
    // SAFETY: three entries, as said; waits for nothing.
    let asked = unsafe { libc::poll(standard.as_mut_ptr(), 3, 0) } != -1;
    for entry in standard {
        let closed = if asked {
            entry.revents & libc::POLLNVAL != 0
        } else {
            // SAFETY: asks about a number.
            unsafe { libc::fcntl(entry.fd, libc::F_GETFD) == -1 }
        };
        // SAFETY: a constant path. The lowest free number is the one that was closed.
        if closed && unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) } == -1 {
            // Nobody could be told, and a file of ours must not take its place.
            std::process::abort();
        }
    }
    super::process::ignore_broken_pipes();
}

/// Where the kernel has put the arguments, and behind them the environment (execve(2)).
static ARGUMENTS: AtomicPtr<*const c_char> = AtomicPtr::new(std::ptr::null_mut());

/// Overwrites the command line and the environment that /proc shows of this process, which has no use for them:
/// a clone that others will see.
pub fn forget_arguments() {
    let mut next = ARGUMENTS.load(Ordering::Relaxed);
    // Two lists that each end with a null.
    for _ in 0..2 {
        while !next.is_null() {
            // SAFETY: a place in one of the lists, which the kernel has made and nobody has changed.
            let text = unsafe { next.read() };
            // SAFETY: behind it there is one more, or the other list.
            next = unsafe { next.add(1) };
            if text.is_null() {
                break;
            }
            // SAFETY: a string on our own stack's end.
            let length = unsafe { CStr::from_ptr(text) }.count_bytes();
            // SAFETY: as long as just measured; whoever reads it finds an empty string.
            unsafe { std::ptr::write_bytes(text.cast_mut(), 0, length) };
        }
    }
}

/// The arguments as they were given, the program's name first.
#[must_use]
pub fn arguments(argc: c_int, argv: *const *const c_char) -> Vec<OsString> {
    ARGUMENTS.store(argv.cast_mut(), Ordering::Relaxed);
    let count = usize::try_from(argc).unwrap_or(0);
    let one = |index| {
        // SAFETY: the kernel gives argc pointers.
        let pointer = unsafe { argv.wrapping_add(index).read() };
        // SAFETY: each to a string that lives as long as the process.
        let text = unsafe { CStr::from_ptr(pointer) };
        OsString::from_vec(text.to_bytes().to_vec())
    };
    (0..count).map(one).collect()
}
