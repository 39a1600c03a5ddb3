//! Options of stream sockets that the standard library has no words for: tcp(7), socket(7).
#![allow(unsafe_code)]

use crate::errno::{Result, check_int};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

fn set(socket: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int, value: &[u8]) -> Result<()> {
    // SAFETY: pointer and length describe the live slice.
    check_int("setsockopt", unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, value.as_ptr().cast(), value.len() as libc::socklen_t)
    })
    .map(drop)
}

fn set_number(socket: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int, value: u64) -> Result<()> {
    set(socket, level, option, &i32::try_from(value).unwrap_or(i32::MAX).to_ne_bytes())
}

/// Chooses how a TCP socket reacts to a full link (`cubic`, `reno`, …).
///
/// # Errors
/// ENOENT: the kernel has no such algorithm; EPERM: it is reserved.
pub fn set_congestion_control(socket: BorrowedFd<'_>, name: &str) -> Result<()> {
    set(socket, libc::IPPROTO_TCP, libc::TCP_CONGESTION, name.as_bytes())
}

/// Makes a TCP socket notice a dead peer: data that nobody acknowledges, and silence without data, break the connection after
/// about `limit`.
///
/// # Errors
/// Not a TCP socket.
pub fn notice_dead_peer(socket: BorrowedFd<'_>, limit: Duration) -> Result<()> {
    let milliseconds = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    let seconds = (milliseconds / 4000).max(1);
    set_number(socket, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, milliseconds)?;
    set_number(socket, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    set_number(socket, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, seconds)?;
    set_number(socket, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, seconds)?;
    set_number(socket, libc::IPPROTO_TCP, libc::TCP_KEEPCNT, 3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::fd::AsFd;

    #[test]
    fn a_tcp_socket_takes_the_options_and_a_pipe_does_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        notice_dead_peer(listener.as_fd(), Duration::from_secs(5)).unwrap();
        assert!(set_congestion_control(listener.as_fd(), "no such algorithm").is_err());
        let (reader, _writer) = std::io::pipe().unwrap();
        assert!(notice_dead_peer(reader.as_fd(), Duration::from_secs(5)).is_err());
    }
}
