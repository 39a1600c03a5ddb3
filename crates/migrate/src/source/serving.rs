//! The page server: after the commit the source's stopped tree is where the destination gets its missing pages from. What a process
//! waits for goes first, page by page, over a connection of its own where there is one (`fault_lane`); between two such pages what is
//! left is pushed, if the strategy says so.
use super::Driver;
use super::fault_lane::FaultLane;
use super::restraint::{Restraint, Room};
use crate::residual::Note;
use crate::stream::Stream;
use godwit_engine::capture::Captives;
use godwit_engine::owed::{self, Owed, Server};
use godwit_handoff::frame::STAGE_FIRST;
use godwit_handoff::{Deed, Event, Side};
use godwit_image::memory::PAGE_BYTES;
use godwit_image::page_set::PageSet;
use godwit_image::{Code, ObjectId, Refusal, Subject};
use godwit_linux::poll::Readiness;
use godwit_linux::scheduling::{Heirs, Urgency};
use godwit_linux::{socket, tcp};
use godwit_strategy::Row;
use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

/// Bytes that are pushed at once: whoever waits for a page waits for these, in the link where faults have no lane of their own.
const PUSH_BYTES: usize = 128 << 10;
/// The same where they have one, and nobody has asked for a page for a while.
const PUSH_BYTES_ALONE: usize = 512 << 10;
const WHILE: Duration = Duration::from_micros(500);
/// So long nothing is pushed while they are to have one and have it not yet. What is pushed lies unread at the other side as long as that is
/// busy with placing, where nobody sees it: with MiB of it, and new memory that is slow to come, the first faults took 10 to 60 ms.
const LANE_PATIENCE: Duration = Duration::from_millis(100);
/// Between two looks at whether it stands.
const LANE_PAUSE: Duration = Duration::from_millis(1);
/// Bytes that may wait in the socket, for the same reason.
const UNSENT_BYTES: i32 = 128 << 10;
/// Behind a page that was asked for another one is asked for soon: so long it is awaited awake.
const AWAKE: Duration = Duration::from_micros(100);
/// So long we come before others: who waited for a page waits for the next one soon. What nobody waits for is pushed by whoever has
/// a processor to spare.
const URGENT: Duration = Duration::from_millis(1);
const IPPROTO_TCP: i32 = 6;
const TCP_NOTSENT_LOWAT: i32 = 25;

pub(super) type Ranges = Vec<(u64, usize)>;

/// How the serving stands.
#[derive(Debug, Default)]
pub(super) struct Serving {
    pub(super) server: Option<Server>,
    pub(super) active: bool,
    /// What was asked for, in this order.
    asked: VecDeque<(ObjectId, Ranges)>,
    /// How often the other side has said that it has given back what was stale.
    stale_heard: u64,
    /// What the other side says it does not have.
    owed: Vec<(ObjectId, Ranges)>,
    /// It wants all of it, or the user wants an end: what depends on this host is to leave it, and only then do we.
    wants_all: bool,
    /// The connection for what is asked for.
    pub(super) lane: FaultLane,
    /// For the user: what is left.
    note: Option<Note>,
    /// For what is pushed.
    buffer: Vec<u8>,
    /// A page may leave twice: pushed, and to whoever waits for it.
    repeats: bool,
    /// When a page left that was asked for.
    answered: Option<Instant>,
    /// Since when it has been awaited.
    lane_begun: Option<Instant>,
    /// How much of what is pushed may be on its way.
    restraint: Restraint,
    /// The same until faults have their lane.
    first_restraint: Option<Restraint>,
    /// Until it may be pushed again.
    pub(super) pause: Option<Duration>,
    /// As long as somebody may wait for us.
    urgency: Option<Urgency>,
}

impl Serving {
    pub(super) fn ask(&mut self, owner: ObjectId, ranges: &[(u64, usize)]) {
        self.asked.push_back((owner, ranges.to_vec()));
    }

    /// The other side names pages that it does not have; of a stage: some that it was told to be stale, and has given back.
    pub(super) fn owe(&mut self, owner: ObjectId, ranges: &[(u64, usize)]) {
        if owner.0 >= STAGE_FIRST {
            self.stale_heard += 1;
        } else {
            self.owed.push((owner, ranges.to_vec()));
        }
    }

    /// How many frames of stale pages the other side has done with.
    pub(super) fn stale_heard(&self) -> u64 {
        self.stale_heard
    }

    pub(super) fn push_all(&mut self) {
        self.wants_all = true;
    }

    /// What was said over the link counts no more, nor does what left over it.
    pub(super) fn lose_link(&mut self) {
        self.asked.clear();
        self.owed.clear();
        self.lane.end();
        // Another link carries what it carries.
        (self.restraint, self.first_restraint, self.lane_begun) = (Restraint::default(), None, None);
    }

    /// What to wait for besides the link.
    pub(super) fn interest(&self) -> Option<(BorrowedFd<'_>, Readiness)> {
        self.lane.interest()
    }

    /// A page has left that was asked for.
    pub(super) fn has_answered(&mut self) {
        self.answered = Some(Instant::now());
    }

    /// How long to wait awake.
    pub(super) fn awake(&self) -> Duration {
        self.answered
            .filter(|_| self.active)
            .map_or(Duration::ZERO, |answered| AWAKE.saturating_sub(answered.elapsed()))
    }

    /// Comes before others as long as somebody may wait for us.
    fn hurry(&mut self) {
        let waits = !self.asked.is_empty() || self.answered.is_some_and(|answered| answered.elapsed() < URGENT);
        if let Some(urgency) = &mut self.urgency {
            urgency.come_first(waits);
        }
    }

    /// Takes in what was said of what is owed.
    fn update(&mut self) {
        let Some(server) = &mut self.server else { return };
        for (owner, ranges) in self.owed.drain(..) {
            server.want(owner, &ranges);
        }
        if std::mem::take(&mut self.wants_all) {
            server.push_all();
        }
    }

    /// What was asked for and is to be sent next. `overtakes`: it will be there before what was pushed.
    pub(super) fn next_asked(&mut self, overtakes: bool) -> Option<(ObjectId, Ranges)> {
        if !self.active {
            return None;
        }
        self.update();
        let server = self.server.as_mut()?;
        while let Some((owner, ranges)) = self.asked.pop_front() {
            let taken: Ranges =
                ranges.iter().flat_map(|(start, length)| server.take(owner, *start, *length as u64)).collect();
            // What is not here any more is on its way.
            if !taken.is_empty() {
                return Some((owner, taken));
            }
            if let [(start, length)] = ranges[..]
                && overtakes
                && self.repeats
                && server.is_pushed(owner, start, length as u64)
            {
                return Some((owner, ranges));
            }
        }
        None
    }

    fn push_bytes(&self) -> usize {
        let is_alone =
            matches!(self.lane, FaultLane::Open(_)) && self.answered.is_none_or(|answered| answered.elapsed() > WHILE);
        if is_alone { PUSH_BYTES_ALONE } else { PUSH_BYTES }
    }

    /// How much may be pushed now, of what has left so far.
    fn room(&mut self, stream: &Stream) -> Option<usize> {
        let now = Instant::now();
        if self.lane.is_coming() && now - *self.lane_begun.get_or_insert(now) < LANE_PATIENCE {
            // Its end is heard of at once.
            self.pause = Some(LANE_PAUSE);
            return None;
        }
        let limit = self.push_bytes();
        let socket = stream.socket().filter(|_| !matches!(self.lane, FaultLane::Closed));
        // Of what only costs time nothing is said.
        let Some(advance) = socket.and_then(|socket| tcp::advance(socket).ok()) else { return Some(limit) };
        let under_way = stream.sent().saturating_sub(advance.acknowledged);
        let is_needed = |answered| self.restraint.is_needed(now - answered, under_way);
        // Until faults have a lane of their own they wait behind whatever has left.
        if matches!(self.lane, FaultLane::Open(_)) && !self.answered.is_some_and(is_needed) {
            return Some(limit);
        }
        let restraint = match self.lane {
            FaultLane::Open(_) => &mut self.restraint,
            _ => self.first_restraint.get_or_insert_with(|| Restraint::of(&advance)),
        };
        match restraint.room(now, stream.sent(), &advance) {
            Room::Bytes(bytes) => {
                let pages = usize::try_from(bytes).unwrap_or(usize::MAX) / PAGE_BYTES as usize;
                Some(limit.min(pages.max(1).saturating_mul(PAGE_BYTES as usize)))
            }
            Room::After(pause) => {
                self.pause = Some(pause);
                None
            }
        }
    }

    /// What is to be sent next without being asked for.
    fn next_pushed(&mut self, limit: usize) -> Option<(ObjectId, Ranges)> {
        self.update();
        self.server.as_mut()?.take_next(limit)
    }
}

impl Driver<'_> {
    /// Takes out of what is captured what the strategy leaves here.
    pub(super) fn leave_behind(&mut self, captives: &mut Captives, mut pushed: Vec<(ObjectId, PageSet)>) {
        if self.leaves {
            let mut owed = owed::leave_behind(captives);
            if self.row.as_ref().is_some_and(Row::needs_store) {
                self.flushing.begin(&owed);
            }
            for one in &mut owed {
                let of_space = pushed.iter_mut().find(|(space, _)| *space == one.owner);
                one.pushed =
                    of_space.map(|(_, pages)| std::mem::take(pages).intersection(&one.pages)).unwrap_or_default();
            }
            self.details.owed = owed.iter().map(|one| (one.owner.0, one.pid)).collect();
            // Whoever waits for it can do next to nothing.
            let bytes = captives.tree.later.as_ref().map_or(0, |later| later.bytes);
            owed.splice(..0, self.communication_owed(bytes));
            self.serving.server = (!owed.is_empty()).then(|| Server::new(&owed));
            // What left in the preparation already is not to leave a third time.
            self.serving.repeats = self.row.as_ref().is_some_and(|row| !row.builds_on_preparation());
        }
    }

    pub(super) fn begin_serving(&mut self) -> Result<(), Refusal> {
        if self.details.owed.is_empty() && self.details.communication.is_none() {
            let cause = "the destination waits for pages, and none were kept here";
            return Err(Refusal::new(Code::UNSUPPORTED, Subject::Process(self.pid), cause));
        }
        let communication = self.communication_owed(0);
        // Over the first link it is known what the other side has. Over another one it says what it has not.
        match &mut self.serving.server {
            Some(server) if self.serving.active => server.forget(),
            Some(_) => {}
            none => {
                let owner = |(owner, pid): &(u32, i32)| Owed::unknown(ObjectId(*owner), *pid);
                let owed: Vec<Owed> = communication.into_iter().chain(self.details.owed.iter().map(owner)).collect();
                *none = Some(Server::new(&owed));
            }
        }
        self.serving.active = true;
        self.serving.urgency = self.serving.urgency.take().or_else(|| Urgency::begin(Heirs::All));
        // Whoever wanted an end before, and was too late to have the tree back, wants this one.
        if self.cancelled {
            self.serving.push_all();
        }
        let note = || Note::new(&self.options.run_directory, self.machine.migration(), Side::Source);
        self.serving.note.get_or_insert_with(note);
        self.flushing.untold();
        if let Some(socket) = self.stream.as_ref().and_then(Stream::socket) {
            // Of what only costs time nothing is said.
            let _ = socket::set(socket, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &UNSENT_BYTES.to_ne_bytes());
            self.serving.lane.begin(self.transport.name());
        }
        Ok(())
    }

    fn serves(&self) -> bool {
        self.serving.active && self.machine.is_serving() && self.stream.is_some()
    }

    /// Gives what is wanted most; false if nothing is.
    pub(super) fn serve_some(&mut self) -> bool {
        if !self.serves() {
            return false;
        }
        if let (Some(note), Some(server)) = (&mut self.serving.note, &self.serving.server) {
            note.write(server.left());
        }
        self.serving.hurry();
        if self.serve_asked() {
            return true;
        }
        self.serving.pause = None;
        let Some(limit) = self.stream.as_ref().and_then(|stream| self.serving.room(stream)) else { return false };
        let Some((owner, ranges)) = self.serving.next_pushed(limit) else { return false };
        let pages = self.serve(owner, &ranges);
        self.report.pages_pushed += if self.is_communication(owner) { 0 } else { pages };
        true
    }

    /// Gives what was asked for first; false if nothing was.
    pub(super) fn serve_asked(&mut self) -> bool {
        self.serve_lane();
        let Some((owner, ranges)) = self.serving.next_asked(false) else { return false };
        self.report.pages_demanded += self.serve(owner, &ranges);
        self.flushing.given(owner, &ranges);
        true
    }

    /// Returns how many pages that are.
    fn serve(&mut self, owner: ObjectId, ranges: &Ranges) -> u64 {
        let mut buffer = std::mem::take(&mut self.serving.buffer);
        let result = self.give(owner, ranges, &mut buffer);
        self.serving.buffer = buffer;
        if let Err(refusal) = result
            && refusal.code != Code::CANCELLED
        {
            self.cannot_serve(&refusal);
        }
        self.tell();
        self.turn(Some(Duration::ZERO), false);
        self.count(ranges)
    }

    pub(super) fn cannot_serve(&mut self, refusal: &Refusal) {
        self.serving.active = false;
        self.feed(Event::Failed { deed: Deed::Serve, refusal: crate::report::opaque(refusal) });
    }

    /// Returns how many pages that are.
    pub(super) fn count(&mut self, ranges: &Ranges) -> u64 {
        let pages = ranges.iter().map(|(_, length)| *length as u64).sum::<u64>() / PAGE_BYTES;
        self.report.pages_sent = self.pump.pages_sent;
        // A page may leave twice.
        self.pump.done = (self.pump.done + pages * PAGE_BYTES).min(self.pump.total.max(self.pump.done));
        pages
    }

    fn give(&mut self, owner: ObjectId, ranges: &Ranges, buffer: &mut Vec<u8>) -> Result<(), Refusal> {
        if let Some(server) = &mut self.serving.server {
            server.read(owner, ranges, buffer)?;
        }
        self.pump.packing.send_again(self.stages.get(&owner).copied());
        let frames = self.pump.frames(owner, ranges, buffer);
        self.pump.packing.send_again(None);
        for frame in frames? {
            self.transmit(&frame.head, frame.body(buffer))?;
        }
        Ok(())
    }
}
