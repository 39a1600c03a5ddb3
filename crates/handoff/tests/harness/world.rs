//! What is true of each host, whatever the machines believe: tasks, engine, journal.

use godwit_handoff::{Action, BootId, Deed, Event, Record, Side, Totals};

/// What the pumps of both sides will count.
pub(crate) const TOTALS: Totals = Totals { pages: 7, bytes: 28_672, checksum: 99 };

/// The tasks at the source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SourceTasks {
    pub(crate) alive: bool,
    /// Stopped by a tracer; ends when it dies.
    pub(crate) traced: bool,
    /// Stopped in a way that outlives the tracer.
    pub(crate) held: bool,
}

impl SourceTasks {
    pub(crate) fn run(self) -> bool {
        self.alive && !self.traced && !self.held
    }
}

/// The tasks at the destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum DestinationTasks {
    None,
    /// Being built; dies with its engine unless held.
    Skeleton {
        complete: bool,
        held: bool,
    },
    Running,
}

/// The tasks of both sides and what moved between them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct World {
    pub(crate) source: SourceTasks,
    pub(crate) destination: DestinationTasks,
    /// The tasks at the destination run (or will) without pages that only the source's have.
    pub(crate) owed: bool,
    /// Those are in a page store, too.
    pub(crate) stored: bool,
    /// Everything that was sent has been announced to the pumps.
    pub(crate) lane_finished: bool,
}

impl World {
    pub(crate) fn new() -> World {
        World {
            source: SourceTasks { alive: true, traced: false, held: false },
            destination: DestinationTasks::None,
            owed: false,
            stored: false,
            lane_finished: false,
        }
    }

    /// Performs an action that is not the journal's; returns the report.
    pub(crate) fn perform(&mut self, action: &Action) -> Event {
        use DestinationTasks::*;
        let deed = action.deed();
        let failed = |text: &str| Event::Failed { deed, refusal: text.into() };
        match action {
            Action::Freeze => self.source.traced = true,
            Action::Capture | Action::StopSending => {}
            Action::Send { round, .. } => return Event::Sent { round: *round, left: 0.into() },
            Action::Finish => {
                self.lane_finished = true;
                return Event::AllSent(TOTALS);
            }
            Action::HoldStopped => {}
            Action::KillSource => self.source.alive = false,
            Action::ReleaseHold => self.source.held = false,
            Action::Thaw => self.source.traced = false,
            Action::Examine { .. } => return Event::Accepted { changes: Vec::new() },
            Action::Receive => {
                if self.destination == None {
                    self.destination = Skeleton { complete: false, held: false };
                }
            }
            Action::Build(totals) => match &mut self.destination {
                Skeleton { complete, .. } if *totals == TOTALS && self.lane_finished => *complete = true,
                _ => return failed("nothing to build"),
            },
            Action::Resume => match self.destination {
                Skeleton { complete: true, .. } | Running => self.destination = Running,
                _ => {
                    return Event::ResumeFailed { refusal: "no tasks".into(), may_have_run: true };
                }
            },
            Action::Discard => self.destination = None,
            Action::Serve => {}
            Action::Fetch => self.owed = false,
            Action::WriteJournal(_) | Action::Reconnect => unreachable!("done by the pair"),
        }
        Event::Done(deed)
    }

    /// Makes the stop of one side's tasks outlive its engine.
    pub(crate) fn hold(&mut self, side: Side) -> Event {
        match (side, &mut self.destination) {
            (Side::Source, _) => self.source.held = true,
            (Side::Destination, DestinationTasks::Skeleton { held, .. }) => *held = true,
            (Side::Destination, _) => {
                return Event::Failed { deed: Deed::HoldStopped, refusal: "no tasks".into() };
            }
        }
        Event::Done(Deed::HoldStopped)
    }

    /// What the kernel does when the engine of `side` is gone.
    pub(crate) fn engine_died(&mut self, side: Side) {
        match side {
            Side::Source => self.source.traced = false,
            Side::Destination => {
                if let DestinationTasks::Skeleton { held: false, .. } = self.destination {
                    self.destination = DestinationTasks::None;
                }
            }
        }
    }

    /// Nothing outlives its host.
    pub(crate) fn host_died(&mut self, side: Side) {
        match side {
            Side::Source => self.source = SourceTasks { alive: false, traced: false, held: false },
            Side::Destination => self.destination = DestinationTasks::None,
        }
    }
}

/// One host: its boot and its journal, as bytes.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) boot: BootId,
    pub(crate) journal: Vec<u8>,
    /// How much of the journal outlives the host.
    pub(crate) flushed: usize,
}

impl Host {
    pub(crate) fn new(boot: u8) -> Host {
        Host { boot: BootId([boot; 16]), journal: Vec::new(), flushed: 0 }
    }

    pub(crate) fn write(&mut self, record: &Record) {
        record.encode(&mut self.journal);
        if record.outlives_host() {
            self.flushed = self.journal.len();
        }
    }

    pub(crate) fn record(&self) -> Option<Record> {
        Record::last(&self.journal).expect("the harness writes whole records")
    }

    /// Of the destination's journal the least survives that may, of the source's the most: the worse case of each.
    pub(crate) fn restart(&mut self, side: Side) {
        self.boot.0[0] = self.boot.0[0].wrapping_add(16);
        if side == Side::Destination {
            self.journal.truncate(self.flushed);
        }
    }
}
