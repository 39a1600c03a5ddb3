//! Calls whose caller the kernel remembers: made by a child that has the wanted number and identity for a moment.
#![allow(unsafe_code)]

use crate::clone::{ARGUMENTS_BYTES, Arguments};
use crate::errno::{Errno, Result, check, foreign};

/// Who makes the calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Caller {
    /// Process number; `None`, or one that is in use: any.
    pub pid: Option<i32>,
    /// User and group, real, effective and saved; `None`: ours.
    pub identity: Option<(u32, u32)>,
}

/// Lets a child make calls and returns what `work` answers: a result, or an error number made negative. The child has
/// a copy of our memory and, with `share_descriptors`, our very descriptors.
///
/// # Errors
/// EAGAIN, ENOMEM: no child; EPERM: not this identity; those of `work`, under the name `call`.
///
/// # Safety
/// `work` makes nothing but raw system calls: other threads of ours may hold any lock.
pub(crate) unsafe fn run(
    call: &'static str,
    caller: Caller,
    share_descriptors: bool,
    work: impl FnOnce() -> i64,
) -> Result<u64> {
    let number = [caller.pid.unwrap_or(0)];
    let arguments = Arguments {
        flags: if share_descriptors { libc::CLONE_FILES as u64 } else { 0 },
        exit_signal: libc::SIGCHLD as u64,
        set_tid: if caller.pid.is_some() { number.as_ptr() as u64 } else { 0 },
        set_tid_size: u64::from(caller.pid.is_some()),
        ..Arguments::default()
    };
    // SAFETY: fork semantics; the child makes only raw system calls and never returns; the page is shared with it and
    // unmapped by us after its end.
    unsafe {
        let page = libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        if page == libc::MAP_FAILED {
            return Err(Errno::last("mmap"));
        }
        let answer = page.cast::<i64>();
        answer.write_volatile(-i64::from(libc::EPERM));
        let fork = |arguments: &Arguments| {
            check("clone3", libc::syscall(libc::SYS_clone3, std::ptr::from_ref(arguments), ARGUMENTS_BYTES))
        };
        let result = match fork(&arguments) {
            Err(_) if caller.pid.is_some() => fork(&Arguments { set_tid: 0, set_tid_size: 0, ..arguments }),
            other => other,
        };
        if result == Ok(0) {
            if become_user(caller.identity) {
                answer.write_volatile(work());
            }
            libc::syscall(libc::SYS_exit_group, 0);
            loop {
                libc::syscall(libc::SYS_pause);
            }
        }
        if let Ok(pid) = result {
            let mut status = 0;
            while libc::waitpid(pid as i32, &raw mut status, libc::__WALL) == -1
                && *libc::__errno_location() == libc::EINTR
            {}
        }
        let answered = answer.read_volatile();
        libc::munmap(page, 4096);
        result?;
        foreign(call, answered)
    }
}

/// # Safety
/// For a child of our own that makes raw system calls only.
unsafe fn become_user(identity: Option<(u32, u32)>) -> bool {
    let Some((user, group)) = identity else { return true };
    let (user, group) = (i64::from(user), i64::from(group));
    // SAFETY: raw calls without pointers.
    unsafe {
        libc::syscall(libc::SYS_setresgid, group, group, group) == 0
            && libc::syscall(libc::SYS_setresuid, user, user, user) == 0
    }
}

/// The result of a raw call as `work` answers it.
pub(crate) fn raw(result: i64) -> i64 {
    // SAFETY: errno is this thread's own.
    if result == -1 { -i64::from(unsafe { *libc::__errno_location() }) } else { result }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_has_the_number_and_the_user() {
        let answered = |caller: Caller, number: i64| {
            // SAFETY: one raw call.
            unsafe { run("test", caller, false, || raw(libc::syscall(number))) }
        };
        assert_ne!(answered(Caller::default(), libc::SYS_getpid), Ok(u64::from(std::process::id())));
        let wished = Caller { pid: Some(4_000_321), identity: Some((1000, 1001)) };
        match answered(wished, libc::SYS_getuid) {
            Ok(user) => {
                assert_eq!(user, 1000);
                assert_eq!(answered(wished, libc::SYS_getegid), Ok(1001));
            }
            Err(error) => assert_eq!(error.number, libc::EPERM),
        }
    }
}
