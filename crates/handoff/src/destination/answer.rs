//! What the destination answers to a commit, a query and a goodbye, in each of its states.

use godwit_deterministic::Instant;

use super::{Destination, State};
use crate::journal::Stage;
use crate::mark;
use crate::message::{Message, Verdict};
use crate::reason::Reason;
use crate::step::{Deed, Step};

impl Destination {
    pub(super) fn commit(&mut self, now: Instant) {
        match self.state {
            State::Forward(Step::Hold) => {
                self.timeline.committed = Some(now);
                self.enter(now, Step::Commit);
            }
            State::Forward(step) if !step.row().no_return => {
                // No sound source does this. Nothing is held yet, so nothing can be promised.
                self.abort(now, Reason::OutOfTurn(step));
            }
            State::Forward(Step::Release) => {
                mark::COMMIT_DOUBLED.hit();
                self.say(now, Message::Resumed);
            }
            State::Forward(Step::PostProcess) => {
                mark::COMMIT_DOUBLED.hit();
                self.say(now, if self.stored { Message::Resumed } else { Message::Owing });
            }
            State::Forward(Step::Resume) if self.awaits_source => self.say(now, Message::Answer(Verdict::Committed)),
            State::Forward(_) | State::Losing | State::Undoing { late: true, .. } => mark::COMMIT_DOUBLED.hit(),
            State::Undoing { .. } | State::Aborted => {
                mark::COMMIT_TOO_LATE.hit();
                self.say(now, Message::Answer(Verdict::Aborted));
            }
            State::Lost => self.say(now, Message::Answer(Verdict::Lost)),
            State::Stranger => {
                mark::STRANGER_ASKED.hit();
                self.say(now, Message::Answer(Verdict::Unknown));
            }
            State::Ended => mark::DESTINATION_IGNORED.hit(),
        }
    }

    pub(super) fn query(&mut self, now: Instant) {
        match self.state {
            State::Forward(step) if !step.row().no_return => {
                // The commit, if it left, is lost with the old link. An answer must be final: give up.
                mark::ABORTED_WHEN_ASKED.hit();
                self.abort(now, Reason::LinkLost);
            }
            State::Forward(Step::Release) => self.say(now, Message::Answer(Verdict::Committed)),
            State::Forward(Step::PostProcess) => {
                let verdict = if self.stored { Verdict::Committed } else { Verdict::Owing };
                self.say(now, Message::Answer(verdict));
            }
            State::Forward(Step::Resume) if self.awaits_source => self.say(now, Message::Answer(Verdict::Committed)),
            // They could not be ended: now they may be.
            State::Losing if self.outcome.take().is_some() => self.perform(Deed::Discard),
            // The end of these says it.
            State::Forward(_) | State::Losing | State::Undoing { late: true, .. } => mark::ANSWER_DEFERRED.hit(),
            State::Undoing { .. } | State::Aborted => self.say(now, Message::Answer(Verdict::Aborted)),
            State::Lost => self.say(now, Message::Answer(Verdict::Lost)),
            State::Stranger | State::Ended => {
                mark::STRANGER_ASKED.hit();
                self.say(now, Message::Answer(Verdict::Unknown));
            }
        }
    }

    pub(super) fn goodbye(&mut self, now: Instant) {
        match self.state {
            State::Forward(step) if !step.row().no_return => {
                self.dismissed = true;
                self.abort(now, Reason::OutOfTurn(step));
            }
            State::Forward(Step::Release) | State::Aborted | State::Lost if !self.dismissed => {
                self.dismissed = true;
                // What could not be removed must be found again: then the journal keeps its entry.
                if !self.has_failed(Deed::Discard) {
                    self.perform(Deed::Journal(Stage::Done));
                }
            }
            State::Undoing { .. } => self.dismissed = true,
            // The journal keeps its entry until all is here.
            State::Forward(Step::PostProcess) if self.stored => self.dismissed = true,
            // The journal keeps its entry until they run.
            State::Forward(Step::Resume) if self.awaits_source => self.dismissed = true,
            _ => mark::DESTINATION_IGNORED.hit(),
        }
    }
}
