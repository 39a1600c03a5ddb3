//! What is in a pipe or FIFO, buffer by buffer: every end of it refers to this one object.
//!
//! The contents are copied by tee(2) into a pipe of ours, and from there buffer by buffer through one with two slots, so
//! that packets (O_DIRECT) and the slots that unread bytes occupy come out as they were. Sources: pipe(7), tee(2), fs/pipe.c
//! and fs/splice.c of Linux 6.18.
use super::unread::{Bare, Unread};
use super::{Captured, Description, Kind, Made, Need, Stage, TaskState, open};
use crate::capture::Capture;
use crate::failure::{About, Result};
use crate::look::{Look, Survey};
use crate::restore::{Bind, Make};
use godwit_image::{Code, Envelope, KindId, ObjectId, Refusal, Subject};
use godwit_linux::pidfd::{ForeignDescriptor, PidFd};
use godwit_linux::{file, pipe};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

const S_IFMT: u32 = 0o170_000;
const S_IFIFO: u32 = 0o010_000;
pub(super) const O_ACCMODE: u32 = 3;
pub(super) const O_WRONLY: u32 = 1;
const O_RDWR: u32 = 2;
pub(super) const O_NONBLOCK: u32 = 0o4_000;
pub(super) const O_ASYNC: u32 = 0o20_000;
const O_DIRECT: u32 = 0o40_000;
const SPLICE_MAX: u64 = 1 << 30;

/// State.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct State {
    /// Capacity in bytes.
    pub capacity: u64,
    /// Unread bytes, oldest first.
    pub buffers: Vec<Buffer>,
    /// Whether it has a name, or what a nameless one's inode tells.
    pub sort: Sort,
    /// The unread bytes follow when the tree runs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub later: bool,
}

/// Nameless or not.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Sort {
    /// pipe(2).
    Pipe {
        /// Permission bits of the inode (they decide who may open /proc/PID/fd/N).
        mode: u32,
        /// Owner and group of the inode.
        owner: (u32, u32),
        /// Access and modification time: seconds, nanoseconds.
        times: [(i64, i64); 2],
    },
    /// A FIFO of this path.
    Fifo {
        /// Absolute path.
        path: String,
        /// An end is open for writing, here or outside.
        writers: bool,
        /// Device and inode number of the file: with the boot they tell whether it is the very one that the source has open.
        #[serde(default)]
        file: (u64, u64),
    },
}

/// One slot of the pipe's ring.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Buffer {
    /// The bytes.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
    /// A read ends with it (O_DIRECT).
    pub packet: bool,
}

/// The kind.
#[derive(Debug)]
pub struct PipeContent;

/// The reading end of some holder of the pipe: the look's own, or another descriptor of the tree's, or, when it has no
/// reader at all, a fresh one.
fn reader(look: &Look, survey: &Survey) -> Result<OwnedFd> {
    let subject = || look.subject();
    if look.flags() & O_ACCMODE != O_WRONLY {
        return file::duplicate_above(look.borrow(), 0).about(subject);
    }
    for (pid, descriptor) in survey.holders(&look.link) {
        let readable = survey.flags((*pid, *descriptor)).is_some_and(|flags| flags & O_ACCMODE != O_WRONLY);
        let process = PidFd::open_thread(*pid);
        if let Ok(found) = process.and_then(|process| process.duplicate(ForeignDescriptor(*descriptor)))
            && readable
        {
            return Ok(found);
        }
    }
    file::open(format!("/proc/self/fd/{}", look.file.as_raw_fd()).as_bytes(), O_NONBLOCK).about(subject)
}

fn read_once(mut from: &File, room: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; room as usize];
    let length = from.read(&mut bytes)?;
    bytes.truncate(length);
    Ok(bytes)
}

/// Both ends of a pipe of our own that never blocks.
type Own = (File, File);

fn own(subject: impl Fn() -> Subject) -> Result<Own> {
    let (reader, writer) = pipe::create(O_NONBLOCK).about(subject)?;
    Ok((reader.into(), writer.into()))
}

/// Pipes of our own for contents on their way, made once for many; each is empty.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    whole: Option<Own>,
    /// One with two slots.
    single: Option<Own>,
}

/// Reads a pipe's buffers and leaves them where they are.
fn peek(
    from: BorrowedFd<'_>,
    capacity: u64,
    scratch: &mut Scratch,
    subject: impl Fn() -> Subject,
) -> Result<Vec<Buffer>> {
    let unread = pipe::unread(from).about(&subject)?;
    if unread == 0 {
        return Ok(Vec::new());
    }
    let (copied, copy) = scratch.whole.take().map_or_else(|| own(&subject), Ok)?;
    if pipe::capacity(copy.as_fd()).about(&subject)? < capacity {
        // Where this fails the copy may still have room; if not, the sum below tells.
        let _ = pipe::set_capacity(copy.as_fd(), capacity);
    }
    pipe::copy(from, copy.as_fd(), SPLICE_MAX).about(&subject)?;
    let (one_out, mut one_in) = match scratch.single.take() {
        Some(single) => single,
        None => {
            let single = own(&subject)?;
            pipe::set_capacity(single.1.as_fd(), 2 * 4096).about(&subject)?;
            single
        }
    };
    let mut buffers: Vec<Buffer> = Vec::new();
    while pipe::unread(copied.as_fd()).about(&subject)? > 0 {
        // One slot is taken, so that exactly one buffer fits in; then that slot marks what follows the buffer: a read
        // that stops before the mark has met a packet.
        one_in.write_all(b"<").about(&subject)?;
        pipe::shift(copied.as_fd(), one_in.as_fd(), SPLICE_MAX).about(&subject)?;
        read_once(&one_out, 1).about(&subject)?;
        one_in.write_all(b">").about(&subject)?;
        let total = pipe::unread(one_out.as_fd()).about(&subject)?;
        let mut bytes = read_once(&one_out, total).about(&subject)?;
        let packet = bytes.len() as u64 == total - 1;
        if packet {
            read_once(&one_out, 1).about(&subject)?;
        } else {
            bytes.pop();
        }
        buffers.push(Buffer { bytes, packet });
    }
    let read: usize = buffers.iter().map(|buffer| buffer.bytes.len()).sum();
    // Both are empty again.
    (scratch.whole, scratch.single) = (Some((copied, copy)), Some((one_out, one_in)));
    if read as u64 == unread {
        return Ok(buffers);
    }
    let cause = format!(
        "{read} of its {unread} unread bytes could be read: its capacity of {capacity} is above what this user may have"
    );
    Err(Refusal::new(Code::NOT_MIGRATABLE, subject(), cause))
}

/// What the pipe behind a look is known by.
pub(crate) fn key(look: &Look) -> Vec<u8> {
    [look.device.to_le_bytes(), look.inode.to_le_bytes()].concat()
}

/// The object of the pipe behind a look, captured once per inode.
///
/// # Errors
/// The contents cannot be read whole.
pub(crate) fn capture(look: &Look, capture: &mut Capture, path: Option<String>, writers: bool) -> Result<ObjectId> {
    let key = key(look);
    let subject = || look.subject();
    capture.intern(&PipeContent, &key, |capture, _| {
        let from = File::from(reader(look, &capture.survey)?);
        let capacity = pipe::capacity(from.as_fd()).about(subject)?;
        let buffers = peek(from.as_fd(), capacity, &mut capture.scratch, subject)?;
        let metadata = from.metadata().about(subject)?;
        let sort = match path {
            Some(path) => Sort::Fifo { path, writers, file: (metadata.dev(), metadata.ino()) },
            None => Sort::Pipe {
                mode: metadata.mode() & 0o7777,
                owner: (metadata.uid(), metadata.gid()),
                times: [(metadata.atime(), metadata.atime_nsec()), (metadata.mtime(), metadata.mtime_nsec())],
            },
        };
        Ok((Vec::new(), State { capacity, buffers, sort, later: false }))
    })
}

/// Puts buffers into an empty pipe, each into its own slot.
fn fill(to: BorrowedFd<'_>, buffers: &[Buffer], scratch: &mut Scratch, subject: impl Fn() -> Subject) -> Result<()> {
    if buffers.is_empty() {
        return Ok(());
    }
    let (scratch_out, mut scratch_in) = scratch.whole.take().map_or_else(|| own(&subject), Ok)?;
    for buffer in buffers {
        let flags = if buffer.packet { O_NONBLOCK | O_DIRECT } else { O_NONBLOCK };
        file::set_status_flags(scratch_in.as_fd(), flags).about(&subject)?;
        scratch_in.write_all(&buffer.bytes).about(&subject)?;
        let mut left = buffer.bytes.len() as u64;
        while left > 0 {
            left -= pipe::shift(scratch_out.as_fd(), to, left).about(&subject)?.min(left);
        }
    }
    scratch.whole = Some((scratch_out, scratch_in));
    Ok(())
}

/// Opens one more end of a made content, without waiting for another end.
///
/// # Errors
/// EACCES.
pub(super) fn reopen(content: BorrowedFd<'_>, flags: u32, subject: impl Fn() -> Subject) -> Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", content.as_raw_fd());
    let end = file::open(path.as_bytes(), flags & !(O_ASYNC | O_DIRECT) | O_NONBLOCK).about(&subject)?;
    file::set_status_flags(end.as_fd(), flags & !O_ASYNC).about(&subject)?;
    Ok(end)
}

impl State {
    /// Both ends of a pipe.
    fn make_pipe(&self, scratch: &mut Scratch, subject: impl Fn() -> Subject) -> Result<Made> {
        let (reader, writer) = pipe::create(O_NONBLOCK).about(&subject)?;
        self.set_capacity(writer.as_fd(), &subject)?;
        fill(writer.as_fd(), &self.buffers, scratch, &subject)?;
        Ok(vec![reader, writer])
    }

    /// A reader of a FIFO, and a writer where it has any. In the kernel where the source still has the same file open, it is the same
    /// pipe: then its unread bytes are there already, and stay whatever becomes of the move.
    fn make_fifo(
        &self,
        path: &str,
        writers: bool,
        scratch: &mut Scratch,
        is_here: impl Fn((u64, u64)) -> bool,
    ) -> Result<Made> {
        let subject = || Subject::Path(path.to_owned());
        // Without writers none may be there when readers open it: a reader tells whether there has been one (POLLHUP).
        let reader = File::from(file::open(path.as_bytes(), O_NONBLOCK).about(subject)?);
        let metadata = reader.metadata().about(subject)?;
        if metadata.mode() & S_IFMT != S_IFIFO {
            return Err(Refusal::new(Code::FILE_DIFFERS, subject(), "it is not a FIFO here"));
        }
        let unread = pipe::unread(reader.as_fd()).about(subject)?;
        if unread != 0 {
            let capacity = pipe::capacity(reader.as_fd()).about(subject)?;
            let same = is_here((metadata.dev(), metadata.ino()))
                && capacity == self.capacity
                && (self.later || peek(reader.as_fd(), capacity, scratch, subject)? == self.buffers);
            if !same {
                let cause = "somebody uses this FIFO here: it is not empty";
                return Err(Refusal::new(Code::FILE_DIFFERS, subject(), cause));
            }
        }
        let mut made = vec![OwnedFd::from(reader)];
        let holder = made[0].as_fd();
        self.set_capacity(holder, subject)?;
        let fills = unread == 0 && !self.buffers.is_empty();
        if fills || writers {
            let writer = reopen(holder, O_RDWR | O_NONBLOCK, subject)?;
            if fills {
                fill(writer.as_fd(), &self.buffers, scratch, subject)?;
            }
            if writers {
                made.push(writer);
            }
        }
        Ok(made)
    }

    fn set_capacity(&self, end: BorrowedFd<'_>, subject: impl Fn() -> Subject) -> Result<()> {
        if pipe::capacity(end).about(&subject)? == self.capacity {
            return Ok(());
        }
        pipe::set_capacity(end, self.capacity).map_err(|error| {
            let cause = format!("its capacity was {} bytes and cannot be set here: {error}", self.capacity);
            Refusal::new(Code::DESTINATION_LACKS, subject(), cause)
        })
    }
}

impl Kind for PipeContent {
    fn id(&self) -> KindId {
        KindId(5)
    }
    fn name(&self) -> &'static str {
        "pipe content"
    }
    fn version(&self) -> u16 {
        1
    }
    fn stage(&self) -> Stage {
        Stage::AsItComes
    }
    fn needs(&self, envelope: &Envelope) -> Result<Vec<Need>> {
        let state: State = open(envelope)?;
        Ok(match state.sort {
            Sort::Fifo { path, .. } => vec![Need::path(path, S_IFIFO)],
            Sort::Pipe { .. } => Vec::new(),
        })
    }
    fn make(&self, envelope: &Envelope, make: &mut Make) -> Result<Made> {
        let state: State = open(envelope)?;
        match &state.sort {
            Sort::Pipe { .. } => {
                state.make_pipe(&mut make.scratch, || Subject::Object(format!("pipe {}", envelope.id)))
            }
            Sort::Fifo { path, writers, file } => {
                let tree = make.tree();
                let is_here = |here| here == *file && crate::host::is_this_boot(&tree.host);
                state.make_fifo(path, *writers, &mut make.scratch, is_here)
            }
        }
    }
    fn bind(&self, envelope: &Envelope, bind: &mut Bind) -> Result<()> {
        let state: State = open(envelope)?;
        let Sort::Pipe { mode, owner, times } = state.sort else { return Ok(()) };
        let subject = || Subject::Object(format!("pipe {}", envelope.id));
        let end = File::from(bind.own()?.try_clone_to_owned().about(subject)?);
        // Most are as new ones are, and to look costs less than to set.
        let now = end.metadata().about(subject)?;
        if (now.uid(), now.gid()) != owner {
            std::os::unix::fs::fchown(&end, Some(owner.0), Some(owner.1)).about(subject)?;
        }
        if now.mode() & 0o7777 != mode {
            end.set_permissions(std::fs::Permissions::from_mode(mode)).about(subject)?;
        }
        file::set_times(end.as_fd(), times).about(subject)
    }
    fn description(&self) -> Option<&dyn Description> {
        None
    }
    fn task_state(&self) -> Option<&dyn TaskState> {
        None
    }
}

impl Unread for PipeContent {
    fn without_unread(&self, envelope: &Envelope) -> Result<Option<Bare>> {
        let state: State = open(envelope)?;
        // A reader of a FIFO would see that somebody had it open for writing.
        if state.buffers.is_empty() || matches!(state.sort, Sort::Fifo { writers: false, .. }) {
            return Ok(None);
        }
        let is_watchable = matches!(state.sort, Sort::Fifo { .. });
        let bare = Captured::new(envelope.refs.clone(), &State { buffers: Vec::new(), later: true, ..state })?;
        let envelope = Envelope { payload: bare.payload, ..envelope.clone() };
        Ok(Some(Bare { envelope, needs: Vec::new(), is_watchable }))
    }

    fn put_back(&self, envelope: &Envelope, bind: &mut Bind) -> Result<()> {
        let state: State = open(envelope)?;
        let subject = || Subject::Object(format!("pipe {}", envelope.id));
        let mut scratch = Scratch::default();
        let reader = bind.own()?;
        if pipe::unread(reader).about(subject)? == 0 {
            let writer = bind.made_part(envelope.id, 1)?;
            fill(writer, &state.buffers, &mut scratch, subject)?;
        } else if peek(reader, state.capacity, &mut scratch, subject)? != state.buffers {
            return Err(Refusal::new(Code::FILE_DIFFERS, subject(), "somebody uses this FIFO here: it is not empty"));
        }
        self.bind(envelope, bind)
    }
}

/// State of one end, of a pipe or of a FIFO.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct End {
    /// The content.
    pub content: ObjectId,
    /// Open flags.
    pub flags: u32,
    /// A reader without writers: whether it has seen one go (POLLHUP).
    pub hung_up: bool,
}

impl End {
    /// Encodes an end.
    ///
    /// # Errors
    /// None today.
    pub(crate) fn captured(&self) -> Result<Captured> {
        Captured::new(vec![self.content], self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject() -> Subject {
        Subject::Host
    }

    #[test]
    fn states_come_back() {
        let buffers = vec![Buffer { bytes: vec![1, 2], packet: true }, Buffer { bytes: vec![0; 4096], packet: false }];
        let sort = Sort::Pipe { mode: 0o600, owner: (1000, 7), times: [(1, 2), (-3, 4)] };
        super::super::assert_round_trip(&State { capacity: 65536, buffers, sort, later: false });
        let sort = Sort::Fifo { path: "/tmp/a".to_owned(), writers: true, file: (7, 8) };
        super::super::assert_round_trip(&State { capacity: 4096, buffers: Vec::new(), sort, later: false });
        super::super::assert_round_trip(&End { content: ObjectId(9), flags: 0o4001, hung_up: false });
    }

    #[test]
    fn a_filled_pipe_shows_what_was_seen_in_another() {
        let mut scratch = Scratch::default();
        let (reader, mut writer) = own(subject).unwrap();
        writer.write_all(&[7; 8192]).unwrap();
        file::set_status_flags(writer.as_fd(), O_NONBLOCK | O_DIRECT).unwrap();
        writer.write_all(b"packet").unwrap();
        writer.write_all(b"another").unwrap();
        read_once(&reader, 100).unwrap();
        let seen = peek(reader.as_fd(), 65536, &mut scratch, subject).unwrap();
        let lengths: Vec<(usize, bool)> = seen.iter().map(|buffer| (buffer.bytes.len(), buffer.packet)).collect();
        assert_eq!(lengths, [(3996, false), (4096, false), (6, true), (7, true)]);
        assert_eq!(pipe::unread(reader.as_fd()).unwrap(), 8105, "nothing was taken out");
        let (again, to) = pipe::create(O_NONBLOCK).unwrap();
        fill(to.as_fd(), &seen, &mut scratch, subject).unwrap();
        assert_eq!(peek(again.as_fd(), 65536, &mut scratch, subject).unwrap(), seen);
    }
}
