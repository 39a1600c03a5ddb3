//! Which system calls a thread may make while some of its tree's descriptors are not what they will be: those that have to do with no
//! descriptor at all, and those that have to do with one that is. All others wait, also those of which it would have to be found out.
//!
//! A call that may go on may also be interrupted: it is continued, or made again, by the kernel, and leaves no trace of that (signal(7)).
//! That is why calls are missing here that wait for a time and answer EINTR, and what can be written in part.
use godwit_linux::ptrace::Call;

/// What can be done with a descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reach {
    /// Whatever never waits in the middle: a file, a counter.
    All,
    /// It may be read.
    Reading,
    /// Nothing yet.
    Nothing,
}

/// Calls that have to do with no descriptor, nor with a task other than the caller: sched_yield, mprotect, munmap, brk, rt_sigaction,
/// rt_sigprocmask, rt_sigreturn, mremap, mincore, madvise, nanosleep, getpid, uname, gettimeofday, getrlimit, getrusage, sysinfo, times, getuid,
/// getgid, geteuid, getegid, getppid, getpgrp, rt_sigpending, sigaltstack, mlock, munlock, arch_prctl, gettid, time, futex,
/// sched_getaffinity, clock_gettime, clock_getres, clock_nanosleep, set_robust_list, getcpu, getrandom, membarrier, rseq.
const WITHOUT: [u64; 41] = [
    24, 10, 11, 12, 13, 14, 15, 25, 27, 28, 35, 39, 63, 96, 97, 98, 99, 100, 102, 104, 107, 108, 110, 111, 127, 131,
    149, 150, 158, 186, 201, 202, 204, 228, 229, 230, 273, 309, 318, 324, 334,
];
/// Calls that read what their first argument is: read, fstat, lseek, pread64, readv, preadv, preadv2.
const READING: [u64; 7] = [0, 5, 8, 17, 19, 295, 327];
/// Calls that do something else with it: write, close, pwrite64, writev, fsync, fdatasync, ftruncate, fadvise64, fallocate, pwritev,
/// pwritev2.
const CHANGING: [u64; 11] = [1, 3, 18, 20, 74, 75, 77, 221, 285, 296, 328];
const MMAP: u64 = 9;
const MAP_ANONYMOUS: u64 = 0x20;

/// Whether a call may be made now.
pub(crate) fn may_pass(call: &Call, reach: impl Fn(i32) -> Reach) -> bool {
    // The kernel takes no more than 32 bits of a descriptor.
    let reach = |at: usize| reach(call.arguments[at] as i32);
    match call.number {
        MMAP => call.arguments[3] & MAP_ANONYMOUS != 0 || reach(4) != Reach::Nothing,
        number if READING.contains(&number) => reach(0) != Reach::Nothing,
        number if CHANGING.contains(&number) => reach(0) == Reach::All,
        number => WITHOUT.contains(&number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_touches_what_is_not_there_waits() {
        let reach = |descriptor| match descriptor {
            3 => Reach::All,
            4 => Reach::Reading,
            _ => Reach::Nothing,
        };
        let may = |number, arguments: [u64; 6]| may_pass(&Call { number, arguments }, reach);
        let first = |number, descriptor| may(number, [descriptor, 0, 0, 0, 0, 0]);
        let high = 0xdead_0000_0000_0000;
        for reading in READING {
            assert!(first(reading, 3) && first(reading, 4) && first(reading, 4 | high) && !first(reading, 5));
        }
        for changing in CHANGING {
            assert!(first(changing, 3) && !first(changing, 4) && !first(changing, u64::MAX));
        }
        assert!(may(MMAP, [0, 0, 0, MAP_ANONYMOUS, 5, 0]) && may(MMAP, [0, 0, 0, 1, 3, 0]));
        assert!(!may(MMAP, [0, 0, 0, 1, 5, 0]));
        for without in WITHOUT {
            assert!(first(without, 5));
        }
        // poll, ioctl, dup, sendmsg, clone, execve, exit, kill, fcntl, openat, epoll_wait, exit_group, restart_syscall, one of x32's.
        for waits in [7, 16, 32, 46, 56, 59, 60, 62, 72, 257, 232, 231, 219, 0x4000_0000] {
            assert!(!first(waits, 3), "{waits}");
        }
    }
}
