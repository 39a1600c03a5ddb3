//! Files with a name on a file system that is a host's own (tmpfs, ramfs): carried, and made by their path where they are
//! not. A file that was there before is used when it is the same one, brought up to date when it is what this very file
//! left behind on an earlier move, and otherwise never touched.
use crate::failure::{About, Result, malformed};
use crate::look::{self, Look};
use crate::resource::Need;
use crate::resource::file_content::{self, State};
use crate::restore::Make;
use godwit_image::{Code, ObjectId, Refusal, Subject, codec};
use godwit_linux::{attributes, file, filesystem};
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File, OpenOptions};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// The attribute by which a file made here remembers where it was before.
pub(crate) const LINEAGE: &[u8] = b"trusted.godwit.lineage";
/// Moves that a file remembers.
const LINEAGE_MAX: usize = 32;

/// Which file it was, on which host, and when it was last changed there.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Identity {
    /// /proc/sys/kernel/random/boot_id.
    pub boot_id: String,
    /// st_dev.
    pub device: u64,
    /// st_ino.
    pub inode: u64,
    /// Time of the last change of its contents: seconds, nanoseconds.
    pub modified: (i64, i64),
    /// Length in bytes.
    pub bytes: u64,
}

/// A directory above the file, on the same file system.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Directory {
    /// Absolute path.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
}

/// Where the file is and was.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Place {
    /// Absolute path.
    pub path: String,
    /// Directories above it that are not the file system's root, the highest first.
    pub directories: Vec<Directory>,
    /// Which file it is at the source.
    pub identity: Identity,
    /// Which files it was before, the latest last.
    pub lineage: Vec<Identity>,
}

impl Place {
    /// What the destination must have: the directory in which the file, or the highest of those above it, will be made.
    pub(crate) fn foresee(&self) -> Vec<Need> {
        const S_IFDIR: u32 = 0o040_000;
        let highest = self.directories.first().map_or(&self.path, |directory| &directory.path);
        let above = Path::new(highest).parent().map(|path| Need::path(path.to_string_lossy().into_owned(), S_IFDIR));
        let brought = self.directories.iter().map(|directory| Need::Brought(directory.path.clone()));
        above.into_iter().chain(brought).collect()
    }
}

/// What [`make`] came to.
pub(crate) enum Found {
    /// The destination has it; opened for reading.
    Same(OwnedFd),
    /// An empty file, or one to be overwritten; opened for reading and writing.
    New(File),
}

/// Whether a file is on a file system of this host alone.
pub(crate) fn is_private(look: &Look) -> bool {
    matches!(look.filesystem(), Some(filesystem::TMPFS | filesystem::RAMFS))
}

fn identity(boot_id: String, metadata: &std::fs::Metadata) -> Identity {
    Identity {
        boot_id,
        device: metadata.dev(),
        inode: metadata.ino(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        bytes: metadata.size(),
    }
}

fn boot_id() -> Result<String> {
    const PATH: &str = "/proc/sys/kernel/random/boot_id";
    let text = std::fs::read_to_string(PATH).about(|| Subject::Path(PATH.to_owned()))?;
    Ok(text.trim().to_owned())
}

fn lineage(file: BorrowedFd<'_>) -> Vec<Identity> {
    // Not ours to read, or not written by us: then it has none.
    attributes::get(file, LINEAGE).ok().flatten().and_then(|value| codec::decode(&value).ok()).unwrap_or_default()
}

/// Whether a file was made here by an earlier move.
pub(crate) fn is_brought(file: BorrowedFd<'_>) -> bool {
    !lineage(file).is_empty()
}

/// Where the file of a look is.
///
/// # Errors
/// It cannot be described.
pub(crate) fn place(look: &Look, path: &str) -> Result<Place> {
    let subject = || look.subject();
    let own = File::from(file_content::reopen(look.borrow(), 0, subject)?);
    let identity = identity(boot_id()?, &own.metadata().about(subject)?);
    let mut directories = Vec::new();
    for ancestor in Path::new(path).ancestors().skip(1) {
        let metadata = ancestor.metadata().about(subject)?;
        let above = ancestor.parent().map(|parent| parent.metadata().about(subject)).transpose()?;
        if metadata.dev() != look.device || above.is_none_or(|above| above.dev() != look.device) {
            break;
        }
        directories.push(Directory {
            path: ancestor.to_string_lossy().into_owned(),
            mode: metadata.mode() & 0o7777,
            owner: (metadata.uid(), metadata.gid()),
        });
    }
    directories.reverse();
    Ok(Place { path: path.to_owned(), directories, identity, lineage: lineage(own.as_fd()) })
}

/// Finds or makes the file at the destination.
///
/// # Errors
/// GW1201: another file has the path.
pub(crate) fn make(id: ObjectId, place: &Place, state: &State, make: &mut Make) -> Result<Found> {
    let subject = || Subject::Path(place.path.clone());
    for directory in &place.directories {
        if !Path::new(&directory.path).exists() {
            DirBuilder::new().mode(0o700).create(&directory.path).about(subject)?;
            make.created(&directory.path);
            let opened = File::open(&directory.path).about(subject)?;
            std::os::unix::fs::fchown(&opened, Some(directory.owner.0), Some(directory.owner.1)).about(subject)?;
            opened.set_permissions(std::fs::Permissions::from_mode(directory.mode)).about(subject)?;
        }
    }
    let mut options = OpenOptions::new();
    let created = options.read(true).write(true).create_new(true).mode(0o600).open(&place.path);
    let file = match created {
        Ok(file) => {
            make.created(&place.path);
            file
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let found = File::from(file::open(place.path.as_bytes(), 0).about(subject)?);
            let now = identity(boot_id()?, &found.metadata().about(subject)?);
            let before = lineage(found.as_fd());
            let same =
                |other: &Identity| (other.device, other.inode, &other.boot_id) == (now.device, now.inode, &now.boot_id);
            if same(&place.identity) {
                make.sink_nothing(id);
                return Ok(Found::Same(found.into()));
            }
            let left_behind = place.lineage.contains(&now) || before.contains(&place.identity);
            if !left_behind {
                return compare(id, found, state, make, &place.path);
            }
            if let Some(pid) = look::user_of(now.device, now.inode) {
                let cause = format!("process {pid} has the file open that stands there from an earlier move");
                return Err(Refusal::new(Code::FILE_DIFFERS, subject(), cause));
            }
            OpenOptions::new().read(true).write(true).open(&place.path).about(subject)?
        }
        Err(error) => return Err(error).about(subject),
    };
    // Whatever an older one holds is not this one's.
    file.set_len(0).about(subject)?;
    let mut remembered: Vec<&Identity> = place
        .lineage
        .iter()
        .filter(|old| (old.device, old.inode) != (place.identity.device, place.identity.inode))
        .collect();
    remembered.push(&place.identity);
    let first = remembered.len().saturating_sub(LINEAGE_MAX);
    let value = codec::encode(&remembered[first..].to_vec()).map_err(|error| malformed(subject(), error))?;
    // Without it only the way back is refused where the file has changed.
    let _ = attributes::set(file.as_fd(), LINEAGE, &value);
    Ok(Found::New(file))
}

fn compare(id: ObjectId, found: File, state: &State, make: &mut Make, path: &str) -> Result<Found> {
    let subject = || Subject::Path(path.to_owned());
    let bytes = found.metadata().about(subject)?.size();
    if bytes != state.bytes {
        let cause = format!("another file stands there, of {bytes} bytes instead of {}", state.bytes);
        let refusal = Refusal::new(Code::FILE_DIFFERS, subject(), cause);
        return Err(refusal.choice("remove it at the destination, if nobody needs it"));
    }
    make.sink_same(id, found.as_fd(), path)?;
    Ok(Found::Same(found.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_come_back_from_their_payloads() {
        let identity = Identity { boot_id: "x".to_owned(), device: 5, inode: 7, modified: (-1, 9), bytes: 1 };
        let directory = Directory { path: "/a".to_owned(), mode: 0o1777, owner: (1, 2) };
        let place = Place {
            path: "/a/b".to_owned(),
            directories: vec![directory],
            identity: identity.clone(),
            lineage: vec![identity],
        };
        crate::resource::assert_round_trip(&place);
    }
}
