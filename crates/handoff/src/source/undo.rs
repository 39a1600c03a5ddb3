//! The way back at the source: everything that was done is undone, the last first.

use alloc::vec::Vec;

use godwit_deterministic::Instant;

use super::{Source, State, leaves_work};
use crate::identity::Side;
use crate::journal::Stage;
use crate::outcome::Outcome;
use crate::reason::Reason;
use crate::step::{Deed, Step, TABLE};

impl Source {
    /// Walks the table upwards from `reached`, which may be half done.
    pub(super) fn undo(&mut self, now: Instant, reached: Step, by: Side, reason: Reason) {
        self.actions.clear();
        self.deadline = None;
        self.outcome = None;
        let rows = TABLE.iter().take(reached as usize + 1);
        let mut remaining: Vec<Deed> = rows.filter_map(|row| row.undo_source).collect();
        let mut end = Outcome::RolledBack { by, reason };
        if self.tasks_gone {
            remaining.retain(|deed| matches!(deed, Deed::Journal(_)));
            end = Outcome::Lost;
        }
        self.state = State::Undoing { remaining, end };
        self.undo_next(now);
    }

    pub(super) fn undo_next(&mut self, now: Instant) {
        let State::Undoing { remaining, end } = &mut self.state else { return };
        // What could not be undone must be found again: then the journal keeps its entry.
        if leaves_work(&self.troubles) && remaining.last() == Some(&Deed::Journal(Stage::Done)) {
            remaining.pop();
        }
        match remaining.last().copied() {
            Some(deed) => self.perform(deed),
            None => {
                let end = end.clone();
                self.end(now, end);
            }
        }
    }
}
