//! Holders: processes that hold an object which a move refuses, and that tell whether anybody ever froze them.
//!
//! One thread counts up in a file. Another sleeps in one system call for ever: a stop of any kind, however short, wakes it, and
//! the kernel counts that it gave the processor away once more. That is exact, and no matter of timing.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use godwit_linux::namespace::User;

use crate::error::{Doing, Error};
use crate::host::Host;
use crate::workload::{ScratchDirectory, alive, compile};

/// A process that holds one object.
#[derive(Debug)]
pub struct Holder {
    /// Its number inside its host: the root of the tree to be moved.
    pub pid: u32,
    process: PathBuf,
    report: PathBuf,
    directory: ScratchDirectory,
}

/// What a start came to.
#[derive(Debug)]
pub enum Start {
    /// It holds its object.
    Holds(Holder),
    /// This machine cannot have it.
    Skipped(String),
}

fn program() -> Result<PathBuf, Error> {
    compile("holder", &Path::new(env!("CARGO_MANIFEST_DIR")).join("holders/holder.c"))
}

/// The names of all objects that can be held.
///
/// # Errors
/// It cannot be compiled or run.
pub fn names(host: &Host) -> Result<Vec<String>, Error> {
    let directory = ScratchDirectory::new("holder")?;
    let report = directory.path.join("report");
    host.command(program()?).arg(&report).arg("list").status()?;
    let text = fs::read_to_string(&report).doing("read the list of a holder")?;
    Ok(text.lines().map(str::to_owned).collect())
}

impl Holder {
    /// Starts a holder of an object and waits until it holds it.
    ///
    /// # Errors
    /// It cannot be compiled or run, or says why it failed.
    pub fn start(host: &Host, object: &str, user: Option<User>) -> Result<Start, Error> {
        let directory = ScratchDirectory::new(object)?;
        let report = directory.path.join("report");
        let started = host.command(program()?).arg(&report).arg(object).user(user).detach()?;
        let process = |pid| PathBuf::from(format!("/proc/{}/root/proc/{pid}", host.init_pid()));
        let mut holder = Self { pid: started, process: process(started), report, directory };
        let failed = |said: String| Error::Program { program: format!("holder of {object}"), said };
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let said = fs::read_to_string(&holder.report).unwrap_or_default();
            let word = |word: &str| said.lines().find_map(|line| line.strip_prefix(word));
            if let Some(reason) = word("SKIP: ") {
                return Ok(Start::Skipped(reason.to_owned()));
            }
            if let Some(reason) = word("FAIL: ") {
                return Err(failed(reason.to_owned()));
            }
            if let Some(pid) = word("PROCESS ").and_then(|number| number.parse().ok()) {
                holder.pid = pid;
                holder.process = process(pid);
            }
            // Its threads give themselves their names.
            if word("READY").is_some() && holder.beats() > 0 && holder.switches().is_some() {
                return Ok(Start::Holds(holder));
            }
            if Instant::now() > deadline || !alive(host, started) {
                return Err(failed(format!("not ready: {said}")));
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// A directory of its own, which goes with it.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory.path
    }

    fn tasks(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.process.join("task"));
        entries.into_iter().flatten().flatten().map(|entry| entry.path()).collect()
    }

    /// How often the sleeping thread has given its processor away; none: it is not there, or does not sleep yet.
    #[must_use]
    pub fn switches(&self) -> Option<u64> {
        let is_witness =
            |task: &PathBuf| fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == "witness");
        let status = fs::read_to_string(self.tasks().into_iter().find(is_witness)?.join("status")).ok()?;
        if !status.contains("State:\tS") {
            return None;
        }
        let counts = status.lines().filter(|line| line.contains("ctxt_switches"));
        counts.map(|line| line.rsplit('\t').next()?.parse::<u64>().ok()).sum()
    }

    /// How far the counting thread is.
    #[must_use]
    pub fn beats(&self) -> u64 {
        let text = fs::read_to_string(self.report.with_extension("beats")).unwrap_or_default();
        text.trim().parse().unwrap_or_default()
    }

    /// Whether it counts on.
    #[must_use]
    pub fn goes_on(&self) -> bool {
        let (before, begin) = (self.beats(), Instant::now());
        while self.beats() <= before + 2 {
            if begin.elapsed() > Duration::from_secs(20) {
                return false;
            }
            thread::sleep(Duration::from_millis(2));
        }
        true
    }

    /// Whether one of its threads is stopped, by a signal or by a tracer.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.tasks().iter().any(|task| {
            let stat = fs::read_to_string(task.join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['T', 't']))
        })
    }
}
