//! Sizes, limits and rights of this host that decide what can live here.

use crate::clock;
use crate::proc::{meminfo, status, sys};

/// Huge pages of one size.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HugePages {
    /// Bytes of one.
    pub bytes: u64,
    /// How many there are.
    pub total: u64,
    /// How many a new mapping can have: free ones that are promised to nobody, and those that the kernel makes when they are
    /// asked for (Documentation/admin-guide/mm/hugetlbpage.rst).
    pub free: u64,
}

impl HugePages {
    /// The pools of this kernel, smallest pages first. What cannot be read counts as none.
    pub fn pools() -> Vec<HugePages> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten() {
            let name = entry.file_name();
            let size =
                name.to_str().and_then(|name| name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse::<u64>().ok());
            let Some(kibibytes) = size else { continue };
            let number = |file: &str| -> u64 {
                let text = std::fs::read_to_string(entry.path().join(file)).unwrap_or_default();
                text.trim().parse().unwrap_or(0)
            };
            let unpromised = number("free_hugepages").saturating_sub(number("resv_hugepages"));
            let on_demand = number("nr_overcommit_hugepages").saturating_sub(number("surplus_hugepages"));
            let free = unpromised.saturating_add(on_demand);
            found.push(HugePages { bytes: kibibytes << 10, total: number("nr_hugepages"), free });
        }
        found.sort_by_key(|pages| pages.bytes);
        found
    }
}

/// What is there, and what this process may do with it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Host {
    /// One more than the highest process number that can be given, /proc/sys/kernel/pid_max.
    pub process_number_max: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Bytes of memory that new work can have.
    pub memory_available_bytes: u64,
    /// By size.
    pub huge_pages: Vec<HugePages>,
    /// XCR0: the components of the extended state that are enabled.
    pub extended_state_mask: u64,
    /// Bytes of the extended state.
    pub extended_state_bytes: u32,
    /// CapEff of this process.
    pub capabilities: u64,
    /// Effective user id of this process.
    pub user: u32,
    /// /proc/sys/kernel/yama/ptrace_scope; 0 without Yama.
    pub ptrace_scope: u8,
    /// Whether this process is itself under a seccomp filter.
    pub under_seccomp: bool,
}

impl Host {
    /// Reads them; what cannot be read stays 0.
    pub(super) fn read() -> Host {
        let own = std::process::id() as i32;
        let memory = meminfo::read().unwrap_or_default();
        let status = status::read(own, own).unwrap_or_default();
        Host {
            process_number_max: sys::read("kernel/pid_max").unwrap_or(0).max(0) as u64,
            memory_bytes: memory.total,
            memory_available_bytes: memory.available,
            huge_pages: HugePages::pools(),
            extended_state_mask: clock::extended_state_mask(),
            extended_state_bytes: clock::extended_state_bytes(),
            capabilities: status.capabilities_effective,
            user: status.uid[1],
            ptrace_scope: sys::read("kernel/yama/ptrace_scope").unwrap_or(0).clamp(0, 3) as u8,
            under_seccomp: status.seccomp.unwrap_or(0) != 0,
        }
    }

    /// Whether a capability is in effect.
    pub fn may(&self, capability: u8) -> bool {
        self.capabilities >> capability & 1 != 0
    }
}

pub mod capability {
    //! Capabilities that the engine can use, and what is refused without each. See capabilities(7).

    /// One capability.
    #[derive(Debug)]
    pub struct Row {
        /// Number.
        pub number: u8,
        /// Name, without CAP_.
        pub name: &'static str,
        /// What cannot be done without it.
        pub without: &'static str,
    }

    const fn row(number: u8, name: &'static str, without: &'static str) -> Row {
        Row { number, name, without }
    }

    /// Those that matter, in the order in which they are missed.
    pub const TABLE: &[Row] = &[
        row(40, "CHECKPOINT_RESTORE", "keep process numbers, read mapped files (CAP_SYS_ADMIN does as well)"),
        row(21, "SYS_ADMIN", "move tasks with seccomp filters, make namespaces, keep clocks"),
        row(19, "SYS_PTRACE", "read processes of other users, or of more privilege"),
        row(7, "SETUID", "restore processes of other users"),
        row(6, "SETGID", "restore processes of other groups"),
        row(8, "SETPCAP", "restore capability bounding sets and securebits"),
        row(1, "DAC_OVERRIDE", "open files that only other users may open"),
        row(2, "DAC_READ_SEARCH", "find the paths of inotify watches"),
        row(0, "CHOWN", "give re-created files their owner"),
        row(3, "FOWNER", "give re-created files their mode and times"),
        row(12, "NET_ADMIN", "move TCP connections, move addresses"),
        row(23, "SYS_NICE", "restore real-time scheduling and raised priorities"),
        row(
            24,
            "SYS_RESOURCE",
            "raise hard limits, lower oom_score_adj, make pipes over 1 MiB, set the I/O-flusher mark",
        ),
        row(14, "IPC_LOCK", "lock memory beyond the limit"),
        row(15, "IPC_OWNER", "restore System V shared memory of other users"),
        row(18, "SYS_CHROOT", "restore processes whose root directory is not /"),
        row(5, "KILL", "end a source tree of another user after its move"),
        row(30, "AUDIT_CONTROL", "restore the audit login id"),
    ];
}
