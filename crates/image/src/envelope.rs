//! Leaves of the object graph: every resource that is not part of the spine travels as an envelope whose payload only
//! its kind understands.
use crate::codec::{self, Malformed};
use crate::id::ObjectId;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Number of a kind of resource. Stable for ever: a number is never used again for another kind.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KindId(pub u16);

/// One object of one kind.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Envelope {
    /// Identity within the image.
    pub id: ObjectId,
    /// Which kind reads the payload.
    pub kind: KindId,
    /// Version of the payload's form, counted per kind, from 1.
    pub version: u16,
    /// Objects that must be made before this one.
    pub refs: Vec<ObjectId>,
    /// The kind's state in the self-describing form of [`crate::codec`].
    #[serde(with = "serde_bytes")]
    pub payload: Vec<u8>,
}

impl Envelope {
    /// The payload as the kind's state.
    ///
    /// # Errors
    /// When the payload is not a well-formed `T`.
    pub fn open<T: DeserializeOwned>(&self) -> Result<T, Malformed> {
        codec::decode(&self.payload)
    }
}
