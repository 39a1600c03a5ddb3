//! When what happened: the one record from which log line, table, metrics and bench derive.
//!
//! Filled by the machine from the `now` of its caller. The source's is the one to show: it sees request and resumption by one clock
//! (the resumption when it hears of it, so its down time is an upper bound).

use godwit_deterministic::{Duration, Instant};

/// Instants of one side's clock; `None` for what has not happened, or not on this side.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Timeline {
    /// The hand-off was begun.
    pub requested: Option<Instant>,
    /// The destination accepted: pages may move while the process still runs.
    pub agreed: Option<Instant>,
    /// The freeze was asked for: the process is down from here on.
    pub freezing: Option<Instant>,
    /// Every task is stopped.
    pub frozen: Option<Instant>,
    /// The state was taken.
    pub captured: Option<Instant>,
    /// Everything was sent (source) or announced as sent (destination).
    pub all_sent: Option<Instant>,
    /// The destination can resume it.
    pub ready: Option<Instant>,
    /// The commit left (source) or arrived (destination).
    pub committed: Option<Instant>,
    /// It runs at the destination.
    pub resumed: Option<Instant>,
    /// It runs at the source again.
    pub thawed: Option<Instant>,
    /// Nothing is left at the source.
    pub finished: Option<Instant>,
}

impl Timeline {
    fn between(from: Option<Instant>, to: Option<Instant>) -> Option<Duration> {
        Some(to?.since(from?))
    }

    /// Pages moved while the process still ran at the source.
    pub fn preparation(&self) -> Option<Duration> {
        Timeline::between(self.agreed, self.freezing)
    }

    /// The process ran nowhere; after a roll-back, until it ran at the source again.
    pub fn down(&self) -> Option<Duration> {
        Timeline::between(self.freezing, self.resumed.or(self.thawed))
    }

    /// The process ran at the destination while the rest still arrived or was cleared away.
    pub fn post_processing(&self) -> Option<Duration> {
        Timeline::between(self.resumed, self.finished)
    }

    /// Initial migration time: from the request to the resumption at the destination.
    pub fn initial(&self) -> Option<Duration> {
        Timeline::between(self.requested, self.resumed)
    }

    /// Total migration time: from the request until nothing is left at the source.
    pub fn total(&self) -> Option<Duration> {
        Timeline::between(self.requested, self.resumed.and(self.finished))
    }
}
