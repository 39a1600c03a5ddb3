//! Errors that a person reads: a stable code, the subject, the cause, the choices. They travel between hosts.
use crate::code::Code;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use serde::{Deserialize, Serialize};

/// What a refusal or verdict is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Subject {
    /// This host, the other host, or the link between them.
    Host,
    /// A process by its number.
    Process(i32),
    /// A thread: process number, thread number.
    Thread(i32, i32),
    /// A descriptor of a process: process number, descriptor number, what it refers to.
    Descriptor(i32, i32, String),
    /// A mapping of a process: process number, first address, what is mapped.
    Mapping(i32, u64, String),
    /// A path in the file system.
    Path(String),
    /// Any other named object.
    Object(String),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Host => write!(f, "host"),
            Subject::Process(pid) => write!(f, "process {pid}"),
            Subject::Thread(pid, tid) => write!(f, "thread {tid} of process {pid}"),
            Subject::Descriptor(pid, fd, what) => write!(f, "descriptor {fd} of process {pid} ({what})"),
            Subject::Mapping(pid, start, what) => write!(f, "mapping {start:#x} of process {pid} ({what})"),
            Subject::Path(path) => write!(f, "{path}"),
            Subject::Object(name) => write!(f, "{name}"),
        }
    }
}

/// Why something was not done. `Display` gives one line; `godwit explain CODE` tells more about the code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Stable code.
    pub code: Code,
    /// What it is about.
    pub subject: Subject,
    /// The cause, in words.
    pub cause: String,
    /// What the user can do about this very case; the code's own remedy is added by the renderer.
    pub choices: Vec<String>,
    /// What was taken back, empty when nothing had been begun.
    pub rolled_back: String,
}

impl Refusal {
    /// A refusal without choices.
    pub fn new(code: Code, subject: Subject, cause: impl Into<String>) -> Refusal {
        Refusal { code, subject, cause: cause.into(), choices: Vec::new(), rolled_back: String::new() }
    }

    /// Adds one choice.
    #[must_use]
    pub fn choice(mut self, choice: impl Into<String>) -> Refusal {
        self.choices.push(choice.into());
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}: {}", self.code, self.code.title(), self.subject, self.cause)
    }
}

impl core::error::Error for Refusal {}

/// What `check` says of one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Its state travels exactly.
    Carried,
    /// It is made anew at the destination, equal in all that the process can see.
    Recreated(String),
    /// It goes on, but something differs; what, in words.
    Degraded(String),
    /// The move is refused.
    Blocks(Refusal),
    /// It shows only when the tree is frozen, which is before anything leaves; what, in words.
    Undecided(String),
}
