//! What a machine asks of its driver, and what the driver tells it.

use alloc::string::String;
use alloc::vec::Vec;

use crate::journal::{Record, Stage};
use crate::message::Packet;
use crate::reason::Opaque;
use crate::step::Deed;

/// Everything that went over the lanes, counted in the same way by both pumps.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Pages, those that were only named as zero included.
    pub pages: u64,
    /// Bytes of payloads and page bodies.
    pub bytes: u64,
    /// Sum of the checksums of all frames and bodies, modulo 2^64: the same in whatever order many lanes delivered them.
    pub checksum: u64,
}

impl Totals {
    /// Counts one frame of state or pages. `body_checksum` is zero where there is no body or it was not computed.
    pub fn count(&mut self, header: &crate::frame::Header, pages: u64, body_length: u64, body_checksum: u32) {
        self.pages = self.pages.wrapping_add(pages);
        self.bytes = self.bytes.wrapping_add(header.length.into()).wrapping_add(body_length);
        self.checksum = self.checksum.wrapping_add(header.checksum.into()).wrapping_add(body_checksum.into());
    }

    /// Adds what another lane counted.
    pub fn add(&mut self, other: Totals) {
        self.pages = self.pages.wrapping_add(other.pages);
        self.bytes = self.bytes.wrapping_add(other.bytes);
        self.checksum = self.checksum.wrapping_add(other.checksum);
    }
}

/// Something to be done. [`Action::deed`] names it in the report: [`Event::Done`] or [`Event::Failed`] unless said otherwise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Add the details, append the record to the journal, and flush it if [`Record::outlives_host`]. Both sides.
    WriteJournal(Record),
    /// See [`Deed::Freeze`].
    Freeze,
    /// See [`Deed::Capture`]. May go on together with the [`Action::Send`] that follows it.
    Capture,
    /// Send one round of the pages of this step of the strategy's row. Report [`Event::Sent`]; meanwhile [`Event::Moved`].
    Send {
        /// Index into the row's steps.
        step: usize,
        /// Number of this round in the whole hand-off, from one.
        round: u32,
    },
    /// See [`Deed::Finish`]. Report [`Event::AllSent`].
    Finish,
    /// See [`Deed::HoldStopped`]. Both sides.
    HoldStopped,
    /// See [`Deed::Kill`].
    KillSource,
    /// See [`Deed::StopSending`].
    StopSending,
    /// See [`Deed::ReleaseHold`].
    ReleaseHold,
    /// See [`Deed::Thaw`].
    Thaw,
    /// See [`Deed::Reconnect`]. Report [`Event::LinkUp`] or [`Event::LinkLost`].
    Reconnect,
    /// See [`Deed::Examine`]. Report [`Event::Accepted`] or [`Event::Refused`].
    Examine {
        /// No process will come.
        dry_run: bool,
        /// Name of a row that this side's table has.
        strategy: String,
        /// The drivers' own description of the needs.
        requirements: Vec<u8>,
    },
    /// See [`Deed::Receive`]. Report [`Event::Done`] once it is under way; meanwhile [`Event::Moved`].
    Receive,
    /// See [`Deed::Build`]. The lanes may still be delivering; what they have delivered in the end must equal these totals.
    Build(Totals),
    /// See [`Deed::Resume`]. Report [`Event::Done`], or [`Event::ResumeFailed`].
    Resume,
    /// See [`Deed::Discard`]. When it is reported done, no task is left here that could ever run.
    Discard,
    /// See [`Deed::Serve`]. Report [`Event::Done`] once it is under way; [`Event::Failed`] also later. It goes on until
    /// [`Action::KillSource`], and begins anew when it is asked for again.
    Serve,
    /// See [`Deed::Fetch`]. Report [`Event::Done`] when nothing is owed any more, [`Event::Failed`] when what is owed cannot be had. A
    /// link that is lost meanwhile is no reason: the machine waits for the next one.
    Fetch,
}

impl Action {
    /// The name under which this action is reported.
    pub fn deed(&self) -> Deed {
        match self {
            Action::WriteJournal(record) => Deed::Journal(record.stage),
            Action::Freeze => Deed::Freeze,
            Action::Capture => Deed::Capture,
            Action::Send { .. } => Deed::Send,
            Action::Finish => Deed::Finish,
            Action::HoldStopped => Deed::HoldStopped,
            Action::KillSource => Deed::Kill,
            Action::StopSending => Deed::StopSending,
            Action::ReleaseHold => Deed::ReleaseHold,
            Action::Thaw => Deed::Thaw,
            Action::Reconnect => Deed::Reconnect,
            Action::Examine { .. } => Deed::Examine,
            Action::Receive => Deed::Receive,
            Action::Build(_) => Deed::Build,
            Action::Resume => Deed::Resume,
            Action::Discard => Deed::Discard,
            Action::Serve => Deed::Serve,
            Action::Fetch => Deed::Fetch,
        }
    }

    /// True for the actions that end unfinished ones and therefore must not wait for them.
    pub fn interrupts(&self) -> bool {
        matches!(self, Action::StopSending | Action::Discard | Action::Thaw)
    }

    /// True for the actions that are ended by those.
    pub fn is_interruptible(&self) -> bool {
        matches!(
            self,
            Action::Freeze
                | Action::Capture
                | Action::Send { .. }
                | Action::Finish
                | Action::Receive
                | Action::Build(_)
                | Action::Fetch
        )
    }
}

/// How a person settles a hand-off in doubt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Settlement {
    /// The process is known to run at the destination (or is to end): kill it at the source.
    Kill,
    /// The process is known not to run at the destination: let it go on at the source.
    Resume,
}

/// Something that has happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The link is there: begin. Only for a new [`crate::Source`].
    Start,
    /// The other side's machine said this.
    Received(Packet),
    /// There is a (new) link to the other side.
    LinkUp,
    /// The link is gone, or could not be made.
    LinkLost,
    /// The action was performed.
    Done(Deed),
    /// The action could not be performed and has left nothing that its undo does not undo.
    Failed {
        /// Which.
        deed: Deed,
        /// Why.
        refusal: Opaque,
    },
    /// Answer to [`Action::Examine`]: every need can be met.
    Accepted {
        /// What will not be quite as it was.
        changes: Vec<Opaque>,
    },
    /// Answer to [`Action::Examine`]: these cannot.
    Refused(Vec<Opaque>),
    /// The number that the tree's root has for those who look from the destination's host: told with Ready. Before the end of
    /// [`Action::HoldStopped`]; the destination's only.
    Located {
        /// The number.
        root: u32,
    },
    /// Destination, before the report that the tasks are held, and after a recovery: they cannot run before the source's have ended, which
    /// still have what they are to have (locks of a file that both hosts see). Then the decision is told as soon as it is in the journal.
    AwaitsSource,
    /// Destination, before the report that the tasks are held: pages of theirs are still at the source, which must not end before
    /// they are here. Not together with [`Event::AwaitsSource`].
    Owes,
    /// Destination, together with [`Event::Owes`] or while pages are fetched: whatever is owed is in a page store, from which it comes from
    /// now on. The source may end.
    Stored,
    /// Pages or state moved (left or arrived) since the last such report. Keeps time-outs away.
    Moved {
        /// Pages.
        pages: u64,
        /// Bytes.
        bytes: u64,
    },
    /// Answer to [`Action::Send`].
    Sent {
        /// The round's number.
        round: u32,
        /// What is left to be sent now.
        left: godwit_strategy::Left,
    },
    /// Answer to [`Action::Finish`].
    AllSent(Totals),
    /// Answer to [`Action::Resume`]: it could not be done.
    ResumeFailed {
        /// Why.
        refusal: Opaque,
        /// False only if it is certain that no task has executed a single instruction here.
        may_have_run: bool,
    },
    /// The user wants it to end. Without effect after the commit has left.
    Cancel,
    /// The user settles a doubt that was reported.
    Settle(Settlement),
    /// `poll_timeout` has passed.
    Timeout,
}

impl Event {
    /// The report that the journal has this stage.
    pub fn noted(stage: Stage) -> Event {
        Event::Done(Deed::Journal(stage))
    }
}
