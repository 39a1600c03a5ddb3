//! Watches on files and directories with the numbers that they had: inotify(7), INOTIFY_IOC_SETNEXTWD.
#![allow(unsafe_code)]

use crate::errno::{Errno, Result, check_int};
use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// _IOW('I', 0, s32), include/uapi/linux/inotify.h. Only with CONFIG_CHECKPOINT_RESTORE.
const INOTIFY_IOC_SETNEXTWD: libc::c_ulong = 0x4004_4900;

/// An instance without watches, close-on-exec.
///
/// # Errors
/// EMFILE: also for fs.inotify.max_user_instances.
pub fn create() -> Result<OwnedFd> {
    // SAFETY: no pointers.
    let raw = check_int("inotify_init1", unsafe { libc::inotify_init1(libc::IN_CLOEXEC) })?;
    // SAFETY: fresh descriptor, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Watches a path (a symbolic link itself, if it is one) under exactly this number.
///
/// # Errors
/// As inotify_add_watch(2); EEXIST: the number is taken, or the file is watched already; ENOTTY: a kernel without
/// CONFIG_CHECKPOINT_RESTORE.
pub fn watch(instance: BorrowedFd<'_>, number: i32, path: &[u8], mask: u32) -> Result<()> {
    let path = CString::new(path).map_err(|_| Errno { number: libc::EINVAL, call: "inotify_add_watch" })?;
    // SAFETY: the argument is a number.
    check_int("ioctl(INOTIFY_IOC_SETNEXTWD)", unsafe {
        libc::ioctl(instance.as_raw_fd(), INOTIFY_IOC_SETNEXTWD, i64::from(number))
    })?;
    // SAFETY: a NUL-terminated path.
    let got = check_int("inotify_add_watch", unsafe {
        libc::inotify_add_watch(instance.as_raw_fd(), path.as_ptr(), mask | libc::IN_DONT_FOLLOW)
    })?;
    if got == number { Ok(()) } else { Err(Errno { number: libc::EEXIST, call: "inotify_add_watch" }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proc::fdinfo;
    use std::os::fd::AsFd;

    #[test]
    fn watches_get_their_numbers_back() {
        let instance = create().unwrap();
        watch(instance.as_fd(), 7, b"/", libc::IN_CREATE).unwrap();
        watch(instance.as_fd(), 3, b"/proc", libc::IN_OPEN | libc::IN_ONESHOT).unwrap();
        assert_eq!(watch(instance.as_fd(), 9, b"/", 1).unwrap_err().number, libc::EEXIST);
        let info = fdinfo::read(std::process::id() as i32, instance.as_raw_fd()).unwrap();
        let mut numbers: Vec<(i32, u32)> = info.inotify.iter().map(|watch| (watch.descriptor, watch.mask)).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, [(3, libc::IN_OPEN | libc::IN_ONESHOT), (7, 1)]);
    }
}
