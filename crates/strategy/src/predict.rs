//! What a move would cost by each row: the row's own decisions, made about a process that is known only by a short sample.
//!
//! The rounds are those of [`decide_round`], played with numbers of pages instead of pages. What a sample cannot tell is left
//! out and said so in docs/evaluation.md: which pages a process reads, how busy the destination is.

use alloc::vec::Vec;

use crate::costs::Costs;
use crate::decide::{Decision, Left, Progress, decide_round};
use crate::row::{Order, Phase, Row, Set, Step};
use crate::validate::needs_tracking;

/// Bytes of a page.
const PAGE: f64 = 4096.0;
/// Rounds that are played at most: a user's row may allow as many as it likes.
const ROUNDS_MAX: u32 = 1000;
/// A process that gets pages only on demand is looked at for so long, ms; what it has not asked for by then is taken for never asked for.
pub const DEMAND_WINDOW_MS: f64 = 10_000.0;
/// Which part of its pages a process reads in that time that it does not write: nobody has seen them, and it reads some.
const READ_UNSEEN: f64 = 0.05;
/// So many waits have a long one among them.
const WAITS: f64 = 10.0;

/// What was found out about a process in a short time.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Profile {
    /// Pages of its own with contents.
    pub pages: u64,
    /// Pages of which nobody can tell whether they were written, and which are sent while it is down: shared ones.
    pub untracked_pages: u64,
    /// Pages that nobody can wait for, and which come in the down time whatever is owed: those of private mappings of files, and what the
    /// kernel writes for each thread.
    pub never_owed_pages: u64,
    /// Threads, descriptors and mappings of all processes.
    pub threads: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Mappings.
    pub mappings: u64,
    /// Which part of a page is left when it is packed; none: not known, it is taken to be all of it.
    pub packed_part: Option<f64>,
    /// Which part of a page has changed, packed, so many ms after it was sent, of pages that are written again and again; none: not known.
    pub changed: Option<(f64, f64)>,
    /// How many different pages it has written after how many ms, in the order of time.
    pub written: Vec<(f64, u64)>,
}

/// What was found out about a link.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct LinkProfile {
    /// What it carries.
    pub bytes_per_second: f64,
    /// From a request to its answer, ms.
    pub round_trip_ms: f64,
}

/// What one row would cost.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Prediction {
    /// Pages move while the process runs at the source, ms.
    pub preparation_ms: f64,
    /// It runs nowhere, ms.
    pub down_ms: f64,
    /// The longest time that it waits for one page after that, ms.
    pub wait_ms: f64,
    /// Until nothing is left at the source, ms; none: never by itself.
    pub post_ms: Option<f64>,
    /// In all, or until it runs at the destination where something stays behind for ever.
    pub total_ms: f64,
    /// By how much its work is late in the end.
    pub delay_ms: f64,
    /// Pages that go over the link, each time counted.
    pub transfers: u64,
}

/// What the user wants least of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Objective {
    /// Time in which the process runs nowhere, or waits for a page of its own.
    DownTime,
    /// Time until all is over.
    Total,
    /// Work that the process cannot do meanwhile.
    SlowDown,
    /// Time in which it needs both hosts, or neither has all of it.
    Independence,
}

/// All objectives and their names.
pub const OBJECTIVES: [(&str, Objective); 4] = [
    ("downtime", Objective::DownTime),
    ("total", Objective::Total),
    ("slowdown", Objective::SlowDown),
    ("independence", Objective::Independence),
];

impl Objective {
    /// The objective of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Objective> {
        OBJECTIVES.iter().find(|(word, _)| *word == name).map(|(_, objective)| *objective)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        OBJECTIVES.iter().find(|(_, objective)| *objective == self).map_or("", |(word, _)| word)
    }

    /// What a move costs whoever has this objective, ms; endless where it never reaches it.
    #[must_use]
    pub fn cost(self, prediction: &Prediction) -> f64 {
        let ends = |time: f64| if prediction.post_ms.is_some() { time } else { f64::INFINITY };
        match self {
            Objective::DownTime => prediction.down_ms.max(prediction.wait_ms),
            Objective::Total => ends(prediction.total_ms),
            Objective::SlowDown => prediction.delay_ms,
            Objective::Independence => ends(prediction.down_ms + prediction.post_ms.unwrap_or(0.0)),
        }
    }
}

/// Which of the predictions suits an objective best; none where there is none, or none that ever reaches it. What cannot be told
/// apart is decided by what is over sooner, and then by the order.
#[must_use]
pub fn choose(objective: Objective, predictions: &[Option<Prediction>]) -> Option<usize> {
    let costs = || predictions.iter().map(|prediction| prediction.map(|known| objective.cost(&known)));
    let best = costs().flatten().filter(|cost| cost.is_finite()).reduce(f64::min)?;
    // A twentieth, or a quarter of a millisecond, is less than two moves of the same kind differ.
    let like_best = |cost: f64| cost <= best * 1.05 + 0.25;
    let whole = |prediction: &Prediction| prediction.post_ms.map_or(f64::INFINITY, |_| prediction.total_ms);
    let candidates = predictions.iter().enumerate().filter_map(|(at, known)| known.map(|known| (at, known)));
    let equals = candidates.filter(|(_, known)| like_best(objective.cost(known)));
    equals.min_by(|one, other| whole(&one.1).total_cmp(&whole(&other.1))).map(|(at, _)| at)
}

impl Profile {
    /// How many different pages it writes in so long, as far as the sample goes and then as it went in the end.
    #[must_use]
    pub fn written_after(&self, time_ms: f64) -> f64 {
        let (mut before, mut slope) = ((0.0, 0.0), 0.0);
        for (time, pages) in &self.written {
            let point = (*time, *pages as f64);
            let span = point.0 - before.0;
            if span <= 0.0 {
                continue;
            }
            slope = (point.1 - before.1).max(0.0) / span;
            if time_ms <= point.0 {
                return (before.1 + slope * (time_ms - before.0)).min(self.pages as f64);
            }
            before = (point.0, point.1.max(before.1));
        }
        (before.1 + slope * (time_ms - before.0).max(0.0)).min(self.pages as f64)
    }
}

/// A move that is played.
struct Play<'a> {
    profile: &'a Profile,
    costs: &'a Costs,
    /// A page's time on the link, ms.
    page_link: f64,
    round_trip: f64,
    /// Pages that the destination does not hold in their true version.
    stale: f64,
    /// Of those, the ones that it holds in some version are all, once everything was sent.
    all_sent: bool,
    /// How long the last round took, ms.
    last_round: f64,
    /// Pages of which both sides remember a version.
    remembered: f64,
    /// How long ago what is stale was sent, ms.
    since_sent: f64,
    made: Prediction,
    transfers: f64,
}

/// What `row` would cost for this process over this link.
#[must_use]
pub fn predict(row: &Row, profile: &Profile, link: &LinkProfile, costs: &Costs) -> Prediction {
    let mut play = Play {
        profile,
        costs,
        page_link: PAGE / link.bytes_per_second.max(1.0) * 1e3,
        round_trip: link.round_trip_ms,
        stale: profile.pages as f64,
        all_sent: false,
        last_round: 0.0,
        remembered: 0.0,
        since_sent: 0.0,
        made: Prediction {
            post_ms: Some(costs.after + profile.pages as f64 * costs.page_after),
            ..Prediction::default()
        },
        transfers: 0.0,
    };
    let mut progress = Progress::START;
    for _ in 0..ROUNDS_MAX {
        progress = match decide_round(row, &progress) {
            Decision::Round(step) => match play.round(&row.steps[step]) {
                Some((left, moved)) => progress.after_round(step, left, moved),
                None => break,
            },
            Decision::Freeze => {
                play.freeze(needs_tracking(row), row.leaves_pages_behind());
                progress.entering(Phase::Down)
            }
            Decision::HandOver => progress.entering(Phase::PostProcessing),
            Decision::Finished => break,
        };
    }
    play.end()
}

impl Play<'_> {
    /// Plays a round; none where it never ends.
    fn round(&mut self, step: &Step) -> Option<(Left, bool)> {
        match step.phase {
            Phase::Preparation => Some(self.prepare(step.set)),
            Phase::Down => {
                let pages = self.wanted(step.set);
                self.made.down_ms += self.sending(pages, self.costs.page_down);
                self.transfers += pages;
                self.stale = (self.stale - pages).max(0.0);
                Some((Left::default(), pages > 0.0))
            }
            Phase::PostProcessing => self.post(step),
        }
    }

    fn wanted(&self, set: Set) -> f64 {
        match set {
            Set::All | Set::Modified => self.profile.pages as f64,
            Set::DirtySinceRound | Set::Rest => self.stale,
            Set::Stale if self.all_sent => self.stale,
            Set::Stale => 0.0,
            Set::Quiet(rounds) => {
                let recently = self.profile.written_after(self.last_round * f64::from(rounds));
                // Before the first round everything is as if it had just been written.
                if self.last_round > 0.0 { (self.stale - recently).max(0.0) } else { 0.0 }
            }
            Set::Working => 3.0_f64.min(self.stale),
            // How much lies unread nobody knows before.
            Set::Communication => 0.0,
        }
    }

    /// How long pages take of which each costs so much besides the link. What was sent before goes as what has changed of it, as far as
    /// that is remembered.
    fn sending(&self, pages: f64, each: f64) -> f64 {
        let (costs, again) = (self.costs, if self.all_sent { pages } else { 0.0 });
        let known = if self.page_link > costs.delta_from { again.min(self.remembered) } else { 0.0 };
        let new = pages - known;
        let packed = self.profile.packed_part.filter(|_| self.page_link > costs.delta_from).unwrap_or(1.0);
        let on_link = new.min(costs.unpacked) + (new - costs.unpacked).max(0.0) * packed + known * self.changed_part();
        (on_link * self.page_link).max(pages * each)
    }

    /// Which part of a page that is sent again goes over the link: the more the longer ago it was sent, as if what changes were strewn
    /// over it.
    fn changed_part(&self) -> f64 {
        let Some((after, part)) = self.profile.changed.filter(|(after, _)| *after > 0.0) else {
            return self.costs.delta_part;
        };
        let part = part.clamp(0.0, 1.0);
        let odds = part / (1.0 - part).max(1e-6) * self.since_sent / after;
        // It is named in any case.
        (odds / (1.0 + odds)).clamp(0.008, 1.0)
    }

    /// What is counted of the tree, weighed.
    fn weighed(&self, each: [f64; 3]) -> f64 {
        let counts = [self.profile.threads, self.profile.descriptors, self.profile.mappings];
        counts.iter().zip(each).map(|(count, each)| *count as f64 * each).sum()
    }

    fn prepare(&mut self, set: Set) -> (Left, bool) {
        let (costs, pages) = (self.costs, self.wanted(set));
        let least = if matches!(set, Set::Quiet(_)) { costs.quiet_round } else { costs.round };
        let first = self.made.preparation_ms == 0.0;
        let [thread, descriptor, mapping, _] = costs.each_prepared;
        let looking = self.weighed([thread, descriptor, mapping]);
        let time = self.sending(pages, costs.page_preparation).max(least) + looking;
        // A little process is remembered when it is sent first, of a large one what is sent again.
        if self.all_sent || self.profile.pages as f64 <= costs.delta_pages {
            self.remembered = (self.remembered + pages).min(costs.delta_pages).min(self.profile.pages as f64);
        }
        let written = self.profile.written_after(time);
        let sends_most = pages * 2.0 >= self.stale;
        self.stale = (self.stale - pages).max(written).min(self.profile.pages as f64);
        self.all_sent |= pages >= self.profile.pages as f64;
        self.transfers += pages;
        self.since_sent = if sends_most { time } else { self.since_sent + time };
        self.last_round = time;
        self.made.preparation_ms += time + if first { costs.tracking } else { 0.0 };
        self.made.delay_ms += written * costs.tracked_write + (pages * costs.page_preparation + looking) * costs.taken;
        let left = Left {
            pages: self.stale as u64,
            of: self.profile.pages,
            nanoseconds: (self.sending(self.stale, costs.page_preparation) * 1e6) as u64,
        };
        (left, pages > 0.0)
    }

    fn freeze(&mut self, tracked: bool, leaves: bool) {
        let [least, thread, descriptor, mapping] = self.costs.state;
        let state = least + self.weighed([thread, descriptor, mapping]);
        self.made.down_ms += self.weighed([self.costs.thread[1], self.costs.descriptor[1], self.costs.mapping[1]]);
        self.made.down_ms += state / PAGE * self.page_link;
        if leaves {
            // As much of these is stale as of all.
            let share = self.stale / (self.profile.pages as f64).max(1.0);
            let pages = (self.profile.never_owed_pages as f64 * share).min(self.stale);
            self.made.down_ms += self.sending(pages, self.costs.page_down);
            self.transfers += pages;
            self.stale -= pages;
        }
        let untracked = self.profile.untracked_pages as f64;
        let held = self.profile.pages as f64 - self.stale;
        self.made.down_ms += self.costs.down + self.round_trip * 2.0;
        self.made.down_ms += untracked * self.page_link.max(self.costs.page_down);
        self.transfers += untracked;
        if tracked {
            self.made.down_ms += self.profile.mappings as f64 * self.costs.each_prepared[3];
            self.made.down_ms += self.costs.down_tracked + held.max(0.0) * self.costs.page_confirmed;
            self.made.delay_ms += self.costs.tracking / 2.0;
        }
    }

    fn post(&mut self, step: &Step) -> Option<(Left, bool)> {
        let costs = self.costs;
        let owed = self.wanted(step.set).min(self.stale);
        let fault = self.round_trip + self.page_link + costs.fault;
        let behind_pushed = fault + costs.pushed_before_fault.min(owed * PAGE) / PAGE * self.page_link;
        if step.order == Order::FaultsOnly {
            if owed > 0.0 {
                let read = owed * READ_UNSEEN;
                let faults = (self.profile.written_after(DEMAND_WINDOW_MS) + read).min(owed);
                self.wait(faults, behind_pushed);
                self.made.delay_ms += (faults * fault).min(DEMAND_WINDOW_MS);
                self.transfers += faults;
                self.made.post_ms = None;
            }
            return None;
        }
        let time = self.sending(owed, costs.page_post);
        let share = owed / (self.profile.pages as f64).max(1.0);
        // Of what it touches meanwhile one half has come already, as much as is owed of it at all.
        let faults = self.profile.written_after(time) * share / 2.0;
        // It reads some, too, whose pages nobody has seen: of a large process it waits for one among them.
        let read = owed * READ_UNSEEN * (time / DEMAND_WINDOW_MS).min(1.0);
        self.wait(faults + read, behind_pushed);
        self.made.delay_ms += (faults * behind_pushed).min(time) + owed * costs.page_post * costs.taken_post;
        self.made.post_ms = self.made.post_ms.map(|post| post + time);
        self.transfers += owed;
        self.stale -= owed;
        Some((Left::default(), owed > 0.0))
    }

    /// Somebody waits so often, each time so long. What is only asked for is pushed, too, in the end: somebody settles it.
    fn wait(&mut self, faults: f64, fault: f64) {
        let longest = match faults {
            many if many >= WAITS => fault + self.costs.stall,
            some if some >= 1.0 => fault,
            _ => 0.0,
        };
        self.made.wait_ms = self.made.wait_ms.max(longest);
    }

    fn end(self) -> Prediction {
        let mut made = self.made;
        made.delay_ms += made.down_ms;
        let before =
            self.costs.before + self.weighed([self.costs.thread[0], self.costs.descriptor[0], self.costs.mapping[0]]);
        made.total_ms = before + made.preparation_ms + made.down_ms + made.post_ms.unwrap_or(0.0);
        made.transfers = self.transfers as u64;
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;
    use crate::table::TABLE;
    use alloc::vec;

    const SLOW: LinkProfile = LinkProfile { bytes_per_second: 12.5e6, round_trip_ms: 0.4 };
    const FAST: LinkProfile = LinkProfile { bytes_per_second: 4e9, round_trip_ms: 0.02 };

    fn process(pages: u64, per_ms: f64) -> Profile {
        let sample = |time: f64| (time, ((time * per_ms) as u64).min(pages));
        Profile { pages, written: vec![sample(20.0), sample(100.0)], ..Profile::default() }
    }

    fn by(name: &str, profile: &Profile, link: &LinkProfile) -> Prediction {
        predict(&parse(name).unwrap(), profile, link, &Costs::default())
    }

    fn chosen(objective: Objective, profile: &Profile, link: &LinkProfile) -> &'static str {
        let priced: Vec<_> = TABLE.iter().map(|row| Some(predict(row, profile, link, &Costs::default()))).collect();
        &TABLE[choose(objective, &priced).unwrap()].name
    }

    #[test]
    fn what_is_written_is_read_off_the_sample() {
        let profile = Profile { pages: 1000, written: vec![(20.0, 100), (100.0, 180)], ..Profile::default() };
        for (time, pages) in [(0.0, 0.0), (10.0, 50.0), (20.0, 100.0), (60.0, 140.0), (200.0, 280.0), (1e9, 1000.0)] {
            assert!((profile.written_after(time) - pages).abs() < 1e-9, "{time}");
        }
        assert!(Profile::default().written_after(50.0).abs() < f64::EPSILON);
    }

    #[test]
    fn more_memory_never_costs_less() {
        for row in TABLE {
            for link in [SLOW, FAST] {
                for per_ms in [0.0, 1.0] {
                    let prices: Vec<Prediction> = [24, 1000, 65_536, 262_144, 1 << 20]
                        .map(|pages| predict(row, &process(pages, per_ms), &link, &Costs::default()))
                        .to_vec();
                    for pair in prices.windows(2) {
                        assert!(pair[0].total_ms <= pair[1].total_ms + 1e-9, "{} {pair:?}", row.name);
                        assert!(pair[0].down_ms <= pair[1].down_ms + 25.0, "{} {pair:?}", row.name);
                    }
                }
            }
        }
    }

    #[test]
    fn who_writes_more_pays_no_less() {
        for row in TABLE {
            for link in [SLOW, FAST] {
                let prices: Vec<Prediction> = [0.0, 0.1, 1.0, 10.0, 100.0, 1000.0]
                    .map(|per_ms| predict(row, &process(65_536, per_ms), &link, &Costs::default()))
                    .to_vec();
                for pair in prices.windows(2) {
                    assert!(pair[0].delay_ms <= pair[1].delay_ms + 1e-9, "{} {pair:?}", row.name);
                    // Who waits for quiet pages may give up sooner, and send less.
                    let waits = row.steps.iter().any(|step| matches!(step.set, Set::Quiet(_)));
                    assert!(waits || pair[0].transfers <= pair[1].transfers + 64, "{} {pair:?}", row.name);
                }
            }
        }
    }

    #[test]
    fn a_slower_link_never_costs_less() {
        for row in TABLE {
            let prices: Vec<f64> = [1.25e6, 12.5e6, 125e6, 4e9]
                .map(|bytes_per_second| {
                    let link = LinkProfile { bytes_per_second, round_trip_ms: 0.1 };
                    predict(row, &process(1024, 0.1), &link, &Costs::default()).total_ms
                })
                .to_vec();
            assert!(prices.windows(2).all(|pair| pair[0] >= pair[1]), "{} {prices:?}", row.name);
        }
    }

    #[test]
    fn the_published_findings_are_predicted() {
        let (quiet, busy) = (process(262_144, 0.0), process(262_144, 100.0));
        // A total copy is down for all of it, post-copy for none of it, and each sends a page once.
        let (total, post) = (by("total-copy", &quiet, &SLOW), by("post-copy", &quiet, &SLOW));
        assert!(total.down_ms > 80_000.0 && post.down_ms < 10.0 && total.transfers == post.transfers);
        // What a total copy leaves to be done afterwards is to end the source.
        assert!(post.post_ms.unwrap() > 80_000.0 && total.post_ms.unwrap() < post.post_ms.unwrap() / 100.0);
        // Who writes faster than the link carries is sent again and again by pre-copy, and is down long all the same.
        let (pre, queued) = (by("pre-copy", &busy, &SLOW), by("queued-pre-copy", &busy, &SLOW));
        assert!(pre.transfers > 2 * total.transfers && pre.down_ms > 1000.0, "{pre:?}");
        assert!(queued.transfers <= pre.transfers, "{queued:?} {pre:?}");
    }

    #[test]
    fn each_objective_has_its_strategy() {
        let busy = process(262_144, 10.0);
        assert!(chosen(Objective::DownTime, &busy, &SLOW).contains("post-copy"));
        assert_eq!(chosen(Objective::Total, &process(24, 0.0), &FAST), "total-copy");
        assert!(chosen(Objective::Independence, &process(262_144, 0.0), &SLOW).contains("pre-copy"));
        // Who writes little over a fast link waits longer for one page, while all are pushed, than it takes to look at what it has written.
        assert_ne!(chosen(Objective::DownTime, &process(262_144, 1.0), &FAST), "post-copy");
        // Who writes nothing still reads, and the more is pushed the sooner what is not there yet.
        let quiet = |name, pages| Objective::DownTime.cost(&by(name, &process(pages, 0.0), &FAST));
        assert!(quiet("post-copy", 1024) < quiet("pre-copy", 1024));
        assert!(quiet("post-copy", 1 << 20) > quiet("pre-copy", 1 << 20));
        // What is sent again over a slow link is sent as what has changed, as far as that is remembered.
        let again = |pages| by("pre-copy", &process(pages, 1000.0), &SLOW).down_ms / pages as f64;
        assert!(again(1024) < again(65_536) / 3.0, "{} {}", again(1024), again(65_536));
        // What it will read nobody knows.
        for per_ms in [0.0, 1.0, 100.0] {
            assert_ne!(chosen(Objective::SlowDown, &process(65_536, per_ms), &FAST), "copy-on-reference");
        }
    }

    #[test]
    fn what_is_refused_is_never_chosen() {
        let priced = |down_ms: f64, post_ms: Option<f64>| Prediction { down_ms, post_ms, ..Prediction::default() };
        for (_, objective) in OBJECTIVES {
            assert_eq!(choose(objective, &[]), None);
            assert_eq!(choose(objective, &[None, None]), None);
            let one = [None, Some(priced(9.0, Some(1.0))), None];
            assert_eq!(choose(objective, &one), Some(1), "{objective:?}");
        }
        let endless = [Some(priced(1.0, None)), Some(priced(50.0, Some(1.0)))];
        assert_eq!(choose(Objective::Independence, &endless), Some(1));
        assert_eq!(choose(Objective::Total, &endless[..1]), None);
        assert_eq!(choose(Objective::DownTime, &endless), Some(0));
        // Like the best, and over sooner.
        let alike = [Some(priced(10.0, None)), Some(priced(10.1, Some(1.0)))];
        assert_eq!(choose(Objective::DownTime, &alike), Some(1));
    }

    #[test]
    fn objectives_have_names() {
        for (name, objective) in OBJECTIVES {
            assert_eq!((Objective::named(name), objective.name()), (Some(objective), name));
        }
        assert_eq!(Objective::named("speed"), None);
    }
}
