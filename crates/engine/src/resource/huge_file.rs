//! Nameless files out of the pool of huge pages: behind MAP_HUGETLB, and memfd_create(MFD_HUGETLB). A private mapping has one,
//! too; its pages are the mapping's own, and the file stays empty.
use super::memory_file::memfd_name;
use crate::failure::{About, Result};
use crate::look::Look;
use godwit_image::{Code, Refusal, Subject};
use godwit_linux::features::HugePages;
use godwit_linux::{filesystem, memory_file};
use serde::{Deserialize, Serialize};
use std::fs::File;

const ANONYMOUS: &[u8] = b"/anon_hugepage (deleted)";
/// Where the kernel tells how many pages of each size are free.
const POOLS: &str = "/sys/kernel/mm/hugepages";

/// How such a file came to be.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Huge {
    /// Of memfd_create(2); none: behind a mapping.
    #[serde(with = "serde_bytes")]
    pub name: Option<Vec<u8>>,
    /// Size of a page in bytes, a power of two.
    pub page_bytes: u64,
}

/// The size of the pages of a file, if they are huge.
pub(super) fn page_bytes(look: &Look) -> Option<u64> {
    let kind = look.filesystem()?;
    (kind == filesystem::HUGETLBFS).then(|| filesystem::block_bytes(look.borrow()).ok()).flatten()
}

pub(super) fn sort(look: &Look) -> Option<Huge> {
    let name = memfd_name(look);
    if name.is_none() && look.link != ANONYMOUS {
        return None;
    }
    Some(Huge { name, page_bytes: page_bytes(look)? })
}

impl Huge {
    /// Makes the file, of `bytes`.
    ///
    /// # Errors
    /// This host has no such pages, or fewer than the file may need.
    pub(super) fn create(&self, bytes: u64) -> Result<File> {
        let subject = || Subject::Object(format!("memory of pages of {} KiB", self.page_bytes >> 10));
        let lacking = |cause: String| {
            let pool = format!("{POOLS}/hugepages-{}kB/nr_hugepages", self.page_bytes >> 10);
            let wanted = bytes.div_ceil(self.page_bytes.max(1));
            Refusal::new(Code::DESTINATION_LACKS, subject(), cause)
                .choice(format!("let the destination have {wanted} more of them: write their number to {pool}"))
        };
        if !self.page_bytes.is_power_of_two() || self.page_bytes < 1 << 16 {
            return Err(lacking("there is no such size".to_owned()));
        }
        let pools = HugePages::pools();
        let free = pools.iter().find(|pool| pool.bytes == self.page_bytes).map_or(0, |pool| pool.free);
        if free.saturating_mul(self.page_bytes) < bytes {
            return Err(lacking(format!("{bytes} bytes of them are needed, and {free} pages are free here")));
        }
        let made = match &self.name {
            Some(name) => memory_file::create(name, Some(self.page_bytes)),
            None => memory_file::create_anonymous(bytes, Some(self.page_bytes)),
        };
        made.about(subject).map(File::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_come_back_from_their_payloads() {
        super::super::assert_round_trip(&Huge { name: None, page_bytes: 2 << 20 });
        super::super::assert_round_trip(&Huge { name: Some(b"\xff".to_vec()), page_bytes: 1 << 30 });
    }

    #[test]
    fn sizes_that_no_kernel_has_are_refused() {
        for page_bytes in [0, 4096, (2 << 20) + 1, 1 << 63] {
            let refusal = Huge { name: None, page_bytes }.create(1 << 30).expect_err("no such pages");
            assert_eq!(refusal.code, Code::DESTINATION_LACKS);
        }
    }
}
