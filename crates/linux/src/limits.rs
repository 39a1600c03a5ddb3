//! Resource limits of any process: prlimit(2).
#![allow(unsafe_code)]

use crate::errno::{Result, check_int};

/// Number of RLIMIT_* resources.
pub const COUNT: u32 = 16;

/// Soft and hard limit.
///
/// # Errors
/// ESRCH, EPERM.
pub fn get(pid: i32, resource: u32) -> Result<(u64, u64)> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: limit is live; the new-limit pointer may be null.
    check_int("prlimit", unsafe { libc::prlimit(pid, resource, std::ptr::null(), &raw mut limit) })?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// Sets soft and hard limit.
///
/// # Errors
/// EPERM: raising the hard limit without CAP_SYS_RESOURCE; EINVAL: soft above hard.
pub fn set(pid: i32, resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: limit is live; the old-limit pointer may be null.
    check_int("prlimit", unsafe { libc::prlimit(pid, resource, &raw const limit, std::ptr::null_mut()) }).map(drop)
}
