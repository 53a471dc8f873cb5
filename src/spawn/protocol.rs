//! What parent and child say to each other between clone3 and the end of create.
//!
//! One `SOCK_SEQPACKET` pair; a 16-byte header, then a payload, then descriptors.
//!
//! | from | message | when | payload | next |
//! |---|---|---|---|---|
//! | parent | `Go` | always, when limits and the record are in place | `cgroup.procs` of a delegated cgroup, if there is one | child works through its steps |
//! | first child | `Init` | where a user namespace is joined, or the parent cannot lend | the second child's pidfd | parent goes on with that one |
//! | child | `AtSources` | with a user namespace, if the parent may clone mounts | its mount namespace | – |
//! | parent | `Source` | then, for each source of a mount | a clone | child goes on after the last |
//! | child | `Console` | with a terminal | the pty's master | – |
//! | child | `AtHooks` | if prestart or createRuntime hooks exist | – | `HooksDone` |
//! | parent | `HooksDone` | after those hooks | – | child goes on |
//! | child | `Listening` | before a filter with notifications is loaded, if the parent may take its listener | its number | – |
//! | child | `Listener` | after that, if the child has to send it | the listener | – |
//! | parent | `ListenerDone` | when the agent has the listener | – | child goes on |
//! | child | `Ready` | create only | – | child waits at the gate, parent commits |
//! | child | `Failed` | any time | step, errno, code, text | child ends |
//! | either | end of file | the peer died, or (exec) execve succeeded | – | – |
//!
//! The common create has two messages, the common exec one. What the child says may be forged once
//! the container's processes can reach it: lengths are bounded, texts are escaped when shown, and
//! nothing in a message is believed beyond its step's failure.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::error::Code;
use crate::sys::{self, Error, Result};

/// Longest payload in bytes: a hook's last 4 KiB and the sentence around it.
pub const PAYLOAD_MAX: usize = 4096 + 512;

/// All messages.
#[derive(Debug)]
#[allow(missing_docs, reason = "see the table above")]
pub enum Message {
    Go(Option<OwnedFd>),
    Init(OwnedFd),
    AtSources(OwnedFd),
    Source(OwnedFd),
    Console(OwnedFd),
    AtHooks,
    HooksDone,
    Listening(i32),
    Listener(OwnedFd),
    ListenerDone,
    Ready,
    Failed(Failure),
    /// The peer has closed its end.
    End,
}

/// What went wrong in the child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Index into the plan's steps.
    pub step: u32,
    /// The errno of the call, 0 where it was no call.
    pub errno: i32,
    /// Its stable name.
    pub code: Code,
    /// The call and its argument, or the whole story.
    pub text: String,
}

const GO: u32 = 1;
const CONSOLE: u32 = 2;
const AT_HOOKS: u32 = 3;
const HOOKS_DONE: u32 = 4;
const READY: u32 = 5;
const FAILED: u32 = 6;
const LISTENING: u32 = 7;
const LISTENER: u32 = 8;
const LISTENER_DONE: u32 = 9;
const INIT: u32 = 10;
const AT_SOURCES: u32 = 11;
const SOURCE: u32 = 12;
const HEADER: usize = 16;

fn header(tag: u32, step: u32, errno: i32, length: usize) -> [u8; HEADER] {
    let mut bytes = [0u8; HEADER];
    let length = u32::try_from(length).unwrap_or(0);
    for (slot, word) in bytes.chunks_exact_mut(4).zip([tag, step, errno.cast_unsigned(), length]) {
        slot.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

fn word(bytes: &[u8], index: usize) -> Option<u32> {
    bytes.get(index * 4..)?.first_chunk::<4>().map(|word| u32::from_le_bytes(*word))
}

impl Failure {
    /// The message in bytes; text beyond the limit is cut at its beginning, for the end tells the cause.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // The name and no number: start may be of another version than create.
        let code = self.code.name().as_bytes();
        let text = self.text.as_bytes();
        let most = PAYLOAD_MAX - code.len() - 1;
        let text = text.get(text.len().saturating_sub(most)..).unwrap_or_default();
        let length = code.len() + 1 + text.len();
        let mut bytes = header(FAILED, self.step, self.errno, length).to_vec();
        for part in [code, b" ", text] {
            bytes.extend_from_slice(part);
        }
        bytes
    }

    /// Reads a message back; `None` where it is none.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (header, payload) = bytes.split_first_chunk::<HEADER>()?;
        let length = usize::try_from(word(header, 3)?).ok()?;
        if word(header, 0)? != FAILED || length > PAYLOAD_MAX || length != payload.len() {
            return None;
        }
        let text = String::from_utf8_lossy(payload);
        let (code, text) = text.split_once(' ')?;
        Some(Self {
            step: word(header, 1)?,
            errno: word(header, 2)?.cast_signed(),
            code: Code::from_name(code).unwrap_or(Code::E_SYSTEM),
            text: text.to_owned(),
        })
    }
}

/// Sends one message.
pub fn send(socket: BorrowedFd<'_>, message: &Message) -> Result<()> {
    let plain = |tag| sys::socket::send(socket, &header(tag, 0, 0, 0), &[]);
    let with = |tag, fd: &OwnedFd| sys::socket::send(socket, &header(tag, 0, 0, 0), &[fd.as_fd()]);
    match message {
        Message::Go(None) => plain(GO),
        Message::Go(Some(cgroup)) => with(GO, cgroup),
        Message::Init(pidfd) => with(INIT, pidfd),
        Message::AtSources(namespace) => with(AT_SOURCES, namespace),
        Message::Source(tree) => with(SOURCE, tree),
        Message::Console(master) => with(CONSOLE, master),
        Message::AtHooks => plain(AT_HOOKS),
        Message::HooksDone => plain(HOOKS_DONE),
        Message::Listening(number) => {
            sys::socket::send(socket, &header(LISTENING, number.cast_unsigned(), 0, 0), &[])
        }
        Message::Listener(listener) => with(LISTENER, listener),
        Message::ListenerDone => plain(LISTENER_DONE),
        Message::Ready => plain(READY),
        Message::Failed(failure) => sys::socket::send(socket, &failure.encode(), &[]),
        Message::End => Ok(()),
    }
}

/// Sends one message without descriptors by write(2): the child's way, which may be under a filter that
/// has no socket calls. A dead parent costs it a `SIGPIPE`, and that is right.
pub fn write(socket: BorrowedFd<'_>, message: &Message) -> Result<()> {
    let bytes = match message {
        Message::AtHooks => header(AT_HOOKS, 0, 0, 0).to_vec(),
        Message::Ready => header(READY, 0, 0, 0).to_vec(),
        Message::Failed(failure) => failure.encode(),
        _ => return Err(Error::new("write", "not the child's message", libc::EPROTO)),
    };
    sys::fs::write_all(socket, &bytes)
}

/// As [`send`], to a child that may have died: of what, the next [`receive`] and its exit status tell.
pub fn tell(socket: BorrowedFd<'_>, message: &Message) -> Result<()> {
    match send(socket, message) {
        Err(error) if error.errno == libc::EPIPE => Ok(()),
        other => other,
    }
}

/// Receives one message; anything that is not in the table is `EPROTO`.
pub fn receive(socket: BorrowedFd<'_>) -> Result<Message> {
    let mut buffer = [0u8; HEADER + PAYLOAD_MAX];
    let (length, mut fds) = sys::socket::receive(socket, &mut buffer)?;
    decode(buffer.get(..length).unwrap_or_default(), fds.pop())
        .ok_or_else(|| Error::new("recvmsg", "unknown message", libc::EPROTO))
}

/// Receives one message without descriptors by read(2), as [`write`] sends one.
pub fn read(socket: BorrowedFd<'_>) -> Result<Message> {
    let mut buffer = [0u8; HEADER];
    let length = sys::fs::read(socket, &mut buffer)?;
    decode(buffer.get(..length).unwrap_or_default(), None)
        .ok_or_else(|| Error::new("read", "unknown message", libc::EPROTO))
}

fn decode(bytes: &[u8], fd: Option<OwnedFd>) -> Option<Message> {
    if bytes.is_empty() {
        return Some(Message::End);
    }
    let tag = word(bytes, 0)?;
    if tag == FAILED {
        return Failure::decode(bytes).map(Message::Failed);
    }
    if bytes.len() != HEADER {
        return None;
    }
    match (tag, fd) {
        (INIT, Some(fd)) => Some(Message::Init(fd)),
        (AT_SOURCES, Some(fd)) => Some(Message::AtSources(fd)),
        (SOURCE, Some(fd)) => Some(Message::Source(fd)),
        (CONSOLE, Some(fd)) => Some(Message::Console(fd)),
        (GO, cgroup) => Some(Message::Go(cgroup)),
        (AT_HOOKS, None) => Some(Message::AtHooks),
        (HOOKS_DONE, None) => Some(Message::HooksDone),
        (LISTENING, None) => Some(Message::Listening(word(bytes, 1)?.cast_signed())),
        (LISTENER, Some(fd)) => Some(Message::Listener(fd)),
        (LISTENER_DONE, None) => Some(Message::ListenerDone),
        (READY, None) => Some(Message::Ready),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_socket() -> Result<()> {
        let (ours, theirs) = sys::socket::seqpacket_pair()?;
        let failure =
            Failure { step: 7, errno: libc::EPERM, code: Code::E_MOUNT, text: "mount".into() };
        for message in [
            Message::Go(None),
            Message::AtHooks,
            Message::HooksDone,
            Message::Listening(7),
            Message::ListenerDone,
            Message::Ready,
        ] {
            send(ours.as_fd(), &message)?;
            let got = receive(theirs.as_fd())?;
            assert_eq!(std::mem::discriminant(&got), std::mem::discriminant(&message));
        }
        send(ours.as_fd(), &Message::Failed(failure.clone()))?;
        assert!(matches!(receive(theirs.as_fd())?, Message::Failed(got) if got == failure));
        drop(ours);
        assert!(matches!(receive(theirs.as_fd())?, Message::End));
        Ok(())
    }

    #[test]
    fn forged_messages_are_refused() {
        assert!(decode(&[1, 0, 0], None).is_none());
        assert!(decode(&header(99, 0, 0, 0), None).is_none());
        assert!(decode(&header(CONSOLE, 0, 0, 0), None).is_none());
        assert!(decode(&header(LISTENER, 0, 0, 0), None).is_none());
        assert!(decode(&header(INIT, 0, 0, 0), None).is_none());
        assert!(decode(&header(AT_SOURCES, 0, 0, 0), None).is_none());
        assert!(decode(&header(SOURCE, 0, 0, 0), None).is_none());
        assert!(decode(&header(FAILED, 0, 0, 4000), None).is_none());
        let mut long = header(FAILED, 0, 0, PAYLOAD_MAX + 1).to_vec();
        long.extend(vec![b'x'; PAYLOAD_MAX + 1]);
        assert!(decode(&long, None).is_none());
    }

    #[test]
    fn a_long_failure_keeps_its_end() {
        let text = format!("{}the cause", "x".repeat(PAYLOAD_MAX));
        let failure = Failure { step: 1, errno: 0, code: Code::E_HOOK, text };
        let back = Failure::decode(&failure.encode());
        assert!(back.is_some_and(|back| back.text.ends_with("the cause")));
    }
}
