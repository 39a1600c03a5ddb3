//! Pages that come before their tree: each address space of the source has a file in memory, in which a page lies at its address. Those of
//! the root's large memory, where that is made already, go straight into it.
//!
//! What is in there is memory of the tree to be, not of ours, and shrinks as it is put where it belongs; nothing but what the source
//! confirms in the end is taken from it.
use super::{Reserve, Restorer};
use crate::failure::{About, Result};
use godwit_image::memory::PAGE_BYTES;
use godwit_image::page_set::{PageSet, Run};
use godwit_image::{Code, ObjectId, Refusal, Subject};
use godwit_linux::memory_file;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

/// Address spaces that are taken.
const SPACES_MAX: usize = 1 << 16;
/// Bytes that are put in their place at once.
const PIECE_BYTES: u64 = 1 << 20;
const ADDRESS_MAX: u64 = 1 << 47;

/// One address space.
#[derive(Debug)]
struct Space {
    file: File,
    pages: PageSet,
}

/// The stage of the root.
const ROOT: u32 = 1 << 31;

/// What has come so far.
#[derive(Debug, Default)]
pub struct Staging {
    spaces: BTreeMap<u32, Space>,
    /// Bytes that may be in there.
    limit: u64,
    bytes: u64,
}

fn malformed(stage: u32, cause: &str) -> Refusal {
    Refusal::new(Code::MALFORMED, Subject::Object(format!("stage {stage:x}")), cause)
}

/// The pages of ranges.
fn pages_of(stage: u32, ranges: &[(u64, usize)]) -> Result<PageSet> {
    let run = |(start, length): &(u64, usize)| {
        let run = Run { start: *start, end: start.saturating_add(*length as u64) };
        let is_sound = (run.start | run.end).is_multiple_of(PAGE_BYTES) && run.end <= ADDRESS_MAX;
        is_sound.then_some(run).ok_or_else(|| malformed(stage, "a range is none of pages"))
    };
    ranges.iter().map(run).collect()
}

impl Staging {
    /// Empty, for a tree of so many bytes, which may grow while it is being sent.
    pub fn new(tree_bytes: u64) -> Staging {
        const GROWTH: u64 = 256 << 20;
        Staging { limit: tree_bytes.saturating_mul(2).saturating_add(GROWTH), ..Staging::default() }
    }

    fn space(&mut self, stage: u32) -> Result<&mut Space> {
        if self.spaces.len() >= SPACES_MAX {
            return Err(malformed(stage, "there are too many"));
        }
        if let std::collections::btree_map::Entry::Vacant(vacant) = self.spaces.entry(stage) {
            let subject = || Subject::Object(format!("stage {stage:x}"));
            let file = memory_file::create(b"staged", None).about(subject)?;
            memory_file::set_length(file.as_fd(), ADDRESS_MAX).about(subject)?;
            vacant.insert(Space { file: file.into(), pages: PageSet::new() });
        }
        self.spaces.get_mut(&stage).ok_or_else(|| malformed(stage, "it is unknown"))
    }

    /// Takes pages; `bytes` are those of the ranges one after another, or nothing where they are zero.
    ///
    /// # Errors
    /// They cannot be pages, or are more than the tree can have; memory is short.
    pub(super) fn take(
        &mut self,
        reserve: Option<&mut Reserve>,
        stage: u32,
        ranges: &[(u64, usize)],
        bytes: Option<&[u8]>,
    ) -> Result<()> {
        let Some(reserve) = reserve.filter(|_| stage == ROOT) else { return self.keep(stage, ranges, bytes) };
        let mut offset = 0;
        for (start, length) in ranges {
            let part = bytes.and_then(|bytes| bytes.get(offset..offset + length));
            offset += length;
            match reserve.take(Run { start: *start, end: start.saturating_add(*length as u64) }, part)? {
                Some(more) => self.count(stage, more)?,
                None => self.keep(stage, &[(*start, *length)], part)?,
            }
        }
        Ok(())
    }

    /// Has no memory for pages any more that are not true.
    ///
    /// # Errors
    /// They cannot be pages, or nothing of that stage has come.
    pub(super) fn give_back(
        &mut self,
        reserve: Option<&mut Reserve>,
        stage: u32,
        ranges: &[(u64, usize)],
    ) -> Result<()> {
        let subject = || Subject::Object(format!("stage {stage:x}"));
        let pages = pages_of(stage, ranges)?;
        let gone = match reserve.filter(|_| stage == ROOT) {
            Some(reserve) => reserve.give_back(&pages)?,
            None => PageSet::new(),
        };
        let mut bytes = gone.bytes();
        if let Some(space) = self.spaces.get_mut(&stage) {
            for run in pages.difference(&gone).intersection(&space.pages).runs() {
                memory_file::punch(space.file.as_fd(), run.start, run.bytes()).about(subject)?;
                bytes += run.bytes();
            }
            space.pages = space.pages.difference(&pages);
        }
        self.bytes = self.bytes.saturating_sub(bytes);
        Ok(())
    }

    fn count(&mut self, stage: u32, more: u64) -> Result<()> {
        self.bytes = self.bytes.saturating_add(more);
        if self.bytes > self.limit { Err(malformed(stage, "more pages came than the tree can have")) } else { Ok(()) }
    }

    /// Takes pages out of a reserve that is not, or not all, what the root is to be.
    pub(super) fn rescue(&mut self, reserve: &Reserve, stays: &PageSet) -> Result<()> {
        let mut buffer = Vec::new();
        for run in reserve.staged().difference(stays).runs() {
            let mut at = run.start;
            while at < run.end {
                let part = (run.end - at).min(PIECE_BYTES) as usize;
                buffer.resize(part, 0);
                reserve.read(at, &mut buffer)?;
                // It was counted when it came.
                self.limit = self.limit.saturating_add(part as u64);
                self.keep(ROOT, &[(at, part)], Some(&buffer))?;
                at += part as u64;
            }
        }
        Ok(())
    }

    /// Keeps pages in the file of their space.
    fn keep(&mut self, stage: u32, ranges: &[(u64, usize)], bytes: Option<&[u8]>) -> Result<()> {
        let subject = || Subject::Object(format!("stage {stage:x}"));
        let space = self.space(stage)?;
        let before = space.pages.bytes();
        let mut offset = 0;
        for (start, length) in ranges {
            let end = start.saturating_add(*length as u64);
            if (start | end) % PAGE_BYTES != 0 || end > ADDRESS_MAX {
                return Err(malformed(stage, "a range is none of pages"));
            }
            space.pages.insert(Run { start: *start, end });
            match bytes.and_then(|bytes| bytes.get(offset..offset + length)) {
                Some(part) => space.file.write_all_at(part, *start).about(subject)?,
                // What was there before is to be zero now; where nothing was, it is.
                None => memory_file::punch(space.file.as_fd(), *start, *length as u64).about(subject)?,
            }
            offset += length;
        }
        let more = space.pages.bytes() - before;
        self.count(stage, more)
    }

    /// Reads pages that are still true, and has no memory for them any more.
    fn give(&self, stage: u32, at: u64, buffer: &mut [u8]) -> Result<()> {
        let subject = || Subject::Object(format!("stage {stage:x}"));
        let space = self.spaces.get(&stage).ok_or_else(|| malformed(stage, "nothing of it has come"))?;
        if !space.pages.covers(at, at.saturating_add(buffer.len() as u64)) {
            return Err(malformed(stage, "pages are said to have come that have not"));
        }
        space.file.read_exact_at(buffer, at).about(subject)?;
        memory_file::punch(space.file.as_fd(), at, buffer.len() as u64).about(subject)
    }
}

impl Restorer {
    /// Puts pages that came before the tree, and are still true, into the space that they are of.
    ///
    /// # Errors
    /// They have not come; what writing them can refuse.
    pub fn put_staged(&mut self, stage: u32, owner: ObjectId, ranges: &[(u64, usize)]) -> Result<()> {
        // Whether the root is what was made for it is known then.
        self.ready_to_write(owner)?;
        let in_place = self.in_place(stage, owner);
        let wanted: PageSet = ranges
            .iter()
            .map(|(start, length)| Run { start: *start, end: start.saturating_add(*length as u64) })
            .collect();
        let there = wanted.intersection(&in_place);
        self.filled.entry(owner).or_default().extend(&there);
        let mut buffer = Vec::new();
        for run in wanted.difference(&there).runs() {
            let mut at = run.start;
            while at < run.end {
                let part = (run.end - at).min(PIECE_BYTES) as usize;
                buffer.resize(part, 0);
                self.staging.give(stage, at, &mut buffer)?;
                self.write(owner, &[(at, part)], &buffer)?;
                at += part as u64;
            }
        }
        Ok(())
    }

    /// What of a stage lies in the root's memory already.
    fn in_place(&self, stage: u32, owner: ObjectId) -> PageSet {
        let reserved = self.reserved.as_ref().filter(|reserved| stage == ROOT && reserved.space == owner);
        reserved.map(|reserved| reserved.staged.clone()).unwrap_or_default()
    }

    /// Nothing more of what came before the tree is true.
    pub fn forget_staged(&mut self) {
        self.staging = Staging::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_version_of_a_page_is_there_and_nonsense_is_refused() {
        let page = |byte: u8| vec![byte; 4096];
        let mut staging = Staging::new(0);
        let (low, high) = (0x7f00_0000_0000, 0x7fff_ffff_e000);
        staging.keep(7, &[(low, 4096), (high, 4096)], Some(&[page(1), page(2)].concat())).unwrap();
        staging.keep(7, &[(low, 4096)], Some(&page(3))).unwrap();
        staging.keep(7, &[(high, 8192)], None).unwrap();
        let space = &staging.spaces[&7];
        let read = |at: u64| {
            let mut bytes = page(9);
            space.file.read_exact_at(&mut bytes, at).unwrap();
            bytes
        };
        assert_eq!((read(low), read(high)), (page(3), page(0)));
        assert_eq!(space.pages.bytes(), 3 * 4096);
        staging.give_back(None, 7, &[(low, 8192)]).unwrap();
        staging.give_back(None, 9, &[(low, 8192)]).unwrap();
        let space = &staging.spaces[&7];
        assert_eq!((space.pages.bytes(), staging.bytes), (2 * 4096, 2 * 4096));
        assert!(!space.pages.contains(low) && space.pages.contains(high));
        assert!(staging.give_back(None, 7, &[(low + 1, 4096)]).is_err());
        staging.keep(7, &[(low, 4096)], Some(&page(3))).unwrap();
        assert!(staging.keep(7, &[(low + 1, 4096)], None).is_err());
        assert!(staging.keep(7, &[(ADDRESS_MAX, 4096)], None).is_err());
        assert!(staging.keep(7, &[(u64::MAX - 4095, 4096)], None).is_err());
        staging.limit = 3 * 4096;
        assert!(staging.keep(8, &[(low, 4096)], None).is_err());
    }
}
