//! Loading a filter some of whose calls are answered by an agent: nothing that could be notified is
//! called before the agent has the listener.

use std::os::fd::AsRawFd;

use super::Child;
use crate::error::{Code, Error, Result};
use crate::seccomp::Program;
use crate::spawn::protocol::{self, Message};
use crate::sys;

/// Loads the filter and waits until the parent has handed its listener over.
pub fn load(child: &Child<'_>, program: &Program) -> Result<()> {
    let socket = child.socket()?;
    // The lowest free number is the one that the next descriptor gets.
    let number = sys::fs::duplicate(socket)?.as_raw_fd();
    if child.listener_taken {
        protocol::send(socket, &Message::Listening(number))?;
    }
    let listener = sys::bpf::load_seccomp(&program.filter, program.flags)?
        .filter(|listener| listener.as_raw_fd() == number)
        .ok_or_else(|| {
            Error::text(Code::E_INTERNAL, "the filter has no listener of the announced number")
        })?;
    let listener = Message::Listener(listener);
    if !child.listener_taken {
        protocol::send(socket, &listener)?;
    }
    match protocol::read(socket)? {
        Message::ListenerDone => {}
        // The parent has its own failure to tell, or is gone.
        _ => sys::process::exit_now(1),
    }
    // A copy of ours would keep notified calls waiting when the agent has died.
    drop(listener);
    Ok(())
}
