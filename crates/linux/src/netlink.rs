//! Route netlink: making, joining and removing links and addresses of one network namespace, without iproute2.
//!
//! # References
//! `rtnetlink(7)`, `netlink(7)`, `veth(4)`; `linux/rtnetlink.h`, `linux/if_link.h`, `linux/veth.h`.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::namespace::{self, Namespaces};

/// Attribute of `linux/veth.h` that libc does not name: the other end of the pair.
const VETH_INFO_PEER: u16 = 1;
/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Bytes of `struct ifinfomsg`.
const LINK_BODY: usize = 16;

/// One end of a veth pair: the name of its device and the network namespace that it lands in.
#[derive(Debug, Clone, Copy)]
pub struct VethEnd<'a> {
    /// Name of the device inside its namespace, at most 15 bytes.
    pub device: &'a str,
    /// The network namespace that holds this end.
    pub network: BorrowedFd<'a>,
}

/// A route netlink socket: it speaks for the network namespace that it was opened in, from wherever it is used.
#[derive(Debug)]
pub struct RouteSocket {
    socket: File,
    sequence: u32,
}

impl RouteSocket {
    /// Opens a socket for the caller's own network namespace.
    ///
    /// # Errors
    /// As `socket(2)`.
    pub fn open() -> io::Result<Self> {
        // SAFETY: socket() takes no pointers; its result is checked before it is owned.
        let descriptor =
            unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and belongs to nobody else.
        let socket = unsafe { OwnedFd::from_raw_fd(descriptor) };
        Ok(Self { socket: File::from(socket), sequence: 0 })
    }

    /// Opens a socket for another network namespace; the caller stays where it is.
    ///
    /// # Errors
    /// As `setns(2)` and `socket(2)`.
    pub fn open_in(network: BorrowedFd<'_>) -> io::Result<Self> {
        namespace::inside(network, Namespaces::NETWORK, Self::open)?
    }

    /// Makes a veth pair with each end in its own network namespace; both ends are down and without address.
    ///
    /// # Errors
    /// The kernel's answer: `EEXIST` where a device of that name is there, `EOPNOTSUPP` without veth.
    pub fn add_veth(&mut self, near: VethEnd<'_>, far: VethEnd<'_>) -> io::Result<()> {
        let mut message = Message::link(libc::RTM_NEWLINK, creating(), 0, 0);
        message.place(near)?;
        message.nested(libc::IFLA_LINKINFO, |info| {
            info.text(libc::IFLA_INFO_KIND, "veth")?;
            info.nested(libc::IFLA_INFO_DATA, |data| {
                data.nested(VETH_INFO_PEER, |peer| {
                    peer.bytes.extend_from_slice(&[0; LINK_BODY]);
                    peer.place(far)
                })
            })
        })?;
        self.request(message).map(drop)
    }

    /// Makes a bridge that forwards at once (no learning delay), down and without ports.
    ///
    /// # Errors
    /// The kernel's answer: `EEXIST` where a device of that name is there, `EOPNOTSUPP` without bridges.
    pub fn add_bridge(&mut self, device: &str) -> io::Result<()> {
        let mut message = Message::link(libc::RTM_NEWLINK, creating(), 0, 0);
        message.name(device)?;
        message.nested(libc::IFLA_LINKINFO, |info| info.text(libc::IFLA_INFO_KIND, "bridge"))?;
        self.request(message).map(drop)
    }

    /// Makes a device a port of a bridge.
    ///
    /// # Errors
    /// The kernel's answer; `ENODEV` where either is missing.
    pub fn join_bridge(&mut self, device: &str, bridge: &str) -> io::Result<()> {
        let bridge = self.index(bridge)?;
        let mut message = Message::link(libc::RTM_NEWLINK, 0, 0, 0);
        message.name(device)?;
        message.attribute(libc::IFLA_MASTER, &bridge.to_ne_bytes())?;
        self.request(message).map(drop)
    }

    /// Sets a device up or down.
    ///
    /// # Errors
    /// The kernel's answer; `ENODEV` where it is missing.
    pub fn set_up(&mut self, device: &str, up: bool) -> io::Result<()> {
        let flag = libc::IFF_UP as u32;
        let mut message = Message::link(libc::RTM_NEWLINK, 0, if up { flag } else { 0 }, flag);
        message.name(device)?;
        self.request(message).map(drop)
    }

    /// Removes a device; the other end of a veth pair goes with it.
    ///
    /// # Errors
    /// The kernel's answer; `ENODEV` where it is missing.
    pub fn remove(&mut self, device: &str) -> io::Result<()> {
        let mut message = Message::link(libc::RTM_DELLINK, 0, 0, 0);
        message.name(device)?;
        self.request(message).map(drop)
    }

    /// Gives a device an address with the prefix length of its subnet.
    ///
    /// # Errors
    /// The kernel's answer; `EEXIST` where it has the address.
    pub fn add_address(&mut self, device: &str, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let message = self.address(libc::RTM_NEWADDR, creating(), device, address, prefix)?;
        self.request(message).map(drop)
    }

    /// Takes an address from a device.
    ///
    /// # Errors
    /// The kernel's answer; `EADDRNOTAVAIL` where it does not have the address.
    pub fn remove_address(&mut self, device: &str, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let message = self.address(libc::RTM_DELADDR, 0, device, address, prefix)?;
        self.request(message).map(drop)
    }

    /// The index of a device.
    ///
    /// # Errors
    /// `ENODEV` where no device has that name.
    pub fn index(&mut self, device: &str) -> io::Result<u32> {
        let mut message = Message::link(libc::RTM_GETLINK, 0, 0, 0);
        message.name(device)?;
        let answer = self.request(message)?;
        word(&answer, HEADER + 4).ok_or_else(malformed)
    }

    fn address(&mut self, kind: u16, flags: u16, device: &str, address: Ipv4Addr, prefix: u8) -> io::Result<Message> {
        let index = self.index(device)?;
        let mut message = Message::new(kind, flags);
        message.bytes.extend_from_slice(&[libc::AF_INET as u8, prefix, 0, libc::RT_SCOPE_UNIVERSE]);
        message.bytes.extend_from_slice(&index.to_ne_bytes());
        message.attribute(libc::IFA_LOCAL, &address.octets())?;
        message.attribute(libc::IFA_ADDRESS, &address.octets())?;
        Ok(message)
    }

    /// Sends one request and waits for its acknowledgement; returns the first message that came before it, if any.
    fn request(&mut self, mut message: Message) -> io::Result<Vec<u8>> {
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        message.seal(sequence)?;
        self.socket.write_all(&message.bytes)?;
        let mut answer = Vec::new();
        let mut buffer = vec![0; 32 * 1024];
        loop {
            let received = self.socket.read(&mut buffer)?;
            let mut rest = buffer.get(..received).ok_or_else(malformed)?;
            while rest.len() >= HEADER {
                let length = word(rest, 0).ok_or_else(malformed)? as usize;
                let one = rest.get(..length).filter(|one| one.len() >= HEADER).ok_or_else(malformed)?;
                if word(one, 8) == Some(sequence) {
                    if half(one, 4) == Some(libc::NLMSG_ERROR as u16) {
                        let code = word(one, HEADER).ok_or_else(malformed)? as i32;
                        return if code == 0 { Ok(answer) } else { Err(io::Error::from_raw_os_error(-code)) };
                    }
                    if answer.is_empty() {
                        answer = one.to_vec();
                    }
                }
                rest = rest.get(aligned(length)..).unwrap_or_default();
            }
        }
    }
}

/// Flags of a request that makes something new.
fn creating() -> u16 {
    (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "malformed netlink message")
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// A request being written: header, body, attributes.
struct Message {
    bytes: Vec<u8>,
}

impl Message {
    fn new(kind: u16, flags: u16) -> Self {
        let flags = flags | (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        Self { bytes }
    }

    /// A message about a link: `struct ifinfomsg` with the device flags to set and the mask of those that change.
    fn link(kind: u16, flags: u16, device_flags: u32, change: u32) -> Self {
        let mut message = Self::new(kind, flags);
        message.bytes.extend_from_slice(&[0; 8]);
        message.bytes.extend_from_slice(&device_flags.to_ne_bytes());
        message.bytes.extend_from_slice(&change.to_ne_bytes());
        message
    }

    fn attribute(&mut self, kind: u16, payload: &[u8]) -> io::Result<()> {
        let length = u16::try_from(4 + payload.len()).map_err(|_| malformed())?;
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(payload);
        self.bytes.resize(aligned(self.bytes.len()), 0);
        Ok(())
    }

    fn text(&mut self, kind: u16, text: &str) -> io::Result<()> {
        let mut payload = text.as_bytes().to_vec();
        payload.push(0);
        self.attribute(kind, &payload)
    }

    /// The name of the device meant; the kernel would cut a longer one silently in some messages.
    fn name(&mut self, device: &str) -> io::Result<()> {
        if device.is_empty() || device.len() >= libc::IFNAMSIZ {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a device name has 1 to 15 bytes"));
        }
        self.text(libc::IFLA_IFNAME, device)
    }

    fn place(&mut self, end: VethEnd<'_>) -> io::Result<()> {
        self.name(end.device)?;
        self.attribute(libc::IFLA_NET_NS_FD, &end.network.as_raw_fd().to_ne_bytes())
    }

    fn nested(&mut self, kind: u16, inner: impl FnOnce(&mut Self) -> io::Result<()>) -> io::Result<()> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        inner(self)?;
        let length = u16::try_from(self.bytes.len() - start).map_err(|_| malformed())?;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.bytes[start + 2..start + 4].copy_from_slice(&kind.to_ne_bytes());
        Ok(())
    }

    fn seal(&mut self, sequence: u32) -> io::Result<()> {
        let length = u32::try_from(self.bytes.len()).map_err(|_| malformed())?;
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_device_has_an_index() {
        assert_eq!(RouteSocket::open().unwrap().index("lo").unwrap(), 1);
    }

    #[test]
    fn a_missing_device_is_an_error() {
        let error = RouteSocket::open().unwrap().index("no-such-dev").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
    }

    #[test]
    fn a_name_that_is_too_long_is_refused_before_the_kernel_sees_it() {
        let error = RouteSocket::open().unwrap().remove("sixteen-bytes-xx").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
