//! Kill tests: processes of godwit are killed at random moments of a migration, or the move is disturbed in another way (see
//! [`Fault`]). What became of the moved tree is read from the numbered heartbeats that the tree itself writes to a file on a disk which
//! both hosts see.

mod fault;
mod storage;

pub use fault::Fault;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use godwit_linux::pidfd::PidFd;

use crate::beats::{self, Record};
use crate::error::Error;
use crate::godwit::{Call, Godwit};
use crate::host::Host;
use crate::pair::{Options, Pair};
use crate::workload::{self, Run, Verdict, Workload, alive};

/// How long the workload may take to get ready or to give its verdict.
const PATIENCE: Duration = Duration::from_secs(25);
/// How long the tree works before a move.
const WORK: Duration = Duration::from_millis(100);
/// How long godwit's guardians may take to settle it by themselves before `godwit recover` is called.
const ALONE: Duration = Duration::from_secs(4);
/// How long the heartbeat may stay away after `godwit recover` has ended.
const AFTER_RECOVERY: Duration = Duration::from_secs(5);
/// How long a heartbeat is watched.
const LOOK: Duration = Duration::from_millis(250);
const SIGKILL: i32 = 9;

/// What to run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The `godwit` binary.
    pub godwit: PathBuf,
    /// The executable whose `main` calls [`crate::entry`].
    pub executable: PathBuf,
    /// How many migrations.
    pub count: usize,
    /// Where the random numbers begin.
    pub seed: u64,
    /// How many at a time.
    pub jobs: usize,
    /// Only this one is killed, where it is there at the moment.
    pub role: Option<Role>,
    /// What happens, in turn.
    pub faults: Vec<Fault>,
}

/// How it ended where all is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// The host on which the tree runs, alone.
    pub host: String,
    /// `godwit recover` was needed.
    pub recovered: bool,
    /// The longest time between two beats.
    pub gap: Duration,
}

/// One migration and what came of it.
#[derive(Debug, Clone)]
pub struct Trial {
    /// Which, from 0.
    pub number: usize,
    /// What happened to whom, such as `shepherd killed`.
    pub what: String,
    /// When, after the start of godwit.
    pub moment: Duration,
    /// What came of it, or what is wrong.
    pub outcome: Result<Ending, String>,
}

/// What a process of godwit is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// `godwit migrate`.
    Migrate,
    /// Its guardian.
    SourceGuardian,
    /// `godwit receive`.
    Receive,
    /// Its child that builds the tree.
    Shepherd,
    /// A task that is being built.
    Skeleton,
    /// The shepherd's guardian.
    DestinationGuardian,
}

/// Each with its word.
const ROLES: [(Role, &str); 6] = [
    (Role::Migrate, "migrate"),
    (Role::SourceGuardian, "source guardian"),
    (Role::Receive, "receive"),
    (Role::Shepherd, "shepherd"),
    (Role::Skeleton, "skeleton"),
    (Role::DestinationGuardian, "destination guardian"),
];

impl Role {
    /// The role of this word.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        ROLES.iter().find(|(_, name)| *name == word).map(|(role, _)| *role)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(ROLES.iter().find(|(role, _)| role == self).map_or("?", |(_, word)| word))
    }
}

/// Random numbers that come again from the same seed (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % (bound.max(1) as u64)).unwrap_or_default()
    }

    fn up_to(&mut self, longest: Duration) -> Duration {
        longest.mul_f64((self.next() >> 11) as f64 / (1_u64 << 53) as f64)
    }
}

/// Runs all of them, some at a time; tells each as it comes.
///
/// # Errors
/// Where `godwit` or the workload cannot be run at all, or an undisturbed migration fails.
pub fn run(settings: &Settings, tell: impl Fn(&Trial) + Sync) -> Result<Vec<Trial>, Error> {
    let godwit = Godwit::new(&settings.godwit)?;
    let all = workload::all()?;
    let named = |name: &str| {
        let found = all.iter().find(|workload| workload.name == name);
        found.cloned().ok_or_else(|| Error::Refused(format!("there is no workload called {name}")))
    };
    let context = Context { settings, godwit, workloads: [named("heartbeat")?, named("heartbeat_locked")?] };
    // How long a migration takes here, undisturbed but for the other jobs.
    let mut took = Duration::ZERO;
    for _ in 0..3 {
        took = took.max(context.undisturbed()?);
    }
    let longest = took.mul_f64(1.2);
    let next = AtomicUsize::new(0);
    let trials = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..settings.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= settings.count {
                        break;
                    }
                    let trial = context.trial(number, longest);
                    tell(&trial);
                    trials.lock().unwrap_or_else(PoisonError::into_inner).push(trial);
                }
            });
        }
    });
    let mut trials = trials.into_inner().unwrap_or_else(PoisonError::into_inner);
    trials.sort_by_key(|trial| trial.number);
    Ok(trials)
}

struct Context<'a> {
    settings: &'a Settings,
    godwit: Godwit,
    /// Without locks and with some.
    workloads: [Workload; 2],
}

/// A tree that beats at the source, and a destination that listens.
struct Scene {
    // In this order: a host ends when everybody in it has been waited for.
    receive: Call,
    run: Run,
    pair: Pair,
}

impl Context<'_> {
    fn scene(&self, number: usize, locked: bool) -> Result<Scene, String> {
        let text = |error: Error| error.to_string();
        let pair = Pair::new(&Options {
            executable: Some(self.settings.executable.clone()),
            shared: self.settings.godwit.parent().map(PathBuf::from).into_iter().collect(),
            clocks: Some([1000, 500]),
            first_ids: Some([1000, 20000]),
        });
        let pair = pair.map_err(text)?;
        let workload = &self.workloads[usize::from(locked)];
        let mut users = workload.users();
        let user = users.swap_remove(number % users.len().max(1));
        let run = workload.start(&pair.source, user).map_err(text)?;
        run.await_ready(&pair.source, PATIENCE).map_err(|verdict| format!("before the move: {verdict}"))?;
        thread::sleep(WORK);
        let receive = self.godwit.receive(&pair.destination, &run, true, None)?;
        Ok(Scene { receive, run, pair })
    }

    fn start_migration(&self, scene: &Scene) -> Result<Call, String> {
        let target = self.godwit.target(&scene.pair.destination);
        let arguments = ["migrate", &scene.run.pid.to_string(), &target];
        self.godwit.call(&scene.pair.source, &scene.run, &arguments, None).map_err(|error| error.to_string())
    }

    /// How long a migration takes.
    fn undisturbed(&self) -> Result<Duration, Error> {
        let took = || {
            let scene = self.scene(0, false)?;
            let begin = Instant::now();
            let (status, said) = self.start_migration(&scene)?.end()?;
            let took = begin.elapsed();
            if status.success() { Ok(took) } else { Err(said) }
        };
        took().map_err(|said: String| Error::Program { program: "an undisturbed migration".to_owned(), said })
    }

    fn trial(&self, number: usize, longest: Duration) -> Trial {
        let mut random = Random(self.settings.seed.wrapping_add(number as u64));
        // The first numbers of neighbouring seeds are alike.
        let _ = (random.next(), random.next());
        let moment = random.up_to(longest);
        let faults = &self.settings.faults;
        let fault = faults.get(number % faults.len().max(1)).copied().unwrap_or(Fault::Kill);
        let mut what = String::new();
        let round = number / faults.len().max(1);
        let scene = self.scene(round / 2, round % 2 == 1 || fault == Fault::Thief);
        let outcome = scene.and_then(|scene| self.disturb(fault, scene, moment, &mut random, &mut what));
        Trial { number, what, moment, outcome }
    }

    /// Waits until all is well again, and has the tree say whether it is whole.
    fn conclude(&self, scene: Scene, mut migrate: Call, limits: Limits) -> Result<Ending, String> {
        let mut settled = self.await_settled(&scene, &mut migrate, limits.alone);
        let recovered = settled.is_err();
        if recovered && limits.recover {
            for host in [&scene.pair.destination, &scene.pair.source] {
                let call = self.godwit.call(host, &scene.run, &["recover"], None).map_err(|error| error.to_string())?;
                call.end()?;
            }
            settled = self.await_settled(&scene, &mut migrate, AFTER_RECOVERY);
        }
        let told = |what: String| {
            let (migrate, receive) = (migrate.complaints(), scene.receive.complaints());
            format!("{what}; migrate: {migrate:?}; receive: {receive:?}")
        };
        let record = settled.map_err(told)?;
        let host = if record.host == scene.pair.source.name() { &scene.pair.source } else { &scene.pair.destination };
        match scene.run.stop(host, PATIENCE).map_err(|error| error.to_string())? {
            Verdict::Pass => {}
            verdict => return Err(told(format!("{verdict}"))),
        }
        // What nobody has seen while it was watched may still have been written.
        let record = read(&scene.run).map_err(told)?;
        if record.gap > limits.gap {
            return Err(told(format!("no heartbeat for {} ms", record.gap.as_millis())));
        }
        Ok(Ending { host: record.host, recovered, gap: record.gap })
    }

    /// Waits until the tree beats in one place and the other has nothing of it.
    fn await_settled(&self, scene: &Scene, migrate: &mut Call, patience: Duration) -> Result<Record, String> {
        let deadline = Instant::now() + patience;
        loop {
            let why = match self.look(scene, migrate) {
                Ok(record) => return Ok(record),
                Err(Unsettled::Wrong(why)) => return Err(why),
                Err(Unsettled::Yet(why)) => why,
            };
            if Instant::now() > deadline {
                return Err(format!("{why}, {} s long", patience.as_secs()));
            }
        }
    }

    fn look(&self, scene: &Scene, migrate: &mut Call) -> Result<Record, Unsettled> {
        let before = read(&scene.run).map_err(Unsettled::Wrong)?;
        thread::sleep(LOOK);
        let record = read(&scene.run).map_err(Unsettled::Wrong)?;
        let ended = migrate.ended().map_err(|error| Unsettled::Wrong(error.to_string()))?;
        let Pair { source, destination, .. } = &scene.pair;
        let elsewhere = if record.host == source.name() { destination } else { source };
        if !before.all_less(&record) {
            return Err(Unsettled::Yet(format!("no heartbeat ({record:?})")));
        }
        if ended.is_none() {
            return Err(Unsettled::Yet("godwit migrate does not end".to_owned()));
        }
        if alive(elsewhere, scene.run.pid) {
            return Err(Unsettled::Yet(format!("something of it is left in {}", elsewhere.name())));
        }
        Ok(record)
    }

    /// The processes of godwit in both hosts.
    fn engines(&self, pair: &Pair) -> Vec<(Role, PidFd)> {
        let both = [(&pair.source, false), (&pair.destination, true)];
        both.into_iter().flat_map(|(host, receives)| engines(&self.settings.godwit, host, receives)).collect()
    }
}

/// What is still all right.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// How long godwit may take to settle it by itself.
    alone: Duration,
    /// Whether `godwit recover` may be needed then.
    recover: bool,
    /// The longest time without a heartbeat.
    gap: Duration,
}

enum Unsettled {
    /// It may still come right.
    Yet(String),
    /// Never.
    Wrong(String),
}

fn read(run: &Run) -> Result<Record, String> {
    beats::read(&fs::read_to_string(run.scratch("beats")).unwrap_or_default())
}

/// The processes of godwit in a host.
pub(crate) fn engines(program: &Path, host: &Host, receives: bool) -> Vec<(Role, PidFd)> {
    let namespace = |pid: &Path| fs::read_link(pid.join("ns/pid"));
    let Ok(own) = namespace(Path::new(&format!("/proc/{}", host.init_pid()))) else { return Vec::new() };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    let role = |path: &Path| -> io::Result<Option<(Role, PidFd)>> {
        let Some(pid) = path.file_name().and_then(|name| name.to_str()?.parse().ok()) else { return Ok(None) };
        let handle = PidFd::open(pid)?;
        if fs::read_link(path.join("exe"))? != program || namespace(path)? != own {
            return Ok(None);
        }
        let own_words = fs::read_to_string(path.join("cmdline"))?;
        let parent = fs::read_to_string(path.join("status"))?;
        let parent = parent.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap_or_default().trim().to_owned();
        let parent = fs::read_to_string(format!("/proc/{parent}/cmdline")).unwrap_or_default();
        // A guardian may be a copy of its engine.
        let is_guardian = fs::read_to_string(path.join("comm"))?.trim_end() == "godwit-guardian";
        let mut words = own_words.split('\0');
        let role = match words.next().unwrap_or_default() {
            _ if is_guardian => Role::SourceGuardian,
            "godwit-guardian" if receives => Role::DestinationGuardian,
            "godwit-guardian" => Role::SourceGuardian,
            "godwit-shepherd" if parent.starts_with("godwit-shepherd") => Role::Skeleton,
            "godwit-shepherd" => Role::Shepherd,
            // What a restore has forked is the tree: a signal to it is the tree's.
            _ if parent == own_words => Role::Skeleton,
            _ if receives => Role::Receive,
            _ => Role::Migrate,
        };
        Ok(Some((role, handle)))
    };
    // Whatever ends while it is looked at needs no killing.
    processes.filter_map(|path| role(&path).ok().flatten()).collect()
}
