//! The destination's machine: its journal alone decides whose the process is.
//!
//! Until a commit arrives it may give up at any time, by itself and for good; it is therefore never in doubt. When the commit has
//! arrived and is in its journal, it resumes the tasks and says so. Whoever asks later is told what the journal says, and
//! nobody is told "committed" before the tasks run: until then a commit that cannot be carried out can still be taken back. Only where
//! the tasks cannot run before the source's have ended ([`Event::AwaitsSource`]), it is told as soon as it is in the journal, and final.

mod answer;
mod owing;
mod undo;

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

use godwit_deterministic::Instant;

use crate::action::{Action, Event, Totals};
use crate::capability::Capabilities;
use crate::identity::{BootId, MigrationId, Side, Versions};
use crate::journal::{Record, Stage};
use crate::link::{Link, Pulse};
use crate::mark;
use crate::message::{Message, Packet, Verdict};
use crate::outcome::{Outcome, Peer, Trouble};
use crate::patience::Patience;
use crate::reason::{Opaque, Reason};
use crate::step::{Deed, Step};
use crate::timeline::Timeline;

/// What a new destination must know.
#[derive(Clone, Debug)]
pub struct DestinationConfig {
    /// From the packet of the Hello that opened the link.
    pub migration: MigrationId,
    /// This host's boot.
    pub boot: BootId,
    /// Protocol versions to speak, usually [`Versions::SUPPORTED`].
    pub versions: Versions,
    /// What this host can do, for the source's driver.
    pub capabilities: Capabilities,
    /// Time-outs.
    pub patience: Patience,
}

#[derive(Clone, Debug)]
enum State {
    /// In Hold it waits for the commit, in Release for the Goodbye.
    Forward(Step),
    Undoing {
        /// What remains to be undone; the last is being done.
        remaining: Vec<Deed>,
        by: Side,
        reason: Reason,
        /// A commit had arrived: the source hears of the end only when it is complete.
        late: bool,
    },
    /// It will never run here; kept to say so.
    Aborted,
    /// It was committed here and is gone; kept to say so.
    Lost,
    /// The tasks cannot have what they are owed, and are ended.
    Losing,
    /// There is no record.
    Stranger,
    Ended,
}

/// An offer that is being examined.
#[derive(Clone, Debug)]
struct Offer {
    dry_run: bool,
    strategy: String,
}

/// The destination's side of one hand-off. How to drive it is said at the top of this room.
#[derive(Clone, Debug)]
pub struct Destination {
    config: DestinationConfig,
    state: State,
    link: Link,
    deadline: Option<Instant>,
    messages: VecDeque<Packet>,
    actions: VecDeque<Action>,
    peer: Option<Peer>,
    offer: Option<Offer>,
    totals: Totals,
    /// The root's number, once it is known.
    root: u32,
    /// A record may be in the journal.
    noted: bool,
    receiving: bool,
    /// The host was started anew since: the tasks are gone.
    tasks_gone: bool,
    /// Made from a journal: what an earlier engine did after its last record is not known.
    recovered: bool,
    /// The source will not ask again.
    dismissed: bool,
    /// The source's tasks must have ended before these can run: nothing is taken back once the decision is in the journal.
    awaits_source: bool,
    /// Pages of the tasks stay behind when they run.
    owes: bool,
    /// All that is owed is in a page store: the source is not needed for it.
    stored: bool,
    /// All of those are here.
    fetched: bool,
    moved: (u64, u64),
    timeline: Timeline,
    troubles: Vec<Trouble>,
    /// What will not be quite as it was.
    changes: Vec<Opaque>,
    outcome: Option<Outcome>,
}

impl Destination {
    /// A destination to which a link was made just now; the Hello is the first message to give it.
    pub fn new(now: Instant, config: DestinationConfig) -> Destination {
        let mut destination = Destination::with(config);
        destination.timeline.requested = Some(now);
        destination.link.raise(now);
        destination.enter(now, Step::Greet);
        destination
    }

    fn with(config: DestinationConfig) -> Destination {
        Destination {
            link: Link::new(&config.patience),
            config,
            state: State::Stranger,
            deadline: None,
            messages: VecDeque::new(),
            actions: VecDeque::new(),
            peer: None,
            offer: None,
            totals: Totals::default(),
            root: 0,
            noted: false,
            receiving: false,
            tasks_gone: false,
            recovered: false,
            dismissed: false,
            awaits_source: false,
            owes: false,
            stored: false,
            fetched: false,
            moved: (0, 0),
            timeline: Timeline::default(),
            troubles: Vec::new(),
            changes: Vec::new(),
            outcome: None,
        }
    }

    /// The destination of which at most a journal is left: `record` is its last record, `boot` the host's boot now. It begins at once:
    /// poll it. Without a record (or with one of the source's side, or one that is done) it can only say that it does not know.
    pub fn recover(
        now: Instant,
        migration: MigrationId,
        record: Option<&Record>,
        boot: BootId,
        patience: Patience,
    ) -> Destination {
        let record = record.filter(|record| record.side == Side::Destination && record.migration == migration);
        let mut destination = Destination::with(DestinationConfig {
            migration,
            // Kept as it was, so that the next recovery sees as well that the tasks are of an earlier boot.
            boot: record.map_or(boot, |record| record.boot),
            versions: Versions::SUPPORTED,
            capabilities: Capabilities::default(),
            patience,
        });
        destination.recovered = true;
        destination.tasks_gone = destination.config.boot != boot;
        destination.noted = record.is_some();
        match record.map(|record| record.stage) {
            Some(Stage::Accepted) => destination.undo(now, Step::Hold, Side::Destination, Reason::EngineDied, false),
            Some(Stage::Committed) if !destination.tasks_gone => destination.enter(now, Step::Resume),
            Some(Stage::Committed) => destination.lose(now),
            // Who fetched their pages is dead, and without them nothing may run.
            Some(Stage::Owing) if !destination.tasks_gone => destination.give_up_owed(),
            Some(Stage::Owing) => destination.lose(now),
            Some(Stage::Resumed) => {
                destination.state = State::Forward(Step::Release);
                destination.outcome = Some(Outcome::Moved);
            }
            Some(Stage::Aborted) => {
                // The record does not say whether everything could be removed: once more does no harm.
                let (by, reason) = (Side::Destination, Reason::EngineDied);
                destination.state = State::Undoing { remaining: alloc::vec![Deed::Discard], by, reason, late: false };
                destination.undo_next(now);
            }
            _ => destination.outcome = Some(Outcome::Unknown),
        }
        destination
    }

    /// Takes in what has happened at `now`. What is out of place changes nothing.
    pub fn handle(&mut self, now: Instant, event: Event) {
        match event {
            Event::Received(packet) if packet.migration != self.config.migration => mark::STRAY.hit(),
            Event::Received(packet) => {
                self.link.heard(now);
                self.received(now, packet.message);
            }
            Event::LinkUp => {
                self.link.raise(now);
                if self.is_owing() && !self.fetched {
                    self.deadline = None;
                }
            }
            Event::LinkLost => self.link_lost(now),
            Event::Done(deed) => self.done(now, deed),
            Event::Failed { deed, refusal } => self.failed(now, deed, refusal),
            Event::Accepted { changes } => {
                self.changes = changes;
                self.accepted(now);
            }
            Event::Refused(refusals) => {
                if self.is_examining() {
                    self.say(now, Message::Refuse { refusals: refusals.clone() });
                    self.end(Outcome::RolledBack { by: Side::Destination, reason: Reason::Refused(refusals) });
                } else {
                    mark::REPORT_IGNORED.hit();
                }
            }
            Event::Located { root } => self.root = root,
            Event::Moved { pages, bytes } => {
                self.moved = (self.moved.0.saturating_add(pages), self.moved.1.saturating_add(bytes));
                self.link.heard(now);
                if let State::Forward(step @ Step::Transfer) = self.state {
                    self.deadline = Some(now + self.config.patience.of_destination(step));
                }
            }
            Event::AwaitsSource => self.awaits_source = true,
            Event::Owes => self.owes = true,
            Event::Stored => self.is_stored(now),
            Event::ResumeFailed { refusal, may_have_run } => self.resume_failed(now, refusal, may_have_run),
            Event::Cancel => match self.undecided() {
                Some(_) => self.abort(now, Reason::Cancelled),
                None => mark::CANCEL_TOO_LATE.hit(),
            },
            Event::Timeout => self.timeout(now),
            Event::Start | Event::Sent { .. } | Event::AllSent(_) | Event::Settle(_) => mark::REPORT_IGNORED.hit(),
        }
    }

    /// The next message to send, in order. Ask again after every `handle`, until `None`.
    pub fn poll_message(&mut self) -> Option<Packet> {
        self.messages.pop_front()
    }

    /// The next action to perform, in order. Ask again after every `handle`, until `None`.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call `handle` with [`Event::Timeout`], if nothing else happens before. Ask again after every `handle`.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let link = if self.is_resting() { None } else { self.link.due() };
        [self.deadline, link].into_iter().flatten().min()
    }

    /// How it ended, once it has. [`Outcome::Moved`] comes with the resumption; the machine is then still there to answer the
    /// source, and so it is after a roll-back: see [`Destination::is_ended`]. Ask again after every `handle`.
    pub fn outcome(&self) -> Option<&Outcome> {
        self.outcome.as_ref()
    }

    /// True when nothing is left to do, and the source has said Goodbye or was waited for long enough. The machine may be dropped
    /// now: `recover` answers if the source asks after all.
    pub fn is_ended(&self) -> bool {
        let losing = matches!(self.state, State::Losing) && self.outcome.is_none();
        let released = matches!(self.state, State::Forward(Step::Release));
        let held = self.outcome == Some(Outcome::Held);
        matches!(self.state, State::Ended)
            || ((released || held || self.is_resting()) && !losing && self.deadline.is_none())
    }

    /// True when the source has said Goodbye: it will not ask again.
    pub fn is_dismissed(&self) -> bool {
        self.dismissed
    }

    /// The step it is in, for progress displays; `None` while it undoes or has ended.
    pub fn step(&self) -> Option<Step> {
        match self.state {
            State::Forward(step) => Some(step),
            _ => None,
        }
    }

    /// Which migration this is.
    pub fn migration(&self) -> MigrationId {
        self.config.migration
    }

    /// The name of the strategy's row, once an offer has come.
    pub fn strategy(&self) -> Option<&str> {
        self.offer.as_ref().map(|offer| offer.strategy.as_str())
    }

    /// The source, once it has introduced itself.
    pub fn peer(&self) -> Option<&Peer> {
        self.peer.as_ref()
    }

    /// Pages and bytes that have arrived so far.
    pub fn moved(&self) -> (u64, u64) {
        self.moved
    }

    /// What happened when, by this side's clock.
    pub fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// What could not be undone or noted.
    pub fn troubles(&self) -> &[Trouble] {
        &self.troubles
    }

    /// The step it is in, if it may still give up by itself.
    fn undecided(&self) -> Option<Step> {
        match self.state {
            State::Forward(step) if !step.row().no_return => Some(step),
            _ => None,
        }
    }

    fn is_examining(&self) -> bool {
        matches!(self.state, State::Forward(Step::Agree)) && self.offer.is_some() && !self.noted
    }

    /// Nothing happens here any more unless somebody asks.
    fn is_resting(&self) -> bool {
        matches!(self.state, State::Aborted | State::Lost | State::Losing | State::Stranger | State::Ended)
    }

    fn has_failed(&self, deed: Deed) -> bool {
        self.troubles.iter().any(|trouble| trouble.deed == deed)
    }

    fn say(&mut self, now: Instant, message: Message) {
        if self.link.is_up() {
            self.link.said(now);
            self.messages.push_back(Packet { migration: self.config.migration, message });
        }
    }

    fn perform(&mut self, deed: Deed) {
        let action = match deed {
            Deed::Journal(stage) => {
                self.noted = true;
                Action::WriteJournal(Record {
                    side: Side::Destination,
                    stage,
                    migration: self.config.migration,
                    boot: self.config.boot,
                    details: Vec::new(),
                })
            }
            Deed::Receive => Action::Receive,
            Deed::Build => Action::Build(self.totals),
            Deed::HoldStopped => Action::HoldStopped,
            Deed::Resume => Action::Resume,
            Deed::Discard => Action::Discard,
            Deed::Fetch => Action::Fetch,
            // Examine is made from the offer; the others are the source's and in none of the destination's columns.
            _ => return,
        };
        self.actions.push_back(action);
    }

    fn enter(&mut self, now: Instant, step: Step) {
        self.state = State::Forward(step);
        self.deadline = match step {
            Step::Commit | Step::Resume => None,
            Step::PostProcess => (!self.stored && !self.link.is_up()).then(|| now + self.config.patience.owed),
            _ => Some(now + self.config.patience.of_destination(step)),
        };
        match step {
            // Here the deeds follow from messages and from each other.
            Step::Greet | Step::Agree | Step::Hold | Step::Release => {}
            Step::Commit if self.owes => self.perform(Deed::Journal(Stage::Owing)),
            Step::Resume => self.perform(Deed::Resume),
            Step::PostProcess => self.perform(Deed::Fetch),
            _ => step.row().destination.iter().for_each(|&deed| self.perform(deed)),
        }
    }

    fn received(&mut self, now: Instant, message: Message) {
        match (&self.state, message) {
            (_, Message::Heartbeat) => {}
            (State::Forward(Step::Greet), Message::Hello { versions, boot, capabilities }) => {
                let Some(version) = versions.common(self.config.versions) else {
                    let reason = Reason::NoCommonVersion { source: versions, destination: self.config.versions };
                    return self.abort(now, reason);
                };
                self.peer = Some(Peer { version, boot, capabilities });
                let (boot, capabilities) = (self.config.boot, self.config.capabilities.clone());
                self.say(now, Message::HelloAnswer { version, boot, capabilities });
                self.enter(now, Step::Agree);
            }
            (State::Forward(Step::Agree), Message::Offer { dry_run, strategy, requirements })
                if self.offer.is_none() =>
            {
                if godwit_strategy::parse(&strategy).is_err() {
                    return self.abort(now, Reason::UnknownStrategy(strategy));
                }
                self.offer = Some(Offer { dry_run, strategy: strategy.clone() });
                self.actions.push_back(Action::Examine { dry_run, strategy, requirements });
            }
            (State::Forward(Step::Transfer), Message::AllSent(totals)) if self.receiving => {
                self.timeline.all_sent = Some(now);
                self.totals = totals;
                self.enter(now, Step::Build);
            }
            (_, Message::Commit) => self.commit(now),
            (_, Message::Query) => self.query(now),
            (State::Forward(step), Message::Abort(reason)) if !step.row().no_return => {
                let step = *step;
                self.undo(now, step, Side::Source, reason, false);
            }
            // It cannot give them.
            (State::Forward(Step::PostProcess), Message::Abort(_)) if !self.fetched && !self.stored => {
                self.give_up_owed();
            }
            (_, Message::Goodbye) => self.goodbye(now),
            _ => mark::DESTINATION_IGNORED.hit(),
        }
    }

    fn accepted(&mut self, now: Instant) {
        if !self.is_examining() {
            return mark::REPORT_IGNORED.hit();
        }
        if self.offer.as_ref().is_some_and(|offer| offer.dry_run) {
            self.say(now, Message::Accept { changes: self.changes.clone() });
            return self.end(Outcome::Checked);
        }
        self.perform(Deed::Journal(Stage::Accepted));
    }

    fn done(&mut self, now: Instant, deed: Deed) {
        match (&mut self.state, deed) {
            (State::Forward(Step::Agree), Deed::Journal(Stage::Accepted)) => self.enter(now, Step::Transfer),
            (State::Forward(Step::Transfer), Deed::Receive) if !self.receiving => {
                self.receiving = true;
                self.timeline.agreed = Some(now);
                self.say(now, Message::Accept { changes: self.changes.clone() });
            }
            (State::Forward(Step::Build), Deed::Build) => self.enter(now, Step::Ready),
            (State::Forward(Step::Ready), Deed::HoldStopped) => {
                self.timeline.ready = Some(now);
                self.say(now, Message::Ready { root: self.root });
                self.enter(now, Step::Hold);
            }
            (State::Forward(Step::Commit), Deed::Journal(Stage::Committed | Stage::Owing)) => {
                self.enter(now, Step::Resume);
                if self.awaits_source {
                    self.say(now, Message::Answer(Verdict::Committed));
                }
            }
            (State::Forward(Step::Resume), Deed::Resume) if self.owes => {
                self.timeline.resumed = Some(now);
                self.say(now, if self.stored { Message::Resumed } else { Message::Owing });
                self.enter(now, Step::PostProcess);
            }
            (State::Forward(Step::PostProcess), Deed::Fetch) if !self.fetched => {
                self.fetched = true;
                self.deadline = None;
                self.perform(Deed::Journal(Stage::Resumed));
            }
            (State::Forward(Step::PostProcess), Deed::Journal(Stage::Resumed)) => {
                self.say(now, Message::AllHeld);
                self.outcome = Some(Outcome::Moved);
                self.enter(now, Step::Release);
                if self.dismissed {
                    self.perform(Deed::Journal(Stage::Done));
                }
            }
            (State::Losing, Deed::Discard) => self.lose(now),
            (State::Forward(Step::Resume), Deed::Resume) => {
                if self.recovered {
                    mark::RESUMED_AFTER_CRASH.hit();
                }
                self.timeline.resumed = Some(now);
                self.say(now, Message::Resumed);
                self.outcome = Some(Outcome::Moved);
                self.enter(now, Step::Release);
                self.perform(Deed::Journal(Stage::Resumed));
                if self.dismissed {
                    self.perform(Deed::Journal(Stage::Done));
                }
            }
            (State::Forward(Step::Release), Deed::Journal(Stage::Resumed)) => {}
            (State::Undoing { remaining, .. }, deed) if remaining.last() == Some(&deed) => {
                remaining.pop();
                self.undo_next(now);
            }
            (State::Forward(Step::Release) | State::Aborted | State::Lost, Deed::Journal(Stage::Done))
                if self.dismissed =>
            {
                self.timeline.finished = Some(now);
                self.deadline = None;
                self.state = State::Ended;
            }
            _ => mark::REPORT_IGNORED.hit(),
        }
    }

    fn failed(&mut self, now: Instant, deed: Deed, refusal: Opaque) {
        match &mut self.state {
            State::Forward(Step::Commit) if matches!(deed, Deed::Journal(Stage::Committed | Stage::Owing)) => {
                // Whether it is on the disk is not known. When no task is left that it could wake, it does not matter.
                mark::COMMIT_TAKEN_BACK.hit();
                self.undo(now, Step::Hold, Side::Destination, Reason::Failed { deed, refusal }, true);
            }
            State::Forward(Step::Resume) if deed == Deed::Resume => self.resume_failed(now, refusal, true),
            State::Forward(Step::PostProcess) if deed == Deed::Fetch && !self.fetched => {
                self.troubles.push(Trouble { deed, refusal });
                self.give_up_owed();
            }
            // As long as the journal says that they are owed, they must be there to be had.
            State::Forward(Step::PostProcess) if self.fetched => {
                self.deadline = Some(now + self.config.patience.answer);
            }
            State::Losing if deed == Deed::Discard => {
                // Nobody may go on elsewhere: nothing is said.
                self.troubles.push(Trouble { deed, refusal });
                self.outcome = Some(Outcome::Lost);
            }
            State::Forward(step) if !step.row().no_return && step.row().destination.contains(&deed) => {
                self.abort(now, Reason::Failed { deed, refusal });
            }
            State::Undoing { remaining, .. } if remaining.last() == Some(&deed) => {
                mark::UNDO_FAILED.hit();
                remaining.pop();
                self.troubles.push(Trouble { deed, refusal });
                self.undo_next(now);
            }
            State::Forward(Step::Release) | State::Aborted | State::Lost if matches!(deed, Deed::Journal(_)) => {
                self.troubles.push(Trouble { deed, refusal });
            }
            _ => mark::REPORT_IGNORED.hit(),
        }
    }

    /// Gives up by itself, before a commit.
    fn abort(&mut self, now: Instant, reason: Reason) {
        if let Some(step) = self.undecided() {
            self.say(now, Message::Abort(reason.clone()));
            self.undo(now, step, Side::Destination, reason, false);
        }
    }

    fn end(&mut self, outcome: Outcome) {
        self.deadline = None;
        self.outcome = Some(outcome);
        self.state = State::Ended;
    }

    fn link_lost(&mut self, now: Instant) {
        self.link.lose();
        self.messages.clear();
        if self.is_resting() {
            self.deadline = None;
        }
        if self.is_owing() && !self.fetched && !self.stored {
            self.deadline = Some(now + self.config.patience.owed);
        }
        self.abort(now, Reason::LinkLost);
    }

    fn timeout(&mut self, now: Instant) {
        let due = self.deadline.is_some_and(|deadline| now >= deadline);
        if self.is_resting() {
            self.deadline = self.deadline.filter(|_| !due);
            return;
        }
        match self.link.pulse(now) {
            Pulse::Silent => return self.link_lost(now),
            Pulse::Beat => self.say(now, Message::Heartbeat),
            Pulse::Fine => {}
        }
        if due {
            self.deadline = None;
            if self.is_owing() {
                self.fetch_due();
            } else if let Some(step) = self.undecided() {
                self.abort(now, Reason::TimedOut(step));
            }
        }
    }
}
