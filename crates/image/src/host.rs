//! Facts about a host that decide whether a tree can live there.
use alloc::string::String;
use serde::{Deserialize, Serialize};

/// What the source says of itself with an image, and the destination compares.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct HostFacts {
    /// Node name.
    pub name: String,
    /// Kernel release.
    pub kernel: String,
    /// /proc/sys/kernel/random/boot_id.
    pub boot_id: String,
    /// Machine architecture, `x86_64`.
    pub machine: String,
    /// Processor flags, space-separated and sorted.
    pub processor_flags: String,
    /// XCR0: the extended state components.
    pub extended_state_mask: u64,
    /// Length of the NT_X86_XSTATE regset in bytes.
    pub extended_state_bytes: u32,
    /// CLOCK_MONOTONIC at the freeze, ns, as the tree sees it.
    pub monotonic_ns: u64,
    /// CLOCK_MONOTONIC_RAW at the freeze, ns, as the tree sees it; 0 where it was not read.
    #[serde(default)]
    pub monotonic_raw_ns: u64,
    /// CLOCK_MONOTONIC_COARSE at the freeze, ns, as the tree sees it; 0 where it was not read.
    #[serde(default)]
    pub monotonic_coarse_ns: u64,
    /// CLOCK_BOOTTIME at the freeze, ns, as the tree sees it.
    pub boottime_ns: u64,
    /// CLOCK_REALTIME at the freeze, ns.
    pub realtime_ns: u64,
    /// Bytes from [vvar] start to [vdso] start, and length of [vdso].
    pub vdso: (u64, u64),
    /// CRC-32 of the [vdso] pages.
    pub vdso_checksum: u32,
}
