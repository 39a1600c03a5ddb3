//! The paths: every way in which a process comes to go on, each a row of calls of the `godwit` binary.
//!
//! # What is asked of `godwit`
//! `checkpoint PID DIR [--leave-running]`, `restore DIR --detach` (says the root's id), `receive --listen ADDR --once`,
//! `migrate PID tcp://ADDR`, `recover`. For the paths with a fault: `--observe die:MOMENT` kills the engine of that side at
//! a moment of the hand-off, `--observe pause:MOMENT` stops it there until it gets SIGCONT.

use std::fmt;

/// When a page store goes away, and whether it comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StoreFault {
    /// For good, while the process is down.
    GoneBefore,
    /// For two seconds, while the process is down.
    BackBefore,
    /// For two seconds, while the process runs at the destination and its memory is in the store.
    BackAfter,
    /// For good, while the process runs at the destination and its memory is on its way to the store.
    GoneAfter,
}

/// One way in which a process comes to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Path {
    /// Frozen and thawed in its place: a checkpoint whose disk is full, so that everything is rolled back.
    Thaw,
    /// A checkpoint that leaves it running.
    CheckpointLeaveRunning,
    /// Checkpoint, then restore on the same host.
    RestoreInPlace,
    /// Checkpoint, then restore on the other host.
    RestoreElsewhere,
    /// One migration.
    Migrate,
    /// One migration whose memory moves in rounds while the process runs.
    PreCopy,
    /// The same with a queue for pages that are written again and again.
    QueuedPreCopy,
    /// Memory in rounds, all of it packed.
    Packed,
    /// One migration after which the memory comes.
    PostCopy,
    /// One migration whose memory goes to a page store while the process is down, and comes from there.
    Flushing,
    /// One migration after which the memory goes to a page store.
    FreezeFree,
    /// One migration before which all memory comes once, and after which what was written meanwhile does.
    AssistedPostCopy,
    /// One migration after which only the memory comes that is asked for.
    OnReference,
    /// The same, and then all of it is fetched.
    Settled,
    /// The same, but the user ends the command that owes it.
    Interrupted,
    /// One migration in which what no file has comes, and the rest when it is asked for.
    EagerDirty,
    /// One migration by the strategy that godwit thinks best.
    Auto,
    /// To the other host and back.
    ThereAndBack,
    /// Ten migrations in a row, to and fro.
    TenMoves,
    /// One migration to a host where the ids of the tree are in use: it lives in a PID namespace of its own there.
    NumbersInUse,
    /// The destination's engine is killed at a moment of the hand-off.
    DestinationKilledAt(&'static str),
    /// The source's engine is killed at a moment of the hand-off.
    SourceKilledAt(&'static str),
    /// The link is cut at a moment of the source, and heals after some seconds.
    LinkCutAt(&'static str),
    /// The page store is killed.
    StoreLost(StoreFault),
    /// The destination's engine is killed while pages are owed, or just before or after.
    OwingDestinationKilledAt(&'static str),
    /// The source's engine is.
    OwingSourceKilledAt(&'static str),
    /// The link is cut then, and heals after some seconds.
    OwingLinkCutAt(&'static str),
}

/// What the source comes through, in this order, as its driver names it.
#[rustfmt::skip]
const SOURCE_MOMENTS: [&str; 24] = [
    "sent Hello", "received HelloAnswer", "sent Offer", "received Accept",
    "before note \"started\" in the journal", "after note \"started\" in the journal", "before freeze", "after freeze",
    "before capture", "after capture", "before send", "after send", "sent AllSent", "received Ready", "before hold stopped",
    "after hold stopped", "before note \"commit sent\" in the journal", "after note \"commit sent\" in the journal",
    "sent Commit", "received Resumed", "after note \"committed\" in the journal", "after kill",
    "before note \"done\" in the journal", "sent Goodbye",
];

/// What a source comes through that owes pages, from the commit on.
const OWING_SOURCE_MOMENTS: [&str; 8] = [
    "sent Commit",
    "received Owing",
    "before note \"serving\" in the journal",
    "after note \"serving\" in the journal",
    "before serve pages",
    "after serve pages",
    "received AllHeld",
    "after kill",
];

/// What a destination comes through that is owed pages, from the commit on.
const OWING_DESTINATION_MOMENTS: [&str; 8] = [
    "received Commit",
    "before resume",
    "sent Owing",
    "after resume",
    "before fetch pages",
    "before note \"resumed\" in the journal",
    "after note \"resumed\" in the journal",
    "sent AllHeld",
];

/// What the destination comes through, in this order.
#[rustfmt::skip]
const DESTINATION_MOMENTS: [&str; 22] = [
    "received Hello", "sent HelloAnswer", "received Offer", "after examine",
    "before note \"accepted\" in the journal", "after note \"accepted\" in the journal", "sent Accept", "received AllSent",
    "before build", "after build", "before hold stopped", "sent Ready", "after hold stopped", "received Commit",
    "before note \"committed\" in the journal", "after note \"committed\" in the journal", "before resume", "sent Resumed",
    "after resume", "before note \"resumed\" in the journal", "after note \"resumed\" in the journal", "received Goodbye",
];

impl Path {
    /// Those without a fault: each is for every workload.
    pub const PLAIN: [Self; 20] = [
        Self::Thaw,
        Self::CheckpointLeaveRunning,
        Self::RestoreInPlace,
        Self::RestoreElsewhere,
        Self::Migrate,
        Self::PreCopy,
        Self::QueuedPreCopy,
        Self::Packed,
        Self::PostCopy,
        Self::Flushing,
        Self::FreezeFree,
        Self::AssistedPostCopy,
        Self::OnReference,
        Self::Settled,
        Self::Interrupted,
        Self::EagerDirty,
        Self::Auto,
        Self::ThereAndBack,
        Self::TenMoves,
        Self::NumbersInUse,
    ];

    /// One migration by each strategy.
    pub const STRATEGIES: [Self; 10] = [
        Self::Migrate,
        Self::PreCopy,
        Self::QueuedPreCopy,
        Self::PostCopy,
        Self::AssistedPostCopy,
        Self::OnReference,
        Self::EagerDirty,
        Self::Flushing,
        Self::FreezeFree,
        Self::Auto,
    ];

    /// Those with a fault at each moment: many, so for few workloads.
    #[must_use]
    pub fn faulty() -> Vec<Self> {
        let mut paths: Vec<Self> = DESTINATION_MOMENTS.into_iter().map(Self::DestinationKilledAt).collect();
        paths.extend(SOURCE_MOMENTS.into_iter().map(Self::SourceKilledAt));
        paths.extend(SOURCE_MOMENTS.into_iter().map(Self::LinkCutAt));
        paths
    }

    /// Those with a fault of the page store: for workloads that have enough memory to leave any behind.
    pub const STORE_LOST: [Self; 4] = [
        Self::StoreLost(StoreFault::GoneBefore),
        Self::StoreLost(StoreFault::BackBefore),
        Self::StoreLost(StoreFault::BackAfter),
        Self::StoreLost(StoreFault::GoneAfter),
    ];

    /// Those with a fault while pages are owed: for workloads that have enough memory to be owed any.
    #[must_use]
    pub fn owing() -> Vec<Self> {
        let mut paths: Vec<Self> = OWING_DESTINATION_MOMENTS.into_iter().map(Self::OwingDestinationKilledAt).collect();
        paths.extend(OWING_SOURCE_MOMENTS.into_iter().map(Self::OwingSourceKilledAt));
        paths.extend(OWING_SOURCE_MOMENTS.into_iter().map(Self::OwingLinkCutAt));
        paths
    }

    /// The path without its moment, in one word: what the command line and the table call it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Thaw => "thaw",
            Self::CheckpointLeaveRunning => "checkpoint",
            Self::RestoreInPlace => "restore",
            Self::RestoreElsewhere => "restore-elsewhere",
            Self::Migrate => "migrate",
            Self::PreCopy => "migrate-pre-copy",
            Self::QueuedPreCopy => "migrate-queued",
            Self::Packed => "migrate-packed",
            Self::PostCopy => "migrate-post-copy",
            Self::Flushing => "migrate-flushing",
            Self::FreezeFree => "migrate-freeze-free",
            Self::AssistedPostCopy => "migrate-assisted",
            Self::OnReference => "migrate-on-reference",
            Self::Settled => "migrate-settled",
            Self::Interrupted => "migrate-interrupted",
            Self::EagerDirty => "migrate-eager-dirty",
            Self::Auto => "migrate-auto",
            Self::ThereAndBack => "there-and-back",
            Self::TenMoves => "ten-moves",
            Self::NumbersInUse => "numbers-in-use",
            Self::DestinationKilledAt(_) => "destination-killed",
            Self::SourceKilledAt(_) => "source-killed",
            Self::LinkCutAt(_) => "link-cut",
            Self::StoreLost(StoreFault::GoneBefore) => "store-gone-before",
            Self::StoreLost(StoreFault::BackBefore) => "store-back-before",
            Self::StoreLost(StoreFault::BackAfter) => "store-back-after",
            Self::StoreLost(StoreFault::GoneAfter) => "store-gone-after",
            Self::OwingDestinationKilledAt(_) => "owing-destination-killed",
            Self::OwingSourceKilledAt(_) => "owing-source-killed",
            Self::OwingLinkCutAt(_) => "owing-link-cut",
        }
    }

    /// How memory moves, where that is not as ever.
    #[must_use]
    pub fn strategy(self) -> Option<&'static str> {
        match self {
            Self::PreCopy | Self::Packed => Some("pre-copy"),
            Self::QueuedPreCopy => Some("queued-pre-copy"),
            Self::PostCopy => Some("post-copy"),
            Self::Flushing => Some("flushing"),
            Self::FreezeFree => Some("freeze-free"),
            Self::AssistedPostCopy => Some("assisted-post-copy"),
            Self::OnReference => Some("copy-on-reference"),
            Self::EagerDirty => Some("eager-dirty"),
            Self::Auto => Some("auto"),
            _ => None,
        }
    }

    /// Whether a page store takes part.
    #[must_use]
    pub fn stores(self) -> bool {
        matches!(self, Self::Flushing | Self::FreezeFree)
    }

    /// Whether it needs the commands `migrate` and `receive`.
    #[must_use]
    pub fn migrates(self) -> bool {
        !matches!(self, Self::Thaw | Self::CheckpointLeaveRunning | Self::RestoreInPlace | Self::RestoreElsewhere)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DestinationKilledAt(moment)
            | Self::SourceKilledAt(moment)
            | Self::LinkCutAt(moment)
            | Self::OwingDestinationKilledAt(moment)
            | Self::OwingSourceKilledAt(moment)
            | Self::OwingLinkCutAt(moment) => {
                write!(formatter, "{} {moment}", self.word())
            }
            _ => formatter.write_str(self.word()),
        }
    }
}
