//! The page server: after the commit the source's stopped tree is where the destination gets its missing pages from. What a process
//! waits for goes first, page by page; between two such pages what is left is pushed, if the strategy says so.
use super::Driver;
use crate::stream::Stream;
use godwit_engine::capture::Captives;
use godwit_engine::owed::{self, Owed, Server};
use godwit_handoff::{Deed, Event};
use godwit_image::memory::PAGE_BYTES;
use godwit_image::page_set::PageSet;
use godwit_image::{Code, ObjectId, Refusal, Subject};
use godwit_linux::socket;
use godwit_strategy::Row;
use std::collections::VecDeque;
use std::time::Duration;

/// Bytes that are pushed at once: whoever waits for a page waits for these.
const PUSH_BYTES: usize = 128 << 10;
/// Bytes that may wait in the socket, for the same reason.
const UNSENT_BYTES: i32 = 128 << 10;
const IPPROTO_TCP: i32 = 6;
const TCP_NOTSENT_LOWAT: i32 = 25;

type Ranges = Vec<(u64, usize)>;

/// How the serving stands.
#[derive(Debug, Default)]
pub(super) struct Serving {
    server: Option<Server>,
    /// What is left is sent without being asked for.
    pub(super) pushes: bool,
    active: bool,
    /// What was asked for, in this order.
    asked: VecDeque<(ObjectId, Ranges)>,
    /// What the other side says it does not have.
    owed: Vec<(ObjectId, Ranges)>,
}

impl Serving {
    pub(super) fn ask(&mut self, owner: ObjectId, ranges: &[(u64, usize)]) {
        self.asked.push_back((owner, ranges.to_vec()));
    }

    pub(super) fn owe(&mut self, owner: ObjectId, ranges: &[(u64, usize)]) {
        self.owed.push((owner, ranges.to_vec()));
    }

    /// From now on nothing waits to be asked for.
    pub(super) fn push_all(&mut self) {
        self.pushes = true;
    }

    /// What was asked for first.
    fn next_asked(&mut self) -> Option<(ObjectId, Ranges)> {
        let server = self.server.as_mut()?;
        for (owner, ranges) in self.owed.drain(..) {
            server.want(owner, &ranges);
        }
        while let Some((owner, ranges)) = self.asked.pop_front() {
            let taken: Ranges =
                ranges.iter().flat_map(|(start, length)| server.take(owner, *start, *length as u64)).collect();
            // What is not here any more is on its way.
            if !taken.is_empty() {
                return Some((owner, taken));
            }
        }
        None
    }

    /// What nobody has asked for.
    fn next_pushed(&mut self) -> Option<(ObjectId, Ranges)> {
        self.server.as_mut().filter(|_| self.pushes)?.take_next(PUSH_BYTES)
    }
}

impl Driver<'_> {
    /// Takes out of what is captured what the strategy leaves here.
    pub(super) fn leave_behind(&mut self, captives: &mut Captives) {
        if self.leaves {
            let owed = owed::leave_behind(captives);
            if self.row.as_ref().is_some_and(Row::needs_store) {
                self.flushing.begin(&owed);
            }
            self.details.owed = owed.iter().map(|one| (one.owner.0, one.pid)).collect();
            self.serving.server = (!owed.is_empty()).then(|| Server::new(&owed));
        }
    }

    pub(super) fn begin_serving(&mut self) -> Result<(), Refusal> {
        // Over the first link it is known what the other side has. Over another one it says what it has not.
        if self.serving.active || self.serving.server.is_none() {
            let owner = |(owner, pid): &(u32, i32)| Owed { owner: ObjectId(*owner), pid: *pid, pages: PageSet::new() };
            let owed: Vec<Owed> = self.details.owed.iter().map(owner).collect();
            self.serving.server = Some(Server::new(&owed));
            self.serving.asked.clear();
        }
        if self.details.owed.is_empty() {
            let cause = "the destination waits for pages, and none were kept here";
            return Err(Refusal::new(Code::UNSUPPORTED, Subject::Process(self.pid), cause));
        }
        self.serving.active = true;
        self.flushing.untold();
        if let Some(socket) = self.stream.as_ref().and_then(Stream::socket) {
            // Of what only costs time nothing is said.
            let _ = socket::set(socket, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &UNSENT_BYTES.to_ne_bytes());
        }
        Ok(())
    }

    /// Gives what is wanted most; false if nothing is.
    pub(super) fn serve_some(&mut self) -> bool {
        if !self.serving.active || !self.machine.is_serving() || self.stream.is_none() {
            return false;
        }
        if self.serve_asked() {
            return true;
        }
        let Some((owner, ranges)) = self.serving.next_pushed() else { return false };
        self.report.pages_pushed += self.serve(owner, &ranges);
        true
    }

    /// Gives what was asked for first; false if nothing was.
    pub(super) fn serve_asked(&mut self) -> bool {
        let Some((owner, ranges)) = self.serving.next_asked() else { return false };
        self.report.pages_demanded += self.serve(owner, &ranges);
        self.flushing.given(owner, &ranges);
        true
    }

    /// Returns how many pages that are.
    fn serve(&mut self, owner: ObjectId, ranges: &[(u64, usize)]) -> u64 {
        if let Err(refusal) = self.give(owner, ranges)
            && refusal.code != Code::CANCELLED
        {
            self.serving.active = false;
            self.feed(Event::Failed { deed: Deed::Serve, refusal: crate::report::opaque(&refusal) });
        }
        self.tell();
        self.turn(Some(Duration::ZERO), false);
        ranges.iter().map(|(_, length)| *length as u64).sum::<u64>() / PAGE_BYTES
    }

    fn give(&mut self, owner: ObjectId, ranges: &[(u64, usize)]) -> Result<(), Refusal> {
        let Some(mut server) = self.serving.server.take() else { return Ok(()) };
        let result = self.give_read(owner, ranges, &mut server);
        self.serving.server = Some(server);
        result
    }

    fn give_read(&mut self, owner: ObjectId, ranges: &[(u64, usize)], server: &mut Server) -> Result<(), Refusal> {
        let bytes = server.read(owner, ranges)?;
        for frame in self.pump.frames(owner, ranges, bytes)? {
            self.transmit(&frame.head, &bytes[frame.body])?;
        }
        self.pump.done += bytes.len() as u64;
        self.report.pages_sent = self.pump.pages_sent;
        Ok(())
    }
}
