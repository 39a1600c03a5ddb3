//! A tree that comes in: state first, then pages, then all is completed and compared with what the source says it has sent.
use crate::pump::{PART_HEADER, PartSort};
use godwit_engine::foresight::Foresight;
use godwit_engine::restore::{Beginning, Reserve, Restorer};
use godwit_handoff::Totals;
use godwit_handoff::frame::STAGE_FIRST;
use godwit_image::memory::PAGE_BYTES;
use godwit_image::page_set::PageSet;
use godwit_image::tree::Tree;
use godwit_image::{Code, ObjectId, Refusal, Subject, codec};
use godwit_linux::scheduling;
use std::time::Duration;

/// How long the source may wait for memory that is made for it, before it stops its tree.
const PREPARATION: Duration = Duration::from_secs(4);

/// Bytes of state from which on it takes longer to read than to go to another processor.
const MUCH_STATE: u64 = 40 << 10;

/// Zeros to write where pages are named as zero.
static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

/// The receiving side of the page pump, and what it fills.
#[derive(Debug)]
pub(crate) struct Build {
    /// What of the state is no whole part yet.
    state: Vec<u8>,
    has_state: bool,
    /// Bytes of parts that count.
    state_bytes: u64,
    /// What is made before the whole state is there: at first the root and its memory, before anything came.
    beginning: Beginning,
    restorer: Option<Restorer>,
    /// Much memory is expected.
    pub(crate) is_large: bool,
    /// Bytes of pages that are in place.
    pub(crate) bytes_done: u64,
    /// Bytes of pages that will come.
    pub(crate) bytes_total: u64,
    /// Pages may come that only their task sees.
    unseen: bool,
    /// Pages of it come when it runs: what is missing must be missing until then.
    pub(crate) leaves: bool,
    /// Pages come before the freeze that are true afterwards.
    pub(crate) prepares: bool,
}

fn malformed(cause: &str) -> Refusal {
    Refusal::new(Code::MALFORMED, Subject::Object("state".to_owned()), cause)
}

/// Length, sort and bytes of pages to come of the part that begins here; `None`: its header has not come.
fn header(state: &[u8]) -> Result<Option<(u64, PartSort, u64)>, Refusal> {
    let (Some(length), Some(total), Some(word)) = (number(state, 0), number(state, 8), number(state, 16)) else {
        return Ok(None);
    };
    let sort =
        u8::try_from(word).ok().and_then(PartSort::of).ok_or_else(|| malformed("it has a part of no known sort"))?;
    let is_sound = match sort {
        PartSort::Early => total == 0,
        PartSort::Anew => (length, total) == (0, 0),
        PartSort::Last => true,
    };
    if is_sound { Ok(Some((length, sort, total))) } else { Err(malformed("the numbers of a part are wrong")) }
}

fn number(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

impl Build {
    pub(crate) fn new() -> Build {
        Build {
            state: Vec::new(),
            has_state: false,
            state_bytes: 0,
            beginning: Beginning::default(),
            restorer: None,
            is_large: false,
            bytes_done: 0,
            bytes_total: 0,
            unseen: false,
            leaves: false,
            prepares: false,
        }
    }

    /// Expects the pages of a tree of so many bytes before its state.
    pub(crate) fn expect_pages(&mut self, tree_bytes: u64) {
        self.beginning.expect_pages(tree_bytes);
    }

    /// Makes the root that is foreseen. Its memory only where pages come that nobody sees on their way (`unseen`): those that we see
    /// take so long to check that new memory is no hindrance. What does not come out well is made when it comes.
    pub(crate) fn prepare(&mut self, foresight: Foresight, unseen: bool) {
        let foresight = match (self.leaves, self.prepares, unseen) {
            // What came before the freeze lies in it then. Pages that are stale are given back, so that they can be waited for.
            (true, true, _) | (false, _, true) => foresight,
            (true, false, _) | (false, _, false) => foresight.without_memory(),
        };
        if foresight.root != 0 {
            let reserve = Reserve::make(&foresight, PREPARATION).unwrap_or_default();
            self.unseen = !self.leaves && reserve.is_some() && !foresight.present.is_empty();
            self.beginning.keep_reserve(reserve);
        }
        // Behind the fork of the root, which would make every page of ours one that has to be copied.
        godwit_engine::room::for_threads(foresight.threads.len() + 1);
    }

    /// Whether a task of the tree may be asked to read pages itself.
    pub(crate) fn takes_unseen(&self) -> bool {
        self.unseen
    }

    /// Which pages it may be asked for, as soon as the state is complete: once.
    pub(crate) fn unseen(&mut self) -> Option<Option<(ObjectId, PageSet)>> {
        let restorer = self.restorer.as_ref().filter(|_| self.unseen)?;
        self.unseen = false;
        Some(restorer.prepared().cloned())
    }

    /// Has the tree's own task read pages from a socket whose calls wait; returns how many bytes came, or what the socket says. `busy`:
    /// the processor that it is to leave to others.
    ///
    /// # Errors
    /// The task died.
    pub(crate) fn receive(
        &mut self,
        owner: ObjectId,
        ranges: &[(u64, usize)],
        socket: i32,
        busy: Option<u32>,
    ) -> Result<Result<usize, godwit_linux::Errno>, Refusal> {
        let restorer = self.restorer()?;
        if let Some(processor) = busy {
            restorer.keep_off(owner, processor);
        }
        let received = restorer.receive(owner, ranges, socket)?;
        self.bytes_done += received.map_or(0, |count| count as u64);
        Ok(received)
    }

    /// Takes in a piece of the state: what can be made of a part is made when it is there; the last one begins the tree. `busy`: the
    /// processor that is to be left to others; where nobody knows it, it is the one where this is called.
    ///
    /// # Errors
    /// GW1004: it is malformed; everything that an object can refuse.
    pub(crate) fn state(&mut self, bytes: &[u8], busy: Option<u32>) -> Result<(), Refusal> {
        if self.restorer.is_some() {
            return Err(malformed("there is more of it than was said"));
        }
        self.state.extend_from_slice(bytes);
        while let Some((length, sort, total)) = header(&self.state)? {
            // While the rest is still being captured there is time for it.
            if !self.has_state && (length > MUCH_STATE || sort == PartSort::Early) {
                // Whoever sends it may be on this host, too, and goes on sending where it woke us. Of what only costs time nothing is said.
                let _ = busy.map_or_else(scheduling::go_elsewhere, scheduling::leave_processor);
            }
            self.has_state = true;
            if length.saturating_add(self.state_bytes) > codec::PAYLOAD_BYTES_MAX as u64 {
                return Err(malformed("its length is wrong"));
            }
            let end = PART_HEADER + length as usize;
            let Some(part) = self.state.get(PART_HEADER..end) else { break };
            if sort == PartSort::Anew {
                self.state_bytes = 0;
                self.beginning.anew();
                self.state.drain(..end);
                continue;
            }
            let part: Tree = codec::decode(part).map_err(|error| malformed(&error.to_string()))?;
            self.state_bytes += length;
            self.state.drain(..end);
            if sort == PartSort::Early {
                self.beginning.take_in(part)?;
                continue;
            }
            if !self.state.is_empty() {
                return Err(malformed("there is more of it than was said"));
            }
            // It may have been large, and is not needed again.
            self.state = Vec::new();
            self.bytes_total = total;
            let mut restorer = std::mem::take(&mut self.beginning).complete(part)?;
            // While its pages are on their way.
            restorer.build_first()?;
            self.restorer = Some(restorer);
            break;
        }
        Ok(())
    }

    /// The tree that is being built.
    ///
    /// # Errors
    /// GW1004: its state has not come.
    pub(crate) fn restorer(&mut self) -> Result<&mut Restorer, Refusal> {
        self.restorer.as_mut().ok_or_else(|| malformed("it has not come"))
    }

    /// Fills pages.
    ///
    /// # Errors
    /// Their owner is unknown, or the kernel refuses.
    pub(crate) fn pages(&mut self, owner: ObjectId, ranges: &[(u64, usize)], bytes: &[u8]) -> Result<(), Refusal> {
        if owner.0 >= STAGE_FIRST {
            return self.beginning.take_pages(owner.0, ranges, Some(bytes));
        }
        self.bytes_done += bytes.len() as u64;
        self.restorer()?.write(owner, ranges, bytes)
    }

    /// Puts pages that came in the preparation where they belong; returns how many.
    ///
    /// # Errors
    /// They have not come; as [`Build::pages`].
    pub(crate) fn held(&mut self, stage: u32, owner: ObjectId, ranges: &[(u64, usize)]) -> Result<u64, Refusal> {
        self.restorer()?.put_staged(stage, owner, ranges)?;
        Ok(ranges.iter().map(|(_, length)| *length as u64).sum::<u64>() / PAGE_BYTES)
    }

    /// Pages of a stage are not true any more.
    ///
    /// # Errors
    /// GW1004: its state has come, or they cannot be pages; memory cannot be given back.
    pub(crate) fn stale(&mut self, stage: u32, ranges: &[(u64, usize)]) -> Result<(), Refusal> {
        if self.restorer.is_some() || stage < STAGE_FIRST {
            return Err(malformed("pages count as stale that do not come from the preparation"));
        }
        self.beginning.give_back(stage, ranges)
    }

    /// Fills pages with zeros; returns how many.
    ///
    /// # Errors
    /// As [`Build::pages`].
    pub(crate) fn zeros(&mut self, owner: ObjectId, ranges: &[(u64, usize)]) -> Result<u64, Refusal> {
        if owner.0 >= STAGE_FIRST {
            self.beginning.take_pages(owner.0, ranges, None)?;
            return Ok(ranges.iter().map(|(_, length)| *length as u64).sum::<u64>() / PAGE_BYTES);
        }
        let mut total = 0;
        for (start, length) in ranges {
            let mut done = 0;
            while done < *length {
                let part = (*length - done).min(ZEROS.len());
                // A hole of a file mapping or an inherited page would show otherwise, so they are written, not assumed.
                self.restorer()?.write(owner, &[(start + done as u64, part)], &ZEROS[..part])?;
                done += part;
            }
            total += *length as u64;
        }
        self.bytes_done += total;
        Ok(total / PAGE_BYTES)
    }

    /// Compares what came with what was sent, and completes the tree.
    ///
    /// # Errors
    /// GW1004: they differ; everything that a restore can refuse.
    pub(crate) fn complete(&mut self, sent: Totals, received: Totals) -> Result<(), Refusal> {
        if sent != received {
            return Err(malformed(&format!("{received:?} came, {sent:?} was sent")));
        }
        // What is left in it was not true any more.
        self.restorer()?.forget_staged();
        self.restorer()?.complete()
    }

    /// The tree, to be resumed.
    pub(crate) fn take(&mut self) -> Option<Restorer> {
        self.restorer.take()
    }

    /// Removes everything; false if nothing was begun here.
    pub(crate) fn discard(&mut self) -> bool {
        self.state = Vec::new();
        self.beginning = Beginning::default();
        self.restorer.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pump::Pump;
    use godwit_image::tree::Part;
    use godwit_image::{Envelope, KindId};

    fn part(sort: PartSort, objects: &[Envelope]) -> Vec<u8> {
        let host = Default::default();
        let objects = objects.iter().collect();
        let part = Part { host: &host, tasks: &[], spaces: &[], tables: &[], filesystems: &[], objects, later: None };
        Pump::new(false).part(sort, (sort != PartSort::Anew).then_some(&part)).unwrap()
    }

    #[test]
    fn parts_are_taken_in_whatever_the_cuts_between_them() {
        let object = Envelope { id: ObjectId(1), kind: KindId(8), version: 1, refs: Vec::new(), payload: Vec::new() };
        let early = part(PartSort::Early, std::slice::from_ref(&object));
        let good = [&early[..], &part(PartSort::Anew, &[]), &early].concat();
        for step in [1, 23, 24, 25, good.len()] {
            let mut build = Build::new();
            good.chunks(step).for_each(|piece| build.state(piece, None).unwrap());
            assert_eq!((build.state_bytes, build.state.len()), ((early.len() - PART_HEADER) as u64, 0));
            // A tree without tasks.
            assert_eq!(build.state(&part(PartSort::Last, &[]), None).unwrap_err().code, Code::MALFORMED);
        }
    }

    #[test]
    fn what_is_no_part_is_refused_as_soon_as_it_shows() {
        let header = |length: u64, total: u64, word: u64| [length, total, word].map(u64::to_le_bytes).concat();
        let too_long = codec::PAYLOAD_BYTES_MAX as u64 + 1;
        let numbers =
            [(0, 0, 0), (0, 0, 4), (0, 0, 0x101), (too_long, 0, 1), (u64::MAX, 0, 3), (5, 1, 1), (1, 0, 2), (0, 1, 2)];
        for (length, total, word) in numbers {
            let mut build = Build::new();
            assert!(build.state(&header(length, total, word)[..23], None).is_ok());
            let refusal = build.state(&header(length, total, word)[23..], None).unwrap_err();
            assert_eq!(refusal.code, Code::MALFORMED, "{length} {total} {word:#x}");
        }
        let last = part(PartSort::Last, &[]);
        assert!(Build::new().state(&[&last[..], &last].concat(), None).is_err());
    }
}
