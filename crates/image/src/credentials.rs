//! Credentials of a thread: identities, capabilities, securebits, no_new_privs, seccomp. See credentials(7), capabilities(7).
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// All that decides what a thread may do.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Credentials {
    /// Real, effective, saved, file-system user id.
    pub user: [u32; 4],
    /// Real, effective, saved, file-system group id.
    pub group: [u32; 4],
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Capability sets as 64-bit masks.
    pub inheritable: u64,
    /// Permitted set.
    pub permitted: u64,
    /// Effective set.
    pub effective: u64,
    /// Bounding set.
    pub bounding: u64,
    /// Ambient set.
    pub ambient: u64,
    /// prctl(PR_GET_SECUREBITS).
    pub securebits: u32,
    /// prctl(PR_GET_NO_NEW_PRIVS).
    pub no_new_privileges: bool,
    /// 0 none, 1 strict, 2 filter.
    pub seccomp_mode: u8,
    /// Seccomp filters, oldest first.
    pub seccomp_filters: Vec<SeccompFilter>,
}

/// One seccomp program (struct sock_filter array, 8 bytes an instruction) with its SECCOMP_FILTER_FLAG_* flags.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct SeccompFilter {
    /// Raw instructions.
    #[serde(with = "serde_bytes")]
    pub program: Vec<u8>,
    /// Flags as PTRACE_SECCOMP_GET_METADATA tells them.
    pub flags: u64,
}
