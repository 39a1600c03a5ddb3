//! What the kernel has written down of every file that a process has open, and of the counters and pipes behind them, read in one go:
//! the same values before a freeze and after it mean that nothing happened to a description in between.
use godwit_linux::file_iterator::{FileIterator, OpenFile, Part};
use godwit_linux::kernel_types::{KernelTypes, Place};
use godwit_linux::task_iterator::{Source, room};
use godwit_linux::{eventfd, file, pipe};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

const S_IFIFO: u16 = 0o010_000;
const O_CLOEXEC: u32 = 0o2_000_000;
const O_NONBLOCK: u32 = 0o4_000;
/// Slots of a pipe that a record has room for: those that every pipe begins with.
const SLOTS_MAX: usize = 16;
/// A copy of the kernel's is not longer.
const COPY_BYTES_MAX: usize = 320;
/// EFD_SEMAPHORE.
const SEMAPHORE: u32 = 1;
/// Bits of the kernel's own device numbers that are the minor one.
const MINOR_BITS: u32 = 20;

/// A pipe. Head and tail begin anew when its ring gets another size; but as long as nothing was written into it, the same lengths
/// mean that nothing was read out of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Pipe {
    head: u32,
    tail: u32,
    max_usage: u32,
    ring_size: u32,
    pub(crate) readers: u32,
    pub(crate) writers: u32,
    /// Open descriptions of it.
    pub(crate) files: u32,
    slots: Vec<u8>,
}

/// One descriptor and its description.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Record {
    pub(crate) descriptor: i32,
    pub(crate) close_on_exec: bool,
    /// The kernel's addresses of the table, the description, and what is behind it: each the same only as long as it is there.
    pub(crate) table: u64,
    pub(crate) file: u64,
    pub(crate) private: u64,
    operations: u64,
    references: u64,
    /// Open flags, without O_CLOEXEC.
    pub(crate) flags: u32,
    pub(crate) position: u64,
    /// Somebody gets its signals, or has got them.
    pub(crate) has_owner: bool,
    /// There is, or was, a lock on its inode.
    pub(crate) has_locks: bool,
    /// st_dev and st_ino, where its file system does not tell others.
    pub(crate) device: u64,
    pub(crate) inode: u64,
    /// Permission bits of its inode.
    pub(crate) mode: u32,
    /// Its owner and group, as the first user namespace has them.
    pub(crate) owner: (u32, u32),
    /// Access and modification time of its inode: seconds, nanoseconds.
    pub(crate) times: [(i64, i64); 2],
    /// When its inode was last changed; nobody can set that.
    pub(crate) changed: (i64, i64),
    /// If it is an event counter: its count and flags.
    counter: (u64, u32),
    pipe: Option<Pipe>,
}

/// Where a member lies in a record.
#[derive(Clone, Copy, Debug)]
struct Copied {
    at: usize,
    bytes: usize,
}

impl Copied {
    fn of(self, record: &[u8]) -> Option<u64> {
        let mut raw = [0; 8];
        let length = self.bytes.min(8);
        raw[..length].copy_from_slice(record.get(self.at..self.at + length)?);
        Some(u64::from_le_bytes(raw))
    }
}

/// What is copied, and where each member lies.
#[derive(Debug)]
struct Layout {
    head: Vec<Source>,
    /// Of pipes alone, behind the head.
    pipe: Vec<Source>,
    /// Operations, what is behind it, flags, position, owner, count of references.
    file: [Copied; 6],
    /// Number, mode, user, group, times of access, modification, change.
    inode: [Copied; 10],
    device: Copied,
    locks: Copied,
    /// Count, flags.
    counter: [Copied; 2],
    /// Head, tail, most slots, slots, readers, writers, descriptions.
    ring: [Copied; 7],
    /// Where the slots lie, how many bytes one has, and where in it its operations are.
    slots: (usize, usize, usize),
}

/// Copies members of one structure together, with what lies between them: one copy of more costs less than several.
fn span<const N: usize>(
    sources: &mut Vec<Source>,
    begin: usize,
    pointers: &[u32],
    places: [Option<Place>; N],
) -> Option<[Copied; N]> {
    let mut found = [Place { offset: 0, bytes: 0, bits: None }; N];
    for (found, place) in found.iter_mut().zip(places) {
        *found = place.filter(|place| place.bits.is_none())?;
    }
    let first = found.iter().map(|place| place.offset).min()?;
    let end = found.iter().map(|place| place.offset + place.bytes).max()?;
    let at = begin + sources.iter().map(|source| room(source.bytes) as usize).sum::<usize>();
    sources.push(Source { pointers: pointers.to_vec(), offset: first, bytes: end - first });
    Some(found.map(|place| Copied { at: at + (place.offset - first) as usize, bytes: place.bytes as usize }))
}

impl Layout {
    /// `None`: this kernel's records are not those that are known here.
    fn of(types: &KernelTypes) -> Option<Layout> {
        let [inode, private, counted, counted_before] =
            types.members("file", ["f_inode", "private_data", "f_ref", "f_count"])?;
        let (inode, private) = (inode?.offset, private?.offset);
        let [operations, behind, flags, position, owner] =
            types.members("file", ["f_op", "private_data", "f_flags", "f_pos", "f_owner"])?;
        // A pointer since Linux 6.12.
        let owner = owner.filter(|place| place.bytes == 8);
        let counted = counted.or(counted_before).filter(|place| place.bytes == 8);
        let mut head = Vec::new();
        let file = span(&mut head, 0, &[], [operations, behind, flags, position, owner, counted])?;
        let members = [
            "i_ino",
            "i_mode",
            "i_uid",
            "i_gid",
            "i_atime_sec",
            "i_atime_nsec",
            "i_mtime_sec",
            "i_mtime_nsec",
            "i_ctime_sec",
            "i_ctime_nsec",
        ];
        let of_inode = span(&mut head, 0, &[inode], types.members("inode", members)?)?;
        let [locks] = span(&mut head, 0, &[inode], types.members("inode", ["i_flctx"])?)?;
        let [superblock] = types.members("inode", ["i_sb"])?;
        let [device] = span(&mut head, 0, &[inode, superblock?.offset], types.members("super_block", ["s_dev"])?)?;
        let counter = span(&mut head, 0, &[private], types.members("eventfd_ctx", ["count", "flags"])?)?;
        let begin = bytes(&head);
        let mut pipe = Vec::new();
        let members = ["head", "tail", "max_usage", "ring_size", "readers", "writers", "files"];
        let ring = span(&mut pipe, begin, &[private], types.members("pipe_inode_info", members)?)?;
        if ring.iter().any(|member| member.bytes != 4) {
            return None;
        }
        let [slots] = types.members("pipe_inode_info", ["bufs"])?;
        let [operations, last] = types.members("pipe_buffer", ["ops", "private"])?;
        let slot_bytes = (last?.offset + last?.bytes) as usize;
        let slots_at = begin + bytes(&pipe);
        let end = slot_bytes * SLOTS_MAX;
        for start in (0..end).step_by(COPY_BYTES_MAX) {
            let (pointers, bytes) = (vec![private, slots?.offset], COPY_BYTES_MAX.min(end - start) as u32);
            pipe.push(Source { pointers, offset: start as u32, bytes });
        }
        let slots = (slots_at, slot_bytes, operations?.offset as usize);
        Some(Layout { head, pipe, file, inode: of_inode, device, locks, counter, ring, slots })
    }

    fn record(&self, open: &OpenFile) -> Option<Record> {
        let value = |copied: Copied| copied.of(&open.record);
        let [operations, private, flags, position, owner, references] = self.file;
        let [inode, mode, user, group, accessed, accessed_ns, modified, modified_ns, changed, changed_ns] = self.inode;
        let device = value(self.device)? as u32;
        Some(Record {
            descriptor: open.descriptor,
            close_on_exec: open.close_on_exec,
            table: open.table,
            file: open.file,
            private: value(private)?,
            operations: value(operations)?,
            references: value(references)?,
            flags: value(flags)? as u32 & !O_CLOEXEC,
            position: value(position)?,
            has_owner: value(owner)? != 0,
            has_locks: value(self.locks)? != 0,
            device: file::device(device >> MINOR_BITS, device & ((1 << MINOR_BITS) - 1)),
            inode: value(inode)?,
            mode: value(mode)? as u32 & 0o7777,
            owner: (value(user)? as u32, value(group)? as u32),
            times: [
                (value(accessed)? as i64, value(accessed_ns)? as i64),
                (value(modified)? as i64, value(modified_ns)? as i64),
            ],
            changed: (value(changed)? as i64, value(changed_ns)? as i64),
            counter: (value(self.counter[0])?, value(self.counter[1])? as u32),
            pipe: self.pipe_of(open),
        })
    }

    fn pipe_of(&self, open: &OpenFile) -> Option<Pipe> {
        let value = |copied: Copied| copied.of(&open.record).map(|value| value as u32);
        let [head, tail, max_usage, ring_size, readers, writers, files] = self.ring;
        let (at, slot_bytes, _) = self.slots;
        // What is behind its ring is not its own.
        let used = usize::try_from(value(ring_size)?).ok().filter(|size| *size <= SLOTS_MAX)? * slot_bytes;
        Some(Pipe {
            head: value(head)?,
            tail: value(tail)?,
            max_usage: value(max_usage)?,
            ring_size: value(ring_size)?,
            readers: value(readers)?,
            writers: value(writers)?,
            files: value(files)?,
            slots: open.record.get(at..at + used)?.to_vec(),
        })
    }
}

fn bytes(sources: &[Source]) -> usize {
    sources.iter().map(|source| room(source.bytes) as usize).sum()
}

/// What the records of counters and pipes of our own tell of all others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Marks {
    counter: u64,
    pipe: u64,
    /// Operations of a slot whose bytes are nobody else's.
    slot: u64,
    /// What a description counts that one descriptor refers to, while it is read.
    references: u64,
}

/// What is known of this kernel.
#[derive(Debug)]
pub(crate) struct Known {
    layout: Layout,
    marks: Marks,
}

impl Known {
    /// Finds out by descriptors of our own. `None` where the kernel does not let that be read.
    pub(crate) fn of(types: &KernelTypes) -> Option<Known> {
        let layout = Layout::of(types)?;
        let counter = eventfd::create(true).ok()?;
        let (reader, writer) = pipe::create(O_NONBLOCK).ok()?;
        let mut writer = File::from(writer);
        writer.write_all(&[0; 3]).ok()?;
        let reader_of = FileReader::with(std::process::id() as i32, types, &layout)?;
        let all = reader_of.read(&layout)?;
        let of = |number: i32| all.iter().find(|record| record.descriptor == number);
        let (its, end) = (of(counter.as_raw_fd())?, of(reader.as_raw_fd())?);
        let ring = end.pipe.as_ref()?;
        let slot = ring.operations(&layout).next()?;
        let marks = Marks { counter: its.operations, pipe: end.operations, slot, references: its.references };
        // What is understood wrongly is not used.
        let is_right = its.counter == (0, its.counter.1)
            && its.counter.1 & SEMAPHORE != 0
            && (ring.head.wrapping_sub(ring.tail), ring.readers, ring.writers, ring.files) == (1, 1, 1, 2)
            && u64::from(ring.max_usage) * 4096 == pipe::capacity(writer.as_fd()).ok()?
            && end.references == marks.references
            && end.flags == O_NONBLOCK
            && !(end.has_owner || end.has_locks || its.has_owner)
            && end.is_inode_of(&reader);
        is_right.then_some(Known { layout, marks })
    }

    /// Makes ready to read a running process. `None` where that cannot be.
    pub(crate) fn reader(&self, pid: i32, types: &KernelTypes) -> Option<FileReader> {
        FileReader::with(pid, types, &self.layout)
    }

    /// The records of the descriptors that a process has now.
    pub(crate) fn read(&self, reader: &FileReader) -> Option<Vec<Record>> {
        reader.read(&self.layout)
    }

    /// The count of an event counter, and whether it is a semaphore.
    pub(crate) fn counter(&self, record: &Record) -> Option<(u64, bool)> {
        (record.operations == self.marks.counter).then_some((record.counter.0, record.counter.1 & SEMAPHORE != 0))
    }

    /// The pipe that a description is an end of, where only its own bytes are in it.
    pub(crate) fn pipe<'r>(&self, record: &'r Record) -> Option<&'r Pipe> {
        let pipe = record.pipe.as_ref().filter(|_| record.operations == self.marks.pipe)?;
        pipe.operations(&self.layout).all(|operations| operations == self.marks.slot).then_some(pipe)
    }

    /// How many there are who refer to a description.
    pub(crate) fn references(&self, record: &Record) -> u64 {
        record.references.wrapping_sub(self.marks.references).wrapping_add(1)
    }
}

impl Record {
    /// Whether it tells the inode of a file of ours as the file itself does.
    fn is_inode_of(&self, file: &OwnedFd) -> bool {
        let metadata = file.try_clone().ok().and_then(|file| File::from(file).metadata().ok());
        metadata.is_some_and(|now| {
            (now.dev(), now.ino(), now.mode() & 0o7777) == (self.device, self.inode, self.mode)
                && [(now.atime(), now.atime_nsec()), (now.mtime(), now.mtime_nsec())] == self.times
        })
    }
}

impl Pipe {
    /// Capacity in bytes.
    pub(crate) fn capacity(&self) -> u64 {
        u64::from(self.max_usage) * 4096
    }

    /// The operations of each slot that has something in it.
    fn operations<'p>(&'p self, layout: &'p Layout) -> impl Iterator<Item = u64> + 'p {
        let (_, bytes, at) = layout.slots;
        let used = self.head.wrapping_sub(self.tail).min(self.ring_size);
        (0..used).map(move |index| {
            let slot = (self.tail.wrapping_add(index) & self.ring_size.wrapping_sub(1)) as usize;
            let raw = self.slots.get(slot * bytes + at..).and_then(|raw| raw.first_chunk());
            raw.map_or(0, |raw| u64::from_le_bytes(*raw))
        })
    }
}

/// What is kept ready for a running process.
#[derive(Debug)]
pub(crate) struct FileReader(FileIterator);

impl FileReader {
    fn with(pid: i32, types: &KernelTypes, layout: &Layout) -> Option<FileReader> {
        let parts = [Part { file_type: S_IFIFO, sources: layout.pipe.clone() }];
        FileIterator::of(pid, types, &layout.head, &parts).ok().map(FileReader)
    }

    fn read(&self, layout: &Layout) -> Option<Vec<Record>> {
        self.0.read().ok()?.iter().map(|open| layout.record(open)).collect()
    }
}
