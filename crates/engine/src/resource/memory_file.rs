//! Files that live in memory only and have no name in any directory: memfds, and what is behind MAP_SHARED|MAP_ANONYMOUS.
//! One content per inode, and beside it every open description (or mapping) of it with its own flags and position.
use super::{Captured, Description, Kind, Made, Need, Stage, TaskState, open};
use crate::capture::Capture;
use crate::failure::{About, Result};
use crate::look::{Look, Purpose, Survey};
use crate::restore::{Bind, Make};
use godwit_image::memory::PAGE_BYTES;
use godwit_image::page_set::{PageSet, Run};
use godwit_image::{Code, Envelope, KindId, ObjectId, Refusal, Subject, Verdict};
use godwit_linux::{file, memory_file};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::OnceLock;

const S_IFREG: u32 = 0o100_000;
const O_ACCMODE: u32 = 3;
const O_RDONLY: u32 = 0;
const O_RDWR: u32 = 2;
const O_PATH: u32 = 0o10_000_000;
const MEMFD: &[u8] = b"/memfd:";
const ANONYMOUS: &[u8] = b"/dev/zero (deleted)";
const DELETED: &[u8] = b" (deleted)";
/// F_SEAL_SEAL.
const SEAL_SEAL: u32 = 1;

/// How such a file came to be.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Sort {
    /// mmap(MAP_SHARED|MAP_ANONYMOUS).
    Anonymous,
    /// memfd_create(2) with this name.
    Memfd(#[serde(with = "serde_bytes")] Vec<u8>),
}

/// State of the content; its bytes travel beside it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Content {
    /// How it came to be.
    pub sort: Sort,
    /// Length in bytes.
    pub bytes: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Access and modification time: seconds, nanoseconds.
    pub times: [(i64, i64); 2],
    /// F_SEAL_* bits.
    pub seals: u32,
}

/// State of one description.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct State {
    /// The content.
    pub content: ObjectId,
    /// Open flags.
    pub flags: u32,
    /// Position in bytes.
    pub position: u64,
}

/// The device on which the kernel keeps all files of this kind.
fn home() -> Option<u64> {
    static HOME: OnceLock<Option<u64>> = OnceLock::new();
    *HOME.get_or_init(|| File::from(memory_file::create(b"", None).ok()?).metadata().ok().map(|data| data.dev()))
}

fn sort(look: &Look) -> Option<Sort> {
    if look.file_type() != S_IFREG || look.links != 0 || home() != Some(look.device) {
        return None;
    }
    if look.link == ANONYMOUS {
        return Some(Sort::Anonymous);
    }
    let name = look.link.strip_prefix(MEMFD)?.strip_suffix(DELETED)?;
    Some(Sort::Memfd(name.to_vec()))
}

/// A fresh description of the same file, so that reading it moves nobody's position.
///
/// # Errors
/// EACCES: the file's mode forbids it to us.
pub(super) fn reopen(file: BorrowedFd<'_>, flags: u32, subject: impl FnOnce() -> Subject) -> Result<OwnedFd> {
    file::open(format!("/proc/self/fd/{}", file.as_raw_fd()).as_bytes(), flags).about(subject)
}

/// The pages of a file that hold data, as the file system tells.
///
/// # Errors
/// The file cannot be searched for holes.
pub(super) fn data_pages(file: BorrowedFd<'_>, subject: impl Fn() -> Subject) -> Result<PageSet> {
    let mut pages = PageSet::new();
    let mut position = 0;
    while let Some((start, end)) = file::extent(file, position).about(&subject)? {
        pages.insert(Run { start: start / PAGE_BYTES * PAGE_BYTES, end: end.next_multiple_of(PAGE_BYTES) });
        position = end;
    }
    Ok(pages)
}

/// The content of a nameless file in memory.
#[derive(Debug)]
pub struct MemoryFileContent;

impl Kind for MemoryFileContent {
    fn id(&self) -> KindId {
        KindId(14)
    }
    fn name(&self) -> &'static str {
        "memory file content"
    }
    fn version(&self) -> u16 {
        1
    }
    fn stage(&self) -> Stage {
        Stage::Early
    }
    fn needs(&self, _: &Envelope) -> Result<Vec<Need>> {
        Ok(Vec::new())
    }
    fn make(&self, envelope: &Envelope, make: &mut Make) -> Result<Made> {
        let state: Content = open(envelope)?;
        let subject = || Subject::Object(format!("memory file {}", envelope.id));
        let made = match &state.sort {
            Sort::Anonymous => {
                let whole = state.bytes.next_multiple_of(PAGE_BYTES).max(PAGE_BYTES);
                memory_file::create_anonymous(whole, None).about(subject)?
            }
            Sort::Memfd(name) => memory_file::create(name, None).about(subject)?,
        };
        let file = File::from(made);
        if file.metadata().about(subject)?.size() != state.bytes {
            memory_file::set_length(file.as_fd(), state.bytes).about(subject)?;
        }
        file.set_permissions(std::fs::Permissions::from_mode(state.mode)).about(subject)?;
        std::os::unix::fs::fchown(&file, Some(state.owner.0), Some(state.owner.1)).about(subject)?;
        make.sink(envelope.id, file.as_fd())?;
        Ok(vec![file.into()])
    }
    fn bind(&self, envelope: &Envelope, bind: &mut Bind) -> Result<()> {
        let state: Content = open(envelope)?;
        let subject = || Subject::Object(format!("memory file {}", envelope.id));
        file::set_times(bind.own()?, state.times).about(subject)?;
        let now = memory_file::seals(bind.own()?).about(subject)?.unwrap_or(0);
        if state.seals & !now != 0 {
            // The seal on sealing itself comes last.
            let first = state.seals & !now & !SEAL_SEAL;
            if first != 0 {
                memory_file::seal(bind.own()?, first).about(subject)?;
            }
            if state.seals & SEAL_SEAL & !now != 0 {
                memory_file::seal(bind.own()?, SEAL_SEAL).about(subject)?;
            }
        }
        Ok(())
    }
    fn description(&self) -> Option<&dyn Description> {
        None
    }
    fn task_state(&self) -> Option<&dyn TaskState> {
        None
    }
}

/// One open description, or mapping, of a nameless file in memory.
#[derive(Debug)]
pub struct MemoryFile;

impl Kind for MemoryFile {
    fn id(&self) -> KindId {
        KindId(15)
    }
    fn name(&self) -> &'static str {
        "memory file"
    }
    fn version(&self) -> u16 {
        1
    }
    fn stage(&self) -> Stage {
        Stage::Early
    }
    fn needs(&self, _: &Envelope) -> Result<Vec<Need>> {
        Ok(Vec::new())
    }
    fn make(&self, envelope: &Envelope, make: &mut Make) -> Result<Made> {
        let state: State = open(envelope)?;
        let subject = || Subject::Object(format!("memory file {}", state.content));
        let file = reopen(make.made(state.content, 0)?, state.flags, subject)?;
        if state.flags & O_PATH == 0 {
            file::seek(file.as_fd(), state.position).about(subject)?;
        }
        Ok(vec![file])
    }
    fn bind(&self, _: &Envelope, _: &mut Bind) -> Result<()> {
        Ok(())
    }
    fn description(&self) -> Option<&dyn Description> {
        Some(self)
    }
    fn task_state(&self) -> Option<&dyn TaskState> {
        None
    }
}

fn content(look: &Look, sort: Sort, capture: &mut Capture) -> Result<ObjectId> {
    let key = [look.device.to_le_bytes(), look.inode.to_le_bytes()].concat();
    capture.intern(&MemoryFileContent, &key, |capture, id| {
        let own = File::from(reopen(look.borrow(), O_RDONLY, || look.subject())?);
        let metadata = own.metadata().about(|| look.subject())?;
        let pages = data_pages(own.as_fd(), || look.subject())?;
        let seals = memory_file::seals(own.as_fd()).about(|| look.subject())?.unwrap_or(0);
        capture.content(id, own.into(), pages);
        let state = Content {
            sort,
            bytes: metadata.size(),
            mode: metadata.mode() & 0o7777,
            owner: (metadata.uid(), metadata.gid()),
            times: [(metadata.atime(), metadata.atime_nsec()), (metadata.mtime(), metadata.mtime_nsec())],
            seals,
        };
        Ok((Vec::new(), state))
    })
}

impl Description for MemoryFile {
    fn recognise(&self, look: &Look) -> bool {
        sort(look).is_some()
    }
    fn examine(&self, _: &Look, _: &Survey) -> Verdict {
        Verdict::Recreated("its inode number is the kernel's choice".to_owned())
    }
    fn capture(&self, look: &Look, capture: &mut Capture) -> Result<Captured> {
        let Some(sort) = sort(look) else {
            return Err(Refusal::new(Code::NOT_MIGRATABLE, look.subject(), "it changed while it was looked at"));
        };
        let content = content(look, sort, capture)?;
        let flags = match look.purpose {
            Purpose::Descriptor(_) => look.flags(),
            // A shared mapping that may be written needs a description that may.
            Purpose::Mapping { writable: true, .. } => O_RDWR,
            _ => look.flags() & O_ACCMODE,
        };
        let state = State { content, flags, position: look.information.position.max(0) as u64 };
        Captured::new(vec![content], &state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_come_back_from_their_payloads() {
        let sort = Sort::Memfd(b"a \xff name".to_vec());
        let owner = (1000, u32::MAX - 1);
        let times = [(-1, 999_999_999), (1 << 40, 0)];
        let content = Content { sort, bytes: 5000, mode: 0o4755, owner, times, seals: 0x3f };
        super::super::assert_round_trip(&content);
        super::super::assert_round_trip(&Content { sort: Sort::Anonymous, ..content });
        super::super::assert_round_trip(&State { content: ObjectId(7), flags: 0o2, position: 1 << 62 });
    }
}
