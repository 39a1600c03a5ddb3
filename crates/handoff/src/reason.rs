//! Why a hand-off ended without a move.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::bytes::{Malformed, Reader, put_bytes, put_count, put_text};
use crate::identity::Versions;
use crate::step::{Deed, Step};

/// Something that only the drivers understand (a refusal, say), carried as it is. At most 1 MiB on the wire.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Opaque(pub Vec<u8>);

impl Opaque {
    pub(crate) const LIMIT: usize = 1 << 20;
}

impl fmt::Debug for Opaque {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl From<&str> for Opaque {
    fn from(text: &str) -> Opaque {
        Opaque(text.as_bytes().to_vec())
    }
}

/// The cause of a roll-back. It travels to the other side, so both can tell their user the same.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reason {
    /// The user asked for it.
    Cancelled,
    /// This step took too long.
    TimedOut(Step),
    /// The link broke, or the other side fell silent.
    LinkLost,
    /// The destination cannot meet the requirements; each refusal is the drivers' own.
    Refused(Vec<Opaque>),
    /// This deed failed.
    Failed {
        /// Which.
        deed: Deed,
        /// Why, in the drivers' own words.
        refusal: Opaque,
    },
    /// The two sides have no protocol version in common.
    NoCommonVersion {
        /// What the source speaks.
        source: Versions,
        /// What the destination speaks.
        destination: Versions,
    },
    /// The destination's table has no such strategy.
    UnknownStrategy(String),
    /// An engine died; what it had begun was undone afterwards from its journal.
    EngineDied,
    /// A message came that the other side may not send at this point.
    OutOfTurn(Step),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Cancelled => write!(f, "cancelled"),
            Reason::TimedOut(step) => write!(f, "the step \"{step}\" took too long"),
            Reason::LinkLost => write!(f, "the link between the hosts was lost"),
            Reason::Refused(refusals) => write!(f, "refused for {} reason(s)", refusals.len()),
            Reason::Failed { deed, .. } => write!(f, "could not {deed}"),
            Reason::NoCommonVersion { source, destination } => write!(
                f,
                "no common protocol version: the source speaks {} to {}, the destination {} to {}",
                source.oldest, source.newest, destination.oldest, destination.newest
            ),
            Reason::UnknownStrategy(name) => write!(f, "the destination has no strategy {name:?}"),
            Reason::EngineDied => write!(f, "the engine died"),
            Reason::OutOfTurn(step) => write!(f, "the other side sent a message out of turn in the step \"{step}\""),
        }
    }
}

impl Reason {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Reason::Cancelled => out.push(1),
            Reason::TimedOut(step) => out.extend([2, *step as u8]),
            Reason::LinkLost => out.push(3),
            Reason::Refused(refusals) => {
                out.push(4);
                encode_list(refusals, out);
            }
            Reason::Failed { deed, refusal } => {
                out.extend([5, deed.code()]);
                put_bytes(out, &refusal.0);
            }
            Reason::NoCommonVersion { source, destination } => {
                out.push(6);
                for number in [source.oldest, source.newest, destination.oldest, destination.newest] {
                    out.extend(number.to_le_bytes());
                }
            }
            Reason::UnknownStrategy(name) => {
                out.push(7);
                put_text(out, name);
            }
            Reason::EngineDied => out.push(8),
            Reason::OutOfTurn(step) => out.extend([9, *step as u8]),
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Reason, Malformed> {
        const FIELD: &str = "reason";
        let bad = Malformed::BadValue(FIELD);
        Ok(match reader.u8()? {
            1 => Reason::Cancelled,
            2 => Reason::TimedOut(Step::from_code(reader.u8()?).ok_or(bad)?),
            3 => Reason::LinkLost,
            4 => Reason::Refused(decode_list(reader)?),
            5 => Reason::Failed {
                deed: Deed::from_code(reader.u8()?).ok_or(bad)?,
                refusal: Opaque(reader.bytes(Opaque::LIMIT)?),
            },
            6 => Reason::NoCommonVersion {
                source: Versions { oldest: reader.u16()?, newest: reader.u16()? },
                destination: Versions { oldest: reader.u16()?, newest: reader.u16()? },
            },
            7 => Reason::UnknownStrategy(reader.text(FIELD)?),
            8 => Reason::EngineDied,
            9 => Reason::OutOfTurn(Step::from_code(reader.u8()?).ok_or(bad)?),
            _ => return Err(bad),
        })
    }
}

pub(crate) fn encode_list(list: &[Opaque], out: &mut Vec<u8>) {
    put_count(out, list.len());
    list.iter().for_each(|one| put_bytes(out, &one.0));
}

pub(crate) fn decode_list(reader: &mut Reader<'_>) -> Result<Vec<Opaque>, Malformed> {
    (0..reader.count(4)?).map(|_| Ok(Opaque(reader.bytes(Opaque::LIMIT)?))).collect()
}
