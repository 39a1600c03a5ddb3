//! Which pages of an address space exist: ioctl PAGEMAP_SCAN (Linux 6.7), and reading /proc/PID/pagemap where it does not.
//!
//! # References
//! <https://man7.org/linux/man-pages/man2/PAGEMAP_SCAN.2const.html>, Documentation/admin-guide/mm/pagemap.rst
#![allow(unsafe_code)]

use crate::errno::{Errno, Result, check};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

/// Page categories.
pub mod category {
    /// The page is write-protected asynchronously.
    pub const WRITE_PROTECT_ALLOWED: u64 = 1;
    /// Written since it was armed.
    pub const WRITTEN: u64 = 2;
    /// Backed by a file (or shared memory).
    pub const FILE: u64 = 4;
    /// In memory.
    pub const PRESENT: u64 = 8;
    /// In swap.
    pub const SWAPPED: u64 = 16;
    /// The zero page.
    pub const ZERO: u64 = 32;
    /// Part of a huge page.
    pub const HUGE: u64 = 64;
}

/// A run of pages of equal categories.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// First address.
    pub start: u64,
    /// Address after the last byte.
    pub end: u64,
    /// [`category`] bits that were asked for in `return_mask`.
    pub categories: u64,
}

#[repr(C)]
struct ScanArguments {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vector: u64,
    vector_length: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_any_of: u64,
    return_mask: u64,
}
const _: () = assert!(size_of::<ScanArguments>() == 96);

// _IOWR('f', 16, struct pm_scan_arg)
const PAGEMAP_SCAN: libc::Ioctl = 0xc060_6610;
const PROTECT_MATCHING: u64 = 1;
const CHECK_TRACKED: u64 = 2;

/// What is found in a range, in one piece; in two of them by two threads where the kernel walks through so many pages that it takes a
/// millisecond.
fn in_halves<T: Send>(
    (start, end): (u64, u64),
    look: impl Fn((u64, u64)) -> Result<T> + Sync,
) -> Result<impl IntoIterator<Item = T>> {
    const MANY_BYTES: u64 = 1 << 30;
    let middle = start + (end - start) / 2 / 4096 * 4096;
    if end - start < MANY_BYTES {
        return Ok([Some(look((start, end))?), None].into_iter().flatten());
    }
    let (first, second) = std::thread::scope(|scope| {
        let other = std::thread::Builder::new().spawn_scoped(scope, || look((middle, end)));
        let first = look((start, middle));
        // Without a thread, or one that has an answer, this one looks.
        let second = other.ok().and_then(|other| other.join().ok()).unwrap_or_else(|| look((middle, end)));
        (first, second)
    });
    Ok([Some(first?), Some(second?)].into_iter().flatten())
}

/// The page map of one process.
#[derive(Debug)]
pub struct Pagemap {
    file: File,
    has_scan: bool,
}

impl Pagemap {
    /// Opens /proc/PID/pagemap and probes for PAGEMAP_SCAN.
    ///
    /// # Errors
    /// ESRCH: dead; EACCES: no rights.
    pub fn open(pid: i32) -> Result<Pagemap> {
        let failed = |error| Errno::of_process_file("open /proc/PID/pagemap", &error);
        let file = File::open(format!("/proc/{pid}/pagemap")).map_err(failed)?;
        let mut pagemap = Pagemap { file, has_scan: true };
        pagemap.has_scan =
            !matches!(pagemap.scan_once(0, 0, 0, &mut [], 0, 0, 0, 0), Err(error) if error.number == libc::ENOTTY);
        Ok(pagemap)
    }

    /// Whether the kernel has PAGEMAP_SCAN.
    pub fn has_scan(&self) -> bool {
        self.has_scan
    }

    #[allow(clippy::too_many_arguments)]
    fn scan_once(
        &self,
        flags: u64,
        start: u64,
        end: u64,
        regions: &mut [Region],
        inverted: u64,
        mask: u64,
        any_of: u64,
        return_mask: u64,
    ) -> Result<(usize, u64)> {
        let mut arguments = ScanArguments {
            size: 96,
            flags,
            start,
            end,
            walk_end: 0,
            vector: regions.as_mut_ptr() as u64,
            vector_length: regions.len() as u64,
            max_pages: 0,
            category_inverted: inverted,
            category_mask: mask,
            category_any_of: any_of,
            return_mask,
        };
        // SAFETY: the kernel writes at most vector_length regions into the live slice and walk_end into the struct.
        let count = check("ioctl(PAGEMAP_SCAN)", unsafe {
            libc::ioctl(self.file.as_raw_fd(), PAGEMAP_SCAN, &raw mut arguments) as i64
        })?;
        Ok((count as usize, arguments.walk_end))
    }

    /// The pages of `start..end` whose contents only this process has and that were written since they were armed, or never were. They
    /// are armed again (`arm`), or only told. The range must be one that is tracked (registered for asynchronous write protection).
    /// What is not there, the zero page and pages of files are none of them, and are not armed: what comes in their place is. Where there
    /// can be no pages of files (`anonymous`) it is not asked for them, which costs several times the rest.
    ///
    /// # Errors
    /// EPERM: part of it is not tracked, and what was found is not all; ESRCH: dead; ENOTTY: no PAGEMAP_SCAN.
    pub fn written_pages(
        &self,
        start: u64,
        end: u64,
        anonymous: bool,
        arm: bool,
        mut found: impl FnMut(u64, u64),
    ) -> Result<()> {
        use category::{FILE, PRESENT, SWAPPED, WRITTEN, ZERO};
        /// From so many bytes on it is asked first where anything was written: of the rest nothing else has to be known.
        const LARGE_BYTES: u64 = 4 << 20;
        /// So much between two such places is looked at with them.
        const GAP_BYTES: u64 = 16 << 12;
        let mut written = |start: u64, end: u64| {
            let flags = CHECK_TRACKED | if arm { PROTECT_MATCHING } else { 0 };
            let not = if anonymous { ZERO } else { FILE | ZERO };
            self.scan(flags, (start, end), (not, not | WRITTEN, PRESENT | SWAPPED, PRESENT), |region| {
                found(region.start, region.end);
            })
        };
        if end - start < LARGE_BYTES {
            return written(start, end);
        }
        let places = |(start, end): (u64, u64)| {
            let mut places: Vec<(u64, u64)> = Vec::new();
            self.scan(CHECK_TRACKED, (start, end), (0, WRITTEN, 0, WRITTEN), |region| match places.last_mut() {
                Some((_, last)) if region.start - *last <= GAP_BYTES => *last = region.end,
                _ => places.push((region.start, region.end)),
            })?;
            Ok(places)
        };
        in_halves((start, end), places)?.into_iter().flatten().try_for_each(|(start, end)| written(start, end))
    }

    /// Goes through a range; categories as the kernel takes them: inverted, all of, any of, to be told.
    fn scan(
        &self,
        flags: u64,
        (start, end): (u64, u64),
        (inverted, mask, any_of, told): (u64, u64, u64, u64),
        mut found: impl FnMut(&Region),
    ) -> Result<()> {
        let mut regions = [Region::default(); 512];
        let mut next = start;
        while next < end {
            let (count, walk_end) = self.scan_once(flags, next, end, &mut regions, inverted, mask, any_of, told)?;
            regions[..count].iter().for_each(&mut found);
            if count < regions.len() || walk_end <= next {
                return Ok(());
            }
            next = walk_end;
        }
        Ok(())
    }

    /// [`Pagemap::mapped_pages`], by two threads where that is much.
    ///
    /// # Errors
    /// As [`Pagemap::private_pages`].
    pub fn many_mapped_pages(&self, start: u64, end: u64, mut found: impl FnMut(u64, u64, bool)) -> Result<()> {
        let look = |(start, end): (u64, u64)| {
            let mut pages = Vec::new();
            self.mapped_pages(start, end, |start, end, huge| pages.push((start, end, huge)))?;
            Ok(pages)
        };
        let pages = in_halves((start, end), look)?;
        pages.into_iter().flatten().for_each(|(start, end, huge)| found(start, end, huge));
        Ok(())
    }

    /// The pages of `start..end` whose contents only this process has (present or swapped, not of a file, not the zero
    /// page): what must be saved of a private mapping. Calls `found` with ascending runs (start, end, in transparent huge
    /// pages; always false without PAGEMAP_SCAN).
    ///
    /// # Errors
    /// ESRCH: dead.
    pub fn private_pages(&self, start: u64, end: u64, found: impl FnMut(u64, u64, bool)) -> Result<()> {
        self.scan_private(start, end, category::FILE, found)
    }

    /// The same of a range that is all anonymous memory: whether a page belongs to a file, which costs several times the rest, is
    /// not asked.
    ///
    /// # Errors
    /// As [`Pagemap::private_pages`].
    pub fn anonymous_pages(&self, start: u64, end: u64, found: impl FnMut(u64, u64, bool)) -> Result<()> {
        self.scan_private(start, end, 0, found)
    }

    /// The same of a range that is mapped without a hole, and mostly there: what is asked for is what is not there, since each page
    /// that is told costs more than all that are passed over.
    ///
    /// # Errors
    /// As [`Pagemap::private_pages`].
    pub fn mapped_pages(&self, start: u64, end: u64, mut found: impl FnMut(u64, u64, bool)) -> Result<()> {
        use category::{HUGE, PRESENT, SWAPPED, ZERO};
        if !self.has_scan {
            return self.read_private(start, end, found);
        }
        let mut next = start;
        // Absent (so inverted), or present in another way than most; what they are is told as it is.
        let others = (PRESENT, 0, PRESENT | ZERO | HUGE, PRESENT | SWAPPED | ZERO | HUGE);
        self.scan(0, (start, end), others, |region| {
            if next < region.start {
                found(next, region.start, false);
            }
            if region.categories & ZERO == 0 && region.categories & (PRESENT | SWAPPED) != 0 {
                found(region.start, region.end, region.categories & HUGE != 0);
            }
            next = region.end;
        })?;
        if next < end {
            found(next, end, false);
        }
        Ok(())
    }

    fn scan_private(&self, start: u64, end: u64, file: u64, mut found: impl FnMut(u64, u64, bool)) -> Result<()> {
        use category::{HUGE, PRESENT, SWAPPED, ZERO};
        if !self.has_scan {
            return self.read_private(start, end, found);
        }
        self.scan(0, (start, end), (file | ZERO, file | ZERO, PRESENT | SWAPPED, HUGE), |region| {
            found(region.start, region.end, region.categories & HUGE != 0);
        })
    }

    fn read_private(&self, start: u64, end: u64, mut found: impl FnMut(u64, u64, bool)) -> Result<()> {
        let mut buffer = vec![0_u8; 64 << 10];
        let mut address = start;
        let mut open: Option<u64> = None;
        while address < end {
            let pages = ((end - address) / 4096).min(buffer.len() as u64 / 8) as usize;
            let bytes = &mut buffer[..pages * 8];
            self.file.read_exact_at(bytes, address / 4096 * 8).map_err(|error| Errno {
                number: error.raw_os_error().unwrap_or(libc::EIO),
                call: "read /proc/PID/pagemap",
            })?;
            for entry in bytes.chunks_exact(8) {
                let entry = u64::from_ne_bytes(entry.try_into().unwrap_or_default());
                // Bits: 63 present, 62 swapped, 61 file or shared anonymous. The zero page cannot be told apart here: it
                // is copied as zeros, which is exact.
                let private = entry >> 62 != 0 && entry >> 61 & 1 == 0;
                match (private, open) {
                    (true, None) => open = Some(address),
                    (false, Some(first)) => {
                        found(first, address, false);
                        open = None;
                    }
                    _ => {}
                }
                address += 4096;
            }
        }
        if let Some(first) = open {
            found(first, end, false);
        }
        Ok(())
    }

    /// The first page of `start..end` that is there in any way, the zero page included.
    ///
    /// # Errors
    /// ESRCH: dead.
    pub fn first_page(&self, start: u64, end: u64) -> Result<Option<u64>> {
        use category::{PRESENT, SWAPPED};
        if self.has_scan {
            let mut regions = [Region::default(); 1];
            let (count, _) = self.scan_once(0, start, end, &mut regions, 0, 0, PRESENT | SWAPPED, PRESENT)?;
            return Ok((count > 0).then_some(regions[0].start));
        }
        let mut entries = vec![0; 8192];
        for first in (start..end).step_by(entries.len() * 4096) {
            let pages = ((end - first) / 4096).min(8192) as usize;
            self.entries(first, &mut entries[..pages])?;
            if let Some(index) = entries[..pages].iter().position(|entry| entry >> 62 != 0) {
                return Ok(Some(first + index as u64 * 4096));
            }
        }
        Ok(None)
    }

    /// Raw pagemap entries of consecutive pages from `start`.
    ///
    /// # Errors
    /// EIO: end of the address space; ESRCH: dead.
    pub fn entries(&self, start: u64, entries: &mut [u64]) -> Result<()> {
        let mut bytes = vec![0_u8; entries.len() * 8];
        self.file.read_exact_at(&mut bytes, start / 4096 * 8).map_err(|error| Errno {
            number: error.raw_os_error().unwrap_or(libc::EIO),
            call: "read /proc/PID/pagemap",
        })?;
        for (entry, raw) in entries.iter_mut().zip(bytes.chunks_exact(8)) {
            *entry = u64::from_ne_bytes(raw.try_into().unwrap_or_default());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// First page, page behind the last, in huge pages.
    type Seen = (u64, u64, bool);

    #[test]
    fn what_is_there_is_all_but_what_is_not() {
        const PAGES: usize = 4096;
        // SAFETY: a fresh mapping that nothing else refers to, of which only pages that are there are written.
        let address = unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let map = libc::mmap(std::ptr::null_mut(), PAGES * 4096, protection, flags, -1, 0);
            assert_ne!(map, libc::MAP_FAILED);
            // Its second half may have huge pages.
            libc::madvise(map.byte_add(PAGES / 2 * 4096), PAGES / 2 * 4096, libc::MADV_HUGEPAGE);
            libc::madvise(map, PAGES / 2 * 4096, libc::MADV_NOHUGEPAGE);
            map as u64
        };
        let page = |at: u64| (at - address) / 4096;
        let end = address + PAGES as u64 * 4096;
        let pagemap = Pagemap::open(std::process::id() as i32).unwrap();
        let compare = || {
            let (mut direct, mut other): (Vec<Seen>, Vec<Seen>) = Default::default();
            let put = |list: &mut Vec<Seen>, start: u64, end: u64, huge: bool| match list.last_mut() {
                Some(last) if last.1 == page(start) && last.2 == huge => last.1 = page(end),
                _ => list.push((page(start), page(end), huge)),
            };
            pagemap.anonymous_pages(address, end, |start, end, huge| put(&mut direct, start, end, huge)).unwrap();
            pagemap.mapped_pages(address, end, |start, end, huge| put(&mut other, start, end, huge)).unwrap();
            assert_eq!(direct, other);
            direct
        };
        assert_eq!(compare(), []);
        // SAFETY: within the mapping.
        let write = |page: usize| unsafe { ((address + page as u64 * 4096) as *mut u8).write_volatile(1) };
        (0..900).for_each(write);
        assert_eq!(compare()[..1], [(0, 900, false)]);
        // SAFETY: within the mapping.
        let read = |page: usize| unsafe { ((address + page as u64 * 4096) as *const u8).read_volatile() };
        assert_eq!(read(950), 0);
        // More regions than are told at once.
        (1000..2040).step_by(2).for_each(write);
        (2048..3600).step_by(3).for_each(write);
        let seen = compare();
        assert!(seen.len() > 500 && seen[1] == (1000, 1001, false), "{seen:?}");
        // SAFETY: within the mapping, nothing of which is needed any more.
        unsafe {
            libc::madvise((address + 10 * 4096) as *mut libc::c_void, 3 * 4096, libc::MADV_DONTNEED);
            assert_eq!(compare()[..2], [(0, 10, false), (13, 900, false)]);
            libc::munmap(address as *mut libc::c_void, PAGES * 4096);
        }
    }
}
