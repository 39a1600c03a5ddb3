//! The source's machine: it lets go of the process only when the destination's journal has it.
//!
//! Its life: forward through the steps of the table; from any of them, before the commit leaves, back upwards ([`State::Undoing`]).
//! Once the commit may have left it is in doubt ([`State::Doubt`]) until it hears what the destination's journal says; then it
//! either clears away ([`State::Closing`]) or undoes. It never guesses.

mod doubt;
mod undo;

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::fmt;

use godwit_deterministic::Instant;
use godwit_strategy::{Decision, Left, Origin, Phase, Progress, Row, decide_round};

use crate::action::{Action, Event};
use crate::capability::Capabilities;
use crate::identity::{BootId, MigrationId, Side, Versions};
use crate::journal::{Record, Stage};
use crate::link::Link;
use crate::mark;
use crate::message::{Message, Packet, Verdict};
use crate::outcome::{Doubt, Outcome, Peer, Trouble};
use crate::patience::Patience;
use crate::reason::{Opaque, Reason};
use crate::step::{Deed, Step};
use crate::timeline::Timeline;
use doubt::Asking;

/// What a new source must know.
#[derive(Clone, Debug)]
pub struct SourceConfig {
    /// Drawn at random for this hand-off.
    pub migration: MigrationId,
    /// This host's boot.
    pub boot: BootId,
    /// Protocol versions to speak, usually [`Versions::SUPPORTED`].
    pub versions: Versions,
    /// What this host can do, for the destination's driver.
    pub capabilities: Capabilities,
    /// What the process needs, for the destination's driver to examine. At most 1 MiB.
    pub requirements: Vec<u8>,
    /// How the memory moves.
    pub row: Row,
    /// Only ask whether the destination would take it; nothing is frozen.
    pub dry_run: bool,
    /// The drivers have a page store.
    pub store: bool,
    /// Time-outs.
    pub patience: Patience,
}

/// The row has steps that this machine cannot run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unsupported {
    /// Index of the first such step.
    pub step: usize,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {} of the strategy needs a page store: --pages tells which", self.step)
    }
}

impl core::error::Error for Unsupported {}

#[derive(Clone, Debug)]
enum State {
    Idle,
    Forward(Step),
    Doubt(Asking),
    /// Position in the source's deeds of the last row.
    Closing(usize),
    Undoing {
        /// What remains to be undone; the last is being done.
        remaining: Vec<Deed>,
        end: Outcome,
    },
    Ended,
}

/// The source's side of one hand-off. How to drive it is said at the top of this room.
#[derive(Clone, Debug)]
pub struct Source {
    config: SourceConfig,
    state: State,
    link: Link,
    /// End of the current step; in doubt, when to ask, give up the link or reconnect.
    deadline: Option<Instant>,
    messages: VecDeque<Packet>,
    actions: VecDeque<Action>,
    peer: Option<Peer>,
    progress: Progress,
    round: u32,
    sending: bool,
    captured: bool,
    finishing: bool,
    /// The host was started anew since: the tasks are gone.
    tasks_gone: bool,
    /// The root's number at the destination; 0: not known.
    root: u32,
    /// The destination has said that the tasks are its own, and not yet that they run.
    awaiting: bool,
    moved: (u64, u64),
    /// Pages of that when the last round began.
    moved_before: u64,
    timeline: Timeline,
    troubles: Vec<Trouble>,
    /// What will not be quite as it was, in the destination's drivers' own words.
    changes: Vec<Opaque>,
    outcome: Option<Outcome>,
}

impl Source {
    /// A source that waits for [`Event::Start`].
    ///
    /// # Errors
    /// [`Unsupported`] if the row needs a page store, and there is none.
    pub fn new(config: SourceConfig) -> Result<Source, Unsupported> {
        match config.row.steps.iter().position(|step| step.from == Origin::Store && !config.store) {
            Some(step) => Err(Unsupported { step }),
            None => Ok(Source::with(config)),
        }
    }

    fn with(config: SourceConfig) -> Source {
        Source {
            link: Link::new(&config.patience),
            config,
            state: State::Idle,
            deadline: None,
            messages: VecDeque::new(),
            actions: VecDeque::new(),
            peer: None,
            progress: Progress::START,
            round: 0,
            sending: false,
            captured: false,
            finishing: false,
            tasks_gone: false,
            root: 0,
            awaiting: false,
            moved: (0, 0),
            moved_before: 0,
            timeline: Timeline::default(),
            troubles: Vec::new(),
            changes: Vec::new(),
            outcome: None,
        }
    }

    /// The source of which only its journal's last record is left; `boot` is the host's boot now. It begins at once: poll it.
    /// `None` if the record is not a source's or says that nothing is left to do.
    pub fn recover(now: Instant, record: &Record, boot: BootId, patience: Patience) -> Option<Source> {
        if record.side != Side::Source {
            return None;
        }
        let mut source = Source::with(SourceConfig {
            migration: record.migration,
            // Kept as it was, so that the next recovery sees as well that the tasks are of an earlier boot.
            boot: record.boot,
            versions: Versions::SUPPORTED,
            capabilities: Capabilities::default(),
            requirements: Vec::new(),
            row: Row { name: "".into(), steps: Vec::new().into(), seen_in: "".into(), about: "".into() },
            dry_run: false,
            store: false,
            patience,
        });
        source.tasks_gone = record.boot != boot;
        source.timeline.requested = Some(now);
        match record.stage {
            Stage::Started | Stage::RolledBack => source.undo(now, Step::Hold, Side::Source, Reason::EngineDied),
            Stage::CommitSent => source.enter_doubt(now, Reason::EngineDied),
            Stage::Serving => source.serve_again(now),
            Stage::Committed => source.close(now),
            _ => return None,
        }
        Some(source)
    }

    /// Takes in what has happened at `now`. What is out of place changes nothing.
    pub fn handle(&mut self, now: Instant, event: Event) {
        match event {
            Event::Start => {
                if matches!(self.state, State::Idle) {
                    self.timeline.requested = Some(now);
                    self.link.raise(now);
                    self.enter(now, Step::Greet);
                }
            }
            Event::Received(packet) if packet.migration != self.config.migration => mark::STRAY.hit(),
            Event::Received(packet) => {
                self.link.heard(now);
                self.received(now, packet.message);
            }
            Event::LinkUp => self.link_up(now),
            Event::LinkLost => self.link_lost(now),
            Event::Done(deed) => self.done(now, deed),
            Event::Failed { deed, refusal } => self.failed(now, deed, refusal),
            Event::Moved { pages, bytes } => {
                self.moved = (self.moved.0.saturating_add(pages), self.moved.1.saturating_add(bytes));
                if let State::Forward(step @ (Step::Prepare | Step::Transfer)) = self.state {
                    self.deadline = Some(now + self.config.patience.of_source(step));
                }
            }
            Event::Sent { round, left } => self.sent(now, round, left),
            Event::AllSent(totals) => {
                if matches!(self.state, State::Forward(Step::Transfer)) && self.finishing {
                    self.timeline.all_sent = Some(now);
                    self.say(now, Message::AllSent(totals));
                    self.enter(now, Step::Build);
                } else {
                    mark::REPORT_IGNORED.hit();
                }
            }
            Event::Cancel => match self.state {
                State::Idle | State::Forward(_) => self.roll_back(now, Reason::Cancelled),
                _ => mark::CANCEL_TOO_LATE.hit(),
            },
            Event::Settle(settlement) => self.settle(now, settlement),
            Event::Timeout => self.timeout(now),
            Event::Accepted { .. }
            | Event::Refused(_)
            | Event::ResumeFailed { .. }
            | Event::Located { .. }
            | Event::AwaitsSource
            | Event::Owes
            | Event::Stored => {
                mark::REPORT_IGNORED.hit();
            }
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
        let doubt = match &self.state {
            State::Ended | State::Idle => return None,
            State::Doubt(asking) if self.outcome.is_none() && asking.is_open(&self.link) => {
                Some(asking.since + self.config.patience.doubt)
            }
            _ => None,
        };
        [self.deadline, self.link.due(), doubt].into_iter().flatten().min()
    }

    /// How it ended, once it has. Messages and actions may still be there to poll. Ask again after every `handle`.
    pub fn outcome(&self) -> Option<&Outcome> {
        self.outcome.as_ref()
    }

    /// The step it is in, for progress displays: the last row while it clears away, `None` while it undoes or has ended.
    pub fn step(&self) -> Option<Step> {
        match &self.state {
            State::Idle => Some(Step::Greet),
            State::Forward(step) => Some(*step),
            State::Doubt(asking) if asking.serving => Some(Step::PostProcess),
            State::Doubt(_) => Some(Step::Commit),
            State::Closing(_) => Some(Step::Release),
            State::Undoing { .. } | State::Ended => None,
        }
    }

    /// True from the moment that the commit may have left until it is known what became of it.
    pub fn is_in_doubt(&self) -> bool {
        matches!(self.state, State::Doubt(_))
    }

    /// True while the tasks run at the destination and need pages of ours.
    pub fn is_serving(&self) -> bool {
        matches!(&self.state, State::Doubt(asking) if asking.serving)
    }

    /// Which migration this is.
    pub fn migration(&self) -> MigrationId {
        self.config.migration
    }

    /// The number of the tree's root at the destination, once it is there and can be told.
    pub fn destination_root(&self) -> Option<u32> {
        (self.root != 0).then_some(self.root)
    }

    /// The destination, once it has introduced itself.
    pub fn peer(&self) -> Option<&Peer> {
        self.peer.as_ref()
    }

    /// The tasks are the destination's, which has not yet said that they run: it does where it is asked before they can, and is still on
    /// the line. Nothing depends on it any more; whoever wants to tell how it went may listen for a while.
    pub fn awaits_resumption(&self) -> bool {
        self.awaiting && self.link.is_up()
    }

    /// Pages and bytes that have left so far.
    pub fn moved(&self) -> (u64, u64) {
        self.moved
    }

    /// Rounds of pages that were begun.
    pub fn rounds(&self) -> u32 {
        self.round
    }

    /// What happened when.
    pub fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// What the destination accepts and will not keep quite as it was.
    pub fn changes(&self) -> &[Opaque] {
        &self.changes
    }

    /// What could not be undone or cleared away. The journal then keeps its entry.
    pub fn troubles(&self) -> &[Trouble] {
        &self.troubles
    }

    fn say(&mut self, now: Instant, message: Message) {
        if self.link.is_up() {
            self.link.said(now);
            self.messages.push_back(Packet { migration: self.config.migration, message });
        }
    }

    fn perform(&mut self, deed: Deed) {
        let action = match deed {
            Deed::Journal(stage) => Action::WriteJournal(Record {
                side: Side::Source,
                stage,
                migration: self.config.migration,
                boot: self.config.boot,
                details: Vec::new(),
            }),
            Deed::Freeze => Action::Freeze,
            Deed::Capture => Action::Capture,
            Deed::Finish => Action::Finish,
            Deed::HoldStopped => Action::HoldStopped,
            Deed::Kill => Action::KillSource,
            Deed::StopSending => Action::StopSending,
            Deed::ReleaseHold => Action::ReleaseHold,
            Deed::Thaw => Action::Thaw,
            Deed::Reconnect => Action::Reconnect,
            Deed::Serve => Action::Serve,
            // Send is made by `advance`; the others are the destination's and in none of the source's columns.
            Deed::Send | Deed::Examine | Deed::Receive | Deed::Build | Deed::Resume | Deed::Discard | Deed::Fetch => {
                return;
            }
        };
        self.actions.push_back(action);
    }

    fn enter(&mut self, now: Instant, step: Step) {
        self.state = State::Forward(step);
        self.deadline = Some(now + self.config.patience.of_source(step));
        match step {
            Step::Greet => self.say(
                now,
                Message::Hello {
                    versions: self.config.versions,
                    boot: self.config.boot,
                    capabilities: self.config.capabilities.clone(),
                },
            ),
            Step::Agree => self.say(
                now,
                Message::Offer {
                    dry_run: self.config.dry_run,
                    strategy: self.config.row.name.clone().into_owned(),
                    requirements: self.config.requirements.clone(),
                },
            ),
            Step::Prepare => self.advance(now),
            Step::Transfer => {
                self.progress = self.progress.entering(Phase::Down);
                self.perform(Deed::Capture);
                self.advance(now);
            }
            Step::Commit => {
                self.timeline.committed = Some(now);
                self.say(now, Message::Commit);
                self.enter_doubt(now, Reason::LinkLost);
            }
            _ => {
                if step == Step::Freeze {
                    self.timeline.freezing = Some(now);
                }
                step.row().source.iter().for_each(|&deed| self.perform(deed));
            }
        }
    }

    /// Asks the strategy what to send next, before the freeze and after it.
    fn advance(&mut self, now: Instant) {
        match decide_round(&self.config.row, &self.progress) {
            Decision::Round(step) => {
                self.progress.step = step;
                self.round += 1;
                self.sending = true;
                self.moved_before = self.moved.0;
                self.actions.push_back(Action::Send { step, round: self.round });
            }
            Decision::Freeze => self.enter(now, Step::Freeze),
            Decision::HandOver | Decision::Finished => {
                if self.captured && !self.finishing {
                    self.finishing = true;
                    self.perform(Deed::Finish);
                }
            }
        }
    }

    fn sent(&mut self, now: Instant, round: u32, left: Left) {
        if !self.sending || round != self.round || !matches!(self.state, State::Forward(_)) {
            mark::REPORT_IGNORED.hit();
            return;
        }
        self.sending = false;
        let moved = self.moved.0 > self.moved_before;
        self.progress = self.progress.after_round(self.progress.step, left, moved);
        self.advance(now);
    }

    fn received(&mut self, now: Instant, message: Message) {
        match (&self.state, message) {
            (_, Message::Heartbeat) => {}
            (State::Forward(Step::Greet), Message::HelloAnswer { version, boot, capabilities }) => {
                if self.config.versions.common(Versions { oldest: version, newest: version }).is_none() {
                    return self.roll_back(now, Reason::OutOfTurn(Step::Greet));
                }
                self.peer = Some(Peer { version, boot, capabilities });
                self.enter(now, Step::Agree);
            }
            (State::Forward(Step::Agree), Message::Accept { changes }) => {
                self.changes = changes;
                self.timeline.agreed = Some(now);
                if self.config.dry_run { self.end(now, Outcome::Checked) } else { self.enter(now, Step::Note) }
            }
            (State::Forward(step @ Step::Agree), Message::Refuse { refusals }) => {
                self.undo(now, *step, Side::Destination, Reason::Refused(refusals));
            }
            (State::Forward(Step::Build), Message::Ready { root }) => {
                self.root = root;
                self.timeline.ready = Some(now);
                self.enter(now, Step::Hold);
            }
            (State::Forward(step), Message::Abort(reason)) => self.undo(now, *step, Side::Destination, reason),
            (
                State::Doubt(asking),
                said @ (Message::Resumed | Message::AllHeld | Message::Answer(Verdict::Committed)),
            ) => {
                if !asking.serving {
                    self.timeline.resumed = Some(now);
                    self.awaiting = matches!(said, Message::Answer(_));
                }
                self.close(now);
            }
            (State::Doubt(_), Message::Owing | Message::Answer(Verdict::Owing)) => self.serve(now),
            // Tasks that had to await the end of ours.
            (State::Closing(_) | State::Ended, Message::Resumed) if self.awaiting => {
                self.timeline.resumed = Some(now);
                self.awaiting = false;
            }
            // Of what has run there, this can only be an old word.
            (State::Doubt(asking), Message::Abort(_) | Message::Answer(Verdict::Aborted)) if asking.serving => {
                mark::SOURCE_IGNORED.hit();
            }
            (State::Doubt(_), Message::Abort(reason)) => self.undo(now, Step::Seal, Side::Destination, reason),
            (State::Doubt(asking), Message::Answer(Verdict::Aborted)) => {
                let why = asking.why.clone();
                self.undo(now, Step::Seal, Side::Destination, why);
            }
            (State::Doubt(_), Message::Answer(Verdict::Unknown)) => self.report_doubt(Doubt::Unknown),
            (State::Doubt(_), Message::Answer(Verdict::Lost)) => self.report_doubt(Doubt::Lost),
            _ => mark::SOURCE_IGNORED.hit(),
        }
    }

    fn done(&mut self, now: Instant, deed: Deed) {
        match &mut self.state {
            State::Forward(step) if step.row().source.contains(&deed) => match deed {
                Deed::Journal(Stage::Started) => self.enter(now, Step::Prepare),
                Deed::Freeze => {
                    self.timeline.frozen = Some(now);
                    self.enter(now, Step::Transfer);
                }
                Deed::Capture if !self.captured => {
                    self.timeline.captured = Some(now);
                    self.captured = true;
                    if !self.sending {
                        self.advance(now);
                    }
                }
                Deed::HoldStopped => self.enter(now, Step::Seal),
                Deed::Journal(Stage::CommitSent) => self.enter(now, Step::Commit),
                _ => mark::REPORT_IGNORED.hit(),
            },
            State::Undoing { remaining, .. } if remaining.last() == Some(&deed) => {
                remaining.pop();
                if deed == Deed::Thaw {
                    self.timeline.thawed = Some(now);
                }
                self.undo_next(now);
            }
            State::Closing(position) if Step::Release.row().source.get(*position) == Some(&deed) => {
                *position += 1;
                self.close_next(now);
            }
            _ => mark::REPORT_IGNORED.hit(),
        }
    }

    fn failed(&mut self, now: Instant, deed: Deed, refusal: Opaque) {
        match &mut self.state {
            State::Forward(step) if step.row().source.contains(&deed) => {
                self.roll_back(now, Reason::Failed { deed, refusal });
            }
            State::Undoing { remaining, .. } if remaining.last() == Some(&deed) => {
                mark::UNDO_FAILED.hit();
                remaining.pop();
                self.troubles.push(Trouble { deed, refusal });
                self.undo_next(now);
            }
            State::Closing(position) if Step::Release.row().source.get(*position) == Some(&deed) => {
                *position += 1;
                self.troubles.push(Trouble { deed, refusal });
                self.close_next(now);
            }
            State::Doubt(_) if deed == Deed::Reconnect => self.link_lost(now),
            State::Doubt(asking) if asking.serving => self.cannot_serve(now, deed, refusal),
            _ => mark::REPORT_IGNORED.hit(),
        }
    }

    /// Ends it from this side, before the commit has left.
    fn roll_back(&mut self, now: Instant, reason: Reason) {
        match self.state {
            State::Idle => self.end(now, Outcome::RolledBack { by: Side::Source, reason }),
            State::Forward(step) => {
                self.say(now, Message::Abort(reason.clone()));
                self.undo(now, step, Side::Source, reason);
            }
            _ => {}
        }
    }

    fn close(&mut self, now: Instant) {
        self.actions.clear();
        self.deadline = None;
        self.outcome = None;
        self.state = State::Closing(0);
        self.close_next(now);
    }

    fn close_next(&mut self, now: Instant) {
        let State::Closing(position) = &mut self.state else { return };
        let deeds = Step::Release.row().source;
        loop {
            match deeds.get(*position).copied() {
                Some(Deed::Kill) if self.tasks_gone => *position += 1,
                Some(Deed::Journal(Stage::Done)) if leaves_work(&self.troubles) => *position += 1,
                Some(deed) => return self.perform(deed),
                None => break,
            }
        }
        self.timeline.finished = Some(now);
        self.end(now, Outcome::Moved);
    }

    fn end(&mut self, now: Instant, outcome: Outcome) {
        // With an entry left in the journal, a later recovery may want to ask once more.
        let open = self.troubles.iter().any(|trouble| trouble.deed == Deed::Journal(Stage::Done));
        if !open && !leaves_work(&self.troubles) {
            self.say(now, Message::Goodbye);
        }
        self.deadline = None;
        self.outcome = Some(outcome);
        self.state = State::Ended;
    }
}

/// Something was not done that a later recovery must do. A stage that could not be noted does not count: the last one tells all.
fn leaves_work(troubles: &[Trouble]) -> bool {
    troubles.iter().any(|trouble| !matches!(trouble.deed, Deed::Journal(_)))
}
