//! The preparation: what the tree writes while it runs is tracked and sent in rounds, and the account of it in the end.
use super::Driver;
use crate::host::STALE_PAGES;
use crate::wishes::Options;
use godwit_engine::capture::Captives;
use godwit_engine::freeze;
use godwit_engine::pages::{self, Reader};
use godwit_engine::tracking::{self, Tracking};
use godwit_handoff::frame::STAGE_FIRST;
use godwit_handoff::{Step, delta};
use godwit_image::memory::PAGE_BYTES;
use godwit_image::page_set::PageSet;
use godwit_image::{Code, ObjectId, Refusal, Subject};
use godwit_linux::tcp;
use godwit_strategy::{Ledger, Left, Origin, Row, Set};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// A round of pages that wait to be quiet takes at least so long: in less nothing can be told.
const QUIET_ROUND: Duration = Duration::from_millis(20);

/// Bytes on their way that delay next to nothing: the other side may keep the word about two segments to itself for a while.
const UNDER_WAY: u64 = 3 << 10;

/// Bytes whose way takes long enough to be measured.
const MUCH: u64 = 256 << 10;

/// Between two looks at what is on its way.
const LOOK_AGAIN: Duration = Duration::from_micros(500);

/// What is written while stale pages are given back is told once more, so often in all.
const STALE_LOOKS: usize = 3;

/// Fewer are given back as well when the tree is down.
const FEW_STALE_BYTES: u64 = 16 * PAGE_BYTES;

/// So long the tree goes on here at most until the other side has given them back.
const GIVING_BACK: Duration = Duration::from_millis(100);

/// A process that is tracked.
#[derive(Debug)]
struct Tracked {
    stage: u32,
    /// Until the last look.
    tracking: Option<Box<dyn Tracking>>,
}

/// The preparation of one move.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    /// By process.
    tracked: BTreeMap<i32, Tracked>,
    ledger: Ledger,
    reader: Reader,
    /// Stages that were given away.
    stages: u32,
    /// Bytes that have left, and how long that took.
    sent: (u64, Duration),
    /// What the destination has been told not to be true any more, by stage, and in how many frames.
    stale: BTreeMap<u32, PageSet>,
    stale_told: u64,
    /// Stages of which something has been sent.
    begun: BTreeSet<u32>,
}

/// What of a captured space the destination has.
#[derive(Debug)]
pub(super) struct Confirmed {
    stage: u32,
    space: ObjectId,
    pages: PageSet,
}

/// The row that the user wants.
pub(super) fn row(options: &Options) -> Result<Row, Refusal> {
    let usage = |cause: String| Refusal::new(Code::USAGE, Subject::Object("strategy".to_owned()), cause);
    let row = godwit_strategy::parse(&options.strategy).map_err(|error| usage(error.to_string()))?;
    let row = options.knobs.apply(&row).map_err(|flaw| usage(flaw.to_string()))?;
    let tracks = !godwit_strategy::needs_tracking(&row) || tracking::is_possible();
    godwit_strategy::validate(&row, tracks).map_err(|flaw| {
        Refusal::new(Code::UNSUPPORTED, Subject::Object(options.strategy.clone()), flaw.to_string())
            .choice("--strategy total-copy")
            .choice("use Linux 6.7 or later at the source; see godwit doctor")
    })?;
    Ok(row)
}

impl Driver<'_> {
    /// One round, before the freeze or after it; tells what is left.
    pub(super) fn send_round(&mut self, step: usize) -> Result<Left, Refusal> {
        if self.machine.step() != Some(Step::Prepare) {
            let origin = self.row.as_ref().and_then(|row| row.steps.get(step)).map(|step| step.from);
            if origin == Some(Origin::Store) {
                return self.flush().map(|()| Left::default());
            }
            if self.leaves {
                // What is left when it is handed over is sent once, whatever steps there are before that.
                return Ok(Left::default());
            }
            return self.send().map(|()| Left::default());
        }
        let mut rounds = self.rounds.take().unwrap_or_default();
        let result = self.prepare_round(&mut rounds, step);
        self.report.pages_sent = self.pump.pages_sent;
        self.rounds = Some(rounds);
        result
    }

    fn prepare_round(&mut self, rounds: &mut Rounds, step: usize) -> Result<Left, Refusal> {
        let set = self.row.as_ref().and_then(|row| row.steps.get(step)).map_or(Set::All, |step| step.set);
        let begin = Instant::now();
        self.begin_packing();
        self.track(rounds)?;
        rounds.look();
        let (clock, before) = (Instant::now(), self.pump.totals.bytes);
        let stages: Vec<(i32, u32)> = rounds.tracked.iter().map(|(pid, tracked)| (*pid, tracked.stage)).collect();
        for (pid, stage) in stages {
            let wanted = rounds.ledger.wanted(stage, set);
            // What no round has sent yet is remembered where that is little: of much most will not come again.
            let is_little = rounds.ledger.bytes() <= (delta::PAGES_MAX as u64) * PAGE_BYTES;
            let was_sent = !rounds.begun.insert(stage);
            self.pump.packing.send_again((was_sent || is_little).then_some(stage));
            let sent = pages::read_running(&mut rounds.reader, pid, &wanted, |ranges, bytes| {
                self.send_piece(ObjectId(stage), ranges, bytes)
            });
            match sent {
                Ok(sent) => rounds.ledger.sent(stage, &sent),
                // It has ended; whether sending was ended is asked below.
                Err(refusal) if refusal.code == Code::PROCESS_VANISHED => rounds.forget(pid),
                Err(refusal) => return Err(refusal),
            }
        }
        self.let_arrive()?;
        rounds.sent.0 += self.pump.totals.bytes - before;
        rounds.sent.1 += clock.elapsed();
        self.pump.packing.send_again(None);
        while matches!(set, Set::Quiet(_)) && begin.elapsed() < QUIET_ROUND {
            self.turn(Some(QUIET_ROUND.saturating_sub(begin.elapsed())), false);
            self.go_on()?;
        }
        self.tell_stale(rounds)?;
        // What is looked at before a freeze is to be fresh.
        self.preparation = std::mem::take(&mut self.preparation).renewed(self.pid);
        Ok(rounds.left(set))
    }

    /// Waits until next to nothing of what was sent is still on its way: what is sent when the tree is down would wait behind that, and
    /// meanwhile it goes on here. How long much of it takes tells what the link carries.
    fn let_arrive(&mut self) -> Result<(), Refusal> {
        let mut begun: Option<(Instant, u64)> = None;
        loop {
            self.go_on()?;
            let Some(stream) = &self.stream else { return Ok(()) };
            // A lane of another kind does not tell.
            let Some(advance) = stream.socket().and_then(|socket| tcp::advance(socket).ok()) else { return Ok(()) };
            let (begin, before) = *begun.get_or_insert((Instant::now(), advance.acknowledged));
            if stream.is_flushed() && stream.sent().saturating_sub(advance.acknowledged) <= UNDER_WAY {
                let carried = advance.acknowledged.saturating_sub(before);
                if carried >= MUCH && begin.elapsed() > LOOK_AGAIN * 4 {
                    self.pump.packing.carried(carried, begin.elapsed());
                }
                return Ok(());
            }
            self.turn(Some(LOOK_AGAIN), false);
        }
    }

    /// Begins to track whoever is not tracked yet.
    fn track(&mut self, rounds: &mut Rounds) -> Result<(), Refusal> {
        let begins = rounds.stages == 0;
        let known = rounds.tracked.keys().copied().collect();
        let is_known = |pid: &i32| rounds.tracked.contains_key(pid);
        if !begins && freeze::tree(self.pid)?.iter().all(|pid| is_known(pid) || !is_large(*pid)) {
            return Ok(());
        }
        let begun = tracking::begin(self.pid, &known)?;
        self.report.tracking_ms += begun.stopped.as_secs_f64() * 1e3;
        for refusal in &begun.left_out {
            self.observe("untracked", refusal);
        }
        for (pid, tracking) in begun.processes {
            // The first is the root's, whoever else there is.
            rounds.stages += 1;
            let stage = STAGE_FIRST + if pid == self.pid { 0 } else { rounds.stages };
            rounds.tracked.insert(pid, Tracked { stage, tracking: Some(tracking) });
        }
        Ok(())
    }

    /// At the end of a round: which of the pages that the destination has are not true any more, where it is to wait for them. It gives
    /// them back while the tree still runs here; of huge pages that costs some µs for each.
    fn tell_stale(&mut self, rounds: &mut Rounds) -> Result<(), Refusal> {
        let allowed = self.machine.peer().is_some_and(|peer| peer.capabilities.has(STALE_PAGES));
        for _ in 0..STALE_LOOKS {
            if !self.leaves || !allowed {
                return Ok(());
            }
            rounds.look_at_all(Ledger::look_again);
            let news = rounds.untold();
            if news.iter().map(|(_, pages)| pages.bytes()).sum::<u64>() < FEW_STALE_BYTES {
                return Ok(());
            }
            rounds.note_told();
            for (stage, pages) in news {
                for frame in self.pump.stale_frames(ObjectId(stage), &pages)? {
                    self.transmit(&frame, &[])?;
                    rounds.stale_told += 1;
                }
            }
            let begin = Instant::now();
            while self.serving.stale_heard() < rounds.stale_told && begin.elapsed() < GIVING_BACK {
                self.turn(Some(GIVING_BACK.saturating_sub(begin.elapsed())), false);
                self.go_on()?;
            }
        }
        Ok(())
    }

    /// The last look, when nothing runs any more. The tracking itself is ended when the tree does not wait for it: that touches every page.
    pub(super) fn look_last(&mut self) {
        let (Some(rounds), Some(frozen)) = (&mut self.rounds, &mut self.frozen) else { return };
        rounds.look();
        for (pid, tracked) in &rounds.tracked {
            if let Some(tracking) = &tracked.tracking {
                frozen.note_tracked(*pid, tracking.registered().clone());
            }
        }
    }

    /// Takes what the destination has out of what is to be sent. Returns, of each space, what comes by itself if it is owed.
    pub(super) fn take_out_held(&mut self, captives: &mut Captives) -> Vec<(ObjectId, PageSet)> {
        let mut pushed = Vec::new();
        let mut rounds = self.rounds.take().unwrap_or_default();
        let trackings = rounds.tracked.values_mut().filter_map(|tracked| tracked.tracking.take());
        self.trackings.extend(trackings);
        let (Some(row), Some(frozen)) = (&self.row, &self.frozen) else { return pushed };
        for space in &mut captives.spaces {
            let of_space =
                frozen.processes.iter().find(|process| process.threads.iter().any(|thread| thread.tid() == space.pid));
            let tracked = of_space.and_then(|process| rounds.tracked.get(&process.pid));
            // Of whom nothing is known the destination has nothing.
            let stage = tracked.map_or(0, |tracked| tracked.stage);
            if tracked.is_some() {
                self.stages.insert(space.space, stage);
            }
            let division = rounds.ledger.divide(row, stage, &space.pages);
            if !division.held.is_empty() {
                self.confirmed.push(Confirmed { stage, space: space.space, pages: division.held });
            }
            space.pages = division.left;
            pushed.push((space.space, division.pushed));
        }
        pushed
    }

    /// Tells the destination which pages of a space are still true.
    pub(super) fn confirm(&mut self, space: ObjectId) -> Result<(), Refusal> {
        let Some(at) = self.confirmed.iter().position(|confirmed| confirmed.space == space) else { return Ok(()) };
        let confirmed = self.confirmed.swap_remove(at);
        for frame in self.pump.held_frames(confirmed.stage, space, &confirmed.pages)? {
            self.transmit(&frame, &[])?;
            self.turn(Some(Duration::ZERO), false);
            self.go_on()?;
        }
        Ok(())
    }
}

/// Whether it pays to stop a tree in order to track one of its processes that is new.
fn is_large(pid: i32) -> bool {
    const BYTES: u64 = 1 << 20;
    let status = godwit_linux::proc::status::read(pid, pid);
    status.is_ok_and(|status| status.memory.is_some_and(|memory| memory.resident_anonymous >= BYTES))
}

impl Rounds {
    /// Looks at everybody. Of whom nothing can be said any more nothing is held.
    fn look(&mut self) {
        self.look_at_all(Ledger::look);
    }

    /// `note` takes in what is found.
    fn look_at_all(&mut self, note: fn(&mut Ledger, u32, &PageSet, &PageSet)) {
        let mut gone = Vec::new();
        for (pid, tracked) in &mut self.tracked {
            match tracked.tracking.as_mut().map(|tracking| tracking.look()) {
                Some(Ok(written)) => note(&mut self.ledger, tracked.stage, &written.looked_at, &written.pages),
                _ => gone.push(*pid),
            }
        }
        gone.into_iter().for_each(|pid| self.forget(pid));
    }

    /// By stage, what is stale and not known to be at the destination.
    fn untold(&self) -> Vec<(u32, PageSet)> {
        let of_stage = |tracked: &Tracked| {
            let stale = self.ledger.wanted(tracked.stage, Set::Stale);
            (tracked.stage, self.stale.get(&tracked.stage).map_or_else(|| stale.clone(), |told| stale.difference(told)))
        };
        self.tracked.values().map(of_stage).collect()
    }

    /// All that is stale now is told. What was sent again since is none any more.
    fn note_told(&mut self) {
        let stale = |tracked: &Tracked| (tracked.stage, self.ledger.wanted(tracked.stage, Set::Stale));
        self.stale = self.tracked.values().map(stale).collect();
    }

    fn forget(&mut self, pid: i32) {
        if let Some(tracked) = self.tracked.remove(&pid) {
            self.ledger.forget(tracked.stage);
        }
    }

    fn left(&self, set: Set) -> Left {
        let trackings = self.tracked.values().filter_map(|tracked| tracked.tracking.as_ref());
        let written = trackings.filter_map(|tracking| tracking.bytes_written().ok());
        // What waits is left, too.
        let waiting = if matches!(set, Set::Quiet(_)) { self.ledger.bytes_left() } else { 0 };
        let bytes = written.sum::<u64>().max(waiting);
        let (sent, time) = self.sent;
        let nanoseconds = u128::from(bytes) * time.as_nanos() / u128::from(sent.max(1));
        Left {
            pages: bytes / PAGE_BYTES,
            of: self.ledger.bytes() / PAGE_BYTES,
            nanoseconds: u64::try_from(nanoseconds).unwrap_or(u64::MAX),
        }
    }
}
