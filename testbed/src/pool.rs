//! Huge pages for the time of a run: the kernel's pool is empty unless somebody asks for pages.

use std::fs;

const POOL: &str = "/proc/sys/vm/nr_hugepages";

/// Pages that were added to the pool; they are taken out again in the end.
#[derive(Debug)]
pub struct HugePages {
    added: u64,
}

fn pages() -> Option<u64> {
    fs::read_to_string(POOL).ok()?.trim().parse().ok()
}

impl HugePages {
    /// Asks for so many pages more. Fewer may come, or none: who needs them finds out and says so.
    #[must_use]
    pub fn add(wanted: u64) -> Self {
        let before = pages().unwrap_or_default();
        let asked = fs::write(POOL, (before + wanted).to_string()).is_ok();
        let added = if asked { pages().unwrap_or(before).saturating_sub(before) } else { 0 };
        Self { added }
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        if self.added > 0
            && let Some(now) = pages()
        {
            let _ = fs::write(POOL, now.saturating_sub(self.added).to_string());
        }
    }
}
