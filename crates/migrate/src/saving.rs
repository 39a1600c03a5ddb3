//! A running tree to storage: written while it is frozen, then let go or ended.
//!
//! To end a tree takes more than one signal, and whoever is killed between two of them must not leave a part of it running. Therefore
//! the tasks are held stopped first, the journal says that they are to end, and a guardian or `godwit recover` completes it.
use crate::checkpoint;
use crate::guardian::Guardian;
use crate::host;
use crate::journal::{self, Details, Journal, Member};
use godwit_engine::capture;
use godwit_engine::check;
use godwit_engine::freeze::{self, FrozenTree};
use godwit_engine::preparation::Preparation;
use godwit_handoff::{MigrationId, Record, Side, Stage};
use godwit_image::layout::Checkpoint;
use godwit_image::{Code, Refusal, Subject};
use godwit_linux::features;
use godwit_linux::poll::{self, Readiness};
use godwit_linux::proc::stat;
use godwit_linux::scheduling;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What the user wishes of a checkpoint.
#[derive(Debug)]
pub struct Options {
    /// What becomes of edges.
    pub capture: capture::Options,
    /// The tree goes on instead of ending.
    pub leave_running: bool,
    /// Readable when the user wants it to end (see [`crate::cancellation`]); never read.
    pub cancel: Option<OwnedFd>,
    /// Where the journal is.
    pub run_directory: PathBuf,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            capture: capture::Options::default(),
            leave_running: false,
            cancel: None,
            run_directory: journal::run_directory(),
        }
    }
}

/// A checkpoint that was written.
#[derive(Debug)]
pub struct Saved {
    /// What is in it.
    pub checkpoint: Checkpoint,
    /// How long the tree was frozen, or until it had ended.
    pub frozen: Duration,
}

/// Writes a running tree into a directory, after everything in it was looked at.
///
/// # Errors
/// Every object that cannot be carried; everything for which a tree cannot be frozen, captured or written, and GW1305: cancelled. The
/// tree runs on then, and nothing of the checkpoint is left.
pub fn save(
    pid: i32,
    directory: &Path,
    options: &Options,
    progress: checkpoint::Progress<'_>,
) -> Result<Saved, Vec<Refusal>> {
    let one = |refusal: Refusal| vec![refusal];
    let migration = host::migration_id().map_err(one)?;
    // First of all, as long as there is no thread of ours.
    let guardian = (!options.leave_running)
        .then(|| Guardian::copy(&options.run_directory, migration, Side::Source))
        .transpose()
        .map_err(one)?;
    let features = features::OnDemand::default();
    let refusals = match check::examine(pid, &options.capture, &|feature| features.has(feature)) {
        Ok(examination) => examination.refusals(),
        Err(refusal) => one(refusal),
    };
    let ending = match guardian {
        Some(guardian) if !refusals.is_empty() => {
            guardian.dismiss();
            None
        }
        Some(guardian) => {
            Some(Ending::prepare(pid, directory, migration, guardian, &options.run_directory).map_err(one)?)
        }
        None => None,
    };
    if !refusals.is_empty() {
        return Err(refusals);
    }
    save_frozen(pid, directory, options, ending, progress).map_err(one)
}

fn save_frozen(
    pid: i32,
    directory: &Path,
    options: &Options,
    ending: Option<Ending>,
    progress: checkpoint::Progress<'_>,
) -> Result<Saved, Refusal> {
    let existed = directory.exists();
    let begin = Instant::now();
    let saved =
        freeze::freeze(pid, Preparation::of(pid)).and_then(|frozen| write_frozen(frozen, directory, options, progress));
    let (frozen, checkpoint) = match saved {
        Ok(saved) => saved,
        Err(mut refusal) => {
            if let Some(ending) = ending {
                ending.dismiss();
            }
            refusal.rolled_back = "the tree runs on".to_owned();
            return Err(refusal);
        }
    };
    match ending {
        Some(ending) => ending.end(frozen).inspect_err(|_| checkpoint::remove(directory, existed))?,
        None => frozen.release(),
    }
    Ok(Saved { checkpoint, frozen: begin.elapsed() })
}

/// The tree comes back frozen.
fn write_frozen(
    frozen: FrozenTree,
    directory: &Path,
    options: &Options,
    progress: checkpoint::Progress<'_>,
) -> Result<(FrozenTree, Checkpoint), Refusal> {
    let existed = directory.exists();
    let pid = frozen.processes.first().map_or(0, |process| process.pid);
    if let [process] = frozen.processes.as_slice()
        && process.threads.len() == 1
        && let Ok(stat) = stat::read_process_wide(pid)
    {
        // It and we take turns from now on. Of what only costs time nothing is said.
        let _ = scheduling::go_to_processor(stat.processor as u32);
    }
    let mut frozen = Some(frozen);
    let captives = capture::capture_at_a_good_moment(&mut frozen, &options.capture, None)?;
    let checkpoint = checkpoint::write(captives, directory, &mut |done, total| {
        progress(done, total);
        go_on(pid, options)
    })?;
    go_on(pid, options).inspect_err(|_| checkpoint::remove(directory, existed))?;
    let frozen =
        frozen.ok_or_else(|| Refusal::new(Code::PROCESS_VANISHED, Subject::Process(pid), "it is not there"))?;
    Ok((frozen, checkpoint))
}

/// An error when the user wants no more.
fn go_on(pid: i32, options: &Options) -> Result<(), Refusal> {
    let Some(cancel) = &options.cancel else { return Ok(()) };
    let ready = poll::wait(&[(cancel.as_fd(), Readiness::READABLE)], Some(Duration::ZERO));
    if ready.is_ok_and(|ready| ready[0].readable) {
        return Err(Refusal::new(Code::CANCELLED, Subject::Process(pid), "the user cancelled it"));
    }
    Ok(())
}

/// What is needed to end a tree whole.
struct Ending {
    journal: Journal,
    guardian: Guardian,
    migration: MigrationId,
    details: Details,
}

impl Ending {
    fn prepare(
        pid: i32,
        directory: &Path,
        migration: MigrationId,
        mut guardian: Guardian,
        run: &Path,
    ) -> Result<Ending, Refusal> {
        match guardian.await_ready().and_then(|()| Journal::create(run, migration, Side::Source)) {
            Ok(journal) => {
                let details = Details::own(&directory.display().to_string(), pid, Vec::new());
                Ok(Ending { journal, guardian, migration, details })
            }
            Err(refusal) => {
                guardian.dismiss();
                Err(refusal)
            }
        }
    }

    fn note(&mut self, stage: Stage) -> Result<(), Refusal> {
        let record =
            Record { side: Side::Source, stage, migration: self.migration, boot: host::boot_id(), details: Vec::new() };
        self.journal.append(record, &self.details)
    }

    /// Nothing is left to do. An empty journal that cannot be removed says nothing, either.
    fn dismiss(mut self) {
        let _ = self.note(Stage::Done);
        self.guardian.dismiss();
    }

    /// From the second note on the tree is to end, whoever does it.
    fn end(mut self, mut frozen: FrozenTree) -> Result<(), Refusal> {
        let living = frozen.processes.iter().filter(|process| !process.is_zombie());
        self.details.members = living.map(|process| Member::now(process.pid, process.group_stop() != 0)).collect();
        let sealed = self.note(Stage::Started).and_then(|()| frozen.hold()).and_then(|()| self.note(Stage::Committed));
        if let Err(mut refusal) = sealed {
            frozen.unhold()?;
            self.dismiss();
            refusal.rolled_back = "the tree runs on".to_owned();
            return Err(refusal);
        }
        frozen.kill();
        self.dismiss();
        Ok(())
    }
}
