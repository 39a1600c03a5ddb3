//! The state leaves, and the pages: read and sent by us, piece by piece, or, where they are many, handed to the socket by the process that
//! has them.
use super::{Driver, nothing_frozen};
use crate::packing;
use crate::pump::{PartSort, Pump, STATE_PIECE};
use crate::stream::{Broken, Stream};
use godwit_engine::capture::{Captives, SpacePages};
use godwit_engine::freeze::FrozenProcess;
use godwit_engine::outflow::{self, Outflow, PIECE_BYTES, PIECES_MAX, Piece};
use godwit_engine::pages::Reader;
use godwit_handoff::bucket::Bucket;
use godwit_handoff::{Action, Event};
use godwit_image::memory::PAGE_BYTES;
use godwit_image::page_set::{PageSet, Run};
use godwit_image::tree::Part;
use godwit_image::{Code, ObjectId, Refusal, Subject};
use std::ops::Range;
use std::time::{Duration, Instant};

/// Bytes of the first frame whose pages their process hands over, and of others where the link is slow: a frame that was begun has
/// to be ended before anything else is said.
const FRAME_BYTES: usize = 8 << 20;
/// Bytes of one at most, as the other side takes it. It wakes its task for each.
const FRAME_BYTES_MAX: usize = 64 << 20;
/// A frame that has left in less may be followed by a larger one.
const FRAME_TIME: Duration = Duration::from_millis(50);

/// So many frames one after another that took longer are a slow link, and no mishap.
const SLOW_FRAMES: u32 = 2;

/// A frame whose pages nobody has read.
#[derive(Debug)]
struct Unread {
    head: Vec<u8>,
    pieces: Vec<Piece>,
}

/// Ranges in parts of at most `limit` bytes (at least a page), each with where its bytes are.
fn cut(ranges: &[(u64, usize)], limit: usize) -> Vec<(Piece, Range<usize>)> {
    let limit = (limit / PAGE_BYTES as usize).max(1) * PAGE_BYTES as usize;
    let mut parts: Vec<(Piece, Range<usize>)> = Vec::new();
    let mut offset = 0;
    for (start, length) in ranges {
        let mut done = 0;
        while done < *length {
            let room = parts.last().map_or(0, |(_, bytes)| limit - bytes.len());
            let part = (*length - done).min(if room == 0 { limit } else { room });
            let range = (start + done as u64, part);
            match parts.last_mut().filter(|_| room > 0) {
                Some((ranges, bytes)) => {
                    ranges.push(range);
                    bytes.end += part;
                }
                None => parts.push((vec![range], offset..offset + part)),
            }
            (done, offset) = (done + part, offset + part);
        }
    }
    parts
}

fn bytes_of(piece: &Piece) -> usize {
    piece.iter().map(|(_, length)| length).sum()
}

impl Unread {
    fn bytes(&self) -> usize {
        self.head.len() + self.pieces.iter().map(bytes_of).sum::<usize>()
    }
}

/// The bytes of a piece, from one of them on, read by us.
fn read(outflow: &Outflow<'_>, piece: &Piece, from: usize) -> Result<Vec<u8>, Refusal> {
    let mut bytes = vec![0; bytes_of(piece)];
    let mut end = 0;
    for (start, length) in piece {
        outflow.read(*start, &mut bytes[end..end + length])?;
        end += length;
    }
    bytes.drain(..from);
    Ok(bytes)
}

/// Cuts the pages of a space into frames, one at a time, and keeps account of them.
#[derive(Debug)]
struct Cutter<'a> {
    owner: ObjectId,
    runs: &'a [Run],
    next: usize,
    /// Bytes of `runs[next]` that are dealt with.
    offset: u64,
    /// What is in frames.
    framed: PageSet,
}

impl Cutter<'_> {
    /// The next range that is looked at, and left to be read by us, as one.
    fn unit(&mut self) -> Option<Run> {
        let run = self.runs.get(self.next)?;
        let start = run.start + self.offset;
        let end = run.end.min(start + PIECE_BYTES as u64);
        self.offset += end - start;
        if end == run.end {
            (self.next, self.offset) = (self.next + 1, 0);
        }
        Some(Run { start, end })
    }

    /// The next frame, of at most `limit` bytes; `None` at the end.
    fn frame(&mut self, outflow: &Outflow<'_>, pump: &mut Pump, limit: usize) -> Result<Option<Unread>, Refusal> {
        let (mut pieces, mut bytes): (Vec<Piece>, usize) = (Vec::new(), 0);
        while bytes + PIECE_BYTES <= limit {
            let Some(unit) = self.unit() else { break };
            if !outflow.looks_full(unit)? {
                continue;
            }
            self.framed.insert(unit);
            let length = unit.bytes() as usize;
            bytes += length;
            match pieces.last_mut().filter(|piece| bytes_of(piece) + length <= PIECE_BYTES) {
                Some(piece) => piece.push((unit.start, length)),
                None => pieces.push(vec![(unit.start, length)]),
            }
        }
        if pieces.is_empty() {
            return Ok(None);
        }
        let head = pump.head_of(self.owner, &pieces.concat())?;
        Ok(Some(Unread { head, pieces }))
    }
}

impl Driver<'_> {
    /// Sends a part of the state.
    pub(super) fn send_part(&mut self, sort: PartSort, part: Option<&Part<'_>>) -> Result<(), Refusal> {
        let piece = self.frame_limit().min(STATE_PIECE);
        let takes_packed = self.machine.peer().is_some_and(|peer| peer.capabilities.has(packing::STATE_CAPABILITY));
        self.pump.packing.allow_state(takes_packed);
        for piece in self.pump.part(sort, part)?.chunks(piece) {
            let frame = self.pump.state_frame(piece)?;
            self.transmit(&frame, &[])?;
        }
        Ok(())
    }

    /// Before a while of sending: what may be packed for the other side.
    pub(super) fn begin_packing(&mut self) {
        let allowed = |name| self.machine.peer().is_some_and(|peer| peer.capabilities.has(name));
        self.pump.packing.begin(allowed(packing::CAPABILITY), allowed(packing::DELTA_CAPABILITY));
    }

    pub(super) fn send(&mut self) -> Result<(), Refusal> {
        self.begin_packing();
        let captives = self.captives.take().ok_or_else(nothing_frozen)?;
        let result = self.send_all(&captives);
        self.captives = Some(captives);
        self.report.pages_sent = self.pump.pages_sent;
        result
    }

    /// Contents first, as [`godwit_engine::pages::read`] has them.
    fn send_all(&mut self, captives: &Captives) -> Result<(), Refusal> {
        let mut reader = Reader::default();
        for content in &captives.contents {
            reader.content(content, |owner, ranges, bytes| self.send_piece(owner, ranges, bytes))?;
        }
        for space in &captives.spaces {
            self.confirm(space.space)?;
            let gone = self.have_sent(captives, space)?;
            let left = space.pages.difference(&gone);
            self.pump.packing.send_again(self.stages.get(&space.space).copied());
            reader.space(space, &left, |owner, ranges, bytes| self.send_piece(owner, ranges, bytes))?;
        }
        self.pump.packing.send_again(None);
        Ok(())
    }

    pub(super) fn send_piece(&mut self, owner: ObjectId, ranges: &[(u64, usize)], bytes: &[u8]) -> Result<(), Refusal> {
        for (ranges, part) in cut(ranges, self.frame_limit()) {
            let bytes = &bytes[part];
            for frame in self.pump.frames(owner, &ranges, bytes)? {
                let length = frame.body(bytes).len() as u64;
                let body = frame.body(bytes);
                self.transmit(&frame.head, body)?;
                self.feed(Event::Moved { pages: frame.pages, bytes: length });
            }
        }
        self.pump.done += bytes.len() as u64;
        self.tell();
        self.turn(Some(Duration::ZERO), false);
        self.go_on()
    }

    /// Has the process of a space hand over what it can; returns which pages have left. It needs a lane that is one socket, and
    /// nobody who wants to see the bytes or to count them.
    fn have_sent(&mut self, captives: &Captives, space: &SpacePages) -> Result<PageSet, Refusal> {
        let is_direct = self.stream.as_ref().is_some_and(|stream| stream.socket().is_some());
        let wanted = captives.tree.space(space.space).map(|of| outflow::sendable(of, &space.pages)).unwrap_or_default();
        if self.options.page_checksums
            || self.bucket.is_some()
            || self.pump.packing.is_certain()
            || !is_direct
            || wanted.is_empty()
        {
            return Ok(PageSet::new());
        }
        let mut frozen = self.frozen.take().ok_or_else(nothing_frozen)?;
        let of_space = |process: &FrozenProcess| process.threads.iter().any(|thread| thread.tid() == space.pid);
        let result = match frozen.processes.iter().position(of_space) {
            Some(index) => {
                let full = frozen.take_full(index);
                self.flow((&mut frozen.processes[index], full), space.space, &wanted)
            }
            None => Ok(PageSet::new()),
        };
        self.frozen = Some(frozen);
        result
    }

    /// `full`: what of the process looked full before the freeze.
    fn flow(
        &mut self,
        (process, full): (&mut FrozenProcess, PageSet),
        owner: ObjectId,
        wanted: &PageSet,
    ) -> Result<PageSet, Refusal> {
        // A process that cannot be prepared is read as ever; if it has died that says so.
        let Ok(Some(mut outflow)) = Outflow::open(process, full) else { return Ok(PageSet::new()) };
        let mut cutter = Cutter { owner, runs: wanted.runs(), next: 0, offset: 0, framed: PageSet::new() };
        let result = self.pour(&mut outflow, &mut cutter);
        // What has been left to it is taken back in any case; the first failure is the one that counts.
        let closed = outflow.close();
        result.and(closed).map(|()| cutter.framed)
    }

    fn pour(&mut self, outflow: &mut Outflow<'_>, cutter: &mut Cutter<'_>) -> Result<(), Refusal> {
        let (mut limit, mut slow) = (FRAME_BYTES, 0);
        while let Some(frame) = cutter.frame(outflow, &mut self.pump, limit)? {
            // Between two frames everything that was said may leave.
            self.drain()?;
            let (mut gone, begin) = (0, Instant::now());
            let result = self.pour_frame(outflow, &frame, &mut gone);
            if let Some(stream) = &mut self.stream {
                // The other side must be able to read what is said when sending was ended within a frame. It throws that frame away.
                let cut = if result.is_err() && gone > 0 { frame.bytes() - gone } else { 0 };
                let head = if cut > 0 { frame.head.get(gone..).unwrap_or_default() } else { &[] };
                stream.finish_later(head, &[], cut - head.len());
            }
            result?;
            let took = begin.elapsed();
            limit = if took < FRAME_TIME { (limit * 2).min(FRAME_BYTES_MAX) } else { FRAME_BYTES };
            slow = if took < FRAME_TIME { 0 } else { slow + 1 };
            if slow >= SLOW_FRAMES {
                // The rest may be better off in our hands.
                self.pump.packing.carried(gone as u64, took);
                if self.pump.packing.wants() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn pour_frame(&mut self, outflow: &mut Outflow<'_>, frame: &Unread, gone: &mut usize) -> Result<(), Refusal> {
        self.push(gone, frame.head.len(), |stream, at| stream.send(&frame.head[at..], &[]))?;
        let mut end = frame.head.len();
        for batch in frame.pieces.chunks(PIECES_MAX) {
            let filled = outflow.fill(batch)?;
            for (number, (piece, count)) in batch.iter().zip(filled).enumerate() {
                let (begin, bytes) = (end, bytes_of(piece));
                end += bytes;
                let count = count.min(bytes);
                if let Some(pipe) = outflow.pipe(number) {
                    self.push(gone, begin + count, |stream, at| stream.forward(pipe, begin + count - at))?;
                }
                if *gone < end {
                    let rest = read(outflow, piece, *gone - begin)?;
                    self.push(gone, end, |stream, at| stream.send(&rest[rest.len() - (end - at)..], &[]))?;
                }
                self.pump.done += bytes as u64;
                self.feed(Event::Moved { pages: bytes as u64 / PAGE_BYTES, bytes: bytes as u64 });
                self.tell();
                self.turn(Some(Duration::ZERO), false);
                self.go_on()?;
            }
        }
        Ok(())
    }

    /// Lets bytes of a frame leave up to `end`, of which `gone` have; waits where there is no room.
    fn push(
        &mut self,
        gone: &mut usize,
        end: usize,
        send: impl Fn(&mut Stream, usize) -> Result<usize, Broken>,
    ) -> Result<(), Refusal> {
        while *gone < end {
            let Some(stream) = &mut self.stream else { return self.go_on() };
            // Nothing else may leave within the frame.
            stream.hold_back();
            match send(stream, *gone) {
                Ok(0) => {
                    self.turn(None, true);
                    self.go_on()?;
                }
                Ok(count) => *gone += count,
                Err(error) => {
                    self.lose_link(&error);
                    self.go_on()?;
                }
            }
        }
        Ok(())
    }

    /// An error when the machine wants no more to be sent.
    pub(super) fn go_on(&self) -> Result<(), Refusal> {
        let stop = self.queue.iter().any(Action::interrupts) || self.stream.is_none();
        if stop { Err(Refusal::new(Code::CANCELLED, Subject::Process(self.pid), "sending was ended")) } else { Ok(()) }
    }

    /// Sends a frame behind everything that was said before. When the machine wants no more to be sent, the rest of this frame
    /// still leaves, behind the undo: the other side must be able to read what is said then.
    pub(super) fn transmit(&mut self, head: &[u8], body: &[u8]) -> Result<(), Refusal> {
        self.drain()?;
        let mut gone = 0;
        loop {
            let allowed = self.allowance();
            let Some(stream) = &mut self.stream else { return self.go_on() };
            let (first, second) =
                if gone < head.len() { (&head[gone..], body) } else { (&body[gone - head.len()..], &[][..]) };
            let now = allowed.min(first.len());
            let sent = match allowed {
                0 => Ok(0),
                _ => stream.send(&first[..now], &second[..second.len().min(allowed - now)]),
            };
            match sent {
                Ok(0) => {
                    stream.hold_back();
                    if allowed > 0 {
                        self.pump.packing.blocked(self.sent_before + stream.sent());
                    }
                    match &mut self.bucket {
                        Some(bucket) if allowed == 0 => {
                            let pause = bucket.pause(self.clock.now());
                            self.turn(Some(pause.into()), false);
                        }
                        _ => self.turn(None, true),
                    }
                    // Whoever waits for a page does not wait for this frame.
                    self.serve_lane();
                    if let Err(stop) = self.go_on() {
                        if let Some(stream) = &mut self.stream {
                            stream.finish_later(first, second, 0);
                        }
                        return Err(stop);
                    }
                }
                Ok(count) => gone += count,
                Err(error) => {
                    self.lose_link(&error);
                    return self.go_on();
                }
            }
            if gone == head.len() + body.len() {
                if let Some(stream) = &mut self.stream {
                    stream.finish_later(&[], &[], 0);
                }
                return Ok(());
            }
        }
    }

    /// How many bytes may leave now.
    fn allowance(&mut self) -> usize {
        let sent = self.sent_before + self.stream.as_ref().map_or(0, |stream| stream.sent());
        let Some(bucket) = &mut self.bucket else { return usize::MAX };
        let now = self.clock.now();
        bucket.take(sent - self.paid, now);
        self.paid = sent;
        usize::try_from(bucket.allowance(now)).unwrap_or(usize::MAX)
    }

    /// How long nothing may leave, if that is so now.
    pub(super) fn pause_of_bucket(&mut self) -> Option<Duration> {
        if self.allowance() > 0 {
            return None;
        }
        let now = self.clock.now();
        self.bucket.as_mut().map(|bucket| bucket.pause(now).into())
    }

    /// Most bytes of one frame.
    pub(super) fn frame_limit(&self) -> usize {
        self.bucket.as_ref().map_or(usize::MAX, Bucket::frame_bytes)
    }

    /// Waits until everything has left.
    fn drain(&mut self) -> Result<(), Refusal> {
        while self.stream.as_ref().is_some_and(|stream| !stream.is_flushed()) {
            self.turn(None, true);
            self.go_on()?;
        }
        self.go_on()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_in_one_part_and_no_part_is_too_long() {
        const PAGE: usize = PAGE_BYTES as usize;
        let ranges = [(0x1000, 3 * PAGE), (0x9000, PAGE), (0x20_000, 8 * PAGE)];
        for limit in [0, 1, PAGE, 2 * PAGE, 5 * PAGE + 7, 11 * PAGE, 12 * PAGE, usize::MAX] {
            let parts = cut(&ranges, limit);
            let mut end = 0;
            for (ranges, bytes) in &parts {
                assert_eq!(bytes.start, end);
                end = bytes.end;
                assert_eq!(ranges.iter().map(|(_, length)| length).sum::<usize>(), bytes.len());
                assert!(bytes.len() <= limit.max(PAGE) && !bytes.is_empty());
            }
            assert_eq!(end, 12 * PAGE);
            let pages = |ranges: &[(u64, usize)]| -> PageSet {
                ranges.iter().map(|(start, length)| Run { start: *start, end: start + *length as u64 }).collect()
            };
            let all: Vec<(u64, usize)> = parts.into_iter().flat_map(|(ranges, _)| ranges).collect();
            assert_eq!(pages(&all), pages(&ranges), "{limit}");
        }
        assert!(cut(&[], 5).is_empty());
    }
}
