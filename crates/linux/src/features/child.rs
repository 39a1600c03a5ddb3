//! Trials that would disturb this process, in a child of their own.
#![allow(unsafe_code)]

use crate::clone;
use crate::errno::{Errno, Result, check, check_int};
use crate::signal;

/// Runs a trial in a forked child; its error number becomes the child's exit status. SIGCHLD is not sent.
///
/// The closure runs in a copy of one thread: it may only make system calls, never allocate or take a lock.
///
/// # Errors
/// The trial's own; EIO when the child was killed (by a seccomp filter: then the call is as good as missing).
pub(super) fn in_child(call: &'static str, trial: impl FnOnce() -> std::result::Result<(), i32>) -> Result<()> {
    let arguments = clone::Arguments::default();
    // SAFETY: fork semantics without CLONE_VM; the child runs the closure, which by contract only makes system calls,
    // and never returns.
    let pid = unsafe {
        let pid = check(call, libc::syscall(libc::SYS_clone3, &raw const arguments, clone::ARGUMENTS_BYTES))?;
        if pid == 0 {
            let status = match trial() {
                Ok(()) => 0,
                Err(number) => number.clamp(1, 255),
            };
            loop {
                libc::syscall(libc::SYS_exit_group, status);
            }
        }
        pid as i32
    };
    match reap(pid) {
        Some(status) if libc::WIFEXITED(status) => match libc::WEXITSTATUS(status) {
            0 => Ok(()),
            number => Err(Errno { number, call }),
        },
        _ => Err(Errno { number: libc::EIO, call }),
    }
}

/// Waits for a child of ours; its wait status.
fn reap(pid: i32) -> Option<i32> {
    let mut status = 0;
    loop {
        // SAFETY: status is live; the number is a child of ours that nobody else waits for by number.
        match check_int("waitpid", unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) }) {
            Ok(_) => return Some(status),
            Err(error) if error.number == libc::EINTR => {}
            Err(_) => return None,
        }
    }
}

/// A child that sleeps until it is dropped: something to trace.
#[derive(Debug)]
pub(super) struct Sleeper {
    pub(super) pid: i32,
}

impl Sleeper {
    pub(super) fn new(numbers: &[i32]) -> Result<Sleeper> {
        clone::fork_sleeper(numbers, 0, 0).map(|pid| Sleeper { pid })
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        // It is our child and not reaped, so the number is still its own.
        let _ = signal::send_to_process(self.pid, libc::SIGKILL);
        while reap(self.pid).is_some_and(|status| libc::WIFSTOPPED(status)) {}
    }
}

/// A raw system call inside a trial: its error number instead of errno's thread-local.
pub(super) fn tried(result: libc::c_long) -> std::result::Result<libc::c_long, i32> {
    if result == -1 {
        // SAFETY: errno of this thread.
        Err(unsafe { *libc::__errno_location() })
    } else {
        Ok(result)
    }
}
