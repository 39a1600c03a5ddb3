//! What the user wants of a migration.
use crate::journal;
pub use crate::packing::Compression;
use crate::report::Observer;
use godwit_engine::{capture, check};
use godwit_handoff::Patience;
use godwit_handoff::bucket::Rate;
use godwit_image::{Code, Refusal, Subject};
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// The strategy that is none: one of the table is chosen.
pub const AUTO: &str = "auto";

/// How to move.
pub struct Options {
    /// Decisions about edges of the tree.
    pub capture: capture::Options,
    /// Name of a row of the strategy table, or a row, or [`AUTO`].
    pub strategy: String,
    /// What a strategy is chosen for where its name is [`AUTO`].
    pub objective: godwit_strategy::Objective,
    /// What of that row is to be otherwise.
    pub knobs: godwit_strategy::Knobs,
    /// The page store, for a strategy that needs one: `tcp://HOST:PORT`, or a directory that both hosts see.
    pub pages: Option<String>,
    /// Time-outs.
    pub patience: Patience,
    /// The tree as `check` has seen it, so that it is not looked at twice.
    pub examination: Option<check::Examination>,
    /// Processor features that the tree does not use, whatever the source has: the destination may lack them.
    pub unused_processor_flags: BTreeSet<String>,
    /// Only ask whether the destination would take it.
    pub dry_run: bool,
    /// For ssh: the program at the destination.
    pub remote_program: Option<PathBuf>,
    /// Readable when the user wants it to end (see [`crate::cancellation`]); never read.
    pub cancel: Option<OwnedFd>,
    /// Where the journal is.
    pub run_directory: PathBuf,
    /// How fast bytes may leave at most.
    pub bandwidth: Option<Rate>,
    /// Whether pages are packed on their way.
    pub compression: Compression,
    /// Whether pages carry checksums of their own, besides those of what carries them. Then somebody has to read them on their way.
    pub page_checksums: bool,
    /// Whether a second process stands by to finish what a killed engine leaves.
    pub guardian: bool,
    /// For tests: called at every step.
    pub observer: Option<Observer>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            capture: capture::Options::default(),
            strategy: "total-copy".to_owned(),
            objective: godwit_strategy::Objective::DownTime,
            knobs: godwit_strategy::Knobs::default(),
            pages: None,
            patience: Patience::default(),
            examination: None,
            unused_processor_flags: BTreeSet::new(),
            dry_run: false,
            remote_program: None,
            cancel: None,
            run_directory: journal::run_directory(),
            bandwidth: None,
            compression: Compression::default(),
            page_checksums: false,
            guardian: true,
            observer: None,
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("strategy", &self.strategy)
            .field("dry_run", &self.dry_run)
            .finish_non_exhaustive()
    }
}

/// A tree that arrives has no restorer with descriptors of the user's to take over.
pub(crate) fn nothing_to_inherit(edge: &capture::Decision) -> Refusal {
    let name = edge.name();
    let cause = "at a destination there is nothing to inherit: its receiver has no terminal and no files of yours";
    Refusal::new(Code::EDGE, Subject::Object(format!("--edge {name}=inherit")), cause)
        .choice(format!("--edge {name}=file:PATH, =null or =close"))
        .choice("godwit checkpoint with this choice, and godwit restore in the terminal that it is to have")
}
