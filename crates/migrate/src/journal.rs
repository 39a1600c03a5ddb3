//! The journal's files: one per migration and side in the run directory, to which the hand-off's records are appended.
//!
//! The run directory is on a tmpfs (/run/godwit) by default: after the death of a host neither its processes nor its journal
//! exist, and the other side, hearing that it is unknown there, asks a person. Records that should outlive the host are flushed; who
//! names a directory on a disk gets answers ("aborted", "lost") even after that, and pays with the time of one flush in the down time.
//!
//! Whoever acts on a migration's side holds a lock on its file, so that engine, guardian and `recover` never act at the same time.
use crate::private;
use godwit_engine::claim::Claim;
use godwit_handoff::{MigrationId, Record, Side, Stage};
use godwit_image::codec;
use godwit_image::{Code, Refusal, Subject};
use godwit_linux::pidfd::PidFd;
use godwit_linux::proc::{stat, status};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// One process of the tree, for whoever must find it again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Member {
    /// Its number.
    pub pid: i32,
    /// Its start time in clock ticks since boot, so that a later process of the same number is told apart.
    pub start: u64,
    /// Job control had stopped it before: it stays stopped.
    pub stopped: bool,
}

impl Member {
    /// The process of this number as it is now.
    pub(crate) fn now(pid: i32, stopped: bool) -> Member {
        Member { pid, start: start_time(pid).unwrap_or(0), stopped }
    }

    /// Whether the process still exists.
    pub(crate) fn exists(&self) -> bool {
        start_time(self.pid) == Some(self.start)
    }
}

fn start_time(pid: i32) -> Option<u64> {
    stat::read_process_wide(pid).ok().map(|stat| stat.start_time)
}

/// Where processes are looked for.
pub(crate) const PROCESSES: &str = "/proc";

/// Names the PID namespace of a process (`self`, or a number).
pub(crate) fn namespace_of(process: &str) -> Option<u64> {
    fs::metadata(format!("/proc/{process}/ns/pid")).ok().map(|metadata| metadata.ino())
}

/// The number that a process has here, from the one that it has in its own PID namespace.
pub(crate) fn locate(pid: i32, namespace: u64) -> Option<i32> {
    if namespace_of("self") == Some(namespace) {
        return Some(pid);
    }
    locate_in(Path::new(PROCESSES), pid, namespace)
}

/// The same by a /proc of another PID namespace: the number that counts there.
pub(crate) fn locate_in(processes: &Path, pid: i32, namespace: u64) -> Option<i32> {
    fs::read_dir(processes).ok()?.flatten().find_map(|entry| {
        let number: i32 = entry.file_name().to_str()?.parse().ok()?;
        let inside = fs::metadata(entry.path().join("ns/pid")).ok()?.ino() == namespace;
        let status = inside.then(|| fs::read(entry.path().join("status")).ok()).flatten()?;
        (status::parse(&status).ok()?.namespace_pid.last() == Some(&pid)).then_some(number)
    })
}

/// What a driver adds to a record.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Details {
    /// Number of the engine that wrote it.
    pub engine: i32,
    /// That engine's start time.
    pub engine_start: u64,
    /// The PID namespace (its inode number) in which all numbers here count.
    pub namespace: u64,
    /// The other side: the destination as the user gave it, or the source's address.
    pub peer: String,
    /// The root process.
    pub root: i32,
    /// The processes that are held stopped or may be.
    pub members: Vec<Member>,
    /// Source: whose pages are kept for the destination, and the thread through which they are read.
    #[serde(default)]
    pub owed: Vec<(u32, i32)>,
    /// Source: under which id what lies unread in pipes and sockets is given; the file beside the journal has it.
    #[serde(default)]
    pub communication: Option<u32>,
    /// Destination: the locks that they are to have when the source's tasks have ended.
    #[serde(default)]
    pub claims: Vec<Claim>,
}

impl Details {
    /// The notes of this process about a tree.
    pub(crate) fn own(peer: &str, root: i32, members: Vec<Member>) -> Details {
        let engine = std::process::id() as i32;
        let namespace = namespace_of("self").unwrap_or(0);
        Details {
            engine,
            engine_start: start_time(engine).unwrap_or(0),
            namespace,
            peer: peer.to_owned(),
            root,
            members,
            owed: Vec::new(),
            communication: None,
            claims: Vec::new(),
        }
    }

    /// The claims by numbers that count here; `None` if one's process is gone.
    pub(crate) fn claims_here(&self) -> Option<Vec<Claim>> {
        let here = |claim: &Claim| {
            let pid = locate(claim.pid, self.namespace)?;
            // Of a thread's number in another PID namespace nothing tells but its own.
            let thread = if pid == claim.pid { claim.thread } else { pid };
            Some(Claim { pid, thread, ..claim.clone() })
        };
        self.claims.iter().map(here).collect()
    }

    /// The engine that wrote them, by its number here, if it lives.
    pub(crate) fn living_engine(&self) -> Option<i32> {
        locate(self.engine, self.namespace).filter(|engine| start_time(*engine) == Some(self.engine_start))
    }

    /// The members by their numbers here; those that are gone are left out.
    pub(crate) fn members_here(&self) -> Vec<Member> {
        let here = |member: &Member| Some(Member { pid: locate(member.pid, self.namespace)?, ..*member });
        self.members.iter().filter_map(here).filter(Member::exists).collect()
    }
}

const SIGHUP: i32 = 1;
/// How the name of a file ends that belongs to a source's journal.
const BESIDE: &str = "unread";

/// Where the journals are: `GODWIT_RUN`, or /run/godwit.
pub fn run_directory() -> PathBuf {
    std::env::var_os("GODWIT_RUN").map_or_else(|| PathBuf::from("/run/godwit"), PathBuf::from)
}

/// The journal of one side of one migration, locked.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    last: Option<Record>,
    /// Made here, not found.
    made: bool,
}

fn path(directory: &Path, migration: MigrationId, side: Side) -> PathBuf {
    directory.join(format!("{migration}.{side}"))
}

fn storage(path: &Path) -> impl Fn(io::Error) -> Refusal {
    move |error| Refusal::new(Code::STORAGE, Subject::Path(path.display().to_string()), error.to_string())
}

impl Journal {
    /// Begins a journal.
    ///
    /// # Errors
    /// GW1402: the directory or file cannot be made, or there is a journal of this migration already.
    pub(crate) fn create(directory: &Path, migration: MigrationId, side: Side) -> Result<Journal, Refusal> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(storage(directory))?;
        let path = path(directory, migration, side);
        let mut options = OpenOptions::new();
        let file = options.append(true).read(true).create_new(true).mode(0o600).open(&path).map_err(storage(&path))?;
        file.lock().map_err(storage(&path))?;
        Ok(Journal { path, file, last: None, made: true })
    }

    /// Opens the journal of a migration, if there is one, waiting `patience` for its lock.
    ///
    /// # Errors
    /// GW1402: it cannot be read, or another process acts on it all the time; GW1004: it is damaged.
    pub(crate) fn open(
        directory: &Path,
        migration: MigrationId,
        side: Side,
        patience: Duration,
    ) -> Result<Option<Journal>, Refusal> {
        Journal::open_file(path(directory, migration, side), patience)
    }

    /// As [`Journal::open`], for whoever was asked in place of the engine that has the lock: that one is told that its link is dead.
    ///
    /// # Errors
    /// As [`Journal::open`].
    pub(crate) fn take_over(
        directory: &Path,
        migration: MigrationId,
        side: Side,
        patience: Duration,
    ) -> Result<Option<Journal>, Refusal> {
        match Journal::open(directory, migration, side, Duration::ZERO) {
            Err(refusal) if refusal.code == Code::STORAGE => {
                let path = path(directory, migration, side);
                let last = File::open(&path).ok().and_then(|mut file| read(&mut file, &path).ok().flatten());
                let details: Details = last.and_then(|record| codec::decode(&record.details).ok()).unwrap_or_default();
                if let Some(engine) = details.living_engine().and_then(|engine| PidFd::open(engine).ok()) {
                    // It may have ended just now; then the lock is free.
                    let _ = engine.send_signal(SIGHUP);
                }
                Journal::open(directory, migration, side, patience)
            }
            other => other,
        }
    }

    fn open_file(path: PathBuf, patience: Duration) -> Result<Option<Journal>, Refusal> {
        let mut file = match OpenOptions::new().append(true).read(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(storage(&path)(error)),
        };
        let begin = Instant::now();
        while let Err(error) = file.try_lock() {
            match error {
                fs::TryLockError::WouldBlock if begin.elapsed() < patience => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                fs::TryLockError::WouldBlock => {
                    let subject = Subject::Path(path.display().to_string());
                    return Err(Refusal::new(Code::STORAGE, subject, "another godwit is acting on this migration"));
                }
                fs::TryLockError::Error(error) => return Err(storage(&path)(error)),
            }
        }
        // Whoever had the lock may have finished and removed it.
        if file.metadata().map_err(storage(&path))?.nlink() == 0 {
            return Ok(None);
        }
        let last = read(&mut file, &path)?;
        Ok(Some(Journal { path, file, last, made: false }))
    }

    /// The last record.
    pub(crate) fn last(&self) -> Option<&Record> {
        self.last.as_ref()
    }

    /// The driver's notes of the last record.
    pub(crate) fn details(&self) -> Details {
        self.last.as_ref().and_then(|record| codec::decode(&record.details).ok()).unwrap_or_default()
    }

    /// Appends a record; one that says that nothing is left to do removes the journal.
    ///
    /// # Errors
    /// GW1402: the file system is full or gone.
    pub(crate) fn append(&mut self, mut record: Record, details: &Details) -> Result<(), Refusal> {
        if record.stage == Stage::Done {
            // One that stays is no harm, and most are not there.
            let _ = fs::remove_file(self.beside());
            return match fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(storage(&self.path)(error)),
                _ => Ok(()),
            };
        }
        record.details = codec::encode(details).unwrap_or_default();
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        let before = self.file.metadata().map_err(storage(&self.path))?.len();
        if let Err(error) = self.file.write_all(&bytes) {
            // Half a record on a full disk would spoil those that are written when there is room again.
            self.file.set_len(before).map_err(storage(&self.path))?;
            return Err(storage(&self.path)(error));
        }
        if record.outlives_host() {
            // Costs nothing on a tmpfs.
            self.file.sync_data().map_err(storage(&self.path))?;
        }
        self.last = Some(record);
        Ok(())
    }
}

impl Journal {
    /// A file that is there as long as the journal is, if it was written.
    pub(crate) fn beside(&self) -> PathBuf {
        self.path.with_extension(BESIDE)
    }

    /// Writes that file.
    ///
    /// # Errors
    /// GW1402: the file system is full or gone.
    pub(crate) fn put_beside(&self, bytes: &[u8]) -> Result<(), Refusal> {
        let path = self.beside();
        private::replace(&path).and_then(|mut file| file.write_all(bytes)).map_err(storage(&path))
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if self.made && self.last.is_none() {
            let _ = fs::remove_file(self.beside());
            // Nothing was ever noted: there is nothing to find either. One that stays is no harm.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn read(file: &mut File, path: &Path) -> Result<Option<Record>, Refusal> {
    let mut bytes = Vec::new();
    file.take(16 << 20).read_to_end(&mut bytes).map_err(storage(path))?;
    Record::last(&bytes).map_err(|error| {
        Refusal::new(Code::MALFORMED, Subject::Path(path.display().to_string()), format!("the journal: {error}"))
    })
}

/// The last record of one journal, with who wrote it; nothing is locked.
pub(crate) fn peek(directory: &Path, migration: MigrationId, side: Side) -> Option<(Record, Details)> {
    let path = path(directory, migration, side);
    let record = File::open(&path).ok().and_then(|mut file| read(&mut file, &path).ok().flatten())?;
    let details = codec::decode(&record.details).unwrap_or_default();
    Some((record, details))
}

/// The last records of all journals, with who wrote them; nothing is locked.
pub(crate) fn all(directory: &Path) -> Vec<(Record, Details)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_journal = path.extension().is_some_and(|end| end == "source" || end == "destination");
        // A journal may be finished meanwhile; one that cannot be read is reported by whoever opens it.
        if is_journal
            && let Ok(mut file) = File::open(&path)
            && let Ok(Some(record)) = read(&mut file, &path)
        {
            let details = codec::decode(&record.details).unwrap_or_default();
            found.push((record, details));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("godwit-journal-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        directory
    }

    #[test]
    fn a_journal_in_which_nothing_was_noted_leaves_nothing() {
        let directory = directory("empty");
        let migration = MigrationId([1; 16]);
        drop(Journal::create(&directory, migration, Side::Source).unwrap());
        assert!(Journal::open(&directory, migration, Side::Source, Duration::ZERO).unwrap().is_none());
        let mut journal = Journal::create(&directory, migration, Side::Source).unwrap();
        let record = Record {
            side: Side::Source,
            stage: Stage::Started,
            migration,
            boot: godwit_handoff::BootId([2; 16]),
            details: Vec::new(),
        };
        journal.append(record, &Details::own("nobody", 0, Vec::new())).unwrap();
        drop(journal);
        let found = Journal::open(&directory, migration, Side::Source, Duration::ZERO).unwrap().unwrap();
        assert_eq!(found.last().map(|record| record.stage), Some(Stage::Started));
        fs::remove_dir_all(&directory).unwrap();
    }
}
