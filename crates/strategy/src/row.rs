//! What a strategy is: a row of steps.

use alloc::borrow::Cow;

/// When a step happens, in the order of time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Phase {
    /// The process still runs at the source.
    Preparation,
    /// The process runs nowhere.
    Down,
    /// The process runs at the destination.
    PostProcessing,
}

/// Which pages a step is about. "Held" means that the destination holds some version of the page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Set {
    /// Every page of the process.
    All,
    /// Pages written since the last round took them, and pages never sent.
    DirtySinceRound,
    /// Of those, the ones that were not written during the last `n` rounds.
    Quiet(u32),
    /// Pages that differ from the file behind them, or have none.
    Modified,
    /// The current stack, code and heap page of every thread.
    Working,
    /// Pages that the destination holds in a version that is no longer true.
    Stale,
    /// Pages that the destination does not hold in their true version.
    Rest,
    /// No page: what lies unread in pipes, FIFOs and Unix sockets. Whoever touches one of these waits until it is there.
    Communication,
}

/// How little may be left when a step of rounds ends: whichever of these comes first. Nothing left is always enough.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Enough {
    /// So many pages.
    pub pages: u64,
    /// So many of a hundred pages.
    pub percent: u32,
    /// What leaves in so many nanoseconds, as fast as pages have left so far.
    pub nanoseconds: u64,
}

impl Enough {
    /// So many pages.
    pub const fn pages(pages: u64) -> Enough {
        Enough { pages, percent: 0, nanoseconds: 0 }
    }
}

/// When a step is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Until {
    /// When the set has been sent once.
    Sent,
    /// When a round leaves so little in the set that it is enough, or after `rounds` rounds, or when what waits
    /// to be quiet never is.
    Limit {
        /// What is left at which another round is not worth it.
        enough: Enough,
        /// Rounds after which it ends in any case.
        rounds: u32,
    },
    /// Never: what is not asked for stays owed as long as the process lives.
    Never,
}

/// Who decides which page is next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// The sender, in its own order.
    Push,
    /// The sender, but a page that the process waits for goes first.
    FaultsFirst,
    /// The process: only what it asks for is sent.
    FaultsOnly,
}

/// Where the pages of a step come from (post-processing) or go through (before it).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// The source host itself.
    Source,
    /// A page store beside both hosts.
    Store,
}

/// One step of a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// When.
    pub phase: Phase,
    /// What.
    pub set: Set,
    /// How long.
    pub until: Until,
    /// Who leads.
    pub order: Order,
    /// From where.
    pub from: Origin,
}

impl Row {
    /// Whether pages stay behind when the process is handed over: something comes afterwards, and what comes in the down time is not
    /// everything that could be missing.
    pub fn leaves_pages_behind(&self) -> bool {
        let whole = |step: &Step| matches!(step.set, Set::All | Set::Modified | Set::Rest | Set::DirtySinceRound);
        let sends = |step: &&Step| step.phase == Phase::Down && step.from == Origin::Source;
        let sends_all = self.steps.iter().filter(sends).any(whole);
        let of_pages = |step: &Step| step.phase == Phase::PostProcessing && step.set != Set::Communication;
        self.steps.iter().any(of_pages) && !sends_all
    }

    /// Whether what lies unread in pipes, FIFOs and Unix sockets comes when the process runs.
    pub fn communicates_later(&self) -> bool {
        self.steps.iter().any(|step| step.set == Set::Communication)
    }

    /// Whether a page store takes part.
    pub fn needs_store(&self) -> bool {
        self.steps.iter().any(|step| step.from == Origin::Store)
    }

    /// Whether all that stays behind is in the page store before the process is handed over: the source is not needed afterwards.
    pub fn stores_before_handing_over(&self) -> bool {
        self.steps.iter().any(|step| step.phase < Phase::PostProcessing && step.from == Origin::Store)
    }

    /// Whether what is in the page store is fetched without being asked for, so that nothing stays there.
    pub fn empties_store(&self) -> bool {
        self.needs_store() && !self.steps.iter().any(|step| step.from == Origin::Store && step.until == Until::Never)
    }

    /// Whether such pages are sent without being asked for.
    pub fn pushes_what_is_left(&self) -> bool {
        let after = |step: &&Step| step.phase == Phase::PostProcessing && step.set != Set::Communication;
        self.steps.iter().filter(after).any(|step| step.order != Order::FaultsOnly)
    }

    /// Which of such pages the source sends to the destination without being asked for.
    pub fn pushed_sets(&self) -> impl Iterator<Item = Set> {
        let after = |step: &&Step| step.phase == Phase::PostProcessing && step.from == Origin::Source;
        let pages = |step: &&Step| step.order != Order::FaultsOnly && step.set != Set::Communication;
        self.steps.iter().filter(after).filter(pages).map(|step| step.set)
    }

    /// Whether all of them are.
    pub fn pushes_everything(&self) -> bool {
        self.pushed_sets().any(|set| matches!(set, Set::All | Set::Modified | Set::Rest | Set::DirtySinceRound))
    }

    /// Whether it has a preparation whose pages, as far as they are still true, need not come again.
    pub fn builds_on_preparation(&self) -> bool {
        let again = |step: &Step| step.phase != Phase::Preparation && matches!(step.set, Set::All | Set::Modified);
        self.steps.iter().any(|step| step.phase == Phase::Preparation) && !self.steps.iter().any(again)
    }
}

impl Step {
    /// A step in which the sender leads and pages come from the source itself.
    pub const fn push(phase: Phase, set: Set, until: Until) -> Step {
        Step { phase, set, until, order: Order::Push, from: Origin::Source }
    }
}

/// One strategy. Steps are in the order of time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// The name by which a user asks for it.
    pub name: Cow<'static, str>,
    /// What is done, in order.
    pub steps: Cow<'static, [Step]>,
    /// Systems that moved processes this way.
    pub seen_in: Cow<'static, str>,
    /// When it wins and what it costs, in a sentence or two.
    pub about: Cow<'static, str>,
}

impl Row {
    /// Whether nothing is left to be sent when the process goes on.
    pub fn ends_down(&self) -> bool {
        self.steps.iter().all(|step| step.phase != Phase::PostProcessing)
    }
}
