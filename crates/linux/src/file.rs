//! Opening, duplicating and describing files by raw flags: open(2), fcntl(2), dup3(2), lseek(2).
#![allow(unsafe_code)]

use crate::errno::{Errno, Result, check, check_int};
use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

fn path(bytes: &[u8]) -> Result<CString> {
    CString::new(bytes).map_err(|_| Errno { number: libc::EINVAL, call: "open" })
}

/// Opens a path with exactly these flags (mode 0 for new files is never used: no O_CREAT here).
///
/// # Errors
/// As open(2); EINVAL for a path with a NUL or for O_CREAT.
pub fn open(name: &[u8], flags: u32) -> Result<OwnedFd> {
    let name = path(name)?;
    if flags & libc::O_CREAT as u32 != 0 {
        return Err(Errno { number: libc::EINVAL, call: "open" });
    }
    // SAFETY: a NUL-terminated path.
    let raw = check_int("open", unsafe { libc::open(name.as_ptr(), flags as i32) })?;
    // SAFETY: fresh descriptor, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Makes a file without a name in a directory; `flags` hold O_TMPFILE and an access mode that can write.
///
/// # Errors
/// EOPNOTSUPP: the file system has none; EISDIR: a kernel without O_TMPFILE.
pub fn create_temporary(directory: &[u8], flags: u32, mode: u32) -> Result<OwnedFd> {
    let directory = path(directory)?;
    if flags & libc::O_TMPFILE as u32 != libc::O_TMPFILE as u32 {
        return Err(Errno { number: libc::EINVAL, call: "open(O_TMPFILE)" });
    }
    let flags = (flags | libc::O_CLOEXEC as u32) as i32;
    // SAFETY: a NUL-terminated path.
    let raw = check_int("open(O_TMPFILE)", unsafe { libc::open(directory.as_ptr(), flags, mode) })?;
    // SAFETY: fresh descriptor, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// F_GETFL: access mode and status flags.
///
/// # Errors
/// None for an open descriptor.
pub fn status_flags(file: BorrowedFd<'_>) -> Result<u32> {
    // SAFETY: no pointers.
    check_int("fcntl(F_GETFL)", unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) }).map(|flags| flags as u32)
}

/// F_SETFL: O_APPEND, O_ASYNC, O_DIRECT, O_NOATIME, O_NONBLOCK.
///
/// # Errors
/// EPERM: clearing O_APPEND of an append-only file; EINVAL: O_DIRECT not supported.
pub fn set_status_flags(file: BorrowedFd<'_>, flags: u32) -> Result<()> {
    // SAFETY: no pointers.
    check_int("fcntl(F_SETFL)", unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags as i32) }).map(drop)
}

/// A device number as st_dev shows it.
pub fn device(major: u32, minor: u32) -> u64 {
    libc::makedev(major, minor)
}

/// Makes reads and writes return EAGAIN instead of waiting (O_NONBLOCK of the open description).
///
/// # Errors
/// None for an open descriptor.
pub fn do_not_wait(file: BorrowedFd<'_>) -> Result<()> {
    set_status_flags(file, status_flags(file)? | libc::O_NONBLOCK as u32)
}

/// Makes reads and writes of an open description wait again (takes O_NONBLOCK away), for whoever has it.
///
/// # Errors
/// As fcntl(2).
pub fn do_wait(file: BorrowedFd<'_>) -> Result<()> {
    set_status_flags(file, status_flags(file)? & !(libc::O_NONBLOCK as u32))
}

/// Sets the position.
///
/// # Errors
/// ESPIPE: not seekable.
pub fn seek(file: BorrowedFd<'_>, position: u64) -> Result<()> {
    // SAFETY: no pointers.
    check("lseek", unsafe { libc::lseek(file.as_raw_fd(), position as i64, libc::SEEK_SET) }).map(drop)
}

/// The next data (`SEEK_DATA`) at or after a position, and the hole after it: one allocated extent, in bytes. `None`
/// behind the last.
///
/// # Errors
/// As lseek(2). Moves the position of the description.
pub fn extent(file: BorrowedFd<'_>, position: u64) -> Result<Option<(u64, u64)>> {
    // SAFETY: no pointers.
    let start = match check("lseek", unsafe { libc::lseek(file.as_raw_fd(), position as i64, libc::SEEK_DATA) }) {
        Ok(start) => start,
        Err(error) if error.number == libc::ENXIO => return Ok(None),
        Err(error) => return Err(error),
    };
    // SAFETY: no pointers.
    let end = check("lseek", unsafe { libc::lseek(file.as_raw_fd(), start as i64, libc::SEEK_HOLE) })?;
    Ok(Some((start, end)))
}

/// Sets access and modification time (seconds, nanoseconds).
///
/// # Errors
/// EPERM: not the owner.
pub fn set_times(file: BorrowedFd<'_>, times: [(i64, i64); 2]) -> Result<()> {
    let times = times.map(|(seconds, nanoseconds)| libc::timespec { tv_sec: seconds, tv_nsec: nanoseconds });
    // SAFETY: an array of two live timespecs.
    check_int("futimens", unsafe { libc::futimens(file.as_raw_fd(), times.as_ptr()) }).map(drop)
}

/// Duplicates onto the lowest free number at or above `minimum`, close-on-exec.
///
/// # Errors
/// EMFILE.
pub fn duplicate_above(file: BorrowedFd<'_>, minimum: i32) -> Result<OwnedFd> {
    // SAFETY: no pointers.
    let raw = check_int("fcntl(F_DUPFD)", unsafe { libc::fcntl(file.as_raw_fd(), libc::F_DUPFD_CLOEXEC, minimum) })?;
    // SAFETY: fresh descriptor, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Begins to write to storage what was written into a file, without waiting for it. Nothing is promised by that.
///
/// # Errors
/// EIO, ENOSPC; ESPIPE: not a file on storage.
pub fn begin_to_store(file: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: no pointers.
    check_int("sync_file_range", unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) })
        .map(drop)
}

/// Owner of SIGIO and the like: (F_GETSIG signal, F_GETOWN_EX type, id); type 0 thread, 1 process, 2 group.
///
/// # Errors
/// None for an open descriptor.
pub fn owner(file: BorrowedFd<'_>) -> Result<(i32, i32, i32)> {
    let mut owner = [0_i32; 2];
    // SAFETY: F_GETOWN_EX (16) writes two ints into the live array.
    unsafe {
        check_int("fcntl(F_GETOWN_EX)", libc::fcntl(file.as_raw_fd(), 16, owner.as_mut_ptr()))?;
        let signal = check_int("fcntl(F_GETSIG)", libc::fcntl(file.as_raw_fd(), 11))?;
        Ok((signal, owner[0], owner[1]))
    }
}

/// Real and effective user that set the owner (F_GETOWNER_UIDS); 0, 0 where the kernel does not tell.
///
/// # Errors
/// None for an open descriptor.
pub fn owner_users(file: BorrowedFd<'_>) -> Result<(u32, u32)> {
    let mut users = [0_u32; 2];
    // SAFETY: F_GETOWNER_UIDS (17) writes two ints into the live array.
    match check_int("fcntl(F_GETOWNER_UIDS)", unsafe { libc::fcntl(file.as_raw_fd(), 17, users.as_mut_ptr()) }) {
        // EINVAL: a kernel without CONFIG_CHECKPOINT_RESTORE.
        Err(error) if error.number != libc::EINVAL => Err(error),
        _ => Ok((users[0], users[1])),
    }
}

/// Sets what [`owner`] reads.
///
/// # Errors
/// ESRCH: no such process.
pub fn set_owner(file: BorrowedFd<'_>, signal: i32, kind: i32, id: i32) -> Result<()> {
    let owner = [kind, id];
    // SAFETY: F_SETOWN_EX (15) reads two ints from the live array.
    unsafe {
        check_int("fcntl(F_SETOWN_EX)", libc::fcntl(file.as_raw_fd(), 15, owner.as_ptr()))?;
        check_int("fcntl(F_SETSIG)", libc::fcntl(file.as_raw_fd(), 10, signal)).map(drop)
    }
}
