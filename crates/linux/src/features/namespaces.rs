//! Trials of numbers, clocks and namespaces, each in a child that ends with it.
#![allow(unsafe_code)]

use super::child::{Sleeper, in_child, tried};
use super::{Feature, Trials};
use crate::errno::{Errno, Result};
use crate::proc::{mountinfo, sys};

const CLONE_NEWTIME: libc::c_int = 0x80;
const PR_TIMER_CREATE_RESTORE_IDS: libc::c_int = 77;

pub(super) fn probe(trials: &mut Trials<'_>) {
    trials.put(Feature::ChosenNumbers, chosen_number);
    trials.put(Feature::NumberNamespaces, || unshared("unshare(CLONE_NEWPID)", libc::CLONE_NEWPID));
    trials.put(Feature::UserNamespaces, || unshared("unshare(CLONE_NEWUSER)", libc::CLONE_NEWUSER));
    trials.put(Feature::TimeNamespaces, time_namespace);
    trials.put(Feature::TimerNumbers, timer_number);
    trials.put(Feature::Freezer, freezer);
    trials.put(Feature::Landlock, || crate::landlock::version().map(drop));
}

fn unshared(call: &'static str, kind: libc::c_int) -> Result<()> {
    // SAFETY: no pointers; only the child is moved.
    in_child(call, || tried(unsafe { libc::syscall(libc::SYS_unshare, kind) }).map(drop))
}

/// A child with a number from the top, where the kernel comes by last.
fn chosen_number() -> Result<()> {
    let highest = sys::read("kernel/pid_max").unwrap_or(32768).clamp(1024, 1 << 22) as i32;
    let mut last = Errno { number: libc::EEXIST, call: "clone3(set_tid)" };
    for number in (highest - 300..highest - 1).rev().step_by(7) {
        match Sleeper::new(&[number]) {
            Ok(sleeper) if sleeper.pid == number => return Ok(()),
            Ok(_) => return Err(Errno { number: libc::ENOSYS, call: "clone3(set_tid)" }),
            Err(error) if error.number == libc::EEXIST => {}
            Err(error) => {
                last = error;
                break;
            }
        }
    }
    Err(Errno { call: "clone3(set_tid)", ..last })
}

/// A new time namespace with its own offsets.
fn time_namespace() -> Result<()> {
    const OFFSETS: &[u8] = b"monotonic 5 0\nboottime 5 0\n";
    in_child("unshare(CLONE_NEWTIME)", || {
        // SAFETY: static strings with their lengths; only the child is moved.
        unsafe {
            tried(libc::syscall(libc::SYS_unshare, CLONE_NEWTIME))?;
            let path = c"/proc/self/timens_offsets".as_ptr();
            let file = tried(libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path, libc::O_WRONLY))?;
            tried(libc::syscall(libc::SYS_write, file, OFFSETS.as_ptr(), OFFSETS.len())).map(drop)
        }
    })
}

/// A POSIX timer with a chosen number.
fn timer_number() -> Result<()> {
    const WANTED: i32 = 41;
    in_child("prctl(PR_TIMER_CREATE_RESTORE_IDS)", || {
        let mut event = [0_u64; 8];
        // SIGEV_NONE: the second half of the second word.
        event[1] = 1 << 32;
        let mut number = WANTED;
        // SAFETY: event is a live struct sigevent of 64 bytes, number a live int.
        unsafe {
            tried(libc::syscall(libc::SYS_prctl, PR_TIMER_CREATE_RESTORE_IDS, 1, 0, 0, 0))?;
            tried(libc::syscall(
                libc::SYS_timer_create,
                libc::CLOCK_MONOTONIC,
                event.as_ptr(),
                (&raw mut number).cast::<u8>(),
            ))?;
        }
        if number == WANTED { Ok(()) } else { Err(libc::ENOSYS) }
    })
}

/// A cgroup of our own can be made in a cgroup2 tree and has a freezer.
fn freezer() -> Result<()> {
    let call = "mkdir in cgroup2";
    let errno = |error: std::io::Error| Errno { number: error.raw_os_error().unwrap_or(libc::EIO), call };
    let own = std::process::id() as i32;
    let mounts = mountinfo::read(own).map_err(|_| Errno { number: libc::ENOENT, call })?;
    let mount = mounts.iter().find(|mount| mount.kind == b"cgroup2").ok_or(Errno { number: libc::ENOENT, call })?;
    let point = std::path::PathBuf::from(std::ffi::OsStr::new(&*String::from_utf8_lossy(&mount.point)));
    let group = point.join(format!("godwit-probe-{own}-{}", thread_number()));
    std::fs::create_dir(&group).map_err(errno)?;
    let found = std::fs::OpenOptions::new().write(true).open(group.join("cgroup.freeze"));
    let removed = std::fs::remove_dir(&group).map_err(errno);
    found.map_err(errno)?;
    removed
}

fn thread_number() -> i32 {
    // SAFETY: no arguments.
    unsafe { libc::gettid() }
}
