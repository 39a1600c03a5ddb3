//! Marks on the rare branches of both machines; the enumeration must reach every one of them.

pub use godwit_deterministic::Mark;

/// The source heard something that has no place at this point.
pub static SOURCE_IGNORED: Mark = Mark::new("the source ignored a message");
/// The destination heard something that has no place at this point.
pub static DESTINATION_IGNORED: Mark = Mark::new("the destination ignored a message");
/// A packet was about another migration.
pub static STRAY: Mark = Mark::new("a packet of another migration was ignored");
/// The user cancelled when it was too late.
pub static CANCEL_TOO_LATE: Mark = Mark::new("a cancel after the point of no return was ignored");
/// A report did not belong to what is awaited.
pub static REPORT_IGNORED: Mark = Mark::new("a doubled or late report was ignored");
/// The source in doubt asked.
pub static ASKED: Mark = Mark::new("the source in doubt asked");
/// The source in doubt gave up a link on which no answer came.
pub static LINK_GIVEN_UP: Mark = Mark::new("the source in doubt gave up a silent link");
/// The source said that it is in doubt.
pub static DOUBT_REPORTED: Mark = Mark::new("the source reported its doubt");
/// An undo failed.
pub static UNDO_FAILED: Mark = Mark::new("an undo failed");
/// The destination was asked while it did not know yet whether it could resume.
pub static ANSWER_DEFERRED: Mark = Mark::new("the destination kept back its answer until it had resumed");
/// The destination was asked before any commit had come, and gave up.
pub static ABORTED_WHEN_ASKED: Mark = Mark::new("the destination aborted when asked before a commit");
/// A commit came after the destination had given up.
pub static COMMIT_TOO_LATE: Mark = Mark::new("a commit came after the destination had aborted");
/// A commit came twice.
pub static COMMIT_DOUBLED: Mark = Mark::new("a commit came again");
/// The journal of the destination could not be written, or no task could be resumed: the commit was taken back before anyone heard of it.
pub static COMMIT_TAKEN_BACK: Mark = Mark::new("a commit was taken back before anyone heard of it");
/// The tasks are gone after the commit.
pub static LOST: Mark = Mark::new("the tasks were lost after the commit");
/// The tasks are the destination's and could not be resumed yet.
pub static HELD: Mark = Mark::new("tasks that awaited the end of the source's were held on");
/// Somebody asked about a migration of which there is no record.
pub static STRANGER_ASKED: Mark = Mark::new("a destination without a record was asked");
/// The destination recovered from "committed" and resumed the tasks (again).
pub static RESUMED_AFTER_CRASH: Mark = Mark::new("the destination resumed after a crash");

/// The source went on serving pages over a new link.
pub static SERVED_AGAIN: Mark = Mark::new("the source went on serving over a new link");
/// The source was asked for pages of tasks that are gone.
pub static NOTHING_TO_SERVE: Mark = Mark::new("the source had nothing left to serve");
/// The destination could not get what it was owed, and ended the tasks.
pub static OWED_LOST: Mark = Mark::new("the destination ended tasks that could not get their pages");
/// No link came back while pages were owed.
pub static OWED_TOO_LONG: Mark = Mark::new("the destination gave up waiting for a link to its pages");

/// Every mark of this room.
pub static ALL: [&Mark; 22] = [
    &SOURCE_IGNORED,
    &DESTINATION_IGNORED,
    &STRAY,
    &CANCEL_TOO_LATE,
    &REPORT_IGNORED,
    &ASKED,
    &LINK_GIVEN_UP,
    &DOUBT_REPORTED,
    &UNDO_FAILED,
    &ANSWER_DEFERRED,
    &ABORTED_WHEN_ASKED,
    &COMMIT_TOO_LATE,
    &COMMIT_DOUBLED,
    &COMMIT_TAKEN_BACK,
    &LOST,
    &HELD,
    &STRANGER_ASKED,
    &RESUMED_AFTER_CRASH,
    &SERVED_AGAIN,
    &NOTHING_TO_SERVE,
    &OWED_LOST,
    &OWED_TOO_LONG,
];
