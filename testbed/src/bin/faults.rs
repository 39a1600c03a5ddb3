//! `faults`: something fails in each phase of a move by each strategy; prints what became of the tree, with counts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;
use std::{env, thread};

use godwit_testbed::entry;
use godwit_testbed::phase_faults::{self, Case, End, Settings, Told};

const HELP: &str = "\
faults [--strategy NAME,...] [--phase PHASE,...] [--fault FAULT,...] [--times N] [--jobs N] [--godwit PROGRAM] [--verbose]

Moves a process of two threads that beat, one of which writes memory, by every strategy, and in every phase of the move something fails:
  link-cut       the link loses everything for three seconds
  engine-killed  the source's engine is killed
  host-gone      the source's host is gone with all that ran there
  store-gone     the page store is killed (flushing, freeze-free)
The phases: agreement, preparation, prepared, frozen, captured, held, commit, and serving (whose source owes memory) or resumed.
The tree has to go on whole in one place; it may end with its host before the commit, and be lost after it only where the memory was
still owed by who is gone, and then godwit has to say so. The last line is `N passed, N failed, N skipped`.";

#[derive(Default)]
struct Arguments {
    strategies: BTreeSet<String>,
    phases: BTreeSet<String>,
    faults: BTreeSet<String>,
    times: Option<usize>,
    jobs: Option<usize>,
    godwit: Option<PathBuf>,
    verbose: bool,
}

fn main() -> ExitCode {
    entry();
    match parse(env::args().skip(1)).and_then(|arguments| run(&arguments)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("faults: {error}");
            ExitCode::from(2)
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut arguments = Arguments::default();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value\n{HELP}"));
        let list = |text: String| text.split(',').map(str::to_owned).collect();
        let number = |text: String| text.parse().map_err(|_| format!("{text} is not a number"));
        match word.as_str() {
            "--strategy" => arguments.strategies = list(value()?),
            "--phase" => arguments.phases = list(value()?),
            "--fault" => arguments.faults = list(value()?),
            "--times" => arguments.times = Some(number(value()?)?),
            "--jobs" => arguments.jobs = Some(number(value()?)?),
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
    let cases = chosen(arguments)?;
    // Most of it is waiting.
    let jobs = arguments.jobs.unwrap_or_else(|| thread::available_parallelism().map_or(4, |number| number.get() * 4));
    let all = phase_faults::run(&Settings { godwit, executable, jobs }, &cases, |told| {
        if arguments.verbose || told.end.is_err() {
            println!("{:6.1} s {}: {}", told.took.as_secs_f64(), told.case, words(told));
        }
    });
    let all = all.map_err(|error| error.to_string())?;
    print_table(&all);
    let failed = all.iter().filter(|told| told.end.is_err()).count();
    println!("{} passed, {failed} failed, 0 skipped", all.len() - failed);
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn chosen(arguments: &Arguments) -> Result<Vec<Case>, String> {
    let is_chosen = |set: &BTreeSet<String>, word: &str| set.is_empty() || set.contains(word);
    let mut cases = Case::all();
    cases.retain(|case| {
        is_chosen(&arguments.strategies, case.strategy())
            && is_chosen(&arguments.phases, case.phase.word())
            && is_chosen(&arguments.faults, case.blow.word())
    });
    if cases.is_empty() {
        return Err(format!("nothing is chosen\n{HELP}"));
    }
    Ok(cases.repeat(arguments.times.unwrap_or(1)))
}

fn words(told: &Told) -> String {
    match &told.end {
        Ok(End::Source) => "goes on at the source".to_owned(),
        Ok(End::Destination) => "goes on at the destination".to_owned(),
        Ok(End::WithItsHost) => "ended with its host".to_owned(),
        Ok(End::Lost) => "lost after the commit, and told".to_owned(),
        Err(what) => format!("FAIL: {what}"),
    }
}

/// One line per strategy, phase and fault: how often it ended how.
fn print_table(all: &[Told]) {
    let mut counts: BTreeMap<(&str, &str), [[usize; 5]; 2]> = BTreeMap::new();
    println!("{:20} {:12} {:14} source destination with-host lost+told failed", "strategy", "phase", "fault");
    let mut seen = Vec::new();
    for told in all {
        if seen.contains(&told.case) {
            continue;
        }
        seen.push(told.case);
        let mut row = [0; 5];
        all.iter().filter(|other| other.case == told.case).for_each(|other| row[place(other)] += 1);
        println!("{}", line([told.case.strategy(), told.case.phase.word(), told.case.blow.word()], row));
        let of_strategy = counts.entry((told.case.strategy(), told.case.blow.word())).or_default();
        let committed = usize::from(told.case.phase >= phase_faults::Phase::Commit);
        of_strategy[committed].iter_mut().zip(row).for_each(|(sum, one)| *sum += one);
    }
    println!("in sum, before the commit and from it on:");
    for ((strategy, fault), [before, after]) in counts {
        println!("{}", line([strategy, "before", fault], before));
        println!("{}", line([strategy, "commit, after", fault], after));
    }
}

fn line([strategy, phase, fault]: [&str; 3], row: [usize; 5]) -> String {
    let [source, destination, with_host, lost, failed] = row;
    format!("{strategy:20} {phase:13} {fault:13} {source:6} {destination:11} {with_host:9} {lost:9} {failed:6}")
}

fn place(told: &Told) -> usize {
    match told.end {
        Ok(End::Source) => 0,
        Ok(End::Destination) => 1,
        Ok(End::WithItsHost) => 2,
        Ok(End::Lost) => 3,
        Err(_) => 4,
    }
}
