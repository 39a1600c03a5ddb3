//! Address spaces and their areas (kernel: mm_struct, vm_area_struct).
use crate::id::ObjectId;
use crate::page_set::PageSet;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Bytes of a base page.
pub const PAGE_BYTES: u64 = 4096;

/// One address space; tasks made with CLONE_VM share it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AddressSpace {
    /// Identity; also the owner of its pages on the wire and in a checkpoint.
    pub id: ObjectId,
    /// Layout as prctl(PR_SET_MM_MAP) takes it.
    pub layout: Layout,
    /// The program file (an envelope), /proc/PID/exe.
    pub executable: ObjectId,
    /// Ascending by start, disjoint.
    pub areas: Vec<Area>,
    /// The parent process's space, when pages are still shared with it since the fork.
    pub parent: Option<ObjectId>,
    /// Pages that are the parent's very pages at the same addresses (copy-on-write): they do not travel again.
    pub inherited: PageSet,
    /// Guard pages (MADV_GUARD_INSTALL).
    pub guards: PageSet,
    /// Pages that are parts of transparent huge pages.
    #[serde(default)]
    pub huge: PageSet,
    /// Pages that stay at the source when the process goes on at the destination, and come there later. None in a checkpoint.
    #[serde(default, skip_serializing_if = "PageSet::is_empty")]
    pub owed: PageSet,
    /// /proc/PID/coredump_filter.
    #[serde(default)]
    pub core_filter: Option<u32>,
    /// Dumpable attribute (PR_GET_DUMPABLE).
    pub dumpable: u8,
    /// PR_GET_THP_DISABLE.
    pub huge_pages_disabled: bool,
    /// PR_GET_MDWE flags.
    pub deny_write_execute: u32,
    /// PR_GET_MEMORY_MERGE.
    pub memory_merge: bool,
}

/// The fields of struct prctl_mm_map (addresses) and the auxiliary vector.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Layout {
    /// start_code, end_code, start_data, end_data, start_brk, brk, start_stack, arg_start, arg_end, env_start, env_end.
    pub addresses: [u64; 11],
    /// Raw auxiliary vector.
    #[serde(with = "serde_bytes")]
    pub auxiliary_vector: Vec<u8>,
}

/// One mapping.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Area {
    /// First address.
    pub start: u64,
    /// Address after the last byte.
    pub end: u64,
    /// PROT_* bits.
    pub protection: u32,
    /// [`AreaFlags`] bits.
    pub flags: u32,
    /// Protection key, 0 = none.
    pub protection_key: u32,
    /// What is mapped.
    pub backing: Backing,
    /// The kernel's name for the mapping: a path, `[heap]`, or empty.
    pub name: String,
}

impl Area {
    /// Length in bytes.
    pub fn bytes(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Whether a flag is set.
    pub fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }
}

/// Bits of [`Area::flags`].
#[derive(Debug)]
pub struct AreaFlags;

impl AreaFlags {
    /// MAP_SHARED.
    pub const SHARED: u32 = 1 << 0;
    /// MAP_GROWSDOWN.
    pub const GROWS_DOWN: u32 = 1 << 1;
    /// Locked (mlock).
    pub const LOCKED: u32 = 1 << 2;
    /// mlock2(MLOCK_ONFAULT).
    pub const LOCKED_ON_FAULT: u32 = 1 << 3;
    /// MADV_DONTFORK.
    pub const DONT_FORK: u32 = 1 << 4;
    /// MADV_WIPEONFORK.
    pub const WIPE_ON_FORK: u32 = 1 << 5;
    /// MADV_DONTDUMP.
    pub const DONT_DUMP: u32 = 1 << 6;
    /// MADV_HUGEPAGE.
    pub const HUGE_PAGE: u32 = 1 << 7;
    /// MADV_NOHUGEPAGE.
    pub const NO_HUGE_PAGE: u32 = 1 << 8;
    /// MADV_MERGEABLE.
    pub const MERGEABLE: u32 = 1 << 9;
    /// mseal(2).
    pub const SEALED: u32 = 1 << 10;
    /// MAP_NORESERVE.
    pub const NO_RESERVE: u32 = 1 << 11;
    /// MADV_SEQUENTIAL.
    pub const SEQUENTIAL: u32 = 1 << 12;
    /// MADV_RANDOM.
    pub const RANDOM: u32 = 1 << 13;
    /// MAP_DROPPABLE mapping (Linux 6.11).
    pub const DROPPABLE: u32 = 1 << 15;
    /// Guard pages were installed in it; they are listed in [`AddressSpace::guards`].
    pub const MAYBE_GUARD: u32 = 1 << 16;
    /// MAP_HUGETLB mapping.
    pub const HUGE_TLB: u32 = 1 << 14;
}

/// What a mapping shows.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Backing {
    /// Private memory, zero where untouched.
    Anonymous,
    /// A file or another mappable object (an envelope) from an offset in bytes.
    File {
        /// The object; made as a descriptor that can be mapped.
        object: ObjectId,
        /// Offset in bytes of the area's start.
        offset: u64,
    },
    /// The kernel's own pages, mapped by the kernel at the destination: `[vdso]`, `[vvar]`, `[vvar_vclock]`.
    Kernel,
}
