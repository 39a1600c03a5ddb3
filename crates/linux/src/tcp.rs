//! TCP connections whose options are set before they are made: what a congestion control has begun stays, whatever is chosen later.
//! A socket that began with BBR, the default of some hosts, is paced by timers for ever, also under cubic.
//!
//! # References
//! <https://man7.org/linux/man-pages/man7/tcp.7.html>, <https://man7.org/linux/man-pages/man2/connect.2.html>
#![allow(unsafe_code)]

use crate::errno::{Errno, Result, check_int};
use crate::poll::{self, Readiness};
use crate::{file, socket};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Connects. Where the kernel lacks the congestion control, its own choice serves.
///
/// # Errors
/// ECONNREFUSED, EHOSTUNREACH, …; ETIMEDOUT: not within `patience`.
pub fn connect(address: &SocketAddr, patience: Duration, congestion_control: &str) -> Result<OwnedFd> {
    let call = "connect";
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let sort = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no pointers.
    let raw = check_int("socket", unsafe { libc::socket(family, sort, 0) })?;
    // SAFETY: fresh descriptor, owned by nobody else.
    let own = unsafe { OwnedFd::from_raw_fd(raw) };
    let _ = socket::set_congestion_control(own.as_fd(), congestion_control);
    let name = name(address);
    // SAFETY: pointer and length describe the live bytes.
    let result = unsafe { libc::connect(own.as_raw_fd(), name.as_ptr().cast(), name.len() as libc::socklen_t) };
    if result == -1 && Errno::last(call).number != libc::EINPROGRESS {
        return Err(Errno::last(call));
    }
    let begin = Instant::now();
    loop {
        let room = Readiness { readable: false, writable: true };
        let left = patience.saturating_sub(begin.elapsed());
        if poll::wait(&[(own.as_fd(), room)], Some(left))?.first().is_some_and(|ready| ready.writable) {
            break;
        }
        if left.is_zero() {
            return Err(Errno { number: libc::ETIMEDOUT, call });
        }
    }
    match socket::number(own.as_fd(), libc::SO_ERROR)? {
        0 => file::do_wait(own.as_fd()).map(|()| own),
        number => Err(Errno { number, call }),
    }
}

/// Has a connection take in so many bytes from its beginning before anybody reads, and goes on to adapt its window by itself afterwards.
/// SO_RCVBUF would fix it, while a low-water mark only raises it (net/ipv4/tcp.c, tcp_set_rcvlowat).
///
/// # Errors
/// It is no TCP socket.
pub fn make_room(socket: BorrowedFd<'_>, bytes: i32) -> Result<()> {
    socket::set_option(socket, libc::SO_RCVLOWAT, bytes)?;
    socket::set_option(socket, libc::SO_RCVLOWAT, 1)
}

/// How a connection is getting on, as TCP_INFO tells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Advance {
    /// Bytes that the other side has acknowledged.
    pub acknowledged: u64,
    /// The shortest time from a byte's leaving to its acknowledgement.
    pub round_trip: Duration,
    /// Bytes per second that arrived when there was last enough to send; 0: not known.
    pub rate: u64,
}

/// Asks the kernel how a connection is getting on.
///
/// # Errors
/// It is no TCP socket; EINVAL: a kernel that tells less (before Linux 4.9).
pub fn advance(socket: BorrowedFd<'_>) -> Result<Advance> {
    // linux/tcp.h, struct tcp_info: tcpi_bytes_acked, tcpi_min_rtt (us) and tcpi_delivery_rate.
    const ACKNOWLEDGED: usize = 120;
    const ROUND_TRIP: usize = 148;
    const RATE: usize = 160;
    let information = socket::get(socket, libc::IPPROTO_TCP, libc::TCP_INFO, 256)?;
    let too_little = Errno { number: libc::EINVAL, call: "TCP_INFO" };
    let acknowledged = information.get(ACKNOWLEDGED..).and_then(|rest| rest.first_chunk()).ok_or(too_little)?;
    let round_trip = information.get(ROUND_TRIP..).and_then(|rest| rest.first_chunk()).ok_or(too_little)?;
    let rate = information.get(RATE..).and_then(|rest| rest.first_chunk()).ok_or(too_little)?;
    Ok(Advance {
        acknowledged: u64::from_ne_bytes(*acknowledged),
        round_trip: Duration::from_micros(u32::from_ne_bytes(*round_trip).into()),
        rate: u64::from_ne_bytes(*rate),
    })
}

/// The raw sockaddr.
fn name(address: &SocketAddr) -> Vec<u8> {
    let mut name = Vec::new();
    match address {
        SocketAddr::V4(address) => {
            name.extend((libc::AF_INET as u16).to_ne_bytes());
            name.extend(address.port().to_be_bytes());
            name.extend(address.ip().octets());
            name.resize(size_of::<libc::sockaddr_in>(), 0);
        }
        SocketAddr::V6(address) => {
            name.extend((libc::AF_INET6 as u16).to_ne_bytes());
            name.extend(address.port().to_be_bytes());
            name.extend(address.flowinfo().to_be_bytes());
            name.extend(address.ip().octets());
            name.extend(address.scope_id().to_ne_bytes());
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    const SOON: Duration = Duration::from_secs(5);

    #[test]
    fn a_connection_begins_as_it_was_asked_for() {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            // Not every host has the second kind.
            let Ok(listener) = TcpListener::bind(host) else { continue };
            let socket = connect(&listener.local_addr().unwrap(), SOON, "reno").unwrap();
            let chosen = socket::get(socket.as_fd(), libc::IPPROTO_TCP, libc::TCP_CONGESTION, 16).unwrap();
            assert!(chosen.starts_with(b"reno\0"), "{chosen:?}");
            let (mut there, _) = listener.accept().unwrap();
            TcpStream::from(socket).write_all(b"word").unwrap();
            let mut word = [0; 4];
            there.read_exact(&mut word).unwrap();
            assert_eq!(&word, b"word");
        }
    }

    #[test]
    fn room_is_there_before_anybody_reads() {
        const BYTES: usize = 512 << 10;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = connect(&listener.local_addr().unwrap(), SOON, "cubic").unwrap();
        let (there, _) = listener.accept().unwrap();
        let before = socket::number(there.as_fd(), libc::SO_RCVBUF).unwrap();
        make_room(there.as_fd(), BYTES as i32).unwrap();
        let after = socket::number(there.as_fd(), libc::SO_RCVBUF).unwrap();
        assert!(after >= BYTES as i32 && after >= before, "{before} {after}");
        assert_eq!(socket::number(there.as_fd(), libc::SO_RCVLOWAT).unwrap(), 1);
        // Nobody reads, and all of it is acknowledged.
        let all = advance(socket.as_fd()).unwrap().acknowledged + BYTES as u64 / 2;
        TcpStream::from(socket.try_clone().unwrap()).write_all(&[7; BYTES / 2]).unwrap();
        let begin = Instant::now();
        while advance(socket.as_fd()).unwrap().acknowledged < all {
            assert!(begin.elapsed() < SOON);
        }
        // Within the host itself: more than any wire carries would be another number, and so would a few bytes.
        let rate = advance(socket.as_fd()).unwrap().rate;
        assert!((10_000_000..1_000_000_000_000).contains(&rate), "{rate}");
    }

    #[test]
    fn what_was_acknowledged_is_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = connect(&listener.local_addr().unwrap(), SOON, "reno").unwrap();
        let (mut there, _) = listener.accept().unwrap();
        let before = advance(socket.as_fd()).unwrap();
        TcpStream::from(socket.try_clone().unwrap()).write_all(&[7; 1000]).unwrap();
        there.read_exact(&mut [0; 1000]).unwrap();
        let begin = Instant::now();
        while advance(socket.as_fd()).unwrap().acknowledged < before.acknowledged + 1000 {
            assert!(begin.elapsed() < SOON);
        }
        assert!(advance(socket.as_fd()).unwrap().round_trip < SOON);
        assert!(advance(std::fs::File::open("/dev/null").unwrap().as_fd()).is_err());
    }

    #[test]
    fn who_does_not_listen_and_what_is_not_known_are_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert!(connect(&address, SOON, "no such algorithm").is_ok());
        drop(listener);
        assert_eq!(connect(&address, SOON, "reno").unwrap_err().number, libc::ECONNREFUSED);
    }
}
