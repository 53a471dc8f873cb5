//! The gate between create and start.
//!
//! Init holds two FIFOs of the state directory open for reading and writing. `start` writes one byte
//! to `gate`, then reads `error` until its end: the end comes when execve closes init's descriptors,
//! and anything before it is a failure.

use std::os::fd::AsFd;

use super::Child;
use crate::error::{Code, Error, Result};
use crate::spawn::protocol::{self, Message};
use crate::sys;

/// Tells the parent that all is set up. From here on init belongs to its record, not to the parent.
pub fn ready(child: &mut Child<'_>) -> Result<()> {
    sys::process::set_pdeathsig(0)?;
    protocol::write(child.socket()?, &Message::Ready)?;
    child.socket = None;
    Ok(())
}

/// Waits for `start`. A loaded filter may forbid anything here but what execve needs and read(2); of
/// madvise(2) it is known whether it does.
pub fn wait(child: &mut Child<'_>) -> Result<()> {
    // From here on failures go to `start`, that of this read as well.
    child.work.started = true;
    // create's time is not that of its container.
    sys::deadline::clear();
    let create = child.create()?;
    let (gate, mut byte) = (create.gate.as_fd(), [0u8; 1]);
    let count = if create.waits && child.may_madvise() {
        // For nobody knows how long: it should cost next to nothing.
        sys::heap::trim();
        sys::memory::release_stack()?;
        sys::memory::release_code_and_read(gate, &mut byte)?
    } else {
        sys::fs::read(gate, &mut byte)?
    };
    if count == 0 {
        return Err(Error::text(Code::E_SYSTEM, "the gate was closed"));
    }
    if child.process.is_none() {
        return Err(Error::text(Code::E_MISSING, "/process: missing, nothing to start"));
    }
    Ok(())
}
