//! A restored tree begins to run, whole.
//!
//! To let a tree go takes a call for each thread, and whoever is killed between two of them must not leave a part of it. Therefore it is
//! held stopped first, and the journal says that it is to run: `godwit recover` completes it then.
use crate::host;
use crate::journal::{self, Details, Journal, Member};
use godwit_engine::restore::Restorer;
use godwit_handoff::{MigrationId, Record, Side, Stage};
use godwit_image::Refusal;
use godwit_image::task::State;
use std::path::Path;

/// Lets a tree run that was built from a checkpoint. Returns the root's number.
///
/// # Errors
/// GW1402: no journal can be written; or a task is dead. Nothing of it runs then.
pub fn resume(mut restorer: Restorer, directory: &Path) -> Result<i32, Refusal> {
    let migration = host::migration_id()?;
    let mut journal = Journal::create(&journal::run_directory(), migration, Side::Destination)?;
    let tree = restorer.tree();
    let living = tree.tasks.iter().filter(|task| !matches!(task.state, State::Zombie(_)));
    let members = living.map(|task| Member::now(task.pid.0, matches!(task.state, State::Stopped(_)))).collect();
    let root = tree.root().map_or(0, |task| task.pid.0);
    let details = Details::own(&directory.display().to_string(), root, members);
    let mut note = |stage| journal.append(record(migration, stage), &details);
    let resumed = note(Stage::Accepted)
        .and_then(|()| restorer.hold())
        .and_then(|()| note(Stage::Committed))
        .and_then(|()| restorer.resume_beside());
    // It runs, or there is nothing left of it: a journal that cannot be removed could only say so, too.
    let _ = note(Stage::Done);
    resumed
}

fn record(migration: MigrationId, stage: Stage) -> Record {
    Record { side: Side::Destination, stage, migration, boot: host::boot_id(), details: Vec::new() }
}
