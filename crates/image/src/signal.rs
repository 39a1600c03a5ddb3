//! Signal state: dispositions, masks, alternate stacks, queued signals. See signal(7), rt_sigaction(2), sigaltstack(2).
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// One disposition in the kernel's form (struct kernel_sigaction of x86-64).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Action {
    /// Handler address, 0 = default, 1 = ignore.
    pub handler: u64,
    /// SA_* flags.
    pub flags: u64,
    /// Address of the restorer.
    pub restorer: u64,
    /// Mask during the handler.
    pub mask: u64,
}

/// One queued signal: the kernel's 128-byte siginfo_t.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Queued {
    /// Raw siginfo_t.
    #[serde(with = "serde_bytes")]
    pub information: Vec<u8>,
}

/// An alternate stack (stack_t).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct AlternateStack {
    /// ss_sp.
    pub address: u64,
    /// ss_flags.
    pub flags: i32,
    /// ss_size in bytes.
    pub size: u64,
}
