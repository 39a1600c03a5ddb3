//! Recovery: what is left in the journals of engines that died, and how it is settled.
use crate::journal::{self, Details, Journal};
use crate::{destination, source};
use godwit_handoff::{MigrationId, Outcome, Patience, Record, Settlement, Side, Stage};
use godwit_image::{Code, Refusal, Subject};
use std::path::Path;
use std::time::Duration;

/// One migration that somebody must settle.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pending {
    /// Which.
    pub migration: MigrationId,
    /// Whose side of it this is.
    pub side: Side,
    /// How far that side had come.
    pub stage: Stage,
    /// Number of the root process.
    pub root: i32,
    /// The other side: the destination as the user gave it, or the source's address.
    pub peer: String,
    /// Number of the process that acts on it now, if it is alive.
    pub engine: Option<i32>,
}

impl Pending {
    fn new((record, details): (Record, Details)) -> Pending {
        Pending {
            migration: record.migration,
            side: record.side,
            stage: record.stage,
            root: details.root,
            engine: details.living_engine(),
            peer: details.peer,
        }
    }
}

/// What there is to recover in the run directory. Migrations that are going on, and those whose process runs here and of which only the
/// source's last word is missing, are not.
pub fn pending(directory: &Path) -> Vec<Pending> {
    let all = journal::all(directory).into_iter().map(Pending::new);
    all.filter(|pending| pending.engine.is_none() && !matches!(pending.stage, Stage::Resumed | Stage::Done)).collect()
}

/// Reads the number of a migration as it is printed.
pub fn parse_migration(text: &str) -> Option<MigrationId> {
    if text.len() != 32 {
        return None;
    }
    u128::from_str_radix(text, 16).ok().map(|number| MigrationId(number.to_be_bytes()))
}

/// Settles this host's side of a migration: undoes or completes what its journal says, asking the destination where needed. `decision`
/// is the user's for a doubt that no answer can end.
///
/// # Errors
/// It is still in doubt (GW1304), another process acts on it, or something could not be done.
pub fn recover(directory: &Path, pending: &Pending, decision: Option<Settlement>) -> Result<Outcome, Vec<Refusal>> {
    let one = |refusal: Refusal| vec![refusal];
    match Journal::open(directory, pending.migration, pending.side, Duration::from_secs(1)).map_err(one)? {
        Some(journal) => settle(journal, decision),
        None => {
            let subject = Subject::Object(format!("migration {}", pending.migration));
            Err(one(Refusal::new(Code::STORAGE, subject, "it has no journal here any more")))
        }
    }
}

pub(crate) fn settle(journal: Journal, decision: Option<Settlement>) -> Result<Outcome, Vec<Refusal>> {
    let patience = Patience::default();
    match journal.last().map(|record| record.side) {
        Some(Side::Source) => source::recover(journal, decision, patience),
        Some(Side::Destination) => destination::recover(journal, patience),
        None => Ok(Outcome::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_migration_is_read_as_it_is_printed() {
        let migration = MigrationId([0xab; 16]);
        assert_eq!(parse_migration(&migration.to_string()), Some(migration));
        assert_eq!(parse_migration("ab"), None);
        assert_eq!(parse_migration(&"g".repeat(32)), None);
    }
}
