//! Which pages the destination holds in their true version: the account of a preparation, in sets.
//!
//! The driver tells what a look at each address space has found and what was sent since; the ledger says what a step's set is now.
//! A page counts as held only as long as every look confirms that it was not written: what nobody has looked at is not held.

use alloc::collections::{BTreeMap, VecDeque};

use godwit_image::page_set::PageSet;

use crate::row::{Row, Set};

/// One address space of the tree.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Space {
    /// Pages that only this space has, as far as is known.
    own: PageSet,
    /// Pages that the destination holds as they were at the last look.
    held: PageSet,
    /// Pages that it holds in some version.
    sent: PageSet,
    /// What the last looks found to be written, the last one first.
    written: VecDeque<PageSet>,
}

impl Space {
    fn look(&mut self, looked_at: &PageSet, written: &PageSet) {
        self.held = self.held.intersection(looked_at).difference(written);
        self.own = self.own.intersection(looked_at).union(written);
        if let Some(last) = self.written.front_mut() {
            last.extend(written);
        }
    }
}

/// What becomes of the pages that a space has in the end, when nothing runs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Division {
    /// The destination has these already.
    pub held: PageSet,
    /// These it has not: they are sent now, or owed where the row owes.
    pub left: PageSet,
    /// Those of them that come without being asked for if they are owed.
    pub pushed: PageSet,
}

/// Looks that are remembered: more than any row asks for.
const LOOKS_MAX: usize = 16;

/// The account of all address spaces.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ledger {
    spaces: BTreeMap<u32, Space>,
}

impl Ledger {
    /// An empty one.
    pub fn new() -> Ledger {
        Ledger::default()
    }

    /// A look at a space: which addresses it could look at, and which pages there were written since the look before (all, at the
    /// first). What could not be looked at is not held any more.
    pub fn look(&mut self, space: u32, looked_at: &PageSet, written: &PageSet) {
        let space = self.spaces.entry(space).or_default();
        space.written.push_front(PageSet::new());
        space.written.truncate(LOOKS_MAX);
        space.look(looked_at, written);
    }

    /// A further look in the same round: the next page that counts as quiet was not written since the look before this round's.
    pub fn look_again(&mut self, space: u32, looked_at: &PageSet, written: &PageSet) {
        self.spaces.entry(space).or_default().look(looked_at, written);
    }

    /// A space is gone, or nothing can be said of it any more.
    pub fn forget(&mut self, space: u32) {
        self.spaces.remove(&space);
    }

    /// The spaces that are known.
    pub fn spaces(&self) -> impl Iterator<Item = u32> {
        self.spaces.keys().copied()
    }

    /// Which pages of a space are in `set` now, while the process still runs at the source.
    pub fn wanted(&self, space: u32, set: Set) -> PageSet {
        let Some(space) = self.spaces.get(&space) else { return PageSet::new() };
        let stale = || space.own.difference(&space.held);
        match set {
            Set::All | Set::Modified => space.own.clone(),
            Set::DirtySinceRound | Set::Rest => stale(),
            Set::Stale => stale().intersection(&space.sent),
            Set::Quiet(rounds) => {
                let recent = space.written.iter().take(rounds as usize);
                recent.fold(stale(), |quiet, written| quiet.difference(written))
            }
            // Where its threads are is known only when it stands still.
            Set::Working | Set::Communication => PageSet::new(),
        }
    }

    /// These pages have left, as they were at the last look or later.
    pub fn sent(&mut self, space: u32, pages: &PageSet) {
        if let Some(space) = self.spaces.get_mut(&space) {
            space.held = space.held.union(pages);
            space.sent = space.sent.union(pages);
        }
    }

    /// Bytes of pages that the destination does not hold in their true version, as of the last look.
    pub fn bytes_left(&self) -> u64 {
        self.spaces.values().map(|space| space.own.difference(&space.held).bytes()).sum()
    }

    /// Bytes of all pages, as of the last look.
    pub fn bytes(&self) -> u64 {
        self.spaces.values().map(|space| space.own.bytes()).sum()
    }

    /// What `row` does with the pages that a space has in the end, after the last look and when nothing runs.
    pub fn divide(&self, row: &Row, space: u32, pages: &PageSet) -> Division {
        let held = if row.builds_on_preparation() { self.held(space, pages) } else { PageSet::new() };
        let left = pages.difference(&held);
        let sent = self.spaces.get(&space).map(|space| space.sent.intersection(&left)).unwrap_or_default();
        let pushed = row.pushed_sets().fold(PageSet::new(), |pushed, set| match set {
            Set::All | Set::Modified | Set::Rest | Set::DirtySinceRound => left.clone(),
            Set::Stale => pushed.union(&sent),
            // Nothing is quiet when nothing runs, and what it works with came with its state.
            Set::Quiet(_) | Set::Working | Set::Communication => pushed,
        });
        Division { held, left, pushed }
    }

    /// Of the pages that a space has in the end, after the last look and when nothing runs: which the destination holds.
    pub fn held(&self, space: u32, pages: &PageSet) -> PageSet {
        self.spaces.get(&space).map_or_else(PageSet::new, |space| space.held.intersection(pages))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Decision, Phase, Progress, Row, decide_round};
    use alloc::vec;
    use alloc::vec::Vec;
    use godwit_deterministic::Random;
    use godwit_image::page_set::Run;

    const PAGE: u64 = 4096;
    const PAGES: u64 = 96;

    fn set(pages: impl Iterator<Item = u64>) -> PageSet {
        pages.map(|page| Run { start: page * PAGE, end: (page + 1) * PAGE }).collect()
    }

    fn each(set: &PageSet) -> Vec<u64> {
        set.runs().iter().flat_map(|run| run.start / PAGE..run.end / PAGE).collect()
    }

    /// A process of one space that writes, maps and gives back pages at random, and what its destination has received.
    struct World {
        random: Random,
        /// Version of each page; none: it has none of its own.
        memory: Vec<Option<u64>>,
        /// Whether it was not written since it was last found to be.
        armed: Vec<bool>,
        staged: BTreeMap<u64, u64>,
        version: u64,
        ledger: Ledger,
        sends: Vec<u32>,
    }

    impl World {
        fn run_on(&mut self) {
            for _ in 0..self.random.below(40) {
                // A few pages are written again and again.
                let among = if self.random.below(2) == 0 { 7 } else { PAGES };
                let page = self.random.below(among) as usize;
                self.version += 1;
                // One in a while is given back.
                self.memory[page] = (self.random.below(20) != 0).then_some(self.version);
                self.armed[page] = false;
            }
        }

        fn look(&mut self) {
            // Now and then an area cannot be looked at; when it can be again, all of it counts as written.
            let blind = self.random.below(PAGES * 4) / 8;
            for page in 0..PAGES as usize {
                self.armed[page] &= page as u64 / 8 != blind;
            }
            let looked_at = set((0..PAGES).filter(|page| page / 8 != blind));
            let is_written = |page: &u64| self.memory[*page as usize].is_some() && !self.armed[*page as usize];
            let written = set((0..PAGES).filter(is_written)).intersection(&looked_at);
            for page in each(&looked_at) {
                self.armed[page as usize] = self.memory[page as usize].is_some();
            }
            self.ledger.look(1, &looked_at, &written);
        }

        fn send(&mut self, pages: &PageSet) {
            let mut gone = PageSet::new();
            for page in each(pages) {
                // It runs while it is sent: what is not there any more cannot be read.
                if self.random.below(30) == 0 {
                    self.run_on();
                }
                if let Some(version) = self.memory[page as usize] {
                    self.staged.insert(page, version);
                    self.sends[page as usize] += 1;
                    gone.insert(Run { start: page * PAGE, end: (page + 1) * PAGE });
                }
            }
            self.ledger.sent(1, &gone);
        }
    }

    fn move_one(row: &Row, seed: u64) -> World {
        let mut world = World {
            random: Random::new(seed),
            memory: vec![None; PAGES as usize],
            armed: vec![false; PAGES as usize],
            staged: BTreeMap::new(),
            version: 0,
            ledger: Ledger::new(),
            sends: vec![0; PAGES as usize],
        };
        world.memory = (0..PAGES).map(|page| (page % 3 != 0).then_some(0)).collect();
        let mut progress = Progress::START;
        loop {
            match decide_round(row, &progress) {
                Decision::Round(step) if progress.phase == Phase::Preparation => {
                    world.run_on();
                    world.look();
                    let wanted = world.ledger.wanted(1, row.steps[step].set);
                    let bytes = wanted.bytes();
                    world.send(&wanted);
                    world.run_on();
                    let left = world.ledger.bytes_left() / PAGE;
                    progress = progress.after_round(step, left, bytes > 0);
                }
                // What is sent while it is down, and owed then, is decided once.
                Decision::Round(step) => progress = progress.after_round(step, 0, true),
                Decision::Freeze => progress = progress.entering(Phase::Down),
                Decision::HandOver | Decision::Finished => return world.hand_over(row),
            }
        }
    }

    impl World {
        /// Freezes it, divides what it has, and lets what is owed come in any order, some of it never.
        fn hand_over(mut self, row: &Row) -> World {
            self.look();
            let own = set((0..PAGES).filter(|page| self.memory[*page as usize].is_some()));
            let Division { held, left, pushed } = self.ledger.divide(row, 1, &own);
            assert_eq!(held.union(&left), own, "{}", row.name);
            assert_eq!(held.bytes() + left.bytes(), own.bytes(), "held and left are all, and no page is both");
            assert!(pushed.difference(&left).is_empty());
            // Which pages may wait is the driver's to say.
            let may_wait = set((0..PAGES).filter(|_| self.random.below(4) != 0));
            let owed = if row.leaves_pages_behind() { left.intersection(&may_wait) } else { PageSet::new() };
            let mut there: BTreeMap<u64, u64> = each(&held).iter().map(|page| (*page, self.staged[page])).collect();
            let come = |world: &mut World, page: u64, there: &mut BTreeMap<u64, u64>| {
                let version = world.memory[page as usize].expect("only pages that it has are sent");
                world.sends[page as usize] += 1;
                assert_eq!(there.insert(page, version), None, "{}: page {page} comes twice", row.name);
            };
            for page in each(&left.difference(&owed)) {
                come(&mut self, page, &mut there);
            }
            let mut waiting = each(&owed);
            while !waiting.is_empty() {
                let at = self.random.below(waiting.len() as u64) as usize;
                let page = waiting.swap_remove(at);
                // What nobody asks for comes only if it is pushed.
                if pushed.contains(page * PAGE) || self.random.below(2) == 0 {
                    come(&mut self, page, &mut there);
                } else {
                    assert!(row.pushed_sets().all(|set| set == Set::Stale), "{}", row.name);
                    there.insert(page, self.memory[page as usize].unwrap_or_default());
                }
            }
            for page in each(&own) {
                let version = self.memory[page as usize];
                assert_eq!(there.get(&page).copied(), version, "{}: page {page} is stale", row.name);
            }
            assert_eq!(there.len(), each(&own).len());
            self
        }
    }

    /// Whatever is written, mapped and given back whenever: what counts as held is what the process has, and what it has is held, sent
    /// or owed, each page one of them.
    #[test]
    fn every_row_ends_with_the_memory_of_the_source() {
        let own = [
            "prepare=all+rounds(3) down=rest",
            "prepare=quiet(2,9,1) down=rest",
            "prepare=all down=all",
            "prepare=all post=all",
            "prepare=all down=working post=stale+faults(rest)",
            "prepare=rounds(3) post=faults(rest)",
        ];
        let own = own.iter().map(|text| crate::parse(text).unwrap());
        let rows: Vec<Row> = own.chain(crate::TABLE.iter().cloned()).collect();
        for row in &rows {
            for seed in 0..200 {
                let world = move_one(row, seed);
                if row.name == "assisted-post-copy" {
                    assert!(world.sends.iter().all(|sends| *sends <= 2));
                }
            }
        }
    }

    #[test]
    fn a_page_that_is_written_all_the_time_waits_in_the_queue() {
        let (mut ledger, all) = (Ledger::new(), set(0..8));
        ledger.look(1, &all, &all);
        assert_eq!(ledger.wanted(1, Set::All), all);
        ledger.sent(1, &all);
        for _ in 0..5 {
            ledger.look(1, &all, &set(0..2));
            assert_eq!(ledger.wanted(1, Set::DirtySinceRound), set(0..2));
            assert!(ledger.wanted(1, Set::Quiet(1)).is_empty());
        }
        ledger.look(1, &all, &set(1..2));
        assert_eq!(ledger.wanted(1, Set::Quiet(1)), set(0..1));
        assert!(ledger.wanted(1, Set::Quiet(2)).is_empty());
        ledger.sent(1, &set(0..1));
        assert_eq!(ledger.bytes_left(), PAGE);
        assert_eq!(ledger.held(1, &set(0..4)), set([0, 2, 3].into_iter()));
        // An area that nobody could look at is held no more.
        ledger.look(1, &set(0..3), &PageSet::new());
        assert_eq!(ledger.held(1, &all), set([0, 2].into_iter()));
        ledger.forget(1);
        assert!(ledger.held(1, &all).is_empty() && ledger.spaces().next().is_none());
    }
}
