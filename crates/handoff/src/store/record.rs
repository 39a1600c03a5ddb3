//! How a page store's file is laid out: a header, then records one after another, of which later ones count more.
//!
//! Header, 32 bytes: `GodwitPg`, version (u32), zero (u32), the migration (16 bytes). A record: `GwRc`, kind (u32), owner (u32), pages
//! (u32), first page (u64), another number (u64), CRC-32 of all that and of the checksums that follow (u32), zero (u32); then, for
//! [`Record::Pages`], a CRC-32 for each page, and the pages. Everything is little-endian.

use alloc::vec::Vec;

use crate::bytes::{Malformed, Reader};
use crate::frame::Run;
use crate::identity::MigrationId;
use crate::store::RECORD_PAGES_MAX;

/// Bytes before the first record.
pub const FILE_HEADER: usize = 32;
/// Bytes of a record before its checksums.
pub const RECORD_HEADER: usize = 40;
const MAGIC: [u8; 8] = *b"GodwitPg";
const RECORD_MAGIC: [u8; 4] = *b"GwRc";
const VERSION: u32 = 1;
const PAGE_SHIFT: u32 = 12;
const CHECKED: usize = 32;

/// The bytes before the first record.
pub fn file_header(migration: MigrationId) -> [u8; FILE_HEADER] {
    let mut bytes = [0; FILE_HEADER];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[16..].copy_from_slice(&migration.0);
    bytes
}

/// Whose file this is.
///
/// # Errors
/// It is none, or of another version.
pub fn read_file_header(bytes: &[u8; FILE_HEADER]) -> Result<MigrationId, Malformed> {
    let mut reader = Reader::new(bytes);
    if reader.array::<8>()? != MAGIC {
        return Err(Malformed::BadMagic);
    }
    let version = reader.u32()?;
    if version != VERSION || reader.u32()? != 0 {
        return Err(Malformed::UnknownVersion(u16::try_from(version).unwrap_or(u16::MAX)));
    }
    Ok(MigrationId(reader.array()?))
}

/// One thing that is noted in the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record {
    /// Pages, whose contents follow.
    Pages(Run, Vec<u32>),
    /// Pages that are zero.
    Zeros(Run),
    /// Pages that were put in as pages of another owner, and are pages of this one, too.
    Adopted(Run, u32),
    /// Everything before this was acknowledged: after a crash what follows does not count.
    Synced(u64),
}

/// A record's header, before what follows it is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    bytes: [u8; RECORD_HEADER],
    kind: u32,
    run: Run,
    other: u64,
    checksum: u32,
}

impl Head {
    /// Reads one.
    ///
    /// # Errors
    /// These bytes are none: where a writer died in the middle, the end of what counts.
    pub fn decode(bytes: &[u8; RECORD_HEADER]) -> Result<Head, Malformed> {
        let mut reader = Reader::new(bytes);
        if reader.array::<4>()? != RECORD_MAGIC {
            return Err(Malformed::BadMagic);
        }
        let kind = reader.u32()?;
        let (owner, count, start) = (reader.u32()?, reader.u32()?, reader.u64()?);
        let (other, checksum) = (reader.u64()?, reader.u32()?);
        let is_sound = match kind {
            1 => (1..=RECORD_PAGES_MAX).contains(&count),
            2 | 3 => count > 0,
            4 => (owner, count, start) == (0, 0, 0),
            _ => return Err(Malformed::BadValue("kind of record")),
        };
        let in_range = start.checked_add(count.into()).is_some_and(|end| end <= 1 << (64 - PAGE_SHIFT));
        let other_fits = kind > 2 && (kind == 4 || u32::try_from(other).is_ok()) || other == 0;
        if !is_sound || !in_range || !other_fits || reader.u32()? != 0 {
            return Err(Malformed::BadValue("record"));
        }
        Ok(Head { bytes: *bytes, kind, run: Run { owner, start, count }, other, checksum })
    }

    /// Bytes of checksums that follow.
    pub fn sums_length(&self) -> usize {
        if self.kind == 1 { self.run.count as usize * 4 } else { 0 }
    }

    /// Bytes of pages behind those.
    pub fn body_length(&self) -> u64 {
        if self.kind == 1 { u64::from(self.run.count) << PAGE_SHIFT } else { 0 }
    }

    /// The record, with its checksums as they follow.
    ///
    /// # Errors
    /// They do not belong together.
    pub fn complete(&self, sums: &[u8]) -> Result<Record, Malformed> {
        if sums.len() != self.sums_length() {
            return Err(Malformed::TooShort);
        }
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.bytes[..CHECKED]);
        hasher.update(sums);
        if hasher.finalize() != self.checksum {
            return Err(Malformed::BadChecksum);
        }
        let words = sums.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
        Ok(match self.kind {
            1 => Record::Pages(self.run, words.collect()),
            2 => Record::Zeros(self.run),
            3 => Record::Adopted(self.run, self.other as u32),
            _ => Record::Synced(self.other),
        })
    }
}

impl Record {
    /// Header and checksums; the pages follow.
    pub fn encode(&self) -> Vec<u8> {
        const NO_RUN: Run = Run { owner: 0, start: 0, count: 0 };
        let (kind, run, other, sums): (u32, Run, u64, &[u32]) = match self {
            Record::Pages(run, sums) => (1, *run, 0, sums),
            Record::Zeros(run) => (2, *run, 0, &[]),
            Record::Adopted(run, stage) => (3, *run, u64::from(*stage), &[]),
            Record::Synced(number) => (4, NO_RUN, *number, &[]),
        };
        let mut out = Vec::with_capacity(RECORD_HEADER + sums.len() * 4);
        out.extend(RECORD_MAGIC);
        out.extend(kind.to_le_bytes());
        out.extend(run.owner.to_le_bytes());
        out.extend(run.count.to_le_bytes());
        out.extend(run.start.to_le_bytes());
        out.extend(other.to_le_bytes());
        out.extend([0; RECORD_HEADER - CHECKED]);
        sums.iter().for_each(|sum| out.extend(sum.to_le_bytes()));
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&out[..CHECKED]);
        hasher.update(&out[RECORD_HEADER..]);
        out[CHECKED..CHECKED + 4].copy_from_slice(&hasher.finalize().to_le_bytes());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn decode(bytes: &[u8]) -> Result<Record, Malformed> {
        let (head, rest) = bytes.split_first_chunk().ok_or(Malformed::TooShort)?;
        let head = Head::decode(head)?;
        head.complete(rest.get(..head.sums_length()).ok_or(Malformed::TooShort)?)
    }

    #[test]
    fn records_come_back_as_they_were_and_no_changed_byte_is_believed() {
        let run = Run { owner: 7, start: 0x7f00_0000_0000 >> 12, count: 3 };
        for record in [
            Record::Pages(run, vec![1, u32::MAX, 3]),
            Record::Zeros(run),
            Record::Adopted(run, 1 << 31),
            Record::Synced(u64::MAX),
        ] {
            let bytes = record.encode();
            assert_eq!(decode(&bytes), Ok(record.clone()));
            for at in 0..bytes.len() {
                let mut changed = bytes.clone();
                changed[at] ^= 4;
                assert!(decode(&changed).is_err(), "{record:?} {at}");
                assert!(decode(&bytes[..at]).is_err());
            }
        }
        let far = Run { start: (1 << 52) - 1, count: 2, ..run };
        assert!(decode(&Record::Zeros(far).encode()).is_err());
        let many = Record::Pages(Run { count: RECORD_PAGES_MAX + 1, ..run }, vec![0; RECORD_PAGES_MAX as usize + 1]);
        assert!(decode(&many.encode()).is_err());
    }

    #[test]
    fn a_file_tells_whose_it_is() {
        let header = file_header(MigrationId([9; 16]));
        assert_eq!(read_file_header(&header), Ok(MigrationId([9; 16])));
        for at in 0..16 {
            let mut changed = header;
            changed[at] ^= 1;
            assert!(read_file_header(&changed).is_err(), "{at}");
        }
    }
}
