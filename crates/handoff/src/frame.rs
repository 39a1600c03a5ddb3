//! Frames: messages, state and page headers as bytes. Drawn byte by byte in docs/wire.md.
//!
//! A frame is a header of 12 bytes and a payload. Behind the payload of a [`PAGES`] frame follow the pages themselves, which are
//! counted by its runs and not by the header's length: the pumps move them without looking into a codec.

use alloc::vec::Vec;

use crate::bytes::{Malformed, Reader};
use crate::delta::Delta;
use crate::message::Packet;
use crate::packed::{Packed, PackedState};
use crate::store::Word;

/// Bytes of a header.
pub const HEADER_LENGTH: usize = 12;
/// The first two bytes of every frame.
pub const MAGIC: [u8; 2] = *b"Gw";
/// Frame type: a piece of the captured state, in order within its lane.
pub const STATE: u8 = 32;
/// Frame type: runs of pages whose contents follow.
pub const PAGES: u8 = 33;
/// Frame type: runs of pages that contain only zeros; nothing follows.
pub const ZERO_PAGES: u8 = 34;
/// Frame type: runs of pages that were sent in the preparation and are still true; nothing follows.
pub const HELD_PAGES: u8 = 35;
/// Owners from here on are address spaces of the source's tree before it was captured, counted from zero; below are objects of the
/// captured state.
pub const STAGE_FIRST: u32 = 1 << 31;
/// Frame type, to the source: runs of pages that a process waits for, in this order.
pub const WANTED_PAGES: u8 = 36;
/// Frame type, to the source over a new link: runs of pages that it still owes.
pub const OWED_PAGES: u8 = 37;
/// Frame type: a word to or from a page store.
pub const STORE: u8 = 42;
/// Frame type, from the source: all pages that are owed are in the page store now; the payload is empty.
pub const STORED: u8 = 43;
/// Frame type, to the source: what it still owes is to come without being asked for; no payload.
pub const PUSH_OWED: u8 = 38;
/// Frame type: bytes that mean nothing and are thrown away: how fast they leave tells what the link carries.
pub const PROBE: u8 = 52;
/// Frame type: runs of pages whose contents follow, packed.
pub const PACKED_PAGES: u8 = 48;
/// Frame type: runs of pages whose changes follow, since they were sent last.
pub const DELTA_PAGES: u8 = 49;
/// Frame type: a piece of captured state, packed.
pub const PACKED_STATE: u8 = 50;
/// Most bytes of a payload: messages carry at most 1 MiB of the drivers' own in one field.
pub const PAYLOAD_LIMIT: u32 = 4 << 20;
/// Most runs in one frame.
pub const RUN_LIMIT: usize = 4_096;
/// Most pages in one [`PAGES`] frame: 64 MiB of 4 KiB pages.
pub const PAGE_LIMIT: u64 = 16_384;
/// Largest page that a frame may speak of: 1 GiB.
pub const PAGE_SHIFT_LIMIT: u8 = 30;

/// Flag of a [`PAGES`] frame: its body checksum is given.
const BODY_CHECKED: u8 = 1;
const FIRST_MESSAGE: u8 = 1;
const LAST_MESSAGE: u8 = 31;

/// The first 12 bytes of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// What the payload is: a message (1 to 31) or one of the constants of this module. Never zero.
    pub kind: u8,
    /// Bits that change how the payload is read; those that are not known are refused.
    pub flags: u8,
    /// Bytes of the payload.
    pub length: u32,
    /// CRC-32 (IEEE) of the header's first eight bytes and the payload.
    pub checksum: u32,
}

impl Header {
    fn start(&self) -> [u8; 8] {
        let [a, b, c, d] = self.length.to_le_bytes();
        [MAGIC[0], MAGIC[1], self.kind, self.flags, a, b, c, d]
    }

    fn sum(&self, payload: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.start());
        hasher.update(payload);
        hasher.finalize()
    }

    /// Reads a header. The length is already checked against [`PAYLOAD_LIMIT`], so that much may be allocated.
    ///
    /// # Errors
    /// [`Malformed`] for a wrong magic, an unknown type or flag, a length above the limit.
    pub fn decode(bytes: &[u8; HEADER_LENGTH]) -> Result<Header, Malformed> {
        let mut reader = Reader::new(bytes);
        if reader.array::<2>()? != MAGIC {
            return Err(Malformed::BadMagic);
        }
        let header = Header { kind: reader.u8()?, flags: reader.u8()?, length: reader.u32()?, checksum: reader.u32()? };
        let known = match header.kind {
            FIRST_MESSAGE..=LAST_MESSAGE
            | STATE
            | ZERO_PAGES
            | HELD_PAGES
            | WANTED_PAGES
            | OWED_PAGES
            | PACKED_PAGES
            | STORE
            | STORED
            | DELTA_PAGES
            | PACKED_STATE
            | PROBE => 0,
            PUSH_OWED if header.length == 0 => 0,
            PAGES => BODY_CHECKED,
            other => return Err(Malformed::UnknownType(other)),
        };
        if header.flags & !known != 0 {
            return Err(Malformed::UnknownFlags(header.flags));
        }
        if header.length > PAYLOAD_LIMIT {
            return Err(Malformed::TooLong { length: header.length.into(), limit: PAYLOAD_LIMIT.into() });
        }
        Ok(header)
    }

    /// The bytes of this header.
    pub fn encode(&self) -> [u8; HEADER_LENGTH] {
        let mut bytes = [0; HEADER_LENGTH];
        bytes[..8].copy_from_slice(&self.start());
        bytes[8..].copy_from_slice(&self.checksum.to_le_bytes());
        bytes
    }
}

/// Neighbouring pages of one owner.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Run {
    /// Id of the object whose pages these are (an address space, a shared memory object); the drivers agree on it.
    pub owner: u32,
    /// Number of the first page: its address or offset divided by the page size.
    pub start: u64,
    /// How many pages; never zero.
    pub count: u32,
}

/// The payload of a [`PAGES`], [`ZERO_PAGES`], [`WANTED_PAGES`] or [`OWED_PAGES`] frame, and part of that of a [`HELD_PAGES`] frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Runs {
    /// The page size is two to this power.
    pub page_shift: u8,
    /// CRC-32 (IEEE) of the pages that follow, where the sender has computed it.
    pub body_checksum: Option<u32>,
    /// Which pages, in the order in which they follow.
    pub runs: Vec<Run>,
}

impl Runs {
    /// How many pages all runs have together.
    pub fn pages(&self) -> u64 {
        self.runs.iter().map(|run| u64::from(run.count)).sum()
    }

    /// How many bytes follow behind the payload of a [`PAGES`] frame.
    pub fn body_length(&self) -> u64 {
        self.pages() << self.page_shift.min(PAGE_SHIFT_LIMIT)
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend([self.page_shift, 0, 0, 0]);
        out.extend(self.body_checksum.unwrap_or(0).to_le_bytes());
        for run in &self.runs {
            out.extend(run.owner.to_le_bytes());
            out.extend(run.count.to_le_bytes());
            out.extend(run.start.to_le_bytes());
        }
    }

    pub(crate) fn decode(kind: u8, flags: u8, payload: &[u8]) -> Result<Runs, Malformed> {
        let mut reader = Reader::new(payload);
        let page_shift = reader.u8()?;
        if !(12..=PAGE_SHIFT_LIMIT).contains(&page_shift) {
            return Err(Malformed::BadValue("page size"));
        }
        if reader.array::<3>()? != [0; 3] {
            return Err(Malformed::BadValue("reserved"));
        }
        let sum = reader.u32()?;
        let checked = flags & BODY_CHECKED != 0;
        if !checked && sum != 0 {
            return Err(Malformed::BadValue("body checksum"));
        }
        let count = payload.len().saturating_sub(8) / 16;
        if count == 0 || count > RUN_LIMIT {
            return Err(Malformed::BadValue("number of runs"));
        }
        let mut runs = Vec::with_capacity(count);
        for _ in 0..count {
            let (owner, count, start) = (reader.u32()?, reader.u32()?, reader.u64()?);
            // The end of the run must be an address: what is above 2^64 bytes cannot be a page.
            let end = start.checked_add(count.into()).filter(|&end| end <= 1 << (64 - page_shift));
            if count == 0 || end.is_none() {
                return Err(Malformed::BadValue("run of pages"));
            }
            runs.push(Run { owner, start, count });
        }
        reader.end()?;
        let runs = Runs { page_shift, body_checksum: checked.then_some(sum), runs };
        if kind == PAGES && runs.body_length() > PAGE_LIMIT << 12 {
            return Err(Malformed::TooLong { length: runs.body_length(), limit: PAGE_LIMIT << 12 });
        }
        Ok(runs)
    }
}

/// What a frame carries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame<'a> {
    /// A message: for the machine (but [`crate::Message::Lane`] for the driver).
    Packet(Packet),
    /// A piece of captured state: for the driver.
    State(&'a [u8]),
    /// The same, packed.
    PackedState(PackedState<'a>),
    /// These pages follow: for the pump.
    Pages(Runs),
    /// These pages are zero: for the pump.
    ZeroPages(Runs),
    /// These pages of objects came before as pages of this stage, and are still true: for the pump.
    HeldPages(u32, Runs),
    /// These pages are waited for: for the page server.
    WantedPages(Runs),
    /// These pages follow, packed: for the pump.
    PackedPages(Packed),
    /// What has changed of these pages follows: for the pump.
    DeltaPages(Delta),
    /// These pages are owed: for the page server.
    OwedPages(Runs),
    /// Said to or by a page store.
    Store(Word),
    /// What is owed is in the page store: for who fetches it.
    Stored,
    /// All that is owed is to be pushed: for the page server.
    PushOwed,
    /// Bytes that mean nothing: for nobody.
    Probe(&'a [u8]),
}

impl<'a> Frame<'a> {
    /// Reads the payload that belongs to `header`.
    ///
    /// # Errors
    /// [`Malformed`] if it has not the header's length or checksum, or its fields are not as they must be.
    pub fn decode(header: &Header, payload: &'a [u8]) -> Result<Frame<'a>, Malformed> {
        if payload.len() != header.length as usize {
            return Err(Malformed::TooShort);
        }
        if header.sum(payload) != header.checksum {
            return Err(Malformed::BadChecksum);
        }
        Frame::parse(header, payload)
    }

    fn parse(header: &Header, payload: &'a [u8]) -> Result<Frame<'a>, Malformed> {
        match header.kind {
            STATE => Ok(Frame::State(payload)),
            PACKED_STATE => PackedState::decode(payload).map(Frame::PackedState),
            PAGES => Runs::decode(PAGES, header.flags, payload).map(Frame::Pages),
            ZERO_PAGES => Runs::decode(ZERO_PAGES, header.flags, payload).map(Frame::ZeroPages),
            HELD_PAGES => {
                let (stage, runs) = payload.split_first_chunk::<4>().ok_or(Malformed::TooShort)?;
                let stage = u32::from_le_bytes(*stage);
                if stage < STAGE_FIRST {
                    return Err(Malformed::BadValue("stage"));
                }
                Runs::decode(HELD_PAGES, header.flags, runs).map(|runs| Frame::HeldPages(stage, runs))
            }
            PACKED_PAGES => Packed::decode(header.flags, payload).map(Frame::PackedPages),
            DELTA_PAGES => Delta::decode(header.flags, payload).map(Frame::DeltaPages),
            WANTED_PAGES => Runs::decode(WANTED_PAGES, header.flags, payload).map(Frame::WantedPages),
            OWED_PAGES => Runs::decode(OWED_PAGES, header.flags, payload).map(Frame::OwedPages),
            STORE => Word::decode(payload).map(Frame::Store),
            STORED if payload.is_empty() => Ok(Frame::Stored),
            STORED => Err(Malformed::Trailing(payload.len())),
            PUSH_OWED => Ok(Frame::PushOwed),
            PROBE => Ok(Frame::Probe(payload)),
            code => Packet::decode(code, payload).map(Frame::Packet),
        }
    }

    /// Reads the frame at the front of `bytes` and how many of them it takes (without the pages behind a [`PAGES`] payload);
    /// `None` if more bytes are needed.
    ///
    /// # Errors
    /// [`Malformed`] as soon as the bytes cannot become a frame any more.
    pub fn split(bytes: &'a [u8]) -> Result<Option<(Frame<'a>, usize)>, Malformed> {
        let Some((header, rest)) = bytes.split_first_chunk::<HEADER_LENGTH>() else {
            return Ok(None);
        };
        let header = Header::decode(header)?;
        let Some(payload) = rest.get(..header.length as usize) else {
            return Ok(None);
        };
        Ok(Some((Frame::decode(&header, payload)?, HEADER_LENGTH + payload.len())))
    }

    /// Appends the bytes of this frame (without the pages behind a [`PAGES`] payload); returns its header.
    ///
    /// # Errors
    /// What the other side would refuse is not encoded: `out` is left as it was.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<Header, Malformed> {
        let start = out.len();
        out.extend([0; HEADER_LENGTH]);
        let (kind, flags) = match self {
            Frame::Packet(packet) => {
                packet.encode(out);
                (packet.message.code(), 0)
            }
            Frame::State(bytes) | Frame::Probe(bytes) => {
                out.extend_from_slice(bytes);
                (if matches!(self, Frame::State(_)) { STATE } else { PROBE }, 0)
            }
            Frame::PackedState(packed) => {
                packed.encode(out);
                (PACKED_STATE, 0)
            }
            Frame::Pages(runs) => {
                runs.encode(out);
                (PAGES, if runs.body_checksum.is_some() { BODY_CHECKED } else { 0 })
            }
            Frame::ZeroPages(runs) => {
                runs.encode(out);
                (ZERO_PAGES, 0)
            }
            Frame::HeldPages(stage, runs) => {
                out.extend(stage.to_le_bytes());
                runs.encode(out);
                (HELD_PAGES, 0)
            }
            Frame::WantedPages(runs) => {
                runs.encode(out);
                (WANTED_PAGES, 0)
            }
            Frame::PackedPages(packed) => {
                packed.encode(out);
                (PACKED_PAGES, 0)
            }
            Frame::DeltaPages(delta) => {
                delta.encode(out);
                (DELTA_PAGES, 0)
            }
            Frame::OwedPages(runs) => {
                runs.encode(out);
                (OWED_PAGES, 0)
            }
            Frame::Store(word) => {
                word.encode(out);
                (STORE, 0)
            }
            Frame::Stored => (STORED, 0),
            Frame::PushOwed => (PUSH_OWED, 0),
        };
        let payload = &out[start + HEADER_LENGTH..];
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let mut header = Header { kind, flags, length, checksum: 0 };
        header.checksum = header.sum(payload);
        let sound = Header::decode(&header.encode()).and_then(|header| Frame::parse(&header, payload).map(|_| ()));
        match sound {
            Ok(()) => {
                out[start..start + HEADER_LENGTH].copy_from_slice(&header.encode());
                Ok(header)
            }
            Err(error) => {
                out.truncate(start);
                Err(error)
            }
        }
    }
}
