//! Huge pages for the time of a run: the kernel's pool is empty unless somebody asks for pages. What a run that was killed has
//! added is taken out by the next one.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::workload::DIRECTORY;

const POOL: &str = "/proc/sys/vm/nr_hugepages";

/// Pages that were added to the pool; they are taken out again in the end.
#[derive(Debug)]
pub struct HugePages {
    pool: PathBuf,
    added: u64,
    /// Tells how many; locked as long as we live.
    note: Option<(PathBuf, File)>,
}

fn pages(pool: &Path) -> Option<u64> {
    fs::read_to_string(pool).ok()?.trim().parse().ok()
}

fn take_out(pool: &Path, count: u64) {
    if count > 0
        && let Some(now) = pages(pool)
    {
        // What cannot be taken out is in use, or was taken out by somebody else.
        let _ = fs::write(pool, now.saturating_sub(count).to_string());
    }
}

/// Takes out what those have added who have not come to their ends: nobody locks their notes.
fn take_out_leftovers(pool: &Path, notes: &Path) {
    for path in fs::read_dir(notes).into_iter().flatten().flatten().map(|entry| entry.path()) {
        if File::open(&path).is_ok_and(|note| note.try_lock().is_ok()) {
            take_out(pool, pages(&path).unwrap_or_default());
            let _ = fs::remove_file(&path);
        }
    }
}

/// Writes a note, locked. Until it is it tells of no pages.
fn write_note(notes: &Path) -> io::Result<(PathBuf, File)> {
    fs::create_dir_all(notes)?;
    let moment = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    let path = notes.join(format!("{}-{moment}", std::process::id()));
    let note = File::create_new(&path)?;
    note.lock()?;
    Ok((path, note))
}

impl HugePages {
    /// Asks for so many pages more. Fewer may come, or none: who needs them finds out and says so.
    #[must_use]
    pub fn add(wanted: u64) -> Self {
        Self::add_to(Path::new(POOL), &Path::new(DIRECTORY).join("huge-pages"), wanted)
    }

    fn add_to(pool: &Path, notes: &Path, wanted: u64) -> Self {
        take_out_leftovers(pool, notes);
        let before = pages(pool).unwrap_or_default();
        let note = write_note(notes).ok().filter(|(path, _)| fs::write(path, wanted.to_string()).is_ok());
        let asked = note.is_some() && fs::write(pool, (before + wanted).to_string()).is_ok();
        let added = if asked { pages(pool).unwrap_or(before).saturating_sub(before) } else { 0 };
        if let Some((path, _)) = &note {
            // Not more than came.
            let _ = fs::write(path, added.to_string());
        }
        Self { pool: pool.to_owned(), added, note }
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        take_out(&self.pool, self.added);
        if let Some((path, _)) = &self.note {
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_as_before_also_after_a_run_that_was_killed() {
        let directory = std::env::temp_dir().join(format!("godwit-pool-{}", std::process::id()));
        let (pool, notes) = (directory.join("pool"), directory.join("notes"));
        fs::create_dir_all(&notes).unwrap();
        fs::write(&pool, "5\n").unwrap();
        let now = || pages(&pool).unwrap();
        let first = HugePages::add_to(&pool, &notes, 64);
        // Beside one that lives.
        let second = HugePages::add_to(&pool, &notes, 10);
        assert_eq!(now(), 79);
        drop(second);
        assert_eq!(now(), 69);
        // As a kill leaves it: the kernel closes its files, and nobody takes anything out.
        let HugePages { note, .. } = &first;
        note.as_ref().unwrap().1.unlock().unwrap();
        std::mem::forget(first);
        drop(HugePages::add_to(&pool, &notes, 1));
        assert_eq!(now(), 5);
        assert_eq!(fs::read_dir(&notes).unwrap().count(), 0);
        fs::remove_dir_all(&directory).unwrap();
    }
}
