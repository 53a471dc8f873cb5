//! Unix sockets and the descriptors sent over them; the loopback interface.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
};

use super::{Error, Result, done};

fn failed(call: &'static str, errno: nix::errno::Errno) -> Error {
    Error::new(call, "", errno as i32)
}

/// A connected pair of `SOCK_SEQPACKET` sockets: messages keep their borders, EOF is visible.
pub fn seqpacket_pair() -> Result<(OwnedFd, OwnedFd)> {
    nix::sys::socket::socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )
    .map_err(|errno| failed("socketpair", errno))
}

/// Sends one message, with descriptors; never a `SIGPIPE`. On a stream socket a long one may go in
/// several parts, the descriptors with the first.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let mut control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    let mut unsent = bytes;
    loop {
        match nix::sys::socket::sendmsg::<()>(
            socket.as_raw_fd(),
            &[IoSlice::new(unsent)],
            control,
            MsgFlags::MSG_NOSIGNAL,
            None,
        ) {
            Ok(count) => {
                control = &[];
                unsent = unsent.get(count..).unwrap_or_default();
                if unsent.is_empty() {
                    return Ok(());
                }
            }
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(failed("sendmsg", errno)),
        }
    }
}

/// Receives one message into `buffer`, with up to four descriptors. Length 0 is the peer's end.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<(usize, Vec<OwnedFd>)> {
    let mut space = nix::cmsg_space!([RawFd; 4]);
    if super::deadline::left().is_some() {
        super::fs::poll(&[(socket, libc::POLLIN)], -1)?;
    }
    loop {
        let mut parts = [IoSliceMut::new(buffer)];
        let received = nix::sys::socket::recvmsg::<()>(
            socket.as_raw_fd(),
            &mut parts,
            Some(&mut space),
            MsgFlags::MSG_CMSG_CLOEXEC,
        );
        let message = match received {
            Ok(message) => message,
            // The peer died with our message unread, which is told once and before its last words.
            Err(nix::errno::Errno::EINTR | nix::errno::Errno::ECONNRESET) => continue,
            Err(errno) => return Err(failed("recvmsg", errno)),
        };
        let mut fds = Vec::new();
        for control in message.cmsgs().map_err(|errno| failed("recvmsg", errno))? {
            if let ControlMessageOwned::ScmRights(raw) = control {
                // SAFETY: the kernel has just installed these descriptors for us.
                fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        return Ok((message.bytes, fds));
    }
}

/// Connects to a stream socket in the filesystem. A path too long for `sun_path` goes by way of a
/// descriptor of its directory.
pub fn connect(path: &std::path::Path) -> Result<OwnedFd> {
    use std::os::unix::ffi::OsStrExt;
    let socket = nix::sys::socket::socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .map_err(|errno| failed("socket", errno))?;
    let about = |errno: nix::errno::Errno| Error::new("connect", path.display(), errno as i32);
    if path.as_os_str().len() < 108 {
        let address = UnixAddr::new(path).map_err(about)?;
        nix::sys::socket::connect(socket.as_raw_fd(), &address).map_err(about)?;
        return Ok(socket);
    }
    let parent = path.parent().unwrap_or(std::path::Path::new("/"));
    let dir = super::cstr("open", parent.as_os_str().as_bytes())?;
    let dir = super::fs::open(&dir, libc::O_PATH | libc::O_DIRECTORY)?;
    let name = path.file_name().unwrap_or_default();
    let short = format!("/proc/self/fd/{}/{}", dir.as_raw_fd(), name.to_string_lossy());
    let address = UnixAddr::new(short.as_str()).map_err(about)?;
    nix::sys::socket::connect(socket.as_raw_fd(), &address).map_err(about)?;
    Ok(socket)
}

/// A datagram socket with this name in a directory, whatever was there by that name.
pub fn bind_datagram(dir: BorrowedFd<'_>, name: &std::ffi::CStr) -> Result<OwnedFd> {
    match super::fs::unlinkat(dir, name, 0) {
        Err(error) if error.errno != libc::ENOENT => return Err(error),
        _ => {}
    }
    let socket = datagram()?;
    // By way of the descriptor: the directory's own path may be too long for sun_path.
    let path = format!("/proc/self/fd/{}/{}", dir.as_raw_fd(), name.to_string_lossy());
    let address = UnixAddr::new(path.as_str()).map_err(|errno| failed("bind", errno))?;
    nix::sys::socket::bind(socket.as_raw_fd(), &address).map_err(|errno| failed("bind", errno))?;
    Ok(socket)
}

/// A datagram socket that sends to this address: a path, or with `@` an abstract name (unix(7)).
pub fn connect_datagram(address: &std::ffi::OsStr) -> Result<OwnedFd> {
    use std::os::unix::ffi::OsStrExt;
    let socket = datagram()?;
    let address = match address.as_bytes().strip_prefix(b"@") {
        Some(name) => UnixAddr::new_abstract(name),
        None => UnixAddr::new(address),
    };
    let address = address.map_err(|errno| failed("connect", errno))?;
    nix::sys::socket::connect(socket.as_raw_fd(), &address)
        .map_err(|errno| failed("connect", errno))?;
    Ok(socket)
}

/// Connects a stream socket that never blocks, by a path or, with a NUL in front, by a name of the
/// abstract namespace. `EAGAIN`: the listener's queue is full.
pub fn connect_nonblocking(name: &[u8]) -> Result<OwnedFd> {
    let socket = nix::sys::socket::socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )
    .map_err(|errno| failed("socket", errno))?;
    let address = match name.split_first() {
        Some((0, name)) => UnixAddr::new_abstract(name),
        _ => UnixAddr::new(name),
    };
    let address = address.map_err(|errno| failed("connect", errno))?;
    nix::sys::socket::connect(socket.as_raw_fd(), &address)
        .map_err(|errno| failed("connect", errno))?;
    Ok(socket)
}

fn datagram() -> Result<OwnedFd> {
    nix::sys::socket::socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        .map_err(|errno| failed("socket", errno))
}

/// Writes what fits to a stream socket; never a `SIGPIPE`.
pub fn write_nosignal(socket: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize> {
    loop {
        match nix::sys::socket::send(socket.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL) {
            Err(nix::errno::Errno::EINTR) => {}
            result => return result.map_err(|errno| failed("send", errno)),
        }
    }
}

/// Brings the loopback interface of the current network namespace up (netdevice(7)).
pub fn loopback_up() -> Result<()> {
    let socket = nix::sys::socket::socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .map_err(|errno| failed("socket", errno))?;
    // SAFETY: ifreq is plain data for which all-zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which outlives the call.
    let ret =
        unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    done(ret.into(), "ioctl", "SIOCSIFFLAGS lo")
}

/// sethostname(2).
pub fn sethostname(name: &str) -> Result<()> {
    // SAFETY: the bytes are as long as we say.
    let ret = unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) };
    done(ret.into(), "sethostname", name)
}

/// setdomainname(2).
pub fn setdomainname(name: &str) -> Result<()> {
    // SAFETY: the bytes are as long as we say.
    let ret = unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) };
    done(ret.into(), "setdomainname", name)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn last_words_of_a_peer_that_died_with_our_message_unread_are_heard() {
        let (ours, theirs) = seqpacket_pair().unwrap();
        send(ours.as_fd(), b"unread", &[]).unwrap();
        send(theirs.as_fd(), b"last", &[]).unwrap();
        drop(theirs);
        let mut buffer = [0; 16];
        assert_eq!(receive(ours.as_fd(), &mut buffer).unwrap().0, 4);
        assert_eq!(buffer.get(..4), Some(&b"last"[..]));
        assert_eq!(receive(ours.as_fd(), &mut buffer).unwrap().0, 0);
    }
}
