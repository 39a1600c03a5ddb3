//! Epoll sets: members by exact descriptor number, events that are there now: epoll(7).
#![allow(unsafe_code)]

use crate::errno::{Result, check_int};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// EPOLLET.
pub const EDGE_TRIGGERED: u32 = 1 << 31;
/// EPOLLONESHOT.
pub const ONE_SHOT: u32 = 1 << 30;
/// EPOLLWAKEUP; needs CAP_BLOCK_SUSPEND, else it is taken away silently.
pub const WAKE_UP: u32 = 1 << 29;
/// EPOLLEXCLUSIVE.
pub const EXCLUSIVE: u32 = 1 << 28;
/// Bits that are no events: all that is left of a one-shot member that has fired.
pub const PRIVATE: u32 = EDGE_TRIGGERED | ONE_SHOT | WAKE_UP | EXCLUSIVE;

/// EPOLL_CTL_ADD.
pub const ADD: i32 = 1;
/// EPOLL_CTL_DEL.
pub const DELETE: i32 = 2;
/// EPOLL_CTL_MOD.
pub const MODIFY: i32 = 3;
/// Bytes of struct epoll_event, which is packed on this architecture.
pub const EVENT_BYTES: usize = 12;
const _: () = assert!(size_of::<libc::epoll_event>() == EVENT_BYTES);

/// An event as the kernel reads and writes it.
pub fn event_bytes(events: u32, data: u64) -> [u8; EVENT_BYTES] {
    let mut bytes = [0; EVENT_BYTES];
    bytes[..4].copy_from_slice(&events.to_le_bytes());
    bytes[4..].copy_from_slice(&data.to_le_bytes());
    bytes
}

/// An empty set, close-on-exec.
///
/// # Errors
/// EMFILE, ENFILE.
pub fn create() -> Result<OwnedFd> {
    // SAFETY: no pointers.
    let raw = check_int("epoll_create1", unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
    // SAFETY: fresh descriptor, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Adds, changes or deletes a member: the file that has `number` in our own table now.
///
/// # Errors
/// EEXIST, ENOENT, ELOOP (nested too deep), EPERM (a file that cannot be polled), ENOSPC.
pub fn control(set: BorrowedFd<'_>, operation: i32, number: i32, events: u32, data: u64) -> Result<()> {
    let mut event = libc::epoll_event { events, u64: data };
    // SAFETY: reads one live event.
    check_int("epoll_ctl", unsafe { libc::epoll_ctl(set.as_raw_fd(), operation, number, &raw mut event) }).map(drop)
}

/// Takes up to `maximum` events that are there now: (events, data). Edges and one-shot members are used up by that.
///
/// # Errors
/// EINVAL: not a set.
pub fn take(set: BorrowedFd<'_>, maximum: usize) -> Result<Vec<(u32, u64)>> {
    let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; maximum.clamp(1, 1 << 20)];
    // SAFETY: a live array with its length.
    let count = check_int("epoll_wait", unsafe {
        libc::epoll_wait(set.as_raw_fd(), events.as_mut_ptr(), events.len() as i32, 0)
    })?;
    Ok(events[..count as usize].iter().map(|event| (event.events, event.u64)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::fdinfo;
    use std::os::fd::AsFd;

    #[test]
    fn a_one_shot_member_that_has_fired_keeps_only_its_private_bits() {
        let (set, counter) = (create().unwrap(), crate::eventfd::create(false).unwrap());
        control(set.as_fd(), ADD, counter.as_raw_fd(), 4 | ONE_SHOT, 77).unwrap();
        assert_eq!(take(set.as_fd(), 5).unwrap(), [(4, 77)]);
        assert!(take(set.as_fd(), 5).unwrap().is_empty());
        let info = fdinfo::read(std::process::id() as i32, set.as_raw_fd()).unwrap();
        assert_eq!((info.epoll[0].events, info.epoll[0].data), (ONE_SHOT, 77));
    }

    #[test]
    fn an_edge_is_told_once_and_again_after_a_change() {
        let (set, counter) = (create().unwrap(), crate::eventfd::create(false).unwrap());
        let number = counter.as_raw_fd();
        control(set.as_fd(), ADD, number, 4 | EDGE_TRIGGERED, u64::MAX).unwrap();
        assert_eq!(take(set.as_fd(), 1).unwrap().len(), 1);
        assert_eq!(take(set.as_fd(), 1).unwrap().len(), 0);
        control(set.as_fd(), MODIFY, number, 4 | EDGE_TRIGGERED, u64::MAX).unwrap();
        assert_eq!(take(set.as_fd(), 1).unwrap(), [(4, u64::MAX)]);
        assert_eq!(event_bytes(1, 2), [1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
    }
}
