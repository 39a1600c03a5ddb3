//! Signals to single threads and this process's own mask. Nothing here can reach PID 1 or "everybody".
#![allow(unsafe_code)]

use crate::errno::{Errno, Result, check};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Sends a signal to one thread (tgkill).
///
/// # Errors
/// EINVAL: a number <= 1; ESRCH: dead.
pub fn send_to_thread(pid: i32, tid: i32, signal: i32) -> Result<()> {
    if pid <= 1 || tid <= 1 {
        return Err(Errno { number: libc::EINVAL, call: "tgkill" });
    }
    // SAFETY: no pointers.
    check("tgkill", unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, signal) }).map(drop)
}

/// Sends a signal to one process.
///
/// # Errors
/// EINVAL: a number <= 1; ESRCH: dead.
pub fn send_to_process(pid: i32, signal: i32) -> Result<()> {
    if pid <= 1 {
        return Err(Errno { number: libc::EINVAL, call: "kill" });
    }
    // SAFETY: no pointers; the number is a single process.
    check("kill", i64::from(unsafe { libc::kill(pid, signal) })).map(drop)
}

/// Replaces this thread's mask of blocked signals; returns the old one.
pub fn set_own_mask(mask: u64) -> u64 {
    let mut old = 0_u64;
    // SAFETY: both pointers are live 8-byte masks.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const mask, &raw mut old, 8) };
    old
}

/// The bit of a signal in a mask.
pub const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// Blocks the signals of `mask` for this thread (and those it starts from now on) and gives a descriptor that becomes readable when
/// one of them arrives; see [`next`].
///
/// # Errors
/// EMFILE.
pub fn listen(mask: u64) -> Result<OwnedFd> {
    // SAFETY: mask is a live 8-byte mask; no old one is asked for.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_BLOCK, &raw const mask, std::ptr::null::<u64>(), 8) };
    let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
    // SAFETY: as above; -1 asks for a new descriptor.
    let raw = check("signalfd4", unsafe { libc::syscall(libc::SYS_signalfd4, -1, &raw const mask, 8, flags) })?;
    // SAFETY: fresh descriptor, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(raw as i32) })
}

/// The number of the next signal that has arrived at a descriptor of [`listen`], if any.
pub fn next(listener: BorrowedFd<'_>) -> Option<i32> {
    let mut information = [0_u8; 128];
    // SAFETY: the buffer is live and as long as said; 128 bytes are one struct signalfd_siginfo, whose first field is the number.
    let length = unsafe { libc::read(listener.as_raw_fd(), information.as_mut_ptr().cast(), information.len()) };
    let number = information.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes));
    number.filter(|_| length == 128)
}

/// Whether this process adopts what loses its parent below it (PR_SET_CHILD_SUBREAPER).
///
/// # Errors
/// None that is known.
pub fn set_own_subreaper(on: bool) -> Result<()> {
    // SAFETY: no pointers.
    check("prctl(PR_SET_CHILD_SUBREAPER)", unsafe {
        i64::from(libc::prctl(libc::PR_SET_CHILD_SUBREAPER, libc::c_ulong::from(on), 0, 0, 0))
    })
    .map(drop)
}
