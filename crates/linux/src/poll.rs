//! Waiting for descriptors: poll(2).
#![allow(unsafe_code)]

use crate::errno::{Errno, Result};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

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
    wait_awake(files, limit, Duration::ZERO)
}

/// The same, but looks again and again for a while before it sleeps: on a virtual machine it takes some tens of µs to wake a halted
/// processor. Whoever else wants this one has it in between.
///
/// # Errors
/// As [`wait`].
pub fn wait_awake(
    files: &[(BorrowedFd<'_>, Readiness)],
    limit: Option<Duration>,
    awake: Duration,
) -> Result<Vec<Readiness>> {
    let mut entries: Vec<libc::pollfd> = files
        .iter()
        .map(|(file, wanted)| libc::pollfd {
            fd: file.as_raw_fd(),
            events: if wanted.readable { libc::POLLIN } else { 0 } | if wanted.writable { libc::POLLOUT } else { 0 },
            revents: 0,
        })
        .collect();
    let awake = limit.map_or(awake, |limit| awake.min(limit));
    let mut found = 0;
    if awake > Duration::ZERO {
        let begin = Instant::now();
        while found == 0 && begin.elapsed() < awake {
            found = look(&mut entries, Some(Duration::ZERO))?;
            if found == 0 {
                std::thread::yield_now();
            }
        }
    }
    if found == 0 && look(&mut entries, limit.map(|limit| limit.saturating_sub(awake)))? < 0 {
        return Ok(vec![Readiness::default(); files.len()]);
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

/// How many are ready; fewer than none: a signal came.
fn look(entries: &mut [libc::pollfd], limit: Option<Duration>) -> Result<i32> {
    let limit = limit.map(|limit| libc::timespec {
        tv_sec: limit.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: limit.subsec_nanos().into(),
    });
    let pointer = limit.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the array and the optional limit are live; the mask is not changed.
    let result = unsafe { libc::ppoll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, pointer, std::ptr::null()) };
    if result < 0 {
        let error = Errno::last("ppoll");
        return if error.number == libc::EINTR { Ok(result) } else { Err(error) };
    }
    Ok(result)
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

    #[test]
    fn whoever_waits_awake_sees_what_comes_while_it_looks_and_while_it_sleeps() {
        for awake in [Duration::ZERO, Duration::from_millis(5), Duration::from_secs(5)] {
            let (reader, mut writer) = std::io::pipe().unwrap();
            let files = [(reader.as_fd(), Readiness::READABLE)];
            let limit = Some(Duration::from_millis(1));
            assert_eq!(wait_awake(&files, limit, awake).unwrap(), [Readiness::default()]);
            let pause = Duration::from_millis(20);
            std::thread::scope(|scope| {
                scope.spawn(move || {
                    std::thread::sleep(pause);
                    writer.write_all(b"x").unwrap();
                    std::thread::sleep(pause);
                });
                assert!(wait_awake(&files, None, awake).unwrap()[0].readable);
            });
        }
    }
}
