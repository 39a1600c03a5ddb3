//! The source's half: what is still here and has not been given, and the bytes of it out of the stopped processes.
use super::ledger::Ledger;
use crate::failure::{About, Result};
use godwit_image::memory::PAGE_BYTES;
use godwit_image::page_set::{PageSet, Run};
use godwit_image::{ObjectId, Subject};
use godwit_linux::memory::{ForeignAddress, ForeignMemory};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// What one address space's process keeps for the destination.
#[derive(Clone, Debug)]
pub struct Owed {
    /// The space.
    pub owner: ObjectId,
    /// A stopped thread through which its memory is read.
    pub pid: i32,
    /// The pages.
    pub pages: PageSet,
    /// Those of them that are given without being asked for.
    pub pushed: PageSet,
    /// They are in this file, by their addresses, and not in the process.
    pub file: Option<PathBuf>,
}

impl Owed {
    /// Nothing yet of a space.
    pub fn unknown(owner: ObjectId, pid: i32) -> Owed {
        Owed { owner, pid, pages: PageSet::new(), pushed: PageSet::new(), file: None }
    }

    /// So many bytes in a file, which are given without being asked for; none: it is not known how many are still to be given.
    pub fn in_file(owner: ObjectId, pid: i32, file: PathBuf, bytes: u64) -> Owed {
        let end = bytes.next_multiple_of(PAGE_BYTES);
        let pages: PageSet = (end > 0).then_some(Run { start: 0, end }).into_iter().collect();
        Owed { owner, pid, pushed: pages.clone(), pages, file: Some(file) }
    }
}

/// Where the bytes are.
#[derive(Debug)]
enum Memory {
    OfProcess(ForeignMemory),
    InFile(File),
}

impl Memory {
    fn read(&self, start: u64, buffer: &mut [u8], subject: impl Fn() -> Subject) -> Result<()> {
        match self {
            Memory::OfProcess(memory) => memory.read(ForeignAddress(start), buffer).about(subject),
            Memory::InFile(file) => file.read_exact_at(buffer, start).about(subject),
        }
    }
}

#[derive(Debug)]
struct Space {
    owner: ObjectId,
    pid: i32,
    file: Option<PathBuf>,
    memory: Option<Memory>,
    /// Single pages leave them, from anywhere and as many as there are: no fault may cost more than the one before it.
    left: Ledger,
    /// What of it nobody has to ask for.
    pushed: Ledger,
    /// What nobody had to ask for at first.
    pushable: PageSet,
}

/// Gives pages, each once.
#[derive(Debug, Default)]
pub struct Server {
    spaces: Vec<Space>,
    /// All that the other side says it does not have is given without being asked for.
    pushes_all: bool,
}

impl Server {
    /// A server of these pages.
    pub fn new(owed: &[Owed]) -> Server {
        let space = |one: &Owed| {
            let (left, pushed) = (Ledger::new(&one.pages), Ledger::new(&one.pushed));
            let (pushable, file) = (one.pushed.clone(), one.file.clone());
            Space { owner: one.owner, pid: one.pid, file, memory: None, left, pushed, pushable }
        };
        Server { spaces: owed.iter().map(space).collect(), pushes_all: false }
    }

    /// Bytes that have not been given.
    pub fn left(&self) -> u64 {
        self.spaces.iter().map(|space| space.left.bytes()).sum()
    }

    /// What has arrived is not known: the other side will say what it does not have.
    pub fn forget(&mut self) {
        for space in &mut self.spaces {
            (space.left, space.pushed) = (Ledger::default(), Ledger::default());
        }
    }

    /// The other side says that it does not have these.
    pub fn want(&mut self, owner: ObjectId, ranges: &[(u64, usize)]) {
        let run = |(start, length): &(u64, usize)| Run { start: *start, end: start.saturating_add(*length as u64) };
        let wanted: PageSet = ranges.iter().map(run).collect();
        for space in self.spaces.iter_mut().filter(|space| space.owner == owner) {
            space.left.add(&wanted);
            // What is in a file is never asked for.
            let pushed = if self.pushes_all || space.file.is_some() {
                wanted.clone()
            } else {
                wanted.intersection(&space.pushable)
            };
            space.pushed.add(&pushed);
        }
    }

    /// Whether something that is no process's memory has not been given.
    pub fn gives_from_file(&self) -> bool {
        self.spaces.iter().any(|space| space.file.is_some() && space.left.bytes() > 0)
    }

    /// From now on nothing waits to be asked for.
    pub fn push_all(&mut self) {
        self.pushes_all = true;
        self.spaces.iter_mut().for_each(|space| space.pushed = space.left.clone());
    }

    /// Those of some pages that have not been given, as ranges; now they are.
    pub fn take(&mut self, owner: ObjectId, start: u64, length: u64) -> Vec<(u64, usize)> {
        let Some(space) = self.spaces.iter_mut().find(|space| space.owner == owner) else { return Vec::new() };
        let wanted = Run { start, end: start.saturating_add(length) };
        let given: PageSet = space.left.within(wanted).iter().map(|place| place.here).collect();
        space.left.strike(wanted);
        space.pushed.strike(wanted);
        given.runs().iter().map(|run| (run.start, run.bytes() as usize)).collect()
    }

    /// Whether this is a single page that has been pushed, and may be on its way behind others: whoever waits for it can be given it once
    /// more.
    pub fn is_pushed(&self, owner: ObjectId, start: u64, length: u64) -> bool {
        let space = self.spaces.iter().find(|space| space.owner == owner);
        length == PAGE_BYTES
            && space.is_some_and(|space| space.pushable.contains(start) && space.left.origin(start).is_none())
    }

    /// The next pages that nobody has asked for, of at most `limit` bytes; now they are given.
    pub fn take_next(&mut self, limit: usize) -> Option<(ObjectId, Vec<(u64, usize)>)> {
        let space = self.spaces.iter_mut().find(|space| space.pushed.bytes() > 0)?;
        let (mut ranges, mut bytes, mut given) = (Vec::<(u64, usize)>::new(), 0, Vec::new());
        for run in space.pushed.runs() {
            let length = (run.bytes() as usize).min(limit - bytes);
            if length == 0 || ranges.len() == crate::pages::PIECE_RANGES {
                break;
            }
            // What was asked for once more may lie beside what was not.
            match ranges.last_mut() {
                Some((start, before)) if *start + *before as u64 == run.start => *before += length,
                _ => ranges.push((run.start, length)),
            }
            given.push(Run { start: run.start, end: run.start + length as u64 });
            bytes += length;
        }
        for run in given {
            space.left.strike(run);
            space.pushed.strike(run);
        }
        Some((space.owner, ranges))
    }

    /// The bytes of ranges, one after another.
    ///
    /// # Errors
    /// The process is gone.
    pub fn read(&mut self, owner: ObjectId, ranges: &[(u64, usize)], buffer: &mut Vec<u8>) -> Result<()> {
        let total: usize = ranges.iter().map(|(_, length)| length).sum();
        buffer.resize(total, 0);
        let Some(space) = self.spaces.iter_mut().find(|space| space.owner == owner) else { return Ok(()) };
        let subject = || Subject::Process(space.pid);
        let memory = match &mut space.memory {
            Some(memory) => memory,
            none => none.insert(match &space.file {
                Some(path) => Memory::InFile(File::open(path).about(|| Subject::Path(path.display().to_string()))?),
                None => Memory::OfProcess(ForeignMemory::open(space.pid).about(subject)?),
            }),
        };
        let mut offset = 0;
        for (start, length) in ranges {
            memory.read(*start, &mut buffer[offset..offset + length], subject)?;
            offset += length;
        }
        Ok(())
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
        let pushed = [Run { start: 0x1000, end: 0x21000 }].into_iter().collect::<PageSet>().intersection(&pages);
        let all = Owed { pages: pages.clone(), pushed, ..Owed::unknown(owner, 1) };
        let mut server = Server::new(std::slice::from_ref(&all));
        assert_eq!(server.take(owner, 0x3000, 0x1000), [(0x3000, 0x1000)]);
        assert_eq!(server.take(owner, 0x3000, 0x1000), []);
        assert_eq!(server.take(ObjectId(6), 0x4000, 0x1000), []);
        assert_eq!(server.take(owner, 0x8000, 0x4000), [(0x8000, 0x1000)]);
        assert_eq!(server.take_next(0x3000), Some((owner, vec![(0x1000, 0x2000), (0x4000, 0x1000)])));
        assert_eq!(server.take_next(0x30_0000), Some((owner, vec![(0x5000, 0x3000), (0x20000, 0x1000)])));
        assert_eq!((server.take_next(1 << 20), server.left()), (None, 0));
        // On its way, by whatever way; more than a page; nobody's.
        assert!(server.is_pushed(owner, 0x3000, 0x1000) && server.is_pushed(owner, 0x20000, 0x1000));
        assert!(!server.is_pushed(owner, 0x3000, 0x2000) && !server.is_pushed(owner, 0x9000, 0x1000));
        // What nobody had to ask for is given so again.
        server.want(owner, &[(0x3000, 0x1000)]);
        assert_eq!(server.left(), 0x1000);
        assert_eq!(server.take_next(1 << 20), Some((owner, vec![(0x3000, 0x1000)])));
        let mut server = Server::new(&[Owed { pushed: PageSet::new(), ..all }]);
        assert_eq!((server.take_next(1 << 20), server.left()), (None, 0x9000));
        assert_eq!(server.take(owner, 0x3000, 0x1000), [(0x3000, 0x1000)]);
        assert!(!server.is_pushed(owner, 0x3000, 0x1000), "nothing is pushed");
        server.want(owner, &[(0x3000, 0x1000)]);
        assert_eq!((server.take_next(1 << 20), server.left()), (None, 0x9000));
        server.push_all();
        assert_eq!(server.take_next(0x2000), Some((owner, vec![(0x1000, 0x2000)])));
        // Beside what nobody had asked for yet.
        let mut server =
            Server::new(&[Owed { pages: pages.clone(), pushed: pages.clone(), ..Owed::unknown(owner, 1) }]);
        assert_eq!(server.take(owner, 0x1000, 0x1000), [(0x1000, 0x1000)]);
        server.want(owner, &[(0x1000, 0x1000)]);
        assert_eq!(server.take_next(0x8000), Some((owner, vec![(0x1000, 0x8000)])));
        // After a lost link the other side says what it has not, and what was pushed is pushed again.
        let pushed: PageSet = [Run { start: 0x1000, end: 0x3000 }].into_iter().collect();
        let mut server = Server::new(&[Owed { pages: pushed.clone(), pushed, ..Owed::unknown(owner, 1) }]);
        server.forget();
        assert_eq!((server.take_next(1 << 20), server.left()), (None, 0));
        server.want(owner, &[(0x2000, 0x2000)]);
        assert_eq!((server.take_next(1 << 20), server.left()), (Some((owner, vec![(0x2000, 0x1000)])), 0x1000));
        server.push_all();
        server.want(owner, &[(0x5000, 0x1000)]);
        assert_eq!(server.take_next(1 << 20), Some((owner, vec![(0x3000, 0x1000), (0x5000, 0x1000)])));
    }
}
