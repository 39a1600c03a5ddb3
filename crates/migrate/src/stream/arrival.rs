//! What comes in over a lane, and why nothing comes any more.
use godwit_handoff::store::Word;
use godwit_handoff::{Malformed, Packet};
use godwit_image::ObjectId;
use std::io;

/// Why a lane cannot be used any more.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The other side closed it.
    Closed,
    /// The kernel says no.
    Failed(io::Error),
    /// The other side does not speak the protocol.
    Malformed(Malformed),
    /// It was told no.
    Refused(String),
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Broken::Closed => write!(f, "the other side closed the connection"),
            Broken::Failed(error) => write!(f, "{error}"),
            Broken::Refused(text) => write!(f, "refused: {text}"),
            Broken::Malformed(error) => write!(f, "malformed bytes from the other side: {error}"),
        }
    }
}

impl From<Malformed> for Broken {
    fn from(error: Malformed) -> Broken {
        Broken::Malformed(error)
    }
}

/// What has come in.
#[derive(Debug)]
pub(crate) enum Arrival<'a> {
    /// A message for the machine.
    Packet(Packet),
    /// A piece of the captured state.
    State(&'a [u8]),
    /// Pages of one owner: ranges (start, length in bytes) and their bytes one after another.
    Pages(ObjectId, &'a [(u64, usize)], &'a [u8]),
    /// Pages of one owner that hold only zeros.
    Zeros(ObjectId, &'a [(u64, usize)]),
    /// Pages of one owner that have come in the preparation, as pages of a stage, and are still true.
    Held(u32, ObjectId, &'a [(u64, usize)]),
    /// Pages of one owner that a process at the other side waits for.
    Wanted(ObjectId, &'a [(u64, usize)]),
    /// Pages of one owner that the other side says it does not have.
    Owed(ObjectId, &'a [(u64, usize)]),
    /// Said to or by a page store.
    Store(Word),
    /// All pages that are owed are in the page store.
    Stored,
    /// The other side wants all that it is owed.
    Push,
    /// Ranges of one owner whose bytes come next and are left in the lane, as asked for with [`Stream::leave`].
    Waiting(ObjectId, &'a [(u64, usize)]),
}
