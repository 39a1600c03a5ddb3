//! How many passed, failed and were skipped, and the lines that say so.

use std::fmt;
use std::ops::AddAssign;

/// Three counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) passed: usize,
    pub(super) failed: usize,
    pub(super) skipped: usize,
}

impl Tally {
    /// Reads the line that ends each run of Rust's test harness.
    pub(super) fn of_test_result(line: &str) -> Option<Self> {
        let counts = line.trim().strip_prefix("test result: ")?.split_once(". ")?.1;
        let count = |word: &str| {
            let (number, found) = counts.split("; ").find(|part| part.ends_with(word))?.split_once(' ')?;
            (found == word).then(|| number.parse().ok())?
        };
        Some(Self { passed: count("passed")?, failed: count("failed")?, skipped: count("ignored")? })
    }

    /// Reads `N passed, N failed, N skipped`.
    pub(super) fn of_closing_line(line: &str) -> Option<Self> {
        let mut parts = line.trim().split(", ");
        let mut count = |word: &str| parts.next()?.strip_suffix(word)?.strip_suffix(' ')?.parse().ok();
        let tally = Self { passed: count("passed")?, failed: count("failed")?, skipped: count("skipped")? };
        parts.next().is_none().then_some(tally)
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TALLY: Tally = Tally { passed: 12, failed: 3, skipped: 1 };

    #[test]
    fn a_test_result_is_read() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.10s";
        assert_eq!(Tally::of_test_result(line), Some(TALLY));
        assert_eq!(Tally::of_test_result("test parse::test result ... ok"), None);
        assert_eq!(Tally::of_test_result("test result: ok. many passed; 3 failed; 1 ignored"), None);
    }

    #[test]
    fn a_closing_line_is_what_is_written() {
        assert_eq!(Tally::of_closing_line(&TALLY.to_string()), Some(TALLY));
        for line in ["", "12 passed, 3 failed", "12 passed, 3 failed, 1 skipped, more", "x passed, 3 failed, 1 skipped"]
        {
            assert_eq!(Tally::of_closing_line(line), None, "{line}");
        }
    }
}
