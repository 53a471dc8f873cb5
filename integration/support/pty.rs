//! Terminals: a pty of our own as the caller's terminal, and the receiver of a console socket.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use super::{fds, patience};

/// A pty: the engine's or the user's side is `master`, the runtime gets `slave`.
pub struct Pty {
    pub master: File,
    pub slave: OwnedFd,
}

impl Pty {
    pub fn open(rows: u16, columns: u16) -> Pty {
        let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
        let master = unsafe { libc::open(c"/dev/ptmx".as_ptr(), flags) };
        assert!(master >= 0, "/dev/ptmx");
        let master = unsafe { OwnedFd::from_raw_fd(master) };
        assert_eq!(unsafe { libc::unlockpt(master.as_raw_fd()) }, 0);
        let slave = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) };
        assert!(slave >= 0, "TIOCGPTPEER");
        let pty = Pty { master: master.into(), slave: unsafe { OwnedFd::from_raw_fd(slave) } };
        resize(&pty.master, rows, columns);
        pty
    }

    /// Whether the terminal is in raw mode (no line editing, no echo).
    pub fn is_raw(&self) -> bool {
        let mut termios: libc::termios = unsafe { std::mem::zeroed() };
        assert_eq!(unsafe { libc::tcgetattr(self.slave.as_raw_fd(), &mut termios) }, 0);
        termios.c_lflag & (libc::ICANON | libc::ECHO | libc::ISIG) == 0
    }
}

/// The window size of a terminal, as rows and columns.
pub fn size(terminal: &impl AsRawFd) -> (u16, u16) {
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    assert_eq!(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &mut size) }, 0);
    (size.ws_row, size.ws_col)
}

/// Changes the window size.
pub fn resize(terminal: &impl AsRawFd, rows: u16, columns: u16) {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    assert_eq!(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &size) }, 0);
}

/// Types into a terminal.
pub fn write(master: &mut File, text: &str) {
    master.write_all(text.as_bytes()).unwrap();
}

/// Reads from a terminal until the text has come; returns all that came.
#[track_caller]
pub fn read_until(master: &mut File, text: &str) -> String {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let so_far = String::from_utf8_lossy(&bytes).into_owned();
        if so_far.contains(text) {
            return so_far;
        }
        assert!(fds::readable(master, patience()), "{text:?} has not come; so far {so_far:?}");
        match master.read(&mut buffer) {
            Ok(count) if count > 0 => bytes.extend(&buffer[..count]),
            end => panic!("{text:?} has not come before {end:?}; so far {so_far:?}"),
        }
    }
}

/// The listening side of `--console-socket` or `--pidfd-socket`. It accepts only when told to.
pub struct FdSocket {
    listener: UnixListener,
    path: PathBuf,
}

/// All that came over one connection of an `FdSocket`.
#[derive(Debug)]
pub struct Received {
    pub fds: Vec<OwnedFd>,
    pub payload: Vec<u8>,
    /// Whether the runtime had closed the connection after its one message.
    pub closed: bool,
}

impl FdSocket {
    pub fn bind(dir: &Path) -> FdSocket {
        let path = dir.join("fd.sock");
        FdSocket { listener: UnixListener::bind(&path).unwrap(), path }
    }

    pub fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }

    /// Accepts one connection and takes what has been sent; fails if nobody has connected.
    #[track_caller]
    pub fn receive(&self) -> Received {
        assert!(fds::readable(&self.listener, patience()), "nobody has connected");
        let (stream, _) = self.listener.accept().unwrap();
        assert!(fds::readable(&stream, patience()), "nothing has been sent");
        let mut bytes = [0u8; 8192];
        let mut control = [0u64; 64];
        let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = &mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = std::mem::size_of_val(&control);
        let flags = libc::MSG_CMSG_CLOEXEC;
        let count = unsafe { libc::recvmsg(stream.as_raw_fd(), &mut message, flags) };
        assert!(count >= 0, "recvmsg");
        let received = unsafe { fds_of(&message) };
        let closed = fds::at_end(&mut File::from(OwnedFd::from(stream)));
        Received { fds: received, payload: bytes[..count as usize].to_vec(), closed }
    }
}

/// The descriptors of all SCM_RIGHTS messages.
///
/// # Safety
/// The header is one that recvmsg has just filled.
unsafe fn fds_of(message: &libc::msghdr) -> Vec<OwnedFd> {
    let mut fds = Vec::new();
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while let Some(head) = unsafe { header.as_ref() } {
        if head.cmsg_level == libc::SOL_SOCKET && head.cmsg_type == libc::SCM_RIGHTS {
            let data = unsafe { libc::CMSG_DATA(header) }.cast::<i32>();
            let bytes = head.cmsg_len - unsafe { libc::CMSG_LEN(0) } as usize;
            for index in 0..bytes / 4 {
                let fd = unsafe { data.add(index).read_unaligned() };
                fds.push(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    fds
}
