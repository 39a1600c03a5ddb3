//! `programs`: moves real programs while they work and compares each with an unmoved run.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;
use std::{env, thread};

use godwit_linux::namespace::User;
use godwit_testbed::journey::{self, Journey};
use godwit_testbed::matrix::{Outcome, Settings};
use godwit_testbed::path::Path;
use godwit_testbed::program::{self, Program};
use godwit_testbed::{entry, workload};

const HELP: &str = "\
programs [--program NAME,...] [--path PATH,... | --strategies] [--megabytes N] [--user root|other] [--seed NUMBER] [--jobs N]
         [--godwit PROGRAM] [--verbose]

Every real program, along every path, at random moments of its work:
  restore restore-elsewhere migrate there-and-back ten-moves
--strategies: instead, one move by each strategy:
  migrate migrate-pre-copy migrate-queued migrate-post-copy migrate-assisted migrate-on-reference migrate-eager-dirty
  migrate-flushing migrate-freeze-free migrate-auto
--megabytes: what programs fill that fill as much as they are told to (redis_large), in MiB: 64.
Each is compared with a run that is not moved: exit status, output, errors. Beside it stands what `godwit check` said
just before each move. The last line is `N passed, N failed, N skipped`; the exit code is 0 where nothing failed.";

#[derive(Default)]
struct Arguments {
    programs: BTreeSet<String>,
    paths: BTreeSet<String>,
    strategies: bool,
    megabytes: Option<u64>,
    is_other_user: bool,
    seed: Option<u64>,
    jobs: Option<usize>,
    godwit: Option<PathBuf>,
    verbose: bool,
}

fn main() -> ExitCode {
    entry();
    match parse(env::args().skip(1)).and_then(|arguments| run(&arguments)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("programs: {error}");
            ExitCode::from(2)
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut arguments = Arguments::default();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value\n{HELP}"));
        let list = |text: String| text.split(',').map(str::to_owned).collect();
        match word.as_str() {
            "--program" => arguments.programs = list(value()?),
            "--path" => arguments.paths = list(value()?),
            "--strategies" => arguments.strategies = true,
            "--megabytes" => {
                arguments.megabytes = Some(value()?.parse().map_err(|_| "--megabytes needs a number".to_owned())?);
            }
            "--user" => arguments.is_other_user = value()? == "other",
            "--seed" => arguments.seed = Some(value()?.parse().map_err(|_| "--seed needs a number".to_owned())?),
            "--jobs" => arguments.jobs = Some(value()?.parse().map_err(|_| "--jobs needs a number".to_owned())?),
            "--godwit" => arguments.godwit = Some(value()?.into()),
            "--verbose" => arguments.verbose = true,
            _ => return Err(format!("{word}?\n{HELP}")),
        }
    }
    Ok(arguments)
}

fn run(arguments: &Arguments) -> Result<ExitCode, String> {
    let executable = env::current_exe().map_err(|error| error.to_string())?;
    let godwit = arguments.godwit.clone().unwrap_or_else(|| executable.with_file_name("godwit"));
    let godwit = godwit.canonicalize().map_err(|error| format!("{}: {error}", godwit.display()))?;
    let programs = chosen(arguments)?;
    let paths = paths(arguments)?;
    if programs.is_empty() {
        return Err(format!("nothing is chosen\n{HELP}"));
    }
    let jobs = arguments.jobs.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
    let user = arguments.is_other_user.then(|| User {
        user: workload::OTHER_USER,
        group: workload::OTHER_USER,
        supplementary: Vec::new(),
    });
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seed = arguments.seed.unwrap_or(now.as_secs());
    println!("moments with --seed {seed}");
    // The destination has been up for a shorter time than the source.
    let settings = Settings { godwit, executable, jobs, clocks: Some([1000, 500]) };
    let (next, journeys, errors) = (AtomicUsize::new(0), Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while let Some(program) = programs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let told = journey::run(&settings, program, user.as_ref(), &paths, seed, |journey| {
                        println!("{}", line(&journey, arguments.verbose));
                        journeys.lock().unwrap_or_else(PoisonError::into_inner).push(journey);
                    });
                    if let Err(error) = told {
                        let error = format!("{}: {error}", program.name);
                        println!("{error}");
                        errors.lock().unwrap_or_else(PoisonError::into_inner).push(error);
                    }
                }
            });
        }
    });
    let journeys = journeys.into_inner().unwrap_or_else(PoisonError::into_inner);
    let errors = errors.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(close(&journeys, errors.len()))
}

fn chosen(arguments: &Arguments) -> Result<Vec<Program>, String> {
    let mut programs = program::all().map_err(|error| error.to_string())?;
    if let Some(name) = arguments.programs.iter().find(|name| !programs.iter().any(|program| program.name == **name)) {
        let names: Vec<&str> = programs.iter().map(|program| program.name.as_str()).collect();
        return Err(format!("no program is called {name}; there are {}", names.join(", ")));
    }
    programs.retain(|program| arguments.programs.is_empty() || arguments.programs.contains(&program.name));
    for program in &mut programs {
        program.megabytes = arguments.megabytes.unwrap_or(program.megabytes);
    }
    Ok(programs)
}

fn paths(arguments: &Arguments) -> Result<Vec<Path>, String> {
    if arguments.paths.is_empty() {
        return Ok(if arguments.strategies { Path::STRATEGIES.to_vec() } else { journey::PATHS.to_vec() });
    }
    let all: BTreeSet<Path> = journey::PATHS.into_iter().chain(Path::STRATEGIES).collect();
    if let Some(word) = arguments.paths.iter().find(|word| !all.iter().any(|path| path.word() == **word)) {
        return Err(format!("{word} is no path of a program\n{HELP}"));
    }
    Ok(all.into_iter().filter(|path| arguments.paths.contains(path.word())).collect())
}

/// One journey in one line.
fn line(journey: &Journey, verbose: bool) -> String {
    let at: Vec<String> = journey.moves.iter().map(|one| one.at.to_string()).collect();
    let refusals = journey.moves.iter().filter_map(|one| one.check.as_ref().err());
    let check = match refusals.clone().count() {
        0 => "check: yes".to_owned(),
        count => format!("check: {count} times no"),
    };
    let outcome = match &journey.outcome {
        Outcome::Pass => "pass".to_owned(),
        Outcome::Refused(reason) => format!("refused: {reason}"),
        Outcome::Fail(reason) => format!("FAIL: {reason}"),
        Outcome::Skip(reason) => format!("skipped: {reason}"),
    };
    let mut line = format!(
        "{:5.1} s {:11} {:20} at {} of {} steps, {check}: {outcome}",
        journey.took.as_secs_f64(),
        journey.program,
        journey.path.word(),
        at.join(" "),
        journey.steps
    );
    if verbose {
        refusals.for_each(|said| line.push_str(&format!("\n    check: {said}")));
    }
    line
}

fn close(journeys: &[Journey], errors: usize) -> ExitCode {
    let count = |test: fn(&Outcome) -> bool| journeys.iter().filter(|journey| test(&journey.outcome)).count();
    let passed = count(|outcome| matches!(outcome, Outcome::Pass));
    let skipped = count(|outcome| matches!(outcome, Outcome::Skip(_)));
    let failed = journeys.len() - passed - skipped + errors;
    let moves: usize = journeys.iter().map(|journey| journey.moves.len()).sum();
    let yes: usize = journeys.iter().map(Journey::wrong_yes).sum();
    let no: usize = journeys.iter().map(Journey::wrong_no).sum();
    println!("check before {moves} moves: {yes} times yes and the move failed, {no} times no and it went through");
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
