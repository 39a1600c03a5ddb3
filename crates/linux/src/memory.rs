//! Another process's memory: process_vm_readv(2), process_vm_writev(2) and /proc/PID/mem, by addresses that cannot be
//! dereferenced here.
#![allow(unsafe_code)]

use crate::errno::{Errno, Result, check};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// An address in another process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ForeignAddress(pub u64);

impl ForeignAddress {
    /// The address `bytes` further on.
    #[must_use]
    pub fn offset(self, bytes: u64) -> ForeignAddress {
        ForeignAddress(self.0.wrapping_add(bytes))
    }
}

/// Reads foreign memory; `buffer` is filled from one range. Returns the bytes read, which are fewer than asked when the
/// range runs into memory that cannot be read.
///
/// # Errors
/// ESRCH: dead; EFAULT: nothing readable at the address; EPERM.
pub fn read(pid: i32, address: ForeignAddress, buffer: &mut [u8]) -> Result<usize> {
    let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let remote = libc::iovec { iov_base: address.0 as *mut libc::c_void, iov_len: buffer.len() };
    // SAFETY: local describes a live exclusive buffer; the remote address is checked by the kernel.
    check("process_vm_readv", unsafe {
        libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) as i64
    })
    .map(|count| count as usize)
}

/// Reads several foreign ranges one after another into `buffer`; returns the bytes read (fewer on a hole).
///
/// # Errors
/// As [`read`].
pub fn gather(pid: i32, ranges: &[(u64, usize)], buffer: &mut [u8]) -> Result<usize> {
    let total: usize = ranges.iter().map(|(_, length)| *length).sum();
    if total > buffer.len() || ranges.len() > libc::UIO_MAXIOV as usize {
        return Err(Errno { number: libc::EINVAL, call: "process_vm_readv" });
    }
    let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: total };
    let remote: Vec<libc::iovec> =
        ranges.iter().map(|(start, length)| libc::iovec { iov_base: *start as *mut _, iov_len: *length }).collect();
    // SAFETY: local describes a live exclusive buffer of at least `total` bytes; remote addresses are checked by the kernel.
    check("process_vm_readv", unsafe {
        libc::process_vm_readv(pid, &raw const local, 1, remote.as_ptr(), remote.len() as u64, 0) as i64
    })
    .map(|count| count as usize)
}

/// Writes several parts, each to its foreign address; returns the bytes written (fewer at a range that cannot be written:
/// read-only areas need [`ForeignMemory`]).
///
/// # Errors
/// ESRCH: dead; EFAULT: nothing writable at the first address; EPERM.
pub fn scatter(pid: i32, parts: &[(u64, &[u8])]) -> Result<usize> {
    if parts.len() > libc::UIO_MAXIOV as usize {
        return Err(Errno { number: libc::EINVAL, call: "process_vm_writev" });
    }
    let vector = |base: *mut libc::c_void, length: usize| libc::iovec { iov_base: base, iov_len: length };
    let local: Vec<libc::iovec> =
        parts.iter().map(|(_, bytes)| vector(bytes.as_ptr().cast_mut().cast(), bytes.len())).collect();
    let remote: Vec<libc::iovec> = parts.iter().map(|(start, bytes)| vector(*start as *mut _, bytes.len())).collect();
    // SAFETY: local describes live buffers that are only read; remote addresses are checked by the kernel.
    check("process_vm_writev", unsafe {
        libc::process_vm_writev(pid, local.as_ptr(), local.len() as u64, remote.as_ptr(), remote.len() as u64, 0) as i64
    })
    .map(|count| count as usize)
}

/// /proc/PID/mem: reads and writes whatever the protection of the area (needs ptrace rights).
#[derive(Debug)]
pub struct ForeignMemory {
    file: File,
}

impl ForeignMemory {
    /// Opens the memory of a process.
    ///
    /// # Errors
    /// ESRCH: dead; EACCES: no ptrace rights.
    pub fn open(pid: i32) -> Result<ForeignMemory> {
        let failed = |error| Errno::of_process_file("open /proc/PID/mem", &error);
        let file = File::options().read(true).write(true).open(format!("/proc/{pid}/mem")).map_err(failed)?;
        Ok(ForeignMemory { file })
    }

    /// Fills `buffer`.
    ///
    /// # Errors
    /// EIO: not mapped; ESRCH: dead.
    pub fn read(&self, address: ForeignAddress, buffer: &mut [u8]) -> Result<()> {
        self.file
            .read_exact_at(buffer, address.0)
            .map_err(|error| Errno { number: error.raw_os_error().unwrap_or(libc::EIO), call: "read /proc/PID/mem" })
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// EIO: not mapped; ESRCH: dead.
    pub fn write(&self, address: ForeignAddress, bytes: &[u8]) -> Result<()> {
        self.file
            .write_all_at(bytes, address.0)
            .map_err(|error| Errno { number: error.raw_os_error().unwrap_or(libc::EIO), call: "write /proc/PID/mem" })
    }
}
