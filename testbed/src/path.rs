//! The paths: every way in which a process comes to go on, each a row of calls of the `godwit` binary.
//!
//! # What is asked of `godwit`
//! `checkpoint PID DIR [--leave-running]`, `restore DIR --detach` (says the root's id), `receive --listen ADDR --once`,
//! `migrate PID tcp://ADDR`. For the paths with a fault: with `GODWIT_STOP_AT=MOMENT` in its environment, a process of
//! godwit stops itself by SIGSTOP when it comes to that moment (as the drivers name them: `before freeze`,
//! `after build`), so that a test can kill it or cut the link exactly there.

use std::fmt;

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
    /// To the other host and back.
    ThereAndBack,
    /// Ten migrations in a row, to and fro.
    TenMoves,
    /// The destination's engine is killed at a moment of the hand-off.
    DestinationKilledAt(&'static str),
    /// The source's engine is killed at a moment of the hand-off.
    SourceKilledAt(&'static str),
    /// The link is cut at a moment of the source, and heals after some seconds.
    LinkCutAt(&'static str),
}

/// What the source does, in this order.
const SOURCE_MOMENTS: [&str; 8] = [
    "before freeze",
    "before capture",
    "before send",
    "before finish sending",
    "before hold stopped",
    "after hold stopped",
    "before kill",
    "after kill",
];

/// What the destination does, in this order.
const DESTINATION_MOMENTS: [&str; 7] = [
    "before examine",
    "before receive",
    "before build",
    "before hold stopped",
    "after hold stopped",
    "before resume",
    "after resume",
];

impl Path {
    /// Those without a fault: each is for every workload.
    pub const PLAIN: [Self; 7] = [
        Self::Thaw,
        Self::CheckpointLeaveRunning,
        Self::RestoreInPlace,
        Self::RestoreElsewhere,
        Self::Migrate,
        Self::ThereAndBack,
        Self::TenMoves,
    ];

    /// Those with a fault at each moment: many, so for few workloads.
    #[must_use]
    pub fn faulty() -> Vec<Self> {
        let mut paths: Vec<Self> = DESTINATION_MOMENTS.into_iter().map(Self::DestinationKilledAt).collect();
        paths.extend(SOURCE_MOMENTS.into_iter().map(Self::SourceKilledAt));
        paths.extend(SOURCE_MOMENTS.into_iter().map(Self::LinkCutAt));
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
            Self::ThereAndBack => "there-and-back",
            Self::TenMoves => "ten-moves",
            Self::DestinationKilledAt(_) => "destination-killed",
            Self::SourceKilledAt(_) => "source-killed",
            Self::LinkCutAt(_) => "link-cut",
        }
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
            Self::DestinationKilledAt(moment) | Self::SourceKilledAt(moment) | Self::LinkCutAt(moment) => {
                write!(formatter, "{} {moment}", self.word())
            }
            _ => formatter.write_str(self.word()),
        }
    }
}
