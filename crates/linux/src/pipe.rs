//! Pipes: making them, their capacity, and looking into them without taking anything out: pipe(7), tee(2), splice(2).
#![allow(unsafe_code)]

use crate::errno::{Result, check, check_int};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// vmsplice(2): pages of the caller go into a pipe as they are.
pub const SYS_VMSPLICE: i64 = libc::SYS_vmsplice;
/// SPLICE_F_NONBLOCK: what has no room stays out.
pub const DO_NOT_WAIT: u64 = libc::SPLICE_F_NONBLOCK as u64;
const F_SETPIPE_SZ: i32 = 1031;
const F_GETPIPE_SZ: i32 = 1032;

/// A new pipe: reading end, writing end; close-on-exec besides `flags` (O_NONBLOCK, O_DIRECT).
///
/// # Errors
/// EMFILE, ENFILE (also: too many pages in pipes).
pub fn create(flags: u32) -> Result<(OwnedFd, OwnedFd)> {
    let mut ends = [-1_i32; 2];
    // SAFETY: writes two ints into the live array.
    check_int("pipe2", unsafe { libc::pipe2(ends.as_mut_ptr(), flags as i32 | libc::O_CLOEXEC) })?;
    // SAFETY: fresh descriptors, owned by nobody else.
    Ok(unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) })
}

/// Capacity in bytes: a page per slot.
///
/// # Errors
/// EBADF: not a pipe.
pub fn capacity(end: BorrowedFd<'_>) -> Result<u64> {
    // SAFETY: no pointers.
    check_int("fcntl(F_GETPIPE_SZ)", unsafe { libc::fcntl(end.as_raw_fd(), F_GETPIPE_SZ) }).map(|bytes| bytes as u64)
}

/// Sets the capacity; the kernel rounds up to a power of two of pages.
///
/// # Errors
/// EPERM: above fs.pipe-max-size without CAP_SYS_RESOURCE; EBUSY: less than what is in it.
pub fn set_capacity(end: BorrowedFd<'_>, bytes: u64) -> Result<()> {
    let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
    // SAFETY: no pointers.
    check_int("fcntl(F_SETPIPE_SZ)", unsafe { libc::fcntl(end.as_raw_fd(), F_SETPIPE_SZ, bytes) }).map(drop)
}

/// Bytes that could be read now (FIONREAD), from a pipe or a stream socket.
///
/// # Errors
/// ENOTTY: neither.
pub fn unread(end: BorrowedFd<'_>) -> Result<u64> {
    let mut bytes = 0_i32;
    // SAFETY: FIONREAD writes one int.
    check_int("ioctl(FIONREAD)", unsafe { libc::ioctl(end.as_raw_fd(), libc::FIONREAD, &raw mut bytes) })?;
    Ok(bytes.max(0) as u64)
}

/// Copies what is in one pipe into another, up to `bytes` and the other's room; nothing is taken out. Buffers stay what
/// they are, also the packets of O_DIRECT. Never blocks.
///
/// # Errors
/// EAGAIN: nothing there, or no room; EINVAL: not two different pipes.
pub fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>, bytes: u64) -> Result<u64> {
    // SAFETY: no pointers.
    check("tee", unsafe {
        libc::tee(from.as_raw_fd(), to.as_raw_fd(), bytes as usize, libc::SPLICE_F_NONBLOCK) as libc::c_long
    })
}

/// Moves buffers from one pipe into another, up to `bytes` and the other's room. Never blocks.
///
/// # Errors
/// EAGAIN: nothing there, or no room; EINVAL: not two different pipes; EPIPE: the other has no reader (and SIGPIPE).
pub fn shift(from: BorrowedFd<'_>, to: BorrowedFd<'_>, bytes: u64) -> Result<u64> {
    let none = std::ptr::null_mut();
    // SAFETY: null offsets, as pipes have none.
    check("splice", unsafe {
        libc::splice(from.as_raw_fd(), none, to.as_raw_fd(), none, bytes as usize, libc::SPLICE_F_NONBLOCK)
            as libc::c_long
    })
}

/// Moves up to `bytes` that are in a pipe to a file or socket that calls do not wait for; pages of a process go as they are, not
/// as copies.
///
/// # Errors
/// EAGAIN: nothing there, or no room; what writing to it can fail with.
pub fn forward(from: BorrowedFd<'_>, to: BorrowedFd<'_>, bytes: usize) -> Result<usize> {
    let none = std::ptr::null_mut();
    // SAFETY: null offsets, as pipes and sockets have none.
    check("splice", unsafe {
        libc::splice(from.as_raw_fd(), none, to.as_raw_fd(), none, bytes, libc::SPLICE_F_NONBLOCK) as libc::c_long
    })
    .map(|count| count as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    #[test]
    fn copying_takes_nothing_out_and_keeps_packets() {
        let (from, into) = create(libc::O_DIRECT as u32).unwrap();
        let (copied, to) = create(0).unwrap();
        let mut into = File::from(into);
        into.write_all(b"abc").unwrap();
        into.write_all(b"de").unwrap();
        assert_eq!(copy(from.as_fd(), to.as_fd(), 1 << 20).unwrap(), 5);
        assert_eq!((unread(from.as_fd()).unwrap(), unread(copied.as_fd()).unwrap()), (5, 5));
        let mut copied = File::from(copied);
        let mut bytes = [0; 10];
        assert_eq!(copied.read(&mut bytes).unwrap(), 3, "a read ends with its packet");
        assert_eq!(copied.read(&mut bytes).unwrap(), 2);
        let (_, other) = create(0).unwrap();
        assert_eq!(copy(copied.as_fd(), other.as_fd(), 1).unwrap_err().number, libc::EAGAIN);
    }

    #[test]
    fn capacity_comes_in_pages_and_a_one_page_pipe_takes_one_buffer() {
        let (from, into) = create(0).unwrap();
        let mut into = File::from(into);
        into.write_all(&[1; 4096]).unwrap();
        into.write_all(b"second").unwrap();
        let (one, to) = create(0).unwrap();
        set_capacity(to.as_fd(), 1).unwrap();
        assert_eq!(capacity(to.as_fd()).unwrap(), 4096);
        assert_eq!(shift(from.as_fd(), to.as_fd(), 1 << 20).unwrap(), 4096);
        assert_eq!(shift(from.as_fd(), to.as_fd(), 1 << 20).unwrap_err().number, libc::EAGAIN);
        assert_eq!(unread(one.as_fd()).unwrap(), 4096);
        assert_eq!(set_capacity(one.as_fd(), 1 << 30).map_err(|error| error.number), Err(libc::EPERM));
    }

    #[test]
    fn what_is_in_a_pipe_goes_on_as_far_as_there_is_room() {
        let (from, into) = create(0).unwrap();
        let mut into = File::from(into);
        into.write_all(&[7; 9000]).unwrap();
        let (near, mut far) = std::os::unix::net::UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        assert_eq!(forward(from.as_fd(), near.as_fd(), 5000).unwrap(), 5000);
        assert_eq!(forward(from.as_fd(), near.as_fd(), 5000).unwrap(), 4000);
        assert_eq!(forward(from.as_fd(), near.as_fd(), 1).unwrap_err().number, libc::EAGAIN);
        let mut bytes = vec![0; 9000];
        far.read_exact(&mut bytes).unwrap();
        assert_eq!(bytes, [7; 9000]);
        // Nobody reads.
        let mut full = 0;
        while full == 0 {
            into.write_all(&[8; 4096]).unwrap();
            full = forward(from.as_fd(), near.as_fd(), 4096).map_or_else(|error| error.number, |_| 0);
        }
        assert_eq!((full, unread(from.as_fd()).unwrap() > 0), (libc::EAGAIN, true));
    }
}
