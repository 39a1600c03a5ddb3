//! Descriptions that are captured while the tree still runs. When it is frozen the kernel's own records of them are read, all at
//! once: whose record says what was captured is not looked at again. Whoever is not among them, or says anything else, or has
//! anything that the record does not show (an owner, a lock, somebody else who holds it), is captured as ever.
use super::Capture;
use crate::edges::Edges;
use crate::file_records::{FileReader, Known, Pipe, Record};
use crate::glimpse::Glimpses;
use crate::look::Look;
use crate::resource::pipe_content::{self, End};
use crate::resource::{self, KINDS, Kind, eventfd, pipe_end, regular_file};
use crate::tmpfs_file;
use godwit_image::descriptor::Slot;
use godwit_image::{Envelope, KindId, ObjectId};
use godwit_linux::kernel_types::KernelTypes;
use godwit_linux::pidfd::PidFd;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

const O_ACCMODE: u32 = 3;
const S_IFMT: u32 = 0o170_000;
const S_IFREG: u32 = 0o100_000;

/// What was captured of a description, and must be what its record says.
#[derive(Debug)]
enum Seen {
    Counter(eventfd::State),
    /// An end of this pipe.
    End(ObjectId),
    File(regular_file::State),
}

/// One description.
#[derive(Debug)]
struct Object {
    seen: Seen,
    link: Vec<u8>,
    device: u64,
    inode: u64,
    flags: u32,
    envelope: Envelope,
}

/// A pipe.
#[derive(Debug)]
struct Content {
    /// As it was before it was captured.
    before: Pipe,
    changed: (i64, i64),
    state: pipe_content::State,
    key: Vec<u8>,
    envelope: Envelope,
}

/// What was captured of a running tree.
#[derive(Debug, Default)]
pub(crate) struct Early {
    known: Option<Known>,
    readers: BTreeMap<i32, FileReader>,
    /// By the kernel's address of the description.
    objects: BTreeMap<u64, Object>,
    /// Where each was seen.
    numbers: BTreeMap<i32, BTreeSet<i32>>,
    contents: BTreeMap<ObjectId, Content>,
    /// When the records were read, or before.
    began: Option<SystemTime>,
    /// The first number that no object has.
    next: u32,
}

/// A descriptor whose description is what was captured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Confirmed {
    pub(super) descriptor: i32,
    close_on_exec: bool,
    /// The kernel's address of its description.
    file: u64,
    object: ObjectId,
}

/// What holds of a frozen tree, by process.
pub(super) type Valid = BTreeMap<i32, Vec<Confirmed>>;

/// Looks at descriptors, by process.
pub(super) type Looks = BTreeMap<i32, Vec<(i32, Look)>>;

impl Early {
    /// Captures of running processes, of which descriptors have been glimpsed at, what can be confirmed afterwards.
    pub(crate) fn of<'t>(glimpses: &Glimpses, types: impl Fn() -> Option<&'t KernelTypes>) -> Early {
        let Some(types) = (!glimpses.is_empty()).then(types).flatten() else { return Early::default() };
        let Some(known) = Known::of(types) else { return Early::default() };
        let mut early = Early { next: 1, ..Early::default() };
        let pids: Vec<i32> = glimpses.pids().collect();
        let mut capture = Capture::new(&pids, Edges::default());
        for pid in pids {
            let Some(reader) = known.reader(pid, types) else { continue };
            early.began = Some(SystemTime::now());
            // Before anything is captured: what changes while that is done is not what will be found.
            let (Some(records), Ok(process)) = (known.read(&reader), PidFd::open(pid)) else { continue };
            early.take(&known, &records, glimpses, &process, &mut capture);
            early.readers.insert(pid, reader);
        }
        early.next = capture.next;
        early.known = Some(known);
        early
    }

    /// Captures the descriptions of one process.
    fn take(&mut self, known: &Known, records: &[Record], glimpses: &Glimpses, process: &PidFd, capture: &mut Capture) {
        // Readers first: what is in a pipe is read through an end that somebody has.
        let is_writer = |record: &&Record| known.pipe(record).is_some() && record.flags & O_ACCMODE == 1;
        let (writers, others): (Vec<&Record>, Vec<&Record>) = records.iter().partition(is_writer);
        for record in others.into_iter().chain(writers) {
            let is_known = self.objects.contains_key(&record.file) || record.has_owner || record.has_locks;
            let look = (!is_known).then(|| glimpses.look_early(process, record.descriptor)).flatten();
            if let Some(object) = look.and_then(|look| self.captured(known, record, &look, capture)) {
                self.objects.insert(record.file, object);
            }
            if self.objects.contains_key(&record.file) {
                self.numbers.entry(process.pid()).or_default().insert(record.descriptor);
            }
        }
    }

    fn captured(&mut self, known: &Known, record: &Record, look: &Look, capture: &mut Capture) -> Option<Object> {
        if look.inode != record.inode {
            return None;
        }
        let kind = *KINDS.iter().find(|kind| kind.description().is_some_and(|kind| kind.recognise(look)))?;
        let is = |other: &dyn Kind| other.id() == kind.id();
        let (seen, captured) = if is(&eventfd::EventCounter) {
            let captured = kind.description()?.capture(look, capture).ok()?;
            (Seen::Counter(opened(kind.id(), &captured)?), captured)
        } else if is(&regular_file::RegularFile) && !tmpfs_file::is_private(look) {
            let captured = kind.description()?.capture(look, capture).ok()?;
            (Seen::File(opened(kind.id(), &captured)?), captured)
        } else if is(&pipe_end::PipeEnd) {
            let content = self.content(known, record, look, capture)?;
            let end = End { content, flags: look.flags(), hung_up: false };
            (Seen::End(content), end.captured().ok()?)
        } else {
            return None;
        };
        let (id, version) = (capture.fresh(), kind.version());
        let resource::Captured { refs, payload } = captured;
        let envelope = Envelope { id, kind: kind.id(), version, refs, payload };
        let (link, flags) = (look.link.clone(), look.flags());
        Some(Object { seen, link, device: look.device, inode: look.inode, flags, envelope })
    }

    /// The pipe that a description is an end of.
    fn content(&mut self, known: &Known, record: &Record, look: &Look, capture: &mut Capture) -> Option<ObjectId> {
        // What is written into it from now on shows in its times.
        let began = self.began?;
        let before = known.pipe(record).filter(|_| is_settled(record, began))?;
        let key = pipe_content::key(look);
        if let Some((id, _)) = self.contents.iter().find(|(_, content)| content.key == key) {
            return Some(*id);
        }
        // Through a writer it could be read only by what others would notice.
        if look.flags() & O_ACCMODE == 1 {
            return None;
        }
        let id = pipe_content::capture(look, capture, None, true).ok()?;
        let envelope = capture.objects.iter().rfind(|envelope| envelope.id == id)?.clone();
        let state = resource::open(&envelope).ok()?;
        let changed = record.changed;
        self.contents.insert(id, Content { before: before.clone(), changed, state, key, envelope });
        Some(id)
    }

    /// The first number that a capture may give, so that what was captured before keeps its own.
    pub(super) fn next(&self) -> u32 {
        self.next.max(1)
    }

    /// Finds out what holds of the tree, which is frozen; of all other descriptors at which there were glimpses looks are taken
    /// meanwhile, by process.
    pub(super) fn confirm_and_look(&self, glimpses: &Glimpses) -> (Valid, Looks) {
        if self.objects.is_empty() {
            return Default::default();
        }
        std::thread::scope(|scope| {
            let other = std::thread::Builder::new().spawn_scoped(scope, || self.confirm());
            let looks = glimpses.look_besides(&self.numbers);
            // Where there can be no second thread nothing is confirmed, and everything looked at.
            (other.ok().and_then(|other| other.join().ok()).unwrap_or_default(), looks)
        })
    }

    /// Finds out what holds of the tree, which is frozen.
    fn confirm(&self) -> Valid {
        let mut valid = Valid::default();
        let Some(known) = self.known.as_ref().filter(|_| !self.objects.is_empty()) else { return valid };
        let read = |(pid, reader): (&i32, &FileReader)| Some((*pid, known.read(reader)?));
        let records: BTreeMap<i32, Vec<Record>> = self.readers.iter().filter_map(read).collect();
        let holders = Holders::of(&records);
        for (pid, records) in &records {
            for record in records {
                let Some(object) = self.objects.get(&record.file) else { continue };
                if !self.holds(known, object, record, &holders, *pid) {
                    continue;
                }
                valid.entry(*pid).or_default().push(Confirmed {
                    descriptor: record.descriptor,
                    close_on_exec: record.close_on_exec,
                    file: record.file,
                    object: object.envelope.id,
                });
            }
        }
        valid
    }

    /// Notes a descriptor of a thread whose description holds, and takes that over, once.
    pub(super) fn adopt(&self, tid: i32, confirmed: &Confirmed, capture: &mut Capture) {
        let Some(object) = self.objects.get(&confirmed.file) else { return };
        let Confirmed { descriptor, object: id, .. } = *confirmed;
        capture.survey.note_known(&object.link, object.flags, (tid, descriptor));
        if !capture.adopted.insert(id) {
            return;
        }
        let known = super::Known { pid: tid, descriptor, object: id };
        capture.unordered.push(((object.device, object.inode), known));
        if let Seen::End(content) = object.seen
            && capture.adopted.insert(content)
            && let Some(Content { key, envelope, .. }) = self.contents.get(&content)
        {
            capture.interned.insert((envelope.kind, key.clone()), content);
            capture.objects.push(envelope.clone());
        }
        capture.objects.push(object.envelope.clone());
    }

    /// Whether a record says what was captured.
    fn holds(&self, known: &Known, object: &Object, record: &Record, holders: &Holders, pid: i32) -> bool {
        let is_plain = !record.has_owner && !record.has_locks;
        let is_same = record.flags == object.flags && record.inode == object.inode;
        // Everybody who refers to it is in a table that has been read: it is in no other one, on no way, and nobody is at work with it.
        let is_ours = Some(&known.references(record)) == holders.descriptors.get(&record.file);
        is_plain
            && is_same
            && is_ours
            && match &object.seen {
                Seen::Counter(state) => known.counter(record) == Some((state.count, state.semaphore)),
                Seen::End(content) => self.contents.get(content).is_some_and(|content| {
                    content.holds(known, record)
                        && holders.ends.get(&record.private) == known.pipe(record).map(|pipe| &pipe.files)
                }),
                Seen::File(state) => {
                    record.device == object.device
                        && record.position == state.position
                        && is_there(object, state, pid, record)
                }
            }
    }
}

impl Confirmed {
    pub(super) fn slot(&self) -> Slot {
        Slot { descriptor: self.descriptor, close_on_exec: self.close_on_exec, description: self.object }
    }
}

impl Content {
    fn holds(&self, known: &Known, record: &Record) -> bool {
        let pipe_content::Sort::Pipe { mode, owner, times } = self.state.sort else { return false };
        known.pipe(record).is_some_and(|pipe| {
            *pipe == self.before
                && record.changed == self.changed
                && pipe.capacity() == self.state.capacity
                && pipe.readers > 0
                && pipe.writers > 0
        }) && (record.mode, record.owner, record.times) == (mode, owner, times)
    }
}

/// Whether an inode was last changed so long ago that a change from now on gets another time: the kernel's go by its ticks.
fn is_settled(record: &Record, began: SystemTime) -> bool {
    const TICKS: Duration = Duration::from_millis(40);
    let (seconds, nanoseconds) = record.changed;
    let (Ok(seconds), Ok(nanoseconds)) = (u64::try_from(seconds), u32::try_from(nanoseconds)) else { return false };
    let Some(settled) = SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds) + TICKS) else {
        return false;
    };
    began > settled
}

/// Whether the name of a file still leads to it, and it is as long as it was.
fn is_there(object: &Object, state: &regular_file::State, pid: i32, record: &Record) -> bool {
    let link = std::fs::read_link(format!("/proc/{pid}/fd/{}", record.descriptor));
    let has_name = link.is_ok_and(|link| link.as_os_str().as_bytes() == object.link);
    has_name
        && std::fs::symlink_metadata(&state.path).is_ok_and(|now| {
            (now.dev(), now.ino(), now.size()) == (object.device, object.inode, state.bytes)
                && now.mode() & S_IFMT == S_IFREG
        })
}

/// Who refers to what, as far as tables were read.
#[derive(Debug, Default)]
struct Holders {
    /// Descriptors of a description.
    descriptors: BTreeMap<u64, u64>,
    /// Descriptions of what is behind them.
    ends: BTreeMap<u64, u32>,
}

impl Holders {
    fn of(records: &BTreeMap<i32, Vec<Record>>) -> Holders {
        let (mut holders, mut tables) = (Holders::default(), BTreeSet::new());
        for records in records.values() {
            // Processes may share a table.
            if !records.first().is_some_and(|first| tables.insert(first.table)) {
                continue;
            }
            for record in records {
                let count = holders.descriptors.entry(record.file).or_default();
                *count += 1;
                if *count == 1 && record.private != 0 {
                    *holders.ends.entry(record.private).or_default() += 1;
                }
            }
        }
        holders
    }
}

/// A state out of what was captured.
fn opened<T: serde::de::DeserializeOwned>(kind: KindId, captured: &resource::Captured) -> Option<T> {
    let payload = captured.payload.clone();
    resource::open(&Envelope { id: ObjectId(0), kind, version: 1, refs: Vec::new(), payload }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use godwit_linux::file;
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::fd::{AsFd, AsRawFd, OwnedFd};

    /// Which of these descriptors of ours are what was captured of them.
    fn confirmed(early: &Early, files: [&File; 4]) -> [bool; 4] {
        let valid = early.confirm();
        let numbers: BTreeSet<i32> = valid.values().flatten().map(|known| known.descriptor).collect();
        files.map(|file| numbers.contains(&file.as_raw_fd()))
    }

    #[test]
    fn what_has_changed_since_is_not_confirmed() {
        // Alone in a process: what tests beside it start has our descriptors for a moment, as a holder that is not known.
        if std::env::var_os("GODWIT_ALONE").is_none() {
            let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
            alone.args(["--exact", "capture::early::tests::what_has_changed_since_is_not_confirmed", "--nocapture"]);
            alone.env("GODWIT_ALONE", "1").stdout(std::process::Stdio::null());
            assert!(alone.status().unwrap().success());
            return;
        }
        let Ok(types) = KernelTypes::read() else { return println!("skipped: the kernel does not tell its types") };
        if Known::of(&types).is_none() {
            return println!("skipped: the kernel's records cannot be read here");
        }
        let above = |file: OwnedFd, number| File::from(file::duplicate_above(file.as_fd(), number).unwrap());
        let path = std::env::temp_dir().join(format!("godwit-early-{}", std::process::id()));
        std::fs::write(&path, [7; 100]).unwrap();
        let mut counter = above(godwit_linux::eventfd::create(false).unwrap(), 1200);
        let (reader, writer) = godwit_linux::pipe::create(0o4000).unwrap();
        let (mut reader, mut writer) = (above(reader, 1200), above(writer, 1200));
        let mut text = above(File::open(&path).unwrap().into(), 1200);
        writer.write_all(b"unread").unwrap();
        let own = std::process::id() as i32;
        let early = || {
            // Until the kernel's clock of inodes has gone on: what was written just now may be written to again at the same time.
            std::thread::sleep(Duration::from_millis(60));
            Early::of(&Glimpses::of_all(own), || Some(&types))
        };
        let taken = early();
        let again = counter.try_clone().unwrap();
        assert_eq!(confirmed(&taken, [&again, &reader, &writer, &text]), [true; 4], "a second number of the same one");
        drop(again);
        counter.write_all(&1_u64.to_ne_bytes()).unwrap();
        text.read_exact(&mut [0]).unwrap();
        assert_eq!(confirmed(&taken, [&counter, &reader, &writer, &text]), [false, true, true, false]);
        // The same length again, and other bytes.
        reader.read_exact(&mut [0; 3]).unwrap();
        writer.write_all(b"new").unwrap();
        counter.read_exact(&mut [0; 8]).unwrap();
        assert_eq!(confirmed(&taken, [&counter, &reader, &writer, &text]), [true, false, false, false]);
        // Flags of one end; a third end; a name that is gone.
        let taken = early();
        assert_eq!(confirmed(&taken, [&counter, &reader, &writer, &text]), [true; 4]);
        file::set_status_flags(reader.as_fd(), 0).unwrap();
        std::fs::rename(&path, path.with_extension("other")).unwrap();
        assert_eq!(confirmed(&taken, [&counter, &reader, &writer, &text]), [true, false, true, false]);
        let third = File::open(format!("/proc/self/fd/{}", reader.as_raw_fd())).unwrap();
        assert_eq!(confirmed(&taken, [&counter, &reader, &writer, &text]), [true, false, false, false]);
        drop(third);
        std::fs::remove_file(path.with_extension("other")).unwrap();
    }
}
