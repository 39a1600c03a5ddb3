//! Unix sockets with names as raw bytes: socket(2), bind(2), recvmsg(2) with MSG_PEEK, sendmsg(2) with descriptors and
//! credentials; unix(7), cmsg(3).
#![allow(unsafe_code)]

use crate::errno::{Errno, Result, check, check_int};
use std::cell::RefCell;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

const SCM_PIDFD: libc::c_int = 4;
/// Room for 253 descriptors, credentials, a pidfd and a security label.
const CONTROL_BYTES: usize = 8192;

/// Process number, user and group of a sender or peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Process number as this PID namespace shows it; 0 when it shows none.
    pub pid: i32,
    /// Effective user.
    pub user: u32,
    /// Effective group.
    pub group: u32,
}

/// One message as it lies in a queue.
#[derive(Debug)]
pub struct Received {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The sender's raw sockaddr; empty when it has none.
    pub name: Vec<u8>,
    /// Copies of its descriptors.
    pub descriptors: Vec<OwnedFd>,
    /// Its sender, if the receiver has asked for credentials.
    pub identity: Option<Identity>,
    /// The buffer was too small for it.
    pub cut: bool,
}

thread_local! {
    /// For messages, one at a time. Neither cleared nor touched beyond what comes: one may be large, and nearly none is; and kept for
    /// the next one, since to get so much and to give it back takes longer than all the rest.
    static ROOM: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

fn owned(raw: RawFd) -> OwnedFd {
    // SAFETY: called with descriptors that the kernel has just given us and nobody else owns.
    unsafe { OwnedFd::from_raw_fd(raw) }
}

/// A socket of a type (SOCK_STREAM 1, SOCK_DGRAM 2, SOCK_SEQPACKET 5), close-on-exec, not waiting.
///
/// # Errors
/// EMFILE.
pub fn create(sort: i32) -> Result<OwnedFd> {
    let sort = sort | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no pointers.
    check_int("socket", unsafe { libc::socket(libc::AF_UNIX, sort, 0) }).map(owned)
}

/// Binds to a raw sockaddr.
///
/// # Errors
/// EADDRINUSE; those of making the file.
pub fn bind(socket: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    // SAFETY: pointer and length describe the live slice.
    check_int("bind", unsafe { libc::bind(socket.as_raw_fd(), name.as_ptr().cast(), name.len() as libc::socklen_t) })
        .map(drop)
}

/// Binds to the raw sockaddr of a path as if `root` were the root and the working directory: the name is the given one,
/// the file lies below `root`.
///
/// # Errors
/// As [`bind`] and chroot(2).
pub fn bind_below(socket: BorrowedFd<'_>, root: &std::path::Path, name: &[u8]) -> Result<()> {
    let raw = |error: std::io::Error| Errno { number: error.raw_os_error().unwrap_or(libc::EIO), call: "chroot" };
    std::thread::scope(|scope| {
        let inside = std::thread::Builder::new().spawn_scoped(scope, || {
            // SAFETY: no pointers; only this thread, which ends here, leaves the common root.
            check_int("unshare(CLONE_FS)", unsafe { libc::unshare(libc::CLONE_FS) })?;
            std::os::unix::fs::chroot(root).map_err(raw)?;
            std::env::set_current_dir("/").map_err(raw)?;
            bind(socket, name)
        });
        let ended = inside.map_err(raw)?.join();
        ended.unwrap_or(Err(Errno { number: libc::EIO, call: "bind" }))
    })
}

/// Connects to a raw sockaddr.
///
/// # Errors
/// ECONNREFUSED, EPERM: the other is connected elsewhere.
pub fn connect(socket: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    // SAFETY: pointer and length describe the live slice.
    let result = unsafe { libc::connect(socket.as_raw_fd(), name.as_ptr().cast(), name.len() as libc::socklen_t) };
    check_int("connect", result).map(drop)
}

/// Accepts a connection that is there already.
///
/// # Errors
/// EAGAIN: none is.
pub fn accept(socket: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no name is asked for.
    let result = unsafe { libc::accept4(socket.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut(), flags) };
    check_int("accept", result).map(owned)
}

/// Closes one direction for ever (SHUT_RD 0, SHUT_WR 1, SHUT_RDWR 2).
///
/// # Errors
/// ENOTCONN.
pub fn shut_down(socket: BorrowedFd<'_>, how: i32) -> Result<()> {
    // SAFETY: no pointers.
    check_int("shutdown", unsafe { libc::shutdown(socket.as_raw_fd(), how) }).map(drop)
}

/// The file that a socket is bound to (SIOCUNIXFILE), as an O_PATH descriptor. `None` when it is bound to none.
///
/// # Errors
/// EPERM without CAP_NET_ADMIN.
pub fn bound_file(socket: BorrowedFd<'_>) -> Result<Option<OwnedFd>> {
    const SIOCUNIXFILE: libc::c_ulong = 0x89e0;
    // SAFETY: no pointers.
    match check_int("ioctl(SIOCUNIXFILE)", unsafe { libc::ioctl(socket.as_raw_fd(), SIOCUNIXFILE, 0) }) {
        Ok(raw) => Ok(Some(owned(raw))),
        Err(error) if matches!(error.number, libc::ENOENT | libc::EINVAL) => Ok(None),
        Err(error) => Err(error),
    }
}

fn count(socket: BorrowedFd<'_>, name: &'static str, request: libc::c_ulong) -> Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes one int into the live variable.
    check_int(name, unsafe { libc::ioctl(socket.as_raw_fd(), request, &raw mut bytes) })?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// Bytes that wait to be read: of all messages, or for datagrams of the first one.
///
/// # Errors
/// EINVAL: it listens.
pub fn unread(socket: BorrowedFd<'_>) -> Result<usize> {
    count(socket, "ioctl(SIOCINQ)", 0x541b)
}

/// What the messages that it sent and nobody has read occupy, in bytes of kernel memory.
///
/// # Errors
/// None for a socket.
pub fn unsent(socket: BorrowedFd<'_>) -> Result<usize> {
    count(socket, "ioctl(SIOCOUTQ)", 0x5411)
}

/// Looks at the next message at the socket's peek offset (SO_PEEK_OFF), at most `bytes_max` of it; `None` when there is
/// none.
///
/// # Errors
/// ECONNRESET and the like: an error is pending.
pub fn peek(socket: BorrowedFd<'_>, bytes_max: usize) -> Result<Option<Received>> {
    receive(socket, bytes_max, None)
}

/// Of a stream: how many bytes the pieces have (as they were sent, at most `bytes_max` together) that fit whole behind the
/// peek offset. Descriptors that come with the next piece are not touched.
///
/// # Errors
/// As [`peek`].
pub fn whole_pieces(socket: BorrowedFd<'_>, bytes_max: usize) -> Result<usize> {
    const PAGE_BYTES: usize = 4096;
    // SAFETY: a fresh mapping at an address that the kernel chooses; nothing may be read or written there.
    let wall = unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        libc::mmap(std::ptr::null_mut(), PAGE_BYTES, libc::PROT_NONE, flags, -1, 0)
    };
    if wall == libc::MAP_FAILED {
        return Err(Errno::last("mmap"));
    }
    // A piece that reaches the wall cannot be copied, which ends the call before it.
    let seen = receive(socket, bytes_max, Some(libc::iovec { iov_base: wall, iov_len: PAGE_BYTES }));
    // SAFETY: the mapping of above, which nobody else knows.
    unsafe { libc::munmap(wall, PAGE_BYTES) };
    match seen {
        Ok(seen) => Ok(seen.map_or(0, |seen| seen.bytes.len())),
        Err(error) if error.number == libc::EFAULT => Ok(0),
        Err(error) => Err(error),
    }
}

fn receive(socket: BorrowedFd<'_>, bytes_max: usize, wall: Option<libc::iovec>) -> Result<Option<Received>> {
    ROOM.with_borrow_mut(|room| receive_into(room, socket, bytes_max, wall))
}

fn receive_into(
    bytes: &mut Vec<u8>,
    socket: BorrowedFd<'_>,
    bytes_max: usize,
    wall: Option<libc::iovec>,
) -> Result<Option<Received>> {
    bytes.clear();
    bytes.reserve(bytes_max);
    let mut name = [0_u8; 128];
    // u64 for the alignment that the kernel's headers need.
    let mut control = [0_u64; CONTROL_BYTES / 8];
    let vector = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes_max };
    let mut vectors: Vec<libc::iovec> = std::iter::once(vector).chain(wall).collect();
    // SAFETY: all fields of the struct may be zero.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_name = name.as_mut_ptr().cast();
    header.msg_namelen = name.len() as libc::socklen_t;
    header.msg_iov = vectors.as_mut_ptr();
    header.msg_iovlen = vectors.len();
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = CONTROL_BYTES;
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the header describes live buffers.
    let got = match check("recvmsg", unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) } as i64) {
        Ok(got) => got as usize,
        Err(error) if error.number == libc::EAGAIN => return Ok(None),
        Err(error) => return Err(error),
    };
    // SAFETY: the kernel wrote so many bytes of the capacity. With a wall it may not have written more than `bytes_max`.
    unsafe { bytes.set_len(got.min(bytes_max)) };
    let bytes = bytes.clone();
    let (mut descriptors, mut identity) = (Vec::new(), None);
    // SAFETY: the kernel filled the control buffer and its length; the CMSG functions walk within it.
    let mut part = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
    while !part.is_null() {
        // SAFETY: a header inside the live control buffer, aligned by the kernel.
        let (sort, length, data) = unsafe { ((*part).cmsg_type, (*part).cmsg_len, libc::CMSG_DATA(part)) };
        // SAFETY: no pointers are followed.
        let length = length.saturating_sub(unsafe { libc::CMSG_LEN(0) } as usize);
        match sort {
            libc::SCM_RIGHTS | SCM_PIDFD => {
                for index in 0..length / 4 {
                    // SAFETY: inside the data of this header.
                    let raw = unsafe { data.cast::<RawFd>().add(index).read_unaligned() };
                    // A pidfd of the sender belongs to this look, not to the message.
                    let descriptor = (raw >= 0).then(|| owned(raw));
                    descriptors.extend(descriptor.filter(|_| sort == libc::SCM_RIGHTS));
                }
            }
            libc::SCM_CREDENTIALS if length >= size_of::<libc::ucred>() => {
                // SAFETY: inside the data of this header.
                let raw = unsafe { data.cast::<libc::ucred>().read_unaligned() };
                identity = Some(Identity { pid: raw.pid, user: raw.uid, group: raw.gid });
            }
            _ => {}
        }
        // SAFETY: as for the first.
        part = unsafe { libc::CMSG_NXTHDR(&raw const header, part) };
    }
    let name = name.get(..header.msg_namelen as usize).unwrap_or_default().to_vec();
    let cut = header.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0;
    Ok(Some(Received { bytes, name, descriptors, identity, cut }))
}

/// Sends one message; returns how many bytes went.
///
/// # Errors
/// EAGAIN: no room; ESRCH, EPERM: not with this identity; ETOOMANYREFS.
pub fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    to: Option<&[u8]>,
    descriptors: &[BorrowedFd<'_>],
    identity: Option<Identity>,
) -> Result<usize> {
    let mut control = [0_u64; CONTROL_BYTES / 8];
    let mut vector = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: all fields of the struct may be zero.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    if let Some(to) = to {
        header.msg_name = to.as_ptr().cast_mut().cast();
        header.msg_namelen = to.len() as libc::socklen_t;
    }
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    let rights: Vec<u8> = descriptors.iter().flat_map(|file| file.as_raw_fd().to_ne_bytes()).collect();
    let credentials: Vec<u8> = identity
        .iter()
        .flat_map(|who| [who.pid.to_ne_bytes(), who.user.to_ne_bytes(), who.group.to_ne_bytes()].concat())
        .collect();
    let mut used = 0;
    for (sort, data) in [(libc::SCM_RIGHTS, &rights), (libc::SCM_CREDENTIALS, &credentials)] {
        if data.is_empty() {
            continue;
        }
        let words = 2 + data.len().div_ceil(8);
        let Some(place) = control.get_mut(used / 8..used / 8 + words) else {
            return Err(Errno { number: libc::ETOOMANYREFS, call: "sendmsg" });
        };
        // struct cmsghdr: length of header and data, level, type; then the data.
        place[0] = (16 + data.len()) as u64;
        place[1] = u64::from(libc::SOL_SOCKET as u32) | u64::from(sort as u32) << 32;
        for (word, part) in place[2..].iter_mut().zip(data.chunks(8)) {
            let mut raw = [0_u8; 8];
            raw[..part.len()].copy_from_slice(part);
            *word = u64::from_ne_bytes(raw);
        }
        used += words * 8;
    }
    if used > 0 {
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = used;
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the header describes live buffers that the kernel only reads.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, flags) };
    check("sendmsg", sent as i64).map(|sent| sent as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;

    const SO_PASSCRED: i32 = 16;
    const SO_PEEK_OFF: i32 = 42;

    #[test]
    fn messages_are_seen_with_all_that_comes_with_them_and_stay() {
        let (from, to) = UnixDatagram::pair().unwrap();
        socket::set_option(to.as_fd(), SO_PASSCRED, 1).unwrap();
        let own = Identity { pid: std::process::id() as i32, user: 0, group: 0 };
        let (reader, _writer) = std::io::pipe().unwrap();
        assert_eq!(send(from.as_fd(), b"first", None, &[reader.as_fd(), from.as_fd()], Some(own)).unwrap(), 5);
        assert_eq!(send(from.as_fd(), b"second", None, &[], None).unwrap(), 6);
        for _ in 0..2 {
            socket::set_option(to.as_fd(), SO_PEEK_OFF, 0).unwrap();
            let first = peek(to.as_fd(), 100).unwrap().unwrap();
            assert_eq!((first.bytes.as_slice(), first.descriptors.len()), (b"first".as_slice(), 2));
            assert_eq!(first.identity.map(|who| who.pid), Some(own.pid));
            let second = peek(to.as_fd(), 3).unwrap().unwrap();
            assert_eq!((second.bytes.as_slice(), second.cut), (b"sec".as_slice(), true));
        }
        assert_eq!(unread(to.as_fd()).unwrap(), 5);
        assert!(unsent(from.as_fd()).unwrap() > 0);
        assert!(peek(from.as_fd(), 10).unwrap().is_none());
    }

    #[test]
    fn pieces_of_a_stream_are_told_apart() {
        let (from, to) = std::os::unix::net::UnixStream::pair().unwrap();
        send(from.as_fd(), b"plain", None, &[], None).unwrap();
        send(from.as_fd(), b"with", None, &[from.as_fd()], None).unwrap();
        assert_eq!(peek(to.as_fd(), 100).unwrap().unwrap().bytes, b"plainwith");
        assert_eq!(whole_pieces(to.as_fd(), 8).unwrap(), 5);
        assert_eq!(whole_pieces(to.as_fd(), 4).unwrap(), 0);
        assert_eq!(unread(to.as_fd()).unwrap(), 9);
    }

    #[test]
    fn names_are_raw_bytes() {
        let socket = create(libc::SOCK_STREAM).unwrap();
        let name = [&[1, 0, 0], format!("godwit-{}", std::process::id()).as_bytes()].concat();
        bind(socket.as_fd(), &name).unwrap();
        assert_eq!(crate::socket::own_name(socket.as_fd()).unwrap(), name);
        let other = create(libc::SOCK_STREAM).unwrap();
        assert_eq!(bind(other.as_fd(), &name).unwrap_err().number, libc::EADDRINUSE);
        assert_eq!(connect(other.as_fd(), &name).unwrap_err().number, libc::ECONNREFUSED);
        assert!(accept(socket.as_fd()).is_err());
        assert!(shut_down(other.as_fd(), 1).is_ok());
        assert!(bound_file(socket.as_fd()).is_ok_and(|file| file.is_none()));
    }
}
