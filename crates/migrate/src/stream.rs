//! Frames over a lane, in both directions, without waiting: what a driver's loop reads and writes between two looks at the clock.
use crate::incoming::Incoming;
use crate::intake::Intake;
use crate::pulse::Pulse;
use crate::transport::Lane;
use godwit_handoff::frame::{Frame, RUN_LIMIT, Run as FrameRun, Runs};
use godwit_handoff::{MigrationId, Packet, Totals};
use godwit_image::ObjectId;
use godwit_image::page_set::PageSet;
use godwit_linux::poll::Readiness;
use godwit_linux::unix_socket;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::os::fd::{AsFd, BorrowedFd};

mod arrival;

pub(crate) use arrival::{Arrival, Broken};

const PAGE_SHIFT: u8 = 12;

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
    /// So many zeros leave before the byte of `outgoing` with this number: what a frame lacks that nobody will want.
    owed: (usize, usize),
    /// A frame is half sent: nothing else may leave now.
    held_back: bool,
    /// Bytes that have left.
    sent: u64,
    /// Who says that we live when we cannot.
    pulse: Option<Pulse>,
}

impl Stream {
    pub(crate) fn new(lane: Lane) -> Stream {
        Stream {
            lane,
            reading: Reading::Here(Incoming::new()),
            left: VecDeque::new(),
            outgoing: Vec::new(),
            gone: 0,
            owed: (0, 0),
            held_back: false,
            sent: 0,
            pulse: None,
        }
    }

    /// Has a thread say that we live when nothing was said for `period`, whatever we are doing: from now on, or, where the other side
    /// must hear something else first, from the first word on. Where no thread or descriptor is free only the loop says it.
    pub(crate) fn beat(&mut self, migration: MigrationId, period: std::time::Duration, now: bool) {
        self.pulse = Pulse::start(&self.lane.writer, migration, period).ok();
        if now {
            self.open_gate();
        }
    }

    /// Bytes that have left.
    pub(crate) fn sent(&self) -> u64 {
        self.sent + self.pulse.as_ref().map_or(0, Pulse::spoken)
    }

    /// Others may speak, if all that was to leave has left.
    fn open_gate(&mut self) {
        if self.is_flushed()
            && !self.held_back
            && let Some(pulse) = &mut self.pulse
        {
            pulse.open();
        }
    }

    fn close_gate(&mut self) {
        self.pulse.iter_mut().for_each(Pulse::close);
    }

    /// The lane alone: to be called between two frames, when everything has left.
    pub(crate) fn into_lane(self) -> Lane {
        self.lane
    }

    pub(crate) fn peer(&self) -> &str {
        self.lane.peer()
    }

    /// The one socket that the lane consists of, if it does.
    pub(crate) fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.lane.is_socket.then(|| self.lane.writer.as_fd())
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

    /// Makes room for pages before any come: it takes longer than to read them.
    pub(crate) fn make_ready(&mut self) {
        if let Reading::Here(incoming) = &mut self.reading {
            incoming.make_ready();
        }
    }

    /// Leaves the bytes of these pages in the lane, where they are the next thing in it: see [`Arrival::Waiting`]. Nobody reads ahead.
    pub(crate) fn leave(&mut self, owner: ObjectId, pages: PageSet) {
        if let Reading::Here(incoming) = &mut self.reading {
            incoming.leave(owner, pages);
        }
    }

    /// So many of the bytes that waited have been read from [`Stream::socket`].
    pub(crate) fn took(&mut self, count: usize) {
        if let Reading::Here(incoming) = &mut self.reading {
            incoming.took(count);
        }
    }

    /// Nobody will read what waits, nor anything that is to come.
    pub(crate) fn leave_nothing(&mut self) {
        if let Reading::Here(incoming) = &mut self.reading {
            incoming.leave_nothing();
        }
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

    /// Puts a frame, with the pages that follow it, behind what must leave already.
    pub(crate) fn put(&mut self, frame: &Frame<'_>, body: &[u8]) -> Result<(), Broken> {
        frame.encode(&mut self.outgoing)?;
        self.outgoing.extend_from_slice(body);
        Ok(())
    }

    /// Puts the names of pages that one of our processes waits for behind what must leave already.
    pub(crate) fn want(&mut self, owner: ObjectId, start: u64, length: u64) -> Result<(), Broken> {
        let run = FrameRun { owner: owner.0, start: start >> PAGE_SHIFT, count: (length >> PAGE_SHIFT) as u32 };
        let runs = Runs { page_shift: PAGE_SHIFT, body_checksum: None, runs: vec![run] };
        Frame::WantedPages(runs).encode(&mut self.outgoing)?;
        Ok(())
    }

    /// Puts the names of all pages that we do not have behind what must leave already; `push`: they are to come unasked.
    pub(crate) fn tell_owed(&mut self, owed: &[(ObjectId, PageSet)], push: bool) -> Result<(), Broken> {
        for (owner, pages) in owed {
            let runs: Vec<FrameRun> = crate::pump::runs_of_set(*owner, pages);
            for runs in runs.chunks(RUN_LIMIT) {
                let runs = Runs { page_shift: PAGE_SHIFT, body_checksum: None, runs: runs.to_vec() };
                Frame::OwedPages(runs).encode(&mut self.outgoing)?;
            }
        }
        if push {
            Frame::PushOwed.encode(&mut self.outgoing)?;
        }
        Ok(())
    }

    /// The same of one whose head is encoded already.
    pub(crate) fn put_ready(&mut self, head: &[u8], body: &[u8]) {
        self.outgoing.extend_from_slice(head);
        self.outgoing.extend_from_slice(body);
    }

    /// Nothing comes or goes any more, whoever has a copy of the lane's socket: the other side is told at once.
    pub(crate) fn cut(&self) {
        const BOTH_WAYS: i32 = 2;
        if let Some(socket) = self.socket() {
            // One that is gone needs no end.
            let _ = unix_socket::shut_down(socket, BOTH_WAYS);
        }
    }

    /// A frame has left half: what is said from now on waits for its rest.
    pub(crate) fn hold_back(&mut self) {
        self.held_back = true;
    }

    /// The rest of the half-sent frame (nothing, if all of it has left) goes before what was said meanwhile; behind these bytes so many
    /// zeros leave, as the rest of a frame which the other side throws away.
    pub(crate) fn finish_later(&mut self, first: &[u8], second: &[u8], zeros: usize) {
        self.held_back = false;
        self.outgoing.splice(self.gone..self.gone, first.iter().chain(second).copied());
        if zeros > 0 {
            self.owed = (self.gone + first.len() + second.len(), zeros);
        }
        self.open_gate();
    }

    /// Whether nothing waits to leave.
    pub(crate) fn is_flushed(&self) -> bool {
        self.gone == self.outgoing.len() && self.owed.1 == 0
    }

    /// Lets leave what can.
    pub(crate) fn flush(&mut self) -> Result<(), Broken> {
        static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
        if self.is_flushed() || self.held_back {
            return Ok(());
        }
        self.close_gate();
        while !self.is_flushed() && !self.held_back {
            let (at, zeros) = self.owed;
            let end = if zeros > 0 { at } else { self.outgoing.len() };
            let is_owed = self.gone == end;
            let part = if is_owed { &ZEROS[..zeros.min(ZEROS.len())] } else { &self.outgoing[self.gone..end] };
            match write(&mut self.lane.writer, &[IoSlice::new(part)])? {
                0 => return Ok(()),
                count if is_owed => {
                    self.owed.1 -= count;
                    self.sent += count as u64;
                }
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
        self.open_gate();
        Ok(())
    }

    /// Sends as much of two parts as can leave now; only when everything before has left. [`Self::finish_later`] ends the frame.
    pub(crate) fn send(&mut self, head: &[u8], body: &[u8]) -> Result<usize, Broken> {
        self.close_gate();
        let count = write(&mut self.lane.writer, &[IoSlice::new(head), IoSlice::new(body)])?;
        self.sent += count as u64;
        Ok(count)
    }

    /// Sends as much of what is in a pipe as can leave now, as it is, likewise.
    pub(crate) fn forward(&mut self, pipe: BorrowedFd<'_>, bytes: usize) -> Result<usize, Broken> {
        const EINTR: i32 = 4;
        const EAGAIN: i32 = 11;
        self.close_gate();
        loop {
            match godwit_linux::pipe::forward(pipe, self.lane.writer.as_fd(), bytes) {
                Ok(0) => return Err(Broken::Closed),
                Ok(count) => {
                    self.sent += count as u64;
                    return Ok(count);
                }
                Err(error) if error.number == EAGAIN => return Ok(0),
                Err(error) if error.number == EINTR => {}
                Err(error) => return Err(Broken::Failed(io::Error::from_raw_os_error(error.number))),
            }
        }
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
    use crate::incoming::{LEFT_BYTES_MIN, PIECE_BYTES};
    use crate::packing::{Compression, Packing};
    use crate::pump::Pump;
    use godwit_handoff::frame::STAGE_FIRST;
    use godwit_handoff::{Malformed, Message, MigrationId};
    use godwit_image::page_set::Run;
    use std::io::Read;
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
            runs: vec![FrameRun { owner, start, count }],
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
        let zeros = Runs { page_shift: 12, body_checksum: None, runs: vec![FrameRun { owner: 4, start: 1, count: 9 }] };
        Frame::ZeroPages(zeros).encode(&mut bytes).unwrap();
        let held = Runs { page_shift: 12, body_checksum: None, runs: vec![FrameRun { owner: 5, start: 1, count: 2 }] };
        Frame::HeldPages(STAGE_FIRST, held).encode(&mut bytes).unwrap();
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
                        Arrival::Held(stage, owner, ranges) => {
                            assert_eq!((stage, owner, ranges), (STAGE_FIRST, ObjectId(5), &[(4096, 2 * 4096)][..]));
                            "held"
                        }
                        other => panic!("{other:?}"),
                    });
                }
            }
            assert_eq!(seen, ["packet", "state", "pages", "zeros", "held"]);
            assert_eq!((stream.read_here().pages, stream.read_here().bytes > 8192), (13, true));
            drop(theirs);
            assert!(matches!(stream.next(), Err(Broken::Closed)));
        }
    }

    #[test]
    fn of_pages_that_come_again_what_has_changed_arrives_as_the_pages() {
        let mut pump = Pump::new(false).with(Packing::new(Compression::Always, None));
        pump.packing.begin(true, true);
        let (stage, space) = (ObjectId(STAGE_FIRST), ObjectId(5));
        // Noise.
        let noise = |index: usize| (index as u32).wrapping_mul(2_654_435_761).rotate_left(9).wrapping_mul(40_503) as u8;
        let mut body: Vec<u8> = (0..16 * 4096).map(noise).collect();
        let (mut stream, mut theirs) = pair();
        for (owner, most) in [(stage, 20 * 4096), (stage, 4096), (stage, 4096), (space, 4096)] {
            pump.packing.send_again(Some(STAGE_FIRST));
            body[4097] = body[4097].wrapping_add(1);
            let ranges = [(0x1000, 5 * 4096), (0x80_0000, 11 * 4096)];
            let frames = pump.frames(owner, &ranges, &body).unwrap();
            let mut sent = 0;
            for frame in &frames {
                let bytes = [&frame.head, frame.body(&body)].concat();
                sent += bytes.len();
                theirs.write_all(&bytes).unwrap();
            }
            assert!(frames.len() == 1 && sent < most, "{sent}");
            match stream.next().unwrap() {
                Some(Arrival::Pages(from, found, pages)) => {
                    assert!((from, found, pages) == (owner, &ranges[..], &body[..]));
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((pump.packing.delta_pages, stream.read_here()), (48, pump.totals));
    }

    #[test]
    fn packed_pages_arrive_as_they_were_and_bad_ones_end_the_lane() {
        let mut pump = Pump::new(false).with(Packing::new(Compression::Always, None));
        pump.packing.begin(true, false);
        let body: Vec<u8> = (0..PIECE_BYTES).map(|index| (index / 512) as u8).collect();
        let ranges = [(0x1000, PIECE_BYTES / 2), (0x800_0000, PIECE_BYTES / 2)];
        let frames = pump.frames(ObjectId(5), &ranges, &body).unwrap();
        assert_eq!((frames.len(), pump.packing.pages), (1, (PIECE_BYTES / 4096) as u64));
        let bytes = [&frames[0].head, frames[0].body(&body)].concat();
        assert!(bytes.len() < PIECE_BYTES / 16);
        for step in [97, 4096, bytes.len()] {
            let (mut stream, mut theirs) = pair();
            let mut seen = 0;
            for chunk in bytes.chunks(step) {
                theirs.write_all(chunk).unwrap();
                match stream.next().unwrap() {
                    Some(Arrival::Pages(owner, found, pages)) => {
                        assert_eq!((owner, found), (ObjectId(5), &ranges[..]));
                        assert!(pages == body);
                        seen += 1;
                    }
                    None => {}
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!((seen, stream.read_here()), (1, pump.totals));
        }
        let mut bad = bytes;
        let last = bad.len() - 1;
        bad[last] ^= 1;
        let (mut stream, mut theirs) = pair();
        theirs.write_all(&bad).unwrap();
        assert!(matches!(stream.next(), Err(Broken::Malformed(_))));
    }

    #[test]
    fn what_is_owed_leaves_between_the_rest_of_a_head_and_what_was_said_before() {
        let (mut stream, mut theirs) = pair();
        stream.outgoing = b"said".to_vec();
        stream.hold_back();
        stream.flush().unwrap();
        assert_eq!(stream.sent(), 0);
        stream.finish_later(b"head", b"", 100_000);
        assert!(!stream.is_flushed());
        let reader = std::thread::spawn(move || {
            let mut bytes = vec![1; 100_008];
            theirs.read_exact(&mut bytes).unwrap();
            bytes
        });
        while !stream.is_flushed() {
            stream.flush().unwrap();
        }
        let bytes = reader.join().unwrap();
        assert_eq!((&bytes[..4], &bytes[100_004..]), (&b"head"[..], &b"said"[..]));
        assert!(bytes[4..100_004].iter().all(|byte| *byte == 0));
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
    fn bytes_that_are_left_in_the_lane_are_the_next_thing_in_it() {
        let (mut stream, mut theirs) = pair();
        let count = (2 * LEFT_BYTES_MIN / 4096) as u32;
        let body: Vec<u8> = (0..2 * LEFT_BYTES_MIN).map(|index| (index % 251) as u8).collect();
        let left: PageSet = [Run { start: 16 << 12, end: (16 + u64::from(count)) << 12 }].into_iter().collect();
        stream.leave(ObjectId(3), left);
        let sent = body.clone();
        let writer = std::thread::spawn(move || {
            // Taken; not these pages; left by whom it was for.
            for start in [16, 17, 16] {
                theirs.write_all(&pages(3, start, count, &sent, false)).unwrap();
            }
        });
        let mut socket = UnixStream::from(stream.socket().unwrap().try_clone_to_owned().unwrap());
        let next = |stream: &mut Stream| loop {
            match stream.next().unwrap() {
                Some(Arrival::Waiting(_, ranges)) => return Some(ranges.to_vec()),
                Some(Arrival::Pages(_, _, bytes)) if bytes.len() == body.len() => return None,
                Some(_) => panic!("something else came"),
                None => std::thread::yield_now(),
            }
        };
        assert_eq!(next(&mut stream), Some(vec![(16 << 12, body.len())]));
        let mut taken = vec![0; 5000];
        godwit_linux::file::do_wait(socket.as_fd()).unwrap();
        socket.read_exact(&mut taken).unwrap();
        stream.took(taken.len());
        assert_eq!(next(&mut stream), Some(vec![((16 << 12) + 5000, body.len() - 5000)]));
        let mut rest = vec![0; body.len() - 5000];
        socket.read_exact(&mut rest).unwrap();
        godwit_linux::file::do_not_wait(socket.as_fd()).unwrap();
        stream.took(rest.len());
        assert_eq!([taken, rest].concat(), body);
        assert_eq!(next(&mut stream), None);
        assert!(next(&mut stream).is_some());
        stream.leave_nothing();
        loop {
            match stream.next() {
                Ok(None) => std::thread::yield_now(),
                Ok(Some(other)) => panic!("{other:?}"),
                Err(Broken::Closed) => break,
                Err(error) => panic!("{error}"),
            }
        }
        writer.join().unwrap();
        assert_eq!(stream.read_here().pages, 3 * u64::from(count));
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
