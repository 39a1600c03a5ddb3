//! Where each page is in a page store's file: the newest place of each.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::frame::Run;
use crate::store::{RUNS_MAX, Record};

/// Where the contents of a run of pages are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Nowhere: they are zero.
    Zero,
    /// In the file.
    File {
        /// Position of the first one's bytes.
        bytes: u64,
        /// Position of the first one's checksum.
        sum: u64,
    },
}

impl Place {
    /// The place of the page that is so many pages behind.
    fn behind(self, pages: u64) -> Place {
        match self {
            Place::Zero => Place::Zero,
            Place::File { bytes, sum } => Place::File { bytes: bytes + (pages << 12), sum: sum + pages * 4 },
        }
    }
}

/// A part of what was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    /// Which pages.
    pub run: Run,
    /// Where they are; `None`: they were never put in.
    pub place: Option<Place>,
}

/// The places of all pages of one migration.
#[derive(Clone, Debug, Default)]
pub struct Index {
    /// By owner and first page: pages and place.
    runs: BTreeMap<(u32, u64), (u32, Place)>,
    pages: u64,
}

impl Index {
    /// Pages that are kept.
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// Whether so many more runs can be held.
    pub fn has_room(&self, runs: usize) -> bool {
        // Each may cut another in two.
        self.runs.len() + 2 * runs <= RUNS_MAX
    }

    /// Takes in a record, of whose contents the first page is at `bytes` and the first checksum at `sum`.
    pub fn note(&mut self, record: &Record, bytes: u64, sum: u64) {
        match record {
            Record::Pages(run, _) => self.put(*run, Place::File { bytes, sum }),
            Record::Zeros(run) => self.put(*run, Place::Zero),
            Record::Adopted(run, stage) => {
                let parts = self.find(Run { owner: *stage, ..*run });
                for part in parts {
                    if let Some(place) = part.place {
                        self.put(Run { owner: run.owner, ..part.run }, place);
                    }
                }
            }
            Record::Synced(_) => {}
        }
    }

    fn put(&mut self, run: Run, place: Place) {
        self.take_out(run);
        self.pages += u64::from(run.count);
        // What continues its predecessor in every respect is a part of it.
        if let Some(((owner, start), (count, before))) = self.runs.range_mut(..(run.owner, run.start)).next_back()
            && *owner == run.owner
            && start + u64::from(*count) == run.start
            && before.behind(u64::from(*count)) == place
            && let Some(sum) = count.checked_add(run.count)
        {
            *count = sum;
            return;
        }
        self.runs.insert((run.owner, run.start), (run.count, place));
    }

    fn take_out(&mut self, run: Run) {
        let end = run.start + u64::from(run.count);
        let first = self.runs.range(..(run.owner, run.start)).next_back().map(|(key, _)| *key);
        let first = first.filter(|(owner, _)| *owner == run.owner).unwrap_or((run.owner, run.start));
        let keys: Vec<(u32, u64)> = self.runs.range(first..(run.owner, end)).map(|(key, _)| *key).collect();
        for key in keys {
            let Some((count, place)) = self.runs.get(&key).copied() else { continue };
            let (start, last) = (key.1, key.1 + u64::from(count));
            if last <= run.start {
                continue;
            }
            self.runs.remove(&key);
            self.pages -= last.min(end) - start.max(run.start);
            if start < run.start {
                self.runs.insert(key, ((run.start - start) as u32, place));
            }
            if last > end {
                self.runs.insert((run.owner, end), ((last - end) as u32, place.behind(end - start)));
            }
        }
    }

    /// The parts of a run, in order and without gaps.
    pub fn find(&self, run: Run) -> Vec<Part> {
        let end = run.start + u64::from(run.count);
        let (mut parts, mut next) = (Vec::new(), run.start);
        let part = |start: u64, end: u64, place| Part {
            run: Run { owner: run.owner, start, count: (end - start) as u32 },
            place,
        };
        let first = self.runs.range(..(run.owner, run.start)).next_back().map(|(key, _)| *key);
        let first = first.filter(|(owner, _)| *owner == run.owner).unwrap_or((run.owner, run.start));
        for (&(_, start), &(count, place)) in self.runs.range(first..(run.owner, end)) {
            let (from, to) = (start.max(run.start), (start + u64::from(count)).min(end));
            if from >= to {
                continue;
            }
            if next < from {
                parts.push(part(next, from, None));
            }
            parts.push(part(from, to, Some(place.behind(from - start))));
            next = to;
        }
        if next < end {
            parts.push(part(next, end, None));
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use godwit_deterministic::Random;

    #[test]
    fn the_index_agrees_with_a_map_of_pages() {
        let mut random = Random::new(5);
        for _ in 0..500 {
            let mut index = Index::default();
            let mut model: BTreeMap<(u32, u64), Place> = BTreeMap::new();
            for step in 0..12_u64 {
                let run =
                    Run { owner: random.below(2) as u32, start: random.below(24), count: 1 + random.below(10) as u32 };
                let pages = run.start..run.start + u64::from(run.count);
                let (bytes, sum) = (step << 20, step << 40);
                let record = match random.below(4) {
                    0 => Record::Zeros(run),
                    1 => Record::Adopted(run, 1 - run.owner),
                    _ => Record::Pages(run, vec![]),
                };
                index.note(&record, bytes, sum);
                for page in pages {
                    let place = match record {
                        Record::Zeros(_) => Some(Place::Zero),
                        Record::Adopted(_, stage) => model.get(&(stage, page)).copied(),
                        _ => Some(Place::File { bytes, sum }.behind(page - run.start)),
                    };
                    if let Some(place) = place {
                        model.insert((run.owner, page), place);
                    }
                }
                assert_eq!(index.pages(), model.len() as u64);
                let asked = Run { owner: random.below(2) as u32, start: random.below(30), count: 20 };
                let mut next = asked.start;
                for part in index.find(asked) {
                    assert_eq!((part.run.start, part.run.owner), (next, asked.owner));
                    for offset in 0..u64::from(part.run.count) {
                        let found = part.place.map(|place| place.behind(offset));
                        assert_eq!(found, model.get(&(asked.owner, next + offset)).copied());
                    }
                    next += u64::from(part.run.count);
                }
                assert_eq!(next, asked.start + 20);
            }
        }
    }
}
