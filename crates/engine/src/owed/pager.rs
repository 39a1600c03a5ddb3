//! The destination's half: tells what processes wait for, and places what comes, wherever it belongs by then.
//!
//! It never touches the memory that it fills: an access of its own to a missing page would wait for itself.
use super::gathering::Gathering;
use super::ledger::Ledger;
use crate::failure::{About, Result};
use godwit_image::memory::PAGE_BYTES;
use godwit_image::page_set::{PageSet, Run};
use godwit_image::{ObjectId, Subject};
use godwit_linux::userfaultfd::{Happening, UserFault};
use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd};

const EEXIST: i32 = 17;
const ENOENT: i32 = 2;
const EAGAIN: i32 = 11;
const ESRCH: i32 = 3;
/// Neighbours that are asked for together with a page at most, where a process walks through its memory.
const NEIGHBOURS_MAX: u64 = 15;

/// Pages that a process waits for, or will soon.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// Whose, at the source.
    pub owner: ObjectId,
    /// First address there.
    pub start: u64,
    /// Bytes.
    pub length: u64,
}

#[derive(Debug)]
struct Space {
    owner: ObjectId,
    fault: UserFault,
    ledger: Ledger,
    /// Addresses for which threads wait, as far as that is known.
    waiting: BTreeSet<u64>,
    /// Behind the page that was asked for last, and how many neighbours were asked for with it.
    next: u64,
    neighbours: u64,
}

/// What became of a try to place something.
enum Placed {
    Bytes(usize),
    /// The first page is there already.
    Exists,
    /// Something is changing there: its event comes first.
    Changing,
    /// Nothing of that kind is mapped there any more.
    Gone,
    /// The process is.
    Dead,
}

fn placed(result: godwit_linux::errno::Result<usize>) -> Result<Placed> {
    Ok(match result {
        Ok(bytes) => Placed::Bytes(bytes),
        Err(error) if error.number == EEXIST => Placed::Exists,
        Err(error) if error.number == EAGAIN => Placed::Changing,
        Err(error) if error.number == ENOENT => Placed::Gone,
        Err(error) if error.number == ESRCH => Placed::Dead,
        Err(error) => return Err(error).about(|| Subject::Object("owed pages".to_owned())),
    })
}

/// Serves the faults of every address space that is owed pages.
#[derive(Debug, Default)]
pub struct Pager {
    spaces: Vec<Space>,
    /// What comes likewise and is nobody's memory.
    gathering: Option<Gathering>,
    /// So many of them are known to who holds them besides us.
    kept: usize,
    /// Faults that were told.
    pub faults: u64,
    /// Pages that came.
    pub pages: u64,
}

impl Pager {
    /// Begins to serve a space whose missing pages are registered with `fault`.
    pub fn add(&mut self, owner: ObjectId, fault: UserFault, owed: &PageSet) {
        let ledger = Ledger::new(owed);
        let (waiting, next, neighbours) = (BTreeSet::new(), 0, 0);
        self.spaces.push(Space { owner, fault, ledger, waiting, next, neighbours });
    }

    /// Expects so many bytes of no space as well: see [`Pager::gathered`].
    pub fn gather(&mut self, owner: ObjectId, bytes: u64) {
        self.gathering = Some(Gathering::new(owner, bytes));
    }

    /// Those bytes, in whole pages, when all have come: once.
    pub fn gathered(&mut self) -> Option<Vec<u8>> {
        self.gathering.take_if(|gathering| gathering.is_complete()).map(Gathering::into_bytes)
    }

    /// Whether such bytes are still to come, or to be taken.
    pub fn gathers(&self) -> bool {
        self.gathering.is_some()
    }

    /// Further descriptors of the same, for whoever must hold them when we are gone: as long as one is open, what is missing is waited for.
    /// Those that have come since the last call.
    ///
    /// # Errors
    /// No descriptor is free.
    pub fn duplicates(&mut self) -> Result<Vec<UserFault>> {
        let first = std::mem::replace(&mut self.kept, self.spaces.len());
        let duplicate = |space: &Space| space.fault.duplicate().about(|| Subject::Object("owed pages".to_owned()));
        self.spaces[first..].iter().map(duplicate).collect()
    }

    /// What to wait for: readable when something has happened.
    pub fn files(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.spaces.iter().map(|space| space.fault.as_fd())
    }

    /// Bytes that are owed.
    pub fn left(&self) -> u64 {
        let gathering = self.gathering.as_ref().map_or(0, |gathering| gathering.ledger.bytes());
        self.spaces.iter().map(|space| space.ledger.bytes()).sum::<u64>() + gathering
    }

    /// Nothing is owed to anybody, and nobody waits.
    pub fn is_finished(&self) -> bool {
        self.gathering.is_none()
            && self.spaces.iter().all(|space| space.ledger.bytes() == 0 && space.waiting.is_empty())
    }

    /// Somebody waits.
    pub fn is_awaited(&self) -> bool {
        self.spaces.iter().any(|space| !space.waiting.is_empty())
    }

    /// Somebody waits for what cannot be settled before a moment has passed.
    pub fn is_restless(&self) -> bool {
        let stuck = |space: &Space| space.waiting.iter().any(|address| space.ledger.origin(*address).is_none());
        self.spaces.iter().any(stuck)
    }

    /// Nothing is owed to who has ended, or has become another program: nobody tells of that.
    pub fn forget_the_dead(&mut self) {
        for space in self.spaces.iter_mut().filter(|space| space.ledger.bytes() > 0) {
            let Some(address) = space.ledger.first() else { continue };
            // It changes nothing: these pages are watched for being missing, not for being written.
            if space.fault.protect(address, PAGE_BYTES, false).is_err_and(|error| error.number == ESRCH) {
                space.ledger = Ledger::default();
                space.waiting.clear();
            }
        }
    }

    /// Nothing comes any more: whoever touches what is owed gets SIGBUS, and who waits for it does at once. Returns how many bytes
    /// are lost.
    pub fn poison(&mut self) -> u64 {
        let mut lost = 0;
        for space in &mut self.spaces {
            for place in space.ledger.within(Run { start: 0, end: u64::MAX }) {
                let (mut start, end) = (place.here.start, place.here.end);
                while start < end {
                    match space.fault.poison(start, end - start) {
                        Ok(done) if done > 0 => (start, lost) = (start + done as u64, lost + done as u64),
                        // Something else is there now, or it is changing: who waits looks for itself, and waits again or is ended.
                        _ => {
                            let _ = space.fault.wake(start, PAGE_BYTES);
                            start += PAGE_BYTES;
                        }
                    }
                }
            }
        }
        lost
    }

    /// What the source still has to give, by owner.
    pub fn owed(&self) -> Vec<(ObjectId, PageSet)> {
        let gathering = self.gathering.iter().map(|gathering| (gathering.owner, gathering.ledger.at_source()));
        let mut owed: Vec<(ObjectId, PageSet)> = gathering.filter(|(_, pages)| !pages.is_empty()).collect();
        for space in self.spaces.iter().filter(|space| space.ledger.bytes() > 0) {
            let pages = space.ledger.at_source();
            match owed.iter_mut().find(|(owner, _)| *owner == space.owner) {
                Some((_, all)) => all.extend(&pages),
                None => owed.push((space.owner, pages)),
            }
        }
        owed
    }

    /// What threads wait for, to be asked for once more after the link was lost.
    pub fn awaited(&self) -> Vec<Wanted> {
        let of_space = |space: &Space| {
            let origins = space.waiting.iter().filter_map(|address| space.ledger.origin(*address));
            origins.map(|start| Wanted { owner: space.owner, start, length: PAGE_BYTES }).collect::<Vec<Wanted>>()
        };
        self.spaces.iter().flat_map(of_space).collect()
    }

    /// Takes in what has happened; returns what to ask the source for, in this order.
    ///
    /// # Errors
    /// The kernel takes no more part in it.
    pub fn listen(&mut self) -> Result<Vec<Wanted>> {
        let mut wanted = Vec::new();
        let mut index = 0;
        while index < self.spaces.len() {
            self.hear(index, &mut wanted)?;
            index += 1;
        }
        Ok(wanted)
    }

    /// Reads the events of one space; true if there were any.
    fn hear(&mut self, index: usize, wanted: &mut Vec<Wanted>) -> Result<bool> {
        let mut heard = false;
        loop {
            let space = &mut self.spaces[index];
            let Some(happening) = space.fault.next().about(|| Subject::Object("owed pages".to_owned()))? else { break };
            heard = true;
            match happening {
                Happening::Fault { address, .. } => {
                    self.faults += 1;
                    space.waiting.insert(address);
                    space.ask(address, wanted);
                }
                Happening::Fork(fault) => {
                    let (owner, ledger) = (space.owner, space.ledger.clone());
                    let waiting = BTreeSet::new();
                    self.spaces.push(Space { owner, fault, ledger, waiting, next: 0, neighbours: 0 });
                }
                Happening::Remap { from, to, length } => {
                    space.ledger.shift(from, to, length);
                }
                Happening::Remove { start, end } | Happening::Unmap { start, end } => {
                    space.ledger.strike(Run { start, end });
                }
            }
        }
        self.settle_unowed(index)?;
        Ok(heard)
    }

    /// Whoever waits where nothing is owed gets zeros, as if nobody had been listening.
    fn settle_unowed(&mut self, index: usize) -> Result<()> {
        let space = &mut self.spaces[index];
        let unowed: Vec<u64> =
            space.waiting.iter().copied().filter(|address| space.ledger.origin(*address).is_none()).collect();
        for address in unowed {
            match placed(space.fault.place_zeros(address, PAGE_BYTES, 0))? {
                // It is heard first, and this tried again.
                Placed::Changing => continue,
                Placed::Bytes(_) => {}
                // There, or elsewhere: the thread looks for itself.
                Placed::Exists | Placed::Gone | Placed::Dead => {
                    let _ = space.fault.wake(address, PAGE_BYTES);
                }
            }
            space.waiting.remove(&address);
        }
        Ok(())
    }

    /// Places pages that came.
    ///
    /// # Errors
    /// As [`Pager::listen`].
    pub fn fill(&mut self, owner: ObjectId, ranges: &[(u64, usize)], bytes: &[u8]) -> Result<Vec<Wanted>> {
        let mut wanted = Vec::new();
        let mut offset = 0;
        for (start, length) in ranges {
            let part = bytes.get(offset..offset + length).unwrap_or_default();
            if !self.gather_some(owner, (*start, *length), Some(part)) {
                self.place(owner, *start, *length as u64, Some(part), &mut wanted)?;
            }
            offset += length;
        }
        Ok(wanted)
    }

    /// Places pages that were named as zero.
    ///
    /// # Errors
    /// As [`Pager::listen`].
    pub fn fill_zeros(&mut self, owner: ObjectId, ranges: &[(u64, usize)]) -> Result<Vec<Wanted>> {
        let mut wanted = Vec::new();
        for (start, length) in ranges {
            if !self.gather_some(owner, (*start, *length), None) {
                self.place(owner, *start, *length as u64, None, &mut wanted)?;
            }
        }
        Ok(wanted)
    }

    /// Takes what is no memory; false: it is.
    fn gather_some(&mut self, owner: ObjectId, (start, length): (u64, usize), bytes: Option<&[u8]>) -> bool {
        let range = Run { start, end: start.saturating_add(length as u64) };
        let gathering = self.gathering.as_mut().filter(|gathering| gathering.owner == owner);
        gathering.map(|gathering| gathering.take(range, bytes)).is_some()
    }

    fn place(
        &mut self,
        owner: ObjectId,
        start: u64,
        length: u64,
        bytes: Option<&[u8]>,
        wanted: &mut Vec<Wanted>,
    ) -> Result<()> {
        let there = Run { start, end: start.saturating_add(length) };
        self.pages += length / PAGE_BYTES;
        let (mut index, mut served) = (0, false);
        while index < self.spaces.len() {
            // Placing goes no further than the end of a mapping.
            let mut most = length;
            // What lies where may change with every event that has to be heard in between.
            while self.spaces[index].owner == owner {
                let Some(place) = self.spaces[index].ledger.places(there).first().copied() else { break };
                let tried = place.here.bytes().min(most);
                let space = &mut self.spaces[index];
                let result = match bytes {
                    Some(bytes) => {
                        let from = (place.there - start) as usize;
                        let part = &bytes[from..from + tried as usize];
                        space.fault.place(place.here.start, part, 0)
                    }
                    None => space.fault.place_zeros(place.here.start, tried, 0),
                };
                let done = match placed(result)? {
                    Placed::Bytes(done) => {
                        most = most.saturating_mul(2);
                        done as u64
                    }
                    Placed::Exists => {
                        // Who is not there any more needs no waking.
                        let _ = space.fault.wake(place.here.start, PAGE_BYTES);
                        PAGE_BYTES
                    }
                    Placed::Dead => {
                        space.ledger = Ledger::default();
                        space.waiting.clear();
                        break;
                    }
                    state @ (Placed::Changing | Placed::Gone) => {
                        if self.hear(index, wanted)? {
                            continue;
                        }
                        if matches!(state, Placed::Changing) {
                            std::thread::yield_now();
                            continue;
                        }
                        if tried > PAGE_BYTES {
                            most = (tried / 2).next_multiple_of(PAGE_BYTES);
                            continue;
                        }
                        // Something else is mapped there, of which no event tells.
                        PAGE_BYTES
                    }
                };
                let run = Run { start: place.here.start, end: place.here.start + done };
                served |= self.spaces[index].arrived(run);
            }
            index += 1;
        }
        if served {
            // Whoever has waited goes first: woken here, he has this processor or none, and we have had more than our share.
            std::thread::yield_now();
        }
        Ok(())
    }
}

impl Space {
    /// These pages are there; whether somebody has waited for one.
    fn arrived(&mut self, run: Run) -> bool {
        self.ledger.strike(run);
        let before = self.waiting.len();
        self.waiting.retain(|address| !(run.start..run.end).contains(address));
        self.waiting.len() < before
    }

    /// Asks for the page of a fault alone, and then for its neighbours if the process seems to walk through its memory.
    fn ask(&mut self, address: u64, wanted: &mut Vec<Wanted>) {
        let Some(start) = self.ledger.origin(address) else { return };
        wanted.push(Wanted { owner: self.owner, start, length: PAGE_BYTES });
        let walks = address == self.next;
        self.neighbours = if walks { (self.neighbours * 2 + 1).min(NEIGHBOURS_MAX) } else { 0 };
        let first = address + PAGE_BYTES;
        let range = Run { start: first, end: first + self.neighbours * PAGE_BYTES };
        for place in self.ledger.within(range) {
            wanted.push(Wanted { owner: self.owner, start: place.there, length: place.here.bytes() });
        }
        self.next = range.end;
    }
}
