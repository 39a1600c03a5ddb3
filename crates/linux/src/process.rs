//! Children of this process, of which whichever ends is collected; and whose session a process is in.
#![allow(unsafe_code)]

use crate::errno::{Errno, Result, check_int};

/// Waits until any child has ended, and collects it; its number, or `None` when there is no child left.
///
/// # Errors
/// None besides interruption, which is retried.
pub fn collect_any() -> Result<Option<i32>> {
    loop {
        // SAFETY: no status is asked for.
        let pid = unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::__WALL) };
        if pid > 0 {
            return Ok(Some(pid));
        }
        match Errno::last("waitpid") {
            error if error.number == libc::ECHILD => return Ok(None),
            error if error.number == libc::EINTR => {}
            error => return Err(error),
        }
    }
}

/// The session of a process, 0: this one; as seen from here (getsid(2)): 0 where its leader cannot be.
///
/// # Errors
/// ESRCH: there is no such process.
pub fn session_of(pid: i32) -> Result<i32> {
    // SAFETY: no pointers.
    check_int("getsid", unsafe { libc::getsid(pid) })
}

/// The process group of a process; 0: this one.
///
/// # Errors
/// ESRCH: there is no such process.
pub fn group_of(pid: i32) -> Result<i32> {
    // SAFETY: no pointers.
    check_int("getpgid", unsafe { libc::getpgid(pid) })
}
