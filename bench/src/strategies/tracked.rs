//! What tracking costs a process that writes nothing, and how long a look at 1 GiB takes.
use super::record::Tracked;
use crate::board::{Board, Phase};
use crate::error::{Doing, Error};
use crate::measurement::PATIENCE;
use crate::program::Programs;
use crate::summary::Summary;
use godwit_engine::tracking;
use godwit_image::Refusal;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const BYTES: u64 = 1 << 30;
/// So often, and so long each time, its pace is measured with and without.
const TIMES: usize = 12;
const SPAN: Duration = Duration::from_millis(60);

/// It ends with the measurement, however that ends.
struct Subject(Child);

impl Drop for Subject {
    fn drop(&mut self) {
        // It may have ended by itself; nothing can be done about anything else.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Measures.
///
/// # Errors
/// The process cannot be started or tracked.
pub fn measure(programs: &Programs, directory: &Path) -> Result<Tracked, Error> {
    let refused = |refusal: Refusal| Error::Refused(refusal.to_string());
    let path = directory.join("board-tracked");
    let board = Board::new(&path)?;
    let mut command = Command::new(programs.compile("writer")?);
    command.arg(&path).args([BYTES.to_string(), "0".to_owned()]).stdin(Stdio::null()).stdout(Stdio::null());
    let subject = Subject(command.spawn().doing("start a process to be tracked")?);
    board.await_phase(Phase::Ready, PATIENCE)?;
    let pid = subject.0.id().cast_signed();
    let pace = || {
        let (begin, rounds) = (Instant::now(), board.rounds()?);
        std::thread::sleep(SPAN);
        Ok::<_, Error>((board.rounds()? - rounds) as f64 / begin.elapsed().as_secs_f64())
    };
    // In turns, so that what else changes on the machine meets both.
    let (mut without, mut with, mut looks, mut first) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..TIMES {
        without.push(pace()?);
        let mut begun = tracking::begin(pid, &BTreeSet::new()).map_err(refused)?;
        for (_, tracking) in &mut begun.processes {
            let begin = Instant::now();
            tracking.look().map_err(refused)?;
            first.push(begin.elapsed().as_secs_f64() * 1e3);
        }
        with.push(pace()?);
        for (_, tracking) in &mut begun.processes {
            let begin = Instant::now();
            tracking.look().map_err(refused)?;
            looks.push(begin.elapsed().as_secs_f64() * 1e3);
        }
    }
    let median = |values: Vec<f64>| Summary::of(values).map_or(0.0, |summary| summary.median);
    let slower = 1.0 - median(with) / median(without).max(1.0);
    Ok(Tracked { slower, look_ms: median(looks), first_look_ms: median(first) })
}
