//! The pair: both machines, the link between them, and virtual time. One run is one call of [`Pair::run`].

use std::collections::VecDeque;
use std::fmt::Write as _;

use godwit_deterministic::{Duration, Instant};
use godwit_handoff::frame::Frame;
use godwit_handoff::{
    Action, Capabilities, Destination, DestinationConfig, Event, Message, MigrationId, Packet, Patience, Reason, Side,
    Source, SourceConfig, Stage, Versions,
};

use crate::harness::dependence::Stores;
use crate::harness::fault::{AT_ACTION, AT_MESSAGE, Chooser, Death, Fault};
use crate::harness::referee::{Referee, Violation};
use crate::harness::world::{DestinationTasks, Host, World};

pub(crate) const MIGRATION: MigrationId = MigrationId([7; 16]);
const LATENCY: Duration = Duration::from_microseconds(100);
const WORK: Duration = Duration::from_microseconds(50);
const LATE: Duration = Duration::from_seconds(7);
const LONG: Duration = Duration::from_seconds(45);

#[derive(Clone, Debug)]
pub(super) enum Happening {
    /// A packet reaches `side` over the link with this number; a ghost needs no link.
    Arrives { side: Side, packet: Packet, link: u32, ghost: bool },
    /// The action at the head of this engine's queue ends.
    Acts { side: Side, engine: u32, work: u32 },
    /// The machine of `side` hears of its link.
    Link { side: Side, event: Event },
    /// Somebody restarts what died on `side`.
    Restart { side: Side },
    /// The source has put all that is owed into a page store, and says so over the link with this number.
    Stored { link: u32 },
}

/// Actions of one engine, performed one after the other.
#[derive(Debug, Default)]
struct Worker {
    queue: VecDeque<Action>,
    /// Number of the one that is being performed, so that an interrupted one is not taken for the next.
    work: u32,
    busy: bool,
}

pub(crate) struct Pair<'a> {
    pub(crate) now: Instant,
    pub(crate) world: World,
    pub(crate) referee: Referee,
    pub(crate) source: Option<Source>,
    pub(crate) destination: Option<Destination>,
    pub(super) hosts: [Host; 2],
    engines: [u32; 2],
    workers: [Worker; 2],
    pub(super) pending: Vec<(Instant, u64, Happening)>,
    /// When the last packet in each direction arrives: the link keeps their order.
    arrived: [Instant; 2],
    sequence: u64,
    pub(super) link: Option<u32>,
    links: u32,
    network_down_until: Instant,
    chooser: Chooser<'a>,
    /// What happened, if somebody wants to read it.
    pub(crate) trace: Option<String>,
    pub(crate) events: u64,
    pub(crate) faults: Vec<Fault>,
    /// The tasks at the destination cannot run before the source's have ended.
    pub(crate) awaits: bool,
    /// Pages are owed when the tasks run at the destination.
    pub(crate) owes: bool,
    /// What is owed is in a page store: before the tasks run there, or when the source has put it there.
    pub(crate) stores: Option<Stores>,
    /// The resumption that waits for that: engine and work.
    parked: Option<(u32, u32)>,
}

pub(super) fn index(side: Side) -> usize {
    match side {
        Side::Source => 0,
        Side::Destination => 1,
    }
}

fn other(side: Side) -> Side {
    match side {
        Side::Source => Side::Destination,
        Side::Destination => Side::Source,
    }
}

pub(crate) fn source_config(boot: godwit_handoff::BootId) -> SourceConfig {
    SourceConfig {
        migration: MIGRATION,
        boot,
        versions: Versions::SUPPORTED,
        capabilities: Capabilities::default(),
        requirements: b"what it needs".to_vec(),
        row: godwit_strategy::parse("total-copy").expect("it is in the table"),
        dry_run: false,
        store: false,
        patience: Patience::default(),
    }
}

impl<'a> Pair<'a> {
    pub(crate) fn new(
        chooser: Chooser<'a>,
        configure: impl FnOnce(&mut SourceConfig, &mut DestinationConfig),
    ) -> Pair<'a> {
        let hosts = [Host::new(1), Host::new(2)];
        let now = Instant::ORIGIN + Duration::from_seconds(1);
        let mut source = source_config(hosts[0].boot);
        let mut destination = DestinationConfig {
            migration: MIGRATION,
            boot: hosts[1].boot,
            versions: Versions::SUPPORTED,
            capabilities: Capabilities::default(),
            patience: Patience::default(),
        };
        configure(&mut source, &mut destination);
        let mut source = Source::new(source).expect("the machine can run the row");
        source.handle(now, Event::Start);
        Pair {
            now,
            world: World::new(),
            referee: Referee::default(),
            source: Some(source),
            destination: Some(Destination::new(now, destination)),
            hosts,
            engines: [0; 2],
            workers: Default::default(),
            pending: Vec::new(),
            arrived: [now; 2],
            sequence: 0,
            link: Some(0),
            links: 0,
            network_down_until: Instant::ORIGIN,
            chooser,
            trace: None,
            events: 0,
            faults: Vec::new(),
            awaits: false,
            owes: false,
            stores: None,
            parked: None,
        }
    }

    pub(crate) fn host(&self, side: Side) -> &Host {
        &self.hosts[index(side)]
    }

    fn log(&mut self, line: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(trace) = &mut self.trace {
            let _ = writeln!(trace, "{:>14.3} ms  {}", now.nanoseconds() as f64 / 1e6, line());
        }
    }

    fn schedule(&mut self, at: Instant, happening: Happening) {
        self.sequence += 1;
        self.pending.push((at, self.sequence, happening));
    }

    /// Runs until nothing is left to happen, heals what died, and judges the end.
    pub(crate) fn run(&mut self) -> Result<(), Violation> {
        self.run_until_quiet()?;
        self.chooser = Chooser::Never;
        for _ in 0..4 {
            if !self.heal() {
                break;
            }
            self.run_until_quiet()?;
        }
        self.judge()
    }

    /// Runs until nothing is left to happen.
    pub(crate) fn run_until_quiet(&mut self) -> Result<(), Violation> {
        loop {
            self.drain()?;
            let engines = [self.source.is_some(), self.destination.is_some()];
            let believes_in_doubt = self.source.as_ref().is_some_and(Source::is_in_doubt);
            if believes_in_doubt && self.world.source.run() && !self.referee.rollback_not_noted {
                return Err("the source believes that it is in doubt, and its tasks run".to_owned());
            }
            self.referee.check(&self.world, &self.hosts[0], &self.hosts[1], engines)?;
            if !self.step()? {
                return Ok(());
            }
            if self.events > 100_000 {
                return Err("it never comes to rest".to_owned());
            }
        }
    }

    /// One event; false if there is none.
    fn step(&mut self) -> Result<bool, Violation> {
        if let Some((engine, work)) = self.parked.filter(|_| !self.world.source.alive) {
            self.parked = None;
            self.schedule(self.now, Happening::Acts { side: Side::Destination, engine, work });
        }
        let next = self.pending.iter().enumerate().min_by_key(|(_, (at, sequence, _))| (*at, *sequence));
        let next = next.map(|(position, (at, ..))| (position, *at));
        let timers = [
            self.source.as_ref().and_then(Source::poll_timeout),
            self.destination.as_ref().and_then(Destination::poll_timeout),
        ];
        let timer = timers.into_iter().flatten().min();
        self.events += 1;
        match (next, timer) {
            (None, None) => return Ok(false),
            (Some((position, at)), timer) if timer.is_none_or(|timer| at <= timer) => {
                self.now = self.now.max(at);
                let (.., happening) = self.pending.swap_remove(position);
                self.happen(happening)?;
            }
            (_, Some(timer)) => {
                self.now = self.now.max(timer);
                for side in [Side::Source, Side::Destination] {
                    if timers[index(side)].is_some_and(|due| due <= self.now) {
                        self.feed(side, Event::Timeout);
                    }
                }
            }
            _ => {}
        }
        Ok(true)
    }

    pub(crate) fn feed(&mut self, side: Side, event: Event) {
        self.log(|| format!("{side}: {event:?}"));
        let now = self.now;
        match side {
            Side::Source => self.source.iter_mut().for_each(|machine| machine.handle(now, event.clone())),
            Side::Destination => self.destination.iter_mut().for_each(|machine| machine.handle(now, event.clone())),
        }
    }

    fn poll(&mut self, side: Side) -> (Vec<Packet>, Vec<Action>) {
        let (mut packets, mut actions) = (Vec::new(), Vec::new());
        match side {
            Side::Source => {
                if let Some(machine) = &mut self.source {
                    packets.extend(std::iter::from_fn(|| machine.poll_message()));
                    actions.extend(std::iter::from_fn(|| machine.poll_action()));
                }
            }
            Side::Destination => {
                if let Some(machine) = &mut self.destination {
                    packets.extend(std::iter::from_fn(|| machine.poll_message()));
                    actions.extend(std::iter::from_fn(|| machine.poll_action()));
                }
            }
        }
        (packets, actions)
    }

    fn drain(&mut self) -> Result<(), Violation> {
        for side in [Side::Source, Side::Destination] {
            let (packets, actions) = self.poll(side);
            for packet in packets {
                self.log(|| format!("{side}: says {:?}", packet.message));
                let record = self.hosts[index(side)].record();
                self.referee.said(side, &packet.message, &self.world, record.as_ref())?;
                let Some(link) = self.link else { continue };
                let wait = if matches!(self.chooser, Chooser::Dice(..)) {
                    Duration::from_milliseconds(self.chooser.milliseconds(0, 3))
                } else {
                    Duration::ZERO
                };
                let at = self.arrived[index(side)].max(self.now + LATENCY + wait);
                self.arrived[index(side)] = at;
                self.schedule(at, Happening::Arrives { side: other(side), packet, link, ghost: false });
            }
            for action in actions {
                self.log(|| format!("{side}: is to {action:?}"));
                let worker = &mut self.workers[index(side)];
                if action.interrupts() {
                    let was_busy = worker.busy && worker.queue.front().is_some_and(Action::is_interruptible);
                    worker.queue.retain(|queued| !queued.is_interruptible());
                    worker.busy &= !was_busy;
                    worker.work += u32::from(was_busy);
                }
                worker.queue.push_back(action);
            }
            self.begin_work(side, Duration::ZERO);
        }
        Ok(())
    }

    fn begin_work(&mut self, side: Side, delay: Duration) {
        let worker = &mut self.workers[index(side)];
        if worker.busy || worker.queue.is_empty() {
            return;
        }
        worker.busy = true;
        worker.work += 1;
        let work = worker.work;
        let wait = match self.chooser {
            Chooser::Dice(..) => Duration::from_milliseconds(self.chooser.milliseconds(0, 3)),
            _ => WORK,
        };
        let engine = self.engines[index(side)];
        self.schedule(self.now + wait + delay, Happening::Acts { side, engine, work });
    }

    fn happen(&mut self, happening: Happening) -> Result<(), Violation> {
        match happening {
            Happening::Arrives { side, packet, link, ghost } => self.arrive(side, packet, link, ghost),
            Happening::Acts { side, engine, work } => {
                let worker = &self.workers[index(side)];
                if engine != self.engines[index(side)] || work != worker.work || !worker.busy {
                    return Ok(());
                }
                self.act(side, engine, work)
            }
            Happening::Link { side, event } => {
                self.feed(side, event);
                Ok(())
            }
            Happening::Restart { side } => {
                self.restart(side);
                Ok(())
            }
            Happening::Stored { link } => {
                self.store(link);
                Ok(())
            }
        }
    }

    fn arrive(&mut self, side: Side, packet: Packet, link: u32, ghost: bool) -> Result<(), Violation> {
        if !ghost && self.link != Some(link) {
            return Ok(());
        }
        let heartbeat = packet.message == Message::Heartbeat;
        let fault = self.chooser.choose(&AT_MESSAGE, heartbeat);
        if let Some(fault) = fault {
            self.log(|| format!("  !! {fault:?} at {:?} to {side}", packet.message));
            self.faults.push(fault);
        }
        let mut times = 1;
        match fault {
            Some(Fault::Lose) => return Ok(()),
            Some(Fault::Cut) => return self.cut(),
            Some(Fault::Partition) => return self.partition(),
            Some(Fault::Delay) => {
                let at = self.now + LONG;
                self.arrived[index(other(side))] = at;
                self.schedule(at, Happening::Arrives { side, packet, link, ghost });
                return Ok(());
            }
            Some(Fault::Double) => times = 2,
            Some(Fault::Ghost) => {
                let at = self.now + LONG;
                self.schedule(at, Happening::Arrives { side, packet: packet.clone(), link, ghost: true });
            }
            Some(Fault::Stray) => {
                let harmful =
                    [Message::Ready { root: 7 }, Message::Commit, Message::Resumed, Message::Abort(Reason::Cancelled)];
                for message in harmful {
                    let stray = Packet { migration: MigrationId([8; 16]), message };
                    self.feed(side, Event::Received(stray));
                }
            }
            Some(Fault::Late) => {
                self.schedule(self.now + LATE, Happening::Arrives { side, packet, link, ghost: true });
                return Ok(());
            }
            Some(Fault::DieBefore(victim, death)) => self.die(victim, death)?,
            Some(Fault::Cancel(victim)) => self.feed(victim, Event::Cancel),
            _ => {}
        }
        // The packet crosses as bytes, so that the codec is a part of every run.
        let mut bytes = Vec::new();
        Frame::Packet(packet).encode(&mut bytes).map_err(|error| format!("not encoded: {error}"))?;
        for _ in 0..times {
            let (frame, length) = Frame::split(&bytes).ok().flatten().ok_or("not decoded")?;
            let (Frame::Packet(packet), true) = (frame, length == bytes.len()) else {
                return Err("decoded as something else".to_owned());
            };
            let there = [self.source.is_some(), self.destination.is_some()][index(side)];
            if there {
                self.referee.heard(side, &packet.message);
                self.feed(side, Event::Received(packet));
            }
        }
        match fault {
            Some(Fault::FailAfter) => self.cut(),
            Some(Fault::DieAfter(victim, death)) => self.die(victim, death),
            _ => Ok(()),
        }
    }

    /// Whether what is owed can come.
    fn is_served(&self) -> bool {
        let serves = self.source.as_ref().is_some_and(Source::is_serving);
        self.link.is_some() && self.world.source.alive && serves
    }

    fn act(&mut self, side: Side, engine: u32, work: u32) -> Result<(), Violation> {
        let fault = self.chooser.choose(&AT_ACTION, false);
        if let Some(fault) = fault {
            let action = self.workers[index(side)].queue.front().cloned();
            self.log(|| format!("  !! {fault:?} at {action:?} of {side}"));
            self.faults.push(fault);
        }
        match fault {
            Some(Fault::Delay) => {
                self.schedule(self.now + LONG, Happening::Acts { side, engine, work });
                return Ok(());
            }
            Some(Fault::Cut) => self.cut()?,
            Some(Fault::Partition) => self.partition()?,
            Some(Fault::DieBefore(victim, death)) => self.die(victim, death)?,
            Some(Fault::Cancel(victim)) => {
                self.feed(victim, Event::Cancel);
                // What it asks for now must be able to interrupt this action.
                self.drain()?;
            }
            _ => {}
        }
        let served = self.is_served() || self.world.stored;
        let worker = &mut self.workers[index(side)];
        if engine != self.engines[index(side)] || work != worker.work {
            return Ok(());
        }
        if worker.queue.front() == Some(&Action::Fetch) && !served && fault.is_none() {
            self.schedule(self.now + Duration::from_seconds(1), Happening::Acts { side, engine, work });
            return Ok(());
        }
        if self.awaits && self.world.source.alive && worker.queue.front() == Some(&Action::Resume) {
            self.parked = Some((engine, work));
            return Ok(());
        }
        worker.busy = false;
        let Some(action) = worker.queue.pop_front() else { return Ok(()) };
        let deed = action.deed();
        let mut reports = Vec::new();
        if fault != Some(Fault::Lose) {
            for _ in 0..1 + usize::from(fault == Some(Fault::Double)) {
                reports.push(self.perform(side, &action)?);
            }
        }
        match fault {
            Some(Fault::DieAfter(victim, death)) => {
                self.die(victim, death)?;
                if victim == side {
                    return Ok(());
                }
            }
            Some(Fault::Lose | Fault::FailAfter) => {
                self.referee.failed_to_note(side, deed, &self.hosts[index(side)]);
                let refusal = "injected".into();
                reports = vec![match &action {
                    Action::Reconnect => Event::LinkLost,
                    Action::Examine { .. } => Event::Refused(vec!["injected".into()]),
                    Action::Resume => Event::ResumeFailed { refusal, may_have_run: !reports.is_empty() },
                    _ => Event::Failed { deed, refusal },
                }];
            }
            _ => {}
        }
        for report in reports {
            self.feed(side, report);
            self.drain()?;
        }
        self.begin_work(side, Duration::ZERO);
        Ok(())
    }

    fn perform(&mut self, side: Side, action: &Action) -> Result<Event, Violation> {
        self.referee.action(side, action, &self.world, &self.hosts[index(side)])?;
        Ok(match action {
            Action::WriteJournal(record) => {
                self.hosts[index(side)].write(record);
                Event::noted(record.stage)
            }
            Action::HoldStopped => {
                if self.awaits && side == Side::Destination {
                    self.feed(side, Event::AwaitsSource);
                }
                if self.owes && side == Side::Destination {
                    self.feed(side, Event::Owes);
                    self.world.owed = true;
                    if self.stores == Some(Stores::Before) {
                        self.world.stored = true;
                        self.feed(side, Event::Stored);
                    }
                }
                self.world.hold(side)
            }
            Action::Reconnect => self.reconnect(),
            _ => {
                if let (Action::Serve, Some(Stores::After), Some(link)) = (action, self.stores, self.link) {
                    self.schedule(self.now + LATENCY, Happening::Stored { link });
                }
                let report = self.world.perform(action);
                self.referee.ran |= self.world.destination == DestinationTasks::Running;
                report
            }
        })
    }

    fn reconnect(&mut self) -> Event {
        if self.destination.is_none() || self.now < self.network_down_until {
            return Event::LinkLost;
        }
        self.links += 1;
        self.arrived = [self.now; 2];
        let at = self.now;
        if self.link.replace(self.links).is_some() {
            self.schedule(at, Happening::Link { side: Side::Destination, event: Event::LinkLost });
        }
        self.schedule(at, Happening::Link { side: Side::Destination, event: Event::LinkUp });
        Event::LinkUp
    }

    fn cut(&mut self) -> Result<(), Violation> {
        if self.link.take().is_some() {
            for side in [Side::Source, Side::Destination] {
                self.schedule(self.now + LATENCY, Happening::Link { side, event: Event::LinkLost });
            }
        }
        Ok(())
    }

    fn partition(&mut self) -> Result<(), Violation> {
        self.link = None;
        self.network_down_until = self.now + Duration::from_seconds(100);
        Ok(())
    }

    pub(super) fn die(&mut self, side: Side, death: Death) -> Result<(), Violation> {
        let there = [self.source.is_some(), self.destination.is_some()][index(side)];
        match side {
            Side::Source => self.source = None,
            Side::Destination => self.destination = None,
        }
        self.engines[index(side)] += 1;
        self.workers[index(side)] = Worker::default();
        self.world.engine_died(side);
        let host = &mut self.hosts[index(side)];
        let committed = host.record().is_some_and(|record| matches!(record.stage, Stage::Committed | Stage::Owing));
        self.referee.lost_when_committed |= death == Death::Host && side == Side::Destination && committed;
        match death {
            Death::Engine => {}
            Death::EngineAndJournal => {
                host.journal.clear();
                host.flushed = 0;
                self.referee.forgotten = true;
            }
            Death::Host => {
                host.restart(side);
                self.world.host_died(side);
                match side {
                    Side::Source => self.referee.source_host_died = true,
                    Side::Destination => self.referee.destination_host_died = true,
                }
            }
        }
        // The other side hears of the end of the connection; the dead one's own notices die with it.
        if self.link.take().is_some() {
            self.schedule(self.now + LATENCY, Happening::Link { side: other(side), event: Event::LinkLost });
        }
        self.pending.retain(|(.., happening)| !matches!(happening, Happening::Link { side: to, .. } if *to == side));
        if there {
            let wait = Duration::from_milliseconds(self.chooser.milliseconds(1_000, 90_000));
            self.schedule(self.now + wait, Happening::Restart { side });
        }
        Ok(())
    }

    pub(super) fn restart(&mut self, side: Side) {
        let host = &self.hosts[index(side)];
        let record = host.record();
        let (now, boot) = (self.now, host.boot);
        match side {
            Side::Source if self.source.is_none() => {
                self.source = record.and_then(|record| Source::recover(now, &record, boot, Patience::default()));
            }
            Side::Destination if self.destination.is_none() => {
                self.destination =
                    Some(Destination::recover(now, MIGRATION, record.as_ref(), boot, Patience::default()));
                if self.awaits {
                    self.feed(side, Event::AwaitsSource);
                }
            }
            _ => {}
        }
        self.log(|| format!("{side}: restarted"));
    }
}
