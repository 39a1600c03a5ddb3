//! What a page store and those who use it say to each other, beside the pages themselves.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::bytes::{Malformed, Reader, put_text};
use crate::frame::Run;
use crate::identity::MigrationId;

/// Why somebody talks to a page store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// The source: puts pages in.
    Writer,
    /// The destination: takes them out, and has them removed in the end.
    Reader,
}

/// Why a page store does not do what was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// It speaks another version.
    Version,
    /// It has nothing of this migration.
    Unknown,
    /// It was asked in a wrong order, or by one who may not.
    OutOfTurn,
    /// It has no room.
    Full,
    /// Its disk fails, or what was on it is damaged.
    Storage,
    /// Somebody else puts pages of this migration in.
    Busy,
}

const CAUSES: [(u8, Cause, &str); 6] = [
    (1, Cause::Version, "it speaks another version"),
    (2, Cause::Unknown, "it has nothing of this migration"),
    (3, Cause::OutOfTurn, "that has no place at this point"),
    (4, Cause::Full, "it is full"),
    (5, Cause::Storage, "its storage fails"),
    (6, Cause::Busy, "somebody else writes to it"),
];

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(CAUSES.iter().find(|(_, cause, _)| cause == self).map_or("", |(_, _, text)| text))
    }
}

/// One word. `→` to the store, `←` from it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Word {
    /// → Whose pages this is about. The first word on a connection.
    Open {
        /// The version that is spoken.
        version: u16,
        /// Whose.
        migration: MigrationId,
        /// What for.
        role: Role,
    },
    /// ← Go on.
    Opened {
        /// Pages that are kept of it already.
        pages: u64,
    },
    /// ← No; nothing follows.
    Refused {
        /// Why.
        cause: Cause,
        /// In its own words.
        text: String,
    },
    /// → Say when everything up to here is kept.
    Sync {
        /// Comes back with the answer.
        number: u64,
    },
    /// ← It is: the end of the store's process takes nothing of it away.
    Synced {
        /// Which question this answers.
        number: u64,
    },
    /// ← Wanted, and not kept here.
    Missing(Run),
    /// → Nobody needs these pages any more.
    Remove,
    /// ← They are gone.
    Removed,
}

impl Word {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Word::Open { version, migration, role } => {
                out.push(1);
                out.extend(version.to_le_bytes());
                out.extend(migration.0);
                out.push(if *role == Role::Writer { 1 } else { 2 });
            }
            Word::Opened { pages } => {
                out.push(2);
                out.extend(pages.to_le_bytes());
            }
            Word::Refused { cause, text } => {
                out.push(3);
                out.push(CAUSES.iter().find(|(_, known, _)| known == cause).map_or(0, |(code, ..)| *code));
                put_text(out, text);
            }
            Word::Sync { number } => {
                out.push(4);
                out.extend(number.to_le_bytes());
            }
            Word::Synced { number } => {
                out.push(5);
                out.extend(number.to_le_bytes());
            }
            Word::Missing(run) => {
                out.push(6);
                out.extend(run.owner.to_le_bytes());
                out.extend(run.count.to_le_bytes());
                out.extend(run.start.to_le_bytes());
            }
            Word::Remove => out.push(7),
            Word::Removed => out.push(8),
        }
    }

    pub(crate) fn decode(payload: &[u8]) -> Result<Word, Malformed> {
        let mut reader = Reader::new(payload);
        let word = match reader.u8()? {
            1 => Word::Open {
                version: reader.u16()?,
                migration: MigrationId(reader.array()?),
                role: match reader.u8()? {
                    1 => Role::Writer,
                    2 => Role::Reader,
                    _ => return Err(Malformed::BadValue("role")),
                },
            },
            2 => Word::Opened { pages: reader.u64()? },
            3 => {
                let code = reader.u8()?;
                let cause = CAUSES.iter().find(|(known, ..)| *known == code).map(|(_, cause, _)| *cause);
                Word::Refused { cause: cause.ok_or(Malformed::BadValue("cause"))?, text: reader.text("text")? }
            }
            4 => Word::Sync { number: reader.u64()? },
            5 => Word::Synced { number: reader.u64()? },
            6 => {
                let (owner, count, start) = (reader.u32()?, reader.u32()?, reader.u64()?);
                let end = start.checked_add(count.into()).filter(|end| *end <= 1 << 52);
                if count == 0 || end.is_none() {
                    return Err(Malformed::BadValue("run of pages"));
                }
                Word::Missing(Run { owner, start, count })
            }
            7 => Word::Remove,
            8 => Word::Removed,
            other => return Err(Malformed::UnknownType(other)),
        };
        reader.end()?;
        Ok(word)
    }
}
