//! The table of steps: the whole hand-off on one screen.
//!
//! Each row says what either side does in this step and how each side undoes it. Going forward, rows are walked downwards; a
//! roll-back walks upwards from the row that was reached (which may be half done) and performs the undo of each. After the
//! row marked `no_return` nothing is undone any more: then only the destination's journal says whose the process is.

use core::fmt;

use crate::journal::Stage;

/// What a driver is asked to do, without its details (those are in [`crate::Action`]).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Deed {
    /// Write a record of this stage into the own journal.
    Journal(Stage),
    /// Source: stop every task of the tree, by tracing.
    Freeze,
    /// Source: take the state of the frozen tree and send it.
    Capture,
    /// Source: send one round of pages.
    Send,
    /// Source: see that everything has left, and count it.
    Finish,
    /// Either side: make the tasks' stop outlive the engine.
    HoldStopped,
    /// Source: end the tasks; they run at the destination now.
    Kill,
    /// Source, undo: end a Send or Capture that goes on, and put back what it took (such as marks of written pages).
    StopSending,
    /// Source, undo: end what HoldStopped began; the tasks are stopped only by tracing again.
    ReleaseHold,
    /// Source, undo: let the tasks run as if nothing had happened.
    Thaw,
    /// Source in doubt: give up the old link and make a new one.
    Reconnect,
    /// Destination: can this host meet the requirements?
    Examine,
    /// Destination: take in state and pages.
    Receive,
    /// Destination: complete the tasks, compare with the totals, confirm that they can be resumed.
    Build,
    /// Destination: let the tasks run.
    Resume,
    /// Destination, undo: end Receive or Build and remove everything, held tasks too; and tasks that run without what they are owed.
    Discard,
    /// Source: give the pages that the running tasks still need.
    Serve,
    /// Destination: have the running tasks get the pages that the source still has.
    Fetch,
}

/// One row's place in the table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
#[allow(missing_docs, reason = "each is described by its row in TABLE")]
pub enum Step {
    Greet,
    Agree,
    Note,
    Prepare,
    Freeze,
    Transfer,
    Build,
    Ready,
    Hold,
    Seal,
    Commit,
    Resume,
    PostProcess,
    Release,
}

/// One step of the hand-off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    /// Which.
    pub step: Step,
    /// Its name in messages and logs.
    pub name: &'static str,
    /// What the source does.
    pub source: &'static [Deed],
    /// What the destination does.
    pub destination: &'static [Deed],
    /// How the source undoes it.
    pub undo_source: Option<Deed>,
    /// How the destination undoes it.
    pub undo_destination: Option<Deed>,
    /// The message that ends the step, for people.
    pub message: &'static str,
    /// From this row on nothing is undone.
    pub no_return: bool,
}

const fn row(
    step: Step,
    name: &'static str,
    message: &'static str,
    source: &'static [Deed],
    undo_source: Option<Deed>,
    destination: &'static [Deed],
    undo_destination: Option<Deed>,
) -> Row {
    Row {
        step,
        name,
        source,
        destination,
        undo_source,
        undo_destination,
        message,
        no_return: step as u8 >= Step::Commit as u8,
    }
}

/// The hand-off.
#[rustfmt::skip]
pub static TABLE: [Row; 14] = {
    use Deed::*;
    [
        //  step            name        ends with            source                          its undo                           destination                      its undo
        row(Step::Greet,    "greet",    "Hello, HelloAnswer", &[],                           None,                              &[],                             None),
        row(Step::Agree,    "agree",    "Offer, Accept",     &[],                            None,                              &[Examine, Journal(Stage::Accepted)], Some(Journal(Stage::Aborted))),
        row(Step::Note,     "note",     "",                  &[Journal(Stage::Started)],     Some(Journal(Stage::Done)),        &[],                             None),
        row(Step::Prepare,  "prepare",  "",                  &[Send],                        Some(StopSending),                 &[],                             None),
        row(Step::Freeze,   "freeze",   "",                  &[Freeze],                      Some(Thaw),                        &[],                             None),
        row(Step::Transfer, "transfer", "AllSent",           &[Capture, Send, Finish],       Some(StopSending),                 &[Receive],                      Some(Discard)),
        row(Step::Build,    "build",    "",                  &[],                            None,                              &[Build],                        None),
        row(Step::Ready,    "ready",    "Ready",             &[],                            None,                              &[HoldStopped],                  None),
        row(Step::Hold,     "hold",     "",                  &[HoldStopped],                 Some(ReleaseHold),                 &[],                             None),
        row(Step::Seal,     "seal",     "Commit",            &[Journal(Stage::CommitSent)],  Some(Journal(Stage::RolledBack)),  &[],                             None),
        row(Step::Commit,   "commit",   "",                  &[],                            None,                              &[Journal(Stage::Committed)],    None),
        row(Step::Resume,   "resume",   "Resumed, Owing",    &[],                            None,                              &[Resume, Journal(Stage::Resumed)], None),
        // Only where pages are owed; the journals' stage of the commit is then Owing, and that of the resumption comes at its end.
        row(Step::PostProcess, "post-processing", "AllHeld", &[Journal(Stage::Serving), Serve], None,                           &[Fetch, Journal(Stage::Resumed)], None),
        row(Step::Release,  "release",  "Goodbye",           &[Journal(Stage::Committed), Kill, Journal(Stage::Done)], None,    &[Journal(Stage::Done)],         None),
    ]
};

impl Step {
    /// The row of this step.
    pub fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// The step with this number on the wire.
    pub fn from_code(code: u8) -> Option<Step> {
        TABLE.get(usize::from(code)).map(|row| row.step)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row().name)
    }
}

/// Every deed but the journal's, with its number on the wire and its name. Numbers are never used again for something else.
const DEEDS: [(u8, Deed, &str); 17] = [
    (1, Deed::Freeze, "freeze"),
    (2, Deed::Capture, "capture"),
    (3, Deed::Send, "send"),
    (4, Deed::Finish, "finish sending"),
    (5, Deed::HoldStopped, "hold stopped"),
    (6, Deed::Kill, "kill"),
    (7, Deed::StopSending, "stop sending"),
    (8, Deed::ReleaseHold, "release the hold"),
    (9, Deed::Thaw, "thaw"),
    (10, Deed::Reconnect, "reconnect"),
    (11, Deed::Examine, "examine"),
    (12, Deed::Receive, "receive"),
    (13, Deed::Build, "build"),
    (14, Deed::Resume, "resume"),
    (15, Deed::Discard, "discard"),
    (16, Deed::Serve, "serve pages"),
    (17, Deed::Fetch, "fetch pages"),
];

/// Journal deeds are numbered from here by their stage.
const JOURNAL: u8 = 128;

impl Deed {
    /// The number of this deed on the wire.
    pub fn code(self) -> u8 {
        match self {
            Deed::Journal(stage) => JOURNAL + stage.code(),
            _ => DEEDS.iter().find(|(_, deed, _)| *deed == self).map_or(0, |(code, _, _)| *code),
        }
    }

    /// The deed with this number.
    pub fn from_code(code: u8) -> Option<Deed> {
        if code >= JOURNAL {
            return Stage::from_code(code - JOURNAL).map(Deed::Journal);
        }
        DEEDS.iter().find(|(number, _, _)| *number == code).map(|(_, deed, _)| *deed)
    }
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Deed::Journal(stage) => write!(f, "note \"{stage}\" in the journal"),
            _ => f.write_str(DEEDS.iter().find(|(_, deed, _)| deed == self).map_or("?", |(_, _, name)| name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_is_at_its_place_and_only_the_end_has_no_return() {
        for (index, row) in TABLE.iter().enumerate() {
            assert_eq!(row.step as usize, index);
            assert_eq!(Step::from_code(index as u8), Some(row.step));
            assert_eq!(row.no_return, row.step >= Step::Commit);
            assert!(!row.no_return || (row.undo_source.is_none() && row.undo_destination.is_none()), "{}", row.name);
        }
    }

    #[test]
    fn every_deed_of_the_table_has_its_number() {
        for row in &TABLE {
            let undo = [row.undo_source, row.undo_destination].into_iter().flatten();
            for deed in row.source.iter().chain(row.destination).copied().chain(undo) {
                assert_ne!(deed.code(), 0);
                assert_eq!(Deed::from_code(deed.code()), Some(deed));
            }
        }
        assert_eq!(Deed::from_code(0), None);
    }
}
