//! What becomes of a move when something fails in one of its phases: every strategy, every phase, every fault, and what is expected of each.
//!
//! The moved process writes numbered heartbeats to a disk that both hosts see, and pages of its own all the while: the numbers tell whether
//! it ever ran twice or lost a beat, its own verification whether its memory is whole.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::beats::{self, Record};
use crate::error::Error;
use crate::godwit::{Call, Godwit, SIGCONT, state};
use crate::pair::{Options, Pair};
use crate::path::Path;
use crate::workload::{self, Run, Verdict, Workload};

/// What is moved.
const WORKLOAD: &str = "heartbeat_memory";
const READY: Duration = Duration::from_secs(25);
/// How long it works before it is moved.
const WORK: Duration = Duration::from_millis(100);
/// How long a link stays cut that heals.
const CUT: Duration = Duration::from_secs(3);
/// How long godwit may take to settle it by itself, before `godwit recover` is called, and then once more.
const ALONE: Duration = Duration::from_secs(20);
/// How long the tree may wait for what it is owed before that is given up (a minute), and some seconds to find out that a host is gone.
const OWED: Duration = Duration::from_secs(100);
/// How long a heartbeat is watched.
const LOOK: Duration = Duration::from_millis(200);
/// What is said of memory that will never come.
const LOST: [&str; 2] = ["GW1306", "GW1307"];
const SIGKILL: i32 = 9;

/// What fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Blow {
    /// The link loses everything for three seconds.
    Cut,
    /// The source's engine is killed.
    Engine,
    /// The source's host is gone, with all that ran there, and does not come back.
    Host,
    /// The page store is killed, and does not come back.
    Store,
}

/// When: as far as the source has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The destination has the offer.
    Agreement,
    /// Pages are about to leave while the tree runs.
    Preparation,
    /// The last of them have left.
    Prepared,
    /// The tree is stopped.
    Frozen,
    /// Its state has left.
    Captured,
    /// The destination is ready, and the tree is held.
    Held,
    /// The destination has been told to let it go on.
    Commit,
    /// It goes on there, and the source serves what it owes.
    Serving,
    /// It goes on there, and the source has heard of it.
    Resumed,
}

/// One move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    /// How memory moves.
    pub path: Path,
    /// When something fails.
    pub phase: Phase,
    /// What.
    pub blow: Blow,
}

/// How it ended where all is well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// It runs at the source alone, whole.
    Source,
    /// It runs at the destination alone, whole.
    Destination,
    /// It ended with its host, before it was the destination's.
    WithItsHost,
    /// Its memory was lost with those who owed it, and godwit said so and ended it.
    Lost,
}

/// A case and what came of it.
#[derive(Debug, Clone)]
pub struct Told {
    /// Which.
    pub case: Case,
    /// How it ended, or what is wrong.
    pub end: Result<End, String>,
    /// How long it took.
    pub took: Duration,
}

/// What the cases need.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The `godwit` binary.
    pub godwit: PathBuf,
    /// The executable whose `main` calls [`crate::entry`].
    pub executable: PathBuf,
    /// How many at a time; most of the time is waiting.
    pub jobs: usize,
}

impl Blow {
    /// All.
    pub const ALL: [Self; 4] = [Self::Cut, Self::Engine, Self::Host, Self::Store];

    /// In one word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Cut => "link-cut",
            Self::Engine => "engine-killed",
            Self::Host => "host-gone",
            Self::Store => "store-gone",
        }
    }
}

impl Phase {
    const ALL: [Self; 9] = [
        Self::Agreement,
        Self::Preparation,
        Self::Prepared,
        Self::Frozen,
        Self::Captured,
        Self::Held,
        Self::Commit,
        Self::Serving,
        Self::Resumed,
    ];

    /// In one word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Agreement => "agreement",
            Self::Preparation => "preparation",
            Self::Prepared => "prepared",
            Self::Frozen => "frozen",
            Self::Captured => "captured",
            Self::Held => "held",
            Self::Commit => "commit",
            Self::Serving => "serving",
            Self::Resumed => "resumed",
        }
    }

    /// What the source's driver calls the moment.
    fn moment(self) -> &'static str {
        match self {
            Self::Agreement => "sent Offer",
            Self::Preparation => "before send",
            Self::Prepared => "before freeze",
            Self::Frozen => "after freeze",
            Self::Captured => "after capture",
            Self::Held => "after hold stopped",
            Self::Commit => "sent Commit",
            Self::Serving => "before serve pages",
            Self::Resumed => "received Resumed",
        }
    }

    /// Whether a move comes through it.
    fn is_of(self, path: Path) -> bool {
        match self {
            Self::Preparation | Self::Prepared => {
                matches!(path, Path::PreCopy | Path::QueuedPreCopy | Path::AssistedPostCopy)
            }
            Self::Serving => owes(path),
            Self::Resumed => !owes(path),
            _ => true,
        }
    }
}

/// Whether the source owes something when the tree goes on at the destination. Eager-dirty leaves behind what files have, and the
/// destination has these files; with flushing the page store has everything by then.
fn owes(path: Path) -> bool {
    matches!(path, Path::PostCopy | Path::AssistedPostCopy | Path::OnReference | Path::FreezeFree)
}

impl Case {
    /// All that there are.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let mut cases = Vec::new();
        for path in Path::STRATEGIES.into_iter().filter(|path| *path != Path::Auto) {
            for phase in Phase::ALL.into_iter().filter(|phase| phase.is_of(path)) {
                let blows = Blow::ALL.into_iter().filter(|blow| *blow != Blow::Store || path.stores());
                cases.extend(blows.map(|blow| Self { path, phase, blow }));
            }
        }
        cases
    }

    /// The strategy's name.
    #[must_use]
    pub fn strategy(self) -> &'static str {
        self.path.strategy().unwrap_or("total-copy")
    }

    /// Whether it may end so.
    fn allows(self, end: End) -> bool {
        let committed = self.phase >= Phase::Commit;
        match end {
            // What was decided is never taken back.
            End::Source => self.blow != Blow::Host && self.phase <= Phase::Commit,
            End::Destination => committed || self.blow != Blow::Host,
            End::WithItsHost => !committed && self.blow == Blow::Host,
            End::Lost => {
                let owed = match self.blow {
                    Blow::Host => owes(self.path),
                    Blow::Store => self.path.stores(),
                    Blow::Cut | Blow::Engine => false,
                };
                committed && owed
            }
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {} {}", self.strategy(), self.phase.word(), self.blow.word())
    }
}

/// Runs all cases, some at a time; tells each as it comes; returns them in their order.
///
/// # Errors
/// Where `godwit` or the workload cannot be run at all.
pub fn run(settings: &Settings, cases: &[Case], tell: impl Fn(&Told) + Sync) -> Result<Vec<Told>, Error> {
    let godwit = Godwit::new(&settings.godwit)?;
    let workload = workload::all()?.into_iter().find(|workload| workload.name == WORKLOAD);
    let workload = workload.ok_or_else(|| Error::Refused(format!("there is no workload called {WORKLOAD}")))?;
    let context = Context { settings, godwit, workload };
    let (next, all) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..settings.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = cases.get(number).copied() else { break };
                    let start = Instant::now();
                    let told = Told { case, end: context.try_run(case), took: start.elapsed() };
                    tell(&told);
                    all.lock().unwrap_or_else(PoisonError::into_inner).push((number, told));
                }
            });
        }
    });
    let mut all = all.into_inner().unwrap_or_else(PoisonError::into_inner);
    all.sort_by_key(|(number, _)| *number);
    Ok(all.into_iter().map(|(_, told)| told).collect())
}

struct Context<'a> {
    settings: &'a Settings,
    godwit: Godwit,
    workload: Workload,
}

/// What is there during a move. In this order: a host ends when everybody in it has been waited for.
struct Scene {
    migrate: Call,
    receive: Call,
    store: Option<Call>,
    run: Run,
    pair: Pair,
}

/// Where the tree beats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beats {
    AtSource,
    AtDestination,
    /// Nothing of it is left anywhere.
    Nowhere,
}

fn text(error: Error) -> String {
    error.to_string()
}

impl Context<'_> {
    fn try_run(&self, case: Case) -> Result<End, String> {
        let mut scene = self.scene(case)?;
        let stopped = self.godwit.await_stopped(&scene.pair.source, case.phase.moment());
        let stopped = stopped.map_err(|why| format!("{why}; migrate: {:?}", scene.migrate.complaints()))?;
        let strike = |number: i32| stopped.send_signal(number).map_err(|error| error.to_string());
        match case.blow {
            Blow::Cut => {
                scene.pair.link.cut().map_err(text)?;
                strike(SIGCONT)?;
                thread::sleep(CUT);
                scene.pair.link.heal().map_err(text)?;
            }
            Blow::Engine => strike(SIGKILL)?,
            Blow::Host => {
                scene.pair.link.cut().map_err(text)?;
                scene.pair.source.fail().map_err(text)?;
                scene.migrate.kill();
                // Before that its tree may still beat.
                scene.pair.source.await_gone().map_err(text)?;
            }
            Blow::Store => {
                scene.store.iter_mut().for_each(Call::kill);
                strike(SIGCONT)?;
            }
        }
        let end = self.conclude(case, &mut scene).map_err(|what| {
            let (migrate, receive) = (scene.migrate.complaints(), scene.receive.complaints());
            format!("{what}; migrate: {migrate:?}; receive: {receive:?}")
        })?;
        if case.allows(end) {
            Ok(end)
        } else {
            Err(format!("it ended {end:?}; migrate: {:?}", scene.migrate.complaints()))
        }
    }

    fn scene(&self, case: Case) -> Result<Scene, String> {
        let pair = Pair::new(&Options {
            executable: Some(self.settings.executable.clone()),
            shared: self.settings.godwit.parent().map(PathBuf::from).into_iter().collect(),
            clocks: Some([1000, 500]),
            first_ids: Some([1000, 20000]),
        });
        let pair = pair.map_err(text)?;
        let run = self.workload.start(&pair.source, None).map_err(text)?;
        run.await_ready(&pair.source, READY).map_err(|verdict| format!("before the move: {verdict}"))?;
        thread::sleep(WORK);
        let receive = self.godwit.receive(&pair.destination, &run, true, None)?;
        let store = case.path.stores().then(|| self.godwit.store(&pair.destination, &run)).transpose()?;
        let (pid, target) = (run.pid.to_string(), self.godwit.target(&pair.destination));
        let address = self.godwit.store_target(&pair.destination);
        let mut arguments = vec!["migrate", &pid, &target, "--strategy", case.strategy()];
        arguments.extend(store.iter().flat_map(|_| ["--pages", &address]));
        let pause = format!("pause:{}", case.phase.moment());
        let migrate = self.godwit.call(&pair.source, &run, &arguments, Some(&pause)).map_err(text)?;
        Ok(Scene { migrate, receive, store, run, pair })
    }

    fn conclude(&self, case: Case, scene: &mut Scene) -> Result<End, String> {
        // Who waits for what will never come waits for a minute.
        let alone = if case.allows(End::Lost) { OWED } else { ALONE };
        let mut beats = Self::await_settled(case, scene, alone);
        if beats.is_err() {
            let living = [&scene.pair.destination, &scene.pair.source].into_iter();
            for host in living.take(if case.blow == Blow::Host { 1 } else { 2 }) {
                // What it says is of no use but for people: what counts is what becomes of the tree.
                self.godwit.call(host, &scene.run, &["recover"], None).map_err(text)?.end()?;
            }
            beats = Self::await_settled(case, scene, ALONE);
        }
        let host = match beats? {
            Beats::AtSource => &scene.pair.source,
            Beats::AtDestination => &scene.pair.destination,
            Beats::Nowhere if case.blow == Blow::Host && case.phase < Phase::Commit => return Ok(End::WithItsHost),
            Beats::Nowhere if is_reported(scene) => return Ok(End::Lost),
            Beats::Nowhere => return Err("nothing of it is left, and nobody says why".to_owned()),
        };
        let is_source = host.name() == scene.pair.source.name();
        let verdict = scene.run.stop(host, OWED).map_err(text)?;
        // What nobody has seen while it was watched may still have been written.
        read(&scene.run)?;
        match verdict {
            Verdict::Pass if is_source => Ok(End::Source),
            Verdict::Pass => Ok(End::Destination),
            _ if is_reported(scene) => Ok(End::Lost),
            verdict => {
                let states = [&scene.pair.source, &scene.pair.destination].map(|host| state(host, scene.run.pid));
                let beats = read(&scene.run)?;
                Err(format!(
                    "{verdict}, which beat in {}; states at source and destination: {states:?}, {beats:?}",
                    host.name()
                ))
            }
        }
    }

    /// Waits until the tree beats in one place and does not run in the other, or is nowhere.
    fn await_settled(case: Case, scene: &Scene, patience: Duration) -> Result<Beats, String> {
        let deadline = Instant::now() + patience;
        loop {
            let before = read(&scene.run)?;
            thread::sleep(LOOK);
            let after = read(&scene.run)?;
            let states = [&scene.pair.source, &scene.pair.destination].map(|host| state(host, scene.run.pid));
            // A source that owes keeps it stopped.
            let stands = |state: Option<char>| state.is_none_or(|state| matches!(state, 'T' | 't') && owes(case.path));
            let goes_on = before.all_less(&after);
            match states {
                [Some(_), None] if goes_on && after.host == scene.pair.source.name() => return Ok(Beats::AtSource),
                [there, _] if goes_on && after.host != scene.pair.source.name() && stands(there) => {
                    return Ok(Beats::AtDestination);
                }
                [None, None] => return Ok(Beats::Nowhere),
                _ if Instant::now() > deadline => {
                    return Err(format!("states at source and destination: {states:?}, {after:?}"));
                }
                _ => {}
            }
        }
    }
}

/// Whether the destination's user was told that memory is lost.
fn is_reported(scene: &Scene) -> bool {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let said = scene.receive.complaints();
        if LOST.iter().any(|code| said.contains(code)) {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn read(run: &Run) -> Result<Record, String> {
    beats::read(&fs::read_to_string(run.scratch("beats")).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_may_be_lost_before_the_commit_nor_without_owing() {
        for case in Case::all() {
            let lost = case.allows(End::Lost);
            assert!(!lost || case.phase >= Phase::Commit, "{case}");
            assert!(!lost || owes(case.path) || case.path.stores(), "{case}");
            assert_eq!(case.allows(End::WithItsHost), case.blow == Blow::Host && case.phase < Phase::Commit, "{case}");
            assert!(!matches!(case.blow, Blow::Cut | Blow::Engine) || case.allows(End::Destination), "{case}");
        }
    }

    #[test]
    fn every_strategy_is_struck_in_each_of_its_phases() {
        let cases = Case::all();
        let of = |name: &str| cases.iter().filter(|case| case.strategy() == name).count();
        // Phases times faults: six, two more of preparation; a fourth fault with a page store.
        assert_eq!(
            ["total-copy", "pre-copy", "assisted-post-copy", "flushing", "freeze-free"].map(of),
            [18, 24, 24, 24, 24]
        );
    }
}
