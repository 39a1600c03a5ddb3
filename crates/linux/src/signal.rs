//! Signals to single threads and this process's own mask. Nothing here can reach PID 1 or "everybody".
#![allow(unsafe_code)]

use crate::errno::{Errno, Result, check};

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
