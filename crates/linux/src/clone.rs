//! clone3(2) with chosen numbers: the first task of a skeleton.
//!
//! # References
//! <https://man7.org/linux/man-pages/man2/clone.2.html>
#![allow(unsafe_code)]

use crate::errno::{Errno, Result, check};

/// struct clone_args.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Arguments {
    /// CLONE_* flags.
    pub flags: u64,
    /// Where to store a pidfd.
    pub pidfd: u64,
    /// Where to store the child's number in the child.
    pub child_tid: u64,
    /// Where to store the child's number in the parent.
    pub parent_tid: u64,
    /// Signal to the parent at the child's end.
    pub exit_signal: u64,
    /// Lowest byte of the child's stack.
    pub stack: u64,
    /// Its length in bytes.
    pub stack_size: u64,
    /// Thread-local storage.
    pub tls: u64,
    /// Address of an array of numbers, innermost PID namespace first.
    pub set_tid: u64,
    /// Its length in elements.
    pub set_tid_size: u64,
    /// Descriptor of a cgroup.
    pub cgroup: u64,
}
const _: () = assert!(size_of::<Arguments>() == 88);

/// Bytes of [`Arguments`].
pub const ARGUMENTS_BYTES: usize = 88;

/// Where `set_tid` lies in [`Arguments`].
pub const SET_TID_OFFSET: usize = 64;
const _: () = assert!(std::mem::offset_of!(Arguments, set_tid) == SET_TID_OFFSET);

impl Arguments {
    /// As the kernel reads them.
    pub fn bytes(&self) -> [u8; ARGUMENTS_BYTES] {
        // SAFETY: 11 u64 without padding.
        unsafe { std::mem::transmute(*self) }
    }
}

/// Forks this process; the child, with the given number (innermost namespace first; empty = any), sleeps for ever and
/// dies with its parent. `flags` may hold CLONE_NEW* bits and CLONE_PARENT.
///
/// # Errors
/// EEXIST: the number is in use; EPERM: no CAP_CHECKPOINT_RESTORE; EINVAL: above pid_max.
pub fn fork_sleeper(numbers: &[i32], flags: u64, exit_signal: i32) -> Result<i32> {
    let arguments = Arguments {
        flags,
        exit_signal: exit_signal as u64,
        set_tid: if numbers.is_empty() { 0 } else { numbers.as_ptr() as u64 },
        set_tid_size: numbers.len() as u64,
        ..Arguments::default()
    };
    // SAFETY: fork semantics (no CLONE_VM is passed by callers; asserted here); the child makes only raw system calls
    // and never returns.
    unsafe {
        if flags & (libc::CLONE_VM as u64) != 0 {
            return Err(Errno { number: libc::EINVAL, call: "clone3" });
        }
        let parents = [libc::getpid(), libc::getppid()];
        let pid = check("clone3", libc::syscall(libc::SYS_clone3, &raw const arguments, ARGUMENTS_BYTES))?;
        if pid == 0 {
            libc::syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
            // Dead before that was set: it will not be told. In a PID namespace of its own (0) it cannot tell.
            let parent = libc::syscall(libc::SYS_getppid) as i32;
            if parent != 0 && !parents.contains(&parent) {
                libc::syscall(libc::SYS_exit_group, 0);
            }
            loop {
                libc::syscall(libc::SYS_pause);
            }
        }
        Ok(pid as i32)
    }
}
