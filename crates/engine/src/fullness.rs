//! Whether memory is full of contents, as far as a look at a few of its pages tells: pages that are all zero are to be named and not sent.
//!
//! A look costs some µs for each 256 KiB. So most of it is done while the process runs: what it writes afterwards cannot make anything
//! wrong, since of zero pages that are not looked at the contents travel like any other's.
use crate::capture::space;
use crate::failure::{About, Result};
use godwit_image::Subject;
use godwit_image::memory::PAGE_BYTES;
use godwit_image::page_set::{PageSet, Run};
use godwit_linux::memory::{ForeignAddress, ForeignMemory};
use godwit_linux::pagemap::Pagemap;
use godwit_linux::proc::maps;
use std::time::{Duration, Instant};

/// For so many bytes one page is looked at.
const SAMPLE_EVERY: u64 = 64 * PAGE_BYTES;
/// Smaller areas are looked at when they are sent.
const AREA_BYTES_MIN: u64 = 8 << 20;
/// How long a running process is looked at.
const PATIENCE: Duration = Duration::from_millis(50);

/// Whether a look at a few pages of a range finds none that is all zero.
///
/// # Errors
/// The process is dead.
pub(crate) fn looks_full(pid: i32, memory: &ForeignMemory, range: Run) -> Result<bool> {
    let subject = || Subject::Process(pid);
    let (mut sample, mut page) = ([0_u8; 64], [0_u8; PAGE_BYTES as usize]);
    let mut at = range.start;
    while at < range.end {
        // Through /proc/PID/mem: what process_vm_readv pins would no longer be shared with a fork.
        memory.read(ForeignAddress(at), &mut sample).about(subject)?;
        if sample.iter().all(|byte| *byte == 0) {
            memory.read(ForeignAddress(at), &mut page).about(subject)?;
            if page.iter().all(|byte| *byte == 0) {
                return Ok(false);
            }
        }
        at += SAMPLE_EVERY;
    }
    Ok(true)
}

/// What of the large memory of a running process looks full, as far as there is time to look.
pub(crate) fn of_running(pid: i32) -> PageSet {
    let mut full = PageSet::new();
    // Whatever cannot be read now is looked at later.
    let (Ok(areas), Ok(pagemap), Ok(memory)) = (maps::read(pid), Pagemap::open(pid), ForeignMemory::open(pid)) else {
        return full;
    };
    let begin = Instant::now();
    let is_plain = |area: &&maps::Area| area.read && !area.shared && space::is_anonymous(area);
    for area in areas.iter().filter(is_plain).filter(|area| area.end - area.start >= AREA_BYTES_MIN) {
        // Only what is there: a look at a page that is not makes one.
        let mut present = PageSet::new();
        let found = pagemap.anonymous_pages(area.start, area.end, |start, end, _| present.insert(Run { start, end }));
        if found.is_err() {
            return full;
        }
        for run in present.runs() {
            let mut start = run.start;
            while start < run.end {
                let block = Run { start, end: run.end.min(start + SAMPLE_EVERY) };
                match looks_full(pid, &memory, block) {
                    Ok(true) => full.insert(block),
                    Ok(false) => {}
                    Err(_) => return full,
                }
                if begin.elapsed() > PATIENCE {
                    return full;
                }
                start = block.end;
            }
        }
    }
    full
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_memory_with_contents_is_full_and_nothing_is_made_by_a_look() {
        const BYTES: usize = 16 << 20;
        let mut memory = vec![0_u8; BYTES];
        let start = (memory.as_ptr() as u64).next_multiple_of(PAGE_BYTES);
        // Contents in the first quarter, zeros in the second, and nothing at all behind.
        memory[..BYTES / 4].fill(7);
        for page in memory[BYTES / 4..BYTES / 2].chunks_mut(PAGE_BYTES as usize) {
            page[0] = 0;
            std::hint::black_box(&page);
        }
        let own = std::process::id() as i32;
        let full = of_running(own);
        let quarter = BYTES as u64 / 4;
        assert!(full.covers(start, start + quarter - SAMPLE_EVERY), "{full:?}");
        assert!(!full.contains(start + quarter + SAMPLE_EVERY) && !full.contains(start + 3 * quarter));
        let mut present = 0;
        let pagemap = Pagemap::open(own).unwrap();
        let behind = (start + 3 * quarter, start + 4 * quarter - PAGE_BYTES);
        pagemap.anonymous_pages(behind.0, behind.1, |start, end, _| present += end - start).unwrap();
        assert_eq!(present, 0);
        let memory_of_own = ForeignMemory::open(own).unwrap();
        assert!(looks_full(own, &memory_of_own, Run { start, end: start + quarter / 2 }).unwrap());
        assert!(!looks_full(own, &memory_of_own, Run { start, end: start + 2 * quarter }).unwrap());
        drop(memory);
    }
}
