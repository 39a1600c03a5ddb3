//! What happens to a migration, each at a random moment of it.

use std::fmt;
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use godwit_linux::pidfd::PidFd;

use super::{ALONE, Context, Ending, Limits, Random, Role, SIGKILL, Scene};
use crate::error::Error;
use crate::godwit::Call;
use crate::host::Host;

const SIGHUP: i32 = 1;
const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;
const SIGCONT: i32 = 18;
const SIGSTOP: i32 = 19;
/// How long a link on which nothing is heard counts as one, in godwit.
const SILENCE: Duration = Duration::from_secs(10);
/// What finding each other again may take after it: a lost packet is sent again after ever longer pauses, and so is a question.
const REUNION: Duration = Duration::from_secs(14);
/// The longest cut or stall: longer than the silence that godwit bears.
const LONG: Duration = Duration::from_secs(13);
/// What is said to the later of two: the process is not there any more, has just ended, or another traces it; or its numbers are taken at the
/// destination, by the earlier one.
const LOSERS: [&str; 4] = ["GW1001", "GW1005", "GW1006", "GW1202"];
/// When a lock is stolen for sure, and not yet given back.
const STOLEN: Duration = Duration::from_millis(900);
const SHORT: Duration = Duration::from_secs(2);

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Processes of godwit are killed.
    Kill,
    /// A process of godwit gets SIGINT, SIGTERM or SIGHUP.
    Signal,
    /// The link loses every packet for a while.
    Cut,
    /// A process of godwit does nothing for a while.
    Stall,
    /// Another godwit wants the same tree at the same time.
    Twice,
    /// A stranger takes a lock of the tree's between its two owners.
    Thief,
    /// The disk with the journal of one side is full.
    Full,
    /// `godwit checkpoint` is killed or gets a signal.
    Checkpoint,
    /// `godwit restore` is killed or gets a signal.
    Restore,
}

impl Fault {
    /// All.
    pub const ALL: [Self; 9] = [
        Self::Kill,
        Self::Signal,
        Self::Cut,
        Self::Stall,
        Self::Twice,
        Self::Thief,
        Self::Full,
        Self::Checkpoint,
        Self::Restore,
    ];

    /// The fault of this word.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fault| fault.to_string() == word)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Kill => "kill",
            Self::Signal => "signal",
            Self::Cut => "cut",
            Self::Stall => "stall",
            Self::Twice => "twice",
            Self::Thief => "thief",
            Self::Full => "full",
            Self::Checkpoint => "checkpoint",
            Self::Restore => "restore",
        })
    }
}

pub(super) fn text(error: Error) -> String {
    error.to_string()
}

impl Context<'_> {
    pub(super) fn disturb(
        &self,
        fault: Fault,
        mut scene: Scene,
        moment: Duration,
        random: &mut Random,
        what: &mut String,
    ) -> Result<Ending, String> {
        match fault {
            Fault::Twice => return self.twice(scene, moment, random, what),
            Fault::Thief => return self.thief(scene, random, what),
            Fault::Full => return self.full(scene, moment, random, what),
            Fault::Checkpoint => return self.checkpoint(scene, moment, random, what),
            Fault::Restore => return self.restore(scene, moment, random, what),
            Fault::Kill | Fault::Signal | Fault::Cut | Fault::Stall => {}
        }
        let migrate = self.start_migration(&scene)?;
        thread::sleep(moment);
        let limits = match fault {
            Fault::Signal => self.signal(&mut scene, random, what)?,
            Fault::Cut => {
                let length = length(random);
                *what = "link cut".to_owned();
                scene.pair.link.cut().map_err(text)?;
                thread::sleep(length);
                scene.pair.link.heal().map_err(text)?;
                patient(length)
            }
            Fault::Stall => self.stall(&scene, random, what),
            _ => self.kill(&mut scene, random, what)?,
        };
        self.conclude(scene, migrate, limits)
    }

    fn kill(&self, scene: &mut Scene, random: &mut Random, what: &mut String) -> Result<Limits, String> {
        let mut engines = self.engines(&scene.pair);
        engines.retain(|(role, _)| self.settings.role.is_none_or(|only| only == *role));
        let victims = choose(engines, random);
        for (_, handle) in &victims {
            // It may have ended by itself just now.
            let _ = handle.send_signal(SIGKILL);
        }
        let mut killed: Vec<Role> = victims.iter().map(|(role, _)| *role).collect();
        killed.sort_unstable();
        *what = format!("{} killed", words(&killed));
        self.listen_again(scene, &killed)?;
        Ok(Limits { alone: ALONE, recover: true, gap: Duration::from_secs(15) })
    }

    /// As whoever keeps services running would do.
    fn listen_again(&self, scene: &mut Scene, ended: &[Role]) -> Result<(), String> {
        if ended.contains(&Role::Receive) {
            scene.receive.kill();
            scene.receive = self.godwit.receive(&scene.pair.destination, &scene.run, true, None)?;
        }
        Ok(())
    }

    fn signal(&self, scene: &mut Scene, random: &mut Random, what: &mut String) -> Result<Limits, String> {
        let (number, name) = [(SIGINT, "SIGINT"), (SIGTERM, "SIGTERM"), (SIGHUP, "SIGHUP")][random.below(3)];
        let mut engines = self.engines(&scene.pair);
        engines.retain(|(role, _)| *role != Role::Skeleton);
        // Mostly the one that a user sits before.
        if random.below(3) > 0 {
            engines.retain(|(role, _)| *role == Role::Migrate);
        }
        *what = format!("nobody got {name}");
        if !engines.is_empty() {
            let (role, handle) = engines.swap_remove(random.below(engines.len()));
            *what = format!("{role} got {name}");
            let _ = handle.send_signal(number);
            self.listen_again(scene, &[role])?;
        }
        // Only a guardian that is missing, too, makes a recovery necessary, and here at most one process ends.
        Ok(Limits { alone: ALONE * 2, recover: false, gap: ALONE * 2 })
    }

    fn stall(&self, scene: &Scene, random: &mut Random, what: &mut String) -> Limits {
        let mut engines = self.engines(&scene.pair);
        engines.retain(|(role, _)| *role != Role::Skeleton);
        let length = length(random);
        *what = "nobody stalled".to_owned();
        if !engines.is_empty() {
            let (role, handle) = engines.swap_remove(random.below(engines.len()));
            *what = format!("{role} stalled");
            let _ = handle.send_signal(SIGSTOP);
            thread::sleep(length);
            let _ = handle.send_signal(SIGCONT);
        }
        patient(length)
    }

    /// Two of `migrate` and `checkpoint --leave-running`.
    fn twice(&self, scene: Scene, moment: Duration, random: &mut Random, what: &mut String) -> Result<Ending, String> {
        let checkpoints = random.below(2) == 0;
        *what = if checkpoints { "checkpoint and migrate at once" } else { "two migrates at once" }.to_owned();
        let directory = scene.run.directory().join("checkpoint").display().to_string();
        let pid = scene.run.pid.to_string();
        let other = match checkpoints {
            true => self.call(&scene.pair.source, &scene, &["checkpoint", &pid, &directory, "--leave-running"])?,
            false => self.start_migration(&scene)?,
        };
        // Most meetings are early.
        thread::sleep(moment / 4);
        let migrate = self.start_migration(&scene)?;
        for call in [other, migrate] {
            let (status, said) = call.end()?;
            if !status.success() && !LOSERS.iter().any(|code| said.contains(code)) {
                return Err(format!("it does not say that another was quicker: {said}"));
            }
        }
        let nothing = self.call(&scene.pair.source, &scene, &["--version"])?;
        self.conclude(scene, nothing, Limits { alone: ALONE, recover: false, gap: ALONE })
    }

    /// A stranger waits for a lock of the tree's and gets it when the source's tasks end. The tree has to wait, also where whoever builds it
    /// is killed meanwhile.
    fn thief(&self, scene: Scene, random: &mut Random, what: &mut String) -> Result<Ending, String> {
        let host = if random.below(2) == 0 { &scene.pair.source } else { &scene.pair.destination };
        let killed = random.below(2) == 0;
        *what = format!("lock stolen{}", if killed { ", shepherd killed" } else { "" });
        let path = scene.run.scratch("flock").display().to_string();
        let mut thief = host.command("flock").args(["-x", &path, "sleep", "1.5"]).spawn().map_err(text)?;
        let migrate = self.start_migration(&scene)?;
        thread::sleep(STOLEN);
        if killed {
            let engines = self.engines(&scene.pair);
            for (_, handle) in engines.iter().filter(|(role, _)| *role == Role::Shepherd) {
                let _ = handle.send_signal(SIGKILL);
            }
        }
        let had = had_it(&mut thief)?;
        if !had {
            // The tree was quicker: both are asked when the lock is free.
            what.push_str(" in vain");
        }
        let ending = self.conclude(scene, migrate, Limits { alone: ALONE * 2, recover: false, gap: ALONE * 2 })?;
        if had && ending.gap < Duration::from_secs(1) {
            return Err(format!("it has run while a stranger had its lock: {ending:?}"));
        }
        Ok(ending)
    }

    /// A journal's disk has no room: from the beginning, or from a random moment on.
    fn full(
        &self,
        mut scene: Scene,
        moment: Duration,
        random: &mut Random,
        what: &mut String,
    ) -> Result<Ending, String> {
        let (at_source, at_once) = (random.below(2) == 0, random.below(2) == 0);
        let host = if at_source { &scene.pair.source } else { &scene.pair.destination };
        *what = format!("disk of the {} full {}", host.name(), if at_once { "before" } else { "meanwhile" });
        shell(host, "mkdir -p /run/godwit && mount -t tmpfs -o size=16k tmpfs /run/godwit")?;
        let fill = "cat /dev/zero > /run/godwit/full 2>/dev/null; test -s /run/godwit/full";
        if at_once {
            shell(host, fill)?;
        }
        let migrate = self.start_migration(&scene)?;
        if at_once {
            let (status, said) = migrate.end()?;
            if status.success() || !said.contains("GW1402") || !said.contains("No space left") {
                return Err(format!("with a full disk: {status}, {said}"));
            }
        } else {
            thread::sleep(moment);
            shell(host, fill)?;
            migrate.end()?;
        }
        shell(host, "rm /run/godwit/full")?;
        scene.receive.kill();
        scene.receive = self.godwit.receive(&scene.pair.destination, &scene.run, true, None)?;
        let none = self.call(&scene.pair.source, &scene, &["--version"])?;
        self.conclude(scene, none, Limits { alone: ALONE, recover: true, gap: Duration::from_secs(15) })
    }

    pub(super) fn call(&self, host: &Host, scene: &Scene, arguments: &[&str]) -> Result<Call, String> {
        self.godwit.call(host, &scene.run, arguments, None).map_err(text)
    }
}

/// Whether the thief has had the lock and given it back; if not, it waits no longer.
fn had_it(thief: &mut Child) -> Result<bool, String> {
    let deadline = Instant::now() + ALONE;
    loop {
        match thief.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(true),
            Ok(Some(status)) => return Err(format!("the thief: {status}")),
            Ok(None) if Instant::now() > deadline => break,
            Ok(None) => thread::sleep(Duration::from_millis(10)),
            Err(error) => return Err(error.to_string()),
        }
    }
    thief.kill().and_then(|()| thief.wait()).map(|_| false).map_err(|error| error.to_string())
}

fn shell(host: &Host, script: &str) -> Result<(), String> {
    match host.command("sh").arg("-c").arg(script).status().map_err(text)? {
        status if status.success() => Ok(()),
        status => Err(format!("{script}: {status}")),
    }
}

/// A cut or a stall: short, or so long that godwit gives the link up.
fn length(random: &mut Random) -> Duration {
    let longest = if random.below(2) == 0 { SHORT } else { LONG };
    random.up_to(longest)
}

fn patient(length: Duration) -> Limits {
    Limits { alone: SILENCE + REUNION, recover: false, gap: length + SILENCE + REUNION }
}

pub(super) fn words(roles: &[Role]) -> String {
    let words: Vec<String> = roles.iter().map(ToString::to_string).collect();
    if words.is_empty() { "nobody".to_owned() } else { words.join(" + ") }
}

/// Mostly one process, sometimes all that godwit has on one side but the listening one.
pub(super) fn choose(mut engines: Vec<(Role, PidFd)>, random: &mut Random) -> Vec<(Role, PidFd)> {
    let several = random.below(4) == 0;
    let chosen = random.below(engines.len());
    let side = |role: Role| matches!(role, Role::Migrate | Role::SourceGuardian);
    match engines.get(chosen).map(|(role, _)| *role) {
        Some(role) if several && role != Role::Receive => {
            engines.retain(|(other, _)| side(*other) == side(role) && *other != Role::Receive);
            engines
        }
        Some(_) => vec![engines.swap_remove(chosen)],
        None => engines,
    }
}
