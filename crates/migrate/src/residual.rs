//! What processes are owed after their move: who owes how much to whom, on both sides, and how it is brought to an end.
//!
//! Each engine notes twice a second beside its journal how much is left; the journals say the rest.
use crate::door;
use crate::journal;
use godwit_handoff::{MigrationId, Side, Stage};
use godwit_image::{Code, Refusal, Subject};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Between two notes.
const NOTE_EVERY: Duration = Duration::from_millis(500);
/// Between two looks at whether it has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// One dependency.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Residual {
    /// Of which migration.
    pub migration: MigrationId,
    /// Whose side of it this is: the source owes, the destination is owed.
    pub side: Side,
    /// Number of the root process here.
    pub root: i32,
    /// All processes of the tree that were moved, by their numbers here.
    pub members: Vec<i32>,
    /// The other side: the destination as the user gave it, or the source's address.
    pub peer: String,
    /// Bytes that have not come, as of the last half second; `None`: that is not known.
    pub bytes: Option<u64>,
    /// Number of the process that serves or fetches them, if it is alive.
    pub engine: Option<i32>,
}

fn path(directory: &Path, migration: MigrationId, side: Side) -> PathBuf {
    directory.join(format!("{migration}.{side}.owed"))
}

/// An engine's note of what is left.
#[derive(Debug)]
pub(crate) struct Note {
    path: PathBuf,
    noted: Option<Instant>,
}

impl Note {
    pub(crate) fn new(directory: &Path, migration: MigrationId, side: Side) -> Note {
        Note { path: path(directory, migration, side), noted: None }
    }

    /// Notes it, if the last time was long ago.
    pub(crate) fn write(&mut self, bytes: u64) {
        if self.noted.is_none_or(|noted| noted.elapsed() >= NOTE_EVERY) {
            self.noted = Some(Instant::now());
            // Nothing depends on it but what the user is told.
            let _ = fs::write(&self.path, bytes.to_string());
        }
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        // It may never have been written.
        let _ = fs::remove_file(&self.path);
    }
}

/// Every dependency of which this host is one side.
pub fn residual(directory: &Path) -> Vec<Residual> {
    let owes = |stage: Stage| matches!(stage, Stage::Serving | Stage::Owing);
    let all = journal::all(directory).into_iter().filter(|(record, _)| owes(record.stage));
    let found = all.map(|(record, details)| {
        let noted = fs::read_to_string(path(directory, record.migration, record.side));
        Residual {
            migration: record.migration,
            side: record.side,
            root: journal::locate(details.root, details.namespace).unwrap_or(details.root),
            members: details.members_here().iter().map(|member| member.pid).collect(),
            bytes: noted.ok().and_then(|text| text.trim().parse().ok()),
            engine: details.living_engine(),
            peer: details.peer,
        }
    });
    found.collect()
}

/// Has all come that a process here is owed, and waits until it has, or for `patience` without a byte.
///
/// # Errors
/// GW1501: this is not the side that is owed; GW1301: nobody fetches it; GW1306: it was lost meanwhile; GW1305: nothing comes.
pub fn settle(directory: &Path, residual: &Residual, patience: Duration) -> Result<(), Refusal> {
    let subject = || Subject::Process(residual.root);
    if residual.side == Side::Source {
        let cause = format!("it runs at {}, where the rest can be fetched", residual.peer);
        return Err(Refusal::new(Code::USAGE, subject(), cause).choice("godwit settle at the destination"));
    }
    door::ask_for_all(directory, residual.migration)?;
    let (mut left, mut since) = (None, Instant::now());
    loop {
        let stage = journal::peek(directory, residual.migration, Side::Destination).map(|(record, _)| record.stage);
        match stage {
            Some(Stage::Owing) => {}
            Some(Stage::Resumed | Stage::Done) | None => return Ok(()),
            Some(_) => return Err(Refusal::new(Code::PAGES_LOST, subject(), "it was ended meanwhile")),
        }
        let now = fs::read_to_string(path(directory, residual.migration, Side::Destination)).ok();
        if now != left {
            (left, since) = (now, Instant::now());
        }
        if since.elapsed() > patience {
            let cause = "nothing more comes; it will go on when the source can be reached";
            return Err(Refusal::new(Code::CANCELLED, subject(), cause));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Details, Journal};
    use godwit_handoff::{BootId, Record};

    #[test]
    fn who_owes_and_who_is_owed_is_found_and_nobody_else() {
        let directory = std::env::temp_dir().join(format!("godwit-residual-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        let own = std::process::id() as i32;
        let mut journals = Vec::new();
        for (number, side, stage) in [
            (1, Side::Source, Stage::Serving),
            (2, Side::Destination, Stage::Owing),
            (3, Side::Destination, Stage::Resumed),
            (4, Side::Source, Stage::CommitSent),
        ] {
            let migration = MigrationId([number; 16]);
            let mut journal = Journal::create(&directory, migration, side).unwrap();
            let record = Record { side, stage, migration, boot: BootId([2; 16]), details: Vec::new() };
            journal.append(record, &Details::own("peer", own, Vec::new())).unwrap();
            journals.push(journal);
        }
        let mut note = Note::new(&directory, MigrationId([2; 16]), Side::Destination);
        note.write(8192);
        note.write(4096);
        let mut found = residual(&directory);
        found.sort_by_key(|one| one.migration);
        assert_eq!(found.iter().map(|one| one.bytes).collect::<Vec<_>>(), [None, Some(8192)]);
        assert!(found.iter().all(|one| one.root == own && one.engine == Some(own) && one.peer == "peer"));
        assert_eq!(settle(&directory, &found[0], Duration::ZERO).unwrap_err().code, Code::USAGE);
        assert_eq!(settle(&directory, &found[1], Duration::ZERO).unwrap_err().code, Code::LINK_LOST);
        drop(note);
        assert_eq!(residual(&directory).iter().filter(|one| one.bytes.is_some()).count(), 0);
        fs::remove_dir_all(&directory).unwrap();
    }
}
