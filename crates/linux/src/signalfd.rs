//! Signals read from a descriptor: signalfd(2). It has a mask and nothing else; which signals it gives is a matter of who
//! reads.
#![allow(unsafe_code)]

use crate::errno::{Result, check};
use std::os::fd::{FromRawFd, OwnedFd};

/// A descriptor for the signals of `mask` (bit n-1 is signal n; SIGKILL and SIGSTOP are left out), close-on-exec.
///
/// # Errors
/// EMFILE, ENFILE.
pub fn create(mask: u64) -> Result<OwnedFd> {
    // SAFETY: the mask is live and has the size that the kernel asks for; -1 asks for a new descriptor.
    let raw = check("signalfd4", unsafe {
        libc::syscall(libc::SYS_signalfd4, -1, &raw const mask, size_of::<u64>(), libc::SFD_CLOEXEC)
    })?;
    // SAFETY: fresh descriptor, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(raw as i32) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn the_mask_shows_in_fdinfo() {
        let signals = create(1 << 9 | 1 << 33 | 1 << 8).unwrap();
        let info = crate::proc::fdinfo::read(std::process::id() as i32, signals.as_raw_fd()).unwrap();
        assert_eq!(info.signal_mask, Some(1 << 9 | 1 << 33), "SIGKILL (bit 8) is never in it");
    }
}
