//! Which file system a file is on: fstatfs(2).
#![allow(unsafe_code)]

use crate::errno::{Result, check_int};
use std::os::fd::{AsRawFd, BorrowedFd};

/// procfs.
pub const PROC: u64 = 0x9fa0;
/// sysfs.
pub const SYSFS: u64 = 0x6265_6572;
/// tmpfs and devtmpfs.
pub const TMPFS: u64 = 0x0102_1994;
/// ramfs.
pub const RAMFS: u64 = 0x8584_58f6;
/// hugetlbfs.
pub const HUGETLBFS: u64 = 0x9584_58f6;
/// POSIX message queues.
pub const MQUEUE: u64 = 0x1980_0202;
/// Control groups, version 1 and 2.
pub const CONTROL_GROUPS: [u64; 2] = [0x27_e0eb, 0x6367_7270];

/// Type of the file system (f_type) that holds an open file.
///
/// # Errors
/// None for an open descriptor on a file system that answers.
pub fn kind(file: BorrowedFd<'_>) -> Result<u64> {
    statistics(file).map(|statistics| statistics.f_type as u64)
}

/// Block size (f_bsize) in bytes; on hugetlbfs the size of its pages.
///
/// # Errors
/// As [`kind`].
pub fn block_bytes(file: BorrowedFd<'_>) -> Result<u64> {
    statistics(file).map(|statistics| statistics.f_bsize as u64)
}

fn statistics(file: BorrowedFd<'_>) -> Result<libc::statfs> {
    // SAFETY: a zeroed statfs is a valid value; the kernel fills it.
    unsafe {
        let mut statistics: libc::statfs = std::mem::zeroed();
        check_int("fstatfs", libc::fstatfs(file.as_raw_fd(), &raw mut statistics))?;
        Ok(statistics)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn proc_is_told_from_memory_files() {
        let proc = std::fs::File::open("/proc/self/status").unwrap();
        assert_eq!(kind(proc.as_fd()).unwrap(), PROC);
        let memory = crate::memory_file::create(b"", None).unwrap();
        assert_eq!(kind(memory.as_fd()).unwrap(), TMPFS);
        assert_eq!(block_bytes(memory.as_fd()).unwrap(), 4096);
    }
}
