//! This process's own descriptor numbers: having a file at an exact number for a while.
#![allow(unsafe_code)]

use crate::errno::{Result, check_int};
use crate::kcmp::{Object, kcmp};
use crate::proc::directory;
use std::cmp::Ordering;
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

/// Leaves the table of descriptors that this process shares to those with whom it does, and goes on with a copy. False, and nothing is
/// changed, if another thread of this process has that table, too: it would stay behind.
///
/// # Errors
/// ENOMEM, EMFILE.
///
/// # References
/// <https://man7.org/linux/man-pages/man2/unshare.2.html>
pub fn leave_shared_table() -> Result<bool> {
    // SAFETY: no pointers.
    let own = unsafe { libc::gettid() };
    // One that cannot be compared counts.
    let has_ours = |tid: &i32| kcmp(own, *tid, Object::Files).map_or(true, |order| order == Ordering::Equal);
    let threads = directory::tasks(std::process::id() as i32).unwrap_or_default();
    if threads.is_empty() || threads.iter().any(|tid| *tid != own && has_ours(tid)) {
        return Ok(false);
    }
    leave().map(|()| true)
}

/// Gives the calling thread a table of descriptors of its own, with a copy of `file` alone. To be called first in a thread's life: whatever
/// else it has by number it has no more.
///
/// # Errors
/// ENOMEM, EMFILE.
///
/// # References
/// <https://man7.org/linux/man-pages/man2/unshare.2.html>, <https://man7.org/linux/man-pages/man2/close_range.2.html>
pub fn leave_table_with(file: BorrowedFd<'_>) -> Result<OwnedFd> {
    leave()?;
    // SAFETY: the copy has a fresh number in a table that only this thread has; all others in it are copies which nobody knows of.
    unsafe {
        let kept = check_int("fcntl(F_DUPFD)", libc::fcntl(file.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3))?;
        for (first, last) in [(0, kept as u32 - 1), (kept as u32 + 1, u32::MAX)] {
            crate::errno::check("close_range", libc::syscall(libc::SYS_close_range, first, last, 0))?;
        }
        Ok(OwnedFd::from_raw_fd(kept))
    }
}

fn leave() -> Result<()> {
    // SAFETY: no pointers; every number stands for the same file as before.
    check_int("unshare(CLONE_FILES)", unsafe { libc::unshare(libc::CLONE_FILES) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;

    #[test]
    fn a_process_of_several_threads_stays_in_its_table() {
        // The harness runs every test on a thread of its own.
        assert_eq!(leave_shared_table(), Ok(false));
    }

    #[test]
    fn a_thread_with_a_table_of_its_own_has_one_file_and_closes_nobody_elses() {
        let null = File::open("/dev/null").unwrap();
        let other = File::open("/dev/zero").unwrap();
        let (number, file) = (other.as_raw_fd(), null.try_clone().unwrap());
        let (teller, told) = std::sync::mpsc::channel();
        let (end, until) = std::sync::mpsc::channel::<()>();
        let alone = std::thread::spawn(move || {
            let kept = leave_table_with(file.as_fd()).unwrap();
            // SAFETY: no pointers.
            teller.send((unsafe { libc::gettid() }, kept.as_raw_fd())).unwrap();
            let _ = until.recv();
            // In this table its number is closed, and in the process's it is not this thread's any more.
            std::mem::forget(file);
        });
        let (tid, kept) = told.recv().unwrap();
        assert_eq!(directory::descriptors_of_task(std::process::id() as i32, tid).unwrap(), [kept]);
        // SAFETY: no pointers.
        assert_ne!(unsafe { libc::fcntl(number, libc::F_GETFD) }, -1);
        drop(end);
        alone.join().unwrap();
    }

    #[test]
    fn what_is_closed_later_the_others_still_have() {
        let null = File::open("/dev/null").unwrap();
        let number = null.as_raw_fd();
        // SAFETY: the child shares our table alone, makes only raw system calls, and ends.
        let closed = unsafe {
            crate::errand::run("close", crate::errand::Caller::default(), true, || {
                if leave().is_ok() { i64::from(libc::close(number)) } else { -1 }
            })
        };
        assert_eq!(closed, Ok(0));
        // SAFETY: no pointers.
        assert_ne!(unsafe { libc::fcntl(number, libc::F_GETFD) }, -1);
    }
}
