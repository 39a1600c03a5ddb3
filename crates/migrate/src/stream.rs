//! Frames over a lane, in both directions, without waiting: what a driver's loop reads and writes between two looks at the clock.
use crate::intake::Intake;
use crate::transport::Lane;
use godwit_handoff::frame::{Frame, HEADER_LENGTH, Header, Run, Runs};
use godwit_handoff::{Malformed, Packet, Totals};
use godwit_image::ObjectId;
use godwit_linux::poll::Readiness;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

/// Bytes of pages that are handed on at once: the most that is kept of a frame's body.
pub(crate) const PIECE_BYTES: usize = godwit_engine::pages::PIECE_BYTES;

/// Why a lane cannot be used any more.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The other side closed it.
    Closed,
    /// The kernel says no.
    Failed(io::Error),
    /// The other side does not speak the protocol.
    Malformed(Malformed),
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Broken::Closed => write!(f, "the other side closed the connection"),
            Broken::Failed(error) => write!(f, "{error}"),
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
}

#[derive(Debug)]
enum Stage {
    Header,
    Payload(Header),
    Body,
    Zeros,
}

/// Which part of [`Incoming`] an [`Arrival`] shows.
enum Part {
    Packet(Packet),
    State,
    Pages(ObjectId),
    Zeros(ObjectId),
}

/// The runs of a frame, cut into pieces of one owner each.
#[derive(Debug, Default)]
struct Cutter {
    runs: Vec<Run>,
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
    body_header: Option<Header>,
    body_pages: u64,
    body_bytes: u64,
    body_checksum: Option<u32>,
    hasher: crc32fast::Hasher,
    totals: Totals,
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
            body_header: None,
            body_pages: 0,
            body_bytes: 0,
            body_checksum: None,
            hasher: crc32fast::Hasher::new(),
            totals: Totals::default(),
        }
    }

    /// State and pages that have come in completely.
    pub(crate) fn totals(&self) -> Totals {
        self.totals
    }

    /// The next thing that has come in, if it is there.
    pub(crate) fn next(&mut self, reader: &mut File) -> Result<Option<Arrival<'_>>, Broken> {
        let Some(part) = self.advance(reader)? else { return Ok(None) };
        Ok(Some(match part {
            Part::Packet(packet) => Arrival::Packet(packet),
            Part::State => Arrival::State(&self.payload),
            Part::Zeros(owner) => Arrival::Zeros(owner, &self.ranges),
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
                    match Frame::decode(&header, &self.payload)? {
                        Frame::Packet(packet) => return Ok(Some(Part::Packet(packet))),
                        Frame::State(_) => {
                            self.totals.count(&header, 0, 0, 0);
                            return Ok(Some(Part::State));
                        }
                        Frame::Pages(runs) => self.begin_body(header, runs),
                        Frame::ZeroPages(runs) => {
                            self.totals.count(&header, runs.pages(), 0, 0);
                            self.cutter = Cutter::new(runs);
                            self.stage = Stage::Zeros;
                        }
                    }
                }
                Stage::Zeros => {
                    let (owner, length) = self.cutter.cut(u64::MAX >> 1, &mut self.ranges);
                    if length > 0 {
                        return Ok(Some(Part::Zeros(owner)));
                    }
                    self.stage = Stage::Header;
                }
                Stage::Body if self.piece == 0 => {
                    (self.owner, self.piece) = self.cutter.cut(PIECE_BYTES as u64, &mut self.ranges);
                    if self.piece == 0 {
                        self.end_body()?;
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

    fn begin_body(&mut self, header: Header, runs: Runs) {
        if self.body.is_empty() {
            // Zeros from the kernel, page by page as they are needed: the process is down while this is made.
            self.body = vec![0; PIECE_BYTES];
        }
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

/// Who reads.
#[derive(Debug)]
enum Reading {
    Here(Incoming),
    Thread(Intake),
}

/// A lane with its frames.
#[derive(Debug)]
pub(crate) struct Stream {
    lane: Lane,
    reading: Reading,
    /// What the thread had read when it was ended.
    left: VecDeque<Result<Packet, Broken>>,
    /// Bytes that must leave, in order; the first `gone` of them have.
    outgoing: Vec<u8>,
    gone: usize,
    /// A frame is half sent: nothing else may leave now.
    held_back: bool,
    /// Bytes that have left.
    pub(crate) sent: u64,
}

impl Stream {
    pub(crate) fn new(lane: Lane) -> Stream {
        Stream {
            lane,
            reading: Reading::Here(Incoming::new()),
            left: VecDeque::new(),
            outgoing: Vec::new(),
            gone: 0,
            held_back: false,
            sent: 0,
        }
    }

    /// The lane alone: to be called between two frames, when everything has left.
    pub(crate) fn into_lane(self) -> Lane {
        self.lane
    }

    pub(crate) fn peer(&self) -> &str {
        self.lane.peer()
    }

    /// Has a thread read from now on; to be called between two frames.
    ///
    /// # Errors
    /// No thread or descriptor is free: reading goes on here.
    pub(crate) fn read_ahead(&mut self) -> io::Result<()> {
        if let Reading::Here(incoming) = &mut self.reading {
            let reader = self.lane.reader.try_clone()?;
            let incoming = std::mem::replace(incoming, Incoming::new());
            self.reading = Reading::Thread(Intake::start(incoming, reader)?);
        }
        Ok(())
    }

    /// Ends the thread of [`Stream::read_ahead`]: descriptors may change their numbers now. Returns the state and pages that have
    /// come in completely.
    pub(crate) fn read_here(&mut self) -> Totals {
        let reading = std::mem::replace(&mut self.reading, Reading::Here(Incoming::new()));
        let incoming = match reading {
            Reading::Here(incoming) => incoming,
            Reading::Thread(intake) => {
                let (incoming, left) = intake.finish();
                self.left.extend(left);
                incoming
            }
        };
        let totals = incoming.totals();
        self.reading = Reading::Here(incoming);
        totals
    }

    /// The next thing that has come in, if it is there.
    pub(crate) fn next(&mut self) -> Result<Option<Arrival<'_>>, Broken> {
        if let Some(left) = self.left.pop_front() {
            return left.map(|packet| Some(Arrival::Packet(packet)));
        }
        match &mut self.reading {
            Reading::Here(incoming) => incoming.next(&mut self.lane.reader),
            Reading::Thread(intake) => intake.next(),
        }
    }

    /// Puts a message behind what must leave already.
    pub(crate) fn say(&mut self, packet: Packet) -> Result<(), Broken> {
        Frame::Packet(packet).encode(&mut self.outgoing)?;
        Ok(())
    }

    /// A frame has left half: what is said from now on waits for its rest.
    pub(crate) fn hold_back(&mut self) {
        self.held_back = true;
    }

    /// The rest of the half-sent frame (nothing, if all of it has left) goes before what was said meanwhile.
    pub(crate) fn finish_later(&mut self, first: &[u8], second: &[u8]) {
        self.held_back = false;
        self.outgoing.splice(self.gone..self.gone, first.iter().chain(second).copied());
    }

    /// Whether nothing waits to leave.
    pub(crate) fn is_flushed(&self) -> bool {
        self.gone == self.outgoing.len()
    }

    /// Lets leave what can.
    pub(crate) fn flush(&mut self) -> Result<(), Broken> {
        while self.gone < self.outgoing.len() && !self.held_back {
            let part = &self.outgoing[self.gone..];
            match write(&mut self.lane.writer, &[IoSlice::new(part)])? {
                0 => return Ok(()),
                count => {
                    self.gone += count;
                    self.sent += count as u64;
                }
            }
        }
        if self.is_flushed() {
            self.outgoing.clear();
            self.gone = 0;
        }
        Ok(())
    }

    /// Sends as much of two parts as can leave now; only when everything before has left.
    pub(crate) fn send(&mut self, head: &[u8], body: &[u8]) -> Result<usize, Broken> {
        let count = write(&mut self.lane.writer, &[IoSlice::new(head), IoSlice::new(body)])?;
        self.sent += count as u64;
        Ok(count)
    }

    /// What to wait for: always for the other side, and for room if something must leave.
    pub(crate) fn interest(&self, sending: bool) -> [(BorrowedFd<'_>, Readiness); 2] {
        let room = Readiness { readable: false, writable: sending || (!self.is_flushed() && !self.held_back) };
        let source = match &self.reading {
            Reading::Here(_) => self.lane.reader.as_fd(),
            Reading::Thread(intake) => intake.bell(),
        };
        [(source, Readiness::READABLE), (self.lane.writer.as_fd(), room)]
    }
}

/// Bytes written; 0 when there is no room.
fn write(writer: &mut File, parts: &[IoSlice<'_>]) -> Result<usize, Broken> {
    loop {
        match writer.write_vectored(parts) {
            Ok(0) if parts.iter().any(|part| !part.is_empty()) => return Err(Broken::Closed),
            Ok(count) => return Ok(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Broken::Failed(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use godwit_handoff::{Message, MigrationId};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    fn pair() -> (Stream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Stream::new(Lane::socket(OwnedFd::from(ours), "test".to_owned()).unwrap()), theirs)
    }

    fn pages(owner: u32, start: u64, count: u32, body: &[u8], checked: bool) -> Vec<u8> {
        let runs = Runs {
            page_shift: 12,
            body_checksum: checked.then(|| crc32fast::hash(body)),
            runs: vec![Run { owner, start, count }],
        };
        let mut bytes = Vec::new();
        Frame::Pages(runs).encode(&mut bytes).unwrap();
        bytes.extend(body);
        bytes
    }

    #[test]
    fn whatever_the_cuts_between_reads_the_same_arrives() {
        let packet = Packet { migration: MigrationId([7; 16]), message: Message::Heartbeat };
        let body: Vec<u8> = (0..2 * 4096_u32).map(|index| (index % 251) as u8).collect();
        let mut bytes = Vec::new();
        Frame::Packet(packet.clone()).encode(&mut bytes).unwrap();
        Frame::State(b"abc").encode(&mut bytes).unwrap();
        bytes.extend(pages(3, 16, 2, &body, true));
        let zeros = Runs { page_shift: 12, body_checksum: None, runs: vec![Run { owner: 4, start: 1, count: 9 }] };
        Frame::ZeroPages(zeros).encode(&mut bytes).unwrap();
        for step in [1, 7, 4096, bytes.len()] {
            let (mut stream, mut theirs) = pair();
            let mut seen = Vec::new();
            for chunk in bytes.chunks(step) {
                theirs.write_all(chunk).unwrap();
                while let Some(arrival) = stream.next().unwrap() {
                    seen.push(match arrival {
                        Arrival::Packet(found) => {
                            assert_eq!(found, packet);
                            "packet"
                        }
                        Arrival::State(found) => {
                            assert_eq!(found, b"abc");
                            "state"
                        }
                        Arrival::Pages(owner, ranges, found) => {
                            assert_eq!((owner, ranges), (ObjectId(3), &[(16 * 4096, 8192)][..]));
                            assert_eq!(found, body);
                            "pages"
                        }
                        Arrival::Zeros(owner, ranges) => {
                            assert_eq!((owner, ranges), (ObjectId(4), &[(4096, 9 * 4096)][..]));
                            "zeros"
                        }
                    });
                }
            }
            assert_eq!(seen, ["packet", "state", "pages", "zeros"]);
            assert_eq!((stream.read_here().pages, stream.read_here().bytes > 8192), (11, true));
            drop(theirs);
            assert!(matches!(stream.next(), Err(Broken::Closed)));
        }
    }

    #[test]
    fn a_changed_page_is_noticed() {
        let (mut stream, mut theirs) = pair();
        let mut bytes = pages(3, 16, 1, &[1; 4096], true);
        *bytes.last_mut().unwrap() = 2;
        theirs.write_all(&bytes).unwrap();
        assert!(matches!(stream.next(), Ok(Some(Arrival::Pages(..)))));
        assert!(matches!(stream.next(), Err(Broken::Malformed(Malformed::BadChecksum))));
    }

    #[test]
    fn a_body_larger_than_a_piece_comes_in_pieces() {
        let (mut stream, mut theirs) = pair();
        let count = (PIECE_BYTES / 4096) as u32 * 2 + 1;
        let writer = std::thread::spawn(move || {
            theirs.write_all(&pages(3, 16, count, &vec![5; count as usize * 4096], false)).unwrap();
            theirs
        });
        let (mut lengths, mut next) = (Vec::new(), 16 * 4096);
        while lengths.iter().sum::<usize>() < count as usize * 4096 {
            if let Some(Arrival::Pages(_, ranges, bytes)) = stream.next().unwrap() {
                assert_eq!(ranges, [(next, bytes.len())]);
                next += bytes.len() as u64;
                lengths.push(bytes.len());
            }
        }
        assert_eq!(lengths, [PIECE_BYTES, PIECE_BYTES, 4096]);
        writer.join().unwrap();
    }
}
