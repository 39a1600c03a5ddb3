//! Mounts: fresh filesystems, binds and propagation in the caller's own mount namespace.
//!
//! # References
//! `mount(2)`, `umount2(2)`, `mount_namespaces(7)`.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What a mount forbids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restriction {
    /// No set-user-ID, no devices, no programs: right for `/proc` and `/dev/mqueue`.
    DataOnly,
    /// No set-user-ID and no devices: right for `/tmp`.
    NoPrivilege,
    /// No set-user-ID, no programs: right for `/dev/pts`.
    DevicesOnly,
}

impl Restriction {
    fn flags(self) -> libc::c_ulong {
        match self {
            Self::DataOnly => libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC,
            Self::NoPrivilege => libc::MS_NOSUID | libc::MS_NODEV,
            Self::DevicesOnly => libc::MS_NOSUID | libc::MS_NOEXEC,
        }
    }
}

/// Mounts a new filesystem of a kind (`proc`, `tmpfs`, `mqueue`, `devpts`) over a directory.
/// `options` are those of the filesystem, as after `-o`, and may be empty.
///
/// # Errors
/// As `mount(2)`.
pub fn mount_new(filesystem: &str, target: &Path, restriction: Restriction, options: &str) -> io::Result<()> {
    call(Path::new(filesystem), target, filesystem, restriction.flags(), options)
}

/// Shows the tree of mounts at `source` also at `target`.
///
/// # Errors
/// As `mount(2)`.
pub fn bind(source: &Path, target: &Path) -> io::Result<()> {
    call(source, target, "", libc::MS_BIND | libc::MS_REC, "")
}

/// Ends the exchange of mounts between this namespace and others, for the whole tree at `target`.
///
/// # Errors
/// As `mount(2)`.
pub fn make_private(target: &Path) -> io::Result<()> {
    call(Path::new("none"), target, "", libc::MS_PRIVATE | libc::MS_REC, "")
}

/// Takes a mount out of the tree at once; it goes when its last user does.
///
/// # Errors
/// As `umount2(2)`.
pub fn detach(target: &Path) -> io::Result<()> {
    let target = text(target.as_os_str().as_bytes())?;
    // SAFETY: the path is a terminated string that outlives the call.
    match unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn call(source: &Path, target: &Path, filesystem: &str, flags: libc::c_ulong, options: &str) -> io::Result<()> {
    let source = text(source.as_os_str().as_bytes())?;
    let target = text(target.as_os_str().as_bytes())?;
    let filesystem = text(filesystem.as_bytes())?;
    let options = text(options.as_bytes())?;
    // SAFETY: all four are terminated strings that outlive the call; the kernel only reads them.
    let result =
        unsafe { libc::mount(source.as_ptr(), target.as_ptr(), filesystem.as_ptr(), flags, options.as_ptr().cast()) };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn text(bytes: &[u8]) -> io::Result<CString> {
    CString::new(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a path holds a zero byte"))
}
