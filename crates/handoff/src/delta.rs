//! Deltas: of pages that are sent again only what has changed travels. Both sides remember the version that was sent last of the same
//! pages, as many as fit into a fixed memory; which ones follows from the frames alone, so that nobody has to say.
//!
//! Who takes one in trusts nothing: all lengths are limited before anything is allocated, and what comes out must have the checksum of
//! its pages. Two memories that differed would be found so.
//!
//! # References
//! P. Svärd, B. Hudzia, J. Tordsson, E. Elmroth: Evaluation of delta compression techniques for efficient live migration of large
//! virtual machines (VEE 2011)

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::bytes::{Malformed, Reader};
use crate::frame::{DELTA_PAGES, Runs, STAGE_FIRST};
use crate::packed::PACKED_LIMIT;

const PAGE: usize = 4096;
const PAGE_SHIFT: u8 = 12;
/// Pages that each side remembers at most: 16 MiB.
pub const PAGES_MAX: usize = 4096;

/// What follows behind the payload, after the exclusive or with what is remembered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// As it is.
    Plain = 0,
    /// One LZ4 block.
    Lz4 = 1,
}

/// The payload of a [`DELTA_PAGES`] frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delta {
    /// The pages' address space while the tree ran.
    pub stage: u32,
    /// How the bytes are packed.
    pub method: Method,
    /// Bytes that follow behind the payload.
    pub length: u32,
    /// CRC-32 (IEEE) of the pages.
    pub checksum: u32,
    /// Which pages, all of one owner: the stage, whose versions are remembered from now on, or a space of the captured state.
    pub runs: Runs,
}

impl Delta {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.stage.to_le_bytes());
        out.extend([self.method as u8, 0, 0, 0]);
        out.extend(self.length.to_le_bytes());
        out.extend(self.checksum.to_le_bytes());
        self.runs.encode(out);
    }

    pub(crate) fn decode(flags: u8, payload: &[u8]) -> Result<Delta, Malformed> {
        let (head, runs) = payload.split_first_chunk::<16>().ok_or(Malformed::TooShort)?;
        let mut reader = Reader::new(head);
        let stage = reader.u32()?;
        let method = match reader.array::<4>()? {
            [0, 0, 0, 0] => Method::Plain,
            [1, 0, 0, 0] => Method::Lz4,
            _ => return Err(Malformed::BadValue("method of packing")),
        };
        let (length, checksum) = (reader.u32()?, reader.u32()?);
        let runs = Runs::decode(DELTA_PAGES, flags, runs)?;
        let bytes = runs.body_length();
        if stage < STAGE_FIRST {
            return Err(Malformed::BadValue("stage"));
        }
        if runs.page_shift != PAGE_SHIFT {
            return Err(Malformed::BadValue("page size"));
        }
        if bytes > PACKED_LIMIT as u64 {
            return Err(Malformed::TooLong { length: bytes, limit: PACKED_LIMIT as u64 });
        }
        let fits = match method {
            Method::Plain => u64::from(length) == bytes,
            Method::Lz4 => length > 0 && u64::from(length) < bytes,
        };
        if !fits {
            return Err(Malformed::BadValue("packed length"));
        }
        if runs.runs.iter().any(|run| run.owner != runs.runs[0].owner) {
            return Err(Malformed::BadValue("owner"));
        }
        Ok(Delta { stage, method, length, checksum, runs })
    }

    /// Puts the pages into `pages`, which has their length, and remembers them if they are the stage's.
    ///
    /// # Errors
    /// [`Malformed`]: the bytes do not become these pages.
    pub fn unpack(&self, memory: &mut Memory, body: &[u8], pages: &mut [u8]) -> Result<(), Malformed> {
        let bad = Malformed::BadValue("packed pages");
        if body.len() as u64 != u64::from(self.length) || pages.len() as u64 != self.runs.body_length() {
            return Err(bad);
        }
        match self.method {
            Method::Plain => pages.copy_from_slice(body),
            Method::Lz4 => {
                if lz4_flex::block::decompress_into(body, pages).ok() != Some(pages.len()) {
                    return Err(bad);
                }
            }
        }
        memory.apply(self.stage, &self.runs, pages);
        if crc32fast::hash(pages) != self.checksum {
            return Err(Malformed::BadChecksum);
        }
        if self.is_remembered() {
            memory.remember(self.stage, &self.runs, pages);
        }
        Ok(())
    }

    fn is_remembered(&self) -> bool {
        self.runs.runs.iter().all(|run| run.owner == self.stage)
    }
}

/// What one side remembers.
#[derive(Debug, Default)]
pub struct Memory {
    /// By stage and number of the page.
    pages: BTreeMap<(u32, u64), Box<[u8]>>,
}

fn numbers(runs: &Runs) -> impl Iterator<Item = u64> {
    runs.runs.iter().flat_map(|run| run.start..run.start + u64::from(run.count))
}

impl Memory {
    /// How many of these pages it remembers.
    pub fn known(&self, stage: u32, runs: &Runs) -> usize {
        numbers(runs).filter(|page| self.pages.contains_key(&(stage, *page))).count()
    }

    /// Whether it can remember more.
    pub fn has_room(&self) -> bool {
        self.pages.len() < PAGES_MAX
    }

    /// Exclusive or with what is remembered, in place: to what has changed, and back.
    pub fn apply(&self, stage: u32, runs: &Runs, pages: &mut [u8]) {
        for (number, page) in numbers(runs).zip(pages.chunks_exact_mut(PAGE)) {
            if let Some(known) = self.pages.get(&(stage, number)) {
                page.iter_mut().zip(known).for_each(|(byte, known)| *byte ^= known);
            }
        }
    }

    /// Remembers these versions: of pages that it knows, and of others as long as there is room.
    pub fn remember(&mut self, stage: u32, runs: &Runs, pages: &[u8]) {
        for (number, page) in numbers(runs).zip(pages.chunks_exact(PAGE)) {
            if let Some(known) = self.pages.get_mut(&(stage, number)) {
                known.copy_from_slice(page);
            } else if self.has_room() {
                self.pages.insert((stage, number), page.into());
            }
        }
    }

    /// Packs pages of `stage`, to be sent under the owner of their runs, and remembers them if that is the stage; what follows behind the
    /// payload is put into `out`. `None`: nothing is gained by it, now or later.
    pub fn pack(&mut self, stage: u32, runs: &Runs, pages: &[u8], out: &mut Vec<u8>) -> Option<Delta> {
        let stays = runs.runs.iter().all(|run| run.owner == stage) && self.has_room();
        let known = self.known(stage, runs);
        if (known == 0 && !stays) || pages.len() > PACKED_LIMIT || pages.len() as u64 != runs.body_length() {
            return None;
        }
        let mut changed = pages.to_vec();
        self.apply(stage, runs, &mut changed);
        let method = match crate::packed::pack(&changed, out) {
            Some(_) => Method::Lz4,
            // Nothing is won by what is not less, unless it is for the next time.
            None if known > 0 && !stays => return None,
            None => {
                out.clear();
                out.extend_from_slice(&changed);
                Method::Plain
            }
        };
        let (length, checksum) = (u32::try_from(out.len()).ok()?, crc32fast::hash(pages));
        let delta = Delta { stage, method, length, checksum, runs: runs.clone() };
        if delta.is_remembered() {
            self.remember(stage, runs, pages);
        }
        Some(delta)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Run;
    use alloc::vec;
    use godwit_deterministic::Random;

    const STAGE: u32 = STAGE_FIRST + 3;

    fn runs(owner: u32, start: u64, count: u32) -> Runs {
        Runs { page_shift: 12, body_checksum: None, runs: vec![Run { owner, start, count }] }
    }

    /// Sends `pages` from one memory to the other; how many bytes that took.
    fn send(sides: &mut [Memory; 2], runs: &Runs, pages: &[u8]) -> Option<usize> {
        let mut out = Vec::new();
        let delta = sides[0].pack(STAGE, runs, pages, &mut out)?;
        let mut payload = Vec::new();
        delta.encode(&mut payload);
        let delta = Delta::decode(0, &payload).unwrap();
        let mut there = vec![1; pages.len()];
        delta.unpack(&mut sides[1], &out, &mut there).unwrap();
        assert!(there == pages);
        Some(out.len())
    }

    #[test]
    fn of_a_page_that_is_sent_again_only_what_has_changed_travels() {
        let mut random = Random::new(5);
        let mut sides = [Memory::default(), Memory::default()];
        let mut pages = vec![0; 64 * PAGE];
        random.fill(&mut pages);
        assert_eq!(send(&mut sides, &runs(STAGE, 100, 64), &pages), Some(pages.len()), "noise is remembered as it is");
        for round in 0..20 {
            for _ in 0..100 {
                let at = random.below(pages.len() as u64) as usize;
                pages[at] = pages[at].wrapping_add(1);
            }
            let sent = send(&mut sides, &runs(STAGE, 100, 64), &pages).unwrap();
            assert!(sent < 4096, "round {round}: {sent}");
        }
        // Part of them among others, and under the name that the space has in the end.
        pages[9] = 77;
        assert!(send(&mut sides, &runs(9, 100, 64), &pages).is_some_and(|sent| sent < 2048));
        assert!(send(&mut sides, &runs(9, 110, 1), &pages[10 * PAGE..11 * PAGE]).is_some_and(|sent| sent < 100));
        assert_eq!(send(&mut sides, &runs(9, 1000, 1), &pages[..PAGE]), None, "nothing is remembered of it");
        // What was sent under that name is not remembered.
        assert!(
            sides[0].pages[&(STAGE, 100)][9] != 77 && sides[1].pages[&(STAGE, 100)] == sides[0].pages[&(STAGE, 100)]
        );
    }

    #[test]
    fn both_sides_remember_the_same_and_no_more_than_they_may() {
        let mut random = Random::new(6);
        let mut sides = [Memory::default(), Memory::default()];
        for _ in 0..400 {
            let (start, count) = (random.below(6000), 1 + random.below(40) as u32);
            let mut pages = vec![0; count as usize * PAGE];
            for page in pages.chunks_exact_mut(PAGE) {
                if random.below(3) == 0 {
                    random.fill(page);
                }
                page[7] = random.below(256) as u8;
            }
            send(&mut sides, &runs(STAGE + random.below(2) as u32, start, count), &pages);
            assert!(sides[0].pages == sides[1].pages && sides[0].pages.len() <= PAGES_MAX);
        }
        assert!(sides[0].pages.len() > 1000);
        // A full one learns nothing new, and goes on with what it knows.
        for start in 0..PAGES_MAX as u64 {
            send(&mut sides, &runs(STAGE, 10_000 + start, 1), &[3; PAGE]);
        }
        assert!(!sides[0].has_room() && sides[0].pages == sides[1].pages);
        assert_eq!(send(&mut sides, &runs(STAGE, 90_000, 1), &[3; PAGE]), None);
    }

    #[test]
    fn what_does_not_become_its_pages_is_refused() {
        let mut random = Random::new(7);
        let mut sides = [Memory::default(), Memory::default()];
        let mut pages = vec![0; 4 * PAGE];
        random.fill(&mut pages);
        send(&mut sides, &runs(STAGE, 1, 4), &pages).unwrap();
        pages[5000] ^= 1;
        let mut out = Vec::new();
        let delta = sides[0].pack(STAGE, &runs(STAGE, 1, 4), &pages, &mut out).unwrap();
        let mut there = vec![0; pages.len()];
        // Another memory.
        assert!(delta.unpack(&mut Memory::default(), &out, &mut there).is_err());
        for _ in 0..500 {
            let mut bad = out.clone();
            let at = random.below(bad.len() as u64) as usize;
            bad[at] ^= 1 << random.below(8);
            let mut memory = Memory::default();
            memory.pages.clone_from(&sides[1].pages);
            if delta.unpack(&mut memory, &bad, &mut there).is_ok() {
                assert!(there == pages);
            }
        }
        assert!(delta.unpack(&mut sides[1], &out[1..], &mut there).is_err());
        assert!(delta.unpack(&mut sides[1], &out, &mut there[PAGE..]).is_err());
        delta.unpack(&mut sides[1], &out, &mut there).unwrap();
        let encoded = |delta: &Delta| {
            let mut payload = Vec::new();
            delta.encode(&mut payload);
            Delta::decode(0, &payload)
        };
        assert_eq!(encoded(&delta).as_ref(), Ok(&delta));
        for bad in [
            Delta { stage: 5, ..delta.clone() },
            Delta { length: 0, ..delta.clone() },
            Delta { length: 4 * PAGE as u32, ..delta.clone() },
            Delta { method: Method::Plain, ..delta.clone() },
            Delta { runs: Runs { page_shift: 21, ..delta.runs.clone() }, ..delta.clone() },
            Delta { runs: runs(STAGE, 1, 257), ..delta.clone() },
        ] {
            assert!(encoded(&bad).is_err(), "{bad:?}");
        }
    }
}
