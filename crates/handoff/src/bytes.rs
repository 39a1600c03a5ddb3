//! Reading and writing the fields of frames and journal records: little-endian, length-checked before anything is allocated.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// Why bytes from outside are not what they should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Malformed {
    /// A field goes beyond the end.
    TooShort,
    /// This many bytes follow the last field.
    Trailing(usize),
    /// It does not begin as it must: not ours, or the stream is out of step.
    BadMagic,
    /// A format version that this code does not know.
    UnknownVersion(u16),
    /// A frame type that this code does not know; zero is never valid.
    UnknownType(u8),
    /// Flags that this code does not know.
    UnknownFlags(u8),
    /// A length above its limit.
    TooLong {
        /// The length that was claimed.
        length: u64,
        /// The most that is allowed.
        limit: u64,
    },
    /// The checksum does not fit the bytes.
    BadChecksum,
    /// The named field has a value that it cannot have.
    BadValue(&'static str),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Malformed::TooShort => write!(f, "it ends in the middle of a field"),
            Malformed::Trailing(count) => write!(f, "{count} bytes too many"),
            Malformed::BadMagic => write!(f, "it does not begin with the right bytes"),
            Malformed::UnknownVersion(version) => write!(f, "format version {version} is unknown"),
            Malformed::UnknownType(kind) => write!(f, "frame type {kind} is unknown"),
            Malformed::UnknownFlags(flags) => write!(f, "flags {flags:#04x} are unknown"),
            Malformed::TooLong { length, limit } => write!(f, "a length of {length} is above the limit of {limit}"),
            Malformed::BadChecksum => write!(f, "the checksum does not fit"),
            Malformed::BadValue(field) => write!(f, "the field \"{field}\" has an impossible value"),
        }
    }
}

impl core::error::Error for Malformed {}

/// Takes fields from the front of a byte slice.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Malformed::TooShort)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed::TooShort)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn boolean(&mut self, field: &'static str) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed::BadValue(field)),
        }
    }

    /// Bytes behind their u32 length.
    pub(crate) fn bytes(&mut self, limit: usize) -> Result<Vec<u8>, Malformed> {
        let length = self.u32()? as usize;
        if length > limit {
            return Err(Malformed::TooLong { length: length as u64, limit: limit as u64 });
        }
        Ok(self.take(length)?.to_vec())
    }

    /// UTF-8 text behind its u16 length.
    pub(crate) fn text(&mut self, field: &'static str) -> Result<String, Malformed> {
        let length = self.u16()? as usize;
        let bytes = self.take(length)?;
        core::str::from_utf8(bytes).map(String::from).map_err(|_| Malformed::BadValue(field))
    }

    /// A count of things of which each takes at least `least` bytes, so a lie about it cannot make us allocate.
    pub(crate) fn count(&mut self, least: usize) -> Result<usize, Malformed> {
        let count = self.u32()? as usize;
        let limit = self.rest.len() / least.max(1);
        if count > limit {
            return Err(Malformed::TooLong { length: count as u64, limit: limit as u64 });
        }
        Ok(count)
    }

    pub(crate) fn end(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed::Trailing(self.rest.len())) }
    }
}

/// Appends bytes behind their u32 length. More than u32::MAX bytes cannot be said; they are cut and the other side's checks refuse it.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&bytes[..length as usize]);
}

/// Appends text behind its u16 length, cut at the last whole character that fits.
pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    let mut length = text.len().min(usize::from(u16::MAX));
    while !text.is_char_boundary(length) {
        length -= 1;
    }
    out.extend_from_slice(&(length as u16).to_le_bytes());
    out.extend_from_slice(&text.as_bytes()[..length]);
}

/// Appends how many things follow.
pub(crate) fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
}
