//! What has become of init, asked from outside before the container counts as created. Under a filter
//! that is loaded already (`no_new_privs` off) init may not be able to ask about itself, and its
//! bounding set would cost it a call for each capability.

use std::os::fd::AsFd;

use crate::error::{Code, Error, Result};
use crate::plan::process::Process;
use crate::sys;

/// Longest `/proc/PID/status`, in bytes: 65536 groups of up to 11 bytes, and the rest.
const STATUS_MAX: usize = 1 << 20;

/// Compares the five capability sets, `no_new_privs` and the presence of a filter with the plan's. Ids
/// are init's own to check: here they would be those outside its user namespace.
///
/// # Errors
/// `E_IDENTITY` if anything is not what was asked for.
pub fn init(pid: i32, process: &Process, seccomp: bool) -> Result<()> {
    let path = sys::cstr("open", format!("/proc/{pid}/status"))?;
    let file = sys::fs::open(&path, libc::O_RDONLY)?;
    let bytes = sys::fs::read_small(file.as_fd(), STATUS_MAX)?;
    let text = String::from_utf8_lossy(&bytes);
    match wrong(&text, process, seccomp) {
        None => Ok(()),
        Some(key) => {
            Err(Error::text(Code::E_IDENTITY, format!("{key} of init is not what was set")))
        }
    }
}

/// The first key of a status whose value is another than it should be.
fn wrong(status: &str, process: &Process, seccomp: bool) -> Option<&'static str> {
    let caps = process.caps;
    let mask = |set: u64| format!("{set:016x}");
    let mut wanted = vec![
        ("CapInh", mask(caps.inheritable)),
        ("CapPrm", mask(caps.permitted)),
        ("CapEff", mask(caps.effective)),
        ("CapBnd", mask(caps.bounding)),
        ("CapAmb", mask(caps.ambient)),
    ];
    if process.no_new_privs {
        // Not asked for it may be on all the same: the runtime's own, which nobody can take off.
        wanted.push(("NoNewPrivs", "1".to_owned()));
    }
    if seccomp && !process.no_new_privs {
        // With no_new_privs the filter comes after the gate.
        wanted.push(("Seccomp", "2".to_owned()));
    }
    let value = |key: &str| {
        let mut lines = status.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        lines.next().map(str::trim)
    };
    wanted.into_iter().find(|(key, wanted)| value(key) != Some(wanted)).map(|(key, _)| key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_key_that_differs_is_told() {
        let mut process = Process::default();
        process.caps.bounding = 0x21;
        let status = "Groups:\t0 \nCapInh:\t0000000000000000\nCapPrm:\t0000000000000000\n\
                      CapEff:\t0000000000000000\nCapBnd:\t0000000000000021\n\
                      CapAmb:\t0000000000000000\nNoNewPrivs:\t0\nSeccomp:\t0\nSeccomp_filters:\t0\n";
        assert_eq!(wrong(status, &process, false), None);
        assert_eq!(wrong(status, &process, true), Some("Seccomp"));
        process.caps.bounding = 1;
        assert_eq!(wrong(status, &process, false), Some("CapBnd"));
        process.no_new_privs = true;
        assert_eq!(wrong("", &process, false), Some("CapInh"));
        process.caps.bounding = 0x21;
        assert_eq!(wrong(status, &process, false), Some("NoNewPrivs"));
    }
}
