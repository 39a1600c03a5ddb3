//! Pages that come from a page store: asked for there, placed as any other. A store that is gone is waited for as a source is.
use super::Driver;
use crate::store::{Given, Location, Store};
use godwit_engine::owed::{Pager, Wanted};
use godwit_handoff::Event;
use godwit_handoff::store::Role;
use godwit_image::{Code, ObjectId, Refusal, Subject};
use godwit_linux::poll::Readiness;
use godwit_strategy::Row;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

/// Between two attempts to reach a store that is gone.
const PAUSE: Duration = Duration::from_millis(200);
/// How long it may take to remove what nobody needs any more.
const REMOVAL: Duration = Duration::from_secs(2);
/// Bytes that are asked for at once when everything is wanted.
const DRAIN_BYTES: u64 = 1 << 20;

/// How the page store of this migration is used.
#[derive(Debug, Default)]
pub(super) struct Storing {
    store: Option<Store>,
    /// What is owed is there before the tree runs here.
    first: bool,
    /// What is missing comes from there now.
    active: bool,
    /// Everything is fetched, and not only what is waited for.
    pub(super) drains: bool,
    /// The source says that all is there, and it has not been seen yet.
    announced: bool,
    /// Bytes that were asked for by nobody who waits, and have not come.
    outstanding: u64,
    /// When the store was lost, and when it was last tried.
    lost: Option<(Instant, Instant)>,
}

impl Storing {
    pub(super) fn take_row(&mut self, row: &Row) {
        (self.first, self.drains) = (row.stores_before_handing_over(), row.empties_store());
    }

    /// From now on what is there is fetched without being asked for.
    pub(super) fn drain(&mut self) {
        self.drains = true;
    }

    /// What is missing comes from the store.
    pub(super) fn is_active(&self) -> bool {
        self.active
    }

    pub(super) fn files(&self) -> impl Iterator<Item = (BorrowedFd<'_>, Readiness)> {
        self.store.iter().filter_map(Store::files).flatten()
    }

    pub(super) fn limit(&self) -> Option<Duration> {
        self.lost.map(|_| PAUSE)
    }

    /// Nobody needs it; whoever put pages in removes them.
    pub(super) fn close(&mut self) {
        *self = Storing::default();
    }
}

impl Driver<'_> {
    /// Before anything is frozen: the store must be one that this side reaches, and have heard of this migration.
    pub(super) fn open_store(&mut self, location: Option<&str>) -> Result<(), Refusal> {
        let Some(location) = location else { return Ok(()) };
        let store = Store::open(Location::parse(location)?, self.machine.migration(), Role::Reader)?;
        self.storing.store = Some(store);
        Ok(())
    }

    /// The tree is owed pages (or not), and will run as soon as it may.
    pub(super) fn settle_store(&mut self) {
        if self.fetch.pager.is_none() {
            self.storing.close();
        } else if self.storing.first && self.storing.store.is_some() {
            self.storing.active = true;
            self.feed(Event::Stored);
        }
    }

    /// The source has put everything in: from now on it is asked for there. Not before the store was reached: until then the source stays.
    /// Pages and bytes that have moved with it: none.
    pub(super) fn announce_store(&mut self) -> (u64, u64) {
        self.storing.announced = self.storing.store.is_some();
        self.adopt_store();
        (0, 0)
    }

    pub(super) fn adopt_store(&mut self) {
        let is_there = self.storing.store.as_ref().is_some_and(|store| !store.is_lost());
        // What is no memory is not in the store.
        if self.fetch.pager.as_ref().is_some_and(Pager::gathers) {
            return;
        }
        if self.storing.announced && is_there {
            (self.storing.announced, self.storing.active) = (false, true);
            self.feed(Event::Stored);
            self.ask_store_again();
        } else if self.storing.announced && self.storing.lost.is_none() {
            self.storing.lost = Some((Instant::now(), Instant::now()));
        }
    }

    /// What was asked for elsewhere, or of a store that is gone, is asked for once more.
    fn ask_store_again(&mut self) {
        self.storing.outstanding = 0;
        let awaited = self.fetch.pager.as_ref().map(|pager| pager.awaited()).unwrap_or_default();
        self.want_from_store(&awaited);
    }

    pub(super) fn want_from_store(&mut self, wanted: &[Wanted]) {
        for one in wanted {
            let Some(store) = self.storing.store.as_mut().filter(|store| !store.is_lost()) else { return };
            if store.want(one.owner, one.start, one.length).is_err() {
                return self.lose_store();
            }
        }
    }

    fn lose_store(&mut self) {
        self.storing.lost.get_or_insert((Instant::now(), Instant::now()));
    }

    /// Takes in what the store gives, and what became of a store that was lost. An error: what is owed cannot be had.
    pub(super) fn take_from_store(&mut self) -> Result<(), Refusal> {
        let Some(store) = &mut self.storing.store else { return Ok(()) };
        if let Some((since, tried)) = self.storing.lost {
            if tried.elapsed() < PAUSE {
                return Ok(());
            }
            let opened = store.open_again();
            self.storing.lost = opened.is_err().then(|| (since, Instant::now()));
            match opened {
                Ok(()) if self.storing.active => self.ask_store_again(),
                Ok(()) => self.adopt_store(),
                Err(refusal) => {
                    let patience: Duration = self.options.patience.owed.into();
                    let over =
                        since.elapsed() > patience || !self.storing.store.as_ref().is_some_and(Store::may_return);
                    // As long as the source has the pages the store is not needed.
                    return if over && self.storing.active { Err(refusal) } else { Ok(()) };
                }
            }
        }
        self.drain_store();
        while let Some(store) = &mut self.storing.store {
            match store.next() {
                Ok(None) => break,
                Ok(Some(Given::Pages(owner, ranges, bytes))) => {
                    let length: usize = ranges.iter().map(|(_, length)| length).sum();
                    self.storing.outstanding = self.storing.outstanding.saturating_sub(length as u64);
                    self.place_owed(owner, &ranges, bytes.as_deref())?;
                    self.drain_store();
                }
                Ok(Some(Given::Missing(owner, start, length))) => return Err(missing(owner, start, length)),
                Err(_) => {
                    self.lose_store();
                    break;
                }
            }
        }
        Ok(())
    }

    /// Asks for the next of everything.
    fn drain_store(&mut self) {
        if !self.storing.drains || !self.storing.active || self.storing.outstanding > 0 || self.storing.lost.is_some() {
            return;
        }
        let owed = self.fetch.pager.as_ref().map(|pager| pager.owed()).unwrap_or_default();
        let runs = owed.iter().flat_map(|(owner, pages)| pages.runs().iter().map(|run| (*owner, run)));
        let mut wanted = Vec::new();
        let mut left = DRAIN_BYTES;
        for (owner, run) in runs {
            let length = run.bytes().min(left);
            wanted.push(Wanted { owner, start: run.start, length });
            left -= length;
            if left == 0 {
                break;
            }
        }
        self.storing.outstanding = DRAIN_BYTES - left;
        self.want_from_store(&wanted);
    }

    /// All is here, or nobody is left who could want it.
    pub(super) fn remove_store(&mut self) {
        let is_ours = self.storing.active;
        if let Some(mut store) = self.storing.store.take().filter(|_| is_ours)
            && let Err(refusal) = store.remove(REMOVAL)
        {
            // It costs room there, and nothing else.
            self.observe("kept", &refusal);
        }
        self.storing.close();
    }
}

fn missing(owner: ObjectId, start: u64, length: u64) -> Refusal {
    let subject = Subject::Object(format!("{length} bytes at {start:#x} of object {owner}"));
    Refusal::new(Code::STORE_LOST, subject, "the page store does not have them, though it said so")
}
