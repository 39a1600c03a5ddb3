//! Tracking on kernels that cannot remember writes without a fault handler (before Linux 6.7): the soft-dirty bits of the page tables.
//!
//! The bits of a whole process are cleared at once, and what is written between their reading and that would be forgotten: each look stops
//! the process for as long as both take. Nothing is left in it but cleared bits, whoever dies when.
//!
//! # References
//! Documentation/admin-guide/mm/soft-dirty.rst, Documentation/admin-guide/mm/pagemap.rst
use super::{Tracking, Written, is_stopped, is_watched, reads_directly, reads_past_the_cache};
use crate::failure::{About, Result};
use crate::freeze;
use crate::preparation::Preparation;
use godwit_image::Subject;
use godwit_image::memory::PAGE_BYTES;
use godwit_image::page_set::{PageSet, Run};
use godwit_linux::Errno;
use godwit_linux::pagemap::Pagemap;
use godwit_linux::proc::maps;

/// Bits of an entry of /proc/PID/pagemap.
const WRITTEN: u64 = 1 << 55;
const OF_A_FILE: u64 = 1 << 61;
const SWAPPED: u64 = 1 << 62;
const PRESENT: u64 = 1 << 63;

/// Entries that are read at once.
const ENTRIES: usize = 8192;
const EIO: i32 = 5;

/// One process.
#[derive(Debug)]
pub(super) struct SoftDirty {
    pid: i32,
    /// The bits were cleared before: they tell of what was written since.
    begun: bool,
    looked_at: PageSet,
    /// Nothing of ours is in its memory.
    registered: PageSet,
}

impl SoftDirty {
    pub(super) fn of(pid: i32) -> SoftDirty {
        SoftDirty { pid, begun: false, looked_at: PageSet::new(), registered: PageSet::new() }
    }

    fn read(&self, ranges: impl Iterator<Item = Run>, all: bool) -> Result<PageSet> {
        let subject = || Subject::Process(self.pid);
        let pagemap = Pagemap::open(self.pid).about(subject)?;
        let (mut written, mut entries) = (PageSet::new(), vec![0; ENTRIES]);
        for range in ranges {
            for start in (range.start..range.end).step_by(ENTRIES * PAGE_BYTES as usize) {
                let count = ((range.end - start) / PAGE_BYTES).min(ENTRIES as u64) as usize;
                pagemap.entries(start, &mut entries[..count]).about(subject)?;
                add(start, &entries[..count], all, &mut written);
            }
        }
        Ok(written)
    }

    fn clear(&self) -> Result<()> {
        /// The soft-dirty bits, and nothing else.
        const BITS: &str = "4";
        let failed = |error: std::io::Error| Errno {
            number: error.raw_os_error().unwrap_or(EIO),
            call: "write /proc/PID/clear_refs",
        };
        std::fs::write(format!("/proc/{}/clear_refs", self.pid), BITS)
            .map_err(failed)
            .about(|| Subject::Process(self.pid))
    }
}

/// The pages of consecutive entries that have contents of their own and were written (`all`: or not).
fn add(start: u64, entries: &[u64], all: bool, written: &mut PageSet) {
    for (index, entry) in entries.iter().enumerate() {
        let is_own = entry & (PRESENT | SWAPPED) != 0 && entry & OF_A_FILE == 0;
        if is_own && (all || entry & WRITTEN != 0) {
            let start = start + index as u64 * PAGE_BYTES;
            written.insert(Run { start, end: start + PAGE_BYTES });
        }
    }
}

impl Tracking for SoftDirty {
    fn registered(&self) -> &PageSet {
        &self.registered
    }

    fn look(&mut self) -> Result<Written> {
        // Stopped by us already, for good, or for as long as this takes.
        let stopped = is_stopped(self.pid);
        let reads = || !stopped && reads_directly(self.pid);
        let read = reads();
        let frozen = if stopped { None } else { Some(freeze::freeze(self.pid, Preparation::default())?) };
        let areas = maps::read(self.pid).about(|| Subject::Process(self.pid))?;
        let watched =
            || areas.iter().filter(|area| is_watched(area)).map(|area| Run { start: area.start, end: area.end });
        let pages = self.read(watched(), !self.begun)?;
        self.clear()?;
        self.begun = true;
        if let Some(frozen) = frozen {
            frozen.release();
        }
        if read || reads() {
            return Err(reads_past_the_cache(self.pid));
        }
        self.looked_at = watched().collect();
        Ok(Written { looked_at: self.looked_at.clone(), pages })
    }

    fn bytes_written(&self) -> Result<u64> {
        self.read(self.looked_at.runs().iter().copied(), false).map(|pages| pages.bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use godwit_linux::features::{Feature, OnDemand};

    #[test]
    fn written_are_pages_of_their_own_that_have_the_bit() {
        let entries = [PRESENT, PRESENT | WRITTEN, SWAPPED | WRITTEN, PRESENT | OF_A_FILE | WRITTEN, WRITTEN, SWAPPED];
        let numbers = |all: bool| {
            let mut written = PageSet::new();
            add(0x10_000, &entries, all, &mut written);
            let pages = |run: &Run| (run.start / PAGE_BYTES..run.end / PAGE_BYTES).collect::<Vec<u64>>();
            written.runs().iter().flat_map(pages).collect::<Vec<u64>>()
        };
        assert_eq!(numbers(false), [17, 18]);
        assert_eq!(numbers(true), [16, 17, 18, 21]);
    }

    #[test]
    fn a_running_process_is_stopped_for_a_look_and_what_it_writes_is_found() {
        let mut child =
            std::process::Command::new("sh").args(["-c", "while :; do a=$((a + 1)); done"]).spawn().unwrap();
        let pid = child.id() as i32;
        std::thread::sleep(std::time::Duration::from_millis(100));
        let has_bits = OnDemand::default().has(Feature::SoftDirty);
        let mut tracker = SoftDirty::of(pid);
        let looks = [(); 3].map(|()| {
            let look = tracker.look();
            std::thread::sleep(std::time::Duration::from_millis(50));
            look
        });
        let left = tracker.bytes_written();
        // It goes on after each of them.
        let still = is_stopped(pid);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!still);
        let looks = looks.map(|look| look.map(|written| written.pages.bytes()));
        if !has_bits {
            println!(
                "skipped: this kernel has no soft-dirty bits (CONFIG_MEM_SOFT_DIRTY): looks {looks:?}, left {left:?}"
            );
            return;
        }
        let [first, second, third] = looks.map(Result::unwrap);
        assert!(second > 0 && third > 0 && second < first && third < first, "{first} {second} {third}");
        assert!(left.unwrap() > 0);
    }
}
