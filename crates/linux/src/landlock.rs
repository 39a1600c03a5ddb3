//! landlock(7): whether this kernel has it. A sandbox itself cannot be read, not even by the one inside.
#![allow(unsafe_code)]

use crate::errno::{Result, check};

/// Version of the interface, from 1.
///
/// # Errors
/// ENOSYS, EOPNOTSUPP: nobody here can be in a sandbox.
pub fn version() -> Result<u32> {
    const LANDLOCK_CREATE_RULESET_VERSION: u32 = 1;
    // SAFETY: with the version flag the kernel wants a null pointer and no bytes.
    check("landlock_create_ruleset", unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<u8>(),
            0_usize,
            LANDLOCK_CREATE_RULESET_VERSION,
        )
    })
    .map(|version| version as u32)
}
