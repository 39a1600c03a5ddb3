//! Time namespaces: giving the children of this thread clocks of their own.
//!
//! # References
//! <https://man7.org/linux/man-pages/man7/time_namespaces.7.html>
#![allow(unsafe_code)]

use crate::errno::{Errno, Result, check};
use crate::proc::timens_offsets;
use std::cell::Cell;

const CLONE_NEWTIME: libc::c_int = 0x80;
const SECOND: i64 = 1_000_000_000;

/// How far the clocks of a namespace are ahead of the machine's own (those of the initial namespace), ns.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Offsets {
    /// Of CLOCK_MONOTONIC, its RAW and COARSE forms.
    pub monotonic: i64,
    /// Of CLOCK_BOOTTIME.
    pub boottime: i64,
}

thread_local! {
    /// This thread's own offsets, once its children got others: /proc then shows the children's.
    static OWN: Cell<Option<Offsets>> = const { Cell::new(None) };
}

fn thread_number() -> i32 {
    // SAFETY: no arguments.
    unsafe { libc::gettid() }
}

fn of_children() -> Result<Offsets> {
    let call = "read /proc/PID/timens_offsets";
    let nanoseconds = |offset: timens_offsets::Offset| {
        offset.seconds.saturating_mul(SECOND).saturating_add(i64::from(offset.nanoseconds))
    };
    match timens_offsets::read(thread_number()) {
        Ok(Some(offsets)) => {
            Ok(Offsets { monotonic: nanoseconds(offsets.monotonic), boottime: nanoseconds(offsets.boottime) })
        }
        // A kernel without time namespaces: one for all.
        Ok(None) | Err(crate::proc::Error::Io(_)) => Ok(Offsets::default()),
        Err(_) => Err(Errno { number: libc::EIO, call }),
    }
}

/// The offsets of the namespace that this thread lives in.
///
/// # Errors
/// EIO: /proc cannot be understood.
pub fn own() -> Result<Offsets> {
    match OWN.get() {
        Some(offsets) => Ok(offsets),
        None => of_children(),
    }
}

/// Whether this thread has given its children clocks that are not its own.
pub fn children_have_other() -> bool {
    OWN.get().is_some()
}

/// Has the processes that this thread forks from now on live with these offsets, in a new namespace where they differ from
/// what such processes have already. The thread itself stays where it is. A child enters at its birth: the offsets can
/// never be changed afterwards.
///
/// # Errors
/// EPERM: no CAP_SYS_ADMIN; EINVAL: a kernel without time namespaces; ERANGE: a clock would be negative.
pub fn set_for_children(offsets: Offsets) -> Result<()> {
    if of_children()? == offsets {
        return Ok(());
    }
    let own = own()?;
    // SAFETY: no pointers; only the children of this thread are concerned.
    check("unshare(CLONE_NEWTIME)", unsafe { libc::syscall(libc::SYS_unshare, CLONE_NEWTIME) })?;
    OWN.set(Some(own));
    let split = |value: i64| (value.div_euclid(SECOND), value.rem_euclid(SECOND));
    let (monotonic, boottime) = (split(offsets.monotonic), split(offsets.boottime));
    let text = format!("monotonic {} {}\nboottime {} {}\n", monotonic.0, monotonic.1, boottime.0, boottime.1);
    // By the thread's number: the children's namespace belongs to a thread, and /proc/self is the first one.
    std::fs::write(format!("/proc/{}/timens_offsets", thread_number()), text).map_err(|error| Errno {
        number: error.raw_os_error().unwrap_or(libc::EIO),
        call: "write /proc/PID/timens_offsets",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use std::process::Command;

    fn uptime_of_a_child() -> f64 {
        let output = Command::new("cat").arg("/proc/uptime").output().unwrap();
        String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().parse().unwrap()
    }

    #[test]
    fn children_get_the_offsets_and_the_thread_keeps_its_clock() {
        // A thread of its own: what it does to its children must not reach other tests.
        std::thread::spawn(|| {
            let before = own().unwrap();
            let wanted =
                Offsets { monotonic: before.monotonic + 1_500_000_000, boottime: before.boottime - 500_000_001 };
            match set_for_children(wanted) {
                Err(error) if error.number == libc::EPERM => return eprintln!("skipped: {error}"),
                other => other.unwrap(),
            }
            assert_eq!(own().unwrap(), before);
            assert_eq!(of_children().unwrap(), wanted);
            let uptime = clock::now().boottime as f64 / 1e9;
            let childs = uptime_of_a_child();
            assert!((childs - uptime + 0.5).abs() < 0.3, "{childs} and {uptime}");
            // Back again, and again another one.
            set_for_children(before).unwrap();
            assert!((uptime_of_a_child() - clock::now().boottime as f64 / 1e9).abs() < 0.3);
            let back = Offsets { monotonic: i64::MIN, boottime: 0 };
            assert_eq!(set_for_children(back).unwrap_err().number, libc::ERANGE);
        })
        .join()
        .unwrap();
    }
}
