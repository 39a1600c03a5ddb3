//! `matrix`: runs every workload through every path and prints a table, the reasons, and the counts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;
use std::{env, thread};

use godwit_testbed::matrix::{self, Cell, Entry, Outcome, Settings};
use godwit_testbed::path::Path;
use godwit_testbed::pool::HugePages;
use godwit_testbed::{entry, workload};

const HELP: &str = "\
matrix [--workload NAME,...] [--kind KIND,...] [--path PATH,...] [--user root|other] [--jobs N] [--godwit PROGRAM] [--same-clocks] [--faults-each N]
       [--strategies | --strategies-each N] [--verbose]

Every workload, as root and as another user, along every path:
  thaw checkpoint restore restore-elsewhere migrate there-and-back ten-moves numbers-in-use
and, for some workloads, along every path with a fault at a moment of the hand-off:
  destination-killed source-killed link-cut
--strategies: every workload moved once by each strategy, instead; --strategies-each: by N of them, which differ from workload to workload.
--faults-each: with a fault every workload, each at N of the moments, which differ from workload to workload.
The last line is `N passed, N failed, N skipped`; the exit code is 0 where nothing failed.";

/// Those that have enough memory to be owed some of it, for the paths with a fault meanwhile.
const FOR_OWING: [&str; 1] = ["memory_large"];
/// Workloads for the paths with faults: small, a tree, threads, unread bytes, an open file.
const FOR_FAULTS: [&str; 5] = ["getpid", "tree", "threads_64", "pipe", "file_offsets"];

/// Workloads whose memory is large enough to be left behind, for the paths on which a page store is lost.
const FOR_STORE_FAULTS: [&str; 1] = ["memory_large"];

/// Kinds of workloads for the paths with a page store.
const FOR_STORES: [&str; 3] = ["memory", "task", "blocked"];

/// The workload that needs huge pages, and how many for several cells at once.
const HUGE: &str = "hugetlb";
const HUGE_PAGES: u64 = 64;

#[derive(Default)]
struct Arguments {
    workloads: BTreeSet<String>,
    kinds: BTreeSet<String>,
    paths: BTreeSet<String>,
    user: Option<String>,
    jobs: Option<usize>,
    godwit: Option<PathBuf>,
    same_clocks: bool,
    faults_each: Option<usize>,
    strategies_each: Option<usize>,
    verbose: bool,
}

fn main() -> ExitCode {
    entry();
    match parse(env::args().skip(1)).and_then(|arguments| run(&arguments)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("matrix: {error}");
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
            "--workload" => arguments.workloads = list(value()?),
            "--kind" => arguments.kinds = list(value()?),
            "--path" => arguments.paths = list(value()?),
            "--user" => arguments.user = Some(value()?),
            "--jobs" => arguments.jobs = Some(value()?.parse().map_err(|_| "--jobs needs a number".to_owned())?),
            "--godwit" => arguments.godwit = Some(value()?.into()),
            "--same-clocks" => arguments.same_clocks = true,
            "--faults-each" => {
                arguments.faults_each = Some(value()?.parse().map_err(|_| "--faults-each needs a number".to_owned())?);
            }
            "--strategies" => arguments.strategies_each = Some(Path::STRATEGIES.len()),
            "--strategies-each" => {
                let each = value()?.parse().map_err(|_| "--strategies-each needs a number".to_owned())?;
                arguments.strategies_each = Some(each);
            }
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
    let cells = cells(arguments)?;
    let jobs = arguments.jobs.unwrap_or_else(|| thread::available_parallelism().map_or(1, |number| number.get() + 1));
    // The destination has been up for a shorter time than the source.
    let clocks = (!arguments.same_clocks).then_some([1000, 500]);
    let settings = Settings { godwit, executable, jobs, clocks };
    let wants_huge_pages = cells.iter().any(|cell| cell.workload.name == HUGE);
    let _pool = wants_huge_pages.then(|| HugePages::add(HUGE_PAGES));
    let entries = matrix::run(&settings, &cells, |entry| {
        if arguments.verbose {
            println!("{:6.1} s {}: {}", entry.took.as_secs_f64(), entry.cell.name(), words(&entry.outcome));
        }
    });
    let entries = entries.map_err(|error| error.to_string())?;
    let gaps = Gap::read(&workload::sources().with_file_name("gaps.txt"))?;
    let entries: Vec<Entry> = entries.into_iter().map(|entry| excuse(entry, &gaps)).collect();
    print_table(&entries);
    print_reasons(&entries);
    print_counts("path", &entries, |entry| entry.cell.path.word().to_owned());
    print_counts("kind", &entries, |entry| entry.cell.workload.kind().to_owned());
    let count = |test: fn(&Outcome) -> bool| entries.iter().filter(|entry| test(&entry.outcome)).count();
    let passed = count(|outcome| matches!(outcome, Outcome::Pass));
    let failed = count(|outcome| matches!(outcome, Outcome::Fail(_)));
    println!("{passed} passed, {failed} failed, {} skipped", entries.len() - passed - failed);
    Ok(if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is known not to work yet: a line of testbed/gaps.txt. Such a cell counts as skipped, with its reason; it is run all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Gap {
    workload: String,
    /// `any`, or a user's word.
    user: String,
    /// `any`, or a path's word.
    path: String,
    reason: String,
}

impl Gap {
    fn read(file: &std::path::Path) -> Result<Vec<Gap>, String> {
        let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.map(|line| Gap::parse(line).ok_or_else(|| format!("{}: what is `{line}`?", file.display()))).collect()
    }

    fn parse(line: &str) -> Option<Gap> {
        let (place, reason) = line.split_once(": ")?;
        let [workload, user, path]: [&str; 3] = place.split(' ').collect::<Vec<_>>().try_into().ok()?;
        Some(Gap {
            workload: workload.to_owned(),
            user: user.to_owned(),
            path: path.to_owned(),
            reason: reason.to_owned(),
        })
    }

    fn covers(&self, cell: &Cell) -> bool {
        let fits = |own: &str, word: &str| own == "any" || own == word;
        self.workload == cell.workload.name && fits(&self.user, cell.user_word()) && fits(&self.path, cell.path.word())
    }
}

fn excuse(mut entry: Entry, gaps: &[Gap]) -> Entry {
    let gap = gaps.iter().find(|gap| gap.covers(&entry.cell));
    match (&entry.outcome, gap) {
        (Outcome::Fail(what), Some(gap)) => {
            entry.outcome = Outcome::Skip(format!("known gap ({}): {what}", gap.reason));
        }
        (Outcome::Pass, Some(gap)) => {
            println!("{}: passes; is its line in gaps.txt still needed ({})?", entry.cell.name(), gap.reason);
        }
        _ => {}
    }
    entry
}

fn cells(arguments: &Arguments) -> Result<Vec<Cell>, String> {
    let chosen = |set: &BTreeSet<String>, word: &str| set.is_empty() || set.contains(word);
    let workloads = workload::all().map_err(|error| error.to_string())?;
    for name in &arguments.workloads {
        if !workloads.iter().any(|workload| workload.name == *name) {
            return Err(format!("no workload is called {name}"));
        }
    }
    let mut cells = Vec::new();
    for (index, workload) in workloads.into_iter().enumerate() {
        if !chosen(&arguments.workloads, &workload.name) || !chosen(&arguments.kinds, workload.kind()) {
            continue;
        }
        let owing = if FOR_OWING.contains(&workload.name.as_str()) { Path::owing() } else { Vec::new() };
        let faulty = match arguments.faults_each {
            Some(each) => spread(&Path::faulty(), each, index),
            None if FOR_FAULTS.contains(&workload.name.as_str()) => Path::faulty(),
            None => Vec::new(),
        };
        let storing = if FOR_STORE_FAULTS.contains(&workload.name.as_str()) { &Path::STORE_LOST[..] } else { &[] };
        let paths: Vec<Path> = match arguments.strategies_each {
            Some(each) => spread(&Path::STRATEGIES, each, index),
            None => Path::PLAIN.into_iter().chain(faulty.iter().chain(storing).chain(&owing).copied()).collect(),
        };
        let stores = !arguments.paths.is_empty() || arguments.strategies_each.is_some();
        for user in workload.users() {
            for path in paths.iter().copied() {
                let cell = Cell { workload: workload.clone(), user: user.clone(), path };
                let user_chosen = arguments.user.as_deref().is_none_or(|user| user == cell.user_word());
                // Without being asked for, only where memory or the tasks that have it are the subject.
                let fits = !path.stores() || stores || FOR_STORES.contains(&cell.workload.kind());
                if user_chosen && fits && chosen(&arguments.paths, path.word()) {
                    cells.push(cell);
                }
            }
        }
    }
    if cells.is_empty() { Err(format!("nothing is chosen\n{HELP}")) } else { Ok(cells) }
}

/// So many of all, in equal distances; the next index has those beside them.
fn spread(all: &[Path], each: usize, index: usize) -> Vec<Path> {
    let each = each.clamp(1, all.len());
    (0..each).map(|number| all[(number * all.len() / each + index) % all.len()]).collect()
}

fn words(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Pass => "pass".to_owned(),
        Outcome::Refused(reason) => format!("refused: {reason}"),
        Outcome::Fail(reason) => format!("FAIL: {reason}"),
        Outcome::Skip(reason) => format!("skipped: {reason}"),
    }
}

/// One line per workload and user, one column per path; with faults: how many of how many moments.
fn print_table(entries: &[Entry]) {
    let columns: BTreeSet<(Path, &str)> = {
        let mut seen = BTreeMap::new();
        for entry in entries {
            seen.entry(entry.cell.path.word()).or_insert(entry.cell.path);
        }
        seen.into_iter().map(|(word, path)| (path, word)).collect()
    };
    let mut rows: Vec<(String, &str)> = Vec::new();
    for entry in entries {
        let row = (entry.cell.workload.name.clone(), entry.cell.user_word());
        if rows.last() != Some(&row) {
            rows.push(row);
        }
    }
    print!("{:24} {:5}", "workload", "user");
    for (_, word) in &columns {
        print!("  {word}");
    }
    println!();
    for (name, user) in rows {
        print!("{name:24} {user:5}");
        for (_, word) in &columns {
            let of_cell = |entry: &&Entry| {
                entry.cell.workload.name == name && entry.cell.user_word() == user && entry.cell.path.word() == *word
            };
            let outcomes: Vec<&Outcome> = entries.iter().filter(of_cell).map(|entry| &entry.outcome).collect();
            print!("  {:width$}", mark(&outcomes), width = word.len());
        }
        println!();
    }
}

fn mark(outcomes: &[&Outcome]) -> String {
    let passed = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Pass)).count();
    match outcomes {
        [] => String::new(),
        [Outcome::Pass] => "pass".to_owned(),
        [Outcome::Refused(_)] => "ref".to_owned(),
        [Outcome::Fail(_)] => "FAIL".to_owned(),
        [Outcome::Skip(_)] => "-".to_owned(),
        _ => format!("{passed}/{}", outcomes.len()),
    }
}

/// What did not pass, with why; cells whose reasons differ only in numbers are told together, the most frequent first.
fn print_reasons(entries: &[Entry]) {
    let mut reasons: BTreeMap<String, (String, Vec<String>)> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| entry.outcome != Outcome::Pass) {
        let reason = words(&entry.outcome);
        let key = reason.chars().map(|letter| if letter.is_ascii_digit() { '#' } else { letter }).collect();
        reasons.entry(key).or_insert_with(|| (reason, Vec::new())).1.push(entry.cell.name());
    }
    let mut reasons: Vec<(String, Vec<String>)> = reasons.into_values().collect();
    reasons.sort_by_key(|(_, names)| std::cmp::Reverse(names.len()));
    for (reason, names) in reasons {
        let more = if names.len() > 4 { format!(" and {} more", names.len() - 4) } else { String::new() };
        println!("{}{more}\n    {reason}", names.iter().take(4).map(String::as_str).collect::<Vec<_>>().join(", "));
    }
}

fn print_counts(what: &str, entries: &[Entry], word: impl Fn(&Entry) -> String) {
    let mut counts: BTreeMap<String, [usize; 4]> = BTreeMap::new();
    for entry in entries {
        let place = match entry.outcome {
            Outcome::Pass => 0,
            Outcome::Refused(_) => 1,
            Outcome::Fail(_) => 2,
            Outcome::Skip(_) => 3,
        };
        counts.entry(word(entry)).or_default()[place] += 1;
    }
    println!("{what:20} passed refused failed skipped");
    for (word, [passed, refused, failed, skipped]) in counts {
        println!("{word:20} {passed:6} {refused:7} {failed:6} {skipped:7}");
    }
}
