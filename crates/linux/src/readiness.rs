//! What a file is ready for, now: poll(2) without waiting.
#![allow(unsafe_code)]

use crate::errno::{Result, check_int};
use std::os::fd::{AsRawFd, BorrowedFd};

/// POLLIN, EPOLLIN.
pub const IN: u32 = 0x1;
/// POLLOUT, EPOLLOUT.
pub const OUT: u32 = 0x4;
/// POLLERR, EPOLLERR.
pub const ERROR: u32 = 0x8;
/// POLLHUP, EPOLLHUP.
pub const HANG_UP: u32 = 0x10;
/// All bits that a file can be ready for.
pub const ALL: u32 = 0x27ff;

/// Which of `events` (and always ERROR, HANG_UP) are there. Beware of epoll sets: asking one makes it forget members that
/// are not ready as *we* see them (signalfds look at the asking process).
///
/// # Errors
/// ENOMEM.
pub fn ready(file: BorrowedFd<'_>, events: u32) -> Result<u32> {
    let mut one = libc::pollfd { fd: file.as_raw_fd(), events: events as i16, revents: 0 };
    // SAFETY: one live pollfd.
    check_int("poll", unsafe { libc::poll(&raw mut one, 1, 0) })?;
    Ok(u32::from(one.revents as u16))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_pipe_tells_what_its_other_end_does() {
        let (reader, writer) = crate::pipe::create(0).unwrap();
        assert_eq!((ready(reader.as_fd(), ALL).unwrap(), ready(writer.as_fd(), OUT).unwrap()), (0, OUT));
        drop(reader);
        assert_ne!(ready(writer.as_fd(), ALL).unwrap() & ERROR, 0);
        let (reader, writer) = crate::pipe::create(0).unwrap();
        drop(writer);
        assert_eq!(ready(reader.as_fd(), ALL).unwrap(), HANG_UP);
    }
}
