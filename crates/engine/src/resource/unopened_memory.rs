//! POSIX shared memory and semaphores with a name that nobody has open or mapped: names in /dev/shm that are opened again later,
//! as servers do whose workers come and go. Source: shm_overview(7), sem_overview(7).
//!
//! The kernel does not tell who made them. They belong to a tree that one of its processes' users owns and that was made since the
//! oldest of that user's processes began, as long as no other process uses them; a System V segment that nobody has attached is
//! [carried](super::sysv_shm), too.
use super::Need;
use super::file_content::{self, Sort};
use crate::capture::Capture;
use crate::failure::Result;
use crate::look::{self, Look};
use crate::tmpfs_file;
use godwit_image::{Subject, Verdict};
use godwit_linux::{clock, file};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, UNIX_EPOCH};

/// Where their names are: the C library's shm_open(3) and sem_open(3) look nowhere else.
const DIRECTORY: &str = "/dev/shm";
const S_IFREG: u32 = 0o100_000;
const S_IFMT: u32 = 0o170_000;
/// Of /proc/PID/stat: USER_HZ is part of the kernel's interface.
const NANOSECONDS_OF_A_TICK: u64 = 10_000_000;
/// Times of inodes are those of the kernel's last tick, which an idle processor may have slept through.
const TICKS: Duration = Duration::from_millis(40);
/// A tree that was brought here begins when it is made, and what it brought was made a little before.
const BROUGHT_BEFORE: Duration = Duration::from_secs(60);

/// Since when the user of some processes may have made something, in ticks after boot, by user.
#[derive(Clone, Debug, Default)]
pub(crate) struct Makers(BTreeMap<u32, u64>);

impl Makers {
    /// Notes a process: who owns the files that it makes (its file system user id), and when it began (field 22 of its stat).
    pub(crate) fn note(&mut self, user: u32, start_time: u64) {
        let first = self.0.entry(user).or_insert(start_time);
        *first = start_time.min(*first);
    }

    /// Whether one of them may have made a file.
    fn may_have_made(&self, metadata: &Metadata, is_brought: impl FnOnce() -> bool) -> bool {
        let Some(start_time) = self.0.get(&metadata.uid()) else { return false };
        let Some(born) = metadata.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok()) else {
            return false;
        };
        let now = clock::now();
        let age = Duration::from_nanos(now.boottime.saturating_sub(start_time.saturating_mul(NANOSECONDS_OF_A_TICK)));
        let began = Duration::from_nanos(now.realtime).saturating_sub(age);
        born + TICKS >= began || (born + BROUGHT_BEFORE >= began && is_brought())
    }
}

/// One that belongs to a tree.
#[derive(Debug)]
pub(crate) struct Unopened {
    look: Look,
    path: String,
}

impl Unopened {
    pub(crate) fn subject(&self) -> Subject {
        self.look.subject()
    }

    /// What a move does to it.
    pub(crate) fn verdict(&self) -> Verdict {
        Verdict::Recreated("nobody has it open; it goes with the tree of the user who made it".to_owned())
    }

    /// What the destination must have for it.
    pub(crate) fn foresee(&self) -> Vec<Need> {
        tmpfs_file::place(&self.look, &self.path).map(|place| place.foresee()).unwrap_or_default()
    }
}

/// All of a tree that are not `known` (st_dev, st_ino).
pub(crate) fn all(makers: &Makers, known: impl Fn(u64, u64) -> bool) -> Vec<Unopened> {
    let mut found = BTreeMap::new();
    // There is no such directory: then there is no such memory.
    for entry in std::fs::read_dir(DIRECTORY).into_iter().flatten().flatten() {
        let path = entry.path();
        // Gone meanwhile, or of no name that a program in text could tell.
        let (Ok(metadata), Some(path)) = (entry.metadata(), path.to_str()) else { continue };
        let (device, inode) = (metadata.dev(), metadata.ino());
        if metadata.mode() & S_IFMT != S_IFREG || known(device, inode) {
            continue;
        }
        let Ok(opened) = file::open(path.as_bytes(), 0) else { continue };
        let Ok(look) = Look::named(path, opened) else { continue };
        let is_brought = || tmpfs_file::is_brought(look.borrow());
        if (look.device, look.inode) == (device, inode)
            && tmpfs_file::is_private(&look)
            && makers.may_have_made(&metadata, is_brought)
        {
            found.insert((device, inode), Unopened { look, path: path.to_owned() });
        }
    }
    let used = match found.is_empty() {
        true => BTreeSet::new(),
        false => look::used(|file| found.contains_key(file)),
    };
    found.into_iter().filter(|(file, _)| !used.contains(file)).map(|(_, unopened)| unopened).collect()
}

/// Captures those of a frozen tree whose descriptors and mappings have been captured.
///
/// # Errors
/// One cannot be described.
pub(crate) fn capture(makers: &Makers, capture: &mut Capture) -> Result<()> {
    let unopened =
        all(makers, |device, inode| capture.has(&file_content::FileContent, &file_content::key(device, inode)));
    for unopened in unopened {
        let place = tmpfs_file::place(&unopened.look, &unopened.path)?;
        file_content::capture(&unopened.look, Sort::Named(place), capture)?;
    }
    Ok(())
}
