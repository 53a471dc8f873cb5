//! rtnetlink(7): the network devices of a network namespace, and their addresses.
//!
//! A socket belongs to the network namespace in which it was made, wherever its owner goes.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::{Error, Result, done, owned};

/// `IFLA_NET_NS_FD`, `IFLA_NEW_IFINDEX` (Linux 5.13) of linux/if_link.h.
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_NEW_IFINDEX: u16 = 49;
const IFLA_IFNAME: u16 = 3;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
const NETLINK_CAP_ACK: libc::c_int = 10;
const NETLINK_EXT_ACK: libc::c_int = 11;
const NLMSGERR_ATTR_MSG: u16 = 1;
/// struct nlmsghdr: u32 length, u16 type, u16 flags, u32 sequence, u32 port.
const HEADER: usize = 16;
/// struct ifinfomsg and struct ifaddrmsg.
const IFINFOMSG: usize = 16;
const IFADDRMSG: usize = 8;
/// One datagram of a dump is at most this long (netlink(7) on the size of buffers).
const BUFFER: usize = 32768;

/// A network device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number in this namespace.
    pub index: i32,
    /// Its name.
    pub name: String,
    /// `IFF_*` of netdevice(7).
    pub flags: u32,
}

/// An address of a device, as far as it is the device's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// `AF_INET` or `AF_INET6`.
    pub family: u8,
    /// Length of the network part in bits.
    pub prefix: u8,
    /// `RT_SCOPE_*`
    pub scope: u8,
    /// `IFA_F_*`
    pub flags: u32,
    /// The peer's address, or the device's.
    pub address: Option<Vec<u8>>,
    /// The device's address.
    pub local: Option<Vec<u8>>,
    /// The broadcast address.
    pub broadcast: Option<Vec<u8>>,
}

/// A socket in the current network namespace, close-on-exec, whose errors come with the kernel's words.
pub fn socket() -> Result<OwnedFd> {
    // SAFETY: takes no pointer.
    let ret = unsafe {
        libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE)
    };
    let socket = owned(ret.into(), "socket", "NETLINK_ROUTE")?;
    for option in [NETLINK_EXT_ACK, NETLINK_CAP_ACK] {
        let on: libc::c_int = 1;
        // SAFETY: the value is one int that outlives the call.
        let ret = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_NETLINK,
                option,
                (&raw const on).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        done(ret.into(), "setsockopt", "SOL_NETLINK")?;
    }
    Ok(socket)
}

/// All devices of the socket's namespace.
pub fn links(socket: BorrowedFd<'_>) -> Result<Vec<Link>> {
    let request = Request::new(libc::RTM_GETLINK, libc::NLM_F_DUMP, &[0; IFINFOMSG]);
    let mut links = Vec::new();
    request.send(socket, |kind, body| {
        if kind != libc::RTM_NEWLINK {
            return;
        }
        let (Some(index), Some(flags)) = (word(body, 4), word(body, 8)) else { return };
        for (attribute, value) in attributes(body.get(IFINFOMSG..).unwrap_or_default()) {
            if attribute == IFLA_IFNAME {
                let name = CStr::from_bytes_until_nul(value).unwrap_or_default();
                let name = name.to_string_lossy().into_owned();
                links.push(Link { index: index.cast_signed(), name, flags });
            }
        }
    })?;
    Ok(links)
}

/// All addresses of one device.
pub fn addresses(socket: BorrowedFd<'_>, index: i32) -> Result<Vec<Address>> {
    let request = Request::new(libc::RTM_GETADDR, libc::NLM_F_DUMP, &[0; IFADDRMSG]);
    let mut found = Vec::new();
    request.send(socket, |kind, body| {
        if kind == libc::RTM_NEWADDR && word(body, 4) == Some(index.cast_unsigned()) {
            found.extend(address(body));
        }
    })?;
    Ok(found)
}

fn address(body: &[u8]) -> Option<Address> {
    let &[family, prefix, flags, scope] = body.first_chunk::<4>()?;
    let mut address = Address {
        family,
        prefix,
        scope,
        flags: flags.into(),
        address: None,
        local: None,
        broadcast: None,
    };
    for (attribute, value) in attributes(body.get(IFADDRMSG..)?) {
        match attribute {
            IFA_ADDRESS => address.address = Some(value.to_vec()),
            IFA_LOCAL => address.local = Some(value.to_vec()),
            IFA_BROADCAST => address.broadcast = Some(value.to_vec()),
            // The eight bits of the header are too few since Linux 3.14.
            IFA_FLAGS => address.flags = word(value, 0)?,
            _ => {}
        }
    }
    Some(address)
}

/// Moves a device to another network namespace, where it gets a number and, if one is given, a name;
/// `%d` in it is for the kernel to choose.
pub fn move_link(
    socket: BorrowedFd<'_>,
    index: i32,
    namespace: BorrowedFd<'_>,
    new_index: i32,
    name: Option<&CStr>,
) -> Result<()> {
    let mut request = Request::new(libc::RTM_NEWLINK, libc::NLM_F_ACK, &ifinfomsg(index, 0, 0));
    request.attribute(IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
    request.attribute(IFLA_NEW_IFINDEX, &new_index.to_ne_bytes());
    if let Some(name) = name {
        request.attribute(IFLA_IFNAME, name.to_bytes_with_nul());
    }
    request.send(socket, |_, _| {})
}

/// Sets a device up.
pub fn set_up(socket: BorrowedFd<'_>, index: i32) -> Result<()> {
    let up = (libc::IFF_UP as u32, libc::IFF_UP as u32);
    Request::new(libc::RTM_NEWLINK, libc::NLM_F_ACK, &ifinfomsg(index, up.0, up.1))
        .send(socket, |_, _| {})
}

/// Gives a device an address.
pub fn add_address(socket: BorrowedFd<'_>, index: i32, address: &Address) -> Result<()> {
    let mut body = [address.family, address.prefix, 0, address.scope, 0, 0, 0, 0];
    body[4..].copy_from_slice(&index.to_ne_bytes());
    let flags = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    let mut request = Request::new(libc::RTM_NEWADDR, flags, &body);
    request.attribute(IFA_FLAGS, &address.flags.to_ne_bytes());
    let parts = [
        (IFA_ADDRESS, &address.address),
        (IFA_LOCAL, &address.local),
        (IFA_BROADCAST, &address.broadcast),
    ];
    for (attribute, value) in parts {
        if let Some(value) = value {
            request.attribute(attribute, value);
        }
    }
    request.send(socket, |_, _| {})
}

/// struct ifinfomsg: u8 family, pad, u16 type, i32 index, u32 flags, u32 change.
fn ifinfomsg(index: i32, flags: u32, change: u32) -> [u8; IFINFOMSG] {
    let mut body = [0u8; IFINFOMSG];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[8..12].copy_from_slice(&flags.to_ne_bytes());
    body[12..].copy_from_slice(&change.to_ne_bytes());
    body
}

/// One request in bytes; its answers are read before the next is sent, so one sequence number does.
struct Request {
    bytes: Vec<u8>,
}

impl Request {
    fn new(kind: u16, flags: libc::c_int, body: &[u8]) -> Self {
        let mut bytes = vec![0u8; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        let flags = u16::try_from(flags | libc::NLM_F_REQUEST).unwrap_or(0);
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(body);
        Self { bytes }
    }

    /// struct rtattr: u16 length with header, u16 type, the value, padded to four bytes.
    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// Sends it and gives every message of the answer to `each`, up to the acknowledgement.
    fn send(mut self, socket: BorrowedFd<'_>, mut each: impl FnMut(u16, &[u8])) -> Result<()> {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        super::fs::write(socket.as_fd(), &self.bytes).map_err(|error| error.about("rtnetlink"))?;
        let mut buffer = vec![0u8; BUFFER];
        loop {
            let count = super::fs::read(socket, &mut buffer)?;
            let mut rest = buffer.get(..count).unwrap_or_default();
            while let Some((kind, body, after)) = message(rest) {
                match i32::from(kind) {
                    libc::NLMSG_DONE => return Ok(()),
                    libc::NLMSG_ERROR => return acknowledged(body),
                    _ => each(kind, body),
                }
                rest = after;
            }
        }
    }
}

/// The first message of a datagram: its type, its body, and what follows.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(word(bytes, 0)?).ok()?;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk::<2>()?);
    let body = bytes.get(HEADER..length)?;
    Some((kind, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// struct nlmsgerr: i32 error, the request's header; then attributes with the kernel's words.
fn acknowledged(body: &[u8]) -> Result<()> {
    let errno = word(body, 0).map_or(libc::EPROTO, |word| word.cast_signed().wrapping_neg());
    if errno == 0 {
        return Ok(());
    }
    let mut error = Error::new("rtnetlink", "", errno);
    for (attribute, value) in attributes(body.get(4 + HEADER..).unwrap_or_default()) {
        if attribute == NLMSGERR_ATTR_MSG {
            let words = CStr::from_bytes_until_nul(value).unwrap_or_default();
            error.kernel = super::visible(&words.to_string_lossy());
        }
    }
    Err(error)
}

/// The attributes in a message, by their type without its flag bits.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk::<2>()?));
        let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk::<2>()?) & 0x3fff;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk::<4>().map(|word| u32::from_ne_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn netdevices_the_loopback_device_is_listed_with_its_address() -> Result<()> {
        let socket = socket()?;
        let links = links(socket.as_fd())?;
        let lo = links.iter().find(|link| link.name == "lo");
        assert!(lo.is_some_and(|lo| lo.flags & libc::IFF_LOOPBACK as u32 != 0), "{links:?}");
        let index = lo.map_or(0, |lo| lo.index);
        let own = addresses(socket.as_fd(), index)?;
        let up = lo.is_some_and(|lo| lo.flags & libc::IFF_UP as u32 != 0);
        let local = own.iter().any(|address| address.local.as_deref() == Some(&[127, 0, 0, 1]));
        assert!(local || !up, "{own:?}");
        Ok(())
    }

    #[test]
    fn netdevices_damaged_answers_end_the_walk() {
        assert!(message(&[]).is_none());
        assert!(message(&[200, 0, 0, 0, 1, 0, 0, 0]).is_none());
        assert_eq!(attributes(&[3, 0, 1, 0]).count(), 0);
        assert_eq!(attributes(&[255, 255, 1, 0, 0]).count(), 0);
        assert!(acknowledged(&[]).is_err());
    }
}
