//! Checkpoint and restore: the same captured tree, to a directory and back.
use crate::private;
use godwit_engine::capture::Captives;
use godwit_engine::claim::Claim;
use godwit_engine::demand::Demand;
use godwit_engine::failure::Result;
use godwit_engine::ground::{self, Ground};
use godwit_engine::pages;
use godwit_engine::restore::Restorer;
use godwit_image::layout::{self, Checkpoint, IMAGE_NAME, Invalid, PAGES_NAME, PARTIAL_NAME, PageIndex};
use godwit_image::page_set::Run;
use godwit_image::{Code, Refusal, Subject};
use godwit_linux::file;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long a lock of a restored tree may be somebody else's, and the pause between two tries.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
const LOCK_PAUSE: Duration = Duration::from_millis(1);

/// How far a transfer is: bytes done, bytes in all.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

fn storage<T>(result: std::io::Result<T>, path: &Path) -> Result<T> {
    result.map_err(|error| Refusal::new(Code::STORAGE, Subject::Path(path.display().to_string()), error.to_string()))
}

/// Writes a captured, still frozen tree into a directory, which is made if it is not there. The image file gets its final
/// name last, when everything is on storage: a crash leaves a checkpoint that says that it is incomplete.
///
/// # Errors
/// GW1402: the directory holds a checkpoint already, or a file operation failed; and what `progress` says. What was written is removed then.
pub(crate) fn write(
    captives: Captives,
    directory: &Path,
    progress: &mut dyn FnMut(u64, u64) -> Result<()>,
) -> Result<Checkpoint> {
    let existed = directory.exists();
    storage(private::directory(directory), directory)?;
    if directory.join(IMAGE_NAME).exists() {
        let subject = Subject::Path(directory.display().to_string());
        return Err(
            Refusal::new(Code::STORAGE, subject, "it holds a checkpoint already").choice("name another directory")
        );
    }
    write_files(captives, directory, progress).inspect_err(|_| remove(directory, existed))
}

/// Removes a checkpoint, and the directory as well if it was made for it.
pub(crate) fn remove(directory: &Path, existed: bool) {
    // The image first: what is left is no checkpoint then. What cannot be removed is no harm to anybody.
    for name in [IMAGE_NAME, PARTIAL_NAME, PAGES_NAME] {
        let _ = std::fs::remove_file(directory.join(name));
    }
    if !existed {
        let _ = std::fs::remove_dir(directory);
    }
}

fn write_files(
    captives: Captives,
    directory: &Path,
    progress: &mut dyn FnMut(u64, u64) -> Result<()>,
) -> Result<Checkpoint> {
    let image_path = directory.join(IMAGE_NAME);
    let partial_path = directory.join(PARTIAL_NAME);
    let partial = storage(private::replace(&partial_path), &partial_path)?;
    let pages_path = directory.join(PAGES_NAME);
    let mut pages_file = storage(private::replace(&pages_path), &pages_path)?;
    let total = pages::bytes(&captives);
    let mut indices: Vec<PageIndex> = Vec::new();
    let mut hasher = crc32fast::Hasher::new();
    let mut offset = 0_u64;
    pages::read(&captives, |owner, ranges, bytes| {
        if indices.last().is_none_or(|index| index.owner != owner) {
            if let Some(index) = indices.last_mut() {
                index.checksum = std::mem::replace(&mut hasher, crc32fast::Hasher::new()).finalize();
            }
            indices.push(PageIndex { owner, offset, runs: Vec::new(), checksum: 0 });
        }
        if let Some(index) = indices.last_mut() {
            index.runs.extend(ranges.iter().map(|(start, length)| Run { start: *start, end: start + *length as u64 }));
        }
        hasher.update(bytes);
        storage(pages_file.write_all(bytes), &pages_path)?;
        offset += bytes.len() as u64;
        progress(offset, total)
    })?;
    if let Some(index) = indices.last_mut() {
        index.checksum = hasher.finalize();
    }
    for index in &mut indices {
        merge(&mut index.runs);
    }
    let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
    let checkpoint = Checkpoint { tree: captives.tree, pages: indices, created };
    // On their way while the image is encoded; storage takes its time for each file, and both have it at once.
    // What fails here fails below, too, where it counts.
    let _ = file::begin_to_store(pages_file.as_fd());
    let bytes = layout::encode(&checkpoint).map_err(|invalid| damaged(directory, &invalid))?;
    storage(partial.write_all_at(&bytes, 0).and_then(|()| partial.sync_all()), &partial_path)?;
    storage(pages_file.sync_all(), &pages_path)?;
    storage(std::fs::rename(&partial_path, &image_path), &image_path)?;
    storage(File::open(directory).and_then(|directory| directory.sync_all()), directory)?;
    Ok(checkpoint)
}

/// Joins runs that were cut into pieces.
fn merge(runs: &mut Vec<Run>) {
    runs.dedup_by(|next, previous| {
        let adjacent = previous.end == next.start;
        if adjacent {
            previous.end = next.end;
        }
        adjacent
    });
}

fn damaged(directory: &Path, invalid: &Invalid) -> Refusal {
    Refusal::new(Code::MALFORMED, Subject::Path(directory.display().to_string()), invalid.to_string())
}

/// Reads the image of a checkpoint, without its page contents.
///
/// # Errors
/// GW1401: incomplete; GW1402: a file operation failed; GW1004: damaged.
pub fn open(directory: &Path) -> Result<Checkpoint> {
    let path = directory.join(IMAGE_NAME);
    if !path.exists() && directory.join(PARTIAL_NAME).exists() {
        let subject = Subject::Path(directory.display().to_string());
        return Err(Refusal::new(Code::IMAGE_INCOMPLETE, subject, "it was never finished"));
    }
    let file = storage(File::open(&path), &path)?;
    let mut bytes = Vec::new();
    storage(file.take(layout::IMAGE_BYTES_MAX).read_to_end(&mut bytes), &path)?;
    layout::decode(&bytes).map_err(|invalid| damaged(&path, &invalid))
}

/// Checks everything: header, sections, and the checksum of every owner's pages.
///
/// # Errors
/// As [`open`]; GW1004 for damaged pages.
pub fn verify(directory: &Path, progress: Progress<'_>) -> Result<Checkpoint> {
    let checkpoint = open(directory)?;
    let path = directory.join(PAGES_NAME);
    let file = storage(File::open(&path), &path)?;
    let total: u64 = checkpoint.pages.iter().map(PageIndex::bytes).sum();
    let mut done = 0;
    let mut buffer = vec![0_u8; pages::PIECE_BYTES];
    for index in &checkpoint.pages {
        let mut hasher = crc32fast::Hasher::new();
        let mut offset = index.offset;
        let end = index.offset + index.bytes();
        while offset < end {
            let length = ((end - offset) as usize).min(buffer.len());
            storage(file.read_exact_at(&mut buffer[..length], offset), &path)?;
            hasher.update(&buffer[..length]);
            offset += length as u64;
            done += length as u64;
            progress(done, total);
        }
        if hasher.finalize() != index.checksum {
            let subject = Subject::Path(path.display().to_string());
            return Err(Refusal::new(
                Code::MALFORMED,
                subject,
                format!("the pages of object {} are damaged", index.owner),
            ));
        }
    }
    Ok(checkpoint)
}

/// Builds the tree of a checkpoint; the caller resumes it. Before anything is made, all that this host lacks for it is found,
/// but for what no tree can be built without: that shows when this one is, and is told in its place.
/// What will only differ comes with the tree.
///
/// # Errors
/// As [`open`], GW1202, GW1203, and everything that a restore can refuse; nothing is left behind then.
pub fn restore(
    directory: &Path,
    unused_processor_flags: &BTreeSet<String>,
    progress: Progress<'_>,
) -> std::result::Result<(Restorer, Vec<Refusal>), Vec<Refusal>> {
    let one = |refusal: Refusal| vec![refusal];
    let checkpoint = open(directory).map_err(one)?;
    let mut demand = Demand::of_image(&checkpoint.tree).map_err(one)?;
    demand.memory_bytes = checkpoint.pages.iter().map(PageIndex::bytes).sum();
    demand.unused_processor_flags.clone_from(unused_processor_flags);
    let host = checkpoint.tree.host.clone();
    let ground = Ground::read_for(&demand, &host);
    let changes = ground.changes(&demand, &host);
    let mut refusals = ground.lacks(&demand, &host);
    refusals.extend(ground::taken(&demand));
    if !refusals.is_empty() {
        return Err(refusals);
    }
    match build(directory, checkpoint, progress) {
        Ok(restorer) => Ok((restorer, changes)),
        Err(refusal) => {
            let lacking = Ground::read().lacks(&demand, &host);
            Err(if lacking.is_empty() { one(refusal) } else { lacking })
        }
    }
}

fn build(directory: &Path, checkpoint: Checkpoint, progress: Progress<'_>) -> Result<Restorer> {
    let path = directory.join(PAGES_NAME);
    let file = storage(File::open(&path), &path)?;
    let total: u64 = checkpoint.pages.iter().map(PageIndex::bytes).sum();
    let mut done = 0;
    if checkpoint.tree.later.is_some() {
        let cause = "it says that something will follow, as only a migration can have it";
        return Err(Refusal::new(Code::MALFORMED, Subject::Object("checkpoint".to_owned()), cause));
    }
    let mut restorer = Restorer::begin(checkpoint.tree)?;
    let mut buffer = vec![0_u8; pages::PIECE_BYTES];
    for index in &checkpoint.pages {
        let mut hasher = crc32fast::Hasher::new();
        let mut offset = index.offset;
        pages::pieces(&index.runs, |ranges, length| {
            let part = &mut buffer[..length];
            storage(file.read_exact_at(part, offset), &path)?;
            hasher.update(part);
            offset += length as u64;
            done += length as u64;
            progress(done, total);
            restorer.write(index.owner, ranges, part)
        })?;
        if hasher.finalize() != index.checksum {
            let subject = Subject::Path(path.display().to_string());
            return Err(Refusal::new(
                Code::MALFORMED,
                subject,
                format!("the pages of object {} are damaged", index.owner),
            ));
        }
    }
    restorer.complete()?;
    take_locks(&mut restorer)?;
    Ok(restorer)
}

/// Of a tree that was checkpointed just now the locks may still be on their way out.
fn take_locks(restorer: &mut Restorer) -> Result<()> {
    let begin = Instant::now();
    while !restorer.take_claims()? {
        if begin.elapsed() > LOCK_PATIENCE {
            let cause = "somebody else has a lock that it had";
            let subject = restorer.claims().first().map_or(Subject::Host, Claim::subject);
            return Err(Refusal::new(Code::RESTORE_FAILED, subject, cause));
        }
        std::thread::sleep(LOCK_PAUSE);
    }
    Ok(())
}
