//! This process's own descriptor numbers: having a file at an exact number for a while.
#![allow(unsafe_code)]

use crate::errno::{Result, check_int};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A file placed at a number; dropping it puts back what was there.
#[derive(Debug)]
pub struct Placed {
    number: i32,
    before: Option<OwnedFd>,
}

impl Placed {
    /// Places a copy of `file` at `number` (close-on-exec).
    ///
    /// # Errors
    /// EMFILE, EBADF (number out of range).
    pub fn at(file: BorrowedFd<'_>, number: i32) -> Result<Placed> {
        // SAFETY: no pointers; whatever has the number is saved above all small numbers first.
        unsafe {
            let saved = libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 64);
            let before = (saved >= 0).then(|| OwnedFd::from_raw_fd(saved));
            check_int("dup3", libc::dup3(file.as_raw_fd(), number, libc::O_CLOEXEC))?;
            Ok(Placed { number, before })
        }
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        // SAFETY: the number holds our own copy; nobody else of this single-threaded process uses it.
        unsafe {
            match &self.before {
                Some(before) => libc::dup3(before.as_raw_fd(), self.number, libc::O_CLOEXEC),
                None => libc::close(self.number),
            };
        }
    }
}

/// Marks every descriptor from `first` on close-on-exec: a program started now inherits none of them.
///
/// # Errors
/// None on Linux 5.11 or newer.
pub fn close_on_exec_from(first: u32) -> Result<()> {
    /// CLOSE_RANGE_CLOEXEC.
    const CLOEXEC: u32 = 4;
    // SAFETY: only flags of our own descriptors change.
    crate::errno::check("close_range", unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, CLOEXEC) })
        .map(drop)
}

/// Lets programs that are started from now on inherit a file under its number.
///
/// # Errors
/// None for an open descriptor.
pub fn keep_over_exec(file: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: only a flag of our own descriptor changes.
    check_int("fcntl(F_SETFD)", unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFD, 0) }).map(drop)
}

/// Takes a descriptor that whoever started this program left open for it under a number; the number is closed.
///
/// # Errors
/// EBADF: it is not open; EINVAL: a standard stream (those have owners already).
pub fn take_inherited(number: i32) -> Result<OwnedFd> {
    if number <= 2 {
        return Err(crate::errno::Errno { number: libc::EINVAL, call: "fcntl(F_DUPFD)" });
    }
    // SAFETY: a copy with a fresh number is ours alone; the old number was given to this program by its starter.
    unsafe {
        let raw = check_int("fcntl(F_DUPFD)", libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3))?;
        libc::close(number);
        Ok(OwnedFd::from_raw_fd(raw))
    }
}
