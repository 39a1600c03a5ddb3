//! The source's half: what is still here and has not been given, and the bytes of it out of the stopped processes.
use crate::failure::{About, Result};
use godwit_image::memory::PAGE_BYTES;
use godwit_image::page_set::{PageSet, Run};
use godwit_image::{ObjectId, Subject};
use godwit_linux::memory::{ForeignAddress, ForeignMemory};

/// What one address space's process keeps for the destination.
#[derive(Clone, Debug)]
pub struct Owed {
    /// The space.
    pub owner: ObjectId,
    /// A stopped thread through which its memory is read.
    pub pid: i32,
    /// The pages.
    pub pages: PageSet,
}

#[derive(Debug)]
struct Space {
    owner: ObjectId,
    pid: i32,
    memory: Option<ForeignMemory>,
    left: PageSet,
}

/// Gives pages, each once.
#[derive(Debug, Default)]
pub struct Server {
    spaces: Vec<Space>,
    buffer: Vec<u8>,
}

impl Server {
    /// A server of these pages.
    pub fn new(owed: &[Owed]) -> Server {
        let space = |one: &Owed| Space { owner: one.owner, pid: one.pid, memory: None, left: one.pages.clone() };
        Server { spaces: owed.iter().map(space).collect(), buffer: Vec::new() }
    }

    /// Bytes that have not been given.
    pub fn left(&self) -> u64 {
        self.spaces.iter().map(|space| space.left.bytes()).sum()
    }

    /// Nothing is known to be wanted: the other side will say what is.
    pub fn forget(&mut self) {
        self.spaces.iter_mut().for_each(|space| space.left = PageSet::new());
    }

    /// The other side says that it does not have these.
    pub fn want(&mut self, owner: ObjectId, ranges: &[(u64, usize)]) {
        for space in self.spaces.iter_mut().filter(|space| space.owner == owner) {
            for (start, length) in ranges {
                space.left.insert(Run { start: *start, end: start.saturating_add(*length as u64) });
            }
        }
    }

    /// Those of some pages that have not been given, as ranges; now they are.
    pub fn take(&mut self, owner: ObjectId, start: u64, length: u64) -> Vec<(u64, usize)> {
        let Some(space) = self.spaces.iter_mut().find(|space| space.owner == owner) else { return Vec::new() };
        let wanted: PageSet = [Run { start, end: start.saturating_add(length) }].into_iter().collect();
        let given = space.left.intersection(&wanted);
        if !given.is_empty() {
            space.left = space.left.difference(&given);
        }
        given.runs().iter().map(|run| (run.start, run.bytes() as usize)).collect()
    }

    /// The next pages that nobody has asked for, of at most `limit` bytes; now they are given.
    pub fn take_next(&mut self, limit: usize) -> Option<(ObjectId, Vec<(u64, usize)>)> {
        let space = self.spaces.iter_mut().find(|space| !space.left.is_empty())?;
        let (mut ranges, mut bytes, mut given) = (Vec::new(), 0, PageSet::new());
        for run in space.left.runs() {
            let length = (run.bytes() as usize).min(limit - bytes);
            if length == 0 || ranges.len() == crate::pages::PIECE_RANGES {
                break;
            }
            ranges.push((run.start, length));
            given.insert(Run { start: run.start, end: run.start + length as u64 });
            bytes += length;
        }
        space.left = space.left.difference(&given);
        Some((space.owner, ranges))
    }

    /// The bytes of ranges, one after another.
    ///
    /// # Errors
    /// The process is gone.
    pub fn read(&mut self, owner: ObjectId, ranges: &[(u64, usize)]) -> Result<&[u8]> {
        let total: usize = ranges.iter().map(|(_, length)| length).sum();
        self.buffer.resize(total.next_multiple_of(PAGE_BYTES as usize), 0);
        let Some(space) = self.spaces.iter_mut().find(|space| space.owner == owner) else { return Ok(&[]) };
        let subject = || Subject::Process(space.pid);
        let memory = match &mut space.memory {
            Some(memory) => memory,
            none => none.insert(ForeignMemory::open(space.pid).about(subject)?),
        };
        let mut offset = 0;
        for (start, length) in ranges {
            memory.read(ForeignAddress(*start), &mut self.buffer[offset..offset + length]).about(subject)?;
            offset += length;
        }
        Ok(&self.buffer[..total])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_page_is_given_once() {
        let pages: PageSet =
            [Run { start: 0x1000, end: 0x9000 }, Run { start: 0x20000, end: 0x21000 }].into_iter().collect();
        let owner = ObjectId(5);
        let mut server = Server::new(&[Owed { owner, pid: 1, pages }]);
        assert_eq!(server.take(owner, 0x3000, 0x1000), [(0x3000, 0x1000)]);
        assert_eq!(server.take(owner, 0x3000, 0x1000), []);
        assert_eq!(server.take(ObjectId(6), 0x4000, 0x1000), []);
        assert_eq!(server.take(owner, 0x8000, 0x4000), [(0x8000, 0x1000)]);
        assert_eq!(server.take_next(0x3000), Some((owner, vec![(0x1000, 0x2000), (0x4000, 0x1000)])));
        assert_eq!(server.take_next(0x30_0000), Some((owner, vec![(0x5000, 0x3000), (0x20000, 0x1000)])));
        assert_eq!((server.take_next(1 << 20), server.left()), (None, 0));
        server.want(owner, &[(0x3000, 0x1000)]);
        assert_eq!(server.left(), 0x1000);
        server.forget();
        assert_eq!(server.left(), 0);
    }
}
