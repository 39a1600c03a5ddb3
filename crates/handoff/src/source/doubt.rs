//! The source in doubt: the commit may have left, and only the destination's journal says whose the process is.
//!
//! It keeps the tasks stopped, makes new links and asks. It never guesses; where the destination cannot say, a person must.

use godwit_deterministic::{Duration, Instant};

use super::{Source, State};
use crate::action::Settlement;
use crate::identity::Side;
use crate::journal::Stage;
use crate::link::{Link, Pulse};
use crate::mark;
use crate::message::Message;
use crate::outcome::{Doubt, Outcome, Trouble};
use crate::patience::Patience;
use crate::reason::{Opaque, Reason};
use crate::step::{Deed, Step};

/// How the question to the destination stands.
#[derive(Clone, Debug)]
pub(super) struct Asking {
    pub(super) since: Instant,
    pub(super) asked: bool,
    pub(super) tries: u32,
    pub(super) connecting: bool,
    /// It runs there and needs our pages; nothing but whether it has them all is in doubt.
    pub(super) serving: bool,
    /// The pages go over this link already.
    pub(super) served: bool,
    /// Why it will have been rolled back if the answer is that it was aborted.
    pub(super) why: Reason,
}

impl Asking {
    /// Something is awaited that may not come.
    pub(super) fn is_open(&self, link: &Link) -> bool {
        !self.serving || self.asked || !link.is_up()
    }
}

impl Source {
    pub(super) fn settle(&mut self, now: Instant, settlement: Settlement) {
        if !matches!(self.state, State::Doubt(_)) || self.outcome.is_none() {
            return mark::REPORT_IGNORED.hit();
        }
        match settlement {
            Settlement::Kill => self.close(now),
            Settlement::Resume => self.undo(now, Step::Seal, Side::Source, Reason::Cancelled),
        }
    }

    pub(super) fn enter_doubt(&mut self, now: Instant, why: Reason) {
        self.state = State::Doubt(Asking {
            since: now,
            asked: false,
            tries: 0,
            connecting: false,
            serving: false,
            served: false,
            why,
        });
        // Without a link (after a crash) the deadline is the time to make one: now.
        self.deadline = Some(if self.link.is_up() { now + self.config.patience.answer } else { now });
        if !self.link.is_up() {
            self.reconnect();
        }
    }

    /// After a crash of who served.
    pub(super) fn serve_again(&mut self, now: Instant) {
        self.enter_doubt(now, Reason::EngineDied);
        if let State::Doubt(asking) = &mut self.state {
            asking.serving = true;
        }
    }

    /// The destination has said that it runs there and needs our pages.
    pub(super) fn serve(&mut self, now: Instant) {
        let needs_person = self.needs_person();
        let State::Doubt(asking) = &mut self.state else { return };
        if needs_person || (asking.serving && !asking.asked) {
            return mark::SOURCE_IGNORED.hit();
        }
        if self.tasks_gone {
            // It must not wait for them.
            mark::NOTHING_TO_SERVE.hit();
            return self.say(now, Message::Abort(Reason::EngineDied));
        }
        let (is_new, is_up) = (!asking.serving, self.link.is_up());
        let begins = is_up && !asking.served;
        asking.serving = true;
        if is_up {
            // Now and then it is asked whether it has them all: the word for that could be lost.
            (asking.asked, asking.served, asking.tries) = (false, true, 0);
            self.deadline = Some(now + self.config.patience.answer);
            self.outcome = None;
        }
        self.timeline.resumed.get_or_insert(now);
        if is_new {
            self.perform(Deed::Journal(Stage::Serving));
        } else if begins {
            mark::SERVED_AGAIN.hit();
        }
        if begins {
            self.perform(Deed::Serve);
        }
    }

    /// Without the note, a recovery asks as one in doubt does; without the pages, the destination must not wait for them.
    pub(super) fn cannot_serve(&mut self, now: Instant, deed: Deed, refusal: Opaque) {
        if deed == Deed::Serve {
            self.say(now, Message::Abort(Reason::Failed { deed, refusal: refusal.clone() }));
        }
        self.troubles.push(Trouble { deed, refusal });
    }

    fn reconnect(&mut self) {
        if let State::Doubt(asking) = &mut self.state {
            asking.connecting = true;
            self.deadline = None;
            self.perform(Deed::Reconnect);
        }
    }

    /// The destination has given an answer that it will not change.
    fn needs_person(&self) -> bool {
        matches!(self.outcome, Some(Outcome::InDoubt(Doubt::Unknown | Doubt::Lost)))
    }

    pub(super) fn report_doubt(&mut self, doubt: Doubt) {
        mark::DOUBT_REPORTED.hit();
        self.outcome = Some(Outcome::InDoubt(doubt));
        if doubt != Doubt::NoAnswer {
            // Asking the same journal again would give the same answer: a person must decide. The link is not needed for that.
            self.deadline = None;
            self.link.lose();
        }
    }

    pub(super) fn link_up(&mut self, now: Instant) {
        if matches!(self.state, State::Idle | State::Ended) {
            return;
        }
        self.link.raise(now);
        if let State::Doubt(asking) = &mut self.state {
            mark::ASKED.hit();
            asking.connecting = false;
            asking.asked = true;
            self.deadline = Some(now + self.config.patience.answer);
            self.say(now, Message::Query);
        }
    }

    pub(super) fn link_lost(&mut self, now: Instant) {
        self.link.lose();
        self.messages.clear();
        let needs_person = self.needs_person();
        match &mut self.state {
            State::Forward(_) => self.roll_back(now, Reason::LinkLost),
            State::Doubt(_) if needs_person => self.deadline = None,
            State::Doubt(asking) => {
                if asking.served {
                    asking.since = now;
                }
                let pause = backoff(&self.config.patience, asking.tries);
                asking.tries = asking.tries.saturating_add(1);
                (asking.connecting, asking.asked, asking.served) = (false, false, false);
                self.deadline = Some(now + pause);
            }
            _ => {}
        }
    }

    pub(super) fn timeout(&mut self, now: Instant) {
        match self.link.pulse(now) {
            _ if matches!(self.state, State::Idle | State::Ended) => return,
            Pulse::Silent => return self.link_lost(now),
            Pulse::Beat => self.say(now, Message::Heartbeat),
            Pulse::Fine => {}
        }
        let due = self.deadline.is_some_and(|deadline| now >= deadline);
        match &mut self.state {
            State::Forward(step) if due => {
                let reason = Reason::TimedOut(*step);
                self.roll_back(now, reason);
            }
            State::Doubt(asking) => {
                let open = asking.is_open(&self.link) && self.outcome.is_none();
                let report = open && now >= asking.since + self.config.patience.doubt;
                if due && !self.link.is_up() {
                    self.reconnect();
                } else if due && asking.asked {
                    mark::LINK_GIVEN_UP.hit();
                    self.link_lost(now);
                } else if due {
                    mark::ASKED.hit();
                    asking.asked = true;
                    if asking.serving {
                        asking.since = now;
                    }
                    self.deadline = Some(now + self.config.patience.answer);
                    self.say(now, Message::Query);
                }
                if report {
                    self.report_doubt(Doubt::NoAnswer);
                }
            }
            _ => {}
        }
    }
}

/// The pause before the next attempt to reconnect, after `tries` of them.
fn backoff(patience: &Patience, tries: u32) -> Duration {
    patience.reconnect_first.times(1 << tries.min(32)).min(patience.reconnect_most)
}
