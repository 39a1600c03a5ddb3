//! The table of error codes: one row each, stable for ever, with the text of `godwit explain CODE`.
use core::fmt;
use serde::{Deserialize, Serialize};

/// A stable error code, printed as `GW` and four digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Code(pub u16);

/// One row of the table.
#[derive(Debug)]
pub struct Row {
    /// The code.
    pub code: Code,
    /// A few words; part of every message.
    pub title: &'static str,
    /// What it means and why it happens.
    pub explanation: &'static str,
    /// What to do next.
    pub remedy: &'static str,
}

macro_rules! codes {
    ($($name:ident = $number:literal, $title:literal, $explanation:literal, $remedy:literal;)*) => {
        impl Code { $(#[doc = $title] pub const $name: Code = Code($number);)* }
        /// Every code, ascending.
        pub const TABLE: &[Row] = &[$(Row { code: Code($number), title: $title, explanation: $explanation, remedy: $remedy },)*];
    };
}

codes! {
    NO_SUCH_PROCESS = 1001, "no such process",
        "The process ended, or never existed, or cannot be seen from this PID namespace.",
        "Check the number with ps; inside a container use the number that the host sees.";
    NOT_PERMITTED = 1002, "not permitted",
        "The kernel refused an operation on the process: Godwit needs ptrace rights over every task of the tree, and CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN to keep process numbers.",
        "Run godwit as root, or see godwit doctor for what is missing.";
    KERNEL_CALL = 1003, "a kernel call failed",
        "A call that should have worked did not; the cause names the call and the kernel's answer.",
        "godwit doctor shows what this kernel can do; report the message if it can do the call.";
    MALFORMED = 1004, "malformed input",
        "Bytes from outside (an image, a frame, a /proc line) are not what their format says.",
        "The file or the other side is damaged, or of a version that this build cannot read: godwit image verify DIR.";
    PROCESS_VANISHED = 1005, "a process ended during the work",
        "A task of the tree died or was killed while its state was read or rebuilt.",
        "If it ended by itself there is nothing to move; otherwise try again.";
    ALREADY_TRACED = 1006, "already traced",
        "Another tracer (a debugger, strace, another godwit) holds the process; the kernel allows one.",
        "End the tracer named in the cause, then try again.";
    NO_INJECTION_SITE = 1007, "no place for the stub",
        "Reading state that only the process itself can ask for needs room for a few hundred bytes of code in an executable page; none was found.",
        "Report the program: godwit image show of its memory map helps.";
    UNKNOWN_KIND = 1101, "unknown kind of object",
        "No kind of this build recognises the object, so its state would be lost.",
        "Close it in the program, choose an edge for it (--edge), or move without it.";
    EDGE = 1102, "an edge of the tree",
        "One side of this object is inside the tree, the other is not: moving it would cut it.",
        "Choose per descriptor: --edge FD=file:PATH, =null, =inherit or =close.";
    NOT_MIGRATABLE = 1103, "cannot be carried",
        "The kernel gives no way to read or to rebuild this state exactly.",
        "See the choices beside the object.";
    UNSUPPORTED = 1104, "not supported yet",
        "The state could be carried in principle; this build cannot yet, and refuses rather than lose it.",
        "See the choices beside the object, or docs/resources.md for what is supported.";
    PASSING_MOMENT = 1105, "a moment that cannot be carried",
        "The kernel gives no way to read this state, and in a program that works it lasts for a moment only. Godwit let the tree go on and looked again, ten times within half a second.",
        "Try again, or let the program finish what the cause names.";
    FILE_DIFFERS = 1201, "a file is missing or differs",
        "A path that the tree uses does not exist at the destination, or is another file (kind or size).",
        "Make the same files available at the destination: a shared file system or a copy.";
    PID_IN_USE = 1202, "a process number is in use",
        "The tree must keep its numbers, and one of them belongs to another process at the destination.",
        "migrate gives the tree a PID namespace of its own where the destination may make one (as root). For restore: unshare --pid --fork --mount-proc godwit restore DIR, or end the other process.";
    DESTINATION_LACKS = 1203, "the destination lacks something",
        "Kernel, processor, memory or limits of the destination do not suffice; the cause names what.",
        "Choose another destination or provide what is missing.";
    RESTORE_FAILED = 1204, "the restore failed",
        "A step of rebuilding the tree failed at the destination; nothing of it was resumed.",
        "The source still has the process. The cause names the step.";
    DIFFERS_THERE = 1205, "it will not be quite the same",
        "The destination takes the tree, and something about it cannot be as it was, or could not be looked at beforehand: the cause names what. This is said beforehand and refuses nothing.",
        "Choose another destination if it matters to the program.";
    LINK_LOST = 1301, "the link was lost",
        "The connection to the other side broke or timed out.",
        "Before the commit the process goes on at the source; after it godwit recover asks the other side.";
    VERSION_MISMATCH = 1303, "no common protocol version",
        "The two godwits speak no common version of the hand-off.",
        "Install the same version on both sides.";
    IN_DOUBT = 1304, "in doubt",
        "The commit left, and no answer came: the destination may or may not run the process. It is kept stopped here.",
        "godwit recover asks again; if the destination is gone for good, decide with godwit recover --resume or --discard.";
    CANCELLED = 1305, "cancelled",
        "The user or a time-out ended the move before the commit.",
        "The process goes on at the source with everything that it had.";
    PAGES_LOST = 1306, "pages that were owed are lost",
        "The process ran at the destination while pages of it were still at the source, and the source, or who fetches them, was gone for longer than is waited for. It got SIGBUS where it waited, and was ended: it never reads zeros instead.",
        "If the source is there again: godwit recover --resume there lets it go on from where it was stopped.";
    STORE_LOST = 1307, "the page store is gone, or says no",
        "The page store that a strategy needs cannot be reached, has no room, or has lost what it kept.",
        "Before the commit the process goes on at the source. After it, a process whose pages only the store had is reported as lost: start godwit pages on the same directory again within a minute, and it goes on.";
    IMAGE_INCOMPLETE = 1401, "the checkpoint is incomplete",
        "The directory holds a half-written checkpoint: the writer ended before it was complete.",
        "Take the checkpoint again.";
    STORAGE = 1402, "a file operation failed",
        "Reading or writing the checkpoint failed; the cause names the path and the kernel's answer.",
        "Check space and rights.";
    USAGE = 1501, "usage",
        "The command line does not make sense.",
        "godwit COMMAND --help.";
    ENVIRONMENT = 1502, "this host cannot do it",
        "A feature that the command needs is not in this kernel, or not allowed here.",
        "godwit doctor lists what is missing and what to change.";
}

impl Code {
    /// The table row, if this build knows the code.
    pub fn row(self) -> Option<&'static Row> {
        TABLE.iter().find(|row| row.code == self)
    }

    /// The title, or a neutral word for a code of a newer version.
    pub fn title(self) -> &'static str {
        self.row().map_or("error", |row| row.title)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GW{:04}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_ascend() {
        assert!(TABLE.windows(2).all(|pair| pair[0].code < pair[1].code));
        assert!(TABLE.iter().all(|row| !row.explanation.is_empty() && !row.remedy.is_empty()));
    }
}
