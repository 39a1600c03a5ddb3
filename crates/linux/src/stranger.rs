//! A child with nothing to hide: of a given user and group, without capabilities, readable by whoever is the same user.
//! A process that may not even look at it is confined by a security module.
#![allow(unsafe_code)]

use crate::clone;
use crate::errno::{Errno, Result, check};
use crate::signal;
use std::io::Read;
use std::os::fd::AsRawFd;

/// The child; it ends when this is dropped, or with this process.
#[derive(Debug)]
pub struct Stranger {
    pid: i32,
}

/// struct __user_cap_header_struct of version 3, and two empty struct __user_cap_data_struct.
const CAPABILITY_HEADER: [u32; 2] = [0x2008_0522, 0];
const NO_CAPABILITIES: [u32; 6] = [0; 6];

impl Stranger {
    /// Makes the child.
    ///
    /// # Errors
    /// EPERM: this process may not become that user; EAGAIN: too many processes.
    pub fn new(user: u32, group: u32) -> Result<Stranger> {
        let call = "clone3";
        let (mut ear, mouth) = std::io::pipe().map_err(|_| Errno::last("pipe2"))?;
        let arguments = clone::Arguments::default();
        // SAFETY: fork semantics without CLONE_VM; the child makes only raw system calls on constants, and never returns.
        let pid = unsafe {
            let pid = check(call, libc::syscall(libc::SYS_clone3, &raw const arguments, clone::ARGUMENTS_BYTES))?;
            if pid == 0 {
                become_stranger(user, group, mouth.as_raw_fd());
            }
            pid as i32
        };
        let stranger = Stranger { pid };
        drop(mouth);
        let mut word = [0];
        match ear.read(&mut word) {
            Ok(1) => Ok(stranger),
            _ => Err(Errno { number: libc::EPERM, call: "setresuid" }),
        }
    }

    /// Its number.
    pub fn pid(&self) -> i32 {
        self.pid
    }
}

/// # Safety
/// To be called in a forked child only: it ends the process.
unsafe fn become_stranger(user: u32, group: u32, mouth: i32) -> ! {
    // SAFETY: constants, integers and a one-byte string; raw calls concern this child alone.
    unsafe {
        libc::syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
        let same_group = libc::syscall(libc::SYS_getgid) as u32 == group;
        let same_user = libc::syscall(libc::SYS_getuid) as u32 == user;
        let done = (same_group || libc::syscall(libc::SYS_setresgid, group, group, group) == 0)
            && (same_user || libc::syscall(libc::SYS_setresuid, user, user, user) == 0)
            && libc::syscall(libc::SYS_capset, CAPABILITY_HEADER.as_ptr(), NO_CAPABILITIES.as_ptr()) == 0
            // The change of user has made it unreadable.
            && libc::syscall(libc::SYS_prctl, libc::PR_SET_DUMPABLE, 1, 0, 0, 0) == 0
            && libc::syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) == 0;
        if done && libc::syscall(libc::SYS_write, mouth, c"1".as_ptr(), 1) == 1 {
            loop {
                libc::syscall(libc::SYS_pause);
            }
        }
        loop {
            libc::syscall(libc::SYS_exit_group, 1);
        }
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        // It is our child and not reaped, so the number is still its own.
        let _ = signal::send_to_process(self.pid, libc::SIGKILL);
        let mut status = 0;
        // SAFETY: status is live; the number is a child of ours that nobody else waits for by number.
        while unsafe { libc::waitpid(self.pid, &raw mut status, libc::__WALL) } == -1
            && Errno::last("waitpid").number == libc::EINTR
        {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::status;

    #[test]
    fn a_stranger_is_who_it_was_asked_to_be_and_ends() {
        let own = std::process::id() as i32;
        let is_root = status::read(own, own).unwrap().uid[1] == 0;
        let user = if is_root { 1000 } else { status::read(own, own).unwrap().uid[0] };
        let group = if is_root { 1000 } else { status::read(own, own).unwrap().gid[0] };
        let stranger = Stranger::new(user, group).unwrap();
        let pid = stranger.pid();
        let seen = status::read(pid, pid).unwrap();
        assert_eq!((seen.uid, seen.gid, seen.capabilities_permitted), ([user; 4], [group; 4], 0));
        drop(stranger);
        assert!(status::read(pid, pid).is_err());
        if is_root {
            assert_eq!(crate::scheduling::robust_list(Stranger::new(1000, 1000).unwrap().pid()).unwrap().1, 24);
        }
    }
}
