//! What the kernel says about tasks and about the host in /proc: one file per /proc file, each a pure `parse` that
//! never panics, whatever it is given, and a thin `read`. Paths start at this mount namespace's own /proc, so PIDs are
//! those of the PID namespace that /proc was mounted in.

pub mod auxv;
pub mod cgroup;
pub mod children;
pub mod cmdline;
pub mod comm;
pub mod cpuinfo;
pub mod directory;
pub mod environ;
pub mod fdinfo;
pub mod id_map;
pub mod limits;
pub mod link;
pub mod locks;
pub mod maps;
pub mod meminfo;
pub mod mountinfo;
pub mod oom_score_adj;
pub mod personality;
mod repetition;
pub mod smaps;
pub mod smaps_rollup;
pub mod stat;
pub mod status;
pub mod sys;
pub mod syscall;
pub mod sysvipc;
pub mod timens_offsets;
pub mod timers;
pub mod timerslack;
pub mod uptime;

mod cursor;
#[cfg(test)]
mod mutation;

use std::cell::Cell;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};

/// A /proc file whose text is not what the kernel is known to print.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Name of the file as in proc(5), such as `maps`.
    pub file: &'static str,
    /// Line, from 1; 0 when the whole file is meant.
    pub line: usize,
    /// What was expected and not found.
    pub why: &'static str,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "/proc file {}: {}", self.file, self.why),
            line => write!(f, "/proc file {}, line {line}: {}", self.file, self.why),
        }
    }
}

impl std::error::Error for Malformed {}

/// Why a /proc file could not be read.
#[derive(Debug)]
pub enum Error {
    /// The process or thread does not exist (any more), or has no address space where the file is about one.
    Gone,
    /// The kernel refused. Its `kind` is the kernel's, its text names the path. `NotFound` here means that the process
    /// is there but not the file: a descriptor that was closed, or a kernel built without it.
    Io(io::Error),
    /// The text was not understood.
    Malformed(Malformed),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Gone => f.write_str("the process does not exist any more"),
            Error::Io(error) => error.fmt(f),
            Error::Malformed(malformed) => malformed.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Gone => None,
            Error::Io(error) => Some(error),
            Error::Malformed(malformed) => Some(malformed),
        }
    }
}

impl From<Malformed> for Error {
    fn from(malformed: Malformed) -> Error {
        Error::Malformed(malformed)
    }
}

/// A kernel error together with the path that it was about.
#[derive(Debug)]
struct AtPath {
    path: String,
    error: io::Error,
}

impl fmt::Display for AtPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.error)
    }
}

impl std::error::Error for AtPath {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// Whose file is read: decides what "no such file" means.
#[derive(Clone, Copy)]
enum Subject {
    Process(i32),
    Task(i32, i32),
    Host,
}

impl Subject {
    fn path(self, name: impl fmt::Display) -> String {
        match self {
            Subject::Process(pid) => format!("/proc/{pid}/{name}"),
            Subject::Task(pid, tid) => format!("/proc/{pid}/task/{tid}/{name}"),
            Subject::Host => format!("/proc/{name}"),
        }
    }

    fn open(self, path: &str) -> Result<File, Error> {
        File::open(path).map_err(|error| self.error(path, error))
    }

    /// The error for a failed call on `path`.
    fn error(self, path: &str, error: io::Error) -> Error {
        let gone = match (self, error.raw_os_error()) {
            (Subject::Host, _) => false,
            (_, Some(libc::ESRCH)) => true,
            (_, Some(libc::ENOENT)) => {
                let home = self.path("");
                matches!(std::fs::symlink_metadata(home), Err(error) if error.kind() == io::ErrorKind::NotFound)
            }
            _ => false,
        };
        if gone {
            Error::Gone
        } else {
            Error::Io(io::Error::new(error.kind(), AtPath { path: path.to_owned(), error }))
        }
    }
}

/// The first piece of a file is asked for with this size; most files end in it.
const FIRST_PIECE: usize = 16 << 10;
/// A buffer that grew beyond this is not kept for the next file.
const KEPT: usize = 1 << 20;

thread_local! {
    // 1,000 threads × status must not mean 1,000 allocations and clearings of a buffer.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Fills `buffer` (its old content is overwritten) from a file and returns the length: one `read` per piece, no `fstat`.
fn fill(file: &mut File, buffer: &mut Vec<u8>) -> io::Result<usize> {
    let mut length = 0;
    loop {
        if length == buffer.len() {
            buffer.resize((buffer.len() * 2).max(FIRST_PIECE), 0);
        }
        match file.read(&mut buffer[length..]) {
            Ok(0) => return Ok(length),
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn read_file<T>(
    subject: Subject,
    name: impl fmt::Display,
    parse: impl FnOnce(&[u8]) -> Result<T, Malformed>,
) -> Result<T, Error> {
    let path = subject.path(name);
    let mut file = subject.open(&path)?;
    let mut buffer = BUFFER.take();
    let result = match fill(&mut file, &mut buffer) {
        Ok(length) => parse(&buffer[..length]).map_err(Error::Malformed),
        Err(error) => Err(subject.error(&path, error)),
    };
    if buffer.len() <= KEPT {
        BUFFER.set(buffer);
    }
    result
}

/// The bytes of a small file of /proc by its path: no look at its size, which is 0 there, and no growing in small steps.
///
/// # Errors
/// As open(2) and read(2).
pub fn whole(path: &str) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut buffer = BUFFER.take();
    let result = fill(&mut file, &mut buffer).map(|length| buffer[..length].to_vec());
    if buffer.len() <= KEPT {
        BUFFER.set(buffer);
    }
    result
}

/// Reads and parses /proc/PID/NAME.
fn read_process<T>(
    pid: i32,
    name: impl fmt::Display,
    parse: impl FnOnce(&[u8]) -> Result<T, Malformed>,
) -> Result<T, Error> {
    read_file(Subject::Process(pid), name, parse)
}

/// Reads and parses /proc/PID/task/TID/NAME.
fn read_task<T>(
    pid: i32,
    tid: i32,
    name: impl fmt::Display,
    parse: impl FnOnce(&[u8]) -> Result<T, Malformed>,
) -> Result<T, Error> {
    read_file(Subject::Task(pid, tid), name, parse)
}

/// Reads and parses /proc/NAME, which is about no process.
fn read_host<T>(name: impl fmt::Display, parse: impl FnOnce(&[u8]) -> Result<T, Malformed>) -> Result<T, Error> {
    read_file(Subject::Host, name, parse)
}
