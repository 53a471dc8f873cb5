//! Pipes and sockets that show who writes to them and who still holds them.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use super::patience;

/// A pipe: the read end and the write end.
pub fn pipe() -> (File, OwnedFd) {
    let mut ends = [0; 2];
    assert_eq!(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
    let ends = ends.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    let [read, write] = ends;
    (read.into(), write)
}

/// A pair of Unix sockets of a type. `SOCK_SEQPACKET` keeps every write apart.
pub fn socket_pair(kind: i32) -> (File, OwnedFd) {
    let mut ends = [0; 2];
    let kind = kind | libc::SOCK_CLOEXEC;
    assert_eq!(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()) }, 0);
    let ends = ends.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    let [read, write] = ends;
    (read.into(), write)
}

/// Whether the descriptor can be read (or has been closed at the other side) in time.
pub fn readable(fd: &impl AsRawFd, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        match unsafe { libc::poll(&mut poll, 1, left.as_millis() as i32) } {
            1 => return true,
            0 => return false,
            _ => {}
        }
    }
}

/// Reads until nobody holds the other end any more; fails the test if somebody does for too long.
#[track_caller]
pub fn read_to_end(file: &mut File) -> String {
    let mut bytes = Vec::new();
    let mut buffer = [0; 65536];
    loop {
        assert!(readable(file, patience()), "the other end is still held; so far {bytes:?}");
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => bytes.extend(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // The master of a terminal whose last slave has been closed.
            Err(error) if error.raw_os_error() == Some(libc::EIO) => break,
            Err(error) => panic!("read: {error}"),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether the other end is closed at this moment and all has been read.
pub fn at_end(file: &mut File) -> bool {
    readable(file, Duration::ZERO) && matches!(file.read(&mut [0; 1]), Ok(0))
}

/// A second descriptor for the same open file.
pub fn duplicate(fd: &impl AsRawFd) -> OwnedFd {
    let copy = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3) };
    assert!(copy >= 0);
    unsafe { OwnedFd::from_raw_fd(copy) }
}
