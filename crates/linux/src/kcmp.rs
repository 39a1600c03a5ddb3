//! kcmp(2): whether two tasks share a kernel object, and an order among them.
#![allow(unsafe_code)]

use crate::errno::{Errno, Result, check};
use std::cmp::Ordering;

/// What to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    /// Open descriptions behind two descriptors.
    File(i32, i32),
    /// Address space.
    Memory,
    /// File table.
    Files,
    /// Working directory, root, umask.
    Filesystem,
    /// Signal handlers.
    Handlers,
    /// I/O context.
    Io,
    /// System V semaphore undo list.
    SemaphoreUndo,
}

/// Compares an object of two tasks; the order is the kernel's own, stable until it boots again.
///
/// # Errors
/// EBADF: a descriptor is not open; ESRCH: dead; EPERM.
pub fn kcmp(first: i32, second: i32, object: Object) -> Result<Ordering> {
    let (kind, a, b) = match object {
        Object::File(a, b) => (0, a, b),
        Object::Memory => (1, 0, 0),
        Object::Files => (2, 0, 0),
        Object::Filesystem => (3, 0, 0),
        Object::Handlers => (4, 0, 0),
        Object::Io => (5, 0, 0),
        Object::SemaphoreUndo => (6, 0, 0),
    };
    // SAFETY: no pointers for these kinds.
    match check("kcmp", unsafe { libc::syscall(libc::SYS_kcmp, first, second, kind, i64::from(a), i64::from(b)) })? {
        0 => Ok(Ordering::Equal),
        1 => Ok(Ordering::Less),
        2 => Ok(Ordering::Greater),
        _ => Err(Errno { number: libc::EINVAL, call: "kcmp" }),
    }
}

/// Whether the description behind the foreign epoll descriptor's n-th target `target` is `descriptor` of `other`.
///
/// # Errors
/// ENOENT: the epoll set has no such target.
pub fn is_epoll_target(other: i32, descriptor: i32, owner: i32, epoll: i32, target: i32, offset: u32) -> Result<bool> {
    #[repr(C)]
    struct Slot {
        epoll: u32,
        target: u32,
        offset: u32,
    }
    let slot = Slot { epoll: epoll as u32, target: target as u32, offset };
    // SAFETY: slot is live for the call (KCMP_EPOLL_TFD = 7).
    check("kcmp", unsafe { libc::syscall(libc::SYS_kcmp, other, owner, 7, i64::from(descriptor), &raw const slot) })
        .map(|result| result == 0)
}
