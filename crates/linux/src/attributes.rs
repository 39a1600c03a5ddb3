//! Extended attributes of open files: flistxattr(2), fgetxattr(2), fsetxattr(2).
#![allow(unsafe_code)]

use crate::errno::{Errno, Result, check};
use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Longest list of names, and longest value, that the kernel knows: 64 KiB.
const BYTES_MAX: usize = 64 << 10;

fn text(name: &[u8]) -> Result<CString> {
    CString::new(name).map_err(|_| Errno { number: libc::EINVAL, call: "setxattr" })
}

/// Names of all attributes that we may see. None on file systems without any.
///
/// # Errors
/// EBADF: an O_PATH descriptor.
pub fn list(file: BorrowedFd<'_>) -> Result<Vec<Vec<u8>>> {
    let mut names = vec![0_u8; BYTES_MAX];
    // SAFETY: a live buffer with its length.
    let length =
        check("flistxattr", unsafe { libc::flistxattr(file.as_raw_fd(), names.as_mut_ptr().cast(), names.len()) }
            as i64);
    match length {
        Ok(length) => {
            names.truncate(length as usize);
            Ok(names.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect())
        }
        Err(error) if error.number == libc::EOPNOTSUPP => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// The value of an attribute, `None` when it has none of this name.
///
/// # Errors
/// EPERM, EACCES: not ours to read.
pub fn get(file: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Vec<u8>>> {
    let name = text(name)?;
    let mut value = vec![0_u8; BYTES_MAX];
    // SAFETY: a NUL-terminated name and a live buffer with its length.
    let length = check("fgetxattr", unsafe {
        libc::fgetxattr(file.as_raw_fd(), name.as_ptr(), value.as_mut_ptr().cast(), value.len())
    } as i64);
    match length {
        Ok(length) => {
            value.truncate(length as usize);
            Ok(Some(value))
        }
        Err(error) if matches!(error.number, libc::ENODATA | libc::EOPNOTSUPP) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Sets an attribute, new or not.
///
/// # Errors
/// EOPNOTSUPP: the file system has none of this class; EPERM; ENOSPC.
pub fn set(file: BorrowedFd<'_>, name: &[u8], value: &[u8]) -> Result<()> {
    let name = text(name)?;
    // SAFETY: a NUL-terminated name and a live value with its length.
    check("fsetxattr", unsafe {
        i64::from(libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0))
    })
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn memory_files_have_attributes_or_say_so() {
        let file = crate::memory_file::create(b"", None).unwrap();
        assert_eq!(get(file.as_fd(), b"trusted.a").unwrap(), None);
        match set(file.as_fd(), b"trusted.a", b"value") {
            Ok(()) => {
                assert_eq!(get(file.as_fd(), b"trusted.a").unwrap().unwrap(), b"value");
                assert!(list(file.as_fd()).unwrap().contains(&b"trusted.a".to_vec()));
            }
            Err(error) => assert!(matches!(error.number, libc::EPERM | libc::EOPNOTSUPP)),
        }
    }
}
