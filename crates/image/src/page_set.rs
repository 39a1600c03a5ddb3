//! Sets of pages as sorted runs; never lists of pages.
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// A half-open range of bytes, page-aligned.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Run {
    /// First byte.
    pub start: u64,
    /// Byte after the last.
    pub end: u64,
}

impl Run {
    /// Length in bytes.
    pub fn bytes(self) -> u64 {
        self.end.saturating_sub(self.start)
    }
}

/// Disjoint, ascending, never adjacent runs.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PageSet {
    runs: Vec<Run>,
}

impl PageSet {
    /// The empty set.
    pub fn new() -> PageSet {
        PageSet::default()
    }

    /// The runs, ascending.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Total length in bytes.
    pub fn bytes(&self) -> u64 {
        self.runs.iter().map(|run| run.bytes()).sum()
    }

    /// Adds a range; merges with what is there.
    pub fn insert(&mut self, run: Run) {
        if run.end <= run.start {
            return;
        }
        // The common case: ranges arrive ascending.
        match self.runs.last_mut() {
            None => return self.runs.push(run),
            Some(last) if last.end < run.start => return self.runs.push(run),
            Some(last) if last.start <= run.start => {
                last.end = last.end.max(run.end);
                return;
            }
            Some(_) => {}
        }
        let first = self.runs.partition_point(|other| other.end < run.start);
        let last = self.runs.partition_point(|other| other.start <= run.end);
        let mut merged = run;
        if first < last {
            merged.start = merged.start.min(self.runs[first].start);
            merged.end = merged.end.max(self.runs[last - 1].end);
        }
        self.runs.splice(first..last, [merged]);
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(&self, other: &PageSet) -> PageSet {
        let mut both = PageSet::new();
        let (Some(first), Some(other_first)) = (self.runs.first(), other.runs.first()) else { return both };
        // One of them is often a single range.
        let mut a = self.runs.partition_point(|run| run.end <= other_first.start);
        let mut b = other.runs.partition_point(|run| run.end <= first.start);
        while let (Some(x), Some(y)) = (self.runs.get(a), other.runs.get(b)) {
            both.insert(Run { start: x.start.max(y.start), end: x.end.min(y.end) });
            if x.end <= y.end { a += 1 } else { b += 1 }
        }
        both
    }

    /// What is in this set and not in the other.
    #[must_use]
    pub fn difference(&self, other: &PageSet) -> PageSet {
        let mut rest = PageSet::new();
        for run in &self.runs {
            let mut start = run.start;
            let first = other.runs.partition_point(|cut| cut.end <= run.start);
            for cut in other.runs[first..].iter().take_while(|cut| cut.start < run.end) {
                rest.insert(Run { start, end: cut.start });
                start = start.max(cut.end);
            }
            rest.insert(Run { start, end: run.end });
        }
        rest
    }

    /// What is in either; for sets of many runs.
    #[must_use]
    pub fn union(&self, other: &PageSet) -> PageSet {
        let mut either = PageSet::new();
        let (mut a, mut b) = (self.runs.iter().peekable(), other.runs.iter().peekable());
        loop {
            let next = match (a.peek(), b.peek()) {
                (Some(x), Some(y)) if y.start < x.start => b.next(),
                (Some(_), _) => a.next(),
                (None, _) => b.next(),
            };
            let Some(run) = next else { return either };
            either.insert(*run);
        }
    }

    /// Everything of another set, too.
    pub fn extend(&mut self, other: &PageSet) {
        for run in &other.runs {
            self.insert(*run);
        }
    }

    /// Whether a set from outside keeps the promise of its type: ascending, disjoint, never adjacent, page-aligned.
    pub fn is_sound(&self) -> bool {
        self.runs.windows(2).all(|pair| pair[0].end < pair[1].start)
            && self.runs.iter().all(|run| run.start < run.end && (run.start | run.end) % 4096 == 0)
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Whether all of a range is in the set.
    pub fn covers(&self, start: u64, end: u64) -> bool {
        let index = self.runs.partition_point(|run| run.end <= start);
        self.runs.get(index).is_some_and(|run| run.start <= start && end <= run.end)
    }

    /// Whether the byte at `address` is in the set.
    pub fn contains(&self, address: u64) -> bool {
        let index = self.runs.partition_point(|run| run.end <= address);
        self.runs.get(index).is_some_and(|run| run.start <= address)
    }
}

impl FromIterator<Run> for PageSet {
    fn from_iter<I: IntoIterator<Item = Run>>(runs: I) -> PageSet {
        let mut set = PageSet::new();
        for run in runs {
            set.insert(run);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn insertion_matches_a_bitmap() {
        let mut state: u64 = 42;
        for _ in 0..200 {
            let mut set = PageSet::new();
            let mut bits = [false; 64];
            for _ in 0..12 {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let start = (state >> 33) % 60;
                let end = start + (state >> 50) % 5;
                set.insert(Run { start, end });
                bits[start as usize..end as usize].fill(true);
            }
            for (index, bit) in bits.iter().enumerate() {
                assert_eq!(set.contains(index as u64), *bit);
                let end = (index + 3).min(64);
                assert_eq!(set.covers(index as u64, end as u64), bits[index..end].iter().all(|bit| *bit));
            }
            let other: PageSet = [Run { start: 3, end: 17 }, Run { start: 20, end: 21 }, Run { start: 40, end: 64 }]
                .into_iter()
                .collect();
            let (both, rest) = (set.intersection(&other), set.difference(&other));
            for (index, bit) in bits.iter().enumerate() {
                assert_eq!(both.contains(index as u64), *bit && other.contains(index as u64));
                assert_eq!(rest.contains(index as u64), *bit && !other.contains(index as u64));
            }
            assert_eq!(set.bytes(), bits.iter().filter(|bit| **bit).count() as u64);
            assert!(set.runs().windows(2).all(|pair| pair[0].end < pair[1].start));
        }
    }
}
