//! The matrix: every workload, as every user, along every path. Each cell has a pair of hosts of its own.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use godwit_linux::namespace::User;

use crate::error::Error;
use crate::godwit::Godwit;
use crate::pair::{Options, Pair};
use crate::path::Path;
use crate::workload::{Run, Verdict, Workload, alive};

/// How long a workload may take to get ready or to give its verdict.
const PATIENCE: Duration = Duration::from_secs(25);
/// How long a workload works before a move, and after.
const WORK: Duration = Duration::from_millis(300);

/// What came of one cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Moved; everything is as it was.
    Pass,
    /// Godwit refused by name, and the process went on unharmed.
    Refused(String),
    /// What differs, or what went wrong.
    Fail(String),
    /// It could not be tried here.
    Skip(String),
}

/// One cell: a workload, a user, a path.
#[derive(Debug, Clone)]
pub struct Cell {
    /// What is moved.
    pub workload: Workload,
    /// As whom it runs; none: root.
    pub user: Option<User>,
    /// How it is moved.
    pub path: Path,
}

/// A cell and what came of it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Which.
    pub cell: Cell,
    /// What came of it.
    pub outcome: Outcome,
    /// How long it took.
    pub took: Duration,
}

/// What the matrix needs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The `godwit` binary.
    pub godwit: PathBuf,
    /// The executable whose `main` calls [`crate::entry`].
    pub executable: PathBuf,
    /// How many cells at a time.
    pub jobs: usize,
    /// Seconds that the clocks of source and destination are ahead of the machine's.
    pub clocks: Option<[i64; 2]>,
}

impl Cell {
    /// Its name: workload, user, path.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{} {} {}", self.workload.name, self.user_word(), self.path)
    }

    /// The user in one word.
    #[must_use]
    pub fn user_word(&self) -> &'static str {
        if self.user.is_some() { "other" } else { "root" }
    }

    /// Runs it.
    fn run(&self, settings: &Settings, godwit: &Godwit) -> Outcome {
        if self.path.migrates() && !godwit.has_command("migrate") {
            return Outcome::Skip("this godwit has no command `migrate`".to_owned());
        }
        match self.try_run(settings, godwit) {
            Ok(outcome) => outcome,
            Err(error) => Outcome::Fail(error.to_string()),
        }
    }

    fn try_run(&self, settings: &Settings, godwit: &Godwit) -> Result<Outcome, Error> {
        let mut pair = Pair::new(&Options {
            executable: Some(settings.executable.clone()),
            shared: settings.godwit.parent().map(PathBuf::from).into_iter().collect(),
            clocks: settings.clocks,
            first_ids: Some([1000, 20000]),
        })?;
        let run = self.workload.start(&pair.source, self.user.clone())?;
        match run.await_ready(&pair.source, PATIENCE) {
            Ok(()) => {}
            Err(Verdict::Skip(reason)) => return Ok(Outcome::Skip(reason)),
            Err(verdict) => return Ok(Outcome::Fail(format!("before the move: {verdict}"))),
        }
        thread::sleep(WORK);
        let moved = godwit.take(self.path, &mut pair, &run);
        thread::sleep(WORK);
        match moved {
            Ok(landing) => Ok(outcome_of(&run.stop_as(landing.pid, landing.place.of(&pair), PATIENCE)?)),
            Err(refusal) => self.after_refusal(&pair, &run, &refusal),
        }
    }

    /// A refused move has to leave the process as it was. Whether the refusal itself is all right, the workload says.
    fn after_refusal(&self, pair: &Pair, run: &Run, refusal: &str) -> Result<Outcome, Error> {
        // On a path of several moves an earlier one may have gone well.
        let hosts = [&pair.source, &pair.destination];
        let host = hosts.into_iter().find(|host| alive(host, run.pid)).unwrap_or(&pair.source);
        let verdict = run.stop(host, PATIENCE)?;
        Ok(match verdict {
            Verdict::Pass if self.workload.tags.get("refusal").is_some_and(|word| word == "allowed") => {
                Outcome::Refused(refusal.to_owned())
            }
            Verdict::Pass => Outcome::Fail(format!("refused, unharmed: {refusal}")),
            verdict => Outcome::Fail(format!("{refusal}; and afterwards: {verdict}")),
        })
    }
}

fn outcome_of(verdict: &Verdict) -> Outcome {
    match verdict {
        Verdict::Pass => Outcome::Pass,
        Verdict::Skip(reason) => Outcome::Skip(reason.clone()),
        Verdict::Fail(_) | Verdict::Silent(_) => Outcome::Fail(shortened(&verdict.to_string())),
    }
}

/// A workload may tell much that follows from one cause.
fn shortened(text: &str) -> String {
    let text = text.trim_start_matches("FAIL: ");
    if text.len() <= 400 {
        return text.to_owned();
    }
    let end = (0..=400).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    format!("{}…", text.get(..end).unwrap_or_default())
}

/// Runs all cells, some at a time; tells each entry as it comes; returns them in the order of the cells.
///
/// # Errors
/// Where `godwit` itself cannot be run.
pub fn run(settings: &Settings, cells: &[Cell], tell: impl Fn(&Entry) + Sync) -> Result<Vec<Entry>, Error> {
    let godwit = Godwit::new(&settings.godwit)?;
    let next = AtomicUsize::new(0);
    let entries = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..settings.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(cell) = cells.get(number) else { break };
                    let start = Instant::now();
                    let outcome = cell.run(settings, &godwit);
                    let entry = Entry { cell: cell.clone(), outcome, took: start.elapsed() };
                    tell(&entry);
                    entries.lock().unwrap_or_else(PoisonError::into_inner).push((number, entry));
                }
            });
        }
    });
    let mut entries = entries.into_inner().unwrap_or_else(PoisonError::into_inner);
    entries.sort_by_key(|(number, _)| *number);
    Ok(entries.into_iter().map(|(_, entry)| entry).collect())
}

/// Reads a file that may not be there.
pub(crate) fn read_or_empty(path: &std::path::Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
