//! Moving network devices of the host into the container (config-linux.md, "Network Devices"), and back
//! when create fails. What becomes of them after that is the kernel's business, as the spec wants.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use super::borrow::{self, Borrow};
use crate::error::{Code, Error, Result};
use crate::plan::namespaces::Kind;
use crate::plan::netdevs::NetDevice;
use crate::state::{MovedDevice, State};
use crate::sys;
use crate::sys::netlink::{self, Address, Link};

/// `RT_SCOPE_UNIVERSE` of linux/rtnetlink.h, then `IFA_F_PERMANENT`, `IFA_F_NOPREFIXROUTE`, `IFA_F_TENTATIVE` and
/// `IFA_F_NODAD` of linux/if_addr.h.
const SCOPE_UNIVERSE: u8 = 0;
const PERMANENT: u32 = 0x80;
const NO_PREFIX_ROUTE: u32 = 0x200;
const TENTATIVE: u32 = 0x40;
const NO_DUPLICATE_DETECTION: u32 = 0x02;

/// The two network namespaces. Its sockets keep both alive, also when the container's last process has
/// ended.
#[derive(Debug)]
pub struct Networks {
    host: OwnedFd,
    inside: OwnedFd,
    inside_namespace: OwnedFd,
}

impl Networks {
    /// Ours, and that of a process.
    pub fn of(pid: i32) -> Result<Self> {
        Self::at(&sys::cstr("open", format!("/proc/{pid}/ns/net"))?)
    }

    fn at(path: &CStr) -> Result<Self> {
        let inside_namespace = sys::fs::open(path, libc::O_RDONLY)?;
        let host = netlink::socket()?;
        if !borrow::returns(crate::host::in_user_namespace()?, [Kind::Network])? {
            return Err(sys::Error::new("setns", "network", libc::EPERM).into());
        }
        let borrow = Borrow::enter(&[(Kind::Network, inside_namespace.as_fd())])?;
        let inside = netlink::socket()?;
        drop(borrow);
        Ok(Self { host, inside, inside_namespace })
    }

    /// What will be moved, each with the number it will have, so that it can be found again whatever
    /// happens; refuses what cannot work before anything is moved.
    pub fn intend(&self, devices: &[NetDevice]) -> Result<Vec<MovedDevice>> {
        let links = netlink::links(self.host.as_fd())?;
        let there = netlink::links(self.inside.as_fd())?;
        let mut taken: Vec<i32> = there.iter().map(|link| link.index).collect();
        let mut intended = Vec::with_capacity(devices.len());
        for device in devices {
            let at = device.pointer();
            let Some(link) = links.iter().find(|link| link.name == device.host) else {
                return Err(Error::text(
                    Code::E_NET_DEVICE,
                    format!("{at}: no such network device"),
                ));
            };
            if link.flags & libc::IFF_LOOPBACK as u32 != 0 {
                return Err(Error::text(
                    Code::E_NET_DEVICE,
                    format!("{at}: a loopback device cannot be moved"),
                ));
            }
            if there.iter().any(|other| other.name == device.name) {
                let name = device.name.escape_debug();
                return Err(Error::text(
                    Code::E_NET_DEVICE,
                    format!(
                        "{at}/name: the container's network namespace has a device {name} already"
                    ),
                ));
            }
            let free = taken.iter().max().map_or(1, |max| max.saturating_add(1));
            let index = if taken.contains(&link.index) { free } else { link.index };
            taken.push(index);
            intended.push(MovedDevice {
                host: link.name.clone(),
                host_index: link.index,
                up: link.flags & libc::IFF_UP as u32 != 0,
                index,
            });
        }
        Ok(intended)
    }

    /// Moves them, with their addresses, and sets them up.
    pub fn give(&self, devices: &[NetDevice], intended: &[MovedDevice]) -> Result<()> {
        for (device, moved) in devices.iter().zip(intended) {
            let name = sys::cstr("rtnetlink", &device.name)?;
            let name = (device.name != device.host).then_some(name.as_c_str());
            let kept = global(netlink::addresses(self.host.as_fd(), moved.host_index)?);
            netlink::move_link(
                self.host.as_fd(),
                moved.host_index,
                self.inside_namespace.as_fd(),
                moved.index,
                name,
            )
            .and_then(|()| settle(&self.inside, moved.index, &kept, true))
            .map_err(Error::at(Code::E_NET_DEVICE, device.pointer()))?;
        }
        Ok(())
    }

    /// Moves back whatever has been moved, as if it had never been tried (runtime.md, "Errors").
    pub fn take_back(&self, moved: &[MovedDevice]) -> Result<()> {
        let links = netlink::links(self.host.as_fd())?;
        let there = netlink::links(self.inside.as_fd())?;
        let ours = sys::fs::open(c"/proc/self/ns/net", libc::O_RDONLY)?;
        for device in moved {
            let home = |link: &Link| (link.index, &link.name) == (device.host_index, &device.host);
            let away = there.iter().any(|link| link.index == device.index);
            if links.iter().any(home) || !away {
                continue;
            }
            let kept = global(netlink::addresses(self.inside.as_fd(), device.index)?);
            let name = sys::cstr("rtnetlink", &device.host)?;
            let taken = links.iter().any(|link| link.index == device.host_index);
            let free = links.iter().map(|link| link.index).max().unwrap_or(0).saturating_add(1);
            let index = if taken { free } else { device.host_index };
            netlink::move_link(
                self.inside.as_fd(),
                device.index,
                ours.as_fd(),
                index,
                Some(name.as_c_str()),
            )
            .and_then(|()| settle(&self.host, index, &kept, device.up))
            .map_err(Error::at(
                Code::E_NET_DEVICE,
                format_args!("/linux/netDevices/{}", device.host),
            ))?;
        }
        Ok(())
    }
}

/// The same for a create that was killed: its devices are in the namespace that it joined.
pub fn take_back_from(state: &State) -> Result<()> {
    let Some(path) = &state.network else { return Ok(()) };
    match Networks::at(&sys::cstr("open", path.as_os_str().as_bytes())?) {
        // Gone, and the devices with it.
        Err(error) if error.errno() == Some(libc::ENOENT) => Ok(()),
        networks => networks?.take_back(&state.net_devices),
    }
}

/// What the move took away: a device arrives down and without addresses.
fn settle(socket: &OwnedFd, index: i32, addresses: &[Address], up: bool) -> sys::Result<()> {
    for address in addresses {
        netlink::add_address(socket.as_fd(), index, address)?;
    }
    if up { netlink::set_up(socket.as_fd(), index) } else { Ok(()) }
}

/// The addresses that somebody gave the device for good and that mean the same everywhere: others are
/// learned or made up again where it arrives. What was found to be nobody else's is not asked for again,
/// or the container's first second would be without it.
fn global(addresses: Vec<Address>) -> Vec<Address> {
    let keep =
        |address: &Address| address.scope == SCOPE_UNIVERSE && address.flags & PERMANENT != 0;
    let settled = |mut address: Address| {
        let known = i32::from(address.family) == libc::AF_INET6 && address.flags & TENTATIVE == 0;
        let sure = if known { NO_DUPLICATE_DETECTION } else { 0 };
        address.flags = address.flags & (PERMANENT | NO_PREFIX_ROUTE) | sure;
        address
    };
    addresses.into_iter().filter(keep).map(settled).collect()
}
