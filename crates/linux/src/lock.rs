//! File locks of our own descriptors: flock(2), fcntl(F_OFD_SETLK), and the form in which programs set record locks.
#![allow(unsafe_code)]

use crate::errno::{Errno, Result, check_int};
use std::os::fd::{AsRawFd, BorrowedFd};

/// fcntl(2) commands that set a lock without waiting.
pub const F_SETLK: u64 = 6;
/// The same for a lock of the open description.
pub const F_OFD_SETLK: u64 = 37;
/// flock(2) operations.
pub const LOCK_SH: u64 = 1;
/// Exclusive.
pub const LOCK_EX: u64 = 2;
/// Do not wait.
pub const LOCK_NB: u64 = 4;

/// A range of a file to be locked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// Exclusive; otherwise shared.
    pub exclusive: bool,
    /// First byte.
    pub start: u64,
    /// Last byte; `None` up to the end, however far the file grows.
    pub end: Option<u64>,
}

impl Range {
    /// struct flock as the kernel reads it; `None` for a range that it cannot express.
    pub fn bytes(&self) -> Option<[u8; 32]> {
        let length = match self.end {
            None => 0,
            Some(end) => end.checked_sub(self.start)?.checked_add(1)?,
        };
        let mut out = [0; 32];
        let kind: u16 = if self.exclusive { libc::F_WRLCK as u16 } else { libc::F_RDLCK as u16 };
        out[0..2].copy_from_slice(&kind.to_le_bytes());
        out[8..16].copy_from_slice(&i64::try_from(self.start).ok()?.to_le_bytes());
        out[16..24].copy_from_slice(&i64::try_from(length).ok()?.to_le_bytes());
        Some(out)
    }
}

/// flock(2) without waiting.
///
/// # Errors
/// EWOULDBLOCK: somebody else has it.
pub fn lock_whole(file: BorrowedFd<'_>, exclusive: bool) -> Result<()> {
    let operation = if exclusive { libc::LOCK_EX } else { libc::LOCK_SH } | libc::LOCK_NB;
    // SAFETY: no pointers.
    check_int("flock", unsafe { libc::flock(file.as_raw_fd(), operation) }).map(drop)
}

/// Locks a range for the open description, without waiting.
///
/// # Errors
/// EAGAIN: somebody else has it; EBADF: not open as the lock needs.
pub fn lock_range(file: BorrowedFd<'_>, range: Range) -> Result<()> {
    const CALL: &str = "fcntl(F_OFD_SETLK)";
    let bytes = range.bytes().ok_or(Errno { number: libc::EINVAL, call: CALL })?;
    // SAFETY: 32 live bytes in the form of struct flock.
    check_int(CALL, unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, bytes.as_ptr()) }).map(drop)
}

/// Who has a lock that another process would conflict with if it set one there: its process, 0 where that cannot be told, -1 for a lock
/// of a description.
///
/// # Errors
/// EBADF.
pub fn holder(file: BorrowedFd<'_>, range: Range) -> Result<Option<i32>> {
    const CALL: &str = "fcntl(F_OFD_GETLK)";
    let mut bytes = range.bytes().ok_or(Errno { number: libc::EINVAL, call: CALL })?;
    // SAFETY: 32 live bytes in the form of struct flock, which the kernel may overwrite.
    check_int(CALL, unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, bytes.as_mut_ptr()) })?;
    let [low, high, ..] = bytes;
    let pid = i32::from_le_bytes([bytes[24], bytes[25], bytes[26], bytes[27]]);
    Ok((i32::from(u16::from_le_bytes([low, high])) != libc::F_UNLCK).then_some(pid))
}

/// Whether an error says that somebody else has the lock.
pub fn is_conflict(error: Errno) -> bool {
    matches!(error.number, libc::EAGAIN | libc::EACCES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn the_form_is_the_kernels() {
        assert_eq!(std::mem::size_of::<libc::flock>(), 32);
        let bytes = Range { exclusive: true, start: 5, end: Some(11) }.bytes().unwrap();
        let mut flock: libc::flock = zero();
        flock.l_type = libc::F_WRLCK as i16;
        flock.l_start = 5;
        flock.l_len = 7;
        assert_eq!(u16::from_le_bytes([bytes[0], bytes[1]]), flock.l_type as u16);
        assert_eq!(i64::from_le_bytes(bytes[8..16].try_into().unwrap()), flock.l_start);
        assert_eq!(i64::from_le_bytes(bytes[16..24].try_into().unwrap()), flock.l_len);
        assert!(Range { exclusive: true, start: 5, end: Some(3) }.bytes().is_none());
        assert!(Range { exclusive: true, start: 0, end: Some(u64::MAX) }.bytes().is_none());
    }

    fn zero() -> libc::flock {
        libc::flock { l_type: 0, l_whence: 0, l_start: 0, l_len: 0, l_pid: 0 }
    }

    #[test]
    fn the_holder_of_a_range_is_told() {
        let one = crate::memory_file::create(b"", None).unwrap();
        let path = format!("/proc/self/fd/{}", one.as_raw_fd());
        let two = std::fs::File::options().read(true).write(true).open(path).unwrap();
        let range = Range { exclusive: true, start: 5, end: Some(11) };
        assert_eq!(holder(two.as_fd(), range).unwrap(), None);
        lock_range(one.as_fd(), range).unwrap();
        assert_eq!(holder(one.as_fd(), range).unwrap(), None, "its own");
        assert_eq!(holder(two.as_fd(), Range { exclusive: false, ..range }).unwrap(), Some(-1));
        assert_eq!(holder(two.as_fd(), Range { start: 12, end: None, ..range }).unwrap(), None);
    }

    #[test]
    fn locks_of_two_descriptions_conflict() {
        let one = crate::memory_file::create(b"", None).unwrap();
        let path = format!("/proc/self/fd/{}", one.as_raw_fd());
        let two = std::fs::File::options().read(true).write(true).open(path).unwrap();
        lock_whole(one.as_fd(), true).unwrap();
        assert!(is_conflict(lock_whole(two.as_fd(), false).unwrap_err()));
        lock_range(one.as_fd(), Range { exclusive: true, start: 5, end: Some(9) }).unwrap();
        lock_range(two.as_fd(), Range { exclusive: true, start: 10, end: None }).unwrap();
        assert!(is_conflict(lock_range(two.as_fd(), Range { exclusive: false, start: 9, end: None }).unwrap_err()));
    }
}
