//! Which pages of one address space are still to come, and where what the source had at an address lies now: the process may give memory
//! back, unmap and move it while pages of it are owed.
use godwit_image::page_set::{PageSet, Run};
use std::collections::BTreeMap;

/// Neighbouring pages that are owed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Piece {
    end: u64,
    /// The address of the first of them at the source.
    there: u64,
}

/// A part of a piece: where it lies here, and its first address at the source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Addresses here.
    pub here: Run,
    /// The first one's at the source.
    pub there: u64,
}

/// What an address space is owed.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// By first address.
    pieces: BTreeMap<u64, Piece>,
    /// Some lie elsewhere than at the source.
    moved: bool,
    bytes: u64,
}

impl Ledger {
    /// All of these, where they are at the source.
    pub fn new(pages: &PageSet) -> Ledger {
        let pieces = pages.runs().iter().map(|run| (run.start, Piece { end: run.end, there: run.start })).collect();
        Ledger { pieces, moved: false, bytes: pages.bytes() }
    }

    /// Bytes that are owed.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What is owed here, neighbours together where they came together, by address.
    pub fn runs(&self) -> impl Iterator<Item = Run> + '_ {
        self.pieces.iter().map(|(start, piece)| Run { start: *start, end: piece.end })
    }

    /// These are owed from now on, where they are at the source.
    pub fn add(&mut self, pages: &PageSet) {
        for run in pages.runs() {
            self.strike(*run);
            self.pieces.insert(run.start, Piece { end: run.end, there: run.start });
            self.bytes += run.bytes();
        }
    }

    /// The lowest address at which something is owed.
    pub fn first(&self) -> Option<u64> {
        self.pieces.keys().next().copied()
    }

    /// What the source has that belongs to an address; `None`: nothing is owed there.
    pub fn origin(&self, address: u64) -> Option<u64> {
        let (start, piece) = self.pieces.range(..=address).next_back()?;
        (address < piece.end).then(|| piece.there + (address - start))
    }

    /// The parts of all pieces within a range.
    pub fn within(&self, range: Run) -> Vec<Place> {
        if range.start >= range.end {
            return Vec::new();
        }
        let first = self.pieces.range(..range.start).next_back().map_or(range.start, |(start, _)| *start);
        let near = self.pieces.range(first..range.end).filter(|(_, piece)| piece.end > range.start);
        near.map(|(start, piece)| {
            let here = Run { start: range.start.max(*start), end: range.end.min(piece.end) };
            Place { here, there: piece.there + (here.start - start) }
        })
        .collect()
    }

    /// Where pages of the source belong.
    pub fn places(&self, there: Run) -> Vec<Place> {
        if !self.moved {
            return self.within(there);
        }
        let parts = self.pieces.iter().filter_map(|(start, piece)| {
            let end = piece.there + (piece.end - start);
            let (from, to) = (there.start.max(piece.there), there.end.min(end));
            let here =
                Run { start: start + from.saturating_sub(piece.there), end: start + to.saturating_sub(piece.there) };
            (from < to).then_some(Place { here, there: from })
        });
        parts.collect()
    }

    /// Nothing is owed in this range any more.
    pub fn strike(&mut self, range: Run) {
        for place in self.within(range) {
            let Some((start, piece)) =
                self.pieces.range(..=place.here.start).next_back().map(|(at, piece)| (*at, *piece))
            else {
                continue;
            };
            self.pieces.remove(&start);
            self.bytes -= place.here.bytes();
            if start < place.here.start {
                self.pieces.insert(start, Piece { end: place.here.start, there: piece.there });
            }
            if place.here.end < piece.end {
                let there = piece.there + (place.here.end - start);
                self.pieces.insert(place.here.end, Piece { end: piece.end, there });
            }
        }
    }

    /// Memory was moved, with what is owed in it.
    pub fn shift(&mut self, from: u64, to: u64, length: u64) {
        let range = Run { start: from, end: from.saturating_add(length) };
        let parts = self.within(range);
        self.strike(range);
        self.strike(Run { start: to, end: to.saturating_add(length) });
        for place in parts {
            let start = to + (place.here.start - from);
            self.pieces.insert(start, Piece { end: start + place.here.bytes(), there: place.there });
            self.bytes += place.here.bytes();
            self.moved |= start != place.there;
        }
    }

    /// What is owed, as addresses of the source.
    pub fn at_source(&self) -> PageSet {
        let run = |(start, piece): (&u64, &Piece)| Run { start: piece.there, end: piece.there + (piece.end - start) };
        self.pieces.iter().map(run).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap as Model;

    const PAGE: u64 = 4096;

    fn run(start: u64, end: u64) -> Run {
        Run { start: start * PAGE, end: end * PAGE }
    }

    fn model_of(ledger: &Ledger) -> Model<u64, u64> {
        (0..64).filter_map(|page| Some((page, ledger.origin(page * PAGE)? / PAGE))).collect()
    }

    #[test]
    fn what_is_added_is_owed_once() {
        let mut ledger = Ledger::new(&[run(2, 9)].into_iter().collect());
        ledger.add(&[run(4, 6), run(8, 12)].into_iter().collect());
        assert_eq!(ledger.bytes(), 10 * PAGE);
        assert_eq!(model_of(&ledger), (2..12).map(|page| (page, page)).collect());
        assert_eq!(ledger.runs().map(Run::bytes).sum::<u64>(), ledger.bytes());
    }

    /// Every sequence of a few operations, against a map of single pages.
    #[test]
    fn the_ledger_agrees_with_a_map_of_pages() {
        let mut seed = 7_u64;
        let mut next = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % below
        };
        for _ in 0..2_000 {
            let first: PageSet = [run(2, 9), run(12, 20), run(30, 31)].into_iter().collect();
            let mut ledger = Ledger::new(&first);
            let mut model: Model<u64, u64> = (2..9).chain(12..20).chain(30..31).map(|page| (page, page)).collect();
            for _ in 0..6 {
                let (start, length) = (next(32), 1 + next(8));
                if next(2) == 0 {
                    ledger.strike(run(start, start + length));
                    model.retain(|page, _| !(start..start + length).contains(page));
                } else {
                    let to = next(2) * 32 + next(20);
                    // The kernel does not move memory onto itself.
                    if to < start + length && start < to + length {
                        continue;
                    }
                    ledger.shift(start * PAGE, to * PAGE, length * PAGE);
                    let moved: Vec<(u64, u64)> =
                        (0..length).filter_map(|page| Some((to + page, model.remove(&(start + page))?))).collect();
                    model.retain(|page, _| !(to..to + length).contains(page));
                    model.extend(moved);
                }
                assert_eq!(model_of(&ledger), model);
                assert_eq!(ledger.bytes(), model.len() as u64 * PAGE);
                let from = next(32);
                let mut found: Vec<(u64, u64)> = Vec::new();
                for place in ledger.places(run(from, from + 5)) {
                    for page in 0..place.here.bytes() / PAGE {
                        found.push((place.here.start / PAGE + page, place.there / PAGE + page));
                    }
                }
                found.sort_unstable();
                let expected: Vec<(u64, u64)> =
                    model.iter().filter(|(_, there)| (from..from + 5).contains(there)).map(|(a, b)| (*a, *b)).collect();
                assert_eq!(found, expected);
            }
        }
    }
}
