//! The source's driver: performs what the source's machine asks for, on the one thread that froze the tree.
//!
//! One loop: the machine's actions first, then a wait for the other side, the user or the machine's clock. The one action that takes
//! long, sending pages, looks at all three between two pieces.
use crate::forecast;
use crate::host::{self, Clock};
use crate::journal::{Details, Journal};
use crate::packing::Packing;
use crate::pump::{PartSort, Pump};
use crate::report::{self, OnProgress, Progress, Report, name_of};
use crate::requirement::Requirements;
use crate::restless;
use crate::stream::{Arrival, Broken, Stream};
use crate::transport::{self, Lane, Transport};
use crate::wishes::nothing_to_inherit;
pub use crate::wishes::{AUTO, Compression, Options};
use godwit_engine::capture::{self, Captives, Leaving};
use godwit_engine::freeze::{self, FrozenTree};
use godwit_engine::preparation::Preparation;
use godwit_engine::resource::edge::Choice;
use godwit_engine::tracking::Tracking;
use godwit_engine::{check, demand, pages};
use godwit_handoff::bucket::Bucket;
use godwit_handoff::{
    Action, Event, Message, MigrationId, Outcome, Patience, Record, Settlement, Side, Source, SourceConfig, Stage,
    Versions,
};
use godwit_image::{Code, ObjectId, Refusal, Subject};
use godwit_linux::poll::{self, Readiness};
use godwit_strategy::Row;
use serving::Serving;
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::AsFd;
use std::time::Duration;

mod communication;
mod conclusion;
mod fault_lane;
mod flushing;
mod holding;
mod restraint;
mod rounds;
mod sending;
mod serving;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);
/// How long the last words may take to leave when it is over.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How long to listen whether the tree runs, after it has become the destination's: there it may have to wait for what ours held.
const RESUMPTION: Duration = Duration::from_secs(10);

/// Moves a tree to a destination.
///
/// # Errors
/// Why it was not moved. Unless one of them is GW1304 (in doubt: it is kept stopped, see [`crate::recover`]), the tree runs on here
/// with everything that it had.
pub fn migrate(
    pid: i32,
    destination: &str,
    mut options: Options,
    progress: OnProgress<'_>,
) -> Result<Report, Vec<Refusal>> {
    let mut examination = match options.examination.take() {
        Some(examination) => movable(examination, &options)?,
        None => examine(pid, &options)?,
    };
    let chosen = forecast::take(pid, destination, &mut options).map_err(|refusal| vec![refusal])?;
    let mut is_settled = false;
    loop {
        let mut moved = attempt(pid, destination, &examination, &mut options, &mut *progress);
        match (&moved, examination.began) {
            (Err(refusals), Some(began))
                if restless::is_about_files(refusals) && restless::ask_less(&mut examination.demand, began) => {}
            _ => {
                if let (Ok(report), Some(reason)) = (&mut moved, chosen) {
                    report.chosen = reason;
                }
                return moved;
            }
        }
        if !is_settled {
            // What was made just before the tree was seen looks as if it had been made since. A tick later it does not.
            std::thread::sleep(restless::TICK);
            examination = examine(pid, &options)?;
            is_settled = true;
        }
    }
}

/// What a move would do to the tree; why it cannot be moved otherwise.
fn examine(pid: i32, options: &Options) -> Result<check::Examination, Vec<Refusal>> {
    let features = godwit_linux::features::OnDemand::default();
    let examination = check::examine(pid, &options.capture, &|feature| features.has(feature));
    movable(examination.map_err(|refusal| vec![refusal])?, options)
}

fn movable(mut examination: check::Examination, options: &Options) -> Result<check::Examination, Vec<Refusal>> {
    let mut refusals = examination.refusals();
    refusals.extend(options.capture.edges.iter().filter(|edge| edge.choice == Choice::Inherit).map(nothing_to_inherit));
    if !refusals.is_empty() {
        return Err(refusals);
    }
    examination.demand.unused_processor_flags.clone_from(&options.unused_processor_flags);
    Ok(examination)
}

/// One attempt. The options are as before when it has failed.
fn attempt(
    pid: i32,
    destination: &str,
    examination: &check::Examination,
    options: &mut Options,
    progress: OnProgress<'_>,
) -> Result<Report, Vec<Refusal>> {
    let one = |refusal: Refusal| vec![refusal];
    let row = rounds::row(options).map_err(one)?;
    let transport = transport::parse(destination, options.remote_program.clone()).map_err(one)?;
    let lane = transport.connect(CONNECT).map_err(|error| {
        one(Refusal::new(Code::LINK_LOST, Subject::Object(transport.name()), format!("cannot connect: {error}")))
    })?;
    let migration = host::migration_id().map_err(one)?;
    let flushing = flushing::open(&row, options.pages.as_deref(), migration).map_err(one)?;
    let requirements = Requirements {
        store: flushing.location(),
        ..Requirements::of(
            examination,
            demand::host_as_seen_by(pid).map_err(one)?,
            !options.page_checksums && lane.is_socket,
        )
    };
    let config = SourceConfig {
        migration,
        boot: host::boot_id(),
        versions: Versions::SUPPORTED,
        capabilities: host::capabilities(),
        requirements: requirements.encode(),
        row: row.clone(),
        dry_run: options.dry_run,
        store: requirements.store.is_some(),
        patience: options.patience,
    };
    let row_leaves = config.row.leaves_pages_behind();
    let machine = Source::new(config).map_err(|error| {
        one(Refusal::new(Code::UNSUPPORTED, Subject::Object(options.strategy.clone()), error.to_string()))
    })?;
    // Who the members are is noted when they are held: until then the death of the engine is itself the roll-back.
    let details = Details::own(&transport.name(), pid, Vec::new());
    let mut driver = Driver::new(pid, transport, machine, details, std::mem::take(options), progress);
    (driver.row, driver.flushing) = (Some(row), flushing);
    driver.stream = Some(driver.stream_of(lane, migration));
    driver.leaves = row_leaves;
    if !driver.options.dry_run {
        let journal = Journal::create(&driver.options.run_directory, migration, Side::Source).map_err(one)?;
        driver.journal = Some(journal);
        if driver.options.guardian {
            // It starts while the two sides get to know each other.
            let directory = &driver.options.run_directory;
            let guardian = crate::guardian::Guardian::start(directory, migration, Side::Source).map_err(one)?;
            driver.guardian = Some(guardian);
        }
    }
    driver.feed(Event::Start);
    driver.run();
    *options = std::mem::take(&mut driver.options);
    driver.conclude()
}

/// Settles what an earlier engine left, from its journal; asks the destination where that is needed. `settlement` decides a
/// doubt that the destination cannot answer.
///
/// # Errors
/// It could not be settled: still in doubt, or something could not be undone.
pub(crate) fn recover(
    journal: Journal,
    settlement: Option<Settlement>,
    patience: Patience,
) -> Result<Outcome, Vec<Refusal>> {
    let details = journal.details();
    let Some(record) = journal.last().cloned() else { return Ok(Outcome::Unknown) };
    let transport: Box<dyn Transport> = match record.stage {
        Stage::CommitSent | Stage::Serving => transport::parse(&details.peer, None).map_err(|refusal| vec![refusal])?,
        // There is nothing to ask, and, after a checkpoint, nobody.
        _ => Box::new(transport::Nobody(details.peer.clone())),
    };
    let clock = Clock::start();
    let Some(machine) = Source::recover(clock.now(), &record, host::boot_id(), patience) else {
        return Ok(Outcome::Unknown);
    };
    let options = Options { patience, guardian: false, ..Options::default() };
    let mut silent = |_: &Progress| {};
    let mut driver = Driver::new(details.root, transport, machine, details, options, &mut silent);
    driver.clock = clock;
    driver.journal = Some(journal);
    driver.settlement = settlement;
    driver.settle_machine();
    driver.run();
    let troubles: Vec<Refusal> = driver.machine.troubles().iter().map(report::trouble).collect();
    match driver.machine.outcome() {
        _ if !troubles.is_empty() => Err(troubles),
        Some(outcome @ Outcome::InDoubt(_)) => Err(report::failure(outcome)),
        Some(outcome) => Ok(outcome.clone()),
        None => Ok(Outcome::Unknown),
    }
}

struct Driver<'a> {
    clock: Clock,
    options: Options,
    pid: i32,
    transport: Box<dyn Transport>,
    machine: Source,
    stream: Option<Stream>,
    queue: VecDeque<Action>,
    journal: Option<Journal>,
    details: Details,
    frozen: Option<FrozenTree>,
    held: bool,
    /// Why the early hold could not begin.
    early_hold: Option<Refusal>,
    preparation: Preparation,
    captives: Option<Captives>,
    /// How memory moves; none when an earlier engine's work is settled.
    row: Option<Row>,
    /// The preparation, once it has begun.
    rounds: Option<rounds::Rounds>,
    /// What of each captured space the destination has.
    confirmed: Vec<rounds::Confirmed>,
    /// Under which stages the pages of spaces were sent in the preparation.
    stages: BTreeMap<ObjectId, u32>,
    /// Of processes that are not looked at any more.
    trackings: Vec<Box<dyn Tracking>>,
    pump: Pump,
    /// Pages stay here when the tree is handed over.
    leaves: bool,
    flushing: flushing::Flushing,
    serving: Serving,
    report: Report,
    sent_before: u64,
    bucket: Option<Bucket>,
    /// Bytes that were taken out of it.
    paid: u64,
    cancelled: bool,
    settlement: Option<Settlement>,
    /// Why the link was given up, for the user.
    broken: Option<String>,
    guardian: Option<crate::guardian::Guardian>,
    progress: OnProgress<'a>,
}

impl<'a> Driver<'a> {
    fn new(
        pid: i32,
        transport: Box<dyn Transport>,
        machine: Source,
        details: Details,
        options: Options,
        progress: OnProgress<'a>,
    ) -> Driver<'a> {
        let clock = Clock::start();
        Driver {
            clock,
            bucket: options.bandwidth.map(|rate| Bucket::new(rate, clock.now())),
            paid: 0,
            pump: Pump::new(options.page_checksums).with(Packing::new(options.compression, options.bandwidth)),
            report: Report { strategy: options.strategy.clone(), ..Report::default() },
            options,
            pid,
            transport,
            machine,
            stream: None,
            queue: VecDeque::new(),
            journal: None,
            details,
            frozen: None,
            held: false,
            early_hold: None,
            preparation: Preparation::default(),
            captives: None,
            row: None,
            rounds: None,
            confirmed: Vec::new(),
            stages: BTreeMap::new(),
            trackings: Vec::new(),
            leaves: false,
            flushing: flushing::Flushing::default(),
            serving: Serving::default(),
            sent_before: 0,
            cancelled: false,
            settlement: None,
            broken: None,
            guardian: None,
            progress,
        }
    }

    /// What is said on it first is for the machine to say.
    fn stream_of(&self, lane: Lane, migration: MigrationId) -> Stream {
        let mut stream = Stream::new(lane);
        stream.beat(migration, self.options.patience.heartbeat.into(), false);
        stream
    }

    fn observe(&mut self, moment: &str, what: impl std::fmt::Display) {
        if let Some(observer) = &mut self.options.observer {
            observer(&format!("{moment} {what}"));
        }
    }

    fn tell(&mut self) {
        let step = self.machine.step().map_or("undo", |step| step.row().name);
        (self.progress)(&Progress { step, bytes_done: self.pump.done, bytes_total: self.pump.total });
    }

    /// Tells the machine what has happened, and takes what it wants.
    fn feed(&mut self, event: Event) {
        self.machine.handle(self.clock.now(), event);
        self.settle_machine();
    }

    fn settle_machine(&mut self) {
        while let Some(packet) = self.machine.poll_message() {
            let name = name_of(&packet.message);
            let offers = matches!(packet.message, Message::Offer { .. });
            if let Some(stream) = &mut self.stream
                && let Err(error) = stream.say(packet).and_then(|()| stream.flush())
            {
                self.lose_link(&error);
            }
            // While the other side examines it.
            if offers && !self.options.dry_run {
                self.preparation = Preparation::of(self.pid);
                if !self.leaves && self.bucket.is_none() && !self.options.page_checksums {
                    self.preparation.look_at_contents(self.pid);
                }
            }
            self.observe("sent", name);
        }
        while let Some(action) = self.machine.poll_action() {
            if action.interrupts() {
                self.queue.retain(|queued| !queued.is_interruptible());
            }
            self.queue.push_back(action);
        }
    }

    /// Ends the connection, if there is one; what has left over it counts.
    fn cut_stream(&mut self) -> Option<Stream> {
        self.serving.lose_link();
        let stream = self.stream.take()?;
        stream.cut();
        self.sent_before += stream.sent();
        Some(stream)
    }

    fn lose_link(&mut self, cause: &Broken) {
        if let Some(stream) = self.cut_stream() {
            self.broken = Some(format!("{}: {cause}", stream.peer()));
            self.feed(Event::LinkLost);
        }
    }

    fn run(&mut self) {
        loop {
            if let Some(action) = self.queue.pop_front() {
                let deed = action.deed();
                self.observe("before", deed);
                self.perform(action);
                self.observe("after", deed);
                continue;
            }
            match self.machine.outcome() {
                Some(Outcome::InDoubt(_)) => match self.settlement.take() {
                    Some(settlement) => self.feed(Event::Settle(settlement)),
                    None => break,
                },
                Some(_) => break,
                None => {
                    if !self.serve_some() && !self.flush_some() {
                        let limit = self.flushing.limit().into_iter().chain(self.serving.pause.take()).min();
                        self.turn(limit, false);
                    }
                }
            }
        }
        let begin = std::time::Instant::now();
        while let Some(stream) = &mut self.stream {
            if stream.flush().is_err() || stream.is_flushed() || begin.elapsed() > LAST_WORDS {
                break;
            }
            let [_, writer] = stream.interest(true);
            // Whatever it says, the next flush finds out.
            let _ = poll::wait(&[writer], Some(Duration::from_millis(100)));
        }
        while self.stream.is_some() && self.machine.awaits_resumption() && !self.cancelled {
            let Some(left) = RESUMPTION.checked_sub(begin.elapsed()) else { break };
            self.turn(Some(left), false);
        }
    }

    /// Waits for the other side, the user or the clock (at most `limit`), and tells the machine. `sending`: room to send ends the
    /// wait, too.
    fn turn(&mut self, limit: Option<Duration>, sending: bool) {
        let due = self.machine.poll_timeout();
        let limit = due.map(|due| self.clock.until(due)).into_iter().chain(limit).min();
        let (mut heard, mut cancel) = (self.stream.is_some(), false);
        {
            let mut files = Vec::with_capacity(3);
            if let Some(stream) = &self.stream {
                files.extend(stream.interest(sending));
            }
            if let Some(file) = self.options.cancel.as_ref().filter(|_| !self.cancelled) {
                files.push((file.as_fd(), Readiness::READABLE));
            }
            files.extend(self.serving.interest());
            // An error here can only be one of our own making; the clock still runs.
            let awake = if sending { Duration::ZERO } else { self.serving.awake() };
            if let Ok(found) = poll::wait_awake(&files, limit, awake) {
                let streams = if self.stream.is_some() { 2 } else { 0 };
                heard = streams > 0 && found[0].readable;
                let cancels = self.options.cancel.is_some() && !self.cancelled;
                cancel = cancels && found.get(streams).is_some_and(|found| found.readable);
            }
        }
        if heard {
            self.listen();
        }
        if let Some(stream) = &mut self.stream
            && let Err(error) = stream.flush()
        {
            self.lose_link(&error);
        }
        self.tend_lane();
        if cancel {
            self.cancelled = true;
            if self.serving.active {
                self.serving.push_all();
            }
            self.feed(Event::Cancel);
        }
        if self.machine.poll_timeout().is_some_and(|due| self.clock.now() >= due) {
            self.feed(Event::Timeout);
            // In doubt, a queued reconnection says that the machine has given the link up: a new one will be made.
            let reconnects = self.queue.iter().any(|action| matches!(action, Action::Reconnect));
            if reconnects && self.machine.is_in_doubt() {
                self.cut_stream();
            }
        }
    }

    fn listen(&mut self) {
        while let Some(stream) = &mut self.stream {
            match stream.next() {
                Ok(Some(Arrival::Packet(packet))) => {
                    self.observe("received", name_of(&packet.message));
                    self.feed(Event::Received(packet));
                }
                Ok(Some(Arrival::Wanted(owner, ranges))) => self.serving.ask(owner, ranges),
                Ok(Some(Arrival::Owed(owner, ranges))) => self.serving.owe(owner, ranges),
                Ok(Some(Arrival::Push)) => self.serving.push_all(),
                // Only a source sends these.
                Ok(Some(_)) => self.lose_link(&Broken::Malformed(godwit_handoff::Malformed::BadValue("direction"))),
                Ok(None) => break,
                Err(error) => self.lose_link(&error),
            }
        }
    }

    fn perform(&mut self, action: Action) {
        let deed = action.deed();
        let result = match action {
            Action::WriteJournal(record) if record.stage == Stage::CommitSent => {
                self.confirm_store().and_then(|()| self.note(record))
            }
            Action::WriteJournal(record) => self.note(record),
            Action::Freeze => self.freeze(),
            Action::Capture => self.capture(),
            Action::Send { step, round } => match self.send_round(step) {
                Ok(left) => return self.feed(Event::Sent { round, left }),
                Err(refusal) => Err(refusal),
            },
            Action::Finish => {
                if self.leaves
                    && let Err(refusal) = self.send()
                {
                    return self.feed(Event::Failed { deed, refusal: report::opaque(&refusal) });
                }
                self.feed(Event::AllSent(self.pump.totals));
                self.captives.iter_mut().for_each(Captives::forget_looks);
                return self.hold_early();
            }
            Action::HoldStopped => self.hold(),
            Action::KillSource => self.kill(),
            Action::StopSending => {
                (self.captives, self.rounds) = (None, None);
                self.serving = Serving::default();
                Ok(())
            }
            Action::Thaw => self.thaw(),
            Action::Reconnect => return self.reconnect(),
            Action::Serve => self.begin_serving(),
            // The tree is let go together with the hold, by Thaw. The rest is the destination's.
            Action::ReleaseHold => Ok(()),
            Action::Examine { .. } | Action::Receive | Action::Build(_) | Action::Resume | Action::Discard => Ok(()),
            Action::Fetch => Ok(()),
        };
        self.tell();
        match result {
            Ok(()) => self.feed(Event::Done(deed)),
            Err(refusal) => self.feed(Event::Failed { deed, refusal: report::opaque(&refusal) }),
        }
    }

    fn note(&mut self, record: Record) -> Result<(), Refusal> {
        let Some(journal) = &mut self.journal else { return Ok(()) };
        let begins = record.stage == Stage::Started;
        let ends = record.stage == Stage::Done;
        journal.append(record, &self.details)?;
        if begins && let Some(guardian) = &mut self.guardian {
            guardian.await_ready()?;
        }
        if ends && let Some(guardian) = self.guardian.take() {
            guardian.dismiss();
        }
        Ok(())
    }

    fn freeze(&mut self) -> Result<(), Refusal> {
        let frozen = self.frozen.insert(freeze::freeze(self.pid, std::mem::take(&mut self.preparation))?);
        self.report.processes = frozen.processes.len() as u64;
        self.report.threads = frozen.processes.iter().map(|process| process.threads.len() as u64).sum();
        Ok(())
    }

    fn capture(&mut self) -> Result<(), Refusal> {
        self.look_last();
        let communicates_later = self.communicates_later();
        let (mut frozen, options) = (self.frozen.take(), std::mem::take(&mut self.options.capture));
        let mut leave = |leaving: Leaving<'_>| match leaving {
            Leaving::Part(part) => self.send_part(PartSort::Early, Some(&part)),
            Leaving::Nothing => {
                // It goes on for a moment, and nobody looks at what it writes any more.
                self.rounds = None;
                self.send_part(PartSort::Anew, None)
            }
        };
        let captured = match communicates_later {
            // What lies unread is taken out of all that has been captured.
            true => capture::capture_at_a_good_moment(&mut frozen, &options, None),
            false => capture::capture_at_a_good_moment(&mut frozen, &options, Some(&mut leave)),
        };
        (self.frozen, self.options.capture) = (frozen, options);
        let mut captives = captured?;
        if communicates_later {
            self.set_communication_apart(&mut captives.tree)?;
        }
        self.report.pages_total = pages::bytes(&captives) / godwit_image::memory::PAGE_BYTES;
        let pushed = self.take_out_held(&mut captives);
        self.leave_behind(&mut captives, pushed);
        self.report.destination_pid = captives.tree.root().map_or(self.pid, |task| task.pid.0);
        self.pump.total = pages::bytes(&captives);
        self.send_part(PartSort::Last, Some(&captives.rest()))?;
        self.hold_very_early(&captives);
        self.captives = Some(captives);
        Ok(())
    }

    fn reconnect(&mut self) {
        self.cut_stream();
        self.pump.packing.forget();
        match self.transport.connect(CONNECT) {
            Ok(lane) => {
                self.stream = Some(self.stream_of(lane, self.machine.migration()));
                self.feed(Event::LinkUp);
            }
            Err(_) => self.feed(Event::LinkLost),
        }
    }
}

fn nothing_frozen() -> Refusal {
    Refusal::new(Code::PROCESS_VANISHED, Subject::Host, "there is no frozen tree")
}
