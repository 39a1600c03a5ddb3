//! The destination's driver, and how a daemon has it run: for each connection a small single-threaded process of its own, the
//! shepherd, because a tree is never built by a fork of a threaded daemon.
use crate::build::Build;
use crate::door;
use crate::guardian::Guardian;
use crate::hold;
use crate::host::{self, Clock};
use crate::journal::{Details, Journal, Member};
use crate::relocation;
use crate::report::{self, Observer, OnProgress, Progress, name_of};
use crate::requirement::{Judgement, Requirements};
use crate::shepherd::{NOTICE_EVERY, Notice, tell};
use crate::stream::{Arrival, Broken, Stream};
use crate::transport::Lane;
use fetching::Fetch;
use godwit_engine::foresight::Foresight;
use godwit_handoff::{
    Action, Destination, DestinationConfig, Event, Message, Outcome, Packet, Patience, Record, Side, Stage, Versions,
};
use godwit_image::task::State;
use godwit_image::{Code, Refusal, Subject};
use godwit_linux::poll::{self, Readiness};
use godwit_linux::scheduling::{Heirs, Urgency};
use godwit_linux::signal;
use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

mod claims;
mod conclusion;
mod fetching;
mod storing;
mod taking_in;

pub use crate::reception::{Options, Received, Setting};
pub use crate::shepherd::{receive, receive_over_standard_streams};

/// How long another process may act on the same migration before we give up: it was asked to hurry.
const LOCK_PATIENCE: Duration = Duration::from_secs(15);
/// Memory of a tree from which on the link is read by a thread of its own.
const READ_AHEAD_BYTES: u64 = 16 << 20;
const SIGHUP: i32 = 1;
const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;
const SIGTRAP: i32 = 5;

/// Takes part in one hand-off (or answers questions about an earlier one) at the end of a lane. To be called in a process that has
/// only one thread and is used for nothing else: it becomes the parent of the tree. `resumed` is told the root's number when the
/// tree runs.
///
/// # Errors
/// Why no tree came.
pub fn serve(
    lane: Lane,
    options: &Options,
    observer: Option<Observer>,
    resumed: &mut dyn FnMut(i32),
    progress: OnProgress<'_>,
) -> Result<Received, Vec<Refusal>> {
    let signals = quiet_signals().map_err(|refusal| vec![refusal])?;
    let mut stream = Stream::new(lane);
    let first = first_packet(&mut stream, &signals, options.patience.greet.into()).map_err(|refusal| vec![refusal])?;
    let answered = || Ok(Received { outcome: "answered".to_owned(), ..Received::default() });
    if claims::answer(&first, options, &mut stream) {
        return answered();
    }
    if !matches!(first.message, Message::Hello { .. }) {
        let given = door::hand_over(&options.run_directory, stream, &first).map_err(|refusal| vec![refusal])?;
        match given {
            // A further lane of an engine that is not there is nobody's.
            Some(back) if !matches!(first.message, Message::Lane { .. }) => stream = back,
            _ => return answered(),
        }
    }
    let (mut driver, first) = begin(stream, signals, first, options, observer, resumed, progress)?;
    driver.observe("received", name_of(&first.message));
    driver.feed_received(first);
    driver.run();
    match driver.relocation.take() {
        None => driver.conclude(),
        Some(numbers) => driver.move_inside(&numbers),
    }
}

/// As [`serve`], in namespaces made for the job, after another shepherd has heard (and answered) `heard`.
pub(crate) fn serve_again(
    lane: Lane,
    heard: Vec<Packet>,
    options: &Options,
    observer: Option<Observer>,
    teller: &mut File,
) -> Result<Received, Vec<Refusal>> {
    let signals = quiet_signals().map_err(|refusal| vec![refusal])?;
    let teller = std::cell::RefCell::new(teller);
    let mut last = 0;
    let mut progress = |progress: &Progress| {
        if progress.bytes_done >= last + NOTICE_EVERY {
            last = progress.bytes_done;
            tell(*teller.borrow_mut(), &Notice::Progress(progress.bytes_done, progress.bytes_total));
        }
    };
    let mut resumed = |root: i32| tell(*teller.borrow_mut(), &Notice::Resumed(root));
    let mut heard = VecDeque::from(heard);
    let Some(first) = heard.pop_front() else { return Ok(Received::default()) };
    let (mut driver, first) = begin(Stream::new(lane), signals, first, options, observer, &mut resumed, &mut progress)?;
    // What was answered to these has left already; the last is the offer, whose examination has not been answered.
    driver.mute = true;
    driver.feed_received(first);
    for packet in heard {
        driver.feed_received(packet);
    }
    driver.mute = false;
    driver.run();
    driver.conclude()
}

/// From now on the signals that end a shepherd arrive at a descriptor; what else arrives while a tree is half built waits.
fn quiet_signals() -> Result<OwnedFd, Refusal> {
    let hurry = signal::bit(SIGHUP) | signal::bit(SIGINT) | signal::bit(SIGTERM);
    let signals = signal::listen(hurry).map_err(|error| {
        Refusal::new(Code::KERNEL_CALL, Subject::Process(std::process::id() as i32), error.to_string())
    })?;
    signal::set_own_mask(!signal::bit(SIGTRAP));
    Ok(signals)
}

/// The driver for a lane on which `first` was said first.
fn begin<'a>(
    mut stream: Stream,
    signals: OwnedFd,
    first: Packet,
    options: &'a Options,
    observer: Option<Observer>,
    resumed: &'a mut dyn FnMut(i32),
    progress: OnProgress<'a>,
) -> Result<(Driver<'a>, Packet), Vec<Refusal>> {
    let one = |refusal: Refusal| vec![refusal];
    if options.answer_only && matches!(first.message, Message::Hello { .. }) {
        let cause = "one tree was awaited and has come; only questions about it are answered";
        return Err(one(Refusal::new(Code::USAGE, Subject::Object(stream.peer().to_owned()), cause)));
    }
    let (clock, migration, boot) = (Clock::start(), first.migration, host::boot_id());
    let (machine, journal) = if let Message::Hello { .. } = first.message {
        let config = DestinationConfig {
            migration,
            boot,
            versions: Versions::SUPPORTED,
            capabilities: host::capabilities(),
            patience: options.patience,
        };
        (Destination::new(clock.now(), config), None)
    } else {
        let directory = &options.run_directory;
        let journal = Journal::take_over(directory, migration, Side::Destination, LOCK_PATIENCE).map_err(one)?;
        let record = journal.as_ref().and_then(|journal| journal.last());
        let mut machine = Destination::recover(clock.now(), migration, record, boot, options.patience);
        if journal.as_ref().is_some_and(|journal| !journal.details().claims.is_empty()) {
            machine.handle(clock.now(), Event::AwaitsSource);
        }
        machine.handle(clock.now(), Event::LinkUp);
        (machine, journal)
    };
    // Before the numbers of the tree are looked for: these take some themselves.
    stream.beat(migration, options.patience.heartbeat.into(), true);
    let guarded = options.guardian && matches!(first.message, Message::Hello { .. });
    let start = || Guardian::start(&options.run_directory, migration, Side::Destination);
    let guardian = guarded.then(start).transpose().map_err(one)?;
    // The members' numbers count where they were written down.
    let details = journal.as_ref().map_or_else(|| Details::own(stream.peer(), 0, Vec::new()), Journal::details);
    let driver = Driver {
        clock,
        options,
        observer,
        machine,
        details,
        stream: Some(stream),
        signals,
        queue: VecDeque::new(),
        journal,
        build: Build::new(),
        receive_failed: false,
        fetch: Fetch::default(),
        storing: storing::Storing::default(),
        root: 0,
        pages: 0,
        guardian,
        second: None,
        broken: None,
        heard: Vec::new(),
        mute: false,
        signalled: false,
        relocation: None,
        resumed,
        progress,
    };
    Ok((driver, first))
}

/// Settles what an earlier shepherd left, from its journal: discards what was not committed, resumes what was.
///
/// # Errors
/// It could not be settled.
pub(crate) fn recover(journal: Journal, patience: Patience) -> Result<Outcome, Vec<Refusal>> {
    let one = |refusal: Refusal| vec![refusal];
    let details = journal.details();
    let Some(record) = journal.last().cloned() else { return Ok(Outcome::Unknown) };
    let clock = Clock::start();
    let mut machine = Destination::recover(clock.now(), record.migration, Some(&record), host::boot_id(), patience);
    if !details.claims.is_empty() {
        machine.handle(clock.now(), Event::AwaitsSource);
    }
    let options = Options { patience, guardian: false, ..Options::default() };
    let signals =
        signal::listen(0).map_err(|error| one(Refusal::new(Code::KERNEL_CALL, Subject::Host, error.to_string())))?;
    let mut driver = Driver {
        clock,
        options: &options,
        observer: None,
        machine,
        details,
        stream: None,
        signals,
        queue: VecDeque::new(),
        journal: Some(journal),
        build: Build::new(),
        receive_failed: false,
        fetch: Fetch::default(),
        storing: storing::Storing::default(),
        root: 0,
        pages: 0,
        guardian: None,
        second: None,
        broken: None,
        heard: Vec::new(),
        mute: false,
        signalled: false,
        relocation: None,
        resumed: &mut |_| {},
        progress: &mut |_| {},
    };
    driver.settle_machine();
    driver.run();
    let troubles: Vec<Refusal> = driver.machine.troubles().iter().map(report::trouble).collect();
    if troubles.is_empty() { Ok(driver.machine.outcome().cloned().unwrap_or(Outcome::Unknown)) } else { Err(troubles) }
}

/// The first thing that is said on a lane.
fn first_packet(stream: &mut Stream, signals: &OwnedFd, patience: Duration) -> Result<Packet, Refusal> {
    let begin = std::time::Instant::now();
    let lost = |peer: &str, cause: String| Refusal::new(Code::LINK_LOST, Subject::Object(peer.to_owned()), cause);
    loop {
        match stream.next() {
            Ok(Some(Arrival::Packet(packet))) => return Ok(packet),
            Ok(Some(_)) => {
                let subject = Subject::Object(stream.peer().to_owned());
                return Err(Refusal::new(Code::MALFORMED, subject, "it does not begin with a message"));
            }
            Ok(None) => {}
            Err(Broken::Malformed(error)) => {
                let subject = Subject::Object(stream.peer().to_owned());
                return Err(Refusal::new(Code::MALFORMED, subject, error.to_string()));
            }
            Err(error) => return Err(lost(stream.peer(), error.to_string())),
        }
        let Some(left) = patience.checked_sub(begin.elapsed()) else {
            return Err(lost(stream.peer(), "it says nothing".to_owned()));
        };
        let [reader, _] = stream.interest(false);
        let ready = poll::wait(&[reader, (signals.as_fd(), Readiness::READABLE)], Some(left));
        if ready.is_ok_and(|ready| ready[1].readable) {
            return Err(lost(stream.peer(), "ended by a signal".to_owned()));
        }
    }
}

struct Driver<'a> {
    clock: Clock,
    options: &'a Options,
    observer: Option<Observer>,
    machine: Destination,
    details: Details,
    stream: Option<Stream>,
    signals: OwnedFd,
    queue: VecDeque<Action>,
    journal: Option<Journal>,
    build: Build,
    receive_failed: bool,
    fetch: Fetch,
    storing: storing::Storing,
    root: i32,
    pages: u64,
    guardian: Option<Guardian>,
    /// Of a tree that will be owed pages: a second one, so that nobody reads zeros either when two of us are killed.
    second: Option<Guardian>,
    broken: Option<String>,
    /// The messages up to the offer.
    heard: Vec<Packet>,
    /// What is said now was said already.
    mute: bool,
    /// We are to hurry.
    signalled: bool,
    /// The tree must live elsewhere: its numbers.
    relocation: Option<BTreeSet<i32>>,
    resumed: &'a mut dyn FnMut(i32),
    progress: OnProgress<'a>,
}

impl Driver<'_> {
    fn observe(&mut self, moment: &str, what: impl std::fmt::Display) {
        if let Some(observer) = &mut self.observer {
            observer(&format!("{moment} {what}"));
        }
    }

    fn tell(&mut self) {
        let step = self.machine.step().map_or("undo", |step| step.row().name);
        let (bytes_done, bytes_total) = (self.build.bytes_done, self.build.bytes_total);
        (self.progress)(&Progress { step, bytes_done, bytes_total });
    }

    fn feed(&mut self, event: Event) {
        self.machine.handle(self.clock.now(), event);
        self.settle_machine();
    }

    fn feed_received(&mut self, packet: Packet) {
        if matches!(packet.message, Message::Hello { .. } | Message::Offer { .. }) {
            self.heard.push(packet.clone());
        }
        self.feed(Event::Received(packet));
    }

    fn settle_machine(&mut self) {
        while let Some(packet) = self.machine.poll_message() {
            if self.mute {
                continue;
            }
            let name = name_of(&packet.message);
            if let Some(stream) = &mut self.stream
                && let Err(error) = stream.say(packet).and_then(|()| stream.flush())
            {
                self.lose_link(&error);
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

    fn lose_link(&mut self, cause: &Broken) {
        self.fetch.lose_link();
        if let Some(stream) = self.stream.take() {
            // Whoever has a copy of the socket: the other side is to hear of it now.
            stream.cut();
            self.broken = Some(format!("{}: {cause}", stream.peer()));
            self.feed(Event::LinkLost);
        }
    }

    /// Nothing is left to do or to wait for. After the resumption a lost link is the end, too: the journal answers later questions.
    fn is_over(&self) -> bool {
        self.machine.is_ended() || (self.machine.outcome().is_some() && self.stream.is_none())
    }

    fn run(&mut self) {
        loop {
            if let Some(action) = self.queue.pop_front() {
                let deed = action.deed();
                self.observe("before", deed);
                self.perform(action);
                self.observe("after", deed);
                self.tell();
            } else if self.is_over() || self.relocation.is_some() {
                break;
            } else {
                self.turn(None);
            }
        }
        // Last words; the other side's silence decides if they do not leave.
        if let Some(stream) = &mut self.stream {
            let _ = stream.flush();
        }
    }

    /// Waits for the other side, a signal or the clock (at most `most`), and tells the machine.
    fn turn(&mut self, most: Option<Duration>) {
        let limit = self.machine.poll_timeout().map(|due| self.clock.until(due));
        let limit = limit.into_iter().chain(most).chain(self.fetching_limit()).chain(self.storing.limit()).min();
        let ready = {
            let mut files = vec![(self.signals.as_fd(), Readiness::READABLE)];
            if let Some(stream) = &self.stream {
                files.extend(stream.interest(false));
            }
            files.extend(self.fetch.interest());
            files.extend(self.storing.files().filter(|_| self.fetch.active));
            poll::wait_awake(&files, limit, self.fetch.awake()).unwrap_or_default()
        };
        if ready.first().is_some_and(|ready| ready.readable) {
            let signal = signal::next(self.signals.as_fd());
            self.signalled |= signal.is_some();
            match signal {
                // Somebody has a newer link for us, or answers in our place.
                Some(SIGHUP) => self.lose_link(&Broken::Closed),
                Some(_) => self.feed(Event::Cancel),
                None => {}
            }
        }
        // Whoever waits for a page has the first word, and then who gets one.
        self.fetch_some();
        self.listen_for_faults();
        self.answer_the_door();
        if self.stream.is_some() && ready.get(1).is_some_and(|ready| ready.readable) {
            self.listen();
            self.fetch_some();
        }
        if let Some(stream) = &mut self.stream
            && let Err(error) = stream.flush()
        {
            self.lose_link(&error);
        }
        if self.machine.poll_timeout().is_some_and(|due| self.clock.now() >= due) {
            self.feed(Event::Timeout);
        }
    }

    fn perform(&mut self, action: Action) {
        let deed = action.deed();
        let result = match action {
            Action::WriteJournal(record) => self.note(record),
            Action::Examine { requirements, dry_run, strategy } => {
                if let Ok(row) = godwit_strategy::parse(&strategy) {
                    self.build.leaves = row.leaves_pages_behind();
                    self.storing.take_row(&row);
                    self.build.prepares = row.builds_on_preparation();
                    self.fetch.wants_all = row.pushes_everything();
                }
                return self.examine(&requirements, dry_run);
            }
            Action::Receive => self.receive(),
            Action::Build(totals) => {
                let received = self.stream.as_mut().map(Stream::read_here).unwrap_or_default();
                self.pages = received.pages;
                // The tree goes on at the source as soon as that hears of it: where both see one file system, the names of its
                // sockets must lead to it again by then.
                self.build.complete(totals, received).inspect_err(|_| {
                    self.build.discard();
                })
            }
            Action::HoldStopped => self.hold(),
            Action::Resume => return self.resume(),
            Action::Discard => self.discard(),
            Action::Fetch => {
                self.fetch.active = true;
                self.fetch.urgency = Urgency::begin(Heirs::None);
                return self.fetch_some();
            }
            // The source's.
            _ => Ok(()),
        };
        match result {
            Ok(()) => self.feed(Event::Done(deed)),
            Err(refusal) => self.feed(Event::Failed { deed, refusal: report::opaque(&refusal) }),
        }
    }

    fn note(&mut self, record: Record) -> Result<(), Refusal> {
        let (directory, migration) = (&self.options.run_directory, self.machine.migration());
        let ends = record.stage == Stage::Done;
        if self.journal.is_none() && !ends {
            self.journal = Some(Journal::create(directory, migration, Side::Destination)?);
        }
        if let Some(journal) = &mut self.journal {
            journal.append(record, &self.details)?;
        }
        Ok(())
    }

    fn examine(&mut self, requirements: &[u8], dry_run: bool) {
        // The tree is frozen as soon as we accept: whatever takes a processor has started by then.
        if let Err(refusal) = self.await_guardians(dry_run) {
            return self.feed(Event::Refused(vec![report::opaque(&refusal)]));
        }
        let mut highest = 0;
        let (mut foresight, mut unseen, mut store) = (Foresight::default(), false, None);
        let judgement = Requirements::decode(requirements).map_or_else(
            |refusal| Judgement::Refused(vec![refusal]),
            |requirements| {
                self.details.root = requirements.demand.root;
                self.build.is_large = requirements.demand.memory_bytes >= READ_AHEAD_BYTES;
                self.build.expect_pages(requirements.demand.memory_bytes);
                highest = requirements.demand.descriptor.0;
                (foresight, unseen) = (requirements.demand.foresight.clone(), requirements.unseen);
                store = requirements.store.clone();
                requirements.judge(self.options.setting == Setting::WhereItFits)
            },
        );
        if !matches!(judgement, Judgement::Refused(_))
            && let Err(refusal) = self.open_store(store.as_deref())
        {
            return self.feed(Event::Refused(vec![report::opaque(&refusal)]));
        }
        if let Judgement::Here(_) = judgement {
            godwit_engine::room::for_objects(highest);
        }
        match judgement {
            Judgement::Elsewhere(numbers, _) if !dry_run => self.relocation = Some(numbers),
            Judgement::Here(changes) | Judgement::Elsewhere(_, changes) => {
                if !dry_run {
                    self.build.prepare(foresight, unseen);
                    self.stream.iter_mut().for_each(Stream::make_ready);
                }
                self.feed(Event::Accepted { changes: changes.iter().map(report::opaque).collect() });
            }
            Judgement::Refused(refusals) => self.feed(Event::Refused(refusals.iter().map(report::opaque).collect())),
        }
    }

    fn await_guardians(&mut self, dry_run: bool) -> Result<(), Refusal> {
        if self.build.leaves && self.guardian.is_some() && !dry_run {
            let directory = &self.options.run_directory;
            self.second = Some(Guardian::start(directory, self.machine.migration(), Side::Destination)?);
        }
        self.guardian.iter_mut().chain(&mut self.second).try_for_each(Guardian::await_ready)
    }

    /// Hands the connection to a shepherd inside namespaces made for the tree.
    fn move_inside(mut self, numbers: &BTreeSet<i32>) -> Result<Received, Vec<Refusal>> {
        // Nothing is in the journal: there is nothing to guard here.
        self.guardian.take().into_iter().chain(self.second.take()).for_each(Guardian::dismiss);
        let Some(stream) = self.stream.take() else { return self.conclude() };
        relocation::serve_inside(stream, &self.heard, numbers, self.options, self.resumed, self.progress)
    }

    fn hold(&mut self) -> Result<(), Refusal> {
        let restorer = self.build.restorer()?;
        self.fetch.pager = restorer.pager();
        let living = restorer.tree().tasks.iter().filter(|task| !matches!(task.state, State::Zombie(_)));
        self.details.members =
            living.map(|task| Member::now(task.pid.0, matches!(task.state, State::Stopped(_)))).collect();
        self.details.claims = restorer.claims();
        if self.fetch.pager.is_some() && !self.details.claims.is_empty() {
            let cause =
                "a tree that awaits the end of the source's tasks for its locks cannot have pages of theirs afterwards";
            return Err(Refusal::new(Code::UNSUPPORTED, Subject::Object("locks".to_owned()), cause)
                .choice("move it with a strategy that sends everything in the down time"));
        }
        let record = Record {
            side: Side::Destination,
            stage: Stage::Accepted,
            migration: self.machine.migration(),
            boot: host::boot_id(),
            details: Vec::new(),
        };
        if let Some(journal) = &mut self.journal {
            // Whoever must resume or discard them in our place needs to know them before they outlive us.
            journal.append(record, &self.details)?;
        }
        restorer.hold()?;
        if !self.details.claims.is_empty() {
            self.feed(Event::AwaitsSource);
        }
        self.entrust()?;
        self.settle_store();
        let restorer = self.build.restorer()?;
        let root = restorer.tree().root().map_or(0, |task| task.pid.0);
        self.feed(Event::Located { root: relocation::number_outside(root, self.options).unwrap_or(0) });
        Ok(())
    }

    fn discard(&mut self) -> Result<(), Refusal> {
        self.receive_failed = true;
        self.strike_owed();
        let is_done = if self.build.discard() { Ok(()) } else { hold::kill_family(&self.details) };
        if is_done.is_ok() {
            // Not before: what is missing would be zeros.
            (self.fetch.pager, self.fetch.active) = (None, false);
            self.remove_store();
        }
        is_done
    }
}
