//! The pages leave: read and sent by us, piece by piece, or, where they are many, sent by the process that has them.
use super::{Driver, nothing_frozen};
use crate::pump::Pump;
use godwit_engine::capture::{Captives, SpacePages};
use godwit_engine::freeze::FrozenProcess;
use godwit_engine::outflow::{self, Outflow};
use godwit_engine::pages::Reader;
use godwit_handoff::{Action, Event};
use godwit_image::memory::PAGE_BYTES;
use godwit_image::page_set::{PageSet, Run};
use godwit_image::{Code, ObjectId, Refusal, Subject};
use godwit_linux::file;
use godwit_linux::message::{PARTS_MAX, Part};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// Bytes that are looked at, and left to be read by us, together.
const UNIT_BYTES: u64 = 1 << 20;
/// Bytes of a frame whose pages their process sends.
const FRAME_BYTES: u64 = 16 << 20;
/// Bytes of the first program: the time that it takes tells how many may follow in one.
const FIRST_BYTES: u64 = 16 << 20;
/// Bytes of a program at most.
const PROGRAM_BYTES_MAX: u64 = 128 << 20;
/// A program is to be over soon, so that the user and the other side are heard.
const PROGRAM_TIME: Duration = Duration::from_millis(50);
const EINTR: i32 = 4;
const EAGAIN: i32 = 11;

/// A frame whose pages nobody has read.
#[derive(Debug)]
struct Unread {
    head: Vec<u8>,
    ranges: Vec<(u64, usize)>,
    body: usize,
}

impl Unread {
    fn bytes(&self) -> usize {
        self.head.len() + self.body
    }

    /// Head and pages from a byte on.
    fn parts(&self, from: usize) -> impl Iterator<Item = Part<'_>> {
        let head = self.head.get(from..).filter(|rest| !rest.is_empty()).map(Part::Bytes);
        let mut skip = from.saturating_sub(self.head.len());
        head.into_iter().chain(self.ranges.iter().filter_map(move |(start, length)| {
            let skipped = skip.min(*length);
            skip -= skipped;
            (skipped < *length).then(|| Part::Memory(start + skipped as u64, length - skipped))
        }))
    }

    /// The bytes of [`Unread::parts`], read by us.
    fn read(&self, from: usize, outflow: &Outflow<'_>) -> Result<Vec<u8>, Refusal> {
        let mut bytes = Vec::with_capacity(self.bytes().saturating_sub(from));
        for part in self.parts(from) {
            match part {
                Part::Bytes(head) => bytes.extend_from_slice(head),
                Part::Memory(start, length) => {
                    let end = bytes.len();
                    bytes.resize(end + length, 0);
                    outflow.read(start, &mut bytes[end..])?;
                }
            }
        }
        Ok(bytes)
    }
}

/// Cuts the pages of a space into frames, some at a time, and keeps account of them.
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
    fn unit(&mut self) -> Option<Run> {
        let run = self.runs.get(self.next)?;
        let start = run.start + self.offset;
        let end = run.end.min(start + UNIT_BYTES);
        self.offset += end - start;
        if end == run.end {
            (self.next, self.offset) = (self.next + 1, 0);
        }
        Some(Run { start, end })
    }

    /// The next frames, of about `limit` bytes; empty at the end.
    fn frames(&mut self, outflow: &Outflow<'_>, pump: &mut Pump, limit: u64) -> Result<Vec<Unread>, Refusal> {
        let (mut frames, mut ranges): (Vec<Unread>, Vec<(u64, usize)>) = (Vec::new(), Vec::new());
        let (mut bytes, mut of_frame, mut parts) = (0, 0, 0);
        while bytes < limit && parts + 2 < PARTS_MAX {
            let Some(unit) = self.unit() else { break };
            if !outflow.looks_full(unit)? {
                continue;
            }
            self.framed.insert(unit);
            bytes += unit.bytes();
            of_frame += unit.bytes();
            match ranges.last_mut() {
                Some((start, length)) if *start + *length as u64 == unit.start => *length += unit.bytes() as usize,
                _ => {
                    ranges.push((unit.start, unit.bytes() as usize));
                    parts += 1;
                }
            }
            if of_frame >= FRAME_BYTES {
                frames.push(pump.unread(self.owner, std::mem::take(&mut ranges))?);
                (of_frame, parts) = (0, parts + 1);
            }
        }
        if !ranges.is_empty() {
            frames.push(pump.unread(self.owner, ranges)?);
        }
        Ok(frames)
    }
}

impl Pump {
    fn unread(&mut self, owner: ObjectId, ranges: Vec<(u64, usize)>) -> Result<Unread, Refusal> {
        let (head, body) = self.head_of(owner, &ranges)?;
        Ok(Unread { head, ranges, body })
    }
}

impl Driver<'_> {
    pub(super) fn send(&mut self) -> Result<(), Refusal> {
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
            let gone = self.have_sent(captives, space)?;
            let left = space.pages.difference(&gone);
            reader.space(space, &left, |owner, ranges, bytes| self.send_piece(owner, ranges, bytes))?;
        }
        Ok(())
    }

    fn send_piece(&mut self, owner: ObjectId, ranges: &[(u64, usize)], bytes: &[u8]) -> Result<(), Refusal> {
        for frame in self.pump.frames(owner, ranges, bytes)? {
            let length = frame.body.len() as u64;
            self.transmit(&frame.head, &bytes[frame.body])?;
            self.feed(Event::Moved { pages: frame.pages, bytes: length });
        }
        self.pump.done += bytes.len() as u64;
        self.tell();
        self.turn(Some(Duration::ZERO), false);
        self.go_on()
    }

    /// Has the process of a space send what it can; returns which pages have left. It needs a lane that is one socket, and nobody
    /// who wants to see the bytes.
    fn have_sent(&mut self, captives: &Captives, space: &SpacePages) -> Result<PageSet, Refusal> {
        let socket = self.stream.as_ref().filter(|_| !self.options.page_checksums).and_then(|stream| stream.socket());
        let wanted = captives.tree.space(space.space).map(|of| outflow::sendable(of, &space.pages)).unwrap_or_default();
        let (Some(socket), false) = (socket, wanted.is_empty()) else { return Ok(PageSet::new()) };
        // It is another descriptor of the same socket. Where there is none we send as ever.
        let Ok(socket) = socket.try_clone_to_owned() else { return Ok(PageSet::new()) };
        let mut frozen = self.frozen.take().ok_or_else(nothing_frozen)?;
        let of_space = |process: &&mut FrozenProcess| process.threads.iter().any(|thread| thread.tid() == space.pid);
        let result = match frozen.processes.iter_mut().find(of_space) {
            Some(process) => self.flow(process, &socket, space.space, &wanted),
            None => Ok(PageSet::new()),
        };
        self.frozen = Some(frozen);
        result
    }

    fn flow(
        &mut self,
        process: &mut FrozenProcess,
        socket: &OwnedFd,
        owner: ObjectId,
        wanted: &PageSet,
    ) -> Result<PageSet, Refusal> {
        // A process that cannot be prepared is read as ever; if it has died that says so.
        let Ok(Some(mut outflow)) = Outflow::open(process, socket.as_fd()) else { return Ok(PageSet::new()) };
        let mut cutter = Cutter { owner, runs: wanted.runs(), next: 0, offset: 0, framed: PageSet::new() };
        let result = self.pour(&mut outflow, socket, &mut cutter);
        // What has been left to it is taken back in any case; the first failure is the one that counts.
        let closed = outflow.close();
        result.and(closed).map(|()| cutter.framed)
    }

    fn pour(&mut self, outflow: &mut Outflow<'_>, socket: &OwnedFd, cutter: &mut Cutter<'_>) -> Result<(), Refusal> {
        let mut limit = FIRST_BYTES;
        let mut frames = cutter.frames(outflow, &mut self.pump, limit)?;
        while !frames.is_empty() {
            let began = Instant::now();
            let (mut next, mut gone, mut able) = (None, 0, true);
            let total: usize = frames.iter().map(Unread::bytes).sum();
            while gone < total && able {
                self.drain_unless_within(&frames, gone)?;
                let (parts, pump) = (parts(&frames, gone), &mut self.pump);
                let meanwhile = |outflow: &Outflow<'_>| {
                    next.get_or_insert_with(|| cutter.frames(outflow, pump, limit));
                };
                match run(outflow, socket, &parts, meanwhile)? {
                    Ok(count) => self.count(&frames, &mut gone, count),
                    Err(error) if matches!(error.number, EAGAIN | EINTR) => self.count(&frames, &mut gone, 0),
                    Err(_) => able = false,
                }
                self.turn(Some(Duration::ZERO), false);
                if let Err(stop) = self.go_on() {
                    // The other side must be able to read what is said then.
                    self.finish_frame(outflow, &frames, gone)?;
                    return Err(stop);
                }
            }
            if !able {
                self.send_unsent(outflow, &frames, gone)?;
            }
            limit = if began.elapsed() < PROGRAM_TIME { (limit * 2).min(PROGRAM_BYTES_MAX) } else { FIRST_BYTES };
            frames = next.unwrap_or_else(|| Ok(Vec::new()))?;
            if !able {
                // They are counted already, and the process will not send them.
                return self.send_unsent(outflow, &frames, 0);
            }
        }
        Ok(())
    }

    /// Between two frames everything that was said may leave.
    fn drain_unless_within(&mut self, frames: &[Unread], gone: usize) -> Result<(), Refusal> {
        if at(frames, gone).1 == 0 { self.drain() } else { self.go_on() }
    }

    /// Bytes have left without us.
    fn count(&mut self, frames: &[Unread], gone: &mut usize, count: usize) {
        let before = at(frames, *gone).0;
        *gone += count;
        let (now, within) = at(frames, *gone);
        if let Some(stream) = &mut self.stream {
            stream.sent += count as u64;
            // Before anything can be said.
            if within == 0 { stream.finish_later(&[], &[]) } else { stream.hold_back() }
        }
        if count > 0 {
            self.feed(Event::Moved { pages: 0, bytes: 0 });
        }
        self.count_whole(&frames[before..now]);
    }

    fn count_whole(&mut self, frames: &[Unread]) {
        for frame in frames {
            let bytes = frame.body as u64;
            self.pump.done += bytes;
            self.feed(Event::Moved { pages: bytes / PAGE_BYTES, bytes });
        }
        self.tell();
    }

    /// The rest of a frame of which a part has left goes before what was said meanwhile.
    fn finish_frame(&mut self, outflow: &Outflow<'_>, frames: &[Unread], gone: usize) -> Result<(), Refusal> {
        let (index, within) = at(frames, gone);
        let rest = match frames.get(index).filter(|_| within > 0) {
            Some(frame) => frame.read(within, outflow)?,
            None => Vec::new(),
        };
        if let Some(stream) = &mut self.stream {
            stream.finish_later(&rest, &[]);
        }
        Ok(())
    }

    /// Sends frames, from a byte on, as if they had been ours all the time.
    fn send_unsent(&mut self, outflow: &Outflow<'_>, frames: &[Unread], gone: usize) -> Result<(), Refusal> {
        let (mut index, within) = at(frames, gone);
        if within > 0 {
            self.finish_frame(outflow, frames, gone)?;
            self.drain()?;
            self.count_whole(&frames[index..=index]);
            index += 1;
        }
        for frame in &frames[index..] {
            self.transmit(&frame.read(0, outflow)?, &[])?;
            self.count_whole(std::slice::from_ref(frame));
            self.turn(Some(Duration::ZERO), false);
            self.go_on()?;
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
            let Some(stream) = &mut self.stream else { return self.go_on() };
            let (first, second) =
                if gone < head.len() { (&head[gone..], body) } else { (&body[gone - head.len()..], &[][..]) };
            match stream.send(first, second) {
                Ok(0) => {
                    stream.hold_back();
                    self.turn(None, true);
                    if let Err(stop) = self.go_on() {
                        if let Some(stream) = &mut self.stream {
                            stream.finish_later(first, second);
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
                    stream.finish_later(&[], &[]);
                }
                return Ok(());
            }
        }
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

/// Which frame the byte belongs to, and where in it.
fn at(frames: &[Unread], byte: usize) -> (usize, usize) {
    let mut rest = byte;
    for (index, frame) in frames.iter().enumerate() {
        if rest < frame.bytes() {
            return (index, rest);
        }
        rest -= frame.bytes();
    }
    (frames.len(), 0)
}

/// What a program is to send, from a byte on.
fn parts(frames: &[Unread], gone: usize) -> Vec<Part<'_>> {
    let (first, within) = at(frames, gone);
    let rest = frames.get(first..).unwrap_or_default();
    rest.iter().enumerate().flat_map(|(index, frame)| frame.parts(if index == 0 { within } else { 0 })).collect()
}

/// One program: how many bytes have left, or why none. The socket waits as long as it runs, so nobody else may use it meanwhile.
fn run(
    outflow: &mut Outflow<'_>,
    socket: &OwnedFd,
    parts: &[Part<'_>],
    meanwhile: impl FnOnce(&Outflow<'_>),
) -> Result<Result<usize, godwit_linux::Errno>, Refusal> {
    let subject =
        || Refusal::new(Code::KERNEL_CALL, Subject::Object("link".to_owned()), "its socket cannot be changed");
    file::do_wait(socket.as_fd()).map_err(|_| subject())?;
    let result = outflow.start(parts).and_then(|()| {
        meanwhile(outflow);
        while !outflow.wait()? {}
        outflow.finish()
    });
    file::do_not_wait(socket.as_fd()).map_err(|_| subject())?;
    result
}
