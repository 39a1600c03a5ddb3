//! Frames out of bytes that come as they like: the reading half of a lane.
use crate::stream::{Arrival, Broken};
use godwit_handoff::delta::{Delta, Memory};
use godwit_handoff::frame::{Frame, HEADER_LENGTH, Header, Run as FrameRun, Runs};
use godwit_handoff::packed::Packed;
use godwit_handoff::store::Word;
use godwit_handoff::{Malformed, Packet, Totals};
use godwit_image::ObjectId;
use godwit_image::page_set::{PageSet, Run};
use godwit_linux::heap;
use godwit_linux::vector::RANGES_MAX;
use std::fs::File;
use std::io::{self, Read};

/// Bytes of pages that are handed on at once: the most that is kept of a frame's body.
pub(crate) const PIECE_BYTES: usize = godwit_engine::pages::PIECE_BYTES;
/// Fewer bytes than this are never left in the lane.
pub(crate) const LEFT_BYTES_MIN: usize = 256 << 10;

#[derive(Debug)]
enum Stage {
    Header,
    Payload(Header),
    Body,
    /// Packed pages.
    Packed(Header, Box<Packed>),
    /// What has changed of pages.
    Delta(Header, Box<Delta>),
    /// The ranges' bytes are somebody else's to read.
    Waiting,
    /// So many bytes are nobody's.
    Skip(usize),
    /// Pages of this stage are true.
    Held(u32),
    Named(Naming),
}

/// What is said of pages that are only named.
#[derive(Clone, Copy, Debug)]
enum Naming {
    Zero,
    Wanted,
    Owed,
}

/// Which part of [`Incoming`] an [`Arrival`] shows.
enum Part {
    Packet(Packet),
    State,
    Pages(ObjectId),
    Held(u32, ObjectId),
    Named(Naming, ObjectId),
    Push,
    Waiting(ObjectId),
    Store(Word),
    Stored,
}

/// The runs of a frame, cut into pieces of one owner each.
#[derive(Debug, Default)]
struct Cutter {
    runs: Vec<FrameRun>,
    shift: u8,
    next: usize,
    /// Bytes of `runs[next]` that were cut off already.
    offset: u64,
}

impl Cutter {
    fn new(runs: Runs) -> Cutter {
        Cutter { runs: runs.runs, shift: runs.page_shift, next: 0, offset: 0 }
    }

    /// The next piece of at most `limit` bytes; its length is zero at the end.
    fn cut(&mut self, limit: u64, ranges: &mut Vec<(u64, usize)>) -> (ObjectId, usize) {
        ranges.clear();
        let owner = self.runs.get(self.next).map_or(0, |run| run.owner);
        let mut total = 0_u64;
        while let Some(run) = self.runs.get(self.next).filter(|run| run.owner == owner && total < limit) {
            let left = (u64::from(run.count) << self.shift) - self.offset;
            let length = left.min(limit - total);
            ranges.push(((run.start << self.shift) + self.offset, length as usize));
            total += length;
            self.offset += length;
            if length == left {
                self.next += 1;
                self.offset = 0;
            }
        }
        (ObjectId(owner), total as usize)
    }
}

/// The reading half.
#[derive(Debug)]
pub(crate) struct Incoming {
    stage: Stage,
    /// Bytes of the current header, payload or piece that are there.
    filled: usize,
    header: [u8; HEADER_LENGTH],
    payload: Vec<u8>,
    cutter: Cutter,
    ranges: Vec<(u64, usize)>,
    owner: ObjectId,
    piece: usize,
    body: Vec<u8>,
    /// A body before it is unpacked.
    packed: Vec<u8>,
    /// Versions of pages that were sent again, as the sender remembers them.
    memory: Memory,
    body_header: Option<Header>,
    body_pages: u64,
    body_bytes: u64,
    body_checksum: Option<u32>,
    hasher: crc32fast::Hasher,
    totals: Totals,
    /// Pages whose bytes are left in the lane.
    left: (ObjectId, PageSet),
}

/// Reads until `buffer` is full; false when there is nothing more yet.
fn fill(reader: &mut File, buffer: &mut [u8], filled: &mut usize) -> Result<bool, Broken> {
    while *filled < buffer.len() {
        match reader.read(&mut buffer[*filled..]) {
            Ok(0) => return Err(Broken::Closed),
            Ok(count) => *filled += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Broken::Failed(error)),
        }
    }
    *filled = 0;
    Ok(true)
}

impl Incoming {
    pub(crate) fn new() -> Incoming {
        Incoming {
            stage: Stage::Header,
            filled: 0,
            header: [0; HEADER_LENGTH],
            payload: Vec::new(),
            cutter: Cutter::default(),
            ranges: Vec::new(),
            owner: ObjectId(0),
            piece: 0,
            body: Vec::new(),
            packed: Vec::new(),
            memory: Memory::default(),
            body_header: None,
            body_pages: 0,
            body_bytes: 0,
            body_checksum: None,
            hasher: crc32fast::Hasher::new(),
            totals: Totals::default(),
            left: (ObjectId(0), PageSet::new()),
        }
    }

    /// Makes room for pages before any come.
    pub(crate) fn make_ready(&mut self) {
        if self.body.is_empty() {
            self.body = heap::zeros(PIECE_BYTES);
        }
    }

    /// State and pages that have come in completely.
    pub(crate) fn totals(&self) -> Totals {
        self.totals
    }

    /// See [`crate::stream::Stream::leave`].
    pub(crate) fn leave(&mut self, owner: ObjectId, pages: PageSet) {
        self.left = (owner, pages);
    }

    /// See [`crate::stream::Stream::leave_nothing`].
    pub(crate) fn leave_nothing(&mut self) {
        self.left.1 = PageSet::new();
        if matches!(self.stage, Stage::Waiting) {
            self.stage = Stage::Skip(self.ranges.iter().map(|(_, length)| length).sum());
        }
    }

    /// The next thing that has come in, if it is there.
    pub(crate) fn next(&mut self, reader: &mut File) -> Result<Option<Arrival<'_>>, Broken> {
        let Some(part) = self.advance(reader)? else { return Ok(None) };
        Ok(Some(match part {
            Part::Packet(packet) => Arrival::Packet(packet),
            Part::State => Arrival::State(&self.payload),
            Part::Held(stage, owner) => Arrival::Held(stage, owner, &self.ranges),
            Part::Named(Naming::Zero, owner) => Arrival::Zeros(owner, &self.ranges),
            Part::Named(Naming::Wanted, owner) => Arrival::Wanted(owner, &self.ranges),
            Part::Named(Naming::Owed, owner) => Arrival::Owed(owner, &self.ranges),
            Part::Store(word) => Arrival::Store(word),
            Part::Stored => Arrival::Stored,
            Part::Push => Arrival::Push,
            Part::Waiting(owner) => Arrival::Waiting(owner, &self.ranges),
            Part::Pages(owner) => {
                let piece = std::mem::take(&mut self.piece);
                Arrival::Pages(owner, &self.ranges, &self.body[..piece])
            }
        }))
    }

    /// The buffer of the pages that came last, for another one of the same length.
    pub(crate) fn exchange(&mut self, buffer: Vec<u8>) -> Vec<u8> {
        std::mem::replace(&mut self.body, buffer)
    }

    fn advance(&mut self, reader: &mut File) -> Result<Option<Part>, Broken> {
        loop {
            match self.stage {
                Stage::Header => {
                    if !fill(reader, &mut self.header, &mut self.filled)? {
                        return Ok(None);
                    }
                    let header = Header::decode(&self.header)?;
                    self.payload.resize(header.length as usize, 0);
                    self.stage = Stage::Payload(header);
                }
                Stage::Payload(header) => {
                    if !fill(reader, &mut self.payload, &mut self.filled)? {
                        return Ok(None);
                    }
                    self.stage = Stage::Header;
                    if let Some(part) = self.begin_frame(header)? {
                        return Ok(Some(part));
                    }
                }
                Stage::Named(_) | Stage::Held(_) => {
                    let (owner, length) = self.cutter.cut(u64::MAX >> 1, &mut self.ranges);
                    match self.stage {
                        Stage::Named(naming) if length > 0 => return Ok(Some(Part::Named(naming, owner))),
                        Stage::Held(stage) if length > 0 => return Ok(Some(Part::Held(stage, owner))),
                        _ => self.stage = Stage::Header,
                    }
                }
                Stage::Body if self.piece == 0 => {
                    if self.leaves() {
                        self.stage = Stage::Waiting;
                        continue;
                    }
                    (self.owner, self.piece) = self.cutter.cut(PIECE_BYTES as u64, &mut self.ranges);
                    if self.piece == 0 {
                        self.end_body()?;
                    }
                }
                Stage::Waiting => return Ok(Some(Part::Waiting(self.owner))),
                Stage::Skip(0) => self.stage = Stage::Body,
                Stage::Skip(left) => {
                    let part = left.min(self.body.len());
                    if !fill(reader, &mut self.body[..part], &mut self.filled)? {
                        return Ok(None);
                    }
                    self.stage = Stage::Skip(left - part);
                }
                Stage::Packed(..) | Stage::Delta(..) => {
                    if !fill(reader, &mut self.packed, &mut self.filled)? {
                        return Ok(None);
                    }
                    match std::mem::replace(&mut self.stage, Stage::Header) {
                        Stage::Packed(header, packed) => return self.unpack(&header, &packed).map(Some),
                        Stage::Delta(header, delta) => return self.unpack_delta(&header, &delta).map(Some),
                        _ => {}
                    }
                }
                Stage::Body => {
                    if !fill(reader, &mut self.body[..self.piece], &mut self.filled)? {
                        return Ok(None);
                    }
                    if self.body_checksum.is_some() {
                        self.hasher.update(&self.body[..self.piece]);
                    }
                    return Ok(Some(Part::Pages(self.owner)));
                }
            }
        }
    }

    /// A payload is there.
    fn begin_frame(&mut self, header: Header) -> Result<Option<Part>, Broken> {
        match Frame::decode(&header, &self.payload)? {
            Frame::Packet(packet) => return Ok(Some(Part::Packet(packet))),
            Frame::State(_) => {
                self.totals.count(&header, 0, 0, 0);
                return Ok(Some(Part::State));
            }
            Frame::PackedState(packed) => {
                packed.unpack(&mut self.packed)?;
                std::mem::swap(&mut self.payload, &mut self.packed);
                self.totals.count(&header, 0, 0, 0);
                return Ok(Some(Part::State));
            }
            Frame::Pages(runs) => self.begin_body(header, runs),
            Frame::PackedPages(packed) => {
                self.packed.resize(packed.length as usize, 0);
                self.stage = Stage::Packed(header, Box::new(packed));
            }
            Frame::DeltaPages(delta) => {
                self.packed.resize(delta.length as usize, 0);
                self.stage = Stage::Delta(header, Box::new(delta));
            }
            Frame::ZeroPages(runs) => {
                self.totals.count(&header, runs.pages(), 0, 0);
                self.name(Naming::Zero, runs);
            }
            Frame::WantedPages(runs) => self.name(Naming::Wanted, runs),
            Frame::OwedPages(runs) => self.name(Naming::Owed, runs),
            Frame::Store(word) => return Ok(Some(Part::Store(word))),
            Frame::Stored => return Ok(Some(Part::Stored)),
            Frame::PushOwed => return Ok(Some(Part::Push)),
            Frame::Probe(_) => {}
            Frame::HeldPages(stage, runs) => {
                self.totals.count(&header, runs.pages(), 0, 0);
                self.cutter = Cutter::new(runs);
                self.stage = Stage::Held(stage);
            }
        }
        Ok(None)
    }

    fn name(&mut self, naming: Naming, runs: Runs) {
        self.cutter = Cutter::new(runs);
        self.stage = Stage::Named(naming);
    }

    /// Cuts off the next ranges if their bytes are to stay in the lane. What is checked is read here.
    fn leaves(&mut self) -> bool {
        if self.left.1.is_empty() || self.body_checksum.is_some() {
            return false;
        }
        let before = (self.cutter.next, self.cutter.offset);
        let (owner, bytes) = self.cutter.cut(u64::MAX >> 1, &mut self.ranges);
        let of_range = |(start, length): &(u64, usize)| Run { start: *start, end: start + *length as u64 };
        let ranges: PageSet = self.ranges.iter().map(of_range).collect();
        let few = self.ranges.len() <= RANGES_MAX;
        if few && bytes >= LEFT_BYTES_MIN && owner == self.left.0 && ranges.difference(&self.left.1).is_empty() {
            self.owner = owner;
            return true;
        }
        (self.cutter.next, self.cutter.offset) = before;
        false
    }

    /// The first bytes that waited have been read.
    pub(crate) fn took(&mut self, mut count: usize) {
        self.ranges.retain_mut(|(start, length)| {
            let taken = count.min(*length);
            (*start, *length) = (*start + taken as u64, *length - taken);
            count -= taken;
            *length > 0
        });
        if self.ranges.is_empty() {
            self.stage = Stage::Body;
        }
    }

    /// All of a packed body is there.
    fn unpack(&mut self, header: &Header, packed: &Packed) -> Result<Part, Broken> {
        self.make_room();
        let bytes = packed.runs.body_length() as usize;
        packed.unpack(&self.packed, &mut self.body[..bytes])?;
        Ok(self.unpacked(header, &packed.runs, packed.checksum))
    }

    /// The same of what has changed.
    fn unpack_delta(&mut self, header: &Header, delta: &Delta) -> Result<Part, Broken> {
        self.make_room();
        let bytes = delta.runs.body_length() as usize;
        delta.unpack(&mut self.memory, &self.packed, &mut self.body[..bytes])?;
        Ok(self.unpacked(header, &delta.runs, delta.checksum))
    }

    fn unpacked(&mut self, header: &Header, runs: &Runs, checksum: u32) -> Part {
        self.totals.count(header, runs.pages(), self.packed.len() as u64, checksum);
        self.cutter = Cutter::new(runs.clone());
        // All of it is one piece: it has one owner, and is no longer than one.
        (self.owner, self.piece) = self.cutter.cut(PIECE_BYTES as u64, &mut self.ranges);
        Part::Pages(self.owner)
    }

    fn make_room(&mut self) {
        if self.body.is_empty() {
            // Zeros from the kernel, page by page as they are needed: the process is down while this is made.
            self.body = vec![0; PIECE_BYTES];
        }
    }

    fn begin_body(&mut self, header: Header, runs: Runs) {
        self.make_room();
        (self.body_pages, self.body_bytes) = (runs.pages(), runs.body_length());
        self.body_checksum = runs.body_checksum;
        self.body_header = Some(header);
        self.hasher = crc32fast::Hasher::new();
        self.cutter = Cutter::new(runs);
        self.piece = 0;
        self.stage = Stage::Body;
    }

    fn end_body(&mut self) -> Result<(), Broken> {
        let checksum = std::mem::replace(&mut self.hasher, crc32fast::Hasher::new()).finalize();
        if self.body_checksum.is_some_and(|expected| expected != checksum) {
            return Err(Broken::Malformed(Malformed::BadChecksum));
        }
        if let Some(header) = self.body_header.take() {
            self.totals.count(&header, self.body_pages, self.body_bytes, self.body_checksum.unwrap_or(0));
        }
        self.stage = Stage::Header;
        Ok(())
    }
}
