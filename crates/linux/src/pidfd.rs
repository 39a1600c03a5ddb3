//! pidfd_open(2), pidfd_getfd(2), pidfd_send_signal(2): processes by descriptor, never by a number that may be reused.
#![allow(unsafe_code)]

use crate::errno::{Errno, Result, check};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A descriptor number in another process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ForeignDescriptor(pub i32);

/// A process held by descriptor.
#[derive(Debug)]
pub struct PidFd {
    descriptor: OwnedFd,
    pid: i32,
}

impl PidFd {
    /// Opens a process (the number of a thread-group leader).
    ///
    /// # Errors
    /// ESRCH: dead; EINVAL: a thread that is not a leader, or a number <= 1 (refused here).
    pub fn open(pid: i32) -> Result<PidFd> {
        if pid < 1 {
            return Err(Errno { number: libc::EINVAL, call: "pidfd_open" });
        }
        // SAFETY: no pointers.
        let raw = check("pidfd_open", unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
        // SAFETY: the kernel just gave us this descriptor, nobody else owns it.
        Ok(PidFd { descriptor: unsafe { OwnedFd::from_raw_fd(raw as i32) }, pid })
    }

    /// Opens a process through any of its threads (PIDFD_THREAD, Linux 6.9, for one that is not the leader).
    ///
    /// # Errors
    /// ESRCH: dead; EINVAL: not a leader and a kernel without PIDFD_THREAD.
    pub fn open_thread(tid: i32) -> Result<PidFd> {
        match PidFd::open(tid) {
            Err(error) if matches!(error.number, libc::EINVAL | libc::ENOENT) && tid > 1 => {
                // SAFETY: no pointers. PIDFD_THREAD = O_EXCL.
                let raw = check("pidfd_open", unsafe { libc::syscall(libc::SYS_pidfd_open, tid, libc::O_EXCL) })?;
                // SAFETY: the kernel just gave us this descriptor, nobody else owns it.
                Ok(PidFd { descriptor: unsafe { OwnedFd::from_raw_fd(raw as i32) }, pid: tid })
            }
            other => other,
        }
    }

    /// The same, with a descriptor number at or above `minimum`.
    ///
    /// # Errors
    /// EMFILE.
    pub fn above(self, minimum: i32) -> Result<PidFd> {
        let descriptor = crate::file::duplicate_above(self.descriptor.as_fd(), minimum)?;
        Ok(PidFd { descriptor, pid: self.pid })
    }

    /// The number at the time of opening.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Duplicates a descriptor of the process: the same open description.
    ///
    /// # Errors
    /// EBADF: not open there; ESRCH: dead; EPERM.
    pub fn duplicate(&self, descriptor: ForeignDescriptor) -> Result<OwnedFd> {
        // SAFETY: no pointers.
        let raw = check("pidfd_getfd", unsafe {
            libc::syscall(libc::SYS_pidfd_getfd, self.descriptor.as_raw_fd(), descriptor.0, 0)
        })?;
        // SAFETY: the kernel just gave us this descriptor, nobody else owns it.
        Ok(unsafe { OwnedFd::from_raw_fd(raw as i32) })
    }

    /// Sends a signal to the process. Refuses PID 1: nothing of ours may ever signal it.
    ///
    /// # Errors
    /// ESRCH: dead; EPERM.
    pub fn send_signal(&self, signal: i32) -> Result<()> {
        if self.pid <= 1 {
            return Err(Errno { number: libc::EPERM, call: "pidfd_send_signal" });
        }
        // SAFETY: the info pointer may be null.
        check("pidfd_send_signal", unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, self.descriptor.as_raw_fd(), signal, std::ptr::null::<u8>(), 0)
        })
        .map(drop)
    }
}

/// Opens a process or, with PIDFD_THREAD (O_EXCL) among the flags, a thread.
///
/// # Errors
/// ESRCH: it has been waited for; EINVAL: not a leader, a flag that this kernel lacks, or a number below 1 (refused here).
pub fn open_with_flags(number: i32, flags: u32) -> Result<OwnedFd> {
    if number < 1 {
        return Err(Errno { number: libc::EINVAL, call: "pidfd_open" });
    }
    // SAFETY: no pointers.
    let raw = check("pidfd_open", unsafe { libc::syscall(libc::SYS_pidfd_open, number, flags) })?;
    // SAFETY: the kernel just gave us this descriptor, nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw as i32) })
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl AsRawFd for PidFd {
    fn as_raw_fd(&self) -> i32 {
        self.descriptor.as_raw_fd()
    }
}
