//! Trials of what rebuilds, finds, tracks and serves pages.
#![allow(unsafe_code)]

use super::child::{in_child, tried};
use super::{Feature, Trials};
use crate::errno::{Errno, Result, check, check_int};
use crate::pagemap::Pagemap;
use crate::proc::stat;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// _IOWR(0xaa, 0x3f, struct uffdio_api)
const UFFDIO_API: libc::Ioctl = 0xc018_aa3f;
/// _IO(0xaa, 0)
const USERFAULTFD_IOC_NEW: libc::Ioctl = 0xaa00;
const UFFD_API: u64 = 0xaa;
/// UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_WP_ASYNC.
const WRITE_TRACKING: u64 = 1 << 13 | 1 << 15;
const SYS_MSEAL: libc::c_long = 462;

pub(super) fn probe(trials: &mut Trials<'_>) -> u64 {
    trials.put(Feature::PagemapScan, pagemap_scan);
    trials.put(Feature::SoftDirty, soft_dirty);
    trials.put(Feature::MemorySeal, seal);
    trials.put(Feature::MemoryMap, memory_map);
    trials.put(Feature::MemoryPolicy, memory_policy);
    let of_faults = [Feature::FaultDevice, Feature::FaultService, Feature::WriteTracking];
    if !of_faults.iter().any(|feature| trials.wants(*feature)) {
        return 0;
    }
    let device = fault_device();
    let direct = fault_call();
    trials.put(Feature::FaultDevice, || device.as_ref().map(drop).map_err(|error| *error));
    let features = direct.or_else(|direct| device.map_err(|_| direct)).and_then(|descriptor| offered(&descriptor));
    trials.put(Feature::FaultService, || features.map(drop));
    let tracking = features.and_then(|bits| {
        let call = "userfaultfd(WP_ASYNC)";
        if bits & WRITE_TRACKING == WRITE_TRACKING { Ok(()) } else { Err(Errno { number: libc::ENOSYS, call }) }
    });
    trials.put(Feature::WriteTracking, || tracking.and_then(|()| pagemap_scan()));
    features.unwrap_or(0)
}

fn pagemap_scan() -> Result<()> {
    let pagemap = Pagemap::open(std::process::id() as i32)?;
    if pagemap.has_scan() { Ok(()) } else { Err(Errno { number: libc::ENOTTY, call: "ioctl(PAGEMAP_SCAN)" }) }
}

/// A full userfaultfd: with faults in kernel mode.
fn fault_call() -> Result<OwnedFd> {
    // SAFETY: no pointers.
    let raw =
        check("userfaultfd", unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | libc::O_NONBLOCK) })?;
    // SAFETY: fresh descriptor, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(raw as i32) })
}

fn fault_device() -> Result<OwnedFd> {
    let call = "open /dev/userfaultfd";
    let device = crate::file::open(b"/dev/userfaultfd", libc::O_RDWR as u32 | libc::O_CLOEXEC as u32)
        .map_err(|error| Errno { number: error.number, call })?;
    // SAFETY: the argument is an integer.
    let raw = check_int("ioctl(USERFAULTFD_IOC_NEW)", unsafe {
        libc::ioctl(device.as_raw_fd(), USERFAULTFD_IOC_NEW, libc::O_CLOEXEC | libc::O_NONBLOCK)
    })?;
    // SAFETY: fresh descriptor, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// The features that the kernel offers: asking for none makes it list all.
fn offered(descriptor: &OwnedFd) -> Result<u64> {
    let mut api = [UFFD_API, 0, 0];
    // SAFETY: the kernel reads and writes the 24 bytes of the live array.
    check_int("ioctl(UFFDIO_API)", unsafe { libc::ioctl(descriptor.as_raw_fd(), UFFDIO_API, api.as_mut_ptr()) })?;
    Ok(api[1])
}

/// Clears the bits of a child's pages, writes one page, and looks at its bit.
fn soft_dirty() -> Result<()> {
    in_child("write /proc/PID/clear_refs", || {
        // SAFETY: addresses and lengths describe a mapping that the child has just made, or live locals.
        unsafe {
            let page = tried(libc::syscall(
                libc::SYS_mmap,
                0,
                4096,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            ))?;
            let place = page as *mut u8;
            place.write_volatile(1);
            let clear = tried(libc::syscall(
                libc::SYS_openat,
                libc::AT_FDCWD,
                c"/proc/self/clear_refs".as_ptr(),
                libc::O_WRONLY,
            ))?;
            tried(libc::syscall(libc::SYS_write, clear, c"4".as_ptr(), 1))?;
            let map =
                tried(libc::syscall(libc::SYS_openat, libc::AT_FDCWD, c"/proc/self/pagemap".as_ptr(), libc::O_RDONLY))?;
            let bit = || -> std::result::Result<bool, i32> {
                let mut entry = 0_u64;
                tried(libc::syscall(libc::SYS_pread64, map, &raw mut entry, 8, page / 4096 * 8))?;
                Ok(entry >> 55 & 1 != 0)
            };
            let before = bit()?;
            place.write_volatile(2);
            if !before && bit()? { Ok(()) } else { Err(libc::ENOSYS) }
        }
    })
}

fn seal() -> Result<()> {
    in_child("mseal", || {
        // SAFETY: the mapping is the child's own and new; sealing it ends with the child.
        unsafe {
            let page = tried(libc::syscall(
                libc::SYS_mmap,
                0,
                4096,
                libc::PROT_READ,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            ))?;
            tried(libc::syscall(SYS_MSEAL, page, 4096, 0)).map(drop)
        }
    })
}

/// Gives a child the layout that it has, with the program file that it has. EBUSY comes behind the question of rights.
fn memory_map() -> Result<()> {
    #[repr(C)]
    struct Map {
        addresses: [u64; 11],
        auxiliary: u64,
        auxiliary_bytes: u32,
        executable: i32,
    }
    const { assert!(size_of::<Map>() == 104) };
    let call = "prctl(PR_SET_MM_MAP)";
    let own = std::process::id() as i32;
    let stat = stat::read_process_wide(own).map_err(|_| Errno { number: libc::EIO, call })?;
    let executable = crate::file::open(b"/proc/self/exe", libc::O_RDONLY as u32 | libc::O_CLOEXEC as u32)?;
    let map = Map {
        addresses: [
            stat.start_code,
            stat.end_code,
            stat.start_data,
            stat.end_data,
            stat.start_brk,
            // The break itself is not in stat; the start is always a valid one for a child that does not use it.
            stat.start_brk,
            stat.start_stack,
            stat.arg_start,
            stat.arg_end,
            stat.env_start,
            stat.env_end,
        ],
        auxiliary: 0,
        auxiliary_bytes: 0,
        executable: executable.as_raw_fd(),
    };
    let (set, option) = (libc::PR_SET_MM, 14);
    let trial = in_child(call, || {
        // SAFETY: the kernel reads 104 bytes of the live struct; only the child's layout changes, and it ends at once.
        tried(unsafe { libc::syscall(libc::SYS_prctl, set, option, &raw const map, size_of::<Map>(), 0) }).map(drop)
    });
    match trial {
        Err(error) if error.number == libc::EBUSY => Ok(()),
        other => other,
    }
}

fn memory_policy() -> Result<()> {
    let mut mode = 0_i32;
    // SAFETY: mode is a live int, no mask is asked for.
    check("get_mempolicy", unsafe { libc::syscall(libc::SYS_get_mempolicy, &raw mut mode, 0, 0, 0, 0) }).map(drop)
}
