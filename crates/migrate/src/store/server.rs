//! `godwit pages`: a page store that others reach over the network. One thread for each connection; what a connection keeps in memory is
//! bounded, whatever is said on it.
use super::archive::{Archive, Room};
use crate::stream::{Arrival, Broken, Stream};
use crate::transport::{Lane, tcp};
use godwit_handoff::frame::{Frame, Run, Runs};
use godwit_handoff::store::{Cause, Fault, Place, Role, Session, Task, Word};
use godwit_handoff::{Malformed, MigrationId};
use godwit_image::{Code, ObjectId, Refusal, Subject};
use godwit_linux::poll;
use std::collections::{BTreeMap, VecDeque};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Pages that are given at once: whoever waits for another page waits for these.
const GIVEN_PAGES: u32 = 64;
/// Wanted runs that may wait for their turn; until there are fewer nothing more is heard.
const WANTED_MAX: usize = 4096;
const PAGE_SHIFT: u8 = 12;
/// Who connects while so many are served waits.
const CONNECTIONS_MAX: usize = 256;

/// Who hears what goes wrong with a connection.
pub type Tell = Arc<dyn Fn(&str) + Send + Sync>;

/// How a page store is run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where its files are; made if it is not there.
    pub directory: PathBuf,
    /// Most bytes of all of them.
    pub limit: u64,
    /// Whether what is acknowledged is on the disk, and not only out of this process's hands.
    pub durable: bool,
}

/// Everything that is kept.
#[derive(Debug)]
struct Shelf {
    settings: Settings,
    room: Room,
    /// What somebody has open.
    open: Mutex<BTreeMap<MigrationId, Weak<Mutex<Archive>>>>,
    connections: AtomicUsize,
}

fn failed(path: &std::path::Path) -> impl Fn(std::io::Error) -> Refusal + '_ {
    move |error| Refusal::new(Code::STORAGE, Subject::Object(path.display().to_string()), error.to_string())
}

/// Serves whoever connects, as long as this process lives. `tell` hears what goes wrong.
///
/// # Errors
/// The directory cannot be used, or nothing can be accepted.
pub fn serve(listener: &TcpListener, settings: Settings, tell: Tell) -> Result<(), Refusal> {
    let shelf = Arc::new(Shelf::new(settings)?);
    tcp::prepare(listener);
    loop {
        let (connection, peer) = match listener.accept() {
            Ok(accepted) => accepted,
            // Who went away before being accepted is nobody's trouble.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => continue,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => {
                let subject = Subject::Object("page store".to_owned());
                return Err(Refusal::new(Code::KERNEL_CALL, subject, error.to_string()));
            }
        };
        if shelf.connections.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
            shelf.connections.fetch_sub(1, Ordering::Relaxed);
            tell(&format!("{peer}: there are {CONNECTIONS_MAX} connections already"));
            continue;
        }
        let uncounted = shelf.clone();
        let (shelf, teller) = (shelf.clone(), tell.clone());
        let begun = std::thread::Builder::new().name("pages".to_owned()).spawn(move || {
            let lane = tcp::lane(connection).map_err(Broken::Failed);
            match lane.and_then(|lane| converse(lane, &shelf)) {
                Ok(()) | Err(Broken::Closed) => {}
                Err(error) => teller(&format!("{peer}: {error}")),
            }
            shelf.connections.fetch_sub(1, Ordering::Relaxed);
        });
        if let Err(error) = begun {
            // What it would have counted down.
            uncounted.connections.fetch_sub(1, Ordering::Relaxed);
            tell(&format!("{peer}: {error}"));
        }
    }
}

impl Shelf {
    fn new(settings: Settings) -> Result<Shelf, Refusal> {
        let directory = &settings.directory;
        crate::private::directory(directory).map_err(failed(directory))?;
        let mut used = 0;
        for entry in std::fs::read_dir(directory).map_err(failed(directory))? {
            let entry = entry.map_err(failed(directory))?;
            if entry.path().extension().is_some_and(|extension| extension == "pages") {
                used += entry.metadata().map_err(failed(directory))?.len();
            }
        }
        let room = Room::new(settings.limit, used);
        let open = Mutex::new(BTreeMap::new());
        Ok(Shelf { settings, room, open, connections: AtomicUsize::new(0) })
    }

    /// What is kept of a migration: one for all who have it open.
    fn open(&self, migration: MigrationId, role: Role) -> Result<Arc<Mutex<Archive>>, Fault> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, archive| archive.strong_count() > 0);
        if let Some(archive) = open.get(&migration).and_then(Weak::upgrade) {
            return Ok(archive);
        }
        let directory = &self.settings.directory;
        if role == Role::Reader && !super::archive::path_of(directory, migration).exists() {
            return Err(Fault::new(Cause::Unknown, "nothing was put in"));
        }
        let archive = Archive::write(directory, migration, self.room.clone(), self.settings.durable)?;
        let archive = Arc::new(Mutex::new(archive));
        open.insert(migration, Arc::downgrade(&archive));
        Ok(archive)
    }

    /// Whoever opens it from now on finds nothing.
    fn forget(&self, migration: MigrationId) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&migration);
    }
}

/// What goes wrong with one connection.
enum Trouble {
    Link(Broken),
    Fault(Fault),
}

impl From<Broken> for Trouble {
    fn from(broken: Broken) -> Trouble {
        Trouble::Link(broken)
    }
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Trouble {
        Trouble::Fault(fault)
    }
}

struct Conversation<'a> {
    shelf: &'a Shelf,
    stream: Stream,
    session: Session,
    migration: Option<MigrationId>,
    archive: Option<Arc<Mutex<Archive>>>,
    wanted: VecDeque<Run>,
}

fn converse(lane: Lane, shelf: &Shelf) -> Result<(), Broken> {
    let stream = Stream::new(lane);
    let session = Session::default();
    let mut conversation =
        Conversation { shelf, stream, session, migration: None, archive: None, wanted: VecDeque::new() };
    match conversation.go_on() {
        Ok(()) => Ok(()),
        Err(Trouble::Link(broken)) => Err(broken),
        Err(Trouble::Fault(fault)) => {
            // Who is gone does not hear it.
            let _ = conversation.say(fault.word()).and_then(|()| conversation.let_leave());
            Err(Broken::Refused(fault.text))
        }
    }
}

impl Conversation<'_> {
    fn go_on(&mut self) -> Result<(), Trouble> {
        loop {
            while self.stream.is_flushed() && !self.wanted.is_empty() {
                self.give()?;
            }
            self.stream.flush()?;
            if self.stream.is_flushed() && (self.wanted.len() < WANTED_MAX) && self.hear()? {
                continue;
            }
            if self.stream.is_flushed() && !self.wanted.is_empty() {
                continue;
            }
            let [reader, writer] = self.stream.interest(false);
            let files = if self.stream.is_flushed() { vec![reader] } else { vec![writer] };
            poll::wait(&files, None)
                .map_err(|error| Broken::Failed(std::io::Error::from_raw_os_error(error.number)))?;
        }
    }

    /// Takes in one thing; false if there is none.
    fn hear(&mut self) -> Result<bool, Trouble> {
        let word = match self.stream.next()? {
            None => return Ok(false),
            Some(Arrival::Store(word)) => word,
            Some(Arrival::Pages(owner, ranges, bytes)) => {
                self.session.may_put()?;
                with(&self.archive, |archive| archive.put(owner, ranges, Some(bytes)))?;
                return Ok(true);
            }
            Some(Arrival::Zeros(owner, ranges)) => {
                self.session.may_put()?;
                with(&self.archive, |archive| archive.put(owner, ranges, None))?;
                return Ok(true);
            }
            Some(Arrival::Held(stage, owner, ranges)) => {
                self.session.may_put()?;
                with(&self.archive, |archive| archive.adopt(stage, owner, ranges))?;
                return Ok(true);
            }
            Some(Arrival::Wanted(owner, ranges)) => {
                let runs = runs_of(owner, ranges);
                self.session.may_take(&Runs { page_shift: PAGE_SHIFT, body_checksum: None, runs: Vec::new() })?;
                self.wanted.extend(runs);
                return Ok(true);
            }
            Some(_) => return Err(Broken::Malformed(Malformed::BadValue("direction")).into()),
        };
        match self.session.hear(&word)? {
            Task::Open(migration, role) => {
                let archive = self.shelf.open(migration, role)?;
                self.migration = Some(migration);
                self.archive = Some(archive);
                let pages = with(&self.archive, |archive| Ok(archive.pages()))?;
                self.say(Word::Opened { pages })?;
            }
            Task::Sync(number) => {
                with(&self.archive, |archive| archive.sync(number))?;
                self.say(Word::Synced { number })?;
            }
            Task::Remove => {
                with(&self.archive, Archive::remove)?;
                self.migration.into_iter().for_each(|migration| self.shelf.forget(migration));
                self.archive = None;
                self.say(Word::Removed)?;
            }
        }
        Ok(true)
    }

    fn say(&mut self, word: Word) -> Result<(), Broken> {
        self.stream.put(&Frame::Store(word), &[])
    }

    /// Last words: they leave, or the connection is gone.
    fn let_leave(&mut self) -> Result<(), Broken> {
        while !self.stream.is_flushed() {
            self.stream.flush()?;
            let [_, writer] = self.stream.interest(false);
            let _ = poll::wait(&[writer], Some(std::time::Duration::from_millis(200)));
        }
        Ok(())
    }

    /// Gives a piece of what is wanted first.
    fn give(&mut self) -> Result<(), Trouble> {
        let Some(run) = self.wanted.pop_front() else { return Ok(()) };
        let piece = Run { count: run.count.min(GIVEN_PAGES), ..run };
        if piece.count < run.count {
            let rest = Run { start: run.start + u64::from(piece.count), count: run.count - piece.count, ..run };
            self.wanted.push_front(rest);
        }
        let given = with(&self.archive, |archive| {
            let found = archive.find(piece)?;
            let contents = |(run, place): (Run, Option<Place>)| {
                Ok((
                    run,
                    place,
                    match place {
                        Some(place @ Place::File { .. }) => archive.contents(place, run.count)?,
                        _ => Vec::new(),
                    },
                ))
            };
            found.into_iter().map(|part| (part.run, part.place)).map(contents).collect::<Result<Vec<_>, Fault>>()
        })?;
        for (run, place, contents) in given {
            let runs = Runs { page_shift: PAGE_SHIFT, body_checksum: None, runs: vec![run] };
            match place {
                None => self.say(Word::Missing(run))?,
                Some(Place::Zero) => self.stream.put(&Frame::ZeroPages(runs), &[])?,
                Some(Place::File { .. }) => self.stream.put(&Frame::Pages(runs), &contents)?,
            }
        }
        self.stream.flush()?;
        Ok(())
    }
}

fn with<T>(
    archive: &Option<Arc<Mutex<Archive>>>,
    act: impl FnOnce(&mut Archive) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let archive = archive.as_ref().ok_or_else(|| Fault::new(Cause::OutOfTurn, "nothing is open"))?;
    act(&mut archive.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Ranges of bytes as runs of pages.
fn runs_of(owner: ObjectId, ranges: &[(u64, usize)]) -> impl Iterator<Item = Run> {
    // No run has more pages than its frame could say.
    let run = move |(start, length): &(u64, usize)| Run {
        owner: owner.0,
        start: start >> PAGE_SHIFT,
        count: u32::try_from(length >> PAGE_SHIFT).unwrap_or(u32::MAX),
    };
    ranges.iter().map(run)
}
