//! Counters with a descriptor: eventfd(2).
#![allow(unsafe_code)]

use crate::errno::{Result, check_int};
use std::os::fd::{FromRawFd, OwnedFd};

/// A counter of 0, close-on-exec; with `semaphore` every read takes one.
///
/// # Errors
/// EMFILE, ENFILE.
pub fn create(semaphore: bool) -> Result<OwnedFd> {
    let flags = libc::EFD_CLOEXEC | if semaphore { libc::EFD_SEMAPHORE } else { 0 };
    // SAFETY: no pointers.
    let raw = check_int("eventfd", unsafe { libc::eventfd(0, flags) })?;
    // SAFETY: fresh descriptor, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::fdinfo;
    use std::io::Write;
    use std::os::fd::AsRawFd;

    #[test]
    fn what_is_written_shows_in_fdinfo() {
        let counter = create(true).unwrap();
        let mut file = std::fs::File::from(counter);
        file.write_all(&(u64::MAX - 1).to_ne_bytes()).unwrap();
        let info = fdinfo::read(std::process::id() as i32, file.as_raw_fd()).unwrap().eventfd.unwrap();
        assert_eq!((info.count, info.semaphore.unwrap_or(true)), (u64::MAX - 1, true));
    }
}
