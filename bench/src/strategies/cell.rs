//! One repetition: start, a while undisturbed, move, a while after it, proof that it has all of its state.
use super::figures::{Pace, of_report, waits};
use super::record::Figures;
use super::workload::Workload;
use crate::board::{Board, Phase};
use crate::error::{Doing, Error, program};
use crate::measurement::{PATIENCE, Place, Subject, await_listening, check_place, gated, open, reap_later};
use serde_json::Value;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// So often, and so long each time, the process is watched before it is moved. The fastest counts: what disturbs it only slows it down.
const BEFORE: (u32, Duration) = (4, Duration::from_millis(50));
/// So long it is watched when all is over: it may still warm up.
const AFTER: Duration = Duration::from_millis(100);
/// The same where it gets its memory only as it asks for it.
const AFTER_ON_DEMAND: Duration = Duration::from_millis(1000);
/// So long such a process may ask for it; the rest is fetched for it then (`godwit settle`).
const ASKING: Duration = Duration::from_secs(10);
/// Memory that is made ready besides the process's own size before each move.
const SPARE: u64 = 64 << 20;
/// A wait for memory that is shorter is none for another host.
const WAIT_NS: f64 = 6_000.0;
/// Ends a command that takes too long; it rolls back and says so.
const TIMER: &str = "/usr/bin/timeout";

/// How one repetition is to be.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// What is moved.
    pub workload: &'static Workload,
    /// By which strategy.
    pub strategy: &'a str,
    /// Whether the process gets what it owes only as it asks for it.
    pub on_demand: bool,
    /// Whether it needs a page store: a directory that both hosts see.
    pub needs_store: bool,
    /// Unique in the run.
    pub number: u16,
    /// Time after which it is ended.
    pub patience: Duration,
}

/// Starts a process at the source and waits until it is ready; `number` tells it from others of its kind. Dropping the subject ends it.
///
/// # Errors
/// It does not compile, start or become ready.
pub(super) fn begin<'a>(place: &Place<'a>, workload: &Workload, number: u16) -> Result<(Subject<'a>, Board), Error> {
    let directory = place.directory.join(format!("{}-{}", workload.name, number));
    std::fs::create_dir_all(&directory).doing(format!("make {}", directory.display()))?;
    let mut subject = Subject { hosts: [&place.pair.source, &place.pair.destination], pid: 0, directory };
    let path = subject.directory.join("board");
    let board = Board::new(&path)?;
    let program_path = place.programs.compile(workload.program)?;
    subject.pid =
        place.pair.source.command(program_path).arg(&path).args(workload.arguments(&subject.directory)).detach()?;
    board.await_phase(Phase::Ready, PATIENCE)?;
    Ok((subject, board))
}

/// Moves one process once; its figures, or why it was refused.
///
/// # Errors
/// The process did not go on, or not with its state; a program could not be run.
pub fn measure(place: &Place<'_>, attempt: &Attempt<'_>) -> Result<Result<Figures, String>, Error> {
    let (subject, board) = begin(place, attempt.workload, attempt.number)?;
    measure_begun(place, attempt, &subject, &board)
}

/// The same with one that has begun.
pub(super) fn measure_begun(
    place: &Place<'_>,
    attempt: &Attempt<'_>,
    subject: &Subject<'_>,
    board: &Board,
) -> Result<Result<Figures, String>, Error> {
    let address = format!("{}:{}", place.pair.destination.address(), 20_000 + attempt.number);
    let receiver = place.pair.destination.command(place.godwit).args(["receive", "--listen", &address, "--once"]);
    let mut receiver = receiver.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let listening = await_listening(&mut receiver);
    let store = subject.directory.join("store");
    if attempt.needs_store {
        std::fs::create_dir_all(&store).doing(format!("make {}", store.display()))?;
    }
    let store = store.to_string_lossy();
    let further: &[&str] = if attempt.needs_store { &["--pages", &store] } else { &[] };
    let result = listening.and_then(|()| watched(place, attempt, board, (subject.pid, &address), further));
    // It may serve the process as long as that lives.
    reap_later(receiver);
    let moved = result?;
    board.verify(PATIENCE)?;
    Ok(moved)
}

fn watched(
    place: &Place<'_>,
    attempt: &Attempt<'_>,
    board: &Board,
    (pid, address): (u32, &str),
    further: &[&str],
) -> Result<Result<Figures, String>, Error> {
    let (to, pid_text) = (format!("tcp://{address}"), pid.to_string());
    let patience = attempt.patience.as_secs().max(1).to_string();
    let timed = ["-s", "INT", &patience];
    let godwit = place.godwit.to_string_lossy();
    let words = [&*godwit, "migrate", "--json", &pid_text, &to, "--strategy", attempt.strategy];
    let arguments: Vec<&str> = timed.into_iter().chain(words).chain(further.iter().copied()).collect();
    let child = gated(&place.pair.source, Path::new(TIMER), &arguments)?;
    have_memory(attempt.workload.memory + SPARE);
    let count = |since: Instant, from: u64| Ok::<_, Error>((board.rounds()? - from, since.elapsed().as_secs_f64()));
    board.forget(PATIENCE)?;
    let mut before = (0, 1.0);
    for _ in 0..BEFORE.0 {
        let (begin, rounds) = (Instant::now(), board.rounds()?);
        std::thread::sleep(BEFORE.1);
        let (done, time) = count(begin, rounds)?;
        if done as f64 / time > before.0 as f64 / before.1 {
            before = (done, time);
        }
    }
    board.forget(PATIENCE)?;
    let (begin, rounds) = (Instant::now(), board.rounds()?);
    let (reported, refused, _) = if attempt.on_demand { open_and_settle(place, child)? } else { open(child)? };
    if let Some(reason) = refused {
        return Ok(Err(reason));
    }
    board.await_rounds(board.rounds()?, PATIENCE)?;
    check_place(place, pid)?;
    std::thread::sleep(if attempt.on_demand { AFTER_ON_DEMAND } else { AFTER });
    let during = count(begin, rounds)?;
    figures(&reported, board, Pace { before, during }).map(Ok)
}

/// Has the machine get so much memory and give it back: a virtual one gets it from its host page by page when it is first touched, which
/// is slower than all that is measured here, and whoever came first would pay for the others.
fn have_memory(bytes: u64) {
    std::hint::black_box(vec![1_u8; bytes as usize]);
}

/// As [`open`]; a process that does not ask for all that it is owed would be owed it for ever: after a while the destination asks for it.
fn open_and_settle(place: &Place<'_>, child: Child) -> Result<(Value, Option<String>, Duration), Error> {
    let (over, is_over) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            if is_over.recv_timeout(ASKING) == Err(mpsc::RecvTimeoutError::Timeout) {
                // Whether it has helped shows in the command's end, or its timer's.
                let _ = place.pair.destination.command(place.godwit).arg("settle").output();
            }
        });
        let opened = open(child);
        drop(over);
        opened
    })
}

fn figures(reported: &Value, board: &Board, pace: Pace) -> Result<Figures, Error> {
    if reported.get("down_ms").is_none() {
        return Err(program("godwit migrate", format!("it reported {reported}")));
    }
    let (waits, wait_median_us, wait_99_us) = waits(&board.stalls()?, WAIT_NS);
    Ok(Figures {
        gap_ms: board.gap()?.duration.as_secs_f64() * 1e3,
        delay_ms: pace.delay() * 1e3,
        window_ms: pace.during.1 * 1e3,
        waits,
        wait_median_us,
        wait_99_us,
        ..of_report(reported)
    })
}
