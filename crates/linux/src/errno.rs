//! The one funnel through which every door returns: a raw result becomes a value or the kernel's error number.
#![allow(unsafe_code)]

use std::fmt;

/// A kernel error number together with the name of the call that gave it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno {
    /// errno(3) value, positive.
    pub number: i32,
    /// Name of the system call.
    pub call: &'static str,
}

/// The process that a call was about does not exist any more (ESRCH): an ordinary result, not a failure of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gone;

impl Errno {
    /// The error of the last libc call, which was `call`.
    pub fn last(call: &'static str) -> Errno {
        Errno { number: std::io::Error::last_os_error().raw_os_error().unwrap_or(0), call }
    }

    /// From a negative result of a foreign system call.
    pub fn from_result(call: &'static str, result: i64) -> Errno {
        Errno { number: i32::try_from(-result).unwrap_or(libc::EINVAL), call }
    }

    /// The error of opening a file of a process in /proc: one that is not there says that the process is dead.
    pub(crate) fn of_process_file(call: &'static str, error: &std::io::Error) -> Errno {
        match error.raw_os_error() {
            Some(libc::ENOENT) => Errno { number: libc::ESRCH, call },
            other => Errno { number: other.unwrap_or(libc::EIO), call },
        }
    }

    /// Whether the subject is dead.
    pub fn is_gone(self) -> bool {
        self.number == libc::ESRCH
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.call, std::io::Error::from_raw_os_error(self.number))
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Errno {}

impl From<Errno> for std::io::Error {
    fn from(errno: Errno) -> std::io::Error {
        std::io::Error::from_raw_os_error(errno.number)
    }
}

/// Result of every door.
pub type Result<T> = std::result::Result<T, Errno>;

/// Turns a libc result (-1 = error) into a value.
pub fn check(call: &'static str, result: libc::c_long) -> Result<u64> {
    if result == -1 { Err(Errno::last(call)) } else { Ok(result as u64) }
}

/// Like [`check`] for calls that return int.
pub fn check_int(call: &'static str, result: libc::c_int) -> Result<i32> {
    if result == -1 { Err(Errno::last(call)) } else { Ok(result) }
}

/// Reads the error number out of a foreign call's result: -4095..=-1 is an error.
pub fn foreign(call: &'static str, result: i64) -> Result<u64> {
    if (-4095..0).contains(&result) { Err(Errno::from_result(call, result)) } else { Ok(result as u64) }
}

#[cfg(test)]
mod tests {
    use crate::memory::ForeignMemory;
    use crate::pagemap::Pagemap;

    #[test]
    fn files_of_a_process_that_is_not_there_say_so() {
        assert!(ForeignMemory::open(i32::MAX).unwrap_err().is_gone());
        assert!(Pagemap::open(i32::MAX).unwrap_err().is_gone());
    }
}
