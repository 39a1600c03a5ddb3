//! The page store, as the two sides of a migration use it: a directory that both see, or a `godwit pages` that both reach.
//!
//! Nothing here waits for long: who puts pages in is called back while they leave, and what was asked for is looked for when the store's
//! descriptor is readable. A store that is gone is opened again by whoever needs it; what was not acknowledged is put in once more.
mod archive;
pub mod server;

use crate::stream::{Arrival, Broken, Stream};
use crate::transport::{Transport, tcp};
use archive::{Archive, Room};
use godwit_handoff::MigrationId;
use godwit_handoff::frame::{Frame, RUN_LIMIT, Run, Runs};
use godwit_handoff::store::{Cause, Fault, Place, Role, VERSION, Word};
use godwit_image::{Code, ObjectId, Refusal, Subject};
use godwit_linux::poll::{self, Readiness};
use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long a store may take to answer that it is there.
const OPEN: Duration = Duration::from_secs(5);
/// Until who waits for a store looks at everything else.
const MOMENT: Duration = Duration::from_millis(20);
const PAGE_SHIFT: u8 = 12;
/// Pages of one frame.
const FRAME_BYTES: usize = 1 << 20;

/// Where a page store is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Location {
    Directory(PathBuf),
    Address(String),
}

impl Location {
    /// `tcp://HOST:PORT`, or a directory.
    pub(crate) fn parse(text: &str) -> Result<Location, Refusal> {
        let usage = |cause: &str| Refusal::new(Code::USAGE, Subject::Object(format!("--pages {text}")), cause);
        match text.split_once("://") {
            Some(("tcp", address)) => {
                let is_sound = address
                    .rsplit_once(':')
                    .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
                is_sound.then(|| Location::Address(address.to_owned())).ok_or_else(|| usage("expected tcp://HOST:PORT"))
            }
            Some(_) => Err(usage("a page store is tcp://HOST:PORT or a directory")),
            None if text.is_empty() => Err(usage("a page store is tcp://HOST:PORT or a directory")),
            // The other side is somewhere else.
            None => std::path::absolute(text).map(Location::Directory).map_err(|error| usage(&error.to_string())),
        }
    }
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Location::Directory(path) => write!(f, "{}", path.display()),
            Location::Address(address) => write!(f, "tcp://{address}"),
        }
    }
}

/// What a store gives.
#[derive(Debug)]
pub(crate) enum Given {
    /// Pages of one owner: ranges and their bytes one after another; none: they are zero.
    Pages(ObjectId, Vec<(u64, usize)>, Option<Vec<u8>>),
    /// Pages that it does not have.
    Missing(ObjectId, u64, u64),
}

#[derive(Debug)]
enum Way {
    Directory(Box<Archive>),
    Link(Box<Stream>),
    /// It is gone.
    Lost,
}

/// A store that one side of a migration uses.
#[derive(Debug)]
pub(crate) struct Store {
    location: Location,
    migration: MigrationId,
    role: Role,
    way: Way,
    given: VecDeque<Given>,
    /// The number of the last Sync, and of the last that was answered.
    synced: (u64, u64),
    removed: bool,
    /// It has said no, and will again.
    said_no: bool,
}

/// Called while a store has no room for more, at least as often as other things want to be looked at; an error ends the wait.
pub(crate) type Meanwhile<'a> = &'a mut dyn FnMut() -> Result<(), Refusal>;

impl Store {
    /// Opens it: a writer's begins empty, a reader's must be there.
    ///
    /// # Errors
    /// GW1307: it is not there, or says no.
    pub(crate) fn open(location: Location, migration: MigrationId, role: Role) -> Result<Store, Refusal> {
        let mut store = Store {
            location,
            migration,
            role,
            way: Way::Lost,
            given: VecDeque::new(),
            synced: (0, 0),
            removed: false,
            said_no: false,
        };
        store.open_again()?;
        Ok(store)
    }

    /// After it was lost. What was put in and not acknowledged has to be put in once more, and what was wanted to be asked for again.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub(crate) fn open_again(&mut self) -> Result<(), Refusal> {
        self.given.clear();
        self.synced.1 = self.synced.0;
        self.way = match &self.location {
            Location::Directory(directory) => {
                // What is shared by two hosts must be out of our own memory before the other looks.
                let opened = match self.role {
                    Role::Writer => crate::private::directory(directory)
                        .map_err(|error| Fault::new(Cause::Storage, format!("{}: {error}", directory.display())))
                        .and_then(|()| Archive::write(directory, self.migration, Room::new(u64::MAX, 0), true)),
                    Role::Reader => Archive::read(directory, self.migration),
                };
                Way::Directory(Box::new(opened.map_err(|fault| self.refused(&fault))?))
            }
            Location::Address(address) => {
                let lane = tcp::Tcp::new(address).connect(OPEN);
                let stream = lane.map(Stream::new).map_err(|error| self.lost(&Broken::Failed(error)))?;
                Way::Link(Box::new(stream))
            }
        };
        let begin = Instant::now();
        self.say(Word::Open { version: VERSION, migration: self.migration, role: self.role })?;
        let mut opened = !matches!(self.way, Way::Link(_));
        while !opened {
            if begin.elapsed() > OPEN {
                self.way = Way::Lost;
                return Err(self.gone("it does not answer"));
            }
            self.flush()?;
            self.wait(false, MOMENT);
            opened = self.hear_opened()?;
        }
        Ok(())
    }

    fn hear_opened(&mut self) -> Result<bool, Refusal> {
        let Way::Link(stream) = &mut self.way else { return Err(self.gone("it is not open")) };
        match stream.next() {
            Ok(Some(Arrival::Store(Word::Opened { .. }))) => Ok(true),
            Ok(Some(Arrival::Store(Word::Refused { cause, text }))) => {
                (self.way, self.said_no) = (Way::Lost, true);
                Err(self.refused(&Fault::new(cause, text)))
            }
            Ok(Some(_)) => Err(self.gone("it says what a page store does not")),
            Ok(None) => Ok(false),
            Err(broken) => Err(self.lose(&broken)),
        }
    }

    /// Where it is, for messages.
    pub(crate) fn location(&self) -> &Location {
        &self.location
    }

    pub(crate) fn is_lost(&self) -> bool {
        matches!(self.way, Way::Lost)
    }

    /// It is gone, and there is some sense in trying again.
    pub(crate) fn may_return(&self) -> bool {
        self.is_lost() && !self.said_no
    }

    fn gone(&self, cause: &str) -> Refusal {
        let subject = Subject::Object(format!("page store {}", self.location));
        Refusal::new(Code::STORE_LOST, subject, cause.to_owned())
            .choice("godwit pages must run there, and both hosts must reach it")
    }

    fn refused(&self, fault: &Fault) -> Refusal {
        self.gone(&if fault.text.is_empty() {
            fault.cause.to_string()
        } else {
            format!("{}: {}", fault.cause, fault.text)
        })
    }

    fn lost(&self, broken: &Broken) -> Refusal {
        self.gone(&broken.to_string())
    }

    fn lose(&mut self, broken: &Broken) -> Refusal {
        self.way = Way::Lost;
        self.lost(broken)
    }

    fn say(&mut self, word: Word) -> Result<(), Refusal> {
        self.put_frame(&Frame::Store(word), &[])
    }

    fn put_frame(&mut self, frame: &Frame<'_>, body: &[u8]) -> Result<(), Refusal> {
        let Way::Link(stream) = &mut self.way else { return Ok(()) };
        match stream.put(frame, body) {
            Ok(()) => Ok(()),
            Err(broken) => Err(self.lose(&broken)),
        }
    }

    fn flush(&mut self) -> Result<(), Refusal> {
        let Way::Link(stream) = &mut self.way else { return Ok(()) };
        match stream.flush() {
            Ok(()) => Ok(()),
            Err(broken) => Err(self.lose(&broken)),
        }
    }

    /// Waits a moment for it to say something, or to have room.
    fn wait(&self, for_room: bool, limit: Duration) {
        if let Way::Link(stream) = &self.way {
            let [reader, writer] = stream.interest(for_room);
            // Whatever it says, the next attempt finds out.
            let _ = poll::wait(&[reader, writer], Some(limit));
        }
    }

    /// Puts pages of one owner in: ranges and their bytes one after another.
    ///
    /// # Errors
    /// GW1307: it is gone, or has no room; or what `meanwhile` says.
    pub(crate) fn put(
        &mut self,
        owner: ObjectId,
        ranges: &[(u64, usize)],
        bytes: &[u8],
        meanwhile: Meanwhile<'_>,
    ) -> Result<(), Refusal> {
        if let Way::Directory(archive) = &mut self.way {
            archive.put(owner, ranges, Some(bytes)).map_err(|fault| self.refused(&fault))?;
            return meanwhile();
        }
        let (mut taken, mut offset) = (Vec::new(), 0);
        let (mut from, mut pending) = (0, 0);
        for (start, length) in ranges {
            let mut at = 0;
            while at < *length {
                let part = (length - at).min(FRAME_BYTES - pending);
                taken.push(Run {
                    owner: owner.0,
                    start: (start + at as u64) >> PAGE_SHIFT,
                    count: (part >> PAGE_SHIFT) as u32,
                });
                (at, pending, offset) = (at + part, pending + part, offset + part);
                if pending == FRAME_BYTES || taken.len() == RUN_LIMIT {
                    self.put_runs(std::mem::take(&mut taken), &bytes[from..offset], meanwhile)?;
                    (from, pending) = (offset, 0);
                }
            }
        }
        if taken.is_empty() { Ok(()) } else { self.put_runs(taken, &bytes[from..offset], meanwhile) }
    }

    fn put_runs(&mut self, runs: Vec<Run>, bytes: &[u8], meanwhile: Meanwhile<'_>) -> Result<(), Refusal> {
        // Zero pages are named.
        let frame = if bytes.iter().all(|byte| *byte == 0) {
            Frame::ZeroPages(Runs { page_shift: PAGE_SHIFT, body_checksum: None, runs })
        } else {
            Frame::Pages(Runs { page_shift: PAGE_SHIFT, body_checksum: Some(crc32fast::hash(bytes)), runs })
        };
        let body = if let Frame::Pages(_) = frame { bytes } else { &[] };
        self.put_frame(&frame, body)?;
        self.let_leave(meanwhile)
    }

    fn let_leave(&mut self, meanwhile: Meanwhile<'_>) -> Result<(), Refusal> {
        loop {
            self.flush()?;
            match &self.way {
                Way::Lost => return Err(self.gone("it is not open")),
                Way::Link(stream) if !stream.is_flushed() => self.wait(true, MOMENT),
                _ => return meanwhile(),
            }
            self.hear()?;
            meanwhile()?;
        }
    }

    /// Everything that was put in is safe when this returns.
    ///
    /// # Errors
    /// As [`Store::put`].
    pub(crate) fn sync(&mut self, meanwhile: Meanwhile<'_>) -> Result<(), Refusal> {
        self.synced.0 += 1;
        let number = self.synced.0;
        if let Way::Directory(archive) = &mut self.way {
            return archive.sync(number).map_err(|fault| self.refused(&fault));
        }
        self.say(Word::Sync { number })?;
        self.let_leave(meanwhile)?;
        while self.synced.1 < number {
            self.wait(false, MOMENT);
            self.hear()?;
            meanwhile()?;
        }
        Ok(())
    }

    /// Asks for pages of an owner.
    ///
    /// # Errors
    /// GW1307: it is gone.
    pub(crate) fn want(&mut self, owner: ObjectId, start: u64, length: u64) -> Result<(), Refusal> {
        let run = Run { owner: owner.0, start: start >> PAGE_SHIFT, count: (length >> PAGE_SHIFT) as u32 };
        if let Way::Directory(archive) = &mut self.way {
            let given = look(archive, run).map_err(|fault| self.refused(&fault))?;
            self.given.extend(given);
            return Ok(());
        }
        let runs = Runs { page_shift: PAGE_SHIFT, body_checksum: None, runs: vec![run] };
        self.put_frame(&Frame::WantedPages(runs), &[])?;
        self.flush()
    }

    /// The next that it gives, if it is there.
    ///
    /// # Errors
    /// GW1307: it is gone.
    pub(crate) fn next(&mut self) -> Result<Option<Given>, Refusal> {
        if self.given.is_empty() {
            self.flush()?;
            self.hear()?;
        }
        Ok(self.given.pop_front())
    }

    /// Takes in what it has said, up to the first pages.
    fn hear(&mut self) -> Result<(), Refusal> {
        let Way::Link(stream) = &mut self.way else { return Ok(()) };
        loop {
            let fault = match stream.next() {
                Ok(None) => return Ok(()),
                Ok(Some(Arrival::Pages(owner, ranges, bytes))) => {
                    self.given.push_back(Given::Pages(owner, ranges.to_vec(), Some(bytes.to_vec())));
                    return Ok(());
                }
                Ok(Some(Arrival::Zeros(owner, ranges))) => {
                    self.given.push_back(Given::Pages(owner, ranges.to_vec(), None));
                    return Ok(());
                }
                Ok(Some(Arrival::Store(word))) => match word {
                    Word::Synced { number } => {
                        self.synced.1 = self.synced.1.max(number);
                        continue;
                    }
                    Word::Removed => {
                        self.removed = true;
                        continue;
                    }
                    Word::Missing(run) => {
                        let (start, length) = (run.start << PAGE_SHIFT, u64::from(run.count) << PAGE_SHIFT);
                        self.given.push_back(Given::Missing(ObjectId(run.owner), start, length));
                        return Ok(());
                    }
                    Word::Refused { cause, text } => Fault::new(cause, text),
                    _ => Fault::new(Cause::OutOfTurn, "it says what a page store does not"),
                },
                Ok(Some(_)) => Fault::new(Cause::OutOfTurn, "it says what a page store does not"),
                Err(broken) => return Err(self.lose(&broken)),
            };
            (self.way, self.said_no) = (Way::Lost, true);
            return Err(self.refused(&fault));
        }
    }

    /// What to wait for, where there is something to wait for.
    pub(crate) fn files(&self) -> Option<[(BorrowedFd<'_>, Readiness); 2]> {
        match &self.way {
            Way::Link(stream) => Some(stream.interest(false)),
            _ => None,
        }
    }

    /// Nobody needs these pages any more. Who cannot be told keeps them.
    ///
    /// # Errors
    /// GW1307: it could not be told.
    pub(crate) fn remove(&mut self, patience: Duration) -> Result<(), Refusal> {
        if self.is_lost() {
            self.open_again()?;
        }
        if let Way::Directory(archive) = &mut self.way {
            return archive.remove().map_err(|fault| self.refused(&fault));
        }
        self.say(Word::Remove)?;
        let begin = Instant::now();
        while !self.removed {
            if begin.elapsed() > patience {
                return Err(self.gone("it does not answer"));
            }
            self.flush()?;
            self.wait(false, MOMENT);
            self.hear()?;
            self.given.clear();
        }
        Ok(())
    }
}

/// What a directory has of some pages.
fn look(archive: &mut Archive, run: Run) -> Result<Vec<Given>, Fault> {
    let mut given = Vec::new();
    for part in archive.find(run)? {
        let (owner, start) = (ObjectId(part.run.owner), part.run.start << PAGE_SHIFT);
        let length = (part.run.count as usize) << PAGE_SHIFT;
        given.push(match part.place {
            None => Given::Missing(owner, start, length as u64),
            Some(Place::Zero) => Given::Pages(owner, vec![(start, length)], None),
            Some(place) => Given::Pages(owner, vec![(start, length)], Some(archive.contents(place, part.run.count)?)),
        });
    }
    Ok(given)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::path::Path;
    use std::sync::Arc;

    const MIGRATION: MigrationId = MigrationId([6; 16]);
    const OWNER: ObjectId = ObjectId(3);
    const PAGE: usize = 4096;

    struct Directory(PathBuf);

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn directory(name: &str) -> Directory {
        Directory(std::env::temp_dir().join(format!("godwit-store-{name}-{}", std::process::id())))
    }

    /// A store of this process, as long as that lives.
    fn serve(directory: &Path, limit: u64) -> Location {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let settings = server::Settings { directory: directory.to_owned(), limit, durable: false };
        std::thread::spawn(move || server::serve(&listener, settings, Arc::new(|_: &str| {})));
        Location::Address(address)
    }

    fn nothing() -> Result<(), Refusal> {
        Ok(())
    }

    /// Everything that comes until so many pages have; missing ones count, too.
    fn take(store: &mut Store, pages: usize) -> Vec<(u64, Option<u8>)> {
        let mut taken = Vec::new();
        let begin = Instant::now();
        while taken.len() < pages {
            assert!(begin.elapsed() < Duration::from_secs(20), "{taken:?}");
            match store.next().unwrap() {
                None => store.wait(false, MOMENT),
                Some(Given::Missing(_, start, length)) => {
                    taken.extend((0..length / PAGE as u64).map(|page| (start + page * PAGE as u64, None)));
                }
                Some(Given::Pages(_, ranges, bytes)) => {
                    let mut offset = 0;
                    for (start, length) in ranges {
                        for page in 0..length / PAGE {
                            let byte = bytes.as_ref().map_or(0, |bytes| bytes[offset]);
                            taken.push((start + (page * PAGE) as u64, Some(byte)));
                            offset += PAGE;
                        }
                    }
                }
            }
        }
        taken
    }

    #[test]
    fn what_one_side_puts_in_the_other_takes_out_from_a_directory_and_over_a_network() {
        let shared = directory("both");
        std::fs::create_dir_all(&shared.0).unwrap();
        for location in [Location::Directory(shared.0.join("a")), serve(&shared.0.join("b"), 1 << 30)] {
            assert_eq!(Store::open(location.clone(), MIGRATION, Role::Reader).unwrap_err().code, Code::STORE_LOST);
            let mut writer = Store::open(location.clone(), MIGRATION, Role::Writer).unwrap();
            // More than a frame, of two ranges, the second of zeros.
            let count = 600;
            let mut bytes: Vec<u8> = (0..count * PAGE).map(|at| 1 + (at / PAGE % 200) as u8).collect();
            bytes.extend(vec![0; 300 * PAGE]);
            let ranges = [(0x10_0000, count * PAGE), (0x1000_0000, 300 * PAGE)];
            writer.put(OWNER, &ranges, &bytes, &mut nothing).unwrap();
            writer.sync(&mut nothing).unwrap();
            let mut reader = Store::open(location.clone(), MIGRATION, Role::Reader).unwrap();
            reader.want(OWNER, 0x10_0000 + 300 * PAGE as u64, 2 * PAGE as u64).unwrap();
            let expected = [(300, 101), (301, 102)].map(|(page, byte)| (0x10_0000 + page * PAGE as u64, Some(byte)));
            assert_eq!(take(&mut reader, 2), expected);
            reader.want(OWNER, 0x1000_0000, 2 * PAGE as u64).unwrap();
            reader.want(ObjectId(9), 0x1000, PAGE as u64).unwrap();
            assert_eq!(take(&mut reader, 3), [(0x1000_0000, Some(0)), (0x1000_1000, Some(0)), (0x1000, None)]);
            reader.remove(OPEN).unwrap();
            drop((reader, writer));
            assert_eq!(Store::open(location, MIGRATION, Role::Reader).unwrap_err().code, Code::STORE_LOST);
        }
    }

    #[test]
    fn a_store_that_is_started_again_has_what_it_acknowledged() {
        let shared = directory("again");
        let mut writer = Store::open(serve(&shared.0, 1 << 30), MIGRATION, Role::Writer).unwrap();
        writer.put(OWNER, &[(0x1000, PAGE)], &[5; PAGE], &mut nothing).unwrap();
        writer.sync(&mut nothing).unwrap();
        writer.put(OWNER, &[(0x2000, PAGE)], &[6; PAGE], &mut nothing).unwrap();
        drop(writer);
        let other = serve(&shared.0, 1 << 30);
        // Until the first has let go of the file.
        let begin = Instant::now();
        let mut reader = loop {
            match Store::open(other.clone(), MIGRATION, Role::Reader) {
                Ok(reader) => break reader,
                Err(refusal) => assert!(begin.elapsed() < OPEN, "{refusal}"),
            }
        };
        reader.want(OWNER, 0x1000, 2 * PAGE as u64).unwrap();
        assert_eq!(take(&mut reader, 2), [(0x1000, Some(5)), (0x2000, None)]);
    }

    #[test]
    fn a_full_store_says_so() {
        let shared = directory("full");
        let mut writer = Store::open(serve(&shared.0, 3 * PAGE as u64), MIGRATION, Role::Writer).unwrap();
        let put = writer.put(OWNER, &[(0x1000, 8 * PAGE)], &[5; 8 * PAGE], &mut nothing);
        let refusal = put.and_then(|()| writer.sync(&mut nothing)).unwrap_err();
        assert!(refusal.code == Code::STORE_LOST && refusal.cause.starts_with("it is full"), "{refusal}");
        assert!(writer.is_lost() && !writer.may_return());
    }

    #[test]
    fn stores_are_told_apart() {
        assert_eq!(Location::parse("tcp://[::1]:7").unwrap(), Location::Address("[::1]:7".to_owned()));
        assert_eq!(Location::parse("/x/y").unwrap().to_string(), "/x/y");
        for text in ["", "tcp://here", "tcp://:7", "nfs://a:1"] {
            assert_eq!(Location::parse(text).unwrap_err().code, Code::USAGE, "{text}");
        }
    }
}
