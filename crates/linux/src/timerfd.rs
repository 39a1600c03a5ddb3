//! Timers with a descriptor: timerfd_create(2), and the ticks that nobody has read yet (TFD_IOC_SET_TICKS).
#![allow(unsafe_code)]

use crate::errno::{Result, check_int};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// _IOW('T', 0, u64), include/uapi/linux/timerfd.h. Only with CONFIG_CHECKPOINT_RESTORE.
const TFD_IOC_SET_TICKS: libc::c_ulong = 0x4008_5400;
/// TFD_TIMER_ABSTIME.
pub const ABSOLUTE: u32 = 1;
/// TFD_TIMER_CANCEL_ON_SET.
pub const CANCEL_ON_SET: u32 = 2;

/// Seconds and nanoseconds.
pub type Time = (i64, i64);

fn timespec(time: Time) -> libc::timespec {
    libc::timespec { tv_sec: time.0, tv_nsec: time.1 }
}

/// A disarmed timer of a clock (CLOCK_*), close-on-exec.
///
/// # Errors
/// EINVAL: no such clock; EPERM: an alarm clock without CAP_WAKE_ALARM.
pub fn create(clock: i32) -> Result<OwnedFd> {
    // SAFETY: no pointers.
    let raw = check_int("timerfd_create", unsafe { libc::timerfd_create(clock, libc::TFD_CLOEXEC) })?;
    // SAFETY: fresh descriptor, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Arms it (a value of zero disarms), or with ABSOLUTE for a point in time of its clock.
///
/// # Errors
/// EINVAL: nanoseconds out of range, unknown flags.
pub fn set(timer: BorrowedFd<'_>, flags: u32, value: Time, interval: Time) -> Result<()> {
    let both = libc::itimerspec { it_interval: timespec(interval), it_value: timespec(value) };
    // SAFETY: a live itimerspec; the old value may be null.
    check_int("timerfd_settime", unsafe {
        libc::timerfd_settime(timer.as_raw_fd(), flags as i32, &raw const both, std::ptr::null_mut())
    })
    .map(drop)
}

/// Time until the next expiry (zero: disarmed), and the interval.
///
/// # Errors
/// EINVAL: not a timer.
pub fn get(timer: BorrowedFd<'_>) -> Result<(Time, Time)> {
    let zero = timespec((0, 0));
    let mut both = libc::itimerspec { it_interval: zero, it_value: zero };
    // SAFETY: writes one itimerspec.
    check_int("timerfd_gettime", unsafe { libc::timerfd_gettime(timer.as_raw_fd(), &raw mut both) })?;
    let pair = |time: libc::timespec| (time.tv_sec, time.tv_nsec);
    Ok((pair(both.it_value), pair(both.it_interval)))
}

/// Sets the expiries that the next read tells, also of a timer that was never armed.
///
/// # Errors
/// EINVAL: zero; ENOTTY: a kernel without CONFIG_CHECKPOINT_RESTORE.
pub fn set_ticks(timer: BorrowedFd<'_>, ticks: u64) -> Result<()> {
    // SAFETY: reads one u64.
    check_int("ioctl(TFD_IOC_SET_TICKS)", unsafe {
        libc::ioctl(timer.as_raw_fd(), TFD_IOC_SET_TICKS, &raw const ticks)
    })
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::AsFd;

    #[test]
    fn ticks_can_be_set_on_an_armed_timer_and_leave_its_time_alone() {
        let timer = create(libc::CLOCK_MONOTONIC).unwrap();
        set(timer.as_fd(), 0, (1000, 5), (7, 3)).unwrap();
        set_ticks(timer.as_fd(), 42).unwrap();
        let (value, interval) = get(timer.as_fd()).unwrap();
        assert!((990..=1000).contains(&value.0), "{value:?}");
        assert_eq!(interval, (7, 3));
        let mut ticks = [0; 8];
        std::fs::File::from(timer).read_exact(&mut ticks).unwrap();
        assert_eq!(u64::from_ne_bytes(ticks), 42);
        assert_eq!(set_ticks(create(0).unwrap().as_fd(), 0).unwrap_err().number, libc::EINVAL);
    }
}
