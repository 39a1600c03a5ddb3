//! Options and names of sockets that the standard library has no words for: socket(7), tcp(7), getsockname(2).
#![allow(unsafe_code)]

use crate::errno::{Result, check_int};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// Sets an option as raw bytes.
///
/// # Errors
/// ENOPROTOOPT: this kind of socket has no such option; EPERM, EINVAL.
pub fn set(socket: BorrowedFd<'_>, level: i32, option: i32, value: &[u8]) -> Result<()> {
    // SAFETY: pointer and length describe the live slice.
    check_int("setsockopt", unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, value.as_ptr().cast(), value.len() as libc::socklen_t)
    })
    .map(drop)
}

/// An option as raw bytes, at most `bytes_max` of them.
///
/// # Errors
/// ENOPROTOOPT: this kind of socket has no such option; ERANGE: it has more bytes.
pub fn get(socket: BorrowedFd<'_>, level: i32, option: i32, bytes_max: usize) -> Result<Vec<u8>> {
    let mut value = vec![0_u8; bytes_max];
    let length = get_into(socket, level, option, &mut value)?.len();
    value.truncate(length);
    Ok(value)
}

/// The same, into a buffer; returns the part that the kernel wrote.
///
/// # Errors
/// As [`get`].
pub fn get_into<'a>(socket: BorrowedFd<'_>, level: i32, option: i32, room: &'a mut [u8]) -> Result<&'a mut [u8]> {
    let mut length = room.len() as libc::socklen_t;
    // SAFETY: pointer and length describe the live buffer; the kernel writes at most that.
    check_int("getsockopt", unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, option, room.as_mut_ptr().cast(), &raw mut length)
    })?;
    let length = room.len().min(length as usize);
    Ok(&mut room[..length])
}

/// An option of level SOL_SOCKET that is one int.
///
/// # Errors
/// As [`get`].
pub fn number(socket: BorrowedFd<'_>, option: i32) -> Result<i32> {
    let mut raw = [0; 4];
    let whole = get_into(socket, libc::SOL_SOCKET, option, &mut raw)?.len() == raw.len();
    Ok(if whole { i32::from_ne_bytes(raw) } else { 0 })
}

/// Sets an option of level SOL_SOCKET that is one int.
///
/// # Errors
/// As [`set`].
pub fn set_option(socket: BorrowedFd<'_>, option: i32, value: i32) -> Result<()> {
    set(socket, libc::SOL_SOCKET, option, &value.to_ne_bytes())
}

type NameCall = unsafe extern "C" fn(libc::c_int, *mut libc::sockaddr, *mut libc::socklen_t) -> libc::c_int;

fn name(socket: BorrowedFd<'_>, what: &'static str, call: NameCall) -> Result<Vec<u8>> {
    let mut raw = vec![0_u8; size_of::<libc::sockaddr_storage>()];
    let mut length = raw.len() as libc::socklen_t;
    // SAFETY: pointer and length describe the live buffer; both calls write at most that.
    check_int(what, unsafe { call(socket.as_raw_fd(), raw.as_mut_ptr().cast(), &raw mut length) })?;
    raw.truncate(length as usize);
    Ok(raw)
}

/// Its own address: the raw sockaddr, family first.
///
/// # Errors
/// ENOTSOCK.
pub fn own_name(socket: BorrowedFd<'_>) -> Result<Vec<u8>> {
    name(socket, "getsockname", libc::getsockname)
}

/// The address of its peer: the raw sockaddr, family first.
///
/// # Errors
/// ENOTCONN: it has none.
pub fn peer_name(socket: BorrowedFd<'_>) -> Result<Vec<u8>> {
    name(socket, "getpeername", libc::getpeername)
}

/// The network namespace that a socket lives in.
///
/// # Errors
/// EPERM without CAP_NET_ADMIN over that namespace.
pub fn network(socket: BorrowedFd<'_>) -> Result<OwnedFd> {
    const SIOCGSKNS: libc::c_ulong = 0x894c;
    // SAFETY: no pointers.
    let raw = check_int("ioctl(SIOCGSKNS)", unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGSKNS, 0) })?;
    // SAFETY: fresh descriptor, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

fn set_number(socket: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int, value: u64) -> Result<()> {
    set(socket, level, option, &i32::try_from(value).unwrap_or(i32::MAX).to_ne_bytes())
}

/// The processor on which the last packet of a connection was taken in (SO_INCOMING_CPU, socket(7)); `None`: the kernel does not tell.
pub fn incoming_processor(socket: BorrowedFd<'_>) -> Option<u32> {
    u32::try_from(number(socket, libc::SO_INCOMING_CPU).ok()?).ok()
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

/// SO_RCVTIMEO, SO_SNDTIMEO: how long calls on a socket wait.
pub const RECEIVE_TIME: i32 = libc::SO_RCVTIMEO;
/// See [`RECEIVE_TIME`].
pub const SEND_TIME: i32 = libc::SO_SNDTIMEO;

/// One of the two times; `None` when calls wait for ever.
///
/// # Errors
/// ENOTSOCK.
pub fn time(socket: BorrowedFd<'_>, option: i32) -> Result<Option<Duration>> {
    let raw = get(socket, libc::SOL_SOCKET, option, 16)?;
    let word =
        |at: usize| raw.get(at..at + 8).and_then(|raw| raw.first_chunk()).map_or(0, |raw| u64::from_le_bytes(*raw));
    let time = Duration::from_secs(word(0)) + Duration::from_micros(word(8));
    Ok((!time.is_zero()).then_some(time))
}

/// Sets one of the two times.
///
/// # Errors
/// ENOTSOCK.
pub fn set_time(socket: BorrowedFd<'_>, option: i32, time: Duration) -> Result<()> {
    let words = [time.as_secs().to_ne_bytes(), u64::from(time.subsec_micros()).to_ne_bytes()];
    set(socket, libc::SOL_SOCKET, option, words.as_flattened())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::fd::AsFd;

    #[test]
    fn a_socket_tells_its_times() {
        let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(time(socket.as_fd(), RECEIVE_TIME).unwrap(), None);
        socket.set_read_timeout(Some(Duration::from_millis(2500))).unwrap();
        assert_eq!(time(socket.as_fd(), RECEIVE_TIME).unwrap(), Some(Duration::from_millis(2500)));
        assert_eq!(time(socket.as_fd(), SEND_TIME).unwrap(), None);
        set_time(socket.as_fd(), SEND_TIME, Duration::from_millis(1500)).unwrap();
        assert_eq!(time(socket.as_fd(), SEND_TIME).unwrap(), Some(Duration::from_millis(1500)));
        let (reader, _writer) = std::io::pipe().unwrap();
        assert!(time(reader.as_fd(), SEND_TIME).is_err());
    }

    #[test]
    fn a_tcp_socket_takes_the_options_and_a_pipe_does_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        notice_dead_peer(listener.as_fd(), Duration::from_secs(5)).unwrap();
        assert!(set_congestion_control(listener.as_fd(), "no such algorithm").is_err());
        let (reader, _writer) = std::io::pipe().unwrap();
        assert!(notice_dead_peer(reader.as_fd(), Duration::from_secs(5)).is_err());
    }
}
