//! userfaultfd(2) for filling: pages are placed into another address space whole, without faults and without zeroing them
//! first.
//!
//! # References
//! <https://man7.org/linux/man-pages/man2/ioctl_userfaultfd.2.html>
#![allow(unsafe_code)]

use crate::errno::{Errno, Result, check_int};
use std::os::fd::{AsRawFd, OwnedFd};

/// userfaultfd(2) flags of a descriptor for filling: O_CLOEXEC, O_NONBLOCK, UFFD_USER_MODE_ONLY. The last needs no
/// privilege, and makes a stray access by the kernel fail instead of waiting for us.
pub const FLAGS: u64 = 0o2_004_001;
/// System call number.
pub const SYS_USERFAULTFD: i64 = 323;
const UFFD_API: u64 = 0xaa;
const UFFDIO_API: libc::Ioctl = 0xc018_aa3f;
const UFFDIO_REGISTER: libc::Ioctl = 0xc020_aa00;
const UFFDIO_COPY: libc::Ioctl = 0xc028_aa03;
const MODE_MISSING: u64 = 1;
const COPY_MODE_DONTWAKE: u64 = 1;
/// Bit of [`Register::ioctls`].
const HAS_COPY: u64 = 1 << 3;

#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct Register {
    start: u64,
    length: u64,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct Copy {
    destination: u64,
    source: u64,
    length: u64,
    mode: u64,
    copied: i64,
}
const _: () = assert!(size_of::<Api>() == 24 && size_of::<Register>() == 32 && size_of::<Copy>() == 40);

/// A userfaultfd of another address space. Closing it takes all registrations away.
#[derive(Debug)]
pub struct UserFault {
    descriptor: OwnedFd,
}

impl UserFault {
    /// Begins on a fresh descriptor that the other process made with [`FLAGS`].
    ///
    /// # Errors
    /// EINVAL: begun already, or another interface.
    pub fn begin(descriptor: OwnedFd) -> Result<UserFault> {
        let mut api = Api { api: UFFD_API, features: 0, ioctls: 0 };
        // SAFETY: a live struct of the size that the number tells.
        check_int("ioctl(UFFDIO_API)", unsafe { libc::ioctl(descriptor.as_raw_fd(), UFFDIO_API, &raw mut api) })?;
        Ok(UserFault { descriptor })
    }

    /// Registers a range whose missing pages are to be placed.
    ///
    /// # Errors
    /// EINVAL: not anonymous memory; EBUSY: registered by somebody else; EOPNOTSUPP: cannot be copied into.
    pub fn register(&self, start: u64, length: u64) -> Result<()> {
        const CALL: &str = "ioctl(UFFDIO_REGISTER)";
        let mut register = Register { start, length, mode: MODE_MISSING, ioctls: 0 };
        // SAFETY: a live struct of the size that the number tells.
        check_int(CALL, unsafe { libc::ioctl(self.descriptor.as_raw_fd(), UFFDIO_REGISTER, &raw mut register) })?;
        if register.ioctls & HAS_COPY == 0 {
            return Err(Errno { number: libc::EOPNOTSUPP, call: CALL });
        }
        Ok(())
    }

    /// Places pages at `address`. Returns the bytes placed, which are fewer than asked where a page exists already.
    ///
    /// # Errors
    /// EEXIST: the first page exists; ESRCH: dead; ENOENT: not registered.
    pub fn copy(&self, address: u64, bytes: &[u8]) -> Result<usize> {
        const CALL: &str = "ioctl(UFFDIO_COPY)";
        let mut copy = Copy {
            destination: address,
            source: bytes.as_ptr() as u64,
            length: bytes.len() as u64,
            mode: COPY_MODE_DONTWAKE,
            copied: 0,
        };
        // SAFETY: the source is a live buffer of that length that is only read; the destination is checked by the kernel.
        let result = check_int(CALL, unsafe { libc::ioctl(self.descriptor.as_raw_fd(), UFFDIO_COPY, &raw mut copy) });
        match result {
            Ok(_) => Ok(copy.copied.max(0) as usize),
            // Part of it is placed, and then something stood in the way: the next call says what.
            Err(error) if error.number == libc::EAGAIN && copy.copied > 0 => Ok(copy.copied as usize),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::FromRawFd;

    #[test]
    fn pages_are_placed_once() {
        // SAFETY: a fresh descriptor, and a fresh mapping of three pages that nothing else refers to.
        let (fault, address) = unsafe {
            let raw = libc::syscall(SYS_USERFAULTFD, FLAGS);
            if raw == -1 {
                return;
            }
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let map = libc::mmap(std::ptr::null_mut(), 3 * 4096, protection, flags, -1, 0);
            assert_ne!(map, libc::MAP_FAILED);
            (UserFault::begin(OwnedFd::from_raw_fd(raw as i32)).unwrap(), map as u64)
        };
        fault.register(address, 3 * 4096).unwrap();
        let bytes: Vec<u8> = (0..2 * 4096).map(|index| (index % 251) as u8).collect();
        assert_eq!(fault.copy(address + 4096, &bytes).unwrap(), 2 * 4096);
        assert_eq!(fault.copy(address + 4096, &bytes).unwrap_err().number, libc::EEXIST);
        // The first page is placed, the second exists.
        assert_eq!(fault.copy(address, &bytes).unwrap(), 4096);
        drop(fault);
        // SAFETY: the three pages exist, are readable and no longer registered.
        let placed = unsafe { std::slice::from_raw_parts(address as *const u8, 3 * 4096) };
        assert_eq!(&placed[4096..], bytes);
        assert_eq!(&placed[..4096], &bytes[..4096]);
    }
}
