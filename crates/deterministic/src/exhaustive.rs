//! All cases instead of random ones: a generator that a test asks for choices, and that in the end has given every combination.
//!
//! After TigerBeetle's `exhaustigen` (idea only): the choices made in one run are the digits of a number whose bases were
//! found out while running; the next run counts that number up. A choice may depend on earlier ones.
//!
//! ```
//! use godwit_deterministic::Exhaustive;
//! let mut generator = Exhaustive::new();
//! let mut seen = Vec::new();
//! while generator.more() {
//!     let coin = generator.below(2);
//!     let detail = if coin == 1 { generator.below(3) } else { 0 };
//!     seen.push((coin, detail));
//! }
//! assert_eq!(seen, [(0, 0), (1, 0), (1, 1), (1, 2)]);
//! ```

use alloc::vec::Vec;

/// One digit: what was chosen out of how many.
#[derive(Clone, Copy, Debug)]
struct Digit {
    chosen: usize,
    bound: usize,
}

/// Enumerates every sequence of choices. Cost: one run of the test per sequence.
#[derive(Clone, Debug, Default)]
pub struct Exhaustive {
    digits: Vec<Digit>,
    position: usize,
    started: bool,
}

impl Exhaustive {
    /// A generator before its first run.
    pub fn new() -> Exhaustive {
        Exhaustive::default()
    }

    /// Begins the next run; false when every sequence has been given.
    pub fn more(&mut self) -> bool {
        if !self.started {
            self.started = true;
            return true;
        }
        self.digits.truncate(self.position);
        self.position = 0;
        while let Some(last) = self.digits.last_mut() {
            if last.chosen + 1 < last.bound {
                last.chosen += 1;
                return true;
            }
            self.digits.pop();
        }
        false
    }

    /// A choice in `0..bound`. A bound of zero or one is no choice and gives zero.
    ///
    /// # Panics
    /// If a run that repeats an earlier one up to here asks for another bound than that one did: then the test is not
    /// deterministic and its enumeration would not be one.
    pub fn below(&mut self, bound: usize) -> usize {
        if bound < 2 {
            return 0;
        }
        if self.position == self.digits.len() {
            self.digits.push(Digit { chosen: 0, bound });
        }
        let digit = self.digits[self.position];
        assert_eq!(digit.bound, bound, "a repeated run asked differently: the test is not deterministic");
        self.position += 1;
        digit.chosen
    }

    /// One of `items`, or `None` if there is none.
    pub fn choose<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len()))
    }

    /// The choices of this run so far: printed by a failing test, replayed with [`Exhaustive::replay`].
    pub fn choices(&self) -> Vec<usize> {
        self.digits[..self.position].iter().map(|digit| digit.chosen).collect()
    }

    /// A generator that gives `choices` again in its first run and zeros after them.
    pub fn replay(choices: &[usize]) -> Replay {
        Replay { choices: choices.to_vec(), position: 0 }
    }
}

/// One recorded run, given again.
#[derive(Clone, Debug)]
pub struct Replay {
    choices: Vec<usize>,
    position: usize,
}

impl Replay {
    /// The recorded choice, clipped to `bound`; zero after the end of the record.
    pub fn below(&mut self, bound: usize) -> usize {
        if bound < 2 {
            return 0;
        }
        let chosen = self.choices.get(self.position).copied().unwrap_or(0);
        self.position += 1;
        chosen.min(bound - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;

    #[test]
    fn every_combination_comes_exactly_once() {
        let mut generator = Exhaustive::new();
        let (mut runs, mut seen) = (0, BTreeSet::new());
        while generator.more() {
            let length = generator.below(4);
            let word: Vec<usize> = (0..length).map(|_| generator.below(3)).collect();
            runs += 1;
            assert!(seen.insert(word));
        }
        assert_eq!((runs, seen.len()), (1 + 3 + 9 + 27, 40));
    }

    #[test]
    fn a_run_can_be_replayed() {
        let mut generator = Exhaustive::new();
        while generator.more() {
            let made = [generator.below(3), generator.below(1), generator.below(2)];
            let mut again = Exhaustive::replay(&generator.choices());
            assert_eq!(made, [again.below(3), again.below(1), again.below(2)]);
        }
    }
}
