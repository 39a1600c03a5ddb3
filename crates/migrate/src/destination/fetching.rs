//! The tree runs, and pages of it are still at the source: whoever waits for one is told to the source, and what comes is placed.
use super::Driver;
use crate::door::{Door, Visit, Visitor};
use crate::guardian::Guardian;
use crate::report::{self, name_of};
use crate::residual::Note;
use crate::stream::{Arrival, Broken, Stream};
use godwit_engine::owed::{Pager, Wanted};
use godwit_engine::restore::Attended;
use godwit_handoff::{Deed, Event, Malformed, Message, Side};
use godwit_image::memory::PAGE_BYTES;
use godwit_image::page_set::PageSet;
use godwit_image::{Code, ObjectId, Refusal, Subject};
use godwit_linux::poll::Readiness;
use godwit_linux::scheduling::Urgency;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Until another look at who waits for what is just changing.
const MOMENT: Duration = Duration::from_millis(1);

/// A page that was asked for is awaited awake so long.
const AWAKE: Duration = Duration::from_micros(100);

/// Who has waited for a page waits for the next one soon: so long we come before others. Who has all that he needs is to have his
/// share of the processors, whatever is still being put beside it.
const URGENT: Duration = Duration::from_millis(1);

/// Between two looks at who has stopped, where nobody tells of it.
const ATTEND_EVERY: Duration = Duration::from_millis(50);

/// Between two looks at who has ended meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How long processes that cannot go on may take to end by themselves.
const LAST_MOMENTS: Duration = Duration::from_secs(1);

/// How the fetching stands.
#[derive(Debug, Default)]
pub(super) struct Fetch {
    /// Who has the pages come that the tree is owed.
    pub(super) pager: Option<Pager>,
    /// The tree runs, and they are awaited.
    pub(super) active: bool,
    /// How often somebody has waited.
    pub(super) faults: u64,
    /// When a page was last asked for.
    asked: Option<Instant>,
    /// When it was last looked at who has ended.
    looked: Option<Instant>,
    /// Bytes that will never come.
    pub(super) lost: u64,
    /// All is to come without being asked for.
    pub(super) wants_all: bool,
    /// For the user: what is left.
    note: Option<Note>,
    /// Where newer connections come in.
    door: Option<Door>,
    /// Who brought the connection, where it goes through them.
    bringer: Option<UnixStream>,
    /// Where pages come that somebody waits for.
    lane: Option<Stream>,
    /// As long as somebody may wait for us.
    pub(super) urgency: Option<Urgency>,
    /// The tree, as long as what lies unread in its pipes and sockets has not come.
    pub(super) attended: Option<Attended>,
}

impl Fetch {
    pub(super) fn lose_link(&mut self) {
        self.lane.take().iter().for_each(Stream::cut);
        self.bringer = None;
    }

    /// Places pages; returns who waits for others.
    pub(super) fn fill(
        &mut self,
        owner: ObjectId,
        ranges: &[(u64, usize)],
        bytes: &[u8],
    ) -> Result<Vec<Wanted>, Refusal> {
        self.pager.as_mut().map_or_else(|| Ok(Vec::new()), |pager| pager.fill(owner, ranges, bytes))
    }

    /// How long to wait awake.
    pub(super) fn awake(&self) -> Duration {
        let asked = self.asked.filter(|_| self.active && self.pager.as_ref().is_some_and(Pager::is_awaited));
        asked.map_or(Duration::ZERO, |asked| AWAKE.saturating_sub(asked.elapsed()))
    }

    /// Comes before others as long as somebody waits for what comes here.
    fn hurry(&mut self) {
        let Some(urgency) = &mut self.urgency else { return };
        let waits = self.attended.is_some() || self.pager.as_ref().is_some_and(Pager::is_awaited);
        urgency.come_first(waits || self.asked.is_some_and(|asked| asked.elapsed() < URGENT));
    }

    /// What to wait for besides the link.
    pub(super) fn interest(&self) -> Vec<(BorrowedFd<'_>, Readiness)> {
        let mut files: Vec<BorrowedFd<'_>> = self.door.iter().map(Door::bell).collect();
        files.extend(self.lane.iter().filter_map(Stream::socket));
        files.extend(self.pager.iter().filter(|_| self.active).flat_map(Pager::files));
        files.extend(self.attended.iter().filter(|_| self.active).map(Attended::bell));
        files.into_iter().map(|file| (file, Readiness::READABLE)).collect()
    }
}

impl Driver<'_> {
    /// Before anything is decided: what tells of missing pages is kept by the guardian, too, so that nobody reads zeros when we die.
    pub(super) fn entrust(&mut self) -> Result<(), Refusal> {
        if self.fetch.pager.is_some() {
            self.keep()?;
            // From now on only this engine can answer for the tree, whatever becomes of the link.
            let (directory, migration) = (&self.options.run_directory, self.machine.migration());
            self.fetch.door = Some(Door::open(directory, migration)?);
            self.fetch.note = Some(Note::new(directory, migration, Side::Destination));
            self.feed(Event::Owes);
        }
        Ok(())
    }

    fn keep(&mut self) -> Result<(), Refusal> {
        let Some(pager) = &mut self.fetch.pager else { return Ok(()) };
        let files = pager.duplicates()?;
        let files: Vec<BorrowedFd<'_>> = files.iter().map(AsFd::as_fd).collect();
        self.guardian.iter_mut().chain(&mut self.second).try_for_each(|guardian| guardian.keep(&files))
    }

    pub(super) fn fetching_limit(&self) -> Option<Duration> {
        let pager = self.fetch.pager.as_ref().filter(|_| self.fetch.active)?;
        Some(match self.fetch.attended {
            _ if pager.is_restless() => MOMENT,
            Some(_) => ATTEND_EVERY,
            None => LOOK_EVERY,
        })
    }

    /// Takes in who waits, and sees whether all is here.
    pub(super) fn fetch_some(&mut self) {
        if !self.fetch.active {
            return;
        }
        let Some(pager) = &mut self.fetch.pager else { return self.end_fetching() };
        // Children have theirs.
        match pager.listen().and_then(|wanted| self.keep().map(|()| wanted)) {
            Ok(wanted) => self.want(&wanted),
            Err(refusal) => return self.cannot_fetch(&refusal),
        }
        self.fetch.hurry();
        if let Err(refusal) = self.attend() {
            return self.cannot_fetch(&refusal);
        }
        if let Err(refusal) = self.take_from_store() {
            return self.cannot_fetch(&refusal);
        }
        let Some(pager) = &mut self.fetch.pager else { return };
        if self.fetch.looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY) {
            self.fetch.looked = Some(Instant::now());
            pager.forget_the_dead();
        }
        if let Some(note) = &mut self.fetch.note {
            note.write(pager.left());
        }
        if pager.is_finished() && self.fetch.attended.is_none() {
            self.end_fetching();
        }
    }

    /// Lets threads go on that may, and all when what they wait for has come.
    fn attend(&mut self) -> Result<(), Refusal> {
        let Some(attended) = &mut self.fetch.attended else { return Ok(()) };
        attended.attend()?;
        if let Some(bytes) = self.fetch.pager.as_mut().and_then(Pager::gathered) {
            attended.complete(&bytes)?;
            self.observe("received", "communication");
            self.adopt_store();
        }
        if self.fetch.attended.as_ref().is_some_and(Attended::is_over) {
            self.fetch.attended = None;
        }
        Ok(())
    }

    fn end_fetching(&mut self) {
        self.fetch.active = false;
        self.fetch.urgency = None;
        // From now on the journal answers.
        (self.fetch.door, self.fetch.note) = (None, None);
        if let Some(pager) = self.fetch.pager.take() {
            self.pages += pager.pages;
            self.fetch.faults = pager.faults;
        }
        self.remove_store();
        // What is missing now is zero.
        self.guardian.iter_mut().chain(&mut self.second).for_each(Guardian::release);
        self.feed(Event::Done(Deed::Fetch));
    }

    /// Takes in who has come with a newer connection, or with a further one.
    pub(super) fn answer_the_door(&mut self) {
        while let Some(visit) = self.fetch.door.as_ref().and_then(Door::visitor) {
            let Visit::Connection(Visitor { lane, first, bringer }) = visit else {
                self.fetch.wants_all = true;
                self.storing.drain();
                self.tell_wishes(&[]);
                continue;
            };
            self.observe("visited", name_of(&first.message));
            if matches!(first.message, Message::Lane { .. }) {
                let mut lane = Stream::new(lane);
                // One that is gone already ends the link when it is read.
                let _ = lane.say(first).and_then(|()| lane.flush());
                self.fetch.lane = Some(lane);
                continue;
            }
            self.lose_link(&Broken::Closed);
            let mut stream = Stream::new(lane);
            stream.beat(self.machine.migration(), self.options.patience.heartbeat.into(), true);
            self.stream = Some(stream);
            self.fetch.bringer = Some(bringer);
            self.feed(Event::LinkUp);
            self.feed_received(first);
            self.tell_owed();
        }
    }

    /// Over a new link the source hears what has not come, and who waits.
    fn tell_owed(&mut self) {
        let Some(pager) = &self.fetch.pager else { return };
        let (owed, awaited) = (pager.owed(), pager.awaited());
        self.tell_wishes(&owed);
        self.want(&awaited);
    }

    /// Tells the source what it owes, and whether all of it is to come unasked.
    fn tell_wishes(&mut self, owed: &[(ObjectId, PageSet)]) {
        if let Some(stream) = &mut self.stream
            && let Err(error) = stream.tell_owed(owed, self.fetch.wants_all)
        {
            return self.lose_link(&error);
        }
        if let Some(stream) = &mut self.stream
            && let Err(error) = stream.flush()
        {
            self.lose_link(&error);
        }
    }

    /// Places what has come over the lane of faults. When that breaks nobody knows what was in it: over a new link that is told.
    pub(super) fn listen_for_faults(&mut self) {
        while let Some(mut lane) = self.fetch.lane.take() {
            let mut moved = (0, 0);
            let result = match lane.next() {
                Ok(Some(Arrival::Pages(owner, ranges, bytes))) => {
                    moved = (bytes.len() as u64 / PAGE_BYTES, bytes.len() as u64);
                    self.place_owed(owner, ranges, Some(bytes))
                }
                Ok(Some(Arrival::Zeros(owner, ranges))) => self.place_owed(owner, ranges, None),
                Ok(None) => {
                    self.fetch.lane = Some(lane);
                    return;
                }
                Ok(Some(_)) => return self.lose_link(&Broken::Malformed(Malformed::BadValue("lane"))),
                Err(error) => return self.lose_link(&error),
            };
            self.fetch.lane = Some(lane);
            match result {
                Ok(()) => self.feed(Event::Moved { pages: moved.0, bytes: moved.1 }),
                Err(refusal) => return self.cannot_fetch(&refusal),
            }
            self.fetch_some();
        }
    }

    pub(super) fn cannot_fetch(&mut self, refusal: &Refusal) {
        self.fetch.active = false;
        self.feed(Event::Failed { deed: Deed::Fetch, refusal: report::opaque(refusal) });
    }

    /// What is owed will not come: whoever waits for it, or touches it now, gets SIGBUS, and has a moment to say so.
    pub(super) fn strike_owed(&mut self) {
        let Some(pager) = self.fetch.pager.as_mut().filter(|_| self.root != 0) else { return };
        self.fetch.lost = pager.left().max(1);
        pager.poison();
        // Who cannot go on without what he does not get is ended.
        self.fetch.attended = None;
        self.observe("poisoned", self.fetch.lost);
        let begin = Instant::now();
        while begin.elapsed() < LAST_MOMENTS && !self.details.members_here().is_empty() {
            std::thread::sleep(MOMENT * 10);
        }
    }

    /// What is to be said of it.
    pub(super) fn lost_pages(&self) -> Refusal {
        let why = self.machine.troubles().first().map(|trouble| report::trouble(trouble).cause).unwrap_or_default();
        let cause = format!("{} KiB of its memory were still at {}: {why}", self.fetch.lost >> 10, self.details.peer);
        Refusal::new(Code::PAGES_LOST, Subject::Process(self.root), cause)
    }

    /// Asks the source. Without a link what is waited for is asked for over the next one.
    pub(super) fn want(&mut self, wanted: &[Wanted]) {
        if self.storing.is_active() {
            return self.want_from_store(wanted);
        }
        for one in wanted {
            let Some(stream) = &mut self.stream else { return };
            if let Err(error) = stream.want(one.owner, one.start, one.length) {
                return self.lose_link(&error);
            }
        }
        if wanted.is_empty() {
            return;
        }
        if let Some(stream) = &mut self.stream
            && let Err(error) = stream.flush()
        {
            return self.lose_link(&error);
        }
        self.fetch.asked = Some(Instant::now());
    }

    /// Places pages that came after the resumption (`bytes`; none: they are zero). Returns pages and bytes.
    pub(super) fn place_owed(
        &mut self,
        owner: ObjectId,
        ranges: &[(u64, usize)],
        bytes: Option<&[u8]>,
    ) -> Result<(), Refusal> {
        let Some(pager) = &mut self.fetch.pager else { return Ok(()) };
        let wanted = match bytes {
            Some(bytes) => pager.fill(owner, ranges, bytes)?,
            None => pager.fill_zeros(owner, ranges)?,
        };
        self.want(&wanted);
        Ok(())
    }
}
