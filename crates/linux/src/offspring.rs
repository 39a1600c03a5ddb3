//! A copy of this process that does one thing, beside it and after its end: there at once, without a program to start.
//!
//! # References
//! <https://man7.org/linux/man-pages/man2/fork.2.html>
#![allow(unsafe_code)]

use crate::errno::{Result, check_int};
use crate::proc::directory;
use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Where the copy finds what it keeps besides its standard streams.
const KEPT: i32 = 3;

/// Forks a copy in a session of its own, which does `work` and ends with its answer as its exit code. Its standard input is `input`, its
/// standard output nothing, its standard error ours, no signal is blocked, and of all other descriptors it has `kept` alone.
/// `None` if this process has more than one thread: what they were about when it was copied would never end in the copy.
///
/// # Errors
/// EAGAIN, ENOMEM: no further process.
pub fn fork(
    input: BorrowedFd<'_>,
    kept: BorrowedFd<'_>,
    name: &CStr,
    work: impl FnOnce(OwnedFd) -> i32,
) -> Result<Option<i32>> {
    if directory::tasks(std::process::id() as i32).map_or(0, |tasks| tasks.len()) != 1 {
        return Ok(None);
    }
    // SAFETY: this process has one thread, so nothing that the copy could ever wait for is held by another one. The copy does its work
    // and ends without returning: none of the caller's values is dropped in it, and the descriptors that are closed under them stay closed.
    unsafe {
        let pid = check_int("fork", libc::fork())?;
        if pid != 0 {
            return Ok(Some(pid));
        }
        libc::setsid();
        libc::prctl(libc::PR_SET_NAME, name.as_ptr());
        // Above the numbers that are given now, whichever those two have.
        let input = libc::fcntl(input.as_raw_fd(), libc::F_DUPFD, KEPT + 1);
        let kept = libc::fcntl(kept.as_raw_fd(), libc::F_DUPFD, KEPT + 1);
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_WRONLY);
        let placed = [(input, 0), (null, 1), (kept, KEPT)].map(|(from, to)| libc::dup2(from, to));
        libc::close_range((KEPT + 1) as u32, u32::MAX, 0);
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        if placed.contains(&-1) {
            libc::_exit(1);
        }
        libc::_exit(work(OwnedFd::from_raw_fd(KEPT)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    #[test]
    fn a_process_of_several_threads_is_not_copied() {
        // The harness runs every test on a thread of its own.
        let (ear, _mouth) = std::io::pipe().unwrap();
        assert_eq!(fork(ear.as_fd(), ear.as_fd(), c"copy", |_| 0), Ok(None));
    }

    #[test]
    fn a_copy_hears_tells_and_outlives() {
        // A process of one thread: what a fork leaves of this one.
        let (mut told, teller) = std::io::pipe().unwrap();
        let (ear, mouth) = std::io::pipe().unwrap();
        // SAFETY: the child makes one copy of itself, ends, and takes no lock that a thread of this process could hold: glibc makes its
        // own ready in fork().
        unsafe {
            let child = libc::fork();
            if child == 0 {
                let copied = fork(ear.as_fd(), teller.as_fd(), c"copy", |teller| {
                    let mut word = [0; 4];
                    let heard = std::fs::File::from_raw_fd(0).read_exact(&mut word).is_ok();
                    // The file must not be closed twice: this process ends without dropping.
                    let mut teller = std::fs::File::from(teller);
                    i32::from(!(heard && teller.write_all(&word).is_ok()))
                });
                libc::_exit(i32::from(!matches!(copied, Ok(Some(_)))));
            }
            let mut status = 0;
            assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
            assert_eq!(status, 0, "the first process could make no copy");
        }
        drop((ear, teller));
        // Its maker is dead, and it still does what it is for.
        std::fs::File::from(OwnedFd::from(mouth)).write_all(b"word").unwrap();
        let mut word = String::new();
        told.read_to_string(&mut word).unwrap();
        assert_eq!(word, "word");
    }
}
