//! What a receiving side is told before, and tells after.
use crate::journal;
use godwit_handoff::Patience;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::path::PathBuf;

/// How to receive.
#[derive(Clone, Debug)]
pub struct Options {
    /// Time-outs.
    pub patience: Patience,
    /// Where the journal is.
    pub run_directory: PathBuf,
    /// Stay parent of the tree and tell the root's exit status; otherwise the tree is left to init.
    pub wait: bool,
    /// Take no tree: only answer questions about earlier migrations.
    pub answer_only: bool,
    /// Whether a second process stands by to finish what a killed engine leaves.
    pub guardian: bool,
    /// For tests: further arguments of the shepherd, see [`crate::entry`].
    pub shepherd_arguments: Vec<OsString>,
    /// Among which processes the tree is to live.
    pub setting: Setting,
    /// The /proc of those who look from the host.
    pub processes: PathBuf,
}

/// Among which processes a tree lives at the destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Setting {
    /// Beside the host's own where its numbers are free, else in a PID namespace made for it, with its own /proc.
    #[default]
    WhereItFits,
    /// Beside the host's own, or not at all.
    Beside,
    /// We are inside a namespace made for it.
    Inside,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            patience: Patience::default(),
            run_directory: journal::run_directory(),
            wait: false,
            answer_only: false,
            guardian: true,
            shepherd_arguments: Vec::new(),
            setting: Setting::default(),
            processes: PathBuf::from(journal::PROCESSES),
        }
    }
}

/// What became of a connection that was received.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Received {
    /// `moved` (the tree runs here), `checked` (a dry run), `answered` (a question about an earlier migration).
    pub outcome: String,
    /// Number of the root process here; 0 where none came.
    pub pid: i32,
    /// Name of the source host.
    pub source: String,
    /// Processes of the tree.
    pub processes: u64,
    /// Pages that came, those named as zero included.
    pub pages: u64,
    /// How often a process waited for a page that came after the resumption.
    #[serde(default)]
    pub faults: u64,
    /// The tree is ours, and the source has said that it knows: nobody will ask any more.
    #[serde(default)]
    pub acknowledged: bool,
    /// Exit status of the root if it was waited for: as wait(2) gives it.
    pub status: Option<i32>,
}

/// Waits for the end of the root, our child; its wait status.
pub(crate) fn wait_for_end(root: i32) -> Option<i32> {
    loop {
        match godwit_linux::ptrace::wait(root) {
            Ok(godwit_linux::ptrace::Event::Ended(status)) => return Some(status),
            Ok(_) => {}
            Err(_) => return None,
        }
    }
}
