//! `kills`: kills processes of godwit at random moments of migrations and prints what became of the moved tree, with counts.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{env, thread};

use godwit_testbed::entry;
use godwit_testbed::kill::{self, Fault, Role, Settings, Trial};

const HELP: &str = "\
kills [--count N] [--seed N] [--jobs N] [--fault FAULT,...] [--only ROLE] [--godwit PROGRAM] [--verbose]

Moves a tree of two processes that write numbered heartbeats, N times (200), and each time kills with SIGKILL, at a random moment,
one process of godwit (migrate, receive, shepherd, source guardian, destination guardian; skeleton: a task that is being built) or
all that one side has. The tree has to go on in exactly one place, after `godwit recover` where needed: no number twice, none left out.
In every second round its processes hold locks of files that both hosts see.
--fault: what happens instead of that, in turn:
  kill        as said
  signal      migrate (or another) gets SIGINT, SIGTERM or SIGHUP
  cut         the link loses every packet for up to 13 s
  stall       one process of godwit is stopped for up to 13 s
  twice       two of migrate and checkpoint want the tree at once
  thief       a stranger takes a lock of the tree's when the source's tasks end
  full        the disk for a journal is full, from the beginning or from a moment on
  checkpoint  godwit checkpoint is killed or gets a signal: the tree runs on, or it has ended and can be restored
  restore     the same with godwit restore: it runs, or nothing of it is left and it can be restored
The last line is `N passed, N failed, N skipped`; the exit code is 0 where nothing failed.";

fn main() -> ExitCode {
    entry();
    match parse(env::args().skip(1)).and_then(|(settings, verbose)| run(&settings, verbose)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("kills: {error}");
            ExitCode::from(2)
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<(Settings, bool), String> {
    let executable = env::current_exe().map_err(|error| error.to_string())?;
    let (mut count, mut jobs, mut role, mut verbose) = (200, None, None, false);
    let mut faults = vec![Fault::Kill];
    let mut seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut godwit = executable.with_file_name("godwit");
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value\n{HELP}"));
        let number = |text: String| text.parse::<usize>().map_err(|_| format!("{text} is not a number"));
        match word.as_str() {
            "--count" => count = number(value()?)?,
            "--seed" => seed = number(value()?)? as u64,
            "--only" => {
                let text = value()?;
                role = Some(Role::of(&text).ok_or_else(|| format!("there is no {text}\n{HELP}"))?);
            }
            "--fault" => {
                let one = |text: &str| Fault::of(text).ok_or_else(|| format!("there is no {text}\n{HELP}"));
                faults = value()?.split(',').map(one).collect::<Result<_, _>>()?;
            }
            "--jobs" => jobs = Some(number(value()?)?),
            "--godwit" => godwit = PathBuf::from(value()?),
            "--verbose" => verbose = true,
            _ => return Err(format!("{word}?\n{HELP}")),
        }
    }
    let godwit = godwit.canonicalize().map_err(|error| format!("{}: {error}", godwit.display()))?;
    let jobs = jobs.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
    Ok((Settings { godwit, executable, count, seed, jobs, role, faults }, verbose))
}

fn run(settings: &Settings, verbose: bool) -> Result<ExitCode, String> {
    println!("{} migrations, seed {}", settings.count, settings.seed);
    let trials = kill::run(settings, |trial| {
        if verbose || trial.outcome.is_err() {
            println!("{}", sentence(trial));
        }
    });
    let trials = trials.map_err(|error| error.to_string())?;
    print_counts(&trials);
    let failed = trials.iter().filter(|trial| trial.outcome.is_err()).count();
    println!("{} passed, {failed} failed, 0 skipped", trials.len() - failed);
    Ok(if failed == 0 && !trials.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn sentence(trial: &Trial) -> String {
    let what = match &trial.outcome {
        Ok(ending) => {
            let how = if ending.recovered { ", after godwit recover" } else { "" };
            format!("runs in {} alone{how}; longest gap {} ms", ending.host, ending.gap.as_millis())
        }
        Err(what) => format!("FAIL: {what}"),
    };
    format!("{:4} {} after {:.1} ms: {what}", trial.number, trial.what, trial.moment.as_secs_f64() * 1e3)
}

fn print_counts(trials: &[Trial]) {
    let mut counts: BTreeMap<String, [usize; 4]> = BTreeMap::new();
    let mut longest = Duration::ZERO;
    for trial in trials {
        let places = counts.entry(trial.what.clone()).or_default();
        match &trial.outcome {
            Ok(ending) => {
                places[usize::from(ending.host != "source")] += 1;
                places[2] += usize::from(ending.recovered);
                longest = longest.max(ending.gap);
            }
            Err(_) => places[3] += 1,
        }
    }
    println!("{:46} source destination (by recover) failed", "what happened");
    for (word, [source, destination, recovered, failed]) in counts {
        println!("{word:46} {source:6} {destination:11} {recovered:12} {failed:6}");
    }
    println!("longest time without a heartbeat: {} ms", longest.as_millis());
}
