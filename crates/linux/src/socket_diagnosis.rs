//! What the kernel tells of every Unix socket of a network namespace: sock_diag(7), linux/unix_diag.h.
#![allow(unsafe_code)]

use crate::errno::{Result, check, check_int};
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const UDIAG_SHOW: u32 = 0x01 | 0x04 | 0x08 | 0x10;
const UNIX_DIAG_NAME: u16 = 0;
const UNIX_DIAG_PEER: u16 = 2;
const UNIX_DIAG_ICONS: u16 = 3;
const UNIX_DIAG_RQLEN: u16 = 4;
const UNIX_DIAG_SHUTDOWN: u16 = 6;
const HEADER: usize = 16;
const BODY: usize = 16;
/// State numbers as of TCP.
pub const ESTABLISHED: u8 = 1;
/// It listens.
pub const LISTENING: u8 = 10;

/// One Unix socket.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct UnixSocket {
    /// SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET.
    pub sort: u8,
    /// [`ESTABLISHED`], [`LISTENING`], or 7: neither.
    pub state: u8,
    /// sun_path, without the family.
    pub name: Vec<u8>,
    /// Inode of its peer; 0 when that is closed or not accepted yet, `None` without one.
    pub peer: Option<u32>,
    /// Inodes of those that wait to be accepted, in order; 0 for one that is closed again.
    pub waiting: Vec<u32>,
    /// For a listening one: how many may wait.
    pub backlog: u32,
    /// 1: it reads no more; 2: it writes no more.
    pub shutdown: u8,
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// One message's body: inode and socket.
fn socket(message: &[u8]) -> Option<(u32, UnixSocket)> {
    let inode = word(message, 4)?;
    let mut socket = UnixSocket { sort: *message.get(1)?, state: *message.get(2)?, ..UnixSocket::default() };
    let mut rest = message.get(BODY..)?;
    while let (Some(length), Some(kind)) = (half(rest, 0), half(rest, 2)) {
        let length = usize::from(length);
        let value = rest.get(4..length)?;
        match kind {
            UNIX_DIAG_NAME => socket.name = value.to_vec(),
            UNIX_DIAG_PEER => socket.peer = word(value, 0),
            UNIX_DIAG_ICONS => socket.waiting = (0..value.len() / 4).filter_map(|n| word(value, n * 4)).collect(),
            UNIX_DIAG_RQLEN => socket.backlog = word(value, 4)?,
            UNIX_DIAG_SHUTDOWN => socket.shutdown = *value.first()?,
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some((inode, socket))
}

/// Every Unix socket of the caller's network namespace, by inode.
///
/// # Errors
/// EPROTONOSUPPORT: a kernel without it; ENOENT: without unix_diag.
pub fn unix_sockets() -> Result<BTreeMap<u32, UnixSocket>> {
    const NETLINK_SOCK_DIAG: libc::c_int = 4;
    // SAFETY: no pointers.
    let raw = check_int("socket(NETLINK_SOCK_DIAG)", unsafe {
        libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, NETLINK_SOCK_DIAG)
    })?;
    // SAFETY: fresh descriptor, owned by nobody else.
    let channel = unsafe { OwnedFd::from_raw_fd(raw) };
    let mut request = Vec::with_capacity(HEADER + 24);
    request.extend_from_slice(&(HEADER as u32 + 24).to_ne_bytes());
    request.extend_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend_from_slice(&((libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16).to_ne_bytes());
    request.extend_from_slice(&[0; 8]);
    // struct unix_diag_req: family, protocol, padding, states, inode, what to show, cookie.
    request.extend_from_slice(&[libc::AF_UNIX as u8, 0, 0, 0]);
    for value in [u32::MAX, 0, UDIAG_SHOW, u32::MAX, u32::MAX] {
        request.extend_from_slice(&value.to_ne_bytes());
    }
    // SAFETY: pointer and length describe the live vector.
    let sent = unsafe { libc::send(channel.as_raw_fd(), request.as_ptr().cast(), request.len(), 0) };
    check("send(NETLINK_SOCK_DIAG)", sent as i64)?;
    let mut found = BTreeMap::new();
    let mut buffer = vec![0_u8; 64 << 10];
    loop {
        // SAFETY: pointer and length describe the live buffer.
        let got = unsafe { libc::recv(channel.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        let got = check("recv(NETLINK_SOCK_DIAG)", got as i64)? as usize;
        let mut rest = buffer.get(..got).unwrap_or_default();
        while let (Some(length), Some(kind)) = (word(rest, 0), half(rest, 4)) {
            let length = length as usize;
            let Some(body) = rest.get(HEADER..length) else { return Ok(found) };
            match i32::from(kind) {
                libc::NLMSG_DONE => return Ok(found),
                libc::NLMSG_ERROR => {
                    let code = word(body, 0).unwrap_or(0) as i32;
                    return Err(crate::Errno { number: -code, call: "NETLINK_SOCK_DIAG" });
                }
                _ => found.extend(socket(body)),
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::net::{UnixListener, UnixStream};

    fn inode(file: &impl AsFd) -> u32 {
        use std::os::unix::fs::MetadataExt;
        let file = std::fs::File::from(file.as_fd().try_clone_to_owned().unwrap());
        file.metadata().unwrap().ino() as u32
    }

    #[test]
    fn pairs_listeners_and_those_that_wait_are_shown() {
        let (one, two) = UnixStream::pair().unwrap();
        two.shutdown(std::net::Shutdown::Write).unwrap();
        let path = std::env::temp_dir().join(format!("godwit-diagnosis-{}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let waiting = UnixStream::connect(&path).unwrap();
        let all = unix_sockets().unwrap();
        assert_eq!(all[&inode(&one)].peer, Some(inode(&two)));
        assert_eq!((all[&inode(&one)].shutdown, all[&inode(&two)].shutdown), (1, 2));
        let seen = &all[&inode(&listener)];
        assert_eq!((seen.state, &seen.waiting), (LISTENING, &vec![inode(&waiting)]));
        assert_eq!(seen.name.strip_suffix(b"\0").unwrap_or(&seen.name), path.as_os_str().as_encoded_bytes());
        assert_eq!(all[&inode(&waiting)].peer, Some(0));
        std::fs::remove_file(path).unwrap();
    }
}
