//! Pages that come before their tree: each address space of the source has a file in memory, in which a page lies at its address.
//!
//! What is in there is memory of the tree to be, not of ours, and shrinks as it is put where it belongs; nothing but what the source
//! confirms in the end is taken from it.
use super::Restorer;
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
    pub fn take(&mut self, stage: u32, ranges: &[(u64, usize)], bytes: Option<&[u8]>) -> Result<()> {
        let subject = || Subject::Object(format!("stage {stage:x}"));
        let limit = self.limit - self.bytes.min(self.limit);
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
        self.bytes += more;
        if more > limit { Err(malformed(stage, "more pages came than the tree can have")) } else { Ok(()) }
    }

    /// Puts pages that are still true into the space of the tree that they are of.
    ///
    /// # Errors
    /// They have not come; what writing them can refuse.
    pub fn put(
        &self,
        stage: u32,
        owner: ObjectId,
        ranges: &[(u64, usize)],
        buffer: &mut Vec<u8>,
        restorer: &mut Restorer,
    ) -> Result<()> {
        let subject = || Subject::Object(format!("stage {stage:x}"));
        let space = self.spaces.get(&stage).ok_or_else(|| malformed(stage, "nothing of it has come"))?;
        for (start, length) in ranges {
            let end = start.saturating_add(*length as u64);
            if !space.pages.covers(*start, end) {
                return Err(malformed(stage, "pages are said to have come that have not"));
            }
            let mut at = *start;
            while at < end {
                let part = (end - at).min(PIECE_BYTES);
                buffer.resize(part as usize, 0);
                space.file.read_exact_at(buffer, at).about(subject)?;
                restorer.write(owner, &[(at, part as usize)], buffer)?;
                memory_file::punch(space.file.as_fd(), at, part).about(subject)?;
                at += part;
            }
        }
        Ok(())
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
        staging.take(7, &[(low, 4096), (high, 4096)], Some(&[page(1), page(2)].concat())).unwrap();
        staging.take(7, &[(low, 4096)], Some(&page(3))).unwrap();
        staging.take(7, &[(high, 8192)], None).unwrap();
        let space = &staging.spaces[&7];
        let read = |at: u64| {
            let mut bytes = page(9);
            space.file.read_exact_at(&mut bytes, at).unwrap();
            bytes
        };
        assert_eq!((read(low), read(high)), (page(3), page(0)));
        assert_eq!(space.pages.bytes(), 3 * 4096);
        assert!(staging.take(7, &[(low + 1, 4096)], None).is_err());
        assert!(staging.take(7, &[(ADDRESS_MAX, 4096)], None).is_err());
        assert!(staging.take(7, &[(u64::MAX - 4095, 4096)], None).is_err());
        staging.limit = 3 * 4096;
        assert!(staging.take(8, &[(low, 4096)], None).is_err());
    }
}
