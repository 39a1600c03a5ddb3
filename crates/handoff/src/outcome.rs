//! How a hand-off ended, and what is known of the other side.

use crate::capability::Capabilities;
use crate::identity::{BootId, Side};
use crate::reason::{Opaque, Reason};
use crate::step::Deed;

/// Why the source does not know whose the process is. It keeps the process stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Doubt {
    /// The destination has not answered for [`crate::Patience::doubt`]. The machine goes on asking as long as it is driven.
    NoAnswer,
    /// The destination has no journal entry: it cannot say. A person must.
    Unknown,
    /// The process was committed, but its tasks are gone from the destination, which cannot say whether they ran. A person must.
    Lost,
}

/// The end of a machine (but for [`Outcome::InDoubt`], which an answer or a person can still settle).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It runs at the destination.
    Moved,
    /// Dry run: the destination would take it.
    Checked,
    /// It runs at the source as before; the destination has discarded everything or will.
    RolledBack {
        /// Who ended it.
        by: Side,
        /// Why.
        reason: Reason,
    },
    /// Only at the source: the process stays stopped, nobody knows whose it is.
    InDoubt(Doubt),
    /// The process is gone from this side, with the host that it ran on, and the other side does not have it as far as is known.
    Lost,
    /// Only at the destination: it is the destination's and kept stopped there, because what it needs to run (a lock that somebody else has)
    /// could not be had yet. A recovery tries again.
    Held,
    /// Only at the destination: this side has no record of the migration.
    Unknown,
}

/// An undo, or a deed after the point of no return, that failed. What it should have done remains to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trouble {
    /// Which deed.
    pub deed: Deed,
    /// Why.
    pub refusal: Opaque,
}

/// The other side, as it introduced itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// The protocol version that both use.
    pub version: u16,
    /// The boot of its host; equal to the own one if both sides are on the same host.
    pub boot: BootId,
    /// What it can do.
    pub capabilities: Capabilities,
}
