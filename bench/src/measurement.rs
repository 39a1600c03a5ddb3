//! One repetition of one case: start, move, proof that it goes on with all of its state, figures.
use crate::board::{Board, Phase};
use crate::case::{Case, DIRECTORY, Way};
use crate::error::{Doing, Error, program};
use crate::memory_peak::{Peaks, Watch};
use crate::program::Programs;
use godwit_testbed::{Host, Pair};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long any step may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// What a command's shell waits for, so that entering a host is not counted. It becomes the command: a shell that waits for it as well
/// is woken behind whatever the command has let run, ms later, and that is not the command's time.
const GATE: &str = "read -r go; exec \"$@\"";

/// Where everything is.
#[derive(Debug)]
pub struct Place<'a> {
    /// The hosts.
    pub pair: &'a Pair,
    /// The `godwit` binary.
    pub godwit: &'a Path,
    /// The programs.
    pub programs: &'a Programs,
    /// A directory that both hosts see.
    pub directory: &'a Path,
    /// A directory for time lines, which both hosts see.
    pub timelines: Option<&'a Path>,
}

impl Place<'_> {
    /// What makes one side of a repetition write its time line.
    fn observe(&self, case: &Case, number: u16, side: &str) -> Vec<String> {
        let file = |directory: &Path| format!("time:{}/{}-{number}.{side}", directory.display(), case.name);
        self.timelines.map(|directory| vec!["--observe".to_owned(), file(directory)]).unwrap_or_default()
    }
}

/// The figures of one repetition, ms and bytes.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// The largest time in which the process did not run, as it saw it itself, ms.
    pub gap_ms: f64,
    /// From the start of the command to its end, ms.
    pub command_ms: f64,
    /// What the command reported: its JSON object.
    pub reported: Value,
    /// Peaks of the engine's processes, when they were watched.
    pub peaks: Peaks,
}

impl Sample {
    /// A number of the report.
    #[must_use]
    pub fn reported(&self, name: &str) -> Option<f64> {
        self.reported.get(name).and_then(Value::as_f64)
    }
}

/// What became of one repetition.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It went on at the destination with all of its state.
    Moved(Box<Sample>),
    /// Godwit refused; it ran on where it was.
    Refused(String),
}

/// Files of one repetition, gone with it; and a program that must not outlive it.
#[derive(Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) hosts: [&'a Host; 2],
    pub(crate) pid: u32,
    pub(crate) directory: PathBuf,
}

impl Drop for Subject<'_> {
    fn drop(&mut self) {
        // Only where it still lives with the board open: numbers are used again.
        for host in self.hosts {
            let process = PathBuf::from(format!("/proc/{}/root/proc/{}", host.init_pid(), self.pid));
            let command = std::fs::read(process.join("cmdline")).unwrap_or_default();
            let ours = self.directory.to_string_lossy();
            if String::from_utf8_lossy(&command).contains(&*ours) {
                let kill = format!("kill -KILL {}", self.pid);
                let _ = host.command("/bin/sh").args(["-c", &kill]).output();
            }
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Runs one repetition. `number` is unique in the run; `watch`: look at the engine's memory, which costs time.
///
/// # Errors
/// The process did not go on, or not with its state; a program could not be run.
pub fn measure(place: &Place<'_>, case: &Case, number: u16, watch: bool) -> Result<Outcome, Error> {
    let (source, destination) = (&place.pair.source, &place.pair.destination);
    let directory = place.directory.join(format!("{}-{number}", case.name));
    std::fs::create_dir_all(&directory).doing(format!("make {}", directory.display()))?;
    let mut subject = Subject { hosts: [source, destination], pid: 0, directory };
    let path = subject.directory.join("board");
    let board = Board::new(&path)?;
    let own = subject.directory.to_string_lossy().into_owned();
    let arguments = case.arguments.iter().map(|argument| if *argument == DIRECTORY { own.as_str() } else { *argument });
    subject.pid = source.command(place.programs.compile(case.program)?).arg(&path).args(arguments).detach()?;
    board.await_phase(Phase::Ready, PATIENCE)?;
    let watching = watch.then(|| Watch::new([source.init_pid(), destination.init_pid()], place.godwit));
    let mut sample = Sample::default();
    let refused = match case.way {
        Way::Migrate => migrate(place, case, &board, (subject.pid, number), &mut sample)?,
        Way::Storage => storage(place, &board, &subject, &mut sample)?,
    };
    if let Some(watching) = watching {
        sample.peaks = watching.peaks();
    }
    if let Some(reason) = refused {
        board.verify(PATIENCE)?;
        return Ok(Outcome::Refused(reason));
    }
    let gap = board.gap()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_nanos() as u64);
    let move_began = now.saturating_sub((sample.command_ms * 1e6) as u64 + PATIENCE.as_nanos() as u64);
    if !(move_began..=now).contains(&gap.end_ns) {
        return Err(program(case.name, "it never noticed that it did not run"));
    }
    sample.gap_ms = gap.duration.as_secs_f64() * 1e3;
    board.verify(PATIENCE)?;
    Ok(Outcome::Moved(Box::new(sample)))
}

/// A command that waits for [`open`] behind its gate.
pub(crate) fn gated(host: &Host, godwit: &Path, arguments: &[&str]) -> Result<Child, Error> {
    let shell = host.command("/bin/sh").args(["-c", GATE, "sh"]).arg(godwit).args(arguments);
    let child = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    // The shell starts and waits.
    std::thread::sleep(Duration::from_millis(30));
    Ok(child)
}

/// Lets a gated command begin; returns its object and how long it took. The second value is its refusal.
pub(crate) fn open(mut child: Child) -> Result<(Value, Option<String>, Duration), Error> {
    let begin = Instant::now();
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(b"go\n").doing("open a command's gate")?;
    }
    let output = child.wait_with_output().doing("wait for a command")?;
    let took = begin.elapsed();
    let said = String::from_utf8_lossy(&output.stdout);
    let value: Value = said.lines().last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or(Value::Null);
    if output.status.success() {
        return Ok((value, None, took));
    }
    let error = String::from_utf8_lossy(&output.stderr);
    let reason = error.lines().find(|line| !line.trim().is_empty()).unwrap_or("it ended without a word");
    Ok((value, Some(reason.trim().to_owned()), took))
}

fn migrate(
    place: &Place<'_>,
    case: &Case,
    board: &Board,
    (pid, number): (u32, u16),
    sample: &mut Sample,
) -> Result<Option<String>, Error> {
    let address = format!("{}:{}", place.pair.destination.address(), 20_000 + number);
    let receiver = place.pair.destination.command(place.godwit).args(["receive", "--listen", &address, "--once"]);
    let receiver = receiver.args(place.observe(case, number, "destination"));
    let mut receiver = receiver.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let result = await_listening(&mut receiver).and_then(|()| {
        let to = format!("tcp://{address}");
        let (pid_text, observe) = (pid.to_string(), place.observe(case, number, "source"));
        let mut arguments = vec!["migrate", "--json", &pid_text, &to];
        arguments.extend(observe.iter().map(String::as_str).chain(case.words.iter().copied()));
        let child = gated(&place.pair.source, place.godwit, &arguments)?;
        board.forget(PATIENCE)?;
        let rounds = board.rounds()?;
        let (reported, refused, took) = open(child)?;
        board.await_rounds(rounds, PATIENCE)?;
        if refused.is_none() {
            let rounds = board.rounds()?;
            board.await_rounds(rounds, PATIENCE)?;
            check_place(place, pid)?;
        }
        sample.command_ms = took.as_secs_f64() * 1e3;
        sample.reported = reported;
        Ok(refused)
    });
    // The receiver ends with its process, which is a child of its or of the host: nothing here waits for it.
    reap_later(receiver);
    result
}

/// The process runs at the destination, and no longer at the source.
pub(crate) fn check_place(place: &Place<'_>, pid: u32) -> Result<(), Error> {
    let is_there = |host: &Host| {
        let path = format!("/proc/{}/root/proc/{pid}/stat", host.init_pid());
        let state = std::fs::read_to_string(path).ok();
        let state = state.and_then(|text| text.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()));
        state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
    };
    if is_there(&place.pair.source) {
        return Err(program("the moved process", format!("process {pid} is still at the source")));
    }
    Ok(())
}

pub(crate) fn await_listening(receiver: &mut Child) -> Result<(), Error> {
    let mut line = String::new();
    if let Some(stdout) = receiver.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).doing("hear from godwit receive")?;
    }
    if line.contains("listening") { Ok(()) } else { Err(program("godwit receive", format!("it said {line:?}"))) }
}

/// A receiver ends when what it received has ended; a while later it is ended.
pub(crate) fn reap_later(mut receiver: Child) {
    std::thread::spawn(move || {
        let begin = Instant::now();
        while matches!(receiver.try_wait(), Ok(None)) {
            if begin.elapsed() > PATIENCE {
                // Nothing can be done about a failure here; the host ends it.
                let _ = receiver.kill();
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    });
}

fn storage(
    place: &Place<'_>,
    board: &Board,
    subject: &Subject<'_>,
    sample: &mut Sample,
) -> Result<Option<String>, Error> {
    let directory = subject.directory.join("checkpoint");
    let directory = directory.to_string_lossy();
    let pid = subject.pid.to_string();
    let source = &place.pair.source;
    let checkpoint = gated(source, place.godwit, &["checkpoint", "--json", &pid, &directory])?;
    let restore = gated(source, place.godwit, &["restore", "--json", "--detach", &directory])?;
    board.forget(PATIENCE)?;
    let (written, refused, checkpoint_took) = open(checkpoint)?;
    let (restored, refused, restore_took) = match refused {
        None => open(restore)?,
        Some(reason) => {
            // Its gate never opens: without input it ends.
            drop(restore);
            return Ok(Some(reason));
        }
    };
    if refused.is_none() {
        let rounds = board.rounds()?;
        board.await_rounds(rounds, PATIENCE)?;
    }
    sample.command_ms = (checkpoint_took + restore_took).as_secs_f64() * 1e3;
    sample.reported = serde_json::json!({
        "total_ms": sample.command_ms,
        "checkpoint_ms": checkpoint_took.as_secs_f64() * 1e3,
        "restore_ms": restore_took.as_secs_f64() * 1e3,
        "checkpoint": written,
        "restore": restored,
    });
    Ok(refused)
}
