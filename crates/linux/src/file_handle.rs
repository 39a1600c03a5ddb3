//! Files by the handles that /proc shows: open_by_handle_at(2).
#![allow(unsafe_code)]

use crate::errno::{Errno, Result, check_int};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// MAX_HANDLE_SZ.
const BYTES_MAX: usize = 128;

#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    handle: [u8; BYTES_MAX],
}

/// Opens (O_PATH) the file that has this handle on the file system of `mount`. Needs CAP_DAC_READ_SEARCH.
///
/// # Errors
/// ESTALE: it is gone, or has no path here; EPERM; EOPNOTSUPP: the file system has no handles.
pub fn open(mount: BorrowedFd<'_>, kind: i32, handle: &[u8]) -> Result<OwnedFd> {
    if handle.len() > BYTES_MAX {
        return Err(Errno { number: libc::EINVAL, call: "open_by_handle_at" });
    }
    let mut whole = Handle { bytes: handle.len() as u32, kind, handle: [0; BYTES_MAX] };
    whole.handle[..handle.len()].copy_from_slice(handle);
    // SAFETY: a live handle of the length that it tells.
    let raw = check_int("open_by_handle_at", unsafe {
        libc::syscall(
            libc::SYS_open_by_handle_at,
            mount.as_raw_fd(),
            &raw mut whole,
            libc::O_PATH | libc::O_CLOEXEC | libc::O_NOFOLLOW,
        ) as i32
    })?;
    // SAFETY: fresh descriptor, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_watched_directory_is_found_by_its_handle_or_the_kernel_says_why_not() {
        let directory = std::env::temp_dir().canonicalize().unwrap();
        let path = directory.to_str().unwrap().as_bytes();
        let instance = crate::inotify::create().unwrap();
        crate::inotify::watch(instance.as_fd(), 1, path, libc::IN_CREATE).unwrap();
        let info = crate::proc::fdinfo::read(std::process::id() as i32, instance.as_raw_fd()).unwrap();
        let Some(handle) = info.inotify[0].handle.clone() else { return };
        let mount = std::fs::File::open("/tmp").unwrap();
        match open(mount.as_fd(), handle.kind, &handle.bytes) {
            Ok(found) => {
                let link = std::fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd())).unwrap();
                assert_eq!(link, directory);
            }
            Err(error) => assert!([libc::EPERM, libc::ESTALE, libc::EOPNOTSUPP].contains(&error.number), "{error}"),
        }
    }
}
