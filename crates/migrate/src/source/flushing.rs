//! What stays behind goes to a page store: all of it while the tree is down, or, while it runs at the destination already, what nobody asks
//! for. A store that is gone is waited for; one that stays away ends a move that has not been decided, and costs nothing later: then the
//! source gives everything itself.
use super::Driver;
use crate::store::{Location, Store};
use godwit_engine::owed::{Owed, Server};
use godwit_handoff::frame::Frame;
use godwit_handoff::store::Role;
use godwit_handoff::{Event, MigrationId};
use godwit_image::memory::PAGE_BYTES;
use godwit_image::{Code, ObjectId, Refusal, Subject};
use godwit_strategy::Row;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Bytes that are put in at once while the tree is down, and while somebody may wait for a page of ours.
const PIECE_BYTES: usize = 1 << 20;
const SMALL_PIECE_BYTES: usize = 256 << 10;
/// Bytes after which the store is asked to say what it has: so much is put in again after it was gone.
const SYNC_BYTES: usize = 64 << 20;
/// How long a store may be gone.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two attempts to reach it.
const PAUSE: Duration = Duration::from_millis(200);
/// How long it may take to remove what nobody needs.
const REMOVAL: Duration = Duration::from_secs(2);

type Piece = (ObjectId, Vec<(u64, usize)>);

/// What is on its way to the store.
#[derive(Debug, Default)]
pub(super) struct Flushing {
    store: Option<Store>,
    /// Gives what is to be put in, each page once.
    server: Option<Server>,
    /// What was put in and is not acknowledged, and how much that is.
    unsure: Vec<Piece>,
    bytes: usize,
    /// What is to be put in once more.
    again: VecDeque<Piece>,
    /// When the store was lost, and when it was last tried.
    lost: Option<(Instant, Instant)>,
    /// All of it is there.
    complete: bool,
    /// The destination has heard it over this link.
    told: bool,
}

/// The store of a row that needs one.
pub(super) fn open(row: &Row, pages: Option<&str>, migration: MigrationId) -> Result<Flushing, Refusal> {
    let usage = |cause: &str| Refusal::new(Code::USAGE, Subject::Object("--pages".to_owned()), cause);
    let location = pages.map(Location::parse).transpose()?;
    match (row.needs_store(), location) {
        (true, Some(location)) => {
            let store = Some(Store::open(location, migration, Role::Writer)?);
            Ok(Flushing { store, ..Flushing::default() })
        }
        (true, None) => Err(usage(
            "this strategy needs a page store: tcp://HOST:PORT of a godwit pages, or a directory that both hosts see",
        )),
        (false, Some(_)) => Err(usage("this strategy has no use for a page store")),
        (false, None) => Ok(Flushing::default()),
    }
}

impl Flushing {
    /// Where the store is, for the destination.
    pub(super) fn location(&self) -> Option<String> {
        self.store.as_ref().map(|store| store.location().to_string())
    }

    pub(super) fn begin(&mut self, owed: &[Owed]) {
        self.server = (!owed.is_empty()).then(|| {
            let mut server = Server::new(owed);
            server.push_all();
            server
        });
    }

    /// The destination has these: they need not be put in any more.
    pub(super) fn given(&mut self, owner: ObjectId, ranges: &[(u64, usize)]) {
        for (start, length) in ranges {
            self.server.iter_mut().for_each(|server| drop(server.take(owner, *start, *length as u64)));
        }
    }

    /// Over a new link: the destination says that it does not have these, and that they are not in the store.
    pub(super) fn untold(&mut self) {
        self.told = false;
    }

    fn next(&mut self, limit: usize) -> Option<Piece> {
        self.again.pop_front().or_else(|| self.server.as_mut()?.take_next(limit))
    }

    /// When to look again.
    pub(super) fn limit(&self) -> Option<Duration> {
        self.lost.filter(|_| !self.complete).map(|_| PAUSE)
    }

    /// What becomes of the store's pages when it is over: whoever fetches them removes them.
    pub(super) fn end(&mut self, is_needed: bool) -> Result<(), Refusal> {
        match self.store.take() {
            Some(mut store) if !is_needed => store.remove(REMOVAL),
            _ => Ok(()),
        }
    }
}

impl Driver<'_> {
    /// Everything that stays behind, while the tree is down.
    pub(super) fn flush(&mut self) -> Result<(), Refusal> {
        while !self.flushing.complete {
            if self.flushing.server.is_none() {
                return Ok(());
            }
            if let Some(pause) = self.pause_of_bucket() {
                self.turn(Some(pause), false);
                self.go_on()?;
                continue;
            }
            if let Err(refusal) = self.flush_piece(PIECE_BYTES) {
                self.await_store(refusal)?;
            }
        }
        Ok(())
    }

    /// One piece, or, behind the last, the word that all is there.
    fn flush_piece(&mut self, limit: usize) -> Result<(), Refusal> {
        let Some(mut store) = self.flushing.store.take() else { return Ok(()) };
        let result = self.flush_piece_to(&mut store, limit.min(self.frame_limit()));
        self.flushing.store = Some(store);
        result
    }

    fn flush_piece_to(&mut self, store: &mut Store, limit: usize) -> Result<(), Refusal> {
        let piece = if self.flushing.bytes < SYNC_BYTES { self.flushing.next(limit) } else { None };
        let Some((owner, ranges)) = piece else {
            store.sync(&mut || self.meanwhile())?;
            let stored = self.flushing.unsure.drain(..).flat_map(|(_, ranges)| ranges).map(|(_, length)| length as u64);
            self.report.pages_stored += stored.sum::<u64>() / PAGE_BYTES;
            self.flushing.complete = self.flushing.bytes < SYNC_BYTES;
            self.flushing.bytes = 0;
            return Ok(());
        };
        let length: usize = ranges.iter().map(|(_, length)| length).sum();
        self.flushing.bytes += length;
        self.flushing.unsure.push((owner, ranges.clone()));
        let Some(mut server) = self.flushing.server.take() else { return Ok(()) };
        let mut bytes = Vec::new();
        let result = server.read(owner, &ranges, &mut bytes);
        let result = result.and_then(|()| store.put(owner, &ranges, &bytes, &mut || self.meanwhile()));
        self.flushing.server = Some(server);
        result?;
        // Both ways share what may leave.
        if let Some(bucket) = &mut self.bucket {
            bucket.take(length as u64, self.clock.now());
        }
        self.feed(Event::Moved { pages: length as u64 / PAGE_BYTES, bytes: length as u64 });
        self.tell();
        Ok(())
    }

    /// While the store has no room: the other side and the user are heard, and who waits for a page gets it.
    fn meanwhile(&mut self) -> Result<(), Refusal> {
        self.turn(Some(Duration::ZERO), false);
        if self.machine.is_serving() {
            while self.serve_asked() {}
            return Ok(());
        }
        self.go_on()
    }

    /// The store is gone: waits until it is there again.
    fn await_store(&mut self, refusal: Refusal) -> Result<(), Refusal> {
        self.put_again();
        let begin = Instant::now();
        loop {
            let Some(store) = &mut self.flushing.store else { return Err(refusal) };
            if !store.may_return() || begin.elapsed() > PATIENCE {
                return Err(refusal);
            }
            if store.open_again().is_ok() {
                return Ok(());
            }
            self.turn(Some(PAUSE), false);
            self.go_on()?;
        }
    }

    /// Just before the word that decides: what went to a store that is gone since would be lost with it.
    pub(super) fn confirm_store(&mut self) -> Result<(), Refusal> {
        while self.flushing.complete {
            let Some(mut store) = self.flushing.store.take() else { return Ok(()) };
            let confirmed = store.sync(&mut || self.meanwhile());
            self.flushing.store = Some(store);
            // Whoever has rolled back meanwhile must not note a commit.
            self.go_on()?;
            match confirmed {
                Ok(()) => return Ok(()),
                Err(refusal) => self.await_store(refusal)?,
            }
        }
        Ok(())
    }

    fn put_again(&mut self) {
        self.flushing.bytes = 0;
        self.flushing.again.extend(self.flushing.unsure.drain(..));
    }

    /// While the tree runs at the destination: one piece, if there is something to do. A store that stays away is not needed: what it
    /// should have had goes where it belongs.
    pub(super) fn flush_some(&mut self) -> bool {
        if self.flushing.server.is_none() || self.flushing.store.is_none() || !self.machine.is_serving() {
            return false;
        }
        if self.flushing.complete {
            return self.tell_stored();
        }
        if let Some((since, tried)) = self.flushing.lost {
            if tried.elapsed() < PAUSE {
                return false;
            }
            let is_back = self.flushing.store.as_mut().is_some_and(|store| store.open_again().is_ok());
            self.flushing.lost = (!is_back).then(|| (since, Instant::now()));
            if !is_back && since.elapsed() > PATIENCE {
                self.give_up_store();
            }
            return true;
        }
        if let Some(pause) = self.pause_of_bucket() {
            self.serving.pause = Some(pause);
            return false;
        }
        if let Err(refusal) = self.flush_piece(SMALL_PIECE_BYTES) {
            self.observe("failed", &refusal);
            self.put_again();
            self.flushing.lost = Some((Instant::now(), Instant::now()));
            if self.flushing.store.as_ref().is_some_and(|store| !store.may_return()) {
                self.give_up_store();
            }
        }
        true
    }

    fn give_up_store(&mut self) {
        self.flushing = Flushing::default();
        self.serving.push_all();
    }

    fn tell_stored(&mut self) -> bool {
        let Some(stream) = self.stream.as_mut().filter(|_| !self.flushing.told) else { return false };
        self.flushing.told = true;
        if let Err(error) = stream.put(&Frame::Stored, &[]).and_then(|()| stream.flush()) {
            self.lose_link(&error);
        }
        true
    }
}
