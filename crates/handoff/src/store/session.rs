//! One connection to a page store, seen by the store: who is there, what it may do, and what is to be done.

use alloc::format;
use alloc::string::String;

use crate::frame::Runs;
use crate::identity::MigrationId;
use crate::store::{Cause, Role, VERSION, Word};

/// Pages are 4 KiB here.
const PAGE_SHIFT: u8 = 12;

/// What the driver does for a word. It answers with what the variant names, or with [`Word::Refused`] and the end of the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Task {
    /// Open what is kept of this migration (a writer's begins empty where there is nothing); answer [`Word::Opened`].
    Open(MigrationId, Role),
    /// Keep everything that was put in so that the end of this process does not take it away; answer [`Word::Synced`].
    Sync(u64),
    /// Remove it; answer [`Word::Removed`].
    Remove,
}

/// Why a connection ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// The sort.
    pub cause: Cause,
    /// In words.
    pub text: String,
}

impl Fault {
    /// A fault.
    pub fn new(cause: Cause, text: impl Into<String>) -> Fault {
        Fault { cause, text: text.into() }
    }

    /// As the other side hears it.
    pub fn word(&self) -> Word {
        Word::Refused { cause: self.cause, text: self.text.clone() }
    }
}

/// The state of one connection.
#[derive(Clone, Debug, Default)]
pub struct Session {
    open: Option<(MigrationId, Role)>,
    removed: bool,
}

fn out_of_turn(what: &str) -> Fault {
    Fault::new(Cause::OutOfTurn, what)
}

impl Session {
    /// Takes in a word.
    ///
    /// # Errors
    /// It may not be said here: tell it, and end the connection.
    pub fn hear(&mut self, word: &Word) -> Result<Task, Fault> {
        match word {
            Word::Open { .. } if self.open.is_some() => Err(out_of_turn("it is open")),
            Word::Open { version, .. } if *version != VERSION => {
                Err(Fault::new(Cause::Version, format!("version {VERSION} is spoken here, not {version}")))
            }
            Word::Open { migration, role, .. } => {
                self.open = Some((*migration, *role));
                Ok(Task::Open(*migration, *role))
            }
            Word::Sync { number } => self.role(Role::Writer).map(|()| Task::Sync(*number)),
            Word::Remove => {
                self.is_open()?;
                self.removed = true;
                Ok(Task::Remove)
            }
            Word::Opened { .. } | Word::Refused { .. } | Word::Synced { .. } | Word::Missing(_) | Word::Removed => {
                Err(out_of_turn("a store says that"))
            }
        }
    }

    fn is_open(&self) -> Result<(MigrationId, Role), Fault> {
        self.open.filter(|_| !self.removed).ok_or_else(|| out_of_turn("nothing is open"))
    }

    fn role(&self, wanted: Role) -> Result<(), Fault> {
        let (_, role) = self.is_open()?;
        if role == wanted { Ok(()) } else { Err(out_of_turn("that is for the other role")) }
    }

    /// Whether pages may be put in.
    ///
    /// # Errors
    /// No: as for [`Session::hear`].
    pub fn may_put(&self) -> Result<(), Fault> {
        self.role(Role::Writer)
    }

    /// Whether pages may be taken out. A writer may, too: it checks what it has put in.
    ///
    /// # Errors
    /// No: as for [`Session::hear`].
    pub fn may_take(&self, runs: &Runs) -> Result<(), Fault> {
        self.is_open()?;
        if runs.page_shift == PAGE_SHIFT { Ok(()) } else { Err(out_of_turn("pages are 4 KiB here")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn open(role: Role) -> Word {
        Word::Open { version: VERSION, migration: MigrationId([3; 16]), role }
    }

    fn cause<T>(result: Result<T, Fault>) -> Option<Cause> {
        result.err().map(|fault| fault.cause)
    }

    #[test]
    fn nothing_is_done_for_who_has_not_opened_or_may_not() {
        let runs = Runs { page_shift: 12, body_checksum: None, runs: vec![] };
        let mut session = Session::default();
        assert_eq!(cause(session.may_put()), Some(Cause::OutOfTurn));
        assert_eq!(cause(session.may_take(&runs)), Some(Cause::OutOfTurn));
        assert_eq!(cause(session.hear(&Word::Sync { number: 1 })), Some(Cause::OutOfTurn));
        assert_eq!(cause(session.hear(&Word::Remove)), Some(Cause::OutOfTurn));
        let newer = Word::Open { version: 9, migration: MigrationId([3; 16]), role: Role::Writer };
        assert_eq!(cause(session.hear(&newer)), Some(Cause::Version));
        assert_eq!(session.hear(&open(Role::Reader)), Ok(Task::Open(MigrationId([3; 16]), Role::Reader)));
        assert_eq!(cause(session.hear(&open(Role::Writer))), Some(Cause::OutOfTurn));
        assert_eq!(cause(session.may_put()), Some(Cause::OutOfTurn));
        assert_eq!(session.may_take(&runs), Ok(()));
        assert_eq!(cause(session.may_take(&Runs { page_shift: 21, ..runs.clone() })), Some(Cause::OutOfTurn));
        assert_eq!(cause(session.hear(&Word::Sync { number: 1 })), Some(Cause::OutOfTurn));
        assert_eq!(session.hear(&Word::Remove), Ok(Task::Remove));
        assert_eq!(cause(session.may_take(&runs)), Some(Cause::OutOfTurn));

        let mut session = Session::default();
        assert!(session.hear(&open(Role::Writer)).is_ok() && session.may_put().is_ok());
        assert_eq!(session.hear(&Word::Sync { number: 7 }), Ok(Task::Sync(7)));
        assert_eq!(cause(session.hear(&Word::Removed)), Some(Cause::OutOfTurn));
    }
}
