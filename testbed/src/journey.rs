//! A real program's journey: moved while it works, at random moments, and compared with a run that was not moved.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use godwit_deterministic::random::Random;
use godwit_linux::namespace::User;

use crate::error::Error;
use crate::godwit::{Godwit, Place};
use crate::matrix::{Outcome, Settings};
use crate::pair::{Options, Pair};
use crate::path::Path;
use crate::program::{self, Ended, Program};
use crate::workload::Run;

/// How long a program may take from one step to the next moment, or to its end.
const PATIENCE: Duration = Duration::from_secs(120);

/// The same for each MiB that it was told to fill: where every page of it is fetched when it is asked for, all of it takes its time.
const PATIENCE_EACH: Duration = Duration::from_millis(500);

/// How often a program is started that comes to its end before it is moved: on a busy machine a moment late in its work may be
/// too late.
const STARTS_MAX: usize = 5;

/// What godwit says of a process that has ended: that it does not exist, or does no more.
const GONE: [&str; 2] = ["GW1001", "GW1005"];

/// The paths that a real program takes; those of [`Path::STRATEGIES`] are for who asks for them.
pub const PATHS: [Path; 5] =
    [Path::RestoreInPlace, Path::RestoreElsewhere, Path::Migrate, Path::ThereAndBack, Path::TenMoves];

/// What came of one journey.
#[derive(Debug, Clone)]
pub struct Journey {
    /// Which program.
    pub program: String,
    /// Along which path.
    pub path: Path,
    /// What came of it.
    pub outcome: Outcome,
    /// Each move: at which step, and whether `godwit check` said yes just before it.
    pub moves: Vec<Move>,
    /// How many steps an unmoved run makes.
    pub steps: u64,
    /// How long it took.
    pub took: Duration,
}

/// One move of a journey.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// How many steps the program had made.
    pub at: u64,
    /// What `godwit check` said just before: nothing, or why not.
    pub check: Result<(), String>,
    /// Whether the move itself went through.
    pub went: bool,
}

impl Journey {
    /// How often check said yes and the move failed. A program that goes on wrongly counts against its last move.
    #[must_use]
    pub fn wrong_yes(&self) -> usize {
        let refused = self.moves.iter().filter(|one| one.check.is_ok() && !one.went).count();
        let wrong = matches!(self.outcome, Outcome::Fail(_)) && self.moves.iter().all(|one| one.went);
        refused + usize::from(wrong && self.moves.last().is_some_and(|one| one.check.is_ok()))
    }

    /// How often check said no and the move went through.
    #[must_use]
    pub fn wrong_no(&self) -> usize {
        self.moves.iter().filter(|one| one.check.is_err() && one.went).count()
    }
}

/// Runs a program unmoved and then along each path; tells each journey as it comes.
pub fn run(
    settings: &Settings,
    program: &Program,
    user: Option<&User>,
    paths: &[Path],
    seed: u64,
    tell: impl Fn(Journey),
) -> Result<(), Error> {
    let missing = program.missing();
    let unmoved = match missing.as_slice() {
        [] => unmoved(settings, program, user)?,
        _ => Err(Outcome::Skip(format!("this machine lacks {}", missing.join(", ")))),
    };
    let godwit = Godwit::new(&settings.godwit)?;
    for path in paths.iter().copied() {
        let start = Instant::now();
        let mut journey = Journey {
            program: program.name.clone(),
            path,
            outcome: Outcome::Pass,
            moves: Vec::new(),
            steps: unmoved.as_ref().map_or(0, |ended| ended.steps),
            took: Duration::ZERO,
        };
        let outcome = match &unmoved {
            Ok(unmoved) => {
                let mut random = Random::new(seed ^ fingerprint(&journey));
                let once = |_| go(settings, &godwit, program, user, unmoved, &mut journey, &mut random).transpose();
                (0..STARTS_MAX).find_map(once).unwrap_or_else(|| {
                    Ok(Outcome::Fail(format!("{STARTS_MAX} times it came to its end before it was moved")))
                })
            }
            Err(outcome) => Ok(outcome.clone()),
        };
        journey.outcome = outcome.unwrap_or_else(|error| Outcome::Fail(error.to_string()));
        journey.took = start.elapsed();
        tell(journey);
    }
    Ok(())
}

/// Moments differ from program to program and from path to path, also with one seed.
fn fingerprint(journey: &Journey) -> u64 {
    let name = format!("{} {}", journey.program, journey.path);
    name.bytes().fold(0, |sum: u64, byte| sum.wrapping_mul(257).wrapping_add(u64::from(byte)))
}

fn hosts(settings: &Settings) -> Result<Pair, Error> {
    Pair::new(&Options {
        executable: Some(settings.executable.clone()),
        // Hosts have a /tmp of their own; the clone may lie in ours.
        shared: settings.godwit.parent().map(PathBuf::from).into_iter().chain([program::surroundings()]).collect(),
        clocks: settings.clocks,
        first_ids: Some([1000, 20000]),
    })
}

/// What the program leaves when nobody moves it; it has to end well for a comparison to mean anything.
fn unmoved(settings: &Settings, program: &Program, user: Option<&User>) -> Result<Result<Ended, Outcome>, Error> {
    let pair = hosts(settings)?;
    let run = program.start(&pair.source, user.cloned())?;
    Ok(match program::await_end(&run, &pair.source, PATIENCE) {
        Some(ended) if ended.status == "0\n" && !ended.output.is_empty() && ended.steps >= 20 => Ok(ended),
        Some(ended) => Err(Outcome::Fail(format!("even unmoved it does not work: {ended:?}"))),
        None => Err(Outcome::Fail("even unmoved it does not end".to_owned())),
    })
}

/// One journey. None: it came to its end before it was moved at all, and shows nothing.
fn go(
    settings: &Settings,
    godwit: &Godwit,
    program: &Program,
    user: Option<&User>,
    unmoved: &Ended,
    journey: &mut Journey,
    random: &mut Random,
) -> Result<Option<Outcome>, Error> {
    journey.moves.clear();
    let pair = hosts(settings)?;
    let run = program.start(&pair.source, user.cloned())?;
    let count = match journey.path {
        Path::TenMoves => 10,
        Path::ThereAndBack => 2,
        _ => 1,
    };
    let mut place = Place::Source;
    for at in moments(unmoved.steps, count, random) {
        if !journey.moves.is_empty() && program::has_ended_well(&run) {
            break;
        }
        if !program::await_steps(&run, place.of(&pair), at, PATIENCE) {
            let said = stand(&run, place.of(&pair), unmoved);
            return Ok(Some(Outcome::Fail(format!("it does not come to step {at} of {}: {said}", unmoved.steps))));
        }
        // A step is a coarse moment: somewhere in the next one.
        thread::sleep(Duration::from_micros(random.below(20_000)));
        let at = program::steps(&run);
        let check = godwit.check(place.of(&pair), &run);
        let number = journey.moves.len() + 1;
        journey.moves.push(Move { at, check, went: false });
        match godwit.leave(journey.path, &pair, &run, place, number) {
            Ok(next) => place = next,
            // It came to its end before this move; what it left is compared all the same.
            Err(said) if GONE.iter().any(|code| said.contains(code)) && program::has_ended_well(&run) => {
                journey.moves.pop();
                break;
            }
            Err(said) => {
                let after = stand(&run, place.of(&pair), unmoved);
                return Ok(Some(Outcome::Fail(format!("move {number} at step {at}: {said}; and afterwards: {after}"))));
            }
        }
        if let Some(last) = journey.moves.last_mut() {
            last.went = true;
        }
    }
    let patience = PATIENCE + PATIENCE_EACH * u32::try_from(program.megabytes).unwrap_or(u32::MAX);
    let outcome = match program::await_end(&run, place.of(&pair), patience) {
        Some(ended) => ended.difference(unmoved).map_or(Outcome::Pass, Outcome::Fail),
        None => Outcome::Fail(format!("it does not end; it stands at step {}", program::steps(&run))),
    };
    Ok(Some(outcome).filter(|outcome| !matches!(outcome, Outcome::Pass) || !journey.moves.is_empty()))
}

/// What is left of a run that could not be moved: whether it was harmed.
fn stand(run: &Run, host: &crate::Host, unmoved: &Ended) -> String {
    match program::await_end(run, host, PATIENCE) {
        Some(ended) => ended.difference(unmoved).unwrap_or_else(|| "unharmed to its end".to_owned()),
        None => format!("it does not end; it stands at step {}", program::steps(run)),
    }
}

/// Random moments in order, none in the first or the last tenth.
fn moments(steps: u64, count: usize, random: &mut Random) -> Vec<u64> {
    let mut moments: Vec<u64> = (0..count).map(|_| steps / 10 + random.below(steps * 8 / 10)).collect();
    moments.sort_unstable();
    moments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journey(outcome: Outcome, moves: &[(bool, bool)]) -> Journey {
        let of = |(check, went): &(bool, bool)| Move {
            at: 0,
            check: if *check { Ok(()) } else { Err(String::new()) },
            went: *went,
        };
        let moves = moves.iter().map(of).collect();
        Journey { program: String::new(), path: Path::Migrate, outcome, moves, steps: 0, took: Duration::ZERO }
    }

    #[test]
    fn both_errors_of_check_are_counted() {
        let fail = || Outcome::Fail(String::new());
        for (journey, yes, no) in [
            (journey(Outcome::Pass, &[(true, true), (true, true)]), 0, 0),
            (journey(Outcome::Pass, &[(false, true), (true, true)]), 0, 1),
            (journey(fail(), &[(true, true), (true, false)]), 1, 0),
            (journey(fail(), &[(true, true), (false, false)]), 0, 0),
            (journey(fail(), &[(true, true), (true, true)]), 1, 0),
            (journey(fail(), &[(false, true)]), 0, 1),
            (journey(fail(), &[]), 0, 0),
        ] {
            assert_eq!((journey.wrong_yes(), journey.wrong_no()), (yes, no), "{journey:?}");
        }
    }

    #[test]
    fn moments_lie_inside_the_work_and_in_order() {
        for seed in 0..100 {
            let moments = moments(60, 10, &mut Random::new(seed));
            assert!(moments.is_sorted() && moments.iter().all(|at| (6..54).contains(at)), "{moments:?}");
        }
    }
}
