//! Coverage marks: a rare branch leaves a mark, and a test demands that it did.
//!
//! A mark says *why* a test exists: if the branch is no longer reached by the test that is meant for it, the test fails
//! although its result is still right. The count is for the whole program, so a test that demands marks should be alone in
//! its test binary or look at the difference.

use core::sync::atomic::{AtomicU64, Ordering};

/// A place in the code that counts how often it was reached.
#[derive(Debug)]
pub struct Mark {
    name: &'static str,
    hits: AtomicU64,
}

impl Mark {
    /// A mark that has not been reached; put it into a `static` beside the branch.
    pub const fn new(name: &'static str) -> Mark {
        Mark { name, hits: AtomicU64::new(0) }
    }

    /// Counts one passage. Costs one relaxed atomic addition.
    pub fn hit(&self) {
        self.hits.fetch_add(1, Ordering::Relaxed);
    }

    /// How often the place was reached since the program began.
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// The name that a failing test prints.
    pub fn name(&self) -> &'static str {
        self.name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_counts() {
        static MARK: Mark = Mark::new("here");
        MARK.hit();
        MARK.hit();
        assert_eq!((MARK.hits(), MARK.name()), (2, "here"));
    }
}
