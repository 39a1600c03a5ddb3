//! The journal: what a side must still know after its engine has died. Byte by byte in docs/wire.md.
//!
//! One file per migration and side, to which records are appended; the last one counts. A record's details belong to the driver
//! (which tasks, which cgroup, which address to ask), who adds them when it writes.

use alloc::vec::Vec;
use core::fmt;

use crate::bytes::{Malformed, Reader};
use crate::identity::{BootId, MigrationId, Side};

/// How far a side has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Stage {
    /// Source: it has begun; no commit has left. What was done to the tasks is to be undone.
    Started,
    /// Source: the commit may have left. The tasks stay stopped until the destination has said what its journal says.
    CommitSent,
    /// Source: it will not be (or the destination said that it was not) committed. What was done to the tasks is to be undone.
    RolledBack,
    /// Source: the destination has it; the tasks are to be killed. Destination: the process is ours, its tasks are to be resumed.
    Committed,
    /// Destination: an offer was accepted; nothing is decided. Read after a crash it means "abort".
    Accepted,
    /// Destination: the tasks run here.
    Resumed,
    /// Destination: they will never run here.
    Aborted,
    /// Nothing is left to do or to know: the journal may be removed.
    Done,
    /// Source: the tasks run at the destination and need pages of ours, which stay stopped until they hold all.
    Serving,
    /// Destination: as committed, but pages are owed by the source: without us the tasks cannot go on.
    Owing,
}

const STAGES: [(u8, Stage, &str); 10] = [
    (1, Stage::Started, "started"),
    (2, Stage::CommitSent, "commit sent"),
    (3, Stage::RolledBack, "rolled back"),
    (4, Stage::Committed, "committed"),
    (5, Stage::Accepted, "accepted"),
    (6, Stage::Resumed, "resumed"),
    (7, Stage::Aborted, "aborted"),
    (8, Stage::Done, "done"),
    (9, Stage::Serving, "serving"),
    (10, Stage::Owing, "owing"),
];

impl Stage {
    /// The number of this stage in a record.
    pub fn code(self) -> u8 {
        STAGES.iter().find(|(_, stage, _)| *stage == self).map_or(0, |(code, _, _)| *code)
    }

    /// The stage with this number.
    pub fn from_code(code: u8) -> Option<Stage> {
        STAGES.iter().find(|(number, _, _)| *number == code).map(|(_, stage, _)| *stage)
    }

    fn belongs_to(self, side: Side) -> bool {
        match self {
            Stage::Started | Stage::CommitSent | Stage::RolledBack | Stage::Serving => side == Side::Source,
            Stage::Accepted | Stage::Resumed | Stage::Aborted | Stage::Owing => side == Side::Destination,
            Stage::Committed | Stage::Done => true,
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(STAGES.iter().find(|(_, stage, _)| stage == self).map_or("?", |(_, _, name)| name))
    }
}

/// One entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Whose journal this is.
    pub side: Side,
    /// How far that side has come.
    pub stage: Stage,
    /// About which migration.
    pub migration: MigrationId,
    /// The boot of the host that wrote it: tasks of another boot no longer exist.
    pub boot: BootId,
    /// The driver's own notes, at most 1 MiB. The machines write none and read none.
    pub details: Vec<u8>,
}

const MAGIC: [u8; 4] = *b"GwJ\n";
const VERSION: u16 = 1;
const DETAILS_LIMIT: u64 = 1 << 20;
/// Bytes before the checksum of the header.
const HEADER: usize = 44;
/// Bytes of a record without its details: a header of 44 and its checksum before them, a checksum of everything after them.
pub const RECORD_LENGTH: usize = HEADER + 8;

impl Record {
    /// True if this record must be on the disk (flushed, with its directory entry) before it may be reported as written: the decision
    /// must outlive the destination host. The others need only outlive the engine: if the source host dies, so do its tasks.
    pub fn outlives_host(&self) -> bool {
        self.side == Side::Destination && self.stage != Stage::Done
    }

    /// Appends the bytes of this record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        out.push(match self.side {
            Side::Source => 1,
            Side::Destination => 2,
        });
        out.push(self.stage.code());
        out.extend(self.migration.0);
        out.extend(self.boot.0);
        out.extend((self.details.len() as u32).to_le_bytes());
        let checksum = crc32fast::hash(&out[start..]);
        out.extend(checksum.to_le_bytes());
        out.extend(&self.details);
        let checksum = crc32fast::hash(&out[start..]);
        out.extend(checksum.to_le_bytes());
    }

    /// Reads one record from the front of `bytes`; also returns its length.
    ///
    /// # Errors
    /// [`Malformed::TooShort`] if `bytes` ends within it; the others if it is damaged or of another version.
    pub fn decode(bytes: &[u8]) -> Result<(Record, usize), Malformed> {
        let mut reader = Reader::new(bytes);
        // A header that is whole must be sound before its length is believed: else a damaged record would look like a cut one.
        if bytes.get(HEADER..HEADER + 4).is_some_and(|sum| crc32fast::hash(&bytes[..HEADER]).to_le_bytes() != *sum) {
            return Err(Malformed::BadChecksum);
        }
        let magic: [u8; 4] = reader.array()?;
        if magic != MAGIC {
            return Err(Malformed::BadMagic);
        }
        let version = reader.u16()?;
        if version != VERSION {
            return Err(Malformed::UnknownVersion(version));
        }
        let side = reader.u8()?;
        let stage = reader.u8()?;
        let migration = MigrationId(reader.array()?);
        let boot = BootId(reader.array()?);
        let length = u64::from(reader.u32()?);
        if length > DETAILS_LIMIT {
            return Err(Malformed::TooLong { length, limit: DETAILS_LIMIT });
        }
        let _: u32 = reader.u32()?;
        let details = reader.take(length as usize)?.to_vec();
        let checksum = reader.u32()?;
        let total = RECORD_LENGTH + details.len();
        if crc32fast::hash(&bytes[..total - 4]) != checksum {
            return Err(Malformed::BadChecksum);
        }
        let side = match side {
            1 => Side::Source,
            2 => Side::Destination,
            _ => return Err(Malformed::BadValue("side")),
        };
        let stage =
            Stage::from_code(stage).filter(|stage| stage.belongs_to(side)).ok_or(Malformed::BadValue("stage"))?;
        Ok((Record { side, stage, migration, boot, details }, total))
    }

    /// The last record of a journal file; `None` if there is no whole one. A record that was cut off by a crash while it was written
    /// does not count: its writing was never reported.
    ///
    /// # Errors
    /// A record that is whole but damaged: it may have been the decision, so nothing may be concluded from those before it.
    pub fn last(mut bytes: &[u8]) -> Result<Option<Record>, Malformed> {
        let mut last = None;
        // A file can have grown by zeros before its bytes arrived.
        while bytes.iter().any(|&byte| byte != 0) {
            match Record::decode(bytes) {
                Ok((record, length)) => {
                    last = Some(record);
                    bytes = &bytes[length..];
                }
                Err(Malformed::TooShort) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn record(stage: Stage) -> Record {
        Record {
            side: Side::Destination,
            stage,
            migration: MigrationId([1; 16]),
            boot: BootId([2; 16]),
            details: vec![3; 5],
        }
    }

    #[test]
    fn a_record_comes_back_as_it_was_and_no_bit_may_change() {
        let mut bytes = Vec::new();
        record(Stage::Committed).encode(&mut bytes);
        assert_eq!(bytes.len(), RECORD_LENGTH + 5);
        assert_eq!(Record::decode(&bytes), Ok((record(Stage::Committed), bytes.len())));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Record::decode(&damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn the_last_whole_record_counts_and_a_damaged_one_is_not_passed_over() {
        let mut bytes = Vec::new();
        record(Stage::Accepted).encode(&mut bytes);
        let first = bytes.len();
        record(Stage::Committed).encode(&mut bytes);
        assert_eq!(Record::last(&bytes), Ok(Some(record(Stage::Committed))));
        for end in first..bytes.len() {
            assert_eq!(Record::last(&bytes[..end]), Ok(Some(record(Stage::Accepted))), "cut at {end}");
        }
        for end in 0..first {
            assert_eq!(Record::last(&bytes[..end]), Ok(None), "cut at {end}");
        }
        let mut padded = bytes[..first].to_vec();
        padded.extend([0; 60]);
        assert_eq!(Record::last(&padded), Ok(Some(record(Stage::Accepted))));
        *bytes.last_mut().unwrap() ^= 1;
        assert_eq!(Record::last(&bytes), Err(Malformed::BadChecksum));
    }

    #[test]
    fn a_stage_of_the_other_side_is_refused() {
        let mut bytes = Vec::new();
        Record { side: Side::Source, ..record(Stage::Accepted) }.encode(&mut bytes);
        assert_eq!(Record::decode(&bytes), Err(Malformed::BadValue("stage")));
    }
}
