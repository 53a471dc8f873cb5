//! The seccomp-BPF compiler: `linux.seccomp` of the config in, a filter the
//! kernel accepts out.
//!
//! This module is pure: it makes no system call and reads no file. Loading the
//! filter, and handing over its listener, belongs to `init`.
//!
//! Steps: [`profile`] checks the profile and turns it into a policy without
//! options; [`verdicts`] decides per ABI what happens to every syscall number;
//! [`codegen`] turns those ranges into instructions.
//!
//! Verdicts are those of runc with libseccomp, including these two:
//! * A call from an architecture that the profile does not list kills the
//!   thread, and so does an x32 call where x32 is not listed.
//! * A number above the largest one that the profile names for an ABI gives
//!   ENOSYS, unless the default action lets calls through (ALLOW, LOG, TRACE).
//!   The author of the profile cannot have meant to forbid a call that did not
//!   exist yet, and C libraries fall back on ENOSYS but not on EPERM.

mod abi;
mod codegen;
mod keep;
mod profile;
mod tables;
#[cfg(test)]
#[allow(
    unsafe_code,
    missing_docs,
    missing_debug_implementations,
    clippy::pedantic,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::items_after_statements,
    clippy::unwrap_used,
    clippy::let_underscore_must_use,
    clippy::multiple_unsafe_ops_per_block,
    clippy::undocumented_unsafe_blocks
)]
mod tests;
mod verdicts;

pub use abi::known_archs;
pub use keep::{from_bytes, to_bytes};
pub use profile::{known_actions, known_flags, known_operators};

use oci_spec::runtime::LinuxSeccomp;

use crate::code::Code;

/// The most instructions the kernel takes in one filter (BPF_MAXINSNS).
const MAX_INSTRUCTIONS: usize = 4096;

/// A filter, ready for `seccomp(SECCOMP_SET_MODE_FILTER)`.
pub struct Program {
    /// The instructions.
    pub filter: Vec<libc::sock_filter>,
    /// `SECCOMP_FILTER_FLAG_*`, with `NEW_LISTENER` if and only if `notify` is set.
    pub flags: u32,
    /// Whether some call ends in USER_NOTIF, so that loading gives a listener.
    pub notify: bool,
    /// The native madvise(2) is allowed whatever its arguments, so that memory can be given back under
    /// the filter. Not known of a filter that was read back.
    pub allows_madvise: bool,
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Program({} instructions, flags {:#x})", self.filter.len(), self.flags)
    }
}

/// One thing that is wrong with a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Its stable name.
    pub code: Code,
    /// JSON pointer below `/linux/seccomp`; empty for the profile as a whole.
    pub pointer: String,
    /// What is wrong, without the pointer.
    pub text: String,
}

/// Compiles a profile. `warnings` gets what was ignored; an error lists every
/// problem found, not only the first.
pub fn compile(
    profile: &LinuxSeccomp,
    warnings: &mut Vec<String>,
) -> Result<Program, Vec<Problem>> {
    let policy = profile::read(profile, warnings)?;
    let sections = verdicts::sections(&policy);
    let filter = codegen::program(&sections);
    if filter.len() > MAX_INSTRUCTIONS {
        return Err(vec![Problem {
            code: Code::E_SECCOMP_SIZE,
            pointer: String::new(),
            text: format!(
                "the profile needs {} instructions, the kernel takes at most {MAX_INSTRUCTIONS}",
                filter.len()
            ),
        }]);
    }
    let notify = codegen::returns(&filter, libc::SECCOMP_RET_USER_NOTIF);
    let flags = profile::filter_flags(policy.flags, notify, warnings);
    let allows_madvise = verdicts::allows(&sections, libc::SYS_madvise);
    Ok(Program { filter, flags, notify, allows_madvise })
}
