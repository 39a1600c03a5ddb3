//! The way back: what was done is undone, and the source hears of it.

use alloc::vec::Vec;

use godwit_deterministic::Instant;

use super::{Destination, State};
use crate::identity::Side;
use crate::journal::Stage;
use crate::mark;
use crate::message::Message;
use crate::outcome::{Outcome, Trouble};
use crate::reason::{Opaque, Reason};
use crate::step::{Deed, Step, TABLE};

impl Destination {
    pub(super) fn resume_failed(&mut self, now: Instant, refusal: Opaque, may_have_run: bool) {
        if !matches!(self.state, State::Forward(Step::Resume)) {
            return mark::REPORT_IGNORED.hit();
        }
        // An earlier engine may have resumed them and died before it could note so.
        if self.awaits_source && !may_have_run {
            // What the source has been told cannot be taken back; nothing is lost either.
            mark::HELD.hit();
            self.troubles.push(Trouble { deed: Deed::Resume, refusal });
            self.outcome = Some(Outcome::Held);
            self.deadline = self.link.is_up().then(|| now + self.config.patience.linger);
        } else if self.owes && may_have_run {
            self.troubles.push(Trouble { deed: Deed::Resume, refusal });
            self.give_up_owed();
        } else if may_have_run || self.recovered {
            self.troubles.push(Trouble { deed: Deed::Resume, refusal });
            self.lose(now);
        } else {
            mark::COMMIT_TAKEN_BACK.hit();
            self.undo(now, Step::Hold, Side::Destination, Reason::Failed { deed: Deed::Resume, refusal }, true);
        }
    }

    /// Walks the table upwards from `reached`, which may be half done.
    pub(super) fn undo(&mut self, now: Instant, reached: Step, by: Side, reason: Reason, late: bool) {
        self.actions.clear();
        self.deadline = None;
        let rows = TABLE.iter().take(reached as usize + 1);
        let mut remaining: Vec<Deed> =
            if self.noted { rows.filter_map(|row| row.undo_destination).collect() } else { Vec::new() };
        if late {
            // The decision is turned round in the journal first: a crash after that means "aborted", before it "committed" with tasks
            // that still can be resumed. The other way round there would be a decision for tasks that are gone.
            remaining.reverse();
        }
        self.state = State::Undoing { remaining, by, reason, late };
        self.undo_next(now);
    }

    pub(super) fn undo_next(&mut self, now: Instant) {
        let State::Undoing { remaining, by, reason, late } = &self.state else { return };
        if let Some(&deed) = remaining.last() {
            // What could be removed died with its boot; what has the same names now is somebody else's.
            return if deed == Deed::Discard && self.tasks_gone { self.done(now, deed) } else { self.perform(deed) };
        }
        let (by, reason, late) = (*by, reason.clone(), *late);
        if late && self.has_failed(Deed::Discard) && self.has_failed(Deed::Journal(Stage::Aborted)) {
            // Tasks that are still there could be woken by a record that is still there: then nobody may go on elsewhere.
            return self.lose(now);
        }
        if late {
            self.say(now, Message::Abort(reason.clone()));
        }
        self.outcome = Some(Outcome::RolledBack { by, reason });
        if !self.noted {
            self.state = State::Ended;
            return;
        }
        self.state = State::Aborted;
        self.deadline = self.link.is_up().then(|| now + self.config.patience.linger);
        if self.dismissed && !self.has_failed(Deed::Discard) {
            self.perform(Deed::Journal(Stage::Done));
        }
    }
}
