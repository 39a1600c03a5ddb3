//! How the tasks at the destination depend on the source's, or on what those have left elsewhere.

use godwit_handoff::{Event, Side};

use crate::harness::pair::Pair;

/// When what is owed gets into a page store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stores {
    Before,
    After,
}

impl<'a> Pair<'a> {
    /// Whether the tasks at the destination have to await the end of the source's.
    pub(crate) fn awaiting(mut self, awaits: bool) -> Pair<'a> {
        self.awaits = awaits;
        self.referee.awaits = awaits;
        self
    }

    /// Whether pages are owed when the tasks run at the destination.
    pub(crate) fn owing(mut self, owes: bool) -> Pair<'a> {
        self.owes = owes;
        self
    }

    /// Whether a page store takes over what is owed.
    pub(crate) fn storing(mut self, stores: Option<Stores>) -> Pair<'a> {
        self.stores = stores;
        self
    }

    /// The source has put all that is owed into a page store, and says so over the link with this number.
    pub(super) fn store(&mut self, link: u32) {
        if self.world.source.alive {
            self.world.stored = true;
            if self.link == Some(link) {
                self.feed(Side::Destination, Event::Stored);
            }
        }
    }
}
