//! Contents of files that the destination cannot have by itself: nameless ones in memory, unlinked ones, those on tmpfs.
//! One object per inode, however many descriptions and mappings of it a tree has; its bytes travel beside it.
use super::{Captured, Description, Kind, Made, Need, Stage, TaskState, huge_file, kind_of, open};
use crate::capture::Capture;
use crate::failure::{About, Result, malformed};
use crate::look::Look;
use crate::restore::{Bind, Make};
use godwit_image::memory::PAGE_BYTES;
use godwit_image::page_set::{PageSet, Run};
use godwit_image::{Code, Envelope, KindId, ObjectId, Refusal, Subject};
use godwit_linux::{attributes, file, memory_file};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

const O_RDONLY: u32 = 0;
const O_RDWR: u32 = 2;
const O_ACCMODE: u32 = 3;
const O_NOFOLLOW: u32 = 0o400_000;
/// __O_TMPFILE|O_DIRECTORY, as open descriptions keep it.
pub(super) const O_TMPFILE: u32 = 0o20_200_000;
/// Seals sealing itself.
const SEAL_SEAL: u32 = 1;
/// SELinux labels belong to a host's policy.
const FOREIGN_ATTRIBUTES: [&[u8]; 2] = [b"security.selinux", crate::tmpfs_file::LINEAGE];

/// How such a file came to be, and so how it is made again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Sort {
    /// mmap(MAP_SHARED|MAP_ANONYMOUS).
    Anonymous,
    /// memfd_create(2) with this name.
    Memfd(#[serde(with = "serde_bytes")] Vec<u8>),
    /// The same out of huge pages.
    Huge(huge_file::Huge),
    /// It had this path.
    Unlinked(String),
    /// open(O_TMPFILE) in this directory.
    Temporary(String),
    /// It has a path, on a file system that is this host's own.
    Named(crate::tmpfs_file::Place),
}

/// State of a content.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct State {
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
    /// F_SEAL_* bits, where the file can have any.
    pub seals: u32,
    /// Extended attributes.
    pub attributes: Vec<Attribute>,
}

/// One extended attribute.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Attribute {
    /// Name with its class, `user.x`.
    #[serde(with = "serde_bytes")]
    pub name: Vec<u8>,
    /// Value.
    #[serde(with = "serde_bytes")]
    pub value: Vec<u8>,
}

/// State of one description or mapping of a content: what [`MemoryFile`](super::memory_file::MemoryFile) and
/// [`UnlinkedFile`](super::unlinked_file::UnlinkedFile) have.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Opening {
    /// The content.
    pub content: ObjectId,
    /// Open flags.
    pub flags: u32,
    /// Position in bytes.
    pub position: u64,
}

/// A fresh description of the same file, so that reading it moves nobody's position.
///
/// # Errors
/// EACCES: the file's mode forbids it to us.
pub(crate) fn reopen(file: BorrowedFd<'_>, flags: u32, subject: impl FnOnce() -> Subject) -> Result<OwnedFd> {
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

/// By what a content is known: its inode.
pub(super) fn key(device: u64, inode: u64) -> Vec<u8> {
    [device.to_le_bytes(), inode.to_le_bytes()].concat()
}

/// The object of the content behind a look, captured once per inode.
///
/// # Errors
/// The file cannot be opened for reading or described.
pub(super) fn capture(look: &Look, sort: Sort, capture: &mut Capture) -> Result<ObjectId> {
    let key = key(look.device, look.inode);
    let subject = || look.subject();
    capture.intern(&FileContent, &key, |capture, id| {
        let own = File::from(reopen(look.borrow(), O_RDONLY, subject)?);
        let metadata = own.metadata().about(subject)?;
        let pages = match &sort {
            // The file system of huge pages tells of no holes; what was only mapped privately has no page at all.
            Sort::Huge(_) if metadata.blocks() == 0 => PageSet::new(),
            _ => data_pages(own.as_fd(), subject)?,
        };
        let seals = memory_file::seals(own.as_fd()).about(subject)?.unwrap_or(0);
        let mut kept = Vec::new();
        for name in attributes::list(own.as_fd()).about(subject)? {
            if !FOREIGN_ATTRIBUTES.contains(&name.as_slice()) {
                let value = attributes::get(own.as_fd(), &name).about(subject)?.unwrap_or_default();
                kept.push(Attribute { name, value });
            }
        }
        let state = State {
            sort,
            bytes: metadata.size(),
            mode: metadata.mode() & 0o7777,
            owner: (metadata.uid(), metadata.gid()),
            times: [(metadata.atime(), metadata.atime_nsec()), (metadata.mtime(), metadata.mtime_nsec())],
            seals,
            attributes: kept,
        };
        capture.content(id, own.into(), pages);
        Ok((Vec::new(), state))
    })
}

/// Makes a description of a content.
///
/// # Errors
/// The content cannot be opened with these flags.
pub(super) fn make_opening(envelope: &Envelope, opening: &Opening, make: &Make) -> Result<OwnedFd> {
    let subject = || Subject::Object(format!("file {}", opening.content));
    let special = openings_by_path(make, opening.content)?;
    let file = match special.iter().position(|(id, _)| *id == envelope.id) {
        // The same open description: the first table has it only as long as the restore lasts.
        Some(index) => make.made(opening.content, 1 + index)?.try_clone_to_owned().about(subject)?,
        None => reopen(make.made(opening.content, 0)?, opening.flags, subject)?,
    };
    file::seek(file.as_fd(), opening.position).about(subject)?;
    Ok(file)
}

/// Descriptions that only the maker of the file can open: O_NOFOLLOW forbids /proc/self/fd, O_TMPFILE makes a new file.
fn openings_by_path(make: &Make, content: ObjectId) -> Result<Vec<(ObjectId, u32)>> {
    let mut found = Vec::new();
    for envelope in make.tree().objects.iter().filter(|envelope| envelope.refs.contains(&content)) {
        if kind_of(envelope)?.id() == super::unlinked_file::ID {
            let opening: Opening = open(envelope)?;
            if opening.flags & O_NOFOLLOW != 0 || opening.flags & O_TMPFILE == O_TMPFILE {
                found.push((envelope.id, opening.flags));
            }
        }
    }
    Ok(found)
}

/// Directories that had to be made for a moment, the last one first.
#[derive(Debug, Default)]
struct Scaffold(Vec<PathBuf>);

impl Scaffold {
    fn raise(directory: &Path) -> std::io::Result<Scaffold> {
        let mut scaffold = Scaffold::default();
        let mut missing: Vec<&Path> = directory.ancestors().take_while(|ancestor| !ancestor.exists()).collect();
        while let Some(next) = missing.pop() {
            std::fs::DirBuilder::new().mode(0o700).create(next)?;
            scaffold.0.insert(0, next.to_owned());
        }
        Ok(scaffold)
    }
}

impl Drop for Scaffold {
    fn drop(&mut self) {
        for directory in &self.0 {
            // Not empty: somebody else uses it by now.
            let _ = std::fs::remove_dir(directory);
        }
    }
}

/// A file without a name: made under its old one when that is free, else beside it under the same last component.
fn unlinked(path: &str, special: &[(ObjectId, u32)]) -> Result<(File, Vec<OwnedFd>)> {
    let subject = || Subject::Path(path.to_owned());
    let wanted = Path::new(path);
    let directory = wanted.parent().unwrap_or(Path::new("/"));
    let scaffold = Scaffold::raise(directory).about(subject)?;
    let create = |path: &Path| OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path);
    let (file, place, beside) = match create(wanted) {
        Ok(file) => (file, wanted.to_owned(), None),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let name = format!(".godwit-{}", std::process::id());
            let beside = Scaffold::raise(&directory.join(name)).about(subject)?;
            let place = beside.0.first().map_or(directory, |made| made).join(wanted.file_name().unwrap_or_default());
            (create(&place).about(subject)?, place, Some(beside))
        }
        Err(error) => return Err(error).about(subject),
    };
    let opened: Result<Vec<OwnedFd>> = special
        .iter()
        .map(|(_, flags)| file::open(place.as_os_str().as_encoded_bytes(), flags & !O_TMPFILE).about(subject))
        .collect();
    std::fs::remove_file(&place).about(subject)?;
    drop(beside);
    drop(scaffold);
    Ok((file, opened?))
}

/// A file made without a name; the description that made it is the tree's own, if it still has it.
fn temporary(directory: &str, special: &[(ObjectId, u32)]) -> Result<(File, Vec<OwnedFd>)> {
    let subject = || Subject::Path(directory.to_owned());
    let of_maker = special.iter().map(|(_, flags)| *flags).find(|flags| flags & O_TMPFILE == O_TMPFILE);
    let flags = of_maker.unwrap_or(O_RDWR | O_TMPFILE);
    let made = file::create_temporary(directory.as_bytes(), flags | O_TMPFILE, 0o600).about(subject)?;
    let writable = if flags & O_ACCMODE == O_RDWR {
        made.try_clone().about(subject)?
    } else {
        reopen(made.as_fd(), O_RDWR, subject)?
    };
    let mut opened = Vec::new();
    for (id, flags) in special {
        if flags & O_TMPFILE == O_TMPFILE && opened.is_empty() {
            opened.push(made.try_clone().about(subject)?);
        } else {
            let cause = "more than one description of it has flags that only its maker can have";
            return Err(Refusal::new(Code::NOT_MIGRATABLE, Subject::Object(format!("file {id}")), cause));
        }
    }
    Ok((File::from(writable), opened))
}

/// The content of a file.
#[derive(Debug)]
pub struct FileContent;

impl Kind for FileContent {
    fn id(&self) -> KindId {
        KindId(14)
    }
    fn name(&self) -> &'static str {
        "file content"
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
        let subject = || Subject::Object(format!("file {}", envelope.id));
        let special = openings_by_path(make, envelope.id)?;
        let (file, opened) = match &state.sort {
            Sort::Anonymous => {
                let whole = state.bytes.next_multiple_of(PAGE_BYTES).max(PAGE_BYTES);
                (memory_file::create_anonymous(whole, None).about(subject)?.into(), Vec::new())
            }
            Sort::Huge(huge) => (huge.create(state.bytes)?, Vec::new()),
            Sort::Memfd(name) => (memory_file::create(name, None).about(subject)?.into(), Vec::new()),
            Sort::Unlinked(path) => unlinked(path, &special)?,
            Sort::Temporary(directory) => temporary(directory, &special)?,
            Sort::Named(place) => match crate::tmpfs_file::make(envelope.id, place, &state, make)? {
                crate::tmpfs_file::Found::Same(file) => return Ok(vec![file]),
                crate::tmpfs_file::Found::New(file) => (file, Vec::new()),
            },
        };
        if special.len() != opened.len() {
            return Err(malformed(subject(), "a description of it has flags that it cannot have"));
        }
        if file.metadata().about(subject)?.size() != state.bytes {
            memory_file::set_length(file.as_fd(), state.bytes).about(subject)?;
        }
        std::os::unix::fs::fchown(&file, Some(state.owner.0), Some(state.owner.1)).about(subject)?;
        file.set_permissions(std::fs::Permissions::from_mode(state.mode)).about(subject)?;
        match &state.sort {
            Sort::Huge(huge) => make.sink_huge(envelope.id, file.as_fd(), huge.page_bytes)?,
            _ => make.sink(envelope.id, file.as_fd())?,
        }
        // What the tree's program is may not be open for writing: the sink is the only such description.
        let mut made = vec![reopen(file.as_fd(), O_RDONLY, subject)?];
        made.extend(opened);
        Ok(made)
    }
    fn bind(&self, envelope: &Envelope, bind: &mut Bind) -> Result<()> {
        let state: State = open(envelope)?;
        let subject = || Subject::Object(format!("file {}", envelope.id));
        if bind.is_found() {
            return Ok(());
        }
        let file = File::from(bind.own()?.try_clone_to_owned().about(subject)?);
        if file.metadata().about(subject)?.mode() & 0o7777 != state.mode {
            file.set_permissions(std::fs::Permissions::from_mode(state.mode)).about(subject)?;
        }
        for attribute in &state.attributes {
            attributes::set(file.as_fd(), &attribute.name, &attribute.value).map_err(|error| {
                let name = String::from_utf8_lossy(&attribute.name);
                let cause = format!("its attribute {name} cannot be set here: {error}");
                Refusal::new(Code::DESTINATION_LACKS, subject(), cause)
            })?;
        }
        file::set_times(file.as_fd(), state.times).about(subject)?;
        seal(&file, state.seals, subject)
    }
    fn description(&self) -> Option<&dyn Description> {
        None
    }
    fn task_state(&self) -> Option<&dyn TaskState> {
        None
    }
}

/// Adds the seals that are missing; the one on sealing itself last.
fn seal(file: &File, wanted: u32, subject: impl Fn() -> Subject) -> Result<()> {
    let missing = wanted & !memory_file::seals(file.as_fd()).about(&subject)?.unwrap_or(0);
    if missing == 0 {
        return Ok(());
    }
    let writable = reopen(file.as_fd(), O_RDWR, &subject)?;
    for seals in [missing & !SEAL_SEAL, missing & SEAL_SEAL] {
        if seals != 0 {
            memory_file::seal(writable.as_fd(), seals).about(&subject)?;
        }
    }
    Ok(())
}

/// State of a description of a content.
pub(super) fn captured(content: ObjectId, look: &Look) -> Result<Captured> {
    let flags = match look.purpose {
        crate::look::Purpose::Descriptor(_) => look.flags(),
        // A shared mapping that may be written needs a description that may.
        crate::look::Purpose::Mapping { writable: true, .. } => O_RDWR,
        _ => O_RDONLY,
    };
    let position = look.information.position.max(0) as u64;
    Captured::new(vec![content], &Opening { content, flags, position })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_come_back_from_their_payloads() {
        let state = State {
            sort: Sort::Memfd(b"a \xff name".to_vec()),
            bytes: 5000,
            mode: 0o4755,
            owner: (1000, u32::MAX - 1),
            times: [(-1, 999_999_999), (1 << 40, 0)],
            seals: 0x3f,
            attributes: vec![Attribute { name: b"user.x".to_vec(), value: vec![0, 255] }],
        };
        super::super::assert_round_trip(&state);
        super::super::assert_round_trip(&State { sort: Sort::Anonymous, ..state.clone() });
        super::super::assert_round_trip(&State { sort: Sort::Unlinked("/a/b".to_owned()), ..state.clone() });
        super::super::assert_round_trip(&State { sort: Sort::Temporary("/a".to_owned()), ..state });
        super::super::assert_round_trip(&Opening { content: ObjectId(7), flags: 0o2, position: 1 << 62 });
    }

    #[test]
    fn a_scaffold_leaves_nothing() {
        let base = std::env::temp_dir().join(format!("godwit-scaffold-{}", std::process::id()));
        let path = base.join("a/b/file");
        let (file, opened) = unlinked(&path.to_string_lossy(), &[]).unwrap();
        assert!(opened.is_empty() && !base.exists());
        let link = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
        assert_eq!(link.to_string_lossy(), format!("{} (deleted)", path.display()));
    }

    #[test]
    fn a_taken_name_stays_taken() {
        let path = std::env::temp_dir().join(format!("godwit-taken-{}", std::process::id()));
        std::fs::write(&path, b"mine").unwrap();
        let (file, _) = unlinked(&path.to_string_lossy(), &[]).unwrap();
        assert_eq!(file.metadata().unwrap().nlink(), 0);
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
        std::fs::remove_file(&path).unwrap();
    }
}
