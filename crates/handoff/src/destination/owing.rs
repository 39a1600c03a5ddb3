//! Tasks that run here while pages of theirs are still at the source. Whoever gets those for them must live as long as any is owed: tasks that
//! cannot get them are ended, because they would read zeros.

use godwit_deterministic::Instant;

use super::{Destination, State};
use crate::journal::Stage;
use crate::mark;
use crate::message::{Message, Verdict};
use crate::outcome::{Outcome, Trouble};
use crate::step::{Deed, Step};

impl Destination {
    /// They run, and pages are owed.
    pub(super) fn is_owing(&self) -> bool {
        matches!(self.state, State::Forward(Step::PostProcess))
    }

    /// What is owed does not depend on the source any more.
    pub(super) fn is_stored(&mut self, now: Instant) {
        match self.state {
            State::Forward(step) if !step.row().no_return => self.stored = true,
            State::Forward(Step::PostProcess) if !self.fetched => {
                self.stored = true;
                self.deadline = None;
                self.say(now, Message::AllHeld);
            }
            _ => mark::REPORT_IGNORED.hit(),
        }
    }

    /// What is owed will not come: tasks that cannot go on are ended, before anybody hears of it.
    pub(super) fn give_up_owed(&mut self) {
        mark::OWED_LOST.hit();
        self.deadline = None;
        self.actions.clear();
        self.state = State::Losing;
        self.perform(Deed::Discard);
    }

    pub(super) fn lose(&mut self, now: Instant) {
        mark::LOST.hit();
        self.deadline = self.link.is_up().then(|| now + self.config.patience.linger);
        self.outcome = Some(Outcome::Lost);
        self.state = State::Lost;
        self.say(now, Message::Answer(Verdict::Lost));
    }

    /// Without a link for too long; or the note that all is here is to be written again.
    pub(super) fn fetch_due(&mut self) {
        if self.fetched {
            self.perform(Deed::Journal(Stage::Resumed));
        } else if !self.link.is_up() && !self.stored {
            mark::OWED_TOO_LONG.hit();
            self.troubles.push(Trouble { deed: Deed::Fetch, refusal: "no link came back".into() });
            self.give_up_owed();
        }
    }
}
