//! The pages of one migration in a file of a page store's directory: appended, found by their newest place, checked when they are read.
use godwit_handoff::MigrationId;
use godwit_handoff::frame::Run;
use godwit_handoff::store::{
    Cause, FILE_HEADER, Fault, Head, Index, Part, Place, RECORD_HEADER, RECORD_PAGES_MAX, Record, file_header,
    read_file_header,
};
use godwit_image::ObjectId;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const PAGE: usize = 4096;
const PAGE_SHIFT: u8 = 12;

/// How many bytes all files of a store may have together.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    limit: u64,
    used: Arc<AtomicU64>,
}

impl Room {
    pub(crate) fn new(limit: u64, used: u64) -> Room {
        Room { limit, used: Arc::new(AtomicU64::new(used)) }
    }

    fn take(&self, bytes: u64) -> Result<(), Fault> {
        let more = |used: u64| used.checked_add(bytes).filter(|used| *used <= self.limit);
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.map(drop).map_err(|_| Fault::new(Cause::Full, format!("its limit of {} bytes is reached", self.limit)))
    }

    fn give_back(&self, bytes: u64) {
        // Never below zero: what a file had was taken first.
        let _ = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| Some(used.saturating_sub(bytes)));
    }
}

/// The file of one migration.
#[derive(Debug)]
pub(crate) struct Archive {
    path: PathBuf,
    file: File,
    index: Index,
    end: u64,
    room: Room,
    /// What was put in reaches the disk before it is acknowledged.
    durable: bool,
}

fn storage(path: &Path) -> impl Fn(io::Error) -> Fault {
    move |error| {
        let cause = if error.kind() == io::ErrorKind::StorageFull { Cause::Full } else { Cause::Storage };
        Fault::new(cause, format!("{}: {error}", path.display()))
    }
}

fn damaged(path: &Path, what: impl std::fmt::Display) -> Fault {
    Fault::new(Cause::Storage, format!("{}: {what}", path.display()))
}

/// The name of a migration's file.
pub(crate) fn path_of(directory: &Path, migration: MigrationId) -> PathBuf {
    directory.join(format!("{migration}.pages"))
}

impl Archive {
    /// For whoever puts pages in: a new file, or the one that is there, as far as it was acknowledged.
    pub(crate) fn write(directory: &Path, migration: MigrationId, room: Room, durable: bool) -> Result<Archive, Fault> {
        let path = path_of(directory, migration);
        let file = crate::private::open(&path).map_err(storage(&path))?;
        if file.try_lock().is_err() {
            return Err(Fault::new(Cause::Busy, format!("{} is locked by another process", path.display())));
        }
        let mut archive = Archive { path, file, index: Index::default(), end: 0, room, durable };
        let length = archive.length()?;
        if length < FILE_HEADER as u64 {
            archive.room.take(FILE_HEADER as u64 - length)?;
            archive.append(&[&file_header(migration)])?;
        } else {
            let acknowledged = archive.load(migration, u64::MAX)?;
            if acknowledged < archive.end {
                // What was not acknowledged may be torn.
                archive.index = Index::default();
                archive.load(migration, acknowledged)?;
            }
            archive.file.set_len(archive.end).map_err(storage(&archive.path))?;
            archive.room.give_back(length - archive.end);
        }
        Ok(archive)
    }

    /// For whoever takes pages out.
    pub(crate) fn read(directory: &Path, migration: MigrationId) -> Result<Archive, Fault> {
        let path = path_of(directory, migration);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Fault::new(Cause::Unknown, format!("there is no {}", path.display())));
            }
            file => file.map_err(storage(&path))?,
        };
        let room = Room::new(0, 0);
        let mut archive = Archive { path, file, index: Index::default(), end: 0, room, durable: false };
        archive.load(migration, u64::MAX)?;
        Ok(archive)
    }

    fn length(&self) -> Result<u64, Fault> {
        Ok(self.file.metadata().map_err(storage(&self.path))?.len())
    }

    /// Takes in the records up to `limit`, or to the first that is not whole; tells behind which the last acknowledgement is.
    fn load(&mut self, migration: MigrationId, limit: u64) -> Result<u64, Fault> {
        let mut header = [0; FILE_HEADER];
        self.file.read_exact_at(&mut header, 0).map_err(storage(&self.path))?;
        match read_file_header(&header) {
            Ok(found) if found == migration => {}
            Ok(found) => return Err(damaged(&self.path, format!("it is of migration {found}"))),
            Err(error) => return Err(damaged(&self.path, error)),
        }
        self.end = FILE_HEADER as u64;
        self.load_more(limit)
    }

    fn load_more(&mut self, limit: u64) -> Result<u64, Fault> {
        let length = self.length()?.min(limit);
        let mut acknowledged = self.end;
        while let Some((record, sums, next)) = self.record_at(self.end, length) {
            if !self.index.has_room(1) {
                return Err(Fault::new(Cause::Full, "its pages are scattered too much"));
            }
            self.index.note(&record, sums + 4 * sums_of(&record), sums);
            self.end = next;
            if let Record::Synced(_) = record {
                acknowledged = next;
            }
        }
        Ok(acknowledged)
    }

    /// The whole record at a position, the position of its checksums, and that of the next record.
    fn record_at(&self, at: u64, length: u64) -> Option<(Record, u64, u64)> {
        let mut header = [0; RECORD_HEADER];
        let sums_at = at.checked_add(RECORD_HEADER as u64).filter(|end| *end <= length)?;
        self.file.read_exact_at(&mut header, at).ok()?;
        let head = Head::decode(&header).ok()?;
        let body = sums_at + head.sums_length() as u64;
        let next = body.checked_add(head.body_length()).filter(|end| *end <= length)?;
        let mut sums = vec![0; head.sums_length()];
        self.file.read_exact_at(&mut sums, sums_at).ok()?;
        Some((head.complete(&sums).ok()?, sums_at, next))
    }

    /// Appends parts of one or several records, all or nothing.
    fn append(&mut self, parts: &[&[u8]]) -> Result<u64, Fault> {
        let (begin, mut end) = (self.end, self.end);
        for part in parts {
            if let Err(error) = self.file.write_all_at(part, end) {
                // Half a record is no record; whatever becomes of it, the next one is written over it.
                let _ = self.file.set_len(begin);
                return Err(storage(&self.path)(error));
            }
            end += part.len() as u64;
        }
        self.end = end;
        Ok(begin)
    }

    /// Pages that are kept.
    pub(crate) fn pages(&self) -> u64 {
        self.index.pages()
    }

    /// Puts pages in: ranges of one owner (start, length) and their bytes one after another; none: they are zero.
    pub(crate) fn put(&mut self, owner: ObjectId, ranges: &[(u64, usize)], bytes: Option<&[u8]>) -> Result<(), Fault> {
        let mut offset = 0;
        for (start, length) in ranges {
            for (first, count) in cut(*start, *length as u64) {
                let run = Run { owner: owner.0, start: first, count };
                let record = match bytes {
                    Some(bytes) => {
                        let body = bytes.get(offset..offset + count as usize * PAGE).unwrap_or_default();
                        offset += body.len();
                        let record = Record::Pages(run, body.chunks(PAGE).map(crc32fast::hash).collect());
                        self.note(record, body)?;
                        continue;
                    }
                    None => Record::Zeros(run),
                };
                self.note(record, &[])?;
            }
        }
        Ok(())
    }

    /// What was put in as pages of a stage are pages of an owner, too.
    pub(crate) fn adopt(&mut self, stage: u32, owner: ObjectId, ranges: &[(u64, usize)]) -> Result<(), Fault> {
        for (start, length) in ranges {
            for (first, count) in cut(*start, *length as u64) {
                let run = Run { owner: owner.0, start: first, count };
                if self.index.find(Run { owner: stage, ..run }).iter().any(|part| part.place.is_none()) {
                    return Err(Fault::new(Cause::OutOfTurn, "pages are named that were never put in"));
                }
                self.note(Record::Adopted(run, stage), &[])?;
            }
        }
        Ok(())
    }

    fn note(&mut self, record: Record, body: &[u8]) -> Result<(), Fault> {
        if !self.index.has_room(1) {
            return Err(Fault::new(Cause::Full, "its pages are scattered too much"));
        }
        let head = record.encode();
        self.room.take((head.len() + body.len()) as u64)?;
        let begin =
            self.append(&[&head, body]).inspect_err(|_| self.room.give_back((head.len() + body.len()) as u64))?;
        self.index.note(&record, begin + head.len() as u64, begin + RECORD_HEADER as u64);
        Ok(())
    }

    /// Everything up to here outlives this process.
    pub(crate) fn sync(&mut self, number: u64) -> Result<(), Fault> {
        self.note(Record::Synced(number), &[])?;
        if self.durable {
            self.file.sync_data().map_err(storage(&self.path))?;
        }
        Ok(())
    }

    /// Where pages are. Looks once more into the file for what somebody else has put in.
    pub(crate) fn find(&mut self, run: Run) -> Result<Vec<Part>, Fault> {
        let parts = self.index.find(run);
        if parts.iter().all(|part| part.place.is_some()) {
            return Ok(parts);
        }
        self.load_more(u64::MAX)?;
        Ok(self.index.find(run))
    }

    /// The contents of pages that are somewhere in the file, or zeros.
    pub(crate) fn contents(&self, place: Place, count: u32) -> Result<Vec<u8>, Fault> {
        let mut contents = vec![0; count as usize * PAGE];
        let Place::File { bytes, sum } = place else { return Ok(contents) };
        let mut sums = vec![0; count as usize * 4];
        self.file.read_exact_at(&mut contents, bytes).map_err(storage(&self.path))?;
        self.file.read_exact_at(&mut sums, sum).map_err(storage(&self.path))?;
        let is_sound =
            contents.chunks(PAGE).zip(sums.chunks(4)).all(|(page, sum)| crc32fast::hash(page).to_le_bytes() == sum);
        if is_sound { Ok(contents) } else { Err(damaged(&self.path, "the checksum of a page does not fit")) }
    }

    /// Nobody needs it any more.
    pub(crate) fn remove(&mut self) -> Result<(), Fault> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(storage(&self.path)(error)),
            _ => self.room.give_back(self.end),
        }
        self.index = Index::default();
        Ok(())
    }
}

fn sums_of(record: &Record) -> u64 {
    if let Record::Pages(_, sums) = record { sums.len() as u64 } else { 0 }
}

/// A range of bytes as runs of pages that a record holds.
fn cut(start: u64, length: u64) -> impl Iterator<Item = (u64, u32)> {
    let (first, last) = (start >> PAGE_SHIFT, (start + length) >> PAGE_SHIFT);
    let pages = u64::from(RECORD_PAGES_MAX);
    (first..last).step_by(pages as usize).map(move |at| (at, (last - at).min(pages) as u32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use godwit_deterministic::Random;
    use std::collections::BTreeMap;
    use std::fs::OpenOptions;

    const MIGRATION: MigrationId = MigrationId([5; 16]);

    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Directory {
            let path = std::env::temp_dir().join(format!("godwit-archive-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Directory(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn room() -> Room {
        Room::new(1 << 30, 0)
    }

    fn page(archive: &mut Archive, owner: u32, page: u64) -> Option<u8> {
        let parts = archive.find(Run { owner, start: page, count: 1 }).unwrap();
        parts[0].place.map(|place| archive.contents(place, 1).unwrap()[77])
    }

    #[test]
    fn what_was_acknowledged_is_there_when_it_is_opened_again_and_nothing_else() {
        let directory = Directory::new("again");
        let mut random = Random::new(3);
        let mut model: BTreeMap<(u32, u64), u8> = BTreeMap::new();
        for round in 0..20 {
            let mut archive = Archive::write(&directory.0, MIGRATION, room(), round % 2 == 0).unwrap();
            assert_eq!(archive.pages(), model.len() as u64);
            let mut then = model.clone();
            for _ in 0..6 {
                let (owner, start, count) = (random.below(2) as u32, random.below(40), 1 + random.below(6));
                let byte = random.below(3) as u8;
                let ranges = [(start << 12, (count as usize) << 12)];
                let body = vec![byte; (count as usize) << 12];
                archive.put(ObjectId(owner), &ranges, (byte > 0).then_some(&body[..])).unwrap();
                then.extend((start..start + count).map(|page| ((owner, page), byte)));
            }
            let acknowledged = random.chance(1, 2);
            if acknowledged {
                archive.sync(round).unwrap();
                model = then.clone();
            }
            for owner in 0..2 {
                for at in 0..50 {
                    assert_eq!(page(&mut archive, owner, at), then.get(&(owner, at)).copied());
                }
            }
            let mut reader = Archive::read(&directory.0, MIGRATION).unwrap();
            assert_eq!(page(&mut reader, 0, 7), then.get(&(0, 7)).copied());
            drop(archive);
            // A writer that died in the middle of a record.
            let path = path_of(&directory.0, MIGRATION);
            let file = OpenOptions::new().append(true).open(&path).unwrap();
            let torn = Record::Pages(Run { owner: 0, start: 1, count: 2 }, vec![0, 0]).encode();
            io::Write::write_all(&mut &file, &torn[..random.below(torn.len() as u64) as usize]).unwrap();
        }
    }

    #[test]
    fn pages_of_a_stage_are_adopted_and_a_changed_byte_is_noticed() {
        let directory = Directory::new("changed");
        let mut archive = Archive::write(&directory.0, MIGRATION, room(), false).unwrap();
        let (stage, owner) = (1 << 31, ObjectId(4));
        archive.put(ObjectId(stage), &[(0x5000, 2 * PAGE)], Some(&[9; 2 * PAGE])).unwrap();
        archive.adopt(stage, owner, &[(0x5000, 2 * PAGE)]).unwrap();
        assert_eq!(archive.adopt(stage, owner, &[(0x6000, 2 * PAGE)]).unwrap_err().cause, Cause::OutOfTurn);
        assert_eq!((page(&mut archive, 4, 6), page(&mut archive, 4, 7)), (Some(9), None));
        let path = path_of(&directory.0, MIGRATION);
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        let body = FILE_HEADER + RECORD_HEADER + 8;
        file.write_all_at(&[8], body as u64 + 100).unwrap();
        let parts = archive.find(Run { owner: 4, start: 5, count: 1 }).unwrap();
        assert_eq!(archive.contents(parts[0].place.unwrap(), 1).unwrap_err().cause, Cause::Storage);
        assert_eq!(page(&mut archive, 4, 6), Some(9));
        // Another process, as far as locks go.
        assert_eq!(Archive::write(&directory.0, MIGRATION, room(), false).unwrap_err().cause, Cause::Busy);
        archive.remove().unwrap();
        assert_eq!(Archive::read(&directory.0, MIGRATION).unwrap_err().cause, Cause::Unknown);
    }

    #[test]
    fn what_is_full_says_so_and_keeps_what_it_has() {
        let directory = Directory::new("full");
        let room = Room::new(3 * PAGE as u64, 0);
        let mut archive = Archive::write(&directory.0, MIGRATION, room.clone(), false).unwrap();
        archive.put(ObjectId(1), &[(0, 2 * PAGE)], Some(&[1; 2 * PAGE])).unwrap();
        assert_eq!(archive.put(ObjectId(1), &[(0, PAGE)], Some(&[2; PAGE])).unwrap_err().cause, Cause::Full);
        assert_eq!(page(&mut archive, 1, 0), Some(1));
        archive.remove().unwrap();
        assert_eq!(room.used.load(Ordering::Relaxed), 0);
    }
}
