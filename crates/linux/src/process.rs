//! Children of this process: collecting whichever ends.
#![allow(unsafe_code)]

use crate::errno::{Errno, Result};

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
