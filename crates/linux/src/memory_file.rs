//! Files that live in memory only: memfd_create(2) with its seals, and the nameless ones behind MAP_SHARED|MAP_ANONYMOUS.
#![allow(unsafe_code)]

use crate::errno::{Errno, Result, check, check_int};
use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const MFD_CLOEXEC: u32 = 1;
const MFD_ALLOW_SEALING: u32 = 2;
const MFD_HUGETLB: u32 = 4;
/// Linux 6.3; without it newer kernels warn, or refuse by vm.memfd_noexec.
const MFD_EXEC: u32 = 0x10;
const MFD_HUGE_SHIFT: u32 = 26;
const F_ADD_SEALS: i32 = 1033;
const F_GET_SEALS: i32 = 1034;

/// Creates an empty memory file that can be sealed and executed; `huge` is the size of its pages in bytes, if not the
/// base size.
///
/// # Errors
/// EACCES: vm.memfd_noexec forbids executable ones; EINVAL: a name too long; ENOENT or ENODEV: no such huge pages.
pub fn create(name: &[u8], huge: Option<u64>) -> Result<OwnedFd> {
    let name = CString::new(name).map_err(|_| Errno { number: libc::EINVAL, call: "memfd_create" })?;
    let mut flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
    if let Some(bytes) = huge {
        flags |= MFD_HUGETLB | bytes.trailing_zeros() << MFD_HUGE_SHIFT;
    }
    // SAFETY: a NUL-terminated name.
    let call = |flags| check_int("memfd_create", unsafe { libc::memfd_create(name.as_ptr(), flags) });
    let raw = match call(flags | MFD_EXEC) {
        Err(error) if error.number == libc::EINVAL => call(flags)?,
        other => other?,
    };
    // SAFETY: fresh descriptor, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Creates the file behind a shared anonymous mapping: of exactly `bytes` (a multiple of the page size), zero, shown as
/// `/dev/zero (deleted)`. Needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN (/proc/self/map_files). With `huge` it is one of
/// huge pages of that size in bytes, shown as `/anon_hugepage (deleted)`.
///
/// # Errors
/// ENOMEM: over the commit limit; EPERM: no such capability; ENOENT: no /proc.
pub fn create_anonymous(bytes: u64, huge: Option<u64>) -> Result<OwnedFd> {
    let length = usize::try_from(bytes).map_err(|_| Errno { number: libc::ENOMEM, call: "mmap" })?;
    let mut flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    if let Some(bytes) = huge {
        // Whoever maps it reserves its pages; this one would reserve them twice.
        flags |= libc::MAP_HUGETLB | libc::MAP_NORESERVE | (bytes.trailing_zeros() << MFD_HUGE_SHIFT) as i32;
    }
    // SAFETY: a fresh mapping at an address of the kernel's choice; nothing is dereferenced.
    let map = |flags| unsafe {
        let address = libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
        if address == libc::MAP_FAILED { Err(Errno::last("mmap")) } else { Ok(address) }
    };
    // A sparse one may have been made without reservation: the limit is then not ours to enforce.
    let address = map(flags).or_else(|_| map(flags | libc::MAP_NORESERVE))?;
    let (start, end) = (address as u64, address as u64 + bytes);
    let file = crate::file::open(format!("/proc/self/map_files/{start:x}-{end:x}").as_bytes(), libc::O_RDWR as u32);
    // SAFETY: exactly the mapping made above.
    check_int("munmap", unsafe { libc::munmap(address, length) })?;
    file
}

/// The seals (F_SEAL_*), or `None` for a file that cannot have any.
///
/// # Errors
/// None for an open descriptor.
pub fn seals(file: BorrowedFd<'_>) -> Result<Option<u32>> {
    // SAFETY: no pointers.
    match check_int("fcntl(F_GET_SEALS)", unsafe { libc::fcntl(file.as_raw_fd(), F_GET_SEALS) }) {
        Ok(seals) => Ok(Some(seals as u32)),
        Err(error) if error.number == libc::EINVAL => Ok(None),
        Err(error) => Err(error),
    }
}

/// Adds seals; they cannot be taken away again.
///
/// # Errors
/// EPERM: sealed against it, or not open for writing; EBUSY: F_SEAL_WRITE with a writable shared mapping.
pub fn seal(file: BorrowedFd<'_>, seals: u32) -> Result<()> {
    // SAFETY: no pointers.
    check_int("fcntl(F_ADD_SEALS)", unsafe { libc::fcntl(file.as_raw_fd(), F_ADD_SEALS, seals) }).map(drop)
}

/// Sets the length in bytes.
///
/// # Errors
/// EPERM: sealed; EFBIG; EINVAL: not open for writing.
pub fn set_length(file: BorrowedFd<'_>, bytes: u64) -> Result<()> {
    let bytes = i64::try_from(bytes).map_err(|_| Errno { number: libc::EFBIG, call: "ftruncate" })?;
    // SAFETY: no pointers.
    check("ftruncate", i64::from(unsafe { libc::ftruncate(file.as_raw_fd(), bytes) })).map(drop)
}

/// Gives back the memory of a part of the file, which is zero from then on.
///
/// # Errors
/// EPERM: sealed; EINVAL: no such part.
pub fn punch(file: BorrowedFd<'_>, offset: u64, bytes: u64) -> Result<()> {
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: no pointers.
    let result = unsafe { libc::fallocate(file.as_raw_fd(), mode, offset.cast_signed(), bytes.cast_signed()) };
    check_int("fallocate", result).map(drop)
}

/// Writes into a file of huge pages, which write(2) cannot; `page_bytes` is their size, a power of two.
///
/// # Errors
/// ENOMEM: the pool has no page left; EFAULT: it lost them meanwhile.
pub fn write_mapped(file: BorrowedFd<'_>, page_bytes: u64, offset: u64, bytes: &[u8]) -> Result<()> {
    let begin = offset & !(page_bytes - 1);
    let end = (offset + bytes.len() as u64).next_multiple_of(page_bytes);
    let length = usize::try_from(end - begin).map_err(|_| Errno { number: libc::ENOMEM, call: "mmap" })?;
    let (protection, number) = (libc::PROT_READ | libc::PROT_WRITE, file.as_raw_fd());
    // SAFETY: a fresh mapping at an address of the kernel's choice; it is written by the kernel alone, which gives an error
    // where a page cannot be had and not a signal.
    let address =
        unsafe { libc::mmap(std::ptr::null_mut(), length, protection, libc::MAP_SHARED, number, begin.cast_signed()) };
    if address == libc::MAP_FAILED {
        return Err(Errno::last("mmap"));
    }
    let target = address as u64 + (offset - begin);
    let written = crate::memory::scatter(std::process::id().cast_signed(), &[(target, bytes)]);
    // SAFETY: exactly the mapping made above.
    check_int("munmap", unsafe { libc::munmap(address, length) })?;
    if written? == bytes.len() { Ok(()) } else { Err(Errno { number: libc::EFAULT, call: "process_vm_writev" }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    fn name(file: &OwnedFd) -> String {
        std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap().to_string_lossy().into_owned()
    }

    #[test]
    fn seals_stay_and_stop_writing() {
        let file = create(b"a name", None).unwrap();
        assert_eq!(name(&file), "/memfd:a name (deleted)");
        assert_eq!(seals(file.as_fd()).unwrap(), Some(0));
        set_length(file.as_fd(), 5000).unwrap();
        seal(file.as_fd(), 2 | 4 | 8).unwrap();
        assert_eq!(seals(file.as_fd()).unwrap(), Some(14));
        assert_eq!(set_length(file.as_fd(), 6000).unwrap_err().number, libc::EPERM);
    }

    #[test]
    fn the_file_behind_a_shared_anonymous_mapping_can_be_had() {
        // Needs root; says so where it is not.
        match create_anonymous(5 * 4096, None) {
            Ok(file) => {
                assert_eq!(name(&file), "/dev/zero (deleted)");
                assert_eq!(std::fs::File::from(file).metadata().unwrap().len(), 5 * 4096);
            }
            Err(error) => assert_eq!(error.number, libc::EPERM),
        }
    }
}
