//! Reading the bulk bytes of a frozen tree in bounded pieces.
use crate::capture::{Captives, Content, SpacePages};
use crate::failure::{About, Result};
use godwit_image::memory::PAGE_BYTES;
use godwit_image::page_set::{PageSet, Run};
use godwit_image::{ObjectId, Subject};
use godwit_linux::memory::{self, ForeignAddress, ForeignMemory};
use godwit_linux::pagemap::Pagemap;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Bytes of one piece: large enough for full speed, small enough to stay in the cache.
pub const PIECE_BYTES: usize = 1 << 20;
/// Ranges of one piece.
pub const PIECE_RANGES: usize = 512;

/// Cuts runs into pieces of at most [`PIECE_BYTES`] and [`PIECE_RANGES`]; `piece` gets the ranges and their total length.
///
/// # Errors
/// Those of `piece`.
pub fn pieces(runs: &[Run], mut piece: impl FnMut(&[(u64, usize)], usize) -> Result<()>) -> Result<()> {
    let mut ranges: Vec<(u64, usize)> = Vec::with_capacity(PIECE_RANGES);
    let mut total = 0;
    for run in runs {
        let mut start = run.start;
        while start < run.end {
            let length = usize::try_from(run.end - start).unwrap_or(usize::MAX).min(PIECE_BYTES - total);
            ranges.push((start, length));
            total += length;
            start += length as u64;
            if total == PIECE_BYTES || ranges.len() == PIECE_RANGES {
                piece(&ranges, total)?;
                ranges.clear();
                total = 0;
            }
        }
    }
    if total > 0 { piece(&ranges, total) } else { Ok(()) }
}

/// Reads everything of a captured tree, contents, then spaces in the image's order; `sink` gets owner, ranges
/// (start, length in bytes) and their bytes one after another.
///
/// # Errors
/// A process died; those of `sink`.
pub fn read(captives: &Captives, mut sink: impl FnMut(ObjectId, &[(u64, usize)], &[u8]) -> Result<()>) -> Result<()> {
    let mut reader = Reader::default();
    // Contents first: one of them may be the program file, which nobody may have open for writing once it is executed.
    for content in &captives.contents {
        reader.content(content, &mut sink)?;
    }
    for space in &captives.spaces {
        reader.space(space, &space.pages, &mut sink)?;
    }
    Ok(())
}

/// Reads piece by piece into a buffer of its own.
#[derive(Debug, Default)]
pub struct Reader {
    /// Nothing before something is read.
    buffer: Vec<u8>,
}

impl Reader {
    fn buffer(&mut self) -> &mut [u8] {
        if self.buffer.is_empty() {
            // Zeros from the kernel, page by page as they are needed.
            self.buffer = vec![0; PIECE_BYTES];
        }
        &mut self.buffer
    }

    /// Reads a content.
    ///
    /// # Errors
    /// It cannot be read; those of `sink`.
    pub fn content(
        &mut self,
        content: &Content,
        mut sink: impl FnMut(ObjectId, &[(u64, usize)], &[u8]) -> Result<()>,
    ) -> Result<()> {
        read_content(content, self.buffer(), &mut sink)
    }

    /// Reads some pages of a space.
    ///
    /// # Errors
    /// The process died; those of `sink`.
    pub fn space(
        &mut self,
        space: &SpacePages,
        pages: &PageSet,
        mut sink: impl FnMut(ObjectId, &[(u64, usize)], &[u8]) -> Result<()>,
    ) -> Result<()> {
        read_space(space, pages, self.buffer(), &mut sink)
    }
}

/// Reads some pages of a process that runs; returns which could be read: it may have unmapped others meanwhile.
///
/// # Errors
/// The process is dead; those of `sink`.
pub fn read_running(
    reader: &mut Reader,
    pid: i32,
    pages: &PageSet,
    mut sink: impl FnMut(&[(u64, usize)], &[u8]) -> Result<()>,
) -> Result<PageSet> {
    let subject = || Subject::Process(pid);
    let memory = ForeignMemory::open(pid).about(subject)?;
    let pagemap = Pagemap::open(pid).about(subject)?;
    let (mut entries, mut gone) = (Vec::new(), PageSet::new());
    let buffer = reader.buffer();
    pieces(pages.runs(), |ranges, total| {
        let part = &mut buffer[..total];
        // In doubt in the way that is slower and takes nothing from anybody.
        let shared = are_shared(&pagemap, ranges, &mut entries).unwrap_or(true);
        let mut is_read = !shared && memory::gather(pid, ranges, part).is_ok_and(|count| count == total);
        if !is_read {
            let mut offset = 0;
            is_read = ranges.iter().all(|(start, length)| {
                let range = &mut part[offset..offset + length];
                offset += length;
                memory.read(ForeignAddress(*start), range).is_ok()
            });
        }
        if is_read {
            sink(ranges, part)?;
            for (start, length) in ranges {
                gone.insert(Run { start: *start, end: start + *length as u64 });
            }
        }
        Ok(())
    })?;
    Ok(gone)
}

/// Bytes that [`read`] will deliver.
pub fn bytes(captives: &Captives) -> u64 {
    let spaces = captives.spaces.iter().map(|space| space.pages.bytes()).sum::<u64>();
    spaces + captives.contents.iter().map(|content| content.pages.bytes()).sum::<u64>()
}

/// Whether another process may have some of these pages, too, since a fork. process_vm_readv(2) pins what it reads, and the kernel
/// gives a pinned page to one process alone (mm/internal.h, `gup_must_unshare`): the tree would grow by what is only looked at.
fn are_shared(pagemap: &Pagemap, ranges: &[(u64, usize)], entries: &mut Vec<u64>) -> godwit_linux::errno::Result<bool> {
    /// In memory.
    const PRESENT: u64 = 1 << 63;
    /// Mapped by one process.
    const EXCLUSIVE: u64 = 1 << 56;
    /// Pages between two ranges that are cheaper looked at than left out.
    const GAP_BYTES: u64 = 32 * PAGE_BYTES;
    let near = |one: &(u64, usize), next: &(u64, usize)| next.0.saturating_sub(one.0 + one.1 as u64) <= GAP_BYTES;
    for group in ranges.chunk_by(near) {
        let (first, last) = (group[0].0, group[group.len() - 1]);
        let page = |address: u64| ((address - first) / PAGE_BYTES) as usize;
        entries.resize(page(last.0 + last.1 as u64), 0);
        pagemap.entries(first, entries)?;
        let mut of_ranges = group.iter().map(|(start, length)| &entries[page(*start)..page(start + *length as u64)]);
        if of_ranges.any(|part| part.iter().any(|entry| entry & (PRESENT | EXCLUSIVE) == PRESENT)) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn read_space(
    space: &SpacePages,
    pages: &PageSet,
    buffer: &mut [u8],
    sink: &mut impl FnMut(ObjectId, &[(u64, usize)], &[u8]) -> Result<()>,
) -> Result<()> {
    let subject = || Subject::Process(space.pid);
    let memory = ForeignMemory::open(space.pid).about(subject)?;
    let pagemap = Pagemap::open(space.pid).about(subject)?;
    let mut entries = Vec::new();
    let mut looked_at = Vec::with_capacity(PIECE_RANGES);
    pieces(pages.runs(), |ranges, total| {
        let part = &mut buffer[..total];
        // Of most it is known.
        looked_at.clear();
        looked_at.extend(ranges.iter().filter(|(start, length)| !space.alone.covers(*start, start + *length as u64)));
        let shared = are_shared(&pagemap, &looked_at, &mut entries).about(subject)?;
        let read = match (!shared).then(|| memory::gather(space.pid, ranges, part)) {
            None => 0,
            Some(Ok(read)) => read,
            Some(Err(error)) if error.number == 14 => 0,
            Some(Err(error)) => return Err(error).about(subject),
        };
        if read < total {
            // Shared pages, or an area that the process itself may not read: past its protection, in a slower way.
            let mut offset = 0;
            for (start, length) in ranges {
                memory.read(ForeignAddress(*start), &mut part[offset..offset + length]).about(subject)?;
                offset += length;
            }
        }
        sink(space.space, ranges, part)
    })
}

fn read_content(
    content: &Content,
    buffer: &mut [u8],
    sink: &mut impl FnMut(ObjectId, &[(u64, usize)], &[u8]) -> Result<()>,
) -> Result<()> {
    let subject = || Subject::Object(format!("object {}", content.object));
    let file = File::from(content.file.try_clone().about(subject)?);
    pieces(content.pages.runs(), |ranges, total| {
        let mut offset = 0;
        for (start, length) in ranges {
            let part = &mut buffer[offset..offset + length];
            let mut done = 0;
            while done < part.len() {
                match file.read_at(&mut part[done..], start + done as u64).about(subject)? {
                    // Behind the end of the file: the rest of the last page is zero.
                    0 => break,
                    count => done += count,
                }
            }
            part[done..].fill(0);
            offset += length;
        }
        sink(content.object, ranges, &buffer[..total])
    })
}
