//! Waiting for descriptors: poll(2).
#![allow(unsafe_code)]

use crate::errno::{Errno, Result};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// What to wait for, or what was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Readiness {
    /// Something can be read, or the other end is gone.
    pub readable: bool,
    /// Something can be written, or the other end is gone.
    pub writable: bool,
}

impl Readiness {
    /// Readable only.
    pub const READABLE: Readiness = Readiness { readable: true, writable: false };
}

/// Waits until one of the files is ready as asked, or until the time is over (`None`: for ever). A signal ends the wait early with
/// nothing ready.
///
/// # Errors
/// EINVAL: more files than RLIMIT_NOFILE.
pub fn wait(files: &[(BorrowedFd<'_>, Readiness)], limit: Option<Duration>) -> Result<Vec<Readiness>> {
    let mut entries: Vec<libc::pollfd> = files
        .iter()
        .map(|(file, wanted)| libc::pollfd {
            fd: file.as_raw_fd(),
            events: if wanted.readable { libc::POLLIN } else { 0 } | if wanted.writable { libc::POLLOUT } else { 0 },
            revents: 0,
        })
        .collect();
    let limit = limit.map(|limit| libc::timespec {
        tv_sec: limit.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: limit.subsec_nanos().into(),
    });
    let pointer = limit.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the array and the optional limit are live; the mask is not changed.
    let result = unsafe { libc::ppoll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, pointer, std::ptr::null()) };
    if result < 0 {
        let error = Errno::last("ppoll");
        return if error.number == libc::EINTR { Ok(vec![Readiness::default(); files.len()]) } else { Err(error) };
    }
    let broken = libc::POLLERR | libc::POLLHUP | libc::POLLNVAL;
    Ok(entries
        .iter()
        .map(|entry| Readiness {
            readable: entry.revents & (libc::POLLIN | broken) != 0,
            writable: entry.revents & (libc::POLLOUT | broken) != 0,
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;

    #[test]
    fn a_pipe_is_ready_when_it_has_bytes_or_has_lost_its_writer() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let now = Some(Duration::ZERO);
        let look = |reader: &std::io::PipeReader| wait(&[(reader.as_fd(), Readiness::READABLE)], now).unwrap();
        assert_eq!(look(&reader), [Readiness::default()]);
        writer.write_all(b"x").unwrap();
        assert!(look(&reader)[0].readable);
        drop(writer);
        assert!(look(&reader)[0].readable);
    }
}
