//! Terminals and pseudo-terminals: ioctl_tty(2), pty(7).
#![allow(unsafe_code)]

use crate::errno::{Result, check_int};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const TCGETS2: libc::c_ulong = 0x802c_542a;
const TCSETS2: libc::c_ulong = 0x402c_542b;
const TIOCGPGRP: libc::c_ulong = 0x540f;
const TIOCGWINSZ: libc::c_ulong = 0x5413;
const TIOCSWINSZ: libc::c_ulong = 0x5414;
const FIONREAD: libc::c_ulong = 0x541b;
const TIOCPKT: libc::c_ulong = 0x5420;
const TIOCGSID: libc::c_ulong = 0x5429;
const TIOCGPTN: libc::c_ulong = 0x8004_5430;
const TIOCSPTLCK: libc::c_ulong = 0x4004_5431;
const TIOCGPKT: libc::c_ulong = 0x8004_5438;
const TIOCGPTLCK: libc::c_ulong = 0x8004_5439;
const TIOCGEXCL: libc::c_ulong = 0x8004_5440;
const TIOCGPTPEER: libc::c_ulong = 0x5441;
/// Bytes of struct termios2.
pub const ATTRIBUTES_BYTES: usize = 44;
/// Bytes of struct winsize.
pub const SIZE_BYTES: usize = 8;

fn number(file: BorrowedFd<'_>, name: &'static str, request: libc::c_ulong) -> Result<i32> {
    let mut value: libc::c_int = 0;
    // SAFETY: every request that is passed here writes one int into the live variable.
    check_int(name, unsafe { libc::ioctl(file.as_raw_fd(), request, &raw mut value) })?;
    Ok(value)
}

fn set_number(file: BorrowedFd<'_>, name: &'static str, request: libc::c_ulong, value: i32) -> Result<()> {
    // SAFETY: every request that is passed here reads one int from the live variable.
    check_int(name, unsafe { libc::ioctl(file.as_raw_fd(), request, &raw const value) }).map(drop)
}

/// struct termios2 as raw bytes; of a master: that of its slave.
///
/// # Errors
/// ENOTTY.
pub fn attributes(file: BorrowedFd<'_>) -> Result<[u8; ATTRIBUTES_BYTES]> {
    let mut raw = [0_u8; ATTRIBUTES_BYTES];
    // SAFETY: TCGETS2 writes one struct of that size.
    check_int("ioctl(TCGETS2)", unsafe { libc::ioctl(file.as_raw_fd(), TCGETS2, raw.as_mut_ptr()) })?;
    Ok(raw)
}

/// Sets what [`attributes`] reads, at once.
///
/// # Errors
/// ENOTTY.
pub fn set_attributes(file: BorrowedFd<'_>, raw: &[u8; ATTRIBUTES_BYTES]) -> Result<()> {
    // SAFETY: TCSETS2 reads one struct of that size.
    check_int("ioctl(TCSETS2)", unsafe { libc::ioctl(file.as_raw_fd(), TCSETS2, raw.as_ptr()) }).map(drop)
}

/// struct winsize as raw bytes.
///
/// # Errors
/// ENOTTY.
pub fn size(file: BorrowedFd<'_>) -> Result<[u8; SIZE_BYTES]> {
    let mut raw = [0_u8; SIZE_BYTES];
    // SAFETY: TIOCGWINSZ writes one struct of that size.
    check_int("ioctl(TIOCGWINSZ)", unsafe { libc::ioctl(file.as_raw_fd(), TIOCGWINSZ, raw.as_mut_ptr()) })?;
    Ok(raw)
}

/// Sets what [`size`] reads. The foreground group gets SIGWINCH when it differs.
///
/// # Errors
/// ENOTTY.
pub fn set_size(file: BorrowedFd<'_>, raw: &[u8; SIZE_BYTES]) -> Result<()> {
    // SAFETY: TIOCSWINSZ reads one struct of that size.
    check_int("ioctl(TIOCSWINSZ)", unsafe { libc::ioctl(file.as_raw_fd(), TIOCSWINSZ, raw.as_ptr()) }).map(drop)
}

/// N of /dev/pts/N, from a master.
///
/// # Errors
/// ENOTTY: not a master.
pub fn index(master: BorrowedFd<'_>) -> Result<u32> {
    number(master, "ioctl(TIOCGPTN)", TIOCGPTN).map(|number| number as u32)
}

/// Whether the slave cannot be opened by its path.
///
/// # Errors
/// ENOTTY: not a master.
pub fn is_locked(master: BorrowedFd<'_>) -> Result<bool> {
    number(master, "ioctl(TIOCGPTLCK)", TIOCGPTLCK).map(|value| value != 0)
}

/// Sets what [`is_locked`] reads.
///
/// # Errors
/// ENOTTY: not a master.
pub fn set_locked(master: BorrowedFd<'_>, locked: bool) -> Result<()> {
    set_number(master, "ioctl(TIOCSPTLCK)", TIOCSPTLCK, i32::from(locked))
}

/// Whether the master reads in packets.
///
/// # Errors
/// ENOTTY: not a master.
pub fn is_packet(master: BorrowedFd<'_>) -> Result<bool> {
    number(master, "ioctl(TIOCGPKT)", TIOCGPKT).map(|value| value != 0)
}

/// Sets what [`is_packet`] reads.
///
/// # Errors
/// ENOTTY: not a master.
pub fn set_packet(master: BorrowedFd<'_>, packet: bool) -> Result<()> {
    set_number(master, "ioctl(TIOCPKT)", TIOCPKT, i32::from(packet))
}

/// Whether nobody else may open it (TIOCEXCL).
///
/// # Errors
/// ENOTTY.
pub fn is_exclusive(file: BorrowedFd<'_>) -> Result<bool> {
    number(file, "ioctl(TIOCGEXCL)", TIOCGEXCL).map(|value| value != 0)
}

/// The session whose controlling terminal it is, asked at the master; `None` without one.
///
/// # Errors
/// As ioctl(2).
pub fn session(master: BorrowedFd<'_>) -> Result<Option<i32>> {
    match number(master, "ioctl(TIOCGSID)", TIOCGSID) {
        Err(error) if error.number == libc::ENOTTY => Ok(None),
        other => other.map(|session| Some(session).filter(|session| *session > 0)),
    }
}

/// The foreground group, asked at the master; 0 without one.
///
/// # Errors
/// ENOTTY.
pub fn foreground(master: BorrowedFd<'_>) -> Result<i32> {
    number(master, "ioctl(TIOCGPGRP)", TIOCGPGRP)
}

/// Bytes that can be read.
///
/// # Errors
/// ENOTTY, EIO.
pub fn unread(file: BorrowedFd<'_>) -> Result<usize> {
    number(file, "ioctl(FIONREAD)", FIONREAD).map(|bytes| usize::try_from(bytes).unwrap_or(0))
}

/// Opens the slave of a master with open flags, without its path.
///
/// # Errors
/// EIO: it is locked; EINVAL: not a master.
pub fn open_slave(master: BorrowedFd<'_>, flags: u32) -> Result<OwnedFd> {
    // SAFETY: no pointers.
    let raw =
        check_int("ioctl(TIOCGPTPEER)", unsafe { libc::ioctl(master.as_raw_fd(), TIOCGPTPEER, flags as libc::c_int) })?;
    // SAFETY: fresh descriptor, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_pair_shows_what_was_set() {
        let master = crate::file::open(b"/dev/ptmx", (libc::O_RDWR | libc::O_NOCTTY) as u32).unwrap();
        let master = master.as_fd();
        set_locked(master, false).unwrap();
        let slave = open_slave(master, (libc::O_RDWR | libc::O_NOCTTY) as u32).unwrap();
        let path = std::fs::read_link(format!("/proc/self/fd/{}", slave.as_raw_fd())).unwrap();
        assert_eq!(path.to_str(), Some(format!("/dev/pts/{}", index(master).unwrap()).as_str()));
        let mut raw = attributes(slave.as_fd()).unwrap();
        raw[12] &= !2;
        set_attributes(slave.as_fd(), &raw).unwrap();
        assert_eq!(attributes(master).unwrap(), raw);
        set_size(master, &[1, 0, 2, 0, 3, 0, 4, 0]).unwrap();
        assert_eq!(size(slave.as_fd()).unwrap(), [1, 0, 2, 0, 3, 0, 4, 0]);
        assert_eq!((is_locked(master).unwrap(), is_packet(master).unwrap()), (false, false));
        assert_eq!((session(master).unwrap(), is_exclusive(master).unwrap()), (None, false));
        assert_eq!((unread(master).unwrap(), foreground(master).unwrap()), (0, 0));
        assert!(index(slave.as_fd()).is_err());
    }
}
