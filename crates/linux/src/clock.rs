//! The clocks that a moved process can see, and what the processor's extended state consists of.
#![allow(unsafe_code)]

fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: time is live; the clocks exist on every kernel that this crate runs on.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// What the clocks show at one moment, ns.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reading {
    /// CLOCK_MONOTONIC.
    pub monotonic: u64,
    /// CLOCK_MONOTONIC_RAW.
    pub monotonic_raw: u64,
    /// CLOCK_MONOTONIC_COARSE: as of the last tick.
    pub monotonic_coarse: u64,
    /// CLOCK_BOOTTIME.
    pub boottime: u64,
    /// CLOCK_REALTIME.
    pub realtime: u64,
}

/// The clocks now, as this process's time namespace shows them.
pub fn now() -> Reading {
    Reading {
        monotonic: read(libc::CLOCK_MONOTONIC),
        monotonic_raw: read(libc::CLOCK_MONOTONIC_RAW),
        monotonic_coarse: read(libc::CLOCK_MONOTONIC_COARSE),
        boottime: read(libc::CLOCK_BOOTTIME),
        realtime: read(libc::CLOCK_REALTIME),
    }
}

/// XCR0: the components of the extended state that the kernel has enabled; 1 when the processor has no XSAVE.
pub fn extended_state_mask() -> u64 {
    #[target_feature(enable = "xsave")]
    fn xcr0() -> u64 {
        // SAFETY: register 0 always exists where XSAVE does.
        unsafe { std::arch::x86_64::_xgetbv(0) }
    }
    if std::arch::is_x86_feature_detected!("xsave") {
        // SAFETY: the feature was detected.
        unsafe { xcr0() }
    } else {
        1
    }
}

/// Bytes of the extended state with the components of XCR0, uncompacted: the length of the ptrace regset.
pub fn extended_state_bytes() -> u32 {
    std::arch::x86_64::__cpuid_count(0xd, 0).ebx
}
