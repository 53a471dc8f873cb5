//! The parent's part in handing a seccomp listener to its agent (config-linux.md, "Seccomp").
//!
//! Whatever the child calls under its filter may have to wait for the agent, so it should call nothing
//! before the agent has the listener. It announces the number that the listener will have, loads the
//! filter and waits; the parent takes the descriptor out of it. A parent that may not do that lets the
//! child send it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use serde_json::{Value, json};

use super::protocol::{self, Message};
use crate::error::{Code, Error, Result};
use crate::plan::listener::Listener;
use crate::sys;

/// The connected agent, as long as it waits for the listener.
#[derive(Debug)]
pub struct Agent {
    metadata: String,
    connection: Option<OwnedFd>,
}

impl Agent {
    /// Connects: an agent that is not there is found out before anything has been made.
    pub fn connect(listener: &Listener) -> Result<Self> {
        let connection = sys::socket::connect(&listener.path)
            .map_err(Error::at(Code::E_SECCOMP_AGENT, "/linux/seccomp/listenerPath"))?;
        Ok(Self { metadata: listener.metadata.clone(), connection: Some(connection) })
    }

    /// The child's next message; `None` when it was about the listener, and there may be more to wait
    /// for. `state` is the container's state of runtime.md.
    pub fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        child: &sys::process::Child,
        state: &Value,
    ) -> Result<Option<Message>> {
        let listener = match protocol::receive(socket)? {
            Message::Listening(number) => match take(socket, child, number)? {
                Some(listener) => listener,
                // It has a failure to tell, or has ended.
                None => return Ok(None),
            },
            Message::Listener(listener) => listener,
            other => return Ok(Some(other)),
        };
        self.hand_over(&listener, child.pid, state)?;
        protocol::send(socket, &Message::ListenerDone)?;
        Ok(None)
    }

    /// One container process state on the connection, the listener with its first byte; then the
    /// connection is closed, as the spec says.
    fn hand_over(&mut self, listener: &OwnedFd, pid: i32, state: &Value) -> Result<()> {
        let connection = self.connection.take().ok_or_else(|| {
            Error::text(Code::E_INTERNAL, "the child has sent a second seccomp listener")
        })?;
        let message = json!({
            "ociVersion": state["ociVersion"],
            "fds": ["seccompFd"],
            "pid": pid,
            "metadata": self.metadata,
            "state": state,
        });
        sys::socket::send(connection.as_fd(), message.to_string().as_bytes(), &[listener.as_fd()])
            .map_err(Error::at(Code::E_SECCOMP_AGENT, "/linux/seccomp/listenerPath"))
    }
}

/// Takes the listener out of the child as soon as it has one.
fn take(
    socket: BorrowedFd<'_>,
    child: &sys::process::Child,
    number: i32,
) -> Result<Option<OwnedFd>> {
    let mut micros = 50;
    loop {
        match sys::process::pidfd_getfd(child.pidfd.as_fd(), number) {
            Ok(listener) => return Ok(Some(listener)),
            // EBADF: the filter is still being loaded. ESRCH: the child has ended.
            Err(error) if matches!(error.errno, libc::EBADF | libc::ESRCH) => {}
            Err(error) => {
                return Err(Error::at(Code::E_SECCOMP_AGENT, "/linux/seccomp: listener")(error));
            }
        }
        // It says nothing before it gets an answer, but for a failure.
        let events = sys::fs::poll(&[(socket, libc::POLLIN)], 0)?;
        if events.iter().any(|events| *events != 0) {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_micros(micros));
        micros = (micros * 2).min(800);
    }
}
