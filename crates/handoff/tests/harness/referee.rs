//! The referee: knows what is true on both hosts and asserts what must hold, after every event.
//!
//! It shares no code with the machines; what it remembers (that a commit left, that an answer was heard) it saw on the link.

use godwit_handoff::{Action, Deed, Message, Record, Side, Stage, Verdict};

use crate::harness::world::{DestinationTasks, Host, SourceTasks, World};

/// What it has seen. Nothing here is forgotten when an engine dies.
#[derive(Clone, Debug, Default)]
pub(crate) struct Referee {
    accept_heard: bool,
    /// The tasks at the destination cannot run before the source's have ended.
    pub(crate) awaits: bool,
    pub(crate) commit_left: bool,
    /// The destination has said (to the link) that it will never resume.
    abort_said: bool,
    /// The source has heard what became of its commit.
    verdict_heard: bool,
    pub(crate) settled: bool,
    pub(crate) resumed: bool,
    /// "Committed" was in the destination's journal when it said so, of tasks that await the end of the source's.
    pub(crate) told: bool,
    /// The process has run at the destination, be it for a moment.
    pub(crate) ran: bool,
    /// The source's tasks were killed by us.
    killed: bool,
    pub(crate) source_host_died: bool,
    pub(crate) destination_host_died: bool,
    /// The destination host died between its decision and the note that it had resumed: nobody can say whether it ran.
    pub(crate) lost_when_committed: bool,
    /// The source could not note that it rolled back: what is recovered from its journal may be in doubt without need.
    pub(crate) rollback_not_noted: bool,
    /// The destination could not note that it took its decision back.
    pub(crate) turn_not_noted: bool,
    /// The source could not note that it was to kill: what is recovered from its journal may be in doubt about nothing.
    pub(crate) verdict_not_noted: bool,
    /// Tasks that were owed pages were ended at the destination.
    pub(crate) owed_lost: bool,
    /// The destination's journal was taken away.
    pub(crate) forgotten: bool,
}

/// What was broken.
pub(crate) type Violation = String;

fn demand(holds: bool, rule: &str) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(rule.to_owned()) }
}

impl Referee {
    /// Before an action takes effect.
    pub(crate) fn action(&mut self, side: Side, action: &Action, world: &World, host: &Host) -> Result<(), Violation> {
        let record = host.record();
        let stage = record.as_ref().map(|record| record.stage);
        let touches_tasks = !matches!(action, Action::WriteJournal(_) | Action::Reconnect);
        let same_boot = record.is_none_or(|record| record.boot == host.boot);
        demand(same_boot || !touches_tasks, "an action on tasks of an earlier boot")?;
        match (side, action) {
            (
                Side::Destination,
                Action::WriteJournal(Record { stage: stage @ (Stage::Committed | Stage::Owing), .. }),
            ) => {
                demand((*stage == Stage::Owing) == world.owed, "the journal does not say what is owed")?;
                let ready = matches!(world.destination, DestinationTasks::Skeleton { complete: true, held: true });
                demand(ready, "the destination decided to own tasks that it does not have")
            }
            (_, Action::Freeze) => demand(self.accept_heard, "frozen before the destination had accepted"),
            (_, Action::Capture) => demand(!world.source.run(), "captured a running process"),
            (Side::Source, Action::HoldStopped) => demand(world.source.traced, "held tasks that were not stopped"),
            (_, Action::KillSource) => {
                self.killed = true;
                let runs = world.destination == DestinationTasks::Running;
                let needed = world.owed && !world.stored;
                demand(!(needed && runs) || self.settled, "the source killed what is owed")?;
                demand(
                    self.resumed || self.told || self.settled,
                    "the source killed what had never been resumed elsewhere",
                )
            }
            (_, Action::ReleaseHold | Action::Thaw) => demand(
                !self.ran && (!self.commit_left || self.verdict_heard) || self.settled,
                "the source let its tasks go while it was in doubt, or although they have run elsewhere",
            ),
            (_, Action::Resume) => {
                self.resumed = true;
                demand(
                    matches!(stage, Some(Stage::Committed | Stage::Owing)),
                    "resumed without \"committed\" in the journal",
                )?;
                // Where nothing is left (a record of the turn could not be written), nothing can be resumed.
                let nothing_left = world.destination == DestinationTasks::None;
                demand(!self.abort_said || nothing_left, "resumed after it had said that it never would")?;
                demand(self.commit_left, "resumed without a commit")
            }
            (_, Action::Discard) => {
                self.owed_lost |= stage == Some(Stage::Owing);
                let lost = world.owed || stage == Some(Stage::Owing);
                demand(world.destination != DestinationTasks::Running || lost, "discarded a process that runs")
            }
            _ => Ok(()),
        }
    }

    /// When writing a record is reported as failed, whatever the journal's last stage is then.
    pub(crate) fn failed_to_note(&mut self, side: Side, deed: Deed, host: &Host) {
        let stage = host.record().map(|record| record.stage);
        let committed = matches!(stage, Some(Stage::Committed | Stage::Owing));
        self.turn_not_noted |= committed && deed == Deed::Journal(Stage::Aborted);
        self.verdict_not_noted |= side == Side::Source && deed == Deed::Journal(Stage::Committed);
        self.rollback_not_noted |= deed == Deed::Journal(Stage::RolledBack);
    }

    /// When a machine gives a message to the link.
    pub(crate) fn said(
        &mut self,
        side: Side,
        message: &Message,
        world: &World,
        journal: Option<&Record>,
    ) -> Result<(), Violation> {
        let stage = journal.map(|record| record.stage);
        match (side, message) {
            (Side::Source, Message::Commit) => {
                self.commit_left = true;
                demand(stage == Some(Stage::CommitSent), "a commit left before the journal had it")?;
                demand(world.source.held || !world.source.alive, "a commit left before the stop outlived the tracer")?;
                let ready = matches!(world.destination, DestinationTasks::Skeleton { complete: true, held: true });
                // It may have died since it said so.
                demand(
                    ready || world.destination == DestinationTasks::None,
                    "a commit left before the destination was ready",
                )
            }
            (Side::Destination, Message::Ready { .. }) => {
                let ready = matches!(world.destination, DestinationTasks::Skeleton { complete: true, held: true });
                demand(ready, "the destination said Ready without tasks that are complete and held")
            }
            (Side::Destination, Message::Abort(_) | Message::Answer(Verdict::Aborted)) => {
                self.abort_said = true;
                demand(!self.ran, "it said \"aborted\" of what has run there")
            }
            (Side::Destination, Message::Answer(Verdict::Committed)) if self.awaits => {
                self.told = true;
                demand(
                    matches!(stage, Some(Stage::Committed | Stage::Resumed)),
                    "the destination claims what its journal does not own",
                )
            }
            (Side::Destination, Message::Owing | Message::Answer(Verdict::Owing)) => {
                // A failed note that all is here may be there.
                let noted = matches!(stage, Some(Stage::Owing | Stage::Resumed));
                demand(self.resumed && noted, "the destination owes what it does not run")
            }
            (Side::Destination, Message::Answer(Verdict::Lost)) => demand(
                !(world.owed && world.destination == DestinationTasks::Running),
                "the destination calls lost what runs without its pages",
            ),
            (Side::Destination, Message::Resumed | Message::AllHeld | Message::Answer(Verdict::Committed)) => {
                let owes = world.owed && !world.stored && world.destination == DestinationTasks::Running;
                demand(!owes, "the destination lets the source end while pages are owed")?;
                demand(self.resumed, "the destination claims what was never resumed")
            }
            _ => Ok(()),
        }
    }

    /// When a machine takes a message in.
    pub(crate) fn heard(&mut self, side: Side, message: &Message) {
        match (side, message) {
            (Side::Source, Message::Accept { .. }) => self.accept_heard = true,
            (
                Side::Source,
                Message::Resumed
                | Message::AllHeld
                | Message::Abort(_)
                | Message::Answer(Verdict::Committed | Verdict::Aborted),
            ) => self.verdict_heard |= self.commit_left,
            _ => {}
        }
    }

    /// After every event.
    pub(crate) fn check(
        &self,
        world: &World,
        source: &Host,
        destination: &Host,
        engines: [bool; 2],
    ) -> Result<(), Violation> {
        let SourceTasks { alive, traced, held } = world.source;
        let runs_at_destination = world.destination == DestinationTasks::Running;
        let complete = matches!(world.destination, DestinationTasks::Skeleton { complete: true, held: true });
        demand(!(world.source.run() && runs_at_destination), "the process runs in two places")?;

        // Until the destination has everything it needs, the source can always resume.
        demand(
            alive || self.source_host_died || self.killed && (self.resumed || self.told) || self.settled,
            "the source's tasks are gone too early",
        )?;
        let record = source.record().map(|record| record.stage);
        let recoverable = record.is_some_and(|stage| stage != Stage::Done);
        demand(!(alive && held) || engines[0] || recoverable, "stopped tasks at the source that no journal knows of")?;
        demand(engines[0] || !traced, "traced without a tracer")?;

        // A party in doubt keeps it stopped.
        let in_doubt = self.commit_left && !self.verdict_heard && !self.settled;
        demand(!in_doubt || !alive || held, "the source is in doubt and has not kept its tasks stopped")?;
        let known = matches!(record, Some(Stage::CommitSent | Stage::Serving));
        demand(!in_doubt || !alive || known, "in doubt, and the journal does not know")?;

        // After commit exactly one side owns it.
        let decided = destination.record().map(|record| record.stage);
        let committed = matches!(decided, Some(Stage::Committed | Stage::Resumed | Stage::Owing));
        demand(!(committed && complete && world.source.run()), "the source runs what the destination may resume")?;
        demand(
            !runs_at_destination || committed || decided == Some(Stage::Done) || self.forgotten,
            "it runs at the destination, whose journal does not own it",
        )?;
        demand(
            !self.commit_left || !world.source.run() || self.abort_said || self.settled,
            "the source runs after its commit, though nobody aborted",
        )?;
        let skeleton = matches!(world.destination, DestinationTasks::Skeleton { .. });
        let known = decided.is_some_and(|stage| stage != Stage::Done);
        demand(!skeleton || engines[1] || known || self.forgotten, "tasks at the destination that no journal knows of")
    }
}
