//! Hosts that outlive their maker: those of killed runs are ended at the next start, those kept on purpose can be found.
//!
//! A host ends with its maker by itself (a pipe tells it); this is for what stood in the way of that, and for kept hosts.
//! State: one file per pair below `/run/godwit-testbed/NAMESPACE`, lines of `maker|kept|host ID START`, where START is the start
//! time of the process from `/proc/ID/stat`, so that a later process with the same id is never taken for it. NAMESPACE is the
//! PID namespace that the ids are of: runs in different ones share `/run` and know nothing of each other's processes, and
//! one that has ended took its hosts with it.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use godwit_linux::pidfd::PidFd;

use crate::error::{Doing, Error};

const DIRECTORY: &str = "/run/godwit-testbed";
const NAMESPACE: &str = "/proc/self/ns/pid";
const SIGKILL: i32 = 9;
/// How often a record is begun anew when its directory goes away meanwhile.
const ATTEMPTS: u32 = 100;

/// The record of one pair of hosts.
#[derive(Debug)]
pub(crate) struct Record {
    path: PathBuf,
}

impl Record {
    /// Begins a record for a pair that this process makes.
    pub(crate) fn new() -> Result<Self, Error> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory = directory()?;
        let record = Self { path: directory.join(format!("{}-{number}", process::id())) };
        // Who removes the last record removes the directory, maybe just now.
        for patience in (0..ATTEMPTS).rev() {
            fs::create_dir_all(&directory).doing(format!("make {}", directory.display()))?;
            match fs::write(&record.path, "") {
                Err(error) if error.kind() == io::ErrorKind::NotFound && patience > 0 => {}
                written => {
                    written.doing("write the record of a pair of hosts")?;
                    break;
                }
            }
        }
        record.add("maker", process::id())?;
        Ok(record)
    }

    /// Notes the first process of a host.
    pub(crate) fn add_host(&self, init: u32) -> Result<(), Error> {
        self.add("host", init)
    }

    /// Notes that the hosts are to stand after their maker has ended.
    pub(crate) fn keep(&self) -> Result<(), Error> {
        self.add("kept", process::id())
    }

    /// The pair is gone.
    pub(crate) fn remove(&self) {
        let _ = fs::remove_file(&self.path);
        if let Some(directory) = self.path.parent() {
            let _ = fs::remove_dir(directory);
        }
    }

    fn add(&self, word: &str, id: u32) -> Result<(), Error> {
        let line = format!("{word} {id} {}\n", start_time(id).unwrap_or_default());
        let file = fs::OpenOptions::new().append(true).open(&self.path);
        file.and_then(|mut file| file.write_all(line.as_bytes())).doing("write the record of a pair of hosts")
    }
}

/// Ends the hosts of makers that have ended, but not kept ones. Returns how many first processes it had to end.
///
/// # Errors
/// Where the records cannot be listed.
pub fn sweep() -> Result<usize, Error> {
    end_hosts(|lines| !lines.iter().any(|line| line.word == "kept"))
}

/// Ends also the hosts that were kept on purpose. Returns how many first processes it ended.
///
/// # Errors
/// Where the records cannot be listed.
pub fn remove_kept() -> Result<usize, Error> {
    end_hosts(|_| true)
}

fn end_hosts(wanted: impl Fn(&[Line]) -> bool) -> Result<usize, Error> {
    let directory = directory()?;
    let entries = match fs::read_dir(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        other => other.doing(format!("list {}", directory.display()))?,
    };
    let mut ended = 0;
    for path in entries.flatten().map(|entry| entry.path()) {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let lines: Vec<Line> = text.lines().filter_map(Line::parse).collect();
        // An empty record is being begun by another process.
        if lines.is_empty() || lines.iter().any(|line| line.word == "maker" && line.lives()) || !wanted(&lines) {
            continue;
        }
        for host in lines.iter().filter(|line| line.word == "host") {
            ended += usize::from(host.end());
        }
        let _ = fs::remove_file(&path);
    }
    // Fails as long as there are others.
    let _ = fs::remove_dir(&directory);
    Ok(ended)
}

/// The records of this PID namespace.
fn directory() -> Result<PathBuf, Error> {
    let namespace = fs::metadata(NAMESPACE).doing(format!("ask for {NAMESPACE}"))?;
    Ok(Path::new(DIRECTORY).join(format!("pid-{}", namespace.ino())))
}

/// A name for what this process makes in a directory that runs in other PID namespaces share: its number is theirs, too.
#[must_use]
pub fn process_name() -> String {
    let namespace = fs::metadata(NAMESPACE).map_or(0, |namespace| namespace.ino());
    format!("{}-{namespace}", process::id())
}

struct Line {
    word: String,
    id: u32,
    start: u64,
}

impl Line {
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let word = words.next()?.to_owned();
        Some(Self { word, id: words.next()?.parse().ok()?, start: words.next()?.parse().ok()? })
    }

    fn lives(&self) -> bool {
        start_time(self.id) == Some(self.start)
    }

    /// The handle is opened before the start time is compared, so the process that is ended is the one that was compared.
    fn end(&self) -> bool {
        let Ok(handle) = PidFd::open(self.id.cast_signed()) else { return false };
        self.lives() && handle.send_signal(SIGKILL).is_ok()
    }
}

/// Start time of a process in clock ticks since boot: field 22 of `/proc/ID/stat`; none where there is no such process.
fn start_time(id: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The program's name, in parentheses, may hold anything.
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_means_only_the_process_that_it_was_written_for() {
        let start = start_time(process::id()).unwrap();
        assert!(Line::parse(&format!("maker {} {start}", process::id())).unwrap().lives());
        assert!(!Line::parse(&format!("maker {} {}", process::id(), start + 1)).unwrap().lives());
        assert!(Line::parse("maker 12").is_none());
    }
}
