//! Sockets of every family but Unix (TCP, UDP, netlink, packet …): recognised and refused by name, with protocol, addresses
//! and state, because their other side is outside the tree by nature.
use super::{Captured, Description, Kind, Made, Need, Stage, TaskState};
use crate::capture::Capture;
use crate::failure::Result;
use crate::look::{Look, Survey};
use crate::restore::{Bind, Make};
use godwit_image::{Code, Envelope, KindId, Refusal, Subject, Verdict};
use godwit_linux::socket;
use std::net::{Ipv4Addr, Ipv6Addr};

const S_IFSOCK: u32 = 0o140_000;
const O_PATH: u32 = 0o10_000_000;
const SO_TYPE: i32 = 3;
const SO_ACCEPTCONN: i32 = 30;
const SO_PROTOCOL: i32 = 38;
const SO_DOMAIN: i32 = 39;
const AF_UNIX: i32 = 1;
const AF_INET: i32 = 2;
const AF_INET6: i32 = 10;
const AF_NETLINK: i32 = 16;
const AF_PACKET: i32 = 17;
const AF_ALG: i32 = 38;
const AF_VSOCK: i32 = 40;
const AF_XDP: i32 = 44;
const SOCK_RAW: i32 = 3;
const IPPROTO_TCP: i32 = 6;
const TCP_INFO: i32 = 11;

/// The kind.
#[derive(Debug)]
pub struct InetSocket;

/// Whether an open description is a socket, of whatever family.
pub(super) fn is_socket(look: &Look) -> bool {
    look.file_type() == S_IFSOCK && look.link.starts_with(b"socket:[") && look.flags() & O_PATH == 0
}

fn half(raw: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(raw.get(at..at + 2)?.try_into().ok()?))
}

fn word(raw: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(raw.get(at..at + 4)?.try_into().ok()?))
}

/// An address as people write it; `None` for the families that have none worth showing.
fn address(raw: &[u8]) -> Option<String> {
    let family = i32::from(u16::from_ne_bytes(raw.get(..2)?.try_into().ok()?));
    match family {
        AF_INET => {
            let octets: [u8; 4] = raw.get(4..8)?.try_into().ok()?;
            Some(format!("{}:{}", Ipv4Addr::from(octets), half(raw, 2)?))
        }
        AF_INET6 => {
            let octets: [u8; 16] = raw.get(8..24)?.try_into().ok()?;
            Some(format!("[{}]:{}", Ipv6Addr::from(octets), half(raw, 2)?))
        }
        AF_NETLINK => Some(format!("port {}, groups {:#x}", word(raw, 4)?, word(raw, 8)?)),
        AF_PACKET => Some(format!("protocol {:#06x}, interface {}", half(raw, 2)?, word(raw, 4)?)),
        AF_VSOCK => Some(format!("{}:{}", word(raw, 8)?, word(raw, 4)?)),
        _ => None,
    }
}

fn protocol(family: i32, sort: i32, protocol: i32) -> String {
    const NETLINK: [&str; 7] = ["ROUTE", "UNUSED", "USERSOCK", "FIREWALL", "SOCK_DIAG", "NFLOG", "XFRM"];
    let sort_name = match sort {
        1 => "stream",
        2 => "datagram",
        SOCK_RAW => "raw",
        5 => "seqpacket",
        _ => "other",
    };
    match family {
        AF_INET | AF_INET6 => {
            let version = if family == AF_INET6 { "6" } else { "" };
            match (sort, protocol) {
                (SOCK_RAW, number) => format!("raw IP{version} socket of protocol {number}"),
                (_, IPPROTO_TCP) => format!("TCP{version} socket"),
                (_, 17) => format!("UDP{version} socket"),
                (_, 1 | 58) => format!("ICMP{version} echo socket"),
                (_, 132) => format!("SCTP{version} socket"),
                (_, 136) => format!("UDP-Lite{version} socket"),
                (_, 262) => format!("MPTCP{version} socket"),
                (_, 256) => format!("SMC{version} socket"),
                (_, number) => format!("IP{version} {sort_name} socket of protocol {number}"),
            }
        }
        AF_NETLINK => match NETLINK.get(usize::try_from(protocol).unwrap_or(usize::MAX)) {
            Some(name) => format!("netlink socket (NETLINK_{name})"),
            None if protocol == 15 => "netlink socket (NETLINK_KOBJECT_UEVENT)".to_owned(),
            None if protocol == 16 => "netlink socket (NETLINK_GENERIC)".to_owned(),
            None => format!("netlink socket of protocol {protocol}"),
        },
        AF_PACKET => format!("packet socket ({sort_name})"),
        AF_VSOCK => format!("vsock {sort_name} socket"),
        AF_ALG => "socket of the kernel's cryptography (AF_ALG)".to_owned(),
        AF_XDP => "AF_XDP socket".to_owned(),
        number => format!("{sort_name} socket of address family {number}"),
    }
}

/// The state of a connection by its number in TCP_INFO.
fn tcp_state(number: u8) -> &'static str {
    const STATES: [&str; 13] = [
        "",
        "established",
        "connecting",
        "being accepted",
        "closing (FIN_WAIT1)",
        "closing (FIN_WAIT2)",
        "TIME_WAIT",
        "not connected",
        "closed by the peer (CLOSE_WAIT)",
        "closing (LAST_ACK)",
        "listening",
        "closing (CLOSING)",
        "being accepted",
    ];
    STATES.get(usize::from(number)).copied().unwrap_or("")
}

fn describe(look: &Look) -> String {
    let file = look.borrow();
    let number = |option| socket::number(file, option).unwrap_or(-1);
    let (family, sort, which) = (number(SO_DOMAIN), number(SO_TYPE), number(SO_PROTOCOL));
    let mut text = protocol(family, sort, which);
    if let Some(own) = socket::own_name(file).ok().and_then(|raw| address(&raw)) {
        text.push_str(", local ");
        text.push_str(&own);
    }
    if let Some(peer) = socket::peer_name(file).ok().and_then(|raw| address(&raw)) {
        text.push_str(", peer ");
        text.push_str(&peer);
    }
    let state = match socket::get(file, IPPROTO_TCP, TCP_INFO, 1) {
        Ok(raw) if which == IPPROTO_TCP => raw.first().map_or("", |state| tcp_state(*state)),
        _ if number(SO_ACCEPTCONN) == 1 => "listening",
        _ => "",
    };
    if !state.is_empty() {
        text.push_str(", ");
        text.push_str(state);
    }
    text
}

fn refuse(look: &Look) -> Refusal {
    let cause = format!("{}: this build does not carry network sockets", describe(look));
    let refusal = Refusal::new(Code::UNSUPPORTED, look.subject(), cause)
        .choice("close it in the program, and open it again after");
    match look.number() {
        Some(number) => refusal.choice(format!("choose an edge for it: --edge {}:{number}=null", look.pid)),
        None => refusal,
    }
}

impl Kind for InetSocket {
    fn id(&self) -> KindId {
        KindId(34)
    }
    fn name(&self) -> &'static str {
        "network socket"
    }
    fn version(&self) -> u16 {
        1
    }
    fn stage(&self) -> Stage {
        Stage::Early
    }
    fn needs(&self, _: &Envelope) -> Result<Vec<Need>> {
        Ok(Vec::new())
    }
    fn make(&self, envelope: &Envelope, _: &mut Make) -> Result<Made> {
        let subject = Subject::Object(format!("network socket {}", envelope.id));
        Err(Refusal::new(Code::UNSUPPORTED, subject, "this build does not carry network sockets"))
    }
    fn bind(&self, _: &Envelope, _: &mut Bind) -> Result<()> {
        Ok(())
    }
    fn description(&self) -> Option<&dyn Description> {
        Some(self)
    }
    fn task_state(&self) -> Option<&dyn TaskState> {
        None
    }
}

impl Description for InetSocket {
    fn recognise(&self, look: &Look) -> bool {
        is_socket(look) && look.family().is_some_and(|family| family != AF_UNIX)
    }
    fn examine(&self, look: &Look, _: &Survey) -> Verdict {
        Verdict::Blocks(refuse(look))
    }
    fn foresee(&self, _: &Look, _: &Survey) -> Vec<Need> {
        Vec::new()
    }
    fn capture(&self, look: &Look, _: &mut Capture) -> Result<Captured> {
        Err(refuse(look))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use godwit_linux::pidfd::PidFd;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::AsRawFd;

    fn looked(file: &impl AsRawFd) -> Look {
        let own = PidFd::open(std::process::id() as i32).unwrap();
        Look::descriptor(&own, file.as_raw_fd()).unwrap().unwrap()
    }

    #[test]
    fn sockets_are_named_with_addresses_and_state() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let own = listener.local_addr().unwrap();
        assert_eq!(describe(&looked(&listener)), format!("TCP socket, local {own}, listening"));
        let client = TcpStream::connect(own).unwrap();
        let from = client.local_addr().unwrap();
        assert_eq!(describe(&looked(&client)), format!("TCP socket, local {from}, peer {own}, established"));
        let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
        let at = datagrams.local_addr().unwrap();
        let look = looked(&datagrams);
        assert!(InetSocket.recognise(&look));
        let refusal = refuse(&look);
        assert_eq!((refusal.code, refusal.choices.len()), (Code::UNSUPPORTED, 2));
        assert!(refusal.cause.starts_with(&format!("UDP socket, local {at}")), "{refusal}");
        let (pair, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(!InetSocket.recognise(&looked(&pair)));
    }

    #[test]
    fn addresses_are_written_as_people_write_them() {
        let mut raw = vec![0_u8; 28];
        raw[..4].copy_from_slice(&[AF_INET6 as u8, 0, 0x1f, 0x90]);
        raw[23] = 1;
        assert_eq!(address(&raw).as_deref(), Some("[::1]:8080"));
        assert_eq!(address(&raw[..7]), None, "a cut address");
        assert_eq!(protocol(AF_NETLINK, SOCK_RAW, 0), "netlink socket (NETLINK_ROUTE)");
        assert_eq!(protocol(AF_INET, 1, 262), "MPTCP socket");
    }
}
